package upstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// serveFor starts a real server and returns a Config for a Pool that reaches it.
func serveFor(t *testing.T, p memnet.Proto, srv *http.Server, url string) (upstream.Config, *memnet.Server) {
	s := memnet.Serve(t, p, srv)
	cfg := upstream.Config{
		Targets: []upstream.Target{{URL: url, ID: "a"}},
		Dial:    s.Listener.DialContext,
	}
	if s.Transport.TLSClientConfig != nil {
		cfg.TLS = &tls.Config{RootCAs: s.Transport.TLSClientConfig.RootCAs}
	}
	return cfg, s
}

func newPool(t testing.TB, cfg upstream.Config) *upstream.Pool {
	t.Helper()
	p, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// The scheme of a target selects the protocol.
func TestSchemes(t *testing.T) {
	for _, c := range []struct {
		url    string
		server memnet.Proto
		proto  string // of the response; empty is an error
		host   string
		tls    bool
	}{
		{"http://127.0.0.1:8080", memnet.HTTP1, "HTTP/1.1", "label", false},
		{"http://127.0.0.1:8080", memnet.H2C, "", "", false},
		{"https://127.0.0.1:8080", memnet.HTTP2, "HTTP/2.0", "127.0.0.1:8080", true},
		{"h2://127.0.0.1:8080", memnet.HTTP2, "HTTP/2.0", "127.0.0.1:8080", true},
		{"grpcs://127.0.0.1:8080", memnet.HTTP2, "HTTP/2.0", "127.0.0.1:8080", true},
		{"h2c://127.0.0.1:8080", memnet.H2C, "HTTP/2.0", "label", false},
		{"grpc://127.0.0.1:8080", memnet.H2C, "HTTP/2.0", "label", false},
		{"h2c://127.0.0.1:8080", memnet.HTTP1, "", "", false},
		{"unix:///run/app.sock", memnet.HTTP1, "HTTP/1.1", "label", false},
		{"unix+h2c:///run/app.sock", memnet.H2C, "HTTP/2.0", "label", false},
	} {
		t.Run(fmt.Sprintf("%s to %v", strings.ReplaceAll(c.url, "/", ""), c.server), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, _ := serveFor(t, c.server, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					w.Header().Set("X-Host", r.Host)
					w.Header().Set("Trailer", "X-T")
					w.Write(b)
					w.Header().Set("X-T", "end "+r.Trailer.Get("X-R"))
				})}, c.url)
				p := newPool(t, cfg)
				for range 2 {
					req := newRequest(t, "POST", "/", "hello")
					req.ContentLength = -1
					req.Trailer = http.Header{"X-R": {"r"}}
					res, err := p.RoundTrip(req)
					if c.proto == "" {
						if err == nil {
							t.Errorf("no error but %s", res.Proto)
							res.Body.Close()
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(res.Body)
					res.Body.Close()
					if string(b) != "hello" || err != nil || res.Proto != c.proto || res.Trailer.Get("X-T") != "end r" {
						t.Errorf("got %s %q %v %v", res.Proto, b, res.Trailer, err)
					}
					if got := res.Header.Get("X-Host"); got != c.host {
						t.Errorf("Host %q, want %q", got, c.host)
					}
					if (res.TLS != nil) != c.tls {
						t.Errorf("TLS: %v", res.TLS)
					}
					if id, _ := upstream.BackendOf(res); id != "a" || res.Request != req {
						t.Errorf("from %q, request %v", id, res.Request)
					}
				}
				synctest.Wait()
				if s := only(t, p); s.Conns != 1 || s.Active != 0 {
					t.Errorf("%d connections, %d active", s.Conns, s.Active)
				}
			})
		})
	}
}

