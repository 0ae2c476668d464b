package store_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// mapStore is a backend as a user may write it: the four methods, no more.
type mapStore struct {
	mu     sync.Mutex
	values map[string]mapValue
	now    func() time.Time
}

type mapValue struct {
	value []byte
	ends  time.Time // zero: never
}

func newMapStore() *mapStore { return &mapStore{values: map[string]mapValue{}, now: time.Now} }

func (s *mapStore) Get(_ context.Context, key string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.find(key)
	return bytes.Clone(v.value), ok, store.CheckKey(key)
}

func (s *mapStore) Put(_ context.Context, key string, value []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(key, append([]byte{}, value...), ttl)
}

func (s *mapStore) CompareAndSwap(_ context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.find(key); ok != (old != nil) || ok && !bytes.Equal(v.value, old) {
		return false, store.CheckTTL(ttl)
	}
	if new == nil {
		delete(s.values, key)
		return true, store.CheckKey(key)
	}
	err := s.set(key, append([]byte{}, new...), ttl)
	return err == nil, err
}

func (s *mapStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return store.CheckKey(key)
}

func (s *mapStore) find(key string) (mapValue, bool) {
	v, ok := s.values[key]
	if ok = ok && (v.ends.IsZero() || s.now().Before(v.ends)); !ok {
		delete(s.values, key)
		return mapValue{}, false
	}
	return v, true
}

func (s *mapStore) set(key string, value []byte, ttl time.Duration) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	v := mapValue{value: value}
	if ttl > 0 {
		v.ends = s.now().Add(ttl)
	} else if err := store.CheckTTL(ttl); err != nil {
		return err
	}
	s.values[key] = v
	return nil
}

// store 5: a backend of four methods and sixty lines conforms.
func TestMapStore(t *testing.T) {
	t.Parallel()
	storetest.RunWith(t, storetest.Options{
		Open:   func(*testing.T) store.Store { return newMapStore() },
		Second: func(_ *testing.T, s store.Store) store.Store { return s },
	})
}

// with is a store that has been given registers, and nothing that s has beside
// the four methods.
type with struct {
	four
	store.Registers
}

// four is a store that hides whatever else it can do.
type four struct{ store.Store }

func openMemory(t testing.TB) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tokens takes n from a token bucket of burst tokens, one more each interval.
func tokens(key string, interval time.Duration, burst, n int64) store.Op {
	return store.Op{Space: "tokens", Key: key, Clock: true, Ceil: burst * int64(interval), Step: int64(interval), Min: n, Max: n}
}

// counter takes n from a count of at most ceil.
func counter(key string, ceil, n int64) store.Op {
	return store.Op{Space: "count", Key: key, Ceil: ceil, Step: 1, Min: n, Max: n}
}
