package upstream

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// connSet is the connections to one back end, with the requests that wait for
// them. net/http makes a connection and speaks over it; which one a
// request gets, how long one lives and how many there are is decided here.
//
// No method of an http.ClientConn is called with mu held: some call the hooks
// below, which take it.
type connSet struct {
	be     *backend
	proto  protocol // what is asked for; protoTLS leaves it to ALPN
	limits Conns    // ready
	dialer *dialer

	mu       sync.Mutex
	slots    int                // requests in flight at most; 0 is no limit
	idle     []*conn            // HTTP/1.1, in the order in which they became idle
	shared   []*conn            // HTTP/2, those that take requests
	all      map[*conn]struct{} // all that are open
	trash    []*conn            // to be closed once mu is free
	inflight int                // requests that have a place, those in ready included
	probes   int                // those of inflight that are checks
	dialing  int
	wire     wire
	streams  int     // what an HTTP/2 connection was last seen to allow; new ones begin with it
	queue    waiters // for a place
	ready    waiters // have a place, wait for a connection
	seq      uint64
	draining bool // nothing is kept
	closed   error

	idleTimes idleTimes
	lastFail  time.Duration // since the pool's epoch, for refilling
	fails     uint
}

// wire is what connections turned out to speak.
type wire uint8

const (
	wireUnknown wire = iota
	wireH1
	wireH2
)

// assumedStreams is what net/http takes an HTTP/2 peer to allow until that
// has said otherwise.
const assumedStreams = 100

func newConnSet(be *backend, proto protocol, limits Conns, d *dialer) *connSet {
	s := &connSet{be: be, proto: proto, limits: limits, dialer: d, all: make(map[*conn]struct{}), streams: assumedStreams}
	switch proto {
	case protoH1:
		s.wire = wireH1
	case protoH2, protoH2C:
		s.wire = wireH2
	}
	s.setSlots(limits.MaxInFlight)
	return s
}

// setSlots sets the number of requests in flight. One that is lower than
// what is in flight already is reached as those end.
func (s *connSet) setSlots(n int) {
	s.mu.Lock()
	s.slots = n
	s.serve()
	s.unlock()
}

// unlock frees mu and closes what was thrown away.
func (s *connSet) unlock() {
	trash := s.trash
	s.trash = nil
	s.mu.Unlock()
	for _, c := range trash {
		c.close()
	}
}

// take removes a connection from the lists for one request, or returns nil.
func (s *connSet) take() *conn {
	if s.wire != wireH2 {
		now := s.be.pool.now()
		for len(s.idle) > 0 {
			var c *conn
			if s.limits.OldestFirst {
				c, s.idle = s.idle[0], s.idle[1:]
			} else {
				last := len(s.idle) - 1
				c, s.idle[last], s.idle = s.idle[last], nil, s.idle[:last]
			}
			if c.dead.Load() || s.spent(c, now) || s.tooIdle(c, now) {
				s.charge(c)
				s.discard(c, now)
				continue
			}
			c.requests++
			return c
		}
		if s.wire == wireH1 {
			return nil
		}
	}
	return s.takeStream()
}

// takeStream returns the HTTP/2 connection with the fewest streams, or nil if
// all are full. When even that one has seven tenths of its streams in use,
// another is dialled, so that it is there before they run out.
func (s *connSet) takeStream() *conn {
	var best *conn
	now := s.be.pool.now()
	for i := 0; i < len(s.shared); {
		c := s.shared[i]
		if c.dead.Load() || s.spent(c, now) {
			s.charge(c)
			s.retire(c)
			continue // with what has moved to i
		}
		if best == nil || c.streams.Load() < best.streams.Load() {
			best = c
		}
		i++
	}
	if best == nil || best.streams.Load() >= best.limit.Load() {
		return nil
	}
	n := best.streams.Add(1)
	best.requests++
	if int64(n)*10 >= int64(best.limit.Load())*7 && s.dialing == 0 && s.room() {
		s.startDial(0)
	}
	return best
}

// untake gives back a connection that was taken and could not be used.
func (s *connSet) untake(c *conn) {
	if !c.h2 {
		if c.dead.Load() {
			s.forget(c)
		}
		return
	}
	switch left := c.streams.Add(-1); {
	case c.retired:
		if left == 0 {
			s.trash = append(s.trash, c)
		}
	case c.dead.Load():
		s.retire(c)
	}
}

