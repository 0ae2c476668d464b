package session_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/session"
)

// cookies 21: a browser may send several cookies of one name. One live session
// among them is it; of two nobody knows which one was planted.
func TestDuplicateCookies(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	ann, bob := newBrowser(t, m), newBrowser(t, m)
	ann.login("ann")
	bob.login("bob")
	dead := "__Host-Http-sid=" + strings.Repeat("A", 43)
	junk := "__Host-Http-sid=junk"
	for _, c := range []struct {
		name, cookie, user string
		reads              int64
	}{
		{"alone", ann.cookie, "ann", 2},
		{"after others", "a=b; " + dead + "; x=y; " + ann.cookie, "ann", 3},
		{"before others", ann.cookie + "; " + dead + "; " + junk, "ann", 3},
		{"the same twice", ann.cookie + "; " + ann.cookie, "ann", 2},
		{"two sessions", ann.cookie + "; " + bob.cookie, "", 4},
		{"four", junk + "; " + junk + "; " + junk + "; " + ann.cookie, "ann", 2},
		{"too many", strings.Repeat(junk+"; ", 4) + ann.cookie, "", 0},
		{"other case", strings.ToLower("__Host-Http-sid") + "=" + ann.id(), "", 0},
		{"longer name", "x" + ann.cookie, "", 0},
	} {
		var got state
		reads, _ := st.counts(func() { got = ann.with(c.cookie).load() })
		if got.user != c.user || got.exists != (c.user != "") || reads != c.reads {
			t.Errorf("%s: %+v with %d reads, want user %q with %d", c.name, got, reads, c.user, c.reads)
		}
	}
}

// cookies 40: what another version of this package has written is no session,
// and no error.
func TestUnknownVersion(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	for key, value := range st.dump(t) {
		for name, change := range map[string]func([]byte) []byte{
			"version":      func(b []byte) []byte { b[0] = 2; return b },
			"version zero": func(b []byte) []byte { b[0] = 0; return b },
			"kind":         func(b []byte) []byte { b[1] = 2; return b },
			"empty":        func([]byte) []byte { return nil },
			"short":        func(b []byte) []byte { return b[:20] },
			"user length":  func(b []byte) []byte { binary.BigEndian.PutUint16(b[42:], 500); return b },
			"text":         func([]byte) []byte { return []byte("hello") },
		} {
			must(t, st.mem.Put(t.Context(), key, change(bytes.Clone(value)), 0))
			old := b.with(b.cookie)
			old.wantNone()
			res := old.add("ink")
			if res.StatusCode != 200 || old.cookie == b.cookie {
				t.Errorf("%s: %s, cookie %q", name, res.Status, old.cookie)
			}
			old.wantItems("ink")
		}
	}
}

// And neither is a value that Codec cannot read, which the log tells.
func TestUndecodable(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Update(func(c *cart) error { c.Theme = "secret"; return nil }))
	})
	log, logger := newLog()
	w := otherProgram(t, session.Config[int]{Store: st, Logger: logger})(b, func(_ http.ResponseWriter, s *session.Session[int]) {
		if n, err := s.Load(); n != 0 || err != nil {
			t.Errorf("Load: %d, %v", n, err)
		}
	})
	if w.Code != 200 || w.Header()["Set-Cookie"] != nil || !strings.Contains(log.String(), "Codec cannot read") || strings.Contains(log.String(), b.id()) || strings.Contains(log.String(), "secret") {
		t.Errorf("%d, log %s", w.Code, log)
	}
	if got := b.load(); got.Theme != "secret" {
		t.Errorf("the program that wrote it sees %+v", got)
	}
}

// An Update makes a new session of nobody beside it.
func TestUpdateUndecodable(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.login("ann")
	b.add("pen")
	w := otherProgram(t, session.Config[int]{Store: st})(b, func(_ http.ResponseWriter, s *session.Session[int]) {
		must(t, s.Update(func(n *int) error { *n++; return nil }))
		if user, err := s.UserID(); user != "" || err != nil {
			t.Errorf("UserID: %q, %v", user, err)
		}
	})
	if c := w.Header().Get("Set-Cookie"); c == "" || strings.Contains(c, b.id()) {
		t.Errorf("Set-Cookie %q", c)
	}
	b.wantItems("pen")
}

