package ratelimit_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
)

// New reports all problems at once, each with the field and the value.
func TestConfigProblems(t *testing.T) {
	for _, c := range []struct {
		config ratelimit.Config
		want   string
	}{
		{ratelimit.Config{}, `ratelimit: Limit: is missing (got the zero Limit)`},
		{ratelimit.Config{Limit: plenty, Policies: []ratelimit.Policy{{Name: "a", Limit: plenty}}},
			`ratelimit: Policies: must be empty when Limit is set (got 1)`},
		{ratelimit.Config{Policies: make([]ratelimit.Policy, 17)}, `ratelimit: Policies: must be at most 16 (got 17)`},
		{ratelimit.Config{Limit: plenty, Store: memory(t)}, `ratelimit: Name: must be set when Store is (got "")`},
		{ratelimit.Config{
			Policies: []ratelimit.Policy{
				{Limit: plenty},
				{Name: "a/b", Limit: plenty},
				{Name: "c", Limit: ratelimit.PerHour(0)},
				{Name: "c", Limit: plenty, Key: ratelimit.ByHeader("a b")},
				{Name: "d", Limit: ratelimit.Quota(1, time.Hour), Lease: time.Second},
				{Name: "e", Limit: ratelimit.Concurrent(1), Debt: 1},
				{Name: "f", Limit: ratelimit.PerHour(1), Debt: 1 << 50},
				{Name: "g", Limit: plenty, Key: ratelimit.Join(ratelimit.ByIP(), ratelimit.ByFunc(nil))},
			},
			Name: "a b", OnStoreError: 7, Headers: -1, IPv6Prefix: 65, HotKeys: 5000,
			Key:            ratelimit.ByCookie(""),
			TrustedProxies: []netip.Prefix{{}}, Exempt: []netip.Prefix{office[0], {}},
		}, `ratelimit: Key: must name a header field or a cookie (got "")
ratelimit: Policies[0].Name: must be 1 to 64 letters, digits, '-', '_' or '.' (got "")
ratelimit: Policies[1].Name: must be 1 to 64 letters, digits, '-', '_' or '.' (got "a/b")
ratelimit: Policies[2].Limit: the number must be between 1 and 2^53 (got 0)
ratelimit: Policies[3].Name: must differ from the others (got "c")
ratelimit: Policies[3].Key: must name a header field or a cookie (got "a b")
ratelimit: Policies[4].Lease: is for Per only (got 1s)
ratelimit: Policies[5].Debt: has no meaning with Concurrent (got 1)
ratelimit: Policies[6].Debt: must be paid back within 104 days, and be below 2^53 (got 1125899906842624)
ratelimit: Policies[7].Key: ByFunc must have a function (got nil)
ratelimit: Name: must be 1 to 64 letters, digits, '-', '_' or '.' (got "a b")
ratelimit: OnStoreError: must be Local, Allow or Deny (got 7)
ratelimit: Headers: must be Draft10, Legacy or None (got -1)
ratelimit: IPv6Prefix: must be between 48 and 64 bits (got 65)
ratelimit: HotKeys: must be at most 4096 (got 5000)
ratelimit: TrustedProxies[0]: must be a network (got invalid Prefix)
ratelimit: Exempt[1]: must be a network (got invalid Prefix)`},
	} {
		l, err := ratelimit.New(c.config)
		if err == nil || l != nil {
			t.Errorf("got %v, %v", l, err)
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, c.want) || len(c.config.Policies) != 17 && got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
}

// What is done to Config after New has no effect.
func TestConfigIsCopied(t *testing.T) {
	c := ratelimit.Config{
		Policies:       []ratelimit.Policy{{Name: "a", Limit: ratelimit.PerHour(1)}},
		TrustedProxies: []netip.Prefix{office[0]},
		Exempt:         []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}
	h := newLimiter(t, c).Handler(nothing)
	c.Policies[0] = ratelimit.Policy{Name: "b", Limit: ratelimit.PerHour(100)}
	c.TrustedProxies[0], c.Exempt[0] = netip.Prefix{}, netip.Prefix{}
	for i, want := range []int{200, 429} {
		if got := serve(h, forwarded("10.0.0.1:1", "203.0.113.1")); got.status != want {
			t.Errorf("%d: %d", i, got.status)
		}
	}
	for range 3 {
		if got := serve(h, newRequest("192.0.2.1:1")); got.status != 200 {
			t.Errorf("got %d", got.status)
		}
	}
}

func TestNames(t *testing.T) {
	for want, v := range map[string]interface{ String() string }{
		"Draft10": ratelimit.Draft10, "Legacy": ratelimit.Legacy, "None": ratelimit.None, "Headers(9)": ratelimit.Headers(9),
	} {
		if got := v.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	for _, c := range []ratelimit.Config{
		{Limit: plenty}, {Limit: plenty, Store: basic{memory(t)}, Name: "api"},
	} {
		l := newLimiter(t, c)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is promised not to allocate does not.
func TestAllocs(t *testing.T) {
	for _, c := range []struct {
		name   string
		config ratelimit.Config
		want   float64
	}{
		{"both fields", ratelimit.Config{Limit: plenty, HotKeys: -1}, 2},
		{"both fields, quota", ratelimit.Config{Limit: ratelimit.Quota(1<<40, time.Hour), HotKeys: -1}, 2},
		{"both fields, sliding", ratelimit.Config{Limit: ratelimit.Sliding(1<<40, time.Hour), HotKeys: -1}, 2},
		{"no fields", ratelimit.Config{Limit: plenty, Headers: ratelimit.None}, 0},
		{"two policies", ratelimit.Config{Policies: []ratelimit.Policy{
			{Name: "a", Limit: plenty}, {Name: "b", Limit: ratelimit.Quota(1<<40, time.Hour)},
		}}, 2},
		{"hook", ratelimit.Config{Limit: plenty, OnDecision: func(*http.Request, ratelimit.Decision) {}}, 2},
		{"exempt", ratelimit.Config{Limit: plenty, Exempt: office}, 2},
	} {
		h := newLimiter(t, c.config).Handler(nothing)
		w, r := &discard{http.Header{}}, newRequest("203.0.113.9:4711")
		if got := allocs(func() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}); got > c.want {
			t.Errorf("%s: %v allocations, want %v", c.name, got, c.want)
		}
	}
	l := newLimiter(t, ratelimit.Config{Limit: plenty, Key: user})
	if got := allocs(func() {
		if d, err := l.Take(t.Context(), "", 1, "key"); err != nil || !d.Allowed {
			t.Error(d, err)
		}
	}); got > 0 {
		t.Errorf("Take: %v allocations", got)
	}
}
