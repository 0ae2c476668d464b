package wsproxy_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/wsproxy"
)

// node runs a script of testdata, which prints ok at its end.
func node(t *testing.T, args ...string) {
	t.Helper()
	path := prog.Need(t, "node")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "ok") {
		t.Errorf("node %v: %v\n%s", args, err, out)
	}
}

// Node's HTTP/2 client with three tunnels on one connection, over TLS and not.
func TestNodeHTTP2Client(t *testing.T) {
	echo := serve(t, http.HandlerFunc(echoCoder), false)
	for _, secure := range []bool{false, true} {
		for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
			front := startProxy(t, echo, secure, wsproxy.Config{Mode: mode})
			t.Run(front.scheme()+", "+mode.String(), func(t *testing.T) {
				if !secure {
					node(t, "testdata/client.mjs", "http://"+front.addr)
					return
				}
				cert := filepath.Join(t.TempDir(), "cert.pem")
				text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.certs[0].Certificate[0]})
				if err := os.WriteFile(cert, text, 0o600); err != nil {
					t.Fatal(err)
				}
				node(t, "testdata/client.mjs", "https://"+front.addr, cert)
			})
		}
	}
}

// Node's WebSocket, which has an implementation of its own.
func TestNodeWebSocket(t *testing.T) {
	echo := serve(t, http.HandlerFunc(echoGorilla), false)
	front := startProxy(t, echo, false, wsproxy.Config{})
	node(t, "--experimental-websocket", "--no-warnings", "testdata/websocket.mjs", front.url(""))
}

// Node's http server as the back end, which looks at how names are spelled.
func TestNodeBackEnd(t *testing.T) {
	path := prog.Need(t, "node")
	addr := prog.Start(t, func(addr string) *exec.Cmd {
		return exec.Command(path, "testdata/server.mjs", addr)
	}, prog.Dial)
	for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
		front := startProxy(t, server{addr: addr}, false, wsproxy.Config{Mode: mode})
		for name, open := range clients() {
			t.Run(name+", "+mode.String(), func(t *testing.T) {
				exercise(t, open, front.url(""), &tls.Config{})
			})
		}
	}
}
