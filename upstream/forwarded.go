package upstream

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"example.com/plainware/internal/clientip"
)

// Forwarded says what back ends are told about the client, and whose word is
// taken for it. The zero value sends X-Forwarded-For, -Host and -Proto made from
// the connection alone, and Via; and, if [URI].StripPrefix has taken something off
// the path, X-Forwarded-Prefix with that, behind what a trusted proxy has put
// there.
//
// What a client sends under these names is dropped, and so are Forwarded, every
// other X-Forwarded field, X-Real-Ip, True-Client-Ip, X-Client-Ip,
// X-Cluster-Client-Ip and the X-Original and X-Rewrite fields that some
// frameworks route by. That holds for look-alikes (X_Forwarded_For) as well. A
// field that [ProxyConfig.Rewrite] sets stands as it is, and one that it sets to
// nil is not sent.
type Forwarded struct {
	// TrustedProxies are the peers whose fields are kept and added to: those
	// in front of this program. Nil trusts none. Of X-Real-Ip see RealIP.
	TrustedProxies []netip.Prefix

	// Omit sends no X-Forwarded field. What a trusted proxy says is passed
	// on as it came.
	Omit bool

	// Standard sends Forwarded (RFC 7239) too, with for, host and proto.
	Standard bool

	// RealIP sends X-Real-Ip too: the address of the client as far as
	// TrustedProxies vouch for it, which is what their X-Forwarded-For says. One
	// that comes from a trusted proxy is replaced, since a proxy that adds to
	// X-Forwarded-For may pass on a client's X-Real-Ip as it is. Behind one that
	// sets X-Real-Ip alone leave RealIP off.
	RealIP bool

	// Via is the pseudonym in Via (RFC 9110 section 7.6.3), added to requests
	// and responses: a token. Empty is "plainware-" and eight random digits,
	// new for each Proxy, so that the Proxies of a chain are told apart.
	Via string

	// NoVia sends no Via. Loops are not detected then.
	NoVia bool

	// MaxLoops is how often a request may come back to this Proxy, which it
	// knows by its Via, before it is answered with 508: zero is 3, negative is
	// no limit.
	MaxLoops int
}

const defaultMaxLoops = 3

// forwarder is a Forwarded made ready.
type forwarder struct {
	Forwarded
	via [4]string // the field value by the protocol that the message came in
}

