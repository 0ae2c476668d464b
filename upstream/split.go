package upstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// SplitScale is the sum of all shares of a [Split]: a share of 1 is 0.01 %.
const SplitScale = 10_000

// Arm is one of the versions that a [Split] divides traffic between.
type Arm struct {
	// Name names the arm. Required and unique; letters, digits, "-" and "_".
	Name string

	// Base serves the arm's requests: a [Pool], or any other RoundTripper.
	// Required.
	Base http.RoundTripper

	// Share is the arm's share of [SplitScale], from 0. The first arm has what
	// the others leave, and its Share must be 0.
	Share int
}

// SplitConfig configures a [Split].
type SplitConfig struct {
	// Arms are the arms, at least two. The first is the stable one.
	Arms []Arm

	// Key returns what identifies the user of a request, and whether there is
	// anything that does. Nil knows nobody.
	Key func(*http.Request) (uint64, bool)

	// Salt makes a user's place independent of that in other Splits with the
	// same keys: without it the same users are always the first to try
	// something new. Empty is no salt.
	Salt string

	// Cookie is the name of a cookie that gives those without a key a place
	// of their own, for a year. It is not signed: a client can choose its place,
	// as it could by discarding the cookie until it likes the new one. Empty
	// sends each of their requests anywhere.
	Cookie string

	// Insecure leaves the Secure attribute out of the cookie.
	Insecure bool

	// Choose, unless nil, is asked first, and returns the name of an arm or
	// "". It must not believe what a client says without a reason; see Override.
	Choose func(*http.Request) string

	// Override, unless nil, lets clients choose that have a token of
	// [Split.Token].
	Override *Override

	// Guard, unless nil, takes an arm out that fails more than the first.
	Guard *Guard

	// Done is called at the end of each RoundTrip, in its goroutine. res is
	// nil if err is not, and not to be read. Nil is not called.
	Done func(req *http.Request, arm string, res *http.Response, err error)
}

// Guard stops an arm that fails more often than the first arm does. A failure is
// an error that is not the client's doing, or a status of 500 or above.
type Guard struct {
	// Margin is by how many percentage points the arm's failures may exceed
	// those of the first arm: 1 to 100. Zero is 5.
	Margin int

	// MinRequests is how many requests of the arm, and of the first, the
	// judgement needs; zero is 100.
	MinRequests int

	// Window is how long requests count, to within half of it: zero is 1 min,
	// the least is 1 s.
	Window time.Duration

	// OnStop is called when an arm is stopped, in the goroutine of the request
	// that was one too many. Nil is not called.
	OnStop func(ArmStats)
}

// ArmStats is what a [Split] knows of one arm.
type ArmStats struct {
	Name     string
	Share    int           // as configured
	Stopped  bool          // by the Guard: the first arm has its share
	Requests uint64        // that have ended, but for those whose client left
	Failures uint64        // of them
	Waited   time.Duration // sum of the times to the response's header
}

// Mean returns the mean time to the header of a response, or 0.
func (s ArmStats) Mean() time.Duration {
	if s.Requests == 0 {
		return 0
	}
	return s.Waited / time.Duration(s.Requests)
}

// Split divides requests between arms, say a release and its successor. It is a
// RoundTripper over RoundTrippers and does not care what they are, and is safe
// for concurrent use.
//
// Each user has a place from 0 to 9999, by a hash of the key or by cookie, and
// each arm an interval of places: the second arm from the lower end, the third
// from the upper, further ones behind the second. So where the share of
// the second or third arm grows, users move to that arm and nobody moves away
// from it. Growing the second moves the intervals of a fourth, if there is one.
type Split struct {
	arms   []*arm
	key    func(*http.Request) (uint64, bool)
	salt   uint64
	cookie *http.Cookie // nil if there is none
	choose func(*http.Request) string
	over   *Override
	done   func(*http.Request, string, *http.Response, error)

	mu    sync.Mutex // of changes to plan
	plan  atomic.Pointer[[]interval]
	guard *guard
}

