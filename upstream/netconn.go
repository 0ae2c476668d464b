package upstream

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// netConn counts what passes over a connection. The counts are the evidence
// by which a failed request may or may not be sent again, so over TLS they are
// taken above it, where handshake and session tickets do not show.
type netConn struct {
	net.Conn
	written atomic.Int64
	read    atomic.Int64
	writing atomic.Bool // a Write is under way

	h2      bool // net/http speaks HTTP/2 over it
	spoken  *signal
	closing atomic.Bool
	onClose func() // called once, possibly under locks of net/http; nil is nothing
}

// copySize is the size of the buffers for request bodies. Above 64 KiB a
// write becomes two segments on the loopback interface, at nearly twice the cost.
const copySize = 48 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

func (c *netConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.read.Add(int64(n))
	}
	return n, err
}

func (c *netConn) Write(p []byte) (int, error) {
	c.writing.Store(true)
	n, err := c.Conn.Write(p)
	c.writing.Store(false)
	if n > 0 {
		c.written.Add(int64(n))
	}
	if c.spoken != nil {
		c.spoken.wrote()
	}
	return n, err
}

// signal tells when net/http has seen the SETTINGS of an HTTP/2 peer, for which
// it has no hook of its own: the first write is its preface, and before there
// is a request the second can only be the acknowledgement.
type signal struct {
	writes atomic.Int32
	done   chan struct{}
}

func (s *signal) wrote() {
	if s.writes.Load() < 2 && s.writes.Add(1) == 2 {
		close(s.done)
	}
}

// end makes the signal come if it has not.
func (s *signal) end() {
	if s.writes.Swap(2) < 2 {
		close(s.done)
	}
}

// ReadFrom copies a request body. net/http would ask the connection below,
// which allocates a buffer for each body.
func (c *netConn) ReadFrom(r io.Reader) (n int64, err error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	for {
		nr, rerr := r.Read(buf[:])
		if nr > 0 {
			nw, werr := c.Write(buf[:nr])
			n += int64(nw)
			if werr != nil {
				return n, werr
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

func (c *netConn) Close() error {
	if c.closing.CompareAndSwap(false, true) {
		if c.onClose != nil {
			c.onClose()
		}
		if c.spoken != nil {
			c.spoken.end()
		}
	}
	return c.Conn.Close()
}

// CloseWrite ends the writing side, for tunnels that one side has finished.
func (c *netConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}
