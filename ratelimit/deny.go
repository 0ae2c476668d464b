package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"

	"example.com/plainware/store"
)

const (
	denyWays = 4
	denySets = 1024

	// denyMost is the longest that a refusal is remembered. Within it a refund,
	// a Reset or a change of the policy by another process is not seen.
	denyMost = time.Second
)

// denyCache remembers what a remote store has refused, so that whoever goes on
// asking is refused here, without a round trip, until the store would grant.
//
// What it remembers is where a register stood, which only ever rises but for
// refunds and resets: an operation that does not fit on top of that does not fit
// now, whatever its cost. Registers are known by a hash under random keys. It has
// room for 4,096 of them and takes 200 KiB.
type denyCache struct {
	start time.Time
	names registerHash
	sets  []denySet
}

type denySet struct {
	mu      sync.Mutex
	entries [denyWays]denied
}

// denied is where a register stood when the store was asked, at the latest at
// the instant at, in ns since start as all here.
type denied struct {
	hash  uint64
	value int64 // of store.Result, as is
	now   int64 // of store.Result, as is
	at    int64
	ends  int64 // when a count ends; 0 is never
	until int64 // when the entry ends; 0 is a free one
}

func newDenyCache() *denyCache {
	return &denyCache{start: time.Now(), names: newRegisterHash(), sets: make([]denySet, denySets)}
}

// get reports whether the store would refuse op, and what it would answer.
func (c *denyCache) get(op *store.Op) (res store.Result, refused bool) {
	if op.Step <= 0 || op.Min <= 0 {
		return res, false
	}
	h := c.names.of(op.Space, op.Key)
	s := &c.sets[h%denySets]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.entries {
		e := &s.entries[i]
		if e.hash != h || e.until == 0 {
			continue
		}
		now := int64(time.Since(c.start))
		if now >= e.until {
			return res, false
		}
		res = store.Result{Value: e.value, Now: e.now + now - e.at}
		floor, ceil := op.Floor, op.Ceil
		if op.Clock {
			floor, ceil = floor+res.Now, ceil+res.Now
			res.Value = max(res.Value, floor)
			res.Expires = res.Value - floor
		} else if e.ends > 0 {
			res.Expires = e.ends - now
		}
		return res, op.Step*op.Min > ceil-res.Value
	}
	return res, false
}

// put remembers that the store has refused op in a call that was sent at the
// instant sent. The register's clock is taken to have stood still until then, so
// that no refusal lasts longer here than in the store.
func (c *denyCache) put(op *store.Op, res store.Result, sent time.Time) {
	if op.Step <= 0 || res.Granted >= op.Min {
		return
	}
	e := denied{hash: c.names.of(op.Space, op.Key), value: res.Value, now: res.Now, at: int64(sent.Sub(c.start))}
	e.until = e.at + int64(denyMost)
	if !op.Clock && res.Expires > 0 {
		e.ends = e.at + res.Expires
		e.until = min(e.until, e.ends)
	}
	s := &c.sets[e.hash%denySets]
	s.mu.Lock()
	defer s.mu.Unlock()
	first := &s.entries[0] // to end
	for i := range s.entries {
		if s.entries[i].hash == e.hash {
			first = &s.entries[i]
			break
		}
		if s.entries[i].until < first.until {
			first = &s.entries[i]
		}
	}
	*first = e
}

// drop forgets a register, which was reset or given something back.
func (c *denyCache) drop(space, key string) {
	h := c.names.of(space, key)
	s := &c.sets[h%denySets]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.entries {
		if s.entries[i].hash == h {
			s.entries[i] = denied{}
		}
	}
}

// registerHash names registers by 64 bits under random keys, so that nobody who
// does not know these can look for two with one name.
type registerHash struct{ space, key maphash.Seed }

func newRegisterHash() registerHash {
	return registerHash{maphash.MakeSeed(), maphash.MakeSeed()}
}

func (h registerHash) of(space, key string) uint64 {
	return maphash.String(h.space, space) ^ maphash.String(h.key, key)
}
