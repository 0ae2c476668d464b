package upstream_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// TestRequestFraming sends requests byte by byte to a server with the Proxy and
// looks at the bytes that a back end gets. Much of it is net/http's work; that
// it stays done is what this is for.
func TestRequestFraming(t *testing.T) {
	const chunked = "5\r\nhello\r\n0\r\n\r\n"
	for _, test := range []struct {
		name    string // with the number of the line
		request string
		status  int
		sent    []string // in what the back end gets
		unsent  []string // not in it
		silent  bool     // the back end gets nothing
	}{
		// upstream 1: one of the two framings is left.
		{"1 TE and CL", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
			200, []string{"Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"}, []string{"Content-Length"}, false},
		// upstream 2: an HTTP/1.0 request has no transfer coding; nothing of
		// what stands behind it reaches the back end.
		{"2 TE in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
			200, []string{"Content-Length: 0\r\n"}, []string{"hello", "Transfer-Encoding"}, false},
		{"2 TE in 1.0, kept alive", "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
			200, []string{"Content-Length: 3\r\n", "\r\n\r\n5\r\n"}, []string{"hello", "Transfer-Encoding"}, false},
		// upstream 3: any other coding is refused.
		{"3 chunked, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n" + chunked, 501, nil, nil, true},
		{"3 xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n" + chunked, 501, nil, nil, true},
		{"3 twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 501, nil, nil, true},
		{"3 in one", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n" + chunked, 501, nil, nil, true},
		// upstream 4: lengths agree or the request is refused.
		{"4 different", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, nil, nil, true},
		{"4 equal", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			200, []string{"Content-Length: 5\r\n", "\r\n\r\nhello"}, []string{"Content-Length: 5\r\nContent-Length", "5, 5"}, false},
		// upstream 5: a length is a decimal number.
		{"5 sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400, nil, nil, true},
		{"5 hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400, nil, nil, true},
		{"5 two", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  5 5\r\n\r\nhello", 400, nil, nil, true},
		{"5 overflow", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello", 400, nil, nil, true},
		// upstream 8: chunk extensions stay here.
		{"8 extension", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0;z\r\n\r\n",
			200, []string{"\r\n5\r\nhello\r\n0\r\n\r\n"}, []string{"x=y", ";z"}, false},
		// upstream 9: no space before the colon.
		{"9 space", "GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n", 400, nil, nil, true},
		// upstream 10: no folded line gets through.
		{"10 fold", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: b\r\n c\r\n\r\n",
			200, []string{"X-A: b c\r\n"}, []string{"\r\n c"}, false},
		// upstream 13: no body, no framing; a POST without one says so.
		{"13 GET", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, nil, []string{"Content-Length", "Transfer-Encoding"}, false},
		{"13 POST", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, []string{"Content-Length: 0\r\n"}, nil, false},
		{"13 HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, nil, []string{"Content-Length", "Transfer-Encoding"}, false},
		// upstream 20: an absolute target says which host is meant.
		{"20 absolute form", "GET http://inside/x HTTP/1.1\r\nHost: outside\r\nConnection: close\r\n\r\n",
			200, []string{"GET /x HTTP/1.1\r\nHost: inside\r\n"}, []string{"outside"}, false},
		// upstream 21: what would be read as a body by one and as the new
		// protocol by the other is refused.
		{"21 upgrade with body", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", 400, nil, nil, true},
		{"21 upgrade with chunks", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 400, nil, nil, true},
		// upstream 46: what is sent as Host is one.
		{"46 host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, nil, nil, true},
		{"46 host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, nil, nil, true},
		{"46 host in quotes", "GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n", 400, nil, nil, true},
		{"46 two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, nil, nil, true},
		{"46 literal", "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", 200, []string{"Host: [::1]:80\r\n"}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
				got := talk(t, s, test.request)
				if statusOf(got) != test.status {
					t.Errorf("status %d, want %d: %q", statusOf(got), test.status, got)
				}
				if test.silent {
					if all := b.all(); len(all) != 0 {
						t.Errorf("the back end got %q", all)
					}
					return
				}
				sent := b.one(t)
				for _, s := range test.sent {
					if !strings.Contains(sent, s) {
						t.Errorf("%q is not in %q", s, sent)
					}
				}
				for _, s := range test.unsent {
					if strings.Contains(sent, s) {
						t.Errorf("%q is in %q", s, sent)
					}
				}
			})
		})
	}
}

// upstream 2: the server hides the Transfer-Encoding of an HTTP/1.0 request. What
// is behind such a request may be its body to the one in front, and so is never
// read as another, however the first is answered.
func TestHTTP10Closes(t *testing.T) {
	const (
		head     = "HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
		smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Y: abcde\r\n\r\n0\r\n\r\n"
	)
	for name, request := range map[string]string{
		"with a length":  "POST / " + head + "Content-Length: 4\r\n\r\n2c\r\n" + smuggled,
		"of length 0":    "POST / " + head + "Content-Length: 0\r\n\r\n" + smuggled,
		"without length": "GET / " + head + "\r\n" + smuggled,
		"refused":        "GET /../x " + head + "\r\n" + smuggled,
		"answered here":  "OPTIONS / " + head + "Max-Forwards: 0\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
				got := talk(t, s, request)
				if strings.Count(got, "HTTP/1.") != 1 || !slices.Equal(fields(got, "Connection"), []string{"close"}) {
					t.Errorf("got %q", got)
				}
				if all := b.all(); strings.Contains(strings.Join(all, ""), "smuggled") {
					t.Errorf("the back end got %q", all)
				}
			})
		})
	}
}

// upstream 6, 7: a chunked body that is malformed, too large for a number, or
// drowned in extensions ends as an aborted request, never as a complete one.
func TestMalformedChunks(t *testing.T) {
	for name, body := range map[string]string{
		"6 bare LF":         "5\nhello\r\n0\r\n\r\n",
		"6 LF in extension": "5;a\nb\r\nhello\r\n0\r\n\r\n",
		"7 too long":        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"7 extensions":      strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\na\r\n", 50) + "0\r\n\r\n",
		"7 no hex":          "5g\r\nhello\r\n0\r\n\r\n",
		"7 no CRLF":         "5\r\nhelloXX0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				complete := false
				b := newRawBack(t, func(c *rawConn) {
					r, err := http.ReadRequest(c.r)
					if err != nil {
						return
					}
					if _, err = io.Copy(io.Discard, r.Body); err == nil {
						complete = true
					}
				})
				s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
				got := talk(t, s, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
				if statusOf(got) != 400 || strings.Count(got, "HTTP/1.1 ") != 1 || !strings.Contains(got, "Connection: close") {
					t.Errorf("got %q", got)
				}
				synctest.Wait()
				if complete {
					t.Error("the back end has seen a complete request")
				}
			})
		})
	}
}

// upstream 11: a line break in a value that a hook sets gets to nobody, in
// either direction.
func TestLineBreakInHook(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{
			Rewrite: rewriteHeader("X-Evil", "a\r\nX-Injected: b"),
		})
		if res, _ := get(t, s, "/"); res.StatusCode != 502 || len(b.all()) != 0 {
			t.Errorf("status %d, and the back end got %q", res.StatusCode, b.all())
		}
	})
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{ModifyResponse: func(res *http.Response) error {
			res.Header.Set("X-Evil", "a\r\nX-Injected: b")
			return nil
		}})
		if res, _ := get(t, s, "/"); res.Header.Get("X-Injected") != "" {
			t.Errorf("got %v", res.Header)
		}
	})
}

