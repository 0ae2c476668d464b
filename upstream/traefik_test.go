package upstream_test

import (
	"bufio"
	"crypto/tls"
	"errors"
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

// The tests of this file are those of Traefik's proxies, told again for this
// package; the name of each case's origin is in a comment. It was written from
// what they show and holds none of their code. Where this package differs it
// says so. These are shown elsewhere:
//
//   - pkg/proxy/httputil: TestConnect_HTTP1_Rejected and the other three of CONNECT,
//     and fast's TestConnectRequest, by TestConnect: 405, and no tunnel over HTTP/2.
//     TestRequestTrailersNotForwardedToBackend, and fast's, by TestTrailers and
//     TestTrailersHTTP10: those that may be trailers are passed on.
//   - WebSocket: TestWebSocketTCPClose, TestWebSocketPingPong, TestWebSocketEcho
//     and TestForwardsWebsocketTraffic by TestUpgrade, TestWebSocketTransferTLSConfig
//     by TestUpgradeOverTLS.
//   - middlewares/retry: TestRetryEmptyServerList by TestNoPeers, TestRetryWithFlush by
//     TestStreaming, Test1xxResponses by TestInterim and TestInterimAttempts, those of
//     request bodies by TestBodyLimit, TestReplay and TestRepetitionIsIdentical.
//   - loadbalancer: wrr by TestWeightedRoundRobinIsSmooth and TestPickersSpreadByWeight, p2c by
//     TestLeastRequestNeverTakesTheBusierOfTwo, leasttime by TestPeakEWMAPrefersTheFaster and
//     TestPeakEWMADoesNotFloodANewPeer, hrw by TestHashMovesFewKeys and
//     TestHashDoesNotDependOnOrder, sticky by sticky_test.go, failover by
//     TestPrioritiesSpillOver, mirror by mirror_test.go.
//   - healthcheck by check_test.go.
//
// These have no counterpart: TestProxyFromEnvironment (how a back end is reached is
// up to Transport or Dial), TestCleanWebSocketHeaders (net/http writes field names
// in its own spelling, and they mean the same in any), TestGC, which is skipped there.

func TestTraefikRewriteRequest(t *testing.T) {
	trusting := upstream.Forwarded{TrustedProxies: []netip.Prefix{loopback}}
	for name, test := range map[string]struct {
		cfg             upstream.ProxyConfig
		target          string
		line, host, xff string
	}{
		// Test_rewriteRequestBuilder
		"Basic proxy": {upstream.ProxyConfig{Host: upstream.HostTarget, Forwarded: trusting}, "/test?param=value",
			"GET /test?param=value", "backend.test", "1.2.3.4, 127.0.0.1"},
		"Basic proxy - notAppendXFF": {upstream.ProxyConfig{Host: upstream.HostTarget, Forwarded: upstream.Forwarded{TrustedProxies: []netip.Prefix{loopback}, Omit: true}}, "/test?param=value",
			"GET /test?param=value", "backend.test", "1.2.3.4"},
		"PassHostHeader": {upstream.ProxyConfig{Host: upstream.HostClient, Forwarded: trusting}, "/test",
			"GET /test", "original.host", "1.2.3.4, 127.0.0.1"},
		"Preserve path": {upstream.ProxyConfig{Host: upstream.HostTarget, Forwarded: trusting, URI: upstream.URI{AddPrefix: "/base"}}, "/foo%2Fbar",
			"GET /base/foo%2Fbar", "backend.test", "1.2.3.4, 127.0.0.1"},
		// There a semicolon becomes an ampersand. Here it stays, or its parameter
		// goes.
		"Handle semicolons in query": {upstream.ProxyConfig{Forwarded: trusting}, "/test?param1=value1;param2=value2",
			"GET /test?param1=value1;param2=value2", "original.host", "1.2.3.4, 127.0.0.1"},
		"Handle semicolons in query, cleaned": {upstream.ProxyConfig{Forwarded: trusting, URI: upstream.URI{Query: upstream.QueryClean}}, "/test?param1=value1;param2=value2&c=3",
			"GET /test?c=3", "original.host", "1.2.3.4, 127.0.0.1"},
		// TestEscapedPath
		"EscapedPath": {upstream.ProxyConfig{Forwarded: trusting}, "/%3A%2F%2F", "GET /%3A%2F%2F", "original.host", "1.2.3.4, 127.0.0.1"},
		// fast TestPreservePath
		"fast PreservePath": {upstream.ProxyConfig{URI: upstream.URI{AddPrefix: "/base/"}}, "/foo%2Fbar", "GET /base/foo%2Fbar", "original.host", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				s := serveProxy(t, memnet.HTTP1, b, test.cfg)
				talk(t, s, "GET "+test.target+" HTTP/1.1\r\nHost: original.host\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n")
				got := b.one(t)
				if !strings.HasPrefix(got, test.line+" HTTP/1.1\r\nHost: "+test.host+"\r\n") || strings.Join(fields(got, "X-Forwarded-For"), "|") != test.xff {
					t.Errorf("the back end got %q", got)
				}
			})
		})
	}
	// "HTTPS target": a back end that is reached with TLS has its own name.
	var scheme, host string
	p := newProxy(t, upstream.ProxyConfig{Target: "https://secure.example.com", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		scheme, host = r.URL.Scheme, r.Host
		return response(200, ""), nil
	})})
	if serve(p, request("GET", "http://localhost/secure", nil)); scheme != "https" || host != "" {
		t.Errorf("scheme %q, Host %q", scheme, host)
	}
}

