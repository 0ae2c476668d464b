package wsproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"time"
)

const (
	// bufferSize is what is read at once while data flows; room stands before
	// it for what was held back of the read before.
	bufferSize = 32 << 10
	room       = maxHold
	// idleSize is what a stream that cannot be waited for otherwise keeps while
	// it is silent.
	idleSize = 512

	// headSize is what is read at once behind a payload that was spliced: enough
	// for the header of the next, which is likely to be as large.
	headSize = 512

	// A payload is spliced if so much of it is still to come, in pieces of which
	// one is as much as a peer that does not read leaves in the pipe. The source
	// has a time for a piece, so that a slow one does not keep the pipe.
	spliceLeft  = 64 << 10
	splicePiece = 256 << 10
	spliceTime  = time.Second // at most; half of Timeouts.WriteStall if that is less

	// With Tunnel there are no payloads: bytes are spliced once so many came
	// within the time.
	bulkBytes = 1 << 20
	bulkTime  = 100 * time.Millisecond
)

// errOver is the end of a direction that comes from the peers' Close frames.
var errOver = errors.New("wsproxy: closed")

// buffer is a buffer of a Proxy's pool.
type buffer [room + bufferSize]byte

// run passes what comes until the direction ends.
func (d *direction) run() {
	err := d.pump()
	d.t.mu.Lock()
	gone := d.from.gone
	d.t.mu.Unlock()
	switch {
	case gone: // the error is that we have closed it
	case err == errOver, errors.Is(err, io.EOF):
		d.acquire()
		if d.tracker.left == 0 {
			d.writePending()
		}
		d.muted = true
		d.release()
	default:
		d.t.lost(d.from, err)
		return
	}
	d.t.eof(d)
}

func (d *direction) pump() error {
	s, ok := d.from.stream.(*connStream)
	if ok && len(s.early) > 0 {
		if err := d.pumpEarly(s); err != nil {
			return err
		}
	}
	if d.from.socket != nil {
		return d.pumpSocket(s.c)
	}
	return d.pumpStream()
}

// pumpEarly passes what was read together with the handshake.
func (d *direction) pumpEarly(s *connStream) error {
	buf := make([]byte, room+len(s.early))
	copy(buf[room:], s.early)
	s.early = nil
	return d.feed(buf, len(buf)-room)
}

// pumpStream reads into a small buffer of its own while little comes, and a large
// one of the pool while much does.
func (d *direction) pumpStream() error {
	small := make([]byte, room+idleSize)
	for {
		n, err := d.from.stream.Read(small[room:])
		if n > 0 {
			if err := d.feed(small, n); err != nil {
				return err
			}
		}
		if err == nil && n == idleSize {
			err = d.pumpFlow()
		}
		if err != nil {
			return err
		}
	}
}

// pumpFlow reads as long as there is more than the small buffer holds.
func (d *direction) pumpFlow() error {
	b := d.t.p.buffers.Get().(*buffer)
	defer d.t.p.buffers.Put(b)
	for {
		n, err := d.from.stream.Read(b[room:])
		if n > 0 {
			if err := d.feed(b[:], n); err != nil {
				return err
			}
		}
		if err != nil || n <= idleSize {
			return err
		}
	}
}

// pumpSocket waits for a socket without a buffer, and has payloads spliced.
func (d *direction) pumpSocket(c net.Conn) error {
	src, dst := d.spliceable(c)
	socket := d.from.socket
	var flow flow
	most := bufferSize
	for {
		b, n, err := socket.read(d.t.p, most) // the buffer stays the socket's
		most = bufferSize
		if n > 0 {
			err = d.feed(b[:], n)
			if err != nil {
				socket.drop(d.t.p)
			}
		}
		if err != nil {
			return err
		}
		if dst == nil {
			continue
		}
		if d.tracker.left >= spliceLeft || d.raw && flow.much(d.from.last.Load(), n) {
			socket.drop(d.t.p)
			d.splice(dst, src)
			if !d.raw && d.tracker.left == 0 {
				most = headSize
			}
		}
	}
}

// spliceable returns both ends as what splice(2) works on, or nil.
func (d *direction) spliceable(c net.Conn) (src, dst *net.TCPConn) {
	to, ok := d.to.stream.(*connStream)
	if !ok || runtime.GOOS != "linux" {
		return nil, nil
	}
	src, ok = c.(*net.TCPConn)
	if !ok {
		return nil, nil
	}
	dst, _ = to.c.(*net.TCPConn)
	return src, dst
}

// flow tells bulk from chatter.
type flow struct {
	since int64
	bytes int
}

func (f *flow) much(now int64, n int) bool {
	if now-f.since > int64(bulkTime) {
		f.since, f.bytes = now, 0
	}
	if f.bytes += n; f.bytes < bulkBytes {
		return false
	}
	f.bytes = 0
	return true
}

