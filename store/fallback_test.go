package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// single is a store with registers, but neither batches nor all-or-nothing.
func single(s store.Store) store.Store {
	return with{four{s}, store.RegistersOf(s)}
}

// remaining returns what is left of a count of 10.
func remaining(t *testing.T, s store.Store, key string) int64 {
	t.Helper()
	r, err := store.RegistersOf(s).Advance(t.Context(), counter(key, 10, 0))
	if err != nil {
		t.Fatal(err)
	}
	return 10 - r.Value
}

// store 6: a refused fallback takes nothing in the end, and says what it found.
func TestFallbackRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t)
		a := store.AtomicRegistersOf(single(m))
		for key, n := range map[string]int64{"full": 9, "half": 5, "half2": 5} {
			if _, err := m.Advance(t.Context(), counter(key, 10, n)); err != nil {
				t.Fatal(err)
			}
		}
		some := counter("some", 10, 1)
		some.Max = 4
		back := counter("half2", 10, 3)
		back.Step = -1
		clock := tokens("clock", time.Hour, 3, 1)
		for _, ops := range [][]store.Op{
			{counter("half", 10, 2), some, clock, back, counter("full", 10, 2)},
			{back, counter("full", 10, 2), clock, counter("half", 10, 2), some},
		} {
			res := make([]store.Result, len(ops))
			if ok, err := a.AdvanceAll(t.Context(), ops, res); ok || err != nil {
				t.Fatalf("AdvanceAll: %v, %v, want a refusal", ok, err)
			}
			for i, op := range ops {
				want := map[string][2]int64{"half": {2, 5}, "some": {4, 0}, "full": {0, 9}, "half2": {3, 5}, "clock": {1, res[i].Now}}[op.Key]
				if got := [2]int64{res[i].Granted, res[i].Value}; got != want {
					t.Errorf("%s: granted and value are %v, want %v", op.Key, got, want)
				}
			}
		}
		for key, want := range map[string]int64{"full": 1, "half": 5, "some": 10, "half2": 5} {
			if n := remaining(t, m, key); n != want {
				t.Errorf("%s: %d are left, want %d", key, n, want)
			}
		}
		ops := []store.Op{counter("half", 10, 2), some, back, counter("full", 10, 1)}
		res := make([]store.Result, len(ops))
		if ok, err := a.AdvanceAll(t.Context(), ops, res); !ok || err != nil {
			t.Fatalf("AdvanceAll of what fits: %v, %v", ok, err)
		}
		if res[0].Value != 7 || res[1].Granted != 4 || res[3].Value != 10 {
			t.Errorf("AdvanceAll of what fits: %+v", res)
		}
	})
}

// store 6: whichever call fails, and however, nobody is granted more than there
// is, and what is known to have been taken is given back.
func TestFallbackFails(t *testing.T) {
	lost := errors.New("lost")
	for name, fault := range map[string]storetest.Fault{
		"before": {Before: lost}, "after": {After: lost}, "stall": {Stall: true}, "late": {Late: time.Minute},
	} {
		for _, refuse := range []bool{false, true} {
			for at := range int64(8) {
				synctest.Test(t, func(t *testing.T) {
					m := openMemory(t)
					s := storetest.Faulty(single(m), func(c storetest.Call) storetest.Fault {
						if c.N == at+1 {
							return fault
						}
						return storetest.Fault{}
					})
					a := store.AtomicRegistersOf(s)
					ops := []store.Op{counter("a", 10, 4), counter("b", 10, 4), counter("c", 10, 4)}
					if refuse {
						ops[2].Min, ops[2].Max = 11, 11
					}
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
					start := time.Now()
					ok, err := a.AdvanceAll(ctx, ops, make([]store.Result, 3))
					if ok && (err != nil || refuse) || time.Since(start) > 50*time.Millisecond {
						t.Errorf("%s call %d: AdvanceAll returns %v, %v after %v", name, at, ok, err, time.Since(start))
					}
					time.Sleep(3 * time.Second)
					for i, key := range []string{"a", "b", "c"} {
						n := remaining(t, m, key)
						// Of the call that failed, it is not known.
						unknown := at == int64(i) || refuse && at > 2
						switch {
						case ok && n != 6, n > 10, n < 6:
							t.Errorf("%s call %d: %d are left of %s, applied: %v", name, at, n, key, ok)
						case !ok && n != 10 && !unknown:
							t.Errorf("%s call %d: %d are left of %s, want all 10: it was given back", name, at, n, key)
						}
					}
				})
			}
		}
	}
}

