// Package clientip finds the address that a request came from, and believes no
// header that a trusted proxy did not write.
//
// The address of the peer is the truth. Only where the peer is a proxy that the
// operator named does X-Forwarded-For say more, and then from the right: each
// proxy appends the address it saw, so the rightmost element was written by the
// peer itself, the one before it by the proxy that the peer names, and so on.
// The first element that no trusted proxy vouches for is where knowledge ends;
// everything to its left is whatever the client chose to send.
//
// Addresses are returned unmapped (::ffff:192.0.2.1 is 192.0.2.1) and without a
// zone, so that one client is one key. Nothing here keeps or interns a string
// of the request.
package clientip

import (
	"net/http"
	"net/netip"
	"strings"
)

const (
	// maxElement bounds one element of X-Forwarded-For, with its white space.
	// The longest address is 39 bytes; brackets, a port and a zone come on top.
	maxElement = 128

	// maxHops bounds how many elements one request can make us look at, empty
	// ones included. Real chains have fewer than ten.
	maxHops = 64
)

// Peer returns the address in r.RemoteAddr, with or without a port. It reports
// false where that is no IP address: a unix socket ("@", "" or a path), or a
// request built by hand.
func Peer(r *http.Request) (netip.Addr, bool) {
	return parse(r.RemoteAddr)
}

// Contains reports whether one of the prefixes contains addr. The zero Addr is
// in no prefix, and an invalid prefix contains nothing. An address or prefix in
// IPv4-mapped IPv6 form is judged as the IPv4 that it stands for; 0.0.0.0/0 is
// every IPv4 address and ::/0 is every other one.
func Contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range prefixes {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Resolve returns the client's address: the peer's, unless the peer is trusted.
// Then it is the rightmost address in X-Forwarded-For that is not trusted, over
// all lines of the field as if they were one; where all are trusted, the
// leftmost. Empty elements are skipped (RFC 9110, section 5.6.1.2). An element
// that is not an address ends the walk at the last trusted hop. It reports
// false where [Peer] does: a header alone proves nothing.
//
// The cost does not grow with what a client sends: the walk starts at the right
// and ends after 64 elements. Well-formed addresses are not copied.
func Resolve(r *http.Request, trusted []netip.Prefix) (netip.Addr, bool) {
	addr, ok := Peer(r)
	if !ok || !Contains(trusted, addr) {
		return addr, ok
	}
	lines := r.Header["X-Forwarded-For"]
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			if hops++; hops > maxHops {
				return addr, true
			}
			var elem string
			if rest, elem, more = cutLast(rest); elem == "" {
				continue
			}
			hop, ok := parse(elem)
			if !ok {
				return addr, true
			}
			addr = hop
			if !Contains(trusted, addr) {
				return addr, true
			}
		}
	}
	return addr, true
}

// cutLast cuts the last element off a list. It looks at no more than maxElement
// bytes, and returns a longer element cut short at its left, behind a byte that
// no address contains.
func cutLast(list string) (rest, elem string, more bool) {
	from := max(0, len(list)-maxElement)
	if i := strings.LastIndexByte(list[from:], ','); i >= 0 {
		return list[:from+i], strings.Trim(list[from+i+1:], " \t"), true
	}
	if from > 0 {
		return "", "?", false
	}
	return "", strings.Trim(list, " \t"), false
}

// parse reads an address in any of the forms that RemoteAddr and the elements
// of X-Forwarded-For have: with or without a port, IPv6 with or without
// brackets and zone. The zone goes before netip can intern it.
func parse(s string) (netip.Addr, bool) {
	if len(s) > maxElement {
		return netip.Addr{}, false
	}
	host := s
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 || !portOrNone(s[end+1:]) {
			return netip.Addr{}, false
		}
		if host = s[1:end]; strings.IndexByte(host, ':') < 0 {
			return netip.Addr{}, false
		}
	case strings.Count(s, ":") == 1:
		i := strings.IndexByte(s, ':')
		if host = s[:i]; !portOrNone(s[i:]) {
			return netip.Addr{}, false
		}
	}
	if i := strings.IndexByte(host, '%'); i >= 0 {
		if strings.IndexByte(host[:i], ':') < 0 || i+1 == len(host) || strings.ContainsAny(host[i:], "[]") {
			return netip.Addr{}, false
		}
		host = host[:i]
	}
	// What is plainly a name or a token costs no error value.
	for i := range len(host) {
		if c := host[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || c == '.' || c == ':') {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// portOrNone reports whether s is empty or ":" and a port number.
func portOrNone(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) < 2 || len(s) > 6 {
		return false
	}
	n := 0
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n <= 65535
}
