package forwardauth_test

import (
	"net/http"
	"testing"

	"example.com/plainware/forwardauth"
)

// nullWriter is a ResponseWriter without a connection.
type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}

// hit returns a function that serves a request from the cache.
func hit(t testing.TB) func() {
	s := says(200, "", "Remote-User: ada", "Remote-Groups: dev,admins", "Cache-Control: max-age=3600")
	c := cachedBy(memory(t))
	c.MaxTTL = 3600e9
	m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: c})
	h := m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := request("GET", "/orders/7?full=1", "Cookie: session=0123456789abcdef0123456789abcdef", "Accept: text/html,application/xhtml+xml",
		"Accept-Language: en", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Accept-Encoding: gzip", "Sec-Fetch-Mode: navigate")
	w := &nullWriter{make(http.Header)}
	h.ServeHTTP(w, r)
	return func() {
		h.ServeHTTP(w, r)
		if s.count() != 1 {
			t.Fatal("a miss")
		}
	}
}

// A cache hit in memory costs no more than 12 allocations. The least of several
// runs counts: what the pool has lost in between is not the hit's.
func TestHitAllocations(t *testing.T) {
	f := hit(t)
	n := testing.AllocsPerRun(1, f)
	for range 50 {
		n = min(n, testing.AllocsPerRun(1, f))
	}
	if n > 12 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCacheHit(b *testing.B) {
	f := hit(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

// What a question costs apart from its round trip.
func BenchmarkQuestion(b *testing.B) {
	s := &quick{says(200, "", "Remote-User: ada")}
	m := mustNew(b, forwardauth.Config{Base: s, CopyHeaders: user(b)})
	h := m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := request("GET", "/orders/7?full=1", "Cookie: session=0123456789abcdef0123456789abcdef", "Accept: text/html")
	w := &nullWriter{make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// quick is a service that keeps nothing.
type quick struct{ *service }

func (q *quick) RoundTrip(r *http.Request) (*http.Response, error) { return q.answer(r) }
