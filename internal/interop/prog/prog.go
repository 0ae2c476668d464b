// Package prog runs the programs that tests talk to: it finds them, starts
// them on a free port, and takes them down again.
package prog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// ErrMissing is the error for a program that is not installed.
var ErrMissing = errors.New("not installed")

// Find returns the path of a program, or an error that names it and is
// [ErrMissing].
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is %w", name, ErrMissing)
	}
	return path, nil
}

// Need is [Find] for a test. Where the program is not installed the test is
// skipped, or fails when [Required] is set.
func Need(t testing.TB, name string) string {
	t.Helper()
	path, err := Find(name)
	if err == nil {
		return path
	}
	if os.Getenv(Required) != "" {
		t.Fatalf("%v, and is needed (%s is set)", err, Required)
	}
	t.Skipf("%v", err)
	return ""
}

// Start runs a program until the end of the test and returns the address it
// listens on, see [Run]. What the program prints is logged when the test fails.
func Start(t testing.TB, command func(addr string) *exec.Cmd, probe func(ctx context.Context, addr string) error) string {
	t.Helper()
	p, err := Run(t.Context(), command, probe)
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.cmd, p.out.String())
		}
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p.Addr
}

// A Process is a program that runs, or has ended.
type Process struct {
	Addr string // that it listens on, host:port

	release func() // Addr
	cmd     *exec.Cmd
	out     output
	exited  chan struct{}
}

// Run runs a program. command makes the command line for a free address of the
// loopback interface, as host:port; probe is called until it returns nil, which
// means that the program serves. Stop must be called, also with an error. Should
// this process end without that, the program does as well, where the system sees
// to it.
func Run(ctx context.Context, command func(addr string) *exec.Cmd, probe func(ctx context.Context, addr string) error) (*Process, error) {
	p := &Process{exited: make(chan struct{}), release: func() {}}
	addr, release, err := Reserve()
	if err != nil {
		close(p.exited)
		return p, err
	}
	p.Addr, p.release = addr, release
	p.cmd = command(p.Addr)
	bind(p.cmd)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// A child of the program may keep the pipe open after it was killed.
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		close(p.exited)
		return p, fmt.Errorf("start: %w", err)
	}
	var exit error
	go func() {
		exit = p.cmd.Wait()
		close(p.exited)
	}()

	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx, p.Addr)
		if err == nil {
			return p, nil
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return p, fmt.Errorf("%s ended before it was ready: %v; last probe: %w", p.cmd, exit, err)
		case <-ctx.Done():
			return p, fmt.Errorf("%s is not ready after %v: %w", p.cmd, readyWithin, err)
		}
	}
}

// Stop kills the program with what it has started, unless it has ended before, and
// returns when it has ended.
func (p *Process) Stop() {
	select {
	case <-p.exited: // its number may be somebody else's by now
	default:
		kill(p.cmd.Process)
	}
	<-p.exited
	p.release()
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
