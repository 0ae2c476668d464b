package cookies_test

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/plainware/cookies"
)

// cookies 17 to 20: what a browser would drop in silence, and what nobody should
// declare, is an error of the constructor, named by its field.
func TestConfigRejects(t *testing.T) {
	none := http.SameSiteNoneMode
	for _, tc := range []struct {
		name   string
		config cookies.Config[string]
		want   string // after "cookies: "
	}{
		// 17: each rule of each prefix.
		{"host, domain", cookies.Config[string]{Name: "__Host-a", Domain: "example.com"}, "Domain: must be empty for a name with the prefix __Host-"},
		{"host, path", cookies.Config[string]{Name: "__Host-a", Path: "/a"}, "Path: must be / for a name with the prefix __Host-"},
		{"host, insecure", cookies.Config[string]{Name: "__Host-a", Insecure: true}, "Insecure: must not be set for a name with the prefix __Host-"},
		{"HOST, domain", cookies.Config[string]{Name: "__HOST-a", Domain: "example.com"}, "Domain: must be empty"},
		{"hOsT, path", cookies.Config[string]{Name: "__hOsT-a", Path: "/a"}, "Path: must be /"},
		{"secure, insecure", cookies.Config[string]{Name: "__Secure-a", Insecure: true}, "Insecure: must not be set for a name with the prefix __Secure-"},
		{"SECURE, insecure", cookies.Config[string]{Name: "__SECURE-a", Insecure: true}, "Insecure: must not be set"},
		{"http, insecure", cookies.Config[string]{Name: "__Http-a", Insecure: true}, "Insecure: must not be set for a name with the prefix __Http-"},
		{"http, scripts", cookies.Config[string]{Name: "__http-a", ScriptReadable: true}, "ScriptReadable: must not be set for a name with the prefix __Http-"},
		{"host-http, domain", cookies.Config[string]{Name: cookies.HostOnly("a"), Domain: "a.example"}, "Domain: must be empty for a name with the prefix __Host-Http-"},
		{"host-http, path", cookies.Config[string]{Name: cookies.HostOnly("a"), Path: "/a"}, "Path: must be /"},
		{"host-http, insecure", cookies.Config[string]{Name: cookies.HostOnly("a"), Insecure: true}, "Insecure: must not be set"},
		{"host-http, scripts", cookies.Config[string]{Name: cookies.HostOnly("a"), ScriptReadable: true}, "ScriptReadable: must not be set for a name with the prefix __Host-Http-"},
		{"nothing after the prefix", cookies.Config[string]{Name: cookies.HostOnly("")}, "Name: has nothing after its prefix"},
		// 18
		{"none, insecure", cookies.Config[string]{SameSite: none, Insecure: true}, "Insecure: must not be set with SameSite=None"},
		{"partitioned, insecure", cookies.Config[string]{Partitioned: true, Insecure: true}, "Insecure: must not be set with Partitioned"},
		{"no SameSite", cookies.Config[string]{SameSite: http.SameSiteDefaultMode}, "SameSite: must be Lax, Strict or None (got 1)"},
		{"invented SameSite", cookies.Config[string]{SameSite: 9}, "SameSite: must be Lax, Strict or None (got 9)"},
		// 19
		{"over 400 days", cookies.Config[string]{MaxAge: cookies.MaxAgeLimit + time.Second}, "MaxAge: is longer than the 400 days"},
		{"under a second", cookies.Config[string]{MaxAge: time.Second - 1}, "MaxAge: must be at least one second"},
		{"negative", cookies.Config[string]{MaxAge: -time.Hour}, "MaxAge: must be at least one second (got -1h0m0s)"},
		// 20
		{"no name", cookies.Config[string]{Name: "-"}, ""},
		{"name with a space", cookies.Config[string]{Name: "a b"}, "Name: is not a token"},
		{"name with a semicolon", cookies.Config[string]{Name: "a;b"}, "Name: is not a token"},
		{"name with an equals sign", cookies.Config[string]{Name: "a=b"}, "Name: is not a token"},
		{"name with a line break", cookies.Config[string]{Name: "a\r\nSet-Cookie: b"}, "Name: is not a token"},
		{"name with an umlaut", cookies.Config[string]{Name: "thëme"}, "Name: is not a token"},
		{"name with a control character", cookies.Config[string]{Name: "a\x7f"}, "Name: is not a token"},
		{"long name", cookies.Config[string]{Name: strings.Repeat("n", 1025)}, "Name: is longer than 1024 bytes (got 1025)"},
		{"path with a semicolon", cookies.Config[string]{Path: "/a;b"}, "Path: must begin with a slash and be printable ASCII"},
		{"path with a quotation mark", cookies.Config[string]{Path: `/a"`}, "Path: must begin with a slash and be printable ASCII without semicolons, quotation marks"},
		{"path with a backslash", cookies.Config[string]{Path: `/a\b`}, "Path: must begin with a slash"},
		{"path with a control character", cookies.Config[string]{Path: "/a\x1fb"}, "Path: must begin with a slash"},
		{"path with a line break", cookies.Config[string]{Path: "/\r\nX: y"}, "Path: must begin with a slash"},
		{"path that ends in a space", cookies.Config[string]{Path: "/a "}, "Path: must begin with a slash"},
		{"relative path", cookies.Config[string]{Path: "a"}, "Path: must begin with a slash"},
		{"long path", cookies.Config[string]{Path: "/" + strings.Repeat("p", 1024)}, "Path: is longer than 1024 bytes (got 1025)"},
		{"domain with a semicolon", cookies.Config[string]{Domain: "a;b"}, "Domain: must be a host name"},
		{"domain with a line break", cookies.Config[string]{Domain: "a\nb"}, "Domain: must be a host name"},
		{"domain with a leading dot", cookies.Config[string]{Domain: ".example.com"}, "Domain: must be a host name"},
		{"domain with a port", cookies.Config[string]{Domain: "example.com:80"}, "Domain: must be a host name"},
		{"domain in Unicode", cookies.Config[string]{Domain: "bücher.example"}, "Domain: must be a host name"},
		{"IPv4 domain", cookies.Config[string]{Domain: "192.0.2.1"}, "Domain: must be a host name"},
		{"IPv6 domain", cookies.Config[string]{Domain: "2001:db8::1"}, "Domain: must be a host name"},
		{"long domain", cookies.Config[string]{Domain: strings.Repeat("a.", 127)}, "Domain: must be a host name"},
		{"long label", cookies.Config[string]{Domain: strings.Repeat("a", 64)}, "Domain: must be a host name"},
		{"label with a hyphen at its end", cookies.Config[string]{Domain: "a-.example"}, "Domain: must be a host name"},
		{"five chunks", cookies.Config[string]{Chunks: 5}, "Chunks: must be at most 4 (got 5)"},
	} {
		for _, kind := range kinds {
			cfg := tc.config
			cfg.Keys = keys(keyA)
			switch cfg.Name {
			case "":
				cfg.Name = "theme"
			case "-":
				cfg.Name, tc.want = "", `Name: is empty (got "")`
			}
			c, err := kind.make(cfg)
			if c != nil || err == nil || !strings.HasPrefix(err.Error(), "cookies: "+tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %s: %v", tc.name, kind.name, err)
			}
		}
	}
}

