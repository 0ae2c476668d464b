package upstream

import (
	"fmt"
	"time"
)

// Outlier configures passive health: a back end that keeps failing requests is
// ejected, which means that it gets none for a while. The zero Outlier is on.
//
// Only what is the back end's fault counts: no connection, a broken one, no
// answer in time, an answer that is not HTTP, the statuses 502, 503 and 504, and
// a response that breaks off within 10 s of its header. A client that goes
// away, or whose body fails, never counts.
//
// A response counts as a success with its header, so that streams do, however
// long they last. One that breaks off is taken back.
//
// A peer that returns has its share of traffic grow as in [Config.SlowStart].
type Outlier struct {
	// Off turns ejection off.
	Off bool

	// Failures is how many failures in a row eject a peer. A row of responses
	// that break off lasts until one comes to its end, or the client gives one
	// up. Zero is 5; negative is no number.
	Failures int

	// FailurePercent ejects a peer of whose requests at least this percentage
	// failed in an Interval, if there were MinRequests of them: 1 to 100. Zero
	// does not look at percentages.
	FailurePercent int

	// MinRequests is the least number of requests to judge by: zero is 100.
	MinRequests int

	// Interval is how long requests are counted for FailurePercent. Zero is
	// 10 s; the least is 1 s.
	Interval time.Duration

	// BaseTime is how long the first ejection lasts, give or take 10 %. The
	// second lasts twice as long, the third three times; for each BaseTime of
	// good conduct one is forgotten. Zero is 30 s; the least is 1 ms.
	BaseTime time.Duration

	// MaxTime is the longest ejection: zero is 300 s, or BaseTime if that is
	// longer.
	MaxTime time.Duration

	// MaxPercent is the percentage of the peers that may be ejected at a time:
	// 1 to 100, rounded down to a number of peers. Zero is 50. Whatever it
	// says, the last available peer stays.
	MaxPercent int
}

// check returns what is wrong with o.
func (o Outlier) check() problems {
	var p problems
	if o.FailurePercent < 0 || o.FailurePercent > 100 {
		p.add("Outlier.FailurePercent", "must be 0 to 100", o.FailurePercent)
	}
	if o.MinRequests < 0 {
		p.add("Outlier.MinRequests", "must not be negative", o.MinRequests)
	}
	if o.Interval < 0 || o.Interval > 0 && o.Interval < time.Second {
		p.add("Outlier.Interval", "must be at least 1s", o.Interval)
	}
	if o.BaseTime < 0 || o.BaseTime > 0 && o.BaseTime < time.Millisecond {
		p.add("Outlier.BaseTime", "must be at least 1ms", o.BaseTime)
	}
	if o.MaxTime < 0 || o.MaxTime > 0 && o.MaxTime < zeroIs(o.BaseTime, defaultBaseTime) {
		p.add("Outlier.MaxTime", "must be at least BaseTime", o.MaxTime)
	}
	if o.MaxPercent < 0 || o.MaxPercent > 100 {
		p.add("Outlier.MaxPercent", "must be 0 to 100", o.MaxPercent)
	}
	return p
}

const (
	defaultBaseTime = 30 * time.Second

	// longBody is how long a response body counts against its back end if it
	// breaks off. Streams that have lasted end one day, often because what lies
	// in between limits the time of a connection: that is no failure of the
	// request that opened them.
	longBody = 10 * time.Second
)

// outlier is an Outlier with its defaults filled in.
type outlier struct{ Outlier }

func (o Outlier) withDefaults() outlier {
	if o.Failures == 0 {
		o.Failures = 5
	}
	if o.MinRequests == 0 {
		o.MinRequests = 100
	}
	if o.MaxPercent == 0 {
		o.MaxPercent = 50
	}
	o.Interval = zeroIs(o.Interval, 10*time.Second)
	o.BaseTime = zeroIs(o.BaseTime, defaultBaseTime)
	o.MaxTime = zeroIs(o.MaxTime, max(300*time.Second, o.BaseTime))
	return outlier{o}
}

// rates tells whether failure percentages are looked at.
func (o *outlier) rates() bool { return !o.Off && o.FailurePercent > 0 }

// duration returns how long the n-th ejection lasts.
func (o *outlier) duration(n int) time.Duration {
	d := o.MaxTime
	// Divided, because the product could overflow.
	if time.Duration(n) <= o.MaxTime/o.BaseTime {
		d = o.BaseTime * time.Duration(n)
	}
	// Peers that fell together should not all come back in the same moment.
	return jitter(d)
}

