package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/plainware/store"
)

var keyRules = []rule{
	{
		name:  "key/awkward",
		why:   "Any UTF-8 without a zero byte is a key, and is as good as a letter.",
		check: checkAwkwardKeys,
	}, {
		name:  "key/distinct",
		why:   "Keys are compared byte by byte: case, form of accents and trailing spaces count.",
		check: checkDistinctKeys,
	}, {
		name:  "key/long",
		why:   "A key may have 512 bytes, and all of them count. Two users must not share what differs at the end.",
		check: checkLongKeys,
	}, {
		name:  "key/refused",
		why:   "A key that is none is refused with store.ErrKey and never shortened or replaced, so that all backends agree.",
		check: checkBadKeys,
	}, {
		name:  "key/silent",
		why:   "Errors contain no keys and no values, which may be secrets: errors are logged.",
		check: checkSilent,
	},
}

// awkward are parts of keys that quoting, patterns and protocols trip over.
var awkward = []string{
	" ", "a b", " a", "a ", "\n", "a\r\nb", "\t", "'", "''", `"`, `\`, `\\`, "`", "%", "%s", "%%", "_", "*", "?",
	"[a-z]", "{a}", "{", "}", "a{b}c", "{}", "$1", ":", "a:b", "/", "//", "../..", ".", "#", ";", "; DROP TABLE kv", "--",
	"&", "|", "<a>", "\x01", "\x1f", "\x7f", "é", "e\u0301", "日本語", "🔑", "\u200b", "\ufeff", "\u2028", "\U0010ffff", "\ufffd",
	"NULL", "nil", "0", "00", "1e3", "true",
}

func checkAwkwardKeys(c *check) {
	for i, a := range awkward {
		k := c.key(a)
		c.put(k, fmt.Sprint(i), hour)
	}
	for i, a := range awkward {
		k, v := c.key(a), fmt.Sprint(i)
		what := fmt.Sprintf("a key ending in %q", a)
		c.wantValue(what, k, v)
		c.wantSwap(what, k, []byte(v), []byte(v+"+"), hour)
		c.wantValue(what+", after a swap", k, v+"+")
	}
	for _, a := range awkward {
		c.delete(c.key(a))
		c.wantAbsent(fmt.Sprintf("a key ending in %q, after Delete", a), c.key(a))
	}
	// Without the random beginning of the other keys, so they may be there
	// already, and are removed again.
	for _, a := range []string{" ", "\n", "%", "*", "{}", "é", "'"} {
		c.put(a, "v", 0)
		c.wantValue(fmt.Sprintf("the key %q", a), a, "v")
		c.delete(a)
		c.wantAbsent(fmt.Sprintf("the key %q, after Delete", a), a)
	}
}

func checkDistinctKeys(c *check) {
	similar := []string{
		"k", "K", "k ", " k", "k\n", "kk", "k.", "ｋ", "ķ", "é", "e\u0301", "E\u0301", "É", "ß", "ss", "ẞ", "i", "ı", "İ",
		"a%", "ab", "a_", "a*", "1", "01", "1.0", "+1", "\u212a", // the Kelvin sign
	}
	for i, s := range similar {
		c.put(c.key(s), fmt.Sprint(i), 0)
	}
	for i, s := range similar {
		c.wantValue(fmt.Sprintf("a key ending in %q, beside similar ones", s), c.key(s), fmt.Sprint(i))
	}
	c.delete(c.key("a%"))
	c.delete(c.key("a*"))
	c.delete(c.key("a_"))
	c.wantValue("after Delete of keys that are patterns", c.key("ab"), fmt.Sprint(slices.Index(similar, "ab")))
}

