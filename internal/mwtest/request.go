package mwtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
)

var requestRules = []rule{
	{"request", "the handler gets the request that the client sent", all, checkRequest},
	{"untouched request", "the caller's request is as it was after the middleware has returned, and while the handler runs", both, checkUntouched},
	{"context", "values, cancellation and its cause from the context outside reach the handler", http1, checkContext},
	{"request trailers", "declared trailers of the request are readable once the body is read", all, checkRequestTrailers},
	{"pattern", "the pattern that a ServeMux inside matched is visible outside", both, checkPattern},
	{"multipart form", "the form that the handler parsed is visible outside, and its temporary files are removed", both, checkMultipart},
	{"expect continue", "100 Continue is sent when the handler reads and not before", all, checkExpect},
}

func checkRequest(e *env) {
	e.same("what the handler sees", func(w http.ResponseWriter, r *http.Request) {
		h := maps.Clone(r.Header)
		for _, name := range e.mw.RequestHeaders {
			h.Del(name)
		}
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s host=%s length=%d coding=%v remote=%t tls=%t header=%s body=%q %v",
			r.Method, r.RequestURI, r.URL, r.Host, r.ContentLength, r.TransferEncoding, r.RemoteAddr != "", r.TLS != nil,
			headerText(h, nil), body, err)
	}, func(s *memnet.Server) *http.Request {
		r := e.request(s, "PATCH", "/a%2Fb/c?q=1;2&q=%20", strings.NewReader("the body"))
		r.Host = "name.example"
		r.Header["X-Many"] = []string{"1", "", "2"}
		r.Header.Set("Cookie", "a=b")
		r.Header.Set("User-Agent", "mwtest")
		return r
	})
}

// requestState is what a middleware must leave alone, in a form that can be
// compared. Pattern and MultipartForm are left out because they are copied
// back by design, and Trailer because the server fills it.
func requestState(r *http.Request, leave []string) string {
	return fmt.Sprintf("method=%s url=%p %v proto=%s header=%p %s body=%p length=%d coding=%v close=%t host=%s form=%v postform=%v remote=%s uri=%s tls=%p context=%p",
		r.Method, r.URL, *r.URL, r.Proto, r.Header, headerText(r.Header, leave), r.Body, r.ContentLength,
		r.TransferEncoding, r.Close, r.Host, r.Form, r.PostForm, r.RemoteAddr, r.RequestURI, r.TLS, r.Context())
}

func checkUntouched(e *env) {
	// before is the state on the way in; now is what a middleware outside
	// sees when it looks at the request at any later time.
	var before string
	var now func() string
	mw := e.wrap(func(w http.ResponseWriter, r *http.Request) {
		if during := now(); during != before {
			e.errorf("while the handler runs the caller's request is\n%s, it was\n%s", during, before)
		}
		io.Copy(io.Discard, r.Body)
	})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now = func() string { return requestState(r, e.mw.RequestHeaders) }
		before = now()
		mw.ServeHTTP(w, r)
		if after := now(); after != before {
			e.errorf("afterwards the caller's request is\n%s, it was\n%s", after, before)
		}
	}))
	r := e.request(s, "POST", "/path?q=1", strings.NewReader("a=b"))
	r.Header["X-Many"] = []string{"1", "2"}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if _, err := e.fetch(s.Transport, r); err != nil {
		e.errorf("%v", err)
	}
}

func checkContext(e *env) {
	type key struct{}
	cause := errors.New("the caller's cause")
	var cancel context.CancelCauseFunc
	mw := e.wrap(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if ctx.Value(key{}) != "value" {
			e.errorf("a context value from outside is not visible")
		}
		if ctx.Value(http.ServerContextKey) == nil || ctx.Value(http.LocalAddrContextKey) == nil {
			e.errorf("the server's own context values are not visible")
		}
		if ctx.Err() != nil {
			e.errorf("the context has ended already: %v", ctx.Err())
		}
		cancel(cause)
		if !wait(ctx.Done()) {
			e.errorf("a cancellation from outside does not arrive")
		} else if ctx.Err() != context.Canceled || context.Cause(ctx) != cause {
			e.errorf("after a cancellation Err is %v and Cause is %v", ctx.Err(), context.Cause(ctx))
		}
	})
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, c := context.WithCancelCause(context.WithValue(r.Context(), key{}, "value"))
		cancel = c
		defer c(nil)
		mw.ServeHTTP(w, r.WithContext(ctx))
	}))
	if _, err := e.fetch(s.Transport, e.request(s, "GET", "/", nil)); err != nil {
		e.errorf("%v", err)
	}
}

