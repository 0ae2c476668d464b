package upstream

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// limit ends an attempt that has no response when its time has passed.
// Whichever of the two comes first has the say: a response that is delivered is
// not cut short, and one that came too late is not delivered.
type limit struct {
	d     time.Duration
	timer *time.Timer
	state atomic.Uint32
	end   func()        // ends the attempt
	ended chan struct{} // closed when end has returned
}

const (
	limitRuns = iota
	limitMet
	limitPassed
)

// newLimit begins a limit of d.
func newLimit(d time.Duration, end func()) *limit {
	l := &limit{d: d, end: end, ended: make(chan struct{})}
	l.timer = time.AfterFunc(d, func() {
		if l.state.CompareAndSwap(limitRuns, limitPassed) {
			defer close(l.ended)
			l.end()
		}
	})
	return l
}

// again begins the limit anew. Whoever reads the request body calls it, which may
// go on after the response has begun.
func (l *limit) again() {
	if l.state.Load() == limitRuns {
		l.timer.Reset(l.d)
	}
}

// reset makes d what is left of a limit that runs. It reports false if the time
// has passed.
func (l *limit) reset(d time.Duration) bool { return l.timer.Stop() && !l.timer.Reset(d) }

// met ends the limit. It reports false if the time had passed, and end has
// returned then.
func (l *limit) met() bool {
	l.timer.Stop()
	if l.state.CompareAndSwap(limitRuns, limitMet) || l.state.Load() == limitMet {
		return true
	}
	<-l.ended
	return false
}

// tellSent has done called when the body of out has been read to its end. It
// returns the request to send.
func (a *attempt) tellSent(out *http.Request, done func()) *http.Request {
	if out.Body == &a.reqBody {
		a.reqBody.done = done
		return out
	}
	// A tripper of Config.Wrap has put its own there, and may have read ours
	// long ago, or may be reading it.
	out = out.WithContext(out.Context())
	out.Body = &toldBody{out.Body, done}
	return out
}

// toldBody is a request body that calls done at its end.
type toldBody struct {
	io.ReadCloser
	done func()
}

func (b *toldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done()
	}
	return n, err
}
