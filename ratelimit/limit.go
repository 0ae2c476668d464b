package ratelimit

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"time"

	"example.com/plainware/store"
)

// Limit says how much is allowed. It is made by [Per] and its short forms, or
// by [Quota], [Sliding] or [Concurrent]; the zero Limit is none and is refused by
// [New]. [Limit.Bound] is what each promises, for any window.
type Limit struct {
	algorithm algorithm
	n         int64
	per       time.Duration // the window
	burst     int64
	bursts    bool // burst was given
	strict    bool
}

type algorithm uint8

const (
	gcra algorithm = iota + 1
	quota
	sliding
	concurrent
)

// Per allows n in every d, and n at once: a bucket of n that is refilled evenly,
// by one every d/n. So 100 a minute admits 100 at once and up to 200 in a
// minute, as it does in most other limiters; [Limit.Strict] never exceeds 100 in
// any minute, and [Limit.Burst] allows less at once.
//
// In any window w it grants at most burst + ⌊w·n/d⌋. The interval d/n is rounded
// up to whole nanoseconds; New refuses a rate that would lose more than a
// thousandth by that, which takes a million a second at least.
func Per(n int64, d time.Duration) Limit { return Limit{algorithm: gcra, n: n, per: d} }

// PerSecond is [Per] n in a second.
func PerSecond(n int64) Limit { return Per(n, time.Second) }

// PerMinute is [Per] n in a minute.
func PerMinute(n int64) Limit { return Per(n, time.Minute) }

// PerHour is [Per] n in an hour.
func PerHour(n int64) Limit { return Per(n, time.Hour) }

// Quota allows n in a fixed window of d, which opens for a key at its first
// request. What is left of it at the end is lost.
//
// In a window as long as d it grants at most 2n, half of it at the end of one
// window and half at the beginning of the next: see [Limit.Bound]. It suits
// plans ("10,000 a day") and does not protect from bursts; add a [Per] for that.
func Quota(n int64, d time.Duration) Limit { return Limit{algorithm: quota, n: n, per: d} }

// Sliding allows n in a window of d that slides: the requests of the current
// window of the store's clock count, and those of the one before by the share of
// it that is less than d ago. After n at once it recovers evenly, over the window
// that follows.
//
// In a window shorter than d it grants at most n + ⌊w·n/d⌋, as Per does, and in
// one as long as d at most 2n - 1. It needs two registers for a key and, in front
// of a remote store, up to two round trips for the first decision of a window;
// Per does as much with one.
func Sliding(n int64, d time.Duration) Limit { return Limit{algorithm: sliding, n: n, per: d} }

// Concurrent allows n at the same time, in this process: requests that exceed it
// are answered with 503. A request counts until its handler has returned or
// panicked, whether or not it took over the connection. [Limiter.Take],
// [Limiter.Wait] and [Limiter.Charge] know nothing of it.
func Concurrent(n int64) Limit { return Limit{algorithm: concurrent, n: n} }

// Burst sets how many a [Per] allows at once, n unless it is given. It must be 1
// or more; with [Limit.Strict], n or less.
func (l Limit) Burst(n int64) Limit {
	l.burst, l.bursts = n, true
	return l
}

// Strict makes of [Per] n in d: never more than n in any window of d. The n are
// split into a burst, half of them unless [Limit.Burst] says otherwise, and a
// rate, the rest of them in every d.
func (l Limit) Strict() Limit {
	l.strict = true
	return l
}

// Bound returns the most that is granted in any window of length w, its ends
// included, by a store that loses nothing, or math.MaxInt64 if that is more.
// For [Concurrent], which bounds no rate, it is -1; so it is for a Limit that New
// refuses.
//
// What [Policy.Debt] lets a key overdraw, and what each process grants on its own
// while the store fails (see [OnStoreError]), come on top.
func (l Limit) Bound(w time.Duration) int64 {
	r, err := l.rule()
	if err != nil || w < 0 {
		return -1
	}
	switch l.algorithm {
	case gcra:
		return plus(r.limit, int64(w)/r.step)
	case quota:
		windows := int64(w) / int64(l.per)
		if int64(w)%int64(l.per) != 0 {
			windows++
		}
		return times(l.n, windows+1)
	case sliding:
		whole, part := int64(w)/int64(l.per), int64(w)%int64(l.per)
		if whole > 0 && part == 0 {
			return times(l.n, whole+1) - 1
		}
		return plus(times(l.n, whole+1), share(l.n, part, int64(l.per)))
	}
	return -1
}

