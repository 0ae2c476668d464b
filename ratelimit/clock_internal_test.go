package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

// remoteClock is a store with registers, a clock of its own, and a way there and
// back. A limiter takes it for a remote one.
type remoteClock struct {
	store.Store
	mu     sync.Mutex
	ahead  time.Duration // of this process's clock
	delay  func() time.Duration
	values map[string]remoteValue
}

type remoteValue struct {
	value   int64
	expires int64
}

func newRemoteClock() *remoteClock { return &remoteClock{values: make(map[string]remoteValue)} }

func (s *remoteClock) set(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

func (s *remoteClock) sleep() {
	if s.delay != nil {
		s.mu.Lock()
		d := s.delay()
		s.mu.Unlock()
		time.Sleep(d)
	}
}

func (s *remoteClock) apply(op *store.Op) store.Result {
	now := time.Now().Add(s.ahead).UnixNano()
	id := fmt.Sprintf("%q %q", op.Space, op.Key)
	v := s.values[id]
	live := v.expires > now
	res, save := op.Apply(now, v.value, live, true)
	expires := v.expires
	switch {
	case op.Clock:
		expires = now + res.Expires
	case !live:
		expires = now + int64(op.TTL)
	}
	if save {
		s.values[id] = remoteValue{res.Value, expires}
	}
	if !op.Clock && (live || save) {
		res.Expires = expires - now
	}
	return res
}

func (s *remoteClock) Advance(_ context.Context, op store.Op) (store.Result, error) {
	res := make([]store.Result, 1)
	err := s.AdvanceBatch(context.Background(), []store.Op{op}, res)
	return res[0], err
}

func (s *remoteClock) AdvanceBatch(_ context.Context, ops []store.Op, res []store.Result) error {
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return err
		}
	}
	s.sleep()
	s.mu.Lock()
	for i := range ops {
		res[i] = s.apply(&ops[i])
	}
	s.mu.Unlock()
	s.sleep()
	return nil
}

func (s *remoteClock) AdvanceAll(_ context.Context, ops []store.Op, res []store.Result) (bool, error) {
	s.sleep()
	s.mu.Lock()
	defer s.sleep()
	defer s.mu.Unlock()
	before := make(map[string]remoteValue, len(s.values))
	for id, v := range s.values {
		before[id] = v
	}
	applied := true
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return false, err
		}
		res[i] = s.apply(&ops[i])
		applied = applied && res[i].Granted >= ops[i].Min
	}
	if !applied {
		s.values = before
	}
	return applied, nil
}

func byName() Key { return ByFunc(func(*http.Request) string { return "" }) }

func mustLimiter(t testing.TB, c Config) *Limiter {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustTake(t testing.TB, l *Limiter, n int64) Decision {
	t.Helper()
	d, err := l.Take(t.Context(), "", n, "key")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ratelimit 7: when the store's clock goes back by an hour, nobody waits longer
// than one refill and a second; when it goes forward, the burst is granted once
// more.
func TestStoreClockSteps(t *testing.T) {
	const interval = 100 * time.Millisecond
	limiter := func(t *testing.T) (*Limiter, *remoteClock) {
		s := newRemoteClock()
		l := mustLimiter(t, Config{Limit: PerSecond(10), Store: s, Name: "api", Key: byName()})
		if d := mustTake(t, l, 10); !d.Allowed {
			t.Fatalf("got %+v", d)
		}
		if d := mustTake(t, l, 1); d.Allowed {
			t.Fatalf("got %+v", d)
		}
		return l, s
	}
	t.Run("back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, s := limiter(t)
			s.set(-time.Hour)
			start := time.Now()
			for !mustTake(t, l, 1).Allowed {
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(start); took > interval+time.Second {
				t.Errorf("denied for %v", took)
			}
		})
	})
	t.Run("forward", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, s := limiter(t)
			s.set(time.Hour)
			time.Sleep(denyMost) // worth 10 more
			granted := 0
			for range 100 {
				if mustTake(t, l, 1).Allowed {
					granted++
				}
			}
			if granted != 10 {
				t.Errorf("%d granted, want 10", granted)
			}
		})
	})
}

