//go:build unix

package wsproxy

import (
	"io"
	"net"
	"os"
	"syscall"
)

// socket reads from and writes to the socket of a side. It has a buffer only
// while there is something to read: of an idle tunnel's memory a buffer would be
// the largest part.
type socket struct {
	raw syscall.RawConn
	p   *Proxy
	try func(fd uintptr) bool

	b    *buffer
	most int32 // to read at once
	n    int32
	err  error
}

// newSocket returns nil if c is not a socket.
func newSocket(c net.Conn) *socket {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.try = s.once // one allocation for all reads
	return s
}

// once reads what is there. It reports false, without a buffer, if there is
// nothing yet.
func (s *socket) once(fd uintptr) bool {
	if s.b == nil {
		s.b = s.p.buffers.Get().(*buffer)
	}
	for {
		var n int
		n, s.err = receive(int(fd), s.b[room:room+s.most])
		s.n = int32(n)
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.err == nil && s.n > 0 {
		return true
	}
	s.p.buffers.Put(s.b)
	s.b = nil
	return s.err != syscall.EAGAIN
}

// read waits for bytes and reads most of them at most. The buffer is good until
// the next read, which uses it for its first attempt.
func (s *socket) read(p *Proxy, most int) (b *buffer, n int, err error) {
	s.p, s.most = p, int32(most)
	err = s.raw.Read(s.try)
	switch {
	case err != nil:
		s.drop(p)
		return nil, 0, err
	case s.err != nil:
		return nil, 0, os.NewSyscallError("read", s.err)
	case s.n == 0:
		return nil, 0, io.EOF
	}
	return s.b, int(s.n), nil
}

// drop gives the buffer back.
func (s *socket) drop(p *Proxy) {
	if s.b != nil {
		p.buffers.Put(s.b)
		s.b = nil
	}
}

// write writes all of b, unless the socket fails or is closed.
func (s *socket) write(p *Proxy, b []byte) error {
	w := p.writings.Get().(*writeState)
	w.left, w.err = b, nil
	err := s.raw.Write(w.try)
	if err == nil {
		err = os.NewSyscallError("write", w.err)
	}
	w.left = nil
	p.writings.Put(w)
	return err
}

// writeState is a write that is under way. Sockets do not have one of their own,
// for the memory of idle tunnels.
type writeState struct {
	try  func(fd uintptr) bool
	left []byte
	err  error
}

func newWriteState() *writeState {
	w := new(writeState)
	w.try = w.once
	return w
}

// once writes what there is room for. It reports false if that was not all.
func (w *writeState) once(fd uintptr) bool {
	for len(w.left) > 0 {
		n, err := send(int(fd), w.left)
		switch err {
		case nil:
			w.left = w.left[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			w.err = err
			return true
		}
	}
	return true
}
