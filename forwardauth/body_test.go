package forwardauth_test

import (
	"bufio"
	"context"
	"io"
	"math"
	"net/http"
	"net/textproto"
	"runtime"
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
	// Its length is not believed, and who is refused when all was read need not
	// connect again.
	r = request("POST", "/")
	r.Body, r.ContentLength = newBody("hello"), 3
	if h := do(t, forwardauth.Config{MaxBody: 10}, says(403, ""), r); h.StatusCode != 403 || h.Header.Get("Connection") != "" {
		t.Errorf("status %d, %v", h.StatusCode, h.Header)
	}
	r.Body = newBody("hello")
	if h := do(t, forwardauth.Config{MaxBody: 10}, says(200, ""), r); h.read != "hello" {
		t.Errorf("read %q", h.read)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r.Body, r.ContentLength = io.NopCloser(errReader{}), -1
	if h := do(t, forwardauth.Config{MaxBody: 10}, says(200, ""), r.WithContext(ctx)); h.StatusCode != 499 || h.ran != nil {
		t.Errorf("a client that has left: status %d", h.StatusCode)
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

// An extended CONNECT has no body to read before the answer: the client waits
// for that with what it has to send (RFC 8441, section 5). An upgrade over
// HTTP/1.1 cannot hide its body in this way.
func TestUpgradeBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int64{0, 1024} {
			r := request("CONNECT", "/chat")
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
			r.Header[":protocol"] = []string{"websocket"}
			body, client := io.Pipe()
			r.Body, r.ContentLength = body, -1
			ran := false
			h := mustNew(t, forwardauth.Config{Base: says(200, ""), MaxBody: limit}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ran = true
				w.WriteHeader(http.StatusOK)
				go func() {
					io.WriteString(client, "frame")
					client.Close()
				}()
				if b, err := io.ReadAll(r.Body); string(b) != "frame" || err != nil {
					t.Errorf("the handler read %q, %v", b, err)
				}
			}))
			time.AfterFunc(time.Minute, func() { client.Close() })
			h.ServeHTTP(newRecorder(), r)
			if !ran {
				t.Errorf("MaxBody %d: the handler did not run", limit)
			}
		}
		r := request("POST", "/chat", "Connection: Upgrade", "Upgrade: websocket")
		r.Body, r.ContentLength = newBody("hello"), -1
		s := says(200, "")
		if h := do(t, forwardauth.Config{MaxBody: 10}, s, r); s.bodies[0] != "hello" || h.read != "hello" {
			t.Errorf("the service got %q, the handler %q", s.bodies[0], h.read)
		}
	})
}

// forwardauth 11, 19: no limit is a limit too: the largest one loses nothing.
func TestLargestLimits(t *testing.T) {
	for _, announced := range []int64{5, -1} {
		r := request("POST", "/")
		r.Body, r.ContentLength = newBody("hello"), announced
		s := says(403, "no entry")
		c := forwardauth.Config{MaxBody: math.MaxInt64, MaxResponse: math.MaxInt64}
		if h := do(t, c, s, r); s.bodies[0] != "hello" || h.body != "no entry" {
			t.Errorf("the service got %q, the client %q", s.bodies[0], h.body)
		}
	}
	// What is announced is not believed, whatever fits an int on this machine.
	r := request("POST", "/")
	r.Body, r.ContentLength = newBody("x"), 3<<30
	before := allocated()
	h := do(t, forwardauth.Config{MaxBody: 4 << 30}, says(200, ""), r)
	if got := allocated() - before; h.StatusCode == 200 && h.read != "x" || got > 4<<20 {
		t.Errorf("status %d, %d bytes allocated", h.StatusCode, got)
	}
}

// What the docs say is held for a body while the service is asked, and that
// reading it takes no more than they say.
func TestBodyMemory(t *testing.T) {
	const size = 1 << 20
	body := strings.Repeat("\x01", size)
	for _, c := range []struct {
		mode      forwardauth.Mode
		announced int64
		most      uint64 // in sizes
	}{
		{forwardauth.Traefik, size, 1}, {forwardauth.Traefik, -1, 1}, {forwardauth.JSON, size, 13},
	} {
		var before, held uint64
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			runtime.GC()
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			held = now.HeapAlloc - min(before, now.HeapAlloc)
			runtime.KeepAlive(r)
			return response(200, `{"result": true}`), nil
		})
		m := mustNew(t, forwardauth.Config{Mode: c.mode, MaxBody: size, Base: base})
		r := request("POST", "/")
		r.Body, r.ContentLength = newBody(body), c.announced
		runtime.GC()
		runtime.GC() // the second empties what a sync.Pool has kept over the first
		var at runtime.MemStats
		runtime.ReadMemStats(&at)
		before = at.HeapAlloc
		m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(newRecorder(), r)
		if held > c.most*size+size/2 {
			t.Errorf("%v, length %d: %.1f times the body is held", c.mode, c.announced, float64(held)/size)
		}
	}
}

func allocated() uint64 {
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	return now.TotalAlloc
}
