package breaker

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// phase is a state from one change to the next. Its address says which phase a
// call belongs to, so the results of those that have outlived theirs are known.
type phase struct {
	state  State
	fleet  bool  // the state of all processes, and not only of this one
	began  int64 // of the breaker's now
	until  int64 // Open, or forced: the end; 0 is none
	streak int   // how often it has opened in a row
	force  *Override

	refusal *OpenError // where calls are refused
	timer   *time.Timer
	over    chan struct{} // closed at the end, where Config.Probe waits for it

	// Closed.
	ramping atomic.Bool
	credit  atomic.Int64 // of the ramp
	row     atomic.Int64 // failures in a row
	window  window
	part    atomic.Pointer[bucket] // of window, now; nil where nobody knows
	last    *window                // of the closed phase before; the store may not know all of it

	// HalfOpen.
	good    atomic.Int64  // probes that have succeeded
	unsent  atomic.Int64  // those that the store has not been told of
	permit  atomic.Int64  // the deadline of a probe that the store has granted
	wanted  atomic.Bool   // somebody has asked for one
	granted chan struct{} // there may be one, for Config.Probe
}

// stop stops what belongs to a phase. b.mu is held.
func (ph *phase) stop() {
	if ph.timer != nil {
		ph.timer.Stop()
	}
	if ph.over != nil {
		close(ph.over)
		ph.over = nil
	}
}

// windows are those that may hold what the store does not know.
func (ph *phase) windows() iter.Seq[*window] {
	return func(yield func(*window) bool) {
		if ph.state == Closed && !yield(&ph.window) {
			return
		}
		if ph.last != nil {
			yield(ph.last)
		}
	}
}

// enter makes next the phase. b.mu is held, and deliver is called after it.
func (b *Breaker) enter(next *phase, reason string) {
	was := b.phase.Load()
	was.stop()
	now := b.now()
	e := Change{Name: b.name, From: was.state, To: next.state, Reason: reason, Fleet: next.fleet}
	if next.force != nil {
		e.Author = next.force.Author
	}
	switch {
	case next.state == Open && next.until != 0:
		e.OpenFor = time.Duration(max(0, next.until-now))
		next.refusal = &OpenError{Name: b.name, State: Open, until: time.Now().Add(e.OpenFor)}
	case next.state != Closed || b.cfg.Ramp > 0:
		next.refusal = &OpenError{Name: b.name, State: next.state}
	}
	if !b.closed {
		if next.until != 0 {
			next.timer = time.AfterFunc(time.Duration(max(0, next.until-now)), func() { b.expire(next) })
		}
		if next.state == HalfOpen && b.cfg.Probe != nil {
			next.over, next.granted = make(chan struct{}), make(chan struct{}, 1)
		}
	}
	if next.state == Open && was.state != Open {
		b.openings.Add(1) // what the fleet confirms, or somebody forces, was open before
	}
	if b.share != nil && next.state != Closed {
		if next.last = was.last; was.state == Closed {
			next.last = &was.window
		}
	}
	b.phase.Store(next)
	if over := next.over; over != nil { // not sooner, or what the probe says comes from another phase
		b.running.Go(func() { b.examine(next, over) })
	}
	if e.From != e.To || next.force != was.force {
		b.events = append(b.events, e)
	}
}

// expire ends a phase whose time is up.
func (b *Breaker) expire(ph *phase) {
	b.mu.Lock()
	if b.phase.Load() == ph && !b.closed {
		if ph.force != nil {
			b.enter(&phase{state: Closed, began: b.now()}, forceOver)
		} else {
			b.enter(&phase{state: HalfOpen, fleet: ph.fleet, began: b.now(), streak: ph.streak}, timeIsUp)
		}
	}
	b.mu.Unlock()
	b.deliver()
}