// spent reports whether c has reached its age or its number of requests, or is
// authenticated for one client.
func (s *connSet) spent(c *conn, now time.Duration) bool {
	return c.bound || c.expires > 0 && now >= c.expires || s.limits.MaxRequests > 0 && c.requests >= s.limits.MaxRequests
}

// tooIdle reports whether the back end may be about to close c, or we are.
func (s *connSet) tooIdle(c *conn, now time.Duration) bool {
	limit := s.idleTimes.limit(s.limits.IdleTimeout, now)
	return limit > 0 && now-c.idleSince >= limit
}

// keep puts an HTTP/1.1 connection that is free into the list of those, or
// throws it away.
func (s *connSet) keep(c *conn) {
	now := s.be.pool.now()
	if s.draining || s.closed != nil || s.spent(c, now) || len(s.idle) >= s.limits.MaxIdle && s.ready.n+s.queue.n == 0 {
		s.trash = append(s.trash, c)
		return
	}
	c.idleSince, c.dials = now, 0
	s.idle = append(s.idle, c)
}

// release ends a request: its place is free. reusable is whether its HTTP/1.1
// connection can take another.
func (s *connSet) release(c *conn, reusable bool) {
	s.mu.Lock()
	s.giveBack(c, reusable)
	s.unlock()
}

// giveBack is release with mu held.
func (s *connSet) giveBack(c *conn, reusable bool) {
	s.inflight--
	switch {
	case c.h2:
		if c.streams.Add(-1) == 0 {
			c.idleSince = s.be.pool.now()
			if c.retired {
				s.trash = append(s.trash, c)
			}
		}
	case reusable && !c.dead.Load() && !c.late.Load():
		s.keep(c)
	default:
		s.trash = append(s.trash, c)
	}
	if s.ready.n+s.queue.n > 0 {
		s.serve()
	}
}

// dialMore starts the dials that ready needs. Where a connection carries many
// requests, or may turn out to, a burst of them waits for one dial.
func (s *connSet) dialMore() {
	per := s.perConn()
	want := (s.ready.n + per - 1) / per
	if s.wire == wireUnknown {
		want = min(want, 1)
	}
	spent := 0
	if w := s.ready.first; w != nil {
		spent = w.spent
	}
	for n := want - s.dialing; n > 0 && s.room() && s.closed == nil; n-- {
		s.startDial(spent)
		spent = 0
	}
}

// startDial starts one dial. Once the Pool is closed there is none: the set is
// closed by then, and nobody waits.
func (s *connSet) startDial(spent int) {
	seq := s.seq
	if s.be.pool.goroutines.run(func() { s.dial(seq, spent) }) {
		s.dialing++
	}
}

// closedDials is how many connections are made in a row where the back end
// accepts and closes them, as one does that is being reloaded: whoever accepted
// may have been told to end meanwhile.
const closedDials = 3

// dial makes one connection, for whoever is first in line when it is there.
// It goes on if the request that caused it has gone. spent is how many of
// closedDials have been made already.
func (s *connSet) dial(seq uint64, spent int) {
	c, err := s.dialer.dial(s)
	for spent++; spent < closedDials && err != nil && err.Err == errClosedAtOnce; spent++ {
		c, err = s.dialer.dial(s)
	}
	if err != nil && err.Kind != KindClosed {
		s.be.dialFailed(err)
	}
	s.mu.Lock()
	s.dialing--
	if err != nil {
		s.lastFail, s.fails = s.be.pool.now(), min(s.fails+1, 5)
		s.fail(err, seq)
		s.serve()
		s.unlock()
		return
	}
	s.fails = 0
	if s.closed != nil {
		s.trash = append(s.trash, c)
		s.unlock()
		return
	}
	c.dials = spent
	if !s.add(c) {
		s.charge(c)
	}
	s.serve()
	// To those who come later it is one connection that has closed, or, if nobody
	// has waited for it, none.
	c.dials = min(c.dials, 1, c.requests)
	if most := s.limits.MaxIdle; len(s.idle) > most {
		// Whoever it was made for has left.
		s.trash = append(s.trash, s.idle[most:]...)
		clear(s.idle[most:])
		s.idle = s.idle[:most]
	}
	if s.draining && s.inflight == 0 {
		s.dropIdle()
	}
	s.unlock()
}

