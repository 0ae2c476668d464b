package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// The tests of this file are those of net/http/httputil/reverseproxy_test.go,
// told again for this package; the name of each is in its comment. Where this
// package differs it says so. Those that are shown elsewhere:
//
//   - TestReverseProxyFlushInterval and TestReverseProxyFlushIntervalHeaders by
//     TestFlushInterval and TestStreaming, and so is what TestSelectFlushInterval asks of
//     an unexported function
//   - TestUserAgentHeader by TestUserAgent
//   - TestUnannouncedTrailer by TestTrailers
//   - TestReverseProxyWebSocket by TestUpgrade, TestReverseProxyWebSocketCancellation by
//     TestUpgradeCancelled, TestReverseProxyWebSocketHalfTCP by TestUpgradeHalfClose
//   - TestReverseProxyQueryParameterSmugglingDirectorParsesForm by TestQuery, and
//     TestReverseProxyQueryParameterSmugglingDirectorDoesNotParseForm too: there is no
//     Director, but there are layers outside that parse a form or do not
//
// TestSingleJoinSlash and TestJoinURLPath are about functions of httputil's own.

// TestReverseProxy, TestReverseProxyStripEmptyConnection and
// TestReverseProxyStripHeadersPresentInConnection.
func TestLikeReverseProxy(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		s := overHTTP(t, p, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("mode") == "hangup" {
				c, _, _ := http.NewResponseController(w).Hijack()
				c.Close()
				return
			}
			want := map[string]string{"Connection": "", "Te": "trailers", "Upgrade": "", "Proxy-Connection": "", "X-Some": "", "X-Other": ""}
			for name, v := range want {
				if got := r.Header.Get(name); got != v {
					t.Errorf("the back end got %s: %q", name, got)
				}
			}
			if len(r.TransferEncoding) > 0 || r.Header.Get("X-Forwarded-For") == "" || r.Host != "some-name" {
				t.Errorf("the back end got %v, %v, %q", r.TransferEncoding, r.Header, r.Host)
			}
			w.Header().Set("Trailers", "not a special header field name")
			w.Header().Set("Trailer", "X-Trailer")
			w.Header().Set("X-Foo", "bar")
			w.Header().Set("Upgrade", "foo")
			w.Header().Set("X-Hop", "foo")
			w.Header().Add("X-Multi-Value", "foo")
			w.Header().Add("X-Multi-Value", "bar")
			w.Header()["Connection"] = []string{"", "X-Hop"}
			http.SetCookie(w, &http.Cookie{Name: "flavor", Value: "chocolateChip"})
			w.WriteHeader(404)
			io.WriteString(w, "I am the backend")
			w.Header().Set("X-Trailer", "trailer_value")
			w.Header().Set(http.TrailerPrefix+"X-Unannounced-Trailer", "unannounced_trailer_value")
		})
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		req.Host = "some-name"
		req.Header["Connection"] = []string{"", "TE, X-Some", "x-OTHER"}
		req.Header["Te"] = []string{"foo", "bar, trailers"}
		req.Header.Set("Proxy-Connection", "should be deleted")
		req.Header.Set("Upgrade", "foo")
		req.Header.Set("X-Some", "x")
		req.Header.Set("X-Other", "x")
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 404 || string(body) != "I am the backend" || res.Header.Get("X-Foo") != "bar" || res.Header.Get("X-Hop") != "" ||
			len(res.Header["X-Multi-Value"]) != 2 || len(res.Cookies()) != 1 || res.Header.Get("Trailers") == "" {
			t.Errorf("status %d, %q, %v", res.StatusCode, body, res.Header)
		}
		if want := (http.Header{"X-Trailer": {"trailer_value"}, "X-Unannounced-Trailer": {"unannounced_trailer_value"}}); !reflect.DeepEqual(res.Trailer, want) {
			t.Errorf("trailer %v", res.Trailer)
		}
		if res, _ := get(t, s, "/?mode=hangup"); res.StatusCode != 502 {
			t.Errorf("after a hang up: status %d", res.StatusCode)
		}
	})
}

// TestXForwardedFor, TestXForwardedFor_Omit and TestReverseProxyRewriteStripsForwarded
// are TestForwardedUntrusted, TestForwardedFields and TestRewriteAfterRemoval.
// A hook that uses SetXForwarded gets what it wants, and not twice.
func TestSetXForwarded(t *testing.T) {
	got := exchangeHeaders(t, upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) { pr.SetXForwarded() }}, "Connection: close", "X-Forwarded-For: 192.0.2.1")
	for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "front.test", "X-Forwarded-Proto": "http"} {
		if v := fields(got, name); !slices.Equal(v, []string{want}) {
			t.Errorf("%s: %q", name, v)
		}
	}
}

