package wsproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"example.com/plainware/wsproxy"
)

// A route of a mux is a WebSocket proxy.
func Example() {
	back := exampleBackEnd()
	defer back.Close()

	ws, err := wsproxy.New(wsproxy.Config{
		Target:  "ws" + strings.TrimPrefix(back.URL, "http"),
		Origins: []string{"https://app.example"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ws.Close()
	mux := http.NewServeMux()
	mux.Handle("/chat", ws)
	srv := httptest.NewServer(mux)
	defer srv.Close()

	fmt.Println(exampleClient(srv, "https://app.example"))
	fmt.Println(exampleClient(srv, "https://evil.example"))
	// Output:
	// HTTP/1.1 101 Switching Protocols: hello
	// HTTP/1.1 403 Forbidden
}

// Each tenant has a back end of its own.
func ExampleNew() {
	back := exampleBackEnd()
	defer back.Close()
	tenants := map[string]string{"/chat": "ws" + strings.TrimPrefix(back.URL, "http")}

	ws, err := wsproxy.New(wsproxy.Config{
		Director: func(hs *wsproxy.Handshake) (*wsproxy.Target, error) {
			url, ok := tenants[hs.Request.URL.Path]
			if !ok {
				return nil, fmt.Errorf("no tenant at %s", hs.Request.URL.Path)
			}
			return &wsproxy.Target{URL: url, Header: http.Header{"X-Tenant": {"a"}}}, nil
		},
		OnClose: func(s wsproxy.Stats) { fmt.Println("ended by the", s.End) },
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(ws)
	defer srv.Close()
	fmt.Println(exampleClient(srv, ""))
	ws.Close() // waits until the tunnel has ended
	// Unordered output:
	// HTTP/1.1 101 Switching Protocols: hello
	// ended by the backend
}

// As a middleware the proxy takes the handshakes on some paths and passes all
// other requests on.
func ExampleProxy_Handler() {
	back := exampleBackEnd()
	defer back.Close()
	ws, err := wsproxy.New(wsproxy.Config{
		Target: "ws" + strings.TrimPrefix(back.URL, "http"),
		Match:  func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/chat") },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ws.Close()
	srv := httptest.NewServer(ws.Handler(http.NotFoundHandler()))
	defer srv.Close()

	fmt.Println(exampleClient(srv, ""))
	res, err := http.Get(srv.URL + "/chat")
	if err != nil {
		log.Fatal(err)
	}
	res.Body.Close()
	fmt.Println(res.Status)
	// Output:
	// HTTP/1.1 101 Switching Protocols: hello
	// 404 Not Found
}

// A program ends: the tunnels first, then the server.
func ExampleProxy_Shutdown() {
	ws, err := wsproxy.New(wsproxy.Config{
		Target: "ws://127.0.0.1:9000",
		Drain:  wsproxy.Drain{Code: 1001, Reason: "update", Spread: 20 * time.Second},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: ws}

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fmt.Println(ws.Shutdown(ctx))
	fmt.Println(srv.Shutdown(ctx))
	// Output:
	// <nil>
	// <nil>
}

// A back end is about to stop: its clients are asked to come back, a few at a
// time. New tunnels go where the Director sends them by then.
func ExampleProxy_Drain() {
	ws, err := wsproxy.New(wsproxy.Config{Target: "ws://127.0.0.1:9000"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ws.Drain(wsproxy.Drain{Code: 1012, Spread: time.Minute}))
	fmt.Println(ws.Drain(wsproxy.Drain{Code: 1005}))
	// Output:
	// <nil>
	// wsproxy: Code: must be 1001, 1012 or 3000 to 4999 (got 1005)
}

// One user's tunnels are closed.
func ExampleProxy_CloseTunnel() {
	ws, err := wsproxy.New(wsproxy.Config{Target: "ws://127.0.0.1:9000"})
	if err != nil {
		log.Fatal(err)
	}
	for t := range ws.Tunnels() {
		if t.Subprotocol == "v1" {
			ws.CloseTunnel(t.ID, 4001, "upgrade your client")
		}
	}
	fmt.Println(ws.CloseTunnel(42, 4001, "no such tunnel"))
	// Output: false <nil>
}

// A server for WebSockets over HTTP/2. The program also imports
// example.com/plainware/wsproxy/xconnect for its side effect.
func ExamplePrepare() {
	srv := &http.Server{Addr: ":443"}
	if err := wsproxy.Prepare(srv); err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.HTTP2.MaxReceiveBufferPerStream, srv.HTTP2.MaxReceiveBufferPerConnection)
	// Output: 131072 1048576
}

// Middleware that must not touch a WebSocket steps aside.
func ExampleIsHandshake() {
	compress := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if wsproxy.IsHandshake(r) {
				fmt.Println("a WebSocket")
			} else {
				w.Header().Set("Content-Encoding", "gzip")
			}
			next.ServeHTTP(w, r)
		})
	}
	r := httptest.NewRequest("GET", "/chat", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	compress(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	// Output: a WebSocket
}

// exampleBackEnd greets everyone and closes.
func exampleBackEnd() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		c := &backConn{request: r, conn: conn, end: &end{stream: connStream{conn, bufio.NewReader(conn)}}}
		_ = c.accept("")
		_ = c.send(opText, "hello")
		_ = c.sendClose(1000, "")
		_, _ = c.recv()
	}))
}

// exampleClient opens a WebSocket and reads one message.
func exampleClient(srv *httptest.Server, origin string) string {
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	more := ""
	if origin != "" {
		more = "Origin: " + origin + "\r\n"
	}
	fmt.Fprintf(conn, "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n", testKey, more)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err.Error()
	}
	answer := res.Proto + " " + res.Status
	if res.StatusCode != http.StatusSwitchingProtocols {
		return answer
	}
	c := &end{stream: connStream{conn, r}, client: true}
	f, err := c.recv()
	if err != nil {
		return err.Error()
	}
	_, _ = c.recv()
	_ = c.sendClose(1000, "")
	return answer + ": " + string(f.payload)
}
