package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/upstream"
)

// A Pool over a tripper that it was given keeps the contract of
// http.RoundTripper.
func TestPoolConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		pools := make(map[string]*upstream.Pool)
		for _, scheme := range []string{"http", "https"} {
			p, err := upstream.New(upstream.Config{
				Targets:   []upstream.Target{{URL: scheme + "://127.0.0.1:8080", PreserveHost: true}},
				Transport: func(upstream.Target) (http.RoundTripper, error) { return base, nil },
				Retry:     upstream.Retry{Attempts: -1},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			pools[scheme] = p
		}
		return byScheme(pools)
	}})
}

// byScheme sends a request to the Pool whose targets have its scheme.
type byScheme map[string]*upstream.Pool

func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	p := b["http"]
	if r.URL != nil && r.URL.Scheme == "https" {
		p = b["https"]
	}
	return p.RoundTrip(r)
}

func (b byScheme) CloseIdleConnections() {
	for _, p := range b {
		p.CloseIdleConnections()
	}
}

// Update drops no request: those that run on a target that goes away end
// undisturbed, and what stays keeps its connections.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		release := make(chan struct{})
		a := n.add("a", holding(release))
		n.add("b", obliging)
		p := n.pool(upstream.Config{}, "a")
		done := make(chan error, 1)
		go func() {
			_, body, _, err := send(p, newRequest(t, "GET", "/slow", ""))
			if body != "ok" {
				err = fmt.Errorf("%q, %v", body, err)
			}
			done <- err
		}()
		synctest.Wait()
		if err := p.Update([]upstream.Target{{URL: "http://b", ID: "b"}}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "b" {
				t.Errorf("answered by %q", got)
			}
		}
		time.Sleep(10 * time.Second)
		close(release)
		if err := <-done; err != nil {
			t.Errorf("the request under way: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := a.l; got == nil || len(a.requests()) != 1 {
			t.Errorf("the target that is gone saw %q", a.requests())
		}

		// The same target, heavier: its connection stays.
		if err := p.Update([]upstream.Target{{URL: "http://b", ID: "b", Weight: 5, MaxInFlight: 7}, {URL: "http://c", ID: "c", Draining: true}}); err != nil {
			t.Fatal(err)
		}
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		var ids []string
		for s := range p.Backends() {
			ids = append(ids, fmt.Sprint(s.Target.ID, s.Target.Weight, s.State, s.Conns))
		}
		if got := strings.Join(ids, " "); got != "b5 healthy 1 c1 draining 0" {
			t.Errorf("got %s", got)
		}
		if healthy, total := p.Healthy(); healthy != 1 || total != 2 {
			t.Errorf("%d healthy of %d", healthy, total)
		}

		// Nothing changes where anything is wrong.
		err := p.Update([]upstream.Target{{URL: "http://x"}, {URL: "ftp://y"}, {URL: "http://x"}})
		if err == nil || strings.Count(err.Error(), "upstream: Targets[") != 2 {
			t.Errorf("got %v", err)
		}
		if err := p.Update(nil); err == nil {
			t.Error("no error for no target")
		}
		if _, total := p.Healthy(); total != 2 {
			t.Errorf("%d targets after the errors", total)
		}
	})
}

// Updates and requests at the same time.
func TestUpdateConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		for _, h := range []string{"a", "b", "c"} {
			n.add(h, obliging)
		}
		p := n.pool(upstream.Config{}, "a", "b")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					mustSend(t, p, newRequest(t, "POST", "/", "x"))
				}
			})
		}
		wg.Go(func() {
			for i := range 50 {
				hosts := []upstream.Target{{URL: "http://a", ID: "a"}, {URL: "http://b", ID: "b"}, {URL: "http://c", ID: "c"}}
				if err := p.Update(append(hosts[i%3:], hosts[:i%2]...)); err != nil && !strings.Contains(err.Error(), "unique") {
					t.Error(err)
				}
				time.Sleep(time.Microsecond)
			}
		})
		wg.Wait()
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			o.read(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			time.Sleep(5 * time.Second)
			io.WriteString(c, "k")
		})
		p := n.pool(upstream.Config{}, "a")
		done := make(chan error, 1)
		go func() {
			_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
			done <- err
		}()
		time.Sleep(time.Second)
		start := time.Now()
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 4*time.Second || d > 4100*time.Millisecond {
			t.Errorf("took %v, want 4 s", d)
		}
		if err := <-done; err != nil {
			t.Errorf("the request under way: %v", err)
		}
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		e := wantKind(t, err, upstream.KindClosed)
		if e.HTTPStatus() != 503 || !e.NotSent() {
			t.Errorf("got %d", e.HTTPStatus())
		}
		if err := p.Update([]upstream.Target{{URL: "http://b"}}); err == nil {
			t.Error("Update after Shutdown: no error")
		}
		if err := errors.Join(p.Shutdown(t.Context()), p.Close(), p.Close()); err != nil {
			t.Error(err)
		}
	})
}

