package cookies

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
)

// encoding writes values: base64url without padding (RFC 4648 section 5).
var encoding = base64.RawURLEncoding

// sextets has the value of each character of base64url, and noSextet for what is
// none.
var sextets = func() (table [256]byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for c := range 256 {
		table[c] = noSextet
		if i := strings.IndexByte(alphabet, byte(c)); i >= 0 {
			table[c] = byte(i)
		}
	}
	return table
}()

const noSextet = 0xff

// appendDecoded appends the bytes that s stands for. It takes the one spelling
// that encoding writes: no padding, no bits left over that are not zero, and,
// unlike encoding/base64, no line breaks either. Decoding is a quarter of what
// reading a signed value costs; this takes a string where it is, without a copy
// and without another look for line breaks.
func appendDecoded(dst []byte, s string) (_ []byte, ok bool) {
	start, size := len(dst), encoding.DecodedLen(len(s))
	dst = slices.Grow(dst, size)[:start+size]
	out := dst[start:]
	var seen byte // has a bit above the sixth if a character was none
	for len(s) >= 8 && len(out) >= 8 {
		a, b, c, d := sextets[s[0]], sextets[s[1]], sextets[s[2]], sextets[s[3]]
		e, f, g, h := sextets[s[4]], sextets[s[5]], sextets[s[6]], sextets[s[7]]
		seen |= a | b | c | d | e | f | g | h
		// That is six bytes, and two that the next ones overwrite.
		binary.BigEndian.PutUint64(out, uint64(a)<<58|uint64(b)<<52|uint64(c)<<46|uint64(d)<<40|
			uint64(e)<<34|uint64(f)<<28|uint64(g)<<22|uint64(h)<<16)
		s, out = s[8:], out[6:]
	}
	for len(s) >= 4 && len(out) >= 3 {
		a, b, c, d := sextets[s[0]], sextets[s[1]], sextets[s[2]], sextets[s[3]]
		seen |= a | b | c | d
		v := uint32(a)<<18 | uint32(b)<<12 | uint32(c)<<6 | uint32(d)
		out[0], out[1], out[2] = byte(v>>16), byte(v>>8), byte(v)
		s, out = s[4:], out[3:]
	}
	var over byte // bits that no byte takes
	switch len(s) {
	case 1:
		return nil, false
	case 2:
		a, b := sextets[s[0]], sextets[s[1]]
		seen |= a | b
		out[0], over = a<<2|b>>4, b<<4
	case 3:
		a, b, c := sextets[s[0]], sextets[s[1]], sextets[s[2]]
		seen |= a | b | c
		out[0], out[1], over = a<<2|b>>4, b<<4|c>>2, c<<6
	}
	if seen > 63 || over != 0 {
		return nil, false
	}
	return dst, true
}
