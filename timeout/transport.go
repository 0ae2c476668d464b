package timeout

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

// TransportConfig configures a [Transport].
type TransportConfig struct {
	// Base does the round trips; nil is http.DefaultTransport.
	Base http.RoundTripper

	// Header is the field to write, one of those that [DeadlineConfig] lists;
	// empty is Request-Timeout.
	Header string

	// Margin is the time that is kept back for the way to the server and
	// back; zero or negative is none.
	Margin time.Duration
}

// Transport tells servers how long the caller will wait: it writes what is left
// of the request context's deadline, less the margin, into a header field. A
// value that is already there stays if it is shorter. Where nothing is left it
// fails with context.DeadlineExceeded and sends nothing; less than a millisecond
// is sent as one by the formats that have no finer unit. A request without a
// deadline passes untouched. It is safe for concurrent use.
type Transport struct {
	base   http.RoundTripper
	name   string
	format format
	margin time.Duration
}

// NewTransport returns a Transport. The error names the field that is wrong.
func NewTransport(cfg TransportConfig) (*Transport, error) {
	t := &Transport{base: cfg.Base, name: http.CanonicalHeaderKey(cfg.Header), margin: max(cfg.Margin, 0)}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	if t.name == "" {
		t.name = "Request-Timeout"
	}
	var ok bool
	if t.format, ok = headerFormats[t.name]; !ok {
		return nil, fmt.Errorf("timeout: Header: must be one of %s (got %q)", strings.Join(knownHeaders, ", "), cfg.Header)
	}
	return t, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline, ok := r.Context().Deadline()
	if !ok || r.Header == nil { // no header map is an error, and Base's to report
		return t.base.RoundTrip(r)
	}
	left := time.Until(deadline) - t.margin
	if left <= 0 {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, context.DeadlineExceeded
	}
	if v := r.Header[t.name]; len(v) == 1 {
		if d, ok := t.format.parse(v[0]); ok && d <= left {
			return t.base.RoundTrip(r)
		}
	}
	r2 := r.WithContext(r.Context())
	r2.Header = maps.Clone(r.Header)
	r2.Header[t.name] = []string{string(t.format.append(nil, left))}
	return t.base.RoundTrip(r2)
}

// CloseIdleConnections closes those of the base, where it has such a method.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
