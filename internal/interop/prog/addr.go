package prog

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ports of [Reserve] are below those that systems give to whoever asks for any
// port, and to connections: 32768 and above on Linux, 49152 elsewhere.
const (
	lowestPort  = 16 << 10
	highestPort = 32<<10 - 1
)

var errNoPort = errors.New("prog: no free port was found")

// Reserve returns an address of the loopback interface, host:port, where nobody
// listens. Until release is called no test gets it a second time, and as the
// system does not give its port away, it is there for a program that takes its
// time to start, and for one that comes back after a while.
func Reserve() (addr string, release func(), err error) { return ReserveRow(1) }

// ReserveRow is [Reserve] for a program that listens on n ports in a row. It
// returns the address with the first of them.
func ReserveRow(n int) (addr string, release func(), err error) {
	for range 1000 {
		first := lowestPort + rand.IntN(highestPort-lowestPort+2-n)
		if release, ok := lockRow(first, n); ok {
			return loopback(first), sync.OnceFunc(release), nil
		}
	}
	return "", func() {}, errNoPort
}

// lockRow takes n ports, or none of them.
func lockRow(first, n int) (release func(), ok bool) {
	var locks []net.PacketConn
	release = func() {
		for _, lock := range locks {
			lock.Close()
		}
	}
	for port := first; port < first+n; port++ {
		// The lock among all tests is the UDP port of the same number.
		lock, err := net.ListenPacket("udp", loopback(port))
		if err == nil {
			locks = append(locks, lock)
		}
		if err != nil || !refused(loopback(port)) { // then the port is a stranger's
			release()
			return nil, false
		}
	}
	return release, true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// refused reports whether nobody listens on addr. To listen there would tell as
// well, but a program that another test starts at that moment inherits the socket
// and keeps the port until it has come as far as to close it.
func refused(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Addr is [Reserve] until the end of the test.
func Addr(t testing.TB) string {
	t.Helper()
	addr, release, err := Reserve()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(release)
	return addr
}

// TempDir is a directory for a program with processes that may write to it for a
// moment after it was killed, such as a browser. It is removed at the end of the
// test.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "prog")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		err := os.RemoveAll(dir)
		for end := time.Now().Add(readyWithin); err != nil && time.Now().Before(end); err = os.RemoveAll(dir) {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("%v", err)
		}
	})
	return dir
}
