package upstream

import (
	"context"
	"sync/atomic"
	"time"
)

// Record is what is known of a request when it is over; [ProxyConfig.Done]
// gets it. What a [Pool] knows (Backend, Attempts, FailOpen, Queue, Connect) is
// empty if the Transport is something else.
type Record struct {
	Start    time.Time
	Duration time.Duration // until the response was delivered, or the tunnel ended

	// Status is the status of the response: the back end's, the one of the
	// error if there was none, or 499 if the client had gone. What an
	// ErrorHandler of the user's makes of the error is not seen here.
	Status int

	Backend  string // Target.ID of the back end that answered, or failed last
	Attempts int    // how many times the request was sent, or an attempt was made at it
	FailOpen bool   // no back end was known to be healthy, and one was tried all the same

	Queue     time.Duration // wait for a place at the back end
	Connect   time.Duration // dial and TLS handshake; 0 on a connection that was there
	FirstByte time.Duration // from Start until the head of the final response

	Received int64 // bytes of the request body that were read from the client
	Sent     int64 // bytes of the response body that were written to the client
	Interim  int   // 1xx responses that came before the final one, from all attempts
	Upgraded bool  // the connection was switched to another protocol

	// Err is why the request failed; nil for every response that was delivered
	// in whole, whatever its status. A response that broke off has the status
	// it began with, and an Err. Where a hook, the Transport or the response's
	// writer has panicked, Err is an [*Error] of no Kind, and Status 0 if no
	// response had begun.
	Err error
}

// record goes with a request from Proxy to Pool: in its call, or in the context
// where something stands between the two.
type record struct {
	Record

	// timed is set if somebody reads the record. Without it nobody needs to
	// look at the clock on its behalf.
	timed bool

	// hostAuto is set if Request.Host is the client's only for want of a better
	// one: a target reached over TLS has its own name put there, because that is
	// what its certificate and its virtual hosts are about.
	hostAuto bool

	// interims counts the informational responses. It is nil if nobody does.
	interims *exchange

	// body is the client's, nil if there is none.
	body *requestBody

	// begun is set when an informational response has been passed on: the
	// request is not sent again after that.
	begun atomic.Bool
}

type recordKey struct{}

// recordFrom returns the record of the Proxy that ctx belongs to, or nil.
func recordFrom(ctx context.Context) *record {
	rec, _ := ctx.Value(recordKey{}).(*record)
	return rec
}

// recordContext is a context that carries a record. It is part of an exchange,
// so that it costs no allocation.
type recordContext struct {
	context.Context
	rec *record
}

// Value returns the record for its key.
func (c *recordContext) Value(key any) any {
	if _, ok := key.(recordKey); ok {
		return c.rec
	}
	return c.Context.Value(key)
}
