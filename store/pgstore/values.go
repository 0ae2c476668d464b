package pgstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"example.com/plainware/store"
)

const (
	// maxValue is the longest value. A driver may send it as hexadecimal text,
	// and the server takes a message of 1 GiB.
	maxValue = 256 << 20

	// maxTTL is where a ttl becomes for ever, far below where the sum with the
	// clock overflows.
	maxTTL = 100 * 365 * 24 * time.Hour

	scanPage = 1000
)

// statements is the SQL of one store.
type statements struct {
	get, put, add, swap, cut, absent, del, touch, scan string
	advance, advanceBatch, advanceAll                  string
}

func newStatements(n names) statements {
	const expiry = `CASE WHEN $3::bigint = 0 THEN {never} ELSE {clock} + $3::bigint END`
	return statements{
		get: n.fill(`SELECT v FROM {value} WHERE k = $1 AND exp > {clock}`),
		put: n.fill(`INSERT INTO {value} AS r (k, v, exp) VALUES ($1, $2, ` + expiry + `)
			ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v, exp = ` + expiry),
		add: n.fill(`INSERT INTO {value} AS r (k, v, exp) VALUES ($1, $2, ` + expiry + `)
			ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v, exp = ` + expiry + ` WHERE r.exp <= {clock} RETURNING true`),
		swap: n.fill(`UPDATE {value} SET v = $2, exp = ` + expiry + `
			WHERE k = $1 AND v = $4 AND exp > {clock} RETURNING true`),
		cut:    n.fill(`DELETE FROM {value} WHERE k = $1 AND v = $2 AND exp > {clock} RETURNING true`),
		absent: n.fill(`SELECT NOT EXISTS (SELECT FROM {value} WHERE k = $1 AND exp > {clock})`),
		del:    n.fill(`DELETE FROM {value} WHERE k = $1`),
		touch: n.fill(`UPDATE {value} SET exp = CASE WHEN $2::bigint = 0 THEN {never} ELSE {clock} + $2::bigint END
			WHERE k = $1 AND exp > {clock} RETURNING true`),
		scan: n.fill(`SELECT k FROM {value} WHERE k >= $1 AND k < $2 AND exp > {clock} ORDER BY k LIMIT $3`),

		advance: n.fill(`SELECT value, granted, now, expires FROM {advance}($1::bytea, $2::boolean,
			$3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::bigint, $9::bigint)`),
		advanceBatch: n.fill(`SELECT true, value, granted, now, expires FROM {advance_batch}($1::text::bytea[], $2::text::bigint[])`),
		advanceAll:   n.fill(`SELECT applied, value, granted, now, expires FROM {advance_all}($1::text::bytea[], $2::text::bigint[])`),
	}
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := store.CheckKey(key); err != nil {
		return nil, false, err
	}
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer cancel()
	err = s.db.QueryRowContext(ctx, s.text.get, []byte(key)).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, failed(ctx, "get", err)
	}
	return some(value), true, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := check(key, value, ttl); err != nil {
		return err
	}
	err := s.exec(ctx, "put", s.text.put, []byte(key), some(value), ttlArg(ttl))
	s.wrote(1)
	return err
}

// CompareAndSwap implements [store.Store].
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	if new == nil {
		ttl = 0
	}
	if err := check(key, new, ttl); err != nil {
		return false, err
	}
	k := []byte(key)
	switch {
	case old == nil && new == nil:
		return s.isAbsent(ctx, k)
	case old == nil:
		swapped, err = s.found(ctx, "compare and swap", s.text.add, k, new, ttlArg(ttl))
	case new == nil:
		swapped, err = s.found(ctx, "compare and swap", s.text.cut, k, old)
	default:
		swapped, err = s.found(ctx, "compare and swap", s.text.swap, k, new, ttlArg(ttl), old)
	}
	s.wrote(1)
	return swapped, err
}