// Such a session is of the person who has the cookie all the same: Logout ends it,
// and Login replaces it.
func TestEndUndecodable(t *testing.T) {
	for name, do := range map[string]func(http.ResponseWriter, *session.Session[int]) error{
		"logout": func(w http.ResponseWriter, s *session.Session[int]) error { return s.Logout() },
		"login":  func(w http.ResponseWriter, s *session.Session[int]) error { return s.Login("ann") },
		"logout in a stream": func(w http.ResponseWriter, s *session.Session[int]) error {
			_, err := s.Exists()
			return errors.Join(err, http.NewResponseController(w).Flush(), s.Logout())
		},
	} {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
		b.login("ann")
		b.add("pen")
		numbers := otherProgram(t, session.Config[int]{Store: st})
		for _, alias := range []bool{true, false} {
			old := b.with(b.cookie)
			if alias {
				b.rotate()
			}
			w := numbers(old, func(w http.ResponseWriter, s *session.Session[int]) { must(t, do(w, s)) })
			if w.Code != 200 {
				t.Errorf("%s: status %d", name, w.Code)
			}
			b.wantNone()
			b.login("ann")
			b.add("pen")
		}
	}
}

// One that another program has taken over while a request had it is not one that
// has ended: what the request changed is no secret loss, and its Logout ends it.
func TestUndecodableMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(*session.Session[cart]) error
		status int
		left   bool
	}{
		"update": {func(s *session.Session[cart]) error { return s.Update(func(c *cart) error { c.Count++; return nil }) }, 409, true},
		"rotate": {(*session.Session[cart]).Rotate, 409, true},
		"login":  {func(s *session.Session[cart]) error { return s.Login("ann") }, 200, false},
		"logout": {(*session.Session[cart]).Logout, 200, false},
	} {
		st := newStore(t)
		numbers := otherProgram(t, session.Config[int]{Store: st})
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
		b.login("ann")
		other := b.with(b.cookie)
		res := other.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(t, c.do(s)) }, func() {
			numbers(b, func(_ http.ResponseWriter, s *session.Session[int]) {
				must(t, s.Update(func(n *int) error { *n = 7; return nil }))
			})
		})
		if res.StatusCode != c.status {
			t.Errorf("%s: %s", name, res.Status)
		}
		left := false
		numbers(b, func(_ http.ResponseWriter, s *session.Session[int]) {
			var err error
			left, err = s.Exists()
			must(t, err)
		})
		if left != c.left {
			t.Errorf("%s: the session is there: %v", name, left)
		}
		if got := other.load(); name == "login" && got.user != "ann" {
			t.Errorf("%s: session %+v", name, got)
		}
		want := 1 // it, or that of the login
		if name == "logout" {
			want = 0
		}
		if n := len(st.dump(t)); n != want {
			t.Errorf("%s: %d values in the store, want %d", name, n, want)
		}
	}
}

