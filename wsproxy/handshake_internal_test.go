package wsproxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// h1 returns a good handshake over HTTP/1.1 with some lines replaced ("Name:"
// removes) and others added.
func h1(t testing.TB, method, target string, change ...string) *http.Request {
	t.Helper()
	lines := []string{"Host: app.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + sampleKey}
	seen := map[string]bool{}
	for _, c := range change {
		name, value, _ := strings.Cut(c, ":")
		if !seen[name] {
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		}
		seen[name] = true
		if value != "" {
			lines = append(lines, c)
		}
	}
	proto := "HTTP/1.1"
	if m, ok := strings.CutSuffix(method, "/1.0"); ok {
		method, proto = m, "HTTP/1.0"
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " " + proto + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "192.0.2.7:1234"
	return r
}

// h2 returns a good handshake as net/http's server for HTTP/2 gives it to a
// handler.
func h2(change func(*http.Request)) *http.Request {
	r := httptest.NewRequest("GET", "/chat", nil)
	r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = "CONNECT", "HTTP/2.0", 2, 0
	r.Host, r.ContentLength, r.Body = "app.example", -1, io.NopCloser(strings.NewReader(""))
	r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	if change != nil {
		change(r)
	}
	return r
}

func statusOf(err error) int {
	if err == nil {
		return 0
	}
	var e *Error
	if !errors.As(err, &e) {
		return -1
	}
	return e.HTTPStatus()
}

// wsproxy 1 and 2, and the path rules of 8 over HTTP/1.1.
func TestParseH1(t *testing.T) {
	for _, c := range []struct {
		name, method, target string
		change               []string
		want                 int
	}{
		{"good", "GET", "/chat", nil, 0},
		{"tokens in any case and company", "GET", "/chat", []string{"Connection: keep-alive, UPGRADE", "Upgrade: h2c", "Upgrade: WebSocket"}, 0},
		{"Content-Length 0", "GET", "/chat", []string{"Content-Length: 0"}, 0},
		{"no Upgrade and no key", "GET", "/chat", []string{"Upgrade:", "Sec-WebSocket-Key:"}, 426},
		{"no Upgrade", "GET", "/chat", []string{"Upgrade:"}, 400},
		{"other Upgrade", "GET", "/chat", []string{"Upgrade: h2c"}, 400},
		{"no Connection", "GET", "/chat", []string{"Connection:"}, 400},
		{"other Connection", "GET", "/chat", []string{"Connection: keep-alive"}, 400},
		{"no key", "GET", "/chat", []string{"Sec-WebSocket-Key:"}, 400},
		{"two keys", "GET", "/chat", []string{"Sec-WebSocket-Key: " + sampleKey, "Sec-WebSocket-Key: " + sampleKey}, 400},
		{"15 bytes", "GET", "/chat", []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"}, 400},
		{"17 bytes", "GET", "/chat", []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="}, 400},
		{"18 bytes in 24 digits", "GET", "/chat", []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA"}, 400},
		{"not base64", "GET", "/chat", []string{"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="}, 400},
		{"no version", "GET", "/chat", []string{"Sec-WebSocket-Version:"}, 400},
		{"version 8", "GET", "/chat", []string{"Sec-WebSocket-Version: 8"}, 426},
		{"two versions", "GET", "/chat", []string{"Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"}, 426},
		{"POST", "POST", "/chat", nil, 400},
		{"HTTP/1.0", "GET/1.0", "/chat", nil, 400},
		{"Content-Length 5", "GET", "/chat", []string{"Content-Length: 5"}, 400},
		{"chunked", "GET", "/chat", []string{"Transfer-Encoding: chunked"}, 400},
		{"dots", "GET", "/a/../b", nil, 400},
		{"encoded dots", "GET", "/a/%2e%2e/b", nil, 400},
		{"dots at the end", "GET", "/a/..", nil, 400},
		{"dots in a name", "GET", "/a..b/.c", nil, 0},
		{"dots and a parameter", "GET", "/a/..;x/b", nil, 400},
		{"dots between backslashes", "GET", "/a%5c..%5cb", nil, 400},
		{"dots in the query", "GET", "/a?/../", nil, 0},
		{"number sign", "GET", "/a?b#c", nil, 400},
		{"zero byte", "GET", "/a%00", nil, 400},
		{"host with a space", "GET", "/", []string{"Host: a b"}, 400},
		{"host with a path", "GET", "/", []string{"Host: a/b"}, 400},
		{"host of an address", "GET", "/", []string{"Host: [2001:db8::1]:80"}, 0},
		{"host of brackets", "GET", "/", []string{"Host: ]]"}, 400},
		{"host of a name in brackets", "GET", "/", []string{"Host: [app.example]:80"}, 400},
		{"host of an address in half of its brackets", "GET", "/", []string{"Host: 2001:db8::1]"}, 400},
		{"host with a zone of brackets", "GET", "/", []string{"Host: [fe80::1%[]]"}, 400},
		{"asterisk", "OPTIONS", "*", nil, 400},
		{"subprotocols", "GET", "/", []string{"Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c"}, 0},
		{"no subprotocol", "GET", "/", []string{"Sec-WebSocket-Protocol: a b"}, 400},
		{"extensions", "GET", "/", []string{`Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits="10", x;a=b`}, 0},
		{"no extension", "GET", "/", []string{"Sec-WebSocket-Extensions: permessage-deflate; =1"}, 400},
		{"quoted list", "GET", "/", []string{`Sec-WebSocket-Extensions: x; a="b, permessage-deflate"`}, 400},
		{"two origins", "GET", "/", []string{"Origin: http://a", "Origin: http://b"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := h1(t, c.method, c.target, c.change...)
			hs, err := parse(r)
			if got := statusOf(err); got != c.want {
				t.Fatalf("%d, want %d: %v", got, c.want, err)
			}
			if err == nil && c.name == "subprotocols" && !slices.Equal(hs.Subprotocols, []string{"a", "b", "c"}) {
				t.Error(hs.Subprotocols)
			}
		})
	}
}

// wsproxy 6 and 8, for what net/http lets through.
func TestParseH2(t *testing.T) {
	onlyTLS := &http.Server{Protocols: new(http.Protocols)}
	onlyTLS.Protocols.SetHTTP2(true)
	onlyHTTP1 := &http.Server{Protocols: new(http.Protocols)}
	onlyHTTP1.Protocols.SetHTTP1(true)
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"good", nil, 0},
		{"any case", func(r *http.Request) { r.Header[":protocol"] = []string{"WebSocket"} }, 0},
		{"a key, as HAProxy sends it", func(r *http.Request) { r.Header["Sec-Websocket-Key"] = []string{"x"} }, 0},
		{"GET with :protocol", func(r *http.Request) { r.Method = "GET" }, 400},
		{"no :authority", func(r *http.Request) { r.Host = "" }, 400},
		{"no :scheme on a server of TLS alone", func(r *http.Request) {
			*r = *r.WithContext(contextWithServer(r, onlyTLS))
		}, 400},
		{"a server of HTTP/1 alone, with h2c of another package in it", func(r *http.Request) {
			*r = *r.WithContext(contextWithServer(r, onlyHTTP1))
		}, 0},
		{":authority of brackets", func(r *http.Request) { r.Host = "]]" }, 400},
		{"asterisk", func(r *http.Request) { r.URL.Path = "*" }, 400},
		{"no path", func(r *http.Request) { r.URL.Path = "" }, 400},
		{"connect-udp", func(r *http.Request) { r.Header[":protocol"] = []string{"connect-udp"} }, 501},
		{"spaces", func(r *http.Request) { r.Header[":protocol"] = []string{"web socket"} }, 400},
		{"plain CONNECT", func(r *http.Request) { delete(r.Header, ":protocol") }, 400},
		{"plain GET", func(r *http.Request) { r.Method = "GET"; delete(r.Header, ":protocol") }, 400},
		{"a length", func(r *http.Request) { r.ContentLength = 5 }, 400},
		{"no version", func(r *http.Request) { delete(r.Header, "Sec-Websocket-Version") }, 400},
		{"version 12", func(r *http.Request) { r.Header["Sec-Websocket-Version"] = []string{"12"} }, 426},
		{"dots", func(r *http.Request) { r.URL.Path = "/any/../chat" }, 400},
		{"double slash, which the mux has not cleaned", func(r *http.Request) { r.URL.Path = "/any//chat" }, 400},
		{"slash at the end", func(r *http.Request) { r.URL.Path = "/any/" }, 0},
		{"a space in the query", func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.1 b" }, 400},
		{"dots and a parameter", func(r *http.Request) { r.URL.Path = "/a/..;/b" }, 400},
		{"dots between backslashes", func(r *http.Request) { r.URL.Path = `/a\..\b` }, 400},
		{":authority with a user", func(r *http.Request) { r.Host = "u@app.example" }, 400},
		{":authority with a space", func(r *http.Request) { r.Host = "app.example evil" }, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parse(h2(c.change)); statusOf(err) != c.want {
				t.Errorf("%d, want %d: %v", statusOf(err), c.want, err)
			}
		})
	}
}

func TestIsHandshake(t *testing.T) {
	for name, c := range map[string]struct {
		r    *http.Request
		want bool
	}{
		"h1":             {h1(t, "GET", "/"), true},
		"h1, broken":     {h1(t, "POST", "/", "Sec-WebSocket-Key:"), true},
		"h1, plain":      {h1(t, "GET", "/", "Upgrade:"), false},
		"h2":             {h2(nil), true},
		"h2, other":      {h2(func(r *http.Request) { r.Header[":protocol"] = []string{"connect-udp"} }), false},
		"h2, plain":      {h2(func(r *http.Request) { delete(r.Header, ":protocol") }), false},
		"another major":  {h2(func(r *http.Request) { r.ProtoMajor = 4 }), false},
		"h1 with pseudo": {h1(t, "GET", "/", "Connection:"), false},
	} {
		if got := IsHandshake(c.r); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// RFC 6455 section 1.3, the example.
func TestAccept(t *testing.T) {
	if got := acceptOf(sampleKey); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Error(got)
	}
	if one, two := newKey(), newKey(); !validKey(one) || one == two {
		t.Error("our own keys")
	}
}

// wsproxy 12 and 13: what an answer may not say.
func TestVerify(t *testing.T) {
	out := &outgoing{subprotocols: []string{"chat", "v2"}, extensions: []string{"permessage-deflate; client_max_window_bits, x-own"}}
	good := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(sampleKey) + "\r\n"
	for _, c := range []struct {
		name, answer string
		ok           bool
	}{
		{"good", good, true},
		{"chosen", good + "Sec-WebSocket-Protocol: v2\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n", true},
		{"wrong accept", strings.Replace(good, acceptOf(sampleKey), acceptOf("x"), 1), false},
		{"no accept", strings.Replace(good, "Sec-WebSocket-Accept", "X-Accept", 1), false},
		{"two accepts", good + "Sec-WebSocket-Accept: " + acceptOf(sampleKey) + "\r\n", false},
		{"no Upgrade", strings.Replace(good, "Upgrade: websocket\r\n", "", 1), false},
		{"other Upgrade", strings.Replace(good, "Upgrade: websocket", "Upgrade: h2c", 1), false},
		{"no Connection", strings.Replace(good, "Connection: Upgrade\r\n", "", 1), false},
		{"Content-Length", good + "Content-Length: 5\r\n", false},
		{"Content-Length 0", good + "Content-Length: 0\r\n", false},
		{"chunked", good + "Transfer-Encoding: chunked\r\n", false},
		{"HTTP/1.0", strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1), false},
		{"subprotocol not offered", good + "Sec-WebSocket-Protocol: v3\r\n", false},
		{"subprotocol in other case", good + "Sec-WebSocket-Protocol: Chat\r\n", false},
		{"two subprotocols", good + "Sec-WebSocket-Protocol: chat, v2\r\n", false},
		{"two lines of subprotocols", good + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: v2\r\n", false},
		{"empty subprotocol", good + "Sec-WebSocket-Protocol: \r\n", false},
		{"extension not offered", good + "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n", false},
		{"extension twice", good + "Sec-WebSocket-Extensions: x-own, x-own\r\n", false},
		{"extensions malformed", good + "Sec-WebSocket-Extensions: x-own;\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := readAnswer(bufio.NewReader(strings.NewReader("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + c.answer + "\r\n")))
			if err != nil {
				t.Fatal(err)
			}
			a := &answer{Response: res}
			if err := verify(a, out, sampleKey); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

// wsproxy 13: both lists are from outside, and are not compared each with each,
// which would take minutes.
func TestVerifyLongLists(t *testing.T) {
	var list strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&list, "x%d,", i)
	}
	a := &answer{Response: &http.Response{Header: http.Header{"Sec-Websocket-Extensions": {list.String()}}}}
	if err := a.negotiated(&outgoing{extensions: []string{list.String()}}); err != nil {
		t.Error(err)
	}
	a.Header["Sec-Websocket-Extensions"] = []string{list.String() + "x7"}
	if err := a.negotiated(&outgoing{extensions: []string{list.String()}}); err == nil {
		t.Error("one was chosen twice")
	}
}

// The zone of a target is for dialling: neither the field Host nor TLS knows it.
func TestTargetZone(t *testing.T) {
	for target, want := range map[string][3]string{ // addr, host, serverName
		"wss://[fe80::1%25eth0]:1/": {"[fe80::1%eth0]:1", "[fe80::1]:1", "fe80::1"},
		"wss://[fe80::1%25eth0]":    {"[fe80::1%eth0]:443", "[fe80::1]", "fe80::1"},
		"wss://[fe80::1]:1":         {"[fe80::1]:1", "[fe80::1]:1", "fe80::1"},
		"wss://back.example":        {"back.example:443", "back.example", "back.example"},
	} {
		e, err := parseTarget(target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if got := [3]string{e.addr, e.host, e.serverName}; got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

// A time that is too long for an int of 32 bits is not sent as another.
func TestRetryAfter(t *testing.T) {
	for d, want := range map[time.Duration]string{
		math.MaxInt64: "9223372036", time.Minute: "60", time.Millisecond: "1", 0: "5", -1: "",
	} {
		p, err := New(Config{Target: "ws://x", Limits: Limits{RetryAfter: d}})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		p.refuse(w, h1(t, "GET", "/"), &Error{Kind: TooMany})
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// wsproxy 14, 15 and 18: what the back end is sent.
func TestOutgoing(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	lines := []string{
		"Connection: upgrade, x-secret, x-forwarded-for, cookie, Remote-User", "X-Secret: 1", "X-Public: 2", "Cookie: a=b", "Remote-User: ada",
		"Keep-Alive: 5", "TE: trailers", "Proxy-Authorization: x", "HTTP2-Settings: x",
		"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: public.example", "X_Forwarded_For: 6.6.6.6",
		"Forwarded: for=203.0.113.9", "X-Real-IP: 6.6.6.6", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate",
	}
	for _, c := range []struct {
		name    string
		trusted []netip.Prefix
		tls     bool
		want    []string
		not     []string
	}{
		{"trusts none", nil, false,
			[]string{"X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: app.example", "X-Public: 2", "Cookie: a=b", "Remote-User: ada"},
			[]string{"203.0.113.9", "6.6.6.6", "Forwarded: ", "X-Secret", "public.example", "Keep-Alive", "Te:", "Proxy-A", "Http2", "Sec-Websocket"}},
		{"trusts none, over TLS", nil, true, []string{"X-Forwarded-Proto: https"}, nil},
		{"trusts the peer", trusted, false,
			[]string{"X-Forwarded-For: 203.0.113.9, 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: public.example",
				`Forwarded: for=203.0.113.9, for=192.0.2.7;proto=http;host="app.example"`, "X-Real-Ip: 6.6.6.6"},
			[]string{"X-Secret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := New(Config{Target: "ws://back.example/base?k=v", TrustedProxies: c.trusted, InsecureAnyOrigin: true})
			if err != nil {
				t.Fatal(err)
			}
			r := h1(t, "GET", "/chat?x=1", lines...)
			if c.tls {
				r.TLS = new(tls.ConnectionState)
			}
			before := r.Header.Clone()
			_, _, out, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, r)
			if err != nil {
				t.Fatal(err)
			}
			wire := string(out.request(sampleKey))
			head := "GET /base/chat?k=v&x=1 HTTP/1.1\r\nHost: app.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
			if !strings.HasPrefix(wire, head) {
				t.Errorf("wire is\n%s", wire)
			}
			for _, s := range c.want {
				if !strings.Contains(wire, "\r\n"+s+"\r\n") {
					t.Errorf("%q is missing in\n%s", s, wire)
				}
			}
			for _, s := range c.not {
				if strings.Contains(wire, s) {
					t.Errorf("%q is in\n%s", s, wire)
				}
			}
			if fmt.Sprint(before) != fmt.Sprint(r.Header) {
				t.Error("the request was changed")
			}
		})
	}
	t.Run("h2", func(t *testing.T) {
		p, _ := New(Config{Target: "wss://back.example"})
		_, _, out, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, h2(func(r *http.Request) {
			r.TLS, r.RemoteAddr = new(tls.ConnectionState), "[2001:db8::1]:9"
		}))
		if err != nil {
			t.Fatal(err)
		}
		wire := string(out.request(sampleKey))
		if strings.Contains(wire, "protocol") || !strings.Contains(wire, "Host: back.example\r\n") ||
			!strings.Contains(wire, "X-Forwarded-For: 2001:db8::1\r\n") || !strings.Contains(wire, "X-Forwarded-Proto: https\r\n") {
			t.Error(wire)
		}
	})
	t.Run("a hook's line breaks", func(t *testing.T) {
		p, _ := New(Config{Target: "ws://x", OnHandshake: func(hs *Handshake) error {
			hs.Header["X-A"], hs.Header["Bad Name"], hs.Header["Upgrade"] = []string{"1\r\nX-B: 2"}, []string{"x"}, []string{"h2c"}
			return nil
		}})
		_, _, out, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, h1(t, "GET", "/"))
		if err != nil {
			t.Fatal(err)
		}
		if wire := string(out.request(sampleKey)); strings.Contains(wire, "\nX-B") || strings.Contains(wire, "Bad Name") || strings.Contains(wire, "h2c") {
			t.Error(wire)
		}
	})
}

// wsproxy 22 and 23: every kind of origin, and the host over HTTP/2.
func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    Config
		origin string
		host   string
		tls    bool
		ok     bool
	}{
		{"none", Config{}, "-", "app.example", false, true},
		{"none, required", Config{OriginRequired: true}, "-", "app.example", false, false},
		{"none, required, any", Config{OriginRequired: true, InsecureAnyOrigin: true}, "-", "app.example", false, false},
		{"same host", Config{}, "http://app.example", "app.example", false, true},
		{"same host, TLS ended in front", Config{}, "https://app.example", "app.example", false, true},
		{"same host over TLS", Config{}, "https://app.example", "app.example", true, true},
		{"wrong scheme over TLS", Config{}, "http://app.example", "app.example", true, false},
		{"same port", Config{}, "http://app.example:8080", "app.example:8080", false, true},
		{"wrong port", Config{}, "http://app.example:8081", "app.example:8080", false, false},
		{"port of the scheme", Config{}, "https://app.example", "app.example:443", false, true},
		{"port of the other scheme", Config{}, "https://app.example", "app.example:80", false, false},
		{"upper case", Config{}, "HTTP://APP.example", "app.EXAMPLE", false, true},
		{"dot at the end", Config{}, "http://app.example.", "app.example", false, true},
		{"IPv6", Config{}, "http://[2001:db8::1]:80", "[2001:db8::1]", false, true},
		{"IDN as it is sent", Config{}, "https://xn--bcher-kva.example", "xn--bcher-kva.example", false, true},
		{"address with colons but no brackets", Config{}, "http://[::1]:80", "::1:80", false, false},
		{"letter that is an own one in lower case", Config{}, "https://\u212a.example", "k.example", false, false},
		{"the same, encoded", Config{}, "https://%E2%84%AA.example", "k.example", false, false},
		{"letter that is a listed one in lower case", Config{Origins: []string{"https://k.example"}}, "https://\u212a.example", "app.example", false, false},
		{"other host", Config{}, "https://evil.example", "app.example", false, false},
		{"longer host", Config{}, "https://app.example.evil.example", "app.example", false, false},
		{"null", Config{}, "null", "app.example", false, false},
		{"empty", Config{}, "", "app.example", false, false},
		{"with a path", Config{}, "http://app.example/", "app.example", false, false},
		{"with a user", Config{}, "http://u@app.example", "app.example", false, false},
		{"other scheme", Config{}, "chrome-extension://app.example", "app.example", false, false},
		{"listed", Config{Origins: []string{"https://other.example"}}, "https://other.example", "app.example", false, true},
		{"listed, own host still", Config{Origins: []string{"https://other.example"}}, "http://app.example", "app.example", false, true},
		{"listed with another scheme", Config{Origins: []string{"https://other.example"}}, "http://other.example", "app.example", false, false},
		{"listed with another port", Config{Origins: []string{"https://other.example"}}, "https://other.example:444", "app.example", false, false},
		{"below", Config{Origins: []string{"https://*.other.example"}}, "https://a.b.other.example", "app.example", false, true},
		{"below is not itself", Config{Origins: []string{"https://*.other.example"}}, "https://other.example", "app.example", false, false},
		{"below is not beside", Config{Origins: []string{"https://*.other.example"}}, "https://evilother.example", "app.example", false, false},
		{"below of any scheme", Config{Origins: []string{"*.other.example"}}, "http://a.other.example:99", "app.example", false, true},
		{"null listed", Config{Origins: []string{"null"}}, "null", "app.example", false, true},
		{"extension listed", Config{Origins: []string{"chrome-extension://abc"}}, "chrome-extension://abc", "app.example", false, true},
		{"any", Config{InsecureAnyOrigin: true}, "https://evil.example", "app.example", false, true},
		{"func yes", Config{CheckOrigin: func(_ *http.Request, o string) bool { return o == "https://f" }}, "https://f", "app.example", false, true},
		{"func no", Config{CheckOrigin: func(*http.Request, string) bool { return false }}, "http://app.example", "app.example", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Target = "ws://x"
			p, err := New(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			for version, r := range map[string]*http.Request{
				"h1": h1(t, "GET", "/", "Host: "+c.host),
				"h2": h2(func(r *http.Request) { r.Host = c.host }),
			} {
				if c.origin != "-" {
					r.Header["Origin"] = []string{c.origin}
				}
				if c.tls {
					r.TLS = new(tls.ConnectionState)
				}
				_, _, _, err = p.prepare(hijackableRecorder{httptest.NewRecorder()}, r)
				if want := map[bool]int{true: 0, false: 403}[c.ok]; statusOf(err) != want {
					t.Errorf("%s: %v", version, err)
				}
			}
		})
	}
	t.Run("trusted proxy's words", func(t *testing.T) {
		p, _ := New(Config{Target: "ws://x", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}})
		r := h1(t, "GET", "/", "Host: inner:8080", "Origin: https://app.example", "X-Forwarded-Host: app.example", "X-Forwarded-Proto: https")
		if _, _, _, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, r); err != nil {
			t.Error(err)
		}
		r.RemoteAddr = "192.0.2.8:1"
		if _, _, _, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, r); statusOf(err) != 403 {
			t.Error(err)
		}
	})
}

