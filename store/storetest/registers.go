package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

var registerRules = []rule{
	{
		name:  "register/branches",
		why:   "Each branch of Op.Apply, on a count.",
		needs: has[store.Registers],
		check: checkBranches,
	}, {
		name:  "register/model",
		why:   "A random sequence of operations on counts has the results of Op.Apply.",
		needs: has[store.Registers],
		check: checkCountModel,
	}, {
		name:  "register/clock",
		why:   "A random sequence of clock operations has the results of Op.Apply, to the nanosecond, at the instant in Result.Now.",
		needs: has[store.Registers],
		check: checkClockModel,
	}, {
		name:  "register/exact",
		why:   "Counts are exact up to 2^53, below zero too.",
		needs: has[store.Registers],
		check: checkExact,
	}, {
		name:  "register/refund",
		why:   "A negative Step gives back, and never lowers a register below Floor: a bucket never holds more than its burst.",
		needs: has[store.Registers],
		check: checkRefund,
	}, {
		name:  "register/read",
		why:   "An operation that grants nothing changes nothing: it does not create the register either.",
		needs: has[store.Registers],
		check: checkRead,
	}, {
		name:  "register/spaces",
		why:   "Registers and values do not share a space.",
		needs: has[store.Registers],
		check: checkSpaces,
	}, {
		name:  "register/parts",
		why:   "Space and Key are two parts: (\"a\", \"bc\") is not (\"ab\", \"c\"), whatever joins them inside.",
		needs: has[store.Registers],
		check: checkParts,
	}, {
		name:  "register/keys",
		why:   "Space and Key may be any keys that have 512 bytes together; others are refused with store.ErrKey.",
		needs: has[store.Registers],
		check: checkRegisterKeys,
	}, {
		name:  "register/refused",
		why:   "An operation that no backend can do is refused with store.ErrOp and changes nothing.",
		needs: has[store.Registers],
		check: checkBadOps,
	}, {
		name:  "register/contended",
		why:   "From 64 goroutines a register grants exactly what fits, never one more or one less.",
		needs: has[store.Registers],
		check: func(c *check) { contended(c, c.registers()) },
	}, {
		name:  "register/handles",
		why:   "From two handles on a backend together a register grants exactly what fits.",
		needs: all(has[store.Registers], hasSecond),
		check: checkContendedHandles,
	},
}

// count returns an operation that takes n from a count of at most ceil.
func (c *check) count(key string, ceil, n int64) store.Op {
	return store.Op{Space: c.run + "count", Key: key, Ceil: ceil, Step: 1, Min: n, Max: n}
}

func (c *check) advance(op store.Op) store.Result {
	c.Helper()
	r, err := c.registers().Advance(c.ctx, op)
	if err != nil {
		c.Fatalf("Advance %s: %v", show(op), err)
	}
	return r
}

// wantCount checks what a count register is left at, and what was granted.
func (c *check) wantCount(what string, op store.Op, granted, value int64) store.Result {
	c.Helper()
	r := c.advance(op)
	if r.Granted != granted || r.Value != value {
		c.Errorf("%s: Advance %s grants %d and leaves %d, want %d and %d", what, show(op), r.Granted, r.Value, granted, value)
	}
	return r
}

// show is op without its Space and Key, for a message.
func show(op store.Op) string {
	kind := "count"
	if op.Clock {
		kind = "clock"
	}
	return fmt.Sprintf("{%s, Floor %d, Ceil %d, Over %d, Step %d, Min %d, Max %d, TTL %v}",
		kind, op.Floor, op.Ceil, op.Over, op.Step, op.Min, op.Max, op.TTL)
}

