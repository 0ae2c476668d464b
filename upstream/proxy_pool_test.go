package upstream_test

import (
	"net/http"
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
