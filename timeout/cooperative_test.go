package timeout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// cooperative returns h within limits, run in the serving goroutine.
func cooperative(t testing.TB, l timeout.Limits, h http.HandlerFunc) http.Handler {
	t.Helper()
	return newMiddleware(t, timeout.Config{Limits: l, Cooperative: true}).Handler(h)
}

// Total is a real deadline. A handler that honours it is answered for, with the
// headers from outside and without those that described its own body; one that
// does not has its late answer go out; one that answers with an error of its
// own keeps it.
func TestCooperativeTotal(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		start := time.Now()
		h := cooperative(t, timeout.Limits{Total: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			end, ok := r.Context().Deadline()
			if !ok || time.Until(end) != time.Second {
				t.Errorf("%s: the deadline is %v, %v", r.URL.Path, end.Sub(start), ok)
			}
			switch r.URL.Path {
			case "/honours":
				w.Header().Set("Content-Encoding", "gzip")
				<-r.Context().Done()
				cause := context.Cause(r.Context())
				if e, ok := errors.AsType[*timeout.Error](cause); !ok || e.Phase != timeout.Total || e.Limit != time.Second {
					t.Errorf("the cause is %#v", cause)
				}
				if r.Context().Err() != context.DeadlineExceeded || !errors.Is(cause, os.ErrDeadlineExceeded) || !errors.Is(cause, http.ErrHandlerTimeout) {
					t.Errorf("the error is %v because of %v", r.Context().Err(), cause)
				}
			case "/ignores":
				time.Sleep(5 * time.Second)
				io.WriteString(w, "late")
			case "/own":
				<-r.Context().Done()
				http.Error(w, "own", http.StatusBadGateway)
			case "/empty":
				time.Sleep(5 * time.Second)
				w.WriteHeader(http.StatusNoContent)
			}
		})
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "r1")
			h.ServeHTTP(w, r)
		}))
		r := ask(t, s, "GET", "/honours", nil)
		if !r.isProblem(http.StatusServiceUnavailable, "timeout_total") || r.after != time.Second || r.close ||
			r.header.Get("X-Request-Id") != "r1" || r.header["Content-Encoding"] != nil {
			t.Errorf("honours its context: got %+v", r)
		}
		if r := ask(t, s, "GET", "/ignores", nil); r.status != http.StatusOK || r.body != "late" || r.cut != nil || r.after != 5*time.Second {
			t.Errorf("ignores its context: got %+v", r)
		}
		if r := ask(t, s, "GET", "/own", nil); r.status != http.StatusBadGateway || r.body != "own\n" || r.cut != nil {
			t.Errorf("answers itself: got %+v", r)
		}
		if r := ask(t, s, "GET", "/empty", nil); r.status != http.StatusNoContent || r.cut != nil {
			t.Errorf("answers late without a body: got %+v", r)
		}
		if r := ask(t, s, "GET", "/fast", nil); r.status != http.StatusOK || r.after != 0 {
			t.Errorf("does nothing, in time: got %+v", r)
		}
	})
}

// What was sent before the limit stays as it is: the end is up to the handler.
func TestCooperativeCommitted(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{Total: time.Second, FirstByte: 500 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			if r.URL.Path == "/abort" {
				panic(http.ErrAbortHandler)
			}
			if _, err := io.WriteString(w, " and ended"); err != nil {
				t.Errorf("Write after the limit: %v", err)
			}
		}))
		if r := ask(t, s, "GET", "/", nil); r.status != http.StatusOK || r.body != "begun and ended" || r.cut != nil {
			t.Errorf("got %+v", r)
		}
		if r := ask(t, s, "GET", "/abort", nil); r.body != "begun" || r.cut == nil {
			t.Errorf("aborted: got %+v", r)
		}
	})
}

// FirstByte ends the context of a handler that has sent nothing, and of no
// other.
func TestCooperativeFirstByte(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{FirstByte: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/sends":
				io.WriteString(w, "first ")
				time.Sleep(5 * time.Second)
				if err := r.Context().Err(); err != nil {
					t.Errorf("the context has ended: %v", context.Cause(r.Context()))
				}
				io.WriteString(w, "second")
			case "/informs": // which is no answer yet
				w.WriteHeader(http.StatusEarlyHints)
				fallthrough
			default:
				<-r.Context().Done()
				cause := context.Cause(r.Context())
				if e, ok := errors.AsType[*timeout.Error](cause); !ok || e.Phase != timeout.FirstByte || r.Context().Err() != context.Canceled {
					t.Errorf("%v because of %#v", r.Context().Err(), cause)
				}
			}
		}))
		for _, path := range []string{"/waits", "/informs"} {
			if r := ask(t, s, "GET", path, nil); !r.isProblem(http.StatusServiceUnavailable, "timeout_first_byte") || r.after != time.Second {
				t.Errorf("%s: got %+v", path, r)
			}
		}
		if r := ask(t, s, "GET", "/sends", nil); r.status != http.StatusOK || r.body != "first second" || r.cut != nil {
			t.Errorf("/sends: got %+v", r)
		}
	})
}