// store 6: at the same time, over registers in any order, the fallback never
// grants more than fits in the smallest.
func TestFallbackContended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := store.AtomicRegistersOf(single(newMapStore()))
		const registers, fits = 3, 60
		var applied atomic.Int64
		var wg sync.WaitGroup
		for g := range 16 {
			rnd := rand.New(rand.NewPCG(uint64(g), 11))
			wg.Go(func() {
				for range 10 {
					ops, res := make([]store.Op, registers), make([]store.Result, registers)
					for i, k := range rnd.Perm(registers) {
						ops[i] = counter(fmt.Sprint(k), fits+int64(k), 1)
					}
					ok, err := a.AdvanceAll(t.Context(), ops, res)
					if err != nil {
						t.Error(err)
						return
					}
					if ok {
						applied.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := applied.Load(); n > fits || n < fits/2 {
			t.Errorf("%d were applied, want at most %d and not much less", n, fits)
		}
	})
}

// store 1, 6: what the fallback gives back late, over a slow store, gives
// nobody more than the bound of any window.
func TestFallbackBound(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			const interval, burst = 20 * time.Millisecond, 5
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 12))
			random := func(n time.Duration) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rnd.Int64N(int64(n)))
			}
			s := storetest.Faulty(single(openMemory(t)), func(storetest.Call) storetest.Fault {
				return storetest.Fault{Late: random(10 * time.Millisecond)}
			})
			a := store.AtomicRegistersOf(s)
			var admitted []int64
			var wg sync.WaitGroup
			for g := range 8 {
				wg.Go(func() {
					for range 60 {
						ops := []store.Op{tokens("all", interval, burst, 1), tokens(fmt.Sprint(g), time.Hour, 20, 1)}
						if g%2 == 0 {
							ops[1].Min, ops[1].Max = 21, 21 // never fits
						}
						res := make([]store.Result, 2)
						ok, err := a.AdvanceAll(t.Context(), ops, res)
						if err != nil {
							t.Error(err)
						}
						if ok {
							mu.Lock()
							admitted = append(admitted, res[0].Now)
							mu.Unlock()
						}
						time.Sleep(random(30 * time.Millisecond))
					}
				})
			}
			wg.Wait()
			checkWindows(t, admitted, interval, burst)
		})
	}
}

func TestFallbackRefusesBadOps(t *testing.T) {
	s := single(openMemory(t))
	a, b := store.AtomicRegistersOf(s), store.BatchRegistersOf(s)
	bad := counter("bad", 10, 1)
	bad.Min = 2
	for _, ops := range [][]store.Op{
		{counter("k", 10, 1), counter("k", 10, 1)},
		{counter("k", 10, 1), bad},
	} {
		if ok, err := a.AdvanceAll(t.Context(), ops, make([]store.Result, 2)); ok || !errors.Is(err, store.ErrOp) {
			t.Errorf("AdvanceAll: %v, %v, want store.ErrOp", ok, err)
		}
	}
	if err := b.AdvanceBatch(t.Context(), []store.Op{counter("k", 10, 1), bad}, make([]store.Result, 2)); !errors.Is(err, store.ErrOp) {
		t.Errorf("AdvanceBatch: %v, want store.ErrOp", err)
	}
	if n := remaining(t, s, "k"); n != 10 {
		t.Errorf("%d of 10 are left", n)
	}
}

// Operations of a batch go at the same time where they can: a store that takes
// ten milliseconds for a call takes not much more for thirty.
func TestFallbackBatchIsConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Faulty(single(openMemory(t)), func(storetest.Call) storetest.Fault {
			return storetest.Fault{Delay: 10 * time.Millisecond}
		})
		var ops []store.Op
		for i := range 30 {
			ops = append(ops, counter(fmt.Sprint(i), 10, 1))
		}
		ops = append(ops, ops[0])
		start := time.Now()
		if err := store.BatchRegistersOf(s).AdvanceBatch(t.Context(), ops, make([]store.Result, 31)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 20*time.Millisecond {
			t.Errorf("a batch took %v, want 20ms", d)
		}
	})
}

// What was taken from a count is not given back to the one that may have taken
// its place: that would let through more than its Ceil.
func TestGiveBackExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := store.Op{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1, TTL: time.Second}
		for _, tt := range []struct {
			left, age time.Duration
			want      bool
		}{
			{time.Second, 100 * time.Millisecond, true},
			{201 * time.Millisecond, 100 * time.Millisecond, true},
			{200 * time.Millisecond, 100 * time.Millisecond, false},
			{50 * time.Millisecond, 100 * time.Millisecond, false},
			{0, time.Hour, true}, // it does not expire
		} {
			back, any := store.GiveBack(count, 1, store.Result{Value: 5, Granted: 1, Expires: int64(tt.left)}, tt.age)
			if any != tt.want || any && (back.Step != -1 || back.Max != 1) {
				t.Errorf("%v left after %v: %v", tt.left, tt.age, any)
			}
		}
	})
}
