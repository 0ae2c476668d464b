package timeout_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
)

// timeout 29: a route's limits are found whatever its pattern looks like, and
// what matches none has the general ones, as have 404 and 405.
func TestRoutes(t *testing.T) {
	mux := http.NewServeMux()
	m := newMiddleware(t, timeout.Config{
		Limits: timeout.Limits{Total: 10 * time.Second},
		Mux:    mux,
		Routes: map[string]timeout.Limits{
			"GET /users/{id}":       {Total: 1 * time.Second},
			"POST /upload":          {Total: 2 * time.Second},
			"api.example.com/v1":    {Total: 3 * time.Second},
			"/files/{path...}":      {Total: 4 * time.Second},
			"/tree/":                {Total: 5 * time.Second},
			"GET example.net/{a}/b": {Total: 6 * time.Second},
			"/exact/{$}":            {Total: 7 * time.Second},
			"CONNECT /tunnel":       {Total: 8 * time.Second},
			"/never":                {Total: 9 * time.Second},
		},
	})
	h := m.Handler(mux)
	// Routes are registered after the middleware has been made.
	for _, pattern := range []string{"GET /users/{id}", "POST /upload", "api.example.com/v1", "/files/{path...}", "/tree/",
		"GET example.net/{a}/b", "/exact/{$}", "CONNECT /tunnel", "/other"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			deadline, _ := r.Context().Deadline()
			w.Header().Set("X-Limit", time.Until(deadline).String())
			w.Header().Set("X-Id", r.PathValue("id")+r.PathValue("path")+r.PathValue("a"))
		})
	}
	for _, c := range []struct {
		method, url string
		status      int
		limit, id   string
		pattern     string
	}{
		{"GET", "http://x/users/7", 200, "1s", "7", "GET /users/{id}"},
		{"HEAD", "http://x/users/7", 200, "1s", "7", "GET /users/{id}"},
		{"POST", "http://x/upload", 200, "2s", "", "POST /upload"},
		{"GET", "http://api.example.com/v1", 200, "3s", "", "api.example.com/v1"},
		{"GET", "http://api.example.com:8080/v1", 200, "3s", "", "api.example.com/v1"},
		{"GET", "http://x/v1", 404, "", "", ""},
		{"GET", "http://x/files/a/b/c", 200, "4s", "a/b/c", "/files/{path...}"},
		{"GET", "http://x/tree/leaf", 200, "5s", "", "/tree/"},
		{"GET", "http://x/tree", 307, "", "", "/tree/"}, // to the trailing slash
		{"GET", "http://x/tree/../users/7", 307, "", "", "GET /users/{id}"},
		{"GET", "http://example.net/z/b", 200, "6s", "z", "GET example.net/{a}/b"},
		{"GET", "http://x/exact/", 200, "7s", "", "/exact/{$}"},
		{"GET", "http://x/exact/more", 404, "", "", ""},
		{"CONNECT", "/tunnel", 200, "8s", "", "CONNECT /tunnel"},
		{"GET", "http://x/other", 200, "10s", "", "/other"},
		{"DELETE", "http://x/upload", 405, "", "", ""},
		{"GET", "http://x/missing", 404, "", "", ""},
	} {
		t.Run(c.method+" "+c.url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := httptest.NewRecorder()
				r := httptest.NewRequestWithContext(t.Context(), c.method, c.url, nil)
				plain := httptest.NewRecorder()
				r2 := httptest.NewRequestWithContext(t.Context(), c.method, c.url, nil)
				mux.ServeHTTP(plain, r2)
				h.ServeHTTP(w, r)
				if w.Code != plain.Code || w.Code != c.status || w.Header().Get("X-Limit") != c.limit || w.Header().Get("X-Id") != c.id {
					t.Errorf("got %d, %v; without the middleware %d", w.Code, w.Header(), plain.Code)
				}
				if r.Pattern != r2.Pattern || r.Pattern != c.pattern {
					t.Errorf("the pattern is %q, without the middleware %q", r.Pattern, r2.Pattern)
				}
			})
		})
	}
}

