package webhook

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// one returns the one line of a field. A second line is refused: whoever reads
// the first and whoever reads the last would not see the same.
func one(h http.Header, key string) (string, error) {
	switch lines := h[key]; {
	case len(lines) == 0 || len(lines) == 1 && lines[0] == "":
		return "", ErrNoSignature
	case len(lines) > 1:
		return "", ErrMalformed
	default:
		return lines[0], nil
	}
}

// parse reads signatures, time and ID from the header.
func (c *compiled) parse(h http.Header, x *scratch, v *values) error {
	for _, key := range c.headers {
		if c.lines {
			for _, text := range h[key] {
				if err := c.signatures(text, x, v); err != nil {
					return err
				}
			}
			continue
		}
		text, err := one(h, key)
		switch {
		case err == ErrNoSignature && c.AlsoHeader != "":
			continue
		case err != nil:
			return err
		}
		if err := c.signatures(text, x, v); err != nil {
			return err
		}
	}
	if len(x.sigs) == 0 {
		if x.wanted {
			return ErrMalformed
		}
		return ErrNoSignature
	}
	for _, r := range c.require {
		if text, err := one(h, r[0]); err != nil || text != r[1] {
			return ErrMalformed
		}
	}
	if c.TimeHeader != "" {
		text, err := one(h, c.TimeHeader)
		if err != nil {
			return ErrMalformed
		}
		v.time = text
	}
	if c.IDHeader != "" {
		text, err := one(h, c.IDHeader)
		if err != nil || len(text) > 512 {
			return ErrMalformed
		}
		v.id = text
	}
	return nil
}

// signatures reads one line of the signature field. A signature that is
// malformed is no reason to refuse others beside it: the scheme may have gained
// a form that is unknown here.
func (c *compiled) signatures(text string, x *scratch, v *values) error {
	f := c.Format
	switch f.kind {
	case bare:
		return c.add(text, x)
	case prefixed:
		sig, ok := strings.CutPrefix(text, f.prefix)
		if !ok {
			return ErrMalformed
		}
		return c.add(sig, x)
	case pairs:
		timed := false
		for more := true; more; {
			var pair string
			pair, text, more = strings.Cut(text, f.sep)
			name, value, ok := strings.Cut(trimSpaces(pair), "=")
			switch {
			case !ok:
				return ErrMalformed
			case name == f.timed:
				if timed || value == "" {
					return ErrMalformed
				}
				timed, v.time = true, value
			case name == f.prefix:
				if err := c.add(value, x); err != nil {
					return err
				}
			}
		}
		if !timed {
			return ErrMalformed
		}
	case list:
		for more := true; more; {
			var item string
			item, text, more = strings.Cut(text, f.sep)
			if sig, ok := strings.CutPrefix(trimSpaces(item), f.prefix); ok || f.optional && sig != "" {
				if err := c.add(sig, x); err != nil {
					return err
				}
			}
		}
	case timeList:
		var more bool
		for v.time, text, more = strings.Cut(text, f.sep); more; {
			var sig string
			sig, text, more = strings.Cut(text, f.sep)
			if err := c.add(trimSpaces(sig), x); err != nil {
				return err
			}
		}
	}
	return nil
}

func trimSpaces(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// add decodes a signature. Only too many of them are an error.
func (c *compiled) add(text string, x *scratch) error {
	x.wanted = true
	if len(x.sigs) == maxSignatures {
		return ErrMalformed
	}
	start := len(x.store)
	x.store = decodeSignature(x.store, text, c.Encoding, c.sigSize)
	if len(x.store) > start {
		x.sigs = append(x.sigs, x.store[start:len(x.store):len(x.store)])
	}
	return nil
}

// The canonical forms of base64: Strict copies the tables each time.
var (
	strictBase64    = base64.StdEncoding.Strict()
	strictBase64URL = base64.RawURLEncoding.Strict()
)

// decodeSignature appends the bytes of text to b, or nothing if they are not
// a signature of size bytes; of size 0, of 1 to maxSignature.
func decodeSignature(b []byte, text string, e Encoding, size int) []byte {
	least, most := size, size
	if size == 0 {
		least, most = 1, maxSignature
	}
	start := len(b)
	switch e {
	case Hex:
		if len(text) < 2*least || len(text) > 2*most {
			return b
		}
		out, err := hex.AppendDecode(b, []byte(text))
		if err != nil {
			return b
		}
		b = out
	case Base64, Base64URL:
		enc := strictBase64
		if e == Base64URL {
			enc = strictBase64URL
		}
		if len(text) > enc.EncodedLen(most) {
			return b
		}
		out, err := enc.AppendDecode(b, []byte(text))
		// The decoder skips line ends, which are not canonical.
		if err != nil || enc.EncodedLen(len(out)-start) != len(text) {
			return b
		}
		b = out
	case Text:
		b = append(b, text...)
	}
	if n := len(b) - start; n < least || n > most {
		return b[:start]
	}
	return b
}

// parseTime reads a time in its one canonical form.
func parseTime(text string, f TimeFormat) (time.Time, error) {
	if f == RFC3339 {
		var t time.Time
		// RFC 3339 has no comma, which the standard library lets through.
		if len(text) > 40 || strings.Contains(text, ",") || t.UnmarshalText([]byte(text)) != nil {
			return time.Time{}, ErrMalformed
		}
		return t, nil
	}
	if text == "" || len(text) > 16 || text[0] == '0' && len(text) > 1 {
		return time.Time{}, ErrMalformed
	}
	var n int64 // 16 digits fit
	for i := range len(text) {
		c := text[i] - '0'
		if c > 9 {
			return time.Time{}, ErrMalformed
		}
		n = n*10 + int64(c)
	}
	if f == UnixMillis {
		return time.UnixMilli(n), nil
	}
	return time.Unix(n, 0), nil
}

// inWindow judges a time. The window has the same width in both directions:
// a sender whose clock is ahead would otherwise make deliveries that can be
// replayed for as long as it is.
func inWindow(t, now time.Time, tolerance time.Duration) error {
	if tolerance == 0 {
		return nil
	}
	switch age := now.Sub(t); { // of ages, the largest stands for all beyond
	case age > tolerance:
		return ErrTooOld
	case age < -tolerance:
		return ErrTooNew
	}
	return nil
}
