package forwardauth_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/store"
)

// What a client could send to be taken for somebody.
var spoofed = []string{
	"Remote-User: evil", "remote-user: evil", "REMOTE-USER: evil", "Remote_User: evil", "Remote.User: evil",
	"Remote~User: evil", "Remote!user: evil", "remote^uSER: evil", "Remote_Groups: admins", "Remote-Groups: admins",
}

// identityHeaders are the fields of a request that anyone could take for an
// identity. Who takes other characters for hyphens does so byte by byte, so that
// one of two bytes makes another name.
func identityHeaders(h http.Header) (found []string) {
	for name, values := range h {
		plain := []byte(name)
		for i, c := range plain {
			switch {
			case 'A' <= c && c <= 'Z':
				plain[i] += 'a' - 'A'
			case ('a' > c || c > 'z') && ('0' > c || c > '9'): // Remote1User is another name
				plain[i] = '-'
			}
		}
		if string(plain) == "remote-user" || string(plain) == "remote-groups" {
			found = append(found, name+"="+strings.Join(values, ","))
		}
	}
	slices.Sort(found)
	return found
}

// forwardauth 1, 3, 22: identity fields that the client has sent, in any
// spelling, do not reach the handler: not when allowed, also where the service
// leaves a field out (GHSA-7r4p-vjf4-gxv4), not when skipped, not on a cache hit.
func TestClientIdentity(t *testing.T) {
	allow := func() *service { return says(200, "", "Remote-User: ada") }
	t.Run("allow", func(t *testing.T) {
		h := do(t, forwardauth.Config{CopyHeaders: user(t)}, allow(), request("GET", "/", spoofed...))
		if got := identityHeaders(h.ran.Header); !slices.Equal(got, []string{"Remote-User=ada"}) {
			t.Errorf("the handler got %q", got)
		}
	})
	t.Run("nothing copied", func(t *testing.T) {
		h := do(t, forwardauth.Config{CopyHeaders: user(t)}, says(200, ""), request("GET", "/", spoofed...))
		if got := identityHeaders(h.ran.Header); len(got) != 0 {
			t.Errorf("the handler got %q", got)
		}
	})
	t.Run("skip", func(t *testing.T) {
		s := allow()
		var seen []string
		m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Skip: func(r *http.Request) bool {
			seen = identityHeaders(r.Header)
			return true
		}})
		h := serve(m, request("GET", "/", spoofed...))
		if got := identityHeaders(h.ran.Header); len(got) != 0 || len(seen) != 0 {
			t.Errorf("the handler got %q, Skip %q", got, seen)
		}
		if _, ok := forwardauth.FromContext(h.ran.Context()); ok || s.count() != 0 {
			t.Errorf("identity %v, %d questions", ok, s.count())
		}
		if _, ok := m.From(h.ran.Context()); ok {
			t.Error("From finds an identity")
		}
	})
	inBubble(t, "cache hit", func(t *testing.T) {
		mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
		if err != nil {
			t.Fatal(err)
		}
		s := says(200, "", "Remote-User: ada", "Cache-Control: max-age=5")
		m := mustNew(t, forwardauth.Config{Base: s, CopyHeaders: user(t), Cache: &forwardauth.CacheConfig{Store: mem, Name: "t"}})
		for range 2 {
			h := serve(m, request("GET", "/", append(spoofed, "Cookie: a=b")...))
			if got := identityHeaders(h.ran.Header); !slices.Equal(got, []string{"Remote-User=ada"}) {
				t.Errorf("the handler got %q", got)
			}
		}
		if s.count() != 1 {
			t.Errorf("%d questions", s.count())
		}
	})
}

// The caller's request is not changed by what the handler's loses.
func TestStripLeavesOuter(t *testing.T) {
	r := request("GET", "/", "Remote-User: evil", "X-Other: 1")
	do(t, forwardauth.Config{CopyHeaders: user(t)}, says(200, "", "Remote-User: ada"), r)
	if r.Header.Get("Remote-User") != "evil" || len(r.Header) != 2 {
		t.Errorf("the request has %v", r.Header)
	}
}

