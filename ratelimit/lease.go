package ratelimit

import (
	"context"
	"sync"
	"time"

	"example.com/plainware/store"
)

// leases takes tokens of a token bucket from a remote store ahead of the requests
// that will spend them, so that a hot key costs a few calls of the store in each
// lease time instead of one for each request.
//
// # The bound
//
// A bucket of burst B that gets a token each T admits at most B + w/T in a window
// of length w. Its leases keep that, whatever the number of processes: they live
// for L, and the register has the burst B - L/T for everybody.
//
// Proof. Time is the store's, and a token costs T of it: the register holds the
// instant at which all that was taken will have been refilled, and no grant raises
// it more than (B - L/T)T above the present. What is spent in [t, t+w] was charged
// in [t-L, t+w], since a token is spent within L of sending the call that charged
// it, which is not later than its charge. All that is charged in there raised the
// register from t-L at least to t+w+(B-L/T)T at most, which is L+w+BT-L, or
// B + w/T tokens. Tokens that are thrown away, lost with a process or stuck in a
// late reply are among those charged, and only make it less. QED.
//
// L is measured on this process's monotonic clock, and on its wall clock too,
// which goes on while a machine is suspended.
//
// # What it costs
//
// The burst is smaller by L/T. A key whose bucket is empty is left alone for L/2
// once the store has granted less than was asked for: without that pause several
// processes would fight for single tokens, one call each. So a request may be
// refused that the store would have granted, for L/2 at most.
type leases struct {
	guard    *guard
	interval int64 // T, ns
	life     int64 // L, ns
	most     int64 // tokens in a lease that nobody needs at once
	start    time.Time
	names    registerHash
	sets     []leaseSet
}

const (
	leaseWays = 4
	leaseSets = 256

	// hotAfter requests for a key within a lease time make it worth leasing.
	hotAfter = 2

	// slowAfter replies in a row that came when their tokens had expired, a key
	// is not leased for slowFor: the store is too far away.
	slowAfter = 3
	slowFor   = time.Second
)

type leaseSet struct {
	mu      sync.Mutex
	entries [leaseWays]lease
}

// lease is what is known of a key. Instants are ns since the start of leases.
type lease struct {
	hash   uint64
	window int64 // when the counting of seen and want began
	seen   int64 // requests since then
	want   int64 // the tokens that they asked for
	before int64 // requests in the lease time before
	wanted int64 // the tokens that they asked for

	tokens int64
	ends   int64 // when the tokens expire, monotonic
	wall   int64 // and on the wall clock, ns since 1970

	pause  int64 // no call of the store before this instant
	slow   int64 // no leasing before this instant
	late   int   // replies in a row that came too late
	result store.Result
	at     int64 // the instant of result, or earlier
	asking *asking
}

// asking is a call of the store on behalf of all who wait for done. The rest is
// set before that is closed.
type asking struct {
	done   chan struct{}
	failed bool
	late   bool // the tokens were worth nothing
}

// leasing is how [leases.take] decided.
type leasing int8

const (
	notLeased leasing = iota // not at all: ask the register
	leased                   // granted
	exhausted                // refused
)

// leaseTaken is an answer of leases.
type leaseTaken struct {
	// how is notLeased if the register is to be asked.
	how leasing

	// res is what the register would have answered, estimated from its last
	// answer.
	res store.Result

	// degraded is as the guard's.
	degraded bool

	ends int64 // identifies the tokens for back; 0 if there is nothing to give back
}

// leaseCeil returns the Ceil that all operations on a leased register have, in
// every process, given that of the advertised bucket. on is false where a lease
// would be a single token, which saves nothing, or take half of the burst or more.
func leaseCeil(ceil, interval int64, life time.Duration) (reduced int64, on bool) {
	tokens := (int64(life) + interval - 1) / interval
	if int64(life) < 2*interval || ceil/interval <= 2*tokens {
		return ceil, false
	}
	return ceil - int64(life), true
}

// newLeases returns the leases of a policy that gets one token each interval. g
// is in front of a remote store.
func newLeases(g *guard, interval int64, life time.Duration) *leases {
	return &leases{
		guard: g, interval: interval, life: int64(life),
		most:  max(1, int64(life)/interval),
		start: time.Now(), names: newRegisterHash(), sets: make([]leaseSet, leaseSets),
	}
}

