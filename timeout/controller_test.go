package timeout_test

// What a handler can do through http.ResponseController it can do below the
// middleware. The tests of this file ask the questions of net/http's
// responsecontroller_test.go.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// inBubbles runs f in a synctest bubble for each of the protocols.
func inBubbles(t *testing.T, protos []memnet.Proto, f func(t *testing.T, p memnet.Proto)) {
	t.Helper()
	for _, p := range protos {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Runs last: the clock stands still when a bubble's test has
				// ended, so whoever still sleeps must wake up before.
				t.Cleanup(func() { time.Sleep(time.Hour) })
				f(t, p)
			})
		})
	}
}

// inEachMode runs f over the protocols, with wrap making a handler keep
// generous limits in a goroutine of its own or cooperatively.
func inEachMode(t *testing.T, protos []memnet.Proto, f func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler)) {
	t.Helper()
	for _, cooperative := range []bool{false, true} {
		name := "hard"
		if cooperative {
			name = "cooperative"
		}
		t.Run(name, func(t *testing.T) {
			inBubbles(t, protos, func(t *testing.T, p memnet.Proto) {
				m := newMiddleware(t, timeout.Config{Limits: generous, Cooperative: cooperative})
				f(t, p, func(h http.HandlerFunc) http.Handler { return m.Handler(h) })
			})
		})
	}
}

// TestResponseControllerFlush: what was written reaches the client while the
// handler waits.
func TestControllerFlush(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		goOn := make(chan struct{})
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
			<-goOn
			io.WriteString(w, "two")
		}))
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		first := make([]byte, 16)
		n, err := res.Body.Read(first)
		close(goOn)
		if err != nil || string(first[:n]) != "one" {
			t.Errorf("read %q, %v before the handler went on", first[:n], err)
		}
		if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "two" {
			t.Errorf("read %q, %v at the end", rest, err)
		}
	})
}

// TestResponseControllerHijack: HTTP/1.1 connections can be taken over; on
// HTTP/2 it is an error, and the handler can answer.
func TestControllerHijack(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if p != memnet.HTTP1 {
				if !errors.Is(err, http.ErrNotSupported) {
					t.Errorf("Hijack over %v: %v, want http.ErrNotSupported", p, err)
				}
				w.Header().Set("X-Header", "set")
				return
			}
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\nX-Header: set\r\nContent-Length: 0\r\n\r\n")
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.header.Get("X-Header") != "set" || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// TestResponseControllerSetPastWriteDeadline: a past deadline ends the writes at
// once, and a later one does not revive them.
func TestControllerPastWriteDeadline(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			io.WriteString(w, "one")
			if err := rc.Flush(); err != nil {
				t.Errorf("before the deadline: Flush: %v", err)
			}
			if err := rc.SetWriteDeadline(time.Now().Add(-10 * time.Second)); err != nil {
				t.Errorf("SetWriteDeadline: %v", err)
			}
			io.WriteString(w, "two")
			if err := rc.Flush(); err == nil {
				t.Error("after the deadline: Flush succeeded")
			}
			if err := rc.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Errorf("SetWriteDeadline: %v", err)
			}
			io.WriteString(w, "three")
			if err := rc.Flush(); err == nil {
				t.Error("with a new deadline: Flush succeeded")
			}
		}))
		if r := ask(t, s, "GET", "/", nil); r.body != "one" || r.cut == nil {
			t.Errorf("got %+v, want a body that is cut after the first word", r)
		}
	})
}

// TestResponseControllerSetFutureWriteDeadline: a deadline ends a write that
// waits for the client.
func TestControllerFutureWriteDeadline(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		connected := make(chan struct{})
		ended := make(chan error, 1)
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			w.WriteHeader(http.StatusOK)
			if err := rc.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
			<-connected
			if err := rc.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Errorf("SetWriteDeadline: %v", err)
			}
			_, err := io.Copy(w, zeros{})
			ended <- err
		}))
		res, err := s.Client.Get(s.URL)
		close(connected)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		// The client reads only now, or the write would never wait.
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's io.Copy: %v, want os.ErrDeadlineExceeded", err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("the client reads a whole body")
		}
	})
}