// TestReverseProxyCancellation is TestClientGone. TestNilBody,
// TestReverseProxy_NilBody and TestReverseProxy_AllocatedHeader:
func TestNoBodyNoHeader(t *testing.T) {
	p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		if r.Body != nil || r.ContentLength != 0 || r.Header == nil {
			t.Errorf("the Transport got body %v of %d bytes, header %v", r.Body, r.ContentLength, r.Header)
		}
		return response(200, "hi"), nil
	})})
	for _, r := range []*http.Request{
		{Method: "GET", URL: &url.URL{Path: "/"}, Proto: "HTTP/1.0", ProtoMajor: 1},
		{Method: "GET", URL: &url.URL{Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, ContentLength: -1},
		{Method: "POST", URL: &url.URL{Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: 5},
	} {
		if w := serve(p, r); w.Code != 200 || w.Body.String() != "hi" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	}
}

// TestReverseProxyGetPutBuffer and TestReverseProxy_CopyBuffer: what is taken is
// given back, also when the copy fails.
func TestBufferPool(t *testing.T) {
	pool := &countingPool{}
	for _, body := range []io.Reader{strings.NewReader("hi"), io.MultiReader(strings.NewReader("hi"), failingReader{errors.New("broken")})} {
		p := newProxy(t, upstream.ProxyConfig{BufferPool: pool, Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Body, res.ContentLength = io.NopCloser(body), -1
			return res, nil
		})})
		func() {
			defer func() { recover() }()
			serve(p, request("GET", "/", nil))
		}()
	}
	if pool.got != 2 || pool.put != 2 {
		t.Errorf("%d taken, %d given back", pool.got, pool.put)
	}
}

type countingPool struct{ got, put int }

func (p *countingPool) Get() []byte { p.got++; return make([]byte, 1000) }
func (p *countingPool) Put(b []byte) {
	if len(b) == 1000 {
		p.put++
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// TestReverseProxy_Post:
func TestLargePost(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		sent := bytes.Repeat([]byte("x"), 1<<20)
		s := overHTTP(t, p, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if !bytes.Equal(got, sent) || err != nil {
				t.Errorf("the back end got %d bytes, %v", len(got), err)
			}
			w.Write(got)
		})
		res, err := s.Client.Post(s.URL, "", bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); !bytes.Equal(got, sent) || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// TestReverseProxyModifyResponse, TestReverseProxyErrorHandler and
// TestModifyResponseClosesBody are TestModifyResponseError and TestErrorHandler.
func TestModifyResponse(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := overHTTP(t, p, upstream.ProxyConfig{ModifyResponse: func(res *http.Response) error {
			text := "replaced"
			res.Body.Close()
			res.Body = io.NopCloser(strings.NewReader(text))
			res.Header.Set("Content-Length", fmt.Sprint(len(text)))
			res.StatusCode = 202
			return nil
		}}, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the original") })
		if res, body := get(t, s, "/"); res.StatusCode != 202 || body != "replaced" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	})
}

// TestServeHTTPDeepCopy and TestClonesRequestHeaders: the client's request is as
// it was, whatever a hook appends and a Transport sets.
func TestRequestUntouched(t *testing.T) {
	p := newProxy(t, upstream.ProxyConfig{
		Target: "http://b", URI: upstream.URI{AddPrefix: "/x"},
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.Header.Add("X-Two", "3")
			pr.Out.Header.Set("X-One", "other")
			pr.Out.URL.Path = "/other"
		},
		Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			r.Header.Set("From", "transport")
			return response(200, ""), nil
		}),
	})
	r := request("GET", "/path?q", func(r *http.Request) {
		two := make([]string, 2, 8)
		copy(two, []string{"1", "2"})
		r.Header = http.Header{"X-One": {"1"}, "X-Two": two, "Connection": {"close"}, "X-Forwarded-For": {"192.0.2.1"}}
	})
	h, u := r.Header.Clone(), *r.URL
	serve(p, r)
	if !reflect.DeepEqual(r.Header, h) || *r.URL != u || r.Header["X-Two"][:3][2] != "" {
		t.Errorf("the request is %v %v", r.URL, r.Header)
	}
}