// What is at the bounds is accepted.
func TestConfigAccepts(t *testing.T) {
	for _, cfg := range []cookies.Config[string]{
		{Name: "__Secure-a", Domain: "example.com", Path: "/a", ScriptReadable: true},
		{Name: "__Http-a", Domain: "a-1.example_x.com", Path: "/a b"},
		{Name: "__Host-a", Path: "/", ScriptReadable: true, Partitioned: true, SameSite: http.SameSiteNoneMode},
		{Name: cookies.HostOnly("a"), SameSite: http.SameSiteStrictMode},
		{Name: "__Hos", Domain: "localhost", Insecure: true},
		{Name: strings.Repeat("n", 1024), Path: "/" + strings.Repeat("p", 1023), Domain: strings.Repeat("a.", 126) + "a"},
		{Name: "!#$%&'*+-.^_`|~09azAZ", MaxAge: time.Second, Chunks: -1},
		{MaxAge: cookies.MaxAgeLimit, Chunks: 4},
	} {
		for _, kind := range kinds {
			c := build(t, cfg, kind.make)
			if v, _, err := c.Decode(encode(t, c, "v", ""), ""); v != "v" || err != nil {
				t.Errorf("%s %+v: %q, %v", kind.name, cfg, v, err)
			}
		}
	}
}

