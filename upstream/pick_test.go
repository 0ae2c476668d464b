package upstream

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// somePeers returns n peers of weight 1.
func somePeers(n int) []*Peer {
	peers := make([]*Peer, n)
	for i := range peers {
		peers[i] = &Peer{ID: fmt.Sprintf("http://10.0.0.%d:80", i), Weight: 1}
	}
	return peers
}

// weightedPeers returns peers of the weights.
func weightedPeers(weights ...int) []*Peer {
	peers := somePeers(len(weights))
	for i, w := range weights {
		peers[i].Weight = w
	}
	return peers
}

// selectorOf returns a selector over peers without slow start.
func selectorOf(t testing.TB, picker Picker, peers []*Peer) *selector {
	t.Helper()
	s := newSelector(selectorConfig{picker: picker, slowStart: -1})
	t.Cleanup(s.close)
	s.set(peers)
	return s
}

// seeded returns a Pick that always makes the same choices.
func seeded(seed uint64) *Pick { return &Pick{Rand: rand.New(rand.NewPCG(seed, 7))} }

// cookieOf returns the request header of a client that is bound to p.
func cookieOf(s *selector, p *Peer) http.Header {
	c, err := http.ParseSetCookie(p.load.sticky.line)
	if err != nil {
		panic(err)
	}
	return http.Header{"Cookie": {"a=b; " + c.Name + "=" + c.Value}}
}

// eachPolicy runs f for every policy of the package.
func eachPolicy(t *testing.T, f func(*testing.T, Picker)) {
	for name, picker := range policies() {
		t.Run(name, func(t *testing.T) { f(t, picker()) })
	}
}

func TestPickersSpreadByWeight(t *testing.T) {
	weights := []int{1, 2, 3, 6}
	const draws = 60_000
	eachPolicy(t, func(t *testing.T, picker Picker) {
		peers := weightedPeers(weights...)
		s := selectorOf(t, picker, peers)
		counts := make(map[*Peer]int)
		p := seeded(1)
		for i := range draws {
			p.Key, p.HasKey = uint64(i), true
			peer, _ := s.pick(p)
			counts[peer]++
		}
		for i, peer := range peers {
			want := float64(weights[i]) / 12
			if _, ok := picker.(*roundRobin); ok {
				want = 0.25 // takes no notice of weights
			}
			if _, ok := picker.(leastConnections); ok {
				// Idle peers: the heaviest has the fewest requests per weight.
				want = map[int]float64{3: 1}[i]
			}
			if got := float64(counts[peer]) / draws; math.Abs(got-want) > 0.01 {
				t.Errorf("the peer of weight %d has %.3f of the picks, want %.3f", weights[i], got, want)
			}
		}
	})
}

func TestPickersSpreadEvenly(t *testing.T) {
	const n, draws = 7, 70_000
	eachPolicy(t, func(t *testing.T, picker Picker) {
		peers := somePeers(n)
		s := selectorOf(t, picker, peers)
		counts := make(map[*Peer]int)
		p := seeded(2)
		for i := range draws {
			p.Key, p.HasKey = uint64(i), true
			peer, _ := s.pick(p)
			counts[peer]++
		}
		for _, peer := range peers {
			if got := float64(counts[peer]) * n / draws; math.Abs(got-1) > 0.05 {
				t.Errorf("%s has %.3f of its share", peer.ID, got)
			}
		}
	})
}

func TestPickersPassOverTried(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {3, 1, 1, 2, 1}} {
		eachPolicy(t, func(t *testing.T, picker Picker) {
			snap := Snapshot{Peers: weightedPeers(weights...)}
			pick := picker.Build(snap)
			for seed := range uint64(50) {
				p := seeded(seed)
				p.Key, p.HasKey = seed, seed%2 == 0
				p.peers = snap.Peers
				var got []int
				for range weights {
					i := pick(p)
					if i < 0 || slices.Contains(got, i) {
						t.Fatalf("pick after %v is %d", got, i)
					}
					got = append(got, i)
					p.exclude(snap.Peers[i])
				}
				if i := pick(p); i != -1 {
					t.Fatalf("when all are tried, the pick is %d, want -1", i)
				}
			}
		})
	}
}

