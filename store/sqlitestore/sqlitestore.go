// Package sqlitestore keeps a [store.Store] in SQLite, through the *sql.DB and
// the driver of the program that uses it. It works with modernc.org/sqlite,
// github.com/ncruces/go-sqlite3 and github.com/mattn/go-sqlite3.
//
//	db, err := sql.Open("sqlite", "file:/var/lib/app/state.db")
//	s, err := sqlitestore.New(ctx, sqlitestore.Config{DB: db})
//	defer s.Close() // before db.Close()
//
// It is for one host: any number of goroutines and processes may share the
// file, over a file system with working locks, so not over a network. It has
// every capability of package store: registers, batches, all or nothing, touch,
// scan and keep.
//
// # Writes
//
// One goroutine writes, on one connection that the store takes out of DB and
// holds until Close, so DB must allow at least two. What callers wait for
// meanwhile goes into the next transaction together (group commit): an idle
// store commits at once, a busy one up to [Config.Group] calls at a time, and a
// register that many of them advance is read and written once. Reads use the
// pool, and in WAL mode neither wait for the writer nor hold it up.
//
// When another process has the write lock, the store sleeps for short random
// times between attempts instead of using SQLite's busy timeout, whose longer
// and longer sleeps let a process starve. The DB's other connections keep the
// busy timeout they have.
//
// How long calls wait was measured with four processes, of four goroutines each,
// that made decisions in one file as fast as they could for three seconds, three
// times with each driver, on two virtual cores that did other work beside (a
// load of 6 to 9). Of the hundred thousand calls of a run, half took less than 0.1 ms,
// 99 % less than 9 to 14 ms, 99.9 % less than 24 to 38 ms, and the longest 54 to
// 210 ms. One process alone, which waits for nobody, had a longest call of 12 to
// 260 ms there. The benchmark Contention in internal/interop/sqlitestore measures
// your machine.
//
// # Durability
//
// New puts the file into WAL mode, for good. What was acknowledged is in the
// file whatever becomes of the process, kill -9 included. Against power loss
// and crashes of the kernel there are two levels. Ordinary writes are committed
// with synchronous=NORMAL: the file stays sound, but the last moments before
// the crash, usually since the last checkpoint, may be lost, which makes a
// spent bucket a little fuller. Writes through [store.Keep], or all with
// [Config.Durable], are committed with synchronous=FULL: they are on the disk
// before the call returns, and so is everything that was committed before them.
// This holds if no connection to the file runs with synchronous=OFF, and on
// macOS needs PRAGMA fullfsync on every connection.
//
// # Time
//
// Expiry and registers are judged by the wall clock of this host, read while
// the write lock is held, so that all processes go by one clock in one order.
// If it is set back, values live longer by as much, and clock registers heal
// (see [store.Op]). Expired rows are absent at once and are removed in the
// background, a thousand rows at a time; their pages are used again, and the
// file does not shrink.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// Config configures [New] and [Migrate].
type Config struct {
	// DB is the database, required. The store never closes it.
	//
	// The store holds one of its connections until Close and reads through
	// others, so SetMaxOpenConns must allow two or more; a program that wants
	// one gives the store a DB of its own. As many reads as GOMAXPROCS run at
	// once, at least two, so a like number for SetMaxIdleConns spares a machine
	// with more than two processors the opening and closing of connections.
	//
	// It must be a file that can be written: an in-memory database is refused,
	// because it loses its content with its connections, and store.NewMemory is
	// faster.
	DB *sql.DB

	// Table is the beginning of the names of the three tables: <Table>_schema,
	// <Table>_values and <Table>_registers. Letters, digits and underscores, 1
	// to 64, not a digit first. Empty means "plainware". Stores on one file with
	// different tables share nothing but the write lock.
	Table string

	// Durable commits every write as if it were made through [store.Keep]. Each
	// transaction then waits for the disk.
	Durable bool

	// Group is how many calls share a transaction at most. Zero means 256;
	// negative means that each has its own. An AdvanceBatch is one call.
	Group int

	// Timeout is the time limit of each call, of New, Migrate and Close, beside
	// that of their contexts; of Scan, it is for each page. Zero means 5 s;
	// negative means none.
	Timeout time.Duration

	// Sweep is how long after it has removed the expired rows the store looks
	// for them again. Zero means 1 min; negative means never, for programs where
	// another process on the file does it.
	Sweep time.Duration

	// Logger is told what no caller can see: that a sweep failed. Nil discards.
	Logger *slog.Logger
}

