package memnet_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"example.com/plainware/internal/memnet"
)

func TestAddresses(t *testing.T) {
	l := memnet.Config{Addr: netip.MustParseAddrPort("[2001:db8::1]:443")}.Listen()
	defer l.Close()
	for _, tc := range []struct{ from, want string }{
		{"", "127.0.0.1:49152"},
		{"192.0.2.7:1234", "192.0.2.7:1234"},
		{"192.0.2.7:0", "192.0.2.7:49153"},
		{"[2001:db8::2]:0", "[2001:db8::2]:49154"},
	} {
		var from netip.AddrPort
		if tc.from != "" {
			from = netip.MustParseAddrPort(tc.from)
		}
		c, err := l.DialFrom(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.LocalAddr().String(); got != tc.want {
			t.Errorf("from %q: local address %q, want %q", tc.from, got, tc.want)
		}
		if got := s.RemoteAddr().String(); got != tc.want {
			t.Errorf("from %q: the server sees %q, want %q", tc.from, got, tc.want)
		}
		for _, a := range []net.Addr{l.Addr(), c.RemoteAddr(), s.LocalAddr()} {
			if a.Network() != "tcp" || a.String() != "[2001:db8::1]:443" {
				t.Errorf("the server's address is %v", a)
			}
		}
		c.Close()
		s.Close()
	}
}

func TestPortsStartAgain(t *testing.T) {
	l := memnet.Listen()
	defer l.Close()
	const ports = 65535 - 49152 + 1
	for i := range ports + 1 {
		c, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := c.LocalAddr().(*net.TCPAddr).Port, 49152+i%ports; got != want {
			t.Fatalf("dial %d came from port %d, want %d", i, got, want)
		}
		c.Close()
	}
}

func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		accepted, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			failed <- err
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked Accept: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		if _, err := l.Dial(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial: %v", err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Errorf("an accepted connection: %v", err)
		}
		s.Close()
		accepted.Close()
	})
}

func TestCloseResetsTheQueue(t *testing.T) {
	l := memnet.Listen()
	c, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	c.Close()
}

func TestDialCancelled(t *testing.T) {
	l := memnet.Listen()
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.DialContext(ctx, "tcp", "ignored:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("dial: %v", err)
	}
}
