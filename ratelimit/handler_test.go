package ratelimit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/ratelimit"
)

func TestConformance(t *testing.T) {
	draft := []string{"Ratelimit-Policy", "Ratelimit"}
	for name, c := range map[string]struct {
		config  ratelimit.Config
		headers []string
	}{
		"default": {ratelimit.Config{Limit: plenty}, draft},
		"context": {ratelimit.Config{Limit: plenty, Context: true}, draft},
		"several, with all there is": {ratelimit.Config{
			Policies: []ratelimit.Policy{
				{Name: "rate", Limit: plenty, Debt: 5},
				{Name: "quota", Limit: ratelimit.Quota(1_000_000, time.Hour), Key: ratelimit.Join(ratelimit.ByIP(), ratelimit.ByPattern(nil))},
				{Name: "slide", Limit: ratelimit.Sliding(1_000_000, time.Hour)},
				{Name: "busy", Limit: ratelimit.Concurrent(1_000)},
				{Name: "shadow", Limit: ratelimit.PerHour(1), Shadow: true},
			},
			Headers: ratelimit.Legacy,
		}, []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}},
		"skipped": {ratelimit.Config{Limit: plenty, Skip: func(*http.Request) bool { return true }}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{
				New:             func(t testing.TB) func(http.Handler) http.Handler { return newLimiter(t, c.config).Handler },
				ResponseHeaders: c.headers,
			})
		})
	}
}

func TestNilHandler(t *testing.T) {
	defer func() {
		if v := recover(); v != "ratelimit: nil handler" {
			t.Errorf("got %v", v)
		}
	}()
	newLimiter(t, ratelimit.Config{Limit: plenty}).Handler(nil)
}

// The whole answer to a refused request, over each protocol, and the connection
// of one that was sending a body.
func TestRefusal(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(1)})
				s := memnet.Serve(t, p, &http.Server{Handler: l.Handler(nothing)})
				for i, body := range []io.Reader{nil, nil, strings.NewReader(strings.Repeat("x", 1<<20))} {
					res, err := s.Client.Post(s.URL, "text/plain", body)
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(res.Body)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					if i == 0 {
						continue
					}
					const want = `{"type":"about:blank","title":"Too Many Requests","status":429,` +
						`"detail":"Too many requests. Retry-After says when to try again.","code":"rate_limited"}` + "\n"
					if res.StatusCode != 429 || string(b) != want || res.Header.Get("Retry-After") != "3600" {
						t.Errorf("%d: got %d %v %s", i, res.StatusCode, res.Header, b)
					}
					if closes := i == 2 && p == memnet.HTTP1; res.Close != closes {
						t.Errorf("%d: closes the connection: %v", i, res.Close)
					}
				}
			})
		})
	}
}

func TestErrorHandler(t *testing.T) { synctest.Test(t, testErrorHandler) }

func testErrorHandler(t *testing.T) {
	var got error
	l := newLimiter(t, ratelimit.Config{
		Limit: ratelimit.PerMinute(1),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			got = err
			w.WriteHeader(http.StatusTeapot)
		},
	})
	h := l.Handler(nothing)
	serve(h, newRequest("192.0.2.1:1"))
	res := serve(h, newRequest("192.0.2.1:1"))
	var refusal *ratelimit.LimitError
	if res.status != http.StatusTeapot || res.header.Get("Retry-After") != "60" || !errors.As(got, &refusal) {
		t.Fatalf("got %+v, %v", res, got)
	}
	if refusal.Policy != "default" || refusal.Allowed || refusal.HTTPStatus() != 429 || refusal.Code() != "rate_limited" {
		t.Errorf("got %+v", refusal)
	}
	if s := got.Error(); strings.Contains(s, "192.0.2.1") || !strings.HasPrefix(s, "ratelimit: refused by policy default, retry after ") {
		t.Errorf("got %q", s)
	}
}