// String returns the limit in words, such as "100 per 1m0s, burst 20".
func (l Limit) String() string {
	n := strconv.FormatInt(l.n, 10)
	switch l.algorithm {
	case gcra:
		s := n + " per " + l.per.String()
		if l.bursts {
			s += ", burst " + strconv.FormatInt(l.burst, 10)
		}
		if l.strict {
			s += ", strict"
		}
		return s
	case quota:
		return "quota of " + n + " per " + l.per.String()
	case sliding:
		return n + " per sliding " + l.per.String()
	case concurrent:
		return n + " concurrent"
	}
	return "none"
}

// rule is a Limit made ready.
type rule struct {
	algorithm algorithm
	limit     int64         // the most at once
	step      int64         // what one unit adds to a register: ns for gcra, else 1
	ceil      int64         // of the register, without debt
	window    time.Duration // in which limit is granted, on the average
}

// rule returns an error that says what is wrong, without the field's name.
//
// A unit of gcra is ⌈d/n⌉ ns, whatever the cost of a request. To round for each
// cost instead, ⌈k·d/n⌉ for k units, would lose less. But then a ceiling that lets
// a burst of single units through would let through more units in larger
// requests: a register that only adds can be exact for one of them.
func (l Limit) rule() (rule, error) {
	r := rule{algorithm: l.algorithm, limit: l.n, step: 1, ceil: l.n, window: l.per}
	switch {
	case l.algorithm == 0:
		return r, fmt.Errorf("is missing (got the zero Limit)")
	case l.n < 1 || l.n >= store.MaxCount:
		return r, fmt.Errorf("the number must be between 1 and 2^53 (got %d)", l.n)
	case l.algorithm == concurrent:
	case l.per <= 0:
		return r, fmt.Errorf("the window must be positive (got %v)", l.per)
	case l.algorithm == sliding && (l.per < time.Millisecond || l.per > math.MaxInt64/4):
		return r, fmt.Errorf("the window of Sliding must be between 1 ms and 73 years (got %v)", l.per)
	}
	if l.algorithm != gcra {
		if l.bursts || l.strict {
			return r, fmt.Errorf("Burst and Strict are for Per (got %v)", l)
		}
		return r, nil
	}
	return l.bucket()
}

// bucket is rule for gcra.
func (l Limit) bucket() (rule, error) {
	burst, rate := l.n, l.n
	if l.strict {
		burst = (l.n + 1) / 2
	}
	if l.bursts {
		burst = l.burst
	}
	r := rule{algorithm: gcra, limit: burst}
	if burst < 1 || l.strict && burst > l.n {
		return r, fmt.Errorf("the burst must be 1 or more, and with Strict no more than the number (got %v)", l)
	}
	if l.strict {
		rate = l.n - burst
	}
	if rate == 0 {
		// Not one more within the window, its end included.
		r.step = int64(l.per) + 1
	} else {
		r.step = (int64(l.per)-1)/rate + 1
		if lost := r.step*rate - int64(l.per); lost > int64(l.per)/1000 {
			return r, fmt.Errorf("the rate is no whole number of nanoseconds a unit; count in larger units (got %v)", l)
		}
	}
	hi, lo := bits.Mul64(uint64(burst), uint64(r.step))
	if hi != 0 || lo >= store.MaxCount {
		return r, fmt.Errorf("a burst must be refilled within 104 days (got %v)", l)
	}
	r.ceil = int64(lo)
	r.window = time.Duration(lo)
	return r, nil
}

// share returns ⌊n·part/whole⌋ of numbers that are not negative, part being at
// most whole.
func share(n, part, whole int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(part))
	q, _ := bits.Div64(hi, lo, uint64(whole))
	return int64(q)
}

// shareUp is share, rounded up.
func shareUp(n, part, whole int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(part))
	q, rest := bits.Div64(hi, lo, uint64(whole))
	if rest != 0 {
		q++
	}
	return int64(q)
}

// plus and times are of numbers that are not negative, and stop at the largest.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func times(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}