// TestReverseProxy_PanicBodyError: an error in the middle of a body is
// http.ErrAbortHandler, and the log has the reason.
func TestBodyErrorPanics(t *testing.T) {
	var log bytes.Buffer
	p := newProxy(t, upstream.ProxyConfig{Logger: slog.New(slog.NewTextHandler(&log, nil)), Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		res := response(200, "")
		res.Body, res.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("begun"), failingReader{errors.New("broken pipe")})), 100
		return res, nil
	})})
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("recovered %v", v)
		}
		if !strings.Contains(log.String(), "broken pipe") {
			t.Errorf("log: %s", &log)
		}
	}()
	serve(p, request("GET", "/", nil))
}

// TestReverseProxy_PanicClosesIncomingBody: when the handler returns because the
// back end is gone, nobody reads the client's body any more.
func TestNoReadAfterReturn(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		})
		h := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		var over atomic.Bool
		s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer over.Store(true)
			r.Body = &watchedBody{ReadCloser: r.Body, over: &over, t: t}
			h.ServeHTTP(w, r)
		})})
		for range 5 {
			over.Store(false)
			pr, pw := io.Pipe()
			go func() {
				for range 10 {
					if _, err := io.WriteString(pw, "some"); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
				pw.Close()
			}()
			req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
			if res, err := s.Transport.RoundTrip(req); err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			pr.Close()
			time.Sleep(time.Minute)
		}
	})
}

type watchedBody struct {
	io.ReadCloser
	over *atomic.Bool
	t    *testing.T
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.over.Load() {
		b.t.Error("the body is read after the handler has returned")
	}
	n, err := b.ReadCloser.Read(p)
	if b.over.Load() {
		b.t.Error("the body is being read when the handler returns")
	}
	return n, err
}

// TestReverseProxyUpgradeNoCloseWrite: a back end without half-close is closed.
func TestUpgradeNoCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c1, c2 := memnet.Listen(), make(chan struct{})
		defer c1.Close()
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			c, err := c1.Dial(r.Context())
			if err != nil {
				return nil, err
			}
			res := response(101, "")
			res.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
			res.Body = struct{ io.ReadWriteCloser }{c}
			return res, nil
		})})
		go func() {
			c, err := c1.Accept()
			if err == nil {
				io.Copy(io.Discard, c)
				c.Close()
			}
			close(c2)
		}()
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: p})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, upgradeRequest)
		http.ReadResponse(bufio.NewReader(c), nil)
		c.(*memnet.Conn).CloseWrite()
		<-c2
		c.Close()
	})
}

// TestReverseProxyHijackCopyError and a writer that cannot be hijacked.
func TestUpgradeNoHijack(t *testing.T) {
	closed := false
	p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		res := response(101, "")
		res.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		res.Body = &closingRW{closed: &closed}
		return res, nil
	})})
	w := serve(p, request("GET", "/", func(r *http.Request) {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
	}))
	if w.Code != 502 || !closed {
		t.Errorf("status %d, closed %v", w.Code, closed)
	}
}

type closingRW struct {
	bytes.Buffer
	closed *bool
}

func (c *closingRW) Close() error { *c.closed = true; return nil }

// TestSetURL and TestReverseProxyQuery: a target with a path and a query, by way
// of the hook, and by Target and AddPrefix.
func TestSetURL(t *testing.T) {
	for _, test := range []struct{ base, in, want string }{
		{"", "", "GET /"}, {"/", "/", "GET /"}, {"/base", "/", "GET /base/"}, {"/base/", "/to", "GET /base/to"}, {"/base", "/to?a=1", "GET /base/to?a=1"},
		{"", "/?us=er", "GET /?us=er"}, {"/?sta=tic", "/", "GET /?sta=tic"}, {"/?sta=tic", "/?us=er", "GET /?sta=tic&us=er"},
		{"/a%2Fb", "/c%2Fd", "GET /a%2Fb/c%2Fd"},
	} {
		u, err := url.Parse("http://backend.test" + test.base)
		if err != nil {
			t.Fatal(err)
		}
		if test.in == "" {
			test.in = "/"
		}
		cfg := upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(u) }}
		if got := line(t, cfg, "GET", test.in); got != test.want {
			t.Errorf("%s with %s: %q", test.base, test.in, got)
		}
		if path := u.EscapedPath(); u.RawQuery == "" && path != "" {
			cfg := upstream.ProxyConfig{URI: upstream.URI{AddPrefix: path}}
			if got := line(t, cfg, "GET", test.in); got != test.want {
				t.Errorf("%s before %s: %q", test.base, test.in, got)
			}
		}
	}
}

