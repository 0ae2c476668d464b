package forwardauth_test

import (
	"errors"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// What other products had to be mended for, each as a request against this
// package. Those that are named in other tests, beside a checklist line, are
// not repeated here.

// CVE-2021-32813 (GHSA-m697-4v8f-55qg), Traefik: a client that names a field in
// Connection makes the proxy drop it, the identity that was added included.
func TestAdvisoryConnectionDropsIdentity(t *testing.T) {
	for _, line := range []string{"Connection: Remote-User, X-Forwarded-Host", "Connection: close, remote-user", "Connection: keep-alive,REMOTE-USER"} {
		s := says(200, "", "Remote-User: ada")
		h := do(t, forwardauth.Config{CopyHeaders: user(t)}, s, request("GET", "/", line))
		if got := h.ran.Header["Remote-User"]; !slices.Equal(got, []string{"ada"}) {
			t.Errorf("%s: the handler got %q", line, got)
		}
		if got := s.last(t).Header.Get("X-Forwarded-Host"); got != "app.example" {
			t.Errorf("%s: the service got host %q", line, got)
		}
	}
}

// The same behind this package: a proxy in the place of the handler does as
// Connection says, and the identity is none of what the client can name there.
func TestAdvisoryConnectionBehind(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  []string // of Connection at the handler
	}{
		{[]string{"Remote-User"}, nil},
		{[]string{"close, remote-user"}, []string{"close"}},
		{[]string{"REMOTE-USER ,\tX-Other,Remote-Groups, Upgrade"}, []string{"X-Other, Upgrade"}},
		{[]string{"Remote_User", "keep-alive", " , remote-user"}, []string{"keep-alive"}},
		{[]string{"keep-alive, X-Remote-User", ""}, []string{"keep-alive, X-Remote-User", ""}},
	} {
		for _, skip := range []bool{false, true} {
			var sent, handled http.Header
			proxy := &httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) { handled = r.In.Header },
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					sent = r.Header
					return response(200, ""), nil
				}),
			}
			r := request("GET", "/")
			r.Header["Connection"] = slices.Clone(c.lines)
			m := mustNew(t, forwardauth.Config{
				Base: says(200, "", "Remote-User: ada", "Remote-Groups: dev"), CopyHeaders: user(t), Skip: func(*http.Request) bool { return skip },
			})
			m.Handler(proxy).ServeHTTP(newRecorder(), r)
			if got := sent["Remote-User"]; !skip && (!slices.Equal(got, []string{"ada"}) || sent.Get("Remote-Groups") != "dev") {
				t.Errorf("%q: behind the proxy there is %v", c.lines, sent)
			}
			if got := handled["Connection"]; !slices.Equal(got, c.want) || !slices.Equal(r.Header["Connection"], c.lines) {
				t.Errorf("%q: the handler got %q, outside is %q", c.lines, got, r.Header["Connection"])
			}
		}
	}
}

// CVE-2026-33433 (GHSA-qr99-7898-vr7c), Traefik: a field that is configured in
// other than canonical spelling was written beside the client's, and the
// client's was read.
func TestAdvisoryConfiguredSpelling(t *testing.T) {
	for _, name := range []string{"x-auth-user", "X-AUTH-USER", "x-Auth-user"} {
		for _, copied := range []forwardauth.HeaderCopy{{From: name}, {From: "Remote-User", To: name}} {
			s := says(200, "", "Remote-User: ada", "X-Auth-User: ada")
			r := request("GET", "/", "X-Auth-User: admin")
			r.Header["x-auth-user"] = []string{"admin"} // no server keeps this, but middleware may
			h := do(t, forwardauth.Config{CopyHeaders: []forwardauth.HeaderCopy{copied}}, s, r)
			for key, values := range h.ran.Header {
				if slices.Contains(values, "admin") {
					t.Errorf("%+v: the handler got %s %q", copied, key, values)
				}
			}
			if got := h.ran.Header.Get(name); got != "ada" {
				t.Errorf("%+v: the handler got %q", copied, got)
			}
		}
	}
}

