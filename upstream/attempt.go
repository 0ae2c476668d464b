package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
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

	inner  *inner                  // between the tripper of Config.Wrap and send; nil if there is none
	cancel context.CancelCauseFunc // of the attempt's own context; nil if it has none
	hedge  context.CancelCauseFunc // likewise, of one that may be overtaken
	perTry *limit                  // likewise

	stalled atomic.Bool // PerTry passed while the request body was waited for

	body    io.ReadCloser // the response's
	over    atomic.Bool   // everything is given back
	verdict atomic.Uint32 // one of the constants below
	headed  time.Duration // when the response header was there
}

// What the selector has been told of an attempt.
const (
	verdictNone  = iota
	verdictOK    // that the response header is good; the body may yet break off
	verdictFinal // everything
)

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
	if a.reqBody.r != nil {
		out.Body, out.GetBody = &a.reqBody, a.call.body.getBody
	}
	if a.limited() {
		out = a.limit(out)
	}
	a.req = out

	var res *http.Response
	var err error
	if a.be.tripper == nil {
		res, err = a.send(out)
	} else {
		res, err = a.trip(out)
	}
	if a.perTry != nil && !a.perTry.met() && err == nil {
		// It came as its context was being cancelled: its body would be cut short.
		res.Body.Close()
		a.reqBody.over.Store(true)
		err = errPerTry
	}
	took := a.call.pool.now() - a.start
	if err != nil {
		f := a.judge(err)
		a.report(outcomeOf(f), took, 0, f)
		if a.hedge == nil { // else the call is held already
			a.call.hold()
		}
		a.abandon()
		return nil, f
	}
	o := outcomeOK
	switch {
	case a.body == nil || a.inner != nil && a.inner.left:
		// Config.Wrap's own answer: it was sent nowhere, or that has failed, or
		// was given up.
		o = outcomeNeutral
		if a.fail.Error != nil {
			o = outcomeOf(a.fail)
		}
	case res.StatusCode >= 502 && res.StatusCode <= 504:
		o = outcomeFailure
	}
	a.headed = a.start + took
	a.report(o, took, res.StatusCode, failure{})
	if a.over.Load() || res.StatusCode == http.StatusSwitchingProtocols {
		a.complete()
	}
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

var (
	errPerTry  = &timeoutError{"no response header in the time for one attempt"}
	errStalled = &timeoutError{"the request body did not come in the time for one attempt"}
)

// limit returns out with a context that ends when the attempt takes too long.
func (a *attempt) limit(out *http.Request) *http.Request {
	ctx, cancel := context.WithCancelCause(out.Context())
	a.cancel = cancel
	if d := a.call.pool.retry.PerTry; d > 0 {
		a.perTry = newLimit(d, func() {
			a.stalled.Store(a.reqBody.reading())
			cancel(errPerTry)
			if a.reqBody.interrupt() { // over HTTP/1.1 net/http waits for its Read
				a.stalled.Store(true) // it may have begun since
			}
		})
	}
	return out.WithContext(ctx)
}

// trip sends out through the tripper of Config.Wrap or Config.Transport.
func (a *attempt) trip(out *http.Request) (*http.Response, error) {
	a.inner = &inner{Context: out.Context(), a: a}
	out = out.WithContext(a.inner)
	a.req = out
	res, err := a.inner.trip(out)
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, errNoAnswer
	}
	if a.body == nil {
		return a.answered(res), nil
	}
	res.Body = named(res.Body, a)
	return res, nil
}

var errNoAnswer = errors.New("the tripper returned neither a response nor an error")

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
	if a.perTry != nil && a.timing.queue > 0 && !a.perTry.reset(a.perTry.d-a.timing.connect) {
		// It passed as the place came free.
		a.conn = nil
		set.release(c, !c.h2)
		return nil, a.notSent(out, &Error{Kind: KindQueueTimeout, Err: errPerTry, RetryAfter: time.Second})
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.Got1xxResponse != nil && a.call.rec == nil {
		out = a.noteInterim(out)
	}
	noBody := out.Body == nil || out.Body == http.NoBody
	if c.foreign() {
		res, err := a.tripForeign(out, noBody)
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
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c.nc, Reused: served})
	}
	ev := evidence{written: c.nc.written.Load(), read: c.nc.read.Load(), served: served, h2: c.h2}
	if !c.h2 {
		c.bindRequest(out.Header)
		if !noBody {
			out = a.tellSent(out, c.watch.bodyDone)
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
	c.bindResponse(res)
	if v := res.Header["Keep-Alive"]; v != nil {
		set.idleTimes.announce(v)
	}
	if c.tls != nil {
		res.TLS = c.tls
	}
	return a.wrap(res), nil
}

// tripForeign sends out through the tripper of Config.Transport, for which
// HeaderTimeout is kept here.
func (a *attempt) tripForeign(out *http.Request, noBody bool) (*http.Response, error) {
	var l *limit
	if d := a.call.pool.conns.HeaderTimeout; d > 0 {
		l = newLimit(d, func() { a.cancel(errHeaderTimeout) })
		if !noBody {
			l.timer.Stop() // until all of it is sent
			out = a.tellSent(out, l.again)
		}
	}
	res, err := a.be.base.RoundTrip(out)
	if err == nil && res == nil {
		err = errNoAnswer
	}
	if l != nil && !l.met() && err == nil {
		res.Body.Close()
		err = errHeaderTimeout
	}
	return res, err
}

// noteInterim takes down that the caller is told of an interim response. A
// Proxy does so itself.
func (a *attempt) noteInterim(out *http.Request) *http.Request {
	c := a.call
	if t := httptrace.ContextClientTrace(c.in.Context()); t == nil || t.Got1xxResponse == nil {
		return out // the hook is one of Config.Wrap's
	}
	return out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code != http.StatusContinue {
				c.begun.Store(true)
			}
			return nil // the caller's own hook has the say
		},
	}))
}

