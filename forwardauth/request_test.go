package forwardauth_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/forwardauth"
)

// Targets that stand for themselves, and those that do not.
var (
	plainTargets = []string{
		"/", "/a", "/a/", "/a/b.c", "/a;b=1", "/a,b", "/a%20b", "/%C3%A9", "/a:b@c", "/~user", "/a..b", "/...", "/.well-known/x", "/a$&'()*+=!",
		"/?", "/?a//b", "/?a/../b", "/?%2e%2e", "/?a=%2F", "/?a?b", "/?\\", "/a?b=c%23d", "/%40x", "/100%25", "/100%25zz",
		"/users/ada%40example.com", "/a%2Cb%3Ac%3Bd%3De%26f%2Bg%24h", "/wiki/a_(b)", "/%5Bslug%5D/[slug]", "/a%7Cb", "/;x", "/...;x/a", "/a;/b",
	}
	oddTargets = []string{
		"//", "/a//b", "/a/../b", "/a/..", "/..", "/./a", "/a/.", "/%2e%2e/", "/%2E./a", "/a/%2e", "/a%2fb", "/a%2Fb", "/a%5cb",
		"/a\\b", "/%00", "/a%0d%0a", "/%61dmin", "/a%2ejson", "/%7Euser", "/%252e%252e/a", "/a%252fb", "/a%252F", "/\xc3\xa9", "//evil.example/a",
		"/caf%c3%a9", "/a%3db", "/a%c3%A9", "/a|b", "/a\"b", "/<b>", "/a^b", "/a`b", "/{b}",
		"/public/..;/admin", "/..;a=b/admin", "/a/.;/b", "/a/..;x", "/a/..%3B/b", "/a/.%3Bx/b", "/;x/admin", "/%3Bx/admin", "/a/;/b",
	}
)

// forwardauth 7: the service gets the target byte for byte as the client sent
// it.
func TestTargetAsIs(t *testing.T) {
	for _, target := range slices.Concat(plainTargets, oddTargets) {
		s := says(200, "")
		h := do(t, forwardauth.Config{InsecureAmbiguousPaths: true}, s, request("GET", target))
		if h.ran == nil {
			t.Errorf("%q: status %d", target, h.StatusCode)
			continue
		}
		if got := s.last(t).Header["X-Forwarded-Uri"]; !slices.Equal(got, []string{target}) {
			t.Errorf("%q: the service got %q", target, got)
		}
	}
}

// forwardauth 8: a path with two readings is refused, and nobody is asked
// (CVE-2026-40575, CVE-2026-41059, CVE-2026-42274).
func TestAmbiguousPaths(t *testing.T) {
	for _, target := range plainTargets {
		s := says(200, "")
		if h := do(t, forwardauth.Config{}, s, request("GET", target)); h.StatusCode != 200 || s.count() != 1 {
			t.Errorf("%q: status %d, %d questions", target, h.StatusCode, s.count())
		}
	}
	for _, target := range oddTargets {
		s := says(200, "")
		h := do(t, forwardauth.Config{}, s, request("GET", target))
		if h.StatusCode != 400 || h.code(t) != "forwardauth_target" || s.count() != 0 || h.ran != nil {
			t.Errorf("%q: status %d, %d questions", target, h.StatusCode, s.count())
		}
	}
	// No setting lets these pass.
	for _, target := range []string{"/a#b", "#", "http://other.example/a", "http://app.example/a", "*", "app.example:443", "/a\x01", "/a\x7f", "/a b", "/a?b\x00", "a"} {
		s := says(200, "")
		h := do(t, forwardauth.Config{InsecureAmbiguousPaths: true}, s, request("GET", target))
		if h.StatusCode != 400 || s.count() != 0 {
			t.Errorf("%q: status %d, %d questions", target, h.StatusCode, s.count())
		}
	}
}