// forwardauth 2: a trailer cannot carry an identity in, announced or not
// (CVE-2026-88004), nor what could be taken for X-Forwarded-For.
func TestTrailers(t *testing.T) {
	for _, announce := range []string{"Remote-User, X-Sum", "remote_user, X-Sum", "X-Sum"} {
		t.Run(announce, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var before, after http.Header
				m := mustNew(t, forwardauth.Config{Base: says(200, "", "Remote-User: ada"), CopyHeaders: user(t)})
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					before = r.Trailer.Clone()
					io.Copy(io.Discard, r.Body)
					after = r.Trailer.Clone()
				}))})
				conn, err := s.Listener.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				wire(t, conn, "POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\nTrailer: "+announce+
					"\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\nRemote-User: evil\r\nRemote_user: evil\r\nremote.user: evil\r\nX_forwarded_for: 10.0.0.1\r\n\r\n")
				if _, ok := before["X-Sum"]; !ok || len(before) != 1 {
					t.Errorf("announced: %v", before)
				}
				if got := after["X-Sum"]; len(got) != 1 || got[0] != "42" || len(after) != 1 {
					t.Errorf("trailers: %v", after)
				}
			})
		})
	}
	t.Run("nothing to copy", func(t *testing.T) {
		m := mustNew(t, forwardauth.Config{Base: says(200, "")})
		r := httptest.NewRequest("POST", "/", strings.NewReader("abc"))
		r.Trailer = http.Header{"X-Sum": {"42"}, "X_forwarded_for": {"10.0.0.1"}}
		var after http.Header
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			after = r.Trailer.Clone()
		})).ServeHTTP(httptest.NewRecorder(), r)
		if len(after) != 1 || after.Get("X-Sum") != "42" {
			t.Errorf("trailers: %v", after)
		}
	})
	t.Run("HTTP2", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var after http.Header
			m := mustNew(t, forwardauth.Config{Base: says(200, ""), CopyHeaders: user(t)})
			s := memnet.Serve(t, memnet.HTTP2, &http.Server{Handler: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				after = r.Trailer.Clone()
			}))})
			r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, io.MultiReader(strings.NewReader("abc")))
			if err != nil {
				t.Fatal(err)
			}
			r.Trailer = http.Header{"X-Sum": {"42"}, "Remote-User": {"evil"}}
			res, err := s.Client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if len(after) != 1 || after.Get("X-Sum") != "42" {
				t.Errorf("trailers: %v", after)
			}
		})
	})
}

// forwardauth 4: Connection takes nothing away that this package writes, or that
// the service decides by (CVE-2024-45410, CVE-2024-52003, GHSA-92mv-8f8w-wq52).
func TestConnectionTokens(t *testing.T) {
	for _, tokens := range []string{
		"X-Forwarded-Method, Remote-User, x-forwarded-uri, X-Forwarded-Proto, Authorization",
		"x-forwarded-method, remote-user, x-forwarded-uri, x-forwarded-proto, authorization",
		"X-FORWARDED-METHOD, REMOTE-USER, X-FORWARDED-URI, X-FORWARDED-PROTO, AUTHORIZATION",
	} {
		s := says(200, "", "Remote-User: ada")
		h := do(t, forwardauth.Config{CopyHeaders: user(t)}, s, request("GET", "/a?b", "Connection: "+tokens, "Authorization: Bearer x"))
		asked := s.last(t).Header
		for name, want := range map[string]string{
			"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/a?b", "X-Forwarded-Proto": "http",
			"Authorization": "Bearer x", "Connection": "",
		} {
			if got := asked.Get(name); got != want {
				t.Errorf("%s: the service got %s %q", tokens, name, got)
			}
		}
		if h.ran.Header.Get("Remote-User") != "ada" {
			t.Errorf("%s: the handler got %q", tokens, h.ran.Header)
		}
	}
}

// forwardauth 5: what a peer that is not trusted says about how its request was
// forwarded does not reach the service, in any spelling (CVE-2026-39858,
// CVE-2026-54764, CVE-2026-35051, CVE-2026-88011, CVE-2025-64484), and the
// aliases not the handler.
func TestForwardedUntrusted(t *testing.T) {
	lies := []string{
		"X_Forwarded_Uri: /public", "X.Forwarded.Host: evil.example", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /evil",
		"X-Forwarded-Proto: https", "X-Forwarded-Uri: /public", "X-Forwarded-Method: OPTIONS", "X-Forwarded-Host: evil.example",
		"X-Forwarded-For: 10.0.0.1", "X-Real-Ip: 10.0.0.1", "X-Original-Url: https://evil.example/", "X-Original-Method: OPTIONS",
		"Forwarded: for=10.0.0.1", "X-Forwarded-Tls-Client-Cert: x", "X_forwarded_for: 10.0.0.1", "X~Original~Url: /x",
	}
	for _, mode := range []forwardauth.Mode{forwardauth.Traefik, forwardauth.Nginx, forwardauth.Envoy} {
		t.Run(mode.String(), func(t *testing.T) {
			s := says(200, "")
			r := request("POST", "/a", lies...)
			r.Header["x-real-ip"] = []string{"10.0.0.1"} // no server keeps this, but middleware may
			h := do(t, forwardauth.Config{Mode: mode}, s, r)
			asked := s.last(t)
			for name, values := range asked.Header {
				for _, v := range values {
					if strings.Contains(v, "10.0.0.1") || strings.Contains(v, "evil") || strings.Contains(v, "public") || v == "OPTIONS" || v == "1" || v == "x" {
						t.Errorf("the service got %s %q", name, v)
					}
				}
			}
			if got := asked.Header["X-Forwarded-Proto"]; !slices.Equal(got, []string{"http"}) {
				t.Errorf("X-Forwarded-Proto is %q", got)
			}
			for name := range h.ran.Header {
				if strings.ContainsAny(name, "_.~") || name == "x-real-ip" {
					t.Errorf("the handler got %s", name)
				}
			}
		})
	}
}

