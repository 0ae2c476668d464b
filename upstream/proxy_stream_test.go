package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// upstream: events, gRPC and responses of unknown length pass piece by piece,
// and so does their head before the first of them.
func TestStreaming(t *testing.T) {
	for name, contentType := range map[string]string{
		"events": "Text/Event-Stream; charset=utf-8", "unknown length": "text/plain", "grpc": "application/grpc+proto",
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				s := overHTTP(t, p, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", contentType)
					http.NewResponseController(w).Flush()
					for i := range 4 {
						time.Sleep(time.Minute)
						fmt.Fprintf(w, "data: %d\n", i)
						http.NewResponseController(w).Flush()
					}
				})
				start := time.Now()
				req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if d := time.Since(start); d > 10*time.Millisecond {
					t.Errorf("the head came after %v", d)
				}
				br := bufio.NewReader(res.Body)
				for i := range 4 {
					line, err := br.ReadString('\n')
					if want := fmt.Sprintf("data: %d\n", i); line != want || err != nil || time.Since(start) > time.Duration(i+1)*time.Minute {
						t.Errorf("got %q, %v after %v", line, err, time.Since(start))
					}
				}
				if rest, err := io.ReadAll(br); len(rest) != 0 || err != nil {
					t.Errorf("at the end %q, %v", rest, err)
				}
			})
		})
	}
}

// statusThenBody asks a Proxy whose back end answers with a gRPC status in the head
// and with body.
func statusThenBody(t *testing.T, p memnet.Proto, interval time.Duration, length int64, body io.ReadCloser) *http.Response {
	t.Helper()
	proxy := newProxy(t, upstream.ProxyConfig{
		Target: "http://b", FlushInterval: interval,
		Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Header = http.Header{"Content-Type": {"application/grpc+proto"}, "Grpc-Status": {"5"}}
			res.Body, res.ContentLength = body, length
			return res, nil
		}),
	})
	s := memnet.Serve(t, p, &http.Server{Handler: proxy})
	res, err := s.Client.Post(s.URL, "application/grpc+proto", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// gRPC's clients want a status that is in the head of a response and the end of the
// stream in one frame, so the head waits for the end, however long it takes.
func TestGRPCStatusInHead(t *testing.T) {
	for _, interval := range []time.Duration{0, -1, time.Second} {
		for _, length := range []int64{0, -1} { // of HTTP/2 and of HTTP/3, whose end is not seen with the head
			inBubbles(t, []memnet.Proto{memnet.HTTP2, memnet.H2C}, func(t *testing.T, p memnet.Proto) {
				pr, pw := io.Pipe()
				start := time.Now()
				time.AfterFunc(time.Minute, func() { pw.Close() })
				res := statusThenBody(t, p, interval, length, pr)
				if d := time.Since(start); d < time.Minute || res.ContentLength != 0 || res.Header.Get("Grpc-Status") != "5" {
					t.Errorf("interval %v, length %d: after %v %v, length %d", interval, length, d, res.Header, res.ContentLength)
				}
				if b, err := io.ReadAll(res.Body); len(b) != 0 || err != nil {
					t.Errorf("interval %v, length %d: body %q, %v", interval, length, b, err)
				}
			})
		}
	}
}

// A back end that sends a status in the head and a body nevertheless has that body
// passed on piece by piece.
func TestGRPCStatusBeforeBody(t *testing.T) {
	for _, interval := range []time.Duration{0, -1, time.Second} {
		for _, length := range []int64{3, -1} {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				pr, pw := io.Pipe()
				start := time.Now()
				go func() {
					for range 3 {
						time.Sleep(time.Minute)
						io.WriteString(pw, "x")
					}
					pw.Close()
				}()
				res := statusThenBody(t, p, interval, length, pr)
				b := make([]byte, 1)
				for i := range 3 {
					_, err := io.ReadFull(res.Body, b)
					if d := time.Since(start); err != nil || d >= time.Duration(i+1)*time.Minute+time.Second {
						t.Errorf("interval %v, length %d: piece %d after %v, %v", interval, length, i, d, err)
					}
				}
				if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
					t.Errorf("interval %v, length %d: at the end %q, %v", interval, length, rest, err)
				}
			})
		}
	}
}

