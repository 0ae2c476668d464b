package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// call is one request on its way through the Pool: its attempts and what they
// have in common. The first attempt is part of it, and it is part of what it is
// for, so that a request that needs no second attempt costs no allocation here.
type call struct {
	pool  *Pool
	in    *http.Request // as it was given
	owned bool          // in is the Pool's to change
	rec   *record       // nil if nobody wants to know
	start time.Duration
	host  string // in.Host as it was given
	pick  Pick
	body  replay
	tries int         // attempts that were made
	begun atomic.Bool // the caller has been told of an interim response
	held  bool
	at    *attempt // the one that this goroutine makes
	first attempt
}

// callCopy is a call with room for the copy of a request that is not ours.
type callCopy struct {
	call
	req http.Request
	url url.URL
}

// timing is what one attempt spent before its request was written.
type timing struct {
	queue, connect time.Duration
}

// waited takes down a wait that ended with c, or with nil.
func (t *timing) waited(d time.Duration, c *conn) {
	if c != nil && !c.served.Load() && !c.foreign() {
		t.connect += min(d, c.dialTime)
		d -= min(d, c.dialTime)
	}
	t.queue += d
}

// roundTrip sends req to one back end, or to several one after the other. It
// sends out, which is a copy of req if that is not the Pool's to change, and
// else req itself.
func (c *call) roundTrip(p *Pool, req, out *http.Request, rec *record) (*http.Response, error) {
	c.pool, c.in, c.owned, c.rec, c.host = p, req, out == req, rec, req.Host
	c.start = p.now()
	keep := 0
	if p.retry.Attempts > 0 {
		keep = p.retry.Body
	}
	c.body.init(req, keep, rec)
	over := false
	defer func() {
		if c.held {
			p.held.Add(-1)
		}
		if !over {
			c.abandon() // a hook or a tripper has panicked, and that goes on
		}
	}()
	if p.key != nil {
		c.pick.Key, c.pick.HasKey = p.key(req)
	}
	p.selector.bind(&c.pick, req.Header)
	p.budget.count(c.start)

	var res *http.Response
	var f failure
	if p.retry.Hedge > 0 && c.body.src == nil && p.retry.idempotent(req) {
		c.hold() // it has several goroutines
		res, f = c.hedged()
	} else {
		res, f = c.run(out)
	}
	over = true
	if f.Error != nil {
		c.body.drop()
		if rec != nil {
			rec.Backend, rec.Attempts = f.Backend, c.tries
		}
		return nil, f.Error
	}
	return res, nil
}

// hold lets Shutdown know of a request that is about to have no back end for a
// while. It is until the end of roundTrip, when a back end has it again.
func (c *call) hold() {
	if !c.held {
		c.held = true
		c.pool.held.Add(1)
	}
}

// abandon closes both sides.
func (c *call) abandon() {
	if c.at != nil {
		c.at.abandon()
	}
	c.body.drop()
}

// refuse closes the body of a request that cannot be sent to any back end, and
// returns why it cannot.
func (p *Pool) refuse(req *http.Request) error {
	err := p.unfit(req)
	if err != nil && req.Body != nil {
		req.Body.Close()
	}
	return err
}

// unfit returns why req cannot be sent to any back end, or nil.
func (p *Pool) unfit(req *http.Request) error {
	var why string
	switch {
	case p.closed.Load():
		return &Error{Kind: KindClosed, Err: errPoolClosed}
	case req.URL == nil:
		why = "nil Request.URL"
	case req.Header == nil:
		why = "nil Request.Header"
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		why = "the URL's scheme is neither http nor https"
	case req.URL.Host == "":
		why = "no host in Request.URL"
	case p.hosts != nil && !slices.Contains(p.hosts, req.URL.Host):
		why = "the host is not one of Config.Hosts"
	default:
		return nil
	}
	return &Error{Kind: KindPolicy, Err: errors.New(why)}
}

