package upstream

import (
	"errors"
	"fmt"
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

	mu     sync.Mutex // held by Read
	waiter atomic.Pointer[chan struct{}]
	left   bool         // interrupt could not end the Read that is under way
	read   atomic.Int64 // bytes
	eof    atomic.Bool
	closed atomic.Bool
	cut    atomic.Bool // interrupt has set a read deadline in the past
	failed atomic.Pointer[Error]
}

func (b *requestBody) begin(in *http.Request, expects bool) {
	b.src, b.limit, b.expects = in.Body, b.x.p.cfg.MaxBody, expects
}

// announce makes the trailer of the outgoing request: the names that the client
// has announced, that may be trailers and that nobody can take for what a layer
// outside has set. The values follow when it has sent them.
func (b *requestBody) announce() http.Header {
	p, in := b.x.p, b.x.in
	for name := range in.Trailer {
		if trailable(name) && !p.protected.has(name) && (plainName(name) || !p.impostor(in.Header, name)) {
			if b.announced == nil {
				b.announced = make(http.Header, len(in.Trailer))
			}
			b.announced[name] = nil
		}
	}
	return b.announced
}

// Read reads from the client. An error that is not the end is kept, because a
// Transport may report it as something else.
func (b *requestBody) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, b.panicked(v)
		}
		b.unlock()
	}()
	if b.eof.Load() || b.x.in.ProtoMajor == 1 && b.done() {
		// A Transport asks once more after the announced length. The server
		// has closed its body by then if the response has begun, and what
		// that says would make the Transport break the response off.
		b.eof.Store(true)
		return 0, io.EOF
	}
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
	n, err = b.src.Read(p)
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
	case b.closed.Load():
		// The Transport's doing, and not the client's.
		return n, http.ErrBodyReadAfterClose
	default:
		kind := KindClientBody
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			kind = KindTooLarge
		}
		return n, b.fail(&Error{Kind: kind, Err: err})
	}
	return n, err
}

// panicked keeps what a layer outside has panicked with in its own body for the
// goroutine that serves the request, where somebody can recover from it. In that of
// the Transport it would end the program.
func (b *requestBody) panicked(v any) error {
	b.x.mu.Lock()
	defer b.x.mu.Unlock()
	if !b.x.over { // else the response is broken off
		b.x.panicked = v
	}
	return b.fail(&Error{Kind: KindClientBody, Err: fmt.Errorf("panic: %v", v)})
}

func (b *requestBody) fail(e *Error) error {
	b.failed.CompareAndSwap(nil, e)
	return b.failed.Load()
}

// Close is the Transport's. The client's body of HTTP/1 is not closed by it: the
// server would wait there for the rest, while the client may be waiting for 100.
// Another has to be: a Transport of HTTP/2 whose response has ended waits for
// its own Read, and the client of a stream may wait for that end before it sends
// more.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	if b.x.in.ProtoMajor == 1 {
		return nil
	}
	return b.src.Close()
}

// stop ends a Read that waits for a client of HTTP/1, when the response has
// ended: a Transport of HTTP/2 waits for it before it lets the response go. That
// of another client is ended by Close.
func (b *requestBody) stop() {
	if b.x.in.ProtoMajor != 1 || b.x.complete() {
		return
	}
	b.closed.Store(true)
	b.interrupt(http.NewResponseController(b.x.w)) // finish sets another deadline
}

// yielding is how long a Read may take to notice a deadline that has passed.
const yielding = 100 * time.Millisecond

// interrupt ends a Read that waits, and waits for its end. A read deadline in the
// past does so where it waits for the client's connection. Where it does not,
// something before the proxy has put another body in the place of the client's,
// which no deadline reaches: closing it is all there is, and if that does not help
// either, it is left alone. interrupt reports false if the writer knows no deadline.
func (b *requestBody) interrupt(rc *http.ResponseController) bool {
	if b.left || b.idle() {
		return true
	}
	b.cut.Store(true)
	if rc.SetReadDeadline(time.Unix(1, 0)) != nil {
		return false
	}
	ended := make(chan struct{}, 1)
	b.waiter.Store(&ended)
	t := time.NewTimer(yielding)
	defer t.Stop()
	for closed := false; !b.idle(); {
		select {
		case <-ended:
		case <-t.C:
			if closed {
				b.left = true
				return true
			}
			closed = true
			go b.src.Close() // it may wait for the Read
			t.Reset(lingering)
		}
	}
	return true
}

// idle reports whether no Read is under way.
func (b *requestBody) idle() bool {
	if !b.mu.TryLock() {
		return false
	}
	b.mu.Unlock()
	return true
}

// unlock ends a Read, and tells interrupt.
func (b *requestBody) unlock() {
	b.mu.Unlock()
	if w := b.waiter.Load(); w != nil {
		select {
		case *w <- struct{}{}:
		default:
		}
	}
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
	if b.interrupt(rc) { // otherwise the Transport has to wait
		rc.SetReadDeadline(time.Now().Add(lingering))
	}
}
