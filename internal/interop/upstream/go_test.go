package upstream_test

import (
	"crypto/tls"
	"testing"

	"example.com/plainware/upstream"
)

// net/http's own server behind the Proxy, by each scheme: what the chains
// with other programs are compared with.
func TestGo(t *testing.T) {
	all := chain{trailers: true, cuts: true}
	for _, scheme := range []string{"http", "h2c", "https", "h2"} {
		t.Run(scheme, func(t *testing.T) {
			secure := scheme == "https" || scheme == "h2"
			back := serve(t, origin(), secure)
			cfg := upstream.Config{}
			if secure {
				cfg.TLS = &tls.Config{RootCAs: back.roots}
			}
			front := serve(t, newProxy(t, newPool(t, cfg, scheme+"://"+back.addr)), false)
			exercise(t, newClient(t, false), front.url, all)
			exercise(t, newClient(t, true), front.url, all)
		})
	}
}