// FlushInterval bounds the wait of a response of known length, negative flushes
// at each pause, and zero leaves it to the server.
func TestFlushInterval(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{
		0: 2 * time.Minute, -1: time.Minute, time.Second: time.Minute + time.Second,
	} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			s := overHTTP(t, p, upstream.ProxyConfig{FlushInterval: interval}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "6")
				for range 2 {
					time.Sleep(time.Minute)
					io.WriteString(w, "abc")
					http.NewResponseController(w).Flush()
				}
			})
			start := time.Now()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
			res, err := s.Transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			io.ReadFull(res.Body, make([]byte, 3))
			if d := time.Since(start).Round(100 * time.Millisecond); d != want {
				t.Errorf("interval %v: three bytes after %v, want %v", interval, d, want)
			}
			io.Copy(io.Discard, res.Body)
		})
	}
}

// A body that fills the buffer to the last byte and then pauses is not held back.
func TestFullBufferThenPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 48 << 10
		pr, pw := io.Pipe()
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "")
			res.Body, res.ContentLength = pr, -1
			return res, nil
		})})
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: p})
		go pw.Write(bytes.Repeat([]byte("x"), size))
		start := time.Now()
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.ReadFull(res.Body, make([]byte, size))
		if n != size || err != nil || time.Since(start) > 10*time.Millisecond {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(start))
		}
		pw.Close()
		res.Body.Close()
	})
}

// upstream 47: trailers come through as trailers, announced or not, in both
// directions, and those that would act as header fields do not.
func TestTrailers(t *testing.T) {
	for _, pair := range [][2]memnet.Proto{{memnet.HTTP1, memnet.HTTP1}, {memnet.HTTP2, memnet.HTTP2}, {memnet.H2C, memnet.H2C},
		{memnet.HTTP1, memnet.HTTP2}, {memnet.HTTP2, memnet.HTTP1}} {
		for _, path := range []string{"/announced", "/unannounced", "/both", "/empty", "/length"} {
			t.Run(pair[0].String()+" to "+pair[1].String()+path, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testTrailers(t, pair[0], pair[1], path) })
			})
		}
	}
}

func testTrailers(t *testing.T, front, back memnet.Proto, path string) {
	var got http.Header
	s := frontOf(t, front, back, upstream.ProxyConfig{Protect: []string{"X-User", "X-Acme-*"}}, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		got = r.Trailer
		h := w.Header()
		if path != "/unannounced" {
			h["Trailer"] = []string{"X-One", "Authorization"}
		}
		if path == "/length" && back != memnet.HTTP1 {
			h.Set("Content-Length", "4")
		}
		if path != "/empty" {
			io.WriteString(w, "body")
		}
		if path != "/length" {
			http.NewResponseController(w).Flush()
		}
		if path == "/unannounced" {
			h.Set(http.TrailerPrefix+"X-One", "1")
		} else {
			h.Set("X-One", "1")
		}
		if path == "/both" {
			h.Set(http.TrailerPrefix+"X-Two", "2")
		}
		h.Set("Authorization", "secret")
	})
	req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+path, io.MultiReader(strings.NewReader("call")))
	// upstream 37, 40, 41: nor can a trailer say who the client is.
	req.Trailer = http.Header{"X-Sum": {"42"}, "X_plain": {"43"}, "X-Forwarded-For": {"192.0.2.1"}, "X-User": {"admin"}, "X-Acme-Role": {"admin"},
		"X_user": {"admin"}, "X_forwarded_for": {"192.0.2.1"}, "X_auth_user": {"admin"}, "X_beside": {"admin"}}
	req.Header.Set("X-Beside", "user")
	req.Header.Set("Te", "trailers")
	res, err := s.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if want := map[bool]string{true: "", false: "body"}[path == "/empty"]; string(body) != want || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
	want := http.Header{"X-One": {"1"}}
	if path == "/both" {
		want["X-Two"] = []string{"2"}
	}
	for name, v := range want {
		if !slices.Equal(res.Trailer[name], v) || res.Header[name] != nil {
			t.Errorf("trailer %s: %q, header %q", name, res.Trailer[name], res.Header[name])
		}
	}
	if res.Trailer.Get("Authorization") != "" {
		t.Errorf("trailer %v", res.Trailer)
	}
	if sent := (http.Header{"X-Sum": {"42"}, "X_plain": {"43"}}); !maps.EqualFunc(got, sent, slices.Equal) {
		t.Errorf("the back end got the trailer %v", got)
	}
}

