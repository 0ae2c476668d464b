package upstream

import (
	"context"
	"time"
)

// slotFree reports whether one more request may be in flight, of which a check is
// none. An HTTP/1.1 connection carries one, so that MaxConns bounds these as well.
func (s *connSet) slotFree() bool {
	if s.slots > 0 && s.inflight-s.probes >= s.slots {
		return false
	}
	return s.wire == wireH2 || s.limits.MaxConns == 0 || s.inflight < s.limits.MaxConns
}

// room reports whether one more connection may be made.
func (s *connSet) room() bool {
	return s.limits.MaxConns == 0 || len(s.all)+s.dialing < s.limits.MaxConns
}

// acquire returns a connection that takes one more request. The caller has a
// place from then on, until release or abandon.
func (s *connSet) acquire(ctx context.Context, t *timing) (*conn, *Error) {
	s.mu.Lock()
	if s.closed != nil {
		s.mu.Unlock()
		return nil, &Error{Kind: KindClosed, Backend: s.be.ep.ID, Err: s.closed}
	}
	var c *conn
	spent := 0
	if s.queue.n == 0 && s.ready.n == 0 && s.slotFree() {
		if c = s.take(); c != nil {
			s.inflight++
		}
	}
	if c == nil {
		w, err := s.enqueue()
		s.unlock()
		if err != nil {
			return nil, err
		}
		if c, err = s.wait(ctx, w, t); err != nil {
			return nil, err
		}
		spent = w.spent
	} else {
		s.unlock()
	}
	return s.use(ctx, c, t, spent)
}

// use returns c, or another connection if c has closed or filled up since it was
// given away.
func (s *connSet) use(ctx context.Context, c *conn, t *timing, spent int) (*conn, *Error) {
	for {
		if c.usable() {
			return c, nil
		}
		// It died or filled up meanwhile. The place stays, and so does the
		// turn, unless the back end closes whatever is dialled, or the Pool is
		// closed: nobody is served then.
		s.mu.Lock()
		if c.stillborn() {
			spent++
		}
		s.untake(c)
		var err *Error
		switch {
		case s.closed != nil:
			err = &Error{Kind: KindClosed, Backend: s.be.ep.ID, Err: s.closed}
		case spent >= closedDials:
			err = s.closedAtOnce()
		}
		if err != nil {
			s.inflight--
			s.serve()
			s.unlock()
			return nil, err
		}
		if c = s.take(); c == nil {
			w := s.newWaiter()
			w.spent = spent
			s.ready.pushFront(w)
			s.dialMore()
			s.unlock()
			if c, err = s.wait(ctx, w, t); err != nil {
				return nil, err
			}
			spent = w.spent
			continue
		}
		s.unlock()
	}
}

func (s *connSet) newWaiter() *waiter {
	s.seq++
	return &waiter{ready: make(chan struct{}), seq: s.seq}
}

// enqueue puts a new request into line, or says that the line is full.
func (s *connSet) enqueue() (*waiter, *Error) {
	w := s.newWaiter()
	if !s.slotFree() || s.queue.n > 0 {
		if s.queue.n+s.blocked() >= s.limits.Queue {
			return nil, s.full()
		}
		s.queue.pushBack(w)
		return w, nil
	}
	s.ready.pushBack(w)
	s.inflight++
	s.dialMore()
	if n := s.blocked(); n > 0 && n > s.limits.Queue {
		s.ready.remove(w)
		s.inflight--
		return nil, s.full()
	}
	return w, nil
}

func (s *connSet) full() *Error {
	return &Error{Kind: KindQueueFull, Backend: s.be.ep.ID, RetryAfter: time.Second}
}

// perConn is how many requests a connection that is being made will take.
func (s *connSet) perConn() int {
	if s.wire == wireH1 {
		return 1
	}
	return max(1, s.streams)
}

// blocked is the number of requests in ready that no connection under way will
// serve, because MaxConns does not allow for one.
func (s *connSet) blocked() int { return max(0, s.ready.n-s.dialing*s.perConn()) }

// wait waits for what was enqueued.
func (s *connSet) wait(ctx context.Context, w *waiter, t *timing) (*conn, *Error) {
	start := time.Now()
	var timeout <-chan time.Time
	var timer *time.Timer
	if d := s.limits.QueueTimeout; d > 0 {
		timer = time.NewTimer(d)
		timeout = timer.C
		defer timer.Stop()
	}
	for {
		select {
		case <-w.ready:
			t.waited(time.Since(start), w.conn)
			return w.conn, w.err
		case <-ctx.Done():
			// For the caller's context, whoever called knows better.
			e := &Error{Kind: KindQueueTimeout, Backend: s.be.ep.ID, Err: context.Cause(ctx), RetryAfter: time.Second}
			if s.leave(w) {
				e.Kind, e.RetryAfter = KindDial, 0
			}
			return nil, e
		case <-timeout:
			s.mu.Lock()
			if w.in == nil || w.in == &s.ready && s.dialing > 0 {
				// It is served, or waits for a dial, which has its own limit.
				timer.Reset(s.limits.QueueTimeout)
				s.mu.Unlock()
				continue
			}
			s.mu.Unlock()
			s.leave(w)
			return nil, &Error{Kind: KindQueueTimeout, Backend: s.be.ep.ID, RetryAfter: time.Second}
		}
	}
}

// leave takes a request out of line that will not wait any longer. It reports
// whether it was a dial that it waited for.
func (s *connSet) leave(w *waiter) (dialing bool) {
	s.mu.Lock()
	dialing = w.in == &s.ready && s.dialing > 0
	switch w.in {
	case &s.queue:
		s.queue.remove(w)
	case &s.ready:
		s.ready.remove(w)
		s.inflight--
	default: // served at this moment
		dialing = w.err != nil && w.err.Kind.BackendFault()
		if w.conn != nil {
			s.inflight--
			s.untake(w.conn)
			if !w.conn.h2 && !w.conn.dead.Load() {
				s.keep(w.conn)
			}
		}
	}
	s.serve()
	s.unlock()
	return dialing
}

// serve gives places and connections to those who wait, in their order, and
// dials for the rest.
func (s *connSet) serve() {
	for again := true; again; again = s.giveUp() {
		for s.queue.n > 0 && s.slotFree() {
			w := s.queue.first
			s.queue.remove(w)
			s.ready.pushBack(w)
			s.inflight++
		}
		for s.ready.n > 0 {
			c := s.take()
			if c == nil {
				break
			}
			w := s.ready.first
			s.ready.remove(w)
			w.spent = max(w.spent, c.dials-1)
			w.serve(c, nil)
		}
	}
	s.dialMore()
}
