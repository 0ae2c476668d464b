// Package targets holds what the kit promises about speed and memory as
// measures against named peers, and the harness that judges them.
//
// A measure runs in rounds. Each round runs every contestant once, in an order
// that rotates, so that a busy moment on the machine falls on all of them
// alike. Times are compared by the minimum over the rounds, the one statistic
// that a loaded machine only ever moves in one direction; bytes and
// allocations by the median.
package targets

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Measure is one benchmark of ours, what it may cost, and the peers that do
// the same work.
type Measure struct {
	Package string // of the kit
	Name    string
	Ours    func(*testing.B)

	// MaxAllocs and MaxBytes bound allocs/op and B/op of Ours. Zero is not
	// judged, negative is none allowed.
	MaxAllocs int64
	MaxBytes  int64

	Peers []Peer
}

// Peer is a contestant that Ours is compared with.
type Peer struct {
	Name string
	Run  func(*testing.B)

	// MaxRatio bounds the time of Ours divided by that of the peer. Zero is
	// not judged.
	MaxRatio float64
}

// All lists every measure. A package of the kit adds a file with its own
// measures and a line here.
func All() []Measure {
	return slices.Concat(
		breakerMeasures(),
		reqidMeasures(),
		storeMeasures(),
		timeoutMeasures(),
	)
}

// Runner runs measures.
type Runner struct {
	// Rounds is how often each contestant runs, at least once.
	Rounds int

	// Bench runs one contestant once; nil is testing.Benchmark, which takes
	// its duration from the flag test.benchtime.
	Bench func(func(*testing.B)) testing.BenchmarkResult
}

// Row is one judged line: a ratio against a peer, or an absolute cost of ours.
type Row struct {
	Package string `json:"package"`
	Measure string `json:"measure"`
	Unit    string `json:"unit"` // "ns/op", "allocs/op" or "B/op"

	Ours       float64 `json:"ours"`
	OursMedian float64 `json:"ours_median"`

	Peer       string  `json:"peer,omitempty"` // empty in an absolute row
	Theirs     float64 `json:"theirs,omitempty"`
	PeerMedian float64 `json:"peer_median,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"`

	Target float64 `json:"target"` // largest Ratio, or largest Ours in an absolute row
	Judged bool    `json:"judged"` // false: shown for comparison
	OK     bool    `json:"ok"`     // true when not judged
}

// Run runs one measure and returns its rows: times against each peer, then
// allocations, then bytes.
func (r Runner) Run(m Measure) ([]Row, error) {
	contestants := []Peer{{Name: "ours", Run: m.Ours}}
	contestants = append(contestants, m.Peers...)
	stats := make([]stat, len(contestants))
	for round := range max(r.Rounds, 1) {
		for i := range contestants {
			k := (round + i) % len(contestants)
			res, err := r.bench(contestants[k].Run)
			if err != nil {
				return nil, fmt.Errorf("%s, %s, %s: %w", m.Package, m.Name, contestants[k].Name, err)
			}
			stats[k].add(res)
		}
	}

	var rows []Row
	ours := stats[0]
	for i, p := range m.Peers {
		theirs := stats[i+1]
		row := Row{
			Package: m.Package, Measure: m.Name, Unit: "ns/op",
			Ours: slices.Min(ours.ns), OursMedian: median(ours.ns),
			Peer: p.Name, Theirs: slices.Min(theirs.ns), PeerMedian: median(theirs.ns),
			Target: p.MaxRatio, Judged: p.MaxRatio != 0,
		}
		row.Ratio = row.Ours / row.Theirs
		row.OK = !row.Judged || row.Ratio <= row.Target
		rows = append(rows, row)
	}
	absolute := func(unit string, values []float64, limit int64) {
		if limit == 0 {
			return
		}
		row := Row{
			Package: m.Package, Measure: m.Name, Unit: unit,
			Ours: median(values), OursMedian: median(values),
			Target: float64(max(limit, 0)), Judged: true,
		}
		row.OK = row.Ours <= row.Target
		rows = append(rows, row)
	}
	absolute("allocs/op", ours.allocs, m.MaxAllocs)
	absolute("B/op", ours.bytes, m.MaxBytes)
	return rows, nil
}

func (r Runner) bench(f func(*testing.B)) (testing.BenchmarkResult, error) {
	run := r.Bench
	if run == nil {
		run = testing.Benchmark
	}
	failed := false
	res := run(func(b *testing.B) {
		// testing.Benchmark keeps the message to itself and only stops early.
		defer func() { failed = failed || b.Failed() || b.Skipped() }()
		f(b)
	})
	if failed || res.N == 0 {
		return res, fmt.Errorf("the benchmark failed")
	}
	return res, nil
}

// stat collects the results of one contestant, one value a round.
type stat struct {
	ns, allocs, bytes []float64
}

func (s *stat) add(r testing.BenchmarkResult) {
	s.ns = append(s.ns, float64(r.T)/float64(time.Nanosecond)/float64(r.N))
	s.allocs = append(s.allocs, float64(r.AllocsPerOp()))
	s.bytes = append(s.bytes, float64(r.AllocedBytesPerOp()))
}

// median of an even number of values is the lower of the middle two: a value
// that was measured.
func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}
