package store_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

// store 3: a Memory and a map under the definition over unbounded integers
// agree on every result of any sequence of operations.
func FuzzMemoryRegisters(f *testing.F) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		steps := make([]byte, 1000)
		for i := range steps {
			steps[i] = byte(rnd.Uint32())
		}
		f.Add(steps)
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(t, store.MemoryConfig{Registers: 4096}) // nothing is evicted
			model := plainRegisters{}
			c := coder(steps)
			for len(c) > 0 {
				switch n := c.next(); {
				case n < 32:
					time.Sleep(time.Duration(n%8) * time.Second / 2)
				case n < 64:
					ops := make([]store.Op, n%5)
					for i := range ops {
						ops[i] = c.op(uint64(c.next() % 16))
					}
					got, want := make([]store.Result, len(ops)), make([]store.Result, len(ops))
					err := m.AdvanceBatch(t.Context(), ops, got)
					for i, op := range ops {
						want[i] = model.advance(op)
					}
					check(t, ops, got, want, err)
				case n < 128:
					ops := make([]store.Op, n%5)
					first := uint64(c.next())
					for i := range ops {
						ops[i] = c.op((first + uint64(i)) % 16)
					}
					got, want := make([]store.Result, len(ops)), make([]store.Result, len(ops))
					ok, err := m.AdvanceAll(t.Context(), ops, got)
					if applied := model.all(ops, want); ok != applied {
						t.Fatalf("%+v\napplied %v, want %v", ops, ok, applied)
					}
					check(t, ops, got, want, err)
				default:
					op := c.op(uint64(n % 16))
					got, err := m.Advance(t.Context(), op)
					check(t, []store.Op{op}, []store.Result{got}, []store.Result{model.advance(op)}, err)
				}
			}
			if s := m.Stats(); s.RegistersEvicted != 0 {
				t.Fatalf("%+v", s)
			}
		})
	})
}

func check(t *testing.T, ops []store.Op, got, want []store.Result, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v\n%v", ops, err)
	}
	for i := range ops {
		if got[i] != want[i] {
			t.Fatalf("%+v\ngot  %+v\nwant %+v", ops[i], got[i], want[i])
		}
	}
}

// coder makes operations of bytes.
type coder []byte

func (c *coder) next() (b byte) {
	if len(*c) > 0 {
		b, *c = (*c)[0], (*c)[1:]
	}
	return b
}

// op returns an operation on one of 16 registers, of which half are counts.
func (c *coder) op(register uint64) store.Op {
	units := [...]int64{1, 1000, second / 8, second, 3600 * second}
	unit := units[c.next()%5]
	n := func(from, to int64) int64 { return from + int64(c.next())%(to-from+1) }
	op := store.Op{
		Space: fmt.Sprint("space", register%2), Key: fmt.Sprint("key", register/4),
		Clock: register&2 != 0,
		Floor: n(-2, 2) * unit, Ceil: n(-2, 20) * unit, Over: n(0, 3) * unit,
		Step: n(-3, 8) * unit, Min: n(0, 3),
	}
	op.Key += fmt.Sprint(op.Clock) // an instant is no count
	op.Max = op.Min + n(0, 6)
	if !op.Clock {
		op.TTL = time.Duration(n(0, 5)) * time.Second
	}
	return op
}

// plainRegisters is the contract in the simplest form.
type plainRegisters map[[2]string]plainRegister

type plainRegister struct {
	value   int64
	expires int64 // 0 is never
}

// find returns the register of op as it is, and at what time.
func (p plainRegisters) find(op store.Op) (r plainRegister, live bool, now int64) {
	now = time.Now().UnixNano()
	r, live = p[[2]string{op.Space, op.Key}]
	if r.expires != 0 && r.expires <= now {
		return plainRegister{}, false, now
	}
	return r, live, now
}

func (p plainRegisters) advance(op store.Op) store.Result {
	old, live, now := p.find(op)
	r, save := exact(op, now, old.value, live, true)
	expires := old.expires
	switch {
	case op.Clock:
		expires = r.Value - op.Floor
	case !live && op.TTL > 0:
		expires = now + int64(op.TTL)
	}
	if save {
		p[[2]string{op.Space, op.Key}] = plainRegister{r.Value, expires}
	}
	if !op.Clock && (live || save) && expires != 0 {
		r.Expires = expires - now
	}
	return r
}

func (p plainRegisters) all(ops []store.Op, res []store.Result) bool {
	applied := true
	for i, op := range ops {
		old, live, now := p.find(op)
		res[i], _ = exact(op, now, old.value, live, true)
		applied = applied && res[i].Granted >= op.Min
	}
	for i, op := range ops {
		granted := res[i].Granted
		if !applied {
			op.Min, op.Max = 0, 0
		}
		res[i] = p.advance(op)
		res[i].Granted = granted
	}
	return applied
}