func checkBranches(c *check) {
	for i, t := range []struct {
		what           string
		start          int64 // what the register is set to first, from 0; -1 leaves it absent
		op             store.Op
		granted, value int64
	}{
		{"absent, all fit", -1, store.Op{Ceil: 10, Step: 1, Min: 3, Max: 3}, 3, 3},
		{"absent counts as Floor", -1, store.Op{Floor: 4, Ceil: 10, Step: 1, Min: 1, Max: 1}, 1, 5},
		{"absent counts as a negative Floor", -1, store.Op{Floor: -4, Ceil: 10, Step: 2, Min: 1, Max: 1}, 1, -2},
		{"absent, none fit", -1, store.Op{Floor: 4, Ceil: 4, Step: 1, Min: 1, Max: 1}, 0, 4},
		{"absent, read", -1, store.Op{Floor: 7, Ceil: 10, Step: 1}, 0, 7},
		{"all fit", 3, store.Op{Ceil: 10, Step: 1, Min: 2, Max: 2}, 2, 5},
		{"exactly fit", 3, store.Op{Ceil: 10, Step: 1, Min: 7, Max: 7}, 7, 10},
		{"one too many", 3, store.Op{Ceil: 10, Step: 1, Min: 8, Max: 8}, 0, 3},
		{"some fit, and Min is met", 3, store.Op{Ceil: 10, Step: 1, Min: 1, Max: 50}, 7, 10},
		{"some fit, and Min is just met", 3, store.Op{Ceil: 10, Step: 1, Min: 7, Max: 50}, 7, 10},
		{"some fit, and Min is not met", 3, store.Op{Ceil: 10, Step: 1, Min: 8, Max: 50}, 0, 3},
		{"Min zero, some fit", 3, store.Op{Ceil: 5, Step: 1, Max: 9}, 2, 5},
		{"Min zero, none fit", 3, store.Op{Ceil: 3, Step: 1, Max: 9}, 0, 3},
		{"steps are not cut", 3, store.Op{Ceil: 10, Step: 3, Min: 1, Max: 5}, 2, 9},
		{"a step that is larger than the room", 3, store.Op{Ceil: 10, Step: 8, Min: 1, Max: 5}, 0, 3},
		{"a step of exactly the room", 3, store.Op{Ceil: 10, Step: 7, Min: 1, Max: 5}, 1, 10},
		{"above Ceil", 8, store.Op{Ceil: 5, Step: 1, Min: 1, Max: 1}, 0, 8},
		{"above Ceil, Min zero", 8, store.Op{Ceil: 5, Step: 1, Max: 1}, 0, 8},
		{"above Ceil, a count is not healed", 1_000_000, store.Op{Ceil: 5, Step: 1, Min: 1, Max: 1}, 0, 1_000_000},
		{"below Floor", 3, store.Op{Floor: 5, Ceil: 10, Step: 1, Min: 1, Max: 1}, 1, 6},
		{"below Floor, read", 3, store.Op{Floor: 5, Ceil: 10, Step: 1}, 0, 5},
		{"Ceil below Floor", 3, store.Op{Floor: 5, Ceil: 2, Step: 1, Min: 1, Max: 1}, 0, 5},
		{"read", 3, store.Op{Ceil: 10, Step: 1}, 0, 3},
		{"give back", 8, store.Op{Ceil: 10, Step: -1, Min: 3, Max: 3}, 3, 5},
		{"give back above Ceil", 8, store.Op{Ceil: 2, Step: -1, Min: 1, Max: 1}, 1, 7},
		{"give back more than there is", 3, store.Op{Ceil: 10, Step: -2, Min: 4, Max: 4}, 4, 0},
		{"give back to an absent one", -1, store.Op{Floor: 2, Ceil: 10, Step: -1, Min: 1, Max: 1}, 1, 2},
		{"a step of zero", 3, store.Op{Ceil: 10, Min: 2, Max: 6}, 6, 3},
		{"a step of zero above Ceil", 8, store.Op{Ceil: 5, Min: 2, Max: 6}, 6, 8},
		{"a negative step grants Max, not Min", 9, store.Op{Ceil: 10, Step: -1, Min: 1, Max: 4}, 4, 5},
	} {
		key := fmt.Sprint("branch", i)
		if t.start >= 0 {
			c.wantCount(t.what+", the start", c.count(key, t.start, t.start), t.start, t.start)
		}
		t.op.Space, t.op.Key = c.run+"count", key
		c.wantCount(t.what, t.op, t.granted, t.value)
		if t.granted != 0 {
			// What it has done is still done.
			read := c.count(key, 0, 0)
			read.Floor = min(t.value, -10)
			c.wantCount(t.what+", read back", read, 0, t.value)
		}
	}
}

