package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"example.com/plainware/internal/problem"
)

// Kind says whose fault a failed exchange is, and how far it had come. Only
// the kinds for which [Kind.BackendFault] reports true count against a back
// end's health.
type Kind uint8

// The kinds, roughly in the order in which an exchange can meet them.
const (
	KindClientGone    Kind = iota + 1 // the caller's context was cancelled, or what Config.Wrap's tripper has made of it
	KindDeadline                      // the deadline of the caller's context passed, or, during the response body, one of that tripper
	KindClientBody                    // reading the request body from the client failed, or took all of Retry.PerTry
	KindTooLarge                      // the request body exceeds ProxyConfig.MaxBody
	KindPolicy                        // the request is one that this proxy does not forward
	KindNoBackend                     // no back end can take the request
	KindQueueFull                     // Conns.MaxInFlight is reached and the queue is full
	KindQueueTimeout                  // Conns.QueueTimeout or Retry.PerTry passed in the queue
	KindGate                          // the tripper that Config.Wrap returned did not send the request
	KindDial                          // no connection could be made
	KindTLS                           // the TLS handshake failed, or it agreed on the wrong protocol
	KindWrite                         // the request could not be written completely
	KindNoResponse                    // the connection ended before any byte of a response
	KindHeaderTimeout                 // Conns.HeaderTimeout or Retry.PerTry passed, or a limit that Config.Wrap's tripper has set
	KindBadResponse                   // what the back end sent is no valid response, or too large
	KindBodyAborted                   // the response body was cut short
	KindUpgrade                       // the back end's answer to an upgrade does not fit
	KindClosed                        // the Pool is closed or shutting down
)

// kinds holds what is constant for a kind. The index is the Kind.
var kinds = [...]struct {
	name, code, detail string
	status             int
}{
	0:                 {"unknown", "upstream", "The back end could not be used.", http.StatusBadGateway},
	KindClientGone:    {"client gone", "upstream_client_gone", "The client closed the request.", statusClientGone},
	KindDeadline:      {"deadline", "upstream_deadline", "The back end did not answer before the request's deadline.", http.StatusGatewayTimeout},
	KindClientBody:    {"client body", "upstream_client_body", "The request body could not be read.", http.StatusBadRequest},
	KindTooLarge:      {"too large", "upstream_too_large", "The request body is too large.", http.StatusRequestEntityTooLarge},
	KindPolicy:        {"policy", "upstream_policy", "The request cannot be forwarded.", http.StatusBadRequest},
	KindNoBackend:     {"no backend", "upstream_no_backend", "No back end is available.", http.StatusServiceUnavailable},
	KindQueueFull:     {"queue full", "upstream_queue_full", "The back end is at its limit.", http.StatusServiceUnavailable},
	KindQueueTimeout:  {"queue timeout", "upstream_queue_timeout", "The back end is at its limit.", http.StatusServiceUnavailable},
	KindGate:          {"gate", "upstream_gate", "The back end is not being called at present.", http.StatusServiceUnavailable},
	KindDial:          {"dial", "upstream_dial", "The back end could not be reached.", http.StatusBadGateway},
	KindTLS:           {"tls", "upstream_tls", "No secure connection to the back end could be made.", http.StatusBadGateway},
	KindWrite:         {"write", "upstream_write", "The request could not be sent to the back end.", http.StatusBadGateway},
	KindNoResponse:    {"no response", "upstream_no_response", "The back end closed the connection without an answer.", http.StatusBadGateway},
	KindHeaderTimeout: {"header timeout", "upstream_header_timeout", "The back end did not answer in time.", http.StatusGatewayTimeout},
	KindBadResponse:   {"bad response", "upstream_bad_response", "The back end sent an invalid response.", http.StatusBadGateway},
	KindBodyAborted:   {"body aborted", "upstream_body_aborted", "The back end's response ended early.", http.StatusBadGateway},
	KindUpgrade:       {"upgrade", "upstream_upgrade", "The back end did not switch protocols as asked.", http.StatusBadGateway},
	KindClosed:        {"closed", "upstream_closed", "The server is shutting down.", http.StatusServiceUnavailable},
}

// statusClientGone is what nginx and its successors log for a client that
// left. Nobody is there to read it.
const statusClientGone = 499

func (k Kind) index() int {
	if int(k) < len(kinds) {
		return int(k)
	}
	return 0
}

