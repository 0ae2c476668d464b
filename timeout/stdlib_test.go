package timeout_test

// What net/http promises of its TimeoutHandler holds here too. The tests of this
// file ask the questions of its tests in net/http's serve_test.go, with time
// that stands still until all wait. What differs on purpose: where the request's
// own context is cancelled, by a client that went away above all,
// TimeoutHandler writes 503 and its handler's Write fails with
// context.Canceled. Here the loggers outside see 499, and Write fails with
// http.ErrHandlerTimeout as after every other end.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// reply is all that a client saw of a response.
type reply struct {
	status int
	header http.Header
	body   string
	cut    error         // what ended the body before its end
	close  bool          // Connection: close
	after  time.Duration // when the header came
}

// ask sends a request and reads the response to its end.
func ask(t *testing.T, s *memnet.Server, method, path string, body io.Reader) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return askWith(t, s, req)
}

func askWith(t *testing.T, s *memnet.Server, req *http.Request) reply {
	t.Helper()
	start := time.Now()
	res, err := s.Transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer res.Body.Close()
	after := time.Since(start)
	text, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(text), err, res.Close, after}
}

// isProblem reports whether r is problem details with this status and code.
func (r reply) isProblem(status int, code string) bool {
	return r.status == status && r.cut == nil &&
		r.header.Get("Content-Type") == "application/problem+json" &&
		strings.Contains(r.body, strconv.Quote(code))
}

// serverLog collects what a server logs.
type serverLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func serveLogged(t *testing.T, p memnet.Proto, h http.Handler) (*memnet.Server, *serverLog) {
	logged := new(serverLog)
	return memnet.Serve(t, p, &http.Server{Handler: h, ErrorLog: log.New(logged, "", 0)}), logged
}

func serve(t *testing.T, p memnet.Proto, h http.Handler) *memnet.Server {
	return memnet.Serve(t, p, &http.Server{Handler: h})
}

// TestTimeoutHandler: an answer in time passes, and one too late is replaced;
// the handler's Write then fails.
func TestStdlibTimeoutHandler(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		sendHi := make(chan bool, 1)
		writeErrors := make(chan error, 1)
		s := serve(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-sendHi
				_, err := io.WriteString(w, "hi")
				writeErrors <- err
			})))

		sendHi <- true
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.body != "hi" || r.cut != nil {
			t.Errorf("in time: got %+v", r)
		}
		if err := <-writeErrors; err != nil {
			t.Errorf("in time: Write: %v", err)
		}

		r := ask(t, s, "GET", "/", nil)
		if !r.isProblem(http.StatusServiceUnavailable, "timeout_total") || r.after != time.Second {
			t.Errorf("too late: got %+v", r)
		}
		sendHi <- true // the handler that was left behind speaks again
		if err := <-writeErrors; err != http.ErrHandlerTimeout {
			t.Errorf("too late: Write: %v, want %v", err, http.ErrHandlerTimeout)
		}
	})
}

// TestTimeoutHandlerRace (issues 8209 and 8414): handlers that end before, at and
// after the limit get whole answers or 503.
func TestStdlibRace(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: 20 * time.Millisecond}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n, _ := strconv.Atoi(r.URL.Path[1:])
				for range n {
					io.WriteString(w, "hi")
					time.Sleep(time.Millisecond)
				}
			})))
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				n := 1 + rand.N(40)
				res, err := s.Client.Get(s.URL + "/" + strconv.Itoa(n))
				if err != nil {
					t.Errorf("%d ms: %v", n, err)
					return
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				whole := res.StatusCode == http.StatusOK && string(body) == strings.Repeat("hi", n)
				late := res.StatusCode == http.StatusServiceUnavailable
				if err != nil || whole && n > 20 || late && n < 20 || !whole && !late {
					t.Errorf("%d ms: got %d, %q, %v", n, res.StatusCode, body, err)
				}
			})
		}
		all.Wait()
	})
}

// TestTimeoutHandlerRaceHeader (issues 8209 and 8414): a limit that passes while
// the handler sends its header does no harm.
func TestStdlibRaceHeader(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Nanosecond}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Nanosecond)
				w.WriteHeader(http.StatusNoContent)
			})))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				res, err := s.Client.Get(s.URL)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Error(err)
				}
				if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("got %d", res.StatusCode)
				}
			})
		}
		all.Wait()
	})
}

