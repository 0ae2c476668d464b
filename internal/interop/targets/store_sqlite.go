package targets

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	_ "modernc.org/sqlite"          // the driver "sqlite"

	"example.com/plainware/store"
	"example.com/plainware/store/sqlitestore"
)

// sqliteMeasures are decisions of 128 callers on 10,000 keys of one file, whose
// calls share transactions, or each have their own. The third driver,
// ncruces/go-sqlite3, registers the same name as the second, so it cannot be in
// one program with it.
func sqliteMeasures() []Measure {
	var all []Measure
	for _, d := range []struct{ name, driver string }{
		{"modernc", "sqlite"}, {"mattn", "sqlite3"},
	} {
		var grouped, single store.Registers
		keys := names("sqlite-", 10_000)
		all = append(all, Measure{
			Package: "store", Name: "SQLite, " + d.name + ", 128 callers", Scale: Rate,
			Setup: func() (func(), error) {
				dir, err := os.MkdirTemp("", "targets")
				if err != nil {
					return nil, err
				}
				var ends []func() error
				end := func() {
					for _, f := range ends {
						f()
					}
					os.RemoveAll(dir)
				}
				open := func(file string, group int) (store.Registers, error) {
					db, err := sql.Open(d.driver, "file:"+filepath.Join(dir, file))
					if err != nil {
						return nil, err
					}
					s, err := sqlitestore.New(context.Background(), sqlitestore.Config{DB: db, Group: group})
					if err != nil {
						db.Close()
						return nil, err
					}
					ends = append(ends, s.Close, db.Close)
					return s, fill(s, keys)
				}
				var err1, err2 error
				grouped, err1 = open("grouped.db", 0)
				single, err2 = open("single.db", -1)
				if err := errors.Join(err1, err2); err != nil {
					end()
					return nil, err
				}
				return end, nil
			},
			Ours:      func(b *testing.B) { together(b, 128, keys, advance(grouped)) },
			Peers:     []Peer{{Name: "one transaction a call", Run: func(b *testing.B) { together(b, 128, keys, advance(single)) }, MinRatio: 1.5}},
			Benchtime: "400ms",
		})
	}
	return all
}

// fill makes a register of each key, so that what is measured is a table of that
// many.
func fill(s store.BatchRegisters, keys []string) error {
	ops, res := make([]store.Op, 0, 500), make([]store.Result, 500)
	for i, key := range keys {
		ops = append(ops, decision(key))
		if len(ops) < cap(ops) && i < len(keys)-1 {
			continue
		}
		if err := s.AdvanceBatch(context.Background(), ops, res[:len(ops)]); err != nil {
			return err
		}
		ops = ops[:0]
	}
	return nil
}
