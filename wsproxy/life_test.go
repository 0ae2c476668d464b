package wsproxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/wsproxy"
)

// quiet is a back end that accepts, answers pings if it is to, and reads until
// its peer closes: it answers a Close with its own.
func quiet(pongs bool) func(*backConn) {
	return func(c *backConn) {
		if c.accept("") != nil {
			return
		}
		serveQuiet(c.end, pongs)
	}
}

// serveQuiet is that for either end. It returns the code of the peer's Close.
func serveQuiet(e *end, pongs bool) (code uint16) {
	for {
		f, err := e.recv()
		if err != nil {
			return code
		}
		switch f.op {
		case opPing:
			if pongs {
				_ = e.send(opPong, string(f.payload))
			}
		case opClose:
			code, _ = codeOf(f)
			_ = e.sendClose(code, "")
			if !e.client {
				return code
			}
		}
	}
}

// codesOf runs a tunnel between two quiet ends and returns the codes of the
// Close frames that each got, and how the tunnel ended and when.
func codesOf(t *testing.T, fr front, cfg wsproxy.Config, client, back func(*end) uint16, then func(*wsproxy.Proxy)) (toClient, toBack uint16, s wsproxy.Stats) {
	t.Helper()
	closed, backCode := make(chan wsproxy.Stats, 1), make(chan uint16, 1)
	cfg.OnClose = func(s wsproxy.Stats) { closed <- s }
	x := pair{front: fr, memory: true, mode: cfg.Mode, detach: cfg.Detach}.start(t, cfg, func(c *backConn) {
		if c.accept("") == nil {
			backCode <- back(c.end)
		}
	})
	e := x.open(t, request{path: "/chat?secret"})
	if then != nil {
		then(x.proxy)
	}
	clientCode := client(e)
	s = <-closed
	return clientCode, <-backCode, s
}

func answering(e *end) uint16 { return serveQuiet(e, true) }

// wsproxy 48: each limit ends a tunnel at its time and with its code.
func TestLimitsOfTime(t *testing.T) {
	for _, c := range []struct {
		name             string
		cfg              wsproxy.Config
		toClient, toBack uint16
		end              wsproxy.End
		from, to         time.Duration
	}{
		{"idle without pings", wsproxy.Config{Timeouts: wsproxy.Timeouts{Ping: -1}}, 1001, 1001, wsproxy.EndIdle, 5 * time.Minute, 0},
		{"idle, set", wsproxy.Config{Timeouts: wsproxy.Timeouts{Ping: -1, Idle: 7 * time.Second}}, 1001, 1001, wsproxy.EndIdle, 7 * time.Second, 0},
		{"idle, Tunnel", wsproxy.Config{Mode: wsproxy.Tunnel, Timeouts: wsproxy.Timeouts{Idle: 7 * time.Second}}, 0, 0, wsproxy.EndIdle, 7 * time.Second, 0},
		{"lifetime", wsproxy.Config{Timeouts: wsproxy.Timeouts{Lifetime: time.Hour}}, 1001, 1001, wsproxy.EndLifetime, 54 * time.Minute, time.Hour},
	} {
		for _, fr := range fronts() {
			t.Run(c.name+" "+fr.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					toClient, toBack, s := codesOf(t, fr, c.cfg, answering, answering, nil)
					if toClient != c.toClient || toBack != c.toBack || s.End != c.end {
						t.Errorf("%d %d %v", toClient, toBack, s.End)
					}
					if to := max(c.from, c.to) + 100*time.Millisecond; s.Duration < c.from || s.Duration > to {
						t.Errorf("after %v", s.Duration)
					}
				})
			})
		}
	}
}

