package upstream_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

func rewriteHeader(name, value string) func(*httputil.ProxyRequest) {
	return func(pr *httputil.ProxyRequest) { pr.Out.Header.Set(name, value) }
}

// loopback are the peers of memnet.
var loopback = netip.MustParsePrefix("127.0.0.0/8")

// fields returns the lines of a head with a name, in any case.
func fields(head, name string) (values []string) {
	head, _, _ = strings.Cut(head, "\r\n\r\n")
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// exchangeHeaders sends a request with some fields through a Proxy and returns
// what the back end got.
func exchangeHeaders(t *testing.T, cfg upstream.ProxyConfig, lines ...string) string {
	t.Helper()
	var got string
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, memnet.HTTP1, b, cfg)
		response := talk(t, s, "GET / HTTP/1.1\r\nHost: front.test\r\n"+strings.Join(lines, "\r\n")+"\r\n\r\n")
		if statusOf(response) != 200 {
			t.Errorf("got %q", response)
		}
		got = b.one(t)
	})
	return got
}

// upstream 36, 39, 42: what is between two neighbours stays there, whatever the
// case and the place in which Connection names it.
func TestHopByHopRequest(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{},
		"Connection:", "connection: x-one, keep-alive", "CONNECTION: close,,X-TWO ,\tx-three",
		"X-One: 1", "x-two: 2", "X-THREE: 3", "X-Four: 4",
		"Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip;q=0.5, trailers", "Trailer: X-T",
		"Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Proxy-Authorization: Basic eA==",
		"Proxy-Authenticate: Basic", "Alt-Svc: h3=\":443\"", "Proxy: http://evil.test/")
	for _, name := range []string{"Connection", "X-One", "X-Two", "X-Three", "Keep-Alive", "Proxy-Connection", "Trailer",
		"Upgrade", "HTTP2-Settings", "Proxy-Authorization", "Proxy-Authenticate", "Alt-Svc", "Proxy"} {
		if v := fields(got, name); v != nil {
			t.Errorf("%s: %q", name, v)
		}
	}
	if v := fields(got, "X-Four"); !slices.Equal(v, []string{"4"}) {
		t.Errorf("X-Four: %q", v)
	}
	if v := fields(got, "TE"); !slices.Equal(v, []string{"trailers"}) {
		t.Errorf("TE: %q", v)
	}
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: close", "TE: gzip"), "TE"); v != nil {
		t.Errorf("TE without trailers: %q", v)
	}
}

// upstream 36, 39: the same on the way back.
func TestHopByHopResponse(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection:\r\nConnection: x-one, X-TWO\r\nX-One: 1\r\nX-Two: 2\r\n"+
			"X-Three: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n"+
			"TE: trailers\r\nAlt-Svc: h3=\":443\"\r\n\r\nok"))
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		res, body := get(t, s, "/")
		if body != "ok" || res.Header.Get("X-Three") != "3" {
			t.Errorf("got %q, %v", body, res.Header)
		}
		for _, name := range []string{"Connection", "X-One", "X-Two", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Upgrade", "Te", "Alt-Svc"} {
			if v, ok := res.Header[name]; ok {
				t.Errorf("%s: %q", name, v)
			}
		}
	})
}

// upstream 36: what is an option of Connection is a name as well. In a response
// net/http takes the option out before anybody else can see it.
func TestConnectionOptionsAreNames(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: CLOSE", "Close: 1", "X-One: 1")
	if v := fields(got, "Close"); v != nil || fields(got, "X-One") == nil {
		t.Errorf("the back end got %q", got)
	}
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nClose: 1\r\nKeep-Alive: 5\r\nX-One: 1\r\n\r\nok"))
		res, _ := get(t, serveProxy(t, p, b, upstream.ProxyConfig{}), "/")
		if res.Header["Close"] != nil || res.Header["Keep-Alive"] != nil || res.Header["X-One"] == nil {
			t.Errorf("the client got %v", res.Header)
		}
	})
}

