package timeout

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/internal/respwriter"
)

// The bits of writer.state. Which of the first two is set first decides what
// becomes of a request whose limit passes just as its response begins.
const (
	committed = 1 << iota // the handler's response is on its way
	over                  // the request ended without waiting for the handler
	busy                  // a call into the real writer may be waiting for the client
)

// writer is the response as a handler in its own goroutine sees it.
//
// The handler's header map is its own. It is copied to the real one when the
// status is decided, and the real one is put back when the request is over
// without the response having begun: whoever is outside must neither see a
// header that was never sent nor share a map with a handler that was left
// behind.
type writer struct {
	form respwriter.Form
	watches
	limits
	gate
	real http.ResponseWriter
	req  *http.Request // the handler's
	body *body         // nil: the request has none
	plan *plan
	pool *holdPool

	firstByte *time.Timer
	passed    chan *Error // a limit that is not a deadline has

	state atomic.Int32
	mu    sync.Mutex // one call at a time, and none once the request is over

	// Owned by the handler, and guarded by mu where its other goroutines or
	// the serving one look at them too.
	header   http.Header // nil: as the real one
	code     int
	declared int64    // Content-Length when code was decided, or -1
	sent     int64    // bytes of the body
	held     *holding // nil until it is needed, and when the response has begun
	flushed  bool     // the server has made the header, or is about to
	returned bool     // the handler has
	conn     net.Conn // after Hijack
}

// init makes t ready, and gives r, the handler's copy of the request, its body.
func (t *writer) init(w http.ResponseWriter, r *http.Request, p *plan, pool *holdPool) {
	t.real, t.w = w, w
	t.req, t.plan, t.pool = r, p, pool
	if p.FirstByte > 0 || p.ReadIdle > 0 || p.WriteIdle > 0 {
		t.passed = make(chan *Error, 1)
	}
	if p.ReadIdle > 0 {
		t.read = &watch{err: p.readIdle, fire: func() {
			t.pass(p.readIdle)
			t.setReadDeadline(longAgo)
		}}
	}
	if p.WriteIdle > 0 {
		t.write = &watch{err: p.writeIdle, fire: func() {
			t.pass(p.writeIdle)
			t.free()
		}}
	}
	if hasBody(r) {
		t.body = &body{ReadCloser: r.Body, watch: t.read, over: t.overErr}
		r.Body = t.body
	}
	if p.FirstByte > 0 {
		t.firstByte = time.AfterFunc(p.FirstByte, t.passFirstByte)
	}
}

// close keeps whoever is late from the request.
func (t *writer) close() {
	if t.firstByte != nil {
		t.firstByte.Stop()
	}
	t.state.Or(over)
	t.gate.close()
}

// Unwrap returns the writer below while the request is in the handler's hands.
func (t *writer) Unwrap() http.ResponseWriter {
	if t.isOver() {
		return nowhere{}
	}
	return t.real
}

func (t *writer) isOver() bool { return t.state.Load()&over != 0 }

// settled reports whether it is decided whose the response is.
func (t *writer) settled() bool { return t.state.Load()&(committed|over) != 0 }

// tooLate reports whether the response can no longer begin. A limit that has
// passed, here or outside, counts before the serving goroutine has noticed it:
// what the handler, or a middleware like this one below, says to the end of its
// context must not take the place of the answer.
func (t *writer) tooLate() bool {
	if t.state.Load()&committed != 0 {
		return false
	}
	ctx := t.req.Context()
	return ctx.Err() != nil && causeOf(ctx) != nil
}

// overErr is what the body's reads fail with once the request is over.
func (t *writer) overErr() error {
	if !t.isOver() {
		return nil
	}
	if err := context.Cause(t.req.Context()); err != nil {
		return err
	}
	return http.ErrHandlerTimeout
}

// pass ends the request because a limit has passed.
func (t *writer) pass(e *Error) {
	t.state.Or(over)
	t.tell(e)
}

// passFirstByte is pass unless the response has begun.
func (t *writer) passFirstByte() {
	for s := t.state.Load(); s&(committed|over) == 0; s = t.state.Load() {
		if t.state.CompareAndSwap(s, s|over) {
			t.tell(t.plan.firstByte)
		}
	}
}

func (t *writer) tell(e *Error) {
	t.end(e)
	select {
	case t.passed <- e:
	default: // another limit was first
	}
}

