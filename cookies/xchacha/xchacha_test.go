package xchacha_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/xchacha"
)

var key = bytes.Repeat([]byte{0xa1}, 32)

func sealed(t testing.TB, key []byte, name string) *cookies.Cookie[string] {
	t.Helper()
	c, err := cookies.NewSealed(cookies.Config[string]{
		Name: name, Keys: [][]byte{key}, Codec: cookies.String(), Suite: xchacha.Suite(), MaxAge: cookies.MaxAgeLimit,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
func TestVector(t *testing.T) {
	aead, err := xchacha.Suite().New(unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"))
	if err != nil {
		t.Fatal(err)
	}
	const plaintext = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
	got := aead.Seal(nil, unhex(t, "404142434445464748494a4b4c4d4e4f5051525354555657"), []byte(plaintext), unhex(t, "50515253c0c1c2c3c4c5c6c7"))
	const want = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb" +
		"731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452" +
		"2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9" +
		"21f9664c97637da9768812f615c68b13b52e" +
		"c0875924c1c7987947deafd8780acf49"
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x", got)
	}
}

// Values of an independent implementation of the format are read.
func TestValues(t *testing.T) {
	b, err := os.ReadFile("testdata/values.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Name, Binding, Key, Payload, Text string
		Issued, Expires                   int64
	}
	if err := json.Unmarshal(b, &all); err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, v := range all {
			got, info, err := sealed(t, unhex(t, v.Key), v.Name).Decode(v.Text, v.Binding)
			if got != v.Payload || err != nil || info.IssuedAt.Unix() != v.Issued || info.ExpiresAt.Unix() != v.Expires {
				t.Errorf("%.20s: %q, %+v, %v", v.Text, got, info, err)
			}
		}
	})
}

// cookies 1 and 3: no bit of a value can change, and neither suite takes the
// values of the other, under the same key.
func TestForgery(t *testing.T) {
	c := sealed(t, key, "theme")
	text, err := c.Encode("dark", "")
	if err != nil || !strings.HasPrefix(text, "e2.") {
		t.Fatal(text, err)
	}
	for i := range len(text) {
		for bit := range 8 {
			changed := []byte(text)
			changed[i] ^= 1 << bit
			if v, _, err := c.Decode(string(changed), ""); !errors.Is(err, cookies.ErrInvalid) || v != "" {
				t.Fatalf("bit %d of byte %d: %q, %v", bit, i, v, err)
			}
		}
	}
	e1, err := cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: [][]byte{key}, Codec: cookies.String()})
	if err != nil {
		t.Fatal(err)
	}
	other, err := e1.Encode("dark", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(other) != len(text) || other[3:7] != text[3:7] {
		t.Errorf("length and key id differ: %q, %q", other, text)
	}
	for _, foreign := range []string{other, "e2" + other[2:]} {
		if _, _, err := c.Decode(foreign, ""); err != cookies.ErrInvalid {
			t.Errorf("%.3s read as e2: %v", foreign, err)
		}
	}
	if _, _, err := e1.Decode("e1"+text[2:], ""); err != cookies.ErrInvalid {
		t.Errorf("e2 read as e1: %v", err)
	}
}

// cookies 13: where Go allows approved cryptography alone there is no e2, and the
// constructor says so. It is seen in a process with GODEBUG=fips140=only.
func TestFIPSOnly(t *testing.T) {
	if fips140.Enforced() {
		_, err := cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: [][]byte{key}, Suite: xchacha.Suite()})
		if err == nil || !strings.HasPrefix(err.Error(), "cookies: Suite: ") {
			t.Errorf("got %v", err)
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run=^TestFIPSOnly$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFIPSOnly ") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// cookies 39: of everything that can be made of a valid value by replacing a part
// of it, only the value itself is accepted.
func FuzzDecode(f *testing.F) {
	c := sealed(f, key, "theme")
	valid, err := c.Encode("dark", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(0), uint16(0), "")
	f.Add(uint16(0), uint16(1000), "e2.AAAA.AAAA")
	f.Add(uint16(9), uint16(10), "A")
	f.Fuzz(func(t *testing.T, cut, from uint16, insert string) {
		n := uint16(len(valid))
		text := valid[:min(cut, n)] + insert + valid[min(from, n):]
		v, _, err := c.Decode(text, "")
		if text == valid && (v != "dark" || err != nil) || text != valid && (v != "" || !errors.Is(err, cookies.ErrInvalid)) {
			t.Errorf("%q in the place of %q: %q, %v", text, valid, v, err)
		}
	})
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
