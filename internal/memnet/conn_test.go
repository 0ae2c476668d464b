package memnet_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
)

// pipe returns both ends of one connection; they are closed with the test.
func pipe(t *testing.T, buffer int) (client, server *memnet.Conn) {
	t.Helper()
	l := memnet.Config{Buffer: buffer}.Listen()
	c, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Close()
		l.Close()
	})
	return c.(*memnet.Conn), s.(*memnet.Conn)
}

// The connections as golang.org/x/net/nettest.TestConn wants them, each case
// once from the dialler's and once from the listener's end.
func TestConn(t *testing.T) {
	cases := []struct {
		name string
		run  func(t *testing.T, a, b *memnet.Conn)
	}{
		{"both directions at once", testDuplex},
		{"ping-pong", testPingPong},
		{"data after many concurrent writers is not mixed", testConcurrentWriters},
		{"past deadline", testPastDeadline},
		{"future deadline", testFutureDeadline},
		{"deadline set while blocked", testDeadlineWhileBlocked},
		{"deadline moved and removed", testDeadlineMoved},
		{"close unblocks own calls", testCloseUnblocks},
		{"close of the peer", testPeerClose},
		{"close before the peer answers", testCloseBeforeAnswer},
		{"half close", testHalfClose},
		{"abort", testAbort},
		{"full buffer blocks the writer", testFullBuffer},
		{"all methods concurrently", testConcurrentMethods},
		{"calls on a closed connection", testClosed},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pipe(t, 0)
				tc.run(t, a, b)
			})
			synctest.Test(t, func(t *testing.T) {
				a, b := pipe(t, 0)
				tc.run(t, b, a)
			})
		})
	}
}

func testDuplex(t *testing.T, a, b *memnet.Conn) {
	want := make([]byte, 2<<20)
	rand.Read(want)
	var wg sync.WaitGroup
	for _, c := range []*memnet.Conn{a, b} {
		wg.Go(func() {
			if _, err := c.Write(want); err != nil {
				t.Error(err)
			}
			c.CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v; the bytes are right: %t", len(got), err, bytes.Equal(got, want))
			}
		})
	}
	wg.Wait()
}

func testPingPong(t *testing.T, a, b *memnet.Conn) {
	go func() {
		io.Copy(b, b)
		b.Close()
	}()
	buf := make([]byte, 8)
	for i := range 1000 {
		msg := []byte{byte(i), byte(i >> 8), 1, 2, 3, 4, 5, 6}
		if _, err := a.Write(msg); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, buf); err != nil || !bytes.Equal(buf, msg) {
			t.Fatalf("echo %d: %v, %v", i, buf, err)
		}
	}
	a.CloseWrite()
	if n, err := a.Read(buf); n != 0 || err != io.EOF {
		t.Fatalf("after the echo ended: %d, %v", n, err)
	}
}

func testConcurrentWriters(t *testing.T, a, b *memnet.Conn) {
	const block = 3 * memnet.DefaultBuffer / 2 // so that every write has to wait
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if n, err := a.Write(bytes.Repeat([]byte{byte(i)}, block)); n != block || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
		})
	}
	buf := make([]byte, block)
	for range 8 {
		if _, err := io.ReadFull(b, buf); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(buf, buf[:1]) != block {
			t.Error("two writes were mixed")
		}
	}
	wg.Wait()
}

// wantTimeout fails unless err is what net.Conn promises after a deadline.
func wantTimeout(t *testing.T, what string, n int, err error) {
	t.Helper()
	var ne net.Error
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%s: %d, %v; want 0 and a timeout", what, n, err)
	}
}

func testPastDeadline(t *testing.T, a, b *memnet.Conn) {
	b.Write([]byte("already there"))
	for _, past := range []time.Time{time.Unix(1, 0), time.Now(), time.Now().Add(-time.Hour)} {
		a.SetDeadline(past)
		n, err := a.Read(make([]byte, 8))
		wantTimeout(t, "read", n, err)
		n, err = a.Write([]byte("x"))
		wantTimeout(t, "write", n, err)
	}
	a.SetDeadline(time.Time{})
	if n, err := a.Read(make([]byte, 64)); n != 13 || err != nil {
		t.Errorf("read with the deadline removed: %d, %v", n, err)
	}
	if n, err := a.Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("write with the deadline removed: %d, %v", n, err)
	}
}

func testFutureDeadline(t *testing.T, a, b *memnet.Conn) {
	start := time.Now()
	a.SetReadDeadline(start.Add(time.Minute))
	n, err := a.Read(make([]byte, 1))
	wantTimeout(t, "read", n, err)
	if d := time.Since(start); d != time.Minute {
		t.Errorf("the read failed after %v", d)
	}
	a.SetWriteDeadline(start.Add(time.Hour).Round(0)) // a wall clock reading alone
	n, err = a.Write(make([]byte, memnet.DefaultBuffer+1))
	if n != memnet.DefaultBuffer {
		t.Errorf("%d bytes written", n)
	}
	wantTimeout(t, "write", 0, err)
	if d := time.Since(start); d != time.Hour {
		t.Errorf("the write failed after %v", d)
	}
}

func testDeadlineWhileBlocked(t *testing.T, a, b *memnet.Conn) {
	failed := make(chan error, 2)
	go func() {
		_, err := a.Read(make([]byte, 1))
		failed <- err
	}()
	go func() {
		_, err := a.Write(make([]byte, 2*memnet.DefaultBuffer))
		failed <- err
	}()
	synctest.Wait()
	a.SetDeadline(time.Unix(1, 0))
	for range 2 {
		wantTimeout(t, "blocked call", 0, <-failed)
	}
}

