package breaker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker counts how calls to one thing end, and refuses further ones while it
// is down. It is safe for concurrent use. One Breaker can serve as transport,
// wrap handlers and guard other code at the same time: it is one state.
type Breaker struct {
	phase atomic.Pointer[phase] // all that a call looks at

	name     string
	start    time.Time // of now
	width    int64     // of a bucket of a window
	slowCall int64
	cfg      Config
	share    *share // nil without a Store
	own      *syncer
	limbo    context.Context // of Config.Probe
	leave    context.CancelFunc
	running  sync.WaitGroup

	gate     gate // of the probes that need no permit of the fleet
	openings atomic.Int64
	late     atomic.Int64

	_       [64]byte // refused is written by each call that is refused
	refused atomic.Int64
	_       [56]byte

	mu         sync.Mutex // of changes of the phase
	closed     bool
	events     []Change
	delivering bool
}

// New returns a Breaker, which is closed unless the Store says otherwise: it is
// asked for up to 250 ms. The error lists every field of c that is wrong. A
// Store that does not answer is no error.
func New(c Config) (*Breaker, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	b := newBreaker(c, c.Name)
	if c.Store != nil {
		b.own = newSyncer(c)
		b.own.join(b, c.Name)
		if err := b.own.load(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// newBreaker makes a closed breaker from a complete configuration.
func newBreaker(c Config, name string) *Breaker {
	b := &Breaker{
		name: name, cfg: c, start: time.Now(),
		width: int64(c.Window / buckets), slowCall: int64(c.SlowCall),
	}
	b.limbo, b.leave = context.WithCancel(context.Background())
	b.phase.Store(&phase{state: Closed})
	return b
}

// Close ends what the breaker has started, and brings to the Store what was
// counted. It waits for that for a second at most. The breaker must not be used
// any more. It returns nil, the second time too.
func (b *Breaker) Close() error {
	b.shut()
	if b.own != nil {
		b.own.close()
	}
	b.running.Wait()
	return nil
}

// shut stops what runs without the syncer.
func (b *Breaker) shut() {
	b.mu.Lock()
	b.closed = true
	b.phase.Load().stop()
	b.mu.Unlock()
	b.leave()
}

// now is the time since the breaker was made, on the monotonic clock.
func (b *Breaker) now() int64 { return int64(time.Since(b.start)) }

// Permit is leave for one call. Done must be called once, when the call has
// ended.
type Permit struct {
	b     *Breaker
	phase *phase
	start int64 // where it matters
	trial int64 // of a probe the instant at which it is not waited for any longer
	fleet bool  // a probe that the store has granted
}

// Acquire returns leave for a call of any kind, or an [*OpenError]. It never
// waits.
func (b *Breaker) Acquire() (Permit, error) {
	ph := b.phase.Load()
	if ph.state == Open {
		b.refused.Add(1)
		return Permit{}, ph.refusal
	}
	if ph.state == HalfOpen || ph.ramping.Load() {
		return b.acquire(ph)
	}
	p := Permit{b: b, phase: ph}
	if b.slowCall > 0 {
		p.start = b.now()
	}
	return p, nil
}

// acquire is Acquire where not all calls are let through.
func (b *Breaker) acquire(ph *phase) (Permit, error) {
	now := b.now()
	if ph.state == Closed {
		if b.admit(ph, now) {
			return Permit{b: b, phase: ph, start: now}, nil
		}
	} else if b.cfg.Probe == nil {
		if p, ok := b.trial(ph, now); ok {
			return p, nil
		}
	}
	b.refused.Add(1)
	return Permit{}, ph.refusal
}

// admit reports whether a call of a ramp is let through: each adds the share of
// calls that are, and those are that complete a whole one.
func (b *Breaker) admit(ph *phase, now int64) bool {
	const whole = 1 << 20
	ramp := int64(b.cfg.Ramp)
	age := now - ph.began
	if age >= ramp {
		ph.ramping.Store(false)
		return true
	}
	share := whole/10 + int64(float64(max(0, age))/float64(ramp)*(whole*9/10))
	after := ph.credit.Add(share)
	return after/whole > (after-share)/whole
}

// trial lets a probe start, if one may.
func (b *Breaker) trial(ph *phase, now int64) (Permit, bool) {
	if ph.fleet && b.share.alive() {
		// One that has lain about would be a start that comes too soon before the
		// next one.
		if deadline := ph.permit.Swap(0); deadline > now && deadline-int64(b.cfg.ProbeTimeout-2*b.cfg.Sync) > now {
			return Permit{b: b, phase: ph, start: now, trial: deadline, fleet: true}, true
		} else if deadline > now {
			b.share.giveBack(deadline)
		}
		if ph.wanted.CompareAndSwap(false, true) {
			b.share.kick()
		}
		return Permit{}, false
	}
	h := int64(b.cfg.ProbeTimeout)
	if b.gate.take(now, h, int64(b.cfg.Probes)) {
		return Permit{b: b, phase: ph, start: now, trial: now + h}, true
	}
	return Permit{}, false
}

// Done says how the call has ended. It must be called once; a second time would
// count as a second call. What a call has to say that was let through before the
// state has changed does not count.
func (p Permit) Done(o Outcome) {
	b := p.b
	if b == nil {
		return
	}
	b.done(p, o, b.slowCall > 0 && b.now()-p.start >= b.slowCall)
}

func (b *Breaker) done(p Permit, o Outcome, slow bool) {
	ph := p.phase
	if p.trial != 0 {
		b.giveBack(p)
	}
	switch {
	case b.phase.Load() != ph:
		b.late.Add(1)
	case o != Success && o != Failure:
	case ph.state == HalfOpen:
		b.tried(ph, o, slow)
	default:
		b.count(ph, o, slow)
	}
}

// count counts a call of a closed phase, and opens if it was one too many.
func (b *Breaker) count(ph *phase, o Outcome, slow bool) {
	part := ph.part.Load()
	if part == nil {
		part = b.turn(ph)
	}
	if slow {
		part.slow.Add(1)
	}
	limit := int64(b.cfg.Consecutive)
	if o == Success {
		part.success()
		if limit > 0 && ph.row.Load() != 0 {
			ph.row.Store(0)
		}
		if !slow {
			return
		}
	} else {
		part.bad.Add(1)
		if limit > 0 && ph.row.Add(1) >= limit && ph.force == nil {
			b.trip(ph, inARow)
			return
		}
	}
	if ph.force != nil {
		return
	}
	c := ph.window.sum(b.now() / b.width)
	least := int64(b.cfg.MinCalls)
	if ph.ramping.Load() {
		least = 1
	}
	switch {
	case c.calls < least:
	case o == Failure && b.failing(c):
		b.trip(ph, tooMany)
	case slow && reaches(c.slow, c.calls, b.cfg.SlowRatio):
		b.trip(ph, tooSlow)
	}
}

// turn begins the next part of the window. A timer ends it, so that most calls do
// not have to look at the clock, which would be most of what they cost.
func (b *Breaker) turn(ph *phase) *bucket {
	now := b.now()
	index := now / b.width
	part := ph.window.at(index)
	if ph.part.CompareAndSwap(nil, part) {
		time.AfterFunc(time.Duration((index+1)*b.width-now), func() { ph.part.CompareAndSwap(part, nil) })
	}
	return part
}

// failing reports whether the ratio of failures is reached.
func (b *Breaker) failing(c counts) bool { return reaches(c.bad, c.calls, b.cfg.FailureRatio) }

func reaches(n, of int64, ratio float64) bool {
	return ratio > 0 && n > 0 && float64(n) >= ratio*float64(of)
}

// The reasons of changes.
const (
	inARow       = "too many failures in a row"
	tooMany      = "too many failures"
	tooSlow      = "too many slow calls"
	probeFailed  = "a probe has failed"
	probesPassed = "probes have succeeded"
	timeIsUp     = "the open time is over"
	forced       = "forced"
	forceOver    = "no longer forced"
	byFleet      = "the other processes have found so"
	fromStore    = "found in the store"
)

// tried counts the end of a probe.
func (b *Breaker) tried(ph *phase, o Outcome, slow bool) {
	if o == Failure || slow {
		b.trip(ph, probeFailed)
		return
	}
	enough := ph.good.Add(1) >= int64(b.cfg.Successes)
	if ph.fleet && b.share.alive() {
		ph.unsent.Add(1)
		b.share.kick()
		return
	}
	if enough {
		b.restore(ph, probesPassed)
	}
}

// giveBack frees the place of a probe that has ended in time. Where it has not,
// time has freed it.
func (b *Breaker) giveBack(p Permit) {
	if p.fleet {
		b.share.giveBack(p.trial)
		return
	}
	if now := b.now(); now < p.trial {
		b.gate.giveBack(now, int64(b.cfg.ProbeTimeout))
	}
}

// gate lets n probes start at once, and one more for each h that passes: the
// local form of the register by which a fleet does it. It is the instant at which
// all places are free again.
type gate struct{ free atomic.Int64 }

func (g *gate) take(now, h, n int64) bool {
	for {
		was := g.free.Load()
		next := max(was, now) + h
		if next > now+n*h {
			return false
		}
		if g.free.CompareAndSwap(was, next) {
			return true
		}
	}
}

func (g *gate) giveBack(now, h int64) {
	for {
		was := g.free.Load()
		if was <= now || g.free.CompareAndSwap(was, max(was-h, now)) {
			return
		}
	}
}
