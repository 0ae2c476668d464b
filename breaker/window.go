package breaker

import (
	"math/rand/v2"
	"sync/atomic"
)

const (
	// buckets is how many parts a window has. A window reaches back over the
	// part that is being filled and the nine before.
	buckets = 10

	// slots are more than buckets, so that a call that is late in adding to a
	// part does not meet the one that takes its place.
	slots = 16

	// stripes spread what is counted most often over cache lines, so that
	// processors do not wait for each other.
	stripes = 4
)

// bucket counts the calls of one part of time. It belongs to that part for ever:
// what adds late adds to the past, and nothing is ever set back.
type bucket struct {
	index int64 // which part since the breaker was made
	bad   atomic.Int64
	slow  atomic.Int64 // of both

	// What the store was told of, and what before the last time. Of the syncer
	// alone.
	sent, before counts

	ok [stripes]struct {
		n atomic.Int64
		_ [56]byte
	}
}

// success counts one.
func (b *bucket) success() { b.ok[rand.Uint32()%stripes].n.Add(1) }

// successes returns how many there are.
func (b *bucket) successes() (n int64) {
	for i := range b.ok {
		n += b.ok[i].n.Load()
	}
	return n
}

// window counts calls over the last parts of time without a lock. A part costs
// one allocation, when the first call in it ends.
type window struct {
	slots [slots]atomic.Pointer[bucket]
}

// at returns the bucket of a part of time, for adding.
func (w *window) at(index int64) *bucket {
	slot := &w.slots[index&(slots-1)]
	for {
		b := slot.Load()
		if b != nil && b.index == index {
			return b
		}
		fresh := &bucket{index: index}
		if b != nil && b.index > index {
			return fresh // of a call that has slept for a whole window
		}
		if slot.CompareAndSwap(b, fresh) {
			return fresh
		}
	}
}

// counts are what a window holds.
type counts struct {
	calls, bad, slow int64
}

// sum counts the window that ends with the part index.
func (w *window) sum(index int64) (c counts) {
	for i := range w.slots {
		if b := w.slots[i].Load(); b != nil && b.index > index-buckets && b.index <= index {
			bad := b.bad.Load()
			c.calls += b.successes() + bad
			c.bad += bad
			c.slow += b.slow.Load()
		}
	}
	return c
}
