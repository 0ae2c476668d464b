package breaker

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// GroupConfig configures a [Group].
type GroupConfig struct {
	// Config is that of each breaker. Name is the group's.
	Config

	// Key says which breaker a request belongs to. nil is the host it is for, in
	// small letters with the port if there is one: that of the URL of a call,
	// and of the Host field of a request to a Handler.
	Key func(*http.Request) string

	// Max is how many breakers there may be, up to 65,536. For a further key the
	// one goes that is closed and was not asked for longest. Where there is none
	// such, the key shares one breaker with all others that find no place. Zero
	// is 1024.
	Max int
}

const (
	defaultMax = 1024
	maxGroup   = 65536
)

// Group is a set of breakers with one configuration, one for each key, made when
// they are first asked for. With a Store their states are brought to it and back
// together. It is safe for concurrent use.
type Group struct {
	cfg     Config
	key     func(*http.Request) string
	max     int
	sync    *syncer
	members sync.Map // of *member by key
	made    atomic.Int64

	mu     sync.Mutex // of making and dropping
	n      int
	other  *Breaker // of those without a place
	closed bool
}

type member struct {
	b    *Breaker
	last atomic.Int64 // of Group.made, when it was asked for
}

// NewGroup returns an empty group. The error lists every field of c that is
// wrong.
func NewGroup(c GroupConfig) (*Group, error) {
	cfg, err := c.Config.complete()
	if c.Max == 0 {
		c.Max = defaultMax
	}
	if c.Max < 1 || c.Max > maxGroup {
		bad := fmt.Errorf("breaker: Max: must be 1 to %d (got %d)", maxGroup, c.Max)
		if err == nil {
			return nil, bad
		}
		return nil, fmt.Errorf("%w\n%w", err, bad)
	}
	if err != nil {
		return nil, err
	}
	g := &Group{cfg: cfg, key: c.Key, max: c.Max}
	if g.key == nil {
		g.key = host
	}
	if cfg.Store != nil {
		g.sync = newSyncer(cfg)
		if err := g.sync.load(); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// host is the default of GroupConfig.Key.
func host(r *http.Request) string {
	if r.URL != nil && r.URL.Host != "" {
		return strings.ToLower(r.URL.Host)
	}
	return strings.ToLower(r.Host)
}

// Get returns the breaker of a key. It is made if there is none; a Store is asked
// about it in the background, so that one which is open there is so after a
// round trip.
func (g *Group) Get(key string) *Breaker {
	if v, ok := g.members.Load(key); ok {
		m := v.(*member)
		if now := g.made.Load(); m.last.Load() != now {
			m.last.Store(now)
		}
		return m.b
	}
	return g.make(key)
}

func (g *Group) make(key string) *Breaker {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v, ok := g.members.Load(key); ok {
		return v.(*member).b
	}
	if g.n >= g.max && !g.drop() {
		if g.other == nil {
			g.other = g.breaker("")
		}
		return g.other
	}
	m := &member{b: g.breaker(key)}
	m.last.Store(g.made.Add(1))
	g.members.Store(key, m)
	g.n++
	return m.b
}

// breaker makes the breaker of a key. g.mu is held.
func (g *Group) breaker(key string) *Breaker {
	b := newBreaker(g.cfg, g.cfg.Name+":"+key)
	if g.closed {
		b.shut()
	} else if g.sync != nil {
		sum := sha256.Sum256([]byte(key))
		g.sync.join(b, g.cfg.Name+"/"+hex.EncodeToString(sum[:16]))
		b.share.kick()
	}
	return b
}

// drop makes room for a breaker. g.mu is held.
func (g *Group) drop() bool {
	var oldest *member
	var key any
	for k, v := range g.members.Range {
		m := v.(*member)
		if (oldest == nil || m.last.Load() < oldest.last.Load()) && m.b.idle() {
			key, oldest = k, m
		}
	}
	if oldest == nil {
		return false
	}
	g.members.Delete(key)
	g.n--
	if g.sync != nil {
		g.sync.part(oldest.b.share)
	}
	oldest.b.shut()
	return true
}

// idle reports whether nothing is lost with b but what it has counted.
func (b *Breaker) idle() bool {
	ph := b.phase.Load()
	return ph.state == Closed && ph.force == nil
}

// RoundTrip implements http.RoundTripper with the breaker of the request's key.
func (g *Group) RoundTrip(r *http.Request) (*http.Response, error) {
	return g.Get(g.key(r)).RoundTrip(r)
}

// CloseIdleConnections closes those of the base, where it has such a method.
func (g *Group) CloseIdleConnections() {
	if c, ok := g.cfg.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Handler is [Breaker.Handler] with the breaker of each request's key. Clients
// choose the Host field, so Key should be something else there, such as the
// pattern of a mux.
func (g *Group) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("breaker: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.Get(g.key(r)).serve(next, w, r)
	})
}

// All ranges over the breakers that there are, by key, in no particular order.
func (g *Group) All() iter.Seq2[string, *Breaker] {
	return func(yield func(string, *Breaker) bool) {
		for k, v := range g.members.Range {
			if !yield(k.(string), v.(*member).b) {
				return
			}
		}
	}
}

// Close does for all breakers what [Breaker.Close] does. The group must not be
// used any more. It returns nil, the second time too.
func (g *Group) Close() error {
	g.mu.Lock()
	g.closed = true
	var all []*Breaker
	for _, b := range g.All() {
		all = append(all, b)
	}
	if g.other != nil {
		all = append(all, g.other)
	}
	g.mu.Unlock()
	for _, b := range all {
		b.shut()
	}
	if g.sync != nil {
		g.sync.close()
	}
	for _, b := range all {
		b.running.Wait()
	}
	return nil
}
