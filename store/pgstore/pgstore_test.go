package pgstore_test

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"flag"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

var update = flag.Bool("update", false, "rewrite testdata")

// New reports all problems at once.
func TestConfigErrors(t *testing.T) {
	_, err := pgstore.New(t.Context(), pgstore.Config{Schema: `x"; DROP TABLE users --`, Prefix: "1st_"})
	want := strings.Join([]string{
		`pgstore: DB: is required (got nil)`,
		`pgstore: Schema: must be ASCII letters, digits and underscores, and not begin with a digit (got "x\"; DROP TABLE users --")`,
		`pgstore: Prefix: must be ASCII letters, digits and underscores, and not begin with a digit (got "1st_")`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("New: %v\nwant: %s", err, want)
	}
	err = pgstore.Migrate(t.Context(), pgstore.Config{}, pgstore.Version+1)
	want = "pgstore: DB: is required (got nil)\npgstore: version: must be 0 to 1 (got 2)"
	if err == nil || err.Error() != want {
		t.Errorf("Migrate: %v\nwant: %s", err, want)
	}
	f := &fake{}
	if err := pgstore.Migrate(t.Context(), pgstore.Config{DB: f.db(t)}, -1); err == nil || len(f.ran()) != 0 {
		t.Errorf("Migrate to version -1: %v", err)
	}
}

// A name is a plain identifier, and fits into one of PostgreSQL with what is
// appended.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		schema, prefix string
		ok             bool
	}{
		{"", "", true},
		{"public", "plainware_", true},
		{"_", "A9_", true},
		{strings.Repeat("s", 63), strings.Repeat("p", 32), true},
		{strings.Repeat("s", 64), "", false},
		{"", strings.Repeat("p", 33), false},
		{"pg_own", "", false},
		{"a.b", "", false},
		{"a$$", "", false},
		{"", "$$", false},
		{"a\x00", "", false},
		{"é", "", false},
		{`"`, "", false},
	} {
		f := &fake{}
		_, err := pgstore.New(t.Context(), pgstore.Config{DB: f.db(t), Schema: c.schema, Prefix: c.prefix})
		if (err == nil) != c.ok {
			t.Errorf("Schema %q, Prefix %q: %v", c.schema, c.prefix, err)
		}
		if !c.ok && len(f.ran()) != 0 {
			t.Errorf("Schema %q, Prefix %q: refused after a statement", c.schema, c.prefix)
		}
	}
}

// A server that is too old, a standby or one that may not be written, and another
// isolation level are refused, together.
func TestUnfitServer(t *testing.T) {
	var standby bool
	f := &fake{answer: func(_ context.Context, text string, _ []driver.NamedValue) ([][]driver.Value, error) {
		return [][]driver.Value{{int64(130014), "serializable", true, standby}}, nil
	}}
	for _, standby = range []bool{true, false} {
		third := map[bool]string{true: "must be a primary", false: "default_transaction_read_only must be off"}[standby]
		_, newErr := pgstore.New(t.Context(), pgstore.Config{DB: f.db(t)})
		migrateErr := pgstore.Migrate(t.Context(), pgstore.Config{DB: f.db(t)}, 1)
		for _, want := range []string{"must be PostgreSQL 14 or later (got 13)", "read committed on its connections (got serializable)", third} {
			for what, err := range map[string]error{"New": newErr, "Migrate": migrateErr} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q", what, err, want)
				}
			}
		}
		if n := len(f.ran()); n != 2 {
			t.Errorf("%d statements, want one each", n)
		}
	}
}

// What New runs on an empty database, word by word: a migration that was
// released never changes, and there is one place to read them.
func TestMigrationText(t *testing.T) {
	empty := func(_ context.Context, text string, _ []driver.NamedValue) ([][]driver.Value, error) {
		if strings.Contains(text, "pg_class") || strings.Contains(text, "pg_namespace") {
			return [][]driver.Value{{false}}, nil
		}
		return healthy(text), nil
	}
	f := &fake{answer: empty}
	if _, err := pgstore.New(t.Context(), pgstore.Config{DB: f.db(t)}); err != nil {
		t.Fatal(err)
	}
	texts := f.ran()
	got := []byte(strings.Join(texts[slices.Index(texts, "BEGIN"):], ";\n\n") + ";\n")
	const name = "testdata/up_1.sql"
	if *update {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("the statements differ from %s:\n%s", name, got)
	}
}

