package upstream

import (
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a writer whose flushes wait.
type gate struct {
	*httptest.ResponseRecorder
	entered, leave chan struct{}
}

func (g *gate) FlushError() error {
	close(g.entered)
	<-g.leave
	return nil
}

// A stream is used again once its timer has been stopped or has come.
func TestStreamIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lent streams
		for _, wait := range []time.Duration{0, 2 * headDelay} {
			w := httptest.NewRecorder()
			s := lent.get(w)
			s.start(headDelay)
			time.Sleep(wait)
			synctest.Wait()
			if flushed := wait > 0; w.Flushed != flushed {
				t.Errorf("after %v: flushed %v", wait, w.Flushed)
			}
			if err := s.write([]byte("x"), true, false); err != nil || !w.Flushed {
				t.Errorf("after %v: flushed %v, %v", wait, w.Flushed, err)
			}
			if !s.stop() {
				t.Errorf("after %v: %d calls are to come", wait, s.due)
			}
		}
	})
}

// What is held is written once: by the timer while it is held, and by nobody
// else's timer afterwards.
func TestStreamHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lent streams
		w := httptest.NewRecorder()
		s := lent.get(w)
		pause := func(d time.Duration, wantSent int, want string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if sent, err := s.unhold(); sent != wantSent || err != nil || w.Body.String() != want || w.Flushed {
				t.Errorf("%d sent, %v; written %q, flushed %v", sent, err, w.Body, w.Flushed)
			}
		}
		s.hold([]byte("a"))
		pause(headDelay/2, 0, "")
		pause(headDelay, 0, "") // the timer comes, and nothing is held
		s.hold([]byte("ab"))
		pause(headDelay/2, 0, "")
		s.hold([]byte("abc"))
		pause(headDelay, 3, "abc")
		if !s.stop() {
			t.Error("not to be used again, though its timer has come")
		}
		time.Sleep(time.Minute)
		if w.Body.String() != "abc" {
			t.Errorf("written after the end: %q", w.Body)
		}
	})
}

// A flush that is under way is waited for.
func TestStreamWaitsForFlush(t *testing.T) {
	var lent streams
	g := &gate{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	s := lent.get(g)
	s.start(headDelay)
	<-g.entered
	done := make(chan struct{})
	go func() {
		lent.put(s)
		close(done)
	}()
	select {
	case <-done:
		t.Error("put has not waited")
	default:
	}
	close(g.leave)
	<-done
}

// Streams go from one response to the next, whenever their timers come.
func TestStreamsConcurrently(t *testing.T) {
	var lent streams
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				w := httptest.NewRecorder() // not for two goroutines: the race detector looks
				s := lent.get(w)
				if s.due != 0 {
					t.Errorf("lent while %d calls of its timer are to come", s.due)
				}
				s.start(time.Duration(i%7) * time.Microsecond)
				for j := range 3 {
					s.write([]byte("x"), (i+j)%2 == 0, j == 2)
				}
				lent.put(s)
				w.Flushed = false
			}
		})
	}
	wg.Wait()
}
