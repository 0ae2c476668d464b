package forwardauth_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/interop/prog"
)

// autheliaConfig is for one user and three hosts: one that is open, one for
// those who are signed in, with a part that nobody but root may enter.
const autheliaConfig = `
server: {address: 'tcp://%[1]s/'}
identity_validation: {reset_password: {jwt_secret: 0123456789abcdef0123456789abcdef}}
authentication_backend: {file: {path: '%[2]s/users.yml'}}
access_control:
  default_policy: deny
  rules:
    - {domain: public.example.com, policy: bypass}
    - {domain: app.example.com, resources: ['^/admin'], policy: deny}
    - {domain: app.example.com, policy: one_factor}
session:
  secret: 0123456789abcdef0123456789abcdef
  cookies: [{domain: example.com, authelia_url: 'https://auth.example.com'}]
storage:
  encryption_key: 0123456789abcdef0123456789abcdef
  local: {path: '%[2]s/db.sqlite3'}
notifier: {disable_startup_check: true, filesystem: {filename: '%[2]s/notifications'}}
ntp: {disable_startup_check: true}
`

// startAuthelia runs an Authelia that knows ada, and returns its URL and the
// Cookie of her session. No package index has Authelia, so the test runs where
// somebody has installed it, and is skipped by name elsewhere.
func startAuthelia(t *testing.T) (base, cookie, version string) {
	path, err := prog.Find("authelia")
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	version = strings.TrimSpace(string(out))
	dir := t.TempDir()
	out, err = exec.Command(path, "crypto", "hash", "generate", "sha2crypt", "--iterations", "1000", "--no-confirm", "--password", "lovelace").Output()
	if err != nil {
		t.Fatal(err)
	}
	digest := strings.TrimPrefix(strings.TrimSpace(string(out)), "Digest: ")
	users := fmt.Sprintf("users: {ada: {displayname: Ada Lovelace, email: ada@example.com, groups: [dev, admins], password: '%s'}}\n", digest)
	if err := os.WriteFile(filepath.Join(dir, "users.yml"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "configuration.yml")
	addr := prog.Start(t, func(addr string) *exec.Cmd {
		if err := os.WriteFile(config, fmt.Appendf(nil, autheliaConfig, addr, dir), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "--config", config)
		cmd.Env = []string{} // settings come from AUTHELIA_… otherwise
		return cmd
	}, prog.Dial)
	base = "http://" + addr

	r, err := http.NewRequestWithContext(t.Context(), "POST", base+"/api/firstfactor", strings.NewReader(`{"username":"ada","password":"lovelace"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/json"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"auth.example.com"}}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, c := range res.Cookies() {
		cookie = "Cookie: " + c.Name + "=" + c.Value
	}
	if res.StatusCode != 200 || cookie == "" {
		t.Fatalf("signing in: status %d", res.StatusCode)
	}
	return base, cookie, version
}

// forwardauth 34: a real Authelia, asked as by Traefik, nginx and Envoy.
func TestAuthelia(t *testing.T) {
	base, session, version := startAuthelia(t)
	copies := forwardauth.Authelia(base).CopyHeaders
	modes := []struct {
		name   string
		config forwardauth.Config
	}{
		{"ForwardAuth", forwardauth.Authelia(base)},
		{"AuthRequest", forwardauth.Config{URL: base + "/api/authz/auth-request", Mode: forwardauth.Nginx, CopyHeaders: copies, RedirectHTML: true}},
		{"ExtAuthz", forwardauth.Config{URL: base + "/api/authz/ext-authz//", Mode: forwardauth.Envoy, CopyHeaders: copies}},
	}
	const html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	signIn := func(target, method string) string {
		return "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2F" + target + "&rm=" + method
	}
	for _, mode := range modes {
		rec := &recorder{base: &http.Transport{}}
		mode.config.Base = rec
		mode.config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		a := guard(t, mode.config)
		for _, c := range []struct {
			name, method, target string
			lines                []string
			status               int
			location             string
			identity             []string // Remote-User, -Groups, -Name, -Email
		}{
			{name: "signed in", target: "/a?b", lines: []string{session, html}, status: 200, identity: []string{"ada", "dev,admins", "Ada Lovelace", "ada@example.com"}},
			{name: "signed in, spoofs", method: "POST", target: "/a", lines: []string{session, "Remote-User: root", "Remote_groups: root"}, status: 200,
				identity: []string{"ada", "dev,admins", "Ada Lovelace", "ada@example.com"}},
			{name: "forbidden", target: "/admin", lines: []string{session, html, "X-Original-Url: https://app.example.com/a", "X-Forwarded-Uri: /a"}, status: 403},
			{name: "nobody, a browser", target: "/a?b", lines: []string{html}, status: 302, location: signIn("a%3Fb", "GET")},
			{name: "nobody, a browser posts", method: "POST", target: "/a", lines: []string{html}, status: 303, location: signIn("a", "POST")},
			{name: "nobody, a program", target: "/a", lines: []string{"Accept: application/json"}, status: 401, location: signIn("a", "GET")},
			{name: "nobody, spoofs", target: "/a", lines: []string{"Accept: application/json", "Remote-User: ada"}, status: 401, location: signIn("a", "GET")},
			{name: "nobody, a script", target: "/a", lines: []string{html, "X-Requested-With: XMLHttpRequest"}, status: 401, location: signIn("a", "GET")},
			{name: "a bad password", target: "/a", lines: []string{html, "Authorization: Basic YWRhOmJhYmJhZ2U="}, status: 401},
			{name: "an open host", target: "/a", lines: []string{"X-Forwarded-Host: public.example.com", "Remote-User: ada"}, status: 200, identity: []string{"", "", "", ""}},
			{name: "an unknown host", target: "/a", lines: []string{"X-Forwarded-Host: app.example.net"}, status: 400},
			{name: "plain http", target: "/a", lines: []string{session, "X-Forwarded-Proto: http"}, status: 400},
			{name: "method in small letters", method: "get", target: "/a", lines: []string{session}, status: 400},
		} {
			t.Run(mode.name+"/"+c.name, func(t *testing.T) {
				lines := slices.Clone(c.lines)
				for _, line := range []string{"X-Forwarded-Proto: https", "X-Forwarded-Host: app.example.com"} {
					name, _, _ := strings.Cut(line, ":")
					if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") }) {
						lines = append(lines, line)
					}
				}
				if c.method == "" {
					c.method = "GET"
				}
				if mode.name == "ExtAuthz" {
					c.location = strings.Replace(c.location, "%3Fb", "", 1) // Authelia takes the path alone
				}
				if mode.config.RedirectHTML && c.name == "nobody, a script" {
					c.status = 302 // by Accept, whatever the service thinks of scripts
				}
				rec.name = c.name
				res := a.do(t, browser(t), c.method, c.target, lines...)
				if res.StatusCode != c.status || res.Header.Get("Location") != c.location || (a.seen != nil) != (c.status == 200) {
					t.Errorf("status %d, Location %q", res.StatusCode, res.Header.Get("Location"))
				}
				for i, want := range c.identity {
					if got := a.seen.Get(copies[i].From); got != want {
						t.Errorf("%s is %q, want %q", copies[i].From, got, want)
					}
				}
				if a.seen["Remote_groups"] != nil {
					t.Errorf("the handler saw %v", a.seen)
				}
			})
		}
		if mode.name == "ForwardAuth" {
			rec.write(t, "authelia.json", version+", recorded by TestAuthelia in internal/interop/forwardauth")
		}
	}
}