// Events reach the client while the handler works, for longer than any idle
// limit.
func TestCooperativeStreaming(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{FirstByte: time.Second, ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 10 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
				time.Sleep(time.Minute)
			}
		}))
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		start := time.Now()
		for i := range 10 {
			want := fmt.Sprintf("data: %d\n\n", i)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want || time.Since(start) != time.Duration(i)*time.Minute {
				t.Fatalf("read %q, %v after %v, want %q", got, err, time.Since(start), want)
			}
		}
		if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
			t.Errorf("at the end: read %q, %v", rest, err)
		}
	})
}

// An upgraded connection belongs to the handler: no limit touches it, but the
// context still ends at Total.
func TestCooperativeUpgrade(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		ended := make(chan time.Duration, 1)
		s := serve(t, p, cooperative(t, timeout.Limits{Total: time.Second, FirstByte: time.Second, ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			rw.Flush()
			<-r.Context().Done()
			ended <- time.Since(start)
			io.Copy(conn, rw)
		}))
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		conn, ok := res.Body.(io.ReadWriteCloser)
		if res.StatusCode != http.StatusSwitchingProtocols || !ok {
			t.Fatalf("got %s, a body %T", res.Status, res.Body)
		}
		defer conn.Close()
		for range 3 {
			time.Sleep(time.Minute)
			io.WriteString(conn, "ping")
			got := make([]byte, 4)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
				t.Errorf("read %q, %v", got, err)
			}
		}
		if after := <-ended; after != time.Second {
			t.Errorf("the context ended after %v", after)
		}
	})
}

// A panic goes through with the very value, before and after the limit.
func TestCooperativePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value := errors.New("the handler's own")
		for _, pause := range []time.Duration{0, 2 * time.Second} {
			for _, want := range []any{value, http.ErrAbortHandler, 7} {
				h := cooperative(t, timeout.Limits{Total: time.Second, FirstByte: time.Second, ReadIdle: time.Second, WriteIdle: time.Second},
					func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(pause)
						panic(want)
					})
				w := httptest.NewRecorder()
				func() {
					defer func() {
						if got := recover(); got != want {
							t.Errorf("after %v: got %#v, want %#v", pause, got, want)
						}
					}()
					h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
				}()
				if w.Body.Len() > 0 {
					t.Errorf("after %v: answered %s", pause, w.Body)
				}
			}
		}
	})
}

// What the mux and ParseMultipartForm leave in the request is visible outside,
// also when the handler panics or is too late.
func TestCooperativeCopyBack(t *testing.T) {
	var upload bytes.Buffer
	form := multipart.NewWriter(&upload)
	part, err := form.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(make([]byte, 1000))
	form.Close()
	for _, end := range []string{"return", "panic", "late"} {
		t.Run(end, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("TMPDIR", dir)
			t.Setenv("TMP", dir)
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				byServer := leftByServer(t, p, dir, form.FormDataContentType(), upload.Bytes())
				mux := http.NewServeMux()
				mux.HandleFunc("POST /upload/{id}", func(w http.ResponseWriter, r *http.Request) {
					if err := r.ParseMultipartForm(1); err != nil {
						t.Error(err)
					}
					switch end {
					case "panic":
						panic(http.ErrAbortHandler)
					case "late":
						<-r.Context().Done()
					}
				})
				h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second, ReadIdle: time.Second}, Cooperative: true}).Handler(mux)
				s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						if r.Pattern != "POST /upload/{id}" || r.MultipartForm == nil {
							t.Errorf("outside: pattern %q, form %v", r.Pattern, r.MultipartForm)
						}
						if files, _ := os.ReadDir(dir); end != "panic" && len(files) != 1 {
							t.Errorf("there are %d files before the end of the request", len(files))
						}
						// The server does so only for requests that end without a panic.
						if v := recover(); v != nil {
							r.MultipartForm.RemoveAll()
							panic(v)
						}
					}()
					h.ServeHTTP(w, r)
				}))
				res, err := s.Client.Post(s.URL+"/upload/1", form.FormDataContentType(), bytes.NewReader(upload.Bytes()))
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				if (err != nil) != (end == "panic") {
					t.Errorf("got %v", err)
				}
				synctest.Wait()
				files, _ := os.ReadDir(dir)
				if len(files) > byServer {
					t.Errorf("%d files are left, %d without the middleware", len(files), byServer)
				}
				for _, f := range files {
					os.Remove(filepath.Join(dir, f.Name()))
				}
			})
		})
	}
}

