package ratelimit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// bucket is one request for a token out of b, of which there is one more each
// interval.
func bucket(key string, b int64, interval time.Duration) store.Op {
	return store.Op{
		Space: "plainware/ratelimit/1/test/p", Key: key,
		Clock: true, Ceil: b * int64(interval), Step: int64(interval), Min: 1, Max: 1,
	}
}

func newMemory(t testing.TB) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustGuard(t testing.TB, cfg guardConfig) *guard {
	t.Helper()
	g, err := newGuard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close() })
	return g
}

// faults is a store in memory with faults that a test sets, and that counts its
// calls.
type faults struct {
	fault atomic.Pointer[storetest.Fault]
	calls atomic.Int64
	store store.Store
	mem   *store.Memory
}

func newFaults(t testing.TB) *faults {
	f := &faults{mem: newMemory(t)}
	f.fault.Store(new(storetest.Fault))
	f.store = storetest.Faulty(f.mem, func(storetest.Call) storetest.Fault {
		f.calls.Add(1)
		return *f.fault.Load()
	})
	return f
}

func (f *faults) set(fault storetest.Fault) { f.fault.Store(&fault) }

// value returns for how long the register of op is taken, in steps.
func (f *faults) taken(t testing.TB, op store.Op) int64 {
	t.Helper()
	op.Min, op.Max = 0, 0
	r, err := f.mem.Advance(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return (r.Value - r.Now + op.Step - 1) / op.Step
}

// pair is one request to two policies.
func pair(key string, b1, b2 int64) []store.Op {
	ops := []store.Op{bucket(key, b1, time.Hour), bucket(key, b2, time.Hour)}
	ops[1].Space += "2"
	return ops
}

var errDown = errors.New("connection refused")

// ways are the ways in which a guard asks its store.
var ways = map[string]func(key string, b int64) []store.Op{
	"one":     func(key string, b int64) []store.Op { return []store.Op{bucket(key, b, time.Hour)} },
	"several": func(key string, b int64) []store.Op { return pair(key, b, b+1) },
}

// ratelimit 16: a stalled store costs a request no more than the budget, and
// after three failures in a row nothing until the probe; recovery closes it.
func TestGuardStall(t *testing.T) {
	for name, ops := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFaults(t)
				var heard []error
				g := mustGuard(t, guardConfig{Store: f.store, OnDegraded: func(err error) { heard = append(heard, err) }})
				f.set(storetest.Fault{Stall: true})
				ask := func() (took time.Duration, degraded bool) {
					t.Helper()
					o := ops("k", 1000)
					start := time.Now()
					applied, degraded, err := g.advance(t.Context(), o, make([]store.Result, len(o)))
					if !applied || err != nil {
						t.Fatalf("applied %v, %v", applied, err)
					}
					return time.Since(start), degraded
				}
				for i := range 3 {
					if took, degraded := ask(); took != 25*time.Millisecond || !degraded {
						t.Errorf("failure %d took %v, degraded %v", i, took, degraded)
					}
				}
				for range 100 {
					if took, degraded := ask(); took != 0 || !degraded {
						t.Errorf("with the store left alone: took %v, degraded %v", took, degraded)
					}
				}
				n := f.calls.Load() // of one, two: the combiner has no more senders
				if n > 3 {
					t.Errorf("%d calls, want at most 3", n)
				}
				time.Sleep(time.Second)
				if took, _ := ask(); took != 25*time.Millisecond || f.calls.Load() != n+1 {
					t.Errorf("the probe took %v, call %d", took, f.calls.Load())
				}
				if took, _ := ask(); took != 0 || f.calls.Load() != n+1 {
					t.Errorf("after the probe: took %v, call %d", took, f.calls.Load())
				}
				f.set(storetest.Fault{})
				if _, degraded := ask(); !degraded {
					t.Error("asked the store before the time of the next probe")
				}
				time.Sleep(time.Second)
				for range 3 {
					if took, degraded := ask(); took != 0 || degraded {
						t.Errorf("after recovery: took %v, degraded %v", took, degraded)
					}
				}
				if len(heard) != 5 || heard[3] == nil || heard[4] != nil {
					t.Errorf("the hook heard %v, want four errors and then nil", heard)
				}
			})
		})
	}
}

