package cookies_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/cookies"
)

// cookies 39: reading never panics, and of everything that can be made of a
// valid value by replacing a part of it, only the value itself is accepted, with
// its binding. (A value cannot be a seed: each process makes its own.)
func FuzzDecode(f *testing.F) {
	type reader struct {
		c     *cookies.Cookie[string]
		valid string
	}
	var readers []reader
	for _, kind := range kinds {
		c := build(f, cookies.Config[string]{Keys: keys(keyA, keyB)}, kind.make)
		readers = append(readers, reader{c, encode(f, c, "dark", "tenant")})
	}
	f.Add(uint16(0), uint16(0), "", "tenant")          // as it is
	f.Add(uint16(0), uint16(1000), "e1.AAAA.AAAA", "") // another text
	f.Add(uint16(1000), uint16(1000), "=", "tenant")   // and more
	f.Add(uint16(7), uint16(8), ".", "tenant")         // as it is
	f.Add(uint16(3), uint16(7), "AAAA", "tenant")      // another key
	f.Add(uint16(0), uint16(3), "s1.", "tenant")       // another version
	f.Add(uint16(40), uint16(41), "\n", "tenant")      // another spelling
	f.Add(uint16(1000), uint16(0), "~", "tenant\x00")  // twice
	f.Fuzz(func(t *testing.T, cut, from uint16, insert, binding string) {
		for _, r := range readers {
			n := uint16(len(r.valid))
			text := r.valid[:min(cut, n)] + insert + r.valid[min(from, n):]
			v, info, err := r.c.Decode(text, binding)
			switch {
			case text == r.valid && binding == "tenant":
				if v != "dark" || err != nil {
					t.Errorf("the value itself: %q, %v", v, err)
				}
			case !errors.Is(err, cookies.ErrInvalid) || v != "" || info != (cookies.Info{}):
				t.Errorf("%q, bound to %q, in the place of %q: %q, %+v, %v", text, binding, r.valid, v, info, err)
			}
		}
	})
}

// cookies 39: every payload comes back as it was, and no other cookie, binding or
// protection takes it.
func FuzzRoundTrip(f *testing.F) {
	f.Add("", "", uint16(0))
	f.Add("dark", "tenant", uint16(80))
	f.Add("\x00\xff\r\n;", "b", uint16(9))
	f.Fuzz(func(t *testing.T, v, binding string, at uint16) {
		for i, kind := range kinds {
			c := build(t, cookies.Config[string]{Chunks: 4}, kind.make)
			text, err := c.Encode(v, binding)
			if err != nil {
				if err != cookies.ErrTooLarge && len(binding) < 1<<16 || len(v) < 8000 && len(binding) < 1<<16 {
					t.Fatalf("%d and %d bytes: %v", len(v), len(binding), err)
				}
				continue
			}
			if got, _, err := c.Decode(text, binding); got != v || err != nil {
				t.Fatalf("%q became %q, %v", v, got, err)
			}
			if _, _, err := c.Decode(text, binding+"x"); err == nil {
				t.Error("bound to more")
			}
			if _, _, err := build(t, cookies.Config[string]{Name: "other", Chunks: 4}, kind.make).Decode(text, binding); err == nil {
				t.Error("read under another name")
			}
			if _, _, err := build(t, cookies.Config[string]{Chunks: 4}, kinds[1-i].make).Decode(text, binding); err == nil {
				t.Error("read with the other protection")
			}
			changed := []byte(text)
			changed[int(at)%len(changed)] ^= byte(1 + at%255)
			if _, _, err := c.Decode(string(changed), binding); err == nil {
				t.Errorf("byte %d can change", int(at)%len(changed))
			}
		}
	})
}

// maxCookies is how many cookies net/http reads from a request, counted by the
// semicolons: where there are more it reads none. Get has no such limit, since it
// allocates nothing for them.
const maxCookies = 3000

// Whatever stands in the Cookie fields, Get does not panic, and it finds the
// value only where net/http finds it too: exactly once among different ones.
func FuzzGet(f *testing.F) {
	c := sealed(f, cookies.Config[string]{Chunks: 3})
	text := encode(f, c, "dark", "")
	f.Add("theme=VALUE", "")
	f.Add("theme=1; theme=VALUE", "theme=VALUE")
	f.Add("theme=3~VALUE; theme~1=; theme~2=", "")
	f.Add(" theme = VALUE ;; ;=;theme", "\ttheme=VALUE\t")
	f.Add(`theme="VALUE"`, "theme=2~; theme~1=VALUE")
	f.Add(strings.Repeat(";", maxCookies-2)+"theme=VALUE", "")
	f.Add(strings.Repeat(";", maxCookies-1)+"theme=VALUE", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		r := &http.Request{Header: http.Header{"Cookie": {strings.ReplaceAll(a, "VALUE", text), strings.ReplaceAll(b, "VALUE", text)}}}
		v, _, err := c.Get(r)
		if err != nil {
			if v != "" || !errors.Is(err, cookies.ErrInvalid) && err != cookies.ErrNotFound {
				t.Errorf("%q, %v", v, err)
			}
			return
		}
		// net/http drops what is not a cookie by the grammar, as a whole value
		// of ours always is.
		seen := slices.ContainsFunc(r.CookiesNamed("theme"), func(c *http.Cookie) bool {
			return c.Value == text || strings.Contains(c.Value, "~")
		})
		many := strings.Count(strings.Join(r.Header["Cookie"], ";"), ";")+1 > maxCookies
		if v != "dark" || !seen && !many {
			t.Errorf("%q: read %q", r.Header["Cookie"], v)
		}
	})
}

// A text with keys either parses, into keys that every cookie accepts or refuses
// for what they are together, or gives an error that has nothing of it.
func FuzzParseKeys(f *testing.F) {
	f.Add(cookies.FormatKey(keyA))
	f.Add("incoming:" + cookies.FormatKey(keyA) + " # x\n" + cookies.FormatKey(keyB) + "," + cookies.FormatKey(keyC))
	f.Add("ck1_")
	f.Fuzz(func(t *testing.T, text string) {
		current, early, err := cookies.ParseKeys(text)
		if err != nil {
			if current != nil || early != nil {
				t.Error("keys with an error")
			}
			for field := range strings.FieldsSeq(text) {
				if len(field) >= 20 && strings.Contains(err.Error(), field) {
					t.Errorf("the error quotes %q", field)
				}
			}
			return
		}
		if len(current) == 0 {
			t.Error("no key that writes")
		}
		for _, key := range slices.Concat(current, early) {
			again, err := cookies.ParseKey(cookies.FormatKey(key))
			if err != nil || string(again) != string(key) {
				t.Errorf("a key does not survive its text: %v", err)
			}
			if !strings.Contains(text, cookies.FormatKey(key)) {
				t.Error("a key has two spellings")
			}
		}
	})
}