// A back end without ALPN is spoken to in HTTP/1.1 by https, and not at all by
// h2: not a byte of a request is sent to it.
func TestNoALPN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto)
		})}
		base := memnet.Serve(t, memnet.HTTP2, srv) // for its certificate
		l := memnet.Listen()
		var requests atomic.Int32
		h1 := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				io.WriteString(w, "ok")
			}),
			TLSConfig:    &tls.Config{Certificates: srv.TLSConfig.Certificates},
			TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		}
		h1.Protocols = new(http.Protocols)
		h1.Protocols.SetHTTP1(true)
		var wg sync.WaitGroup
		wg.Go(func() { h1.ServeTLS(l, "", "") })
		t.Cleanup(func() { h1.Close(); wg.Wait() })

		for scheme, ok := range map[string]bool{"https": true, "h2": false, "grpcs": false} {
			before := requests.Load()
			p := newPool(t, upstream.Config{
				Targets: []upstream.Target{{URL: scheme + "://127.0.0.1:8080"}},
				Dial:    l.DialContext,
				TLS:     &tls.Config{RootCAs: base.Transport.TLSClientConfig.RootCAs},
			})
			res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
			if ok {
				if err != nil {
					t.Fatal(err)
				}
				if res.TLS == nil || !res.TLS.HandshakeComplete || res.ProtoMajor != 1 {
					t.Errorf("%s: %s over %v", scheme, res.Proto, res.TLS)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				continue
			}
			wantKind(t, err, upstream.KindTLS)
			if requests.Load() != before {
				t.Errorf("%s: a request arrived", scheme)
			}
		}
	})
}

// upstream 69: a certificate that does not fit is refused, and a target's
// connections serve no other target.
func TestTLSFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type connection struct{}
		served := map[net.Conn]map[string]bool{}
		cfg, _ := serveFor(t, memnet.HTTP2, &http.Server{
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connection{}, c) },
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				c := r.Context().Value(connection{}).(net.Conn)
				if served[c] == nil {
					served[c] = map[string]bool{}
				}
				served[c][r.Host] = true
			}),
		}, "https://127.0.0.1:8080")
		mustTrip := func(cfg upstream.Config) error {
			_, _, _, err := send(newPool(t, cfg), newRequest(t, "GET", "/", ""))
			return err
		}
		if err := mustTrip(cfg); err != nil {
			t.Fatal(err)
		}
		wrong := cfg
		wrong.Targets = []upstream.Target{{URL: "https://127.0.0.1:8080", ServerName: "other.test"}}
		e := wantKind(t, mustTrip(wrong), upstream.KindTLS)
		if e.HTTPStatus() != 502 || !e.NotSent() {
			t.Errorf("got %v, %d", e, e.HTTPStatus())
		}
		untrusted := cfg
		untrusted.TLS = nil
		wantKind(t, mustTrip(untrusted), upstream.KindTLS)

		stalled := cfg
		stalled.Dial = memnet.Listen().DialContext // nobody accepts
		start := time.Now()
		e = wantKind(t, mustTrip(stalled), upstream.KindTLS)
		if d := time.Since(start); d != 5*time.Second || !e.Timeout() || e.HTTPStatus() != 504 {
			t.Errorf("after %v: %v, %d", d, e, e.HTTPStatus())
		}

		// Targets at one address: what differs is on connections of its own.
		clear(served)
		several := cfg
		several.Picker, several.Retry = upstream.RoundRobin(), upstream.Retry{Attempts: -1}
		several.Outlier = upstream.Outlier{Off: true}
		several.Targets = []upstream.Target{
			{URL: "https://127.0.0.1:8080", ID: "one", Host: "one.test"},
			{URL: "https://127.0.0.1:8080", ID: "two", Host: "two.test"},
			{URL: "h2://127.0.0.1:8080", ID: "three", Host: "three.test"},
			{URL: "https://127.0.0.1:8080", ID: "other", ServerName: "other.test"},
		}
		p, failed := newPool(t, several), 0
		for range 12 {
			if _, _, _, err := send(p, newRequest(t, "GET", "/", "")); err != nil {
				if e := wantKind(t, err, upstream.KindTLS); e.Backend != "other" {
					t.Errorf("got %v", e)
				}
				failed++
			}
		}
		for _, hosts := range served {
			if len(hosts) != 1 {
				t.Errorf("one connection has served %v", hosts)
			}
		}
		if len(served) != 3 || failed != 3 {
			t.Errorf("%d connections, %d of 12 requests refused", len(served), failed)
		}
	})
}

