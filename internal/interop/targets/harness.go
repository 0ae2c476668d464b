// Package targets holds what the kit promises about speed and memory as
// measures against named peers, and the harness that judges them.
//
// A measure runs in rounds. Each round runs every contestant once, in an order
// that rotates, so that a busy moment on the machine falls on all of them
// alike. Times are compared by the minimum over the rounds (unless a measure says
// otherwise), rates by the maximum, the one statistic that a loaded machine only ever moves in one
// direction; bytes, allocations and what benchmarks report themselves by the
// median.
package targets

import (
	"errors"
	"flag"
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

	// Metrics bound what Ours reports with b.ReportMetric.
	Metrics []Metric

	// Ratios bound what Ours reports with b.ReportMetric, divided by what each
	// peer reports that does. Max zero is not judged.
	Ratios []Metric

	// Scale is how contestants are compared in time.
	Scale Scale

	// MaxTime bounds the time of Ours, where it is short and depends on little
	// but the processor. Zero is not judged.
	MaxTime time.Duration

	// Paired compares by the median of the ratios of each round, and not by the
	// minima: for CPU time, which a busy machine moves in both directions.
	Paired bool

	// Medians compares by the median of the times, and not by the minima: for
	// what two processes or many goroutines do together, whose luckiest round says
	// little, and where the target is one of medians.
	Medians bool

	Peers []Peer

	// Setup, if not nil, makes ready what the contestants share, a server
	// above all, and returns what takes it away after the last round.
	Setup func() (end func(), err error)

	// Rounds is the most rounds, for what takes long. Zero is no bound.
	Rounds int

	// Benchtime is how long a contestant runs in a round at least, or how often
	// exactly, as in the flag test.benchtime: for what needs more time than
	// most, or has one size. Empty leaves it to the runner, and so does a
	// runner that itself says how often.
	Benchtime string
}

// Metric is a figure of a benchmark's own.
type Metric struct {
	Unit string
	Max  float64
}

// Scale is a scale to compare on.
type Scale int

const (
	Time  Scale = iota // ns/op; less is better
	Rate               // ops/s, of all goroutines together; more is better
	Apart              // not at all
)

// Peer is a contestant that Ours is compared with.
type Peer struct {
	Name string
	Run  func(*testing.B)

	// MaxRatio bounds the time of Ours divided by that of the peer, and with
	// the scale Rate MinRatio the rate likewise, from below. Zero is not judged.
	MaxRatio float64
	MinRatio float64

	// MaxAllocsRatio bounds the allocations of Ours divided by those of the
	// peer. Zero is not judged, and there is no row.
	MaxAllocsRatio float64
}

// All lists every measure. A package of the kit adds a file with its own
// measures and a line here.
func All() []Measure {
	return slices.Concat(
		breakerMeasures(),
		medians(cookiesMeasures()),
		forwardauthMeasures(),
		paginateMeasures(),
		ratelimitMeasures(),
		reqidMeasures(),
		medians(sessionMeasures()),
		storeMeasures(),
		timeoutMeasures(),
		upstreamMeasures(),
		medians(webhookMeasures()),
		wsproxyMeasures(),
	)
}

// medians has measures compared by the medians of their times, as their targets
// were set: what a peer allocates is collected in some of its rounds, and belongs
// to its time.
func medians(all []Measure) []Measure {
	for i := range all {
		all[i].Medians = true
	}
	return all
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
	Unit    string `json:"unit"` // "ns/op", "ops/s", "allocs/op", "B/op" or a metric's

	Ours       float64 `json:"ours"`
	OursMedian float64 `json:"ours_median"`

	Peer       string  `json:"peer,omitempty"` // empty in an absolute row
	Theirs     float64 `json:"theirs,omitempty"`
	PeerMedian float64 `json:"peer_median,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"`

	Target float64 `json:"target"`             // largest Ratio, or largest Ours in an absolute row
	Least  bool    `json:"at_least,omitempty"` // Target is the smallest Ratio instead
	Judged bool    `json:"judged"`             // false: shown for comparison
	OK     bool    `json:"ok"`                 // true when not judged
}

