//go:build unix

package wsproxy

import (
	"io"
	"net"
	"syscall"
)

// waiter reads from a socket and has a buffer only while there is something to
// read: of an idle tunnel's memory a buffer would be the largest part.
type waiter struct {
	raw syscall.RawConn
	p   *Proxy
	try func(fd uintptr) bool

	b   *buffer
	n   int
	err error
}

// newWaiter returns nil if c is not a socket.
func newWaiter(c net.Conn) *waiter {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	w := &waiter{raw: raw}
	w.try = w.once // one allocation for all reads
	return w
}

// once reads what is there. It reports false, without a buffer, if there is
// nothing yet.
func (w *waiter) once(fd uintptr) bool {
	if w.b == nil {
		w.b = w.p.buffers.Get().(*buffer)
	}
	for {
		w.n, w.err = syscall.Read(int(fd), w.b[room:])
		if w.err != syscall.EINTR {
			break
		}
	}
	if w.err == nil && w.n > 0 {
		return true
	}
	w.p.buffers.Put(w.b)
	w.b = nil
	return w.err != syscall.EAGAIN
}

// read waits for bytes. The buffer is good until the next read, which uses it
// for its first attempt.
func (w *waiter) read(p *Proxy) (b *buffer, n int, err error) {
	w.p = p
	err = w.raw.Read(w.try)
	switch {
	case err != nil:
		w.drop(p)
		return nil, 0, err
	case w.err != nil:
		return nil, 0, w.err
	case w.n == 0:
		return nil, 0, io.EOF
	}
	return w.b, w.n, nil
}

// drop gives the buffer back.
func (w *waiter) drop(p *Proxy) {
	if w.b != nil {
		p.buffers.Put(w.b)
		w.b = nil
	}
}
