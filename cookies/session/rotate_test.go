package session_test

import (
	"errors"
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
		if n := len(st.dump(t)); n != 2 { // the alias is there for those who were let in before
			t.Errorf("%d values in the store", n)
		}
		time.Sleep(24 * time.Hour)
		if n := len(st.dump(t)); n != 0 {
			t.Errorf("%d values in the store after the session", n)
		}
	})
}

// A request that has the session keeps it for as long as it takes, whatever id
// others have given it in the meantime: a Logout ends it, an Update is not lost.
func TestHeldOverRotations(t *testing.T) {
	for name, c := range map[string]session.Config[cart]{
		"by default":       {},
		"without Grace":    {Grace: -1},
		"without Absolute": {Absolute: -1, Idle: 48 * time.Hour},
		"DestroyOnReuse":   {DestroyOnReuse: true},
	} {
		for _, streams := range []bool{false, true} {
			for _, rotations := range []int{1, 2 * maxHops} {
				synctest.Test(t, func(t *testing.T) {
					b := newBrowser(t, newManager(t, c))
					b.login("ann")
					hold := func(then func(*session.Session[cart]) error) {
						b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
							read(t, s)
							if streams {
								must(t, http.NewResponseController(w).Flush())
							}
							for range rotations {
								time.Sleep(11 * time.Second)
								b.rotate()
							}
							time.Sleep(11 * time.Second)
							must(t, then(s))
						})
					}
					hold(func(s *session.Session[cart]) error {
						return s.Update(func(c *cart) error { c.Theme = "dark"; return nil })
					})
					if got := b.load(); got.Theme != "dark" {
						t.Errorf("%s, stream %v, %d ids later: the update is lost, %+v", name, streams, rotations, got)
					}
					hold((*session.Session[cart]).Logout)
					if got := b.load(); got.exists {
						t.Errorf("%s, stream %v, %d ids later: after Logout there is %+v", name, streams, rotations, got)
					}
				})
			}
		}
	}
}

// Where the way to a session may have been forgotten, nothing is said to be done
// that is not.
func TestHeldForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, do := range map[string]func(*session.Session[cart]) error{
			"Logout": (*session.Session[cart]).Logout,
			"Update": func(s *session.Session[cart]) error {
				return s.Update(func(c *cart) error { c.Count++; return nil })
			},
		} {
			for _, ends := range []bool{false, true} {
				b := newBrowser(t, newManager(t, session.Config[cart]{Idle: 48 * time.Hour, Absolute: 96 * time.Hour}))
				b.login("ann")
				b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
					read(t, s)
					must(t, http.NewResponseController(w).Flush())
					b.rotate()
					time.Sleep(24*time.Hour - time.Minute)
					must(t, s.Update(func(c *cart) error { c.Count++; return nil }))
					b.rotate()
					time.Sleep(24 * time.Hour)
					if ends {
						time.Sleep(49 * time.Hour) // beyond Absolute, which the request can tell
					}
					if err := do(s); errors.Is(err, session.ErrConflict) == ends {
						t.Errorf("%s, when the session has ended %v: %v", name, ends, err)
					}
				})
				if got := b.load(); got.exists == ends || !ends && got.Count != 1 {
					t.Errorf("%s: %+v", name, got)
				}
			}
		}
	})
}

// The old id leads to the session over as many ids as Rotate says.
func TestManyRotations(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{Grace: time.Minute}))
	b.add("pen")
	old := b.with(b.cookie)
	for range maxHops - 1 {
		b.rotate()
	}
	old.wantItems("pen")
	b.rotate()
	old.wantNone()
	b.wantItems("pen")
}

// maxHops is 1 more than the ids over which an old id leads.
const maxHops = 8

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