// Shutdown waits for requests, and for no check, however long one may take.
func TestShutdownDuringChecks(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, proto memnet.Proto) {
		scheme := map[memnet.Proto]string{memnet.HTTP1: "http", memnet.H2C: "h2c"}[proto]
		asked := make(chan struct{}, 1)
		cfg, _ := serveFor(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done()
		})}, scheme+"://a")
		cfg.Check = &upstream.Check{Timeout: time.Hour}
		p := newPool(t, cfg)
		<-asked
		synctest.Wait()
		if s := only(t, p); s.Conns != 1 {
			t.Fatalf("%d connections", s.Conns)
		}
		start := time.Now()
		if err := p.Shutdown(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// Dials may begin while Close waits for those under way: either they are
// waited for, or there are none.
func TestCloseWhileDialling(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", obliging)
			n.add("b", func(_ *origin, _ int, c *memnet.Conn) {}) // closes at once
			p := n.pool(upstream.Config{Retry: upstream.Retry{Hedge: time.Microsecond, Budget: -1}}, "a", "b")
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for {
						_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
						if e, ok := errors.AsType[*upstream.Error](err); ok && e.Kind == upstream.KindClosed {
							return
						}
					}
				})
			}
			for range 3 {
				wg.Go(func() {
					runtime.Gosched()
					p.Close()
				})
			}
			wg.Wait()
		})
	}
}

// Close interrupts what runs, waits for its goroutines, and leaves no
// connection open. upstream 84: no goroutine is left, or the bubble would not
// end.
func TestClose(t *testing.T) {
	for _, how := range []string{"Close", "Shutdown"} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			closed := make(chan struct{}, 9)
			n.add("a", func(o *origin, k int, c *memnet.Conn) {
				silent(o, k, c)
				closed <- struct{}{}
			})
			p := n.pool(upstream.Config{Conns: upstream.Conns{MaxInFlight: 2}}, "a")
			errs := make(chan error, 3)
			for range 3 { // two are sent, one waits
				go func() {
					_, _, _, err := send(p, newRequest(t, "POST", "/", "x"))
					errs <- err
				}()
			}
			time.Sleep(time.Second)
			if how == "Close" {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			} else {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				cancel()
			}
			for range 3 {
				wantKind(t, <-errs, upstream.KindClosed)
			}
			<-closed
			<-closed
		})
	}
}

func TestWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", obliging)
		n.add("b", obliging)
		p := n.pool(upstream.Config{Conns: upstream.Conns{MinIdle: 3}}, "a", "b")
		if err := p.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
		for s := range p.Backends() {
			if s.Idle != 3 || s.Attempts != 0 {
				t.Errorf("%s: %d idle, %d attempts", s.Target.ID, s.Idle, s.Attempts)
			}
		}
		n.remove("b")
		p.CloseIdleConnections()
		err := p.Warm(t.Context())
		if e := wantKind(t, err, upstream.KindDial); e.Backend != "b" {
			t.Errorf("got %v", err)
		}
	})
}

// Hosts refuses what is meant for somebody else.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", obliging)
		p := n.pool(upstream.Config{Hosts: []string{"label"}}, "a")
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		req := newRequest(t, "GET", "/", "")
		req.URL.Host = "elsewhere"
		_, _, _, err := send(p, req)
		wantKind(t, err, upstream.KindPolicy)
	})
}

