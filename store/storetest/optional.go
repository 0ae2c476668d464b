package storetest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"example.com/plainware/store"
)

var optionalRules = []rule{
	{
		name:  "touch/absent",
		why:   "Touch reports whether the key is there, and never makes one: a session that was ended stays ended.",
		needs: has[store.Toucher],
		check: checkTouchAbsent,
	}, {
		name:  "touch/refused",
		why:   "Touch refuses what is no key and a negative ttl, as Put does, and takes the longest ttl.",
		needs: has[store.Toucher],
		check: checkTouchRefused,
	}, {
		name:  "touch/ttl",
		why:   "Touch makes the key expire ttl from now, sooner or later than before, or never, and keeps its value.",
		needs: has[store.Toucher],
		timed: true,
		check: checkTouchTTL,
	}, {
		name:  "scan/prefix",
		why:   "Scan lists the keys that begin with the prefix, byte by byte, and no others.",
		needs: has[store.Scanner],
		check: checkScan,
	}, {
		name:  "scan/odd",
		why:   "A prefix is no pattern. \"Log out everywhere\" must not log out everybody.",
		needs: has[store.Scanner],
		check: checkScanOdd,
	}, {
		name:  "scan/many",
		why:   "Scan lists each of many keys, can be left early, and the store can be used meanwhile.",
		needs: has[store.Scanner],
		check: checkScanMany,
	}, {
		name:  "scan/values",
		why:   "Scan lists the keys of values, not of registers.",
		needs: all(has[store.Scanner], has[store.Registers]),
		check: checkScanValues,
	}, {
		name:  "scan/expired",
		why:   "An expired key is absent in every respect: Scan does not list it.",
		needs: has[store.Scanner],
		timed: true,
		check: checkScanExpired,
	}, {
		name:  "keep/view",
		why:   "The view that Keep returns has the keys of the store: what is written through either is read through both.",
		needs: has[store.Keeper],
		check: checkKeep,
	},
}

func (c *check) touch(key string, ttl time.Duration) bool {
	c.Helper()
	t, ok := store.As[store.Toucher](c.s)
	if !ok {
		c.Fatalf("the store has no Toucher, though another that Open returned has")
	}
	ok, err := t.Touch(c.ctx, key, ttl)
	if err != nil {
		c.Fatalf("Touch with a ttl of %v: %v", ttl, err)
	}
	return ok
}

func checkTouchAbsent(c *check) {
	k := c.key("k")
	for _, ttl := range []time.Duration{hour, 0} {
		if c.touch(k, ttl) {
			c.Errorf("Touch of an absent key with a ttl of %v reports that it is there", ttl)
		}
		c.wantAbsent("after Touch", k)
		c.wantSwap("create after Touch", k, nil, []byte("v"), hour)
		c.delete(k)
	}
	c.put(k, "v", hour)
	if !c.touch(k, hour) {
		c.Errorf("Touch of a key reports that it is absent")
	}
	if !c.touch(k, hour) {
		c.Errorf("Touch of a key to the same ttl again reports that it is absent")
	}
	c.wantValue("after Touch", k, "v")
	empty := c.key("empty")
	c.put(empty, "", hour)
	if !c.touch(empty, hour) {
		c.Errorf("Touch of a key with the empty value reports that it is absent")
	}
}

func checkTouchRefused(c *check) {
	t, _ := store.As[store.Toucher](c.s)
	for what, k := range c.badKeys() {
		if ok, err := t.Touch(c.ctx, k, hour); ok || !errors.Is(err, store.ErrKey) {
			c.Errorf("%s: Touch returns %v, %v, want false and an error that is store.ErrKey", what, ok, err)
		}
	}
	k := c.key("k")
	c.put(k, "v", hour)
	if ok, err := t.Touch(c.ctx, k, -1); ok || !errors.Is(err, store.ErrTTL) {
		c.Errorf("Touch with a ttl of -1: %v, %v, want false and an error that is store.ErrTTL", ok, err)
	}
	c.touch(k, math.MaxInt64)
	c.wantValue("after Touch with the longest ttl", k, "v")
}