func checkCountModel(c *check) {
	for seed := range uint64(2) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		type state struct {
			value int64
			live  bool
		}
		var model [3]state
		for i := range 200 {
			k := rnd.IntN(len(model))
			op := store.Op{
				Space: c.run + "model", Key: fmt.Sprint(seed, ".", k),
				Floor: []int64{-5, 0, 3}[rnd.IntN(3)], Ceil: rnd.Int64N(25) - 5, Over: rnd.Int64N(3),
				Step: rnd.Int64N(8) - 3, Min: rnd.Int64N(4), TTL: []time.Duration{0, hour}[k%2],
			}
			op.Max = op.Min + rnd.Int64N(5)
			m := &model[k]
			got := c.advance(op)
			want, stored := op.Apply(got.Now, m.value, m.live, false)
			if got.Granted != want.Granted || got.Value != want.Value {
				c.Fatalf("operation %d of seed %d: %s at %d, %v grants %d and leaves %d, want %d and %d",
					i, seed, show(op), m.value, m.live, got.Granted, got.Value, want.Granted, want.Value)
			}
			if stored {
				*m = state{want.Value, true}
			}
		}
	}
}

func checkClockModel(c *check) {
	for seed := range uint64(2) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		type state struct {
			value int64
			live  bool
		}
		var model [4]state
		floors := [4]int64{0, 0, -int64(time.Minute), int64(time.Second)}
		units := []time.Duration{1, 777, time.Microsecond, time.Millisecond + 1, time.Second, 90 * time.Second, time.Hour}
		for i := range 200 {
			k := rnd.IntN(len(model))
			unit := int64(units[rnd.IntN(len(units))])
			op := store.Op{
				Space: c.run + "model", Key: fmt.Sprint(seed, ".", k), Clock: true,
				Floor: floors[k], Ceil: floors[k] + unit*rnd.Int64N(200) + rnd.Int64N(3),
				Step: unit * (rnd.Int64N(8) - 2), Min: rnd.Int64N(3), Over: unit * rnd.Int64N(2) * rnd.Int64N(100),
			}
			op.Max = op.Min + rnd.Int64N(100)
			if rnd.IntN(10) == 0 {
				op.Ceil = op.Floor - unit*rnd.Int64N(5)
			}
			m := &model[k]
			got := c.advance(op)
			want, stored := op.Apply(got.Now, m.value, m.live, !c.opts.NoHeal)
			if got != want {
				c.Fatalf("operation %d of seed %d: %s at %d, %v returns\n%+v, want\n%+v", i, seed, show(op), m.value, m.live, got, want)
			}
			if stored {
				*m = state{want.Value, true}
			}
		}
	}
}

func checkExact(c *check) {
	const most = store.MaxCount - 1
	up := store.Op{Space: c.run + "exact", Key: "up", Ceil: most, Step: 1, Min: most, Max: most}
	c.wantCount("2^53-1 steps of one", up, most, most)
	up.Min, up.Max = 1, 1
	c.wantCount("one more", up, 0, most)
	up.Step = -1
	c.wantCount("one less", up, 1, most-1)
	up.Step, up.Min, up.Max = 1, 0, most
	c.wantCount("as many as fit", up, 1, most)

	one := store.Op{Space: c.run + "exact", Key: "one", Ceil: most, Step: most, Min: 1, Max: 1}
	c.wantCount("one step of 2^53-1", one, 1, most)
	c.wantCount("another", one, 0, most)
	one.Step, one.Min, one.Max = -(most - 2), 1, 1
	c.wantCount("all but two back", one, 1, 2)

	low := store.Op{Space: c.run + "exact", Key: "low", Floor: -most, Ceil: 0, Step: 1, Min: 1, Max: 1}
	c.wantCount("from -2^53+1", low, 1, -most+1)
	low.Min, low.Max = 3, 3
	c.wantCount("three more", low, 3, -most+4)
	low.Step, low.Max = 1, most
	c.wantCount("to zero", low, most-4, 0)
	low.Step, low.Min, low.Max = -1, most, most
	c.wantCount("and back", low, most, -most)

	over := store.Op{Space: c.run + "exact", Key: "over", Ceil: 5, Over: most, Step: 1, Min: 1, Max: 1}
	c.wantCount("the largest Over", over, 1, 1)

	clock := store.Op{Space: c.run + "exact", Key: "clock", Clock: true, Ceil: most, Step: 1, Min: most, Max: most}
	r := c.advance(clock)
	if r.Granted != most || r.Value != r.Now+most || r.Expires != most {
		c.Errorf("a clock 2^53-1 ns ahead: %+v, want Value %d after Now, and Expires the same", r, int64(most))
	}
	clock.Step, clock.Min, clock.Max = -1, 1, 1
	if back := c.advance(clock); back.Value != r.Value-1 {
		c.Errorf("one nanosecond back leaves %d, want %d", back.Value, r.Value-1)
	}
}

