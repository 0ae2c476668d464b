//go:build linux

package pgstore_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

// New and Migrate lead up and down, any number of times, and nothing is left at
// version 0.
func TestUpDown(t *testing.T) {
	db, schema := open(t, "pgx", server(t).URL("")), freshSchema()
	cfg := pgstore.Config{DB: db, Schema: schema}
	for range 2 {
		s := newStore(t, cfg)
		if err := s.Put(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Fatal(err)
		}
		newStore(t, cfg) // up to date
		if _, ok, err := s.Get(t.Context(), "k"); !ok || err != nil {
			t.Fatalf("Get after a second New = %v, %v", ok, err)
		}
		if err := pgstore.Migrate(t.Context(), cfg, 0); err != nil {
			t.Fatal(err)
		}
		if n := scalar[int](t, db, `SELECT count(*) FROM pg_namespace WHERE nspname = '%s'`, schema); n != 0 {
			t.Error("version 0 has the schema")
		}
		if err := pgstore.Migrate(t.Context(), cfg, 0); err != nil {
			t.Errorf("version 0 again: %v", err)
		}
		if _, _, err := s.Get(t.Context(), "k"); err == nil {
			t.Error("Get without tables succeeded")
		}
		for range 2 {
			if err := pgstore.Migrate(t.Context(), cfg, pgstore.Version); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok, err := s.Get(t.Context(), "k"); ok || err != nil {
			t.Errorf("Get after the way down and up again = %v, %v", ok, err)
		}
		if err := pgstore.Migrate(t.Context(), cfg, 0); err != nil {
			t.Fatal(err)
		}
	}

	// A schema of somebody else's stays, and so does what else is in it.
	execute(t, db, `CREATE SCHEMA %s`, schema)
	newStore(t, cfg)
	if err := pgstore.Migrate(t.Context(), cfg, 0); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, db, `SELECT count(*) FROM pg_namespace WHERE nspname = '%s'`, schema); n != 1 {
		t.Error("version 0 has removed a schema that New did not create")
	}
	execute(t, db, `DROP SCHEMA %s`, schema) // fails if it is not empty
	newStore(t, cfg)
	execute(t, db, `CREATE TABLE %s.other ()`, schema)
	if err := pgstore.Migrate(t.Context(), cfg, 0); err != nil {
		t.Fatal(err)
	}
	execute(t, db, `DROP TABLE %s.other`, schema)
	if n := scalar[int](t, db, `SELECT count(*) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE nspname = '%s'`, schema); n != 0 {
		t.Errorf("version 0 has %d relations", n)
	}
}

// Stores in one schema with different prefixes are different stores, and names
// keep their case.
func TestPrefixes(t *testing.T) {
	db, schema := open(t, "pgx", server(t).URL("")), "Select_"+freshSchema()
	a := newStore(t, pgstore.Config{DB: db, Schema: schema, Prefix: "a_"})
	b := newStore(t, pgstore.Config{DB: db, Schema: schema, Prefix: "A_" + strings.Repeat("x", 30)})
	if err := a.Put(t.Context(), "k", []byte("a"), 0); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := b.Get(t.Context(), "k"); ok || err != nil {
		t.Errorf("Get through another prefix = %v, %v", ok, err)
	}
	if r := advance(t, b, hour("k", 1)); r.Granted != 1 {
		t.Error("refused")
	}
	if r := advance(t, a, hour("k", 1)); r.Granted != 1 {
		t.Error("refused by a register of another prefix")
	}
	for _, prefix := range []string{"a_", "A_" + strings.Repeat("x", 30)} {
		if err := pgstore.Migrate(t.Context(), pgstore.Config{DB: db, Schema: schema, Prefix: prefix}, 0); err != nil {
			t.Error(err)
		}
	}
}

