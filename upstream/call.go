package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// call is one request on its way through the Pool: its attempts and what they
// have in common. The first attempt is part of it, so that a request that
// needs no second one costs one allocation here.
type call struct {
	pool  *Pool
	in    *http.Request // as it was given
	owned bool          // in is the Pool's to change
	rec   *record       // nil if nobody wants to know
	start time.Duration
	host  string // in.Host as it was given
	pick  Pick
	body  replay
	tries int // attempts that were made
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

// roundTrip sends req to one back end, or to several one after the other.
func (p *Pool) roundTrip(req *http.Request, owned bool, rec *record) (*http.Response, error) {
	if err := p.refuse(req); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	var c *call
	var out *http.Request
	if owned {
		c, out = new(call), req
	} else {
		cc := &callCopy{req: *req, url: *req.URL}
		cc.req.URL = &cc.url
		c, out = &cc.call, &cc.req
	}
	c.pool, c.in, c.owned, c.rec, c.host = p, req, owned, rec, req.Host
	c.start = p.now()
	keep := 0
	if p.retry.Attempts > 0 {
		keep = p.retry.Body
	}
	c.body.init(req, keep)
	if p.key != nil {
		c.pick.Key, c.pick.HasKey = p.key(req)
	}
	p.selector.bind(&c.pick, req.Header)
	p.budget.count(c.start)

	var res *http.Response
	var f failure
	if p.retry.Hedge > 0 && c.body.src == nil && p.retry.idempotent(req) {
		res, f = c.hedged()
	} else {
		res, f = c.run(out)
	}
	if f.Error != nil {
		c.body.drop()
		if rec != nil {
			rec.Backend, rec.Attempts = f.Backend, c.tries
		}
		return nil, f.Error
	}
	return res, nil
}

// refuse returns why req cannot be sent to any back end, or nil.
func (p *Pool) refuse(req *http.Request) error {
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
	res, f := a.do(out)
	c.told(a, f)
	return c.follow(a, res, f)
}

// follow makes attempts until one succeeds or no other is allowed.
func (c *call) follow(a *attempt, res *http.Response, f failure) (*http.Response, failure) {
	for {
		next, wait, again := c.again(a, res, f)
		if !again {
			if res != nil {
				return c.deliver(a, res)
			}
			return nil, f
		}
		if res != nil {
			a.discard(res)
		}
		if !pause(c.in.Context(), wait) {
			return nil, failure{contextError(c.in.Context(), a.be.ep.ID), classNever}
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
		res, f = a.do(out)
		c.told(a, f)
	}
}

// deliver gives up the request body and hands the response out.
func (c *call) deliver(a *attempt, res *http.Response) (*http.Response, failure) {
	res.Request = c.in
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
	return &req, nil
}

// pause waits for d. It reports false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
