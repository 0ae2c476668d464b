package session

import (
	"context"
	"net/http"
	"time"

	"example.com/plainware/internal/cookieattr"
	"example.com/plainware/internal/problem"
)

const (
	// commitTimeout bounds the save, which the end of the request's context
	// does not: a Logout is carried out also when the browser does not wait for
	// the answer, and net/http may end the context of one that does.
	commitTimeout = 5 * time.Second
)

// saving returns the context of a save in a request that has ctx.
func saving(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
}

// committer is a Session as the owner of its response's writer.
type committer[T any] Session[T]

// BeforeCommit is called when the response begins, before its header is sent.
func (c *committer[T]) BeforeCommit(status int) error {
	s := (*Session[T])(c)
	err := s.commit(status)
	if err == nil {
		return nil
	}
	w := s.writer.Unwrap()
	h := w.Header()
	// What the handler wanted to say of a session that it has not got.
	delete(h, "Set-Cookie")
	delete(h, "Location")
	// Who may keep the page was said of the page, and so was what it consists
	// of. The targeted fields would overrule the no-store of an error.
	delete(h, "Cache-Control")
	untarget(h)
	problem.DeleteRepresentation(h)
	if s.r.ProtoMajor == 1 && s.r.Body != nil && s.r.Body != http.NoBody && s.r.ContentLength != 0 {
		h["Connection"] = []string{"close"} // the body may not have been read
	}
	s.m.refuse(w, s.r, err)
	return err
}

func (s *Session[T]) commit(status int) error {
	s.mu.Lock()
	s.committed = true
	v := s.visit
	if v == nil { // as for most requests, which this must not slow down
		s.mu.Unlock()
		return nil
	}
	defer s.mu.Unlock()
	h := s.writer.Header()
	addVary(h)
	if v.failed != nil {
		return v.failed
	}
	// On a hijacked connection it is up to the handler to send the header, and
	// a client that went away would not get it.
	rotates := status != http.StatusSwitchingProtocols && s.parent.Err() == nil
	var line string
	if line, v.failed = v.settle(s.parent, rotates); line != "" {
		v.m.cookie.Put(h, line)
		keepPrivate(h)
	}
	return v.failed
}

// settle saves what the request did, and returns the Set-Cookie line that this
// takes, or "".
func (v *visit[T]) settle(ctx context.Context, rotates bool) (string, error) {
	now := time.Now()
	reads := len(v.ops) == 0
	if rotates && v.due(now) {
		if err := v.apply(rotate[T]); err != nil {
			return "", err
		}
	}
	if len(v.ops) == 0 && (v.base == nil || !v.m.stale(&v.base.rec, now)) {
		return "", nil
	}
	ctx, cancel := saving(ctx)
	defer cancel()
	ended := v.view.fate == dropped
	id, err := v.save(ctx, now)
	switch {
	case err != nil && reads:
		// A use or a new id that cannot be written is no reason to refuse a request
		// that only reads. The next one tries again.
		v.unused(ctx, err)
	case err != nil:
		return "", err
	case id != "":
		return v.m.line(id, &v.base.rec, now), nil
	case ended && v.brought:
		return v.m.cookie.Deletion(), nil
	}
	return "", nil
}

// due reports whether RotateEvery wants a new id.
func (v *visit[T]) due(now time.Time) bool {
	return v.m.rotateEvery > 0 && v.base != nil && now.Sub(time.Unix(0, v.base.rec.issued)) >= v.m.rotateEvery
}

// stale reports whether the last use is to be written. One in the future, by
// another clock, counts by its distance too.
func (m *Manager[T]) stale(r *record, now time.Time) bool {
	return m.idle > 0 && now.Sub(time.Unix(0, r.seen)).Abs() >= m.idle/10
}

// line returns the Set-Cookie line of a new id.
func (m *Manager[T]) line(id string, r *record, now time.Time) string {
	var maxAge int64
	if m.persistent {
		maxAge = cookieattr.MaxAgeLimit
		if d := m.deadline(r); d != 0 {
			maxAge = max(1, int64(time.Duration(d-now.UnixNano())/time.Second))
		}
	}
	return string(m.cookie.AppendString(make([]byte, 0, m.cookie.Overhead()+len(id)), id, maxAge))
}
