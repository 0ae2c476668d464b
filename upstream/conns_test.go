package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// holding answers a request when release is closed or gets a value.
func holding(release <-chan struct{}) func(*origin, int, *memnet.Conn) {
	return func(o *origin, _ int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		for {
			if _, _, err := o.read(br); err != nil {
				return
			}
			<-release
			io.WriteString(c, okAnswer)
		}
	}
}

// upstream 83: the queue is bounded in length and in time, and what does not
// fit is answered with 503 and a Retry-After.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		release := make(chan struct{})
		o := n.add("a", holding(release))
		p := n.pool(upstream.Config{Conns: upstream.Conns{MaxInFlight: 2, Queue: 3, QueueTimeout: 5 * time.Second}}, "a")
		errs := make(chan error, 10)
		for range 5 {
			go func() {
				_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
				errs <- err
			}()
			synctest.Wait()
		}
		if s := only(t, p); s.Queued != 3 || s.Conns != 2 || s.Active != 5 {
			t.Errorf("%d queued, %d connections, %d active", s.Queued, s.Conns, s.Active)
		}
		start := time.Now()
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		e := wantKind(t, err, upstream.KindQueueFull)
		if e.HTTPStatus() != 503 || e.RetryAfter <= 0 || time.Since(start) != 0 || !e.NotSent() || e.Kind.BackendFault() {
			t.Errorf("got %v: %d, %v, after %v", e, e.HTTPStatus(), e.RetryAfter, time.Since(start))
		}

		// One that leaves makes room in the queue.
		ctx, cancel := context.WithCancel(t.Context())
		time.Sleep(time.Second)
		release <- struct{}{} // one of two is answered, one of three moves up
		synctest.Wait()
		if err := <-errs; err != nil {
			t.Error(err)
		}
		go func() {
			_, _, _, err := send(p, newRequest(t, "GET", "/", "").WithContext(ctx))
			errs <- err
		}()
		synctest.Wait()
		cancel()
		wantKind(t, <-errs, upstream.KindClientGone)

		// The two that still wait give up when their time has passed.
		start = time.Now()
		for range 2 {
			e := wantKind(t, <-errs, upstream.KindQueueTimeout)
			if d := time.Since(start); d != 4*time.Second || e.HTTPStatus() != 503 || !e.Timeout() {
				t.Errorf("waited for %v more, %d", d, e.HTTPStatus())
			}
		}
		close(release)
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if got := len(o.requests()); got != 3 {
			t.Errorf("%d requests arrived, want 3", got)
		}
		if s := only(t, p); s.Queued != 0 || s.Active != 0 || s.Idle != 2 || s.Failed() != 0 {
			t.Errorf("at the end: %+v", s)
		}
	})
}

// A full queue sends the request to another back end, if there is one.
func TestQueueFullMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		release := make(chan struct{})
		n.add("a", holding(release))
		n.add("b", holding(release))
		p := n.pool(upstream.Config{
			Picker: upstream.RoundRobin(),
			Conns:  upstream.Conns{MaxInFlight: 1, Queue: -1},
		}, "a", "b")
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, _, _, err := send(p, newRequest(t, "POST", "/", "x"))
				errs <- err
			}()
			synctest.Wait()
		}
		wantKind(t, <-errs, upstream.KindQueueFull)
		close(release)
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// Requests that wait are served in the order in which they came.
func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		release := make(chan struct{})
		o := n.add("a", holding(release))
		p := n.pool(upstream.Config{Conns: upstream.Conns{MaxConns: 1}}, "a")
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { mustSend(t, p, newRequest(t, "GET", fmt.Sprintf("/%d", i), "")) })
			synctest.Wait()
		}
		close(release)
		wg.Wait()
		for i, got := range o.requests() {
			if want := fmt.Sprintf("GET /%d", i); got != want {
				t.Errorf("request %d is %q", i, got)
			}
		}
		if got := o.conns.Load(); got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
	})
}

// unhurried is a context whose deadline passes and whose timer does not run, as
// it may be for a moment on a busy machine.
type unhurried struct {
	context.Context
	deadline time.Time
}

func (c unhurried) Deadline() (time.Time, bool) { return c.deadline, true }