// ratelimit 16: of any number of requests one is the probe.
func TestGuardOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		g := mustGuard(t, guardConfig{Store: f.store})
		f.set(storetest.Fault{Before: errDown})
		for range 3 {
			g.advance(t.Context(), ways["one"]("k", 10), make([]store.Result, 1))
		}
		time.Sleep(time.Second)
		f.set(storetest.Fault{Stall: true})
		before := f.calls.Load()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() { g.advance(t.Context(), ways["several"]("k", 10), make([]store.Result, 2)) })
		}
		wg.Wait()
		if n := f.calls.Load() - before; n != 1 {
			t.Errorf("%d calls, want the probe", n)
		}
	})
}

// Failures are counted in a row, and answers in time end them.
func TestGuardNotInARow(t *testing.T) { synctest.Test(t, testGuardNotInARow) }

func testGuardNotInARow(t *testing.T) {
	f := newFaults(t)
	g := mustGuard(t, guardConfig{Store: f.store})
	for i := range 20 {
		f.set(storetest.Fault{})
		if i%3 != 0 {
			f.set(storetest.Fault{Before: errDown})
		}
		_, degraded, err := g.advance(t.Context(), ways["one"]("k", 100), make([]store.Result, 1))
		if degraded != (i%3 != 0) || err != nil {
			t.Fatalf("request %d: degraded %v, %v", i, degraded, err)
		}
	}
}

// deaf is a store of which no call ends before release is closed.
type deaf struct {
	*store.Memory
	release chan struct{}
}

func (d deaf) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	<-d.release
	return d.Memory.Advance(context.WithoutCancel(ctx), op)
}

func (d deaf) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (bool, error) {
	<-d.release
	return d.Memory.AdvanceAll(context.WithoutCancel(ctx), ops, res)
}

// ratelimit 16: there are clients that do not end with their context, as
// go-redis without ContextTimeoutEnabled. They hold up nobody.
func TestGuardDeafStore(t *testing.T) {
	for name, ops := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deaf{newMemory(t), make(chan struct{})}
				g := mustGuard(t, guardConfig{Store: d})
				o := ops("k", 10)
				start := time.Now()
				_, degraded, err := g.advance(t.Context(), o, make([]store.Result, len(o)))
				if took := time.Since(start); took != 25*time.Millisecond || !degraded || err != nil {
					t.Errorf("took %v, degraded %v, %v", took, degraded, err)
				}
				close(d.release)
			})
		})
	}
}

// ratelimit 17: the modes do what they are called, and it is reported.
func TestGuardModes(t *testing.T) {
	for name, ops := range ways {
		for _, c := range []struct {
			mode  OnStoreError
			grant int // of 20 requests to a limit of 5
		}{{Local, 5}, {Allow, 20}, {Deny, 0}} {
			t.Run(name+"/"+c.mode.String(), func(t *testing.T) {
				f := newFaults(t)
				g := mustGuard(t, guardConfig{Store: f.store, Mode: c.mode})
				f.set(storetest.Fault{Before: errDown})
				grant := 0
				for range 20 {
					o := ops("k", 5)
					res := make([]store.Result, len(o))
					res[0].Granted = 77
					applied, degraded, err := g.advance(t.Context(), o, res)
					if !degraded || err != nil {
						t.Fatalf("degraded %v, %v", degraded, err)
					}
					if c.mode != Local && res[0] != (store.Result{}) {
						t.Errorf("result %+v", res[0])
					}
					if applied {
						grant++
					}
				}
				if grant != c.grant {
					t.Errorf("%d granted, want %d", grant, c.grant)
				}
				if n := f.taken(t, ops("k", 5)[0]); n != 0 {
					t.Errorf("%d taken in the store", n)
				}
			})
		}
	}
}

// ratelimit 17: in mode Local any number of outages adds one more limit to the
// store's, not one for each.
func TestGuardManyOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		g := mustGuard(t, guardConfig{Store: f.store})
		granted := 0
		for i := range 50 {
			f.set(storetest.Fault{})
			if i%2 == 1 {
				f.set(storetest.Fault{Before: errDown})
			}
			for range 20 {
				applied, _, err := g.advance(t.Context(), []store.Op{bucket("k", 100, 24*time.Hour)}, make([]store.Result, 1))
				if err != nil {
					t.Fatal(err)
				}
				if applied {
					granted++
				}
			}
			time.Sleep(time.Second)
		}
		if granted != 200 {
			t.Errorf("%d granted, want the store's 100 and 100 more", granted)
		}
	})
}

