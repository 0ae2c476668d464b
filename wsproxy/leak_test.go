package wsproxy_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/wsproxy"
)

// ways are how a tunnel can end, the client's part of each. The path of the
// request tells the back end what its part is.
func ways() map[string]func(*end) error {
	wait := func(e *end) error {
		_, _ = io.Copy(io.Discard, e)
		return nil
	}
	return map[string]func(*end) error{
		"/close": func(e *end) error { // the closing handshake
			if err := e.sendClose(1000, "bye"); err != nil {
				return err
			}
			_, err := readClose(e)
			return errors.Join(err, wait(e))
		},
		"/half":  func(e *end) error { return errors.Join(e.CloseWrite(), wait(e)) },
		"/reset": func(e *end) error { return e.Abort() },
		"/gone":  func(e *end) error { return e.Close() },
		"/bad":   func(e *end) error { return errors.Join(e.sendFrame(frame{fin: true, op: 7}), wait(e)) },
		"/large": func(e *end) error { return errors.Join(e.send(opBinary, string(make([]byte, 2<<10))), wait(e)) },
		"/back/close": func(e *end) error {
			if _, err := readClose(e); err != nil {
				return err
			}
			_ = e.sendClose(1001, "") // over HTTP/2 the stream may be gone
			return wait(e)
		},
		"/back/half":  func(e *end) error { return errors.Join(wait(e), e.Close()) },
		"/back/reset": wait,
		"/back/bad":   wait,
		"/full": func(e *end) error { // with bytes under way in both directions
			if err := e.sendFrame(frame{op: opBinary, payload: make([]byte, 1<<10)}); err != nil {
				return err
			}
			return e.Abort()
		},
	}
}

// endings is the back end's part of the ways.
func endings(c *backConn) {
	if c.request.URL.Path == "/refused" {
		_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		return
	}
	if c.request.URL.Path == "/wrong" {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
		return
	}
	if c.request.URL.Path == "/silent" {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	switch c.request.URL.Path {
	case "/back/close":
		_ = c.accept("")
		_ = c.sendClose(1001, "going")
		_, _ = readClose(c.end)
	case "/back/half":
		_ = errors.Join(c.accept(""), c.CloseWrite())
		_, _ = io.Copy(io.Discard, c)
	case "/back/reset":
		_ = errors.Join(c.accept(""), c.Abort())
	case "/back/bad":
		_ = errors.Join(c.accept(""), c.sendFrame(frame{fin: true, op: 7}))
		_, _ = io.Copy(io.Discard, c)
	case "/full":
		_ = c.accept("")
		_, _ = c.Write(frame{fin: true, op: opBinary, payload: filler(900)}.wire())
		_, _ = io.Copy(io.Discard, c)
	default:
		echo(c)
	}
}

// wsproxy 31: after more than a thousand tunnels that ended in every way there is, and
// handshakes that came to nothing, no goroutine, descriptor or tunnel is left,
// and each that was opened was closed once.
func TestNothingIsLeft(t *testing.T) {
	for _, p := range pairs(false) {
		if p.mode == wsproxy.Tunnel && p.tls {
			continue // frames through TLS take the same path with more in it
		}
		t.Run(p.String(), func(t *testing.T) {
			// The first ones make what a process has once, such as the poller.
			t.Run("first", func(t *testing.T) { endEveryWay(t, p, 1) })
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			t.Run("all", func(t *testing.T) { endEveryWay(t, p, 60) })
			settled(t, "goroutines", goroutines, runtime.NumGoroutine)
			settled(t, "descriptors", files, func() int { return openFiles(t) })
		})
	}
}

func endEveryWay(t *testing.T, p pair, count int) {
	var opened, closed atomic.Int64
	cfg := wsproxy.Config{
		OnOpen:  func(wsproxy.Info) { opened.Add(1) },
		OnClose: func(wsproxy.Stats) { closed.Add(1) },
	}
	cfg.Limits.Frame = 1 << 10
	cfg.Timeouts.Linger, cfg.Timeouts.Close = 2*time.Second, 200*time.Millisecond
	x := p.start(t, cfg, endings)
	all := ways()
	if p.mode == wsproxy.Tunnel { // which these do not end
		delete(all, "/back/bad")
		delete(all, "/large")
	}
	paths := append(slices.Sorted(maps.Keys(all)), "/refused", "/wrong", "/silent", "/by-id")
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
				path := paths[int(i)%len(paths)]
				if err := x.endOnce(t, path, all[path]); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
	workers.Wait()
	settled(t, "tunnels", 0, func() (n int) {
		for range x.proxy.Tunnels() {
			n++
		}
		return n
	})
	settled(t, "connections of the back end", 0, x.back.Open)
	if err := x.proxy.Close(); err != nil {
		t.Error(err)
	}
	if o, c := opened.Load(), closed.Load(); o == 0 || o != c {
		t.Errorf("%d tunnels opened, %d closed", o, c)
	}
}

// endOnce opens a tunnel, or tries to, and ends it in one way.
func (x *proxied) endOnce(t *testing.T, path string, finish func(*end) error) error {
	if path == "/silent" {
		return x.giveUp(t)
	}
	e, res, err := x.attempt(t, request{path: path})
	if path == "/back/reset" {
		return nil // the reset may overtake the answer
	}
	if err != nil {
		return err
	}
	defer e.Close()
	want := x.success()
	switch path {
	case "/refused":
		want = http.StatusForbidden
	case "/wrong":
		want = http.StatusBadGateway
	}
	if res.StatusCode != want {
		return fmt.Errorf("status %d, want %d", res.StatusCode, want)
	}
	if path == "/by-id" {
		// When an echo has come back the tunnel is in the list, too. Without one
		// another of these has closed them all.
		_ = e.send(opText, "hello")
		_, _ = e.recv()
		x.closeByID()
		_, _ = io.Copy(io.Discard, e)
	} else if finish != nil {
		return finish(e)
	}
	return nil
}

// closeByID closes the tunnels to /by-id by their IDs.
func (x *proxied) closeByID() {
	for i := range x.proxy.Tunnels() {
		if i.Path == "/by-id" {
			_, _ = x.proxy.CloseTunnel(i.ID, 1001, "")
		}
	}
}

// giveUp is a client that is gone before the back end has answered.
func (x *proxied) giveUp(t *testing.T) error {
	conn, err := x.connect(t.Context())
	if err != nil {
		return err
	}
	if !x.front.h2() {
		_, err = fmt.Fprintf(conn, "GET /silent HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
		return errors.Join(err, conn.Close())
	}
	c, err := openH2(conn, h2Config{})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer c.Close()
	st, err := c.Request(connectFields(x.front.scheme(), "x", "/silent")...)
	if err != nil {
		return err
	}
	return st.Abort()
}

// openFiles counts the descriptors of this process, where it can be done.
func openFiles(t *testing.T) int {
	t.Helper()
	runtime.GC() // the pipes of splice are kept in a sync.Pool
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(all)
}

// settled waits until a count has come down to what it was.
func settled(t *testing.T, what string, want int, count func() int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		n := count()
		if n <= want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			buf := make([]byte, 1<<20)
			t.Errorf("%d %s are left, %d at the start\n%s", n, what, want, buf[:runtime.Stack(buf, true)])
			return
		}
	}
}
