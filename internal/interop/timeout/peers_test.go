// Package timeout_test checks timeout over HTTP/3, and shows beside it what
// http.TimeoutHandler and chi's Timeout do with the same requests.
package timeout_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// The tests in this file show what the peers do at the versions in go.mod
// beside what timeout does. One that fails on a peer says that the peer has
// changed, and that what our documentation says of it has to change too.

// total wraps next for tests that are not about the configuration.
func total(t testing.TB, d time.Duration, next http.Handler) http.Handler {
	t.Helper()
	tmo, err := timeout.New(timeout.Config{Limits: timeout.Limits{Total: d}})
	if err != nil {
		t.Fatal(err)
	}
	return tmo.Handler(next)
}

// timeout 3: a client that stops in the middle of an HTTP/1.1 body is answered.
// The peers' handlers hold the lock of the body while they wait for it, which
// the server needs before it can send anything, so they never answer.
func TestStalledUpload(t *testing.T) {
	const limit = time.Second // a peer's handler that is not at the body by then is too late
	reads := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	for _, c := range []struct {
		name string
		h    http.Handler
		wait time.Duration
		want int // 0 is no answer at all
	}{
		{"timeout", total(t, limit, reads), 10 * time.Second, http.StatusServiceUnavailable},
		{"http.TimeoutHandler", http.TimeoutHandler(reads, limit, ""), 3 * limit, 0},
		{"chi Timeout", middleware.Timeout(limit)(reads), 3 * limit, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := front.HTTP1(t, c.h)
			conn, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
			conn.SetReadDeadline(time.Now().Add(c.wait))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				if ne, ok := errors.AsType[net.Error](err); c.want != 0 || !ok || !ne.Timeout() {
					t.Errorf("no answer: %v", err)
				}
				return
			}
			defer res.Body.Close()
			if res.StatusCode != c.want || !res.Close {
				t.Errorf("status %d, closes %v; want %d", res.StatusCode, res.Close, c.want)
			}
		})
	}
}

// timeout 13: a 103 makes http.TimeoutHandler forget the status that follows.
func TestEarlyHints(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "nope")
	})
	for _, c := range []struct {
		name string
		h    http.Handler
		want int
	}{
		{"timeout", total(t, time.Minute, h), http.StatusNotFound},
		{"http.TimeoutHandler", http.TimeoutHandler(h, time.Minute, ""), http.StatusOK},
		{"chi Timeout", middleware.Timeout(time.Minute)(h), http.StatusNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
				res, body, err := start(t, c.h).Get(t, "/", nil)
				if err != nil || res.StatusCode != c.want || body != "nope" {
					t.Errorf("%v, %q, %v; want %d", res, body, err, c.want)
				}
			})
		})
	}
}

// timeout 2: after the limit chi lets the handler's late answer through, as if
// nothing had happened.
func TestLateAnswer(t *testing.T) {
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		io.WriteString(w, "late")
	})
	const limit = 20 * time.Millisecond
	for _, c := range []struct {
		name string
		h    http.Handler
		want int
	}{
		{"timeout", total(t, limit, late), http.StatusServiceUnavailable},
		{"http.TimeoutHandler", http.TimeoutHandler(late, limit, ""), http.StatusServiceUnavailable},
		{"chi Timeout", middleware.Timeout(limit)(late), http.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Where http.TimeoutHandler is not yet waiting at the limit, a late answer
				// may be the first thing that it sees.
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: c.h, ErrorLog: log.New(io.Discard, "", 0)})
				res, err := s.Client.Get(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != c.want || (string(body) == "late") != (c.want == http.StatusOK) {
					t.Errorf("%v, %q, %v; want %d", res, body, err, c.want)
				}
			})
		})
	}
}

// timeout 19: http.TimeoutHandler waits out its limit for a handler that has
// ended by runtime.Goexit. timeout closes the connection at once.
func TestGoexit(t *testing.T) {
	ends := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runtime.Goexit() })

	const limit = 200 * time.Millisecond
	begun := time.Now()
	res, _, err := front.HTTP1(t, http.TimeoutHandler(ends, limit, "")).Get(t, "/", nil)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || time.Since(begun) < limit {
		t.Errorf("http.TimeoutHandler: %v, %v after %v", res, err, time.Since(begun))
	}

	begun = time.Now()
	if res, _, err := front.HTTP1(t, total(t, time.Hour, ends)).Get(t, "/", nil); err == nil {
		t.Errorf("timeout: %v after %v", res, time.Since(begun))
	}
}

// timeout 10, 14: nothing of http.ResponseController works below
// http.TimeoutHandler, and all of it below timeout.
func TestController(t *testing.T) {
	for _, c := range []struct {
		name string
		wrap func(http.Handler) http.Handler
		want bool
	}{
		{"timeout", func(h http.Handler) http.Handler { return total(t, time.Minute, h) }, true},
		{"http.TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
				s := start(t, c.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rc := http.NewResponseController(w)
					hour := time.Now().Add(time.Hour)
					for name, err := range map[string]error{
						"SetReadDeadline":  rc.SetReadDeadline(hour),
						"SetWriteDeadline": rc.SetWriteDeadline(hour),
						"Flush":            rc.Flush(),
					} {
						if c.want && err != nil || !c.want && !errors.Is(err, http.ErrNotSupported) {
							t.Errorf("%s: %v", name, err)
						}
					}
				})))
				if _, _, err := s.Get(t, "/", nil); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// timeout 18: http.TimeoutHandler says nothing of a handler that panics after
// the limit. timeout tells OnLate.
func TestLatePanic(t *testing.T) {
	told := make(chan timeout.Late, 2)
	tmo, err := timeout.New(timeout.Config{
		Limits: timeout.Limits{Total: 20 * time.Millisecond, Grace: -1},
		OnLate: func(_ *http.Request, l timeout.Late) { told <- l },
	})
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	s := front.HTTP1(t, tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrHandlerTimeout) {
			t.Errorf("late write: %v", err)
		}
		panic("late")
	})))
	if res, _, err := s.Get(t, "/", nil); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v, %v", res, err)
	}
	close(release)
	for {
		if l := <-told; l.Panic != nil {
			if fmt.Sprint(l.Panic) != "late" {
				t.Errorf("told of %v", l.Panic)
			}
			return
		}
	}
}

// timeout 22: the pattern and the files of an upload, as in reqid's test of the
// same name.
func TestCopiedRequest(t *testing.T) {
	for _, c := range []struct {
		name    string
		wrap    func(http.Handler) http.Handler
		pattern string
		files   int
	}{
		{"timeout", func(h http.Handler) http.Handler { return total(t, time.Minute, h) }, "POST /f/{id}", 0},
		{"http.TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, "", 1},
		{"chi Timeout", middleware.Timeout(time.Minute), "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			pattern, files := front.CopiedRequest(t, c.wrap)
			if pattern != c.pattern || files != c.files {
				t.Errorf("pattern outside %q, %d files left; want %q, %d", pattern, files, c.pattern, c.files)
			}
		})
	}
}
