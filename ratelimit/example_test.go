package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
)

// get makes a request to h and prints what a client sees of the limit.
func get(h http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Print(w.Code, " ", w.Header().Get("RateLimit"))
	if after := w.Header().Get("Retry-After"); after != "" {
		fmt.Print(", retry after ", after)
	}
	fmt.Println()
}

func ExampleNew() {
	lim, err := ratelimit.New(ratelimit.Config{Limit: ratelimit.PerMinute(2)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {})

	h := lim.Handler(mux)
	for range 3 {
		get(h, httptest.NewRequest("GET", "/", nil))
	}
	// Output:
	// 200 "default";r=1;t=30
	// 200 "default";r=0;t=30
	// 429 "default";r=0;t=30, retry after 30
}

// Limits by address and by API key, each with two windows, on a store that other
// processes may share. A request that one of them refuses takes nothing from the
// others.
func ExampleNew_policies() {
	shared, err := store.NewMemory(store.MemoryConfig{}) // or a backend on Redis, Postgres, SQLite
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shared.Close()
	key := ratelimit.ByHeader("X-Api-Key")
	lim, err := ratelimit.New(ratelimit.Config{
		Store: shared,
		Name:  "api",
		Policies: []ratelimit.Policy{
			{Name: "ip", Limit: ratelimit.PerSecond(10).Burst(50)},
			{Name: "key", Limit: ratelimit.PerMinute(60), Key: key, Optional: true},
			{Name: "key-day", Limit: ratelimit.Quota(10_000, 24*time.Hour), Key: key, Optional: true},
		},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Exempt:         []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()

	h := lim.Handler(http.NotFoundHandler())
	r := httptest.NewRequest("GET", "/", nil)
	get(h, r)
	r.RemoteAddr = "203.0.113.9:4711" // another client
	r.Header.Set("X-Api-Key", "k-123")
	get(h, r)
	// Output:
	// 404 "ip";r=49;t=1
	// 404 "ip";r=49;t=1, "key";r=59;t=1, "key-day";r=9999;t=86400
}

// At most two requests of a client at the same time.
func ExampleConcurrent() {
	lim, err := ratelimit.New(ratelimit.Config{Limit: ratelimit.Concurrent(2)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	var h http.Handler
	h = lim.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A request that is made while this one is served.
		if depth := len(r.URL.Path); depth < 3 {
			get(h, httptest.NewRequest("GET", r.URL.Path+"x", nil))
		}
	}))
	get(h, httptest.NewRequest("GET", "/", nil))
	// Output:
	// 503 "default";r=0, retry after 1
	// 200 "default";r=0
	// 200 "default";r=1
}

func ExampleLimiter_Take() {
	lim, err := ratelimit.New(ratelimit.Config{
		Limit: ratelimit.PerHour(3),
		Key:   ratelimit.ByFunc(func(*http.Request) string { return "" }), // keys are given to Take
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	ctx := context.Background()
	for range 3 {
		d, err := lim.Take(ctx, "", 2, "alice@example.com")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.Allowed, d.Remaining, d.RetryAfter.Round(time.Minute))
	}
	// Output:
	// true 1 0s
	// false 1 20m0s
	// false 1 20m0s
}

func ExampleLimiter_Wait() {
	lim, err := ratelimit.New(ratelimit.Config{
		Limit: ratelimit.PerSecond(100).Burst(1000),
		Key:   ratelimit.ByFunc(func(*http.Request) string { return "" }),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	start := time.Now()
	for _, n := range []int64{1000, 1, 1} { // the burst, and then one every 10 ms
		if err := lim.Wait(context.Background(), "", n, "billing"); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(time.Since(start) >= 20*time.Millisecond)

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	err = lim.Wait(ctx, "", 1000, "billing") // there are as many in 10 s
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// true
	// true
}

// What a request costs is known when it has been served.
func ExampleLimiter_Charge() {
	lim, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{{Name: "tokens", Limit: ratelimit.PerHour(3600), Debt: 500}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	h := lim.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used := int64(3700) // that a model has used for the answer
		if err := lim.Charge(r.Context(), used); err != nil {
			fmt.Println(err)
		}
	}))
	get(h, httptest.NewRequest("GET", "/", nil))
	get(h, httptest.NewRequest("GET", "/", nil))
	// Output:
	// 200 "tokens";r=3599;t=1
	// 429 "tokens";r=0;t=102, retry after 102
}

func ExampleLimiter_Peek() {
	lim, err := ratelimit.New(ratelimit.Config{Limit: ratelimit.PerHour(3)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	ctx := context.Background()
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "[2001:db8::1]:4711"
	get(lim.Handler(http.NotFoundHandler()), r)

	d, err := lim.Peek(ctx, "", "2001:db8::1")
	fmt.Println(d.Remaining, err)
	err = lim.Reset(ctx, "", "2001:db8::1")
	fmt.Println(err)
	d, err = lim.Peek(ctx, "", "2001:db8::1")
	fmt.Println(d.Remaining, err)
	// Output:
	// 404 "default";r=2;t=1200
	// 2 <nil>
	// <nil>
	// 3 <nil>
}

func ExampleLimiter_Stats() {
	lim, err := ratelimit.New(ratelimit.Config{
		Policies: []ratelimit.Policy{
			{Name: "now", Limit: ratelimit.PerHour(2)},
			{Name: "planned", Limit: ratelimit.PerHour(1), Shadow: true}, // refuses nothing yet
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	h := lim.Handler(http.NotFoundHandler())
	for range 3 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	s := lim.Stats()
	fmt.Println(s.Allowed, "allowed", s.Refused, "refused")
	for _, p := range s.Policies {
		fmt.Println(p.Name, p.Refused, p.Shadowed)
	}
	// Output:
	// 2 allowed 1 refused
	// now 1 0
	// planned 0 1
}

func ExampleLimiter_Hottest() {
	lim, err := ratelimit.New(ratelimit.Config{Limit: ratelimit.PerHour(100)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	h := lim.Handler(http.NotFoundHandler())
	for i := range 40_000 {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = fmt.Sprintf("198.51.100.%d:4711", i%250)
		if i%2 == 0 {
			r.RemoteAddr = "203.0.113.9:4711"
		}
		h.ServeHTTP(&discard{http.Header{}}, r)
	}
	for k := range lim.Hottest() {
		fmt.Println(k.Policy, k.Key, k.Requests > 16_000, k.Refused > 16_000)
		break
	}
	// Output:
	// default 203.0.113.9 true true
}

func ExampleLimiter_From() {
	lim, err := ratelimit.New(ratelimit.Config{Limit: ratelimit.PerHour(100), Context: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	h := lim.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, ok := lim.From(r.Context())
		fmt.Println(d.Remaining, "of", d.Limit, ok)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output:
	// 99 of 100 true
}

// A test of a handler that asks how the limit stands.
func ExampleNewContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if d, ok := ratelimit.FromContext(r.Context()); ok && d.Remaining < 10 {
			fmt.Fprint(w, "slow down")
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	w := httptest.NewRecorder()
	handler(w, r.WithContext(ratelimit.NewContext(r.Context(), ratelimit.Decision{Allowed: true, Remaining: 3})))
	fmt.Println(w.Body)
	// Output:
	// slow down
}

// A limit for each client at each route.
func ExampleJoin() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /search", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /items/{id}", func(http.ResponseWriter, *http.Request) {})
	lim, err := ratelimit.New(ratelimit.Config{
		Limit: ratelimit.PerMinute(5),
		Key:   ratelimit.Join(ratelimit.ByIP(), ratelimit.ByPattern(mux)),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	h := lim.Handler(mux)
	for _, path := range []string{"/items/1", "/items/2", "/search"} {
		get(h, httptest.NewRequest("GET", path, nil))
	}
	// Output:
	// 200 "default";r=4;t=12
	// 200 "default";r=3;t=12
	// 200 "default";r=4;t=12
}

// A refusal in a format of one's own. The header fields are set already.
func ExampleWriteError() {
	lim, err := ratelimit.New(ratelimit.Config{
		Limit: ratelimit.PerHour(1),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var refusal *ratelimit.LimitError
			if r.Header.Get("Accept") == "text/plain" && errors.As(err, &refusal) {
				http.Error(w, "come back in "+refusal.RetryAfter.Round(time.Minute).String(), refusal.HTTPStatus())
				return
			}
			ratelimit.WriteError(w, r, err)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lim.Close()
	h := lim.Handler(http.NotFoundHandler())
	for _, accept := range []string{"", "text/plain", "application/json"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 404 404 page not found
	//
	// 429 come back in 1h0m0s
	//
	// 429 {"type":"about:blank","title":"Too Many Requests","status":429,"detail":"Too many requests. Retry-After says when to try again.","code":"rate_limited"}
}