var errStalled = errors.New("the test's client has given up")

// pipeBody is a request body that the test writes step by step.
func pipeBody(t *testing.T) (*io.PipeReader, *io.PipeWriter) {
	pr, pw := io.Pipe()
	t.Cleanup(func() { pw.CloseWithError(errStalled) })
	return pr, pw
}

// TestResponseControllerSetPastReadDeadline: a past deadline ends the reads at
// once, and none at all does not revive them.
func TestControllerPastReadDeadline(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		failed := make(chan struct{})
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			first := make([]byte, 3)
			if _, err := io.ReadFull(r.Body, first); err != nil || string(first) != "one" {
				t.Errorf("before the deadline: read %q, %v", first, err)
			}
			if err := rc.SetReadDeadline(time.Now()); err != nil {
				t.Errorf("SetReadDeadline: %v", err)
			}
			if rest, err := io.ReadAll(r.Body); !errors.Is(err, os.ErrDeadlineExceeded) || len(rest) != 0 {
				t.Errorf("after the deadline: read %q, %v", rest, err)
			}
			close(failed)
			if err := rc.SetReadDeadline(time.Time{}); err != nil {
				t.Errorf("SetReadDeadline: %v", err)
			}
			if rest, err := io.ReadAll(r.Body); err == nil {
				t.Errorf("without a deadline: read %q", rest)
			}
		}))
		pr, pw := pipeBody(t)
		go func() {
			io.WriteString(pw, "one")
			<-failed
			io.WriteString(pw, "two")
			pw.Close()
		}()
		// Over HTTP/1.1 the server closes the connection on which the client is
		// writing, who may see that before the response.
		if res, err := s.Client.Post(s.URL, "text/plain", pr); err == nil {
			res.Body.Close()
		}
	})
}

// TestResponseControllerSetFutureReadDeadline: a deadline ends a read that waits
// for the client, and the handler can answer.
func TestControllerFutureReadDeadline(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Errorf("SetReadDeadline: %v", err)
			}
			if _, err := io.Copy(io.Discard, r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v, want os.ErrDeadlineExceeded", err)
			}
			io.WriteString(w, "response body")
		}))
		pr, _ := pipeBody(t)
		r := ask(t, s, "POST", "/", pr)
		if r.status != http.StatusOK || r.body != "response body" || r.cut != nil || r.after != time.Millisecond {
			t.Errorf("got %+v", r)
		}
	})
}

type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// TestWrappedResponseController: a wrapper between the middleware and the
// handler is no obstacle.
func TestControllerWrapped(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(unwrapper{w})
			if err := rc.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
			if err := rc.SetReadDeadline(time.Time{}); err != nil {
				t.Errorf("SetReadDeadline: %v", err)
			}
			if err := rc.SetWriteDeadline(time.Time{}); err != nil {
				t.Errorf("SetWriteDeadline: %v", err)
			}
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// TestResponseControllerEnableFullDuplex: client and handler take turns, byte by
// byte. HTTP/2 can do it without being asked, and says that it need not be.
func TestControllerFullDuplex(t *testing.T) {
	inEachMode(t, memnet.Protos(), func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if err := rc.EnableFullDuplex(); err != nil && p == memnet.HTTP1 {
				t.Errorf("EnableFullDuplex: %v", err)
			}
			w.WriteHeader(http.StatusOK)
			rc.Flush()
			for {
				var b [1]byte
				if _, err := r.Body.Read(b[:]); err != nil {
					return
				}
				w.Write(b[:])
				rc.Flush()
			}
		}))
		pr, pw := pipeBody(t)
		res, err := s.Client.Post(s.URL, "application/octet-stream", pr)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for i := range byte(10) {
			if _, err := pw.Write([]byte{i}); err != nil {
				t.Fatal(err)
			}
			var got [1]byte
			if _, err := io.ReadFull(res.Body, got[:]); err != nil || got[0] != i {
				t.Fatalf("read %v, %v, want %d", got, err, i)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
			t.Errorf("at the end: read %q, %v", rest, err)
		}
	})
}