func (s *Store) isAbsent(ctx context.Context, k []byte) (absent bool, err error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer cancel()
	if err := s.db.QueryRowContext(ctx, s.text.absent, k).Scan(&absent); err != nil {
		return false, failed(ctx, "compare and swap", err)
	}
	return absent, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	return s.exec(ctx, "delete", s.text.del, []byte(key))
}

// Touch implements [store.Toucher].
func (s *Store) Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	if err := check(key, nil, ttl); err != nil {
		return false, err
	}
	return s.found(ctx, "touch", s.text.touch, []byte(key), ttlArg(ttl))
}

// Scan implements [store.Scanner]. It reads a thousand keys at a time, in
// their order, and holds no connection while the caller works.
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		from := []byte(prefix)
		to := append([]byte(prefix), 0xff) // no UTF-8 has this byte
		for {
			page, err := s.scanPage(ctx, from, to)
			if err != nil {
				yield("", err)
				return
			}
			for _, k := range page {
				if !yield(string(k), nil) {
					return
				}
			}
			if len(page) < scanPage {
				return
			}
			from = append(page[len(page)-1], 0) // the key right after
		}
	}
}

func (s *Store) scanPage(ctx context.Context, from, to []byte) (page [][]byte, err error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	rows, err := s.db.QueryContext(ctx, s.text.scan, from, to, scanPage)
	if err != nil {
		return nil, failed(ctx, "scan", err)
	}
	defer rows.Close()
	for rows.Next() {
		var k []byte
		if err := rows.Scan(&k); err != nil {
			return nil, failed(ctx, "scan", err)
		}
		page = append(page, k)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(ctx, "scan", err)
	}
	return page, nil
}

// Keep implements [store.Keeper]. The view is the store itself, since it never
// evicts and its writes wait for the log. It fails if the server or the
// connections are set up so that they do not: fsync or synchronous_commit is
// off.
func (s *Store) Keep() (store.Store, error) {
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("pgstore: %w", store.ErrClosed)
	}
	ctx, cancel := context.WithTimeout(s.ctx, defaultTimeout)
	defer cancel()
	var fsync, commit string
	err := s.db.QueryRowContext(ctx, `SELECT pg_catalog.current_setting('fsync'), pg_catalog.current_setting('synchronous_commit')`).Scan(&fsync, &commit)
	if err != nil {
		return nil, failed(ctx, "keep", err)
	}
	var errs []error
	if fsync == "off" {
		errs = append(errs, errors.New("pgstore: keep: the server does not write to disk, so that a crash may lose values: set fsync = on"))
	}
	if commit == "off" {
		errs = append(errs, errors.New("pgstore: keep: a write does not wait for the log, so that a crash may lose it: set synchronous_commit = on for the server, the role or the connections"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// exec runs a statement on one key.
func (s *Store) exec(ctx context.Context, what, text string, args ...any) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if _, err := s.db.ExecContext(ctx, text, args...); err != nil {
		return failed(ctx, what, err)
	}
	return nil
}

// found runs a statement that returns one row, true, if it did what it is for,
// and none if it found nothing to do.
//
// It does not ask the statement's [sql.Result]. By then another goroutine may
// have the connection, and RowsAffected waits for its statement to end, under
// no deadline.
func (s *Store) found(ctx context.Context, what, text string, args ...any) (did bool, err error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer cancel()
	err = s.db.QueryRowContext(ctx, text, args...).Scan(&did)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, failed(ctx, what, err)
	}
	return did, nil
}

func check(key string, value []byte, ttl time.Duration) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if len(value) > maxValue {
		return fmt.Errorf("%w (got %d bytes, at most %d)", store.ErrSize, len(value), maxValue)
	}
	return store.CheckTTL(ttl)
}

// some is b, but never nil: to a driver that is NULL, to a caller absence.
func some(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// ttlArg is ttl in ns, 0 for ever.
func ttlArg(ttl time.Duration) int64 {
	if ttl > maxTTL {
		return 0
	}
	return int64(ttl)
}
