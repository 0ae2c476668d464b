package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// excess returns by how much the busiest window of any length exceeds what a
// bucket of burst that gets one more each interval may grant in it, its ends
// included; 0 if none does. Admissions are ns and are sorted here.
//
// It is enough to look at windows that begin and end with an admission. The
// bound of the one from i to j is j-i+1 <= burst + (at[j]-at[i])/interval, so
// the largest of at[i] - i*interval so far decides for each j.
func excess(at []int64, burst, interval int64) int64 {
	slices.Sort(at)
	var worst, largest int64
	for j, t := range at {
		f := t - int64(j)*interval
		if j == 0 || f > largest {
			largest = f
		}
		// The number of intervals that are missing, rounded up.
		if over := largest - f - (burst-1)*interval; over > 0 {
			worst = max(worst, (over+interval-1)/interval)
		}
	}
	return worst
}

func TestExcess(t *testing.T) {
	for _, c := range []struct {
		at   []int64
		want int64
	}{
		{nil, 0},
		{[]int64{5, 5, 5}, 0},
		{[]int64{5, 5, 5, 5}, 1},
		{[]int64{0, 0, 0, 10, 20, 30}, 0},
		{[]int64{0, 0, 0, 9}, 1},
		{[]int64{0, 0, 0, 10, 19}, 1},
		{[]int64{0, 100, 100, 100, 109}, 1},
		{[]int64{50, 40, 30, 20, 10, 0, 0, 0}, 0},
	} {
		if got := excess(c.at, 3, 10); got != c.want {
			t.Errorf("%v: %d, want %d", c.at, got, c.want)
		}
	}
}

// process is what a limiter with leases is to its store.
type process struct {
	g  *guard
	l  *leases
	op store.Op

	mu   sync.Mutex
	when []int64 // of the admissions
	n    int     // requests
}

// newProcess returns a process that shares s with others, under a limit of burst
// and one more each interval.
func newProcess(t testing.TB, s store.Store, burst int64, interval, life time.Duration) *process {
	t.Helper()
	p := &process{op: bucket("hot", burst, interval)}
	var on bool
	if p.op.Ceil, on = leaseCeil(p.op.Ceil, p.op.Step, life); !on {
		t.Fatalf("no leasing with a burst of %d", burst)
	}
	p.g = mustGuard(t, guardConfig{Store: s, Mode: Deny})
	p.l = newLeases(p.g, p.op.Step, life)
	return p
}

// request asks for one token, and notes when it was admitted. What the store
// decides it has decided by its own clock, which is the bubble's.
func (p *process) request(t testing.TB, ctx context.Context) bool {
	at, ok := p.ask(t, ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; ok {
		p.when = append(p.when, at)
	}
	return ok
}

func (p *process) ask(t testing.TB, ctx context.Context) (at int64, ok bool) {
	got, err := p.l.take(ctx, &p.op, 1)
	if err != nil {
		t.Error(err)
		return 0, false
	}
	switch {
	case got.degraded || got.how == exhausted:
		return 0, false
	case got.how == leased && got.ends != 0:
		return time.Now().UnixNano(), true
	case got.how == leased: // a reply that came late, to this request alone
		return p.state().result.Now, true
	}
	res := make([]store.Result, 1)
	applied, degraded, err := p.g.advance(ctx, []store.Op{p.op}, res)
	if err != nil {
		t.Error(err)
	}
	return res[0].Now, applied && !degraded
}

// entry returns what is known of the key, for tests that are alone with it.
func (p *process) entry() *lease {
	h := p.l.names.of(p.op.Space, p.op.Key)
	s := &p.l.sets[h%leaseSets]
	for i := range s.entries {
		if s.entries[i].hash == h {
			return &s.entries[i]
		}
	}
	return nil
}

// state is a copy of that.
func (p *process) state() lease {
	s := &p.l.sets[p.l.names.of(p.op.Space, p.op.Key)%leaseSets]
	s.mu.Lock()
	defer s.mu.Unlock()
	return *p.entry()
}

// ratelimit 13: eight processes that lease from one store and ask for more than
// there is, in bursts and pauses, admit no more than the bound in any window, and
// nearly all of it, with a small part of the calls.
func TestLeaseBound(t *testing.T) {
	const (
		processes = 8
		burst     = 1000
		interval  = 200 * time.Microsecond
		life      = 20 * time.Millisecond
		length    = 2 * time.Second
	)
	for _, saturated := range []bool{true, false} {
		t.Run(fmt.Sprintf("saturated=%v", saturated), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFaults(t)
				f.set(storetest.Fault{Late: 200 * time.Microsecond})
				var ps []*process
				var wg sync.WaitGroup
				begin := time.Now()
				for i := range processes {
					p := newProcess(t, f.store, burst, interval, life)
					ps = append(ps, p)
					rng := rand.New(rand.NewPCG(uint64(i), 13))
					wg.Go(func() {
						for time.Since(begin) < length {
							p.request(t, t.Context())
							d := 100 * time.Microsecond
							if !saturated && rng.IntN(500) == 0 { // an adversary lets tokens pool up
								d = time.Duration(rng.Int64N(int64(200 * time.Millisecond)))
							}
							time.Sleep(time.Duration(rng.Int64N(int64(d)) + 1))
						}
					})
				}
				wg.Wait()
				var all []int64
				requests := 0
				for _, p := range ps {
					all = append(all, p.when...)
					requests += p.n
				}
				bound := burst + int64(length/interval)
				if over := excess(all, burst, int64(interval)); over > 0 {
					t.Errorf("some window has %d admissions too many", over)
				}
				calls := f.calls.Load()
				t.Logf("%d requests, %d admitted of %d, %d calls", requests, len(all), bound, calls)
				if saturated && int64(len(all)) < bound*93/100 {
					t.Errorf("admitted %d of %d", len(all), bound)
				}
				if saturated && calls > int64(requests)*3/100 {
					t.Errorf("%d calls for %d requests", calls, requests)
				}
			})
		})
	}
}

