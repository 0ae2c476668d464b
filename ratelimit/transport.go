package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// TransportConfig configures a [Transport].
type TransportConfig struct {
	// Base makes the calls. nil is [http.DefaultTransport].
	Base http.RoundTripper

	// Limiter limits the calls: each waits its turn as in [Limiter.Wait]. The
	// policy's Key and Cost are asked about the outgoing request. So a Key of
	//
	//	ratelimit.ByFunc(func(r *http.Request) string { return r.URL.Host })
	//
	// counts by server, and ByIP, the default, counts all calls together.
	// Concurrent policies do not apply, nor do Skip and Exempt. nil is no limit
	// but the servers' own.
	Limiter *Limiter

	// Policy is the one of Limiter to apply; "" is the only one.
	Policy string

	// MaxWait is the longest that a call is held back. One that would take
	// longer, or longer than its context lasts, fails with a *[LimitError]
	// without waiting for that. Zero is no bound but the context; negative
	// holds nothing back.
	MaxWait time.Duration

	// MaxPause is the most that is believed of a server's Retry-After. Zero is
	// a minute; negative believes nothing.
	MaxPause time.Duration
}

// Transport is an [http.RoundTripper] that keeps to limits on calls to others:
// one's own, by a [Limiter], and the server's. When a server has answered with
// 429 or 503 and a Retry-After (RFC 9110, section 10.2.3), calls to the same host
// and of the same key are held back for that time. The answer itself is returned
// as it is; nothing is sent twice.
//
// A call that is held back ends with its context, and nothing of it is sent then.
// Those that were held back by a Retry-After go all at once when it has passed,
// if there is no Limiter.
//
// Up to 1,024 hosts and keys are remembered while they are to be left alone.
// Neither request nor response is touched. A Transport has no goroutines.
type Transport struct {
	base     http.RoundTripper
	limiter  *Limiter
	policy   *policy
	maxWait  time.Duration
	maxPause time.Duration
	pauses   pauses
}

const (
	defaultMaxPause = time.Minute
	mostPauses      = 1024
)

// NewTransport returns a Transport, or an error that names every problem in c.
func NewTransport(c TransportConfig) (*Transport, error) {
	t := &Transport{base: c.Base, limiter: c.Limiter, maxWait: c.MaxWait, maxPause: c.MaxPause}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	if t.maxPause == 0 {
		t.maxPause = defaultMaxPause
	}
	if c.Limiter == nil {
		if c.Policy != "" {
			return nil, fmt.Errorf("ratelimit: Policy: must be empty without a Limiter (got %q)", c.Policy)
		}
		return t, nil
	}
	if t.policy = c.Limiter.byName[c.Policy]; c.Policy == "" && len(c.Limiter.byName) == 1 {
		for _, t.policy = range c.Limiter.byName {
		}
	}
	if t.policy == nil || t.policy.algorithm == concurrent {
		return nil, fmt.Errorf("ratelimit: Policy: must be one of Limiter's, and not Concurrent (got %q)", c.Policy)
	}
	return t, nil
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL == nil { // which is an error that the base knows
		return t.base.RoundTrip(r)
	}
	parts := t.parts(r)
	var id string
	if t.maxPause > 0 {
		id = strings.ToLower(r.URL.Host) + "\x00" + strings.Join(parts, "\x00")
	}
	if err := t.hold(r, id, parts); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	res, err := t.base.RoundTrip(r)
	if err == nil && t.maxPause > 0 && (res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable) {
		if d := retryAfter(res.Header, time.Now()); d > 0 {
			t.pauses.add(id, min(d, t.maxPause))
		}
	}
	return res, err
}

// CloseIdleConnections closes the idle connections of the base transport, if it
// knows how. [http.Client.CloseIdleConnections] asks for it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// parts returns the key of r in the parts that Limiter.Wait is given.
func (t *Transport) parts(r *http.Request) []string {
	if t.policy == nil {
		return nil
	}
	parts := make([]string, len(t.policy.key.parts))
	for i := range parts {
		if p := &t.policy.key.parts[i]; p.kind != byIP { // there is no address
			parts[i] = p.text(r)
		}
	}
	return parts
}

// errServer is behind a LimitError that no policy of ours has caused.
var errServer = errors.New("the server has asked for it with Retry-After")

