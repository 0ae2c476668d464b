package session

import (
	"net/http"

	"example.com/plainware/internal/problem"
)

// The errors of this package; test with errors.Is. Each has HTTPStatus and Code
// methods, which [WriteError] uses.
var (
	// ErrUnavailable says that the store failed, or that the request ended
	// before it answered. Whether there is a session is unknown then, which is
	// not the same as being logged out: the request is answered with 503.
	ErrUnavailable error = &refusal{
		"session: the store failed", "session_unavailable", "Sessions are not available at the moment.", http.StatusServiceUnavailable,
	}

	// ErrConflict says that other requests kept changing the session, or that
	// a function given to Update, called again on what they had left, failed,
	// or that they have left a value that Codec cannot read, or that the request
	// has held the session for over a day in which it got another id, or over too
	// many ids, so that it can no longer be told whether it lives.
	// It is answered with 409.
	ErrConflict error = &refusal{
		"session: changed by other requests", "session_conflict", "The session was changed by another request.", http.StatusConflict,
	}

	// ErrTooLarge says that a value has more bytes than Config.MaxSize, or than
	// Config.Store takes.
	ErrTooLarge error = &refusal{
		"session: the value is too large", "session_too_large", "", http.StatusInternalServerError,
	}

	// ErrCommitted says that the response has begun, so that the cookie which
	// a new id needs cannot be set any more.
	ErrCommitted error = &refusal{
		"session: the response has begun, no cookie can be set", "session_committed", "", http.StatusInternalServerError,
	}
)

// refusal is an error with its answer.
type refusal struct {
	text, code, detail string
	status             int
}

func (e *refusal) Error() string   { return e.text }
func (e *refusal) HTTPStatus() int { return e.status }
func (e *refusal) Code() string    { return e.code }
func (e *refusal) Detail() string  { return e.detail }

// failure is a refusal with its cause, which is for logs and not for clients.
type failure struct {
	*refusal
	cause error
}

func (e *failure) Error() string   { return e.text + ": " + e.cause.Error() }
func (e *failure) Unwrap() []error { return []error{e.refusal, e.cause} }

func because(sentinel, cause error) error { return &failure{sentinel.(*refusal), cause} }

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }
