package store_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

func advance(t testing.TB, s store.Registers, op store.Op) store.Result {
	t.Helper()
	r, err := s.Advance(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The store's clock runs with time, whatever the time of day was when it
// started, and Value and Now are instants on it.
func TestMemoryClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{})
		for range 3 {
			now := time.Now().UnixNano()
			r := advance(t, m, bucket("k", 1000, 10, 3))
			if want := (store.Result{Value: now + 3000, Granted: 3, Now: now, Expires: 3000}); r != want {
				t.Errorf("got %+v, want %+v", r, want)
			}
			time.Sleep(time.Hour)
		}
	})
}

// store 2: on a clock that stands still, many at once get exactly the burst.
func TestMemoryExactBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{})
		var granted, all atomic.Int64
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				ops, res := []store.Op{bucket("a", second, 99, 1), bucket("b", second, 1000, 1)}, make([]store.Result, 2)
				for range 50 {
					r, err := m.Advance(t.Context(), bucket("k", second, 777, 1))
					if err != nil {
						t.Error(err)
					}
					granted.Add(r.Granted)
					if ok, err := m.AdvanceAll(t.Context(), ops, res); err != nil {
						t.Error(err)
					} else if ok {
						all.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if granted.Load() != 777 || all.Load() != 99 {
			t.Errorf("granted %d of 777, and %d pairs of 99", granted.Load(), all.Load())
		}
		if r := advance(t, m, bucket("b", second, 1000, 0)); r.Expires != 99*second {
			t.Errorf("refused pairs took from one of the two: %+v", r)
		}
	})
}

// A count lives for the TTL of the operation that created it.
func TestMemoryCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{})
		op := func(key string, n int64, ttl time.Duration) store.Op {
			return store.Op{Space: "count", Key: key, Ceil: 10, Step: 1, Min: n, Max: n, TTL: ttl}
		}
		check := func(op store.Op, value, granted int64, expires time.Duration) {
			t.Helper()
			r := advance(t, m, op)
			if want := (store.Result{Value: value, Granted: granted, Now: time.Now().UnixNano(), Expires: int64(expires)}); r != want {
				t.Errorf("got %+v, want %+v", r, want)
			}
		}
		check(op("k", 0, time.Minute), 0, 0, 0) // a read creates nothing
		check(op("k", 4, time.Minute), 4, 4, time.Minute)
		time.Sleep(20 * time.Second)
		check(op("k", 4, time.Hour), 8, 4, 40*time.Second)
		check(op("k", 4, time.Hour), 8, 0, 40*time.Second)
		check(op("k", 0, 0), 8, 0, 40*time.Second)
		time.Sleep(40*time.Second - 1)
		check(op("k", 0, 0), 8, 0, 1)
		time.Sleep(time.Nanosecond)
		check(op("k", 0, 0), 0, 0, 0)
		check(op("k", 11, time.Second), 0, 0, 0)
		check(op("k", 1, 0), 1, 1, 0)
		time.Sleep(100 * 365 * 24 * time.Hour)
		check(op("k", 1, time.Second), 2, 1, 0) // without a TTL it is for ever
		r := advance(t, m, op("age", 1, math.MaxInt64))
		if age := time.Duration(r.Expires); age < 100*365*24*time.Hour {
			t.Errorf("the longest TTL is %v", age)
		}
	})
}

// store 23: where Space ends and Key begins is part of the name, and values and
// registers do not meet.
func TestMemoryNames(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{})
	names := [][2]string{{"a", "bc"}, {"ab", "c"}, {"bc", "a"}, {"c", "ab"}, {"abc", "abc"}, {"a", "a"}, {"b", "b"}, {"a", "b"}, {"b", "a"}}
	for i, n := range names {
		advance(t, m, store.Op{Space: n[0], Key: n[1], Ceil: 100, Step: int64(i + 1), Min: 1, Max: 1})
		put(t, m, n[1], "value", 0)
	}
	for i, n := range names {
		if r := advance(t, m, store.Op{Space: n[0], Key: n[1]}); r.Value != int64(i+1) {
			t.Errorf("%q is %d, want %d", n, r.Value, i+1)
		}
	}
}