// run makes the first attempt, and those that follow from it.
func (c *call) run(out *http.Request) (*http.Response, failure) {
	a := &c.first
	peer, open := c.pool.selector.pick(&c.pick)
	if peer == nil {
		return nil, failure{c.noBackend(), classNever}
	}
	a.init(c, peer, open)
	c.at = a
	res, f := a.do(out)
	c.told(a, f)
	return c.follow(a, res, f)
}

// follow makes attempts until one succeeds or no other is allowed.
func (c *call) follow(a *attempt, res *http.Response, f failure) (*http.Response, failure) {
	for {
		c.at = a
		next, wait, again := c.again(a, res, f)
		if !again {
			if res != nil {
				return c.deliver(a, res)
			}
			return nil, f
		}
		c.hold()
		if res != nil {
			a.discard(res)
		}
		if err := c.pause(wait, &next); err != nil {
			return nil, failure{err, classNever}
		}
		if !next.free {
			c.pool.budget.spend(c.pool.now())
		}
		a = new(attempt)
		out, err := c.another(a)
		if err != nil {
			return nil, failure{&Error{Kind: KindClientBody, Err: err}, classNever}
		}
		a.init(c, next.peer, next.open)
		c.at = a
		res, f = a.do(out)
		c.told(a, f)
	}
}

// deliver gives up the request body and hands the response out.
func (c *call) deliver(a *attempt, res *http.Response) (*http.Response, failure) {
	res.Request = c.in
	if res.Header == nil {
		res.Header = make(http.Header) // a tripper of the user's left it out
	}
	c.pool.selector.bound(&c.pick, a.peer, res.Header)
	c.body.settle(&a.reqBody)
	if c.rec != nil {
		c.rec.Backend, c.rec.Attempts, c.rec.FailOpen = a.be.ep.ID, c.tries, a.failOpen
		c.rec.Queue, c.rec.Connect = c.rec.Queue+a.timing.queue, c.rec.Connect+a.timing.connect
	}
	return res, failure{}
}

// told sums up an attempt that may not be the last.
func (c *call) told(a *attempt, f failure) {
	c.tries++
	if f.Error != nil && c.rec != nil {
		c.rec.FailOpen = a.failOpen
		c.rec.Queue, c.rec.Connect = c.rec.Queue+a.timing.queue, c.rec.Connect+a.timing.connect
	}
}

func (c *call) noBackend() *Error {
	if c.pool.closed.Load() {
		return &Error{Kind: KindClosed, Err: errPoolClosed}
	}
	return &Error{Kind: KindNoBackend, RetryAfter: time.Second}
}

// hasBegun reports whether an informational response has gone to the caller or the
// client: the request is then sent to nobody else.
func (c *call) hasBegun() bool {
	return c.begun.Load() || c.rec != nil && c.rec.begun.Load()
}

// another makes the request for one more attempt. The one before may still be
// in the hands of net/http, so that nothing of it is changed.
func (c *call) another(a *attempt) (*http.Request, error) {
	req := *c.in
	u := *c.in.URL
	req.URL = &u
	req.Host = c.host
	if c.body.src != nil {
		if err := c.body.next(&a.reqBody); err != nil {
			return nil, err
		}
	}
	if v := req.Header["Grpc-Timeout"]; len(v) > 0 {
		if deadline, ok := req.Context().Deadline(); ok {
			req.Header = req.Header.Clone()
			req.Header["Grpc-Timeout"] = []string{formatGRPCTimeout(time.Until(deadline))}
		}
	}
	return c.rec.counted(&req), nil
}

// pause waits for d before the attempt at next, which it chooses anew: a lot may
// happen meanwhile. The error says why there is to be no such attempt.
func (c *call) pause(d time.Duration, next *chosen) *Error {
	ctx, id := c.in.Context(), c.at.be.ep.ID
	if d <= 0 {
		if ctx.Err() != nil {
			return contextError(ctx, id)
		}
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return contextError(ctx, id)
	case <-c.pool.ctx.Done():
		return &Error{Kind: KindClosed, Backend: id, Err: errPoolClosed, sent: true}
	}
	if next.peer, next.open = c.pool.selector.pick(&c.pick); next.peer == nil {
		return &Error{Kind: KindNoBackend, RetryAfter: time.Second}
	}
	return nil
}