// TestIssue58237: a read deadline that passes while the handler of a request
// without a body still works does no harm on HTTP/2.
func TestControllerReadDeadlineWithoutBody(t *testing.T) {
	inEachMode(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto, wrap func(http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Errorf("SetReadDeadline: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
			if r.Context().Err() != nil {
				t.Errorf("the context has ended: %v", r.Context().Err())
			}
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// The controller's methods fail as soon as a limit has passed, and not only in a
// handler that was left behind: a deadline in the past would reset an HTTP/2
// stream on which the answer is being sent. Middlewares inside set such ones.
func TestControllerWithinGrace(t *testing.T) {
	for name, limits := range map[string]timeout.Limits{
		"total":      {Total: time.Second},
		"first byte": {FirstByte: time.Second},
	} {
		for when, wait := range map[string]time.Duration{"at once": 0, "after the answer": 10 * time.Millisecond} {
			t.Run(name+", "+when, func(t *testing.T) {
				inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
					errs := make(chan map[string]error, 1)
					s := serve(t, p, hard(t, limits, func(w http.ResponseWriter, r *http.Request) {
						<-r.Context().Done()
						time.Sleep(wait)
						rc, past := http.NewResponseController(w), time.Now().Add(-time.Hour)
						errs <- map[string]error{
							"SetReadDeadline":  rc.SetReadDeadline(past),
							"SetWriteDeadline": rc.SetWriteDeadline(past),
							"EnableFullDuplex": rc.EnableFullDuplex(),
						}
					}))
					for range 5 {
						time.Sleep(time.Second) // or an HTTP/1.1 connection is still in the Grace of the one before
						if r := ask(t, s, "GET", "/", nil); !r.isProblem(http.StatusServiceUnavailable, "timeout_"+strings.ReplaceAll(name, " ", "_")) || r.after != time.Second {
							t.Errorf("got %+v", r)
						}
						for call, err := range <-errs {
							if err != http.ErrHandlerTimeout {
								t.Errorf("%s: %v", call, err)
							}
						}
					}
				})
			})
		}
	}
}

// The controller's methods fail once the request is over, in the handler that
// was left behind, and do not reach the connection's next request.
func TestControllerAfterTheLimit(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		goOn, done := make(chan struct{}), make(chan struct{})
		m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}})
		s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/next" {
				io.Copy(w, bytes.NewReader(make([]byte, 100<<10)))
				return
			}
			defer close(done)
			rc := http.NewResponseController(w)
			<-goOn
			past := time.Now().Add(-time.Hour)
			_, _, hijack := rc.Hijack()
			for name, err := range map[string]error{
				"Flush":            rc.Flush(),
				"SetReadDeadline":  rc.SetReadDeadline(past),
				"SetWriteDeadline": rc.SetWriteDeadline(past),
				"EnableFullDuplex": rc.EnableFullDuplex(),
				"Hijack":           hijack,
			} {
				if err == nil {
					t.Errorf("%s succeeded after the limit", name)
				}
			}
		})))
		if r := ask(t, s, "GET", "/slow", nil); !r.isProblem(http.StatusServiceUnavailable, "timeout_total") {
			t.Errorf("got %+v", r)
		}
		time.Sleep(time.Second) // past the grace
		go close(goOn)
		<-done
		if r := ask(t, s, "GET", "/next", nil); r.body != strings.Repeat("\x00", 100<<10) || r.cut != nil {
			t.Errorf("the next request: %d, %d bytes, %v", r.status, len(r.body), r.cut)
		}
	})
}
