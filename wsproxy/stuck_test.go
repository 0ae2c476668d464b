package wsproxy_test

import (
	"bufio"
	"context"
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
	"example.com/plainware/wsproxy"
)

// wsproxy 47 and 49: a client that does not read the back end's refusal holds
// no tunnel's place, and neither Shutdown nor Close waits for it; nor does the back
// end's connection, for long.
func TestRefusalNotRead(t *testing.T) {
	for _, fr := range fronts() {
		for _, closing := range []bool{true, false} {
			t.Run(fmt.Sprint(fr, ", closed while it is sent ", closing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const size = 512 << 10
					cfg := wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 1}}
					x := pair{front: fr, memory: true}.start(t, cfg, func(c *backConn) {
						if c.request.URL.Path == "/big" {
							fmt.Fprintf(c, "HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
							return
						}
						_ = c.accept("")
						_, _ = io.Copy(io.Discard, c)
					})
					// Over HTTP/2 the window of the stream is not widened.
					conn := x.dial(t)
					defer conn.Close()
					if fr.h2() {
						if _, err := newH2Client(t, conn, h2Config{}).Request(connectFields(fr.scheme(), "x", "/big")...); err != nil {
							t.Fatal(err)
						}
					} else {
						fmt.Fprintf(conn, "GET /big HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
					}
					synctest.Wait()
					if n := x.back.Open(); n != 1 {
						t.Fatalf("%d connections to the back end", n)
					}
					x.open(t, request{path: "/small"})
					// net/http closes a connection of which a write has failed, and
					// TLS tries for 5 s to say so.
					const alert = 5 * time.Second
					if !closing {
						time.Sleep(11*time.Second + alert) // Timeouts.Handshake
						synctest.Wait()
						if n := x.back.Open(); n != 1 {
							t.Errorf("%d connections to the back end", n)
						}
						return
					}
					start := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					if err := x.proxy.Shutdown(ctx); time.Since(start) > 5*time.Second {
						t.Errorf("%v after %v", err, time.Since(start))
					}
					if err := x.proxy.Close(); err != nil {
						t.Error(err)
					}
					time.Sleep(alert + time.Second)
					if n := x.back.Open(); n != 0 {
						t.Errorf("%d connections to the back end", n)
					}
				})
			})
		}
	}
}

