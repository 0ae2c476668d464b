package upstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// check returns what is wrong with g.
func (g *Guard) check() problems {
	var p problems
	if g.Margin < 0 || g.Margin > 100 {
		p.add("Guard.Margin", "must be 1 to 100", g.Margin)
	}
	if g.MinRequests < 0 {
		p.add("Guard.MinRequests", "must not be negative", g.MinRequests)
	}
	if g.Window < 0 || g.Window > 0 && g.Window < time.Second {
		p.add("Guard.Window", "must be at least 1s", g.Window)
	}
	return p
}

// guard is a Guard at work. It has a lock, which is the price of comparing two
// arms at one moment.
type guard struct {
	c Guard

	mu    sync.Mutex
	began time.Time
	tally [][2]tally // by arm: this half of the window, and the one before
}

type tally struct{ requests, failures int }

func newGuard(c Guard, arms int) *guard {
	c.Margin = zeroIs(c.Margin, 5)
	c.MinRequests = zeroIs(c.MinRequests, 100)
	c.Window = zeroIs(c.Window, time.Minute)
	return &guard{c: c, tally: make([][2]tally, arms)}
}

// count takes in a request of arm i and tells whether it has stopped that arm,
// which was not.
func (g *guard) count(i int, stopped *atomic.Bool, failed bool, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch age := now.Sub(g.began); {
	case age >= g.c.Window:
		for i := range g.tally {
			g.tally[i] = [2]tally{}
		}
		g.began = now
	case age >= g.c.Window/2:
		for i := range g.tally {
			g.tally[i] = [2]tally{1: g.tally[i][0]}
		}
		g.began = now
	}
	t := &g.tally[i][0]
	t.requests++
	if !failed {
		return false
	}
	t.failures++
	if i == 0 {
		return false
	}
	n, bad := g.sum(i)
	m, ok := g.sum(0)
	if n < g.c.MinRequests || m < g.c.MinRequests {
		return false
	}
	// bad/n > ok/m + margin/100, in whole numbers.
	over := int64(bad)*int64(m)*100 > int64(ok)*int64(n)*100+int64(g.c.Margin)*int64(n)*int64(m)
	return over && !stopped.Swap(true)
}

func (g *guard) sum(i int) (requests, failures int) {
	t := &g.tally[i]
	return t[0].requests + t[1].requests, t[0].failures + t[1].failures
}

// restart gives an arm a new start. What was known of it goes in the same moment
// as its stop: a request that ends meanwhile would stop it again for what it did
// before.
func (g *guard) restart(i int, stopped *atomic.Bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tally[i] = [2]tally{}
	stopped.Store(false)
}

// Override lets clients choose their arm of a [Split], testers for instance, by
// a token that the operator has made with [Split.Token]. Whoever has a token can
// use it until it expires.
type Override struct {
	// Keys are secret, of 32 bytes or more. The first makes tokens and all
	// read them. Required.
	Keys [][]byte

	// Header and Cookie name the field and the cookie that bring the token;
	// the field comes first. At least one is required.
	Header string
	Cookie string
}

// check returns what is wrong with o.
func (o *Override) check() problems {
	var p problems
	if len(o.Keys) == 0 {
		p.add("Override.Keys", "must have a key", "none")
	}
	for i, k := range o.Keys {
		if len(k) < 32 {
			p.add(fmt.Sprintf("Override.Keys[%d]", i), "must have 32 bytes or more", fmt.Sprintf("%d bytes", len(k)))
		}
	}
	if o.Header == "" && o.Cookie == "" {
		p.add("Override.Header", "is required if there is no Cookie", `""`)
	}
	if o.Cookie != "" && (&http.Cookie{Name: o.Cookie, Value: "x"}).Valid() != nil {
		p.add("Override.Cookie", "must be a cookie's name", strconv.Quote(o.Cookie))
	}
	return p
}

func (o *Override) clone() *Override {
	c := *o
	c.Header = http.CanonicalHeaderKey(c.Header)
	c.Keys = make([][]byte, len(o.Keys))
	for i, k := range o.Keys {
		c.Keys[i] = slices.Clone(k)
	}
	return &c
}

// Token returns a token with which a client chooses the arm until a time, to the
// second. It is made of letters, digits, ".", "-" and "_".
func (s *Split) Token(arm string, until time.Time) (string, error) {
	if s.over == nil {
		return "", errors.New("upstream: Token: the Split has no Override")
	}
	if s.index(arm) < 0 {
		return "", fmt.Errorf("upstream: Token: no such arm (got %q)", arm)
	}
	return s.over.sign(arm+"."+strconv.FormatInt(until.Unix(), 36), s.over.Keys[0]), nil
}

func (o *Override) sign(text string, key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("plainware/upstream/override/1\x00" + text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// read returns the arm that a valid token of the request names, or "".
func (o *Override) read(h http.Header, now time.Time) string {
	if o.Header != "" {
		for _, v := range h[o.Header] {
			if arm := o.verify(v, now); arm != "" {
				return arm
			}
		}
	}
	if o.Cookie != "" {
		for v := range cookieValues(h, o.Cookie) {
			if arm := o.verify(v, now); arm != "" {
				return arm
			}
		}
	}
	return ""
}

// verify returns the arm that token names, or "" if it is not valid.
func (o *Override) verify(token string, now time.Time) string {
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return ""
	}
	for _, key := range o.Keys {
		if !hmac.Equal([]byte(token), []byte(o.sign(token[:i], key))) {
			continue
		}
		arm, until, _ := strings.Cut(token[:i], ".")
		if t, err := strconv.ParseInt(until, 36, 64); err != nil || now.Unix() >= t {
			return ""
		}
		return arm
	}
	return ""
}

// cookieValues returns the values of all cookies of that name. It does not
// allocate, as the reader in net/http does.
func cookieValues(h http.Header, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range h["Cookie"] {
			for line != "" {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				n, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
				if n == name && !yield(value) {
					return
				}
			}
		}
	}
}