// arm is an Arm with its counters.
type arm struct {
	name     string
	base     http.RoundTripper
	share    atomic.Int64
	stopped  atomic.Bool
	requests atomic.Uint64
	failures atomic.Uint64
	waited   atomic.Int64
}

// interval is the places [from, to) of an arm. The first arm has none: it is
// where everybody else goes.
type interval struct{ from, to, arm int }

// NewSplit returns a Split, or an error that names every problem in c.
func NewSplit(c SplitConfig) (*Split, error) {
	var p problems
	s := &Split{key: c.Key, salt: mix(Hash(c.Salt)), choose: c.Choose, done: c.Done}
	if len(c.Arms) < 2 {
		p.add("SplitConfig.Arms", "must be at least two", len(c.Arms))
	}
	seen := make(map[string]bool)
	for i, a := range c.Arms {
		field := fmt.Sprintf("SplitConfig.Arms[%d]", i)
		if !validArmName(a.Name) {
			p.add(field+".Name", "must be letters, digits, - and _", strconv.Quote(a.Name))
		} else if seen[a.Name] {
			p.add(field+".Name", "must be unique", strconv.Quote(a.Name))
		}
		seen[a.Name] = true
		if a.Base == nil {
			p.add(field+".Base", "is required", nil)
		}
		s.arms = append(s.arms, &arm{name: a.Name, base: a.Base})
	}
	shares := make([]int, len(c.Arms))
	for i, a := range c.Arms {
		shares[i] = a.Share
	}
	p = append(p, checkShares("SplitConfig.Arms", shares)...)
	if c.Cookie != "" {
		s.cookie = &http.Cookie{
			Name: c.Cookie, Value: "0", Path: "/", MaxAge: 365 * 24 * 3600,
			Secure: !c.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		}
		if err := s.cookie.Valid(); err != nil {
			p.add("SplitConfig.Cookie", "must be a cookie's name", strconv.Quote(c.Cookie))
		}
		if c.Insecure && strings.HasPrefix(c.Cookie, "__") {
			p.add("SplitConfig.Cookie", "its prefix needs a secure cookie", strconv.Quote(c.Cookie))
		}
	}
	if c.Override != nil {
		p = append(p, c.Override.check()...)
		s.over = c.Override.clone()
	}
	if c.Guard != nil {
		p = append(p, c.Guard.check()...)
		s.guard = newGuard(*c.Guard, len(c.Arms))
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	s.setShares(shares)
	return s, nil
}

func validArmName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

func checkShares(field string, shares []int) problems {
	var p problems
	sum := 0
	for i, n := range shares {
		f := fmt.Sprintf("%s[%d].Share", field, i)
		switch {
		case i == 0 && n != 0:
			p.add(f, "must be 0, the first arm has what the others leave", n)
		case n < 0 || n > SplitScale:
			p.add(f, "must be 0 to 10000", n)
		default:
			sum += n
		}
	}
	if sum > SplitScale {
		p.add(field, "must have shares of 10000 in sum, or less", sum)
	}
	return p
}

// SetShares changes the shares of the arms named, and starts those again that
// the Guard had stopped. Other arms keep theirs. It changes nothing if it returns
// an error.
func (s *Split) SetShares(shares map[string]int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]int, len(s.arms))
	left := len(shares)
	for i, a := range s.arms {
		all[i] = int(a.share.Load())
		if n, ok := shares[a.name]; ok {
			all[i] = n
			left--
		}
	}
	if left > 0 {
		return errors.New("upstream: SetShares: names an arm that does not exist")
	}
	if err := checkShares("SetShares", all).err(); err != nil {
		return err
	}
	for i, a := range s.arms {
		if _, ok := shares[a.name]; ok && a.stopped.Load() {
			s.guard.restart(i, &a.stopped) // there is one, or nothing would be stopped
		}
	}
	s.setShares(all)
	return nil
}