// upstream 36: names in Connection and fields may both be as many as the server
// takes. What they cost is what they cost one by one, and not for each pair.
func TestConnectionCost(t *testing.T) {
	list := http.Header{"Connection": {strings.Repeat("z,", 40_000)}}
	many := http.Header{}
	for i := range 4_000 {
		many[fmt.Sprintf("X%d", i)] = []string{""}
	}
	both := maps.Clone(many)
	both["Connection"] = list["Connection"]
	for direction, send := range map[string]func(http.Header){
		"request": func(h http.Header) {
			p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
				return response(200, ""), nil
			})})
			serve(p, request("GET", "/", func(r *http.Request) { r.Header = h }))
		},
		"response": func(h http.Header) {
			p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
				res := response(200, "")
				res.Header = maps.Clone(h)
				return res, nil
			})})
			serve(p, request("GET", "/", nil))
		},
	} {
		// The least of many: a busy machine makes some of them long, and of a long
		// one more than of two short ones.
		cost := func(h http.Header, rounds int, enough time.Duration) time.Duration {
			least := time.Hour
			for n := 0; n < rounds && least > enough; n++ {
				start := time.Now()
				send(h)
				least = min(least, time.Since(start))
			}
			return least
		}
		apart := cost(list, 20, 0) + cost(many, 20, 0)
		if together := cost(both, 50, 8*apart); together > 8*apart {
			t.Errorf("%s: %v together, %v apart", direction, together, apart)
		}
	}
}

// upstream 16, 19: what has no place in HTTP/2 asks for nothing there, should a
// server let it pass, and a Host beside :authority is not heard.
func TestConnectionFieldsHTTP2(t *testing.T) {
	var got *http.Request
	p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		got = r
		return response(200, ""), nil
	})})
	serve(p, request("GET", "https://front.test/", func(r *http.Request) {
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
		r.Header = http.Header{"Connection": {"upgrade, x-a"}, "Upgrade": {"websocket"}, "Transfer-Encoding": {"chunked"},
			"Keep-Alive": {"5"}, "Proxy-Connection": {"close"}, "Host": {"other.test"}, "X-A": {"1"}, "X-B": {"2"}}
	}))
	if got == nil || got.Host != "front.test" || got.Header.Get("X-B") != "2" {
		t.Fatalf("sent %v", got)
	}
	for _, name := range []string{"Connection", "Upgrade", "Transfer-Encoding", "Keep-Alive", "Proxy-Connection", "Host", "X-A"} {
		if v, ok := got.Header[name]; ok {
			t.Errorf("%s: %q", name, v)
		}
	}
}