// Header returns the handler's own map, which is made when it is first asked
// for.
func (t *writer) Header() http.Header {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.header == nil {
		t.header = t.ownHeader()
	}
	return t.header
}

func (t *writer) ownHeader() http.Header {
	if t.isOver() {
		return http.Header{}
	}
	h := maps.Clone(t.real.Header())
	if h == nil {
		return http.Header{}
	}
	begun := t.settled()
	for k, v := range h {
		if !begun {
			held := t.hold()
			held.outer = append(held.outer, field{k, v})
		}
		if cap(v) > len(v) {
			h[k] = slices.Clip(v) // what the handler appends is its own
		}
	}
	return h
}

func (t *writer) WriteHeader(code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.isOver():
	case t.code != 0 || t.conn != nil:
		respwriter.ReportSuperfluous(t.req)
	case code < 100 || code > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", code)) // as net/http does, but here, where the stack tells who did it
	case !respwriter.Final(code):
		t.inform(code)
	default:
		t.decide(code)
		if code == http.StatusSwitchingProtocols {
			t.commit()
		}
	}
}

// inform sends an informational response with the handler's header, and leaves
// the real one as it was: the final response may yet not be the handler's.
func (t *writer) inform(code int) {
	if !t.enter() {
		return
	}
	defer t.leave()
	if t.header != nil {
		replace(t.real.Header(), t.header)
		defer t.hold().restore(t.real.Header())
	}
	t.write.start()
	t.real.WriteHeader(code)
	t.write.stop(nil)
}

// decide fixes the status and the header: what the handler does to its map
// from here on concerns the trailers.
func (t *writer) decide(code int) {
	t.code = code
	t.hold()
	h := t.real.Header()
	if t.header != nil {
		replace(h, t.header)
	}
	t.declared = -1
	if v := h["Content-Length"]; len(v) > 0 {
		if n, err := strconv.ParseInt(v[0], 10, 64); err == nil {
			t.declared = n
		}
	}
}

// enter must be true before anything that may wait for the client. Either it
// sees that the request is over, or whoever ends the request sees that it must
// free the connection, and never for a call that is not let through: on HTTP/2
// freeing takes the answer with it.
func (t *writer) enter() bool {
	if t.tooLate() {
		return false
	}
	for s := t.state.Load(); s&over == 0; s = t.state.Load() {
		if t.state.CompareAndSwap(s, s|busy) {
			return true
		}
	}
	return false
}

func (t *writer) leave() { t.state.And(^busy) }

// commit begins the response: the real header becomes what the handler's was,
// and what was held back is written.
func (t *writer) commit() error {
	if t.tooLate() {
		return http.ErrHandlerTimeout
	}
	if !t.state.CompareAndSwap(0, committed) {
		if t.isOver() {
			return http.ErrHandlerTimeout
		}
		return nil
	}
	if t.firstByte != nil {
		t.firstByte.Stop()
	}
	if t.code == 0 {
		return nil // nothing to send but the header, by the server itself
	}
	if t.code == http.StatusRequestEntityTooLarge || t.readLapsed() {
		// http.MaxBytesReader asks for it too, but only the server's own
		// writer hears it.
		closeIfSpoiled(&t.gate, t.req, t.body)
	}
	t.real.WriteHeader(t.code)
	var err error
	if len(t.held.body) > 0 {
		_, err = t.send(t.held.body)
	}
	t.release()
	return err
}

// serverBuffer is how much of a body the HTTP/1 server takes before it makes
// the header.
const serverBuffer = 2048

// drains reports whether the server has yet to send the header, before which it
// reads what is left of an HTTP/1 request body, and whether that must be limited:
// it is not a wait for the client to take something. Total is still watched while
// the handler runs, and for what is sent when it has returned, see guardRest.
func (t *writer) drains() bool {
	return (t.returned || t.plan.ReadIdle > 0 || t.plan.FirstByte > 0) && t.req.ProtoMajor == 1 &&
		t.sent <= serverBuffer && !t.flushed && t.body.unread() && !t.duplex.Load() && !t.ownsRead()
}