// String returns the kind in words, for logs.
func (k Kind) String() string { return kinds[k.index()].name }

// BackendFault reports whether the back end caused the failure. What the
// client, the configuration or this process's own limits caused does not count
// against a back end.
func (k Kind) BackendFault() bool {
	switch k {
	case KindDial, KindTLS, KindWrite, KindNoResponse, KindHeaderTimeout, KindBadResponse, KindBodyAborted, KindUpgrade:
		return true
	}
	return false
}

// Error is the error of an exchange that failed: of [Pool.RoundTrip], of
// reading a response's body, and what [ProxyConfig.ErrorHandler] is given.
type Error struct {
	Kind    Kind
	Backend string // Target.ID of the back end that failed last; empty if none was chosen
	Err     error  // the cause; may be nil

	// RetryAfter is when another try makes sense, for the kinds that are
	// answered with 503; 0 is not known. [Proxy] sends it as Retry-After.
	RetryAfter time.Duration

	status int    // instead of the kind's
	detail string // instead of the kind's

	// passing is set where it was the connection that refused the request,
	// because it goes away or was given more than it takes: that says nothing
	// about the back end.
	passing bool

	// sent is set on a KindClosed that came to a request that a back end had.
	sent bool
}

// Error implements error. It names the back end and is not meant for clients.
func (e *Error) Error() string {
	s := "upstream: " + e.Kind.String()
	if e.Backend != "" {
		s += " (" + e.Backend + ")"
	}
	switch {
	case e.Err != nil:
		s += ": " + e.Err.Error()
	case e.detail != "":
		s += ": " + e.detail
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether a limit of time passed, as net.Error wants it.
func (e *Error) Timeout() bool {
	switch e.Kind {
	case KindDeadline, KindQueueTimeout, KindHeaderTimeout:
		return true
	}
	t, ok := errors.AsType[net.Error](e.Err)
	return ok && t.Timeout()
}

// NotSent reports whether it is certain that no back end has seen any part of
// the request, so that repeating it is safe whatever its method.
func (e *Error) NotSent() bool {
	switch e.Kind {
	case KindNoBackend, KindQueueFull, KindQueueTimeout, KindGate, KindDial, KindTLS, KindPolicy, KindClosed:
		return !e.sent
	}
	return false
}

// HTTPStatus is 413 for a body that is too large, 400 for one that could not be
// read, or 408 where that took too long, 400 or what the policy says for requests
// that are not forwarded, 503 where no back end could be used, 504 for timeouts,
// 499 for a client that is gone, and 502 for the rest.
func (e *Error) HTTPStatus() int {
	if e.status != 0 {
		return e.status
	}
	s := kinds[e.Kind.index()].status
	if s == http.StatusBadGateway && e.Timeout() {
		return http.StatusGatewayTimeout
	}
	return s
}

// Code is a stable token for the kind, such as upstream_dial.
func (e *Error) Code() string { return kinds[e.Kind.index()].code }

// Detail is the sentence the client gets to read. It names no back end.
func (e *Error) Detail() string {
	if e.detail != "" {
		return e.detail
	}
	return kinds[e.Kind.index()].detail
}

// WriteError answers with err as RFC 9457 problem details, or, if r is a gRPC
// request, with the grpc-status that fits and status 200, as its clients expect.
// It is what a nil [ProxyConfig.ErrorHandler] does; a handler of your own can
// fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	if isGRPC(r.Header["Content-Type"]) {
		writeGRPCError(w, err)
		return
	}
	problem.WriteError(w, r, err)
}

// contextEnd returns why the caller's context is at its end, nil if it is not.
// For a deadline the clock decides: a back end that has been told of it, as with
// gRPC, resets its stream at that moment, and that may be seen here before the
// context's own timer has run.
func contextEnd(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return nil
}

// contextError turns the end of the caller's context into an Error. The cause
// is kept, so that errors.Is finds what the caller cancelled with.
func contextError(ctx context.Context, backend string) *Error {
	err := contextEnd(ctx)
	kind := KindClientGone
	if errors.Is(err, context.DeadlineExceeded) {
		kind = KindDeadline
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, err) {
		err = errors.Join(err, cause)
	} else if cause != nil {
		err = cause
	}
	return &Error{Kind: kind, Backend: backend, Err: err}
}