func checkTouchTTL(c *check) {
	longer, ever, shorter, gone := c.key("longer"), c.key("ever"), c.key("shorter"), c.key("gone")
	const first = 2 * brief
	c.put(gone, "v", brief)
	c.put(longer, "v", first)
	c.put(ever, "v", first)
	c.put(shorter, "v", hour)
	wasLonger, wasEver, start := c.touch(longer, hour), c.touch(ever, 0), time.Now()
	c.touch(shorter, brief)
	c.ends("a ttl made shorter by Touch", brief, c.present(shorter))
	c.ends("a key that was not touched", brief, c.present(gone))
	if c.touch(gone, hour) {
		c.Errorf("Touch of an expired key reports that it is there")
	}
	c.wantAbsent("an expired key, after Touch", gone)
	// A slow backend may come too late for these two; it says so then.
	over := first + c.opts.Resolution + 100*time.Millisecond
	if wasLonger {
		c.lives("a ttl made longer by Touch", start, over, c.present(longer))
		c.wantValue("after Touch", longer, "v")
	}
	if wasEver {
		c.lives("a ttl taken away by Touch", start, over, c.present(ever))
	}
}

// scan returns the keys that Scan lists, in order, and fails on an error.
func (c *check) scan(prefix string) []string {
	c.Helper()
	s, ok := store.As[store.Scanner](c.s)
	if !ok {
		c.Fatalf("the store has no Scanner, though another that Open returned has")
	}
	keys := map[string]bool{}
	for k, err := range s.Scan(c.ctx, prefix) {
		if err != nil {
			c.Fatalf("Scan: %v", err)
		}
		keys[k] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

func (c *check) wantScan(what, prefix string, want ...string) {
	c.Helper()
	slices.Sort(want)
	got := c.scan(prefix)
	if slices.Equal(got, want) {
		return
	}
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], c.run)
	}
	for i := range want {
		want[i] = strings.TrimPrefix(want[i], c.run)
	}
	c.Errorf("%s: Scan lists %q, want %q", what, got, want)
}

func checkScan(c *check) {
	c.wantScan("no key", c.run)
	keys := []string{"a", "aa", "aab", "ab", "b", "A", "a/b", "a/c", "é", "è"}
	full := func(names ...string) []string {
		for i, n := range names {
			names[i] = c.key(n)
		}
		return names
	}
	for _, k := range keys {
		c.put(c.key(k), "v", hour)
	}
	c.wantScan("all of the run", c.run, full(slices.Clone(keys)...)...)
	c.wantScan("the prefix a", c.key("a"), full("a", "aa", "aab", "ab", "a/b", "a/c")...)
	c.wantScan("the prefix aa", c.key("aa"), full("aa", "aab")...)
	c.wantScan("the prefix b", c.key("b"), full("b")...)
	c.wantScan("the prefix A", c.key("A"), full("A")...)
	c.wantScan("the prefix a/", c.key("a/"), full("a/b", "a/c")...)
	c.wantScan("the prefix é", c.key("é"), full("é")...)
	c.wantScan("a prefix of none", c.key("none"))
	c.delete(c.key("aa"))
	c.wantScan("after Delete", c.key("aa"), full("aab")...)
	everything := c.scan("")
	for _, k := range keys {
		if _, found := slices.BinarySearch(everything, c.key(k)); !found && k != "aa" {
			c.Errorf("Scan with an empty prefix leaves out a key")
		}
	}
}

func checkScanOdd(c *check) {
	for _, a := range awkward {
		c.put(c.key(a+"+"), "v", hour)
	}
	for _, a := range awkward {
		var want []string
		for _, b := range awkward {
			if strings.HasPrefix(b+"+", a) {
				want = append(want, c.key(b+"+"))
			}
		}
		c.wantScan(fmt.Sprintf("the prefix %q", a), c.key(a), want...)
	}
	c.put(c.key("\U0010ffff\U0010ffff"), "v", hour)
	c.wantScan("the greatest prefix", c.key("\U0010ffff\U0010ffff"), c.key("\U0010ffff\U0010ffff"))
}

