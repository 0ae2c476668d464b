package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

var http1 = []memnet.Proto{memnet.HTTP1}

// bothModes runs f with a handler in a goroutine of its own and cooperatively, and
// each inside of another middleware too.
func bothModes(t *testing.T, protos []memnet.Proto, f func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler)) {
	minute := timeout.Limits{Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Minute, WriteIdle: time.Minute}
	for name, cooperative := range map[string]bool{"hard": false, "cooperative": true} {
		for where, outer := range map[string]func(http.Handler) http.Handler{
			"alone":              func(h http.Handler) http.Handler { return h },
			"inside hard":        newMiddleware(t, timeout.Config{Limits: minute}).Handler,
			"inside cooperative": newMiddleware(t, timeout.Config{Limits: minute, Cooperative: true}).Handler,
		} {
			t.Run(name+", "+where, func(t *testing.T) {
				inBubbles(t, protos, func(t *testing.T, p memnet.Proto) {
					f(t, p, func(l timeout.Limits, h http.HandlerFunc) http.Handler {
						return outer(newMiddleware(t, timeout.Config{Limits: l, Cooperative: cooperative}).Handler(h))
					})
				})
			})
		}
	}
}

// In full duplex the server goes on to the next request whether or not it could
// read the rest of a body, so that a client which stalls in one could pass the
// rest off as a request of its own.
func TestFullDuplexIsNoSmuggling(t *testing.T) {
	for _, l := range []timeout.Limits{{Total: time.Second}, {FirstByte: time.Second}, {ReadIdle: time.Second}} {
		for name, handler := range map[string]func(body io.Reader){
			"returns":           func(io.Reader) {},
			"lingers":           func(io.Reader) { time.Sleep(2 * time.Second) },
			"reads":             func(body io.Reader) { io.Copy(io.Discard, body) },
			"reads and lingers": func(body io.Reader) { io.Copy(io.Discard, body); time.Sleep(2 * time.Second) },
			"panics":            func(io.Reader) { panic(http.ErrAbortHandler) },
		} {
			t.Run(fmt.Sprintf("%+v, %s", l, name), func(t *testing.T) {
				bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
					smuggled := false
					h := wrap(l, func(w http.ResponseWriter, r *http.Request) {
						rc := http.NewResponseController(w)
						rc.EnableFullDuplex()
						w.Header().Set("Content-Length", "5")
						io.WriteString(w, "whole")
						rc.Flush()
						handler(r.Body)
					})
					s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/smuggled" {
							smuggled = true
							return
						}
						h.ServeHTTP(w, r)
					}))
					c, br := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
					res, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatal(err)
					}
					if text, err := io.ReadAll(res.Body); string(text) != "whole" || err != nil {
						t.Errorf("got %q, %v", text, err)
					}
					time.Sleep(10 * time.Second)
					io.WriteString(c, "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
					time.Sleep(time.Second)
					if smuggled {
						t.Error("the rest of the body was taken for a request")
					}
				})
			})
		}
	}
}

const shortPost = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"

// askTwice sends a request on a connection of its own, reads the response after
// a pause, and asks for /next. It reports whether that was served, which must be
// in time; the server may also have closed.
func askTwice(t *testing.T, s *memnet.Server, request string, pause time.Duration) (text []byte, again bool) {
	t.Helper()
	c, br := dial(t, s, request)
	time.Sleep(pause)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = io.ReadAll(res.Body); err != nil {
		t.Error(err)
	}
	time.Sleep(3 * time.Second)
	io.WriteString(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err = http.ReadResponse(br, nil)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return text, false
	}
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(res.Body); string(answer) != "in time" || err != nil {
		t.Errorf("the next request was answered with %s, %q, %v", res.Status, answer, err)
	}
	return text, true
}

// orNext serves /next, which takes a moment and minds its context.
func orNext(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/next" {
			h(w, r)
			return
		}
		time.Sleep(time.Millisecond)
		if r.Context().Err() == nil {
			io.WriteString(w, "in time")
		}
	}
}

