//go:build linux

// Package ratelimit proves the limiter of package ratelimit over several
// processes that share a real store, and shows beside it what other limiters do
// with the same requests.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/didip/tollbooth/v7"
	"github.com/go-chi/httprate"
	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	"github.com/ulule/limiter/v3/drivers/store/memory"

	"example.com/plainware/internal/interop/redisstore/redisserver"
	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
)

// The tests in this file log what the peers do at the versions in go.mod, and
// judge ours.

// byName is a key that callers of Take give.
var byName = ratelimit.ByFunc(func(*http.Request) string { return "" })

func newLimiter(t testing.TB, c ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	lim, err := ratelimit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lim.Close() })
	return lim
}

// must panics on the error of a constructor, which is a mistake in this file.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// fetch is a request of one client to a handler.
func fetch(h http.Handler) *http.Response {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "203.0.113.9:4711"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func admits(h http.Handler) func() bool {
	return func() bool { return fetch(h).StatusCode == http.StatusOK }
}

// peers make a handler that lets n requests in every d through, for an address.
var peers = []struct {
	name string
	make func(t testing.TB, n int, d time.Duration) http.Handler
}{
	{"httprate", func(t testing.TB, n int, d time.Duration) http.Handler {
		return httprate.LimitBy(n, d, func(r *http.Request) (string, error) {
			host, _, err := net.SplitHostPort(r.RemoteAddr)
			return httprate.CanonicalizeIP(host), err
		})(nothing)
	}},
	{"go-limiter", func(t testing.TB, n int, d time.Duration) http.Handler {
		s := must(memorystore.New(&memorystore.Config{Tokens: uint64(n), Interval: d}))
		t.Cleanup(func() { s.Close(context.Background()) })
		return must(httplimit.NewMiddleware(s, httplimit.IPKeyFunc())).Handle(nothing)
	}},
	{"throttled", func(t testing.TB, n int, d time.Duration) http.Handler {
		s := must(memstore.NewCtx(100))
		quota := throttled.RateQuota{MaxRate: throttled.PerDuration(n, d), MaxBurst: n - 1}
		l := must(throttled.NewGCRARateLimiterCtx(s, quota))
		return (&throttled.HTTPRateLimiterCtx{RateLimiter: l, VaryBy: &throttled.VaryBy{RemoteAddr: true}}).RateLimit(nothing)
	}},
	{"ulule", func(t testing.TB, n int, d time.Duration) http.Handler {
		l := ulule.New(memory.NewStore(), ulule.Rate{Period: d, Limit: int64(n)})
		return stdlib.NewMiddleware(l).Handler(nothing)
	}},
	{"tollbooth", func(t testing.TB, n int, d time.Duration) http.Handler {
		l := tollbooth.NewLimiter(float64(n)/d.Seconds(), nil).SetBurst(n).SetIPLookups([]string{"RemoteAddr"})
		return tollbooth.LimitHandler(l, nothing)
	}},
}

// busiest returns the most admissions in a window of length w, its ends
// included.
func busiest(all []admission, w time.Duration) int {
	most, first := 0, 0
	for i := range all {
		for all[i].after-all[first].before > int64(w) {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// ratelimit 1: an adversary who knows the windows makes one request, waits for
// the end of the window to come, and then sends all that it can until the end of
// the next. Every peer admits nearly twice of what it is set to. Strict never
// does; of the other limits it is no more than their documented bound.
func TestWindowBoundary(t *testing.T) {
	const n, window = 100, 500 * time.Millisecond
	attack := func(admits func() bool) (most int, held bool) {
		start := time.Now()
		var all []admission
		for ask := 1; time.Since(start) < 2*window; ask = 20 {
			begun := time.Now()
			for range ask {
				before := time.Now().UnixNano()
				if admits() {
					all = append(all, admission{before, time.Now().UnixNano()})
				}
			}
			longest := 10 * time.Millisecond
			if ask == 1 {
				<-time.After(window - 20*time.Millisecond)
				longest += window - 20*time.Millisecond
			} else {
				<-time.After(500 * time.Microsecond)
			}
			// The machine may have been busy with something else.
			held = held || time.Since(begun) > longest
		}
		return busiest(all, window), held
	}
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			got, _ := attack(admits(p.make(t, n, window)))
			t.Logf("%d of %d", got, n)
		})
	}
	for _, c := range []struct {
		limit ratelimit.Limit
		most  int
	}{
		{ratelimit.Per(n, window).Strict(), n},
		{ratelimit.Sliding(n, window), 2*n - 1},
		{ratelimit.Per(n, window), 2 * n},
		{ratelimit.Quota(n, window), 2 * n},
	} {
		t.Run("ours, "+c.limit.String(), func(t *testing.T) {
			t.Parallel()
			for range 10 {
				got, held := attack(admits(newLimiter(t, ratelimit.Config{Limit: c.limit}).Handler(nothing)))
				t.Logf("%d of %d, held up: %t", got, n, held)
				if got > c.most || int64(got) > c.limit.Bound(window) {
					t.Errorf("%d in a window, want at most %d", got, c.most)
				}
				if got >= n*9/10 {
					break
				}
				if !held { // otherwise that was not all that an attacker can do
					t.Fatalf("%d in a window, want nearly %d", got, n)
				}
			}
		})
	}
}

// ratelimit 12: an attacker uses its limit up, floods the limiter with fresh
// keys and tries again, five times. A limiter that evicts what was not used for
// longest has forgotten the attacker each time.
func TestEvictionAttack(t *testing.T) {
	const capacity, limit, flood = 4096, 100, 8192
	attack := func(take func(key string) bool) (got int) {
		for round := range 5 {
			for range 2 * limit {
				if take("attacker") {
					got++
				}
			}
			for i := range flood {
				take(fmt.Sprint("fresh ", round, " ", i))
			}
		}
		return got
	}
	s := must(memstore.NewCtx(capacity))
	quota := throttled.RateQuota{MaxRate: throttled.PerDay(limit), MaxBurst: limit - 1}
	l := must(throttled.NewGCRARateLimiterCtx(s, quota))
	t.Logf("throttled with an LRU store: %d of %d", attack(func(key string) bool {
		limited, _, err := l.RateLimitCtx(t.Context(), key, 1)
		return !limited && err == nil
	}), limit)

	mem := must(store.NewMemory(store.MemoryConfig{Registers: capacity}))
	lim := newLimiter(t, ratelimit.Config{Limit: ratelimit.Per(limit, 24*time.Hour), Key: byName, Store: mem, Name: "eviction"})
	got := attack(func(key string) bool {
		d, err := lim.Take(t.Context(), "", 1, key)
		return d.Allowed && err == nil
	})
	t.Logf("ours: %d of %d, with %d registers evicted", got, limit, mem.Stats().RegistersEvicted)
	if got != limit {
		t.Errorf("the attacker was admitted %d times, want %d", got, limit)
	}
}

// ratelimit 2: many requests for one key at the same time. A limiter that reads,
// computes and swaps gives up where others are faster again and again, and
// answers with 500. Ours is one operation of the store.
func TestHotKeyErrors(t *testing.T) {
	const callers, length = 32, time.Second
	s := redisserver.Start(t)
	storm := func(h http.Handler) (requests, errors int64) {
		var wg sync.WaitGroup
		until := time.Now().Add(length)
		for range callers {
			wg.Go(func() {
				for time.Now().Before(until) {
					atomic.AddInt64(&requests, 1)
					if fetch(h).StatusCode >= 500 {
						atomic.AddInt64(&errors, 1)
					}
				}
			})
		}
		wg.Wait()
		return requests, errors
	}
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1})
	defer rdb.Close()
	cas := must(goredisstore.NewCtx(rdb, "throttled:"))
	quota := throttled.RateQuota{MaxRate: throttled.PerSec(1_000_000), MaxBurst: 1_000_000}
	l := must(throttled.NewGCRARateLimiterCtx(cas, quota))
	requests, failed := storm((&throttled.HTTPRateLimiterCtx{RateLimiter: l, VaryBy: &throttled.VaryBy{RemoteAddr: true}}).RateLimit(nothing))
	t.Logf("throttled: %d of %d requests answered with 500 (%.1f %%)", failed, requests, 100*float64(failed)/float64(requests))

	shared, done, err := openStore(t.Context(), "redis", s.Addr, new(atomic.Int64))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	lim := newLimiter(t, ratelimit.Config{
		Limit: ratelimit.PerSecond(1_000_000), Store: shared, Name: "hot", OnStoreError: ratelimit.Deny, StoreBudget: 5 * time.Second,
	})
	requests, failed = storm(lim.Handler(nothing))
	t.Logf("ours: %d of %d", failed, requests)
	if failed > 0 || requests < callers {
		t.Errorf("%d of %d requests were answered with an error", failed, requests)
	}
}

