package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

var errDown = errors.New("connection refused")

// ratelimit 17: what requests see in each mode while the store fails, and after.
func TestStoreFails(t *testing.T) {
	for _, c := range []struct {
		mode ratelimit.OnStoreError
		want string // statuses of 5 requests
		code string
	}{
		{ratelimit.Local, "200 200 200 429 429", "rate_limited"},
		{ratelimit.Allow, "200 200 200 200 200", ""},
		{ratelimit.Deny, "503 503 503 503 503", "rate_limit_unavailable"},
	} {
		for name, limits := range map[string][]ratelimit.Limit{
			"rate": {ratelimit.PerHour(3)}, "quota": {ratelimit.Quota(3, time.Hour)}, "sliding": {ratelimit.Sliding(3, time.Hour)},
			"several": {ratelimit.PerHour(3), ratelimit.Quota(30, time.Hour), ratelimit.Sliding(30, time.Hour)},
		} {
			t.Run(fmt.Sprint(c.mode, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var down atomic.Bool
					s := storetest.Faulty(memory(t), func(storetest.Call) storetest.Fault {
						if down.Load() {
							return storetest.Fault{Before: errDown}
						}
						return storetest.Fault{}
					})
					var failed, back, degraded int
					config := ratelimit.Config{
						Store: s, Name: "api", OnStoreError: c.mode,
						OnDegraded: func(err error) {
							switch {
							case errors.Is(err, errDown):
								failed++
							case err == nil:
								back++
							default:
								t.Error(err)
							}
						},
						OnDecision: func(_ *http.Request, d ratelimit.Decision) {
							if d.Degraded {
								degraded++
							}
						},
					}
					for i, limit := range limits {
						config.Policies = append(config.Policies, ratelimit.Policy{Name: fmt.Sprint("p", i), Limit: limit})
					}
					l := newLimiter(t, config)
					h := l.Handler(nothing)
					down.Store(true)
					var statuses []string
					for range 5 {
						got := serve(h, newRequest("192.0.2.1:1"))
						statuses = append(statuses, fmt.Sprint(got.status))
						if got.status != 200 && (got.header.Get("Retry-After") == "" || !strings.Contains(got.body, c.code)) {
							t.Errorf("got %+v", got)
						}
						if _, err := parseList(got.header.Values("RateLimit-Policy")); err != nil {
							t.Error(err)
						}
					}
					if got := strings.Join(statuses, " "); got != c.want {
						t.Errorf("got %s, want %s", got, c.want)
					}
					if failed < 3 || degraded != 5 || l.Stats().Degraded != 5 {
						t.Errorf("%d failures, %d degraded, %+v", failed, degraded, l.Stats())
					}
					down.Store(false)
					time.Sleep(2 * time.Second)
					if got := serve(h, newRequest("192.0.2.1:1")); got.status != 200 || got.header.Get("RateLimit") == "" {
						t.Errorf("after it: %+v", got)
					}
					if back != 1 || l.Stats().Degraded != 5 {
						t.Errorf("back %d times, %+v", back, l.Stats())
					}
				})
			})
		}
	}
}

// ratelimit 15: replies that are lost never let more through than the bound.
func TestLostReplies(t *testing.T) {
	for _, limit := range []ratelimit.Limit{ratelimit.PerHour(100), ratelimit.Quota(100, time.Hour), ratelimit.Sliding(100, time.Hour)} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := storetest.Faulty(memory(t), func(c storetest.Call) storetest.Fault {
					if c.N%3 == 0 {
						return storetest.Fault{After: errDown}
					}
					return storetest.Fault{}
				})
				l := newLimiter(t, ratelimit.Config{Limit: limit, Store: s, Name: "api", Key: user, OnStoreError: ratelimit.Deny})
				granted := 0
				for range 300 {
					d, err := l.Take(t.Context(), "", 1, "key")
					if err != nil {
						t.Fatal(err)
					}
					if d.Allowed {
						granted++
					}
				}
				if granted > 100 || granted < 50 {
					t.Errorf("%d granted", granted)
				}
			})
		})
	}
}

// withoutAtomic has registers, but none that do several operations or none.
type withoutAtomic struct {
	store.Store
	m *store.Memory
}

func (s withoutAtomic) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	return s.m.Advance(ctx, op)
}

// ratelimit 6: where a store has no way to do all or nothing, what is given back
// in its place never admits too much, whichever step fails.
func TestFallbackNeverAdmitsTooMuch(t *testing.T) {
	for _, fault := range []storetest.Fault{{Before: errDown}, {After: errDown}} {
		for step := range int64(12) {
			synctest.Test(t, func(t *testing.T) {
				m := memory(t)
				s := storetest.Faulty(withoutAtomic{m, m}, func(c storetest.Call) storetest.Fault {
					if c.N == step+1 {
						return fault
					}
					return storetest.Fault{}
				})
				l := newLimiter(t, ratelimit.Config{
					Policies: []ratelimit.Policy{
						{Name: "a", Limit: ratelimit.PerHour(5)},
						{Name: "b", Limit: ratelimit.Quota(3, time.Hour)},
						{Name: "c", Limit: ratelimit.PerHour(4)},
					},
					Store: s, Name: "api", OnStoreError: ratelimit.Deny,
				})
				h := l.Handler(nothing)
				admitted := int64(0)
				for range 8 {
					if serve(h, newRequest("192.0.2.1:1")).status == 200 {
						admitted++
					}
					time.Sleep(2 * time.Second) // for what is given back late
				}
				if admitted > 3 || admitted < 2 {
					t.Errorf("step %d: %d admitted, want 2 or 3", step, admitted)
				}
				for name, burst := range map[string]int64{"a": 5, "b": 3, "c": 4} {
					d, err := l.Peek(t.Context(), name, "192.0.2.1")
					if err != nil || d.Remaining > burst-admitted {
						t.Errorf("step %d: %s has %d left after %d of %d, %v", step, name, d.Remaining, admitted, burst, err)
					}
				}
			})
		}
	}
}

// ratelimit 9: with nothing but Get and CompareAndSwap, several limiters keep one
// bound together. What clocks that differ add to it is the store's, and tested
// there.
func TestEmulatedRegisters(t *testing.T) {
	for _, limit := range []ratelimit.Limit{ratelimit.PerSecond(20), ratelimit.Quota(20, time.Second), ratelimit.Sliding(20, time.Second)} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := basic{memory(t)}
				var all []*ratelimit.Limiter
				for range 3 {
					all = append(all, newLimiter(t, ratelimit.Config{Limit: limit, Store: s, Name: "api", Key: user, StoreBudget: -1}))
				}
				var grants []grant
				for i := range 600 {
					d, err := all[i%3].Take(t.Context(), "", 1, "key")
					if err != nil {
						t.Fatal(err)
					}
					if d.Allowed {
						grants = append(grants, grant{time.Now(), 1})
					}
					time.Sleep(time.Duration(i%11) * time.Millisecond)
				}
				if len(grants) < 50 {
					t.Errorf("%d granted", len(grants))
				}
				checkBound(t, grants, limit.Bound)
			})
		})
	}
}