// The trailers that a layer outside announces are sent as well, and one that the
// back end announces too is sent once.
func TestTrailersOfOuterLayer(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		h := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "body")
			res.ContentLength, res.Trailer = -1, http.Header{"X-Back": {"1"}, "X-Both": {"2"}}
			return res, nil
		})})
		s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Outer, X-Both")
			h.ServeHTTP(w, r)
			w.Header().Set("X-Outer", "3")
		})})
		res, err := s.Client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body)
		if want := (http.Header{"X-Back": {"1"}, "X-Both": {"2"}, "X-Outer": {"3"}}); !maps.EqualFunc(res.Trailer, want, slices.Equal) {
			t.Errorf("trailer %v", res.Trailer)
		}
	})
}

// A conversation in both directions at once, which HTTP/2 is for and HTTP/1.1
// allows.
func TestBidirectional(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := overHTTP(t, p, upstream.ProxyConfig{}, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			rc.Flush()
			br := bufio.NewReader(r.Body)
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "echo "+line)
				rc.Flush()
			}
		})
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for i := range 3 {
			time.Sleep(time.Second)
			fmt.Fprintf(pw, "%d\n", i)
			if line, err := br.ReadString('\n'); line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("got %q, %v", line, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(br); len(rest) != 0 || err != nil {
			t.Errorf("at the end %q, %v", rest, err)
		}
	})
}

// upstream 60: what has no body has none, whatever the fields say.
func TestBodyless(t *testing.T) {
	for _, test := range []struct{ method, response string }{
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"},
		{"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 100\r\n\r\n"},
		{"GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: \"x\"\r\n\r\n"},
	} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			b := newRawBack(t, func(c *rawConn) {
				for c.request() != nil {
					c.send(test.response)
				}
			})
			s := serveProxy(t, p, b, upstream.ProxyConfig{})
			for range 2 {
				req, _ := http.NewRequestWithContext(t.Context(), test.method, s.URL, nil)
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if len(body) != 0 || err != nil || res.StatusCode == 502 {
					t.Errorf("%s, %q: status %d, %q, %v", test.method, test.response, res.StatusCode, body, err)
				}
				if cl := res.Header.Get("Content-Length"); test.method == "GET" && cl != "" || strings.Contains(test.response, "chunked") && cl != "" {
					t.Errorf("%q: Content-Length %q", test.response, cl)
				}
			}
			if n := b.connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// upstream 61, 62, 66: the client gets one framing, that which was understood.
func TestResponseFraming(t *testing.T) {
	for name, test := range map[string]struct {
		response string
		status   int
		body     string
	}{
		"61 TE and CL":     {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"},
		"62 no number":     {"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", 502, ""},
		"62 sign":          {"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", 502, ""},
		"62 different":     {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502, ""},
		"66 equal":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"unknown coding":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok", 502, ""},
		"not HTTP":         {"SSH-2.0-OpenSSH\r\n\r\n", 502, ""},
		"status 99":        {"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok", 502, ""},
		"status 999":       {"HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\nok", 999, "ok"},
		"read to the end":  {"HTTP/1.1 200 OK\r\n\r\nok", 200, "ok"},
		"HTTP/1.0":         {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"nothing":          {"", 502, ""},
		"half a head":      {"HTTP/1.1 200 OK\r\nContent-", 502, ""},
		"colon in no name": {"HTTP/1.1 200 OK\r\n: x\r\n\r\n", 502, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				b := newRawBack(t, func(c *rawConn) {
					c.request()
					c.send(test.response)
				})
				s := serveProxy(t, p, b, upstream.ProxyConfig{})
				res, body := get(t, s, "/")
				if res.StatusCode != test.status || test.status != 502 && body != test.body {
					t.Errorf("status %d, %q", res.StatusCode, body)
				}
				if v := res.Header["Content-Length"]; len(v) > 1 || res.ContentLength >= 0 && res.ContentLength != int64(len(body)) {
					t.Errorf("Content-Length %q for %d bytes", v, len(body))
				}
			})
		})
	}
	// A Transport that leaves nonsense in the field.
	for _, values := range [][]string{{"5", "5"}, {"x"}, {"3"}, {""}, {"+2"}} {
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "ok")
			res.Header["Content-Length"] = values
			return res, nil
		})})
		if w := serve(p, request("GET", "/", nil)); !slices.Equal(w.Header()["Content-Length"], []string{"2"}) {
			t.Errorf("%q became %q", values, w.Header()["Content-Length"])
		}
	}
}

