package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// MirrorConfig configures a [Mirror].
type MirrorConfig struct {
	// Base serves the requests. Nil is http.DefaultTransport.
	Base http.RoundTripper

	// To gets the copies. Required.
	To http.RoundTripper

	// Share is how many of [SplitScale] requests are copied. Zero is all, and
	// negative is none.
	Share int

	// Match, unless nil, tells which requests may be copied. Those that ask for
	// an upgrade never are.
	Match func(*http.Request) bool

	// Prepare, unless nil, may change a copy before it is sent, to mark it or
	// to take credentials out. The copy shares nothing with the request.
	Prepare func(*http.Request)

	// MaxBody is the longest body, in bytes, that is copied; a request with a
	// longer one is not. Zero is 64 KiB, at most 16 MiB; negative copies only
	// requests without a body.
	MaxBody int

	// Workers is how many copies are under way at a time. Where all are busy,
	// the next copy is dropped: there is no queue. Zero is 16.
	Workers int

	// Timeout limits a copy, with its response; zero is 10 s.
	Timeout time.Duration

	// Done is called at the end of each copy, in the goroutine that sent it.
	// Nil is not called.
	Done func(MirrorResult)

	// Logger gets the panics of To, Prepare and Done, which end only the copy
	// that they happen in. Nil is none.
	Logger *slog.Logger
}

// MirrorResult is how a copy went.
type MirrorResult struct {
	Request *http.Request // the copy; its body has been read
	Status  int           // 0 if there was an error
	Err     error         // of sending it, or reading the response, or that one of the functions panicked
	Elapsed time.Duration // to the end of the response's body
}

// MirrorStats counts what became of the requests that were to be copied.
type MirrorStats struct {
	Sent     uint64 // copies that were sent, the failed ones included
	Failed   uint64 // copies without a complete response, for whatever reason
	Busy     uint64 // dropped because all workers were busy
	TooLarge uint64 // dropped because of MaxBody
	Partial  uint64 // dropped because Base did not read the body to its end
}

const (
	defaultMirrorBody    = 64 << 10
	defaultMirrorWorkers = 16
	defaultMirrorTimeout = 10 * time.Second
	maxMirrorBody        = 16 << 20
	maxMirrorResponse    = 1 << 20 // read before the connection is given up
)

// Mirror sends requests to one RoundTripper and copies of them to another, whose
// responses are thrown away: a rehearsal with real traffic. It is safe for
// concurrent use.
//
// The request does not wait for its copy. The body is copied as Base reads it,
// and the copy is sent when that has come to its end, with a context that has
// neither the values nor the end of the request's. A copy of an unsafe request
// does whatever it does a second time, so To must not share data with Base. A
// body that Base gets anew, by GetBody, is not copied. Of a response at most
// 1 MiB is read.
type Mirror struct {
	c     MirrorConfig
	slots chan struct{}
	ctx   context.Context
	stop  context.CancelFunc

	mu     sync.Mutex // orders wg.Add before wg.Wait
	closed bool
	wg     sync.WaitGroup

	sent, failed, busy, large, partial atomic.Uint64
}