// take decides op, a request for n tokens that has the Ceil of leaseCeil and whose
// Min and Max are the same. It waits no longer than the guard's budget for a call
// on behalf of another request, and as long again for one of its own. err is
// ctx's, when it has ended.
func (l *leases) take(ctx context.Context, op *store.Op, n int64) (leaseTaken, error) {
	h := l.names.of(op.Space, op.Key)
	s := &l.sets[h%leaseSets]
	s.mu.Lock()
	now, wall := l.now()
	e := s.find(h, now-l.life)
	if e == nil {
		s.mu.Unlock()
		return leaseTaken{}, nil
	}
	e.count(now, l.life, n)
	var wait context.Context
	for {
		if e.expired(now, wall) {
			e.tokens = 0
		}
		switch {
		case e.hash != h, n > l.most: // evicted while this waited, or too much for a lease
			s.mu.Unlock()
			return leaseTaken{}, nil
		case e.tokens >= n:
			e.tokens -= n
			t := leaseTaken{how: leased, res: l.estimate(e, op, now), ends: e.ends}
			t.res.Granted = op.Min
			s.mu.Unlock()
			return t, nil
		case e.asking == nil && now < e.pause:
			t := l.refuse(e, op, now)
			s.mu.Unlock()
			return t, nil
		case max(e.seen, e.before) <= hotAfter || now < e.slow:
			s.mu.Unlock()
			return leaseTaken{}, nil
		case e.asking == nil:
			return l.ask(ctx, s, e, op, n)
		}
		a := e.asking
		s.mu.Unlock()
		if wait == nil {
			var cancel context.CancelFunc
			wait, cancel = l.guard.within(ctx)
			defer cancel()
		}
		select {
		case <-a.done:
			switch {
			case a.failed:
				return l.alone(ctx, op)
			case a.late:
				return leaseTaken{}, nil
			}
		case <-wait.Done():
			if err := ctx.Err(); err != nil {
				return leaseTaken{}, err
			}
			return l.alone(ctx, op)
		}
		s.mu.Lock()
		now, wall = l.now()
	}
}

// ask gets tokens from the store for this request, those that wait for it and
// those that will come. It is called with the mutex of s held, and returns
// without.
func (l *leases) ask(ctx context.Context, s *leaseSet, e *lease, op *store.Op, n int64) (leaseTaken, error) {
	held := e.tokens // fewer than n; they are this request's if the rest comes
	e.tokens = 0
	a := &asking{done: make(chan struct{}), failed: true}
	e.asking = a
	ahead := *op
	ahead.Step = l.interval
	ahead.Min = n - held
	ahead.Max = max(ahead.Min, min(l.most, max(e.want, e.wanted)))
	s.mu.Unlock()
	defer func() { // deferred since the guard's hook may panic
		s.mu.Lock()
		e.asking = nil
		close(a.done)
		s.mu.Unlock()
	}()

	sent, wall := l.now()
	res, err := l.guard.askOne(ctx, ahead)
	if err != nil {
		s.mu.Lock()
		e.tokens += held
		s.mu.Unlock()
		if final(ctx, err) {
			a.failed = false // for the others, who may do better
			return leaseTaken{}, err
		}
		return l.alone(ctx, op)
	}
	a.failed = false
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wallNow := l.now()
	if e.expired(now, wallNow) {
		held = 0
	}
	e.result, e.at = res, sent
	if res.Granted < ahead.Max {
		e.pause = sent + l.life/2
	}
	if res.Granted < ahead.Min {
		if ahead.Min == 1 { // nothing else fits before one does
			e.pause = max(e.pause, sent+min(int64(denyMost), res.Value+l.interval-(res.Now+op.Ceil)))
		}
		e.tokens += held
		return l.refuse(e, op, now), nil
	}
	rest, ends := held+res.Granted-n, sent+l.life
	if now >= ends || wallNow >= wall+l.life {
		// What has expired cannot be kept, but as an answer to one request it
		// is as good as that to any other.
		if back, any := refund(ahead, rest, res, time.Duration(now-sent)); any {
			l.guard.later(back)
		}
		rest, ends, e.pause, a.late = min(rest, 0), 0, 0, true
		if e.late++; e.late >= slowAfter {
			e.slow = now + int64(slowFor)
		}
	} else {
		e.late = 0
	}
	if e.ends = ends; rest < 0 { // what was held has expired
		if e.wall = wall + l.life; ends != 0 {
			e.tokens = res.Granted
		}
		return leaseTaken{}, nil
	}
	e.tokens, e.wall = rest, wall+l.life
	t := leaseTaken{how: leased, res: l.estimate(e, op, now), ends: ends}
	t.res.Granted = op.Min
	return t, nil
}

