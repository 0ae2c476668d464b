package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
)

// got1xx is the hook of net/http/httptrace. It runs in a goroutine of the
// Transport while RoundTrip is waiting, and can be called once more after that.
func (x *exchange) got1xx(code int, h textproto.MIMEHeader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil
	}
	x.rec.Interim++
	if !x.counted {
		if e := x.refuseInterim(code, x.rec.Interim); e != nil {
			x.interimErr = e
			if x.stop != nil {
				x.stop()
			}
			return e
		}
	}
	if code == http.StatusContinue {
		// The client gets one when its body is asked for, and not otherwise.
		return nil
	}
	if x.passed == x.p.cfg.MaxInterim {
		return nil // those of the attempts before were so many
	}
	x.passed++
	x.rec.begun.Store(true)
	header := http.Header(h)
	x.p.responseHeader(header)
	return x.writeInterim(code, header)
}

var errNotAsked = errors.New("status 101 over HTTP/2")

// refuseInterim returns why an attempt must not go on after its nth
// informational response, or nil.
func (x *exchange) refuseInterim(code, n int) *Error {
	if code == http.StatusSwitchingProtocols {
		// Over HTTP/2, which has no such status, it is informational to
		// net/http. To a server of HTTP/1 it is final, and to its client the
		// end of HTTP on this connection (RFC 9113 section 8.6).
		return &Error{Kind: KindUpgrade, Err: errNotAsked}
	}
	if limit := x.p.cfg.MaxInterim; n > limit {
		return &Error{Kind: KindBadResponse, Err: fmt.Errorf("more than %d informational responses", limit)}
	}
	return nil
}

// countedContext is the context of an attempt that is not the only one of its
// exchange: a retry, or one of two at the same time. The trace that net/http
// finds in it is that of the request, but for a hook that counts what this
// attempt's back end sends, and fails no other for it.
type countedContext struct {
	context.Context
	x     *exchange
	trace *httptrace.ClientTrace // the request's
	own   httptrace.ClientTrace
	n     atomic.Int32
}

// counted returns req for an attempt that is counted by itself. A nil record
// counts nothing.
func (r *record) counted(req *http.Request) *http.Request {
	if r == nil || r.interims == nil {
		return req
	}
	trace := httptrace.ContextClientTrace(req.Context())
	if trace == nil || trace.Got1xxResponse == nil {
		return req
	}
	x := r.interims
	x.mu.Lock()
	x.counted, x.interimErr = true, nil
	x.mu.Unlock()
	c := &countedContext{Context: req.Context(), x: x, trace: trace, own: *trace}
	c.own.Got1xxResponse = c.got1xx
	return req.WithContext(c)
}

// Value returns the attempt's trace for the request's. Its key has no name
// outside of net/http/httptrace.
func (c *countedContext) Value(key any) any {
	v := c.Context.Value(key)
	if trace, ok := v.(*httptrace.ClientTrace); ok && trace == c.trace {
		return &c.own
	}
	return v
}

func (c *countedContext) got1xx(code int, h textproto.MIMEHeader) error {
	if e := c.x.refuseInterim(code, int(c.n.Add(1))); e != nil {
		return e
	}
	return c.trace.Got1xxResponse(code, h)
}

// sendContinue sends 100 to a client that waits for it, in the goroutine that is
// about to read the body. HTTP/1 servers would do that by themselves, but not
// in step with other informational responses.
func (x *exchange) sendContinue() {
	if x.in.ProtoMajor == 2 {
		return // net/http does so, and quic-go's server of HTTP/3 does not
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.continued {
		return
	}
	x.continued = true
	x.writeInterim(http.StatusContinue, nil)
}

// writeInterim writes an informational response with the given fields and no
// others: what the layers outside have put into the header is for the final
// one. It is called with mu held. A panic of the writer is kept for the
// goroutine that serves the request, where somebody can recover from it.
func (x *exchange) writeInterim(code int, fields http.Header) (err error) {
	h := x.w.Header()
	var own http.Header
	if len(h) > 0 {
		own = maps.Clone(h)
		clear(h)
	}
	defer func() {
		clear(h)
		maps.Copy(h, own)
		if v := recover(); v != nil {
			x.panicked = v
			err = &Error{Kind: KindClientGone, Err: fmt.Errorf("panic: %v", v)}
		}
	}()
	maps.Copy(h, fields)
	x.w.WriteHeader(code)
	return nil
}