// charge takes down, for whoever is first in line, that c has closed before it
// could be used: no more than closedDials of those are made for one request.
func (s *connSet) charge(c *conn) {
	if w := s.ready.first; w != nil && c.stillborn() {
		w.spent = max(w.spent+1, c.dials)
	}
}

// giveUp fails those that have been charged with all of closedDials. It reports
// whether there were any: their places are free.
func (s *connSet) giveUp() (some bool) {
	for s.ready.n > 0 && s.ready.first.spent >= closedDials {
		w := s.ready.first
		s.ready.remove(w)
		s.inflight--
		w.serve(nil, s.closedAtOnce())
		some = true
	}
	return some
}

// add takes in a new connection. It reports false if that has closed meanwhile.
func (s *connSet) add(c *conn) bool {
	if c.dead.Load() {
		return false
	}
	s.all[c] = struct{}{}
	now := s.be.pool.now()
	c.idleSince = now
	if s.limits.MaxAge > 0 {
		c.expires = now + jitter(s.limits.MaxAge)
	}
	if c.h2 {
		s.wire = wireH2
		// Where its peer has not spoken, net/http assumes a limit. The last one
		// announced is the better guess: one stream too many would be refused.
		switch n := int(c.limit.Load()); {
		case c.known || n != assumedStreams:
			s.streams = n
		case s.streams < n:
			c.limit.Store(int32(s.streams))
		}
		s.shared = append(s.shared, c)
		return true
	}
	s.wire = wireH1
	s.idle = append(s.idle, c)
	return true
}

// closedAtOnce is the error of one whose connections the back end has closed
// before they could be used.
func (s *connSet) closedAtOnce() *Error {
	return &Error{Kind: KindDial, Backend: s.be.ep.ID, Err: errClosedAtOnce}
}

// fail tells those who waited for a dial that it has failed: for HTTP/1.1 the
// first in line, since every one has a dial of its own; for HTTP/2 all that were
// there when it began.
func (s *connSet) fail(err *Error, seq uint64) {
	for w := s.ready.first; w != nil; {
		next := w.next
		if s.wire == wireH1 || w.seq <= seq { // one that came back to the front of the line may be the younger
			s.ready.remove(w)
			s.inflight--
			w.serve(nil, err)
		}
		if s.wire == wireH1 {
			return
		}
		w = next
	}
}

// lost is called when a connection has closed, by whichever side.
func (s *connSet) lost(c *conn) {
	now := s.be.pool.now()
	s.mu.Lock()
	if _, ok := s.all[c]; !ok {
		// Still being made: whoever does that finds it dead. Or it is forgotten.
		s.unlock()
		return
	}
	if s.isIdle(c) {
		s.learn(c, now)
	}
	s.forget(c)
	s.serve()
	s.unlock()
}

// discard throws away a connection that was idle until now.
func (s *connSet) discard(c *conn, now time.Duration) {
	s.learn(c, now) // lost may be on its way here, and will not find it idle
	s.trash = append(s.trash, c)
}

// learn takes note of an idle connection, if it was the back end that closed it.
func (s *connSet) learn(c *conn, now time.Duration) {
	if c.dead.Load() && !c.ours.Load() && !c.h2 && c.requests > 0 {
		s.idleTimes.observe(now-c.idleSince, now)
	}
}

func (s *connSet) isIdle(c *conn) bool {
	for _, i := range s.idle {
		if i == c {
			return true
		}
	}
	return false
}

// forget removes c from all lists.
func (s *connSet) forget(c *conn) {
	delete(s.all, c)
	for i, o := range s.idle {
		if o == c {
			s.idle = append(s.idle[:i:i], s.idle[i+1:]...)
			break
		}
	}
	if c.h2 {
		s.retire(c)
	}
}

