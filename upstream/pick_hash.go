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
// program agree, as the place depends on key, IDs and weights only: it is the same
// in every release, and on every platform but for what the last bit of a logarithm
// can decide between peers of different weights.
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
		if i := k.first(key); k.takes(p, i) {
			return i
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
	for filled := 0; len(order) > 0; { // a policy around this one may have none for it
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
	return table
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

// lot is what a peer draws its scores with.
type lot struct{ seed, factor uint64 }

// newLot makes the lot of the peer with a hash. The factor is odd, so that the
// lower half of a product takes every value, and large, so that the upper half
// takes half of all values at least.
func newLot(hash uint64) lot { return lot{hash, mix(hash) | 1<<63 | 1} }

// score is the peer's for a key that mix has spread: both halves of one product,
// folded as wyhash does it.
func (l lot) score(key uint64) uint64 {
	high, low := bits.Mul64(key^l.seed, l.factor)
	return high ^ low
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
	groups []hashGroup
	shared *shared
	limit  []float64 // bound times the fair share, nil if there is no bound
}

// hashGroup is the peers of one weight. Among them the highest score wins, so
// that the logarithm is due once for each group, and not at all if there is one.
type hashGroup struct {
	weight float64
	lots   []lot
	index  []int  // of the peer with the lot, in the Snapshot
	low    uint64 // the bits of a score that make room for a place in lots
}

func newKeyed(s Snapshot, b bound, c *candidates) *keyed {
	k := &keyed{hashes: make([]uint64, len(s.Peers)), list: c.list, shared: s.shared}
	sum := 0.0
	for i, p := range s.Peers {
		k.hashes[i] = mix(Hash(p.ID))
		w := float64(c.list[i].weight)
		sum += w
		g := slices.IndexFunc(k.groups, func(g hashGroup) bool { return g.weight == w })
		if g < 0 {
			g = len(k.groups)
			k.groups = append(k.groups, hashGroup{weight: w})
		}
		k.groups[g].lots = append(k.groups[g].lots, newLot(k.hashes[i]))
		k.groups[g].index = append(k.groups[g].index, i)
	}
	for i := range k.groups {
		g := &k.groups[i]
		g.low = lowBits(len(g.lots))
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

// lowBits returns as many bits as the numbers below n take.
func lowBits(n int) uint64 { return 1<<bits.Len(uint(n-1)) - 1 }

// highest returns the peer with the highest score. The place of each stands in
// the lowest bits of its score, which decide nothing, and the comparison is a
// subtraction: a jump would be mispredicted in every other pick, and max becomes
// one here.
func (g *hashGroup) highest(key uint64) (peer int, top uint64) {
	low := g.low
	for i := range g.lots {
		score := g.lots[i].score(key)&^low | uint64(i)
		_, higher := bits.Sub64(top, score, 0)
		top ^= (top ^ score) & -higher
	}
	return g.index[top&low], top
}

// first returns the peer that the key belongs to.
func (k *keyed) first(key uint64) int {
	best, top := k.groups[0].highest(key)
	from := 0
	for i := 1; i < len(k.groups); i++ {
		peer, high := k.groups[i].highest(key)
		take := cheaper(high, k.groups[i].weight, top, k.groups[from].weight)
		best ^= (best ^ peer) & take
		from ^= (from ^ i) & take
		top ^= (top ^ high) & uint64(take)
	}
	return best
}

// cheaper returns all bits if cost(a, v) < cost(b, w), and none if not, again for
// want of a jump. Most often an estimate tells: with x = 1-u the logarithm is
// -ln(u) = x + x²/2 + x³/3 + …, and what follows is less than x⁴ up to x = 3/4.
// The best of a group is close to x = 0.
func cheaper(a uint64, v float64, b uint64, w float64) int {
	x, y := float64(int64(^a>>1))/(1<<63), float64(int64(^b>>1))/(1<<63)
	xx, yy := x*x, y*y
	c, d := (x+xx*(1./2+x*(1./3)))*w, (y+yy*(1./2+y*(1./3)))*v
	const rounding = 1e-14
	unsure := (xx*xx+rounding)*w + (yy*yy+rounding)*v
	if a < 1<<62 || b < 1<<62 || math.Abs(c-d) <= unsure {
		c, d = cost(a, v), cost(b, w)
	}
	return int(int64(math.Float64bits(c-d)) >> 63) // the sign
}

// unitFloat turns a score into a number between 0 and 1, both excluded.
func unitFloat(score uint64) float64 { return (float64(score>>11) + 0.5) / (1 << 53) }

// best returns the peer with the highest score among those that may have the
// request, among those not tried if all are at their bound, or else -1.
func (k *keyed) best(p *Pick, key uint64) int {
	best, second := -1, -1
	var top, next float64
	for i, h := range k.hashes {
		if p.Tried(i) {
			continue
		}
		c := cost(newLot(h).score(key), float64(k.list[i].weight))
		if (best < 0 || c < top) && k.takes(p, i) {
			best, top = i, c
		}
		if second < 0 || c < next {
			second, next = i, c
		}
	}
	if best < 0 {
		return second
	}
	return best
}

// cost turns a score into what the best peer has least of: an exponential
// variate whose rate is the weight, which makes the share of each peer that of
// its weight.
func cost(score uint64, weight float64) float64 {
	return -math.Log(unitFloat(score)) / weight
}
