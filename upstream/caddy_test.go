package upstream_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// The tests of this file are those of Caddy's modules/caddyhttp/reverseproxy, told
// again for this package; the name of each case's origin is in a comment. It was
// written from what they show and holds none of their code. Where this package
// differs it says so. These are shown elsewhere:
//
//   - selectionpolicies_test.go: TestRoundRobinPolicy by TestRoundRobinTurns and
//     TestPickersPassOverTried, the weighted ones by TestWeightedRoundRobinIsSmooth (where
//     the turns of a peer do not come in a row) and TestConfigProblems, TestLeastConnPolicy by
//     TestLeastConnectionsTakesTheLeast, TestLeastRequests and TestRandomChoicePolicy by
//     TestLeastRequestDrawsTwoDifferentPeers, TestRandomChoicePolicyLeastLoaded by
//     TestLeastRequestNeverTakesTheBusierOfTwo, those of hashes by TestHashIsStable and
//     TestHashWithoutKeyIsRandom, TestFirstPolicy by TestPrioritiesSpillOver, those of cookies by
//     sticky_test.go.
//   - passive_health_test.go by outlier_test.go, and that failures are kept across changes
//     by TestUpdateKeepsState; dynamic_upstreams_test.go by TestResolvedPool and TestUpdate.
//   - active_health_test.go, and the checks of caddytest/integration/reverseproxy_test.go, by
//     check_test.go; its Unix sockets by TestUnixSocket, TestSRVReverseProxy by TestDNSSRV.
//   - caddytest/integration/stream_test.go: TestH2ToH2CStream by TestBidirectional.
//
// These have no counterpart: buffering_test.go and the sizes of the buffers of
// streaming_test.go (bodies are never gathered), placeholders, matchers and whatever else
// is about the configuration.

// TestDialErrorBodyRetry, and TestSubrouteErrorFallbackWithBody: where nothing was
// read of a body, it is all there for the next back end.
func TestCaddyDialErrorBody(t *testing.T) {
	for name, test := range map[string]struct {
		method, body string
		attempts     int
		status       int
	}{
		"POST body retried after dial error":               {"POST", "hello, retry", 1, 200},
		"GET without body retried after dial error":        {"GET", "", 1, 200},
		"no retries configured returns 502 on dial error":  {"POST", "hello, retry", -1, 502},
		"no retries configured, GET, 502 on a dial error":  {"GET", "", -1, 502},
		"subroute error fallback with body":                {"POST", "hello world", -1, 200},
		"subroute error fallback with a body of no length": {"POST", "hello world", -1, 200},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
				n := newLAN(t)
				n.add("good", func(o *origin, _ int, c *memnet.Conn) {
					br := bufio.NewReader(c)
					for {
						_, body, err := o.read(br)
						if err != nil {
							return
						}
						fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					}
				})
				cfg := upstream.ProxyConfig{Transport: n.pool(upstream.Config{Picker: inOrder{}, Retry: upstream.Retry{Attempts: test.attempts}}, "dead", "good")}
				if strings.HasPrefix(name, "subroute") {
					good := newProxy(t, upstream.ProxyConfig{Transport: n.pool(upstream.Config{}, "good")})
					cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, _ error) { good.ServeHTTP(w, r) }
				}
				s := memnet.Serve(t, p, &http.Server{Handler: newProxy(t, cfg)})
				var body io.Reader
				if test.body != "" {
					body = strings.NewReader(test.body)
				}
				if strings.HasSuffix(name, "no length") {
					body = io.MultiReader(body)
				}
				req, _ := http.NewRequestWithContext(t.Context(), test.method, s.URL, body)
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if res.StatusCode != test.status || err != nil || test.status == 200 && string(got) != test.body {
					t.Errorf("status %d, %q, %v", res.StatusCode, got, err)
				}
			})
		})
	}
}

