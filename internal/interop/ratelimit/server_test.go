//go:build linux

package ratelimit

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"
	"github.com/redis/go-redis/v9"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/internal/interop/redisstore/redisserver"
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
	s := redisserver.Start(t)
	signal := func(sig syscall.Signal) func() { return func() { s.Signal(sig) } }
	return &backend{name: "redis", addr: s.Addr}, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
}

func stallingPostgres(t testing.TB) (b *backend, stall, resume func()) {
	s := pgserver.ForTest(t)
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
	s := redisserver.Start(t, "--appendonly", "yes", "--appendfsync", "everysec")
	return &backend{
		name: "redis", addr: s.Addr,
		stop:  func(testing.TB) { s.Kill() },
		start: func(testing.TB) { s.Run() },
	}
}

func newPostgres(t testing.TB) *backend {
	s := pgserver.ForTest(t)
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
