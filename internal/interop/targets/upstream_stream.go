package targets

import (
	"bufio"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"testing"
	"time"

	"example.com/plainware/upstream"
)

// streamMeasures compare what the process of its own, which drives the other
// measures of upstream, does not do: event streams, and back ends that speak
// HTTP/2 over TLS. Client, proxy and back end share this process, so that a
// ratio here is that of the whole exchange.
func streamMeasures() []Measure {
	return []Measure{
		{
			Package: "upstream", Name: "first event of a stream",
			Ours: firstEvents(false), Scale: Apart, Benchtime: "500x",
			Ratios: []Metric{{Unit: "p50-ns", Max: 1}, {Unit: "p99-ns", Max: 1}},
			Peers:  []Peer{{Name: "ReverseProxy, tuned", Run: firstEvents(true)}},
		},
		{
			Package: "upstream", Name: "GET 128 B, h2 over TLS behind",
			Ours: h2BehindTLS(false), Paired: true, Benchtime: "3000x",
			Peers: []Peer{{Name: "ReverseProxy, tuned", Run: h2BehindTLS(true), MaxRatio: 1.05}},
		},
	}
}

// front starts a proxy of the one or the other kind in front of back.
func front(b *testing.B, back *httptest.Server, reverseProxy bool) *httptest.Server {
	b.Helper()
	var h http.Handler
	var roots *tls.Config
	if back.TLS != nil {
		roots = back.Client().Transport.(*http.Transport).TLSClientConfig
	}
	if reverseProxy {
		target, err := url.Parse(back.URL)
		if err != nil {
			b.Fatal(err)
		}
		tr := &http.Transport{
			MaxIdleConnsPerHost: 4096, DisableCompression: true,
			TLSClientConfig: roots.Clone(), ForceAttemptHTTP2: true,
		}
		b.Cleanup(tr.CloseIdleConnections)
		h = &httputil.ReverseProxy{
			Transport: tr, BufferPool: new(buffers),
			Rewrite: func(pr *httputil.ProxyRequest) {
				pr.SetURL(target)
				pr.SetXForwarded()
			},
		}
	} else {
		scheme := "http://"
		if back.TLS != nil {
			scheme = "h2://"
		}
		pool, err := upstream.New(upstream.Config{
			Targets: []upstream.Target{{URL: scheme + back.Listener.Addr().String()}}, TLS: roots.Clone(),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { pool.Close() })
		if h, err = upstream.NewProxy(upstream.ProxyConfig{Transport: pool}); err != nil {
			b.Fatal(err)
		}
	}
	s := httptest.NewServer(h)
	b.Cleanup(s.Close)
	return s
}

// firstEvents reports how long the first event of a stream is under way, from
// the request on.
func firstEvents(reverseProxy bool) func(*testing.B) {
	return func(b *testing.B) {
		back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: first\n\n")
			http.NewResponseController(w).Flush()
			// The stream stays open for as long as the client reads it.
			<-r.Context().Done()
		}))
		b.Cleanup(back.Close)
		s := front(b, back, reverseProxy)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		took := make([]float64, 0, b.N)
		for b.Loop() {
			began := time.Now()
			res, err := client.Get(s.URL)
			if err != nil {
				b.Fatal(err)
			}
			line, err := bufio.NewReader(res.Body).ReadString('\n')
			took = append(took, float64(time.Since(began)))
			res.Body.Close()
			if err != nil || line != "data: first\n" {
				b.Fatalf("%q, %v", line, err)
			}
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2], "p50-ns")
		b.ReportMetric(took[len(took)*99/100], "p99-ns")
	}
}

// h2BehindTLS sends requests over HTTP/1.1 to a proxy whose back end speaks HTTP/2.
func h2BehindTLS(reverseProxy bool) func(*testing.B) {
	return func(b *testing.B) {
		body := make([]byte, 128)
		back := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				http.Error(w, "not HTTP/2", http.StatusHTTPVersionNotSupported)
				return
			}
			w.Write(body)
		}))
		back.EnableHTTP2 = true
		back.Config.ErrorLog = log.New(io.Discard, "", 0)
		back.StartTLS()
		b.Cleanup(back.Close)
		s := front(b, back, reverseProxy)
		tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
		b.Cleanup(tr.CloseIdleConnections)
		client := &http.Client{Transport: tr}
		b.ReportAllocs()
		b.SetParallelism(8)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				res, err := client.Get(s.URL)
				if err != nil {
					b.Error(err)
					return
				}
				n, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || n != int64(len(body)) {
					b.Errorf("%s, %d bytes, %v", res.Status, n, err)
					return
				}
			}
		})
	}
}
