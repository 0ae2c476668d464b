package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

func newStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// All problems of a Config are reported at once.
func TestConfig(t *testing.T) {
	_, err := New(t.Context(), Config{Table: "a-b"})
	for _, want := range []string{"sqlitestore: DB: must be set (got nil)", `sqlitestore: Table: must be 1 to 64 letters`, `(got "a-b")`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, without %q", err, want)
		}
	}
	db := openFake(t, &fakeDriver{})
	for _, table := range []string{"1a", "sqlite_a", "SQLite_a", `a"b`, "a b", "é", strings.Repeat("a", 65)} {
		if _, err := New(t.Context(), Config{DB: db, Table: table}); err == nil || !strings.Contains(err.Error(), "sqlitestore: Table: ") {
			t.Errorf("table %q: %v", table, err)
		}
		if err := Migrate(t.Context(), Config{DB: db, Table: table}, 1); err == nil {
			t.Errorf("table %q was migrated", table)
		}
	}
	db.SetMaxOpenConns(1)
	if _, err := New(t.Context(), Config{DB: db}); err == nil || !strings.Contains(err.Error(), "SetMaxOpenConns must allow 2") {
		t.Errorf("one connection: %v", err)
	}
}

// The errors by which drivers say that a lock is taken, and some that do not.
func TestBusy(t *testing.T) {
	for _, err := range []error{
		codeError(5), codeError(6), codeError(15),
		codeError(261), codeError(517), codeError(262), // extended codes
		fmt.Errorf("begin: %w", codeError(5)),
		errors.New("database is locked"),
		errors.New("database is locked (5) (SQLITE_BUSY)"),
		errors.New("sqlite3: database is locked"),
		errors.New("sqlite3: database table is locked: plainware_values"),
		errors.New("locking protocol"),
		errors.Join(errors.New("sqlite3: database is locked")),
	} {
		if !busy(err) {
			t.Errorf("%v is busy", err)
		}
	}
	for _, err := range []error{
		nil, codeError(0), codeError(1), codeError(8), codeError(10), errors.New("disk I/O error"),
		errors.New("no such table: plainware_values"), context.DeadlineExceeded,
	} {
		if busy(err) {
			t.Errorf("%v is not busy", err)
		}
	}
}

type codeError int

func (e codeError) Error() string { return fmt.Sprintf("some text (%d)", int(e)) }
func (e codeError) Code() int     { return int(e) }

// A lock that is taken is tried again after short times, until it is free.
func TestBusyRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Int64
		f := &fakeDriver{hook: func(text string) error {
			if fails.Add(-1) >= 0 {
				return codeError(5)
			}
			return nil
		}}
		db := openFake(t, f)
		defer db.Close()
		fails.Store(20)
		s := newStore(t, Config{DB: db, Sweep: -1})
		defer s.Close()
		for _, call := range []func() error{
			func() error { return s.Put(t.Context(), "key", nil, 0) },
			func() error { _, _, err := s.Get(t.Context(), "key"); return err },
			func() error { _, err := s.Touch(t.Context(), "key", 0); return err },
		} {
			fails.Store(50)
			begin := time.Now()
			if err := call(); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took == 0 || took > 51*maxWait {
				t.Errorf("50 attempts took %v", took)
			}
		}
	})
}

// stall makes the statements that begin with a word wait until it is called.
func stall(f *fakeDriver, word string) (release func()) {
	gate := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = func(text string) error {
		if strings.HasPrefix(text, word) {
			<-gate
		}
		return nil
	}
	return sync.OnceFunc(func() { close(gate) })
}

