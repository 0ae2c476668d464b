package upstream

import (
	"sync/atomic"
	"time"
)

// halfLife is the time in which an average latency loses half of its value: a
// decay constant of ten seconds.
const halfLife = uint64(6931 * time.Millisecond)

// shared is what all peers of a selector have in common.
type shared struct {
	// now is the time since the selector was made, as of the last report. A
	// clock that stands still while no request ends is good enough to age the
	// latencies by, and a pick does not have to read the real one.
	now atomic.Int64

	// total is the sum of active over the peers, kept only if counted is set:
	// it is one cache line for all processors.
	total   atomic.Int64
	counted bool
}

// load is the state of one back end. It survives updates that keep that.
type load struct {
	shared  *shared
	active  atomic.Int64
	latency ewma

	failures atomic.Int32 // in a row, before the response header or by its status
	aborts   atomic.Int32 // responses in a row that broke off
	good     atomic.Int32 // in this interval, with Outlier.FailurePercent only
	bad      atomic.Int32

	_ [64]byte // what follows is written rarely, under the selector's lock

	member    bool // it is one, or was
	sticky    stickyLoad
	state     State
	draining  bool
	unhealthy bool
	until     time.Time // end of the ejection, zero if there is none
	returned  time.Time // from the last one
	times     int       // ejections, less those that good conduct has paid off
	since     time.Time // start of slow start, zero if there is none
}

// sound reports whether nothing speaks against the peer, draining or not.
func (l *load) sound() bool { return !l.unhealthy && l.until.IsZero() }

// ewma is an average over latencies that takes on a higher value at once and
// approaches a lower one with time.
//
// Value and stamp are two atomics without a lock around them. Reports that meet
// can lose one of the two latencies or age one twice by their distance in time,
// which is of no account in an average.
type ewma struct {
	value atomic.Uint64 // nanoseconds, 0 if there is none
	stamp atomic.Int64
}

// read returns the average as of now, and at least 1 if there is any.
func (e *ewma) read(now int64) uint64 {
	v := e.value.Load()
	if v == 0 {
		return 0
	}
	return max(1, decay(v, now-e.stamp.Load()))
}

// add takes in a latency. With raise set it can make the average higher only.
func (e *ewma) add(now int64, latency time.Duration, raise bool) {
	v, d := e.value.Load(), uint64(max(1, latency))
	switch aged := decay(v, now-e.stamp.Load()); {
	case v == 0 && raise:
		return
	case d >= aged:
		v = d
	case raise:
		return
	default:
		// The part of the old value that is left has the weight e^(-Δt/τ).
		v = d + decay(v-min(v, d), now-e.stamp.Load())
	}
	e.stamp.Store(now)
	e.value.Store(v)
}

// decay returns v after the time d: halved per half-life, linear in between,
// which is never more than 6 % above the exponential.
func decay(v uint64, d int64) uint64 {
	if d <= 0 {
		return v
	}
	n := uint64(d) / halfLife
	if n > 63 {
		return 0
	}
	v >>= n
	// In milliseconds, so that the product stays in 64 bits for latencies of
	// many days.
	return v - v*(uint64(d)%halfLife>>20)/(halfLife>>20<<1)
}
