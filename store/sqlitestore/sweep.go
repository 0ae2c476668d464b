package sqlitestore

import (
	"log/slog"
	"math/rand/v2"
	"time"
)

// slice is how many rows one step of the sweep looks at, and removes at most.
// In between the writer serves its callers, and other processes get the lock.
const slice = 1000

// slicePause is the time between two steps.
const slicePause = 10 * time.Millisecond

// walk is where the sweep stands. It goes along the keys of both tables: an
// index on expiry would cost every write more than the walk costs at its ease.
type walk struct {
	registers  bool   // the second table
	after      []byte // the last key seen in it
	under      bool   // a round is under way
	seen, dead int64  // rows in this round
}

// first is below every key.
var first = []byte{0}

// pause returns how long to wait for the next step. Rounds have jitter, since
// processes on one file would otherwise sweep together, and follow at once on
// one that found much, as in a flood of short-lived keys.
func (k *walk) pause(interval time.Duration) time.Duration {
	if k.under {
		return slicePause
	}
	return interval - interval/8 + rand.N(interval/4+1)
}

// sweep does one step.
func (w *writer) sweep() {
	k := &w.walk
	if !k.under {
		*k = walk{after: first, under: true}
	}
	err := w.sweepSlice()
	switch {
	case err == nil:
	case busy(err):
		w.stats.busy.Add(1) // the same slice again
	default:
		k.under = false
		w.drop()
		w.cfg.Logger.LogAttrs(bg, slog.LevelWarn, "sqlitestore: sweep failed", slog.Any("error", err))
	}
}

func (w *writer) sweepSlice() error {
	if w.conn == nil {
		if err := w.connect(); err != nil {
			return err
		}
	}
	if w.conn.full {
		if err := w.conn.setFull(bg, false); err != nil {
			return err
		}
	}
	k := &w.walk
	look, remove := w.conn.sweepVals, w.conn.delVals
	if k.registers {
		look, remove = w.conn.sweepRegs, w.conn.delRegs
	}
	now := time.Now().UnixNano()
	var last []byte // nil at the end
	var seen, dead int64
	if err := look.QueryRowContext(bg, now, k.after, slice).Scan(&last, &seen, &dead); err != nil {
		return err
	}
	if dead > 0 {
		res, err := remove.ExecContext(bg, k.after, last, now)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err == nil {
			w.stats.swept.Add(n)
		}
	}
	k.seen, k.dead, k.after = k.seen+seen, k.dead+dead, last
	switch {
	case seen == slice:
	case !k.registers:
		k.registers, k.after = true, first
	case k.dead > k.seen/4:
		*k = walk{after: first, under: true}
	default:
		k.under = false
	}
	return nil
}