// upstream 56: the Host of a request selects nothing, and reaches the back end
// as the target says.
func TestHostField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		hosts := make(chan string, 1)
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			for {
				req, _, err := o.read(br)
				if err != nil {
					return
				}
				hosts <- req.Host
				io.WriteString(c, okAnswer)
			}
		})
		p := n.pool(upstream.Config{}, "a")
		q := n.pool(upstream.Config{Targets: []upstream.Target{{URL: "http://a:8080", Host: "inner.test"}}})
		req := newRequest(t, "GET", "/", "")
		before := req.Clone(t.Context())
		mustSend(t, p, req)
		if got := <-hosts; got != "label" {
			t.Errorf("Host %q", got)
		}
		mustSend(t, q, req)
		if got := <-hosts; got != "inner.test" {
			t.Errorf("with Target.Host: %q", got)
		}
		if req.Host != before.Host || req.URL.String() != before.URL.String() {
			t.Errorf("the request was changed: %v", req)
		}
		req.Host = "b.test"
		mustSend(t, p, req)
		if got := <-hosts; got != "b.test" {
			t.Errorf("Host %q", got)
		}
	})
}

// gateError says that a wrapper did not send the request.
type gateError struct{ notSent bool }

func (e gateError) Error() string { return "the gate is closed" }
func (e gateError) NotSent() bool { return e.notSent }

// Wrap: a tripper per target that sees each attempt, and may refuse it.
func TestWrap(t *testing.T) {
	setup := func(t *testing.T, wrap func(upstream.Target, http.RoundTripper) (http.RoundTripper, error)) *upstream.Pool {
		n := newLAN(t)
		n.add("a", obliging)
		n.add("b", obliging)
		return n.pool(upstream.Config{Picker: upstream.RoundRobin(), Wrap: wrap}, "a", "b")
	}
	t.Run("sees every attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var calls sync.Map
			p := setup(t, func(target upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					calls.Store(target.ID+" "+r.URL.Host+" "+r.Header.Get("X"), true)
					r = r.Clone(r.Context())
					r.Header.Set("X", "signed")
					return rt.RoundTrip(r)
				}), nil
			})
			for range 2 {
				mustSend(t, p, newRequest(t, "POST", "/", "x"))
			}
			for _, want := range []string{"a a ", "b b "} {
				if _, ok := calls.Load(want); !ok {
					t.Errorf("no call %q", want)
				}
			}
			p.CloseIdleConnections()
		})
	})
	for _, c := range []struct {
		name  string
		err   error
		moves bool
	}{
		{"not sent", gateError{true}, true},
		{"not sent, wrapped", fmt.Errorf("breaker: %w", gateError{true}), true},
		{"says nothing", errors.New("cannot sign"), false},
		{"says it was sent", gateError{false}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := setup(t, func(target upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
					if target.ID == "b" {
						return rt, nil
					}
					return tripFunc(func(r *http.Request) (*http.Response, error) {
						r.Body.Close()
						return nil, c.err
					}), nil
				})
				failed := 0
				for range 10 {
					_, _, backend, err := send(p, newRequest(t, "POST", "/", "x"))
					if err != nil {
						failed++
						e := wantKind(t, err, upstream.KindGate)
						if !errors.Is(err, c.err) || e.HTTPStatus() != 503 || e.Backend != "a" {
							t.Errorf("got %v, %d", e, e.HTTPStatus())
						}
					} else if backend != "b" {
						t.Errorf("answered by %q", backend)
					}
				}
				if c.moves != (failed == 0) {
					t.Errorf("%d of 10 failed", failed)
				}
				for s := range p.Backends() {
					if s.Failed() != 0 || s.State != upstream.StateHealthy || s.Active != 0 {
						t.Errorf("%s is blamed: %v, %d active", s.Target.ID, s.State, s.Active)
					}
				}
			})
		})
	}
	t.Run("called twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := setup(t, func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					res, err := rt.RoundTrip(r)
					if _, err := rt.RoundTrip(r); err == nil {
						t.Error("a second call was answered")
					}
					if _, err := rt.RoundTrip(r.WithContext(context.Background())); err == nil {
						t.Error("a call without the context was answered")
					}
					return res, err
				}), nil
			})
			mustSend(t, p, newRequest(t, "GET", "/", ""))
		})
	})
	t.Run("its own body", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := setup(t, func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					res, err := rt.RoundTrip(r)
					if err == nil {
						res.Body = struct {
							io.Reader
							io.Closer
						}{res.Body, res.Body}
					}
					return res, err
				}), nil
			})
			if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "a" && got != "b" {
				t.Errorf("BackendOf: %q", got)
			}
		})
	})
	t.Run("construction", func(t *testing.T) {
		_, err := upstream.New(upstream.Config{
			Targets: []upstream.Target{{URL: "http://a"}},
			Wrap:    func(upstream.Target, http.RoundTripper) (http.RoundTripper, error) { return nil, errors.New("no key") },
		})
		if err == nil || !strings.Contains(err.Error(), "no key") {
			t.Errorf("got %v", err)
		}
	})
}