// upstream 63: a body that is cut short never looks whole.
func TestBodyCutShort(t *testing.T) {
	for name, response := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
		"chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"bad":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				b := newRawBack(t, func(c *rawConn) {
					c.request()
					c.send(response)
				})
				var rec upstream.Record
				s := serveProxy(t, p, b, upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})
				req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				if res, err := s.Transport.RoundTrip(req); err == nil {
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err == nil {
						t.Errorf("the client takes %q for whole", body)
					}
				}
				synctest.Wait()
				if e, ok := errors.AsType[*upstream.Error](rec.Err); !ok || e.Kind != upstream.KindBodyAborted || rec.Status != 200 {
					t.Errorf("record %+v", rec)
				}
			})
		})
	}
}

// upstream 64: an answer before the end of the upload reaches the client at
// once, although the client goes on sending, or has stopped in the middle.
func TestProxyEarlyResponse(t *testing.T) {
	const early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send(early)
			time.Sleep(time.Second)
		})
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		pr, pw := io.Pipe()
		start := time.Now()
		go pw.Write([]byte("a little"))
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, pr)
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 413 || string(body) != "big" || time.Since(start) > 100*time.Millisecond {
			t.Errorf("status %d, %q after %v", res.StatusCode, body, time.Since(start))
		}
		pw.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send(early)
			io.Copy(io.Discard, c)
		})
		s := serveProxy(t, memnet.HTTP1, b, upstream.ProxyConfig{})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\na little")
		all, err := io.ReadAll(c) // the client stalls, and waits for the end
		if statusOf(string(all)) != 413 || err != nil || time.Since(start) > 6*time.Second {
			t.Errorf("got %q, %v after %v", all, err, time.Since(start))
		}
	})
}

// upstream 65: a client that goes away ends the request at the back end, and is
// not the back end's fault.
func TestClientGone(t *testing.T) {
	for _, begun := range []bool{false, true} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			var left time.Time
			var rec upstream.Record
			var wg sync.WaitGroup
			wg.Add(1)
			s := overHTTP(t, p, upstream.ProxyConfig{Done: func(_ *http.Request, r *upstream.Record) { rec = *r; wg.Done() }},
				func(w http.ResponseWriter, r *http.Request) {
					if begun {
						http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
					left = time.Now()
				})
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			if res, err := s.Transport.RoundTrip(req); err == nil {
				io.ReadAll(res.Body)
				res.Body.Close()
			}
			wg.Wait()
			synctest.Wait()
			if d := left.Sub(start); d < time.Second || d > 1100*time.Millisecond {
				t.Errorf("the back end hears of it after %v", d)
			}
			if e, ok := errors.AsType[*upstream.Error](rec.Err); !ok || e.Kind != upstream.KindClientGone || e.Kind.BackendFault() {
				t.Errorf("record %+v", rec)
			}
			if want := map[bool]int{false: 499, true: 200}[begun]; rec.Status != want {
				t.Errorf("status %d, want %d", rec.Status, want)
			}
		})
	}
}

// upstream 85, 87: a client that does not read holds up the back end, and what
// is kept for it in between does not grow.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := 0
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
			res := response(200, "")
			res.ContentLength = 100 << 20
			res.Body = io.NopCloser(readerFunc(func(b []byte) (int, error) {
				read += len(b)
				return len(b), nil
			}))
			return res, nil
		})})
		l := memnet.Config{Buffer: 4096}.Listen()
		s := l.Serve(t, memnet.HTTP1, &http.Server{Handler: p})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(time.Minute)
		synctest.Wait()
		if read == 0 || read > 2*48<<10 {
			t.Errorf("%d bytes were taken from the back end", read)
		}
		c.Close()
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// upstream 82: a body that is too large does not reach a back end, or not in
// whole.
func TestMaxBody(t *testing.T) {
	cfg := upstream.ProxyConfig{MaxBody: 1000}
	for name, test := range map[string]struct {
		size    int
		chunked bool
		status  int
		dials   int
	}{
		"length":            {1001, false, 413, 0},
		"length at limit":   {1000, false, 200, 1},
		"chunked":           {5000, true, 413, 1},
		"chunked at limit":  {1000, true, 200, 1},
		"chunked much more": {1 << 20, true, 413, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
				whole := 0
				b := newRawBack(t, func(c *rawConn) {
					for {
						r, err := http.ReadRequest(c.r)
						if err != nil {
							return
						}
						if n, err := io.Copy(io.Discard, r.Body); err != nil || n > 1000 {
							return
						}
						whole++
						c.send(okResponse)
					}
				})
				s := serveProxy(t, p, b, cfg)
				var body io.Reader = strings.NewReader(strings.Repeat("x", test.size))
				if test.chunked {
					body = io.MultiReader(body)
				}
				req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, body)
				res, err := s.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != test.status || test.status == 413 && !bytes.Contains(text, []byte("upstream_too_large")) {
					t.Errorf("status %d, %s", res.StatusCode, text)
				}
				synctest.Wait()
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.dials != test.dials || whole != map[bool]int{true: 1, false: 0}[test.status == 200] {
					t.Errorf("%d dials, %d whole requests", b.dials, whole)
				}
			})
		})
	}
}

