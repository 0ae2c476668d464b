package session

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// attempts is how often a save is tried while other requests are faster.
	attempts = 10

	// minForward is how long an alias lives at least, so that a Logout finds
	// the session even where no Grace lets others use it.
	minForward = 10 * time.Second
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
// the new id if there is one.
//
// The new record is written first, and only then the old one changed: this
// second step is the one that others compete for. Until it has been done nobody
// knows the new id, and if it cannot be done, nobody ever will.
func (v *visit[T]) save(ctx context.Context, now time.Time) (id string, err error) {
	if v.view.fate == dropped && v.base != nil {
		if err := v.m.end(ctx, v.base.key); err != nil {
			return "", because(ErrUnavailable, err)
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
				return "", err
			}
			if !v.view.renewed && written != nil {
				v.m.discard(ctx, written)
				written = nil
			}
		}
		if v.base == nil && !v.view.exists {
			v.done(nil)
			return "", nil
		}
		next, err := v.next(ctx, now)
		if err != nil {
			return "", because(ErrUnavailable, err)
		}
		if v.view.renewed {
			if written, err = v.m.write(ctx, next, written, now); err != nil {
				return "", because(ErrUnavailable, err)
			}
		}
		swapped, err := v.swap(ctx, next, now)
		if err != nil {
			return "", because(ErrUnavailable, err)
		}
		if swapped {
			if written != nil {
				id = v.fresh
			}
			v.done(next)
			return id, nil
		}
	}
	if written != nil {
		v.m.discard(ctx, written)
	}
	return "", ErrConflict
}

// again reads the stored session once more after somebody else has changed it,
// and carries out on it what the request did.
func (v *visit[T]) again(ctx context.Context, try int) error {
	if err := pause(ctx, try); err != nil {
		return because(ErrUnavailable, err)
	}
	found, err := v.m.find(ctx, v.base.key, true)
	if err != nil {
		return because(ErrUnavailable, err)
	}
	if found != nil {
		found.trail = append(v.base.trail, found.trail...)
	} else if v.view.fate != yields {
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

// discard deletes what was written under an id that nobody will learn. Where
// that fails the record ends by itself.
func (m *Manager[T]) discard(ctx context.Context, n *stored[T]) {
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
		// Only the last use is new. If somebody else has written theirs, that
		// will do, and if the store does not take it, the next request tries.
		if _, err := m.store.CompareAndSwap(ctx, b.key, b.raw, n.raw, m.ttl(&n.rec, now)); err != nil {
			m.log.WarnContext(ctx, "session: a use could not be written", "error", err, "session", logID(b.key))
		}
		return true, nil
	default:
		return m.store.CompareAndSwap(ctx, b.key, b.raw, n.raw, m.ttl(&n.rec, now))
	}
}

// forward returns the alias for an old id, and how long it is there. The store's
// clock ends the Grace, unless the alias is remembered for longer than that.
func (m *Manager[T]) forward(r *record, now time.Time) (a alias, ttl time.Duration) {
	if m.destroy {
		left := time.Duration(m.deadline(r) - now.UnixNano())
		return alias{useBy: now.Add(m.grace).UnixNano()}, max(left, minForward)
	}
	if m.grace == 0 {
		return alias{useBy: now.UnixNano()}, minForward
	}
	return alias{}, m.grace
}

// done makes n the base.
func (v *visit[T]) done(n *stored[T]) {
	v.base, v.view, v.ops = n, n.view(), nil
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
