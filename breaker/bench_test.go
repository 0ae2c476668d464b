package breaker_test

import (
	"net/http"
	"testing"
	"time"

	"example.com/plainware/breaker"
)

// BenchmarkAcquire is a call through a closed breaker, and one that an open one
// refuses. The peers are in internal/interop.
func BenchmarkAcquire(b *testing.B) {
	closed := newBreaker(b, breaker.Config{})
	slow := newBreaker(b, breaker.Config{SlowCall: time.Second})
	open := newBreaker(b, breaker.Config{})
	open.Force(b.Context(), breaker.Override{Mode: breaker.ForceOpen, Author: "bench"})
	for _, c := range []struct {
		name string
		b    *breaker.Breaker
	}{{"closed", closed}, {"slow-call", slow}, {"open", open}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p, err := c.b.Acquire(); err == nil {
					p.Done(breaker.Success)
				}
			}
		})
		b.Run(c.name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if p, err := c.b.Acquire(); err == nil {
						p.Done(breaker.Success)
					}
				}
			})
		})
	}
}

// BenchmarkClock is what a call cannot do without.
func BenchmarkClock(b *testing.B) {
	start := time.Now()
	for b.Loop() {
		time.Since(start)
	}
}

func BenchmarkHandler(b *testing.B) {
	h := newBreaker(b, breaker.Config{}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w := &recorder{header: http.Header{}}
	r := request(b, "GET", "http://x/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
