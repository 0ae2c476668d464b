package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

// respond passes a response on.
func (x *exchange) respond(res *http.Response) {
	p := x.p
	if x.rec.timed {
		x.rec.FirstByte = time.Since(x.rec.Start)
	}
	if res.Header == nil {
		res.Header = make(http.Header)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		x.switchProtocols(res)
		return
	}
	received := res.StatusCode // a hook may change it
	if err := x.prepare(res); err != nil {
		res.Body.Close()
		x.fail(err)
		return
	}
	var c copying
	if !bodyless(x.in.Method, res.StatusCode) {
		c = x.copyingOf(res)
		defer x.p.buffers.put(c.buf)
		if err := c.lead(res); err != nil {
			// Nothing has gone out, so that the client can be told.
			res.Body.Close()
			x.fail(x.judge(bodyError(err, x.rec.Backend)))
			return
		}
	}
	h := x.w.Header()
	merge(h, res.Header)
	if name := p.cfg.ProxyStatus; name != "" {
		h["Proxy-Status"] = append(h["Proxy-Status"], proxyStatusReceived(name, received))
	}
	if _, ok := h["Content-Type"]; !ok && c.buf != nil {
		// The server would guess at it, and may see HTML and its scripts in what
		// the back end has left without a type for that very reason.
		h["Content-Type"] = nil
	}
	x.closeIfUnread(h)
	announced := x.announceTrailers(h, res)
	x.rec.Status = res.StatusCode
	x.w.WriteHeader(res.StatusCode)

	if c.buf == nil {
		return
	}
	if err := x.copyResponse(res, c); err != nil {
		x.breakOff(res, err)
		return
	}
	x.body.stop()
	res.Body.Close() // some Transports fill in the trailers only now
	x.sendTrailers(h, res, announced)
}

// prepare checks a response and makes its header ready to be passed on.
func (x *exchange) prepare(res *http.Response) error {
	p := x.p
	if err := x.finalStatus(res); err != nil {
		return err
	}
	p.responseHeader(res.Header)
	frame(res, x.in.Method)
	x.addVia(res)
	if p.cfg.MaxResponse > 0 && res.ContentLength > p.cfg.MaxResponse && !bodyless(x.in.Method, res.StatusCode) {
		return &Error{Kind: KindBadResponse, Backend: x.rec.Backend, Err: errTooLong}
	}
	if p.cfg.ModifyResponse == nil {
		return nil
	}
	if err := p.cfg.ModifyResponse(res); err != nil {
		if e, ok := answerOf(err); ok {
			return e
		}
		return &Error{Kind: KindBadResponse, Backend: x.rec.Backend, Err: err}
	}
	return x.finalStatus(res)
}

// addVia adds this proxy to the Via of a response.
func (x *exchange) addVia(res *http.Response) {
	if x.p.forwarder.NoVia {
		return
	}
	via := x.value(x.p.forwarder.viaFor(res.ProtoMajor, res.ProtoMinor))
	if prior := res.Header["Via"]; len(prior) > 0 {
		via = append(prior[:len(prior):len(prior)], via...)
	}
	res.Header["Via"] = via
}

// errTooLong is why a response larger than ProxyConfig.MaxResponse is refused.
var errTooLong = errors.New("the response body is larger than ProxyConfig.MaxResponse")

// finalStatus checks that a status can be written as that of a final response.
func (x *exchange) finalStatus(res *http.Response) error {
	if res.StatusCode < 200 || res.StatusCode > 999 {
		return &Error{Kind: KindBadResponse, Backend: x.rec.Backend, Err: fmt.Errorf("status %d in a final response", res.StatusCode)}
	}
	return nil
}

// bodyless reports whether a response has no body, whatever its header says
// (RFC 9112 section 6.3).
func bodyless(method string, status int) bool {
	return method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
}

// frame makes Content-Length say what the Transport has understood, once, or
// nothing. The field itself may be there twice, or be no number, where another
// part of the message was what counted.
func frame(res *http.Response, method string) {
	values, ok := res.Header["Content-Length"]
	length := res.ContentLength
	switch {
	case res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusNotModified:
		// A 304 may have one, of the body that it does not have; net/http
		// takes it for that of the 304, over HTTP/2 at least.
		length = -1
	case method == http.MethodHead:
		if len(values) != 1 || !isDecimal(values[0]) {
			length = -1
			break
		}
		return
	}
	if length < 0 {
		if ok {
			delete(res.Header, "Content-Length")
		}
		return
	}
	if len(values) == 1 && isDecimal(values[0]) {
		if n, err := strconv.ParseInt(values[0], 10, 64); err == nil && n == length {
			return
		}
	}
	res.Header["Content-Length"] = []string{strconv.FormatInt(length, 10)}
}

func isDecimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && len(s) < 19
}

// announceTrailers announces the trailers that the back end has announced, and
// returns how many. A client of HTTP/1.1 gets trailers only with chunks.
func (x *exchange) announceTrailers(h http.Header, res *http.Response) int {
	if len(res.Trailer) == 0 || !x.in.ProtoAtLeast(1, 1) {
		return 0
	}
	own := h["Trailer"] // of a layer outside
	var few [4]string
	names := few[:0]
	announced := 0
	for name := range res.Trailer {
		if !trailable(name) {
			continue
		}
		announced++
		if !hasToken(own, name) { // the server sends what is announced twice twice
			names = append(names, name)
		}
	}
	if announced == 0 {
		return 0
	}
	if len(names) > 0 {
		list := x.value(strings.Join(names, ", "))
		if len(own) > 0 {
			list = append(own[:len(own):len(own)], list...)
		}
		h["Trailer"] = list
	}
	if x.in.ProtoMajor == 1 && !bodyless(x.in.Method, res.StatusCode) {
		delete(h, "Content-Length")
	}
	return announced
}

// sendTrailers passes on the trailers that came after the body.
func (x *exchange) sendTrailers(h http.Header, res *http.Response, announced int) {
	if len(res.Trailer) == 0 || !x.in.ProtoAtLeast(1, 1) {
		return
	}
	if announced != len(res.Trailer) {
		// Not all were announced, so the server must not find out on its own
		// that a short body is complete: it would send Content-Length.
		flush(x.w)
	}
	for name, values := range res.Trailer {
		if !trailable(name) || len(values) == 0 {
			continue
		}
		if announced == len(res.Trailer) {
			h[name] = values
		} else {
			h[http.TrailerPrefix+name] = values
		}
	}
}

// breakOff ends a response that cannot be completed, so that the client sees it.
func (x *exchange) breakOff(res *http.Response, err error) {
	e := err
	if own, ok := err.(*Error); !ok || own.Kind != KindBadResponse {
		e = x.judge(err)
	} // else it was seen here, and a client that resets its stream has seen it too
	x.rec.Err = e
	own, ok := e.(*Error)
	if ok && own.Kind == KindDeadline && x.grpcTimedOut(res) {
		// A client that looks at its clock a little later would take a stream
		// that is reset for an internal error.
		flush(x.w) // as in sendTrailers
		h := x.w.Header()
		h[http.TrailerPrefix+"Grpc-Status"] = x.value(strconv.Itoa(grpcDeadlineExceeded))
		h[http.TrailerPrefix+"Grpc-Message"] = x.value("deadline exceeded")
		return
	}
	if !ok || own.Kind != KindClientGone || errors.Is(own.Err, context.Canceled) && contextEnd(x.in.Context()) == nil && contextEnd(x.out) == nil {
		// The last is a tripper of Config.Wrap that has cancelled what it hands out.
		x.p.cfg.Logger.WarnContext(x.in.Context(), "upstream: response broken off",
			"backend", x.rec.Backend, "status", x.rec.Status, "sent", x.rec.Sent, "error", e)
	}
	panic(http.ErrAbortHandler)
}

// grpcTimedOut reports whether it is the client's own grpc-timeout that has ended
// a response of gRPC. Only of such a one everybody looks for the status in its
// trailers; any other that is cut must not end as if it were whole.
func (x *exchange) grpcTimedOut(res *http.Response) bool {
	return x.cancel != nil && contextEnd(x.in.Context()) == nil && x.in.ProtoMajor >= 2 && x.in.Method == http.MethodPost &&
		res.StatusCode == http.StatusOK && res.ContentLength < 0 && isGRPC(res.Header["Content-Type"])
}

// copying is how the body of a response is to be copied.
type copying struct {
	buf    []byte
	pauses bool // it is flushed where it pauses, and its head does not wait for it
	timed  bool // it is flushed at intervals

	// What has been read before the head is sent.
	n   int
	err error
}

func (x *exchange) copyingOf(res *http.Response) copying {
	interval := x.p.cfg.FlushInterval
	events := x.grpc || isEventStream(res.Header["Content-Type"]) || isGRPC(res.Header["Content-Type"])
	c := copying{pauses: interval < 0 || res.ContentLength < 0 || events}
	c.timed = interval > 0 && !c.pauses
	size := largeBuffer
	if events || res.ContentLength >= 0 && res.ContentLength <= smallBuffer {
		size = smallBuffer
	}
	c.buf = x.p.buffers.get(size)
	return c
}

