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
}

// view returns what a request sees of it. A session that was reached by an
// alias has a new id already.
func (b *stored[T]) view() view[T] {
	if b == nil {
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

	// maxHops is how many aliases lead a request to its session.
	maxHops = 8
)

// visit finds the session that the request's cookie names.
func (m *Manager[T]) visit(ctx context.Context, h http.Header) *visit[T] {
	v := &visit[T]{m: m}
	var buf [maxCandidates + 1]string
	texts := cookieattr.Values(buf[:0], h, m.cookie.Name())
	v.brought = len(texts) > 0
	if len(texts) > maxCandidates {
		return v
	}
	for i, text := range texts {
		hash, ok := hashID(text)
		if !ok || slices.Contains(texts[:i], text) {
			continue
		}
		found, err := m.find(ctx, m.sessionKey(hash), false)
		if err != nil {
			v.base, v.failed = nil, because(ErrUnavailable, err)
			return v
		}
		switch {
		case found == nil:
		case v.base == nil:
			v.base = found
		case v.base.key != found.key:
			// Two live sessions: somebody has planted one. Neither is to be
			// believed, so that nobody chooses which one counts.
			v.base = nil
			return v
		}
	}
	v.view = v.base.view()
	return v
}

// find returns the session at a key, or nil if there is none that is valid.
// A request that was admitted once is led on by every alias, others by those
// within their Grace.
func (m *Manager[T]) find(ctx context.Context, key string, admitted bool) (*stored[T], error) {
	var trail []string
	for range maxHops {
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
		if err != nil || mark > b.rec.epoch {
			return nil, err
		}
	}
	var err error
	if b.value, err = m.decode(b.rec.payload); err != nil {
		// Written by a program that had another T, which goes on reading it
		// while the old and the new one run side by side.
		m.log.WarnContext(ctx, "session: Codec cannot read a stored value, the session counts as absent",
			"error", err, "session", logID(b.key))
		return nil, nil
	}
	return b, nil
}

// reused is told of an alias whose Grace is over.
func (m *Manager[T]) reused(ctx context.Context, key string) error {
	if !m.destroy {
		return nil
	}
	m.log.WarnContext(ctx, "session: an old id was used after its grace, the session is ended", "session", logID(key))
	return m.end(ctx, key)
}

// maxTrail bounds what end follows: one session's ids, as many as it can have
// had.
const maxTrail = 1 << 12

var errBusy = errors.New("others change it all the time")

// end deletes the session at a key wherever aliases lead, and then these, the
// newest first: were it interrupted, the same call would find the way again.
func (m *Manager[T]) end(ctx context.Context, key string) error {
	var trail []string
	for range maxTrail {
		raw, ok, err := m.store.Get(ctx, key)
		if err != nil {
			return err
		}
		if ok {
			if a, ok := decodeAlias(raw); ok {
				trail, key = append(trail, key), m.sessionKey(a.next)
				continue
			}
			gone, err := m.kept.CompareAndSwap(ctx, key, raw, nil, 0)
			if err != nil {
				return err
			}
			if !gone {
				continue // changed, or moved on
			}
		}
		return m.forget(ctx, trail)
	}
	return errBusy
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
