package breaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"example.com/plainware/store"
)

// Config configures a [Breaker]. The zero Config is useful.
//
// Functions are called from the goroutines of the calls and must be safe for
// concurrent use.
type Config struct {
	// Name is what the breaker protects, for errors, hooks and the Store, where
	// it tells this breaker from others: 1 to 64 letters, digits, '-', '_' or
	// '.'. Required with Store; otherwise empty is "default".
	Name string

	// Base makes the calls of [Breaker.RoundTrip]. nil is
	// http.DefaultTransport.
	Base http.RoundTripper

	// Window is how far back calls count, in steps of a tenth of it: 100 ms to
	// an hour. Zero is 10 s.
	Window time.Duration

	// MinCalls is how many calls there must be in the window before a ratio
	// means something. Zero is 20; negative is none.
	MinCalls int

	// FailureRatio is the share of failures in the window that opens the
	// breaker, at most 1. Zero is 0.5; negative is none.
	FailureRatio float64

	// Consecutive is how many failures in a row open the breaker, however few
	// the calls. Zero or negative is none.
	Consecutive int

	// SlowCall is how long a call may take before it counts as slow, whatever
	// its outcome. [Breaker.RoundTrip] measures up to the response header. Zero
	// or negative is none.
	SlowCall time.Duration

	// SlowRatio is the share of slow calls in the window that opens the
	// breaker, at most 1. Zero is 0.5; it has no effect without SlowCall.
	SlowRatio float64

	// OpenFor is how long the breaker stays open, give or take a tenth. It
	// doubles each time that it opens again before it has stayed closed for
	// Ramp and Window together. Zero is 5 s; the least is 10 ms.
	OpenFor time.Duration

	// MaxOpen bounds the doubling. Zero is a minute, or OpenFor if that is
	// more; negative is no doubling.
	MaxOpen time.Duration

	// Probes is how many calls may be on trial at the same time while the
	// breaker is half-open, at most 1000. Zero is 1.
	Probes int

	// ProbeTimeout is how long a probe is waited for. When it has passed the
	// next one may start, whatever has become of the first. Zero is 10 s; the
	// least is 10 ms, and the most is an hour.
	ProbeTimeout time.Duration

	// Successes is how many probes must succeed before the breaker closes. Zero
	// is 3.
	Successes int

	// Probe makes the trial itself, instead of letting callers do it: while the
	// breaker is half-open it is called until Successes are reached, one at a
	// time, each with a context that ends after ProbeTimeout, and callers are
	// refused. It may connect, ask for a health page, whatever shows that calls
	// would succeed. nil lets callers through.
	Probe func(context.Context) error

	// Ramp is for how long after closing only a part of the calls is let
	// through, from a tenth to all of them. During that time MinCalls is 1 and
	// the window begins at the closing, so that a relapse opens the breaker at
	// once. Zero is 5 s; negative is none.
	Ramp time.Duration

	// Classify says what the end of a call means. nil is [Classify]. It is not
	// asked about [Permit.Done].
	Classify func(Result) Outcome

	// Fallback answers in the place of a call of [Breaker.RoundTrip] that was
	// refused. The body of the request is closed when it has returned. nil
	// returns the error. For a Handler, ErrorHandler is the place.
	Fallback func(*http.Request, *OpenError) (*http.Response, error)

	// ErrorHandler answers a request to a Handler that is refused, with an
	// [*OpenError]; Retry-After is set already. nil is [WriteError]. It must
	// not read the body.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// OnStateChange is told of each change of the state, in their order and one
	// at a time, by the goroutine that has caused it. It may call any method of
	// the breaker but Close. nil is none.
	OnStateChange func(Change)

	// Store is where processes share the state, and where it is kept when they
	// end. It must be one that [store.Keep] takes. Calls never wait for it. It
	// stays open when the Breaker is closed. nil is a breaker for this process
	// alone.
	//
	// Processes that share a Store and a Name are to have the same Window, Sync,
	// Probes and ProbeTimeout.
	Store store.Store

	// Sync is how often the Store is asked, give or take a fifth; a change of
	// the state goes there at once. 10 ms to a minute; zero is 1 s.
	Sync time.Duration

	// Quorum is the share of the processes with calls that must have failing
	// ones, and be exceeded, before the breaker opens in all of them: below 1.
	// A process that fails for itself opens for itself only. Zero is 0.5, more
	// than half; negative is any one process.
	Quorum float64

	// Logger is told of changes of the state, and when the Store fails or
	// answers again. nil discards.
	Logger *slog.Logger
}