func newForwarder(f Forwarded, bad *problems) *forwarder {
	for _, p := range f.TrustedProxies {
		if !p.IsValid() {
			bad.add("Forwarded.TrustedProxies", "must be valid prefixes", p)
		}
	}
	if f.Via != "" && !isToken(f.Via) {
		bad.add("Forwarded.Via", "must be a token of RFC 9110", fmt.Sprintf("%q", f.Via))
	}
	f.TrustedProxies = slices.Clone(f.TrustedProxies)
	f.MaxLoops = zeroIs(f.MaxLoops, defaultMaxLoops)
	if f.Via == "" {
		var b [4]byte
		rand.Read(b[:]) // never fails
		f.Via = "plainware-" + hex.EncodeToString(b[:])
	}
	fw := &forwarder{Forwarded: f}
	for i, version := range [...]string{"1.0", "1.1", "2.0", "3.0"} {
		fw.via[i] = version + " " + f.Via
	}
	return fw
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether net/http sends s as the value of a field.
func isFieldValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// viaFor returns the Via value for a message received in a version of HTTP.
func (f *forwarder) viaFor(major, minor int) string {
	switch {
	case major == 3:
		return f.via[3]
	case major == 2:
		return f.via[2]
	case minor == 0:
		return f.via[0]
	}
	return f.via[1]
}

// trusts reports whether the peer of r is a proxy whose word is taken.
func (f *forwarder) trusts(r *http.Request) bool {
	if len(f.TrustedProxies) == 0 {
		return false
	}
	addr, ok := clientip.Peer(r)
	return ok && clientip.Contains(f.TrustedProxies, addr)
}

// loops counts how often our pseudonym is in the Via fields of a request. A
// comment in a Via may hold anything, but not a comma that is followed by what
// an element of ours looks like, unless somebody means it to.
func (f *forwarder) loops(h http.Header) int {
	n := 0
	for _, line := range h["Via"] {
		if !strings.Contains(line, f.Via) {
			continue
		}
		for e := range strings.SplitSeq(line, ",") {
			_, by, _ := strings.Cut(strings.TrimSpace(e), " ")
			by, _, _ = strings.Cut(strings.TrimSpace(by), " ")
			if by == f.Via {
				n++
			}
		}
	}
	return n
}

// apply adds what there is to say about the client to the header that goes out.
func (f *forwarder) apply(x *exchange, h http.Header, trusted bool) {
	if !f.NoVia {
		via := f.viaFor(x.in.ProtoMajor, x.in.ProtoMinor)
		if prior := h["Via"]; len(prior) > 0 {
			via = strings.Join(prior, ", ") + ", " + via
		}
		h["Via"] = x.value(via)
	}
	if f.Omit && !f.Standard && !f.RealIP {
		return
	}
	in := x.in
	peer := peerAddr(in.RemoteAddr)
	proto := "http"
	if in.TLS != nil {
		proto = "https"
	}
	if !f.Omit {
		if _, ok := h["X-Forwarded-For"]; peer != "" && (!ok || trusted && same(h["X-Forwarded-For"], in.Header["X-Forwarded-For"])) {
			chain := peer
			if ok {
				chain = strings.Join(h["X-Forwarded-For"], ", ") + ", " + peer
			}
			h["X-Forwarded-For"] = x.value(chain)
		}
		if _, ok := h["X-Forwarded-Host"]; !ok && in.Host != "" {
			h["X-Forwarded-Host"] = x.value(in.Host)
		}
		if _, ok := h["X-Forwarded-Proto"]; !ok {
			h["X-Forwarded-Proto"] = x.value(proto)
		}
	}
	if x.stripped != "" && !f.Omit {
		if prior, ok := h["X-Forwarded-Prefix"]; !ok {
			h["X-Forwarded-Prefix"] = x.value(x.stripped)
		} else if trusted && same(prior, in.Header["X-Forwarded-Prefix"]) {
			h["X-Forwarded-Prefix"] = x.value(strings.TrimRight(prior[0], "/") + x.stripped)
		}
	}
	if f.Standard {
		element := forwardedElement(peer, in.Host, proto)
		if prior, ok := h["Forwarded"]; !ok {
			h["Forwarded"] = x.value(element)
		} else if trusted && same(prior, in.Header["Forwarded"]) {
			h["Forwarded"] = x.value(strings.Join(prior, ", ") + ", " + element)
		}
	}
	if f.RealIP {
		if _, ok := h["X-Real-Ip"]; !ok {
			if addr, ok := clientip.Resolve(in, f.TrustedProxies); ok {
				h["X-Real-Ip"] = x.value(addr.String())
			}
		}
	}
}

// same reports whether a hook has left a field as it came. One without values is
// none that came: it was set, so that none is sent.
func same(a, b []string) bool {
	return len(a) > 0 && len(a) == len(b) && &a[0] == &b[0]
}

// peerAddr returns the address in a RemoteAddr as text, without port, zone and
// IPv4-in-IPv6 form, or "" if there is none. For IPv4 it costs nothing.
func peerAddr(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	if addr.Is4() {
		return host
	}
	return addr.Unmap().WithZone("").String()
}

// forwardedElement makes one element of Forwarded. A host that could break out
// of its quotes has been refused before.
func forwardedElement(peer, host, proto string) string {
	e := `for=`
	switch {
	case peer == "":
		e += "unknown"
	case strings.Contains(peer, ":"):
		e += `"[` + peer + `]"`
	default:
		e += peer
	}
	switch {
	case host == "":
	case isToken(host):
		e += ";host=" + host
	default:
		e += `;host="` + host + `"`
	}
	return e + ";proto=" + proto
}

// validHost reports whether a Host is one: a name or address with an optional
// port. It is narrower than RFC 3986, which no resolver and no virtual host
// needs more of.
func validHost(host string) bool {
	for i := range len(host) {
		c := host[i]
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == ':', c == '_', c == '[', c == ']', c == '~':
		default:
			return false
		}
	}
	return true
}
