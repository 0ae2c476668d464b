package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// upstream 86: a panic in a hook closes both sides, and goes on. Neither
// place nor connection is lost.
func TestPanicsGiveBack(t *testing.T) {
	hooks := map[string]func(cfg *upstream.Config, boom func(*http.Request)){
		"Observer": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Observer.Attempt = func(r *http.Request, _ upstream.Attempt) { boom(r) }
		},
		"before it is sent": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Wrap = func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					boom(r)
					return rt.RoundTrip(r)
				}), nil
			}
		},
		"with the response": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Wrap = func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					res, err := rt.RoundTrip(r)
					boom(r)
					return res, err
				}), nil
			}
		},
		"When": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Retry.When = func(res *http.Response) bool { boom(res.Request); return false }
		},
		"When, hedged": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Retry.Hedge = time.Hour
			cfg.Retry.When = func(res *http.Response) bool { boom(res.Request); return false }
		},
		"Key": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Key = func(r *http.Request) (uint64, bool) { boom(r); return 0, false }
		},
		"Idempotent": func(cfg *upstream.Config, boom func(*http.Request)) {
			cfg.Retry.Idempotent = func(r *http.Request) bool { boom(r); return true }
			cfg.Retry.When = func(*http.Response) bool { return false }
		},
	}
	for name, hook := range hooks {
		for _, proto := range []memnet.Proto{memnet.HTTP1, memnet.H2C} {
			t.Run(fmt.Sprint(name, " ", proto), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var running atomic.Int32
					scheme := map[memnet.Proto]string{memnet.HTTP1: "http", memnet.H2C: "h2c"}[proto]
					cfg, _ := serveFor(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.(http.Flusher).Flush()
						if r.URL.Path == "/boom" { // has no end
							running.Add(1)
							defer running.Add(-1)
							<-r.Context().Done()
						}
						io.WriteString(w, "ok")
					})}, scheme+"://a")
					cfg.Conns = upstream.Conns{MaxInFlight: 2, QueueTimeout: time.Second}
					hook(&cfg, func(r *http.Request) {
						if r.URL.Path == "/boom" {
							panic(http.ErrAbortHandler)
						}
					})
					p := newPool(t, cfg)
					method := "PUT"
					if name == "Idempotent" {
						method = "POST"
					}
					for range 3 {
						body := &notedBody{Reader: strings.NewReader("x")}
						req := newRequest(t, method, "/boom", "")
						if name != "When, hedged" { // which has no body
							req.Body, req.ContentLength = body, 1
						} else {
							req.Method = "GET"
						}
						func() {
							defer func() {
								if v := recover(); v != http.ErrAbortHandler {
									t.Errorf("recovered %v", v)
								}
							}()
							p.RoundTrip(req)
						}()
						if req.Body != nil && !body.closed.Load() {
							t.Error("the request body is open")
						}
					}
					time.Sleep(time.Second)
					if n := running.Load(); n != 0 {
						t.Errorf("%d requests run on at the back end", n)
					}
					mustSend(t, p, newRequest(t, "GET", "/fine", ""))
					if s := only(t, p); s.Active != 0 || s.Conns != s.Idle {
						t.Errorf("%d active, %d of %d connections idle", s.Active, s.Idle, s.Conns)
					}
					if err := p.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// upstream 86: the same below a Proxy, where the server recovers.
func TestPanicBelowProxy(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, proto memnet.Proto) {
		n := newLAN(t)
		n.add("a", obliging)
		p := n.pool(upstream.Config{
			Conns: upstream.Conns{MaxInFlight: 1, QueueTimeout: time.Second},
			Observer: upstream.Observer{Attempt: func(r *http.Request, _ upstream.Attempt) {
				if r.URL.Path == "/boom" {
					panic("hook")
				}
			}},
		}, "a")
		var recovered bytes.Buffer
		front := memnet.Serve(t, proto, &http.Server{
			Handler:  newProxy(t, upstream.ProxyConfig{Transport: p}),
			ErrorLog: log.New(&recovered, "", 0),
		})
		for range 2 {
			if res, err := front.Client.Get(front.URL + "/boom"); err == nil {
				t.Errorf("status %d", res.StatusCode)
				res.Body.Close()
			}
		}
		res, err := front.Client.Get(front.URL + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		if proto == memnet.HTTP1 && strings.Count(recovered.String(), "panic serving") != 2 {
			t.Errorf("the server wrote %q", recovered.String())
		}
	})
}

