package storetest

import (
	"errors"
	"math"
	"time"

	"example.com/plainware/store"
)

var ttlRules = []rule{
	{
		name:  "ttl/negative",
		why:   "A negative ttl is refused with store.ErrTTL and nothing is written: it comes of a subtraction that went wrong.",
		check: checkNegativeTTL,
	}, {
		name:  "ttl/longest",
		why:   "Any ttl that is not negative is good, the longest included. Added to a clock it may overflow into the past.",
		check: checkLongestTTL,
	}, {
		name:  "ttl/early",
		why:   "No key ends before its ttl. A replay guard forgets too soon otherwise.",
		timed: true,
		check: checkEarly,
	}, {
		name:  "ttl/gone",
		why:   "A key is absent soon after its ttl.",
		timed: true,
		check: checkGone,
	}, {
		name:  "ttl/tiny",
		why:   "A ttl below the backend's resolution is rounded up: it is no error and not zero, which is for ever.",
		timed: true,
		check: checkTinyTTL,
	}, {
		name:  "ttl/replaced",
		why:   "Put and CompareAndSwap give the key the ttl that they are called with, whatever it had.",
		timed: true,
		check: checkReplacedTTL,
	}, {
		name:  "ttl/lost",
		why:   "A CompareAndSwap that lost changes nothing: not the ttl either.",
		timed: true,
		check: checkLostTTL,
	}, {
		name:  "ttl/expired",
		why:   "An expired key is absent for CompareAndSwap too: its old value matches nothing, and nil matches it.",
		timed: true,
		check: checkExpiredSwap,
	},
}

// brief is a ttl that a test can wait for.
const brief = 200 * time.Millisecond

func checkNegativeTTL(c *check) {
	k, absent := c.key("k"), c.key("absent")
	c.put(k, "v", hour)
	for _, ttl := range []time.Duration{-1, -time.Hour, math.MinInt64} {
		for _, k := range []string{k, absent} {
			if err := c.s.Put(c.ctx, k, []byte("w"), ttl); !errors.Is(err, store.ErrTTL) {
				c.Errorf("Put with a ttl of %v returns the error %v, want one that is store.ErrTTL", ttl, err)
			}
		}
		ok, err := c.s.CompareAndSwap(c.ctx, k, []byte("v"), []byte("w"), ttl)
		if ok || !errors.Is(err, store.ErrTTL) {
			c.Errorf("CompareAndSwap with a ttl of %v: %v, %v, want no swap and store.ErrTTL", ttl, ok, err)
		}
	}
	c.wantValue("afterwards", k, "v")
	c.wantAbsent("afterwards", absent)
}

func checkLongestTTL(c *check) {
	for _, ttl := range []time.Duration{math.MaxInt64, 200 * 365 * 24 * time.Hour, 100 * 365 * 24 * time.Hour} {
		k := c.key(ttl.String())
		c.put(k, "v", ttl)
		c.wantValue("Put with a ttl of "+ttl.String(), k, "v")
		c.wantSwap("CompareAndSwap with a ttl of "+ttl.String(), k, []byte("v"), []byte("w"), ttl)
		c.wantValue("CompareAndSwap with a ttl of "+ttl.String(), k, "w")
		c.delete(k)
	}
}

func checkEarly(c *check) {
	put, created, swapped := c.key("put"), c.key("created"), c.key("swapped")
	start := time.Now()
	c.put(put, "v", brief)
	c.lives("Put", start, brief, c.present(put))

	// Not a whole number of any unit, which is where rounding down shows.
	const ttl = 123*time.Millisecond + 456789*time.Nanosecond
	start = time.Now()
	c.swap(created, nil, []byte("v"), ttl)
	c.lives("CompareAndSwap of an absent key", start, ttl, c.present(created))

	c.put(swapped, "v", 0)
	start = time.Now()
	c.swap(swapped, []byte("v"), []byte("w"), ttl)
	c.lives("CompareAndSwap", start, ttl, c.present(swapped))
}

func checkGone(c *check) {
	put, created, swapped := c.key("put"), c.key("created"), c.key("swapped")
	c.put(swapped, "v", 0)
	c.put(put, "v", brief)
	c.swap(created, nil, []byte("v"), brief)
	c.swap(swapped, []byte("v"), []byte("w"), brief)
	c.ends("Put", brief, c.present(put))
	c.ends("CompareAndSwap of an absent key", brief, c.present(created))
	c.ends("CompareAndSwap", brief, c.present(swapped))
}

