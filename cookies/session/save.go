package session

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"example.com/plainware/store"
)

const (
	// attempts is how often a save is tried while other requests are faster.
	attempts = 10

	// minForward and maxForward bound how long an alias lives, so that a Logout
	// finds the session of a request that was let in long ago, in a stream for
	// example, even where no Grace lets others use the old id. By default a
	// session ends within a day, and what a store has to hold needs an end too.
	minForward = 10 * time.Second
	maxForward = 24 * time.Hour
)

// Causes of an ErrConflict.
var (
	// errLost: the session may have ended, or it goes on under an id to which
	// nothing leads any more.
	errLost = errors.New("the request has held the session for so long that its new id is not known")

	errForeign = errors.New("another program has left a value that Codec cannot read")
)

// replay makes the view anew from base.
func (v *visit[T]) replay() error {
	next := v.base.view()
	for _, o := range v.ops {
		if err := o(v.m, &next); err != nil {
			return because(ErrConflict, err)
		}
	}
	v.view = next
	return nil
}

// save makes the store agree with the view, which becomes the base, and returns
// the new id if there is one. Where that fails, be it by a panic of a function
// given to Update, the view is what the base has: later ones have no part in what
// could not be saved.
//
// The new record is written first, and only then the old one changed: this
// second step is the one that others compete for. Until it has been done nobody
// knows the new id, and if it cannot be done, nobody ever will.
func (v *visit[T]) save(ctx context.Context, now time.Time) (id string, err error) {
	defer func() { v.view, v.ops = v.base.view(), nil }()
	if v.view.fate == dropped || v.view.fate == yields {
		if err := v.endDoubted(ctx); err != nil {
			return "", because(ErrUnavailable, err)
		}
	}
	if v.view.fate == dropped && v.base != nil {
		found, err := v.m.end(ctx, v.base.key)
		if err != nil {
			return "", because(ErrUnavailable, err)
		}
		if !found && v.lost(now) {
			return "", because(ErrConflict, errLost)
		}
		if err := v.m.forget(ctx, v.base.trail); err != nil {
			return "", because(ErrUnavailable, err)
		}
		v.base = nil
	}
	var written *stored[T] // under the new id
	for try := range attempts {
		if try > 0 {
			if err := v.again(ctx, try); err != nil {
				v.m.discard(ctx, written)
				return "", err
			}
			if !v.view.renewed {
				v.m.discard(ctx, written)
				written = nil
			}
		}
		if v.base == nil && !v.view.exists {
			v.done(nil, now)
			return "", nil
		}
		next, err := v.next(ctx, now)
		if err != nil {
			v.m.discard(ctx, written)
			return "", because(ErrUnavailable, err)
		}
		if v.view.renewed {
			if written, err = v.m.write(ctx, next, written, now); err != nil {
				return "", refused(err)
			}
		}
		swapped, err := v.swap(ctx, next, now)
		if err != nil {
			return "", refused(err)
		}
		if swapped {
			if written != nil {
				id = v.fresh
			}
			v.done(next, now)
			return id, nil
		}
	}
	v.m.discard(ctx, written)
	return "", ErrConflict
}

// refused returns the error for a record that the store has not taken.
func refused(err error) error {
	if errors.Is(err, store.ErrSize) {
		return because(ErrTooLarge, err)
	}
	return because(ErrUnavailable, err)
}

// again reads the stored session once more after somebody else has changed it,
// and carries out on it what the request did.
func (v *visit[T]) again(ctx context.Context, try int) error {
	if err := pause(ctx, try); err != nil {
		return because(ErrUnavailable, err)
	}
	asked := time.Now()
	found, err := v.m.find(ctx, v.base.key, true)
	switch {
	case err == errTrail:
		return because(ErrConflict, err)
	case err != nil:
		return because(ErrUnavailable, err)
	case found != nil && found.foreign && v.view.fate != yields:
		return because(ErrConflict, errForeign)
	case found != nil:
		found.trail = append(v.base.trail, found.trail...)
		v.found = asked
	case v.view.fate != yields:
		if v.lost(time.Now()) {
			return because(ErrConflict, errLost)
		}
		// It has ended. To save the view would bring it back.
		v.base, v.view, v.ops = nil, view[T]{}, nil
		return nil
	}
	v.base = found
	return v.replay()
}

