package session_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
)

// cookies 26: after Login the old id is worth nothing, at once and without an
// alias.
func TestLoginEndsOldID(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	thief := b.with(b.cookie)
	b.login("ann")
	thief.wantNone()
	if n := len(st.dump(t)); n != 1 {
		t.Errorf("%d values in the store, want one session", n)
	}
	b.wantItems("pen")

	// Even if the id before that has an alias.
	b.rotate()
	b.login("ann")
	if n := len(st.dump(t)); n != 2 { // an alias that leads nowhere
		t.Errorf("%d values in the store", n)
	}
	thief.wantNone()
	b.wantItems("pen")
}

// A login in a request that came with the old id of a Rotate takes the alias
// with it.
func TestLoginThroughAlias(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	late := b.with(b.cookie)
	b.rotate()
	late.login("ann")
	if n := len(st.dump(t)); n != 1 {
		t.Errorf("%d values in the store, want one session", n)
	}
	b.wantNone()
	late.wantItems("pen")
}

// cookies 27: after Rotate the old id works for Grace, and not longer.
func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Grace: 10 * time.Second}))
		b.add("pen")
		old := b.with(b.cookie)
		b.rotate()
		if b.cookie == old.cookie {
			t.Error("Rotate gives no new id")
		}
		old.wantItems("pen")
		old.add("ink") // and what comes with it counts
		if res := old.rotate(); res.Header["Set-Cookie"] != nil {
			t.Error("a request with the old id rotates again")
		}
		b.wantItems("pen", "ink")
		time.Sleep(10*time.Second - 1)
		old.wantItems("pen", "ink")
		time.Sleep(time.Nanosecond)
		old.wantNone()
		b.wantItems("pen", "ink")
		if n := len(st.dump(t)); n != 1 {
			t.Errorf("%d values in the store", n)
		}
	})
}

// cookies 27: reuse after Grace destroys the session when the option is on.
func TestReuseAfterGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, grace := range map[string]time.Duration{"with grace": 10 * time.Second, "without": -1} {
			st := newStore(t)
			b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Grace: grace, DestroyOnReuse: true}))
			b.add("pen")
			first := b.with(b.cookie)
			b.rotate()
			if grace > 0 {
				first.wantItems("pen")
			}
			time.Sleep(11 * time.Second)
			b.rotate()
			time.Sleep(11 * time.Second)
			b.wantItems("pen")
			first.wantNone()
			b.wantNone()
			if n := len(st.dump(t)); n != 0 {
				t.Errorf("%s: %d values are left in the store", name, n)
			}
		}
	})
}

func TestRotateWithoutGrace(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Grace: -1}))
	b.add("pen")
	old := b.with(b.cookie)
	b.rotate()
	old.wantNone()
	b.wantItems("pen")
}

func TestRotateEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{RotateEvery: 10 * time.Minute}))
		b.add("pen")
		old := b.with(b.cookie)
		time.Sleep(10*time.Minute - 1)
		b.wantItems("pen")
		if b.cookie != old.cookie {
			t.Error("a new id too early")
		}
		time.Sleep(time.Nanosecond)
		b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {}) // does not use it
		if b.cookie != old.cookie {
			t.Error("a new id for a request that does not use the session")
		}
		b.wantItems("pen")
		if b.cookie == old.cookie {
			t.Error("no new id")
		}
		b.wantItems("pen")
		old.wantItems("pen")
	})
}