// Concurrent answers 503, counts per key and over all handlers, and a slot is
// free when its handler has returned or panicked.
func TestConcurrent(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, ratelimit.Config{Limit: ratelimit.Concurrent(2)})
				release := make(chan struct{})
				mux := http.NewServeMux()
				mux.Handle("/wait", l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })))
				mux.Handle("/now", l.Handler(nothing))
				mux.Handle("/panic", l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					panic(http.ErrAbortHandler)
				})))
				s := memnet.Serve(t, p, &http.Server{Handler: mux})
				get := func(path string) (*http.Response, error) {
					res, err := s.Client.Get(s.URL + path)
					if err == nil {
						res.Body.Close()
					}
					return res, err
				}
				for range 3 {
					if _, err := get("/panic"); err == nil {
						t.Error("the panic did not come through")
					}
				}
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						if res, err := get("/wait"); err != nil || res.StatusCode != 200 {
							t.Errorf("%v, %v", res, err)
						}
					})
				}
				synctest.Wait()
				res, err := get("/now")
				if err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" {
					t.Errorf("%v, %v", res, err)
				}
				if got := serve(mux, func() *http.Request { r := newRequest("192.0.2.7:1"); r.URL.Path = "/now"; return r }()); got.status != 200 {
					t.Errorf("another client: %d", got.status)
				}
				close(release)
				wg.Wait()
				if res, err := get("/now"); err != nil || res.StatusCode != 200 {
					t.Errorf("after it: %v, %v", res, err)
				}
			})
		})
	}
}

// A connection that was taken over counts until its handler returns.
func TestConcurrentHijack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Config{Limit: ratelimit.Concurrent(1)})
		leave := make(chan struct{})
		mux := http.NewServeMux()
		mux.Handle("/now", l.Handler(nothing))
		mux.Handle("/hijack", l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			<-leave
		})))
		s := memnet.Serve(t, memnet.HTTP1, &http.Server{Handler: mux})
		conn, err := s.Listener.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		status := func() int {
			res, err := s.Client.Get(s.URL + "/now")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode
		}
		if got := status(); got != 503 {
			t.Errorf("status %d while it is taken over", got)
		}
		close(leave)
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		synctest.Wait()
		if got := status(); got != 200 {
			t.Errorf("status %d after it", got)
		}
	})
}

func TestConcurrentCost(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.Concurrent(5), Cost: func(r *http.Request) int64 { return int64(len(r.URL.Path)) }})
	request := func(path string) *http.Request {
		r := newRequest("192.0.2.1:1")
		r.URL.Path = path
		return r
	}
	inner := 0
	var h http.Handler
	h = l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if inner == 0 {
			inner = serve(h, request("/23")).status
		}
	}))
	if got := serve(h, request("/23")); got.status != 200 || inner != 503 {
		t.Errorf("got %d, and %d inside", got.status, inner)
	}
	if got := serve(h, request("/23456")); got.status != 503 || got.header.Get("Retry-After") != "" {
		t.Errorf("cost above the limit: got %+v", got)
	}
}

