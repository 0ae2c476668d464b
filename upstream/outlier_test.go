package upstream

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fail reports n failures of p.
func fail(s *selector, p *Peer, n int) {
	for range n {
		s.report(p, outcomeFailure, time.Millisecond)
	}
}

// outlierBubble runs f in a bubble with a selector over n peers.
func outlierBubble(t *testing.T, n int, o Outlier, f func(t *testing.T, s *selector, peers []*Peer, log *states)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log states
		s := newSelector(selectorConfig{outlier: o, onState: log.on, slowStart: -1})
		defer s.close()
		peers := somePeers(n)
		s.set(peers)
		f(t, s, peers, &log)
	})
}

// A3: passive health, on by default: five failures in a row.
func TestOutlierEjectsAfterFiveFailures(t *testing.T) {
	outlierBubble(t, 4, Outlier{}, func(t *testing.T, s *selector, peers []*Peer, log *states) {
		fail(s, peers[0], 4)
		s.report(peers[0], outcomeOK, time.Millisecond)
		fail(s, peers[0], 4)
		if len(log.all()) != 0 {
			t.Fatalf("told %q", log.all())
		}
		fail(s, peers[0], 1)
		if got := shares(s, peers, 1000); got[0] != 0 {
			t.Errorf("the ejected peer has %d %% of the requests", got[0])
		}
		time.Sleep(34 * time.Second)
		synctest.Wait()
		if got := shares(s, peers, 1000); got[0] == 0 {
			t.Error("the peer did not return after 33s")
		}
		want := []string{"0:80 healthy>ejected: 5 failures in a row", "0:80 ejected>healthy: ejection is over"}
		if !slices.Equal(log.all(), want) {
			t.Errorf("told %q, want %q", log.all(), want)
		}
	})
}

// C5 65: the client going away is not counted as a failure, nor as a success.
func TestOutlierDoesNotCountClients(t *testing.T) {
	outlierBubble(t, 2, Outlier{}, func(t *testing.T, s *selector, peers []*Peer, log *states) {
		for range 100 {
			s.report(peers[0], outcomeNeutral, time.Hour)
		}
		if len(log.all()) != 0 || peers[0].Latency() != 0 {
			t.Errorf("told %q, latency %v", log.all(), peers[0].Latency())
		}
		fail(s, peers[0], 4)
		s.report(peers[0], outcomeNeutral, 0)
		fail(s, peers[0], 1)
		if len(log.all()) != 1 {
			t.Error("what says nothing ended the row of failures")
		}
	})
}