func TestCaddyResponseRetry(t *testing.T) {
	answer := func(status int, more, body string) string {
		return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s", status, len(body), more, body)
	}
	marked := func(res *http.Response) bool { return res.Header.Get("X-Retry") == "true" }
	for name, test := range map[string]struct {
		retry       upstream.Retry
		method      string
		first, then string
		status      int
		body        string
		hits        int
	}{
		// TestResponseRetryStatusCode
		"StatusCode": {upstream.Retry{Statuses: []int{502, 503}}, "GET", answer(502, "", "bad"), answer(200, "", "good"), 200, "good", 2},
		// TestResponseRetryHeader
		"Header": {upstream.Retry{When: marked}, "GET", answer(200, "X-Retry: true\r\n", "bad"), answer(200, "", "good"), 200, "good", 2},
		// TestResponseRetryNoMatchNoRetry
		"NoMatchNoRetry": {upstream.Retry{Statuses: []int{502, 503}}, "GET", answer(500, "", "bad"), answer(200, "", "good"), 500, "bad", 1},
		// TestResponseRetryExhaustedPreservesStatusCode
		"ExhaustedPreservesStatusCode": {upstream.Retry{Statuses: []int{503}, Attempts: 1}, "GET", answer(503, "", "bad"), answer(503, "", "too"), 503, "too", 2},
		// TestResponseRetryHeaderCleanup
		"HeaderCleanup": {upstream.Retry{When: marked, Attempts: 2}, "GET", answer(200, "X-Retry: true\r\n", "first"), answer(200, "", "second"), 200, "second", 2},
		// TestRequestOnlyMatcherDoesNotRetryResponses
		"RequestOnlyMatcher": {upstream.Retry{Idempotent: func(*http.Request) bool { return true }}, "PUT", answer(200, "", "ok"), answer(200, "", "no"), 200, "ok", 1},
		// TestTransportErrorPlaceholderNotSetForResponses
		"TransportErrorNotSetForResponses": {upstream.Retry{Lost: true}, "GET", answer(502, "", "bad"), answer(200, "", "no"), 502, "bad", 1},
		// TestTransportErrorPlaceholder: a POST that was written is repeated if
		// the configuration says so.
		"TransportError": {upstream.Retry{Lost: true, Idempotent: func(*http.Request) bool { return true }}, "POST", "", answer(200, "", "ok"), 200, "ok", 2},
		// And not otherwise, which differs.
		"TransportError, POST": {upstream.Retry{Lost: true}, "POST", "", answer(200, "", "no"), 502, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				first := n.add("first", func(o *origin, _ int, c *memnet.Conn) {
					if _, _, err := o.read(bufio.NewReader(c)); err == nil {
						io.WriteString(c, test.first)
					}
				})
				then := n.add("then", answering(test.then))
				test.retry.Budget = -1
				pool := n.pool(upstream.Config{Picker: inOrder{}, Retry: test.retry}, "first", "then")
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: pool})})
				got := talk(t, s, test.method+" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
				if hits := len(first.requests()) + len(then.requests()); statusOf(got) != test.status || !strings.HasSuffix(got, test.body) || hits != test.hits {
					t.Errorf("%d requests, got %q", hits, got)
				}
				if v := fields(got, "X-Retry"); v != nil {
					t.Errorf("X-Retry: %q is left over", v)
				}
			})
		})
	}
}

// hopheaders_test.go
func TestCaddyHopHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		request, answer string
		status          int
		want, none      []string
	}{
		// TestFinalizeResponse_101_StripsHopByHopHeaders
		"101 strips hop-by-hop fields": {upgradeRequest, strings.Replace(switching, "\r\n\r\n",
			"\r\nSec-WebSocket-Accept: x\r\nAlt-Svc: h2=\"evil.com:443\"; ma=86400\r\nKeep-Alive: timeout=999\r\nProxy-Authenticate: Basic realm=\"phish\"\r\n\r\n", 1),
			101, []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-Websocket-Accept: x"}, []string{"Alt-Svc", "Keep-Alive", "Proxy-Authenticate"}},
		// TestFinalizeResponse_101_StripsConnectionNamedHeaders
		"101 strips fields that Connection names": {upgradeRequest, strings.Replace(switching, "Connection: Upgrade", "Connection: Upgrade, X-Custom-ID\r\nX-Custom-ID: secret", 1),
			101, []string{"Upgrade: websocket", "Connection: Upgrade"}, []string{"X-Custom-Id"}},
		// TestFinalizeResponse_200_StillStripsHopByHop
		"200 strips hop-by-hop fields": {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nAlt-Svc: h2=\"evil.com:443\"\r\nKeep-Alive: timeout=999\r\nContent-Length: 2\r\n\r\nok",
			200, []string{"Content-Type: text/plain"}, []string{"Alt-Svc", "Keep-Alive"}},
		// TestFinalizeResponse_101_NoUpgradeRequest: there it is passed on
		"101 without a request for it": {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", strings.Replace(switching, "\r\n\r\n", "\r\nAlt-Svc: x\r\n\r\n", 1),
			502, nil, []string{"Alt-Svc", "Upgrade"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, func(c *rawConn) {
					c.head()
					c.send(test.answer)
				})
				got := talk(t, serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{}), test.request)
				if statusOf(got) != test.status {
					t.Errorf("got %q", got)
				}
				for _, line := range test.want {
					if !strings.Contains(got, "\r\n"+line+"\r\n") {
						t.Errorf("%q is not in %q", line, got)
					}
				}
				for _, field := range test.none {
					if v := fields(got, field); v != nil {
						t.Errorf("%s: %q", field, v)
					}
				}
			})
		})
	}
}

