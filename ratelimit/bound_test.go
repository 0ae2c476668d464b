package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
)

// grant is what was granted at an instant.
type grant struct {
	at time.Time
	n  int64
}

// checkBound checks every closed window that begins and ends with a grant, which
// are the ones that count most.
func checkBound(t *testing.T, grants []grant, bound func(time.Duration) int64) {
	t.Helper()
	for i := range grants {
		var sum int64
		for j := i; j < len(grants); j++ {
			sum += grants[j].n
			if w := grants[j].at.Sub(grants[i].at); sum > bound(w) {
				t.Fatalf("%d granted in %v, promised are %d", sum, w, bound(w))
			}
		}
	}
}

func memory(t testing.TB) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// randomLimit returns a limit and about how long it takes to refill.
func randomLimit(rng *rand.Rand, kind int) (ratelimit.Limit, time.Duration) {
	n, d := 1+rng.Int64N(20), time.Duration(1+rng.Int64N(int64(10*time.Second)))
	switch kind {
	case 0:
		return ratelimit.Per(n, d), d
	case 1:
		return ratelimit.Per(n, d).Burst(1 + rng.Int64N(2*n)), d
	case 2:
		return ratelimit.Per(n, d).Strict(), d
	case 3:
		return ratelimit.Quota(n, d), d
	default:
		d = max(d, time.Millisecond)
		return ratelimit.Sliding(n, d), d
	}
}

// adversaries say how long to wait before the next request, and its cost.
var adversaries = map[string]func(rng *rand.Rand, d time.Duration, last ratelimit.Decision) (time.Duration, int64){
	"at random": func(rng *rand.Rand, d time.Duration, last ratelimit.Decision) (time.Duration, int64) {
		return time.Duration(rng.ExpFloat64() * float64(d) / 20), 1 + rng.Int64N(max(1, last.Limit))
	},
	"one by one, as early as told": func(_ *rand.Rand, _ time.Duration, last ratelimit.Decision) (time.Duration, int64) {
		return last.RetryAfter, 1
	},
	"all at once, when there is all": func(rng *rand.Rand, _ time.Duration, last ratelimit.Decision) (time.Duration, int64) {
		if last.Remaining > 0 {
			return 0, 1 + rng.Int64N(last.Remaining)
		}
		return last.Reset, max(1, last.Limit)
	},
	"on both sides of a boundary": func(rng *rand.Rand, d time.Duration, last ratelimit.Decision) (time.Duration, int64) {
		if last.Remaining > 0 {
			return 0, last.Remaining
		}
		at := time.Now().UnixNano() % int64(d)
		switch rng.IntN(3) {
		case 0: // just before it
			return max(0, d-time.Duration(at)-1), 1
		case 1: // on it
			return d - time.Duration(at), 1
		}
		return time.Duration(rng.Int64N(int64(d))), 1
	},
}

// ratelimit 1: whatever the arrivals and the costs, no window has more grants than
// its limit promises.
func TestBoundInAnyWindow(t *testing.T) {
	for name, adversary := range adversaries {
		for kind := range 5 {
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := memory(t)
					for seed := range uint64(20) {
						rng := rand.New(rand.NewPCG(seed, uint64(kind)))
						limit, d := randomLimit(rng, kind)
						l := newLimiter(t, ratelimit.Config{Limit: limit, Store: m, Name: fmt.Sprint("s", seed), Key: user})
						var last ratelimit.Decision
						var grants []grant
						for range 250 {
							wait, cost := adversary(rng, d, last)
							time.Sleep(wait)
							var err error
							if last, err = l.Take(t.Context(), "", cost, "key"); err != nil {
								t.Fatal(err)
							}
							if last.Allowed {
								grants = append(grants, grant{time.Now(), cost})
							}
						}
						if len(grants) == 0 {
							t.Errorf("seed %d, %v: nothing was granted", seed, limit)
						}
						checkBound(t, grants, limit.Bound)
					}
				})
			})
		}
	}
}

