package ratelimit

import (
	"hash/maphash"
	"sync"
)

// slots counts what is in progress, by key. A key without anything in progress
// is not there, so what it holds is bounded by the requests in progress.
type slots struct {
	seed   maphash.Seed
	shards [16]slotShard
}

type slotShard struct {
	mu    sync.Mutex
	inUse map[string]int64
	_     [40]byte // no two locks on one cache line
}

func newSlots() *slots {
	s := &slots{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].inUse = make(map[string]int64)
	}
	return s
}

func (s *slots) shard(key string) *slotShard {
	return &s.shards[maphash.String(s.seed, key)%uint64(len(s.shards))]
}

// acquire takes n slots of limit, all of them or none, and returns how many are
// in use then.
func (s *slots) acquire(key string, n, limit int64) (inUse int64, ok bool) {
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	inUse = sh.inUse[key]
	if n == 0 {
		return inUse, true
	}
	if n > limit-inUse {
		return inUse, false
	}
	inUse += n
	sh.inUse[key] = inUse
	return inUse, true
}

// release gives n slots back.
func (s *slots) release(key string, n int64) {
	if n <= 0 {
		return
	}
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.inUse[key] -= n; sh.inUse[key] <= 0 {
		delete(sh.inUse, key)
	}
}

// holds is what a request has taken of Concurrent, until it has been served. The
// nil holds has taken nothing.
type holds struct{ taken []hold }

type hold struct {
	slots *slots
	key   string
	n     int64
}

// take takes what the uses of rd that are Concurrent need, all or nothing.
func (h *holds) take(rd *round) bool {
	for i := range rd.uses {
		u := &rd.uses[i]
		if u.p.algorithm != concurrent {
			continue
		}
		var ok bool
		u.res.Value, ok = u.p.slots.acquire(u.key, u.cost, u.p.limit)
		u.known, u.refused = true, !ok
		if !ok {
			rd.reason = busy
			h.release()
			return false
		}
		h.taken = append(h.taken, hold{u.p.slots, u.key, u.cost})
	}
	return true
}

func (h *holds) release() {
	if h == nil {
		return
	}
	for _, t := range h.taken {
		t.slots.release(t.key, t.n)
	}
	h.taken = nil
}
