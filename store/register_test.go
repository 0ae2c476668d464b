package store_test

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
)

const (
	maxCount = int64(store.MaxCount)
	second   = int64(time.Second)
)

// bucket is the operation of a token bucket: burst tokens, one more every
// interval ns, n of them taken.
func bucket(key string, interval, burst, n int64) store.Op {
	return store.Op{Space: "bucket", Key: key, Clock: true, Ceil: burst * interval, Step: interval, Min: n, Max: n}
}

// register is a register under a clock that the test sets.
type register struct {
	now, stored int64
	live        bool
}

func (g *register) do(op store.Op) store.Result {
	r, save := op.Apply(g.now, g.stored, g.live, true)
	if save {
		g.stored, g.live = r.Value, true
	}
	return r
}

// store 22: numbers that no backend could compute exactly are refused, and
// their neighbours are not.
func TestCheckBounds(t *testing.T) {
	ok := store.Op{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1}
	with := func(f func(*store.Op)) store.Op { op := ok; f(&op); return op }
	for _, c := range []struct {
		name string
		op   store.Op
		want string // in the error, "" for none
	}{
		{"plain", ok, ""},
		{"zero", store.Op{Space: "s", Key: "k"}, ""},
		{"Min above Max", with(func(o *store.Op) { o.Min = 2 }), "Max must not be below Min, 2 (got 1)"},
		{"negative Min", with(func(o *store.Op) { o.Min = -1 }), "Min must not be negative (got -1)"},
		{"negative Max", with(func(o *store.Op) { o.Min, o.Max = 0, -1 }), "Max must not be below Min"},
		{"negative Step", with(func(o *store.Op) { o.Step = -1 }), ""},
		{"no Step", with(func(o *store.Op) { o.Step = 0 }), ""},
		{"Ceil below Floor", with(func(o *store.Op) { o.Ceil, o.Floor = -5, 5 }), ""},
		{"largest Ceil", with(func(o *store.Op) { o.Ceil = maxCount - 1 }), ""},
		{"Ceil", with(func(o *store.Op) { o.Ceil = maxCount }), "Ceil must be below 2^53 (got 9007199254740992)"},
		{"smallest Ceil", with(func(o *store.Op) { o.Ceil = 1 - maxCount }), ""},
		{"low Ceil", with(func(o *store.Op) { o.Ceil = -maxCount }), "Ceil must be below"},
		{"least Ceil", with(func(o *store.Op) { o.Ceil = math.MinInt64 }), "Ceil must be below"},
		{"smallest Floor", with(func(o *store.Op) { o.Floor, o.Ceil = 1-maxCount, 0 }), ""},
		{"low Floor", with(func(o *store.Op) { o.Floor = -maxCount }), "Floor must be below"},
		{"least Floor", with(func(o *store.Op) { o.Floor = math.MinInt64 }), "Floor must be below"},
		{"high Floor", with(func(o *store.Op) { o.Floor = maxCount }), "Floor must be below"},
		{"distance", with(func(o *store.Op) { o.Floor, o.Ceil = -1, maxCount-1 }), "Ceil must be less than 2^53 above Floor, -1"},
		{"largest Over", with(func(o *store.Op) { o.Over = maxCount - 1 }), ""},
		{"Over", with(func(o *store.Op) { o.Over = maxCount }), "Over must be between 0 and 2^53"},
		{"negative Over", with(func(o *store.Op) { o.Over = -1 }), "Over must be"},
		{"largest Max", with(func(o *store.Op) { o.Max = maxCount - 1 }), ""},
		{"Max", with(func(o *store.Op) { o.Max = maxCount }), "Max times Step must be below 2^53"},
		{"Max without Step", with(func(o *store.Op) { o.Step, o.Max = 0, maxCount }), "Max times Step"},
		{"product", with(func(o *store.Op) { o.Step, o.Max = 1<<27, 1<<26 }), "Max times Step"},
		{"product below", with(func(o *store.Op) { o.Step, o.Max = 1<<27, 1<<26-1 }), ""},
		{"product back", with(func(o *store.Op) { o.Step, o.Max = -1<<27, 1<<26 }), "Max times Step"},
		{"product beyond 64 bits", with(func(o *store.Op) { o.Step, o.Max = 1<<52, 1<<52 }), "Max times Step"},
		{"least Step", with(func(o *store.Op) { o.Step = math.MinInt64 }), "Max times Step"},
		{"TTL", with(func(o *store.Op) { o.TTL = time.Hour }), ""},
		{"negative TTL", with(func(o *store.Op) { o.TTL = -1 }), "TTL must not be negative"},
		{"clock", with(func(o *store.Op) { o.Clock = true }), ""},
		{"clock with TTL", with(func(o *store.Op) { o.Clock, o.TTL = true, 1 }), "zero with Clock (got 1ns)"},
	} {
		err := c.op.Check()
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, store.ErrOp) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// store 23: the names of registers are bounded, and no error tells them.
func TestCheckKeys(t *testing.T) {
	long := strings.Repeat("k", 10_000)
	for _, c := range []struct {
		name, space, key string
		ok               bool
	}{
		{"plain", "s", "k", true},
		{"longest", "s", strings.Repeat("k", store.MaxKey-1), true},
		{"together too long", "ss", strings.Repeat("k", store.MaxKey-1), false},
		{"10 kB", "s", long, false},
		{"10 kB of space", long, "k", false},
		{"no space", "", "secret", false},
		{"no key", "secret", "", false},
		{"zero byte", "s", "sec\x00ret", false},
		{"zero byte in space", "sec\x00ret", "k", false},
		{"no UTF-8", "s", "secret\xff", false},
		{"half a rune", "s", "secret\xe2\x82", false},
		{"awkward", "a b\n{c}\"'%", "€:/?#\x7f\x01", true},
	} {
		op := store.Op{Space: c.space, Key: c.key}
		err := op.Check()
		if (err == nil) != c.ok || err != nil && !errors.Is(err, store.ErrKey) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (len(err.Error()) > 200 || strings.Contains(err.Error(), "sec")) {
			t.Errorf("%s: the error tells the key: %v", c.name, err)
		}
	}
}

// Every branch of the definition.
func TestApply(t *testing.T) {
	const now = 1_700_000_000 * int64(1e9)
	const none = math.MinInt64 // the register is absent
	clock := func(op store.Op) store.Op { op.Clock = true; return op }
	for _, c := range []struct {
		name    string
		op      store.Op
		stored  int64 // with Clock relative to now
		noHeal  bool
		value   int64 // with Clock relative to now
		granted int64
		expires int64
		save    bool
	}{
		{"count: absent is Floor", store.Op{Floor: 3, Ceil: 10, Step: 2, Min: 1, Max: 1}, none, false, 5, 1, 0, true},
		{"count: read of absent", store.Op{Floor: 3, Ceil: 10, Step: 2}, none, false, 3, 0, 0, false},
		{"count: read", store.Op{Ceil: 10, Step: 2}, 7, false, 7, 0, 0, false},
		{"count: below Floor", store.Op{Floor: 3, Ceil: 10, Step: 2, Min: 1, Max: 1}, -4, false, 5, 1, 0, true},
		{"count: to the brim", store.Op{Ceil: 10, Step: 5, Min: 1, Max: 1}, 5, false, 10, 1, 0, true},
		{"count: one over", store.Op{Ceil: 10, Step: 5, Min: 1, Max: 1}, 6, false, 6, 0, 0, false},
		{"count: part of it", store.Op{Ceil: 10, Step: 3, Min: 1, Max: 5}, 0, false, 9, 3, 0, true},
		{"count: part too small", store.Op{Ceil: 10, Step: 3, Min: 4, Max: 5}, 0, false, 0, 0, 0, false},
		{"count: none of Min 0", store.Op{Ceil: 10, Step: 3, Max: 5}, 9, false, 9, 0, 0, false},
		{"count: above Ceil", store.Op{Ceil: 10, Step: 1, Min: 1, Max: 1}, 50, false, 50, 0, 0, false},
		{"count: never healed", store.Op{Ceil: 10, Step: 1, Max: 1}, maxCount - 1, false, maxCount - 1, 0, 0, false},
		{"count: back", store.Op{Ceil: 10, Step: -2, Min: 2, Max: 2}, 9, false, 5, 2, 0, true},
		{"count: back from above Ceil", store.Op{Ceil: 10, Step: -2, Min: 2, Max: 2}, 90, false, 86, 2, 0, true},
		{"count: back to Floor", store.Op{Floor: 1, Ceil: 10, Step: -2, Min: 2, Max: 2}, 3, false, 1, 2, 0, true},
		{"count: no step", store.Op{Ceil: 10, Min: 3, Max: 4}, 99, false, 99, 4, 0, true},
		{"count: Ceil below Floor", store.Op{Floor: 5, Ceil: 3, Step: 1, Max: 1}, none, false, 5, 0, 0, false},
		{"count: largest", store.Op{Ceil: maxCount - 1, Step: 1, Min: maxCount - 1, Max: maxCount - 1}, none, false, maxCount - 1, maxCount - 1, 0, true},
		{"count: from the least", store.Op{Floor: 1 - maxCount, Step: 1, Max: maxCount - 1}, none, false, 0, maxCount - 1, 0, true},

		{"clock: absent is now", clock(store.Op{Ceil: 10, Step: 2, Min: 1, Max: 1}), none, false, 2, 1, 2, true},
		{"clock: past is now", clock(store.Op{Ceil: 10, Step: 2, Min: 1, Max: 1}), -5, false, 2, 1, 2, true},
		{"clock: read of absent", clock(store.Op{Ceil: 10, Step: 2}), none, false, 0, 0, 0, false},
		{"clock: read", clock(store.Op{Ceil: 10, Step: 2}), 7, false, 7, 0, 7, false},
		{"clock: read of the past", clock(store.Op{Ceil: 10, Step: 2}), -7, false, 0, 0, 0, false},
		{"clock: refused", clock(store.Op{Ceil: 10, Step: 2, Min: 1, Max: 1}), 9, false, 9, 0, 9, false},
		{"clock: Floor in the past", clock(store.Op{Floor: -4, Ceil: 10, Step: 2, Max: 99}), -9, false, 10, 7, 14, true},
		{"clock: back", clock(store.Op{Ceil: 10, Step: -3, Min: 2, Max: 2}), 8, false, 2, 2, 2, true},
		{"clock: back to Floor", clock(store.Op{Ceil: 10, Step: -3, Min: 2, Max: 2}), 5, false, 0, 2, 0, true},
		{"clock: debt", clock(store.Op{Ceil: 10, Over: 5 * second, Step: 2, Min: 1, Max: 1}), 5*second + 10, false, 5*second + 10, 0, 5*second + 10, false},
		{"clock: within the slack", clock(store.Op{Ceil: 10, Step: 2, Min: 1, Max: 1}), second + 10, false, second + 10, 0, second + 10, false},
		{"clock: healed", clock(store.Op{Ceil: 10, Step: 2, Min: 1, Max: 1}), second + 11, false, 10, 0, 10, true},
		{"clock: healed by a read", clock(store.Op{Ceil: 10, Step: 2}), second + 11, false, 10, 0, 10, true},
		{"clock: healed with debt", clock(store.Op{Ceil: 10, Over: 20, Step: 2}), second + 31, false, 10, 0, 10, true},
		{"clock: healed and back", clock(store.Op{Ceil: 10, Step: -2, Min: 1, Max: 1}), second + 11, false, 8, 1, 8, true},
		{"clock: not to be healed", clock(store.Op{Ceil: 10, Step: 2, Min: 1, Max: 1}), second + 11, true, second + 11, 0, second + 11, false},
		{"clock: farthest", clock(store.Op{Ceil: maxCount - 1, Step: 1, Max: maxCount - 1}), none, false, maxCount - 1, maxCount - 1, maxCount - 1, true},
	} {
		c.op.Space, c.op.Key = "s", "k"
		if err := c.op.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		live, stored, value := c.stored != none, c.stored, c.value
		if c.op.Clock {
			stored, value = stored+now, value+now
		}
		if !live {
			stored = 1e18 // must not be looked at
		}
		r, save := c.op.Apply(now, stored, live, !c.noHeal)
		want := store.Result{Value: value, Granted: c.granted, Now: now, Expires: c.expires}
		if r != want || save != c.save {
			t.Errorf("%s: got %+v %v, want %+v %v", c.name, r, save, want, c.save)
		}
	}
}

// randomOp returns an operation that passes Check, small or close to the bounds.
func randomOp(rnd *rand.Rand) store.Op {
	for {
		scale := int64(1) << rnd.IntN(53)
		n := func() int64 { return rnd.Int64N(2*scale) - scale }
		op := store.Op{
			Space: "s", Key: "k", Clock: rnd.IntN(2) == 0,
			Floor: n(), Ceil: n(), Over: max(0, n()),
			Step: n() >> rnd.IntN(53), Min: max(0, n()>>rnd.IntN(53)),
		}
		op.Max = op.Min + max(0, n()>>rnd.IntN(53))
		if op.Check() == nil {
			return op
		}
	}
}

// store 3, store 22: the definition agrees with one over integers without
// bounds, and what it saves is within bounds.
func TestApplyExact(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 22))
	for range 200_000 {
		op := randomOp(rnd)
		now := rnd.Int64N(4e18)
		stored, live, heal := op.Floor+rnd.Int64N(maxCount), rnd.IntN(4) != 0, rnd.IntN(2) == 0
		if op.Clock {
			stored += now
		}
		got, save := op.Apply(now, stored, live, heal)
		want, wantSave := exact(op, now, stored, live, heal)
		if got != want || save != wantSave {
			t.Fatalf("%+v at %d on %d %v heal %v: got %+v %v, want %+v %v", op, now, stored, live, heal, got, save, want, wantSave)
		}
	}
}