// Whatever the driver stalls in, and however many calls there are, each ends with
// its context or with the store's limit, and the goroutines end with the stall.
func TestStall(t *testing.T) {
	for _, word := range []string{"BEGIN", "COMMIT", "INSERT", "SELECT value"} {
		t.Run(word, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeDriver{}
				db := openFake(t, f)
				defer db.Close()
				s := newStore(t, Config{DB: db, Timeout: 3 * time.Second})
				release := stall(f, word)
				var wg sync.WaitGroup
				for i := range 1000 {
					wg.Go(func() {
						limit := time.Second
						ctx, cancel := context.WithTimeout(t.Context(), limit)
						if i%2 == 0 {
							ctx, limit = t.Context(), 3*time.Second
						}
						defer cancel()
						var err error
						begin := time.Now()
						if word == "SELECT value" {
							_, _, err = s.Get(ctx, "key")
						} else {
							err = s.Put(ctx, "key", nil, 0)
						}
						if took := time.Since(begin); took != limit || !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "sqlitestore: ") {
							t.Errorf("%v after %v, want the deadline after %v", err, took, limit)
						}
					})
				}
				wg.Wait()
				begin := time.Now()
				if err := s.Close(); err == nil {
					t.Error("Close did not report the stall")
				} else if took := time.Since(begin); took != 3*time.Second {
					t.Errorf("Close took %v", took)
				}
				release()
				synctest.Wait()
				// The bubble fails if a goroutine is left when this returns.
			})
		})
	}
}

// A call that was abandoned before it was executed is not executed.
func TestAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDriver{}
		db := openFake(t, f)
		defer db.Close()
		s := newStore(t, Config{DB: db, Sweep: -1})
		defer s.Close()
		release := stall(f, "COMMIT")
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Put(t.Context(), "a", nil, 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // it is in its commit
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := s.Put(ctx, "b", nil, 0); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := s.Put(t.Context(), "c", nil, 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // they wait for it
		cancel()
		synctest.Wait()
		release()
		wg.Wait()
		for key, want := range map[string]bool{"a": true, "b": false, "c": true} {
			if _, ok, err := s.Get(t.Context(), key); ok != want || err != nil {
				t.Errorf("%s: %v, %v", key, ok, err)
			}
		}
	})
}

// A transaction waits for the disk if one of its calls has to, and only then.
func TestDurability(t *testing.T) {
	f := &fakeDriver{}
	db := openFake(t, f)
	s := newStore(t, Config{DB: db, Sweep: -1})
	kept, err := store.Keep(s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := store.Keep(kept)
	if err != nil {
		t.Fatal(err)
	}
	durable := newStore(t, Config{DB: db, Sweep: -1, Durable: true})
	const normal, full, begin = "PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL", "BEGIN IMMEDIATE"
	f.statements()
	for _, step := range []struct {
		s    store.Store
		want []string
	}{
		{s, []string{begin}},
		{kept, []string{full, begin}},
		{again, []string{begin}},
		{s, []string{normal, begin}},
		{durable, []string{full, begin}},
		{durable, []string{begin}},
	} {
		if err := step.s.Put(t.Context(), "key", nil, 0); err != nil {
			t.Fatal(err)
		}
		if got := f.statements("PRAGMA", "BEGIN"); !slices.Equal(got, step.want) {
			t.Errorf("a put executed %q, want %q", got, step.want)
		}
	}
	for _, s := range []*Store{s, durable} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A commit that failed may have happened: it is reported to the whole group, not
// repeated, and the connection is not used again.
func TestCommitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDriver{}
		db := openFake(t, f)
		defer db.Close()
		s := newStore(t, Config{DB: db, Sweep: -1})
		defer s.Close()
		broken := errors.New("disk I/O error")
		release := stall(f, "BEGIN") // so that they meet in one group
		var wg sync.WaitGroup
		put := func(key string, want error) {
			wg.Go(func() {
				if err := s.Put(t.Context(), key, nil, 0); !errors.Is(err, want) {
					t.Errorf("put of %s: %v, want %v", key, err, want)
				}
			})
		}
		f.statements()
		put("first", nil)
		synctest.Wait()
		for i := range 5 {
			put(fmt.Sprint(i), broken)
		}
		synctest.Wait()
		commits := 0
		f.mu.Lock()
		f.hook = func(text string) error {
			if text != "COMMIT" {
				return nil
			}
			if commits++; commits > 1 {
				return broken
			}
			return nil
		}
		f.mu.Unlock()
		release()
		wg.Wait()
		if got := f.statements("BEGIN", "COMMIT"); len(got) != 4 {
			t.Errorf("executed %q, want two transactions", got)
		}
		f.mu.Lock()
		f.hook = nil
		f.mu.Unlock()
		if err := s.Put(t.Context(), "key", nil, 0); err != nil {
			t.Errorf("put afterwards: %v", err)
		}
		if got := f.statements("PRAGMA busy_timeout"); len(got) != 1 {
			t.Error("the connection was not replaced")
		}
		if err := errors.Join(s.Close(), db.Close()); err != nil {
			t.Error(err)
		}
		if conns, stmts := f.open(); conns != 0 || stmts != 0 {
			t.Errorf("%d connections and %d statements were left open", conns, stmts)
		}
	})
}

