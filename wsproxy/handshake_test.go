package wsproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/wsproxy"
)

// eachFront runs a test with a proxy in memory, in a bubble, for each front.
func eachFront(t *testing.T, cfg wsproxy.Config, serve func(*backConn), f func(*testing.T, *proxied)) {
	t.Helper()
	for _, fr := range fronts() {
		t.Run(fr.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f(t, pair{front: fr, memory: true, mode: cfg.Mode, detach: cfg.Detach}.start(t, cfg, serve))
			})
		})
	}
}

// raw is an answer written byte by byte.
func raw(s string) func(*backConn) {
	return func(c *backConn) { _, _ = io.WriteString(c, s) }
}

// wsproxy 4 and 5: bytes that come with the handshake, and with its answer,
// arrive first and once.
func TestEarlyBytes(t *testing.T) {
	early := func(s string, masked bool) []byte {
		return frame{fin: true, op: opText, masked: masked, payload: []byte(s)}.wire()
	}
	for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
		got := make(chan string, 1)
		eachFront(t, wsproxy.Config{Mode: mode}, func(c *backConn) {
			if c.accept("", early("from the back end", false)...) != nil {
				return
			}
			var all string
			for range 2 {
				f, err := c.recv()
				if err != nil {
					all += err.Error()
				}
				all += string(f.payload) + ";"
			}
			got <- all
		}, func(t *testing.T, x *proxied) {
			e := x.open(t, request{early: early("from the client", true)})
			if f, err := e.recv(); err != nil || string(f.payload) != "from the back end" {
				t.Errorf("%v, %v", f, err)
			}
			if err := e.send(opText, "later"); err != nil {
				t.Fatal(err)
			}
			if s := <-got; s != "from the client;later;" {
				t.Error(s)
			}
		})
	}
}

// wsproxy 9 and 10: an answer that opens no tunnel is passed on whole, and the
// connection goes on with HTTP. A 2xx is no answer over HTTP/2.
func TestRefusalOfTheBackEnd(t *testing.T) {
	for _, status := range []int{200, 301, 401, 403, 404, 426, 503} {
		answer := fmt.Sprintf("HTTP/1.1 %d Whatever\r\nX-Own: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nLocation: /there\r\nWww-Authenticate: Basic\r\n"+
			"Set-Cookie: a=b\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<no/>", status)
		eachFront(t, wsproxy.Config{}, raw(answer), func(t *testing.T, x *proxied) {
			_, res := x.handshake(t, request{})
			body, err := io.ReadAll(res.Body)
			if x.front.h2() && status == 200 {
				if res.StatusCode != 502 || !strings.Contains(string(body), "websocket_answer") {
					t.Errorf("%d %q", res.StatusCode, body)
				}
				return
			}
			h := res.Header
			if res.StatusCode != status || string(body) != "<no/>" || err != nil || h.Get("X-Own") != "1" || h.Get("X-Hop") != "" ||
				h.Get("Location") != "/there" || h.Get("Www-Authenticate") != "Basic" || h.Get("Set-Cookie") != "a=b" {
				t.Errorf("%d %v %q %v", res.StatusCode, h, body, err)
			}
		})
	}
	t.Run("pipelined", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x := pair{front: frontH1, memory: true}.start(t, wsproxy.Config{}, raw("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"))
			conn := x.dial(t)
			defer conn.Close()
			one := "GET /%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + testKey + "\r\n\r\n"
			fmt.Fprintf(conn, one+one, 1, 2)
			r := bufio.NewReader(conn)
			for i := range 2 {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("response %d: %v", i, err)
				}
				if body, _ := io.ReadAll(res.Body); res.StatusCode != 403 || string(body) != "no" {
					t.Errorf("%d %q", res.StatusCode, body)
				}
			}
		})
	})
	t.Run("chunked, with more coding than body", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := wsproxy.Config{Limits: wsproxy.Limits{Refusal: 10000}}
			x := pair{front: frontH1, memory: true}.start(t, cfg, func(c *backConn) {
				_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
				time.Sleep(time.Second) // the header alone comes first
				_, _ = io.WriteString(c, strings.Repeat("1\r\nx\r\n", 9000)+"0\r\n\r\n")
			})
			_, res := x.handshake(t, request{})
			if body, err := io.ReadAll(res.Body); err != nil || len(body) != 9000 {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		})
	})
	t.Run("too long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := wsproxy.Config{Limits: wsproxy.Limits{Refusal: 10}}
			x := pair{front: frontH1, memory: true}.start(t, cfg, raw("HTTP/1.1 403 No\r\nContent-Length: 11\r\n\r\n0123456789a"))
			_, res, err := x.attempt(t, request{})
			var body []byte
			if err == nil {
				body, err = io.ReadAll(res.Body)
			}
			if err == nil || len(body) > 10 {
				t.Errorf("%q, %v", body, err)
			}
		})
	})
}

