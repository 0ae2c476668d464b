package storetest

import (
	"math"
	"time"

	"example.com/plainware/store"
)

var registerTimeRules = []rule{
	{
		name: "register/heal",
		why: "A clock register that is more than a second above Ceil + Over counts as Ceil: the store's clock went back " +
			"or the policy shrank, and nobody is to be locked out until it comes there again.",
		needs: all(has[store.Registers], heals),
		check: checkHeal,
	}, {
		name:  "register/debt",
		why:   "What others have legitimately charged above Ceil, up to Over, is debt: it is not healed, it is waited for.",
		needs: has[store.Registers],
		check: checkDebt,
	}, {
		name:  "register/expires",
		why:   "Result.Expires is how long the register means something: Value - Floor of a clock, the rest of TTL of a count.",
		needs: has[store.Registers],
		check: checkExpires,
	}, {
		name: "register/opens",
		why: "A count begins, and its TTL with it, with the first operation that grants something: one that gives back, or has a " +
			"Step of zero, too, which leaves it at Floor. Backends that differ here open a quota at different times.",
		needs: has[store.Registers],
		check: checkOpens,
	}, {
		name:  "register/longest",
		why:   "Any TTL that is not negative is good, the longest included.",
		needs: has[store.Registers],
		check: checkLongestCount,
	}, {
		name:  "register/time",
		why:   "Result.Now is the store's clock in nanoseconds since 1970, and it runs.",
		needs: has[store.Registers],
		timed: true,
		check: checkNow,
	}, {
		name:  "register/refill",
		why:   "A token bucket refills one token in each Step, none earlier.",
		needs: has[store.Registers],
		timed: true,
		check: checkRefill,
	}, {
		name:  "register/ttl",
		why:   "A count ends TTL after the operation that created it. Later ones do not prolong it: a quota opens again.",
		needs: has[store.Registers],
		timed: true,
		check: checkCountTTL,
	}, {
		name:  "register/early",
		why:   "A count does not end before its TTL: a quota would open too soon.",
		needs: has[store.Registers],
		timed: true,
		check: checkCountEarly,
	},
}

func heals(p probe) bool { return !p.opts.NoHeal }

// clock returns an operation on a clock register that takes one step.
func (c *check) clock(key string, ceil, step time.Duration) store.Op {
	return store.Op{Space: c.run + "clock", Key: key, Clock: true, Ceil: int64(ceil), Step: int64(step), Min: 1, Max: 1}
}

func checkHeal(c *check) {
	// The policy was one of an hour; now it is one of ten seconds.
	large, small := c.clock("k", hour, hour), c.clock("k", 10*time.Second, time.Second)
	if r := c.advance(large); r.Granted != 1 {
		c.Fatalf("Advance %s grants %d, want 1", show(large), r.Granted)
	}
	r := c.advance(small)
	if r.Granted != 0 || r.Value != r.Now+small.Ceil {
		c.Errorf("an hour ahead with a Ceil of 10 s: grants %d and leaves Now + %v, want none and Now + 10 s", r.Granted, time.Duration(r.Value-r.Now))
	}
	small.Min, small.Max = 0, 0
	if again := c.advance(small); again.Value > r.Value {
		c.Errorf("the healed register is at Now + %v when read, so it was not stored", time.Duration(again.Value-again.Now))
	}
	// Within the slack it stays.
	slack := c.clock("slack", 10*time.Second, 10*time.Second)
	before := c.advance(slack)
	slack.Ceil, slack.Step = int64(9500*time.Millisecond), int64(time.Second)
	if r := c.advance(slack); r.Now-before.Now < int64(time.Second) && (r.Granted != 0 || r.Value != before.Value) {
		c.Errorf("half a second above Ceil: grants %d and moves the register by %v, want it left alone", r.Granted, time.Duration(r.Value-before.Value))
	}
	// Healing makes room for what gives back, too.
	back := c.clock("back", hour, hour)
	c.advance(back)
	back.Ceil, back.Step = int64(10*time.Second), -int64(time.Second)
	if r := c.advance(back); r.Granted != 1 || r.Value != r.Now+int64(9*time.Second) {
		c.Errorf("giving back a second to a register that is healed to 10 s: grants %d and leaves Now + %v, want 1 and Now + 9 s",
			r.Granted, time.Duration(r.Value-r.Now))
	}
	// With a Ceil far below Floor nothing fits, whatever is there, and what
	// counts as Ceil is raised to Floor again, where it means nothing.
	for name, start := range map[string]time.Duration{"far above": hour, "between": 15 * time.Second, "absent": 0} {
		under := c.clock("under "+name, hour, start)
		if start != 0 {
			c.advance(under)
		}
		under.Floor, under.Ceil, under.Step = int64(20*time.Second), int64(10*time.Second), int64(time.Second)
		full := under
		full.Ceil, full.Min, full.Max = under.Floor+under.Step, 0, 0
		for _, step := range []int64{1, 0, -1} {
			op := under
			op.Step *= step
			want := int64(0)
			if step < 1 {
				want = 1
			}
			if r := c.advance(op); r.Granted != want || r.Value != r.Now+op.Floor || r.Expires != 0 {
				c.Errorf("%s, Advance %s grants %d and leaves Now + %v, which expires in %v; want %d and Now + 20 s, which has expired",
					name, show(op), r.Granted, time.Duration(r.Value-r.Now), time.Duration(r.Expires), want)
			}
			if r := c.advance(full); r.Value != r.Now+full.Floor || r.Expires != 0 {
				c.Errorf("%s, after Advance %s, a sound policy finds Now + %v, want its Floor: the register was healed",
					name, show(op), time.Duration(r.Value-r.Now))
			}
		}
	}
}

