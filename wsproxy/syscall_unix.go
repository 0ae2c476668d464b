//go:build unix && (!linux || 386 || race || msan || asan)

package wsproxy

import "syscall"

// receive and send are those of package syscall, which tells the race detector
// and the other sanitizers what it has read and written.
func receive(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

func send(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
