package targets

import (
	"encoding/json"
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
		{Package: "p", Measure: "new", Unit: "allocs/op", Ours: 2, OursMedian: 2, Target: 1, Judged: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `package  measure  unit       ours         peer    theirs       ratio  target  ok
p        new      ns/op      42.3 (+18%)  peer A  840 (+0%)    0.05   <= 0.6  ok
p        new      ns/op      42.3 (+18%)  B       21.2 (+18%)  2.00   -       -
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