// splice moves payload inside the kernel as long as much of it is to come. The
// end of the source is left for the next read to see; an error of it would not be
// seen again, and does not say that it is not the destination's.
func (d *direction) splice(dst, src *net.TCPConn) {
	lr := io.LimitedReader{R: src}
	limit := spliceTime
	if stall := d.t.p.cfg.Timeouts.WriteStall; stall > 0 {
		limit = min(limit, stall/2) // waiting for the source is no stall
	}
	defer src.SetReadDeadline(time.Time{})
	for d.raw || d.tracker.left >= spliceLeft {
		d.acquire()
		if d.muted {
			d.release()
			return
		}
		piece := int64(splicePiece)
		if !d.raw {
			piece = min(piece, int64(d.tracker.left))
		}
		lr.N, d.at = piece, 0
		src.SetReadDeadline(time.Now().Add(limit))
		if !d.begin() {
			d.release()
			return
		}
		n, err := dst.ReadFrom(&lr)
		d.writing.Store(0)
		if n > 0 {
			d.from.last.Store(d.t.p.now())
			d.bytes += uint64(n)
			d.spliced += uint64(n)
			if !d.raw {
				d.tracker.skip(uint64(n))
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			if isReset(src) {
				d.muted = true
				d.t.lost(d.from, err)
			} else {
				d.failed(err)
			}
		}
		d.release()
		if err != nil || n < piece {
			return
		}
	}
}

// feed takes n bytes that were read to buf[room:].
func (d *direction) feed(buf []byte, n int) error {
	now := d.t.p.now()
	d.from.last.Store(now)
	if d.from == &d.t.backend && d.bytes == 0 {
		d.t.first.Store(now)
	}
	if !d.acquire() {
		now = 0 // that was before the wait
	}
	d.at = now
	d.bytes += uint64(n)
	b := buf[room : room+n]
	var err error
	switch {
	case d.raw:
	case d.deaf:
		b = nil
	default:
		b, err = d.pass(d.unhold(buf, n))
	}
	d.write(b)
	d.release()
	return err
}

// unhold returns what was held back together with n bytes at buf[room:].
func (d *direction) unhold(buf []byte, n int) []byte {
	start := room - len(d.hold)
	copy(buf[start:], d.hold)
	if d.hold = d.hold[:0]; cap(d.hold) > maxHeader+2 {
		d.hold = nil
	}
	return buf[start : room+n]
}

// pass takes b, in which a frame begins or goes on, and returns what of it is
// left to be written: mostly all, since whole frames follow each other. It has
// written what comes before, where a frame of ours had to be put in at a
// boundary or one of the peer's was to be left out.
func (d *direction) pass(b []byte) ([]byte, error) {
	t := &d.tracker
	start, i := 0, 0
	for {
		if n := min(t.left, uint64(len(b)-i)); n > 0 {
			t.skip(n)
			i += int(n)
		}
		if i == len(b) {
			return b[start:], nil
		}
		if d.waiting() {
			d.write(b[start:i])
			start = i
			d.writePending()
		}
		h, n := parseHeader(b[i:])
		inspect := h.op == opClose || h.op == opPong && d.pong.Load() != 0
		if n > 0 && inspect && !t.illegal(&h) && len(b)-i < n+int(h.length) {
			n = 0 // as if its header were not complete
		}
		if n == 0 {
			d.hold = append(d.hold, b[i:]...)
			return b[start:i], nil
		}
		if code := t.begin(&h); code != 0 {
			d.write(b[start:i])
			d.violated(code)
			return nil, nil
		}
		if !inspect {
			i += n
			continue
		}
		t.left = 0
		end := i + n + int(h.length)
		if h.op == opClose {
			return nil, d.passClose(b[start:end], end-i, unmask(&h, b[i+n:end]))
		}
		if isPong(&h, b[i+n:end], d.pong.Load()) {
			d.pong.Store(0)
			d.write(b[start:i])
			start = end
		}
		i = end
	}
}

// waiting reports whether frames of ours wait for a boundary.
func (d *direction) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending != nil
}

// passClose writes b, of which the last n bytes are a Close frame. What comes
// after it is not passed on: the peer has said that nothing would.
func (d *direction) passClose(b []byte, n int, payload []byte) error {
	t := d.t
	f, code := parseClose(payload)
	if code != 0 {
		d.write(b[:len(b)-n])
		d.violated(code)
		return nil
	}
	d.deaf = true
	d.mu.Lock()
	d.shown.Close = f
	d.mu.Unlock()
	t.note(t.endOf(d.from, false), nil)
	if t.isClosing() {
		// It answers ours, or crosses it; the other side gets ours and not both.
		d.write(b[:len(b)-n])
		t.goodbye(d.from, false)
		return errOver
	}
	d.write(b)
	d.muted = true
	t.goodbye(d.from, false)
	t.p.clock.soon(t, t.p.now()) // for Timeouts.Linger
	return nil
}

// violated closes the tunnel for what from has sent. None of it can be read as
// frames from here on, so its Close frame is not waited for.
func (d *direction) violated(code int) {
	d.deaf = true
	f, end := CloseFrame{Code: code, Reason: "malformed frame"}, EndProtocol
	switch code {
	case closeTooBig:
		f.Reason, end = "message too big", EndTooLarge
	case closeBadText:
		f.Reason = "reason is not UTF-8"
	}
	d.t.shut(end, f, f)
	d.t.goodbye(d.from, false)
}
