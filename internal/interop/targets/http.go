package targets

import (
	"net/http"
	"testing"
)

// nullWriter is a ResponseWriter without a connection, so that a measure shows
// what a middleware costs and not what the server does.
type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}

// must panics on the error of a constructor. A measure that cannot be set up is
// a mistake in this package.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// get is a request as a server makes it for a GET, with these header fields.
func get(target string, fields ...string) *http.Request {
	r := must(http.NewRequest(http.MethodGet, target, nil))
	for _, name := range fields {
		r.Header.Set(name, "value")
	}
	return r
}

// serial is a benchmark that calls f again and again.
func serial(f func()) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	}
}

// parallel is a benchmark that calls f from all processors at once.
func parallel(f func()) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f()
			}
		})
	}
}
