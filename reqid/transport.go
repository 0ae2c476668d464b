package reqid

import (
	"maps"
	"net/http"
)

// TransportConfig configures a [Transport].
type TransportConfig struct {
	// Base makes the calls. nil is [http.DefaultTransport].
	Base http.RoundTripper

	// Header is the field that carries the ID, under the rules of
	// [Config.Header]. "" is [DefaultHeader].
	Header string

	// Only reports whether the receiver of a request may learn the ID and the
	// trace. It is called with the request as the caller made it, for each
	// redirect anew, and must be safe for concurrent use. nil is everybody: set
	// it on a client that calls strangers.
	Only func(*http.Request) bool
}

// Transport is an [http.RoundTripper] that passes the ID of the request being
// served on to the requests that are made with its context.
//
// It sets the header when the context has an ID and the request has no such
// field. It never makes an ID and never overwrites one; a field present without
// a value keeps a request free of it. Where the context has a trace ([Trace])
// and the request neither traceparent nor tracestate, it sets both: the same
// trace, flags and state with a new span ID for each request. A request that has
// one of the two is left alone, so OpenTelemetry's transport can stand on
// either side.
//
// The request is not modified: what is sent is a copy with a header map of its
// own. A request to which nothing is added is passed on as it is, at no cost.
type Transport struct {
	base   http.RoundTripper
	header string
	allow  func(*http.Request) bool
}

// NewTransport returns a Transport, or an error that names every problem in c.
func NewTransport(c TransportConfig) (*Transport, error) {
	header, err := fieldName("Header", c.Header)
	if err != nil {
		return nil, err
	}
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	return &Transport{base: c.Base, header: header, allow: c.Only}, nil
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	s := stateOf(r.Context())
	if s == nil || r.Header == nil { // which is an error that the base knows
		return t.base.RoundTrip(r)
	}
	_, hasID := r.Header[t.header]
	_, hasParent := r.Header[traceparentKey]
	_, hasState := r.Header[tracestateKey]
	traces := s.trace != nil && !hasParent && !hasState
	if hasID && !traces || t.allow != nil && !t.allow(r) {
		return t.base.RoundTrip(r)
	}

	out := r.WithContext(r.Context())
	out.Header = maps.Clone(r.Header)
	if !hasID {
		out.Header[t.header] = []string{s.id}
	}
	if traces {
		span := hexText(newSpan())
		out.Header[traceparentKey] = []string{s.trace.traceparent(string(span[:]))}
		if s.trace.State != "" {
			out.Header[tracestateKey] = []string{s.trace.State}
		}
	}
	return t.base.RoundTrip(out)
}

// CloseIdleConnections closes the idle connections of the base transport, if it
// knows how. [http.Client.CloseIdleConnections] asks for it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