// An up-to-date schema is only read; a newer one is refused without a change; a
// failed migration is rolled back.
func TestMigrationPaths(t *testing.T) {
	f := &fake{}
	f.store(t, pgstore.Config{})
	if _, err := pgstore.New(t.Context(), pgstore.Config{DB: f.db(t)}); err != nil {
		t.Fatal(err)
	}
	for _, text := range f.ran() {
		if !strings.HasPrefix(text, "SELECT") {
			t.Errorf("an up-to-date schema got %s", text)
		}
	}

	version := int64(2)
	f.answer = func(_ context.Context, text string, _ []driver.NamedValue) ([][]driver.Value, error) {
		if strings.HasPrefix(text, "SELECT version") {
			return [][]driver.Value{{version}}, nil
		}
		return healthy(text), nil
	}
	_, err := pgstore.New(t.Context(), pgstore.Config{DB: f.db(t)})
	if err == nil || !strings.Contains(err.Error(), `the tables in schema "plainware" are of version 2, made by a newer release; this one knows 1`) {
		t.Errorf("New: %v", err)
	}
	if texts := f.ran(); texts[len(texts)-1] != "ROLLBACK" {
		t.Errorf("a newer schema got %q", texts)
	}

	bad := errors.New("no space")
	version = 0
	f.answer = func(_ context.Context, text string, _ []driver.NamedValue) ([][]driver.Value, error) {
		if strings.HasPrefix(text, "CREATE UNLOGGED") {
			return nil, bad
		}
		if strings.Contains(text, "pg_class") {
			return [][]driver.Value{{false}}, nil
		}
		return healthy(text), nil
	}
	if _, err = pgstore.New(t.Context(), pgstore.Config{DB: f.db(t)}); !errors.Is(err, bad) {
		t.Errorf("New: %v, want one that is %v", err, bad)
	}
	if texts := f.ran(); texts[len(texts)-1] != "ROLLBACK" {
		t.Errorf("after a failure: %q", texts[len(texts)-1])
	}
}

// Arguments that no backend takes are refused before the database sees them.
func TestArguments(t *testing.T) {
	f := &fake{}
	s := f.store(t, pgstore.Config{})
	ctx := t.Context()
	op := store.Op{Space: "s", Key: "k", Ceil: 1, Step: 1, Max: 1}
	badOp, badKey := op, op
	badOp.Min, badKey.Key = -1, ""
	two := make([]store.Result, 2)
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"Get":          {second(s.Get(ctx, "")), store.ErrKey},
		"Put":          {s.Put(ctx, "a\x00", nil, 0), store.ErrKey},
		"Put ttl":      {s.Put(ctx, "k", nil, -1), store.ErrTTL},
		"Put size":     {s.Put(ctx, "k", make([]byte, 256<<20+1), 0), store.ErrSize},
		"swap":         {first(s.CompareAndSwap(ctx, "\xff", nil, nil, 0)), store.ErrKey},
		"swap ttl":     {first(s.CompareAndSwap(ctx, "k", nil, []byte{}, -1)), store.ErrTTL},
		"Delete":       {s.Delete(ctx, strings.Repeat("k", 513)), store.ErrKey},
		"Touch":        {first(s.Touch(ctx, "k", -1)), store.ErrTTL},
		"Advance":      {first(s.Advance(ctx, badOp)), store.ErrOp},
		"Advance key":  {first(s.Advance(ctx, badKey)), store.ErrKey},
		"batch":        {s.AdvanceBatch(ctx, []store.Op{op, badOp}, two), store.ErrOp},
		"batch length": {s.AdvanceBatch(ctx, []store.Op{op}, two), store.ErrOp},
		"all":          {first(s.AdvanceAll(ctx, []store.Op{op, badKey}, two)), store.ErrKey},
		"all twice":    {first(s.AdvanceAll(ctx, []store.Op{op, op}, two)), store.ErrOp},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want one that is %v", name, c.err, c.want)
		}
	}
	if err := s.AdvanceBatch(ctx, nil, nil); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
	if ok, err := s.AdvanceAll(ctx, nil, nil); !ok || err != nil {
		t.Errorf("AdvanceAll of nothing = %v, %v", ok, err)
	}
	if texts := f.ran(); len(texts) != 0 {
		t.Errorf("the database saw %q", texts)
	}
}

func first[T any](_ T, err error) error          { return err }
func second[T, U any](_ T, _ U, err error) error { return err }