// CVE-2026-54763 (GHSA-x677-9fxg-v5c5), Traefik, and GHSA-f59h-q822-g45g, Caddy:
// X_Auth_User beside X-Auth-User, of which CGI, PHP and others make one. And
// GHSA-49wc-4hcv-v58q, Caddy and FrankenPHP: the same with X.Auth.User, which
// the filter for underscores let pass, and with both in one name. All of them
// are gone, whether the service has something to say or not.
func TestAdvisoryAliases(t *testing.T) {
	names := []string{"X_Auth_User", "X-Auth_User", "X_Auth-User", "x_auth_user", "X.Auth.User", "X-Auth.User", "X.Auth_User", "x_auth.user"}
	for _, answer := range [][]string{{"X-Auth-User: ada"}, nil} {
		for _, name := range names {
			r := request("GET", "/")
			r.Header[name] = []string{"admin"}
			h := do(t, forwardauth.Config{CopyHeaders: []forwardauth.HeaderCopy{{From: "X-Auth-User"}}}, says(200, "", answer...), r)
			if len(h.ran.Header) != len(answer) || answer != nil && h.ran.Header.Get("X-Auth-User") != "ada" {
				t.Errorf("%s, service %q: the handler got %v", name, answer, h.ran.Header)
			}
		}
	}
}

// CVE-2026-34457 (GHSA-5hvv-m4w4-gf6v), oauth2-proxy: a client with the
// User-Agent of the health check gets the answer of the health check, 200, where
// a decision would be 202.
func TestAdvisoryHealthCheckUserAgent(t *testing.T) {
	s := &service{answer: func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("User-Agent") == "GoogleHC/1.0" {
			return response(200, "OK"), nil
		}
		return response(401, "Unauthorized\n"), nil
	}}
	h := do(t, forwardauth.OAuth2Proxy("http://auth.example"), s, request("GET", "/", "User-Agent: GoogleHC/1.0"))
	if h.StatusCode != 403 || h.code(t) != "forwardauth_denied" || h.ran != nil {
		t.Errorf("status %d", h.StatusCode)
	}
}

// CVE-2024-47070, authentik: an X-Forwarded-For that is no address made a step
// of signing in fail, and the failure passed for success. What a client says
// does not reach the service; what a trusted proxy says has to be addresses.
func TestAdvisoryForwardedForNoAddress(t *testing.T) {
	for _, value := range []string{"a", "", "unknown", "10.0.0.1:x", "999.1.1.1", "10.0.0.1;10.0.0.2", "_hidden", "::1%"} {
		s := says(200, "")
		do(t, forwardauth.Config{}, s, request("GET", "/", "X-Forwarded-For: "+value, "X-Real-Ip: "+value))
		asked := s.last(t).Header
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip"} {
			if _, err := netip.ParseAddr(asked.Get(name)); err != nil || len(asked[name]) != 1 {
				t.Errorf("%q: the service got %s %q", value, name, asked[name])
			}
		}
		s = says(200, "")
		h := do(t, forwardauth.Config{TrustedProxies: prefixes(t, "192.0.2.0/24")}, s, request("GET", "/", "X-Forwarded-For: "+value))
		if h.StatusCode != 400 || s.count() != 0 {
			t.Errorf("%q from a trusted proxy: status %d, %d questions", value, h.StatusCode, s.count())
		}
	}
}

// CVE-2019-9901, Envoy: rules saw the path as sent, the application the
// normalised one.
func TestAdvisoryPathNotNormalised(t *testing.T) {
	s := &service{answer: func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.Header.Get("X-Forwarded-Uri"), "/public") {
			return response(200, ""), nil
		}
		return response(401, ""), nil
	}}
	for _, target := range []string{"/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/./../admin", "/public\\..\\admin", "/public//../admin"} {
		h := do(t, forwardauth.Config{}, s, request("GET", target))
		if h.StatusCode != 400 || h.code(t) != "forwardauth_target" || h.ran != nil {
			t.Errorf("%s: status %d", target, h.StatusCode)
		}
	}
	if s.count() != 0 {
		t.Errorf("%d questions", s.count())
	}
}

