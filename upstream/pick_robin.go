package upstream

import (
	"math/rand/v2"
	"sync/atomic"
)

// RoundRobin takes one peer after the other, whatever their weights. It starts
// at a random one, so that instances of a program started together do not walk
// in step.
func RoundRobin() Picker { return &roundRobin{} }

type roundRobin struct{ next counter }

func (r *roundRobin) Build(s Snapshot) PickFunc {
	n := uint64(len(s.Peers))
	next := r.next.get()
	return func(p *Pick) int {
		i := int(next.Add(1) % n)
		for range n {
			if !p.Tried(i) {
				return i
			}
			if i++; i == int(n) {
				i = 0
			}
		}
		return -1
	}
}

// maxSchedule is the longest schedule of a WeightedRoundRobin.
const maxSchedule = 4096

// WeightedRoundRobin takes the peers in turn by weight, interleaved: with the
// weights 5, 1 and 1 the turns are a a b a c a a (smooth weighted round robin,
// as in nginx). The schedule is made when a weight changes. If the weights,
// reduced to lowest terms, add up to more than 4096, shares are rounded to about
// that precision.
func WeightedRoundRobin() Picker { return &weightedRoundRobin{} }

type weightedRoundRobin struct{ next counter }

func (r *weightedRoundRobin) Build(s Snapshot) PickFunc {
	turns := schedule(s)
	n := uint64(len(turns))
	next := r.next.get()
	return func(p *Pick) int {
		i := next.Add(1) % n
		if p.n == 0 {
			return int(turns[i])
		}
		for range n {
			if t := int(turns[i]); !p.Tried(t) {
				return t
			}
			if i++; i == n {
				i = 0
			}
		}
		return -1
	}
}

// schedule returns the turns of one round.
func schedule(s Snapshot) []uint32 {
	if s.equal() {
		turns := make([]uint32, len(s.Peers))
		for i := range turns {
			turns[i] = uint32(i)
		}
		return turns
	}
	// In 64 bits, since the weights of many peers in slow start add up to more
	// than 32 can hold.
	weights := make([]int64, len(s.Peers))
	divisor, sum := 0, int64(0)
	for i := range weights {
		divisor = gcd(s.Weight(i), divisor)
	}
	for i := range weights {
		weights[i] = int64(s.Weight(i) / divisor)
		sum += weights[i]
	}
	if limit := int64(max(maxSchedule, 4*len(weights))); sum > limit {
		scale := float64(limit) / float64(sum)
		sum = 0
		for i := range weights {
			weights[i] = max(1, int64(float64(weights[i])*scale+0.5))
			sum += weights[i]
		}
	}
	turns := make([]uint32, sum)
	credit := make([]int64, len(weights))
	for t := range turns {
		best := 0
		for i, w := range weights {
			if credit[i] += w; credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= sum
		turns[t] = uint32(best)
	}
	return turns
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// counter is a position that goes on when the set changes. It is padded so that
// nothing shares its cache line.
type counter struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

// get returns the counter, set to a random position the first time.
func (c *counter) get() *atomic.Uint64 {
	c.n.CompareAndSwap(0, rand.Uint64()>>1)
	return &c.n
}
