package upstream_test

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"example.com/plainware/upstream"
)

// discard is a writer that keeps nothing, with a header as a server's.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) FlushError() error           { return nil }

// canned is a Transport that costs next to nothing, so that what is measured is
// the proxy above it.
type canned struct {
	length int64
	typ    string
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	res := &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: c.length,
		Header: http.Header{
			"Content-Type": {c.typ}, "Date": {"Sun, 06 Nov 1994 08:49:37 GMT"}, "Server": {"x"}, "Etag": {`"1"`},
			"Cache-Control": {"no-cache"}, "X-A": {"1"},
		},
		Body: io.NopCloser(strings.NewReader(payload)),
	}
	if c.length >= 0 {
		res.Header["Content-Length"] = []string{"128"}
	}
	return res, nil
}

var payload = strings.Repeat("x", 128)

// browserRequest has the fields of a common request.
func browserRequest() *http.Request {
	return request("GET", "http://front.test/path/to?q=1", func(r *http.Request) {
		r.Header = http.Header{
			"Accept": {"*/*"}, "Accept-Encoding": {"gzip, br"}, "Accept-Language": {"en"}, "Cookie": {"a=b; c=d"},
			"User-Agent": {"Mozilla/5.0"}, "Referer": {"http://front.test/"}, "Connection": {"keep-alive"}, "Cache-Control": {"no-cache"},
		}
	})
}

// handled runs one request through a handler.
func handled(h http.Handler, r *http.Request, w *discard) {
	clear(w.h)
	h.ServeHTTP(w, r)
}

// The allocations of the Proxy itself, without those of the canned response. It
// is a bound and not a wish: more needs a reason.
func TestProxyAllocs(t *testing.T) {
	r, w := browserRequest(), &discard{h: http.Header{}}
	tripper := canned{128, "text/html"}
	base := testing.AllocsPerRun(200, func() { tripper.RoundTrip(r) })
	for name, test := range map[string]struct {
		cfg upstream.ProxyConfig
		max float64
	}{
		"default":    {upstream.ProxyConfig{}, 7},
		"no interim": {upstream.ProxyConfig{MaxInterim: -1}, 6},
	} {
		test.cfg.Transport, test.cfg.Target = tripper, "http://b"
		p := newProxy(t, test.cfg)
		if got := testing.AllocsPerRun(200, func() { handled(p, r, w) }) - base; got > test.max {
			t.Errorf("%s: %v allocations, at most %v", name, got, test.max)
		}
	}
}

func BenchmarkProxy(b *testing.B) {
	target, _ := url.Parse("http://b")
	for name, tripper := range map[string]canned{"length": {128, "text/html"}, "unknown": {-1, "text/html"}, "events": {-1, "text/event-stream"}} {
		b.Run(name, func(b *testing.B) {
			p := newProxy(b, upstream.ProxyConfig{Transport: tripper, Target: "http://b"})
			r, w := browserRequest(), &discard{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				handled(p, r, w)
			}
		})
		b.Run(name+"/httputil", func(b *testing.B) {
			p := &httputil.ReverseProxy{Transport: tripper, BufferPool: newStdPool(), Rewrite: func(pr *httputil.ProxyRequest) {
				pr.SetURL(target)
				pr.SetXForwarded()
			}}
			r, w := browserRequest(), &discard{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				handled(p, r, w)
			}
		})
	}
}

// newStdPool is what a tuned ReverseProxy has.
func newStdPool() httputil.BufferPool { return &stdPool{free: make(chan []byte, 8)} }

type stdPool struct{ free chan []byte }

func (p *stdPool) Get() []byte {
	select {
	case b := <-p.free:
		return b
	default:
		return make([]byte, 32<<10)
	}
}

func (p *stdPool) Put(b []byte) {
	select {
	case p.free <- b:
	default:
	}
}
