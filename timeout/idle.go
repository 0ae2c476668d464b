package timeout

import (
	"context"
	"io"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// longAgo is a deadline that has passed: setting it frees whoever is blocked on
// the connection.
var longAgo = time.Unix(1, 0)

// watch times the waits of one direction, one at a time. A nil watch does not.
//
// It is a timer that sets a past deadline when it fires, rather than a
// deadline set before each wait and cleared after it: on HTTP/2 every change of
// a deadline is a message to the connection's goroutine, a write deadline
// resets the stream even between writes, and on HTTP/1.1 a read deadline left
// for an instant after the end of the body cancels the request.
type watch struct {
	err   *Error // what a wait that took too long fails with
	fire  func() // frees the wait
	once  sync.Once
	timer *time.Timer
	armed bool
	late  bool
	held  atomic.Bool // an inner middleware times the waits instead
}

func (w *watch) start() {
	if w == nil || w.late || w.held.Load() {
		return
	}
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(w.err.Limit, w.lapse)
	} else {
		w.timer.Reset(w.err.Limit)
	}
}

func (w *watch) lapse() { w.once.Do(w.fire) }

// stop ends the wait and returns its error: err, or w.err when it took too
// long. Once one did, none is in time again. It returns after fire then: who
// waited must not be able to answer before the limit does.
func (w *watch) stop(err error) error {
	if w == nil {
		return err
	}
	if w.armed {
		w.armed = false
		if w.late = !w.timer.Stop(); w.late {
			w.lapse()
		}
	}
	if w.late && err != io.EOF {
		return w.err
	}
	return err
}

// hold makes w stand still, and reports whether it did not already.
func (w *watch) hold() bool { return w != nil && w.held.CompareAndSwap(false, true) }

func (w *watch) release() {
	if w != nil {
		w.held.Store(false)
	}
}

// piece is how much is written under one limit. It is large enough for
// sendfile to pay and small enough for a slow client to take it in time.
const piece = 64 << 10

func (w *watch) write(dst io.Writer, p []byte) (n int, err error) {
	for {
		part := p[n:]
		if w != nil && len(part) > piece {
			part = part[:piece]
		}
		w.start()
		m, err := dst.Write(part)
		n += m
		if err = w.stop(err); err != nil || n >= len(p) || m < len(part) {
			return n, err
		}
	}
}

func (w *watch) flush(dst http.ResponseWriter) error {
	w.start()
	return w.stop(http.NewResponseController(dst).Flush())
}

// sendFile hands src to dst's ReadFrom in pieces that the server recognises as
// parts of a file.
func (w *watch) sendFile(dst io.ReaderFrom, src *io.LimitedReader) (n int64, err error) {
	for src.N > 0 {
		part := io.LimitedReader{R: src.R, N: src.N}
		if w != nil {
			part.N = min(part.N, piece)
		}
		w.start()
		m, err := dst.ReadFrom(&part)
		n += m
		src.N -= m
		if err = w.stop(err); err != nil || part.N > 0 {
			return n, err
		}
	}
	return n, nil
}

// regularFile returns src as a limited reader of a regular file, the one kind
// of source that the server's ReadFrom does more for than a loop of writes, and
// that cannot keep a reader waiting.
func regularFile(src io.Reader) (*io.LimitedReader, bool) {
	l, ok := src.(*io.LimitedReader)
	if !ok {
		l = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	f, ok := l.R.(*os.File)
	if !ok {
		return nil, false
	}
	info, err := f.Stat()
	return l, err == nil && info.Mode().IsRegular()
}

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyTo copies src by writes alone.
func copyTo(dst io.Writer, src io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
}

// watches is what inner middlewares of this package find in the context, so
// that they can take the timing of the connection over while they run. Without
// it the outermost would win: the general limit, not the one that knows the
// route.
type watches struct {
	read, write *watch
	outer       *watches
}

type watchesKey struct{}

// holdOuter makes those watches of outer middlewares stand still that p has
// limits of its own for, until release is called. The context that it returns
// is the one for own.
func holdOuter(ctx context.Context, p *plan, own *watches) (_ context.Context, release func()) {
	own.outer, _ = ctx.Value(watchesKey{}).(*watches)
	var read, write *watch
	for o := own.outer; o != nil; o = o.outer {
		if p.ReadIdle > 0 && read == nil && o.read.hold() {
			read = o.read
		}
		if p.WriteIdle > 0 && write == nil && o.write.hold() {
			write = o.write
		}
	}
	return context.WithValue(ctx, watchesKey{}, own), func() {
		read.release()
		write.release()
	}
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// body is the request body as the handler sees it.
type body struct {
	io.ReadCloser
	watch *watch
	over  func() error // not nil: the request has ended, leave its body alone

	mu  sync.Mutex // a proxy's Transport may still read when its handler has returned
	eof atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.over(); err != nil {
		return 0, err
	}
	b.watch.start()
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.eof.Store(true)
	}
	err = b.watch.stop(err)
	if err != nil && err != io.EOF {
		if over := b.over(); over != nil {
			err = over // and not the deadline that freed the read
		}
	}
	return n, err
}

// Close may have to wait for the client like Read: on HTTP/1.1 it reads on, so
// that the connection can be used again.
func (b *body) Close() error {
	if b.over() != nil {
		return nil
	}
	if b.mu.TryLock() {
		defer b.mu.Unlock()
		b.watch.start()
		return b.watch.stop(b.ReadCloser.Close())
	}
	return b.ReadCloser.Close() // which on HTTP/2 frees the Read that has the lock
}

// findEnd finds out whether the server has read the rest of r's body, as it does
// before it sends the header. Its own body says so to an empty read, which takes
// nothing and, where the length is known, does not wait. That of anybody else
// may, and only the name of the type tells.
func (b *body) findEnd(r *http.Request) {
	if !b.unread() || r.ProtoMajor != 1 || r.ContentLength <= 0 || !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if outer, ok := b.ReadCloser.(*body); ok {
		outer.findEnd(r)
		b.eof.Store(!outer.unread())
	} else if reflect.TypeOf(b.ReadCloser).String() == "*http.body" {
		_, err := b.ReadCloser.Read(nil)
		b.eof.Store(err == io.EOF || err == http.ErrBodyReadAfterClose)
	}
}

// unread reports whether the client may still be sending.
func (b *body) unread() bool { return b != nil && !b.eof.Load() }
