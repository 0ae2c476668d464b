package upstream

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// replay is the body of a request that may have to be sent more than once.
// What the first attempt reads is kept as it passes, up to a limit, until the
// body turns out to be longer, or a response has begun and its attempt has sent
// what is kept.
type replay struct {
	src     io.ReadCloser // nil is no body
	getBody func() (io.ReadCloser, error)
	length  int64 // as announced, -1 is unknown
	limit   int   // of what is kept; 0 keeps nothing
	rec     *record

	mu      sync.Mutex
	kept    *[]byte
	over    bool  // more was read than is kept
	total   int64 // bytes read from src
	eof     bool
	err     error         // reading src failed
	reading bool          // a read of src is under way
	ended   chan struct{} // is closed when that is over; nil if nobody waits
	settled bool          // no further attempt will come: Close closes src
	winner  *tryBody      // the attempt with the response; nil until settled
	closed  bool          // src is
}

var keptBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

var (
	errAttemptOver = errors.New("upstream: the attempt is over")
	errNotKept     = errors.New("upstream: the request body is gone")
	errBodyLength  = errors.New("the request body has not the length that was announced")
)

// init takes over the body of req. keep is how much may be kept.
func (r *replay) init(req *http.Request, keep int, rec *record) {
	if req.Body == nil || req.Body == http.NoBody {
		return
	}
	r.src, r.getBody, r.length, r.rec = req.Body, req.GetBody, req.ContentLength, rec
	if r.length == 0 {
		r.length = -1 // so says net/http for a body of unknown length
	}
	if r.getBody == nil && r.length <= int64(keep) {
		r.limit = keep
	}
}

// tryBody is the body as one attempt sends it.
type tryBody struct {
	r    *replay
	own  io.ReadCloser // from GetBody, instead of r
	off  int64         // guarded by r.mu, unless own is set
	over atomic.Bool   // the attempt is
	done func()        // called when the end was read; nil is nothing

	shut atomic.Bool
	busy atomic.Bool // a Read of own is under way
}

// Read implements io.Reader.
func (b *tryBody) Read(p []byte) (n int, err error) {
	if b.over.Load() {
		return 0, errAttemptOver
	}
	if b.own != nil {
		b.busy.Store(true)
		if b.over.Load() { // or whoever interrupts sees busy
			b.busy.Store(false)
			return 0, errAttemptOver
		}
		n, err = b.own.Read(p)
		b.busy.Store(false)
		b.off += int64(n)
		if err != nil && err != io.EOF {
			b.r.failed(err)
		}
	} else {
		n, err = b.r.read(b, p)
	}
	if b.done != nil && (err != nil || b.r.length >= 0 && b.off >= b.r.length) {
		b.done()
	}
	return n, err
}

// Close implements io.Closer. The client's body stays open as long as another
// attempt may need it.
func (b *tryBody) Close() error {
	again := b.shut.Swap(true)
	if b.own != nil {
		if again {
			return nil
		}
		return b.own.Close()
	}
	b.r.mu.Lock()
	last := b.r.settled && b.r.winner == b
	b.r.mu.Unlock()
	if last {
		return b.r.close()
	}
	return nil
}

// read returns the bytes of the body that follow for b: kept ones, or new ones.
func (r *replay) read(b *tryBody, p []byte) (int, error) {
	r.mu.Lock()
	switch {
	case b.over.Load() || r.settled && r.winner != b: // under the lock: another attempt may read by now
		r.mu.Unlock()
		return 0, errAttemptOver
	case b.off < r.total:
		defer r.mu.Unlock()
		if r.over || r.kept == nil {
			return 0, errNotKept
		}
		n := copy(p, (*r.kept)[b.off:])
		b.off += int64(n)
		if r.settled && b.off == r.total {
			r.free()
		}
		return n, nil
	case r.eof:
		r.mu.Unlock()
		return 0, io.EOF
	case r.err != nil || r.reading:
		defer r.mu.Unlock()
		return 0, errors.Join(errAttemptOver, r.err)
	}
	r.reading = true
	r.mu.Unlock()

	n, err := r.src.Read(p)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = false
	if r.ended != nil {
		close(r.ended)
		r.ended = nil
	}
	r.total += int64(n)
	b.off += int64(n)
	r.keep(p[:max(n, 0)])
	switch {
	case r.length >= 0 && (r.total > r.length || err == io.EOF && r.total < r.length):
		// net/http would find out too, but could not say whose fault it is.
		err = errBodyLength
		r.err = err
	case err == io.EOF:
		r.eof = true
	case err != nil && !r.closed: // else it is why the Read has ended
		r.err = err
	}
	return n, err
}

