package wsproxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/wsproxy"
)

// volume is what goes each way in a test of bulk.
const volume = 4 << 20

// frameSizes is a sequence of payload lengths, those where the header changes
// its form among them, that sums to volume.
func frameSizes() []int {
	sizes := []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20}
	sum := 0
	for _, n := range sizes {
		sum += n
	}
	for rng := rand.New(rand.NewPCG(1, 2)); sum < volume; {
		n := min(volume-sum, 1<<rng.IntN(18))
		sizes, sum = append(sizes, n), sum+n
	}
	return sizes
}

// sendBulk writes volume bytes in frames, and recvBulk checks that they are
// what arrives.
func sendBulk(e *end, seed byte) error {
	rng := rand.NewChaCha8([32]byte{seed})
	for _, n := range frameSizes() {
		f := frame{fin: true, op: opBinary, payload: make([]byte, n)}
		rng.Read(f.payload)
		if err := e.sendFrame(f); err != nil {
			return err
		}
	}
	return nil
}

func recvBulk(e *end, seed byte) error {
	rng := rand.NewChaCha8([32]byte{seed})
	for i, n := range frameSizes() {
		f, err := e.recv()
		if err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
		want := make([]byte, n)
		rng.Read(want)
		if !f.fin || f.rsv != 0 || f.op != opBinary || !bytes.Equal(f.payload, want) {
			return fmt.Errorf("frame %d is %v, want %d other bytes", i, f, n)
		}
	}
	return nil
}

// both runs the two directions of one end at the same time.
func both(e *end, send, recv byte) error {
	sent := make(chan error, 1)
	go func() { sent <- sendBulk(e, send) }()
	err := recvBulk(e, recv)
	if err != nil {
		e.Close()
	}
	return errors.Join(err, <-sent)
}

// wsproxy 7 and 24: 4 MiB each way at the same time through all pairs, byte for byte.
// The clients over HTTP/2 do not send SETTINGS_ENABLE_CONNECT_PROTOCOL.
func TestBulkBothWays(t *testing.T) {
	eachPair(t, pairs(false, true), func(t *testing.T, p pair) {
		backDone := make(chan error, 1)
		x := p.start(t, wsproxy.Config{}, func(c *backConn) {
			if err := c.accept(""); err != nil {
				backDone <- err
				return
			}
			backDone <- both(c.end, 'b', 'c')
			_, _ = io.Copy(io.Discard, c) // the client ends
		})
		if err := both(x.open(t, request{}), 'c', 'b'); err != nil {
			t.Error("client: ", err)
		}
		if err := <-backDone; err != nil {
			t.Error("back end: ", err)
		}
	})
}

// wsproxy 25: the client's half-close reaches the back end, and what the back
// end sends after it reaches the client.
func TestClientHalfClose(t *testing.T) {
	eachPair(t, pairs(false, true), func(t *testing.T, p pair) {
		got := make(chan error, 1)
		x := p.start(t, wsproxy.Config{}, func(c *backConn) {
			if c.accept("") != nil {
				return
			}
			f, err := c.recv()
			if err == nil && string(f.payload) != "last words" {
				err = fmt.Errorf("%v", f)
			}
			if err == nil {
				_, err = c.recv()
			}
			got <- err
			_ = sendBulk(c.end, 'b')
		})
		e := x.open(t, request{})
		if err := e.send(opText, "last words"); err != nil {
			t.Fatal(err)
		}
		if err := e.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := recvBulk(e, 'b'); err != nil {
			t.Error("client: ", err)
		}
		if n, err := io.Copy(io.Discard, e); n > 0 || err != nil {
			t.Errorf("client: after the end %d bytes, %v", n, err)
		}
		if err := <-got; err != io.EOF {
			t.Errorf("back end: %v, want EOF", err)
		}
	})
}

