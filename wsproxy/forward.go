package wsproxy

import (
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"

	"example.com/plainware/internal/clientip"
)

// seen is what is known of the client beyond the request itself.
type seen struct {
	peer    netip.Addr // the other end of the connection, invalid for a socket
	client  netip.Addr // as far as trusted proxies vouch for it
	trusted bool       // the peer is a trusted proxy
	scheme  string     // "http" or "https", as the client used it
	host    string     // the same
}

func (p *Proxy) look(r *http.Request) seen {
	s := seen{scheme: "http", host: r.Host}
	if r.TLS != nil {
		s.scheme = "https"
	}
	s.peer, _ = clientip.Peer(r)
	s.client, _ = clientip.Resolve(r, p.cfg.TrustedProxies)
	s.trusted = s.peer.IsValid() && clientip.Contains(p.cfg.TrustedProxies, s.peer)
	if s.trusted {
		if v := last(r.Header["X-Forwarded-Proto"]); v == "http" || v == "https" {
			s.scheme = v
		}
		if v := last(r.Header["X-Forwarded-Host"]); validHost(v) {
			s.host = v
		}
	}
	return s
}

// last returns the last element of a comma-separated field: what the peer
// itself wrote.
func last(lines []string) (v string) {
	for item := range items(lines) {
		v = item
	}
	return v
}

// outgoing returns the header for the back end: the client's without what is
// hop-by-hop, without the fields of the handshake, which are made anew, and
// with who the client is.
func (s *seen) outgoing(r *http.Request) http.Header {
	h := make(http.Header, len(r.Header)+3)
	for name, values := range r.Header {
		if class := classOf(name); class == fieldOther || class == fieldForwarded && s.trusted {
			h[name] = values[:len(values):len(values)]
		}
	}
	removeNamed(h, r.Header["Connection"])
	peer := "unknown"
	if s.peer.IsValid() {
		peer = s.peer.String()
	}
	prior := h["X-Forwarded-For"]
	h["X-Forwarded-For"] = []string{strings.Join(append(prior, peer), ", ")}
	if len(h["X-Forwarded-Host"]) == 0 {
		h["X-Forwarded-Host"] = []string{r.Host}
	}
	if len(h["X-Forwarded-Proto"]) == 0 {
		h["X-Forwarded-Proto"] = []string{s.scheme}
	}
	if prior := h["Forwarded"]; len(prior) > 0 {
		h["Forwarded"] = []string{strings.Join(prior, ", ") + ", " + s.element(r)}
	}
	return h
}

// element is ours of the field Forwarded: RFC 7239 section 4.
func (s *seen) element(r *http.Request) string {
	node := "unknown"
	switch {
	case s.peer.Is6():
		node = `"[` + s.peer.String() + `]"`
	case s.peer.IsValid():
		node = s.peer.String()
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	e := "for=" + node + ";proto=" + proto
	if validHost(r.Host) {
		e += `;host="` + r.Host + `"`
	}
	return e
}

// removeNamed deletes the fields that Connection names: RFC 9110 section 7.6.1.
func removeNamed(h http.Header, connection []string) {
	for name := range items(connection) {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if classOf(name) != fieldForwarded && !guarded(name) {
			delete(h, name)
		}
	}
}

// guarded reports whether a field is not for Connection to remove: it says who
// the client is, or middleware outside may have set it, or a check here rested
// on it.
func guarded(name string) bool {
	switch name {
	case "Authorization", "Cookie", "Origin", "Via", "X-Request-Id", "X-Correlation-Id", "Traceparent", "Tracestate", "Baggage":
		return true
	}
	return strings.HasPrefix(name, "Remote-") || strings.HasPrefix(name, "X-Remote-") || strings.HasPrefix(name, "X-Auth-")
}

// fieldClass says what becomes of a field, by its canonical name.
type fieldClass uint8

const (
	fieldOther     fieldClass = iota
	fieldHop                  // between two neighbours only, or made anew for each of them
	fieldForwarded            // what a proxy says about the client: believed from trusted peers only
)

func classOf(name string) fieldClass {
	switch name {
	case ":protocol", "Connection", "Upgrade", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "Trailer",
		"Proxy-Authorization", "Proxy-Authenticate", "Proxy-Authentication-Info", "Http2-Settings", "Alt-Svc", "Alt-Used",
		"Content-Length", "Expect", "Host", "Proxy",
		"Sec-Websocket-Key", "Sec-Websocket-Accept", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions":
		return fieldHop
	case "Forwarded", "X-Real-Ip", "True-Client-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
		"X-Original-Forwarded-For", "X-Original-Url", "X-Original-Uri", "X-Original-Host", "X-Rewrite-Url":
		return fieldForwarded
	}
	if strings.HasPrefix(name, "X-Forwarded-") {
		return fieldForwarded
	}
	// A name with other characters than letters, digits and hyphens can be taken
	// for the one with hyphens: X_Forwarded_For.
	if i := strings.IndexFunc(name, odd); i >= 0 {
		return classOf(textproto.CanonicalMIMEHeaderKey(strings.Map(func(c rune) rune {
			if odd(c) {
				return '-'
			}
			return c
		}, name)))
	}
	return fieldOther
}

func odd(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
}

// answered returns the header of a back end's answer without what is
// hop-by-hop.
func answered(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if classOf(name) != fieldHop || name == "Content-Length" {
			out[name] = values
		}
	}
	for name := range items(h["Connection"]) {
		delete(out, textproto.CanonicalMIMEHeaderKey(name))
	}
	return out
}
