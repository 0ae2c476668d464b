package natsstore

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// serve runs a NATS server with its files in dir, on a port, or a free one for
// -1. stop ends it, and is called at the end of the test if not before.
func serve(t *testing.T, dir string, port int) (addr *net.TCPAddr, stop func()) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, MaxPayload: 8 << 20, NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	stop = sync.OnceFunc(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	t.Cleanup(stop)
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s.Addr().(*net.TCPAddr), stop
}

// connect returns a store on a connection of its own.
func connect(t *testing.T, addr net.Addr, name string) *Store {
	t.Helper()
	nc, err := nats.Connect("nats://"+addr.String(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	s, err := New(t.Context(), nc, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store 5: a backend of four methods on a real server conforms.
func TestConformance(t *testing.T) {
	addr, _ := serve(t, t.TempDir(), -1)
	storetest.RunWith(t, storetest.Options{
		Open:   func(t *testing.T) store.Store { return connect(t, addr, "suite") },
		Second: func(t *testing.T, _ store.Store) store.Store { return connect(t, addr, "suite") },
	})
}

// Emulated registers of two processes grant exactly what fits.
func TestRegisters(t *testing.T) {
	addr, _ := serve(t, t.TempDir(), -1)
	var handles [2]store.Registers
	for i := range handles {
		handles[i] = store.RegistersOf(connect(t, addr, "registers"))
	}
	for _, op := range []store.Op{
		{Space: "count", Key: "k", Ceil: 100, Step: 1, Min: 1, Max: 1, TTL: time.Hour},
		{Space: "clock", Key: "k", Clock: true, Ceil: int64(100 * time.Hour), Step: int64(time.Hour), Min: 1, Max: 1},
	} {
		var granted atomic.Int64
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				for range 20 {
					r, err := handles[g%2].Advance(t.Context(), op)
					if err != nil {
						t.Error(err)
						return
					}
					granted.Add(r.Granted)
				}
			})
		}
		wg.Wait()
		if n := granted.Load(); n != 100 {
			t.Errorf("%s: granted %d of 100", op.Space, n)
		}
	}
}

// The server reclaims what has expired and what was deleted.
func TestReclaim(t *testing.T) {
	addr, _ := serve(t, t.TempDir(), -1)
	s := connect(t, addr, "reclaim")
	for i := range 50 {
		if err := s.Put(t.Context(), fmt.Sprint("short", i), []byte("v"), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(t.Context(), "deleted", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "deleted"); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "kept", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		info, err := s.stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d messages are left, want one", info.State.Msgs)
		}
	}
}

// While the server is away calls fail with their deadline, and afterwards the
// same store has what it had.
func TestRestart(t *testing.T) {
	dir, port := t.TempDir(), int(netip.MustParseAddrPort(prog.Addr(t)).Port())
	addr, stop := serve(t, dir, port)
	s := connect(t, addr, "restart")
	if err := s.Put(t.Context(), "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, _, err := s.Get(ctx, "k"); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("Get without a server: %v after %v", err, time.Since(began))
	}
	serve(t, dir, port)
	for end := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		v, ok, err := s.Get(t.Context(), "k")
		if err == nil {
			if !ok || string(v) != "v" {
				t.Errorf("after a restart: %q, %v", v, ok)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after a restart: %v", err)
		}
	}
}
