package forwardauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/plainware/forwardauth"
	"example.com/plainware/store"
)

// forwardauth 30: what cannot work, or not safely, is an error of New, and all
// of it is reported at once.
func TestConfigErrors(t *testing.T) {
	mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
	if err != nil {
		t.Fatal(err)
	}
	copies := func(list ...forwardauth.HeaderCopy) forwardauth.Config {
		return forwardauth.Config{URL: serviceURL, CopyHeaders: list}
	}
	cached := func(c forwardauth.CacheConfig) forwardauth.Config {
		return forwardauth.Config{URL: serviceURL, Cache: &c}
	}
	for name, c := range map[string]struct {
		config forwardauth.Config
		want   []string
	}{
		"zero":            {forwardauth.Config{}, []string{"URL: is required"}},
		"no scheme":       {forwardauth.Config{URL: "auth.example/verify"}, []string{"URL: is neither"}},
		"other scheme":    {forwardauth.Config{URL: "ftp://auth.example"}, []string{"URL: is neither"}},
		"unix":            {forwardauth.Config{URL: "unix:///run/auth"}, []string{"URL: is neither"}},
		"user info":       {forwardauth.Config{URL: "http://ada:hunter2@auth.example/"}, []string{"URL: has user info"}},
		"fragment":        {forwardauth.Config{URL: "http://auth.example/#a"}, []string{"URL: has a fragment"}},
		"empty fragment":  {forwardauth.Config{URL: "http://auth.example/#"}, []string{"URL: has a fragment"}},
		"no host":         {forwardauth.Config{URL: "http:///verify"}, []string{"URL: has no host"}},
		"port alone":      {forwardauth.Config{URL: "http://:80/"}, []string{"URL: has no host"}},
		"port":            {forwardauth.Config{URL: "http://auth.example:99999/"}, []string{"URL: has a port"}},
		"port 0":          {forwardauth.Config{URL: "http://auth.example:0/"}, []string{"URL: has a port"}},
		"envoy, query":    {forwardauth.Config{URL: "http://auth.example/p?token=hunter2", Mode: forwardauth.Envoy}, []string{"URL: has a query"}},
		"envoy, empty":    {forwardauth.Config{URL: "http://auth.example/p?", Mode: forwardauth.Envoy}, []string{"URL: has a query"}},
		"envoy, slashes":  {forwardauth.Config{URL: "http://auth.example//", Mode: forwardauth.Envoy}, []string{"URL: has a path that begins"}},
		"envoy, host":     {forwardauth.Config{URL: "http://auth.example//p", Mode: forwardauth.Envoy}, []string{"URL: has a path that begins"}},
		"not a URL":       {forwardauth.Config{URL: "http://a\x00hunter2"}, []string{"URL: is not a URL"}},
		"mode":            {forwardauth.Config{URL: serviceURL, Mode: 9}, []string{"Mode: is not a mode (got 9)"}},
		"prefix":          {forwardauth.Config{URL: serviceURL, TrustedProxies: make([]netip.Prefix, 1)}, []string{"TrustedProxies[0]"}},
		"request headers": {forwardauth.Config{URL: serviceURL, RequestHeaders: []string{"", "a b", "Host", "te", "X-Forwarded-Uri", "X_Forwarded_For", "X-Forwarded-Prefix", "Forwarded", "Content-Length", "X-Fine"}}, []string{"[0]: is empty", "[1]: is not", "[2]: belongs", "[3]: belongs", "[4]: is written", "[5]: is written", "[6]: says how", "[7]: says how", "[8]: belongs"}},
		"request cookies": {forwardauth.Config{URL: serviceURL, RequestCookies: []string{"", "a=b", "c"}}, []string{"RequestCookies[0]", "RequestCookies[1]"}},
		"copy, empty":     {copies(forwardauth.HeaderCopy{}), []string{"CopyHeaders[0].From: is empty"}},
		"copy, managed":   {copies(forwardauth.HeaderCopy{From: "Remote-User", To: "X-Forwarded-Uri"}, forwardauth.HeaderCopy{From: "a", To: "X-Real-IP"}, forwardauth.HeaderCopy{From: "b", To: "Connection"}), []string{"CopyHeaders[0].To: is written", "CopyHeaders[1].To: is written", "CopyHeaders[2].To: belongs"}},
		"copy, cookies":   {copies(forwardauth.HeaderCopy{From: "Set-Cookie"}, forwardauth.HeaderCopy{From: "a", To: "Cookie"}), []string{"CopyHeaders[0].From: cannot", "CopyHeaders[1].To: cannot"}},
		"copy, alike":     {copies(forwardauth.HeaderCopy{From: "Remote-User"}, forwardauth.HeaderCopy{From: "x", To: "REMOTE_USER"}), []string{"CopyHeaders[1].To: is an earlier one, or like one"}},
		"cookies":         {forwardauth.Config{URL: serviceURL, SuccessCookies: forwardauth.NamedCookies("a", "b;")}, []string{"SuccessCookies[1]"}},
		"deny":            {forwardauth.Config{URL: serviceURL, DenyHeaders: []string{"Connection", "X Y"}}, []string{"DenyHeaders[0]", "DenyHeaders[1]"}},
		"max response":    {forwardauth.Config{URL: serviceURL, MaxResponse: -1}, []string{"MaxResponse: is negative (got -1)"}},
		"allow":           {forwardauth.Config{URL: serviceURL, Mode: forwardauth.JSON, Allow: func(int) bool { return true }}, []string{"Allow: has no meaning"}},
		"input":           {forwardauth.Config{URL: serviceURL, Input: func(*http.Request) (any, error) { return nil, nil }}, []string{"Input: has no meaning"}},
		"sign in":         {forwardauth.Config{URL: serviceURL, SignIn: "//evil.example"}, []string{"SignIn: "}},
		"sign in, slash":  {forwardauth.Config{URL: serviceURL, SignIn: `/\evil.example`}, []string{"SignIn: "}},
		"sign in, script": {forwardauth.Config{URL: serviceURL, SignIn: "javascript:alert(1)"}, []string{"SignIn: "}},
		"cache, zero":     {cached(forwardauth.CacheConfig{}), []string{"Cache.Store: is required", "Cache.Name: must"}},
		"cache, rest":     {cached(forwardauth.CacheConfig{Store: mem, Name: "a/b", MaxTTL: 2 * time.Hour, Keys: [][]byte{make([]byte, 31)}}), []string{"Cache.Name: must", "Cache.MaxTTL: must", "Cache.Keys[0]: is shorter than 32 bytes (got 31 bytes)"}},
		"all at once":     {forwardauth.Config{URL: "x", Mode: -1, MaxResponse: -2}, []string{"URL: ", "Mode: ", "MaxResponse: "}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := forwardauth.New(c.config)
			if m != nil || err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q", lines)
			}
			for i := range min(len(lines), len(c.want)) {
				if !strings.HasPrefix(lines[i], "forwardauth: ") || !strings.Contains(lines[i], c.want[i]) {
					t.Errorf("got %q, want %q", lines[i], c.want[i])
				}
			}
		})
	}
}

