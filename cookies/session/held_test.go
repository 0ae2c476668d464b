package session_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
	"example.com/plainware/store/storetest"
)

// stream makes a request that has its session when its response begins.
func (b *browser) stream(ctx context.Context, then func(*session.Session[cart])) {
	b.t.Helper()
	b.with(b.cookie).sendCtx(ctx, func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		read(b.t, s)
		must(b.t, http.NewResponseController(w).Flush())
		then(s)
	})
}

// keepAlive uses the session, and changes nothing.
func keepAlive(t testing.TB, s *session.Session[cart]) {
	t.Helper()
	must(t, s.Update(func(*cart) error { return nil }))
}

// A session is held from when the store has said that it is there, and not from
// when a request last took it for granted: no Logout is nil while it lives.
func TestHeldIsWhatTheStoreSaid(t *testing.T) {
	for name, use := range map[string]func(st *watched, s *session.Session[cart], flush func()){
		"used every minute": func(_ *watched, s *session.Session[cart], flush func()) {
			flush()
			for range 25 * 60 {
				time.Sleep(time.Minute)
				keepAlive(t, s)
			}
		},
		"used every hour": func(_ *watched, s *session.Session[cart], flush func()) {
			flush()
			for range 25 {
				time.Sleep(time.Hour)
				keepAlive(t, s)
			}
		},
		"used while the store takes nothing": func(st *watched, s *session.Session[cart], flush func()) {
			flush()
			st.fail("CompareAndSwap")
			for range 25 {
				time.Sleep(time.Hour)
				keepAlive(t, s)
			}
			st.fail()
		},
		"begins its response late": func(_ *watched, s *session.Session[cart], flush func()) {
			time.Sleep(23 * time.Hour)
			flush()
			time.Sleep(2 * time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStore(t)
				b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Idle: 48 * time.Hour, Absolute: 96 * time.Hour}))
				b.login("ann")
				b.add("pen")
				b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
					read(t, s)
					b.rotate()
					use(st, s, func() { must(t, http.NewResponseController(w).Flush()) })
					err := s.Logout()
					if got := b.load(); got.exists && !errors.Is(err, session.ErrConflict) {
						t.Errorf("Logout: %v, and the session lives: %+v", err, got)
					}
				})
			})
		})
	}
}

// And a read that finds it under its new id is an answer of the store too.
func TestHeldFromWhenItWasFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{Idle: 48 * time.Hour, Absolute: 96 * time.Hour}))
		b.login("ann")
		b.add("pen")
		b.stream(t.Context(), func(s *session.Session[cart]) {
			b.rotate()
			time.Sleep(23 * time.Hour)
			b.load() // so that the use of the stream need not be written
			keepAlive(t, s)
			time.Sleep(2 * time.Hour)
			b.logout()
			must(t, s.Logout())
		})
	})
}

// And so is that it has taken a change.
func TestHeldFromWhenItWasSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{Idle: 48 * time.Hour, Absolute: 96 * time.Hour}))
		b.login("ann")
		b.stream(t.Context(), func(s *session.Session[cart]) {
			time.Sleep(23 * time.Hour)
			must(t, s.Update(func(c *cart) error { c.Count++; return nil }))
			time.Sleep(2 * time.Hour)
			b.logout()
			must(t, s.Logout())
		})
	})
}

// What a request uses after others have given the session a new id is a use.
func TestUseAfterRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{Idle: 30 * time.Minute}))
		b.login("ann")
		b.add("pen")
		b.stream(t.Context(), func(s *session.Session[cart]) {
			b.rotate()
			for range 60 {
				time.Sleep(time.Minute)
				keepAlive(t, s)
			}
		})
		if got := b.load(); got.user != "ann" {
			t.Errorf("used every minute, and idle: %+v", got)
		}
	})
}

// A use is worth no error, also where its new place cannot be found. What the
// request has then is not more than it had.
func TestUseThatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		log, logger := newLog()
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Logger: logger}))
		b.login("ann")
		res := b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			read(t, s)
			b.rotate()
			time.Sleep(10 * time.Minute)
			st.fail("Get")
			must(t, http.NewResponseController(w).Flush())
			st.fail()
			if got := read(t, s); got.user != "ann" {
				t.Errorf("session %+v", got)
			}
			must(t, s.Logout())
		})
		if res.StatusCode != 200 || log.String() == "" {
			t.Errorf("%s, log %q", res.Status, log)
		}
		b.wantNone()
	})
}

