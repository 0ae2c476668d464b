package wsproxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/wsproxy"
)

// proxied is a proxy with its server in front and a back end behind.
type proxied struct {
	*server
	proxy *wsproxy.Proxy
	pools *wsproxy.Audit
	back  *backEnd
}

// pair is one combination of what a tunnel can run through.
type pair struct {
	front  front
	tls    bool // to the back end
	memory bool // both networks are in memory; otherwise they are TCP
	mode   wsproxy.Mode
	detach bool // only differs over HTTP/1.1
}

func (p pair) String() string {
	s := p.front.String() + " to ws"
	if p.tls {
		s += "s"
	}
	s += ", " + p.mode.String()
	if p.detach {
		s += ", detached"
	}
	if p.memory {
		s += ", in memory"
	}
	return s
}

// pairs are all combinations. In a synctest bubble only those in memory work.
func pairs(memory ...bool) []pair {
	var all []pair
	for _, m := range memory {
		for _, f := range fronts() {
			for _, withTLS := range []bool{false, true} {
				for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
					all = append(all, pair{f, withTLS, m, mode, false})
					if !f.h2() {
						all = append(all, pair{f, withTLS, m, mode, true})
					}
				}
			}
		}
	}
	return all
}

// eachPair runs a test for every combination, those with TCP for real.
func eachPair(t *testing.T, ps []pair, f func(*testing.T, pair)) {
	t.Helper()
	for _, p := range ps {
		t.Run(p.String(), func(t *testing.T) { f(t, p) })
	}
}

func (p pair) listen(t testing.TB) listener {
	if p.memory {
		return memnet.Listen()
	}
	return listenTCP(t)
}

// start puts a proxy with cfg, to which it adds the target, between its front
// and a back end that runs serve.
func (p pair) start(t testing.TB, cfg wsproxy.Config, serve func(*backConn)) *proxied {
	t.Helper()
	return p.startServer(t, cfg, &http.Server{}, serve)
}

// startServer is start with a server of the test's own, whose handler is the
// proxy if it has none.
func (p pair) startServer(t testing.TB, cfg wsproxy.Config, srv *http.Server, serve func(*backConn)) *proxied {
	t.Helper()
	x := &proxied{back: startBack(t, p.listen(t), p.tls, serve)}
	cfg.Mode, cfg.Detach = p.mode, p.detach
	x.proxy, x.pools = newProxy(t, toBack(cfg, x.back))
	x.server = serveProxy(t, p.front, p.listen(t), x.proxy, srv)
	return x
}

// toBack returns cfg with a back end as its target.
func toBack(cfg wsproxy.Config, b *backEnd) wsproxy.Config {
	cfg.Target = b.url()
	cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return b.l.Dial(ctx) }
	if b.tls {
		_, roots := certificate()
		cfg.TLS = &tls.Config{RootCAs: roots}
	}
	return cfg
}

// startProxy serves a proxy until the test ends.
func startProxy(t testing.TB, f front, l listener, cfg wsproxy.Config, srv *http.Server) (*server, *wsproxy.Proxy) {
	t.Helper()
	p, _ := newProxy(t, cfg)
	return serveProxy(t, f, l, p, srv), p
}

// newProxy makes a proxy that is closed when the test ends. Then every buffer
// is to be back, whatever the test was about.
func newProxy(t testing.TB, cfg wsproxy.Config) (*wsproxy.Proxy, *wsproxy.Audit) {
	t.Helper()
	p, err := wsproxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pools := wsproxy.AuditPools(p)
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), pools.Check()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p, pools
}

func serveProxy(t testing.TB, f front, l listener, p *wsproxy.Proxy, srv *http.Server) *server {
	t.Helper()
	if srv.Handler == nil {
		srv.Handler = p
	}
	srv.Protocols = f.protocols()
	if err := wsproxy.Prepare(srv); err != nil {
		t.Fatal(err)
	}
	return serveFront(t, f, l, srv)
}
