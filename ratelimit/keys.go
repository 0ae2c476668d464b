package ratelimit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"example.com/plainware/internal/clientip"
)

// Key says whom a policy counts: requests with the same key share one limit. It
// is made by [ByIP], [ByHeader], [ByCookie], [ByPattern], [ByFunc] or [Join].
//
// A request that has no key, since it has no such header, say, shares one limit
// with all others that have none, so that nobody gets out of a limit by leaving
// something out; [Policy.Optional] makes it pass instead. No value that a client
// can send is taken for a missing one, and no two different keys are taken for
// one.
//
// Stores get a key of up to 64 bytes as it is, and a longer one, or one that is
// not UTF-8 or has a zero byte, as 128 bits of its SHA-256. Keys from headers and
// cookies, which may be credentials, are hashed always.
type Key struct{ parts []part }

type partKind uint8

const (
	byIP partKind = iota
	byHeader
	byCookie
	byPattern
	byFunc
)

type part struct {
	kind partKind
	name string
	mux  *http.ServeMux
	f    func(*http.Request) string
}

// ByIP counts by the address of the client: an IPv4 address, or the network of
// an IPv6 address ([Config.IPv6Prefix], 64 bits long by default), since a client
// has 2^64 addresses in that. It is the peer's unless that is one of
// [Config.TrustedProxies]. Requests without an address (unix sockets) share one
// limit.
func ByIP() Key { return Key{[]part{{kind: byIP}}} }

// ByHeader counts by the first value of a request header field. Where the client
// is free to choose the value it can have as many limits as it likes: use it
// behind whatever checks the value, or together with a policy by address.
func ByHeader(name string) Key {
	return Key{[]part{{kind: byHeader, name: http.CanonicalHeaderKey(name)}}}
}

// ByCookie counts by the value of a cookie, the first of that name. What
// [ByHeader] says of clients that choose the value holds here too.
func ByCookie(name string) Key { return Key{[]part{{kind: byCookie, name: name}}} }

// ByPattern counts by the pattern of mux that a request matches, such as
// "GET /users/{id}". Without a mux (nil) it is [http.Request.Pattern], which is
// there if the limiter stands inside of a mux. Usually it is joined with another
// key.
func ByPattern(mux *http.ServeMux) Key { return Key{[]part{{kind: byPattern, mux: mux}}} }

// ByFunc counts by what f returns, "" for a request without a key. Do not return
// a secret: it is stored as it is, and [Limiter.Hottest] shows it. f must be safe
// for concurrent use.
func ByFunc(f func(*http.Request) string) Key { return Key{[]part{{kind: byFunc, f: f}}} }

// Join counts by several keys together: Join(ByIP(), ByPattern(mux)) has a limit
// for each address at each route. The order matters only to [Limiter.Take] and
// the other methods that are given the parts of a key.
func Join(keys ...Key) Key {
	var all Key
	for _, k := range keys {
		all.parts = append(all.parts, k.orIP().parts...)
	}
	return all
}

// orIP is the key by address for the zero Key.
func (k Key) orIP() Key {
	if k.parts == nil {
		return ByIP()
	}
	return k
}

func (k Key) check() error {
	for _, p := range k.parts {
		switch {
		case p.kind == byFunc && p.f == nil:
			return errors.New("ByFunc must have a function (got nil)")
		case (p.kind == byHeader || p.kind == byCookie) && !isToken(p.name):
			return fmt.Errorf("must name a header field or a cookie (got %q)", p.name)
		}
	}
	return nil
}

// isToken is token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// client is the address of a request, found when the first asks for it.
type client struct {
	asked bool
	known bool
	addr  netip.Addr
	key   string
}

// unresolved is the key of all requests without an address.
const unresolved = "?"

func (l *Limiter) resolve(r *http.Request, c *client) {
	if c.asked {
		return
	}
	c.asked = true
	if len(l.trusted) == 0 {
		if host, addr, ok := peerIPv4(r.RemoteAddr); ok {
			c.known, c.addr, c.key = true, netip.AddrFrom4(addr), host
			return
		}
	}
	if c.addr, c.known = clientip.Resolve(r, l.trusted); c.known {
		return
	}
	l.counters.stripe().unresolved.Add(1)
	if !l.warned.Swap(true) {
		l.logger.WarnContext(r.Context(), "ratelimit: requests without an address share one limit")
	}
}

// address returns the key by address of r.
func (l *Limiter) address(r *http.Request, c *client) string {
	l.resolve(r, c)
	switch {
	case !c.known:
		return unresolved
	case c.key == "":
		c.key = l.addressKey(c.addr)
	}
	return c.key
}

// addressKey returns the key of an address that is unmapped and has no zone.
func (l *Limiter) addressKey(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, l.ipv6Prefix).Masked().String()
}

