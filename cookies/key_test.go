package cookies_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/cookies"
)

// A generated key is used as it is, has a text, and is not the next one.
func TestGenerateKey(t *testing.T) {
	a, b := cookies.GenerateKey(), cookies.GenerateKey()
	if len(a) != cookies.KeySize || bytes.Equal(a, b) {
		t.Fatalf("got %d bytes, equal: %v", len(a), bytes.Equal(a, b))
	}
	text := cookies.FormatKey(a)
	if !strings.HasPrefix(text, "ck1_") || len(text) != 4+43 {
		t.Errorf("the text has %d bytes", len(text))
	}
	back, err := cookies.ParseKey(" " + text + "\r\n")
	if err != nil || !bytes.Equal(back, a) {
		t.Errorf("parsed: %v", err)
	}
}

// cookies 8: what cannot be a random key is refused, from text and in Config
// alike, and no error contains a part of it.
func TestParseKeyRejects(t *testing.T) {
	good := cookies.FormatKey(keyA)
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"white space", " \n", "is empty"},
		{"no prefix", good[4:], "does not begin with ck1_"},
		{"another prefix", "CK1_" + good[4:], "does not begin with ck1_"},
		{"prefix alone", "ck1_", "has fewer than 32 bytes (got 0)"},
		{"short", cookies.FormatKey(keyA[:31]), "has fewer than 32 bytes (got 31)"},
		{"zeros", cookies.FormatKey(make([]byte, 40)), "is all zeros"},
		{"padding", good + "=", "is not base64url without padding"},
		{"standard alphabet", "ck1_+" + good[5:], "is not base64url without padding"},
		{"stray bits", good[:len(good)-1] + "_", "is not base64url without padding"},
		{"line break inside", good[:20] + "\n" + good[20:], "is not base64url without padding"},
		{"two keys", good + " " + good, "is not base64url without padding"},
		{"hostile", "ck1_" + strings.Repeat("A", 1<<20), "is longer than 1024 characters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key, err := cookies.ParseKey(tc.text)
			if key != nil || err == nil || !strings.HasPrefix(err.Error(), "cookies: key: "+tc.want) {
				t.Fatalf("got %d bytes, %v", len(key), err)
			}
			if strings.Contains(err.Error(), "oaGh") || strings.Contains(err.Error(), "AAAA") {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
}

// A ring comes from one text, in all the ways that a file or a variable is
// written, and its errors say where without saying what.
func TestParseKeys(t *testing.T) {
	a, b, c := cookies.FormatKey(keyA), cookies.FormatKey(keyB), cookies.FormatKey(keyC)
	for name, text := range map[string]string{
		"file":     "# the ring\r\n\r\nincoming:" + c + "   # from Monday\r\n" + a + "\r\n\t" + b + "  # old, " + c + "\r\n",
		"variable": a + "," + b + ", incoming:" + c,
		"one line": a + " " + b + " incoming:" + c,
	} {
		current, early, err := cookies.ParseKeys(text)
		if err != nil || !slices.EqualFunc(current, keys(keyA, keyB), bytes.Equal) || !slices.EqualFunc(early, keys(keyC), bytes.Equal) {
			t.Errorf("%s: %d and %d keys, %v", name, len(current), len(early), err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "comment": "# " + a, "incoming alone": "incoming:" + a,
	} {
		if current, early, err := cookies.ParseKeys(text); current != nil || early != nil || err == nil || err.Error() != "cookies: keys: none that writes" {
			t.Errorf("%s: %v", name, err)
		}
	}
	current, early, err := cookies.ParseKeys(a + "\nck2_" + b[4:] + "\nincoming:" + c[:30] + "\nincoming: " + b)
	const want = "cookies: key 2: does not begin with ck1_\n" +
		"cookies: key 3: is not base64url without padding\n" +
		"cookies: key 4: is empty"
	if current != nil || early != nil || err == nil {
		t.Fatalf("%d and %d keys, %v", len(current), len(early), err)
	}
	if got := err.Error(); got != want && got != strings.Replace(want, "is not base64url without padding", "has fewer than 32 bytes (got 19)", 1) {
		t.Errorf("got %v", err)
	}
}

// cookies 8: the same for keys in Config, all at once.
func TestConfigKeys(t *testing.T) {
	for _, kind := range kinds {
		_, err := kind.make(cookies.Config[string]{
			Name:     "theme",
			Keys:     keys(keyA, keyA[:31], make([]byte, 32), bytes.Clone(keyA), nil),
			Incoming: keys([]byte("short"), keyA),
		})
		const want = "cookies: Keys[1]: has fewer than 32 bytes (got 31)\n" +
			"cookies: Keys[2]: is all zeros\n" +
			"cookies: Keys[3]: repeats an earlier key\n" +
			"cookies: Keys[4]: has fewer than 32 bytes (got 0)\n" +
			"cookies: Incoming[0]: has fewer than 32 bytes (got 5)\n" +
			"cookies: Incoming[1]: repeats an earlier key"
		if err == nil || err.Error() != want {
			t.Errorf("%s: got\n%v", kind.name, err)
		}
		if _, err := kind.make(cookies.Config[string]{Name: "theme", Incoming: keys(keyA)}); err == nil || err.Error() != "cookies: Keys: is empty (got 0 keys)" {
			t.Errorf("%s: without a key that writes: %v", kind.name, err)
		}
	}
}

// cookies 7: two keys with one id are refused. An id has 24 bits, so among a few
// thousand keys there are two.
func TestKeyIDCollision(t *testing.T) {
	seen := map[string][]byte{}
	for i := uint64(1); i < 100_000; i++ {
		key := binary.BigEndian.AppendUint64(bytes.Clone(keyA), i)
		c := build(t, cookies.Config[string]{Keys: keys(key)}, cookies.NewSigned[string])
		id := encode(t, c, "", "")[3:7]
		other := seen[id]
		if other == nil {
			seen[id] = key
			continue
		}
		want := fmt.Sprintf("cookies: Keys[1]: has the id of an earlier key; generate another (got %s)", id)
		for _, kind := range kinds {
			if _, err := kind.make(cookies.Config[string]{Name: "theme", Keys: keys(key, other)}); err == nil || err.Error() != want {
				t.Errorf("%s: %v", kind.name, err)
			}
			want := strings.Replace(want, "Keys[1]", "Incoming[0]", 1)
			if _, err := kind.make(cookies.Config[string]{Name: "theme", Keys: keys(key), Incoming: keys(other)}); err == nil || err.Error() != want {
				t.Errorf("%s: %v", kind.name, err)
			}
		}
		return
	}
	t.Fatal("no two keys have one id")
}

// Keys longer than the minimum count in full, and the caller may wipe them.
func TestKeysAreCopied(t *testing.T) {
	long := append(bytes.Clone(keyA), 1)
	mine := bytes.Clone(long)
	c := sealed(t, cookies.Config[string]{Keys: keys(mine)})
	clear(mine)
	text := encode(t, c, "v", "")
	if v, _, err := sealed(t, cookies.Config[string]{Keys: keys(long)}).Decode(text, ""); v != "v" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	if _, _, err := sealed(t, cookies.Config[string]{Keys: keys(keyA)}).Decode(text, ""); err != cookies.ErrUnknownKey {
		t.Errorf("without the last byte: %v", err)
	}
}

// The key itself is nowhere in what is sent.
func TestKeysStayInside(t *testing.T) {
	for _, kind := range kinds {
		text := encode(t, build(t, cookies.Config[string]{}, kind.make), "v", "")
		raw, err := base64.RawURLEncoding.DecodeString(text[8:])
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, keyA[:4]) {
			t.Errorf("%s: %q contains the key", kind.name, text)
		}
	}
}
