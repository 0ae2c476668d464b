package storetest

import (
	"context"
	"iter"
	"slices"
	"time"

	"example.com/plainware/store"
)

// brokenStores are wrong in one way each, as real ones have been.
var brokenStores = slices.Concat(brokenValues, brokenTimes, brokenRegisters, brokenSeveral, brokenOptional)

type brokenStore struct {
	name   string
	breaks string // the rules it breaks, and no others unless it says ...
	open   func() (s, second store.Store)
}

// one opens a store that f has broken.
func one(f func(s *reference) store.Store) func() (store.Store, store.Store) {
	return func() (store.Store, store.Store) {
		s := f(newReference())
		return s, s
	}
}

// methods overrides those methods of a reference that are not nil.
type methods struct {
	*reference
	get     func(key string) ([]byte, bool, error)
	put     func(key string, b []byte, ttl time.Duration) error
	swap    func(key string, old, new []byte, ttl time.Duration) (bool, error)
	delete  func(key string) error
	touch   func(key string, ttl time.Duration) (bool, error)
	scan    func(prefix string) iter.Seq2[string, error]
	advance func(op store.Op) (store.Result, error)
	batch   func(ops []store.Op, res []store.Result) error
	all     func(ops []store.Op, res []store.Result) (bool, error)
	close   func() error
	keep    store.Store
}

func (m *methods) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if m.get != nil {
		return m.get(key)
	}
	return m.reference.Get(ctx, key)
}

func (m *methods) Put(ctx context.Context, key string, b []byte, ttl time.Duration) error {
	if m.put != nil {
		return m.put(key, b, ttl)
	}
	return m.reference.Put(ctx, key, b, ttl)
}

func (m *methods) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	if m.swap != nil {
		return m.swap(key, old, new, ttl)
	}
	return m.reference.CompareAndSwap(ctx, key, old, new, ttl)
}

func (m *methods) Delete(ctx context.Context, key string) error {
	if m.delete != nil {
		return m.delete(key)
	}
	return m.reference.Delete(ctx, key)
}

func (m *methods) Touch(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	if m.touch != nil {
		return m.touch(key, ttl)
	}
	return m.reference.Touch(ctx, key, ttl)
}

func (m *methods) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	if m.scan != nil {
		return m.scan(prefix)
	}
	return m.reference.Scan(ctx, prefix)
}

func (m *methods) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	if m.advance != nil {
		return m.advance(op)
	}
	return m.reference.Advance(ctx, op)
}

func (m *methods) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	if m.batch != nil {
		return m.batch(ops, res)
	}
	return m.reference.AdvanceBatch(ctx, ops, res)
}

func (m *methods) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (bool, error) {
	if m.all != nil {
		return m.all(ops, res)
	}
	return m.reference.AdvanceAll(ctx, ops, res)
}

func (m *methods) Close() error {
	if m.close != nil {
		return m.close()
	}
	return m.reference.Close()
}

func (m *methods) Keep() (store.Store, error) {
	if m.keep != nil {
		return m.keep, nil
	}
	return m.reference.Keep()
}

var bg = context.Background()

// hold is how long a broken store leaves a gap in which others may come.
const hold = time.Microsecond

// renamed is a store that uses f(key) for key, in every method.
func renamed(f func(key string) string) func(r *reference) store.Store {
	return func(r *reference) store.Store {
		return &methods{
			reference: r,
			get:       func(key string) ([]byte, bool, error) { return r.Get(bg, f(key)) },
			put:       func(key string, b []byte, ttl time.Duration) error { return r.Put(bg, f(key), b, ttl) },
			swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				return r.CompareAndSwap(bg, f(key), old, new, ttl)
			},
			delete: func(key string) error { return r.Delete(bg, f(key)) },
			touch:  func(key string, ttl time.Duration) (bool, error) { return r.Touch(bg, f(key), ttl) },
		}
	}
}

// withTTL is a store that uses f(ttl) for ttl, in every method.
func withTTL(f func(ttl time.Duration) time.Duration) func(r *reference) store.Store {
	return func(r *reference) store.Store {
		return &methods{
			reference: r,
			put:       func(key string, b []byte, ttl time.Duration) error { return r.Put(bg, key, b, f(ttl)) },
			swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				return r.CompareAndSwap(bg, key, old, new, f(ttl))
			},
			touch: func(key string, ttl time.Duration) (bool, error) { return r.Touch(bg, key, f(ttl)) },
		}
	}
}