func checkTinyTTL(c *check) {
	for _, ttl := range []time.Duration{1, time.Microsecond, 999 * time.Microsecond} {
		put, created := c.key("put"+ttl.String()), c.key("created"+ttl.String())
		c.put(put, "v", ttl)
		c.swap(created, nil, []byte("v"), ttl)
		c.ends("Put", ttl, c.present(put))
		c.ends("CompareAndSwap", ttl, c.present(created))
	}
}

func checkReplacedTTL(c *check) {
	longer := map[string]func(key string) bool{
		"Put":            func(key string) bool { c.put(key, "w", hour); return true },
		"Put for ever":   func(key string) bool { c.put(key, "w", 0); return true },
		"swap":           func(key string) bool { return c.swap(key, []byte("v"), []byte("w"), hour) },
		"swap for ever":  func(key string) bool { return c.swap(key, []byte("v"), []byte("w"), 0) },
		"swap to itself": func(key string) bool { return c.swap(key, []byte("v"), []byte("v"), hour) },
	}
	shorter := map[string]func(key string){
		"Put":            func(key string) { c.put(key, "w", brief) },
		"swap":           func(key string) { c.swap(key, []byte("v"), []byte("w"), brief) },
		"swap to itself": func(key string) { c.swap(key, []byte("v"), []byte("v"), brief) },
	}
	// What is to become longer gets enough that a slow backend comes in time,
	// and where it does not, the swap loses and is left out.
	const first = 2 * brief
	began := map[string]time.Time{}
	for name := range longer {
		c.put(c.key("longer "+name), "v", first)
	}
	for name, f := range longer {
		if f(c.key("longer " + name)) {
			began[name] = time.Now()
		}
	}
	for name, f := range shorter {
		k := c.key("shorter " + name)
		c.put(k, "v", hour)
		f(k)
	}
	for name := range shorter {
		c.ends("a ttl made shorter by "+name, brief, c.present(c.key("shorter "+name)))
	}
	for name, start := range began {
		c.lives("a ttl made longer by "+name, start, first+c.opts.Resolution+100*time.Millisecond, c.present(c.key("longer "+name)))
	}
}

func checkLostTTL(c *check) {
	shorter, longer := c.key("shorter"), c.key("longer")
	began := time.Now()
	c.put(shorter, "v", brief)
	c.put(longer, "v", hour)
	late := false
	for range 3 {
		c.swap(shorter, []byte("other"), []byte("w"), hour)
		// On a slow machine it may have ended by now, and the swap has won.
		won := !late && c.swap(shorter, nil, []byte("w"), hour)
		if age := time.Since(began); won && age < brief {
			c.Errorf("CompareAndSwap from nil wins less than %v after Put with a ttl of %v", age, brief)
		}
		late = late || won
		c.swap(longer, []byte("other"), []byte("w"), brief)
		c.swap(longer, nil, []byte("w"), brief)
	}
	start := time.Now()
	if !late {
		c.ends("a key with a short ttl, after swaps with a long one that lost", brief, c.present(shorter))
	}
	c.lives("a key with a long ttl, after swaps with a short one that lost", start,
		brief+c.opts.Resolution+100*time.Millisecond, c.present(longer))
}

func checkExpiredSwap(c *check) {
	k, created := c.key("k"), c.key("created")
	c.put(k, "v", brief)
	c.put(created, "v", brief)
	// CompareAndSwap itself is asked, since Get may be the one that reclaims.
	// One from a value to itself would prolong it, so the new one is absent too.
	c.ends("CompareAndSwap from nil", brief, func() bool {
		return !c.swap(created, nil, []byte("new"), hour)
	})
	c.wantValue("created over an expired key", created, "new")
	c.ends("the other key", brief, c.present(k))
	c.wantNoSwap("the old value has expired", k, []byte("v"), []byte("w"), hour)
	c.wantAbsent("after the lost swap", k)
	c.wantNoSwap("delete what has expired", k, []byte("v"), nil, 0)
	c.wantSwap("from nil to nil over an expired key", k, nil, nil, 0)
	if err := c.s.Delete(c.ctx, k); err != nil {
		c.Errorf("Delete of an expired key: %v", err)
	}
	c.wantSwap("create over an expired key", k, nil, []byte("again"), hour)
	c.wantValue("afterwards", k, "again")
}
