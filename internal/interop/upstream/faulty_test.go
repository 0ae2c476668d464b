package upstream_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
)

// faulty is a back end on an address of its own that can be killed, stalled,
// reset and restarted.
type faulty struct {
	addr    string
	handler http.Handler

	mu     sync.Mutex
	server *http.Server
	served chan struct{}
	conns  map[*faultyConn]struct{}
	until  time.Time // stalled
}

func newFaulty(t *testing.T, h http.Handler) *faulty {
	t.Helper()
	f := &faulty{handler: h, addr: prog.Addr(t), conns: make(map[*faultyConn]struct{})}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.kill)
	return f
}

// start serves, on the address it had before.
func (f *faulty) start() error {
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addr = l.Addr().String()
	f.server = &http.Server{Handler: f.handler, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	f.server.Protocols.SetHTTP1(true)
	f.server.Protocols.SetUnencryptedHTTP2(true)
	f.served = make(chan struct{})
	s, served := f.server, f.served
	go func() {
		defer close(served)
		s.Serve(&faultyListener{l, f})
	}()
	return nil
}

// kill is what becomes of a process that dies: its connections are reset.
func (f *faulty) kill() {
	f.mu.Lock()
	s, served := f.server, f.served
	f.mu.Unlock()
	if s == nil {
		return
	}
	f.reset()
	s.Close()
	<-served
}

// restart ends the process in good order and starts it again.
func (f *faulty) restart() error {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	err := f.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		f.reset()
		err = f.server.Close()
	}
	<-f.served
	return errors.Join(err, f.start())
}

// reset resets every connection.
func (f *faulty) reset() {
	f.mu.Lock()
	conns := make([]*faultyConn, 0, len(f.conns))
	for c := range f.conns {
		conns = append(conns, c)
	}
	f.mu.Unlock()
	for _, c := range conns {
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// stall makes every connection neither read nor write for d.
func (f *faulty) stall(d time.Duration) {
	f.mu.Lock()
	f.until = time.Now().Add(d)
	f.mu.Unlock()
}

func (f *faulty) pause() {
	f.mu.Lock()
	d := time.Until(f.until)
	f.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
}

type faultyListener struct {
	net.Listener
	f *faulty
}

func (l *faultyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	fc := &faultyConn{Conn: c, f: l.f}
	l.f.mu.Lock()
	l.f.conns[fc] = struct{}{}
	l.f.mu.Unlock()
	return fc, nil
}

type faultyConn struct {
	net.Conn
	f *faulty
}

func (c *faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.f.pause()
	return n, err
}

func (c *faultyConn) Write(p []byte) (int, error) {
	c.f.pause()
	return c.Conn.Write(p)
}

func (c *faultyConn) Close() error {
	c.f.mu.Lock()
	delete(c.f.conns, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

// ledger is what the back ends have done, by the ID of the request.
type ledger struct {
	mu   sync.Mutex
	done map[string]int
}

func (l *ledger) add(id string) {
	l.mu.Lock()
	l.done[id]++
	l.mu.Unlock()
}

func (l *ledger) times(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[id]
}

// most returns the IDs that were done more than n times.
func (l *ledger) most(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for id, times := range l.done {
		if times > n {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}
