package upstream

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a Picker that remembers the snapshots it was given.
type recorder struct {
	Picker
	mu    sync.Mutex
	snaps []Snapshot
}

func (r *recorder) Build(s Snapshot) PickFunc {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snaps = append(r.snaps, s)
	return r.Picker.Build(s)
}

func (r *recorder) last() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snaps[len(r.snaps)-1]
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.snaps)
}

// states records the changes of state that a selector tells.
type states struct {
	mu   sync.Mutex
	list []string
}

func (s *states) on(p *Peer, old, new State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf("%s %v>%v: %s", p.ID[strings.LastIndexByte(p.ID, '.')+1:], old, new, reason))
}

func (s *states) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// shares draws n times and returns the share of each peer in percent.
func shares(s *selector, peers []*Peer, n int) []int {
	counts := make(map[*Peer]int)
	p := seeded(11)
	for range n {
		peer, _ := s.pick(p)
		counts[peer]++
	}
	out := make([]int, len(peers))
	for i, peer := range peers {
		out[i] = int(math.Round(float64(counts[peer]) / float64(n) * 100))
	}
	return out
}

// around tells whether all of got are within 2 of want.
func around(got, want []int) bool {
	for i := range want {
		if d := got[i] - want[i]; d < -2 || d > 2 {
			return false
		}
	}
	return len(got) == len(want)
}

func TestNoPeers(t *testing.T) {
	s := selectorOf(t, nil, nil)
	if p, _ := s.pick(new(Pick)); p != nil {
		t.Errorf("picked %v", p)
	}
	if h, n := s.counts(); h != 0 || n != 0 {
		t.Errorf("counts are %d of %d", h, n)
	}
}

// A1: priorities, the lowest number first, with spill-over at 1.4.
func TestPrioritiesSpillOver(t *testing.T) {
	peers := somePeers(12)
	for i, p := range peers {
		p.Priority = []int{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 9}[i]
	}
	for _, c := range []struct {
		down string // a letter per peer that is not healthy
		want []int  // percent per priority
	}{
		{"", []int{100, 0, 0}},
		{"ab", []int{100, 0, 0}},     // 80 % x 1.4 is more than everything
		{"abc", []int{98, 2, 0}},     // 70 % x 1.4
		{"abcde", []int{70, 30, 0}},  // 50 % x 1.4
		{"abcdek", []int{70, 0, 30}}, // and the second priority is down
		{"abcdefghi", []int{14, 86, 0}},
		{"abcdefghij", []int{0, 100, 0}},
		{"abcdefghijk", []int{0, 0, 100}},
		{"abcdekl", []int{100, 0, 0}}, // nobody else is left
	} {
		s := selectorOf(t, nil, somePeersLike(peers))
		all := s.peers
		for _, x := range c.down {
			s.setHealthy(all[x-'a'], false, "test")
		}
		got := shares(s, all, 20_000)
		sum := []int{0, got[10], got[11]}
		for _, n := range got[:10] {
			sum[0] += n
		}
		if !around(sum, c.want) {
			t.Errorf("with %q down the priorities have %v %%, want %v", c.down, sum, c.want)
		}
	}
}

// somePeersLike returns copies that no selector knows.
func somePeersLike(peers []*Peer) []*Peer {
	out := make([]*Peer, len(peers))
	for i, p := range peers {
		out[i] = &Peer{ID: p.ID, Weight: p.Weight, Priority: p.Priority, Draining: p.Draining}
	}
	return out
}

// A request with a key spills over always or never.
func TestPrioritiesKeepKeys(t *testing.T) {
	peers := somePeers(4)
	peers[2].Priority, peers[3].Priority = 1, 1
	s := selectorOf(t, Rendezvous(0), peers)
	s.setHealthy(peers[0], false, "test")
	spilled := 0
	for k := range uint64(1000) {
		first, _ := s.pick(&Pick{Key: k, HasKey: true})
		spilled += first.Priority
		for range 5 {
			if again, _ := s.pick(&Pick{Key: k, HasKey: true}); again != first {
				t.Fatalf("key %d went to %s and to %s", k, first.ID, again.ID)
			}
		}
	}
	if spilled < 250 || spilled > 350 {
		t.Errorf("%d of 1000 keys spilled over, want about 300", spilled)
	}
}

// A4: another back end is preferred: of the same priority, then of any, and
// the same one only when there is no other.
func TestPickPrefersUntried(t *testing.T) {
	peers := somePeers(3)
	peers[2].Priority = 1
	s := selectorOf(t, nil, peers)
	for seed := range uint64(100) {
		p := seeded(seed)
		var got []*Peer
		for range 4 {
			peer, _ := s.pick(p)
			got = append(got, peer)
			p.exclude(peer)
		}
		if got[0] == got[1] || got[0] == peers[2] || got[1] == peers[2] || got[2] != peers[2] || got[3] == nil {
			t.Fatalf("picked %v", got)
		}
	}
	one := selectorOf(t, nil, somePeers(1))
	p := new(Pick)
	first, _ := one.pick(p)
	p.exclude(first)
	if again, _ := one.pick(p); again != first || p.n != 1 {
		t.Errorf("the only peer was not picked again")
	}
}