// A read deadline that passes when a body has been read makes the server take
// the client for gone, with all of its later requests: either the connection is
// as good as new or it ends.
func TestNextRequestIsNotCancelled(t *testing.T) {
	const (
		get     = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	)
	total := timeout.Limits{Total: time.Second}
	whole := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "whole")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		time.Sleep(10 * time.Millisecond)
	}
	for name, c := range map[string]struct {
		limits  timeout.Limits
		request string
		handler http.HandlerFunc
		// Where the modes differ: cooperatively nothing is cut, and a handler's
		// deadlines are its own affair.
		hardOnly, cooperativeOnly bool
	}{
		"whole, nothing read": {total, shortPost, whole, false, false},
		"whole, closed":       {total, shortPost, func(w http.ResponseWriter, r *http.Request) { r.Body.Close(); whole(w, r) }, false, false},
		"whole, no end read": {total, chunked, func(w http.ResponseWriter, r *http.Request) {
			io.ReadFull(r.Body, make([]byte, 3))
			whole(w, r)
		}, false, false},
		"streamed": {total, shortPost, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "part")
			http.NewResponseController(w).Flush()
			time.Sleep(2 * time.Second)
			io.WriteString(w, " and end")
		}, false, true},
		"own deadline within Grace": {timeout.Limits{Total: time.Second, Grace: time.Second}, get, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(1010 * time.Millisecond))
			<-r.Context().Done()
			time.Sleep(20 * time.Millisecond)
		}, true, false},
		"own deadline within Grace, a body": {timeout.Limits{Total: time.Second, Grace: time.Second}, shortPost, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(1010 * time.Millisecond))
			<-r.Context().Done()
			time.Sleep(20 * time.Millisecond)
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			for mode, cooperative := range map[string]bool{"hard": false, "cooperative": true} {
				if c.hardOnly && cooperative || c.cooperativeOnly && !cooperative {
					continue
				}
				t.Run(mode, func(t *testing.T) {
					inBubbles(t, http1, func(t *testing.T, p memnet.Proto) {
						m := newMiddleware(t, timeout.Config{Limits: c.limits, Cooperative: cooperative})
						s := serve(t, p, m.Handler(orNext(c.handler)))
						askTwice(t, s, c.request, 0)
					})
				})
			}
		})
	}
}

// The same where the client is slow to take the last of a response: the limit for
// the rest of the body, which the server has read long ago, is not its.
func TestNextRequestAfterASlowReader(t *testing.T) {
	for _, l := range []timeout.Limits{{ReadIdle: time.Second}, {ReadIdle: time.Second, WriteIdle: 10 * time.Second}, {Total: 3 * time.Second}} {
		for _, over := range []int{1000, 3000} {
			t.Run(fmt.Sprintf("%+v, %d", l, over), func(t *testing.T) {
				bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
					size := 64<<10/100*100 + over // what is too much for the connection's buffer stays in the server's
					s := serve(t, p, wrap(l, orNext(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Content-Length", fmt.Sprint(size))
						for range size / 100 {
							w.Write(make([]byte, 100))
						}
					})))
					text, again := askTwice(t, s, shortPost, 5*time.Second)
					if len(text) != size {
						t.Errorf("got %d bytes", len(text))
					}
					if !again && l.ReadIdle > 0 {
						t.Error("the connection was closed")
					}
				})
			})
		}
	}
}

// A limit outside that is not a deadline of the context, and passes first, is
// answered once and whole too, and is never taken for the end of the client.
func TestLimitOutsideIsNoDeadline(t *testing.T) {
	minute := timeout.Limits{Total: time.Minute}
	outside := map[string]func(t *testing.T, h http.Handler) http.Handler{
		"cooperative": func(t *testing.T, h http.Handler) http.Handler {
			return newMiddleware(t, timeout.Config{Limits: timeout.Limits{FirstByte: time.Second}, Cooperative: true}).Handler(h)
		},
		"not of this package": func(t *testing.T, h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithCancelCause(r.Context())
				defer time.AfterFunc(time.Second, func() { cancel(context.DeadlineExceeded) }).Stop()
				h.ServeHTTP(w, r.WithContext(ctx))
			})
		},
	}
	for where, outer := range outside {
		for name, c := range map[string]struct {
			handler http.HandlerFunc
			inside  []timeout.Limits
			refused bool // for certain
		}{
			"waits": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, []timeout.Limits{minute, minute}, true},
			"answers": {func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				http.Error(w, "cancelled", 500)
				w.(http.Flusher).Flush()
			}, []timeout.Limits{minute}, true},
			"answers, nested": {func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				http.Error(w, "cancelled", 500)
				w.(http.Flusher).Flush()
			}, []timeout.Limits{minute, minute}, true},
			"returns just then": {func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Second)
				io.WriteString(w, "whole")
			}, []timeout.Limits{minute}, false},
		} {
			t.Run(where+", "+name, func(t *testing.T) {
				inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
					s, logged := serveLogged(t, p, outer(t, chain(t, c.handler, c.inside...)))
					for range 100 {
						time.Sleep(time.Second) // or an HTTP/1.1 connection is still in the Grace of the one before
						r := ask(t, s, "GET", "/", nil)
						refused := r.isProblem(503, "timeout_first_byte") || r.isProblem(504, "timeout_caller")
						if !refused && (c.refused || r.status != 200 || r.body != "whole" || r.cut != nil) {
							t.Fatalf("got %+v", r)
						}
					}
					if logged.String() != "" {
						t.Errorf("the log is\n%s", logged)
					}
				})
			})
		}
	}
}

