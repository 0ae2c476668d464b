package store

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
)

// ways is how many registers share a bucket: as many as fill three cache lines.
const ways = 8

// bucket is filled from its beginning, so that a table with room to spare is
// asked for the first of the three lines only.
type bucket [ways]register

// register is a slot of a bucket. It is free once it has expired, as zeroed
// memory has.
type register struct {
	tag     uint64
	value   int64
	expires int64 // ns since 1970
}

// stripe is the lock of every 256th bucket, on a cache line of its own.
type stripe struct {
	mu      sync.Mutex
	last    int64 // the latest instant that judged an operation
	evicted uint64
	_       [40]byte
}

// table is a set-associative table of registers. It has no pointers but those
// of this struct, and its size never changes.
type table struct {
	clock   clock
	space   maphash.Seed
	key     maphash.Seed
	buckets []bucket
	stripes [256]stripe
}

func newTable(registers int, c clock) *table {
	return &table{
		clock:   c,
		space:   maphash.MakeSeed(),
		key:     maphash.MakeSeed(),
		buckets: make([]bucket, (registers+ways-1)/ways),
	}
}

// tag returns the identity of a register. The two parts are hashed by
// independent functions, so that it matters where one ends.
func (t *table) tag(op *Op) uint64 {
	return maphash.String(t.space, op.Space) ^ maphash.String(t.key, op.Key)
}

// place returns the bucket of a tag and the number of its stripe.
func (t *table) place(tag uint64) (*bucket, int) {
	i, _ := bits.Mul64(tag, uint64(len(t.buckets)))
	return &t.buckets[i], int(i % uint64(len(t.stripes)))
}

// lock takes the lock of s and returns the time. That is read before, since it
// takes longer than all that is done under the lock, and the later of two
// operations may have read it first: time stands still until it is past the
// instant of the other, which lies within the call of either.
func (s *stripe) lock(c *clock) (now int64) {
	now = c.now()
	s.mu.Lock()
	now = max(now, s.last)
	s.last = now
	return now
}

// advance does op on the register of tag in b, whose slot is that or -1. The
// lock s of b is held.
func (s *stripe) advance(b *bucket, slot int, tag uint64, now int64, op *Op) Result {
	found := b.at(slot)
	live := found.expires > now
	r, save := op.Apply(now, found.value, live, true)
	expires := found.expires
	switch {
	case op.Clock:
		expires = now + r.Expires
	case live || save:
		if !live {
			expires = deadline(now, op.TTL)
		}
		if expires != never {
			r.Expires = expires - now
		}
	}
	if !save {
		return r
	}
	if slot < 0 {
		if expires <= now {
			return r // a register at its floor is as good as none
		}
		slot = b.first()
		if b[slot].expires > now {
			s.evicted++
		}
	}
	b[slot] = register{tag, r.Value, expires}
	return r
}

// find returns the slot of a tag, or -1.
func (b *bucket) find(tag uint64) int {
	for i := range ways {
		if b[i].tag == tag {
			return i
		}
	}
	return -1
}

// first returns the slot that expires first.
func (b *bucket) first() int {
	slot := 0
	for i := 1; i < ways; i++ {
		if b[i].expires < b[slot].expires {
			slot = i
		}
	}
	return slot
}

// at returns what is in slot, or for -1 what has expired.
func (b *bucket) at(slot int) register {
	if slot < 0 {
		return register{}
	}
	return b[slot]
}

func (t *table) evicted() (n uint64) {
	for i := range t.stripes {
		s := &t.stripes[i]
		s.mu.Lock()
		n += s.evicted
		s.mu.Unlock()
	}
	return n
}