// exact is Apply over integers without bounds.
func exact(op store.Op, now, stored int64, live, heal bool) (store.Result, bool) {
	i := big.NewInt
	add := func(a, b *big.Int) *big.Int { return i(0).Add(a, b) }
	later := func(a, b *big.Int) *big.Int {
		if a.Cmp(b) < 0 {
			return b
		}
		return a
	}
	floor, ceil := i(op.Floor), i(op.Ceil)
	if op.Clock {
		floor, ceil = add(floor, i(now)), add(ceil, i(now))
	}
	base, save := floor, false
	if live {
		base = later(i(stored), floor)
	}
	if op.Clock && heal && base.Cmp(add(ceil, i(op.Over+second))) > 0 {
		base, save = ceil, true
	}
	n := i(op.Max)
	if op.Step > 0 {
		fit := later(i(0), i(0).Sub(ceil, base))
		if fit.Div(fit, i(op.Step)); fit.Cmp(n) < 0 {
			n = fit
		}
	}
	if n.Cmp(i(op.Min)) < 0 {
		n = i(0)
	}
	value := later(add(base, i(0).Mul(n, i(op.Step))), floor)
	r := store.Result{Value: value.Int64(), Granted: n.Int64(), Now: now}
	if op.Clock {
		r.Expires = later(i(0), i(0).Sub(value, floor)).Int64()
	}
	return r, save || n.Sign() != 0
}