// keep adds what was read to what is kept.
func (r *replay) keep(p []byte) {
	if r.over || len(p) == 0 {
		return
	}
	if r.settled && r.kept == nil || r.total > int64(r.limit) {
		r.over = true
		r.free()
		return
	}
	if r.kept == nil {
		r.kept = keptBuffers.Get().(*[]byte)
	}
	*r.kept = append(*r.kept, p...)
}

func (r *replay) free() {
	if r.kept != nil {
		*r.kept = (*r.kept)[:0]
		keptBuffers.Put(r.kept)
		r.kept = nil
	}
}

// failed notes that the client's body could not be read.
func (r *replay) failed(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
}

// failure returns why the client's body could not be read, or nil.
func (r *replay) failure() error {
	if r.src == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// again reports whether the body can be sent from its beginning once more, or
// could be if the Read of an attempt that has failed came to its end.
func (r *replay) again(failed bool) bool {
	if r.src == nil || r.getBody != nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return (failed || !r.reading) && r.intact()
}

// intact reports, with mu held, whether all that was read is kept.
func (r *replay) intact() bool { return !r.over && r.err == nil && !r.closed }

// handOver ends the reading of b, whose attempt has failed, or has a response, and
// is to be followed by another one. A Transport such as that of HTTP/3 may fail
// while it reads, for which handOver then waits a moment. It reports false if that
// does not help, or if an attempt with a response has begun to read once more
// since again was asked.
func (r *replay) handOver(b *tryBody, failed bool) bool {
	if r.src == nil || r.getBody != nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed && r.reading {
		b.over.Store(true) // it will not read once more
		r.await(yielding)
	}
	if r.reading || !r.intact() {
		return false
	}
	b.over.Store(true)
	return true
}

// await waits for the end of the Read that is under way, with mu held before and
// after it.
func (r *replay) await(most time.Duration) {
	if r.ended == nil {
		r.ended = make(chan struct{})
	}
	ended, t := r.ended, time.NewTimer(most)
	r.mu.Unlock()
	defer r.mu.Lock()
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	}
}

// reading reports whether a Read is under way.
func (b *tryBody) reading() bool {
	switch {
	case b.r == nil:
		return false
	case b.own != nil:
		return b.busy.Load()
	}
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	return b.r.reading
}

// interrupt ends the reading of b, and a Read that is under way. It reports whether
// there was one: the client's body is gone then.
func (b *tryBody) interrupt() bool {
	if b.r == nil {
		return false
	}
	if b.own != nil {
		b.over.Store(true)
		busy := b.busy.Load()
		b.Close()
		return busy
	}
	b.r.mu.Lock()
	b.over.Store(true)
	reading, closed := b.r.reading, b.r.closed
	if reading {
		b.r.closed, b.r.settled = true, true
	}
	b.r.mu.Unlock()
	if !reading {
		return false
	}
	if rec := b.r.rec; rec != nil && rec.body != nil { // that of a Proxy, which Close may not reach
		rec.body.Close()
		rec.body.stop()
	}
	if !closed {
		go b.r.src.Close() // it may wait for the Read
	}
	return true
}

// next makes b the body of a further attempt.
func (r *replay) next(b *tryBody) (err error) {
	b.r = r
	if r.getBody != nil {
		b.own, err = r.getBody()
	}
	return err
}

// settle is called when the attempt of b has a response: nothing more is kept,
// and the body is closed as soon as b is. The response may have come before
// everything was sent, over HTTP/2 at least, and b still reads what is kept.
func (r *replay) settle(b *tryBody) error {
	if r.src == nil {
		return nil
	}
	r.mu.Lock()
	r.settled, r.winner = true, b
	if b.own != nil || b.off == r.total {
		r.free()
	}
	r.mu.Unlock()
	if b.own != nil || b.shut.Load() {
		return r.close()
	}
	return nil
}

// close closes the client's body, once.
func (r *replay) close() error {
	if r.src == nil {
		return nil
	}
	r.mu.Lock()
	closed := r.closed
	r.closed, r.settled = true, true
	r.mu.Unlock()
	if closed {
		return nil
	}
	return r.src.Close()
}

// drop ends it all: no attempt is left.
func (r *replay) drop() {
	if r.src == nil {
		return
	}
	r.close()
	r.mu.Lock()
	r.over = true
	r.free()
	r.mu.Unlock()
}