// lead reads the first bytes of a body of known length. Its head would wait for
// them in the server's buffers in any case, and if the back end dies before
// them, the client can still be told so in words. It returns why there are none.
func (c *copying) lead(res *http.Response) error {
	if c.pauses || c.timed || res.ContentLength <= 0 {
		return nil
	}
	for c.n == 0 && c.err == nil {
		c.n, c.err = res.Body.Read(c.buf)
	}
	if c.n == 0 && c.err != io.EOF {
		return c.err
	}
	return nil
}

// copyResponse copies the body to the client.
func (x *exchange) copyResponse(res *http.Response, c copying) error {
	if !c.pauses && !c.timed {
		// A hook can have made the length more than MaxResponse, which pump holds to.
		limit := x.p.cfg.MaxResponse
		if c.err == nil && int64(c.n) < res.ContentLength && res.ContentLength <= int64(len(c.buf)) && (limit == 0 || res.ContentLength <= limit) {
			if err := x.gather(res, &c); err != nil {
				return err
			}
		}
		return x.pump(res.Body, c, nil)
	}
	s := x.p.streams.get(x.w)
	defer x.p.streams.put(s)
	switch {
	case statusInHead(res):
		// The end comes next, and a flush would part it from the head: clients
		// take that for an error. If a body comes nevertheless, it is a stream.
	case c.pauses:
		// The head alone must not wait for the first byte, which may be
		// long in coming. Most often it is not, and one flush is enough.
		s.start(headDelay)
	default:
		s.interval = x.p.cfg.FlushInterval
		s.start(s.interval)
	}
	return x.pump(res.Body, c, s)
}

// headDelay is how long the head of a stream waits for the body, and a full
// buffer for the next.
const headDelay = time.Millisecond

// gather reads the rest of a body that fits into the buffer, of which the first
// part has come with the head, so that both are written at once: the server pays
// for each write with a system call. If the body pauses, what there is of it
// goes ahead.
func (x *exchange) gather(res *http.Response, c *copying) error {
	s := x.p.streams.get(x.w)
	defer x.p.streams.put(s)
	for c.err == nil && int64(c.n) < res.ContentLength {
		s.hold(c.buf[:c.n])
		var n int
		n, c.err = res.Body.Read(c.buf[c.n:])
		c.n += n
		if sent, err := s.unhold(); sent > 0 || err != nil {
			x.rec.Sent += int64(sent)
			c.buf, c.n = c.buf[sent:], c.n-sent
			if err != nil {
				return x.writeError(err, x.rec.Sent+int64(c.n))
			}
			return nil
		}
	}
	return nil
}

// pump copies body to the client, what has been read of it first.
func (x *exchange) pump(body io.Reader, c copying, s *stream) error {
	limit := x.p.cfg.MaxResponse
	buf, n, err := c.buf, c.n, c.err
	for ; ; n, err = body.Read(buf) {
		if n > 0 {
			if limit > 0 && x.rec.Sent+int64(n) > limit {
				return &Error{Kind: KindBadResponse, Backend: x.rec.Backend, Err: errTooLong}
			}
			var werr error
			if s == nil {
				_, werr = x.w.Write(buf[:n])
			} else {
				werr = s.write(buf[:n], n < len(buf), err != nil)
			}
			if werr != nil {
				return x.writeError(werr, x.rec.Sent+int64(n))
			}
			x.rec.Sent += int64(n)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return bodyError(err, x.rec.Backend)
		}
	}
}

// writeError is the error of a write to the client, with which total bytes of
// the body would have been written. That these do not fit the head, as after a
// hook that has changed the one and not the other, is not the client's fault. The
// server of HTTP/2 has no error of its own for that.
func (x *exchange) writeError(err error, total int64) error {
	kind := KindClientGone
	declared, perr := strconv.ParseInt(x.w.Header().Get("Content-Length"), 10, 64)
	if perr == nil && total > declared || errors.Is(err, http.ErrContentLength) || errors.Is(err, http.ErrBodyNotAllowed) {
		kind = KindBadResponse
	}
	return &Error{Kind: kind, Backend: x.rec.Backend, Err: err}
}

// bodyError is the error of a response body that ended early.
func bodyError(err error, backend string) error {
	if _, ok := err.(*Error); ok {
		return err
	}
	return &Error{Kind: KindBodyAborted, Backend: backend, Err: err}
}

// stream writes a response and decides when to flush it. Flushes, and writes of
// what is held, can come from a timer, so there is a lock around the writer.
type stream struct {
	interval time.Duration // 0: at each pause

	mu       sync.Mutex
	w        http.ResponseWriter // nil: no more
	timer    *time.Timer
	due      int    // calls of expire that are to come
	pending  bool   // something is written and not flushed, or held
	held     []byte // to be written, and not flushed, by expire
	sent     int    // of held
	err      error  // why nothing more is to be written
	panicked any    // what the writer panicked with in expire
}

