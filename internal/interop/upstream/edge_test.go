// Package upstream_test lets a Proxy over a Pool work with programs that others
// have written: as what is behind it, and as what is in front.
package upstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/upstream"
)

// server is a running HTTP server.
type server struct {
	url   string // without a path
	addr  string // host:port
	certs []tls.Certificate
	roots *x509.CertPool // nil without TLS
}

// serve serves h over HTTP/1.1 and HTTP/2, with TLS or without.
func serve(t testing.TB, h http.Handler, secure bool) server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // tests abort requests on purpose
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	out := server{url: s.URL, addr: s.Listener.Addr().String()}
	if secure {
		out.certs = s.TLS.Certificates
		out.roots = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	return out
}

// newPool returns a Pool of targets.
func newPool(t testing.TB, cfg upstream.Config, urls ...string) *upstream.Pool {
	t.Helper()
	for _, u := range urls {
		cfg.Targets = append(cfg.Targets, upstream.Target{URL: u})
	}
	p, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// newProxy returns a Proxy that believes what peers on this host say.
func newProxy(t testing.TB, p *upstream.Pool) *upstream.Proxy {
	t.Helper()
	proxy, err := upstream.NewProxy(upstream.ProxyConfig{
		Transport: p,
		Forwarded: upstream.Forwarded{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return proxy
}

// edge serves a Proxy over a Pool of targets.
func edge(t testing.TB, urls ...string) server {
	t.Helper()
	return serve(t, newProxy(t, newPool(t, upstream.Config{}, urls...)), false)
}

// newClient returns a client that speaks one version of HTTP without TLS.
func newClient(t testing.TB, h2c bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, ExpectContinueTimeout: 5 * time.Second, MaxIdleConnsPerHost: 64}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// origin is the handler at the end of every chain here.
func origin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-For", r.Header.Get("X-Forwarded-For"))
		w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b)
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		if r.FormValue("chunked") != "" {
			http.NewResponseController(w).Flush()
		}
		w.Write(bytes.Repeat([]byte("x"), n))
	})
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		w.WriteHeader(n)
	})
	mux.HandleFunc("/trailer", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "42")
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Write(bytes.Repeat([]byte("x"), 10000))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	return mux
}

// chain is what the servers before an origin pass on of the less common.
type chain struct{ trailers, cuts bool }

// exercise uses a chain of servers before origin as clients do, and expects
// nothing but what the origin alone would answer.
func exercise(t *testing.T, c *http.Client, base string, passes chain) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2 {
				for _, err := range []error{
					checkBytes(c, base), checkEcho(c, base), checkStatuses(c, base), checkContinue(c, base), checkTrailer(c, base, passes.trailers),
				} {
					if err != nil {
						t.Error(err)
						return
					}
				}
				if passes.cuts {
					if err := checkCut(c, base); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func checkBytes(c *http.Client, base string) error {
	for _, n := range []int{0, 1, 4096, 10 << 10, 1 << 20} {
		for _, chunked := range []string{"", "1"} {
			for _, method := range []string{"GET", "HEAD"} {
				req, err := http.NewRequest(method, fmt.Sprintf("%s/bytes?n=%d&chunked=%s", base, n, chunked), nil)
				if err != nil {
					return err
				}
				res, body, err := do(c, req)
				want := n
				if method == "HEAD" {
					want = 0
				}
				if err != nil || res.StatusCode != 200 || len(body) != want {
					return fmt.Errorf("%s of %d bytes, chunked %q: %v, %d bytes, %v", method, n, chunked, line(res), len(body), err)
				}
			}
		}
	}
	return nil
}

func checkEcho(c *http.Client, base string) error {
	for _, n := range []int{0, 1, 70_000, 1 << 20} {
		for _, known := range []bool{true, false} {
			body := bytes.Repeat([]byte("y"), n)
			var r io.Reader = bytes.NewReader(body)
			if !known {
				r = io.MultiReader(r)
			}
			req, err := http.NewRequest("POST", base+"/echo", r)
			if err != nil {
				return err
			}
			res, got, err := do(c, req)
			if err != nil || res.StatusCode != 200 || got != string(body) {
				return fmt.Errorf("POST of %d bytes, length known %v: %v, %d bytes, %v", n, known, line(res), len(got), err)
			}
			if cookies := res.Header["Set-Cookie"]; len(cookies) != 2 {
				return fmt.Errorf("cookies %q", cookies)
			}
			if !strings.HasPrefix(res.Header.Get("X-For"), "127.0.0.1") {
				return fmt.Errorf("the client is %q to the origin", res.Header.Get("X-For"))
			}
		}
	}
	return nil
}

func checkStatuses(c *http.Client, base string) error {
	for _, n := range []int{200, 204, 301, 304, 404, 418, 500} {
		req, err := http.NewRequest("GET", base+"/status?n="+strconv.Itoa(n), nil)
		if err != nil {
			return err
		}
		if res, body, err := do(c, req); err != nil || res.StatusCode != n || body != "" {
			return fmt.Errorf("status %d: %v, %q, %v", n, line(res), body, err)
		}
	}
	return nil
}

// checkContinue waits for 100 (Continue) before it sends a body.
func checkContinue(c *http.Client, base string) error {
	told := false
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { told = told || code == 100; return nil },
	})
	req, err := http.NewRequestWithContext(ctx, "PUT", base+"/echo", strings.NewReader("expected"))
	if err != nil {
		return err
	}
	req.Header.Set("Expect", "100-continue")
	res, body, err := do(c, req)
	if err != nil || res.StatusCode != 200 || body != "expected" || !told {
		return fmt.Errorf("100-continue: told %v, %v, %q, %v", told, line(res), body, err)
	}
	return nil
}

// checkCut wants a response that ends early to be seen as such.
func checkCut(c *http.Client, base string) error {
	req, err := http.NewRequest("GET", base+"/cut", nil)
	if err != nil {
		return err
	}
	if res, body, err := do(c, req); err == nil && res.StatusCode == 200 {
		return fmt.Errorf("a response that was cut short came as whole, %d bytes", len(body))
	}
	return nil
}

func checkTrailer(c *http.Client, base string, trailers bool) error {
	req, err := http.NewRequest("GET", base+"/trailer", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Te", "trailers")
	res, body, err := do(c, req)
	if err != nil || body != "body" || trailers && res.Trailer.Get("X-Sum") != "42" {
		return fmt.Errorf("trailers: %v, %q, %v", line(res), body, err)
	}
	return nil
}

// do sends a request and reads the whole answer. The response is nil if there is
// none, and not if the error is that of a body that was cut short.
func do(c *http.Client, req *http.Request) (*http.Response, string, error) {
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func line(res *http.Response) string {
	if res == nil {
		return "no response"
	}
	return fmt.Sprintf("%s, trailers %v", res.Status, res.Trailer)
}
