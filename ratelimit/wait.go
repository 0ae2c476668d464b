package ratelimit

import (
	"context"
	"sync"
	"time"
)

// Wait waits until n units of a policy are granted, for calls to others that
// have a limit: see [Limiter.Take] for the arguments, and [Transport]. Callers in
// one process with one key get their turn in the order in which they came.
//
// It returns a *[LimitError] as soon as it is clear that waiting is of no use:
// when n is above what is ever allowed at once, or when ctx would end before; in
// the second case the error is context.DeadlineExceeded too. Otherwise its
// errors are those of Take.
func (l *Limiter) Wait(ctx context.Context, policy string, n int64, key ...string) error {
	rd, err := l.one(policy, n, key)
	if err != nil {
		return err
	}
	u := rd.uses[0]
	l.free(rd)
	id := waitID{u.p, u.key}
	line := l.waits.join(id)
	defer l.waits.leave(id, line)
	select {
	case line.turn <- struct{}{}:
		defer func() { <-line.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		d, err := l.Take(ctx, policy, n, key...)
		if err != nil || d.Allowed {
			return err
		}
		refusal := &LimitError{Decision: d}
		if d.RetryAfter <= 0 {
			return refusal
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d.RetryAfter {
			refusal.cause = context.DeadlineExceeded
			return refusal
		}
		timer := time.NewTimer(d.RetryAfter)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// waitLines are those who wait, by key. Only the first of a line asks for the
// limit: all would ask at the same instant, and one would get it.
type waitLines struct {
	mu    sync.Mutex
	lines map[waitID]*waitLine
}

type waitID struct {
	p   *policy
	key string
}

type waitLine struct {
	turn    chan struct{} // has room for one
	waiting int
}

func (w *waitLines) join(id waitID) *waitLine {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.lines[id]
	if line == nil {
		if w.lines == nil {
			w.lines = make(map[waitID]*waitLine)
		}
		line = &waitLine{turn: make(chan struct{}, 1)}
		w.lines[id] = line
	}
	line.waiting++
	return line
}

func (w *waitLines) leave(id waitID, line *waitLine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if line.waiting--; line.waiting == 0 {
		delete(w.lines, id)
	}
}
