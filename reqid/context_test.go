package reqid_test

import (
	"bytes"
	"context"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/reqid"
)

// Nested instances agree on the outer one's ID, each writes it to its own
// header, and one that reads the other's header does not take it away.
func TestNested(t *testing.T) {
	outer := mustNew(t, reqid.Config{Trust: reqid.TrustNone})
	inner := mustNew(t, reqid.Config{Header: "X-Correlation-Id", Also: []string{"X-Request-Id", "Request-Id"}, Trust: func(*http.Request) bool {
		t.Error("the inner instance asks although there is an ID")
		return true
	}})
	absent := mustNew(t, reqid.Config{})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = http.Header{"X-Request-Id": {uuid}, "X-Correlation-Id": {other}, "Request-Id": {"third"}}
	w := httptest.NewRecorder()
	var id string
	outer.Handler(outer.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id = reqid.FromContext(r.Context())
		for name, m := range map[string]*reqid.Middleware{"outer": outer, "inner": inner} {
			if got, ok := m.From(r.Context()); got != id || !ok {
				t.Errorf("%s.From is %q, %v; the ID %q", name, got, ok, id)
			}
		}
		if got, ok := absent.From(r.Context()); got != "" || ok {
			t.Errorf("From of an instance that is not there is %q, %v", got, ok)
		}
		if got := reqid.ClientID(r.Context()); got != uuid {
			t.Errorf("ClientID is %q", got)
		}
		if fmt.Sprint(r.Header) != fmt.Sprint(http.Header{"X-Request-Id": {id}, "X-Correlation-Id": {id}}) {
			t.Errorf("request header is %v, ID %q", r.Header, id)
		}
	})))).ServeHTTP(w, r)
	if len(id) != 36 || id == uuid {
		t.Errorf("ID %q", id)
	}
	if got := w.Header(); fmt.Sprint(got) != fmt.Sprint(http.Header{"X-Request-Id": {id}, "X-Correlation-Id": {id}}) {
		t.Errorf("response header is %v, ID %q", got, id)
	}
}

// NewContext gives a job its ID; the middleware keeps it.
func TestNewContext(t *testing.T) {
	if got := reqid.FromContext(t.Context()); got != "" {
		t.Errorf("FromContext without an ID is %q", got)
	}
	if got := reqid.ClientID(t.Context()); got != "" {
		t.Errorf("ClientID without an ID is %q", got)
	}
	ctx := reqid.NewContext(t.Context(), "job-1")
	if got := reqid.FromContext(ctx); got != "job-1" {
		t.Errorf("FromContext is %q", got)
	}
	for _, bad := range append([]string{"a\r\nb", "a\x00b", strings.Repeat("z", 513)}, hostile...) {
		if visible(bad) {
			continue
		}
		if got := reqid.FromContext(reqid.NewContext(ctx, bad)); len(got) != 36 {
			t.Errorf("NewContext(%.40q) carries %.60q", bad, got)
		}
	}

	m := mustNew(t, reqid.Config{Trust: reqid.TrustNone, Trace: true})
	r := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
	r.Header.Set("X-Request-Id", uuid)
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := reqid.FromContext(r.Context()); got != "job-1" {
			t.Errorf("inside, the ID is %q", got)
		}
		trace, _ := reqid.Trace(r.Context())
		sub := reqid.NewContext(r.Context(), "sub")
		if got, ok := reqid.Trace(sub); got != trace || !ok {
			t.Errorf("the trace is lost: %v", got)
		}
		if id, _ := m.From(sub); id != "job-1" || reqid.FromContext(sub) != "sub" {
			t.Errorf("From %q, FromContext %q", id, reqid.FromContext(sub))
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
}

func visible(s string) bool {
	return s != "" && len(s) <= 512 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// The context is a context: it ends with its parent and passes other values on.
func TestContextPassesThrough(t *testing.T) {
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, 1))
	child, stop := context.WithCancel(reqid.NewContext(parent, "id"))
	defer stop()
	if child.Value(key{}) != 1 {
		t.Error("the value of the parent is gone")
	}
	cancel()
	<-child.Done()
}

// reqid 10: a middleware outside sees the pattern that matched and the form
// that was parsed, and the server finds the files to remove, also when the
// handler panics.
func TestCopiedBack(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, dir)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /upload/{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
		if files, _ := os.ReadDir(dir); len(files) == 0 {
			t.Error("the upload is in no file, so the test shows nothing")
		}
		if r.PathValue("name") == "panic" {
			panic("boom")
		}
	})
	// What serves next, as a middleware outside sees it.
	outside := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				recover()
				if r.Pattern != "POST /upload/{name}" {
					t.Errorf("pattern is %q", r.Pattern)
				}
				if r.MultipartForm == nil || len(r.MultipartForm.File["f"]) != 1 {
					t.Errorf("form is %v", r.MultipartForm)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
	upload := func(t *testing.T, srv *memnet.Server) {
		for _, path := range []string{"/upload/fine", "/upload/panic"} {
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			file, _ := form.CreateFormFile("f", "f.bin")
			file.Write(make([]byte, 64<<10))
			form.Close()
			res, err := srv.Client.Post(srv.URL+path, form.FormDataContentType(), &body)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
	}
	// Files are counted when the servers have stopped, and with them everything
	// that removes any. The server of Go 1.27.4 leaves those of HTTP/2 requests
	// itself; a middleware can leave no fewer.
	left := func(h http.Handler) int {
		overProtos(t, h, upload)
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			os.Remove(f)
		}
		return len(files)
	}
	want := left(outside(mux))
	if got := left(outside(mustNew(t, reqid.Config{}).Handler(mux))); got != want {
		t.Errorf("%d files are left behind, %d without the middleware", got, want)
	}
}

// A form that the middleware outside has parsed is not replaced.
func TestOuterFormStays(t *testing.T) {
	mine, theirs := &multipart.Form{}, &multipart.Form{}
	r := httptest.NewRequest("GET", "/", nil)
	r.MultipartForm = mine
	mustNew(t, reqid.Config{}).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r.MultipartForm = theirs
	})).ServeHTTP(httptest.NewRecorder(), r)
	if r.MultipartForm != mine {
		t.Error("the outer form is gone")
	}
}
