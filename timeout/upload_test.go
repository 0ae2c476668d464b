package timeout_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// timeout 3: a client that stalls in the middle of its body is answered in
// time, with 408 where it is the stall that is limited; the handler's Read
// returns an error, and an HTTP/1.1 connection is closed.
func TestStalledUpload(t *testing.T) {
	for name, c := range map[string]struct {
		limits timeout.Limits
		status int
		code   string
	}{
		"total":      {timeout.Limits{Total: time.Second}, 503, "timeout_total"},
		"first byte": {timeout.Limits{FirstByte: time.Second}, 503, "timeout_first_byte"},
		"read idle":  {timeout.Limits{ReadIdle: time.Second}, 408, "timeout_read_idle"},
		"all":        {timeout.Limits{Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Second, WriteIdle: time.Minute}, 408, "timeout_read_idle"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				readErr := make(chan error, 1)
				s := serve(t, p, hard(t, c.limits, func(w http.ResponseWriter, r *http.Request) {
					text, err := io.ReadAll(r.Body)
					if string(text) != "abc" {
						t.Errorf("the handler read %q", text)
					}
					readErr <- err
				}))
				pr, pw := pipeBody(t)
				go io.WriteString(pw, "abc")
				r := ask(t, s, "POST", "/", pr)
				if !r.isProblem(c.status, c.code) || r.after != time.Second || r.close != (p == memnet.HTTP1) {
					t.Errorf("got %+v", r)
				}
				if err := <-readErr; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the handler's Read: %v", err)
				}
			})
		})
	}
}

// timeout 3: the server closes the connection itself, and does not wait for the
// client to do so.
func TestStalledUploadClosesConnection(t *testing.T) {
	for _, l := range []timeout.Limits{{Total: time.Second}, {ReadIdle: time.Second}} {
		inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
			s := serve(t, p, hard(t, l, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
			start := time.Now()
			_, br := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode < 400 || !res.Close || time.Since(start) != time.Second {
				t.Fatalf("got %+v, %v after %v", res, err, time.Since(start))
			}
			if text, err := io.ReadAll(br); err != nil || !strings.Contains(string(text), "timeout_") {
				t.Errorf("the rest is %q, %v", text, err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("closed after %v", took)
			}
		})
	}
}

// A handler that answers by itself when its Read fails does not get ahead of
// the 408, whatever it says, and however it got to know.
func TestReadIdleBeatsHandler(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"small":   func(w http.ResponseWriter) { http.Error(w, "cannot read", 500) },
		"flushed": func(w http.ResponseWriter) { w.WriteHeader(500); http.NewResponseController(w).Flush() },
		"large":   func(w http.ResponseWriter) { w.Write(make([]byte, 10<<10)) },
		"nothing": func(w http.ResponseWriter) {},
		"panic":   func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.ReadAll(r.Body); err == nil {
						t.Error("the body is whole")
					}
					answer(w)
				}))
				for range 20 {
					pr, pw := pipeBody(t)
					go io.WriteString(pw, "abc")
					if r := ask(t, s, "POST", "/", pr); !r.isProblem(408, "timeout_read_idle") || r.after != time.Second {
						t.Fatalf("got %+v", r)
					}
				}
			})
		})
	}
}

// timeout 4: an upload of one byte every half ReadIdle is never cut.
func TestSteadyUpload(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			text, err := io.ReadAll(r.Body)
			fmt.Fprint(w, len(text), err)
		}))
		pr, pw := pipeBody(t)
		go func() {
			for range 50 {
				time.Sleep(time.Second / 2)
				pw.Write([]byte("x"))
			}
			pw.Close()
		}()
		if r := ask(t, s, "POST", "/", pr); r.status != 200 || r.body != "50 <nil>" || r.cut != nil || r.after != 25*time.Second {
			t.Errorf("got %+v", r)
		}
	})
}

