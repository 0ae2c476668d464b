package breaker_test

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

	"example.com/plainware/breaker"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

func newMemory(t testing.TB) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryConfig{Registers: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fleet makes n breakers as n processes would have them.
func fleet(t testing.TB, n int, c breaker.Config) []*breaker.Breaker {
	t.Helper()
	if c.Name == "" {
		c.Name = "billing"
	}
	all := make([]*breaker.Breaker, n)
	for i := range all {
		all[i] = newBreaker(t, c)
	}
	return all
}

// interval is longer than a sync interval ever is.
const interval = 1200 * time.Millisecond

// work has each process make calls for some time, of which those of the first bad
// fail.
func work(all []*breaker.Breaker, bad int, d time.Duration) {
	for ; d > 0; d -= 50 * time.Millisecond {
		for i, b := range all {
			o := breaker.Success
			if i < bad {
				o = breaker.Failure
			}
			calls(b, 2, o)
		}
		time.Sleep(50 * time.Millisecond)
	}
	synctest.Wait()
}

func states(all []*breaker.Breaker) (n [3]int) {
	for _, b := range all {
		n[b.State()]++
	}
	return n
}

// breaker 30: one failing process of eight, or four, or two, opens for itself
// only.
func TestPoisonedProcess(t *testing.T) {
	for _, n := range []int{2, 4, 8} {
		synctest.Test(t, func(t *testing.T) {
			all := fleet(t, n, breaker.Config{Store: newMemory(t)})
			for range 40 {
				work(all, 1, time.Second)
				for _, b := range all[1:] {
					want(t, b, breaker.Closed)
				}
			}
			if all[0].Stats().Openings == 0 || all[0].Stats().Fleet.Generation != 0 {
				t.Errorf("%+v", all[0].Stats())
			}
		})
	}
}

// still is a store that answers nobody in the first part of each stretch of time,
// and everybody after it, as where a machine stands still.
type still struct {
	*store.Memory
	start time.Time
	part  time.Duration
	of    time.Duration
}

func (s *still) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	s.wait()
	return s.Memory.AdvanceBatch(ctx, ops, res)
}

func (s *still) Get(ctx context.Context, key string) ([]byte, bool, error) {
	s.wait()
	return s.Memory.Get(ctx, key)
}

func (s *still) Keep() (store.Store, error) { return s, nil }

func (s *still) wait() {
	if at := time.Since(s.start) % s.of; at < s.part {
		time.Sleep(s.part - at)
	}
	// Not all are answered in the same instant, nor in the order in which they asked.
	time.Sleep(rand.N(10 * time.Millisecond))
}

// breaker 30: nor does it open the others when they have all been held up, and it
// is the first one to go on.
func TestPoisonedProcessHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, sync := range []time.Duration{20, 50, 100, 250} {
			s := &still{Memory: newMemory(t), start: time.Now(), part: 900 * time.Millisecond, of: 3 * time.Second}
			all := fleet(t, 4, breaker.Config{Store: s, Sync: sync * time.Millisecond})
			for range 120 {
				work(all, 1, time.Second)
				for _, b := range all[1:] {
					want(t, b, breaker.Closed)
				}
			}
			if st := all[0].Stats(); st.Openings == 0 || st.Fleet.Generation != 0 {
				t.Errorf("%+v", st)
			}
			// It is no store that has failed: what most of them find is believed.
			work(all, 3, 6*time.Second)
			if n := states(all); n[breaker.Open] != 4 {
				t.Error(n)
			}
		}
	})
}

// Nor where only the store's clock has gone on: machines that were suspended do not
// know it.
func TestPoisonedProcessSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &wrong{Memory: newMemory(t)}
		all := fleet(t, 2, breaker.Config{Store: s, MinCalls: 5, OpenFor: time.Second, MaxOpen: -1})
		for range 40 {
			work(all, 1, 20*time.Second+rand.N(2*time.Second))
			s.off.Add(int64(6 * time.Second))
			work(all, 1, 10*time.Second)
			if st := all[0].Stats(); st.Openings == 0 || st.Fleet.Generation != 0 {
				t.Fatalf("%+v", st)
			}
		}
	})
}