// wsproxy 37: a tunnel whose peers answer pings lives as long as they do; one that
// does not is found out. The answers to our pings reach nobody.
func TestPings(t *testing.T) {
	deaf := func(e *end) uint16 { return serveQuiet(e, false) }
	for _, fr := range fronts() {
		t.Run(fr.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, _, s := codesOf(t, fr, wsproxy.Config{}, answering, answering, func(p *wsproxy.Proxy) {
					go func() {
						time.Sleep(24 * time.Hour)
						for i := range p.Tunnels() {
							if ok, err := p.CloseTunnel(i.ID, 4000, "enough"); !ok || err != nil {
								t.Error(ok, err)
							}
						}
					}()
				})
				if d := time.Since(start); d < 24*time.Hour || d > 24*time.Hour+time.Second || s.End != wsproxy.EndDrained || s.Sent.Code != 4000 {
					t.Errorf("%v %v %v", d, s.End, s.Sent)
				}
				if s.FromClient.Messages+s.FromBackend.Messages != 0 || s.FromClient.Frames < 2000 {
					t.Errorf("%+v", s)
				}
			})
			for _, clientDeaf := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					client, back := answering, deaf
					if clientDeaf {
						client, back = deaf, answering
					}
					_, _, s := codesOf(t, fr, wsproxy.Config{}, client, back, nil)
					if s.End != wsproxy.EndPong || s.Duration < 45*time.Second || s.Duration > 46*time.Second {
						t.Errorf("client deaf %t: %v after %v", clientDeaf, s.End, s.Duration)
					}
				})
			}
		})
	}
}

// A client that reads slowly, with our ping behind what it still has to read,
// is not taken for dead.
func TestSlowReaderIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int64
		_, _, s := codesOf(t, frontH1, wsproxy.Config{}, func(e *end) uint16 {
			b := make([]byte, 64<<10)
			for range 60 { // ten minutes, without a word
				time.Sleep(10 * time.Second)
				if _, err := io.ReadFull(e, b); err != nil {
					t.Error(err)
					break
				}
			}
			_ = e.Close()
			return 0
		}, func(e *end) uint16 {
			for f := (frame{fin: true, op: opBinary, payload: make([]byte, 1<<20)}); e.sendFrame(f) == nil; {
			}
			return 0
		}, nil)
		if s.Duration < 10*time.Minute || s.End == wsproxy.EndPong {
			t.Errorf("%v after %v, %d pings", s.End, s.Duration, pings.Load())
		}
	})
}

// A client that does not read, or seldom, is for WriteStall to judge: it does not
// make the back end, which is not read meanwhile, look dead, nor itself.
func TestSlowReaderIsNotPinged(t *testing.T) {
	const times = 12
	for _, c := range []struct {
		name  string
		every time.Duration // 0 for never
		end   func(wsproxy.End) bool
		after time.Duration
	}{
		{"never", 0, func(e wsproxy.End) bool { return e == wsproxy.EndWriteStall }, time.Minute},
		{"seldom", 50 * time.Second, func(e wsproxy.End) bool { return e == wsproxy.EndClient || e == wsproxy.EndClientLost }, times * 50 * time.Second},
	} {
		for _, fr := range fronts() {
			t.Run(c.name+" "+fr.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					gone := make(chan struct{})
					_, _, s := codesOf(t, fr, wsproxy.Config{}, func(e *end) uint16 {
						if c.every == 0 {
							<-gone
							return 0
						}
						b := make([]byte, 128<<10)
						for range times {
							time.Sleep(c.every)
							if _, err := io.ReadFull(e, b); err != nil {
								t.Error(err)
								return 0
							}
						}
						_ = e.Close()
						return 0
					}, func(e *end) uint16 {
						go serveQuiet(e, true) // answers the pings
						for f := (frame{fin: true, op: opBinary, payload: make([]byte, 1<<16)}); e.sendFrame(f) == nil; {
						}
						close(gone)
						return 0
					}, nil)
					if !c.end(s.End) || s.Duration < c.after || s.Duration > c.after+100*time.Millisecond {
						t.Errorf("%v after %v", s.End, s.Duration)
					}
				})
			})
		}
	}
}