// cookies 21: of two live sessions neither is believed, but who logs out, or in,
// has both cookies and wants neither: all are ended, and those of others are not.
func TestEndDuplicates(t *testing.T) {
	for name, do := range map[string]func(*browser) *http.Response{
		"logout": (*browser).logout,
		"login":  func(b *browser) *http.Response { return b.login("cid") },
		"logout in a stream": func(b *browser) *http.Response {
			return b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				read(t, s)
				must(t, http.NewResponseController(w).Flush())
				must(t, s.Logout())
			})
		},
	} {
		for _, n := range []int{2, 3, 4} {
			m := newManager(t, session.Config[cart]{Insecure: true, Grace: -1})
			var live []*browser
			all := ""
			for range n {
				b := newBrowser(t, m)
				b.login("ann")
				live = append(live, b)
				all += b.cookie + "; "
			}
			// An old id whose grace is over gives nobody power over its session.
			bob := newBrowser(t, m)
			bob.login("bob")
			if n < 4 {
				all += bob.cookie
				bob.rotate()
			}
			if res := do(live[0].with(all)); res.StatusCode != 200 {
				t.Errorf("%s of %d: %s", name, n, res.Status)
			}
			for _, b := range live {
				b.wantNone()
			}
			if got := bob.load(); got.user != "bob" {
				t.Errorf("%s of %d: somebody else has %+v", name, n, got)
			}
		}
	}

	// Of too many cookies, the first four.
	m := newManager(t, session.Config[cart]{Insecure: true})
	b := newBrowser(t, m)
	b.login("ann")
	b.with("sid=1; sid=2; sid=3; " + b.cookie + "; sid=4; sid=5").logout()
	b.wantNone()

	// A store that fails is no success.
	st := newStore(t)
	m = newManager(t, session.Config[cart]{Insecure: true, Store: st})
	ann, bob := newBrowser(t, m), newBrowser(t, m)
	ann.login("ann")
	bob.login("bob")
	res := ann.with(ann.cookie + "; " + bob.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Logout())
		st.fail("CompareAndSwap")
	})
	wantProblem(t, res, 503, "session_unavailable")
}

// Bytes of one's own, of which the handler may do what it likes.
func TestCodec(t *testing.T) {
	st := newStore(t)
	m, err := session.New(session.Config[[]byte]{Store: st, Name: "bytes", Codec: cookies.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	var cookie string
	serve := func(f func(*session.Session[[]byte])) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(m.MustFrom(r.Context())) })).ServeHTTP(w, r)
		if w.Code != 200 {
			t.Errorf("status %d", w.Code)
		}
		if c := w.Header().Get("Set-Cookie"); c != "" {
			cookie, _, _ = strings.Cut(c, ";")
		}
	}
	serve(func(s *session.Session[[]byte]) {
		must(t, s.Update(func(b *[]byte) error { *b = []byte("abc"); return nil }))
	})
	_, writes := st.counts(func() {
		serve(func(s *session.Session[[]byte]) {
			b, err := s.Load()
			must(t, err)
			b[0] = 'X'
			must(t, s.Update(func(b *[]byte) error { *b = append(*b, 'd'); return nil }))
		})
	})
	if writes != 1 {
		t.Errorf("%d writes: what was read is no longer what is stored", writes)
	}
	serve(func(s *session.Session[[]byte]) {
		if b, err := s.Load(); string(b) != "abcd" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
}

type broken struct{}

func (broken) Append([]byte, cart) ([]byte, error) { return nil, errors.New("no") }
func (broken) Decode([]byte) (cart, error)         { return cart{}, errors.New("no") }

func TestBrokenCodec(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{Codec: broken{}}))
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		if err := s.Update(func(*cart) error { return nil }); err == nil || err.Error() != "session: Codec: no" {
			t.Errorf("error %v", err)
		}
	})
	b.wantNone()
	b.login("ann") // with the zero value, which needs no Codec
	if got := b.load(); got.user != "ann" {
		t.Errorf("session %+v", got)
	}
}

// cookies 37: LogID is no way to the cookie, and stays until the id changes.
func TestLogID(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	b := newBrowser(t, m)
	var before string
	b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		addPen(t, s)
		before = s.LogID()
		w.Write(nil)
		if after := s.LogID(); after != before {
			t.Errorf("LogID %q before the response, %q after", before, after)
		}
	})
	id := b.id()
	b.add("ink")
	if got := b.load().log; got != before || len(got) != 16 {
		t.Errorf("LogID %q, then %q", before, got)
	}
	for _, form := range spellings(t, id) {
		if bytes.Contains(form, []byte(before)) || strings.Contains(before, string(form)) {
			t.Errorf("LogID %q shows the id %q", before, form)
		}
	}
	for key := range st.dump(t) {
		if strings.Contains(key, before) {
			t.Errorf("LogID %q is part of the key", before)
		}
	}
	old := b.with(b.cookie)
	b.rotate()
	after := b.load().log
	if after == before || after == "" || old.load().log != after {
		t.Errorf("LogID %q after Rotate from %q, %q by the old id", after, before, old.load().log)
	}
}

