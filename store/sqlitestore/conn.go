package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// conn is the connection that the writer holds.
type conn struct {
	sql  *sql.Conn
	full bool // synchronous is FULL, else NORMAL

	begin, commit                          *sql.Stmt
	get, put, insert, swap                 *sql.Stmt
	remove, removeIf, touch                *sql.Stmt
	load, loadMany, save, saveMany         *sql.Stmt
	sweepVals, sweepRegs, delVals, delRegs *sql.Stmt

	stmts []*sql.Stmt // all of them
}

// open takes a connection out of the pool and the file into WAL mode.
func open(ctx context.Context, cfg Config) (_ *conn, err error) {
	sc, err := cfg.DB.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("sqlitestore: DB: no connection: %w", err)
	}
	c := &conn{sql: sc}
	defer func() {
		if err != nil {
			c.discard()
			err = fmt.Errorf("sqlitestore: DB: %w", err)
		}
	}()
	err = retry(ctx, func() error {
		_, err := sc.ExecContext(ctx, "PRAGMA busy_timeout = 0")
		return err
	})
	if err != nil {
		return nil, err
	}
	mode := func(text string) (mode string, err error) {
		err = retry(ctx, func() error { return sc.QueryRowContext(ctx, text).Scan(&mode) })
		return strings.ToLower(mode), err
	}
	switch m, err := mode("PRAGMA journal_mode"); {
	case err != nil:
		return nil, err
	case m == "memory":
		return nil, errors.New("the database is in memory, where each connection may have its own and none outlives the process: use a file, or store.NewMemory")
	case m != "wal":
		// Fails while another connection uses the file.
		if m, err = mode("PRAGMA journal_mode = WAL"); err != nil {
			return nil, fmt.Errorf("the journal mode cannot be changed to WAL: %w", err)
		} else if m != "wal" {
			return nil, fmt.Errorf("the journal mode cannot be changed to WAL: it stays %s, as for temporary databases and where the file system has no shared memory", m)
		}
	}
	if err := retry(ctx, func() error { return c.setFull(ctx, false) }); err != nil {
		return nil, err
	}
	return c, nil
}

// setFull sets the durability of the next transaction. SQLite refuses to change
// it within one.
func (c *conn) setFull(ctx context.Context, full bool) error {
	text := "PRAGMA synchronous = NORMAL"
	if full {
		text = "PRAGMA synchronous = FULL"
	}
	_, err := c.sql.ExecContext(ctx, text)
	if err == nil {
		c.full = full
	}
	return err
}

func (c *conn) prepare(ctx context.Context, q *queries) error {
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&c.begin, "BEGIN IMMEDIATE"}, {&c.commit, "COMMIT"},
		{&c.get, q.get}, {&c.put, q.put}, {&c.insert, q.insert}, {&c.swap, q.swap},
		{&c.remove, q.remove}, {&c.removeIf, q.removeIf}, {&c.touch, q.touch},
		{&c.load, q.load}, {&c.loadMany, q.loadMany}, {&c.save, q.save}, {&c.saveMany, q.saveMany},
		{&c.sweepVals, q.sweepVals}, {&c.sweepRegs, q.sweepRegs},
		{&c.delVals, q.delVals}, {&c.delRegs, q.delRegs},
	} {
		err := retry(ctx, func() (err error) {
			*p.stmt, err = c.sql.PrepareContext(ctx, p.text)
			return err
		})
		if err != nil {
			return err
		}
		c.stmts = append(c.stmts, *p.stmt)
	}
	return nil
}

// discard closes the connection instead of giving it back: its busy timeout and
// its durability are not those that the DB's other users expect. An open
// transaction is rolled back.
//
// The statements are closed first. database/sql leaves those of a Conn to who
// has prepared them, and SQLite keeps a connection open, with its files and
// its part of the WAL, until its last statement has gone.
func (c *conn) discard() {
	for _, stmt := range c.stmts {
		stmt.Close() // fails where the connection is broken, which is why it goes
	}
	c.sql.Raw(func(any) error { return driver.ErrBadConn }) // this is how database/sql is told
	c.sql.Close()
}
