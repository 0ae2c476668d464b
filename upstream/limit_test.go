package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
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

// slowly answers each request after d; one for /never gets no answer, and one for
// /end the end of the connection after a second.
func slowly(d time.Duration) func(*origin, int, *memnet.Conn) {
	return func(o *origin, _ int, c *memnet.Conn) { slowlyOver(o, c, d) }
}

func slowlyOver(o *origin, c net.Conn, d time.Duration) {
	br := bufio.NewReader(c)
	for {
		req, _, err := o.read(br)
		if err != nil {
			return
		}
		switch req.URL.Path {
		case "/never":
			continue
		case "/end":
			time.Sleep(time.Second)
			return
		}
		time.Sleep(d)
		io.WriteString(c, okAnswer)
	}
}

// HeaderTimeout means the same whatever lies below HTTP/1.1: a connection on
// which it passed is not one that had gone stale, so that nothing is sent again
// unless Retry.Timeouts says so.
func TestHeaderTimeoutOverTLS(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		for _, again := range []bool{false, true} {
			t.Run(scheme, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := &http.Server{}
					trust := memnet.Serve(t, memnet.HTTP2, srv) // for its certificate
					n := newLAN(t)
					o := n.add("127.0.0.1", func(o *origin, _ int, c *memnet.Conn) {
						if scheme == "http" {
							slowlyOver(o, c, 0)
							return
						}
						tc := tls.Server(c, &tls.Config{Certificates: srv.TLSConfig.Certificates})
						defer tc.Close()
						slowlyOver(o, tc, 0)
					})
					p := n.pool(upstream.Config{
						Targets: []upstream.Target{{URL: scheme + "://127.0.0.1"}},
						TLS:     &tls.Config{RootCAs: trust.Transport.TLSClientConfig.RootCAs},
						Conns:   upstream.Conns{HeaderTimeout: 2 * time.Second},
						Retry:   upstream.Retry{Timeouts: again},
					})
					mustSend(t, p, newRequest(t, "GET", "/", ""))
					start, want := time.Now(), 2
					if again {
						want = 3
					}
					_, _, _, err := send(p, newRequest(t, "DELETE", "/never", ""))
					e := wantKind(t, err, upstream.KindHeaderTimeout)
					if d := time.Since(start); !e.Timeout() || d > time.Duration(want-1)*2500*time.Millisecond {
						t.Errorf("%v after %v", e, d)
					}
					if got := o.requests(); len(got) != want {
						t.Errorf("Timeouts: %v: the back end saw %q", again, got)
					}
				})
			})
		}
	}
}

// What a back end sends before its header is complete gains it no time.
func TestHeaderTimeoutTrickle(t *testing.T) {
	for name, bytes := range map[string][2]string{
		"a header":          {"HTTP/1.1 200 OK\r\nX: ", "y"},
		"interim responses": {"", "HTTP/1.1 102 Processing\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					o.read(bufio.NewReader(c))
					io.WriteString(c, bytes[0])
					for {
						time.Sleep(time.Second)
						if _, err := io.WriteString(c, bytes[1]); err != nil {
							return
						}
					}
				})
				p := n.pool(upstream.Config{Conns: upstream.Conns{HeaderTimeout: 8 * time.Second}}, "a")
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				_, _, _, err := send(p, newRequest(t, "POST", "/", "x").WithContext(ctx))
				wantKind(t, err, upstream.KindHeaderTimeout)
				if d := time.Since(start); d < 8*time.Second || d > 9*time.Second {
					t.Errorf("after %v", d)
				}
			})
		})
	}
}

// A tripper of Config.Wrap may send a body of its own, made of all of ours or
// while that comes in. HeaderTimeout begins when the last of it was taken.
func TestHeaderTimeoutOfWrappedBody(t *testing.T) {
	gather := func(ours io.Reader) io.ReadCloser {
		b, _ := io.ReadAll(ours)
		return io.NopCloser(bytes.NewReader(b))
	}
	pass := func(ours io.Reader) io.ReadCloser {
		pr, pw := io.Pipe()
		go func() {
			_, err := io.Copy(pw, ours)
			pw.CloseWithError(err)
		}()
		return pr
	}
	// as Config.Transport's trippers do
	foreign := func(upstream.Target) (http.RoundTripper, error) {
		return tripFunc(func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}), nil
	}
	for name, body := range map[string]func(io.Reader) io.ReadCloser{"gathered": gather, "passed": pass} {
		for _, transport := range []func(upstream.Target) (http.RoundTripper, error){nil, foreign} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newLAN(t)
					n.add("a", silent)
					p := n.pool(upstream.Config{
						Transport: transport,
						Conns:     upstream.Conns{HeaderTimeout: 8 * time.Second},
						Wrap: func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
							return tripFunc(func(r *http.Request) (*http.Response, error) {
								r = r.WithContext(r.Context())
								r.Body = body(r.Body)
								return rt.RoundTrip(r)
							}), nil
						},
					}, "a")
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					start := time.Now()
					_, _, _, err := send(p, newRequest(t, "POST", "/", "some bytes").WithContext(ctx))
					wantKind(t, err, upstream.KindHeaderTimeout)
					if d := time.Since(start); d < 8*time.Second || d > 9*time.Second {
						t.Errorf("after %v", d)
					}
				})
			})
		}
	}
}