// ratelimit 25: what a refusal says in Retry-After. A date that does not end in
// GMT is none for http.ParseTime, nor for RFC 9110, section 5.6.7.
func TestRetryAfter(t *testing.T) {
	readable := func(v string) string {
		if v == "" {
			return "absent"
		}
		if strings.Trim(v, "0123456789") == "" {
			return "seconds"
		}
		if _, err := http.ParseTime(v); err != nil {
			return "not readable"
		}
		return "a date"
	}
	refusal := func(h http.Handler) (*http.Response, bool) {
		for range 10 {
			if res := fetch(h); res.StatusCode == http.StatusTooManyRequests {
				return res, true
			}
		}
		return nil, false
	}
	for _, p := range peers {
		res, ok := refusal(p.make(t, 1, 10*time.Second))
		if !ok {
			t.Errorf("%s refuses nothing", p.name)
			continue
		}
		v := res.Header.Get("Retry-After")
		t.Logf("%s: %q is %s", p.name, v, readable(v))
	}
	res, ok := refusal(newLimiter(t, ratelimit.Config{Limit: ratelimit.Per(1, 10*time.Second)}).Handler(nothing))
	if !ok {
		t.Fatal("ours refuses nothing")
	}
	v := res.Header.Get("Retry-After")
	t.Logf("ours: %q is %s", v, readable(v))
	if v != "10" {
		t.Errorf("ours says %q, want 10", v)
	}
}

