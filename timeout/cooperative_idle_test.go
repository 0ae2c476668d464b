package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// A handler that waits for a client who stalls in the body is freed, whatever it
// does about its context, and the client is answered.
func TestCooperativeStalledUpload(t *testing.T) {
	for _, c := range []struct {
		limits timeout.Limits
		phase  timeout.Phase
		status int
		code   string
	}{
		{timeout.Limits{Total: time.Second}, timeout.Total, http.StatusServiceUnavailable, "timeout_total"},
		{timeout.Limits{FirstByte: time.Second}, timeout.FirstByte, http.StatusServiceUnavailable, "timeout_first_byte"},
		{timeout.Limits{ReadIdle: time.Second}, timeout.ReadIdle, http.StatusRequestTimeout, "timeout_read_idle"},
		{timeout.Limits{ReadIdle: time.Second, Total: time.Minute, WriteIdle: time.Minute}, timeout.ReadIdle, http.StatusRequestTimeout, "timeout_read_idle"},
	} {
		t.Run(c.code, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := serve(t, p, cooperative(t, c.limits, func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					e, ok := errors.AsType[*timeout.Error](err)
					if !ok || e.Phase != c.phase || string(body) != "abc" {
						t.Errorf("read %q, %#v", body, err)
					}
					if cause := context.Cause(r.Context()); cause != error(e) {
						t.Errorf("the cause is %v", cause)
					}
					if r.URL.Path == "/own" {
						http.Error(w, "own", http.StatusBadRequest)
					}
				}))
				for _, path := range []string{"/", "/own"} {
					pr, pw := pipeBody(t)
					go io.WriteString(pw, "abc")
					r := ask(t, s, "POST", path, pr)
					if r.after != time.Second || r.close != (p == memnet.HTTP1) {
						t.Errorf("%s: got %+v", path, r)
					}
					if path == "/own" && (r.status != http.StatusBadRequest || r.body != "own\n") || path == "/" && !r.isProblem(c.status, c.code) {
						t.Errorf("%s: got %+v", path, r)
					}
				}
			})
		})
	}
}

// A client who stalls in a body that the handler does not read holds nobody up
// either: over HTTP/1.1 the server reads what is left before it sends a header,
// as soon as the response is flushed or larger than its buffer, and at the end.
// FirstByte does not count any more once the response has begun.
func TestCooperativeStalledUnreadUpload(t *testing.T) {
	const large = 100 << 10
	for _, c := range []struct {
		name  string
		size  int
		early bool // the header is sent before the handler returns
		write func(w http.ResponseWriter)
	}{
		{"nothing", 0, false, func(w http.ResponseWriter) {}},
		{"short", 10, false, func(w http.ResponseWriter) { w.Write(make([]byte, 10)) }},
		{"the server's buffer", 2048, false, func(w http.ResponseWriter) { w.Write(make([]byte, 2048)) }},
		{"one byte more", 2049, true, func(w http.ResponseWriter) {
			w.Write(make([]byte, 2048))
			w.Write(make([]byte, 1))
		}},
		{"large", large, true, func(w http.ResponseWriter) { w.Write(make([]byte, large)) }},
		{"large string", large, true, func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("a", large)) }},
		{"large copy", large, true, func(w http.ResponseWriter) { io.Copy(w, io.LimitReader(zeros{}, large)) }},
		{"flushed", 10, true, func(w http.ResponseWriter) {
			http.NewResponseController(w).Flush()
			w.Write(make([]byte, 10))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, l := range map[string]timeout.Limits{
				"total":                    {Total: time.Second},
				"first byte":               {FirstByte: time.Second},
				"read idle":                {ReadIdle: time.Second},
				"read idle and write idle": {ReadIdle: time.Second, WriteIdle: time.Second},
				"all":                      {Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Second, WriteIdle: time.Minute},
			} {
				if name == "first byte" && c.early {
					continue
				}
				inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
					s := serve(t, p, cooperative(t, l, func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(http.StatusForbidden)
						c.write(w)
					}))
					pr, pw := pipeBody(t)
					go io.WriteString(pw, "abc")
					r := ask(t, s, "POST", "/", pr)
					if r.status != http.StatusForbidden || len(r.body) != c.size || r.cut != nil || r.after > time.Second || r.close != (p == memnet.HTTP1) {
						t.Errorf("%s: got %d, %d bytes, %v after %v, closed %v", name, r.status, len(r.body), r.cut, r.after, r.close)
					}
				})
			}
		})
	}
}

// A slow but steady upload is not cut, nor a request that works for long after
// the end of its body or without one.
func TestCooperativeReadIdleSpares(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			time.Sleep(5 * time.Second)
			fmt.Fprint(w, n, err, r.Context().Err())
		}))
		pr, pw := pipeBody(t)
		go func() {
			for range 20 {
				pw.Write([]byte{0})
				time.Sleep(900 * time.Millisecond)
			}
			pw.Close()
		}()
		if r := ask(t, s, "POST", "/", pr); r.body != "20 <nil> <nil>" {
			t.Errorf("slow upload: got %+v", r)
		}
		if r := ask(t, s, "GET", "/", nil); r.body != "0 <nil> <nil>" {
			t.Errorf("no body: got %+v", r)
		}
	})
}

