package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
)

func newBreaker(t testing.TB, c breaker.Config) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// calls makes n calls with one outcome, and returns how many were let through.
func calls(b *breaker.Breaker, n int, o breaker.Outcome) (through int) {
	for range n {
		if p, err := b.Acquire(); err == nil {
			p.Done(o)
			through++
		}
	}
	return through
}

func want(t testing.TB, b *breaker.Breaker, s breaker.State) {
	t.Helper()
	if got := b.State(); got != s {
		t.Fatalf("state %v, want %v; %+v", got, s, b.Stats())
	}
}

// trip has b open by failures.
func trip(t testing.TB, b *breaker.Breaker) {
	t.Helper()
	calls(b, 1000, breaker.Failure)
	want(t, b, breaker.Open)
}

// settle waits until what runs beside the test waits too.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestOpensByRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		calls(b, 10, breaker.Success)
		calls(b, 9, breaker.Failure)
		want(t, b, breaker.Closed) // 9 of 19: too few calls
		calls(b, 1, breaker.Failure)
		want(t, b, breaker.Open) // 10 of 20
		_, err := b.Acquire()
		e, ok := errors.AsType[*breaker.OpenError](err)
		if !ok || e.State != breaker.Open || e.Name != "default" || !e.NotSent() || e.HTTPStatus() != 503 || e.Code() != "breaker_open" {
			t.Fatalf("%#v", err)
		}
		if d := e.RetryAfter(); d < 4500*time.Millisecond || d > 5500*time.Millisecond {
			t.Errorf("retry after %v", d)
		}
		time.Sleep(time.Second)
		if d := e.RetryAfter(); d > 4500*time.Millisecond {
			t.Errorf("retry after %v, a second later", d)
		}
		if s := b.Stats(); s.Refused != 1 || s.Openings != 1 || s.Streak != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestOpensByConsecutiveFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Consecutive: 3, FailureRatio: -1})
		for range 50 {
			calls(b, 2, breaker.Failure)
			calls(b, 1, breaker.Success)
		}
		calls(b, 1, breaker.Failure)
		calls(b, 5, breaker.Ignored)
		calls(b, 1, breaker.Failure)
		want(t, b, breaker.Closed)
		calls(b, 1, breaker.Failure)
		want(t, b, breaker.Open)
	})
}

func TestOpensBySlowCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCall: time.Second, SlowRatio: 0.25, MinCalls: 4, Window: time.Minute})
		calls(b, 3, breaker.Success)
		p, err := b.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second - 1)
		p.Done(breaker.Success)
		want(t, b, breaker.Closed)
		p, _ = b.Acquire()
		time.Sleep(time.Second)
		p.Done(breaker.Success)
		want(t, b, breaker.Closed) // 1 of 5
		p, _ = b.Acquire()
		time.Sleep(time.Second)
		p.Done(breaker.Success)
		want(t, b, breaker.Open) // 2 of 6
	})
}

// The window forgets what is older, a tenth at a time.
func TestWindowForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		time.Sleep(500 * time.Millisecond) // into the middle of a part
		for range 100 {
			calls(b, 1, breaker.Failure) // 11 in a window and a bit
			time.Sleep(time.Second)
		}
		want(t, b, breaker.Closed)
		if s := b.Stats(); s.Calls < 9 || s.Calls > 10 {
			t.Errorf("%d calls", s.Calls)
		}
		time.Sleep(10 * time.Second)
		if s := b.Stats(); s.Calls != 0 || s.Failures != 0 {
			t.Errorf("%d calls, %d failures", s.Calls, s.Failures)
		}
	})
}

func TestRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []string
		b := newBreaker(t, breaker.Config{Name: "db", Ramp: -1, OnStateChange: func(c breaker.Change) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprintf("%v-%v", c.From, c.To))
			if c.Name != "db" || c.Reason == "" || c.Fleet || (c.To == breaker.Open) != (c.OpenFor > 0) {
				t.Errorf("%+v", c)
			}
		}})
		trip(t, b)
		settle(5500 * time.Millisecond)
		want(t, b, breaker.HalfOpen)
		if n := calls(b, 2, breaker.Success); n != 2 {
			t.Fatalf("%d probes", n)
		}
		want(t, b, breaker.HalfOpen)
		calls(b, 1, breaker.Success)
		want(t, b, breaker.Closed)
		mu.Lock()
		defer mu.Unlock()
		if got := fmt.Sprint(seen); got != "[closed-open open-half-open half-open-closed]" {
			t.Error(got)
		}
	})
}

// The open time doubles up to the bound, and begins again when the breaker has
// been closed for long.
func TestOpenTimeDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		b := newBreaker(t, breaker.Config{OnStateChange: func(c breaker.Change) {
			if c.To == breaker.Open {
				times = append(times, c.OpenFor)
			}
		}})
		trip(t, b)
		for range 5 {
			settle(b.Stats().RetryAfter)
			want(t, b, breaker.HalfOpen)
			calls(b, 1, breaker.Failure)
			want(t, b, breaker.Open)
		}
		settle(b.Stats().RetryAfter)
		calls(b, 3, breaker.Success)
		want(t, b, breaker.Closed)
		time.Sleep(15 * time.Second) // a ramp and a window
		trip(t, b)
		for i, s := range []time.Duration{5, 10, 20, 40, 60, 60, 5} {
			s *= time.Second
			if d := times[i]; d < s*9/10 || d > s*11/10 {
				t.Errorf("opening %d: %v, want about %v", i, d, s)
			}
		}
	})
}

// breaker 26: what a call has to say that was let through before the state has
// changed never changes it again.
func TestLateResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Ramp: -1})
		var early []breaker.Permit
		for range 100 {
			p, err := b.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			early = append(early, p)
		}
		done := func(n int, o breaker.Outcome) {
			for _, p := range early[:n] {
				p.Done(o)
			}
			early = early[n:]
		}
		trip(t, b)
		done(20, breaker.Success)
		want(t, b, breaker.Open)
		settle(6 * time.Second)
		done(20, breaker.Success)
		want(t, b, breaker.HalfOpen)
		done(20, breaker.Failure)
		want(t, b, breaker.HalfOpen)
		calls(b, 3, breaker.Success)
		want(t, b, breaker.Closed)
		done(40, breaker.Failure)
		want(t, b, breaker.Closed)
		if s := b.Stats(); s.Late != 100 || s.Calls != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// breaker 28, in one process: of 500 callers exactly Probes reach a back end that
// hangs, and one more for each probe timeout.
func TestHangingProbes(t *testing.T) {
	for _, probes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{Probes: probes})
			trip(t, b)
			settle(6 * time.Second)
			through := func() (n int) {
				for range 500 {
					if _, err := b.Acquire(); err == nil {
						n++
					} else if e := err.(*breaker.OpenError); e.State != breaker.HalfOpen || e.RetryAfter() != time.Second {
						t.Fatalf("%#v", e)
					}
				}
				return n
			}
			if n := through(); n != probes {
				t.Errorf("%d of %d at once", n, probes)
			}
			for i := range 5 {
				time.Sleep(10*time.Second - 1)
				if n := through(); n != 0 {
					t.Errorf("%d: %d too early", i, n)
				}
				time.Sleep(time.Nanosecond)
				if n := through(); n != 1 {
					t.Errorf("%d: %d after a timeout", i, n)
				}
			}
			want(t, b, breaker.HalfOpen)
		})
	}
}

// breaker 29: a probe that was cancelled frees its place at once.
func TestCancelledProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		trip(t, b)
		settle(6 * time.Second)
		for range 10 {
			p, err := b.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Acquire(); err == nil {
				t.Fatal("two probes")
			}
			p.Done(breaker.Ignored)
		}
		want(t, b, breaker.HalfOpen)
		// One that comes back after its time does not free another's place.
		p, _ := b.Acquire()
		time.Sleep(10 * time.Second)
		if _, err := b.Acquire(); err != nil {
			t.Fatal(err)
		}
		p.Done(breaker.Ignored)
		if _, err := b.Acquire(); err == nil {
			t.Error("two probes")
		}
	})
}

