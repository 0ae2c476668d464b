package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// Shop is what the sessions of the examples hold.
type Shop struct {
	Cart  []string `json:"cart"`
	Flash []string `json:"flash,omitempty"`
}

func newShop(c session.Config[Shop]) *session.Manager[Shop] {
	st, err := store.NewMemory(store.MemoryConfig{}) // or sqlitestore, redisstore, pgstore
	if err != nil {
		log.Fatal(err)
	}
	c.Store, c.Name = st, "shop"
	sess, err := session.New(c)
	if err != nil {
		log.Fatal(err)
	}
	return sess
}

// client sends requests one after another, with the cookie that it has got.
func client(h http.Handler) func(path string) string {
	var cookie string
	return func(path string) string {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if set := w.Header().Get("Set-Cookie"); set != "" {
			cookie, _, _ = strings.Cut(set, ";")
		}
		return strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body))
	}
}

// A shop whose visitors have a cart before they log in, and keep it when they
// do.
func Example() {
	sess := newShop(session.Config[Shop]{})

	mux := http.NewServeMux()
	mux.HandleFunc("/add", func(w http.ResponseWriter, r *http.Request) {
		sess.MustFrom(r.Context()).Update(func(s *Shop) error {
			s.Cart = append(s.Cart, r.FormValue("item"))
			return nil
		})
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		// Once the password was right:
		if err := sess.MustFrom(r.Context()).Login(r.FormValue("name")); err != nil {
			http.Error(w, "no such name", http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		sess.MustFrom(r.Context()).Logout()
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		shop, err := s.Load()
		if err != nil {
			return // the answer is a 503 by now
		}
		user, _ := s.UserID() // whatever fails has failed in Load
		fmt.Fprintf(w, "%q has %q", user, shop.Cart)
	})

	get := client(sess.Handler(mux))
	get("/add?item=pen")
	fmt.Println(get("/"))
	get("/login?name=ann")
	get("/add?item=ink")
	fmt.Println(get("/"))
	get("/logout")
	fmt.Println(get("/"))

	// Output:
	// 200 "" has ["pen"]
	// 200 "ann" has ["pen" "ink"]
	// 200 "" has []
}

// The cookie is as safe as a browser can make it, and the response is kept out
// of caches.
func ExampleNew() {
	st, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	sess, err := session.New(session.Config[Shop]{Store: st, Name: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	h := sess.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess.MustFrom(r.Context()).Login("ann")
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/login", nil))
	name, rest, _ := strings.Cut(w.Header().Get("Set-Cookie"), "=")
	_, attributes, _ := strings.Cut(rest, "; ")
	fmt.Println(name)
	fmt.Println(attributes)
	fmt.Println(w.Header().Get("Cache-Control"), "|", w.Header().Get("Vary"))
	// Output:
	// __Host-Http-sid
	// Path=/; HttpOnly; Secure; SameSite=Lax
	// no-store | Cookie
}

// All that is wrong is said at once.
func ExampleNew_errors() {
	_, err := session.New(session.Config[Shop]{Name: "my shop", Domain: "shop.example", Partitioned: true})
	fmt.Println(err)
	// Output:
	// session: Store: is required (got nil)
	// session: Name: must be 1 to 64 letters, digits, dots, dashes and underscores (got "my shop")
	// session: Domain: must be empty for a name with the prefix __Host-Http- (got "shop.example")
}

// A value that is text needs no JSON.
func ExampleNew_codec() {
	st, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	sess, err := session.New(session.Config[string]{Store: st, Name: "theme", Codec: cookies.String()})
	if err != nil {
		log.Fatal(err)
	}
	get := client(sess.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		if theme := r.FormValue("theme"); theme != "" {
			s.Update(func(t *string) error { *t = theme; return nil })
		}
		theme, _ := s.Load()
		io.WriteString(w, theme)
	})))
	fmt.Println(get("/?theme=dark"))
	fmt.Println(get("/"))
	// Output:
	// 200 dark
	// 200 dark
}

// Update says what is to change, not what the result is to be: it may be called
// again, on what another request has left. An error leaves all as it was.
func ExampleSession_Update() {
	sess := newShop(session.Config[Shop]{})
	errFull := errors.New("the cart is full")
	get := client(sess.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		err := s.Update(func(s *Shop) error {
			if len(s.Cart) == 2 {
				return errFull
			}
			s.Cart = append(s.Cart, "pen")
			return nil
		})
		if errors.Is(err, errFull) {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})))
	fmt.Println(get("/"))
	fmt.Println(get("/"))
	fmt.Println(get("/"))
	// Output:
	// 200
	// 200
	// 409 the cart is full
}

