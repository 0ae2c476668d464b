package upstream

import (
	"fmt"
	"testing"
)

// policies are all pickers of the package, by name.
func policies() map[string]func() Picker {
	return map[string]func() Picker{
		"LeastRequest":       LeastRequest,
		"PeakEWMA":           PeakEWMA,
		"LeastConnections":   LeastConnections,
		"Random":             Random,
		"RoundRobin":         RoundRobin,
		"WeightedRoundRobin": WeightedRoundRobin,
		"Rendezvous":         func() Picker { return Rendezvous(0) },
		"Maglev":             func() Picker { return Maglev(0) },
	}
}

// BenchmarkPick is a whole choice as the Pool makes it, with load on the peers.
func BenchmarkPick(b *testing.B) {
	for _, name := range []string{
		"LeastRequest", "PeakEWMA", "LeastConnections", "Random",
		"RoundRobin", "WeightedRoundRobin", "Rendezvous", "Maglev",
	} {
		for _, n := range []int{2, 8, 100} {
			for _, weighted := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/peers=%d/weighted=%v", name, n, weighted), func(b *testing.B) {
					peers := somePeers(n)
					for i, p := range peers {
						if weighted {
							p.Weight = 1 + i%5
						}
					}
					s := newSelector(selectorConfig{picker: policies()[name]()})
					defer s.close()
					s.set(peers)
					for i, p := range peers {
						for range i%4 + 1 {
							s.begin(p)
						}
						s.report(p, outcomeOK, 1000)
					}
					p := &Pick{HasKey: true}
					b.ReportAllocs()
					for b.Loop() {
						p.Key++
						if peer, _ := s.pick(p); peer == nil {
							b.Fatal("no peer")
						}
					}
				})
			}
		}
	}
}

// BenchmarkPickSticky is the choice for a client with a cookie, which is read.
func BenchmarkPickSticky(b *testing.B) {
	s := newSelector(selectorConfig{sticky: &Sticky{Keys: [][]byte{make([]byte, 32)}}})
	defer s.close()
	peers := somePeers(8)
	s.set(peers)
	h := cookieOf(s, peers[3])
	p := new(Pick)
	b.ReportAllocs()
	for b.Loop() {
		s.bind(p, h)
		if peer, _ := s.pick(p); peer != peers[3] {
			b.Fatal("the wrong peer")
		}
	}
}

// BenchmarkReport is what the end of an attempt costs.
func BenchmarkReport(b *testing.B) {
	s := newSelector(selectorConfig{})
	defer s.close()
	peers := somePeers(8)
	s.set(peers)
	b.ReportAllocs()
	for b.Loop() {
		s.begin(peers[0])
		s.report(peers[0], outcomeOK, 1000)
		s.end(peers[0])
	}
}

// BenchmarkPickParallel is LeastRequest on all processors at once.
func BenchmarkPickParallel(b *testing.B) {
	s := newSelector(selectorConfig{})
	defer s.close()
	s.set(somePeers(8))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		p := new(Pick)
		for pb.Next() {
			s.pick(p)
		}
	})
}

// BenchmarkBuild is what a change of the set costs.
func BenchmarkBuild(b *testing.B) {
	for _, name := range []string{"LeastRequest", "WeightedRoundRobin", "Maglev"} {
		for _, n := range []int{8, 100, 1000} {
			b.Run(fmt.Sprintf("%s/peers=%d", name, n), func(b *testing.B) {
				snap := Snapshot{Peers: somePeers(n)}
				for i, p := range snap.Peers {
					p.Weight = 1 + i%5
				}
				picker := policies()[name]()
				for b.Loop() {
					picker.Build(snap)
				}
			})
		}
	}
}
