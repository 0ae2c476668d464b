package pgstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

const (
	// sweepPages is how much of a table one statement sweeps: 512 KiB.
	sweepPages   = 64
	sweepTimeout = 10 * time.Second

	// sweepGrace is how long the background task leaves an expired row alone. A
	// bucket in use is full most of the time, which is to say that its row has
	// expired: it is cheaper to update it in place than to delete and insert it.
	sweepGrace = time.Minute
)

// sweeper remembers where the background task goes on.
type sweeper struct {
	running atomic.Bool
	page    [2]int64 // of the values and the registers; owned by whoever runs
}

// Sweep reclaims the space of all expired rows, in slices, and returns how many
// there were. It may run beside everything else, in any number of processes. It
// leaves out rows that somebody holds.
func (s *Store) Sweep(ctx context.Context) (removed int64, err error) {
	if s.ctx.Err() != nil {
		return 0, fmt.Errorf("pgstore: %w", store.ErrClosed)
	}
	for _, table := range []string{s.names.value, s.names.register} {
		for page := int64(0); page >= 0; {
			var n int64
			n, page, err = s.sweepSlice(ctx, table, page, 0)
			removed += n
			if err != nil {
				return removed, failed(ctx, "sweep", err)
			}
		}
	}
	return removed, nil
}

// sweepSlice sweeps what expired grace ago from a slice of a table that begins
// at page, and returns where the next begins, -1 at the end.
//
// The pages take the place of an index on the expiry. It would cost every
// decision more than this: an update that changes an indexed column cannot stay
// on its page.
//
// SKIP LOCKED waits all the same for a row that is updated at that very moment,
// so the rows are locked in the order in which batches lock them.
func (s *Store) sweepSlice(ctx context.Context, table string, page int64, grace time.Duration) (removed, next int64, err error) {
	var pages int64
	err = s.db.QueryRowContext(ctx, `SELECT pg_catalog.pg_relation_size($1::text::regclass) / pg_catalog.current_setting('block_size')::bigint`, table).Scan(&pages)
	if err != nil {
		return 0, -1, err
	}
	if page >= pages {
		return 0, -1, nil
	}
	next = page + sweepPages
	err = s.db.QueryRowContext(ctx, fmt.Sprintf(`WITH gone AS (DELETE FROM %[1]s WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM %[1]s WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND exp <= (SELECT %[2]s - $3::bigint)
		ORDER BY k FOR UPDATE SKIP LOCKED)) RETURNING true) SELECT pg_catalog.count(*) FROM gone`, table, clock),
		tid(page), tid(next), int64(grace)).Scan(&removed)
	if err != nil {
		return 0, -1, err
	}
	return removed, next, nil
}

func tid(page int64) string { return fmt.Sprintf("(%d,0)", page) }

// wrote counts writes, and starts the background task when it is time.
func (s *Store) wrote(n int) {
	if s.every < 0 || n == 0 {
		return
	}
	sum := s.writes.Add(int64(n))
	if sum/s.every == (sum-int64(n))/s.every || !s.sweep.running.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		s.sweep.running.Store(false)
		return
	}
	s.tasks.Go(func() {
		defer s.sweep.running.Store(false)
		ctx, cancel := context.WithTimeout(s.ctx, sweepTimeout)
		defer cancel()
		for i, table := range []string{s.names.value, s.names.register} {
			_, next, err := s.sweepSlice(ctx, table, s.sweep.page[i], sweepGrace)
			s.sweep.page[i] = max(0, next)
			if err != nil && s.ctx.Err() == nil {
				s.logger.WarnContext(ctx, "pgstore: sweep failed", "err", err)
			}
		}
	})
}
