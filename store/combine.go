package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// CombinerConfig is the configuration of [NewCombiner].
type CombinerConfig struct {
	// Store is the store in front of which calls are combined. One without
	// registers is asked through [RegistersOf]. Required.
	Store Store

	// Batch is the most calls that are sent together, at most 4096. Zero is 64;
	// 1 sends each for itself.
	Batch int

	// Senders is how many batches may be on their way at the same time, at most
	// 64. Zero is 2: one is on the way while the next is filled. More suit a
	// backend that is far away.
	Senders int
}

// Combiner combines concurrent calls of Advance in front of a remote store.
//
// A call that comes while less than Senders batches are on their way is sent at
// once. Others wait for one to return, and go together then: there is no timer,
// and a store that is not busy answers no later than without. Calls with one
// register and one policy are merged into one operation, of which the first that
// came get what was granted, as if all had been carried out in that order at one
// instant. So a hot key costs one operation per batch, and grants are exact.
//
// A caller whose context ends is answered at once with the context's error. What
// its call was granted, if it had been sent, is given back; if the answer does
// not come within a second, it is not. A store's error is the error of all calls
// of the batch, and nothing is sent again: as always, it may have been applied.
// The store sees contexts of the combiner's own, without the callers' values,
// that end soon after the last caller has left.
//
// Values pass through, and so do the other capabilities of the store, which [As]
// finds: AdvanceBatch and AdvanceAll among them, which are batches already. Of
// all methods a Combiner changes only Advance. It has goroutines only while
// calls are on their way.
type Combiner struct {
	store     Store
	registers Registers
	batch     BatchRegisters // nil if the store has none
	most      int
	limit     int

	callers
	stop    context.CancelFunc
	queue   callQueue
	senders int
	running sync.WaitGroup
	closed  bool
}

// NewCombiner returns a combiner in front of c.Store.
func NewCombiner(c CombinerConfig) (*Combiner, error) {
	var problems []error
	if c.Store == nil {
		problems = append(problems, errors.New("store: Store: is required (got nil)"))
	}
	if c.Batch < 0 || c.Batch > 4096 {
		problems = append(problems, fmt.Errorf("store: Batch: must be between 0 and 4096 (got %d)", c.Batch))
	}
	if c.Senders < 0 || c.Senders > 64 {
		problems = append(problems, fmt.Errorf("store: Senders: must be between 0 and 64 (got %d)", c.Senders))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if c.Batch == 0 {
		c.Batch = 64
	}
	if c.Senders == 0 {
		c.Senders = 2
	}
	combiner := &Combiner{store: c.Store, registers: RegistersOf(c.Store), most: c.Batch, limit: c.Senders}
	combiner.batch, _ = As[BatchRegisters](c.Store)
	combiner.base, combiner.stop = context.WithCancel(context.Background())
	return combiner, nil
}

// Unwrap returns the store, for [As].
func (c *Combiner) Unwrap() Store { return c.store }

// Get passes the call on.
func (c *Combiner) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	return c.store.Get(ctx, key)
}

// Put passes the call on.
func (c *Combiner) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return c.store.Put(ctx, key, value, ttl)
}

// CompareAndSwap passes the call on.
func (c *Combiner) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	return c.store.CompareAndSwap(ctx, key, old, new, ttl)
}

// Delete passes the call on.
func (c *Combiner) Delete(ctx context.Context, key string) error {
	return c.store.Delete(ctx, key)
}

// Advance does op, together with others.
func (c *Combiner) Advance(ctx context.Context, op Op) (Result, error) {
	if err := op.Check(); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	call := newCall(ctx, op)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Result{}, ErrClosed
	}
	c.queue.push(call)
	if c.senders < c.limit {
		c.senders++
		c.running.Go(c.send)
	}
	c.mu.Unlock()
	return c.wait(ctx, call)
}

// Close ends the combining. Calls that wait to be sent, and all later ones, get
// [ErrClosed]; those that are on their way get their answer, for which Close
// waits, for a second if need be. It does not close the store.
func (c *Combiner) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, call := range c.queue.take(nil, math.MaxInt) {
		call.answer(Result{}, ErrClosed)
	}
	c.mu.Unlock()
	t := time.AfterFunc(grace, c.stop)
	c.running.Wait()
	t.Stop()
	c.stop()
	return nil
}

// send sends what waits, until nothing does.
func (c *Combiner) send() {
	var b combined
	for {
		c.mu.Lock()
		b.calls = c.queue.take(b.calls[:0], c.most)
		if len(b.calls) == 0 {
			c.senders--
			c.mu.Unlock()
			return
		}
		r := c.begin(b.calls)
		c.mu.Unlock()
		b.fold()
		c.ask(r.ctx, &b)
		c.end(r)
		if len(b.back) > 0 {
			c.giveBack(&b)
		}
		b.clear()
		// Let those who have their answer come again first: the next batch is
		// larger by them. It takes no time where nobody else wants to run.
		runtime.Gosched()
	}
}

// ask sends b, and answers its calls.
func (c *Combiner) ask(ctx context.Context, b *combined) {
	start := time.Now()
	if c.batch != nil && len(b.ops) > 1 {
		b.res = slices.Grow(b.res[:0], len(b.ops))[:len(b.ops)]
		err := c.batch.AdvanceBatch(ctx, b.ops, b.res)
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range b.ops {
			b.answer(i, b.res[i], err, start)
		}
		return
	}
	one := func(i int) {
		res, err := c.registers.Advance(ctx, b.ops[i])
		c.mu.Lock()
		defer c.mu.Unlock()
		b.answer(i, res, err, start)
	}
	var others sync.WaitGroup
	for i := 1; i < len(b.ops); i++ {
		others.Go(func() { one(i) })
	}
	one(0)
	others.Wait()
}

// giveBack gives back what was granted to callers that had left. An error leaves
// it taken: whether it was applied is not known, and twice would be too much.
func (c *Combiner) giveBack(b *combined) {
	ctx, cancel := context.WithTimeout(c.base, grace)
	defer cancel()
	if c.batch != nil && len(b.back) > 1 {
		c.batch.AdvanceBatch(ctx, b.back, make([]Result, len(b.back)))
		return
	}
	for _, op := range b.back {
		c.registers.Advance(ctx, op)
	}
}

// combined is a batch. Its slices are used again by its sender.
type combined struct {
	calls []*call
	ops   []Op
	res   []Result
	of    [][]share // for each of ops, the calls it stands for
	index map[Op]int
	back  []Op
}

// share is what a call asks of an operation.
type share struct {
	call *call
	unit int64 // how many of its own steps is one of the operation's
	max  int64 // steps of the operation that it takes, as many as there are
}

// fold makes the operations that stand for b.calls.
//
// Calls can share one if they agree in all but Min and Max, and each can use
// whatever the others leave: one that takes any number from one on can, and so
// can one that takes all of n steps or none, as one step that is n times as
// long. What an operation granted is divided without a rest then.
func (b *combined) fold() {
	for _, c := range b.calls {
		key, s, ok := c.op, share{c, 1, c.op.Max}, c.op.Step > 0 && c.op.Min <= 1
		if c.op.Step > 0 && c.op.Min == c.op.Max && c.op.Max > 1 {
			key.Step, s.unit, s.max, ok = c.op.Step*c.op.Max, c.op.Max, 1, true
		}
		if !ok {
			b.add(c.op, s)
			continue
		}
		if len(b.calls) == 1 {
			b.add(c.op, s)
			return
		}
		key.Min, key.Max = 0, 0
		if i, ok := b.index[key]; ok {
			if n := b.steps(i) + s.max; n <= (MaxCount-1)/key.Step {
				b.ops[i].Step, b.ops[i].Min, b.ops[i].Max = key.Step, 0, n
				b.of[i] = append(b.of[i], s)
				continue
			}
		}
		if b.index == nil {
			b.index = make(map[Op]int)
		}
		// Sent as it is if it remains alone.
		b.index[key] = len(b.ops)
		b.add(c.op, s)
	}
}

func (b *combined) add(op Op, s share) {
	b.ops = append(b.ops, op)
	if len(b.of) < cap(b.of) {
		b.of = b.of[:len(b.of)+1]
		last := &b.of[len(b.of)-1]
		*last = append((*last)[:0], s)
		return
	}
	b.of = append(b.of, []share{s})
}

// steps returns how many steps the shares of an operation take together.
func (b *combined) steps(i int) int64 {
	if of := b.of[i]; len(of) == 1 {
		return of[0].max
	}
	return b.ops[i].Max
}

// answer divides the result of the operation i. It is called with the mutex of
// the calls held.
func (b *combined) answer(i int, r Result, err error, start time.Time) {
	op, of := b.ops[i], b.of[i]
	if err != nil {
		for _, s := range of {
			s.call.answer(Result{}, err)
		}
		return
	}
	if len(of) == 1 {
		if !of[0].call.answer(r, nil) {
			b.keep(op.giveBack(r.Granted, r, start))
		}
		return
	}
	rest, value := r.Granted, r.Value-r.Granted*op.Step
	for _, s := range of {
		mine := r // what comes after the last grant finds what it left
		n := min(rest, s.max)
		if n > 0 {
			mine.Value = value + n*op.Step
			if op.Clock {
				mine.Expires = max(0, mine.Value-r.Now-op.Floor)
			}
		}
		mine.Granted = n * s.unit
		if s.call.answer(mine, nil) && n > 0 {
			rest, value = rest-n, mine.Value
		}
	}
	b.keep(op.giveBack(rest, r, start))
}

func (b *combined) keep(back Op, any bool) {
	if any {
		b.back = append(b.back, back)
	}
}

// clear forgets the calls and keys, which would live on in the slices.
func (b *combined) clear() {
	clear(b.calls)
	clear(b.ops)
	for i := range b.of {
		clear(b.of[i])
	}
	b.calls, b.ops, b.of, b.back = b.calls[:0], b.ops[:0], b.of[:0], nil
	clear(b.index)
}
