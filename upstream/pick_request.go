package upstream

import (
	"math"
	"math/bits"
)

// LeastRequest draws two peers at random, by weight, and takes the one with
// fewer active requests per weight. It is the default: the share of a slow or
// stalled peer shrinks by itself, no peer is flooded because all look at the
// same numbers, and the cost does not depend on how many there are.
func LeastRequest() Picker { return leastRequest{} }

type leastRequest struct{}

func (leastRequest) Build(s Snapshot) PickFunc {
	c := newCandidates(s)
	return func(p *Pick) int {
		i, j := c.two(p)
		if j < 0 {
			return i
		}
		a, b := &c.list[i], &c.list[j]
		la, lb := a.active(), b.active()
		ca, cb := (la+1)*b.weight, (lb+1)*a.weight
		// Idle peers are taken as drawn. The rule below would send all of a
		// light load to the heaviest.
		if la|lb == 0 {
			return i
		}
		// In this form the compiler needs no jump, which would be mispredicted
		// every other time.
		if cb < ca {
			i = j
		}
		return i
	}
}

// PeakEWMA is [LeastRequest] with the latency of the peers taken into account:
// of two peers drawn it takes the one with the smaller product of latency and
// active requests per weight. The latency is [Peer.Latency]. A peer without
// latency yet has that of the other, so that it is not flooded for being new.
//
// Use it where back ends differ in speed and answer comparable requests: it
// takes a back end that serves the expensive ones for a slow one.
func PeakEWMA() Picker { return peakEWMA{} }

type peakEWMA struct{}

func (peakEWMA) Build(s Snapshot) PickFunc {
	c := newCandidates(s)
	return func(p *Pick) int {
		i, j := c.two(p)
		if j < 0 {
			return i
		}
		a, b := &c.list[i], &c.list[j]
		now := c.now()
		ta, tb := a.latency(now), b.latency(now)
		switch {
		case ta == 0 && tb == 0:
			ta, tb = 1, 1
		case ta == 0:
			ta = tb
		case tb == 0:
			tb = ta
		}
		la, lb := a.active(), b.active()
		ca, cb := (la+1)*b.weight, (lb+1)*a.weight
		if la|lb == 0 { // as above
			ca, cb = 1, 1
		}
		if !atMost(ca, ta, cb, tb) {
			i = j
		}
		return i
	}
}

// atMost tells whether a·b <= c·d, in 128 bits.
func atMost(a, b, c, d uint64) bool {
	h1, l1 := bits.Mul64(a, b)
	h2, l2 := bits.Mul64(c, d)
	return h1 < h2 || h1 == h2 && l1 <= l2
}

// LeastConnections looks at all peers and takes the one with the fewest active
// requests per weight, one of several by chance. It costs time in proportion to
// the number of peers and is meant for eight or fewer. With several instances
// of the program in front of the same back ends, all of them run to the same
// one: [LeastRequest] does not.
func LeastConnections() Picker { return leastConnections{} }

type leastConnections struct{}

func (leastConnections) Build(s Snapshot) PickFunc {
	c := newCandidates(s)
	units := unitsOf(c.list)
	place := lowBits(len(c.list))
	return func(p *Pick) int {
		if units != nil && p.n == 0 {
			return c.least(units, place, p.Uint64())
		}
		best, ties := -1, uint64(0)
		var load, weight, random uint64
		for i := range c.list {
			if p.Tried(i) {
				continue
			}
			n := c.list[i].active() + 1
			w := c.list[i].weight
			switch x, y := n*weight, load*w; {
			case best < 0 || x < y:
				best, load, weight, ties = i, n, w, 1
			case x == y:
				// Each of k equal ones ends up as the choice once in k times.
				if ties == 1 {
					random = p.Uint64()
				}
				ties++
				random = mix(random)
				if below(uint32(random), int(ties)) == 0 {
					best = i
				}
			}
		}
		return best
	}
}

// unit is what one request costs at a peer in whole numbers: the least common
// multiple of the weights, divided by the peer's own.
type unit struct {
	cost uint64
	seed uint64 // to make a random number of its own
}

// maxUnit is the largest cost, and the number of requests that are told apart: so
// that the product leaves tieBits for chance and for the place of the peer, which
// may take half of them.
const (
	maxUnit  = 1 << 20
	tieBits  = 24
	maxUnits = 1 << (tieBits / 2)
)

// unitsOf returns the units of the peers, or nil if the weights have no common
// multiple that is small enough, or there are too many.
func unitsOf(list []candidate) []unit {
	if len(list) > maxUnits {
		return nil
	}
	multiple := uint64(1)
	for i := range list {
		w := list[i].weight
		if w > maxUnit {
			return nil
		}
		multiple *= w / uint64(gcd(int(w), int(multiple)))
		if multiple > maxUnit {
			return nil
		}
	}
	units := make([]unit, len(list))
	for i := range units {
		units[i] = unit{multiple / list[i].weight, mix(uint64(i)) | 1}
	}
	return units
}

