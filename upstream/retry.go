package upstream

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// chosen is a back end for the next attempt.
type chosen struct {
	peer *Peer
	open bool // health is ignored
	free bool // it does not count against the budget
}

// again decides whether the request is sent once more after an attempt that
// ended with res or f, where, and after which pause.
func (c *call) again(a *attempt, res *http.Response, f failure) (next chosen, wait time.Duration, ok bool) {
	r := &c.pool.retry
	if r.Attempts == 0 || c.hasBegun() {
		return next, 0, false
	}
	cl := f.class
	if res != nil {
		if res.StatusCode < 400 && r.When == nil && !c.grpcFailed(res) {
			return next, 0, false
		}
		if cl, wait = c.statusClass(res); cl == classNever {
			return next, 0, false
		}
	}
	// What no back end has seen is no additional load.
	next.free = cl == classNotSent || f.Error != nil && f.passing
	if !c.allowed(cl, next.free) {
		return next, 0, false
	}
	if !next.free && !c.pool.budget.left(c.pool.now()) || !c.timeFor(a, wait) || !c.body.again(res == nil) {
		return next, 0, false
	}
	c.pick.stay = cl == classStale
	c.pick.exclude(a.peer)
	next.peer, next.open = c.pool.selector.pick(&c.pick)
	if next.peer == nil || elsewhere(f) && c.pick.hasTried(next.peer) {
		return next, 0, false
	}
	return next, wait, c.body.handOver(&a.reqBody, res == nil)
}

// elsewhere reports whether the same back end would fail in the same way.
func elsewhere(f failure) bool {
	if f.Error == nil {
		return false
	}
	switch f.Kind {
	case KindQueueFull, KindQueueTimeout, KindDial, KindTLS, KindGate, KindClosed:
		return true
	}
	return false
}

// allowed says whether a failure of this class permits another attempt, with
// what the ones before have used up.
func (c *call) allowed(cl class, free bool) bool {
	r := &c.pool.retry
	limit := r.Attempts
	if free {
		limit++
	}
	switch cl {
	case classNotSent, classRefused:
	case classStale, classStatus:
		if !r.idempotent(c.in) {
			return false
		}
	case classLost:
		if !r.Lost || !r.idempotent(c.in) {
			return false
		}
	case classTimeout:
		if !r.Timeouts || !r.idempotent(c.in) {
			return false
		}
	default:
		return false
	}
	return c.tries <= limit
}

// timeFor reports whether the request's context leaves time for another
// attempt: as much as half of the requests to that back end take.
func (c *call) timeFor(a *attempt, wait time.Duration) bool {
	ctx := c.in.Context()
	if ctx.Err() != nil {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline)-wait > a.be.stats.median()
}

// Pauses before an attempt that follows a response. After a connection error
// there is none, since the next attempt goes elsewhere.
const (
	backoffBase = 25 * time.Millisecond
	backoffMax  = 250 * time.Millisecond

	// retryAfterMax is how long a Retry-After may be obeyed for a request that
	// has no deadline of its own.
	retryAfterMax = time.Second
)

// statusClass decides about a response.
func (c *call) statusClass(res *http.Response) (class, time.Duration) {
	r := &c.pool.retry
	status := res.StatusCode
	if s := grpcAsStatus(res); s != 0 {
		status = s
	}
	switch {
	case slices.Contains(r.Statuses, status):
	case r.When != nil && r.idempotent(c.in) && r.When(res):
	default:
		return classNever, 0
	}
	if status == http.StatusTooEarly && len(c.in.Header["Early-Data"]) > 0 {
		return classNever, 0 // only the client knows when its handshake is over (RFC 8470 section 5.2)
	}
	if d, ok := retryAfterOf(res.Header.Get("Retry-After")); ok {
		deadline, bounded := c.in.Context().Deadline()
		if bounded && d >= time.Until(deadline) || !bounded && d > retryAfterMax {
			return classNever, 0
		}
		return classStatus, d
	}
	limit := min(backoffMax, backoffBase<<min(c.tries, 8))
	return classStatus, backoffBase + rand.N(limit-backoffBase+1)
}

// retryAfterOf reads a Retry-After field (RFC 9110 section 10.2.3).
func retryAfterOf(v string) (time.Duration, bool) {
	if v == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return max(time.Until(t), 0), true
}

func (c *call) grpcFailed(res *http.Response) bool {
	return len(c.pool.retry.Statuses) > 0 && grpcAsStatus(res) != 0
}

// grpcAsStatus returns the HTTP status that means what the grpc-status of a
// trailers-only response does, or 0.
func grpcAsStatus(res *http.Response) int {
	if v := res.Header["Grpc-Status"]; len(v) == 1 {
		ct := res.Header.Get("Content-Type")
		if rest, ok := strings.CutPrefix(ct, "application/grpc"); !ok || rest != "" && rest[0] != '+' && rest[0] != ';' {
			return 0
		}
		switch v[0] {
		case "4":
			return http.StatusGatewayTimeout
		case "8":
			return http.StatusTooManyRequests
		case "14":
			return http.StatusServiceUnavailable
		}
	}
	return 0
}

// budget bounds the share of requests that are sent again, so that retries
// cannot multiply the load of a failing system. It counts in seconds, of which it
// knows the last ten.
type budget struct {
	percent int // negative is no limit
	slots   [budgetSeconds + 1]budgetSlot
}

type budgetSlot struct {
	second   atomic.Int64 // since the epoch, plus one
	requests atomic.Int64
	again    atomic.Int64
}

const (
	budgetSeconds = 10
	budgetMin     = 3 // in that time, whatever the number of requests
)

// slot returns the counters of now. Where a second begins, a few counts of
// requests that are quick enough to meet may be lost.
func (b *budget) slot(now time.Duration) *budgetSlot {
	sec := int64(now/time.Second) + 1
	s := &b.slots[sec%int64(len(b.slots))]
	if old := s.second.Load(); old != sec && s.second.CompareAndSwap(old, sec) {
		s.requests.Store(0)
		s.again.Store(0)
	}
	return s
}

func (b *budget) count(now time.Duration) {
	if b.percent >= 0 {
		b.slot(now).requests.Add(1)
	}
}

func (b *budget) spend(now time.Duration) {
	if b.percent >= 0 {
		b.slot(now).again.Add(1)
	}
}

// left reports whether another retry is within the budget.
func (b *budget) left(now time.Duration) bool {
	if b.percent < 0 {
		return true
	}
	sec := int64(now/time.Second) + 1
	var requests, again int64
	for i := range b.slots {
		if s := &b.slots[i]; s.second.Load() > sec-budgetSeconds {
			requests += s.requests.Load()
			again += s.again.Load()
		}
	}
	return again < max(budgetMin, requests*int64(b.percent)/100)
}