func checkRefund(c *check) {
	op := c.count("count", 5, 3)
	op.Floor, op.Ceil = 2, 7
	c.wantCount("take three from a floor of 2", op, 3, 5)
	op.Step = -1
	c.wantCount("give three back", op, 3, 2)
	c.wantCount("give three back that were not taken", op, 3, 2)
	op.Step, op.Min, op.Max = 1, 0, 100
	c.wantCount("take all", op, 5, 7)

	// A bucket of five, an hour each, from which the clock takes nothing here.
	clock := store.Op{Space: c.run + "clock", Key: "k", Clock: true, Ceil: int64(5 * hour), Step: int64(hour), Min: 2, Max: 2}
	took := c.advance(clock)
	clock.Step = -clock.Step
	for range 3 {
		r := c.advance(clock)
		if r.Granted != 2 || r.Value < r.Now {
			c.Errorf("giving two back, more than there are: %+v, want 2 granted and a Value that is not before Now", r)
		}
		if r.Value > max(took.Value, r.Now) {
			c.Errorf("giving two back raised the register to %d, from %d", r.Value, took.Value)
		}
	}
	clock.Step, clock.Min, clock.Max = -clock.Step, 0, 100
	if r := c.advance(clock); r.Granted != 5 {
		c.Errorf("a bucket of 5, into which too many were given back, grants %d", r.Granted)
	}
}

func checkRead(c *check) {
	op := c.count("k", 5, 0)
	op.Floor = 3
	c.wantCount("read an absent one with a Floor of 3", op, 0, 3)
	op.Floor, op.Min, op.Max = 4, 2, 2
	c.wantCount("refused with a Floor of 4", op, 0, 4)
	op.Floor, op.Min, op.Max = 0, 0, 0
	if r := c.wantCount("read with a Floor of 0", op, 0, 0); r.Expires != 0 {
		c.Errorf("an absent register expires in %d ns, want 0", r.Expires)
	}
	op.Min, op.Max = 2, 2
	c.wantCount("take", op, 2, 2)
	op.Min, op.Max = 0, 0
	for range 3 {
		c.wantCount("read", op, 0, 2)
	}
	op.Floor = 4
	c.wantCount("read with a Floor above it", op, 0, 4)
	op.Floor = 0
	c.wantCount("read with a Floor below it again", op, 0, 2)
}

func checkSpaces(c *check) {
	op := c.count("k", 10, 4)
	op.Space = c.key("space")
	joins := []string{op.Space, op.Key, op.Space + op.Key, op.Space + "/" + op.Key, op.Space + ":" + op.Key}
	for _, k := range joins[:1] {
		c.put(k, "value", hour)
	}
	c.put(joins[2], "value", 0)
	c.wantCount("beside values under the same keys", op, 4, 4)
	c.wantValue("a value under the Space of a register", joins[0], "value")
	c.wantValue("a value under the Space and Key of a register", joins[2], "value")
	c.delete(joins[2])
	c.delete(joins[0])
	c.wantCount("after Delete of the values", op, 4, 8)
	for _, k := range joins[2:] {
		c.wantAbsent("a value with the key of a register", k)
		c.wantSwap("create a value with the key of a register", k, nil, []byte("5"), hour)
	}
	c.wantCount("after values were created under the same keys", op, 0, 8)
}