// wsproxy 37: what could not be judged while the other side was slow is judged
// after that: a back end that has become deaf is found out.
func TestDeafAfterSlowReader(t *testing.T) {
	for _, fr := range fronts() {
		t.Run(fr.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, s := codesOf(t, fr, wsproxy.Config{}, func(e *end) uint16 {
					time.Sleep(40 * time.Second)
					return serveQuiet(e, true)
				}, func(e *end) uint16 {
					for f, n := (frame{fin: true, op: opBinary, payload: make([]byte, 1<<16)}), 0; n < 16; n++ {
						_ = e.sendFrame(f)
					}
					return serveQuiet(e, false)
				}, nil)
				if s.End != wsproxy.EndPong || s.Duration < 85*time.Second || s.Duration > 86*time.Second {
					t.Errorf("%v after %v", s.End, s.Duration)
				}
			})
		})
	}
}

// A limit that is as long as can be is not one that has passed.
func TestLongestLimits(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	for _, fr := range fronts() {
		synctest.Test(t, func(t *testing.T) {
			cfg := wsproxy.Config{
				Timeouts: wsproxy.Timeouts{
					Dial: forever, Handshake: forever, Idle: forever, Ping: forever, Pong: forever,
					Close: forever, Linger: forever, WriteStall: forever, Lifetime: forever,
				},
				Drain: wsproxy.Drain{Spread: forever},
			}
			_, _, s := codesOf(t, fr, cfg, answering, answering, func(p *wsproxy.Proxy) {
				go func() {
					time.Sleep(time.Minute)
					if err := p.Drain(wsproxy.Drain{Spread: forever}); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Minute)
					for i := range p.Tunnels() {
						_, _ = p.CloseTunnel(i.ID, 4000, "enough")
					}
				}()
			})
			if s.End != wsproxy.EndDrained || s.Sent.Code != 4000 || s.Duration < 2*time.Minute {
				t.Errorf("%v: %v %v after %v", fr, s.End, s.Sent, s.Duration)
			}
		})
	}
}

// After the Close frames of both nothing is waited for but the ends of the
// connections, and not for longer because bytes come.
func TestDripAfterClose(t *testing.T) {
	for _, fr := range []front{frontH1, frontH1TLS} {
		synctest.Test(t, func(t *testing.T) {
			closed := make(chan wsproxy.Stats, 1)
			cfg := wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}
			x := pair{front: fr, memory: true}.start(t, cfg, quiet(true))
			e := x.open(t, request{})
			if err := e.sendClose(1000, ""); err != nil {
				t.Fatal(err)
			}
			for range 100 {
				time.Sleep(time.Second)
				if _, err := e.Write([]byte{0}); err != nil {
					break
				}
			}
			if s := <-closed; s.End != wsproxy.EndClient || s.Duration < 5*time.Second || s.Duration > 6*time.Second {
				t.Errorf("%v: %v after %v", fr, s.End, s.Duration)
			}
		})
	}
}

// wsproxy 48: a peer that takes nothing is cut.
func TestWriteStall(t *testing.T) {
	for _, fr := range fronts() {
		for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
			synctest.Test(t, func(t *testing.T) {
				gone := make(chan struct{})
				cfg := wsproxy.Config{Mode: mode, Timeouts: wsproxy.Timeouts{WriteStall: 20 * time.Second}}
				_, _, s := codesOf(t, fr, cfg, func(*end) uint16 { <-gone; return 0 }, func(e *end) uint16 {
					for f := (frame{fin: true, op: opBinary, payload: make([]byte, 1<<16)}); e.sendFrame(f) == nil; {
					}
					close(gone)
					return 0
				}, nil)
				if s.End != wsproxy.EndWriteStall || s.Duration < 20*time.Second || s.Duration > 21*time.Second {
					t.Errorf("%v, %v: %v after %v", fr, mode, s.End, s.Duration)
				}
			})
		}
	}
}

// wsproxy 39: Close frames from everywhere at once; the first counts.
func TestCloseFromBothSides(t *testing.T) {
	for _, fr := range fronts() {
		synctest.Test(t, func(t *testing.T) {
			say := func(code uint16) func(*end) uint16 {
				return func(e *end) uint16 {
					_ = e.sendClose(code, "bye")
					c := serveQuiet(e, true)
					_ = e.Close()
					return c
				}
			}
			_, _, s := codesOf(t, fr, wsproxy.Config{}, say(4001), say(4002), func(p *wsproxy.Proxy) {
				if err := p.Drain(wsproxy.Drain{Spread: -1}); err != nil {
					t.Error(err)
				}
			})
			if s.End == 0 || s.FromClient.Close.Code != 4001 || s.FromBackend.Close.Code != 4002 || s.Duration > 100*time.Millisecond {
				t.Errorf("%v: %+v", fr, s)
			}
		})
	}
}

