package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// withOuter sets headers outside of h as an outer middleware does.
func withOuter(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Outer"] = []string{"1", "2"}
		w.Header().Set("Server", "outside")
		h.ServeHTTP(w, r)
	})
}

// withoutTLS is enough where HTTP/2 over TLS would only be slower: h2c runs the
// same code.
var withoutTLS = []memnet.Proto{memnet.HTTP1, memnet.H2C}

// askInterim is ask that also collects the informational responses.
func askInterim(t *testing.T, s *memnet.Server) (interim []string, r reply) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		interim = append(interim, fmt.Sprint(code, " ", h["Link"]))
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return interim, askWith(t, s, req)
}

// timeout 1: what a handler answers in time arrives as without the middleware,
// byte for byte of status, header, body, trailers and Content-Length, and the
// handler's own calls have the same results.
func TestSameAsWithout(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"nothing":      func(w http.ResponseWriter, r *http.Request) {},
		"header only":  func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-A", "b") },
		"status only":  func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"short":        func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"exactly held": func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2048)) },
		"one more":     func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2049)) },
		"in pieces": func(w http.ResponseWriter, r *http.Request) {
			for range 100 {
				io.WriteString(w, strings.Repeat("x", 99))
			}
		},
		"declared length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3")
			io.WriteString(w, "abc")
		},
		"declared length, too much": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3")
			n, err := io.WriteString(w, "abc")
			fmt.Fprint(errorsOf(r), n, err)
			if r.ProtoMajor == 1 { // net/http's HTTP/2 finds out too late, and the client gets too much
				n, err = io.WriteString(w, "d")
				fmt.Fprint(errorsOf(r), n, err)
			}
		},
		"no content": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			n, err := w.Write([]byte("abc"))
			fmt.Fprint(errorsOf(r), n, err)
		},
		"not modified": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"a"`)
			w.WriteHeader(http.StatusNotModified)
			n, err := io.WriteString(w, "abc")
			fmt.Fprint(errorsOf(r), n, err)
		},
		"header after the status": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-A", "1")
			w.WriteHeader(http.StatusAccepted)
			w.Header().Set("X-A", "2")
			w.Header().Set("X-B", "2")
			w.Header().Del("X-Outer")
			io.WriteString(w, "x")
		},
		"header first used after the status": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.Header().Set("X-A", "2")
		},
		"trailers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-T1, X-T2")
			w.WriteHeader(http.StatusAccepted)
			w.Header().Set("X-T1", "1")
			w.Header().Set("X-Not", "x")
			io.WriteString(w, "x")
			w.Header().Set("X-T2", "2")
			w.Header().Set(http.TrailerPrefix+"X-T3", "3")
		},
		"trailers, large": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-T1")
			w.Write(make([]byte, 10<<10))
			w.Header().Set("X-T1", "1")
			w.Header().Set(http.TrailerPrefix+"X-T3", "3")
		},
		"trailers without a body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-T1")
			w.Header().Set("X-T1", "1")
		},
		"outer header deleted": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Del("X-Outer")
			w.Header().Add("Server", "inside")
		},
		"read from": func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 5000)))
			if r.Method != "HEAD" { // on HTTP/2 the client is satisfied before the end
				fmt.Fprint(errorsOf(r), n, err)
			}
		},
		"empty write": func(w http.ResponseWriter, r *http.Request) { w.Write(nil); w.WriteHeader(http.StatusTeapot) },
		"early hints": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Link", "</b>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.WriteHeader(http.StatusNotFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
				for _, method := range []string{"GET", "HEAD", "POST"} {
					all := func(h http.Handler) string {
						var b strings.Builder
						calls := new(serverLog)
						s, logged := serveLogged(t, p, withOuter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							h.ServeHTTP(w, r.WithContext(withErrors(r.Context(), calls)))
						})))
						req, err := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
						if err != nil {
							t.Fatal(err)
						}
						res, err := s.Transport.RoundTrip(req)
						if err != nil {
							t.Fatal(err)
						}
						defer res.Body.Close()
						text, err := io.ReadAll(res.Body)
						fmt.Fprintf(&b, "\n%s %d %v %q %v\n", res.Status, res.ContentLength, res.TransferEncoding, text, err)
						for _, h := range []http.Header{res.Header, res.Trailer} {
							for _, k := range slices.Sorted(maps.Keys(h)) {
								fmt.Fprintf(&b, "%s: %q\n", k, h[k])
							}
						}
						synctest.Wait()
						before, _, _ := strings.Cut(logged.String(), " call from ") // which names the line
						return b.String() + calls.String() + before
					}
					want := all(handler)
					for _, cfg := range []timeout.Config{{Limits: generous}, {Limits: timeout.Limits{Total: time.Minute}, Hold: 64 << 10}} {
						if got := all(newMiddleware(t, cfg).Handler(handler)); got != want {
							t.Errorf("%s:\n%s\nwithout the middleware:\n%s", method, got, want)
						}
					}
				}
			})
		})
	}
}

// timeout 13: an informational response passes at once and does not count as
// the status.
func TestInformational(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, withOuter(hard(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		})))
		interim, r := askInterim(t, s)
		if !slices.Equal(interim, []string{"103 [</a.css>]"}) || r.status != http.StatusNotFound || r.header.Get("Link") == "" {
			t.Errorf("got %v and %+v", interim, r)
		}
	})
}

// timeout 13: the answer after an informational response has none of the
// handler's headers, and those from outside (timeout 23).
func TestInformationalThenLimit(t *testing.T) {
	for phase, l := range map[string]timeout.Limits{"total": {Total: time.Second}, "first_byte": {FirstByte: time.Second}} {
		t.Run(phase, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, withOuter(hard(t, l, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Link", "</a.css>")
					w.Header().Set("X-Handler", "1")
					w.Header().Set("Server", "inside")
					w.Header().Del("X-Outer")
					w.WriteHeader(http.StatusEarlyHints)
					<-r.Context().Done()
				})))
				interim, r := askInterim(t, s)
				if !slices.Equal(interim, []string{"103 [</a.css>]"}) || !r.isProblem(503, "timeout_"+phase) {
					t.Errorf("got %v and %+v", interim, r)
				}
				if r.header["Link"] != nil || r.header["X-Handler"] != nil ||
					r.header.Get("Server") != "outside" || !slices.Equal(r.header["X-Outer"], []string{"1", "2"}) {
					t.Errorf("the answer's header is %v", r.header)
				}
			})
		})
	}
}

// timeout 23: a handler sees the headers from outside and can delete or change
// them, which has no effect on the answer when a limit passes: there they are
// as they were, and nothing of the handler's is.
func TestOuterHeader(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, withOuter(hard(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			if got := w.Header()["X-Outer"]; !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("the handler sees %v", got)
			}
			w.Header().Del("X-Outer")
			w.Header().Add("Server", "inside")
			w.Header().Set("X-Handler", "1")
			switch r.URL.Path {
			case "/held":
				w.WriteHeader(http.StatusAccepted)
				<-r.Context().Done()
			case "/undecided":
				<-r.Context().Done()
			}
		})))
		r := ask(t, s, "GET", "/", nil)
		if r.status != 200 || r.header["X-Outer"] != nil || r.header.Get("X-Handler") != "1" ||
			!slices.Equal(r.header["Server"], []string{"outside", "inside"}) {
			t.Errorf("in time: got %+v", r)
		}
		for _, path := range []string{"/held", "/undecided"} {
			r := ask(t, s, "GET", path, nil)
			if r.status != 503 || r.header["X-Handler"] != nil ||
				!slices.Equal(r.header["X-Outer"], []string{"1", "2"}) || !slices.Equal(r.header["Server"], []string{"outside"}) {
				t.Errorf("%s: got %+v", path, r)
			}
		}
	})
}

// timeout 15: a second WriteHeader is reported to the server's log with the
// line of the handler that called it, and has no effect.
func TestSuperfluous(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		s, logged := serveLogged(t, p, hard(t, generous, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusEarlyHints)
		}))
		if interim, r := askInterim(t, s); r.status != http.StatusAccepted || interim != nil {
			t.Errorf("got %v, %+v", interim, r)
		}
		if n := strings.Count(logged.String(), "superfluous response.WriteHeader call from example.com/plainware/timeout_test.TestSuperfluous."); n != 2 ||
			strings.Count(logged.String(), "(header_test.go:") != 2 {
			t.Errorf("the log is\n%s", logged)
		}
	})
}

// timeout 16: whatever the handler does with the writer after the limit fails
// with http.ErrHandlerTimeout, or does nothing, and never panics; the header
// that it gets is a private map.
func TestLateCalls(t *testing.T) {
	for _, when := range []string{"untouched", "held back", "header used"} {
		t.Run(when, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				done := make(chan struct{})
				outside := make(chan http.Header, 1)
				h := hard(t, timeout.Limits{Total: time.Second, FirstByte: time.Minute, WriteIdle: time.Minute, ReadIdle: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
					defer close(done)
					switch when {
					case "held back":
						io.WriteString(w, "held back")
					case "header used":
						w.Header().Set("X-Early", "1")
					}
					time.Sleep(time.Minute) // the request is long over
					lateCalls(t, w, r)
				})
				s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					h.ServeHTTP(w, r)
					outside <- w.Header()
				}))
				if r := ask(t, s, "GET", "/", nil); r.status != 503 {
					t.Errorf("got %+v", r)
				}
				<-done
				if outer := <-outside; outer["X-Late"] != nil || outer["X-Early"] != nil {
					t.Errorf("outside the header is %v", outer)
				}
			})
		})
	}
}

// A goroutine that the handler has left running when it returned in time cannot
// use the writer either.
func TestCallsAfterReturn(t *testing.T) {
	for _, size := range []int{0, 10, 10 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				done := make(chan struct{})
				s := serve(t, p, hard(t, generous, func(w http.ResponseWriter, r *http.Request) {
					w.Write(make([]byte, size))
					go func() {
						defer close(done)
						time.Sleep(time.Second)
						lateCalls(t, w, r)
					}()
				}))
				if r := ask(t, s, "GET", "/", nil); r.status != 200 || len(r.body) != size || r.cut != nil {
					t.Errorf("got %+v", r)
				}
				<-done
			})
		})
	}
}

func lateCalls(t *testing.T, w http.ResponseWriter, r *http.Request) {
	t.Helper()
	check := func(call string, err error) {
		if err != http.ErrHandlerTimeout {
			t.Errorf("%s: %v", call, err)
		}
	}
	w.Header().Set("X-Late", "1")
	w.WriteHeader(http.StatusTeapot)
	w.WriteHeader(http.StatusEarlyHints)
	w.WriteHeader(http.StatusSwitchingProtocols)
	_, err := w.Write([]byte("late"))
	check("Write", err)
	_, err = io.WriteString(w, "late")
	check("WriteString", err)
	_, err = io.Copy(w, strings.NewReader("late"))
	check("ReadFrom", err)
	rc := http.NewResponseController(w)
	check("Flush", rc.Flush())
	check("SetReadDeadline", rc.SetReadDeadline(time.Now()))
	check("SetWriteDeadline", rc.SetWriteDeadline(time.Now()))
	check("EnableFullDuplex", rc.EnableFullDuplex())
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	if h, ok := w.(http.Hijacker); ok {
		_, _, err := h.Hijack()
		check("Hijack", err)
	}
	if p, ok := w.(http.Pusher); ok {
		check("Push", p.Push("/x", nil))
	}
	for inner := w; ; {
		u, ok := inner.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			_, err := inner.Write([]byte("late"))
			check("Write to what is unwrapped", err)
			inner.Header().Set("X-Late", "1")
			inner.WriteHeader(http.StatusTeapot)
			break
		}
		inner = u.Unwrap()
	}
	if r.Body != nil && r.Body != http.NoBody {
		if _, err := r.Body.Read(make([]byte, 1)); err == nil {
			t.Error("Read of the body succeeded")
		}
		r.Body.Close()
	}
}

// Invalid codes panic in the handler, as without the middleware.
func TestInvalidCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, code := range []int{-1, 0, 99, 1000} {
			func() {
				defer func() {
					if p, ok := recover().(*timeout.Panic); !ok || p.Value != fmt.Sprintf("invalid WriteHeader code %v", code) {
						t.Errorf("%d: recovered %v", code, p)
					}
				}()
				hard(t, generous, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }).
					ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
			}()
		}
	})
}

// timeout 14: after a hijack, and after 101 on HTTP/1.1, the middleware writes
// nothing more, whether the handler returns, panics or Total passes; that closes
// a connection that is still in its hands.
func TestUpgrade(t *testing.T) {
	const accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
	for name, hijack := range map[string]func(t *testing.T, w http.ResponseWriter) io.ReadWriteCloser{
		"hijack alone": func(t *testing.T, w http.ResponseWriter) io.ReadWriteCloser {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
			}
			io.WriteString(c, accept)
			return c
		},
		"101 and hijack": func(t *testing.T, w http.ResponseWriter) io.ReadWriteCloser {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "x")
			w.WriteHeader(http.StatusSwitchingProtocols)
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
			}
			return c
		},
	} {
		for end, after := range map[string]func(t *testing.T, w http.ResponseWriter, r *http.Request, c io.ReadWriteCloser){
			"returns": func(t *testing.T, w http.ResponseWriter, r *http.Request, c io.ReadWriteCloser) { c.Close() },
			"panics": func(t *testing.T, w http.ResponseWriter, r *http.Request, c io.ReadWriteCloser) {
				c.Close()
				panic(http.ErrAbortHandler)
			},
			"limit": func(t *testing.T, w http.ResponseWriter, r *http.Request, c io.ReadWriteCloser) {
				start := time.Now()
				if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(start) != time.Second {
					t.Errorf("the tunnel ended with %v after %v", err, time.Since(start))
				}
			},
			"writes": func(t *testing.T, w http.ResponseWriter, r *http.Request, c io.ReadWriteCloser) {
				if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
					t.Errorf("Write: %v", err)
				}
				w.WriteHeader(http.StatusTeapot)
				w.Header().Set("X", "y")
				c.Close()
			},
		} {
			t.Run(name+", "+end, func(t *testing.T) {
				inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
					s, _ := serveLogged(t, p, hard(t, timeout.Limits{Total: time.Second, FirstByte: 500 * time.Millisecond, WriteIdle: time.Second, ReadIdle: time.Second},
						func(w http.ResponseWriter, r *http.Request) {
							c := hijack(t, w)
							io.WriteString(c, "hello")
							after(t, w, r, c)
						}))
					_, br := dial(t, s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					all, err := io.ReadAll(br)
					if err != nil {
						t.Errorf("the client's read: %v", err)
					}
					head, rest, _ := strings.Cut(string(all), "\r\n\r\n")
					if !strings.HasPrefix(head, "HTTP/1.1 101 ") || rest != "hello" {
						t.Errorf("the client got %q", all)
					}
				})
			})
		}
	}
}

// A proxy that answers CONNECT with WriteHeader and then hijacks has its 200
// sent.
func TestHijackAfterStatus(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		handler := func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, "tunnel")
			c.Close()
		}
		answer := func(h http.Handler) string {
			_, br := dial(t, serve(t, p, h), "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
			all, _ := io.ReadAll(br)
			return string(all)
		}
		want := answer(http.HandlerFunc(handler))
		if got := answer(hard(t, generous, handler)); got != want || !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("got %q, without the middleware %q", got, want)
		}
	})
}

type errorsKey struct{}

// withErrors gives a handler a place to write down what its calls returned.
func withErrors(ctx context.Context, b io.Writer) context.Context {
	return context.WithValue(ctx, errorsKey{}, b)
}

func errorsOf(r *http.Request) io.Writer { return r.Context().Value(errorsKey{}).(io.Writer) }