// A sweep that fails is told to the logger, and there is another one.
func TestSweepFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDriver{}
		db := openFake(t, f)
		defer db.Close()
		var log strings.Builder
		s := newStore(t, Config{DB: db, Sweep: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		f.mu.Lock()
		f.hook = func(text string) error {
			if strings.HasPrefix(text, "SELECT max(key)") {
				return errors.New("disk I/O error")
			}
			return nil
		}
		f.mu.Unlock()
		f.statements()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(f.statements("SELECT max(key)")); n < 8 || n > 12 {
			t.Errorf("%d attempts in 10 s", n)
		}
		f.mu.Lock()
		f.hook = nil
		f.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(f.statements("SELECT max(key)")); n < 2*8 || n > 2*12 { // two tables each time
			t.Errorf("%d slices in 10 s", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "sqlitestore: sweep failed") || !strings.Contains(log.String(), "disk I/O error") {
			t.Errorf("the log is %q", log.String())
		}
	})
}

// Arguments are refused before anything is executed, by the kind of the error.
func TestArguments(t *testing.T) {
	f := &fakeDriver{}
	s := newStore(t, Config{DB: openFake(t, f), Sweep: -1})
	defer s.Close()
	f.statements()
	ctx := t.Context()
	op := store.Op{Space: "space", Key: "key", Ceil: 1, Step: 1, Min: 1, Max: 1}
	bad := op
	bad.Min = -1
	one, two := make([]store.Result, 1), make([]store.Result, 2)
	for _, c := range []struct {
		name string
		want error
		call func() error
	}{
		{"Get", store.ErrKey, func() error { _, _, err := s.Get(ctx, ""); return err }},
		{"Put", store.ErrKey, func() error { return s.Put(ctx, "a\x00", nil, 0) }},
		{"Put", store.ErrTTL, func() error { return s.Put(ctx, "a", nil, -1) }},
		{"Put", store.ErrSize, func() error { return s.Put(ctx, "a", make([]byte, MaxValue+1), 0) }},
		{"CompareAndSwap", store.ErrTTL, func() error { _, err := s.CompareAndSwap(ctx, "a", nil, []byte{}, -1); return err }},
		{"Touch", store.ErrTTL, func() error { _, err := s.Touch(ctx, "a", -1); return err }},
		{"Delete", store.ErrKey, func() error { return s.Delete(ctx, "\xff") }},
		{"Advance", store.ErrOp, func() error { _, err := s.Advance(ctx, bad); return err }},
		{"AdvanceBatch", store.ErrOp, func() error { return s.AdvanceBatch(ctx, []store.Op{op, bad}, two) }},
		{"AdvanceBatch", store.ErrOp, func() error { return s.AdvanceBatch(ctx, []store.Op{op}, two) }},
		{"AdvanceAll", store.ErrOp, func() error { _, err := s.AdvanceAll(ctx, []store.Op{op, op}, two); return err }},
		{"AdvanceAll", store.ErrOp, func() error { _, err := s.AdvanceAll(ctx, []store.Op{bad}, one); return err }},
	} {
		if err := c.call(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := s.AdvanceBatch(ctx, nil, nil); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Put(done, "key", nil, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("put with a context that has ended: %v", err)
	}
	if _, _, err := s.Get(done, "key"); !errors.Is(err, context.Canceled) {
		t.Errorf("get with a context that has ended: %v", err)
	}
	if got := f.statements(); len(got) != 0 {
		t.Errorf("executed %q", got)
	}
}

// The longest ttl does not overflow.
func TestAfter(t *testing.T) {
	now := time.Now().UnixNano()
	for _, c := range []struct {
		ttl  time.Duration
		want int64
	}{{0, never}, {1, now + 1}, {never, never}, {time.Duration(never - now), never}, {time.Duration(never - now + 1), never}} {
		if got := after(now, c.ttl); got != c.want {
			t.Errorf("after %d: %d, want %d", c.ttl, got, c.want)
		}
	}
}