func checkParts(c *check) {
	s := c.key("s")
	pairs := [][2]string{
		{s + "a", "bc"}, {s + "ab", "c"}, {s + "a", "b"}, {s, "abc"},
		{s + ":a", "b"}, {s, ":a:b"}, {s + ":", "a:b"}, {s + "/a", "b"}, {s, "/a/b"}, {s, "a/b"}, {s + "/", "a/b"},
		{s + "\x01", "b"}, {s, "\x01b"}, {s + "{a}", "b"}, {s, "{a}b"}, {s + "{", "a}b"},
		{s + "1", "2"}, {s, "12"}, {s + "|a", "b"}, {s, "|a|b"}, {s + "\x1f", "a"}, {s, "\x1fa"},
		{s + " ", "a"}, {s, " a"}, {s + "a", "BC"}, {s + "A", "bc"}, {"bc", s + "a"}, {s + ",", "a"}, {s, ",a"}, {s + "-a", "b"}, {s, "-a-b"},
	}
	for i, p := range pairs {
		n := int64(i + 1)
		c.wantCount(fmt.Sprintf("Space ending in %q, Key %q: its own register", strings.TrimPrefix(p[0], c.run), p[1]),
			store.Op{Space: p[0], Key: p[1], Ceil: 1000, Step: 1, Min: n, Max: n, TTL: hour}, n, n)
	}
}

func checkRegisterKeys(c *check) {
	op := c.count("", 10, 1)
	for _, a := range awkward {
		op.Space, op.Key = c.key("plain"), a
		c.wantCount(fmt.Sprintf("the Key %q", a), op, 1, 1)
		op.Space, op.Key = c.key(a), "plain"
		c.wantCount(fmt.Sprintf("a Space that ends in %q", a), op, 1, 1)
	}
	room := c.opts.MaxKey - len(c.run)
	for _, n := range []int{1, room / 2, room - 1, room} {
		op.Space, op.Key = c.run+strings.Repeat("s", room-n), strings.Repeat("k", n)
		c.wantCount(fmt.Sprintf("a Key of %d bytes, and a Space of %d", n, len(op.Space)), op, 1, 1)
	}
	op.Space, op.Key = c.run+strings.Repeat("s", room-1), "x"
	c.wantCount("one that differs in the last byte", op, 1, 1)

	refused := func(what string) {
		if _, err := c.registers().Advance(c.ctx, op); !errors.Is(err, store.ErrKey) {
			c.Errorf("%s: Advance returns the error %v, want one that is store.ErrKey", what, err)
		}
	}
	for what, k := range c.badKeys() {
		op.Space, op.Key = c.key("s"), k
		refused("as Key, " + what)
		op.Space, op.Key = k, c.key("k")
		refused("as Space, " + what)
	}
	op.Space, op.Key = c.run+strings.Repeat("s", room/2), strings.Repeat("k", room-room/2+1)
	refused("Space and Key that are a byte too long together")
}

