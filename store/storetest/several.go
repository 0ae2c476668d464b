package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

var severalRules = []rule{
	{
		name:  "batch/order",
		why:   "AdvanceBatch sets each result for the operation at the same place, however the backend sorts them.",
		needs: has[store.BatchRegisters],
		check: checkBatchOrder,
	}, {
		name:  "batch/same",
		why:   "Two operations of a batch may have the same register, and are done in their order.",
		needs: has[store.BatchRegisters],
		check: checkBatchSame,
	}, {
		name:  "batch/independent",
		why:   "Each operation of a batch is done for itself: that one is refused does not matter to the others.",
		needs: has[store.BatchRegisters],
		check: checkBatchIndependent,
	}, {
		name:  "batch/sizes",
		why:   "A batch may be empty, and may be large.",
		needs: has[store.BatchRegisters],
		check: checkBatchSizes,
	}, {
		name:  "batch/refused",
		why:   "A batch with an operation that no backend can do is an error.",
		needs: has[store.BatchRegisters],
		check: checkBatchBad,
	}, {
		name:  "batch/contended",
		why:   "Batches over the same registers, in different orders, at the same time, grant exactly what fits and never block each other.",
		needs: has[store.BatchRegisters],
		check: checkBatchContended,
	}, {
		name:  "all/applied",
		why:   "AdvanceAll applies all operations if each can be granted its Min.",
		needs: has[store.AtomicRegisters],
		check: checkAllApplied,
	}, {
		name:  "all/refused",
		why:   "If one is refused, AdvanceAll changes no register, and says of each what was found. A refused request consumes nothing.",
		needs: has[store.AtomicRegisters],
		check: checkAllRefused,
	}, {
		name:  "all/absent",
		why:   "A refused AdvanceAll creates no register: its TTL does not begin.",
		needs: has[store.AtomicRegisters],
		check: checkAllAbsent,
	}, {
		name:  "all/heal",
		why:   "AdvanceAll heals the registers that it finds too high, applied or refused, one that it only reads too.",
		needs: all(has[store.AtomicRegisters], heals),
		check: checkAllHeal,
	}, {
		name:  "all/equal",
		why:   "The registers of AdvanceAll must differ, or it returns store.ErrOp.",
		needs: has[store.AtomicRegisters],
		check: checkAllEqual,
	}, {
		name:  "all/contended",
		why:   "From many goroutines, in different orders, AdvanceAll takes from all registers or none, and never blocks itself.",
		needs: has[store.AtomicRegisters],
		check: checkAllContended,
	},
}

func (c *check) batch(ops []store.Op) []store.Result {
	c.Helper()
	b, ok := store.As[store.BatchRegisters](c.s)
	if !ok {
		c.Fatalf("the store has no BatchRegisters, though another that Open returned has")
	}
	given := slices.Clone(ops)
	res := make([]store.Result, len(ops))
	for i := range res {
		res[i] = store.Result{Value: -77, Granted: -77}
	}
	if err := b.AdvanceBatch(c.ctx, ops, res); err != nil {
		c.Fatalf("AdvanceBatch of %d operations: %v", len(ops), err)
	}
	if !slices.Equal(ops, given) {
		c.Errorf("AdvanceBatch has changed the operations that it was given")
	}
	return res
}

func (c *check) all(ops []store.Op) ([]store.Result, bool) {
	c.Helper()
	a, ok := store.As[store.AtomicRegisters](c.s)
	if !ok {
		c.Fatalf("the store has no AtomicRegisters, though another that Open returned has")
	}
	given := slices.Clone(ops)
	res := make([]store.Result, len(ops))
	for i := range res {
		res[i] = store.Result{Value: -77, Granted: -77}
	}
	applied, err := a.AdvanceAll(c.ctx, ops, res)
	if err != nil {
		c.Fatalf("AdvanceAll of %d operations: %v", len(ops), err)
	}
	if !slices.Equal(ops, given) {
		c.Errorf("AdvanceAll has changed the operations that it was given")
	}
	return res, applied
}

func (c *check) wantResult(what string, r store.Result, granted, value int64) {
	c.Helper()
	if r.Granted != granted || r.Value != value {
		c.Errorf("%s: grants %d and leaves %d, want %d and %d", what, r.Granted, r.Value, granted, value)
	}
}