// hijackableRecorder passes for a writer that can be hijacked, and limited in time.
type hijackableRecorder struct{ *httptest.ResponseRecorder }

// The property: a handshake that is accepted is written to the back end as one
// that a strict parser accepts, with the fields of the handshake once each.
func FuzzHandshake(f *testing.F) {
	f.Add("GET", "/chat?x=1", "Upgrade", "websocket", sampleKey, "13", "chat, v2", "permessage-deflate; a=\"b\"", "http://app.example", "X-A: 1")
	f.Add("GET", "/%2e%2e/", "upgrade, x-a", "h2c, WebSocket", sampleKey, "13", "", "", "null", "X-A: 1\r\nX_Forwarded_For: 1")
	f.Add("POST", "/a/./b", "", "", "", "8", "a b", ";", "", "")
	f.Fuzz(func(t *testing.T, method, target, connection, upgrade, key, version, protocol, extensions, origin, more string) {
		wire := method + " " + target + " HTTP/1.1\r\nHost: app.example\r\nConnection: " + connection + "\r\nUpgrade: " + upgrade +
			"\r\nSec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: " + version + "\r\n"
		for name, v := range map[string]string{"Sec-WebSocket-Protocol": protocol, "Sec-WebSocket-Extensions": extensions, "Origin": origin} {
			if v != "" {
				wire += name + ": " + v + "\r\n"
			}
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire + more + "\r\n\r\n")))
		if err != nil {
			return
		}
		p, err := New(Config{Target: "ws://back.example/base", InsecureAnyOrigin: true})
		if err != nil {
			t.Fatal(err)
		}
		hs, _, out, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, r)
		if err != nil {
			if statusOf(err) <= 0 {
				t.Fatalf("not an *Error: %v", err)
			}
			return
		}
		ours := newKey()
		again, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out.request(ours))))
		if err != nil {
			t.Fatalf("%v: %q", err, out.request(ours))
		}
		hs2, err := parse(again)
		if err != nil {
			t.Fatalf("%v: %q", err, out.request(ours))
		}
		if hs2.key != ours || !slices.Equal(hs2.Subprotocols, hs.Subprotocols) || !strings.HasPrefix(again.RequestURI, "/base/") {
			t.Fatalf("%q", out.request(ours))
		}
	})
}

