//go:build linux

package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"example.com/plainware/internal/interop/prog"
)

// haproxyConf passes WebSockets on over HTTP/2, by extended CONNECT, or as they come.
const haproxyConf = `defaults
	mode http
	timeout connect 10s
	timeout client 60s
	timeout server 60s
	timeout tunnel 60s
frontend front
	bind ADDR
	default_backend gateway
backend gateway
	server gateway TARGET
`

// A WebSocket comes through a proxy, in either version of HTTP, the gateway and to
// a back end that wants Origin to be Host.
func TestSocketsBehindHAProxy(t *testing.T) {
	path, bin := prog.Need(t, "haproxy"), build(t)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer conn.CloseNow()
		for {
			kind, said, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, said) != nil {
				return
			}
		}
	}))
	defer back.Close()
	for proto, flags := range map[string]string{"HTTP/1.1": "", "HTTP/2.0": " proto h2 ws h2"} {
		t.Run(proto, func(t *testing.T) {
			printed, stop := start(t, bin, "memory", "-target", back.URL)
			gateway := strings.TrimPrefix(address(t, printed), "http://")
			file := filepath.Join(t.TempDir(), "conf")
			front := "http://" + prog.Start(t, func(addr string) *exec.Cmd {
				conf := strings.NewReplacer("ADDR", addr, "TARGET", gateway+flags).Replace(haproxyConf)
				if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
					t.Fatal(err)
				}
				return exec.Command(path, "-db", "-f", file)
			}, prog.Dial)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			conn, _, err := websocket.Dial(ctx, front, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {front}}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, heard, err := conn.Read(ctx); err != nil || string(heard) != "hello" {
				t.Errorf("heard %q, %v", heard, err)
			}
			conn.CloseRead(ctx) // answers the Close frame
			if log := stop(); !strings.Contains(log, `msg="WebSocket closed"`) || !strings.Contains(log, "proto="+proto) || !strings.Contains(log, "end=drained") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}