// fast TestXForwardedFor. What a client sends is believed there in any case, and
// here if it is a trusted proxy.
func TestTraefikForwardedFor(t *testing.T) {
	for _, test := range []struct {
		name     string
		omit     bool
		incoming string
		want     []string
	}{
		{"appends RemoteAddr when notAppendXFF is false", false, "", []string{"192.0.2.1"}},
		{"appends RemoteAddr to existing XFF when notAppendXFF is false", false, "203.0.113.1", []string{"203.0.113.1, 192.0.2.1"}},
		{"does not append RemoteAddr when notAppendXFF is true and no incoming XFF", true, "", nil},
		{"preserves existing XFF when notAppendXFF is true", true, "203.0.113.1", []string{"203.0.113.1"}},
		{"preserves multiple XFF values when notAppendXFF is true", true, "203.0.113.1, 198.51.100.1", []string{"203.0.113.1, 198.51.100.1"}},
	} {
		var got []string
		p := newProxy(t, upstream.ProxyConfig{
			Target:    "http://b",
			Forwarded: upstream.Forwarded{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Omit: test.omit},
			Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
				got = r.Header["X-Forwarded-For"]
				return response(200, ""), nil
			}),
		})
		serve(p, request("GET", "/", func(r *http.Request) {
			r.RemoteAddr = "192.0.2.1:12345"
			if test.incoming != "" {
				r.Header.Set("X-Forwarded-For", test.incoming)
			}
		}))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}

// Test_isTLSConfigError. There it decides between 500 and 502; here it is a kind,
// and an alert is one as well.
func TestTraefikTLSErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		kind upstream.Kind
	}{
		{errors.New("random error"), upstream.KindNoResponse},
		{tls.RecordHeaderError{}, upstream.KindTLS},
		{&tls.CertificateVerificationError{Err: errors.New("x")}, upstream.KindTLS},
		{tls.AlertError(0), upstream.KindTLS},
	} {
		var rec upstream.Record
		w := serve(failing(t, upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { rec = *r }}, test.err), request("GET", "/", nil))
		if e, _ := errors.AsType[*upstream.Error](rec.Err); w.Code != 502 || e == nil || e.Kind != test.kind {
			t.Errorf("%T: status %d, %v", test.err, w.Code, rec.Err)
		}
	}
}

func TestTraefikResponses(t *testing.T) {
	for name, test := range map[string]struct {
		method       string
		answer       []string // with a pause between the parts
		body, length string
	}{
		// fast TestHeadRequest
		"HeadRequest": {"HEAD", []string{"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n"}, "", "42"},
		// fast TestNoContentLength: a body that ends with the connection
		"NoContentLength": {"GET", []string{"HTTP/1.1 200 OK\r\n\r\n", "foo"}, "foo", ""},
		// fast TestTransferEncodingChunked. Without a pause it would be one piece, of
		// which the server knows the length.
		"TransferEncodingChunked": {"GET", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nchunk 0\n\r\n", "8\r\nchunk 1\n\r\n", "8\r\nchunk 2\n\r\n0\r\n\r\n"},
			"chunk 0\nchunk 1\nchunk 2\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				b := newRawBack(t, func(c *rawConn) {
					c.head()
					for _, part := range test.answer {
						c.send(part)
						time.Sleep(time.Second)
					}
				})
				s := serveProxy(t, p, b, upstream.ProxyConfig{})
				req, _ := http.NewRequestWithContext(t.Context(), test.method, s.URL, nil)
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if res.StatusCode != 200 || string(body) != test.body || err != nil || res.Header.Get("Content-Length") != test.length {
					t.Errorf("status %d, %q, %v, %v", res.StatusCode, body, err, res.Header)
				}
				if chunked := slices.Equal(res.TransferEncoding, []string{"chunked"}); p == memnet.HTTP1 && chunked != (test.length == "") {
					t.Errorf("Transfer-Encoding %q", res.TransferEncoding)
				}
			})
		})
	}
}

