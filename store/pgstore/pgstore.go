// Package pgstore keeps a [store.Store] in PostgreSQL, through the *sql.DB
// that the program already has.
//
//	db, err := sql.Open("pgx", "postgres://app@db.internal/app")
//	db.SetMaxOpenConns(16)
//	db.SetMaxIdleConns(16)
//	s, err := pgstore.New(ctx, pgstore.Config{DB: db})
//
// It works with any driver for PostgreSQL 14 or later; it is tested with
// github.com/jackc/pgx/v5/stdlib and github.com/lib/pq. New creates what it
// needs in a schema of its own, [Migrate] removes it.
//
// # Registers
//
// A decision is one round trip and one function call on the server, judged by
// the server's clock under the lock of the register's row: the clocks of the
// processes that share the store do not matter. A refusal reads without
// locking and writes nothing. A batch locks its registers in the order of
// their keys, whatever the order of its operations, so batches do not deadlock.
//
// Registers are in an unlogged table. They cost no write-ahead log and never
// wait for the disk. A clean restart of the server keeps them; a crash
// empties them, and so does a failover to a standby: every bucket is full
// again, every count starts anew.
//
// # Values
//
// Values are in a logged table, and are as durable as anything else on the
// server: with its defaults, what was acknowledged survives power loss.
// [Store.Keep] checks that nobody has switched that off.
//
// # Expiry
//
// Expired rows are absent to every operation at once. Their space is reclaimed
// after a minute, in slices, by a short task after every thousandth write, or at
// any time by [Store.Sweep].
//
// # Operation
//
//   - database/sql keeps two idle connections unless told otherwise, and opens
//     one for every call beyond: set SetMaxIdleConns to SetMaxOpenConns.
//   - The connections must use the isolation level read committed, which is the
//     default. New refuses another.
//   - Whether a call returns at its deadline while the server does not answer
//     is up to the driver. pgx does; lib/pq, as far as its cancel request
//     reaches the server.
//   - Behind a pooler in transaction mode, have the driver not prepare
//     statements (pgx: default_query_exec_mode=exec). Nothing else here needs a
//     session.
//   - After New or Migrate has run once with a role that may create the schema,
//     a role needs only USAGE on the schema, SELECT on the table version,
//     SELECT, INSERT, UPDATE and DELETE on the tables value and register, and
//     EXECUTE on the functions advance, advance_batch and advance_all, which
//     everybody has unless default privileges say otherwise.
//   - Nobody should be able to create things in the schema who is not trusted
//     with its contents.
package pgstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// Config configures [New] and [Migrate].
type Config struct {
	// DB is the database. Required. The store never closes it.
	DB *sql.DB

	// Schema is the PostgreSQL schema that holds the tables and functions. New
	// creates it if it is not there. Empty is "plainware". It and Prefix
	// consist of ASCII letters, digits and underscores, do not begin with a
	// digit, and are case-sensitive.
	Schema string

	// Prefix begins the name of each table and function, for a schema shared
	// with others, such as public. Empty is none; at most 32 bytes.
	Prefix string

	// Timeout bounds each call, beside its context. Zero is 5 s, negative is
	// none. It bounds each page of Scan, and does not bound New and Sweep.
	Timeout time.Duration

	// SweepEvery is the number of writes after which a task reclaims a slice of
	// the expired rows, in the background and one at a time. Zero is 1000,
	// negative is never: then something has to call Sweep. A slice is 512 KiB of
	// each table, some 4000 registers: the default keeps up when each write is
	// of a new key, with about a quarter of the rows expired.
	SweepEvery int

	// Logger is told when reclaiming fails in the background. Nil discards.
	Logger *slog.Logger
}

const (
	defaultSchema     = "plainware"
	defaultTimeout    = 5 * time.Second
	defaultSweepEvery = 1000

	maxPrefix = 32 // leaves room in the 63 bytes of an identifier for "advance_batch" and "register_pkey"
	maxName   = 63
)

// Store is the store. It implements [store.Store], [store.BatchRegisters],
// [store.AtomicRegisters], [store.Toucher], [store.Scanner] and
// [store.Keeper]. Make one with [New].
type Store struct {
	db      *sql.DB
	names   names
	text    statements
	timeout time.Duration
	logger  *slog.Logger

	every  int64
	writes atomic.Int64
	sweep  sweeper

	ctx    context.Context // of background tasks; ended by Close
	cancel context.CancelFunc
	mu     sync.Mutex // orders the start of a task and Close
	tasks  sync.WaitGroup
}

