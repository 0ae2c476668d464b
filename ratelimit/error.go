package ratelimit

import (
	"errors"
	"net/http"
	"time"

	"example.com/plainware/internal/problem"
)

// The errors of arguments. Test with errors.Is. None contains a key.
var (
	ErrPolicy = errors.New("ratelimit: no such policy, or one of Concurrent")
	ErrKey    = errors.New("ratelimit: bad key")
	ErrCost   = errors.New("ratelimit: the cost must not be negative, and below 2^53")

	// ErrContext is returned by [Limiter.Charge] for a context that has not come
	// from the limiter's Handler, or if no policy has a Debt.
	ErrContext = errors.New("ratelimit: nothing to charge in this context")
)

// LimitError says that a request was refused. It is what [Config.ErrorHandler]
// and the callers of [Limiter.Wait] are given.
type LimitError struct {
	Decision

	reason reason
	cause  error
}

type reason uint8

const (
	limited     reason = iota // by a rate
	busy                      // by Concurrent
	unavailable               // no decision: the store failed, or the context ended
)

// Error implements error. It never contains a key.
func (e *LimitError) Error() string {
	s := "ratelimit: "
	switch {
	case e.reason == unavailable:
		s += "no decision"
	case e.Policy == "":
		s += "refused"
	default:
		s += "refused by policy " + e.Policy
	}
	if e.RetryAfter > 0 {
		s += ", retry after " + e.RetryAfter.Round(time.Millisecond).String()
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the error behind this one: that of a context that ended, or of
// one that would end before [Limiter.Wait] can return.
func (e *LimitError) Unwrap() error { return e.cause }

// HTTPStatus is 429 for a rate (RFC 6585, section 4), and 503 for Concurrent and
// where no decision was possible.
func (e *LimitError) HTTPStatus() int {
	if e.reason == limited {
		return http.StatusTooManyRequests
	}
	return http.StatusServiceUnavailable
}

// Code is a stable token: rate_limited, too_many_concurrent or
// rate_limit_unavailable.
func (e *LimitError) Code() string {
	switch e.reason {
	case busy:
		return "too_many_concurrent"
	case unavailable:
		return "rate_limit_unavailable"
	}
	return "rate_limited"
}

// Detail is the sentence the client gets to read.
func (e *LimitError) Detail() string {
	switch {
	case e.reason == busy:
		return "Too many requests are in progress."
	case e.reason == unavailable:
		return "The request could not be checked against its limit."
	case e.RetryAfter <= 0:
		return "The request costs more than is ever allowed at once."
	}
	return "Too many requests. Retry-After says when to try again."
}

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }
