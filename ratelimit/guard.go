package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// OnStoreError says how a [Limiter] decides while its store fails.
type OnStoreError int

const (
	// Local decides by registers in the memory of this process, under the same
	// limits. These registers are never emptied, so however often the store
	// fails, each process adds at most what one limit of its own allows to what
	// the store has granted.
	Local OnStoreError = iota

	// Allow admits everything. There is no bound while the store fails.
	Allow

	// Deny refuses everything, so that the bound holds as long as the store
	// itself loses nothing.
	Deny
)

// String returns the name of the constant.
func (m OnStoreError) String() string {
	switch m {
	case Local:
		return "Local"
	case Allow:
		return "Allow"
	case Deny:
		return "Deny"
	}
	return fmt.Sprintf("OnStoreError(%d)", int(m))
}

const (
	defaultBudget = 25 * time.Millisecond

	// tripAfter failures in a row the store is left alone for cooling, and then
	// asked by one call at a time.
	tripAfter = 3
	cooling   = time.Second

	// grace is for how long the answer to a caller that has left is waited for,
	// so that what it was granted can be given back.
	grace = time.Second
)

// guardConfig is the configuration of newGuard.
type guardConfig struct {
	Store store.Store // nil: a new store.Memory
	Mode  OnStoreError

	// Budget is the longest that a decision waits for the store. 0 is 25 ms;
	// negative is no bound but the caller's context.
	Budget time.Duration

	// OnDegraded is called with the error of each call that failed, which is a
	// handful and then one a second, and with nil once the store answers again.
	// It is called by the goroutine that makes the decision. nil is none.
	OnDegraded func(error)
}

// guard stands between the decisions and the store, so that a store which fails
// or stalls costs a few of them the budget, and the others nothing.
//
// A *store.Memory is asked directly: it never waits, and there is no timer, no
// goroutine and no allocation then. Any other store is asked through a
// [store.Combiner], the caller's if it is one already, and never by the caller's
// own goroutine, since there are clients that do not end with their context.
type guard struct {
	memory *store.Memory // the store, if it is one

	one      store.Registers
	several  store.BatchRegisters
	together store.AtomicRegisters
	apart    store.AtomicRegisters // one after the other, for a cluster
	combiner *store.Combiner       // made here, to be closed
	base     context.Context       // of the calls that outlive their callers
	stop     context.CancelFunc

	budget time.Duration
	mode   OnStoreError
	local  *store.Memory // for Local
	hook   func(error)
	fuse   fuse
}

func newGuard(cfg guardConfig) (*guard, error) {
	g := &guard{budget: cfg.Budget, mode: cfg.Mode, hook: cfg.OnDegraded, fuse: fuse{start: time.Now()}}
	if g.budget == 0 {
		g.budget = defaultBudget
	}
	if cfg.Store == nil {
		m, err := store.NewMemory(store.MemoryConfig{})
		if err != nil {
			return nil, err
		}
		g.memory = m
		return g, nil
	}
	if m, ok := cfg.Store.(*store.Memory); ok {
		g.memory = m
	}
	if g.mode == Local {
		m, err := store.NewMemory(store.MemoryConfig{})
		if err != nil {
			return nil, err
		}
		g.local = m
	}
	if g.memory != nil {
		return g, nil
	}
	s := cfg.Store
	if _, ok := store.As[*store.Combiner](s); !ok {
		c, err := store.NewCombiner(store.CombinerConfig{Store: s})
		if err != nil {
			return nil, err
		}
		s, g.combiner = c, c
	}
	g.one = store.RegistersOf(s)
	g.several = store.BatchRegistersOf(s)
	g.together = store.AtomicRegistersOf(s)
	g.apart = store.AtomicRegistersOf(plain{s, g.one, g.several})
	g.base, g.stop = context.WithCancel(context.Background())
	return g, nil
}

// plain has no atomic registers, so that the stand-in of store.AtomicRegistersOf
// is used.
type plain struct {
	store.Store
	one     store.Registers
	several store.BatchRegisters
}

func (p plain) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	return p.one.Advance(ctx, op)
}

func (p plain) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	return p.several.AdvanceBatch(ctx, ops, res)
}

// close ends what the guard has started. The store belongs to the caller.
func (g *guard) close() error {
	if g.stop == nil {
		return nil
	}
	g.stop()
	if g.combiner != nil {
		return g.combiner.Close()
	}
	return nil
}

