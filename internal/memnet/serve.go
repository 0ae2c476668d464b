package memnet

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Proto is a version of HTTP together with its transport.
type Proto int

const (
	HTTP1 Proto = iota // HTTP/1.1 without TLS
	HTTP2              // HTTP/2 over TLS
	H2C                // HTTP/2 without TLS, with prior knowledge
)

// Protos returns all of them, for tests that run over each.
func Protos() []Proto { return []Proto{HTTP1, HTTP2, H2C} }

// String returns a name that suits a subtest.
func (p Proto) String() string {
	switch p {
	case HTTP2:
		return "HTTP2"
	case H2C:
		return "H2C"
	}
	return "HTTP1"
}

// set makes p the only one of protos.
func (p Proto) set(protos *http.Protocols) {
	protos.SetHTTP1(p == HTTP1)
	protos.SetHTTP2(p == HTTP2)
	protos.SetUnencryptedHTTP2(p == H2C)
}

// Server is a running http.Server with a client for it.
type Server struct {
	Proto     Proto
	URL       string          // scheme and authority, without a slash at the end
	Client    *http.Client    // over Transport, no timeout
	Transport *http.Transport // may be changed before its first use
	Listener  *Listener       // for connections of the test's own
	HTTP      *http.Server    // the server given to Serve

	t     testing.TB
	roots *x509.CertPool // nil without TLS
}

// Serve starts srv on a listener of its own, speaking p and nothing else, and
// stops it when the test ends. It sets the server's Protocols, gives its
// TLSConfig a certificate, and sends ErrorLog to the test's log if that is
// nil; every other field is the caller's. In a synctest bubble t must be the
// bubble's.
//
// At the end all connections are closed, which cancels the requests under
// way, and the test waits for the goroutines that serve them: up to 500 ms
// (of fake time in a bubble) where the server left a body unread, and for
// ever if a handler does not return.
func Serve(t testing.TB, p Proto, srv *http.Server) *Server {
	t.Helper()
	return Listen().Serve(t, p, srv)
}

// Serve is the package's Serve on this listener.
func (l *Listener) Serve(t testing.TB, p Proto, srv *http.Server) *Server {
	t.Helper()
	s := &Server{Proto: p, URL: "http://" + l.addr.String(), Listener: l, HTTP: srv, t: t}
	srv.Protocols = new(http.Protocols)
	p.set(srv.Protocols)
	logged := &testLog{t: t}
	if srv.ErrorLog == nil {
		srv.ErrorLog = log.New(logged, "", 0)
	}
	serve := srv.Serve
	if p == HTTP2 {
		cert, roots, err := certify(l.addr.IP)
		if err != nil {
			t.Fatalf("memnet: certificate: %v", err)
		}
		s.roots = roots
		s.URL = "https://" + l.addr.String()
		if srv.TLSConfig == nil {
			srv.TLSConfig = new(tls.Config)
		}
		srv.TLSConfig.Certificates = []tls.Certificate{cert}
		serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	// In a bubble a goroutine that still sleeps when the test ends is an
	// error, and the server's own sleep for half a second before it closes a
	// connection with an unread body.
	var conns sync.WaitGroup
	hook := srv.ConnState
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		if hook != nil {
			hook(c, state)
		}
		switch state {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		}
	}
	done := make(chan error, 1)
	go func() { done <- serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		l.Close() // in case that Serve had not taken it yet
		// A test may close the listener, to be a server that is gone.
		if err := <-done; err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
			t.Errorf("memnet: Serve returned %v", err)
		}
		conns.Wait()
		logged.end()
	})
	s.Transport = s.NewTransport()
	s.Client = &http.Client{Transport: s.Transport}
	return s
}

// NewTransport returns a further transport for the server, with connections
// of its own. Its idle connections are closed when the test ends.
func (s *Server) NewTransport() *http.Transport {
	tr := &http.Transport{
		DialContext: s.Listener.DialContext,
		Protocols:   new(http.Protocols),
	}
	s.Proto.set(tr.Protocols)
	if s.roots != nil {
		tr.TLSClientConfig = &tls.Config{RootCAs: s.roots}
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// certify makes a certificate for ip and the pool that verifies it. Its
// validity covers the real time as well as the year 2000, where the clock of
// a synctest bubble starts.
func certify(ip net.IP) (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // so that it verifies itself
		IPAddresses:           []net.IP{ip},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots, nil
}

// testLog writes to the test's log until the test ends. A connection may
// outlive the cleanup by a moment, and testing panics on a late Log.
type testLog struct {
	mu    sync.Mutex
	t     testing.TB
	ended bool
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.t.Logf("http.Server: %s", bytes.TrimSpace(p))
	}
	return len(p), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}