func checkScanMany(c *check) {
	const n = 300
	var want []string
	for i := range n {
		k := c.key(fmt.Sprint("k", i))
		c.put(k, "v", hour)
		want = append(want, k)
	}
	c.wantScan("many", c.key("k"), want...)

	s, _ := store.As[store.Scanner](c.s)
	seen := 0
	for k, err := range s.Scan(c.ctx, c.key("k")) {
		if err != nil {
			c.Fatalf("Scan: %v", err)
		}
		// A transaction that is held open, or a lock, shows here.
		c.prompt("Delete during Scan", func() {
			if err := c.s.Delete(c.ctx, k); err != nil {
				c.Errorf("Delete during Scan: %v", err)
			}
		})
		if seen++; seen == n/2 {
			break
		}
	}
	left := c.scan(c.key("k"))
	if len(left) < n-seen || len(left) >= n {
		c.Errorf("%d of %d keys are left after up to %d were deleted while scanning", len(left), n, seen)
	}
	ended, cancel := c.cancelled()
	defer cancel()
	c.prompt("Scan", func() {
		var got int
		var failed bool
		for k, err := range s.Scan(ended, c.key("k")) {
			if failed {
				c.Errorf("Scan yields more after an error")
			}
			if failed = err != nil; failed && k != "" {
				c.Errorf("Scan yields a key together with an error")
			}
			got++
		}
		if !failed && got < len(left) {
			c.Errorf("Scan with a cancelled context lists %d of %d keys and no error", got, len(left))
		}
	})
	c.put(c.key("after"), "v", hour)
	c.wantValue("after scans that were left", c.key("after"), "v")
}

func checkScanValues(c *check) {
	c.put(c.key("value"), "v", hour)
	op := c.count("register", 10, 1)
	op.Space = c.run
	c.wantCount("a register", op, 1, 1)
	op.Space, op.Key = c.key("space"), c.key("key")
	c.wantCount("another", op, 1, 1)
	c.wantScan("beside registers", c.run, c.key("value"))
}

func checkScanExpired(c *check) {
	c.put(c.key("stays"), "v", hour)
	c.put(c.key("goes"), "v", brief)
	c.ends("a key that Scan lists", brief, func() bool {
		return slices.Contains(c.scan(c.run), c.key("goes"))
	})
	c.wantScan("after the other expired", c.run, c.key("stays"))
}

func checkKeep(c *check) {
	k, ok := store.As[store.Keeper](c.s)
	if !ok {
		c.Fatalf("the store has no Keeper, though another that Open returned has")
	}
	view, err := k.Keep()
	if err != nil {
		// It may be unable to promise it, as this backend is set up.
		c.Logf("Keep: %v", err)
		return
	}
	if view == nil {
		c.Fatalf("Keep returns neither a view nor an error")
	}
	a, b := c.key("a"), c.key("b")
	c.put(a, "1", hour)
	if err := view.Put(c.ctx, b, []byte("2"), hour); err != nil {
		c.Fatalf("Put through the view: %v", err)
	}
	c.wantValue("written through the view", b, "2")
	if v, ok, err := view.Get(c.ctx, a); err != nil || !ok || string(v) != "1" {
		c.Errorf("written through the store; Get through the view: %s, %v, %v", short(v), ok, err)
	}
	if ok, err := view.CompareAndSwap(c.ctx, a, nil, []byte("claimed"), hour); ok || err != nil {
		c.Errorf("claim through the view of what is there: %v, %v, want no swap", ok, err)
	}
	if ok, err := view.CompareAndSwap(c.ctx, a, []byte("1"), []byte("kept"), hour); !ok || err != nil {
		c.Errorf("swap through the view: %v, %v, want a swap", ok, err)
	}
	c.wantValue("swapped through the view", a, "kept")
	c.wantSwap("swap through the store of what the view wrote", a, []byte("kept"), []byte("3"), hour)
	if err := view.Delete(c.ctx, b); err != nil {
		c.Errorf("Delete through the view: %v", err)
	}
	c.wantAbsent("deleted through the view", b)
	c.delete(a)
	if _, ok, err := view.Get(c.ctx, a); ok || err != nil {
		c.Errorf("deleted through the store; Get through the view: %v, %v", ok, err)
	}
	if err := view.Put(c.ctx, "", nil, 0); !errors.Is(err, store.ErrKey) {
		c.Errorf("Put of an empty key through the view returns the error %v, want one that is store.ErrKey", err)
	}
	if err := view.Put(c.ctx, a, nil, -1); !errors.Is(err, store.ErrTTL) {
		c.Errorf("Put with a negative ttl through the view returns the error %v, want one that is store.ErrTTL", err)
	}
	winners(c, c.s, view)
}
