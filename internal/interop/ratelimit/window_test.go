package ratelimit

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// admission is a request that was admitted, at an instant between two that its
// process has noted, in ns since 1970.
type admission struct{ before, after int64 }

// excess returns by how much the busiest window of any length exceeds what a
// bucket of burst that gets one more each interval may grant in it; 0 if none
// does. An admission counts in the windows that it lies in as a whole, so that
// what is found is wrong whatever the instants in between were.
//
// It goes through the ends of windows in their order, and keeps for each
// beginning s, in a tree, s + n*interval, n being the admissions since. The bound
// for an end e is that none of these is above e + burst*interval.
func excess(all []admission, burst, interval int64) int64 {
	begins := make([]int64, len(all))
	for i, a := range all {
		begins[i] = a.before
	}
	slices.Sort(begins)
	slices.SortFunc(all, func(a, b admission) int { return cmp.Compare(a.after, b.after) })
	tree := newMaxTree(begins)
	var worst int64
	for _, a := range all {
		at, _ := slices.BinarySearch(begins, a.before+1)
		tree.add(at, interval)
		until, _ := slices.BinarySearch(begins, a.after+1)
		if over := tree.max(until) - a.after - burst*interval; over > 0 {
			worst = max(worst, (over+interval-1)/interval)
		}
	}
	return worst
}

// maxTree is a row of numbers of which the first few can be raised, and the
// largest of the first few be found, in logarithmic time.
type maxTree struct {
	n     int
	most  []int64 // of a node's numbers, what was added above it not included
	added []int64 // to all numbers of a node
}

func newMaxTree(values []int64) *maxTree {
	t := &maxTree{n: 1}
	for t.n < len(values) {
		t.n *= 2
	}
	t.most, t.added = make([]int64, 2*t.n), make([]int64, 2*t.n)
	for i := range t.n {
		t.most[t.n+i] = -1 << 62
		if i < len(values) {
			t.most[t.n+i] = values[i]
		}
	}
	for i := t.n - 1; i > 0; i-- {
		t.most[i] = max(t.most[2*i], t.most[2*i+1])
	}
	return t
}

// add adds x to the first k numbers.
func (t *maxTree) add(k int, x int64) { t.visit(1, 0, t.n, k, x) }

// max returns the largest of the first k.
func (t *maxTree) max(k int) int64 { return t.visit(1, 0, t.n, k, 0) }

func (t *maxTree) visit(node, from, to, k int, x int64) int64 {
	if k >= to {
		t.most[node] += x
		t.added[node] += x
		return t.most[node]
	}
	if k <= from {
		return -1 << 62
	}
	middle := (from + to) / 2
	m := max(t.visit(2*node, from, middle, k, x), t.visit(2*node+1, middle, to, k, x))
	t.most[node] = max(t.most[2*node], t.most[2*node+1]) + t.added[node]
	return m + t.added[node]
}

// The tree finds what looking at every window finds.
func TestExcess(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 5))
		all := make([]admission, 1+rng.IntN(40))
		for i := range all {
			all[i].before = rng.Int64N(500)
			all[i].after = all[i].before + rng.Int64N(20)
		}
		burst, interval := 1+rng.Int64N(10), 1+rng.Int64N(40)
		var want int64
		for _, first := range all {
			for _, last := range all {
				var n int64
				for _, a := range all {
					if a.before >= first.before && a.after <= last.after {
						n++
					}
				}
				if w := last.after - first.before; w >= 0 {
					want = max(want, n-burst-w/interval)
				}
			}
		}
		if got := excess(all, burst, interval); got != want {
			t.Fatalf("seed %d: %d, want %d", seed, got, want)
		}
	}
}
