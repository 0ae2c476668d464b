// Package store is the kit's contract for shared state, and its in-memory
// backend.
//
// Rate limits, breakers, sessions and replay guards keep what they must share
// in a [Store]: four methods that any database can implement. Backends that can
// do more say so through small interfaces ([Registers], [BatchRegisters],
// [AtomicRegisters], [Toucher], [Scanner], [Keeper]), which [As] finds.
//
// Beside [NewMemory] the kit has backends for SQLite, Postgres and
// Redis/Valkey in subpackages of their own. A backend of your own is four
// methods, checked by the suite in store/storetest. None needs to import this
// package for its methods: they use basic types only.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// Store keeps values under keys for a time.
//
// # Concurrency
//
// All methods may be called concurrently, from any number of processes that
// share the backend. Per key the store is linearizable: each call takes effect
// at one instant between its start and its return, and what a call has made
// visible stays visible. Nothing is promised across keys.
//
// # Keys
//
// A key is 1 to 512 bytes of valid UTF-8 without the zero byte; every other
// byte, space, newline, brace and quote included, is as good as a letter. Any
// other key is refused with an error that is [ErrKey]. Keys are compared byte by
// byte. Values and registers do not share a space: a value and a register may
// have the same key.
//
// # Values
//
// A value is any bytes, up to at least 1 MiB. An empty value is not an absent
// one, and a nil slice given to Put is the empty value. The store copies what it
// is given and what it returns belongs to the caller; no slice is shared.
//
// # Time
//
// A ttl is a duration, never an instant: the backend's clock expires the key,
// so a caller with a wrong clock can create neither immortal nor stillborn
// ones. Zero is no expiry, and a negative ttl is an error that is [ErrTTL]. A
// ttl below the backend's resolution is rounded up, and one beyond its range may
// be no expiry. An expired key is absent in
// every respect, from the moment of its expiry, whether or not its space was
// reclaimed.
//
// # Errors
//
// Absence and a lost CompareAndSwap are results, not errors. An error means
// that the outcome is unknown: the call may have been applied, or may be applied
// still. Every method returns soon after ctx ends, at the latest when the
// backend's own time limit passes. Errors never contain keys or values.
type Store interface {
	// Get returns the value under key, and whether there is one. It sees every
	// write that returned before it was called.
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)

	// Put sets the value under key whatever is there, for ttl from now.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// CompareAndSwap sets the value under key, for ttl from now, if the value
	// there equals old, byte by byte. A nil old means that the key must be
	// absent; an empty one that it must hold the empty value. A nil new deletes
	// the key, and the ttl has no meaning. It reports whether the swap
	// happened: with both nil, whether the key is absent. A swap to the same
	// value is one, and sets the ttl.
	CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error)

	// Delete removes key. It is no error if it is absent.
	Delete(ctx context.Context, key string) error
}

// The errors of arguments. Test with errors.Is.
var (
	ErrKey  = errors.New("store: a key must be 1 to 512 bytes of UTF-8 without a zero byte")
	ErrTTL  = errors.New("store: a ttl must not be negative")
	ErrSize = errors.New("store: the value is larger than the backend takes")
	ErrOp   = errors.New("store: bad register operation")

	// ErrFull is returned by bounded backends for a value that they have no
	// room for, since they promised to keep what fills it.
	ErrFull = errors.New("store: full")

	// ErrClosed is returned by a backend that was closed.
	ErrClosed = errors.New("store: closed")
)

// MaxKey is the length of the longest key in bytes.
const MaxKey = 512

// CheckKey returns an error that is [ErrKey] if key is not one. Backends use it.
func CheckKey(key string) error {
	if len(key) == 0 || len(key) > MaxKey || !utf8.ValidString(key) {
		return fmt.Errorf("%w (got %d bytes)", ErrKey, len(key))
	}
	if strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%w (got a zero byte)", ErrKey)
	}
	return nil
}

// CheckTTL returns an error that is [ErrTTL] if ttl is not one. Backends use it.
func CheckTTL(ttl time.Duration) error {
	if ttl < 0 {
		return fmt.Errorf("%w (got %v)", ErrTTL, ttl)
	}
	return nil
}

// Toucher is a [Store] that can give a key a new ttl without writing its value
// again, for idle timeouts.
type Toucher interface {
	// Touch makes the key expire ttl from now, or never for zero, and reports
	// whether it is there.
	Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error)
}

// Scanner is a [Store] that can list its keys, for administration: it may be
// slow, and must not be part of serving a request.
type Scanner interface {
	// Scan ranges over the keys of values that begin with prefix, in no
	// particular order. A key that is there during the whole scan appears at
	// least once; one that comes or goes may appear or not; one may appear
	// twice. An error is the last thing it yields. The loop may call any method
	// of the store.
	Scan(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// Keeper is a [Store] with a view for values that matter, see [Keep].
type Keeper interface {
	Keep() (Store, error)
}

// Keep returns a view of s whose values are never evicted before their ttl and
// are written at the full durability of the backend: they survive power loss
// where the backend can survive it. Claims of replay guards, revocations and
// breaker records go there, since losing one lets something happen twice. The
// view has the keys of s, and what is written through either is read through
// both; closing s ends it. It fails if the backend cannot promise it, and says
// what an operator has to change.
func Keep(s Store) (Store, error) {
	k, ok := As[Keeper](s)
	if !ok {
		return nil, fmt.Errorf("store: %T cannot promise to keep values: it has no Keep method", s)
	}
	return k.Keep()
}

// As returns the first in the chain of wrappers that begins with s that is a
// T, and whether there is one. A wrapper that changes what a call means (the
// key of [Prefix], say) has no Unwrap, and implements what it can pass on; one
// that only watches has an Unwrap() Store method.
func As[T any](s Store) (T, bool) {
	for s != nil {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(interface{ Unwrap() Store })
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	var none T
	return none, false
}
