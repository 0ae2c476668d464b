package pgstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"example.com/plainware/store"
)

// Advance implements [store.Registers], in one round trip.
func (s *Store) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	if err := op.Check(); err != nil {
		return store.Result{}, err
	}
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return store.Result{}, err
	}
	defer cancel()
	var r store.Result
	var expires int64
	err = s.db.QueryRowContext(ctx, s.text.advance, registerKey(&op), op.Clock, op.Floor, op.Ceil, op.Over,
		op.Step, op.Min, op.Max, ttlArg(op.TTL)).Scan(&r.Value, &r.Granted, &r.Now, &expires)
	if err != nil {
		return store.Result{}, failed(ctx, "advance", err)
	}
	r.Expires = remaining(&op, &r, expires)
	if r.Granted != 0 {
		s.wrote(1)
	}
	return r, nil
}

// AdvanceBatch implements [store.BatchRegisters], in one round trip and one
// transaction. It holds the lock of each register until the last is done.
func (s *Store) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	_, err := s.advanceMany(ctx, "advance a batch", s.text.advanceBatch, ops, res, false)
	return err
}

// AdvanceAll implements [store.AtomicRegisters], in one round trip. It judges
// all operations at one instant. A refusal locks nothing.
func (s *Store) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (applied bool, err error) {
	return s.advanceMany(ctx, "advance all", s.text.advanceAll, ops, res, true)
}

func (s *Store) advanceMany(ctx context.Context, what, text string, ops []store.Op, res []store.Result, distinct bool) (applied bool, err error) {
	if len(ops) != len(res) {
		return false, fmt.Errorf("%w: there must be one result for each operation (got %d for %d)", store.ErrOp, len(res), len(ops))
	}
	keys := make([][]byte, len(ops))
	order := make([]int, len(ops))
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return false, fmt.Errorf("operation %d: %w", i, err)
		}
		keys[i], order[i] = registerKey(&ops[i]), i
	}
	// Rows are locked in this order by everybody, and operations on one
	// register stay in theirs.
	slices.SortStableFunc(order, func(i, j int) int { return bytes.Compare(keys[i], keys[j]) })
	if distinct {
		for i := 1; i < len(order); i++ {
			if bytes.Equal(keys[order[i-1]], keys[order[i]]) {
				return false, fmt.Errorf("%w: two operations have the same register", store.ErrOp)
			}
		}
	}
	if len(ops) == 0 {
		return true, nil
	}
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer cancel()
	k, a := appendArgs(ops, keys, order)
	applied, wrote, err := s.query(ctx, text, k, a, ops, order, res)
	if err != nil {
		return false, failed(ctx, what, err)
	}
	s.wrote(wrote)
	return applied, nil
}

// query fills in res from the rows, which are in order.
func (s *Store) query(ctx context.Context, text, keys, args string, ops []store.Op, order []int, res []store.Result) (applied bool, wrote int, err error) {
	rows, err := s.db.QueryContext(ctx, text, keys, args)
	if err != nil {
		return false, 0, err
	}
	defer rows.Close()
	got := 0
	for ; rows.Next(); got++ {
		if got == len(order) {
			return false, 0, errAnswers
		}
		i := order[got]
		var expires int64
		if err := rows.Scan(&applied, &res[i].Value, &res[i].Granted, &res[i].Now, &expires); err != nil {
			return false, 0, err
		}
		res[i].Expires = remaining(&ops[i], &res[i], expires)
		if applied && res[i].Granted != 0 {
			wrote++
		}
	}
	if err := rows.Err(); err != nil {
		return false, 0, err
	}
	if got != len(order) {
		return false, 0, errAnswers
	}
	return applied, wrote, nil
}

var errAnswers = errors.New("the server has not answered each operation once")

// registerKey joins Space and Key with the one byte that neither has.
func registerKey(op *store.Op) []byte {
	k := make([]byte, 0, len(op.Space)+1+len(op.Key))
	k = append(k, op.Space...)
	k = append(k, 0)
	return append(k, op.Key...)
}

// remaining is Result.Expires, given the expiry of the row: 0 if it is absent.
func remaining(op *store.Op, r *store.Result, expires int64) int64 {
	if op.Clock {
		return max(0, r.Value-r.Now-op.Floor)
	}
	if expires == math.MaxInt64 {
		return 0
	}
	return max(0, expires-r.Now)
}

// appendArgs writes two array literals, since database/sql has no arrays: the
// keys, in hexadecimal, and the numbers of each operation, in order.
func appendArgs(ops []store.Op, keys [][]byte, order []int) (k, a string) {
	size := 2
	for _, key := range keys {
		size += 2*len(key) + len(`,"\\x"`)
	}
	kb := append(make([]byte, 0, size), '{')
	ab := append(make([]byte, 0, 64*len(ops)), '{')
	for n, i := range order {
		if n > 0 {
			kb, ab = append(kb, ','), append(ab, ',')
		}
		kb = append(kb, `"\\x`...)
		kb = hex.AppendEncode(kb, keys[i])
		kb = append(kb, '"')
		op := &ops[i]
		clock := int64(0)
		if op.Clock {
			clock = 1
		}
		for f, x := range [...]int64{clock, op.Floor, op.Ceil, op.Over, op.Step, op.Min, op.Max, ttlArg(op.TTL)} {
			if f > 0 {
				ab = append(ab, ',')
			}
			ab = strconv.AppendInt(ab, x, 10)
		}
	}
	return string(append(kb, '}')), string(append(ab, '}'))
}
