package ratelimit

import (
	"context"
	"fmt"

	"example.com/plainware/store"
)

// Charge takes n units more for the request of ctx, a context from the limiter's
// Handler, from each policy that has a [Policy.Debt]: what is there, and as much
// as the debt allows beyond. It refuses nothing; the key waits longer for its
// next request. The end of ctx does not stop it.
//
// The error is [ErrContext] or [ErrCost]. Where the store fails, the charge goes
// to the stand-in of OnStoreError, or is lost.
func (l *Limiter) Charge(ctx context.Context, n int64) error {
	if n < 0 || n >= store.MaxCount {
		return fmt.Errorf("%w (got %d)", ErrCost, n)
	}
	s, ok := ctx.Value(l).(*state)
	if !ok || len(s.charged) == 0 {
		return ErrContext
	}
	if n == 0 {
		return nil
	}
	return l.charge(context.WithoutCancel(ctx), s.charged, n)
}

func (l *Limiter) charge(ctx context.Context, on []charged, n int64) error {
	ops := make([]store.Op, 0, len(on))
	uses := make([]use, len(on))
	for i, c := range on {
		op := c.p.op(c.key, 0)
		uses[i] = use{p: c.p, key: c.key}
		if c.p.slide != nil {
			if _, err := l.aim(ctx, &uses[i], &op); err != nil {
				return err
			}
		}
		op.Ceil, op.Over = c.p.ceil+c.p.debt, 0
		op.Max = min(n, (op.Ceil-op.Floor)/op.Step)
		ops = append(ops, op)
	}
	res := make([]store.Result, len(ops))
	degraded, err := l.guard.batch(ctx, ops, res)
	if err != nil || degraded {
		return err
	}
	for i, c := range on {
		// What was charged to a window that had passed belongs into this one.
		if s := c.p.slide; s != nil && res[i].Now/s.window != uses[i].at.index {
			s.learn(res[i].Now)
			move := [2]store.Op{ops[i], ops[i]}
			move[0].Step, move[0].Min, move[0].Max = -1, res[i].Granted, res[i].Granted
			move[1].Space = s.at(res[i].Now / s.window).current
			if _, err := l.guard.batch(ctx, move[:], make([]store.Result, 2)); err != nil {
				return err
			}
		}
	}
	return nil
}

// charged is a policy that Charge is about, and the key of the request.
type charged struct {
	p   *policy
	key string
}

// state is the context of a request, and in the same allocation what Charge and
// From have to know of it.
type state struct {
	context.Context
	owner    *Limiter // nil for NewContext
	decision Decision
	charged  []charged
}

type stateKey struct{}

// Value returns the state itself for the package's key and for the owner's.
func (s *state) Value(key any) any {
	switch key := key.(type) {
	case stateKey:
		return s
	case *Limiter:
		if key == s.owner {
			return s
		}
	}
	return s.Context.Value(key)
}

// From returns what l has decided on the request of ctx, and whether it has.
// [Config.Context] or a [Policy.Debt] is needed for that.
func (l *Limiter) From(ctx context.Context) (Decision, bool) {
	s, ok := ctx.Value(l).(*state)
	if !ok {
		return Decision{}, false
	}
	return s.decision, true
}

// FromContext returns what the innermost limiter has decided on the request of
// ctx, and whether there is one that tells: see [Config.Context].
func FromContext(ctx context.Context) (Decision, bool) {
	s, ok := ctx.Value(stateKey{}).(*state)
	if !ok {
		return Decision{}, false
	}
	return s.decision, true
}

// NewContext returns a copy of ctx that carries d, for tests of handlers that
// call [FromContext].
func NewContext(ctx context.Context, d Decision) context.Context {
	return &state{Context: ctx, decision: d}
}