var (
	_ store.Store           = (*Store)(nil)
	_ store.BatchRegisters  = (*Store)(nil)
	_ store.AtomicRegisters = (*Store)(nil)
	_ store.Toucher         = (*Store)(nil)
	_ store.Scanner         = (*Store)(nil)
	_ store.Keeper          = (*Store)(nil)
)

// New returns a store over cfg.DB. It creates or updates the schema where
// needed, under an advisory lock, so that any number of processes may start at
// once; if the schema is up to date, it only reads. It refuses one that a newer
// version of this package has made. It returns all problems of cfg, joined.
func New(ctx context.Context, cfg Config) (*Store, error) {
	n, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if err := checkServer(ctx, cfg.DB); err != nil {
		return nil, err
	}
	if err := up(ctx, cfg.DB, n); err != nil {
		return nil, err
	}
	s := &Store{
		db:      cfg.DB,
		names:   n,
		text:    newStatements(n),
		timeout: cfg.Timeout,
		logger:  cfg.Logger,
		every:   int64(cfg.SweepEvery),
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.every == 0 {
		s.every = defaultSweepEvery
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close waits for the background task, if one runs, after cancelling it. Calls
// after it fail with [store.ErrClosed]. It does not close the database. It may
// be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.tasks.Wait()
	return nil
}

// begin bounds ctx by the timeout of the store.
func (s *Store) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if s.ctx.Err() != nil {
		return nil, nil, fmt.Errorf("pgstore: %w", store.ErrClosed)
	}
	if s.timeout < 0 {
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	return ctx, cancel, nil
}

// failed says what was tried, never on which key. Where the context ended, the
// error is the context's too: drivers differ in what they report.
func failed(ctx context.Context, what string, err error) error {
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		return fmt.Errorf("pgstore: %s: %w: %w", what, end, err)
	}
	return fmt.Errorf("pgstore: %s: %w", what, err)
}

// check returns the names that cfg asks for, or all that is wrong with cfg.
func (cfg *Config) check() (names, error) {
	var errs []error
	if cfg.DB == nil {
		errs = append(errs, errors.New("pgstore: DB: is required (got nil)"))
	}
	schema := cfg.Schema
	if schema == "" {
		schema = defaultSchema
	}
	if err := checkName("Schema", schema, maxName); err != nil {
		errs = append(errs, err)
	} else if len(schema) >= 3 && schema[:3] == "pg_" {
		errs = append(errs, fmt.Errorf("pgstore: Schema: must not begin with pg_ (got %q)", schema))
	}
	if cfg.Prefix != "" {
		if err := checkName("Prefix", cfg.Prefix, maxPrefix); err != nil {
			errs = append(errs, err)
		}
	}
	return newNames(schema, cfg.Prefix), errors.Join(errs...)
}

// checkName keeps out everything that quoting would have to deal with, inside
// the bodies of functions above all.
func checkName(field, s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("pgstore: %s: must be at most %d bytes (got %d)", field, most, len(s))
	}
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return fmt.Errorf("pgstore: %s: must be ASCII letters, digits and underscores, and not begin with a digit (got %q)", field, s)
		}
	}
	return nil
}

// checkServer refuses a server on which the promises of the package do not
// hold.
func checkServer(ctx context.Context, db *sql.DB) error {
	var version int
	var isolation string
	var readOnly, standby bool
	err := db.QueryRowContext(ctx, `SELECT pg_catalog.current_setting('server_version_num')::int,
		pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('transaction_read_only')::boolean,
		pg_catalog.pg_is_in_recovery()`).Scan(&version, &isolation, &readOnly, &standby)
	if err != nil {
		return failed(ctx, "look at the server", err)
	}
	var errs []error
	if version < 140000 {
		errs = append(errs, fmt.Errorf("pgstore: DB: the server must be PostgreSQL 14 or later (got %d)", version/10000))
	}
	if isolation != "read committed" {
		errs = append(errs, fmt.Errorf("pgstore: DB: default_transaction_isolation must be read committed on its connections (got %s)", isolation))
	}
	switch {
	case standby:
		errs = append(errs, errors.New("pgstore: DB: the server must be a primary (got a standby, which takes no writes)"))
	case readOnly:
		errs = append(errs, errors.New("pgstore: DB: default_transaction_read_only must be off on its connections (got on)"))
	}
	return errors.Join(errs...)
}
