package wsproxy

import (
	"cmp"
	"sync"
	"sync/atomic"
)

// direction passes what one side sends on to the other. The goroutine that
// reads and those that put frames of ours in take turns to write: who has set
// busy may write and may use the tracker, and hands over at the boundary of a
// frame.
type direction struct {
	t        *tunnel
	from, to *side

	writing atomic.Int64  // since when a write is under way, 0 for none
	pinged  atomic.Int64  // when the last ping of ours here was written, 0 if it was not
	pong    atomic.Uint64 // the ping that from has been sent and not yet answered

	mu      sync.Mutex
	free    sync.Cond // busy has become false
	pending []byte    // frames of ours that wait for a boundary
	busy    bool
	closing bool // pending has a Close, or one was written
	closed  bool // it was written
	pings   bool // pending has a ping
	sent    *CloseFrame
	shown   Traffic // as of the last release

	// The holder of busy has these.
	tracker tracker
	hold    []byte // the beginning of a frame that cannot be judged yet
	muted   bool   // nothing more may be written
	deaf    bool   // what comes is not read as frames any more, and not passed on
	masked  bool   // frames of ours have a mask here, since they go to a back end; never changes
	raw     bool   // bytes without frames: Tunnel; never changes
	stuck   bool   // the clock's, and here for its place: see checkPing
	bytes   uint64
	spliced uint64
	at      int64 // the time, where it was just asked for

	// The clock has these: the ping that waits for an answer.
	asked      int64 // when it was put in, 0 for none
	askedBytes uint64
}

func (d *direction) init(t *tunnel, from, to *side, r rules) {
	d.t, d.from, d.to = t, from, to
	d.masked = to == &t.backend
	d.tracker.rules = r
	d.free.L = &d.mu
	d.raw = t.p.cfg.Mode == Tunnel
}

// acquire waits for the right to write. It reports whether it had it at once.
func (d *direction) acquire() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	free := !d.busy
	for d.busy {
		d.free.Wait()
	}
	d.busy = true
	return free
}

// release gives the right back, after it has written the frames that were put in
// meanwhile, if there is a place for them.
func (d *direction) release() {
	for {
		d.mu.Lock()
		d.shown = Traffic{
			Bytes: d.bytes, Spliced: d.spliced, Frames: d.tracker.frames,
			Messages: d.tracker.messages, Pings: d.tracker.pings, Close: d.shown.Close,
		}
		if d.pending == nil || d.tracker.left > 0 {
			d.busy = false
			d.free.Signal()
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		d.writePending()
	}
}

// writePending writes the frames of ours. busy is held, at a boundary.
func (d *direction) writePending() {
	d.at = 0
	d.mu.Lock()
	frames, closing, pings := d.pending, d.closing, d.pings
	d.pending, d.pings = nil, false
	d.mu.Unlock()
	if frames == nil || d.muted {
		return
	}
	d.write(frames)
	if d.muted {
		return
	}
	if pings {
		d.pinged.Store(d.t.p.now())
	}
	if closing {
		d.muted = true
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.t.goodbye(d.to, true)
	}
}

// write writes b unless d is muted. If that fails d is muted, and the tunnel is
// cut where that must be. busy is held.
func (d *direction) write(b []byte) {
	if d.muted || len(b) == 0 {
		return
	}
	if !d.begin() {
		return
	}
	var err error
	if s := d.to.socket; s != nil {
		err = s.write(d.t.p, b)
	} else {
		_, err = d.to.stream.Write(b)
	}
	d.writing.Store(0)
	if err != nil {
		d.failed(err)
	}
}

// begin notes that a write begins. It reports false if none may any more.
func (d *direction) begin() bool {
	at := d.at
	if d.at = 0; at == 0 {
		at = d.t.p.now()
	}
	d.writing.Store(at)
	if d.t.stopped.Load() {
		d.writing.Store(0)
		d.muted = true
		return false
	}
	return true
}

// failed deals with a write to a side that failed.
func (d *direction) failed(err error) {
	d.muted = true
	if d.t.broke(d.to) {
		d.t.part(d.t.p.cfg.Timeouts.Linger)
		return
	}
	d.t.lost(d.to, err)
}

// flush writes the frames that were put in, unless someone else will: the holder
// of busy looks again before it releases, and within a frame the reader will get
// to the boundary.
func (d *direction) flush() {
	d.mu.Lock()
	if d.busy || d.tracker.left > 0 {
		d.mu.Unlock()
		return
	}
	d.busy = true
	d.mu.Unlock()
	d.release()
}

// queueClose puts a Close frame in, after which nothing follows. The caller has
// it flushed.
func (d *direction) queueClose(f CloseFrame) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing || !d.busy && d.muted {
		return
	}
	d.closing, d.sent = true, &f
	d.pending = append(d.pending, appendClose(nil, d.masked, f)...)
}

// putPing sends a ping to the side that this direction goes to.
func (d *direction) putPing(id uint64) {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return
	}
	d.pings = true
	d.pending = appendPing(d.pending, d.masked, id)
	d.mu.Unlock()
	d.flush()
}

// bulk is how much must have been written to a side within Timeouts.Pong for a
// missing answer to be no sign of death: the ping stands in a queue behind it.
const bulk = 64 << 10

// checkPing looks after the pings to the side that d comes from. It reports
// false if that side is dead. writing tells whether a write was under way in either
// direction. at notes when to look again, and reports whether that time has come.
func (d *direction) checkPing(now int64, writing bool, at func(due int64) bool) bool {
	c := &d.t.p.cfg.Timeouts
	to := d.t.other(d) // where the pings go
	last := d.from.last.Load()
	d.t.mu.Lock()
	done := d.from.closeSeen || d.from.ended || d.t.closing
	d.t.mu.Unlock()
	if done {
		return true // it may have nothing more to say
	}
	// While a write to the other side is under way nothing of this one is read,
	// and during one to this side the ping may be behind it. Who is to blame
	// is for WriteStall to judge, and an answer has its time from the end of that.
	if writing {
		d.stuck = true
		at(now + int64(c.Ping))
		return true
	}
	if d.stuck { // when it was looked at last
		d.stuck = false
		if d.asked != 0 && to.pinged.Load() >= d.asked {
			to.pinged.Store(now)
		}
	}
	if d.asked != 0 {
		if last > d.asked || d.pong.Load() == 0 {
			d.asked = 0
		} else if c.Pong > 0 {
			written := to.pinged.Load()
			sent := to.traffic().Bytes
			switch {
			case written < d.asked: // it waits for a boundary
				written = now
			case sent-d.askedBytes >= bulk && now >= written+int64(c.Pong):
				d.askedBytes = sent
				to.pinged.Store(now)
				written = now
			}
			return !at(written + int64(c.Pong))
		} else {
			at(now + int64(c.Ping))
			return true
		}
	}
	if at(last + int64(c.Ping)) {
		d.asked, d.askedBytes = now, to.traffic().Bytes
		id := newPing()
		d.pong.Store(id)
		go to.putPing(id)
		at(now + int64(cmp.Or(c.Pong, c.Ping)))
	}
	return true
}

// stop waits for the last write to end and prevents further ones.
func (d *direction) stop() {
	d.acquire()
	d.muted = true
	d.hold = nil
	d.mu.Lock()
	d.pending = nil
	d.closing = true
	d.mu.Unlock()
	d.release()
}

// traffic returns what has passed so far.
func (d *direction) traffic() Traffic {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shown
}

// sentClose returns the Close frame of ours, if there was one.
func (d *direction) sentClose() CloseFrame {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		return CloseFrame{}
	}
	return *d.sent
}

// other returns the other direction.
func (t *tunnel) other(d *direction) *direction {
	if d == &t.up {
		return &t.down
	}
	return &t.up
}