// ratelimit 15: what was applied and then failed is never granted twice.
func TestGuardLostReply(t *testing.T) {
	for name, ops := range ways {
		for _, c := range []struct {
			mode OnStoreError
			most int
		}{{Deny, 100}, {Local, 200}} {
			t.Run(name+"/"+c.mode.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFaults(t)
					g := mustGuard(t, guardConfig{Store: f.store, Mode: c.mode})
					granted := 0
					for i := range 500 {
						f.set(storetest.Fault{})
						switch i % 5 {
						case 1:
							f.set(storetest.Fault{After: errDown})
						case 3:
							f.set(storetest.Fault{Late: time.Hour})
						}
						o := ops("k", 100)
						applied, degraded, err := g.advance(t.Context(), o, make([]store.Result, len(o)))
						if err != nil {
							t.Fatal(err)
						}
						if applied {
							granted++
						}
						if degraded { // until what was lost is no longer waited for
							time.Sleep(2 * time.Second)
						}
					}
					if granted > c.most || granted < 60 {
						t.Errorf("%d granted, want at most %d", granted, c.most)
					}
				})
			})
		}
	}
}

// ratelimit 18: a caller whose context ends is answered at once, and what it was
// granted is given back.
func TestGuardCancel(t *testing.T) {
	for name, ops := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFaults(t)
				g := mustGuard(t, guardConfig{Store: f.store})
				f.set(storetest.Fault{Late: 10 * time.Millisecond})
				o := ops("k", 10)
				for range 5 {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(2*time.Millisecond, cancel)
					start := time.Now()
					applied, degraded, err := g.advance(ctx, o, make([]store.Result, len(o)))
					if took := time.Since(start); took != 2*time.Millisecond || !errors.Is(err, context.Canceled) || applied || degraded {
						t.Errorf("took %v, applied %v, degraded %v, %v", took, applied, degraded, err)
					}
					if n := f.taken(t, o[0]); n != 1 {
						t.Errorf("%d taken before the answer, want 1", n)
					}
					time.Sleep(time.Second)
					if n := f.taken(t, o[0]); n != 0 {
						t.Errorf("%d taken after the answer, want 0", n)
					}
				}
				// None of that says anything against the store.
				f.set(storetest.Fault{})
				if applied, degraded, err := g.advance(t.Context(), o, make([]store.Result, len(o))); !applied || degraded || err != nil {
					t.Errorf("applied %v, degraded %v, %v", applied, degraded, err)
				}
			})
		})
	}
}

// A probe whose caller leaves has shown nothing, and the next one is the probe.
func TestGuardCancelledProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		g := mustGuard(t, guardConfig{Store: f.store})
		f.set(storetest.Fault{Before: errDown})
		for range 3 {
			g.advance(t.Context(), ways["one"]("k", 10), make([]store.Result, 1))
		}
		time.Sleep(time.Second)
		f.set(storetest.Fault{Late: 10 * time.Millisecond})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, err := g.advance(ctx, ways["one"]("k", 10), make([]store.Result, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, degraded, err := g.advance(t.Context(), ways["one"]("k", 10), make([]store.Result, 1)); degraded || err != nil {
			t.Errorf("degraded %v, %v", degraded, err)
		}
	})
}

// cluster cannot do several registers at once.
type cluster struct{ *store.Memory }

func (c cluster) AdvanceAll(_ context.Context, ops []store.Op, _ []store.Result) (bool, error) {
	return false, store.ErrOp
}

// Registers on several machines are asked one after the other, and a refusal
// gives back what was taken.
func TestGuardCluster(t *testing.T) { synctest.Test(t, testGuardCluster) }

func testGuardCluster(t *testing.T) {
	m := newMemory(t)
	g := mustGuard(t, guardConfig{Store: cluster{m}, Mode: Deny})
	ops, res := pair("k", 5, 3), make([]store.Result, 2)
	for i := range 10 {
		applied, degraded, err := g.advance(t.Context(), ops, res)
		if applied != (i < 3) || degraded || err != nil {
			t.Errorf("request %d: applied %v, degraded %v, %v", i, applied, degraded, err)
		}
	}
	peek := ops[0]
	peek.Min, peek.Max = 0, 0
	r, err := m.Advance(t.Context(), peek)
	if err != nil {
		t.Fatal(err)
	}
	if n := (r.Value - r.Now + peek.Step - 1) / peek.Step; n != 3 {
		t.Errorf("%d taken of the first, want 3", n)
	}
}

// Operations that no store can do are a mistake of the caller, and no outage.
func TestGuardBadOp(t *testing.T) { synctest.Test(t, testGuardBadOp) }