// forwardauth 6: of a trusted proxy scheme, host and addresses are taken, if
// there is one valid value of each.
func TestForwardedTrusted(t *testing.T) {
	c := forwardauth.Config{TrustedProxies: prefixes(t, "192.0.2.0/24")}
	s := says(200, "")
	do(t, c, s, request("POST", "/a?b=1", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example:8443", "X-Forwarded-For: 203.0.113.9, 192.0.2.1",
		"X-Forwarded-Uri: /public", "X-Forwarded-Method: OPTIONS", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /p"))
	for name, want := range map[string]string{
		"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example:8443", "X-Forwarded-For": "203.0.113.9, 192.0.2.1, 192.0.2.7",
		"X-Real-Ip": "203.0.113.9", "X-Forwarded-Port": "8443", "X-Forwarded-Uri": "/a?b=1", "X-Forwarded-Method": "POST", "X-Forwarded-Prefix": "",
	} {
		if got := strings.Join(s.last(t).Header[name], "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, scheme := range []string{"http", "https", "ws", "wss"} {
		do(t, c, s, request("GET", "/", "X-Forwarded-Proto: "+scheme))
		if got := s.last(t).Header.Get("X-Forwarded-Proto"); got != scheme {
			t.Errorf("%s became %q", scheme, got)
		}
	}
	for name, lines := range map[string][]string{
		"long chain":      {"X-Forwarded-For: " + strings.Repeat("203.0.113.9,", 85) + "203.0.113.9"},
		"two schemes":     {"X-Forwarded-Proto: https", "X-Forwarded-Proto: http"},
		"list of schemes": {"X-Forwarded-Proto: https, http"},
		"no scheme":       {"X-Forwarded-Proto: "},
		"odd scheme":      {"X-Forwarded-Proto: javascript"},
		"two hosts":       {"X-Forwarded-Host: a.example", "X-Forwarded-Host: b.example"},
		"list of hosts":   {"X-Forwarded-Host: a.example, b.example"},
		"host with user":  {"X-Forwarded-Host: a.example@b.example"},
		"host with path":  {"X-Forwarded-Host: a.example/x"},
		"host port":       {"X-Forwarded-Host: a.example:x"},
		"two chains":      {"X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 203.0.113.8"},
		"no address":      {"X-Forwarded-For: unknown"},
		"empty element":   {"X-Forwarded-For: 203.0.113.9,,203.0.113.8"},
	} {
		s := says(200, "")
		h := do(t, c, s, request("GET", "/", lines...))
		if h.StatusCode != 400 || h.code(t) != "forwardauth_forwarded" || s.count() != 0 || h.ran != nil {
			t.Errorf("%s: status %d, %d questions", name, h.StatusCode, s.count())
		}
	}
}

// The Host of the request itself is under the same rule: the service would take
// an empty one for its own.
func TestHost(t *testing.T) {
	for host, want := range map[string]int{
		"app.example": 200, "app.example:80": 200, "[2001:db8::1]:8080": 200, "127.0.0.1": 200, "a_b": 200,
		"": 400, "a,b": 400, "a@b": 400, "a/b": 400, "a:b": 400, "a:1:2": 400, "[::1": 400, "a b": 400, "a%2eb": 400, ":80": 400, "a:": 400,
		strings.Repeat("a", 300): 400,
	} {
		r := request("GET", "/")
		r.Host = host
		if h := do(t, forwardauth.Config{}, says(200, ""), r); h.StatusCode != want {
			t.Errorf("%q: status %d, want %d", host, h.StatusCode, want)
		}
	}
}
