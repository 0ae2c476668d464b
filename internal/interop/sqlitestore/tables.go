package sqlitestore

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	kit "example.com/plainware/store/sqlitestore"
)

// tables returns the names of all tables.
func tables(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.Query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

func count(t *testing.T, db *sql.DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// until waits for what another goroutine does soon.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for stop := time.Now().Add(20 * time.Second); !f(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// Expired rows of both kinds are removed, more than one slice of them, while
// others stay.
func testSweep(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	// All ask at once below, which a busy machine and the race detector need more
	// than the default of 5 s for.
	s := d.store(t, kit.Config{DB: db, Sweep: 20 * time.Millisecond, Timeout: time.Minute})
	ctx := t.Context()
	const n, ahead = 2500, 1100
	var wg sync.WaitGroup
	for i := range ahead { // a whole slice that stays, before the others
		wg.Go(func() {
			key := fmt.Sprint("a", i)
			if err := s.Put(ctx, key, nil, 0); err != nil {
				t.Error(err)
			}
			if _, err := s.Advance(ctx, store.Op{Space: "a", Key: key, Ceil: 1, Step: 1, Min: 1, Max: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range n {
		wg.Go(func() {
			key := fmt.Sprint(i)
			op := store.Op{Space: "dead", Key: key, Clock: true, Ceil: 1e6, Step: 1e6, Min: 1, Max: 1}
			if _, err := s.Advance(ctx, op); err != nil {
				t.Error(err)
			}
			if err := s.Put(ctx, "dead"+key, []byte(key), time.Millisecond); err != nil {
				t.Error(err)
			}
			if i%100 == 0 {
				if err := s.Put(ctx, "live"+key, nil, 0); err != nil {
					t.Error(err)
				}
				if err := s.Put(ctx, "hour"+key, nil, time.Hour); err != nil {
					t.Error(err)
				}
				if _, err := s.Advance(ctx, bucket(key, 1)); err != nil {
					t.Error(err)
				}
				op := store.Op{Space: "ever", Key: key, Ceil: 1, Step: 1, Min: 1, Max: 1}
				if _, err := s.Advance(ctx, op); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	until(t, "sweep", func() bool {
		return count(t, db, "plainware_values") == ahead+2*n/100 && count(t, db, "plainware_registers") == ahead+2*n/100
	})
	// The rows are gone before they are counted.
	until(t, "count of the sweep", func() bool { return s.Stats().Swept >= 2*n })
	if got := s.Stats().Swept; got != 2*n {
		t.Errorf("%d rows were swept, want %d", got, 2*n)
	}

	// Nobody sweeps with a negative interval.
	still := d.store(t, kit.Config{DB: db, Table: "still", Sweep: -1})
	if err := still.Put(ctx, "key", nil, 1); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := still.Get(ctx, "key"); ok || err != nil {
		t.Errorf("an expired value: %v, %v", ok, err)
	}
	before := s.Stats()
	if err := s.Put(ctx, "dead", nil, 1); err != nil {
		t.Fatal(err)
	}
	until(t, "sweep", func() bool { return s.Stats().Swept > before.Swept })
	if n := count(t, db, "still_values"); n != 1 {
		t.Errorf("there are %d rows, want 1", n)
	}
}

// While a sweep is at work, callers do not wait long, and a flood of keys that
// live for an instant does not accumulate.
func testSweepFlood(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	s := d.store(t, kit.Config{DB: db, Sweep: 10 * time.Millisecond})
	const n = 20_000
	var worst time.Duration
	for i := 0; i < n; i += 200 {
		ops := make([]store.Op, 200)
		for j := range ops {
			ops[j] = store.Op{Space: "flood", Key: fmt.Sprint(i + j), Clock: true, Ceil: 1e6, Step: 1e6, Min: 1, Max: 1}
		}
		begin := time.Now()
		if err := s.AdvanceBatch(t.Context(), ops, make([]store.Result, len(ops))); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(begin))
	}
	t.Logf("%d of %d were swept meanwhile; the longest wait was %v", s.Stats().Swept, n, worst)
	until(t, "sweep", func() bool { return s.Stats().Swept == n })
}

// The names of the tables are configurable, and two sets do not meet.
func testTables(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	a := d.store(t, kit.Config{DB: db})
	b := d.store(t, kit.Config{DB: db, Table: "Other_1"})
	ctx := t.Context()
	if err := a.Put(ctx, "key", []byte("a"), 0); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := b.Get(ctx, "key"); ok || err != nil {
		t.Errorf("the other table has the key: %v, %v", ok, err)
	}
	if _, err := a.Advance(ctx, bucket("key", 10)); err != nil {
		t.Fatal(err)
	}
	if r, err := b.Advance(ctx, bucket("key", 10)); err != nil || r.Granted != 10 {
		t.Errorf("the other table has the register: %+v, %v", r, err)
	}
	want := []string{"Other_1_registers", "Other_1_schema", "Other_1_values", "plainware_registers", "plainware_schema", "plainware_values"}
	if got := tables(t, db); !slices.Equal(got, want) {
		t.Errorf("tables %q, want %q", got, want)
	}
}

// Migrate goes up and down, any number of times, and refuses what it does not know.
func testMigrate(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	ctx := t.Context()
	cfg := kit.Config{DB: db}
	if _, err := db.Exec("CREATE TABLE plainware (mine)"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 42"); err != nil {
		t.Fatal(err)
	}
	step := func(version int) {
		t.Helper()
		if err := kit.Migrate(ctx, cfg, version); err != nil {
			t.Fatalf("to version %d: %v", version, err)
		}
	}
	for range 2 {
		step(0) // nothing there
		step(kit.Version)
		step(kit.Version) // nothing to do
		s := d.store(t, cfg)
		if err := s.Put(ctx, "key", nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		step(kit.Version) // keeps the rows
		if n := count(t, db, "plainware_values"); n != 1 {
			t.Errorf("%d rows are left, want 1", n)
		}
		step(0)
		if got := tables(t, db); !slices.Equal(got, []string{"plainware"}) {
			t.Errorf("after the way down there are the tables %q", got)
		}
	}
	var user int
	if err := db.QueryRow("PRAGMA user_version").Scan(&user); err != nil || user != 42 {
		t.Errorf("user_version is %d, %v", user, err)
	}
	for _, version := range []int{-1, kit.Version + 1} {
		if err := kit.Migrate(ctx, cfg, version); err == nil {
			t.Errorf("version %d was accepted", version)
		}
	}

	// A newer program has been here.
	step(kit.Version)
	if _, err := db.Exec("UPDATE plainware_schema SET version = 7"); err != nil {
		t.Fatal(err)
	}
	if s, err := kit.New(ctx, cfg); err == nil || !strings.Contains(err.Error(), "have version 7") {
		t.Errorf("tables of a newer version: %v, %v", s, err)
	}
	if err := kit.Migrate(ctx, cfg, 0); err == nil || !strings.Contains(err.Error(), "have version 7") {
		t.Errorf("the way down from a newer version: %v", err)
	}
	if n := db.Stats().InUse; n != 0 {
		t.Errorf("%d connections are still in use", n)
	}

	// Somebody else's table is in the way: nothing is changed.
	if _, err := db.Exec("CREATE TABLE clash_registers (mine)"); err != nil {
		t.Fatal(err)
	}
	before := tables(t, db)
	if _, err := kit.New(ctx, kit.Config{DB: db, Table: "clash"}); err == nil || !strings.Contains(err.Error(), "clash_registers") {
		t.Errorf("a foreign table: %v", err)
	}
	if after := tables(t, db); !slices.Equal(after, before) {
		t.Errorf("tables %q, were %q", after, before)
	}
}

// Stores that start together on a new file all succeed, and so does whoever goes
// up and down at the same moment.
func testMigrateTogether(t *testing.T, d Driver) {
	path := newFile(t)
	var wg sync.WaitGroup
	for i := range 8 {
		db := d.open(t, path)
		wg.Go(func() {
			s, err := kit.New(t.Context(), kit.Config{DB: db})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if err := s.Put(t.Context(), fmt.Sprint(i), nil, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count(t, d.open(t, path), "plainware_values"); n != 8 {
		t.Errorf("%d rows, want 8", n)
	}

	for g := range 4 {
		cfg := kit.Config{DB: d.open(t, path), Timeout: time.Minute}
		wg.Go(func() {
			for i := range 10 {
				if err := kit.Migrate(t.Context(), cfg, (g+i)%2*kit.Version); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s := d.store(t, kit.Config{DB: d.open(t, path)})
	if err := s.Put(t.Context(), "key", nil, 0); err != nil {
		t.Error(err)
	}
}
