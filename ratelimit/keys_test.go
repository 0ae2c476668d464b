package ratelimit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

var office = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

// shares reports whether two requests have one limit.
func shares(t *testing.T, c ratelimit.Config, a, b *http.Request) bool {
	t.Helper()
	c.Limit = ratelimit.PerHour(1)
	h := newLimiter(t, c).Handler(nothing)
	if got := serve(h, a); got.status != 200 {
		t.Fatalf("the first: %d", got.status)
	}
	return serve(h, b).status == 429
}

func forwarded(remote string, lines ...string) *http.Request {
	r := newRequest(remote)
	r.Header["X-Forwarded-For"] = lines
	return r
}

// ratelimit 24: an untrusted peer keeps its key whatever it writes into
// X-Forwarded-For, one client of a trusted proxy has one, and one network of IPv6
// too.
func TestKeyByIP(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b *http.Request
		want bool
	}{
		{"ports", newRequest("192.0.2.1:1"), newRequest("192.0.2.1:65535"), true},
		{"no port", newRequest("192.0.2.1:1"), newRequest("192.0.2.1"), true},
		{"clients", newRequest("192.0.2.1:1"), newRequest("192.0.2.2:1"), false},
		{"mapped", newRequest("192.0.2.1:1"), newRequest("[::ffff:192.0.2.1]:1"), true},
		{"one /64", newRequest("[2001:db8::1]:1"), newRequest("[2001:db8::ffff:1:2:3]:9"), true},
		{"two /64", newRequest("[2001:db8::1]:1"), newRequest("[2001:db8:0:1::1]:1"), false},
		{"zones", newRequest("[fe80::1%eth0]:1"), newRequest("[fe80::1%eth1]:1"), true},
		{"no address", newRequest("@"), newRequest("/run/x.sock"), true},

		{"forged", newRequest("192.0.2.1:1"), forwarded("192.0.2.1:1", "203.0.113.7"), true},
		{"forged lines", newRequest("192.0.2.1:1"), forwarded("192.0.2.1:1", "203.0.113.7", "10.0.0.1, 198.51.100.1"), true},
		{"forged garbage", newRequest("192.0.2.1:1"), forwarded("192.0.2.1:1", "<>", ",,,", "[::1"), true},
		{"proxy's clients", forwarded("10.0.0.1:1", "203.0.113.7"), forwarded("10.0.0.1:1", "203.0.113.8"), false},
		{"forged left of it", forwarded("10.0.0.1:1", "203.0.113.7"), forwarded("10.0.0.2:1", "1.1.1.1, 2.2.2.2", "203.0.113.7"), true},
		{"port in it", forwarded("10.0.0.1:1", "203.0.113.7"), forwarded("10.0.0.1:1", "203.0.113.7:4711"), true},
		{"brackets", forwarded("10.0.0.1:1", "2001:db8::7"), forwarded("10.0.0.1:1", "[2001:db8::7]:4711"), true},
		{"zone in it", forwarded("10.0.0.1:1", "fe80::7"), forwarded("10.0.0.1:1", "fe80::7%eth0"), true},
		{"mapped in it", forwarded("10.0.0.1:1", "203.0.113.7"), forwarded("10.0.0.1:1", "::ffff:203.0.113.7"), true},
		{"garbage is the proxy's", forwarded("10.0.0.1:1", "garbage"), newRequest("10.0.0.1:1"), true},
		{"direct and by proxy", newRequest("203.0.113.7:5"), forwarded("10.0.0.1:1", "203.0.113.7"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := shares(t, ratelimit.Config{TrustedProxies: office}, c.a, c.b); got != c.want {
				t.Errorf("one limit: %v, want %v", got, c.want)
			}
		})
	}
	t.Run("two /64 of one /48", func(t *testing.T) {
		c := ratelimit.Config{IPv6Prefix: 48}
		if !shares(t, c, newRequest("[2001:db8::1]:1"), newRequest("[2001:db8:0:1::1]:1")) {
			t.Error("two limits")
		}
	})
	t.Run("65536 addresses of one /64", func(t *testing.T) {
		h := newLimiter(t, ratelimit.Config{Limit: ratelimit.Per(100, 100*time.Hour)}).Handler(nothing)
		admitted := 0
		w := &discard{}
		for i := range 1 << 16 {
			w.header = http.Header{}
			h.ServeHTTP(w, newRequest(fmt.Sprintf("[2001:db8::%x]:1", i)))
			if w.header.Get("Retry-After") == "" {
				admitted++
			}
		}
		if admitted != 100 {
			t.Errorf("%d admitted, want 100", admitted)
		}
	})
}