// A store that takes its time is no reason not to believe the others.
func TestQuorumOpensSlowly(t *testing.T) {
	for _, sync := range []time.Duration{10, 50, 100, 500, 1000} {
		synctest.Test(t, func(t *testing.T) {
			const rtt = 300 * time.Millisecond // a batch, and a record read and written, in a second
			s := storetest.Faulty(newMemory(t), func(storetest.Call) storetest.Fault {
				return storetest.Fault{Delay: rtt}
			})
			all := fleet(t, 4, breaker.Config{Store: s, Sync: sync * time.Millisecond, OpenFor: time.Minute})
			work(all, 0, 4*time.Second)
			work(all, 3, 8*time.Second)
			if n := states(all); n[breaker.Open] != 4 {
				t.Errorf("sync %v ms: %v", int64(sync), n)
			}
		})
	}
}

// breaker 30: five of eight open all within a sync interval and a round trip.
func TestQuorumOpens(t *testing.T) {
	for _, c := range []struct{ n, bad int }{{1, 1}, {2, 2}, {4, 3}, {8, 5}} {
		synctest.Test(t, func(t *testing.T) {
			all := fleet(t, c.n, breaker.Config{Store: newMemory(t), OpenFor: time.Minute})
			work(all, 0, 3*time.Second)
			work(all, c.bad, 500*time.Millisecond) // some fail for themselves
			start := time.Now()
			for all[c.bad-1].State() != breaker.Open {
				work(all, c.bad, 50*time.Millisecond)
			}
			took := time.Since(start)
			time.Sleep(interval)
			synctest.Wait()
			if s := states(all); s[breaker.Open] != c.n {
				t.Errorf("%d of %d: %v", c.bad, c.n, s)
			}
			for _, b := range all {
				if st := b.Stats(); st.Fleet.Generation != 1 || !st.Fleet.Open || !st.Fleet.Synced {
					t.Errorf("%+v", st)
				}
			}
			t.Logf("%d of %d: local %v", c.bad, c.n, took)
		})
	}
}

// The processes together have enough calls, though none of them has.
func TestFewCallsEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := fleet(t, 30, breaker.Config{Store: newMemory(t)})
		time.Sleep(2 * interval)
		for _, b := range all {
			calls(b, 2, breaker.Failure)
			want(t, b, breaker.Closed)
		}
		settle(2 * interval)
		if s := states(all); s[breaker.Open] != 30 {
			t.Error(s)
		}
	})
}

// breaker 27: a restart while it is open finds it open, with the time that is
// left; one while it is half-open keeps what it was about to do.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := breaker.Config{Name: "billing", Store: newMemory(t), OpenFor: 20 * time.Second}
		b := newBreaker(t, c)
		settle(2 * interval)
		trip(t, b)
		settle(2 * interval)
		b.Close()
		left := b.Stats().RetryAfter
		time.Sleep(5 * time.Second)

		b = newBreaker(t, c)
		want(t, b, breaker.Open)
		s := b.Stats()
		if d := s.RetryAfter - (left - 5*time.Second); d < -time.Millisecond || d > time.Millisecond || s.Streak != 1 {
			t.Errorf("left %v, then %v; %+v", left, s.RetryAfter, s)
		}
		settle(s.RetryAfter)
		want(t, b, breaker.HalfOpen)
		b.Close()

		b = newBreaker(t, c)
		want(t, b, breaker.HalfOpen)
		calls(b, 1, breaker.Success) // asks for a probe
		synctest.Wait()
		if n := calls(b, 1, breaker.Failure); n != 1 {
			t.Fatal("no probe")
		}
		want(t, b, breaker.Open)
		if s := b.Stats(); s.Streak != 2 || s.RetryAfter < 36*time.Second {
			t.Errorf("%+v", s)
		}
		synctest.Wait()
		b.Close()
		want(t, newBreaker(t, c), breaker.Open)
	})
}