// store 1: what a token bucket grants in any window is at most its burst and
// what the window's length adds, whatever arrives, costs or takes a part.
func TestAnyWindow(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		interval, burst := 1+rnd.Int64N(1e9), 1+rnd.Int64N(50)
		g := register{now: 1e18}
		var at, sum []int64 // sum[i] was granted before the i-th grant
		total := int64(0)
		for range 300 {
			switch rnd.IntN(4) {
			case 0: // a burst at one instant
			case 1:
				g.now += rnd.Int64N(interval + 1)
			case 2:
				g.now += rnd.Int64N(3*interval + 1)
			case 3:
				g.now += rnd.Int64N(burst*interval/4 + 1)
			}
			op := bucket("k", interval, burst, 0)
			op.Min = rnd.Int64N(3)
			op.Max = op.Min + rnd.Int64N(4)
			if n := g.do(op).Granted; n > 0 {
				at, sum = append(at, g.now), append(sum, total)
				total += n
			}
		}
		sum = append(sum, total)
		for i := range at {
			for j := i; j < len(at); j++ {
				if n, bound := sum[j+1]-sum[i], burst+(at[j]-at[i])/interval; n > bound {
					t.Fatalf("seed %d: %d grants in %d ns, at most %d allowed", seed, n, at[j]-at[i], bound)
				}
			}
		}
	}
}

