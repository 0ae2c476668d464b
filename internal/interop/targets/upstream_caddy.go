package targets

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/load"
	"example.com/plainware/internal/interop/prog"
)

// caddyfile has Caddy do what ours does, and keep as many connections: more
// than the 32 that it keeps of itself.
const caddyfile = `{
	admin off
	persist_config off
	auto_https off
	log {
		level ERROR
	}
}
:PORT {
	bind HOST
	reverse_proxy BACKENDS {
		transport http {
			keepalive_idle_conns_per_host 4096
			compression off
		}
	}
}
`

// behindCaddy sends the requests of a job through a Caddy, on one processor as
// the others, and reports the CPU time of its process.
func (b *bench) behindCaddy(path string, job load.Job) func(*testing.B) {
	return func(tb *testing.B) {
		b.once.Do(b.start)
		if b.err != nil {
			tb.Fatal(b.err)
		}
		if b.caddy == nil {
			b.caddy = startCaddy(tb, path, b.load.BackEnds)
		}
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // it only waits
		job.Addr, job.N = b.caddy.addr, job.Conns
		if err := b.load.Run(job); err != nil { // opens the connections
			tb.Fatal(err)
		}
		tb.ResetTimer()
		before := b.caddy.cpu(tb)
		job.N = tb.N
		if err := b.load.Run(job); err != nil {
			tb.Fatal(err)
		}
		tb.ReportMetric(float64(b.caddy.cpu(tb)-before)/float64(tb.N), "ns/op")
	}
}

// setup lets a Caddy run for one measure, as long as the measure takes.
func (b *bench) setup() (end func(), err error) {
	return func() {
		if b.caddy != nil {
			b.caddy.stop()
			b.caddy = nil
		}
	}, nil
}

func startCaddy(tb *testing.B, path string, backEnds []string) *process {
	tb.Helper()
	dir, err := os.MkdirTemp("", "caddy")
	if err != nil {
		tb.Fatal(err)
	}
	var cmd *exec.Cmd
	p, err := prog.Run(context.Background(), func(addr string) *exec.Cmd {
		host, port, _ := strings.Cut(addr, ":")
		text := strings.NewReplacer("HOST", host, "PORT", port, "BACKENDS", strings.Join(backEnds, " ")).Replace(caddyfile)
		file := filepath.Join(dir, "Caddyfile")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		cmd = exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = []string{"GOMAXPROCS=1", "HOME=" + dir}
		return cmd
	}, prog.Dial)
	stop := func() {
		p.Stop()
		os.RemoveAll(dir)
	}
	if err != nil {
		stop()
		tb.Fatal(err)
	}
	time.Sleep(quiet) // it has more to do at its start than to listen
	return &process{addr: p.Addr, pid: cmd.Process.Pid, stop: stop}
}
