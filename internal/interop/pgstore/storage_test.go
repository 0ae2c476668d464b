//go:build linux

package pgstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

// A refusal neither waits for the lock of the register nor writes.
func TestRefusalIsRead(t *testing.T) {
	s, db, schema := onShared(t)
	full := []store.Op{hour("full", 1), {Space: "count", Key: "full", Ceil: 1, Step: 1, Min: 1, Max: 1}}
	for _, op := range full {
		advance(t, s, op)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`SELECT FROM ` + schema + `.register FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	was := scalar[string](t, db, `SELECT array_agg(ctid::text || xmin::text || xmax::text)::text FROM %s.register`, schema)
	for _, op := range full {
		r, err := s.Advance(ctx, op)
		if err != nil || r.Granted != 0 {
			t.Errorf("Advance = %+v, %v", r, err)
		}
	}
	res := make([]store.Result, 2)
	if err := s.AdvanceBatch(ctx, full, res); err != nil || res[0].Granted+res[1].Granted != 0 {
		t.Errorf("AdvanceBatch = %+v, %v", res, err)
	}
	free := hour("free", 5)
	if ok, err := s.AdvanceAll(ctx, []store.Op{free, full[0]}, res); err != nil || ok || res[0].Granted != 1 || res[1].Granted != 0 {
		t.Errorf("AdvanceAll = %v, %+v, %v", ok, res, err)
	}
	if is := scalar[string](t, db, `SELECT array_agg(ctid::text || xmin::text || xmax::text)::text FROM %s.register`, schema); is != was {
		t.Errorf("rows are %s, were %s", is, was)
	}
}

// Registers never wait for the disk, values do.
func TestDurability(t *testing.T) {
	srv := pgserver.ForTest(t)
	db := open(t, "pgx", srv.URL(""))
	s := newStore(t, pgstore.Config{DB: db})
	execute(t, db, `ALTER SYSTEM SET wal_writer_delay = '10s'`) // it syncs too
	execute(t, db, `SELECT pg_reload_conf()`)
	const n = 200
	// The number of times that the log was flushed, by how far it is.
	flushes := func(f func(i int)) (moves int) {
		was := scalar[string](t, db, `SELECT pg_current_wal_flush_lsn()::text`)
		for i := range n {
			f(i)
			if is := scalar[string](t, db, `SELECT pg_current_wal_flush_lsn()::text`); is != was {
				moves, was = moves+1, is
			}
		}
		return moves
	}
	if got := flushes(func(i int) { advance(t, s, hour(fmt.Sprint("r", i%10), n)) }); got > n/10 {
		t.Errorf("%d of %d decisions flushed the log", got, n)
	}
	if got := flushes(func(i int) {
		if err := s.Put(t.Context(), "v", []byte(fmt.Sprint(i)), 0); err != nil {
			t.Fatal(err)
		}
	}); got < n*9/10 {
		t.Errorf("%d of %d writes flushed the log", got, n)
	}
}

// What has expired is absent before it is swept, and sweeping takes exactly
// that, over any number of pages, without touching what others hold.
func TestSweep(t *testing.T) {
	db, schema := open(t, "pgx", server(t).URL("")), freshSchema()
	s := newStore(t, pgstore.Config{DB: db, Schema: schema, SweepEvery: -1})
	const n = 30_000
	execute(t, db, `INSERT INTO %s.value SELECT int8send(i), 'v', CASE WHEN i %% 3 = 0 THEN 9223372036854775807 ELSE 1 END FROM generate_series(1, %d) i`, schema, n)
	execute(t, db, `INSERT INTO %s.register SELECT int8send(i), 7, CASE WHEN i %% 3 = 0 THEN 9223372036854775807 ELSE 1 END FROM generate_series(1, %d) i`, schema, n)
	if pages := scalar[int](t, db, `SELECT pg_relation_size('%s.register') / 8192`, schema); pages < 130 {
		t.Fatalf("only %d pages", pages)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`SELECT FROM ` + schema + `.register WHERE k = int8send(1) FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Sweep(t.Context()); got != 2*n*2/3-1 || err != nil {
		t.Errorf("Sweep = %d, %v, want %d", got, err, 2*n*2/3-1)
	}
	tx.Rollback()
	if got, err := s.Sweep(t.Context()); got != 1 || err != nil {
		t.Errorf("a second Sweep = %d, %v, want 1", got, err)
	}
	for _, table := range []string{"value", "register"} {
		if got := scalar[int](t, db, `SELECT count(*) FROM %s.%s`, schema, table); got != n/3 {
			t.Errorf("%d rows left in %s, want %d", got, table, n/3)
		}
	}
}

// Rows that expired long ago go without anybody calling Sweep, four thousand
// for each thousand writes, while those that have just expired stay for a
// while. Close ends the task.
func TestBackgroundSweep(t *testing.T) {
	db, schema := open(t, "pgx", server(t).URL("")), freshSchema()
	s := newStore(t, pgstore.Config{DB: db, Schema: schema})
	const old, writes = 30_000, 20_000
	execute(t, db, `INSERT INTO %s.register SELECT int8send(i), 7, 1 FROM generate_series(1, %d) i`, schema, old)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			ops, res := make([]store.Op, 100), make([]store.Result, 100)
			for b := range writes / len(ops) / 4 {
				for i := range ops {
					ops[i] = store.Op{Space: "flood", Key: fmt.Sprint(g, b, i), Clock: true, Ceil: 1000, Step: 1000, Min: 1, Max: 1}
				}
				if err := s.AdvanceBatch(context.Background(), ops, res); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left := scalar[int](t, db, `SELECT count(*) FROM %s.register WHERE exp = 1`, schema)
	t.Logf("%d of %d old rows left", left, old)
	if left > old/2 {
		t.Errorf("%d of %d old rows left", left, old)
	}
	if n := scalar[int](t, db, `SELECT count(*) FROM %s.register WHERE exp > 1`, schema); n != writes {
		t.Errorf("%d of %d new rows left, want all", n, writes)
	}
	if _, err := s.Advance(t.Context(), hour("k", 1)); err == nil {
		t.Error("Advance after Close succeeded")
	}
}

// A register that is updated again and again stays where it is.
func TestHotUpdates(t *testing.T) {
	s, db, schema := onShared(t)
	for range 2000 {
		advance(t, s, store.Op{Space: "hot", Key: "k", Clock: true, Ceil: int64(time.Hour), Step: 1, Min: 1, Max: 1})
	}
	if pages := scalar[int](t, db, `SELECT pg_relation_size('%s.register') / 8192`, schema); pages > 20 {
		t.Errorf("one register fills %d pages", pages)
	}
	if size := scalar[int](t, db, `SELECT pg_relation_size('%s.register_pkey') / 8192`, schema); size > 2 {
		t.Errorf("its index fills %d pages", size)
	}
}
