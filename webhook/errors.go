package webhook

import (
	"errors"
	"net/http"

	"example.com/plainware/internal/problem"
)

// The errors of [Verifier.Verify] and of [Config.ErrorHandler]. Test with
// errors.Is. All that a stranger can bring about by guessing are one and the
// same 401 to the client, so that an answer does not tell how near a guess was;
// which one it was goes to [Config.OnReject].
var (
	// ErrNoSignature: the header has no signature of the scheme's kind.
	ErrNoSignature error = &refusal{http.StatusUnauthorized, "webhook_unverified", "no signature"}

	// ErrMalformed: a header line, a time or a signature that the scheme does
	// not write, or one that is there twice; or such a body, where the scheme
	// reads it or has none. Of JSON that is read before it is verified, an
	// object has at most 256 members.
	ErrMalformed error = &refusal{http.StatusUnauthorized, "webhook_unverified", "malformed signature, time or ID"}

	// ErrMismatch: no configured key made any of the signatures.
	ErrMismatch error = &refusal{http.StatusUnauthorized, "webhook_unverified", "no key matches"}

	// ErrTooOld and ErrTooNew: the signed time is outside the window.
	ErrTooOld error = &refusal{http.StatusUnauthorized, "webhook_unverified", "too old"}
	ErrTooNew error = &refusal{http.StatusUnauthorized, "webhook_unverified", "from the future"}

	// ErrChallenge: an endpoint test that asks for something else than a test
	// does, or with the wrong token.
	ErrChallenge error = &refusal{http.StatusForbidden, "webhook_challenge", "bad challenge"}

	// ErrMethod: not a method of the scheme.
	ErrMethod error = &refusal{http.StatusMethodNotAllowed, "webhook_method", "method not allowed"}

	// ErrTooLarge: the body is longer than [Config.MaxBody].
	ErrTooLarge error = &refusal{http.StatusRequestEntityTooLarge, "webhook_too_large", "body too large"}

	// ErrEncoding: the body has a Content-Encoding. Signatures cover what was
	// before or after it, and senders do not say which.
	ErrEncoding error = &refusal{http.StatusUnsupportedMediaType, "webhook_encoding", "body with a content encoding"}

	// ErrBody: the body broke off.
	ErrBody error = &refusal{http.StatusBadRequest, "webhook_body", "the body cannot be read"}

	// ErrInFlight: the same delivery is being handled at this moment.
	ErrInFlight error = &refusal{http.StatusConflict, "webhook_in_flight", "the same delivery is being handled"}

	// ErrDuplicate: the same delivery was handled. It is not a refusal, the
	// answer is 200; [Config.OnReject] gets it.
	ErrDuplicate error = &refusal{http.StatusOK, "webhook_duplicate", "the same delivery was handled"}

	// ErrStore: the store did not answer. The store's own error is wrapped
	// with it.
	ErrStore error = &refusal{http.StatusServiceUnavailable, "webhook_store", "the replay store failed"}

	// ErrKeySource: the source of certificates did not answer; see
	// [CertSource].
	ErrKeySource error = &refusal{http.StatusServiceUnavailable, "webhook_key_source", "no certificate"}
)

type refusal struct {
	status int
	code   string
	text   string
}

func (e *refusal) Error() string   { return "webhook: " + e.text }
func (e *refusal) HTTPStatus() int { return e.status }
func (e *refusal) Code() string    { return e.code }

// Detail is the sentence the client gets to read.
func (e *refusal) Detail() string {
	switch e.status {
	case http.StatusUnauthorized:
		return "The delivery could not be verified."
	case http.StatusConflict:
		return "The same delivery is being handled."
	case http.StatusServiceUnavailable:
		return "The delivery cannot be judged at the moment."
	}
	return ""
}

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }

// writeStatus answers with the status of err and no body.
func writeStatus(w http.ResponseWriter, _ *http.Request, err error) {
	h, status := w.Header(), http.StatusInternalServerError
	if e, ok := errors.AsType[problem.Error](err); ok && e.HTTPStatus() >= 400 && e.HTTPStatus() <= 599 {
		status = e.HTTPStatus() // any other is no refusal: 200 would say that the delivery was taken
	}
	problem.DeleteRepresentation(h)
	h["Content-Length"], h["Cache-Control"] = []string{"0"}, []string{"no-store"}
	w.WriteHeader(status)
}
