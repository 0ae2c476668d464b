package wsproxy

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// tunnel is an open WebSocket: two streams and two directions between them.
type tunnel struct {
	p               *Proxy
	about           about
	key             string
	client, backend side
	up, down        direction // from the client, and from the back end
	opened          int64     // by the clock of the Proxy, as all times below
	dies            int64     // when Timeouts.Lifetime ends it, 0 for never
	first           atomic.Int64
	over            sync.WaitGroup // up
	stopped         atomic.Bool    // no write may begin

	mu      sync.Mutex
	end     End
	err     error
	closing bool  // Close frames of ours are on their way in both directions
	parting int64 // when to stop waiting for the peers, 0 for not yet
	drainAt int64 // when to begin closing, 0 for never
	drain   *Drain

	busyAt int64 // when tick last saw a write under way: tick's alone
	watch  slot
}

// about is what Info says of a tunnel, without the traffic.
type about struct {
	id                      uint64
	client                  netip.Addr
	target                  *endpoint
	path, back, subprotocol string
}

// side is one of the peers.
type side struct {
	stream stream
	socket *socket      // of stream, if there is one that can be used directly
	last   atomic.Int64 // when bytes of it came last

	// Guarded by tunnel.mu.
	closeSent bool // it has got a Close frame of ours
	closeSeen bool // it has sent a Close frame, or what it sends cannot be read as frames
	ended     bool // its direction has ended: no more will be read
	gone      bool // we have closed the stream
	broken    bool // a write to it has failed
}

func newTunnel(p *Proxy, hs *Handshake, front stream, a *answer) *tunnel {
	t := &tunnel{p: p, opened: p.now()}
	t.client.init(front)
	t.backend.init(a.stream)
	t.client.last.Store(t.opened)
	t.backend.last.Store(t.opened)
	r := rules{limits: &p.cfg.Limits}
	r.extend(a.extensions)
	t.down.init(t, &t.backend, &t.client, r)
	r.masked = true
	t.up.init(t, &t.client, &t.backend, r)
	if d := p.cfg.Timeouts.Lifetime; d > 0 {
		t.dies = t.opened + int64(d) - p.random(int64(d)/10)
	}
	return t
}

func (s *side) init(stream stream) {
	s.stream = stream
	if c, ok := stream.(*connStream); ok {
		s.socket = newSocket(c.c)
	}
}

// open calls OnOpen. If that panics the tunnel ends here.
func (t *tunnel) open() {
	if t.p.cfg.OnOpen == nil {
		return
	}
	opened := false
	defer func() {
		if !opened {
			t.note(EndPanic, nil)
			t.cut()
			t.finish()
		}
	}()
	t.p.cfg.OnOpen(t.Info())
	opened = true
}

// run carries the tunnel until it has ended. It panics if OnClose does.
//
// Both goroutines that wait for an idle tunnel's bytes should have the smallest
// stack there is, 2 KiB, and a stack that had to grow to 4 KiB stays so. That
// leaves about a dozen frames between here and the system calls, so little is done
// on the way, and what is deep (hooks, allocations) is done elsewhere.
func (t *tunnel) run() {
	t.p.clock.add(t)
	t.over.Add(1)
	go t.runUp()
	t.down.run()
	t.over.Wait()
	t.finish()
}

func (t *tunnel) runUp() {
	t.up.run()
	t.over.Done()
}

// detached is run in a goroutine of its own, where nobody takes a panic.
func (t *tunnel) detached() {
	defer t.recovered()
	t.run()
}

func (t *tunnel) recovered() {
	if v := recover(); v != nil {
		t.p.cfg.Logger.Error("wsproxy: OnClose panicked", "panic", fmt.Sprint(v), "tunnel", t.about.id)
	}
}

// finish gives everything back, and tells OnClose in the end.
func (t *tunnel) finish() {
	t.p.clock.remove(t)
	t.stop()
	t.up.stop()
	t.down.stop()
	defer t.p.leave(t)
	if t.p.cfg.OnClose != nil {
		t.p.cfg.OnClose(t.stats())
	}
}

// note keeps the first reason for the end.
func (t *tunnel) note(end End, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end == 0 {
		t.end, t.err = end, err
	}
}

