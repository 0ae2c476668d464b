package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is one end of a connection. It is what [Listener.Dial] and
// [Listener.Accept] return, with the methods of [net.Conn] and two more:
// CloseWrite and Abort. All may be called concurrently.
type Conn struct {
	local, remote *net.TCPAddr
	in, out       *stream
}

var _ net.Conn = (*Conn)(nil)

// newConns returns the two ends of a connection from client to server.
func newConns(client, server *net.TCPAddr, buffer int) (c, s *Conn) {
	up, down := newStream(buffer), newStream(buffer)
	return &Conn{local: client, remote: server, in: down, out: up},
		&Conn{local: server, remote: client, in: up, out: down}
}

// LocalAddr returns this end's address, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the other end's address, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read waits for bytes, for the end of the stream or for the read deadline.
// A deadline that has passed comes before bytes that are there.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	if err != nil && err != io.EOF {
		err = c.opError("read", err)
	}
	return n, err
}

// Write waits until all of p is in the buffer or the write deadline passes;
// then it returns how much of p was taken. Concurrent calls do not mix
// their bytes.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

// Close ends both directions. The peer reads what was written before and
// then io.EOF; its writes fail with EPIPE. A second Close returns an error
// that wraps net.ErrClosed.
func (c *Conn) Close() error {
	return c.close(syscall.EPIPE, nil)
}

// Abort closes the connection as a TCP reset does: bytes under way are lost
// and the peer's reads and writes fail with ECONNRESET.
func (c *Conn) Abort() error {
	return c.close(syscall.ECONNRESET, syscall.ECONNRESET)
}

// close closes this end. The peer's writes get writeErr and its reads
// readErr, or io.EOF after the buffered bytes if that is nil.
func (c *Conn) close(writeErr, readErr error) error {
	// In this order, because a peer may answer the end of its stream before
	// the second call, and a closed end must not read the answer.
	first := c.in.closeRead(writeErr)
	c.out.closeWrite(net.ErrClosed, readErr)
	if !first {
		return c.opError("close", net.ErrClosed)
	}
	return nil
}

// CloseWrite ends this end's direction only: the peer reads io.EOF after
// the bytes written before, and this end may go on reading.
func (c *Conn) CloseWrite() error {
	if !c.out.closeWrite(syscall.EPIPE, nil) {
		return c.opError("close", net.ErrClosed)
	}
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	err := c.SetReadDeadline(t)
	if err == nil {
		err = c.SetWriteDeadline(t)
	}
	return err
}

// SetReadDeadline sets the time after which reads fail, those under way
// included, with an error that wraps os.ErrDeadlineExceeded. A later call
// with a later time, or with the zero time for none, lets reads succeed
// again.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !c.in.setDeadline(&c.in.readBy, &c.in.readErr, t) {
		return c.opError("set", net.ErrClosed)
	}
	return nil
}

// SetWriteDeadline is SetReadDeadline for writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if !c.out.setDeadline(&c.out.writeBy, &c.out.writeErr, t) {
		return c.opError("set", net.ErrClosed)
	}
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// stream is one direction of a connection.
//
// Waiting is done on a sync.Cond and not on a mutex, since only the former
// counts as durably blocked in a synctest bubble.
type stream struct {
	mu      sync.Mutex
	changed sync.Cond // broadcast at every change of what follows

	buf  []byte // buf[off:] is written and not yet read
	off  int
	size int // bound of len(buf)-off

	writing bool // a Write is under way; others wait for their turn

	eof      bool  // nothing more will be written
	readErr  error // given to reads at once; net.ErrClosed if the reader closed
	writeErr error // given to writes at once; net.ErrClosed if the writer closed

	readBy, writeBy deadline
}

// deadline is the state of a read or write deadline; stream.mu guards it.
type deadline struct {
	timer  *time.Timer // nil if none is pending
	passed bool
}

func newStream(size int) *stream {
	s := &stream{size: size}
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readErr != nil:
			return 0, s.readErr
		case len(p) == 0:
			return 0, nil
		case s.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case s.off < len(s.buf):
			n := copy(p, s.buf[s.off:])
			s.off += n
			if s.off == len(s.buf) {
				s.buf, s.off = s.buf[:0], 0
			}
			s.changed.Broadcast()
			return n, nil
		case s.eof:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.changed.Wait()
	}
	s.writing = true
	defer func() {
		s.writing = false
		s.changed.Broadcast()
	}()
	for {
		free := s.size - (len(s.buf) - s.off)
		switch {
		case s.writeErr != nil:
			return n, s.writeErr
		case s.writeBy.passed:
			return n, os.ErrDeadlineExceeded
		case n == len(p):
			return n, nil
		case free > 0:
			part := p[n:min(len(p), n+free)]
			// Moving the unread half at most keeps the cost of a byte
			// constant and the slice below twice its bound.
			if len(s.buf)+len(part) > cap(s.buf) && s.off > len(s.buf)/2 {
				s.buf = s.buf[:copy(s.buf, s.buf[s.off:])]
				s.off = 0
			}
			s.buf = append(s.buf, part...)
			n += len(part)
			s.changed.Broadcast()
			if n == len(p) {
				return n, nil
			}
		default:
			s.changed.Wait()
		}
	}
}

// closeWrite ends the stream at the writer's side. Later writes get
// writeErr. Reads get peerErr at once, or io.EOF after the buffered bytes if
// it is nil. It reports whether the writer had not closed before.
func (s *stream) closeWrite(writeErr, peerErr error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writeErr == net.ErrClosed {
		return false
	}
	s.writeErr, s.eof = writeErr, true
	if peerErr != nil && s.readErr == nil {
		s.readErr = peerErr
		s.buf, s.off = nil, 0
	}
	s.writeBy.stop()
	s.changed.Broadcast()
	return true
}

// closeRead ends the stream at the reader's side. Unread bytes are dropped
// and writes get peerErr. It reports whether the reader had not closed
// before.
func (s *stream) closeRead(peerErr error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr == net.ErrClosed {
		return false
	}
	s.readErr = net.ErrClosed
	s.buf, s.off = nil, 0
	if s.writeErr == nil {
		s.writeErr = peerErr
	}
	s.readBy.stop()
	s.changed.Broadcast()
	return true
}

// setDeadline sets d, which is one of the stream's own. It reports false,
// and does nothing, if the side that sets it has closed; closed is that
// side's error.
func (s *stream) setDeadline(d *deadline, closed *error, t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *closed == net.ErrClosed {
		return false
	}
	d.stop()
	d.passed = false
	if t.IsZero() {
		return true
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		s.changed.Broadcast()
		return true
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.timer == timer { // else it was replaced while it fired
			d.timer, d.passed = nil, true
			s.changed.Broadcast()
		}
	})
	d.timer = timer
	return true
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