func with(header, value string) *http.Request {
	r := newRequest("192.0.2.1:1")
	r.Header.Set(header, value)
	return r
}

// ratelimit 23: composite keys do not collide, a missing part is no value that
// can be sent, and long or strange values are as good as any.
func TestKeysDoNotCollide(t *testing.T) {
	two := ratelimit.Join(ratelimit.ByHeader("A"), ratelimit.ByHeader("B"))
	ab := func(a, b string) *http.Request {
		r := newRequest("192.0.2.1:1")
		if a != "" {
			r.Header.Set("A", a)
		}
		if b != "" {
			r.Header.Set("B", b)
		}
		return r
	}
	text := func(s string) *http.Request { return with("Text", s) }
	byText := ratelimit.ByFunc(func(r *http.Request) string { return r.Header.Get("Text") })
	plainTwo := ratelimit.Join(byText, ratelimit.ByFunc(func(r *http.Request) string { return r.Header.Get("More") }))
	texts := func(a, b string) *http.Request {
		r := text(a)
		r.Header.Set("More", b)
		return r
	}
	long := strings.Repeat("x", 10_000)
	for _, c := range []struct {
		name string
		key  ratelimit.Key
		a, b *http.Request
		want bool
	}{
		{"same", two, ab("x", "y"), ab("x", "y"), true},
		{"moved boundary", two, ab("a:b", "c"), ab("a", "b:c"), false},
		{"moved boundary of plain parts", plainTwo, texts("a:b", "c"), texts("a", "b:c"), false},
		{"lengths in the parts", plainTwo, texts("1:a", "1:b"), texts("1:a1:b", ""), false},
		{"swapped", two, ab("x", "y"), ab("y", "x"), false},
		{"second missing", two, ab("x", ""), ab("x", "-"), false},
		{"first missing", two, ab("", "x"), ab("x", ""), false},
		{"both missing", two, ab("", ""), ab("", ""), true},
		{"missing and a value", byText, text(""), text("#"), false},
		{"missing and missing", byText, text(""), newRequest("192.0.2.2:2"), true},
		{"long", byText, text(long), text(long), true},
		{"long, one byte more", byText, text(long), text(long + "x"), false},
		{"64 and 65 bytes", byText, text(long[:64]), text(long[:65]), false},
		{"not UTF-8", byText, text("\xff"), text("\xfe"), false},
		{"NUL", byText, text("a\x00"), text("a"), false},
		{"header, first value only", ratelimit.ByHeader("a"), ab("x", ""), &http.Request{Header: http.Header{"A": {"x", "y"}}}, true},
		{"cookie", ratelimit.ByCookie("c"), with("Cookie", "c=1; d=2"), with("Cookie", "d=3; c=1"), true},
		{"cookies", ratelimit.ByCookie("c"), with("Cookie", "c=1"), with("Cookie", "c=2"), false},
		{"by address and text", ratelimit.Join(ratelimit.ByIP(), byText), text("a"), text("a"), true},
		{"by address and texts", ratelimit.Join(ratelimit.ByIP(), byText), text("a"), text("b"), false},
		{"the zero Key in a Join", ratelimit.Join(ratelimit.Key{}, byText), text("a"), text("b"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := shares(t, ratelimit.Config{Key: c.key}, c.a, c.b); got != c.want {
				t.Errorf("one limit: %v, want %v", got, c.want)
			}
		})
	}
	// A value that looks like the hash of another is hashed itself.
	var keys []string
	f := storetest.Faulty(memory(t), func(c storetest.Call) storetest.Fault {
		keys = append(keys, c.Key)
		return storetest.Fault{}
	})
	l := newLimiter(t, ratelimit.Config{Limit: plenty, Key: byText, Store: f, Name: "api", StoreBudget: -1})
	for _, s := range []string{long, "user-7", "#"} {
		if _, err := l.Take(t.Context(), "", 1, s); err != nil {
			t.Fatal(err)
		}
	}
	if len(keys) != 3 || len(keys[0]) != 23 || keys[1] != "user-7" || len(keys[2]) != 23 {
		t.Fatalf("the store got %q", keys)
	}
	if shares(t, ratelimit.Config{Key: byText}, text(long), text(keys[0])) {
		t.Error("a hash and what it is of have one limit")
	}
}

