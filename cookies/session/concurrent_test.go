package session_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store/storetest"
)

// Logout finds the session wherever a concurrent Rotate has taken it.
func TestLogoutDuringRotate(t *testing.T) {
	for name, grace := range map[string]time.Duration{"with grace": time.Minute, "without": -1} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, newManager(t, session.Config[cart]{Grace: grace}))
			b.add("pen")
			other := b.with(b.cookie)
			b.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(t, s.Logout()) },
				func() { other.rotate(); other.wantItems("pen") })
			other.wantNone()
		})
	}
}

// Logout ends the session also if it changes in the very moment, again and
// again.
func TestLogoutIsNotOutrun(t *testing.T) {
	for name, do := range map[string]func(*browser) *http.Response{
		"update": func(b *browser) *http.Response { return b.add("ink") },
		"rotate": (*browser).rotate,
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
			b.add("pen")
			other := b.with(b.cookie)
			var inside atomic.Bool
			left := 5
			st.inject(func(c storetest.Call) storetest.Fault {
				if c.Method == "CompareAndSwap" && inside.CompareAndSwap(false, true) {
					if left > 0 {
						left--
						do(other)
					}
					inside.Store(false)
				}
				return storetest.Fault{}
			})
			b.logout()
			st.inject(nil)
			other.wantNone()
			if n := len(st.dump(t)); n != 0 || left != 0 {
				t.Errorf("%d values in the store, %d changes not made", n, left)
			}
		})
	}
}

// A request that was let in saves its change wherever a Rotate has taken the
// session, also where no Grace lets others in.
func TestUpdateDuringRotate(t *testing.T) {
	for name, grace := range map[string]time.Duration{"with grace": time.Minute, "without": -1} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, newManager(t, session.Config[cart]{Grace: grace}))
			b.add("pen")
			other := b.with(b.cookie)
			res := b.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				must(t, s.Update(func(c *cart) error { c.Items = append(c.Items, "ink"); return nil }))
			}, func() { other.rotate() })
			if res.Header["Set-Cookie"] != nil {
				t.Errorf("Set-Cookie %q", res.Header["Set-Cookie"])
			}
			other.wantItems("pen", "ink")
		})
	}
}

// A request that came with the old id of a Rotate, and that ends the session,
// leaves nothing of the way that it took.
func TestEndThroughAlias(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*session.Session[cart]) error
		left int
	}{
		"logout": {(*session.Session[cart]).Logout, 0},
		"login":  {func(s *session.Session[cart]) error { return s.Login("ann") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
			b.add("pen")
			late := b.with(b.cookie)
			b.rotate()
			late.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(t, c.do(s)) },
				func() { b.add("ink") })
			b.wantNone()
			if n := len(st.dump(t)); n != c.left {
				t.Errorf("%d values in the store, want %d", n, c.left)
			}
		})
	}
}

// cookies 28: a Logout while another request that has called Update is running:
// the session stays gone after that request ends.
func TestLogoutDuringUpdate(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.login("ann")
	slow := b.with(b.cookie)
	thief := b.with(b.cookie)
	res := slow.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
	}, func() { b.logout() })
	if res.StatusCode != 200 || res.Header["Set-Cookie"] != nil {
		t.Errorf("%s, Set-Cookie %q", res.Status, res.Header["Set-Cookie"])
	}
	thief.wantNone()
	if n := len(st.dump(t)); n != 0 {
		t.Errorf("%d values in the store", n)
	}
}

// And so with a Rotate, which had written the new record already, or an id that
// was due for one.
func TestLogoutDuringOtherSaves(t *testing.T) {
	for name, do := range map[string]func(s *session.Session[cart]) error{
		"rotate": (*session.Session[cart]).Rotate,
		"rotate and update": func(s *session.Session[cart]) error {
			return errors.Join(s.Update(func(c *cart) error { c.Count++; return nil }), s.Rotate())
		},
		"nothing": func(s *session.Session[cart]) error { _, err := s.Load(); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStore(t)
				b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, RotateEvery: time.Minute}))
				b.login("ann")
				time.Sleep(2 * time.Minute)
				slow := b.with(b.cookie)
				slow.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) { must(t, do(s)) },
					func() { b.logout() })
				slow.wantNone()
				if n := len(st.dump(t)); n != 0 {
					t.Errorf("%d values in the store", n)
				}
			})
		})
	}
}

// A login is what its user has asked for, whatever became of the session before
// it, and has nothing of that.
func TestLogoutDuringLogin(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	b.add("pen")
	other := b.with(b.cookie)
	b.during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Login("ann"))
		must(t, s.Update(func(c *cart) error { c.Items = append(c.Items, "ink"); return nil }))
	}, func() { other.logout() })
	if got := b.load(); got.user != "ann" || len(got.Items) != 1 || got.Items[0] != "ink" {
		t.Errorf("session %+v", got)
	}
}

// cookies 29: concurrent updates of different fields all survive.
func TestConcurrentUpdates(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	b.add("pen")
	b.with(b.cookie).during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
	}, func() { b.add("ink") })
	if got := b.load(); got.Theme != "dark" || len(got.Items) != 2 {
		t.Errorf("session %+v", got)
	}
}

