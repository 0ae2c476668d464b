package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
)

// TransportConfig configures a [Transport].
type TransportConfig struct {
	// Base makes the calls. nil is [http.DefaultTransport].
	Base http.RoundTripper

	// Scheme is how to sign, a preset or one of your own whose signature is in
	// the header. The zero Scheme is [StandardWebhooks], which receivers have
	// libraries for in most languages.
	Scheme Scheme

	// Keys sign, each for itself where the scheme has room for several
	// signatures: during a rotation the new one and the old. Required. A
	// receiver with secrets of its own needs a Transport of its own.
	Keys []Key

	// MaxBody is the longest body in bytes, at most 1 GiB; a longer one is an
	// error. It is held in memory. Zero is 1 MiB.
	MaxBody int64
}

// Transport is an [http.RoundTripper] that signs each request it sends, for
// programs that send webhooks.
//
// The ID of a delivery is that in the scheme's ID field, if the request has
// one: set it when a delivery may be tried again, so that the receiver knows it
// for the same. Otherwise each request gets a random one. The time is that of
// the call. The request itself is not modified.
//
// What a redirect leads to is signed, too: a client that sends webhooks should
// follow none.
type Transport struct {
	base    http.RoundTripper
	scheme  *compiled
	ring    *keyring
	maxBody int64
}

// NewTransport returns a Transport, or an error that names every problem in c.
func NewTransport(c TransportConfig) (*Transport, error) {
	if z := &c.Scheme; z.Name == "" && z.Header == "" && z.Algorithm == 0 && z.Verify == nil && z.err == nil {
		c.Scheme = StandardWebhooks()
	}
	s, err := c.Scheme.compile()
	errs := []error{err}
	if s.Verify != nil && s.Sign == nil {
		errs = append(errs, fmt.Errorf("webhook: Scheme: cannot sign (got %q)", s.Name))
	}
	if len(c.Keys) == 0 {
		errs = append(errs, errors.New("webhook: Keys: is required (got none)"))
	}
	for i, k := range c.Keys {
		if err := s.check(k, s.MinSecret); err != nil {
			errs = append(errs, fmt.Errorf("webhook: Keys[%d]: %w", i, err))
		} else if k.public != nil && k.signer == nil {
			errs = append(errs, fmt.Errorf("webhook: Keys[%d]: must be a PrivateKey", i))
		}
	}
	if what := s.crowded(len(c.Keys)); what != "" {
		errs = append(errs, fmt.Errorf("webhook: Keys: the scheme %s", what))
	}
	switch {
	case c.MaxBody < 0 || c.MaxBody > mostMaxBody:
		errs = append(errs, fmt.Errorf("webhook: MaxBody: must be between 0 and 1 GiB (got %d)", c.MaxBody))
	case c.MaxBody == 0:
		c.MaxBody = defaultMaxBody
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	return &Transport{base: c.Base, scheme: s, ring: newKeyring(s.Algorithm, slices.Clone(c.Keys)), maxBody: c.MaxBody}, nil
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL == nil || r.Header == nil { // errors that the base knows
		return t.base.RoundTrip(r)
	}
	body, err := t.read(r)
	if err != nil {
		return nil, err
	}
	o := &Outgoing{Method: r.Method, URL: target(r), Header: maps.Clone(r.Header), Body: body}
	if o.Method == "" {
		o.Method = http.MethodGet // of a client's request
	}
	if t.scheme.IDHeader != "" {
		if lines := r.Header[t.scheme.IDHeader]; len(lines) > 0 {
			o.ID = lines[0]
		}
	}
	if err := t.scheme.sign(o, t.ring.keys()); err != nil {
		return nil, err
	}
	out := r.WithContext(r.Context())
	out.Header = o.Header
	restore(out, o.Body)
	if len(r.Trailer) > 0 {
		out.ContentLength = -1 // trailers need a chunked body
	}
	return t.base.RoundTrip(out)
}

// target is the URL of r as its receiver knows it (RFC 9110 section 7.1): with
// the host of the Host field, and without what is not sent.
func target(r *http.Request) string {
	u := *r.URL
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if r.Host != "" {
		u.Host = r.Host
	}
	if u.Path == "" && u.Opaque == "" {
		u.Path = "/"
	}
	return u.String()
}

// read reads and closes the body of r.
func (t *Transport) read(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	// A Read may not return before the sender of the body is done, whatever
	// becomes of the request; closing the body is what wakes it.
	stop := context.AfterFunc(r.Context(), func() { r.Body.Close() })
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(r.Body, t.maxBody+1))
	stop()
	r.Body.Close()
	switch {
	case r.Context().Err() != nil:
		return nil, context.Cause(r.Context())
	case err != nil:
		return nil, err
	case int64(b.Len()) > t.maxBody:
		return nil, errors.New("webhook: the body of the request is longer than MaxBody")
	case r.ContentLength >= 0 && int64(b.Len()) != r.ContentLength && r.ContentLength != 0:
		return nil, fmt.Errorf("webhook: the request has a body of %d bytes and says %d", b.Len(), r.ContentLength)
	}
	return b.Bytes(), nil
}

// CloseIdleConnections closes the idle connections of the base transport, if it
// knows how. [http.Client.CloseIdleConnections] asks for it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
