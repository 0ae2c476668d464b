package forwardauth

import (
	"net/http"
	"strconv"
	"time"

	"example.com/plainware/internal/problem"
)

// Reason says why a request was refused by this package and not by the
// decision service.
type Reason int

// The reasons. The first group is about the decision service, the second about
// the request.
const (
	// Unavailable: the service could not be asked, took longer than
	// Config.Timeout, or answered with a status of 500 or above; or, in JSON
	// mode, a header field that it would have to see is not UTF-8. 503.
	Unavailable Reason = iota + 1
	// BadResponse: the service answered with something that is no decision:
	// 101, 304, a body that is cut or longer than Config.MaxResponse, a header
	// value with control bytes, a document that is none. 503.
	BadResponse
	// Denied: the service said no in a way that has no answer of its own: a
	// policy engine's false, or a 2xx that Config.Allow does not accept. 403.
	Denied
	// Canceled: the client is gone. 499, which nobody sees but a log.
	Canceled

	// BadMethod: the method is not made of letters, is CONNECT or PRI, or the
	// request wants to be upgraded to h2c. 400.
	BadMethod
	// BadTarget: the request target is not in origin form, or can be
	// understood in more than one way: see Config.InsecureAmbiguousPaths; or, in
	// JSON mode, is not UTF-8 when it is decoded. 400.
	BadTarget
	// BadForwarded: Host, or what a trusted proxy says in X-Forwarded-Proto,
	// -Host or -For, is missing, malformed or there twice. 400.
	BadForwarded
	// BadBody: the request body could not be read, or, in JSON mode, is not
	// UTF-8. 400.
	BadBody
	// BodyTooLarge: the request body is longer than Config.MaxBody. 413.
	BodyTooLarge
	// Loop: the request is the question that this very middleware asks: the
	// decision service is behind itself. 508.
	Loop
)

// reasons has what each Reason means to a client: the status, the code, and
// the sentence that is all the client gets to read.
var reasons = [...]struct {
	status             int
	code, text, detail string
}{
	0:            {503, "forwardauth_unavailable", "unknown", ""},
	Unavailable:  {503, "forwardauth_unavailable", "decision service unavailable", "The request could not be authorised at the moment."},
	BadResponse:  {503, "forwardauth_bad_response", "no valid answer from the decision service", "The request could not be authorised at the moment."},
	Denied:       {403, "forwardauth_denied", "denied", "The request is not allowed."},
	Canceled:     {499, "forwardauth_canceled", "request canceled", ""},
	BadMethod:    {400, "forwardauth_method", "method or upgrade not accepted", "The method or the upgrade of the request is not accepted."},
	BadTarget:    {400, "forwardauth_target", "ambiguous request target", "The request target can be understood in more than one way."},
	BadForwarded: {400, "forwardauth_forwarded", "bad Host or X-Forwarded field", "A host or forwarding header of the request is not valid."},
	BadBody:      {400, "forwardauth_body", "request body not readable", "The request body could not be read."},
	BodyTooLarge: {413, "forwardauth_body_too_large", "request body too large to authorise", "The request body is too large."},
	Loop:         {508, "forwardauth_loop", "decision service is behind this middleware", "The decision service is guarded by itself."},
}

func (r Reason) known() Reason {
	if r < 0 || int(r) >= len(reasons) {
		return 0
	}
	return r
}

// String returns the reason in words, for logs.
func (r Reason) String() string { return reasons[r.known()].text }

// Error is the refusal that [Config.ErrorHandler] is given. No text of it has a
// cookie, a credential or a header value of the request in it, unless the error
// of Config.Base has.
type Error struct {
	Reason Reason

	// RetryAfter is when it makes sense to try again; 0 where that is not
	// known. It is in the Retry-After header already when ErrorHandler is
	// called.
	RetryAfter time.Duration

	Err error // what went wrong in detail; may be nil. Never sent to the client.
}

// Error implements error.
func (e *Error) Error() string {
	s := "forwardauth: " + e.Reason.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus returns the status of the Reason.
func (e *Error) HTTPStatus() int { return reasons[e.Reason.known()].status }

// Code is a stable token for the Reason: forwardauth_unavailable,
// forwardauth_bad_response, forwardauth_denied, forwardauth_canceled,
// forwardauth_method, forwardauth_target, forwardauth_forwarded,
// forwardauth_body, forwardauth_body_too_large or forwardauth_loop.
func (e *Error) Code() string { return reasons[e.Reason.known()].code }

// Detail is the sentence the client gets to read.
func (e *Error) Detail() string { return reasons[e.Reason.known()].detail }

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }

// refuse answers r with err in the place of the next handler.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, q *question, err *Error) {
	h := w.Header()
	if err.RetryAfter > 0 {
		seconds := (err.RetryAfter + time.Second - 1) / time.Second
		h["Retry-After"] = []string{strconv.FormatInt(int64(seconds), 10)}
	}
	closeIfUnread(w, r, q)
	m.cfg.ErrorHandler(w, r, err)
}

// closeIfUnread asks the server to close an HTTP/1 connection on which a
// request body is still to come: whoever is refused should not have to be
// listened to.
func closeIfUnread(w http.ResponseWriter, r *http.Request, q *question) {
	if r.ProtoMajor == 1 && hasBody(r) && !(q != nil && q.drained) {
		w.Header()["Connection"] = []string{"close"}
	}
}

// hasBody reports whether r has a body, or may have one. What an extended
// CONNECT carries is none: it has no end before the answer. An upgrade over
// HTTP/1.1 has one where it says so, which comes before the other protocol does.
func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 && !extendedConnect(r)
}