// cookies 29: and so with many requests, a Login and a Rotate among them.
func TestManyConcurrentUpdates(t *testing.T) {
	for name, also := range map[string]func(*session.Session[cart]) error{
		"updates": func(*session.Session[cart]) error { return nil },
		"rotate":  (*session.Session[cart]).Rotate,
		"login":   func(s *session.Session[cart]) error { return s.Login("ann") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, session.Config[cart]{})
				b := newBrowser(t, m)
				b.add("pen")
				const n = 20
				var wg sync.WaitGroup
				gate := make(chan struct{})
				var codes [n]int
				for i := range n {
					wg.Go(func() {
						codes[i] = b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
							must(t, s.Update(func(c *cart) error { c.Count++; return nil }))
							<-gate
						}).StatusCode
					})
				}
				last := b.with(b.cookie)
				wg.Go(func() {
					last.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
						must(t, also(s))
						<-gate
					})
				})
				synctest.Wait()
				close(gate)
				wg.Wait()
				got := last.load()
				for _, code := range codes {
					if code != 200 {
						t.Errorf("status %d", code)
					}
				}
				// After a Login the others have no session to update.
				if got.Count != n && !(name == "login" && got.user == "ann" && got.Count < n) {
					t.Errorf("session %+v", got)
				}
			})
		})
	}
}

// A function that fails on what others have left, and others who never stop,
// are a conflict: 409, and nothing is saved.
func TestConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
		b.add("pen")
		res := b.with(b.cookie).during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			w.Header().Set("Location", "/bought")
			must(t, s.Update(func(c *cart) error {
				if len(c.Items) > 1 {
					return errors.New("sold out")
				}
				c.Theme = "bought"
				return nil
			}))
		}, func() { b.add("ink") })
		wantProblem(t, res, 409, "session_conflict")
		if res.Header["Location"] != nil {
			t.Error("the handler's Location is left")
		}
		b.wantItems("pen", "ink")

		busy := b.with(b.cookie)
		var inside atomic.Bool
		var turn atomic.Int64
		st.inject(func(c storetest.Call) storetest.Fault {
			if c.Method == "CompareAndSwap" && inside.CompareAndSwap(false, true) {
				busy.add(time.Duration(turn.Add(1)).String())
				inside.Store(false)
			}
			return storetest.Fault{}
		})
		res = b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
			must(t, s.Rotate())
		})
		st.inject(nil)
		wantProblem(t, res, 409, "session_conflict")
		if n := len(st.dump(t)); n != 1 {
			t.Errorf("%d values in the store", n)
		}
	})
}

// A function that panics on what others have left takes its change with it, also
// where the handler of a stream goes on: what others have done is not undone.
func TestUpdatePanicsOnWhatOthersLeft(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter) error{
		"before the response": func(http.ResponseWriter) error { return nil },
		"in a stream":         func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, newManager(t, session.Config[cart]{}))
			b.add("pen")
			other := b.with(b.cookie)
			b.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
				read(t, s)
				must(t, begin(w))
				other.send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
					must(t, s.Update(func(c *cart) error { c.Items, c.Theme = nil, "dark"; return nil }))
				})
				func() {
					defer func() {
						if recover() == nil {
							t.Error("no panic")
						}
					}()
					must(t, s.Update(func(c *cart) error { c.Items[0] = "ink"; return nil }))
					must(t, http.NewResponseController(w).Flush())
				}()
				must(t, s.Update(func(c *cart) error { c.Count++; return nil }))
			})
			if got := b.load(); got.Theme != "dark" || len(got.Items) != 0 || got.Count != 1 {
				t.Errorf("session %+v", got)
			}
		})
	}
}

// Nor is anything left under the new id that such a request would have given out.
func TestConflictLeavesNothing(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	res := b.with(b.cookie).during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Update(func(c *cart) error {
			if len(c.Items) > 1 {
				return errors.New("sold out")
			}
			c.Theme = "bought"
			return nil
		}))
		must(t, s.Rotate())
	}, func() { b.add("ink") })
	wantProblem(t, res, 409, "session_conflict")
	if n := len(st.dump(t)); n != 1 {
		t.Errorf("%d values in the store, want the session", n)
	}
}

// Nor under that of a Login whose second try the store does not let through.
func TestLoginFailsLate(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.add("pen")
	marks := 0
	res := b.with(b.cookie).during(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, s.Login("ann"))
	}, func() {
		b.add("ink")
		st.inject(func(c storetest.Call) storetest.Fault {
			if strings.Contains(c.Key, "/user/") {
				if marks++; marks == 2 {
					return storetest.Fault{Before: errDown}
				}
			}
			return storetest.Fault{}
		})
	})
	st.inject(nil)
	wantProblem(t, res, 503, "session_unavailable")
	if n := len(st.dump(t)); n != 1 {
		t.Errorf("%d values in the store, want the session", n)
	}
	b.wantItems("pen", "ink")
}
