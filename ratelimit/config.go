package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"example.com/plainware/store"
)

// Policy is one limit of several, with a name.
type Policy struct {
	// Name identifies the policy in the header fields, in [Decision.Policy] and
	// in the store: 1 to 64 letters, digits, '-', '_' or '.', different from the
	// others'. What was counted stays with the name when Limit changes, as long
	// as it is made by the same function. Required.
	Name string

	// Limit is how much is allowed. Required.
	Limit Limit

	// Key is whom the policy counts. Zero is [Config.Key].
	Key Key

	// Cost is how much a request takes from the limit. nil is [Config.Cost].
	Cost func(*http.Request) int64

	// Optional leaves requests alone whose Key is incomplete: a header that is
	// not there, a function that returns "". Without it such requests share one
	// limit. It does not concern ByIP.
	Optional bool

	// Shadow makes a policy that refuses nothing, for trying it out: it counts
	// each request that the other policies admit, [Config.OnDecision] is told
	// what it would have refused, and [Stats] counts that. Its requests see no
	// header fields of it.
	Shadow bool

	// Debt lets [Limiter.Charge] take this much more than is there, which the
	// key then has to wait for: the cost of a request that is known only when it
	// has been served. It comes on top of what Limit promises. Zero or negative:
	// the policy is not charged. It is not for Concurrent.
	Debt int64

	// Lease makes a process take tokens from a remote store ahead of the
	// requests that will spend them, for keys with more than two requests in
	// this time, so that a hot key costs some calls of the store in each lease
	// time instead of one for each request. Tokens that are not spent in time
	// are lost, so the limit's bound holds; the burst is smaller by what the
	// rate gives in this time, and a Lease that would take half of it or more
	// has no effect. It is for Per only. Zero or negative is none; 20 ms is a
	// good value. With a store in memory it has no effect.
	Lease time.Duration
}

// Headers says what responses tell about the limits. Refusals have Retry-After
// in any case, in whole seconds, where waiting helps.
type Headers int

const (
	// Draft10 is RateLimit-Policy and RateLimit as in
	// draft-ietf-httpapi-ratelimit-headers-10, with an item for each policy.
	// Of the parameters, q is the most at once and w the seconds in which that
	// is granted; r is what is left, and t the seconds until there is more.
	// They add to what an outer limiter has written.
	Draft10 Headers = iota

	// Legacy is X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset,
	// for the policy that has refused or has the least left. Reset is the
	// instant at which all is available again, in Unix seconds as GitHub has it.
	Legacy

	// None is nothing.
	None
)

// String returns the name of the constant.
func (h Headers) String() string {
	switch h {
	case Draft10:
		return "Draft10"
	case Legacy:
		return "Legacy"
	case None:
		return "None"
	}
	return fmt.Sprintf("Headers(%d)", int(h))
}

// Config configures a [Limiter]. One of Limit and Policies is required.
//
// Functions are called from the goroutine that serves the request and must be
// safe for concurrent use.
type Config struct {
	// Limit is the one policy, which is called "default" then.
	Limit Limit

	// Policies are up to 16. A request must be admitted by each that is not a
	// Shadow, and one that is refused takes nothing from any.
	Policies []Policy

	// Key is whom to count, where a policy does not say otherwise. Zero is
	// [ByIP].
	Key Key

	// Cost is how much a request takes, where a policy does not say otherwise.
	// nil is 1. Zero is nothing, which is never refused; a negative cost counts
	// as 1. A cost above the most that is allowed at once is refused always.
	Cost func(*http.Request) int64

	// Store is where limits are counted; processes that share it share the
	// limits. It stays open when the Limiter is closed. nil is memory of this
	// Limiter's own, with 65,536 registers; see [store.MemoryConfig] for more.
	//
	// A [store.Memory] is asked directly. Any other store is asked through a
	// [store.Combiner], which is the one given or otherwise made here.
	Store store.Store

	// Name tells this limiter's registers from those of others in the Store: 1
	// to 64 letters, digits, '-', '_' or '.'. Required with Store.
	Name string

	// OnStoreError says how to decide while the store fails. Zero is Local: by
	// the same limits, in the memory of each process.
	OnStoreError OnStoreError

	// StoreBudget is the longest that a decision waits for the store. Zero is
	// 25 ms; negative is no limit but the request's context. After three
	// failures in a row the store is left alone for a second, then asked by one
	// request at a time.
	StoreBudget time.Duration

	// TrustedProxies are the networks of the proxies in front of this server.
	// X-Forwarded-For is believed as far as they have written it. nil is none:
	// the peer is the client.
	TrustedProxies []netip.Prefix

	// IPv6Prefix is how long the network is that counts as one client, 48 to 64
	// bits. Zero is 64.
	IPv6Prefix int

	// Exempt are networks whose clients are not limited, by the same address as
	// ByIP has.
	Exempt []netip.Prefix

	// Skip reports whether to leave a request alone. nil skips none. It must
	// not be decided by what a client can choose, such as a header.
	Skip func(*http.Request) bool

	// Headers says what responses tell. Zero is Draft10.
	Headers Headers

	// ErrorHandler answers a request that is refused, with a *[LimitError]; the
	// header fields are set already. nil is [WriteError]. It must not read the
	// body.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// OnDecision is told of the decision on each request, and of each policy in
	// Shadow that would have refused it. nil is none.
	OnDecision func(*http.Request, Decision)

	// OnDegraded is told of each call of the store that failed, a handful and
	// then one a second, and with nil when the store answers again. nil is none.
	OnDegraded func(error)

	// Context puts the decision into the request's context, for [Limiter.From].
	// Policies with a Debt do so too. It costs two allocations.
	Context bool

	// HotKeys is how many of the keys with the most requests [Limiter.Hottest]
	// shows: at most 4096. Zero is 64; negative is none. It keeps count of four
	// times as many.
	HotKeys int

	// Logger is told when the address of a client could not be found, once. nil
	// discards.
	Logger *slog.Logger
}

