package upstream

import (
	"net/http"
	"time"
)

// Observer is told what happens in a [Pool], as it happens and in the goroutine
// that it happens in, so that its functions should return soon. They are called
// concurrently. One that is nil costs nothing.
type Observer struct {
	// State is called when the state of a back end has changed. It may call
	// [Pool.Update], but neither [Pool.Close] nor [Pool.Shutdown]: these wait
	// for the goroutine that it may be in.
	State func(StateChange)

	// Attempt is called when an attempt has its response header or has failed.
	// The request is the one that the Pool was given; it must not be changed.
	Attempt func(*http.Request, Attempt)
}

// StateChange is a change of a back end's state.
type StateChange struct {
	Target   Target
	Old, New State
	Reason   string
}

// Attempt is one sending of a request to one back end.
type Attempt struct {
	Target   Target
	Number   int  // 1 is the first
	FailOpen bool // the back end was tried although it is not healthy

	Queue    time.Duration // wait for a place
	Connect  time.Duration // dial and TLS handshake; 0 on a connection that was there
	Duration time.Duration // until the response header or the failure

	Status int   // of the response; 0 if there is none
	Err    error // an *[Error]; nil if there is a response
}
