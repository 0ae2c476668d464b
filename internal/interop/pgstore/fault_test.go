//go:build linux

package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

// secret is part of every key and value here, and of no error.
const secret = "s3cr3t"

// calls is every method that talks to the server.
func calls(s *pgstore.Store) map[string]func(ctx context.Context) error {
	key, value := "key-"+secret, []byte("value-"+secret)
	op := hour(key, 1<<10)
	return map[string]func(ctx context.Context) error{
		"Get":    func(ctx context.Context) error { _, _, err := s.Get(ctx, key); return err },
		"Put":    func(ctx context.Context) error { return s.Put(ctx, key, value, time.Hour) },
		"add":    func(ctx context.Context) error { _, err := s.CompareAndSwap(ctx, key, nil, value, 0); return err },
		"swap":   func(ctx context.Context) error { _, err := s.CompareAndSwap(ctx, key, value, value, 0); return err },
		"cut":    func(ctx context.Context) error { _, err := s.CompareAndSwap(ctx, key, value, nil, 0); return err },
		"absent": func(ctx context.Context) error { _, err := s.CompareAndSwap(ctx, key, nil, nil, 0); return err },
		"Delete": func(ctx context.Context) error { return s.Delete(ctx, key) },
		"Touch":  func(ctx context.Context) error { _, err := s.Touch(ctx, key, time.Hour); return err },
		"Scan": func(ctx context.Context) error {
			for _, err := range s.Scan(ctx, key) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"Advance":      func(ctx context.Context) error { _, err := s.Advance(ctx, op); return err },
		"AdvanceBatch": func(ctx context.Context) error { return s.AdvanceBatch(ctx, []store.Op{op}, make([]store.Result, 1)) },
		"AdvanceAll": func(ctx context.Context) error {
			_, err := s.AdvanceAll(ctx, []store.Op{op}, make([]store.Result, 1))
			return err
		},
		"Sweep": func(ctx context.Context) error { _, err := s.Sweep(ctx); return err },
	}
}

// silent fails the test if err tells the key or the value, in any form.
func silent(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if text := err.Error(); strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
		t.Errorf("%s: the error contains the key: %v", what, err)
	}
}

