package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
)

// fakeDriver is a database that has as much of SQLite as the tests here need:
// it remembers the statements, keeps values without conditions, and fails or
// stalls where it is told to. What needs the real one is tested in
// internal/interop/sqlitestore.
type fakeDriver struct {
	// hook is called before each statement, and what it returns is the result
	// if it is not nil.
	hook func(text string) error

	mu      sync.Mutex
	log     []string
	conns   int // open
	stmts   int // open
	version int64
	values  map[string][]byte
}

// openFake returns a DB on f. Tests in a synctest bubble call it within.
func openFake(t *testing.T, f *fakeDriver) *sql.DB {
	f.values = make(map[string][]byte)
	db := sql.OpenDB(f)
	t.Cleanup(func() { db.Close() })
	return db
}

func (f *fakeDriver) Connect(context.Context) (driver.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns++
	return &fakeConn{f}, nil
}

func (f *fakeDriver) Driver() driver.Driver { return nil }

// statements returns those executed since the last call that begin with one of
// the words, or all.
func (f *fakeDriver) statements(words ...string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	for _, text := range f.log {
		for _, w := range words {
			if strings.HasPrefix(text, w) {
				found = append(found, text)
				break
			}
		}
		if len(words) == 0 {
			found = append(found, text)
		}
	}
	f.log = nil
	return found
}

type fakeConn struct{ f *fakeDriver }

func (c *fakeConn) Begin() (driver.Tx, error) { return nil, errors.New("no Begin") }

func (c *fakeConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.conns--
	return nil
}

func (c *fakeConn) Prepare(text string) (driver.Stmt, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.stmts++
	return &fakeStmt{c.f, text}, nil
}

type fakeStmt struct {
	f    *fakeDriver
	text string
}

func (s *fakeStmt) NumInput() int { return -1 }

func (s *fakeStmt) Close() error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.stmts--
	return nil
}

// open returns what was not closed.
func (f *fakeDriver) open() (conns, stmts int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns, f.stmts
}

func (s *fakeStmt) Exec(args []driver.Value) (driver.Result, error) {
	_, err := s.Query(args)
	return driver.RowsAffected(1), err
}

func (s *fakeStmt) Query(args []driver.Value) (driver.Rows, error) {
	f := s.f
	f.mu.Lock()
	f.log = append(f.log, s.text)
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		if err := hook(s.text); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	text := s.text
	has := func(prefix string) bool { return strings.HasPrefix(text, prefix) }
	switch {
	case text == "PRAGMA journal_mode":
		return &fakeRows{row: []driver.Value{"wal"}}, nil
	case has("SELECT count(*) FROM sqlite_master"):
		return &fakeRows{row: []driver.Value{min(f.version+1, 1)}}, nil
	case has("SELECT version"):
		return &fakeRows{row: []driver.Value{f.version}}, nil
	case has("UPDATE") && strings.HasSuffix(text, "SET version = ?"):
		f.version = args[0].(int64)
	case has(`INSERT INTO "plainware_values"`):
		f.values[string(args[0].([]byte))] = args[2].([]byte)
	case has("SELECT value, expires"):
		if v, ok := f.values[string(args[0].([]byte))]; ok {
			return &fakeRows{row: []driver.Value{v, int64(never)}}, nil
		}
	case has("SELECT max(key)"):
		return &fakeRows{row: []driver.Value{nil, int64(0), int64(0)}}, nil
	}
	return &fakeRows{}, nil
}

// fakeRows are one row or none.
type fakeRows struct{ row []driver.Value }

func (r *fakeRows) Columns() []string { return make([]string, len(r.row)) }
func (r *fakeRows) Close() error      { return nil }

func (r *fakeRows) Next(dest []driver.Value) error {
	if r.row == nil {
		return io.EOF
	}
	copy(dest, r.row)
	r.row = nil
	return nil
}
