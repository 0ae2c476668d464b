package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

// exchangeTwice sends two requests to a back end that gives answer on its first
// connection, and returns what became of the first and how many
// connections there were in the end.
func exchangeTwice(t *testing.T, method, answer string, close bool) (body string, conns int, err error) {
	n := newLAN(t)
	o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		if k == 1 {
			if _, _, err := o.read(br); err != nil {
				return
			}
			io.WriteString(c, answer)
			if close {
				return
			}
		}
		for {
			if _, _, err := o.read(br); err != nil {
				return
			}
			io.WriteString(c, okAnswer)
		}
	})
	p := n.pool(upstream.Config{Retry: upstream.Retry{Attempts: -1}}, "a")
	_, body, _, err = send(p, newRequest(t, method, "/first", ""))
	synctest.Wait()
	mustSend(t, p, newRequest(t, "GET", "/second", ""))
	if s := only(t, p); s.Active != 0 {
		t.Errorf("%d active at the end", s.Active)
	}
	return body, int(o.conns.Load()), err
}

func TestReuse(t *testing.T) {
	for _, c := range []struct {
		name, method, answer string
		close                bool
		body                 string
		fails                bool
		conns                int
	}{
		// upstream 57: bytes after the message end the connection.
		{"reused", "GET", okAnswer, false, "ok", false, 1},
		{"bytes after the end", "GET", okAnswer + "more", false, "ok", false, 2},
		{"a second response", "GET", okAnswer + okAnswer, false, "ok", false, 2},
		{"bytes after the last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore", false, "ok", false, 2},
		// upstream 59: close, HTTP/1.0, and bodies that end with the connection.
		{"Connection: close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false, "ok", false, 2},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "ok", false, 2},
		{"HTTP/1.0 with keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", false, "ok", false, 1},
		{"to the end of the connection", "GET", "HTTP/1.1 200 OK\r\n\r\nok", true, "ok", false, 2},
		// upstream 60: no body whatever the header says.
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, "", false, 1},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", false, "", false, 1},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, "", false, 1},
		{"304 chunked", "GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false, "", false, 1},
		// upstream 61: with both, Transfer-Encoding wins, or the response is
		// refused.
		{"both lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true, "ok", false, 2},
		{"unknown coding", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false, "", true, 2},
		// upstream 62: an invalid Content-Length.
		{"length with a sign", "GET", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", false, "", true, 2},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", false, "", true, 2},
		{"length no number", "GET", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", false, "", true, 2},
		// upstream 63: a body cut short is an error.
		{"short", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", true, "ok", true, 2},
		{"short chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", true, "ok", true, 2},
		{"no last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, "ok", true, 2},
		// upstream 7 as far as responses go.
		{"chunk size too large", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\nok", false, "", true, 2},
		{"no HTTP", "GET", "SSH-2.0-OpenSSH_9.9\r\n", false, "", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body, conns, err := exchangeTwice(t, c.method, c.answer, c.close)
				if body != c.body || (err != nil) != c.fails {
					t.Errorf("got %q, %v", body, err)
				}
				if e, ok := errors.AsType[*upstream.Error](err); c.fails && (!ok || !e.Kind.BackendFault() || e.HTTPStatus() != 502) {
					t.Errorf("got %v", err)
				}
				if conns != c.conns {
					t.Errorf("%d connections, want %d", conns, c.conns)
				}
			})
		})
	}
}

// upstream 58: bytes that arrive on an idle connection close it, and are no
// response to what is asked next.
func TestUnsolicited(t *testing.T) {
	for _, late := range []string{okAnswer, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", "x"} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
				br := bufio.NewReader(c)
				o.read(br)
				io.WriteString(c, okAnswer)
				if k == 1 {
					time.Sleep(time.Second)
					io.WriteString(c, late)
				}
				obligingFor(o, c, 1)
			})
			p := n.pool(upstream.Config{}, "a")
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if s := only(t, p); s.Conns != 0 {
				t.Errorf("%q: %d connections are left", late, s.Conns)
			}
			mustSend(t, p, newRequest(t, "POST", "/", "x"))
			if got := o.conns.Load(); got != 2 {
				t.Errorf("%d connections, want 2", got)
			}
		})
	}
}

