package upstream

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// requestBody is the body of an outgoing request: the client's, counted and
// bounded, with its trailers. The Transport reads it in a goroutine of its own,
// and may go on after RoundTrip has returned.
type requestBody struct {
	x     *exchange
	src   io.ReadCloser
	limit int64 // 0: none

	announced http.Header // the outgoing request's Trailer
	expects   bool        // the client waits for 100

	mu     sync.Mutex   // held by Read
	read   atomic.Int64 // bytes
	eof    atomic.Bool
	closed atomic.Bool
	failed atomic.Pointer[Error]
}

func (b *requestBody) begin(in *http.Request, expects bool) {
	b.src, b.limit, b.expects = in.Body, b.x.p.cfg.MaxBody, expects
}

// announce makes the trailer of the outgoing request: the names that the client
// has announced and that may be trailers. The values follow when it has sent
// them.
func (b *requestBody) announce() http.Header {
	for name := range b.x.in.Trailer {
		if trailable(name) {
			if b.announced == nil {
				b.announced = make(http.Header, len(b.x.in.Trailer))
			}
			b.announced[name] = nil
		}
	}
	return b.announced
}

// Read reads from the client. An error that is not the end is kept, because a
// Transport may report it as something else.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.expects {
		b.expects = false
		b.x.sendContinue()
	}
	if e := b.failed.Load(); e != nil {
		return 0, e
	}
	n, err := b.src.Read(p)
	total := b.read.Add(int64(n))
	if b.limit > 0 && total > b.limit {
		// The bytes up to the limit are not sent either: the message is
		// broken off in any case.
		return 0, b.fail(&Error{Kind: KindTooLarge})
	}
	switch {
	case err == nil:
	case err == io.EOF:
		for name := range b.announced {
			if v := b.x.in.Trailer[name]; len(v) > 0 {
				b.announced[name] = v
			}
		}
		b.eof.Store(true)
	default:
		kind := KindClientBody
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			kind = KindTooLarge
		}
		return n, b.fail(&Error{Kind: kind, Err: err})
	}
	return n, err
}

func (b *requestBody) fail(e *Error) error {
	b.failed.CompareAndSwap(nil, e)
	return b.failed.Load()
}

// Close is the Transport's. The client's body is not closed by it: the server
// would wait there for the rest, while the client may be waiting for 100.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// done reports whether everything has been read, as far as Content-Length tells
// before the end has been seen.
func (b *requestBody) done() bool {
	return b.eof.Load() || b.x.in.ContentLength > 0 && b.read.Load() == b.x.in.ContentLength
}

// lingering is how long the server may go on to read a body that nobody wants,
// so that a client that is still sending sees the response before the
// connection is closed under it.
const lingering = 5 * time.Second

// finish ends all use of the client's body.
//
// A Transport that waits for bytes of an HTTP/1 client would do so for as long as
// that likes, and so would the server, which reads the rest of a body before it
// closes the connection. A deadline in the past ends the one wait, and one in the
// future bounds the other. HTTP/2 needs neither: the server resets the stream.
func (b *requestBody) finish() {
	b.closed.Store(true)
	if b.x.in.ProtoMajor != 1 || b.x.rec.Upgraded || b.x.complete() {
		return
	}
	rc := http.NewResponseController(b.x.w)
	if !b.mu.TryLock() {
		if rc.SetReadDeadline(time.Unix(1, 0)) != nil {
			return // this writer cannot: the Transport has to wait
		}
		b.mu.Lock()
	}
	b.mu.Unlock()
	rc.SetReadDeadline(time.Now().Add(lingering))
}
