package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// BatchRegistersOf returns the batch registers of s: its own if [As] finds some,
// or otherwise those of [RegistersOf], of which it carries out operations on
// different registers at the same time, and those on one in their order.
func BatchRegistersOf(s Store) BatchRegisters {
	if b, ok := As[BatchRegisters](s); ok {
		return b
	}
	return &manyCalls{RegistersOf(s)}
}

// AtomicRegistersOf returns the atomic registers of s: its own if [As] finds
// some, or otherwise a stand-in that carries out one operation after the other,
// and gives back what it has taken when one is refused.
//
// The stand-in never grants more than allowed, whatever fails and whenever:
// what cannot be given back, or may not have been taken, stays taken. But it is
// not atomic. Others see what is given back as taken for a moment, and may be
// refused for it. A count that was created and given back is there, at its
// Floor, and its TTL has begun. With an error any of ops may have been applied.
func AtomicRegistersOf(s Store) AtomicRegisters {
	if a, ok := As[AtomicRegisters](s); ok {
		return a
	}
	b := BatchRegistersOf(s)
	return &oneByOne{b, b}
}

// manyCalls is BatchRegisters by calls of Advance.
type manyCalls struct{ Registers }

func (m *manyCalls) AdvanceBatch(ctx context.Context, ops []Op, res []Result) error {
	var order [][2]string
	same := make(map[[2]string][]int, len(ops))
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return err
		}
		id := [2]string{ops[i].Space, ops[i].Key}
		if same[id] == nil {
			order = append(order, id)
		}
		same[id] = append(same[id], i)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A bound, since each may be a connection.
	const most = 32
	var wg sync.WaitGroup
	errs := make([]error, min(most, len(order)))
	for w := range errs {
		wg.Go(func() {
			for k := w; k < len(order); k += most {
				for _, i := range same[order[k]] {
					if res[i], errs[w] = m.Advance(ctx, ops[i]); errs[w] != nil {
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// oneByOne is AtomicRegisters by calls of Advance.
type oneByOne struct {
	Registers
	batch BatchRegisters
}

func (o *oneByOne) AdvanceAll(ctx context.Context, ops []Op, res []Result) (applied bool, err error) {
	seen := make(map[[2]string]bool, len(ops))
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return false, err
		}
		id := [2]string{ops[i].Space, ops[i].Key}
		if seen[id] {
			return false, fmt.Errorf("%w: two operations on one register", ErrOp)
		}
		seen[id] = true
	}
	// What takes goes first, since what gives back always can, and could not be
	// taken again.
	var taken []taking
	for _, takes := range []bool{true, false} {
		for i := range ops {
			if ops[i].Step > 0 != takes {
				continue
			}
			start := time.Now()
			if res[i], err = o.Advance(ctx, ops[i]); err != nil {
				o.undo(ctx, taken)
				return false, err
			}
			if res[i].Granted < ops[i].Min {
				return false, o.refuse(ctx, taken, i, ops, res)
			}
			if takes {
				taken = append(taken, taking{i, ops[i], res[i], start})
			}
		}
	}
	return true, nil
}

// taking is an operation that was applied.
type taking struct {
	i     int
	op    Op
	res   Result
	start time.Time
}

// undo gives back what was taken, without its caller, who has an error already.
func (o *oneByOne) undo(ctx context.Context, taken []taking) {
	var back []Op
	for _, t := range taken {
		if op, any := t.op.giveBack(t.res.Granted, t.res, t.start); any {
			back = append(back, op)
		}
	}
	if len(back) == 0 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		o.batch.AdvanceBatch(ctx, back, make([]Result, len(back)))
	}()
}

// refuse gives back what was taken before ops[refused] was refused, and sets res
// to what is found of all others. It goes on without its caller if ctx ends.
func (o *oneByOne) refuse(ctx context.Context, taken []taking, refused int, ops []Op, res []Result) error {
	back := make(map[int]Op, len(taken))
	for _, t := range taken {
		if op, any := t.op.giveBack(t.res.Granted, t.res, t.start); any {
			back[t.i] = op
		}
	}
	var at []int // of each of ask, its place in ops
	var ask []Op
	for i, op := range ops {
		if i == refused {
			continue
		}
		op.Min, op.Max = 0, 0
		if b, ok := back[i]; ok {
			op = b
		}
		at, ask = append(at, i), append(ask, op)
	}
	found, done := make([]Result, len(ask)), make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		done <- o.batch.AdvanceBatch(ctx, ask, found)
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	for k, i := range at {
		res[i] = found[k]
		res[i].Granted = ops[i].could(found[k])
	}
	return nil
}

// could returns what op could have had, of a register as r says that it stands.
func (op *Op) could(r Result) int64 {
	n, ceil := op.Max, op.Ceil
	if op.Clock {
		ceil += r.Now
	}
	if op.Step > 0 {
		n = min(n, max(0, ceil-r.Value)/op.Step)
	}
	if n < op.Min {
		return 0
	}
	return n
}
