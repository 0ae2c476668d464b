package upstream_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// reusing is a server of HTTP/1.1 that tells apart the requests for /next, which
// come on a connection that has served another one.
type reusing struct {
	served    bool // a request for /next
	cancelled bool // and its context had ended
}

func (s *reusing) serve(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	srv := memnet.Serve(t, memnet.HTTP1, &http.Server{
		ErrorLog: log.New(io.Discard, "", 0), // panics
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/next" {
				h.ServeHTTP(w, r)
				return
			}
			time.Sleep(time.Second) // for as long as the context may take to end
			s.served, s.cancelled = true, r.Context().Err() != nil
		}),
	})
	c, err := srv.Listener.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a request and returns the status of its response, or 0. After a pause
// that outlasts all deadlines it sends the one for /next.
func (s *reusing) ask(c net.Conn, request string, pause time.Duration) (status int) {
	io.WriteString(c, request)
	br := bufio.NewReader(c)
	for status < 200 {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			break
		}
		status = res.StatusCode
		io.Copy(io.Discard, res.Body)
	}
	time.Sleep(pause)
	io.WriteString(c, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if res, err := http.ReadResponse(br, nil); err == nil {
		io.Copy(io.Discard, res.Body)
	}
	return status
}

// Requests whose body does not come to its end. None has an Expect: the server of
// Go 1.27 then answers only when the Read that is under way has ended, for which it
// waits with a mutex, and a bubble's clock with it.
var unfinished = map[string]string{
	"length":  "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
	"long":    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
	"chunked": "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nffff\r\n",
	"upgrade": "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc",
	"options": "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nContent-Length: 1000\r\n\r\nabc",
	"trace":   "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nContent-Length: 1000\r\n\r\nabc",
}

// Back ends that do not wait for the end of the body.
var hasty = map[string]string{
	"whole":       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"no body":     "HTTP/1.1 204 No Content\r\n\r\n",
	"closing":     "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
	"after a 103": "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"chunked":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"cut short":   "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\nok",
	"malformed":   "HTTP 200\r\n\r\n",
	"none":        "",
}

// What has not come of a body when the response is over is no request, whatever
// the client says to that: the rest is read, or the connection is closed. In full
// duplex it has to be closed, since the server goes on to the next request whether
// or not a deadline has kept it from reading the rest.
func TestRestOfBodyIsNoRequest(t *testing.T) {
	proxies := map[string]func(*testing.T, *rawBack) http.Handler{
		"transport": func(t *testing.T, b *rawBack) http.Handler {
			return newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://b"})
		},
		"limits": func(t *testing.T, b *rawBack) http.Handler {
			return newProxy(t, upstream.ProxyConfig{Transport: newPool(t, upstream.Config{
				Targets: []upstream.Target{{URL: "http://a"}, {URL: "http://b"}},
				Dial:    b.listener.DialContext,
				Conns:   upstream.Conns{HeaderTimeout: 2 * time.Second},
				Retry:   upstream.Retry{PerTry: time.Second, Timeouts: true},
			})})
		},
		"refused": func(t *testing.T, b *rawBack) http.Handler {
			return newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://b", MaxBody: 2,
				ModifyResponse: func(*http.Response) error { return errors.New("no") }})
		},
		"recovered": func(t *testing.T, b *rawBack) http.Handler {
			p := newProxy(t, upstream.ProxyConfig{Transport: b.transport, Target: "http://b"})
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					if recover() != nil {
						w.WriteHeader(500)
					}
				}()
				r2 := r.WithContext(r.Context())
				r2.Body = &panicBody{ReadCloser: r.Body}
				p.ServeHTTP(w, r2)
			})
		},
	}
	for name, proxy := range proxies {
		for back, response := range hasty {
			for kind, request := range unfinished {
				for _, duplex := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						b := newRawBack(t, func(c *rawConn) {
							c.head()
							if c.send(response); strings.Contains(response, "close") {
								time.Sleep(time.Second)
								return
							}
							io.Copy(io.Discard, c)
						})
						h := proxy(t, b)
						var s reusing
						c := s.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if duplex {
								http.NewResponseController(w).EnableFullDuplex()
							}
							h.ServeHTTP(w, r)
						}))
						if status := s.ask(c, request, 10*time.Second); s.served {
							t.Errorf("%s, back end %s, request %s, full duplex %v: status %d, and then the rest is served", name, back, kind, duplex, status)
						}
					})
				}
			}
		}
	}
}

