package timeout_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// hard returns h within limits, run in a goroutine of its own.
func hard(t testing.TB, l timeout.Limits, h http.HandlerFunc) http.Handler {
	t.Helper()
	return newMiddleware(t, timeout.Config{Limits: l}).Handler(h)
}

// dial opens a connection of its own to s and sends text, for what net/http's
// client cannot do.
func dial(t *testing.T, s *memnet.Server, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := s.Listener.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// timeout 2: a handler that ignores its context is answered for within 20 ms of
// the limit, on HTTP/2 too, where the end of the stream follows later.
func TestHandlerIgnoresContext(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, hard(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			io.WriteString(w, "late")
		}))
		start := time.Now()
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var problem struct {
			Status int
			Code   string
		}
		err = json.NewDecoder(res.Body).Decode(&problem)
		if after := time.Since(start); after < time.Second || after > time.Second+20*time.Millisecond {
			t.Errorf("answered after %v", after)
		}
		if err != nil || res.StatusCode != 503 || problem.Status != 503 || problem.Code != "timeout_total" ||
			res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("got %s, %v, %+v, %v", res.Status, res.Header, problem, err)
		}
		if rest, err := io.ReadAll(res.Body); err != nil || strings.TrimSpace(string(rest)) != "" {
			t.Errorf("then %q, %v", rest, err)
		}
	})
}

// timeout 25: the context's cause is an *Error with the phase and its limit,
// which errors.Is takes for the standard library's deadline errors; only Total
// is a deadline of the context.
func TestCause(t *testing.T) {
	for _, c := range []struct {
		limits timeout.Limits
		want   timeout.Error
		ctxErr error
	}{
		{timeout.Limits{Total: time.Second}, timeout.Error{Phase: timeout.Total, Limit: time.Second}, context.DeadlineExceeded},
		{timeout.Limits{FirstByte: 2 * time.Second}, timeout.Error{Phase: timeout.FirstByte, Limit: 2 * time.Second}, context.Canceled},
		{timeout.Limits{ReadIdle: 3 * time.Second}, timeout.Error{Phase: timeout.ReadIdle, Limit: 3 * time.Second}, context.Canceled},
		{timeout.Limits{WriteIdle: 4 * time.Second}, timeout.Error{Phase: timeout.WriteIdle, Limit: 4 * time.Second}, context.Canceled},
		{timeout.Limits{Total: 3 * time.Second, FirstByte: time.Second, ReadIdle: 2 * time.Second},
			timeout.Error{Phase: timeout.FirstByte, Limit: time.Second}, context.Canceled},
	} {
		t.Run(c.want.Error(), func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				done := make(chan struct{})
				s := serve(t, p, hard(t, c.limits, func(w http.ResponseWriter, r *http.Request) {
					defer close(done)
					start, ctx := time.Now(), r.Context()
					deadline, ok := ctx.Deadline()
					if ok != (c.limits.Total > 0) || ok && !deadline.Equal(start.Add(c.limits.Total)) {
						t.Errorf("the deadline is %v, %v", deadline.Sub(start), ok)
					}
					var opErr error
					if c.want.Phase == timeout.WriteIdle {
						for opErr == nil {
							_, opErr = w.Write(make([]byte, 64<<10))
						}
					} else {
						_, opErr = io.ReadAll(r.Body)
					}
					<-ctx.Done()
					if after := time.Since(start); after != c.want.Limit {
						t.Errorf("the context ended after %v", after)
					}
					if ctx.Err() != c.ctxErr {
						t.Errorf("ctx.Err is %v", ctx.Err())
					}
					for what, err := range map[string]error{"cause": context.Cause(ctx), "error of the operation": opErr} {
						e, ok := errors.AsType[*timeout.Error](err)
						if !ok || e.Phase != c.want.Phase || e.Limit != c.want.Limit || !e.Timeout() {
							t.Errorf("the %s is %#v", what, err)
						}
						for _, is := range []error{context.DeadlineExceeded, os.ErrDeadlineExceeded, http.ErrHandlerTimeout} {
							if !errors.Is(err, is) {
								t.Errorf("the %s is not %v", what, is)
							}
						}
					}
				}))
				req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.want.Phase != timeout.WriteIdle {
					req.Body, _ = pipeBody(t)
				}
				if res, err := s.Transport.RoundTrip(req); err == nil {
					<-done
					res.Body.Close()
				}
				<-done
			})
		})
	}
}

