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

// Values are written as the standard library writes them, whatever their length
// and what stands before them.
func TestEncodeLengths(t *testing.T) {
	for n := range 70 {
		src := bytes.Repeat([]byte{0xfb, 0x01, 0x7e, 0xff, 0x80}, 14)[:n]
		for _, dst := range []string{"", "before"} {
			if got, want := string(appendEncoded([]byte(dst), src)), dst+encoding.EncodeToString(src); got != want {
				t.Errorf("%d bytes after %q: %q, want %q", n, dst, got, want)
			}
		}
	}
	if all := string(appendEncoded(nil, bytes.Repeat([]byte{0, 0x10, 0x83, 0x10, 0x51, 0x87}, 9))); !strings.HasPrefix(all, "ABCDEFGH") {
		t.Errorf("%q", all)
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
		if ok && string(appendEncoded(nil, got)) != s {
			t.Errorf("%q is %q too", s, appendEncoded(nil, got))
		}
		if got, want := string(appendEncoded(nil, []byte(s))), encoding.EncodeToString([]byte(s)); got != want {
			t.Errorf("%q is written %q, want %q", s, got, want)
		}
	})
}

func BenchmarkEncodeText(b *testing.B) {
	src, dst := make([]byte, 190), make([]byte, 0, 256)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			appendEncoded(dst, src)
		}
	})
	b.Run("encoding/base64", func(b *testing.B) {
		for b.Loop() {
			encoding.AppendEncode(dst, src)
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
