package wsproxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
)

// connStream is a side of a tunnel that has a connection for itself: HTTP/1.1.
type connStream struct {
	c     net.Conn
	early []byte // what was read with the handshake; the reading goroutine's
	ended atomic.Bool
}

// newConnStream takes over what br, a reader of conn, has read ahead.
func newConnStream(conn net.Conn, br *bufio.Reader) *connStream {
	s := &connStream{c: conn}
	if n := br.Buffered(); n > 0 {
		s.early = make([]byte, n)
		io.ReadFull(br, s.early)
	}
	return s
}

func (s *connStream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	return s.c.Read(p)
}

func (s *connStream) Write(p []byte) (int, error) { return s.c.Write(p) }

func (s *connStream) halfCloses() bool {
	_, ok := s.c.(interface{ CloseWrite() error })
	return ok
}

func (s *connStream) CloseWrite() error {
	if c, ok := s.c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func (s *connStream) Close() error {
	if s.ended.Swap(true) {
		return nil
	}
	return s.c.Close()
}

func (s *connStream) Abort() {
	if s.ended.Swap(true) {
		return
	}
	c := s.c
	if tc, ok := c.(*tls.Conn); ok {
		c = tc.NetConn()
	}
	switch c := c.(type) {
	case *net.TCPConn:
		c.SetLinger(0)
	case interface{ Abort() error }:
		c.Abort()
		return
	}
	c.Close()
}