// The operations of a batch are done in their order and each for itself, and if
// one is wrong none.
func TestMemoryBatch(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{})
	step := func(key string, ceil, step int64) store.Op {
		return store.Op{Space: "s", Key: key, Ceil: ceil, Step: step, Min: 1, Max: 1}
	}
	ops := []store.Op{step("a", 10, 3), step("b", 2, 3), step("a", 10, 5), step("a", 10, 3), step("c", 1, 1), step("a", 10, -1), {Space: "s", Key: "a"}}
	res := make([]store.Result, len(ops))
	if err := m.AdvanceBatch(t.Context(), ops, res); err != nil {
		t.Fatal(err)
	}
	for i, want := range []store.Result{{Value: 3, Granted: 1}, {}, {Value: 8, Granted: 1}, {Value: 8}, {Value: 1, Granted: 1}, {Value: 7, Granted: 1}, {Value: 7}} {
		if want.Now = res[i].Now; res[i] != want {
			t.Errorf("%d: got %+v, want %+v", i, res[i], want)
		}
	}
	ops[3].Min = -1
	if err := m.AdvanceBatch(t.Context(), ops, res); !errors.Is(err, store.ErrOp) {
		t.Errorf("with a wrong one: %v", err)
	}
	if err := m.AdvanceBatch(t.Context(), ops[:2], res); !errors.Is(err, store.ErrOp) {
		t.Errorf("with more results than operations: %v", err)
	}
	if r := advance(t, m, ops[6]); r.Value != 7 {
		t.Errorf("a batch that failed left %d", r.Value)
	}
	if err := m.AdvanceBatch(t.Context(), nil, nil); err != nil {
		t.Error(err)
	}
}

// store 6: AdvanceAll that is refused changes nothing except by healing, and
// says what each operation could have had.
func TestMemoryAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{})
		now := time.Now().UnixNano()
		all := func(ops ...store.Op) (bool, []store.Result) {
			t.Helper()
			res := make([]store.Result, len(ops))
			ok, err := m.AdvanceAll(t.Context(), ops, res)
			if err != nil {
				t.Fatal(err)
			}
			return ok, res
		}
		check := func(got []store.Result, want ...store.Result) {
			t.Helper()
			for i := range want {
				if want[i].Now = now; got[i] != want[i] {
					t.Errorf("%d: got %+v, want %+v", i, got[i], want[i])
				}
			}
		}
		count := store.Op{Space: "s", Key: "count", Ceil: 5, Step: 2, Max: 9}
		full := store.Op{Space: "s", Key: "full", Ceil: 1, Step: 1, Min: 1, Max: 1, TTL: time.Hour}
		shrunk := bucket("shrunk", second, 5, 0)

		ok, res := all(bucket("a", 1000, 10, 4), count, full)
		check(res, store.Result{Value: now + 4000, Granted: 4, Expires: 4000}, store.Result{Value: 4, Granted: 2}, store.Result{Value: 1, Granted: 1, Expires: int64(time.Hour)})
		if !ok {
			t.Error("refused")
		}
		advance(t, m, bucket("shrunk", second, 100, 100))
		ok, res = all(bucket("a", 1000, 10, 6), count, full, shrunk, bucket("new", 1000, 10, 3))
		check(res,
			store.Result{Value: now + 4000, Granted: 6, Expires: 4000},
			store.Result{Value: 4},
			store.Result{Value: 1, Expires: int64(time.Hour)},
			store.Result{Value: now + 5*second, Expires: 5 * second}, // healed
			store.Result{Value: now, Granted: 3},
		)
		if ok {
			t.Error("applied, though one is full")
		}
		ok, res = all(bucket("a", 1000, 10, 6), shrunk, bucket("new", 1000, 10, 10))
		check(res,
			store.Result{Value: now + 10_000, Granted: 6, Expires: 10_000},
			store.Result{Value: now + 5*second, Expires: 5 * second},
			store.Result{Value: now + 10_000, Granted: 10, Expires: 10_000})
		if !ok {
			t.Error("refused")
		}
		if ok, _ := all(); !ok {
			t.Error("nothing was refused")
		}
		time.Sleep(time.Hour)
		if ok, _ := all(full); !ok {
			t.Error("refused, at the instant at which it expired")
		}

		many := make([]store.Op, 1000)
		for i := range many {
			many[i] = bucket(fmt.Sprint(i), second, 1, 1)
		}
		if ok, _ := all(many...); !ok {
			t.Error("many were refused")
		}
		if ok, _ := all(many[999:]...); ok {
			t.Error("many were not applied")
		}
		many[999] = many[3]
		for _, ops := range [][]store.Op{many, {count, full, count}, {count, {Space: "s", Key: "count", Floor: 1}}, {count, {}}} {
			if ok, err := m.AdvanceAll(t.Context(), ops, make([]store.Result, len(ops))); ok || !errors.Is(err, store.ErrOp) && !errors.Is(err, store.ErrKey) {
				t.Errorf("%v, %v", ok, err)
			}
		}
		if _, err := m.AdvanceAll(t.Context(), many[:3], nil); !errors.Is(err, store.ErrOp) {
			t.Error(err)
		}
	})
}

