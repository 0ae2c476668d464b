package session

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"example.com/plainware/cookies"
	"example.com/plainware/internal/cookieattr"
	"example.com/plainware/internal/respwriter"
	"example.com/plainware/store"
)

// Manager keeps the sessions of one Name. It is safe for concurrent use, and
// one can wrap any number of handlers.
type Manager[T any] struct {
	store store.Store
	kept  store.Store // the view that keeps; store itself with NoRevokeUser

	sessions string // key prefix of records and aliases
	marks    string // key prefix of users' marks; "" with NoRevokeUser

	cookie      *cookieattr.Cookie
	persistent  bool
	idle        time.Duration // 0: no limit, and so with the others
	absolute    time.Duration
	grace       time.Duration
	rotateEvery time.Duration
	destroy     bool
	codec       cookies.Codec[T]
	maxSize     int
	refuse      func(http.ResponseWriter, *http.Request, error)
	log         *slog.Logger
}

// New returns a Manager. The error lists every field that is wrong.
func New[T any](c Config[T]) (*Manager[T], error) {
	cookie, err := c.fill()
	if err != nil {
		return nil, err
	}
	m := &Manager[T]{
		store: c.Store, kept: c.Store,
		sessions: keySpace + c.Name + "/",
		cookie:   cookie, persistent: c.Persistent,
		idle: c.Idle, absolute: c.Absolute, grace: c.Grace, rotateEvery: c.RotateEvery,
		destroy: c.DestroyOnReuse, codec: c.Codec, maxSize: c.MaxSize,
		refuse: c.ErrorHandler, log: c.Logger,
	}
	if !c.NoRevokeUser {
		if m.kept, err = store.Keep(c.Store); err != nil {
			return nil, fmt.Errorf("session: Store: cannot keep what RevokeUser leaves there; see NoRevokeUser: %w", err)
		}
		m.marks = m.sessions + "user/"
	}
	return m, nil
}

// Handler returns a handler that passes requests to next with a session in
// their context. It panics if next is nil.
func (m *Manager[T]) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("session: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.serve(next, w, r)
	})
}

func (m *Manager[T]) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s := &Session[T]{m: m, parent: r.Context()}
	inner := r.WithContext((*requestContext[T])(s))
	s.r = inner
	s.writer = respwriter.Make(w, inner, (*committer[T])(s))

	// Deferred, so that whoever recovers from a panic of next sees the pattern,
	// and the server finds the temporary files that it has to remove.
	defer func() {
		r.Pattern = inner.Pattern
		if r.MultipartForm == nil {
			r.MultipartForm = inner.MultipartForm
		}
	}()
	next.ServeHTTP(s.writer.Form(), inner)
	s.writer.Finish()
}

// From returns the session of the request that ctx belongs to, and whether m
// itself has handled that request. The session need not exist in the store: it
// is what the request has, or may get.
func (m *Manager[T]) From(ctx context.Context) (*Session[T], bool) {
	s, ok := ctx.Value(m).(*Session[T])
	return s, ok
}

// MustFrom is From for handlers that are never reached but through
// [Manager.Handler]. It panics if ctx has no session of m.
func (m *Manager[T]) MustFrom(ctx context.Context) *Session[T] {
	s, ok := m.From(ctx)
	if !ok {
		panic("session: MustFrom: the request did not come through Handler")
	}
	return s
}

// FromContext returns the innermost session in ctx that holds a T, whichever
// Manager it is of.
func FromContext[T any](ctx context.Context) (*Session[T], bool) {
	s, ok := ctx.Value(innermost[T]{}).(*Session[T])
	return s, ok
}

// NewContext returns a copy of ctx with a session of m that is in memory only,
// for tests of handlers: it holds value, and belongs to userID unless that is
// empty. All its methods work, and nothing is ever stored. It panics if the
// Codec cannot encode value.
func (m *Manager[T]) NewContext(ctx context.Context, userID string, value T) context.Context {
	payload, err := m.encode(value)
	if err != nil {
		panic(err)
	}
	return (*requestContext[T])(&Session[T]{m: m, parent: ctx, visit: &visit[T]{
		m: m, view: view[T]{exists: true, user: userID, value: value, payload: payload}, fresh: newID(),
	}})
}

// requestContext is a Session as the context of its request, which takes no
// memory of its own.
type requestContext[T any] Session[T]

func (c *requestContext[T]) Deadline() (time.Time, bool) { return c.parent.Deadline() }
func (c *requestContext[T]) Done() <-chan struct{}       { return c.parent.Done() }
func (c *requestContext[T]) Err() error                  { return c.parent.Err() }

type innermost[T any] struct{}

// Value returns the session for the package's key and for that of its Manager.
func (c *requestContext[T]) Value(key any) any {
	switch key := key.(type) {
	case innermost[T]:
		return (*Session[T])(c)
	case *Manager[T]:
		if key == c.m {
			return (*Session[T])(c)
		}
	}
	return c.parent.Value(key)
}

// encode returns the bytes of a value.
func (m *Manager[T]) encode(v T) ([]byte, error) {
	b, err := m.codec.Append(nil, v)
	if err != nil {
		return nil, fmt.Errorf("session: Codec: %w", err)
	}
	if m.maxSize > 0 && len(b) > m.maxSize {
		return nil, because(ErrTooLarge, fmt.Errorf("%d bytes, and MaxSize is %d", len(b), m.maxSize))
	}
	return b, nil
}

// decode returns the value of bytes that encode made. The Codec gets a copy: it
// may keep what it is given, and b is what a compare-and-swap compares.
func (m *Manager[T]) decode(b []byte) (v T, err error) {
	if len(b) == 0 {
		return v, nil
	}
	return m.codec.Decode(slices.Clone(b))
}

// sessionKey returns the key of the session whose id has this hash.
func (m *Manager[T]) sessionKey(hash [sha256.Size]byte) string { return key(m.sessions, hash) }

// deadline is when a session ends however it is used: as it was promised, or
// as Absolute has it now if that is sooner. 0 is never.
func (m *Manager[T]) deadline(r *record) int64 {
	d := r.deadline
	if m.absolute > 0 {
		if now := r.created + int64(m.absolute); d == 0 || now < d {
			d = now
		}
	}
	return d
}

// ttl is how long the store has to keep the record. It is never 0, which would
// be for ever.
func (m *Manager[T]) ttl(r *record, now time.Time) time.Duration {
	d := m.deadline(r)
	if d == 0 {
		return m.idle // which has a limit, since Absolute has none
	}
	left := max(time.Duration(d-now.UnixNano()), time.Millisecond)
	if m.idle > 0 {
		return min(m.idle, left)
	}
	return left
}
