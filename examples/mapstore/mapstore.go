// Package mapstore is the smallest backend that there can be: a map under a
// lock. Take it as the beginning of one for the database that you have.
//
// The four methods are the whole obligation. Rate limits and everything else
// that needs registers get them from store.RegistersOf, and the test beside this
// file finds out whether a rule of the contract is broken.
package mapstore

import (
	"bytes"
	"context"
	"sync"
	"time"

	"example.com/plainware/store"
)

// Store is a [store.Store]. What expires and is never asked for again stays in
// the map: a real one needs something that sweeps, or store.NewMemory.
type Store struct {
	mu     sync.Mutex
	values map[string]entry
}

type entry struct {
	value []byte
	ends  time.Time // zero: never
}

// New returns an empty store.
func New() *Store { return &Store{values: make(map[string]entry)} }

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	err = s.locked(ctx, key, 0, func() { value, ok = s.find(key) })
	return value, ok, err
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.locked(ctx, key, ttl, func() { s.set(key, value, ttl) })
}

// CompareAndSwap implements [store.Store]. A nil old is an absent key, a nil new
// deletes; an empty slice is a value like any other.
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	if new == nil {
		ttl = 0
	}
	err = s.locked(ctx, key, ttl, func() {
		is, ok := s.find(key)
		if swapped = ok == (old != nil) && bytes.Equal(is, old); !swapped {
			return
		}
		if new == nil {
			delete(s.values, key)
		} else {
			s.set(key, new, ttl)
		}
	})
	return swapped, err
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.locked(ctx, key, 0, func() { delete(s.values, key) })
}

// locked runs f alone, unless the arguments are bad or the caller has gone.
func (s *Store) locked(ctx context.Context, key string, ttl time.Duration, f func()) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if err := store.CheckTTL(ttl); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	f()
	return nil
}

// find returns a copy of what lives under key: the slice belongs to the caller.
func (s *Store) find(key string) (value []byte, ok bool) {
	e, ok := s.values[key]
	if !ok || !e.ends.IsZero() && !time.Now().Before(e.ends) {
		delete(s.values, key)
		return nil, false
	}
	return append([]byte{}, e.value...), true
}

func (s *Store) set(key string, value []byte, ttl time.Duration) {
	e := entry{value: append([]byte{}, value...)}
	if ttl > 0 {
		e.ends = time.Now().Add(ttl)
	}
	s.values[key] = e
}