// What is changed after New has no effect.
func TestConfigIsCopied(t *testing.T) {
	s := says(200, "", "Remote-User: ada")
	c := forwardauth.Config{
		URL: serviceURL, Base: s, RequestHeaders: []string{"X-A"}, RequestCookies: []string{"a"},
		CopyHeaders: user(t), TrustedProxies: prefixes(t, "192.0.2.0/24"),
	}
	m := mustNew(t, c)
	c.RequestHeaders[0], c.RequestCookies[0], c.CopyHeaders[0].From, c.TrustedProxies[0] = "X-B", "b", "Other", prefixes(t, "10.0.0.0/8")[0]
	h := serve(m, request("GET", "/", "X-A: 1", "X-B: 2", "Cookie: a=1; b=2", "X-Forwarded-Proto: https"))
	asked := s.last(t).Header
	if asked.Get("X-A") != "1" || asked.Get("X-B") != "" || asked.Get("Cookie") != "a=1" || asked.Get("X-Forwarded-Proto") != "https" || h.ran.Header.Get("Remote-User") != "ada" {
		t.Errorf("the service got %v, the handler %v", asked, h.ran.Header)
	}
}

func TestNilHandler(t *testing.T) {
	defer func() {
		if v := recover(); v != "forwardauth: nil handler" {
			t.Errorf("recovered %v", v)
		}
	}()
	mustNew(t, forwardauth.Config{}).Handler(nil)
}

func TestContexts(t *testing.T) {
	outer := mustNew(t, forwardauth.Config{Base: says(200, "", "Remote-User: ada"), CopyHeaders: user(t)})
	inner := mustNew(t, forwardauth.Config{Base: says(200, "", "Remote-User: bob"), CopyHeaders: user(t)})
	other := mustNew(t, forwardauth.Config{Base: says(200, "")})
	skips := mustNew(t, forwardauth.Config{Skip: func(*http.Request) bool { return true }})
	name := func(id forwardauth.Identity, ok bool) string {
		if !ok {
			return "nobody"
		}
		return id.Header.Get("Remote-User")
	}
	outer.Handler(skips.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		for _, c := range []struct{ got, want string }{
			{name(outer.From(ctx)), "ada"}, {name(inner.From(ctx)), "bob"}, {name(other.From(ctx)), "nobody"},
			{name(skips.From(ctx)), "nobody"}, {name(forwardauth.FromContext(ctx)), "bob"}, {r.Header.Get("Remote-User"), "bob"},
		} {
			if c.got != c.want {
				t.Errorf("got %q, want %q", c.got, c.want)
			}
		}
	})))).ServeHTTP(newRecorder(), request("GET", "/"))
	if got := name(forwardauth.FromContext(context.Background())); got != "nobody" {
		t.Errorf("without a middleware: %q", got)
	}
	id := forwardauth.Identity{Header: http.Header{"Remote-User": {"eve"}}}
	if got := name(forwardauth.FromContext(forwardauth.NewContext(context.Background(), id))); got != "eve" {
		t.Errorf("NewContext: %q", got)
	}
}