// A body limit of a layer outside is 413 as well.
func TestOuterBodyLimit(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		h := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		s := memnet.Serve(t, p, &http.Server{Handler: http.MaxBytesHandler(h, 10)})
		res, err := s.Client.Post(s.URL, "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 100))))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 413 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}

// A response that is too large is refused, or broken off.
func TestMaxResponse(t *testing.T) {
	cfg := upstream.ProxyConfig{MaxResponse: 1000}
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		s := overHTTP(t, p, cfg, func(w http.ResponseWriter, r *http.Request) {
			size := 1001
			if strings.HasPrefix(r.URL.Path, "/fits") {
				size = 1000
			}
			if strings.HasSuffix(r.URL.Path, "length") || r.Method == "HEAD" {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			} else {
				http.NewResponseController(w).Flush()
			}
			io.WriteString(w, strings.Repeat("x", size))
		})
		for _, path := range []string{"/fits", "/fits/length"} {
			if res, body := get(t, s, path); res.StatusCode != 200 || len(body) != 1000 {
				t.Errorf("%s: status %d, %d bytes", path, res.StatusCode, len(body))
			}
		}
		if res, _ := get(t, s, "/length"); res.StatusCode != 502 {
			t.Errorf("status %d", res.StatusCode)
		}
		if res, err := s.Client.Head(s.URL + "/length"); err != nil || res.StatusCode != 200 || res.ContentLength != 1001 {
			t.Errorf("HEAD: %v, %v", res, err)
		}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/chunked", nil)
		res, err := s.Transport.RoundTrip(req)
		if err != nil {
			return // it was broken off before the head was sent
		}
		defer res.Body.Close()
		if n, err := io.Copy(io.Discard, res.Body); n > 1000 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// A hook may make a body longer, and its length too, but not than MaxResponse,
// whatever it is that writes it.
func TestMaxResponseOfHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b", MaxResponse: 1000,
			ModifyResponse: func(res *http.Response) error {
				res.Body, res.ContentLength = &inParts{[]writeAt{{1500, 0}, {500, time.Hour}}, io.EOF}, 2000
				res.Header.Set("Content-Length", "2000")
				return nil
			},
			Transport: tripperFunc(func(*http.Request) (*http.Response, error) { return response(200, "short"), nil })})
		w := &writeLog{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
		defer func() {
			if v := recover(); v != http.ErrAbortHandler || len(w.writes) != 0 {
				t.Errorf("panic %v, writes %v", v, w.writes)
			}
		}()
		p.ServeHTTP(w, request("GET", "/", nil))
	})
}