// timeout 29: an entry can give a route more than the general limits, or none,
// phase by phase, and the clock of the request is its own from entry on.
func TestRouteHasMore(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		mux := http.NewServeMux()
		s := serve(t, p, newMiddleware(t, timeout.Config{
			Limits: timeout.Limits{Total: time.Second, ReadIdle: time.Second},
			Mux:    mux,
			Routes: map[string]timeout.Limits{"/more": {Total: 3 * time.Second}, "/stream": {Total: -1}, "/patient": {Total: -1, ReadIdle: 5 * time.Second}},
		}).Handler(mux))
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			if err == nil && r.Method == "GET" {
				time.Sleep(10 * time.Second)
			}
		})
		for _, route := range []string{"/more", "/stream", "/patient"} {
			mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				if err == nil && r.Method == "GET" {
					time.Sleep(10 * time.Second)
				}
			})
		}
		for _, c := range []struct {
			method, path string
			status       int
			after        time.Duration
		}{
			{"GET", "/", 503, 1 * time.Second},
			{"GET", "/more", 503, 3 * time.Second},
			{"GET", "/stream", 200, 10 * time.Second},
			{"POST", "/more", 408, 1 * time.Second},
			{"POST", "/patient", 408, 5 * time.Second},
		} {
			var body io.Reader
			if c.method == "POST" {
				body, _ = pipeBody(t)
			}
			time.Sleep(time.Second) // or an HTTP/1.1 connection is still in the Grace of the one before
			if r := ask(t, s, c.method, c.path, body); r.status != c.status || r.after != c.after {
				t.Errorf("%s %s: got %+v", c.method, c.path, r)
			}
		}
	})
}

// timeout 22: a handler that returns within Grace has its pattern seen outside,
// and in no case is a file of its form left: not when it returns in time, within
// Grace, later, panics, or after its response has begun.
func TestFormAndPattern(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir) // Unix
	t.Setenv("TMP", dir)    // Windows
	var form bytes.Buffer
	mw := multipart.NewWriter(&form)
	part, err := mw.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(make([]byte, 1<<10))
	mw.Close()

	files := func() []string {
		left, err := filepath.Glob(filepath.Join(dir, "multipart-*"))
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	for name, c := range map[string]struct {
		after   func(w http.ResponseWriter, r *http.Request)
		pattern string
	}{
		"in time":      {func(w http.ResponseWriter, r *http.Request) {}, "POST /f/{id}"},
		"within grace": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "POST /f/{id}"},
		"later":        {func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Minute) }, ""},
		"late panic":   {func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Minute); panic(http.ErrAbortHandler) }, ""},
		"cut, within grace": {func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "POST /f/{id}"},
		"cut, later": {func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			time.Sleep(time.Minute)
		}, ""},
		"panic": {func(w http.ResponseWriter, r *http.Request) { panic("on purpose") }, "POST /f/{id}"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, withoutTLS, func(t *testing.T, p memnet.Proto) {
				byServer := leftByServer(t, p, dir, mw.FormDataContentType(), form.Bytes())
				mux := http.NewServeMux()
				mux.HandleFunc("POST /f/{id}", func(w http.ResponseWriter, r *http.Request) {
					if err := r.ParseMultipartForm(1); err != nil {
						t.Error(err)
					}
					if len(files()) == 0 {
						t.Error("the form has no file")
					}
					c.after(w, r)
				})
				pattern := make(chan string, 1)
				h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}}).Handler(mux)
				s, _ := serveLogged(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						pattern <- r.Pattern
						switch v := recover(); v {
						case nil:
						case http.ErrAbortHandler:
							panic(v)
						default:
							w.WriteHeader(500)
						}
					}()
					h.ServeHTTP(w, r)
				}))
				res, err := s.Client.Post(s.URL+"/f/1", mw.FormDataContentType(), bytes.NewReader(form.Bytes()))
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				if got := <-pattern; got != c.pattern {
					t.Errorf("the pattern is %q", got)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				left := files()
				if len(left) > byServer {
					t.Errorf("left are %v, %d without the middleware", left, byServer)
				}
				for _, name := range left {
					os.Remove(name)
				}
			})
		})
	}
}

// timeout 27: a request that matches a route without limits is served by next
// itself, with the writer and the request of outside.
func TestRouteWithoutLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		var gotW http.ResponseWriter
		var gotR *http.Request
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { gotW, gotR = w, r })
		h := newMiddleware(t, timeout.Config{Limits: timeout.Limits{Total: time.Second}, Mux: mux, Routes: map[string]timeout.Limits{"/": {Total: -1}}}).Handler(mux)
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", strings.NewReader("x"))
		h.ServeHTTP(w, r)
		if gotW != http.ResponseWriter(w) || gotR != r {
			t.Errorf("the handler has %T, %p instead of %T, %p", gotW, gotR, w, r)
		}
	})
}

// leftByServer uploads a form to a server without the middleware, removes the
// files that it leaves in dir and returns how many those are. The server of Go
// 1.27.4 leaves the files of HTTP/2 requests.
func leftByServer(t *testing.T, p memnet.Proto, dir, contentType string, form []byte) int {
	t.Helper()
	s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
	})})
	res, err := s.Client.Post(s.URL, contentType, bytes.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	synctest.Wait()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		os.Remove(filepath.Join(dir, f.Name()))
	}
	return len(left)
}
