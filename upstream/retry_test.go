package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// staleOnce answers the first request of its first connection, then reads the
// second and closes without an answer, as a server does whose idle time ends
// at that moment. Later connections are obliging.
func staleOnce(o *origin, n int, c *memnet.Conn) {
	if n > 1 {
		obligingFor(o, c, 1<<30)
		return
	}
	obligingFor(o, c, 1)
	o.read(bufio.NewReader(c))
}

// upstream 74: a POST whose bytes were written is sent once.
// upstream 75: a PUT on a stale pooled connection is sent again, once, on
// another connection.
func TestStaleConnection(t *testing.T) {
	for _, c := range []struct {
		method, header string
		again          bool
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true}, {"TRACE", "", true}, {"PUT", "", true}, {"DELETE", "", true},
		{"POST", "", false}, {"PATCH", "", false}, {"MKCOL", "", false},
		{"POST", "Idempotency-Key", true}, {"PATCH", "X-Idempotency-Key", true},
	} {
		t.Run(c.method+c.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				o := n.add("a", staleOnce)
				p := n.pool(upstream.Config{}, "a")
				mustSend(t, p, newRequest(t, "GET", "/first", ""))
				body := ""
				if c.method == "PUT" || c.method == "POST" {
					body = "some bytes"
				}
				req := newRequest(t, c.method, "/second", body)
				if c.header != "" {
					req.Header.Set(c.header, "k1")
				}
				status, _, _, err := send(p, req)
				want := []string{"GET /first", c.method + " /second"}
				if c.again {
					want = append(want, c.method+" /second")
					if err != nil || status != 200 {
						t.Errorf("got %d, %v, want 200", status, err)
					}
				} else {
					e := wantKind(t, err, upstream.KindNoResponse)
					if e.Backend != "a" || e.HTTPStatus() != 502 || e.Code() != "upstream_no_response" {
						t.Errorf("got %v, %d, %s", e, e.HTTPStatus(), e.Code())
					}
				}
				if got := o.requests(); !slices.Equal(got, want) {
					t.Errorf("the back end saw %q, want %q", got, want)
				}
			})
		})
	}
}

// upstream 76: a request that was sent again and failed is not sent a third
// time.
func TestFailedRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
			if k == 1 {
				obligingFor(o, c, 1)
			}
			o.read(bufio.NewReader(c))
		})
		p := n.pool(upstream.Config{Retry: upstream.Retry{Attempts: 2}}, "a")
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		_, _, _, err := send(p, newRequest(t, "PUT", "/x", "abc"))
		wantKind(t, err, upstream.KindNoResponse)
		if got := o.requests(); !slices.Equal(got, []string{"GET /", "PUT /x", "PUT /x"}) {
			t.Errorf("the back end saw %q", got)
		}
	})
}

// upstream 77: nothing is sent again once a byte of the response was there,
// whether it was an interim response, half a head or half a body.
func TestStartedIsNeverRepeated(t *testing.T) {
	for name, answer := range map[string]string{
		"half a status line": "HTTP/1.1 2",
		"half a head":        "HTTP/1.1 200 OK\r\nContent-Len",
		"interim":            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
		"half a body":        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				o := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
					o.read(bufio.NewReader(c))
					io.WriteString(c, answer)
				})
				p := n.pool(upstream.Config{
					Picker: upstream.RoundRobin(),
					Retry:  upstream.Retry{Attempts: 3, Lost: true, Statuses: []int{502}},
				}, "a")
				_, _, _, err := send(p, newRequest(t, "GET", "/x", ""))
				if err == nil {
					t.Fatal("no error")
				}
				if got := o.requests(); len(got) != 1 {
					t.Errorf("the back end saw %q", got)
				}
			})
		})
	}
}

