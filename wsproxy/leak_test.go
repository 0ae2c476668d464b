package wsproxy_test

import (
	"context"
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
// handshakes that came to nothing, no goroutine, descriptor, buffer or tunnel is
// left, and each that was opened was closed once.
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
	if err := errors.Join(x.proxy.Close(), x.pools.Check()); err != nil {
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

// wsproxy 31: buffers come back from tunnels that end with bytes under way,
// whoever ends them and however the bytes were passed: in chunks, or, where the
// frames are long and both sides are plain TCP, by splice.
func TestBuffersComeBack(t *testing.T) {
	for _, p := range pairs(false) {
		if p.tls {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			var all sync.WaitGroup // at the same time, since most of it is waiting
			bySize := make(map[int][]*stuck)
			for name, how := range stuckEnds() {
				for _, size := range []int{16 << 10, 8 << 20} {
					x := newStuck(t, p, how)
					bySize[size] = append(bySize[size], x)
					all.Go(func() {
						if err := x.run(t, size); err != nil {
							t.Errorf("%s, frames of %d: %v", name, size, err)
						}
					})
				}
			}
			all.Wait()
			for size, xs := range bySize {
				for i := range xs {
					for xs[i].early {
						how := xs[i].how
						how.timeouts.Lifetime *= 2
						xs[i] = newStuck(t, p, how)
						if err := xs[i].run(t, size); err != nil {
							t.Errorf("lifetime of %v, frames of %d: %v", how.timeouts.Lifetime, size, err)
						}
					}
				}
			}
			if runtime.GOOS != "linux" || p.mode == wsproxy.Tunnel { // where it depends on how fast they come
				return
			}
			for size, xs := range bySize {
				var spliced, writes int
				for _, x := range xs {
					spliced += int(x.spliced)
					writes += x.pools.Writes()
				}
				if want := p.front == frontH1 && size > 64<<10; (spliced > 0) != want || writes == 0 {
					t.Errorf("frames of %d: %d bytes by splice, %d writes to the sockets themselves", size, spliced, writes)
				}
			}
		})
	}
}

// stuckEnd is what ends a tunnel of which the back end takes nothing.
type stuckEnd struct {
	timeouts wsproxy.Timeouts
	end      func(*proxied, *end) error
	back     func(*backConn) // when the test says so; nil is to wait
}

func stuckEnds() map[string]stuckEnd {
	// Over HTTP/1.1 a client that is gone is not seen before the write ends. On a
	// machine that is busy the bytes may not have stopped for good, and all of them
	// go through: then there is an end of the client's side to linger for.
	soon := wsproxy.Timeouts{WriteStall: 200 * time.Millisecond, Linger: 200 * time.Millisecond}
	// Where the machine is busy that comes first, and the client's own end has
	// nobody left to tell.
	gone := func(end func() error) error {
		_ = end()
		return nil
	}
	return map[string]stuckEnd{
		"client resets":   {timeouts: soon, end: func(_ *proxied, e *end) error { return gone(e.Abort) }},
		"client leaves":   {timeouts: soon, end: func(_ *proxied, e *end) error { return gone(e.Close) }},
		"back end resets": {back: func(c *backConn) { _ = c.Abort() }},
		"back end closes": {
			timeouts: soon,
			back:     func(c *backConn) { _ = c.CloseWrite() },
		},
		"write stall": {timeouts: wsproxy.Timeouts{WriteStall: 100 * time.Millisecond}},
		"lifetime":    {timeouts: wsproxy.Timeouts{Lifetime: 100 * time.Millisecond, Close: 50 * time.Millisecond}},
		"by its ID": {
			timeouts: wsproxy.Timeouts{Close: 50 * time.Millisecond},
			end: func(x *proxied, _ *end) error {
				for i := range x.proxy.Tunnels() {
					if ok, err := x.proxy.CloseTunnel(i.ID, 1001, ""); !ok || err != nil {
						return fmt.Errorf("CloseTunnel: %t, %w", ok, err)
					}
				}
				return nil
			},
		},
		"drain": {
			timeouts: wsproxy.Timeouts{Close: 50 * time.Millisecond},
			end:      func(x *proxied, _ *end) error { return x.proxy.Drain(wsproxy.Drain{Spread: -1}) },
		},
		"shutdown": {end: func(x *proxied, _ *end) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := x.proxy.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("Shutdown: %w", err)
			}
			return nil
		}},
		"close": {end: func(x *proxied, _ *end) error { return x.proxy.Close() }},
	}
}

// stuck is a tunnel that is to end in one way.
type stuck struct {
	*proxied
	how       stuckEnd
	spliced   uint64        // of the client's bytes
	early     bool          // its lifetime was over before the first of them
	act, over chan struct{} // what the back end waits for
	closed    chan wsproxy.Stats
}

func newStuck(t *testing.T, p pair, how stuckEnd) *stuck {
	s := &stuck{how: how, act: make(chan struct{}), over: make(chan struct{}), closed: make(chan wsproxy.Stats, 1)}
	cfg := wsproxy.Config{Timeouts: how.timeouts, OnClose: func(stats wsproxy.Stats) { s.closed <- stats }}
	s.proxied = p.start(t, cfg, func(c *backConn) {
		if c.accept("") != nil {
			return
		}
		<-s.act
		if how.back != nil {
			how.back(c)
		}
		<-s.over
	})
	return s
}

func (s *stuck) run(t *testing.T, size int) error {
	defer close(s.over)
	acted := sync.OnceFunc(func() { close(s.act) })
	defer acted()
	e, res, err := s.attempt(t, request{})
	if err != nil || res.StatusCode != s.success() {
		return fmt.Errorf("handshake: %v, %w", res, err)
	}
	wire := frame{fin: true, op: opBinary, masked: true, payload: make([]byte, size)}.wire()
	go func() {
		for {
			if _, err := e.Write(wire); err != nil {
				return
			}
		}
	}()
	s.wait(t)
	acted()
	if s.how.end != nil {
		err = s.how.end(s.proxied, e)
	}
	stats := <-s.closed
	s.early = stats.End == wsproxy.EndLifetime && stats.FromClient.Bytes == 0
	if s.pools.Taken() == 0 && !s.early {
		err = errors.Join(err, errors.New("no buffer was taken"))
	}
	s.spliced = stats.FromClient.Spliced
	return errors.Join(err, s.proxy.Close(), s.pools.Check())
}

// wait returns when bytes of the client have stopped to move, or the tunnel
// has ended.
func (s *stuck) wait(t *testing.T) {
	last, same := uint64(0), 0
	settled(t, "moving tunnels", 0, func() int {
		if len(s.closed) > 0 {
			return 0
		}
		for i := range s.proxy.Tunnels() {
			if bytes := i.FromClient.Bytes; bytes == 0 || bytes != last {
				last, same = bytes, 0
			}
		}
		if same++; same > 4 && last > 0 {
			return 0
		}
		return 1
	})
}
