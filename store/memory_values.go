package store

import (
	"bytes"
	"context"
	"hash/maphash"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// values is a map in shards, whose sizes together stay below one cap. An entry
// is in the map of its shard and in one of its queues.
type values struct {
	clock  clock
	seed   maphash.Seed
	max    int64
	total  atomic.Int64 // bytes; never above max
	shards [64]shard
}

type shard struct {
	mu      sync.Mutex
	m       map[string]*entry // nil once closed
	queues  [classes]queue
	seq     uint64
	evicted uint64
}

// The classes of values, by what it takes to evict one.
const (
	fresh = iota // not used since it was created
	used
	kept // never evicted
	classes
)

// entry is a value. Its bytes are replaced and never changed, so they may be
// read without the lock.
type entry struct {
	key     string
	value   []byte
	expires int64
	seq     uint64 // of the last write to the shard that concerned it
	index   int32  // in its queue
	class   uint8
}

// overhead is what an entry takes beside its key and value: 64 bytes for
// itself, about 50 in the map and in the queue, which both keep spare room, and
// what the allocator adds to round three sizes up.
const overhead = 160

func (e *entry) size() int64 { return overhead + int64(len(e.key)) + int64(len(e.value)) }

func (v *values) init(maxBytes int64, c clock) {
	v.clock, v.seed, v.max = c, maphash.MakeSeed(), maxBytes
	for i := range v.shards {
		v.shards[i].m = make(map[string]*entry)
	}
}

// lock returns the shard of key, locked, and the time.
func (v *values) lock(key string) (s *shard, now int64, err error) {
	s = &v.shards[maphash.String(v.seed, key)%uint64(len(v.shards))]
	s.mu.Lock()
	if s.m == nil {
		s.mu.Unlock()
		return nil, 0, ErrClosed
	}
	return s, v.clock.now(), nil
}

// find returns the entry under key, nil if it is absent. An expired one is
// reclaimed.
func (v *values) find(s *shard, key string, now int64) *entry {
	e := s.m[key]
	if e != nil && e.expires <= now {
		v.drop(s, e)
		return nil
	}
	return e
}

func (v *values) get(key string) (value []byte, ok bool, err error) {
	s, now, err := v.lock(key)
	if err != nil {
		return nil, false, err
	}
	e := v.find(s, key, now)
	if e != nil {
		value = e.value
		if e.class == fresh {
			s.queues[fresh].remove(e)
			e.class = used
			s.queues[used].add(e)
		}
	}
	s.mu.Unlock()
	if e == nil {
		return nil, false, nil
	}
	return bytes.Clone(value), true, nil
}

// write is a Put, or with compare a CompareAndSwap, of a value that is not to
// be deleted.
type write struct {
	value   []byte
	ttl     time.Duration
	keep    bool
	compare bool
	old     []byte
}

// write reports whether w was done.
func (v *values) write(ctx context.Context, key string, w write) (bool, error) {
	size := overhead + int64(len(key)) + int64(len(w.value))
	if size > v.max {
		return false, ErrSize
	}
	value := append(make([]byte, 0, len(w.value)), w.value...)
	for {
		s, now, err := v.lock(key)
		if err != nil {
			return false, err
		}
		v.sweep(s, now)
		e := v.find(s, key, now)
		if w.compare && !e.matches(w.old) {
			s.mu.Unlock()
			return false, nil
		}
		class := w.class(e)
		need := size
		if e != nil {
			need -= e.size()
			s.queues[e.class].remove(e) // not to be evicted for its own sake
		}
		ok := v.evict(s, now, need)
		if ok {
			if e == nil {
				e = &entry{key: strings.Clone(key)} // which may be a part of something large
				s.m[e.key] = e
			}
			e.value, e.class, e.expires = value, class, deadline(now, w.ttl)
		}
		if e != nil {
			s.enqueue(e)
		}
		s.mu.Unlock()
		if ok {
			return true, nil
		}
		// Nothing is left to evict here. Other shards are locked one at a time
		// and without this lock, so all is to be judged again after it.
		if !v.makeRoom(s, now, need) {
			return false, ErrFull
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
}

// class returns that of the entry which w makes of e, nil if that is absent.
func (w *write) class(e *entry) uint8 {
	switch {
	case w.keep:
		return kept
	case e == nil:
		return fresh
	case w.compare || e.class != fresh:
		return used
	}
	return fresh
}

// remove reports whether the entry under key was removed or was not there. If
// compare is set, this is only done if it matches old.
func (v *values) remove(key string, compare bool, old []byte) (bool, error) {
	s, now, err := v.lock(key)
	if err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	e := v.find(s, key, now)
	if compare && !e.matches(old) {
		return false, nil
	}
	if e != nil {
		v.drop(s, e)
	}
	return true, nil
}

func (v *values) touch(key string, ttl time.Duration, keep bool) (bool, error) {
	s, now, err := v.lock(key)
	if err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	e := v.find(s, key, now)
	if e == nil {
		return false, nil
	}
	s.queues[e.class].remove(e)
	if e.expires = deadline(now, ttl); keep {
		e.class = kept
	} else if e.class == fresh {
		e.class = used
	}
	s.enqueue(e)
	return true, nil
}

// keys returns those of a shard that begin with prefix.
func (v *values) keys(i int, prefix string) ([]string, error) {
	s := &v.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		return nil, ErrClosed
	}
	now := v.clock.now()
	var keys []string
	for key, e := range s.m {
		if e.expires > now && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func (v *values) stats() (n int, bytes int64, evicted uint64) {
	for i := range v.shards {
		s := &v.shards[i]
		s.mu.Lock()
		n += len(s.m)
		evicted += s.evicted
		s.mu.Unlock()
	}
	return n, v.total.Load(), evicted
}

func (v *values) close() {
	for i := range v.shards {
		s := &v.shards[i]
		s.mu.Lock()
		s.m, s.queues = nil, [classes]queue{}
		s.mu.Unlock()
	}
	v.total.Store(0)
}

// sweep reclaims a few expired entries. A write adds at most one, so this is
// enough for them not to pile up.
func (v *values) sweep(s *shard, now int64) {
	for range 4 {
		e := s.expired(now)
		if e == nil {
			return
		}
		v.drop(s, e)
	}
}

// evict reserves need bytes, and drops from s what is necessary for it. It
// reports whether it could.
func (v *values) evict(s *shard, now, need int64) bool {
	for !v.reserve(need) {
		e := s.expired(now)
		if e == nil {
			e = s.victim()
			if e == nil {
				return false
			}
			s.evicted++
		}
		v.drop(s, e)
	}
	return true
}

// makeRoom drops entries of shards other than own until need bytes fit: what has
// expired, then one victim after the other. It reports whether they did fit at
// that moment. It is the way of last resort, for a shard that has nothing to
// evict, and may lock all the others for each victim.
func (v *values) makeRoom(own *shard, now, need int64) bool {
	fits := func() bool { return v.total.Load() <= v.max-need }
	for s := range v.others(own) {
		for e := s.expired(now); e != nil && !fits(); e = s.expired(now) {
			v.drop(s, e)
		}
	}
	for !fits() {
		var from *shard
		var victim entry
		for s := range v.others(own) {
			if e := s.victim(); e != nil && (from == nil || e.class < victim.class || e.class == victim.class && e.expires < victim.expires) {
				from, victim = s, *e
			}
		}
		if from == nil {
			return false
		}
		from.mu.Lock()
		if e := from.victim(); e != nil {
			v.drop(from, e)
			from.evicted++
		}
		from.mu.Unlock()
	}
	return true
}

// others ranges over the shards but own, each locked while it is yielded.
func (v *values) others(own *shard) iter.Seq[*shard] {
	return func(yield func(*shard) bool) {
		for i := range v.shards {
			s := &v.shards[i]
			if s == own {
				continue
			}
			s.mu.Lock()
			more := yield(s)
			s.mu.Unlock()
			if !more {
				return
			}
		}
	}
}

// reserve adds need to the total if the cap allows it.
func (v *values) reserve(need int64) bool {
	for {
		total := v.total.Load()
		if need > 0 && total > v.max-need {
			return false
		}
		if v.total.CompareAndSwap(total, total+need) {
			return true
		}
	}
}

func (v *values) drop(s *shard, e *entry) {
	s.queues[e.class].remove(e)
	delete(s.m, e.key)
	v.total.Add(-e.size())
}

// enqueue puts e into the queue of its class as the last that was written.
func (s *shard) enqueue(e *entry) {
	s.seq++
	e.seq = s.seq
	s.queues[e.class].add(e)
}

// expired returns an entry of s that has expired, nil if there is none.
func (s *shard) expired(now int64) *entry {
	for i := range s.queues {
		if e := s.queues[i].first(); e != nil && e.expires <= now {
			return e
		}
	}
	return nil
}

// victim returns the entry of s to evict next, nil if there is none. Entries
// that nobody used go first, but for an eighth of the room: with less, the
// newest would not last until its first use once the used ones filled the rest.
func (s *shard) victim() *entry {
	a, b := s.queues[fresh].first(), s.queues[used].first()
	if b == nil || a != nil && s.queues[fresh].bytes >= s.queues[used].bytes/7 {
		return a
	}
	return b
}

// matches reports whether e, nil if it is absent, is what a CompareAndSwap of
// old asks for.
func (e *entry) matches(old []byte) bool {
	if e == nil || old == nil {
		return e == nil && old == nil
	}
	return bytes.Equal(e.value, old)
}

// queue is a heap of entries, the one that expires first at the top; of those
// that expire together, the one that was written first.
type queue struct {
	entries []*entry
	bytes   int64
}

func (q *queue) first() *entry {
	if len(q.entries) == 0 {
		return nil
	}
	return q.entries[0]
}

func (q *queue) add(e *entry) {
	q.bytes += e.size()
	q.entries = append(q.entries, e)
	q.up(len(q.entries)-1, e)
}

func (q *queue) remove(e *entry) {
	q.bytes -= e.size()
	n := len(q.entries) - 1
	last := q.entries[n]
	q.entries[n] = nil
	q.entries = q.entries[:n]
	if last != e {
		q.up(q.down(int(e.index), last), last)
	}
}

// up places e at i or above it.
func (q *queue) up(i int, e *entry) {
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(q.entries[parent]) {
			break
		}
		q.set(i, q.entries[parent])
		i = parent
	}
	q.set(i, e)
}

// down makes a hole at i, moves it to where no entry below it comes before e,
// and returns that place.
func (q *queue) down(i int, e *entry) int {
	for {
		child := 2*i + 1
		if child >= len(q.entries) {
			return i
		}
		if right := child + 1; right < len(q.entries) && q.entries[right].before(q.entries[child]) {
			child = right
		}
		if !q.entries[child].before(e) {
			return i
		}
		q.set(i, q.entries[child])
		i = child
	}
}

func (q *queue) set(i int, e *entry) {
	q.entries[i] = e
	e.index = int32(i)
}

func (e *entry) before(f *entry) bool {
	return e.expires < f.expires || e.expires == f.expires && e.seq < f.seq
}