// ratelimit 13: the bound is kept when processes die with tokens in hand, when
// replies come after the lease has ended, when they are lost and when the store
// stalls.
func TestLeaseBoundWithTrouble(t *testing.T) {
	const (
		burst    = 120
		interval = time.Millisecond
		life     = 20 * time.Millisecond
	)
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			mem := newMemory(t)
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(seed, 14))
			late := 0
			s := storetest.Faulty(mem, func(storetest.Call) (f storetest.Fault) {
				mu.Lock()
				defer mu.Unlock()
				switch rng.IntN(12) {
				case 0:
					f.Late = life + time.Duration(rng.Int64N(int64(4*time.Millisecond))) // within the budget
					late++
				case 1:
					f.Late = time.Duration(rng.Int64N(int64(life)))
				case 2:
					f.Delay = time.Duration(rng.Int64N(int64(life)))
				case 3:
					f.After = errDown
				case 4:
					f.Stall = rng.IntN(10) == 0
				}
				return f
			})
			var all []int64
			var wg sync.WaitGroup
			begin := time.Now()
			for i := range 8 {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				wg.Go(func() {
					// Each of three processes, one after the other, dies
					// without giving anything back.
					for range 3 {
						p := newProcess(t, s, burst, interval, life)
						for until := time.Since(begin) + time.Second; time.Since(begin) < until; {
							p.request(t, t.Context())
							time.Sleep(time.Duration(rng.ExpFloat64() * float64(2*time.Millisecond)))
						}
						mu.Lock()
						all = append(all, p.when...)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if over := excess(all, burst, int64(interval)); over > 0 {
				t.Errorf("seed %d: some window has %d admissions too many", seed, over)
			}
			if late == 0 || len(all) < 500 {
				t.Errorf("seed %d: %d late replies, %d admissions", seed, late, len(all))
			}
		})
	}
}

// newHot returns a process whose key is worth leasing, and that holds tokens.
func newHot(t testing.TB, f *faults, burst int64, interval, life time.Duration) *process {
	t.Helper()
	p := newProcess(t, f.store, burst, interval, life)
	for range 10 {
		if !p.request(t, t.Context()) {
			t.Fatal("refused")
		}
	}
	for n := 0; p.entry().tokens == 0; n++ {
		if p.request(t, t.Context()); n > 1000 {
			t.Fatal("never leased")
		}
	}
	return p
}

// ratelimit 14: tokens end by the time that passes while nobody looks.
func TestLeaseExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 20 * time.Millisecond
		f := newFaults(t)
		p := newHot(t, f, 1000, time.Millisecond, life)
		calls := f.calls.Load()
		time.Sleep(life - 1)
		p.request(t, t.Context())
		if n := f.calls.Load(); n != calls {
			t.Errorf("%d calls within the lease time", n-calls)
		}
		time.Sleep(time.Nanosecond)
		p.request(t, t.Context())
		if n := f.calls.Load(); n != calls+1 {
			t.Errorf("%d calls when it has ended, want 1", n-calls)
		}
	})
}

// ratelimit 14: where the monotonic clock stands still while the machine is
// suspended, the wall clock does not.
func TestLeaseExpiresByWallClock(t *testing.T) {
	e := &lease{tokens: 5, ends: 1000, wall: 50_000}
	for _, c := range []struct {
		mono, wall int64
		want       bool
	}{
		{999, 49_999, false},
		{1000, 49_999, true},
		{500, 50_000, true}, // woken up
		{500, 10_000, false},
	} {
		if got := e.expired(c.mono, c.wall); got != c.want {
			t.Errorf("at %d and %d: %v", c.mono, c.wall, got)
		}
	}
}

