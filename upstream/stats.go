package upstream

import (
	"iter"
	"math/bits"
	"sync/atomic"
	"time"
)

// BackendStats is a look at one back end. The counters start at zero with the
// target and never go back.
type BackendStats struct {
	Target Target
	State  State

	Active  int           // requests sent and not ended, their response bodies included
	Queued  int           // requests that wait for a place
	Conns   int           // open connections
	Idle    int           // those of them that carry no request
	Latency time.Duration // peak-sensitive average, see [Peer.Latency]

	Attempts     uint64    // requests sent, or tried to
	Statuses     [6]uint64 // responses by the first digit of their status; 0 is other
	DialFailures uint64    // connections that could not be made
	Buckets      LatencyBuckets

	failures [numKinds]uint64
}

// numKinds is the number of kinds and of what is none.
const numKinds = int(KindClosed) + 1

// Failures iterates over the number of attempts without a response, and of
// bodies cut short, by [Kind]: all kinds, in their order, those included of which
// there were none.
func (s *BackendStats) Failures() iter.Seq2[Kind, uint64] {
	return func(yield func(Kind, uint64) bool) {
		for k := KindClientGone; k <= KindClosed; k++ {
			if !yield(k, s.failures[k]) {
				return
			}
		}
	}
}

// Failed is the sum of the failures that are the back end's fault.
func (s *BackendStats) Failed() (n uint64) {
	for k, c := range s.Failures() {
		if k.BackendFault() {
			n += c
		}
	}
	return n
}

// LatencyBuckets counts the times until a response header. Bucket i holds those
// up to [LatencyBound](i), the last one the rest.
type LatencyBuckets [latencyBuckets]uint64

const (
	latencyBuckets = 40
	latencyFirst   = 16 // log2 of the nanoseconds of the first bound: 65.5 µs
)

// LatencyBound is the upper bound of bucket i: powers of two from 65.5 µs on,
// with one step in between. The last bucket has none, which is the longest
// Duration.
func LatencyBound(i int) time.Duration {
	if i >= latencyBuckets-1 {
		return 1<<63 - 1
	}
	base := time.Duration(1) << (latencyFirst + i/2)
	if i%2 == 1 {
		base += base / 2
	}
	return base
}

// latencyBucket is the inverse of LatencyBound.
func latencyBucket(d time.Duration) int {
	n := uint64(max(d, 1) - 1)
	exp := bits.Len64(n) - 1 // n is in [2^exp, 2^(exp+1))
	if exp < latencyFirst {
		return 0
	}
	i := 2*(exp-latencyFirst) + 1
	if n>>(exp-1)&1 == 1 {
		i++
	}
	return min(i, latencyBuckets-1)
}

// Quantile returns a time that at least the share q of the latencies, 0 to 1,
// did not exceed. Without any it is 0.
func (b *LatencyBuckets) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range b {
		total += n
	}
	if total == 0 {
		return 0
	}
	var sum uint64
	for i, n := range b {
		// As a quotient, which is rounded as q itself was when it was written.
		if sum += n; sum > 0 && float64(sum)/float64(total) >= q {
			return LatencyBound(i)
		}
	}
	return LatencyBound(latencyBuckets - 1)
}

// stats is the counters behind BackendStats.
type stats struct {
	_            [64]byte // what stands before is read by every request
	attempts     atomic.Uint64
	dialFailures atomic.Uint64
	statuses     [6]atomic.Uint64
	failures     [numKinds]atomic.Uint64
	buckets      [latencyBuckets]atomic.Uint64
	_            [64]byte
}

// done counts an attempt that has its response header or has failed.
func (s *stats) done(took time.Duration, status int, f failure) {
	if f.Error != nil {
		s.failures[f.Kind.index()].Add(1)
		return
	}
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	s.statuses[class].Add(1)
	s.buckets[latencyBucket(took)].Add(1)
}

// failed counts a failure after the response header.
func (s *stats) failed(k Kind) { s.failures[k.index()].Add(1) }

// median is the median latency, 0 if nothing is known.
func (s *stats) median() time.Duration {
	var b LatencyBuckets
	for i := range b {
		b[i] = s.buckets[i].Load()
	}
	return b.Quantile(0.5)
}

// look copies the counters and asks the connection sets.
func (be *backend) look() BackendStats {
	s := BackendStats{
		Attempts:     be.stats.attempts.Load(),
		DialFailures: be.stats.dialFailures.Load(),
	}
	for i := range s.Statuses {
		s.Statuses[i] = be.stats.statuses[i].Load()
	}
	for i := range s.failures {
		s.failures[i] = be.stats.failures[i].Load()
	}
	for i := range s.Buckets {
		s.Buckets[i] = be.stats.buckets[i].Load()
	}
	be.sets(func(set *connSet) {
		_, open, idle, queued := set.usage()
		if !be.foreign {
			s.Conns += open
			s.Idle += idle
		}
		s.Queued += queued
	})
	return s
}