// drive makes a call on each breaker at short intervals until f returns true.
func drive(t testing.TB, all []*breaker.Breaker, within time.Duration, o breaker.Outcome, f func() bool) {
	t.Helper()
	for start := time.Now(); !f(); {
		if time.Since(start) > within {
			t.Fatalf("not after %v: %v", within, states(all))
		}
		for _, b := range all {
			calls(b, 1, o)
		}
		settle(10 * time.Millisecond)
	}
}

func openFleet(t testing.TB, all []*breaker.Breaker) {
	t.Helper()
	work(all, 0, 2*time.Second)
	drive(t, all, 10*time.Second, breaker.Failure, func() bool {
		for _, b := range all {
			if !b.Stats().Fleet.Open {
				return false
			}
		}
		return true
	})
}

func halfOpenFleet(t testing.TB, all []*breaker.Breaker) {
	t.Helper()
	openFleet(t, all)
	settle(all[0].Stats().RetryAfter + time.Millisecond)
	if s := states(all); s[breaker.HalfOpen] != len(all) {
		t.Fatal(s)
	}
}

// All recover together, by probes that any of them makes.
func TestFleetRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := fleet(t, 8, breaker.Config{Store: newMemory(t)})
		halfOpenFleet(t, all)
		start := time.Now()
		drive(t, all, 5*time.Second, breaker.Success, func() bool { return states(all)[breaker.Closed] == 8 })
		if d := time.Since(start); d > 2*interval {
			t.Errorf("took %v", d)
		}
		if g := all[3].Stats().Fleet.Generation; g != 2 {
			t.Errorf("generation %d", g)
		}
		for _, b := range all {
			if n := calls(b, 100, breaker.Success); n > 60 {
				t.Errorf("%d of 100 at the beginning of the ramp", n)
			}
		}
	})
}

// breaker 28: of 500 callers in eight processes exactly Probes reach a back end
// that hangs, and one more for each probe timeout.
func TestFleetProbes(t *testing.T) {
	for _, probes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			all := fleet(t, 8, breaker.Config{Store: newMemory(t), Probes: probes})
			halfOpenFleet(t, all)
			began := time.Now()
			hang := 0
			// A place is found free by the next step of any process, so each of
			// the four more may come an interval late.
			for time.Since(began) < 4*(10*time.Second+interval)+interval {
				for i := range 500 {
					if _, err := all[i%8].Acquire(); err == nil {
						hang++
					}
				}
				if most := probes + int(time.Since(began)/(10*time.Second)); hang > most {
					t.Fatalf("%d probes after %v", hang, time.Since(began))
				}
				settle(100 * time.Millisecond)
			}
			if hang != probes+4 {
				t.Errorf("%d probes, want %d", hang, probes+4)
			}
			if s := states(all); s[breaker.HalfOpen] != 8 {
				t.Error(s)
			}
		})
	}
}

// breaker 29: a probe whose process dies frees its place by the probe timeout.
func TestProbeOfDeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		var dead atomic.Bool
		gone := storetest.Faulty(mem, func(storetest.Call) storetest.Fault {
			if dead.Load() {
				return storetest.Fault{Before: errors.New("the process is dead")}
			}
			return storetest.Fault{}
		})
		all := fleet(t, 2, breaker.Config{Store: mem})
		all = append(all, fleet(t, 1, breaker.Config{Store: gone})...)
		halfOpenFleet(t, all)
		drive(t, all[2:], interval, breaker.Ignored, func() bool {
			_, err := all[2].Acquire()
			return err == nil
		})
		dead.Store(true)
		start := time.Now()
		drive(t, all[:2], 20*time.Second, breaker.Success, func() bool { return states(all[:2])[breaker.Closed] == 2 })
		if d := time.Since(start); d > 10*time.Second+3*interval || d < 9*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// breaker 31: with the store down processes decide for themselves, and no call
