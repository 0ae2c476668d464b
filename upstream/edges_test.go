package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// A back end that dies between the head of its response and the first byte of
// the body has answered nothing yet, so that the client is told in words, and
// sees nothing of the head.
func TestDiesBeforeBody(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		n := newLAN(t)
		n.add("a", func(o *origin, _ int, c *memnet.Conn) {
			if _, _, err := o.read(bufio.NewReader(c)); err == nil {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-Head: lost\r\n\r\n")
			}
		})
		var recorded upstream.Record
		s := memnet.Serve(t, p, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{
			Transport: n.pool(upstream.Config{}, "a"),
			Done:      func(_ *http.Request, r *upstream.Record) { recorded = *r },
		})})
		res, body := get(t, s, "/")
		if res.StatusCode != 502 || !strings.Contains(body, "upstream_body_aborted") || res.Header.Get("X-Head") != "" {
			t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
		}
		s.Transport.CloseIdleConnections()
		synctest.Wait()
		if e, ok := errors.AsType[*upstream.Error](recorded.Err); !ok || e.Kind != upstream.KindBodyAborted || recorded.Status != 502 {
			t.Errorf("recorded %+v", recorded)
		}
	})
}

// upstream 86: a panic of a tripper that Wrap returned reaches the caller of a
// hedged request as well, whichever attempt it happens in.
func TestHedgePanics(t *testing.T) {
	for _, delay := range []time.Duration{0, 80 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", silent)
				n.add("b", silent)
				p := n.pool(upstream.Config{
					Picker: upstream.RoundRobin(),
					Retry:  upstream.Retry{Hedge: 50 * time.Millisecond, Budget: -1},
					Wrap: func(upstream.Target, http.RoundTripper) (http.RoundTripper, error) {
						return tripperFunc(func(r *http.Request) (*http.Response, error) {
							time.Sleep(delay)
							panic("tripped")
						}), nil
					},
				}, "a", "b")
				func() {
					defer func() {
						if v := recover(); v != "tripped" {
							t.Errorf("recovered %v", v)
						}
					}()
					send(p, newRequest(t, "GET", "/", ""))
				}()
				time.Sleep(time.Second)
				for s := range p.Backends() {
					if s.Active != 0 || s.Failed() != 0 {
						t.Errorf("%s: %d active, %d failed", s.Target.ID, s.Active, s.Failed())
					}
				}
			})
		})
	}
}

// upstream 86: a Picker that panics when it is asked for the second back end of a
// hedged request leaves nothing of the first attempt.
func TestHedgePickerPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", silent)
		n.add("b", silent)
		p := n.pool(upstream.Config{
			Picker: pickers(func(p *upstream.Pick) int {
				if p.Tried(0) {
					panic(http.ErrAbortHandler)
				}
				return 0
			}),
			Retry: upstream.Retry{Hedge: time.Second},
		}, "a", "b")
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("recovered %v", v)
				}
			}()
			send(p, newRequest(t, "GET", "/", ""))
		}()
		synctest.Wait()
		for s := range p.Backends() {
			if s.Active != 0 || s.Conns != s.Idle || s.Failed() != 0 {
				t.Errorf("%s: %d active, %d of %d connections idle, %d failed", s.Target.ID, s.Active, s.Idle, s.Conns, s.Failed())
			}
		}
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// pickers is a Picker that picks by a function, whatever the back ends.
type pickers upstream.PickFunc

func (f pickers) Build(upstream.Snapshot) upstream.PickFunc { return upstream.PickFunc(f) }

// upstream 65: an upload that breaks off after the response has begun takes the
// response with it, and is not the back end's fault.
func TestUploadBreaksOffLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", func(_ *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
			io.Copy(io.Discard, br)
		})
		p := n.pool(upstream.Config{}, "a")
		pr, pw := io.Pipe()
		req := newRequest(t, "POST", "/", "x")
		req.Body, req.ContentLength = pr, -1
		go io.WriteString(pw, "begun")
		res, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		pw.CloseWithError(errors.New("the client is gone"))
		_, err = io.ReadAll(res.Body)
		wantKind(t, err, upstream.KindClientBody)
		res.Body.Close()
		if s := only(t, p); s.Failed() != 0 || s.Active != 0 {
			t.Errorf("%d failed, %d active", s.Failed(), s.Active)
		}
	})
}