// A key that few ask for is not leased: its requests are the store's.
func TestLeaseColdKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		p := newProcess(t, f.store, 1000, time.Millisecond, 20*time.Millisecond)
		for range 200 {
			p.request(t, t.Context())
			time.Sleep(10 * time.Millisecond)
		}
		if n := f.calls.Load(); n != 200 {
			t.Errorf("%d calls for 200 requests", n)
		}
		if n := f.taken(t, p.op); n > 1 {
			t.Errorf("%d taken", n)
		}
	})
}

// Requests that come at once wait for one call of the store, and are answered by
// it, or all without it.
func TestLeaseTogether(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprintf("down=%v", down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const life = 20 * time.Millisecond
				f := newFaults(t)
				p := newHot(t, f, 1000, time.Millisecond, life)
				time.Sleep(life)
				p.entry().want = 20
				f.set(storetest.Fault{Late: 5 * time.Millisecond})
				if down {
					f.set(storetest.Fault{Stall: true})
				}
				calls := f.calls.Load()
				var wg sync.WaitGroup
				var mu sync.Mutex
				got := map[leasing]int{}
				for range 15 {
					wg.Go(func() {
						start := time.Now()
						a, err := p.l.take(t.Context(), &p.op, 1)
						if took := time.Since(start); err != nil || a.degraded != down || took > 25*time.Millisecond {
							t.Errorf("took %v, degraded %v, %v", took, a.degraded, err)
						}
						mu.Lock()
						got[a.how]++
						mu.Unlock()
					})
				}
				wg.Wait()
				if n := f.calls.Load() - calls; n != 1 {
					t.Errorf("%d calls, want 1", n)
				}
				want := map[bool]leasing{false: leased, true: exhausted}[down]
				if got[want] != 15 {
					t.Errorf("got %v, want all %d", got, want)
				}
			})
		})
	}
}

// The caller that asks the store for the others may leave. Another asks again,
// and what was granted is given back.
func TestLeaseCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 20 * time.Minute
		f := newFaults(t)
		p := newHot(t, f, 1000, time.Minute, life)
		time.Sleep(life)
		if n := f.taken(t, p.op); n != 0 {
			t.Fatalf("%d are taken", n)
		}
		f.set(storetest.Fault{Late: 5 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			if _, err := p.l.take(ctx, &p.op, 1); !errors.Is(err, context.Canceled) || time.Since(start) != time.Millisecond {
				t.Errorf("took %v, %v", time.Since(start), err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if a, err := p.l.take(t.Context(), &p.op, 1); a.how != leased || err != nil {
				t.Errorf("the other got %v, %v", a.how, err)
			}
		})
		wg.Wait()
		time.Sleep(time.Second)
		if n, has := f.taken(t, p.op), p.entry().tokens; n != has+1 {
			t.Errorf("%d taken, want the one that was spent and %d", n, has)
		}
	})
}

// A store that is farther away than the lease lasts is asked for each request,
// after what that has cost once.
func TestLeaseSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		p := newProcess(t, f.store, 1000, time.Millisecond, 5*time.Millisecond)
		f.set(storetest.Fault{Late: 8 * time.Millisecond})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if !p.request(t, t.Context()) {
					t.Error("refused")
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		if n := f.taken(t, p.op); n > 20 {
			t.Errorf("%d are still taken", n)
		}
	})
}

// Tokens that another policy made useless are as good as new, until their lease
// ends.
func TestLeaseBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 20 * time.Millisecond
		f := newFaults(t)
		p := newHot(t, f, 1000, time.Millisecond, life)
		had := p.entry().tokens
		a, err := p.l.take(t.Context(), &p.op, 1)
		if err != nil || a.how != leased || p.entry().tokens != had-1 {
			t.Fatalf("%+v, %v", a, err)
		}
		p.l.back(&p.op, 1, a.ends)
		if n := p.entry().tokens; n != had {
			t.Errorf("%d tokens, want %d", n, had)
		}
		p.l.back(&p.op, 1, a.ends-1)
		p.l.back(&p.op, 1, 0)
		if n := p.entry().tokens; n != had {
			t.Errorf("%d tokens of other leases, want %d", n, had)
		}
		p.l.drop(p.op.Space, p.op.Key)
		p.l.back(&p.op, 1, a.ends)
		if n := p.entry().tokens; n != 0 {
			t.Errorf("%d tokens after a reset", n)
		}
	})
}

