package upstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// Sticky binds a client to the back end that first served it, by a cookie. The
// value of the cookie is an HMAC of the back end's ID: it does not tell the ID,
// and nobody without a key can choose a back end.
//
// A client whose back end is down goes to another one and is bound to that; see
// Strict. One whose back end is draining stays with it until it is down.
type Sticky struct {
	// Keys are secret, of 32 bytes or more, the same in all instances of the
	// program. The first makes cookies and all read them. Required.
	Keys [][]byte

	// Name is the cookie's name. Empty is "__Host-Http-backend", or "backend"
	// if Path, Domain or Insecure rule that prefix out.
	Name string

	// Path and Domain are attributes of the cookie. Empty is "/" and none,
	// which is the host that was asked.
	Path   string
	Domain string

	// MaxAge is how long the client keeps the cookie, counted from when it was
	// bound: zero is until the browser is closed, otherwise at least 1 s. Parts
	// of a second are dropped.
	MaxAge time.Duration

	// SameSite is the attribute of that name. Zero is Lax.
	SameSite http.SameSite

	// Insecure leaves the Secure attribute out, for clients that speak plain
	// HTTP.
	Insecure bool

	// Strict answers a client whose back end is down with an error, and never
	// by another back end. A back end that is no longer a target binds nobody.
	Strict bool
}

const stickyTokenLen = 22 // base64 of 16 bytes

// check returns what is wrong with s.
func (s Sticky) check() problems {
	var p problems
	if len(s.Keys) == 0 {
		p.add("Sticky.Keys", "must have a key", "none")
	}
	for i, k := range s.Keys {
		if len(k) < 32 {
			p.add(fmt.Sprintf("Sticky.Keys[%d]", i), "must have 32 bytes or more", fmt.Sprintf("%d bytes", len(k)))
		}
	}
	if s.MaxAge < 0 || s.MaxAge > 0 && s.MaxAge < time.Second {
		p.add("Sticky.MaxAge", "must be at least 1s", s.MaxAge)
	}
	if s.SameSite == http.SameSiteNoneMode && s.Insecure {
		p.add("Sticky.SameSite", "None needs a secure cookie", "Insecure")
	}
	c := s.cookie("x")
	if err := c.Valid(); err != nil {
		p.add("Sticky.Name, Path or Domain", "must make a valid cookie", strings.TrimPrefix(err.Error(), "http: "))
	}
	if name := strings.ToLower(c.Name); !c.Secure && (strings.HasPrefix(name, "__secure-") || strings.HasPrefix(name, "__http-") || strings.HasPrefix(name, "__host-")) {
		p.add("Sticky.Name", "its prefix needs a secure cookie", c.Name)
	} else if strings.HasPrefix(name, "__host-") && (c.Path != "/" || c.Domain != "") {
		p.add("Sticky.Name", `the prefix __Host- needs the path "/" and no domain`, c.Name)
	}
	return p
}

// cookie returns the cookie with the given value.
func (s Sticky) cookie(value string) *http.Cookie {
	c := &http.Cookie{
		Name:     s.Name,
		Value:    value,
		Path:     s.Path,
		Domain:   s.Domain,
		MaxAge:   int(min(s.MaxAge/time.Second, math.MaxInt32)), // 68 years, which an int of 32 bits can hold
		SameSite: s.SameSite,
		Secure:   !s.Insecure,
		HttpOnly: true,
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 {
		c.SameSite = http.SameSiteLaxMode
	}
	if c.Name == "" {
		c.Name = "backend"
		if c.Secure && c.Path == "/" && c.Domain == "" {
			c.Name = "__Host-Http-backend"
		}
	}
	return c
}

// stickyKeys makes and reads sticky cookies. What it needs of a peer is made
// once and kept in its load: to read a cookie is to look it up.
type stickyKeys struct {
	conf Sticky
	name string
}

// stickyLoad is the part of a load that stickyKeys keeps there.
type stickyLoad struct {
	tokens []string // by key
	line   string   // the Set-Cookie line
}

// stickyPeer is a peer that a cookie names.
type stickyPeer struct {
	peer *Peer
	up   bool // it may take the clients that are bound to it
}

func newStickyKeys(c Sticky) *stickyKeys {
	keys := make([][]byte, len(c.Keys))
	for i, k := range c.Keys {
		keys[i] = append([]byte(nil), k...)
	}
	c.Keys = keys
	return &stickyKeys{conf: c, name: c.cookie("x").Name}
}

// table returns the peers by the values of their cookies.
func (k *stickyKeys) table(peers []*Peer, up func(*Peer) bool) map[string]stickyPeer {
	table := make(map[string]stickyPeer, len(peers)*len(k.conf.Keys))
	for _, p := range peers {
		s := &p.load.sticky
		if s.tokens == nil {
			for _, key := range k.conf.Keys {
				s.tokens = append(s.tokens, stickyToken(key, k.name, p.ID))
			}
			s.line = k.conf.cookie(s.tokens[0]).String()
		}
		for _, t := range s.tokens {
			table[t] = stickyPeer{p, up(p)}
		}
	}
	return table
}

// stickyToken returns the value of the cookie name that stands for the back end
// of that ID.
func stickyToken(key []byte, name, id string) string {
	mac := hmac.New(sha256.New, key)
	// The name has no NUL, being a token.
	mac.Write([]byte("plainware/upstream/sticky/1\x00" + name + "\x00" + id))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// bind notes in p which back end the request is bound to.
func (s *selector) bind(p *Pick, h http.Header) {
	if s.sticky != nil {
		p.sticky = s.sticky.read(h)
		p.strict = s.sticky.conf.Strict
	}
}

// binds reports whether the request of p is bound to peer, and peer is up.
func (s *selector) binds(p *Pick, peer *Peer) bool {
	if p.sticky == "" {
		return false
	}
	b := s.view.Load().sticky[p.sticky]
	return b.up && b.peer.ID == peer.ID
}

// bound adds to the header of a response the cookie that binds its client to
// peer, unless the request of p brought that.
func (s *selector) bound(p *Pick, peer *Peer, h http.Header) {
	if s.sticky == nil {
		return
	}
	if l := &peer.load.sticky; len(l.tokens) > 0 && p.sticky != l.tokens[0] {
		h.Add("Set-Cookie", l.line)
	}
}

// read returns the value of the request's cookie, or "" if there is none that
// could be ours.
func (k *stickyKeys) read(h http.Header) string {
	for v := range cookieValues(h, k.name) {
		if len(v) == stickyTokenLen {
			return v
		}
	}
	return ""
}