func testDeadlineMoved(t *testing.T, a, b *memnet.Conn) {
	start := time.Now()
	a.SetReadDeadline(start.Add(time.Second))
	a.SetReadDeadline(start.Add(time.Minute))
	go func() {
		time.Sleep(30 * time.Second)
		a.SetReadDeadline(time.Time{})
		time.Sleep(time.Hour)
		a.SetReadDeadline(time.Now().Add(time.Second))
	}()
	n, err := a.Read(make([]byte, 1))
	wantTimeout(t, "read", n, err)
	if d := time.Since(start); d != time.Hour+31*time.Second {
		t.Errorf("the read failed after %v", d)
	}
}

func testCloseUnblocks(t *testing.T, a, b *memnet.Conn) {
	failed := make(chan error, 2)
	go func() {
		_, err := a.Read(make([]byte, 1))
		failed <- err
	}()
	go func() {
		_, err := a.Write(make([]byte, 2*memnet.DefaultBuffer))
		failed <- err
	}()
	synctest.Wait()
	a.Close()
	for range 2 {
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked call: %v", err)
		}
	}
}

func testPeerClose(t *testing.T, a, b *memnet.Conn) {
	failed := make(chan error, 1)
	go func() {
		_, err := b.Write(make([]byte, 2*memnet.DefaultBuffer))
		failed <- err
	}()
	a.Write([]byte("last words"))
	synctest.Wait()
	a.Close()
	if err := <-failed; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("blocked write of the peer: %v", err)
	}
	if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
		t.Errorf("the peer read %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a later write of the peer: %v", err)
	}
}

// A read that waits while its own end is closed never gets what the peer
// answers to the end of the stream.
func testCloseBeforeAnswer(t *testing.T, _, _ *memnet.Conn) {
	for range 500 {
		a, b := pipe(t, 0)
		go func() {
			io.Copy(io.Discard, b)
			b.Write([]byte("answer"))
			b.Close()
		}()
		go a.Close()
		if n, err := a.Read(make([]byte, 8)); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
}

func testHalfClose(t *testing.T, a, b *memnet.Conn) {
	a.Write([]byte("request"))
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	if got, err := io.ReadAll(b); string(got) != "request" || err != nil {
		t.Errorf("the peer read %q, %v", got, err)
	}
	b.Write([]byte("answer"))
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func testAbort(t *testing.T, a, b *memnet.Conn) {
	b.Write([]byte("unread"))
	a.Write([]byte("lost"))
	a.Abort()
	if _, err := b.Read(make([]byte, 8)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read of the peer: %v", err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write of the peer: %v", err)
	}
	if _, err := a.Read(make([]byte, 8)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("own read: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close of the peer: %v", err)
	}
}

func testFullBuffer(t *testing.T, a, b *memnet.Conn) {
	done := make(chan struct{})
	go func() {
		a.Write(make([]byte, memnet.DefaultBuffer))
		a.Write(make([]byte, 2))
		close(done)
	}()
	// Small reads, so that the buffer's bytes have to move.
	for left := memnet.DefaultBuffer + 2; left > 0; {
		synctest.Wait()
		select {
		case <-done:
			if left > memnet.DefaultBuffer {
				t.Fatalf("the write returned with %d bytes unread", left)
			}
		default:
			if left <= memnet.DefaultBuffer {
				t.Fatalf("the write is blocked with %d bytes unread", left)
			}
		}
		n, err := b.Read(make([]byte, min(left, 1+left/9)))
		if err != nil {
			t.Fatal(err)
		}
		left -= n
	}
}

func testConcurrentMethods(t *testing.T, a, b *memnet.Conn) {
	var wg sync.WaitGroup
	for _, c := range []*memnet.Conn{a, b} {
		for range 20 {
			wg.Go(func() { c.Read(make([]byte, 1024)) })
			wg.Go(func() { c.Write(make([]byte, 1024)) })
			wg.Go(func() { c.SetDeadline(time.Now().Add(10 * time.Millisecond)) })
			wg.Go(func() { c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) })
			wg.Go(func() { c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) })
			wg.Go(func() { _, _ = c.LocalAddr(), c.RemoteAddr() })
		}
	}
	wg.Wait()
}

func testClosed(t *testing.T, a, b *memnet.Conn) {
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var buf [1]byte
	_, read := a.Read(buf[:])
	_, write := a.Write(buf[:])
	for name, err := range map[string]error{
		"Read":             read,
		"Write":            write,
		"Close":            a.Close(),
		"Abort":            a.Abort(),
		"CloseWrite":       a.CloseWrite(),
		"SetDeadline":      a.SetDeadline(time.Now()),
		"SetReadDeadline":  a.SetReadDeadline(time.Now()),
		"SetWriteDeadline": a.SetWriteDeadline(time.Now()),
	} {
		if _, ok := err.(*net.OpError); !ok || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBuffer(t *testing.T) {
	for _, size := range []int{-1, 1, 7, 4096} {
		synctest.Test(t, func(t *testing.T) {
			a, b := pipe(t, size)
			a.SetWriteDeadline(time.Now().Add(time.Second))
			if n, err := a.Write(make([]byte, 10_000)); n != max(size, 1) || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Buffer %d: wrote %d bytes, %v", size, n, err)
			}
			a.Close()
			if got, err := io.ReadAll(b); len(got) != max(size, 1) || err != nil {
				t.Errorf("Buffer %d: read %d bytes, %v", size, len(got), err)
			}
		})
	}
}

// A byte through a warm connection costs no allocation.
func TestAllocations(t *testing.T) {
	a, b := pipe(t, 0)
	buf := make([]byte, 1024)
	got := testing.AllocsPerRun(1000, func() {
		a.Write(buf)
		b.Read(buf)
	})
	if got != 0 {
		t.Errorf("%v allocations for a write and a read", got)
	}
}
