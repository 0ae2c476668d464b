package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
)

// sequential reports whether there is an order in which got are the results of
// ops on a register that stood at stored, all at one instant.
func sequential(ops []store.Op, got []store.Result, now, stored int64, live, heal bool) bool {
	if len(ops) == 0 {
		return true
	}
	for i, op := range ops {
		want, save := op.Apply(now, stored, live, heal)
		if got[i].Granted != want.Granted || got[i].Value != want.Value || op.Clock && got[i] != want {
			continue
		}
		after, alive := stored, live
		if save {
			after, alive = want.Value, true
		}
		rest := slices.Concat(ops[:i], ops[i+1:])
		if sequential(rest, slices.Concat(got[:i], got[i+1:]), now, after, alive, heal) {
			return true
		}
	}
	return false
}

// policies are operations of a few policies on one register, as callers mix
// them: whole costs, partial grants, reads, and giving back.
func policies(rnd *rand.Rand, n int, clock bool) []store.Op {
	ops := make([]store.Op, n)
	unit := int64(1)
	if clock {
		unit = int64(time.Second)
	}
	for i := range ops {
		cost := rnd.Int64N(4)
		op := store.Op{Space: "s", Key: "k", Clock: clock, Ceil: 12 * unit, Step: unit, Min: cost, Max: cost}
		switch rnd.IntN(8) {
		case 0:
			op.Min, op.Max = 0, rnd.Int64N(5)
		case 1:
			op.Min, op.Max = min(1, cost), cost
		case 2:
			op.Step, op.Min, op.Max = 2*unit, 1, 1
		case 3:
			op.Step = -unit
		case 4:
			op.Min, op.Max = cost, cost+rnd.Int64N(3)
		case 5:
			op.Ceil = 6 * unit
		}
		ops[i] = op
	}
	return ops
}

// gate is a store whose calls wait until they are let through.
type gate struct {
	store.Store
	store.BatchRegisters

	mu    sync.Mutex
	shut  chan struct{} // closed when open; nil is open
	sizes []int         // of the batches that arrived
}

func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ch := make(chan struct{})
	g.shut = ch
	return func() {
		g.mu.Lock()
		g.shut = nil
		g.mu.Unlock()
		close(ch)
	}
}

func (g *gate) pass(ctx context.Context, n int) error {
	g.mu.Lock()
	g.sizes = append(g.sizes, n)
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		select {
		case <-shut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (g *gate) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if err := g.pass(ctx, 1); err != nil {
		return nil, false, err
	}
	return g.Store.Get(ctx, key)
}

func (g *gate) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	if err := g.pass(ctx, 1); err != nil {
		return store.Result{}, err
	}
	return g.BatchRegisters.Advance(ctx, op)
}

func (g *gate) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	if err := g.pass(ctx, len(ops)); err != nil {
		return err
	}
	return g.BatchRegisters.AdvanceBatch(ctx, ops, res)
}

// atOnce makes calls of r that are all on their way at once: the first are held
// at the gate, and the rest queue up behind them. It runs in a bubble.
func atOnce(t *testing.T, g *gate, wait func(), r store.Registers, ops []store.Op) []store.Result {
	t.Helper()
	open := g.close()
	res := make([]store.Result, len(ops))
	var wg sync.WaitGroup
	for i, op := range ops {
		wg.Go(func() {
			var err error
			if res[i], err = r.Advance(t.Context(), op); err != nil {
				t.Errorf("Advance: %v", err)
			}
		})
		wait() // so that they come in order
	}
	open()
	wg.Wait()
	return res
}

// compareSequential checks that calls made at once have the results of some
// order, from a register that is absent, and again from what they have left.
func compareSequential(t *testing.T, g *gate, wait func(), r store.Registers, seed uint64, heal bool) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 7))
	clock := seed%2 == 0
	var stored int64
	live := false
	for range 3 {
		ops := policies(rnd, 2+rnd.IntN(6), clock)
		res := atOnce(t, g, wait, r, ops)
		now := time.Now().UnixNano()
		if !sequential(ops, res, now, stored, live, heal) {
			var s string
			for i := range ops {
				s += fmt.Sprintf("\n%+v\n\t%+v", ops[i], res[i])
			}
			t.Fatalf("seed %d, from %d, %v: there is no order with these results:%s", seed, stored, live, s)
		}
		read := store.Op{Space: "s", Key: "k", Clock: clock, Ceil: 12 * int64(time.Second)}
		if !clock {
			read.Ceil = 12
		}
		left, err := r.Advance(t.Context(), read)
		if err != nil {
			t.Fatal(err)
		}
		stored, live = left.Value, true
	}
}