// NewMirror returns a Mirror, or an error that names every problem in c.
func NewMirror(c MirrorConfig) (*Mirror, error) {
	var p problems
	if c.To == nil {
		p.add("MirrorConfig.To", "is required", nil)
	}
	if c.Share > SplitScale {
		p.add("MirrorConfig.Share", "must be at most 10000", c.Share)
	}
	if c.MaxBody > maxMirrorBody {
		p.add("MirrorConfig.MaxBody", "must be at most 16777216 bytes", c.MaxBody)
	}
	if c.Workers < 0 {
		p.add("MirrorConfig.Workers", "must not be negative", c.Workers)
	}
	if c.Timeout < 0 {
		p.add("MirrorConfig.Timeout", "must not be negative", c.Timeout)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	c.Share = zeroIs(c.Share, SplitScale)
	c.MaxBody = zeroIs(c.MaxBody, defaultMirrorBody)
	c.Workers = zeroIs(c.Workers, defaultMirrorWorkers)
	c.Timeout = zeroIs(c.Timeout, defaultMirrorTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mirror{c: c, slots: make(chan struct{}, c.Workers)}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m, nil
}

// RoundTrip sends the request to Base, and a copy to To.
func (m *Mirror) RoundTrip(req *http.Request) (*http.Response, error) {
	if !m.wants(req) {
		return m.c.Base.RoundTrip(req)
	}
	if req.Body == nil || req.Body == http.NoBody {
		m.send(m.copyOf(req), nil)
		return m.c.Base.RoundTrip(req)
	}
	if req.ContentLength > int64(m.c.MaxBody) || m.c.MaxBody == 0 {
		m.large.Add(1)
		return m.c.Base.RoundTrip(req)
	}
	// The copy is made now, because the caller may reuse the header once the
	// response is there; the trailer is known at the end of the body only.
	body := &mirroredBody{ReadCloser: req.Body, m: m, length: req.ContentLength, trailer: req.Trailer, copy: m.copyOf(req)}
	outer := req.WithContext(req.Context())
	outer.Body = body
	return m.c.Base.RoundTrip(outer)
}

// Close stops copying and ends the copies that are under way. RoundTrip goes on
// without. It does not close Base or To, and returns nil.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.wg.Wait()
	return nil
}

// CloseIdleConnections closes the idle connections of Base and To, if they have
// such a method.
func (m *Mirror) CloseIdleConnections() {
	for _, t := range []http.RoundTripper{m.c.Base, m.c.To} {
		if c, ok := t.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// Stats returns what became of the copies so far.
func (m *Mirror) Stats() MirrorStats {
	return MirrorStats{
		Sent:     m.sent.Load(),
		Failed:   m.failed.Load(),
		Busy:     m.busy.Load(),
		TooLarge: m.large.Load(),
		Partial:  m.partial.Load(),
	}
}

// wants tells whether req is to be copied.
func (m *Mirror) wants(req *http.Request) bool {
	switch {
	case m.c.Share < SplitScale && rand.IntN(SplitScale) >= m.c.Share:
		return false
	case req.URL == nil || req.Method == http.MethodConnect || len(req.Header["Upgrade"]) > 0:
		return false
	}
	return m.c.Match == nil || m.c.Match(req)
}

// copyOf returns a request like req, without the body and the context.
func (m *Mirror) copyOf(req *http.Request) *http.Request {
	u := *req.URL
	c := &http.Request{
		Method: req.Method, URL: &u, Host: req.Host, Header: req.Header.Clone(), Close: req.Close,
		Proto: req.Proto, ProtoMajor: req.ProtoMajor, ProtoMinor: req.ProtoMinor,
	}
	if c.Header == nil {
		c.Header = make(http.Header)
	}
	// The body is at hand. Nobody waits for leave to send it.
	c.Header.Del("Expect")
	return c
}

// send sends a copy with its body, in another goroutine, if a worker is free.
func (m *Mirror) send(req *http.Request, body []byte) {
	select {
	case m.slots <- struct{}{}:
	default:
		m.busy.Add(1)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		<-m.slots
		return
	}
	m.wg.Go(func() {
		defer func() { <-m.slots }()
		m.deliver(req, body)
	})
}

// deliver sends a copy and tells how that went.
func (m *Mirror) deliver(req *http.Request, body []byte) {
	ctx, cancel := context.WithTimeout(m.ctx, m.c.Timeout)
	defer cancel()
	req = req.WithContext(ctx)
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.ContentLength = int64(len(body))
		if len(req.Trailer) > 0 {
			req.ContentLength = -1 // trailers need chunks
		}
	}
	result := MirrorResult{Request: req}
	m.sent.Add(1)
	err := m.guard(func() error {
		if m.c.Prepare != nil {
			m.c.Prepare(req)
		}
		began := time.Now()
		defer func() { result.Elapsed = time.Since(began) }()
		return m.exchange(req, &result)
	})
	if err != nil {
		m.failed.Add(1)
		result.Status, result.Err = 0, err
	}
	if m.c.Done != nil {
		m.guard(func() error { m.c.Done(result); return nil })
	}
}

// exchange sends a copy and reads the response.
func (m *Mirror) exchange(req *http.Request, result *MirrorResult) error {
	res, err := m.c.To.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err = io.CopyN(io.Discard, res.Body, maxMirrorResponse); err != nil && err != io.EOF {
		return err
	}
	result.Status = res.StatusCode
	return nil
}

// guard calls f and makes an error of its panic: in this goroutine nobody else
// could recover from it, and a copy must not end the program.
func (m *Mirror) guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("upstream: a panic while a copy was sent: %v", v)
			m.c.Logger.LogAttrs(m.ctx, slog.LevelError, "upstream: a panic while a copy was sent",
				slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	return f()
}

// mirroredBody is the body of a request that is being copied.
type mirroredBody struct {
	io.ReadCloser
	m       *Mirror
	length  int64 // or -1
	trailer http.Header

	mu   sync.Mutex // transports may close a body while they read it
	copy *http.Request
	kept []byte
	over bool // the copy was sent or dropped
}

// Read implements io.Reader.
func (b *mirroredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return n, err
	}
	if len(b.kept)+n > b.m.c.MaxBody {
		b.m.large.Add(1)
		b.drop()
		return n, err
	}
	b.kept = append(b.kept, p[:n]...)
	// A transport that knows the length need not read on for the io.EOF. But
	// then the trailer, if there is one, is not known either.
	if err == io.EOF || int64(len(b.kept)) == b.length && len(b.trailer) == 0 {
		if len(b.trailer) > 0 {
			b.copy.Trailer = b.trailer.Clone()
		}
		req, body := b.copy, b.kept
		b.drop()
		b.m.send(req, body)
	}
	return n, err
}

// Close implements io.Closer.
func (b *mirroredBody) Close() error {
	b.mu.Lock()
	if !b.over {
		b.m.partial.Add(1)
		b.drop()
	}
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

// drop forgets the copy.
func (b *mirroredBody) drop() {
	b.over, b.kept, b.copy = true, nil, nil
}
