package plainware_test

import (
	"bufio"
	"io"
	"log"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/timeout"
	"example.com/plainware/upstream"
)

// What has not come of a request body when a proxy's response is over is no
// request, with the limits of package timeout outside and a breaker inside, in
// full duplex or not; and a request whose body has come leaves the connection fit
// for another one.
func TestConnectionBehindProxy(t *testing.T) {
	outside := map[string]timeout.Config{
		"nothing":               {},
		"total":                 {Limits: timeout.Limits{Total: time.Second}},
		"idle":                  {Limits: timeout.Limits{ReadIdle: time.Second}},
		"total, cooperative":    {Limits: timeout.Limits{Total: time.Second}, Cooperative: true},
		"idle, cooperative":     {Limits: timeout.Limits{ReadIdle: time.Second}, Cooperative: true},
		"all of them, together": {Limits: timeout.Limits{Total: 3 * time.Second, FirstByte: 2 * time.Second, ReadIdle: time.Second, WriteIdle: time.Second}},
	}
	backEnd := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex() // it does not wait for the body either
		w.Header().Set("Connection", "close")
		if r.URL.Path == "/whole" {
			io.Copy(io.Discard, r.Body)
		}
		io.WriteString(w, "part")
		if r.URL.Path != "/early" {
			rc.Flush()
			time.Sleep(time.Second / 2)
			io.WriteString(w, " and end")
		}
	})
	const stalled = " HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nContent-Length: 1000\r\n\r\nabc"
	requests := map[string]bool{ // and whether they come to their end
		"PUT /early" + stalled:     false,
		"PUT /stream" + stalled:    false,
		"PUT /whole" + stalled:     false,
		"OPTIONS /early" + stalled: false,
		"PUT /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc":                          true,
		"PUT /whole HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n": true,
		"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n":                                                 true,
	}
	for name, cfg := range outside {
		for request, whole := range requests {
			for _, duplex := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					back := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: backEnd})
					pool := must(upstream.New(upstream.Config{
						Targets: []upstream.Target{{URL: "http://b"}}, Dial: back.Listener.DialContext,
						Retry: upstream.Retry{PerTry: 3 * time.Second / 2},
					}))(t)
					t.Cleanup(func() { pool.Close() })
					brk := must(breaker.New(breaker.Config{Base: pool}))(t)
					h := http.Handler(must(upstream.NewProxy(upstream.ProxyConfig{Transport: brk}))(t))
					if cfg.Limits != (timeout.Limits{}) {
						h = must(timeout.New(cfg))(t).Handler(h)
					}
					served, cancelled := false, false
					front := memnet.Serve(t, memnet.HTTP1, &http.Server{
						ErrorLog: log.New(io.Discard, "", 0),
						Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							switch {
							case r.URL.Path == "/next":
								time.Sleep(time.Second) // for as long as the context may take to end
								served, cancelled = true, r.Context().Err() != nil
								return
							case duplex:
								http.NewResponseController(w).EnableFullDuplex()
							}
							h.ServeHTTP(w, r)
						}),
					})
					c := must(front.Listener.Dial(t.Context()))(t)
					defer c.Close()
					io.WriteString(c, request)
					c.SetReadDeadline(time.Now().Add(time.Minute))
					br := bufio.NewReader(c)
					res, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatalf("outside %s, %q: %v", name, request, err)
					}
					io.Copy(io.Discard, res.Body)
					time.Sleep(10 * time.Second) // for all deadlines to pass
					io.WriteString(c, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
					if res, err := http.ReadResponse(br, nil); err == nil {
						io.Copy(io.Discard, res.Body)
					}
					if served != whole || cancelled {
						t.Errorf("outside %s, full duplex %v, %q: status %d, the next request served: %v, cancelled: %v",
							name, duplex, request, res.StatusCode, served, cancelled)
					}
				})
			}
		}
	}
}