// timeout 5: a request without a body that takes longer than ReadIdle keeps its
// context.
//
// timeout 6: so does one whose body has been read to its end.
func TestReadIdleSparesHandler(t *testing.T) {
	for name, body := range map[string]io.Reader{"no body": nil, "body": strings.NewReader("abc"), "chunked": io.MultiReader(strings.NewReader("abc"))} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.ReadAll(r.Body); err != nil {
						t.Errorf("read: %v", err)
					}
					time.Sleep(10 * time.Second)
					if err := r.Context().Err(); err != nil {
						t.Errorf("the context: %v", err)
					}
					if _, err := r.Body.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("read again: %v", err)
					}
					time.Sleep(10 * time.Second)
					if err := r.Context().Err(); err != nil {
						t.Errorf("the context after that: %v", err)
					}
				}))
				method := "POST"
				if body == nil {
					method = "GET"
				}
				if seeker, ok := body.(io.Seeker); ok {
					seeker.Seek(0, io.SeekStart)
				} else if body != nil {
					body = io.MultiReader(strings.NewReader("abc"))
				}
				if r := ask(t, s, method, "/", body); r.status != 200 || r.cut != nil || r.after != 20*time.Second {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// timeout 7: a handler may pause as long as it likes between its reads, and
// between its writes.
func TestPauses(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			buf := make([]byte, 1)
			for {
				time.Sleep(10 * time.Second)
				n, err := r.Body.Read(buf)
				time.Sleep(10 * time.Second)
				w.Write(buf[:n])
				time.Sleep(10 * time.Second)
				rc.Flush()
				if err != nil {
					time.Sleep(10 * time.Second)
					return
				}
			}
		}))
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, io.MultiReader(strings.NewReader("abc")))
		if err != nil {
			t.Fatal(err)
		}
		if r := askWith(t, s, req); r.status != 200 || r.body != "abc" || r.cut != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// A handler that ignores its body and answers while the client stalls in it is
// heard, although an HTTP/1.1 server wants to read the body before it sends the
// header: within ReadIdle, or what else is limited if the answer is short
// enough for the server to hold. A long one that has begun when Total passes is
// cut like any other.
func TestIgnoredBody(t *testing.T) {
	for name, l := range map[string]timeout.Limits{
		"read idle":   {ReadIdle: time.Second},
		"total":       {Total: time.Second},
		"first byte":  {FirstByte: time.Second},
		"write idle":  {ReadIdle: time.Second, WriteIdle: time.Second},
		"write first": {ReadIdle: time.Second, WriteIdle: 100 * time.Millisecond},
		"all":         generousBut(timeout.Limits{ReadIdle: time.Second}),
	} {
		for _, c := range []struct{ hold, size int }{{0, 0}, {0, 10}, {0, 2048}, {0, 2049}, {0, 100 << 10}, {-1, 10}, {64 << 10, 10 << 10}, {64 << 10, 100 << 10}} {
			t.Run(fmt.Sprintf("%s, Hold %d, %d bytes", name, c.hold, c.size), func(t *testing.T) {
				inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
					returned := make(chan struct{})
					s := serve(t, p, newMiddleware(t, timeout.Config{Limits: l, Hold: c.hold}).Handler(
						http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							defer close(returned)
							w.WriteHeader(http.StatusForbidden)
							w.Write(make([]byte, c.size))
						})))
					pr, pw := pipeBody(t)
					go io.WriteString(pw, "abc")
					mayCut := p == memnet.HTTP1 && l.ReadIdle == 0 && c.size > max(c.hold, 2048)
					start := time.Now()
					req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
					if err != nil {
						t.Fatal(err)
					}
					time.AfterFunc(2*time.Second, func() { pw.CloseWithError(errStalled) }) // or the client waits for its own body
					res, err := s.Transport.RoundTrip(req)
					var text []byte
					if err == nil {
						text, err = io.ReadAll(res.Body)
						res.Body.Close()
					}
					switch {
					case err != nil && mayCut:
					case err != nil || res.StatusCode != http.StatusForbidden || len(text) != c.size:
						t.Fatalf("got %v, %d bytes, %v", res, len(text), err)
					case time.Since(start) > time.Second:
						t.Errorf("after %v", time.Since(start))
					}
					<-returned
					if took := time.Since(start); took > 2*time.Second {
						t.Errorf("the handler returned after %v", took)
					}
				})
			})
		}
	}
}

func generousBut(l timeout.Limits) timeout.Limits {
	g := generous
	g.ReadIdle = l.ReadIdle
	return g
}