// least returns the peer with the fewest active requests per weight. Those that
// are equal are told apart by random bits below the number, and the place of the
// peer is in the lowest: see [hashGroup.highest].
func (c *candidates) least(units []unit, place, random uint64) int {
	low := uint64(math.MaxUint64)
	list := c.list[:len(units)]
	for i := range units {
		u := &units[i]
		chance := (random ^ u.seed>>1) * u.seed >> (64 - tieBits)
		x := min(list[i].active()+1, maxUnit-1)*u.cost<<tieBits | chance&^place | uint64(i)
		if x < low {
			low = x
		}
	}
	return int(low & place)
}

// Random takes any peer, by weight.
func Random() Picker { return random{} }

type random struct{}

func (random) Build(s Snapshot) PickFunc {
	c := newCandidates(s)
	return func(p *Pick) int { return c.one(p) }
}

// candidate is what the policies need of a peer, without a detour through it.
type candidate struct {
	load   *load
	weight uint64
}

// active is the number of active requests. It is below zero for nobody, but a
// Peer made by hand has no load.
func (c *candidate) active() uint64 {
	if c.load == nil {
		return 0
	}
	return uint64(max(0, c.load.active.Load()))
}

func (c *candidate) latency(now int64) uint64 {
	if c.load == nil {
		return 0
	}
	return c.load.latency.read(now)
}

// candidates draws peers at random, by weight.
type candidates struct {
	list   []candidate
	alias  []slot  // nil if all weights are the same
	shared *shared // nil in a Snapshot that no Pool has made
}

// now is the time that latencies are aged by.
func (c *candidates) now() int64 {
	if c.shared == nil {
		return 0
	}
	return c.shared.now.Load()
}

// slot is one slot of an alias table (Vose's method): a draw that falls on it
// stays with probability keep/2^32 and goes to other if not.
type slot struct {
	keep  uint32
	other uint32
}

func newCandidates(s Snapshot) *candidates {
	c := &candidates{list: make([]candidate, len(s.Peers)), shared: s.shared}
	for i, p := range s.Peers {
		c.list[i] = candidate{p.load, uint64(s.Weight(i))}
	}
	if !s.equal() {
		c.alias = aliasTable(c.list)
	}
	return c
}

func aliasTable(list []candidate) []slot {
	n := len(list)
	sum := 0.0
	for i := range list {
		sum += float64(list[i].weight)
	}
	share := make([]float64, n) // 1 is the share of a slot
	var small, large []int
	for i := range list {
		share[i] = float64(list[i].weight) / sum * float64(n)
		if share[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	table := make([]slot, n)
	for i := range table {
		table[i] = slot{math.MaxUint32, uint32(i)}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		table[s] = slot{uint32(share[s] * math.MaxUint32), uint32(l)}
		if share[l] -= 1 - share[s]; share[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	return table
}

// draw returns an index.
func (c *candidates) draw(p *Pick) int {
	r := p.Uint64()
	return c.at(uint32(r>>32), uint32(r))
}

// at returns the index that the random numbers say.
func (c *candidates) at(index, coin uint32) int {
	i := below(index, len(c.list))
	if c.alias != nil {
		s := c.alias[i]
		if coin > s.keep { // again without a jump
			i = int(s.other)
		}
	}
	return i
}

// one returns a peer that was not tried, or -1.
func (c *candidates) one(p *Pick) int {
	i := c.draw(p)
	if !p.Tried(i) {
		return i
	}
	return c.other(p, i)
}

// other returns a peer other than i that was not tried, or -1.
func (c *candidates) other(p *Pick, i int) int {
	// By chance if possible: the neighbour of a peer that fails should not get
	// all of its load.
	for range 3 {
		if j := c.draw(p); j != i && !p.Tried(j) {
			return j
		}
	}
	for j := range c.list {
		if j += i; j >= len(c.list) {
			j -= len(c.list)
		}
		if j != i && !p.Tried(j) {
			return j
		}
	}
	return -1
}

// two returns two different peers that were not tried. The second is -1 if
// there is only one, and then the first is too if there is none.
func (c *candidates) two(p *Pick) (i, j int) {
	n := len(c.list)
	switch {
	case n == 1 || p.n > 0:
		if i = c.one(p); i < 0 {
			return -1, -1
		}
		return i, c.other(p, i)
	case c.alias != nil:
		r := p.Uint64()
		i = c.at(uint32(r>>32), uint32(r))
		if n == 2 {
			return i, 1 - i
		}
		// The first alone decides while there is little load, and keeps to the
		// weights exactly. The second is another number made of the same.
		r = mix(r)
		if j = c.at(uint32(r>>32), uint32(r)); i != j {
			return i, j
		}
		// A peer far heavier than the rest would be drawn again and again.
		j = below(uint32(mix(r)), n-1)
	default:
		r := p.Uint64()
		i = below(uint32(r>>32), n)
		j = below(uint32(r), n-1)
	}
	if j >= i {
		j++
	}
	return i, j
}
