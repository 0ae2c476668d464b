package forwardauth_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// The services below answer by the rules that the source of each has, reduced
// to what a caller can see: which fields they demand, and the header and status
// of their answers. The tables are requests of a client and what must become of
// them.

// authelia is /api/authz/forward-auth: everything from X-Forwarded-*, a method
// of capital letters, https or wss; HTML clients are redirected, others get 401.
func authelia(r *http.Request) (*http.Response, error) {
	h := r.Header
	method, proto := h.Get("X-Forwarded-Method"), h.Get("X-Forwarded-Proto")
	target, err := url.ParseRequestURI(h.Get("X-Forwarded-Uri"))
	if r.URL.Path != "/api/authz/forward-auth" || method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" ||
		proto != "https" && proto != "wss" || h.Get("X-Forwarded-Host") == "" || err != nil {
		return response(400, "400 Bad Request"), nil
	}
	const session = "Set-Cookie: authelia_session=s2; path=/; HttpOnly; secure"
	cookie := h.Get("Cookie")
	switch {
	case strings.Contains(cookie, "authelia_session=ada") && strings.HasPrefix(target.Path, "/admin"):
		return response(403, "403 Forbidden", session), nil
	case strings.Contains(cookie, "authelia_session=ada"):
		return response(200, "200 OK", "Remote-User: ada", "Remote-Groups: dev,admins", "Remote-Name: Ada", "Remote-Email: ada@example.com", session), nil
	case strings.HasPrefix(h.Get("Authorization"), "Basic "):
		return response(401, "401 Unauthorized", `WWW-Authenticate: Basic realm="Authorization Required"`), nil
	}
	location := "Location: https://auth.example.com/?rd=" + url.QueryEscape(proto+"://"+h.Get("X-Forwarded-Host")+h.Get("X-Forwarded-Uri")) + "&rm=" + method
	status := 302
	switch {
	case h.Get("X-Requested-With") == "XMLHttpRequest" || !strings.Contains(h.Get("Accept"), "text/html"):
		status = 401
	case method != "GET" && method != "HEAD" && method != "OPTIONS":
		status = 303
	}
	return response(status, http.StatusText(status), location, session, "Content-Type: text/html; charset=utf-8"), nil
}

// authentik is the Traefik endpoint of an outpost.
func authentik(r *http.Request) (*http.Response, error) {
	h := r.Header
	if r.URL.Path != "/outpost.goauthentik.io/auth/traefik" || h.Get("X-Forwarded-Host") == "" || h.Get("X-Forwarded-Proto") == "" || h.Get("X-Forwarded-Uri") == "" {
		return response(400, ""), nil
	}
	if strings.Contains(h.Get("Cookie"), "authentik_proxy_1=ada") {
		return response(200, "", "X-authentik-username: ada", "X-authentik-groups: dev|admins", "X-authentik-email: ada@example.com",
			"X-authentik-name: Ada", "X-authentik-uid: 1", "X-authentik-jwt: e30", "X-authentik-meta-app: app", "User-Agent: "+h.Get("User-Agent")), nil
	}
	return response(302, "", "Location: "+h.Get("X-Forwarded-Proto")+"://"+h.Get("X-Forwarded-Host")+"/outpost.goauthentik.io/start?rd="+
		url.QueryEscape(h.Get("X-Forwarded-Uri")), "Set-Cookie: authentik_proxy_1=new; Path=/"), nil
}

// oauth2Proxy is /oauth2/auth: 202, 401 or 403, the session in several cookies.
func oauth2Proxy(r *http.Request) (*http.Response, error) {
	switch cookie := strings.Join(r.Header["Cookie"], "; "); {
	case r.URL.Path != "/oauth2/auth":
		return response(404, ""), nil
	case strings.Contains(cookie, "_oauth2_proxy_0=ada") && strings.Contains(cookie, "_oauth2_proxy_1=lovelace"):
		return response(202, "", "X-Auth-Request-User: ada", "X-Auth-Request-Email: ada@example.com", "X-Auth-Request-Groups: dev,admins",
			"X-Auth-Request-Preferred-Username: ada", "X-Auth-Request-Access-Token: t", "Set-Cookie: _oauth2_proxy_0=ada; Path=/; Expires=Sat, 01 Jan 2000 00:00:00 GMT",
			"Set-Cookie: _oauth2_proxy_1=lovelace; Path=/", "Gap-Auth: ada@example.com"), nil
	case strings.Contains(cookie, "_oauth2_proxy_0=bob"):
		return response(403, "Forbidden\n", "Content-Type: text/plain; charset=utf-8"), nil
	}
	return response(401, "Unauthorized\n", "Content-Type: text/plain; charset=utf-8", "Set-Cookie: _oauth2_proxy=; Path=/; Max-Age=0"), nil
}

