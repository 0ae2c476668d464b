package breaker

import (
	"fmt"
	"net/http"
	"time"

	"example.com/plainware/internal/problem"
)

// OpenError says that a call was refused and nothing of it was sent. One value
// is shared by all calls that are refused in the same phase.
type OpenError struct {
	// Name is [Config.Name]; in a [Group] with a colon and the key after it.
	Name string

	// State is Open; HalfOpen where all probes are taken; or Closed where calls
	// are let through by and by, see [Config.Ramp].
	State State

	until time.Time // the end of the open time; zero where it is not known
}

// unknownRetry is what callers are told where nobody knows how long it takes.
const unknownRetry = time.Second

// Error implements error.
func (e *OpenError) Error() string {
	switch e.State {
	case HalfOpen:
		return fmt.Sprintf("breaker: %s is half-open, and all probes are taken", e.Name)
	case Closed:
		return fmt.Sprintf("breaker: %s has just closed, and does not let all calls through yet", e.Name)
	}
	return fmt.Sprintf("breaker: %s is open, retry after %v", e.Name, e.RetryAfter().Round(time.Millisecond))
}

// RetryAfter is how long it takes from now until calls may be let through
// again: what is left of the open time, or a second where the state is not Open
// or where that is not known. It is zero when the open time is over.
func (e *OpenError) RetryAfter() time.Duration {
	if e.until.IsZero() {
		return unknownRetry
	}
	return max(0, time.Until(e.until))
}

// NotSent reports true: the call can be repeated elsewhere, whatever its method.
func (e *OpenError) NotSent() bool { return true }

// HTTPStatus is 503. A breaker never answers with 429: the client has done
// nothing wrong.
func (e *OpenError) HTTPStatus() int { return http.StatusServiceUnavailable }

// Code is breaker_open.
func (e *OpenError) Code() string { return "breaker_open" }

// Detail is the sentence the client gets to read.
func (e *OpenError) Detail() string {
	return "The service is not available at the moment. Retry-After says when to try again."
}

// seconds is the value of Retry-After (RFC 9110, section 10.2.3): whole seconds,
// not too few, and at least 1.
func (e *OpenError) seconds() int64 {
	return max(1, int64((e.RetryAfter()+time.Second-1)/time.Second))
}

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }
