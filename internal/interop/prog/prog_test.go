package prog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test binary is the program under test too: with an address in this
// variable it is an echo server, with "fail" it prints and ends.
const role = "PROG_TEST_ROLE"

func TestMain(m *testing.M) {
	switch addr := os.Getenv(role); addr {
	case "":
		os.Exit(m.Run())
	case "fail":
		fmt.Fprintln(os.Stderr, "no such database")
		os.Exit(3)
	default:
		echo(addr)
	}
}

func echo(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func self(as string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+as)
	return cmd
}

// recorder is a testing.TB that keeps what a helper does with it. Skipf and
// Fatalf end the goroutine, as the real ones do.
type recorder struct {
	testing.TB
	skipped, fatal string
	logged         string
	failed         bool
	cleanups       []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Failed() bool             { return r.failed }
func (r *recorder) Cleanup(f func())         { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Logf(f string, a ...any)  { r.logged += fmt.Sprintf(f, a...) }
func (r *recorder) Skipf(f string, a ...any) { r.skipped = fmt.Sprintf(f, a...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any) {
	r.fatal, r.failed = fmt.Sprintf(f, a...), true
	runtime.Goexit()
}

// record runs f on a recorder, then the clean-ups that f registered.
func record(t *testing.T, f func(testing.TB)) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	for _, c := range r.cleanups {
		c()
	}
	return r
}

func TestNeed(t *testing.T) {
	const missing = "no-such-program-anywhere"
	for _, c := range []struct {
		name, program, required string
		skipped, fatal          bool
	}{
		{"installed", "go", "1", false, false},
		{"missing", missing, "", true, false},
		{"missing and required", missing, "1", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(Required, c.required)
			var path string
			r := record(t, func(tb testing.TB) { path = Need(tb, c.program) })
			if (r.skipped != "") != c.skipped || (r.fatal != "") != c.fatal {
				t.Errorf("skipped %q, failed %q", r.skipped, r.fatal)
			}
			if said := r.skipped + r.fatal; said != "" && !strings.Contains(said, c.program) {
				t.Errorf("%q does not name the program", said)
			}
			if (path == "") != (c.skipped || c.fatal) {
				t.Errorf("path %q", path)
			}
		})
	}
}

func TestStart(t *testing.T) {
	var addr string
	r := record(t, func(tb testing.TB) {
		addr = Start(tb, self, Dial)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "ping")
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
			t.Errorf("%q %v", b, err)
		}
	})
	if r.fatal != "" || r.logged != "" {
		t.Errorf("failed %q, logged %q", r.fatal, r.logged)
	}
	if err := Dial(t.Context(), addr); err == nil {
		t.Error("the program runs on after the clean-up")
	}
}

// What a program has started ends with it, as the workers of nginx must.
func TestStopEndsAll(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the program alone is killed")
	}
	pid := filepath.Join(t.TempDir(), "pid")
	p, err := Run(t.Context(), func(addr string) *exec.Cmd {
		return exec.Command("sh", "-c", "sleep 1000 & echo $! >"+pid+"; wait")
	}, func(context.Context, string) error {
		b, err := os.ReadFile(pid)
		if err == nil && len(b) == 0 {
			err = errors.New("not written yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	stat := filepath.Join("/proc", strings.TrimSpace(string(b)), "stat")
	for end := time.Now().Add(readyWithin); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(stat)
		// Nobody may ask for its status, nor had it come as far as to be sleep.
		if err != nil || strings.Contains(string(b), "(sleep) Z") || strings.Contains(string(b), "(sh) Z") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it runs on: %s", b)
		}
	}
}

// A reserved address is nobody else's until it is released, and not one that the
// system gives away.
func TestReserve(t *testing.T) {
	seen := map[string]bool{}
	for range 500 {
		addr, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if seen[addr] {
			t.Fatalf("%s twice", addr)
		}
		seen[addr] = true
		if port := netip.MustParseAddrPort(addr).Port(); port < lowestPort || port > highestPort {
			t.Errorf("%s is in no such range", addr)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	addr, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second does nothing
		release()
	}
	lock, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatalf("not released: %v", err)
	}
	lock.Close()
}

// No port of a row is anybody else's until the row is released.
func TestReserveRow(t *testing.T) {
	const n = 60
	seen := map[uint16]bool{}
	for range 20 {
		addr, release, err := ReserveRow(n)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		first := netip.MustParseAddrPort(addr)
		for i := range uint16(n) {
			port := first.Port() + i
			if seen[port] || port < lowestPort || port > highestPort {
				t.Fatalf("a row from %s: %d is in another, or in no such range", addr, port)
			}
			seen[port] = true
			one := netip.AddrPortFrom(first.Addr(), port).String()
			if lock, err := net.ListenPacket("udp", one); err == nil {
				lock.Close()
				t.Fatalf("a row from %s: %s is not taken", addr, one)
			}
		}
	}
	// There is no row where its last port is taken.
	last, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	port := int(netip.MustParseAddrPort(last).Port())
	if _, ok := lockRow(port-n+1, n); ok {
		t.Errorf("%s twice", last)
	}
}

// A program that starts at that moment does not keep the port.
func TestReserveBesideStarts(t *testing.T) {
	var starting sync.WaitGroup
	done := make(chan struct{})
	defer starting.Wait()
	defer close(done)
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					self("fail").Run()
				}
			}
		})
	}
	for range 5000 {
		addr, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", addr)
		release()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

func TestStartEndsEarly(t *testing.T) {
	probed := errors.New("nobody there")
	r := record(t, func(tb testing.TB) {
		Start(tb, func(string) *exec.Cmd { return self("fail") }, func(context.Context, string) error { return probed })
	})
	if !strings.Contains(r.fatal, "exit status 3") || !strings.Contains(r.fatal, "nobody there") {
		t.Errorf("failed with %q", r.fatal)
	}
	if !strings.Contains(r.logged, "no such database") {
		t.Errorf("logged %q", r.logged)
	}
}

func TestStartNoSuchFile(t *testing.T) {
	r := record(t, func(tb testing.TB) {
		Start(tb, func(string) *exec.Cmd { return exec.Command("./no-such-program") }, Dial)
	})
	if !strings.Contains(r.fatal, "no-such-program") {
		t.Errorf("failed with %q", r.fatal)
	}
}
