package upstream

import (
	"slices"
	"sync/atomic"
	"time"
)

// watch sees to HeaderTimeout for one HTTP/1.1 connection. The exchange only
// sets flags; the sweep looks at them now and then, which costs a request far
// less than a timer of its own.
type watch struct {
	waiting atomic.Bool   // for a response header
	sent    atomic.Bool   // the request body has been handed over, or there is none
	turn    atomic.Uint32 // which exchange it is

	// The sweep's own.
	seenTurn    uint32
	seenWritten int64
	since       time.Duration
}

// begin is called before a request is written, end when its response is there
// or will not be.
func (w *watch) begin(noBody bool) {
	w.sent.Store(noBody)
	w.turn.Add(1)
	w.waiting.Store(true)
}

func (w *watch) bodyDone() { w.sent.Store(true) }

func (w *watch) end() { w.waiting.Store(false) }

// overdue reports whether the back end had the turn for limit: after it has
// taken the whole request, or while it does not take more of it. A client that is
// slow to send its body is not the back end's fault. What the back end sends
// meanwhile, interim responses or a part of a header, gains it no time.
func (w *watch) overdue(nc *netConn, now, limit time.Duration) bool {
	if !w.waiting.Load() {
		return false
	}
	written := nc.written.Load()
	turn := w.turn.Load()
	if turn != w.seenTurn || written != w.seenWritten || !w.sent.Load() && !nc.writing.Load() {
		w.seenTurn, w.seenWritten, w.since = turn, written, now
		return false
	}
	return now-w.since >= limit
}

// sweepInterval is how often connections are looked at.
func sweepInterval(c Conns) time.Duration {
	d := time.Second
	for _, limit := range []time.Duration{c.HeaderTimeout, c.IdleTimeout, c.MaxAge} {
		if limit > 0 {
			d = min(d, limit/16)
		}
	}
	return max(d, 5*time.Millisecond)
}

// sweep closes what has been idle too long, is too old or has kept a request
// waiting for too long, and makes connections up to MinIdle.
func (s *connSet) sweep() {
	if s.be.foreign {
		return
	}
	now := s.be.pool.now()
	var late []*conn
	s.mu.Lock()
	limit := s.idleTimes.limit(s.limits.IdleTimeout, now)
	s.idle = slices.DeleteFunc(s.idle, func(c *conn) bool {
		if c.dead.Load() || s.spent(c, now) || limit > 0 && now-c.idleSince >= limit {
			s.discard(c, now)
			return true
		}
		return false
	})
	for _, c := range slices.Clone(s.shared) {
		idle := c.streams.Load() == 0 && limit > 0 && now-c.idleSince >= limit && s.limits.MinIdle == 0
		if c.dead.Load() || s.spent(c, now) || idle {
			s.retire(c)
		}
	}
	if s.wire != wireH2 && s.limits.HeaderTimeout > 0 {
		for c := range s.all {
			if !c.h2 && c.watch.overdue(c.nc, now, s.limits.HeaderTimeout) {
				c.late.Store(true) // no other request gets it, should the response come now
				late = append(late, c)
			}
		}
	}
	s.refill(now)
	s.unlock()
	for _, c := range late {
		c.close()
	}
}

// refill dials up to MinIdle, and not at once again where that fails.
func (s *connSet) refill(now time.Duration) {
	if s.limits.MinIdle == 0 || s.draining || s.closed != nil || s.fails > 0 && now-s.lastFail < time.Second<<s.fails {
		return
	}
	have := len(s.idle) + s.dialing
	if s.wire == wireH2 {
		have = len(s.shared) + s.dialing
	}
	want := s.limits.MinIdle
	if s.wire != wireH1 {
		want = 1 // more of them once it is known what they speak
	}
	for ; have < want && s.room(); have++ {
		s.startDial(0)
	}
}