// closableTripper is a tripper that knows whether it was closed.
type closableTripper struct {
	http.RoundTripper
	closed atomic.Bool
}

func (c *closableTripper) Close() error { c.closed.Store(true); return nil }

// Config.Transport: trippers for schemes that the Pool does not know.
func TestTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := make(map[string]*closableTripper)
		p, err := upstream.New(upstream.Config{
			Targets: []upstream.Target{{URL: "carrier-pigeon://loft:1", ID: "p"}, {URL: "http://down", ID: "down"}},
			Picker:  upstream.RoundRobin(),
			Dial:    newLAN(t).dial,
			Transport: func(target upstream.Target) (http.RoundTripper, error) {
				if target.ID != "p" {
					return nil, nil
				}
				c := &closableTripper{RoundTripper: tripFunc(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/slow" {
						<-r.Context().Done()
						return nil, context.Cause(r.Context())
					}
					return &http.Response{
						StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
						Body: io.NopCloser(strings.NewReader(r.URL.Scheme + " " + r.URL.Host + " " + r.Host)), Request: r,
					}, nil
				})}
				made[target.ID] = c
				return c, nil
			},
			Conns: upstream.Conns{HeaderTimeout: time.Second, MaxInFlight: 1, Queue: -1},
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			_, body, backend, err := send(p, newRequest(t, "GET", "/", ""))
			if body != "carrier-pigeon loft:1 loft:1" || backend != "p" || err != nil {
				t.Errorf("got %q from %q, %v", body, backend, err)
			}
		}
		p.CloseIdleConnections()
		time.Sleep(10 * time.Minute) // it does not go away as a connection does
		go func() {
			time.Sleep(500 * time.Millisecond)
			_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
			if e, ok := errors.AsType[*upstream.Error](err); !ok || e.Kind != upstream.KindQueueFull && e.Kind != upstream.KindDial {
				t.Errorf("above MaxInFlight: %v", err)
			}
		}()
		start := time.Now()
		_, _, _, err = send(p, newRequest(t, "GET", "/slow", ""))
		wantKind(t, err, upstream.KindHeaderTimeout)
		if d := time.Since(start); d != time.Second {
			t.Errorf("after %v", d)
		}
		p.Close()
		if !made["p"].closed.Load() {
			t.Error("the tripper was not closed")
		}
	})
	for _, how := range []string{"Close", "Update"} {
		t.Run("of net/http, "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				o := n.add("a", obliging)
				var open atomic.Int32
				p, err := upstream.New(upstream.Config{
					Targets: []upstream.Target{{URL: "http://a"}},
					Transport: func(upstream.Target) (http.RoundTripper, error) {
						return &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
							c, err := n.dial(ctx, network, addr)
							if err == nil {
								open.Add(1)
								c = &toldConn{Conn: c, closed: sync.OnceFunc(func() { open.Add(-1) })}
							}
							return c, err
						}}, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
				if err != nil {
					t.Fatal(err)
				}
				if how == "Update" { // while it runs
					if err := p.Update([]upstream.Target{{URL: "http://b"}}); err != nil {
						t.Fatal(err)
					}
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if how == "Close" {
					p.Close()
				}
				time.Sleep(3 * time.Second)
				if n := open.Load(); n != 0 || o.conns.Load() != 1 {
					t.Errorf("%d connections of %d are left", n, o.conns.Load())
				}
			})
		})
	}
	_, err := upstream.New(upstream.Config{
		Targets:   []upstream.Target{{URL: "gopher://x"}},
		Transport: func(upstream.Target) (http.RoundTripper, error) { return nil, nil },
	})
	if err == nil {
		t.Error("a scheme that nobody serves: no error")
	}
}

// toldConn is a connection that says when it is closed.
type toldConn struct {
	net.Conn
	closed func()
}

func (c *toldConn) Close() error { c.closed(); return c.Conn.Close() }

