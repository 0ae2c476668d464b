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
// once, when the first of them is called (and again if that fails after the
// response has begun), and change nothing there before the response begins: then
// all that the request did is saved, with compare-and-swap, in front of the first
// byte. If the handler panics before that, nothing is.
//
// Once a method has failed with ErrUnavailable the response will be a 503,
// whatever the handler sends, so a handler can simply return.
//
// After the response has begun, in a stream or on a hijacked connection,
// Update of an existing session and Logout are carried out at once, within 5 s,
// and also if the client has gone. One that has failed can be tried again, unless
// the response is the error of the session: then every call returns that. What
// needs a cookie fails with ErrCommitted.
//
// The methods are safe for concurrent use. Functions given to Update are called
// while a lock is held: they must neither use the Session nor begin the
// response, which would wait for them for ever.
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
	found   time.Time  // when it was known to be there
	doubted []string   // keys of ids that the request brought and does not believe
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

// Update calls fn to change the value, and creates a session if there is none,
// even if fn changes nothing: where visitors without a session need none, ask
// Exists before. If fn fails, nothing is changed and its error is returned.
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
	}, false)
}

// Login makes the session that of a user whose identity was just proven, and
// creates it if there is none. It gets a new id, and the old one is worth
// nothing from the moment of the save: whoever planted or saw it before the
// login has no part in the session. Absolute counts anew. What [Session.Logout]
// says of several cookies, and of a value that Codec cannot read, is so here too.
//
// The value stays, unless another user was logged in, or another request ended
// the session at the same moment, with a Login of its own for example: then it
// is the zero value. userID is 1 to 1024 bytes, whatever [Manager.RevokeUser] will be
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

// Rotate gives the session a new id. The old one leads to it for Config.Grace,
// but by seven of these steps at most. Requests that have the session already,
// streams for example, keep it: what they do finds its way for a day at least,
// counted from when the store last told them of it, and over 10000 ids, and after
// that fails with ErrConflict or ErrUnavailable. For this the store keeps some 200
// bytes of each old id for a day, or until Absolute would end the session if that
// is sooner; with DestroyOnReuse it is always until then. Only those that a Logout
// or a Login has come by are deleted before. Rotate does nothing if there is no
// session, or if the request came with such an old id itself.
func (s *Session[T]) Rotate() error { return s.renew(rotate) }

func rotate[T any](_ *Manager[T], v *view[T]) error {
	if v.exists && !v.renewed && !v.pinned {
		v.renewed, v.fate = true, leads
	}
	return nil
}

// Logout ends the session: the record is deleted from the store, and the cookie
// from the browser, unless the response has begun. No other request, whatever it
// has done to the session in the meantime, brings it back. Where there is none,
// Logout has nothing to do.
//
// It is about whatever the cookie may be worth elsewhere, too. A session counts
// as absent if Codec cannot read its value, and if the request has cookies of two
// live ones, or more than four cookies of the name: all these are ended, of more
// than four cookies those of the first four.
func (s *Session[T]) Logout() error {
	return s.change(func(m *Manager[T], v *view[T]) error {
		*v = view[T]{fate: dropped}
		return nil
	}, true)
}

// begin makes the view a session if it is none.
func (v *view[T]) begin() {
	if !v.exists {
		v.exists, v.renewed = true, true
	}
}

// load returns what the request has to do with its session, which may be that
// nothing works.
func (s *Session[T]) load() (*visit[T], error) { return s.loadIn(s.parent) }

// loadIn is load with a context for what it reads. Where that fails the response
// says so, unless it has begun: then the next call asks again.
func (s *Session[T]) loadIn(ctx context.Context) (*visit[T], error) {
	v := s.visit
	if v == nil {
		if v = s.m.visit(ctx, s.r.Header); v.failed == nil || !s.committed {
			s.visit = v
		}
	}
	return v, v.failed
}

// change carries out o, at once if the response has begun: then there must be a
// session, unless o is what ends it.
func (s *Session[T]) change(o op[T], ends bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := s.parent, context.CancelFunc(func() {})
	if s.committed { // what it reads is as much part of it as the save
		ctx, cancel = saving(ctx)
	}
	asked := time.Now()
	v, err := s.loadIn(ctx)
	cancel()
	if err != nil {
		return err
	}
	left := commitTimeout - time.Since(asked) // the function has its own time
	if !s.committed {
		return v.apply(o)
	}
	if v.base == nil && !ends {
		return ErrCommitted
	}
	if err := v.apply(o); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(s.parent), left)
	defer cancel()
	_, err = v.save(ctx, time.Now())
	return err
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