// upstream 64: a response that begins before the request body is sent is
// delivered, and the connection is not used again.
func TestPoolEarlyResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			if k == 1 {
				http.ReadRequest(br)
				io.WriteString(c, okAnswer)
				io.Copy(io.Discard, br)
				return
			}
			obligingFor(o, c, 9)
		})
		p := n.pool(upstream.Config{}, "a")
		pr, pw := io.Pipe()
		req := newRequest(t, "POST", "/", "x")
		req.Body, req.ContentLength = pr, -1
		start := time.Now()
		mustSend(t, p, req)
		// net/http allows the body 50 ms to be finished after all.
		if d := time.Since(start); d > 50*time.Millisecond {
			t.Errorf("took %v", d)
		}
		pw.CloseWithError(io.ErrClosedPipe)
		synctest.Wait()
		if s := only(t, p); s.Active != 0 || s.Conns != 0 {
			t.Errorf("%d active, %d connections", s.Active, s.Conns)
		}
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		if got := o.conns.Load(); got != 2 {
			t.Errorf("%d connections, want 2", got)
		}
	})
}

// upstream 31: a final answer to a request that waits for 100 (Continue) is
// delivered; its connection is closed, or used again after the whole body was
// sent all the same. Without any answer the body follows after a second.
func TestExpectContinue(t *testing.T) {
	for _, how := range []string{"continue", "final", "nothing"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				bodies := make(chan string, 2)
				o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
					br := bufio.NewReader(c)
					if k > 1 {
						obligingFor(o, c, 9)
						return
					}
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					switch how {
					case "continue":
						io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
					case "final":
						io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
					}
					b, _ := io.ReadAll(req.Body)
					bodies <- string(b)
					if how != "final" {
						io.WriteString(c, okAnswer)
					}
					if _, _, err := o.read(br); err == nil { // br may hold it already
						io.WriteString(c, okAnswer)
					}
				})
				p := n.pool(upstream.Config{}, "a")
				req := newRequest(t, "POST", "/", "body")
				req.Header.Set("Expect", "100-continue")
				start := time.Now()
				status, _, _, err := send(p, req)
				took := time.Since(start)
				want, wait := 200, time.Duration(0)
				switch how {
				case "final":
					want = 417
				case "nothing":
					wait = time.Second
				}
				if status != want || err != nil || took < wait || took > wait+50*time.Millisecond {
					t.Errorf("got %d, %v after %v", status, err, took)
				}
				mustSend(t, p, newRequest(t, "GET", "/", ""))
				body, conns := <-bodies, o.conns.Load()
				if !(body == "body" && conns == 1) && !(how == "final" && body == "" && conns == 2) {
					t.Errorf("the back end got %q, %d connections", body, conns)
				}
			})
		})
	}
}

// upstream 70: headers without an end are stopped at the limit.
func TestEndlessHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var sent atomic.Int64
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			o.read(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				k, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("y", 1000))
				if err != nil {
					return
				}
				sent.Add(int64(k))
			}
		})
		p := n.pool(upstream.Config{Conns: upstream.Conns{MaxResponseHeader: 64 << 10}}, "a")
		_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
		e := wantKind(t, err, upstream.KindBadResponse)
		if e.HTTPStatus() != 502 {
			t.Errorf("status %d", e.HTTPStatus())
		}
		synctest.Wait()
		if got := sent.Load(); got > 256<<10 {
			t.Errorf("%d bytes were taken", got)
		}
	})
}