func checkBatchOrder(c *check) {
	var ops []store.Op
	for i := range int64(20) {
		op := c.count(fmt.Sprint("k", i*7%20), 100, i+1)
		op.Space = c.run + []string{"b", "a", "c"}[i%3]
		ops = append(ops, op)
	}
	for i, r := range c.batch(ops) {
		n := int64(i + 1)
		c.wantResult(fmt.Sprint("operation ", i), r, n, n)
	}
	slices.Reverse(ops)
	for i, r := range c.batch(ops) {
		n := int64(len(ops) - i)
		c.wantResult(fmt.Sprint("in reverse, operation ", i), r, n, 2*n)
		if r.Now < 1e17 {
			c.Errorf("in reverse, operation %d: Now is %d", i, r.Now)
		}
	}
}

func checkBatchSame(c *check) {
	one, other, read := c.count("k", 10, 1), c.count("other", 10, 1), c.count("k", 10, 0)
	five, back := c.count("k", 10, 5), c.count("k", 10, 3)
	back.Step = -1
	ops := []store.Op{one, other, five, read, five, other, back, five, read}
	res := c.batch(ops)
	for i, want := range [][2]int64{{1, 1}, {1, 1}, {5, 6}, {0, 6}, {0, 6}, {1, 2}, {3, 3}, {5, 8}, {0, 8}} {
		c.wantResult(fmt.Sprint("operation ", i), res[i], want[0], want[1])
	}
	c.wantCount("read afterwards", read, 0, 8)
}

func checkBatchIndependent(c *check) {
	ops := []store.Op{c.count("a", 10, 11), c.count("b", 10, 4), c.count("c", 10, 11), c.count("d", 10, 4), c.count("e", 10, 11)}
	res := c.batch(ops)
	for i, r := range res {
		if i%2 == 0 {
			c.wantResult(fmt.Sprint("operation ", i, ", which is refused"), r, 0, 0)
		} else {
			c.wantResult(fmt.Sprint("operation ", i, ", which is granted"), r, 4, 4)
		}
	}
	for i, op := range ops {
		op.Min, op.Max = 0, 0
		c.wantCount(fmt.Sprint("register ", i, ", afterwards"), op, 0, res[i].Value)
	}
	// Counts and clocks, and different policies, in one batch.
	clock := c.clock("k", hour, time.Minute)
	mixed := c.batch([]store.Op{c.count("f", 10, 1), clock, c.count("g", 0, 1), clock})
	c.wantResult("a count before a clock", mixed[0], 1, 1)
	c.wantResult("a count after a clock", mixed[2], 0, 0)
	if a, b := mixed[1], mixed[3]; a.Granted != 1 || b.Granted != 1 || a.Value != a.Now+int64(time.Minute) || b.Value != a.Value+int64(time.Minute) {
		c.Errorf("two operations on a clock among others: %+v and %+v, want a minute each", a, b)
	}
}

func checkBatchSizes(c *check) {
	c.batch(nil)
	const n = 500
	ops := make([]store.Op, n)
	for i := range ops {
		ops[i] = c.count(fmt.Sprint(i%400), n, 1)
	}
	for i, r := range c.batch(ops) {
		c.wantResult(fmt.Sprint("operation ", i, " of ", n), r, 1, int64(1+i/400))
	}
}

func checkBatchBad(c *check) {
	b, ok := store.As[store.BatchRegisters](c.s)
	if !ok {
		c.Fatalf("the store has no BatchRegisters, though another that Open returned has")
	}
	for what, op := range c.badOps("bad") {
		ops := []store.Op{c.count("good", 10, 1), op, c.count("good", 10, 1)}
		if err := b.AdvanceBatch(c.ctx, ops, make([]store.Result, 3)); !errors.Is(err, store.ErrOp) {
			c.Errorf("%s: AdvanceBatch returns the error %v, want one that is store.ErrOp", what, err)
		}
	}
	c.wantCount("the bad operations' register", c.count("bad", 10, 0), 0, 0)
}

