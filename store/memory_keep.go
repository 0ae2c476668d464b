package store

import (
	"context"
	"iter"
	"time"
)

// Keep implements [Keeper]. A value written or touched through the view is not
// evicted; it counts against MaxBytes like any other, and where there is no
// room for it, once everything else was evicted, writing it fails with
// [ErrFull]. A value that is later written through m itself is an ordinary one.
// What is kept ends with the process: nothing here survives a restart.
func (m *Memory) Keep() (Store, error) {
	if m.table.Load() == nil {
		return nil, ErrClosed
	}
	return memoryKeep{m}, nil
}

// memoryKeep is the view of a Memory that keeps. It has no registers, since
// those of a Memory can be evicted, and no Unwrap, which would find them.
type memoryKeep struct{ m *Memory }

var _ interface {
	Store
	Toucher
	Scanner
	Keeper
} = memoryKeep{}

func (k memoryKeep) Get(ctx context.Context, key string) ([]byte, bool, error) {
	return k.m.Get(ctx, key)
}

func (k memoryKeep) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return k.m.put(ctx, key, value, ttl, true)
}

func (k memoryKeep) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	return k.m.compareAndSwap(ctx, key, old, new, ttl, true)
}

func (k memoryKeep) Delete(ctx context.Context, key string) error {
	return k.m.Delete(ctx, key)
}

func (k memoryKeep) Touch(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	return k.m.touch(ctx, key, ttl, true)
}

func (k memoryKeep) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return k.m.Scan(ctx, prefix)
}

func (k memoryKeep) Keep() (Store, error) { return k.m.Keep() }