// A request for several tokens gets all or none, and none are wasted on it.
func TestLeaseCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		p := newProcess(t, f.store, 100, time.Hour, 20*time.Hour)
		op := p.op
		op.Min, op.Max = 7, 7
		granted := int64(0)
		for range 40 {
			a, err := p.l.take(t.Context(), &op, 7)
			if err != nil {
				t.Fatal(err)
			}
			if a.how == notLeased {
				res := make([]store.Result, 1)
				applied, _, err := p.g.advance(t.Context(), []store.Op{op}, res)
				if err != nil {
					t.Fatal(err)
				}
				if applied {
					granted += 7
				}
			} else if a.how == leased {
				if a.res.Granted != 7 {
					t.Errorf("granted %d", a.res.Granted)
				}
				granted += 7
			}
			time.Sleep(time.Minute)
		}
		// The register has a burst of 80, and one more each hour.
		if granted < 70 || granted > 80 {
			t.Errorf("granted %d", granted)
		}
	})
}

// What a lease says of its register is what the register would say, and a refusal
// names no instant before the one at which the store will be asked again.
func TestLeaseEstimate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 20 * time.Millisecond
		f := newFaults(t)
		p := newHot(t, f, 100, time.Millisecond, life)
		last := int64(-1)
		for range 1000 {
			a, err := p.l.take(t.Context(), &p.op, 1)
			if err != nil {
				t.Fatal(err)
			}
			if a.how == leased {
				if a.res.Value <= last || a.res.Now != time.Now().UnixNano() || a.res.Expires != a.res.Value-a.res.Now {
					t.Errorf("after %d: %+v", last, a.res)
				}
				last = a.res.Value
				continue
			}
			if a.how != exhausted || a.res.Granted != 0 {
				t.Fatalf("%+v", a)
			}
			retry := a.res.Value + p.op.Step - (a.res.Now + p.op.Ceil)
			if retry <= 0 || retry > int64(life) {
				t.Errorf("retry after %v", time.Duration(retry))
			}
			calls := f.calls.Load()
			time.Sleep(time.Duration(retry - 1))
			if a, _ := p.l.take(t.Context(), &p.op, 1); a.how != exhausted || f.calls.Load() != calls {
				t.Errorf("asked before the time")
			}
			time.Sleep(time.Nanosecond)
			if a, _ := p.l.take(t.Context(), &p.op, 1); a.how != leased {
				t.Errorf("refused at the time: %+v", a)
			}
			return
		}
		t.Error("never exhausted")
	})
}

// A flood of keys that are asked for once does not push out those that are
// leased.
func TestLeaseFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(t)
		p := newHot(t, f, 1000, time.Millisecond, 20*time.Millisecond)
		op := p.op
		for i := range 20 * leaseWays * leaseSets {
			op.Key = fmt.Sprint(i)
			if a, err := p.l.take(t.Context(), &op, 1); a.how != notLeased || err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		if e := p.entry(); e == nil || e.tokens == 0 {
			t.Error("the hot key is gone")
		}
	})
}

// Leasing is off where it would take half of the burst, or no two tokens.
func TestLeaseCeil(t *testing.T) {
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		burst, interval int64
		life            time.Duration
		want            int64
		on              bool
	}{
		{100, ms, 20 * time.Millisecond, 80 * ms, true},
		{41, ms, 20 * time.Millisecond, 21 * ms, true},
		{40, ms, 20 * time.Millisecond, 40 * ms, false},
		{41, ms, 20*time.Millisecond + 1, 41 * ms, false},
		{100, ms, 0, 100 * ms, false},
		{100, ms, -1, 100 * ms, false},
		{1000, 10 * ms, 20 * time.Millisecond, 9_980 * ms, true},
		{1000, 11 * ms, 20 * time.Millisecond, 11_000 * ms, false},
	} {
		if got, on := leaseCeil(c.burst*c.interval, c.interval, c.life); got != c.want || on != c.on {
			t.Errorf("burst %d, life %v: %v %v", c.burst, c.life, time.Duration(got), on)
		}
	}
}

func TestLeaseAllocs(t *testing.T) {
	f := newFaults(t)
	p := newProcess(t, f.store, 1<<20, time.Millisecond, time.Minute)
	p.l.most = 1 << 19
	for range 5 {
		p.request(t, t.Context())
	}
	p.entry().want = 1 << 19
	for p.entry().tokens < 1000 {
		p.request(t, t.Context())
	}
	ctx := t.Context()
	if a := testing.AllocsPerRun(500, func() { p.l.take(ctx, &p.op, 1) }); a != 0 {
		t.Errorf("%v allocations with tokens", a)
	}
	cold := p.op
	cold.Key = "cold"
	if a := testing.AllocsPerRun(1, func() { p.l.take(ctx, &cold, 1) }); a != 0 {
		t.Errorf("%v allocations for a cold key", a)
	}
}

func BenchmarkLease(b *testing.B) {
	f := newFaults(b)
	p := newProcess(b, f.store, 1<<40, 10*time.Nanosecond, 20*time.Millisecond)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.l.take(ctx, &p.op, 1)
		}
	})
	b.ReportMetric(float64(f.calls.Load())/float64(b.N), "calls/op")
}
