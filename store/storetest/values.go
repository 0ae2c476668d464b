package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

func quote(v []byte) string { return strconv.Quote(string(v)) }

var valueRules = []rule{
	{
		name:  "value/absent",
		why:   "Get of a key that is not there reports false and no error: absence is a result.",
		check: checkAbsent,
	}, {
		name:  "value/put",
		why:   "Get returns what the last Put that returned has set; Put sets it whatever is there.",
		check: checkPut,
	}, {
		name:  "value/empty",
		why:   "An empty value is a value. A store that takes it for no value loses markers, which need no content.",
		check: checkEmpty,
	}, {
		name:  "value/bytes",
		why:   "A value is any bytes, those that are no text included. Sealed sessions are such values.",
		check: checkBytes,
	}, {
		name:  "value/large",
		why:   "A value may have at least 1 MiB.",
		check: checkLarge,
	}, {
		name:  "value/argument",
		why:   "The store copies what it is given: a caller may use its slice again when the call has returned.",
		check: checkArgument,
	}, {
		name:  "value/result",
		why:   "What Get returns belongs to the caller, who may write to it and append to it.",
		check: checkResult,
	}, {
		name:  "value/delete",
		why:   "Delete removes a key, and is no error if it is absent.",
		check: checkDelete,
	}, {
		name:  "value/model",
		why:   "A random sequence of calls has the results that a map under a lock has.",
		check: checkValueModel,
	},
}

func checkAbsent(c *check) {
	v, ok, err := c.s.Get(c.ctx, c.key("nothing"))
	if ok || err != nil {
		c.Errorf("Get of an absent key returns %s, %v, %v, want false and no error", short(v), ok, err)
	}
}

func checkPut(c *check) {
	k, other := c.key("k"), c.key("other")
	c.put(k, "one", 0)
	c.put(other, "else", 0)
	c.wantValue("after Put", k, "one")
	c.put(k, "a longer second value", 0)
	c.wantValue("after the second Put", k, "a longer second value")
	c.put(k, "3", hour)
	c.wantValue("after the third Put, with a ttl", k, "3")
	c.wantValue("another key", other, "else")
}

func checkEmpty(c *check) {
	k := c.key("k")
	for _, v := range []struct {
		name  string
		value []byte
	}{{"an empty value", []byte{}}, {"a nil value", nil}} {
		c.put(k, "something", 0)
		if err := c.s.Put(c.ctx, k, v.value, 0); err != nil {
			c.Fatalf("Put of %s: %v", v.name, err)
		}
		c.wantValue("after Put of "+v.name, k, "")
	}
}

func checkBytes(c *check) {
	v := make([]byte, 0, 512)
	for i := range 256 {
		v = append(v, byte(255-i), byte(i))
	}
	k := c.key("k")
	c.put(k, string(v), 0)
	c.wantValue("a value of all bytes", k, string(v))
	// One that is not text, and differs only in what a text comparison drops.
	for _, s := range []string{"\x00", "\x00\x00", "a\x00b", "a", "A", "a ", "\xff\xfe", "\xc3\x28", "'; --", "\\x41", "\r\n"} {
		c.put(k, s, 0)
		c.wantValue("after Put", k, s)
		for _, not := range []string{s + "\x00", s + " ", s[:len(s)-1]} {
			c.wantNoSwap(fmt.Sprintf("old %q, value %q", not, s), k, []byte(not), []byte("x"), 0)
		}
	}
}

func checkLarge(c *check) {
	v := make([]byte, 1<<20)
	for i := range v {
		v[i] = byte(i ^ i>>8 ^ i>>16)
	}
	k := c.key("k")
	if err := c.s.Put(c.ctx, k, v, hour); err != nil {
		c.Fatalf("Put of 1 MiB: %v", err)
	}
	if got, ok := c.get(k); !ok || !bytes.Equal(got, v) {
		c.Errorf("Get after Put of 1 MiB returns %d bytes, %v, which are not those", len(got), ok)
		return
	}
	next := bytes.Clone(v)
	next[len(next)-1]++
	if ok, err := c.s.CompareAndSwap(c.ctx, k, next, v, hour); ok || err != nil {
		c.Errorf("CompareAndSwap whose old differs in the last byte of 1 MiB: %v, %v", ok, err)
	}
	if ok, err := c.s.CompareAndSwap(c.ctx, k, v, next, hour); !ok || err != nil {
		c.Errorf("CompareAndSwap of 1 MiB: %v, %v", ok, err)
	}
	if got, ok := c.get(k); !ok || !bytes.Equal(got, next) {
		c.Errorf("Get after CompareAndSwap of 1 MiB returns %d bytes, %v, which are not those", len(got), ok)
	}
}