// The handler runs in the goroutine that serves the request. A bubble fails if
// one is left behind, in this test as in all others.
func TestCooperativeGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := cooperative(t, timeout.Limits{Total: time.Second, FirstByte: time.Second, ReadIdle: time.Second, WriteIdle: time.Second},
			func(w http.ResponseWriter, r *http.Request) {
				if stack := string(debugStack()); !strings.Contains(stack, "TestCooperativeGoroutines.func1(") {
					t.Errorf("the handler runs elsewhere:\n%s", stack)
				}
				if r.URL.Path == "/late" {
					<-r.Context().Done()
				}
			})
		for _, path := range []string{"/", "/late"} {
			for _, body := range []io.Reader{nil, strings.NewReader("abc")} {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", path, body))
			}
		}
	})
}

func debugStack() []byte {
	buf := make([]byte, 16<<10)
	return buf[:runtime.Stack(buf, false)]
}

// Nested, Total and FirstByte can only get shorter; of ReadIdle and WriteIdle the
// innermost counts, for as long as it runs.
func TestCooperativeNested(t *testing.T) {
	for _, c := range []struct {
		name         string
		outer, inner timeout.Limits
		want         time.Duration
		code         string
	}{
		{"shorter total inside", timeout.Limits{Total: 9 * time.Second}, timeout.Limits{Total: time.Second}, time.Second, "timeout_total"},
		{"longer total inside", timeout.Limits{Total: time.Second}, timeout.Limits{Total: 9 * time.Second}, time.Second, "timeout_total"},
		{"shorter first byte inside", timeout.Limits{FirstByte: 9 * time.Second}, timeout.Limits{FirstByte: time.Second}, time.Second, "timeout_first_byte"},
		{"longer first byte inside", timeout.Limits{FirstByte: time.Second}, timeout.Limits{FirstByte: 9 * time.Second}, time.Second, "timeout_first_byte"},
		{"shorter read idle inside", timeout.Limits{ReadIdle: 9 * time.Second}, timeout.Limits{ReadIdle: time.Second}, time.Second, "timeout_read_idle"},
		{"longer read idle inside", timeout.Limits{ReadIdle: time.Second}, timeout.Limits{ReadIdle: 9 * time.Second}, 9 * time.Second, "timeout_read_idle"},
		{"read idle outside only", timeout.Limits{ReadIdle: time.Second}, timeout.Limits{Total: 9 * time.Second}, time.Second, "timeout_read_idle"},
		{"read idle in total", timeout.Limits{Total: 2 * time.Second}, timeout.Limits{ReadIdle: 9 * time.Second}, 2 * time.Second, "timeout_total"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				for _, mode := range []struct{ outer, inner bool }{{true, true}, {true, false}, {false, true}} {
					outer := newMiddleware(t, timeout.Config{Limits: c.outer, Cooperative: mode.outer})
					inner := newMiddleware(t, timeout.Config{Limits: c.inner, Cooperative: mode.inner})
					s := serve(t, p, outer.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.Copy(io.Discard, r.Body)
					}))))
					pr, pw := pipeBody(t)
					go io.WriteString(pw, "abc")
					r := ask(t, s, "POST", "/", pr)
					if r.after != c.want || r.status < 400 || !strings.Contains(r.body, c.code) || r.cut != nil {
						t.Errorf("cooperative %+v: got %+v", mode, r)
					}
				}
			})
		})
	}
}

// After the inner one has returned, the outer one's idle limits count again.
func TestCooperativeNestedRelease(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		inner := cooperative(t, timeout.Limits{ReadIdle: 9 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
			io.ReadFull(r.Body, make([]byte, 3))
		})
		s := serve(t, p, cooperative(t, timeout.Limits{ReadIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			inner.ServeHTTP(w, r)
			io.Copy(io.Discard, r.Body)
		}))
		pr, pw := pipeBody(t)
		go func() {
			time.Sleep(5 * time.Second)
			io.WriteString(pw, "abc")
		}()
		if r := ask(t, s, "POST", "/", pr); !r.isProblem(http.StatusRequestTimeout, "timeout_read_idle") || r.after != 6*time.Second {
			t.Errorf("got %+v", r)
		}
	})
}