// wsproxy 47: no place, no dial. A place is free when its tunnel has ended.
func TestLimitsOfNumber(t *testing.T) {
	var dialled atomic.Int64
	v6 := func(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 0) }
	synctest.Test(t, func(t *testing.T) {
		cfg := wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 3, PerKey: 2, RetryAfter: 90 * time.Second}}
		x := pair{front: frontH1, memory: true}.start(t, cfg, func(c *backConn) { dialled.Add(1); quiet(true)(c) })
		from := func(addr string) (*http.Response, io.Closer) {
			conn, err := x.l.(*memnet.Listener).DialFrom(t.Context(), v6(addr))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return upgrade(t, conn), conn
		}
		r, first := from("2001:db8::1")
		if r.StatusCode != 101 {
			t.Fatal(r.StatusCode)
		}
		if r, _ := from("2001:db8::2"); r.StatusCode != 101 {
			t.Fatal(r.StatusCode)
		}
		for _, addr := range []string{"2001:db8::3", "2001:db8:0:0:ffff::"} {
			r, _ := from(addr) // the same /64
			body, _ := io.ReadAll(r.Body)
			if r.StatusCode != 503 || r.Header.Get("Retry-After") != "90" || !strings.Contains(string(body), "websocket_limit") {
				t.Errorf("%d %v %s", r.StatusCode, r.Header, body)
			}
		}
		if r, _ := from("192.0.2.1"); r.StatusCode != 101 {
			t.Error(r.StatusCode)
		}
		if r, _ := from("192.0.2.2"); r.StatusCode != 503 {
			t.Error("more than Tunnels", r.StatusCode)
		}
		if dialled.Load() != 3 {
			t.Error(dialled.Load())
		}
		first.Close()
		synctest.Wait()
		if r, _ := from("2001:db8::3"); r.StatusCode != 101 {
			t.Error(r.StatusCode)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		cfg := wsproxy.Config{Limits: wsproxy.Limits{PerKey: 1, RetryAfter: -1, Key: func(hs *wsproxy.Handshake) string { return hs.Request.URL.Path }}}
		x := pair{front: frontH2C, memory: true}.start(t, cfg, quiet(true))
		x.open(t, request{path: "/a"})
		x.open(t, request{path: "/b"})
		if _, res := x.handshake(t, request{path: "/a"}); res.StatusCode != 503 || len(res.Header.Values("Retry-After")) > 0 {
			t.Error(res.StatusCode, res.Header)
		}
	})
}

