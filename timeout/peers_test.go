package timeout_test

// The questions that the tests of other timeout handlers ask, asked again here:
// knative's queue-proxy, the API server of Kubernetes, and Caddy's idle
// timeouts. A comment names the test of the peer where the answer differs.

import (
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// requestTimeout answers as knative does.
func requestTimeout(w http.ResponseWriter, r *http.Request, err error) {
	w.WriteHeader(http.StatusGatewayTimeout)
	io.WriteString(w, "request timeout")
}

// knative, TestTimeToResponseStartTimeoutHandler: an answer in time, a custom
// message, a panic in time and a panic too late.
func TestKnativeResponseStart(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
		panics  bool
		late    []bool // Late.Running of the reports
	}{
		{name: "all good", status: http.StatusOK, body: "hi",
			handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hi") }},
		{name: "custom message", status: http.StatusGatewayTimeout, body: "request timeout", late: []bool{true, false},
			handler: func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(2 * time.Second)
				if _, err := io.WriteString(w, "hi"); err != http.ErrHandlerTimeout {
					panic(fmt.Sprint("Write: ", err))
				}
			}},
		{name: "panic in time", status: http.StatusOK, panics: true,
			handler: func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }},
		{name: "panic too late", status: http.StatusGatewayTimeout, body: "request timeout", late: []bool{true, false},
			handler: func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(2 * time.Second)
				panic(http.ErrAbortHandler)
			}},
		{name: "panic too late but within the grace", status: http.StatusGatewayTimeout, body: "request timeout", late: []bool{false},
			handler: func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var late []timeout.Late
				h := newMiddleware(t, timeout.Config{
					Limits:       timeout.Limits{FirstByte: time.Second},
					ErrorHandler: requestTimeout,
					OnLate:       func(_ *http.Request, l timeout.Late) { late = append(late, l) },
				}).Handler(c.handler)
				w := httptest.NewRecorder()
				func() {
					defer func() {
						if v := recover(); (v != nil) != c.panics || v != nil && v != http.ErrAbortHandler {
							t.Errorf("panic: %v", v)
						}
					}()
					h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
				}()
				time.Sleep(time.Minute)
				synctest.Wait()
				if w.Code != c.status || w.Body.String() != c.body {
					t.Errorf("got %d, %q", w.Code, w.Body)
				}
				var running []bool
				for _, l := range late {
					running = append(running, l.Running)
					if l.Panic != nil && l.Panic != http.ErrAbortHandler {
						t.Errorf("late panic: %v", l.Panic)
					}
				}
				if fmt.Sprint(running) != fmt.Sprint(c.late) {
					t.Errorf("OnLate: %+v", late)
				}
			})
		})
	}
}

// knative, TestResponseStartTimeoutAfterResponseStarted (knative/serving#15352):
// the limit passes after the response has begun, which then ends as it should.
// Here it begins with the flush.
func TestKnativeStartedBeforeResponseStart(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: 30 * time.Second, FirstByte: 50 * time.Millisecond}})
		s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Millisecond)
			io.WriteString(w, "response started")
			w.(http.Flusher).Flush()
			time.Sleep(50 * time.Millisecond)
			io.WriteString(w, " and finished")
		})))
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.body != "response started and finished" || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// knative, TestIdleTimeoutHandler. Its idle time runs from the last write; here
// only the client can be idle, and a handler that pauses never is. What it
// calls idle is Total.
func TestKnativeIdle(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{WriteIdle: 100 * time.Millisecond, FirstByte: time.Minute, Total: time.Hour}})
		ended := make(chan error, 1)
		s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			flush := http.NewResponseController(w).Flush
			switch r.URL.Path {
			case "/good":
				io.WriteString(w, "hi")
			case "/panic":
				panic(http.ErrAbortHandler)
			case "/pauses":
				for _, word := range []string{"foo", "bar", "baz", "test"} {
					io.WriteString(w, word)
					flush()
					time.Sleep(time.Minute)
				}
			case "/stalls":
				io.WriteString(w, "foo")
				flush()
				_, err := io.Copy(w, zeros{})
				ended <- err
			}
		})))
		for path, want := range map[string]string{"/good": "hi", "/pauses": "foobarbaztest"} {
			if r := ask(t, s, "GET", path, nil); r.status != http.StatusOK || r.body != want || r.cut != nil {
				t.Errorf("%s: got %+v", path, r)
			}
		}
		if res, err := s.Transport.RoundTrip(httptest.NewRequest("GET", s.URL+"/panic", nil)); err == nil {
			t.Errorf("/panic: got %s", res.Status)
			res.Body.Close()
		}
		// The client reads nothing after a successful write. knative appends
		// its message to what was sent; here the response is cut.
		res, err := s.Client.Get(s.URL + "/stalls")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		start := time.Now()
		if err := <-ended; err == nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("/stalls: the handler ended after %v with %v", time.Since(start), err)
		}
		if rest, err := io.ReadAll(res.Body); err == nil || strings.Contains(string(rest), "timeout") {
			t.Errorf("/stalls: read %d bytes, %v", len(rest), err)
		}
	})
}