// limitDrain is called before what makes the server send the header, and end
// after it.
func (t *writer) limitDrain() (end func()) {
	deadline, ok := t.plan.restDeadline(t.began, time.Now())
	if !ok {
		return func() {}
	}
	t.startDrain(deadline)
	if t.plan.WriteIdle > 0 && !t.ownsWrite() {
		t.setWriteDeadline(deadline.Add(t.plan.WriteIdle))
	}
	return func() {
		t.endDrain()
		if !t.ownsWrite() {
			t.setWriteDeadline(time.Time{})
		}
		if t.isOver() {
			t.free() // again, if it was just before
		}
	}
}

// hold returns what is held back, which is nothing yet when it is new.
func (t *writer) hold() *holding {
	if t.held == nil {
		t.held = t.pool.get()
	}
	return t.held
}

// release gives up what is held back.
func (t *writer) release() {
	if t.held != nil {
		t.pool.put(t.held)
		t.held = nil
	}
}

func (t *writer) send(p []byte) (n int, err error) {
	if !t.enter() {
		return 0, http.ErrHandlerTimeout
	}
	defer t.leave()
	if room := serverBuffer - t.sent; int64(len(p)) > room && t.drains() {
		end := t.limitDrain()
		n, err = t.real.Write(p[:room+1])
		end()
		t.sent += int64(n)
		if err != nil || n == len(p) {
			return n, err
		}
	}
	m, err := t.write.write(t.real, p[n:])
	t.sent += int64(m)
	return n + m, err
}

// flush sends all that was written, in a call that was let in.
func (t *writer) flush() error {
	drains := t.drains()
	t.flushed = true
	if !drains {
		return t.write.flush(t.real)
	}
	defer t.limitDrain()()
	return http.NewResponseController(t.real).Flush()
}

// keep holds p back if nothing was sent and there is room. Otherwise, unless
// there is an error, the response is committed and p must be sent.
func keep[T string | []byte](t *writer, p T) (kept bool, err error) {
	switch {
	case t.isOver():
		return false, http.ErrHandlerTimeout
	case t.conn != nil:
		return false, http.ErrHijacked
	case t.code == 0:
		t.decide(http.StatusOK)
	}
	if t.settled() {
		return false, nil
	}
	size := len(t.held.body) + len(p)
	switch {
	// Two things are the server's to say, but it is asked only later.
	case t.code == http.StatusNoContent, t.code == http.StatusNotModified:
		return false, http.ErrBodyNotAllowed
	case t.declared >= 0 && int64(size) > t.declared:
		return false, http.ErrContentLength
	case size > t.pool.size:
		return false, t.commit()
	}
	t.held.body = append(t.held.body, p...)
	return true, nil
}

func (t *writer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept, err := keep(t, p)
	if kept {
		return len(p), nil
	}
	if err != nil {
		return 0, err
	}
	return t.send(p)
}

func (t *writer) WriteString(s string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept, err := keep(t, s)
	if kept {
		return len(s), nil
	}
	if err != nil {
		return 0, err
	}
	return t.send([]byte(s))
}

