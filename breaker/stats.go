package breaker

import "time"

// Stats describes a breaker at a moment.
type Stats struct {
	Name  string
	State State
	Since time.Duration // for how long it has been in this state

	// Calls, Failures and Slow are those in the window, while it is Closed.
	Calls, Failures, Slow int64

	// RetryAfter is what is left of the open time.
	RetryAfter time.Duration

	Streak   int       // how often it has opened in a row
	Openings int64     // since New
	Refused  int64     // calls, since New
	Late     int64     // results that came after the state had changed, since New
	Forced   *Override // what an operator has decided; nil: nothing

	// Fleet is what the Store says. It is zero without one.
	Fleet FleetStats
}

// FleetStats describe what processes share.
type FleetStats struct {
	Generation int64         // of the state: one more with each change
	Open       bool          // calls are refused, or on trial, in all processes
	Synced     bool          // the Store has answered lately
	Age        time.Duration // since it has answered last

	// Calls and Failures are those of all processes in about a window, and
	// Active and Failing the processes that have calls, and too many failing
	// ones, as far as this process had to ask.
	Calls, Failures int64
	Active, Failing int64
}

// Name returns [Config.Name]; in a [Group] with a colon and the key after it.
func (b *Breaker) Name() string { return b.name }

// State returns the state.
func (b *Breaker) State() State { return b.phase.Load().state }

// Stats returns the statistics of b.
func (b *Breaker) Stats() Stats {
	ph := b.phase.Load()
	now := b.now()
	s := Stats{
		Name: b.name, State: ph.state, Since: time.Duration(now - ph.began), Streak: ph.streak,
		Openings: b.openings.Load(), Refused: b.refused.Load(), Late: b.late.Load(),
	}
	switch {
	case ph.state == Closed:
		c := ph.window.sum(now / b.width)
		s.Calls, s.Failures, s.Slow = c.calls, c.bad, c.slow
	case ph.state == Open && ph.until != 0:
		s.RetryAfter = time.Duration(max(0, ph.until-now))
	}
	if ph.force != nil {
		o := *ph.force
		s.Forced = &o
	}
	if b.share != nil {
		s.Fleet = b.share.stats()
	}
	return s
}