// A request that no back end has seen goes to another one whatever its method.
func TestNotSentMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("b", obliging)
		p := n.pool(upstream.Config{Picker: upstream.RoundRobin()}, "down", "b")
		for i := range 4 {
			if got := mustSend(t, p, newRequest(t, "POST", "/x", "body")); got != "b" {
				t.Errorf("request %d was answered by %q", i, got)
			}
		}
		if got := len(o.requests()); got != 4 {
			t.Errorf("%d requests arrived, want 4", got)
		}
		_, _, _, err := send(n.pool(upstream.Config{}, "down"), newRequest(t, "GET", "/", ""))
		e := wantKind(t, err, upstream.KindDial)
		if !e.NotSent() || !errors.Is(err, errRefused) || e.Backend != "down" {
			t.Errorf("got %v", err)
		}
	})
}

// A1: that a connection was dead is no reason to wake the standby.
func TestStaleKeepsPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		main, standby := n.add("a", staleOnce), n.add("b", obliging)
		p := n.pool(upstream.Config{Targets: []upstream.Target{
			{URL: "http://a", ID: "a"}, {URL: "http://b", ID: "b", Priority: 1},
		}})
		for range 2 {
			if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "a" {
				t.Errorf("answered by %q", got)
			}
		}
		if got := len(main.requests()); got != 3 || len(standby.requests()) != 0 {
			t.Errorf("the main back end saw %d requests and the standby %q", got, standby.requests())
		}
		// One that is not reached at all is another matter.
		p.CloseIdleConnections()
		n.remove("a")
		if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "b" {
			t.Errorf("answered by %q", got)
		}
	})
}

// A lost request stays lost unless the configuration says otherwise.
func TestLost(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			bad := n.add("bad", func(o *origin, _ int, c *memnet.Conn) { o.read(bufio.NewReader(c)) })
			n.add("good", obliging)
			p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Retry: upstream.Retry{Lost: lost, Budget: -1}}, "bad", "good")
			failed := 0
			for range 4 {
				if _, _, _, err := send(p, newRequest(t, "GET", "/x", "")); err != nil {
					wantKind(t, err, upstream.KindNoResponse)
					failed++
				}
			}
			if lost != (failed == 0) {
				t.Errorf("Lost: %v: %d of 4 failed", lost, failed)
			}
			if len(bad.requests()) == 0 {
				t.Errorf("the bad back end saw no request")
			}
			posts := 0
			for range 4 {
				if _, _, _, err := send(p, newRequest(t, "POST", "/post", "x")); err != nil {
					posts++
				}
			}
			lostPosts := len(slices.DeleteFunc(bad.requests(), func(s string) bool { return s != "POST /post" }))
			if posts == 0 || lostPosts != posts {
				t.Errorf("%d of 4 POSTs failed, the bad back end saw %d", posts, lostPosts)
			}
		})
	}
}

// upstream 79: no request is sent again when the budget is spent, the caller's
// context is done, or its deadline comes before an answer could.
func TestRetryLimits(t *testing.T) {
	t.Run("budget", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
			p := n.pool(upstream.Config{Outlier: upstream.Outlier{Off: true}, Retry: upstream.Retry{Statuses: []int{503}}}, "a")
			for range 100 {
				send(p, newRequest(t, "GET", "/", ""))
			}
			// Three, and then one for every five requests.
			if got := len(o.requests()) - 100; got != 20 {
				t.Errorf("%d requests were sent again, want 20", got)
			}
			time.Sleep(time.Minute)
			for range 10 {
				send(p, newRequest(t, "GET", "/", ""))
			}
			if got := len(o.requests()) - 130; got != 3 {
				t.Errorf("a minute later %d requests were sent again, want 3", got)
			}
		})
	})
	t.Run("context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			ctx, cancel := context.WithCancel(t.Context())
			o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
				obligingFor(o, c, 1)
				o.read(bufio.NewReader(c))
				cancel()
				synctestWait(t)
			})
			p := n.pool(upstream.Config{}, "a")
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			_, _, _, err := send(p, newRequest(t, "GET", "/again", "").WithContext(ctx))
			wantKind(t, err, upstream.KindClientGone)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v is not context.Canceled", err)
			}
			if got := o.requests(); len(got) != 2 {
				t.Errorf("the back end saw %q", got)
			}
		})
	})
	t.Run("deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", func(o *origin, _ int, c *memnet.Conn) {
				br := bufio.NewReader(c)
				for {
					req, _, err := o.read(br)
					if err != nil {
						return
					}
					time.Sleep(time.Second)
					if req.URL.Path == "/fail" {
						io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
					} else {
						io.WriteString(c, okAnswer)
					}
				}
			})
			p := n.pool(upstream.Config{Retry: upstream.Retry{Statuses: []int{503}}}, "a")
			for range 5 {
				mustSend(t, p, newRequest(t, "GET", "/", ""))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			status, _, _, err := send(p, newRequest(t, "GET", "/fail", "").WithContext(ctx))
			if status != 503 || err != nil {
				t.Errorf("got %d, %v, want the response of the first attempt", status, err)
			}
			if got := len(o.requests()); got != 6 {
				t.Errorf("%d requests, want 6: half a second is too little for another", got)
			}
		})
	})
}