// forwardauth 34: what clients get and handlers see with Authelia, authentik
// and oauth2-proxy.
func TestServices(t *testing.T) {
	type row struct {
		name     string
		method   string
		target   string
		lines    []string
		status   int
		location string
		cookies  []string
		identity map[string]string
	}
	const html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	for name, c := range map[string]struct {
		config forwardauth.Config
		answer func(*http.Request) (*http.Response, error)
		rows   []row
	}{
		"authelia": {forwardauth.Authelia("https://auth.example.com/"), authelia, []row{
			{"signed in", "GET", "/a?b", []string{"Cookie: authelia_session=ada"}, 200, "", []string{"authelia_session=s2; path=/; HttpOnly; secure"},
				map[string]string{"Remote-User": "ada", "Remote-Groups": "dev,admins", "Remote-Name": "Ada", "Remote-Email": "ada@example.com"}},
			{"signed in, spoofs", "GET", "/a", []string{"Cookie: authelia_session=ada", "Remote-User: root", "Remote_Email: root"}, 200, "", nil,
				map[string]string{"Remote-User": "ada", "Remote_email": ""}},
			{"forbidden", "GET", "/admin", []string{"Cookie: authelia_session=ada", "X-Forwarded-Uri: /a"}, 403, "", []string{"authelia_session=s2; path=/; HttpOnly; secure"}, nil},
			{"browser", "GET", "/a?b", []string{html}, 302, "https://auth.example.com/?rd=https%3A%2F%2Fshop.example.com%2Fa%3Fb&rm=GET", nil, nil},
			{"browser posts", "POST", "/a", []string{html}, 303, "https://auth.example.com/?rd=https%3A%2F%2Fshop.example.com%2Fa&rm=POST", nil, nil},
			{"script", "GET", "/a", []string{html, "X-Requested-With: XMLHttpRequest"}, 401, "https://auth.example.com/?rd=https%3A%2F%2Fshop.example.com%2Fa&rm=GET", nil, nil},
			{"program", "GET", "/a", []string{"Accept: */*"}, 401, "https://auth.example.com/?rd=https%3A%2F%2Fshop.example.com%2Fa&rm=GET", nil, nil},
			{"basic", "GET", "/a", []string{"Authorization: Basic eDp5"}, 401, "", nil, nil},
			{"method in small letters", "get", "/a", nil, 400, "", nil, nil},
			{"odd target", "GET", "/a/%2e%2e/admin", []string{"Cookie: authelia_session=ada"}, 400, "", nil, nil},
		}},
		"authentik": {forwardauth.Authentik("https://auth.example.com"), authentik, []row{
			{"signed in", "GET", "/a", []string{"Cookie: authentik_proxy_1=ada", "User-Agent: curl/8", "X_authentik_username: root"}, 200, "", nil,
				map[string]string{"X-Authentik-Username": "ada", "X-Authentik-Groups": "dev|admins", "X-Authentik-Uid": "1", "X-Authentik-Jwt": "e30", "X-Authentik-Entitlements": "", "X_authentik_username": "", "User-Agent": "curl/8"}},
			{"browser", "GET", "/a?b", []string{html}, 302, "https://shop.example.com/outpost.goauthentik.io/start?rd=%2Fa%3Fb", []string{"authentik_proxy_1=new; Path=/"}, nil},
		}},
		"oauth2-proxy": {forwardauth.OAuth2Proxy("https://auth.example.com"), oauth2Proxy, []row{
			{"signed in", "GET", "/a", []string{"Cookie: _oauth2_proxy_0=ada; _oauth2_proxy_1=lovelace"}, 200, "",
				[]string{"_oauth2_proxy_0=ada; Path=/; Expires=Sat, 01 Jan 2000 00:00:00 GMT", "_oauth2_proxy_1=lovelace; Path=/"},
				map[string]string{"X-Auth-Request-User": "ada", "X-Auth-Request-Email": "ada@example.com", "X-Auth-Request-Groups": "dev,admins", "X-Auth-Request-Access-Token": "t", "Gap-Auth": ""}},
			{"half a session", "GET", "/a", []string{"Cookie: _oauth2_proxy_0=ada"}, 401, "", []string{"_oauth2_proxy=; Path=/; Max-Age=0"}, nil},
			{"browser", "GET", "/a?b", []string{html}, 302, "https://auth.example.com/oauth2/start?rd=https%3A%2F%2Fshop.example.com%2Fa%3Fb", []string{"_oauth2_proxy=; Path=/; Max-Age=0"}, nil},
			{"program", "GET", "/a", []string{"Accept: application/json"}, 401, "", nil, nil},
			{"not allowed", "GET", "/a", []string{html, "Cookie: _oauth2_proxy_0=bob"}, 403, "", nil, nil},
		}},
	} {
		for _, row := range c.rows {
			t.Run(name+"/"+row.name, func(t *testing.T) {
				c := c
				c.config.TrustedProxies = prefixes(t, "192.0.2.0/24")
				r := request(row.method, row.target, append(row.lines, "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example.com")...)
				h := do(t, c.config, &service{answer: c.answer}, r)
				if h.StatusCode != row.status || h.Header.Get("Location") != row.location || (h.ran != nil) != (row.status == 200) {
					t.Errorf("status %d, Location %q", h.StatusCode, h.Header.Get("Location"))
				}
				if row.cookies != nil && !slices.Equal(h.Header["Set-Cookie"], row.cookies) {
					t.Errorf("cookies %q", h.Header["Set-Cookie"])
				}
				for name, want := range row.identity {
					if got := strings.Join(h.ran.Header[name], "|"); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			})
		}
	}
}
