//go:build linux

package pgstore_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

// Benchmark runs 32 callers over 32 connections. select1 is what a round trip
// with a deadline costs, and upsert what a counter without any bound, clock or
// expiry costs.
func Benchmark(b *testing.B) {
	db := open(b, "pgx", server(b).URL(""))
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	var wg sync.WaitGroup
	for range 32 { // every connection is open before the clock runs
		wg.Go(func() { db.Exec(`SELECT pg_sleep(0.3)`) })
	}
	wg.Wait()
	schema := freshSchema()
	s := newStore(b, pgstore.Config{DB: db, Schema: schema})
	ctx := context.Background()
	execute(b, db, `CREATE UNLOGGED TABLE %s.bare (k bytea PRIMARY KEY, v bigint NOT NULL) WITH (fillfactor = 70)`, schema)
	bare := `INSERT INTO ` + schema + `.bare AS r VALUES ($1, 1) ON CONFLICT (k) DO UPDATE SET v = r.v + 1 RETURNING v`

	// query is database/sql at its barest, under a deadline like any call of a store.
	query := func(text string, args ...any) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var n int
		return db.QueryRowContext(ctx, text, args...).Scan(&n)
	}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key %d", i)
	}
	grant := func(key string) store.Op {
		return store.Op{Space: "bench", Key: key, Clock: true, Ceil: int64(24 * time.Hour), Step: 1, Min: 1, Max: 1}
	}
	one := func(op store.Op, granted int64) error {
		r, err := s.Advance(ctx, op)
		if err == nil && r.Granted != granted {
			err = fmt.Errorf("granted %d, want %d", r.Granted, granted)
		}
		return err
	}
	full := hour("full", 1)
	advance(b, s, full)

	for _, c := range []struct {
		name string
		per  int
		f    func(i int) error
	}{
		{"select1", 1, func(int) error { return query(`SELECT 1`) }},
		{"upsert/1000keys", 1, func(i int) error { return query(bare, []byte(keys[i%1000])) }},
		{"upsert/hot", 1, func(int) error { return query(bare, []byte("hot")) }},
		{"advance/1000keys", 1, func(i int) error { return one(grant(keys[i%1000]), 1) }},
		{"advance/hot", 1, func(int) error { return one(grant("hot"), 1) }},
		{"advance/fresh", 1, func(i int) error { return one(grant(fmt.Sprint("fresh", i)), 1) }},
		{"advance/refused", 1, func(int) error { return one(full, 0) }},
		{"batch8", 8, func(i int) error { return batch(ctx, s, keys, i, 8, grant) }},
		{"batch64", 64, func(i int) error { return batch(ctx, s, keys, i, 64, grant) }},
		{"all3", 3, func(i int) error {
			ops := []store.Op{grant(keys[i%1000]), grant(keys[(i+1)%1000]), grant(keys[(i+2)%1000])}
			_, err := s.AdvanceAll(ctx, ops, make([]store.Result, 3))
			return err
		}},
		{"get", 1, func(i int) error { _, _, err := s.Get(ctx, keys[i%1000]); return err }},
		{"put", 1, func(i int) error { return s.Put(ctx, keys[i%1000], []byte("0123456789abcdef"), time.Hour) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			var start atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				i := int(start.Add(1 << 32))
				for pb.Next() {
					i += 7
					if err := c.f(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*c.per)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

func batch(ctx context.Context, s *pgstore.Store, keys []string, i, n int, op func(key string) store.Op) error {
	ops, res := make([]store.Op, n), make([]store.Result, n)
	for j := range ops {
		ops[j] = op(keys[(i+j*13)%len(keys)])
	}
	return s.AdvanceBatch(ctx, ops, res)
}