// wsproxy 9: what breaks off where it would be cut anyway does not look whole.
func TestRefusalBreaksOff(t *testing.T) {
	for _, fr := range fronts() {
		for end, whole := range map[string]bool{"0\r\n\r\n": true, "": false, "no chunk\r\n": false} {
			synctest.Test(t, func(t *testing.T) {
				cfg := wsproxy.Config{Limits: wsproxy.Limits{Refusal: 10}}
				x := pair{front: fr, memory: true}.start(t, cfg, raw("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"+end))
				_, res, err := x.attempt(t, request{})
				var body []byte
				if err == nil {
					body, err = io.ReadAll(res.Body)
				}
				if whole && (err != nil || string(body) != "0123456789") || !whole && err == nil {
					t.Errorf("%v, %q: %q, %v", fr, end, body, err)
				}
			})
		}
	}
}

// noDeadlines is a connection such as SSH's channels.
type noDeadlines struct{ net.Conn }

func (noDeadlines) SetDeadline(time.Time) error { return errors.New("deadline not supported") }

// wsproxy 16: a back end's connection to which no limit could be set is not used.
func TestNoDeadlines(t *testing.T) {
	for _, limit := range []time.Duration{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			b := startBack(t, memnet.Listen(), false, quiet(true))
			refused := make(chan error, 1)
			cfg := toBack(wsproxy.Config{Timeouts: wsproxy.Timeouts{Handshake: limit}}, b)
			cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
				refused <- err
				wsproxy.WriteError(w, r, err)
			}
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				return noDeadlines{c}, err
			}
			s, _ := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
			_, res := s.handshake(t, request{})
			const want = "wsproxy: back end unreachable: a connection without deadlines: deadline not supported"
			if err := <-refused; res.StatusCode != 502 || err.Error() != want {
				t.Errorf("%d %v", res.StatusCode, err)
			}
			synctest.Wait()
			if n := b.Open(); n != 0 {
				t.Errorf("%d connections to the back end", n)
			}
		})
	}
}

// wsproxy 11 and 12: informational answers are skipped, and what is not a
// WebSocket's 101 is a 502.
func TestAnswers(t *testing.T) {
	eachFront(t, wsproxy.Config{}, func(c *backConn) {
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
		_ = c.accept("X-Own: 1\r\nKeep-Alive: 5\r\nSec-WebSocket-Protocol: v1\r\n")
		_, _ = io.Copy(io.Discard, c)
	}, func(t *testing.T, x *proxied) {
		_, res := x.handshake(t, request{header: [][2]string{{"Sec-WebSocket-Protocol", "v0, v1"}}})
		h := res.Header
		if res.StatusCode != x.success() || h.Get("X-Own") != "1" || h.Get("Keep-Alive") != "" || h.Get("Sec-Websocket-Protocol") != "v1" {
			t.Errorf("%d %v", res.StatusCode, h)
		}
		if x.front.h2() && (h.Get("Upgrade") != "" || h.Get("Sec-Websocket-Accept") != "") {
			t.Errorf("fields of HTTP/1.1: %v", h)
		}
	})
	for name, answer := range map[string]string{
		"wrong accept": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"no HTTP":      "SSH-2.0-OpenSSH\r\n\r\n",
		"nothing":      "",
		"endless":      "HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", 100<<10),
	} {
		t.Run(name, func(t *testing.T) {
			eachFront(t, wsproxy.Config{}, raw(answer), func(t *testing.T, x *proxied) {
				_, res := x.handshake(t, request{})
				if body, _ := io.ReadAll(res.Body); res.StatusCode != 502 || !strings.Contains(string(body), `"code":"websocket_answer"`) {
					t.Errorf("%d %s", res.StatusCode, body)
				}
			})
		})
	}
}

