package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// model is what a register should be, by the definition of an operation.
type model struct {
	value int64
	live  bool
}

func (m *model) apply(op store.Op, now int64) (store.Result, bool) {
	r, stored := op.Apply(now, m.value, m.live, true)
	return r, stored
}

// randomOp is an operation on a register of its own floor, so that the model
// does not have to know when the server reclaims what means nothing.
func randomOp(rnd *rand.Rand, key int) store.Op {
	for {
		if op := anyOp(rnd, key); op.Check() == nil {
			return op
		}
	}
}

func anyOp(rnd *rand.Rand, key int) store.Op {
	const most = store.MaxCount - 1
	op := store.Op{Space: "exact", Key: fmt.Sprint("k", key), Clock: key%2 == 0}
	magnitude := []int64{10, 1e6, 1e9 + 7, 1e12, most / 4}[rnd.IntN(5)]
	op.Floor = []int64{0, -3, 17, -most / 3, 1e9}[key%5]
	op.Ceil = op.Floor + rnd.Int64N(magnitude) - magnitude/8
	op.Step = rnd.Int64N(magnitude)/(1+rnd.Int64N(50)) - magnitude/20
	op.Min = rnd.Int64N(3)
	op.Max = op.Min + rnd.Int64N(6)
	if rnd.IntN(3) == 0 {
		op.Over = rnd.Int64N(magnitude)
	}
	if !op.Clock && key%3 == 0 {
		op.TTL = time.Hour
	}
	return op
}

// The script is exact: over random operations of all magnitudes its results are
// those of the definition, at the instant it read. (ratelimit 3, 5, 22)
func TestExact(t *testing.T) {
	s := start(t)
	each(t, func(t *testing.T, c client) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 1))
		st := c.store(t, func(c *redisstore.Config) { c.Prefix = fmt.Sprint("exact", seed, ":") }, s.Addr)
		models := make([]model, 30)
		healed := 0
		check := func(i int, op store.Op, m *model, got store.Result) {
			t.Helper()
			want, stored := m.apply(op, got.Now)
			if !op.Clock {
				if (got.Expires != 0) != (op.TTL != 0 && (m.live || stored)) {
					t.Errorf("operation %d: a count expires in %v, with the TTL %v", i, time.Duration(got.Expires), op.TTL)
				}
				want.Expires = got.Expires
			}
			if got != want {
				t.Fatalf("operation %d: %+v\non %+v returns\n%+v, want\n%+v", i, op, *m, got, want)
			}
			if op.Clock && stored && want.Granted == 0 {
				healed++
			}
			if stored {
				*m = model{want.Value, true}
			}
		}
		for i := range 1500 {
			switch key := rnd.IntN(len(models)); rnd.IntN(3) {
			case 0:
				op := randomOp(rnd, key)
				got, err := st.Advance(t.Context(), op)
				if err != nil {
					t.Fatalf("operation %d: %+v: %v", i, op, err)
				}
				check(i, op, &models[key], got)
			case 1: // a batch, in which registers may come twice
				var ops []store.Op
				var keys []int
				for range 1 + rnd.IntN(5) {
					key := rnd.IntN(len(models))
					keys, ops = append(keys, key), append(ops, randomOp(rnd, key))
				}
				res := make([]store.Result, len(ops))
				if err := st.AdvanceBatch(t.Context(), ops, res); err != nil {
					t.Fatalf("operation %d: %+v: %v", i, ops, err)
				}
				for j := range ops {
					check(i, ops[j], &models[keys[j]], res[j])
				}
			case 2:
				keys := rnd.Perm(len(models))[:1+rnd.IntN(4)]
				ops := make([]store.Op, len(keys))
				for j, key := range keys {
					ops[j] = randomOp(rnd, key)
				}
				res := make([]store.Result, len(ops))
				applied, err := st.AdvanceAll(t.Context(), ops, res)
				if err != nil {
					t.Fatalf("operation %d: %+v: %v", i, ops, err)
				}
				fits := true
				for j := range ops {
					r, _ := models[keys[j]].apply(ops[j], res[j].Now)
					fits = fits && (r.Granted > 0 || ops[j].Min == 0)
				}
				if applied != fits {
					t.Fatalf("operation %d: applied %v, want %v: %+v", i, applied, fits, ops)
				}
				for j := range ops {
					m := &models[keys[j]]
					if applied {
						check(i, ops[j], m, res[j])
						continue
					}
					could, _ := m.apply(ops[j], res[j].Now)
					if res[j].Granted != could.Granted {
						t.Fatalf("operation %d, part %d: could have %d, want %d", i, j, res[j].Granted, could.Granted)
					}
					read := ops[j]
					read.Min, read.Max = 0, 0
					res[j].Granted = 0
					check(i, read, m, res[j])
				}
			}
		}
		t.Logf("%d healed", healed)
	})
}