// store 4: what callers take one by one, one operation with the sum takes.
func TestMerged(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 1000 {
		interval, burst, callers := 1+rnd.Int64N(1e9), 1+rnd.Int64N(50), rnd.Int64N(60)
		one := register{now: 1e18, stored: 1e18 + rnd.Int64N(burst*interval+1), live: true}
		all := one
		got := int64(0)
		for range callers {
			got += one.do(bucket("k", interval, burst, 1)).Granted
		}
		op := bucket("k", interval, burst, callers)
		op.Min = 0
		if r := all.do(op); r.Granted != got || r.Value != one.stored {
			t.Fatalf("one by one %d to %d, merged %+v", got, one.stored, r)
		}
	}
}

// Two takes get no more than one of their sum.
func TestSplit(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 1000 {
		interval, burst := 1+rnd.Int64N(1e9), 1+rnd.Int64N(50)
		a, b := rnd.Int64N(burst), rnd.Int64N(burst)
		whole := register{now: 1e18, stored: 1e18 + rnd.Int64N(burst*interval+1), live: true}
		parts := whole
		r := whole.do(bucket("k", interval, burst, a+b))
		n := parts.do(bucket("k", interval, burst, a)).Granted + parts.do(bucket("k", interval, burst, b)).Granted
		if (r.Granted == a+b) != (n == a+b) || r.Granted == a+b && whole != parts {
			t.Fatalf("%d and %d of %d: together %+v, apart %d", a, b, burst, r, n)
		}
	}
}