// A client of HTTP/1.0 gets no trailers, and the length of what it gets.
func TestTrailersHTTP10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{
			Target: "http://b",
			Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
				res := response(200, "four")
				res.Trailer = http.Header{"X-Sum": {"42"}}
				return res, nil
			}),
		})})
		got := talk(t, s, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
		if !strings.Contains(got, "Content-Length: 4\r\n") || strings.Contains(got, "Trailer") || strings.Contains(got, "X-Sum") || !strings.HasSuffix(got, "\r\n\r\nfour") {
			t.Errorf("got %q", got)
		}
	})
}

// field is a header field in HPACK, literal and not indexed, of a new name (RFC
// 7541 section 6.2.2).
func field(name, value string) string {
	return "\x00" + string(byte(len(name))) + name + string(byte(len(value))) + value
}

const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// rawRequest sends the header of one request in frames of HTTP/2, and returns
// how it was answered: a status, "reset", "goaway" or "closed".
func rawRequest(t *testing.T, s *memnet.Server, fields string) string {
	t.Helper()
	c, err := s.Listener.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// :method GET, :scheme http, :path /, and :authority by its index.
	head := "\x82\x86\x84\x41\x01a" + fields
	io.WriteString(c, h2Preface+frame(4, 0, 0, "")+frame(1, 5, 1, head))
	br := bufio.NewReader(c)
	h := make([]byte, 9)
	for {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(br, h); err != nil {
			return "closed"
		}
		payload := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(br, payload); err != nil {
			return "closed"
		}
		switch h[3] {
		case 1:
			switch payload[0] {
			case 0x88:
				return "200"
			case 0x8c:
				return "400"
			}
			return fmt.Sprintf("%x", payload)
		case 3:
			return "reset"
		case 7:
			return "goaway"
		}
	}
}

// upstream 16, 17: requests over HTTP/2 with fields of HTTP/1.1's connection
// management, or with names that are none, do not get as far as a back end.
func TestRawRequestFields(t *testing.T) {
	for name, c := range map[string]struct{ fields, want string }{
		"none":                {"", "200"},
		"te trailers":         {field("te", "trailers"), "200"},
		"connection":          {field("connection", "close"), "400"},
		"keep-alive":          {field("keep-alive", "timeout=5"), "400"},
		"proxy-connection":    {field("proxy-connection", "close"), "400"},
		"transfer-encoding":   {field("transfer-encoding", "chunked"), "400"},
		"upgrade":             {field("upgrade", "websocket"), "400"},
		"te other":            {field("te", "gzip"), "400"},
		"upper case":          {field("X-Upper", "a"), "reset"},
		"empty name":          {field("", "a"), "reset"},
		"control in name":     {field("a\x01b", "c"), "reset"},
		"space in name":       {field("a b", "c"), "reset"},
		"colon in name":       {field("a:b", "c"), "reset"},
		"line feed in value":  {field("a", "b\nc: d"), "reset"},
		"zero byte in value":  {field("a", "b\x00c"), "reset"},
		"unknown pseudo":      {field(":foo", "c"), "reset"},
		"second path":         {"\x84", "reset"},
		"pseudo after others": {field("a", "b") + field(":scheme", "http"), "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, answers(okResponse))
				s := serveProxy(t, memnet.H2C, b, upstream.ProxyConfig{})
				got := rawRequest(t, s, c.fields)
				if got != c.want {
					t.Errorf("answered with %s, want %s", got, c.want)
				}
				if seen := b.all(); (len(seen) > 0) != (c.want == "200") {
					t.Errorf("the back end has seen %q", seen)
				}
			})
		})
	}
}

