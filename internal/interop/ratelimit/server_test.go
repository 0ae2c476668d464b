//go:build linux

package ratelimit

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"
	"github.com/redis/go-redis/v9"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/sqlitestore"
)

// backend is something that processes can share a store in.
type backend struct {
	name string
	addr string // what openStore needs to find it

	// stop and start are nil where there is no server. What the store has
	// acknowledged is there after a restart.
	stop, start func(testing.TB)
}

// backends are what the limiter is proved on. Each call starts a server, if the
// backend has one.
var backends = []struct {
	name string
	make func(testing.TB) *backend
}{
	{"SQLite", func(t testing.TB) *backend {
		return &backend{name: "sqlite", addr: filepath.Join(t.TempDir(), "limits.db")}
	}},
	{"Redis", newRedis},
	{"Postgres", newPostgres},
}

// stallingRedis starts a server that can be stopped in its tracks.
func stallingRedis(t testing.TB) (b *backend, stall, resume func()) {
	s := startRedis(t)
	signal := func(sig syscall.Signal) func() {
		return func() {
			if err := s.cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
		}
	}
	return &backend{name: "redis", addr: s.addr}, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
}

func stallingPostgres(t testing.TB) (b *backend, stall, resume func()) {
	s := startPostgres(t)
	pause := func() {
		if err := s.Pause(); err != nil {
			t.Error(err)
		}
	}
	return &backend{name: "postgres", addr: s.URL("")}, pause, s.Resume
}

// newRedis starts a server that has in its file what it acknowledges, so that
// kill -9 loses nothing; a power cut would.
func newRedis(t testing.TB) *backend {
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "everysec")
	return &backend{
		name: "redis", addr: s.addr,
		stop:  func(testing.TB) { s.kill() },
		start: func(t testing.TB) { s.run(t) },
	}
}

func newPostgres(t testing.TB) *backend {
	s := startPostgres(t)
	check := func(f func() error) func(testing.TB) {
		return func(t testing.TB) {
			t.Helper()
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &backend{name: "postgres", addr: s.URL(""), stop: check(s.Stop), start: check(s.Start)}
}

func startPostgres(t testing.TB) *pgserver.Server {
	t.Helper()
	s, err := pgserver.New()
	switch {
	case err == nil:
	case errors.Is(err, pgserver.ErrMissing) && os.Getenv(prog.Required) == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openStore opens a store in a backend, as a user's program does. The clients
// retry nothing, as redisstore asks for. The commands to Redis are counted.
func openStore(ctx context.Context, name, addr string, calls *atomic.Int64) (s store.Store, done func(), err error) {
	switch name {
	case "sqlite":
		db, err := sql.Open("sqlite3", "file:"+addr+"?_busy_timeout=5000")
		if err != nil {
			return nil, nil, err
		}
		s, err := sqlitestore.New(ctx, sqlitestore.Config{DB: db})
		if err != nil {
			return nil, nil, err
		}
		return s, func() { s.Close(); db.Close() }, nil
	case "redis":
		rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
		s, err := redisstore.New(ctx, redisstore.Config{Do: func(ctx context.Context, args ...any) (any, error) {
			calls.Add(1)
			return rdb.Do(ctx, args...).Result()
		}})
		return s, func() { rdb.Close() }, err
	case "postgres":
		db, err := sql.Open("pgx", addr)
		if err != nil {
			return nil, nil, err
		}
		db.SetMaxOpenConns(4)
		db.SetMaxIdleConns(4)
		s, err := pgstore.New(ctx, pgstore.Config{DB: db})
		if err != nil {
			return nil, nil, err
		}
		return s, func() { s.Close(); db.Close() }, nil
	}
	return nil, nil, errors.New("no backend " + name)
}

// redisServer is a redis-server on a port and in a directory of its own.
type redisServer struct {
	addr string
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// startRedis starts a server until the end of the test. The arguments are its
// configuration, as on its command line.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	path := prog.Need(t, "redis-server")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := &redisServer{addr: l.Addr().String()}
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append([]string{
		path, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--daemonize", "no",
	}, args...)
	s.run(t)
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("redis-server printed:\n%s", s.out.String())
		}
	})
	return s
}

// run starts it, and returns when it answers.
func (s *redisServer) run(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func() {
		s.cmd.Wait()
		close(done)
	}()
	c := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for c.Ping(ctx).Err() != nil {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-done:
			t.Fatalf("redis-server ended:\n%s", s.out.String())
		case <-ctx.Done():
			t.Fatal("redis-server does not get ready")
		}
	}
}

// kill ends the server at once, as kill -9 does.
func (s *redisServer) kill() {
	s.cmd.Process.Kill()
	<-s.done
}