// A tripper of Config.Transport whose response begins before the request body
// has ended: the end of that body does not put a limit to the response.
func TestForeignEarlyResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, upstream.Config{
			Targets: []upstream.Target{{URL: "x://a"}},
			Conns:   upstream.Conns{HeaderTimeout: 2 * time.Second},
			Transport: func(upstream.Target) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					go func() { io.Copy(io.Discard, r.Body); r.Body.Close() }()
					pr, pw := io.Pipe()
					go func() {
						defer pw.Close()
						for range 20 {
							select {
							case <-time.After(500 * time.Millisecond):
								io.WriteString(pw, "x")
							case <-r.Context().Done():
								pw.CloseWithError(context.Cause(r.Context()))
							}
						}
					}()
					return &http.Response{StatusCode: 200, Header: http.Header{}, Body: pr, ContentLength: -1, Request: r}, nil
				}), nil
			},
		})
		pr, pw := io.Pipe()
		go func() {
			time.Sleep(time.Second)
			io.WriteString(pw, "up")
			pw.Close()
		}()
		req := newRequest(t, "POST", "/", "x")
		req.Body, req.ContentLength = pr, -1
		if _, body, _, err := send(p, req); err != nil || len(body) != 20 {
			t.Errorf("got %q, %v", body, err)
		}
		if s := only(t, p); s.Failed() != 0 {
			t.Errorf("the back end is blamed: %v", maps.Collect(s.Failures()))
		}
	})
}

// The limits of a tripper of Config.Transport begin when it is called, and both
// hold.
func TestForeignLimits(t *testing.T) {
	for _, perTry := range []time.Duration{0, 3 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(t, upstream.Config{
				Targets: []upstream.Target{{URL: "x://a"}},
				Conns:   upstream.Conns{HeaderTimeout: 4 * time.Second, MaxInFlight: 1, QueueTimeout: time.Hour},
				Retry:   upstream.Retry{PerTry: perTry},
				Transport: func(upstream.Target) (http.RoundTripper, error) {
					return tripFunc(func(r *http.Request) (*http.Response, error) {
						select {
						case <-time.After(map[string]time.Duration{"/": 2500 * time.Millisecond, "/never": time.Hour}[r.URL.Path]):
							return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
						case <-r.Context().Done():
							return nil, context.Cause(r.Context())
						}
					}), nil
				},
			})
			if perTry == 0 {
				var wg sync.WaitGroup
				for range 5 {
					wg.Go(func() {
						if _, _, _, err := send(p, newRequest(t, "GET", "/", "")); err != nil {
							t.Errorf("a request that waited in the queue: %v", err)
						}
					})
				}
				wg.Wait()
			}
			want := 4 * time.Second
			if perTry > 0 {
				want = min(want, perTry)
			}
			start := time.Now()
			_, _, _, err := send(p, newRequest(t, "GET", "/never", ""))
			wantKind(t, err, upstream.KindHeaderTimeout)
			if d := time.Since(start); d != want {
				t.Errorf("after %v, want %v", d, want)
			}
		})
	}
}