// A deadline that is in the context already, earlier than Total, is what the
// error names; an ended context without a deadline is no limit of ours.
func TestCooperativeCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := errors.New("the caller's own")
		deadline := func(ctx context.Context, cause error) (context.Context, context.CancelFunc) {
			return context.WithDeadlineCause(ctx, time.Now().Add(time.Second), cause)
		}
		for _, c := range []struct {
			name   string
			outer  func(context.Context) (context.Context, context.CancelFunc)
			cause  error
			status int
		}{
			{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) { return deadline(ctx, nil) },
				context.DeadlineExceeded, http.StatusGatewayTimeout},
			{"deadline with a cause", func(ctx context.Context) (context.Context, context.CancelFunc) { return deadline(ctx, own) },
				own, http.StatusGatewayTimeout},
			{"cancelled", func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancelCause(ctx)
				time.AfterFunc(time.Second, func() { cancel(own) })
				return ctx, func() {}
			}, own, http.StatusOK},
		} {
			ctx, cancel := c.outer(t.Context())
			w := httptest.NewRecorder()
			cooperative(t, timeout.Limits{Total: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				if cause := context.Cause(r.Context()); cause != c.cause {
					t.Errorf("%s: the cause is %v", c.name, cause)
				}
			}).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
			cancel()
			if w.Code != c.status || (w.Code != http.StatusOK) != strings.Contains(w.Body.String(), `"timeout_caller"`) {
				t.Errorf("%s: got %d, %s", c.name, w.Code, w.Body)
			}
		}
	})
}

// The connection serves further requests after a limit has passed, if no body
// is left on it, and nothing of the first request's deadlines is left either.
func TestCooperativeKeepAlive(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serve(t, p, cooperative(t, timeout.Limits{Total: time.Second, ReadIdle: time.Second, WriteIdle: time.Second}, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/late":
				io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			case "/unread":
				io.ReadFull(r.Body, make([]byte, 1))
			default:
				io.Copy(w, r.Body)
			}
		}))
		post := func(path string) (reply, bool) {
			var reused bool
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			req, err := http.NewRequestWithContext(ctx, "POST", s.URL+path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			return askWith(t, s, req), reused
		}
		post("/first")
		for _, path := range []string{"/late", "/unread"} {
			if r, reused := post(path); !reused || r.close || (path == "/late") != r.isProblem(http.StatusServiceUnavailable, "timeout_total") {
				t.Errorf("%s: reused %v, got %+v", path, reused, r)
			}
			time.Sleep(time.Minute)
			if r, reused := post("/next"); !reused || r.body != "body" || r.cut != nil {
				t.Errorf("after %s: reused %v, got %+v", path, reused, r)
			}
		}
	})
}

// The client is gone: the context ends, nothing is answered, and no limit is
// blamed.
func TestCooperativeClientGone(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		status := make(chan int, 1)
		h := cooperative(t, generous, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			if e, ok := errors.AsType[*timeout.Error](context.Cause(r.Context())); ok {
				t.Errorf("the cause is %v", e)
			}
		})
		s := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := &statusRecorder{ResponseWriter: w}
			h.ServeHTTP(rec, r)
			status <- rec.status
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
		if res, err := s.Transport.RoundTrip(req); err == nil {
			res.Body.Close()
			t.Errorf("got %s", res.Status)
		}
		if got := <-status; got != 0 {
			t.Errorf("recorded %d", got)
		}
	})
}

// statusRecorder is the least of an access logger.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusRecorder) WriteHeader(code int) {
	w.status = code
	w.ResponseWriter.WriteHeader(code)
}

// The configured status and ErrorHandler are used, and Hold and OnLate are not.
func TestCooperativeConfig(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		m := newMiddleware(t, timeout.Config{
			Limits:      timeout.Limits{Total: time.Second},
			Cooperative: true,
			Status:      http.StatusGatewayTimeout,
			Hold:        1 << 20,
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				w.Header().Set("Retry-After", "1")
				timeout.WriteError(w, r, err)
			},
			OnLate: func(r *http.Request, l timeout.Late) { t.Errorf("OnLate: %+v", l) },
		})
		s := serve(t, p, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(3 * time.Second) })))
		if r := ask(t, s, "GET", "/", nil); !r.isProblem(http.StatusGatewayTimeout, "timeout_total") || r.header.Get("Retry-After") != "1" {
			t.Errorf("got %+v", r)
		}
	})
}
