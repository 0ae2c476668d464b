package cookies_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/cookies"
)

// Fixed keys, so that a failing test fails again.
var (
	keyA = bytes.Repeat([]byte{0xa1}, 32)
	keyB = bytes.Repeat([]byte{0xb2}, 32)
	keyC = bytes.Repeat([]byte{0xc3}, 32)
)

func keys(keys ...[]byte) [][]byte { return keys }

func must[T any](t testing.TB) func(*cookies.Cookie[T], error) *cookies.Cookie[T] {
	t.Helper()
	return func(c *cookies.Cookie[T], err error) *cookies.Cookie[T] {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func sealed(t testing.TB, c cookies.Config[string]) *cookies.Cookie[string] {
	t.Helper()
	return build(t, c, cookies.NewSealed)
}

// build makes a cookie for strings, called theme and with keyA unless c says
// otherwise.
func build(t testing.TB, c cookies.Config[string], make func(cookies.Config[string]) (*cookies.Cookie[string], error)) *cookies.Cookie[string] {
	t.Helper()
	if c.Name == "" {
		c.Name = "theme"
	}
	if c.Keys == nil {
		c.Keys = keys(keyA)
	}
	if c.Codec == nil {
		c.Codec = cookies.String()
	}
	return must[string](t)(make(c))
}

// kinds are the two protections, for what holds for both.
var kinds = []struct {
	name string
	make func(cookies.Config[string]) (*cookies.Cookie[string], error)
}{
	{"sealed", cookies.NewSealed[string]},
	{"signed", cookies.NewSigned[string]},
}

func encode(t testing.TB, c *cookies.Cookie[string], v, binding string) string {
	t.Helper()
	text, err := c.Encode(v, binding)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// request returns a request with Cookie fields, one for each line.
func request(lines ...string) *http.Request {
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	r.Header["Cookie"] = lines
	return r
}

// setCookies returns the cookies that a response sets, as net/http reads them.
func setCookies(w *httptest.ResponseRecorder) map[string]*http.Cookie {
	all := map[string]*http.Cookie{}
	for _, c := range w.Result().Cookies() {
		all[c.Name] = c
	}
	return all
}

// browse returns the request that a browser sends after the response w to r.
func browse(r *http.Request, w *httptest.ResponseRecorder) *http.Request {
	jar := map[string]string{}
	var names []string
	for _, c := range r.Cookies() {
		jar[c.Name] = c.Value
		names = append(names, c.Name)
	}
	for _, c := range w.Result().Cookies() {
		if _, ok := jar[c.Name]; !ok {
			names = append(names, c.Name)
		}
		jar[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(jar, c.Name)
		}
	}
	var pairs []string
	for _, name := range names {
		if v, ok := jar[name]; ok {
			pairs = append(pairs, name+"="+v)
		}
	}
	return request(strings.Join(pairs, "; "))
}

// value is one line of testdata/values.json: what an independent implementation
// of the wire format has made.
type value struct {
	Suite, Name, Binding, Key, Payload, Text string
	Issued, Expires                          int64
}

func readValues(t testing.TB, path string) []value {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []value
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", path)
	}
	return slices.Clip(all)
}
