package forwardauth_test

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/interop/prog"
)

// oauth2Proxy returns the path of an oauth2-proxy: the installed one, or one
// that is built from the module in oauth2proxy, and what it is.
func oauth2Proxy(t *testing.T) (path, version string) {
	if path, err := prog.Find("oauth2-proxy"); err == nil {
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		return path, strings.TrimSpace(string(out))
	}
	const module = "github.com/oauth2-proxy/oauth2-proxy/v7"
	path = filepath.Join(t.TempDir(), "oauth2-proxy")
	build := exec.Command("go", "build", "-o", path, module)
	build.Dir = "oauth2proxy"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list := exec.Command("go", "list", "-m", module)
	list.Dir = "oauth2proxy"
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.TrimSpace(string(out))
}

// startOAuth2Proxy runs an oauth2-proxy that knows the users of an htpasswd
// file, so that no identity provider is needed, and returns its URL. Of a flag
// in more that is here too, the one in more counts.
func startOAuth2Proxy(t *testing.T, path string, users map[string]string, more ...string) string {
	var htpasswd strings.Builder
	for name, password := range users {
		sum := sha1.Sum([]byte(password)) // the one format that the standard library can write
		fmt.Fprintf(&htpasswd, "%s:{SHA}%s\n", name, base64.StdEncoding.EncodeToString(sum[:]))
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(htpasswd.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := prog.Start(t, func(addr string) *exec.Cmd {
		cmd := exec.Command(path, append([]string{"--http-address=" + addr, "--reverse-proxy", "--set-xauthrequest",
			"--htpasswd-file=" + file, "--htpasswd-user-group=dev", "--cookie-secure=false",
			"--cookie-secret=0123456789abcdef0123456789abcdef", "--upstream=static://202",
			"--provider=github", "--client-id=none", "--client-secret=none", "--email-domain=*"}, more...)...)
		cmd.Env = []string{} // settings come from OAUTH2_PROXY_… otherwise
		return cmd
	}, prog.Dial)
	return "http://" + addr
}

// app is an application behind the middleware, and what its handler saw last.
type app struct {
	*httptest.Server
	seen http.Header // nil when the handler did not run
}

func guard(t *testing.T, c forwardauth.Config) *app {
	m, err := forwardauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	a := &app{}
	a.Server = httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.seen = r.Header
	})))
	t.Cleanup(a.Close)
	return a
}

// get asks the application; the header is given as lines.
func (a *app) get(t *testing.T, client *http.Client, target string, header ...string) *http.Response {
	t.Helper()
	return a.do(t, client, "GET", target, header...)
}

