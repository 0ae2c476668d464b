//go:build linux

// Package gateway runs examples/gateway against real servers.
package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/internal/interop/prog"
)

// build compiles the gateway.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "gateway")
	cmd := exec.Command("go", "build", "-o", bin, "./gateway")
	cmd.Dir = filepath.Join("..", "..", "..", "examples")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// startRedis starts a server that wants a password, and returns its address.
func startRedis(t *testing.T) string {
	t.Helper()
	path, dir := prog.Need(t, "redis-server"), t.TempDir()
	return prog.Start(t, func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		return exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--requirepass", "hunter2")
	}, prog.Dial)
}

func startPostgres(t *testing.T) *pgserver.Server {
	t.Helper()
	s, err := pgserver.New()
	if errors.Is(err, pgserver.ErrMissing) && os.Getenv(prog.Required) == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// The gateway starts on each server, twice on the same, says which store it
// uses without the password, and ends with status 0.
func TestStore(t *testing.T) {
	bin := build(t)
	redis, postgres := startRedis(t), startPostgres(t)
	for _, c := range []struct{ name, spec, shown string }{
		{"redis", "redis://:hunter2@" + redis + "/3", "redis://:xxxxx@" + redis + "/3"},
		{"postgres", postgres.URL(""), "postgres://postgres@" + postgres.Addr + "/postgres"},
		{"postgresql", "postgresql://postgres:hunter2@" + postgres.Addr + "/postgres", "postgresql://postgres:xxxxx@" + postgres.Addr + "/postgres"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				printed, stop := start(t, bin, c.spec)
				if !strings.Contains(printed, "gateway: store "+c.shown+"\n") {
					t.Errorf("printed\n%s", printed)
				}
				stop()
			}
		})
	}
}

// start starts a gateway, waits until it serves, and returns what it has
// printed. stop sends it a signal, expects an orderly end, and returns the log.
func start(t *testing.T, bin, spec string, args ...string) (printed string, stop func() string) {
	t.Helper()
	cmd := exec.Command(bin, append(args, "-listen", "127.0.0.1:0", "-store", spec)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // of a test that has ended without stop
		cmd.Process.Kill()
		cmd.Wait()
	})
	hurry := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	var b strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "Try:"; {
		b.WriteString(lines.Text() + "\n")
	}
	return b.String(), func() string {
		t.Helper()
		defer hurry.Stop()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || strings.Contains(log.String(), "not closed properly") {
			t.Errorf("%v, want exit status 0\n%s", err, &log)
		}
		return log.String()
	}
}

// What a server refuses, and one that is not there, is one line without the
// password, and exit status 1. Nothing else writes to standard error.
func TestStoreRefused(t *testing.T) {
	bin := build(t)
	redis, postgres := startRedis(t), startPostgres(t)
	for _, c := range []struct{ name, spec, want string }{
		{"redis password", "redis://:hunter3@" + redis, "WRONGPASS"},
		{"redis database", "redis://:hunter2@" + redis + "/99", "out of range"},
		{"redis gone", "redis://:hunter3@127.0.0.1:1", "refused"},
		{"redis encrypted", "rediss://:hunter3@" + redis, ""},
		{"postgres database", "postgres://postgres:hunter3@" + postgres.Addr + "/none", `database "none" does not exist`},
		{"postgres role", "postgres://nobody:hunter3@" + postgres.Addr + "/postgres", `role "nobody" does not exist`},
		{"postgres gone", "postgres://postgres:hunter3@localhost:1/postgres", "refused"},
		{"postgres encrypted", postgres.URL("sslmode=require"), ""},
		{"redis is no postgres", "postgres://postgres:hunter3@" + redis, ""},
		{"postgres is no redis", "redis://:hunter3@" + postgres.Addr, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			began := time.Now()
			out, err := exec.CommandContext(ctx, bin, "-listen", "127.0.0.1:0", "-store", c.spec).CombinedOutput()
			took, line := time.Since(began), string(out)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 || took > 8*time.Second {
				t.Errorf("%v after %v, want exit status 1 within the 5 s for opening", err, took)
			}
			if !strings.HasPrefix(line, "gateway: -store: "+c.spec[:5]) || !strings.Contains(line, " cannot be used: ") ||
				!strings.Contains(line, c.want) || strings.Count(line, "\n") != 1 || strings.Contains(line, "hunter") {
				t.Errorf("printed %q", line)
			}
			t.Log(line)
		})
	}
}
