package forwardauth_test

import (
	"bufio"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/memnet"
)

// forwardauth 19: without MaxBody no body is sent and none is touched; with it
// the service gets it and the handler too, up to the limit.
func TestBody(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			for _, c := range []struct {
				name            string
				limit           int64
				body            string
				chunked         bool
				status          int
				asked, handlers string
			}{
				{"none", 0, "hello", false, 200, "", "hello"},
				{"none, chunked", 0, "hello", true, 200, "", "hello"},
				{"fits", 5, "hello", false, 200, "hello", "hello"},
				{"fits, chunked", 5, "hello", true, 200, "hello", "hello"},
				{"too large", 4, "hello", false, 413, "", ""},
				{"too large, chunked", 4, "hello", true, 413, "", ""},
				{"empty", 5, "", false, 200, "", ""},
				{"empty, chunked", 5, "", true, 200, "", ""},
				{"negative", -1, "hello", false, 200, "", "hello"},
			} {
				synctest.Test(t, func(t *testing.T) {
					s := says(200, "")
					m := mustNew(t, forwardauth.Config{Base: s, MaxBody: c.limit})
					var read string
					srv := memnet.Serve(t, p, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						b, err := io.ReadAll(r.Body)
						if err != nil {
							t.Error(err)
						}
						read = string(b)
					}))})
					var body io.Reader = strings.NewReader(c.body)
					if c.chunked {
						body = io.MultiReader(body)
					}
					r, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL, body)
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("Content-Type", "text/plain")
					res, err := srv.Client.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					asked := ""
					if s.count() > 0 {
						asked = s.bodies[0]
						if q := s.last(t); q.ContentLength != int64(len(c.asked)) || c.asked != "" && q.Header.Get("Content-Type") == "" || c.asked == "" && q.Body != http.NoBody {
							t.Errorf("%s: the service got length %d, %v", c.name, q.ContentLength, q.Header)
						}
					}
					if res.StatusCode != c.status || asked != c.asked || read != c.handlers {
						t.Errorf("%s: status %d, the service got %q, the handler %q", c.name, res.StatusCode, asked, read)
					}
				})
			}
		})
	}
}

// The handler may do with the bytes what it wants while the question is kept.
func TestBodyIsTheHandlersOwn(t *testing.T) {
	r := request("POST", "/")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
	s := says(200, "")
	h := do(t, forwardauth.Config{MaxBody: 10}, s, r)
	if h.read != "hello" || s.bodies[0] != "hello" || h.ran.ContentLength != 5 {
		t.Errorf("read %q", h.read)
	}
	r = request("POST", "/")
	r.Body, r.ContentLength = http.MaxBytesReader(newRecorder(), io.NopCloser(strings.NewReader("hello")), 2), -1
	if h := do(t, forwardauth.Config{MaxBody: 10}, says(200, ""), r); h.StatusCode != 413 {
		t.Errorf("an outer limit: status %d", h.StatusCode)
	}
	r.Body, r.ContentLength = io.NopCloser(errReader{}), -1
	if h := do(t, forwardauth.Config{MaxBody: 10}, says(200, ""), r); h.StatusCode != 400 || h.code(t) != "forwardauth_body" {
		t.Errorf("a body that breaks off: status %d", h.StatusCode)
	}
}

// forwardauth 19: a client that waits for 100 Continue is told no instead of it,
// and is told to go on when its body is wanted.
func TestExpectContinue(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		maxBody int64
		length  string
		want    string // the first line of the answer
	}{
		{"denied", 403, 0, "5", "HTTP/1.1 403 Forbidden"},
		{"allowed", 200, 0, "5", "HTTP/1.1 100 Continue"},
		{"part of the question", 403, 10, "5", "HTTP/1.1 100 Continue"},
		{"too large", 200, 10, "11", "HTTP/1.1 413 Request Entity Too Large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mustNew(t, forwardauth.Config{Base: says(c.status, ""), MaxBody: c.maxBody})
				srv := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
				}))})
				conn, err := srv.Listener.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, "POST / HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: "+c.length+"\r\n\r\n")
				br := bufio.NewReader(conn)
				line, err := br.ReadString('\n')
				if got := strings.TrimSpace(line); err != nil || got != c.want {
					t.Errorf("got %q, %v", got, err)
				}
				if strings.Contains(c.want, "Continue") {
					io.WriteString(conn, "hello")
					time.Sleep(time.Second)
					return
				}
				header, err := textproto.NewReader(br).ReadMIMEHeader()
				if err != nil || header.Get("Connection") != "close" {
					t.Errorf("the answer has %v, %v", header, err)
				}
			})
		})
	}
}

// forwardauth 20: an upgrade is judged before the handler can take the
// connection over, and the handler can then.
func TestUpgrade(t *testing.T) {
	for _, status := range []int{200, 401} {
		synctest.Test(t, func(t *testing.T) {
			s := says(status, "", "Set-Cookie: a=b")
			m := mustNew(t, forwardauth.Config{Base: s, SuccessCookies: forwardauth.AllCookies()})
			srv := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
				rw.Flush()
			}))})
			conn, err := srv.Listener.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n")
			all, _ := io.ReadAll(conn)
			if got := strings.HasSuffix(string(all), "\r\n\r\nhello"); got != (status == 200) || s.count() != 1 {
				t.Errorf("%d: the client got %q", status, all)
			}
			if status == 401 && !strings.HasPrefix(string(all), "HTTP/1.1 401 ") {
				t.Errorf("the client got %q", all)
			}
		})
	}
}