// What a peer that fails leaves behind is not for its neighbour alone.
func TestPickersSpreadRetries(t *testing.T) {
	const n, draws = 6, 30_000
	eachPolicy(t, func(t *testing.T, picker Picker) {
		if _, ok := picker.(*weightedRoundRobin); ok {
			return // takes turns
		}
		if _, ok := picker.(*roundRobin); ok {
			return
		}
		peers := somePeers(n)
		s := selectorOf(t, picker, peers)
		counts := make(map[*Peer]int)
		p := seeded(9)
		p.exclude(peers[2])
		for i := range draws {
			p.Key, p.HasKey = uint64(i), true
			peer, _ := s.pick(p)
			counts[peer]++
		}
		for i, peer := range peers {
			want := 1.0
			if i == 2 {
				want = 0
			}
			if got := float64(counts[peer]) * (n - 1) / draws; math.Abs(got-want) > 0.06 {
				t.Errorf("%s has %.3f of its share", peer.ID, got)
			}
		}
	})
}

// A Peer or Snapshot that a user made for a test has neither load nor shared
// state.
func TestPickersTakePeersMadeByHand(t *testing.T) {
	eachPolicy(t, func(t *testing.T, picker Picker) {
		pick := picker.Build(Snapshot{Peers: []*Peer{{ID: "a"}, {ID: "b"}}})
		if i := pick(&Pick{HasKey: true}); i != 0 && i != 1 {
			t.Errorf("pick is %d", i)
		}
		p := Peer{ID: "a"}
		if p.Active() != 0 || p.Latency() != 0 {
			t.Errorf("active %d, latency %v, want zeros", p.Active(), p.Latency())
		}
	})
}

func TestPickersDoNotAllocate(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1}, {1, 2, 3, 4}} {
		eachPolicy(t, func(t *testing.T, picker Picker) {
			peers := weightedPeers(weights...)
			s := newSelector(selectorConfig{picker: picker, sticky: &Sticky{Keys: [][]byte{make([]byte, 32)}}})
			defer s.close()
			s.set(peers)
			h := cookieOf(s, peers[0])
			h["Cookie"][0] += "x" // nobody's
			p := new(Pick)
			if n := testing.AllocsPerRun(1000, func() {
				*p = Pick{Key: p.Key + 1, HasKey: true}
				s.bind(p, h)
				for range 3 {
					peer, _ := s.pick(p)
					s.begin(peer)
					s.report(peer, outcomeOK, time.Millisecond)
					s.end(peer)
					p.exclude(peer)
				}
			}); n != 0 {
				t.Errorf("%v allocations per request", n)
			}
		})
	}
}

func TestPickersAreSafeWhileTheSetChanges(t *testing.T) {
	eachPolicy(t, func(t *testing.T, picker Picker) {
		s := newSelector(selectorConfig{picker: picker})
		defer s.close()
		peers := weightedPeers(1, 2, 3, 4, 5, 6)
		s.set(peers)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 2000 {
					p := &Pick{Key: uint64(i), HasKey: i%2 == 0}
					for range 3 {
						peer, _ := s.pick(p)
						s.begin(peer)
						s.report(peer, outcome(i%3), time.Duration(i))
						s.end(peer)
						p.exclude(peer)
					}
				}
			})
		}
		for i := range 30 {
			s.set(peers[:1+i%len(peers)])
			s.setHealthy(peers[0], i%2 == 0, "test")
			s.counts()
		}
		wg.Wait()
		for _, p := range peers {
			if n := p.Active(); n != 0 {
				t.Errorf("%s has %d active requests at the end", p.ID, n)
			}
		}
		if n := s.shared.total.Load(); n != 0 {
			t.Errorf("%d active requests in sum at the end", n)
		}
	})
}