// Shadow counts and tells, and refuses nothing.
func TestShadow(t *testing.T) {
	var told []ratelimit.Decision
	l := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{
			{Name: "real", Limit: ratelimit.PerHour(5)},
			{Name: "rate", Limit: ratelimit.PerHour(2), Shadow: true},
			{Name: "busy", Limit: ratelimit.Concurrent(1), Shadow: true},
		},
		OnDecision: func(_ *http.Request, d ratelimit.Decision) { told = append(told, d) },
	})
	depth := 0
	var h http.Handler
	h = l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if depth++; depth == 1 {
			if got := serve(h, newRequest("192.0.2.1:1")); got.status != 200 {
				t.Errorf("status %d inside", got.status)
			}
		}
	}))
	for i, want := range []int{200, 200, 200, 200, 429} { // and one inside of the first
		got := serve(h, newRequest("192.0.2.1:1"))
		if got.status != want {
			t.Errorf("request %d: status %d", i, got.status)
		}
		if p, err := parseList(got.header.Values("RateLimit-Policy")); err != nil || len(p) != 1 {
			t.Errorf("got %v, %v", p, err)
		}
	}
	var shadows []string
	for _, d := range told {
		if d.Shadow {
			shadows = append(shadows, d.Policy)
			if d.Allowed {
				t.Errorf("got %+v", d)
			}
		}
	}
	if got := strings.Join(shadows, " "); got != "busy rate rate rate" || len(told) != 6+4 {
		t.Errorf("%d decisions, in shadow %s", len(told), got)
	}
	s := l.Stats()
	if s.Allowed != 5 || s.Refused != 1 || s.Shadowed != 4 || s.Policies[1].Shadowed != 3 || s.Policies[2].Shadowed != 1 || s.Policies[0].Refused != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestSkipAndExempt(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{
		Limit:          ratelimit.PerHour(1),
		Skip:           func(r *http.Request) bool { return r.URL.Path == "/health" },
		Exempt:         []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	})
	h := l.Handler(nothing)
	for _, c := range []struct {
		remote, forwarded, path string
		exempt                  bool
	}{
		{"203.0.113.1:1", "", "/", false},
		{"203.0.113.1:1", "", "/health", true},
		{"10.1.2.3:1", "", "/", true},
		{"[::ffff:10.1.2.3]:1", "", "/", true},
		{"[2001:db8::7]:1", "", "/", true},
		{"[2001:db9::7]:1", "", "/", false},
		{"203.0.113.9:1", "10.1.2.3", "/", false}, // a claim of its own
		{"192.0.2.1:1", "10.1.2.3", "/", true},
		{"@", "", "/", false},
	} {
		r := newRequest(c.remote)
		r.URL.Path = c.path
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		serve(h, r)
		got := serve(h, r)
		if exempt := got.status == 200; exempt != c.exempt || exempt != (got.header.Get("RateLimit") == "") {
			t.Errorf("%+v: got %d %v", c, got.status, got.header)
		}
	}
	if s := l.Stats(); s.Exempt != 10 {
		t.Errorf("got %+v", s)
	}
}

func TestCostAndNegativeCost(t *testing.T) {
	costs := map[string]int64{"/free": 0, "/dear": 3, "/bad": -7}
	l := newLimiter(t, ratelimit.Config{
		Policies: []ratelimit.Policy{
			{Name: "requests", Limit: ratelimit.PerHour(100), Cost: func(*http.Request) int64 { return 1 }},
			{Name: "units", Limit: ratelimit.PerHour(100)},
		},
		Cost: func(r *http.Request) int64 { return costs[r.URL.Path] },
	})
	h := l.Handler(nothing)
	for path := range costs {
		r := newRequest("192.0.2.1:1")
		r.URL.Path = path
		if got := serve(h, r); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	for name, want := range map[string]int64{"requests": 97, "units": 96} {
		if d, err := l.Peek(t.Context(), name, "192.0.2.1"); err != nil || d.Remaining != want {
			t.Errorf("%s: got %+v, %v", name, d, err)
		}
	}
}

// The context has the decision only where Config asks for it, and the pattern and
// the form come back.
func TestContext(t *testing.T) {
	plain := newLimiter(t, ratelimit.Config{Limit: plenty})
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(7), Context: true})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		d, ok := l.From(r.Context())
		if !ok || !d.Allowed || d.Remaining != 6 || d.Limit != 7 || d.Policy != "default" {
			t.Errorf("got %+v, %v", d, ok)
		}
		if inner, ok := ratelimit.FromContext(r.Context()); !ok || inner != d {
			t.Errorf("got %+v, %v", inner, ok)
		}
		if _, ok := plain.From(r.Context()); ok {
			t.Error("another limiter's decision")
		}
	})
	r := newRequest("192.0.2.1:1")
	r.URL.Path = "/users/5"
	before := *r
	serve(plain.Handler(l.Handler(mux)), r)
	if r.Pattern != "GET /users/{id}" {
		t.Errorf("pattern %q", r.Pattern)
	}
	if r.Context() != before.Context() {
		t.Error("the caller's request was changed")
	}
	if _, ok := ratelimit.FromContext(context.Background()); ok {
		t.Error("a decision out of nothing")
	}
	want := ratelimit.Decision{Allowed: true, Policy: "x"}
	if d, ok := ratelimit.FromContext(ratelimit.NewContext(context.Background(), want)); !ok || d != want {
		t.Errorf("got %+v, %v", d, ok)
	}
}

