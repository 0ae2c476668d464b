package ratelimit

import (
	"cmp"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Stats counts what a [Limiter] has decided since [New], in this process.
type Stats struct {
	Allowed    uint64 // admitted by all policies
	Refused    uint64 // refused by one, or for want of a decision
	Shadowed   uint64 // would have been refused by a policy in Shadow
	Exempt     uint64 // left alone by Config.Skip or Config.Exempt
	Degraded   uint64 // decided without the store; counted above too
	Unresolved uint64 // without an address of a client

	// Policies are in the order of the configuration, those in Shadow last.
	Policies []PolicyStats
}

// PolicyStats is about one policy.
type PolicyStats struct {
	Name     string
	Refused  uint64 // it was the one that refused
	Shadowed uint64 // it would have refused, in Shadow
}

// Stats returns the statistics of l. It costs a microsecond.
func (l *Limiter) Stats() Stats {
	var s Stats
	for i := range l.counters {
		c := &l.counters[i]
		s.Allowed += c.allowed.Load()
		s.Refused += c.refused.Load()
		s.Shadowed += c.shadowed.Load()
		s.Exempt += c.exempt.Load()
		s.Degraded += c.degraded.Load()
		s.Unresolved += c.unresolved.Load()
	}
	for _, p := range slices.Concat(l.enforced, l.shadows) {
		s.Policies = append(s.Policies, PolicyStats{p.name, p.refused.Load(), p.shadowed.Load()})
	}
	return s
}

// counters are several, of which each request takes one at random, so that
// processors do not contend for them.
type counters [8]counterStripe

type counterStripe struct {
	allowed, refused, shadowed, exempt, degraded, unresolved atomic.Uint64
	_                                                        [16]byte
}

func (c *counters) stripe() *counterStripe { return &c[rand.Uint32()%uint32(len(c))] }

// countOne counts a request that one policy has admitted.
func (l *Limiter) countOne(p *policy, key string) {
	dice := rand.Uint32()
	l.counters[dice%uint32(len(l.counters))].allowed.Add(1)
	if l.hot != nil && dice>>8%sampleOneIn == 0 {
		l.hot.add(p.name, key, false)
	}
}

// count counts a decision.
func (l *Limiter) count(rd *round, d Decision) {
	dice := rand.Uint32()
	c := &l.counters[dice%uint32(len(l.counters))]
	if d.Allowed {
		c.allowed.Add(1)
	} else {
		c.refused.Add(1)
		if u := rd.refusing(); u != nil {
			u.p.refused.Add(1)
		}
	}
	if d.Degraded {
		c.degraded.Add(1)
	}
	if l.hot != nil && dice>>8%sampleOneIn == 0 {
		for i := range rd.uses {
			l.hot.add(rd.uses[i].p.name, rd.uses[i].key, !d.Allowed)
		}
	}
}

// HotKey is one of the keys with the most requests.
type HotKey struct {
	Policy string

	// Key is as the store has it: an address or a network, what a function has
	// returned, the parts of a joined key each behind its length, or the hash
	// of a header or a cookie behind a '#'.
	Key string

	// Requests estimates how many the key has had since it came into the list,
	// from one in 16 of them. It may be too high by the last number of the
	// list.
	Requests uint64

	// Refused estimates how many of these were refused.
	Refused uint64
}

// Hottest returns the keys with the most requests, the hottest first, since New
// or [Limiter.ResetHottest]. There are at most [Config.HotKeys]. It takes a
// picture and holds no lock while the loop runs.
func (l *Limiter) Hottest() iter.Seq[HotKey] {
	return func(yield func(HotKey) bool) {
		if l.hot == nil {
			return
		}
		for _, k := range l.hot.list() {
			if !yield(k) {
				return
			}
		}
	}
}

// ResetHottest empties the list of [Limiter.Hottest], so that it shows what is
// hot from now on.
func (l *Limiter) ResetHottest() {
	if l.hot != nil {
		l.hot.reset()
	}
}

// sampleOneIn of so many requests are counted for Hottest.
const sampleOneIn = 16

// spareHotKeys is how many times more keys are counted than shown. Otherwise the
// keys that come once crowd the last places.
const spareHotKeys = 4

// hottest finds frequent keys in bounded memory: a new key takes the place of
// the one with the fewest requests, and its count (Metwally, Agrawal and El
// Abbadi, "Efficient computation of frequent and top-k elements", 2005). A key
// with more than 1/most of the requests sampled is always among them, and no count
// is too high by more than that share: so it knows more keys than it shows.
type hottest struct {
	most  int
	shown int
	mu    sync.Mutex
	keys  map[hotID]*hotCount
	all   []*hotCount // a heap, the least at its beginning
}

type hotID struct{ policy, key string }

type hotCount struct {
	hotID
	requests, refused uint64
	at                int // in the heap
}

// newHottest returns nil for none.
func newHottest(most int) *hottest {
	if most < 0 {
		return nil
	}
	if most == 0 {
		most = defaultHotKeys
	}
	return &hottest{most: spareHotKeys * most, shown: most, keys: make(map[hotID]*hotCount)}
}

func (h *hottest) add(policy, key string, refused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.keys[hotID{policy, key}]
	switch {
	case c != nil:
	case len(h.all) < h.most:
		c = &hotCount{at: len(h.all)}
		h.all = append(h.all, c)
		c.name(h, policy, key)
		h.up(c.at)
	default:
		c = h.all[0]
		delete(h.keys, c.hotID)
		c.refused = 0
		c.name(h, policy, key)
	}
	c.requests++
	if refused {
		c.refused++
	}
	h.down(c.at)
}

// name gives c a copy of key, which is part of a request.
func (c *hotCount) name(h *hottest, policy, key string) {
	c.hotID = hotID{policy, strings.Clone(key)}
	h.keys[c.hotID] = c
}

func (h *hottest) up(i int) {
	for i > 0 && h.all[i].requests < h.all[(i-1)/2].requests {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h *hottest) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(h.all) && h.all[child].requests < h.all[least].requests {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *hottest) swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	h.all[i].at, h.all[j].at = i, j
}

func (h *hottest) list() []HotKey {
	h.mu.Lock()
	list := make([]HotKey, 0, len(h.all))
	for _, c := range h.all {
		list = append(list, HotKey{c.policy, c.key, c.requests * sampleOneIn, c.refused * sampleOneIn})
	}
	h.mu.Unlock()
	slices.SortFunc(list, func(a, b HotKey) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Key, b.Key))
	})
	return list[:min(len(list), h.shown)]
}

func (h *hottest) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.keys)
	h.all = nil
}