// wsproxy 25: the same from the back end's side. Over HTTP/2 there is no
// half-close towards a client (TestBackEndsH2Stream).
func TestBackHalfClose(t *testing.T) {
	eachPair(t, pairs(false, true), func(t *testing.T, p pair) {
		if p.front.h2() {
			return
		}
		got := make(chan error, 1)
		x := p.start(t, wsproxy.Config{}, func(c *backConn) {
			if c.accept("") != nil {
				return
			}
			err := errors.Join(c.send(opText, "last words"), c.CloseWrite())
			if err == nil {
				err = recvBulk(c.end, 'c')
			}
			if err == nil {
				if _, err = c.recv(); err == io.EOF {
					err = nil
				}
			}
			got <- err
		})
		e := x.open(t, request{})
		if f, err := e.recv(); err != nil || string(f.payload) != "last words" {
			t.Fatalf("client: %v, %v", f, err)
		}
		if _, err := e.recv(); err != io.EOF {
			t.Fatalf("client: %v, want EOF", err)
		}
		if err := errors.Join(sendBulk(e, 'c'), e.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Errorf("back end: %v", err)
		}
	})
}

// wsproxy 26: a peer that goes on after the other has ended, and never ends
// itself, is cut when it was silent for the linger time.
func TestLinger(t *testing.T) {
	eachPair(t, pairs(true), func(t *testing.T, p pair) {
		for _, c := range []struct {
			name   string
			linger time.Duration // as configured
			want   time.Duration
		}{
			{"default", 0, 10 * time.Second},
			{"set", 3 * time.Second, 3 * time.Second},
		} {
			for _, clientEnds := range []bool{true, false} {
				if p.front.h2() && !clientEnds {
					continue // TestBackEndsH2Stream
				}
				t.Run(fmt.Sprintf("%s, client ends %t", c.name, clientEnds), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						closed := make(chan wsproxy.Stats, 1)
						ended := make(chan time.Time, 1)
						cfg := wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}
						cfg.Timeouts.Linger = c.linger
						x := p.start(t, cfg, func(c *backConn) {
							if c.accept("") != nil {
								return
							}
							if !clientEnds {
								_ = c.CloseWrite()
							}
							_, _ = io.Copy(io.Discard, c)
							if clientEnds {
								_, _ = c.Write(nil)
								// Read on, without an end of its own, until cut.
								<-ended
							}
						})
						e := x.open(t, request{})
						begun := time.Now()
						if clientEnds {
							if err := e.CloseWrite(); err != nil {
								t.Fatal(err)
							}
						}
						s := <-closed
						// The wheel that ends it is coarse.
						if d := time.Since(begun); d < c.want || d > c.want+c.want/4+time.Second {
							t.Errorf("ended after %v, want %v", d, c.want)
						}
						want := wsproxy.EndClient
						if !clientEnds {
							want = wsproxy.EndBackend
						}
						if s.End != want {
							t.Errorf("End is %v, want %v", s.End, want)
						}
						close(ended)
					})
				})
			}
		}
	})
}

// wsproxy 27: a reset on one side is a reset on the other, not an orderly end.
func TestResetByClient(t *testing.T) {
	eachPair(t, pairs(false, true), func(t *testing.T, p pair) {
		got := make(chan error, 1)
		x := p.start(t, wsproxy.Config{}, func(c *backConn) {
			if c.accept("") != nil {
				return
			}
			_, err := c.recv()
			if err == nil {
				_, err = c.recv()
			}
			got <- err
		})
		e := x.open(t, request{})
		if err := e.send(opText, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := e.Abort(); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("back end: %v, want %v", err, syscall.ECONNRESET)
		}
	})
}

// wsproxy 27: the same from the back end's side.
func TestResetByBack(t *testing.T) {
	eachPair(t, pairs(false, true), func(t *testing.T, p pair) {
		reset := make(chan struct{})
		x := p.start(t, wsproxy.Config{}, func(c *backConn) {
			if c.accept("") != nil {
				return
			}
			<-reset
			_ = c.Abort()
		})
		e := x.open(t, request{})
		close(reset)
		_, err := e.recv()
		if p.front.h2() {
			// net/http offers this code, where RFC 8441 section 5 asks for CANCEL.
			if !errors.Is(err, h2Reset(h2InternalError)) {
				t.Errorf("client: %v, want a reset of the stream", err)
			}
		} else if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client: %v, want %v", err, syscall.ECONNRESET)
		}
	})
}