// advance decides ops all or nothing, as store.AtomicRegisters does: with applied
// false nothing is changed, and res says what was found. degraded says that the
// answer is not the store's: it is that of the local registers, or in the modes
// Allow and Deny the mode's, with res zero. A grant that is degraded must not be
// given back by way of batch, which would ask the store.
//
// err is ctx's, when it has ended; what was granted all the same is given back.
// It is store.ErrOp for operations that no store can do.
func (g *guard) advance(ctx context.Context, ops []store.Op, res []store.Result) (applied, degraded bool, err error) {
	switch {
	case g.memory != nil && len(ops) == 1:
		res[0], err = g.memory.Advance(ctx, ops[0])
		applied = err == nil && res[0].Granted >= ops[0].Min
	case g.memory != nil:
		applied, err = g.memory.AdvanceAll(ctx, ops, res)
	case len(ops) == 1:
		res[0], err = g.askOne(ctx, ops[0])
		applied = err == nil && res[0].Granted >= ops[0].Min
	default:
		applied, err = g.askAll(ctx, ops, res)
	}
	if err == nil {
		return applied, false, nil
	}
	if final(ctx, err) {
		return false, false, err
	}
	applied, err = g.standIn(ctx, ops, res)
	return applied, true, err
}

// batch carries out operations that are independent of each other: refunds,
// charges and peeks. While the store fails those that give back are dropped,
// since what was taken there cannot be given back elsewhere, and the others are
// for the local registers in mode Local.
func (g *guard) batch(ctx context.Context, ops []store.Op, res []store.Result) (degraded bool, err error) {
	switch {
	case g.memory != nil && len(ops) == 1:
		res[0], err = g.memory.Advance(ctx, ops[0])
	case g.memory != nil:
		err = g.memory.AdvanceBatch(ctx, ops, res)
	case len(ops) == 1:
		res[0], err = g.askOne(ctx, ops[0])
	default:
		err = g.askEach(ctx, ops, res)
	}
	if err == nil {
		return false, nil
	}
	if final(ctx, err) {
		return false, err
	}
	clear(res)
	if g.local == nil {
		return true, nil
	}
	for i := range ops {
		if ops[i].Step < 0 {
			continue
		}
		if res[i], err = g.local.Advance(ctx, ops[i]); err != nil {
			return true, err
		}
	}
	return true, nil
}

// final reports whether no other way of deciding would help.
func final(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, store.ErrOp) || errors.Is(err, store.ErrKey)
}

// standIn decides without the store.
func (g *guard) standIn(ctx context.Context, ops []store.Op, res []store.Result) (applied bool, err error) {
	if g.local == nil {
		clear(res)
		return g.mode == Allow, nil
	}
	if len(ops) > 1 {
		return g.local.AdvanceAll(ctx, ops, res)
	}
	res[0], err = g.local.Advance(ctx, ops[0])
	return err == nil && res[0].Granted >= ops[0].Min, err
}

// errOpen is why the store was not asked.
var errOpen = errors.New("ratelimit: the store has failed and is left alone for a second")

func (g *guard) askOne(ctx context.Context, op store.Op) (store.Result, error) {
	pass, ok := g.fuse.allow()
	if !ok {
		return store.Result{}, errOpen
	}
	wait, cancel := g.within(ctx)
	defer cancel()
	// The combiner answers when wait ends, whatever the store does, and gives
	// back what comes too late.
	res, err := g.one.Advance(wait, op)
	return res, g.learn(ctx, pass, err)
}

func (g *guard) askAll(ctx context.Context, ops []store.Op, res []store.Result) (applied bool, err error) {
	return g.ask(ctx, ops, res, func(ctx context.Context, q *question) (bool, error) {
		applied, err := g.together.AdvanceAll(ctx, q.ops, q.res)
		if errors.Is(err, store.ErrOp) {
			// Registers on several machines. Nothing was applied.
			applied, err = g.apart.AdvanceAll(ctx, q.ops, q.res)
		}
		return applied, err
	})
}

func (g *guard) askEach(ctx context.Context, ops []store.Op, res []store.Result) error {
	_, err := g.ask(ctx, ops, res, func(ctx context.Context, q *question) (bool, error) {
		return false, g.several.AdvanceBatch(ctx, q.ops, q.res)
	})
	return err
}

// question is what the store is asked by a goroutine of its own. It has copies,
// since its caller may leave, and have other uses for its slices then.
type question struct {
	ops   []store.Op
	res   []store.Result
	done  chan reply
	state atomic.Int32
}

type reply struct {
	applied bool // all or nothing, and it was all
	err     error
}

const (
	waiting  int32 = iota
	answered       // done has the answer
	left           // the caller has gone
)

// ask has f ask the store, and waits for it no longer than the budget.
func (g *guard) ask(ctx context.Context, ops []store.Op, res []store.Result, f func(context.Context, *question) (bool, error)) (applied bool, err error) {
	pass, ok := g.fuse.allow()
	if !ok {
		return false, errOpen
	}
	wait, cancel := g.within(ctx)
	defer cancel()
	q := &question{ops: slices.Clone(ops), res: make([]store.Result, len(res)), done: make(chan reply, 1)}
	go func() {
		start := time.Now()
		ctx, cancel := g.beyond(wait)
		defer cancel()
		applied, err := f(ctx, q)
		if q.state.CompareAndSwap(waiting, answered) {
			q.done <- reply{applied, err}
		} else if err == nil && applied {
			g.giveBack(q, start)
		}
	}()
	var r reply
	select {
	case r = <-q.done:
	case <-wait.Done():
		if q.state.CompareAndSwap(waiting, left) {
			return false, g.learn(ctx, pass, wait.Err())
		}
		r = <-q.done
	}
	if r.err == nil {
		copy(res, q.res)
	}
	return r.applied, g.learn(ctx, pass, r.err)
}