// wsproxy 47: of refusals that are not read there are no more than of tunnels,
// for how long ever one may stay; what is over that is answered with 503.
func TestRefusalsBounded(t *testing.T) {
	const size = 512 << 10
	for _, fr := range []front{frontH1, frontH1TLS} {
		for _, l := range []wsproxy.Limits{{Tunnels: 2}, {PerKey: 2}} {
			for _, limit := range []time.Duration{0, -1} {
				synctest.Test(t, func(t *testing.T) {
					x := pair{front: fr, memory: true}.start(t, wsproxy.Config{Limits: l, Timeouts: wsproxy.Timeouts{Handshake: limit}}, func(c *backConn) {
						fmt.Fprintf(c, "HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
					})
					var conns []net.Conn
					for range 20 {
						conn := x.dial(t)
						conns = append(conns, conn)
						fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
						synctest.Wait()
					}
					if n := x.back.Open(); n != 2 {
						t.Errorf("%v, %+v: %d connections to the back end", fr, l, n)
					}
					for i, want := range []int{403, 403, 503, 503} {
						res, err := http.ReadResponse(bufio.NewReader(conns[i]), nil)
						if err != nil || res.StatusCode != want {
							t.Fatalf("%v, %+v, %d: %v, %v", fr, l, i, res, err)
						}
						if body, err := io.ReadAll(res.Body); err != nil || want == 403 && len(body) != size {
							t.Errorf("%d bytes, %v", len(body), err)
						}
					}
					synctest.Wait()
					if n := x.back.Open(); n != 0 {
						t.Errorf("%v, %+v: %d connections to the back end when all are read", fr, l, n)
					}
					if _, res := x.handshake(t, request{}); res.StatusCode != 403 {
						t.Errorf("%v, %+v: then %d", fr, l, res.StatusCode)
					}
					for _, conn := range conns {
						conn.Close()
					}
				})
			}
		}
	}
}

// wsproxy 47: the same over HTTP/2, where without Prepare a write that is stuck
// does not return: even so the back end's connections are closed in time.
func TestRefusalsBoundedWithoutPrepare(t *testing.T) {
	for _, fr := range []front{frontH2, frontH2C} {
		synctest.Test(t, func(t *testing.T) {
			const size = 512 << 10
			b := startBack(t, memnet.Listen(), false, func(c *backConn) {
				if c.request.URL.Path == "/flood" {
					flood(c)
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
			})
			p, err := wsproxy.New(toBack(wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 2}}, b))
			if err != nil {
				t.Fatal(err)
			}
			s := serveFront(t, fr, memnet.Listen(), &http.Server{Handler: p})
			c := &stoppable{Conn: s.dial(t), resume: make(chan struct{})}
			client, err := openH2(c, h2Config{Window: 64 << 20})
			t.Cleanup(func() { close(c.resume); client.Close() })
			if err != nil {
				t.Fatal(err)
			}
			if _, res := s.handshakeH2(t, client, request{path: "/flood"}); res.StatusCode != 200 {
				t.Fatal(res.StatusCode)
			}
			c.stopped.Store(true)
			synctest.Wait()
			for range 20 {
				if _, err := client.Request(connectFields(fr.scheme(), "x", "/big")...); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			if n := b.Open(); n != 1+2 {
				t.Errorf("%v: %d connections to the back end", fr, n)
			}
			time.Sleep(11 * time.Second) // Timeouts.Handshake
			synctest.Wait()
			if n := b.Open(); n != 1 {
				t.Errorf("%v: %d connections to the back end after the limit", fr, n)
			}
			// Others, who read, have the places of both kinds.
			for range 4 {
				_, res := s.handshake(t, request{path: "/big"})
				if body, err := io.ReadAll(res.Body); res.StatusCode != 403 || len(body) != size || err != nil {
					t.Errorf("%v: %d, %d bytes, %v", fr, res.StatusCode, len(body), err)
				}
				synctest.Wait()
			}
		})
	}
}

// wsproxy 49: neither Shutdown nor Close waits for a client that does not take
// the 101, which has little time then.
func TestEndDuring101(t *testing.T) {
	for _, fr := range []front{frontH1, frontH1TLS} {
		for _, limit := range []time.Duration{time.Minute, -1} {
			synctest.Test(t, func(t *testing.T) {
				x := pair{front: fr, memory: true}.start(t, wsproxy.Config{Timeouts: wsproxy.Timeouts{Handshake: limit}, Limits: wsproxy.Limits{Answer: 1 << 20}}, func(c *backConn) {
					if c.accept("X-Big: "+strings.Repeat("x", 512<<10)+"\r\n") == nil {
						_, _ = io.Copy(io.Discard, c)
					}
				})
				conn := x.dial(t)
				defer conn.Close()
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				if err := x.proxy.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) > 4*time.Second {
					t.Errorf("%v: Shutdown: %v after %v", fr, err, time.Since(start))
				}
				if err := x.proxy.Close(); err != nil || time.Since(start) > 4*time.Second {
					t.Errorf("%v: Close: %v after %v", fr, err, time.Since(start))
				}
				synctest.Wait()
				if n := x.back.Open(); n != 0 {
					t.Errorf("%v: %d connections to the back end", fr, n)
				}
			})
		}
	}
}

// A refusal that is read leaves no deadline behind on its connection.
func TestRefusalLeavesNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := pair{front: frontH1, memory: true}.start(t, wsproxy.Config{}, raw("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"))
		conn := x.dial(t)
		defer conn.Close()
		r := bufio.NewReader(conn)
		for range 3 {
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); res.StatusCode != 403 || string(body) != "no" || err != nil {
				t.Errorf("%d %q %v", res.StatusCode, body, err)
			}
			time.Sleep(time.Minute)
		}
	})
}

// stoppable is a connection of which no more is read once it is stopped.
type stoppable struct {
	net.Conn
	stopped atomic.Bool
	resume  chan struct{}
}

func (c *stoppable) Read(p []byte) (int, error) {
	if c.stopped.Load() {
		<-c.resume
	}
	return c.Conn.Read(p)
}