// The cases of proxy_websocket_test.go in pkg/proxy/httputil and pkg/proxy/fast.
func TestTraefikWebSocket(t *testing.T) {
	for name, test := range map[string]struct {
		cfg          upstream.ProxyConfig
		target, more string
		answer       string
		sent         string // part of what the back end gets
		status       int
		got          string // part of what the client gets
	}{
		// fast TestWebSocketUpgradeCase
		"UpgradeCase": {answer: strings.Replace(switching, "Connection: Upgrade", "Connection: upgrade", 1), status: 101, got: "Upgrade: websocket\r\n"},
		// TestWebSocketPassHost
		"PassHost false": {cfg: upstream.ProxyConfig{Host: upstream.HostTarget}, answer: switching, sent: "Host: backend.test\r\n", status: 101},
		"PassHost true":  {cfg: upstream.ProxyConfig{Host: upstream.HostClient}, answer: switching, sent: "Host: example.com\r\n", status: 101},
		// TestWebSocketServerWithoutCheckOrigin
		"ServerWithoutCheckOrigin": {more: "Origin: http://127.0.0.2\r\n", answer: switching, sent: "Origin: http://127.0.0.2\r\n", status: 101},
		// TestWebSocketRequestWithOrigin: the back end's refusal is what the client gets
		"RequestWithOrigin": {more: "Origin: http://127.0.0.2\r\n", answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", sent: "Origin: http://127.0.0.2\r\n", status: 403},
		// TestWebSocketRequestWithQueryParams
		"RequestWithQueryParams": {target: "/ws?query=test", answer: switching, sent: "GET /ws?query=test HTTP/1.1\r\n", status: 101},
		// TestWebSocketRequestWithHeadersInResponseWriter
		"RequestWithHeadersInResponseWriter": {answer: switching, status: 101, got: "Header-Key: HEADER-VALUE\r\n"},
		// TestWebSocketRequestWithEncodedChar
		"RequestWithEncodedChar": {target: "/%3A%2F%2F", answer: switching, sent: "GET /%3A%2F%2F HTTP/1.1\r\n", status: 101},
		// TestWebSocketUpgradeFailed
		"UpgradeFailed": {answer: "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, func(c *rawConn) {
					c.head()
					c.send(test.answer)
				})
				test.cfg.Transport, test.cfg.Target = b.transport, "http://backend.test"
				h := newProxy(t, test.cfg)
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("HEADER-KEY", "HEADER-VALUE")
					h.ServeHTTP(w, r)
				})})
				if test.target == "" {
					test.target = "/ws"
				}
				got := talk(t, s, "GET "+test.target+" HTTP/1.1\r\nHost: example.com\r\nConnection: upgrade\r\nupgrade: websocket\r\n"+test.more+"\r\n")
				if statusOf(got) != test.status || !strings.Contains(got, test.got) {
					t.Errorf("got %q", got)
				}
				if sent := b.one(t); !strings.Contains(sent, test.sent) {
					t.Errorf("the back end got %q", sent)
				}
			})
		})
	}
}

// fast TestConnPool_ConnReuse and TestConnPool_MaxIdleConn.
func TestTraefikConnPool(t *testing.T) {
	for name, test := range map[string]struct {
		requests, atOnce int
		maxIdle          int
		dialled, kept    int32
	}{
		"One connection":                            {1, 1, 0, 1, 1},
		"Two connections with release":              {2, 1, 0, 1, 1},
		"Two concurrent connections":                {2, 2, 0, 2, 2},
		"MaxIdle, one connection":                   {1, 1, 1, 1, 1},
		"Multiple connections with defered release": {7, 7, 5, 7, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				open := make(chan struct{}, 10)
				o := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					open <- struct{}{}
					defer func() { <-open }()
					br := bufio.NewReader(c)
					for {
						if _, _, err := o.read(br); err != nil {
							return
						}
						time.Sleep(time.Second)
						io.WriteString(c, okAnswer)
					}
				})
				pool := n.pool(upstream.Config{Conns: upstream.Conns{MaxIdle: test.maxIdle}}, "a")
				slots, done := make(chan struct{}, test.atOnce), make(chan struct{}, test.requests)
				for range test.requests {
					slots <- struct{}{}
					go func() {
						mustSend(t, pool, newRequest(t, "GET", "/", ""))
						<-slots
						done <- struct{}{}
					}()
				}
				for range test.requests {
					<-done
				}
				synctest.Wait()
				if got, kept := o.conns.Load(), int32(len(open)); got != test.dialled || kept != test.kept {
					t.Errorf("%d connections, %d kept", got, kept)
				}
			})
		})
	}
}

