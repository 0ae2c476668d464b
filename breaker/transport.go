package breaker

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
)

// RoundTrip implements http.RoundTripper by way of [Config.Base]. A call that is
// refused fails with an [*OpenError], and nothing of it was sent.
//
// A call has succeeded when its response was read to the end, or closed before
// that: one that breaks off halfway is a failure.
func (b *Breaker) RoundTrip(r *http.Request) (*http.Response, error) {
	p, err := b.Acquire()
	if err != nil {
		return b.refuse(r, err)
	}
	// Given back too if the base panics, or a probe would be waited for.
	ended := false
	defer func() {
		if !ended {
			b.done(p, Failure, false)
		}
	}()
	res, err := b.cfg.Base.RoundTrip(r)
	result := Result{Request: r, Err: err}
	if err != nil {
		result.Err = cause(r.Context(), err)
	}
	if res != nil {
		result.Status, result.Header = res.StatusCode, res.Header
	}
	slow := b.slowCall > 0 && b.now()-p.start >= b.slowCall
	o := b.cfg.Classify(result)
	ended = true
	if o != Success || res == nil || !streams(r, res) {
		b.done(p, o, slow)
		return res, err
	}
	res.Body = &body{ReadCloser: res.Body, b: b, permit: p, slow: slow, result: result}
	return res, nil
}

// streams reports whether there is more of a response to wait for. What follows
// a change of protocols is not HTTP.
func streams(r *http.Request, res *http.Response) bool {
	return res.StatusCode >= 200 && res.ContentLength != 0 && r.Method != http.MethodHead && r.Method != http.MethodConnect &&
		res.Body != nil && res.Body != http.NoBody
}

// cause is why a context has ended, or otherwise err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// refuse ends a call that was not let through.
func (b *Breaker) refuse(r *http.Request, err error) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if b.cfg.Fallback != nil {
		return b.cfg.Fallback(r, err.(*OpenError))
	}
	return nil, err
}

// CloseIdleConnections closes those of the base, where it has such a method.
func (b *Breaker) CloseIdleConnections() {
	if c, ok := b.cfg.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// body is a response body whose end is the end of the call.
type body struct {
	io.ReadCloser
	b      *Breaker
	permit Permit
	slow   bool
	result Result
	ended  atomic.Bool
}

func (s *body) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		s.end(nil)
	case err != nil:
		s.end(err)
	case n > 0 && s.permit.trial != 0 && !s.ended.Load() && s.b.now() >= s.permit.trial:
		// A probe that is a long stream, and still delivers.
		s.end(nil)
	}
	return n, err
}

func (s *body) Close() error {
	// The other order would count a caller who leaves while another goroutine
	// reads as a failure.
	s.end(nil)
	return s.ReadCloser.Close()
}

func (s *body) end(err error) {
	if !s.ended.CompareAndSwap(false, true) {
		return
	}
	if err != nil {
		s.result.Err = cause(s.result.Request.Context(), err)
	}
	s.b.done(s.permit, s.b.cfg.Classify(s.result), s.slow)
}
