package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// Prefix returns a view of s whose keys, and whose registers' Spaces, begin with
// prefix in s. Programs, tenants or tests that share a backend do not meet so.
// Let prefix end with a byte that none of them has elsewhere, as in "blue/", since
// the key "b" under the prefix "a" is the key "" under "ab".
//
// The view has the capabilities that [As] finds in s, and no others. Scan lists
// the keys without the prefix. Keys are shorter: those that have more than
// [MaxKey] bytes together with the prefix are refused with [ErrKey]. A prefix is
// under the rules of a key and has at most 256 bytes. There is no Close: whoever
// opened s closes it.
func Prefix(s Store, prefix string) (Store, error) {
	if s == nil {
		return nil, errors.New("store: Prefix: the store must not be nil")
	}
	if err := CheckKey(prefix); err != nil {
		return nil, fmt.Errorf("store: Prefix: %w", err)
	}
	if len(prefix) > MaxKey/2 {
		return nil, fmt.Errorf("store: Prefix: a prefix must have at most %d bytes (got %d)", MaxKey/2, len(prefix))
	}
	p := &prefixed{s, prefix}
	// As finds the capabilities in a chain of views, each of which has one:
	// one type for each set of them would be many.
	var next Store
	if k, ok := As[Keeper](s); ok {
		next = &prefixedKeeper{prefixedView{p, next}, k}
	}
	if sc, ok := As[Scanner](s); ok {
		next = &prefixedScanner{prefixedView{p, next}, sc}
	}
	if t, ok := As[Toucher](s); ok {
		next = &prefixedToucher{prefixedView{p, next}, t}
	}
	if a, ok := As[AtomicRegisters](s); ok {
		next = &prefixedAtomic{prefixedView{p, next}, a}
	}
	if b, ok := As[BatchRegisters](s); ok {
		next = &prefixedBatch{prefixedView{p, next}, b}
	}
	if r, ok := As[Registers](s); ok {
		next = &prefixedRegisters{prefixedView{p, next}, r}
	}
	return prefixedView{p, next}, nil
}

// prefixed has the four methods of a store.
type prefixed struct {
	inner  Store
	prefix string
}

// prefixedView is a link of the chain. Its Unwrap never leads to the inner
// store, for which the same key is another.
type prefixedView struct {
	*prefixed
	next Store
}

func (v prefixedView) Unwrap() Store { return v.next }

// key returns what key is in the inner store.
func (p *prefixed) key(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	if n := len(p.prefix) + len(key); n > MaxKey {
		return "", fmt.Errorf("%w (got %d bytes with the prefix)", ErrKey, n)
	}
	return p.prefix + key, nil
}

// op returns what op is in the inner store.
func (p *prefixed) op(op Op) (Op, error) {
	if err := op.Check(); err != nil {
		return op, err
	}
	if n := len(p.prefix) + len(op.Space) + len(op.Key); n > MaxKey {
		return op, fmt.Errorf("op.Space and op.Key: %w (got %d bytes together with the prefix)", ErrKey, n)
	}
	op.Space = p.prefix + op.Space
	return op, nil
}

func (p *prefixed) ops(ops []Op) ([]Op, error) {
	inner := make([]Op, len(ops))
	for i := range ops {
		op, err := p.op(ops[i])
		if err != nil {
			return nil, err
		}
		inner[i] = op
	}
	return inner, nil
}

func (p *prefixed) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if key, err = p.key(key); err != nil {
		return nil, false, err
	}
	return p.inner.Get(ctx, key)
}

func (p *prefixed) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	key, err := p.key(key)
	if err != nil {
		return err
	}
	return p.inner.Put(ctx, key, value, ttl)
}

func (p *prefixed) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	if key, err = p.key(key); err != nil {
		return false, err
	}
	return p.inner.CompareAndSwap(ctx, key, old, new, ttl)
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	key, err := p.key(key)
	if err != nil {
		return err
	}
	return p.inner.Delete(ctx, key)
}

func (p *prefixed) advance(ctx context.Context, r Registers, op Op) (Result, error) {
	op, err := p.op(op)
	if err != nil {
		return Result{}, err
	}
	return r.Advance(ctx, op)
}

type prefixedRegisters struct {
	prefixedView
	r Registers
}

func (p *prefixedRegisters) Advance(ctx context.Context, op Op) (Result, error) {
	return p.advance(ctx, p.r, op)
}

type prefixedBatch struct {
	prefixedView
	b BatchRegisters
}

func (p *prefixedBatch) Advance(ctx context.Context, op Op) (Result, error) {
	return p.advance(ctx, p.b, op)
}

func (p *prefixedBatch) AdvanceBatch(ctx context.Context, ops []Op, res []Result) error {
	inner, err := p.ops(ops)
	if err != nil {
		return err
	}
	return p.b.AdvanceBatch(ctx, inner, res)
}

type prefixedAtomic struct {
	prefixedView
	a AtomicRegisters
}

func (p *prefixedAtomic) Advance(ctx context.Context, op Op) (Result, error) {
	return p.advance(ctx, p.a, op)
}

func (p *prefixedAtomic) AdvanceAll(ctx context.Context, ops []Op, res []Result) (applied bool, err error) {
	inner, err := p.ops(ops)
	if err != nil {
		return false, err
	}
	return p.a.AdvanceAll(ctx, inner, res)
}

type prefixedToucher struct {
	prefixedView
	t Toucher
}

func (p *prefixedToucher) Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	if key, err = p.key(key); err != nil {
		return false, err
	}
	return p.t.Touch(ctx, key, ttl)
}

type prefixedScanner struct {
	prefixedView
	s Scanner
}

func (p *prefixedScanner) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for key, err := range p.s.Scan(ctx, p.prefix+prefix) {
			if err != nil {
				yield("", err)
				return
			}
			if !yield(strings.TrimPrefix(key, p.prefix), nil) {
				return
			}
		}
	}
}

type prefixedKeeper struct {
	prefixedView
	k Keeper
}

func (p *prefixedKeeper) Keep() (Store, error) {
	kept, err := p.k.Keep()
	if err != nil {
		return nil, err
	}
	return Prefix(kept, p.prefix)
}