// timeout 26: a deadline of the context outside that is earlier than Total is
// the one that counts, with its own cause, and is answered as the caller's.
func TestEarlierParentDeadline(t *testing.T) {
	errOutside := errors.New("outside")
	for _, c := range []struct{ given, want error }{{nil, context.DeadlineExceeded}, {errOutside, errOutside}} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			h := hard(t, timeout.Limits{Total: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				if cause := context.Cause(r.Context()); cause != c.want {
					t.Errorf("the cause is %v, want %v", cause, c.want)
				}
			})
			s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, stop := context.WithTimeoutCause(r.Context(), time.Second, c.given)
				defer stop()
				h.ServeHTTP(w, r.WithContext(ctx))
			}))
			if r := ask(t, s, "GET", "/", nil); !r.isProblem(http.StatusGatewayTimeout, "timeout_caller") || r.after != time.Second {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// timeout 11: when the response has begun as the limit passes, the client sees
// it cut and never whole, however it was begun.
func TestCutVisibly(t *testing.T) {
	flush := func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }
	for name, begin := range map[string]func(w http.ResponseWriter){
		"flushed":         func(w http.ResponseWriter) { io.WriteString(w, "part"); flush(w) },
		"only the header": flush,
		"more than Hold":  func(w http.ResponseWriter) { w.Write(make([]byte, 2049)) },
		"whole but for a byte": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "part")
			flush(w)
		},
		"trailers declared": func(w http.ResponseWriter) { w.Header().Set("Trailer", "X-T"); io.WriteString(w, "part"); flush(w) },
	} {
		for honours, after := range map[string]func(r *http.Request){
			"honours its context": func(r *http.Request) { <-r.Context().Done() },
			"ignores its context": func(r *http.Request) { time.Sleep(time.Minute) },
		} {
			t.Run(name+", "+honours, func(t *testing.T) {
				inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
					s := serve(t, p, hard(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(http.StatusCreated)
						begin(w)
						after(r)
					}))
					start := time.Now()
					res, err := s.Client.Get(s.URL)
					if err == nil { // on HTTP/1.1 what was not flushed may be lost altogether
						defer res.Body.Close()
						if res.StatusCode != http.StatusCreated {
							t.Errorf("got %s", res.Status)
						}
						_, err = io.ReadAll(res.Body)
					}
					if err == nil {
						t.Error("the client sees a whole response")
					}
					if took := time.Since(start); took < time.Second || took > time.Second+50*time.Millisecond {
						t.Errorf("cut after %v", took)
					}
				})
			})
		}
	}
}

