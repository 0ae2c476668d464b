//go:build linux

package pgstore_test

import (
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
	"example.com/plainware/store/storetest"
)

// The conformance suite, with both drivers, and with pgx in each of the modes
// in which a pooler may need it.
func TestSuite(t *testing.T) {
	for name, c := range map[string]struct{ driver, params string }{
		"pgx":      {"pgx", ""},
		"pgx exec": {"pgx", "default_query_exec_mode=exec"},
		"pgx text": {"pgx", "default_query_exec_mode=simple_protocol"},
		"pq":       {"postgres", ""},
	} {
		t.Run(name, func(t *testing.T) {
			url := server(t).URL(c.params)
			schema := freshSchema()
			handle := func(t *testing.T) store.Store {
				// The suite is not about time. A value of 1 MiB, which pq sends as text,
				// can take a busy machine and the race detector some seconds.
				return newStore(t, pgstore.Config{DB: open(t, c.driver, url), Schema: schema, Timeout: time.Minute})
			}
			storetest.RunWith(t, storetest.Options{
				Open:   handle,
				Second: func(t *testing.T, _ store.Store) store.Store { return handle(t) },
			})
		})
	}
}