// waits for it or asks it.
func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var asked atomic.Int64
		s := storetest.Faulty(newMemory(t), func(storetest.Call) storetest.Fault {
			asked.Add(1)
			return storetest.Fault{Stall: down.Load()}
		})
		down.Store(true)
		start := time.Now()
		b := newBreaker(t, breaker.Config{Name: "x", Store: s})
		if d := time.Since(start); d != 250*time.Millisecond {
			t.Errorf("New took %v", d)
		}
		before := time.Now()
		trip(t, b)
		if time.Since(before) != 0 {
			t.Error("a call has waited")
		}
		settle(6 * time.Second)
		want(t, b, breaker.HalfOpen)
		calls(b, 3, breaker.Success)
		want(t, b, breaker.Closed)

		// Ten seconds without calls ask as often as ten with a hundred thousand.
		down.Store(false)
		settle(10 * time.Second)
		n := asked.Load()
		settle(10 * time.Second)
		idle := asked.Load() - n
		n = asked.Load()
		for range 1000 {
			calls(b, 100, breaker.Success)
			settle(10 * time.Millisecond)
		}
		if busy := asked.Load() - n; idle < 8 || busy > idle+4 {
			t.Errorf("asked %d times when idle, %d times when busy", idle, busy)
		}
	})
}

// What happened while the store was away is there when it comes back: the state,
// and what was counted within the window.
func TestStoreComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := storetest.Faulty(newMemory(t), func(storetest.Call) storetest.Fault {
			if down.Load() {
				return storetest.Fault{Before: errors.New("refused")}
			}
			return storetest.Fault{}
		})
		all := fleet(t, 4, breaker.Config{Store: s, OpenFor: 2 * time.Second})
		halfOpenFleet(t, all)
		down.Store(true)
		settle(4 * time.Second)
		// Without the store each looks for itself, and closes.
		drive(t, all, 2*time.Second, breaker.Success, func() bool { return states(all)[breaker.Closed] == 4 })
		if all[0].Stats().Fleet.Synced {
			t.Errorf("%+v", all[0].Stats())
		}
		settle(6 * time.Second)
		down.Store(false)
		settle(2 * interval)
		for _, b := range all {
			if st := b.Stats(); st.State != breaker.Closed || st.Fleet.Open || st.Fleet.Generation != 2 {
				t.Errorf("%+v", st)
			}
		}
		// And the other way round: all have opened by themselves.
		settle(20 * time.Second)
		down.Store(true)
		for _, b := range all {
			trip(t, b)
		}
		settle(time.Second)
		down.Store(false)
		drive(t, all, 3*interval, breaker.Failure, func() bool {
			n := 0
			for _, b := range all {
				if b.Stats().Fleet.Open {
					n++
				}
			}
			return n == 4
		})
	})
}

// breaker 32: when a process that was cut off comes back, the higher generation
// wins everywhere within an interval; so it is when the store has lost all.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		var cut atomic.Bool
		s := storetest.Faulty(mem, func(storetest.Call) storetest.Fault {
			if cut.Load() {
				return storetest.Fault{Before: errors.New("cut off")}
			}
			return storetest.Fault{}
		})
		all := fleet(t, 4, breaker.Config{Store: mem, OpenFor: 30 * time.Second})
		alone := fleet(t, 1, breaker.Config{Store: s, OpenFor: 30 * time.Second})[0]
		everyone := append(all, alone)
		openFleet(t, everyone)
		cut.Store(true)
		ctx := t.Context()
		if err := all[0].Force(ctx, breaker.Override{}); err != nil {
			t.Fatal(err)
		}
		settle(interval)
		want(t, all[3], breaker.Closed)
		want(t, alone, breaker.Open) // known until its deadline
		cut.Store(false)
		settle(2 * interval) // a round of it may be on its way
		if s := states(everyone); s[breaker.Closed] != 5 {
			t.Error(s)
		}

		// The store forgets; one process knows less than the others.
		cut.Store(true)
		for i := range 3 {
			o := breaker.Override{Mode: breaker.ForceOpen, Author: fmt.Sprint("op", i)}
			if err := all[i].Force(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		settle(interval)
		for key, err := range mem.Scan(ctx, "plainware/breaker/") {
			if err != nil {
				t.Fatal(err)
			}
			mem.Delete(ctx, key)
		}
		cut.Store(false)
		settle(12 * interval) // whoever looks first brings it back
		for _, b := range everyone {
			if f := b.Stats(); f.Forced == nil || f.Forced.Author != "op2" || f.Fleet.Generation != 5 {
				t.Errorf("%+v", f)
			}
		}
	})
}

