package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// Limiter admits requests within limits, or refuses them. It is safe for
// concurrent use, and one can wrap any number of handlers, which share its
// limits.
type Limiter struct {
	enforced []*policy // in the order of the configuration
	shadows  []*policy
	byName   map[string]*policy

	guard *guard
	mode  OnStoreError
	deny  *denyCache // nil in front of memory

	skip       func(*http.Request) bool
	exempt     []netip.Prefix
	trusted    []netip.Prefix
	ipv6Prefix int

	headers      Headers
	policyField  string // RateLimit-Policy where all policies apply
	errorHandler func(http.ResponseWriter, *http.Request, error)
	onDecision   func(*http.Request, Decision)
	logger       *slog.Logger

	plain   bool // quick can decide
	slides  bool // some policy is Sliding
	holds   bool // some policy is Concurrent
	context bool // requests carry their decision
	charges bool // some policy has a Debt

	rounds   sync.Pool
	waits    waitLines
	counters counters
	hot      *hottest
	warned   atomic.Bool
}

// New returns a Limiter. The error lists every field of c that is wrong.
func New(c Config) (*Limiter, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	g, err := newGuard(guardConfig{
		Store: c.Store, Mode: c.OnStoreError, Budget: c.StoreBudget, OnDegraded: c.OnDegraded,
	})
	if err != nil {
		return nil, err
	}
	l := &Limiter{
		byName:       make(map[string]*policy),
		guard:        g,
		mode:         c.OnStoreError,
		skip:         c.Skip,
		exempt:       slices.Clone(c.Exempt),
		trusted:      slices.Clone(c.TrustedProxies),
		ipv6Prefix:   c.IPv6Prefix,
		headers:      c.Headers,
		errorHandler: c.ErrorHandler,
		onDecision:   c.OnDecision,
		logger:       c.Logger,
		context:      c.Context,
		hot:          newHottest(c.HotKeys),
	}
	l.rounds.New = func() any { return new(round) }
	if g.memory == nil {
		l.deny = newDenyCache()
	}
	if l.ipv6Prefix == 0 {
		l.ipv6Prefix = defaultPrefix
	}
	if l.errorHandler == nil {
		l.errorHandler = WriteError
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	name := c.Name
	if name == "" {
		name = defaultName
	}
	for _, p := range c.policies() {
		l.add(name, p)
	}
	l.plain = g.memory != nil && len(l.enforced) == 1 && len(l.shadows) == 0 && !l.slides && !l.holds &&
		!l.context && l.onDecision == nil && l.headers != Legacy
	return l, nil
}

// add adds a policy, which was checked.
func (l *Limiter) add(name string, c Policy) {
	r, _ := c.Limit.rule()
	p := &policy{
		rule: r, name: c.Name, key: c.Key, costOf: c.Cost,
		optional: c.Optional, shadow: c.Shadow, most: r.limit,
	}
	if c.Debt > 0 {
		p.debt = c.Debt * r.step
		l.charges, l.context = true, true
	}
	// Counts are not instants: a name whose limit becomes one of the other kind
	// must not find them.
	space := "plainware/ratelimit/1/" + name + "/" + c.Name
	op := store.Op{Space: space, Ceil: r.ceil, Step: r.step}
	switch r.algorithm {
	case gcra:
		if l.guard.memory == nil {
			if ceil, on := leaseCeil(r.ceil, r.step, c.Lease); on {
				p.leases = newLeases(l.guard, r.step, c.Lease)
				p.ceil, op.Ceil, p.most = ceil, ceil, ceil/r.step
			}
		}
		op.Clock, op.Over = true, p.debt
	case quota:
		op.Space += "/quota"
		op.TTL = r.window
	case sliding:
		op.Space += "/sliding"
		// Long enough for the window after, and for one begun early.
		op.TTL = 3 * r.window
		p.slide = newSlide(op.Space, r.window)
		l.slides = true
	case concurrent:
		p.slots = newSlots()
		l.holds = true
	}
	p.template = op
	p.field, p.item = p.fields()
	l.byName[c.Name] = p
	if c.Shadow {
		l.shadows = append(l.shadows, p)
		return
	}
	l.enforced = append(l.enforced, p)
	if l.policyField != "" {
		l.policyField += ", "
	}
	l.policyField += p.field
}

// Close ends what the limiter has started. It must not be used any more. The
// store stays open if it was given in Config. It returns nil, the second time
// too.
func (l *Limiter) Close() error { return l.guard.close() }

// one makes a round about one policy, by its name, "" being the only one.
func (l *Limiter) one(policy string, n int64, key []string) (*round, error) {
	p := l.byName[policy]
	if policy == "" && len(l.byName) == 1 {
		for _, p = range l.byName {
		}
	}
	if p == nil || p.algorithm == concurrent {
		return nil, fmt.Errorf("%w (got %q)", ErrPolicy, policy)
	}
	if n < 0 || n >= store.MaxCount {
		return nil, fmt.Errorf("%w (got %d)", ErrCost, n)
	}
	k, err := l.keyFrom(&p.key, key)
	if err != nil {
		return nil, err
	}
	rd := l.newRound()
	rd.uses = append(rd.uses, use{p: p, key: k, cost: n})
	return rd, nil
}

// Take asks for n units of a policy, outside of HTTP. The policy may be "" if it
// is the only one. The key has as many parts as the policy's Key: one, unless it
// was made by [Join]; the part of [ByIP] is an address, and "" is a missing one.
//
// A refusal is a Decision and no error. The error is ctx's, or about the
// arguments: [ErrPolicy], [ErrKey] or [ErrCost].
func (l *Limiter) Take(ctx context.Context, policy string, n int64, key ...string) (Decision, error) {
	rd, err := l.one(policy, n, key)
	if err != nil {
		return Decision{}, err
	}
	defer l.free(rd)
	if err := l.decide(ctx, rd, nil); err != nil {
		return Decision{}, err
	}
	d := rd.decision()
	l.count(rd, d)
	return d, nil
}

// Peek returns how a policy stands for a key, and takes nothing. Allowed says
// whether one unit would be granted.
func (l *Limiter) Peek(ctx context.Context, policy string, key ...string) (Decision, error) {
	rd, err := l.one(policy, 0, key)
	if err != nil {
		return Decision{}, err
	}
	defer l.free(rd)
	if err := l.ask(ctx, rd); err != nil {
		return Decision{}, err
	}
	d := rd.decision()
	if u := &rd.uses[0]; u.known && d.Remaining == 0 {
		d.Allowed, d.RetryAfter = false, max(1, time.Duration(u.wait(1)))
	}
	return d, nil
}

// Reset forgets what was taken of a policy by a key, debt included. Other
// processes that share the store refuse the key for up to a second more, and
// with Sliding up to the end of the window.
func (l *Limiter) Reset(ctx context.Context, policy string, key ...string) error {
	rd, err := l.one(policy, 0, key)
	if err != nil {
		return err
	}
	defer l.free(rd)
	u := &rd.uses[0]
	op := u.p.op(u.key, 1)
	// More than can be there, in one step.
	op.Step = -(op.Ceil + u.p.debt)
	rd.ops = append(rd.ops, op)
	if s := u.p.slide; s != nil {
		s.forget(u.key)
		if _, err := l.aim(ctx, u, &op); err != nil {
			return err
		}
		at := s.at(u.at.index)
		rd.ops = append(rd.ops, rd.ops[0])
		rd.ops[0].Space, rd.ops[1].Space = at.before, at.current
		defer s.forget(u.key)
	}
	rd.res = append(rd.res, make([]store.Result, len(rd.ops))...)
	degraded, err := l.guard.batch(ctx, rd.ops, rd.res)
	if l.deny != nil {
		for i := range rd.ops {
			l.deny.drop(rd.ops[i].Space, u.key)
		}
	}
	if u.p.leases != nil {
		u.p.leases.drop(op.Space, u.key)
	}
	if err == nil && degraded {
		return errReset
	}
	return err
}

var errReset = errors.New("ratelimit: the store has failed, and keeps what was taken")
