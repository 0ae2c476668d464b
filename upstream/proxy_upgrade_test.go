package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

const upgradeRequest = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

// upstream 22, 23: CONNECT is answered here, whatever it brings.
func TestConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		got := talk(t, s, "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if statusOf(got) != 405 || fields(got, "Allow") == nil || strings.Count(got, "HTTP/1.1 ") != 1 || len(b.all()) != 0 {
			t.Errorf("got %q, sent %q", got, b.all())
		}
	})
	inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		req, _ := http.NewRequestWithContext(t.Context(), "CONNECT", s.URL, strings.NewReader("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		synctest.Wait()
		if res.StatusCode != 405 || len(b.all()) != 0 || b.connections() != 0 {
			t.Errorf("status %d, sent %q", res.StatusCode, b.all())
		}
	})
}

// upstream 24: other protocols than those of the list are not switched to; the
// request goes on without asking.
func TestUpgradeList(t *testing.T) {
	for _, token := range []string{"h2c", "TLS/1.0", "HTTP/2.0", "foo", "h2c, foo"} {
		got := exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: Upgrade, HTTP2-Settings, close", "Upgrade: "+token, "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
		for _, name := range []string{"Connection", "Upgrade", "HTTP2-Settings"} {
			if v := fields(got, name); v != nil {
				t.Errorf("Upgrade: %s: the back end got %s: %q", token, name, v)
			}
		}
	}
	// A name without Connection: Upgrade, or in HTTP/1.0, asks for nothing.
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: close", "Upgrade: websocket"), "Upgrade"); v != nil {
		t.Errorf("Upgrade: %q", v)
	}
	// Of several the one that is allowed.
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{}, "Connection: upgrade, close", "Upgrade: h2c, WebSocket"), "Upgrade"); len(v) != 1 || v[0] != "WebSocket" {
		t.Errorf("Upgrade: %q", v)
	}
	// An empty list is none, and a longer one is all of it.
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{Upgrade: []string{}}, "Connection: upgrade, close", "Upgrade: websocket"), "Upgrade"); v != nil {
		t.Errorf("Upgrade: %q", v)
	}
	if v := fields(exchangeHeaders(t, upstream.ProxyConfig{Upgrade: []string{"websocket", "acme/1"}}, "Connection: upgrade, close", "Upgrade: ACME/1"), "Upgrade"); len(v) != 1 || v[0] != "ACME/1" {
		t.Errorf("Upgrade: %q", v)
	}
}

// upstream 25, 29, 30: the tunnel opens when the back end agrees and not before;
// its fields are those of the two ends, and early bytes come first.
func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var early []byte
		agree := make(chan struct{})
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			<-agree
			early = append(early, c.seen.Bytes()...)
			c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Secret\r\nUpgrade: WebSocket\r\nX-Secret: s\r\nX-Plain: p\r\nKeep-Alive: 5\r\nContent-Length: 7\r\n\r\nhello\n")
			for {
				line, err := c.r.ReadString('\n')
				if err != nil {
					return
				}
				c.send("echo " + line)
			}
		})
		var rec upstream.Record
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, upgradeRequest+"early\n")
		synctest.Wait()
		close(agree)
		br := bufio.NewReader(c)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != 101 {
			t.Fatalf("got %v, %v", res, err)
		}
		if len(early) != 0 {
			t.Errorf("sent before 101: %q", early)
		}
		for name, want := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "X-Plain": "p", "X-Secret": "", "Keep-Alive": "", "Content-Length": ""} {
			if v := res.Header.Get(name); v != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
		for _, want := range []string{"hello\n", "echo early\n"} {
			if line, err := br.ReadString('\n'); line != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
		}
		time.Sleep(time.Hour)
		io.WriteString(c, "late\n")
		if line, err := br.ReadString('\n'); line != "echo late\n" {
			t.Errorf("got %q, %v", line, err)
		}
		c.Close()
		synctest.Wait()
		if b.connections() != 0 {
			t.Error("the back end's connection is still open")
		}
		if !rec.Upgraded || rec.Status != 101 || rec.Received != 11 || rec.Sent != 27 || rec.Err != nil || rec.Duration != time.Hour {
			t.Errorf("record %+v", rec)
		}
	})
}

// Each end can close its half, and the other goes on.
func TestUpgradeHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send(switching)
			all, _ := io.ReadAll(c.r)
			c.send("after " + string(all))
		})
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, upgradeRequest)
		br := bufio.NewReader(c)
		if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("got %v, %v", res, err)
		}
		io.WriteString(c, "all")
		c.(*memnet.Conn).CloseWrite()
		if got, err := io.ReadAll(br); string(got) != "after all" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		c.Close()
	})
}

// upstream 26, 28: a 101 that does not fit is 502, and nothing stays open.
func TestUpgradeMismatch(t *testing.T) {
	for name, test := range map[string]struct{ request, response string }{
		"26 other token":    {upgradeRequest, strings.Replace(switching, "websocket", "other", 1)},
		"26 no token":       {upgradeRequest, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
		"26 two tokens":     {upgradeRequest, strings.Replace(switching, "websocket", "websocket\r\nUpgrade: other", 1)},
		"26 no Connection":  {upgradeRequest, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"},
		"28 not asked for":  {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", switching},
		"28 h2c asked for":  {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", strings.Replace(switching, "websocket", "h2c", 1)},
		"28 asked for in 1": {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", switching},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, func(c *rawConn) {
					c.head()
					c.send(test.response)
					io.Copy(io.Discard, c)
				})
				s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
				got := talk(t, s, test.request)
				if statusOf(got) != 502 || strings.Contains(got, "websocket") {
					t.Errorf("got %q", got)
				}
				synctest.Wait()
				if b.connections() != 0 {
					t.Errorf("%d connections are open", b.connections())
				}
			})
		})
	}
}