// A store that hangs holds up what a stream saves for as long as any save.
func TestStalledInStream(t *testing.T) {
	for name, do := range map[string]func(*session.Session[cart]) error{
		"logout": (*session.Session[cart]).Logout,
		"update": func(s *session.Session[cart]) error { return s.Update(func(c *cart) error { c.Count++; return nil }) },
	} {
		synctest.Test(t, func(t *testing.T) {
			st := newStore(t)
			b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
			b.login("ann")
			b.stream(t.Context(), func(s *session.Session[cart]) {
				st.inject(func(storetest.Call) storetest.Fault { return storetest.Fault{Stall: true} })
				start := time.Now()
				if err := do(s); !errors.Is(err, session.ErrUnavailable) || time.Since(start) != 5*time.Second {
					t.Errorf("%s: %v after %v", name, err, time.Since(start))
				}
				st.inject(nil)
				must(t, s.Logout())
			})
			b.wantNone()
		})
	}
}

// And what a stream does when its client has gone counts.
func TestStreamWhoseClientIsGone(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	b.login("ann")
	ctx, cancel := context.WithCancel(t.Context())
	b.stream(ctx, func(s *session.Session[cart]) {
		cancel()
		must(t, s.Update(func(c *cart) error { c.Theme = "dark"; return nil }))
		if got := b.load(); got.Theme != "dark" {
			t.Errorf("session %+v", got)
		}
		must(t, s.Logout())
	})
	b.wantNone()
}

// Also if it is the first that the stream does with the session.
func TestFirstCallAfterClientIsGone(t *testing.T) {
	for name, do := range map[string]func(*session.Session[cart]) error{
		"logout": (*session.Session[cart]).Logout,
		"update": func(s *session.Session[cart]) error { return s.Update(func(c *cart) error { c.Count++; return nil }) },
	} {
		b := newBrowser(t, newManager(t, session.Config[cart]{}))
		b.login("ann")
		ctx, cancel := context.WithCancel(t.Context())
		b.with(b.cookie).sendCtx(ctx, func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			must(t, http.NewResponseController(w).Flush())
			cancel()
			if err := do(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if name == "logout" {
			b.wantNone()
		}
	}
}

// A store that fails is asked again by the next call of a stream, whose response
// nothing can change any more.
func TestFirstCallInStreamFails(t *testing.T) {
	for name, do := range map[string]func(*session.Session[cart]) error{
		"load":   func(s *session.Session[cart]) error { _, err := s.Load(); return err },
		"update": func(s *session.Session[cart]) error { return s.Update(func(c *cart) error { c.Count++; return nil }) },
		"logout": (*session.Session[cart]).Logout,
	} {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
		b.login("ann")
		b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			must(t, http.NewResponseController(w).Flush())
			st.fail("Get")
			if err := do(s); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			st.fail()
			if got := read(t, s); got.user != "ann" || got.Count != 0 {
				t.Errorf("%s: session %+v", name, got)
			}
			must(t, s.Logout())
		})
		b.wantNone()
	}
}

// Nor does a client who has gone, for whom nothing is read, keep a stream from a
// Logout.
func TestLogoutAfterReadForNobody(t *testing.T) {
	st := newStore(t)
	b := newBrowser(t, newManager(t, session.Config[cart]{Store: st}))
	b.login("ann")
	ctx, cancel := context.WithCancel(t.Context())
	b.with(b.cookie).sendCtx(ctx, func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
		must(t, http.NewResponseController(w).Flush())
		cancel()
		if _, err := s.UserID(); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("UserID: %v", err)
		}
		must(t, s.Logout())
	})
	b.wantNone()
}

// The time of a save is also that of the read which it needs.
func TestSlowFirstCallInStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, NoRevokeUser: true}))
		b.add("pen")
		b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			must(t, http.NewResponseController(w).Flush())
			reads := 0
			st.inject(func(c storetest.Call) storetest.Fault {
				if reads++; reads > 1 {
					return storetest.Fault{Stall: true}
				}
				time.Sleep(4 * time.Second)
				return storetest.Fault{}
			})
			start := time.Now()
			if err := s.Logout(); !errors.Is(err, session.ErrUnavailable) || time.Since(start) != 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			st.inject(nil)
		})
	})
}

// What a function given to Update takes is not of that time.
func TestSlowFunctionInStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{NoRevokeUser: true}))
		b.add("pen")
		b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			must(t, http.NewResponseController(w).Flush())
			for range 2 { // the first call reads, too
				must(t, s.Update(func(c *cart) error {
					time.Sleep(6 * time.Second)
					c.Count++
					return nil
				}))
			}
		})
		if got := b.load(); got.Count != 2 {
			t.Errorf("%+v", got)
		}
	})
}