// A client that stalls in a body which the handler does not want gets the whole
// response, also after ReadIdle has ended the server's reading of the rest.
func TestResponseGoesOnAfterAStalledRest(t *testing.T) {
	bothModes(t, withoutTLS, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
		s := serve(t, p, wrap(timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one ")
			http.NewResponseController(w).Flush()
			time.Sleep(200 * time.Millisecond) // more than Grace
			io.WriteString(w, "two")
		}))
		pr, pw := pipeBody(t)
		go io.WriteString(pw, "abc")
		if r := ask(t, s, "POST", "/", pr); r.status != 200 || r.body != "one two" || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// A flush has to wait for the rest of an HTTP/1 body, but not longer than the
// first byte of the response may.
func TestFirstByteLimitsTheRest(t *testing.T) {
	bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
		var took atomic.Int64
		start := time.Now()
		s := serve(t, p, wrap(timeout.Limits{FirstByte: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			http.NewResponseController(w).Flush()
			took.Store(int64(time.Since(start)))
		}))
		_, br := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(res.Body); string(text) != "x" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		if d := time.Duration(took.Load()); d != time.Second {
			t.Errorf("the flush took %v", d)
		}
	})
}

// endsWithin sends the beginning of a body and nothing more, and expects the server
// to close the connection in time.
func endsWithin(t *testing.T, s *memnet.Server, most time.Duration) {
	t.Helper()
	start := time.Now()
	c, br := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
	c.SetReadDeadline(start.Add(time.Hour))
	if _, err := io.Copy(io.Discard, br); err != nil || time.Since(start) > most {
		t.Errorf("the connection ended with %v after %v", err, time.Since(start))
	}
}

// The server tries again to read a stalled body when the handler has returned, also
// where a limit has ended its reading before. The client here waits for nothing
// but the end of the connection.
func TestStalledRestIsReadOnce(t *testing.T) {
	for name, cfg := range map[string]timeout.Config{
		"total":                   {Limits: timeout.Limits{Total: time.Second}},
		"total, held back long":   {Limits: timeout.Limits{Total: time.Second}, Hold: 64 << 10},
		"total, cooperative":      {Limits: timeout.Limits{Total: time.Second}, Cooperative: true},
		"first byte":              {Limits: timeout.Limits{FirstByte: time.Second}},
		"first byte, cooperative": {Limits: timeout.Limits{FirstByte: time.Second}, Cooperative: true},
	} {
		for what, answer := range map[string]func(w http.ResponseWriter){
			"small":   func(w http.ResponseWriter) { io.WriteString(w, "x") },
			"large":   func(w http.ResponseWriter) { w.Write(make([]byte, 5000)) },
			"flushed": func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				inBubbles(t, http1, func(t *testing.T, p memnet.Proto) {
					h := newMiddleware(t, cfg).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w) }))
					endsWithin(t, serve(t, p, h), 2*time.Second)
				})
			})
		}
	}
}

// A deadline that comes from another goroutine while the server reads the rest of a
// body, as from the timers of a middleware inside, holds for all that the server
// still reads.
func TestDeadlineWhileRestIsRead(t *testing.T) {
	bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
		endsWithin(t, serve(t, p, wrap(timeout.Limits{ReadIdle: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			time.AfterFunc(time.Second, func() { rc.SetReadDeadline(time.Now()) })
			rc.Flush()
		})), 2*time.Second)
	})
}

// The server ends the context where a read deadline passes, and ReadIdle limits what
// the handler reads after that nevertheless, and what the server reads after both.
func TestReadIdleAfterDeadline(t *testing.T) {
	bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
		endsWithin(t, serve(t, p, wrap(timeout.Limits{ReadIdle: 2 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(time.Second))
			io.ReadAll(r.Body)
			rc.SetReadDeadline(time.Time{})
			io.ReadAll(r.Body)
		})), 6*time.Second)
	})
}

// Where something outside works on when the handler has returned, for longer than
// the limit for the rest of the body, that limit cancels nothing.
func TestNextRequestAfterWorkOutside(t *testing.T) {
	for _, l := range []timeout.Limits{{ReadIdle: time.Second}, {Total: time.Second}, {FirstByte: time.Second}} {
		for name, answer := range map[string]func(w http.ResponseWriter){
			"flushed": func(w http.ResponseWriter) { io.WriteString(w, "whole"); http.NewResponseController(w).Flush() },
			"small":   func(w http.ResponseWriter) { io.WriteString(w, "whole") },
			"large":   func(w http.ResponseWriter) { w.Write(make([]byte, 5000)) },
		} {
			t.Run(fmt.Sprintf("%+v, %s", l, name), func(t *testing.T) {
				bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
					h := wrap(l, orNext(func(w http.ResponseWriter, r *http.Request) { answer(w) }))
					s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						h.ServeHTTP(w, r)
						if r.URL.Path != "/next" {
							time.Sleep(3 * time.Second / 2)
						}
					}))
					askTwice(t, s, shortPost, 0)
				})
			})
		}
	}
}