// A history that is shifted in time gives the same results, shifted. A register
// that has expired is as good as an absent one. A read changes nothing.
func TestShiftExpireRead(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	for range 50_000 {
		op := randomOp(rnd)
		op.Clock = true
		now, shift, live := rnd.Int64N(2e18), rnd.Int64N(2e18), rnd.IntN(2) == 0
		stored := now + op.Floor + rnd.Int64N(maxCount)
		a, saveA := op.Apply(now, stored, live, true)
		b, saveB := op.Apply(now+shift, stored+shift, live, true)
		b.Now, b.Value = b.Now-shift, b.Value-shift
		if a != b || saveA != saveB {
			t.Fatalf("%+v: %+v %v, shifted by %d %+v %v", op, a, saveA, shift, b, saveB)
		}

		stored = now + op.Floor - rnd.Int64N(1e9)
		expired, saveE := op.Apply(now, stored, true, true)
		absent, saveN := op.Apply(now, 0, false, true)
		if expired != absent || saveE != saveN {
			t.Fatalf("%+v: expired %+v %v, absent %+v %v", op, expired, saveE, absent, saveN)
		}

		read := op
		read.Min, read.Max = 0, 0
		stored = now + op.Floor + rnd.Int64N(max(1, op.Ceil-op.Floor+1))
		if r, save := read.Apply(now, stored, true, true); op.Floor <= op.Ceil && (save || r.Value != stored || r.Granted != 0) {
			t.Fatalf("%+v: a read of %d gave %+v %v", read, stored, r, save)
		}
	}
}

// store 5: to give back never makes room for more than the burst, and giving
// back to a register that has expired is without effect.
func TestRefund(t *testing.T) {
	const interval, burst = 1000, 10
	g := register{now: 1e18}
	refund := func(n int64) store.Op {
		op := bucket("k", interval, burst, n)
		op.Step = -interval
		return op
	}
	all := bucket("k", interval, burst, 2*burst)
	all.Min = 0
	for _, n := range []int64{0, 1, 5, burst, 3 * burst} {
		g = register{now: 1e18}
		if got := g.do(all).Granted; got != burst {
			t.Fatalf("took %d of %d", got, burst)
		}
		if r := g.do(refund(n)); r.Granted != n {
			t.Errorf("gave back %d of %d", r.Granted, n)
		}
		if got := g.do(all).Granted; got != min(n, burst) {
			t.Errorf("gave back %d, and could take %d", n, got)
		}
		g.now += 2 * burst * interval
		if r := g.do(refund(n)); r.Value != g.now || r.Expires != 0 {
			t.Errorf("gave back %d to nothing: %+v", n, r)
		}
		if got := g.do(all).Granted; got != burst {
			t.Errorf("gave back %d to nothing, and could take %d", n, got)
		}
	}
}

