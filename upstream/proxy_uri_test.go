package upstream_test

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// line returns the request line that a back end gets for a target, or the
// status of the answer if it gets none.
func line(t *testing.T, cfg upstream.ProxyConfig, method, target string) (got string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, memnet.HTTP1, b, cfg)
		response := talk(t, s, method+" "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if all := b.all(); len(all) > 0 {
			got, _, _ = strings.Cut(all[0], "\r\n")
			got = strings.TrimSuffix(got, " HTTP/1.1")
			return
		}
		got = fmt.Sprint(statusOf(response))
	})
	return got
}

// upstream 49, 51, 52: targets go on byte for byte, or not at all.
func TestTarget(t *testing.T) {
	for target, want := range map[string]string{
		"/":                "GET /",
		"/a/b?c=d":         "GET /a/b?c=d",
		"/a?":              "GET /a?",
		"/a%2Fb":           "GET /a%2Fb",
		"/a%2fb/%41%7e~":   "GET /a%2fb/%41%7e~",
		"//host/path":      "GET //host/path",
		"/a//b/":           "GET /a//b/",
		"/a|b{c}^\"<>`":    "GET /a|b{c}^\"<>`",
		"/%C3%A4/\xc3\xa4": "GET /%C3%A4/\xc3\xa4",
		"/a+b;c=d,e=f":     "GET /a+b;c=d,e=f",
		"/a?b=;c%zz&x=%0":  "GET /a?b=;c%zz&x=%0",
		"/a\\b":            "GET /a\\b",
		"/.well-known/a":   "GET /.well-known/a",
		"/a..b/...":        "GET /a..b/...",
		"/%252e%252e/":     "GET /%252e%252e/",
		"http://b/x%2Fy":   "GET /x%2Fy",
		"http://b":         "GET /",
		"/a#b":             "400",
		"/a?b#c":           "400",
		"/a%00b":           "400",
		"/a?b=%00":         "400",
		"/a?b=%2500":       "GET /a?b=%2500",
		"/a\x01b":          "400",
		"/a?b=\x7f":        "400",
		"/a b":             "400",
		"*":                "400",
		"a/b":              "400",
		"/..":              "400",
		"/a/../b":          "400",
		"/a/./b":           "400",
		"/a/%2e%2E/b":      "400",
		"/a/..%2fb":        "400",
		"/a/..%5cb":        "400",
		"/a\\..\\b":        "400",
		"/a/..;x/b":        "400",
	} {
		if got := line(t, upstream.ProxyConfig{}, "GET", target); got != want {
			t.Errorf("%q: %q, want %q", target, got, want)
		}
	}
	if got := line(t, upstream.ProxyConfig{URI: upstream.URI{InsecureDotSegments: true}}, "GET", "/a/%2e%2E/../b"); got != "GET /a/%2e%2E/../b" {
		t.Errorf("with InsecureDotSegments: %q", got)
	}
}

// upstream 51, 52: HTTP/2 has no request line that could break.
func TestTargetHTTP2(t *testing.T) {
	for _, target := range []string{"/a#b", "/a b", "/a?b c", "/a%00", "/a?b=c%00d", "/..", "*"} {
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
			t.Errorf("%q is sent", target)
			return response(200, ""), nil
		})})
		u, err := url.ParseRequestURI(target) // as the HTTP/2 server does
		if err != nil {
			continue
		}
		r := request("GET", "/", nil)
		r.URL, r.ProtoMajor, r.ProtoMinor = u, 2, 0
		if w := serve(p, r); w.Code != 400 {
			t.Errorf("%q: status %d", target, w.Code)
		}
	}
}

// upstream 35: OPTIONS and TRACE are counted down, others are not.
func TestMaxForwards(t *testing.T) {
	for _, test := range []struct {
		method, value string
		want          string // the value sent on, or ""
		status        int
	}{
		{"OPTIONS", "5", "4", 200}, {"TRACE", "1", "0", 200}, {"GET", "0", "0", 200}, {"OPTIONS", "x", "x", 200},
		{"OPTIONS", "0", "", 204}, {"TRACE", "0", "", 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newRawBack(t, answers(okResponse))
			s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
			got := talk(t, s, test.method+" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: secret\r\nMax-Forwards: "+test.value+"\r\n\r\n")
			sent := ""
			if all := b.all(); len(all) > 0 {
				sent = strings.Join(fields(all[0], "Max-Forwards"), "|")
			}
			if statusOf(got) != test.status || sent != test.want {
				t.Errorf("%s %s: sent on %q, answer %q", test.method, test.value, sent, got)
			}
			if test.want == "" && (strings.Contains(got, "secret") || test.method == "OPTIONS" && fields(got, "Allow") == nil) {
				t.Errorf("%s: %q", test.method, got)
			}
		})
	}
	if got := line(t, upstream.ProxyConfig{URI: upstream.URI{AddPrefix: "/x"}}, "POST", "/a"); got != "POST /x/a" {
		t.Errorf("got %q", got)
	}
}

