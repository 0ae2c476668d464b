package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// call is one write on its way to the writer: either run or ops. It owns all
// that it refers to, because its caller may be gone by the time it is executed.
type call struct {
	run func(c *conn, now int64) error // may be run again after a rollback

	ops     []store.Op
	res     []store.Result
	all     bool // all of ops or none
	applied bool

	size int  // of its value, in bytes
	full bool // commit with synchronous=FULL
	gone atomic.Bool

	done chan struct{}
	err  error // to be read when done is closed
}

// maxBatch bounds a transaction by the bytes of its values, so that a group of
// long ones does not hold the lock for long.
const maxBatch = 4 << 20

// writer owns the only connection that writes. All fields below the channels
// belong to its goroutine.
type writer struct {
	cfg     Config
	queries *queries
	stats   counters

	calls   chan *call
	closing <-chan struct{} // finish what was sent, then end
	abort   chan struct{}   // do not even wait for the lock any more
	stopped chan struct{}

	conn  *conn // nil after an error, until the next transaction
	batch []*call
	regs  registers
	walk  walk
}

// bg is the context of the writer's statements. Drivers watch a context that
// can end with a goroutine per statement, and a transaction that others share
// must not end with one of its callers.
var bg = context.Background()

func (w *writer) run() {
	defer close(w.stopped)
	defer w.drop()
	sweep := time.NewTimer(never)
	defer sweep.Stop()
	if w.cfg.Sweep > 0 {
		sweep.Reset(w.walk.pause(w.cfg.Sweep))
	}
	for {
		select {
		case c := <-w.calls:
			w.serve(c)
		case <-sweep.C:
			w.sweep()
			sweep.Reset(w.walk.pause(w.cfg.Sweep))
		case <-w.closing:
			for {
				select {
				case c := <-w.calls:
					w.serve(c)
				default:
					return
				}
			}
		}
	}
}

// serve executes c and whatever else is waiting.
func (w *writer) serve(c *call) {
	// Let the callers of the last transaction send their next calls first: on
	// a busy machine that makes the groups several times as large, and on an
	// idle one it takes no time.
	runtime.Gosched()
	w.batch = append(w.batch[:0], c)
	undone, err := w.transact(true)
	if !undone || len(w.batch) == 1 {
		w.answer(err)
		return
	}
	// One of them may be at fault, so each gets a transaction of its own.
	batch := slices.Clone(w.batch)
	for _, c := range batch {
		w.batch = append(w.batch[:0], c)
		_, err := w.transact(false)
		w.answer(err)
	}
}

// answer ends the calls of the batch.
func (w *writer) answer(err error) {
	if err != nil && !errors.Is(err, store.ErrClosed) {
		err = fmt.Errorf("sqlitestore: %w", err)
	}
	for _, c := range w.batch {
		c.err = err
		close(c.done)
	}
	clear(w.batch) // the writer may be idle for long
	w.batch = w.batch[:0]
}

// transact executes the batch in one transaction. If grow is set, what arrives
// before that has the lock joins. With undone, it certainly did nothing because
// of an error of one of the calls.
func (w *writer) transact(grow bool) (undone bool, err error) {
	for n := 0; ; n++ {
		undone, err = w.attempt(grow)
		if !undone || !busy(err) || !w.wait(n) {
			return undone, err
		}
		// With cache=shared there are locks of tables below that of the file.
	}
}

func (w *writer) attempt(grow bool) (undone bool, err error) {
	if err := w.lock(grow); err != nil || len(w.batch) == 0 {
		return false, err
	}
	// The lock is held: from here on this is the clock of all processes.
	now := time.Now().UnixNano()
	if err := w.execute(now); err != nil {
		if _, rerr := w.conn.sql.ExecContext(bg, "ROLLBACK"); rerr != nil && !strings.Contains(rerr.Error(), "no transaction is active") {
			w.drop() // rolls back too
		}
		return true, err
	}
	for n := 0; ; n++ {
		if _, err = w.conn.commit.ExecContext(bg); !busy(err) || n == maxCommits {
			break
		}
		time.Sleep(backoff(n))
	}
	if err != nil {
		w.drop()
		return false, err // perhaps it is on the disk all the same
	}
	w.stats.transactions.Add(1)
	w.stats.calls.Add(int64(len(w.batch)))
	return false, nil
}

// maxCommits is how often a commit is tried. In WAL mode nothing should stop it.
const maxCommits = 100

// lock takes the write lock of the file, after any number of attempts: their
// callers bound it. It may find that all of them have gone.
func (w *writer) lock(grow bool) error {
	reopened := false
	for n := 0; ; n++ {
		if grow {
			w.fill()
		}
		w.batch = slices.DeleteFunc(w.batch, func(c *call) bool { return c.gone.Load() })
		if len(w.batch) == 0 {
			return nil
		}
		err := w.begin()
		switch {
		case err == nil:
			return nil
		case busy(err):
			if !w.wait(n) {
				return store.ErrClosed
			}
		case reopened:
			return err
		default:
			w.drop()
			reopened = true
		}
	}
}

// wait sleeps after the n-th attempt, unless Close has given up.
func (w *writer) wait(n int) bool {
	w.stats.busy.Add(1)
	t := time.NewTimer(backoff(n))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.abort:
		return false
	}
}

func (w *writer) begin() error {
	if w.conn == nil {
		if err := w.connect(); err != nil {
			return err
		}
	}
	if full := slices.ContainsFunc(w.batch, func(c *call) bool { return c.full }); full != w.conn.full {
		if err := w.conn.setFull(bg, full); err != nil {
			return err
		}
	}
	_, err := w.conn.begin.ExecContext(bg)
	return err
}

// fill adds what is waiting to the batch.
func (w *writer) fill() {
	size := 0
	for _, c := range w.batch {
		size += c.size
	}
	for len(w.batch) < w.cfg.Group && size < maxBatch {
		select {
		case c := <-w.calls:
			w.batch = append(w.batch, c)
			size += c.size
		default:
			return
		}
	}
}

// connect replaces the connection after an error.
func (w *writer) connect() error {
	ctx, cancel := context.WithTimeout(bg, max(w.cfg.Timeout, defaultTimeout))
	defer cancel()
	c, err := open(ctx, w.cfg)
	if err != nil {
		return err
	}
	if err := c.prepare(ctx, w.queries); err != nil {
		c.discard()
		return err
	}
	w.conn = c
	return nil
}

// drop gives the connection up.
func (w *writer) drop() {
	if w.conn != nil {
		w.conn.discard()
		w.conn = nil
	}
}

func (w *writer) execute(now int64) error {
	if err := w.regs.load(w.conn, w.batch); err != nil {
		return err
	}
	for _, c := range w.batch {
		switch {
		case c.run != nil:
			if err := c.run(w.conn, now); err != nil {
				return err
			}
		case c.all:
			c.applied = w.regs.advanceAll(c.ops, c.res, now)
		default:
			w.regs.advance(c.ops, c.res, now)
		}
	}
	return w.regs.save(w.conn)
}
