package session_test

import (
	"context"
	"net/http"
	"testing"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// discard is a ResponseWriter without a connection.
type discard struct{ header http.Header }

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
func (w *discard) WriteHeader(int)             {}

func memory(t testing.TB) *store.Memory {
	t.Helper()
	mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// requests returns a function that serves a request of a user who is logged in
// with h.
func requests(t testing.TB, h func(m *session.Manager[cart], r *http.Request)) func() {
	m := newManager(t, session.Config[cart]{Store: memory(t)})
	b := newBrowser(t, m)
	b.login("ann")
	b.add("pen")
	r, err := http.NewRequest("GET", "https://shop.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", b.cookie)
	w := &discard{http.Header{}}
	served := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(m, r) }))
	return func() {
		clear(w.header)
		served.ServeHTTP(w, r)
	}
}

// nothing is a handler that does nothing, which the compiler is not to see.
//
//go:noinline
func nothing() http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
}

func untouched(*session.Manager[cart], *http.Request) {}

func reads(m *session.Manager[cart], r *http.Request) {
	if c, err := m.MustFrom(r.Context()).Load(); err != nil || len(c.Items) != 1 {
		panic("no session")
	}
}

func updates(m *session.Manager[cart], r *http.Request) {
	if err := m.MustFrom(r.Context()).Update(func(c *cart) error { c.Count++; return nil }); err != nil {
		panic(err)
	}
}

func BenchmarkUntouched(b *testing.B) { bench(b, untouched) }
func BenchmarkRead(b *testing.B)      { bench(b, reads) }
func BenchmarkUpdate(b *testing.B)    { bench(b, updates) }

func bench(b *testing.B, h func(*session.Manager[cart], *http.Request)) {
	serve := requests(b, h)
	b.ReportAllocs()
	for b.Loop() {
		serve()
	}
}

// BenchmarkBare is the least that a middleware with a value in the context does.
func BenchmarkBare(b *testing.B) {
	type key struct{}
	r, err := http.NewRequest("GET", "https://shop.example/", nil)
	if err != nil {
		b.Fatal(err)
	}
	w := &discard{http.Header{}}
	bare := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, w)))
		})
	}
	h := bare(nothing())
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// BenchmarkReadParallel is of many people at once.
func BenchmarkReadParallel(b *testing.B) {
	m := newManager(b, session.Config[cart]{Store: memory(b)})
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reads(m, r) }))
	var cookies [256]string
	for i := range cookies {
		p := newBrowser(b, m)
		p.add("pen")
		cookies[i] = p.cookie
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r, err := http.NewRequest("GET", "https://shop.example/", nil)
		if err != nil {
			panic(err)
		}
		w := &discard{http.Header{}}
		for i := 0; pb.Next(); i++ {
			clear(w.header)
			r.Header["Cookie"] = []string{cookies[i%len(cookies)]}
			h.ServeHTTP(w, r)
		}
	})
}

// What a request costs in allocations. The first is a promise; the others say
// when one is added by mistake.
func TestAllocations(t *testing.T) {
	for name, c := range map[string]struct {
		h    func(*session.Manager[cart], *http.Request)
		most float64
	}{
		"untouched": {untouched, 3},
		"read":      {reads, 30},
		"update":    {updates, 60},
	} {
		if got := testing.AllocsPerRun(200, requests(t, c.h)); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", name, got, c.most)
		}
	}
}