// Attempts is what it says, up to the most that it may be, and every back end
// is tried before one is tried again.
func TestRetryAttempts(t *testing.T) {
	for _, attempts := range []int{1, 8, 9, 10} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			var hosts []string
			var origins []*origin
			for i := range attempts + 1 {
				h := "h" + strconv.Itoa(i)
				hosts = append(hosts, h)
				origins = append(origins, n.add(h, answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")))
			}
			p := n.pool(upstream.Config{Retry: upstream.Retry{Attempts: attempts, Budget: -1, Statuses: []int{503}}}, hosts...)
			status, _, _, err := send(p, newRequest(t, "GET", "/", ""))
			if status != 503 || err != nil {
				t.Errorf("got %d, %v", status, err)
			}
			for i, o := range origins {
				if got := len(o.requests()); got != 1 {
					t.Errorf("Attempts %d: back end %d was tried %d times, want 1", attempts, i, got)
				}
			}
		})
	}
	// The only back end is tried again.
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("b", answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
		p := n.pool(upstream.Config{Outlier: upstream.Outlier{Off: true}, Retry: upstream.Retry{Attempts: 10, Budget: -1, Statuses: []int{503}}}, "b")
		send(p, newRequest(t, "GET", "/", ""))
		if got := len(o.requests()); got != 11 {
			t.Errorf("%d requests to the only back end, want 11", got)
		}
	})
}

// synctestWait gives the other goroutines of a bubble time to act.
func synctestWait(*testing.T) { time.Sleep(time.Millisecond) }

// upstream 80: what is sent again is the same to the byte: head, body and
// framing, trailers included.
func TestRepetitionIsIdentical(t *testing.T) {
	for name, length := range map[string]int64{"known length": 3000, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				var seen []string
				n.add("a", func(o *origin, k int, c *memnet.Conn) {
					if k == 1 {
						obligingFor(o, c, 1)
					}
					raw := &strings.Builder{}
					br := bufio.NewReader(io.TeeReader(c, raw))
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					seen = append(seen, raw.String())
					if k > 1 {
						io.WriteString(c, okAnswer)
						obligingFor(o, c, 1)
					}
				})
				p := n.pool(upstream.Config{}, "a")
				mustSend(t, p, newRequest(t, "GET", "/", ""))
				req := newRequest(t, "PUT", "/x?a=%2F", strings.Repeat("abc", 1000))
				req.ContentLength = length
				req.Header.Set("X-B", "2")
				req.Header.Add("X-B", "3")
				if length < 0 {
					req.Trailer = http.Header{"X-T": {"end"}}
				}
				mustSend(t, p, req)
				if len(seen) != 2 || seen[0] != seen[1] {
					t.Fatalf("got\n%q", seen)
				}
				if !strings.Contains(seen[0], "PUT /x?a=%2F HTTP/1.1") || !strings.Contains(seen[0], "abcabc") {
					t.Errorf("got %.200q", seen[0])
				}
				if length < 0 && !strings.Contains(seen[1], "X-T: end") {
					t.Errorf("the trailer is missing: %.200q", seen[1])
				}
			})
		})
	}
}