// Messages that are shown once. Who has no session has none, and gets no session
// for asking.
func ExampleSession_Exists() {
	sess := newShop(session.Config[Shop]{})
	mux := http.NewServeMux()
	mux.HandleFunc("/add", func(w http.ResponseWriter, r *http.Request) {
		sess.MustFrom(r.Context()).Update(func(s *Shop) error {
			s.Flash = append(s.Flash, "It is in your cart.")
			return nil
		})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		if exists, err := s.Exists(); err != nil || !exists {
			return
		}
		var messages []string
		err := s.Update(func(s *Shop) error {
			messages, s.Flash = s.Flash, nil // set and not added to: it may be called again
			return nil
		})
		if err == nil {
			fmt.Fprintf(w, "%q", messages)
		}
	})
	h := sess.Handler(mux)
	get := client(h)
	get("/add")
	fmt.Println(get("/"))
	fmt.Println(get("/"))

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Header()["Set-Cookie"])
	// Output:
	// 200 ["It is in your cart."]
	// 200 []
	// []
}

// A page for those who are logged in. An outage of the store is neither of the
// two answers.
func ExampleSession_UserID() {
	sess := newShop(session.Config[Shop]{})
	get := client(sess.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch user, err := sess.MustFrom(r.Context()).UserID(); {
		case err != nil:
			// the answer is a 503 by now
		case user == "":
			http.Error(w, "log in first", http.StatusUnauthorized)
		default:
			fmt.Fprintln(w, "hello,", user)
		}
	})))
	fmt.Println(get("/"))
	// Output:
	// 401 log in first
}

// After a change of password all sessions of the user are ended but the one that
// asks, which begins anew.
func ExampleManager_RevokeUser() {
	sess := newShop(session.Config[Shop]{})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		sess.MustFrom(r.Context()).Login("ann")
	})
	mux.HandleFunc("/password", func(w http.ResponseWriter, r *http.Request) {
		if err := sess.RevokeUser(r.Context(), "ann"); err != nil {
			session.WriteError(w, r, err)
			return
		}
		sess.MustFrom(r.Context()).Login("ann")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		user, _ := sess.MustFrom(r.Context()).UserID()
		fmt.Fprintf(w, "%q", user)
	})
	h := sess.Handler(mux)
	phone, laptop := client(h), client(h)
	phone("/login")
	laptop("/login")
	laptop("/password")
	fmt.Println("phone: ", phone("/"))
	fmt.Println("laptop:", laptop("/"))
	// Output:
	// phone:  200 ""
	// laptop: 200 "ann"
}

// Rotate and Logout, and the names of sessions in logs.
func ExampleSession_Rotate() {
	sess := newShop(session.Config[Shop]{})
	var ids []string
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		s.Login("ann")
		ids = append(ids, s.LogID())
	})
	mux.HandleFunc("/rotate", func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		s.Rotate()
		ids = append(ids, s.LogID())
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		s.Logout()
		ids = append(ids, s.LogID())
	})
	get := client(sess.Handler(mux))
	get("/login")
	get("/rotate")
	get("/logout")
	fmt.Println(len(ids[0]), len(ids[1]), ids[0] != ids[1], ids[2] == "")
	// Output:
	// 16 16 true true
}

// Code that serves several managers, or none, asks whether there is a session.
func ExampleFromContext() {
	sess := newShop(session.Config[Shop]{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, ok := session.FromContext[Shop](r.Context())
		if !ok {
			io.WriteString(w, "no sessions here")
			return
		}
		exists, _ := s.Exists()
		fmt.Fprint(w, exists)
	})
	fmt.Println(client(h)("/"))
	fmt.Println(client(sess.Handler(h))("/"))
	// Output:
	// 200 no sessions here
	// 200 false
}

// A handler is tested without a cookie and without a store.
func ExampleManager_NewContext() {
	sess := newShop(session.Config[Shop]{})
	checkout := func(w http.ResponseWriter, r *http.Request) {
		s := sess.MustFrom(r.Context())
		s.Update(func(s *Shop) error { s.Cart = nil; return nil })
	}

	ctx := sess.NewContext(context.Background(), "ann", Shop{Cart: []string{"pen"}})
	checkout(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "POST", "/checkout", nil))
	shop, err := sess.MustFrom(ctx).Load()
	fmt.Println(len(shop.Cart), err)
	// Output:
	// 0 <nil>
}

// A store that fails is answered for the handler; here in words of one's own.
func ExampleWriteError() {
	down, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	sess, err := session.New(session.Config[Shop]{
		Store: down, Name: "shop",
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, session.ErrUnavailable) {
				w.Header().Set("Retry-After", "5")
			}
			session.WriteError(w, r, err)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	down.Close()
	get := client(sess.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess.MustFrom(r.Context()).Login("ann")
		io.WriteString(w, "welcome") // is not sent
	})))
	fmt.Println(get("/"))
	// Output:
	// 503 {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Sessions are not available at the moment.","code":"session_unavailable"}
}