// Trap: the context given to NewClientConn does not bound the writing of the
// HTTP/2 preface.
func TestPrefaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Config{Buffer: 1}.Listen()
		p := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "h2c://a"}}, Dial: l.DialContext})
		start := time.Now()
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		wantKind(t, err, upstream.KindDial)
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("after %v, want DialTimeout", d)
		}
	})
}

// A burst on a cold HTTP/2 back end waits for one connection, and more of them
// are made before the streams of it run out.
func TestStreams(t *testing.T) {
	for _, limit := range []int{1, 10, 250} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				var conns, running, most atomic.Int32
				cfg, s := serveFor(t, memnet.H2C, &http.Server{
					HTTP2: &http.HTTP2Config{MaxConcurrentStreams: limit},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						for k := running.Add(1); ; {
							if m := most.Load(); k <= m || most.CompareAndSwap(m, k) {
								break
							}
						}
						if r.URL.Path == "/hold" {
							<-release
						}
						running.Add(-1)
						io.WriteString(w, "ok")
					}),
				}, "h2c://a")
				cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conns.Add(1)
					time.Sleep(10 * time.Millisecond)
					return s.Listener.Dial(ctx)
				}
				cfg.Conns = upstream.Conns{MaxInFlight: 100, MaxConns: 20}
				p := newPool(t, cfg)
				// What the peer allows is known only after the first exchange.
				mustSend(t, p, newRequest(t, "GET", "/", ""))
				if got := conns.Load(); got > 2 {
					t.Errorf("%d connections for one request", got)
				}
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() { mustSend(t, p, newRequest(t, "GET", "/hold", "")) })
				}
				time.Sleep(time.Second)
				synctest.Wait()
				want := int32(min(100, 20*limit))
				if got := running.Load(); got != want {
					t.Errorf("%d requests run, want %d", got, want)
				}
				if got, max := conns.Load(), int32((100+limit-1)/limit*10/7+2); got > min(max, 20) {
					t.Errorf("%d connections, want at most %d", got, min(max, 20))
				}
				close(release)
				wg.Wait()
				synctest.Wait()
				if st := only(t, p); st.Active != 0 || st.Queued != 0 || st.Failed() != 0 {
					t.Errorf("%d active, %d queued, %d failed", st.Active, st.Queued, st.Failed())
				}
			})
		})
	}
}

// A burst on a back end that has not yet said how much it allows is given to
// one connection. What that refuses is sent again, whatever the budget, and
// tells the next connections what they may carry.
func TestColdBurstBeyondLimit(t *testing.T) {
	for _, limit := range []int{1, 10, 60} {
		for _, proto := range []memnet.Proto{memnet.H2C, memnet.HTTP2} {
			t.Run(fmt.Sprint(limit, " over ", proto), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					url := "h2c://a"
					if proto == memnet.HTTP2 {
						url = "h2://127.0.0.1:8080"
					}
					cfg, s := serveFor(t, proto, &http.Server{
						HTTP2: &http.HTTP2Config{MaxConcurrentStreams: limit},
						Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							time.Sleep(time.Second)
							io.Copy(w, r.Body)
						}),
					}, url)
					var conns atomic.Int32
					cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						conns.Add(1)
						time.Sleep(10 * time.Millisecond)
						return s.Listener.Dial(ctx)
					}
					cfg.Conns = upstream.Conns{MaxInFlight: 100}
					p := newPool(t, cfg)
					var wg sync.WaitGroup
					for range 100 {
						wg.Go(func() {
							status, body, _, err := send(p, newRequest(t, "POST", "/", "body"))
							if err != nil || status != 200 || body != "body" {
								t.Errorf("%d %q %v", status, body, err)
							}
						})
					}
					wg.Wait()
					if got, most := int(conns.Load()), (100+limit-1)/limit*10/7+2; got > most {
						t.Errorf("%d connections, want at most %d", got, most)
					}
					st := only(t, p)
					if st.Active != 0 || st.Queued != 0 || st.State != upstream.StateHealthy {
						t.Errorf("%d active, %d queued, %v", st.Active, st.Queued, st.State)
					}
					// As many as the first connection could not take, once.
					if most := uint64(100 - limit); st.Failed() > most {
						t.Errorf("%d attempts failed, want at most %d", st.Failed(), most)
					}
				})
			})
		}
	}
}

// lowersStreams plays an HTTP/2 back end that allows for limit streams as soon as it
// sees the first one, refuses what is too much, and answers the others after a
// second.
func lowersStreams(c *memnet.Conn, limit int) {
	br := bufio.NewReader(c)
	io.CopyN(io.Discard, br, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
	var mu sync.Mutex
	write := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		io.WriteString(c, s)
	}
	write(frame(4, 0, 0, ""))
	running, head := 0, make([]byte, 9)
	for {
		if _, err := io.ReadFull(br, head); err != nil {
			return
		}
		size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		stream := uint32(head[5])<<24 | uint32(head[6])<<16 | uint32(head[7])<<8 | uint32(head[8])
		io.CopyN(io.Discard, br, size)
		switch {
		case head[3] == 4 && head[4] == 0:
			write(frame(4, 1, 0, ""))
		case head[3] == 1:
			if stream == 1 {
				time.Sleep(time.Millisecond) // the others are under way
				write(frame(4, 0, 0, "\x00\x03\x00\x00\x00"+string(byte(limit))))
			}
			mu.Lock()
			full := running == limit
			if !full {
				running++
			}
			mu.Unlock()
			if full {
				write(frame(3, 0, stream, "\x00\x00\x00\x07"))
				continue
			}
			go func() {
				time.Sleep(time.Second)
				mu.Lock()
				running--
				mu.Unlock()
				write(frame(1, 5, stream, status200))
			}()
		}
	}
}

// A back end that allows for fewer streams than before: each connection learns
// that, and none is given up for it.
func TestFewerStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var conns atomic.Int32
		n.add("a", func(_ *origin, _ int, c *memnet.Conn) {
			conns.Add(1)
			lowersStreams(c, 3)
		})
		p := n.pool(upstream.Config{
			Targets: []upstream.Target{{URL: "h2c://a"}},
			Conns:   upstream.Conns{MaxInFlight: 20, MaxConns: 1, QueueTimeout: time.Minute},
		})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if status, _, _, err := send(p, newRequest(t, "GET", "/", "")); status != 200 || err != nil {
					t.Errorf("%d, %v", status, err)
				}
			})
		}
		wg.Wait()
		if got := conns.Load(); got != 1 {
			t.Errorf("%d connections", got)
		}
	})
}

// Cold: one dial for a burst, not one for each request.
func TestColdBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := serveFor(t, memnet.HTTP2, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "ok")
		})}, "https://127.0.0.1:8080")
		var dials atomic.Int32
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			time.Sleep(50 * time.Millisecond)
			return s.Listener.Dial(ctx)
		}
		p := newPool(t, cfg)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustSend(t, p, newRequest(t, "GET", "/", "")) })
		}
		wg.Wait()
		if got := dials.Load(); got != 1 {
			t.Errorf("%d dials for a burst of 50, want 1", got)
		}
	})
}