// wrap makes the attempt the response's body.
func (a *attempt) wrap(res *http.Response) *http.Response {
	if res.Body == nil {
		res.Body = http.NoBody // a tripper of the user's left it out
	}
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
	if a.stalled.Load() { // which may have ended the caller's context
		return a.name(failure{&Error{Kind: KindClientBody, Err: errStalled, status: http.StatusRequestTimeout}, classNever}), true
	}
	if ctx := a.call.in.Context(); contextEnd(ctx) != nil {
		return failure{contextError(ctx, a.be.ep.ID), classNever}, true
	}
	if a.call.pool.ctx.Err() != nil {
		return a.name(failure{&Error{Kind: KindClosed, Err: errPoolClosed, sent: a.conn != nil}, classNever}), true
	}
	if berr := a.call.body.failure(); berr != nil {
		if e, ok := errors.AsType[*Error](berr); ok {
			return failure{e, classNever}, true
		}
		return a.name(failure{&Error{Kind: KindClientBody, Err: berr}, classNever}), true
	}
	// A limit of ours, or one that a tripper of Config.Wrap has set.
	end, cause := contextEnd(req.Context()), context.Cause(req.Context())
	if cause == nil {
		cause = end
	}
	switch {
	case end == nil:
		return failure{}, false
	case !isTimeout(end) && !isTimeout(cause):
		return a.name(failure{&Error{Kind: KindClientGone, Err: cause}, classNever}), true
	case a.conn == nil:
		return failure{}, false // it went by before there was a connection
	}
	return a.name(failure{&Error{Kind: KindHeaderTimeout, Err: cause}, classTimeout}), true
}

// judge returns what the error that do got means. What send found out stays
// true if a wrapper has made another error of it, unless that says the
// request was not sent.
func (a *attempt) judge(err error) failure {
	if a.fail.Error != nil && errors.Is(err, a.fail.Error) && !a.stalled.Load() {
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
	verdict := uint32(verdictFinal)
	if o == outcomeOK {
		verdict = verdictOK
	}
	// A wrapper may have read the body already, and met its early end.
	if a.verdict.CompareAndSwap(verdictNone, verdict) {
		p.selector.report(a.peer, o, took)
	}
	a.be.stats.done(took, status, f)
	if f.class == classStale && a.conn != nil && !a.conn.h2 {
		a.set.purge(a.conn)
	}
	if p.observer.Attempt != nil {
		p.observer.Attempt(a.call.in, Attempt{
			Target: a.be.target.Load().Target, Number: a.number, FailOpen: a.failOpen,
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

// abandon ends an attempt whose response nobody gets.
func (a *attempt) abandon() {
	if a.perTry != nil {
		a.perTry.met() // what it may end is the caller's again after that
	}
	if a.body != nil && !a.over.Load() {
		a.body.Close()
	}
	a.finish(false)
}

// discard gives up a response that another attempt is to replace.
func (a *attempt) discard(res *http.Response) { res.Body.Close() }

// finish gives back the connection and the place, once.
func (a *attempt) finish(mayReuse bool) {
	if !a.over.CompareAndSwap(false, true) {
		return
	}
	if a.body == nil {
		a.reqBody.over.Store(true) // and never back: handOver may have set it
	}
	if c := a.conn; c != nil {
		reusable := mayReuse && !c.h2 && c.cc.Available() > 0
		a.set.release(c, reusable)
	} else if a.reqBody.r != nil {
		a.reqBody.Close() // nobody else does
	}
	a.call.pool.selector.end(a.peer)
	if a.cancel != nil {
		a.cancel(nil)
	}
	if a.inner != nil && a.inner.cancel != nil {
		a.inner.cancel(nil)
	}
	if a.hedge != nil {
		a.hedge(nil)
	}
}
