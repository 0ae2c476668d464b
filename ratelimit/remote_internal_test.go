package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// counted counts the calls of s.
func counted(s store.Store, calls *atomic.Int64) store.Store {
	return storetest.Faulty(s, func(storetest.Call) storetest.Fault {
		calls.Add(1)
		return storetest.Fault{}
	})
}

// A client that is refused again and again costs the store one call a second, and
// nothing of the other policies.
func TestRefusedWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		l := mustLimiter(t, Config{
			Policies: []Policy{{Name: "wide", Limit: Quota(1000, time.Hour)}, {Name: "narrow", Limit: PerHour(2)}},
			Store:    counted(newRemoteClock(), &calls), Name: "api",
		})
		admitted := 0
		h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admitted++ }))
		r := httptest.NewRequest("GET", "/", nil)
		for range 1000 { // 10 s
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 200 && (w.Code != 429 || w.Header().Get("Retry-After") == "") {
				t.Fatalf("got %d, %v", w.Code, w.Header())
			}
			time.Sleep(10 * time.Millisecond)
		}
		if admitted != 2 || calls.Load() > 14 {
			t.Errorf("%d admitted, %d calls", admitted, calls.Load())
		}
		if d, err := l.Peek(t.Context(), "wide", "192.0.2.1"); err != nil || d.Remaining != 998 {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}

// Leases through a Limiter: few calls, nearly all of the entitlement, and the
// bound that the limit promises.
func TestLimiterLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const run = 300 * time.Millisecond
		var calls, asked atomic.Int64
		limit := PerSecond(5000).Burst(1000)
		s := counted(newRemoteClock(), &calls)
		var mu sync.Mutex
		var grants []int64
		var wg sync.WaitGroup
		start := time.Now()
		for process := range 4 {
			l := mustLimiter(t, Config{
				Policies: []Policy{{Name: "hot", Limit: limit, Key: byName(), Lease: 20 * time.Millisecond}}, Store: s, Name: "api",
			})
			wg.Go(func() {
				time.Sleep(time.Duration(process) * 7 * time.Microsecond)
				for time.Since(start) < run {
					d, err := l.Take(t.Context(), "", 1, "key")
					if err != nil {
						t.Error(err)
						return
					}
					asked.Add(1)
					if d.Allowed {
						mu.Lock()
						grants = append(grants, int64(time.Since(start)))
						mu.Unlock()
					}
					time.Sleep(100 * time.Microsecond)
				}
			})
		}
		wg.Wait()
		slices.Sort(grants)
		for i := 0; i < len(grants); i += 7 {
			for j := i; j < len(grants); j += 11 {
				if w := time.Duration(grants[j] - grants[i]); int64(j-i+1) > limit.Bound(w) {
					t.Fatalf("%d granted in %v, promised are %d", j-i+1, w, limit.Bound(w))
				}
			}
		}
		if entitled := float64(limit.Bound(run)); float64(len(grants)) < 0.93*entitled {
			t.Errorf("%d granted of %v", len(grants), entitled)
		}
		if calls.Load() > asked.Load()/20 {
			t.Errorf("%d calls for %d decisions", calls.Load(), asked.Load())
		}
	})
}

// What came from a lease goes back when another policy refuses.
func TestLeaseBeforeRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRemoteClock()
		costly := int64(1)
		l := mustLimiter(t, Config{
			Policies: []Policy{
				{Name: "hot", Limit: PerSecond(1000).Burst(500), Lease: time.Second / 10},
				{Name: "other", Limit: Quota(40, time.Hour), Cost: func(*http.Request) int64 { return costly }},
			},
			Store: s, Name: "api",
		})
		admitted := int64(0)
		h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admitted++ }))
		for range 200 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}
		if admitted != 40 {
			t.Errorf("%d admitted, want 40", admitted)
		}
		// Apart from what is in the lease, as much was taken as was admitted.
		d, err := l.Peek(t.Context(), "hot", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		if taken := 500 - 100 - d.Remaining; taken < admitted || taken > admitted+100 {
			t.Errorf("%d taken for %d admitted", taken, admitted)
		}
		if err := l.Reset(t.Context(), "hot", "192.0.2.1"); err != nil {
			t.Error(err)
		}
		if d, err := l.Peek(t.Context(), "hot", "192.0.2.1"); err != nil || d.Remaining != 400 {
			t.Errorf("after Reset: %+v, %v", d, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		costly = 0
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
		if w.Code != 503 {
			t.Errorf("cancelled: %d", w.Code)
		}
	})
}

