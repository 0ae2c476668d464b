package wsproxy_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/wsproxy"
)

// A request with a body that is no handshake is refused before the body has come,
// and the connection is closed: the rest is no request, not even in full duplex,
// where the server goes on to the next one when it fails to read the rest.
func TestBodyOfRefusedIsNoRequest(t *testing.T) {
	for name, request := range map[string]string{
		"no handshake": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
		"chunked":      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nffff\r\n",
		"handshake": "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 1000\r\n\r\nabc",
	} {
		for _, duplex := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p, err := wsproxy.New(wsproxy.Config{Target: "ws://b"})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				served := false
				s := memnet.Serve(t, memnet.HTTP1, &http.Server{
					ReadTimeout: 10 * time.Second,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/next" {
							served = true
							return
						}
						if duplex {
							http.NewResponseController(w).EnableFullDuplex()
						}
						p.ServeHTTP(w, r)
					}),
				})
				c, err := s.Listener.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				start := time.Now()
				io.WriteString(c, request)
				br := bufio.NewReader(c)
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); res.StatusCode/100 != 4 || !res.Close || took != 0 {
					t.Errorf("%s: status %d, close %v after %v", name, res.StatusCode, res.Close, took)
				}
				io.Copy(io.Discard, res.Body)
				time.Sleep(15 * time.Second) // for the ReadTimeout to pass, but not for IdleTimeout
				io.WriteString(c, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
				time.Sleep(time.Second)
				if served {
					t.Errorf("%s, full duplex %v: the rest is served", name, duplex)
				}
			})
		}
	}
}
