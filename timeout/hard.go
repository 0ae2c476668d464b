package timeout

import (
	"context"
	"maps"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// statusClientClosed is what loggers outside see for a request whose client
// went away before it was answered. It is nginx's; no standard has one.
const statusClientClosed = 499

// request is one request whose handler runs in a goroutine of its own.
type request struct {
	m     *Middleware
	t     writer
	outer *http.Request
	inner *http.Request // the handler's
	form  bool          // the multipart form, if there will be one, is the handler's

	stage atomic.Int32
	exit  exit // to be read when stage is returned
	// slow is closed when the handler returns, if it was there before. The
	// usual wait is for the end of the handler's context, which its return
	// brings about as well as a limit: one channel for both.
	slow atomic.Pointer[chan struct{}]
}

// exit is how a handler ended, if not by returning.
type exit struct {
	panicked any
	stack    []byte
	goexit   bool // by runtime.Goexit
}

// The stages of a request's handler. Whoever moves on from running, the
// handler's goroutine or the serving one, decides who looks after its end.
const (
	running = iota
	returned
	abandoned
)

// serveHard runs next, and answers for it when a limit passes.
func (m *Middleware) serveHard(w http.ResponseWriter, r *http.Request, next http.Handler, p *plan) {
	q := &request{m: m, outer: r, form: r.MultipartForm == nil}
	ctx := q.t.limits.start(r.Context(), p)
	defer q.t.end(nil)
	if p.ReadIdle > 0 || p.WriteIdle > 0 {
		var release func()
		ctx, release = holdOuter(ctx, p, &q.t.watches)
		defer release()
	}
	q.inner = r.WithContext(ctx)
	q.inner.Header = maps.Clone(r.Header)
	q.t.init(w, q.inner, p, &m.held)
	defer q.t.close()
	go q.serve(next)

	if err, ended := q.await(ctx); ended {
		q.finish()
	} else {
		q.expire(err)
	}
}

// serve calls next and says how it ended.
func (q *request) serve(next http.Handler) {
	normal := false
	defer func() {
		if !normal {
			if q.exit.panicked = recover(); q.exit.panicked != nil {
				q.exit.stack = debug.Stack()
			} else {
				q.exit.goexit = true
			}
		}
		if !q.stage.CompareAndSwap(running, returned) {
			q.removeForm()
			q.reportLate(q.inner, false)
			return
		}
		q.t.end(nil)
		if c := q.slow.Swap(nil); c != nil {
			close(*c)
		}
	}()
	next.ServeHTTP(q.t.form.Of(&q.t, q.t.real), q.inner)
	normal = true
}

// await waits for the handler to return or for the request to be over, and
// returns the limit that passed; nil means that the client is gone.
func (q *request) await(ctx context.Context) (err *Error, ended bool) {
	<-ctx.Done()
	// What ended the context comes first: a handler that returns because of a
	// limit, or because its client is gone, has not answered in time. A limit
	// that is not a deadline is for finish to find.
	if q.stage.Load() == returned && ctx.Err() != context.DeadlineExceeded {
		outer := q.outer.Context()
		if outer.Err() == nil || causeOf(ctx) == nil && causeOf(outer) != nil { // a limit outside, and later
			return nil, true
		}
	}
	switch err := causeOf(ctx); {
	case err != nil:
		return err, false
	case q.t.readLapsed():
		// The server takes it for the end of the client when a read deadline
		// passes, but this one was the handler's own, or for a body that the
		// handler does not want, and it may go on.
		return q.awaitSlow()
	case q.t.state.Load()&(committed|over) == committed:
		// The end of its client is how a stream ends, and the handler may do it.
		return nil, q.wait(q.t.plan.Grace)
	}
	return nil, false
}

// awaitSlow is await when the context has ended already.
func (q *request) awaitSlow() (err *Error, ended bool) {
	var total <-chan time.Time
	if d := q.t.plan.Total; d > 0 {
		timer := time.NewTimer(time.Until(q.t.began.Add(d)))
		defer timer.Stop()
		total = timer.C
	}
	select {
	case <-q.done():
		return nil, true
	case err := <-q.t.passed:
		return err, false
	case <-total:
		return q.t.plan.total, false
	}
}

// wait reports whether the handler returns within d. If not, it is abandoned.
func (q *request) wait(d time.Duration) bool {
	if d > 0 && q.stage.Load() == running {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-q.done():
		case <-timer.C:
		}
	}
	q.stage.CompareAndSwap(running, abandoned)
	return q.stage.Load() == returned
}

// done is closed when the handler has returned.
func (q *request) done() <-chan struct{} {
	c := make(chan struct{})
	q.slow.Store(&c)
	if q.stage.Load() == returned && q.slow.CompareAndSwap(&c, nil) {
		close(c)
	}
	return c
}

// finish ends a request whose handler has returned.
func (q *request) finish() {
	if q.t.isOver() {
		q.expire(<-q.t.passed) // a limit was first
		return
	}
	ok := q.exit.panicked == nil && !q.exit.goexit
	if ok && !q.t.finish() {
		q.expire(<-q.t.passed) // a limit passed while the last of it was sent
		return
	}
	if !ok {
		q.t.shut()
	}
	q.t.guardRest()
	copyBack(q.outer, q.inner)
	switch {
	case ok:
	case q.exit.goexit, q.exit.panicked == http.ErrAbortHandler:
		panic(http.ErrAbortHandler)
	default:
		panic(q.repanic())
	}
}

// repanic wraps what the handler panicked with, once however deep the nesting.
func (q *request) repanic() any {
	if p, ok := q.exit.panicked.(*Panic); ok {
		return p
	}
	return &Panic{Value: q.exit.panicked, Stack: q.exit.stack}
}

// expire ends a request whose handler is too late for err, or whose client is
// gone.
func (q *request) expire(err *Error) {
	began := q.t.takeOver()
	switch {
	case began:
	case err != nil:
		q.m.answer(&q.t.gate, q.outer, q.t.body, q.t.plan, err)
	default:
		closeIfSpoiled(&q.t.gate, q.outer, q.t.body)
		q.t.real.WriteHeader(statusClientClosed)
	}

	// On HTTP/2 a write deadline resets the stream when it passes, even if
	// nothing is being written: it must not pass while there is nothing to do.
	q.t.setWriteDeadline(time.Time{})
	inTime := q.wait(q.t.plan.Grace)
	q.t.setWriteDeadline(time.Now().Add(answerLimit(q.t.plan))) // for what the server still sends
	switch {
	case !inTime:
		q.reportLate(q.outer, true)
	case q.exit.panicked != nil:
		q.reportLate(q.outer, false)
	}
	if inTime {
		copyBack(q.outer, q.inner)
	}
	if q.t.conn != nil {
		return
	}
	q.t.closeAfter(q.outer, q.t.body)
	if began && !q.t.complete() {
		if inTime {
			q.removeForm() // the server does it only for requests that end well
		}
		panic(http.ErrAbortHandler)
	}
}

// removeForm removes the files of a form that the server does not know of.
func (q *request) removeForm() {
	if q.form && q.inner.MultipartForm != nil {
		q.inner.MultipartForm.RemoveAll()
	}
}

func (q *request) reportLate(r *http.Request, stillRunning bool) {
	l := Late{Err: context.Cause(q.inner.Context()), Elapsed: time.Since(q.t.began), Running: stillRunning}
	if !stillRunning {
		l.Panic, l.Stack = q.exit.panicked, q.exit.stack
	}
	q.m.reportLate(r, l)
}