// Advance implements [Registers].
func (m *Memory) Advance(ctx context.Context, op Op) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if err := op.checkBounds(); err != nil {
		return Result{}, err
	}
	if len(op.Space) > MaxKey || len(op.Key) > MaxKey {
		return Result{}, op.checkKeys()
	}
	t := m.table.Load()
	if t == nil {
		return Result{}, ErrClosed
	}
	tag := t.tag(&op)
	b, i := t.place(tag)
	s := &t.stripes[i]
	now := s.lock(&t.clock)
	slot := b.find(tag)
	if slot < 0 {
		// The keys of what is in the table were checked when it was put there.
		if err := op.checkKeys(); err != nil {
			s.mu.Unlock()
			return Result{}, err
		}
	}
	r := s.advance(b, slot, tag, now, &op)
	s.mu.Unlock()
	return r, nil
}

// AdvanceBatch implements [BatchRegisters]. If an operation is wrong, none is
// done.
func (m *Memory) AdvanceBatch(ctx context.Context, ops []Op, res []Result) error {
	t, err := m.checkAll(ctx, ops, res)
	if err != nil {
		return err
	}
	for i := range ops {
		tag := t.tag(&ops[i])
		b, stripe := t.place(tag)
		s := &t.stripes[stripe]
		now := s.lock(&t.clock)
		res[i] = s.advance(b, b.find(tag), tag, now, &ops[i])
		s.mu.Unlock()
	}
	return nil
}

// AdvanceAll implements [AtomicRegisters]. Up to 16 operations allocate
// nothing.
func (m *Memory) AdvanceAll(ctx context.Context, ops []Op, res []Result) (applied bool, err error) {
	t, err := m.checkAll(ctx, ops, res)
	if err != nil {
		return false, err
	}
	var array, copied [16]uint64
	tags, sorted := array[:0], copied[:0]
	if len(ops) > len(array) {
		tags, sorted = make([]uint64, 0, len(ops)), make([]uint64, 0, len(ops))
	}
	var locked stripeSet
	for i := range ops {
		tag := t.tag(&ops[i])
		tags = append(tags, tag)
		_, stripe := t.place(tag)
		locked[stripe/64] |= 1 << (stripe % 64)
	}
	sorted = append(sorted, tags...)
	slices.Sort(sorted)
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return false, fmt.Errorf("%w: two operations have the same register", ErrOp)
		}
	}

	// In the order of their numbers, so that no two calls wait for each other.
	now := t.clock.now()
	for i := locked.next(0); i >= 0; i = locked.next(i + 1) {
		s := &t.stripes[i]
		s.mu.Lock()
		now = max(now, s.last)
	}
	applied = true
	for i := range ops {
		b, _ := t.place(tags[i])
		found := b.at(b.find(tags[i]))
		res[i], _ = ops[i].Apply(now, found.value, found.expires > now, true)
		applied = applied && res[i].Granted >= ops[i].Min
	}
	for i := range ops {
		b, stripe := t.place(tags[i])
		s := &t.stripes[stripe]
		if applied {
			// Should it evict the register of a later operation, that one can
			// be granted all the more.
			res[i] = s.advance(b, b.find(tags[i]), tags[i], now, &ops[i])
			continue
		}
		peek := ops[i]
		peek.Min, peek.Max = 0, 0
		granted := res[i].Granted
		res[i] = s.advance(b, b.find(tags[i]), tags[i], now, &peek)
		res[i].Granted = granted
	}
	for i := locked.next(0); i >= 0; i = locked.next(i + 1) {
		s := &t.stripes[i]
		s.last = now
		s.mu.Unlock()
	}
	return applied, nil
}

// stripeSet has a bit for each stripe.
type stripeSet [len(table{}.stripes) / 64]uint64

// next returns the first of the set from i on, -1 if there is none.
func (s *stripeSet) next(i int) int {
	for i < 64*len(s) {
		if word := s[i/64] >> (i % 64); word != 0 {
			return i + bits.TrailingZeros64(word)
		}
		i = (i/64 + 1) * 64
	}
	return -1
}

// checkAll returns the table if ops can be done.
func (m *Memory) checkAll(ctx context.Context, ops []Op, res []Result) (*table, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(ops) != len(res) {
		return nil, fmt.Errorf("%w: %d operations and room for %d results", ErrOp, len(ops), len(res))
	}
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
	}
	t := m.table.Load()
	if t == nil {
		return nil, ErrClosed
	}
	return t, nil
}