// upstream 37: Connection takes away no field that says who the client is.
func TestConnectionCannotRemove(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{
		Protect:   []string{"X-Tenant", "X-Acme-*"},
		Forwarded: upstream.Forwarded{TrustedProxies: []netip.Prefix{loopback}, RealIP: true, Standard: true, Via: "us"},
	},
		"Connection: close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Real-Ip, Forwarded, Authorization, Cookie, Via, Host",
		"Connection: x-tenant, x-acme-user, x-auth-user, remote-user, traceparent, x-request-id, content-length, x-plain",
		"X-Forwarded-For: 192.0.2.1", "Authorization: Bearer t", "Cookie: a=b", "X-Tenant: acme", "X-Acme-User: u",
		"X-Auth-User: a", "Remote-User: r", "X-Request-Id: id", "X-Plain: p", "Traceparent: tp", "X-Real-Ip: 192.0.2.1")
	for name, want := range map[string]string{
		"X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Forwarded-Host": "front.test", "X-Forwarded-Proto": "http",
		"X-Real-Ip": "192.0.2.1", "Authorization": "Bearer t", "Cookie": "a=b", "X-Tenant": "acme", "X-Acme-User": "u",
		"X-Auth-User": "a", "Remote-User": "r", "X-Request-Id": "id", "Traceparent": "tp", "Host": "front.test", "Via": "1.1 us",
		"Forwarded": "for=127.0.0.1;host=front.test;proto=http",
	} {
		if v := fields(got, name); !slices.Equal(v, []string{want}) {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if v := fields(got, "X-Plain"); v != nil {
		t.Errorf("X-Plain: %q", v)
	}
}

// upstream 38: what a hook sets stays, since fields are removed before it runs;
// and it does not see what was removed.
func TestRewriteAfterRemoval(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) {
		for _, name := range []string{"X-Hook", "X-Forwarded-For", "Keep-Alive", "Forwarded"} {
			if v, ok := pr.Out.Header[name]; ok {
				t.Errorf("the hook sees %s: %q", name, v)
			}
		}
		pr.Out.Header.Set("X-Hook", "hook")
		pr.Out.Header.Set("X-Forwarded-For", "203.0.113.9")
		pr.Out.Header["X-Forwarded-Host"] = nil
	}}, "Connection: close, X-Hook", "X-Hook: client", "X-Forwarded-For: 192.0.2.1", "Keep-Alive: 5", "Forwarded: for=192.0.2.1")
	for name, want := range map[string][]string{"X-Hook": {"hook"}, "X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Host": nil, "X-Forwarded-Proto": {"http"}} {
		if v := fields(got, name); !slices.Equal(v, want) {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}

// A field that a hook has set to nil is not sent, whether or not a trusted proxy
// could have sent it and has, and one that came without a hook's doing is added to.
func TestHookSetsNil(t *testing.T) {
	names := []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded", "X-Real-Ip"}
	for _, trusted := range [][]netip.Prefix{nil, {loopback}} {
		for _, sent := range [][]string{nil, {"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Prefix", "/outer", "Forwarded", "for=192.0.2.1"}} {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{
					URI:       upstream.URI{StripPrefix: "/api"},
					Forwarded: upstream.Forwarded{TrustedProxies: trusted, Standard: true, RealIP: true},
					Rewrite: func(pr *httputil.ProxyRequest) {
						for _, name := range names {
							pr.Out.Header[name] = nil
						}
					},
				})
				get(t, s, "/api/x", sent...)
				for _, name := range names {
					if v := fields(b.one(t), name); v != nil {
						t.Errorf("trusted %v, the client sends %q: %s: %q", trusted, sent, name, v)
					}
				}
			})
		}
	}
}

// upstream 40, 41: a name that somebody could take for one that means something
// is dropped, others with unusual characters are not.
func TestLookalikes(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{Protect: []string{"X-User", "X-Acme-*"}},
		"Connection: close", "X_Forwarded_For: 1", "X.Forwarded.For: 2", "x_forwarded-proto: 3", "X~Real~Ip: 4", "X_User: 5",
		"X_ACME_role: 6", "Content_Length: 7", "X_Beside: 8", "X-Beside: 9", "X_Custom: fine", "Transfer_Encoding: 10", "Remote_User: 11")
	for _, s := range []string{": 1\r", ": 2\r", ": 3\r", ": 4\r", ": 5\r", ": 6\r", ": 7\r", ": 8\r", ": 10\r", ": 11\r"} {
		if strings.Contains(got, s) {
			t.Errorf("%q is in %q", s, got)
		}
	}
	for _, s := range []string{"X-Beside: 9\r", "X_custom: fine\r"} {
		if !strings.Contains(got, s) {
			t.Errorf("%q is not in %q", s, got)
		}
	}
}

// upstream 40, 50: what a client that is no trusted proxy says about itself, and
// about the paths before it, does not get through.
func TestForwardedUntrusted(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{URI: upstream.URI{StripPrefix: "/api"}},
		"Connection: close", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /evil",
		"X-Forwarded-Port: 1", "X-Real-Ip: 192.0.2.1", "True-Client-Ip: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Original-Url: /admin", "X-Rewrite-Url: /admin")
	for name, want := range map[string][]string{
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"front.test"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": nil,
		"X-Forwarded-Port": nil, "X-Real-Ip": nil, "True-Client-Ip": nil, "Forwarded": nil, "X-Original-Url": nil, "X-Rewrite-Url": nil,
	} {
		if v := fields(got, name); !slices.Equal(v, want) {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}

// upstream 50: the prefix that was taken off is said, behind those before it.
func TestForwardedPrefix(t *testing.T) {
	for name, test := range map[string]struct {
		forwarded upstream.Forwarded
		want      []string
	}{
		"untrusted": {upstream.Forwarded{}, []string{"/api"}},
		"trusted":   {upstream.Forwarded{TrustedProxies: []netip.Prefix{loopback}}, []string{"/outer/api"}},
		"omitted":   {upstream.Forwarded{Omit: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{URI: upstream.URI{StripPrefix: "/api"}, Forwarded: test.forwarded})
				get(t, s, "/api/x", "X-Forwarded-Prefix", "/outer")
				if v := fields(b.one(t), "X-Forwarded-Prefix"); !slices.Equal(v, test.want) {
					t.Errorf("got %q, want %q", v, test.want)
				}
			})
		})
	}
}