// CVE-2024-23324, Envoy: bytes of a client that are not UTF-8 made asking fail,
// and the failure let the request through. Whatever is sent, an error is no
// yes, in no mode.
func TestAdvisoryErrorIsNoYes(t *testing.T) {
	for _, mode := range []forwardauth.Mode{forwardauth.Traefik, forwardauth.Nginx, forwardauth.Envoy, forwardauth.JSON} {
		for _, line := range []string{"Cookie: a=\xff\xfe", "Authorization: Bearer \xc3\x28", "User-Agent: \xed\xa0\x80"} {
			s := &service{answer: func(*http.Request) (*http.Response, error) {
				return nil, errors.New("string field contains invalid UTF-8")
			}}
			h := do(t, forwardauth.Config{Mode: mode}, s, request("GET", "/", line))
			if h.StatusCode != 503 || h.ran != nil {
				t.Errorf("%v, %q: status %d", mode, line, h.StatusCode)
			}
		}
		h := do(t, forwardauth.Config{Mode: mode}, says(200, `{"result":true}`), request("GET", "/\xff"))
		if h.StatusCode != 400 || h.ran != nil {
			t.Errorf("%v, path: status %d", mode, h.StatusCode)
		}
	}
}

// CVE-2024-21499, caddy-security: the scheme of a redirect was taken from the
// client's X-Forwarded-Proto.
func TestAdvisoryForwardedProtoInRedirect(t *testing.T) {
	c := forwardauth.Config{SignIn: "https://auth.example/login"}
	const want = "https://auth.example/login?rd=http%3A%2F%2Fapp.example%2Fa"
	for _, proto := range []string{"javascript", "https://evil.example/?", "evil", "data:text/html,", "HTTPS"} {
		lines := []string{"Accept: text/html", "X-Forwarded-Proto: " + proto}
		if h := do(t, c, says(401, ""), request("GET", "/a", lines...)); h.StatusCode != 302 || h.Header.Get("Location") != want {
			t.Errorf("%q: status %d, Location %q", proto, h.StatusCode, h.Header.Get("Location"))
		}
		trusting := c
		trusting.TrustedProxies = prefixes(t, "192.0.2.0/24")
		if h := do(t, trusting, says(401, ""), request("GET", "/a", lines...)); h.StatusCode != 400 || h.Header.Get("Location") != "" {
			t.Errorf("%q from a trusted proxy: status %d, Location %q", proto, h.StatusCode, h.Header.Get("Location"))
		}
	}
}

// GHSA-7rh7-c77v-6434, oauth2-proxy: routes to skip were matched with path and
// query together, so that a query could look like an open path. Skip is given
// the request, whose URL has them apart.
func TestAdvisorySkipByQuery(t *testing.T) {
	open := regexp.MustCompile(`/open/.*$`)
	c := forwardauth.Config{Skip: func(r *http.Request) bool { return open.MatchString(r.URL.Path) }}
	for target, want := range map[string]int{"/open/x": 200, "/admin?/open/x": 401, "/admin?a=/open/x": 401, "/admin%3F/open/x": 200} {
		// The last is a path with a question mark in it, which the application
		// sees as well.
		if h := do(t, c, says(401, ""), request("GET", target)); h.StatusCode != want {
			t.Errorf("%s: status %d, want %d", target, h.StatusCode, want)
		}
	}
}