// Run runs one measure and returns its rows: times or rates against each peer,
// then ratios of metrics, then allocations, bytes and metrics of ours.
func (r Runner) Run(m Measure) ([]Row, error) {
	if m.Setup != nil {
		end, err := m.Setup()
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", m.Package, m.Name, err)
		}
		defer end()
	}
	if m.Benchtime != "" {
		restore, err := setBenchtime(m.Benchtime)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: Benchtime: %w", m.Package, m.Name, err)
		}
		defer restore()
	}
	rounds := max(r.Rounds, 1)
	if m.Rounds > 0 {
		rounds = min(rounds, m.Rounds)
	}
	contestants := []Peer{{Name: "ours", Run: m.Ours}}
	contestants = append(contestants, m.Peers...)
	stats := make([]stat, len(contestants))
	for round := range rounds {
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
		row := Row{Package: m.Package, Measure: m.Name, Peer: p.Name}
		switch m.Scale {
		case Time:
			row.Unit, row.Target = "ns/op", p.MaxRatio
			row.Ours, row.OursMedian = slices.Min(ours.ns), median(ours.ns)
			row.Theirs, row.PeerMedian = slices.Min(theirs.ns), median(theirs.ns)
		case Rate:
			row.Unit, row.Target, row.Least = "ops/s", p.MinRatio, true
			row.Ours, row.OursMedian = 1e9/slices.Min(ours.ns), 1e9/median(ours.ns)
			row.Theirs, row.PeerMedian = 1e9/slices.Min(theirs.ns), 1e9/median(theirs.ns)
		default:
			continue
		}
		if m.Medians {
			row.Ours, row.Theirs = row.OursMedian, row.PeerMedian
		}
		row = row.judged()
		if m.Paired {
			row.Ratio = ours.against(theirs)
			row.OK = !row.Judged || row.Ratio <= row.Target
		}
		rows = append(rows, row)
		if p.MaxAllocsRatio != 0 {
			rows = append(rows, Row{
				Package: m.Package, Measure: m.Name, Unit: "allocs/op", Peer: p.Name, Target: p.MaxAllocsRatio,
				Ours: median(ours.allocs), OursMedian: median(ours.allocs),
				Theirs: median(theirs.allocs), PeerMedian: median(theirs.allocs),
			}.judged())
		}
	}
	for _, metric := range m.Ratios {
		values, err := ours.metric(m, metric)
		if err != nil {
			return nil, err
		}
		for i, p := range m.Peers {
			theirs := stats[i+1].extra[metric.Unit]
			if len(theirs) == 0 {
				continue
			}
			rows = append(rows, Row{
				Package: m.Package, Measure: m.Name, Unit: metric.Unit, Peer: p.Name, Target: metric.Max,
				Ours: median(values), OursMedian: median(values), Theirs: median(theirs), PeerMedian: median(theirs),
			}.judged())
		}
	}
	absolute := func(unit string, values []float64, limit float64) {
		row := Row{
			Package: m.Package, Measure: m.Name, Unit: unit,
			Ours: median(values), OursMedian: median(values),
			Target: limit, Judged: true,
		}
		row.OK = row.Ours <= row.Target
		rows = append(rows, row)
	}
	if m.MaxTime != 0 {
		row := Row{
			Package: m.Package, Measure: m.Name, Unit: "ns/op",
			Ours: slices.Min(ours.ns), OursMedian: median(ours.ns), Target: float64(m.MaxTime), Judged: true,
		}
		row.OK = row.Ours <= row.Target
		rows = append(rows, row)
	}
	if m.MaxAllocs != 0 {
		absolute("allocs/op", ours.allocs, float64(max(m.MaxAllocs, 0)))
	}
	if m.MaxBytes != 0 {
		absolute("B/op", ours.bytes, float64(max(m.MaxBytes, 0)))
	}
	for _, metric := range m.Metrics {
		values, err := ours.metric(m, metric)
		if err != nil {
			return nil, err
		}
		absolute(metric.Unit, values, metric.Max)
	}
	return rows, nil
}

// judged completes a row with a peer. A zero target is none.
func (row Row) judged() Row {
	if row.Theirs != 0 {
		row.Ratio = row.Ours / row.Theirs
	}
	row.Judged = row.Target != 0
	switch {
	case !row.Judged:
		row.Least, row.OK = false, true
	case row.Least:
		row.OK = row.Ratio >= row.Target
	default:
		row.OK = row.Ratio <= row.Target && (row.Theirs != 0 || row.Ours == 0)
	}
	return row
}

// setBenchtime sets the flag test.benchtime unless it has a number of runs, or
// a longer time. restore sets it back.
func setBenchtime(d string) (restore func(), err error) {
	f := flag.Lookup("test.benchtime")
	if f == nil {
		return nil, errors.New("testing.Init was not called")
	}
	old := f.Value.String()
	was, err := time.ParseDuration(old)
	if err != nil {
		return func() {}, nil // a number of runs
	}
	if least, err := time.ParseDuration(d); err == nil && least <= was {
		return func() {}, nil
	}
	return func() { f.Value.Set(old) }, f.Value.Set(d)
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
	extra             map[string][]float64 // by unit
}

// against is the median over the rounds of the time of s divided by that of
// other.
func (s *stat) against(other stat) float64 {
	ratios := make([]float64, len(s.ns))
	for round := range s.ns {
		ratios[round] = s.ns[round] / other.ns[round]
	}
	return median(ratios)
}

// add takes the time that a benchmark has reported in place of the clock's, if
// it has.
func (s *stat) add(r testing.BenchmarkResult) {
	ns, ok := r.Extra["ns/op"]
	if !ok {
		ns = float64(r.T) / float64(time.Nanosecond) / float64(r.N)
	}
	s.ns = append(s.ns, ns)
	s.allocs = append(s.allocs, float64(r.AllocsPerOp()))
	s.bytes = append(s.bytes, float64(r.AllocedBytesPerOp()))
	for unit, v := range r.Extra {
		if s.extra == nil {
			s.extra = make(map[string][]float64)
		}
		s.extra[unit] = append(s.extra[unit], v)
	}
}

// metric returns what was reported, which must be something.
func (s *stat) metric(m Measure, metric Metric) ([]float64, error) {
	values := s.extra[metric.Unit]
	if len(values) == 0 {
		return nil, fmt.Errorf("%s, %s: no %s was reported", m.Package, m.Name, metric.Unit)
	}
	return values, nil
}

// median of an even number of values is the lower of the middle two: a value
// that was measured.
func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}