// A back end that ends a request at its deadline, of which gRPC tells it, is not
// at fault, and the deadline is what the client hears of; also where this
// process's own timer is late.
func TestDeadlineByTheClock(t *testing.T) {
	for _, sent := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"} {
		for _, early := range []time.Duration{0, time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					if _, _, err := o.read(bufio.NewReader(c)); err != nil {
						return
					}
					io.WriteString(c, sent)
					time.Sleep(time.Second - early)
				})
				p := n.pool(upstream.Config{}, "a")
				ctx := unhurried{t.Context(), time.Now().Add(time.Second)}
				_, _, _, err := send(p, newRequest(t, "POST", "/", "").WithContext(ctx))
				want, faults := upstream.KindDeadline, uint64(0)
				if early > 0 {
					want, faults = upstream.KindNoResponse, 1
					if sent != "" {
						want = upstream.KindBodyAborted
					}
				}
				if e := wantKind(t, err, want); errors.Is(e, context.DeadlineExceeded) != (early == 0) {
					t.Errorf("sent %q, %v early: %v", sent, early, err)
				}
				if s := only(t, p); s.Failed() != faults {
					t.Errorf("sent %q, %v early: %d faults of the back end, want %d", sent, early, s.Failed(), faults)
				}
			})
		}
	}
}

// A request that leaves while its connection is being made does not take the
// connection with it.
func TestAbandonedDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", obliging)
		slow := func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			time.Sleep(time.Second)
			return n.dial(ctx, network, addr)
		}
		p := n.pool(upstream.Config{Dial: slow}, "a")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _, _, err := send(p, newRequest(t, "GET", "/", "").WithContext(ctx))
		e := wantKind(t, err, upstream.KindDeadline)
		if !errors.Is(err, context.DeadlineExceeded) || e.HTTPStatus() != 504 || !e.Timeout() {
			t.Errorf("got %v, %d", err, e.HTTPStatus())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := only(t, p); s.Conns != 1 || s.Idle != 1 || s.Active != 0 {
			t.Errorf("%d connections, %d idle, %d active", s.Conns, s.Idle, s.Active)
		}
		start := time.Now()
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		if d := time.Since(start); d != 0 {
			t.Errorf("the connection was not used: %v", d)
		}
	})
}

// Idle connections: how many are kept, for how long, and which is used next.
func TestIdle(t *testing.T) {
	use := func(t *testing.T, p *upstream.Pool, n int) {
		t.Helper()
		var held []*http.Response
		for range n {
			res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, res)
		}
		for _, res := range held {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			time.Sleep(time.Second)
		}
		synctest.Wait()
	}
	t.Run("MaxIdle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{MaxIdle: 2}}, "a")
			use(t, p, 5)
			if s := only(t, p); s.Idle != 2 || s.Conns != 2 {
				t.Errorf("%d idle of %d, want 2", s.Idle, s.Conns)
			}
		})
	})
	t.Run("MaxIdle after dials that nobody waits for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", obliging)
			gate := make(chan struct{})
			p := n.pool(upstream.Config{Conns: upstream.Conns{MaxIdle: 2}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				<-gate
				return n.dial(ctx, network, addr)
			}}, "a")
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { send(p, newRequest(t, "GET", "/", "").WithContext(ctx)) })
			}
			synctest.Wait()
			cancel()
			wg.Wait()
			close(gate)
			synctest.Wait()
			if s := only(t, p); s.Idle != 2 || s.Conns != 2 || o.conns.Load() != 20 {
				t.Errorf("%d idle of %d, after %d dials, want 2", s.Idle, s.Conns, o.conns.Load())
			}
			mustSend(t, p, newRequest(t, "GET", "/", ""))
		})
	})
	t.Run("none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{MaxIdle: -1}}, "a")
			use(t, p, 1)
			use(t, p, 1)
			if s := only(t, p); s.Conns != 0 || o.conns.Load() != 2 {
				t.Errorf("%d connections of %d are left", s.Conns, o.conns.Load())
			}
		})
	})
	t.Run("IdleTimeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{IdleTimeout: 20 * time.Second}}, "a")
			use(t, p, 3)
			time.Sleep(16 * time.Second)
			if s := only(t, p); s.Idle != 3 {
				t.Errorf("%d idle after 17 to 19 s, want 3", s.Idle)
			}
			time.Sleep(5500 * time.Millisecond)
			synctest.Wait()
			if s := only(t, p); s.Conns != 0 {
				t.Errorf("%d connections after 21 s, want none", s.Conns)
			}
		})
	})
	t.Run("order", func(t *testing.T) {
		for _, oldest := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				var mu sync.Mutex
				var used []int
				n.add("a", func(o *origin, k int, c *memnet.Conn) {
					br := bufio.NewReader(c)
					for {
						if _, _, err := o.read(br); err != nil {
							return
						}
						mu.Lock()
						used = append(used, k)
						mu.Unlock()
						io.WriteString(c, okAnswer)
					}
				})
				p := n.pool(upstream.Config{Conns: upstream.Conns{OldestFirst: oldest}}, "a")
				use(t, p, 3)
				mu.Lock()
				used = nil
				mu.Unlock()
				use(t, p, 1)
				use(t, p, 1)
				mu.Lock()
				defer mu.Unlock()
				if want := map[bool]string{false: "[3 3]", true: "[1 2]"}[oldest]; fmt.Sprint(used) != want {
					t.Errorf("OldestFirst %v: used %v, want %s", oldest, used, want)
				}
			})
		}
	})
	t.Run("MaxAge", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{MaxAge: time.Minute}}, "a")
			for range 120 {
				use(t, p, 1)
			}
			if got := o.conns.Load(); got < 2 || got > 3 {
				t.Errorf("%d connections in two minutes, want 2 or 3", got)
			}
		})
	})
	t.Run("MaxRequests", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{MaxRequests: 3}}, "a")
			for range 9 {
				use(t, p, 1)
			}
			if got := o.conns.Load(); got != 3 {
				t.Errorf("%d connections for 9 requests, want 3", got)
			}
		})
	})
	t.Run("MinIdle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{MinIdle: 3, IdleTimeout: 10 * time.Second}}, "a")
			for range 30 {
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if s := only(t, p); s.Idle < 2 {
					t.Fatalf("%d idle, want 3", s.Idle)
				}
			}
			n.remove("a")
			p.CloseIdleConnections()
			time.Sleep(time.Minute)
			if s := only(t, p); s.DialFailures == 0 || s.DialFailures > 60 {
				t.Errorf("%d dials failed in a minute", s.DialFailures)
			}
		})
	})
}

