package respwriter_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/respwriter"
)

// bare hides everything but the three methods of http.ResponseWriter.
type bare struct{ w http.ResponseWriter }

func (b bare) Header() http.Header         { return b.w.Header() }
func (b bare) Write(p []byte) (int, error) { return b.w.Write(p) }
func (b bare) WriteHeader(code int)        { b.w.WriteHeader(code) }

// unwrapper is the usual minimal wrapper of other packages.
type unwrapper struct{ bare }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.w }

type h1Writer struct{ *httptest.ResponseRecorder }

func (h1Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("not today")
}

func wrap(w http.ResponseWriter) http.ResponseWriter {
	rw := respwriter.Make(w, httptest.NewRequest("GET", "/", nil), nil)
	return rw.Form()
}

func TestForm(t *testing.T) {
	rec := httptest.NewRecorder()
	tests := []struct {
		name          string
		inner         http.ResponseWriter
		flush, hijack bool
	}{
		{"plain", bare{rec}, false, false},
		{"flusher", rec, true, false},
		{"hijacker", h1Writer{rec}, true, true},
		{"flusher behind Unwrap", unwrapper{bare{rec}}, true, false},
		{"hijacker behind Unwrap", unwrapper{bare{h1Writer{rec}}}, true, true},
		{"plain form", wrap(bare{rec}), false, false},
		{"flusher form", wrap(rec), true, false},
		{"hijacker form", wrap(h1Writer{rec}), true, true},
		{"plain form behind Unwrap", unwrapper{bare{wrap(bare{rec})}}, false, false},
		{"flusher form behind Unwrap", unwrapper{bare{wrap(rec)}}, true, false},
		{"hijacker form behind Unwrap", unwrapper{bare{wrap(h1Writer{rec})}}, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := wrap(tt.inner)
			_, flush := w.(http.Flusher)
			_, hijack := w.(http.Hijacker)
			_, readFrom := w.(io.ReaderFrom)
			if flush != tt.flush || hijack != tt.hijack || readFrom != tt.hijack {
				t.Errorf("Flush %v, Hijack %v, ReadFrom %v; want %v, %v, %v", flush, hijack, readFrom, tt.flush, tt.hijack, tt.hijack)
			}
			if _, ok := w.(interface{ Unwrap() http.ResponseWriter }); !ok {
				t.Error("no Unwrap")
			}
			if _, ok := w.(io.StringWriter); !ok {
				t.Error("no WriteString")
			}
			rc := http.NewResponseController(w)
			if err := rc.Flush(); (err == nil) != tt.flush || err != nil && !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("controller Flush: %v", err)
			}
			if _, _, err := rc.Hijack(); tt.hijack == errors.Is(err, http.ErrNotSupported) {
				t.Errorf("controller Hijack: %v", err)
			}
		})
	}
}

func TestWriterRecords(t *testing.T) {
	tests := []struct {
		name    string
		handler func(w http.ResponseWriter)
		status  int
		written int64
		calls   int
	}{
		{"nothing", func(w http.ResponseWriter) {}, 0, 0, 0},
		{"WriteHeader", func(w http.ResponseWriter) { w.WriteHeader(404) }, 404, 0, 1},
		{"Write", func(w http.ResponseWriter) { w.Write([]byte("abc")); w.Write([]byte("de")) }, 200, 5, 1},
		{"empty Write", func(w http.ResponseWriter) { w.Write(nil) }, 200, 0, 1},
		{"WriteString", func(w http.ResponseWriter) { io.WriteString(w, "abc") }, 200, 3, 1},
		{"Flush", func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, 200, 0, 1},
		{"ReadFrom", func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("abc")) }, 200, 3, 1},
		{"1xx only", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(102) }, 0, 0, 0},
		{"1xx then final", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(404) }, 404, 0, 1},
		{"101 is final", func(w http.ResponseWriter) { w.WriteHeader(101) }, 101, 0, 1},
		{"failed Hijack", func(w http.ResponseWriter) { w.(http.Hijacker).Hijack(); w.WriteHeader(500) }, 500, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			rw := respwriter.Make(h1Writer{httptest.NewRecorder()}, httptest.NewRequest("GET", "/", nil), respwriter.Func(func(int) error {
				calls++
				return nil
			}))
			tt.handler(rw.Form())
			if rw.Status() != tt.status || rw.Written() != tt.written || calls != tt.calls || rw.Committed() != (tt.calls > 0) {
				t.Errorf("status %d, written %d, before called %d times; want %d, %d, %d", rw.Status(), rw.Written(), calls, tt.status, tt.written, tt.calls)
			}
		})
	}
}

func TestFinish(t *testing.T) {
	var got []int
	rw := respwriter.Make(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), respwriter.Func(func(status int) error {
		got = append(got, status)
		return nil
	}))
	rw.Finish()
	rw.Finish()
	if len(got) != 1 || got[0] != 200 || rw.Status() != 200 {
		t.Errorf("before called with %v, status %d", got, rw.Status())
	}
}

// What before sets is in the header, whichever way the handler commits.
func TestBeforeChangesHeader(t *testing.T) {
	for name, send := range map[string]func(http.ResponseWriter){
		"WriteHeader": func(w http.ResponseWriter) { w.WriteHeader(200) },
		"Write":       func(w http.ResponseWriter) { w.Write([]byte("x")) },
		"Flush":       func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
		"ReadFrom":    func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
				rw := respwriter.Make(w, r, respwriter.Func(func(int) error { w.Header().Set("Set-By", "before"); return nil }))
				send(rw.Form())
			})
			res, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Header.Get("Set-By"); got != "before" {
				t.Errorf("Set-By: %q", got)
			}
		})
	}
}