// upstream 14: the back end gets Content-Length bytes or the connection ends;
// a body that is short is never padded, nor one that is long cut.
func TestBodyLengthMismatch(t *testing.T) {
	for _, body := range []string{"short", "longer than it says"} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			complete := make(chan bool, 1)
			o := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
				_, _, err := o.read(bufio.NewReader(c))
				complete <- err == nil
				// What is too long is found when all that was announced has been
				// sent. An answer that comes before that is delivered, as any early
				// one is.
				time.Sleep(time.Millisecond)
				io.WriteString(c, okAnswer)
			})
			p := n.pool(upstream.Config{}, "a")
			req := newRequest(t, "PUT", "/", body)
			req.ContentLength = 10
			_, _, _, err := send(p, req)
			synctest.Wait()
			if len(body) < 10 && <-complete {
				t.Errorf("%q: the back end got a whole message", body)
			}
			if e := wantKind(t, err, upstream.KindClientBody); e.HTTPStatus() != 400 {
				t.Errorf("%q: %d", body, e.HTTPStatus())
			}
			if s := only(t, p); s.Conns != 0 || s.Active != 0 {
				t.Errorf("%q: %d connections, %d active", body, s.Conns, s.Active)
			}
			if o.conns.Load() != 1 {
				t.Errorf("%q: %d connections", body, o.conns.Load())
			}
		})
	}
}

// upstream 12, 13: framing is computed from the request and not copied from its
// header.
func TestFraming(t *testing.T) {
	for _, c := range []struct {
		name string
		req  func(*http.Request)
		want []string
		not  []string
	}{
		{"GET", func(r *http.Request) { r.Method = "GET" }, nil, []string{"Content-Length", "Transfer-Encoding"}},
		{"POST without a body", func(r *http.Request) { r.Method = "POST" }, []string{"Content-Length: 0"}, []string{"Transfer-Encoding"}},
		{"copied fields", func(r *http.Request) {
			r.Method = "POST"
			r.Header["Content-Length"] = []string{"77"}
			r.Header["Transfer-Encoding"] = []string{"chunked"}
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("four")), 4
		}, []string{"Content-Length: 4\r\n\r\nfour"}, []string{"77", "chunked"}},
		{"unknown length", func(r *http.Request) {
			r.Method = "POST"
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("four")), -1
		}, []string{"Transfer-Encoding: chunked", "4\r\nfour\r\n0\r\n\r\n"}, []string{"Content-Length"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				raw := make(chan string, 1)
				n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					var b strings.Builder
					o.read(bufio.NewReader(io.TeeReader(c, &b)))
					raw <- b.String()
					io.WriteString(c, okAnswer)
				})
				p := n.pool(upstream.Config{}, "a")
				req := newRequest(t, "GET", "/", "")
				c.req(req)
				mustSend(t, p, req)
				got := <-raw
				for _, w := range c.want {
					if !strings.Contains(got, w) {
						t.Errorf("no %q in %q", w, got)
					}
				}
				for _, w := range c.not {
					if strings.Contains(got, w) {
						t.Errorf("%q in %q", w, got)
					}
				}
			})
		})
	}
}

// upstream 11: CR, LF and NUL never reach the wire. The request is to blame,
// not the back end.
func TestInvalidRequest(t *testing.T) {
	for name, spoil := range map[string]func(*http.Request){
		"LF in a value":       func(r *http.Request) { r.Header.Set("X", "a\nB: c") },
		"NUL in a value":      func(r *http.Request) { r.Header.Set("X", "a\x00") },
		"space in a name":     func(r *http.Request) { r.Header["X Y"] = []string{"a"} },
		"method":              func(r *http.Request) { r.Method = "GE T" },
		"trailer":             func(r *http.Request) { r.Trailer = http.Header{"X": {"a\r\nb"}} },
		"no URL":              func(r *http.Request) { r.URL = nil },
		"no header":           func(r *http.Request) { r.Header = nil },
		"control byte in URL": func(r *http.Request) { r.URL.Opaque = "/a\nb" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				var bytes atomic.Int64
				n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					k, _ := io.Copy(io.Discard, c)
					bytes.Add(k)
				})
				p := n.pool(upstream.Config{Retry: upstream.Retry{Lost: true}}, "a")
				req := newRequest(t, "POST", "/", "body")
				closed := &notedBody{Reader: strings.NewReader("body")}
				req.Body = closed
				spoil(req)
				_, _, _, err := send(p, req)
				e := wantKind(t, err, upstream.KindPolicy)
				if e.HTTPStatus() != 400 || e.Kind.BackendFault() {
					t.Errorf("got %v, %d", e, e.HTTPStatus())
				}
				if !closed.closed.Load() {
					t.Error("the body was not closed")
				}
				for s := range p.Backends() {
					if s.Active != 0 || s.Failed() != 0 {
						t.Errorf("%d active, %d failures", s.Active, s.Failed())
					}
				}
				p.Close()
				synctest.Wait()
				if bytes.Load() != 0 {
					t.Errorf("%d bytes were written", bytes.Load())
				}
			})
		})
	}
}

