package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	kit "example.com/plainware/store/sqlitestore"
)

// bucket takes n tokens of one that holds ten and gains one an hour.
func bucket(key string, n int64) store.Op {
	const hour = int64(time.Hour)
	return store.Op{Space: "bucket", Key: key, Clock: true, Ceil: 10 * hour, Step: hour, Min: n, Max: n}
}

// A spent bucket is spent after a restart, and a value is there (store 11).
// What is closed leaves nothing open: with its last connection SQLite removes
// the files beside the database.
func testRestart(t *testing.T, d Driver) {
	path := newFile(t)
	for run := range 3 {
		db := d.open(t, path)
		s, err := kit.New(t.Context(), kit.Config{DB: db})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.Advance(t.Context(), bucket("key", 10)); err != nil || (r.Granted != 0) != (run == 0) {
			t.Errorf("run %d: granted %d, %v", run, r.Granted, err)
		}
		if swapped, err := s.CompareAndSwap(t.Context(), "key", nil, []byte("value"), 0); err != nil || swapped != (run == 0) {
			t.Errorf("run %d: swapped %v, %v", run, swapped, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if files, err := filepath.Glob(path + "*"); len(files) != 1 || err != nil {
			t.Errorf("run %d: after Close there are %q, %v", run, files, err)
		}
	}
}

// The clock of the host is set back by an hour, or forward: what that looks
// like is that everything stored is later, or earlier (store 7).
func testClockBack(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	s := d.store(t, kit.Config{DB: db})
	take := func() int64 {
		r, err := s.Advance(t.Context(), store.Op{
			Space: "clock", Key: "key", Clock: true, Ceil: int64(10 * time.Minute), Step: int64(time.Minute), Min: 0, Max: 1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		return r.Granted
	}
	shift := func(by time.Duration) {
		if _, err := db.Exec(`UPDATE plainware_registers SET value = value + ?1, expires = expires + ?1`, int64(by)); err != nil {
			t.Fatal(err)
		}
	}
	if n := take(); n != 10 {
		t.Fatalf("a full bucket gave %d of 10", n)
	}
	shift(time.Hour) // the clock went back
	if n := take(); n != 0 {
		t.Errorf("a spent bucket gave %d after the clock was set back", n)
	}
	shift(-time.Minute)
	if n := take(); n != 1 {
		t.Errorf("a minute after it was healed, the bucket gave %d, want 1", n)
	}
	shift(-time.Hour) // the clock went forward
	if n := take(); n != 10 {
		t.Errorf("the bucket gave %d after the clock was set forward, want at most the burst, 10", n)
	}
}

// Calls that come together share transactions, and one that comes alone does
// not wait for company.
func testGroup(t *testing.T, d Driver) {
	s := d.store(t, kit.Config{})
	var wg sync.WaitGroup
	const callers, each = 64, 50
	for g := range callers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprint(g, i)
				var err error
				if g%2 == 0 {
					err = s.Put(t.Context(), key, []byte(key), 0)
				} else {
					_, err = s.Advance(t.Context(), bucket(key, 1))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	t.Logf("%d calls in %d transactions", st.Calls, st.Transactions)
	if st.Calls != callers*each || st.Transactions > st.Calls/3 {
		t.Errorf("%d calls in %d transactions", st.Calls, st.Transactions)
	}

	alone := d.store(t, kit.Config{Group: -1})
	for range 10 {
		wg.Go(func() {
			if err := alone.Put(t.Context(), "key", nil, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := alone.Stats(); st.Calls != 10 || st.Transactions != 10 {
		t.Errorf("without groups, %d calls in %d transactions", st.Calls, st.Transactions)
	}
}

// Operations of one transaction see each other in their order, more registers
// than a statement takes are all read and written, and counts keep their
// first ttl.
func testHotRegister(t *testing.T, d Driver) {
	s := d.store(t, kit.Config{})
	var ops []store.Op
	for i := range 100 {
		ops = append(ops, store.Op{Space: "count", Key: fmt.Sprint(i % 37), Ceil: 2, Step: 1, Min: 1, Max: 1, TTL: time.Hour})
	}
	res := make([]store.Result, len(ops))
	for round := range 2 {
		if err := s.AdvanceBatch(t.Context(), ops, res); err != nil {
			t.Fatal(err)
		}
		for i, r := range res {
			want := int64(1)
			if i >= 2*37 || round > 0 {
				want = 0
			}
			if r.Granted != want || r.Value != min(int64(i/37)+1, 2) && round == 0 || r.Expires <= 0 || r.Expires > int64(time.Hour) {
				t.Errorf("round %d, operation %d: %+v", round, i, r)
			}
		}
	}
}

// An error of one call in a group is not that of the others.
func testFault(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	s := d.store(t, kit.Config{DB: db})
	if _, err := db.Exec(`CREATE TRIGGER bad BEFORE INSERT ON plainware_values WHEN new.value = x'626164' BEGIN SELECT raise(ABORT, 'a bad value'); END`); err != nil {
		t.Fatal(err)
	}
	release := lockFile(t, db) // so that they meet in one group
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			key, v := fmt.Sprint(i), "good"
			if i%20 == 0 {
				v = "bad"
			}
			if err := s.Put(t.Context(), key, []byte(v), 0); (err == nil) != (v == "good") {
				t.Errorf("put of a %s value: %v", v, err)
			} else if err != nil && (!strings.Contains(err.Error(), "a bad value") || !strings.HasPrefix(err.Error(), "sqlitestore: ")) {
				t.Errorf("the error is %v", err)
			}
			if r, err := s.Advance(t.Context(), bucket(key, 1)); err != nil || r.Granted != 1 {
				t.Errorf("advance: granted %d, %v", r.Granted, err)
			}
		})
	}
	for s.Stats().Busy < 3 {
		<-time.After(time.Millisecond)
	}
	release()
	wg.Wait()
	for i := range 40 {
		if _, ok, err := s.Get(t.Context(), fmt.Sprint(i)); ok != (i%20 != 0) || err != nil {
			t.Errorf("get %d: %v, %v", i, ok, err)
		}
		// Had the group been executed twice, another token would be gone.
		if r, err := s.Advance(t.Context(), bucket(fmt.Sprint(i), 9)); err != nil || r.Granted != 9 {
			t.Errorf("register %d: granted %d of the 9 left, %v", i, r.Granted, err)
		}
	}
}

// A broken connection is replaced.
func testReconnect(t *testing.T, d Driver) {
	path := newFile(t)
	db := d.open(t, path)
	s := d.store(t, kit.Config{DB: db})
	if err := kit.Migrate(t.Context(), kit.Config{DB: db}, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "key", nil, 0); err == nil {
		t.Error("a put without tables succeeded")
	}
	if _, _, err := s.Get(t.Context(), "key"); err == nil {
		t.Error("a get without tables succeeded")
	}
	if err := kit.Migrate(t.Context(), kit.Config{DB: db}, kit.Version); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "key", nil, 0); err != nil {
		t.Errorf("after the tables are back: %v", err)
	}
	if _, ok, err := s.Get(t.Context(), "key"); !ok || err != nil {
		t.Errorf("after the tables are back: %v, %v", ok, err)
	}
}

// lockFile takes the write lock of the file and returns what gives it back.
func lockFile(t *testing.T, db *sql.DB) (release func()) {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := c.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// While another connection has the write lock, writes end with their context or
// with the store's limit, nothing of them is applied later, and reads go on.
func testWriteLocked(t *testing.T, d Driver) {
	path := newFile(t)
	const limit = time.Second
	s := d.store(t, kit.Config{DB: d.open(t, path), Timeout: limit})
	if err := s.Put(t.Context(), "key", []byte("old"), 0); err != nil {
		t.Fatal(err)
	}
	release := lockFile(t, d.open(t, path))
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	stopped, stop := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, stop)
	for _, c := range []struct {
		ctx  context.Context
		want error
	}{
		{short, context.DeadlineExceeded},
		{stopped, context.Canceled},
		{t.Context(), context.DeadlineExceeded}, // the store's own limit
	} {
		begin := time.Now()
		err := s.Put(c.ctx, "key", []byte("new"), 0)
		if took := time.Since(begin); !errors.Is(err, c.want) || took > limit+time.Second {
			t.Errorf("put: %v after %v", err, took)
		}
		if _, err := s.Advance(c.ctx, bucket("key", 1)); !errors.Is(err, c.want) {
			t.Errorf("advance: %v", err)
		}
	}
	if v, ok, err := s.Get(t.Context(), "key"); string(v) != "old" || !ok || err != nil {
		t.Errorf("get: %q, %v, %v", v, ok, err)
	}
	if s.Stats().Busy == 0 {
		t.Error("the lock was not recognised")
	}
	release()
	if swapped, err := s.CompareAndSwap(t.Context(), "key", []byte("old"), []byte("newer"), 0); !swapped || err != nil {
		t.Errorf("after the lock: swapped %v, %v; an abandoned put was applied?", swapped, err)
	}
}

// With cache=shared, locks are per table and have another result code.
func testSharedCache(t *testing.T, d Driver) {
	path := newFile(t)
	s := d.store(t, kit.Config{DB: d.openDSN(t, "file:"+path+"?cache=shared")})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			key := fmt.Sprint(g)
			for i := range 100 {
				if err := s.Put(t.Context(), key, fmt.Append(nil, i), 0); err != nil {
					t.Error(err)
				}
				if v, ok, err := s.Get(t.Context(), key); string(v) != fmt.Sprint(i) || !ok || err != nil {
					t.Errorf("got %q, %v, %v after put of %d", v, ok, err, i)
				}
			}
		})
	}
	wg.Wait()
}

// After Close, nothing works, the DB does, and has its connections as they were.
func testClose(t *testing.T, d Driver) {
	path := newFile(t)
	db := d.open(t, path)
	settings := func() string {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var timeout, level int
		if err := c.QueryRowContext(t.Context(), "PRAGMA busy_timeout").Scan(&timeout); err != nil {
			t.Fatal(err)
		}
		if err := c.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&level); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(timeout, level)
	}
	s, err := kit.New(t.Context(), kit.Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	before := settings() // of the pool; in WAL mode the default may be another
	kept, err := s.Keep()
	if err != nil {
		t.Fatal(err)
	}
	// Close finishes what was begun: each of these is acknowledged and there, or refused.
	var wg sync.WaitGroup
	acked := make([]bool, 50)
	for i := range acked {
		wg.Go(func() {
			err := s.Put(t.Context(), fmt.Sprint(i), nil, 0)
			if acked[i] = err == nil; err != nil && !errors.Is(err, store.ErrClosed) {
				t.Errorf("put during close: %v", err)
			}
		})
		if i == len(acked)/2 {
			wg.Go(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if n := db.Stats().InUse; n != 0 {
		t.Errorf("%d connections are still in use", n)
	}
	for i := range 5 { // whichever connection of the pool
		if after := settings(); after != before {
			t.Errorf("connection %d: busy timeout and durability are %s, were %s", i, after, before)
		}
	}
	for i, ok := range acked {
		var n int
		if err := db.QueryRow("SELECT count(*) FROM plainware_values WHERE key = ?", fmt.Append(nil, i)).Scan(&n); err != nil || ok && n == 0 {
			t.Errorf("value %d was acknowledged and is not there, %v", i, err)
		}
	}
	ctx := t.Context()
	for name, f := range map[string]func() error{
		"Get":     func() error { _, _, err := s.Get(ctx, "key"); return err },
		"Put":     func() error { return s.Put(ctx, "key", nil, 0) },
		"Swap":    func() error { _, err := s.CompareAndSwap(ctx, "key", nil, nil, 0); return err },
		"Delete":  func() error { return s.Delete(ctx, "key") },
		"Touch":   func() error { _, err := s.Touch(ctx, "key", 0); return err },
		"Advance": func() error { _, err := s.Advance(ctx, bucket("key", 1)); return err },
		"Batch":   func() error { return s.AdvanceBatch(ctx, []store.Op{bucket("key", 1)}, make([]store.Result, 1)) },
		"Scan": func() (err error) {
			for _, err = range s.Scan(ctx, "") {
			}
			return err
		},
		"Keep": func() error { _, err := s.Keep(); return err },
		"view": func() error { return kept.Put(ctx, "key", nil, 0) },
	} {
		if err := f(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

// Close ends although the file is locked for ever.
func testCloseLocked(t *testing.T, d Driver) {
	path := newFile(t)
	s, err := kit.New(t.Context(), kit.Config{DB: d.open(t, path), Timeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	release := lockFile(t, d.open(t, path))
	defer release()
	var wg sync.WaitGroup
	for s.Stats().Busy == 0 { // until the writer is waiting for the lock
		wg.Go(func() {
			if err := s.Put(t.Context(), "key", nil, 0); err == nil {
				t.Error("a put succeeded without the lock")
			}
		})
		<-time.After(time.Millisecond)
	}
	begin := time.Now()
	err = s.Close()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("close took %v, %v", took, err)
	}
	wg.Wait()
}

// Databases that cannot hold a store are refused with the reason.
func testRefused(t *testing.T, d Driver) {
	refused := func(name string, cfg kit.Config, want string) {
		t.Helper()
		s, err := kit.New(t.Context(), cfg)
		if err == nil {
			s.Close()
			t.Errorf("%s: was taken", name)
		} else if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "sqlitestore: ") {
			t.Errorf("%s: %v, want one with %q", name, err, want)
		}
		if cfg.DB != nil && cfg.DB.Stats().InUse != 0 {
			t.Errorf("%s: a connection is still in use", name)
		}
	}
	refused("memory", kit.Config{DB: d.openDSN(t, ":memory:")}, "in memory")
	refused("shared memory", kit.Config{DB: d.openDSN(t, "file:x?mode=memory&cache=shared")}, "in memory")
	one := d.open(t, newFile(t))
	one.SetMaxOpenConns(1)
	refused("one connection", kit.Config{DB: one}, "SetMaxOpenConns")

	for _, wal := range []bool{false, true} {
		path := newFile(t)
		db := d.open(t, path)
		if wal {
			d.store(t, kit.Config{DB: db})
		} else if _, err := db.Exec("CREATE TABLE t (x)"); err != nil {
			t.Fatal(err)
		}
		refused("read-only", kit.Config{DB: d.openDSN(t, "file:"+path+"?mode=ro")}, "readonly")
	}
	path := newFile(t)
	if err := os.WriteFile(path, []byte(strings.Repeat("no database", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("no database", kit.Config{DB: d.open(t, path)}, "not a database")

	path = newFile(t)
	d.store(t, kit.Config{DB: d.open(t, path)})
	release := lockFile(t, d.open(t, path))
	defer release()
	begin := time.Now()
	refused("locked", kit.Config{DB: d.open(t, path), Timeout: 50 * time.Millisecond}, "locked")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("a locked file was refused after %v", took)
	}
}

// Scan pages through more keys than one page has, in the order of their bytes,
// while the loop uses the store itself on a pool of two connections.
func testScan(t *testing.T, d Driver) {
	db := d.open(t, newFile(t))
	db.SetMaxOpenConns(2)
	s := d.store(t, kit.Config{DB: db})
	var want []string
	var wg sync.WaitGroup
	for i := range 1000 {
		key := fmt.Sprintf("é%04d\xf4\x8f\xbf\xbf", i)
		want = append(want, key)
		wg.Go(func() {
			for _, key := range []string{key, "e" + key, "é", "ê" + key} {
				if err := s.Put(t.Context(), key, []byte(key), 0); err != nil {
					t.Error(err)
				}
			}
			if err := s.Put(t.Context(), key+"x", nil, 1); err != nil { // expires at once
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want = slices.Insert(want, 0, "é")
	var got []string
	for key, err := range s.Scan(t.Context(), "é") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, key)
		if len(got)%100 == 0 {
			if _, ok, err := s.Get(t.Context(), key); !ok || err != nil {
				t.Errorf("get within scan: %v, %v", ok, err)
			}
			if err := s.Put(t.Context(), key, nil, 0); err != nil {
				t.Errorf("put within scan: %v", err)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %d keys, want %d", len(got), len(want))
	}
	for range s.Scan(t.Context(), "é") {
		break // early
	}
	if n := db.Stats().InUse; n != 1 {
		t.Errorf("%d connections in use, want the writer's", n)
	}
}

// Long values, and the longest key of a register.
func testSizes(t *testing.T, d Driver) {
	s := d.store(t, kit.Config{})
	long := make([]byte, kit.MaxValue)
	for i := range long {
		long[i] = byte(i * i >> 7)
	}
	if err := s.Put(t.Context(), "key", long, 0); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := s.Get(t.Context(), "key"); string(v) != string(long) || !ok || err != nil {
		t.Errorf("got %d bytes, %v, %v", len(v), ok, err)
	}
	if swapped, err := s.CompareAndSwap(t.Context(), "key", long, nil, 0); !swapped || err != nil {
		t.Errorf("swapped %v, %v", swapped, err)
	}
	if err := s.Put(t.Context(), "key", append(long, 0), 0); !errors.Is(err, store.ErrSize) {
		t.Errorf("put of a value that is too long: %v", err)
	}
	for _, split := range []int{1, 256, 511} {
		op := bucket(strings.Repeat("k", 512-split), 10)
		op.Space = strings.Repeat("k", split)
		if r, err := s.Advance(t.Context(), op); err != nil || r.Granted != 10 {
			t.Errorf("split %d: granted %d, %v", split, r.Granted, err)
		}
	}
}