// plant puts what it wants into a register of a store with the default prefix.
func plant(t *testing.T, s *server, op store.Op, text string) {
	t.Helper()
	if err := s.client().Set(context.Background(), "plainware:r:{"+op.Key+"}"+op.Space, text, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// The server's clock went back by an hour, or by a year, which is what a register
// far ahead of it looks like: the bucket is healed, and its next token comes
// after one refill. (ratelimit 7)
func TestClockStep(t *testing.T) {
	s := start(t)
	st := clients[0].store(t, nil, s.Addr)
	op := store.Op{Space: "step", Key: "k", Clock: true, Ceil: int64(time.Second), Step: int64(100 * time.Millisecond), Min: 1, Max: 1}
	for _, ahead := range []time.Duration{time.Minute, time.Hour, 365 * 24 * time.Hour, 200 * 365 * 24 * time.Hour} {
		plant(t, s, op, fmt.Sprint(time.Now().Add(ahead).UnixNano()))
		r, err := st.Advance(t.Context(), op)
		if err != nil || r.Granted != 0 || r.Value != r.Now+op.Ceil {
			t.Errorf("%v ahead: %+v %v", ahead, r, err)
		}
	}
	// A little ahead is not a clock that went back. Nothing fits for half a
	// minute here, however slow the machine is.
	op.Ceil, op.Step = int64(time.Minute), int64(30*time.Second)
	r, err := st.Advance(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	planted := r.Now + op.Ceil + int64(700*time.Millisecond)
	plant(t, s, op, fmt.Sprint(planted))
	if r, err := st.Advance(t.Context(), op); err != nil || r.Granted != 0 || r.Value != planted {
		t.Errorf("%+v %v, want %d", r, err, planted)
	}
	// Debt that was declared is kept to the nanosecond.
	op.Over = int64(time.Hour)
	planted = r.Now + int64(time.Hour) + 123456789
	plant(t, s, op, fmt.Sprint(planted))
	if r, err := st.Advance(t.Context(), op); err != nil || r.Granted != 0 || r.Value != planted {
		t.Errorf("with debt: %+v %v, want %d", r, err, planted)
	}
}

// What the server keeps of a register: decimal text that ends by itself, never
// before the register means nothing, and soon after.
func TestRegisterAtRest(t *testing.T) {
	s := start(t)
	st := clients[0].store(t, nil, s.Addr)
	admin := s.client()
	ctx := t.Context()
	const key = "plainware:r:{k}rest"
	op := store.Op{Space: "rest", Key: "k", Clock: true, Floor: -7, Ceil: int64(time.Minute), Step: 50_123_456_789, Min: 1, Max: 1}
	r, err := st.Advance(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	if got := admin.Get(ctx, key).Val(); got != fmt.Sprint(r.Value) {
		t.Errorf("the server has %q, want %d", got, r.Value)
	}
	// Floor is -7: it means nothing when now has passed Value + 7 ns.
	ms, err := admin.Do(ctx, "PEXPIRETIME", key).Int64()
	if end := r.Value + 7; err != nil || ms*1e6 < end || ms*1e6 > end+1e6 {
		t.Errorf("ends at %d ms, want %d ns: %v", ms, end, err)
	}
	op.Step, op.Min, op.Max = -op.Step, 5, 5
	if r, err := st.Advance(ctx, op); err != nil || r.Expires != 0 || r.Value != r.Now-7 {
		t.Errorf("%+v %v", r, err)
	}
	if n := admin.Exists(ctx, key).Val(); n != 0 {
		t.Error("a register that means nothing is kept")
	}

	count := store.Op{Space: "count", Key: "k", Ceil: 9, Step: 1, Min: 2, Max: 2}
	if r, err := st.Advance(ctx, count); err != nil || r.Expires != 0 {
		t.Errorf("%+v %v", r, err)
	}
	if v, ttl := admin.Get(ctx, "plainware:r:{k}count").Val(), admin.PTTL(ctx, "plainware:r:{k}count").Val(); v != "2" || ttl != -1 {
		t.Errorf("the server has %q for %v", v, ttl)
	}
	count.Key, count.TTL = "l", time.Minute
	first, err := st.Advance(ctx, count)
	if err != nil || first.Expires != int64(time.Minute) {
		t.Errorf("%+v %v", first, err)
	}
	count.TTL = time.Hour
	if r, err := st.Advance(ctx, count); err != nil || r.Expires > first.Expires || r.Expires < int64(30*time.Second) {
		t.Errorf("a later operation changes the end: %+v %v", r, err)
	}
}

// A register that is used as a count and as a clock, or was never one, does no
// harm to others, and what is not a number is an error.
func TestStrangeRegisters(t *testing.T) {
	s := start(t)
	st := clients[0].store(t, nil, s.Addr)
	// The server removes a clock once it has run down.
	clock := store.Op{Space: "odd", Key: "k", Clock: true, Ceil: int64(time.Hour), Step: int64(time.Hour), Min: 1, Max: 1}
	count := store.Op{Space: "odd", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1}
	for _, text := range []string{"0", "5", "-5", "123456789", "-123456789", "1234567890", "-1234567890123"} {
		plant(t, s, clock, text)
		if r, err := st.Advance(t.Context(), clock); err != nil || r.Granted != 1 || r.Value != r.Now+clock.Step {
			t.Errorf("a clock on %q: %+v %v", text, r, err)
		}
	}
	// Now it is an instant, far above what a count may be.
	if r, err := st.Advance(t.Context(), count); err != nil || r.Granted != 0 || r.Value < store.MaxCount {
		t.Errorf("%+v %v", r, err)
	}
	for _, text := range []string{"", "x", "12x"} {
		plant(t, s, clock, text)
		for _, op := range []store.Op{clock, count} {
			if r, err := st.Advance(t.Context(), op); err == nil {
				t.Errorf("%q is taken: %+v", text, r)
			}
		}
	}
	admin := s.client()
	admin.Del(t.Context(), "plainware:r:{k}odd")
	admin.LPush(t.Context(), "plainware:r:{k}odd", 1)
	other := count
	other.Key = "other"
	res := make([]store.Result, 2)
	if ok, err := st.AdvanceAll(t.Context(), []store.Op{other, count}, res); ok || err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("%v %v", ok, err)
	}
	if r, err := st.Advance(t.Context(), other); err != nil || r.Value != 1 {
		t.Errorf("a failed AdvanceAll left something: %+v %v", r, err)
	}
}

// A full server that must not evict says so, and all or none holds then too.
func TestFull(t *testing.T) {
	s := start(t)
	each(t, func(t *testing.T, c client) {
		st := c.store(t, nil, s.Addr)
		s.config("maxmemory", "1")
		defer s.config("maxmemory", "0")
		ctx := t.Context()
		if err := st.Put(ctx, "k", []byte("v"), 0); !errors.Is(err, store.ErrFull) {
			t.Errorf("Put: %v", err)
		}
		if _, err := st.CompareAndSwap(ctx, "k", nil, []byte("v"), 0); !errors.Is(err, store.ErrFull) {
			t.Errorf("CompareAndSwap: %v", err)
		}
		ops := []store.Op{
			{Space: t.Name(), Key: "a", Ceil: 9, Step: 1, Min: 1, Max: 1},
			{Space: t.Name(), Key: "b", Ceil: 9, Step: 1, Min: 1, Max: 1},
		}
		res := make([]store.Result, 2)
		if ok, err := st.AdvanceAll(ctx, ops, res); ok || !errors.Is(err, store.ErrFull) {
			t.Errorf("AdvanceAll: %v %v", ok, err)
		}
		s.config("maxmemory", "0")
		for _, op := range ops {
			if r, err := st.Advance(ctx, op); err != nil || r.Value != 1 {
				t.Errorf("%+v %v", r, err)
			}
		}
	})
}