// Kubernetes, TestTimeoutHeaders, TestTimeoutRequestHeaders and
// TestTimeoutWithLogging: a handler that goes on changing both its header maps
// is no race for the answer, or for a logger outside that looks at the
// request's and the response's.
func TestKubernetesHeaders(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Millisecond}}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(stopped)
			response := w.Header()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					time.Sleep(100 * time.Microsecond)
					value := fmt.Sprint(i)
					r.Header.Set("X-"+value, value)
					response.Set("X-"+value, value)
					w.Header().Set("X-Test", value)
				}
			}
		}))
		var logged strings.Builder
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			for range 10 {
				fmt.Fprintln(&logged, maps.Clone(r.Header), maps.Clone(w.Header()))
				time.Sleep(100 * time.Microsecond)
			}
			close(stop)
		}))
		req, _ := http.NewRequestWithContext(t.Context(), "PATCH", s.URL, nil)
		req.Header.Set("X-Client", "c")
		r := askWith(t, s, req)
		if !r.isProblem(http.StatusServiceUnavailable, "timeout_total") || r.header["X-Test"] != nil || r.header["X-0"] != nil {
			t.Errorf("got %+v", r)
		}
		<-stopped
		if text := logged.String(); strings.Contains(text, "X-0") || strings.Count(text, "X-Client:[c]") != 10 {
			t.Errorf("logged %s", text)
		}
	})
}

// Kubernetes, TestErrConnKilled and TestErrConnKilledHTTP2: a response that has
// begun is cut without a stack in the log, and over HTTP/2 the connection stays.
func TestKubernetesConnectionKilled(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s, logged := serveLogged(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "hello from the handler")
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})))
		for i := range 3 {
			var reused bool
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
			if r := askWith(t, s, req); r.status != http.StatusOK || r.body != "hello from the handler" || r.cut == nil {
				t.Errorf("got %+v", r)
			}
			if want := i > 0 && p != memnet.HTTP1; reused != want {
				t.Errorf("request %d: the connection was reused: %v", i, reused)
			}
			time.Sleep(time.Second)
		}
		if logged.String() != "" {
			t.Errorf("log: %s", logged)
		}
	})
}