// A connection that turned out to be dead is no reason to use a standby.
func TestPickStaysInItsPriority(t *testing.T) {
	peers := somePeers(3)
	peers[2].Priority = 1
	s := selectorOf(t, nil, peers)
	p := &Pick{stay: true}
	p.exclude(peers[0])
	if peer, _ := s.pick(p); peer != peers[1] {
		t.Errorf("picked %s, want the other of the priority", peer.ID)
	}
	p.exclude(peers[1])
	if peer, _ := s.pick(p); peer == peers[2] || peer == nil {
		t.Errorf("picked %v, want one of the priority", peer)
	}
	s.setHealthy(peers[0], false, "down")
	s.setHealthy(peers[1], false, "down")
	if peer, _ := s.pick(p); peer != peers[2] {
		t.Errorf("picked %v, want the standby", peer)
	}
}

func TestPickRemembersTriedAcrossUpdates(t *testing.T) {
	peers := somePeers(2)
	s := selectorOf(t, nil, peers)
	p := new(Pick)
	p.exclude(peers[0])
	s.set(somePeers(2)) // other Peers of the same IDs
	for range 50 {
		if peer, _ := s.pick(p); peer.ID == peers[0].ID {
			t.Fatal("picked the peer that was tried")
		}
	}
}

// A1: fail-open at 0 healthy by default; threshold configurable.
func TestFailOpen(t *testing.T) {
	for _, c := range []struct {
		open, healthy int // of 4
		want          int // peers in use
		failOpen      bool
	}{
		{0, 4, 4, false},
		{0, 1, 1, false},
		{0, 0, 4, true},
		{50, 2, 2, false},
		{50, 1, 4, true},
		{100, 3, 4, true},
		{100, 4, 4, false},
		{-1, 1, 1, false},
		{-1, 0, 0, false},
	} {
		peers := somePeers(4)
		s := newSelector(selectorConfig{failOpen: c.open, slowStart: -1})
		s.set(peers)
		for _, p := range peers[c.healthy:] {
			s.setHealthy(p, false, "test")
		}
		used := make(map[*Peer]bool)
		for range 200 {
			peer, failOpen := s.pick(new(Pick))
			if peer == nil {
				break
			}
			if used[peer] = true; failOpen != c.failOpen {
				t.Fatalf("%+v: failOpen is %v", c, failOpen)
			}
		}
		if len(used) != c.want {
			t.Errorf("%+v: %d peers in use", c, len(used))
		}
		if h, n := s.counts(); h != c.healthy || n != 4 {
			t.Errorf("%+v: counts are %d of %d", c, h, n)
		}
		s.close()
	}
}

// A1: a draining peer takes sticky traffic only, and is no reason to fail open.
func TestDraining(t *testing.T) {
	peers := somePeers(3)
	peers[1].Draining = true
	var log states
	s := newSelector(selectorConfig{sticky: &Sticky{Keys: [][]byte{make([]byte, 32)}}, onState: log.on})
	defer s.close()
	s.set(peers)
	if got := shares(s, peers, 2000); got[1] != 0 {
		t.Errorf("the draining peer has %d %% of new requests", got[1])
	}
	var p Pick
	s.bind(&p, cookieOf(s, peers[1]))
	if peer, failOpen := s.pick(&p); peer != peers[1] || failOpen {
		t.Errorf("its client went to %v", peer)
	}
	if got := s.state(peers[1]); got != StateDraining {
		t.Errorf("its state is %v", got)
	}
	for _, p := range []*Peer{peers[0], peers[2]} {
		s.setHealthy(p, false, "down")
	}
	if got := shares(s, peers, 2000); got[1] != 0 || got[0]+got[2] < 99 {
		t.Errorf("with the others down, the shares are %v", got)
	}
	want := []string{
		"1:80 healthy>draining: update",
		"0:80 healthy>unhealthy: down",
		"2:80 healthy>unhealthy: down",
	}
	if !slices.Equal(log.all(), want) {
		t.Errorf("told %q, want %q", log.all(), want)
	}
}

