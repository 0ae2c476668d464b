package storetest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/plainware/store"
)

// reference is a store that does everything, as simply as it can be done. The
// broken ones are made of it.
type reference struct {
	mu        sync.Mutex
	values    map[string]value
	registers map[[2]string]register

	// What a broken one does otherwise.
	apply func(op *store.Op, now, stored int64, live bool) (store.Result, bool)
	name  func(op *store.Op) [2]string
	check func(op *store.Op) error
	renew bool // operations prolong counts
}

type value struct {
	bytes []byte
	ends  time.Time // zero: never
}

type register struct {
	value int64
	ends  time.Time // of a count; zero: never
}

func newReference() *reference {
	return &reference{
		values:    map[string]value{},
		registers: map[[2]string]register{},
		apply: func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			return op.Apply(now, stored, live, true)
		},
		name:  func(op *store.Op) [2]string { return [2]string{op.Space, op.Key} },
		check: (*store.Op).Check,
	}
}

func ends(ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return time.Now().Add(ttl)
}

func ended(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// find returns what lives under key. It is called with mu held.
func (s *reference) find(key string) (value, bool) {
	v, ok := s.values[key]
	return v, ok && !ended(v.ends)
}

func (s *reference) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.find(key)
	if !ok {
		return nil, false, nil
	}
	return bytes.Clone(v.bytes), true, nil
}

func (s *reference) Put(ctx context.Context, key string, b []byte, ttl time.Duration) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if err := store.CheckTTL(ttl); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value{append([]byte{}, b...), ends(ttl)}
	return nil
}

func (s *reference) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	if err := store.CheckKey(key); err != nil {
		return false, err
	}
	if err := store.CheckTTL(ttl); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.find(key)
	if ok != (old != nil) || ok && !bytes.Equal(v.bytes, old) {
		return false, nil
	}
	if new == nil {
		delete(s.values, key)
	} else {
		s.values[key] = value{append([]byte{}, new...), ends(ttl)}
	}
	return true, nil
}

func (s *reference) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *reference) Touch(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	if err := store.CheckKey(key); err != nil {
		return false, err
	}
	if err := store.CheckTTL(ttl); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.find(key)
	if ok {
		s.values[key] = value{v.bytes, ends(ttl)}
	}
	return ok, nil
}

func (s *reference) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return s.scan(func(key string) bool { return strings.HasPrefix(key, prefix) })
}

func (s *reference) scan(match func(key string) bool) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s.mu.Lock()
		keys := slices.Collect(maps.Keys(s.values))
		keys = slices.DeleteFunc(keys, func(k string) bool {
			_, ok := s.find(k)
			return !ok || !match(k)
		})
		s.mu.Unlock()
		for _, k := range keys {
			if !yield(k, nil) {
				return
			}
		}
	}
}

func (s *reference) Keep() (store.Store, error) { return s, nil }

func (s *reference) Close() error { return nil }

// advance is called with mu held. It does not store what it finds if dry.
func (s *reference) advance(op *store.Op, dry bool) store.Result {
	id := s.name(op)
	now := time.Now()
	reg, live := s.registers[id]
	live = live && !ended(reg.ends)
	r, save := s.apply(op, now.UnixNano(), reg.value, live)
	if !op.Clock && (!live || s.renew) {
		reg.ends = ends(op.TTL)
	}
	if save && !dry {
		s.registers[id] = register{r.Value, reg.ends}
	}
	if !op.Clock && (live || save) && !reg.ends.IsZero() {
		r.Expires = int64(reg.ends.Sub(now))
	}
	return r
}

func (s *reference) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	if err := s.check(&op); err != nil {
		return store.Result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advance(&op, false), nil
}

func (s *reference) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	for i := range ops {
		if err := s.check(&ops[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range ops {
		res[i] = s.advance(&ops[i], false)
	}
	return nil
}

func (s *reference) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (bool, error) {
	seen := map[[2]string]bool{}
	for i := range ops {
		if err := s.check(&ops[i]); err != nil {
			return false, err
		}
		if id := s.name(&ops[i]); seen[id] {
			return false, fmt.Errorf("%w: two on one register", store.ErrOp)
		} else {
			seen[id] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fit := true
	for i := range ops {
		res[i] = s.advance(&ops[i], true)
		fit = fit && res[i].Granted >= ops[i].Min
	}
	for i, op := range ops {
		if fit {
			res[i] = s.advance(&op, false)
			continue
		}
		could := res[i].Granted
		op.Min, op.Max = 0, 0
		res[i] = s.advance(&op, false)
		res[i].Granted = could
	}
	return fit, nil
}
