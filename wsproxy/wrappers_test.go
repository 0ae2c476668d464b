package wsproxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/wsproxy"
)

// panicky is a wrapper of which one method panics.
type panicky struct {
	http.ResponseWriter
	method string
	value  any
}

func (w *panicky) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *panicky) call(method string) {
	if w.method == method {
		panic(w.value)
	}
}

func (w *panicky) WriteHeader(status int) {
	w.call("WriteHeader")
	w.ResponseWriter.WriteHeader(status)
	if w.method == "a later Flush" {
		w.method = "the next Flush"
	}
}

func (w *panicky) Write(p []byte) (int, error) {
	w.call("Write")
	return w.ResponseWriter.Write(p)
}

func (w *panicky) FlushError() error {
	w.call("Flush")
	if w.method == "the next Flush" {
		w.method = "Flush"
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *panicky) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() { // not when the tunnel is opened
		w.call("SetWriteDeadline")
	}
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
}

func (w *panicky) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.call("Hijack")
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// servePanicky starts a proxy of which the writers panic, and returns a channel
// of what comes out of its handler.
func servePanicky(t *testing.T, fr front, cfg wsproxy.Config, method string, value any, prepare func(*http.Request)) (*server, *wsproxy.Proxy, <-chan any) {
	t.Helper()
	p, err := wsproxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan any, 1)
	return serveFront(t, fr, memnet.Listen(), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			out <- v
			panic(http.ErrAbortHandler)
		}()
		if prepare != nil {
			prepare(r)
		}
		p.ServeHTTP(&panicky{ResponseWriter: w, method: method, value: value}, r)
	})}), p, out
}

// panickyBody is the body of a request in a wrapper that panics.
type panickyBody struct{ value any }

func (b panickyBody) Read([]byte) (int, error) { panic(b.value) }
func (b panickyBody) Close() error             { return nil }

// A wrapper that panics does so in the handler's goroutine, whoever called it: the
// back end's words, a ping of ours or Close. Nothing of the tunnel is left.
func TestWrapperPanics(t *testing.T) {
	for _, value := range []any{http.ErrAbortHandler, errors.New("wrapper")} {
		for _, c := range []struct {
			name, method string
			first        func(*end) error
			then         func(*wsproxy.Proxy)
			body         bool
		}{
			{name: "Write of a message", method: "Write", first: func(e *end) error { return e.send(opText, "hello") }},
			{name: "Flush of a message", method: "a later Flush", first: func(e *end) error { return e.send(opText, "hello") }},
			{name: "Write of a ping", method: "Write"},
			{name: "Write of a Close", method: "Write", then: func(p *wsproxy.Proxy) {
				for i := range p.Tunnels() {
					_, _ = p.CloseTunnel(i.ID, 1001, "")
				}
			}},
			{name: "Read", body: true},
		} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := startBack(t, memnet.Listen(), false, func(b *backConn) {
						if b.accept("") == nil {
							if c.first != nil {
								_ = c.first(b.end)
							}
							serveQuiet(b.end, true)
						}
					})
					closed := make(chan wsproxy.Stats, 1)
					cfg := toBack(wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 1}, OnClose: func(s wsproxy.Stats) { closed <- s }}, b)
					s, p, out := servePanicky(t, frontH2C, cfg, c.method, value, func(r *http.Request) {
						if c.body {
							r.Body = panickyBody{value}
						}
					})
					start := time.Now()
					e, _, err := s.attempt(t, request{})
					if err == nil {
						defer e.Close()
					}
					synctest.Wait()
					if c.then != nil {
						c.then(p)
					}
					if v := <-out; v != value || time.Since(start) > time.Minute {
						t.Errorf("%v came out, after %v", v, time.Since(start))
					}
					if s := <-closed; s.End != wsproxy.EndClientLost && s.End != wsproxy.EndDrained {
						t.Errorf("ended by %v, %v", s.End, s.Err)
					}
					if err := p.Close(); err != nil {
						t.Error(err)
					}
					synctest.Wait()
					if n := b.Open(); n != 0 {
						t.Errorf("%d connections to the back end", n)
					}
				})
			})
		}
	}
}