// store 7: a store's clock that goes back by an hour denies for one interval and
// the slack; one that goes forward grants at most one burst more.
func TestClockStep(t *testing.T) {
	const interval, burst = second / 100, 50
	for _, step := range []time.Duration{-time.Hour, -3 * time.Second, -500 * time.Millisecond, 3 * time.Second, time.Hour} {
		g := register{now: 1e18}
		for g.do(bucket("k", interval, burst, 1)).Granted == 1 {
		}
		g.now += int64(step)
		start, first, granted := g.now, int64(-1), int64(0)
		for ; g.now < start+3*second; g.now += interval / 10 {
			n := g.do(bucket("k", interval, burst, 1)).Granted
			if n > 0 && first < 0 {
				first = g.now - start
			}
			granted += n
		}
		if first < 0 || first > interval+second {
			t.Errorf("%v: the first grant came after %v", step, time.Duration(first))
		}
		if bound := burst + 3*second/interval; granted > bound {
			t.Errorf("%v: %d grants, at most %d allowed", step, granted, bound)
		}
	}
}

// store 10: a burst that is lowered takes effect within the time it takes to
// fill and the slack; one that is raised at once.
func TestPolicyChange(t *testing.T) {
	for _, interval := range []int64{second / 1000, second / 10, 10 * second} {
		g := register{now: 1e18}
		g.do(bucket("k", interval, 1000, 1000))
		start := g.now
		for g.do(bucket("k", interval, 10, 1)).Granted == 0 {
			g.now += interval / 10
		}
		if d := g.now - start; d > 10*interval+second {
			t.Errorf("lowered: the first grant came after %v", time.Duration(d))
		}
		g = register{now: 1e18}
		g.do(bucket("k", interval, 10, 10))
		raised := bucket("k", interval, 1000, 2000)
		raised.Min = 0
		if n := g.do(raised).Granted; n != 990 {
			t.Errorf("raised: %d granted, want 990", n)
		}
	}
}

// store 20: with a price in ns rounded up for each decision as a whole, the
// long-run rate is never above the one that was asked for, and below it by at
// most 1 ns for each decision.
func TestUnevenRate(t *testing.T) {
	for _, perSecond := range []int64{7, 3, 300_000, 999_999} {
		for _, cost := range []int64{1, 2, 5} {
			price := (cost*second + perSecond - 1) / perSecond
			op := store.Op{Space: "s", Key: "k", Clock: true, Ceil: 10 * price, Step: price, Min: 1, Max: 1}
			g := register{now: 1e18}
			for g.do(op).Granted == 1 {
			}
			start := g.now
			const decisions = 100_000
			for range decisions {
				g.now += g.stored + price - g.now - op.Ceil // when it fits
				if g.now--; g.do(op).Granted != 0 {
					t.Fatalf("%d/s: granted 1 ns early", perSecond)
				}
				if g.now++; g.do(op).Granted != 1 {
					t.Fatalf("%d/s: not granted in time", perSecond)
				}
			}
			// In units of 1/perSecond ns, to stay with integers.
			took, ideal := (g.now-start)*perSecond, decisions*cost*second
			if took < ideal || took > ideal+decisions*perSecond {
				t.Errorf("%d/s at %d each: %d decisions took %d, ideal %d", perSecond, cost, decisions, took, ideal)
			}
		}
	}
}

// store 21: what costs more than the burst is refused, now and at any later
// time.
func TestMoreThanBurst(t *testing.T) {
	g := register{now: 1e18}
	for range 100 {
		if r := g.do(bucket("k", 1000, 10, 11)); r.Granted != 0 || g.live {
			t.Fatalf("%+v", r)
		}
		g.now += 1e6
	}
}
