package upstream_test

import (
	"bufio"
	"io"
	"net/http/httptrace"
	"net/textproto"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// upstream 77: nothing is sent again after an interim response has been passed
// on, be it to a client of the Proxy or to the hook of a request. Where nobody
// was told of it, it is as if it had not come.
func TestInterimIsTheBeginning(t *testing.T) {
	const hints = "\x08\x03103" // :status 103
	lost := func(_ int, stream uint32) string {
		if stream == 1 {
			return frame(1, 5, stream, status200)
		}
		return frame(1, 4, stream, hints)
	}
	overH2 := func(answer func(int, uint32) string) func(*origin, int, *memnet.Conn) {
		raw := rawH2(answer)
		return func(o *origin, k int, c *memnet.Conn) {
			time.AfterFunc(time.Second, func() { c.Close() })
			raw(o, k, c)
		}
	}
	unavailable := func(o *origin, _ int, c *memnet.Conn) {
		br := bufio.NewReader(c)
		for k := 0; ; k++ {
			if _, _, err := o.read(br); err != nil {
				return
			}
			if k == 0 {
				io.WriteString(c, okAnswer)
				continue
			}
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
		}
	}
	for _, c := range []struct {
		name, url string
		serve     func(*origin, int, *memnet.Conn)
	}{
		{"h2c, connection lost", "h2c://a", overH2(lost)},
		{"http, status", "http://a", unavailable},
	} {
		for _, by := range []string{"a hook", "a Proxy", "nobody"} {
			t.Run(c.name+" "+by, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newLAN(t)
					o := n.add("a", c.serve)
					p := n.pool(upstream.Config{Targets: []upstream.Target{{URL: c.url}}, Retry: upstream.Retry{Statuses: []int{503}}})
					if status, _, _, err := send(p, newRequest(t, "GET", "/", "")); status != 200 {
						t.Fatal(status, err)
					}
					sent, seen := 1, 0
					switch req := newRequest(t, "GET", "/", ""); by {
					case "a Proxy":
						serve(newProxy(t, upstream.ProxyConfig{Transport: p}), request("GET", "/", nil))
					case "a hook":
						send(p, req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
							Got1xxResponse: func(int, textproto.MIMEHeader) error { seen++; return nil },
						})))
						if seen != 1 {
							t.Errorf("the hook was called %d times", seen)
						}
					case "nobody":
						send(p, req)
						sent = 2
					}
					if got := len(o.requests()) - 1; got != sent {
						t.Errorf("sent %d times, want %d", got, sent)
					}
				})
			})
		}
	}
}