// wsproxy 16: dialling, and the answer, have a limit each.
func TestSlowBackEnd(t *testing.T) {
	eachFront(t, wsproxy.Config{}, func(c *backConn) { _, _ = io.Copy(io.Discard, c) }, func(t *testing.T, x *proxied) {
		start := time.Now()
		_, res := x.handshake(t, request{})
		if d := time.Since(start); res.StatusCode != 504 || d != 10*time.Second {
			t.Errorf("%d after %v", res.StatusCode, d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		cfg := wsproxy.Config{Target: "ws://x", Timeouts: wsproxy.Timeouts{Dial: 3 * time.Second}}
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if network != "tcp" || addr != "x:80" {
				t.Errorf("%s %s", network, addr)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		s, _ := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
		start := time.Now()
		if _, res := s.handshake(t, request{}); res.StatusCode != 504 || time.Since(start) != 3*time.Second {
			t.Errorf("%d after %v", res.StatusCode, time.Since(start))
		}
	})
	// A server that accepts and does not speak TLS.
	synctest.Test(t, func(t *testing.T) {
		b := startBack(t, memnet.Listen(), false, func(*backConn) {})
		cfg := toBack(wsproxy.Config{}, b)
		cfg.Target = strings.Replace(cfg.Target, "ws:", "wss:", 1)
		s, _ := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
		if _, res := s.handshake(t, request{}); res.StatusCode/100 != 5 {
			t.Error(res.StatusCode)
		}
	})
	// One that accepts and says nothing.
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				_, _ = io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
		cfg := wsproxy.Config{Target: "wss://x", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) }}
		s, _ := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
		start := time.Now()
		if _, res := s.handshake(t, request{}); res.StatusCode != 504 || time.Since(start) != 5*time.Second {
			t.Errorf("silent in TLS: %d after %v", res.StatusCode, time.Since(start))
		}
	})
}

// wsproxy 16: a client that does not take the 101 has a limit, too, and holds
// no place after it.
func TestSlowToTake101(t *testing.T) {
	for _, fr := range []front{frontH1, frontH1TLS} {
		t.Run(fr.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 1, Answer: 1 << 20}}
				x := pair{front: fr, memory: true}.start(t, cfg, func(c *backConn) {
					more := ""
					if c.request.URL.Path == "/big" {
						more = "X-Big: " + strings.Repeat("x", 512<<10) + "\r\n"
					}
					if c.accept(more) == nil {
						_, _ = io.Copy(io.Discard, c)
					}
				})
				conn := x.dial(t)
				defer conn.Close()
				fmt.Fprintf(conn, "GET /big HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
				time.Sleep(9 * time.Second)
				if _, res := x.handshake(t, request{}); res.StatusCode != 503 {
					t.Errorf("before: %d", res.StatusCode)
				}
				time.Sleep(2 * time.Second)
				if _, res := x.handshake(t, request{}); res.StatusCode != 101 {
					t.Errorf("after: %d", res.StatusCode)
				}
			})
		})
	}
}

// wsproxy 17: a client that goes takes its dial with it.
func TestClientGoneDuringDial(t *testing.T) {
	for _, fr := range fronts() {
		synctest.Test(t, func(t *testing.T) {
			gone := make(chan time.Duration, 1)
			start := time.Now()
			cfg := wsproxy.Config{Target: "ws://x", Timeouts: wsproxy.Timeouts{Dial: time.Hour}}
			cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				gone <- time.Since(start)
				return nil, ctx.Err()
			}
			s, _ := startProxy(t, fr, memnet.Listen(), cfg, &http.Server{})
			if fr.h2() {
				c, err := openH2(s.dial(t), h2Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				st, err := c.Request(connectFields(fr.scheme(), "x", "/")...)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				_ = st.Abort()
			} else {
				conn := s.dial(t)
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
				time.Sleep(time.Second)
				conn.Close()
			}
			if d := <-gone; d != time.Second {
				t.Errorf("%v: the dial ended after %v", fr, d)
			}
		})
	}
}

