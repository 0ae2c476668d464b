package breaker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/store/storetest"
)

// Whatever gets lost or late on the way to the store, whatever processes restart,
// and however often the back end goes down, there are never more probes than
// allowed, and in the end all agree and let calls through.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { random(t, rand.New(rand.NewPCG(seed, 26))) })
		})
	}
}

func random(t *testing.T, dice *rand.Rand) {
	const probeTimeout = 10 * time.Second
	var mu sync.Mutex // of dice and calm
	calm := false
	s := storetest.Faulty(newMemory(t), func(call storetest.Call) (f storetest.Fault) {
		mu.Lock()
		defer mu.Unlock()
		if calm || call.Method == "Keep" {
			return f
		}
		some := time.Duration(dice.IntN(200)) * time.Millisecond
		// Less than what makes a process take the store for lost.
		switch dice.IntN(20) {
		case 0:
			f.Before = errors.New("lost on the way there")
		case 1:
			f.After = errors.New("lost on the way back")
		case 2:
			f.Delay = some
		case 3:
			f.Late = some
		}
		return f
	})
	c := breaker.Config{Name: "x", Store: s, Probes: 1 + dice.IntN(2), ProbeTimeout: probeTimeout}
	all := fleet(t, 4, c)
	up := true
	var starts, ends []time.Time // of probes of the fleet
	for range 1200 {
		mu.Lock()
		flip, restart, hang, who := dice.IntN(100) == 0, dice.IntN(200) == 0, dice.IntN(4) == 0, dice.IntN(len(all))
		mu.Unlock()
		if flip {
			up = !up
		}
		if restart {
			all[who].Close()
			all[who] = newBreaker(t, c)
		}
		for _, b := range all {
			for range 3 {
				p, err := b.Acquire()
				if err != nil {
					break
				}
				st := b.Stats()
				probe := st.State == breaker.HalfOpen && st.Fleet.Open && st.Fleet.Synced
				if probe {
					starts = append(starts, time.Now())
					if hang {
						continue
					}
				}
				if up {
					p.Done(breaker.Success)
				} else {
					p.Done(breaker.Failure)
				}
				if probe {
					ends = append(ends, time.Now())
				}
			}
		}
		settle(100 * time.Millisecond)
	}
	for i, from := range starts {
		ended := 0
		for _, e := range ends {
			if !e.Before(from) {
				ended++
			}
		}
		w := starts[len(starts)-1].Sub(from)
		if n, most := len(starts)-i, c.Probes+ended+int((w+2*time.Second)/probeTimeout); n > most {
			t.Fatalf("%d probes in %v, at most %d", n, w, most)
		}
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	drive(t, all, 5*time.Minute, breaker.Success, func() bool {
		for _, b := range all {
			if st := b.Stats(); st.State != breaker.Closed || st.Fleet.Open || !st.Fleet.Synced {
				return false
			}
		}
		return true
	})
	settle(12 * interval) // a hint that got lost is found after ten
	for _, b := range all {
		if g, h := b.Stats().Fleet.Generation, all[0].Stats().Fleet.Generation; g != h {
			t.Errorf("generations %d and %d", g, h)
		}
	}
}
