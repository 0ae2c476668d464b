package targets

import (
	"encoding/json"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

// script stands in for testing.Benchmark. It runs the contestant once, which
// says who it is, and answers with that contestant's next result.
type script struct {
	results map[string][]testing.BenchmarkResult
	order   []string
	current string
}

func (s *script) contestant(name string) func(*testing.B) {
	return func(*testing.B) { s.current = name }
}

func (s *script) bench(f func(*testing.B)) testing.BenchmarkResult {
	f(new(testing.B))
	s.order = append(s.order, s.current)
	next := s.results[s.current]
	s.results[s.current] = next[1:]
	return next[0]
}

// took makes results of 10 iterations from nanoseconds per iteration.
func took(ns ...int) []testing.BenchmarkResult {
	var all []testing.BenchmarkResult
	for _, n := range ns {
		all = append(all, testing.BenchmarkResult{N: 10, T: time.Duration(10 * n), MemAllocs: 30, MemBytes: 640})
	}
	return all
}

func TestRun(t *testing.T) {
	s := &script{results: map[string][]testing.BenchmarkResult{
		"ours":  took(130, 100, 120),
		"slow":  took(400, 200, 300),
		"fast":  took(90, 80, 70),
		"shown": took(10, 10, 10),
	}}
	got, err := Runner{Rounds: 3, Bench: s.bench}.Run(Measure{
		Package: "p", Name: "m", Ours: s.contestant("ours"), MaxAllocs: 3, MaxBytes: 63,
		Peers: []Peer{
			{Name: "slow", Run: s.contestant("slow"), MaxRatio: 0.5},
			{Name: "fast", Run: s.contestant("fast"), MaxRatio: 1.2},
			{Name: "shown", Run: s.contestant("shown")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Row{
		{Package: "p", Measure: "m", Unit: "ns/op", Ours: 100, OursMedian: 120, Peer: "slow", Theirs: 200, PeerMedian: 300, Ratio: 0.5, Target: 0.5, Judged: true, OK: true},
		{Package: "p", Measure: "m", Unit: "ns/op", Ours: 100, OursMedian: 120, Peer: "fast", Theirs: 70, PeerMedian: 80, Ratio: 100. / 70, Target: 1.2, Judged: true},
		{Package: "p", Measure: "m", Unit: "ns/op", Ours: 100, OursMedian: 120, Peer: "shown", Theirs: 10, PeerMedian: 10, Ratio: 10, OK: true},
		{Package: "p", Measure: "m", Unit: "allocs/op", Ours: 3, OursMedian: 3, Target: 3, Judged: true, OK: true},
		{Package: "p", Measure: "m", Unit: "B/op", Ours: 64, OursMedian: 64, Target: 63, Judged: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	order := []string{
		"ours", "slow", "fast", "shown",
		"slow", "fast", "shown", "ours",
		"fast", "shown", "ours", "slow",
	}
	if !slices.Equal(s.order, order) {
		t.Errorf("order %v, want %v", s.order, order)
	}
}

// What a benchmark reports of its own is judged by the median, and must be there.
// Medians are compared in the place of the minima, and are what is shown.
func TestRunMedians(t *testing.T) {
	s := &script{results: map[string][]testing.BenchmarkResult{
		"ours": took(130, 100, 120),
		"peer": took(400, 200, 300),
	}}
	got, err := Runner{Rounds: 3, Bench: s.bench}.Run(Measure{
		Package: "p", Name: "m", Ours: s.contestant("ours"), Medians: true,
		Peers: []Peer{{Name: "peer", Run: s.contestant("peer"), MaxRatio: 0.39}},
	})
	want := []Row{{Package: "p", Measure: "m", Unit: "ns/op", Ours: 120, OursMedian: 120, Peer: "peer", Theirs: 300, PeerMedian: 300, Ratio: 0.4, Target: 0.39, Judged: true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestRunMetrics(t *testing.T) {
	reported := func(values ...float64) (all []testing.BenchmarkResult) {
		for _, v := range values {
			all = append(all, testing.BenchmarkResult{N: 1, T: 1, Extra: map[string]float64{"%lost": v}})
		}
		return all
	}
	for _, c := range []struct {
		unit string
		max  float64
		want []Row
	}{
		{"%lost", 7, []Row{{Package: "p", Measure: "m", Unit: "%lost", Ours: 6.5, OursMedian: 6.5, Target: 7, Judged: true, OK: true}}},
		{"%lost", 6, []Row{{Package: "p", Measure: "m", Unit: "%lost", Ours: 6.5, OursMedian: 6.5, Target: 6, Judged: true}}},
		{"%found", 7, nil},
	} {
		s := &script{results: map[string][]testing.BenchmarkResult{"ours": reported(9, 3, 6.5)}}
		got, err := Runner{Rounds: 3, Bench: s.bench}.Run(Measure{
			Package: "p", Name: "m", Ours: s.contestant("ours"), Metrics: []Metric{{c.unit, c.max}},
		})
		if (err != nil) != (c.want == nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s below %v: got %+v, %v, want %+v", c.unit, c.max, got, err, c.want)
		}
	}
}

func TestRunLimits(t *testing.T) {
	for _, c := range []struct {
		name              string
		allocs            uint64
		limit             int64
		rows              int
		ok                bool
		wantTarget, value float64
	}{
		{"not judged", 5, 0, 0, false, 0, 0},
		{"none allowed, none made", 0, -1, 1, true, 0, 0},
		{"none allowed, one made", 10, -1, 1, false, 0, 1},
		{"less than one an operation", 9, -1, 1, true, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bench := func(f func(*testing.B)) testing.BenchmarkResult {
				return testing.BenchmarkResult{N: 10, T: 10, MemAllocs: c.allocs}
			}
			rows, err := Runner{Bench: bench}.Run(Measure{Ours: func(*testing.B) {}, MaxAllocs: c.limit})
			if err != nil || len(rows) != c.rows {
				t.Fatalf("%d rows, %v", len(rows), err)
			}
			if c.rows == 1 && (rows[0].OK != c.ok || rows[0].Target != c.wantTarget || rows[0].Ours != c.value) {
				t.Errorf("%+v", rows[0])
			}
		})
	}
}

// A contestant that fails is an error, never a fast one.
func TestRunFailure(t *testing.T) {
	for name, f := range map[string]func(*testing.B){
		"fatal": func(b *testing.B) { b.FailNow() },
		"late": func(b *testing.B) {
			for b.Loop() {
			}
			b.Fail()
		},
		"skip": func(b *testing.B) { b.SkipNow() },
	} {
		t.Run(name, func(t *testing.T) {
			benchtime(t, "1x")
			_, err := Runner{}.Run(Measure{
				Package: "p", Name: "m", Ours: func(*testing.B) {},
				Peers: []Peer{{Name: "broken", Run: f}},
			})
			if err == nil || !strings.Contains(err.Error(), "p, m, broken: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// reports makes one result for each value, which the benchmark has reported
// itself.
func reports(unit string, values ...float64) []testing.BenchmarkResult {
	var all []testing.BenchmarkResult
	for _, v := range values {
		all = append(all, testing.BenchmarkResult{N: 10, T: 1000, Extra: map[string]float64{unit: v}})
	}
	return all
}

// Rates are compared by the best round, from below.
func TestRunRate(t *testing.T) {
	s := &script{results: map[string][]testing.BenchmarkResult{
		"ours":  took(130, 100, 120),
		"slow":  took(400, 200, 300),
		"equal": took(100, 150, 160),
		"shown": took(10, 10, 10),
	}}
	got, err := Runner{Rounds: 3, Bench: s.bench}.Run(Measure{
		Package: "p", Name: "m", Scale: Rate, Ours: s.contestant("ours"),
		Peers: []Peer{
			{Name: "slow", Run: s.contestant("slow"), MinRatio: 2},
			{Name: "equal", Run: s.contestant("equal"), MinRatio: 1.5},
			{Name: "shown", Run: s.contestant("shown")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	row := Row{Package: "p", Measure: "m", Unit: "ops/s", Ours: 1e7, OursMedian: 1e9 / 120.}
	slow, equal, shown := row, row, row
	slow.Peer, slow.Theirs, slow.PeerMedian, slow.Ratio, slow.Target, slow.Least, slow.Judged, slow.OK = "slow", 5e6, 1e9/300., 2, 2, true, true, true
	equal.Peer, equal.Theirs, equal.PeerMedian, equal.Ratio, equal.Target, equal.Least, equal.Judged = "equal", 1e7, 1e9/150., 1, 1.5, true, true
	shown.Peer, shown.Theirs, shown.PeerMedian, shown.Ratio, shown.OK = "shown", 1e8, 1e8, 0.1, true
	if want := []Row{slow, equal, shown}; !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// What benchmarks report themselves is compared by the median, with the peers
// that report it.
func TestRunRatios(t *testing.T) {
	s := &script{results: map[string][]testing.BenchmarkResult{
		"ours":  reports("B/key", 50, 48, 47),
		"large": reports("B/key", 100, 160, 120),
		"small": reports("B/key", 40, 40, 40),
		"none":  reports("B/key", 0, 0, 0),
		"mute":  took(1, 1, 1),
	}}
	m := Measure{
		Package: "p", Name: "m", Scale: Apart, Ours: s.contestant("ours"), Rounds: 3, Ratios: []Metric{{"B/key", 0.4}},
		Metrics: []Metric{{"B/key", 47}},
	}
	for _, name := range []string{"large", "small", "none", "mute"} {
		m.Peers = append(m.Peers, Peer{Name: name, Run: s.contestant(name)})
	}
	got, err := Runner{Rounds: 11, Bench: s.bench}.Run(m)
	if err != nil {
		t.Fatal(err)
	}
	row := Row{Package: "p", Measure: "m", Unit: "B/key", Ours: 48, OursMedian: 48, Target: 0.4, Judged: true}
	large, small, none, own := row, row, row, row
	large.Peer, large.Theirs, large.PeerMedian, large.Ratio, large.OK = "large", 120, 120, 0.4, true
	small.Peer, small.Theirs, small.PeerMedian, small.Ratio = "small", 40, 40, 1.2
	none.Peer = "none" // infinitely more than nothing
	own.Target = 47
	if want := []Row{large, small, none, own}; !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(s.order) != 15 {
		t.Errorf("%d runs, want 3 rounds of 5", len(s.order))
	}

	s.results["ours"] = took(1)
	m.Peers, m.Rounds = nil, 1
	if _, err := (Runner{Bench: s.bench}).Run(m); err == nil || !strings.Contains(err.Error(), "p, m: no B/key was reported") {
		t.Errorf("without a report: %v", err)
	}
}

// Setup comes before the first round, and what it returns after the last, also
// when a contestant fails. Its error is that of the measure.
func TestRunSetup(t *testing.T) {
	var order []string
	note := func(what string) { order = append(order, what) }
	m := Measure{
		Package: "p", Name: "m",
		Setup: func() (func(), error) { note("setup"); return func() { note("end") }, nil },
		Ours:  func(*testing.B) { note("ours") },
	}
	bench := func(f func(*testing.B)) testing.BenchmarkResult {
		f(new(testing.B))
		return testing.BenchmarkResult{N: 1, T: 1}
	}
	if _, err := (Runner{Rounds: 2, Bench: bench}).Run(m); err != nil {
		t.Fatal(err)
	}
	m.Ours = func(b *testing.B) { note("fails"); b.Fail() }
	if _, err := (Runner{Bench: bench}).Run(m); err == nil {
		t.Error("no error")
	}
	missing := errors.New("the program is not installed")
	m.Setup = func() (func(), error) { return nil, missing }
	if _, err := (Runner{Bench: bench}).Run(m); !errors.Is(err, missing) || !strings.Contains(err.Error(), "p, m: ") {
		t.Errorf("got %v", err)
	}
	if got, want := strings.Join(order, " "), "setup ours ours end setup fails end"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A measure may have a time or a number of runs of its own, for its rounds only.
func TestRunBenchtime(t *testing.T) {
	for _, c := range []struct{ flag, own, want string }{
		{"60ms", "", "60ms"},
		{"60ms", "250ms", "250ms"},
		{"1s", "250ms", "1s"},
		{"60ms", "100x", "100x"},
		{"2x", "250ms", "2x"},
		{"2x", "100x", "2x"},
	} {
		t.Run(c.flag+" "+c.own, func(t *testing.T) {
			benchtime(t, c.flag)
			f := flag.Lookup("test.benchtime")
			var during string
			bench := func(func(*testing.B)) testing.BenchmarkResult {
				during = f.Value.String()
				return testing.BenchmarkResult{N: 1, T: 1}
			}
			if _, err := (Runner{Bench: bench}).Run(Measure{Ours: func(*testing.B) {}, Benchtime: c.own}); err != nil {
				t.Fatal(err)
			}
			if during != c.want || f.Value.String() != c.flag {
				t.Errorf("%s in the rounds and %s afterwards, want %s and %s", during, f.Value, c.want, c.flag)
			}
		})
	}
	if _, err := (Runner{}).Run(Measure{Package: "p", Name: "m", Ours: func(*testing.B) {}, Benchtime: "long"}); err == nil {
		t.Error("a bad Benchtime is no error")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1}, 1},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 3, 2, 1}, 2},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("%v: got %v, want %v", c.values, got, c.want)
		}
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	err := WriteTable(&b, []Row{
		{Package: "p", Measure: "new", Unit: "ns/op", Ours: 42.34, OursMedian: 50, Peer: "peer A", Theirs: 840, PeerMedian: 840, Ratio: 0.0504, Target: 0.6, Judged: true, OK: true},
		{Package: "p", Measure: "new", Unit: "ns/op", Ours: 42.34, OursMedian: 50, Peer: "B", Theirs: 21.17, PeerMedian: 25, Ratio: 2, OK: true},
		{Package: "p", Measure: "new", Unit: "ops/s", Ours: 9000, OursMedian: 8100, Peer: "C", Theirs: 3000, PeerMedian: 3000, Ratio: 3, Target: 2.5, Least: true, Judged: true, OK: true},
		{Package: "p", Measure: "new", Unit: "errors/op", Peer: "D", Theirs: 0.187, PeerMedian: 0.187, OK: true},
		{Package: "p", Measure: "new", Unit: "allocs/op", Ours: 2, OursMedian: 2, Target: 1, Judged: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `package  measure  unit       ours         peer    theirs       ratio  target  ok
p        new      ns/op      42.3 (+18%)  peer A  840 (+0%)    0.05   <= 0.6  ok
p        new      ns/op      42.3 (+18%)  B       21.2 (+18%)  2.00   -       -
p        new      ops/s      9000 (-10%)  C       3000 (+0%)   3.00   >= 2.5  ok
p        new      errors/op  0            D       0.187 (+0%)  0      -       -
p        new      allocs/op  2            -       -            -      <= 1    SHORT
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestWriteJSON(t *testing.T) {
	var b strings.Builder
	rows := []Row{{Package: "p", Measure: "m", Unit: "ns/op", Ours: 1, Peer: "q", Theirs: 2, Ratio: 0.5, Judged: true, OK: true}}
	if err := WriteJSON(&b, rows); err != nil {
		t.Fatal(err)
	}
	var got []Row
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil || !slices.Equal(got, rows) {
		t.Errorf("%+v %v", got, err)
	}
	b.Reset()
	if err := WriteJSON(&b, nil); err != nil || strings.TrimSpace(b.String()) != "[]" {
		t.Errorf("%q %v", b.String(), err)
	}
}
