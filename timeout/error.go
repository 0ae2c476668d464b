package timeout

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"example.com/plainware/internal/problem"
)

// Phase says which limit passed.
type Phase int

// The phases, in the order of their fields in [Limits].
const (
	Total     Phase = iota + 1 // Limits.Total
	FirstByte                  // Limits.FirstByte
	ReadIdle                   // Limits.ReadIdle
	WriteIdle                  // Limits.WriteIdle
	Caller                     // a deadline that came with the request: see [Deadline]
)

// String returns the phase in words, for logs.
func (p Phase) String() string {
	switch p {
	case Total:
		return "total"
	case FirstByte:
		return "first byte"
	case ReadIdle:
		return "read idle"
	case WriteIdle:
		return "write idle"
	case Caller:
		return "caller's"
	}
	return "unknown"
}

// Error says that a limit has passed. It is the cause of the handler's context
// (context.Cause), the error of a Read or Write that took too long, and what
// [Config.ErrorHandler] is given.
//
// errors.Is takes it for context.DeadlineExceeded, os.ErrDeadlineExceeded and
// http.ErrHandlerTimeout, since code below expects now one and now another.
type Error struct {
	Phase Phase
	Limit time.Duration // the limit that passed; 0 where it is not known

	status int // the configured one for Total, FirstByte and WriteIdle
}

// Error implements error.
func (e *Error) Error() string {
	s := "timeout: " + e.Phase.String() + " limit"
	if e.Limit > 0 {
		s += " of " + e.Limit.String()
	}
	return s + " passed"
}

// Timeout reports true, as net.Error wants it.
func (e *Error) Timeout() bool { return true }

// Is makes e one of the standard library's deadline errors.
func (e *Error) Is(target error) bool {
	return target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded || target == http.ErrHandlerTimeout
}

// HTTPStatus is 408 for a stalled request body (RFC 9110 section 15.5.9), 504
// for the caller's own deadline, and otherwise [Config.Status].
func (e *Error) HTTPStatus() int {
	switch {
	case e.Phase == ReadIdle:
		return http.StatusRequestTimeout
	case e.Phase == Caller:
		return http.StatusGatewayTimeout
	case e.status != 0:
		return e.status
	}
	return http.StatusServiceUnavailable
}

// Code is a stable token for the phase: timeout_total, timeout_first_byte,
// timeout_read_idle, timeout_write_idle or timeout_caller.
func (e *Error) Code() string {
	switch e.Phase {
	case FirstByte:
		return "timeout_first_byte"
	case ReadIdle:
		return "timeout_read_idle"
	case WriteIdle:
		return "timeout_write_idle"
	case Caller:
		return "timeout_caller"
	}
	return "timeout_total"
}

// Detail is the sentence the client gets to read.
func (e *Error) Detail() string {
	switch e.Phase {
	case ReadIdle:
		return "The request body did not arrive in time."
	case Caller:
		return "The deadline of the request has passed."
	}
	return "The server did not answer in time."
}

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }

// causeOf returns the error that ended ctx as one of ours, or nil when ctx was
// cancelled for another reason: the client is gone.
func causeOf(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	if cause == nil || cause == context.Canceled {
		return nil
	}
	if e, ok := errors.AsType[*Error](cause); ok {
		return e
	}
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Phase: Caller}
	}
	return nil
}
