// Package wsproxy_test lets a Proxy work with programs and libraries that
// others have written: as its clients, as its back ends, and as the proxies in
// front of it and behind.
package wsproxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/plainware/wsproxy"
	_ "example.com/plainware/wsproxy/xconnect"
)

// patience bounds one exchange on a busy machine.
const patience = 30 * time.Second

// server is a running HTTP server, with TLS or without, that speaks HTTP/1.1
// and HTTP/2.
type server struct {
	addr  string // host:port
	roots *x509.CertPool
	certs []tls.Certificate
}

func serve(t testing.TB, h http.Handler, secure bool) server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // connections end in every way
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetHTTP2(secure)
	s.Config.Protocols.SetUnencryptedHTTP2(!secure)
	if err := wsproxy.Prepare(s.Config); err != nil {
		t.Fatal(err)
	}
	out := server{}
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
		out.certs = s.TLS.Certificates
		out.roots = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	} else {
		s.Start()
	}
	out.addr = s.Listener.Addr().String()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return out
}

func (s server) scheme() string {
	if s.roots != nil {
		return "wss"
	}
	return "ws"
}

// url is where a client connects to.
func (s server) url(path string) string { return s.scheme() + "://" + s.addr + path }

// startProxy serves a Proxy for a back end.
func startProxy(t testing.TB, target server, secure bool, cfg wsproxy.Config) server {
	t.Helper()
	cfg.Target = target.url("")
	if target.roots != nil {
		cfg.TLS = &tls.Config{RootCAs: target.roots}
	}
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	p, err := wsproxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, p, secure)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// conn is a WebSocket in the hands of a client library.
type conn interface {
	send(text bool, p []byte) error
	recv() (text bool, p []byte, err error) // err is closed after a Close
	// close does the closing handshake and returns the code of the answer.
	close(code int, reason string) (int, error)
	end()
}

// closed is the Close of the peer.
type closed struct {
	code   int
	reason string
}

func (c closed) Error() string { return fmt.Sprintf("closed with %d %q", c.code, c.reason) }

// client opens a WebSocket with a library.
type client func(ctx context.Context, url string, cfg *tls.Config, subprotocol string) (c conn, chosen string, err error)

// messages are what the tests exchange: sizes at which frames change their
// form, text beyond ASCII, and what compresses well and not at all.
func messages() []struct {
	text    bool
	payload []byte
} {
	random := make([]byte, 300<<10)
	x := uint32(1)
	for i := range random {
		x = x*1664525 + 1013904223
		random[i] = byte(x >> 24)
	}
	return []struct {
		text    bool
		payload []byte
	}{
		{true, []byte("hello")},
		{true, []byte("κόσμε, 世界, 🙂")},
		{true, bytes.Repeat([]byte("a"), 125)},
		{true, bytes.Repeat([]byte("b"), 126)},
		{false, random[:65535]},
		{false, random[:65536]},
		{true, []byte(strings.Repeat("the same again ", 20000))},
		{false, random},
	}
}

// exercise opens a WebSocket to an echo server and uses all of it.
func exercise(t *testing.T, open client, url string, cfg *tls.Config) {
	t.Helper()
	for _, end := range []struct {
		path string
		by   string
	}{{"/echo", "client"}, {"/close", "server"}} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, chosen, err := open(ctx, url+end.path, cfg, "chat")
		if err != nil {
			t.Errorf("open: %v", err)
			return
		}
		defer c.end()
		if chosen != "chat" {
			t.Errorf("the subprotocol is %q", chosen)
		}
		for i, m := range messages() {
			if err := c.send(m.text, m.payload); err != nil {
				t.Errorf("message %d: %v", i, err)
				return
			}
			text, p, err := c.recv()
			if err != nil || text != m.text || !bytes.Equal(p, m.payload) {
				t.Errorf("message %d: text %t, %d bytes, %v; want %t, %d", i, text, len(p), err, m.text, len(m.payload))
				return
			}
		}
		if end.by == "client" {
			if code, err := c.close(4321, "done"); err != nil || code != 4321 {
				t.Errorf("Close by the client: %d, %v", code, err)
			}
			continue
		}
		if err := c.send(true, []byte("close")); err != nil {
			t.Error(err)
		}
		if _, _, err := c.recv(); err != (closed{4001, "server says so"}) {
			t.Errorf("Close by the server: %v", err)
		}
	}
}

// closesOn reports whether an echo server must close instead of answering.
func closesOn(r *http.Request, message []byte) bool {
	return strings.HasSuffix(r.URL.Path, "/close") && string(message) == "close"
}