// What is judged is what is served: a URL that was rewritten outside counts,
// and StripPrefix does not hide the rest of the path.
func TestRewrittenURL(t *testing.T) {
	strip := func(h http.Handler) http.Handler { return http.StripPrefix("/app", h) }
	for name, c := range map[string]struct {
		wrap func(http.Handler) http.Handler
		want string
	}{
		"as it came":   {func(h http.Handler) http.Handler { return h }, "/app/public?q=1"},
		"StripPrefix":  {strip, "/app/public?q=1"},
		"other path":   {rewrite(func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/admin", "" }), "/admin?q=1"},
		"other query":  {rewrite(func(r *http.Request) { r.URL.RawQuery = "q=2" }), "/app/public?q=2"},
		"opaque":       {rewrite(func(r *http.Request) { r.URL.Opaque, r.URL.Path = "x:y", "" }), "refused"},
		"odd query":    {rewrite(func(r *http.Request) { r.URL.RawQuery = "q#2" }), "refused"},
		"odd rewrite":  {rewrite(func(r *http.Request) { r.URL.Path = "/x/../admin" }), "refused"},
		"no target":    {rewrite(func(r *http.Request) { r.RequestURI = "" }), "/app/public?q=1"},
		"encoded same": {rewrite(func(r *http.Request) { r.RequestURI = "/app/p%20x"; r.URL.Path = "/p x"; r.URL.RawQuery = "" }), "/app/p%20x"},

		// Both, and what was taken off the path is judged with another query too.
		"semicolons": {rewrite(func(r *http.Request) { r.RequestURI, r.URL.RawQuery = "/app/public?a;b", "a;b" }, http.AllowQuerySemicolons, strip), "/app/public?a&b"},
		"query":      {rewrite(func(r *http.Request) { r.URL.RawQuery = "q=2" }, strip), "/app/public?q=2"},
		"no query":   {rewrite(func(r *http.Request) { r.URL.RawQuery = "" }, strip), "/app/public"},
		"empty":      {rewrite(func(r *http.Request) { r.URL.RawQuery, r.URL.ForceQuery = "", true }, strip), "/app/public?"},
		"no slash":   {rewrite(func(r *http.Request) { r.RequestURI = "/app/public/?q=1" }, strip), "/app/public?q=1"},
		"odd start":  {rewrite(func(r *http.Request) { r.RequestURI, r.URL.RawQuery = "/x/../app/public?q=1", "q=2" }, strip), "refused"},
		"all of it":  {rewrite(func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "/admin", "q=2" }), "/admin?q=2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := says(200, "")
			m := mustNew(t, forwardauth.Config{Base: s})
			w := newRecorder()
			c.wrap(m.Handler(http.NotFoundHandler())).ServeHTTP(w, request("GET", "/app/public?q=1"))
			got := "refused"
			if s.count() > 0 {
				got = s.last(t).Header.Get("X-Forwarded-Uri")
			}
			if got != c.want {
				t.Errorf("the service got %q", got)
			}
		})
	}
}

// rewrite is a middleware that changes the request, with others inside of it,
// the outermost first.
func rewrite(f func(*http.Request), inside ...func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		for _, wrap := range slices.Backward(inside) {
			next = wrap(next)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f(r)
			next.ServeHTTP(w, r)
		})
	}
}

// forwardauth 9: methods and upgrades that would take the connection out of
// sight (CVE-2026-88008, GHSA-3ccp-42pg-hgv6).
func TestMethodsAndUpgrades(t *testing.T) {
	for _, c := range []struct {
		method string
		lines  []string
		want   int
	}{
		{"GET", nil, 200}, {"", nil, 200}, {"PROPFIND", nil, 200}, {"get", nil, 200},
		{"M-SEARCH", nil, 400}, {"GET1", nil, 400}, {"G T", nil, 400}, {"GÉT", nil, 400}, {"GET\r\nX: y", nil, 400},
		{"CONNECT", nil, 400}, {"connect", nil, 400}, {"PRI", nil, 400},
		{"GET", []string{"Upgrade: h2c", "Connection: Upgrade"}, 400},
		{"GET", []string{"Upgrade: H2C"}, 400},
		{"GET", []string{"Upgrade: websocket, h2c"}, 400},
		{"GET", []string{"Upgrade: websocket", "Upgrade: h2c/1"}, 400},
		{"GET", []string{"HTTP2-Settings: AAMAAABkAAQAAP__"}, 400},
		{"GET", []string{"Upgrade: websocket"}, 200},
	} {
		s := says(200, "")
		h := do(t, forwardauth.Config{}, s, request(c.method, "/", c.lines...))
		if h.StatusCode != c.want || (h.ran != nil) != (c.want == 200) || (s.count() == 1) != (c.want == 200) {
			t.Errorf("%q %q: status %d", c.method, c.lines, h.StatusCode)
		}
	}
}

