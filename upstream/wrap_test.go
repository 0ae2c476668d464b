package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// wrapped makes the tripper of Config.Wrap from a function.
func wrapped(trip func(r *http.Request, rt http.RoundTripper) (*http.Response, error)) func(upstream.Target, http.RoundTripper) (http.RoundTripper, error) {
	return func(_ upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
		return tripFunc(func(r *http.Request) (*http.Response, error) { return trip(r, rt) }), nil
	}
}

// upstream 86: a tripper of Wrap that does not wait for its call, wherever that is
// and whatever context it was given, loses neither place nor connection by that.
// Its own answer is none of the back end's.
func TestWrapLeaves(t *testing.T) {
	for _, stage := range []string{"queued", "dialling", "waiting for the header"} {
		for _, answers := range []bool{false, true} {
			for _, detached := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, answers %v, detached %v", stage, answers, detached), func(t *testing.T) {
					inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, proto memnet.Proto) {
						var running atomic.Int32
						scheme := map[memnet.Proto]string{memnet.HTTP1: "http", memnet.H2C: "h2c"}[proto]
						cfg, _ := serveFor(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							io.Copy(io.Discard, r.Body)
							switch r.URL.Path {
							case "/slow":
								running.Add(1)
								defer running.Add(-1)
								<-r.Context().Done()
							case "/held":
								w.(http.Flusher).Flush()
								<-r.Context().Done()
							default:
								io.WriteString(w, "ok")
							}
						})}, scheme+"://a")
						dial := cfg.Dial
						cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
							if stage == "dialling" {
								time.Sleep(2 * time.Second)
							}
							return dial(ctx, network, addr)
						}
						cfg.Conns = upstream.Conns{MaxInFlight: 1, QueueTimeout: 10 * time.Second}
						cfg.Wrap = wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
							if r.URL.Path != "/slow" {
								return rt.RoundTrip(r)
							}
							in := r
							if detached {
								in = r.WithContext(context.WithoutCancel(r.Context()))
							}
							go rt.RoundTrip(in) // and nobody looks at what comes of it
							time.Sleep(time.Second)
							if answers {
								return response(503, "own"), nil
							}
							return nil, errors.New("no patience")
						})
						p := newPool(t, cfg)
						free := func() {}
						if stage == "queued" {
							res, err := p.RoundTrip(newRequest(t, "GET", "/held", ""))
							if err != nil {
								t.Fatal(err)
							}
							free = func() { res.Body.Close() }
						}
						for range 3 {
							start := time.Now()
							status, body, _, err := send(p, newRequest(t, "POST", "/slow", "x"))
							if d := time.Since(start); d != time.Second {
								t.Errorf("took %v", d)
							}
							switch e, _ := errors.AsType[*upstream.Error](err); {
							case answers && (err != nil || status != 503 || body != "own"):
								t.Errorf("got %d %q, %v", status, body, err)
							case !answers && e == nil:
								t.Errorf("got %v", err)
							case !answers && stage != "dialling" && e.NotSent() != (stage == "queued"):
								t.Errorf("NotSent is %v: %v", e.NotSent(), e)
							}
							time.Sleep(4 * time.Second)
							if n := running.Load(); n != 0 {
								t.Errorf("%d requests run on at the back end", n)
							}
						}
						free()
						mustSend(t, p, newRequest(t, "GET", "/fine", ""))
						s := only(t, p)
						if s.Active != 0 || s.Conns != s.Idle {
							t.Errorf("%d active, %d of %d connections idle", s.Active, s.Idle, s.Conns)
						}
						if answers && s.Failed() != 0 {
							t.Errorf("%d failures", s.Failed())
						}
						if err := p.Shutdown(t.Context()); err != nil {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}

// Nor does one that leaves while the client pauses in its upload have to wait for
// the client, be that of a Pool or of a Proxy.
func TestWrapLeavesUpload(t *testing.T) {
	backs := map[string]memnet.Proto{"http://a": memnet.HTTP1, "h2c://a": memnet.H2C}
	reads := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	leaves := wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
		go rt.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
		time.Sleep(time.Second)
		return response(503, "own"), nil
	})
	pausing := func(t *testing.T, url string) *http.Request {
		pr, pw := io.Pipe()
		go pw.Write([]byte("x"))
		time.AfterFunc(time.Hour, func() { pw.CloseWithError(errors.New("gone")) })
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, pr)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 10
		return req
	}
	expect := func(t *testing.T, rt http.RoundTripper, req *http.Request) {
		start := time.Now()
		status, body, _, err := send(rt, req)
		if d := time.Since(start); d > 2*time.Second || status != 503 || body != "own" || err != nil {
			t.Errorf("after %v: %d %q, %v", d, status, body, err)
		}
		req.Body.Close()
	}
	for target, back := range backs {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, _ := serveFor(t, back, &http.Server{Handler: reads}, target)
				cfg.Wrap = leaves
				expect(t, newPool(t, cfg), pausing(t, "http://x/"))
			})
			inBubbles(t, memnet.Protos(), func(t *testing.T, front memnet.Proto) {
				cfg, _ := serveFor(t, back, &http.Server{Handler: reads}, target)
				cfg.Wrap = leaves
				s := memnet.Serve(t, front, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: newPool(t, cfg)})})
				expect(t, s.Transport, pausing(t, s.URL))
			})
		})
	}
}

