package wsproxy

import (
	"context"
	"net/http"
	"time"
)

// stream is one side of an open tunnel, in whatever version of HTTP. Read and
// Write are called by one goroutine each at a time; the others may be called at
// any time and make both return.
type stream interface {
	Read(p []byte) (int, error)
	// Write returns when all of p is on its way: nothing is held back.
	Write(p []byte) (int, error)
	// CloseWrite ends our direction in an orderly way. Where that cannot be done
	// alone it does nothing, and halfCloses says so.
	CloseWrite() error
	// halfCloses reports whether the other direction goes on after CloseWrite.
	halfCloses() bool
	// Close ends both directions in an orderly way, so far as they have not.
	Close() error
	// Abort ends both so that the peer sees an error: a reset.
	Abort()
}

// outgoing is a handshake for a back end.
type outgoing struct {
	target       *endpoint
	uri, host    string
	header       http.Header // without what belongs to one version of HTTP
	subprotocols []string
	extensions   []string
}

// answer is what a back end said to it.
type answer struct {
	// stream is nil if the back end refused. Then Response.Body must be
	// read and closed.
	stream stream
	*http.Response
	proto       string // the version of HTTP
	subprotocol string
	extensions  []string // names
}

// dialer opens the back end's side of a tunnel in one version of HTTP. It
// verifies the answer; an error is an *Error.
type dialer interface {
	dial(ctx context.Context, out *outgoing) (*answer, error)
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)