func checkBatchContended(c *check) {
	b, _ := store.As[store.BatchRegisters](c.s)
	const registers, fits = 8, 100
	var totals [registers]atomic.Int64
	together(16, func(g int) {
		rnd := rand.New(rand.NewPCG(uint64(g), 5))
		for range 10 {
			order := rnd.Perm(registers)
			ops, res := make([]store.Op, registers), make([]store.Result, registers)
			for i, k := range order {
				ops[i] = c.count(fmt.Sprint(k), fits, 1)
			}
			if err := b.AdvanceBatch(c.ctx, ops, res); err != nil {
				c.Errorf("AdvanceBatch: %v", err)
				return
			}
			for i, k := range order {
				totals[k].Add(res[i].Granted)
			}
		}
	})
	for k := range registers {
		if n := totals[k].Load(); n != fits {
			c.Errorf("register %d has granted %d in total, want %d", k, n, fits)
		}
	}
}

func checkAllApplied(c *check) {
	a, b, d := c.count("a", 10, 2), c.count("b", 10, 3), c.count("d", 10, 1)
	d.Max = 20
	clock := c.clock("k", hour, time.Minute)
	res, ok := c.all([]store.Op{b, a, d, clock})
	if !ok {
		c.Errorf("AdvanceAll of operations that fit reports that it applied none")
	}
	c.wantResult("the first", res[0], 3, 3)
	c.wantResult("the second", res[1], 2, 2)
	c.wantResult("one that takes as many as fit", res[2], 10, 10)
	if r := res[3]; r.Granted != 1 || r.Value != r.Now+int64(time.Minute) {
		c.Errorf("a clock among counts: %+v, want a minute", r)
	}
	a.Min, a.Max = 0, 0
	c.wantCount("read afterwards", a, 0, 2)
	c.wantCount("the other, exactly what is left", c.count("b", 10, 7), 7, 10)
	// Min zero can always be granted, and one that gives back too.
	d.Min, a.Step, a.Min, a.Max = 0, -1, 1, 1
	res, ok = c.all([]store.Op{d, a})
	if !ok {
		c.Errorf("AdvanceAll of one with Min zero and one that gives back reports that it applied none")
	}
	c.wantResult("Min zero, none fit", res[0], 0, 10)
	c.wantResult("one that gives back", res[1], 1, 1)
	if _, ok := c.all([]store.Op{a}); !ok {
		c.Errorf("AdvanceAll of one operation reports that it applied none")
	}
}

func checkAllRefused(c *check) {
	c.wantCount("fill one", c.count("full", 10, 9), 9, 9)
	c.wantCount("half fill another", c.count("half", 10, 5), 5, 5)
	clock := c.clock("k", 2*hour, hour)
	clocked := c.advance(clock)
	half, full, some := c.count("half", 10, 2), c.count("full", 10, 2), c.count("some", 10, 1)
	some.Max = 4
	back := c.count("half2", 10, 1)
	c.wantCount("another, to give back to", back, 1, 1)
	back.Step = -1
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {1, 0, 2, 4, 3}} {
		ops := make([]store.Op, len(order))
		at := make([]int, len(order))
		for i, k := range order {
			ops[i], at[k] = []store.Op{half, full, some, clock, back}[k], i
		}
		res, ok := c.all(ops)
		if ok {
			c.Fatalf("AdvanceAll reports that it applied operations of which one does not fit")
		}
		c.wantResult("one that had fit", res[at[0]], 2, 5)
		c.wantResult("the one that did not fit", res[at[1]], 0, 9)
		c.wantResult("one that had fit and is absent", res[at[2]], 4, 0)
		if r := res[at[3]]; r.Granted != 1 || r.Value != clocked.Value {
			c.Errorf("a clock that had fit: %+v, want 1 granted and Value %d", r, clocked.Value)
		}
		c.wantResult("one that had given back", res[at[4]], 1, 1)
	}
	for what, want := range map[string]int64{"half": 5, "full": 9, "some": 0, "half2": 1} {
		c.wantCount("afterwards", c.count(what, 10, 0), 0, want)
	}
	clock.Min, clock.Max = 0, 0
	if r := c.advance(clock); r.Value != clocked.Value {
		c.Errorf("afterwards the clock has moved by %v", time.Duration(r.Value-clocked.Value))
	}
}

