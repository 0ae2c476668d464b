package targets

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alexedwards/scs/v2"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// account is what a session of somebody who is logged in holds; the names of
// its fields are the keys with scs.
type account struct {
	Name  string
	Theme string
	Cart  []string
}

var loggedIn = account{Name: "Ann Example", Theme: "dark", Cart: []string{"sku-1001", "sku-2002", "sku-3003"}}

const accountID = "0195f180-2939-7bc4-bffe-838eb3c62526"

func sessionMeasures() []Measure {
	ours := must(session.New(session.Config[account]{Store: must(store.NewMemory(store.MemoryConfig{})), Name: "bench"}))
	once := must(session.New(session.Config[account]{
		Store: must(store.NewMemory(store.MemoryConfig{})), Name: "bench", NoRevokeUser: true,
	}))
	theirs := scs.New()
	idle := scs.New()
	idle.IdleTimeout = idle.Lifetime

	return []Measure{
		{
			Package: "cookies/session", Name: "read-only request",
			Ours: reading(ours), MaxAllocs: 40,
			Peers: []Peer{
				{Name: "scs", Run: readingSCS(theirs), MaxRatio: 0.35},
				{Name: "scs with IdleTimeout", Run: readingSCS(idle)},
			},
		},
		{
			Package: "cookies/session", Name: "read-only request, NoRevokeUser",
			Ours:  reading(once),
			Peers: []Peer{{Name: "scs", Run: readingSCS(theirs), MaxRatio: 0.35}},
		},
		{
			Package: "cookies/session", Name: "session not used",
			Ours: untouched(ours.Handler), MaxAllocs: 3,
			Peers: []Peer{
				{Name: "bare WithContext", Run: untouched(withContext), MaxRatio: 1.5},
				{Name: "scs", Run: untouched(theirs.LoadAndSave)},
			},
		},
	}
}

// cookieOf serves one request and returns the cookie that it sets.
func cookieOf(h http.Handler) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get("https://x/login"))
	c := w.Result().Cookies()[0]
	return c.Name + "=" + c.Value
}

// reading is a request that asks who is logged in, and for the value.
func reading(m *session.Manager[account]) func(*testing.B) {
	cookie := cookieOf(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.MustFrom(r.Context())
		if err := s.Login(accountID); err != nil {
			panic(err)
		}
		if err := s.Update(func(a *account) error { *a = loggedIn; return nil }); err != nil {
			panic(err)
		}
	})))
	return again(cookie, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.MustFrom(r.Context())
		user, err := s.UserID()
		if err != nil || user != accountID {
			panic("not logged in")
		}
		if a, err := s.Load(); err != nil || len(a.Cart) != 3 {
			panic("another value")
		}
	})))
}

func readingSCS(m *scs.SessionManager) func(*testing.B) {
	cookie := cookieOf(m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Put(r.Context(), "ID", accountID)
		m.Put(r.Context(), "Name", loggedIn.Name)
		m.Put(r.Context(), "Theme", loggedIn.Theme)
		m.Put(r.Context(), "Cart", loggedIn.Cart)
	})))
	return again(cookie, m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if m.GetString(ctx, "ID") != accountID {
			panic("not logged in")
		}
		a := account{Name: m.GetString(ctx, "Name"), Theme: m.GetString(ctx, "Theme")}
		a.Cart, _ = m.Get(ctx, "Cart").([]string)
		if len(a.Cart) != 3 || a.Name == "" {
			panic("another value")
		}
	})))
}

// again sends the same request with a cookie again and again.
func again(cookie string, h http.Handler) func(*testing.B) {
	r := get("https://x/u/1")
	r.Header.Set("Cookie", cookie)
	w := &nullWriter{header: http.Header{}}
	return serial(func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	})
}

func untouched(wrap func(http.Handler) http.Handler) func(*testing.B) {
	h := wrap(nothing)
	r := get("https://x/u/1")
	w := &nullWriter{header: http.Header{}}
	return serial(func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	})
}

type bareKey struct{}

// withContext is the least that a middleware with a value in the context does.
func withContext(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), bareKey{}, w)))
	})
}