// timeout 12: what was held back when the limit passes is never seen: the
// client gets the answer alone.
func TestHeldBackIsReplaced(t *testing.T) {
	for name, hold := range map[string]int{"default": 0, "large": 64 << 10} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}, Hold: hold}).Handler(
					http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Content-Type", "text/plain")
						w.Header().Set("Content-Length", "4096")
						w.Header().Set("Content-Encoding", "gzip")
						w.WriteHeader(http.StatusCreated)
						w.Write(make([]byte, 2048))
						<-r.Context().Done()
						io.WriteString(w, "more")
					})))
				r := ask(t, s, "GET", "/", nil)
				if !r.isProblem(http.StatusServiceUnavailable, "timeout_total") || r.after != time.Second ||
					r.header.Get("Content-Encoding") != "" || strings.ContainsAny(r.body, "\x00") {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// FirstByte passes unless the response is committed before it, and then has no
// effect; a response that is only held back is not.
func TestFirstByte(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		status  int
	}{
		"nothing": {func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Second) }, 503},
		"held back": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			time.Sleep(10 * time.Second)
		}, 503},
		"early hints": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			time.Sleep(10 * time.Second)
		}, 503},
		"flushed": {func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Second)
		}, 200},
		"large": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, 4096))
			time.Sleep(10 * time.Second)
		}, 200},
		"returned": {func(w http.ResponseWriter, r *http.Request) { time.Sleep(999 * time.Millisecond) }, 200},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, hard(t, timeout.Limits{FirstByte: time.Second}, c.handler))
				r := ask(t, s, "GET", "/", nil)
				if r.status != c.status || r.cut != nil ||
					c.status == 503 && (!r.isProblem(503, "timeout_first_byte") || r.after != time.Second) {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// A limit that passes at the very instant at which the handler commits or
// returns gives the one whole answer or the other, or a cut, and nothing else.
func TestAtTheLimit(t *testing.T) {
	for name, c := range map[string]struct {
		limits timeout.Limits
		answer func(w http.ResponseWriter)
		mayCut bool
	}{
		"total, return":      {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter) { io.WriteString(w, "whole") }, false},
		"total, flush":       {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter) { io.WriteString(w, "whole"); http.NewResponseController(w).Flush() }, true},
		"total, large":       {timeout.Limits{Total: time.Second}, func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("whole", 1000)) }, true},
		"first byte, return": {timeout.Limits{FirstByte: time.Second}, func(w http.ResponseWriter) { io.WriteString(w, "whole") }, false},
		"first byte, flush":  {timeout.Limits{FirstByte: time.Second}, func(w http.ResponseWriter) { io.WriteString(w, "whole"); http.NewResponseController(w).Flush() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, hard(t, c.limits, func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Second)
					c.answer(w)
				}))
				for range 50 {
					res, err := s.Client.Get(s.URL)
					var text []byte
					if err == nil {
						text, err = io.ReadAll(res.Body)
						res.Body.Close()
					}
					switch {
					case err != nil:
						if !c.mayCut {
							t.Fatal(err)
						}
					case res.StatusCode == 200 && (string(text) == "whole" || string(text) == strings.Repeat("whole", 1000)):
					case res.StatusCode == 503 && res.Header.Get("Content-Type") == "application/problem+json":
					default:
						t.Fatalf("got %s, %q", res.Status, text)
					}
				}
			})
		})
	}
}

// A handler that returns, or gives an error answer, because its context has
// ended is always too late: what it says is never taken for the response.
func TestReturnBecauseOfLimit(t *testing.T) {
	for name, after := range map[string]func(w http.ResponseWriter){
		"nothing":       func(w http.ResponseWriter) {},
		"an error":      func(w http.ResponseWriter) { http.Error(w, "database: context deadline exceeded", 500) },
		"a large error": func(w http.ResponseWriter) { http.Error(w, strings.Repeat("x", 10<<10), 500) },
		"a flushed one": func(w http.ResponseWriter) { w.WriteHeader(500); http.NewResponseController(w).Flush() },
		"early hints":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints) },
		"an abort":      func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"a hijack":      func(w http.ResponseWriter) { http.NewResponseController(w).Hijack() },
	} {
		for phase, l := range map[string]timeout.Limits{"total": {Total: time.Second}, "first_byte": {FirstByte: time.Second}} {
			t.Run(name+", "+phase, func(t *testing.T) {
				inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
					s := serve(t, p, hard(t, l, func(w http.ResponseWriter, r *http.Request) {
						<-r.Context().Done()
						after(w)
					}))
					for range 20 {
						if r := ask(t, s, "GET", "/", nil); !r.isProblem(503, "timeout_"+phase) || r.after != time.Second {
							t.Fatalf("got %+v", r)
						}
					}
				})
			})
		}
	}
}

