//go:build linux && !386 && !race && !msan && !asan

package wsproxy

import (
	"syscall"
	"unsafe"
)

// receive and send do what read(2) and write(2) do on a socket that does not
// block. MSG_DONTWAIT makes sure of that whatever the descriptor's mode is, so
// the scheduler need not be told of a system call that could last: being told,
// it takes the processor from a thread that is in one for 20 µs and wakes another
// thread for it. With small messages that is a fifth of what a tunnel costs.
func receive(fd int, b []byte) (int, error) {
	return transfer(syscall.SYS_RECVFROM, fd, b, syscall.MSG_DONTWAIT)
}

func send(fd int, b []byte) (int, error) {
	return transfer(syscall.SYS_SENDTO, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func transfer(call uintptr, fd int, b []byte, flags uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(call, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
