package reqid

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"example.com/plainware/internal/clientip"
)

// DefaultHeader is the header field that Config.Header and
// TransportConfig.Header name when they are empty.
const DefaultHeader = "X-Request-Id"

// Config configures a [Middleware]. The zero Config is useful: it keeps any
// valid ID in X-Request-Id and makes a UUID of version 7 for requests without.
//
// Functions are called from the goroutine that serves the request and must be
// safe for concurrent use.
type Config struct {
	// Header is the field that carries the ID: read from the request, written
	// to the response and to the request. It must be a field name (RFC 9110,
	// section 5.1) with no meaning of its own to HTTP or to this package:
	// Connection, Content-Length, Host, Keep-Alive, Proxy-Connection, TE,
	// Traceparent, Tracestate, Trailer, Transfer-Encoding and Upgrade are
	// refused. Case does not matter. "" is [DefaultHeader].
	Header string

	// Also are further fields to read an ID from, in this order, when the
	// request has no Header: X-Correlation-Id, Request-Id. The same rules
	// apply, and no name may repeat. They are only read: a request leaves the
	// middleware with its ID in Header, and a field of Also survives only
	// where its one value is that ID. nil is none.
	Also []string

	// Trust reports whether the sender of a request may name it. It is called
	// at most once a request, and only when there is a valid ID or trace to
	// judge. An ID that it refuses becomes [ClientID]; a trace that it refuses
	// is not continued. nil trusts everybody, which is right behind a proxy of
	// your own and for IDs that only label; at an edge use [TrustNone] or
	// [TrustPrefixes].
	Trust func(*http.Request) bool

	// Valid reports whether an inbound value is an ID at all. A value that is
	// not is dropped without a trace. nil is the function [Valid].
	//
	// Valid can be stricter or laxer than the default, within one bound that
	// nothing lifts: 1 to 512 bytes of visible ASCII, no space. It is not
	// called for anything else.
	Valid func(string) bool

	// Generate makes the ID of a request that brings none. nil is [V7]. Its
	// result is not passed to Valid, which judges strangers, but where it
	// exceeds the bound of visible ASCII described there, the request gets a
	// V7 instead.
	Generate func() string

	// HideResponse leaves the response header alone. [net/http/httputil.ReverseProxy]
	// adds the fields of its back end to those already set; see the package
	// comment.
	HideResponse bool

	// Trace carries W3C trace context through a service that records no spans
	// itself: see [Trace]. Without it, traceparent and tracestate are neither
	// read nor written.
	Trace bool
}

// check returns every problem of the configuration and the canonical names of
// the header fields.
func (c Config) check() (header string, also []string, err error) {
	var errs []error
	header, err = fieldName("Header", c.Header)
	if err != nil {
		errs = append(errs, err)
	}
	for i, name := range c.Also {
		at := fmt.Sprintf("Also[%d]", i)
		if name == "" {
			errs = append(errs, fmt.Errorf(`reqid: %s: is empty (got "")`, at))
			continue
		}
		key, err := fieldName(at, name)
		switch {
		case err != nil:
			errs = append(errs, err)
		case key == header:
			errs = append(errs, fmt.Errorf("reqid: %s: repeats Header (got %q)", at, name))
		case slices.Contains(also, key):
			errs = append(errs, fmt.Errorf("reqid: %s: repeats an earlier name (got %q)", at, name))
		default:
			also = append(also, key)
		}
	}
	return header, also, errors.Join(errs...)
}

// fieldName returns the canonical form of a configured header field, which the
// error calls field.
func fieldName(field, name string) (string, error) {
	if name == "" {
		return DefaultHeader, nil
	}
	for i := range len(name) {
		if !tokenByte[name[i]] {
			return "", fmt.Errorf("reqid: %s: is not a header field name (got %q)", field, name)
		}
	}
	key := http.CanonicalHeaderKey(name)
	switch key {
	case "Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return "", fmt.Errorf("reqid: %s: belongs to HTTP itself (got %q)", field, name)
	case traceparentKey, tracestateKey:
		return "", fmt.Errorf("reqid: %s: carries traces, not IDs; set Trace (got %q)", field, name)
	}
	return key, nil
}

// tokenByte is tchar of RFC 9110, section 5.6.2.
var tokenByte = byteSet("!#$%&'*+-.^_`|~ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")

// TrustNone is a [Config.Trust] that lets no sender name a request: every
// request gets a new ID, and its own valid one becomes [ClientID].
func TrustNone(*http.Request) bool { return false }

// TrustPrefixes returns a [Config.Trust] that believes requests whose peer, by
// RemoteAddr, has an address in one of the prefixes. X-Forwarded-For is never
// read: a sender cannot vouch for itself. An IPv4-mapped IPv6 address is the
// IPv4 address that it stands for, zones do not matter, and a peer on a unix
// socket has no address and is not trusted. An invalid prefix contains nothing,
// and without prefixes TrustPrefixes is [TrustNone].
func TrustPrefixes(prefixes ...netip.Prefix) func(*http.Request) bool {
	prefixes = slices.Clone(prefixes)
	return func(r *http.Request) bool {
		peer, ok := clientip.Peer(r)
		return ok && clientip.Contains(prefixes, peer)
	}
}