func checkLongKeys(c *check) {
	long := c.key(strings.Repeat("k", c.opts.MaxKey-len(c.run)-1))
	accents := c.run + strings.Repeat("é", (c.opts.MaxKey-len(c.run))/2)
	ends := []string{long + "x", long + "y", long, accents}
	for i, k := range ends {
		c.put(k, fmt.Sprint(i), 0)
	}
	for i, k := range ends {
		c.wantValue(fmt.Sprintf("a key of %d bytes", len(k)), k, fmt.Sprint(i))
	}
	c.delete(long + "x")
	c.wantAbsent("a deleted key of greatest length", long+"x")
	c.wantValue("one that differs in the last byte", long+"y", "1")
	c.wantValue("one that is a byte shorter", long, "2")
}

// badKeys are strings that are no keys.
func (c *check) badKeys() map[string]string {
	return map[string]string{
		"an empty key":                     "",
		"a key that is a byte too long":    c.key(strings.Repeat("k", c.opts.MaxKey-len(c.run)+1)),
		"a key of 10 kB":                   c.key(strings.Repeat("k", 10_000)),
		"a key with a zero byte":           c.key("a\x00b"),
		"a key that begins with a zero":    "\x00" + c.key("a"),
		"a key that is not UTF-8":          c.key("\xff"),
		"a key that ends within a rune":    c.key("é"[:1]),
		"a key with half of a surrogate":   c.key("\xed\xa0\x80"),
		"a key with an overlong encoding":  c.key("\xc0\x80"),
		"a key that begins within a rune":  "é"[1:] + c.key("k"),
		"a key that is only a zero byte":   "\x00",
		"a key that is only a broken byte": "\x80",
	}
}

func checkBadKeys(c *check) {
	want := func(what, method string, err error) {
		if !errors.Is(err, store.ErrKey) {
			c.Errorf("%s: %s returns the error %v, want one that is store.ErrKey", what, method, err)
		}
	}
	for what, k := range c.badKeys() {
		_, ok, err := c.s.Get(c.ctx, k)
		want(what, "Get", err)
		if ok {
			c.Errorf("%s: Get reports a value", what)
		}
		want(what, "Put", c.s.Put(c.ctx, k, []byte("v"), hour))
		ok, err = c.s.CompareAndSwap(c.ctx, k, nil, []byte("v"), hour)
		want(what, "CompareAndSwap", err)
		if ok {
			c.Errorf("%s: CompareAndSwap reports a swap", what)
		}
		want(what, "Delete", c.s.Delete(c.ctx, k))
	}
	c.wantAbsent("the beginning of a key that is too long", c.key(strings.Repeat("k", c.opts.MaxKey-len(c.run))))
	c.wantAbsent("the beginning of a key with a zero byte", c.key("a"))
	c.wantAbsent("a key with the replacement character", c.key("\ufffd"))
}

func checkSilent(c *check) {
	const secret = "opensesame"
	quiet := func(what string, err error) {
		if err != nil && strings.Contains(strings.ToLower(err.Error()), secret) {
			c.Errorf("%s: the error contains the key or the value: %v", what, err)
		}
	}
	ended, cancel := c.cancelled()
	defer cancel()
	for _, call := range []struct {
		what string
		ctx  context.Context
		key  string
	}{
		{"a key with a zero byte", c.ctx, c.key(secret + "\x00")},
		{"a key that is not UTF-8", c.ctx, c.key(secret + "\xff")},
		{"a key that is too long", c.ctx, c.key(secret + strings.Repeat("k", store.MaxKey))},
		{"a cancelled context", ended, c.key(secret)},
	} {
		what, ctx, k := call.what, call.ctx, call.key
		v := []byte(secret)
		_, _, err := c.s.Get(ctx, k)
		quiet(what+": Get", err)
		quiet(what+": Put", c.s.Put(ctx, k, v, hour))
		_, err = c.s.CompareAndSwap(ctx, k, v, v, hour)
		quiet(what+": CompareAndSwap", err)
		quiet(what+": Delete", c.s.Delete(ctx, k))
	}
	quiet("a negative ttl: Put", c.s.Put(c.ctx, c.key(secret), []byte(secret), -1))
}
