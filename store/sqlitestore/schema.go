package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Version is the newest version of the tables that this package knows, and the
// one it works with.
const Version = 1

// A migration is one step between two versions. {T} stands for Config.Table.
type migration struct{ up, down []string }

// migrations[i] leads from version i to i+1. Published ones are never changed.
//
// Keys are blobs, so that they compare byte by byte under any encoding of the
// database. That of a register is its space and its key with a zero byte
// between, which neither contains. Times are nanoseconds since 1970; a row is
// live while expires is later than now. There is no index on expires, since
// every operation on a register would have to move its entry; the sweep walks
// along the keys instead. In values, expires stands before value, where it can
// be read without the overflow pages of long values.
var migrations = []migration{
	{
		up: []string{
			`CREATE TABLE "{T}_values" (
				key     BLOB    NOT NULL PRIMARY KEY,
				expires INTEGER NOT NULL,
				value   BLOB    NOT NULL
			)`,
			`CREATE TABLE "{T}_registers" (
				key     BLOB    NOT NULL PRIMARY KEY,
				value   INTEGER NOT NULL,
				expires INTEGER NOT NULL
			) WITHOUT ROWID`,
		},
		down: []string{
			`DROP TABLE "{T}_registers"`,
			`DROP TABLE "{T}_values"`,
		},
	},
}

// Migrate takes the tables of cfg to a version, up or down, in one transaction:
// all of it happens or nothing. [New] does it by itself on the way up; Migrate
// is for programs that prepare their databases beforehand, and for the way
// down. Version 0 removes the tables with all they hold. No store may be open
// on the tables on the way down, in any process.
//
// Of cfg it uses DB, Table and Timeout.
func Migrate(ctx context.Context, cfg Config, version int) error {
	cfg, err := cfg.prepare()
	if version < 0 || version > len(migrations) {
		err = errors.Join(err, fmt.Errorf("sqlitestore: version: must be 0 to %d (got %d)", len(migrations), version))
	}
	if err != nil {
		return err
	}
	if cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
	}
	c, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.discard()
	return c.migrate(ctx, cfg.Table, migrations, version, true)
}

// migrate goes from the version that the database has to another, down only if
// told. The version is in a table of its own, because PRAGMA user_version
// belongs to the user.
func (c *conn) migrate(ctx context.Context, table string, steps []migration, version int, down bool) (err error) {
	exec := func(text string, args ...any) error {
		_, err := c.sql.ExecContext(ctx, strings.ReplaceAll(text, "{T}", table), args...)
		return err
	}
	if err := retry(ctx, func() error { return exec("BEGIN IMMEDIATE") }); err != nil {
		return fmt.Errorf("sqlitestore: DB: cannot be written: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("sqlitestore: migration of the tables %s_*: %w", table, err)
			c.sql.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	have, err := c.version(ctx, table)
	if err != nil {
		return err
	}
	switch {
	case have > len(steps):
		return fmt.Errorf("they have version %d, and this program knows versions up to %d: it is older than another one that uses the file", have, len(steps))
	case have > version && !down:
		return fmt.Errorf("they have version %d, which is above %d", have, version)
	}
	if have == 0 && version > 0 {
		if err := exec(`CREATE TABLE IF NOT EXISTS "{T}_schema" (version INTEGER NOT NULL)`); err != nil {
			return err
		}
		if err := exec(`INSERT INTO "{T}_schema" (version) VALUES (0)`); err != nil {
			return err
		}
	}
	if version > 0 {
		// BEGIN IMMEDIATE takes no lock in a file that is read-only.
		if err := exec(`UPDATE "{T}_schema" SET version = version WHERE 0`); err != nil {
			return err
		}
	}
	at := have
	for at != version {
		var texts []string
		if at < version {
			texts = steps[at].up
			at++
		} else {
			at--
			texts = steps[at].down
		}
		for _, text := range texts {
			if err := exec(text); err != nil {
				return err
			}
		}
	}
	switch {
	case version == 0 && have > 0:
		err = exec(`DROP TABLE "{T}_schema"`)
	case version != have:
		err = exec(`UPDATE "{T}_schema" SET version = ?`, version)
	}
	if err != nil {
		return err
	}
	return retry(ctx, func() error { return exec("COMMIT") })
}

// version returns the version of the tables, 0 if there are none.
func (c *conn) version(ctx context.Context, table string) (int, error) {
	var n int
	err := c.sql.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)`, table+"_schema").Scan(&n)
	if err != nil || n == 0 {
		return 0, err
	}
	err = c.sql.QueryRowContext(ctx, strings.ReplaceAll(`SELECT version FROM "{T}_schema"`, "{T}", table)).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("the table %s_schema is empty", table)
	}
	return n, err
}

// chunk is how many registers one statement reads or writes. Fewer go one by
// one.
const chunk = 16

// queries are the texts of the prepared statements.
type queries struct {
	get, page                              string
	put, insert, swap, remove              string
	removeIf, touch                        string
	load, loadMany, save, saveMany         string
	sweepVals, sweepRegs, delVals, delRegs string
}

func newQueries(table string) *queries {
	t := func(text string) string { return strings.ReplaceAll(text, "{T}", table) }
	const (
		load   = `SELECT key, value, expires FROM "{T}_registers" WHERE key `
		save   = `INSERT INTO "{T}_registers" (key, value, expires) VALUES (?, ?, ?)`
		onSave = ` ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires`

		// The last key of the next slice and how many of its rows have expired.
		slice = `SELECT max(key), count(*), coalesce(sum(expires <= ?), 0) FROM (SELECT key, expires FROM "{T}_`
		rest  = `" WHERE key > ? ORDER BY key LIMIT ?)`
	)
	return &queries{
		get:  t(`SELECT value, expires FROM "{T}_values" WHERE key = ?`),
		page: t(`SELECT key, expires FROM "{T}_values" WHERE key >= ? ORDER BY key LIMIT ?`),

		put: t(`INSERT INTO "{T}_values" (key, expires, value) VALUES (?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET expires = excluded.expires, value = excluded.value`),
		insert: t(`INSERT INTO "{T}_values" (key, expires, value) VALUES (?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET expires = excluded.expires, value = excluded.value WHERE expires <= ?`),
		swap:     t(`UPDATE "{T}_values" SET expires = ?, value = ? WHERE key = ? AND expires > ? AND value = ?`),
		remove:   t(`DELETE FROM "{T}_values" WHERE key = ?`),
		removeIf: t(`DELETE FROM "{T}_values" WHERE key = ? AND expires > ? AND value = ?`),
		touch:    t(`UPDATE "{T}_values" SET expires = ? WHERE key = ? AND expires > ?`),

		load:     t(load + `= ?`),
		loadMany: t(load + `IN (?` + strings.Repeat(`, ?`, chunk-1) + `)`),
		save:     t(save + onSave),
		saveMany: t(save + strings.Repeat(`, (?, ?, ?)`, chunk-1) + onSave),

		sweepVals: t(slice + `values` + rest),
		sweepRegs: t(slice + `registers` + rest),
		delVals:   t(`DELETE FROM "{T}_values" WHERE key > ? AND key <= ? AND expires <= ?`),
		delRegs:   t(`DELETE FROM "{T}_registers" WHERE key > ? AND key <= ? AND expires <= ?`),
	}
}
