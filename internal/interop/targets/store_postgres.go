//go:build linux

package targets

import (
	"context"
	"database/sql"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

// postgresMeasures are decisions on a thousand keys over 32 connections, in
// batches of 64 and combined, each against one call a decision.
func postgresMeasures() []Measure {
	var direct, combined store.Registers
	var batch store.BatchRegisters
	keys := names("postgres-", 1000)
	setup := func() (end func(), err error) {
		server, err := pgserver.New()
		if err != nil {
			return nil, err
		}
		db, err := sql.Open("pgx", server.URL(""))
		if err != nil {
			server.Close()
			return nil, err
		}
		const connections = 32
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		var all sync.WaitGroup
		for range connections { // they are open before the clock runs
			all.Go(func() { db.Exec(`SELECT pg_sleep(0.3)`) })
		}
		all.Wait()
		s, err := pgstore.New(context.Background(), pgstore.Config{DB: db})
		if err == nil {
			err = fill(s, keys)
		}
		if err != nil {
			db.Close()
			server.Close()
			return nil, err
		}
		direct, batch = s, s
		c := must(store.NewCombiner(store.CombinerConfig{Store: s}))
		combined = c
		return func() {
			c.Close()
			s.Close()
			db.Close()
			server.Close()
		}, nil
	}
	single := func(b *testing.B) { together(b, 256, keys, advance(direct)) }
	return []Measure{
		{
			Package: "store", Name: "Postgres, batches of 64, 32 callers", Scale: Rate, Setup: setup,
			Ours:      func(b *testing.B) { batches(b, 32, 64, keys, batch) },
			Peers:     []Peer{{Name: "one call a decision", Run: single, MinRatio: 2}},
			Benchtime: "250ms", Rounds: 7,
		},
		{
			Package: "store", Name: "Postgres, combined, 256 callers", Scale: Rate, Setup: setup,
			Ours:      func(b *testing.B) { together(b, 256, keys, advance(combined)) },
			Peers:     []Peer{{Name: "one call a decision", Run: single, MinRatio: 1.5}},
			Benchtime: "250ms", Rounds: 7,
		},
	}
}