// TestTimeoutHandlerRaceHeaderTimeout (issue 9162): a header that the handler
// has set before the limit passes is not in the answer, and what it does to
// its map later is no race.
func TestStdlibRaceHeaderTimeout(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		sendHi := make(chan bool, 1)
		writeErrors := make(chan error, 1)
		s := serve(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				w.Header().Set("X-Handler", "before")
				<-sendHi
				w.Header().Set("X-Handler", "after")
				_, err := io.WriteString(w, "hi")
				writeErrors <- err
			})))

		sendHi <- true
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.body != "hi" || r.header.Get("X-Handler") != "after" {
			t.Errorf("in time: got %+v", r)
		}
		if err := <-writeErrors; err != nil {
			t.Errorf("in time: Write: %v", err)
		}

		r := ask(t, s, "GET", "/", nil)
		if !r.isProblem(http.StatusServiceUnavailable, "timeout_total") || r.header["X-Handler"] != nil {
			t.Errorf("too late: got %+v", r)
		}
		sendHi <- true
		if err := <-writeErrors; err != http.ErrHandlerTimeout {
			t.Errorf("too late: Write: %v, want %v", err, http.ErrHandlerTimeout)
		}
	})
}

// TestTimeoutHandlerStartTimerWhenServing (issue 14568): the time runs from the
// request, not from the making of the handler.
func TestStdlibStartTimerWhenServing(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: 300 * time.Millisecond}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })))
		for range 3 {
			time.Sleep(600 * time.Millisecond)
			if r := ask(t, s, "GET", "/", nil); r.status != http.StatusNoContent {
				t.Errorf("got %+v", r)
			}
		}
	})
}

// TestTimeoutHandlerContextCanceled: see the top of this file for what differs.
func TestStdlibContextCanceled(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		writeErrors := make(chan error, 1)
		h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Minute}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				var err error
				for range 100 {
					if _, err = io.WriteString(w, "a"); err != nil {
						break
					}
					time.Sleep(time.Millisecond) // the middleware may yet have to notice
				}
				writeErrors <- err
			}))
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			h.ServeHTTP(w, r.WithContext(ctx))
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != 499 || r.body != "" || r.header["Content-Type"] != nil {
			t.Errorf("got %+v, want 499 without the handler's header", r)
		}
		if err := <-writeErrors; err != http.ErrHandlerTimeout {
			t.Errorf("Write: %v, want %v", err, http.ErrHandlerTimeout)
		}
	})
}

// TestTimeoutHandlerEmptyResponse (issue 15948): a handler that does nothing has
// answered with 200.
func TestStdlibEmptyResponse(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: 300 * time.Millisecond}}).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		r := ask(t, serve(t, p, h), "GET", "/", nil)
		if r.status != http.StatusOK || r.body != "" || r.cut != nil || r.header.Get("Content-Length") != "0" {
			t.Errorf("got %+v", r)
		}
	})
}

// TestTimeoutHandlerPanicRecovery (issue 22084): a panic reaches the server, with
// the stack that TimeoutHandler loses, and http.ErrAbortHandler reaches it
// bare.
func TestStdlibPanicRecovery(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}}).Handler(http.HandlerFunc(dieOnPurpose))
		for _, c := range []struct {
			path string
			want []string // in the log; none at all: an empty one
		}{
			{"/die", []string{"intentional death for testing", "timeout_test.dieOnPurpose"}},
			{"/abort", nil},
		} {
			s, logged := serveLogged(t, p, h)
			if res, err := s.Client.Get(s.URL + c.path); err == nil {
				t.Errorf("%s: got %s", c.path, res.Status)
				res.Body.Close()
			}
			synctest.Wait()
			for _, text := range c.want {
				if !strings.Contains(logged.String(), text) {
					t.Errorf("%s: the log lacks %q:\n%s", c.path, text, logged)
				}
			}
			if c.want == nil && logged.String() != "" {
				t.Errorf("%s: the log has %s", c.path, logged)
			}
		}
	})
}

func dieOnPurpose(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/abort" {
		panic(http.ErrAbortHandler)
	}
	panic("intentional death for testing")
}

// TestTimeoutHandlerSuperfluousLogs (issue 30803): each further WriteHeader is
// logged with the function, file and line that called it, whether the
// handler is in time or not.
func TestStdlibSuperfluousLogs(t *testing.T) {
	for _, c := range []struct {
		name   string
		late   bool
		status int
	}{
		{"returns in time", false, http.StatusNotFound},
		{"returns too late", true, http.StatusServiceUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
				type place struct {
					function, file string
					line           int
				}
				var last place
				h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}}).Handler(
					http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(404)
						w.WriteHeader(404)
						w.WriteHeader(404)
						w.WriteHeader(404)
						pc, file, line, _ := runtime.Caller(0)
						last = place{runtime.FuncForPC(pc).Name(), filepath.Base(file), line}
						if c.late {
							<-r.Context().Done()
						}
					}))
				s, logged := serveLogged(t, p, h)
				if r := ask(t, s, "GET", "/", nil); r.status != c.status || r.cut != nil {
					t.Errorf("got %+v", r)
				}
				synctest.Wait()
				var want strings.Builder
				for line := last.line - 3; line < last.line; line++ {
					fmt.Fprintf(&want, "http: superfluous response.WriteHeader call from %s (%s:%d)\n", last.function, last.file, line)
				}
				if logged.String() != want.String() {
					t.Errorf("log:\n%swant:\n%s", logged, &want)
				}
			})
		})
	}
}