// next returns the view as it is to be stored.
func (v *visit[T]) next(ctx context.Context, now time.Time) (*stored[T], error) {
	n := &stored[T]{value: v.view.value}
	if v.base != nil && v.view.fate != yields && v.view.fate != dropped {
		n.key, n.rec, n.trail = v.base.key, v.base.rec, v.base.trail
	} else {
		n.rec.created = now.UnixNano()
		if v.m.absolute > 0 {
			n.rec.deadline = n.rec.created + int64(v.m.absolute)
		}
	}
	n.rec.seen, n.rec.user, n.rec.payload = now.UnixNano(), v.view.user, v.view.payload
	if v.view.renewed {
		n.key, n.rec.issued = v.freshKey(), now.UnixNano()
	}
	if v.view.login && v.m.marks != "" {
		var err error
		if n.rec.epoch, err = v.m.mark(ctx, v.view.user); err != nil {
			return nil, err
		}
	}
	n.raw = n.rec.encode()
	return n, nil
}

var errTaken = errors.New("a new id is taken, or the store holds what it was not given")

// write stores a session under its new id, where prev was written before.
func (m *Manager[T]) write(ctx context.Context, n, prev *stored[T], now time.Time) (*stored[T], error) {
	var old []byte
	if prev != nil {
		old = prev.raw
	}
	ok, err := m.store.CompareAndSwap(ctx, n.key, old, n.raw, m.ttl(&n.rec, now))
	if err == nil && !ok {
		err = errTaken
	}
	return n, err
}

// discard deletes what was written under an id that nobody will learn, if there
// is such a record. Where that fails it ends by itself.
func (m *Manager[T]) discard(ctx context.Context, n *stored[T]) {
	if n == nil {
		return
	}
	if err := m.store.Delete(ctx, n.key); err != nil {
		m.log.WarnContext(ctx, "session: an unused record could not be deleted", "error", err, "session", logID(n.key))
	}
}

// swap puts in the place of base what becomes of it, and reports whether base
// was still there.
func (v *visit[T]) swap(ctx context.Context, n *stored[T], now time.Time) (bool, error) {
	b, m := v.base, v.m
	switch {
	case b == nil:
		return true, nil
	case v.view.fate == yields:
		ok, err := m.kept.CompareAndSwap(ctx, b.key, b.raw, nil, 0)
		if err != nil || !ok {
			return false, err
		}
		return true, m.forget(ctx, b.trail)
	case v.view.fate == leads:
		hash, _ := hashID(v.fresh)
		a, ttl := m.forward(&n.rec, now)
		a.next = hash
		return m.store.CompareAndSwap(ctx, b.key, b.raw, a.encode(), ttl)
	case bytes.Equal(n.rec.payload, b.rec.payload):
		if !m.stale(&b.rec, now) {
			n.raw, n.rec.seen = b.raw, b.rec.seen
			return true, nil
		}
		// Only the last use is new, and if the store does not take it, the next
		// request tries. But where somebody else was faster, it may have been
		// with a new id, under which this use counts.
		ok, err := m.store.CompareAndSwap(ctx, b.key, b.raw, n.raw, m.ttl(&n.rec, now))
		if err != nil {
			v.unused(ctx, err)
			n.raw, n.rec.seen = b.raw, b.rec.seen
			return true, nil
		}
		return ok, nil
	default:
		return m.store.CompareAndSwap(ctx, b.key, b.raw, n.raw, m.ttl(&n.rec, now))
	}
}

// forward returns the alias for an old id, and how long it is there: beyond
// Grace it leads on those whom the session has let in before.
func (m *Manager[T]) forward(r *record, now time.Time) (a alias, ttl time.Duration) {
	ttl = maxForward
	if d := m.deadline(r); d != 0 {
		ttl = time.Duration(d - now.UnixNano())
		if !m.destroy {
			ttl = min(ttl, maxForward)
		}
	}
	return alias{useBy: now.Add(m.grace).UnixNano()}, max(ttl, minForward)
}

// lost reports whether the session that the request has, and that is not found,
// may live: an alias may have been there and be gone.
func (v *visit[T]) lost(now time.Time) bool {
	d := v.m.deadline(&v.base.rec)
	return now.Sub(v.found) >= maxForward && !v.m.destroy && (d == 0 || now.UnixNano() < d)
}

// unused tells the log of a use that the store does not know of.
func (v *visit[T]) unused(ctx context.Context, err error) {
	v.m.log.WarnContext(ctx, "session: a use could not be written", "error", err, "session", logID(v.base.key))
}

// done makes n the base. If it is what the base was, the store has not been
// asked, or has not answered, and nobody knows whether that is still there.
func (v *visit[T]) done(n *stored[T], now time.Time) {
	if n == nil || v.base == nil || !bytes.Equal(n.raw, v.base.raw) {
		v.found = now
	}
	v.base = n
}

// pause waits before another try, longer each time, but not before the first.
func pause(ctx context.Context, try int) error {
	if try == 0 {
		return nil
	}
	t := time.NewTimer(rand.N(time.Millisecond << min(try, 6)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
