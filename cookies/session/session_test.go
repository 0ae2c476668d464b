package session_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

func TestLifeCycle(t *testing.T) {
	m := newManager(t, session.Config[cart]{})
	b := newBrowser(t, m)
	b.wantNone()
	if b.cookie != "" {
		t.Errorf("reading sets a cookie: %q", b.cookie)
	}
	res := b.add("pen")
	if got, want := res.Header.Get("Set-Cookie"), b.cookie+"; Path=/; HttpOnly; Secure; SameSite=Lax"; got != want {
		t.Errorf("Set-Cookie %q, want %q", got, want)
	}
	if !strings.HasPrefix(b.cookie, "__Host-Http-sid=") || len(b.id()) != 43 {
		t.Errorf("cookie %q", b.cookie)
	}
	if res := b.add("ink"); res.Header["Set-Cookie"] != nil {
		t.Errorf("an update of a session sets a cookie: %q", res.Header["Set-Cookie"])
	}
	b.wantItems("pen", "ink")
	b.login("ann")
	b.wantItems("pen", "ink")
	if got := b.load().user; got != "ann" {
		t.Errorf("user %q", got)
	}
	res = b.logout()
	if got, want := res.Header.Get("Set-Cookie"), "__Host-Http-sid=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax"; got != want {
		t.Errorf("Set-Cookie %q, want %q", got, want)
	}
	if b.cookie != "" {
		t.Errorf("cookie %q after Logout", b.cookie)
	}
	b.wantNone()
}

// Who has no cookie needs none deleted.
func TestLogoutOfNobody(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	if res := b.logout(); res.Header["Set-Cookie"] != nil {
		t.Errorf("Set-Cookie %q", res.Header["Set-Cookie"])
	}
	dead := b.with("__Host-Http-sid=dead")
	if res := dead.logout(); res.Header["Set-Cookie"] == nil || dead.cookie != "" {
		t.Errorf("cookie %q after Logout", dead.cookie)
	}
}

// What a request does to its session it sees at once, whatever the order.
func TestWithinOneRequest(t *testing.T) {
	m := newManager(t, session.Config[cart]{})
	set := func(theme string) func(*cart) error {
		return func(c *cart) error { c.Theme = theme; c.Count++; return nil }
	}
	for _, c := range []struct {
		name string
		do   func(*session.Session[cart]) []error
		want state
	}{
		{"update twice", func(s *session.Session[cart]) []error {
			return []error{s.Update(set("a")), s.Update(set("b"))}
		}, state{exists: true, user: "ann", cart: cart{Theme: "b", Count: 3}}},
		{"logout", func(s *session.Session[cart]) []error {
			return []error{s.Update(set("a")), s.Logout()}
		}, state{}},
		{"logout and update", func(s *session.Session[cart]) []error {
			return []error{s.Logout(), s.Update(set("c"))}
		}, state{exists: true, cart: cart{Theme: "c", Count: 1}}},
		{"logout and login", func(s *session.Session[cart]) []error {
			return []error{s.Logout(), s.Login("bob"), s.Update(set("c"))}
		}, state{exists: true, user: "bob", cart: cart{Theme: "c", Count: 1}}},
		{"login again", func(s *session.Session[cart]) []error {
			return []error{s.Login("ann"), s.Update(set("d")), s.Rotate()}
		}, state{exists: true, user: "ann", cart: cart{Theme: "d", Count: 2}}},
		{"login as another", func(s *session.Session[cart]) []error {
			return []error{s.Update(set("e")), s.Login("bob")}
		}, state{exists: true, user: "bob"}},
		{"rotate and login", func(s *session.Session[cart]) []error {
			return []error{s.Rotate(), s.Login("ann")}
		}, state{exists: true, user: "ann", cart: cart{Theme: "0", Count: 1}}},
		{"rotate and update", func(s *session.Session[cart]) []error {
			return []error{s.Rotate(), s.Update(set("f"))}
		}, state{exists: true, user: "ann", cart: cart{Theme: "f", Count: 2}}},
		{"login and logout", func(s *session.Session[cart]) []error {
			return []error{s.Login("bob"), s.Update(set("g")), s.Logout()}
		}, state{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBrowser(t, m)
			b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				must(t, s.Login("ann"))
				must(t, s.Update(set("0")))
			})
			same := func(got state) bool {
				return got.exists == c.want.exists && got.user == c.want.user && got.Theme == c.want.Theme && got.Count == c.want.Count
			}
			b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				if err := errors.Join(c.do(s)...); err != nil {
					t.Error(err)
				}
				if got := read(t, s); !same(got) {
					t.Errorf("the request sees %+v, want %+v", got, c.want)
				}
			})
			if got := b.load(); !same(got) {
				t.Errorf("the next request sees %+v, want %+v", got, c.want)
			}
		})
	}
}