const (
	maxName      = 64
	minTime      = 10 * time.Millisecond
	maxTime      = time.Hour
	maxOpenLimit = 24 * time.Hour
	maxProbes    = 1000
	maxCalls     = 1 << 30
)

// complete returns c with its defaults, or every problem in it.
func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(field, what string, got any) {
		errs = append(errs, fmt.Errorf("breaker: %s: %s (got %v)", field, what, got))
	}
	switch {
	case c.Name == "" && c.Store != nil:
		bad("Name", "is required with a Store", `""`)
	case c.Name == "":
		c.Name = "default"
	case !validName(c.Name):
		bad("Name", "must be 1 to 64 letters, digits, '-', '_' or '.'", fmt.Sprintf("%q", c.Name))
	}
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	c.times(bad)
	c.counts(bad)
	if c.Classify == nil {
		c.Classify = Classify
	}
	if c.ErrorHandler == nil {
		c.ErrorHandler = WriteError
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

func (c *Config) times(bad func(field, what string, got any)) {
	within := func(field string, d *time.Duration, zero, least, most time.Duration) {
		if *d == 0 {
			*d = zero
		}
		if *d < least || *d > most {
			bad(field, fmt.Sprintf("must be %v to %v", least, most), *d)
		}
	}
	within("Window", &c.Window, 10*time.Second, 100*time.Millisecond, maxTime)
	within("OpenFor", &c.OpenFor, 5*time.Second, minTime, maxOpenLimit)
	switch {
	case c.MaxOpen == 0:
		c.MaxOpen = max(time.Minute, c.OpenFor)
	case c.MaxOpen < 0:
		c.MaxOpen = c.OpenFor
	case c.MaxOpen < c.OpenFor || c.MaxOpen > maxOpenLimit:
		bad("MaxOpen", fmt.Sprintf("must be OpenFor to %v", maxOpenLimit), c.MaxOpen)
	}
	within("ProbeTimeout", &c.ProbeTimeout, 10*time.Second, minTime, maxTime)
	if c.Ramp < 0 {
		c.Ramp = 0
	} else {
		within("Ramp", &c.Ramp, 5*time.Second, minTime, maxTime)
	}
	within("Sync", &c.Sync, time.Second, minTime, time.Minute)
	c.SlowCall = max(0, c.SlowCall)
}

func (c *Config) counts(bad func(field, what string, got any)) {
	share := func(field string, f *float64) {
		switch {
		case *f == 0:
			*f = 0.5
		case *f < 0:
			*f = -1
		case !(*f <= 1):
			bad(field, "must be at most 1", *f)
		}
	}
	share("FailureRatio", &c.FailureRatio)
	share("SlowRatio", &c.SlowRatio)
	if c.SlowCall == 0 || c.SlowRatio < 0 {
		c.SlowCall, c.SlowRatio = 0, -1
	}
	switch {
	case c.Quorum == 0:
		c.Quorum = 0.5
	case c.Quorum < 0:
		c.Quorum = 0
	case !(c.Quorum < 1):
		bad("Quorum", "must be below 1", c.Quorum)
	}
	within := func(field string, n *int, zero, most int) {
		if *n == 0 {
			*n = zero
		}
		if *n < 1 || *n > most {
			bad(field, fmt.Sprintf("must be 1 to %d", most), *n)
		}
	}
	if c.MinCalls < 0 {
		c.MinCalls = 1
	}
	within("MinCalls", &c.MinCalls, 20, maxCalls)
	within("Probes", &c.Probes, 1, maxProbes)
	within("Successes", &c.Successes, 3, maxCalls)
	c.Consecutive = max(0, c.Consecutive)
	if c.Consecutive > maxCalls {
		bad("Consecutive", fmt.Sprintf("must be at most %d", maxCalls), c.Consecutive)
	}
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}
