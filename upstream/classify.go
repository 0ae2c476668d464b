package upstream

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// class says what is known of a failed attempt, as far as it matters for
// sending the request again.
type class uint8

const (
	classNever   class = iota // a response has begun, or it is the client's doing
	classNotSent              // no byte of the request has been written
	classRefused              // written, and the back end says that it did not act upon it
	classStale                // written on a connection used before, and no byte came back
	classLost                 // written on a new connection, and no byte came back
	classTimeout              // our own limit of time passed
	classStatus               // a response whose status asks for it
)

// failure is a failed attempt. Its class goes nowhere beyond the Pool.
type failure struct {
	*Error
	class class
}

// evidence is what an attempt left behind on its connection.
type evidence struct {
	written, read int64
	served        bool // the connection had brought a response before
	h2            bool
	late          bool // the watch closed it
	proven        bool // it has by now
	healthy       bool // the connection is as good as before
	full          bool // the stream was refused, and the connection has all that its peer allows
}

// streamError matches net/http's HTTP/2 stream error, which has no name
// outside: its As method fills any struct of these fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error" }

const codeRefusedStream = 7 // RFC 9113 section 7

// These texts of net/http have no other handle. Where a later release words
// them otherwise, the requests concerned are not repeated.
const (
	textUnusable    = "http2: client conn not usable"
	textNotUp       = "http2: client conn could not be established"
	textGoAway      = "http2: Transport received Server's graceful shutdown GOAWAY"
	textFromPeer    = "received from peer"
	textHeaderLimit = "server response headers exceeded"
	textListLimit   = "http2: response header list larger than advertised limit"
	textTooLong     = "http2: request header list larger than peer's advertised limit"
	textInvalid     = "http2: invalid " // with what it is, of the request, after that
)

// classify judges the error of a round trip over one of the Pool's own
// connections. Neither the client's context nor its body is to blame.
func classify(req *http.Request, err error, ev evidence) failure {
	if ev.late || !ev.h2 && headerTimeout(err) {
		return failure{&Error{Kind: KindHeaderTimeout, Err: errHeaderTimeout}, classTimeout}
	}
	if ev.h2 {
		return classifyH2(req, err, ev)
	}
	switch {
	case ev.written == 0 && (ev.healthy || !sendable(req) || !framed(req)):
		return failure{&Error{Kind: KindPolicy, Err: err, status: http.StatusBadRequest}, classNever}
	case ev.written == 0:
		return failure{&Error{Kind: KindNoResponse, Err: err}, classNotSent}
	case ev.read > 0:
		return failure{&Error{Kind: KindBadResponse, Err: err}, classNever}
	}
	kind, c := KindNoResponse, classLost
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "write" {
		kind = KindWrite
	}
	if ev.served {
		c = classStale
	}
	return failure{&Error{Kind: kind, Err: err}, c}
}

// refusedStream reports whether the peer has refused the stream of a request.
func refusedStream(err error) bool {
	se, ok := errors.AsType[streamError](err)
	return ok && se.Code == codeRefusedStream
}

func classifyH2(req *http.Request, err error, ev evidence) failure {
	if se, ok := errors.AsType[streamError](err); ok {
		switch {
		case se.Code == codeRefusedStream:
			return failure{&Error{Kind: KindNoResponse, Err: err, passing: ev.full}, classRefused}
		case se.Cause != nil && se.Cause.Error() == textFromPeer:
			return failure{&Error{Kind: KindNoResponse, Err: err}, classLost}
		}
		return failure{&Error{Kind: KindBadResponse, Err: err}, classNever}
	}
	switch text := err.Error(); {
	case text == textUnusable:
		return failure{&Error{Kind: KindNoResponse, Err: err}, classNotSent}
	case text == textNotUp:
		return failure{&Error{Kind: KindDial, Err: err}, classNotSent}
	case text == textGoAway:
		return failure{&Error{Kind: KindNoResponse, Err: err, passing: ev.proven}, classRefused}
	case text == textListLimit:
		return failure{&Error{Kind: KindBadResponse, Err: err}, classNever}
	case text == textTooLong:
		return failure{&Error{Kind: KindPolicy, Err: err, status: http.StatusRequestHeaderFieldsTooLarge}, classNever}
	case strings.HasPrefix(text, textInvalid), !sendable(req):
		return failure{&Error{Kind: KindPolicy, Err: err, status: http.StatusBadRequest}, classNever}
	}
	if headerTimeout(err) {
		return failure{&Error{Kind: KindHeaderTimeout, Err: err}, classTimeout}
	}
	if ev.served {
		return failure{&Error{Kind: KindNoResponse, Err: err}, classStale}
	}
	return failure{&Error{Kind: KindNoResponse, Err: err}, classLost}
}

// classifyForeign judges the error of a tripper that is not ours. What it
// says of itself is all there is.
func classifyForeign(err error) failure {
	if e, ok := errors.AsType[*Error](err); ok {
		c := classNever
		if e.NotSent() {
			c = classNotSent
		}
		return failure{e, c}
	}
	if n, ok := errors.AsType[interface {
		error
		NotSent() bool
	}](err); ok && n.NotSent() {
		return failure{&Error{Kind: KindGate, Err: err, RetryAfter: retryHint(err)}, classNotSent}
	}
	if isTimeout(err) {
		return failure{&Error{Kind: KindHeaderTimeout, Err: err}, classTimeout}
	}
	return failure{&Error{Kind: KindNoResponse, Err: err}, classLost}
}

// retryHint returns when an error of another package says that another try makes
// sense, as that of an open breaker does; 0 if it does not say.
func retryHint(err error) time.Duration {
	if err == nil {
		return 0
	}
	hint, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	if !ok {
		return 0
	}
	return max(hint.RetryAfter(), 0)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// headerTimeout reports whether err is net/http's own limit for a response
// header, which over TLS holds for HTTP/1.1 as well. That of a socket, ETIMEDOUT,
// says that a connection was lost.
func headerTimeout(err error) bool {
	_, socket := errors.AsType[*net.OpError](err)
	return !socket && isTimeout(err)
}

var errHeaderTimeout = &timeoutError{"no response header in time"}

// sendable reports whether net/http would send the head of req. It is asked
// only after a failure, to tell a bad request from a bad back end.
func sendable(req *http.Request) bool {
	for _, h := range []http.Header{req.Header, req.Trailer} {
		for name, values := range h {
			if !isToken(name) {
				return false
			}
			for _, v := range values {
				if !isFieldValue(v) {
					return false
				}
			}
		}
	}
	if strings.ContainsFunc(req.URL.RequestURI(), func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	return req.Method == "" || isToken(req.Method)
}

// framed reports whether HTTP/1.1 has a framing for req, as far as net/http asks.
func framed(req *http.Request) bool {
	for name := range req.Trailer {
		switch http.CanonicalHeaderKey(name) {
		case "Transfer-Encoding", "Trailer", "Content-Length":
			return false
		}
	}
	return req.Body != nil || req.ContentLength == 0
}

// idempotent reports whether repeating req is harmless: by its method
// (RFC 9110 section 9.2.2), or because its sender or the configuration says so.
func (r *Retry) idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	if len(req.Header["Idempotency-Key"]) > 0 || len(req.Header["X-Idempotency-Key"]) > 0 {
		return true
	}
	return r.Idempotent != nil && r.Idempotent(req)
}