// upstream 27: a back end that does not switch has answered.
func TestUpgradeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		got := talk(t, s, upgradeRequest+"early bytes are no request")
		if statusOf(got) != 403 || !strings.Contains(got, "\r\n\r\nno") {
			t.Errorf("got %q", got)
		}
		if all := b.all(); len(all) != 1 || strings.Contains(all[0], "early") {
			t.Errorf("the back end got %q", all)
		}
	})
}

// A tunnel ends with the context of its request, which is how a program that
// stops ends them.
func TestUpgradeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send(switching)
			io.Copy(io.Discard, c)
		})
		ctx, cancel := context.WithCancel(context.Background())
		var rec upstream.Record
		p := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test", Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.ServeHTTP(w, r.WithContext(ctx))
		})})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, upgradeRequest)
		time.AfterFunc(time.Minute, cancel)
		start := time.Now()
		c.SetReadDeadline(time.Time{})
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if time.Since(start) != time.Minute || b.connections() != 0 || rec.Err == nil {
			t.Errorf("after %v, %d connections, %v", time.Since(start), b.connections(), rec.Err)
		}
	})
}

// ModifyResponse may take the place of a tunnel's back end; what it puts there
// has to be one.
func TestUpgradeModified(t *testing.T) {
	tunnel := func(t *testing.T, modify func(*http.Response) error) (s *memnet.Server, b *rawBack, rec *upstream.Record) {
		b = newRawBack(t, func(c *rawConn) {
			c.head()
			c.send(switching + "back")
			io.Copy(io.Discard, c)
		})
		rec = new(upstream.Record)
		return serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{ModifyResponse: modify, Done: func(_ *http.Request, r *upstream.Record) { *rec = *r }}), b, rec
	}
	synctest.Test(t, func(t *testing.T) {
		wrapper := &upperTunnel{}
		s, b, _ := tunnel(t, func(res *http.Response) error {
			wrapper.ReadWriteCloser = res.Body.(io.ReadWriteCloser)
			res.Body = wrapper
			return nil
		})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, upgradeRequest)
		br := bufio.NewReader(c)
		http.ReadResponse(br, nil)
		got := make([]byte, 4)
		if _, err := io.ReadFull(br, got); string(got) != "BACK" {
			t.Errorf("got %q, %v", got, err)
		}
		c.Close()
		synctest.Wait()
		if !wrapper.closed || b.connections() != 0 {
			t.Errorf("closed %v, %d connections", wrapper.closed, b.connections())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, b, rec := tunnel(t, func(res *http.Response) error {
			res.Body = io.NopCloser(res.Body)
			return nil
		})
		got := talk(t, s, upgradeRequest)
		synctest.Wait()
		if e, _ := errors.AsType[*upstream.Error](rec.Err); statusOf(got) != 502 || e == nil || e.Kind != upstream.KindUpgrade || b.connections() != 0 {
			t.Errorf("got %q, %v, %d connections", got, rec.Err, b.connections())
		}
	})
}

// upstream 86: what ModifyResponse has put there may panic in either direction.
// Whoever recovers gets it, and both connections are closed.
func TestUpgradePanics(t *testing.T) {
	for _, read := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newRawBack(t, func(c *rawConn) {
				c.head()
				c.send(switching)
				io.Copy(io.Discard, c)
			})
			h := newProxy(t, upstream.ProxyConfig{Target: "http://backend.test", Transport: b.transport, ModifyResponse: func(res *http.Response) error {
				res.Body = &panicTunnel{res.Body.(io.ReadWriteCloser), read}
				return nil
			}})
			recovered := make(chan any, 1)
			s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { recovered <- recover() }()
				h.ServeHTTP(w, r)
			})})
			talk(t, s, upgradeRequest+"early")
			if v := <-recovered; v != "tunnel" {
				t.Errorf("read %v: recovered %v", read, v)
			}
			synctest.Wait()
			if b.connections() != 0 {
				t.Errorf("read %v: %d connections", read, b.connections())
			}
		})
	}
}

// panicTunnel panics when it is read from, or else when it is written to.
type panicTunnel struct {
	io.ReadWriteCloser
	read bool
}

func (p *panicTunnel) Read(b []byte) (int, error) {
	if p.read {
		panic("tunnel")
	}
	return p.ReadWriteCloser.Read(b)
}

func (p *panicTunnel) Write(b []byte) (int, error) {
	if !p.read {
		panic("tunnel")
	}
	return p.ReadWriteCloser.Write(b)
}

type upperTunnel struct {
	io.ReadWriteCloser
	closed bool
}

func (u *upperTunnel) Read(p []byte) (int, error) {
	n, err := u.ReadWriteCloser.Read(p)
	copy(p, bytes.ToUpper(p[:n]))
	return n, err
}

func (u *upperTunnel) Close() error { u.closed = true; return u.ReadWriteCloser.Close() }