// setShares makes the plan.
func (s *Split) setShares(shares []int) {
	plan := make([]interval, 0, len(shares))
	low, high := 0, SplitScale
	for i, n := range shares {
		s.arms[i].share.Store(int64(n))
		switch {
		case n == 0:
		case i == 2:
			plan = append(plan, interval{high - n, high, i})
		default:
			plan = append(plan, interval{low, low + n, i})
		}
		if i != 2 {
			low += n
		}
	}
	s.plan.Store(&plan)
}

// RoundTrip sends the request to its arm.
func (s *Split) RoundTrip(req *http.Request) (*http.Response, error) {
	i, place := s.pick(req)
	a := s.arms[i]
	began := time.Now()
	res, err := a.base.RoundTrip(req)
	s.count(i, time.Since(began), req, res, err)
	if err == nil && place >= 0 {
		c := *s.cookie
		c.Value = strconv.Itoa(place)
		if res.Header == nil {
			res.Header = make(http.Header)
		}
		res.Header.Add("Set-Cookie", c.String())
	}
	if s.done != nil {
		s.done(req, a.name, res, err)
	}
	return res, err
}

// CloseIdleConnections closes the idle connections of the arms that have such a
// method.
func (s *Split) CloseIdleConnections() {
	for _, a := range s.arms {
		if c, ok := a.base.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// Arms returns the statistics of the arms, in their order.
func (s *Split) Arms() iter.Seq[ArmStats] {
	return func(yield func(ArmStats) bool) {
		for _, a := range s.arms {
			if !yield(a.stats()) {
				return
			}
		}
	}
}

func (a *arm) stats() ArmStats {
	return ArmStats{
		Name:     a.name,
		Share:    int(a.share.Load()),
		Stopped:  a.stopped.Load(),
		Requests: a.requests.Load(),
		Failures: a.failures.Load(),
		Waited:   time.Duration(a.waited.Load()),
	}
}

// pick returns the arm of a request, and the place that its client is to have by
// cookie from now on, or -1.
func (s *Split) pick(req *http.Request) (arm, place int) {
	if s.choose != nil {
		if i := s.index(s.choose(req)); i >= 0 {
			return i, -1
		}
	}
	if s.over != nil {
		if i := s.index(s.over.read(req.Header, time.Now())); i >= 0 {
			return i, -1
		}
	}
	if s.key != nil {
		if key, ok := s.key(req); ok {
			return s.at(int(mix(key^s.salt) % SplitScale)), -1
		}
	}
	if s.cookie == nil {
		return s.at(rand.IntN(SplitScale)), -1
	}
	for c := range cookieValues(req.Header, s.cookie.Name) {
		// Only as it was written, and so never negative.
		if n, err := strconv.Atoi(c); err == nil && n < SplitScale && strconv.Itoa(n) == c && n >= 0 {
			return s.at(n), -1
		}
	}
	place = rand.IntN(SplitScale)
	return s.at(place), place
}

// index returns the arm of that name, or -1.
func (s *Split) index(name string) int {
	if name != "" {
		for i, a := range s.arms {
			if a.name == name {
				return i
			}
		}
	}
	return -1
}

// at returns the arm that has the place.
func (s *Split) at(place int) int {
	for _, v := range *s.plan.Load() {
		if v.from <= place && place < v.to && !s.arms[v.arm].stopped.Load() {
			return v.arm
		}
	}
	return 0
}

// count takes the outcome of a request into the statistics, and to the guard.
func (s *Split) count(i int, wait time.Duration, req *http.Request, res *http.Response, err error) {
	if err != nil && clientFault(req.Context(), err) {
		return
	}
	a := s.arms[i]
	failed := err != nil || res.StatusCode >= 500
	a.requests.Add(1)
	a.waited.Add(int64(wait))
	if failed {
		a.failures.Add(1)
	}
	if s.guard != nil && s.guard.count(i, &a.stopped, failed, time.Now()) && s.guard.c.OnStop != nil {
		s.guard.c.OnStop(a.stats())
	}
}

// clientFault tells whether a request failed because of who sent it.
func clientFault(ctx context.Context, err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Kind {
		case KindClientGone, KindClientBody, KindTooLarge, KindPolicy:
			return true
		}
	}
	return errors.Is(ctx.Err(), context.Canceled)
}