// upstream 71: requests given up faster than they are answered do not pile up:
// of any number at once, no more are in flight than Conns.MaxInFlight.
func TestRapidCancel(t *testing.T) {
	for _, c := range []struct{ limit, most int32 }{{10, 20}, {-1, 300}} {
		synctest.Test(t, func(t *testing.T) {
			var running, most atomic.Int32
			cfg, _ := serveFor(t, memnet.H2C, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				k := running.Add(1)
				for old := most.Load(); k > old && !most.CompareAndSwap(old, k); old = most.Load() {
				}
				<-r.Context().Done()
				running.Add(-1)
			})}, "h2c://a")
			cfg.Conns = upstream.Conns{MaxInFlight: int(c.limit), Queue: 1000}
			p := newPool(t, cfg)
			// At once they come, one after the other they go.
			var wg sync.WaitGroup
			for i := range 300 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Millisecond)
					defer cancel()
					_, _, _, err := send(p, newRequest(t, "GET", "/", "").WithContext(ctx))
					if e, ok := errors.AsType[*upstream.Error](err); !ok || e.Kind != upstream.KindDeadline {
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			// A place is free when this side has given the request up, which is a
			// moment before the back end notices.
			if got := most.Load(); got > c.most {
				t.Errorf("MaxInFlight %d: %d requests ran at once", c.limit, got)
			} else if c.limit < 0 && got < 100 {
				t.Errorf("%d requests ran at once without a limit: the test tells nothing", got)
			}
			if s := only(t, p); s.Active != 0 || s.Failed() != 0 {
				t.Errorf("%d active, %d failed", s.Active, s.Failed())
			}
		})
	}
}

// A server that shuts down while requests come and go loses none that it had
// not accepted: GOAWAY is not an error of the request's.
func TestGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Millisecond)
			io.WriteString(w, "ok")
		})
		old, s1 := serveFor(t, memnet.H2C, &http.Server{Handler: handler}, "h2c://a")
		_ = old
		_, s2 := serveFor(t, memnet.H2C, &http.Server{Handler: handler}, "h2c://a")
		var moved atomic.Bool
		p := n.pool(upstream.Config{
			Targets: []upstream.Target{{URL: "h2c://a"}},
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if moved.Load() {
					return s2.Listener.Dial(ctx)
				}
				return s1.Listener.Dial(ctx)
			},
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					mustSend(t, p, newRequest(t, "POST", "/", "x"))
				}
			})
		}
		time.Sleep(105 * time.Millisecond)
		moved.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s1.HTTP.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// frame is an HTTP/2 frame of RFC 9113 section 4.1.
func frame(kind, flags byte, stream uint32, payload string) string {
	k := len(payload)
	return string([]byte{byte(k >> 16), byte(k >> 8), byte(k), kind, flags,
		byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}) + payload
}

// rawH2 plays an HTTP/2 back end by hand: it answers the preface, waits for the
// end of the request's stream and writes what answer returns for it.
func rawH2(answer func(n int, stream uint32) string) func(*origin, int, *memnet.Conn) {
	return func(o *origin, n int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		io.CopyN(io.Discard, br, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
		io.WriteString(c, frame(4, 0, 0, ""))
		head := make([]byte, 9)
		for {
			if _, err := io.ReadFull(br, head); err != nil {
				return
			}
			size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
			stream := uint32(head[5])<<24 | uint32(head[6])<<16 | uint32(head[7])<<8 | uint32(head[8])
			io.CopyN(io.Discard, br, size)
			switch {
			case head[3] == 4 && head[4] == 0:
				io.WriteString(c, frame(4, 1, 0, ""))
			case (head[3] == 0 || head[3] == 1) && head[4]&1 != 0:
				o.mu.Lock()
				o.seen = append(o.seen, fmt.Sprint(stream))
				o.mu.Unlock()
				a := answer(n, stream)
				if a == "" {
					return
				}
				io.WriteString(c, a)
			}
		}
	}
}

const (
	status200 = "\x88" // HPACK, static table
	goAwayNo  = "\x00\x00\x00\x00"
)

// upstream 78: REFUSED_STREAM, and streams above the last of a GOAWAY, are sent
// again whatever the method, since the back end says that it did nothing.
func TestRefused(t *testing.T) {
	ok := func(stream uint32) string { return frame(1, 5, stream, status200) }
	for _, c := range []struct {
		name   string
		answer func(n int, stream uint32) string
		again  bool
	}{
		{"REFUSED_STREAM", func(_ int, stream uint32) string {
			if stream == 1 {
				return frame(3, 0, stream, "\x00\x00\x00\x07")
			}
			return ok(stream)
		}, true},
		{"GOAWAY before the stream", func(n int, stream uint32) string {
			if n == 1 {
				return frame(7, 0, 0, "\x00\x00\x00\x00"+goAwayNo)
			}
			return ok(stream)
		}, true},
		{"INTERNAL_ERROR", func(_ int, stream uint32) string { return frame(3, 0, stream, "\x00\x00\x00\x02") }, false},
		{"connection lost", func(int, uint32) string { return "" }, false},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(c.name+" "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newLAN(t)
					o := n.add("a", rawH2(c.answer))
					p := n.pool(upstream.Config{Targets: []upstream.Target{{URL: "h2c://a"}}})
					body := ""
					if method == "POST" {
						body = "body"
					}
					status, _, _, err := send(p, newRequest(t, method, "/", body))
					if c.again != (err == nil && status == 200) {
						t.Errorf("got %d, %v", status, err)
					}
					if !c.again {
						wantKind(t, err, upstream.KindNoResponse)
						if got := o.requests(); len(got) != 1 {
							t.Errorf("streams %v", got)
						}
					}
					if s := only(t, p); s.Active != 0 {
						t.Errorf("%d active", s.Active)
					}
				})
			})
		}
	}
}