// user is a key by name, for Take.
var user = ratelimit.ByFunc(func(*http.Request) string { return "" })

// A limit is not only kept but used: who asks as early as told gets all of it.
func TestEntitlement(t *testing.T) {
	for _, c := range []struct {
		limit ratelimit.Limit
		rate  float64 // a second
	}{
		{ratelimit.PerSecond(10), 10},
		{ratelimit.PerSecond(10).Burst(1), 10},
		{ratelimit.PerSecond(10).Strict(), 5},
		{ratelimit.Quota(10, time.Second), 10},
		{ratelimit.Sliding(100, time.Second), 100}, // rounding costs it one in a window
	} {
		t.Run(c.limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, ratelimit.Config{Limit: c.limit, Key: user})
				start, n := time.Now(), 0
				for time.Since(start) < 100*time.Second {
					d, err := l.Take(t.Context(), "", 1, "key")
					if err != nil {
						t.Fatal(err)
					}
					if d.Allowed {
						n++
					}
					time.Sleep(d.RetryAfter)
				}
				if float64(n) < 0.93*100*c.rate {
					t.Errorf("%d granted in 100 s, which is less than 93 %% of %v", n, 100*c.rate)
				}
			})
		})
	}
}

// ratelimit 2: many at one instant get exactly the burst, from one limiter or
// from several on one store.
func TestExactlyTheBurst(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.PerMinute(100), ratelimit.PerSecond(7), ratelimit.Quota(100, time.Hour), ratelimit.Sliding(100, time.Hour),
	} {
		for _, costs := range [][]int64{{1}, {1, 2, 3}} {
			t.Run(fmt.Sprint(limit, costs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := memory(t)
					var granted atomic.Int64
					var wg sync.WaitGroup
					for range 4 {
						l := newLimiter(t, ratelimit.Config{Limit: limit, Store: m, Name: "shared", Key: user})
						for i := range 16 {
							wg.Go(func() {
								for k := range 20 {
									cost := costs[(i+k)%len(costs)]
									d, err := l.Take(t.Context(), "", cost, "key")
									if err != nil {
										t.Error(err)
									}
									if d.Allowed {
										granted.Add(cost)
									}
								}
								// Whatever is left, one by one.
								for range 20 {
									if d, _ := l.Take(t.Context(), "", 1, "key"); d.Allowed {
										granted.Add(1)
									}
								}
							})
						}
					}
					wg.Wait()
					if got := granted.Load(); got != limit.Bound(0) {
						t.Errorf("%d granted, want %d", got, limit.Bound(0))
					}
				})
			})
		}
	}
}

// ratelimit 20: where a second is no whole number of intervals, the rate over a
// long time is less than 1 ns for each decision below what was configured, and
// never above.
func TestRateIsNotIntegral(t *testing.T) {
	for _, c := range []struct {
		n   int64
		run time.Duration
	}{
		{7, 1000 * time.Second},
		{300_000, 200 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := ratelimit.PerSecond(c.n).Burst(1)
				l := newLimiter(t, ratelimit.Config{Limit: limit, Key: user})
				start, n := time.Now(), int64(0)
				for time.Since(start) <= c.run {
					d, err := l.Take(t.Context(), "", 1, "key")
					if err != nil {
						t.Fatal(err)
					}
					if d.Allowed {
						n++
					}
					time.Sleep(d.RetryAfter)
				}
				exact := float64(time.Second) / float64(c.n)
				if most, least := 1+int64(float64(c.run)/exact), int64(float64(c.run)/(exact+1)); n > most || n < least {
					t.Errorf("%d granted, want %d to %d", n, least, most)
				}
				if n > limit.Bound(c.run) {
					t.Errorf("%d granted, promised are %d", n, limit.Bound(c.run))
				}
			})
		})
	}
}