var errPanicked = errors.New("the writer has panicked")

// streams lends streams, for the sake of their timers.
type streams struct{ pool sync.Pool }

func (p *streams) get(w http.ResponseWriter) *stream {
	s, ok := p.pool.Get().(*stream)
	if !ok {
		s = new(stream)
	}
	s.w, s.interval = w, 0
	return s
}

// put returns when no flush is under way, and lets none begin. It panics if one
// has, in the goroutine of the timer, where nobody could recover from it.
func (p *streams) put(s *stream) {
	again := s.stop()
	if s.panicked != nil {
		panic(s.panicked)
	}
	if again {
		p.pool.Put(s)
	}
}

// hold has b written if the timer comes, which the first call sets, before unhold
// is called.
func (s *stream) hold(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.pending = b, true
	if s.due == 0 {
		s.arm(headDelay)
	}
}

// unhold returns how much of what was held has been written. No more will be.
func (s *stream) unhold() (sent int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.pending = nil, false
	return s.sent, s.err
}

// write writes p. A pause is a read that did not fill the buffer: there was no
// more to read. After the last write the server flushes by itself.
func (s *stream) write(p []byte, pause, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	switch {
	case last:
	case s.interval == 0 && pause:
		if s.pending {
			s.pending = false
			s.disarm()
		}
		return flush(s.w)
	case s.interval == 0:
		s.arm(headDelay)
	case !s.pending:
		s.arm(s.interval)
	}
	return nil
}

// start sets the timer for the head.
func (s *stream) start(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arm(d)
}

// arm sets the timer. It is called with mu held.
func (s *stream) arm(d time.Duration) {
	s.pending = true
	switch {
	case s.timer == nil:
		s.timer = time.AfterFunc(d, s.expire)
		s.due++
	case !s.timer.Reset(d):
		s.due++
	}
}

func (s *stream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due--
	if !s.pending {
		return
	}
	s.pending = false
	defer func() {
		if s.panicked = recover(); s.panicked != nil {
			s.err = errPanicked
		}
	}()
	if s.held == nil {
		flush(s.w) // the next write has the error too
		return
	}
	s.sent, s.err = s.w.Write(s.held)
	s.held = nil
}

// disarm stops the timer. If that is too late, expire will find nothing to do.
func (s *stream) disarm() {
	if s.timer.Stop() {
		s.due--
	}
}

// stop ends the use of the writer. It reports whether the stream can be used
// again, because expire will not be called any more.
func (s *stream) stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w, s.pending, s.held, s.sent, s.err = nil, false, nil, 0, nil
	if s.due > 0 {
		s.disarm()
	}
	return s.due == 0
}

// flush flushes a writer in the cheapest way that it has. That one cannot flush
// is no error, whoever says so: a writer with the method may be around one
// without.
func flush(w http.ResponseWriter) error {
	var err error
	switch f := w.(type) {
	case interface{ FlushError() error }:
		err = f.FlushError()
	case http.Flusher:
		f.Flush()
	default:
		err = http.NewResponseController(w).Flush()
	}
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// isEventStream reports whether a response is Server-Sent Events, whatever
// parameters it has.
func isEventStream(contentType []string) bool {
	const media = "text/event-stream"
	if len(contentType) == 0 || len(contentType[0]) < len(media) || !strings.EqualFold(contentType[0][:len(media)], media) {
		return false
	}
	rest := contentType[0][len(media):]
	return rest == "" || rest[0] == ';' || rest[0] == ' ' || rest[0] == '\t'
}

// The sizes of the buffers that bodies are copied through. The large one stays
// below the size of a loopback segment: a write just above it leaves a tiny
// second one, at nearly twice the cost for each byte. A stream of events never
// fills more than the small one, and holds it for as long as it lives.
const (
	smallBuffer = 8 << 10
	largeBuffer = 48 << 10
)

// bufferPool lends buffers of the two sizes, or those of a pool of the user's.
type bufferPool struct {
	given        httputil.BufferPool
	small, large sync.Pool
}

func (p *bufferPool) get(size int) []byte {
	if p.given != nil {
		if b := p.given.Get(); len(b) > 0 {
			return b
		}
		return make([]byte, largeBuffer)
	}
	if size == smallBuffer {
		if b, ok := p.small.Get().(*[smallBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, smallBuffer)
	}
	if b, ok := p.large.Get().(*[largeBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, largeBuffer)
}

func (p *bufferPool) put(b []byte) {
	switch {
	case p.given != nil:
		p.given.Put(b)
	case len(b) == smallBuffer:
		p.small.Put((*[smallBuffer]byte)(b))
	default:
		p.large.Put((*[largeBuffer]byte)(b))
	}
}
