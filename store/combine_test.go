package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

func combine(t testing.TB, s store.Store) *store.Combiner {
	t.Helper()
	c, err := store.NewCombiner(store.CombinerConfig{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// store 2, 3: a combiner obeys all rules: in front of a store with batches, of
// one with single calls, and of one without registers, with a second combiner
// on each.
func TestCombinerConforms(t *testing.T) {
	t.Parallel()
	t.Run("batches", func(t *testing.T) {
		storetest.RunWith(t, storetest.Options{
			Open:   func(t *testing.T) store.Store { return combine(t, openMemory(t)) },
			Second: func(t *testing.T, s store.Store) store.Store { return combine(t, s.(*store.Combiner).Unwrap()) },
		})
	})
	t.Run("calls", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			m := openMemory(t)
			return combine(t, with{four{m}, m})
		})
	})
	t.Run("emulated", func(t *testing.T) {
		storetest.RunWith(t, storetest.Options{
			Open:   func(t *testing.T) store.Store { return combine(t, newMapStore()) },
			NoHeal: true,
		})
	})
}

func TestCombinerConfig(t *testing.T) {
	_, err := store.NewCombiner(store.CombinerConfig{Batch: -1, Senders: 65})
	for _, field := range []string{"store: Store: ", "store: Batch: ", "store: Senders: "} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not have %q: %v", field, err)
		}
	}
}

// A combiner has what its store has, and changes only Advance.
func TestCombinerCapabilities(t *testing.T) {
	m := openMemory(t)
	c := combine(t, m)
	if r, _ := store.As[store.Registers](c); r != store.Registers(c) {
		t.Errorf("its Registers are those of a %T", r)
	}
	if b, _ := store.As[store.AtomicRegisters](c); b != store.AtomicRegisters(m) {
		t.Errorf("its AtomicRegisters are those of a %T", b)
	}
	if is[store.Toucher](combine(t, newMapStore())) {
		t.Error("it has a Toucher in front of a store without")
	}
}

// store 4: merged calls have the results of some order, with and without
// batches behind the combiner.
func TestCombinerIsSequential(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			m := openMemory(t)
			g := &gate{Store: m, BatchRegisters: m}
			compareSequential(t, g, synctest.Wait, combine(t, g), seed, true)
			m2 := openMemory(t)
			g2 := &gate{Store: m2, BatchRegisters: m2}
			compareSequential(t, g2, synctest.Wait, combine(t, with{four{g2}, g2}), seed, true)
		})
	}
}

// A hot key costs one operation per batch, and callers get their tokens in the
// order in which they came.
func TestCombinerMerges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t)
		g := &gate{Store: m, BatchRegisters: m}
		c, err := store.NewCombiner(store.CombinerConfig{Store: g, Senders: 1, Batch: 100})
		if err != nil {
			t.Fatal(err)
		}
		ops := slices.Repeat([]store.Op{tokens("hot", time.Hour, 50, 1)}, 101)
		res := atOnce(t, g, synctest.Wait, c, ops)
		for i, r := range res {
			want := int64(1)
			if i >= 50 {
				want = 0
			}
			if r.Granted != want || r.Value != r.Now+min(int64(i+1), 50)*int64(time.Hour) || r.Expires != r.Value-r.Now {
				t.Errorf("caller %d: %+v, granted %d wanted", i, r, want)
			}
		}
		if !slices.Equal(g.sizes, []int{1, 1}) {
			t.Errorf("101 calls of one key arrived as %v, want one operation and one for the other 100", g.sizes)
		}
		// Different keys go together, in batches of the configured size.
		g.sizes = nil
		for i := range ops {
			ops[i] = tokens(fmt.Sprint(i), time.Hour, 50, 1)
		}
		ops = append(ops, ops[1:51]...)
		atOnce(t, g, synctest.Wait, c, ops)
		if !slices.Equal(g.sizes, []int{1, 100, 50}) {
			t.Errorf("151 calls of many keys arrived as %v, want 1, 100 and 50", g.sizes)
		}
	})
}

// What would be too large in one operation is sent in two.
func TestCombinerMergesWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t)
		g := &gate{Store: m, BatchRegisters: m}
		c := combine(t, g)
		const most = store.MaxCount - 1
		op := store.Op{Space: "s", Key: "k", Ceil: most, Step: most / 3, Min: 1, Max: 1}
		granted := int64(0)
		for _, r := range atOnce(t, g, synctest.Wait, c, slices.Repeat([]store.Op{op}, 20)) {
			granted += r.Granted
		}
		if granted != 3 {
			t.Errorf("granted %d, want 3", granted)
		}
	})
}

