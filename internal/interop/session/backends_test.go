//go:build linux

package session

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/internal/interop/prog"
)

// backend is something that outlives the processes of the shop.
type backend struct {
	name string
	open func(t *testing.T) (source string)
}

var backends = []backend{
	{"sqlite", func(t *testing.T) string { return "sqlite file:" + filepath.Join(t.TempDir(), "sessions.db") }},
	{"redis", func(t *testing.T) string { return "redis " + startRedis(t, t.TempDir()) }},
	{"postgres", func(t *testing.T) string { return "postgres " + postgres(t).URL("") }},
}

// startRedis runs a redis-server that keeps what it is told in dir.
func startRedis(t *testing.T, dir string) (addr string) {
	t.Helper()
	path := prog.Need(t, "redis-server")
	return prog.Start(t, func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		return exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--dir", dir,
			"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no")
	}, func(ctx context.Context, addr string) error {
		c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
		defer c.Close()
		return c.Ping(ctx).Err()
	})
}

var (
	shared     *pgserver.Server
	sharedErr  error
	sharedOnce sync.Once
)

// postgres returns a server that all tests share.
func postgres(t *testing.T) *pgserver.Server {
	t.Helper()
	sharedOnce.Do(func() { shared, sharedErr = pgserver.New() })
	switch {
	case errors.Is(sharedErr, pgserver.ErrMissing) && os.Getenv(prog.Required) == "":
		t.Skip(sharedErr)
	case sharedErr != nil:
		t.Fatal(sharedErr)
	}
	return shared
}

func closeShared() {
	if shared != nil {
		shared.Close()
	}
}