// hold returns when r may be sent.
func (t *Transport) hold(r *http.Request, id string, parts []string) error {
	ctx, cancel := r.Context(), context.CancelFunc(nil)
	if t.maxWait > 0 {
		ctx, cancel = context.WithTimeout(ctx, t.maxWait)
		defer cancel()
	}
	if err := t.pause(ctx, r, id); err != nil || t.policy == nil {
		return err
	}
	cost := int64(1)
	if t.policy.costOf != nil {
		if cost = t.policy.costOf(r); cost < 0 {
			cost = 1
		}
	}
	if t.maxWait < 0 {
		d, err := t.limiter.Take(ctx, t.policy.name, cost, parts...)
		if err == nil && !d.Allowed {
			err = &LimitError{Decision: d}
		}
		if err != nil {
			return err
		}
	} else if err := t.limiter.Wait(ctx, t.policy.name, cost, parts...); err != nil {
		return t.own(r, err)
	}
	// The server may have answered to somebody else in between.
	return t.pause(ctx, r, id)
}

// own returns the error for the end of a wait, which is the request's context's
// only if that has ended, or would have.
func (t *Transport) own(r *http.Request, err error) error {
	if t.maxWait == 0 || r.Context().Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	refusal := &LimitError{Decision: Decision{Policy: t.policy.name, Limit: t.policy.limit}}
	if e, ok := errors.AsType[*LimitError](err); ok {
		refusal.Decision = e.Decision
	}
	if deadline, ok := r.Context().Deadline(); ok && time.Until(deadline) <= refusal.RetryAfter {
		refusal.cause = context.DeadlineExceeded
	}
	return refusal
}

// pause waits as long as the server wants it. ctx is that of r, or ends before.
func (t *Transport) pause(ctx context.Context, r *http.Request, id string) error {
	for {
		left := t.pauses.left(id)
		if left <= 0 {
			return nil
		}
		refusal := &LimitError{Decision: Decision{RetryAfter: left}, cause: errServer}
		if t.maxWait < 0 {
			return refusal
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= left {
			if own, ok := r.Context().Deadline(); ok && !own.After(deadline) {
				refusal.cause = fmt.Errorf("%w: %w", errServer, context.DeadlineExceeded)
			}
			return refusal
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// pauses are the hosts and keys that servers want to be left alone.
type pauses struct {
	n     atomic.Int32 // of until; usually there are none
	mu    sync.Mutex
	until map[string]time.Time
}

// left returns for how long id is to be left alone; negative or zero is not.
func (p *pauses) left(id string) time.Duration {
	if p.n.Load() == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[id]
	if !ok {
		return 0
	}
	left := time.Until(until)
	if left <= 0 {
		delete(p.until, id)
		p.n.Store(int32(len(p.until)))
	}
	return left
}

// add leaves id alone for d from now, or longer if it is already.
func (p *pauses) add(id string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = make(map[string]time.Time)
	}
	now := time.Now()
	until := now.Add(d)
	if was, ok := p.until[id]; !ok && len(p.until) >= mostPauses {
		p.shrink(now)
	} else if was.After(until) {
		until = was
	}
	p.until[id] = until
	p.n.Store(int32(len(p.until)))
}

// shrink makes room: what has ended goes, or else what ends first.
func (p *pauses) shrink(now time.Time) {
	var first string
	for id, until := range p.until {
		if !until.After(now) {
			delete(p.until, id)
		} else if first == "" || until.Before(p.until[first]) {
			first = id
		}
	}
	if len(p.until) >= mostPauses {
		delete(p.until, first)
	}
}

// retryAfter returns what a response's Retry-After asks for, at most about 136
// years, or 0 if there is none that can be read. A date counts from that of the
// response if it has one, so that the clock of this computer does not matter.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.Trim(h.Get("Retry-After"), " \t")
	if v == "" {
		return 0
	}
	if seconds, ok := delaySeconds(v); ok {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(0, at.Sub(now)), maxDelay*time.Second)
}

// maxDelay is more than anybody will wait, and fits into a time.Duration.
const maxDelay = 1<<32 - 1

// delaySeconds parses delay-seconds of RFC 9110: digits and nothing else. What
// is too large counts as maxDelay.
func delaySeconds(v string) (seconds int64, ok bool) {
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
		seconds = min(maxDelay, seconds*10+int64(v[i]-'0'))
	}
	return seconds, v != ""
}