// wsproxy 19: a back end that could do HTTP/2 is offered HTTP/1.1 alone.
func TestALPN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := pair{front: frontH1, memory: true, tls: true}.start(t, wsproxy.Config{}, echo)
		e := x.open(t, request{}) // over a connection that chose h2 the server above could not answer
		if err := e.send(opText, "hello"); err != nil {
			t.Fatal(err)
		}
		if f, err := e.recv(); err != nil || string(f.payload) != "hello" {
			t.Errorf("%v %v", f, err)
		}
	})
}

// wsproxy 3: a handshake with a body is refused and ends its connection.
func TestBodyEndsConnection(t *testing.T) {
	for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			x := pair{front: frontH1, memory: true}.start(t, wsproxy.Config{}, echo)
			conn := x.dial(t)
			defer conn.Close()
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s", testKey, body)
			r := bufio.NewReader(conn)
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != 400 || !res.Close {
				t.Fatalf("%v %v", res, err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if _, err := r.ReadByte(); err == nil {
				t.Error("the connection goes on")
			}
		})
	}
}

// wsproxy 22: the origin is judged before the back end hears of the request.
func TestRefusedBeforeDial(t *testing.T) {
	var dialled atomic.Int64
	cfg := wsproxy.Config{Subprotocols: []string{"chat"}}
	cfg.OnHandshake = func(hs *wsproxy.Handshake) error {
		switch hs.Request.URL.Path {
		case "/no":
			return errors.New("no")
		case "/busy":
			return &busy{}
		}
		return nil
	}
	eachFront(t, cfg, func(c *backConn) { dialled.Add(1) }, func(t *testing.T, x *proxied) {
		for _, c := range []struct {
			path, name, value string
			want              int
		}{
			{"/", "Origin", "https://evil.example", 403},
			{"/", "Sec-WebSocket-Protocol", "other", 400},
			{"/no", "X", "1", 403},
			{"/busy", "X", "1", 429},
		} {
			_, res := x.handshake(t, request{path: c.path, header: [][2]string{{c.name, c.value}}})
			if res.StatusCode != c.want {
				t.Errorf("%v: %d", c, res.StatusCode)
			}
		}
	})
	if dialled.Load() != 0 {
		t.Error("the back end was dialled")
	}
}

type busy struct{}

func (*busy) Error() string   { return "busy" }
func (*busy) HTTPStatus() int { return 429 }
func (*busy) Code() string    { return "busy" }

// What is no handshake is refused, or goes to Fallback.
func TestNoHandshake(t *testing.T) {
	for _, proto := range memnet.Protos() {
		for _, fallback := range []http.Handler{nil, http.NotFoundHandler()} {
			synctest.Test(t, func(t *testing.T) {
				p, err := wsproxy.New(wsproxy.Config{Target: "ws://x", Fallback: fallback})
				if err != nil {
					t.Fatal(err)
				}
				s := memnet.Serve(t, proto, &http.Server{Handler: p})
				res, err := s.Client.Get(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				want := 404
				if fallback == nil {
					if want = 400; proto == memnet.HTTP1 {
						want = 426
						if res.Header.Get("Upgrade") != "websocket" {
							t.Error(res.Header)
						}
					}
				}
				if res.StatusCode != want {
					t.Errorf("%v: %d", proto, res.StatusCode)
				}
			})
		}
	}
}

// wsproxy 50: a wrapper with Unwrap works, and one that hides what a tunnel
// needs is a 500 and a line in the log, before the back end is dialled.
func TestWrappedWriter(t *testing.T) {
	for _, fr := range fronts() {
		for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
			"Unwrap":         func(w http.ResponseWriter) http.ResponseWriter { return unwrapper{w} },
			"nothing":        func(w http.ResponseWriter) http.ResponseWriter { return struct{ http.ResponseWriter }{w} },
			"Flush alone":    func(w http.ResponseWriter) http.ResponseWriter { return flusher{w, w.(http.Flusher)} },
			"Unwrap, hidden": func(w http.ResponseWriter) http.ResponseWriter { return unwrapper{struct{ http.ResponseWriter }{w}} },
		} {
			t.Run(fr.String()+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var dialled atomic.Int64
					b := startBack(t, memnet.Listen(), false, func(c *backConn) {
						dialled.Add(1)
						echo(c)
					})
					var logged bytes.Buffer
					p, err := wsproxy.New(toBack(wsproxy.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}, b))
					if err != nil {
						t.Fatal(err)
					}
					srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("X-Request-Id", "7")
						p.ServeHTTP(wrap(w), r)
					})}
					s := serveFront(t, fr, memnet.Listen(), srv)
					t.Cleanup(func() { p.Close() })
					e, res := s.handshake(t, request{})
					if name != "Unwrap" {
						if res.StatusCode != 500 || dialled.Load() != 0 || strings.Count(logged.String(), "\n") != 1 {
							t.Errorf("%d, %d dials, logged %q", res.StatusCode, dialled.Load(), logged.String())
						}
						return
					}
					if res.StatusCode != s.success() || res.Header.Get("X-Request-Id") != "7" || logged.Len() > 0 {
						t.Fatalf("%d %v %q", res.StatusCode, res.Header, logged.String())
					}
					if err := echoes(e, 1); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