// A2: health and load are kept across membership changes, by ID.
func TestUpdateKeepsState(t *testing.T) {
	peers := somePeers(3)
	var log states
	s := newSelector(selectorConfig{onState: log.on})
	defer s.close()
	s.set(peers)
	s.begin(peers[0])
	s.report(peers[0], outcomeOK, time.Second)
	s.setHealthy(peers[1], false, "down")

	next := somePeers(2)
	next[0].Weight = 7
	s.set(next)
	if next[0].Active() != 1 || next[0].Latency() == 0 {
		t.Errorf("active %d, latency %v", next[0].Active(), next[0].Latency())
	}
	if got := s.state(next[1]); got != StateUnhealthy {
		t.Errorf("state is %v", got)
	}
	s.end(peers[0])
	if next[0].Active() != 0 {
		t.Error("the old peer's request did not end for the new one")
	}
	s.setHealthy(peers[2], false, "gone") // no longer a member
	if len(log.all()) != 1 {
		t.Errorf("told %q", log.all())
	}
	if h, n := s.counts(); h != 1 || n != 2 {
		t.Errorf("counts are %d of %d", h, n)
	}
}

// A1: slow start, window 30 s, floor 10 %, for peers that are new or return.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{Picker: LeastRequest()}
		s := newSelector(selectorConfig{picker: rec})
		defer s.close()
		peers := weightedPeers(1, 2)
		s.set(peers)
		if w := rec.last().Weight(0); w != 1 {
			t.Errorf("at first the weight is %d, want all of it", w)
		}
		time.Sleep(time.Hour)
		if n := rec.count(); n != 1 {
			t.Errorf("%d snapshots while nothing happens", n)
		}
		joined := append(peers, &Peer{ID: "new", Weight: 2})
		s.set(joined)
		share := func() int { // of the new peer, in percent of the heavy one
			snap := rec.last()
			return 100 * snap.Weight(2) / snap.Weight(1)
		}
		for _, c := range []struct {
			after time.Duration
			want  int
		}{{0, 10}, {3 * time.Second, 10}, {12 * time.Second, 50}, {6 * time.Second, 70}, {10 * time.Second, 100}} {
			time.Sleep(c.after)
			synctest.Wait()
			if got := share(); got < c.want-7 || got > c.want {
				t.Errorf("%v later the share of the new peer is %d %%, want about %d", c.after, got, c.want)
			}
		}
		n := rec.count()
		if rec.last().weights != nil || n > 2*slowStartSteps {
			t.Errorf("at the end, after %d snapshots, the weights are %v", n, rec.last().weights)
		}
		s.setHealthy(peers[1], false, "down")
		s.setHealthy(peers[1], true, "up")
		snap := rec.last()
		if got := 100 * snap.Weight(1) / snap.Weight(2); got != 10 {
			t.Errorf("the share of a peer that returns is %d %%, want 10", got)
		}
	})
}

func TestSlowStartOfHashPolicies(t *testing.T) {
	s := newSelector(selectorConfig{picker: Maglev(0)})
	defer s.close()
	s.set(somePeers(2))
	peers := somePeers(3)
	s.set(peers)
	counts := make(map[*Peer]int)
	for k := range uint64(3000) {
		p, _ := s.pick(&Pick{Key: k, HasKey: true})
		counts[p]++
	}
	if counts[peers[2]] < 900 {
		t.Errorf("a new peer has %d of 3000 keys", counts[peers[2]])
	}
}

// The load that a new peer gets in its slow start is about its weight, also
// when there is little load.
func TestSlowStartBoundsTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSelector(selectorConfig{})
		defer s.close()
		s.set(somePeers(2))
		peers := somePeers(3)
		s.set(peers)
		if got := shares(s, peers, 10_000); !around(got, []int{48, 48, 5}) {
			t.Errorf("the shares are %v %%, want 48, 48 and 5", got)
		}
	})
}

func TestCloseStopsTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{Picker: LeastRequest()}
		s := newSelector(selectorConfig{picker: rec})
		s.set(somePeers(1))
		s.set(somePeers(2))
		s.close()
		s.close()
		n := rec.count()
		time.Sleep(time.Minute)
		if rec.count() != n {
			t.Error("the view was rebuilt after close")
		}
		s.setHealthy(s.peers[0], false, "late")
		if p, _ := s.pick(new(Pick)); p != s.peers[1] {
			t.Error("picks do not go on after close")
		}
	})
}

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{
		StateHealthy: "healthy", StateUnhealthy: "unhealthy", StateEjected: "ejected", StateDraining: "draining", 99: "unknown",
	} {
		if got := s.String(); got != want {
			t.Errorf("State(%d) is %q, want %q", s, got, want)
		}
	}
}

// Slow start ends for a peer that is out as well: nothing is built anew for it
// for as long as it is down.
func TestSlowStartEndsWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{Picker: Random()}
		s := newSelector(selectorConfig{picker: r})
		defer s.close()
		peers := somePeers(3)
		s.set(peers[:2])
		s.set(peers)
		s.setHealthy(peers[2], false, "down")
		time.Sleep(time.Minute)
		before := r.count()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := r.count() - before; got != 0 {
			t.Errorf("built %d times in an hour in which nothing has changed", got)
		}
	})
}
