//go:build !unix

package wsproxy

import (
	"errors"
	"net"
)

// waiter is for systems on which a socket can be waited for without a buffer.
type waiter struct{}

func newWaiter(net.Conn) *waiter { return nil }

func (*waiter) read(*Proxy) (*buffer, int, error) { return nil, 0, errors.ErrUnsupported }

func (*waiter) drop(*Proxy) {}