// Leases while the store fails, in each mode.
func TestLeaseWithoutStore(t *testing.T) {
	for mode, want := range map[OnStoreError]string{Local: "30 of 100", Allow: "100 of 100", Deny: "0 of 100"} {
		synctest.Test(t, func(t *testing.T) {
			down := storetest.Faulty(newRemoteClock(), func(storetest.Call) storetest.Fault {
				return storetest.Fault{Before: errors.New("down")}
			})
			l := mustLimiter(t, Config{
				Policies: []Policy{{Name: "hot", Limit: PerSecond(100).Burst(32), Lease: 20 * time.Millisecond}},
				Store:    down, Name: "api", OnStoreError: mode,
			})
			admitted, unavailable := 0, 0
			h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admitted++ }))
			for range 100 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
				if w.Code == 503 {
					unavailable++
				}
			}
			if got := fmt.Sprint(admitted, " of 100"); got != want || (unavailable > 0) != (mode == Deny) {
				t.Errorf("%v: %s admitted, want %s; %d unavailable", mode, got, want, unavailable)
			}
		})
	}
}

// A charge that reaches the store in the next window counts there.
func TestChargeInTheNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 100 * time.Millisecond
		s := newRemoteClock()
		l := mustLimiter(t, Config{
			Policies: []Policy{{Name: "p", Limit: Sliding(50, window), Debt: 10}}, Store: s, Name: "api", StoreBudget: -1,
		})
		charged := false
		h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first := true
			s.delay = func() time.Duration {
				if first {
					first = false
					return window
				}
				return 0
			}
			if err := l.Charge(r.Context(), 20); err != nil {
				t.Error(err)
			}
			charged = true
		}))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		at := l.enforced[0].slide.at(time.Now().UnixNano() / int64(window))
		for space, want := range map[string]int64{at.before: 1, at.current: 20} {
			op := l.enforced[0].op("192.0.2.1", 0)
			op.Space = space
			if res, err := s.Advance(t.Context(), op); err != nil || res.Value != want || !charged {
				t.Errorf("%s: %d counted, %v, want %d", space, res.Value, err, want)
			}
		}
	})
}

// A store whose clock jumps from answer to answer ends in no endless loop.
func TestSlidingWithoutASteadyClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRemoteClock()
		n := 0
		jumping := storetest.Faulty(s, func(storetest.Call) storetest.Fault {
			n++
			s.set(time.Duration(n) * time.Hour)
			return storetest.Fault{}
		})
		l := mustLimiter(t, Config{Limit: Sliding(5, time.Second), Store: jumping, Name: "api", Key: byName(), StoreBudget: -1})
		if d := mustTake(t, l, 1); d.Allowed || d.RetryAfter != time.Second {
			t.Errorf("got %+v", d)
		}
	})
}

// Where no policy applies there is nothing to say, and a policy in Shadow that
// does not apply says nothing.
func TestNoPolicyApplies(t *testing.T) {
	l := mustLimiter(t, Config{Policies: []Policy{
		{Name: "a", Limit: PerHour(1), Key: byName(), Optional: true},
		{Name: "b", Limit: PerHour(1), Key: byName(), Optional: true, Shadow: true},
	}})
	h := l.Handler(http.NotFoundHandler())
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 404 || w.Header().Get("RateLimit-Policy") != "" {
			t.Errorf("got %d, %v", w.Code, w.Header())
		}
	}
	if s := l.Stats(); s.Allowed != 3 || s.Shadowed != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestLimitErrorWords(t *testing.T) {
	for _, c := range []struct {
		err          LimitError
		status       int
		code, detail string
		text         string
	}{
		{LimitError{Decision: Decision{Policy: "p", RetryAfter: 1500 * time.Microsecond}}, 429, "rate_limited",
			"Too many requests. Retry-After says when to try again.", "ratelimit: refused by policy p, retry after 2ms"},
		{LimitError{Decision: Decision{Policy: "p"}}, 429, "rate_limited",
			"The request costs more than is ever allowed at once.", "ratelimit: refused by policy p"},
		{LimitError{Decision: Decision{Policy: "p"}, reason: busy}, 503, "too_many_concurrent",
			"Too many requests are in progress.", "ratelimit: refused by policy p"},
		{LimitError{reason: unavailable, cause: context.Canceled}, 503, "rate_limit_unavailable",
			"The request could not be checked against its limit.", "ratelimit: no decision: context canceled"},
		{LimitError{}, 429, "rate_limited", "The request costs more than is ever allowed at once.", "ratelimit: refused"},
	} {
		e := &c.err
		if e.HTTPStatus() != c.status || e.Code() != c.code || e.Detail() != c.detail || e.Error() != c.text {
			t.Errorf("got %d, %s, %q, %q", e.HTTPStatus(), e.Code(), e.Detail(), e)
		}
	}
}
