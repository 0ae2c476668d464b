package upstream_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// failing returns a Proxy whose Transport fails with err.
func failing(t *testing.T, cfg upstream.ProxyConfig, err error) *upstream.Proxy {
	t.Helper()
	cfg.Target = "http://b"
	cfg.Transport = tripperFunc(func(r *http.Request) (*http.Response, error) {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	})
	return newProxy(t, cfg)
}

// What is wrong decides upon the status, the code, Retry-After, Proxy-Status and
// the status of gRPC.
func TestErrorAnswers(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, test := range []struct {
		err         error
		status      int
		code        string
		retryAfter  string
		proxyStatus string
		grpc        string
	}{
		{&upstream.Error{Kind: upstream.KindNoBackend}, 503, "upstream_no_backend", "1", "destination_unavailable", "14"},
		{&upstream.Error{Kind: upstream.KindNoBackend, RetryAfter: 2500 * time.Millisecond}, 503, "upstream_no_backend", "3", "destination_unavailable", "14"},
		{&upstream.Error{Kind: upstream.KindQueueFull}, 503, "upstream_queue_full", "1", "connection_limit_reached", "14"},
		{&upstream.Error{Kind: upstream.KindTLS}, 502, "upstream_tls", "", "tls_protocol_error", "14"},
		{&upstream.Error{Kind: upstream.KindHeaderTimeout}, 504, "upstream_header_timeout", "", "http_response_timeout", "4"},
		{&upstream.Error{Kind: upstream.KindBadResponse}, 502, "upstream_bad_response", "", "http_protocol_error", "13"},
		{&upstream.Error{Kind: upstream.KindUpgrade}, 502, "upstream_upgrade", "", "http_upgrade_failed", "14"},
		{fmt.Errorf("wrapped: %w", &upstream.Error{Kind: upstream.KindDial, Err: syscall.ECONNREFUSED}), 502, "upstream_dial", "", "connection_refused", "14"},
		{dial(syscall.EHOSTUNREACH), 502, "upstream_dial", "", "destination_ip_unroutable", "14"},
		{dial(&net.DNSError{IsNotFound: true}), 502, "upstream_dial", "", "dns_error", "14"},
		{dial(context.DeadlineExceeded), 504, "upstream_dial", "", "connection_timeout", "14"},
		{&tls.CertificateVerificationError{Err: errors.New("x")}, 502, "upstream_tls", "", "tls_certificate_error", "14"},
		{io.EOF, 502, "upstream_no_response", "", "connection_terminated", "14"},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, 502, "upstream_write", "", "connection_terminated", "14"},
		{errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "x"`), 502, "upstream_bad_response", "", "http_protocol_error", "13"},
		{openError{}, 503, "breaker_open", "", "", "14"},
		{openUntil{}, 503, "breaker_open", "30", "", "14"},
		{&upstream.Error{Kind: upstream.KindGate, Err: openUntil{}}, 503, "upstream_gate", "30", "destination_unavailable", "14"},
		{&upstream.Error{Kind: upstream.KindGate, RetryAfter: 7 * time.Second, Err: openUntil{}}, 503, "upstream_gate", "7", "destination_unavailable", "14"},
	} {
		p := failing(t, upstream.ProxyConfig{ProxyStatus: "us"}, test.err)
		w := serve(p, request("GET", "/", nil))
		var body struct{ Code, Detail string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Errorf("%v: %v", test.err, err)
		}
		if w.Code != test.status || body.Code != test.code || w.Header().Get("Retry-After") != test.retryAfter {
			t.Errorf("%v: status %d, code %s, Retry-After %q", test.err, w.Code, body.Code, w.Header().Get("Retry-After"))
		}
		if got := strings.TrimPrefix(w.Header().Get("Proxy-Status"), "us; error="); got != test.proxyStatus {
			t.Errorf("%v: Proxy-Status %q", test.err, w.Header()["Proxy-Status"])
		}
		w = serve(p, request("POST", "/", func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc+proto") }))
		h := w.Header()
		if w.Code != 200 || h.Get("Content-Type") != "application/grpc" || h.Get("Grpc-Status") != test.grpc || h.Get("Grpc-Message") == "" || w.Body.Len() != 0 {
			t.Errorf("%v: to gRPC status %d, %v", test.err, w.Code, h)
		}
	}
}

// openError is an error that says itself how it is answered.
type openError struct{}

func (openError) Error() string   { return "open" }
func (openError) HTTPStatus() int { return 503 }
func (openError) Code() string    { return "breaker_open" }

// openUntil says when another try makes sense, too.
type openUntil struct{ openError }

func (openUntil) RetryAfter() time.Duration { return 29*time.Second + 1 }
func (openUntil) NotSent() bool             { return true }

// What a tripper of Config.Wrap says about another try gets to the client, and to
// the caller of a Pool.
func TestRetryAfterOfWrap(t *testing.T) {
	pool := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "http://a"}}, Wrap: func(upstream.Target, http.RoundTripper) (http.RoundTripper, error) {
		return tripperFunc(func(*http.Request) (*http.Response, error) { return nil, openUntil{} }), nil
	}})
	w := serve(newProxy(t, upstream.ProxyConfig{Transport: pool}), request("GET", "/", nil))
	if got := w.Header()["Retry-After"]; w.Code != 503 || !slices.Equal(got, []string{"30"}) {
		t.Errorf("status %d, Retry-After %q", w.Code, got)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://a", nil)
	_, err := pool.RoundTrip(req)
	if e, ok := errors.AsType[*upstream.Error](err); !ok || e.RetryAfter != 29*time.Second+1 {
		t.Errorf("got %v", err)
	}
}

// gRPC-Web and others are answered as everybody is.
func TestNotGRPC(t *testing.T) {
	for _, contentType := range []string{"application/grpc-web", "application/grpcx", "application/json", ""} {
		w := serve(failing(t, upstream.ProxyConfig{}, io.EOF), request("POST", "/", func(r *http.Request) { r.Header.Set("Content-Type", contentType) }))
		if w.Code != 502 {
			t.Errorf("%q: status %d", contentType, w.Code)
		}
	}
}

// An ErrorHandler gets an error with status and code, and the header is ready.
func TestErrorHandler(t *testing.T) {
	cause := errors.New("cause")
	var got error
	p := failing(t, upstream.ProxyConfig{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		got = err
		if w.Header().Get("Retry-After") != "7" {
			t.Errorf("header %v", w.Header())
		}
		w.WriteHeader(http.StatusTeapot)
	}}, &upstream.Error{Kind: upstream.KindQueueFull, RetryAfter: 7 * time.Second, Err: cause})
	if w := serve(p, request("GET", "/", nil)); w.Code != http.StatusTeapot || !errors.Is(got, cause) {
		t.Errorf("status %d, %v", w.Code, got)
	}
}

// A refusal in the middle of an HTTP/1 upload closes the connection, and no byte
// of the body is taken for the next request.
func TestRefusedUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		got := talk(t, s, "POST /../x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if statusOf(got) != 400 || fields(got, "Connection") == nil || strings.Count(got, "HTTP/1.1 ") != 1 || len(b.all()) != 0 {
			t.Errorf("got %q", got)
		}
	})
}

// The end of a context is answered by its cause: by a limit that knows how, as a
// deadline, or as a client that has gone.
func TestContextCause(t *testing.T) {
	for name, test := range map[string]struct {
		ctx    func() context.Context
		status int
	}{
		"limit": {func() context.Context {
			ctx, c := context.WithCancelCause(context.Background())
			c(openError{})
			return ctx
		}, 503},
		"deadline": {func() context.Context { ctx, c := context.WithTimeout(context.Background(), -1); c(); return ctx }, 504},
		"gone":     {func() context.Context { ctx, c := context.WithCancel(context.Background()); c(); return ctx }, 499},
	} {
		var rec upstream.Record
		p := failing(t, upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { rec = *r }}, errors.New("some consequence"))
		w := serve(p, request("GET", "/", nil).WithContext(test.ctx()))
		if w.Code != test.status || rec.Status != test.status {
			t.Errorf("%s: status %d, record %+v", name, w.Code, rec)
		}
	}
}

// upstream 86: a panic of a hook reaches whoever recovers, and both sides are
// closed.
func TestHookPanics(t *testing.T) {
	for name, cfg := range map[string]upstream.ProxyConfig{
		"Rewrite":        {Rewrite: func(*httputil.ProxyRequest) { panic("hook") }},
		"ModifyResponse": {ModifyResponse: func(*http.Response) error { panic("hook") }},
	} {
		closed, done := false, false
		cfg.Target = "http://b"
		cfg.Transport = tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "x")
			res.Body = &closeNoter{Reader: strings.NewReader("x"), closed: &closed}
			return res, nil
		})
		cfg.Done = func(*http.Request, *upstream.Record) { done = true }
		p := newProxy(t, cfg)
		func() {
			defer func() {
				if v := recover(); v != "hook" {
					t.Errorf("%s: recovered %v", name, v)
				}
			}()
			serve(p, request("GET", "/", nil))
		}()
		if closed != (name == "ModifyResponse") || !done {
			t.Errorf("%s: body closed %v, Done called %v", name, closed, done)
		}
	}
}

type closeNoter struct {
	io.Reader
	closed *bool
}

func (c *closeNoter) Close() error { *c.closed = true; return nil }

// An error of ModifyResponse refuses the response, which is closed.
func TestModifyResponseError(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
	}{{errors.New("no"), 502}, {openError{}, 503}} {
		closed := false
		var got error
		p := newProxy(t, upstream.ProxyConfig{
			Target: "http://b",
			Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
				res := response(200, "x")
				res.Header.Set("X-Back", "end")
				res.Body = &closeNoter{Reader: strings.NewReader("x"), closed: &closed}
				return res, nil
			}),
			ModifyResponse: func(*http.Response) error { return test.err },
			Done:           func(_ *http.Request, r *upstream.Record) { got = r.Err },
		})
		w := serve(p, request("GET", "/", nil))
		if w.Code != test.status || !closed || w.Header().Get("X-Back") != "" || !errors.Is(got, test.err) {
			t.Errorf("status %d, closed %v, %v, %v", w.Code, closed, w.Header(), got)
		}
	}
}

// upstream 84: nothing is left when a request has ended, however it did. The
// bubble fails if a goroutine is.
func TestNothingLeft(t *testing.T) {
	scripts := map[string]func(*rawConn){
		"no answer":   func(c *rawConn) { c.head() },
		"half a head": func(c *rawConn) { c.head(); c.send("HTTP/1.1 200") },
		"half a body": func(c *rawConn) { c.head(); c.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx") },
		"reset":       func(c *rawConn) { c.head(); c.Abort() },
		"early":       func(c *rawConn) { c.send(okResponse) },
		"garbage":     func(c *rawConn) { c.head(); c.send("\x00\x01\x02\r\n\r\n") },
		"extra":       func(c *rawConn) { c.request(); c.send(okResponse + "extra"); c.request() },
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				b := newRawBack(t, script)
				s := serveProxy(t, p, b, upstream.ProxyConfig{})
				pr, pw := io.Pipe()
				go func() {
					io.WriteString(pw, "some")
					time.Sleep(time.Second)
					pw.CloseWithError(errors.New("client gave up"))
				}()
				req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
				if res, err := s.Transport.RoundTrip(req); err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				synctest.Wait()
				b.transport.CloseIdleConnections()
				time.Sleep(10 * time.Second)
				if n := b.connections(); n != 0 {
					t.Errorf("%d connections are open", n)
				}
			})
		})
	}
}

// A back end that comes with a Proxy-Status keeps it.
func TestProxyStatusReceived(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nProxy-Status: inner; error=dns_error\r\n\r\n"))
		s := serveProxy(t, p, b, upstream.ProxyConfig{ProxyStatus: "us"})
		if res, _ := get(t, s, "/"); !slices.Equal(res.Header["Proxy-Status"], []string{"inner; error=dns_error", "us; received-status=404"}) {
			t.Errorf("got %q", res.Header["Proxy-Status"])
		}
	})
}

// Proxy-Status says what the back end has sent, whatever a hook makes of it, under
// a name that is an item of a structured field, which a token of HTTP need not be.
func TestProxyStatusName(t *testing.T) {
	for name, want := range map[string]string{"us": "us", "*us": "*us", "Edge.1": "Edge.1", "1edge": `"1edge"`, "-x": `"-x"`, "10.0.0.1": `"10.0.0.1"`} {
		p := newProxy(t, upstream.ProxyConfig{
			ProxyStatus: name, Target: "http://b",
			ModifyResponse: func(res *http.Response) error { res.StatusCode = 202; return nil },
			Transport:      tripperFunc(func(*http.Request) (*http.Response, error) { return response(404, ""), nil }),
		})
		w := serve(p, request("GET", "/", nil))
		if got := w.Header()["Proxy-Status"]; w.Code != 202 || !slices.Equal(got, []string{want + "; received-status=404"}) {
			t.Errorf("%s: status %d, %q", name, w.Code, got)
		}
		w = serve(failing(t, upstream.ProxyConfig{ProxyStatus: name}, io.EOF), request("GET", "/", nil))
		if got := w.Header()["Proxy-Status"]; !slices.Equal(got, []string{want + "; error=connection_terminated"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// gRPC's deadline is the context's, and is answered as one.
func TestGRPCDeadline(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
		s := overHTTP(t, p, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})
		start := time.Now()
		res := callGRPC(t, s, "POST")
		res.Body.Close()
		if time.Since(start).Round(time.Millisecond) != 1500*time.Millisecond || res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "4" {
			t.Errorf("after %v: %d, %v", time.Since(start), res.StatusCode, res.Header)
		}
	})
}

// A response that the deadline ends says so in its trailers, and not by a reset, of
// which a client makes an internal error. What is not gRPC, whatever the request
// says of itself, is broken off for all to see.
func TestGRPCDeadlineInResponse(t *testing.T) {
	plain := func(h http.Header) { h.Set("Content-Type", "application/grpc") }
	for _, test := range []struct {
		name, method, sent string
		header             func(http.Header)
		ends               bool
	}{
		{"header only", "POST", "", plain, true},
		{"bytes", "POST", "bytes", plain, true},
		{"announced", "POST", "bytes", func(h http.Header) { plain(h); h.Set("Trailer", "Grpc-Status, Grpc-Message") }, true},
		{"another type", "POST", "bytes", func(h http.Header) { h.Set("Content-Type", "text/javascript") }, false},
		{"another method", "GET", "bytes", plain, false},
		{"a length", "POST", "bytes", func(h http.Header) { plain(h); h.Set("Content-Length", "1000") }, false},
	} {
		inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
			var recorded error
			cfg := upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { recorded = r.Err }}
			s := overHTTP(t, p, cfg, func(w http.ResponseWriter, r *http.Request) {
				test.header(w.Header())
				io.WriteString(w, test.sent)
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			start := time.Now()
			res := callGRPC(t, s, test.method)
			got, err := io.ReadAll(res.Body)
			if string(got) != test.sent || (err == nil) != test.ends || time.Since(start).Round(time.Millisecond) != 1500*time.Millisecond {
				t.Errorf("%s: after %v: got %q, %v", test.name, time.Since(start), got, err)
			}
			if h := res.Trailer; test.ends && (h.Get("Grpc-Status") != "4" || h.Get("Grpc-Message") == "") || !test.ends && h.Get("Grpc-Status") != "" {
				t.Errorf("%s: trailers %v", test.name, h)
			}
			synctest.Wait()
			if e, ok := errors.AsType[*upstream.Error](recorded); !ok || e.Kind != upstream.KindDeadline {
				t.Errorf("%s: recorded %v", test.name, recorded)
			}
		})
	}
}

// callGRPC sends what says of itself that it is gRPC, with 1.5 s to answer it.
func callGRPC(t *testing.T, s *memnet.Server, method string) *http.Response {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), method, s.URL, strings.NewReader("call"))
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Grpc-Timeout", "1500m")
	res, err := s.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// A back end of any Transport may reset the stream at the deadline that it was
// told, before the timer here has run.
func TestGRPCDeadlineByTheClock(t *testing.T) {
	for _, test := range []struct {
		after time.Duration
		want  string
	}{{time.Second - time.Millisecond, "14"}, {time.Second, "4"}} {
		synctest.Test(t, func(t *testing.T) {
			p := newProxy(t, upstream.ProxyConfig{Target: "http://a", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
				time.Sleep(test.after)
				return nil, errors.New("stream error: stream ID 1; CANCEL; received from peer")
			})})
			w := serve(p, request("POST", "/", func(r *http.Request) {
				r.Header.Set("Content-Type", "application/grpc")
				*r = *r.WithContext(unhurried{t.Context(), time.Now().Add(time.Second)})
			}))
			if got := w.Header().Get("Grpc-Status"); got != test.want {
				t.Errorf("after %v: status %q, want %q", test.after, got, test.want)
			}
		})
	}
}

// A log has to say what was wrong with a request, and not only that something was.
func TestRefusedSaysWhy(t *testing.T) {
	var rec upstream.Record
	serve(failing(t, upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { rec = *r }}, nil), request("GET", "/a/../b", nil))
	if rec.Err == nil || rec.Err.Error() != "upstream: policy: The path has dot segments." {
		t.Errorf("recorded %v", rec.Err)
	}
}
