package wsproxy

import (
	"container/heap"
	"sync"
	"time"
)

// clock watches the limits of all tunnels with one timer: a heap of tunnels by
// when each of them has to be looked at. Bytes that pass only leave a stamp, and
// when a tunnel's time has come the stamps say when it is due again. No goroutine
// waits, and without tunnels no timer runs.
type clock struct {
	now func() int64

	mu    sync.Mutex
	queue queue
	timer *time.Timer
	armed int64 // when the timer fires, 0 for never
}

// slot is a tunnel's place in the clock.
type slot struct {
	due   int64
	index int32 // in the queue, from 1; 0 for none
	busy  bool  // it is being looked at; due is when to look again, 0 for never
	gone  bool
}

// grain is how exact the clock is: tunnels that are due within it are looked at
// together.
const grain = int64(20 * time.Millisecond)

// add has the clock look at t from now on.
func (c *clock) add(t *tunnel) { c.soon(t, c.now()) }

// soon has t looked at no later than at a time, 0 for never.
func (c *clock) soon(t *tunnel, due int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enter(t, due)
	c.arm()
}

// enter puts t into the queue, or forward in it. mu is held.
func (c *clock) enter(t *tunnel, due int64) {
	w := &t.watch
	switch {
	case due == 0 || w.gone:
	case w.busy:
		if w.due == 0 || due < w.due {
			w.due = due
		}
	case w.index == 0:
		w.due = due
		heap.Push(&c.queue, t)
	case due < w.due:
		w.due = due
		heap.Fix(&c.queue, int(w.index)-1)
	}
}

// remove forgets t for good.
func (c *clock) remove(t *tunnel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.watch.gone = true
	if t.watch.index > 0 {
		heap.Remove(&c.queue, int(t.watch.index)-1)
	}
	if len(c.queue) == 0 {
		c.queue = nil
		if c.timer != nil {
			c.timer.Stop()
		}
		c.armed = 0
	}
}

// arm sets the timer for the first in the queue. mu is held.
func (c *clock) arm() {
	if len(c.queue) == 0 {
		return
	}
	due := (c.queue[0].watch.due + grain - 1) / grain * grain
	if c.armed != 0 && c.armed <= due {
		return
	}
	c.armed = due
	wait := time.Duration(max(due-c.now(), 0))
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.fire)
	} else {
		c.timer.Reset(wait)
	}
}

func (c *clock) fire() {
	c.mu.Lock()
	c.armed = 0
	c.mu.Unlock()
	for {
		c.mu.Lock()
		now := c.now()
		if len(c.queue) == 0 || c.queue[0].watch.due > now {
			c.arm()
			c.mu.Unlock()
			return
		}
		t := heap.Pop(&c.queue).(*tunnel)
		t.watch.busy, t.watch.due = true, 0
		c.mu.Unlock()
		next := t.tick(now)
		c.mu.Lock()
		t.watch.busy = false
		sooner := t.watch.due // what was asked for meanwhile
		c.enter(t, next)
		c.enter(t, sooner)
		c.mu.Unlock()
	}
}

// queue implements heap.Interface.
type queue []*tunnel

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].watch.due < q[j].watch.due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].watch.index, q[j].watch.index = int32(i+1), int32(j+1)
}

func (q *queue) Push(x any) {
	t := x.(*tunnel)
	*q = append(*q, t)
	t.watch.index = int32(len(*q))
}

func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.watch.index = 0
	return t
}