// upstream 53, 54: the three ways to treat a query that is not well formed.
func TestQuery(t *testing.T) {
	many := strings.Repeat("a&", 10_000) + "a"
	for _, test := range []struct {
		query, pass, clean, reject string
	}{
		{"a=1&b=%20", "a=1&b=%20", "a=1&b=%20", "a=1&b=%20"},
		{"a=1;b=2&c=3", "a=1;b=2&c=3", "c=3", "400"},
		{"a=%zz&c=3&d=%", "a=%zz&c=3&d=%", "c=3", "400"},
		{"a=%2&b=%1", "a=%2&b=%1", "", "400"},
		{"&&a", "&&a", "&&a", "&&a"},
		{many, many, "400", "400"},
	} {
		for policy, want := range map[upstream.QueryPolicy]string{
			upstream.QueryAuto: test.pass, upstream.QueryPass: test.pass, upstream.QueryClean: test.clean, upstream.QueryReject: test.reject,
		} {
			if want != "400" {
				want = strings.TrimSuffix("GET /?"+want, "?")
			}
			if got := line(t, upstream.ProxyConfig{URI: upstream.URI{Query: policy}}, "GET", "/?"+test.query); got != want {
				t.Errorf("policy %d: %.40q, want %.40q", policy, got, want)
			}
		}
	}
	// What a layer outside has parsed is what the back end sees.
	var got string
	p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		got = r.URL.RawQuery
		return response(200, ""), nil
	})})
	r := request("GET", "/?a=1;b=2&c=3", nil)
	r.ParseForm()
	if serve(p, r); got != "c=3" {
		t.Errorf("after ParseForm: %q", got)
	}
}

// upstream 56: neither Host nor an absolute target selects the back end.
func TestHostSelectsNothing(t *testing.T) {
	for _, cfg := range []upstream.ProxyConfig{{Target: "http://backend.test"}, {}} {
		var got []string
		cfg.Transport = tripperFunc(func(r *http.Request) (*http.Response, error) {
			got = append(got, r.URL.Scheme+"://"+r.URL.Host)
			return response(200, ""), nil
		})
		p := newProxy(t, cfg)
		serve(p, request("GET", "http://evil.test/", nil))
		serve(p, request("GET", "/", func(r *http.Request) { r.Host = "evil.test:1" }))
		for _, g := range got {
			if g != "http://backend.test" && g != "http://upstream.invalid" {
				t.Errorf("sent to %s", g)
			}
		}
	}
}

func TestHostPolicy(t *testing.T) {
	for _, test := range []struct {
		policy upstream.HostPolicy
		target string
		want   string
	}{
		{upstream.HostAuto, "http://b", "client.test"}, {upstream.HostAuto, "https://b", ""},
		{upstream.HostClient, "https://b", "client.test"}, {upstream.HostTarget, "http://b", ""},
	} {
		var got string
		p := newProxy(t, upstream.ProxyConfig{Host: test.policy, Target: test.target, Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			got = r.Host
			return response(200, ""), nil
		})})
		if serve(p, request("GET", "http://client.test/", nil)); got != test.want {
			t.Errorf("policy %d to %s: Host %q, want %q", test.policy, test.target, got, test.want)
		}
	}
}

// upstream 50: a prefix is taken off the escaped path, and what is left is
// neither a host nor a way out.
func TestStripPrefix(t *testing.T) {
	strip := upstream.URI{StripPrefix: "/api/"}
	for target, want := range map[string]string{
		"/api/users":           "/users",
		"/api":                 "/",
		"/api/":                "/",
		"/api?x=1":             "/?x=1",
		"/apix":                "/apix",
		"/other/api":           "/other/api",
		"/api/a%2Fb":           "/a%2Fb",
		"/api%2Fb":             "/api%2Fb",
		"/%61pi/b":             "/b",
		"/api//evil.test/x":    "/evil.test/x",
		"/api/\\evil.test":     "/evil.test",
		"/api///":              "/",
		"/api/api/x":           "/api/x",
		"/api/%2e%2e/x":        "400",
		"/api/..":              "400",
		"/api/{x}":             "/{x}",
		"/api//..%2fevil":      "400",
		"/api/%2F%2Fevil.test": "/%2F%2Fevil.test",
	} {
		if want != "400" {
			want = "GET " + want
		}
		if got := line(t, upstream.ProxyConfig{URI: strip}, "GET", target); got != want {
			t.Errorf("%q: %q, want %q", target, got, want)
		}
	}
}