// wrong is a store whose clock is off by an hour, and jumps.
type wrong struct {
	*store.Memory
	off atomic.Int64
}

func (w *wrong) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	err := w.Memory.AdvanceBatch(ctx, ops, res)
	for i := range res {
		res[i].Now += w.off.Load()
	}
	return err
}

// breaker 33: no clock but the store's matters for when it ends, whatever it
// shows: processes only measure what is left.
func TestClocks(t *testing.T) {
	for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := &wrong{Memory: newMemory(t)}
			s.off.Store(int64(off))
			all := fleet(t, 4, breaker.Config{Store: s, OpenFor: 30 * time.Second})
			openFleet(t, all)
			first := all[0].Stats().RetryAfter
			for _, b := range append(all, fleet(t, 1, breaker.Config{Store: s})...) {
				if d := b.Stats().RetryAfter - first; d < -time.Millisecond || d > time.Millisecond {
					t.Errorf("ends %v later", d)
				}
			}
			// The store's clock jumps while it is open: nobody computes again.
			s.off.Add(int64(time.Hour))
			settle(first - time.Second)
			if n := states(all); n[breaker.Open] != 4 {
				t.Error(n)
			}
			settle(2 * time.Second)
			if n := states(all); n[breaker.HalfOpen] != 4 {
				t.Error(n)
			}
		})
	}
}

// An operator's decision is everywhere within an interval, ends everywhere at the
// same time, and survives restarts.
func TestForceIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		all := fleet(t, 4, breaker.Config{Store: mem})
		o := breaker.Override{Mode: breaker.ForceOpen, Author: "ann", Reason: "moving", For: time.Minute}
		if err := all[0].Force(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		settle(interval)
		all = append(all, fleet(t, 1, breaker.Config{Store: mem})...)
		for _, b := range all {
			if f := b.Stats().Forced; b.State() != breaker.Open || f == nil || f.Author != "ann" || f.Reason != "moving" {
				t.Errorf("%+v", b.Stats())
			}
		}
		settle(time.Minute - interval)
		if s := states(all); s[breaker.Closed] != 5 {
			t.Error(s)
		}
		// Two at the same time: one is the last, for all.
		var wg sync.WaitGroup
		for i, b := range all {
			wg.Go(func() {
				if err := b.Force(t.Context(), breaker.Override{Mode: breaker.ForceClosed, Author: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		settle(2 * interval)
		for _, b := range all {
			if a, z := b.Stats().Forced, all[0].Stats().Forced; a == nil || z == nil || a.Author != z.Author {
				t.Errorf("%+v, %+v", a, z)
			}
			if n := calls(b, 100, breaker.Failure); n != 100 {
				t.Errorf("%d through", n)
			}
		}
		settle(10 * interval)
		if s := states(all); s[breaker.Closed] != 5 {
			t.Error(s)
		}
	})
	// The store is away: it holds here, and is brought there later.
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		mem := newMemory(t)
		s := storetest.Faulty(mem, func(storetest.Call) storetest.Fault { return storetest.Fault{Stall: down.Load()} })
		b := fleet(t, 1, breaker.Config{Store: s})[0]
		down.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := b.Force(ctx, breaker.Override{Mode: breaker.ForceOpen, Author: "ann"})
		if !errors.Is(err, breaker.ErrNotShared) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		want(t, b, breaker.Open)
		down.Store(false)
		settle(3 * interval)
		want(t, fleet(t, 1, breaker.Config{Store: mem})[0], breaker.Open)
	})
}

// breaker 37: Close brings what was counted to the store, and gives back the
// place of a probe that nobody has come for.
func TestCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		all := fleet(t, 2, breaker.Config{Store: mem})
		settle(2 * interval)
		calls(all[0], 15, breaker.Failure)
		calls(all[1], 1, breaker.Failure)
		all[0].Close()
		all[0].Close()
		settle(interval)
		if f := all[1].Stats().Fleet; f.Calls != 16 || f.Failures != 16 {
			t.Errorf("%+v", f)
		}
		halfOpenFleet(t, all[1:])
		more := fleet(t, 1, breaker.Config{Store: mem})[0]
		want(t, more, breaker.HalfOpen)
		more.Acquire() // asks for a probe
		synctest.Wait()
		more.Close()
		all[1].Acquire()
		synctest.Wait()
		if _, err := all[1].Acquire(); err != nil {
			t.Error(err)
		}
	})
}