// Kubernetes, the write deadlines of read_write_deadline_test.go: a deadline
// that the handler has set itself works below the middleware as without it. But
// over HTTP/2 the server resets the stream when it passes, whether a write is
// under way or not. To the hard middleware that is a client that went away,
// after which Write fails with http.ErrHandlerTimeout.
func TestKubernetesWriteDeadline(t *testing.T) {
	const deadline = 100 * time.Millisecond
	for _, c := range []struct {
		name    string
		handler func(w http.ResponseWriter, rc *http.ResponseController) error
		body    string // what the client reads; every response is cut
		noReply bool   // there is not even a header
	}{
		{name: "writes fail at last", noReply: true,
			handler: func(w http.ResponseWriter, rc *http.ResponseController) error {
				rc.SetWriteDeadline(time.Now().Add(deadline))
				time.Sleep(time.Second)
				for {
					if _, err := w.Write(make([]byte, 1000)); err != nil {
						return err
					}
				}
			}},
		{name: "a flush fails", noReply: true,
			handler: func(w http.ResponseWriter, rc *http.ResponseController) error {
				rc.SetWriteDeadline(time.Now().Add(deadline))
				time.Sleep(time.Second)
				io.WriteString(w, "hello")
				return rc.Flush()
			}},
		{name: "what was written before and not flushed is lost", noReply: true,
			handler: func(w http.ResponseWriter, rc *http.ResponseController) error {
				io.WriteString(w, "hello")
				rc.SetWriteDeadline(time.Now().Add(deadline))
				time.Sleep(time.Second)
				return rc.Flush()
			}},
		{name: "what was flushed before arrives", body: "hello",
			handler: func(w http.ResponseWriter, rc *http.ResponseController) error {
				io.WriteString(w, "hello")
				if err := rc.Flush(); err != nil {
					return fmt.Errorf("before the deadline: %v", err)
				}
				rc.SetWriteDeadline(time.Now().Add(deadline))
				time.Sleep(time.Second)
				io.WriteString(w, "world")
				return rc.Flush()
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
				ended := make(chan error, 1)
				s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
					ended <- c.handler(w, http.NewResponseController(w))
				}))
				res, err := s.Transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), "GET", s.URL, nil))
				switch {
				case (err != nil) != c.noReply:
					t.Errorf("the client got %v, %v", res, err)
				case err == nil:
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if string(body) != c.body || err == nil {
						t.Errorf("the client read %q, %v", body, err)
					}
				}
				err = <-ended
				reset := p != memnet.HTTP1 && strings.Contains(t.Name(), "/hard/") && err == http.ErrHandlerTimeout
				if !errors.Is(err, os.ErrDeadlineExceeded) && !reset {
					t.Errorf("the handler got %v, want os.ErrDeadlineExceeded", err)
				}
			})
		})
	}
}

// Kubernetes, TestPerRequestWithHandlerShouldAbortWriteAfterDeadline and
// TestPerRequestWithSlowReader: a deadline ends a handler that writes on and on,
// to a client that reads too slowly.
func TestKubernetesSlowReader(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		ended := make(chan error, 1)
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			for {
				_, err := w.Write(make([]byte, 10_000))
				if err == nil {
					err = rc.Flush()
				}
				if err != nil {
					ended <- err
					return
				}
			}
		}))
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for err == nil {
			_, err = io.CopyN(io.Discard, res.Body, 4096)
			time.Sleep(10 * time.Millisecond)
		}
		if err == io.EOF {
			t.Error("the client read a whole body")
		}
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler got %v, want os.ErrDeadlineExceeded", err)
		}
	})
}

// Kubernetes, the read deadlines of read_write_deadline_test.go: a body of which
// nothing arrives, one of which a part does, and none.
func TestKubernetesReadDeadline(t *testing.T) {
	const deadline = 100 * time.Millisecond
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if r.URL.Path == "/part" {
				first := make([]byte, 5)
				if _, err := io.ReadFull(r.Body, first); err != nil || string(first) != "hello" {
					t.Errorf("/part: read %q, %v", first, err)
				}
			}
			if err := rc.SetReadDeadline(time.Now().Add(deadline)); err != nil {
				t.Errorf("SetReadDeadline: %v", err)
			}
			if r.URL.Path == "/none" {
				time.Sleep(time.Second)
			}
			rest, err := io.ReadAll(r.Body)
			if r.URL.Path == "/none" && err != nil || r.URL.Path != "/none" && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: read %q, %v", r.URL.Path, rest, err)
			}
			w.Write(rest)
			if err := rc.Flush(); err != nil {
				t.Errorf("%s: Flush: %v", r.URL.Path, err)
			}
		}))
		for _, c := range []struct{ path, sends, want string }{
			{"/nothing", "", ""},
			{"/part", "helloworld", "world"},
			// Last, since the server takes it for the end of the connection when
			// a read deadline passes that was set for a request without a body.
			{"/none", "", ""},
		} {
			var body io.Reader
			if c.path != "/none" {
				pr, pw := pipeBody(t)
				go io.WriteString(pw, c.sends)
				body = pr
			}
			if r := ask(t, s, "POST", c.path, body); r.status != http.StatusOK || r.body != c.want || r.cut != nil {
				t.Errorf("%s: got %+v", c.path, r)
			}
		}
	})
}