func checkRequestTrailers(e *env) {
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Trailer["X-Sum"]; !ok {
			e.errorf("before the body is read the declared trailers are %v", r.Trailer)
		}
		if body, err := io.ReadAll(r.Body); string(body) != "the body" || err != nil {
			e.errorf("the body is %q, %v", body, err)
		}
		if got := r.Trailer.Get("X-Sum"); got != "42" {
			e.errorf("the trailers are %v", r.Trailer)
		}
	}))
	// HTTP/1.1 has trailers only behind a body of unknown length.
	r := e.request(s, "POST", "/", io.MultiReader(strings.NewReader("the body")))
	r.Trailer = http.Header{"X-Sum": {"42"}}
	if _, err := e.fetch(s.Transport, r); err != nil {
		e.errorf("%v", err)
	}
}

func checkPattern(e *env) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "7" || r.Pattern != "GET /items/{id}" {
			e.errorf("inside, id is %q and the pattern %q", r.PathValue("id"), r.Pattern)
		}
	})
	mw := e.wrap(mux.ServeHTTP)
	var outside string
	s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mw.ServeHTTP(w, r)
		outside = r.Pattern
	}))
	for path, want := range map[string]string{"/items/7": "GET /items/{id}", "/nothing": ""} {
		if _, err := e.fetch(s.Transport, e.request(s, "GET", path, nil)); err != nil {
			e.errorf("%v", err)
		}
		synctest.Wait() // the response may be there before the handler has returned
		if outside != want {
			e.errorf("after %s the pattern outside is %q, want %q", path, outside, want)
		}
	}
}

func checkMultipart(e *env) {
	var file string
	var inside, outside *multipart.Form
	handler := func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			e.errorf("ParseMultipartForm: %v", err)
			return
		}
		inside = r.MultipartForm
		f, err := r.MultipartForm.File["f"][0].Open()
		if err != nil {
			e.errorf("%v", err)
			return
		}
		defer f.Close()
		// A form with one file that does not fit into memory gives the
		// temporary file itself.
		if osFile, ok := f.(*os.File); ok {
			file = osFile.Name()
		}
	}
	// left reports whether the temporary file outlives its request.
	left := func(h http.Handler) bool {
		file, inside, outside = "", nil, nil
		s := e.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			outside = r.MultipartForm
		}))
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, err := form.CreateFormFile("f", "name.bin")
		if err != nil {
			e.t.Fatal(err)
		}
		// ParseMultipartForm keeps 10 MiB beyond its limit for fields, not files.
		part.Write(bytes.Repeat([]byte("x"), 100_000))
		form.Close()
		r := e.request(s, "POST", "/", &body)
		r.Header.Set("Content-Type", form.FormDataContentType())
		if _, err := e.fetch(s.Transport, r); err != nil {
			e.errorf("%v", err)
		}
		synctest.Wait()
		if file == "" {
			e.errorf("the upload has no temporary file")
			return false
		}
		_, err = os.Stat(file)
		os.Remove(file)
		return !errors.Is(err, os.ErrNotExist)
	}
	// The server of Go 1.27.4 removes no files of HTTP/2 requests.
	plain := left(http.HandlerFunc(handler))
	if left(e.wrap(handler)) && !plain {
		e.errorf("the temporary file of the upload is left behind")
	}
	if inside == nil || inside != outside {
		e.errorf("the form inside is %p, outside %p", inside, outside)
	}
}

func checkExpect(e *env) {
	for _, reads := range []bool{false, true} {
		s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
			if reads {
				if body, err := io.ReadAll(r.Body); string(body) != "the body" || err != nil {
					e.errorf("the handler read %q, %v", body, err)
				}
				return
			}
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}))
		s.Transport.ExpectContinueTimeout = time.Hour
		got100, sent := false, false
		r := e.request(s, "POST", "/", nil)
		body := strings.NewReader("the body")
		r.Body, r.ContentLength = &readCloser{Reader: readerFunc(func(p []byte) (int, error) {
			sent = true
			return body.Read(p)
		})}, body.Size()
		r.Header.Set("Expect", "100-continue")
		trace := &httptrace.ClientTrace{Got100Continue: func() { got100 = true }}
		a, err := e.fetch(s.Transport, r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		want := http.StatusOK
		if !reads {
			want = http.StatusRequestEntityTooLarge
		}
		if err != nil || a.Status != want {
			e.errorf("a handler that reads (%t): status %d, %v", reads, a.Status, err)
		}
		synctest.Wait()
		if got100 != reads || sent != reads {
			e.errorf("a handler that reads (%t): 100 Continue received: %t, body sent: %t", reads, got100, sent)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
