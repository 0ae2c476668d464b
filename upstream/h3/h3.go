// Package h3 gives an [upstream.Pool] back ends that speak HTTP/3, over
// quic-go. A target of the scheme h3 is spoken to in HTTP/3 and nothing else;
// all others stay the Pool's own.
//
//	quic, err := h3.New(h3.Config{})
//	pool, err := upstream.New(upstream.Config{
//		Targets:   []upstream.Target{{URL: "h3://10.0.0.7:443", ServerName: "app.example", Host: "app.example"}},
//		Transport: quic.Transport,
//	})
//
// Each target has one QUIC connection, which is made when it is needed and made
// again when it is lost. Of [upstream.Conns], MaxInFlight, the queue and
// HeaderTimeout hold, and what is about connections does not. The Pool closes
// the connections when it is closed or the target is gone.
//
// It is a package of its own because of what it requires: importing upstream
// alone does not compile quic-go into a program.
package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"example.com/plainware/upstream"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Config configures [New]. The zero Config is ready for use.
type Config struct {
	// TLS is cloned for each target; nil is the default of crypto/tls. The
	// server's name is the target's, NextProtos is set, and TLS 1.3 is what
	// QUIC demands.
	TLS *tls.Config

	// HandshakeTimeout is how long a server may be silent while a connection is
	// made; zero is 5 s. The handshake as a whole may take twice that, as
	// quic-go's HandshakeIdleTimeout has it.
	HandshakeTimeout time.Duration

	// IdleTimeout is how long a connection is kept without use; zero is 30 s.
	IdleTimeout time.Duration

	// KeepAlive is how often an idle connection that carries requests is kept
	// alive; zero is 10 s, negative is never. At most half of IdleTimeout.
	KeepAlive time.Duration

	// MaxResponseHeader is the size of a response header in bytes beyond which
	// the response is refused; zero is 1 MiB. At least 4096.
	MaxResponseHeader int
}

// Factory makes trippers for targets of the scheme h3.
type Factory struct {
	cfg  Config
	quic quic.Config
}

// New returns a Factory. The error lists every field that is wrong.
func New(cfg Config) (*Factory, error) {
	var errs []error
	bad := func(field, wrong string, got any) {
		errs = append(errs, fmt.Errorf("h3: %s: %s (got %v)", field, wrong, got))
	}
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"HandshakeTimeout", &cfg.HandshakeTimeout, 5 * time.Second},
		{"IdleTimeout", &cfg.IdleTimeout, 30 * time.Second},
	} {
		if *d.value < 0 {
			bad(d.field, "must not be negative", *d.value)
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = min(10*time.Second, cfg.IdleTimeout/2)
	}
	if cfg.KeepAlive > cfg.IdleTimeout/2 {
		bad("KeepAlive", "must be at most half of IdleTimeout", cfg.KeepAlive)
	}
	if cfg.MaxResponseHeader == 0 {
		cfg.MaxResponseHeader = 1 << 20
	}
	if cfg.MaxResponseHeader < 4096 {
		bad("MaxResponseHeader", "must be at least 4096 bytes", cfg.MaxResponseHeader)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cfg.TLS = cfg.TLS.Clone()
	return &Factory{cfg: cfg, quic: quic.Config{
		HandshakeIdleTimeout: cfg.HandshakeTimeout,
		MaxIdleTimeout:       cfg.IdleTimeout,
		KeepAlivePeriod:      max(cfg.KeepAlive, 0),
	}}, nil
}

// Transport returns the tripper for t, or nil if its scheme is not h3. It is a
// value for [upstream.Config].Transport.
func (f *Factory) Transport(t upstream.Target) (http.RoundTripper, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "h3" {
		return nil, nil // and no business of ours
	}
	cfg := f.cfg.TLS.Clone()
	if cfg == nil {
		cfg = new(tls.Config)
	}
	if t.ServerName != "" {
		cfg.ServerName = t.ServerName
	} else if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	qc := f.quic
	r := &tripper{addr: t.Addr}
	r.transport = &http3.Transport{
		TLSClientConfig:        cfg,
		QUICConfig:             &qc,
		DisableCompression:     true,
		MaxResponseHeaderBytes: f.cfg.MaxResponseHeader,
		Dial:                   r.dial,
	}
	return r, nil
}

// tripper sends requests to one target.
type tripper struct {
	transport *http3.Transport
	addr      string // instead of the URL's; may be empty
}

// dialError marks what went wrong before there was a connection.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

func (r *tripper) dial(ctx context.Context, addr string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
	if r.addr != "" {
		addr = r.addr
	}
	c, err := quic.DialAddr(ctx, addr, tc, qc)
	if err != nil {
		return nil, &dialError{err}
	}
	return c, nil
}

// RoundTrip implements http.RoundTripper.
func (r *tripper) RoundTrip(req *http.Request) (*http.Response, error) {
	out := *req
	u := *req.URL
	u.Scheme = "https"
	out.URL = &u
	res, err := r.transport.RoundTrip(&out)
	if err != nil {
		return nil, verdict(err)
	}
	res.Request = req
	return res, nil
}

// verdict says what is known of a failed request.
func verdict(err error) error {
	if d, ok := errors.AsType[*dialError](err); ok {
		kind := upstream.KindDial
		if t, ok := errors.AsType[*quic.TransportError](err); ok && t.ErrorCode.IsCryptoError() {
			kind = upstream.KindTLS
		}
		return &upstream.Error{Kind: kind, Err: d.err}
	}
	if e, ok := errors.AsType[*http3.Error](err); ok && e.ErrorCode == http3.ErrCodeRequestRejected {
		return &rejected{err}
	}
	return err
}

// rejected is a request that the server says it did not act upon (RFC 9114
// section 8.1, H3_REQUEST_REJECTED).
type rejected struct{ err error }

func (e *rejected) Error() string { return e.err.Error() }
func (e *rejected) Unwrap() error { return e.err }

// NotSent lets the Pool send it to another back end, whatever its method.
func (e *rejected) NotSent() bool { return true }

// CloseIdleConnections closes the connection if it carries no request.
func (r *tripper) CloseIdleConnections() { r.transport.CloseIdleConnections() }

// Close closes the connection. The Pool calls it.
func (r *tripper) Close() error { return r.transport.Close() }
