package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// attempt is one sending of a request to one back end. It becomes the
// response's body, and ends when that is read to its end or closed.
type attempt struct {
	call     *call
	peer     *Peer
	be       *backend
	failOpen bool
	number   int // 1 is the first
	timing   timing
	start    time.Duration

	req     *http.Request // as it was sent
	reqBody tryBody

	set  *connSet
	conn *conn // nil until there is one
	fail failure

	cancel context.CancelCauseFunc // of the attempt's own context; nil if it has none
	hedge  context.CancelCauseFunc // likewise, of one that may be overtaken
	timer  *time.Timer             // for PerTry, or a foreign tripper's header

	body io.ReadCloser // the response's
	over atomic.Bool   // everything is given back
}

func (a *attempt) init(c *call, peer *Peer, open bool) {
	a.call, a.peer, a.be, a.failOpen = c, peer, peer.owner.(*backend), open
	a.start, a.number = c.start, c.tries+1
	if c.tries > 0 {
		a.start = c.pool.now()
	}
	c.pool.selector.begin(peer)
	a.be.stats.attempts.Add(1)
	if c.body.src != nil {
		a.reqBody.r = &c.body
	}
}

// do sends out, which is the attempt's to change, and reports to the selector
// how that went.
func (a *attempt) do(out *http.Request) (*http.Response, failure) {
	ep := a.be.ep
	out.URL.Scheme, out.URL.Host = ep.scheme(), ep.urlHost
	a.host(out)
	noBody := a.reqBody.r == nil
	if !noBody {
		out.Body, out.GetBody = &a.reqBody, a.call.body.getBody
	}
	if a.limited() {
		out = a.limit(out, noBody)
	}
	a.req = out

	var res *http.Response
	var err error
	if a.be.tripper == nil {
		res, err = a.send(out)
	} else {
		res, err = a.trip(out)
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	took := a.call.pool.now() - a.start
	if err != nil {
		f := a.judge(err)
		a.report(outcomeOf(f), took, 0, f)
		a.finish(false)
		return nil, f
	}
	o := outcomeOK
	if res.StatusCode >= 502 && res.StatusCode <= 504 {
		o = outcomeFailure
	}
	a.report(o, took, res.StatusCode, failure{})
	return res, failure{}
}

// host sets the Host that the target wants. That of a Proxy's request may
// be the client's for a reason, and then stays.
func (a *attempt) host(out *http.Request) {
	ep, rec := a.be.ep, a.call.rec
	switch {
	case ep.sendHost == "":
	case ep.Target.Host != "", rec == nil || rec.hostAuto:
		out.Host = ep.sendHost
	}
	if out.Host == "" {
		out.Host = out.URL.Host
	}
}

// limited reports whether the attempt needs a context of its own.
func (a *attempt) limited() bool {
	return a.call.pool.retry.PerTry > 0 || a.be.foreign && a.call.pool.conns.HeaderTimeout > 0
}

var errPerTry = &timeoutError{"no response header in the time for one attempt"}

// limit returns out with a context that ends when the attempt takes too long.
func (a *attempt) limit(out *http.Request, noBody bool) *http.Request {
	ctx, cancel := context.WithCancelCause(out.Context())
	a.cancel = cancel
	out = out.WithContext(ctx)
	if d := a.call.pool.retry.PerTry; d > 0 {
		a.timer = time.AfterFunc(d, func() { cancel(errPerTry) })
		return out
	}
	d := a.call.pool.conns.HeaderTimeout
	a.timer = time.AfterFunc(d, func() { cancel(errHeaderTimeout) })
	if !noBody {
		a.timer.Stop()
		a.reqBody.done = func() { a.timer.Reset(d) }
	}
	return out
}

// attemptKey is the context key by which the innermost tripper below
// Config.Wrap finds its attempt.
type attemptKey struct{}

// trip sends out through the tripper of Config.Wrap or Config.Transport.
func (a *attempt) trip(out *http.Request) (*http.Response, error) {
	out = out.WithContext(context.WithValue(out.Context(), attemptKey{}, a))
	a.req = out
	res, err := a.be.tripper.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, errNoAnswer
	}
	res.Body = named(res.Body, a)
	return res, nil
}

var errNoAnswer = errors.New("the tripper returned neither a response nor an error")

// innermost is what Config.Wrap wraps.
type innermost struct{ be *backend }

var errTwice = errors.New("upstream: the tripper given to Config.Wrap was called twice, or without the request's context")

// RoundTrip implements http.RoundTripper.
func (t innermost) RoundTrip(req *http.Request) (*http.Response, error) {
	a, _ := req.Context().Value(attemptKey{}).(*attempt)
	if a == nil || a.be != t.be || a.set != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, errTwice
	}
	return a.send(req)
}

// CloseIdleConnections lets http.Client's method of that name through.
func (t innermost) CloseIdleConnections() { t.be.closeIdle() }