// One that cancels the context of a response that it has handed out is seen in
// the log: the client is still there, and gets half of it.
func TestWrapCancelsTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, _ := serveFor(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
			io.WriteString(w, "half")
		})}, "http://a")
		cfg.Wrap = wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
			defer cancel()
			return rt.RoundTrip(r.WithContext(ctx))
		})
		var log bytes.Buffer
		h := newProxy(t, upstream.ProxyConfig{Transport: newPool(t, cfg), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: h})
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := send(s.Transport, req); err == nil {
			t.Error("the client takes half for all")
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "response broken off") {
			t.Errorf("log %q", &log)
		}
	})
}

// Its own answer does not count against the back end either where that answers at
// the moment when the call is given up.
func TestWrapLeavesHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, upstream.Config{
			Targets: []upstream.Target{{URL: "http://a", ID: "a"}, {URL: "http://b", ID: "b"}},
			Outlier: upstream.Outlier{Failures: 1},
			Transport: func(upstream.Target) (http.RoundTripper, error) {
				return tripFunc(func(r *http.Request) (*http.Response, error) {
					<-r.Context().Done()
					time.Sleep(time.Second)
					return response(200, "late"), nil
				}), nil
			},
			Wrap: wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
				go rt.RoundTrip(r)
				time.Sleep(time.Second)
				return response(503, "own"), nil
			}),
		})
		for range 4 {
			start := time.Now()
			status, body, _, err := send(p, newRequest(t, "GET", "/", ""))
			if status != 503 || body != "own" || err != nil {
				t.Errorf("got %d %q, %v", status, body, err)
			}
			if d := time.Since(start); d != 2*time.Second {
				t.Errorf("the call was not waited for: %v", d)
			}
		}
		for s := range p.Backends() {
			if s.State != upstream.StateHealthy || s.Active != 0 {
				t.Errorf("%s is %v, with %d active", s.Target.ID, s.State, s.Active)
			}
		}
	})
}

// A tripper of Wrap that panics while its call runs leaves nothing behind.
func TestWrapPanicsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", silent)
		p := n.pool(upstream.Config{Wrap: wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			go rt.RoundTrip(r)
			time.Sleep(time.Second)
			panic(http.ErrAbortHandler)
		})}, "a")
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("recovered %v", v)
				}
			}()
			p.RoundTrip(newRequest(t, "POST", "/", "x"))
		}()
		if s := only(t, p); s.Active != 0 || s.Conns != 0 {
			t.Errorf("%d active, %d connections", s.Active, s.Conns)
		}
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A context of Wrap's tripper that ends during the response body says nothing
// about the back end.
func TestWrapEndsTheBody(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit func(context.Context) context.Context
		kind  upstream.Kind
	}{
		{"deadline", func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			time.AfterFunc(time.Minute, cancel)
			return ctx
		}, upstream.KindDeadline},
		{"cancelled", func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx
		}, upstream.KindClientGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.HTTP1, memnet.H2C}, func(t *testing.T, proto memnet.Proto) {
				scheme := map[memnet.Proto]string{memnet.HTTP1: "http", memnet.H2C: "h2c"}[proto]
				cfg, _ := serveFor(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				})}, scheme+"://a")
				cfg.Targets = append(cfg.Targets, upstream.Target{URL: scheme + "://b", ID: "b"})
				cfg.Picker = upstream.RoundRobin()
				cfg.Outlier.Failures = 2
				cfg.Wrap = wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
					return rt.RoundTrip(r.WithContext(c.limit(r.Context())))
				})
				p := newPool(t, cfg)
				for range 8 {
					_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
					wantKind(t, err, c.kind)
				}
				for s := range p.Backends() {
					if s.State != upstream.StateHealthy || s.Failed() != 0 {
						t.Errorf("%s is %v, %d failed", s.Target.ID, s.State, s.Failed())
					}
				}
			})
		})
	}
}

// A tripper of Wrap that has read the body and taken it away.
func TestWrapTakesTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", obliging)
		p := n.pool(upstream.Config{Wrap: wrapped(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			res, err := rt.RoundTrip(r)
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				res.Body = nil
			}
			return res, err
		})}, "a")
		for range 2 {
			status, body, backend, err := send(p, newRequest(t, "PUT", "/", strings.Repeat("x", 9)))
			if status != 200 || body != "" || backend != "a" || err != nil {
				t.Errorf("got %d %q from %q, %v", status, body, backend, err)
			}
		}
		if s := only(t, p); s.Active != 0 || s.Idle != 1 {
			t.Errorf("%d active, %d idle", s.Active, s.Idle)
		}
	})
}
