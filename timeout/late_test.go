package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// recoverer is the recovering middleware that many chains have outside.
func recoverer(got chan<- any, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				got <- v
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// panicOnPurpose is found by its name in stacks.
func panicOnPurpose(v any) { panic(v) }

// timeout 17: a panic in time is raised again in the serving goroutine, with
// the value and the handler's stack, which the server's log has too.
func TestPanic(t *testing.T) {
	errOnPurpose := errors.New("on purpose")
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		got := make(chan any, 1)
		h := hard(t, generous, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "held back")
			panicOnPurpose(errOnPurpose)
		})
		s := serve(t, p, recoverer(got, h))
		if r := ask(t, s, "GET", "/", nil); r.status != 500 || r.body != "" || r.after != 0 {
			t.Errorf("got %+v", r)
		}
		v := <-got
		panicked, ok := v.(*timeout.Panic)
		if !ok || panicked.Value != errOnPurpose || !errors.Is(panicked, errOnPurpose) || !strings.Contains(string(panicked.Stack), "panicOnPurpose") {
			t.Errorf("recovered %v", v)
		}

		s, logged := serveLogged(t, p, h)
		if res, err := s.Client.Get(s.URL); err == nil {
			res.Body.Close()
			t.Errorf("without a recoverer: got %s", res.Status)
		}
		synctest.Wait()
		if !strings.Contains(logged.String(), ": on purpose\n") || !strings.Contains(logged.String(), "panicOnPurpose(") {
			t.Errorf("the log is\n%s", logged)
		}
	})
}

// A panic that passes several middlewares is wrapped once. A value that is no
// error, and nil, are values like others.
func TestPanicNested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, value := range []any{"text", 7, nil, http.ErrHandlerTimeout} {
			m := newMiddleware(t, timeout.Config{Limits: generous})
			got := make(chan any, 1)
			recoverer(got, m.Handler(m.Handler(m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panicOnPurpose(value) }))))).
				ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
			panicked, ok := (<-got).(*timeout.Panic)
			if value == nil && ok {
				_, ok = panicked.Value.(*runtime.PanicNilError)
				value = panicked.Value
			}
			if !ok || panicked.Value != value || strings.Count(string(panicked.Stack), "panicOnPurpose(") != 1 {
				t.Errorf("%v: recovered %v", value, panicked)
			}
		}
	})
}

// timeout 17: http.ErrAbortHandler comes out as it is, and nobody logs it.
func TestAbort(t *testing.T) {
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		h := newMiddleware(t, timeout.Config{Limits: generous, OnLate: func(_ *http.Request, l timeout.Late) { t.Errorf("OnLate: %+v", l) }}).Handler(http.HandlerFunc(abort))
		got := make(chan any, 1)
		ask(t, serve(t, p, recoverer(got, h)), "GET", "/", nil)
		if v := <-got; v != http.ErrAbortHandler {
			t.Errorf("recovered %v", v)
		}
		s, logged := serveLogged(t, p, h)
		if res, err := s.Client.Get(s.URL); err == nil {
			res.Body.Close()
			t.Errorf("got %s", res.Status)
		}
		synctest.Wait()
		if logged.String() != "" {
			t.Errorf("the log is\n%s", logged)
		}
	})
}

// timeout 18: of a handler that panics after the limit OnLate hears once, with
// value and stack, and before that once that it is still running; within Grace
// it hears of the panic alone, and of a handler that then returns nothing.
func TestOnLate(t *testing.T) {
	type event struct {
		running bool
		elapsed time.Duration
		value   any
		stack   bool
		outer   bool
	}
	const total, grace = time.Second, 100 * time.Millisecond
	for name, c := range map[string]struct {
		after time.Duration
		value any
		want  []event
	}{
		"panic":                  {total + time.Minute, "late", []event{{true, total + grace, nil, false, true}, {false, total + time.Minute, "late", true, false}}},
		"return":                 {total + time.Minute, nil, []event{{true, total + grace, nil, false, true}, {false, total + time.Minute, nil, false, false}}},
		"panic within grace":     {total + grace/2, "late", []event{{false, total + grace/2, "late", true, true}}},
		"return within grace":    {total + grace/2, nil, nil},
		"panic in time":          {total / 2, "early", nil},
		"abort within grace":     {total + grace/2, http.ErrAbortHandler, []event{{false, total + grace/2, http.ErrAbortHandler, true, true}}},
		"panic at once at limit": {0, "cancelled", []event{{false, total, "cancelled", true, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				var mu sync.Mutex
				var got []event
				var outer *http.Request
				h := newMiddleware(t, timeout.Config{
					Limits: timeout.Limits{Total: total, Grace: grace},
					OnLate: func(r *http.Request, l timeout.Late) {
						mu.Lock()
						defer mu.Unlock()
						if e, ok := l.Err.(*timeout.Error); !ok || e.Phase != timeout.Total {
							t.Errorf("Late.Err is %v", l.Err)
						}
						got = append(got, event{l.Running, l.Elapsed, l.Panic, strings.Contains(string(l.Stack), "panicOnPurpose("), r == outer})
					},
				}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if c.after == 0 {
						<-r.Context().Done()
					}
					time.Sleep(c.after)
					if c.value != nil {
						panicOnPurpose(c.value)
					}
				}))
				s, logged := serveLogged(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					outer = r
					mu.Unlock()
					h.ServeHTTP(w, r)
				}))
				if res, err := s.Client.Get(s.URL); err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				time.Sleep(2 * time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("OnLate was called with\n%v, want\n%v", got, c.want)
				}
				if c.after > total && logged.String() != "" {
					t.Errorf("the log is\n%s", logged)
				}
			})
		})
	}
}