// So does one that panics when it is to end a write, be that the clock's doing or
// that of Close.
func TestDeadlinePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBack(t, memnet.Listen(), false, quiet(true))
		s, p, out := servePanicky(t, frontH2C, toBack(wsproxy.Config{}, b), "SetWriteDeadline", "wrapper", nil)
		e, _, err := s.attempt(t, request{})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if v := <-out; v != "wrapper" {
			t.Errorf("%v came out", v)
		}
		synctest.Wait()
		if n := b.Open(); n != 0 {
			t.Errorf("%d connections to the back end", n)
		}
	})
}

// So does one that is to end the writing of a refusal.
func TestDeadlineOfRefusalPanics(t *testing.T) {
	for _, fr := range []front{frontH1, frontH2C} {
		synctest.Test(t, func(t *testing.T) {
			const size = 512 << 10
			b := startBack(t, memnet.Listen(), false, func(c *backConn) {
				fmt.Fprintf(c, "HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
			})
			s, p, out := servePanicky(t, fr, toBack(wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 1}}, b), "SetWriteDeadline", "wrapper", nil)
			e, _, err := s.attempt(t, request{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(11 * time.Second) // Timeouts.Handshake
			synctest.Wait()
			if n := b.Open(); n != 0 {
				t.Errorf("%v: %d connections to the back end", fr, n)
			}
			_ = e.Close()
			if v := <-out; v != "wrapper" {
				t.Errorf("%v: %v came out", fr, v)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// failingFlush is a wrapper of which Flush fails.
type failingFlush struct{ http.ResponseWriter }

func (w failingFlush) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w failingFlush) FlushError() error           { return errors.New("no flush") }

// Where the 200 cannot be sent at once the stream is reset: it does not look like a
// tunnel that was open and has ended well.
func TestFlushFails(t *testing.T) {
	for _, fr := range []front{frontH2, frontH2C} {
		synctest.Test(t, func(t *testing.T) {
			b := startBack(t, memnet.Listen(), false, quiet(true))
			p, _ := newProxy(t, toBack(wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 1}}, b))
			s := serveFront(t, fr, memnet.Listen(), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p.ServeHTTP(failingFlush{w}, r)
			})})
			for range 2 { // the place is free again
				e, res, err := s.attempt(t, request{})
				if err == nil {
					_, err = e.recv()
				}
				if !errors.Is(err, h2Reset(h2InternalError)) {
					t.Errorf("%v: %v, %v", fr, res, err)
				}
			}
			synctest.Wait()
			if n := b.Open(); n != 0 {
				t.Errorf("%d connections to the back end", n)
			}
		})
	}
}

// A wrapper that panics while the tunnel is being opened leaves no connection to
// the back end, nor does a callback of the Config.
func TestPanicWhileOpening(t *testing.T) {
	for _, c := range []struct {
		front  front
		method string
	}{{frontH1, "Hijack"}, {frontH2C, "WriteHeader"}, {frontH2C, "Flush"}, {frontH1, "TLS"}} {
		t.Run(c.method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBack(t, memnet.Listen(), c.method == "TLS", quiet(true))
				cfg := toBack(wsproxy.Config{Limits: wsproxy.Limits{Tunnels: 1}}, b)
				if c.method == "TLS" {
					cfg.TLS.VerifyConnection = func(tls.ConnectionState) error { panic("wrapper") }
				}
				s, p, out := servePanicky(t, c.front, cfg, c.method, "wrapper", nil)
				for range 2 { // the place is free again
					if e, _, err := s.attempt(t, request{}); err == nil {
						defer e.Close()
					}
					if v := <-out; v != "wrapper" {
						t.Errorf("%v came out", v)
					}
				}
				synctest.Wait()
				if n := b.Open(); n != 0 {
					t.Errorf("%d connections to the back end", n)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