// A group has one goroutine and one batch for all, and its members share their
// states with those of other processes.
func TestSharedGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches, rest atomic.Int64
		s := storetest.Faulty(newMemory(t), func(c storetest.Call) storetest.Fault {
			if c.Method == "AdvanceBatch" {
				batches.Add(1)
			} else {
				rest.Add(1)
			}
			return storetest.Fault{}
		})
		var groups []*breaker.Group
		for range 3 {
			groups = append(groups, newGroup(t, breaker.GroupConfig{Config: breaker.Config{Name: "api", Store: s}}))
		}
		for i := range 50 {
			for _, g := range groups {
				calls(g.Get(fmt.Sprint(i)), 1, breaker.Success)
			}
		}
		settle(5 * time.Second)
		n, m := batches.Load(), rest.Load()
		settle(100 * time.Second)
		if n, m = batches.Load()-n, rest.Load()-m; n > 3*125 || m > 3*50*11 {
			t.Errorf("%d batches and %d other calls in 100 s", n, m)
		}
		var sevens []*breaker.Breaker
		for _, g := range groups {
			sevens = append(sevens, g.Get("7"))
		}
		openFleet(t, sevens)
		want(t, groups[1].Get("8"), breaker.Closed)
		late := newGroup(t, breaker.GroupConfig{Config: breaker.Config{Name: "api", Store: s}})
		late.Get("7")
		settle(time.Millisecond)
		want(t, late.Get("7"), breaker.Open)
	})
}

// Probes by function are shared too.
func TestSharedProbeFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		all := fleet(t, 4, breaker.Config{Store: newMemory(t), Probe: func(context.Context) error {
			asked.Add(1)
			time.Sleep(100 * time.Millisecond)
			return nil
		}})
		openFleet(t, all)
		settle(all[0].Stats().RetryAfter + 4*interval)
		if s := states(all); s[breaker.Closed] != 4 {
			t.Error(s)
		}
		// One at a time, until the last has learnt that it is closed.
		if n := asked.Load(); n > 16 {
			t.Errorf("asked %d times", n)
		}
	})
}

// A store without registers of its own does as well.
func TestPlainStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := fleet(t, 3, breaker.Config{Store: fourMethods{newMemory(t)}})
		halfOpenFleet(t, all)
		drive(t, all, 10*time.Second, breaker.Success, func() bool { return states(all)[breaker.Closed] == 3 })
	})
}

type fourMethods struct{ store.Store }

func (f fourMethods) Keep() (store.Store, error) { return f, nil }

// What stands in the place of the record is written over, and does no harm.
func TestGarbageInStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		mem.Put(t.Context(), "plainware/breaker/1/billing", []byte("garbage"), 0)
		all := fleet(t, 2, breaker.Config{Store: mem})
		want(t, all[0], breaker.Closed)
		openFleet(t, all)
		want(t, fleet(t, 1, breaker.Config{Store: mem})[0], breaker.Open)
	})
}

