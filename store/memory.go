package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync/atomic"
	"time"
)

// MemoryConfig configures a [Memory]. The zero value is useful.
type MemoryConfig struct {
	// Registers is how many registers there is room for, between 64 and 2^26.
	// Each takes 24 bytes, and all are allocated by NewMemory; the system backs
	// them with real memory as they are first used. 0 is 65,536, which is
	// 1.5 MiB.
	//
	// Make it twice the number that is in use at a time: then about one
	// register in a hundred is evicted before it expires. At three times it is
	// one in a thousand, and with no room to spare one in seven.
	Registers int

	// MaxBytes bounds the values: their bytes, those of their keys, and 160
	// bytes of bookkeeping for each; what an allocator adds for large values
	// comes on top. It is at least 2 MiB. 0 is 64 MiB, and negative is no
	// bound.
	MaxBytes int64
}

// Memory is a [Store] in the memory of one process. It implements every
// interface of this package. What it holds ends with the process.
//
// # Registers
//
// Registers are in a table of fixed size, in buckets of eight. A decision
// allocates nothing, whether its register is new or not, and what the table
// holds has no pointers for the garbage collector to follow.
//
// A new register whose bucket is full takes the place of the one that expires
// first, and Advance never fails for want of room. For a rate limit that is the
// one with the least to forget, and an exhausted key, which expires last, is
// the last to go. A flood of fresh keys evicts itself: of eight registers in a
// bucket that last longer it takes the place of one at most. Counts without a
// TTL are taken for the last to expire. [MemoryStats] counts evictions; if there
// are many in normal operation, Registers is too small.
//
// A register is known by a 64-bit hash of Space and Key under a random key of
// this Memory, so no key is stored. Two among n registers are taken for each
// other with a probability of n^2 / 2^65: 1 in 8 billion for 65,536 of them, 1
// in 30 million for a million. Nobody can look for such a pair who does not know
// the random key.
//
// # Values
//
// Values are in a map, under a cap. When it is reached, expired values go
// first, then those that expire first, then the ones without an expiry in the
// order of their writing; all this within one of 64 shards. Values that were
// never used (read, touched or swapped) since they were created go before those
// that were, as long as they hold more than an eighth of the shard. So a flood
// of new sessions that nobody comes back to evicts itself, and not the people
// who are logged in. Values written through [Memory.Keep] are never evicted.
// When these fill the cap, writing fails with [ErrFull].
//
// The space of an expired value is reclaimed when its key is used and, a few at
// a time, when other values are written. There is no goroutine.
//
// # Clock
//
// The clock is that of the computer at the time of NewMemory, and from there on
// monotonic: setting the computer's clock has no effect.
type Memory struct {
	table  atomic.Pointer[table] // nil once closed
	values values
}

var _ interface {
	Store
	BatchRegisters
	AtomicRegisters
	Toucher
	Scanner
	Keeper
} = (*Memory)(nil)

const (
	defaultRegisters = 1 << 16
	minRegisters     = 64
	maxRegisters     = 1 << 26 // 1.5 GiB, which a 32-bit address space can hold
	defaultMaxBytes  = 64 << 20
	minMaxBytes      = 2 << 20 // a value of 1 MiB and its successor
)

// NewMemory returns an empty Memory.
func NewMemory(c MemoryConfig) (*Memory, error) {
	registers := cmp.Or(c.Registers, defaultRegisters)
	maxBytes := cmp.Or(c.MaxBytes, defaultMaxBytes)
	if maxBytes < 0 {
		maxBytes = math.MaxInt64
	}
	var errs []error
	if registers < minRegisters || registers > maxRegisters {
		errs = append(errs, fmt.Errorf("store: Registers: must be between %d and %d (got %d)", minRegisters, maxRegisters, c.Registers))
	}
	if maxBytes < minMaxBytes {
		errs = append(errs, fmt.Errorf("store: MaxBytes: must be at least %d, or negative for no bound (got %d)", minMaxBytes, c.MaxBytes))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	clock := newClock()
	m := &Memory{}
	m.table.Store(newTable(registers, clock))
	m.values.init(maxBytes, clock)
	return m, nil
}

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := cmp.Or(ctx.Err(), CheckKey(key)); err != nil {
		return nil, false, err
	}
	return m.values.get(key)
}