// A response that the tripper of Wrap makes itself is the end of the attempt, and
// nothing to the health of the back end unless that has failed before.
func TestWrapAnswers(t *testing.T) {
	own := func(r *http.Request, body io.ReadCloser) *http.Response {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, Request: r}
	}
	setup := func(t *testing.T, answer func(r *http.Request, rt http.RoundTripper) (*http.Response, error)) (*upstream.Pool, *origin) {
		n := newLAN(t)
		o := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			for {
				if req, _, err := o.read(br); err != nil || req.URL.Path == "/fallback" {
					return
				}
				io.WriteString(c, okAnswer)
			}
		})
		return n.pool(upstream.Config{
			Conns: upstream.Conns{MaxInFlight: 1, QueueTimeout: time.Second},
			Retry: upstream.Retry{PerTry: time.Minute},
			Wrap: func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/" {
						return rt.RoundTrip(r)
					}
					return answer(r, rt)
				}), nil
			},
		}, "a"), o
	}
	text := func() io.ReadCloser { return io.NopCloser(strings.NewReader("ok")) }
	for name, body := range map[string]func() io.ReadCloser{"text": text, "none": func() io.ReadCloser { return http.NoBody }, "nil": func() io.ReadCloser { return nil }} {
		t.Run("cached "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ctx context.Context
				p, o := setup(t, func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
					ctx = r.Context()
					return own(r, body()), nil
				})
				for range 3 {
					sent := &notedBody{Reader: strings.NewReader("x")}
					req := newRequest(t, "PUT", "/cached", "")
					req.Body, req.ContentLength = sent, 1
					status, _, backend, err := send(p, req)
					if err != nil || status != 200 || backend != "a" {
						t.Errorf("%d, BackendOf %q, %v", status, backend, err)
					}
					if !sent.closed.Load() {
						t.Error("the request body is open")
					}
					if ctx.Err() == nil {
						t.Error("the context of the attempt has not ended")
					}
				}
				if s := only(t, p); s.Active != 0 || s.Latency != 0 || s.Conns != 0 || len(o.requests()) != 0 {
					t.Errorf("%d active, latency %v, %d connections", s.Active, s.Latency, s.Conns)
				}
			})
		})
	}
	t.Run("instead of a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			p, _ := setup(t, func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
				if _, err := rt.RoundTrip(r); err == nil {
					t.Error("no error")
				}
				return own(r, io.NopCloser(readerFunc(func([]byte) (int, error) {
					select {
					case <-release:
						return 0, io.EOF
					case <-r.Context().Done():
						return 0, r.Context().Err()
					}
				}))), nil
			})
			var bodies []io.Closer
			for range 6 { // its body is open, and MaxInFlight is 1
				res, err := p.RoundTrip(newRequest(t, "POST", "/fallback", "x"))
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, res.Body)
			}
			if s := only(t, p); s.Active != 6 || s.Conns != 0 {
				t.Errorf("%d active, %d connections", s.Active, s.Conns)
			}
			for _, b := range bodies {
				b.Close()
			}
			close(release)
			if s := only(t, p); s.Active != 0 {
				t.Errorf("%d active", s.Active)
			}
		})
	})
	t.Run("too late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var refresh func() error
			p, o := setup(t, func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
				refresh = func() error { _, err := rt.RoundTrip(r); return err }
				return own(r, text()), nil
			})
			mustSend(t, p, newRequest(t, "GET", "/cached", ""))
			if err := refresh(); err == nil || len(o.requests()) != 0 {
				t.Errorf("sent after the answer: %v", err)
			}
		})
	})
	t.Run("an error instead of a response", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, _ := setup(t, func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
				rt.RoundTrip(r) // whose body nobody closes
				return nil, errors.New("no")
			})
			for range 3 {
				if _, _, _, err := send(p, newRequest(t, "POST", "/", "x")); err != nil {
					t.Error(err)
				}
				if _, _, _, err := send(p, newRequest(t, "POST", "/refused", "x")); err == nil {
					t.Error("no error")
				}
			}
			if s := only(t, p); s.Active != 0 || s.Conns != s.Idle {
				t.Errorf("%d active, %d of %d connections idle", s.Active, s.Idle, s.Conns)
			}
		})
	})
}