// The end of the request does not wait for a client that has stalled in a body
// that nobody wants, however the handler ended.
func TestStalledBodyAtTheEnd(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"return": func(w http.ResponseWriter, r *http.Request) {},
		"flush":  func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Flush() },
		"panic":  func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"close":  func(w http.ResponseWriter, r *http.Request) { r.Body.Close() },
	} {
		for limit, l := range map[string]timeout.Limits{"total": {Total: time.Second}, "read idle": {ReadIdle: time.Second}} {
			t.Run(name+", "+limit, func(t *testing.T) {
				inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
					start := time.Now()
					ended := make(chan time.Duration, 10)
					s := memnet.Serve(t, p, &http.Server{Handler: hard(t, l, handler), ConnState: func(_ net.Conn, state http.ConnState) {
						if state == http.StateClosed {
							ended <- time.Since(start)
						}
					}})
					pr, pw := pipeBody(t)
					go io.WriteString(pw, "abc")
					req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
					if err != nil {
						t.Fatal(err)
					}
					// A client of net/http waits for its own body when the connection is closed.
					time.AfterFunc(5*time.Second, func() { pw.CloseWithError(errStalled) })
					if res, err := s.Transport.RoundTrip(req); err == nil {
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					if p != memnet.HTTP1 {
						ended <- time.Since(start)
					}
					if took := <-ended; took > 2500*time.Millisecond {
						t.Errorf("the end came after %v", took)
					}
				})
			})
		}
	}
}

// A goroutine that still reads the body when the handler has returned, as a
// proxy's Transport may, has the lock that an HTTP/1.1 server needs for its
// answer. It does not have it for longer than the limit. Waiting for a lock
// stops the clock of a bubble, so this takes real time.
func TestBodyReaderLeftBehind(t *testing.T) {
	for name, l := range map[string]timeout.Limits{"total": {Total: 2 * time.Second}, "read idle": {ReadIdle: 2 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			read := make(chan error, 1)
			s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: hard(t, l, func(w http.ResponseWriter, r *http.Request) {
				reading := make(chan struct{})
				go func() {
					r.Body.Read(make([]byte, 3))
					close(reading)
					_, err := io.Copy(io.Discard, r.Body)
					read <- err
				}()
				<-reading
				w.WriteHeader(http.StatusForbidden)
			})})
			_, br := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusRequestTimeout {
				t.Errorf("got %s", res.Status)
			}
			if err := <-read; err == nil {
				t.Error("the reader saw a whole body")
			}
		})
	}
}

// timeout 24: a 413 closes an HTTP/1.1 connection and leaves one of HTTP/2 open,
// whether the body was limited inside or outside.
func TestTooLarge(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	})
	limit := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 10)
			next.ServeHTTP(w, r)
		})
	}
	atOnce := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		http.NewResponseController(w).Flush()
	})
	m := newMiddleware(t, timeout.Config{Limits: generous})
	for name, h := range map[string]http.Handler{
		"inside":          m.Handler(limit(refuse)),
		"outside":         limit(m.Handler(refuse)),
		"inside, at once": m.Handler(atOnce),
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				peers := map[string]bool{}
				s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					peers[r.RemoteAddr] = true
					h.ServeHTTP(w, r)
				}))
				pr, pw := pipeBody(t)
				go pw.Write(make([]byte, 1000))
				r := ask(t, s, "POST", "/", pr)
				if r.status != 413 || r.cut != nil || r.close != (p == memnet.HTTP1) || r.after != 0 {
					t.Errorf("got %+v", r)
				}
				ask(t, s, "GET", "/", nil)
				if want := map[bool]int{true: 2, false: 1}[p == memnet.HTTP1]; len(peers) != want {
					t.Errorf("the second request: %d connections, want %d", len(peers), want)
				}
			})
		})
	}
}

// With full duplex the handler answers before it reads, and its body is nobody
// else's.
func TestFullDuplex(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if err := rc.EnableFullDuplex(); err != nil && p == memnet.HTTP1 {
				t.Errorf("EnableFullDuplex: %v", err)
			}
			rc.Flush()
			buf := make([]byte, 1)
			for {
				n, err := r.Body.Read(buf)
				w.Write(buf[:n])
				rc.Flush()
				if err != nil {
					return
				}
			}
		}))
		pr, pw := pipeBody(t)
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for range 5 {
			time.Sleep(900 * time.Millisecond)
			pw.Write([]byte("x"))
			if got, err := io.ReadAll(io.LimitReader(res.Body, 1)); string(got) != "x" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
		}
		start := time.Now()
		if rest, err := io.ReadAll(res.Body); err == nil || time.Since(start) != time.Second+50*time.Millisecond && time.Since(start) != time.Second {
			t.Errorf("a stall gave %q, %v after %v", rest, err, time.Since(start))
		}
	})
}