// badOps are operations that no backend can do, on the count c.count(key, …).
func (c *check) badOps(key string) map[string]store.Op {
	ops := map[string]store.Op{}
	bad := func(what string, change func(op *store.Op)) {
		op := c.count(key, 10, 1)
		change(&op)
		ops[what] = op
	}
	const most = store.MaxCount
	bad("a negative Min", func(op *store.Op) { op.Min = -1 })
	bad("a negative Min and Max", func(op *store.Op) { op.Min, op.Max = -2, -2 })
	bad("Max below Min", func(op *store.Op) { op.Min = 2 })
	bad("a negative Over", func(op *store.Op) { op.Over = -1 })
	bad("Over of 2^53", func(op *store.Op) { op.Over = most })
	bad("Floor of -2^53", func(op *store.Op) { op.Floor = -most })
	bad("the lowest Floor", func(op *store.Op) { op.Floor = -1 << 63 })
	bad("Ceil of 2^53", func(op *store.Op) { op.Ceil = most })
	bad("the highest Ceil", func(op *store.Op) { op.Ceil = 1<<63 - 1 })
	bad("Ceil 2^53 above Floor", func(op *store.Op) { op.Floor, op.Ceil = -most/2, most/2 })
	bad("Max of 2^53", func(op *store.Op) { op.Max = most })
	bad("Max times Step of 2^53", func(op *store.Op) { op.Max, op.Step = 1<<27, 1<<26 })
	bad("Max times Step that overflows", func(op *store.Op) { op.Max, op.Step = 1<<40, 1<<40 })
	bad("Max times a negative Step", func(op *store.Op) { op.Max, op.Step = 1<<27, -1<<26 })
	bad("the lowest Step", func(op *store.Op) { op.Step = -1 << 63 })
	bad("a negative TTL", func(op *store.Op) { op.TTL = -1 })
	bad("a clock with a TTL", func(op *store.Op) { op.Clock, op.TTL = true, time.Second })
	return ops
}

func checkBadOps(c *check) {
	c.wantCount("take three", c.count("k", 10, 3), 3, 3)
	for what, op := range c.badOps("k") {
		if r, err := c.registers().Advance(c.ctx, op); !errors.Is(err, store.ErrOp) {
			c.Errorf("%s: Advance %s returns %+v and the error %v, want one that is store.ErrOp", what, show(op), r, err)
		}
	}
	c.wantCount("read afterwards", c.count("k", 10, 0), 0, 3)
}

func checkContendedHandles(c *check) {
	two, ok := store.As[store.Registers](c.second())
	if !ok {
		c.Fatalf("the second handle has no Registers")
	}
	contended(c, c.registers(), two)
}

// contended checks what many goroutines get in total, of a count and of a
// clock register, one at a time and several, while some of them give back.
func contended(c *check, handles ...store.Registers) {
	for _, t := range []struct {
		what string
		op   store.Op
		fits int64
	}{
		{"a count", store.Op{Ceil: 200, Step: 1, Min: 1, Max: 1, TTL: hour}, 200},
		{"a clock", store.Op{Clock: true, Ceil: int64(200 * hour), Step: int64(hour), Min: 1, Max: 1}, 200},
		{"a count, several at once", store.Op{Ceil: 1000, Step: 1, Min: 1, Max: 7}, 1000},
		{"a clock, in threes", store.Op{Clock: true, Ceil: int64(1000 * hour), Step: int64(hour), Min: 3, Max: 3}, 999},
	} {
		op := t.op
		op.Space, op.Key = c.run+"contended", t.what
		var total atomic.Int64
		together(contenders, func(i int) {
			for j := range 8 {
				r, err := handles[i%len(handles)].Advance(c.ctx, op)
				if err != nil {
					c.Errorf("%s: Advance: %v", t.what, err)
					return
				}
				if n := r.Granted; n != 0 && (n < op.Min || n > op.Max) {
					c.Errorf("%s: granted %d, want 0 or %d to %d", t.what, n, op.Min, op.Max)
				}
				total.Add(r.Granted)
				if j == 2 && i%4 == 0 && r.Granted > 0 {
					back := op
					back.Step, back.Min, back.Max = -op.Step, r.Granted, r.Granted
					if _, err := handles[i%len(handles)].Advance(c.ctx, back); err != nil {
						c.Errorf("%s: giving back: %v", t.what, err)
						return
					}
					total.Add(-r.Granted)
				}
			}
		})
		// What was given back late may not have been taken again.
		for {
			r := c.advance(op)
			if r.Granted == 0 {
				break
			}
			if n := total.Add(r.Granted); n > t.fits {
				break
			}
		}
		if n := total.Load(); n != t.fits {
			c.Errorf("%s: %d goroutines were granted %d in total, want %d", t.what, contenders, n, t.fits)
		}
	}
}