// Of long frames in a row the kernel passes nearly all: behind one that was
// spliced, no more than the header of the next is read. All arrive as they were
// sent, and short ones behind them too.
func TestSplicedInARow(t *testing.T) {
	var wire []byte
	for i := range 20 {
		payload := bytes.Repeat([]byte{byte(i)}, 256<<10)
		wire = append(wire, frame{fin: true, op: opBinary, masked: true, payload: payload}.wire()...)
	}
	for i := range 20 {
		wire = append(wire, frame{fin: true, op: opBinary, masked: true, payload: make([]byte, 100*i)}.wire()...)
	}
	closed, arrived := make(chan wsproxy.Stats, 1), make(chan []byte, 1)
	cfg := wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}
	x := pair{front: frontH1}.start(t, cfg, func(c *backConn) {
		if c.accept("") != nil {
			return
		}
		got := make([]byte, len(wire))
		n, _ := io.ReadFull(c, got)
		arrived <- got[:n]
	})
	e := x.open(t, request{})
	if _, err := e.Write(wire); err != nil {
		t.Fatal(err)
	}
	if got := <-arrived; !bytes.Equal(got, wire) {
		t.Errorf("%d bytes of %d, or others", len(got), len(wire))
	}
	if err := e.Abort(); err != nil {
		t.Error(err)
	}
	s := <-closed
	if spliced := s.FromClient.Spliced; runtime.GOOS == "linux" && spliced < uint64(len(wire))*19/20 {
		t.Errorf("%d bytes of %d were spliced", spliced, len(wire))
	}
}

// wsproxy 27: who resets within a frame that is spliced is the one that was lost,
// and the other side sees a reset.
func TestResetInSplice(t *testing.T) {
	half := func(masked bool) []byte {
		return frame{fin: true, op: opBinary, masked: masked, payload: make([]byte, 8<<20)}.wire()[:4<<20]
	}
	for _, byClient := range []bool{true, false} {
		for range 5 {
			closed, backErr := make(chan wsproxy.Stats, 1), make(chan error, 1)
			arrived := make(chan struct{})
			cfg := wsproxy.Config{OnClose: func(s wsproxy.Stats) { closed <- s }}
			x := pair{front: frontH1}.start(t, cfg, func(c *backConn) {
				if c.accept("") != nil {
					return
				}
				if !byClient {
					_, _ = c.Write(half(false))
					<-arrived
					backErr <- c.Abort()
					return
				}
				_, _ = io.CopyN(io.Discard, c, 4<<20)
				close(arrived)
				_, err := io.Copy(io.Discard, c)
				backErr <- err
			})
			e := x.open(t, request{})
			var clientErr error
			want := wsproxy.EndBackendLost
			if byClient {
				want = wsproxy.EndClientLost
				if _, err := e.Write(half(true)); err != nil {
					t.Fatal(err)
				}
				<-arrived
				clientErr = e.Abort()
			} else {
				_, _ = io.CopyN(io.Discard, e, 4<<20)
				close(arrived)
				_, clientErr = io.Copy(io.Discard, e)
			}
			other, own := clientErr, <-backErr
			if byClient {
				other, own = own, other
			}
			if own != nil || !errors.Is(other, syscall.ECONNRESET) {
				t.Errorf("client resets %t: %v, the other sees %v", byClient, own, other)
			}
			s := <-closed
			if s.End != want {
				t.Errorf("client resets %t: End is %v, %v", byClient, s.End, s.Err)
			}
			if runtime.GOOS == "linux" && s.FromClient.Spliced+s.FromBackend.Spliced == 0 {
				t.Error("nothing was spliced")
			}
		}
	}
}

// wsproxy 28: over HTTP/2 the end of the back end ends the stream at once:
// clients wait for the server to end first, and for nothing else.
func TestBackEndsH2Stream(t *testing.T) {
	eachPair(t, pairs(true), func(t *testing.T, p pair) {
		if !p.front.h2() {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			x := p.start(t, wsproxy.Config{}, func(c *backConn) {
				if c.accept("") != nil {
					return
				}
				_ = errors.Join(c.sendClose(1000, ""), c.CloseWrite())
				_, _ = io.Copy(io.Discard, c)
			})
			e := x.open(t, request{})
			begun := time.Now()
			if f, err := e.recv(); err != nil || f.op != opClose {
				t.Fatalf("%v, %v", f, err)
			}
			// The answer may find the stream gone, which NO_ERROR says.
			if err := e.sendClose(1000, ""); err != nil && !errors.Is(err, h2Reset(h2NoError)) {
				t.Fatal(err)
			}
			if _, err := e.recv(); err != io.EOF {
				t.Errorf("%v, want EOF", err)
			}
			if d := time.Since(begun); d > 0 {
				t.Errorf("the stream ended after %v", d)
			}
		})
	})
}