// A1, note 1: with two candidates, the busier one must never win.
func TestLeastRequestNeverTakesTheBusierOfTwo(t *testing.T) {
	peers := somePeers(2)
	s := selectorOf(t, LeastRequest(), peers)
	s.begin(peers[0])
	p := seeded(3)
	for range 1000 {
		if peer, _ := s.pick(p); peer != peers[1] {
			t.Fatal("picked the busier peer of two")
		}
	}
}

// A1: the two draws differ, so that the busiest of n is never picked at all.
func TestLeastRequestDrawsTwoDifferentPeers(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1, 1}, {100, 1, 1, 1, 1}} {
		peers := weightedPeers(weights...)
		s := selectorOf(t, LeastRequest(), peers)
		for range 1000 {
			s.begin(peers[0])
		}
		p := seeded(4)
		for range 5000 {
			if peer, _ := s.pick(p); peer == peers[0] {
				t.Fatalf("weights %v: picked the busiest peer", weights)
			}
		}
	}
}

// The load of the busiest peer under power of two choices is far below that of
// random choice.
func TestLeastRequestKeepsLoadLevel(t *testing.T) {
	const n, requests = 50, 1000
	busiest := func(picker Picker) int {
		peers := somePeers(n)
		s := selectorOf(t, picker, peers)
		p := seeded(5)
		most := 0
		for range requests {
			peer, _ := s.pick(p)
			s.begin(peer)
			most = max(most, peer.Active())
		}
		return most
	}
	if two, one := busiest(LeastRequest()), busiest(Random()); two > requests/n+4 || one < requests/n+8 {
		t.Errorf("the busiest peer has %d requests with LeastRequest and %d with Random; the mean is %d", two, one, requests/n)
	}
}

func TestLeastRequestFillsByWeight(t *testing.T) {
	peers := weightedPeers(1, 2, 4)
	s := selectorOf(t, LeastRequest(), peers)
	p := seeded(6)
	for range 7000 {
		peer, _ := s.pick(p)
		s.begin(peer)
	}
	for i, want := range []int{1000, 2000, 4000} {
		if got := peers[i].Active(); got < want*97/100 || got > want*103/100 {
			t.Errorf("the peer of weight %d has %d requests, want about %d", peers[i].Weight, got, want)
		}
	}
}

func TestLeastConnectionsTakesTheLeast(t *testing.T) {
	peers := weightedPeers(1, 1, 2, 1)
	s := selectorOf(t, LeastConnections(), peers)
	for i, n := range []int{3, 2, 4, 5} {
		for range n {
			s.begin(peers[i])
		}
	}
	// (4+1)/2 is less than 2+1.
	if peer, _ := s.pick(new(Pick)); peer != peers[2] {
		t.Errorf("picked %s, want %s", peer.ID, peers[2].ID)
	}
	s.end(peers[3])
	for range 4 {
		s.end(peers[3])
	}
	if peer, _ := s.pick(new(Pick)); peer != peers[3] {
		t.Errorf("picked %s, want the idle %s", peer.ID, peers[3].ID)
	}
}

// A1, note 2: a peer without a latency must not attract all traffic, and
// latencies below a millisecond must make a difference.
func TestPeakEWMADoesNotFloodANewPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(4)
		s := selectorOf(t, PeakEWMA(), peers)
		for _, p := range peers[:3] {
			s.report(p, outcomeOK, 5*time.Millisecond)
		}
		counts := make(map[*Peer]int)
		p := seeded(7)
		for range 8000 {
			peer, _ := s.pick(p)
			counts[peer]++
		}
		if got := counts[peers[3]]; got > 8000/4+200 {
			t.Errorf("the new peer has %d of 8000 picks", got)
		}

		joined := append(slices.Clone(peers), &Peer{ID: "new", Weight: 1})
		s.report(peers[0], outcomeOK, 9*time.Millisecond)
		s.set(joined)
		if got := joined[4].Latency(); got < 4*time.Millisecond || got > 6*time.Millisecond {
			t.Errorf("the latency of a peer that joins is %v, want the median of 5ms", got)
		}
	})
}

func TestPeakEWMAPrefersTheFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := somePeers(2)
		s := selectorOf(t, PeakEWMA(), peers)
		s.report(peers[0], outcomeOK, 300*time.Microsecond)
		s.report(peers[1], outcomeOK, 100*time.Microsecond)
		for range 100 {
			if peer, _ := s.pick(new(Pick)); peer != peers[1] {
				t.Fatal("picked the slower of two idle peers")
			}
		}
		for range 3 {
			s.begin(peers[1])
		}
		if peer, _ := s.pick(new(Pick)); peer != peers[0] {
			t.Error("picked the faster peer although it has four times the requests")
		}
	})
}

func TestEWMA(t *testing.T) {
	var e ewma
	if e.read(5) != 0 {
		t.Error("there is an average before the first latency")
	}
	e.add(0, 10*time.Millisecond, false)
	e.add(0, 80*time.Millisecond, false)
	if got := time.Duration(e.read(0)); got != 80*time.Millisecond {
		t.Errorf("after a peak of 80ms the average is %v", got)
	}
	if got := time.Duration(e.read(int64(halfLife))); got != 40*time.Millisecond {
		t.Errorf("a half-life later it is %v, want 40ms", got)
	}
	if got := time.Duration(e.read(int64(3 * halfLife))); got != 10*time.Millisecond {
		t.Errorf("three half-lives later it is %v, want 10ms", got)
	}
	e.add(int64(halfLife), 20*time.Millisecond, false)
	if got := time.Duration(e.read(int64(halfLife))); got != 50*time.Millisecond {
		t.Errorf("20ms after a half-life from 80ms make %v, want 50ms", got)
	}
	e.add(int64(halfLife), time.Millisecond, true)
	if got := time.Duration(e.read(int64(halfLife))); got != 50*time.Millisecond {
		t.Errorf("a failure after 1ms made the average %v", got)
	}
	e.add(int64(halfLife), time.Second, true)
	if got := time.Duration(e.read(int64(halfLife))); got != time.Second {
		t.Errorf("a failure after 1s made the average %v", got)
	}
	if got := e.read(math.MaxInt64); got != 1 {
		t.Errorf("in the end the average is %d, want 1", got)
	}
}

func TestDecayIsCloseToExponential(t *testing.T) {
	for d := time.Duration(0); d < time.Minute; d += 100 * time.Millisecond {
		const v = uint64(time.Hour)
		got := float64(decay(v, int64(d)))
		want := float64(v) * math.Exp2(-float64(d)/float64(halfLife))
		if r := got / want; r < 0.999 || r > 1.062 {
			t.Fatalf("after %v it is %.3f of the exponential", d, r)
		}
	}
}

func TestRoundRobinTurns(t *testing.T) {
	peers := somePeers(3)
	s := selectorOf(t, RoundRobin(), peers)
	var turns []*Peer
	for range 9 {
		peer, _ := s.pick(new(Pick))
		turns = append(turns, peer)
	}
	for i := range 6 {
		if turns[i] != turns[i+3] || turns[i] == turns[i+1] {
			t.Fatalf("turn %d is out of order", i)
		}
	}
}

func TestWeightedRoundRobinIsSmooth(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    []uint32
	}{
		{[]int{5, 1, 1}, []uint32{0, 0, 1, 0, 2, 0, 0}},
		{[]int{500, 100, 100}, []uint32{0, 0, 1, 0, 2, 0, 0}},
		{[]int{2, 2}, []uint32{0, 1}},
		{[]int{1}, []uint32{0}},
	} {
		if got := schedule(Snapshot{Peers: weightedPeers(c.weights...)}); !slices.Equal(got, c.want) {
			t.Errorf("weights %v: the turns are %v, want %v", c.weights, got, c.want)
		}
	}
}

