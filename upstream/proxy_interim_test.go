package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// interim makes a request and returns the informational responses before the
// final one.
func interim(t *testing.T, s *memnet.Server, body io.Reader, header ...string) (seen []string, res *http.Response) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		seen = append(seen, fmt.Sprint(code, " ", h.Get("Link"), h.Get("X-Request-Id"), h.Get("Connection")))
		return nil
	}})
	method := "GET"
	if body != nil {
		method = "POST"
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if res, err = s.Transport.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return seen, res
}

// upstream 34: informational responses pass, with their own fields and no
// others, and what stood in the header before is in the final response.
func TestInterim(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+okResponse))
		h := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "ours")
			h.ServeHTTP(w, r)
		})})
		seen, res := interim(t, s, nil)
		if !slices.Equal(seen, []string{"103 </a>", "102 "}) {
			t.Errorf("got %q", seen)
		}
		if res.StatusCode != 200 || res.Header.Get("X-Request-Id") != "ours" || res.Header.Get("Link") != "" {
			t.Errorf("status %d, %v", res.StatusCode, res.Header)
		}
	})
}

// upstream 34: five are passed on, a sixth is an error, and a client of HTTP/1.0
// sees none.
func TestInterimLimit(t *testing.T) {
	hints := func(n int) string { return strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", n) }
	for _, test := range []struct{ limit, sent, status, seen int }{
		{0, 5, 200, 5}, {0, 6, 502, 5}, {2, 2, 200, 2}, {2, 3, 502, 2}, {-1, 20, 200, 0},
	} {
		inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
			b := newRawBack(t, answers(hints(test.sent)+okResponse))
			var rec upstream.Record
			s := serveProxy(t, p, b, upstream.ProxyConfig{MaxInterim: test.limit, Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})
			seen, res := interim(t, s, nil)
			if res.StatusCode != test.status || len(seen) != test.seen {
				t.Errorf("limit %d, %d sent: status %d, seen %q", test.limit, test.sent, res.StatusCode, seen)
			}
			if e, _ := errors.AsType[*upstream.Error](rec.Err); test.status == 502 && (e == nil || e.Kind != upstream.KindBadResponse) {
				t.Errorf("record %+v", rec)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := serveProxy(t, memnet.HTTP1, newRawBack(t, answers(hints(3)+okResponse)), upstream.ProxyConfig{})
		if got := talk(t, s, "GET / HTTP/1.0\r\n\r\n"); statusOf(got) != 200 || strings.Count(got, "HTTP/1.") != 1 { // the random name in Via can hold 103
			t.Errorf("got %q", got)
		}
	})
}

// upstream 28: over HTTP/2 a 101 comes as if it were informational, and must not
// reach a client of HTTP/1, to which it would be the end of HTTP.
func TestInterimSwitching(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		tripper := tripperFunc(func(r *http.Request) (*http.Response, error) {
			err := httptrace.ContextClientTrace(r.Context()).Got1xxResponse(101, textproto.MIMEHeader{"Upgrade": {"websocket"}})
			if err == nil {
				return response(200, "ok"), nil
			}
			return nil, err
		})
		s := memnet.Serve(t, p, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: tripper, Target: "http://b"})})
		if res, body := get(t, s, "/"); res.StatusCode != 502 || !strings.Contains(body, "upstream_upgrade") {
			t.Errorf("status %d, %s", res.StatusCode, body)
		}
	})
}

// upstream 31: a client that waits for 100 gets it when the back end says so, and
// a final answer in its place leaves nothing half sent. The server of HTTP/2 takes
// Expect out of the request, so that no handler can pass it on.
func TestContinue(t *testing.T) {
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, func(c *rawConn) {
			if head := c.head(); !strings.Contains(head, "Expect: 100-continue\r\n") {
				t.Errorf("the back end got %q", head)
			}
			time.Sleep(500 * time.Millisecond)
			c.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n")
			io.ReadFull(c.r, make([]byte, 4))
			c.send(okResponse)
		})
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		c, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		io.WriteString(c, "body")
		got := hear(c)
		if strings.Count(got, "HTTP/1.1 100 Continue\r\n") != 1 || strings.Count(got, "HTTP/1.1 103 ") != 2 || !strings.HasSuffix(got, "\r\n\r\nok") {
			t.Errorf("got %q after %v", got, time.Since(start))
		}
	})
	inBubbles(t, []memnet.Proto{memnet.HTTP1}, func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			if rest, _ := io.ReadAll(c.r); len(rest) != 0 {
				t.Errorf("the back end got a body: %q", rest)
			}
		})
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		s.Transport.ExpectContinueTimeout = time.Minute
		_, res := interim(t, s, strings.NewReader("body"), "Expect", "100-continue")
		if res.StatusCode != 401 {
			t.Errorf("status %d", res.StatusCode)
		}
		synctest.Wait()
		if b.connections() != 0 {
			t.Error("the connection is still open")
		}
	})
}

