package wsproxy

import (
	"net"
	"syscall"
)

// isReset reports whether c was cut by its peer, or by the kernel since the peer
// is lost. Once a call has reported that as its error it shows only in the state of
// the connection, the first byte of tcp_info. An orderly end in both directions
// leads to the same state, but then both ends are noted already.
func isReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	const tcpClose = 7 // TCP_CLOSE of <netinet/tcp.h>
	reset := false
	err = raw.Control(func(fd uintptr) {
		// The call that takes four bytes of a socket option in whatever order.
		info, err := syscall.GetsockoptInet4Addr(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
		reset = err == nil && info[0] == tcpClose
	})
	return err == nil && reset
}
