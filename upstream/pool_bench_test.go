package upstream_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"example.com/plainware/upstream"
)

// rawBackend answers every request that has no body with the same bytes, at
// next to no cost and no allocation of its own.
func rawBackend(tb testing.TB, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				out := []byte(answer)
				for {
					for {
						line, err := br.ReadSlice('\n')
						if err != nil {
							return
						}
						if len(line) <= 2 {
							break
						}
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

const smallAnswer = "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nServer: raw\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nX-Request-Id: 0123456789\r\n" +
	"Vary: Accept-Encoding\r\nContent-Length: 128\r\n\r\n"

// recorder is a ResponseWriter that costs nothing.
type recorder struct{ h http.Header }

func (r *recorder) Header() http.Header         { return r.h }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Flush()                      {}

func benchRequest() *http.Request {
	r := httptest.NewRequest("GET", "http://example.test/some/path?q=1", nil)
	for _, f := range []string{"User-Agent: bench/1.0", "Accept: */*", "Accept-Encoding: gzip, br",
		"Accept-Language: en", "Cookie: a=b; c=d", "Cache-Control: no-cache", "X-Custom: value"} {
		k, v, _ := strings.Cut(f, ": ")
		r.Header.Set(k, v)
	}
	r.Body = http.NoBody
	return r
}

func tunedTransport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true}
}

func benchPool(b *testing.B, addr string) *upstream.Pool {
	p, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: "http://" + addr}, {URL: "http://" + addr, ID: "two"}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	return p
}

func BenchmarkRoundTrip(b *testing.B) {
	addr := rawBackend(b, smallAnswer+strings.Repeat("x", 128))
	run := func(b *testing.B, rt http.RoundTripper) {
		b.ReportAllocs()
		req, _ := http.NewRequest("GET", "http://"+addr+"/some/path", nil)
		req.Header = benchRequest().Header
		for b.Loop() {
			res, err := rt.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	b.Run("transport", func(b *testing.B) { run(b, tunedTransport()) })
	b.Run("pool", func(b *testing.B) { run(b, benchPool(b, addr)) })
}

type benchBuffers struct{ c chan []byte }

func (p benchBuffers) Get() []byte {
	select {
	case b := <-p.c:
		return b
	default:
		return make([]byte, 32<<10)
	}
}

func (p benchBuffers) Put(b []byte) {
	select {
	case p.c <- b:
	default:
	}
}

func BenchmarkHandler(b *testing.B) {
	addr := rawBackend(b, smallAnswer+strings.Repeat("x", 128))
	run := func(b *testing.B, h http.Handler) {
		b.ReportAllocs()
		req := benchRequest()
		w := &recorder{}
		for b.Loop() {
			w.h = make(http.Header, 8)
			h.ServeHTTP(w, req)
		}
	}
	b.Run("reverseproxy", func(b *testing.B) {
		u, _ := url.Parse("http://" + addr)
		run(b, &httputil.ReverseProxy{
			Transport:  tunedTransport(),
			BufferPool: benchBuffers{make(chan []byte, 64)},
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(u)
				r.Out.Host = r.In.Host
				r.SetXForwarded()
			},
		})
	})
	b.Run("proxy", func(b *testing.B) {
		h, err := upstream.NewProxy(upstream.ProxyConfig{Transport: benchPool(b, addr)})
		if err != nil {
			b.Fatal(err)
		}
		run(b, h)
	})
}

// A request through a Pool allocates less than one through a tuned
// http.Transport, balancing, health and evidence for retries included.
func TestPoolAllocations(t *testing.T) {
	addr := rawBackend(t, smallAnswer+strings.Repeat("x", 128))
	measure := func(rt http.RoundTripper) float64 {
		req, _ := http.NewRequest("GET", "http://"+addr+"/some/path", nil)
		req.Header = benchRequest().Header
		return testing.AllocsPerRun(300, func() {
			res, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		})
	}
	p, err := upstream.New(upstream.Config{Targets: []upstream.Target{{URL: "http://" + addr}, {URL: "http://" + addr, ID: "two"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	tr := tunedTransport()
	defer tr.CloseIdleConnections()
	ours, theirs := measure(p), measure(tr)
	if ours > 0.9*theirs {
		t.Errorf("%v allocations, %v by http.Transport; want at most 0.9 of them", ours, theirs)
	}
}