// ratelimit 8: what this process's clock says does not matter.
func TestProcessClockDoesNotMatter(t *testing.T) {
	for _, limit := range []Limit{PerSecond(10), Quota(10, time.Second), Sliding(10, time.Second)} {
		t.Run(limit.String(), func(t *testing.T) {
			trace := func(ahead time.Duration) (granted []bool) {
				synctest.Test(t, func(t *testing.T) {
					s := newRemoteClock()
					s.set(ahead)
					l := mustLimiter(t, Config{Limit: limit, Store: s, Name: "api", Key: byName()})
					rng := rand.New(rand.NewPCG(1, 1))
					for range 500 {
						granted = append(granted, mustTake(t, l, 1+rng.Int64N(3)).Allowed)
						time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
					}
				})
				return granted
			}
			want := trace(0)
			for _, ahead := range []time.Duration{-time.Hour, time.Hour} {
				if got := trace(ahead); !slices.Equal(got, want) {
					t.Errorf("%v ahead: decided differently", ahead)
				}
			}
		})
	}
}

// ratelimit 1: partial grants keep the bound too, those of Charge and those that
// leases ask for.
func TestBoundOfPartialGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(300) {
			rng := rand.New(rand.NewPCG(seed, 3))
			n, d := 1+rng.Int64N(20), time.Duration(1+rng.Int64N(int64(time.Second)))
			limit := Per(n, d).Burst(1 + rng.Int64N(30))
			l := mustLimiter(t, Config{Limit: limit, Key: byName()})
			p := l.enforced[0]
			type grant struct{ at, n int64 }
			var grants []grant
			for range 100 {
				time.Sleep(time.Duration(rng.ExpFloat64() * float64(d) / float64(n)))
				op := p.op("key", 0)
				op.Max = 1 + rng.Int64N(2*n)
				op.Min = rng.Int64N(op.Max + 1)
				res, err := l.guard.memory.Advance(t.Context(), op)
				if err != nil {
					t.Fatal(err)
				}
				grants = append(grants, grant{res.Now, res.Granted})
			}
			for i := range grants {
				sum := int64(0)
				for j := i; j < len(grants); j++ {
					sum += grants[j].n
					if w := time.Duration(grants[j].at - grants[i].at); sum > limit.Bound(w) {
						t.Fatalf("seed %d, %v: %d granted in %v, promised are %d", seed, limit, sum, w, limit.Bound(w))
					}
				}
			}
			l.Close()
		}
	})
}

// ratelimit 1: Sliding keeps its bound when several processes decide at the same
// time, over ways to the store that are longer than a window. Without the check
// of [round.current] it does not.
func TestSlidingWithSlowStore(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			const n, window = 10, 100 * time.Millisecond
			rng := rand.New(rand.NewPCG(seed, 4))
			s := newRemoteClock()
			s.set(time.Duration(rng.Int64N(int64(time.Hour))))
			s.delay = func() time.Duration {
				if rng.IntN(4) > 0 {
					return time.Duration(rng.Int64N(int64(window / 10)))
				}
				return time.Duration(rng.Int64N(int64(2 * window)))
			}
			limit := Sliding(n, window)
			var mu sync.Mutex
			var grants []int64
			var wg sync.WaitGroup
			for process := range 4 {
				l := mustLimiter(t, Config{Limit: limit, Store: s, Name: "api", Key: byName(), StoreBudget: -1})
				for caller := range 4 {
					rng := rand.New(rand.NewPCG(seed, uint64(4*process+caller)))
					wg.Go(func() {
						for range 70 {
							rd, err := l.one("", 1, []string{"key"})
							if err != nil {
								t.Error(err)
								return
							}
							if err := l.decide(t.Context(), rd, nil); err != nil {
								t.Error(err)
							}
							if rd.allowed {
								mu.Lock()
								grants = append(grants, rd.uses[0].res.Now)
								mu.Unlock()
							}
							l.free(rd)
							time.Sleep(time.Duration(rng.Int64N(int64(window / 5))))
						}
					})
				}
			}
			wg.Wait()
			slices.Sort(grants)
			if len(grants) < 50 {
				t.Errorf("seed %d: only %d granted", seed, len(grants))
			}
			for i := range grants {
				for j := i; j < len(grants); j++ {
					w := time.Duration(grants[j] - grants[i])
					if got := int64(j - i + 1); got > limit.Bound(w) {
						t.Fatalf("seed %d: %d granted in %v, promised are %d", seed, got, w, limit.Bound(w))
					}
				}
			}
		})
	}
}