// breaker 34: with a window that turns under load nothing is lost or counted
// twice.
func TestWindowTurns(t *testing.T) {
	b := newBreaker(t, breaker.Config{Window: 100 * time.Millisecond, MinCalls: 1, FailureRatio: 1, Consecutive: 0})
	// Failures are never all, so it stays closed.
	var wg sync.WaitGroup
	var done atomic.Int64
	stop := time.Now().Add(300 * time.Millisecond)
	for range 4 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				done.Add(int64(calls(b, 10, breaker.Success)))
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(stop) {
			if s := b.Stats(); s.Calls > done.Load()+4*10 {
				t.Errorf("%d calls counted", s.Calls)
			}
		}
	})
	wg.Wait()
	want(t, b, breaker.Closed)
}

// breaker 36: more and more calls are let through, and a failure in the meantime
// opens again, for longer.
func TestRamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Ramp: 10 * time.Second, Window: 100 * time.Second})
		trip(t, b)
		settle(6 * time.Second)
		calls(b, 3, breaker.Success)
		want(t, b, breaker.Closed)
		before := 0
		for second := range 10 {
			n := calls(b, 1000, breaker.Success)
			if ideal := 100 + 90*second; n < before || n < ideal-2 || n > ideal+2 {
				t.Errorf("second %d: %d of 1000, before that %d", second, n, before)
			}
			before = n
			time.Sleep(time.Second)
		}
		if n := calls(b, 1000, breaker.Success); n != 1000 {
			t.Errorf("%d after the ramp", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		trip(t, b)
		settle(6 * time.Second)
		calls(b, 3, breaker.Success)
		time.Sleep(time.Second)
		_, err := b.Acquire()
		for err == nil {
			var p breaker.Permit
			if p, err = b.Acquire(); err == nil {
				p.Done(breaker.Ignored)
			}
		}
		if e := err.(*breaker.OpenError); e.State != breaker.Closed || e.RetryAfter() != time.Second {
			t.Errorf("%#v", e)
		}
		for calls(b, 1, breaker.Failure) == 0 {
		}
		want(t, b, breaker.Open)
		if d := b.Stats().RetryAfter; d < 9*time.Second || d > 11*time.Second {
			t.Errorf("open for %v", d)
		}
	})
}

// breaker 37: Close ends what runs, and twice is safe. A bubble fails if
// something is left.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		trip(t, b)
		settle(6 * time.Second)
		want(t, b, breaker.HalfOpen)
		for range 2 {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		want(t, b, breaker.HalfOpen)
	})
}

func TestProbeFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var asked atomic.Int64
		b := newBreaker(t, breaker.Config{Probe: func(context.Context) error {
			asked.Add(1)
			if !up.Load() {
				return errors.New("down")
			}
			return nil
		}})
		trip(t, b)
		settle(6 * time.Second)
		want(t, b, breaker.Open) // again
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		up.Store(true)
		settle(11 * time.Second)
		want(t, b, breaker.Closed)
		if n := asked.Load(); n != 4 {
			t.Errorf("asked %d times", n)
		}
	})
	// One that hangs is a failure when its time has passed.
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		defer close(stop)
		b := newBreaker(t, breaker.Config{Probe: func(context.Context) error { <-stop; return nil }})
		trip(t, b)
		settle(6 * time.Second)
		want(t, b, breaker.HalfOpen)
		if n := calls(b, 10, breaker.Success); n != 0 {
			t.Errorf("%d callers let through", n)
		}
		settle(10 * time.Second)
		want(t, b, breaker.Open)
	})
}