// Charge takes what is there and as much as the debt allows, and the key waits
// for all of it.
func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var charge int64
		l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{
			{Name: "tokens", Limit: ratelimit.PerSecond(10), Debt: 50},
			{Name: "daily", Limit: ratelimit.Quota(1000, 24*time.Hour), Debt: 1},
			{Name: "minute", Limit: ratelimit.Sliding(500, time.Minute), Debt: 1},
			{Name: "requests", Limit: ratelimit.PerSecond(100)},
		}})
		h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			cancel() // a client that has gone pays all the same
			if err := l.Charge(ctx, charge); err != nil {
				t.Error(err)
			}
		}))
		remaining := func(policy string) int64 {
			d, err := l.Peek(t.Context(), policy, "192.0.2.1")
			if err != nil {
				t.Fatal(err)
			}
			return d.Remaining
		}
		charge = 4
		serve(h, newRequest("192.0.2.1:1"))
		for policy, want := range map[string]int64{"tokens": 5, "daily": 995, "minute": 495, "requests": 99} {
			if got := remaining(policy); got != want {
				t.Errorf("%s: %d left, want %d", policy, got, want)
			}
		}
		// 4 are there, and 50 of debt; the rest is not taken.
		charge = 100
		serve(h, newRequest("192.0.2.1:1"))
		got := serve(h, newRequest("192.0.2.1:1"))
		if got.status != 429 || got.header.Get("Retry-After") != "6" { // 5.1 s
			t.Errorf("got %d, %v", got.status, got.header)
		}
		if got := remaining("daily"); got != 1000-1-4-1-100 {
			t.Errorf("daily: %d left", got)
		}
		// A debt is no mistake of the clock, which would be healed.
		time.Sleep(5 * time.Second)
		if got := serve(h, newRequest("192.0.2.1:1")); got.status != 429 {
			t.Errorf("got %d after 5 s", got.status)
		}
		time.Sleep(200 * time.Millisecond)
		charge = 0
		if got := serve(h, newRequest("192.0.2.1:1")); got.status != 200 {
			t.Errorf("got %d after 5.2 s", got.status)
		}
		for _, n := range []int64{-1, 1 << 53} {
			if err := l.Charge(t.Context(), n); !errors.Is(err, ratelimit.ErrCost) {
				t.Errorf("%d: got %v", n, err)
			}
		}
		if err := l.Charge(t.Context(), 1); !errors.Is(err, ratelimit.ErrContext) {
			t.Errorf("got %v", err)
		}
	})
}

// ratelimit 1: what a Debt adds to the bound is that, and no more.
func TestBoundWithDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit, now := ratelimit.PerSecond(10).Burst(5), time.Now
		var grants []grant
		l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{{Name: "p", Limit: limit, Debt: 20}}})
		h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			before, _ := l.Peek(r.Context(), "p", "192.0.2.1")
			l.Charge(r.Context(), 7)
			after, _ := l.Peek(r.Context(), "p", "192.0.2.1")
			// How much was taken shows in the time until all is back.
			taken := int64((after.Reset - before.Reset) / (100 * time.Millisecond))
			grants = append(grants, grant{now(), 1 + taken})
		}))
		for i := range 400 {
			serve(h, newRequest("192.0.2.1:1"))
			time.Sleep(time.Duration(i%13) * 17 * time.Millisecond)
		}
		checkBound(t, grants, func(w time.Duration) int64 { return limit.Bound(w) + 20 })
	})
}