// A client who stops reading fails the handler's write, and its response is cut.
func TestCooperativeWriteIdle(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		ended := make(chan error, 1)
		s := serve(t, p, cooperative(t, timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			var err error
			switch r.URL.Path {
			case "/write":
				for err == nil {
					_, err = w.Write(make([]byte, 1<<20))
				}
			case "/string":
				for err == nil {
					_, err = io.WriteString(w, strings.Repeat("a", 1<<20))
				}
			case "/copy":
				_, err = io.Copy(w, zeros{})
			case "/flush":
				rc := http.NewResponseController(w)
				for err == nil {
					w.Write(make([]byte, 32<<10))
					err = rc.Flush()
				}
			}
			e, ok := errors.AsType[*timeout.Error](err)
			if cause := context.Cause(r.Context()); !ok || e.Phase != timeout.WriteIdle || cause != error(e) {
				t.Errorf("%s: %#v because of %v", r.URL.Path, err, cause)
			}
			if _, again := w.Write([]byte("more")); again == nil {
				t.Errorf("%s: Write succeeded after the limit", r.URL.Path)
			}
			ended <- err
		}))
		for _, path := range []string{"/write", "/string", "/copy", "/flush"} {
			res, err := s.Client.Get(s.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			<-ended // the client reads nothing so far
			if got := time.Since(start); got != time.Second {
				t.Errorf("%s: ended after %v", path, got)
			}
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Errorf("%s: the client reads a whole body", path)
			}
			res.Body.Close()
		}
	})
}

// A large response to a slow but steady reader passes, and so does a file.
func TestCooperativeWriteIdleSpares(t *testing.T) {
	const size = 2 << 20
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/file" {
				http.ServeFile(w, r, name)
				return
			}
			if n, err := w.Write(make([]byte, size)); n != size || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		}))
		for _, path := range []string{"/write", "/file"} {
			res, err := s.Client.Get(s.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			var n int64
			for err == nil {
				var m int64
				m, err = io.CopyN(io.Discard, res.Body, 64<<10)
				n += m
				time.Sleep(300 * time.Millisecond)
			}
			if n != size || err != io.EOF {
				t.Errorf("%s: read %d bytes, %v", path, n, err)
			}
			res.Body.Close()
		}
	})
}

// readFromWriter records how its ReadFrom is called. It can be hijacked, as
// whoever can send files can.
type readFromWriter struct {
	*httptest.ResponseRecorder
	http.Hijacker
	sources []string
}

func (w *readFromWriter) ReadFrom(src io.Reader) (int64, error) {
	if l, ok := src.(*io.LimitedReader); ok {
		w.sources = append(w.sources, fmt.Sprintf("%T of %d", l.R, l.N))
	} else {
		w.sources = append(w.sources, fmt.Sprintf("%T", src))
	}
	return io.Copy(io.Discard, src)
}

// A file reaches the server's ReadFrom: whole without WriteIdle, and else in
// pieces of 64 KiB, so that one limit never covers all of it.
func TestCooperativeReadFrom(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 150<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for limits, want := range map[timeout.Limits]string{
		{Total: time.Minute}:     "*os.File of 153600",
		{WriteIdle: time.Minute}: "*os.File of 65536, *os.File of 65536, *os.File of 22528",
	} {
		w := &readFromWriter{ResponseRecorder: httptest.NewRecorder()}
		cooperative(t, limits, func(w http.ResponseWriter, r *http.Request) {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if n, err := io.Copy(w, io.LimitReader(f, 150<<10)); n != 150<<10 || err != nil {
				t.Errorf("%+v: copied %d, %v", limits, n, err)
			}
		}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		if got := strings.Join(w.sources, ", "); got != want {
			t.Errorf("%+v: got %s, want %s", limits, got, want)
		}
	}
}

// A 413 for a body that is too large closes an HTTP/1.1 connection and leaves an
// HTTP/2 one open.
func TestCooperativeTooLarge(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, generous, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 10)
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			}
		}))
		pr, pw := pipeBody(t)
		go pw.Write(make([]byte, 1000))
		r := ask(t, s, "POST", "/", pr)
		if r.status != http.StatusRequestEntityTooLarge || r.cut != nil || r.close != (p == memnet.HTTP1) || r.after != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

// A handler that panics over a stalled upload is not waited for longer: the
// server reads on before it closes the connection.
func TestCooperativePanicOverStalledUpload(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			panic(http.ErrAbortHandler)
		}))
		conn, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		start := time.Now()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
		conn.SetReadDeadline(start.Add(time.Minute))
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 || time.Since(start) > 2*time.Second {
			t.Errorf("got %q, %v after %v", got, err, time.Since(start))
		}
	})
}