// endOf is the End that stands for a side that ended the tunnel.
func (t *tunnel) endOf(s *side, lost bool) End {
	switch {
	case s == &t.client && lost:
		return EndClientLost
	case s == &t.client:
		return EndClient
	case lost:
		return EndBackendLost
	}
	return EndBackend
}

// lost ends the tunnel because a stream failed. What one peer saw the other is
// to see: a cut, not an orderly end.
func (t *tunnel) lost(s *side, err error) {
	t.mu.Lock()
	gone := s.gone
	t.mu.Unlock()
	if gone {
		return // by our own hand
	}
	t.note(t.endOf(s, true), err)
	t.cut()
}

// cut aborts both streams, which makes both directions return. That does not
// wait, but for what a wrapper of a writer, or a connection of Config.Dial, does: who
// looks after other tunnels, too, has it done in a goroutine.
func (t *tunnel) cut() {
	t.mu.Lock()
	t.client.gone, t.backend.gone = true, true
	t.mu.Unlock()
	t.client.stream.Abort()
	t.backend.stream.Abort()
}

// stop closes both streams in an orderly way, which makes both directions
// return. It can take as long as a TLS alert waits for room.
func (t *tunnel) stop() {
	t.mu.Lock()
	t.client.gone, t.backend.gone = true, true
	t.mu.Unlock()
	// A write under way would hold up the end of the stream. Either it is seen
	// here, or it sees stopped.
	t.stopped.Store(true)
	for _, d := range [...]*direction{&t.up, &t.down} {
		if d.writing.Load() != 0 {
			d.to.stream.Abort()
		} else {
			d.to.stream.Close()
		}
	}
}

// shut closes the tunnel with Close frames and gives the peers time to answer.
// With Tunnel there is no place for a frame, so the streams are closed.
func (t *tunnel) shut(end End, toClient, toBackend CloseFrame) {
	t.mu.Lock()
	if t.end == 0 {
		t.end = end
	}
	if t.closing {
		t.mu.Unlock()
		return
	}
	t.closing = true
	if t.p.cfg.Mode == Tunnel {
		t.mu.Unlock()
		go t.stop()
		return
	}
	// Both are in their places before one is written: a quick answer to one
	// would otherwise take the place of the other.
	t.down.queueClose(toClient)
	t.up.queueClose(toBackend)
	t.mu.Unlock()
	t.part(t.p.cfg.Timeouts.Close)
	// A write can take long, and this is called by who must not wait.
	go t.down.flush()
	go t.up.flush()
}

// part limits the time for which the peers are waited for. A limit that is set
// already stays.
func (t *tunnel) part(limit time.Duration) {
	if limit == 0 {
		return
	}
	t.mu.Lock()
	at := t.p.now() + int64(limit)
	if t.parting == 0 {
		t.parting = at
	}
	t.mu.Unlock()
	t.p.clock.soon(t, at)
}

// isClosing reports whether Close frames of ours are on their way.
func (t *tunnel) isClosing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closing
}

// goodbye notes that s has got, or has sent, its Close frame. After both
// nothing more comes or goes, and we are the one to close: to a client because
// the server closes first (RFC 6455 section 7.1.1).
func (t *tunnel) goodbye(s *side, sent bool) {
	t.mu.Lock()
	if sent {
		s.closeSent = true
	} else {
		s.closeSeen = true
	}
	both := s.closeSent && s.closeSeen && !s.gone
	said := t.client.closeSeen && t.backend.closeSeen
	t.mu.Unlock()
	if said {
		// Nothing more is passed on, so that all there is to wait for is the
		// ends of the connections, whatever still comes before these.
		t.part(t.p.cfg.Timeouts.Close)
	}
	if both {
		t.endWrites(s)
	}
}

// endWrites ends the direction to s. Where that cannot be done alone, what s
// sends is no longer read either.
func (t *tunnel) endWrites(s *side) {
	if s.stream.halfCloses() {
		s.stream.CloseWrite() // an error shows in the reads, too
		return
	}
	t.mu.Lock()
	s.gone = true
	t.mu.Unlock()
	s.stream.Close()
}