func (a *app) do(t *testing.T, client *http.Client, method, target string, header ...string) *http.Response {
	t.Helper()
	a.seen = nil
	r, err := http.NewRequestWithContext(t.Context(), method, a.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

// browser keeps cookies and follows no redirects.
func browser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// forwardauth 34: a browser and a program in front of a real oauth2-proxy:
// redirect, signing in, spoofed fields, basic authentication, a session in
// several cookies, one that is renewed, a broken one, groups, signing out, and a
// service that is gone.
func TestOAuth2Proxy(t *testing.T) {
	path, version := oauth2Proxy(t)
	t.Run("health check", func(t *testing.T) { testHealthCheck(t, path) })
	t.Run("refresh", func(t *testing.T) { testRefresh(t, path) })
	t.Run("return", func(t *testing.T) { testReturn(t, path) })
	// A name that does not compress makes a session too long for one cookie.
	raw := make([]byte, 4500)
	rand.Read(raw)
	long := base64.RawURLEncoding.EncodeToString(raw)
	service := startOAuth2Proxy(t, path, map[string]string{"ada": "lovelace", long: "x"})

	rec := &recorder{base: &http.Transport{}}
	config := forwardauth.OAuth2Proxy(service)
	config.Base = rec
	a := guard(t, config)
	const html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	spoof := []string{html, "X-Auth-Request-User: root", "X_auth_request_user: root", "X-Auth-Request-Access-Token: t"}
	signIn := func(c *http.Client, name, password string) {
		t.Helper()
		res, err := c.PostForm(service+"/oauth2/sign_in", url.Values{"username": {name}, "password": {password}, "rd": {"/"}})
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusFound || len(res.Cookies()) == 0 {
			t.Fatalf("signing in: status %d, %v", res.StatusCode, res.Header)
		}
	}
	c := browser(t)

	rec.name = "nobody, a program"
	if res := a.get(t, c, "/a?b", "Accept: application/json"); res.StatusCode != 401 || res.Header.Get("Location") != "" || a.seen != nil {
		t.Errorf("a program: status %d, %v", res.StatusCode, res.Header)
	}
	rec.name = "nobody, a browser"
	back := service + "/oauth2/start?rd=" + url.QueryEscape(a.URL+"/a?b")
	if res := a.get(t, c, "/a?b", html); res.StatusCode != 302 || res.Header.Get("Location") != back || a.seen != nil {
		t.Errorf("a browser: status %d, %v", res.StatusCode, res.Header)
	}

	signIn(c, "ada", "lovelace")
	rec.name = "signed in"
	if res := a.get(t, c, "/a?b", spoof...); res.StatusCode != 200 || a.seen.Get("X-Auth-Request-User") != "ada" || a.seen.Get("X-Auth-Request-Groups") != "dev" ||
		a.seen["X_auth_request_user"] != nil || a.seen["X-Auth-Request-Access-Token"] != nil {
		t.Errorf("signed in: status %d, the handler saw %v", res.StatusCode, a.seen)
	}

	rec.name = "basic authentication"
	basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ada:lovelace"))
	if res := a.get(t, browser(t), "/", basic); res.StatusCode != 200 || a.seen.Get("X-Auth-Request-User") != "ada" {
		t.Errorf("basic authentication: status %d, the handler saw %v", res.StatusCode, a.seen)
	}

	rec.name = "a broken session"
	if res := a.get(t, browser(t), "/", "Cookie: _oauth2_proxy=broken"); res.StatusCode != 401 || len(res.Cookies()) != 1 || res.Cookies()[0].Value != "" || a.seen != nil {
		t.Errorf("a broken session: status %d, %v", res.StatusCode, res.Header)
	}

	many := browser(t)
	signIn(many, long, "x")
	u, err := url.Parse(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(many.Jar.Cookies(u)); n < 2 {
		t.Fatalf("%d cookies, want a session in several", n)
	}
	if res := a.get(t, many, "/"); res.StatusCode != 200 || a.seen.Get("X-Auth-Request-User") != long {
		t.Errorf("several cookies: status %d", res.StatusCode)
	}

	// What the proxy is asked is a part of the configuration.
	groups := config
	groups.URL += "?allowed_groups=admins"
	b := guard(t, groups)
	rec.name = "not in the group"
	if res := b.get(t, c, "/", html); res.StatusCode != 403 || b.seen != nil {
		t.Errorf("not in the group: status %d", res.StatusCode)
	}

	res, err := c.Get(service + "/oauth2/sign_out")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res := a.get(t, c, "/"); res.StatusCode != 401 || a.seen != nil {
		t.Errorf("signed out: status %d", res.StatusCode)
	}

	gone := forwardauth.OAuth2Proxy("http://" + prog.Addr(t))
	if res := guard(t, gone).get(t, c, "/", html); res.StatusCode != 503 {
		t.Errorf("gone: status %d", res.StatusCode)
	}
	rec.write(t, "oauth2-proxy.json", version+", recorded by TestOAuth2Proxy in internal/interop/forwardauth")
}

// CVE-2026-34457: up to v7.15.1 the health check of oauth2-proxy answers at any
// path, to whoever has its User-Agent. That is no decision.
func testHealthCheck(t *testing.T, path string) {
	service := startOAuth2Proxy(t, path, map[string]string{"ada": "lovelace"}, "--ping-user-agent=probe/1")
	a := guard(t, forwardauth.OAuth2Proxy(service))
	res := a.get(t, browser(t), "/", "User-Agent: probe/1", "X-Auth-Request-User: root")
	if res.StatusCode != 403 && res.StatusCode != 401 || a.seen != nil {
		t.Errorf("status %d, the handler saw %v", res.StatusCode, a.seen)
	}
}

// Who has signed in is led back to the page they came from, if the proxy may lead
// to its host, and otherwise to the proxy's own root.
func testReturn(t *testing.T, path string) {
	for _, allowed := range []bool{false, true} {
		var more []string
		if allowed {
			more = append(more, "--whitelist-domain=127.0.0.1:*")
		}
		service := startOAuth2Proxy(t, path, map[string]string{"ada": "lovelace"}, more...)
		a := guard(t, forwardauth.OAuth2Proxy(service))
		want := "/"
		if allowed {
			want = a.URL + "/a?b"
		}
		c := browser(t)
		start, err := url.Parse(a.get(t, c, "/a?b", "Accept: text/html").Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{"username": {"ada"}, "password": {"lovelace"}, "rd": start.Query()["rd"]}
		res, err := c.PostForm(service+"/oauth2/sign_in", form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Location"); res.StatusCode != 302 || got != want {
			t.Errorf("allowed %v: status %d to %q, want %q", allowed, res.StatusCode, got, want)
		}
		if res := a.get(t, c, "/a?b"); res.StatusCode != 200 || a.seen.Get("X-Auth-Request-User") != "ada" {
			t.Errorf("allowed %v: behind it status %d", allowed, res.StatusCode)
		}
	}
}