// upstream 43: lines keep their order, and are never joined.
func TestFieldLines(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2, c\r\nX-A: 2\r\nVary: x\r\n\r\nok"))
		h := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Set-Cookie", "own=1")
			w.Header().Set("Vary", "Cookie")
			w.Header().Set("X-Request-Id", "ours")
			h.ServeHTTP(w, r)
		})})
		res, _ := get(t, s, "/", "X-B", "1", "X-B", "2")
		if v := fields(b.one(t), "X-B"); !slices.Equal(v, []string{"1", "2"}) {
			t.Errorf("the back end got X-B %q", v)
		}
		for name, want := range map[string][]string{"Set-Cookie": {"own=1", "a=1", "b=2, c"}, "X-A": {"1", "2"}, "Vary": {"Cookie", "x"}} {
			if v := res.Header[name]; !slices.Equal(v, want) {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
	})
}

// What layers outside have set stays theirs, what describes the body is the
// back end's, and neither happens twice.
func TestHeaderMerge(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: theirs\r\nContent-Type: text/css\r\nETag: \"x\"\r\n\r\nok"))
		h := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "ours")
			w.Header().Set("Content-Type", "text/plain")
			h.ServeHTTP(w, r)
		})})
		res, _ := get(t, s, "/")
		if v := res.Header["X-Request-Id"]; !slices.Equal(v, []string{"ours"}) {
			t.Errorf("X-Request-Id: %q", v)
		}
		if v := res.Header["Content-Type"]; !slices.Equal(v, []string{"text/css"}) {
			t.Errorf("Content-Type: %q", v)
		}
	})
}

// A response without Content-Type stays one: what the server would guess from its
// body may be a type that runs scripts.
func TestNoContentType(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		const html = "<html><script>alert(1)</script>"
		for _, response := range []string{
			"HTTP/1.1 200 OK\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 31\r\n\r\n" + html,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\n" + html + "\r\n0\r\n\r\n",
		} {
			s := serveProxy(t, p, newRawBack(t, answers(response)), upstream.ProxyConfig{})
			if res, body := get(t, s, "/"); body != html || res.Header["Content-Type"] != nil {
				t.Errorf("%q, Content-Type %q", body, res.Header["Content-Type"])
			}
		}
	})
	// No empty field either.
	synctest.Test(t, func(t *testing.T) {
		s := serveProxy(t, memnet.HTTP1, newRawBack(t, answers(okResponse)), upstream.ProxyConfig{})
		if got := talk(t, s, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); statusOf(got) != 200 || fields(got, "Content-Type") != nil {
			t.Errorf("got %q", got)
		}
	})
}

// upstream 44: Via in both directions, by the protocol of each.
func TestVia(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.0 inner\r\n\r\nok"))
		s := serveProxy(t, p, b, upstream.ProxyConfig{Forwarded: upstream.Forwarded{Via: "us"}})
		res, _ := get(t, s, "/", "Via", "1.0 fred, 1.1 p.example.net (Apache/1.1)")
		own := "1.1 us"
		if p != memnet.HTTP1 {
			own = "2.0 us"
		}
		if v := strings.Join(fields(b.one(t), "Via"), ", "); v != "1.0 fred, 1.1 p.example.net (Apache/1.1), "+own {
			t.Errorf("the back end got Via %q", v)
		}
		if v := strings.Join(res.Header["Via"], ", "); v != "1.0 inner, 1.1 us" {
			t.Errorf("the client got Via %q", v)
		}
	})
}

