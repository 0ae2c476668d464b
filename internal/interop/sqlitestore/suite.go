// Package sqlitestore has the tests of store/sqlitestore that need a driver.
// Each driver has its own subdirectory, since two of them register the same
// name.
package sqlitestore

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	kit "example.com/plainware/store/sqlitestore"
	"example.com/plainware/store/storetest"
)

// Driver is one way to open a file.
type Driver struct {
	// Name is that under which the driver is registered.
	Name string
}

// Run runs every test of the driver.
func Run(t *testing.T, d Driver) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Driver)
	}{
		{"Conformance", testConformance},
		{"Keep", testKeep},
		{"Exact", testExact},
		{"ExactProcesses", testExactProcesses},
		{"Restart", testRestart},
		{"Kill", testKill},
		{"ClockBack", testClockBack},
		{"Sweep", testSweep},
		{"SweepFlood", testSweepFlood},
		{"Group", testGroup},
		{"HotRegister", testHotRegister},
		{"Fault", testFault},
		{"Reconnect", testReconnect},
		{"WriteLocked", testWriteLocked},
		{"SharedCache", testSharedCache},
		{"Close", testClose},
		{"CloseLocked", testCloseLocked},
		{"Refused", testRefused},
		{"Tables", testTables},
		{"Migrate", testMigrate},
		{"MigrateTogether", testMigrateTogether},
		{"Scan", testScan},
		{"Sizes", testSizes},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() { leftGoroutines(t) }) // after the test's own
			c.test(t, d)
		})
	}
}

// leftGoroutines fails the test if the kit still has a goroutine.
func leftGoroutines(t *testing.T) {
	for stop := time.Now().Add(5 * time.Second); ; <-time.After(5 * time.Millisecond) {
		var b bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&b, 2)
		if !bytes.Contains(b.Bytes(), []byte("plainware/store/sqlitestore.")) {
			return
		}
		if time.Now().After(stop) {
			t.Errorf("goroutines were left:\n%s", b.Bytes())
			return
		}
	}
}

// open returns a new DB on the file. It is closed when the test ends.
func (d Driver) open(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	return d.openDSN(tb, "file:"+path)
}

func (d Driver) openDSN(tb testing.TB, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(d.Name, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// store returns a store on cfg.DB, or in a new file without one, with a limit
// of a minute unless cfg has another. It is closed when the test ends.
func (d Driver) store(tb testing.TB, cfg kit.Config) *kit.Store {
	tb.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.DB == nil {
		cfg.DB = d.open(tb, newFile(tb))
	}
	s, err := kit.New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func newFile(tb testing.TB) string { return filepath.Join(tb.TempDir(), "store.db") }

// The whole contract, on one handle and on two that share a file.
func testConformance(t *testing.T, d Driver) {
	var files sync.Map // of each store
	storetest.RunWith(t, storetest.Options{
		Open: func(t *testing.T) store.Store {
			path := newFile(t)
			s := d.store(t, kit.Config{DB: d.open(t, path)})
			files.Store(store.Store(s), path)
			return s
		},
		Second: func(t *testing.T, s store.Store) store.Store {
			path, _ := files.Load(s)
			return d.store(t, kit.Config{DB: d.open(t, path.(string))})
		},
	})
}

// The view of Keep is a store like the other.
func testKeep(t *testing.T, d Driver) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := store.Keep(d.store(t, kit.Config{}))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