// The weights of many peers in slow start add up to more than 32 bits hold.
func TestWeightedRoundRobinSumsInto64Bits(t *testing.T) {
	s := Snapshot{Peers: somePeers(60)}
	for range s.Peers {
		s.weights = append(s.weights, slowStartScale*maxWeight)
	}
	s.weights[0] = slowStartScale*maxWeight/10 + 1
	turns := schedule(s)
	counts := make([]int, len(s.Peers))
	for _, i := range turns {
		counts[i]++
	}
	if len(turns) > maxSchedule+len(counts) || counts[0] != 7 || counts[1] < 60 {
		t.Errorf("%d turns, %d and %d of them for the first two peers", len(turns), counts[0], counts[1])
	}
}

func TestWeightedRoundRobinBoundsItsSchedule(t *testing.T) {
	turns := schedule(Snapshot{Peers: weightedPeers(999_983, 500_009, 1)})
	counts := make([]int, 3)
	for _, i := range turns {
		counts[i]++
	}
	if len(turns) > maxSchedule+3 || counts[2] != 1 {
		t.Errorf("%d turns, %d of them for the lightest peer", len(turns), counts[2])
	}
	if r := float64(counts[0]) / float64(counts[1]); math.Abs(r-2) > 0.01 {
		t.Errorf("shares of weights 2 to 1 are %.3f to 1", r)
	}
}

// hashPolicies are the two that place requests by key.
func hashPolicies() map[string]func(float64) Picker {
	return map[string]func(float64) Picker{"Rendezvous": Rendezvous, "Maglev": Maglev}
}

// A policy that is written around another one may have no peers for it at times.
func TestBuildOfNone(t *testing.T) {
	for _, p := range []Picker{
		LeastRequest(), RoundRobin(), WeightedRoundRobin(), Random(), LeastConnections(), PeakEWMA(), Rendezvous(0), Maglev(0),
	} {
		if p.Build(Snapshot{}) == nil {
			t.Errorf("%T builds nothing", p)
		}
	}
}

// (f): when a peer leaves, only its keys move, or with a table few others.
func TestHashMovesFewKeys(t *testing.T) {
	const n, keys = 10, 20_000
	for name, picker := range hashPolicies() {
		for _, weighted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/weighted=%v", name, weighted), func(t *testing.T) {
				peers := somePeers(n)
				if weighted {
					for i := range peers {
						peers[i].Weight = 1 + i%3
					}
				}
				s := selectorOf(t, picker(-1), peers)
				place := func() map[uint64]*Peer {
					m := make(map[uint64]*Peer)
					for k := range uint64(keys) {
						m[k], _ = s.pick(&Pick{Key: k, HasKey: true})
					}
					return m
				}
				before := place()
				s.setHealthy(peers[4], false, "test")
				after := place()
				moved, spread := 0, make(map[*Peer]int)
				for k, p := range before {
					switch {
					case p == peers[4]:
						spread[after[k]]++
					case p != after[k]:
						moved++
					}
				}
				limit := 0
				if name == "Maglev" {
					limit = keys * 4 / 100
				}
				if moved > limit {
					t.Errorf("%d of %d keys moved that need not", moved, keys)
				}
				if len(spread) != n-1 {
					t.Errorf("the keys of the peer that left went to %d peers, want all %d", len(spread), n-1)
				}
				s.setHealthy(peers[4], true, "test")
				for k, p := range place() {
					if p != before[k] {
						t.Fatalf("key %d did not come back", k)
					}
				}
			})
		}
	}
}