// A body beyond Retry.Body is not kept, and the request not sent again. With
// GetBody nothing needs to be kept.
func TestBodyLimit(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int
		length  bool
		getBody bool
		again   bool
	}{
		{"below", 1000, true, false, true},
		{"at the limit", 1024, true, false, true},
		{"above", 1025, true, false, false},
		{"chunked below", 1024, false, false, true},
		{"chunked above", 1025, false, false, false},
		{"GetBody", 5000, true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLAN(t)
				n.add("a", staleOnce)
				p := n.pool(upstream.Config{Retry: upstream.Retry{Body: 1024}}, "a")
				mustSend(t, p, newRequest(t, "GET", "/", ""))
				req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://label/", strings.NewReader(strings.Repeat("x", c.size)))
				if err != nil {
					t.Fatal(err)
				}
				if !c.getBody {
					req.GetBody = nil
				}
				if !c.length {
					req.ContentLength = -1
				}
				if status, _, _, err := send(p, req); c.again != (err == nil && status == 200) {
					t.Errorf("got %d, %v", status, err)
				}
			})
		})
	}
}

// Statuses are asked for; they hold for idempotent requests and the last
// response is delivered.
func TestRetryStatus(t *testing.T) {
	busy := answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")
	t.Run("moves on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("busy", busy)
			n.add("b", obliging)
			p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Retry: upstream.Retry{Statuses: []int{503}}}, "busy", "b")
			for range 3 {
				start := time.Now()
				if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "b" {
					t.Errorf("answered by %q", got)
				}
				if d := time.Since(start); d > 60*time.Millisecond {
					t.Errorf("paused for %v", d)
				}
			}
		})
	})
	t.Run("not a POST", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("busy", busy)
			p := n.pool(upstream.Config{Retry: upstream.Retry{Statuses: []int{503}}}, "busy")
			status, body, _, err := send(p, newRequest(t, "POST", "/", "x"))
			if status != 503 || body != "busy" || err != nil || len(o.requests()) != 1 {
				t.Errorf("got %d %q %v after %d requests", status, body, err, len(o.requests()))
			}
			status, body, _, err = send(p, newRequest(t, "GET", "/", ""))
			if status != 503 || body != "busy" || err != nil || len(o.requests()) != 3 {
				t.Errorf("got %d %q %v after %d requests", status, body, err, len(o.requests()))
			}
		})
	})
	t.Run("Retry-After", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", func(o *origin, k int, c *memnet.Conn) {
				br := bufio.NewReader(c)
				o.read(br)
				io.WriteString(c, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n")
				for {
					if _, _, err := o.read(br); err != nil {
						return
					}
					io.WriteString(c, okAnswer)
				}
			})
			p := n.pool(upstream.Config{Retry: upstream.Retry{Statuses: []int{429}}}, "a")
			status, _, _, _ := send(p, newRequest(t, "GET", "/", ""))
			if status != 429 || len(o.requests()) != 1 {
				t.Errorf("without a deadline got %d after %d requests", status, len(o.requests()))
			}
			p.CloseIdleConnections()
			for _, limit := range []time.Duration{2 * time.Second, 10 * time.Second} {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				start := time.Now()
				status, _, _, err := send(p, newRequest(t, "GET", "/", "").WithContext(ctx))
				cancel()
				if limit == 10*time.Second && (status != 200 || time.Since(start) != 3*time.Second) {
					t.Errorf("with %v left got %d after %v, %v", limit, status, time.Since(start), err)
				} else if limit == 2*time.Second && (status != 429 || time.Since(start) != 0) {
					t.Errorf("with %v left got %d after %v", limit, status, time.Since(start))
				}
				p.CloseIdleConnections()
			}
		})
	})
	// upstream 48: 425 is delivered, not repeated blindly, where the client
	// itself sent early data.
	t.Run("425", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			o := n.add("a", answering("HTTP/1.1 425 Too Early\r\nContent-Length: 0\r\n\r\n"))
			p := n.pool(upstream.Config{Retry: upstream.Retry{Statuses: []int{425}}}, "a")
			req := newRequest(t, "GET", "/", "")
			req.Header.Set("Early-Data", "1")
			if status, _, _, _ := send(p, req); status != 425 || len(o.requests()) != 1 {
				t.Errorf("got %d after %d requests", status, len(o.requests()))
			}
			if status, _, _, _ := send(p, newRequest(t, "GET", "/", "")); status != 425 || len(o.requests()) != 3 {
				t.Errorf("without early data: got %d after %d requests", status, len(o.requests()))
			}
		})
	})
	t.Run("When", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("odd", answering("HTTP/1.1 200 OK\r\nX-Again: 1\r\nContent-Length: 0\r\n\r\n"))
			n.add("b", obliging)
			p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Retry: upstream.Retry{
				When: func(res *http.Response) bool { return res.Header.Get("X-Again") != "" },
			}}, "odd", "b")
			for range 3 {
				mustSend(t, p, newRequest(t, "GET", "/", ""))
			}
		})
	})
	t.Run("gRPC", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", answering("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 14\r\nContent-Length: 0\r\n\r\n"))
			n.add("b", obliging)
			p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Retry: upstream.Retry{
				Statuses: []int{503}, Idempotent: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/Get") },
			}}, "a", "b")
			for range 3 {
				mustSend(t, p, newRequest(t, "POST", "/svc/Get", "x"))
			}
		})
	})
}