func checkAllAbsent(c *check) {
	fits, not := c.count("fits", 10, 1), c.count("not", 10, 11)
	fits.TTL, not.TTL = hour, hour
	fits.Floor = 3
	if _, ok := c.all([]store.Op{fits, not}); ok {
		c.Fatalf("AdvanceAll reports that it applied operations of which one does not fit")
	}
	for _, op := range []store.Op{fits, not} {
		op.Floor, op.Min, op.Max = -1, 0, 0
		if r := c.wantCount("after a refusal, an absent register", op, 0, -1); r.Expires != 0 {
			c.Errorf("after a refusal an absent register expires in %v, want 0", time.Duration(r.Expires))
		}
	}
}

func checkAllHeal(c *check) {
	for i, t := range []struct {
		what string
		max  int64 // steps that the operation on the high register asks for
		take int64 // from a count of ten
	}{
		{"applied", 1, 1}, {"applied, read", 0, 1}, {"refused", 1, 11}, {"refused, read", 0, 11},
	} {
		key := fmt.Sprint("high", i)
		c.advance(c.clock(key, hour, hour))
		high, count := c.clock(key, 10*time.Second, time.Second), c.count(fmt.Sprint("count", i), 10, t.take)
		high.Min, high.Max = 0, t.max
		res, applied := c.all([]store.Op{count, high})
		if applied != (t.take <= 10) {
			c.Errorf("%s: AdvanceAll reports applied %v", t.what, applied)
		}
		r := res[1]
		if r.Granted != 0 || r.Value != r.Now+high.Ceil {
			c.Errorf("%s: an hour ahead with a Ceil of 10 s: grants %d and leaves Now + %v, want none and Now + 10 s", t.what, r.Granted, time.Duration(r.Value-r.Now))
		}
		high.Ceil, high.Max = int64(2*hour), 0
		if is := c.advance(high); is.Value != r.Value {
			c.Errorf("%s: afterwards the register is at Now + %v, so what was healed was not stored", t.what, time.Duration(is.Value-is.Now))
		}
	}
}

func checkAllEqual(c *check) {
	a, ok := store.As[store.AtomicRegisters](c.s)
	if !ok {
		c.Fatalf("the store has no AtomicRegisters, though another that Open returned has")
	}
	ops := []store.Op{c.count("a", 10, 1), c.count("b", 10, 1), c.count("a", 20, 2)}
	if _, err := a.AdvanceAll(c.ctx, ops, make([]store.Result, 3)); !errors.Is(err, store.ErrOp) {
		c.Errorf("AdvanceAll of two operations on one register returns the error %v, want one that is store.ErrOp", err)
	}
	for _, bad := range c.badOps("bad") {
		ops := []store.Op{c.count("a", 10, 1), bad}
		if _, err := a.AdvanceAll(c.ctx, ops, make([]store.Result, 2)); !errors.Is(err, store.ErrOp) {
			c.Errorf("AdvanceAll of %s returns the error %v, want one that is store.ErrOp", show(bad), err)
		}
	}
	c.wantCount("afterwards", c.count("a", 10, 0), 0, 0)
	c.wantCount("afterwards", c.count("b", 10, 0), 0, 0)
}

func checkAllContended(c *check) {
	a, _ := store.As[store.AtomicRegisters](c.s)
	const registers, fits = 4, 100
	var applied atomic.Int64
	together(16, func(g int) {
		rnd := rand.New(rand.NewPCG(uint64(g), 6))
		for range 12 {
			ops, res := make([]store.Op, registers), make([]store.Result, registers)
			for i, k := range rnd.Perm(registers) {
				ops[i] = c.count(fmt.Sprint(k), fits+int64(k), 1)
			}
			ok, err := a.AdvanceAll(c.ctx, ops, res)
			if err != nil {
				c.Errorf("AdvanceAll: %v", err)
				return
			}
			if ok {
				applied.Add(1)
			}
		}
	})
	if n := applied.Load(); n != fits {
		c.Errorf("%d were applied, want %d: what fits in the smallest of the registers", n, fits)
	}
	for k := range registers {
		c.wantCount(fmt.Sprint("register ", k), c.count(fmt.Sprint(k), fits, 0), 0, fits)
	}
}
