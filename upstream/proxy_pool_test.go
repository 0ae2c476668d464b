package upstream_test

import (
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// A Proxy finds a Pool below, and both know of each other what they should.
func TestProxyOverPool(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newRawBack(t, answers(okResponse))
			pool, err := upstream.New(upstream.Config{
				Targets: []upstream.Target{{URL: "http://backend.test:8081"}},
				Dial:    b.listener.DialContext,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			var rec upstream.Record
			cfg := upstream.ProxyConfig{Transport: pool, Done: func(_ *http.Request, r *upstream.Record) { rec = *r }}
			if wrapped {
				cfg.Transport = tripperFunc(pool.RoundTrip)
			}
			s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, cfg)})
			res, body := get(t, s, "/x%2Fy?a=1;b")
			if res.StatusCode != 200 || body != "ok" || !strings.HasPrefix(b.one(t), "GET /x%2Fy?a=1;b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n") {
				t.Errorf("status %d, %q, sent %q", res.StatusCode, body, b.all())
			}
			if rec.Attempts != 1 || !strings.Contains(rec.Backend, "backend.test:8081") || rec.Status != 200 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A layer outside may have read the body and leave none behind, with the length
// that it had. That is a request without a body, and no back end's failure.
func TestProxyDrainedBody(t *testing.T) {
	for _, length := range []int64{-1, 5} {
		for name, body := range map[string]io.ReadCloser{"NoBody": http.NoBody, "nil": nil} {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				pool := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "http://backend.test"}}, Dial: b.listener.DialContext})
				p := newProxy(t, upstream.ProxyConfig{Transport: pool})
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					r.Body, r.ContentLength = body, length
					p.ServeHTTP(w, r)
				})})
				res, err := s.Client.Post(s.URL, "", strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if st := only(t, pool); res.StatusCode != 200 || st.Failed() != 0 || !strings.Contains(b.one(t), "Content-Length: 0\r\n") {
					t.Errorf("%s, length %d: status %d, sent %q", name, length, res.StatusCode, b.all())
				}
			})
		}
	}
}

// What a hook makes of the Host is sent, to whatever target; what it leaves alone
// is HostAuto's to decide.
func TestHostOfHook(t *testing.T) {
	hooks := map[string]func(*httputil.ProxyRequest){
		"other":     func(pr *httputil.ProxyRequest) { pr.Out.Host = "tenant.test" },
		"client's":  func(pr *httputil.ProxyRequest) { pr.Out.Host = pr.In.Host },
		"target's":  func(pr *httputil.ProxyRequest) { pr.Out.Host = "" },
		"untouched": func(pr *httputil.ProxyRequest) { pr.Out = pr.Out.Clone(pr.Out.Context()) },
	}
	for _, test := range []struct {
		target upstream.Target
		want   map[string]string
	}{
		{upstream.Target{URL: "https://own.test"}, map[string]string{"other": "tenant.test", "client's": "client.test", "target's": "own.test", "untouched": "own.test"}},
		{upstream.Target{URL: "http://own.test"}, map[string]string{"other": "tenant.test", "client's": "client.test", "target's": "own.test", "untouched": "client.test"}},
		{upstream.Target{URL: "http://own.test", Host: "fixed.test"}, map[string]string{"other": "fixed.test", "client's": "fixed.test", "target's": "fixed.test", "untouched": "fixed.test"}},
	} {
		for name, want := range test.want {
			var got string
			back := tripperFunc(func(r *http.Request) (*http.Response, error) {
				got = r.Host
				return response(200, ""), nil
			})
			pool := newPool(t, upstream.Config{Targets: []upstream.Target{test.target}, Wrap: func(upstream.Target, http.RoundTripper) (http.RoundTripper, error) {
				return back, nil
			}})
			for over, transport := range map[string]http.RoundTripper{"a Pool": pool, "what has a Pool below": tripperFunc(pool.RoundTrip)} {
				p := newProxy(t, upstream.ProxyConfig{Transport: transport, Rewrite: hooks[name]})
				if serve(p, request("GET", "http://client.test/", nil)); got != want {
					t.Errorf("%v over %s, %s: Host %q, want %q", test.target, over, name, got, want)
				}
			}
		}
	}
	// Without a Pool, and with no other address than the hook's.
	for name, want := range map[string]string{"other": "tenant.test", "client's": "client.test", "target's": "", "untouched": "client.test"} {
		var got string
		p := newProxy(t, upstream.ProxyConfig{
			Rewrite: func(pr *httputil.ProxyRequest) {
				pr.Out.URL.Host = "own.test"
				hooks[name](pr)
			},
			Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
				got = r.Host
				return response(200, ""), nil
			}),
		})
		if serve(p, request("GET", "http://client.test/", nil)); got != want {
			t.Errorf("without a Pool, %s: Host %q, want %q", name, got, want)
		}
	}
}

// signing is a Pool with something before it.
type signing struct{ *upstream.Pool }

func (s signing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header.Set("X-Signed", "yes")
	return s.Pool.RoundTrip(r)
}

// What embeds a Pool has its methods, but is what the user has made of it.
func TestProxyOverEmbeddedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers(okResponse))
		pool := newPool(t, upstream.Config{
			Targets: []upstream.Target{{URL: "http://backend.test:8081"}},
			Dial:    b.listener.DialContext,
		})
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: signing{pool}})})
		if res, _ := get(t, s, "/"); res.StatusCode != 200 || !strings.Contains(b.one(t), "X-Signed: yes\r\n") {
			t.Errorf("status %d, sent %q", res.StatusCode, b.all())
		}
	})
}