// Kubernetes, TestPerRequestWithHijackedConnectionShouldResetDeadline: deadlines
// from before do not hold for a connection that was taken over.
func TestKubernetesHijackedDeadline(t *testing.T) {
	inEachMode(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(time.Second))
			rc.SetWriteDeadline(time.Now().Add(time.Second))
			conn, rw, err := rc.Hijack()
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			defer conn.Close()
			time.Sleep(5 * time.Second)
			rw.WriteString("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
			if err := rw.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.body != "hello" || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// Kubernetes, TestPerRequestWithConnectionIsReused: after a write deadline has
// passed an HTTP/2 connection serves the next request, and an HTTP/1.1 client
// needs a new one.
func TestKubernetesConnectionReused(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/2" {
				return
			}
			rc := http.NewResponseController(w)
			io.WriteString(w, "hello")
			rc.Flush()
			rc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			time.Sleep(time.Second)
			io.WriteString(w, "world")
			rc.Flush()
		}))
		for _, path := range []string{"/1", "/2"} {
			var reused bool
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			req, _ := http.NewRequestWithContext(ctx, "GET", s.URL+path, nil)
			r := askWith(t, s, req)
			if r.status != http.StatusOK || (r.cut != nil) != (path == "/1") || reused != (path == "/2" && p != memnet.HTTP1) {
				t.Errorf("%s: reused %v, got %+v", path, reused, r)
			}
			time.Sleep(time.Second)
		}
	})
}

// Caddy, TestIdleTimeoutReader: see also the tests of ReadIdle. A slow body that
// makes progress passes, and one with a single long gap does not.
func TestCaddyReadIdle(t *testing.T) {
	const idle = 150 * time.Millisecond
	for _, cooperative := range []bool{false, true} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{ReadIdle: idle}, Cooperative: cooperative})
			s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })))
			for _, c := range []struct {
				pause  time.Duration
				status int
			}{{idle / 4, http.StatusOK}, {4 * idle, http.StatusRequestTimeout}} {
				pr, pw := pipeBody(t)
				go func() {
					for range 8 {
						time.Sleep(c.pause)
						if _, err := pw.Write(make([]byte, 8)); err != nil {
							return
						}
					}
					pw.Close()
				}()
				if r := ask(t, s, "POST", "/", pr); r.status != c.status {
					t.Errorf("pauses of %v: got %+v", c.pause, r)
				}
				pr.CloseWithError(errStalled)
			}
		})
	}
}

// Caddy, TestIdleTimeoutReaderDeadlineClearedAfterBodyEOF (caddyserver/caddy#8103)
// and …HandlerDonePreservesHTTP1Connection: once the body has ended, nothing
// cancels a request that works for longer than the limit, and the connection
// stays in use when a part of the body was not read.
func TestCaddyEndOfBody(t *testing.T) {
	const idle = 100 * time.Millisecond
	for _, cooperative := range []bool{false, true} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{ReadIdle: idle, WriteIdle: idle}, Cooperative: cooperative})
			s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/all":
					io.Copy(io.Discard, r.Body)
				case "/part":
					r.Body.Read(make([]byte, 1))
				case "/exact":
					io.ReadFull(r.Body, make([]byte, r.ContentLength))
				}
				select {
				case <-r.Context().Done():
					w.WriteHeader(http.StatusTeapot)
				case <-time.After(3 * idle):
				}
			})))
			for i, path := range []string{"/all", "/exact", "/part", "/all"} {
				var reused bool
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
				req, _ := http.NewRequestWithContext(ctx, "POST", s.URL+path, strings.NewReader("body"))
				if r := askWith(t, s, req); r.status != http.StatusOK || reused != (i > 0) {
					t.Errorf("cooperative %v, %s: reused %v, got %+v", cooperative, path, reused, r)
				}
				time.Sleep(3 * idle)
			}
		})
	}
}