// A context that has ended, or ends while a call waits for a lock, ends the
// call, and only that one.
func TestCancel(t *testing.T) {
	s, db, schema := onShared(t)
	all := calls(s)
	for name, call := range all {
		if err := call(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := call(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
		silent(t, name, err)
	}
	if err := all["Put"](t.Context()); err != nil {
		t.Fatal(err)
	}

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, table := range []string{"value", "register"} {
		if _, err := tx.Exec(fmt.Sprintf(`SELECT FROM %s.%s FOR UPDATE`, schema, table)); err != nil {
			t.Fatal(err)
		}
	}
	short := newStore(t, pgstore.Config{DB: db, Schema: schema, Timeout: 200 * time.Millisecond})
	for name, call := range all {
		switch name {
		case "Get", "absent", "Scan", "Sweep": // wait for no lock
			if err := call(t.Context()); err != nil {
				t.Errorf("%s beside a lock: %v", name, err)
			}
			continue
		}
		for how, call := range map[string]func() error{
			"context": func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				return call(ctx)
			},
			"Timeout": func() error { return calls(short)[name](t.Context()) },
		} {
			start := time.Now()
			err := call()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s behind a lock, %s: %v", name, how, err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("%s behind a lock, %s: took %v", name, how, took)
			}
			silent(t, name, err)
		}
	}
	if err := s.Put(t.Context(), "other", nil, 0); err != nil {
		t.Errorf("another key: %v", err)
	}
	tx.Rollback()
	for name, call := range all {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
}

// A server that does not answer costs each call its deadline and no more, a
// goroutine to nobody, and is used again when it is back.
func TestStall(t *testing.T) {
	srv := pgserver.ForTest(t)
	db := open(t, "pgx", srv.URL(""))
	s := newStore(t, pgstore.Config{DB: db})
	all := calls(s)
	for name, call := range all {
		if err := call(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	before := runtime.NumGoroutine()
	if err := srv.Pause(); err != nil {
		t.Fatal(err)
	}
	for name, call := range all {
		for range 2 { // on an open connection, and on a new one
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			start := time.Now()
			err := call(ctx)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			silent(t, name, err)
			cancel()
		}
	}
	srv.Resume()
	for name, call := range all {
		eventually(t, name, func() error { return call(t.Context()) })
	}
	noLeak(t, before+2)
	if n := db.Stats().InUse; n != 0 {
		t.Errorf("%d connections in use", n)
	}
}

// store 11: a restart keeps values and registers, a crash keeps the values.
// Calls fail while the server is down, and succeed again when it is back, on
// the same Store.
func TestRestart(t *testing.T) {
	srv := pgserver.ForTest(t)
	db := open(t, "pgx", srv.URL(""))
	s := newStore(t, pgstore.Config{DB: db})
	all := calls(s)
	warm := func() {
		t.Helper()
		if err := s.Put(t.Context(), "kept", []byte("v"), time.Hour); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			advance(t, s, hour("spent", 3))
		}
		if r := advance(t, s, hour("spent", 3)); r.Granted != 0 {
			t.Fatal("the bucket is not spent")
		}
	}
	// away is a cycle of the server: down, errors, up, recovery.
	away := func(down func() error) {
		t.Helper()
		before := runtime.NumGoroutine()
		if err := down(); err != nil {
			t.Fatal(err)
		}
		for name, call := range all {
			err := call(t.Context())
			if err == nil {
				t.Errorf("%s without a server succeeded", name)
			}
			silent(t, name, err)
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		for name, call := range all {
			eventually(t, name, func() error {
				err := call(t.Context())
				silent(t, name, err)
				return err
			})
		}
		noLeak(t, before+2)
	}

	warm()
	away(srv.Stop)
	if v, ok, err := s.Get(t.Context(), "kept"); string(v) != "v" || !ok || err != nil {
		t.Errorf("after a restart, Get = %q, %v, %v", v, ok, err)
	}
	if r := advance(t, s, hour("spent", 3)); r.Granted != 0 {
		t.Error("after a restart, a spent bucket granted")
	}

	away(srv.Crash)
	if v, ok, err := s.Get(t.Context(), "kept"); string(v) != "v" || !ok || err != nil {
		t.Errorf("after a crash, Get = %q, %v, %v", v, ok, err)
	}
	if r := advance(t, s, hour("spent", 3)); r.Granted != 1 {
		t.Error("after a crash, a bucket is not full: is the table of registers logged?")
	}
}

// Errors of the server's own making do not tell keys either.
func TestSilentErrors(t *testing.T) {
	s, db, schema := onShared(t)
	all := calls(s)
	execute(t, db, `ALTER TABLE %s.value ADD CHECK (v = '')`, schema)
	silent(t, "a check", all["Put"](t.Context()))
	execute(t, db, `DROP TABLE %[1]s.value, %[1]s.register`, schema)
	for name, call := range all {
		err := call(t.Context())
		if err == nil {
			t.Errorf("%s without a table succeeded", name)
		}
		silent(t, name, err)
	}

	// One that has become read-only since New.
	db, schema = open(t, "pgx", server(t).URL("")), freshSchema()
	execute(t, db, `CREATE ROLE %s_ro LOGIN SUPERUSER`, schema)
	role := open(t, "pgx", strings.Replace(server(t).URL(""), "postgres@", schema+"_ro@", 1))
	readOnly := newStore(t, pgstore.Config{DB: role, Schema: schema})
	execute(t, db, `ALTER ROLE %s_ro SET default_transaction_read_only = on`, schema)
	role.SetMaxIdleConns(0) // which were opened before
	if err := readOnly.Put(t.Context(), secret, nil, 0); err == nil {
		t.Error("Put on a read-only connection succeeded")
	}
	for name, call := range calls(readOnly) {
		silent(t, name, call(t.Context()))
	}
}