// A limit for one attempt lets an idempotent request move on.
func TestPerTry(t *testing.T) {
	for _, timeouts := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("slow", silent)
			n.add("b", obliging)
			p := n.pool(upstream.Config{
				Picker: upstream.RoundRobin(),
				Retry:  upstream.Retry{PerTry: time.Second, Timeouts: timeouts},
			}, "slow", "b")
			failed := 0
			for range 2 {
				start := time.Now()
				_, _, backend, err := send(p, newRequest(t, "GET", "/", ""))
				if err != nil {
					e := wantKind(t, err, upstream.KindHeaderTimeout)
					if !e.Timeout() || e.HTTPStatus() != 504 || time.Since(start) != time.Second {
						t.Errorf("got %v after %v", e, time.Since(start))
					}
					failed++
				} else if backend != "b" {
					t.Errorf("answered by %q", backend)
				}
			}
			if timeouts != (failed == 0) {
				t.Errorf("Timeouts: %v: %d of 2 failed", timeouts, failed)
			}
		})
	}
}

// upstream 81: the slower of two hedged attempts is cancelled, and its
// connection is not used again.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		closed := make(chan struct{}, 10)
		n.add("slow", func(o *origin, k int, c *memnet.Conn) {
			silent(o, k, c)
			closed <- struct{}{}
		})
		good := n.add("b", obliging)
		p := n.pool(upstream.Config{
			Picker: upstream.RoundRobin(),
			Retry:  upstream.Retry{Hedge: 50 * time.Millisecond, Budget: -1},
		}, "slow", "b")
		slow := 0
		for range 4 {
			start := time.Now()
			if got := mustSend(t, p, newRequest(t, "GET", "/", "")); got != "b" {
				t.Errorf("answered by %q", got)
			}
			if d := time.Since(start); d == 50*time.Millisecond {
				slow++
				<-closed
			} else if d != 0 {
				t.Errorf("took %v", d)
			}
		}
		if slow == 0 || len(good.requests()) != 4 {
			t.Errorf("%d of 4 were hedged, the good back end saw %d", slow, len(good.requests()))
		}
		synctest.Wait()
		for s := range p.Backends() {
			if s.Active != 0 || s.Target.ID == "slow" && s.Conns != 0 {
				t.Errorf("%s: %d active, %d connections", s.Target.ID, s.Active, s.Conns)
			}
			if s.Failed() != 0 {
				t.Errorf("%s is blamed for %d failures", s.Target.ID, s.Failed())
			}
		}
	})
}