// ReadFrom keeps the server's way from a file to the socket open. From
// anything else it copies by writes, so that a source that keeps the handler
// waiting does not keep the serving goroutine waiting with it.
func (t *writer) ReadFrom(src io.Reader) (n int64, err error) {
	file, ok := regularFile(src)
	dst, can := t.real.(io.ReaderFrom)
	if !ok || !can {
		return copyTo(t, src)
	}
	// The part that decides whether the response is committed goes through
	// Write. The size of the pieces makes sure of an end after the second.
	for !t.settled() && file.N > 0 {
		m, err := copyTo(t, &io.LimitedReader{R: file, N: int64(t.pool.size) + 1})
		n += m
		if err != nil || m == 0 {
			return n, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if file.N == 0 {
		return n, nil
	}
	if !t.enter() {
		return n, http.ErrHandlerTimeout
	}
	defer t.leave()
	if t.drains() { // which ReadFrom would do without a limit
		if err := t.flush(); err != nil {
			return n, err
		}
	}
	m, err := t.write.sendFile(dst, file)
	t.sent += m
	return n + m, err
}

func (t *writer) FlushError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver() {
		return http.ErrHandlerTimeout
	}
	if t.code == 0 && t.conn == nil {
		t.decide(http.StatusOK)
	}
	if err := t.commit(); err != nil {
		return err
	}
	if !t.enter() {
		return http.ErrHandlerTimeout
	}
	defer t.leave()
	return t.flush()
}

func (t *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver() {
		return nil, nil, http.ErrHandlerTimeout
	}
	// What the handler has decided goes out first, as without the middleware.
	// It is how some proxies answer CONNECT.
	if t.code != 0 && t.req.ProtoMajor == 1 {
		if err := t.commit(); err != nil {
			return nil, nil, err
		}
	}
	if !t.enter() {
		return nil, nil, http.ErrHandlerTimeout
	}
	defer t.leave()
	if t.code != 0 && t.drains() {
		if err := t.flush(); err != nil {
			return nil, nil, err
		}
	}
	conn, rw, err := http.NewResponseController(t.real).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.conn = conn
	if t.firstByte != nil {
		t.firstByte.Stop()
	}
	if t.state.Or(committed)&over != 0 {
		conn.Close()
		return nil, nil, http.ErrHandlerTimeout
	}
	t.release()
	return conn, rw, nil
}

// shut keeps goroutines of a handler that has panicked from the response, and
// its header, unless it is out, from whoever outside recovers and answers.
func (t *writer) shut() {
	before := t.state.Or(over)
	if before&busy != 0 {
		t.free()
	}
	t.mu.Lock() // no call is under way then
	defer t.mu.Unlock()
	if before&committed == 0 && t.header != nil && t.held != nil {
		t.held.restore(t.real.Header())
	}
	t.release()
}

// takeOver takes the response out of the handler's hands and reports whether
// it had begun. When it returns, no call of the handler's is under way.
func (t *writer) takeOver() (began bool) {
	before := t.state.Or(over)
	began = before&committed != 0
	t.take()
	if before&busy != 0 {
		// Perhaps waiting for the client. Freeing it spoils the connection, so
		// that this is the end of it even if it was a 103 that was being sent.
		began = true
		t.free()
	} else if t.body.unread() {
		// The handler may be waiting in Read. On HTTP/1.1 it then has the lock
		// that the server needs before it can send anything.
		t.setReadDeadline(longAgo)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !began && t.header != nil && t.held != nil {
		t.held.restore(t.real.Header())
	}
	t.release()
	if t.conn != nil {
		t.conn.Close() // the server does not, and the tunnel's time is over
	}
	return began
}

// complete reports whether a response that has begun is all there, as its
// Content-Length has it. It is then not cut: the client could not tell on
// HTTP/1.1, and would reject it for no reason on HTTP/2. Called after takeOver.
func (t *writer) complete() bool { return t.declared >= 0 && t.sent == t.declared && t.code != 0 }

// guardRest, see gate, is not for a connection that the handler has taken over.
func (t *writer) guardRest() {
	if t.conn == nil {
		t.gate.guardRest(t.plan, t.req, t.body, t.began)
		t.closeAfter(t.req, t.body)
	}
}

// free frees a call into the real writer. It may be waiting for the client to
// take something, or, on HTTP/1.1, for the rest of the request body.
func (t *writer) free() {
	t.setWriteDeadline(longAgo)
	if t.body.unread() {
		t.setReadDeadline(longAgo)
	}
}

// finish sends what is left when the handler has returned, and shuts out what
// it may have left running. It reports whether no limit has passed meanwhile.
func (t *writer) finish() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.returned = true
	if t.conn == nil && t.commit() == nil && t.header != nil && (t.code == 0 || hasTrailers(t.header)) {
		replace(t.real.Header(), t.header)
	}
	if t.code == 0 && t.readLapsed() {
		closeIfSpoiled(&t.gate, t.req, t.body)
	}
	return t.state.Or(over)&over == 0
}

// hasTrailers reports whether the server will look for trailers in h when the
// handler has returned.
func hasTrailers(h http.Header) bool {
	if _, declared := h["Trailer"]; declared {
		return true
	}
	for k := range h {
		if strings.HasPrefix(k, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// replace makes dst equal to src.
func replace(dst, src http.Header) {
	maps.Copy(dst, src)
	if len(dst) > len(src) {
		for k := range dst {
			if _, ok := src[k]; !ok {
				delete(dst, k)
			}
		}
	}
}

// nowhere stands in for the real writer when the request is over.
type nowhere struct{}

func (nowhere) Header() http.Header       { return http.Header{} }
func (nowhere) WriteHeader(int)           {}
func (nowhere) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }
