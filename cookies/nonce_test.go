//go:build !race

// A million of anything is long under the race detector, and this is one
// goroutine.

package cookies

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// cookies 14: a million values of one payload have a million nonces, and one
// length. Both halves of the nonce count: the first chooses a key, the second
// is GCM's nonce under it. Of 96 random bits each, 64 are enough to tell them
// apart.
func TestNonces(t *testing.T) {
	c, err := NewSealed(Config[string]{Name: "theme", Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}, Codec: String()})
	if err != nil {
		t.Fatal(err)
	}
	const million = 1_000_000
	first, second := make([]uint64, million), make([]uint64, million)
	s := new(scratch)
	for i := range million {
		if err := c.encode(s, "v", ""); err != nil {
			t.Fatal(err)
		}
		if len(s.text) != c.textSize(1) || len(s.sealed) != 24+headSize+1+16 {
			t.Fatalf("a value of %d bytes", len(s.text))
		}
		first[i], second[i] = binary.BigEndian.Uint64(s.sealed), binary.BigEndian.Uint64(s.sealed[12:])
	}
	for _, half := range [][]uint64{first, second} {
		slices.Sort(half)
		if n := len(slices.Compact(half)); n != million {
			t.Errorf("%d different nonces", n)
		}
	}
}
