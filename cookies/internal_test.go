package cookies

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"
)

// counter is a box that counts what it computes.
type counter struct {
	box
	sealed, opened *int
}

func (c counter) seal(dst, plain, data []byte) []byte {
	*c.sealed++
	return c.box.seal(dst, plain, data)
}

func (c counter) open(dst, sealed, data []byte) ([]byte, error) {
	*c.opened++
	return c.box.open(dst, sealed, data)
}

// counted makes a cookie with two keys whose computations are counted.
func counted(t *testing.T, make func(Config[string]) (*Cookie[string], error)) (c *Cookie[string], sealed, opened *int) {
	t.Helper()
	c, err := make(Config[string]{Name: "theme", Keys: [][]byte{bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	sealed, opened = new(int), new(int)
	for _, k := range c.ring.keys {
		k.box = counter{k.box, sealed, opened}
	}
	return c, sealed, opened
}

// cookies 4: a value under a key that is not in the ring is ErrUnknownKey without
// any cryptography, as is all that cannot be a value; a value under a known key
// costs one computation, however many keys there are.
func TestUnknownKeyCostsNothing(t *testing.T) {
	for name, make := range map[string]func(Config[string]) (*Cookie[string], error){"sealed": NewSealed[string], "signed": NewSigned[string]} {
		t.Run(name, func(t *testing.T) {
			c, sealed, opened := counted(t, make)
			text, err := c.Encode("v", "")
			if err != nil || *sealed != 1 {
				t.Fatal(err, *sealed)
			}
			stranger, err := make(Config[string]{Name: "theme", Keys: [][]byte{bytes.Repeat([]byte{3}, 32)}})
			if err != nil {
				t.Fatal(err)
			}
			foreign, err := stranger.Encode("v", "")
			if err != nil {
				t.Fatal(err)
			}
			for _, tc := range []struct {
				text string
				want error
			}{
				{foreign, ErrUnknownKey},
				{text[:3] + "____" + text[7:], ErrUnknownKey},
				{text[:3] + "____.!", ErrUnknownKey},
				{text[:3] + "!!!!" + text[7:], ErrInvalid},
				{text + "!", ErrInvalid},
				{text[:8], ErrInvalid},
				{text + strings.Repeat("A", 4096), ErrInvalid},
			} {
				if _, _, err := c.Decode(tc.text, ""); err != tc.want {
					t.Errorf("%.20q: %v, want %v", tc.text, err, tc.want)
				}
			}
			if *opened != 0 {
				t.Errorf("%d computations", *opened)
			}
			if v, _, err := c.Decode(text, ""); v != "v" || err != nil || *opened != 1 {
				t.Errorf("%q, %v after %d computations", v, err, *opened)
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Cookie", strings.Repeat("theme="+text+"; ", 5))
			if _, _, err := c.Get(r); err != ErrInvalid || *opened != 1 {
				t.Errorf("five of one name: %v after %d computations", err, *opened)
			}
			r.Header.Set("Cookie", strings.Repeat("theme="+text+"; ", 4))
			if _, _, err := c.Get(r); err != nil || *opened != 2 {
				t.Errorf("four times the same: %v after %d computations", err, *opened)
			}
			*sealed = 0
			if err := c.Set(httptest.NewRecorder(), nil, strings.Repeat("x", 10<<10)); err != ErrTooLarge || *sealed != 0 {
				t.Errorf("too large: %v after %d computations", err, *sealed)
			}
		})
	}
}

// A payload with a flag that nobody has defined is not read as one without.
func TestFlags(t *testing.T) {
	c, _, _ := counted(t, NewSealed[string])
	text, err := c.Encode("v", "")
	if err != nil {
		t.Fatal(err)
	}
	k := c.ring.keys[0]
	raw, err := encoding.DecodeString(text[8:])
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.box.open(nil, raw, k.unbound)
	if err != nil {
		t.Fatal(err)
	}
	for flags := range 256 {
		plain[0] = byte(flags)
		text := text[:8] + encoding.EncodeToString(k.box.seal(nil, plain, k.unbound))
		if _, _, err := c.Decode(text, ""); (err == nil) != (flags == 0) {
			t.Errorf("flags %08b: %v", flags, err)
		}
	}
	// Authentic and too short for a head: no other program with the key
	// may make this one panic.
	for n := range headSize {
		text := text[:8] + encoding.EncodeToString(k.box.seal(nil, plain[:n], k.unbound))
		if _, _, err := c.Decode(text, ""); err != ErrInvalid {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// What a pool keeps is no secret: neither the key of a message, nor what CMAC's
// sub-key can be found from.
func TestScratchIsCleared(t *testing.T) {
	aead, err := newXAES(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := aead.(*xaes).derive(make([]byte, xaesHalf)); err != nil {
			t.Fatal(err)
		}
		s := xaesScratches.Get().(*xaesScratch)
		if *s != (xaesScratch{}) {
			t.Fatal("the scratch memory of a message is left as it was")
		}
		xaesScratches.Put(s)
	}
}
