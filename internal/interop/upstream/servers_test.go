package upstream_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/upstream"
)

// chains puts a program in front of the Proxy, and behind it: the client of
// the Proxy, and its back end.
func chains(t *testing.T, start func(t *testing.T, h2c bool, target server) (addr string)) {
	t.Run("behind", func(t *testing.T) {
		for _, scheme := range []string{"http", "h2c"} {
			t.Run(scheme, func(t *testing.T) {
				addr := start(t, scheme == "h2c", serve(t, origin(), false))
				front := edge(t, scheme+"://"+addr)
				// Neither passes trailers on, and over HTTP/2 HAProxy 2.6 makes
				// a whole answer of one that was cut short.
				passes := chain{cuts: scheme == "http"}
				exercise(t, newClient(t, false), front.url, passes)
				exercise(t, newClient(t, true), front.url, passes)
			})
		}
	})
	t.Run("in front", func(t *testing.T) {
		target := edge(t, serve(t, origin(), false).url)
		exercise(t, newClient(t, false), "http://"+start(t, false, target), chain{cuts: true})
	})
}

// nginx sends on what it gets, over HTTP/1.1 and kept connections.
const nginxConf = `daemon off; worker_processes 2; user root;
pid DIR/pid; error_log stderr crit;
events { worker_connections 1024; }
http {
	access_log off; client_max_body_size 0; keepalive_requests KEPT;
	client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;
	upstream target { server TARGET; keepalive 32; }
	server {
		listen ADDR H2;
		location / {
			proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
	}
}
`

// startNginx starts it and returns the command, so that it can be sent signals.
// It closes each connection after kept requests.
func startNginx(t *testing.T, h2c bool, target server, kept int) (addr string, cmd *exec.Cmd) {
	t.Helper()
	path := prog.Need(t, "nginx")
	dir := t.TempDir()
	addr = prog.Start(t, func(addr string) *exec.Cmd {
		conf := strings.NewReplacer("DIR", dir, "ADDR", addr, "TARGET", target.addr, "H2", map[bool]string{true: "http2"}[h2c],
			"KEPT", fmt.Sprint(kept)).Replace(nginxConf)
		file := filepath.Join(dir, "conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(path, "-c", file, "-p", dir, "-e", "stderr")
		return cmd
	}, prog.Dial)
	// Killed, it would leave its workers behind.
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		for range 100 {
			if _, err := os.Stat(filepath.Join(dir, "pid")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return addr, cmd
}

func TestNginx(t *testing.T) {
	chains(t, func(t *testing.T, h2c bool, target server) string {
		addr, _ := startNginx(t, h2c, target, 1000)
		return addr
	})
}

// A back end that closes connections whenever it likes, after a few requests
// or because it is reloaded, fails no request that may be repeated.
func TestNginxReloads(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			addr, cmd := startNginx(t, scheme == "h2c", serve(t, origin(), false), 50)
			// Each GOAWAY may refuse as many requests as are under way.
			pool := newPool(t, upstream.Config{Retry: upstream.Retry{Attempts: 3, Budget: -1}}, scheme+"://"+addr)
			front := serve(t, newProxy(t, pool), false)
			c := newClient(t, false)
			end := time.Now().Add(2 * time.Second)
			var wg sync.WaitGroup
			var mu sync.Mutex
			sent := 0
			for range 6 {
				wg.Go(func() {
					for !time.Now().After(end) && !t.Failed() {
						req, err := http.NewRequest("PUT", front.url+"/echo", bytes.NewReader([]byte("again")))
						if err != nil {
							t.Error(err)
							return
						}
						res, body, err := do(c, req)
						if err != nil || res.StatusCode != 200 || body != "again" {
							t.Errorf("%v, %q, %v", line(res), body, err)
						}
						mu.Lock()
						sent++
						mu.Unlock()
					}
				})
			}
			for range 4 {
				time.Sleep(300 * time.Millisecond)
				cmd.Process.Signal(syscall.SIGHUP)
			}
			wg.Wait()
			t.Logf("%d requests", sent)
		})
	}
}

// A back end that ends each connection after very few requests fails none that
// may be repeated, with what a Config says by default.
func TestNginxFewRequests(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			addr, _ := startNginx(t, scheme == "h2c", serve(t, origin(), false), 7)
			front := edge(t, scheme+"://"+addr)
			c := newClient(t, false)
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					for range 100 {
						req, err := http.NewRequest("PUT", front.url+"/echo", bytes.NewReader([]byte("again")))
						if err != nil {
							t.Error(err)
							return
						}
						if res, body, err := do(c, req); err != nil || res.StatusCode != 200 || body != "again" {
							t.Errorf("%v, %q, %v", line(res), body, err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

const haproxyConf = `global
	maxconn 1000
defaults
	mode http
	option http-no-delay
	option forwardfor
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	http-reuse always
frontend f
	bind ADDR H2
	default_backend b
backend b
	server s TARGET
`

func TestHAProxy(t *testing.T) {
	path := prog.Need(t, "haproxy")
	chains(t, func(t *testing.T, h2c bool, target server) string {
		dir := t.TempDir()
		return prog.Start(t, func(addr string) *exec.Cmd {
			conf := strings.NewReplacer("ADDR", addr, "TARGET", target.addr, "H2", map[bool]string{true: "proto h2"}[h2c]).Replace(haproxyConf)
			file := filepath.Join(dir, "conf")
			if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			return exec.Command(path, "-db", "-f", file)
		}, prog.Dial)
	})
}