// upstream 44: two Proxies that send to each other stop, and say why.
func TestLoop(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		var s *memnet.Server
		hops := 0
		var h http.Handler
		s = memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hops++
			h.ServeHTTP(w, r)
		})})
		h = newProxy(t, upstream.ProxyConfig{Transport: s.Transport, Target: s.URL, Host: upstream.HostClient, ProxyStatus: "us"})
		res, _ := get(t, s, "/")
		if res.StatusCode != http.StatusLoopDetected || hops != 4 {
			t.Errorf("status %d after %d hops", res.StatusCode, hops)
		}
		if v := res.Header["Proxy-Status"]; len(v) == 0 || v[0] != "us; error=proxy_loop_detected" {
			t.Errorf("Proxy-Status: %q", v)
		}
	})
	// Another's pseudonym that contains ours is not ours.
	got := exchangeHeaders(t, upstream.ProxyConfig{Forwarded: upstream.Forwarded{Via: "us", MaxLoops: 1}},
		"Connection: close", "Via: 1.1 thus, 1.1 us-east, 1.1 x (us)")
	if v := fields(got, "Via"); len(v) != 1 || !strings.HasSuffix(v[0], ", 1.1 us") {
		t.Errorf("Via: %q", v)
	}
}

// upstream 45: a response without Date gets one, and one with it keeps it.
func TestDate(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := serveProxy(t, p, newRawBack(t, answers(okResponse)), upstream.ProxyConfig{})
		if res, _ := get(t, s, "/"); len(res.Header["Date"]) != 1 {
			t.Errorf("Date: %q", res.Header["Date"])
		}
		const date = "Sun, 06 Nov 1994 08:49:37 GMT"
		s = serveProxy(t, p, newRawBack(t, answers("HTTP/1.1 200 OK\r\nDate: "+date+"\r\nContent-Length: 2\r\n\r\nok")), upstream.ProxyConfig{})
		if res, _ := get(t, s, "/"); !slices.Equal(res.Header["Date"], []string{date}) {
			t.Errorf("Date: %q", res.Header["Date"])
		}
	})
}

// upstream 48: Early-Data goes on, and a 425 comes back without a second try.
func TestEarlyData(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 425 Too Early\r\nContent-Length: 0\r\n\r\n"))
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		res, _ := get(t, s, "/", "Early-Data", "1")
		if res.StatusCode != http.StatusTooEarly || !slices.Equal(fields(b.one(t), "Early-Data"), []string{"1"}) {
			t.Errorf("status %d, %q", res.StatusCode, b.all())
		}
	})
}

// The client's User-Agent goes on as it is, and none is made up.
func TestUserAgent(t *testing.T) {
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: close"), "User-Agent"); v != nil {
		t.Errorf("without one: %q", v)
	}
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: close", "User-Agent: x/1"), "User-Agent"); !slices.Equal(v, []string{"x/1"}) {
		t.Errorf("with one: %q", v)
	}
}

// Everything a Proxy can say about a client, from clients of all sorts.
func TestForwardedFields(t *testing.T) {
	trusted := []netip.Prefix{loopback}
	for name, test := range map[string]struct {
		f    upstream.Forwarded
		in   []string
		want map[string][]string
	}{
		"default": {upstream.Forwarded{}, nil, map[string][]string{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"front.test"},
			"X-Forwarded-Proto": {"http"}, "Forwarded": nil, "X-Real-Ip": nil}},
		"trusted": {upstream.Forwarded{TrustedProxies: trusted, Standard: true, RealIP: true},
			[]string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2", "X-Forwarded-Host: a.test", "X-Forwarded-Proto: https", "Forwarded: for=192.0.2.1;proto=https"},
			map[string][]string{"X-Forwarded-For": {"192.0.2.1, 192.0.2.2, 127.0.0.1"}, "X-Forwarded-Host": {"a.test"}, "X-Forwarded-Proto": {"https"},
				"Forwarded": {"for=192.0.2.1;proto=https, for=127.0.0.1;host=front.test;proto=http"}, "X-Real-Ip": {"192.0.2.2"}}},
		"standard": {upstream.Forwarded{Standard: true, Omit: true}, nil, map[string][]string{"X-Forwarded-For": nil, "X-Forwarded-Host": nil,
			"X-Forwarded-Proto": nil, "Forwarded": {"for=127.0.0.1;host=front.test;proto=http"}}},
		"none": {upstream.Forwarded{Omit: true, NoVia: true}, []string{"X-Forwarded-For: 192.0.2.1"},
			map[string][]string{"X-Forwarded-For": nil, "X-Forwarded-Host": nil, "X-Forwarded-Proto": nil, "Via": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			got := exchangeHeaders(t, upstream.ProxyConfig{Forwarded: test.f}, append([]string{"Connection: close"}, test.in...)...)
			for name, want := range test.want {
				if v := fields(got, name); !slices.Equal(v, want) {
					t.Errorf("%s: %q, want %q", name, v, want)
				}
			}
		})
	}
}