// upstream 67, 72: a frame size of 0 and an endless header do not spin.
func TestHostileH2(t *testing.T) {
	for name, answer := range map[string]func(n int, stream uint32) string{
		"frame size 0": func(_ int, stream uint32) string { return frame(4, 0, 0, "\x00\x05\x00\x00\x00\x00") },
		"CONTINUATION flood": func(_ int, stream uint32) string {
			return frame(1, 0, stream, status200) + strings.Repeat(frame(9, 0, stream, "\x00\x01a\x7f\x7e"+strings.Repeat("b", 253)), 6000)
		},
		"bad status": func(_ int, stream uint32) string { return frame(1, 5, stream, "\x08\x03abc") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", rawH2(answer))
				p := n.pool(upstream.Config{
					Targets: []upstream.Target{{URL: "h2c://a"}},
					Conns:   upstream.Conns{MaxResponseHeader: 64 << 10, HeaderTimeout: 5 * time.Second},
				})
				_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
				if e, ok := errors.AsType[*upstream.Error](err); !ok || !e.Kind.BackendFault() {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// upstream 72: of a header without an end no more is taken than the limit and
// what the connection holds.
func TestEndlessHeaderH2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var sent atomic.Int64
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			io.CopyN(io.Discard, br, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
			n.wg.Go(func() { io.Copy(io.Discard, br) })
			io.WriteString(c, frame(4, 0, 0, ""))
			time.Sleep(time.Second) // until its SETTINGS and the request are there
			io.WriteString(c, frame(4, 1, 0, ""))
			io.WriteString(c, frame(1, 0, 1, status200))
			for range 6000 { // 1.6 MB
				k, err := io.WriteString(c, frame(9, 0, 1, "\x00\x01a\x7f\x7e"+strings.Repeat("b", 253)))
				sent.Add(int64(k))
				if err != nil {
					return
				}
			}
		})
		p := n.pool(upstream.Config{
			Targets: []upstream.Target{{URL: "h2c://a"}},
			Conns:   upstream.Conns{MaxResponseHeader: 64 << 10},
		})
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		if e, ok := errors.AsType[*upstream.Error](err); !ok || !e.Kind.BackendFault() {
			t.Errorf("got %v", err)
		}
		p.Close()
		synctest.Wait()
		if got := sent.Load(); got > 256<<10 {
			t.Errorf("%d bytes were taken", got)
		}
	})
}

