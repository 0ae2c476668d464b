package upstream

import (
	"context"
	"net/http"
	"slices"
	"time"
)

var errHedgeLost = &hedgeLost{}

// hedgeLost is the cause of the context of an attempt that another one has
// overtaken.
type hedgeLost struct{}

func (*hedgeLost) Error() string { return "another attempt was faster" }

// result is what a hedged attempt brings.
type result struct {
	a        *attempt
	res      *http.Response
	f        failure
	panicked any // by a tripper of the user's
}

// hedged makes the first attempt of a request that may be sent to a second
// back end if that takes too long.
func (c *call) hedged() (*http.Response, failure) {
	results := make(chan result, 2)
	peer, open := c.pool.selector.pick(&c.pick)
	if peer == nil {
		return nil, failure{c.noBackend(), classNever}
	}
	start := func(a *attempt, peer *Peer, open bool) {
		req, _ := c.another(a) // it has no body, so that nothing can fail
		ctx, cancel := context.WithCancelCause(req.Context())
		req = req.WithContext(ctx)
		a.init(c, peer, open)
		a.hedge = cancel
		go func() {
			r := result{a: a}
			defer func() {
				// Here nobody could recover from it.
				r.panicked = recover()
				results <- r
			}()
			r.res, r.f = a.do(req)
		}()
	}
	start(&c.first, peer, open)
	running := []*attempt{&c.first}
	over := false
	defer func() {
		if !over {
			overtake(running, results) // a tripper or a picker has panicked, and that goes on
		}
	}()
	timer := time.NewTimer(c.pool.retry.Hedge)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			if next, ok := c.second(); ok {
				c.pool.budget.spend(c.pool.now())
				c.tries++
				a := new(attempt)
				start(a, next.peer, next.open)
				running = append(running, a)
			}
		case r := <-results:
			running = slices.DeleteFunc(running, func(a *attempt) bool { return a == r.a })
			if r.panicked != nil {
				c.at = r.a
				panic(r.panicked)
			}
			if r.res == nil && len(running) > 0 {
				continue // the other one may do better
			}
			overtake(running, results)
			over = true
			c.told(r.a, r.f)
			return c.follow(r.a, r.res, r.f)
		}
	}
}

// second chooses the back end for the hedge, if it may be sent.
func (c *call) second() (next chosen, ok bool) {
	if c.hasBegun() || c.pool.selector.binds(&c.pick, c.first.peer) {
		return next, false
	}
	c.pick.exclude(c.first.peer)
	if c.pool.retry.Attempts == 0 || !c.pool.budget.left(c.pool.now()) || !c.timeFor(&c.first, 0) {
		return next, false
	}
	next.peer, next.open = c.pool.selector.pick(&c.pick)
	return next, next.peer != nil && !c.pick.hasTried(next.peer)
}

// overtake ends the attempts that came too late. Their connections are given
// up as those of aborted requests are.
func overtake(losers []*attempt, results <-chan result) {
	for _, a := range losers {
		a.hedge(errHedgeLost)
		go func() {
			switch r := <-results; {
			case r.panicked != nil:
				r.a.abandon()
			case r.res != nil:
				r.res.Body.Close()
			}
		}()
	}
}
