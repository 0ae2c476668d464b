package timeout_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// timeout 8: when the client stops reading, the handler's Write, WriteString,
// ReadFrom or Flush fails within WriteIdle; the client sees a cut, and no
// goroutine stays behind.
func TestClientStopsReading(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter) error{
		"write":       func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 64<<10)); return err },
		"large write": func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 10<<20)); return err },
		"write string": func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, strings.Repeat("x", 64<<10))
			return err
		},
		"read from": func(w http.ResponseWriter) error { _, err := io.Copy(w, io.LimitReader(zeros{}, 1<<20)); return err },
		"flush": func(w http.ResponseWriter) error {
			w.Write(make([]byte, 2<<10))
			return http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				done := make(chan struct{})
				s := serve(t, p, hard(t, timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					defer close(done)
					start := time.Now()
					var err error
					for err == nil {
						err = write(w)
					}
					e, ok := errors.AsType[*timeout.Error](err)
					if took := time.Since(start); !ok || e.Phase != timeout.WriteIdle || took != time.Second {
						t.Errorf("failed with %v after %v", err, took)
					}
				}))
				synctest.Wait()
				before := goroutines()
				res, err := s.Client.Get(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				<-done
				time.Sleep(time.Second)
				if _, err := io.Copy(io.Discard, res.Body); err == nil {
					t.Error("the client saw a whole response")
				}
				res.Body.Close()
				s.Transport.CloseIdleConnections()
				time.Sleep(time.Minute)
				synctest.Wait()
				if after := goroutines(); len(after) > len(before) {
					t.Errorf("%d goroutines, %d before:\n%s", len(after), len(before), strings.Join(after, "\n\n"))
				}
			})
		})
	}
}

// timeout 9: a client that reads slowly but steadily gets 100 MiB under a
// WriteIdle of 100 ms, in far more time than that.
func TestSlowReader(t *testing.T) {
	const size = 100 << 20
	block := make([]byte, 1<<20)
	inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
		// A large buffer and window would hide the rate.
		s := memnet.Config{Buffer: 64 << 10}.Listen().Serve(t, p, &http.Server{Handler: hard(t, timeout.Limits{WriteIdle: 100 * time.Millisecond},
			func(w http.ResponseWriter, r *http.Request) {
				for range size / len(block) {
					if _, err := w.Write(block); err != nil {
						t.Error(err)
						return
					}
				}
			})})
		s.Transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 256 << 10}
		start := time.Now()
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, buf := 0, make([]byte, 64<<10)
		for {
			n, err := io.ReadFull(res.Body, buf)
			if got += n; err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if took := time.Since(start); got != size || took < 100*100*time.Millisecond {
			t.Errorf("%d bytes in %v", got, took)
		}
	})
}

// timeout 10: what is flushed reaches the client while the handler waits, and a
// stream of events goes on for as long as nothing but its writes is limited.
func TestEvents(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		more := make(chan struct{})
		s := serve(t, p, hard(t, timeout.Limits{FirstByte: time.Second, ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: 0\n\n")
			w.(http.Flusher).Flush()
			<-more
			for i := range 1000 {
				time.Sleep(10 * time.Millisecond)
				fmt.Fprintf(w, "data: %d\n\n", i+1)
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
			}
		}))
		start := time.Now()
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		first := make([]byte, 9)
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "data: 0\n\n" || time.Since(start) != 0 {
			t.Errorf("first %q, %v after %v", first, err, time.Since(start))
		}
		close(more)
		rest, err := io.ReadAll(res.Body)
		if n := bytes.Count(rest, []byte("data: ")); n != 1000 || err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("then %d events, %v after %v", n, err, time.Since(start))
		}
	})
}

// A handler's own deadlines count beside the limits, and whichever is first
// ends the wait.
func TestOwnDeadlines(t *testing.T) {
	for name, c := range map[string]struct {
		read, write time.Duration
		after       time.Duration
		status      int
	}{
		"read, earlier":  {read: time.Second / 2, after: time.Second / 2, status: 200},
		"read, later":    {read: time.Minute, after: time.Second, status: 408},
		"write, earlier": {write: time.Second / 2, after: time.Second / 2},
		"write, later":   {write: time.Minute, after: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				took := make(chan time.Duration, 1)
				s := serve(t, p, hard(t, timeout.Limits{ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
					rc := http.NewResponseController(w)
					start := time.Now()
					defer func() { took <- time.Since(start) }()
					if c.read > 0 {
						rc.SetReadDeadline(start.Add(c.read))
						if _, err := io.ReadAll(r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("read: %v", err)
						}
						return
					}
					rc.SetWriteDeadline(start.Add(c.write))
					for {
						if _, err := w.Write(make([]byte, 64<<10)); err != nil {
							return
						}
					}
				}))
				req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.read > 0 {
					req.Body, _ = pipeBody(t)
				}
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if c.status != 0 && res.StatusCode != c.status {
					t.Errorf("got %s", res.Status)
				}
				if d := <-took; d != c.after {
					t.Errorf("ended after %v", d)
				}
				res.Body.Close()
			})
		})
	}
}