func checkDebt(c *check) {
	// Ten seconds of burst, an hour of debt.
	charge := c.clock("k", hour+10*time.Second, time.Second)
	charge.Min, charge.Max = 0, 1800
	charged := c.advance(charge)
	if charged.Granted != 1800 {
		c.Fatalf("charging 1800 s grants %d", charged.Granted)
	}
	admit := c.clock("k", 10*time.Second, time.Second)
	admit.Over = int64(hour)
	for range 2 {
		if r := c.advance(admit); r.Granted != 0 || r.Value != charged.Value {
			c.Errorf("with debt of half an hour: grants %d and moves the register by %v, want neither", r.Granted, time.Duration(r.Value-charged.Value))
		}
	}
	more := c.advance(charge)
	if more.Granted != 1800 || more.Value != charged.Value+int64(1800*time.Second) {
		c.Errorf("charging another 1800 s grants %d and moves the register by %v", more.Granted, time.Duration(more.Value-charged.Value))
	}
	if full := c.advance(charge); full.Granted > 10 {
		c.Errorf("charging above Ceil grants %d, want what fits: 10", full.Granted)
	}
}

func checkExpires(c *check) {
	clock := c.clock("k", hour, time.Minute)
	clock.Floor = int64(time.Second)
	r := c.advance(clock)
	if want := int64(time.Minute); r.Expires != want || r.Value != r.Now+clock.Floor+want {
		c.Errorf("a clock a minute above Floor expires in %v, want that minute", time.Duration(r.Expires))
	}
	end := r.Value
	clock.Min, clock.Max = 0, 0
	if r := c.advance(clock); r.Value != end || r.Expires != r.Value-r.Now-clock.Floor {
		c.Errorf("read again: %+v, want Value %d and Expires %d", r, end, end-r.Now-clock.Floor)
	}
	clock.Key = "absent"
	if r := c.advance(clock); r.Expires != 0 || r.Value != r.Now+clock.Floor {
		c.Errorf("an absent clock: %+v, want Now + Floor, which expires in 0", r)
	}

	ever := c.count("ever", 10, 1)
	if r := c.advance(ever); r.Expires != 0 {
		c.Errorf("a count without TTL expires in %v, want 0, which is never", time.Duration(r.Expires))
	}
	count := c.count("k", 10, 1)
	count.TTL = hour
	begun := time.Now()
	r = c.advance(count)
	took := int64(time.Since(begun))
	slack := int64(max(c.opts.Resolution, time.Millisecond))
	if r.Expires > int64(hour)+slack || r.Expires < int64(hour)-slack {
		c.Errorf("a count that was created with a TTL of an hour expires in %v", time.Duration(r.Expires))
	}
	// Of a server that pauses in the middle of a call, Now and Expires are of two
	// instants in it, so that the end is known to what the call has taken.
	end = r.Now + r.Expires
	for _, change := range []func(*store.Op){
		func(op *store.Op) {},
		func(op *store.Op) { op.TTL = 2 * hour },
		func(op *store.Op) { op.TTL = time.Minute },
		func(op *store.Op) { op.TTL = 0 },
		func(op *store.Op) { op.Step = -1 },
		func(op *store.Op) { op.Min, op.Max = 0, 0 },
		func(op *store.Op) { op.Ceil = 0 },
	} {
		op := count
		change(&op)
		begun := time.Now()
		r := c.advance(op)
		within := slack + took + int64(time.Since(begun))
		if d := r.Now + r.Expires - end; d > within || d < -within {
			c.Errorf("Advance %s moves the end of a count by %v, want it kept", show(op), time.Duration(d))
		}
	}
}

