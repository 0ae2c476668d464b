package session

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"example.com/plainware/internal/respwriter"
)

// Session is what one request has of a session. Its methods read from the store
// at most once, when the first of them is called, and change nothing there
// before the response begins: then all that the request did is saved, with
// compare-and-swap, in front of the first byte. If the handler panics before
// that, nothing is.
//
// Once a method has failed with ErrUnavailable the response will be a 503,
// whatever the handler sends, so a handler can simply return.
//
// After the response has begun, in a stream or on a hijacked connection,
// Update and Logout of an existing session are carried out at once. What needs
// a cookie fails with ErrCommitted.
//
// The methods are safe for concurrent use. Functions given to Update are called
// while a lock is held, and must not use the Session.
type Session[T any] struct {
	m      *Manager[T]
	parent context.Context // as it came to the middleware
	r      *http.Request   // the handler's
	writer respwriter.Writer

	mu        sync.Mutex
	committed bool      // the response has begun
	visit     *visit[T] // nil until a method is called
}

// visit is what the request has to do with its session.
type visit[T any] struct {
	m       *Manager[T]
	brought bool       // the request has a cookie of that name
	failed  error      // why nothing works any more
	base    *stored[T] // as it is in the store, or nil
	view    view[T]    // as the request sees it
	ops     []op[T]    // what leads from base to view
	fresh   string     // the id that view will have, once there is need for one
}

// view is a session as it will be saved.
type view[T any] struct {
	exists  bool
	renewed bool // under an id of its own
	login   bool // the user's mark is to be read
	pinned  bool // Rotate does nothing
	fate    fate
	user    string
	value   T
	payload []byte // value as encoded
}

// fate is what becomes of the stored session that a view began with.
type fate int

const (
	stays   fate = iota // it is the view, changed or not
	leads               // an alias takes its place, for Grace
	yields              // it is deleted in favour of the view
	dropped             // it is deleted, and has no part in the view
)

// op is a change of a view. It is carried out again if other requests were
// faster.
type op[T any] func(*Manager[T], *view[T]) error

// Load returns the value, or the zero value if there is no session. Changing
// what it refers to changes nothing that is stored.
func (s *Session[T]) Load() (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.load()
	if err != nil {
		var none T
		return none, err
	}
	return v.view.value, nil
}

// Exists reports whether there is a session.
func (s *Session[T]) Exists() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.load()
	return err == nil && v.view.exists, err
}

// UserID returns who was given to Login, or "" if nobody is logged in.
func (s *Session[T]) UserID() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.load()
	if err != nil {
		return "", err
	}
	return v.view.user, nil
}

// LogID returns 16 characters that name the session in logs, until it gets
// another id, or "" if there is none. It is a keyed hash of a hash: the cookie
// cannot be found from it. It reads nothing from the store, so it is "" too
// before any other method was called.
func (s *Session[T]) LogID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.visit
	switch {
	case v == nil || !v.view.exists:
		return ""
	case v.view.renewed || v.base == nil:
		return logID(v.freshKey())
	}
	return logID(v.base.key)
}

// Update calls fn to change the value, and creates a session if there is none.
// If fn fails, nothing is changed and its error is returned.
//
// When the response begins and other requests have changed the session in the
// meantime, fn is called again, on what they have left. So fn should change the
// value by what it is at the time, and do nothing else. If meanwhile the
// session has ended, by a Logout for example, the change is dropped with it.
func (s *Session[T]) Update(fn func(*T) error) error {
	if fn == nil {
		panic("session: Update: nil function")
	}
	return s.change(func(m *Manager[T], v *view[T]) error {
		// Not the value that Load has handed out, which somebody may have
		// changed.
		value, err := m.decode(v.payload)
		if err != nil {
			return fmt.Errorf("session: Codec: %w", err)
		}
		if err := fn(&value); err != nil {
			return err
		}
		payload, err := m.encode(value)
		if err != nil {
			return err
		}
		v.begin()
		v.value, v.payload = value, payload
		return nil
	})
}

// Login makes the session that of a user whose identity was just proven, and
// creates it if there is none. It gets a new id, and the old one is worth
// nothing from the moment of the save: whoever planted or saw it before the
// login has no part in the session. Absolute counts anew.
//
// The value stays, unless another user was logged in: then it is the zero
// value. userID is 1 to 1024 bytes, whatever [Manager.RevokeUser] will be
// called with.
func (s *Session[T]) Login(userID string) error {
	if userID == "" || len(userID) > maxUser {
		return fmt.Errorf("session: Login: userID: must have 1 to %d bytes (got %d)", maxUser, len(userID))
	}
	return s.renew(func(m *Manager[T], v *view[T]) error {
		if v.user != "" && v.user != userID {
			var none T
			v.value, v.payload = none, nil
		}
		v.begin()
		v.user, v.login, v.renewed, v.fate = userID, true, true, yields
		return nil
	})
}

// Rotate gives the session a new id. The old one leads to it for Config.Grace.
// It does nothing if there is no session, or if the request came with such an
// old id itself.
func (s *Session[T]) Rotate() error { return s.renew(rotate) }

func rotate[T any](_ *Manager[T], v *view[T]) error {
	if v.exists && !v.renewed && !v.pinned {
		v.renewed, v.fate = true, leads
	}
	return nil
}

// Logout ends the session: the record is deleted from the store, and the cookie
// from the browser. No other request, whatever it has done to the session in
// the meantime, brings it back.
func (s *Session[T]) Logout() error {
	return s.change(func(m *Manager[T], v *view[T]) error {
		*v = view[T]{fate: dropped}
		return nil
	})
}

// begin makes the view a session if it is none.
func (v *view[T]) begin() {
	if !v.exists {
		v.exists, v.renewed = true, true
	}
}

// load returns what the request has to do with its session, which may be that
// nothing works.
func (s *Session[T]) load() (*visit[T], error) {
	if s.visit == nil {
		s.visit = s.m.visit(s.parent, s.r.Header)
	}
	return s.visit, s.visit.failed
}

// change carries out o.
func (s *Session[T]) change(o op[T]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.load()
	if err != nil {
		return err
	}
	if !s.committed {
		return v.apply(o)
	}
	if v.base == nil {
		return ErrCommitted
	}
	if err := v.apply(o); err != nil {
		return err
	}
	if _, err := v.save(s.parent, time.Now()); err != nil {
		v.view, v.ops = v.base.view(), nil // it was of this call, and not of the next
		return err
	}
	return nil
}

// renew carries out o, which gives the session another id.
func (s *Session[T]) renew(o op[T]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.load()
	if err != nil {
		return err
	}
	if s.committed {
		return ErrCommitted
	}
	return v.apply(o)
}

func (v *visit[T]) apply(o op[T]) error {
	next := v.view
	if err := o(v.m, &next); err != nil {
		return err
	}
	v.view, v.ops = next, append(v.ops, o)
	if next.renewed && v.fresh == "" {
		v.fresh = newID()
	}
	return nil
}

func (v *visit[T]) freshKey() string {
	hash, _ := hashID(v.fresh)
	return v.m.sessionKey(hash)
}