// wsproxy 49: where nothing is left there is nothing to wait for, whatever has
// become of the context.
func TestShutdownNothingOpen(t *testing.T) {
	p, err := wsproxy.New(wsproxy.Config{Target: "ws://x"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := p.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// wsproxy 37: without a limit for the answer the pings go on in their time.
func TestPingWithoutPong(t *testing.T) {
	for _, answers := range []bool{true, false} {
		for _, stall := range []time.Duration{0, -1} {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Duration
				cfg := wsproxy.Config{Timeouts: wsproxy.Timeouts{Pong: -1, WriteStall: stall, Idle: -1}}
				start := time.Now()
				_, _, s := codesOf(t, frontH1, cfg, func(e *end) uint16 {
					for {
						f, err := e.recv()
						if err != nil {
							return 0
						}
						switch {
						case f.op == opPing:
							at = append(at, time.Since(start))
							if answers {
								_ = e.send(opPong, string(f.payload))
							}
						case f.op == opClose:
							_ = e.sendClose(1000, "")
						}
					}
				}, func(e *end) uint16 { return serveQuiet(e, true) }, func(p *wsproxy.Proxy) {
					time.AfterFunc(10*time.Minute+time.Second, func() {
						for i := range p.Tunnels() {
							_, _ = p.CloseTunnel(i.ID, 4000, "enough")
						}
					})
				})
				want := 1 // that is not answered
				if answers {
					want = 20
				}
				if len(at) != want || at[0].Round(time.Second) != 30*time.Second || s.End != wsproxy.EndDrained {
					t.Errorf("WriteStall %v, answers %t: %d pings, %v; ended by %v", stall, answers, len(at), at, s.End)
				}
			})
		}
	}
}

// wsproxy 49: Shutdown refuses, asks, and cuts those that do not answer.
func TestShutdown(t *testing.T) {
	for _, fr := range fronts() {
		for _, detach := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				ends := map[wsproxy.End]int{}
				cfg := wsproxy.Config{Detach: detach, Drain: wsproxy.Drain{Spread: 20 * time.Second, Reason: "update"}}
				cfg.OnClose = func(s wsproxy.Stats) {
					mu.Lock()
					defer mu.Unlock()
					ends[s.End]++
				}
				x := pair{front: fr, memory: true, detach: detach}.start(t, cfg, quiet(true))
				start := time.Now()
				var times []time.Duration
				var clients sync.WaitGroup
				for range 20 {
					e := x.open(t, request{})
					clients.Go(func() {
						code := serveQuiet(e, true)
						mu.Lock()
						defer mu.Unlock()
						times = append(times, time.Since(start).Truncate(time.Second))
						if code != 1012 {
							t.Errorf("closed with %d", code)
						}
						_ = e.Close()
					})
				}
				x.open(t, request{}) // never reads
				var servers sync.WaitGroup
				if fr.h2() {
					servers.Go(func() { _ = x.HTTP.Shutdown(t.Context()) })
				}
				servers.Go(func() {
					// The spread and the wait for the client that does not answer.
					if err := x.proxy.Shutdown(t.Context()); err != nil || time.Since(start) > 25*time.Second+100*time.Millisecond {
						t.Errorf("%v after %v", err, time.Since(start))
					}
				})
				synctest.Wait()
				if !fr.h2() { // over HTTP/2 the server itself takes nothing more
					_, res := x.handshake(t, request{})
					if body, _ := io.ReadAll(res.Body); res.StatusCode != 503 || res.Header.Get("Retry-After") != "5" || !strings.Contains(string(body), "websocket_shutdown") {
						t.Errorf("%d %s", res.StatusCode, body)
					}
				}
				servers.Wait()
				clients.Wait()
				if n := ends[wsproxy.EndDrained]; n != 21 {
					t.Errorf("%v", ends)
				}
				slices.Sort(times)
				if len(slices.Compact(times)) < 5 {
					t.Errorf("spread %v", times)
				}
			})
		}
	}
}