// A store that is down when the process starts is taken up when it is there.
func TestStoreDownAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		first := fleet(t, 1, breaker.Config{Store: mem})[0]
		if err := first.Force(t.Context(), breaker.Override{Mode: breaker.ForceOpen, Author: "ann"}); err != nil {
			t.Fatal(err)
		}
		var up atomic.Bool
		s := storetest.Faulty(mem, func(storetest.Call) storetest.Fault {
			if !up.Load() {
				return storetest.Fault{Before: errors.New("connection refused")}
			}
			return storetest.Fault{}
		})
		b := fleet(t, 1, breaker.Config{Store: s})[0]
		g := newGroup(t, breaker.GroupConfig{Config: breaker.Config{Name: "g", Store: s}})
		calls(g.Get("x"), 10, breaker.Success)
		want(t, b, breaker.Closed)
		up.Store(true)
		settle(2 * interval)
		want(t, b, breaker.Open)
		if !g.Get("x").Stats().Fleet.Synced {
			t.Errorf("%+v", g.Get("x").Stats())
		}
	})
}

// An operator's decision that is overtaken by the next one does not wait for the
// store any longer.
func TestForceOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := storetest.Faulty(newMemory(t), func(storetest.Call) storetest.Fault { return storetest.Fault{Stall: down.Load()} })
		b := fleet(t, 1, breaker.Config{Store: s})[0]
		down.Store(true)
		var wg sync.WaitGroup
		var took time.Duration
		wg.Go(func() {
			start := time.Now()
			if err := b.Force(t.Context(), breaker.Override{Mode: breaker.ForceOpen, Author: "ann"}); err != nil {
				t.Error(err)
			}
			took = time.Since(start)
		})
		time.Sleep(5 * time.Second)
		wg.Go(func() {
			if err := b.Force(t.Context(), breaker.Override{Mode: breaker.ForceClosed, Author: "bob"}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5 * time.Second)
		down.Store(false)
		wg.Wait()
		if took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if f := b.Stats().Forced; f == nil || f.Author != "bob" {
			t.Errorf("%+v", f)
		}
	})
}

// A large group finds its states again step by step, at the start and after an
// outage, on a store that is not fast.
func TestLargeGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		var down atomic.Bool
		s := storetest.Faulty(mem, func(storetest.Call) storetest.Fault {
			if down.Load() {
				return storetest.Fault{Before: errors.New("refused")}
			}
			return storetest.Fault{Delay: 5 * time.Millisecond}
		})
		c := breaker.GroupConfig{Config: breaker.Config{Name: "api", Store: s}}
		g, other := newGroup(t, c), newGroup(t, c)
		for i := range 500 {
			calls(g.Get(fmt.Sprint(i)), 1, breaker.Success)
			other.Get(fmt.Sprint(i))
		}
		settle(20 * time.Second)
		down.Store(true)
		settle(10 * time.Second)
		down.Store(false)
		settle(20 * time.Second)
		err := other.Get("499").Force(t.Context(), breaker.Override{Mode: breaker.ForceOpen, Author: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		settle(3 * interval)
		want(t, g.Get("499"), breaker.Open)
		if !g.Get("0").Stats().Fleet.Synced {
			t.Errorf("%+v", g.Get("0").Stats())
		}
	})
}

// breaker 29: a probe that comes back after its time does not free the place of
// another process's.
func TestLateFleetProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := fleet(t, 2, breaker.Config{Store: newMemory(t)})
		halfOpenFleet(t, all)
		start := func(b *breaker.Breaker) (p breaker.Permit, ok bool) {
			for range 300 {
				if p, err := b.Acquire(); err == nil {
					return p, true
				}
				settle(10 * time.Millisecond)
			}
			return p, false
		}
		first, ok := start(all[0])
		if !ok {
			t.Fatal("no probe")
		}
		if _, ok := start(all[1]); ok {
			t.Fatal("two probes")
		}
		settle(10 * time.Second)
		if _, ok := start(all[1]); !ok {
			t.Fatal("no second probe")
		}
		first.Done(breaker.Ignored)
		if _, ok := start(all[0]); ok {
			t.Error("two probes after the first came back late")
		}
	})
}
