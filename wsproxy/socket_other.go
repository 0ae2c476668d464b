//go:build !unix

package wsproxy

import (
	"errors"
	"net"
)

// socket is for systems on which one can be waited for without a buffer.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) read(*Proxy, int) (*buffer, int, error) { return nil, 0, errors.ErrUnsupported }

func (*socket) drop(*Proxy) {}

func (*socket) write(*Proxy, []byte) error { return errors.ErrUnsupported }

// writeState is a write to one.
type writeState struct{}

func newWriteState() *writeState { return nil }