// wsproxy 29: a tunnel whose back end does not read, filled by its client,
// stops nothing else on the connection: neither another tunnel nor a request.
func TestStuckTunnelBlocksNoOther(t *testing.T) {
	for _, f := range []front{frontH2, frontH2C} {
		t.Run(f.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				p := pair{front: f, memory: true}
				cfg := wsproxy.Config{Fallback: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, err := io.Copy(io.Discard, r.Body)
					fmt.Fprint(w, n, err)
				})}
				x := p.start(t, cfg, func(c *backConn) {
					if c.request.URL.Path == "/stuck" {
						_ = c.accept("")
						<-release
						return
					}
					echo(c)
				})
				conn := newH2Client(t, x.dial(t), h2Config{})
				stuck, res := x.handshakeH2(t, conn, request{path: "/stuck"})
				if res.StatusCode != http.StatusOK {
					t.Fatal(res.StatusCode)
				}
				var sent atomic.Int64
				done := make(chan struct{})
				go func() {
					defer close(done)
					for {
						f := frame{fin: true, op: opBinary, payload: make([]byte, 1<<10)}
						if stuck.sendFrame(f) != nil {
							return
						}
						sent.Add(1 << 10)
					}
				}()
				synctest.Wait()
				before := sent.Load()
				other, _ := x.handshakeH2(t, conn, request{path: "/other"})
				if err := echoes(other, 32); err != nil {
					t.Errorf("with %d KiB in the stuck tunnel: %v", before>>10, err)
				}
				// More than the connection's window has left.
				post, err := conn.Request([2]string{":method", "POST"}, [2]string{":scheme", f.scheme()},
					[2]string{":authority", "x"}, [2]string{":path", "/upload"})
				if err != nil {
					t.Fatal(err)
				}
				const size = 3 << 20
				if _, err := post.Write(make([]byte, size)); err != nil {
					t.Error(err)
				}
				if err := post.CloseWrite(); err != nil {
					t.Error(err)
				}
				status, _, err := post.Response()
				body, _ := io.ReadAll(post)
				if status != 200 || !strings.HasPrefix(string(body), strconv.Itoa(size)+" ") {
					t.Errorf("a request beside the stuck tunnel: %d, %v, %q", status, err, body)
				}
				if err := stuck.Abort(); err != nil {
					t.Error(err)
				}
				close(release)
				<-done
			})
		})
	}
}

// echoes has an echo server return n messages of 64 KiB.
func echoes(e *end, n int) error {
	message := filler(64 << 10)
	for range n {
		if err := e.send(opText, string(message)); err != nil {
			return err
		}
		if f, err := e.recv(); err != nil || !bytes.Equal(f.payload, message) {
			return fmt.Errorf("%v, %v", f, err)
		}
	}
	return nil
}

// most is what may be on its way to a peer that does not read: in our hands at
// most 256 KiB, and what the networks hold before and after us.
func (p pair) most(window int) int64 {
	// memnet's two connections; TLS and the frames of HTTP/2 add a little.
	const networks = 2 * 64 << 10
	return int64(window + networks + 256<<10)
}

// wsproxy 30: a client that does not read stops the back end after a bounded
// number of bytes.
func TestSlowClientStopsBack(t *testing.T) {
	eachPair(t, pairs(true), func(t *testing.T, p pair) {
		synctest.Test(t, func(t *testing.T) {
			var sent atomic.Int64
			x := p.start(t, wsproxy.Config{}, func(c *backConn) {
				if c.accept("") != nil {
					return
				}
				for c.send(opBinary, string(make([]byte, 1<<10))) == nil {
					sent.Add(1 << 10)
				}
			})
			window := 0
			if p.front.h2() {
				window = 64 << 10
			}
			e := x.open(t, request{})
			synctest.Wait()
			if n, most := sent.Load(), p.most(window); n > most {
				t.Errorf("the back end got rid of %d KiB, want at most %d", n>>10, most>>10)
			}
			_ = e.Abort()
		})
	})
}

