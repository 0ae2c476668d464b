package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
)

// discard is a ResponseWriter without a server.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// plenty is never exhausted.
var plenty = ratelimit.Per(1_000_000_000, time.Hour)

func newLimiter(t testing.TB, c ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func newRequest(remote string) *http.Request {
	r, err := http.NewRequest("GET", "http://example.com/", nil)
	if err != nil {
		panic(err)
	}
	r.RemoteAddr = remote
	return r
}

func BenchmarkHandler(b *testing.B) {
	for _, c := range []struct {
		name   string
		config ratelimit.Config
		remote string
	}{
		{"allow", ratelimit.Config{Limit: plenty}, "203.0.113.9:4711"},
		{"allow without headers", ratelimit.Config{Limit: plenty, Headers: ratelimit.None}, "203.0.113.9:4711"},
		{"allow IPv6", ratelimit.Config{Limit: plenty}, "[2001:db8::1]:4711"},
		{"allow quota", ratelimit.Config{Limit: ratelimit.Quota(1_000_000_000, time.Hour)}, "203.0.113.9:4711"},
		{"allow sliding", ratelimit.Config{Limit: ratelimit.Sliding(1_000_000_000, time.Hour)}, "203.0.113.9:4711"},
		{"allow concurrent", ratelimit.Config{Limit: ratelimit.Concurrent(10)}, "203.0.113.9:4711"},
		{"allow with context", ratelimit.Config{Limit: plenty, Context: true}, "203.0.113.9:4711"},
		{"allow two policies", ratelimit.Config{Policies: []ratelimit.Policy{
			{Name: "burst", Limit: plenty}, {Name: "daily", Limit: ratelimit.Quota(1_000_000_000, 24*time.Hour)},
		}}, "203.0.113.9:4711"},
		{"deny", ratelimit.Config{Limit: ratelimit.PerHour(1)}, "203.0.113.9:4711"},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newLimiter(b, c.config).Handler(nothing)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w, r := &discard{http.Header{}}, newRequest(c.remote)
				for pb.Next() {
					clear(w.header)
					h.ServeHTTP(w, r)
				}
			})
		})
	}
}

func BenchmarkTake(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n, " keys"), func(b *testing.B) {
			l := newLimiter(b, ratelimit.Config{Limit: plenty, Key: ratelimit.ByFunc(func(*http.Request) string { return "" })})
			keys := make([]string, n)
			for i := range keys {
				keys[i] = "user-" + strconv.Itoa(i)
			}
			ctx := context.Background()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := l.Take(ctx, "", 1, keys[i%n]); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