func testGuardBadOp(t *testing.T) {
	for _, s := range []store.Store{nil, newMemory(t), newFaults(t).store} {
		g := mustGuard(t, guardConfig{Store: s, Mode: Allow})
		bad := bucket("k", 1, time.Second)
		bad.Max = 1 << 60
		for range 5 {
			if applied, degraded, err := g.advance(t.Context(), []store.Op{bad}, make([]store.Result, 1)); applied || degraded || !errors.Is(err, store.ErrOp) {
				t.Errorf("applied %v, degraded %v, %v", applied, degraded, err)
			}
		}
		if applied, degraded, err := g.advance(t.Context(), []store.Op{bucket("k", 1, time.Second)}, make([]store.Result, 1)); !applied || degraded || err != nil {
			t.Errorf("then: applied %v, degraded %v, %v", applied, degraded, err)
		}
	}
}

// A store in memory that somebody has closed fails like any other.
func TestGuardClosedMemory(t *testing.T) {
	m := newMemory(t)
	m.Close()
	for mode, want := range map[OnStoreError]bool{Local: true, Allow: true, Deny: false} {
		g := mustGuard(t, guardConfig{Store: m, Mode: mode})
		applied, degraded, err := g.advance(t.Context(), ways["one"]("k", 10), make([]store.Result, 1))
		if applied != want || !degraded || err != nil {
			t.Errorf("%v: applied %v, degraded %v, %v", mode, applied, degraded, err)
		}
	}
}

// Charges and peeks go to the local registers while the store fails, and what
// was taken from the store is not given back to these.
func TestGuardBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		g := mustGuard(t, guardConfig{Store: f.store})
		charge, back := bucket("k", 10, time.Hour), bucket("k", 10, time.Hour)
		charge.Min, charge.Max = 0, 4
		back.Step = -back.Step
		peek := charge
		peek.Max = 0
		res := make([]store.Result, 3)
		do := func(ops ...store.Op) bool {
			t.Helper()
			degraded, err := g.batch(t.Context(), ops, res[:len(ops)])
			if err != nil {
				t.Fatal(err)
			}
			return degraded
		}
		taken := func() int64 { return (res[0].Value - res[0].Now + int64(time.Hour) - 1) / int64(time.Hour) }

		if do(charge, back, peek) || res[0].Granted != 4 || f.taken(t, peek) != 3 {
			t.Errorf("with the store: %+v, %d taken", res, f.taken(t, peek))
		}
		f.set(storetest.Fault{Before: errDown})
		if !do(charge, back, peek) || res[0].Granted != 4 || res[1] != (store.Result{}) {
			t.Errorf("without: %+v", res)
		}
		if !do(peek) || taken() != 4 {
			t.Errorf("%d taken locally, want 4", taken())
		}
		if f.taken(t, peek) != 3 {
			t.Errorf("%d taken in the store, want 3", f.taken(t, peek))
		}
	})
}

// A store that combines calls already is not put behind another combiner, and is
// not closed.
func TestGuardOwnCombiner(t *testing.T) {
	c, err := store.NewCombiner(store.CombinerConfig{Store: newFaults(t).store})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := mustGuard(t, guardConfig{Store: c})
	if g.combiner != nil || g.one != store.Registers(c) {
		t.Error("there is another combiner")
	}
	g.close()
	g.close()
	if _, err := c.Advance(t.Context(), bucket("k", 1, time.Second)); err != nil {
		t.Error(err)
	}
}

// No decision on a store in memory allocates, whatever becomes of it.
func TestGuardMemoryAllocs(t *testing.T) {
	g := mustGuard(t, guardConfig{Store: newMemory(t)})
	ctx := t.Context()
	ops, res := pair("k", 50, 70), make([]store.Result, 2)
	for n := 1; n <= 2; n++ {
		if a := testing.AllocsPerRun(200, func() { g.advance(ctx, ops[:n], res[:n]) }); a != 0 {
			t.Errorf("%d operations: %v allocations", n, a)
		}
		if a := testing.AllocsPerRun(200, func() { g.batch(ctx, ops[:n], res[:n]) }); a != 0 {
			t.Errorf("batch of %d: %v allocations", n, a)
		}
	}
}

// A count that may have expired is not lowered: another may be in its place.
func TestRefundOfExpiredCount(t *testing.T) {
	count := store.Op{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1, TTL: time.Second}
	for _, tt := range []struct {
		left time.Duration
		want bool
	}{
		{time.Second, true}, {201 * time.Millisecond, true}, {200 * time.Millisecond, false}, {time.Millisecond, false}, {0, true},
	} {
		_, any := refund(count, 1, store.Result{Value: 5, Granted: 1, Expires: int64(tt.left)}, 100*time.Millisecond)
		if any != tt.want {
			t.Errorf("%v left: %v", tt.left, any)
		}
	}
}