// upstream 73: so is one that net/http does not send for a reason of its own.
func TestUnsendableRequest(t *testing.T) {
	upload := func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1 }
	both := []memnet.Proto{memnet.HTTP1, memnet.H2C}
	for _, c := range []struct {
		name   string
		protos []memnet.Proto // that refuse it
		status int
		spoil  func(*http.Request)
	}{
		{"length without a body", both[:1], 400, func(r *http.Request) { r.ContentLength = 5 }},
		{"trailer of framing", both, 400, func(r *http.Request) { upload(r); r.Trailer = http.Header{"Content-Length": nil} }},
		{"trailer of framing in small letters", both, 400, func(r *http.Request) { upload(r); r.Trailer = http.Header{"transfer-encoding": nil} }},
		{"trailer with a space", both, 400, func(r *http.Request) { upload(r); r.Trailer = http.Header{"A B": nil} }},
		{"host", both[1:], 400, func(r *http.Request) { r.Host = "a b" }},
		{"Transfer-Encoding", both[1:], 400, func(r *http.Request) { r.Header["Transfer-Encoding"] = []string{"gzip"} }},
		{"Connection", both[1:], 400, func(r *http.Request) { r.Header["Connection"] = []string{"x"} }},
		{"URL", both[1:], 400, func(r *http.Request) { r.URL.Opaque = "a b" }},
		{"header beyond what the peer takes", both[1:], 431, func(r *http.Request) { r.Header["X"] = []string{strings.Repeat("x", 8000)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbles(t, c.protos, func(t *testing.T, proto memnet.Proto) {
				scheme := map[memnet.Proto]string{memnet.HTTP1: "http", memnet.H2C: "h2c"}[proto]
				cfg, _ := serveFor(t, proto, &http.Server{
					MaxHeaderBytes: 4000,
					Handler:        http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }),
				}, scheme+"://a")
				cfg.Targets = append(cfg.Targets, upstream.Target{URL: scheme + "://b", ID: "b"})
				cfg.Retry.Lost = true
				p := newPool(t, cfg)
				for range 10 {
					mustSend(t, p, newRequest(t, "GET", "/", "")) // the peer's settings are known
					req := newRequest(t, "GET", "/", "")
					c.spoil(req)
					_, _, _, err := send(p, req)
					if e := wantKind(t, err, upstream.KindPolicy); e.HTTPStatus() != c.status || !e.NotSent() {
						t.Errorf("got %v, %d", e, e.HTTPStatus())
					}
				}
				for s := range p.Backends() {
					if s.Active != 0 || s.Failed() != 0 || s.State != upstream.StateHealthy {
						t.Errorf("%s is %v: %d active, %d failures", s.Target.ID, s.State, s.Active, s.Failed())
					}
				}
			})
		})
	}
}

// notedBody is a body that knows whether it was closed.
type notedBody struct {
	io.Reader
	closed atomic.Bool
}

func (c *notedBody) Close() error { c.closed.Store(true); return nil }

// cutConn ends a connection, as a fault would, after so many bytes.
type cutConn struct {
	net.Conn
	read, write int // bytes that are let through; negative is all
	reset       bool
}

var errInjected = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.read < 0 {
		return c.Conn.Read(p)
	}
	if c.read == 0 {
		c.Conn.Close()
		if c.reset {
			return 0, errInjected
		}
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.read)])
	c.read -= n
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.write < 0 || len(p) <= c.write {
		if c.write >= 0 {
			c.write -= len(p)
		}
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:c.write])
	c.write = 0
	c.Conn.Close()
	return n, &net.OpError{Op: "write", Net: "tcp", Err: errors.New("broken pipe")}
}

