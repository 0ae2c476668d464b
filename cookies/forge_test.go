package cookies_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/plainware/cookies"
)

// cookies 1: no single bit of a value can change. A bit of the key id may make
// it one that is not there, which is ErrInvalid too.
func TestBitFlips(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := build(t, cookies.Config[string]{}, kind.make)
			text := encode(t, c, "payload", "")
			for i := range len(text) {
				for bit := range 8 {
					changed := []byte(text)
					changed[i] ^= 1 << bit
					v, info, err := c.Decode(string(changed), "")
					if !errors.Is(err, cookies.ErrInvalid) || v != "" || info != (cookies.Info{}) {
						t.Fatalf("bit %d of byte %d: %q, %v", bit, i, v, err)
					}
					if inID := 3 <= i && i < 7; err != cookies.ErrInvalid && !(inID && err == cookies.ErrUnknownKey) {
						t.Errorf("bit %d of byte %d: %v", bit, i, err)
					}
				}
			}
			for i := range len(text) {
				if _, _, err := c.Decode(text[:i], ""); err != cookies.ErrInvalid {
					t.Errorf("the first %d bytes: %v", i, err)
				}
			}
		})
	}
}

// cookies 11 and 23: a value has one spelling, and everything else is ErrInvalid
// with one text, in the error and in a response.
func TestSpelling(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := build(t, cookies.Config[string]{}, kind.make)
			// A length that leaves bits over: then the last character has other
			// spellings.
			payload, text := "", ""
			for len(text)%4 != 2 && len(text)%4 != 3 || (len(text)-8)%4 == 0 {
				payload += "x"
				text = encode(t, c, payload, "")
			}
			head, body := text[:8], text[8:]
			if _, _, err := c.Decode(head+body, ""); err != nil {
				t.Fatal(err)
			}
			// The last character with the bits that no byte has.
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := strings.IndexByte(alphabet, body[len(body)-1])
			for name, bad := range map[string]string{
				"trailing bits":         head + body[:len(body)-1] + alphabet[last^1:last^1+1],
				"padding":               text + "=",
				"more padding":          text + "==",
				"plus":                  head + "+" + body[1:],
				"slash":                 head + "/" + body[1:],
				"space inside":          head + body[:9] + " " + body[9:],
				"space before":          " " + text,
				"space after":           text + " ",
				"tab":                   text + "\t",
				"newline inside":        head + body[:8] + "\n" + body[8:],
				"newline after":         text + "\n",
				"carriage return":       head + body[:8] + "\r" + body[8:],
				"newline in the id":     text[:5] + "\n" + text[5:],
				"fourth dot":            text + ".",
				"dot inside":            head + body[:8] + "." + body[8:],
				"no dots":               strings.ReplaceAll(text, ".", ""),
				"no body":               head,
				"short body":            head + "AAAA",
				"no version":            text[2:],
				"empty version":         text[1:],
				"another version":       "e9" + text[2:],
				"version in upper case": strings.ToUpper(text[:1]) + text[1:],
				"id that is not base64": text[:3] + "a=b." + body,
				"longer id":             text[:7] + "A" + text[7:],
				"zero byte":             text + "\x00",
				"not ASCII":             text + "é",
				"tag":                   head + strings.Repeat("A", len(body)),
				"empty":                 "",
			} {
				_, _, err := c.Decode(bad, "")
				if err != cookies.ErrInvalid {
					t.Errorf("%s: %q: %v", name, bad, err)
					continue
				}
				w := httptest.NewRecorder()
				cookies.WriteError(w, request(), err)
				if w.Code != 400 || strings.Contains(w.Body.String(), err.Error()) || !strings.Contains(w.Body.String(), `"cookie_invalid"`) {
					t.Errorf("%s: answered %d %s", name, w.Code, w.Body)
				}
			}
		})
	}
}

// cookies 23: what a response says of an error has neither its text nor that of
// the codec.
func TestWriteError(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{cookies.ErrNotFound, 400, "cookie_missing"},
		{cookies.ErrInvalid, 400, "cookie_invalid"},
		{cookies.ErrUnknownKey, 400, "cookie_invalid"},
		{cookies.ErrExpired, 400, "cookie_expired"},
		{cookies.ErrTooLarge, 500, "cookie_too_large"},
		{&cookies.CodecError{Err: errors.New("secret")}, 400, "cookie_invalid"},
		{errors.New("secret"), 500, "internal"},
	} {
		w := httptest.NewRecorder()
		cookies.WriteError(w, request(), tc.err)
		body := w.Body.String()
		if w.Code != tc.status || !strings.Contains(body, `"code":"`+tc.code+`"`) {
			t.Errorf("%v: %d %s", tc.err, w.Code, body)
		}
		if strings.Contains(body, tc.err.Error()) || strings.Contains(body, "secret") || strings.Contains(body, "key") {
			t.Errorf("%v: the body says too much: %s", tc.err, body)
		}
	}
	if !errors.Is(cookies.ErrExpired, cookies.ErrInvalid) || !errors.Is(cookies.ErrUnknownKey, cookies.ErrInvalid) || errors.Is(cookies.ErrNotFound, cookies.ErrInvalid) {
		t.Error("what is ErrInvalid and what is not")
	}
}

// cookies 16: a value of 10 MB is refused, and costs nothing beside the header
// in which it came.
func TestHugeValue(t *testing.T) {
	c := sealed(t, cookies.Config[string]{Chunks: 4})
	text := encode(t, c, "v", "")
	r := request("theme=" + text[:8] + strings.Repeat("A", 10<<20))
	chunks := request("theme=2~" + text[:8] + "; theme~1=" + strings.Repeat("A", 10<<20))
	for name, r := range map[string]*http.Request{"one": r, "chunks": chunks} {
		var err error
		allocs := testing.AllocsPerRun(10, func() { _, _, err = c.Get(r) })
		if err != cookies.ErrInvalid || allocs != 0 {
			t.Errorf("%s: %v, %v allocations", name, err, allocs)
		}
	}
}
