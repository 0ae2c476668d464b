package forwardauth

import (
	"context"
	"errors"
	"sync"
)

// flights lets requests with one question wait for one answer. Who comes first
// asks, in its own goroutine; the others wait. The asking ends early only when
// all of them have left.
type flights struct {
	mu  sync.Mutex
	all map[string]*flight
}

// flight is a question under way. What is below done is set before done is
// closed and not changed afterwards.
type flight struct {
	ctx     context.Context // of the question
	cancel  context.CancelFunc
	unwatch func() bool
	waiting int // those that still want the answer; guarded by flights.mu

	done   chan struct{}
	shared bool   // the answer is for all
	answer answer // a copy: carrying out a denial changes the one it is made of
	err    *Error
}

var errLanded = errors.New("the question was not finished")

// join returns the flight for a key, and whether the caller is the one to ask.
func (fs *flights) join(ctx context.Context, key string) (*flight, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.all[key]; f != nil && f.waiting > 0 {
		f.waiting++
		return f, false
	}
	f := &flight{waiting: 1, done: make(chan struct{}), err: &Error{Reason: Unavailable, Err: errLanded}}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.unwatch = context.AfterFunc(ctx, func() { fs.leave(key, f) })
	if fs.all == nil {
		fs.all = make(map[string]*flight)
	}
	fs.all[key] = f
	return f, true
}

// leave says that one of those who wait does so no longer.
func (fs *flights) leave(key string, f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		fs.forget(key, f)
	}
}

// land ends the flight for everybody.
func (fs *flights) land(key string, f *flight) {
	f.unwatch()
	f.cancel()
	fs.mu.Lock()
	fs.forget(key, f)
	fs.mu.Unlock()
	close(f.done)
}

// forget takes f out of the map, unless another is there by now.
func (fs *flights) forget(key string, f *flight) {
	if fs.all[key] == f {
		delete(fs.all, key)
	}
}

// result is what one of those who waited gets: an answer of its own, with the
// header of all.
func (f *flight) result(m *Middleware) (*answer, identity, *Error) {
	if f.err != nil {
		return nil, identity{}, f.err
	}
	a := f.answer
	if !a.allowed {
		return &a, identity{}, nil
	}
	return &a, m.identified(&a), nil
}
