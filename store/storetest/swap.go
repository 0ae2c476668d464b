package storetest

import (
	"strconv"
	"sync/atomic"

	"example.com/plainware/store"
)

var swapRules = []rule{
	{
		name:  "swap/value",
		why:   "CompareAndSwap sets the value if the old one is equal. One that lost changes nothing and is no error.",
		check: checkSwap,
	}, {
		name:  "swap/create",
		why:   "With a nil old, CompareAndSwap needs the key to be absent. Claims of replay guards are made so.",
		check: checkSwapCreate,
	}, {
		name:  "swap/delete",
		why:   "With a nil new, CompareAndSwap deletes the key, so that only the owner of a claim can release it.",
		check: checkSwapDelete,
	}, {
		name:  "swap/empty",
		why:   "An empty old needs the empty value, a nil one needs no value; an empty new sets the empty value.",
		check: checkSwapEmpty,
	}, {
		name:  "swap/same",
		why:   "A swap to the same value is a swap. Some databases count only rows that differ afterwards.",
		check: checkSwapSame,
	}, {
		name:  "swap/winner",
		why:   "Of many that swap the same old value at the same time, one wins. With two, a request is replayed.",
		check: checkWinner,
	}, {
		name:  "swap/count",
		why:   "Counting by Get and CompareAndSwap from many goroutines loses no update.",
		check: checkSwapCount,
	}, {
		name:  "swap/handles",
		why:   "One wins also if the callers are in different processes.",
		needs: hasSecond,
		check: checkWinnerHandles,
	},
}

func checkSwap(c *check) {
	k := c.key("k")
	c.put(k, "one", 0)
	c.wantNoSwap("the old value is another", k, []byte("two"), []byte("three"), 0)
	c.wantValue("after a lost swap", k, "one")
	c.wantNoSwap("the old value begins with the value", k, []byte("one more"), []byte("three"), 0)
	c.wantNoSwap("the value begins with the old value", k, []byte("o"), []byte("three"), 0)
	c.wantSwap("the old value is the value", k, []byte("one"), []byte("two"), 0)
	c.wantValue("after a swap", k, "two")
	c.wantNoSwap("the key is absent", c.key("absent"), []byte("one"), []byte("two"), 0)
	c.wantAbsent("after a lost swap of an absent key", c.key("absent"))
}

func checkSwapCreate(c *check) {
	k := c.key("k")
	c.wantSwap("the key is absent", k, nil, []byte("first"), hour)
	c.wantNoSwap("the key is there", k, nil, []byte("second"), hour)
	c.wantValue("after the second", k, "first")
	c.delete(k)
	c.wantSwap("the key was deleted", k, nil, []byte("third"), hour)
	c.wantValue("after the third", k, "third")
}

func checkSwapDelete(c *check) {
	k := c.key("k")
	c.put(k, "mine", 0)
	c.wantNoSwap("the old value is another", k, []byte("theirs"), nil, 0)
	c.wantValue("after a lost swap", k, "mine")
	c.wantSwap("the old value is the value", k, []byte("mine"), nil, hour)
	c.wantAbsent("after a swap to nil", k)
	c.wantNoSwap("the key is absent", k, []byte("mine"), nil, 0)
	c.wantSwap("nil to nil, the key is absent", k, nil, nil, 0)
	c.wantAbsent("after a swap from nil to nil", k)
	c.put(k, "again", 0)
	c.wantNoSwap("nil to nil, the key is there", k, nil, nil, 0)
	c.wantValue("after a lost swap from nil to nil", k, "again")
}

func checkSwapEmpty(c *check) {
	k, empty := c.key("k"), []byte{}
	c.wantNoSwap("empty old, the key is absent", k, empty, []byte("v"), 0)
	c.wantAbsent("after a lost swap", k)
	c.wantSwap("nil old, the key is absent", k, nil, empty, 0)
	c.wantValue("after a swap to the empty value", k, "")
	c.wantNoSwap("nil old, the value is empty", k, nil, []byte("v"), 0)
	c.wantSwap("empty old, the value is empty", k, empty, []byte("v"), 0)
	c.wantNoSwap("empty old, the value is not", k, empty, []byte("w"), 0)
	c.wantSwap("to the empty value", k, []byte("v"), empty, 0)
	c.wantSwap("from the empty value to nil", k, empty, nil, 0)
	c.wantAbsent("after a swap from the empty value to nil", k)
}

func checkSwapSame(c *check) {
	k := c.key("k")
	c.put(k, "v", 0)
	c.wantSwap("to the same value", k, []byte("v"), []byte("v"), 0)
	c.wantSwap("to the same value again", k, []byte("v"), []byte("v"), hour)
	c.wantValue("afterwards", k, "v")
}

// contenders is how many goroutines contend for one key.
const contenders = 64

func checkWinner(c *check) { winners(c, c.s, c.s) }

func checkWinnerHandles(c *check) { winners(c, c.s, c.second()) }

// winners checks that one of many wins, half of them through each handle: a
// key that is to be created, one to be changed, one to be deleted.
func winners(c *check, handles ...store.Store) {
	for _, step := range []struct {
		what string
		old  []byte
		new  func(i int) []byte
	}{
		{"create", nil, func(i int) []byte { return []byte(strconv.Itoa(i)) }},
		{"change", []byte("start"), func(i int) []byte { return []byte(strconv.Itoa(i)) }},
		{"delete", []byte("start"), func(int) []byte { return nil }},
	} {
		k := c.key(step.what)
		if step.old != nil {
			c.put(k, string(step.old), hour)
		}
		var won atomic.Int64
		var winner atomic.Int64
		together(contenders, func(i int) {
			ok, err := handles[i%len(handles)].CompareAndSwap(c.ctx, k, step.old, step.new(i), hour)
			if err != nil {
				c.Errorf("%s: CompareAndSwap: %v", step.what, err)
			}
			if ok {
				won.Add(1)
				winner.Store(int64(i))
			}
		})
		if n := won.Load(); n != 1 {
			c.Errorf("%s: %d of %d swaps at the same time report that they won, want 1", step.what, n, contenders)
			continue
		}
		if v := step.new(int(winner.Load())); v != nil {
			c.wantValue(step.what+": the winner's value", k, string(v))
		} else {
			c.wantAbsent(step.what, k)
		}
	}
}

func checkSwapCount(c *check) {
	k := c.key("k")
	c.put(k, "0", 0)
	const goroutines, each = 8, 10
	together(goroutines, func(int) {
		for done, tries := 0, 0; done < each; tries++ {
			if tries == 5000 {
				c.Errorf("%d of %d swaps by one of %d goroutines won in %d tries", done, each, goroutines, tries)
				return
			}
			v, ok, err := c.s.Get(c.ctx, k)
			if err != nil || !ok {
				c.Errorf("Get: %v, %v", ok, err)
				return
			}
			n, err := strconv.Atoi(string(v))
			if err != nil {
				c.Errorf("Get returns what nobody has put: %v", err)
				return
			}
			ok, err = c.s.CompareAndSwap(c.ctx, k, v, []byte(strconv.Itoa(n+1)), hour)
			if err != nil {
				c.Errorf("CompareAndSwap: %v", err)
				return
			}
			if ok {
				done++
			}
		}
	})
	c.wantValue("after the last", k, strconv.Itoa(goroutines*each))
}
