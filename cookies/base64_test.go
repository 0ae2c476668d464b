package cookies

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// reference decodes with the standard library.
func reference(s string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil && !strings.ContainsAny(s, "\r\n")
}

// cookies 11: every text of up to two characters, and of three with each last
// one, is decoded as the standard library does, or refused where it is strict
// about all but line breaks.
func TestDecodeShort(t *testing.T) {
	check := func(s string) {
		want, valid := reference(s)
		for _, dst := range []string{"", "before"} {
			got, ok := appendDecoded([]byte(dst), s)
			if ok != valid || ok && string(got) != dst+string(want) || !ok && got != nil {
				t.Fatalf("%q after %q: %q, %v; want %q, %v", s, dst, got, ok, want, valid)
			}
		}
	}
	check("")
	for a := range 256 {
		check(string([]byte{byte(a)}))
		for b := range 256 {
			check(string([]byte{byte(a), byte(b)}))
			check(string([]byte{'Q', byte(a), byte(b)}))
			check(string([]byte{byte(a), 'U', 'J', byte(b)}))
		}
	}
}

// The same for every length that the loops can leave over, with each character
// replaced by one that is none.
func TestDecodeLengths(t *testing.T) {
	for n := range 70 {
		s := encoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0x01, 0x7e, 0xff}, 20)[:n])
		if want, _ := reference(s); !valid(s, want) {
			t.Errorf("%d bytes do not come back", n)
		}
		for i := range s {
			for _, c := range []string{"=", "+", "/", "\n", "\xff", "\x00", " "} {
				if got, ok := appendDecoded(nil, s[:i]+c+s[i+1:]); ok {
					t.Errorf("%d bytes, %q for character %d: %x", n, c, i, got)
				}
			}
		}
	}
}

func valid(s string, want []byte) bool {
	got, ok := appendDecoded(nil, s)
	return ok && bytes.Equal(got, want)
}

// cookies 11: the decoder and the standard library's, strict and without line
// breaks, agree about every text.
func FuzzDecodeText(f *testing.F) {
	for _, s := range []string{"", "QUJD", "QUJDRA", "QUJDREU", "QUJ\nD", "QUJDR", "QR", "QUL", "QUJD=", "+/+/", strings.Repeat("-_", 99)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, valid := reference(s)
		got, ok := appendDecoded(nil, s)
		if ok != valid || ok && !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v; want %x, %v", s, got, ok, want, valid)
		}
		if ok && encoding.EncodeToString(got) != s {
			t.Errorf("%q is %q too", s, encoding.EncodeToString(got))
		}
	})
}

func BenchmarkDecodeText(b *testing.B) {
	s := encoding.EncodeToString(make([]byte, 190))
	dst := make([]byte, 0, 256)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			appendDecoded(dst, s)
		}
	})
	b.Run("encoding/base64", func(b *testing.B) {
		text := []byte(s)
		for b.Loop() {
			encoding.AppendDecode(dst, text)
		}
	})
}
