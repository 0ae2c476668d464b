package upstream

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The estimate that spares Rendezvous a logarithm never decides otherwise than
// the logarithm would.
func TestCheaperIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	scores := []uint64{0, 1, 1 << 11, 1 << 32, 1 << 63, math.MaxUint64 - 1<<12, math.MaxUint64 - 1<<11, math.MaxUint64}
	weights := []float64{1, 2, 3, 7, 100, 65535, 1 << 30}
	check := func(a uint64, v float64, b uint64, w float64) {
		t.Helper()
		if got, want := cheaper(a, v, b, w) != 0, cost(a, v) < cost(b, w); got != want {
			t.Fatalf("cheaper(%d, %v, %d, %v) = %v", a, v, b, w, got)
		}
	}
	for _, a := range scores {
		for _, b := range scores {
			for _, v := range weights {
				for _, w := range weights {
					check(a, v, b, w)
				}
			}
		}
	}
	for range 200_000 {
		a := r.Uint64()
		v, w := weights[r.IntN(len(weights))], weights[r.IntN(len(weights))]
		check(a, v, r.Uint64(), w)
		// Close to where the two cost the same.
		u := math.Pow(unitFloat(a), w/v)
		check(a, v, uint64(u*(1<<53))<<11+uint64(r.IntN(5))<<11, w)
	}
}

// LeastConnections takes one of those with the fewest requests per weight, and
// each of them, whether or not the weights fit into the quick form.
func TestLeastConnectionsIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, weights := range map[string][]int{
		"equal": {1, 1, 1, 1}, "small": {1, 2, 3, 4, 6}, "one": {5},
		"large": {65536, 32768, 1}, "no common multiple": {1009, 1013, 1019, 1021}, "beyond": {1 << 21, 1 << 20, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := Snapshot{}
			for i, w := range weights {
				s.Peers = append(s.Peers, &Peer{ID: string(rune('a' + i)), Weight: w, load: new(load)})
			}
			pick := LeastConnections().Build(s)
			units := unitsOf(newCandidates(s).list)
			if want := name != "no common multiple" && name != "beyond"; (units != nil) != want {
				t.Errorf("quick form: %v, want %v", units != nil, want)
			}
			for range 200 {
				for i, w := range weights {
					s.Peers[i].load.active.Store(int64(r.IntN(min(3*w, 100))))
				}
				best := map[int]bool{}
				for i := range weights {
					least := true
					for j := range weights {
						a := uint64(s.Peers[i].Active()+1) * uint64(weights[j])
						b := uint64(s.Peers[j].Active()+1) * uint64(weights[i])
						least = least && a <= b
					}
					if least {
						best[i] = true
					}
				}
				seen := map[int]bool{}
				for range 60 {
					i := pick(&Pick{Rand: r})
					if !best[i] {
						t.Fatalf("picked %d, the least are %v", i, best)
					}
					seen[i] = true
				}
				if len(seen) != len(best) {
					t.Fatalf("picked %v only, of %v", seen, best)
				}
			}
		})
	}
}