// A response that comes as its limit passes is delivered in whole, or it has come
// too late: it is not begun and then cut short.
func TestLimitAsTheResponseComes(t *testing.T) {
	for _, limits := range []upstream.Config{
		{Retry: upstream.Retry{PerTry: time.Second}},
		{Conns: upstream.Conns{HeaderTimeout: time.Second}},
	} {
		for range 50 {
			synctest.Test(t, func(t *testing.T) {
				cfg := limits
				cfg.Targets = []upstream.Target{{URL: "x://a"}}
				cfg.Transport = func(upstream.Target) (http.RoundTripper, error) {
					return tripFunc(func(r *http.Request) (*http.Response, error) {
						time.Sleep(time.Second)
						pr, pw := io.Pipe()
						go func() {
							select {
							case <-time.After(time.Second):
								io.WriteString(pw, "ok")
								pw.Close()
							case <-r.Context().Done():
								pw.CloseWithError(context.Cause(r.Context()))
							}
						}()
						return &http.Response{StatusCode: 200, Header: http.Header{}, Body: pr, ContentLength: -1, Request: r}, nil
					}), nil
				}
				if _, _, _, err := send(newPool(t, cfg), newRequest(t, "GET", "/", "")); err != nil {
					wantKind(t, err, upstream.KindHeaderTimeout)
				}
			})
		}
	}
}

// The time in our own queue counts as PerTry and not against the back end, and a
// request that was never sent goes to another one whatever its method.
func TestPerTryInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", slowly(80*time.Millisecond))
		n.add("b", slowly(80*time.Millisecond))
		p := n.pool(upstream.Config{
			Conns: upstream.Conns{MaxInFlight: 1},
			Retry: upstream.Retry{PerTry: 100 * time.Millisecond},
		}, "a", "b")
		var late atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, _, _, err := send(p, newRequest(t, "POST", "/", "x")); err != nil {
					e := wantKind(t, err, upstream.KindQueueTimeout)
					if !e.NotSent() || e.HTTPStatus() != 503 || e.RetryAfter == 0 {
						t.Errorf("got %v, %d", e, e.HTTPStatus())
					}
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if late.Load() == 0 {
			t.Error("none waited too long")
		}
		for s := range p.Backends() {
			if s.Failed() != 0 || s.State != upstream.StateHealthy {
				t.Errorf("%s: %v, %v", s.Target.ID, maps.Collect(s.Failures()), s.State)
			}
		}
	})
	t.Run("moves on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", slowly(1500*time.Millisecond))
			n.add("b", obliging)
			p := n.pool(upstream.Config{
				Targets: []upstream.Target{{URL: "http://a", ID: "a"}, {URL: "http://b", ID: "b", Priority: 1}},
				Conns:   upstream.Conns{MaxInFlight: 1},
				Retry:   upstream.Retry{PerTry: 2 * time.Second, Attempts: 1},
			})
			var wg sync.WaitGroup
			var at sync.Map
			for range 3 {
				wg.Go(func() {
					start := time.Now()
					backend := mustSend(t, p, newRequest(t, "POST", "/", "x"))
					at.Store(time.Since(start), backend)
				})
			}
			wg.Wait()
			if b, _ := at.Load(2 * time.Second); b != "b" {
				t.Errorf("answered after 2 s by %v", b)
			}
		})
	})
	t.Run("as the place comes free", func(t *testing.T) {
		for range 50 {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", slowly(time.Second))
				p := n.pool(upstream.Config{
					Conns: upstream.Conns{MaxInFlight: 1},
					Retry: upstream.Retry{PerTry: 2 * time.Second},
				}, "a")
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						if _, _, _, err := send(p, newRequest(t, "POST", "/", "x")); err != nil {
							wantKind(t, err, upstream.KindQueueTimeout)
						}
					})
				}
				wg.Wait()
				if s := only(t, p); s.Failed() != 0 || s.Active != 0 || s.Conns != 1 {
					t.Errorf("%v, %d active, %d connections", maps.Collect(s.Failures()), s.Active, s.Conns)
				}
			})
		}
	})
}

// A dial that takes longer than PerTry is the back end's fault, and nothing was
// sent.
func TestPerTryInTheDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("b", obliging)
		p := n.pool(upstream.Config{
			Picker: upstream.RoundRobin(),
			Retry:  upstream.Retry{PerTry: time.Second},
			Conns:  upstream.Conns{DialTimeout: -1},
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if strings.HasPrefix(addr, "b:") {
					return n.dial(ctx, network, addr)
				}
				<-ctx.Done()
				return nil, context.Cause(ctx)
			},
		}, "nowhere", "b")
		slow := 0
		for range 4 {
			start := time.Now()
			if got := mustSend(t, p, newRequest(t, "POST", "/", "x")); got != "b" {
				t.Errorf("answered by %q", got)
			}
			if time.Since(start) == time.Second {
				slow++
			}
		}
		for s := range p.Backends() {
			if want := map[string]uint64{"nowhere": uint64(slow)}[s.Target.ID]; failures(&s, upstream.KindDial) != want || s.Failed() != want {
				t.Errorf("%s: %+v", s.Target.ID, maps.Collect(s.Failures()))
			}
		}
		if slow == 0 {
			t.Error("none began with the back end that cannot be reached")
		}
	})
}