// CVE-2026-40575 (GHSA-7x63-xv5r-3p2x) and CVE-2026-41059 (GHSA-pxq7-h93f-9jrg),
// oauth2-proxy: a path that begins like one to skip, and leads elsewhere. Skip is
// not asked for it, nor for what would take the connection out of sight.
func TestAdvisorySkipByPath(t *testing.T) {
	var decided []forwardauth.Decision
	c := forwardauth.Config{
		Skip:       func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/public/") },
		OnDecision: func(_ *http.Request, d forwardauth.Decision) { decided = append(decided, d) },
	}
	for _, r := range []*http.Request{
		request("GET", "/public/../admin"), request("GET", "/public/%2e%2e/admin"), request("GET", "/public/..%2Fadmin"), request("GET", "/public/..;/admin"),
		request("GET", "/public//../admin"), request("GET", "/public/#/admin"), request("GET", "/public/\x00"), request("GET", "http://other.example/public/x"),
		request("CONNECT", "/public/x"), request("PRI", "/public/x"), request("GET", "/public/x", "Upgrade: h2c"), request("GET", "/public/x", "HTTP2-Settings: AAMAAABkAAQAAP__"),
	} {
		decided = nil
		s := says(200, "")
		h := do(t, c, s, r)
		if h.StatusCode != 400 || h.ran != nil || s.count() != 0 || len(decided) != 1 || decided[0].Err == nil || decided[0].Allowed {
			t.Errorf("%s %s %v: status %d, %d questions, decided %+v", r.Method, r.RequestURI, r.Header, h.StatusCode, s.count(), decided)
		}
	}
	// What is about the service, or about who asks, is no matter where nobody is
	// asked: the service may be behind its own middleware if it is skipped.
	s := says(200, "")
	do(t, c, s, request("GET", "/x"))
	r := request("GET", "/public/x", "X-Forwardauth-Loop: "+s.last(t).Header.Get("X-Forwardauth-Loop"))
	r.Host = ""
	decided = nil
	if h := do(t, c, s, r); h.StatusCode != 200 || h.ran == nil || s.count() != 1 || len(decided) != 0 {
		t.Errorf("status %d, %d questions, decided %+v", h.StatusCode, s.count(), decided)
	}
	// Nor does an odd path hide a loop.
	if h := do(t, c, s, request("GET", "//x", "X-Forwardauth-Loop: "+s.last(t).Header.Get("X-Forwardauth-Loop"))); h.StatusCode != 508 {
		t.Errorf("a loop: status %d", h.StatusCode)
	}
	c.InsecureAmbiguousPaths = true
	if h := do(t, c, s, request("GET", "/public/../admin")); h.ran == nil || s.count() != 1 {
		t.Errorf("as it was asked for: status %d, %d questions", h.StatusCode, s.count())
	}
}

// GHSA-68wm-pfjf-wqp6 (CVE-2021-32637), Authelia behind nginx: a URL that
// Authelia could not parse, with a NUL in the host for one, was answered with
// 200. Nothing of the kind is asked, in any mode.
func TestAdvisoryMalformedURL(t *testing.T) {
	for _, mode := range []forwardauth.Mode{forwardauth.Traefik, forwardauth.Nginx, forwardauth.Envoy, forwardauth.JSON} {
		c := forwardauth.Config{Mode: mode, TrustedProxies: prefixes(t, "192.0.2.0/24")}
		allow := says(200, `{"result":true}`)
		for _, host := range []string{"\x00not-one-factor.example.com", "app.example\x00", "app.example%00", "[::1", "app example", "app.example:port"} {
			r := request("GET", "/", "X-Forwarded-Proto: https")
			r.Host = host
			direct := do(t, c, allow, r)
			proxied := do(t, c, allow, request("GET", "/", "X-Forwarded-Host: "+host))
			if direct.StatusCode != 400 || proxied.StatusCode != 400 {
				t.Errorf("%v, host %q: status %d and %d", mode, host, direct.StatusCode, proxied.StatusCode)
			}
		}
		for _, target := range []string{"/\x00", "/%00", "/a b", "/a\x7f"} {
			if h := do(t, c, allow, request("GET", target)); h.StatusCode != 400 || h.ran != nil {
				t.Errorf("%v, target %q: status %d", mode, target, h.StatusCode)
			}
		}
		if allow.count() != 0 {
			t.Errorf("%v: %d questions", mode, allow.count())
		}
	}
}
