package forwardauth

import (
	"context"
	"errors"
	"sync"
	"time"
)

// flights lets requests with one question wait for one answer. The question is
// asked in a goroutine of its own, and all wait alike, each no longer than its
// own context lasts. The asking ends early only when all of them have left.
type flights struct {
	mu  sync.Mutex
	all map[string]*flight
}

// joinWithin is for how long others join a question under way where
// Config.Timeout does not end it: one that hangs must not take along all who
// come later.
const joinWithin = defaultTimeout

// flight is a question under way. What is below done is set before done is
// closed and not changed afterwards.
type flight struct {
	ctx     context.Context // of the question
	cancel  context.CancelFunc
	began   time.Time
	waiting int  // those that still want the answer; guarded by flights.mu
	orphan  bool // who has launched it has left; guarded by flights.mu

	done     chan struct{}
	shared   bool   // the answer is for all
	answer   answer // a copy: carrying out a denial changes the one it is made of
	err      *Error
	panicked any // what Base, Allow or the store has panicked with
}

var errLanded = errors.New("the question was not finished")

// join returns the flight for a key, and whether the caller is the one to launch
// it.
func (fs *flights) join(ctx context.Context, key string) (*flight, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.all[key]; f != nil && f.waiting > 0 && time.Since(f.began) < joinWithin {
		f.waiting++
		return f, false
	}
	f := &flight{waiting: 1, began: time.Now(), done: make(chan struct{}), err: &Error{Reason: Unavailable, Err: errLanded}}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if fs.all == nil {
		fs.all = make(map[string]*flight)
	}
	fs.all[key] = f
	return f, true
}

// launch runs ask, and lands when it ends, whichever way it does. A panic is for
// who has launched it, or, where they have left, for lost.
func (fs *flights) launch(key string, f *flight, ask func(), lost func(any)) {
	go func() {
		defer func() {
			f.panicked = recover()
			if fs.land(key, f) && f.panicked != nil {
				lost(f.panicked)
			}
		}()
		ask()
	}()
}

// leave says that one of those who wait does so no longer. It reports whether
// that is so: who comes to leave when the flight has landed has to take what it
// brought, a panic above all, which nobody else would tell of.
func (fs *flights) leave(key string, f *flight, leads bool) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	select {
	case <-f.done:
		return false
	default:
	}
	f.orphan = f.orphan || leads
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		fs.forget(key, f)
	}
	return true
}

// land ends the flight for everybody, and reports whether who has launched it
// has left.
func (fs *flights) land(key string, f *flight) (orphan bool) {
	f.cancel()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.forget(key, f)
	close(f.done)
	return f.orphan
}

// forget takes f out of the map, unless another is there by now.
func (fs *flights) forget(key string, f *flight) {
	if fs.all[key] == f {
		delete(fs.all, key)
	}
}

// result is what one of those who waited gets: an answer or an error of its own,
// with the header of all.
func (f *flight) result(m *Middleware) (*answer, identity, *Error) {
	if f.err != nil {
		err := *f.err // ErrorHandler and OnDecision may change it
		return nil, identity{}, &err
	}
	a := f.answer
	if !a.allowed {
		return &a, identity{}, nil
	}
	return &a, m.identified(&a), nil
}
