// Package session tests cookies/session with real servers, with real processes,
// and beside scs.
package session

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/alexedwards/scs/v2"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// shop is what the sessions hold.
type shop struct {
	Items []string `json:"items"`
}

// manager is what both libraries do for the tests below.
type manager struct {
	wrap   func(http.Handler) http.Handler
	login  func(r *http.Request) error
	visit  func(r *http.Request) error // changes the session
	logout func(r *http.Request) error
	user   func(r *http.Request) string
}

func ours(t *testing.T) manager {
	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := session.New(session.Config[shop]{Store: mem, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	from := func(r *http.Request) *session.Session[shop] { return m.MustFrom(r.Context()) }
	return manager{
		wrap:   m.Handler,
		login:  func(r *http.Request) error { return from(r).Login("ann") },
		logout: func(r *http.Request) error { return from(r).Logout() },
		visit: func(r *http.Request) error {
			return from(r).Update(func(s *shop) error { s.Items = append(s.Items, "pen"); return nil })
		},
		user: func(r *http.Request) string {
			user, err := from(r).UserID()
			if err != nil {
				t.Error(err)
			}
			return user
		},
	}
}

func theirs(*testing.T) manager {
	m := scs.New()
	return manager{
		wrap:   m.LoadAndSave,
		login:  func(r *http.Request) error { m.Put(r.Context(), "user", "ann"); return nil },
		logout: func(r *http.Request) error { return m.Destroy(r.Context()) },
		visit:  func(r *http.Request) error { m.Put(r.Context(), "item", "pen"); return nil },
		user:   func(r *http.Request) string { return m.GetString(r.Context(), "user") },
	}
}

var libraries = []struct {
	name   string
	open   func(*testing.T) manager
	defect bool // has the defects of these tests, as of its pinned version
}{{"plainware", ours, false}, {"scs", theirs, true}}

// serve runs a server with m around h, and returns what sends it a request with
// a cookie and returns the one that the response sets, or "", and the body.
func serve(t *testing.T, m manager, h http.HandlerFunc) func(path, cookie string) (set, body string) {
	s := httptest.NewServer(m.wrap(h))
	t.Cleanup(s.Close)
	return func(path, cookie string) (set, body string) {
		r, err := http.NewRequest("GET", s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", cookie)
		res, err := s.Client().Do(r)
		if err != nil {
			t.Error(err)
			return "", ""
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		set, _, _ = strings.Cut(res.Header.Get("Set-Cookie"), ";")
		return set, string(b)
	}
}

// A request that has changed its session and is still running when another one
// logs out: with scs v2.9.0 it brings the session back, the user's id included.
func TestLogoutDuringRequest(t *testing.T) {
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			m := lib.open(t)
			begun, proceed := make(chan struct{}), make(chan struct{})
			send := serve(t, m, func(w http.ResponseWriter, r *http.Request) {
				var err error
				switch r.URL.Path {
				case "/login":
					err = m.login(r)
				case "/logout":
					err = m.logout(r)
				case "/slow":
					err = m.visit(r)
					close(begun)
					<-proceed
				case "/":
					io.WriteString(w, m.user(r))
				}
				if err != nil {
					t.Error(err)
				}
			})
			cookie, _ := send("/login", "")
			if _, user := send("/", cookie); user != "ann" {
				t.Fatalf("user %q after the login", user)
			}
			slow := make(chan struct{})
			go func() {
				defer close(slow)
				send("/slow", cookie)
			}()
			<-begun
			send("/logout", cookie)
			close(proceed)
			<-slow
			if _, user := send("/", cookie); (user != "") != lib.defect {
				t.Errorf("user %q after the logout", user)
			}
		})
	}
}

// Flush before the first Write, and 103 before the final status: with scs v2.9.0
// the cookie is not set.
func TestCookieIsSet(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"flush": func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
		"early hints": func(w http.ResponseWriter) {
			w.Header().Set("Link", "</style.css>; rel=preload; as=style")
			w.WriteHeader(http.StatusEarlyHints)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, lib := range libraries {
				t.Run(lib.name, func(t *testing.T) {
					m := lib.open(t)
					send := serve(t, m, func(w http.ResponseWriter, r *http.Request) {
						// Early hints go out before the handler knows more.
						if name == "early hints" {
							begin(w)
						}
						if err := m.login(r); err != nil {
							t.Error(err)
						}
						if name == "flush" {
							begin(w)
						}
						io.WriteString(w, "body")
					})
					set, body := send("/", "")
					if body != "body" || (set == "") != lib.defect {
						t.Errorf("Set-Cookie %q, body %q", set, body)
					}
				})
			}
		})
	}
}
