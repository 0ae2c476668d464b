package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// A login survives a restart of the gateway, another gateway on the same store
// knows it, and a logout ends it for both.
func TestLogin(t *testing.T) {
	file := "sqlite:" + filepath.Join(t.TempDir(), "gateway.db")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, false)
	client.Jar = jar
	page := func(res *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("status %d, %v: %s", res.StatusCode, err, b)
		}
		return string(b)
	}
	const in = "Logged in as <b>Ann &amp; Bob</b>"

	g := start(t, "-store", file)
	if got := page(client.Get(g.url + "/login")); strings.Contains(got, "Logged in") || len(jar.Cookies(mustURL(t, g.url))) != 0 {
		t.Errorf("before the login: %s", got)
	}
	if got := page(client.PostForm(g.url+"/login", url.Values{"name": {" Ann & Bob "}})); !strings.Contains(got, in) {
		t.Errorf("after the login: %s", got)
	}
	g.stop()

	// The address is another one, the host the same: the browser sends the cookie.
	one, two := start(t, "-store", file), start(t, "-store", file)
	for i, g := range []*instance{one, two} {
		if got := page(client.Get(g.url + "/login")); !strings.Contains(got, in) || !strings.Contains(got, []string{"2 visits", "3 visits"}[i]) {
			t.Errorf("gateway %d after the restart: %s", i, got)
		}
	}
	if got := page(client.PostForm(one.url+"/logout", nil)); strings.Contains(got, "Logged in") {
		t.Errorf("after the logout: %s", got)
	}
	if got := page(client.Get(two.url + "/login")); strings.Contains(got, "Logged in") {
		t.Errorf("at the other gateway: %s", got)
	}
	one.stop() // each looks for what it has left behind
	two.stop()
}

// What another site's form sends changes nothing.
func TestLoginFromElsewhere(t *testing.T) {
	g := start(t)
	for _, tt := range []struct {
		name, origin string
		want         int
	}{{"Ann", "https://evil.example", 403}, {"", "", 400}, {strings.Repeat("x", 65), "", 400}, {strings.Repeat("x", 5000), "", 400}, {"bob\x01", "", 400}, {"bob\x7f", "", 400}} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", g.url+"/login", strings.NewReader(url.Values{"name": {tt.name}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if tt.origin != "" {
			req.Header.Set("Origin", tt.origin)
		}
		res, err := newClient(t, false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != tt.want || len(res.Cookies()) != 0 {
			t.Errorf("%.10q from %q: status %d, cookies %v", tt.name, tt.origin, res.StatusCode, res.Cookies())
		}
	}
}