// A trusted proxy that adds to X-Forwarded-For and lets the X-Real-Ip of a client
// pass vouches for the one and not for the other. What a hook says stands.
func TestRealIP(t *testing.T) {
	in := []string{"Connection: close", "X-Forwarded-For: 198.51.100.1, 203.0.113.9", "X-Real-Ip: 127.0.0.1", "X_Real_Ip: 127.0.0.1"}
	clone := func(pr *httputil.ProxyRequest) { pr.Out = pr.Out.Clone(pr.Out.Context()) }
	for name, test := range map[string]struct {
		f       upstream.Forwarded
		rewrite func(*httputil.ProxyRequest)
		want    []string
	}{
		"trusted":           {upstream.Forwarded{RealIP: true, TrustedProxies: []netip.Prefix{loopback}}, nil, []string{"203.0.113.9"}},
		"untrusted":         {upstream.Forwarded{RealIP: true}, nil, []string{"127.0.0.1"}},
		"with Omit":         {upstream.Forwarded{RealIP: true, Omit: true, TrustedProxies: []netip.Prefix{loopback}}, nil, []string{"203.0.113.9"}},
		"a hook's copy":     {upstream.Forwarded{RealIP: true, TrustedProxies: []netip.Prefix{loopback}}, clone, []string{"203.0.113.9"}},
		"a hook's":          {upstream.Forwarded{RealIP: true, TrustedProxies: []netip.Prefix{loopback}}, rewriteHeader("X-Real-Ip", "192.0.2.1"), []string{"192.0.2.1"}},
		"trusted, off":      {upstream.Forwarded{TrustedProxies: []netip.Prefix{loopback}}, nil, []string{"127.0.0.1"}},
		"untrusted and off": {upstream.Forwarded{}, nil, nil},
	} {
		got := exchangeHeaders(t, upstream.ProxyConfig{Forwarded: test.f, Rewrite: test.rewrite}, in...)
		if v := fields(got, "X-Real-Ip"); !slices.Equal(v, test.want) {
			t.Errorf("%s: %q, want %q", name, v, test.want)
		}
	}
}

// Addresses as they come from net/http, and what becomes of them.
func TestForwardedPeers(t *testing.T) {
	for remote, want := range map[string]struct{ xff, forwarded string }{
		"192.0.2.7:1234":          {"192.0.2.7", "for=192.0.2.7;host=x;proto=http"},
		"[2001:db8::1]:1":         {"2001:db8::1", `for="[2001:db8::1]";host=x;proto=http`},
		"[fe80::1%eth0]:1":        {"fe80::1", `for="[fe80::1]";host=x;proto=http`},
		"[::ffff:192.0.2.7]:1234": {"192.0.2.7", "for=192.0.2.7;host=x;proto=http"},
		"@":                       {"", "for=unknown;host=x;proto=http"},
		"":                        {"", "for=unknown;host=x;proto=http"},
	} {
		var got http.Header
		p := newProxy(t, upstream.ProxyConfig{Forwarded: upstream.Forwarded{Standard: true}, Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			got = r.Header
			return response(200, ""), nil
		})})
		serve(p, request("GET", "http://x/", func(r *http.Request) { r.RemoteAddr = remote }))
		if got.Get("X-Forwarded-For") != want.xff || got.Get("Forwarded") != want.forwarded {
			t.Errorf("%q: %q and %q", remote, got["X-Forwarded-For"], got["Forwarded"])
		}
	}
}