// within returns the context of a caller that waits for no longer than the
// budget.
func (g *guard) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if g.budget < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, g.budget)
}

// beyond returns the context of a call whose caller waits until wait ends. It
// has none of the caller's values.
func (g *guard) beyond(wait context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := wait.Deadline(); ok {
		return context.WithDeadline(g.base, deadline.Add(grace))
	}
	return context.WithCancel(g.base)
}

// giveBack gives back what was granted to a caller that had left. An error
// leaves it taken: whether it was applied is not known, and twice would be too
// much.
func (g *guard) giveBack(q *question, start time.Time) {
	var back []store.Op
	for i, op := range q.ops {
		if op, any := refund(op, q.res[i].Granted, q.res[i], time.Since(start)); any {
			back = append(back, op)
		}
	}
	if len(back) > 0 {
		ctx, cancel := context.WithTimeout(g.base, grace)
		defer cancel()
		g.several.AdvanceBatch(ctx, back, make([]store.Result, len(back)))
	}
}

// later carries out op, which gives something back, when its caller has gone on.
func (g *guard) later(op store.Op) {
	go func() {
		ctx, cancel := context.WithTimeout(g.base, grace)
		defer cancel()
		g.one.Advance(ctx, op)
	}()
}

// learn tells the fuse how a call ended, and returns the error for the caller:
// its own context's if that has ended, which says nothing about the store.
func (g *guard) learn(ctx context.Context, pass int64, err error) error {
	switch {
	case err == nil:
		if g.fuse.success() && g.hook != nil {
			g.hook(nil)
		}
		return nil
	case ctx.Err() != nil:
		g.fuse.neither(pass)
		return ctx.Err()
	case errors.Is(err, store.ErrOp) || errors.Is(err, store.ErrKey):
		g.fuse.neither(pass)
		return err
	}
	g.fuse.failure(pass)
	if g.hook != nil {
		g.hook(err)
	}
	return err
}

// refund returns the operation that gives n steps of op back, of those that res
// says were granted in a call that began age ago. There may be nothing left to
// give back.
//
// What a clock register has drained since is not given back: had the steps not
// been taken, the bucket would have been full, and that time lost. Nor is a count
// lowered that may have expired before that is carried out: the one in its place
// has granted nothing of it. The way to the store is taken to be as long as it was
// for the first call, so age counts twice.
func refund(op store.Op, n int64, res store.Result, age time.Duration) (back store.Op, any bool) {
	if op.Step <= 0 || n <= 0 {
		return op, false
	}
	back = op
	back.Step, back.Min, back.Max = -op.Step, n, n
	if !op.Clock {
		return back, res.Expires == 0 || res.Expires > int64(2*age)
	}
	amount := n * op.Step
	before := res.Value - amount - (res.Now + op.Floor) // how long the rest takes to drain
	amount -= max(0, int64(2*age)-before)
	back.Step, back.Min, back.Max = -amount, 1, 1
	return back, amount > 0
}

// fuse is the breaker of the store. All of it is atomic, and the usual way
// through only reads.
type fuse struct {
	start    time.Time
	failures atomic.Int32 // in a row
	until    atomic.Int64 // since start, when the store may be asked again; 0: it works
}

// allow reports whether the store may be asked. Where the call is a probe, pass
// is not zero; it goes to neither or failure.
func (f *fuse) allow() (pass int64, ok bool) {
	until := f.until.Load()
	if until == 0 {
		return 0, true
	}
	now := int64(time.Since(f.start))
	if now < until {
		return 0, false
	}
	pass = now + int64(cooling)
	return pass, f.until.CompareAndSwap(until, pass)
}

// success reports whether it ended an outage.
func (f *fuse) success() (ended bool) {
	if f.failures.Load() != 0 {
		f.failures.Store(0)
	}
	until := f.until.Load()
	return until != 0 && f.until.CompareAndSwap(until, 0)
}

func (f *fuse) failure(pass int64) {
	if f.failures.Add(1) >= tripAfter || pass != 0 {
		f.until.Store(int64(time.Since(f.start) + cooling))
	}
}

// neither says that the call has shown nothing. After a probe the next call is
// one.
func (f *fuse) neither(pass int64) {
	if pass != 0 {
		f.until.CompareAndSwap(pass, int64(time.Since(f.start)))
	}
}
