package upstream

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// defaultBound is how far above its fair share of the active requests a peer of
// a hash policy may be.
const defaultBound = 1.25

// hashPicker is implemented by the policies that place requests by key. They
// take no part in slow start, because a share that grows moves keys.
type hashPicker interface {
	Picker
	bounded() bool // uses shared.total
	valid() bool
}

// Rendezvous sends requests of one key to one peer, by highest random weight:
// when a peer leaves, only its keys move, each to a peer of its own; when one
// joins, it takes its share from all alike. The key is what [Config.Key] returns;
// a request without one goes where [Random] would send it. All instances of a
// program agree, as the place depends on key, IDs and weights only.
//
// bound limits the active requests of a peer to that factor of its fair share;
// what exceeds it goes to the key's next peer. Zero is 1.25, and 1 is the least;
// negative is no bound.
//
// It costs time in proportion to the number of peers, and is meant for 32 or
// fewer; use [Maglev] above.
func Rendezvous(bound float64) Picker { return rendezvous{newBound(bound)} }

type rendezvous struct{ bound }

func (r rendezvous) Build(s Snapshot) PickFunc {
	c := newCandidates(s)
	k := newKeyed(s, r.bound, c)
	return func(p *Pick) int {
		if !p.HasKey {
			return c.one(p)
		}
		key := mix(p.Key)
		if k.equal {
			if i := k.highest(key); k.takes(p, i) {
				return i
			}
		}
		return k.best(p, key)
	}
}

// Maglev places requests by key as [Rendezvous] does, through a table of 65 537
// slots that is filled anew when the set of peers changes: a pick takes the same
// time for any number of peers. When a peer leaves, its keys are spread over
// the others, and about one in a hundred of the other keys moves as well. bound
// is as in Rendezvous.
//
// The table takes 256 KiB per priority, and some milliseconds to fill.
func Maglev(bound float64) Picker { return maglev{newBound(bound)} }

type maglev struct{ bound }

// maglevSlots is prime, so that every step visits all slots. It is fixed,
// because another size would move all keys.
const maglevSlots = 65537

func (m maglev) Build(s Snapshot) PickFunc {
	c := newCandidates(s)
	k := newKeyed(s, m.bound, c)
	table := maglevTable(k.hashes, c.list)
	return func(p *Pick) int {
		if !p.HasKey {
			return c.one(p)
		}
		key := mix(p.Key)
		for h, try := key, 0; try < 4; h, try = mix(h+1), try+1 {
			hi, _ := bits.Mul64(h, maglevSlots)
			if i := int(table[hi]); k.takes(p, i) {
				return i
			}
		}
		return k.best(p, key)
	}
}

// maglevTable fills the slots: the peers take turns, as often as their weights
// say, and each takes the first free slot of its own permutation (Eisenbud et
// al., "Maglev", NSDI 2016, section 3.4).
func maglevTable(hashes []uint64, list []candidate) []int32 {
	table := make([]int32, maglevSlots)
	for i := range table {
		table[i] = -1
	}
	heaviest := 0.0
	for i := range list {
		heaviest = max(heaviest, float64(list[i].weight))
	}
	type walk struct{ at, step int }
	walks := make([]walk, len(list))
	for i, h := range hashes {
		walks[i] = walk{int(h % maglevSlots), int(mix(h)%(maglevSlots-1)) + 1}
	}
	// In the order of their hashes, not of the list: whoever comes first is
	// the same in every process.
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Compare(hashes[a], hashes[b])
	})
	credit := make([]float64, len(list))
	for filled := 0; ; {
		for _, i := range order {
			if credit[i] += float64(list[i].weight) / heaviest; credit[i] < 1 {
				continue
			}
			credit[i]--
			w := &walks[i]
			for table[w.at] >= 0 {
				w.at = (w.at + w.step) % maglevSlots
			}
			table[w.at] = int32(i)
			if filled++; filled == maglevSlots {
				return table
			}
		}
	}
}

// Hash returns a 64-bit hash of s for [Config.Key], the same in every process
// and release (FNV-1a).
func Hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads a number over all 64 bits (the finalizer of SplitMix64), so that
// keys may be counters or ids.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// bound is a factor of the fair share, or 0 if there is no bound.
type bound float64

func newBound(f float64) bound {
	switch {
	case f == 0:
		return defaultBound
	case f < 0:
		return 0
	}
	return bound(f)
}

func (b bound) bounded() bool { return b > 0 }
func (b bound) valid() bool   { return b == 0 || b >= 1 && !math.IsInf(float64(b), 1) }

// keyed is what the hash policies know of the peers.
type keyed struct {
	hashes []uint64
	list   []candidate
	equal  bool // all weights are
	shared *shared
	limit  []float64 // bound times the fair share, nil if there is no bound
}

func newKeyed(s Snapshot, b bound, c *candidates) *keyed {
	k := &keyed{hashes: make([]uint64, len(s.Peers)), list: c.list, equal: c.alias == nil, shared: s.shared}
	sum := 0.0
	for i, p := range s.Peers {
		k.hashes[i] = mix(Hash(p.ID))
		sum += float64(c.list[i].weight)
	}
	if b.bounded() && s.shared != nil {
		k.limit = make([]float64, len(s.Peers))
		for i := range k.limit {
			k.limit[i] = float64(b) * float64(c.list[i].weight) / sum
		}
	}
	return k
}

// takes tells whether peer i may have the request: it was not tried, and is
// below its bound. An idle peer always is.
func (k *keyed) takes(p *Pick, i int) bool {
	if p.Tried(i) {
		return false
	}
	if k.limit == nil {
		return true
	}
	active := k.list[i].active()
	if active == 0 {
		return true
	}
	return float64(active) < math.Ceil(k.limit[i]*float64(k.shared.total.Load()+1))
}

// highest returns the peer with the highest score if all weights are equal.
func (k *keyed) highest(key uint64) int {
	best, top := 0, uint64(0)
	for i, h := range k.hashes {
		if score := mix(key ^ h); score >= top {
			best, top = i, score
		}
	}
	return best
}

// best returns the peer with the highest score among those that may have the
// request, among those not tried if all are at their bound, or else -1.
func (k *keyed) best(p *Pick, key uint64) int {
	best, second := -1, -1
	var top, next float64
	for i, h := range k.hashes {
		if p.Tried(i) {
			continue
		}
		score := k.cost(i, mix(key^h))
		if (best < 0 || score < top) && k.takes(p, i) {
			best, top = i, score
		}
		if second < 0 || score < next {
			second, next = i, score
		}
	}
	if best < 0 {
		return second
	}
	return best
}

// cost turns a score into what the best peer has least of. With weights it is an
// exponential variate whose rate is the weight, which makes the share of each
// peer that of its weight. Without, any falling function orders the same way,
// and this one is cheaper.
func (k *keyed) cost(i int, score uint64) float64 {
	if k.equal {
		return -float64(score >> 11)
	}
	return -math.Log((float64(score>>11)+0.5)/(1<<53)) / float64(k.list[i].weight)
}