// Caddy, TestIdleTimeoutReaderAfterHandlerReturnsHTTP2: a read after the handler
// has returned is no panic, and does not wait.
func TestCaddyReadAfterReturn(t *testing.T) {
	for _, cooperative := range []bool{false, true} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			m := newMiddleware(t, timeout.Config{Limits: generous, Cooperative: cooperative})
			body := make(chan io.ReadCloser, 1)
			s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body <- r.Body
				io.WriteString(w, "ok")
			})))
			if r := ask(t, s, "POST", "/", strings.NewReader("body")); r.body != "ok" || r.cut != nil {
				t.Errorf("got %+v", r)
			}
			b := <-body
			start := time.Now()
			io.Copy(io.Discard, b)
			b.Close()
			if time.Since(start) > 0 {
				t.Errorf("cooperative %v: took %v", cooperative, time.Since(start))
			}
		})
	}
}

// Caddy, TestIdleTimeoutReader_HardDeadlineCapsIdleReset and
// TestIdleTimeoutWriter_HardDeadlineCapsIdleReset: a deadline that the handler
// has set itself is not extended by progress.
func TestCaddyHandlersOwnDeadline(t *testing.T) {
	const idle, own = 500 * time.Millisecond, 300 * time.Millisecond
	for _, cooperative := range []bool{false, true} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{ReadIdle: idle, WriteIdle: idle}, Cooperative: cooperative})
			ended := make(chan error, 1)
			s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				start := time.Now()
				var err error
				if r.URL.Path == "/read" {
					rc.SetReadDeadline(start.Add(own))
					_, err = io.Copy(io.Discard, r.Body)
				} else {
					rc.SetWriteDeadline(start.Add(own))
					for err == nil {
						_, err = w.Write(make([]byte, 100<<10))
					}
				}
				if time.Since(start) != own {
					err = fmt.Errorf("after %v: %v", time.Since(start), err)
				}
				ended <- err
			})))

			pr, pw := pipeBody(t)
			go func() {
				for {
					if _, err := pw.Write([]byte{0}); err != nil {
						return
					}
					time.Sleep(own / 4)
				}
			}()
			res, err := s.Client.Post(s.URL+"/read", "text/plain", pr)
			if err == nil {
				res.Body.Close()
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("cooperative %v: the reads ended with %v", cooperative, err)
			}
			pr.CloseWithError(errStalled)

			if res, err = s.Client.Get(s.URL + "/write"); err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for err == nil { // slowly, but never so that a write waits for idle
				_, err = io.CopyN(io.Discard, res.Body, 100<<10)
				time.Sleep(own / 4)
			}
			if err == io.EOF {
				t.Errorf("cooperative %v: the client read a whole body", cooperative)
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("cooperative %v: the writes ended with %v", cooperative, err)
			}
		})
	}
}

// Caddy, TestIdleTimeoutWriter and TestIdleTimeoutWriter_Streaming
// (caddyserver/caddy#8118): pauses between writes, shorter and longer than the
// limit, reset nothing.
func TestCaddyWritePauses(t *testing.T) {
	const idle = 100 * time.Millisecond
	for _, cooperative := range []bool{false, true} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{WriteIdle: idle}, Cooperative: cooperative})
			s := memnet.Serve(t, p, &http.Server{
				ErrorLog: log.New(io.Discard, "", 0),
				Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					for i := range 8 {
						time.Sleep(time.Duration(i) * idle / 2)
						fmt.Fprintf(w, "data: %d\n\n", i)
						if err := http.NewResponseController(w).Flush(); err != nil {
							t.Errorf("Flush: %v", err)
						}
					}
					time.Sleep(10 * idle)
				})),
			})
			if r := ask(t, s, "GET", "/", nil); strings.Count(r.body, "\n\n") != 8 || r.cut != nil {
				t.Errorf("cooperative %v: got %+v", cooperative, r)
			}
		})
	}
}
