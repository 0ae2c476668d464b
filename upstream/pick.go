package upstream

import (
	"math/rand/v2"
	"time"
)

// A Picker is a load-balancing policy. The package has [LeastRequest] (the
// default), [RoundRobin], [WeightedRoundRobin], [Random], [LeastConnections],
// [PeakEWMA], [Rendezvous] and [Maglev]; anyone can write another.
type Picker interface {
	// Build returns the function that picks among the peers of s. It is
	// called when the membership, a weight or a state of health has changed,
	// once per priority that has an available peer, and never twice at a time
	// by one Pool. The expensive part of a policy belongs here. Build must not
	// call the Pool.
	Build(s Snapshot) PickFunc
}

// A PickFunc returns the index of one peer of its Snapshot, or -1 if it has
// none to offer. It is called concurrently, at least once per request, and
// should neither lock nor allocate. It passes over the peers that p has tried;
// -1 says that no other is left.
type PickFunc func(p *Pick) int

// A Peer is one back end as a [Picker] sees it. Its exported fields do not
// change.
type Peer struct {
	// ID names the back end within its Pool, across updates: two Peers of one
	// ID share load and health, unless the back end has been replaced.
	ID string

	// Weight is the share of traffic relative to the other peers, as it was
	// configured: at least 1. [Snapshot.Weight] is what counts at the moment.
	Weight int

	// Priority is the group that the peer is in; the lowest is used first.
	Priority int

	// Draining is set on a peer that takes no new traffic but that of clients
	// bound to it by a [Sticky] cookie.
	Draining bool

	// Labels are the labels of the target. They must not be changed.
	Labels map[string]string

	load  *load // nil in a Peer that no Pool has made
	owner any   // what the Pool keeps for this peer
}

// Active returns the number of requests that the peer is serving for this
// Pool: from the moment it was picked until the response's body was closed.
func (p *Peer) Active() int {
	if p.load == nil {
		return 0
	}
	return int(p.load.active.Load())
}

// Latency returns the peak-sensitive average of the time to the first byte of a
// response: it follows a slower answer at once, and forgets it with a half-life
// of seven seconds. Zero means that nothing is known yet.
func (p *Peer) Latency() time.Duration {
	if p.load == nil {
		return 0
	}
	return time.Duration(p.load.latency.read(p.load.shared.now.Load()))
}

// A Snapshot is a set of peers to pick from: those of one priority that are
// available, of which a Pool has one at least. A policy that asks another one, on a
// part of its peers, must not have that pick among none. It never changes; when the set does, Build is called again.
type Snapshot struct {
	Peers []*Peer

	// weights holds the effective weights, and is nil if they are those of
	// the peers.
	weights []int

	shared *shared // nil in a Snapshot that no Pool has made
}

// Weight returns the weight of peer i at the moment: below its Peer.Weight in
// relation to the others as long as the peer is in slow start. Only ratios
// matter. It is at least 1.
func (s Snapshot) Weight(i int) int {
	if s.weights != nil {
		return s.weights[i]
	}
	return max(1, s.Peers[i].Weight)
}

// equal tells whether all weights are the same, which most policies can use.
func (s Snapshot) equal() bool {
	for i := range s.Peers {
		if s.Weight(i) != s.Weight(0) {
			return false
		}
	}
	return true
}

// maxTried is how many tried peers a Pick remembers: those of all attempts that
// another can follow, of which one is free.
const maxTried = maxAttempts + 1

// A Pick is the choice of a back end for one request, and lives as long as the
// request has attempts. It is not safe for concurrent use.
type Pick struct {
	// Key is what [Config.Key] returned for the request, if HasKey is set.
	Key    uint64
	HasKey bool

	// Rand is the source of randomness, for tests that want to repeat
	// themselves. Nil means the functions of math/rand/v2.
	Rand *rand.Rand

	sticky string // value of the request's sticky cookie
	strict bool   // the peer that sticky names, or none

	// stay keeps a further attempt in the priority of the first: what failed
	// was a connection, which is no reason to wake a standby.
	stay bool

	peers []*Peer // of the snapshot that is being picked from
	tried [maxTried]*Peer
	n     int
}

// Tried tells whether an attempt of this request has gone to peer i of the
// snapshot already.
func (p *Pick) Tried(i int) bool {
	return p.n > 0 && p.hasTried(p.peers[i])
}

func (p *Pick) hasTried(peer *Peer) bool {
	for _, t := range p.tried[:min(p.n, maxTried)] {
		// By ID, because an update may have replaced the Peer meanwhile.
		if t == peer || t.ID == peer.ID {
			return true
		}
	}
	return false
}

// exclude makes the picks that follow prefer other peers than this one.
func (p *Pick) exclude(peer *Peer) {
	p.tried[p.n%maxTried] = peer
	p.n++
}

// Uint64 returns a random number from Rand.
func (p *Pick) Uint64() uint64 {
	if p.Rand != nil {
		return p.Rand.Uint64()
	}
	return rand.Uint64()
}

// below maps 32 random bits to an index below n without a division.
func below(bits uint32, n int) int {
	return int(uint64(bits) * uint64(n) >> 32)
}