func checkOpens(c *check) {
	slack := int64(max(c.opts.Resolution, time.Millisecond))
	for what, step := range map[string]int64{"gives back": -1, "has a Step of zero": 0} {
		op := c.count(what, 10, 2)
		op.Floor, op.Step, op.TTL = 3, step, hour
		begun := time.Now()
		r := c.wantCount("to an absent count, one that "+what, op, 2, 3)
		within := slack + int64(time.Since(begun))
		if r.Expires > int64(hour)+slack || r.Expires < int64(hour)-slack {
			c.Errorf("a count that was created by one that %s expires in %v, want the TTL of an hour", what, time.Duration(r.Expires))
		}
		end := r.Now + r.Expires
		op.Step, op.TTL = 1, 2*hour
		begun = time.Now()
		r = c.wantCount("the next", op, 2, 5)
		within += int64(time.Since(begun)) // as in checkExpires
		if d := r.Now + r.Expires - end; d > within || d < -within {
			c.Errorf("a count that was created by one that %s is created again by the next: its end moves by %v", what, time.Duration(d))
		}
	}
	// What grants nothing creates nothing.
	op := c.count("none", 10, 0)
	op.Step, op.TTL = -1, hour
	if r := c.wantCount("giving back nothing", op, 0, 0); r.Expires != 0 {
		c.Errorf("giving back nothing to an absent count leaves one that expires in %v, want 0", time.Duration(r.Expires))
	}
}

func checkLongestCount(c *check) {
	op := c.count("k", 10, 1)
	op.TTL = math.MaxInt64
	c.wantCount("a TTL of 292 years", op, 1, 1)
	c.wantCount("once more", op, 1, 2)
}

func checkNow(c *check) {
	read := c.count("k", 10, 0)
	before := time.Now()
	first := c.advance(read)
	answered := time.Now()
	const year = 365 * 24 * int64(time.Hour)
	if first.Now < 20*year || first.Now > 200*year {
		c.Errorf("Result.Now is %d, which is not nanoseconds since 1970", first.Now)
	}
	c.pause(300 * time.Millisecond)
	asked := time.Now()
	second := c.advance(read)
	after := time.Now()
	// The store's clock may be a little slower or faster than this one.
	const off = 50 * time.Millisecond
	passed := time.Duration(second.Now - first.Now)
	if least, most := asked.Sub(answered)-off-c.opts.Resolution, after.Sub(before)+off+c.opts.Resolution; passed < least || passed > most {
		c.Errorf("%v passed on the store's clock between two calls, want %v to %v", passed, least, most)
	}
}

func checkRefill(c *check) {
	// Three tokens, another one each 300 ms.
	const step = 300 * time.Millisecond
	op := c.clock("k", 3*step, step)
	op.Min, op.Max = 3, 3
	start := time.Now()
	first := c.advance(op)
	if first.Granted != 3 {
		c.Fatalf("a full bucket of 3 grants %d", first.Granted)
	}
	op.Min, op.Max = 1, 1
	granted := int64(0)
	for granted < 2 {
		age := time.Since(start)
		r := c.advance(op)
		granted += r.Granted
		// Judged by the store's own clock, to the nanosecond.
		if fits := (r.Now - first.Now) / int64(step); granted > fits {
			c.Errorf("%d tokens %v after the bucket was empty, want %d: one each %v", granted, time.Duration(r.Now-first.Now), fits, step)
			return
		}
		if granted < 2 && age > 3*step+soon {
			c.Errorf("%d tokens %v after the bucket was empty, want one each %v", granted, age, step)
			return
		}
		c.pause(5 * time.Millisecond)
	}
}

func checkCountTTL(c *check) {
	// A busy one, to which operations come all the time, and one left alone.
	busy, alone := c.count("busy", 1000, 1), c.count("alone", 10, 10)
	busy.TTL, alone.TTL = brief, brief
	c.wantCount("create", alone, 10, 10)
	start := time.Now()
	created := c.advance(busy)
	for last := created.Value; ; {
		age := time.Since(start)
		r := c.advance(busy)
		if r.Value <= last {
			if r.Value != 1 {
				c.Errorf("a count that has ended begins again at %d, want 1", r.Value)
			}
			break
		}
		last = r.Value
		if age > brief+c.opts.Resolution+soon {
			c.Errorf("a count with a TTL of %v, that is in use, has not ended after %v", brief, age)
			break
		}
		c.pause(10 * time.Millisecond)
	}
	c.ends("a count that is left alone", brief, func() bool {
		op := alone
		op.Min, op.Max = 0, 0
		return c.advance(op).Value != 0
	})
	// It may begin again with another policy.
	alone.Floor, alone.Min, alone.Max, alone.TTL = 5, 1, 1, hour
	c.wantCount("after its end", alone, 1, 6)
}

func checkCountEarly(c *check) {
	op := c.count("k", 1000, 1)
	op.TTL = brief + 456789*time.Nanosecond
	read := op
	read.Min, read.Max = 0, 0
	start := time.Now()
	c.advance(op)
	c.lives("a count", start, op.TTL, func() bool { return c.advance(read).Value != 0 })
}
