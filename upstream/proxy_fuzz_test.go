package upstream

import (
	"math"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/urlpath"
)

// No field that stays between two neighbours, and none that only a trusted peer
// may send, is ever in the header that goes out, in any spelling.
func FuzzRequestHeader(f *testing.F) {
	f.Add("Connection", "X-A, close", "X-A", "1")
	f.Add("X_Forwarded_For", "1", "X.Real.Ip", "2")
	f.Add("Te", "trailers", "Connection", "te")
	f.Add("Upgrade", "h2c", "Http2-Settings", "x")
	f.Add("Connection", "close", "Close", "1")
	f.Add("Connection", "clo\u017fe, \u212aeep-alive", "clo\u017fe", "1")
	f.Add("Connection", "\u212aeep-alive", "\u212aeep-alive", "1")
	p, err := NewProxy(ProxyConfig{Transport: http.DefaultTransport, Protect: []string{"X-User", "X-Acme-*"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		in := http.Header{}
		in.Add(n1, v1)
		in.Add(n2, v2)
		c := readConnection(in["Connection"], &p.protected)
		out := p.requestHeader(in, &c, false)
		for name, values := range out {
			if len(values) != cap(values) {
				t.Errorf("%q can be appended to in place", name)
			}
			like := lookalike(name)
			switch class := classOf(like); {
			case name == "Te" && len(values) == 1 && values[0] == "trailers":
			case class == fieldHop, class == fieldTE, class == fieldForwarded, class == fieldPoison, class == fieldHost, class == fieldLength:
				t.Errorf("%q goes out", name)
			case class != fieldOther && name != like, p.protected.has(like) && name != like:
				t.Errorf("%q goes out, which looks like %q", name, like)
			}
			if name != "Te" && in[name] == nil {
				t.Errorf("%q was not there", name)
			}
			for token := range strings.SplitSeq(strings.Join(in["Connection"], ","), ",") {
				if named := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(token)); named == name && p.protected.removable(name) && named != "" && classOf(name) == fieldOther {
					t.Errorf("%q goes out, and Connection lists it", name)
				}
			}
		}
		listed := strings.Split(strings.Join(in["Connection"], ","), ",")
		p.responseHeader(in)
		for name := range in {
			if class := classOf(name); class == fieldHop || class == fieldTE {
				t.Errorf("%q comes back", name)
			}
			for _, token := range listed {
				if named := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(token)); named == name && named != "" && p.protected.removable(name) {
					t.Errorf("%q comes back, and Connection lists it", name)
				}
			}
		}
	})
}

// The option that nearly every Connection has costs nothing.
func TestConnectionOptionsCost(t *testing.T) {
	g := newProtected(nil)
	h := http.Header{"X-A": {"1"}}
	for _, values := range [][]string{{"close"}, {"keep-alive"}, {"Keep-Alive, Close", "Upgrade"}} {
		if n := testing.AllocsPerRun(100, func() {
			c := readConnection(values, &g)
			c.strip(h)
		}); n != 0 {
			t.Errorf("%q: %v allocations", values, n)
		}
	}
}

// A pause that is as long as a Duration can be is no number below zero.
func TestRetryAfterLongest(t *testing.T) {
	for d, want := range map[time.Duration]string{
		math.MaxInt64: "9223372037", math.MaxInt64 / time.Second * time.Second: "9223372036",
		time.Nanosecond: "1", time.Second: "1", time.Second + 1: "2",
	} {
		if got := retryAfter(&Error{Kind: KindGate, RetryAfter: d}); got != want {
			t.Errorf("%v: Retry-After %q, want %q", d, got, want)
		}
	}
}

