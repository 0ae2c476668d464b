package upstream

import (
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
		h["Proxy-Status"] = append(h["Proxy-Status"], proxyStatusReceived(name, res.StatusCode))
	}
	if x.in.ProtoMajor == 1 && !x.complete() {
		// An answer before the end of the upload. Without this the server
		// would read the rest of it first, and the client may be waiting for
		// the answer.
		h["Connection"] = x.value("close")
	}
	announced := x.announceTrailers(h, res)
	x.rec.Status = res.StatusCode
	x.w.WriteHeader(res.StatusCode)

	if c.buf == nil {
		return
	}
	if err := x.copyResponse(res, c); err != nil {
		x.abort(err)
	}
	res.Body.Close() // some Transports fill in the trailers only now
	x.sendTrailers(h, res, announced)
}

// prepare checks a response and makes its header ready to be passed on.
func (x *exchange) prepare(res *http.Response) error {
	p := x.p
	if err := finalStatus(res); err != nil {
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
	return finalStatus(res)
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
func finalStatus(res *http.Response) error {
	if res.StatusCode < 200 || res.StatusCode > 999 {
		return &Error{Kind: KindBadResponse, Err: fmt.Errorf("status %d in a final response", res.StatusCode)}
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
	var few [4]string
	names := few[:0]
	for name := range res.Trailer {
		if trailable(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return 0
	}
	h["Trailer"] = x.value(strings.Join(names, ", "))
	if x.in.ProtoMajor == 1 && !bodyless(x.in.Method, res.StatusCode) {
		delete(h, "Content-Length")
	}
	return len(names)
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

// abort ends a response that cannot be completed, so that the client sees it.
func (x *exchange) abort(err error) {
	e := x.judge(err)
	x.rec.Err = e
	if own, ok := e.(*Error); !ok || own.Kind != KindClientGone {
		x.p.cfg.Logger.WarnContext(x.in.Context(), "upstream: response broken off",
			"backend", x.rec.Backend, "status", x.rec.Status, "sent", x.rec.Sent, "error", e)
	}
	panic(http.ErrAbortHandler)
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
		return x.pump(res.Body, c, nil)
	}
	s := &x.stream
	s.w = x.w
	defer s.stop()
	if c.pauses {
		// The head alone must not wait for the first byte, which may be
		// long in coming. Most often it is not, and one flush is enough.
		s.arm(headDelay)
	} else {
		s.interval = x.p.cfg.FlushInterval
		s.arm(s.interval)
	}
	return x.pump(res.Body, c, s)
}

// headDelay is how long the head of a stream waits for the body, and a full
// buffer for the next.
const headDelay = time.Millisecond

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
				return &Error{Kind: KindClientGone, Err: werr}
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

// bodyError is the error of a response body that ended early.
func bodyError(err error, backend string) error {
	if _, ok := err.(*Error); ok {
		return err
	}
	return &Error{Kind: KindBodyAborted, Backend: backend, Err: err}
}

// stream writes a response and decides when to flush it. Flushes can come from
// a timer, so there is a lock around the writer.
type stream struct {
	w        http.ResponseWriter
	interval time.Duration // 0: at each pause

	mu      sync.Mutex
	timer   *time.Timer
	pending bool // something is written and not flushed, and the timer runs
	stopped bool
}

// write writes p. A pause is a read that did not fill the buffer: there was no
// more to read. After the last write the server flushes by itself.
func (s *stream) write(p []byte, pause, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	switch {
	case last:
	case s.interval == 0 && pause:
		if s.pending {
			s.pending = false
			s.timer.Stop()
		}
		return flush(s.w)
	case s.interval == 0:
		s.arm(headDelay)
	case !s.pending:
		s.arm(s.interval)
	}
	return nil
}

// arm sets the timer. It is called with mu held, or before there is anyone else.
func (s *stream) arm(d time.Duration) {
	s.pending = true
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.expire)
	} else {
		s.timer.Reset(d)
	}
}

func (s *stream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending && !s.stopped {
		s.pending = false
		flush(s.w) // the next write has the error too
	}
}

// stop returns when no flush is under way, and lets none begin.
func (s *stream) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// flush flushes a writer in the cheapest way that it has.
func flush(w http.ResponseWriter) error {
	switch f := w.(type) {
	case interface{ FlushError() error }:
		return f.FlushError()
	case http.Flusher:
		f.Flush()
		return nil
	}
	http.NewResponseController(w).Flush() // a writer that cannot flush needs no error
	return nil
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
