package ratelimit_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/ratelimit"
)

// item is an item of a structured field: a String with Integer and String
// parameters (RFC 9651).
type item struct {
	name    string
	numbers map[string]int64
	texts   map[string]string
}

// parseList is a strict parser of a List of such items.
func parseList(lines []string) (items []item, err error) {
	s := strings.Join(lines, ", ")
	text := func() (string, error) {
		end := strings.IndexByte(s[1:], '"')
		if s[0] != '"' || end < 0 || strings.ContainsAny(s[1:1+end], `\`) {
			return "", fmt.Errorf("no string at %q", s)
		}
		v := s[1 : 1+end]
		s = s[2+end:]
		return v, nil
	}
	for {
		if s == "" {
			return nil, fmt.Errorf("an item is missing")
		}
		it := item{numbers: map[string]int64{}, texts: map[string]string{}}
		if it.name, err = text(); err != nil {
			return nil, err
		}
		for strings.HasPrefix(s, ";") {
			key, rest, ok := strings.Cut(s[1:], "=")
			if !ok || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz") != "" || rest == "" {
				return nil, fmt.Errorf("no parameter at %q", s)
			}
			if s = rest; s[0] == '"' {
				if it.texts[key], err = text(); err != nil {
					return nil, err
				}
				continue
			}
			end := strings.IndexAny(s, ";, ")
			if end < 0 {
				end = len(s)
			}
			n, err := strconv.ParseInt(s[:end], 10, 64)
			if err != nil || n < 0 || n > 999_999_999_999_999 || strconv.FormatInt(n, 10) != s[:end] {
				return nil, fmt.Errorf("no integer at %q", s)
			}
			it.numbers[key], s = n, s[end:]
		}
		items = append(items, it)
		if s == "" {
			return items, nil
		}
		if !strings.HasPrefix(s, ", ") {
			return nil, fmt.Errorf("rest %q", s)
		}
		s = s[2:]
	}
}

func golden(h http.Header) string {
	var lines []string
	for _, name := range []string{
		"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After", "Connection",
	} {
		for _, v := range h.Values(name) {
			lines = append(lines, name+": "+v)
		}
	}
	return strings.Join(lines, "\n")
}

// ratelimit 25: what responses say, per format.
func TestHeadersGolden(t *testing.T) {
	several := ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "burst", Limit: ratelimit.PerSecond(10).Burst(20)},
		{Name: "strict", Limit: ratelimit.PerMinute(100).Strict()},
		{Name: "daily", Limit: ratelimit.Quota(10_000, 24*time.Hour)},
		{Name: "slide", Limit: ratelimit.Sliding(40, time.Minute)},
		{Name: "busy", Limit: ratelimit.Concurrent(3)},
		{Name: "users", Limit: ratelimit.PerMinute(5), Key: ratelimit.ByHeader("X-User"), Optional: true},
		{Name: "try", Limit: ratelimit.PerMinute(1), Shadow: true},
	}}
	for _, c := range []struct {
		name   string
		config ratelimit.Config
		before int // requests
		user   string
		status int
		want   string
	}{
		{"one policy", ratelimit.Config{Limit: ratelimit.PerMinute(100)}, 0, "", 200, `
RateLimit-Policy: "default";q=100;w=60
RateLimit: "default";r=99;t=1`},
		{"refused", ratelimit.Config{Limit: ratelimit.PerMinute(3)}, 3, "", 429, `
RateLimit-Policy: "default";q=3;w=60
RateLimit: "default";r=0;t=20
Retry-After: 20`},
		{"window of less than a second", ratelimit.Config{Limit: ratelimit.Per(2, 10*time.Millisecond)}, 0, "", 200, `
RateLimit-Policy: "default";q=2;w=1
RateLimit: "default";r=1;t=1`},
		{"quota, refused", ratelimit.Config{Limit: ratelimit.Quota(1, time.Hour)}, 1, "", 429, `
RateLimit-Policy: "default";q=1;w=3600
RateLimit: "default";r=0;t=3600
Retry-After: 3600`},
		{"several", several, 0, "", 200, `
RateLimit-Policy: "burst";q=20;w=2, "strict";q=50;w=60, "daily";q=10000;w=86400, "slide";q=40;w=60, "busy";q=3;qu="concurrent-requests"
RateLimit: "burst";r=19;t=1, "strict";r=49;t=2, "daily";r=9999;t=86400, "slide";r=39;t=120, "busy";r=2`},
		{"several, refused", several, 20, "", 429, `
RateLimit-Policy: "burst";q=20;w=2, "strict";q=50;w=60, "daily";q=10000;w=86400, "slide";q=40;w=60, "busy";q=3;qu="concurrent-requests"
RateLimit: "burst";r=0;t=1, "strict";r=30;t=2, "daily";r=9980;t=86400, "slide";r=20;t=63, "busy";r=2
Retry-After: 1`},
		{"several, the optional too", several, 0, "ann", 200, `
RateLimit-Policy: "burst";q=20;w=2, "strict";q=50;w=60, "daily";q=10000;w=86400, "slide";q=40;w=60, "busy";q=3;qu="concurrent-requests", "users";q=5;w=60
RateLimit: "burst";r=19;t=1, "strict";r=49;t=2, "daily";r=9999;t=86400, "slide";r=39;t=120, "busy";r=2, "users";r=4;t=12`},
		{"costs more than ever allowed", ratelimit.Config{
			Limit: ratelimit.PerMinute(3), Cost: func(*http.Request) int64 { return 4 },
		}, 0, "", 429, `
RateLimit-Policy: "default";q=3;w=60`},
		{"more than an Integer holds", ratelimit.Config{Limit: ratelimit.Quota(1<<53-1, time.Hour)}, 0, "", 200, `
RateLimit-Policy: "default";q=999999999999999;w=3600
RateLimit: "default";r=999999999999999;t=3600`},
		{"legacy", ratelimit.Config{Limit: ratelimit.PerMinute(100), Headers: ratelimit.Legacy}, 0, "", 200, `
X-RateLimit-Limit: 100
X-RateLimit-Remaining: 99
X-RateLimit-Reset: 946684801`},
		{"legacy, refused", ratelimit.Config{Limit: ratelimit.PerMinute(3), Headers: ratelimit.Legacy}, 3, "", 429, `
X-RateLimit-Limit: 3
X-RateLimit-Remaining: 0
X-RateLimit-Reset: 946684860
Retry-After: 20`},
		{"none", ratelimit.Config{Limit: ratelimit.PerMinute(3), Headers: ratelimit.None}, 0, "", 200, ""},
		{"none, refused", ratelimit.Config{Limit: ratelimit.PerMinute(3), Headers: ratelimit.None}, 3, "", 429, `
Retry-After: 20`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newLimiter(t, c.config).Handler(nothing)
				request := func() *http.Request {
					r := newRequest("192.0.2.1:1")
					if c.user != "" {
						r.Header.Set("X-User", c.user)
					}
					return r
				}
				for range c.before {
					serve(h, request())
				}
				got := serve(h, request())
				if got.status != c.status {
					t.Errorf("status %d, want %d", got.status, c.status)
				}
				if g := golden(got.header); g != strings.TrimPrefix(c.want, "\n") {
					t.Errorf("got\n%s\nwant%s", g, c.want)
				}
			})
		})
	}
}

// ratelimit 25: every field parses, t is at least 1, and Retry-After at least t
// of the policy that refused.
func TestHeadersParse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cost := int64(1)
		h := newLimiter(t, ratelimit.Config{
			Policies: []ratelimit.Policy{
				{Name: "a.b_c-1", Limit: ratelimit.PerSecond(7)},
				{Name: "quota", Limit: ratelimit.Quota(300, time.Minute)},
				{Name: "slide", Limit: ratelimit.Sliding(40, 7*time.Second)},
				{Name: "busy", Limit: ratelimit.Concurrent(10)},
			},
			Cost: func(*http.Request) int64 { return cost },
		}).Handler(nothing)
		refused := 0
		for i := range 500 {
			cost = int64(i%3) + 1
			got := serve(h, newRequest("192.0.2.1:1"))
			policies, err := parseList(got.header.Values("RateLimit-Policy"))
			if err != nil || len(policies) != 4 {
				t.Fatalf("%v, %v", policies, err)
			}
			limits, err := parseList(got.header.Values("RateLimit"))
			if err != nil || len(limits) != 4 {
				t.Fatalf("%v, %v", limits, err)
			}
			var retry int64
			if got.status != 200 {
				refused++
				if retry, err = strconv.ParseInt(got.header.Get("Retry-After"), 10, 64); err != nil || retry < 1 {
					t.Fatalf("Retry-After %q", got.header.Get("Retry-After"))
				}
			}
			met := got.status == 200
			for k, l := range limits {
				q := policies[k]
				if l.name != q.name || l.numbers["r"] > q.numbers["q"] {
					t.Fatalf("%v of %v", l, q)
				}
				reset, ok := l.numbers["t"]
				if ok == (l.name == "busy") || ok && reset < 1 {
					t.Fatalf("%v", l)
				}
				met = met || ok && l.numbers["r"] < cost && reset <= retry
			}
			if !met {
				t.Fatalf("Retry-After: %d is before the t of what refused: %v", retry, limits)
			}
			time.Sleep(time.Duration(i%200) * time.Millisecond)
		}
		if refused == 0 {
			t.Error("nothing was refused")
		}
	})
}

// ratelimit 25: a client that obeys Retry-After is admitted, whatever the limit.
// go-limiter sends a date that http.ParseTime refuses.
func TestObeyRetryAfter(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.PerMinute(7), ratelimit.PerSecond(300), ratelimit.PerHour(2).Strict(),
		ratelimit.Quota(5, 90*time.Second), ratelimit.Sliding(5, 11*time.Second),
	} {
		for _, p := range memnet.Protos() {
			t.Run(fmt.Sprint(limit, " ", p), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cost := int64(1)
					l := newLimiter(t, ratelimit.Config{Limit: limit, Cost: func(*http.Request) int64 { return cost }})
					s := memnet.Serve(t, p, &http.Server{Handler: l.Handler(nothing)})
					get := func() *http.Response {
						res, err := s.Client.Get(s.URL)
						if err != nil {
							t.Fatal(err)
						}
						res.Body.Close()
						return res
					}
					refused := 0
					for i := range 100 {
						cost = 1 + int64(i)%min(3, limit.Bound(0))
						res := get()
						if res.StatusCode == 200 {
							continue
						}
						refused++
						wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
						if err != nil || wait < 1 {
							t.Fatalf("%v, %d", err, wait)
						}
						time.Sleep(time.Duration(wait) * time.Second)
						if res := get(); res.StatusCode != 200 {
							t.Fatalf("request %d: %d after %d s; %v", i, res.StatusCode, wait, res.Header)
						}
					}
					if refused == 0 && limit.Bound(0) < 100 {
						t.Error("nothing was refused")
					}
				})
			})
		}
	}
}

// ratelimit 25: requests share no header slices, and a slice has no room for
// another request's value.
func TestHeaderSlicesAreNotShared(t *testing.T) {
	for _, c := range []ratelimit.Config{
		{Limit: ratelimit.PerHour(2)},
		{Limit: ratelimit.PerHour(2), Headers: ratelimit.Legacy},
		{Limit: ratelimit.PerHour(2), Context: true},
	} {
		h := newLimiter(t, c).Handler(nothing)
		for range 4 {
			w := &discard{http.Header{}}
			h.ServeHTTP(w, newRequest("192.0.2.1:1"))
			for name, values := range w.header {
				if len(values) != 1 || cap(values) != 1 {
					t.Errorf("%s: %q, capacity %d", name, values, cap(values))
				}
				if strings.Contains(values[0], "spoiled") {
					t.Errorf("%s: shares its slice with another request's", name)
				}
				values[0] = "spoiled"
				_ = append(values, "spoiled")
			}
		}
	}
}

// ratelimit 25: nothing is added to a response that is committed already, and
// nothing after the handler.
func TestNothingAfterTheHandler(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(1), Context: true})
				inner := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("RateLimit", "the handler's")
				}))
				s := memnet.Serve(t, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/committed" {
						w.WriteHeader(http.StatusAccepted)
					}
					inner.ServeHTTP(w, r)
				})})
				for path, want := range map[string]string{"/committed": "", "/": "the handler's"} {
					s.HTTP.Handler.ServeHTTP(&discard{http.Header{}}, newRequest("192.0.2.1:1")) // of another client
					l.Reset(t.Context(), "", "127.0.0.1")
					res, err := s.Client.Get(s.URL + path)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					if got := res.Header.Get("RateLimit"); got != want || len(res.Trailer) > 0 {
						t.Errorf("%s: got %q, trailer %v", path, got, res.Trailer)
					}
				}
			})
		})
	}
}

// A limiter inside of another adds its policies to the lists.
func TestNestedLimiters(t *testing.T) { synctest.Test(t, testNestedLimiters) }

func testNestedLimiters(t *testing.T) {
	outer := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{{Name: "ip", Limit: ratelimit.PerMinute(10)}}})
	inner := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{{Name: "key", Limit: ratelimit.PerMinute(2)}}})
	h := outer.Handler(inner.Handler(nothing))
	var got reply
	for range 3 {
		got = serve(h, newRequest("192.0.2.1:1"))
	}
	if got.status != 429 {
		t.Errorf("status %d", got.status)
	}
	if v := got.header.Values("RateLimit"); !slices.Equal(v, []string{`"ip";r=7;t=6`, `"key";r=0;t=30`}) {
		t.Errorf("got %q", v)
	}
	if v := got.header.Values("RateLimit-Policy"); !slices.Equal(v, []string{`"ip";q=10;w=60`, `"key";q=2;w=60`}) {
		t.Errorf("got %q", v)
	}
}
