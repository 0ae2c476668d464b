package targets

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"

	"example.com/plainware/breaker"
	"example.com/plainware/store"
)

func breakerMeasures() []Measure {
	rolling := gobreaker.Settings{Interval: 10 * time.Second, BucketPeriod: time.Second}
	theirs := gobreaker.NewCircuitBreaker[struct{}](rolling)
	works := func() (struct{}, error) { return struct{}{}, nil }

	theirsOpen := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{Timeout: 24 * time.Hour})
	broken := errors.New("down")
	for theirsOpen.State() != gobreaker.StateOpen {
		theirsOpen.Execute(func() (struct{}, error) { return struct{}{}, broken })
	}

	closed := must(breaker.New(breaker.Config{}))
	call := func() {
		if p, err := closed.Acquire(); err == nil {
			p.Done(breaker.Success)
		}
	}
	open := must(breaker.New(breaker.Config{}))
	forced := breaker.Override{Mode: breaker.ForceOpen, Author: "targets"}
	if err := open.Force(context.Background(), forced); err != nil {
		panic(err)
	}
	refused := func() { open.Acquire() }

	res := &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}
	client := must(breaker.New(breaker.Config{
		Base: base(func(*http.Request) (*http.Response, error) { return res, nil }),
	}))
	r := get("http://x/")

	return []Measure{
		{
			Package: "breaker", Name: "Acquire and Done, closed", Ours: serial(call), MaxAllocs: -1, MaxBytes: -1,
			Peers: []Peer{{Name: "gobreaker, rolling window", Run: serial(func() { theirs.Execute(works) }), MaxRatio: 0.30}},
		},
		{
			Package: "breaker", Name: "Acquire and Done, closed, parallel", Ours: parallel(call), MaxAllocs: -1,
			Peers: []Peer{{Name: "gobreaker, rolling window", Run: parallel(func() { theirs.Execute(works) }), MaxRatio: 0.30}},
		},
		{
			Package: "breaker", Name: "Acquire, open", Ours: serial(refused), MaxAllocs: -1, MaxBytes: -1,
			Peers: []Peer{{Name: "gobreaker", Run: serial(func() { theirsOpen.Execute(works) }), MaxRatio: 0.15}},
		},
		{
			Package: "breaker", Name: "RoundTrip, closed, no body", Ours: serial(func() { client.RoundTrip(r) }), MaxAllocs: -1,
			Peers: []Peer{{Name: "gobreaker Execute", Run: serial(func() { theirs.Execute(works) })}},
		},
		{
			Package: "breaker", Name: "calls of 1 ms, 8 processes, one store", Ours: processes(8),
			Peers: []Peer{{Name: "1 process", Run: processes(1), MaxRatio: 1.0 / 7}},
		},
	}
}

// base is an http.RoundTripper.
type base func(*http.Request) (*http.Response, error)

func (f base) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// processes makes calls that take a millisecond by way of n breakers that share a
// store, one after the other in each.
func processes(n int) func(*testing.B) {
	return func(b *testing.B) {
		mem := must(store.NewMemory(store.MemoryConfig{}))
		all := make([]*breaker.Breaker, n)
		for i := range all {
			all[i] = must(breaker.New(breaker.Config{Name: "x", Store: mem}))
		}
		b.ResetTimer()
		var wg sync.WaitGroup
		for i, one := range all {
			wg.Go(func() {
				for range (b.N + n - 1 - i) / n {
					if p, err := one.Acquire(); err == nil {
						time.Sleep(time.Millisecond)
						p.Done(breaker.Success)
					}
				}
			})
		}
		wg.Wait()
		b.StopTimer()
		for _, one := range all {
			one.Close()
		}
	}
}
