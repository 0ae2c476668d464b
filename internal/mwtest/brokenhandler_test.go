package mwtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
)

type brokenMiddleware struct {
	name   string
	mw     Middleware
	caught []string // rules
}

// broken is a middleware that differs from correct in what f does.
func broken(name string, f func(w http.ResponseWriter, r *http.Request, next http.Handler), caught ...string) brokenMiddleware {
	return brokenMiddleware{name, Middleware{New: middleware(f)}, caught}
}

var brokenMiddlewares = slices.Concat(brokenWriters, brokenAround)

// Middlewares whose defect is not in the writer.
var brokenAround = []brokenMiddleware{
	broken("uses Request.Clone", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r2 := r.Clone(r.Context())
		next.ServeHTTP(w, r2)
		copyBack(r, r2)
	}, "request trailers"),
	broken("writes into the caller's header", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Set("X-Mine", "1")
		next.ServeHTTP(w, r)
	}, "request", "untouched request"),
	broken("replaces the caller's body", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Body = struct{ io.ReadCloser }{r.Body}
		next.ServeHTTP(w, r)
	}, "untouched request"),
	broken("changes the caller's URL afterwards", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		r.URL.Path = "/"
	}, "untouched request"),
	broken("reads a byte of the body first", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r2 := r.WithContext(r.Context())
		first := make([]byte, 1)
		n, _ := io.ReadFull(r.Body, first)
		r2.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(first[:n]), r.Body), r.Body}
		next.ServeHTTP(w, r2)
		copyBack(r, r2)
	}, "expect continue"),
	broken("loses the pattern", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r2 := r.WithContext(r.Context())
		next.ServeHTTP(w, r2)
		r.MultipartForm = r2.MultipartForm
	}, "pattern"),
	broken("loses the form", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r2 := r.WithContext(r.Context())
		next.ServeHTTP(w, r2)
		r.Pattern = r2.Pattern
	}, "multipart form"),
	broken("replaces the context", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r2 := r.WithContext(context.Background())
		next.ServeHTTP(w, r2)
		copyBack(r, r2)
	}, "context", "client abort"),
	broken("loses the cause", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer context.AfterFunc(r.Context(), cancel)()
		r2 := r.WithContext(ctx)
		next.ServeHTTP(w, r2)
		copyBack(r, r2)
	}, "context"),

	broken("recovers panics", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	}, "panic", "abort handler"),
	broken("recovers ErrAbortHandler", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				panic(v)
			}
		}()
		next.ServeHTTP(w, r)
	}, "abort handler"),
	broken("panics with another value", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if v := recover(); v == http.ErrAbortHandler {
				panic(v)
			} else if v != nil {
				panic(fmt.Sprint("handler: ", v))
			}
		}()
		next.ServeHTTP(w, r)
	}, "panic"),
	broken("wraps ErrAbortHandler", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if v := recover(); v == http.ErrAbortHandler {
				panic(fmt.Errorf("handler: %w", http.ErrAbortHandler))
			} else if v != nil {
				panic(v)
			}
		}()
		next.ServeHTTP(w, r)
	}, "abort handler"),
	{"nil handler fails late", Middleware{New: func(testing.TB) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
		}
	}}, []string{"nil handler"}},

	{"sets Vary instead of adding", Middleware{
		New: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Vary", "Accept")
			next.ServeHTTP(w, r)
		}),
		ResponseHeaders: []string{"Vary"},
	}, []string{"outer headers"}},
	broken("deletes headers of others", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Del("X-Outer")
		next.ServeHTTP(w, r)
	}, "outer headers"),
	{"adds a header", Middleware{
		New: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("X-Powered-By", "test")
			next.ServeHTTP(w, r)
		}),
	}, []string{"response", "bodyless", "response trailers", "early hints", "nested", "request"}},
	{"one slice for all requests", Middleware{
		New: func(t testing.TB) func(http.Handler) http.Handler {
			shared := []string{"1"}
			return middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header()["X-Shared"] = shared
				next.ServeHTTP(w, r)
			})(t)
		},
		ResponseHeaders: []string{"X-Shared"},
	}, []string{"header slices"}},
	{"one array behind all slices", Middleware{
		New: func(t testing.TB) func(http.Handler) http.Handler {
			shared := make([]string, 0, 4)
			return middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header()["X-Shared"] = shared
				next.ServeHTTP(w, r)
			})(t)
		},
		ResponseHeaders: []string{"X-Shared"},
	}, []string{"header slices"}},
	{"one slice for all instances", Middleware{
		New: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header["X-Shared"] = sharedByAll
			next.ServeHTTP(w, r)
		}),
		RequestHeaders: []string{"X-Shared"},
	}, []string{"header slices"}},
	{"state of the package", Middleware{New: lastWins(new(http.Handler))}, []string{"two handlers", "two instances"}},
	{"one handler an instance", Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		return lastWins(new(http.Handler))(t)
	}}, []string{"two handlers"}},
	{"one request at a time", Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		turn := make(chan struct{}, 1)
		return middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		})(t)
	}}, []string{"concurrent", "nested"}}, // the same instance inside itself waits for itself
	{"refuses to be nested", Middleware{New: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Context().Value(nestedKey{}) != nil {
			http.Error(w, "again", http.StatusInternalServerError)
			return
		}
		r2 := r.WithContext(context.WithValue(r.Context(), nestedKey{}, true))
		next.ServeHTTP(w, r2)
		copyBack(r, r2)
	})}, []string{"nested"}},
	{"leaves a goroutine", Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		end := make(chan struct{})
		t.Cleanup(func() { close(end) })
		return middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			go func() { <-end }()
			next.ServeHTTP(w, r)
		})(t)
	}}, []string{"goroutines"}},
}

var sharedByAll = []string{"1"}

type nestedKey struct{}

// lastWins serves every request by the handler that was wrapped last, as
// middlewares do that keep it outside of the closure. The mark keeps a
// nested one from calling itself for ever.
func lastWins(last *http.Handler) func(testing.TB) func(http.Handler) http.Handler {
	type mark struct{}
	return func(testing.TB) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			if next == nil {
				panic("test: nil handler")
			}
			*last = next
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := *last
				if r.Context().Value(mark{}) != nil {
					h = next
				}
				r2 := r.WithContext(context.WithValue(r.Context(), mark{}, true))
				h.ServeHTTP(w, r2)
				copyBack(r, r2)
			})
		}
	}
}