// An Observer may be told of the attempt that lost while the request goes on,
// and is told the number that the attempt had.
func TestHedgeObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("slow", func(o *origin, k int, c *memnet.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, _, err := o.read(br); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond) // as the hedge begins
				io.WriteString(c, okAnswer)
			}
		})
		n.add("failing", answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
		n.add("b", obliging)
		var mu sync.Mutex
		told := map[string]int{}
		p := n.pool(upstream.Config{
			Outlier: upstream.Outlier{Off: true},
			Retry:   upstream.Retry{Hedge: 50 * time.Millisecond, Budget: -1, Attempts: 3, Statuses: []int{503}},
			Observer: upstream.Observer{Attempt: func(r *http.Request, a upstream.Attempt) {
				mu.Lock()
				defer mu.Unlock()
				told[r.URL.Path+" "+strconv.Itoa(a.Number)]++
			}},
		}, "slow", "failing", "b")
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() { mustSend(t, p, newRequest(t, "GET", "/"+strconv.Itoa(i), "")) })
		}
		wg.Wait()
		synctest.Wait()
		p.Close()
		second := 0
		for of, times := range told {
			if times != 1 {
				t.Errorf("attempt %s was told %d times", of, times)
			}
			if strings.HasSuffix(of, " 2") {
				second++
			}
		}
		if second == 0 {
			t.Error("no request had a second attempt")
		}
	})
}

// A client that is bound to a back end which is up is not hedged away from it,
// and is where that is down.
func TestHedgeSticky(t *testing.T) {
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			slow := func(o *origin, _ int, c *memnet.Conn) {
				br := bufio.NewReader(c)
				for {
					if _, _, err := o.read(br); err != nil {
						return
					}
					time.Sleep(200 * time.Millisecond)
					io.WriteString(c, okAnswer)
				}
			}
			origins := map[string]*origin{"a": n.add("a", slow), "b": n.add("b", slow), "c": n.add("c", slow)}
			cfg := upstream.Config{
				Retry:  upstream.Retry{Hedge: 50 * time.Millisecond, Budget: -1},
				Sticky: &upstream.Sticky{Keys: [][]byte{[]byte(strings.Repeat("k", 32))}},
			}
			p := n.pool(cfg, "a", "b", "c")
			res, err := p.RoundTrip(newRequest(t, "GET", "/", ""))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			home, _ := upstream.BackendOf(res)
			req := newRequest(t, "GET", "/mine", "")
			req.AddCookie(res.Cookies()[0])
			if down {
				n.remove(home)
				var ts []upstream.Target
				for h := range origins {
					if h != home {
						ts = append(ts, upstream.Target{URL: "http://" + h, ID: h})
					}
				}
				if err := p.Update(ts); err != nil {
					t.Fatal(err)
				}
			}
			if res, err = p.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			synctest.Wait()
			id, _ := upstream.BackendOf(res)
			asked := 0
			for _, o := range origins {
				if slices.Contains(o.requests(), "GET /mine") {
					asked++
				}
			}
			if !down && (id != home || asked != 1 || len(res.Cookies()) > 0) {
				t.Errorf("bound to %s, answered by %s, %d were asked, cookies %v", home, id, asked, res.Cookies())
			}
			if down && (id == home || asked != 2 || len(res.Cookies()) != 1) {
				t.Errorf("bound to %s, which is gone; answered by %s, %d were asked, cookies %v", home, id, asked, res.Cookies())
			}
		})
	}
}

