package ratelimit_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/ratelimit"
)

// Those who wait get their turn in the order in which they came, each as soon as
// the limit allows.
func TestWaitInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerSecond(10).Burst(2), Key: user})
		start := time.Now()
		var mu sync.Mutex
		var order []int
		var took []time.Duration
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if err := l.Wait(t.Context(), "", 1, "key"); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order, took = append(order, i), append(took, time.Since(start))
			})
			synctest.Wait()
		}
		wg.Wait()
		ms := time.Millisecond
		if !slices.Equal(order, []int{0, 1, 2, 3, 4, 5}) || !slices.Equal(took, []time.Duration{0, 0, 100 * ms, 200 * ms, 300 * ms, 400 * ms}) {
			t.Errorf("got %v after %v", order, took)
		}
	})
}

func TestWaitEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerMinute(1), Key: user})
		if err := l.Wait(t.Context(), "", 1, "key"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var refusal *ratelimit.LimitError
		err := l.Wait(ctx, "", 1, "key")
		if !errors.As(err, &refusal) || !errors.Is(err, context.DeadlineExceeded) || refusal.RetryAfter != time.Minute || time.Since(start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if want := "ratelimit: refused by policy default, retry after 1m0s: context deadline exceeded"; err.Error() != want {
			t.Errorf("got %q", err)
		}
		// One whose context ends leaves the line.
		cancelled, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := l.Wait(cancelled, "", 1, "key"); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("left after %v", took)
		}
		if err := l.Wait(t.Context(), "", 1, "key"); err != nil || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if err := l.Wait(t.Context(), "nobody", 1, "key"); !errors.Is(err, ratelimit.ErrPolicy) {
			t.Errorf("got %v", err)
		}
	})
}
