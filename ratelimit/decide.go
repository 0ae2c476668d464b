package ratelimit

import (
	"context"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// Decision is what was decided for a request, and how its limit stands.
type Decision struct {
	// Allowed reports whether the request is admitted.
	Allowed bool

	// Policy is the one that refused the request, for the longest if there are
	// several, or the one that has the least left. It is "" if no policy
	// applied.
	Policy string

	// Limit is the most that the policy allows at once.
	Limit int64

	// Remaining is how much is left of it, after this request.
	Remaining int64

	// RetryAfter is how long to wait before a request that was refused can be
	// admitted, if nothing else is until then. It is zero for one that was
	// admitted, and where no waiting helps: its cost is above what is ever
	// allowed at once.
	RetryAfter time.Duration

	// Reset is when all of Limit is available again, if nothing more is taken.
	Reset time.Duration

	// Degraded says that the store has failed, and that Config.OnStoreError
	// decided.
	Degraded bool

	// Shadow says that the policy has Policy.Shadow: Allowed is what would have
	// been decided.
	Shadow bool

	resetAt int64 // of Reset, ns since 1970
}

// policy is a Policy made ready.
type policy struct {
	rule
	name     string
	key      Key
	costOf   func(*http.Request) int64
	optional bool
	shadow   bool

	template store.Op // but for Key, Min and Max
	most     int64    // the largest cost that is ever admitted
	debt     int64    // what Charge may overdraw, in units of the register

	slots  *slots  // of concurrent
	slide  *slide  // of sliding
	leases *leases // nil for none

	field string // in RateLimit-Policy
	item  string // in RateLimit, up to the number

	refused  atomic.Uint64
	shadowed atomic.Uint64
}

// use is the part that a policy has in one decision.
type use struct {
	p       *policy
	key     string
	cost    int64
	known   bool // res says how the limit stands
	refused bool
	asked   bool         // the register is among round.ops
	leased  bool         // the units came from a lease
	ends    int64        // of the lease
	at      aimed        // of sliding
	res     store.Result // Value is what is in use of concurrent
}

// round is one decision. It is used again, so that a request allocates none.
type round struct {
	uses     []use
	ops      []store.Op
	res      []store.Result
	allowed  bool
	degraded bool
	reason   reason
}

func (l *Limiter) newRound() *round { return l.rounds.Get().(*round) }

// free gives rd back. It keeps nothing of the request.
func (l *Limiter) free(rd *round) {
	for i := range rd.uses {
		rd.uses[i].key = ""
	}
	for i := range rd.ops {
		rd.ops[i].Key = ""
	}
	rd.uses, rd.ops, rd.res = rd.uses[:0], rd.ops[:0], rd.res[:0]
	rd.allowed, rd.degraded, rd.reason = false, false, limited
	l.rounds.Put(rd)
}

// op returns the operation that takes n units for key. Sliding sets the window
// and the ceiling.
func (p *policy) op(key string, n int64) store.Op {
	op := p.template
	op.Key, op.Min, op.Max = key, n, n
	return op
}

// decide decides rd.uses, all or nothing. What it takes of Concurrent it adds to
// h. The error is the context's; nothing is taken then.
func (l *Limiter) decide(ctx context.Context, rd *round, h *holds) error {
	for i := range rd.uses {
		if u := &rd.uses[i]; u.cost > u.p.most {
			u.refused = true
			rd.reason = u.p.reason()
		}
	}
	if rd.refusing() != nil {
		return nil
	}
	if h != nil && !h.take(rd) {
		return nil
	}
	err := l.ask(ctx, rd)
	if err != nil {
		rd.allowed = false
	}
	if !rd.allowed {
		h.release()
	}
	return err
}

func (p *policy) reason() reason {
	if p.algorithm == concurrent {
		return busy
	}
	return limited
}

// attempts is how often a decision is made again when it turns out to have been
// about a window that had passed.
const attempts = 3

// ask decides the uses that have registers.
func (l *Limiter) ask(ctx context.Context, rd *round) error {
	for range attempts {
		asks, err := l.prepare(ctx, rd)
		if err != nil {
			rd.unlease()
			return err
		}
		if rd.refusing() != nil {
			rd.unlease()
			return nil
		}
		if !asks {
			rd.allowed = true
			return nil
		}
		var sent time.Time
		if l.deny != nil || l.slides {
			sent = time.Now()
		}
		applied, degraded, err := l.guard.advance(ctx, rd.ops, rd.res)
		if err != nil {
			rd.unlease()
			return err
		}
		rd.degraded = rd.degraded || degraded
		if degraded && l.mode != Local {
			if rd.allowed = applied; !applied {
				rd.reason = unavailable
				rd.unlease()
			}
			return nil
		}
		if l.slides && !rd.current() {
			if applied && !degraded {
				l.giveBack(ctx, rd, time.Since(sent))
			}
			continue
		}
		rd.allowed = applied
		l.settle(rd, applied, degraded, sent)
		if !applied {
			rd.unlease()
		}
		return nil
	}
	// The clock of the store jumps, or is further away than a window is long.
	rd.unlease()
	rd.reason = unavailable
	return nil
}

// prepare makes rd.ops, and reports whether there are any. What is known to be
// refused without them it marks so.
func (l *Limiter) prepare(ctx context.Context, rd *round) (asks bool, err error) {
	rd.ops, rd.res = rd.ops[:0], rd.res[:0]
	for i := range rd.uses {
		u := &rd.uses[i]
		if u.asked = false; u.p.algorithm == concurrent || u.leased {
			continue
		}
		op := u.p.op(u.key, u.cost)
		if u.p.slide != nil {
			degraded, err := l.aim(ctx, u, &op)
			if err != nil {
				return false, err
			}
			rd.degraded = rd.degraded || degraded
		}
		if l.deny != nil {
			if res, refused := l.deny.get(&op); refused {
				u.res, u.known, u.refused = res, true, true
				return false, nil
			}
		}
		if u.p.leases != nil && u.cost > 0 {
			t, err := u.p.leases.take(ctx, &op, u.cost)
			if err != nil {
				return false, err
			}
			rd.degraded = rd.degraded || t.degraded
			if t.how != notLeased {
				u.leased, u.ends, u.refused = t.how == leased, t.ends, t.how == exhausted
				u.res, u.known = t.res, !t.degraded || l.mode == Local
				if u.refused && !u.known {
					rd.reason = unavailable
				}
				if u.refused {
					return false, nil
				}
				continue
			}
		}
		u.asked = true
		rd.ops = append(rd.ops, op)
		rd.res = append(rd.res, store.Result{})
	}
	return len(rd.ops) > 0, nil
}

// settle tells the uses what the store has answered.
func (l *Limiter) settle(rd *round, applied, degraded bool, sent time.Time) {
	k := 0
	for i := range rd.uses {
		u := &rd.uses[i]
		if !u.asked {
			continue
		}
		u.res, u.known = rd.res[k], true
		if !applied && u.res.Granted < rd.ops[k].Min {
			u.refused = true
			if l.deny != nil && !degraded {
				l.deny.put(&rd.ops[k], u.res, sent)
			}
		}
		k++
	}
}

// unlease gives tokens back that were taken for a request that was refused after
// all.
func (rd *round) unlease() {
	for i := range rd.uses {
		if u := &rd.uses[i]; u.leased {
			op := u.p.op(u.key, u.cost)
			u.p.leases.back(&op, u.cost, u.ends)
			u.leased = false
		}
	}
}

// giveBack gives back what the store has granted to a decision that will be made
// again.
func (l *Limiter) giveBack(ctx context.Context, rd *round, age time.Duration) {
	var back []store.Op
	for i, op := range rd.ops {
		if op, any := refund(op, rd.res[i].Granted, rd.res[i], age); any {
			back = append(back, op)
		}
	}
	if len(back) > 0 {
		// An error leaves it taken.
		_, _ = l.guard.batch(context.WithoutCancel(ctx), back, make([]store.Result, len(back)))
	}
}

// refusing returns the use that has refused, for the longest if there are
// several, or nil.
func (rd *round) refusing() *use {
	var worst *use
	var longest int64
	for i := range rd.uses {
		if u := &rd.uses[i]; u.refused {
			if t := u.retry(); worst == nil || t > longest {
				worst, longest = u, t
			}
		}
	}
	return worst
}

// decision is what rd has come to.
func (rd *round) decision() Decision {
	d := Decision{Allowed: rd.allowed, Degraded: rd.degraded}
	var u *use
	if !rd.allowed {
		if u = rd.refusing(); u == nil || rd.reason == unavailable {
			d.RetryAfter = time.Second
		} else if t := u.retry(); t != never {
			d.RetryAfter = time.Duration(t)
		}
	} else {
		var least int64
		for i := range rd.uses {
			if v := &rd.uses[i]; v.known {
				if left := v.remaining(); u == nil || left < least {
					u, least = v, left
				}
			}
		}
	}
	if u != nil {
		d.Policy, d.Limit, d.Shadow = u.p.name, u.p.limit, u.p.shadow
		if u.known {
			reset := u.reset()
			d.Remaining, d.Reset, d.resetAt = u.remaining(), time.Duration(reset), u.res.Now+reset
		}
	}
	return d
}

// never is how long a cost that is too high has to wait.
const never = math.MaxInt64

// retry returns how long, from the store's answer, a use has to wait that was
// refused: at least 1 ns.
func (u *use) retry() int64 {
	switch {
	case u.cost > u.p.most:
		return never
	case u.p.algorithm == concurrent:
		return int64(time.Second) // nobody knows
	case !u.known:
		return int64(time.Second)
	}
	return max(1, u.wait(u.cost))
}

// wait returns how long until n units more fit, which they do not now.
func (u *use) wait(n int64) int64 {
	switch u.p.algorithm {
	case gcra:
		return max(0, u.res.Value-u.res.Now+n*u.p.step-u.p.ceil)
	case sliding:
		return u.p.slide.wait(u, n)
	}
	return u.res.Expires // quota
}

// remaining returns how many units are left.
func (u *use) remaining() int64 {
	switch u.p.algorithm {
	case gcra:
		return max(0, u.p.ceil-max(0, u.res.Value-u.res.Now)) / u.p.step
	case sliding:
		return max(0, u.p.slide.ceil(u.p.limit, u.at.before, u.res.Now)-u.res.Value)
	}
	return max(0, u.p.ceil-u.res.Value) // quota, concurrent
}

// next returns how long until there is one unit more than now, of a policy with
// a register.
func (u *use) next() int64 {
	switch u.p.algorithm {
	case gcra:
		used := max(0, u.res.Value-u.res.Now)
		if room := u.p.ceil - used; room >= 0 {
			return min(used, u.p.step-room%u.p.step)
		}
		return u.wait(1)
	case sliding:
		return u.wait(u.remaining() + 1)
	}
	return u.res.Expires // quota
}

// reset returns how long until all units are there.
func (u *use) reset() int64 {
	switch u.p.algorithm {
	case gcra:
		return max(0, u.res.Value-u.res.Now)
	case quota:
		return u.res.Expires
	case sliding:
		return u.p.slide.reset(u)
	}
	return 0
}