// send sends out over one of the back end's connections. What goes wrong is
// judged here, where the evidence is, and left in fail.
func (a *attempt) send(out *http.Request) (*http.Response, error) {
	set, err := a.be.setFor(out)
	if err != nil {
		return nil, a.failed(failure{err, classNever})
	}
	ctx := out.Context()
	c, err := set.acquire(ctx, &a.timing)
	a.set, a.conn = set, c
	if err != nil {
		return nil, a.notSent(out, err)
	}
	if c.foreign() {
		res, err := a.be.base.RoundTrip(out)
		if err == nil && res == nil {
			err = errNoAnswer
		}
		if err != nil {
			f, ok := a.blameless(out, err)
			if !ok {
				f = classifyForeign(err)
			}
			return nil, a.failed(f)
		}
		return a.wrap(res), nil
	}
	served := c.served.Load()
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c.nc, Reused: served})
	}
	ev := evidence{written: c.nc.written.Load(), read: c.nc.read.Load(), served: served, h2: c.h2}
	if !c.h2 {
		noBody := a.reqBody.r == nil
		if !noBody {
			a.reqBody.done = c.watch.bodyDone
		}
		c.watch.begin(noBody)
	}
	res, rerr := c.cc.RoundTrip(out)
	if !c.h2 {
		c.watch.end()
	}
	if rerr != nil {
		ev.written, ev.read = c.nc.written.Load()-ev.written, c.nc.read.Load()-ev.read
		ev.late = c.late.Load()
		ev.healthy = c.cc.Available() > 0
		if c.h2 {
			ev.proven, ev.full = c.served.Load(), refusedStream(rerr) && set.overfull(c)
		}
		f, ok := a.blameless(out, rerr)
		if !ok {
			f = classify(out, rerr, ev)
		}
		return nil, a.failed(f)
	}
	c.served.Store(true)
	if v := res.Header["Keep-Alive"]; v != nil {
		set.idleTimes.announce(v)
	}
	if c.tls != nil {
		res.TLS = c.tls
	}
	return a.wrap(res), nil
}

// wrap makes the attempt the response's body.
func (a *attempt) wrap(res *http.Response) *http.Response {
	a.body = res.Body
	switch rwc, ok := res.Body.(io.ReadWriteCloser); {
	case res.StatusCode == http.StatusSwitchingProtocols && ok:
		res.Body = &upgraded{a, rwc}
	default:
		if res.Body == http.NoBody && res.StatusCode != http.StatusSwitchingProtocols {
			a.finish(true) // net/http has let go of the connection
		}
		res.Body = a
	}
	return res
}

// failed leaves f in fail and returns its error.
func (a *attempt) failed(f failure) error {
	a.fail = a.name(f)
	return a.fail.Error
}

// notSent judges why there was no connection.
func (a *attempt) notSent(req *http.Request, err *Error) error {
	f, ok := a.blameless(req, err)
	switch {
	case ok:
	case !err.NotSent(), err.Kind == KindClosed && a.call.pool.closed.Load():
		f = failure{err, classNever}
	default:
		f = failure{err, classNotSent}
	}
	return a.failed(f)
}

// blameless finds the reasons for a failure that lie on this side: the
// caller's context, the caller's body, our own limits.
func (a *attempt) blameless(req *http.Request, err error) (failure, bool) {
	if ctx := a.call.in.Context(); ctx.Err() != nil {
		return failure{contextError(ctx, a.be.ep.ID), classNever}, true
	}
	if a.call.pool.ctx.Err() != nil {
		return a.name(failure{&Error{Kind: KindClosed, Err: errPoolClosed}, classNever}), true
	}
	if berr := a.call.body.failure(); berr != nil {
		if e, ok := errors.AsType[*Error](berr); ok {
			return failure{e, classNever}, true
		}
		return a.name(failure{&Error{Kind: KindClientBody, Err: berr}, classNever}), true
	}
	switch cause := context.Cause(req.Context()); cause {
	case errPerTry, errHeaderTimeout:
		return a.name(failure{&Error{Kind: KindHeaderTimeout, Err: cause}, classTimeout}), true
	case errHedgeLost:
		return a.name(failure{&Error{Kind: KindClientGone, Err: cause}, classNever}), true
	}
	return failure{}, false
}

// judge returns what the error that do got means. What send found out stays
// true if a wrapper has made another error of it, unless that says the
// request was not sent.
func (a *attempt) judge(err error) failure {
	if a.fail.Error != nil && errors.Is(err, a.fail.Error) {
		return a.fail
	}
	if f, ok := a.blameless(a.req, err); ok {
		return f
	}
	f := classifyForeign(err)
	switch {
	case f.class == classNotSent:
	case a.fail.Error != nil:
		f = a.fail
	case a.conn == nil:
		f = failure{&Error{Kind: KindGate, Err: err}, classNever} // send was never called
	}
	return a.name(f)
}

// name puts the back end's name into the error of f.
func (a *attempt) name(f failure) failure {
	if f.Backend == "" {
		e := *f.Error
		e.Backend = a.be.ep.ID
		f.Error = &e
	}
	return f
}

func outcomeOf(f failure) outcome {
	if f.Kind.BackendFault() && !f.passing {
		return outcomeFailure
	}
	return outcomeNeutral
}

// report tells the selector and the statistics how the attempt went.
func (a *attempt) report(o outcome, took time.Duration, status int, f failure) {
	p := a.call.pool
	p.selector.report(a.peer, o, took)
	a.be.stats.done(took, status, f)
	if f.class == classStale && a.conn != nil && !a.conn.h2 {
		a.set.purge(a.conn)
	}
	if p.observer.Attempt != nil {
		p.observer.Attempt(a.call.in, Attempt{
			Target: a.be.ep.Target, Number: a.number, FailOpen: a.failOpen,
			Queue: a.timing.queue, Connect: a.timing.connect, Duration: took,
			Status: status, Err: errorOrNil(f.Error),
		})
	}
}

func errorOrNil(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

// discard gives up a response that another attempt is to replace.
func (a *attempt) discard(res *http.Response) { res.Body.Close() }

// finish gives back the connection and the place, once.
func (a *attempt) finish(mayReuse bool) {
	if !a.over.CompareAndSwap(false, true) {
		return
	}
	a.reqBody.over.Store(a.body == nil)
	if c := a.conn; c != nil {
		reusable := mayReuse && !c.h2 && c.cc.Available() > 0
		a.set.release(c, reusable)
	}
	a.call.pool.selector.end(a.peer)
	if a.cancel != nil {
		a.cancel(nil)
	}
	if a.hedge != nil {
		a.hedge(nil)
	}
}