// A fallback does not hide from passive health that a back end fails, and a
// cache does not make one look well.
func TestWrapAnswersAndHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("b", obliging)
		p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Wrap: func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
			return tripFunc(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path != "/cached" {
					if res, err := rt.RoundTrip(r); err == nil {
						return res, nil
					}
				}
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("ok"))}, nil
			}), nil
		}}, "down", "b")
		for range 8 { // every other one to each
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			mustSend(t, p, newRequest(t, "GET", "/cached", ""))
			mustSend(t, p, newRequest(t, "GET", "/cached", ""))
		}
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		for s := range p.Backends() {
			if want := map[string]upstream.State{"down": upstream.StateEjected}[s.Target.ID]; s.State != want {
				t.Errorf("%s is %v", s.Target.ID, s.State)
			}
		}
	})
}

// Shutdown waits for a request that has no connection: one that pauses before it
// is sent again, and one that a tripper of Wrap has not sent yet. An Update away
// from its back end does the latter no harm either.
func TestShutdownWaitsWithoutConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  upstream.Config
		ends func(t *testing.T, p *upstream.Pool)
		took time.Duration // from half a second after the request
	}{
		{"pause", upstream.Config{
			Targets: []upstream.Target{{URL: "http://busy"}, {URL: "http://b", Priority: 1}},
			Retry:   upstream.Retry{Statuses: []int{503}},
		}, nil, 500 * time.Millisecond},
		{"Wrap", upstream.Config{
			Targets: []upstream.Target{{URL: "http://b"}},
			Retry:   upstream.Retry{Attempts: -1},
			Wrap:    slowToSend,
		}, nil, 9500 * time.Millisecond},
		{"Wrap and Update", upstream.Config{
			Targets: []upstream.Target{{URL: "http://b"}},
			Retry:   upstream.Retry{Attempts: -1},
			Wrap:    slowToSend,
		}, func(t *testing.T, p *upstream.Pool) {
			if err := p.Update([]upstream.Target{{URL: "http://busy"}}); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Second)
		}, 4500 * time.Millisecond},
		{"pause and Update", upstream.Config{
			Targets: []upstream.Target{{URL: "http://busy"}, {URL: "http://b", Priority: 1}},
			Retry:   upstream.Retry{Statuses: []int{503}},
		}, func(t *testing.T, p *upstream.Pool) {
			if err := p.Update([]upstream.Target{{URL: "http://b", ID: "other"}}); err != nil {
				t.Error(err)
			}
		}, 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("busy", answering("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"))
				n.add("b", obliging)
				p := n.pool(c.cfg)
				done := make(chan error, 1)
				go func() {
					status, _, _, err := send(p, newRequest(t, "GET", "/", ""))
					if err == nil && status != 200 {
						err = fmt.Errorf("status %d", status)
					}
					done <- err
				}()
				time.Sleep(500 * time.Millisecond)
				if c.ends != nil {
					c.ends(t, p)
				}
				start := time.Now()
				if err := p.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d < c.took || d > c.took+50*time.Millisecond {
					t.Errorf("Shutdown took %v, want %v", d, c.took)
				}
				if err := <-done; err != nil {
					t.Errorf("the request under way: %v", err)
				}
			})
		})
	}
}

func slowToSend(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
	return tripFunc(func(r *http.Request) (*http.Response, error) {
		time.Sleep(10 * time.Second)
		return rt.RoundTrip(r)
	}), nil
}