// ratelimit 16: a server that stops answering, with its connections open, costs a
// few requests the budget, and the others nothing that anybody would notice.
func TestStalledServer(t *testing.T) {
	const budget = 25 * time.Millisecond
	for name, be := range map[string]func(testing.TB) (*backend, func(), func()){"Redis": stallingRedis, "Postgres": stallingPostgres} {
		t.Run(name, func(t *testing.T) {
			b, stall, resume := be(t)
			shared, done, err := openStore(t.Context(), b.name, b.addr, new(atomic.Int64))
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			var failures atomic.Int64
			lim := newLimiter(t, ratelimit.Config{
				Limit: ratelimit.PerSecond(1000), Key: byName, Store: shared, Name: "stall",
				OnDegraded: func(err error) {
					if err != nil {
						failures.Add(1)
					}
				},
			})
			take := func() (took time.Duration, degraded bool) {
				t.Helper()
				start := time.Now()
				d, err := lim.Take(t.Context(), "", 1, "key")
				if err != nil || !d.Allowed {
					t.Fatalf("%+v, %v", d, err)
				}
				return time.Since(start), d.Degraded
			}
			// The first ones have connections to make, for which the budget of a busy
			// machine may not do.
			soon := time.Now().Add(30 * time.Second)
			for degraded := true; degraded; _, degraded = take() {
				if time.Now().After(soon) {
					t.Fatal("the store is late all the time")
				}
				<-time.After(time.Millisecond)
			}
			failures.Store(0)
			stall()
			var slow []time.Duration
			for failures.Load() < 3 {
				if took, degraded := take(); degraded {
					slow = append(slow, took)
				}
			}
			fast := make([]time.Duration, 200)
			for i := range fast {
				fast[i], _ = take()
			}
			resume()
			t.Logf("the first took %v, the median of the others %v", slow, median(fast))
			for _, took := range slow {
				// The rest is for a machine that is busy.
				if took < budget || took > budget+250*time.Millisecond {
					t.Errorf("a request took %v, want %v", took, budget)
				}
			}
			if len(slow) != 3 || median(fast) > 100*time.Microsecond {
				t.Errorf("%d requests waited, the median of the others took %v", len(slow), median(fast))
			}
			// It comes back by itself.
			deadline := time.After(30 * time.Second)
			for degraded := true; degraded; {
				select {
				case <-time.After(50 * time.Millisecond):
					_, degraded = take()
				case <-deadline:
					t.Fatal("the store is not asked again")
				}
			}
		})
	}
}

// ratelimit 16: what the fields promise is kept by a client that obeys them,
// whether or not the limit is shared.
func TestObedientClient(t *testing.T) {
	s := redisserver.Start(t)
	shared, done, err := openStore(t.Context(), "redis", s.Addr, new(atomic.Int64))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	lim := newLimiter(t, ratelimit.Config{
		Limit: ratelimit.PerSecond(2).Burst(1), Store: shared, Name: "obedient", StoreBudget: 5 * time.Second,
	})
	front := httptest.NewServer(lim.Handler(nothing))
	defer front.Close()
	transport := must(ratelimit.NewTransport(ratelimit.TransportConfig{}))
	client := &http.Client{Transport: transport}
	get := func() int {
		t.Helper()
		res, err := client.Get(front.URL)
		if err != nil {
			if e, ok := errors.AsType[*ratelimit.LimitError](err); ok {
				t.Fatal(e)
			}
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	refused := 0
	for range 3 {
		if get() == http.StatusTooManyRequests {
			refused++
			if status := get(); status != http.StatusOK {
				t.Errorf("after Retry-After: %d", status)
			}
		}
	}
	if refused == 0 {
		t.Error("never refused")
	}
}

func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}
