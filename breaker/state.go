package breaker

import (
	"fmt"
	"time"
)

// State is what a breaker does with calls.
type State int

const (
	// Closed lets calls through, and counts how they end.
	Closed State = iota

	// Open refuses all.
	Open

	// HalfOpen lets a few through on trial.
	HalfOpen
)

// String returns the name of the state in small letters, for logs.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Change is a change of the state, or of what an operator has decided, where From
// and To can be the same.
type Change struct {
	Name     string // as [OpenError.Name]
	From, To State

	// Reason says in words why.
	Reason string

	// OpenFor is for how long, if To is Open and that is known.
	OpenFor time.Duration

	// Fleet says that it is so in all processes that share the Store, and not
	// only in this one.
	Fleet bool

	// Author is who has forced it, if somebody has: see [Breaker.Force].
	Author string
}
