package wsproxy_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/wsproxy"
)

// startProgram is another proxy that passes everything to target, over
// HTTP/1.1 or, where h2 is set, over HTTP/2 with RFC 8441.
type startProgram func(t *testing.T, target server, h2 bool) (addr string)

// around puts a program in front of a Proxy, behind one, and between two.
func around(t *testing.T, start startProgram, h2 bool) {
	echo := serve(t, http.HandlerFunc(echoGorilla), false)
	for _, mode := range []wsproxy.Mode{wsproxy.Frames, wsproxy.Tunnel} {
		for name, open := range map[string]client{"gorilla": openGorilla, "coder": openCoder} {
			t.Run(name+" through it to a Proxy over HTTP/1.1, "+mode.String(), func(t *testing.T) {
				ours := startProxy(t, echo, false, wsproxy.Config{Mode: mode})
				exercise(t, open, "ws://"+start(t, ours, false), nil)
			})
			t.Run(name+" through a Proxy and it, "+mode.String(), func(t *testing.T) {
				ours := startProxy(t, server{addr: start(t, echo, false)}, false, wsproxy.Config{Mode: mode})
				exercise(t, open, ours.url(""), nil)
			})
			if !h2 {
				continue
			}
			for _, secure := range []bool{false, true} {
				ours := startProxy(t, echo, secure, wsproxy.Config{Mode: mode})
				t.Run(name+" through it to a Proxy over HTTP/2, "+ours.scheme()+", "+mode.String(), func(t *testing.T) {
					exercise(t, open, "ws://"+start(t, ours, true), nil)
				})
				t.Run(name+" through a Proxy, it, and a Proxy over HTTP/2, "+ours.scheme()+", "+mode.String(), func(t *testing.T) {
					first := startProxy(t, server{addr: start(t, ours, true)}, false, wsproxy.Config{Mode: mode})
					exercise(t, open, first.url(""), nil)
				})
			}
		}
	}
}

const haproxyConf = `global
	maxconn 1000
defaults
	mode http
	timeout connect 10s
	timeout client 60s
	timeout server 60s
	timeout tunnel 60s
frontend front
	bind ADDR
	default_backend target
backend target
	server target TARGET
`

func TestHAProxy(t *testing.T) {
	around(t, func(t *testing.T, target server, h2 bool) string {
		path := prog.Need(t, "haproxy")
		dir := t.TempDir()
		line := target.addr
		if target.roots != nil {
			line += " ssl verify none"
		}
		switch {
		case h2 && target.roots != nil:
			line += " alpn h2 ws h2"
		case h2:
			line += " proto h2 ws h2"
		}
		return prog.Start(t, func(addr string) *exec.Cmd {
			file := filepath.Join(dir, "conf")
			conf := strings.NewReplacer("ADDR", addr, "TARGET", line).Replace(haproxyConf)
			if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			return exec.Command(path, "-db", "-f", file)
		}, prog.Dial)
	}, true)
}

const nginxConf = `daemon off; master_process off; user root;
pid DIR/pid; error_log stderr crit;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;
	server {
		listen ADDR;
		location / {
			proxy_pass http://TARGET; proxy_http_version 1.1; proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
	}
}
`

func TestNginx(t *testing.T) {
	around(t, func(t *testing.T, target server, _ bool) string {
		path := prog.Need(t, "nginx")
		dir := t.TempDir()
		var cmd *exec.Cmd
		addr := prog.Start(t, func(addr string) *exec.Cmd {
			file := filepath.Join(dir, "conf")
			conf := strings.NewReplacer("DIR", dir, "ADDR", addr, "TARGET", target.addr).Replace(nginxConf)
			if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd = exec.Command(path, "-c", file, "-p", dir, "-e", "stderr")
			return cmd
		}, prog.Dial)
		t.Cleanup(func() { // before it is killed, which would leave its files
			_ = cmd.Process.Signal(syscall.SIGTERM)
			for range 100 {
				if _, err := os.Stat(filepath.Join(dir, "pid")); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
		return addr
	}, false)
}

// nghttpx takes any of HTTP/1.1 and HTTP/2 and passes either.
func TestNghttpx(t *testing.T) {
	around(t, func(t *testing.T, target server, h2 bool) string {
		path := prog.Need(t, "nghttpx")
		host, port, _ := strings.Cut(target.addr, ":")
		backend := host + "," + port + ";"
		if h2 {
			backend += ";proto=h2"
		}
		if target.roots != nil {
			backend += ";tls"
		}
		return prog.Start(t, func(addr string) *exec.Cmd {
			return exec.Command(path, "--conf=/dev/null", "--workers=1", "--single-process", "--no-ocsp",
				"--errorlog-file=/dev/stderr", "--accesslog-file=/dev/null", "--insecure",
				"--frontend="+strings.Replace(addr, ":", ",", 1)+";no-tls", "--backend="+backend)
		}, prog.Dial)
	}, true)
}