// A fault at every byte offset of an exchange, in either direction, ends in the
// right answer, a permitted repetition or an error; never in a mixed answer,
// and no request that may not be repeated is seen twice.
func TestFaultAtEveryOffset(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n" +
		"5\r\nright\r\n7\r\n answer\r\n0\r\nX-T: t\r\n\r\n"
	const headLen = len("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
	for _, method := range []string{"GET", "PUT", "POST"} {
		body := ""
		if method != "GET" {
			body = "what is sent"
		}
		// An exchange without a fault says how long it is.
		sentLen := 0
		synctest.Test(t, func(t *testing.T) {
			var raw strings.Builder
			n := newLAN(t)
			n.add("a", func(o *origin, _ int, c *memnet.Conn) {
				o.read(bufio.NewReader(io.TeeReader(c, &raw)))
				io.WriteString(c, answer)
				sentLen = raw.Len()
			})
			p := n.pool(upstream.Config{}, "a")
			if _, got, _, err := send(p, newRequest(t, method, "/", body)); got != "right answer" || err != nil {
				t.Fatalf("without a fault: %q, %v", got, err)
			}
			p.Close()
			synctest.Wait()
		})
		for _, reused := range []bool{false, true} {
			try := func(t *testing.T, read, write int, reset bool) {
				n := newLAN(t)
				o := n.add("a", answering(answer))
				var cuts atomic.Int32
				p := n.pool(upstream.Config{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := n.dial(ctx, network, addr)
					if err != nil || cuts.Add(1) > 1 {
						return c, err
					}
					cut := &cutConn{Conn: c, read: read, write: write, reset: reset}
					if reused { // the first exchange is not to be disturbed
						if read >= 0 {
							cut.read += len(answer)
						}
						if write >= 0 {
							cut.write += len("GET /warm HTTP/1.1\r\nHost: label\r\nUser-Agent: Go-http-client/1.1\r\n\r\n")
						}
					}
					return cut, nil
				}}, "a")
				if reused {
					if _, got, _, err := send(p, newRequest(t, "GET", "/warm", "")); got != "right answer" || err != nil {
						t.Fatalf("the first exchange: %q, %v", got, err)
					}
					synctest.Wait()
				}
				status, got, _, err := send(p, newRequest(t, method, "/", body))
				synctest.Wait()
				where := fmt.Sprintf("%s, reused %v, read %d, write %d, reset %v", method, reused, read, write, reset)
				times := 0
				for _, s := range o.requests() {
					if s == method+" /" {
						times++
					}
				}
				switch {
				case err == nil && (status != 200 || got != "right answer"):
					t.Errorf("%s: answered %d %q", where, status, got)
				case err == nil && times == 0:
					t.Errorf("%s: answered without a request", where)
				case err != nil && !strings.HasPrefix("right answer", got):
					t.Errorf("%s: mixed answer %q", where, got)
				}
				if e, ok := errors.AsType[*upstream.Error](err); err != nil && (!ok || e.HTTPStatus() != 502 || !e.Kind.BackendFault()) {
					t.Errorf("%s: %v", where, err)
				}
				if times > 2 || times > 1 && method == "POST" {
					t.Errorf("%s: the back end saw the request %d times", where, times)
				}
				if read > 0 && read < headLen && times > 1 {
					t.Errorf("%s: repeated although a response had begun", where)
				}
				if s := only(t, p); s.Active != 0 {
					t.Errorf("%s: %d active", where, s.Active)
				}
				if read == 0 && reused && method != "POST" && err != nil {
					t.Errorf("%s: a stale connection was not repaired: %v", where, err)
				}
				if write == 0 && !reset && err != nil && reused {
					t.Errorf("%s: nothing was written, and the request not moved: %v", where, err)
				}
			}
			synctestEach(t, len(answer), func(t *testing.T, k int) { try(t, k, -1, k%2 == 0) })
			synctestEach(t, sentLen, func(t *testing.T, k int) { try(t, -1, k, false) })
		}
	}
}

// synctestEach runs f for 0 to n-1, each in a bubble.
func synctestEach(t *testing.T, n int, f func(*testing.T, int)) {
	for k := range n {
		synctest.Test(t, func(t *testing.T) { f(t, k) })
	}
}