// What the Observer is told.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("b", obliging)
		var mu sync.Mutex
		var seen []string
		p := n.pool(upstream.Config{
			Picker:  upstream.RoundRobin(),
			Outlier: upstream.Outlier{Failures: 2},
			Observer: upstream.Observer{
				State: func(c upstream.StateChange) {
					mu.Lock()
					defer mu.Unlock()
					seen = append(seen, fmt.Sprintf("%s %v>%v", c.Target.ID, c.Old, c.New))
				},
				Attempt: func(r *http.Request, a upstream.Attempt) {
					mu.Lock()
					defer mu.Unlock()
					if a.Err != nil {
						seen = append(seen, fmt.Sprintf("%s #%d failed", a.Target.ID, a.Number))
					}
				},
			},
		}, "down", "b")
		for range 6 {
			mustSend(t, p, newRequest(t, "GET", "/", ""))
		}
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(seen, ", "); got != "down #1 failed, down healthy>ejected, down #1 failed" &&
			got != "down #1 failed, down #1 failed, down healthy>ejected" {
			t.Errorf("got %s", got)
		}
		for s := range p.Backends() {
			if s.Target.ID == "down" && (s.State != upstream.StateEjected || s.DialFailures != 2 || failures(&s, upstream.KindDial) != 2) {
				t.Errorf("%+v", s)
			}
			if s.Target.ID == "b" && (s.Statuses[2] != 6 || s.Attempts != 6 || s.Failed() != 0) {
				t.Errorf("%+v", s)
			}
		}
	})
}

// An unhealthy back end gets nothing, its idle connections are closed, and it
// comes back when its check passes again.
func TestCheckedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var sick atomic.Bool
		a := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			for {
				req, _, err := o.read(br)
				if err != nil {
					return
				}
				if req.URL.Path == "/healthz" && sick.Load() {
					io.WriteString(c, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
				} else {
					io.WriteString(c, okAnswer)
				}
			}
		})
		n.add("b", obliging)
		p := n.pool(upstream.Config{
			Check: &upstream.Check{Path: "/healthz", Interval: time.Second, UnhealthyInterval: time.Second},
		}, "a", "b")
		count := func() (got int) {
			for range 50 {
				if mustSend(t, p, newRequest(t, "GET", "/", "")) == "a" {
					got++
				}
			}
			return got
		}
		if got := count(); got == 0 {
			t.Error("a healthy back end got nothing")
		}
		sick.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if healthy, total := p.Healthy(); healthy != 1 || total != 2 {
			t.Errorf("%d of %d are healthy", healthy, total)
		}
		if got := count(); got != 0 {
			t.Errorf("the sick back end got %d of 50", got)
		}
		for s := range p.Backends() {
			if s.Target.ID == "a" && s.Attempts > 50 {
				t.Errorf("checks are counted as attempts: %d", s.Attempts)
			}
		}
		sick.Store(false)
		time.Sleep(60 * time.Second) // slow start included
		if got := count(); got == 0 {
			t.Error("it did not come back")
		}
		if a.conns.Load() == 0 {
			t.Error("never asked")
		}
	})
}

// announcer is a Resolver that a test drives.
type announcer struct {
	set     chan []upstream.Target
	refresh atomic.Int32
}

func (a *announcer) Watch(ctx context.Context, set func([]upstream.Target)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ts := <-a.set:
			set(ts)
		}
	}
}

func (a *announcer) Refresh() { a.refresh.Add(1) }

func TestResolvedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("10.0.0.1", obliging)
		n.add("10.0.0.2", obliging)
		r := &announcer{set: make(chan []upstream.Target)}
		p := n.pool(upstream.Config{Resolver: r})
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		if e := wantKind(t, err, upstream.KindNoBackend); e.HTTPStatus() != 503 || e.RetryAfter <= 0 {
			t.Errorf("before the first answer: %d", e.HTTPStatus())
		}
		for _, ip := range []string{"10.0.0.1", "10.0.0.2"} {
			r.set <- []upstream.Target{{URL: "http://svc.test:80", Addr: ip + ":80"}}
			synctest.Wait()
			if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "http://svc.test:80@"+ip+":80" {
				t.Errorf("answered by %q", got)
			}
		}
		n.remove("10.0.0.2")
		p.CloseIdleConnections()
		send(p, newRequest(t, "GET", "/", ""))
		if r.refresh.Load() == 0 {
			t.Error("a dial failed, and the resolver was not asked again")
		}
		r.set <- nil // an error, which is logged; the targets stay
		synctest.Wait()
		if _, total := p.Healthy(); total != 1 {
			t.Errorf("%d targets", total)
		}
	})
}