const (
	maxPolicies    = 16
	maxName        = 64
	defaultName    = "default"
	defaultHotKeys = 64
	maxHotKeys     = 4096
	defaultPrefix  = 64
	minPrefix      = 48
)

// policies returns what Limit stands for, or a copy of Policies, with what they
// inherit.
func (c *Config) policies() []Policy {
	ps := slices.Clone(c.Policies)
	if c.Limit != (Limit{}) || len(ps) == 0 {
		ps = []Policy{{Name: defaultName, Limit: c.Limit}}
	}
	for i := range ps {
		if ps[i].Key.parts == nil {
			ps[i].Key = c.Key.orIP()
		}
		if ps[i].Cost == nil {
			ps[i].Cost = c.Cost
		}
	}
	return ps
}

// check returns every problem of c at once.
func (c *Config) check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("ratelimit: %s: %w", field, fmt.Errorf(format, args...)))
	}
	if c.Limit != (Limit{}) && len(c.Policies) > 0 {
		bad("Policies", "must be empty when Limit is set (got %d)", len(c.Policies))
	}
	if c.Limit != (Limit{}) || len(c.Policies) == 0 {
		if _, err := c.Limit.rule(); err != nil {
			bad("Limit", "%w", err)
		}
	}
	if len(c.Policies) > maxPolicies {
		bad("Policies", "must be at most %d (got %d)", maxPolicies, len(c.Policies))
	}
	if err := c.Key.check(); err != nil {
		bad("Key", "%w", err)
	}
	seen := make(map[string]bool, len(c.Policies))
	for i := range c.Policies {
		p, at := &c.Policies[i], fmt.Sprintf("Policies[%d].", i)
		if !isName(p.Name) {
			bad(at+"Name", "must be 1 to %d letters, digits, '-', '_' or '.' (got %q)", maxName, p.Name)
		} else if seen[p.Name] {
			bad(at+"Name", "must differ from the others (got %q)", p.Name)
		}
		seen[p.Name] = true
		if err := p.Key.check(); err != nil {
			bad(at+"Key", "%w", err)
		}
		c.checkRule(p, at, bad)
	}
	switch {
	case c.Name == "" && c.Store != nil:
		bad("Name", `must be set when Store is (got "")`)
	case c.Name != "" && !isName(c.Name):
		bad("Name", "must be 1 to %d letters, digits, '-', '_' or '.' (got %q)", maxName, c.Name)
	}
	if c.OnStoreError < Local || c.OnStoreError > Deny {
		bad("OnStoreError", "must be Local, Allow or Deny (got %d)", int(c.OnStoreError))
	}
	if c.Headers < Draft10 || c.Headers > None {
		bad("Headers", "must be Draft10, Legacy or None (got %d)", int(c.Headers))
	}
	if n := c.IPv6Prefix; n != 0 && (n < minPrefix || n > defaultPrefix) {
		bad("IPv6Prefix", "must be between %d and %d bits (got %d)", minPrefix, defaultPrefix, n)
	}
	if c.HotKeys > maxHotKeys {
		bad("HotKeys", "must be at most %d (got %d)", maxHotKeys, c.HotKeys)
	}
	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			bad(fmt.Sprintf("TrustedProxies[%d]", i), "must be a network (got %v)", p)
		}
	}
	for i, p := range c.Exempt {
		if !p.IsValid() {
			bad(fmt.Sprintf("Exempt[%d]", i), "must be a network (got %v)", p)
		}
	}
	return errors.Join(errs...)
}

// checkRule checks what depends on the policy's limit.
func (c *Config) checkRule(p *Policy, at string, bad func(field, format string, args ...any)) {
	r, err := p.Limit.rule()
	if err != nil {
		bad(at+"Limit", "%w", err)
		return
	}
	switch {
	case p.Debt <= 0:
	case r.algorithm == concurrent:
		bad(at+"Debt", "has no meaning with Concurrent (got %d)", p.Debt)
	case plus(r.ceil, times(p.Debt, r.step)) >= store.MaxCount:
		bad(at+"Debt", "must be paid back within 104 days, and be below 2^53 (got %d)", p.Debt)
	}
	if p.Lease > 0 && r.algorithm != gcra {
		bad(at+"Lease", "is for Per only (got %v)", p.Lease)
	}
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ('0' > c || c > '9') && ('a' > c || c > 'z') && ('A' > c || c > 'Z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