func checkArgument(c *check) {
	k, k2 := c.key("put"), c.key("swap")
	v := append(make([]byte, 0, 16), "before"...)
	if err := c.s.Put(c.ctx, k, v, 0); err != nil {
		c.Fatalf("Put: %v", err)
	}
	copy(v, "AFTER!")
	c.wantValue("the slice given to Put was written to", k, "before")

	copy(v, "before")
	c.wantSwap("create", k2, nil, v, 0)
	copy(v, "AFTER!")
	c.wantValue("the slice given to CompareAndSwap was written to", k2, "before")

	old, next := []byte("before"), []byte("second")
	c.wantSwap("swap", k2, old, next, 0)
	copy(old, "AFTER!")
	copy(next, "AFTER!")
	c.wantValue("the slices given to CompareAndSwap were written to", k2, "second")
}

func checkResult(c *check) {
	k := c.key("k")
	c.put(k, "before", 0)
	v, _ := c.get(k)
	copy(v, "AFTER!")
	c.wantValue("the slice that Get returned was written to", k, "before")
	v, _ = c.get(k)
	_ = append(v, " and more"...)
	w, _ := c.get(k)
	_ = append(w, " and less"...)
	copy(w, "AFTER!")
	if string(v) != "before" {
		c.Errorf("two calls of Get return the same memory: writing to one made the other %s", short(v))
	}
	c.wantValue("the slice that Get returned was appended to", k, "before")
}

func checkDelete(c *check) {
	k, other := c.key("k"), c.key("k2")
	c.put(k, "v", hour)
	c.put(other, "v", hour)
	c.delete(k)
	c.wantAbsent("after Delete", k)
	c.wantValue("a key that begins with the deleted one", other, "v")
	if err := c.s.Delete(c.ctx, k); err != nil {
		c.Errorf("Delete of a key that was deleted: %v", err)
	}
	if err := c.s.Delete(c.ctx, c.key("never")); err != nil {
		c.Errorf("Delete of a key that never was: %v", err)
	}
	c.put(k, "again", 0)
	c.wantValue("Put after Delete", k, "again")
}

func checkValueModel(c *check) {
	rnd := rand.New(rand.NewPCG(1, 2))
	keys := []string{c.key("a"), c.key("b"), c.key("c")}
	model := map[string][]byte{}
	values := [][]byte{nil, {}, []byte("x"), []byte("y"), []byte("x\x00")}
	ttls := []time.Duration{0, hour}
	pick := func() []byte { return values[rnd.IntN(len(values))] }
	for i := range 300 {
		k := keys[rnd.IntN(len(keys))]
		ttl := ttls[rnd.IntN(len(ttls))]
		have, live := model[k]
		switch n := rnd.IntN(10); {
		case n < 2:
			v := pick()
			c.put(k, string(v), ttl)
			model[k] = append([]byte{}, v...)
		case n < 3:
			c.delete(k)
			delete(model, k)
		case n < 8:
			old, next := pick(), pick()
			if rnd.IntN(2) == 0 && live {
				old = have
			}
			want := live && old != nil && bytes.Equal(old, have) || !live && old == nil
			if got := c.swap(k, old, next, ttl); got != want {
				c.Fatalf("call %d: CompareAndSwap from %s to %s reports %v, want %v; the key is there: %v, value %s",
					i, maybe(old), maybe(next), got, want, live, maybe(have))
			}
			switch {
			case want && next == nil:
				delete(model, k)
			case want:
				model[k] = append([]byte{}, next...)
			}
		default:
			got, ok := c.get(k)
			if ok != live || !bytes.Equal(got, have) {
				c.Fatalf("call %d: Get returns %s, %v, want %s, %v", i, short(got), ok, short(have), live)
			}
		}
	}
}

// maybe is v, or nil, for a message.
func maybe(v []byte) string {
	if v == nil {
		return "nil"
	}
	return short(v)
}