// A client that pauses in its upload has PerTry too, and no more: whoever sends for
// it does not wait until it goes on, and no back end is blamed for the wait. What
// stands between Proxy and Pool may have put its own body around the client's.
func TestPerTryInTheUpload(t *testing.T) {
	backs := map[string]memnet.Proto{"http": memnet.HTTP1, "h2c": memnet.H2C}
	reads := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	pausing := func(t *testing.T, url string) *http.Request {
		pr, pw := io.Pipe()
		go pw.Write([]byte("x"))
		end := time.AfterFunc(time.Hour, func() { pw.CloseWithError(errors.New("gone")) })
		t.Cleanup(func() { end.Stop() })
		req, err := http.NewRequestWithContext(t.Context(), "PUT", url, pr)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 10
		return req
	}
	for scheme, back := range backs {
		setup := func(t *testing.T) *upstream.Pool {
			cfg, _ := serveFor(t, back, &http.Server{Handler: reads}, scheme+"://a")
			cfg.Targets = []upstream.Target{{URL: scheme + "://a", ID: "a"}, {URL: scheme + "://b", ID: "b"}}
			cfg.Retry = upstream.Retry{PerTry: time.Second, Timeouts: true}
			cfg.Outlier.Failures = 1
			return newPool(t, cfg)
		}
		blameless := func(t *testing.T, p *upstream.Pool, took time.Duration) {
			if took < time.Second || took > 2*time.Second {
				t.Errorf("after %v", took)
			}
			synctest.Wait()
			for s := range p.Backends() {
				if s.State != upstream.StateHealthy || s.Failed() != 0 || s.Active != 0 {
					t.Errorf("%s is %v, %v, %d active", s.Target.ID, s.State, maps.Collect(s.Failures()), s.Active)
				}
			}
		}
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := setup(t)
				start := time.Now()
				_, _, _, err := send(p, pausing(t, "http://x/"))
				e := wantKind(t, err, upstream.KindClientBody)
				if !e.Timeout() || e.HTTPStatus() != 408 || e.NotSent() || e.Backend == "" {
					t.Errorf("got %v, %d", e, e.HTTPStatus())
				}
				blameless(t, p, time.Since(start))
			})
			synctest.Test(t, func(t *testing.T) { // the body of the second attempt is one of GetBody
				cfg, _ := serveFor(t, back, &http.Server{Handler: reads}, scheme+"://a")
				cfg.Retry.PerTry = time.Second
				dial, dials := cfg.Dial, atomic.Int32{}
				cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if dials.Add(1) == 1 {
						return nil, errRefused
					}
					return dial(ctx, network, addr)
				}
				cfg.Targets = append(cfg.Targets, upstream.Target{URL: scheme + "://b"})
				req := pausing(t, "http://x/")
				req.GetBody = func() (io.ReadCloser, error) { return pausing(t, "http://x/").Body, nil }
				start := time.Now()
				_, _, _, err := send(newPool(t, cfg), req)
				if e := wantKind(t, err, upstream.KindClientBody); dials.Load() != 2 || time.Since(start) != time.Second || e.HTTPStatus() != 408 {
					t.Errorf("%v, %d dials, after %v", e, dials.Load(), time.Since(start))
				}
			})
			for name, wrap := range map[string]func(io.ReadCloser) io.ReadCloser{
				"":            nil,
				"in a struct": func(b io.ReadCloser) io.ReadCloser { return struct{ io.ReadCloser }{b} },
				"in one with a lock, as net/http's has": func(b io.ReadCloser) io.ReadCloser {
					return &lockedBody{make(chan struct{}, 1), b}
				},
			} {
				inBubbles(t, memnet.Protos(), func(t *testing.T, front memnet.Proto) {
					p := setup(t)
					cfg := upstream.ProxyConfig{Transport: p}
					if wrap != nil {
						cfg.Transport = tripFunc(func(r *http.Request) (*http.Response, error) {
							r = r.WithContext(r.Context())
							r.Body = wrap(r.Body)
							return p.RoundTrip(r)
						})
					}
					s := memnet.Serve(t, front, &http.Server{Handler: newProxy(t, cfg)})
					start := time.Now()
					req := pausing(t, s.URL)
					status, _, _, err := send(s.Transport, req)
					if status != 408 || err != nil {
						t.Errorf("body %s: %d, %v", name, status, err)
					}
					blameless(t, p, time.Since(start))
					req.Body.Close()
				})
			}
		})
	}
}

