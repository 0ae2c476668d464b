package session

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"example.com/plainware/internal/cookieattr"
)

// stored is a session as it is in the store.
type stored[T any] struct {
	key   string // of the record
	raw   []byte // the record, for compare-and-swap
	rec   record
	value T
	trail []string // keys of the aliases that led to it

	foreign bool // Codec cannot read the value
}

// view returns what a request sees of it. A session that was reached by an
// alias has a new id already. One that cannot be read counts as none.
func (b *stored[T]) view() view[T] {
	if b == nil || b.foreign {
		return view[T]{}
	}
	return view[T]{
		exists: true, user: b.rec.user, value: b.value, payload: b.rec.payload,
		pinned: len(b.trail) > 0,
	}
}

const (
	// maxCandidates is how many cookies of one name are tried. A browser sends
	// several if they were set for different domains or paths.
	maxCandidates = 4

	// maxHops is how many reads a request takes to its session: by seven
	// aliases at most.
	maxHops = 8

	// maxTrail is how many reads it takes at most to follow a session through
	// all the ids that it has had since: those of RotateEvery, which New bounds,
	// and some that a handler has given it.
	maxTrail = maxIDs + maxIDs/16
)

var (
	errTrail = errors.New("it has had more ids since than are followed")
	errBusy  = errors.New("others change it all the time")
)

// visit finds the session that the request's cookie names.
func (m *Manager[T]) visit(ctx context.Context, h http.Header) *visit[T] {
	v := &visit[T]{m: m, found: time.Now()}
	var buf [maxCandidates + 1]string
	texts := cookieattr.Values(buf[:0], h, m.cookie.Name())
	v.brought = len(texts) > 0
	if len(texts) > maxCandidates {
		v.doubt(texts[:maxCandidates])
		return v
	}
	var live *stored[T]
	for i, text := range texts {
		hash, ok := hashID(text)
		if !ok || slices.Contains(texts[:i], text) {
			continue
		}
		found, err := m.find(ctx, m.sessionKey(hash), false)
		if err != nil {
			v.failed = because(ErrUnavailable, err)
			return v
		}
		switch {
		case found == nil:
		case live == nil:
			live = found
		case live.key != found.key:
			// Two live sessions: somebody has planted one. Neither is to be
			// believed, so that nobody chooses which one counts.
			v.doubt(texts)
			return v
		}
	}
	if live != nil && live.foreign {
		v.doubt(texts)
		return v
	}
	v.base, v.view = live, live.view()
	return v
}

// doubt notes the ids of which the request believes none. A Logout or a Login is
// about their sessions too: whoever asks for one holds the cookies.
func (v *visit[T]) doubt(texts []string) {
	for i, text := range texts {
		if hash, ok := hashID(text); ok && !slices.Contains(texts[:i], text) {
			v.doubted = append(v.doubted, v.m.sessionKey(hash))
		}
	}
}

// endDoubted ends what the doubted ids let requests in to.
func (v *visit[T]) endDoubted(ctx context.Context) error {
	for _, key := range v.doubted {
		found, err := v.m.find(ctx, key, false)
		if err == nil && found != nil {
			_, err = v.m.end(ctx, key)
		}
		if err != nil {
			return err
		}
	}
	v.doubted = nil
	return nil
}

// find returns the session at a key, or nil if there is none that is valid.
// A request that was admitted once is led on by every alias, others by those
// within their Grace, and not by many.
func (m *Manager[T]) find(ctx context.Context, key string, admitted bool) (*stored[T], error) {
	hops := maxHops
	if admitted {
		hops = maxTrail
	}
	var trail []string
	for range hops {
		raw, ok, err := m.store.Get(ctx, key)
		if err != nil || !ok {
			return nil, err
		}
		a, ok := decodeAlias(raw)
		if !ok {
			return m.judge(ctx, &stored[T]{key: key, raw: raw, trail: trail})
		}
		if !admitted && !a.leads(time.Now()) {
			return nil, m.reused(ctx, key)
		}
		trail, key = append(trail, key), m.sessionKey(a.next)
	}
	if admitted {
		return nil, errTrail // there is one, further on
	}
	return nil, nil
}

// judge returns b, completed, if it is a valid session, or nil.
func (m *Manager[T]) judge(ctx context.Context, b *stored[T]) (*stored[T], error) {
	var ok bool
	if b.rec, ok = decodeRecord(b.raw); !ok {
		return nil, nil
	}
	if d := m.deadline(&b.rec); d != 0 && time.Now().UnixNano() >= d {
		return nil, nil
	}
	if b.rec.user != "" && m.marks != "" {
		mark, err := m.mark(ctx, b.rec.user)
		if err != nil || mark != 0 && mark != b.rec.epoch {
			return nil, err
		}
	}
	var err error
	if b.value, err = m.decode(b.rec.payload); err != nil {
		// Written by a program that had another T, which goes on reading it
		// while the old and the new one run side by side.
		b.foreign = true
		m.log.WarnContext(ctx, "session: Codec cannot read a stored value, the session counts as absent",
			"error", err, "session", logID(b.key))
	}
	return b, nil
}

// reused is told of an alias whose Grace is over.
func (m *Manager[T]) reused(ctx context.Context, key string) error {
	if !m.destroy {
		return nil
	}
	m.log.WarnContext(ctx, "session: an old id was used after its grace, the session is ended", "session", logID(key))
	_, err := m.end(ctx, key)
	return err
}

// end deletes the session at a key wherever aliases lead, and then these, the
// newest first: were it interrupted, the same call would find the way again. It
// reports whether anything was there.
func (m *Manager[T]) end(ctx context.Context, key string) (found bool, err error) {
	var trail []string
	for range maxTrail {
		raw, ok, err := m.store.Get(ctx, key)
		if err != nil {
			return found, err
		}
		if ok {
			found = true
			if a, ok := decodeAlias(raw); ok {
				trail, key = append(trail, key), m.sessionKey(a.next)
				continue
			}
			gone, err := m.kept.CompareAndSwap(ctx, key, raw, nil, 0)
			if err != nil {
				return found, err
			}
			if !gone {
				continue // changed, or moved on
			}
		}
		return found, m.forget(ctx, trail)
	}
	return found, errBusy
}

// forget deletes aliases.
func (m *Manager[T]) forget(ctx context.Context, trail []string) error {
	for i := len(trail) - 1; i >= 0; i-- {
		if err := m.kept.Delete(ctx, trail[i]); err != nil {
			return err
		}
	}
	return nil
}