func TestKeyByPattern(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /a/{id}", nothing)
	mux.Handle("GET /b/{id}", nothing)
	path := func(p string) *http.Request {
		r := newRequest("192.0.2.1:1")
		r.URL.Path = p
		return r
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{{"/a/1", "/a/2", true}, {"/a/1", "/b/1", false}, {"/a/1", "/x", false}, {"/x", "/y", true}} {
		if got := shares(t, ratelimit.Config{Key: ratelimit.ByPattern(mux)}, path(c.a), path(c.b)); got != c.want {
			t.Errorf("%s and %s: %v, want %v", c.a, c.b, got, c.want)
		}
	}
	// Inside of the mux it is there already.
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(1), Key: ratelimit.ByPattern(nil)})
	inside := http.NewServeMux()
	inside.Handle("GET /a/{id}", l.Handler(nothing))
	inside.Handle("GET /b/{id}", l.Handler(nothing))
	for _, c := range []struct {
		path string
		want int
	}{{"/a/1", 200}, {"/b/1", 200}, {"/a/2", 429}} {
		if got := serve(inside, path(c.path)); got.status != c.want {
			t.Errorf("%s: %d, want %d", c.path, got.status, c.want)
		}
	}
}

// Optional leaves requests without a key alone, but not those without an address.
func TestOptional(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "key", Limit: ratelimit.PerHour(1), Key: ratelimit.ByHeader("X-Api-Key"), Optional: true},
		{Name: "unix", Limit: ratelimit.PerHour(5), Optional: true},
	}})
	h := l.Handler(nothing)
	for i, c := range []struct {
		r    *http.Request
		want int
	}{
		{newRequest("@"), 200}, {newRequest("@"), 200}, {with("X-Api-Key", "k"), 200}, {with("X-Api-Key", "k"), 429},
		{newRequest("@"), 200}, {newRequest("@"), 200}, {newRequest("@"), 200}, {newRequest("@"), 429},
	} {
		if got := serve(h, c.r); got.status != c.want {
			t.Errorf("request %d: %d, want %d", i, got.status, c.want)
		}
	}
}

