// Package cookies holds the tests of the cookies package against another
// implementation and against a browser.
package cookies

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/gorilla/securecookie"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/xchacha"
)

// codec is one way to protect a value under a name and a key.
type codec struct {
	name   string
	encode func(key int, cookie, value string) (string, error)
	decode func(key int, cookie, text string) (string, error)
}

// codecs are ours and those of gorilla/securecookie.
func codecs(t *testing.T) []codec {
	ours := func(name string, suite cookies.Suite, make func(cookies.Config[string]) (*cookies.Cookie[string], error)) codec {
		declare := func(key int, cookie string) *cookies.Cookie[string] {
			c, err := make(cookies.Config[string]{Name: cookie, Keys: [][]byte{[][]byte{keyA, keyB}[key]}, Codec: cookies.String(), Suite: suite})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		return codec{
			name,
			func(key int, cookie, value string) (string, error) { return declare(key, cookie).Encode(value, "") },
			func(key int, cookie, text string) (string, error) {
				v, _, err := declare(key, cookie).Decode(text, "")
				return v, err
			},
		}
	}
	gorilla := func(name string, block bool) codec {
		declare := func(key int) *securecookie.SecureCookie {
			hash, secret := [][]byte{keyA, keyB}[key], []byte(nil)
			if block {
				secret = [][]byte{keyB, keyA}[key]
			}
			return securecookie.New(hash, secret).SetSerializer(securecookie.NopEncoder{})
		}
		return codec{
			name,
			func(key int, cookie, value string) (string, error) {
				return declare(key).Encode(cookie, []byte(value))
			},
			func(key int, cookie, text string) (string, error) {
				var v []byte
				err := declare(key).Decode(cookie, text, &v)
				return string(v), err
			},
		}
	}
	return []codec{
		ours("e1", cookies.Suite{}, cookies.NewSealed[string]),
		ours("e2", xchacha.Suite(), cookies.NewSealed[string]),
		ours("s1", cookies.Suite{}, cookies.NewSigned[string]),
		gorilla("securecookie, encrypt", true),
		gorilla("securecookie, sign", false),
	}
}

// What both promise, held against both in one table: a value comes back under its
// name and key, and not under others, changed, cut or empty.
func TestAsSecurecookie(t *testing.T) {
	for _, c := range codecs(t) {
		t.Run(c.name, func(t *testing.T) {
			// securecookie cannot read back an empty value that it encrypted.
			for _, v := range []string{"x", "key=value; path", strings.Repeat("long ", 300), "\x00\xff|\n"} {
				text, err := c.encode(0, "sid", v)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := c.decode(0, "sid", text); got != v || err != nil {
					t.Errorf("%.20q became %.20q, %v", v, got, err)
				}
				if again, err := c.encode(0, "sid", v); err != nil || again == text && c.name != "s1" && !strings.HasSuffix(c.name, "sign") {
					t.Errorf("%.20q is sealed twice to the same text, %v", v, err)
				}
			}
			text, err := c.encode(0, "sid", "value")
			if err != nil {
				t.Fatal(err)
			}
			for what, f := range map[string]func() (string, error){
				"another key":  func() (string, error) { return c.decode(1, "sid", text) },
				"another name": func() (string, error) { return c.decode(0, "sie", text) },
				"longer name":  func() (string, error) { return c.decode(0, "sids", text) },
				"empty":        func() (string, error) { return c.decode(0, "sid", "") },
				"not base64":   func() (string, error) { return c.decode(0, "sid", text+"!") },
				"half":         func() (string, error) { return c.decode(0, "sid", text[:len(text)/2]) },
				"reversed case": func() (string, error) {
					return c.decode(0, "sid", text[:20]+strings.Map(otherCase, text[20:40])+text[40:])
				},
			} {
				if v, err := f(); err == nil {
					t.Errorf("%s: read %q", what, v)
				}
			}
			if _, err := c.encode(0, "sid", strings.Repeat("x", 5000)); err == nil {
				t.Error("a value for which no cookie has room was encoded")
			}
		})
	}
}

// otherCase is the other one of a small and a capital letter.
func otherCase(r rune) rune {
	if unicode.IsLower(r) {
		return unicode.ToUpper(r)
	}
	return unicode.ToLower(r)
}

// Where they differ: securecookie takes several spellings for one value, so a
// value that was struck from a list by its text comes back in another. Here
// there is one spelling.
func TestOneSpelling(t *testing.T) {
	for _, c := range codecs(t) {
		t.Run(c.name, func(t *testing.T) {
			peer := strings.HasPrefix(c.name, "securecookie")
			text, err := c.encode(0, "sid", "value")
			if err != nil {
				t.Fatal(err)
			}
			other := text[:20] + "\n" + text[20:]
			if _, err := c.decode(0, "sid", other); (err == nil) != peer {
				t.Errorf("with a line break inside: %v", err)
			}
			if !peer && !errors.Is(decodeError(c, text+"="), cookies.ErrInvalid) {
				t.Error("with padding: accepted")
			}
			if _, err := base64.RawURLEncoding.DecodeString(text[strings.LastIndex(text, ".")+1:]); !peer && err != nil {
				t.Errorf("the last part is not base64url: %v", err)
			}
		})
	}
}

func decodeError(c codec, text string) error {
	_, err := c.decode(0, "sid", text)
	return err
}
