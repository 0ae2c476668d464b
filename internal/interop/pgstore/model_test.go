//go:build linux

package pgstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/plainware/store"
)

// model is what store.Op.Apply says about registers, judged by the instant that
// the store has reported.
type model map[string]struct{ value, expires int64 }

func (m model) apply(op store.Op, now int64, keep bool) (r store.Result, refused bool) {
	k := op.Space + "\x00" + op.Key
	was, ok := m[k]
	live := ok && was.expires > now
	r, put := op.Apply(now, was.value, live, true)
	expires := was.expires
	switch {
	case op.Clock:
		expires = r.Value - op.Floor
	case !live && (op.TTL == 0 || op.TTL > 100*365*24*time.Hour): // as good as for ever
		expires = 1<<63 - 1
	case !live:
		expires = now + int64(op.TTL)
	}
	if !op.Clock && (live || put) && expires != 1<<63-1 {
		r.Expires = expires - now
	}
	if put && keep {
		m[k] = struct{ value, expires int64 }{r.Value, expires}
	}
	return r, r.Granted < op.Min
}

// applyAll is AdvanceAll.
func (m model) applyAll(ops []store.Op, now int64) (res []store.Result, applied bool) {
	applied = true
	for _, op := range ops {
		_, refused := m.apply(op, now, false)
		applied = applied && !refused
	}
	for _, op := range ops {
		r, _ := m.apply(op, now, applied)
		if !applied {
			granted := r.Granted
			op.Min, op.Max = 0, 0 // as it stands, and healed
			r, _ = m.apply(op, now, true)
			r.Granted = granted
		}
		res = append(res, r)
	}
	return res, applied
}

// pick returns one of xs.
func pick[T any](rng *rand.Rand, xs ...T) T { return xs[rng.IntN(len(xs))] }

func randomOp(rng *rand.Rand) store.Op {
	k := rng.IntN(8)
	op := store.Op{Space: pick(rng, "s", "s2"), Key: fmt.Sprint("k", k), Clock: k < 5}
	op.Max = rng.Int64N(6)
	op.Min = rng.Int64N(op.Max + 1)
	if rng.IntN(12) == 0 {
		op.Min, op.Max = 0, 0
	}
	if op.Clock {
		unit := pick(rng, int64(1), 1000, 777_777, 1_000_003, int64(time.Second), int64(time.Hour)+1)
		op.Step = pick(rng, unit, unit, unit, -unit, 0)
		op.Ceil = unit*rng.Int64N(20) + rng.Int64N(3)
		op.Floor = int64(k-2) * 1_000_001 // one for each register
		op.Over = pick(rng, 0, 0, unit)
		return op
	}
	op.Step = pick(rng, int64(1), 1, 3, 1<<40, -1, -5, 0)
	op.Ceil = pick(rng, int64(10), 100, store.MaxCount-1, -7)
	op.Floor = pick(rng, int64(0), 0, 2, -20)
	op.Over = rng.Int64N(5)
	op.TTL = pick(rng, 0, time.Millisecond, 20*time.Millisecond, time.Hour, 200*365*24*time.Hour)
	if op.Check() != nil {
		op.Ceil = 10
	}
	return op
}

// store 3: the store agrees with Op.Apply on every result of random sequences
// of single, batched and all-or-nothing operations.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s, _, _ := onShared(t)
			rng := rand.New(rand.NewPCG(seed, 7))
			m := model{}
			for step := range 500 {
				same := func(op store.Op, got, want store.Result) {
					t.Helper()
					if got != want {
						t.Fatalf("step %d: %+v\n got %+v\nwant %+v", step, op, got, want)
					}
				}
				ops := make([]store.Op, 1+rng.IntN(4))
				for i := range ops {
					ops[i] = randomOp(rng)
				}
				res := make([]store.Result, len(ops))
				switch rng.IntN(3) {
				case 0:
					got := advance(t, s, ops[0])
					want, _ := m.apply(ops[0], got.Now, true)
					same(ops[0], got, want)
				case 1:
					if err := s.AdvanceBatch(t.Context(), ops, res); err != nil {
						t.Fatal(err)
					}
					for i, op := range ops {
						want, _ := m.apply(op, res[i].Now, true)
						same(op, res[i], want)
					}
				case 2:
					seen := map[string]bool{}
					n := 0
					for _, op := range ops {
						if !seen[op.Space+op.Key] {
							seen[op.Space+op.Key] = true
							ops[n] = op
							n++
						}
					}
					ops, res = ops[:n], res[:n]
					applied, err := s.AdvanceAll(t.Context(), ops, res)
					if err != nil {
						t.Fatal(err)
					}
					want, wantApplied := m.applyAll(ops, res[0].Now)
					if applied != wantApplied {
						t.Fatalf("step %d: applied = %v, want %v\n%+v\n%+v", step, applied, wantApplied, ops, res)
					}
					for i, op := range ops {
						same(op, res[i], want[i])
					}
				}
				if rng.IntN(50) == 0 {
					if _, err := s.Sweep(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// A register that stands higher than it can is healed, by single operations and
// by refused all-or-nothing ones, so that it grants again after one step.
func TestHeal(t *testing.T) {
	s, db, schema := onShared(t)
	op := store.Op{Space: "h", Key: "k", Clock: true, Ceil: int64(20 * time.Millisecond), Step: int64(10 * time.Millisecond), Min: 1, Max: 1}
	wait := func(f func() bool) {
		t.Helper()
		eventually(t, "a grant", func() error {
			if !f() {
				return fmt.Errorf("refused")
			}
			return nil
		})
	}
	for name, f := range map[string]func() bool{
		"single": func() bool { return advance(t, s, op).Granted == 1 },
		"all": func() bool {
			res := make([]store.Result, 1)
			applied, err := s.AdvanceAll(t.Context(), []store.Op{op}, res)
			if err != nil {
				t.Fatal(err)
			}
			return applied
		},
	} {
		t.Run(name, func(t *testing.T) {
			wait(f)
			// As if the clock had gone back by an hour.
			execute(t, db, `UPDATE %s.register SET v = v + 3600000000000, exp = exp + 3600000000000`, schema)
			if f() {
				t.Error("granted from a bucket that counts as spent")
			}
			wait(f)
		})
	}

	// Declared debt is no error.
	debt := op
	debt.Over = int64(time.Hour)
	execute(t, db, `UPDATE %s.register SET v = v + 1800000000000, exp = exp + 1800000000000`, schema)
	if r := advance(t, s, debt); r.Granted != 0 || r.Value-r.Now < int64(20*time.Minute) {
		t.Errorf("debt was forgiven: %+v", r)
	}
}