// A back end's announced idle time is believed, less a second.
func TestKeepAliveTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("a", answering("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 2\r\n\r\nok"))
		p := n.pool(upstream.Config{}, "a")
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		time.Sleep(3900 * time.Millisecond)
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		if got := o.conns.Load(); got != 1 {
			t.Fatalf("%d connections, want 1", got)
		}
		time.Sleep(4 * time.Second)
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		if got := o.conns.Load(); got != 2 {
			t.Errorf("%d connections after 4 s of 5, want 2", got)
		}
	})
}

// Where the back end says nothing, the age at which it closes is learned.
func TestIdleTimeLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var closed atomic.Int32
		o := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			for {
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, _, err := o.read(br); err != nil {
					closed.Add(1)
					return
				}
				io.WriteString(c, okAnswer)
			}
		})
		p := n.pool(upstream.Config{}, "a")
		for range 2 {
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			time.Sleep(6 * time.Second)
		}
		if got := closed.Load(); got != 2 {
			t.Fatalf("the back end closed %d connections, want 2", got)
		}
		before := o.conns.Load()
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		time.Sleep(4500 * time.Millisecond) // the back end would still take it, but only just
		synctest.Wait()
		if s := only(t, p); s.Conns != 0 {
			t.Errorf("%d connections after 4.5 s, want none", s.Conns)
		}
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		if got := o.conns.Load() - before; got != 2 {
			t.Errorf("%d connections for two requests, want 2", got)
		}
	})
}

// One stale connection takes those with it that have been idle as long.
func TestSiblingPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		dead := make(chan struct{})
		n.add("a", func(o *origin, k int, c *memnet.Conn) {
			obligingFor(o, c, 1)
			if k > 8 {
				obligingFor(o, c, 1<<30)
			}
			<-dead // silently gone: what arrives is neither read nor refused
			o.read(bufio.NewReader(c))
		})
		p := n.pool(upstream.Config{Retry: upstream.Retry{Attempts: 1}}, "a")
		var held []*http.Response
		for range 8 {
			res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, res)
		}
		for _, res := range held {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		close(dead)
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		synctest.Wait()
		if s := only(t, p); s.Conns != 1 || s.Attempts != 10 {
			t.Errorf("%d connections, %d attempts; want 1 and 10", s.Conns, s.Attempts)
		}
	})
}