// eof passes the orderly end of a direction on.
func (t *tunnel) eof(d *direction) {
	t.note(t.endOf(d.from, false), nil)
	t.mu.Lock()
	d.from.ended = true
	gone, broken := d.to.gone, d.from.broken
	answer := t.closing && !d.to.closeSeen // to our Close is still to come
	t.mu.Unlock()
	if broken {
		// Nothing comes from it and nothing goes to it.
		go t.stop()
		return
	}
	if half := d.to.stream.halfCloses(); !gone && (half || !answer) {
		t.endWrites(d.to)
	}
	t.p.clock.soon(t, t.p.now()) // for Timeouts.Linger
}

// broke notes that a write to s has failed. It reports whether s had said
// before that it wants no more: then this is no surprise, and what it sent last is
// still to be passed on, if that was not all.
func (t *tunnel) broke(s *side) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.broken = true
	if s.ended {
		go t.stop()
	}
	return s.closeSeen || s.ended
}

// tick looks at every limit and returns when to look again, 0 for never.
func (t *tunnel) tick(now int64) (next int64) {
	c := &t.p.cfg.Timeouts
	at := func(due int64) bool {
		if due <= now {
			return true
		}
		if next == 0 || due < next {
			next = due
		}
		return false
	}
	for _, d := range [...]*direction{&t.up, &t.down} {
		if c.WriteStall == 0 {
			break
		}
		since := d.writing.Load()
		if since == 0 {
			since = now // it may begin this moment
		}
		if at(since + int64(c.WriteStall)) {
			t.note(EndWriteStall, nil)
			go t.cut()
			return 0
		}
	}
	client, backend := t.client.last.Load(), t.backend.last.Load()
	t.mu.Lock()
	parting, drainAt, drain := t.parting, t.drainAt, t.drain
	closing := t.closing
	half := t.client.ended || t.backend.ended || t.client.closeSeen || t.backend.closeSeen
	t.mu.Unlock()
	// Looked at before a ping is put in: that is a write, too, and says nothing.
	writing := t.up.writing.Load() != 0 || t.down.writing.Load() != 0
	if c.Linger > 0 && half {
		if writing {
			t.busyAt = now // for WriteStall to judge
		}
		if at(max(client, backend, t.busyAt) + int64(c.Linger)) {
			go t.stop()
			return 0
		}
	}
	if parting > 0 && at(parting) {
		go t.stop()
		return 0
	}
	if closing {
		return next
	}
	goingAway := CloseFrame{Code: closeGoingAway}
	switch {
	case drainAt > 0 && at(drainAt):
		t.shut(EndDrained, CloseFrame{drain.Code, drain.Reason}, CloseFrame{closeGoingAway, drain.Reason})
		return now + 1
	case t.dies > 0 && at(t.dies):
		goingAway.Reason = "maximum lifetime reached"
		t.shut(EndLifetime, goingAway, goingAway)
		return now + 1
	case c.Idle > 0 && at(max(client, backend)+int64(c.Idle)):
		goingAway.Reason = "idle"
		t.shut(EndIdle, goingAway, goingAway)
		return now + 1
	}
	if c.Ping > 0 {
		for _, d := range [...]*direction{&t.up, &t.down} {
			if !d.checkPing(now, writing, at) {
				t.note(EndPong, nil)
				go t.cut()
				return 0
			}
		}
	}
	return next
}

// Info returns the tunnel as it is now.
func (t *tunnel) Info() Info {
	a, front := &t.about, "HTTP/1.1"
	if _, ok := t.client.stream.(*handlerStream); ok {
		front = "HTTP/2.0"
	}
	return Info{
		ID: a.id, Client: a.client, Path: a.path, Target: a.target.display, FrontProto: front, BackProto: a.back,
		Subprotocol: a.subprotocol, Opened: t.p.epoch.Add(time.Duration(t.opened)), FromClient: t.up.traffic(), FromBackend: t.down.traffic(),
	}
}

func (t *tunnel) stats() Stats {
	s := Stats{Info: t.Info(), Duration: time.Duration(t.p.now() - t.opened), Sent: t.down.sentClose()}
	if first := t.first.Load(); first > 0 {
		s.FirstByte = time.Duration(first - t.opened)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.End, s.Err = t.end, t.err
	return s
}
