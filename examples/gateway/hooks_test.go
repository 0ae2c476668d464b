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

// The command that is printed is handled once, by whichever gateway on the store
// gets it first, and one that was changed is not.
func TestHooks(t *testing.T) {
	file := "sqlite:" + filepath.Join(t.TempDir(), "gateway.db")
	g := start(t, "-store", file)
	eventually(t, func() bool { return strings.Contains(g.printed.String(), "/hooks\n") }, func() string { return "printed only " + g.printed.String() })
	_, command, ok := strings.Cut(g.printed.String(), `  curl -i -H "X-Hub-Signature-256: `)
	command, _, _ = strings.Cut(command, "\n")
	signature, rest, _ := strings.Cut(command, `" -d `)
	body, url, _ := strings.Cut(rest, " ")
	if !ok || url != g.url+"/hooks" {
		t.Fatalf("the command is %q", command)
	}
	send := func(signature, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Hub-Signature-256", signature)
		res, err := newClient(t, false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if status, got := send(signature, body+"x"); status != 401 || !strings.Contains(got, `"code":`) {
		t.Errorf("changed: %d %s", status, got)
	}
	if status, got := send(signature, body); status != 200 || !strings.Contains(got, body) {
		t.Errorf("first: %d %s", status, got)
	}
	if status, got := send(signature, body); status != 200 || got != "" {
		t.Errorf("second: %d %s, want an empty 200", status, got)
	}
}

// The guarded route: with the token, without, with a wrong one, with a browser, and
// whatever the method.
func TestGuard(t *testing.T) {
	g := start(t)
	client := newClient(t, false)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, tt := range []struct {
		name, method, field, value string
		want                       int
		body                       string
	}{
		{"token", "GET", "Authorization", "Bearer demo", 200, `"user":"ann"`},
		{"wrong token", "GET", "Authorization", "Bearer other", 401, "not that token"},
		{"nothing", "GET", "", "", 401, "not that token"},
		{"forged", "GET", "Remote-User", "ann", 401, "not that token"},
		{"browser", "GET", "Accept", "text/html", 302, ""},
		{"POST", "POST", "Remote-User", "ann", 401, "not that token"},
		{"DELETE", "DELETE", "", "", 401, "not that token"},
		{"OPTIONS", "OPTIONS", "Origin", "https://elsewhere.example", 401, "not that token"},
		{"POST, token", "POST", "Authorization", "Bearer demo", 405, ""}, // says the back end
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, g.url+"/private", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.field != "" {
			req.Header.Set(tt.field, tt.value)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != tt.want || !strings.Contains(string(b), tt.body) {
			t.Errorf("%s: %d %s %v", tt.name, res.StatusCode, b, err)
		}
		if tt.want == 302 && res.Header.Get("Location") != "/login" {
			t.Errorf("%s: Location %q", tt.name, res.Header.Get("Location"))
		}
	}
}

// A browser that is sent to the login gets in after it, and not after a logout.
func TestGuardLogin(t *testing.T) {
	g := start(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, false)
	client.Jar = jar
	private := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", g.url+"/private", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		return behind(t, client, req)
	}
	post := func(path string, form url.Values) {
		t.Helper()
		res, err := client.PostForm(g.url+path, form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	const page, in = `<form method="post" action="/login">`, `"user":"bob"`
	if got := private(); !strings.Contains(got, page) {
		t.Errorf("before the login: %s", got)
	}
	post("/login", url.Values{"name": {"bob"}})
	if got := private(); !strings.Contains(got, in) {
		t.Errorf("after the login: %s", got)
	}
	post("/logout", nil)
	if got := private(); !strings.Contains(got, page) {
		t.Errorf("after the logout: %s", got)
	}
}

// behind returns what is behind all redirects.
func behind(t *testing.T, client *http.Client, req *http.Request) string {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