// A body that does not fit the head is a hook's mistake, or that of a layer
// outside. It is logged, and not taken for a client that has left; nor does it
// count against the back end.
func TestBodyDoesNotFitHead(t *testing.T) {
	longer := func(res *http.Response) error {
		res.Body = io.NopCloser(strings.NewReader(strings.Repeat("longer", 20000)))
		return nil
	}
	status := func(h http.Handler, code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(statusWriter{w, code}, r) })
	}
	for name, test := range map[string]struct {
		modify   func(*http.Response) error
		interval time.Duration
		code     int
	}{
		"length": {longer, 0, 200}, "length, flushed": {longer, -1, 200}, "no body": {nil, 0, 304},
	} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			n := newLAN(t)
			n.add("a", func(_ *origin, _ int, c *memnet.Conn) {
				br := bufio.NewReader(c)
				if _, err := http.ReadRequest(br); err == nil {
					io.WriteString(c, okAnswer)
				}
				io.Copy(io.Discard, br)
			})
			pool := n.pool(upstream.Config{}, "a")
			var log bytes.Buffer
			var rec upstream.Record
			h := newProxy(t, upstream.ProxyConfig{Transport: pool, ModifyResponse: test.modify, FlushInterval: test.interval,
				Logger: slog.New(slog.NewTextHandler(&log, nil)), Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})
			s := memnet.Serve(t, p, &http.Server{Handler: status(h, test.code)})
			req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
			if res, err := s.Transport.RoundTrip(req); err == nil {
				if test.modify != nil {
					if body, err := io.ReadAll(res.Body); err == nil {
						t.Errorf("%s: the client got %d bytes", name, len(body))
					}
				}
				res.Body.Close()
			}
			synctest.Wait()
			if e, _ := errors.AsType[*upstream.Error](rec.Err); e == nil || e.Kind != upstream.KindBadResponse || e.Backend != "a" {
				t.Errorf("%s: recorded %v", name, rec.Err)
			}
			if strings.Count(log.String(), "response broken off") != 1 {
				t.Errorf("%s: logged %q", name, &log)
			}
			for st := range pool.Backends() {
				if st.Failed() != 0 {
					t.Errorf("%s: the back end has failed %d times", name, st.Failed())
				}
			}
		})
	}
}

// statusWriter answers with another status than it is told.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w statusWriter) WriteHeader(int)             { w.ResponseWriter.WriteHeader(w.code) }
func (w statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A writer with a FlushError that finds nothing to flush below it is one that
// cannot flush, and not a client that has left.
func TestFlushNotSupported(t *testing.T) {
	p := newProxy(t, upstream.ProxyConfig{Target: "http://b", Transport: tripperFunc(func(*http.Request) (*http.Response, error) {
		res := response(200, "")
		res.Body, res.ContentLength = &inParts{[]writeAt{{3, 0}, {2, 0}}, io.EOF}, -1
		return res, nil
	})})
	w := httptest.NewRecorder()
	p.ServeHTTP(flushForwarder{struct{ http.ResponseWriter }{w}}, request("GET", "/", nil))
	if w.Code != 200 || w.Body.String() != "xxxxx" {
		t.Errorf("status %d, %q", w.Code, w.Body)
	}
	// Other errors are not passed over, where the method is found by Unwrap too.
	for name, w := range map[string]http.ResponseWriter{"itself": failingFlush{w}, "below": unwrapper{failingFlush{w}}} {
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%s: panic %v", name, v)
				}
			}()
			p.ServeHTTP(w, request("GET", "/", nil))
		}()
	}
}

// flushForwarder flushes what is below it, if that can.
type flushForwarder struct{ http.ResponseWriter }

func (w flushForwarder) FlushError() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

type failingFlush struct{ http.ResponseWriter }

func (failingFlush) FlushError() error { return io.ErrClosedPipe }

// A status that cannot be that of a final response is that of a back end, by name.
func TestBadStatusNamesBackend(t *testing.T) {
	for name, cfg := range map[string]struct {
		answer string
		modify func(*http.Response) error
	}{
		"back end's": {"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", nil},
		"hook's":     {okAnswer, func(res *http.Response) error { res.StatusCode = 1000; return nil }},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", func(_ *origin, _ int, c *memnet.Conn) {
				br := bufio.NewReader(c)
				if _, err := http.ReadRequest(br); err == nil {
					io.WriteString(c, cfg.answer)
				}
				io.Copy(io.Discard, br)
			})
			var rec upstream.Record
			w := serve(newProxy(t, upstream.ProxyConfig{Transport: n.pool(upstream.Config{}, "a"), ModifyResponse: cfg.modify,
				Done: func(_ *http.Request, r *upstream.Record) { rec = *r }}), request("GET", "/", nil))
			if e, _ := errors.AsType[*upstream.Error](rec.Err); w.Code != 502 || e == nil || e.Kind != upstream.KindBadResponse || e.Backend != "a" {
				t.Errorf("%s: status %d, %v", name, w.Code, rec.Err)
			}
		})
	}
}