// flooded opens a tunnel over HTTP/2 that is full of the back end's bytes, and
// stops reading the connection.
func flooded(t *testing.T, s *server) *stoppable {
	t.Helper()
	c := &stoppable{Conn: s.dial(t), resume: make(chan struct{})}
	client, err := openH2(c, h2Config{Window: 64 << 20})
	t.Cleanup(func() {
		close(c.resume)
		client.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, res := s.handshakeH2(t, client, request{}); res.StatusCode != 200 {
		t.Fatal(res.StatusCode)
	}
	c.stopped.Store(true)
	synctest.Wait()
	return c
}

func flood(c *backConn) {
	if c.accept("") != nil {
		return
	}
	for c.send(opBinary, string(make([]byte, 16<<10))) == nil {
	}
}

// wsproxy 48 and 49: a client that stops to read its whole HTTP/2 connection is
// cut by the server, as Prepare has set it, and then the tunnel ends.
func TestConnectionNotRead(t *testing.T) {
	for _, fr := range []front{frontH2, frontH2C} {
		synctest.Test(t, func(t *testing.T) {
			closed := make(chan wsproxy.Stats, 1)
			cfg := wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}
			cfg.Timeouts.WriteStall = 20 * time.Second
			x := pair{front: fr, memory: true}.start(t, cfg, flood)
			flooded(t, x.server)
			if s := <-closed; s.End != wsproxy.EndWriteStall || s.Duration < 20*time.Second || s.Duration > time.Minute+time.Second {
				t.Errorf("%v: %v after %v", fr, s.End, s.Duration)
			}
		})
	}
}

// wsproxy 49: without that the tunnel stays, and Shutdown and Close return even
// so.
func TestConnectionNotReadWithoutPrepare(t *testing.T) {
	for _, fr := range []front{frontH2, frontH2C} {
		synctest.Test(t, func(t *testing.T) {
			b := startBack(t, memnet.Listen(), false, flood)
			p, err := wsproxy.New(toBack(wsproxy.Config{}, b))
			if err != nil {
				t.Fatal(err)
			}
			s := serveFront(t, fr, memnet.Listen(), &http.Server{Handler: p})
			flooded(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			start := time.Now()
			if err := p.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != 4*time.Second {
				t.Errorf("%v: Shutdown: %v after %v", fr, err, time.Since(start))
			}
			start = time.Now()
			if err := p.Close(); err == nil || time.Since(start) != 10*time.Second {
				t.Errorf("%v: Close: %v after %v", fr, err, time.Since(start))
			}
			s.Close()
			if err := p.Close(); err != nil {
				t.Errorf("%v: %v", fr, err)
			}
		})
	}
}

// gate holds the opening of the client's side up, when the back end has said
// yes.
type gate struct {
	http.ResponseWriter
	reached, open chan struct{}
}

func (g *gate) Unwrap() http.ResponseWriter { return g.ResponseWriter }

func (g *gate) pass() *http.ResponseController {
	g.reached <- struct{}{}
	<-g.open
	return http.NewResponseController(g.ResponseWriter)
}

func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) { return g.pass().Hijack() }

func (g *gate) FlushError() error {
	select {
	case <-g.open:
		return http.NewResponseController(g.ResponseWriter).Flush()
	default:
		return g.pass().Flush()
	}
}

// wsproxy 49: a handshake that is finished when Shutdown has begun gives a tunnel
// that is drained, and after Close one that is cut.
func TestHandshakeDuringEnd(t *testing.T) {
	for _, fr := range fronts() {
		for _, shutdown := range []bool{true, false} {
			t.Run(fmt.Sprint(fr, ", Shutdown ", shutdown), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					closed, ended := make(chan wsproxy.Stats, 1), make(chan error, 1)
					b := startBack(t, memnet.Listen(), false, quiet(true))
					p, err := wsproxy.New(toBack(wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}, b))
					if err != nil {
						t.Fatal(err)
					}
					g := &gate{reached: make(chan struct{}), open: make(chan struct{})}
					s := serveFront(t, fr, memnet.Listen(), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						g.ResponseWriter = w
						p.ServeHTTP(g, r)
					})})
					code := make(chan uint16, 1)
					go func() {
						e, _, err := s.attempt(t, request{})
						if err != nil {
							code <- 0 // it may be cut before its answer is out
							return
						}
						code <- serveQuiet(e, true)
						_ = e.Close()
					}()
					<-g.reached
					go func() {
						if shutdown {
							ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
							defer cancel()
							ended <- p.Shutdown(ctx)
						} else {
							ended <- p.Close()
						}
					}()
					synctest.Wait()
					start := time.Now()
					close(g.open)
					want, wantCode := wsproxy.EndClosed, uint16(0)
					if shutdown {
						want, wantCode = wsproxy.EndDrained, 1012
					}
					if err := <-ended; err != nil || time.Since(start) > 5*time.Second {
						t.Errorf("%v after %v", err, time.Since(start))
					}
					if s := <-closed; s.End != want {
						t.Errorf("%v after %v", s.End, s.Duration)
					}
					if got := <-code; got != wantCode {
						t.Errorf("closed with %d", got)
					}
				})
			})
		}
	}
}

