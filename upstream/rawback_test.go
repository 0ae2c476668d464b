package upstream_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// rawBack is a back end that plays a script of bytes on each connection, so
// that tests can send what no server would and see what was really received.
type rawBack struct {
	listener  *memnet.Listener
	transport *http.Transport

	mu       sync.Mutex
	requests []string // as they arrived, head and body
	dials    int
	open     int
	wg       sync.WaitGroup
}

// rawConn is one connection to a rawBack. Its bytes are taken down as they are
// read.
type rawConn struct {
	*memnet.Conn
	t    *testing.T
	back *rawBack
	r    *bufio.Reader
	seen bytes.Buffer
}

// newRawBack starts a back end. It must be called in a bubble. A script that
// returns closes its connection.
func newRawBack(t *testing.T, script func(*rawConn)) *rawBack {
	t.Helper()
	b := &rawBack{listener: memnet.Listen()}
	b.transport = &http.Transport{
		DialContext:           b.listener.DialContext,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
	b.wg.Go(func() {
		for {
			c, err := b.listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.dials++
			b.open++
			b.mu.Unlock()
			rc := &rawConn{Conn: c.(*memnet.Conn), t: t, back: b}
			rc.r = bufio.NewReader(io.TeeReader(c, &rc.seen))
			b.wg.Go(func() {
				defer func() {
					rc.Close()
					b.mu.Lock()
					b.open--
					b.mu.Unlock()
				}()
				script(rc)
			})
		}
	})
	t.Cleanup(func() {
		b.transport.CloseIdleConnections()
		b.listener.Close()
		b.wg.Wait()
	})
	return b
}

// request reads one request with its body, and takes it down. It returns nil at
// the end of the connection.
func (c *rawConn) request() *http.Request {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		if err != io.EOF && !errors.Is(err, net.ErrClosed) {
			c.note()
		}
		return nil
	}
	io.Copy(io.Discard, r.Body)
	c.note()
	return r
}

// head reads a head only, and takes it down.
func (c *rawConn) head() string {
	var head strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			break
		}
	}
	c.note()
	return head.String()
}

// note takes down what was read since the last time.
func (c *rawConn) note() {
	n := c.seen.Len() - c.r.Buffered()
	c.back.mu.Lock()
	defer c.back.mu.Unlock()
	c.back.requests = append(c.back.requests, string(c.seen.Next(n)))
}

func (c *rawConn) send(s string) { io.WriteString(c.Conn, s) }

// all returns every request that has arrived so far.
func (b *rawBack) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.requests...)
}

// one returns the only request that has arrived.
func (b *rawBack) one(t *testing.T) string {
	t.Helper()
	all := b.all()
	if len(all) != 1 {
		t.Fatalf("the back end has seen %d requests: %q", len(all), all)
	}
	return all[0]
}

// connections returns how many are open.
func (b *rawBack) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// answers is the script that gives every request the same answer.
func answers(response string) func(*rawConn) {
	return func(c *rawConn) {
		for r := c.request(); r != nil; r = c.request() {
			if r.Method == http.MethodHead {
				head, _, _ := strings.Cut(response, "\r\n\r\n")
				c.send(head + "\r\n\r\n")
				continue
			}
			c.send(response)
		}
	}
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// newProxy returns a Proxy.
func newProxy(t testing.TB, cfg upstream.ProxyConfig) *upstream.Proxy {
	t.Helper()
	p, err := upstream.NewProxy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serveProxy serves a Proxy in front of a rawBack.
func serveProxy(t *testing.T, proto memnet.Proto, b *rawBack, cfg upstream.ProxyConfig) *memnet.Server {
	t.Helper()
	cfg.Transport = b.transport
	if cfg.Target == "" {
		cfg.Target = "http://backend.test"
	}
	return memnet.Serve(t, proto, &http.Server{Handler: newProxy(t, cfg)})
}

// overHTTP serves a Proxy in front of a net/http server, both speaking p.
func overHTTP(t *testing.T, p memnet.Proto, cfg upstream.ProxyConfig, backend http.HandlerFunc) *memnet.Server {
	t.Helper()
	return frontOf(t, p, p, cfg, backend)
}

func frontOf(t *testing.T, front, back memnet.Proto, cfg upstream.ProxyConfig, backend http.HandlerFunc) *memnet.Server {
	t.Helper()
	b := memnet.Serve(t, back, &http.Server{Handler: backend})
	b.Transport.DisableCompression = true
	cfg.Transport, cfg.Target = b.Transport, b.URL
	return memnet.Serve(t, front, &http.Server{Handler: newProxy(t, cfg)})
}

// inBubbles runs a test in a bubble for each version of HTTP.
func inBubbles(t *testing.T, protos []memnet.Proto, f func(*testing.T, memnet.Proto)) {
	t.Helper()
	for _, p := range protos {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, p) })
		})
	}
}

// talk sends bytes to a server and returns what comes back until it closes the
// connection, or is silent for five seconds.
func talk(t *testing.T, s *memnet.Server, request string) string {
	t.Helper()
	c, err := s.Listener.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Logf("the server does not take all of the request: %v", err)
	}
	return hear(c)
}

// hear reads until the end, or until five seconds of silence.
func hear(c net.Conn) string {
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			return all.String()
		}
	}
}

// statusOf returns the status code of a response, or 0.
func statusOf(response string) int {
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(response)), nil)
	if err != nil {
		return 0
	}
	return res.StatusCode
}

// get makes a simple request.
func get(t *testing.T, s *memnet.Server, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := s.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// tripperFunc is a RoundTripper without a network.
type tripperFunc func(*http.Request) (*http.Response, error)

func (f tripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// response makes a response of known length.
func response(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}

// request makes a request as a server does.
func request(method, target string, change func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	if change != nil {
		change(r)
	}
	return r
}

// serve lets a handler answer without a network.
func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