// retire takes an HTTP/2 connection out of use. It is closed when its last
// request is over.
func (s *connSet) retire(c *conn) {
	for i, o := range s.shared {
		if o == c {
			s.shared = append(s.shared[:i:i], s.shared[i+1:]...)
			break
		}
	}
	if c.retired {
		return
	}
	c.retired = true
	if c.streams.Load() == 0 {
		s.trash = append(s.trash, c)
	}
}

// purge throws away the connections that had been idle at least as long as one
// that turned out to be dead: what closes connections, a deployment or a sweep,
// seldom closes one.
func (s *connSet) purge(dead *conn) {
	s.mu.Lock()
	kept := s.idle[:0:0]
	for _, c := range s.idle {
		if c.idleSince <= dead.idleSince {
			s.trash = append(s.trash, c)
		} else {
			kept = append(kept, c)
		}
	}
	s.idle = kept
	s.unlock()
}

// dropIdle throws away what is not in use.
func (s *connSet) dropIdle() {
	if s.be.foreign {
		return // the one there is stands for the tripper
	}
	s.trash = append(s.trash, s.idle...)
	s.idle = nil
	for _, c := range slices.Clone(s.shared) {
		if c.streams.Load() == 0 {
			s.retire(c)
		}
	}
}

func (s *connSet) closeIdle() {
	s.mu.Lock()
	s.dropIdle()
	s.unlock()
}

// drain lets the requests that are under way end, and keeps no connection.
func (s *connSet) drain() {
	s.mu.Lock()
	s.draining = true
	s.dropIdle()
	for _, c := range slices.Clone(s.shared) {
		s.retire(c)
	}
	s.unlock()
}

// close closes every connection, whatever it does, and fails those who wait.
func (s *connSet) close(err error) {
	s.mu.Lock()
	if s.closed == nil {
		s.closed = err
	}
	for _, l := range []*waiters{&s.queue, &s.ready} {
		for l.n > 0 {
			w := l.first
			if l == &s.ready {
				s.inflight--
			}
			l.remove(w)
			w.serve(nil, &Error{Kind: KindClosed, Backend: s.be.ep.ID, Err: err})
		}
	}
	for c := range s.all {
		s.trash = append(s.trash, c)
	}
	s.idle, s.shared = nil, nil
	s.unlock()
}

// usage is a look at the set, for statistics and for those who wait until nothing
// runs. A check is nothing to wait for.
func (s *connSet) usage() (inflight, open, idle, queued int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle = len(s.idle)
	for _, c := range s.shared {
		if c.streams.Load() == 0 {
			idle++
		}
	}
	return s.inflight - s.probes, len(s.all), idle, s.queue.n + s.blocked()
}

// stateChanged is the hook of an HTTP/2 connection: streams ended, or the peer
// allows for more or fewer of them, or goes away.
func (s *connSet) stateChanged(c *conn, cc *http.ClientConn) {
	available, busy := look(cc)
	s.mu.Lock()
	switch {
	case c.dead.Load():
	case available > 0:
		limit := min(available+busy, 1<<30)
		c.limit.Store(int32(limit))
		if c.known || c.served.Load() || limit != assumedStreams {
			s.streams = limit
		}
	case busy == 0:
		// All streams are free and none may be used: it is going away.
		s.retire(c)
	case busy < int(c.limit.Load()):
		// It is going away, or allows for fewer streams than it was given.
		c.limit.Store(int32(busy))
	}
	if s.ready.n+s.queue.n > 0 {
		s.serve()
	}
	s.unlock()
}

// overfull reports, when the peer of c has refused a stream, whether c has all that
// it may have, or more. The rest is then what the peer allows: it is not for the
// connections that are being made to find that out again.
func (s *connSet) overfull(c *conn) bool {
	available, busy := look(c.cc)
	if available > 0 || busy == 0 || c.dead.Load() {
		return false
	}
	s.mu.Lock()
	c.limit.Store(min(c.limit.Load(), int32(busy)))
	s.streams = min(s.streams, busy)
	s.unlock()
	return true
}

// look returns the number of streams that a connection has free, and in use,
// at one moment if it is not too busy for that.
func look(cc *http.ClientConn) (available, busy int) {
	available = cc.Available()
	for range 4 {
		busy = cc.InFlight()
		again := cc.Available()
		if again == available {
			break
		}
		available = again
	}
	return available, busy
}