// trip opens after ph, unless another call has done it.
func (b *Breaker) trip(ph *phase, reason string) {
	b.mu.Lock()
	changed := b.phase.Load() == ph && !b.closed
	if changed {
		now := b.now()
		streak := ph.streak + 1
		if ph.state == Closed && now-ph.began >= int64(b.cfg.Ramp+b.cfg.Window) {
			streak = 1
		}
		b.enter(&phase{
			state: Open, fleet: ph.fleet && ph.state == HalfOpen, began: now,
			until: now + int64(b.openFor(streak)), streak: streak,
		}, reason)
	}
	b.mu.Unlock()
	if changed {
		b.deliver()
		b.share.kick()
	}
}

// openFor is how long the breaker stays open for the nth time in a row.
func (b *Breaker) openFor(streak int) time.Duration {
	d := b.cfg.OpenFor
	for n := 1; n < streak && d < b.cfg.MaxOpen; n++ {
		d *= 2
	}
	d = min(d, b.cfg.MaxOpen)
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// restore closes after the half-open phase ph.
func (b *Breaker) restore(ph *phase, reason string) {
	b.mu.Lock()
	changed := b.phase.Load() == ph && !b.closed
	if changed {
		b.enter(b.recovered(ph.streak), reason)
	}
	b.mu.Unlock()
	if changed {
		b.deliver()
		b.share.kick()
	}
}

// recovered is a closed phase that begins with a ramp.
func (b *Breaker) recovered(streak int) *phase {
	ph := &phase{state: Closed, began: b.now(), streak: streak}
	ph.ramping.Store(b.cfg.Ramp > 0)
	return ph
}

// deliver tells of the changes in their order. Whoever finds somebody else at it
// leaves the rest to them.
func (b *Breaker) deliver() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.delivering {
		return
	}
	b.delivering = true
	defer func() { b.delivering = false }()
	for len(b.events) > 0 {
		e := b.events[0]
		b.events = b.events[1:]
		b.tell(e)
	}
}

// tell lets go of b.mu while the hook is called.
func (b *Breaker) tell(e Change) {
	b.mu.Unlock()
	defer b.mu.Lock()
	level := slog.LevelInfo
	if e.To == Open {
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if b.cfg.Logger.Enabled(ctx, level) {
		attrs := []slog.Attr{
			slog.String("breaker", e.Name), slog.String("from", e.From.String()),
			slog.String("to", e.To.String()), slog.String("reason", e.Reason), slog.Bool("fleet", e.Fleet),
		}
		if e.OpenFor > 0 {
			attrs = append(attrs, slog.Duration("open_for", e.OpenFor))
		}
		if e.Author != "" {
			attrs = append(attrs, slog.String("author", e.Author))
		}
		b.cfg.Logger.LogAttrs(ctx, level, "breaker changed", attrs...)
	}
	if b.cfg.OnStateChange != nil {
		b.cfg.OnStateChange(e)
	}
}

// examine calls Config.Probe while the breaker is half-open.
func (b *Breaker) examine(ph *phase, over <-chan struct{}) {
	for {
		p, ok := b.trial(ph, b.now())
		if !ok {
			// The store may have none for us before the time of another
			// process's probe is up.
			pause := time.NewTimer(min(b.cfg.ProbeTimeout, b.cfg.Sync))
			select {
			case <-over:
				pause.Stop()
				return
			case <-ph.granted:
				pause.Stop()
			case <-pause.C:
			}
			continue
		}
		o := b.probe()
		b.done(p, o, false)
		select {
		case <-over:
			return
		default:
		}
	}
}

// probe calls Config.Probe once. One that does not end in time is left behind.
func (b *Breaker) probe() Outcome {
	ctx, cancel := context.WithTimeout(b.limbo, b.cfg.ProbeTimeout)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		// A panic of the probe ends the program, as one in any goroutine does,
		// but a Goexit must not be waited for.
		err := errors.New("breaker: the probe did not return")
		defer func() { result <- err }()
		err = b.cfg.Probe(ctx)
	}()
	select {
	case err := <-result:
		if err == nil {
			return Success
		}
	case <-ctx.Done():
	}
	if b.limbo.Err() != nil {
		return Ignored
	}
	return Failure
}