// timeout 18: without OnLate the server's log has late panics, and these alone.
func TestLatePanicIsLogged(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		value  any
		logged bool
	}{
		"panic":              {time.Minute, "late", true},
		"panic within grace": {time.Second + 10*time.Millisecond, "late", true},
		"abort":              {time.Minute, http.ErrAbortHandler, false},
		"return":             {time.Minute, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s, logged := serveLogged(t, p, hard(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(c.after)
					if c.value != nil {
						panicOnPurpose(c.value)
					}
				}))
				if r := ask(t, s, "GET", "/", nil); r.status != 503 {
					t.Errorf("got %+v", r)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				text := logged.String()
				if c.logged != (strings.Contains(text, "timeout: panic after the limit serving 127.0.0.1:49152: late\n") && strings.Contains(text, "panicOnPurpose(")) ||
					!c.logged && text != "" {
					t.Errorf("the log is\n%s", text)
				}
			})
		})
	}
}

// timeout 19: runtime.Goexit in the handler closes the connection, or resets the
// stream, at once.
func TestGoexit(t *testing.T) {
	for name, begin := range map[string]func(w http.ResponseWriter){
		"at once":   func(w http.ResponseWriter) {},
		"held back": func(w http.ResponseWriter) { io.WriteString(w, "x") },
		"committed": func(w http.ResponseWriter) { io.WriteString(w, "x"); http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s, logged := serveLogged(t, p, hard(t, timeout.Limits{Total: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
					begin(w)
					runtime.Goexit()
				}))
				start := time.Now()
				res, err := s.Client.Get(s.URL)
				if err == nil {
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				if err == nil || time.Since(start) != 0 {
					t.Errorf("the client got %v after %v", err, time.Since(start))
				}
				synctest.Wait()
				if logged.String() != "" {
					t.Errorf("the log is\n%s", logged)
				}
			})
		})
	}
}

// timeout 20: when the client goes away the context is cancelled without one of
// our errors, and 499 is recorded outside, not 503 and not what the handler says
// to it.
func TestClientGone(t *testing.T) {
	for name, after := range map[string]func(w http.ResponseWriter, r *http.Request){
		"returns":       func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"answers":       func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); http.Error(w, "x", 500) },
		"ignores it":    func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Minute) },
		"returns later": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); time.Sleep(10 * time.Millisecond) },
		"has held back": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x"); <-r.Context().Done() },
		"own deadline to come": func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Hour))
			<-r.Context().Done()
			time.Sleep(10 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				type end struct {
					status int
					after  time.Duration
				}
				ended := make(chan end, 1)
				began := make(chan struct{})
				h := hard(t, timeout.Limits{Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					context.AfterFunc(r.Context(), func() {
						if cause := context.Cause(r.Context()); cause != context.Canceled {
							t.Errorf("the cause is %v", cause)
						}
					})
					close(began)
					after(w, r)
				})
				s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					start := time.Now()
					rec := &statusRecorder{ResponseWriter: w}
					h.ServeHTTP(rec, r)
					ended <- end{rec.status, time.Since(start)}
				}))
				ctx, leave := context.WithCancel(t.Context())
				go func() {
					<-began
					time.Sleep(time.Second)
					leave()
				}()
				req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				if res, err := s.Transport.RoundTrip(req); err == nil {
					res.Body.Close()
					t.Errorf("got %s", res.Status)
				}
				if got := <-ended; got.status != 499 || got.after < time.Second || got.after > time.Second+50*time.Millisecond {
					t.Errorf("recorded %+v", got)
				}
			})
		})
	}
}

// When the client of a response that has begun goes away, the handler has Grace
// to come to its own end, and the status stays what it was.
func TestClientGoneFromStream(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		ended := make(chan any, 1)
		h := hard(t, timeout.Limits{Total: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			for r.Context().Err() == nil {
				io.WriteString(w, "event\n")
				rc.Flush()
				time.Sleep(10 * time.Millisecond)
			}
			if r.URL.Path == "/stay" {
				time.Sleep(time.Minute)
			}
		})
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := &statusRecorder{ResponseWriter: w}
			defer func() {
				v := recover()
				ended <- fmt.Sprint(rec.status, " ", v)
				if v != nil {
					panic(v)
				}
			}()
			h.ServeHTTP(rec, r)
		}))
		for path, want := range map[string]string{"/": "200 <nil>", "/stay": "200 net/http: abort Handler"} {
			res, err := s.Client.Get(s.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			io.ReadFull(res.Body, make([]byte, 60))
			res.Body.Close()
			if got := <-ended; got != want {
				t.Errorf("%s: %v, want %v", path, got, want)
			}
		}
	})
}

// timeout 21: a handler that changes its request's header after the limit does
// not race with a logger outside that ranges over it.
func TestRequestHeaderRace(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		h := hard(t, timeout.Limits{Total: time.Second, Grace: -1}, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			for i := range 1000 {
				r.Header.Set("X-Late", fmt.Sprint(i))
				r.Header.Del("User-Agent")
				w.Header().Set("X-Late", fmt.Sprint(i))
				w.Header().Add("X-Outer", "late")
			}
		})
		s := serve(t, p, withOuter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			for range 1000 {
				for _, header := range []http.Header{r.Header, w.Header()} {
					if header["X-Late"] != nil {
						t.Error("the handler's change is seen outside")
					}
					for k, v := range header {
						_ = k + strings.Join(v, "")
					}
				}
			}
			if r.UserAgent() == "" {
				t.Error("User-Agent is gone")
			}
		})))
		for range 10 {
			if r := ask(t, s, "GET", "/", nil); r.status != 503 {
				t.Errorf("got %+v", r)
			}
		}
	})
}