// The same over HTTP/2, where the target and the host can have any byte that a
// field can: they arrive at the back end as they came, with nothing before or
// after them, and in no other place of the path for a server of whatever habits.
func FuzzHandshakeH2(f *testing.F) {
	f.Add("/chat?x=1", "app.example")
	f.Add("/chat?a HTTP/1.1 b", "app.example:80")
	f.Add("/a/..;/admin", "[::1]")
	f.Add("/a%5c..%5cadmin?#", "app.example/x")
	f.Add("/a%2f..%2fb%00", "a b")
	p, err := New(Config{Target: "ws://back.example", InsecureAnyOrigin: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target, host string) {
		u, err := url.ParseRequestURI(target) // as net/http's server does
		if err != nil {
			return
		}
		_, _, out, err := p.prepare(hijackableRecorder{httptest.NewRecorder()}, h2(func(r *http.Request) { r.URL, r.Host = u, host }))
		if err != nil {
			if statusOf(err) <= 0 {
				t.Fatalf("not an *Error: %v", err)
			}
			return
		}
		wire := string(out.request(sampleKey))
		first, rest, _ := strings.Cut(wire, "\r\n")
		if strings.Count(first, " ") != 2 || strings.ContainsAny(first, "\t\r\n#") || !strings.HasPrefix(rest, "Host: "+host+"\r\nUpgrade: ") {
			t.Fatalf("%q", wire)
		}
		again, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
		if err != nil || again.URL.Path != u.Path || again.URL.RawQuery != u.RawQuery || again.Host != host {
			t.Fatalf("%v: %q", err, wire)
		}
		for segment := range strings.SplitSeq(strings.ReplaceAll(u.Path, `\`, "/"), "/") {
			if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
				t.Fatalf("%q", wire)
			}
		}
	})
}