// A back end that closes whatever is opened does not make the Pool dial for
// ever.
func TestClosesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var dials atomic.Int32
		n.add("a", func(*origin, int, *memnet.Conn) {})
		p := n.pool(upstream.Config{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			c, err := n.dial(ctx, network, addr)
			time.Sleep(time.Millisecond)
			return c, err
		}}, "a")
		_, _, _, err := send(p, newRequest(t, "POST", "/", "x"))
		if err == nil {
			t.Fatal("no error")
		}
		// Three for each of three attempts, of which nothing was written. Most
		// often it is fewer, since an end that comes a moment later costs an
		// attempt and not a dial.
		if got := dials.Load(); got > 9 {
			t.Errorf("%d dials", got)
		}
	})
}

// The limits of time for a dial and for a response header.
func TestTimeouts(t *testing.T) {
	t.Run("dial", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			p := n.pool(upstream.Config{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}, "a")
			start := time.Now()
			_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
			e := wantKind(t, err, upstream.KindDial)
			if d := time.Since(start); d != 3*time.Second || !e.Timeout() || e.HTTPStatus() != 504 {
				t.Errorf("after %v: %v, %d", d, e, e.HTTPStatus())
			}
		})
	})
	for _, body := range []string{"", "a body"} {
		t.Run("header"+body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", silent)
				p := n.pool(upstream.Config{Conns: upstream.Conns{HeaderTimeout: 8 * time.Second}}, "a")
				start := time.Now()
				_, _, _, err := send(p, newRequest(t, "GET", "/", body))
				e := wantKind(t, err, upstream.KindHeaderTimeout)
				if d := time.Since(start); d < 8*time.Second || d > 9*time.Second || !e.Timeout() || e.HTTPStatus() != 504 {
					t.Errorf("after %v: %v, %d", d, e, e.HTTPStatus())
				}
				if s := only(t, p); s.Conns != 0 || s.Active != 0 {
					t.Errorf("%d connections, %d active", s.Conns, s.Active)
				}
			})
		})
	}
	t.Run("a slow client is not late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", obliging)
			p := n.pool(upstream.Config{Conns: upstream.Conns{HeaderTimeout: 2 * time.Second}}, "a")
			pr, pw := io.Pipe()
			go func() {
				for range 3 {
					io.WriteString(pw, "x")
					time.Sleep(5 * time.Second)
				}
				pw.Close()
			}()
			req := newRequest(t, "POST", "/", "x")
			req.Body, req.ContentLength = pr, -1
			mustSend(t, p, req)
		})
	})
	t.Run("a back end that stops reading is", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", func(o *origin, _ int, c *memnet.Conn) {
				bufio.NewReaderSize(c, 16).ReadString('\n')
				<-t.Context().Done()
			})
			p := n.pool(upstream.Config{Conns: upstream.Conns{HeaderTimeout: 2 * time.Second}}, "a")
			start := time.Now()
			_, _, _, err := send(p, newRequest(t, "POST", "/", strings.Repeat("x", 1<<20)))
			wantKind(t, err, upstream.KindHeaderTimeout)
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("after %v", d)
			}
		})
	})
	t.Run("a long answer is not late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", func(o *origin, _ int, c *memnet.Conn) {
				o.read(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\no")
				time.Sleep(10 * time.Second)
				io.WriteString(c, "k")
			})
			p := n.pool(upstream.Config{Conns: upstream.Conns{HeaderTimeout: 2 * time.Second}}, "a")
			mustSend(t, p, newRequest(t, "GET", "/", ""))
		})
	})
}

// upstream 65: a caller that leaves ends the exchange at once, and it is not
// the back end's fault.
func TestCallerLeaves(t *testing.T) {
	for _, when := range []string{"before the header", "in the body"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				gone := make(chan time.Time, 1)
				n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					br := bufio.NewReader(c)
					o.read(br)
					if when == "in the body" {
						io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok")
					}
					br.ReadByte()
					gone <- time.Now()
				})
				p := n.pool(upstream.Config{}, "a")
				cause := errors.New("left")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(cause) })
				start := time.Now()
				_, _, _, err := send(p, newRequest(t, "GET", "/", "").WithContext(ctx))
				e := wantKind(t, err, upstream.KindClientGone)
				if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || e.HTTPStatus() != 499 {
					t.Errorf("got %v, %d", err, e.HTTPStatus())
				}
				if d := (<-gone).Sub(start); d > 1100*time.Millisecond {
					t.Errorf("the back end heard of it after %v", d)
				}
				if s := only(t, p); s.Failed() != 0 || s.Active != 0 {
					t.Errorf("blamed for %d failures, %d active", s.Failed(), s.Active)
				}
			})
		})
	}
}