// ratelimit 21: a cost that is above the burst is refused without a time to
// retry, and takes nothing.
func TestCostAboveBurst(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.PerMinute(10), ratelimit.Quota(10, time.Minute), ratelimit.Sliding(10, time.Minute),
	} {
		l := newLimiter(t, ratelimit.Config{Limit: limit, Key: user})
		ctx := t.Context()
		d, err := l.Take(ctx, "", 11, "key")
		if err != nil || d.Allowed || d.RetryAfter != 0 || d.Policy != "default" || d.Limit != 10 {
			t.Errorf("%v: got %+v, %v", limit, d, err)
		}
		if d, err = l.Take(ctx, "", 10, "key"); err != nil || !d.Allowed {
			t.Errorf("%v: got %+v, %v for the rest", limit, d, err)
		}
		var refusal *ratelimit.LimitError
		if err := l.Wait(ctx, "", 11, "key"); !errors.As(err, &refusal) || refusal.RetryAfter != 0 {
			t.Errorf("%v: Wait returned %v", limit, err)
		}
	}
}

// ratelimit 22: a cost of nothing takes nothing and is never refused; one that
// cannot be counted is an error.
func TestCostsAtTheEdge(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(1), Key: user})
	for _, n := range []int64{-1, -1 << 63, 1 << 53, 1<<63 - 1} {
		if d, err := l.Take(t.Context(), "", n, "key"); !errors.Is(err, ratelimit.ErrCost) || d.Allowed {
			t.Errorf("%d: got %+v, %v", n, d, err)
		}
	}
	if d, err := l.Take(t.Context(), "", 1<<53-1, "key"); err != nil || d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
	for _, want := range []struct{ n, left int64 }{{0, 1}, {1, 0}, {0, 0}, {0, 0}} {
		d, err := l.Take(t.Context(), "", want.n, "key")
		if err != nil || !d.Allowed || d.Remaining != want.left {
			t.Errorf("%d: got %+v, %v, want %d left", want.n, d, err, want.left)
		}
	}
	if d, _ := l.Take(t.Context(), "", 1, "key"); d.Allowed {
		t.Error("the second was admitted")
	}
}

// ratelimit 10: a burst that is lowered takes effect within the time that it
// takes to refill and a second; one that is raised at once.
func TestBurstChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory(t)
		at := func(burst int64) *ratelimit.Limiter {
			return newLimiter(t, ratelimit.Config{Limit: ratelimit.PerSecond(10).Burst(burst), Store: m, Name: "api", Key: user})
		}
		ctx := t.Context()
		if d, err := at(1000).Take(ctx, "", 1000, "key"); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		low, start := at(10), time.Now()
		for {
			d, err := low.Take(ctx, "", 1, "key")
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took > 10*100*time.Millisecond+time.Second {
			t.Errorf("the first grant came after %v", took)
		}
		if d, err := at(1000).Take(ctx, "", 980, "key"); err != nil || !d.Allowed {
			t.Errorf("after it was raised: %+v, %v", d, err)
		}
	})
}

// ratelimit 11: what was spent stays spent when the process is started again on
// the same store.
func TestRestart(t *testing.T) {
	m := memory(t)
	for i, limit := range []ratelimit.Limit{ratelimit.PerHour(3), ratelimit.Quota(3, time.Hour), ratelimit.Sliding(3, time.Hour)} {
		c := ratelimit.Config{Limit: limit, Store: m, Name: fmt.Sprint("api", i), Key: user}
		first := newLimiter(t, c)
		if d, err := first.Take(t.Context(), "", 3, "key"); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		if d, err := newLimiter(t, c).Take(t.Context(), "", 1, "key"); err != nil || d.Allowed {
			t.Errorf("%v: got %+v, %v", limit, d, err)
		}
	}
}