// alone decides op without the store, after a call on behalf of several has
// failed, so that they do not wait for one failure after the other.
func (l *leases) alone(ctx context.Context, op *store.Op) (leaseTaken, error) {
	res := make([]store.Result, 1)
	applied, err := l.guard.standIn(ctx, []store.Op{*op}, res)
	t := leaseTaken{how: exhausted, res: res[0], degraded: true}
	if applied {
		t.how = leased
	}
	return t, err
}

// back gives n tokens back that were taken in vain, since another policy has
// refused the request. ends is what take has returned with them: they are worth
// nothing if their lease has ended since.
func (l *leases) back(op *store.Op, n, ends int64) {
	h := l.names.of(op.Space, op.Key)
	s := &l.sets[h%leaseSets]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.entries {
		if e := &s.entries[i]; e.hash == h && e.ends == ends && ends != 0 {
			e.tokens += n
		}
	}
}

// drop forgets the tokens of a register that was reset.
func (l *leases) drop(space, key string) {
	h := l.names.of(space, key)
	s := &l.sets[h%leaseSets]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.entries {
		if e := &s.entries[i]; e.hash == h {
			e.tokens, e.ends, e.pause = 0, 0, 0
		}
	}
}

// now returns the monotonic time since the start, and the wall clock's.
func (l *leases) now() (mono, wall int64) {
	t := time.Now()
	return int64(t.Sub(l.start)), t.UnixNano()
}

// estimate returns what the register would say about op, with the tokens that
// are still here counted as not taken.
func (l *leases) estimate(e *lease, op *store.Op, now int64) store.Result {
	r := store.Result{Value: e.result.Value - e.tokens*l.interval, Now: e.result.Now + now - e.at}
	r.Value = max(r.Value, r.Now+op.Floor)
	r.Expires = r.Value - (r.Now + op.Floor)
	return r
}

// refuse refuses op until the end of the pause at least.
func (l *leases) refuse(e *lease, op *store.Op, now int64) leaseTaken {
	t := leaseTaken{how: exhausted, res: l.estimate(e, op, now)}
	t.res.Value = max(t.res.Value, t.res.Now+op.Ceil-op.Step*op.Min+e.pause-now)
	t.res.Expires = t.res.Value - (t.res.Now + op.Floor)
	return t
}

// find returns the entry of h, which may be new, in place of the one that is
// used least. It is nil if all are waiting for the store.
func (s *leaseSet) find(h uint64, since int64) *lease {
	var least *lease
	heat := func(e *lease) int64 {
		if e.window < since { // not even counted in the last lease time
			return 0
		}
		return max(e.seen, e.before)
	}
	for i := range s.entries {
		e := &s.entries[i]
		if e.hash == h {
			return e
		}
		if e.asking == nil && (least == nil || heat(e) < heat(least)) {
			least = e
		}
	}
	if least != nil {
		*least = lease{hash: h}
	}
	return least
}

// count counts a request for n tokens.
func (e *lease) count(now, life, n int64) {
	switch age := now - e.window; {
	case age >= 2*life:
		e.before, e.wanted = 0, 0
		e.window, e.seen, e.want = now, 0, 0
	case age >= life:
		e.before, e.wanted = e.seen, e.want
		e.window, e.seen, e.want = e.window+life, 0, 0
	}
	e.seen++
	e.want += n
}

// expired reports whether the tokens are to be thrown away.
func (e *lease) expired(now, wall int64) bool { return now >= e.ends || wall >= e.wall }