// upstream 50, 55: every sort of rule, and what rules cannot do.
func TestRules(t *testing.T) {
	uri := upstream.URI{
		AddPrefix: "/base",
		Rules: []upstream.Rule{
			{Exact: "/exact", To: "/found"},
			{Prefix: "/old", To: "/new/place"},
			{Regexp: `^/api/v1/(.*)$`, To: "/v2/$1"},
			{Regexp: `^/users/(?P<id>[0-9]+)$`, To: "/u/${id}_x/$$"},
			{Regexp: `^/host(.*)$`, To: "/$1"},
			{Regexp: `^/dots/(.)(.)$`, To: "/a/$1$2/b"},
			{Regexp: `^/cut/(..)(.*)$`, To: "/$2/$1"},
			{Prefix: "/", To: "/rest"},
		},
	}
	for target, want := range map[string]string{
		"/exact":              "/base/found",
		"/exact?x=%41":        "/base/found?x=%41",
		"/exact/":             "/base/rest/exact/",
		"/old":                "/base/new/place",
		"/old/x":              "/base/new/place/x",
		"/older":              "/base/rest/older",
		"/api/v1/a%2Fb":       "/base/v2/a%2Fb",
		"/api/v1/%0d%0aX:%20": "/base/v2/%0d%0aX:%20",
		"/users/42":           "/base/u/42_x/$",
		"/host/evil.test":     "/base/evil.test",
		"/host":               "/base/",
		"/dots/ab":            "/base/a/ab/b",
		"/dots/.%2e":          "400",
		"/cut/%41":            "400",
		"/":                   "/base/rest/",
	} {
		if want != "400" {
			want = "GET " + want
		}
		if got := line(t, upstream.ProxyConfig{URI: uri}, "GET", target); got != want {
			t.Errorf("%q: %q, want %q", target, got, want)
		}
	}
	// Only rules are applied to a path, never to *.
	if got := line(t, upstream.ProxyConfig{URI: uri}, "OPTIONS", "*"); got != "200" && got != "OPTIONS *" {
		t.Errorf("OPTIONS *: %q", got)
	}
	// Dots that a rule joins are found after it.
	dots := upstream.URI{Rules: []upstream.Rule{{Regexp: `^/(\.)x(\.)/(.*)$`, To: "/a/$1$2/$3"}}}
	if got := line(t, upstream.ProxyConfig{URI: dots}, "GET", "/.x./secret"); got != "400" {
		t.Errorf("joined dots: %q", got)
	}
}

// A hook may do what it likes with the URL, as in httputil.
func TestRewriteURL(t *testing.T) {
	b, _ := url.Parse("http://backend.test/base?t=1")
	got := line(t, upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(b) }}, "GET", "/x%2Fy?a=1;b")
	if got != "GET /base/x%2Fy?t=1" {
		t.Errorf("got %q", got)
	}
}

// What a rule puts in the place of a path is all there.
func TestRuleReferences(t *testing.T) {
	const re = `^/(?P<id>[0-9]+)/(?:x)(.*)$`
	for to, ok := range map[string]bool{
		"/$1": true, "/${1}x": true, "/$id/$2": true, "/${id}_": true, "/$0": true, "/$$3": true, "/$$$1": true, "/x": true,
		"/$3": false, "/$1x": false, "/${3}": false, "/$name": false, "/${id": false, "/$": false, "/$/x": false, "/$01": false,
		"/$99999999999": false, "/$id_": false, "/$$$3": false, "/${}": false, "/$1\u00e4": false,
	} {
		_, err := upstream.NewProxy(upstream.ProxyConfig{Transport: http.DefaultTransport, URI: upstream.URI{Rules: []upstream.Rule{{Regexp: re, To: to}}}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", to, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "upstream: URI.Rules[0].To: $") || !strings.Contains(err.Error(), "(got "+to+")")) {
			t.Errorf("%s: %v", to, err)
		}
	}
}