// ratelimit 12: a flood of fresh keys gives an exhausted key nothing, and leaves
// a busy one its register. A limiter over an LRU admitted 500 of 100 here.
func TestFloodOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := store.NewMemory(store.MemoryConfig{Registers: 4096})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(100), Store: m, Name: "api", Key: user})
		ctx := t.Context()
		granted, fresh := 0, 0
		for range 3 {
			for range 200 {
				d, err := l.Take(ctx, "", 1, "exhausted")
				if err != nil {
					t.Fatal(err)
				}
				if d.Allowed {
					granted++
				}
			}
			for range 40_960 {
				fresh++
				if d, err := l.Take(ctx, "", 1, fmt.Sprint("fresh ", fresh)); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
			}
		}
		if granted != 100 {
			t.Errorf("%d granted, want 100", granted)
		}
		if s := m.Stats(); s.Registers != 4096 || s.RegistersEvicted == 0 {
			t.Errorf("got %+v", s)
		}
	})
}

// ratelimit 6: a request that one policy refuses takes nothing from the others.
func TestRefusedTakesNothing(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "wide", Limit: ratelimit.PerHour(100)},
		{Name: "quota", Limit: ratelimit.Quota(50, time.Hour)},
		{Name: "sliding", Limit: ratelimit.Sliding(70, time.Hour)},
		{Name: "slots", Limit: ratelimit.Concurrent(5)},
		{Name: "narrow", Limit: ratelimit.PerHour(2)},
	}})
	h := l.Handler(nothing)
	for i := range 10 {
		if got, want := serve(h, newRequest("192.0.2.1:1")).status, 200; i >= 2 {
			if got != 429 {
				t.Errorf("request %d: status %d", i, got)
			}
		} else if got != want {
			t.Errorf("request %d: status %d", i, got)
		}
	}
	for name, want := range map[string]int64{"wide": 98, "quota": 48, "sliding": 68, "narrow": 0} {
		if d, err := l.Peek(t.Context(), name, "192.0.2.1"); err != nil || d.Remaining != want {
			t.Errorf("%s: got %+v, %v, want %d", name, d, err, want)
		}
	}
}

// What peers let through around the boundary of a window, with the same adversary.
func TestPeersBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 100 in 500 ms; the adversary saves up, and straddles the boundary.
		// go-limiter and ulule let 199 through in any 50 ms, httprate 105 and
		// 195 in 500 ms.
		for _, c := range []struct {
			limit         ratelimit.Limit
			short, window int64
		}{
			{ratelimit.Per(100, 500*time.Millisecond), 110, 200},
			{ratelimit.Per(100, 500*time.Millisecond).Strict(), 55, 100},
			{ratelimit.Sliding(100, 500*time.Millisecond), 110, 199},
		} {
			l := newLimiter(t, ratelimit.Config{Limit: c.limit, Key: user})
			var grants []grant
			time.Sleep(time.Second - 10*time.Millisecond)
			for range 1200 {
				d, err := l.Take(t.Context(), "", 1, "key")
				if err != nil {
					t.Fatal(err)
				}
				if d.Allowed {
					grants = append(grants, grant{time.Now(), 1})
				}
				time.Sleep(time.Millisecond)
				if !d.Allowed {
					time.Sleep(time.Duration(len(grants)%3) * time.Millisecond)
				}
			}
			checkBound(t, grants, func(w time.Duration) int64 {
				switch {
				case w <= 50*time.Millisecond:
					return c.short
				case w <= 500*time.Millisecond:
					return c.window
				}
				return 1 << 60
			})
		}
	})
}

// A store with nothing but Get and CompareAndSwap turns contention into waiting,
// and not into errors: throttled's loop gives up for a fifth of the calls at 32
// goroutines, and its handler answers 500.
func TestPeersContention(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{
		Limit: ratelimit.Per(1000, 1000*time.Hour), Store: basic{memory(t)}, Name: "api", Key: user,
		StoreBudget: -1, OnStoreError: ratelimit.Deny,
	})
	var granted, degraded atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 30 {
				d, err := l.Take(context.Background(), "", 1, "hot")
				if err != nil {
					t.Error(err)
				}
				if d.Degraded {
					degraded.Add(1)
				}
				if d.Allowed {
					granted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if granted.Load() != 1000 || degraded.Load() != 0 {
		t.Errorf("%d granted, want 1000; %d degraded", granted.Load(), degraded.Load())
	}
}

// basic has the four methods only.
type basic struct{ store.Store }
