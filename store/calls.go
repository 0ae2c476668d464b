package store

import (
	"context"
	"sync"
	"time"
)

// grace is for how long a call to the store goes on after the last of those
// that it was made for has left. Its answer then says what is to be given back.
const grace = time.Second

// call is an Advance that another goroutine carries out. All but op and done are
// guarded by the mutex of callers.
type call struct {
	op       Op
	deadline time.Time   // of the caller, or zero
	done     chan answer // has room for one; nil if nobody waits
	state    callState
	queue    *callQueue // while it is queued
	round    *round     // while it is sent
	prev     *call
	next     *call
}

type answer struct {
	res Result
	err error
}

type callState uint8

const (
	queued   callState = iota
	sent               // the store is being asked
	answered           // done has the answer
	left               // the caller has gone
)

// newCall allocates. A pool would carry channels from one synctest bubble of a
// user's tests to another, which is fatal there.
func newCall(ctx context.Context, op Op) *call {
	c := &call{op: op, done: make(chan answer, 1)}
	c.deadline, _ = ctx.Deadline()
	return c
}

// callQueue is a queue of calls that can be left from anywhere.
type callQueue struct{ first, last *call }

func (q *callQueue) push(c *call) {
	c.state, c.queue, c.prev, c.next = queued, q, q.last, nil
	if q.last == nil {
		q.first = c
	} else {
		q.last.next = c
	}
	q.last = c
}

func (q *callQueue) remove(c *call) {
	if c.prev == nil {
		q.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.queue, c.prev, c.next = nil, nil, nil
}

// take appends the first calls to those, up to most in total, and removes them.
func (q *callQueue) take(calls []*call, most int) []*call {
	for q.first != nil && len(calls) < most {
		c := q.first
		q.remove(c)
		calls = append(calls, c)
	}
	return calls
}

// round is one question to the store, on behalf of several calls.
type round struct {
	ctx     context.Context
	cancel  context.CancelFunc
	waiting int // callers who have not left
	timer   *time.Timer
}

// callers knows who waits for an answer, and who has left.
type callers struct {
	mu   sync.Mutex
	base context.Context // what the contexts of rounds are made of
}

// wait returns the answer to c, which was queued, or leaves it when ctx ends.
func (w *callers) wait(ctx context.Context, c *call) (Result, error) {
	var a answer
	select {
	case a = <-c.done:
	case <-ctx.Done():
		w.mu.Lock()
		switch c.state {
		case queued:
			c.queue.remove(c)
			a.err = ctx.Err()
		case sent:
			c.state = left
			if c.round.waiting--; c.round.waiting == 0 {
				c.round.timer = time.AfterFunc(grace, c.round.cancel)
			}
			a.err = ctx.Err()
		default:
			a = <-c.done
		}
		w.mu.Unlock()
	}
	return a.res, a.err
}

// begin makes a round of calls. It is called with mu held, end without.
//
// The context of a round ends later than its callers', so that one who leaves
// takes nothing from the others, but never without need: it has the latest of
// their deadlines if all have one, for clients that give up by deadline only.
func (w *callers) begin(calls []*call) *round {
	r := new(round)
	var latest time.Time
	bounded := true
	for _, c := range calls {
		c.state, c.round = sent, r
		if c.done == nil {
			continue
		}
		r.waiting++
		bounded = bounded && !c.deadline.IsZero()
		if c.deadline.After(latest) {
			latest = c.deadline
		}
	}
	switch {
	case r.waiting == 0:
		r.ctx, r.cancel = context.WithTimeout(w.base, grace)
	case bounded:
		r.ctx, r.cancel = context.WithDeadline(w.base, latest.Add(grace))
	default:
		r.ctx, r.cancel = context.WithCancel(w.base)
	}
	return r
}

func (w *callers) end(r *round) {
	w.mu.Lock()
	if r.timer != nil {
		r.timer.Stop()
	}
	w.mu.Unlock()
	r.cancel()
}

// answer gives c its answer, and reports whether its caller was there. It is
// called with mu held, and the caller owns c from then on.
func (c *call) answer(res Result, err error) bool {
	if c.state == left {
		return false
	}
	if err != nil {
		res = Result{}
	}
	if c.state = answered; c.done != nil {
		c.done <- answer{res, err}
	}
	return true
}

// giveBack returns the operation that gives n steps of op back, of those that r
// says were granted in a call that began at start. There may be nothing left to
// give back.
//
// What a clock register has drained since is not given back: had the steps not
// been taken, the bucket would have been full, and that time lost. Nor is a count
// lowered that may have expired before this operation is carried out: the one in
// its place has granted nothing of it. The way to the store is taken to be as
// long as it was the last time.
func (op Op) giveBack(n int64, r Result, start time.Time) (back Op, any bool) {
	if op.Step <= 0 || n <= 0 {
		return op, false
	}
	back = op
	back.Step, back.Min, back.Max = -op.Step, n, n
	if !op.Clock {
		return back, r.Expires == 0 || r.Expires > int64(2*time.Since(start))
	}
	amount := n * op.Step
	before := r.Value - amount - (r.Now + op.Floor) // how long the rest takes to drain
	amount -= max(0, int64(2*time.Since(start))-before)
	back.Step, back.Min, back.Max = -amount, 1, 1
	return back, amount > 0
}
