package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

// ask is what a limiter does with a deny cache and a remote store.
func ask(t testing.TB, c *denyCache, s store.Registers, op store.Op) (res store.Result, cached bool) {
	t.Helper()
	if res, cached = c.get(&op); cached {
		return res, true
	}
	sent := time.Now()
	res, err := s.Advance(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	c.put(&op, res, sent)
	return res, false
}

// ratelimit 19: what the cache refuses the store would refuse too, as long as
// nothing is given back, of any cost. The answer is the store's, but for what
// was granted to cheaper requests since.
func TestDenyCacheAgrees(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			m, c := newMemory(t), newDenyCache()
			cached := 0
			for range 2000 {
				n := int64(1 + rng.IntN(3))
				op := bucket(fmt.Sprint(rng.IntN(3)), 5, 100*time.Millisecond)
				op.Step *= n // the cost of a request, as a limiter gives it
				if rng.IntN(2) == 0 {
					op = store.Op{Space: "quota", Key: op.Key, Ceil: 7, Step: 1, Min: n, Max: n, TTL: 3 * time.Second}
				}
				res, hit := ask(t, c, m, op)
				if hit {
					cached++
					want, err := m.Advance(t.Context(), op)
					more := want.Value - res.Value
					want.Value, want.Expires = res.Value, res.Expires
					if err != nil || want != res || more < 0 || more > 2*op.Step {
						t.Fatalf("seed %d: cached %+v, the store says %+v, %v", seed, res, want, err)
					}
				}
				time.Sleep(time.Duration(rng.ExpFloat64() * float64(20*time.Millisecond)))
			}
			if cached < 100 {
				t.Errorf("seed %d: only %d answers from the cache", seed, cached)
			}
		})
	}
}

// ratelimit 19: an entry lasts for no more than a second, so a refund, a reset
// or a change of the policy elsewhere takes effect by then.
func TestDenyCacheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, op := range []store.Op{bucket("k", 1, time.Hour), {Space: "quota", Key: "k", Ceil: 1, Step: 1, Min: 1, Max: 1, TTL: time.Hour}} {
			m, c := newMemory(t), newDenyCache()
			for want := range 3 { // granted, refused by the store, refused by the cache
				res, cached := ask(t, c, m, op)
				if (res.Granted == 1) != (want == 0) || cached != (want == 2) {
					t.Errorf("request %d: granted %d, cached %v", want, res.Granted, cached)
				}
			}
			back := op
			back.Step = -back.Step
			if _, err := m.Advance(t.Context(), back); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second - 1)
			if _, cached := ask(t, c, m, op); !cached {
				t.Error("the entry ended early")
			}
			time.Sleep(time.Nanosecond)
			if res, cached := ask(t, c, m, op); cached || res.Granted != 1 {
				t.Errorf("a second later: granted %d, cached %v", res.Granted, cached)
			}
		}
	})
}

// A reset in this process takes effect at once.
func TestDenyCacheDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // entries live for a second
		m, c := newMemory(t), newDenyCache()
		op := bucket("k", 1, time.Hour)
		ask(t, c, m, op)
		ask(t, c, m, op)
		if _, cached := ask(t, c, m, op); !cached {
			t.Fatal("not cached")
		}
		c.drop(op.Space, "other")
		if _, cached := ask(t, c, m, op); !cached {
			t.Fatal("the wrong entry was dropped")
		}
		c.drop(op.Space, op.Key)
		if _, cached := ask(t, c, m, op); cached {
			t.Error("there is still an entry")
		}
	})
}

// What gives back or only looks is never answered by the cache.
func TestDenyCachePasses(t *testing.T) {
	m, c := newMemory(t), newDenyCache()
	op := bucket("k", 1, time.Hour)
	ask(t, c, m, op)
	ask(t, c, m, op)
	peek, back, charge := op, op, op
	peek.Min, peek.Max = 0, 0
	back.Step = -back.Step
	charge.Min = 0
	for _, op := range []store.Op{peek, back, charge} {
		if _, cached := c.get(&op); cached {
			t.Errorf("%+v is refused", op)
		}
	}
}

// A flood of keys takes no more room than there is, and what it pushes out is
// asked of the store again.
func TestDenyCacheFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // entries live for a second
		c := newDenyCache()
		sent := time.Now()
		full := store.Result{Value: int64(time.Hour)}
		for i := range 50_000 {
			op := bucket(fmt.Sprint(i), 1, time.Minute)
			c.put(&op, full, sent.Add(time.Duration(i)))
		}
		held := 0
		for i := range c.sets {
			for _, e := range c.sets[i].entries {
				if e.until != 0 {
					held++
				}
			}
		}
		if held != denyWays*denySets {
			t.Errorf("%d entries, want %d", held, denyWays*denySets)
		}
		last := bucket(fmt.Sprint(49_999), 1, time.Minute)
		if _, refused := c.get(&last); !refused {
			t.Error("the newest entry is not there")
		}
	})
}

func TestDenyCacheAllocs(t *testing.T) {
	c := newDenyCache()
	op := bucket("k", 1, time.Minute)
	full := store.Result{Value: int64(time.Hour)}
	sent := time.Now()
	if a := testing.AllocsPerRun(100, func() {
		c.put(&op, full, sent)
		c.get(&op)
		c.drop(op.Space, op.Key)
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func BenchmarkDenyCache(b *testing.B) {
	c := newDenyCache()
	op := bucket("k", 1, time.Hour)
	c.put(&op, store.Result{Value: int64(24 * time.Hour), Expires: int64(time.Hour)}, time.Now().Add(time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		c.get(&op)
	}
}
