package breaker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Outcome is what the end of a call says about what the breaker protects.
type Outcome int

const (
	// Success: it works.
	Success Outcome = iota

	// Failure: it does not.
	Failure

	// Ignored: the call has shown neither, since the caller has left, say.
	Ignored
)

// String returns the name of the constant.
func (o Outcome) String() string {
	switch o {
	case Success:
		return "Success"
	case Failure:
		return "Failure"
	case Ignored:
		return "Ignored"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Result is how an HTTP call has ended.
type Result struct {
	// Request is the request, as the breaker was given it.
	Request *http.Request

	// Status is the status of the response, 0 if there was none.
	Status int

	// Header is that of the response. nil if there was none.
	Header http.Header

	// Err is why there was no response, or why its body broke off. It is the
	// cause of the request's context where that has ended first; below a Handler
	// that means that the client has left.
	Err error

	// Panicked says that the handler below [Breaker.Handler] has panicked. The
	// value is not known, since the panic is not stopped.
	Panicked bool
}

// Classify is the default of [Config.Classify].
//
// Ignored are calls that the caller has given up (the request's context was
// cancelled), those that another breaker has refused, and those that a middleware
// outside ended for what the client did: an error, or a cause of the request's
// context, with an HTTPStatus from 400 to 499, such as the 408 of an upload that
// stalls, or an [http.MaxBytesError]. Failures are all other errors, the caller's
// deadline included, panics, and the statuses from 500 up, without 501 and 505,
// which say something about the request.
func Classify(r Result) Outcome {
	if r.Request != nil {
		ctx := r.Request.Context()
		if ctx.Err() != nil {
			if cause := context.Cause(ctx); clientFault(cause) || !errors.Is(cause, context.DeadlineExceeded) {
				return Ignored
			}
		}
	}
	if r.Err != nil {
		if _, ok := errors.AsType[*OpenError](r.Err); ok || clientFault(r.Err) {
			return Ignored
		}
		return Failure
	}
	switch {
	case r.Panicked:
		return Failure
	case r.Status == http.StatusNotImplemented || r.Status == http.StatusHTTPVersionNotSupported:
		return Success
	case r.Status >= 500:
		return Failure
	}
	return Success
}

// clientFault reports whether err says that it is an answer to what the client did.
func clientFault(err error) bool {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return true
	}
	e, ok := errors.AsType[interface {
		error
		HTTPStatus() int
	}](err)
	return ok && e.HTTPStatus()/100 == 4
}
