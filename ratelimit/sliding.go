package ratelimit

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

// slide is what a policy of Sliding knows of its windows.
//
// # The bound
//
// Windows are cut by the store's clock: window i lasts from i·W up to (i+1)·W. Each
// has a register of its own for a key, which counts what was granted in it. At
// the fraction f of a window, n are allowed less ⌈p·(1-f)⌉, p being the count of
// the window before.
//
// A decision is one Advance of the current window's register. It needs p, f and
// the window's number before, so it takes them from an estimate of the store's
// clock, and its answer, which has the clock as it was, must confirm them:
//
//   - It was made in the window that it counts in. Otherwise it is given back and
//     made again. So a grant in a register was made in that register's window,
//     and once that is over, its count is final but for what is still to be given
//     back: p is read after its window, and is never less than what was granted.
//   - The count is within what the confirmed f allows. As f only grows, that is
//     so already unless the estimate was ahead of the clock.
//
// A window of length w < W meets two of the store's at most, of which the first
// has granted A ≤ n, and the second no more than n - ⌈A(1-f)⌉ up to its fraction
// f ≤ w/W. Together that is at most n + ⌊n·w/W⌋, and less than 2n even for w = W,
// since f < 1. In longer ones there are n more for each W.
//
// Without the confirmation it would not hold: an operation that comes late, after
// others have read its window as the one before, would be in no count.
type slide struct {
	window int64
	space  string
	start  time.Time

	// ahead is the store's clock less the time since start, as of its last
	// answer, so the estimate is late by the way back. 0: no answer yet.
	ahead  atomic.Int64
	spaces atomic.Pointer[slideSpaces]

	names registerHash
	mu    sync.Mutex
	cache []slideEntry
}

// aimed is the window that a decision is about.
type aimed struct {
	index  int64
	before int64 // the count of the window before it
}

type slideSpaces struct {
	index           int64
	current, before string
}

// slideEntry remembers the count of the window before index, which is final.
type slideEntry struct {
	hash   uint64
	index  int64
	before int64
}

const slideEntries = 1024

func newSlide(space string, window time.Duration) *slide {
	return &slide{
		window: int64(window), space: space, start: time.Now(),
		names: newRegisterHash(), cache: make([]slideEntry, slideEntries),
	}
}

// now estimates the store's clock.
func (s *slide) now() (now int64, known bool) {
	if ahead := s.ahead.Load(); ahead != 0 {
		return ahead + int64(time.Since(s.start)), true
	}
	return time.Now().UnixNano(), false
}

// learn sets the clock.
func (s *slide) learn(now int64) { s.ahead.Store(now - int64(time.Since(s.start))) }

// at returns the names of the registers for a window and the one before.
func (s *slide) at(index int64) *slideSpaces {
	sp := s.spaces.Load()
	if sp == nil || sp.index != index {
		sp = &slideSpaces{
			index:   index,
			current: s.space + "/" + strconv.FormatInt(index, 10),
			before:  s.space + "/" + strconv.FormatInt(index-1, 10),
		}
		s.spaces.Store(sp)
	}
	return sp
}

// elapsed returns how much of its window has passed at now.
func (s *slide) elapsed(now int64) int64 { return now % s.window }

// ceil returns what the current window may count at now.
func (s *slide) ceil(limit, before, now int64) int64 {
	return limit - shareUp(before, s.window-s.elapsed(now), s.window)
}

// aim finds the window that u is in, and what it allows, and makes op the
// operation on its register.
func (l *Limiter) aim(ctx context.Context, u *use, op *store.Op) (degraded bool, err error) {
	s := u.p.slide
	var now int64
	for range attempts {
		var known bool
		now, known = s.now()
		u.at.index = now / s.window
		if known {
			var ok bool
			if u.at.before, ok = s.recall(u.key, u.at.index); ok {
				break
			}
		}
		peek := [1]store.Op{*op}
		peek[0].Space, peek[0].Min, peek[0].Max = s.at(u.at.index).before, 0, 0
		var res [1]store.Result
		if degraded, err = l.guard.batch(ctx, peek[:], res[:]); err != nil {
			return degraded, err
		}
		if res[0].Now == 0 {
			break // no store, and no stand-in: the mode will decide
		}
		s.learn(res[0].Now)
		now, u.at.before = res[0].Now, res[0].Value
		if now/s.window == u.at.index {
			if !degraded {
				s.remember(u.key, u.at)
			}
			break
		}
		// If this was the last attempt, the answer will not confirm it.
	}
	op.Space = s.at(u.at.index).current
	op.Ceil = s.ceil(u.p.limit, u.at.before, now)
	return degraded, nil
}

// current reports whether the answers confirm what aim has estimated.
func (rd *round) current() bool {
	k, ok := 0, true
	for i := range rd.uses {
		u := &rd.uses[i]
		if !u.asked {
			continue
		}
		if s := u.p.slide; s != nil {
			res := &rd.res[k]
			s.learn(res.Now)
			ok = ok && res.Now/s.window == u.at.index &&
				(res.Granted == 0 || res.Value <= s.ceil(u.p.limit, u.at.before, res.Now))
		}
		k++
	}
	return ok
}

// wait returns how long until n units more fit on what u has found.
func (s *slide) wait(u *use, n int64) int64 {
	elapsed := s.elapsed(u.res.Now)
	if room := u.p.limit - u.res.Value - n; room >= 0 {
		return max(0, s.shrunk(u.at.before, room)-elapsed)
	}
	// Not in this window.
	rest := s.window - elapsed
	return rest + s.shrunk(u.res.Value, max(0, u.p.limit-n))
}

// shrunk returns how much of a window must have passed for the count of the one
// before to weigh no more than room.
func (s *slide) shrunk(before, room int64) int64 {
	if before <= room {
		return 0
	}
	return s.window - share(s.window, room, before)
}

// reset returns how long until nothing of u weighs any more.
func (s *slide) reset(u *use) int64 {
	rest := s.window - s.elapsed(u.res.Now)
	switch {
	case u.res.Value > 0:
		return rest + s.window
	case u.at.before > 0:
		return rest
	}
	return 0
}

func (s *slide) recall(key string, index int64) (before int64, ok bool) {
	h := s.names.of("", key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.cache[h%slideEntries]
	return e.before, e.hash == h && e.index == index
}

func (s *slide) remember(key string, at aimed) {
	h := s.names.of("", key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache[h%slideEntries] = slideEntry{h, at.index, at.before}
}

func (s *slide) forget(key string) {
	h := s.names.of("", key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := &s.cache[h%slideEntries]; e.hash == h {
		*e = slideEntry{}
	}
}