// upstream 31, 33: a back end that ignores Expect gets the body after a while,
// and the client is told to send it.
func TestContinueIgnored(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		s.Transport.ExpectContinueTimeout = time.Minute
		start := time.Now()
		_, res := interim(t, s, strings.NewReader("body"), "Expect", "100-continue")
		if res.StatusCode != 200 || !strings.HasSuffix(b.one(t), "body") || time.Since(start) > 2*time.Second {
			t.Errorf("status %d after %v, %q", res.StatusCode, time.Since(start), b.all())
		}
	})
}

// upstream 32: other expectations are 417, also where the server lets them pass.
func TestExpectation(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, answers(okResponse))
		s := serveProxy(t, p, b, upstream.ProxyConfig{})
		if res, _ := get(t, s, "/", "Expect", "200-ok"); res.StatusCode != 417 || len(b.all()) != 0 {
			t.Errorf("status %d, %q", res.StatusCode, b.all())
		}
		// Without a body there is nothing to wait with.
		if res, _ := get(t, s, "/", "Expect", "100-continue"); res.StatusCode != 200 || strings.Contains(b.one(t), "Expect") {
			t.Errorf("status %d, %q", res.StatusCode, b.all())
		}
	})
}

// A writer that panics on an informational response does so in the goroutine
// that serves the request, where the server recovers from it.
func TestInterimPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRawBack(t, answers("HTTP/1.1 103 Early Hints\r\n\r\n"+okResponse))
		p := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://backend.test"})
		var got any
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { got = recover() }()
			p.ServeHTTP(panicWriter{w}, r)
		})})
		get(t, s, "/")
		if got != "103" {
			t.Errorf("recovered %v", got)
		}
	})
}

type panicWriter struct{ http.ResponseWriter }

func (w panicWriter) WriteHeader(code int) {
	if code == 103 {
		panic("103")
	}
	w.ResponseWriter.WriteHeader(code)
}

// hinting answers every request with informational responses, and a second
// later with answer.
func hinting(hints int, hint, answer string) func(*origin, int, *memnet.Conn) {
	return func(o *origin, _ int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		for {
			if _, _, err := o.read(br); err != nil {
				return
			}
			io.WriteString(c, strings.Repeat("HTTP/1.1 "+hint+"\r\n\r\n", hints))
			time.Sleep(time.Second)
			io.WriteString(c, answer)
		}
	}
}

// upstream 34: the limit is one of attempts, and a back end is not blamed for
// what the one before it or beside it has sent. The client gets as many as one may
// send.
func TestInterimAttempts(t *testing.T) {
	const busy = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
	const hint, goOn = "103 Early Hints", "100 Continue" // which the client does not see
	for name, test := range map[string]struct {
		retry        upstream.Retry
		a, b         int // informational responses
		hint, first  string
		status, seen int
		failed       map[string]uint64
	}{
		"one after the other": {upstream.Retry{Statuses: []int{503}}, 3, 3, goOn, busy, 200, 3, map[string]uint64{}},
		"both at the limit":   {upstream.Retry{Statuses: []int{503}}, 5, 5, goOn, busy, 200, 5, map[string]uint64{}},
		"the second too many": {upstream.Retry{Statuses: []int{503}}, 3, 6, goOn, busy, 502, 5, map[string]uint64{"b": 1}},
		"at the same time":    {upstream.Retry{Hedge: 50 * time.Millisecond}, 3, 3, goOn, okAnswer, 200, 3, map[string]uint64{}},
		"one of two too many": {upstream.Retry{Hedge: 50 * time.Millisecond}, 3, 9, goOn, okAnswer, 200, 5, map[string]uint64{"b": 1}},
		"begun for a retry":   {upstream.Retry{Statuses: []int{503}}, 3, 3, hint, busy, 503, 3, map[string]uint64{}},
		"begun for a hedge":   {upstream.Retry{Hedge: 50 * time.Millisecond}, 3, 3, hint, okAnswer, 200, 3, map[string]uint64{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", hinting(test.a, test.hint, test.first))
				n.add("b", hinting(test.b, hint, okAnswer))
				test.retry.Budget = -1
				pool := n.pool(upstream.Config{Picker: inOrder{}, Retry: test.retry}, "a", "b")
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: pool})})
				seen, res := interim(t, s, nil)
				if res.StatusCode != test.status || len(seen) != test.seen {
					t.Errorf("status %d, seen %q", res.StatusCode, seen)
				}
				for st := range pool.Backends() {
					if got := st.Failed(); got != test.failed[st.Target.ID] {
						t.Errorf("%s has failed %d times, want %d", st.Target.ID, got, test.failed[st.Target.ID])
					}
				}
			})
		})
	}
}

// upstream 34: two attempts that are both under way when the first hint comes
// pass on no more than one of them may.
func TestInterimOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(_ *origin, _ int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err == nil {
				time.Sleep(time.Second)
				io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 3))
				time.Sleep(time.Second)
				io.WriteString(c, okAnswer)
			}
			io.Copy(io.Discard, br)
		}
		n := newLAN(t)
		n.add("a", slow)
		n.add("b", slow)
		pool := n.pool(upstream.Config{Picker: inOrder{}, Retry: upstream.Retry{Hedge: 50 * time.Millisecond, Budget: -1}}, "a", "b")
		var rec upstream.Record
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: newProxy(t, upstream.ProxyConfig{Transport: pool,
			Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})})
		if seen, res := interim(t, s, nil); res.StatusCode != 200 || len(seen) != 5 {
			t.Errorf("status %d, seen %q", res.StatusCode, seen)
		}
		if rec.Attempts != 2 || rec.Interim != 6 {
			t.Errorf("record %+v", rec)
		}
	})
}

