package sqlitestore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Primary result codes of SQLite, https://www.sqlite.org/rescode.html.
const (
	codeBusy     = 5
	codeLocked   = 6
	codeProtocol = 15 // lost the race for a lock of the WAL too often
)

// busy reports whether err says that another connection holds a lock, so that
// the same statement may succeed later. Drivers have no common error type: some
// have a method Code() int, and all of them keep SQLite's own message.
func busy(err error) bool {
	for e := err; e != nil; {
		if c, ok := e.(interface{ Code() int }); ok {
			switch c.Code() & 0xff { // the rest is the extended code
			case codeBusy, codeLocked, codeProtocol:
				return true
			}
			return false
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	if err == nil {
		return false
	}
	text := err.Error()
	for _, s := range []string{"database is locked", "database table is locked", "database schema is locked", "locking protocol"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// The n-th wait for a lock is a random time up to firstWait << n, but not above
// maxWait. They stay short since a holder that commits in a loop leaves only
// short gaps, and random since otherwise waiters meet again.
const (
	firstWait = 200 * time.Microsecond
	maxWait   = 2 * time.Millisecond
)

func backoff(n int) time.Duration {
	return rand.N(min(firstWait<<min(n, 16), maxWait)) + 1
}

// retry repeats f while it fails with a busy error, until ctx ends; the error
// is then both.
func retry(ctx context.Context, f func() error) error {
	var locked error
	for n := 0; ; n++ {
		err := f()
		switch {
		case busy(err):
			locked = err
		case err != nil && ctx.Err() != nil && locked != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), locked)
		default:
			return err
		}
		t := time.NewTimer(backoff(n))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), locked)
		}
	}
}