// A combiner adds no time: neither to a call alone, nor before the first of many.
func TestCombinerAddsNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Faulty(openMemory(t), func(storetest.Call) storetest.Fault {
			return storetest.Fault{Delay: 10 * time.Millisecond}
		})
		c := combine(t, s)
		for range 3 {
			start := time.Now()
			if _, err := c.Advance(t.Context(), counter("k", 10, 1)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d != 10*time.Millisecond {
				t.Errorf("a call alone took %v, want 10ms", d)
			}
		}
		var wg sync.WaitGroup
		start := time.Now()
		for range 60 {
			wg.Go(func() {
				if _, err := c.Advance(t.Context(), counter("k", 10, 1)); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > 20*time.Millisecond {
					t.Errorf("one of 60 calls at once took %v, want at most 20ms", d)
				}
			})
		}
		wg.Wait()
	})
}

// store 18: a caller that is cancelled has its answer at once. What was not sent
// is not charged, and what was granted is given back, exactly.
func TestCombinerCancelled(t *testing.T) {
	for _, kind := range []string{"count", "clock"} {
		synctest.Test(t, func(t *testing.T) {
			m := openMemory(t)
			c := combine(t, storetest.Faulty(m, func(storetest.Call) storetest.Fault {
				return storetest.Fault{Late: 100 * time.Millisecond}
			}))
			op := counter("k", 100, 1)
			if kind == "clock" {
				op = tokens("k", time.Hour, 100, 1)
			}
			var granted atomic.Int64
			var wg sync.WaitGroup
			for i := range 90 {
				wg.Go(func() {
					ctx := t.Context()
					limit := time.Duration(0)
					if i%3 != 0 {
						limit = time.Duration(i) * 3 * time.Millisecond
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, limit)
						defer cancel()
					}
					op := op
					if i%5 == 0 {
						op.Min, op.Max = 2, 2
					}
					start := time.Now()
					r, err := c.Advance(ctx, op)
					if err != nil && (limit == 0 || time.Since(start) != limit) {
						t.Errorf("a caller with the limit %v has the error %v after %v", limit, err, time.Since(start))
					}
					granted.Add(r.Granted)
				})
			}
			wg.Wait()
			time.Sleep(3 * time.Second)
			rest := op
			rest.Min, rest.Max = 0, 1000
			r, err := m.Advance(t.Context(), rest)
			// What was given back to the clock is less what it may have drained.
			if sum := granted.Load() + r.Granted; err != nil || sum > 100 || sum < 99 || kind == "count" && sum != 100 {
				t.Errorf("%s: callers got %d and %d were left, %v, want 100 together", kind, granted.Load(), r.Granted, err)
			}
		})
	}
}

// store 15: with lost replies, errors and stalls, a combiner never grants more
// than there is, and what fails for one call fails for the others of its batch.
func TestCombinerFaults(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 9))
			s := storetest.Faulty(openMemory(t), func(storetest.Call) storetest.Fault {
				mu.Lock()
				defer mu.Unlock()
				switch rnd.IntN(6) {
				case 0:
					return storetest.Fault{Before: errors.New("refused")}
				case 1:
					return storetest.Fault{After: errors.New("reset")}
				case 2:
					return storetest.Fault{Stall: true}
				}
				return storetest.Fault{Delay: time.Duration(rnd.Int64N(1e6)), Late: time.Duration(rnd.Int64N(5e6))}
			})
			handles := []*store.Combiner{combine(t, s), combine(t, s)}
			var granted, failed atomic.Int64
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
					defer cancel()
					for range 8 {
						r, err := handles[i%2].Advance(ctx, tokens("k", time.Hour, 100, int64(1+i%2)))
						if err != nil {
							failed.Add(1)
						}
						granted.Add(r.Granted)
					}
				})
			}
			wg.Wait()
			if n := granted.Load(); n > 100 || failed.Load() == 0 {
				t.Errorf("seed %d: granted %d of 100, with %d errors", seed, n, failed.Load())
			}
		})
	}
}

// store 1: what is given back late gives nobody more than the bound of any
// window, since what the bucket has drained meanwhile stays taken.
func TestCombinerBoundWithCancelled(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			const interval, burst = 20 * time.Millisecond, 5
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 10))
			random := func(n time.Duration) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rnd.Int64N(int64(n)))
			}
			s := storetest.Faulty(openMemory(t), func(storetest.Call) storetest.Fault {
				return storetest.Fault{Late: random(30 * time.Millisecond)}
			})
			c := combine(t, s)
			var admitted []int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 60 {
						ctx, cancel := context.WithTimeout(t.Context(), random(60*time.Millisecond))
						r, err := c.Advance(ctx, tokens("k", interval, burst, 1))
						cancel()
						if err == nil && r.Granted == 1 {
							mu.Lock()
							admitted = append(admitted, r.Now)
							mu.Unlock()
						}
						time.Sleep(random(40 * time.Millisecond))
					}
				})
			}
			wg.Wait()
			checkWindows(t, admitted, interval, burst)
		})
	}
}

