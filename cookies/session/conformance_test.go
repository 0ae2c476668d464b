package session_test

import (
	"net/http"
	"testing"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/store"
)

// The composition contract of the kit: with a session that nobody uses, with
// one that is read, and with one that each request creates.
func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		use    func(*session.Session[cart]) error
		header []string
	}{
		"untouched": {nil, nil},
		"read":      {func(s *session.Session[cart]) error { _, err := s.Load(); return err }, []string{"Vary"}},
		"created": {
			func(s *session.Session[cart]) error { return s.Login("ann") },
			[]string{"Vary", "Set-Cookie", "Cache-Control"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{
				New: func(t testing.TB) func(http.Handler) http.Handler {
					mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
					if err != nil {
						t.Fatal(err)
					}
					m := newManager(t, session.Config[cart]{Store: mem, RotateEvery: time.Minute})
					return func(next http.Handler) http.Handler {
						if next == nil {
							return m.Handler(nil)
						}
						return m.Handler(use{m, c.use, next})
					}
				},
				ResponseHeaders: c.header,
			})
		})
	}
}

// use uses the session before the next handler.
type use struct {
	m    *session.Manager[cart]
	do   func(*session.Session[cart]) error
	next http.Handler
}

func (u use) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u.do != nil {
		if err := u.do(u.m.MustFrom(r.Context())); err != nil {
			panic(err)
		}
	}
	u.next.ServeHTTP(w, r)
}