// upstream 12: the framing of the outgoing request is that of the body that is
// sent, whatever the fields say.
func TestFramingComputed(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		h := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// A layer outside that replaces the body and forgets the fields.
			r.Body = io.NopCloser(strings.NewReader("other"))
			r.ContentLength = 5
			r.Header["Content-Length"] = []string{"1000"}
			r.Header["Transfer-Encoding"] = []string{"chunked"}
			h.ServeHTTP(w, r)
		})})
		res, err := s.Client.Post(s.URL, "text/plain", strings.NewReader("something longer"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := b.one(t); !strings.Contains(got, "Content-Length: 5\r\n") || strings.Contains(got, "1000") || strings.Contains(got, "chunked") {
			t.Errorf("the back end got %q", got)
		}
	})
}

// upstream 14: a client that sends less than it said leaves the back end with a
// closed connection, and never with a padded or an open body.
func TestShortUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []byte
		var end error
		b := newRawBack(t, func(c *rawConn) {
			r, err := http.ReadRequest(c.r)
			if err != nil {
				return
			}
			got, end = io.ReadAll(r.Body)
		})
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n"+strings.Repeat("x", 8000))
		c.(*memnet.Conn).CloseWrite()
		response := hear(c)
		c.Close()
		synctest.Wait()
		if len(got) > 8000 || end == nil || b.connections() != 0 {
			t.Errorf("the back end got %d bytes, %v, and has %d connections", len(got), end, b.connections())
		}
		if status := statusOf(response); response != "" && status != 400 && status != 499 {
			t.Errorf("the client got %q", response)
		}
	})
}

// upstream 15: a content-length that is not the sum of DATA ends the stream.
func TestLengthMismatchHTTP2(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
		complete := false
		b := newRawBack(t, func(c *rawConn) {
			r, err := http.ReadRequest(c.r)
			if err != nil {
				return
			}
			if _, err = io.Copy(io.Discard, r.Body); err == nil {
				complete = true
			}
		})
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, io.MultiReader(strings.NewReader("hello")))
		req.ContentLength = 10
		if res, err := s.Transport.RoundTrip(req); err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				t.Errorf("status %d", res.StatusCode)
			}
		}
		synctest.Wait()
		if complete {
			t.Error("the back end has seen a complete request")
		}
	})
}

// upstream 18: the cookie fields of HTTP/2 are one for HTTP/1.
func TestCookiesJoined(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		get(t, s, "/", "Cookie", "a=1; b=2; c=3") // the client sends one field each
		if got := b.one(t); !strings.Contains(got, "\r\nCookie: a=1; b=2; c=3\r\n") || strings.Count(got, "Cookie:") != 1 {
			t.Errorf("the back end got %q", got)
		}
	})
}