// A handler on HTTP/1.1 whose own read deadline passes without a body keeps its
// answer, although the server then takes its client for gone; the limits go on.
func TestOwnReadDeadlineWithoutBody(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, hard(t, timeout.Limits{Total: 10 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(time.Second))
			time.Sleep(2 * time.Second)
			rc.SetReadDeadline(time.Time{})
			if r.URL.Path == "/long" {
				time.Sleep(time.Minute)
			}
			io.WriteString(w, "answer")
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != 200 || r.body != "answer" || r.after != 2*time.Second {
			t.Errorf("got %+v", r)
		}
		if r := ask(t, s, "GET", "/long", nil); !r.isProblem(503, "timeout_total") || r.after != 10*time.Second {
			t.Errorf("got %+v", r)
		}
	})
}

// timeout 33: what http.ServeContent does below the middleware is as without it:
// whole files, ranges, and 304.
func TestServeContent(t *testing.T) {
	content := make([]byte, 300<<10)
	for i := range content {
		content[i] = byte(i / 7)
	}
	name := filepath.Join(t.TempDir(), "file.bin")
	if err := os.WriteFile(name, content, fs.ModePerm); err != nil {
		t.Fatal(err)
	}
	serveFile := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		http.ServeFile(w, r, name)
	}
	for what, headers := range map[string]map[string]string{
		"whole":         {},
		"range":         {"Range": "bytes=1000-99999"},
		"suffix":        {"Range": "bytes=-10"},
		"ranges":        {"Range": "bytes=0-9,200000-"},
		"unsatisfiable": {"Range": "bytes=400000-"},
		"not modified":  {"If-None-Match": `"v1"`},
		"modified":      {"If-None-Match": `"v2"`},
	} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
				for _, method := range []string{"GET", "HEAD"} {
					get := func(h http.Handler) reply {
						s := serve(t, p, h)
						req, err := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
						if err != nil {
							t.Fatal(err)
						}
						for k, v := range headers {
							req.Header.Set(k, v)
						}
						return askWith(t, s, req)
					}
					want := get(http.HandlerFunc(serveFile))
					got := get(hard(t, generous, serveFile))
					if what == "ranges" { // the boundary is random
						_, boundary, _ := strings.Cut(want.header.Get("Content-Type"), "boundary=")
						_, other, _ := strings.Cut(got.header.Get("Content-Type"), "boundary=")
						got.body = strings.ReplaceAll(got.body, other, boundary)
						got.header.Set("Content-Type", want.header.Get("Content-Type"))
					}
					if got.status != want.status || got.body != want.body || got.cut != nil || fmt.Sprint(got.header) != fmt.Sprint(want.header) {
						t.Errorf("%s: got %d, %v, %d bytes, %v; want %d, %v, %d bytes", method,
							got.status, got.header, len(got.body), got.cut, want.status, want.header, len(want.body))
					}
				}
			})
		})
	}
}

// timeout 33: a file still reaches the ReadFrom of a TCP connection, which is
// where sendfile is, with WriteIdle in pieces.
func TestSendfile(t *testing.T) {
	const size = 1 << 20
	name := filepath.Join(t.TempDir(), "file.bin")
	if err := os.WriteFile(name, make([]byte, size), fs.ModePerm); err != nil {
		t.Fatal(err)
	}
	for limits, l := range map[string]timeout.Limits{"total": {Total: time.Minute}, "write idle": {WriteIdle: time.Minute}} {
		t.Run(limits, func(t *testing.T) {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listener := &fileListener{Listener: inner}
			done := make(chan struct{})
			h := hard(t, l, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				h.ServeHTTP(w, r)
			})}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(listener) }()
			t.Cleanup(func() {
				srv.Close()
				<-served
			})
			client := &http.Client{Transport: new(http.Transport)}
			defer client.CloseIdleConnections()
			res, err := client.Get("http://" + inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			n, err := io.Copy(io.Discard, res.Body)
			if n != size || err != nil {
				t.Errorf("the client read %d bytes, %v", n, err)
			}
			<-done
			if got := listener.sent.Load(); got < size*9/10 {
				t.Errorf("%d of %d bytes went through the connection's ReadFrom", got, size)
			}
		})
	}
}

// fileListener counts what its connections take from regular files.
type fileListener struct {
	net.Listener
	sent atomic.Int64
}

func (l *fileListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &fileConn{c.(*net.TCPConn), &l.sent}, nil
}

type fileConn struct {
	*net.TCPConn
	sent *atomic.Int64
}

func (c *fileConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.sent.Add(n)
		}
	}
	return n, err
}

// goroutines returns the stacks of the goroutines in the bubble.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(stacks, func(s string) bool {
		header, _, _ := strings.Cut(s, "\n")
		return !strings.Contains(header, "synctest bubble")
	})
}
