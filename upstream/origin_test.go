package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// lan is a network of back ends in memory, by the host name of their targets.
type lan struct {
	t     *testing.T
	mu    sync.Mutex
	hosts map[string]*origin
	wg    sync.WaitGroup
}

func newLAN(t *testing.T) *lan {
	n := &lan{t: t, hosts: make(map[string]*origin)}
	t.Cleanup(n.wg.Wait)
	return n
}

// origin is a back end that does to each connection what the test says.
type origin struct {
	l     *memnet.Listener
	conns atomic.Int32 // accepted so far
	mu    sync.Mutex
	seen  []string // method and path of the requests that read has returned
}

// add starts a back end. n counts its connections from 1. The connection is
// closed when serve returns.
func (n *lan) add(host string, serve func(o *origin, n int, c *memnet.Conn)) *origin {
	o := &origin{l: memnet.Listen()}
	n.mu.Lock()
	n.hosts[host] = o
	n.mu.Unlock()
	n.t.Cleanup(func() { o.l.Close() })
	n.wg.Go(func() {
		for {
			c, err := o.l.Accept()
			if err != nil {
				return
			}
			k := int(o.conns.Add(1))
			n.wg.Go(func() {
				defer c.Close()
				serve(o, k, c.(*memnet.Conn))
			})
		}
	})
	return o
}

// remove makes dials to host fail from now on. Its connections stay.
func (n *lan) remove(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.hosts, host)
}

var errRefused = errors.New("connection refused")

func (n *lan) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	n.mu.Lock()
	o := n.hosts[host]
	n.mu.Unlock()
	if o == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
	}
	return o.l.Dial(ctx)
}

// pool returns a Pool of HTTP/1.1 targets with these host names.
func (n *lan) pool(cfg upstream.Config, hosts ...string) *upstream.Pool {
	n.t.Helper()
	for _, h := range hosts {
		cfg.Targets = append(cfg.Targets, upstream.Target{URL: "http://" + h, ID: h})
	}
	if cfg.Dial == nil {
		cfg.Dial = n.dial
	}
	p, err := upstream.New(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { p.Close() })
	return p
}

// read reads one request with its body.
func (o *origin) read(br *bufio.Reader) (*http.Request, string, error) {
	req, err := http.ReadRequest(br)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, "", err
	}
	o.mu.Lock()
	o.seen = append(o.seen, req.Method+" "+req.URL.Path)
	o.mu.Unlock()
	return req, string(body), nil
}

// requests returns what read has returned so far.
func (o *origin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.seen...)
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// obliging answers every request with okAnswer.
func obliging(o *origin, _ int, c *memnet.Conn) { obligingFor(o, c, 1<<30) }

func obligingFor(o *origin, c *memnet.Conn, requests int) {
	br := bufio.NewReader(c)
	for range requests {
		req, _, err := o.read(br)
		if err != nil {
			return
		}
		if req.Method == "HEAD" {
			io.WriteString(c, strings.TrimSuffix(okAnswer, "ok"))
		} else {
			io.WriteString(c, okAnswer)
		}
	}
}

// answering answers every request with the same bytes and keeps the connection.
func answering(answer string) func(*origin, int, *memnet.Conn) {
	return func(o *origin, _ int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		for {
			if _, _, err := o.read(br); err != nil {
				return
			}
			io.WriteString(c, answer)
		}
	}
}

// silent reads requests and never answers.
func silent(o *origin, _ int, c *memnet.Conn) {
	br := bufio.NewReader(c)
	for {
		if _, _, err := o.read(br); err != nil {
			return
		}
	}
}

// newRequest returns a request with a body of known length, or none if it is
// empty. It has no GetBody, as those of a proxy do not.
func newRequest(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://label"+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.GetBody = nil
	return req
}

// send does one round trip and reads the body.
func send(rt http.RoundTripper, req *http.Request) (status int, body, backend string, err error) {
	res, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", "", err
	}
	defer res.Body.Close()
	backend, _ = upstream.BackendOf(res)
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), backend, err
}

// mustSend is send for requests that must be answered with okAnswer.
func mustSend(t testing.TB, rt http.RoundTripper, req *http.Request) (backend string) {
	t.Helper()
	status, body, backend, err := send(rt, req)
	if err != nil || status != 200 || body != "ok" {
		t.Fatalf("got %d %q %v, want 200 ok", status, body, err)
	}
	return backend
}

// wantKind fails unless err is an *Error of that kind.
func wantKind(t testing.TB, err error, kind upstream.Kind) *upstream.Error {
	t.Helper()
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || e.Kind != kind {
		t.Fatalf("got error %v, want one of kind %v", err, kind)
	}
	return e
}

// only returns the statistics of a Pool's only back end.
func only(t testing.TB, p *upstream.Pool) upstream.BackendStats {
	t.Helper()
	for s := range p.Backends() {
		return s
	}
	t.Fatal("no back end")
	return upstream.BackendStats{}
}

// failures returns how many failures of that kind a back end had.
func failures(s *upstream.BackendStats, kind upstream.Kind) uint64 {
	for k, n := range s.Failures() {
		if k == kind {
			return n
		}
	}
	return 0
}

// tripFunc is a RoundTripper made of a function.
type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