// A function that fails changes nothing, whatever it has done to the value
// before, and so does one that does nothing.
func TestUpdateFails(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, MaxSize: 64}))
	b.add("pen")
	refused := errors.New("refused")
	_, writes := st.counts(func() {
		b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			if err := s.Update(func(c *cart) error { c.Items[0] = "gold"; return refused }); err != refused {
				t.Errorf("error %v", err)
			}
			err := s.Update(func(c *cart) error { c.Theme = strings.Repeat("x", 65); return nil })
			if !errors.Is(err, session.ErrTooLarge) {
				t.Errorf("error %v, want ErrTooLarge", err)
			}
			must(t, s.Update(func(c *cart) error { return nil }))
			if got := read(t, s); got.Items[0] != "pen" || got.Theme != "" {
				t.Errorf("%+v", got)
			}
		})
	})
	if writes != 0 {
		t.Errorf("%d writes for nothing", writes)
	}
	b.wantItems("pen")
}

// Without a MaxSize it is the store that finds a value too large. It is not down
// for that.
func TestTooLargeForStore(t *testing.T) {
	mem, err := store.NewMemory(store.MemoryConfig{Registers: 64, MaxBytes: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: mem, MaxSize: -1}))
	fill := func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Update(func(c *cart) error { c.Theme = strings.Repeat("x", 3<<20); return nil }))
	}
	wantProblem(t, b.send(fill), 500, "session_too_large")
	b.add("pen")
	wantProblem(t, b.send(fill), 500, "session_too_large")
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		w.Write(nil)
		err := s.Update(func(c *cart) error { c.Theme = strings.Repeat("x", 3<<20); return nil })
		if !errors.Is(err, session.ErrTooLarge) || errors.Is(err, session.ErrUnavailable) {
			t.Errorf("Update in a stream: %v", err)
		}
	})
	b.wantItems("pen")
}

// What a handler does to the value that Load gave it is its own affair.
func TestLoadedValueIsNotStored(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	b.add("pen")
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		c, err := s.Load()
		must(t, err)
		c.Items[0] = "gold"
		must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
	})
	b.wantItems("pen")
}

// cookies 24: the id is nowhere in the store, in no spelling.
func TestIDIsNotInStore(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	ids := []string{b.id()}
	b.login("ann")
	ids = append(ids, b.id())
	b.rotate()
	ids = append(ids, b.id())
	all := st.dump(t)
	if len(all) != 2 { // the record and the alias
		t.Errorf("%d values in the store", len(all))
	}
	for key, value := range all {
		if !strings.HasPrefix(key, "plainware/session/1/test/") {
			t.Errorf("key %q", key)
		}
		for _, id := range ids {
			for _, form := range spellings(t, id) {
				if strings.Contains(key, string(form)) || bytes.Contains(value, form) {
					t.Errorf("id %q is in %q: %q", id, key, value)
				}
			}
		}
	}
}

// cookies 25: an id that somebody else has made never becomes that of a session.
func TestChosenID(t *testing.T) {
	for _, chosen := range []string{
		strings.Repeat("A", 43), "admin", "", strings.Repeat("A", 44), strings.Repeat("A", 42) + "B",
		strings.Repeat("A", 42) + "\n", `"` + strings.Repeat("A", 43) + `"`,
	} {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st})).with("__Host-Http-sid=" + chosen)
		b.wantNone()
		b.add("pen")
		if b.id() == chosen || len(b.id()) != 43 {
			t.Errorf("id %q for %q", b.id(), chosen)
		}
		if n := len(st.dump(t)); n != 1 {
			t.Errorf("%d values in the store", n)
		}
		b.with("__Host-Http-sid=" + chosen).wantNone()
	}
}

// cookies 32: a request that reads its session within Idle/10 writes nothing.
func TestReadOnlyWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
		b.login("ann")
		time.Sleep(3*time.Minute - 1)
		reads, writes := st.counts(func() { b.load() })
		if reads != 2 || writes != 0 { // the record and the user's mark
			t.Errorf("%d reads and %d writes, want 2 and 0", reads, writes)
		}
		time.Sleep(time.Nanosecond)
		for i, want := range []int64{1, 0} {
			if _, writes := st.counts(func() { b.load() }); writes != want {
				t.Errorf("request %d after Idle/10: %d writes, want %d", i, writes, want)
			}
		}
	})
}

// cookies 32: a request that never touches the session reads nothing and adds
// no Vary.
func TestUntouched(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	var res *http.Response
	reads, writes := st.counts(func() {
		res = b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			if id := s.LogID(); id != "" {
				t.Errorf("LogID %q", id)
			}
			w.Write([]byte("hello"))
		})
	})
	if reads+writes != 0 || len(res.Header["Vary"]) != 0 || len(res.Header["Set-Cookie"]) != 0 || len(res.Header["Cache-Control"]) != 0 {
		t.Errorf("%d reads, %d writes, header %v", reads, writes, res.Header)
	}

	// And one without a cookie does not read for having none.
	b.cookie = ""
	reads, writes = st.counts(func() {
		res = b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { read(t, s) })
	})
	if reads+writes != 0 {
		t.Errorf("%d reads, %d writes without a cookie", reads, writes)
	}
	if res.Header.Get("Vary") != "Cookie" {
		t.Errorf("Vary %q: a response without a session depends on that", res.Header["Vary"])
	}
}
