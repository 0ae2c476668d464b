package redisstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"example.com/plainware/store"
)

// maxScript is how many registers one script handles. The server does nothing
// else meanwhile, about half a millisecond.
const maxScript = 128

// Advance implements [store.Registers].
func (s *Store) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	if err := op.Check(); err != nil {
		return store.Result{}, err
	}
	args := append(advance.args(1, 1), s.register(&op), encode(&op))
	reply, err := s.eval(ctx, advance, args)
	var res [1]store.Result
	if err == nil {
		_, err = parseAdvance(reply, []store.Op{op}, res[:])
	}
	if err != nil {
		return store.Result{}, s.fail("Advance", err)
	}
	return res[0], nil
}

// AdvanceBatch implements [store.BatchRegisters]. It takes one round trip for
// each 128 operations; on a cluster only with Config.Pipeline.
func (s *Store) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	if err := check(ops, res); err != nil {
		return err
	}
	for len(ops) > 0 {
		n := min(len(ops), maxScript)
		var err error
		if s.split {
			err = s.advanceByKey(ctx, ops[:n], res)
		} else {
			_, err = s.advance(ctx, ops[:n], res[:n])
		}
		if err != nil {
			return s.fail("AdvanceBatch", err)
		}
		ops, res = ops[n:], res[n:]
	}
	return nil
}

// AdvanceAll implements [store.AtomicRegisters]. On a cluster all operations
// must have the same Key, or the error is [store.ErrOp]; their Spaces are free.
// A Prefix with a hash tag lifts that. There may be at most 128 operations.
func (s *Store) AdvanceAll(ctx context.Context, ops []store.Op, res []store.Result) (applied bool, err error) {
	if err := check(ops, res); err != nil {
		return false, err
	}
	if len(ops) > maxScript {
		return false, fmt.Errorf("%w: at most %d operations at once (got %d)", store.ErrOp, maxScript, len(ops))
	}
	if len(ops) == 0 {
		return true, nil
	}
	seen := make(map[[2]string]bool, len(ops))
	for i := range ops {
		op := &ops[i]
		if seen[[2]string{op.Space, op.Key}] {
			return false, fmt.Errorf("%w: operation %d has the register of another", store.ErrOp, i)
		}
		seen[[2]string{op.Space, op.Key}] = true
		if s.split && op.Key != ops[0].Key {
			return false, fmt.Errorf("%w: all operations must have the same Key on a Redis cluster (operation %d has another)", store.ErrOp, i)
		}
	}
	applied, err = s.advance(ctx, ops, res, "all")
	if err != nil {
		return false, s.fail("AdvanceAll", err)
	}
	return applied, nil
}

func check(ops []store.Op, res []store.Result) error {
	if len(res) != len(ops) {
		return fmt.Errorf("%w: as many results as operations are needed, %d (got %d)", store.ErrOp, len(ops), len(res))
	}
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

// advance runs ops in one script.
func (s *Store) advance(ctx context.Context, ops []store.Op, res []store.Result, mode ...any) (bool, error) {
	reply, err := s.eval(ctx, advance, append(s.command(ops), mode...))
	if err != nil {
		return false, err
	}
	return parseAdvance(reply, ops, res)
}

func (s *Store) command(ops []store.Op) []any {
	args := advance.args(len(ops), len(ops)+1)
	for i := range ops {
		args = append(args, s.register(&ops[i]))
	}
	for i := range ops {
		args = append(args, encode(&ops[i]))
	}
	return args
}

// advanceByKey runs one script for each Key. Those with the same go into the
// same script so that their order is theirs whatever becomes of the others.
func (s *Store) advanceByKey(ctx context.Context, ops []store.Op, res []store.Result) error {
	groups := make(map[string]int)
	var members [][]int
	var parts [][]store.Op
	for i := range ops {
		g, ok := groups[ops[i].Key]
		if !ok {
			g = len(parts)
			groups[ops[i].Key] = g
			parts, members = append(parts, nil), append(members, nil)
		}
		parts[g], members[g] = append(parts[g], ops[i]), append(members[g], i)
	}
	cmds := make([][]any, len(parts))
	for g := range parts {
		cmds[g] = s.command(parts[g])
	}
	replies, err := s.evalEach(ctx, advance, cmds)
	if err != nil {
		return err
	}
	var buf [maxScript]store.Result
	for g, reply := range replies {
		got := buf[:len(parts[g])]
		if _, err := parseAdvance(reply, parts[g], got); err != nil {
			return err
		}
		for j, i := range members[g] {
			res[i] = got[j]
		}
	}
	return nil
}

// register returns the key of a register. What is between the braces decides
// about the slot, and must not end early at a brace of its own.
func (s *Store) register(op *store.Op) string {
	key := op.Key
	if strings.ContainsAny(key, "%}") {
		key = escape.Replace(key)
	}
	return s.registers + key + "}" + op.Space
}

var escape = strings.NewReplacer("%", "%25", "}", "%7D")

// encode writes what the script has to know about op: doubles, because Lua has
// nothing else and reads them faster than decimal text. All are exact.
func encode(op *store.Op) string {
	heal, ttl := math.Inf(1), float64(ceilMilliseconds(op.TTL))
	if op.Clock {
		// No operation puts a register 2^53 ns ahead of the clock, so beyond
		// that the clock was wrong even where Over would allow it.
		heal = float64(min(op.Ceil+op.Over+int64(store.HealSlack), store.MaxCount))
		ttl = -1
	}
	var b [7 * 8]byte
	for i, f := range [7]float64{float64(op.Floor), float64(op.Ceil), heal, float64(op.Step), float64(op.Min), float64(op.Max), ttl} {
		binary.BigEndian.PutUint64(b[8*i:], math.Float64bits(f))
	}
	return string(b[:])
}