// wsproxy 30: a back end that does not read stops the client.
func TestSlowBackStopsClient(t *testing.T) {
	eachPair(t, pairs(true), func(t *testing.T, p pair) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			x := p.start(t, wsproxy.Config{}, func(c *backConn) {
				_ = c.accept("")
				<-release
			})
			e := x.open(t, request{})
			var sent atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for e.send(opBinary, string(make([]byte, 1<<10))) == nil {
					sent.Add(1 << 10)
				}
			}()
			synctest.Wait()
			window := 0
			if p.front.h2() {
				window = 128 << 10 // as Prepare sets it
			}
			if n, most := sent.Load(), p.most(window); n > most {
				t.Errorf("the client got rid of %d KiB, want at most %d", n>>10, most>>10)
			}
			_ = e.Abort()
			close(release)
			<-done
		})
	})
}

// wsproxy 32: the time limits of http.Server end no tunnel, and the proxy's
// own do.
func TestServerTimeouts(t *testing.T) {
	eachPair(t, pairs(true), func(t *testing.T, p pair) {
		synctest.Test(t, func(t *testing.T) {
			cfg := wsproxy.Config{}
			cfg.Timeouts.Idle, cfg.Timeouts.Ping = time.Minute, -1
			closed := make(chan wsproxy.Stats, 1)
			cfg.OnClose = func(s wsproxy.Stats) { closed <- s }
			srv := &http.Server{
				ReadTimeout: time.Second, ReadHeaderTimeout: time.Second,
				WriteTimeout: 2 * time.Second, IdleTimeout: 3 * time.Second,
			}
			x := p.startServer(t, cfg, srv, echo)
			e := x.open(t, request{})
			for range 6 {
				time.Sleep(10 * time.Second)
				if err := e.send(opText, "still here"); err != nil {
					t.Fatal(err)
				}
				if f, err := e.recv(); err != nil || string(f.payload) != "still here" {
					t.Fatalf("after a while: %v, %v", f, err)
				}
			}
			begun := time.Now()
			if s := <-closed; s.End != wsproxy.EndIdle {
				t.Errorf("End is %v", s.End)
			}
			if d := time.Since(begun); d < time.Minute || d > 80*time.Second {
				t.Errorf("idle for %v", d)
			}
		})
	})
}

// wsproxy 33: a panic in a hook ends its own tunnel and no other.
func TestPanicInHook(t *testing.T) {
	eachPair(t, pairs(false), func(t *testing.T, p pair) {
		for _, hook := range []string{"OnHandshake", "OnOpen", "OnClose"} {
			t.Run(hook, func(t *testing.T) {
				fail := func(in, path string) {
					if in == hook && path == "/panic" {
						panic("from the test")
					}
				}
				closed := make(chan string, 2)
				x := p.start(t, wsproxy.Config{
					OnHandshake: func(h *wsproxy.Handshake) error { fail("OnHandshake", h.Request.URL.Path); return nil },
					OnOpen:      func(i wsproxy.Info) { fail("OnOpen", i.Path) },
					OnClose: func(s wsproxy.Stats) {
						closed <- s.Path
						fail("OnClose", s.Path)
					},
				}, echo)
				good := x.open(t, request{path: "/good"})
				if hook == "OnClose" {
					bad := x.open(t, request{path: "/panic"})
					if err := bad.sendClose(1000, ""); err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, bad)
					_ = bad.Close()
				} else {
					dropped(t, x)
				}
				if hook != "OnHandshake" {
					if path := <-closed; path != "/panic" {
						t.Errorf("OnClose of %s", path)
					}
				}
				if err := echoes(good, 3); err != nil {
					t.Errorf("the other tunnel: %v", err)
				}
				if err := echoes(x.open(t, request{path: "/next"}), 3); err != nil {
					t.Errorf("a new tunnel: %v", err)
				}
			})
		}
	})
}

// dropped sends a handshake for /panic and wants the tunnel, or the answer, to
// be cut.
func dropped(t *testing.T, x *proxied) {
	t.Helper()
	conn := x.dial(t)
	if x.front.h2() {
		c := newH2Client(t, conn, h2Config{})
		st, err := c.Request(connectFields(x.front.scheme(), x.l.Addr().String(), "/panic")...)
		if err == nil {
			_, err = io.Copy(io.Discard, st)
		}
		if !errors.Is(err, h2Reset(h2InternalError)) {
			t.Errorf("%v, want a reset", err)
		}
		return
	}
	defer conn.Close()
	_, err := fmt.Fprintf(conn, "GET /panic HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", x.l.Addr(), testKey)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, conn) // ends, in whatever way
}