// Close ends a pause, and Shutdown does when its context ends. Who is told does not
// hear that the request was never sent.
func TestCloseEndsPause(t *testing.T) {
	for _, how := range []string{"Close", "Shutdown"} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", answering("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"))
			p := n.pool(upstream.Config{Retry: upstream.Retry{Statuses: []int{503}}}, "a")
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, _, _, err := send(p, newRequest(t, "GET", "/", "").WithContext(ctx))
				done <- err
			}()
			time.Sleep(time.Second)
			start := time.Now()
			if how == "Close" {
				p.Close()
			} else {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
			}
			e := wantKind(t, <-done, upstream.KindClosed)
			if d := time.Since(start); d > time.Second || e.NotSent() {
				t.Errorf("%s: after %v, NotSent is %v", how, d, e.NotSent())
			}
		})
	}
}

// What runs when Close is called has been seen by its back end.
func TestClosedIsNotNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", silent)
		p := n.pool(upstream.Config{Conns: upstream.Conns{MaxInFlight: 1}}, "a")
		errs := make([]chan error, 2)
		for i := range errs { // one is sent, the other waits
			errs[i] = make(chan error, 1)
			go func() {
				_, _, _, err := send(p, newRequest(t, "POST", "/", "x"))
				errs[i] <- err
			}()
			synctest.Wait()
		}
		p.Close()
		for i, notSent := range []bool{false, true} {
			if e := wantKind(t, <-errs[i], upstream.KindClosed); e.NotSent() != notSent {
				t.Errorf("request %d: NotSent is %v", i, e.NotSent())
			}
		}
	})
}

// Every body that GetBody has returned is closed once, whether or not it was sent.
func TestGetBodyClosed(t *testing.T) {
	for _, c := range []struct {
		name  string
		hosts []string
		want  int
	}{
		{"no connection", []string{"down1", "down2", "down3"}, 3},
		{"sent again", []string{"stale"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("stale", staleOnce)
				p := n.pool(upstream.Config{}, c.hosts...)
				if c.name == "sent again" {
					mustSend(t, p, newRequest(t, "GET", "/", ""))
				}
				var opened, closed atomic.Int32
				req := newRequest(t, "PUT", "/", "x")
				req.GetBody = func() (io.ReadCloser, error) {
					opened.Add(1)
					return closeCounter{strings.NewReader("x"), &closed}, nil
				}
				req.Body, _ = req.GetBody()
				send(p, req)
				synctest.Wait()
				if opened.Load() != int32(c.want) || closed.Load() != opened.Load() {
					t.Errorf("%d bodies, %d times closed, want %d", opened.Load(), closed.Load(), c.want)
				}
			})
		})
	}
}

// closeCounter counts how often bodies are closed.
type closeCounter struct {
	io.Reader
	n *atomic.Int32
}

func (c closeCounter) Close() error { c.n.Add(1); return nil }

// A tripper that leaves the header out is given one, which the sticky cookie needs.
func TestNoHeader(t *testing.T) {
	for _, wrap := range []bool{false, true} {
		cfg := upstream.Config{
			Targets: []upstream.Target{{URL: "x://a"}},
			Sticky:  &upstream.Sticky{Keys: [][]byte{bytes.Repeat([]byte("k"), 32)}},
			Transport: func(upstream.Target) (http.RoundTripper, error) {
				return tripFunc(func(*http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: 200}, nil
				}), nil
			},
		}
		if wrap {
			cfg.Wrap = func(upstream.Target, http.RoundTripper) (http.RoundTripper, error) {
				return cfg.Transport(upstream.Target{})
			}
		}
		p := newPool(t, cfg)
		res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); len(body) != 0 || err != nil || res.Body.Close() != nil {
			t.Errorf("read %q, %v", body, err)
		}
		if len(res.Header["Set-Cookie"]) != 1 {
			t.Errorf("the header is %v", res.Header)
		}
		if got := only(t, p).Active; got != 0 {
			t.Errorf("%d active", got)
		}
	}
}