// wsproxy 6, 8 and 23, on the wire of HTTP/2: what net/http lets through and what
// it does not. Nothing that is refused reaches the back end.
func TestConnectOnTheWire(t *testing.T) {
	field := func(name, value string) func([][2]string) [][2]string {
		return func(fields [][2]string) (out [][2]string) {
			for _, f := range fields {
				if f[0] == name {
					f[1] = value
				}
				if f[1] != "" {
					out = append(out, f)
				}
			}
			return out
		}
	}
	for _, c := range []struct {
		name   string
		change func([][2]string) [][2]string
		want   int // 400 is also a stream that net/http itself resets
	}{
		{"good", field("", ""), 200},
		{"WebSocket", field(":protocol", "WebSocket"), 200},
		{"GET", field(":method", "GET"), 400},
		// net/http neither refuses it nor shows it.
		{"no scheme", field(":scheme", ""), 200},
		{"no authority", field(":authority", ""), 400},
		{"no path", field(":path", ""), 400},
		{"asterisk", field(":path", "*"), 400},
		{"connect-udp", field(":protocol", "connect-udp"), 501},
		{"dots", field(":path", "/a/../b"), 400},
		{"dots and a parameter", field(":path", "/a/..;/b"), 400},
		{"dots between backslashes", field(":path", `/a\..\b`), 400},
		{"dots between encoded backslashes", field(":path", "/a%5c..%5cb"), 400},
		{"double slash", field(":path", "/a//b"), 400},
		{"the end of a request line", field(":path", "/a?b HTTP/1.1 c"), 400},
		{"number sign", field(":path", "/a?b#c"), 400},
		{"zero byte", field(":path", "/a%00b"), 400},
		{"authority with a space", field(":authority", "app.example evil"), 400},
		{"authority with a path", field(":authority", "app.example/x"), 400},
		{"authority with a user", field(":authority", "u@app.example"), 400},
		{"another origin", func(f [][2]string) [][2]string { return append(f, [2]string{"origin", "https://evil.example"}) }, 403},
	} {
		for _, fr := range []front{frontH2, frontH2C} {
			t.Run(c.name+" "+fr.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var dialled atomic.Int64
					x := pair{front: fr, memory: true}.start(t, wsproxy.Config{}, func(c *backConn) {
						dialled.Add(1)
						quiet(true)(c)
					})
					st, err := newH2Client(t, x.dial(t), h2Config{}).Request(c.change(connectFields(fr.scheme(), "app.example", "/chat"))...)
					if err != nil {
						t.Fatal(err)
					}
					status, _, err := st.Response()
					if status != c.want && (c.want != 400 || err != h2Reset(h2ProtocolError)) {
						t.Errorf("%d, %v, want %d", status, err, c.want)
					}
					if n := dialled.Load(); (n > 0) != (c.want == 200) {
						t.Errorf("%d dials", n)
					}
				})
			})
		}
	}
}

// slowClose is a connection whose Close takes a while, as that of TLS can.
type slowClose struct{ net.Conn }

func (c slowClose) Close() error {
	time.Sleep(30 * time.Second)
	return c.Conn.Close()
}

// failingWrites tells of the first Write that fails.
type failingWrites struct {
	http.ResponseWriter
	once   *sync.Once
	failed func()
}

func (w failingWrites) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w failingWrites) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.once.Do(w.failed)
	}
	return n, err
}

// A client that does not read a refusal is cut in time, however long it takes to
// close the connection to the back end.
func TestRefusalCutBeforeBack(t *testing.T) {
	for _, fr := range []front{frontH1, frontH2C} {
		synctest.Test(t, func(t *testing.T) {
			const size = 512 << 10
			b := startBack(t, memnet.Listen(), false, func(c *backConn) {
				fmt.Fprintf(c, "HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
			})
			cfg := toBack(wsproxy.Config{}, b)
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				return slowClose{c}, err
			}
			p, err := wsproxy.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			start, cut := time.Now(), make(chan time.Duration, 1)
			s := serveFront(t, fr, memnet.Listen(), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p.ServeHTTP(failingWrites{w, new(sync.Once), func() { cut <- time.Since(start) }}, r)
			})})
			conn := s.dial(t)
			defer conn.Close()
			if fr.h2() {
				if _, err := newH2Client(t, conn, h2Config{}).Request(connectFields(fr.scheme(), "x", "/")...); err != nil {
					t.Fatal(err)
				}
			} else {
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
			}
			if d := <-cut; d > 15*time.Second {
				t.Errorf("%v: after %v", fr, d)
			}
			time.Sleep(time.Minute)
		})
	}
}
