package upstream_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
)

// tlsServer is a server over a real socket that offers both protocols by ALPN.
type tlsServer struct {
	addr string
	tls  *tls.Config
}

func serveTLSBoth(t *testing.T, srv *http.Server) tlsServer {
	ts := httptest.NewUnstartedServer(srv.Handler)
	ts.EnableHTTP2 = true
	ts.StartTLS()
	t.Cleanup(ts.Close)
	return tlsServer{ts.Listener.Addr().String(), &tls.Config{RootCAs: ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
}