// TestClientDisconnectRecordsStatus
func TestCaddyClientDisconnect(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		n := newLAN(t)
		n.add("a", silent)
		var rec upstream.Record
		pool := n.pool(upstream.Config{}, "a")
		s := memnet.Serve(t, p, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: pool, Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})})
		s.Client.Timeout = time.Second
		if _, err := s.Client.Get(s.URL); err == nil {
			t.Error("there is an answer")
		}
		synctest.Wait()
		if st := only(t, pool); rec.Status != 499 || st.Failed() != 0 {
			t.Errorf("record %+v, %d failures of the back end", rec, st.Failed())
		}
	})
}

// headers_test.go: peers without an IP address. There a Unix socket can be trusted;
// here it cannot, since nobody is known by it. Proto and Host are the connection's.
func TestCaddyForwardedPeers(t *testing.T) {
	for name, test := range map[string]struct {
		remote   string
		incoming bool
	}{
		// TestAddForwardedHeadersNonIP
		"NonIP": {"my-weird-network:12345", false},
		// TestAddForwardedHeaders_UnixSocketUntrusted
		"UnixSocketUntrusted": {"@", true},
		// TestAddForwardedHeaders_UnixSocketTrustedNoExistingHeaders
		"UnixSocketNoExistingHeaders": {"@", false},
	} {
		var got http.Header
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Forwarded: upstream.Forwarded{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}},
			Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
				got = r.Header
				return response(200, ""), nil
			})})
		serve(p, request("GET", "http://example.com/", func(r *http.Request) {
			r.RemoteAddr = test.remote
			if test.incoming {
				r.Header = http.Header{"X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"spoofed.example.com"}}
			}
		}))
		if got["X-Forwarded-For"] != nil || !slices.Equal(got["X-Forwarded-Proto"], []string{"http"}) || !slices.Equal(got["X-Forwarded-Host"], []string{"example.com"}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// streaming_test.go TestHandlerCopyResponse: bodies of all sizes are the same
// afterwards, also those that fill a buffer exactly.
func TestCaddyCopyResponse(t *testing.T) {
	for _, size := range []int{0, 1, 8<<10 - 1, 8 << 10, 8<<10 + 1, 32 << 10, 48 << 10, 48<<10 + 1, 200_000} {
		want := strings.Repeat("x", size)
		for _, length := range []int64{int64(size), -1} {
			p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
				res := response(200, want)
				res.ContentLength = length
				return res, nil
			})})
			if w := serve(p, request("GET", "/", nil)); w.Body.String() != want {
				t.Errorf("%d bytes of %d, length %d", w.Body.Len(), size, length)
			}
		}
	}
}

// caddytest/integration/stream_test.go TestH2ToH1ChunkedResponse: what a client of
// HTTP/2 sends comes back in chunks while it goes on sending, to and from a back
// end of HTTP/1.
func TestCaddyH2ToH1Chunked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := frontOf(t, memnet.HTTP2, memnet.HTTP1, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			rc.Flush()
			buf := make([]byte, 1024)
			for {
				n, err := r.Body.Read(buf)
				w.Write(buf[:n])
				rc.Flush()
				if err != nil {
					return
				}
			}
		})
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", s.URL+"/tov2ray", pr)
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got := make([]byte, 1024)
		for i := range 5 {
			want := strings.Repeat(fmt.Sprint(i), len(got))
			io.WriteString(pw, want)
			if _, err := io.ReadFull(res.Body, got); string(got) != want {
				t.Fatalf("piece %d: %.10q, %v", i, got, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
			t.Errorf("at the end %q, %v", rest, err)
		}
	})
}