// MaxValue is the length of the longest value in bytes.
const MaxValue = 16 << 20

const (
	defaultTable   = "plainware"
	defaultGroup   = 256
	defaultTimeout = 5 * time.Second
	defaultSweep   = time.Minute
)

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// prepare returns cfg with its defaults, or all that is wrong with it.
func (cfg Config) prepare() (Config, error) {
	var problems []error
	if cfg.DB == nil {
		problems = append(problems, errors.New("sqlitestore: DB: must be set (got nil)"))
	} else if n := cfg.DB.Stats().MaxOpenConnections; n == 1 {
		problems = append(problems, errors.New("sqlitestore: DB: SetMaxOpenConns must allow 2 connections or more, or the store needs a DB of its own (got 1)"))
	}
	if cfg.Table == "" {
		cfg.Table = defaultTable
	}
	if !tableName.MatchString(cfg.Table) || strings.HasPrefix(strings.ToLower(cfg.Table), "sqlite_") {
		problems = append(problems, fmt.Errorf("sqlitestore: Table: must be 1 to 64 letters, digits and underscores, not begin with a digit, and not with sqlite_ (got %q)", cfg.Table))
	}
	switch {
	case cfg.Group == 0:
		cfg.Group = defaultGroup
	case cfg.Group < 0:
		cfg.Group = 1
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Sweep == 0 {
		cfg.Sweep = defaultSweep
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, errors.Join(problems...)
}

// Store is a [store.Store] in an SQLite file. See the package comment.
type Store struct {
	*shared
	full bool // every write of this view waits for the disk
}

// shared is what a Store and its Keep views have in common.
type shared struct {
	cfg   Config
	w     *writer
	get   *sql.Stmt // on the pool
	page  *sql.Stmt
	reads chan struct{} // one element per read in flight

	closing   chan struct{} // closed by Close: nothing new is taken
	closeOnce func() error
}

var _ interface {
	store.Store
	store.BatchRegisters
	store.AtomicRegisters
	store.Toucher
	store.Scanner
	store.Keeper
} = (*Store)(nil)

// New opens the store in cfg.DB: it switches the file to WAL mode, creates or
// upgrades the tables (see [Migrate]), and starts the writer. It fails if the
// tables are of a newer version than this package knows.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.prepare()
	if err != nil {
		return nil, err
	}
	if cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
	}
	c, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.migrate(ctx, cfg.Table, migrations, len(migrations), false); err != nil {
		c.discard()
		return nil, err
	}
	q := newQueries(cfg.Table)
	if err := c.prepare(ctx, q); err != nil {
		c.discard()
		return nil, fmt.Errorf("sqlitestore: %w", err)
	}
	s := &shared{cfg: cfg, reads: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), closing: make(chan struct{})}
	for stmt, text := range map[**sql.Stmt]string{&s.get: q.get, &s.page: q.page} {
		err := retry(ctx, func() (err error) {
			*stmt, err = cfg.DB.PrepareContext(ctx, text)
			return err
		})
		if err != nil {
			c.discard()
			s.closeStmts()
			return nil, fmt.Errorf("sqlitestore: %w", err)
		}
	}
	s.w = &writer{
		cfg:     cfg,
		queries: q,
		conn:    c,
		calls:   make(chan *call, cfg.Group),
		closing: s.closing,
		abort:   make(chan struct{}),
		stopped: make(chan struct{}),
	}
	s.closeOnce = sync.OnceValue(s.close)
	go s.w.run()
	return &Store{shared: s, full: cfg.Durable}, nil
}

// Close finishes the writes that were begun, stops the writer and gives its
// connection up. Later calls, and those on views, fail with an error that is
// [store.ErrClosed]. It does not close the DB. It may be called twice, and
// returns an error if the writer hangs in the driver for longer than
// [Config.Timeout].
func (s *Store) Close() error { return s.closeOnce() }