// A hedged request that fails early is sent again as any other is.
func TestHedgedRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("b", obliging)
		n.add("stale", staleOnce)
		for _, bad := range []string{"down", "stale"} {
			p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Retry: upstream.Retry{Hedge: time.Second}}, bad, "b")
			for range 4 {
				mustSend(t, p, newRequest(t, "GET", "/", ""))
			}
		}
	})
}

// With no attempts allowed nothing is repeated, not even what was never sent.
func TestNoRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("b", obliging)
		p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Retry: upstream.Retry{Attempts: -1}}, "down", "b")
		failed := 0
		for range 4 {
			if _, _, _, err := send(p, newRequest(t, "GET", "/", "")); err != nil {
				wantKind(t, err, upstream.KindDial)
				failed++
			}
		}
		if failed != 2 {
			t.Errorf("%d of 4 failed, want 2", failed)
		}
	})
}

// A client whose body fails is not the back end's fault, and its request is
// not sent again.
func TestClientBodyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		o := n.add("a", silent)
		p := n.pool(upstream.Config{}, "a")
		broken := errors.New("the client's line broke")
		req := newRequest(t, "PUT", "/", "x")
		req.Body = io.NopCloser(io.MultiReader(strings.NewReader("half"), brokenReader{broken}))
		req.ContentLength = 100
		_, _, _, err := send(p, req)
		e := wantKind(t, err, upstream.KindClientBody)
		if !errors.Is(err, broken) || e.HTTPStatus() != 400 || e.Kind.BackendFault() {
			t.Errorf("got %v, %d", err, e.HTTPStatus())
		}
		if s := only(t, p); s.Failed() != 0 || s.Active != 0 {
			t.Errorf("the back end is blamed: %+v", s)
		}
		synctest.Wait()
		if got := o.conns.Load(); got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
	})
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// An attempt whose response is replaced gets nothing more of the client's body,
// also if its transport goes on reading: what comes then is for the next one.
func TestRetryStatusLateRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan error, 1)
		sendInParts(t, "PUT", time.Second, upstream.Retry{Statuses: []int{503}, Budget: -1}, func(r *http.Request) (*http.Response, error) {
			go func() {
				time.Sleep(10 * time.Millisecond)
				_, err := r.Body.Read(make([]byte, 5))
				late <- err
				r.Body.Close()
			}()
			return response(503, ""), nil
		})
		if err := <-late; err == nil {
			t.Error("the first attempt has read on")
		}
	})
}

// A tripper may return while it reads the body, as those of HTTP/3 do. If the
// request was not sent, what that Read brings in time is for the next attempt.
func TestRetryDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sendInParts(t, "POST", 50*time.Millisecond, upstream.Retry{}, func(r *http.Request) (*http.Response, error) {
			go func() {
				r.Body.Read(make([]byte, 5))
				r.Body.Close()
			}()
			synctest.Wait()
			return nil, gateError{notSent: true}
		})
	})
}

// sendInParts sends a body in two parts, each after a pause, to a Pool of which
// the first back end does what first says. The second must get all of it.
func sendInParts(t *testing.T, method string, pause time.Duration, retry upstream.Retry, first tripFunc) {
	t.Helper()
	p := newPool(t, upstream.Config{
		Targets: []upstream.Target{{URL: "http://a", ID: "a"}, {URL: "http://b", ID: "b"}},
		Picker:  inOrder{},
		Retry:   retry,
		Transport: func(target upstream.Target) (http.RoundTripper, error) {
			if target.ID == "a" {
				return first, nil
			}
			return tripFunc(func(r *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil {
					return nil, err
				}
				return response(200, string(body)), nil
			}), nil
		},
	})
	pr, pw := io.Pipe()
	go func() {
		for _, part := range []string{"hello", "world"} {
			time.Sleep(pause)
			io.WriteString(pw, part)
		}
		pw.Close()
	}()
	req := newRequest(t, method, "/", "x")
	req.Body, req.ContentLength = pr, 10
	status, body, _, err := send(p, req)
	if status != 200 || body != "helloworld" || err != nil {
		t.Errorf("got %d %q, %v", status, body, err)
	}
}