// A target that is not refused goes out as the bytes that came in; with a prefix
// to take off and rules to apply it has the same segments behind it, one slash at
// its beginning and no way out.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/api/x%2Fy", "/api//evil", "/api/..%2f", "/{a}|b", "/%61pi/x", "/old/%00", "//x", "/api/\\x", "/a?b#c", "*", "/x;y?z"} {
		f.Add(s)
	}
	plain, err := NewProxy(ProxyConfig{Transport: http.DefaultTransport})
	if err != nil {
		f.Fatal(err)
	}
	rules, err := NewProxy(ProxyConfig{Transport: http.DefaultTransport, URI: URI{
		StripPrefix: "/api", AddPrefix: "/base",
		Rules: []Rule{{Regexp: `^/v1/([^/]*)/?(.*)$`, To: "/$2/$1"}, {Prefix: "/old", To: "/new"}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || u.Opaque != "" {
			return
		}
		for _, p := range []*Proxy{plain, rules} {
			x := &exchange{p: p, in: &http.Request{Method: "GET", URL: u}}
			if badTarget(x.in, false) != "" || x.target(u) != nil {
				continue
			}
			verbatim(&x.url)
			sent := x.url.RequestURI()
			path, _, _ := strings.Cut(sent, "?")
			if strings.ContainsAny(sent, " \r\n\t\x00#") || path == "" || path[0] != '/' {
				t.Fatalf("%q goes out as %q", target, sent)
			}
			decoded, err := url.PathUnescape(path)
			if err != nil || urlpath.DotSegments(decoded) || strings.ContainsRune(decoded, 0) {
				t.Fatalf("%q goes out as %q", target, sent)
			}
			if p == rules {
				if !strings.HasPrefix(path, "/base/") {
					t.Errorf("%q goes out as %q", target, sent)
				}
				continue
			}
			was, _, _ := strings.Cut(target, "?")
			if path != was && !(strings.HasPrefix(was, "//") && decoded == u.Path) && !(was == "" && path == "/") {
				t.Errorf("%q goes out as %q", target, sent)
			}
		}
	})
}

// What is left of a query after cleaning is what url.ParseQuery accepts, and
// parses to the same as before.
func FuzzCleanQuery(f *testing.F) {
	for _, s := range []string{"", "a=1;b", "a=%zz&b=2", "a=%", "&&", "a=b=c", "%41=%20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		clean, ok := cleanQuery(query, QueryClean)
		if !ok {
			return
		}
		before, berr := url.ParseQuery(query)
		after, err := url.ParseQuery(clean)
		if err != nil || before.Encode() != after.Encode() {
			t.Errorf("%q became %q: %v, %v", query, clean, after, err)
		}
		if _, ok := cleanQuery(query, QueryReject); ok != (berr == nil) {
			t.Errorf("%q: rejected %v, url.ParseQuery says %v", query, !ok, berr)
		}
	})
}

// A timeout that is read is written as one that is not shorter, and nearly as
// long.
func FuzzGRPCTimeout(f *testing.F) {
	for _, s := range []string{"1S", "99999999H", "0n", "12345678u", "1x", "", "S", "-1S"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d, ok := grpcTimeout([]string{value})
		if !ok {
			return
		}
		if d < 0 || len(value) > 9 {
			t.Fatalf("%q is %v", value, d)
		}
		again, ok := grpcTimeout([]string{formatGRPCTimeout(d)})
		if !ok || again < d || d > time.Millisecond && float64(again) > float64(d)*1.001+float64(time.Hour) {
			t.Errorf("%q is %v, written as %q, which is %v", value, d, formatGRPCTimeout(d), again)
		}
	})
}

// The count of loops finds nobody else's pseudonym, and never fails.
func FuzzLoops(f *testing.F) {
	f.Add("1.1 us, 1.0 them (us)")
	f.Add(",,us , 1.1  us")
	fw := newForwarder(Forwarded{Via: "us"}, new(problems))
	f.Fuzz(func(t *testing.T, via string) {
		n := fw.loops(http.Header{"Via": {via}})
		if n > strings.Count(via, "us") {
			t.Errorf("%q: %d loops", via, n)
		}
		if fw.loops(http.Header{"Via": {via, "1.1 us"}}) != n+1 {
			t.Errorf("%q hides a loop", via)
		}
	})
}