// AdvanceAll of the same registers in any order never waits for itself, and what
// is taken together and given back one by one adds up.
func TestMemoryAllRace(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{Registers: 64})
	const accounts = 10
	op := func(i int, step int64) store.Op {
		return store.Op{Space: "account", Key: fmt.Sprint(i), Ceil: 100, Step: step, Min: 1, Max: 1}
	}
	for i := range accounts {
		advance(t, m, op(i, 50))
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 8))
			res := make([]store.Result, 3)
			for range 2000 {
				p := rnd.Perm(accounts)
				ok, err := m.AdvanceAll(t.Context(), []store.Op{op(p[0], 2), op(p[1], 1), op(p[2], 1)}, res)
				if err != nil {
					t.Error(err)
				}
				if ok {
					err = m.AdvanceBatch(t.Context(), []store.Op{op(p[1], -1), op(p[0], -2), op(p[2], -1)}, res)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range accounts {
		if r := advance(t, m, store.Op{Space: "account", Key: fmt.Sprint(i)}); r.Value != 50 {
			t.Errorf("%d has %d", i, r.Value)
		}
	}
}

// store 12: a flood of ten times as many fresh keys as there is room for wins
// an exhausted key nothing, and costs one in use nothing.
func TestMemoryKeyFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 4096
		m := newMemory(t, store.MemoryConfig{Registers: room})
		const interval = int64(time.Minute)
		granted, hot := int64(0), int64(0)
		for round := range 5 {
			for range 120 {
				granted += advance(t, m, bucket("attacker", interval, 100, 1)).Granted
			}
			hot += advance(t, m, bucket("hot", interval, 100, 10)).Granted
			for i := range 10 * room {
				if r := advance(t, m, bucket(fmt.Sprint(round, "/", i), interval, 100, 1)); r.Granted != 1 {
					t.Fatalf("a fresh key was refused: %+v", r)
				}
				if i%1000 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}
		if granted != 100 {
			t.Errorf("the attacker got %d of 100", granted)
		}
		r := advance(t, m, bucket("hot", interval, 100, 0))
		if spent := r.Expires; hot != 50 || spent < 49*interval {
			t.Errorf("hot got %d, and the store knows of %v", hot, time.Duration(spent))
		}
		if s := m.Stats(); s.Registers != room || s.RegistersEvicted < 40*room {
			t.Errorf("%+v", s)
		}
	})
}

// About as many registers are evicted early as is documented.
func TestMemoryLoad(t *testing.T) {
	for _, c := range []struct {
		load float64
		most float64
	}{{1.0 / 3, 0.0025}, {0.5, 0.012}, {1, 0.15}} {
		m := newMemory(t, store.MemoryConfig{})
		n := int(c.load * 65536)
		for i := range n {
			advance(t, m, bucket(fmt.Sprint(i), second, 100, 100))
		}
		lost := float64(m.Stats().RegistersEvicted) / float64(n)
		t.Logf("load %.2f: %.4f lost", c.load, lost)
		if lost > c.most {
			t.Errorf("load %.2f: %.4f lost", c.load, lost)
		}
	}
}

// A decision allocates nothing, be its register new, known or refused.
func TestMemoryAllocs(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{Registers: 4096})
	ctx := t.Context()
	keys := make([]string, 20_000)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
	}
	i := 0
	next := func() string { i++; return keys[i%len(keys)] }
	ops, res := make([]store.Op, 16), make([]store.Result, 16)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"known", func() { m.Advance(ctx, bucket("k", 1, 1e9, 1)) }},
		{"refused", func() { m.Advance(ctx, bucket("full", second, 1, 1)) }},
		{"new", func() { m.Advance(ctx, bucket(next(), second, 10, 1)) }},
		{"batch", func() {
			for i := range ops {
				ops[i] = bucket(next(), second, 10, 1)
			}
			m.AdvanceBatch(ctx, ops, res)
		}},
		{"all", func() {
			for i := range ops {
				ops[i] = bucket(next(), second, 10, 1)
			}
			m.AdvanceAll(ctx, ops, res)
		}},
		{"all refused", func() {
			ops[15] = bucket("x", second, 1, 2)
			m.AdvanceAll(ctx, ops, res)
		}},
	} {
		if n := testing.AllocsPerRun(5000, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