// After each kind of end that leaves the connection usable it is used again,
// and much later, so that a deadline left behind would show.
func TestConnectionIsUsedAgain(t *testing.T) {
	limits := timeout.Limits{Total: 2 * time.Second, FirstByte: time.Second, ReadIdle: time.Second, WriteIdle: time.Second}
	handlers := map[string]http.HandlerFunc{
		"/small": func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) },
		"/large": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Write(make([]byte, 100<<10))
		},
		"/flush": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			http.NewResponseController(w).Flush()
			io.WriteString(w, "x")
		},
		"/unread":       func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") },
		"/unread-large": func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 100<<10)) },
		"/late": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
		"/left-behind": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			time.Sleep(10 * time.Second)
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(time.Second))
			rc.SetWriteDeadline(time.Now().Add(time.Second))
			rc.EnableFullDuplex()
			io.WriteString(w, "late")
			rc.Flush()
			r.Body.Read(make([]byte, 1))
		},
		"/own-deadlines": func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(30 * time.Second))
			rc.SetWriteDeadline(time.Now().Add(30 * time.Second))
			io.Copy(w, r.Body)
		},
	}
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		var peer string
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if peer == "" {
				peer = r.RemoteAddr
			}
			if r.RemoteAddr != peer {
				t.Errorf("%s came over a new connection", r.URL)
			}
			hard(t, limits, handlers[r.URL.Path]).ServeHTTP(w, r)
		}))
		for path := range handlers {
			for _, text := range []string{"", "body"} {
				var body io.Reader
				if text != "" {
					body = strings.NewReader(text)
				}
				r := ask(t, s, "POST", path+"?"+text, body)
				want := 200
				if strings.HasPrefix(path, "/l") && path != "/large" {
					want = 503
				}
				if r.status != want || r.cut != nil || r.close {
					t.Errorf("%s: got %+v", path, r)
				}
				time.Sleep(5 * time.Second) // then a handler that was left behind wakes up during the next request
				slow := http.NewRequestWithContext
				req, err := slow(t.Context(), "POST", s.URL+"/small", io.MultiReader(strings.NewReader("a"), sleeper(900*time.Millisecond), strings.NewReader("b")))
				if err != nil {
					t.Fatal(err)
				}
				if r := askWith(t, s, req); r.status != 200 || r.body != "ab" || r.cut != nil {
					t.Errorf("after %s: got %+v", path, r)
				}
				time.Sleep(10 * time.Minute)
			}
		}
	})
}

// sleeper is a reader that sleeps once and is then at its end.
type sleeper time.Duration

func (s sleeper) Read([]byte) (int, error) {
	time.Sleep(time.Duration(s))
	return 0, io.EOF
}

// A writer without deadlines, such as a recorder, and a request without a body
// are good enough.
func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cfg := range []timeout.Config{{Limits: generous}, {Limits: generous, Hold: -1}, {Limits: timeout.Limits{WriteIdle: time.Second}}} {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/", nil)
			r.Body = nil
			newMiddleware(t, cfg).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Body != nil {
					t.Errorf("the body has become a %T", r.Body)
				}
				rc := http.NewResponseController(w)
				if err := rc.SetReadDeadline(time.Now()); !errors.Is(err, http.ErrNotSupported) {
					t.Errorf("SetReadDeadline: %v", err)
				}
				if _, _, err := rc.Hijack(); !errors.Is(err, http.ErrNotSupported) {
					t.Errorf("Hijack: %v", err)
				}
				if _, ok := w.(http.Hijacker); ok {
					t.Error("the writer claims to be a Hijacker")
				}
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, "one ")
				if err := rc.Flush(); err != nil {
					t.Errorf("Flush: %v", err)
				}
				fmt.Fprint(w, "two")
			})).ServeHTTP(w, r)
			if w.Code != http.StatusCreated || w.Body.String() != "one two" || !w.Flushed {
				t.Errorf("got %d, %q", w.Code, w.Body)
			}
		}

		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader("body"))
		hard(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }).ServeHTTP(w, r)
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("got %d", w.Code)
		}
	})
}
