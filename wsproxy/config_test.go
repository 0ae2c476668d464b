package wsproxy_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/plainware/wsproxy"
)

func TestConfigErrors(t *testing.T) {
	director := func(*wsproxy.Handshake) (*wsproxy.Target, error) { return nil, nil }
	for _, c := range []struct {
		name string
		cfg  wsproxy.Config
		want []string // one for each line
	}{
		{"empty", wsproxy.Config{}, []string{"wsproxy: Target: exactly one of"}},
		{"both", wsproxy.Config{Target: "ws://x", Director: director}, []string{"wsproxy: Target: exactly one of"}},
		{"http", wsproxy.Config{Target: "http://x"}, []string{`wsproxy: Target: must be a ws, wss or unix URL (got "http://x")`}},
		{"no host", wsproxy.Config{Target: "ws:///x"}, []string{"with a host"}},
		{"user", wsproxy.Config{Target: "ws://u:secret@x/?token=secret"}, []string{"no user"}},
		{"unparsable", wsproxy.Config{Target: "ws://secret\x7f"}, []string{"must be a ws, wss or unix URL"}},
		{"socket with a host", wsproxy.Config{Target: "unix://host/path"}, []string{"without a host"}},
		{"all at once", wsproxy.Config{
			Target: "ws://x", Mode: 7, Host: "a b", Subprotocols: []string{"a b"}, InsecureAnyOrigin: true,
			Origins: []string{"app.example", "https://*.*.example", "*.app.example:80", "https://bücher.example", "https://b%C3%BCcher.example"}, TrustedProxies: []netip.Prefix{{}},
			CheckOrigin: func(*http.Request, string) bool { return true },
			Timeouts:    wsproxy.Timeouts{Ping: time.Millisecond},
			Limits:      wsproxy.Limits{Key: func(*wsproxy.Handshake) string { return "" }},
			Drain:       wsproxy.Drain{Code: 1000, Reason: strings.Repeat("x", 124)},
		}, []string{": Mode: ", ": Host: ", ": Subprotocols: ", ": InsecureAnyOrigin: ", ": CheckOrigin: ", ": TrustedProxies: ", ": Timeouts.Ping: ",
			": Limits.PerKey: ", ": Drain.Code: ", ": Drain.Reason: ", ": Origins: ", ": Origins: ", ": Origins: ", ": Origins: ", ": Origins: "}},
		{"port above all", wsproxy.Config{Target: "ws://h:99999"}, []string{"wsproxy: Target: must have a port between 1 and 65535"}},
		{"port 0", wsproxy.Config{Target: "wss://h:0"}, []string{"wsproxy: Target: must have a port between 1 and 65535"}},
		{"host with <", wsproxy.Config{Target: "wss://a<b/"}, []string{"wsproxy: Target: must have a name in ASCII or an address"}},
		{"host with a quotation mark", wsproxy.Config{Target: `wss://a"b`}, []string{"wsproxy: Target: must have a name in ASCII or an address"}},
		{"host of brackets", wsproxy.Config{Target: "ws://]]"}, []string{"wsproxy: Target: must have a name in ASCII or an address"}},
		{"brackets in Host", wsproxy.Config{Target: "ws://x", Host: "]]"}, []string{"wsproxy: Host: must be a host"}},
		{"a query with a space", wsproxy.Config{Target: "ws://x/?a b"}, []string{"wsproxy: Target: must have the characters of its query encoded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := wsproxy.New(c.cfg)
			if err == nil || p != nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(lines), len(c.want), err)
			}
			for i, want := range c.want {
				if !strings.Contains(lines[i], want) || !strings.HasPrefix(lines[i], "wsproxy: ") || !strings.Contains(lines[i], "(got ") {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Error("a secret is shown")
			}
		})
	}
	for _, target := range []string{"ws://x", "wss://x:1/p?q", "unix:///run/x.sock", "unix:x.sock", "ws://[2001:db8::1]"} {
		if _, err := wsproxy.New(wsproxy.Config{Target: target}); err != nil {
			t.Error(err)
		}
	}
}

// Every kind has a status and a code of its own, and nothing of Err is shown.
func TestErrors(t *testing.T) {
	codes := map[string]wsproxy.Kind{}
	for kind := wsproxy.NotHandshake; kind <= wsproxy.Slow; kind++ {
		e := &wsproxy.Error{Kind: kind, Err: errors.New("inner detail")}
		if other, ok := codes[e.Code()]; ok {
			t.Errorf("%d and %d have the code %s", kind, other, e.Code())
		}
		codes[e.Code()] = kind
		w := httptest.NewRecorder()
		wsproxy.WriteError(w, httptest.NewRequest("GET", "/", nil), e)
		if w.Code != e.HTTPStatus() || w.Code < 400 || strings.Contains(w.Body.String(), "inner") || !strings.Contains(w.Body.String(), e.Code()) {
			t.Errorf("%d: %d %s", kind, w.Code, w.Body)
		}
		if !strings.HasPrefix(e.Error(), "wsproxy: ") || !strings.HasSuffix(e.Error(), ": inner detail") || !errors.Is(e, e.Err) {
			t.Error(e)
		}
	}
	if e := (&wsproxy.Error{Kind: 99}); e.HTTPStatus() != 500 || e.Code() != "internal" {
		t.Error(e)
	}
}

// Prepare sets what is not set, refuses what is too large, and leaves servers
// without HTTP/2 alone. This binary imports xconnect.
func TestPrepare(t *testing.T) {
	off := new(http.Protocols)
	off.SetHTTP1(true)
	for _, c := range []struct {
		name               string
		srv                *http.Server
		stream, connection int
		ok                 bool
	}{
		{"negative stream", &http.Server{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: -1}}, -1, 0, false},
		{"negative connection", &http.Server{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: -1}}, 0, -1, false},
		{"defaults", &http.Server{}, 128 << 10, 1 << 20, true},
		{"set", &http.Server{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 512 << 10}}, 64 << 10, 512 << 10, true},
		{"stream too large", &http.Server{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 20}}, 1 << 20, 0, false},
		{"connection too small", &http.Server{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 200 << 10}}, 0, 200 << 10, false},
	} {
		before := c.srv.HTTP2
		err := wsproxy.Prepare(c.srv)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.srv.HTTP2 == nil || c.srv.HTTP2.MaxReceiveBufferPerStream != c.stream || c.srv.HTTP2.MaxReceiveBufferPerConnection != c.connection {
			t.Errorf("%s: %+v", c.name, c.srv.HTTP2)
		}
		if c.ok && before != nil && before == c.srv.HTTP2 {
			t.Errorf("%s: the caller's HTTP2Config was changed", c.name)
		}
		if c.ok && c.srv.HTTP2.WriteByteTimeout != 30*time.Second {
			t.Errorf("%s: WriteByteTimeout %v", c.name, c.srv.HTTP2.WriteByteTimeout)
		}
	}
	for _, d := range []time.Duration{time.Hour, -1} {
		srv := &http.Server{HTTP2: &http.HTTP2Config{WriteByteTimeout: d}}
		if err := wsproxy.Prepare(srv); err != nil || srv.HTTP2.WriteByteTimeout != d {
			t.Error(err, srv.HTTP2.WriteByteTimeout)
		}
	}
	for _, srv := range []*http.Server{{Protocols: off}, {TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}} {
		if err := wsproxy.Prepare(srv); err != nil || srv.HTTP2 != nil {
			t.Error(err, srv.HTTP2)
		}
	}
}