// middlewares/retry TestRetry, TestRetryWebsocket and
// TestMultipleRetriesShouldNotLooseHeaders. Attempts there counts the first one, and
// does not here; a pause is always made. A status is repeated if it is in Statuses.
func TestTraefikRetry(t *testing.T) {
	for name, test := range map[string]struct {
		attempts, faulty int // as they are there
		status, retries  int
	}{
		"no retry on success":                                 {5, 0, 200, 0},
		"no retry when max request attempts is one":           {1, 1, 502, 0},
		"one retry when one server is faulty":                 {2, 1, 200, 1},
		"two retries when two servers are faulty":             {3, 2, 200, 2},
		"max attempts exhausted delivers the 5xx response":    {3, 3, 502, 2},
		"Switching ok after 2 retries":                        {3, 2, 101, 2},
		"Switching ok on the first attempt is not retried":    {3, 0, 101, 0},
		"Switching ok on an intermediate attempt not retried": {3, 1, 101, 1},
		"Switching failed":                                    {2, 2, 502, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				hosts := []string{"a", "b", "c", "d"}
				upgrade := strings.HasPrefix(name, "Switching")
				for i, host := range hosts {
					answer := okAnswer
					if upgrade {
						answer = switching
					}
					if i < test.faulty {
						answer = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
					}
					answer = strings.Replace(answer, "\r\n", fmt.Sprintf("\r\nX-Foo-Test-%d: bar\r\n", i), 1)
					n.add(host, func(o *origin, _ int, c *memnet.Conn) {
						if _, _, err := o.read(bufio.NewReader(c)); err == nil {
							io.WriteString(c, answer)
						}
					})
				}
				retry := upstream.Retry{Attempts: test.attempts - 1, Statuses: []int{502}, Budget: -1}
				if retry.Attempts == 0 {
					retry.Attempts = -1 // none; zero is the default
				}
				var rec upstream.Record
				pool := n.pool(upstream.Config{Picker: inOrder{}, Retry: retry}, hosts...)
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: pool, Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})})
				head := "GET /ok HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
				if upgrade {
					head = upgradeRequest
				}
				got := talk(t, s, head)
				synctest.Wait()
				if statusOf(got) != test.status || rec.Attempts != test.retries+1 {
					t.Errorf("%d attempts, %q", rec.Attempts, got)
				}
				for i := range hosts {
					if v := fields(got, fmt.Sprintf("X-Foo-Test-%d", i)); (v != nil) != (i == test.retries) {
						t.Errorf("X-Foo-Test-%d: %q", i, v)
					}
				}
			})
		})
	}
}

// middlewares/retry TestRetryShouldNotRetryWhenProxyNotReached and
// TestRetryOnStatusWhenProxyNotReached: what a tripper of the user's answers
// instead of the back end is a response like any other.
func TestTraefikRetryNotReached(t *testing.T) {
	for status, want := range map[int]struct{ status, calls int }{401: {401, 1}, 503: {200, 2}} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			calls := 0
			pool := n.pool(upstream.Config{
				Retry: upstream.Retry{Statuses: []int{503}, Budget: -1},
				Wrap: func(_ upstream.Target, next http.RoundTripper) (http.RoundTripper, error) {
					return tripperFunc(func(r *http.Request) (*http.Response, error) {
						if calls++; calls == 1 {
							return response(status, ""), nil
						}
						return response(200, ""), nil
					}), nil
				},
			}, "a", "b")
			got, _, _, err := send(pool, newRequest(t, "GET", "/", ""))
			if got != want.status || calls != want.calls || err != nil {
				t.Errorf("%d: status %d after %d calls, %v", status, got, calls, err)
			}
		})
	}
}
