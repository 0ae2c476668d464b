package timeout_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"example.com/plainware/timeout"
)

// discard is a response writer that keeps nothing.
type discard struct{ h http.Header }

func (w *discard) Header() http.Header         { return w.h }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
func (w *discard) WriteHeader(int)             {}

// BenchmarkHandler is run beside http.TimeoutHandler; the other peers are in
// internal/interop.
func BenchmarkHandler(b *testing.B) {
	big := make([]byte, 64<<10)
	limits := timeout.Limits{Total: time.Minute}
	for _, size := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"empty", func(w http.ResponseWriter, r *http.Request) {}},
		{"2B", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{"text/plain"}
			w.Write(big[:2])
		}},
		{"1MiB", func(w http.ResponseWriter, r *http.Request) {
			for range 16 {
				w.Write(big)
			}
		}},
	} {
		for _, c := range []struct {
			name string
			h    http.Handler
		}{
			{"none", size.handler},
			{"hard", newMiddleware(b, timeout.Config{Limits: limits}).Handler(size.handler)},
			{"hard-all", newMiddleware(b, timeout.Config{Limits: generous}).Handler(size.handler)},
			{"cooperative", newMiddleware(b, timeout.Config{Limits: limits, Cooperative: true}).Handler(size.handler)},
			{"TimeoutHandler", http.TimeoutHandler(size.handler, time.Minute, "")},
		} {
			b.Run(size.name+"/"+c.name, func(b *testing.B) {
				r := benchRequest(b)
				w := &discard{h: http.Header{}}
				b.ReportAllocs()
				for b.Loop() {
					clear(w.h)
					w.h["X-Request-Id"] = r.Header["X-Request-Id"]
					c.h.ServeHTTP(w, r)
				}
			})
		}
	}
}

// BenchmarkUpload is a body of 1 MiB read in pieces of 32 KiB.
func BenchmarkUpload(b *testing.B) {
	buf := make([]byte, 32<<10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := r.Body.Read(buf); err != nil {
				return
			}
		}
	})
	for _, c := range []struct {
		name string
		cfg  timeout.Config
	}{
		{"hard", timeout.Config{Limits: timeout.Limits{ReadIdle: time.Minute}}},
		{"cooperative", timeout.Config{Limits: timeout.Limits{ReadIdle: time.Minute}, Cooperative: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newMiddleware(b, c.cfg).Handler(handler)
			r := benchRequest(b)
			w := &discard{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				r.Body = io.NopCloser(io.LimitReader(zeros{}, 1<<20))
				h.ServeHTTP(w, r)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func benchRequest(tb testing.TB) *http.Request {
	r, err := http.NewRequestWithContext(tb.Context(), "GET", "http://x/u/1", nil)
	if err != nil {
		tb.Fatal(err)
	}
	for _, k := range []string{"Accept", "Accept-Encoding", "Authorization", "Content-Type", "User-Agent", "X-Request-Id"} {
		r.Header.Set(k, "value")
	}
	return r
}
