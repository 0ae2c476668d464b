// Package prog runs the programs that tests talk to: it finds them, starts
// them on a free port, and takes them down again.
package prog

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// Required is the environment variable that turns a missing program from a
// skipped test into a failed one. Continuous integration sets it, so that
// nothing is skipped there without anyone noticing.
const Required = "PLAINWARE_REQUIRE_PROGRAMS"

// readyWithin bounds the start of a program.
const readyWithin = 30 * time.Second

// Need returns the path of a program. Where it is not installed the test is
// skipped, or fails when [Required] is set.
func Need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv(Required) != "" {
		t.Fatalf("%s is needed and not installed (%s is set): %v", name, Required, err)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// Start runs a program until the end of the test and returns the address it
// listens on. command makes the command line for a free address of the
// loopback interface, as host:port; probe is called until it returns nil, which
// means that the program serves. What the program prints is logged when
// the test fails.
func Start(t testing.TB, command func(addr string) *exec.Cmd, probe func(ctx context.Context, addr string) error) string {
	t.Helper()
	addr := freeAddr(t)
	cmd := command(addr)
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	// A child of the program may keep the pipe open after it was killed.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	exited := make(chan struct{})
	var exit error
	go func() {
		exit = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("%s printed:\n%s", cmd, out.String())
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx, addr)
		if err == nil {
			return addr
		}
		select {
		case <-tick.C:
		case <-exited:
			t.Fatalf("%s ended before it was ready: %v; last probe: %v", cmd, exit, err)
		case <-ctx.Done():
			t.Fatalf("%s is not ready after %v: %v", cmd, readyWithin, err)
		}
	}
}

// Dial is the plainest probe: the program accepts a TCP connection.
func Dial(ctx context.Context, addr string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// freeAddr asks the kernel for a port that nobody uses. Another process could
// take it before the program does; ephemeral ports are handed out in such an
// order that this does not happen in practice.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// output is a buffer that the program's pipe writes while the test reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