type flusher struct {
	http.ResponseWriter
	http.Flusher
}

// The composition contract of the kit: what Match does not accept passes as if
// nothing stood there.
func TestMiddlewareContract(t *testing.T) {
	mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		p, err := wsproxy.New(wsproxy.Config{Target: "ws://x", Match: func(r *http.Request) bool { return r.URL.Path == "/no such path" }})
		if err != nil {
			t.Fatal(err)
		}
		return p.Handler
	}})
}

// Handler takes what Match accepts and nothing else.
func TestHandler(t *testing.T) {
	eachFrontHandler := func(t *testing.T, fr front) {
		b := startBack(t, memnet.Listen(), false, echo)
		p, err := wsproxy.New(toBack(wsproxy.Config{Match: func(r *http.Request) bool { return r.URL.Path == "/ws" }}, b))
		if err != nil {
			t.Fatal(err)
		}
		s := serveFront(t, fr, memnet.Listen(), &http.Server{Handler: p.Handler(http.NotFoundHandler())})
		t.Cleanup(func() { p.Close() })
		s.open(t, request{path: "/ws"})
		if _, res := s.handshake(t, request{path: "/other"}); res.StatusCode != 404 {
			t.Error(res.StatusCode)
		}
	}
	for _, fr := range fronts() {
		synctest.Test(t, func(t *testing.T) { eachFrontHandler(t, fr) })
	}
	p, err := wsproxy.New(wsproxy.Config{Target: "ws://x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"nil handler": func() { p.Handler(nil) },
		"no Match":    func() { p.Handler(http.NotFoundHandler()) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// A Director chooses the back end of each handshake, over a socket too.
func TestDirector(t *testing.T) {
	dir, err := os.MkdirTemp("", "ws") // a short path, as a socket's must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan *http.Request, 1)
	startBack(t, tcpListener{l}, false, func(c *backConn) {
		seen <- c.request
		echo(c)
	})
	cfg := wsproxy.Config{Director: func(hs *wsproxy.Handshake) (*wsproxy.Target, error) {
		switch hs.Request.URL.Path {
		case "/nil":
			return nil, nil
		case "/bad":
			return &wsproxy.Target{URL: "http://x"}, nil
		case "/error":
			return nil, errors.New("none")
		}
		return &wsproxy.Target{URL: "unix://" + dir + "/s", Host: "inner.example", Header: http.Header{"x-tenant": {"a"}, "Upgrade": {"x"}}}, nil
	}}
	s, _ := startProxy(t, frontH1, memnet.Listen(), cfg, &http.Server{})
	for _, path := range []string{"/nil", "/bad", "/error"} {
		if _, res := s.handshake(t, request{path: path}); res.StatusCode != 502 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	e := s.open(t, request{path: "/a%2Fb?c"})
	if r := <-seen; r.Host != "inner.example" || r.Header.Get("X-Tenant") != "a" || r.RequestURI != "/a%2Fb?c" || r.Header.Get("Upgrade") != "websocket" {
		t.Errorf("%q %q %v", r.Host, r.RequestURI, r.Header)
	}
	if err := e.send(opText, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.recv(); err != nil {
		t.Error(err)
	}
}

// upgrade sends a handshake on a connection and returns the answer.
func upgrade(t *testing.T, conn net.Conn) *http.Response {
	t.Helper()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", testKey)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}
