package upstream

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// inner is the context of a request on its way through the tripper of
// Config.Wrap, in which innermost finds the attempt. It allows for one call of
// that, and sees to it that the call has ended when the tripper of Config.Wrap
// has returned: connection and place cannot be given back under a call that runs.
type inner struct {
	context.Context
	a *attempt

	mu     sync.Mutex
	state  innerState
	call   context.Context // of the call; nil if there was none
	cancel context.CancelCauseFunc
	ended  chan struct{} // made by leave if it has to wait for the end of the call
	left   bool          // the call was given up
}

type innerState uint8

const (
	innerOpen innerState = iota
	innerRuns
	innerOver // it has returned, or may not begin any more
)

// innerKey is the context key of inner.
type innerKey struct{}

// Value implements context.Context.
func (in *inner) Value(key any) any {
	if key == (innerKey{}) {
		return in
	}
	return in.Context.Value(key)
}

var errWrapLeft = errors.New("the tripper of Config.Wrap has returned")

// trip calls the tripper of Config.Wrap.
func (in *inner) trip(out *http.Request) (*http.Response, error) {
	defer in.leave()
	return in.a.be.tripper.RoundTrip(out)
}

// leave is called when that has returned, or has panicked. A call that still runs
// is cancelled, and what it brings is given up: nobody waits for it.
func (in *inner) leave() {
	in.mu.Lock()
	runs := in.state == innerRuns
	if runs {
		in.ended = make(chan struct{})
	} else {
		in.state = innerOver
	}
	in.mu.Unlock()
	if !runs {
		return
	}
	in.cancel(errWrapLeft)
	if in.a.perTry != nil {
		in.a.perTry.met() // else it may do the same at this moment
	}
	in.a.reqBody.interrupt() // over HTTP/1.1 net/http waits for its Read
	<-in.ended
	a := in.a
	in.left, a.fail = true, failure{} // which was about our cancelling
	if a.body != nil {
		a.body.Close()
		a.finish(false)
	}
}

// begin is called before the call, end after it. begin reports false if there may
// be no call, and returns its context otherwise.
func (in *inner) begin(ctx context.Context) (context.Context, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state != innerOpen {
		return nil, false
	}
	in.state = innerRuns
	in.call, in.cancel = context.WithCancelCause(ctx) // for the response's body too: finish cancels it
	return in.call, true
}

func (in *inner) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.state = innerOver
	if in.ended != nil {
		close(in.ended)
	}
}

// innermost is what Config.Wrap wraps.
type innermost struct{ be *backend }

var errTwice = errors.New("upstream: the tripper given to Config.Wrap was called twice, too late, or without the request's context")

// RoundTrip implements http.RoundTripper.
func (t innermost) RoundTrip(req *http.Request) (*http.Response, error) {
	in, _ := req.Context().Value(innerKey{}).(*inner)
	if in != nil && in.a.be == t.be {
		if ctx, ok := in.begin(req.Context()); ok {
			defer in.end()
			return in.a.send(req.WithContext(ctx))
		}
	}
	if req.Body != nil {
		req.Body.Close()
	}
	return nil, errTwice
}

// CloseIdleConnections lets http.Client's method of that name through.
func (t innermost) CloseIdleConnections() { t.be.closeIdle() }