// peerIPv4 finds the address in what a server makes of an IPv4 connection. It is
// much faster than netip, and takes the one way to write an address only, so that
// what it returns is a key. Anything else is for clientip.
func peerIPv4(s string) (host string, addr [4]byte, ok bool) {
	octet, n, digits := 0, 0, 0
	for i := range len(s) {
		c := s[i] - '0'
		if c <= 9 {
			if n = n*10 + int(c); n > 255 || digits > 0 && n < 10 {
				return "", addr, false
			}
			digits++
			continue
		}
		if digits == 0 {
			return "", addr, false
		}
		addr[octet] = byte(n)
		if s[i] == ':' && octet == 3 {
			return s[:i], addr, true
		}
		if s[i] != '.' || octet == 3 {
			return "", addr, false
		}
		octet, n, digits = octet+1, 0, 0
	}
	return "", addr, false
}

// keyOf returns the key of r under k, and whether no part of it is missing.
func (l *Limiter) keyOf(k *Key, r *http.Request, c *client) (key string, complete bool) {
	if len(k.parts) == 1 {
		p := &k.parts[0]
		if p.kind == byIP {
			return l.address(r, c), true
		}
		return p.single(p.text(r))
	}
	var array [160]byte
	j := joiner{b: array[:0], complete: true}
	for i := range k.parts {
		p := &k.parts[i]
		if p.kind == byIP {
			j.add(l.address(r, c), false)
		} else {
			j.add(p.text(r), p.secret())
		}
	}
	return j.key(), j.complete
}

// keyFrom is keyOf for parts that a caller gives.
func (l *Limiter) keyFrom(k *Key, parts []string) (key string, err error) {
	if len(parts) != len(k.parts) {
		return "", fmt.Errorf("%w: the policy's has %d parts (got %d)", ErrKey, len(k.parts), len(parts))
	}
	j := joiner{complete: true}
	for i, text := range parts {
		p := &k.parts[i]
		if p.kind == byIP {
			if text, err = l.addressFrom(text); err != nil {
				return "", err
			}
			if len(parts) == 1 {
				return text, nil
			}
		} else if len(parts) == 1 {
			key, _ = p.single(text)
			return key, nil
		}
		j.add(text, p.secret())
	}
	return j.key(), nil
}

// addressFrom returns the key of an address, or of the network that is one.
func (l *Limiter) addressFrom(text string) (string, error) {
	if text == "" || text == unresolved {
		return unresolved, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.Addr().Is4() && prefix.Bits() != 32 {
			return "", fmt.Errorf("%w: not an address", ErrKey)
		}
		addr = prefix.Addr()
	}
	return l.addressKey(addr.Unmap().WithZone("")), nil
}

func (p *part) secret() bool { return p.kind == byHeader || p.kind == byCookie }

// text returns the part's value in r, "" if there is none.
func (p *part) text(r *http.Request) string {
	switch p.kind {
	case byHeader:
		if v := r.Header[p.name]; len(v) > 0 {
			return v[0]
		}
	case byCookie:
		if c, err := r.Cookie(p.name); err == nil {
			return c.Value
		}
	case byPattern:
		if p.mux == nil {
			return r.Pattern
		}
		_, pattern := p.mux.Handler(r)
		return pattern
	case byFunc:
		return p.f(r)
	}
	return ""
}

const (
	// maxPlain is the length of the longest key that is stored as it is.
	maxPlain = 64

	// missing is the key without a value. It begins as hashed keys do, and no
	// plain one does, and is shorter.
	missing = "#"
)

// single returns the key of a part that stands alone.
func (p *part) single(text string) (key string, complete bool) {
	switch {
	case text == "":
		return missing, false
	case p.secret() || text[0] == '#' || !plainKey(text):
		return hashed([]byte(text)), true
	}
	return text, true
}

// joiner writes parts one after the other, each behind its length. It begins
// with a digit or, for a missing part, with a minus sign.
type joiner struct {
	b        []byte
	secret   bool
	complete bool
}

func (j *joiner) add(text string, secret bool) {
	if text == "" {
		j.b = append(j.b, '-')
		j.complete = false
		return
	}
	j.b = strconv.AppendInt(j.b, int64(len(text)), 10)
	j.b = append(j.b, ':')
	j.b = append(j.b, text...)
	j.secret = j.secret || secret
}

func (j *joiner) key() string {
	if !j.secret && len(j.b) <= maxPlain && plainKey(string(j.b)) {
		return string(j.b)
	}
	return hashed(j.b)
}

func plainKey(s string) bool {
	return len(s) <= maxPlain && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

func hashed(b []byte) string {
	sum := sha256.Sum256(b)
	var key [1 + 22]byte
	key[0] = '#'
	base64.RawURLEncoding.Encode(key[1:], sum[:16])
	return string(key[:])
}
