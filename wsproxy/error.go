package wsproxy

import (
	"net/http"
	"strconv"
	"time"

	"example.com/plainware/internal/problem"
)

// Kind says why a request was refused.
type Kind uint8

// The kinds, each with the status and the Code of its error.
const (
	NotHandshake   Kind = iota + 1 // 426, or 400 over HTTP/2: websocket_required
	BadHandshake                   // 400: websocket_handshake
	BadVersion                     // 426: websocket_version; Sec-WebSocket-Version says 13
	BadProtocol                    // 501: extended CONNECT for something else, websocket_protocol
	BadSubprotocol                 // 400: none that is allowed, websocket_subprotocol
	BadOrigin                      // 403: websocket_origin
	Refused                        // 403: Config.OnHandshake said no, websocket_refused
	TooMany                        // 503: Limits.Tunnels or Limits.PerKey, websocket_limit
	ShuttingDown                   // 503: websocket_shutdown
	BadWriter                      // 500: the ResponseWriter cannot be hijacked, or over HTTP/2 not flushed or limited, internal
	NoTarget                       // 502: Config.Director failed, websocket_target
	Unreachable                    // 502: the back end could not be dialled, websocket_unreachable
	BadAnswer                      // 502: the back end's answer was wrong, websocket_answer
	Slow                           // 504: Timeouts.Dial or Timeouts.Handshake, websocket_timeout
)

var kinds = [...]struct {
	status int
	code   string
	text   string
	detail string
}{
	0:              {500, "internal", "unknown error", ""},
	NotHandshake:   {426, "websocket_required", "not a WebSocket handshake", "This resource speaks the WebSocket protocol only."},
	BadHandshake:   {400, "websocket_handshake", "malformed handshake", "The WebSocket handshake is malformed."},
	BadVersion:     {426, "websocket_version", "unsupported version", "Only version 13 of the WebSocket protocol is supported."},
	BadProtocol:    {501, "websocket_protocol", "unsupported protocol in extended CONNECT", "Only the protocol websocket is supported."},
	BadSubprotocol: {400, "websocket_subprotocol", "no allowed subprotocol offered", "None of the offered subprotocols is supported."},
	BadOrigin:      {403, "websocket_origin", "origin not allowed", "The origin of the request is not allowed."},
	Refused:        {403, "websocket_refused", "refused", ""},
	TooMany:        {503, "websocket_limit", "too many tunnels", "Too many connections are open."},
	ShuttingDown:   {503, "websocket_shutdown", "shutting down", "The server is shutting down."},
	BadWriter:      {500, "internal", "the ResponseWriter cannot carry a tunnel", ""},
	NoTarget:       {502, "websocket_target", "no target", ""},
	Unreachable:    {502, "websocket_unreachable", "back end unreachable", "The back end could not be reached."},
	BadAnswer:      {502, "websocket_answer", "wrong answer of the back end", "The back end did not answer as a WebSocket server does."},
	Slow:           {504, "websocket_timeout", "back end too slow", "The back end did not answer in time."},
}

// Error is why a request was refused.
type Error struct {
	Kind Kind
	// Err says more, for logs: the error of a dial, the field that is wrong. It
	// is never part of an answer.
	Err error

	status int // in the place of the kind's
}

// Error implements error.
func (e *Error) Error() string {
	s := "wsproxy: " + e.row().text
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) row() *struct {
	status int
	code   string
	text   string
	detail string
} {
	if int(e.Kind) >= len(kinds) {
		return &kinds[0]
	}
	return &kinds[e.Kind]
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus is the status of the kind.
func (e *Error) HTTPStatus() int {
	if e.status != 0 {
		return e.status
	}
	return e.row().status
}

// Code is a stable token for the kind; the constants list them.
func (e *Error) Code() string { return e.row().code }

// Detail is the sentence the client gets to read.
func (e *Error) Detail() string { return e.row().detail }

// WriteError answers with err as RFC 9457 problem details. It is what a nil
// [Config.ErrorHandler] does; a handler of your own can fall back to it.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { problem.WriteError(w, r, err) }

// refuse sets the fields that belong to the protocol and lets the ErrorHandler
// answer.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	h := w.Header()
	if e, ok := err.(*Error); ok {
		switch e.Kind {
		case NotHandshake:
			if r.ProtoMajor == 1 {
				// RFC 9110 section 15.5.22: a 426 must say what to upgrade to.
				h["Upgrade"], h["Connection"] = []string{"websocket"}, []string{"Upgrade"}
			}
		case BadVersion:
			h["Sec-WebSocket-Version"] = []string{"13"}
		case TooMany, ShuttingDown:
			if d := p.cfg.Limits.RetryAfter; d > 0 {
				h["Retry-After"] = []string{strconv.FormatInt(max(1, int64(d/time.Second)), 10)}
			}
		case BadWriter:
			p.cfg.Logger.ErrorContext(r.Context(), "wsproxy: a ResponseWriter outside of the proxy hides a method and has no Unwrap",
				"path", r.URL.Path, "error", err)
		}
	}
	if r.ProtoMajor == 1 && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
		// What follows could be the body or frames of a client that did not
		// wait: none of it may be read as the next request. net/http looks at
		// the first value only.
		h["Connection"] = append([]string{"close"}, h["Connection"]...)
	}
	p.cfg.ErrorHandler(w, r, err)
}