// A peer that has gone silent is found by a ping.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", rawH2(func(_ int, stream uint32) string { return frame(1, 4, stream, status200) }))
		p := n.pool(upstream.Config{
			Targets: []upstream.Target{{URL: "h2c://a"}},
			Conns:   upstream.Conns{Ping: 4 * time.Second},
		})
		start := time.Now()
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		wantKind(t, err, upstream.KindBodyAborted)
		if d := time.Since(start); d != 8*time.Second {
			t.Errorf("after %v, want 8 s", d)
		}
	})
}

// Interim responses are seen by the request's own trace.
func TestInterimTrace(t *testing.T) {
	for _, proto := range memnet.Protos() {
		t.Run(proto.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				url := map[memnet.Proto]string{memnet.HTTP1: "http://a", memnet.HTTP2: "https://127.0.0.1:8080", memnet.H2C: "h2c://a"}[proto]
				cfg, _ := serveFor(t, proto, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Link", "</x>")
					w.WriteHeader(103)
					io.WriteString(w, "ok")
				})}, url)
				p := newPool(t, cfg)
				for range 2 {
					var seen []int
					var conns int
					ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
							seen = append(seen, code)
							return nil
						},
						GotConn: func(httptrace.GotConnInfo) { conns++ },
					})
					mustSend(t, p, newRequest(t, "GET", "/", "").WithContext(ctx))
					if fmt.Sprint(seen, conns) != "[103] 1" {
						t.Errorf("saw %v and %d connections", seen, conns)
					}
				}
			})
		})
	}
}

// An upgrade to a back end that prefers HTTP/2 goes over HTTP/1.1; one to a back
// end that speaks nothing else is refused.
func TestUpgradeProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			o.read(br)
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(c, br)
		})
		for _, url := range []string{"http://a", "h2c://a"} {
			p := n.pool(upstream.Config{Targets: []upstream.Target{{URL: url}}})
			req := newRequest(t, "GET", "/", "")
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "echo")
			res, err := p.RoundTrip(req)
			if url == "h2c://a" {
				if e := wantKind(t, err, upstream.KindPolicy); e.HTTPStatus() != 501 {
					t.Errorf("got %d", e.HTTPStatus())
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			tunnel, ok := res.Body.(io.ReadWriteCloser)
			if res.StatusCode != 101 || !ok {
				t.Fatalf("got %d, %T", res.StatusCode, res.Body)
			}
			io.WriteString(tunnel, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(tunnel, b); err != nil || string(b) != "hello" {
				t.Errorf("got %q, %v", b, err)
			}
			if s := only(t, p); s.Active != 1 {
				t.Errorf("%d active", s.Active)
			}
			// Half of the tunnel ends, then the other half.
			if err := tunnel.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := tunnel.Read(b); err != io.EOF {
				t.Errorf("got %v", err)
			}
			tunnel.Close()
			synctest.Wait()
			if s := only(t, p); s.Active != 0 || s.Conns != 0 {
				t.Errorf("%d active, %d connections", s.Active, s.Conns)
			}
		}
	})
}

// The same over TLS: HTTP/2 for requests, HTTP/1.1 for the upgrade.
func TestUpgradeOverTLS(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, r.Proto)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		io.WriteString(c, line)
	})
	srv := &http.Server{Handler: handler}
	s := serveTLSBoth(t, srv)
	p := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "https://" + s.addr}}, TLS: s.tls})
	if _, body, _, err := send(p, newRequest(t, "GET", "/", "")); body != "HTTP/2.0" {
		t.Errorf("got %q, %v", body, err)
	}
	req := newRequest(t, "GET", "/", "")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	res, err := p.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	tunnel := res.Body.(io.ReadWriteCloser)
	io.WriteString(tunnel, "hello\n")
	if line, err := bufio.NewReader(tunnel).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
	// Close takes tunnels with it.
	p.Close()
	if _, err := tunnel.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel is open after Close")
	}
	tunnel.Close()
}

// A real socket in the file system.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatalf("unix sockets are needed: %v", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close(); os.Remove(path) })
	p := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "unix://" + path}}})
	for range 3 {
		mustSend(t, p, newRequest(t, "POST", "/", "x"))
	}
}