// Put implements [Store]. It fails with [ErrSize] if the value alone exceeds
// MaxBytes, and with [ErrFull] if kept values leave no room for it.
func (m *Memory) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return m.put(ctx, key, value, ttl, false)
}

func (m *Memory) put(ctx context.Context, key string, value []byte, ttl time.Duration, keep bool) error {
	if err := cmp.Or(ctx.Err(), CheckKey(key), CheckTTL(ttl)); err != nil {
		return err
	}
	_, err := m.values.write(ctx, key, write{value: value, ttl: ttl, keep: keep})
	return err
}

// CompareAndSwap implements [Store]. It fails as Put does.
func (m *Memory) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	return m.compareAndSwap(ctx, key, old, new, ttl, false)
}

func (m *Memory) compareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration, keep bool) (bool, error) {
	if err := cmp.Or(ctx.Err(), CheckKey(key)); err != nil {
		return false, err
	}
	if new == nil {
		return m.values.remove(key, true, old)
	}
	if err := CheckTTL(ttl); err != nil {
		return false, err
	}
	return m.values.write(ctx, key, write{value: new, ttl: ttl, keep: keep, compare: true, old: old})
}

// Delete implements [Store].
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := cmp.Or(ctx.Err(), CheckKey(key)); err != nil {
		return err
	}
	_, err := m.values.remove(key, false, nil)
	return err
}

// Touch implements [Toucher].
func (m *Memory) Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	return m.touch(ctx, key, ttl, false)
}

func (m *Memory) touch(ctx context.Context, key string, ttl time.Duration, keep bool) (bool, error) {
	if err := cmp.Or(ctx.Err(), CheckKey(key), CheckTTL(ttl)); err != nil {
		return false, err
	}
	return m.values.touch(key, ttl, keep)
}

// Scan implements [Scanner]. It holds a 64th of the keys at a time, and yields
// without holding a lock, so the loop may use m.
func (m *Memory) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range m.values.shards {
			keys, err := m.values.keys(i, prefix)
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range keys {
				if err := ctx.Err(); err != nil {
					yield("", err)
					return
				}
				if !yield(key, nil) {
					return
				}
			}
		}
		// A scan that was cut short must not look complete.
		if err := ctx.Err(); err != nil {
			yield("", err)
		}
	}
}

// MemoryStats describes a [Memory] at a moment.
type MemoryStats struct {
	Registers        int    // how many registers there is room for
	RegistersEvicted uint64 // registers lost before they expired, since NewMemory
	Values           int    // values, those included that expired and were not reclaimed
	Bytes            int64  // what these count against MaxBytes
	ValuesEvicted    uint64 // values lost before they expired, since NewMemory
}

// Stats returns the statistics of m. It takes each lock of m in turn, which is
// some microseconds in all. Of a closed Memory it is zero.
func (m *Memory) Stats() MemoryStats {
	t := m.table.Load()
	if t == nil {
		return MemoryStats{}
	}
	s := MemoryStats{Registers: len(t.buckets) * ways, RegistersEvicted: t.evicted()}
	s.Values, s.Bytes, s.ValuesEvicted = m.values.stats()
	return s
}

// Close drops everything that m holds. What is called after it fails with
// [ErrClosed], views of [Memory.Keep] included. It returns nil.
func (m *Memory) Close() error {
	m.table.Store(nil)
	m.values.close()
	return nil
}

// clock reads the wall time as it was when the clock was made, and counts on
// from there. That is immune to steps of the wall clock, and time.Since is
// faster than time.Now.
type clock struct {
	start time.Time
	wall  int64
}

func newClock() clock {
	now := time.Now()
	return clock{now, now.UnixNano()}
}

// now returns ns since 1970.
func (c *clock) now() int64 { return c.wall + int64(time.Since(c.start)) }

// never is the instant of what does not expire.
const never = math.MaxInt64

// deadline returns the instant ttl from now. One that lies beyond the range of
// an int64 is the last within it.
func deadline(now int64, ttl time.Duration) int64 {
	if ttl == 0 {
		return never
	}
	return now + min(int64(ttl), never-1-now)
}
