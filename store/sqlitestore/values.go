package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"example.com/plainware/store"
)

// Get reads a value through the pool. See [store.Store].
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := store.CheckKey(key); err != nil {
		return nil, false, err
	}
	var (
		found   []byte
		expires int64
		now     int64
	)
	err = s.read(ctx, func(ctx context.Context) error {
		// The clock first: what lives now and is there afterwards was there,
		// alive, at some instant in between. The other way round, a Touch in
		// between would make a living value absent.
		now = time.Now().UnixNano()
		err := s.get.QueryRowContext(ctx, []byte(key)).Scan(&found, &expires)
		if errors.Is(err, sql.ErrNoRows) {
			expires = 0
			return nil
		}
		return err
	})
	if err != nil || expires <= now {
		return nil, false, err
	}
	return own(found), true, nil
}

// own returns a slice with the content of b that is not nil.
func own(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// value returns a copy of b for the database, where nil would be NULL.
func value(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

// check returns what is wrong with the arguments of a write.
func check(key string, size int, ttl time.Duration) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if size > MaxValue {
		return fmt.Errorf("%w: at most %d bytes (got %d)", store.ErrSize, MaxValue, size)
	}
	return store.CheckTTL(ttl)
}

// Put sets a value. See [store.Store].
func (s *Store) Put(ctx context.Context, key string, v []byte, ttl time.Duration) error {
	if err := check(key, len(v), ttl); err != nil {
		return err
	}
	k, v := []byte(key), value(v)
	return s.write(ctx, &call{size: len(v), run: func(c *conn, now int64) error {
		_, err := c.put.ExecContext(bg, k, after(now, ttl), v)
		return err
	}})
}

// CompareAndSwap sets or deletes a value on a condition. See [store.Store].
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	if new == nil {
		ttl = 0
	}
	if err := check(key, len(new), ttl); err != nil {
		return false, err
	}
	k, absent, remove := []byte(key), old == nil, new == nil
	old, new = value(old), value(new)
	var n int64
	err = s.write(ctx, &call{size: len(new), run: func(c *conn, now int64) (err error) {
		var res sql.Result
		switch {
		case absent && remove:
			var is []byte
			var expires int64
			err = c.get.QueryRowContext(bg, k).Scan(&is, &expires)
			if errors.Is(err, sql.ErrNoRows) {
				err = nil
			}
			if n = 1; expires > now {
				n = 0
			}
			return err
		case absent:
			res, err = c.insert.ExecContext(bg, k, after(now, ttl), new, now)
		case remove:
			res, err = c.removeIf.ExecContext(bg, k, now, old)
		default:
			res, err = c.swap.ExecContext(bg, after(now, ttl), new, k, now, old)
		}
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	}})
	return err == nil && n != 0, err
}

// Delete removes a value. See [store.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	k := []byte(key)
	return s.write(ctx, &call{run: func(c *conn, now int64) error {
		_, err := c.remove.ExecContext(bg, k)
		return err
	}})
}

// Touch gives a value a new ttl. See [store.Toucher].
func (s *Store) Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	if err := check(key, 0, ttl); err != nil {
		return false, err
	}
	k := []byte(key)
	var n int64
	err = s.write(ctx, &call{run: func(c *conn, now int64) error {
		res, err := c.touch.ExecContext(bg, after(now, ttl), k, now)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	}})
	return err == nil && n != 0, err
}

// scanPage is how many keys Scan reads at a time. Between pages it holds no
// connection and no snapshot, which would keep the WAL from being reused.
const scanPage = 256

// Scan ranges over the keys with a prefix in the order of their bytes, each
// once. See [store.Scanner].
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		from := prefix
		for more := true; more; {
			var keys []string
			err := s.read(ctx, func(ctx context.Context) (err error) {
				keys, from, more, err = s.scanFrom(ctx, prefix, from)
				return err
			})
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range keys {
				if !yield(key, nil) {
					return
				}
			}
		}
	}
}

// scanFrom returns the live keys of one page, and where the next one begins.
func (s *Store) scanFrom(ctx context.Context, prefix, from string) (keys []string, next string, more bool, err error) {
	now := time.Now().UnixNano()
	rows, err := s.page.QueryContext(ctx, value([]byte(from)), scanPage)
	if err != nil {
		return nil, from, true, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var key []byte
		var expires int64
		if err := rows.Scan(&key, &expires); err != nil {
			return nil, from, true, err
		}
		if !strings.HasPrefix(string(key), prefix) {
			return keys, "", false, nil
		}
		if expires > now {
			keys = append(keys, string(key))
		}
		next = string(key) + "\x00" // its successor
	}
	if err := rows.Err(); err != nil {
		return nil, from, true, err // the same page again
	}
	return keys, next, n == scanPage, nil
}