// TestReverseProxyQueryParameterSmugglingRewrite, and
// TestReverseProxyQueryParameterSmugglingRewritePreservesRawQuery: with a hook
// the back end sees the parameters that the hook can see, unless the hook says
// otherwise. What stays is not encoded anew.
func TestRewriteQuery(t *testing.T) {
	for query, want := range map[string]string{
		"a=1&b=2": "?a=1&b=2", "b=2&a=1": "?b=2&a=1", "a=%20&b=+": "?a=%20&b=+", "a=1;b=2": "", "a=1&b=2;c=3": "?a=1", "a=%&b=2": "?b=2", "a=%zz": "", "&a": "?&a",
	} {
		look := upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) {
			if values := pr.Out.URL.Query(); len(values) != strings.Count(strings.Trim(want, "?&"), "&")+min(1, len(want)) {
				t.Errorf("%s: the hook sees %v", query, values)
			}
		}}
		if got := line(t, look, "GET", "/?"+query); got != "GET /"+want {
			t.Errorf("%s: %q", query, got)
		}
		keep := upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) { pr.Out.URL.RawQuery = pr.In.URL.RawQuery }}
		if got := line(t, keep, "GET", "/?"+query); got != "GET /?"+query {
			t.Errorf("%s: kept as %q", query, got)
		}
	}
}

// TestReverseProxyRewriteReplacesOut: with what belongs to the exchange all the
// same.
func TestRewriteReplacesOut(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out, _ = http.NewRequestWithContext(pr.In.Context(), "GET", "http://elsewhere.test/new", nil)
			pr.Out.Header = nil
		}})
		seen, res := interim(t, s, strings.NewReader("body"))
		if res.StatusCode != 200 || len(seen) != 1 || !strings.HasPrefix(b.one(t), "GET /new HTTP/1.1\r\nHost: elsewhere.test\r\n") {
			t.Errorf("status %d, seen %q, sent %q", res.StatusCode, seen, b.all())
		}
	})
}

// Test1xxHeadersNotModifiedAfterRoundTrip: a Transport whose hook comes late
// changes nothing. (Test1xxResponses is TestInterim.)
func TestLateInterim(t *testing.T) {
	var hook func()
	p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		hook = got1xx(r.Context())
		return response(200, "x"), nil
	})})
	w := serve(p, request("GET", "/", nil))
	var wg sync.WaitGroup
	wg.Go(hook)
	w.Header().Set("X-After", "1")
	wg.Wait()
	if w.Code != 200 || w.Header().Get("Link") != "" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
}

// TestReverseProxyInvalidUpstream100ContinueDoNotHang: a response that is none
// behind an Expect.
func TestContinueInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send("200 OK\r\n\r\n")
		})
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		got := talk(t, s, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
		if statusOf(got) != 502 {
			t.Errorf("got %q", got)
		}
	})
}

// The response writer's other abilities are found by way of Unwrap, as in
// TestReverseProxyResponseControllerFlushInterval.
func TestFlushByUnwrap(t *testing.T) {
	flushed := httptest.NewRecorder()
	p := newProxy(t, upstream.ProxyConfig{FlushInterval: -1, Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
		res := response(200, "")
		res.Body = io.NopCloser(io.MultiReader(strings.NewReader("a"), strings.NewReader("b")))
		res.ContentLength = 2
		return res, nil
	})})
	p.ServeHTTP(unwrapper{flushed}, request("GET", "/", nil))
	if !flushed.Flushed || flushed.Body.String() != "ab" {
		t.Errorf("flushed %v, %q", flushed.Flushed, flushed.Body)
	}
}

type unwrapper struct{ w http.ResponseWriter }

func (u unwrapper) Header() http.Header         { return u.w.Header() }
func (u unwrapper) Write(p []byte) (int, error) { return u.w.Write(p) }
func (u unwrapper) WriteHeader(code int)        { u.w.WriteHeader(code) }
func (u unwrapper) Unwrap() http.ResponseWriter { return u.w }

// got1xx returns the hook that a Proxy has put into a context.
func got1xx(ctx context.Context) func() {
	trace := httptraceOf(ctx)
	return func() { trace.Got1xxResponse(103, map[string][]string{"Link": {"</late>"}}) }
}
