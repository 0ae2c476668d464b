package mwtest

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"testing"
)

// middleware makes a factory out of what happens at a request.
func middleware(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(testing.TB) func(http.Handler) http.Handler {
	return func(testing.TB) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			if next == nil {
				panic("test: nil handler")
			}
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
		}
	}
}

// correct copies the request and wraps the writer without a defect. The
// broken middlewares are this one with one thing changed.
func correct(w http.ResponseWriter, r *http.Request, next http.Handler) {
	serveCopy(wrapper(w, w), r, next)
}

func serveCopy(w http.ResponseWriter, r *http.Request, next http.Handler) {
	r2 := r.WithContext(r.Context())
	r2.Header = maps.Clone(r.Header)
	next.ServeHTTP(w, r2)
	copyBack(r, r2)
}

func copyBack(r, r2 *http.Request) {
	r.Pattern = r2.Pattern
	if r.MultipartForm == nil {
		r.MultipartForm = r2.MultipartForm
	}
}

// wrapper returns inner with the abilities of outer, the writer that the
// middleware was given. The methods are inner's where it has them.
func wrapper(outer, inner http.ResponseWriter) http.ResponseWriter {
	w := wrapped{inner, outer}
	_, hijack := outer.(http.Hijacker)
	_, flush := outer.(http.Flusher)
	switch {
	case hijack:
		return wrapped1{wrapped2{w}}
	case flush:
		return wrapped2{w}
	}
	return w
}

type wrapped struct {
	http.ResponseWriter
	outer http.ResponseWriter
}

func (w wrapped) Unwrap() http.ResponseWriter { return w.outer }

type wrapped2 struct{ wrapped } // HTTP/2 has Flush alone

func (w wrapped2) Flush() { w.FlushError() }

func (w wrapped2) FlushError() error {
	if f, ok := w.ResponseWriter.(interface{ FlushError() error }); ok {
		return f.FlushError()
	}
	return http.NewResponseController(w.outer).Flush()
}

type wrapped1 struct{ wrapped2 } // HTTP/1

func (w wrapped1) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.outer).Hijack()
}

func (w wrapped1) ReadFrom(r io.Reader) (int64, error) {
	if f, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return f.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
}

// transport makes a factory out of what happens at a request.
func transport(f func(r *http.Request, base http.RoundTripper) (*http.Response, error)) func(testing.TB, http.RoundTripper) http.RoundTripper {
	return func(_ testing.TB, base http.RoundTripper) http.RoundTripper {
		return &testTransport{base, f}
	}
}

type testTransport struct {
	base http.RoundTripper
	f    func(*http.Request, http.RoundTripper) (*http.Response, error)
}

func (t *testTransport) RoundTrip(r *http.Request) (*http.Response, error) { return t.f(r, t.base) }

func (t *testTransport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// correctTransport adds a header without a defect.
func correctTransport(r *http.Request, base http.RoundTripper) (*http.Response, error) {
	return base.RoundTrip(withHeader(r))
}

func withHeader(r *http.Request) *http.Request {
	if r.Header == nil {
		return r // the base says what is wrong with it
	}
	r2 := r.WithContext(r.Context())
	r2.Header = maps.Clone(r.Header)
	r2.Header["X-Added"] = []string{"1"}
	return r2
}
