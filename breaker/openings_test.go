package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
)

// A process that has opened for itself has opened once, also where the fleet
// comes to the same result after it: it was open before.
func TestConfirmedOpeningCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		b := newBreaker(t, breaker.Config{
			Name: "billing", Store: newMemory(t), OpenFor: time.Minute,
			OnStateChange: func(c breaker.Change) {
				if c.To == breaker.Open {
					told++
				}
			},
		})
		time.Sleep(5 * time.Second) // until the store counts as warm
		calls(b, 20, breaker.Failure)
		want(t, b, breaker.Open)
		time.Sleep(3 * interval)
		synctest.Wait()
		s := b.Stats()
		if !s.Fleet.Open || s.Fleet.Generation != 1 {
			t.Fatalf("the fleet has not confirmed it: %+v", s)
		}
		if s.Openings != 1 || told != 1 {
			t.Errorf("counted %d times, told %d times", s.Openings, told)
		}
	})
}
