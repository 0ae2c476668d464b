package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/cookies/session"
)

// cookies 31: the idle timeout counts from the last use, with at most Idle/10
// error, and to the safe side.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 30 * time.Minute
		b := newBrowser(t, newManager(t, session.Config[cart]{Idle: idle, Absolute: -1}))
		for _, after := range []time.Duration{0, 1, idle/10 - 1, idle / 10, idle / 5} {
			b.add("pen")
			time.Sleep(after)
			b.load() // the last use
			time.Sleep(idle - idle/10)
			if !b.load().exists {
				t.Errorf("used after %v: ended before 9/10 Idle", after)
			}
			time.Sleep(idle - idle/10 + 1)
			if after != 0 && after < idle/10 {
				b.load()
			}
			time.Sleep(idle)
			b.wantNone()
		}
	})
}

// cookies 31: the absolute deadline is not moved by use, by Update or by Rotate.
func TestAbsolute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Config[cart]{Idle: time.Hour, Absolute: 3 * time.Hour})
		b := newBrowser(t, m)
		b.add("pen")
		for range 6 {
			time.Sleep(29 * time.Minute)
			b.add("ink")
			b.rotate()
		}
		time.Sleep(6*time.Minute - 1)
		if !b.load().exists {
			t.Error("ended before Absolute")
		}
		time.Sleep(time.Nanosecond)
		b.wantNone()

		// A Login begins anew.
		b = newBrowser(t, m)
		b.add("pen")
		time.Sleep(50 * time.Minute)
		b.login("ann")
		for range 5 {
			time.Sleep(35 * time.Minute)
			if got := b.load(); got.user != "ann" {
				t.Errorf("session %+v", got)
			}
		}
		time.Sleep(5 * time.Minute)
		b.wantNone()
	})
}

// Lowering Absolute is in effect at once, on sessions that were promised more.
func TestAbsoluteLowered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t)
		b := newBrowser(t, newManager(t, session.Config[cart]{Store: st, Idle: -1, Absolute: 24 * time.Hour}))
		b.add("pen")
		b.m = newManager(t, session.Config[cart]{Store: st, Idle: -1, Absolute: time.Hour})
		time.Sleep(time.Hour - 1)
		b.wantItems("pen")
		time.Sleep(time.Nanosecond)
		b.wantNone()
	})
}