// A request that only reads is not refused because its id, which is due for a new
// one, cannot get it: another program has left a value that this one cannot read.
func TestRotateEveryUndecodableMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		numbers := otherProgram(t, session.Config[int]{Store: st})
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, RotateEvery: time.Minute}))
		b.login("ann")
		time.Sleep(2 * time.Minute)
		res := b.with(b.cookie).send(func(w http.ResponseWriter, r *http.Request, s *session.Session[cart]) {
			read(t, s)
			numbers(b, func(_ http.ResponseWriter, s *session.Session[int]) {
				must(t, s.Update(func(n *int) error { *n = 7; return nil }))
			})
			must(t, http.NewResponseController(w).Flush())
			if err := s.Update(func(c *cart) error { c.Count++; return nil }); !errors.Is(err, session.ErrConflict) {
				t.Errorf("Update of the stream: %v", err)
			}
		})
		if res.StatusCode != 200 {
			t.Error(res.Status)
		}
	})
}

// A Logout of a stream whose session has ended has nothing to do.
func TestLogoutInStreamOfNothing(t *testing.T) {
	b := newBrowser(t, newManager(t, session.Config[cart]{}))
	b.stream(t.Context(), func(s *session.Session[cart]) { must(t, s.Logout()) })
	b.login("ann")
	b.stream(t.Context(), func(s *session.Session[cart]) {
		b.logout()
		must(t, s.Logout())
		must(t, s.Logout())
		if err := s.Update(func(*cart) error { return nil }); !errors.Is(err, session.ErrCommitted) {
			t.Errorf("Update after that: %v", err)
		}
	})
}

// With DestroyOnReuse the way to a session is there for as long as the session
// can be, so what is not found has ended, however long it was held.
func TestHeldForDaysWithDestroy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newManager(t, session.Config[cart]{Idle: -1, Absolute: 10 * 24 * time.Hour, DestroyOnReuse: true}))
		for _, ends := range []bool{false, true} {
			b.login("ann")
			b.stream(t.Context(), func(s *session.Session[cart]) {
				if !ends {
					b.rotate()
				}
				time.Sleep(3 * 24 * time.Hour)
				if ends {
					b.logout()
				}
				must(t, s.Logout())
			})
			b.wantNone()
		}
	})
}

// A session that has had more ids than are followed is not one that has ended.
func TestHeldOverTooManyIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where to follow them takes none of the 5 s
		b := newBrowser(t, newManager(t, session.Config[cart]{NoRevokeUser: true}))
		b.add("pen")
		b.stream(t.Context(), func(s *session.Session[cart]) {
			for range 10_625 {
				b.rotate()
			}
			err := s.Update(func(c *cart) error { c.Theme = "dark"; return nil })
			if got := b.load(); !got.exists || got.Theme == "dark" || !errors.Is(err, session.ErrConflict) {
				t.Errorf("Update: %v, %+v", err, got)
			}
			err = s.Logout()
			if got := b.load(); !got.exists || !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("Logout: %v, %+v", err, got)
			}
		})
	})
}

// cookies 27: reuse after Grace destroys the session when the option is on, days
// later too, and however many ids RotateEvery has given it since.
func TestReuseAfterDays(t *testing.T) {
	const days = 24 * time.Hour
	for name, c := range map[string]struct {
		config    session.Config[cart]
		rotations int
		wait      time.Duration
	}{
		"one id": {session.Config[cart]{Idle: -1, Absolute: 10 * days}, 1, 9 * days},
		"an id each ten minutes, for 29 days": {
			session.Config[cart]{Absolute: 30 * days, RotateEvery: 10 * time.Minute}, 29 * 24 * 6, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStore(t)
				c.config.Store, c.config.DestroyOnReuse = st, true
				b := newBrowser(t, newManager(t, c.config))
				b.add("pen")
				thief := b.with(b.cookie)
				for range c.rotations {
					time.Sleep(10 * time.Minute)
					b.rotate()
				}
				time.Sleep(c.wait)
				thief.wantNone()
				b.wantNone()
				if n := len(st.dump(t)); n != 0 {
					t.Errorf("%d values are left in the store", n)
				}
				if reads, _ := st.counts(func() { thief.load() }); reads != 1 {
					t.Errorf("%d reads for the same id again", reads)
				}
			})
		})
	}
}