// An error from before replaces all that the handler would have sent.
func TestBeforeRefuses(t *testing.T) {
	refusal := errors.New("no")
	both(t, func(t *testing.T, h2 bool) {
		errs := make(chan error, 8)
		srv := serve(t, h2, func(w http.ResponseWriter, r *http.Request) {
			rw := respwriter.Make(w, r, respwriter.Func(func(int) error {
				http.Error(w, "instead", http.StatusServiceUnavailable)
				return refusal
			}))
			f := rw.Form()
			f.WriteHeader(200)
			_, err := f.Write([]byte("secret"))
			errs <- err
			_, err = io.WriteString(f, "secret")
			errs <- err
			_, err = io.Copy(f, strings.NewReader("secret"))
			errs <- err
			errs <- http.NewResponseController(f).Flush()
			if !h2 {
				_, _, err = http.NewResponseController(f).Hijack()
				errs <- err
			}
			close(errs)
		})
		res, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 503 || string(body) != "instead\n" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
		for err := range errs {
			if !errors.Is(err, refusal) {
				t.Errorf("handler got %v", err)
			}
		}
	})
}

func TestInformational(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		srv := serve(t, h2, func(w http.ResponseWriter, r *http.Request) {
			rw := respwriter.Make(w, r, nil)
			f := rw.Form()
			f.Header().Set("Link", "</a.css>; rel=preload")
			f.WriteHeader(http.StatusEarlyHints)
			f.WriteHeader(http.StatusNotFound)
			if rw.Status() != 404 {
				t.Errorf("recorded %d", rw.Status())
			}
		})
		hints := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints++; return nil },
		})
		req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if hints != 1 || res.StatusCode != 404 {
			t.Errorf("%d hints, status %d", hints, res.StatusCode)
		}
	})
}

func TestHijack(t *testing.T) {
	srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		before := 0
		rw := respwriter.Make(w, r, respwriter.Func(func(status int) error { before = status; return nil }))
		conn, _, err := rw.Form().(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		conn.Close()
		if before != 101 || !rw.Hijacked() || rw.Status() != 101 {
			t.Errorf("before %d, hijacked %v, status %d", before, rw.Hijacked(), rw.Status())
		}
	})
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 204 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// sources records which reader the server's own ReadFrom was given.
type sources struct {
	http.ResponseWriter
	files int
}

func (s *sources) Unwrap() http.ResponseWriter { return s.ResponseWriter }
func (s *sources) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			s.files++
		}
	}
	return io.Copy(s.ResponseWriter, r)
}

// A file still reaches the ReadFrom of the server, which may use sendfile.
func TestReadFromFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	var s *sources
	srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		s = &sources{ResponseWriter: w}
		rw := respwriter.Make(s, r, nil)
		http.ServeFile(rw.Form(), r, name)
		if rw.Written() != int64(len(want)) {
			t.Errorf("recorded %d bytes", rw.Written())
		}
	})
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !bytes.Equal(got, want) || s.files != 1 {
		t.Errorf("%d bytes, %v; ReadFrom got a file %d times", len(got), err, s.files)
	}
}

// The server's complaint names the handler, through any number of wrappers.
func TestSuperfluous(t *testing.T) {
	var logged bytes.Buffer
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer := respwriter.Make(w, r, nil)
		rw := respwriter.Make(outer.Form(), r, nil)
		f := rw.Form()
		f.WriteHeader(204)
		f.WriteHeader(500)
	}))
	srv.Config.ErrorLog = log.New(&logged, "", 0)
	srv.Start()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	srv.Close()
	_, file, _, _ := runtime.Caller(0)
	line := logged.String()
	if res.StatusCode != 204 || strings.Count(line, "\n") != 1 ||
		!strings.Contains(line, "http: superfluous response.WriteHeader call from ") ||
		!strings.Contains(line, "TestSuperfluous") || !strings.Contains(line, filepath.Base(file)) {
		t.Errorf("status %d, logged %q", res.StatusCode, line)
	}
}

func TestLogfWithoutServer(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	respwriter.Logf(context.Background(), "n=%d", 3)
	if !strings.Contains(logged.String(), "n=3") {
		t.Errorf("logged %q", &logged)
	}
}

func TestDeadlinesReachTheConnection(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		srv := serve(t, h2, func(w http.ResponseWriter, r *http.Request) {
			rw := respwriter.Make(w, r, nil)
			rc := http.NewResponseController(rw.Form())
			for i, err := range []error{rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{}), rc.EnableFullDuplex()} {
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
		res, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	})
}

func TestAllocs(t *testing.T) {
	var w http.ResponseWriter = bare{httptest.NewRecorder()}
	r := httptest.NewRequest("GET", "/", nil)
	if got := testing.AllocsPerRun(100, func() {
		rw := respwriter.Make(w, r, nil)
		rw.Form().WriteHeader(204)
	}); got > 1 {
		t.Errorf("%v allocations for the wrapper and its form, want 1", got)
	}
}

func both(t *testing.T, f func(t *testing.T, h2 bool)) {
	t.Run("h1", func(t *testing.T) { f(t, false) })
	t.Run("h2", func(t *testing.T) { f(t, true) })
}

func serve(t *testing.T, h2 bool, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if srv.EnableHTTP2 = h2; h2 {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}