// tardy calls a function before each read deadline in the past is set.
type tardy struct {
	http.ResponseWriter
	before func()
}

func (w *tardy) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *tardy) SetReadDeadline(t time.Time) error {
	if t.Before(time.Now()) {
		w.before()
	}
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(t)
}

// The Read that is ended because a limit has passed may come to the end of the body
// at that very moment. The server takes its client for gone then, for all that
// follows on the connection, and so nothing may follow.
func TestBodyEndsAsItIsCut(t *testing.T) {
	for name, cfg := range map[string]upstream.Config{
		"an attempt takes too long": {Retry: upstream.Retry{PerTry: time.Second}},
		"Config.Wrap is faster": {Wrap: func(_ upstream.Target, next http.RoundTripper) (http.RoundTripper, error) {
			return tripperFunc(func(r *http.Request) (*http.Response, error) {
				go next.RoundTrip(r)
				time.Sleep(time.Second)
				return response(200, "from a cache"), nil
			}), nil
		}},
	} {
		for kind, end := range map[string]string{"Content-Length: 6\r\n\r\nabc": "def", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n": "0\r\n\r\n"} {
			t.Run(fmt.Sprintf("%s, %.7s", name, kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newRawBack(t, func(c *rawConn) { io.Copy(io.Discard, c) })
					cfg.Targets, cfg.Dial = []upstream.Target{{URL: "http://a"}}, b.listener.DialContext
					p := newProxy(t, upstream.ProxyConfig{Transport: newPool(t, cfg)})
					var c net.Conn
					cut := 0
					var s reusing
					c = s.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						p.ServeHTTP(&tardy{w, func() {
							cut++
							io.WriteString(c, end)
							time.Sleep(time.Millisecond)
						}}, r)
					}))
					status := s.ask(c, "PUT / HTTP/1.1\r\nHost: a\r\n"+kind, 10*time.Second)
					if cut != 1 || status == 0 {
						t.Errorf("cut %d times, status %d", cut, status)
					}
					if s.cancelled {
						t.Error("the next request on the connection is cancelled")
					}
				})
			})
		}
	}
}

// A connection whose request has come to its end, or had no body, serves the next
// one whatever has become of this one.
func TestConnectionServesNext(t *testing.T) {
	for kind, request := range map[string]string{
		"none":    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"length":  "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"chunked": "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		for back, response := range hasty {
			if back == "cut short" {
				continue // which is all that tells the client
			}
			synctest.Test(t, func(t *testing.T) {
				b := newRawBack(t, func(c *rawConn) {
					for c.request() != nil {
						if c.send(response); strings.Contains(response, "close") {
							return
						}
					}
				})
				pool := newPool(t, upstream.Config{
					Targets: []upstream.Target{{URL: "http://a"}, {URL: "http://b"}},
					Dial:    b.listener.DialContext,
					Conns:   upstream.Conns{HeaderTimeout: 3 * time.Second},
					Retry:   upstream.Retry{PerTry: 2 * time.Second, Timeouts: true, Hedge: time.Second},
				})
				var s reusing
				c := s.serve(t, newProxy(t, upstream.ProxyConfig{Transport: pool}))
				if status := s.ask(c, request, 10*time.Second); !s.served || s.cancelled || status == 0 {
					t.Errorf("back end %s, request %s: status %d, the next one served: %v, cancelled: %v", back, kind, status, s.served, s.cancelled)
				}
			})
		}
	}
}
