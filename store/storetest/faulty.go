package storetest

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// Call is a call of a method of a store, as a fault function sees it.
type Call struct {
	Method string // "Get", "Put", "CompareAndSwap", "Delete", "Advance", "AdvanceBatch", "AdvanceAll", "Touch", "Scan" or "Keep"
	Key    string // of a register its Key, of a batch the first one's, of Scan the prefix
	N      int64  // 1 for the first call of any method, and so on
}

// Fault is what goes wrong with a call. The zero Fault is nothing. What is set
// happens in the order of the fields.
type Fault struct {
	// Stall keeps the call waiting until its context ends, and it returns the
	// context's error. It was not applied.
	Stall bool

	// Delay is how long the call waits before it is passed on, or less if its
	// context ends.
	Delay time.Duration

	// Before is returned instead of passing the call on.
	Before error

	// After is returned when the call was passed on, whatever it returned: it
	// was applied, and its caller cannot know. Of Keep, which has no context,
	// After is the same as Before, and the other faults do not happen.
	After error

	// Late is how long the answer waits after the call was applied. If the
	// context ends before, the context's error is returned.
	Late time.Duration
}

// Faulty returns a store that passes calls on to s, after it has asked fault
// what is to go wrong with each. It has the capabilities that [store.As] finds
// in s, under the same faults, and no others. fault is called concurrently, and
// may itself wait.
//
//	var down atomic.Bool
//	s := storetest.Faulty(mem, func(storetest.Call) storetest.Fault {
//		if down.Load() {
//			return storetest.Fault{Before: errors.New("connection refused")}
//		}
//		return storetest.Fault{}
//	})
func Faulty(s store.Store, fault func(Call) Fault) store.Store {
	if s == nil || fault == nil {
		panic("storetest: Faulty needs a store and a fault function")
	}
	return newFaulty(s, fault, new(atomic.Int64))
}

func newFaulty(s store.Store, fault func(Call) Fault, calls *atomic.Int64) store.Store {
	f := &faulty{inner: s, fault: fault, calls: calls}
	// As finds the capabilities in a chain of views, each with one of them.
	var next store.Store
	if k, ok := store.As[store.Keeper](s); ok {
		next = &faultyKeeper{view{f, next}, k}
	}
	if sc, ok := store.As[store.Scanner](s); ok {
		next = &faultyScanner{view{f, next}, sc}
	}
	if t, ok := store.As[store.Toucher](s); ok {
		next = &faultyToucher{view{f, next}, t}
	}
	if a, ok := store.As[store.AtomicRegisters](s); ok {
		next = &faultyAtomic{view{f, next}, a}
	}
	if b, ok := store.As[store.BatchRegisters](s); ok {
		next = &faultyBatch{view{f, next}, b}
	}
	if r, ok := store.As[store.Registers](s); ok {
		next = &faultyRegisters{view{f, next}, r}
	}
	return view{f, next}
}

// faulty has the four methods of a store.
type faulty struct {
	inner store.Store
	fault func(Call) Fault
	calls *atomic.Int64
}

// view is a link of the chain in which As looks.
type view struct {
	*faulty
	next store.Store
}

func (v view) Unwrap() store.Store { return v.next }

// do calls f with what the fault function says.
func (f *faulty) do(ctx context.Context, method, key string, call func() error) error {
	fault := f.fault(Call{Method: method, Key: key, N: f.calls.Add(1)})
	if fault.Stall {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := wait(ctx, fault.Delay); err != nil {
		return err
	}
	if fault.Before != nil {
		return fault.Before
	}
	err := call()
	if late := wait(ctx, fault.Late); late != nil {
		return late
	}
	if fault.After != nil {
		return fault.After
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *faulty) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	err = f.do(ctx, "Get", key, func() (err error) {
		value, ok, err = f.inner.Get(ctx, key)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return value, ok, nil
}

func (f *faulty) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return f.do(ctx, "Put", key, func() error { return f.inner.Put(ctx, key, value, ttl) })
}

func (f *faulty) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	err = f.do(ctx, "CompareAndSwap", key, func() (err error) {
		swapped, err = f.inner.CompareAndSwap(ctx, key, old, new, ttl)
		return err
	})
	return swapped && err == nil, err
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	return f.do(ctx, "Delete", key, func() error { return f.inner.Delete(ctx, key) })
}

type faultyRegisters struct {
	view
	r store.Registers
}

func (f *faultyRegisters) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	return f.advance(ctx, f.r, op)
}

func (f *faulty) advance(ctx context.Context, r store.Registers, op store.Op) (res store.Result, err error) {
	err = f.do(ctx, "Advance", op.Key, func() (err error) {
		res, err = r.Advance(ctx, op)
		return err
	})
	if err != nil {
		return store.Result{}, err
	}
	return res, nil
}

type faultyBatch struct {
	view
	b store.BatchRegisters
}

func (f *faultyBatch) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	return f.advance(ctx, f.b, op)
}

func (f *faultyBatch) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	return f.do(ctx, "AdvanceBatch", firstKey(ops), func() error { return f.b.AdvanceBatch(ctx, ops, res) })
}

type faultyAtomic struct {
	view
	a store.AtomicRegisters
}

func (f *faultyAtomic) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	return f.advance(ctx, f.a, op)
}

func (f *faultyAtomic) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (applied bool, err error) {
	err = f.do(ctx, "AdvanceAll", firstKey(ops), func() (err error) {
		applied, err = f.a.AdvanceAll(ctx, ops, res)
		return err
	})
	return applied && err == nil, err
}

func firstKey(ops []store.Op) string {
	if len(ops) == 0 {
		return ""
	}
	return ops[0].Key
}

type faultyToucher struct {
	view
	t store.Toucher
}

func (f *faultyToucher) Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	err = f.do(ctx, "Touch", key, func() (err error) {
		ok, err = f.t.Touch(ctx, key, ttl)
		return err
	})
	return ok && err == nil, err
}

type faultyScanner struct {
	view
	s store.Scanner
}

// Scan fails before the first key, or after the last.
func (f *faultyScanner) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		left := false
		err := f.do(ctx, "Scan", prefix, func() error {
			for key, err := range f.s.Scan(ctx, prefix) {
				if err != nil {
					return err
				}
				if left = !yield(key, nil); left {
					break
				}
			}
			return nil
		})
		if err != nil && !left {
			yield("", err)
		}
	}
}

type faultyKeeper struct {
	view
	k store.Keeper
}

// Keep returns a view with the same faults, whose calls are counted together
// with the store's.
func (f *faultyKeeper) Keep() (kept store.Store, err error) {
	fault := f.fault(Call{Method: "Keep", N: f.calls.Add(1)})
	if fault.Before != nil {
		return nil, fault.Before
	}
	if fault.After != nil {
		return nil, fault.After
	}
	if kept, err = f.k.Keep(); err != nil {
		return nil, err
	}
	return newFaulty(kept, f.fault, f.calls), nil
}