// ejectedFor ejects p and returns how long it stayed out.
func ejectedFor(t *testing.T, s *selector, p *Peer) time.Duration {
	t.Helper()
	fail(s, p, s.outlier.Failures)
	if got := s.state(p); got != StateEjected {
		t.Fatalf("state is %v", got)
	}
	began := time.Now()
	for s.state(p) == StateEjected {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

// A3: growing ejection time, base 30 s x times ejected, max 300 s, with jitter.
func TestOutlierEjectionGrows(t *testing.T) {
	outlierBubble(t, 2, Outlier{}, func(t *testing.T, s *selector, peers []*Peer, _ *states) {
		for i := range 12 {
			want := time.Duration(min(i+1, 10)) * 30 * time.Second
			if got := ejectedFor(t, s, peers[0]); got < want*9/10 || got > want*11/10+100*time.Millisecond {
				t.Errorf("ejection %d lasted %v, want %v give or take 10 %%", i+1, got, want)
			}
		}
		// Ten times the base time of good conduct pays off ten ejections.
		time.Sleep(10*30*time.Second + time.Second)
		want := 3 * 30 * time.Second
		if got := ejectedFor(t, s, peers[0]); got < want*9/10 || got > want*11/10+100*time.Millisecond {
			t.Errorf("after good conduct an ejection lasted %v, want about %v", got, want)
		}
	})
}

func TestOutlierJitter(t *testing.T) {
	o := Outlier{}.withDefaults()
	low, high := time.Hour, time.Duration(0)
	for range 500 {
		d := o.duration(2)
		low, high = min(low, d), max(high, d)
	}
	if low < 54*time.Second || high > 66*time.Second || high-low < 10*time.Second {
		t.Errorf("durations from %v to %v, want 54s to 66s", low, high)
	}
	if d := o.duration(1 << 30); d > 330*time.Second || d < 270*time.Second {
		t.Errorf("a very late ejection lasts %v", d)
	}
}

// A3: cap on the share ejected, 50 %, and never the last host.
func TestOutlierCap(t *testing.T) {
	for _, c := range []struct {
		peers, percent, want int
	}{{1, 0, 0}, {1, 100, 0}, {2, 0, 1}, {3, 0, 1}, {4, 0, 2}, {5, 0, 2}, {4, 100, 3}, {10, 10, 1}, {9, 10, 0}} {
		outlierBubble(t, c.peers, Outlier{MaxPercent: c.percent}, func(t *testing.T, s *selector, peers []*Peer, _ *states) {
			for range 3 {
				for _, p := range peers {
					fail(s, p, 5)
				}
			}
			healthy, _ := s.counts()
			if got := c.peers - healthy; got != c.want {
				t.Errorf("%+v: %d were ejected", c, got)
			}
			if _, failOpen := s.pick(new(Pick)); failOpen {
				t.Errorf("%+v: fails open", c)
			}
		})
	}
}

func TestOutlierNeverEjectsTheLastAvailable(t *testing.T) {
	outlierBubble(t, 4, Outlier{MaxPercent: 100}, func(t *testing.T, s *selector, peers []*Peer, _ *states) {
		s.setHealthy(peers[1], false, "down")
		s.setHealthy(peers[2], false, "down")
		peers[3].load.draining = true
		fail(s, peers[0], 50)
		if got := s.state(peers[0]); got != StateHealthy {
			t.Errorf("the last available peer is %v", got)
		}
	})
}

func TestOutlierEjectionEndsAtOnceAtItsTime(t *testing.T) {
	outlierBubble(t, 4, Outlier{BaseTime: 10 * time.Second}, func(t *testing.T, s *selector, peers []*Peer, log *states) {
		fail(s, peers[0], 5)
		time.Sleep(2 * time.Second)
		fail(s, peers[1], 5)
		for range 3 {
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		if h, _ := s.counts(); h != 4 || len(log.all()) != 4 {
			t.Errorf("%d healthy, told %q", h, log.all())
		}
	})
}

func TestOutlierOff(t *testing.T) {
	for name, o := range map[string]Outlier{"off": {Off: true}, "no number": {Failures: -1}} {
		outlierBubble(t, 4, o, func(t *testing.T, s *selector, peers []*Peer, log *states) {
			fail(s, peers[0], 1000)
			if len(log.all()) != 0 {
				t.Errorf("%s: told %q", name, log.all())
			}
		})
	}
}

// A3: failure percentage with minimum volume, opt-in.
func TestOutlierFailurePercent(t *testing.T) {
	o := Outlier{Failures: -1, FailurePercent: 50, MinRequests: 20}
	outlierBubble(t, 4, o, func(t *testing.T, s *selector, peers []*Peer, log *states) {
		traffic := func(p *Peer, good, bad int) {
			for range good {
				s.report(p, outcomeOK, time.Millisecond)
			}
			fail(s, p, bad)
		}
		traffic(peers[0], 10, 10) // exactly the percentage and the volume
		traffic(peers[1], 11, 10) // a lower percentage
		traffic(peers[2], 0, 19)  // a lower volume
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if len(log.all()) != 0 {
			t.Errorf("judged before the interval was over: %q", log.all())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if want := []string{"0:80 healthy>ejected: 10 of 20 requests failed"}; !slices.Equal(log.all(), want) {
			t.Errorf("told %q, want %q", log.all(), want)
		}
		// What was counted is forgotten at the end of an interval.
		traffic(peers[2], 0, 19)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(log.all()) != 1 {
			t.Errorf("two intervals were added up: %q", log.all())
		}
	})
}

func TestOutlierPercentageEndsWithItsPeers(t *testing.T) {
	outlierBubble(t, 2, Outlier{FailurePercent: 50}, func(t *testing.T, s *selector, peers []*Peer, _ *states) {
		fail(s, peers[0], 3)
		s.set(nil)
		time.Sleep(time.Minute)
		s.set(somePeers(2))
		time.Sleep(time.Minute)
	})
}

func TestOutlierCheck(t *testing.T) {
	good := []Outlier{{}, {Off: true}, {Failures: -1}, {FailurePercent: 100, MaxPercent: 100, Interval: time.Second, BaseTime: time.Hour}}
	for _, o := range good {
		if err := o.check().err(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	bad := Outlier{FailurePercent: 101, MinRequests: -1, Interval: time.Millisecond, BaseTime: -1, MaxPercent: -1}
	err := errors.Join(bad.check().err(), Outlier{MaxTime: time.Second}.check().err())
	for _, field := range []string{"FailurePercent", "MinRequests", "Interval", "BaseTime", "MaxTime", "MaxPercent"} {
		if !strings.Contains(err.Error(), "upstream: Outlier."+field+": ") {
			t.Errorf("no word of %s in %v", field, err)
		}
	}
}

// Good conduct of any length pays off what there is to pay off, and no more: it
// is counted in more than 32 bits.
func TestOutlierForgetsInLongTime(t *testing.T) {
	outlierBubble(t, 2, Outlier{BaseTime: time.Millisecond}, func(t *testing.T, s *selector, peers []*Peer, _ *states) {
		for range 2 {
			fail(s, peers[0], 5)
			if got := s.state(peers[0]); got != StateEjected {
				t.Fatalf("state is %v", got)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if got := s.state(peers[0]); got != StateHealthy {
				t.Fatalf("state is %v after 2ms", got)
			}
			time.Sleep(30 * 24 * time.Hour) // 2 592 000 000 ms
		}
	})
}