func (s *shared) close() error {
	close(s.closing)
	var expired <-chan time.Time
	if s.cfg.Timeout > 0 {
		t := time.NewTimer(s.cfg.Timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-s.w.stopped:
	case <-expired:
		close(s.w.abort)
		return fmt.Errorf("sqlitestore: Close: the writer did not end within %v", s.cfg.Timeout)
	}
	for range cap(s.reads) {
		select {
		case s.reads <- struct{}{}: // for good
		case <-expired:
			return fmt.Errorf("sqlitestore: Close: a read did not end within %v", s.cfg.Timeout)
		}
	}
	s.closeStmts()
	return nil
}

func (s *shared) closeStmts() {
	for _, stmt := range []*sql.Stmt{s.get, s.page} {
		if stmt != nil {
			stmt.Close() // fails only where its connection is gone
		}
	}
}

// Keep returns a view whose writes, registers included, are committed with
// synchronous=FULL. See [store.Keep] and the package comment.
func (s *Store) Keep() (store.Store, error) {
	select {
	case <-s.closing:
		return nil, store.ErrClosed
	default:
		return &Store{shared: s.shared, full: true}, nil
	}
}

// Stats counts what the store has done since New.
type Stats struct {
	Calls        int64 // writes and registers that were executed
	Transactions int64 // in which they were committed
	Busy         int64 // attempts at the write lock that found it taken
	Swept        int64 // expired rows removed
}

// Stats returns the counts, of views included. It is cheap.
func (s *Store) Stats() Stats {
	st := &s.w.stats
	return Stats{
		Calls:        st.calls.Load(),
		Transactions: st.transactions.Load(),
		Busy:         st.busy.Load(),
		Swept:        st.swept.Load(),
	}
}

type counters struct {
	calls, transactions, busy, swept atomic.Int64
}

// timeout is what a call ends with when the store's own limit passes.
type timeoutError struct{ limit time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("sqlitestore: no answer within %v", e.limit)
}
func (e *timeoutError) Timeout() bool { return true }
func (e *timeoutError) Unwrap() error { return context.DeadlineExceeded }

// write hands c to the writer and waits until it is committed. If ctx or the
// time limit ends first, c may be executed still, so it refers to nothing of
// the caller's.
func (s *Store) write(ctx context.Context, c *call) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlitestore: %w", err)
	}
	c.full = s.full
	c.done = make(chan struct{})
	var expired <-chan time.Time
	if s.cfg.Timeout > 0 {
		t := time.NewTimer(s.cfg.Timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-s.closing: // the select below would choose at random
		return store.ErrClosed
	default:
	}
	select {
	case s.w.calls <- c:
	case <-s.closing:
		return store.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("sqlitestore: %w", ctx.Err())
	case <-expired:
		return &timeoutError{s.cfg.Timeout}
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		c.gone.Store(true)
		return fmt.Errorf("sqlitestore: %w", ctx.Err())
	case <-expired:
		c.gone.Store(true)
		return &timeoutError{s.cfg.Timeout}
	case <-s.w.stopped:
		select {
		case <-c.done:
			return c.err
		default: // sent after the writer's last look
			return store.ErrClosed
		}
	}
}

// read runs f, which reads through the pool, until it no longer finds the file
// locked. It has its own goroutine, because drivers that sit in SQLite's busy
// handler or in a system call do not watch ctx; what f sets may be looked at
// only if read returns nil.
func (s *Store) read(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlitestore: %w", err)
	}
	select {
	case <-s.closing:
		return store.ErrClosed
	default:
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if s.cfg.Timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, s.cfg.Timeout)
	}
	defer cancel()
	failed := func() error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sqlitestore: %w", err)
		}
		return &timeoutError{s.cfg.Timeout}
	}
	select {
	case s.reads <- struct{}{}:
	case <-s.closing:
		return store.ErrClosed
	case <-limited.Done():
		return failed()
	}
	done := make(chan error, 1)
	go func() {
		err := retry(limited, func() error { return f(limited) })
		<-s.reads
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil && limited.Err() != nil {
			return failed()
		}
		if err != nil {
			return fmt.Errorf("sqlitestore: %w", err)
		}
		return nil
	case <-limited.Done():
		return failed()
	}
}