// The middleware has done its part when the handler has, however slow the client
// is to take what is in the server's buffers.
func TestReturnsBeforeTheClientHasAll(t *testing.T) {
	bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
		h := wrap(timeout.Limits{Total: 3 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
			for range 64<<10/100 + 10 {
				w.Write(make([]byte, 100))
			}
		})
		took := make(chan time.Duration, 1)
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			h.ServeHTTP(w, r)
			took <- time.Since(start)
		}))
		c, _ := dial(t, s, shortPost)
		if d := <-took; d != 0 {
			t.Errorf("it took %v", d)
		}
		c.Close()
	})
}

// holding keeps a response until its handler has returned.
type holding struct {
	http.ResponseWriter
	status int
	body   []byte
}

func (h *holding) Unwrap() http.ResponseWriter { return h.ResponseWriter }
func (h *holding) WriteHeader(status int)      { h.status = status }
func (h *holding) Write(p []byte) (int, error) { h.body = append(h.body, p...); return len(p), nil }

// A writer outside that holds the response back decides itself when it begins.
func TestNoFlushIsAdded(t *testing.T) {
	for _, size := range []int{0, 10, 2048, 3000, 100 << 10} {
		for _, hold := range []int{-1, 0, 4096} {
			t.Run(fmt.Sprintf("%d, Hold %d", size, hold), func(t *testing.T) {
				for _, cooperative := range []bool{false, true} {
					inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
						m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{ReadIdle: time.Second}, Cooperative: cooperative, Hold: hold})
						h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							w.WriteHeader(404)
							w.Write(make([]byte, size))
						}))
						s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							held := &holding{ResponseWriter: w}
							h.ServeHTTP(held, r)
							w.Header().Set("Etag", `"x"`)
							w.WriteHeader(held.status)
							w.Write(held.body)
						}))
						if r := ask(t, s, "POST", "/", strings.NewReader("abc")); r.status != 404 || r.header.Get("Etag") == "" || len(r.body) != size {
							t.Errorf("got %d, %v, %d bytes, %v", r.status, r.header, len(r.body), r.cut)
						}
					})
				}
			})
		}
	}
}

// A middleware inside of one that has left its handler does not touch the
// server's writer: this is for the race detector.
func TestInsideOfOneThatAnswers(t *testing.T) {
	for _, cooperative := range []bool{false, true} {
		inBubbles(t, http1, func(t *testing.T, p memnet.Proto) {
			m := newMiddleware(t, timeout.Config{Limits: timeout.Limits{ReadIdle: time.Minute}, Cooperative: cooperative})
			inner := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).EnableFullDuplex()
				<-r.Context().Done()
			}))
			s := serve(t, p, hard(t, timeout.Limits{Total: time.Second}, inner.ServeHTTP))
			for range 100 {
				c, br := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				c.Close()
			}
		})
	}
}

// What a handler that has panicked leaves running does not reach the response
// any more.
func TestPanicLeavesNobodyWriting(t *testing.T) {
	inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
		late := make(chan error, 1)
		h := hard(t, timeout.Limits{ReadIdle: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
			go func() {
				time.Sleep(time.Second)
				_, err := io.WriteString(w, "late")
				late <- err
			}()
			panic("x")
		})
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				recover()
				w.WriteHeader(500)
				io.WriteString(w, "recovered")
				time.Sleep(2 * time.Second)
			}()
			h.ServeHTTP(w, r)
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != 500 || r.body != "recovered" {
			t.Errorf("got %+v", r)
		}
		if err := <-late; err != http.ErrHandlerTimeout {
			t.Errorf("the late write: %v", err)
		}
	})
}

// The header of a handler that has panicked stays with it.
func TestPanicLeavesNoHeader(t *testing.T) {
	inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
		h := hard(t, timeout.Limits{Total: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
			panic("x")
		})
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				recover()
				w.WriteHeader(500)
				io.WriteString(w, "recovered")
			}()
			h.ServeHTTP(w, r)
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != 500 || r.body != "recovered" || r.cut != nil || r.header.Get("Set-Cookie") != "" {
			t.Errorf("got %+v", r)
		}
	})
}

// A body that blocks on an empty read is none of the server's, and not asked.
func TestForeignBodyIsNotAsked(t *testing.T) {
	bothModes(t, http1, func(t *testing.T, p memnet.Proto, wrap func(timeout.Limits, http.HandlerFunc) http.Handler) {
		h := wrap(timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 3000)) })
		pr, _ := pipeBody(t)
		r := httptest.NewRequest("POST", "/", pr)
		r.ContentLength = 1000
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Body.Len() != 3000 {
			t.Errorf("got %d bytes", w.Body.Len())
		}
	})
}