// ratelimit 23: secrets are in no error, and reach the store as a hash only.
func TestKeysAreNotShown(t *testing.T) {
	const secret = "sk-live-0123456789"
	var seen []string
	f := storetest.Faulty(memory(t), func(c storetest.Call) storetest.Fault {
		seen = append(seen, c.Key)
		return storetest.Fault{}
	})
	l := newLimiter(t, ratelimit.Config{
		Limit: ratelimit.PerHour(1), Key: ratelimit.ByHeader("Authorization"), Store: f, Name: "api",
		StoreBudget: -1, HotKeys: 10,
	})
	h := l.Handler(nothing)
	for range 200 {
		if got := serve(h, with("Authorization", secret)); strings.Contains(got.body, secret) {
			t.Error(got.body)
		}
	}
	if err := l.Wait(t.Context(), "", 2, secret); err == nil || strings.Contains(err.Error(), secret) {
		t.Error(err)
	}
	if len(seen) == 0 || strings.Contains(strings.Join(seen, " "), secret) {
		t.Errorf("the store got %q", seen)
	}
	for k := range l.Hottest() {
		if strings.Contains(k.Key, secret) {
			t.Error(k)
		}
	}
	two := newLimiter(t, ratelimit.Config{Limit: plenty, Key: ratelimit.Join(ratelimit.ByIP(), ratelimit.ByHeader("A"))})
	for _, parts := range [][]string{{}, {"192.0.2.1"}, {"192.0.2.1", "a", "b"}, {"secret", "a"}, {"192.0.2.0/24", "secret"}} {
		if _, err := two.Take(t.Context(), "", 1, parts...); !errors.Is(err, ratelimit.ErrKey) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", parts, err)
		}
	}
}

// What Take is given is the key that requests have.
func TestTakeHasTheKeyOfRequests(t *testing.T) {
	byText := ratelimit.ByFunc(func(r *http.Request) string { return r.Header.Get("Text") })
	for _, c := range []struct {
		key   ratelimit.Key
		r     *http.Request
		parts []string
	}{
		{ratelimit.ByIP(), newRequest("192.0.2.1:1"), []string{"192.0.2.1"}},
		{ratelimit.ByIP(), newRequest("192.0.2.1:1"), []string{"::ffff:192.0.2.1"}},
		{ratelimit.ByIP(), newRequest("[2001:db8::1]:1"), []string{"2001:db8::9"}},
		{ratelimit.ByIP(), newRequest("[2001:db8::1]:1"), []string{"2001:db8::/64"}},
		{ratelimit.ByIP(), newRequest("@"), []string{""}},
		{byText, with("Text", "abc"), []string{"abc"}},
		{byText, newRequest("192.0.2.1:1"), []string{""}},
		{ratelimit.ByHeader("text"), with("Text", "abc"), []string{"abc"}},
		{ratelimit.Join(ratelimit.ByIP(), byText), with("Text", "abc"), []string{"192.0.2.1", "abc"}},
		{ratelimit.Join(ratelimit.ByCookie("c"), ratelimit.ByIP()), with("Cookie", "c=v"), []string{"v", "192.0.2.1"}},
	} {
		l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(1), Key: c.key})
		if d, err := l.Take(t.Context(), "", 1, c.parts...); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		if got := serve(l.Handler(nothing), c.r); got.status != 429 {
			t.Errorf("%q: status %d", c.parts, got.status)
		}
	}
}

// Two limiters and two policies on one store, with one key, do not meet.
func TestNamesAreApart(t *testing.T) {
	var m store.Store = memory(t)
	policies := []ratelimit.Policy{
		{Name: "a", Limit: ratelimit.PerHour(1), Key: user}, {Name: "b", Limit: ratelimit.Quota(1, 1e9), Key: user},
	}
	one := newLimiter(t, ratelimit.Config{Policies: policies, Store: m, Name: "one"})
	two := newLimiter(t, ratelimit.Config{Policies: policies, Store: m, Name: "two"})
	for _, l := range []*ratelimit.Limiter{one, two} {
		for _, p := range []string{"a", "b"} {
			if d, err := l.Take(t.Context(), p, 1, "key"); err != nil || !d.Allowed {
				t.Errorf("%s: %+v, %v", p, d, err)
			}
		}
	}
	for _, p := range []string{"", "c"} {
		if _, err := one.Take(t.Context(), p, 1, "key"); !errors.Is(err, ratelimit.ErrPolicy) {
			t.Errorf("%q: got %v", p, err)
		}
	}
}