// checkWindows checks that no window has more admissions than a bucket allows.
func checkWindows(t *testing.T, at []int64, interval time.Duration, burst int) {
	t.Helper()
	slices.Sort(at)
	for i := range at {
		for j := i; j < len(at); j++ {
			if n, most := j-i+1, burst+int((at[j]-at[i])/int64(interval)); n > most {
				t.Errorf("%d admitted within %v, want at most %d", n, time.Duration(at[j]-at[i]), most)
				return
			}
		}
	}
	if len(at) < burst {
		t.Errorf("only %d were admitted", len(at))
	}
}

// The context of a round has the latest deadline of its callers, and a little
// more for the answer that says what to give back.
func TestCombinerDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t)
		d := deadlines{m, make(chan time.Time, 10)}
		c := combine(t, with{four{m}, d})
		for _, limit := range []time.Duration{time.Second, time.Minute} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			if _, err := c.Advance(ctx, counter("k", 10, 1)); err != nil {
				t.Fatal(err)
			}
			cancel()
			if got := time.Until(<-d.seen); got < limit || got > limit+time.Second {
				t.Errorf("a caller with %v left: the store has %v", limit, got)
			}
		}
		if _, err := c.Advance(t.Context(), counter("k", 10, 1)); err != nil {
			t.Fatal(err)
		}
		if got := <-d.seen; !got.IsZero() {
			t.Errorf("a caller without a deadline: the store has %v", time.Until(got))
		}
	})
}

type deadlines struct {
	store.Registers
	seen chan time.Time
}

func (d deadlines) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	at, _ := ctx.Deadline()
	d.seen <- at
	return d.Registers.Advance(ctx, op)
}

// store 16, its half: callers of a store that stalls wait no longer than they
// want to, and what stalled ends soon after they have gone.
func TestCombinerStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stalled atomic.Bool
		stalled.Store(true)
		c := combine(t, storetest.Faulty(openMemory(t), func(storetest.Call) storetest.Fault {
			return storetest.Fault{Stall: stalled.Load()}
		}))
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Millisecond)
				defer cancel()
				if _, err := c.Advance(ctx, counter(fmt.Sprint(i), 10, 1)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Advance: %v", err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d != 25*time.Millisecond {
			t.Errorf("200 callers with 25ms each took %v", d)
		}
		stalled.Store(false)
		if _, err := c.Advance(t.Context(), counter("k", 10, 1)); err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("after the stall: %v, %v after it began", err, time.Since(start))
		}
	})
}

// Close answers what waits, lets finish what is on its way, and may be called
// twice, and concurrently with everything.
func TestCombinerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t)
		g := &gate{Store: m, BatchRegisters: m}
		c := combine(t, g)
		open := g.close()
		var closed, granted atomic.Int64
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				switch r, err := c.Advance(t.Context(), counter("k", 100, 1)); {
				case errors.Is(err, store.ErrClosed):
					closed.Add(1)
				case err != nil:
					t.Error(err)
				default:
					granted.Add(r.Granted)
				}
			})
			synctest.Wait()
		}
		wg.Go(func() { c.Close() })
		synctest.Wait()
		if closed.Load() != 8 {
			t.Errorf("%d of 10 calls were told that it is closed, want the 8 that were not sent", closed.Load())
		}
		open()
		wg.Wait()
		if granted.Load() != 2 {
			t.Errorf("%d were granted, want the 2 that were on their way", granted.Load())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Advance(t.Context(), counter("k", 100, 1)); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Advance after Close: %v", err)
		}
		if err := c.Put(t.Context(), "k", nil, 0); err != nil {
			t.Errorf("Put after Close: %v", err)
		}
	})
	// One that stalls does not keep it.
	synctest.Test(t, func(t *testing.T) {
		c := combine(t, storetest.Faulty(openMemory(t), func(storetest.Call) storetest.Fault { return storetest.Fault{Stall: true} }))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Advance(t.Context(), counter("k", 100, 1)); err == nil {
				t.Error("a stalled call has succeeded")
			}
		})
		synctest.Wait()
		start := time.Now()
		c.Close()
		wg.Wait()
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

// 300 callers of three combiners on one store get exactly what there is.
func TestCombinerExact(t *testing.T) {
	m := openMemory(t)
	cs := []*store.Combiner{combine(t, m), combine(t, m), combine(t, m)}
	var granted atomic.Int64
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			for range 20 {
				r, err := cs[i%3].Advance(t.Context(), tokens("k", time.Hour, 777, 1))
				if err != nil {
					t.Error(err)
					return
				}
				granted.Add(r.Granted)
			}
		})
	}
	wg.Wait()
	if granted.Load() != 777 {
		t.Errorf("granted %d, want 777", granted.Load())
	}
}