// upstream 34: what the first attempt was refused for, by a tripper that goes on
// all the same, says nothing about the answer of the next.
func TestInterimRefusedBeforeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("a", hinting(0, "", okAnswer))
		n.add("b", hinting(0, "", okAnswer))
		stubborn := tripperFunc(func(r *http.Request) (*http.Response, error) {
			var err error
			for range 6 {
				err = httptrace.ContextClientTrace(r.Context()).Got1xxResponse(100, nil)
			}
			if err == nil {
				t.Error("the sixth is not refused")
			}
			return response(503, ""), nil
		})
		pool := n.pool(upstream.Config{Picker: inOrder{}, Retry: upstream.Retry{Statuses: []int{503}, Budget: -1},
			Wrap: func(target upstream.Target, base http.RoundTripper) (http.RoundTripper, error) {
				if target.ID == "a" {
					return stubborn, nil
				}
				return base, nil
			}}, "a", "b")
		w := serve(newProxy(t, upstream.ProxyConfig{Transport: pool}), request("GET", "/", nil))
		if w.Code != 200 {
			t.Errorf("status %d, %s", w.Code, w.Body)
		}
		synctest.Wait()
	})
}

// Contexts that are made so that an exchange can be ended do not outlive it, and
// neither does the one that a hook has put another in place of.
func TestInterimContextsEnd(t *testing.T) {
	traced := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil }})
	for _, replace := range []bool{false, true} {
		var shown, sent context.Context
		p := newProxy(t, upstream.ProxyConfig{Target: "http://b",
			Rewrite: func(pr *httputil.ProxyRequest) {
				if shown = pr.Out.Context(); replace {
					pr.Out = pr.Out.WithContext(traced)
				}
			},
			Transport: tripperFunc(func(r *http.Request) (*http.Response, error) {
				if sent = r.Context(); sent.Err() != nil {
					t.Error("the request is over before it is sent")
				}
				return response(200, ""), nil
			})})
		serve(p, request("GET", "/", nil).WithContext(traced))
		if shown.Err() == nil || sent.Err() == nil {
			t.Errorf("replaced %v: %v and %v", replace, shown.Err(), sent.Err())
		}
	}
}

// inOrder picks the first target that the request has not been sent to.
type inOrder struct{}

func (inOrder) Build(s upstream.Snapshot) upstream.PickFunc {
	return func(p *upstream.Pick) int {
		for i := range s.Peers {
			if !p.Tried(i) {
				return i
			}
		}
		return -1
	}
}

// upstream 28, 34: of the hooks in a context net/http heeds the error of the
// outermost, and the limits hold all the same. The exchange ends there, and does
// not wait for a back end that sends nothing else.
func TestInterimOuterTrace(t *testing.T) {
	inBubbles(t, memnet.Protos(), func(t *testing.T, p memnet.Proto) {
		b := newRawBack(t, func(c *rawConn) {
			c.head()
			c.send(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20))
			io.Copy(io.Discard, c)
		})
		late := tripperFunc(func(r *http.Request) (*http.Response, error) {
			hook := httptrace.ContextClientTrace(r.Context()).Got1xxResponse
			for range 20 {
				if err := hook(103, nil); err != nil {
					return nil, err
				}
			}
			return response(200, "ok"), nil
		})
		switching := tripperFunc(func(r *http.Request) (*http.Response, error) {
			if err := httptrace.ContextClientTrace(r.Context()).Got1xxResponse(101, textproto.MIMEHeader{}); err != nil {
				return nil, err
			}
			return response(200, "ok"), nil
		})
		for name, test := range map[string]struct {
			transport http.RoundTripper
			seen      int
			kind      upstream.Kind
		}{
			"endless": {b.transport, 5, upstream.KindBadResponse}, "answered": {late, 5, upstream.KindBadResponse}, "101": {switching, 0, upstream.KindUpgrade},
		} {
			var rec upstream.Record
			h := newProxy(t, upstream.ProxyConfig{Transport: test.transport, Target: "http://b", Done: func(_ *http.Request, r *upstream.Record) { rec = *r }})
			var outer atomic.Int32
			s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { outer.Add(1); return nil }})
				h.ServeHTTP(w, r.WithContext(ctx))
			})})
			seen, res := interim(t, s, nil)
			if e, _ := errors.AsType[*upstream.Error](rec.Err); res.StatusCode != 502 || len(seen) != test.seen || e == nil || e.Kind != test.kind {
				t.Errorf("%s: status %d, seen %q, %v", name, res.StatusCode, seen, rec.Err)
			}
			if outer.Load() == 0 {
				t.Errorf("%s: the outer hook has not been called", name)
			}
		}
	})
}
