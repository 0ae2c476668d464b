package session_test

import (
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store"
)

// cookies 30: RevokeUser ends all earlier sessions of that user, no others, and
// a login right after it is valid, though no time has passed.
func TestRevokeUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		m := newManager(t, session.Config[cart]{Store: st})
		var ann [3]*browser
		for i := range ann {
			ann[i] = newBrowser(t, m)
			ann[i].login("ann")
		}
		bob, guest := newBrowser(t, m), newBrowser(t, m)
		bob.login("bob")
		guest.add("pen")

		slow := ann[0].with(ann[0].cookie)
		slow.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
		}, func() { must(t, m.RevokeUser(t.Context(), "ann")) })
		for _, b := range append(ann[:], slow) {
			b.wantNone()
		}
		if got := bob.load(); got.user != "bob" {
			t.Errorf("bob: %+v", got)
		}
		guest.wantItems("pen")

		for range 3 {
			must(t, m.RevokeUser(t.Context(), "ann"))
			b := newBrowser(t, m)
			b.login("ann")
			if got := b.load(); got.user != "ann" {
				t.Errorf("a login right after it: %+v", got)
			}
			other := newBrowser(t, m)
			other.login("ann")
			// The one who asks stays.
			b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				must(t, m.RevokeUser(r.Context(), "ann"))
				must(t, s.Login("ann"))
			})
			other.wantNone()
			if got := b.load(); got.user != "ann" {
				t.Errorf("who revoked and logged in: %+v", got)
			}
			// And the mark outlives every session that it revokes.
			time.Sleep(24*time.Hour + 30*time.Minute)
			if n := len(st.dump(t)); n != 1 {
				t.Errorf("%d values in the store, want the mark", n)
			}
			time.Sleep(2 * time.Hour)
			if n := len(st.dump(t)); n != 0 {
				t.Errorf("%d values in the store, though all sessions are over", n)
			}
		}
	})
}

// A session that was logged in under a mark goes on when the mark has expired,
// and the next mark, which knows nothing of the first, revokes it.
func TestRevokeAfterMarkExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Config[cart]{Idle: -1})
		must(t, m.RevokeUser(t.Context(), "ann"))
		time.Sleep(20 * time.Hour)
		b := newBrowser(t, m)
		b.login("ann")
		time.Sleep(20 * time.Hour)
		if got := b.load(); got.user != "ann" {
			t.Errorf("session %+v", got)
		}
		must(t, m.RevokeUser(t.Context(), "ann"))
		b.wantNone()
	})
}

// And so it does where the process that made the first mark had a clock that was
// far ahead: no mark has to be greater than one of which nobody knows any more.
func TestRevokeAfterMarkOfTheFuture(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	must(t, m.RevokeUser(t.Context(), "ann"))
	mark := ""
	for mark = range st.dump(t) {
	}
	ahead := uint64(time.Now().Add(100 * 365 * 24 * time.Hour).UnixNano())
	must(t, st.mem.Put(t.Context(), mark, binary.BigEndian.AppendUint64(nil, ahead), time.Hour))
	b := newBrowser(t, m)
	b.login("ann")
	must(t, st.mem.Delete(t.Context(), mark)) // as when its time is over
	if got := b.load(); got.user != "ann" {
		t.Errorf("session %+v", got)
	}
	must(t, m.RevokeUser(t.Context(), "ann"))
	b.wantNone()
	b.login("ann")
	if got := b.load(); got.user != "ann" {
		t.Errorf("a login right after it: %+v", got)
	}
}

// cookies 30: a mark survives what evicts sessions.
func TestRevokeSurvivesEviction(t *testing.T) {
	mem, err := store.NewMemory(store.MemoryConfig{Registers: 64, MaxBytes: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	m := newManager(t, session.Config[cart]{Store: mem})
	b := newBrowser(t, m)
	b.login("ann")
	must(t, m.RevokeUser(t.Context(), "ann"))
	for i := range 50_000 {
		if err := mem.Put(t.Context(), "flood"+strings.Repeat("x", i%7)+time.Duration(i).String(), make([]byte, 100), 100*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if mem.Stats().ValuesEvicted == 0 {
		t.Fatal("nothing was evicted")
	}
	b.wantNone()
	guest := newBrowser(t, m)
	guest.add("pen")
	guest.wantItems("pen")
}

func TestRevokeUserErrors(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	for _, user := range []string{"", strings.Repeat("x", 1025)} {
		if err := m.RevokeUser(t.Context(), user); err == nil || strings.Contains(err.Error(), "xx") {
			t.Errorf("RevokeUser with %d bytes: %v", len(user), err)
		}
		newBrowser(t, m).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			if err := s.Login(user); err == nil || strings.Contains(err.Error(), "xx") {
				t.Errorf("Login with %d bytes: %v", len(user), err)
			}
		})
	}
	for _, method := range []string{"Get", "CompareAndSwap"} {
		st.fail(method)
		if err := m.RevokeUser(t.Context(), "ann"); !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, errDown) {
			t.Errorf("with a broken %s: %v", method, err)
		}
	}
	st.fail()

	without := newManager(t, session.Config[cart]{Store: st, Name: "other", NoRevokeUser: true})
	if err := without.RevokeUser(t.Context(), "ann"); err == nil {
		t.Error("RevokeUser works with NoRevokeUser")
	}
	b := newBrowser(t, without)
	b.login("ann")
	if reads, _ := st.counts(func() { b.load() }); reads != 1 {
		t.Errorf("%d reads with NoRevokeUser, want 1", reads)
	}
}

// A mark that cannot be read is no reason to let sessions live, and the next
// RevokeUser repairs it.
func TestDamagedMark(t *testing.T) {
	st := newStore(t)
	m := newManager(t, session.Config[cart]{Store: st})
	must(t, m.RevokeUser(t.Context(), "ann"))
	b := newBrowser(t, m)
	b.login("ann")
	for key := range st.dump(t) {
		if strings.Contains(key, "/user/") {
			must(t, st.mem.Put(t.Context(), key, []byte("what"), time.Hour))
		}
	}
	res := b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { s.UserID() })
	wantProblem(t, res, 503, "session_unavailable")
	must(t, m.RevokeUser(t.Context(), "ann"))
	b.wantNone()
	b.login("ann")
	if got := b.load(); got.user != "ann" {
		t.Errorf("session %+v", got)
	}
}
