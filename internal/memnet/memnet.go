// Package memnet is a network in memory: a [net.Listener] and connections
// that behave like TCP on the loopback interface and work in a
// [testing/synctest] bubble.
//
// A goroutine that waits for a memnet connection is durably blocked, so the
// fake clock of a bubble moves on while client and server are idle. A test
// over real sockets would hang there. Everything that takes part (listener,
// server, client) must be made inside the bubble.
//
// Most tests need one line:
//
//	s := memnet.Serve(t, memnet.HTTP2, &http.Server{Handler: h})
//	res, err := s.Client.Get(s.URL + "/path")
//
// What is like TCP: bytes are buffered in each direction and a writer blocks
// when the buffer is full; deadlines; half close; the peer of a closed
// connection reads what was sent and then io.EOF; the peer of an aborted
// connection gets ECONNRESET; errors are *net.OpError. What is not: a dial
// never waits, nothing is lost or delayed, and a connection that is closed
// with unread bytes does not reset its peer.
package memnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// DefaultBuffer is the number of bytes that a connection holds in each
// direction unless Config.Buffer says otherwise.
const DefaultBuffer = 64 << 10

// The addresses that Listen and Dial choose.
var (
	defaultAddr = netip.MustParseAddrPort("127.0.0.1:8080")
	defaultPeer = netip.MustParseAddr("127.0.0.1")
)

// firstPort is where the ports of diallers start: the first of the range for
// ephemeral ports (RFC 6335, section 6).
const firstPort = 49152

// Config describes a listener. The zero Config is what [Listen] uses.
type Config struct {
	// Addr is what Listener.Addr returns and what the accepted connections
	// have as their local address. The zero value means 127.0.0.1:8080.
	// Nothing is reserved: two listeners may have the same address, because
	// a connection is made through its listener and not by address.
	Addr netip.AddrPort

	// Buffer is the number of bytes held in each direction of a connection.
	// Zero means DefaultBuffer; the least is 1. With a small buffer a peer
	// that does not read blocks the writer at once.
	Buffer int
}

// Listener is a [net.Listener] whose connections are made by its own Dial
// methods. Its methods may be called concurrently.
type Listener struct {
	addr   *net.TCPAddr
	buffer int

	mu     sync.Mutex
	queued sync.Cond // signalled when queue or closed changes
	queue  []*Conn   // dialled, not yet accepted
	closed bool
	port   uint16 // of the last dialler that did not choose one
}

// Listen returns a listener at 127.0.0.1:8080 with the default buffer.
func Listen() *Listener { return Config{}.Listen() }

// Listen returns a listener.
func (c Config) Listen() *Listener {
	if !c.Addr.IsValid() {
		c.Addr = defaultAddr
	}
	if c.Buffer == 0 {
		c.Buffer = DefaultBuffer
	}
	l := &Listener{
		addr:   net.TCPAddrFromAddrPort(c.Addr),
		buffer: max(c.Buffer, 1),
		port:   firstPort - 1,
	}
	l.queued.L = &l.mu
	return l
}

// Addr returns the listener's address, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for a connection. After Close it returns an error that wraps
// net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.queued.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// Close stops the listener. Connections that nobody accepted are reset, and
// a dial after it is refused. Accepted connections stay open.
func (l *Listener) Close() error {
	l.mu.Lock()
	queue, closed := l.queue, l.closed
	l.queue, l.closed = nil, true
	l.queued.Broadcast()
	l.mu.Unlock()
	for _, c := range queue {
		c.Abort()
	}
	if closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	return nil
}

// Dial connects to the listener from 127.0.0.1 and a port of its own. It
// does not wait for Accept, as TCP does not. The connection is a [*Conn].
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	return l.DialFrom(ctx, netip.AddrPort{})
}

// DialContext is Dial in the form of [net/http.Transport.DialContext]. It
// connects to the listener whatever the network and the address say.
func (l *Listener) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return l.DialFrom(ctx, netip.AddrPort{})
}

// DialFrom is Dial from a chosen address, for servers that judge their
// peers. An invalid address means 127.0.0.1, and port 0 the next free port.
func (l *Listener) DialFrom(ctx context.Context, local netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: err}
	}
	ip, port := local.Addr(), local.Port()
	if !ip.IsValid() {
		ip = defaultPeer
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		err := os.NewSyscallError("connect", syscall.ECONNREFUSED)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: err}
	}
	if port == 0 {
		l.port = max(l.port+1, firstPort) // the sum wraps to 0 after 65535
		port = l.port
	}
	client, server := newConns(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port)), l.addr, l.buffer)
	l.queue = append(l.queue, server)
	l.queued.Signal()
	return client, nil
}
