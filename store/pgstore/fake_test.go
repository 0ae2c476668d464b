package pgstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/plainware/store/pgstore"
)

// fake is a driver that answers what the test says, for what needs no server.
type fake struct {
	mu    sync.Mutex
	texts []string // of the statements, as run

	// answer returns the rows of a statement, or an error. Nil is the server
	// of healthy.
	answer func(ctx context.Context, text string, args []driver.NamedValue) ([][]driver.Value, error)
}

// healthy is what a good server with an up-to-date schema answers to New.
func healthy(text string) [][]driver.Value {
	switch {
	case strings.Contains(text, "server_version_num"):
		return [][]driver.Value{{int64(150018), "read committed", false, false}}
	case strings.Contains(text, "pg_class"), strings.Contains(text, "pg_namespace"):
		return [][]driver.Value{{true}}
	case strings.HasPrefix(text, "SELECT version"):
		return [][]driver.Value{{int64(1)}}
	}
	return nil
}

func (f *fake) run(ctx context.Context, text string, args []driver.NamedValue) ([][]driver.Value, error) {
	f.mu.Lock()
	f.texts = append(f.texts, text)
	f.mu.Unlock()
	if f.answer != nil {
		return f.answer(ctx, text, args)
	}
	return healthy(text), nil
}

// ran returns the statements so far, and forgets them.
func (f *fake) ran() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	texts := f.texts
	f.texts = nil
	return texts
}

func (f *fake) db(t testing.TB) *sql.DB {
	db := sql.OpenDB(f)
	t.Cleanup(func() { db.Close() })
	return db
}

func (f *fake) store(t testing.TB, cfg pgstore.Config) *pgstore.Store {
	t.Helper()
	cfg.DB = f.db(t)
	s, err := pgstore.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f.ran()
	return s
}

func (f *fake) Connect(context.Context) (driver.Conn, error) { return fakeConn{f}, nil }
func (f *fake) Driver() driver.Driver                        { return nil }

type fakeConn struct{ f *fake }

func (c fakeConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (c fakeConn) Close() error                        { return nil }
func (c fakeConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }

func (c fakeConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	_, err := c.f.run(ctx, "BEGIN", nil)
	return fakeTx(c), err
}

func (c fakeConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.f.run(ctx, text, args)
	return &fakeRows{rows}, err
}

func (c fakeConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	_, err := c.f.run(ctx, text, args)
	// A Result is asked after the connection went back to the pool, where the
	// next statement may hold it for as long as it likes: the store must not.
	return driver.ResultNoRows, err
}

type fakeTx fakeConn

func (x fakeTx) Commit() error {
	_, err := x.f.run(context.Background(), "COMMIT", nil)
	return err
}

func (x fakeTx) Rollback() error {
	_, err := x.f.run(context.Background(), "ROLLBACK", nil)
	return err
}

type fakeRows struct{ rows [][]driver.Value }

func (r *fakeRows) Columns() []string {
	if len(r.rows) == 0 {
		return nil
	}
	return slices.Repeat([]string{"?column?"}, len(r.rows[0]))
}

func (r *fakeRows) Close() error { return nil }

func (r *fakeRows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(dest, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}