// forwardauth 20: every method is judged, preflights and upgrades included; an
// extended CONNECT as the GET that it stands for (RFC 8441).
func TestEveryMethodIsJudged(t *testing.T) {
	for _, r := range []*http.Request{
		request("HEAD", "/"), request("OPTIONS", "/"), request("DELETE", "/"),
		request("OPTIONS", "/", "Origin: https://a.example", "Access-Control-Request-Method: PUT"),
		request("GET", "/", "Upgrade: websocket", "Connection: Upgrade", "Sec-Websocket-Key: x"),
	} {
		s := says(403, "")
		if h := do(t, forwardauth.Config{}, s, r); h.StatusCode != 403 || h.ran != nil {
			t.Errorf("%s: status %d", r.Method, h.StatusCode)
		}
		asked := s.last(t)
		if asked.Header.Get("X-Forwarded-Method") != r.Method || asked.Method != "GET" || len(asked.Header["Upgrade"])+len(asked.Header["Connection"]) != 0 {
			t.Errorf("%s: the service got %s, %v", r.Method, asked.Method, asked.Header)
		}
	}
	for name, connect := range map[string]func(*http.Request){
		"HTTP2": func(r *http.Request) { r.Header[":protocol"] = []string{"websocket"} },
		"HTTP3": func(r *http.Request) { r.Proto = "websocket" },
	} {
		r := request("CONNECT", "/chat")
		r.ProtoMajor, r.ProtoMinor = 2, 0
		connect(r)
		s := says(200, "")
		if h := do(t, forwardauth.Config{}, s, r); h.StatusCode != 200 || s.last(t).Header.Get("X-Forwarded-Method") != "GET" || h.ran.Method != "CONNECT" {
			t.Errorf("%s: status %d", name, h.StatusCode)
		}
		if name == "HTTP2" {
			r.Header[":protocol"] = []string{"connect-udp"} // RFC 9298
		} else {
			r.Proto = "connect-udp"
		}
		if h := do(t, forwardauth.Config{}, s, r); h.StatusCode != 400 {
			t.Errorf("%s: connect-udp has status %d", name, h.StatusCode)
		}
		connect(r)
		r.ProtoMajor, r.ProtoMinor = 1, 1
		if h := do(t, forwardauth.Config{}, s, r); h.StatusCode != 400 {
			t.Errorf("%s: over HTTP/1.1 status %d", name, h.StatusCode)
		}
	}
}

// forwardauth 17, 18, 21: all values of a copied field in their order
// (CVE-2021-32777); none with control bytes; what is sent and what is not.
func TestCopiedHeaders(t *testing.T) {
	copies := []forwardauth.HeaderCopy{{From: "remote-groups", To: "X-Groups"}, {From: "Authorization"}}
	s := says(200, "", "Remote-Groups: a", "Remote-Groups: b", "Remote-Groups: c", "Authorization: Basic up", "Other: 1")
	h := do(t, forwardauth.Config{CopyHeaders: copies}, s, request("GET", "/", "X-Groups: evil", "Authorization: Bearer mine"))
	if got := h.ran.Header["X-Groups"]; !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("X-Groups is %q", got)
	}
	if s.last(t).Header.Get("Authorization") != "Bearer mine" || h.ran.Header.Get("Authorization") != "Basic up" {
		t.Errorf("the service got %q, the handler %q", s.last(t).Header.Get("Authorization"), h.ran.Header.Get("Authorization"))
	}
	id, ok := forwardauth.FromContext(h.ran.Context())
	if !ok || !slices.Equal(id.Header["X-Groups"], []string{"a", "b", "c"}) || len(id.Header) != 2 || id.Cached {
		t.Errorf("the identity is %+v, %v", id, ok)
	}
	// It is the handler's own.
	id.Header["X-Groups"][0] = "changed"
	if h.ran.Header["X-Groups"][0] != "a" {
		t.Error("the identity shares its values with the request")
	}
	s = says(200, "", "Remote-Groups: a\tb")
	if h := do(t, forwardauth.Config{CopyHeaders: copies}, s, request("GET", "/")); h.ran == nil || h.ran.Header.Get("X-Groups") != "a\tb" {
		t.Errorf("a tab: status %d", h.StatusCode)
	}
	for _, v := range []string{"a\r\nB: c", "a\nb", "a\x00b", "a\x7f", "\x1b[31m"} {
		s := &service{answer: func(*http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Header["Remote-Groups"] = []string{"fine", v}
			return res, nil
		}}
		if h := do(t, forwardauth.Config{CopyHeaders: copies}, s, request("GET", "/")); h.StatusCode != 503 || h.code(t) != "forwardauth_bad_response" || h.ran != nil {
			t.Errorf("%q: status %d", v, h.StatusCode)
		}
	}
}