// The goroutine that calls Config.Probe does not run ahead of the change: it once
// called it again and again until the change had been made.
func TestProbeOnceEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		b := newBreaker(t, breaker.Config{OpenFor: time.Second, MaxOpen: time.Second, Probe: func(context.Context) error {
			asked.Add(1)
			return errors.New("down")
		}})
		trip(t, b)
		for n := range int64(3000) {
			before := asked.Load()
			if time.Sleep(time.Second); asked.Load() > before+2 { // openings last 0.9 to 1.1 s
				t.Fatalf("opening %d: asked %d times", n, asked.Load()-before)
			}
		}
	})
}

func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var change atomic.Pointer[breaker.Change]
		b := newBreaker(t, breaker.Config{OnStateChange: func(c breaker.Change) { change.Store(&c) }})
		err := b.Force(t.Context(), breaker.Override{Mode: breaker.ForceOpen, Author: "ann", Reason: "moving", For: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		last := change.Load()
		if n := calls(b, 10, breaker.Success); n != 0 || last.Author != "ann" || last.Reason != "moving" || last.OpenFor != time.Minute {
			t.Errorf("%d through, %+v", n, last)
		}
		settle(time.Minute - 1)
		want(t, b, breaker.Open)
		settle(1)
		want(t, b, breaker.Closed)
		if b.Stats().Forced != nil {
			t.Errorf("%+v", b.Stats())
		}
		if err := b.Force(t.Context(), breaker.Override{Mode: breaker.ForceClosed, Author: "bob"}); err != nil {
			t.Fatal(err)
		}
		if n := calls(b, 1000, breaker.Failure); n != 1000 {
			t.Errorf("%d through", n)
		}
		if f := b.Stats().Forced; f == nil || f.Author != "bob" || f.Mode != breaker.ForceClosed {
			t.Errorf("%+v", f)
		}
		if err := b.Force(t.Context(), breaker.Override{}); err != nil {
			t.Fatal(err)
		}
		trip(t, b)
	})
	b := newBreaker(t, breaker.Config{})
	for _, o := range []breaker.Override{
		{Mode: 3, Author: "x"}, {Mode: breaker.ForceOpen}, {Mode: breaker.ForceOpen, Author: string(make([]byte, 513))},
		{Author: "x", Reason: string(make([]byte, 513))}, {Author: "x", For: -1}, {Author: "x", For: 366 * 24 * time.Hour},
	} {
		if b.Force(t.Context(), o) == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// A hook that panics does not keep later changes from being told.
func TestHookPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		b := newBreaker(t, breaker.Config{OnStateChange: func(c breaker.Change) {
			if n++; n == 1 {
				panic("hook")
			}
		}})
		func() {
			defer func() { recover() }()
			calls(b, 100, breaker.Failure)
		}()
		want(t, b, breaker.Open)
		settle(6 * time.Second)
		if n != 2 {
			t.Errorf("told %d times", n)
		}
	})
}

func TestAllocations(t *testing.T) {
	closed := newBreaker(t, breaker.Config{})
	open := newBreaker(t, breaker.Config{})
	open.Force(t.Context(), breaker.Override{Mode: breaker.ForceOpen, Author: "test"})
	ramp := newBreaker(t, breaker.Config{SlowCall: time.Second})
	for name, f := range map[string]func(){
		"success": func() { calls(closed, 1, breaker.Success) },
		"open":    func() { calls(open, 1, breaker.Success) },
		"slow":    func() { calls(ramp, 1, breaker.Success) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestStrings(t *testing.T) {
	got := fmt.Sprint(breaker.Closed, breaker.Open, breaker.HalfOpen, breaker.State(7),
		breaker.Success, breaker.Failure, breaker.Ignored, breaker.Outcome(7),
		breaker.Auto, breaker.ForceOpen, breaker.ForceClosed, breaker.Mode(7))
	if got != "closed open half-open State(7) Success Failure Ignored Outcome(7) Auto ForceOpen ForceClosed Mode(7)" {
		t.Error(got)
	}
	var zero breaker.Permit
	zero.Done(breaker.Failure) // of a refused call: nothing
}
