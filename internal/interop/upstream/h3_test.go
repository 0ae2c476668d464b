package upstream_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"example.com/plainware/upstream"
	"example.com/plainware/upstream/h3"
)

// serveH3 serves h over HTTP/3 with quic-go's server, under the certificate of
// lender.
func serveH3(t *testing.T, h http.Handler, lender server) (addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: lender.certs})}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(pc) }()
	t.Cleanup(func() { s.Close(); pc.Close(); <-done })
	return pc.LocalAddr().String()
}

// A back end that speaks HTTP/3, behind clients of HTTP/1.1 and HTTP/2.
func TestHTTP3Behind(t *testing.T) {
	lender := serve(t, nil, true)
	factory, err := h3.New(h3.Config{TLS: &tls.Config{RootCAs: lender.roots}})
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, upstream.Config{Transport: factory.Transport}, "h3://"+serveH3(t, origin(), lender))
	front := serve(t, newProxy(t, pool), false)
	exercise(t, newClient(t, false), front.url, chain{trailers: true, cuts: true})
	exercise(t, newClient(t, true), front.url, chain{trailers: true, cuts: true})
}

// A client that speaks HTTP/3, in front of back ends of HTTP/1.1 and HTTP/2.
func TestHTTP3InFront(t *testing.T) {
	lender := serve(t, nil, true)
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			pool := newPool(t, upstream.Config{}, scheme+"://"+serve(t, origin(), false).addr)
			addr := serveH3(t, newProxy(t, pool), lender)
			tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: lender.roots}, DisableCompression: true}
			t.Cleanup(func() { tr.Close() })
			c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			exercise(t, c, "https://"+addr, chain{trailers: true, cuts: true})
		})
	}
}