// judgeOutcome counts an outcome and ejects the peer if that was one failure too
// many. It is on the path of every request, so successes only write if there is
// something to forget.
func (s *selector) judgeOutcome(p *Peer, o outcome) {
	if s.outlier.Off {
		return
	}
	l := p.load
	if o == outcomeOK {
		if l.failures.Load() != 0 {
			l.failures.Store(0)
		}
		if s.outlier.rates() {
			l.good.Add(1)
		}
		return
	}
	if s.outlier.rates() {
		l.bad.Add(1)
	}
	l.failures.Add(1)
	s.judgeRow(p)
}

// completed is told of the end of a response whose header was a success.
func (s *selector) completed(p *Peer) {
	// Apart from the row of failures, which the header has ended: the end of a
	// long response says little of what the back end does with new requests,
	// and a header nothing of whether responses come to their end.
	if l := p.load; l.aborts.Load() != 0 {
		l.aborts.Store(0)
	}
}

// aborted is told instead if the response broke off.
func (s *selector) aborted(p *Peer) {
	if s.outlier.Off {
		return
	}
	l := p.load
	if s.outlier.rates() {
		l.good.Add(-1)
		l.bad.Add(1)
	}
	l.aborts.Add(1)
	s.judgeRow(p)
}

// row is the number of failures in a row.
func (l *load) row() int { return int(l.failures.Load()) + int(l.aborts.Load()) }

// judgeRow ejects the peer if its row of failures is too long.
func (s *selector) judgeRow(p *Peer) {
	l := p.load
	if s.outlier.Failures < 0 || l.row() < s.outlier.Failures {
		return
	}
	s.mu.Lock()
	// Whether or not the peer may be ejected, the next judgement takes as many
	// failures again; and of those that fail together one alone gets here.
	if l.row() < s.outlier.Failures {
		s.mu.Unlock()
		return
	}
	l.failures.Store(0)
	l.aborts.Store(0)
	now := time.Now()
	if !s.eject(p, now) {
		s.mu.Unlock()
		return
	}
	s.unlock(s.settle(now, fmt.Sprintf("%d failures in a row", s.outlier.Failures)))
}

// eject takes p out unless the limits forbid it. The caller settles.
func (s *selector) eject(p *Peer, now time.Time) bool {
	l := p.load
	if s.loads[p.ID] != l || !l.until.IsZero() {
		return false
	}
	members, available, ejected := 0, 0, 0
	for _, q := range s.peers {
		m := q.load
		if m.draining {
			continue
		}
		members++
		if !m.until.IsZero() {
			ejected++
		} else if !m.unhealthy && m != l {
			available++
		}
	}
	if available == 0 || (ejected+1)*100 > members*s.outlier.MaxPercent {
		return false
	}
	if !l.returned.IsZero() {
		// Compared as Durations, which an int of 32 bits may not hold.
		l.times -= int(min(now.Sub(l.returned)/s.outlier.BaseTime, time.Duration(l.times)))
	}
	l.times++
	l.until = now.Add(s.outlier.duration(l.times))
	return true
}

// outlierTick ends the ejections whose time has come, and judges the failure
// percentages at the end of an interval. The caller settles; the events are
// those of ejections.
func (s *selector) outlierTick(now time.Time) []event {
	for _, p := range s.peers {
		l := p.load
		if l.until.IsZero() || now.Before(l.until) {
			continue
		}
		l.until = time.Time{}
		l.returned, l.since = now, now
		l.failures.Store(0)
		l.aborts.Store(0)
		l.good.Store(0)
		l.bad.Store(0)
	}
	if !s.outlier.rates() || now.Before(s.judge) {
		return nil
	}
	var events []event
	for _, p := range s.peers {
		l := p.load
		// Below zero if responses broke off that began in the interval before.
		good, bad := max(0, int64(l.good.Swap(0))), int64(l.bad.Swap(0))
		if n := good + bad; n < int64(s.outlier.MinRequests) || n == 0 || bad*100 < n*int64(s.outlier.FailurePercent) {
			continue
		}
		if old := l.state; s.eject(p, now) && old == StateHealthy {
			l.state = StateEjected
			reason := fmt.Sprintf("%d of %d requests failed", bad, good+bad)
			events = append(events, event{p, old, StateEjected, reason})
		}
	}
	return events
}
