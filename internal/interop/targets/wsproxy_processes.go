package targets

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/plainware/internal/interop/prog"
)

// tunnels is what the measures of wsproxy share: the back end, and the program
// that runs our proxy and ReverseProxy.
type tunnels struct {
	dir    string
	binary string
	back   *tunnelBack
}

// contestant starts a proxy for the back end.
type contestant func(*testing.B) *process

// process is a proxy that runs.
type process struct {
	addr string
	pid  int
	stop func()
	// collect, unless nil, has the process give back what memory it can.
	collect func() error
}

func (w *tunnels) setup() (end func(), err error) {
	if w.dir, err = os.MkdirTemp("", "tunnels"); err != nil {
		return nil, err
	}
	remove := func() { os.RemoveAll(w.dir) }
	w.binary = filepath.Join(w.dir, "tunnel")
	build := exec.Command("go", "build", "-o", w.binary, "example.com/plainware/internal/interop/cmd/tunnel")
	if out, err := build.CombinedOutput(); err != nil {
		remove()
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	if w.back, err = newTunnelBack(); err != nil {
		remove()
		return nil, err
	}
	return func() {
		w.back.Close()
		remove()
	}, nil
}

// own is the program of this module.
func (w *tunnels) own(args ...string) contestant {
	return func(b *testing.B) *process {
		b.Helper()
		cmd := exec.Command(w.binary, append([]string{"-target", w.back.addr()}, args...)...)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		lines := bufio.NewReader(out)
		p := &process{
			pid: cmd.Process.Pid,
			stop: func() {
				in.Close()
				_, _ = io.Copy(io.Discard, lines)
				_ = cmd.Wait()
			},
			collect: func() error {
				if _, err := io.WriteString(in, "\n"); err != nil {
					return err
				}
				_, err := lines.ReadString('\n')
				return err
			},
		}
		addr, err := lines.ReadString('\n')
		if err != nil {
			p.stop()
			b.Fatal(err)
		}
		p.addr = strings.TrimSpace(addr)
		return p
	}
}

// program starts one that reads a configuration file.
func (w *tunnels) program(b *testing.B, name, conf string, args func(file string) []string) *process {
	b.Helper()
	path, err := prog.Find(name)
	if err != nil {
		b.Skip(err)
	}
	dir, err := os.MkdirTemp(w.dir, name)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(dir, "conf")
	var cmd *exec.Cmd
	p, err := prog.Run(context.Background(), func(addr string) *exec.Cmd {
		text := strings.NewReplacer("DIR", dir, "ADDR", addr, "TARGET", w.back.addr()).Replace(conf)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		cmd = exec.Command(path, args(file)...)
		return cmd
	}, prog.Dial)
	if err != nil {
		p.Stop()
		b.Fatal(err)
	}
	return &process{addr: p.Addr, pid: cmd.Process.Pid, stop: p.Stop}
}

func (w *tunnels) haproxy(b *testing.B) *process {
	b.Helper()
	return w.program(b, "haproxy", `global
	maxconn 7000
defaults
	mode http
	maxconn 7000
	option splice-auto
	timeout connect 10s
	timeout client 600s
	timeout server 600s
	timeout tunnel 600s
frontend front
	bind ADDR
	default_backend target
backend target
	server target TARGET
`, func(file string) []string { return []string{"-db", "-f", file} })
}

func (w *tunnels) nginx(b *testing.B) *process {
	b.Helper()
	return w.program(b, "nginx", `daemon off; master_process off; user root;
pid DIR/pid; error_log stderr crit; worker_rlimit_nofile 30000;
events { worker_connections 20000; }
http {
	access_log off;
	client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;
	server {
		listen ADDR;
		location / {
			proxy_pass http://TARGET; proxy_http_version 1.1; proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
			proxy_read_timeout 600s; proxy_send_timeout 600s;
		}
	}
}
`, func(file string) []string { return []string{"-c", file, "-p", filepath.Dir(file), "-e", "stderr"} })
}

// settle waits until the process does nothing more and has given back memory.
func (p *process) settle(b *testing.B) {
	b.Helper()
	time.Sleep(quiet)
	if p.collect != nil {
		if err := p.collect(); err != nil {
			b.Fatal(err)
		}
	}
}

// memory is the resident memory in KB.
func (p *process) memory(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Fscan(bytes.NewReader(text), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * os.Getpagesize() >> 10
}

func (p *process) descriptors(b *testing.B) int {
	b.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	return len(all)
}

// cpu is the CPU time of all threads of the process so far.
func (p *process) cpu(b *testing.B) time.Duration {
	b.Helper()
	// The clock of another process, as clock_getcpuclockid(3) makes it.
	clock := int32(^p.pid)<<3 | unix.CLOCK_PROCESS_CPUTIME_ID
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