// cookies 38: without randomness there are no weaker ids, but no program.
func TestNoRandomness(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoRandomnessChild$", "-test.v")
	cmd.Env = append(os.Environ(), noRandomness+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "crypto/rand") || strings.Contains(string(out), "went on") {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestContext(t *testing.T) {
	m, other := newManager(t, session.Config[cart]{}), newManager(t, session.Config[cart]{Name: "other", Cookie: "other"})
	if _, ok := m.From(context.Background()); ok {
		t.Error("From finds a session in nothing")
	}
	if _, ok := session.FromContext[cart](context.Background()); ok {
		t.Error("FromContext finds a session in nothing")
	}
	func() {
		defer func() {
			if v, _ := recover().(string); !strings.HasPrefix(v, "session: MustFrom: ") {
				t.Errorf("recovered %q", v)
			}
		}()
		m.MustFrom(context.Background())
	}()
	func() {
		defer func() {
			if v := recover(); v != "session: nil handler" {
				t.Errorf("recovered %q", v)
			}
		}()
		m.Handler(nil)
	}()
	m.Handler(other.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, b := m.MustFrom(r.Context()), other.MustFrom(r.Context())
		if a == b {
			t.Error("two managers have one session")
		}
		if s, ok := session.FromContext[cart](r.Context()); !ok || s != b {
			t.Error("FromContext is not the innermost")
		}
		if _, ok := session.FromContext[int](r.Context()); ok {
			t.Error("FromContext finds a session of another type")
		}
	}))).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// Two managers in one chain save each its own.
func TestTwoManagers(t *testing.T) {
	st := newStore(t)
	m, other := newManager(t, session.Config[cart]{Store: st}), newManager(t, session.Config[cart]{Store: st, Name: "other", Cookie: "__Host-other"})
	w := httptest.NewRecorder()
	m.Handler(other.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addPen(t, m.MustFrom(r.Context()))
		must(t, other.MustFrom(r.Context()).Login("ann"))
	}))).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if n := len(w.Header()["Set-Cookie"]); n != 2 || len(st.dump(t)) != 2 {
		t.Errorf("%d cookies, %d values", n, len(st.dump(t)))
	}
	if v := w.Header()["Vary"]; len(v) != 1 {
		t.Errorf("Vary %q", v)
	}
}

func TestNewContext(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	ctx := m.NewContext(t.Context(), "ann", cart{Theme: "dark"})
	reads, writes := st.counts(func() {
		s := m.MustFrom(ctx)
		if inner, ok := session.FromContext[cart](ctx); !ok || inner != s {
			t.Error("FromContext finds another one")
		}
		if got := read(t, s); !got.exists || got.user != "ann" || got.Theme != "dark" || len(got.log) != 16 {
			t.Errorf("session %+v", got)
		}
		addPen(t, s)
		must(t, s.Rotate())
		must(t, s.Login("bob"))
		if got := read(t, s); got.user != "bob" || len(got.Items) != 0 {
			t.Errorf("session %+v", got)
		}
		must(t, s.Logout())
		if got := read(t, s); got.exists {
			t.Errorf("session %+v", got)
		}
	})
	if reads+writes != 0 {
		t.Errorf("%d reads, %d writes", reads, writes)
	}
	if got := read(t, m.MustFrom(m.NewContext(t.Context(), "", cart{}))); !got.exists || got.user != "" {
		t.Errorf("session %+v", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic for a value that Codec cannot encode")
		}
	}()
	newManager(t, session.Config[cart]{Codec: broken{}}).NewContext(t.Context(), "", cart{})
}