func TestForwardedHeaders(t *testing.T) {
	lines := []string{
		"Cookie: a=1; b=2", "Cookie: c=3", "Authorization: Bearer x", "Accept: text/html", "Accept-Language: de", "X-Requested-With: XMLHttpRequest",
		"X-Tenant: t1", "X-Tenant: t2", "X-Secret: s", "Te: trailers", "Expect: 100-continue", "Content-Type: text/plain", "Range: bytes=0-1", "Accept-Encoding: gzip",
	}
	s := says(200, "")
	do(t, forwardauth.Config{RequestHeaders: []string{"x-tenant"}, RequestCookies: []string{"c", "b"}}, s, request("PUT", "/x", lines...))
	asked := s.last(t).Header.Clone()
	want := http.Header{
		"Cookie": {"b=2; c=3"}, "Authorization": {"Bearer x"}, "Accept": {"text/html"}, "Accept-Language": {"de"},
		"X-Requested-With": {"XMLHttpRequest"}, "X-Tenant": {"t1", "t2"}, "User-Agent": {""}, "Accept-Encoding": {"identity"},
		"X-Forwarded-Method": {"PUT"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"app.example"}, "X-Forwarded-Uri": {"/x"},
		"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Port": {"80"}, "X-Real-Ip": {"192.0.2.7"},
	}
	mark := asked["X-Forwardauth-Loop"]
	delete(asked, "X-Forwardauth-Loop")
	if len(mark) != 1 || len(mark[0]) != 16 {
		t.Errorf("the mark is %q", mark)
	}
	for name, values := range want {
		if !slices.Equal(asked[name], values) {
			t.Errorf("%s is %q, want %q", name, asked[name], values)
		}
		delete(asked, name)
	}
	if len(asked) != 0 {
		t.Errorf("and the service got %v", asked)
	}
	do(t, forwardauth.Config{RequestCookies: []string{}}, s, request("GET", "/", lines...))
	if got := s.last(t).Header["Cookie"]; len(got) != 0 {
		t.Errorf("without cookies the service got %q", got)
	}
	do(t, forwardauth.Config{}, s, request("GET", "/", append(lines, "User-Agent: curl/8")...))
	if got := s.last(t).Header; got.Get("User-Agent") != "curl/8" || !slices.Equal(got["Cookie"], []string{"a=1; b=2", "c=3"}) {
		t.Errorf("the service got %v", got)
	}
}

// What each mode asks.
func TestModes(t *testing.T) {
	ask := func(mode forwardauth.Mode, url string) *http.Request {
		s := says(200, "")
		r := request("DELETE", "/a/b?c=d", "Cookie: x=y")
		do(t, forwardauth.Config{Mode: mode, URL: url}, s, r)
		return s.last(t)
	}
	r := ask(forwardauth.Traefik, "https://auth.example/verify?x=1")
	if r.Method != "GET" || r.URL.String() != "https://auth.example/verify?x=1" || r.Host != "auth.example" || r.Header.Get("X-Original-Url") != "" {
		t.Errorf("traefik: %s %s, host %s, %v", r.Method, r.URL, r.Host, r.Header)
	}
	r = ask(forwardauth.Nginx, "https://auth.example/auth")
	if r.Method != "GET" || r.URL.Path != "/auth" || r.Host != "auth.example" ||
		r.Header.Get("X-Original-Url") != "http://app.example/a/b?c=d" || r.Header.Get("X-Original-Method") != "DELETE" || r.Header.Get("X-Forwarded-Uri") != "" {
		t.Errorf("nginx: %s %s, host %s, %v", r.Method, r.URL, r.Host, r.Header)
	}
	r = ask(forwardauth.Envoy, "http://auth.example/ext/")
	if r.Method != "DELETE" || r.URL.String() != "http://auth.example/ext/a/b?c=d" || r.Host != "app.example" || r.Header.Get("X-Forwarded-Uri") != "" {
		t.Errorf("envoy: %s %s, host %s, %v", r.Method, r.URL, r.Host, r.Header)
	}
}