// wsproxy 49: the deadline of the context is kept, with the spread shortened
// so that the peers have time to answer, and what is left then is cut.
func TestShutdownDeadline(t *testing.T) {
	for _, fr := range fronts() {
		synctest.Test(t, func(t *testing.T) {
			var ends [20]atomic.Int64
			cfg := wsproxy.Config{Drain: wsproxy.Drain{Spread: time.Hour}, Timeouts: wsproxy.Timeouts{Close: 4 * time.Second}}
			cfg.OnClose = func(s wsproxy.Stats) { ends[s.End].Add(1) }
			x := pair{front: fr, memory: true}.start(t, cfg, func(c *backConn) {
				_ = c.accept("")
				_, _ = io.Copy(io.Discard, c) // answers nothing
			})
			for range 3 {
				e := x.open(t, request{})
				go func() { _, _ = io.Copy(io.Discard, e) }()
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := x.proxy.Shutdown(ctx); err != nil || time.Since(start) > 10*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			if ends[wsproxy.EndDrained].Load() != 3 {
				t.Error("not drained")
			}
		})
		synctest.Test(t, func(t *testing.T) {
			closed := make(chan wsproxy.Stats, 2)
			cfg := wsproxy.Config{Timeouts: wsproxy.Timeouts{Close: time.Hour}, OnClose: func(s wsproxy.Stats) { closed <- s }}
			x := pair{front: fr, memory: true}.start(t, cfg, quiet(true))
			x.open(t, request{})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if err := x.proxy.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Error(err)
			}
			if s := <-closed; s.Duration != 3*time.Second {
				t.Errorf("%v after %v", s.End, s.Duration)
			}
			if err := x.proxy.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Close cuts what is open and what is being opened.
func TestClose(t *testing.T) {
	for _, fr := range fronts() {
		synctest.Test(t, func(t *testing.T) {
			closed := make(chan wsproxy.Stats, 1)
			x := pair{front: fr, memory: true}.start(t, wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}, func(c *backConn) {
				if c.request.URL.Path == "/" {
					quiet(true)(c)
				}
				_, _ = io.Copy(io.Discard, c)
			})
			e := x.open(t, request{})
			refused := make(chan string, 1)
			go func() {
				_, res, err := x.attempt(t, request{path: "/silent"})
				if err != nil {
					t.Error(err)
					close(refused)
					return
				}
				body, _ := io.ReadAll(res.Body)
				refused <- fmt.Sprint(res.StatusCode, " ", res.Header.Get("Retry-After"), " ", string(body))
			}()
			synctest.Wait()
			if err := x.proxy.Close(); err != nil {
				t.Error(err)
			}
			if s := <-closed; s.End != wsproxy.EndClosed {
				t.Error(s.End)
			}
			if s := <-refused; !strings.HasPrefix(s, "503 5 ") || !strings.Contains(s, "websocket_shutdown") {
				t.Error(s)
			}
			if _, err := e.recv(); err == nil {
				t.Error("a frame")
			}
			if err := x.proxy.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Drain and CloseTunnel say what is wrong with what they are given.
func TestDrainArguments(t *testing.T) {
	p, err := wsproxy.New(wsproxy.Config{Target: "ws://x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Drain(wsproxy.Drain{Code: 1006, Reason: "\xff"}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Error(err)
	}
	if _, err := p.CloseTunnel(1, 1005, strings.Repeat("x", 124)); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Error(err)
	}
	if ok, err := p.CloseTunnel(1, 1000, ""); ok || err != nil {
		t.Error(ok, err)
	}
}

// What the hooks and Tunnels tell.
func TestStats(t *testing.T) {
	for _, fr := range fronts() {
		for _, detach := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				opened, closed := make(chan wsproxy.Info, 1), make(chan wsproxy.Stats, 1)
				cfg := wsproxy.Config{Detach: detach, OnOpen: func(i wsproxy.Info) { opened <- i }, OnClose: func(s wsproxy.Stats) { closed <- s }}
				x := pair{front: fr, memory: true, detach: detach}.start(t, cfg, func(c *backConn) {
					_ = c.accept("Sec-WebSocket-Protocol: chat\r\n")
					time.Sleep(2 * time.Second)
					_ = c.send(opText, "hello")
					code := serveQuiet(c.end, true)
					if code != 1000 {
						t.Error(code)
					}
				})
				e := x.open(t, request{path: "/chat?secret", header: [][2]string{{"Sec-WebSocket-Protocol", "chat"}}})
				i := <-opened
				time.Sleep(3 * time.Second)
				for range 2 {
					_ = e.sendFrame(frame{op: opText, payload: []byte("frag")})
					_ = e.sendFrame(frame{fin: true, op: opContinuation, payload: []byte("ments")})
				}
				_ = e.send(opPing, "x")
				for now := range x.proxy.Tunnels() {
					if now.ID != i.ID || now.FromBackend.Messages != 1 {
						t.Errorf("%+v", now)
					}
				}
				_ = e.sendClose(1000, "bye")
				_, _ = io.Copy(io.Discard, e)
				_ = e.Close()
				s := <-closed
				if s.Client != netip.MustParseAddr("127.0.0.1") || s.Path != "/chat" || !strings.HasPrefix(s.Target, "ws://") || s.Subprotocol != "chat" ||
					s.FrontProto != map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[fr.h2()] || s.BackProto != "HTTP/1.1" || s.ID != 1 || i.ID != 1 {
					t.Errorf("%+v", s)
				}
				if s.End != wsproxy.EndClient || s.Err != nil || s.Duration < 3*time.Second || s.FirstByte != 2*time.Second || s.Sent.Code != 0 {
					t.Errorf("%v %v %v %v", s.End, s.Err, s.Duration, s.FirstByte)
				}
				want := wsproxy.Traffic{Bytes: s.FromClient.Bytes, Frames: 6, Messages: 2, Pings: 1, Close: wsproxy.CloseFrame{Code: 1000, Reason: "bye"}}
				if s.FromClient != want || s.FromBackend.Messages != 1 || s.FromBackend.Close.Code != 1000 {
					t.Errorf("%+v\n%+v", s.FromClient, s.FromBackend)
				}
				if _, err := json.Marshal(s); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if s := fmt.Sprint(wsproxy.EndClient, wsproxy.EndPanic, wsproxy.End(99), wsproxy.Frames, wsproxy.Tunnel, wsproxy.Mode(9)); s != "client panic unknown Frames Tunnel Mode(9)" {
		t.Error(s)
	}
}

// With Detach the handler returns while the tunnel lives.
func TestDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBack(t, memnet.Listen(), false, echo)
		p, err := wsproxy.New(toBack(wsproxy.Config{Detach: true}, b))
		if err != nil {
			t.Fatal(err)
		}
		returned := make(chan struct{})
		s := serveFront(t, frontH1, memnet.Listen(), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.ServeHTTP(w, r)
			close(returned)
		})})
		e := s.open(t, request{})
		<-returned
		if err := e.send(opText, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := e.recv(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// wsproxy 48 and 49: a connection that takes long to close takes no other tunnel's
// limits of time away, and Close does not wait for it any longer.
func TestSlowCut(t *testing.T) {
	for _, c := range []struct {
		path     string // of the tunnel that is to be cut
		timeouts wsproxy.Timeouts
	}{
		{"/full", wsproxy.Timeouts{WriteStall: 10 * time.Second, Ping: -1, Idle: 15 * time.Second}},
		{"/deaf", wsproxy.Timeouts{Ping: 5 * time.Second, Pong: 5 * time.Second, Lifetime: 20 * time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := startBack(t, memnet.Listen(), false, func(b *backConn) {
				if b.accept("") != nil {
					return
				}
				if b.request.URL.Path == "/full" {
					_ = b.send(opBinary, string(make([]byte, 1<<20)))
				}
				serveQuiet(b.end, b.request.URL.Path != "/deaf")
			})
			closed := make(chan wsproxy.Stats, 3)
			cfg := toBack(wsproxy.Config{Timeouts: c.timeouts, OnClose: func(s wsproxy.Stats) { closed <- s }}, b)
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				return slowClose{conn}, err
			}
			s, p := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
			s.open(t, request{path: c.path})
			start := time.Now()
			e := s.open(t, request{path: "/other"})
			f, err := e.recv()
			for ; err == nil && f.op == opPing; f, err = e.recv() {
				_ = e.send(opPong, string(f.payload))
			}
			if d := time.Since(start); err != nil || f.op != opClose || d < 15*time.Second || d > 21*time.Second {
				t.Errorf("%s: the other tunnel: %v, %v after %v", c.path, f, err, d)
			}
			s.open(t, request{path: "/third"})
			synctest.Wait()
			start = time.Now()
			if err := p.Close(); err == nil || time.Since(start) != 10*time.Second {
				t.Errorf("%s: Close: %v after %v", c.path, err, time.Since(start))
			}
			for range 3 {
				<-closed
			}
			time.Sleep(time.Minute)
		})
	}
}

// That is no failure of Close where the tunnel itself has ended.
func TestSlowCutOfEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBack(t, memnet.Listen(), false, func(b *backConn) {
			_ = b.accept("")
			time.Sleep(3 * time.Second)
		})
		cfg := toBack(wsproxy.Config{}, b)
		dial := cfg.Dial
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return slowClose{conn}, err
		}
		s, p := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
		s.open(t, request{})
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}