// lockedBody is a body whose Close waits for its Read.
type lockedBody struct {
	lock chan struct{}
	io.ReadCloser
}

func (b *lockedBody) Read(p []byte) (int, error) {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	return b.ReadCloser.Read(p)
}

func (b *lockedBody) Close() error {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	return b.ReadCloser.Close()
}

// The same where a tripper of Wrap leaves at that very moment: one of the two has
// the say.
func TestPerTryAsWrapLeaves(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, front memnet.Proto) {
		cfg, _ := serveFor(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })}, "http://a")
		cfg.Retry.PerTry = time.Second
		cfg.Wrap = wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			go rt.RoundTrip(r)
			time.Sleep(time.Second)
			return response(503, "own"), nil
		})
		p := newPool(t, cfg)
		s := memnet.Serve(t, front, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: p})})
		for range 30 {
			pr, pw := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			status, _, _, err := send(s.Transport, req)
			if d := time.Since(start); status != 503 && status != 408 || err != nil || d > 2*time.Second {
				t.Errorf("%d, %v after %v", status, err, d)
			}
			pw.Close()
			synctest.Wait()
			if s := only(t, p); s.Active != 0 || s.Failed() != 0 {
				t.Errorf("%d active, %v", s.Active, maps.Collect(s.Failures()))
			}
		}
	})
}

// A limit of time that a tripper of Config.Wrap sets is a limit, and its leaving
// is nobody's fault. Neither is taken for a connection that had gone stale.
func TestWrapEndsTheAttempt(t *testing.T) {
	why := errors.New("not needed any more")
	for _, c := range []struct {
		name  string
		limit func(context.Context) (context.Context, context.CancelFunc)
		kind  upstream.Kind
	}{
		{"timeout", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, upstream.KindHeaderTimeout},
		{"timeout with a cause", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, why)
		}, upstream.KindHeaderTimeout},
		{"by the clock", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return unhurried{ctx, time.Now().Add(time.Second)}, func() {}
		}, upstream.KindHeaderTimeout},
		{"cancelled", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(why) })
			return ctx, func() { cancel(nil) }
		}, upstream.KindClientGone},
	} {
		for _, again := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newLAN(t)
					o := n.add("a", slowly(0))
					p := n.pool(upstream.Config{
						Retry: upstream.Retry{Timeouts: again},
						Wrap: func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
							return tripFunc(func(r *http.Request) (*http.Response, error) {
								if r.Method != "DELETE" {
									return rt.RoundTrip(r)
								}
								ctx, cancel := c.limit(r.Context())
								defer cancel()
								return rt.RoundTrip(r.WithContext(ctx))
							}), nil
						},
					}, "a")
					mustSend(t, p, newRequest(t, "GET", "/", ""))
					start := time.Now()
					path := "/never"
					if c.name == "by the clock" {
						path = "/end" // of which the back end has heard
					}
					_, _, _, err := send(p, newRequest(t, "DELETE", path, ""))
					e := wantKind(t, err, c.kind)
					want := 2
					if again && c.kind == upstream.KindHeaderTimeout {
						want = 3
					}
					if got := o.requests(); len(got) != want || time.Since(start) != time.Duration(want-1)*time.Second {
						t.Errorf("%v after %v, the back end saw %q", e, time.Since(start), got)
					}
					if s := only(t, p); c.kind == upstream.KindClientGone && s.Failed() != 0 {
						t.Errorf("the back end is blamed: %v", maps.Collect(s.Failures()))
					}
				})
			})
		}
	}
}

// There is no response header without a limit: one that is negative is refused,
// as one that is too small is.
func TestNegativeMaxResponseHeader(t *testing.T) {
	for n, ok := range map[int64]bool{-1: false, 0: true, 4095: false, 4096: true} {
		p, err := upstream.New(upstream.Config{
			Targets: []upstream.Target{{URL: "http://a"}},
			Conns:   upstream.Conns{MaxResponseHeader: n},
		})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "Conns.MaxResponseHeader") {
			t.Errorf("%d: %v", n, err)
		}
		if err == nil {
			p.Close()
		}
	}
}
