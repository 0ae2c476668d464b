//go:build linux

package pgstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

var (
	shared     *pgserver.Server
	sharedErr  error
	sharedOnce sync.Once
)

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		worker()
		return
	}
	code := m.Run()
	if shared != nil {
		shared.Close()
	}
	os.Exit(code)
}

// server returns the server that all tests share which do not harm it.
func server(t testing.TB) *pgserver.Server {
	t.Helper()
	sharedOnce.Do(func() { shared, sharedErr = pgserver.New() })
	pgserver.Need(t, sharedErr)
	return shared
}

func open(t testing.TB, driver, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	return db
}

var schemas atomic.Int64

// freshSchema is a name that no other test of this run has.
func freshSchema() string { return fmt.Sprintf("test_%d", schemas.Add(1)) }

// newStore returns a store whose calls end with their contexts, far below its
// own limit, unless the test is about that.
func newStore(t testing.TB, cfg pgstore.Config) *pgstore.Store {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	s, err := pgstore.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// onShared returns a store of its own on the shared server, with its database.
func onShared(t testing.TB) (*pgstore.Store, *sql.DB, string) {
	t.Helper()
	db := open(t, "pgx", server(t).URL(""))
	schema := freshSchema()
	return newStore(t, pgstore.Config{DB: db, Schema: schema}), db, schema
}

func execute(t testing.TB, db *sql.DB, format string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), fmt.Sprintf(format, args...)); err != nil {
		t.Fatalf(format+": %v", append(args, err)...)
	}
}

func scalar[T any](t testing.TB, db *sql.DB, format string, args ...any) (x T) {
	t.Helper()
	if err := db.QueryRowContext(context.Background(), fmt.Sprintf(format, args...)).Scan(&x); err != nil {
		t.Fatalf(format+": %v", append(args, err)...)
	}
	return x
}

// hour is a bucket of n tokens that gets one an hour, so that its clock stands
// still for a test.
func hour(key string, n int64) store.Op {
	return store.Op{Space: "bucket", Key: key, Clock: true, Ceil: n * int64(time.Hour), Step: int64(time.Hour), Min: 1, Max: 1}
}

func advance(t testing.TB, s store.Registers, op store.Op) store.Result {
	t.Helper()
	r, err := s.Advance(t.Context(), op)
	if err != nil {
		t.Fatalf("Advance: %v", err)
	}
	return r
}

// noLeak fails the test if there are more goroutines than before, still after
// twenty seconds.
func noLeak(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			var b strings.Builder
			pprof.Lookup("goroutine").WriteTo(&b, 1)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b.String())
		}
		pause()
	}
}

// pause waits a little for another process.
func pause() { <-time.After(20 * time.Millisecond) }

// eventually calls f until it succeeds.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		pause()
	}
}