// forwardauth 33: in Envoy mode 200 allows and nothing else; prefix and path are
// joined without a double slash, unless the URL ends in one, and as they were
// sent.
func TestEnvoy(t *testing.T) {
	for status, want := range map[int]int{200: 200, 201: 403, 202: 403, 204: 403, 401: 401, 500: 503} {
		h := do(t, forwardauth.Config{Mode: forwardauth.Envoy}, says(status, ""), request("GET", "/"))
		if h.StatusCode != want || (h.ran != nil) != (status == 200) {
			t.Errorf("%d: status %d", status, h.StatusCode)
		}
	}
	for base, want := range map[string]string{
		"http://auth.example": "/x%20y/z?q", "http://auth.example/": "/x%20y/z?q", "http://auth.example/p/": "/p/x%20y/z?q", "http://auth.example/p/q": "/p/q/x%20y/z?q",
		"http://auth.example/p//": "/p//x%20y/z?q",
	} {
		s := says(200, "")
		do(t, forwardauth.Config{Mode: forwardauth.Envoy, URL: base}, s, request("GET", "/x%20y/z?q"))
		if got := s.last(t).URL.RequestURI(); got != want {
			t.Errorf("%s: asked for %q, want %q", base, got, want)
		}
	}
	// What would be a host to whoever reads it.
	s := says(200, "")
	if h := do(t, forwardauth.Config{Mode: forwardauth.Envoy, URL: "http://auth.example", InsecureAmbiguousPaths: true}, s, request("GET", "//a")); h.StatusCode != 400 || s.count() != 0 {
		t.Errorf("//a: status %d, %d questions", h.StatusCode, s.count())
	}
	for target, want := range map[string]string{"/a%2Fb": "/p/a%2Fb", "/a;b,c": "/p/a;b,c", "/a/../b": "/p/a/../b", "//a": "/p//a", "/a?": "/p/a?", "/%zz": "/p/%25zz", "/\xe9": ""} {
		s := says(200, "")
		h := do(t, forwardauth.Config{Mode: forwardauth.Envoy, URL: "http://auth.example/p", InsecureAmbiguousPaths: true}, s, request("GET", target))
		got := ""
		if s.count() > 0 {
			got = s.last(t).URL.RequestURI()
		}
		if got != want || (want == "") != (h.StatusCode == 400) {
			t.Errorf("%q: asked for %q, want %q, status %d", target, got, want, h.StatusCode)
		}
	}
}

// forwardauth 32: a service behind its own middleware is found out, also through
// a second one.
func TestLoop(t *testing.T) {
	var m *forwardauth.Middleware
	s := &service{}
	s.answer = func(r *http.Request) (*http.Response, error) {
		in := request(r.Method, r.URL.RequestURI())
		in.Header = r.Header.Clone()
		w := newRecorder()
		m.Handler(http.NotFoundHandler()).ServeHTTP(w, in)
		return w.Result(), nil
	}
	var loops int
	m = mustNew(t, forwardauth.Config{Base: s, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		if strings.Contains(err.Error(), "behind") {
			loops++
		}
		forwardauth.WriteError(w, r, err)
	}})
	if h := serve(m, request("GET", "/")); h.StatusCode != 503 || loops != 1 || s.count() != 1 {
		t.Errorf("status %d, %d loops, %d questions", h.StatusCode, loops, s.count())
	}
	mark := s.last(t).Header.Get("X-Forwardauth-Loop")
	if h := serve(m, request("GET", "/", "X-Forwardauth-Loop: 0123, "+mark)); h.StatusCode != 508 || h.code(t) != "forwardauth_loop" {
		t.Errorf("status %d", h.StatusCode)
	}
	if h := do(t, forwardauth.Config{}, says(200, ""), request("GET", "/", "X-Forwardauth-Loop: "+strings.Repeat("a,", 20))); h.StatusCode != 508 {
		t.Errorf("many marks: status %d", h.StatusCode)
	}
	other := says(200, "")
	do(t, forwardauth.Config{URL: "http://other.example/"}, other, request("GET", "/", "X-Forwardauth-Loop: "+mark))
	if got := other.last(t).Header.Get("X-Forwardauth-Loop"); !strings.HasPrefix(got, mark+", ") {
		t.Errorf("handed on is %q", got)
	}
}

func TestDiscardedBody(t *testing.T) {
	r := request("POST", "/")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("unread")), 6
	h := do(t, forwardauth.Config{}, says(403, "no"), r)
	if h.Header.Get("Connection") != "close" || h.body != "no" {
		t.Errorf("Connection is %q, body %q", h.Header.Get("Connection"), h.body)
	}
	r.URL.Path = "//"
	r.RequestURI = "//"
	if h := do(t, forwardauth.Config{}, says(200, ""), r); h.Header.Get("Connection") != "close" {
		t.Errorf("Connection is %q", h.Header.Get("Connection"))
	}
}