// Instances of a program must agree, whatever order their peers are in.
func TestHashDoesNotDependOnOrder(t *testing.T) {
	for name, picker := range hashPolicies() {
		t.Run(name, func(t *testing.T) {
			peers := weightedPeers(1, 2, 3, 1, 2, 3)
			turned := slices.Clone(peers)
			slices.Reverse(turned)
			a, b := picker(-1).Build(Snapshot{Peers: peers}), picker(-1).Build(Snapshot{Peers: turned})
			for k := range uint64(5000) {
				p := &Pick{Key: k, HasKey: true}
				if i, j := a(p), b(p); peers[i] != turned[j] {
					t.Fatalf("key %d is at %s or at %s", k, peers[i].ID, turned[j].ID)
				}
			}
		})
	}
}

// The places of keys are the same in every release: a change would move the
// keys of all instances that have not been updated yet.
func TestHashIsStable(t *testing.T) {
	if got := Hash("user-42"); got != 0x32c6d7a54d35dacb {
		t.Errorf("Hash is %#x", got)
	}
	peers := somePeers(5)
	for name, want := range map[string][]int{
		"Rendezvous": {0, 3, 3, 3, 3, 1, 2, 4},
		"Maglev":     {0, 3, 0, 4, 1, 3, 0, 4},
	} {
		pick := hashPolicies()[name](-1).Build(Snapshot{Peers: peers})
		var got []int
		for k := range uint64(8) {
			got = append(got, pick(&Pick{Key: k, HasKey: true}))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s places the keys at %v, want %v", name, got, want)
		}
	}
}

func TestHashBoundsLoad(t *testing.T) {
	for name, picker := range hashPolicies() {
		t.Run(name, func(t *testing.T) {
			peers := weightedPeers(1, 1, 1, 1, 1, 3)
			s := selectorOf(t, picker(1.25), peers)
			// One key for half of all requests, and no request ends.
			for i := range 800 {
				p := &Pick{Key: uint64(i), HasKey: true}
				if i%2 == 0 {
					p.Key = 42
				}
				peer, _ := s.pick(p)
				s.begin(peer)
				for _, q := range peers {
					fair := float64(q.Weight) / 8 * float64(i+1)
					if limit := math.Ceil(1.25 * fair); float64(q.Active()) > max(limit, 1) {
						t.Fatalf("after %d requests %s has %d, above its bound of %v", i+1, q.ID, q.Active(), limit)
					}
				}
			}
			free := selectorOf(t, picker(-1), somePeers(6))
			for range 600 {
				peer, _ := free.pick(&Pick{Key: 42, HasKey: true})
				free.begin(peer)
			}
			if peer, _ := free.pick(&Pick{Key: 42, HasKey: true}); peer.Active() != 600 {
				t.Errorf("without a bound, the key's peer has %d of 600 requests", peer.Active())
			}
		})
	}
}

func TestHashWithoutKeyIsRandom(t *testing.T) {
	for name, picker := range hashPolicies() {
		t.Run(name, func(t *testing.T) {
			peers := somePeers(4)
			s := selectorOf(t, picker(0), peers)
			counts := make(map[*Peer]int)
			p := seeded(8)
			for range 4000 {
				peer, _ := s.pick(p)
				counts[peer]++
			}
			for _, p := range peers {
				if counts[p] < 900 {
					t.Errorf("%s has %d of 4000 picks", p.ID, counts[p])
				}
			}
		})
	}
}

func TestHashRefusesABoundBelowOne(t *testing.T) {
	for _, c := range []struct {
		bound float64
		ok    bool
	}{{0, true}, {-1, true}, {1, true}, {2, true}, {0.5, false}, {math.NaN(), false}, {math.Inf(1), false}} {
		for name, picker := range hashPolicies() {
			if err := checkPicker(picker(c.bound)).err(); (err == nil) != c.ok {
				t.Errorf("%s(%v): %v", name, c.bound, err)
			}
		}
	}
	if err := checkPicker(LeastRequest()).err(); err != nil {
		t.Error(err)
	}
}
