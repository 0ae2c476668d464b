package sqlitestore

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"example.com/plainware/store"
)

// never is the expiry of what does not expire.
const never = math.MaxInt64

// after returns the instant ttl after now, or never for zero and for what is
// beyond the range of an instant.
func after(now int64, ttl time.Duration) int64 {
	if ttl == 0 || int64(ttl) > never-now {
		return never
	}
	return now + int64(ttl)
}

// Advance does one operation. See [store.Registers].
func (s *Store) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	var a struct { // one allocation for all
		call
		ops [1]store.Op
		res [1]store.Result
	}
	if err := op.Check(); err != nil {
		return store.Result{}, err
	}
	a.ops[0] = op
	a.call.ops, a.call.res = a.ops[:], a.res[:]
	if err := s.write(ctx, &a.call); err != nil {
		return store.Result{}, err
	}
	return a.res[0], nil
}

// AdvanceBatch does ops in one transaction. See [store.BatchRegisters].
func (s *Store) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	_, err := s.advance(ctx, ops, res, false)
	return err
}

// AdvanceAll does all of ops or none, in one transaction. See
// [store.AtomicRegisters].
func (s *Store) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (applied bool, err error) {
	return s.advance(ctx, ops, res, true)
}

func (s *Store) advance(ctx context.Context, ops []store.Op, res []store.Result, all bool) (bool, error) {
	if len(ops) != len(res) {
		return false, fmt.Errorf("%w: ops and res must have the same length (got %d and %d)", store.ErrOp, len(ops), len(res))
	}
	type name struct{ space, key string }
	var seen map[name]bool
	if all {
		seen = make(map[name]bool, len(ops))
	}
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return false, fmt.Errorf("operation %d: %w", i, err)
		}
		if !all {
			continue
		}
		n := name{ops[i].Space, ops[i].Key}
		if seen[n] {
			return false, fmt.Errorf("%w: operation %d has the register of another", store.ErrOp, i)
		}
		seen[n] = true
	}
	if len(ops) == 0 {
		return true, ctx.Err()
	}
	c := &call{ops: append([]store.Op(nil), ops...), res: make([]store.Result, len(ops)), all: all}
	if err := s.write(ctx, c); err != nil {
		return false, err
	}
	copy(res, c.res)
	return c.applied, nil
}

// cell is a register within a transaction.
type cell struct {
	key            []byte
	value, expires int64 // both 0 if it is absent
	dirty          bool
}

// registers are those of one transaction. Each is read and written once,
// however many operations it has.
type registers struct {
	index map[string]int // of the key in cells
	cells []cell
	order []int // the cells of all operations, in their order
	args  []any
}

// load reads the registers of the batch.
func (r *registers) load(c *conn, batch []*call) error {
	if r.index == nil {
		r.index = make(map[string]int)
	}
	clear(r.index)
	clear(r.cells)
	r.cells, r.order = r.cells[:0], r.order[:0]
	for _, call := range batch {
		for i := range call.ops {
			op := &call.ops[i]
			key := op.Space + "\x00" + op.Key
			n, ok := r.index[key]
			if !ok {
				n = len(r.cells)
				r.cells = append(r.cells, cell{key: []byte(key)})
				r.index[key] = n
			}
			r.order = append(r.order, n)
		}
	}
	for i := 0; i < len(r.cells); {
		stmt, n := c.load, 1
		if len(r.cells)-i >= chunk {
			stmt, n = c.loadMany, chunk
		}
		r.args = r.args[:0]
		for j := range r.cells[i : i+n] {
			r.args = append(r.args, r.cells[i+j].key)
		}
		if err := r.read(stmt); err != nil {
			return err
		}
		i += n
	}
	return nil
}

func (r *registers) read(stmt *sql.Stmt) error {
	rows, err := stmt.QueryContext(bg, r.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var key sql.RawBytes
	for rows.Next() {
		var value, expires int64
		if err := rows.Scan(&key, &value, &expires); err != nil {
			return err
		}
		cell := &r.cells[r.index[string(key)]]
		cell.value, cell.expires = value, expires
	}
	return rows.Err()
}

// save writes the registers that have changed.
func (r *registers) save(c *conn) error {
	dirty := 0
	for i := range r.cells {
		if r.cells[i].dirty {
			dirty++
		}
	}
	r.args = r.args[:0]
	for i := range r.cells {
		cell := &r.cells[i]
		if !cell.dirty {
			continue
		}
		r.args = append(r.args, cell.key, cell.value, cell.expires)
		stmt, n := c.save, 1
		if dirty >= chunk {
			stmt, n = c.saveMany, chunk
		}
		if len(r.args) < 3*n {
			continue
		}
		if _, err := stmt.ExecContext(bg, r.args...); err != nil {
			return err
		}
		r.args = r.args[:0]
		dirty -= n
	}
	return nil
}

// next returns the register of the next operation.
func (r *registers) next() *cell {
	n := r.order[0]
	r.order = r.order[1:]
	return &r.cells[n]
}

func (r *registers) advance(ops []store.Op, res []store.Result, now int64) {
	for i := range ops {
		res[i] = r.next().apply(&ops[i], now)
	}
}

// advanceAll does all of ops or none. As their registers differ, none of them
// sees another one's effect.
func (r *registers) advanceAll(ops []store.Op, res []store.Result, now int64) bool {
	order := r.order
	fit := true
	for i := range ops {
		trial := *r.next() // its dirty flag ends here
		res[i] = trial.apply(&ops[i], now)
		fit = fit && res[i].Granted >= ops[i].Min
	}
	r.order = order
	for i := range ops {
		if fit {
			res[i] = r.next().apply(&ops[i], now)
			continue
		}
		granted := res[i].Granted
		peek := ops[i]
		peek.Min, peek.Max = 0, 0
		res[i] = r.next().apply(&peek, now) // heals, and finds
		res[i].Granted = granted
	}
	return fit
}

// apply does op on the register.
func (c *cell) apply(op *store.Op, now int64) store.Result {
	live := c.expires > now
	r, changed := op.Apply(now, c.value, live, true)
	if op.Clock {
		if changed {
			c.value, c.expires, c.dirty = r.Value, now+r.Expires, true
		}
		return r
	}
	if changed {
		if !live {
			c.expires = after(now, op.TTL)
		}
		c.value, c.dirty = r.Value, true
	}
	if (live || changed) && c.expires != never {
		r.Expires = c.expires - now
	}
	return r
}