// ratelimit 18: a request whose client has gone is not served, and takes nothing.
func TestCancelledRequest(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.PerHour(5), ratelimit.Quota(5, time.Hour), ratelimit.Sliding(5, time.Hour),
	} {
		for name, c := range map[string]ratelimit.Config{
			"memory":   {},
			"remote":   {Store: basic{memory(t)}, Name: "api", StoreBudget: -1},
			"fallback": {Store: basic{memory(t)}, Name: "api", StoreBudget: -1, OnStoreError: ratelimit.Allow},
		} {
			c.Policies = []ratelimit.Policy{{Name: "p", Limit: limit}, {Name: "busy", Limit: ratelimit.Concurrent(1)}}
			l := newLimiter(t, c)
			h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("served") }))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 2 { // it holds no slot either
				got := serve(h, newRequest("192.0.2.1:1").WithContext(ctx))
				if got.status != 503 || !strings.Contains(got.body, `"code":"rate_limit_unavailable"`) {
					t.Errorf("%v, %s: got %+v", limit, name, got)
				}
			}
			if d, err := l.Peek(t.Context(), "p", "192.0.2.1"); err != nil || d.Remaining != 5 {
				t.Errorf("%v, %s: got %+v, %v", limit, name, d, err)
			}
			_, err1 := l.Take(ctx, "p", 1, "192.0.2.1")
			_, err2 := l.Peek(ctx, "p", "192.0.2.1")
			for _, err := range []error{err1, err2, l.Reset(ctx, "p", "192.0.2.1"), l.Wait(ctx, "p", 1, "192.0.2.1")} {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%v, %s: got %v", limit, name, err)
				}
			}
			if _, err := l.Peek(t.Context(), "q", "192.0.2.1"); !errors.Is(err, ratelimit.ErrPolicy) {
				t.Errorf("got %v", err)
			}
		}
	}
}

// ratelimit 18: so it is on the short way, of one policy in memory; and when that
// memory is closed, the stand-in decides.
func TestQuickWayFails(t *testing.T) {
	m := memory(t)
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(2), Store: m, Name: "api"})
	h := l.Handler(nothing)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := serve(h, newRequest("192.0.2.1:1").WithContext(ctx)); got.status != 503 {
		t.Errorf("got %+v", got)
	}
	m.Close()
	for i, want := range []int{200, 200, 429} {
		if got := serve(h, newRequest("192.0.2.1:1")); got.status != want {
			t.Errorf("%d: got %+v", i, got)
		}
	}
	if s := l.Stats(); s.Degraded != 3 {
		t.Errorf("got %+v", s)
	}
}

// A client that goes while a policy in Shadow is asked makes no difference.
func TestCancelledInShadow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := newLimiter(t, ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "real", Limit: ratelimit.PerHour(5)},
		{Name: "shadow", Limit: ratelimit.PerHour(5), Shadow: true, Cost: func(*http.Request) int64 { cancel(); return 9 - 5 }},
	}})
	if got := serve(l.Handler(nothing), newRequest("192.0.2.1:1").WithContext(ctx)); got.status != 200 || l.Stats().Shadowed != 0 {
		t.Errorf("got %+v, %+v", got, l.Stats())
	}
}

// A request that costs nothing is admitted and sees how the limit stands.
func TestFreeRequests(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.PerHour(5), ratelimit.Quota(5, time.Hour), ratelimit.Sliding(5, time.Hour), ratelimit.Concurrent(5),
	} {
		cost := int64(0)
		h := newLimiter(t, ratelimit.Config{Limit: limit, Cost: func(*http.Request) int64 { return cost }}).Handler(nothing)
		for range 10 {
			got := serve(h, newRequest("192.0.2.1:1"))
			items, err := parseList(got.header.Values("RateLimit"))
			if got.status != 200 || err != nil || len(items) != 1 || items[0].numbers["r"] != 5 {
				t.Errorf("%v: got %+v, %v", limit, got, err)
			}
		}
		cost = 5
		serve(h, newRequest("192.0.2.1:1"))
		cost = 0
		if got := serve(h, newRequest("192.0.2.1:1")); got.status != 200 {
			t.Errorf("%v: got %+v when all is taken", limit, got)
		}
	}
}

// Requests without an address share a limit, and it is said once.
func TestUnresolved(t *testing.T) {
	var log bytes.Buffer
	l := newLimiter(t, ratelimit.Config{
		Limit: ratelimit.PerHour(2), Logger: slog.New(slog.NewJSONHandler(&log, nil)),
	})
	h := l.Handler(nothing)
	for i, remote := range []string{"@", "", "/run/app.sock", "bad:1"} {
		want := 200
		if i >= 2 {
			want = 429
		}
		if got := serve(h, newRequest(remote)); got.status != want {
			t.Errorf("%q: status %d", remote, got.status)
		}
	}
	if s := l.Stats(); s.Unresolved != 4 {
		t.Errorf("got %+v", s)
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil || line["level"] != "WARN" {
		t.Errorf("%v: %s", err, &log)
	}
}
