//go:build !linux

package wsproxy

import "net"

// isReset is asked only after splice(2), which is Linux's.
func isReset(*net.TCPConn) bool { return false }