// All problems of a configuration are named at once, and none twice.
func TestConfigNamesAll(t *testing.T) {
	cfg := cookies.Config[string]{
		Name: "__Host-a b", Domain: "example.com", Path: "x", SameSite: 7, Insecure: true,
		MaxAge: -1, Chunks: 9, Keys: keys(keyA[:16]), Suite: cookies.Suite{Version: "e1", New: randomNonce},
	}
	fields := []string{"Suite", "Name", "Path", "Domain", "SameSite", "Insecure", "Keys[0]", "MaxAge", "Chunks"}
	for _, kind := range kinds {
		_, err := kind.make(cfg)
		if err == nil {
			t.Fatal(kind.name)
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(fields) {
			t.Fatalf("%s: %v", kind.name, err)
		}
		for i, field := range fields {
			if !strings.HasPrefix(lines[i], "cookies: "+field+": ") || !strings.Contains(lines[i], "(got ") {
				t.Errorf("%s: line %d is %q, of %s", kind.name, i, lines[i], field)
			}
		}
	}
}

func randomNonce(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// A Suite of one's own works when its nonces may be random, and is refused
// otherwise.
func TestSuite(t *testing.T) {
	gcm := cookies.Suite{Version: "mygcm1", New: randomNonce}
	c := sealed(t, cookies.Config[string]{Suite: gcm})
	text := encode(t, c, "v", "")
	if v, _, err := c.Decode(text, ""); v != "v" || err != nil || !strings.HasPrefix(text, "mygcm1.") {
		t.Errorf("%q: %q, %v", text, v, err)
	}
	if _, _, err := sealed(t, cookies.Config[string]{}).Decode(text, ""); err != cookies.ErrInvalid {
		t.Errorf("read as e1: %v", err)
	}
	for name, suite := range map[string]cookies.Suite{
		"no New":                      {Version: "e2"},
		"no version":                  {New: randomNonce},
		"short version":               {Version: "e", New: randomNonce},
		"long version":                {Version: "e23456789", New: randomNonce},
		"version with a dot":          {Version: "e.2", New: randomNonce},
		"version in upper case":       {Version: "E2", New: randomNonce},
		"version that is a number":    {Version: "12", New: randomNonce},
		"version e1":                  {Version: "e1", New: randomNonce},
		"version s1":                  {Version: "s1", New: randomNonce},
		"version kid":                 {Version: "kid", New: randomNonce}, // a key would begin with its public id
		"key size that it cannot use": {Version: "x1", New: func([]byte) (cipher.AEAD, error) { return nil, errors.New("no") }},
		"nonce of 12 bytes": {Version: "x1", New: func(key []byte) (cipher.AEAD, error) {
			return shortNonce{}, nil
		}},
	} {
		c, err := cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: keys(keyA, keyB), Suite: suite})
		if c != nil || err == nil || !strings.HasPrefix(err.Error(), "cookies: Suite: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cookies.NewSigned(cookies.Config[string]{Name: "theme", Keys: keys(keyA), Suite: gcm}); err == nil || err.Error() != `cookies: Suite: is for sealed cookies only (got "mygcm1")` {
		t.Errorf("signed: %v", err)
	}
}

// shortNonce is an AEAD whose nonces must be counted.
type shortNonce struct{ cipher.AEAD }

func (shortNonce) NonceSize() int { return 12 }