func TestDecisions(t *testing.T) {
	for name, c := range map[string]struct {
		service *service
		target  string
		want    forwardauth.Decision
		reason  forwardauth.Reason
	}{
		"allowed": {says(202, ""), "/", forwardauth.Decision{Allowed: true, Status: 202}, 0},
		"denied":  {says(401, ""), "/", forwardauth.Decision{Status: 401}, 0},
		"down":    {says(500, ""), "/", forwardauth.Decision{}, forwardauth.Unavailable},
		"bad":     {says(200, ""), "//", forwardauth.Decision{}, forwardauth.BadTarget},
	} {
		var got []forwardauth.Decision
		do(t, forwardauth.Config{OnDecision: func(_ *http.Request, d forwardauth.Decision) { got = append(got, d) }}, c.service, request("GET", c.target))
		if len(got) != 1 || got[0].Allowed != c.want.Allowed || got[0].Status != c.want.Status || got[0].Cached || got[0].Duration < 0 {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		e, ok := errors.AsType[*forwardauth.Error](got[0].Err)
		if ok != (c.reason != 0) || ok && e.Reason != c.reason {
			t.Errorf("%s: error %v", name, got[0].Err)
		}
	}
}

// What has panicked has decided nothing, and nobody is told that it has.
func TestNoDecisionOnPanic(t *testing.T) {
	base := func() *service {
		return &service{answer: func(*http.Request) (*http.Response, error) { panic("here") }}
	}
	for name, c := range map[string]forwardauth.Config{
		"Base":  {Base: base()},
		"cache": {Base: base(), Cache: cachedBy(memory(t))},
		"Allow": {Base: says(200, ""), Allow: func(int) bool { panic("here") }},
		"Input": {Base: says(200, ""), Mode: forwardauth.JSON, Input: func(*http.Request) (any, error) { panic("here") }},
	} {
		told := 0
		c.OnDecision = func(*http.Request, forwardauth.Decision) { told++ }
		m := mustNew(t, c)
		func() {
			defer func() {
				if v := recover(); v != "here" {
					t.Errorf("%s: recovered %v", name, v)
				}
			}()
			serve(m, request("GET", "/", "Cookie: a=b"))
		}()
		if told != 0 {
			t.Errorf("%s: told %d times", name, told)
		}
	}
}

// A SignIn to which a query can be added, and which can stand in a Location.
func TestSignInAddress(t *testing.T) {
	for in, ok := range map[string]bool{
		"/login": true, "/login?a=b": true, "https://a.example/login": true, "/log%20in": true,
		"/login#top": false, "/login?#": false, "/a b": false, "/a\tb": false, "/caf\u00e9": false,
		"https://a.example/login#top": false, "https://a.example/a b": false,
	} {
		if _, err := forwardauth.New(forwardauth.Config{URL: serviceURL, SignIn: in}); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// The endpoint of a preset is asked wherever the base ends: behind its query there
// would be another page, and its 200 a yes to everybody.
func TestPresetBase(t *testing.T) {
	for base, want := range map[string]string{
		"https://a.example": "https://a.example/x", "https://a.example/": "https://a.example/x", "https://a.example/p//": "https://a.example/p/x",
		"https://a.example/?b=c": "https://a.example/x?b=c", "https://a.example/p?b=c/": "https://a.example/p/x?b=c/", "https://a.example?b#c": "https://a.example/x?b#c", "https://a.example/#c": "https://a.example/x#c",
	} {
		for path, got := range map[string]string{
			"/api/authz/forward-auth": forwardauth.Authelia(base).URL, "/outpost.goauthentik.io/auth/traefik": forwardauth.Authentik(base).URL,
			"/oauth2/auth": forwardauth.OAuth2Proxy(base).URL, "/oauth2/start": forwardauth.OAuth2Proxy(base).SignIn,
		} {
			if want := strings.Replace(want, "/x", path, 1); got != want {
				t.Errorf("%s: %s, want %s", base, got, want)
			}
		}
	}
}

// Every reason has a status, a code and a text of its own.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	for r := forwardauth.Unavailable; r <= forwardauth.Loop; r++ {
		e := &forwardauth.Error{Reason: r}
		if e.HTTPStatus() < 400 || seen[e.Code()] || !strings.HasPrefix(e.Code(), "forwardauth_") || seen[r.String()] || e.Error() != "forwardauth: "+r.String() {
			t.Errorf("%d: status %d, code %q, %q", r, e.HTTPStatus(), e.Code(), e)
		}
		seen[e.Code()], seen[r.String()] = true, true
	}
	for _, r := range []forwardauth.Reason{-1, 0, 99} {
		if e := (&forwardauth.Error{Reason: r}); e.HTTPStatus() != 503 || e.Code() != "forwardauth_unavailable" {
			t.Errorf("%d: %d %s", r, e.HTTPStatus(), e.Code())
		}
	}
	if m := forwardauth.Mode(9); m.String() != "unknown" || forwardauth.JSON.String() != "json" {
		t.Error(m)
	}
}