// A sticky client stays with its back end.
func TestStickyPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", obliging)
		n.add("b", obliging)
		p := n.pool(upstream.Config{
			Picker: upstream.RoundRobin(),
			Sticky: &upstream.Sticky{Keys: [][]byte{[]byte(strings.Repeat("k", 32))}},
		}, "a", "b")
		res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		first, _ := upstream.BackendOf(res)
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		cookies := res.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("cookies %v", cookies)
		}
		for range 5 {
			req := newRequest(t, "GET", "/", "")
			req.AddCookie(&http.Cookie{Name: cookies[0].Name, Value: cookies[0].Value})
			if got := mustSend(t, p, req); got != first {
				t.Errorf("answered by %q, not %q", got, first)
			}
		}
	})
}

func TestConfigProblems(t *testing.T) {
	_, err := upstream.New(upstream.Config{
		Targets: []upstream.Target{
			{URL: "http://a", Weight: -1, Priority: -1},
			{URL: "http://user:secret@a"},
			{URL: "http://a/path"},
			{URL: "ftp://a"},
			{URL: "http://"},
			{URL: "unix://host/path"},
			{URL: "http://a", Host: "a b"},
			{URL: "http://b", Addr: "nonsense"},
			{URL: "https://c", Host: "x", PreserveHost: true},
			{URL: "http://a:99999"},
			{URL: "http://a:0"},
			{URL: "http://c", Addr: "10.0.0.1:"},
			{URL: "http://d", Addr: "10.0.0.1:65536"},
		},
		FailOpen: 101,
		Hosts:    []string{""},
		Conns:    upstream.Conns{MaxResponseHeader: 1, MinIdle: 100, MaxConns: 2},
		Retry:    upstream.Retry{Attempts: 11, Budget: 101, Body: 1 << 30, Statuses: []int{200}},
		Sticky:   &upstream.Sticky{},
		Check:    &upstream.Check{Path: "x"},
		Outlier:  upstream.Outlier{MaxPercent: 101},
		Picker:   upstream.Maglev(0.5),
	})
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	for _, want := range []string{
		"Targets[0].Weight", "Targets[0].Priority", "Targets[1].URL", "Targets[2].URL", "Targets[3].URL", "Targets[4].URL",
		"Targets[5].URL", "Targets[6].Host", "Targets[7].Addr", "Targets[8].PreserveHost",
		"Targets[9].URL", "Targets[10].URL", "Targets[11].Addr", "Targets[12].Addr", "FailOpen", "Hosts",
		"Conns.MaxResponseHeader", "Conns.MinIdle", "Retry.Attempts", "Retry.Budget", "Retry.Body", "Retry.Statuses",
		"Sticky.Keys", "Check.Path", "Outlier.MaxPercent", "Picker",
	} {
		if !strings.Contains(text, "upstream: "+want+":") {
			t.Errorf("nothing about %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("the password is in the error:\n%s", text)
	}
	if !strings.Contains(text, `(got "10.0.0.1:")`) {
		t.Errorf("the address is not in the error:\n%s", text)
	}
	if _, err := upstream.New(upstream.Config{}); err == nil {
		t.Error("the zero Config: no error")
	}
}

// A check of gRPC health needs HTTP/2, which a target without TLS speaks only
// if its scheme says so: what could never pass is refused, later as well.
func TestCheckSuitsTargets(t *testing.T) {
	none := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") }
	for url, ok := range map[string]bool{
		"http://a": false, "unix:///a": false,
		"https://a": true, "h2://a": true, "h2c://a": true, "grpc://a": true, "grpcs://a": true, "unix+h2c:///a": true,
	} {
		p, err := upstream.New(upstream.Config{
			Targets: []upstream.Target{{URL: url}},
			Check:   &upstream.Check{Kind: upstream.CheckGRPC},
			Dial:    none,
		})
		if ok != (err == nil) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil {
			if want := "upstream: Targets[0].URL: "; !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), url) {
				t.Errorf("got %v", err)
			}
			continue
		}
		if err := p.Update([]upstream.Target{{URL: "http://a"}}); err == nil {
			t.Error("Update takes a target that cannot be checked")
		}
		p.Close()
	}
}