// Processes that start at the same moment do not get into each other's way.
func TestConcurrentNew(t *testing.T) {
	schema, url := freshSchema(), server(t).URL("")
	var wg sync.WaitGroup
	for i := range 12 {
		db := open(t, "pgx", url)
		wg.Go(func() {
			s, err := pgstore.New(t.Context(), pgstore.Config{DB: db, Schema: schema, Prefix: fmt.Sprint("p", i%3)})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := s.Advance(t.Context(), hour("k", 1000)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Processes that go up and down at the same moment take turns, and what they
// leave is sound.
func TestMigrateTogether(t *testing.T) {
	schema, url := freshSchema(), server(t).URL("")
	var wg sync.WaitGroup
	for g := range 8 {
		cfg := pgstore.Config{DB: open(t, "pgx", url), Schema: schema}
		wg.Go(func() {
			for i := range 15 {
				if g == 0 {
					s, err := pgstore.New(t.Context(), cfg)
					if err != nil {
						t.Errorf("New: %v", err)
						return
					}
					s.Close()
					continue
				}
				to := (g + i) % 2 * pgstore.Version
				if err := pgstore.Migrate(t.Context(), cfg, to); err != nil {
					t.Errorf("to version %d: %v", to, err)
					return
				}
			}
		})
	}
	wg.Wait()
	s := newStore(t, pgstore.Config{DB: open(t, "pgx", url), Schema: schema})
	if err := s.Put(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Error(err)
	}
	if r := advance(t, s, hour("k", 1)); r.Granted != 1 {
		t.Error("refused")
	}
}

// Somebody who may create functions and operators in the search path, and in
// the store's own schema, gets none of them called: all that the store uses is
// named or has types that fit exactly.
func TestHijack(t *testing.T) {
	name := freshSchema()
	execute(t, open(t, "pgx", server(t).URL("")), `CREATE DATABASE %s`, name)
	db := open(t, "pgx", server(t).DatabaseURL(name, "search_path=public"))
	cfg := pgstore.Config{DB: db, Schema: "public"}
	trap := func(schema, signature, result string) {
		t.Helper()
		execute(t, db, `CREATE FUNCTION %s.%s RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked: %s'; END $$`,
			schema, signature, result, signature)
	}
	operator := func(op, left, right, result string) {
		t.Helper()
		f := fmt.Sprint("trap", schemas.Add(1))
		trap("public", fmt.Sprintf("%s(%s, %s)", f, left, right), result)
		execute(t, db, `CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.%s)`, op, left, right, f)
	}
	for _, f := range [][2]string{
		{"cardinality(bytea[])", "int"}, {"date_part(varchar, timestamptz)", "float8"},
		{"date_part(text, timestamp)", "float8"}, {"pg_advisory_xact_lock(text)", "void"}, {"pg_advisory_xact_lock(int)", "void"},
		{"current_setting(varchar)", "text"}, {"pg_relation_size(oid)", "bigint"}, {"int8(text)", "bigint"},
		{"clock_timestamp(int DEFAULT 1)", "timestamptz"}, {"pg_is_in_recovery(int DEFAULT 1)", "boolean"},
	} {
		trap("public", f[0], f[1])
	}
	for _, o := range [][4]string{
		{"*", "float8", "numeric", "float8"}, {"/", "bigint", "text", "bigint"}, {"=", "oid", "regclass", "boolean"},
		{"=", "bytea", "text", "boolean"}, {"=", "name", "varchar", "boolean"}, {"<=", "bigint", "text", "boolean"},
		{">", "bigint", "text", "boolean"}, {"+", "bigint", "text", "bigint"},
	} {
		operator(o[0], o[1], o[2], o[3])
	}
	if err := pgstore.Migrate(t.Context(), cfg, pgstore.Version); err != nil {
		t.Fatal(err)
	}
	// Now that there are functions, some that would fit better.
	trap("public", "advance(text, boolean, bigint, bigint, bigint, bigint, bigint, bigint, bigint)", "record")
	trap("public", "advance(text, text, text, text, text, text, text, text, text)", "record")
	trap("public", "advance_batch(text, text)", "record")
	trap("public", "advance_all(text, text)", "record")
	for _, driver := range []string{"pgx", "postgres"} {
		cfg.DB = open(t, driver, server(t).DatabaseURL(name, "search_path=public"))
		s := newStore(t, cfg)
		for what, call := range calls(s) {
			if err := call(t.Context()); err != nil {
				t.Errorf("%s, %s: %v", driver, what, err)
			}
		}
		if _, err := s.Keep(); err != nil {
			t.Errorf("%s, Keep: %v", driver, err)
		}
	}
	if err := pgstore.Migrate(t.Context(), cfg, 0); err != nil {
		t.Error(err)
	}
}

// A schema of a newer version is refused, going up and going down.
func TestNewerSchema(t *testing.T) {
	_, db, schema := onShared(t)
	execute(t, db, `UPDATE %s.version SET version = 99`, schema)
	cfg := pgstore.Config{DB: db, Schema: schema}
	_, err := pgstore.New(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("New: %v", err)
	}
	if err := pgstore.Migrate(t.Context(), cfg, 0); err == nil {
		t.Error("the way down succeeded")
	}
	if n := scalar[int](t, db, `SELECT count(*) FROM %s.value`, schema); n != 0 {
		t.Errorf("%d values", n)
	}
}

// A role needs no more than what the package comment says.
func TestLeastPrivileges(t *testing.T) {
	_, db, schema := onShared(t)
	role := schema + "_app"
	execute(t, db, `CREATE ROLE %s LOGIN`, role)
	execute(t, db, `GRANT USAGE ON SCHEMA %s TO %s`, schema, role)
	execute(t, db, `GRANT SELECT ON %s.version TO %s`, schema, role)
	execute(t, db, `GRANT SELECT, INSERT, UPDATE, DELETE ON %[1]s.value, %[1]s.register TO %[2]s`, schema, role)
	u, err := url.Parse(server(t).URL(""))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	s := newStore(t, pgstore.Config{DB: open(t, "pgx", u.String()), Schema: schema})
	op := hour("k", 10)
	if err := s.Put(t.Context(), "k", nil, time.Nanosecond); err != nil {
		t.Error(err)
	}
	if _, err := s.CompareAndSwap(t.Context(), "k2", nil, []byte("x"), 0); err != nil {
		t.Error(err)
	}
	advance(t, s, op)
	if err := s.AdvanceBatch(t.Context(), []store.Op{op}, make([]store.Result, 1)); err != nil {
		t.Error(err)
	}
	if _, err := s.AdvanceAll(t.Context(), []store.Op{op}, make([]store.Result, 1)); err != nil {
		t.Error(err)
	}
	if n, err := s.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("Sweep = %d, %v, want 1", n, err)
	}
	if _, err := s.Keep(); err != nil {
		t.Error(err)
	}
	if _, err := pgstore.New(t.Context(), pgstore.Config{DB: open(t, "pgx", u.String()), Schema: freshSchema()}); err == nil {
		t.Error("New of another schema succeeded without the right to create one")
	}
}

// A database in another encoding holds the same keys.
func TestEncodings(t *testing.T) {
	db := open(t, "pgx", server(t).URL(""))
	for _, encoding := range []string{"SQL_ASCII", "LATIN1"} {
		name := freshSchema()
		execute(t, db, `CREATE DATABASE %s ENCODING '%s' TEMPLATE template0`, name, encoding)
		there := open(t, "pgx", server(t).DatabaseURL(name, ""))
		s := newStore(t, pgstore.Config{DB: there})
		const key = "ключ \U0001F511 \"'{}\\"
		if err := s.Put(t.Context(), key, []byte(key), 0); err != nil {
			t.Fatal(err)
		}
		for k, err := range s.Scan(t.Context(), "ключ") {
			if k != key || err != nil {
				t.Errorf("Scan = %q, %v", k, err)
			}
		}
		if r := advance(t, s, hour(key, 1)); r.Granted != 1 {
			t.Error("refused")
		}
	}
}

// A server or a connection on which the promises do not hold is refused.
func TestUnfit(t *testing.T) {
	for params, want := range map[string]string{
		"default_transaction_isolation=serializable":      "default_transaction_isolation must be read committed",
		"default_transaction_isolation=repeatable%20read": "default_transaction_isolation must be read committed",
		"default_transaction_read_only=on":                "default_transaction_read_only must be off",
	} {
		db := open(t, "pgx", server(t).URL(params))
		_, err := pgstore.New(t.Context(), pgstore.Config{DB: db, Schema: freshSchema()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", params, err)
		}
	}
}

// Keep refuses a server or connections that do not write to disk.
func TestKeep(t *testing.T) {
	s, _, schema := onShared(t)
	kept, err := store.Keep(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Put(t.Context(), "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v, _, err := s.Get(t.Context(), "k"); string(v) != "v" || err != nil {
		t.Errorf("Get = %q, %v", v, err)
	}

	refused := func(s store.Store, want string) {
		t.Helper()
		if _, err := store.Keep(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Keep: %v, want one about %q", err, want)
		}
	}
	async := open(t, "pgx", server(t).URL("synchronous_commit=off"))
	refused(newStore(t, pgstore.Config{DB: async, Schema: schema}), "synchronous_commit = on")

	own := pgserver.ForTest(t)
	odb := open(t, "pgx", own.URL(""))
	o := newStore(t, pgstore.Config{DB: odb})
	execute(t, odb, `ALTER SYSTEM SET fsync = off`)
	execute(t, odb, `SELECT pg_reload_conf()`)
	eventually(t, "fsync = off", func() error {
		if scalar[string](t, odb, `SHOW fsync`) != "off" {
			return fmt.Errorf("is on")
		}
		return nil
	})
	refused(o, "fsync = on")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused(s, store.ErrClosed.Error())
}