// upstream 66: what an HTTP/2 back end says about the length of its response,
// twice, wrongly or in the terms of HTTP/1.1, does not frame the response to a
// client of HTTP/1.1.
func TestRawResponseFraming(t *testing.T) {
	for name, fields := range map[string]string{
		"two lengths":          field("content-length", "2") + field("content-length", "5"),
		"two equal lengths":    field("content-length", "2") + field("content-length", "2"),
		"list of lengths":      field("content-length", "2, 2"),
		"no number":            field("content-length", "0x2"),
		"signed":               field("content-length", "+2"),
		"overflow":             field("content-length", "18446744073709551618"),
		"transfer-encoding":    field("transfer-encoding", "chunked"),
		"both":                 field("transfer-encoding", "chunked") + field("content-length", "5"),
		"connection":           field("connection", "content-length") + field("content-length", "2"),
		"too long":             field("content-length", "5"),
		"too short":            field("content-length", "1"),
		"trailer announcement": field("trailer", "content-length"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", rawH2(func(_ int, stream uint32) string {
					return frame(1, 4, stream, status200+fields) + frame(0, 1, stream, "ok")
				}))
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{
					Transport: n.pool(upstream.Config{Targets: []upstream.Target{{URL: "h2c://a"}}}),
				})})
				got := talk(t, s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if got == "" {
					return // broken off
				}
				br := bufio.NewReader(strings.NewReader(got))
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatalf("%v: %q", err, got)
				}
				body, err := io.ReadAll(res.Body)
				head, _, _ := strings.Cut(got, "\r\n\r\n")
				lengths := strings.Count(strings.ToLower(head), "\r\ncontent-length:")
				chunked := strings.Count(strings.ToLower(head), "\r\ntransfer-encoding:")
				switch {
				case lengths+chunked != 1:
					t.Errorf("%d lengths and %d codings in %q", lengths, chunked, head)
				case res.StatusCode == 200 && err == nil && string(body) != "ok":
					t.Errorf("a whole response with body %q", body)
				case res.StatusCode != 200 && res.StatusCode != 502:
					t.Errorf("status %d", res.StatusCode)
				case err == nil && br.Buffered() > 0:
					rest, _ := br.Peek(br.Buffered())
					t.Errorf("behind the response: %q", rest)
				}
			})
		})
	}
}

// upstream 68: requests that share one HTTP/2 connection, and end in every way,
// have their headers for themselves. The race detector is the judge.
func TestSharedConnectionHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, _ := serveFor(t, memnet.H2C, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Seen", r.Header.Get("X-Number"))
			w.Header().Set("Trailer", "X-End")
			time.Sleep(time.Millisecond)
			io.WriteString(w, "ok")
			w.Header().Set("X-End", r.Header.Get("X-Number"))
		})}, "h2c://a")
		proxy := newProxy(t, upstream.ProxyConfig{Transport: newPool(t, cfg)})
		s := memnet.Serve(t, memnet.H2C, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer r.Header.Set("X-Number", "over") // the request is this handler's again
			defer clear(w.Header())
			proxy.ServeHTTP(w, r)
		})})
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				ctx := t.Context()
				if i%3 == 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Duration(i)*20*time.Microsecond)
					defer cancel()
				}
				req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
				if err != nil {
					t.Error(err)
					return
				}
				number := fmt.Sprint(i)
				req.Header.Set("X-Number", number)
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				defer res.Body.Close()
				_, err = io.ReadAll(res.Body)
				if err == nil && res.Header.Get("X-Seen") != number {
					t.Errorf("request %s has the response of %q", number, res.Header.Get("X-Seen"))
				}
			})
		}
		wg.Wait()
	})
}

// upstream 73: the server's limit for reading a header holds for clients of h2c
// that never say what they want.
func TestSilentH2CClient(t *testing.T) {
	for name, said := range map[string]string{
		"nothing":           "",
		"part of a preface": h2Preface[:10],
		"no settings":       h2Preface,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memnet.Serve(t, memnet.H2C, &http.Server{
					ReadHeaderTimeout: 5 * time.Second,
					Handler: newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
						return response(200, "ok"), nil
					})}),
				})
				c, err := s.Listener.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, said)
				start := time.Now()
				c.SetReadDeadline(start.Add(time.Hour))
				io.Copy(io.Discard, c)
				if d := time.Since(start); d > time.Minute {
					t.Errorf("closed after %v", d)
				}
			})
		})
	}
}