// A batch goes to the server sorted by register, and each result to its
// operation.
func TestBatchOrder(t *testing.T) {
	f := &fake{}
	s := f.store(t, pgstore.Config{})
	var keys, args string
	n := 3
	f.answer = func(_ context.Context, text string, a []driver.NamedValue) ([][]driver.Value, error) {
		keys, args = a[0].Value.(string), a[1].Value.(string)
		var rows [][]driver.Value
		for i := range n {
			rows = append(rows, []driver.Value{true, int64(100 + i), int64(i), int64(1), int64(5)})
		}
		return rows, nil
	}
	ops := []store.Op{
		{Space: "s", Key: `b"\`, Ceil: 2, Step: 3, Max: 4, Min: 1, TTL: 7},
		{Space: "s", Key: "a", Clock: true, Floor: -1, Ceil: 9, Over: 8, Step: -2, Max: 1, Min: 1},
		{Space: "s", Key: `b"\`, Ceil: 5, TTL: 1<<63 - 1},
	}
	res := make([]store.Result, 3)
	if err := s.AdvanceBatch(t.Context(), ops, res); err != nil {
		t.Fatal(err)
	}
	if want := `{"\\x730061","\\x730062225c","\\x730062225c"}`; keys != want {
		t.Errorf("keys = %s, want %s", keys, want)
	}
	if want := `{1,-1,9,8,-2,1,1,0,0,0,2,0,3,1,4,7,0,0,5,0,0,0,0,0}`; args != want {
		t.Errorf("args = %s, want %s", args, want)
	}
	want := []store.Result{
		{Value: 101, Granted: 1, Now: 1, Expires: 4},
		{Value: 100, Granted: 0, Now: 1, Expires: 100},
		{Value: 102, Granted: 2, Now: 1, Expires: 4},
	}
	if !slices.Equal(res, want) {
		t.Errorf("results are %+v, want %+v", res, want)
	}
	for _, n = range []int{0, 2, 4} {
		if err := s.AdvanceBatch(t.Context(), ops, res); err == nil {
			t.Errorf("%d answers to 3 operations are no error", n)
		}
	}
}

// Timeout bounds a call, and so does its context; the error is the context's
// whatever the driver says.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		stalled := func(ctx context.Context, _ string, _ []driver.NamedValue) ([][]driver.Value, error) {
			<-ctx.Done()
			return nil, errors.New("driver: cancelled on user request")
		}
		for _, c := range []struct {
			timeout, own, want time.Duration
		}{
			{0, 0, 5 * time.Second},
			{time.Minute, 0, time.Minute},
			{time.Minute, time.Second, time.Second},
			{-1, time.Hour, time.Hour},
		} {
			f.answer = nil
			s := f.store(t, pgstore.Config{Timeout: c.timeout})
			f.answer = stalled
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if c.own > 0 {
				ctx, cancel = context.WithTimeout(ctx, c.own)
			}
			start := time.Now()
			_, err := s.Advance(ctx, store.Op{Space: "s", Key: "k", Ceil: 1, Step: 1, Max: 1})
			if took := time.Since(start); took != c.want || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Timeout %v, context %v: %v after %v, want the deadline after %v", c.timeout, c.own, err, took, c.want)
			}
			cancel()
		}
	})
}

// After every SweepEvery writes one task sweeps; it tells the Logger what goes
// wrong; Close ends it, and every later call fails.
func TestTaskAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := &fake{}
		s := f.store(t, pgstore.Config{SweepEvery: 10, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		put := func(n int) {
			t.Helper()
			for range n {
				if err := s.Put(t.Context(), "k", nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		sweeps := func() (n int) {
			for _, text := range f.ran() {
				if strings.Contains(text, "pg_relation_size") {
					n++
				}
			}
			return n
		}
		answer := func(size func(ctx context.Context) ([][]driver.Value, error)) {
			f.answer = func(ctx context.Context, text string, _ []driver.NamedValue) ([][]driver.Value, error) {
				if strings.Contains(text, "pg_relation_size") {
					return size(ctx)
				}
				if strings.Contains(text, "DELETE") {
					return [][]driver.Value{{int64(0)}}, nil
				}
				return nil, nil
			}
		}
		answer(func(context.Context) ([][]driver.Value, error) { return [][]driver.Value{{int64(1000)}}, nil })
		put(9)
		if n := sweeps(); n != 0 {
			t.Errorf("%d slices after 9 writes, want none", n)
		}
		put(1)
		put(10)
		if n := sweeps(); n != 4 {
			t.Errorf("%d slices after 20 writes, want two of each table", n)
		}
		if log.Len() != 0 {
			t.Errorf("log: %s", &log)
		}

		answer(func(context.Context) ([][]driver.Value, error) { return nil, errors.New("gone") })
		put(10)
		if !strings.Contains(log.String(), "gone") {
			t.Errorf("log: %s", &log)
		}
		f.ran()

		answer(func(ctx context.Context) ([][]driver.Value, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		log.Reset()
		put(25) // one task at a time
		if n := sweeps(); n != 1 {
			t.Errorf("%d slices beside one that waits", n)
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if log.Len() != 0 {
			t.Errorf("log of Close: %s", &log)
		}
		ctx := t.Context()
		for _, err := range []error{
			second(s.Get(ctx, "k")), s.Put(ctx, "k", nil, 0), s.Delete(ctx, "k"),
			first(s.CompareAndSwap(ctx, "k", nil, nil, 0)), first(s.CompareAndSwap(ctx, "k", nil, []byte{}, 0)),
			first(s.Touch(ctx, "k", 0)), first(s.Advance(ctx, store.Op{Space: "s", Key: "k"})),
			s.AdvanceBatch(ctx, peek, make([]store.Result, 1)), first(s.AdvanceAll(ctx, peek, make([]store.Result, 1))),
			first(s.Sweep(ctx)), first(s.Keep()),
		} {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		for _, err := range s.Scan(ctx, "") {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("Scan after Close: %v", err)
			}
		}
	})
}

var peek = []store.Op{{Space: "s", Key: "k"}}

// Without SweepEvery nothing runs in the background.
func TestNoTask(t *testing.T) {
	f := &fake{}
	s := f.store(t, pgstore.Config{SweepEvery: -1})
	for range 3000 {
		if err := s.Put(t.Context(), "k", nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.ran()); n != 3000 {
		t.Errorf("%d statements for 3000 writes", n)
	}
}
