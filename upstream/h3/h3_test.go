package h3_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/upstream"
	"example.com/plainware/upstream/h3"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// serve starts an HTTP/3 server over a real socket and returns its address and
// the TLS configuration that trusts it.
func serve(t *testing.T, h http.Handler) (string, *tls.Config) {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	t.Cleanup(certs.Close)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: certs.TLS.Certificates})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(pc) }()
	t.Cleanup(func() { srv.Close(); pc.Close(); <-done })
	return pc.LocalAddr().String(), &tls.Config{RootCAs: certs.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
}

// transport returns a value for Config.Transport. A server that answers may be
// silent for as long as the machine stands still.
func transport(t *testing.T, tc *tls.Config, silence time.Duration) func(upstream.Target) (http.RoundTripper, error) {
	t.Helper()
	f, err := h3.New(h3.Config{TLS: tc, HandshakeTimeout: silence})
	if err != nil {
		t.Fatal(err)
	}
	return f.Transport
}

// newPool returns a Pool over servers that answer, unless cfg has a Transport.
func newPool(t *testing.T, cfg upstream.Config, tc *tls.Config) *upstream.Pool {
	t.Helper()
	if cfg.Transport == nil {
		cfg.Transport = transport(t, tc, time.Minute)
	}
	p, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// Bodies and trailers pass both ways, and the target's name is what the server
// sees.
func TestRoundTrip(t *testing.T) {
	addr, tc := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-T")
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Proto+" "+r.Host+" "+string(b))
		w.Header().Set("X-T", "end")
	}))
	p := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "h3://" + addr, ID: "q"}}}, tc)
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://label/x", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "HTTP/3.0 " + addr + " body"; string(b) != want || err != nil {
			t.Errorf("got %q, %v, want %q", b, err, want)
		}
		if res.Trailer.Get("X-T") != "end" {
			t.Errorf("trailer %v", res.Trailer)
		}
		if id, ok := upstream.BackendOf(res); id != "q" || !ok || res.Request != req {
			t.Errorf("from %q", id)
		}
	}
}

// A back end that is not there has not seen the request, which goes to
// another whatever its method; one that is there is not trusted blindly.
func TestFailures(t *testing.T) {
	addr, tc := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close() // never answers
	short, long := transport(t, tc, time.Second), transport(t, tc, time.Minute)
	p := newPool(t, upstream.Config{
		Picker:  upstream.RoundRobin(),
		Targets: []upstream.Target{{URL: "h3://" + gone.LocalAddr().String(), ID: "gone"}, {URL: "h3://" + addr}},
		Transport: func(target upstream.Target) (http.RoundTripper, error) {
			if target.ID == "gone" {
				return short(target)
			}
			return long(target)
		},
	}, tc)
	for range 2 {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://label/", strings.NewReader("x"))
		req.GetBody = nil
		res, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}

	q := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "h3://" + addr}}}, nil)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://label/", nil)
	_, err = q.RoundTrip(req)
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || e.Kind != upstream.KindTLS || !e.NotSent() {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// upstream 78: a request that the server says it has rejected goes to another,
// whatever its method, and is not held against the one that rejected it. One that
// ends in another error may have been acted upon, and a POST is not sent again.
func TestRejected(t *testing.T) {
	addr, tc := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+string(b))
	}))
	for code, again := range map[http3.ErrCode]bool{http3.ErrCodeRequestRejected: true, http3.ErrCodeInternalError: false} {
		for _, method := range []string{"GET", "POST"} {
			odd, asked := resets(t, quic.StreamErrorCode(code))
			p := newPool(t, upstream.Config{
				Targets: []upstream.Target{{URL: "h3://" + odd, ID: "odd"}, {URL: "h3://" + addr, ID: "good", Priority: 1}},
			}, tc)
			var body io.Reader
			if method == "POST" {
				body = strings.NewReader("body")
			}
			req, err := http.NewRequestWithContext(t.Context(), method, "http://label/", body)
			if err != nil {
				t.Fatal(err)
			}
			req.GetBody = nil
			res, err := p.RoundTrip(req)
			want := int32(1)
			if again && body == nil {
				want = 2 // quic-go tries a fresh connection first
			}
			if n := asked.Load(); n != want {
				t.Errorf("%v, %s: the first server saw %d requests, want %d", code, method, n, want)
			}
			if !again {
				if err == nil {
					res.Body.Close()
					t.Errorf("%v, %s: sent again", code, method)
				}
				continue
			}
			if err != nil {
				t.Errorf("%v, %s: %v", code, method, err)
				continue
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			echo := method + " "
			if body != nil {
				echo += "body"
			}
			if id, _ := upstream.BackendOf(res); id != "good" || string(b) != echo || err != nil {
				t.Errorf("%v, %s: got %q from %s, %v", code, method, b, id, err)
			}
			for s := range p.Backends() {
				if s.Failed() != 0 {
					t.Errorf("%v, %s: %s is blamed", code, method, s.Target.ID)
				}
			}
		}
	}
}

// resets starts a server that ends every request with an error code, and counts
// them.
func resets(t *testing.T, code quic.StreamErrorCode) (addr string, asked *atomic.Int32) {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	t.Cleanup(certs.Close)
	l, err := quic.ListenAddr("127.0.0.1:0", http3.ConfigureTLSConfig(&tls.Config{Certificates: certs.TLS.Certificates}), nil)
	if err != nil {
		t.Fatal(err)
	}
	asked = new(atomic.Int32)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.CloseWithError(0, "")
				control, err := c.OpenUniStreamSync(ctx)
				if err != nil {
					return
				}
				control.Write([]byte{0, 4, 0}) // a control stream, and SETTINGS without any
				for {
					s, err := c.AcceptStream(ctx)
					if err != nil {
						return
					}
					asked.Add(1)
					s.CancelRead(code)
					s.CancelWrite(code)
				}
			})
		}
	})
	return l.Addr().String(), asked
}

// Targets of other schemes are left to the Pool.
func TestOtherSchemes(t *testing.T) {
	f, err := h3.New(h3.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"http://a", "https://a", "h2://a"} {
		if rt, err := f.Transport(upstream.Target{URL: u}); rt != nil || err != nil {
			t.Errorf("%s: %v, %v", u, rt, err)
		}
	}
}

func TestConfig(t *testing.T) {
	_, err := h3.New(h3.Config{HandshakeTimeout: -1, IdleTimeout: -1, KeepAlive: time.Hour, MaxResponseHeader: 1})
	if err == nil || strings.Count(err.Error(), "h3: ") != 4 {
		t.Errorf("got %v", err)
	}
}