// A check of connections is refused where there are none of the Pool's own.
func TestCheckTCPSuitsTargets(t *testing.T) {
	foreign := func(target upstream.Target) (http.RoundTripper, error) {
		if target.ID == "own" {
			return nil, nil
		}
		return http.DefaultTransport, nil
	}
	check := &upstream.Check{Kind: upstream.CheckTCP}
	for url, want := range map[string]string{
		"pigeon://a": `upstream: Targets[0].URL: must have a scheme of this package's, for Check.Kind is CheckTCP (got "pigeon://a")`,
		"http://a":   "upstream: Targets: no tripper: that of Config.Transport makes its own connections, so that Check.Kind cannot be CheckTCP (got x)",
	} {
		targets := []upstream.Target{{URL: url, ID: "x"}}
		if p, err := upstream.New(upstream.Config{Targets: targets, Transport: foreign, Check: check}); err == nil {
			p.Close()
			t.Errorf("%s: no error", url)
		} else if err.Error() != want {
			t.Errorf("%s: got %v", url, err)
		}
		p := newPool(t, upstream.Config{
			Targets:   []upstream.Target{{URL: "http://127.0.0.1:1", ID: "own"}},
			Transport: foreign, Check: check,
			Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
		})
		if err := p.Update(targets); err == nil || err.Error() != want {
			t.Errorf("Update to %s: got %v", url, err)
		}
	}
}

// A check takes no place of a request's, however long it lasts.
func TestCheckTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			for {
				req, _, err := o.read(br)
				if err != nil {
					return
				}
				if req.URL.Path == "/healthz" {
					time.Sleep(time.Second)
				}
				io.WriteString(c, okAnswer)
			}
		})
		p := n.pool(upstream.Config{
			Conns: upstream.Conns{MaxInFlight: 1, Queue: -1},
			Check: &upstream.Check{Path: "/healthz"},
		}, "a")
		synctest.Wait() // the first check is under way
		start := time.Now()
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		if d := time.Since(start); d != 0 {
			t.Errorf("it waited for %v", d)
		}
		time.Sleep(2 * time.Second)
		if s := only(t, p); s.Active != 0 || s.Idle != 2 || s.State != upstream.StateHealthy {
			t.Errorf("%+v", s)
		}
	})
}

// A check through a tripper of the user's that leaves its body out, or answers
// with nothing at all, is judged as any.
func TestCheckOfCarelessTripper(t *testing.T) {
	for _, res := range []*http.Response{{StatusCode: 200}, {StatusCode: 500}, nil} {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(t, upstream.Config{
				Targets: []upstream.Target{{URL: "x://a"}},
				Transport: func(upstream.Target) (http.RoundTripper, error) {
					return tripFunc(func(*http.Request) (*http.Response, error) { return res, nil }), nil
				},
				Check: new(upstream.Check),
			})
			synctest.Wait()
			want := upstream.StateUnhealthy
			if res != nil && res.StatusCode == 200 {
				want = upstream.StateHealthy
			}
			if got := only(t, p).State; got != want {
				t.Errorf("%+v: %v, want %v", res, got, want)
			}
		})
	}
}

// Warm waits for the resolver's first answer, where there is nothing else to
// make connections to.
func TestWarmWaitsForResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("10.0.0.1", obliging)
		r := &announcer{set: make(chan []upstream.Target)}
		p := n.pool(upstream.Config{Resolver: r})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Warm(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an answer: %v", err)
		}
		done := make(chan error)
		go func() { done <- p.Warm(t.Context()) }()
		time.Sleep(time.Minute)
		r.set <- []upstream.Target{{URL: "http://svc.test:80", Addr: "10.0.0.1:80"}}
		err := <-done
		synctest.Wait() // until it is accepted
		if err != nil || o.conns.Load() != 1 {
			t.Errorf("%v, %d connections", err, o.conns.Load())
		}
		mustSend(t, p, newRequest(t, "GET", "/", ""))

		closed := n.pool(upstream.Config{Resolver: &announcer{}})
		go func() { done <- closed.Warm(t.Context()) }()
		synctest.Wait()
		closed.Close()
		wantKind(t, <-done, upstream.KindClosed)
	})
}
