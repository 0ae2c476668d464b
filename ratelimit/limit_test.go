package ratelimit_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
)

func TestBound(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		limit  ratelimit.Limit
		window time.Duration
		want   int64
	}{
		{ratelimit.PerMinute(100), 0, 100},
		{ratelimit.PerMinute(100), time.Minute, 200},
		{ratelimit.PerMinute(100), 599 * time.Millisecond, 100},
		{ratelimit.PerMinute(100), 600 * time.Millisecond, 101},
		{ratelimit.PerSecond(10).Burst(20), time.Second, 30},
		{ratelimit.PerHour(1), time.Hour, 2},
		{ratelimit.PerMinute(100).Strict(), time.Minute, 100},
		{ratelimit.PerMinute(101).Strict(), time.Minute, 101},
		{ratelimit.PerMinute(100).Burst(10).Strict(), time.Minute, 99}, // rounded in the same way
		{ratelimit.PerMinute(100).Burst(100).Strict(), time.Minute, 100},
		{ratelimit.PerMinute(1).Strict(), time.Minute, 1},
		{ratelimit.PerMinute(1).Strict(), time.Minute + 1, 2},
		{ratelimit.PerSecond(7), time.Second, 13}, // ⌈1s/7⌉ is a little more than 1s/7
		{ratelimit.Quota(100, day), 0, 100},
		{ratelimit.Quota(100, day), 1, 200},
		{ratelimit.Quota(100, day), day, 200},
		{ratelimit.Quota(100, day), day + 1, 300},
		{ratelimit.Sliding(100, time.Minute), 0, 100},
		{ratelimit.Sliding(100, time.Minute), 30 * time.Second, 150},
		{ratelimit.Sliding(100, time.Minute), time.Minute, 199},
		{ratelimit.Sliding(100, time.Minute), 90 * time.Second, 250},
		{ratelimit.Concurrent(5), time.Minute, -1},
		{ratelimit.Limit{}, time.Minute, -1},
		{ratelimit.PerMinute(0), time.Minute, -1},
		{ratelimit.PerMinute(1), -1, -1},
		{ratelimit.Quota(1<<52, 1), math.MaxInt64, math.MaxInt64},
		{ratelimit.Sliding(1<<52, time.Millisecond), math.MaxInt64, math.MaxInt64},
		{ratelimit.Quota(1<<52, time.Millisecond), math.MaxInt64, math.MaxInt64},
	} {
		if got := c.limit.Bound(c.window); got != c.want {
			t.Errorf("(%v).Bound(%v) = %d, want %d", c.limit, c.window, got, c.want)
		}
	}
}

func TestLimitString(t *testing.T) {
	for want, l := range map[string]ratelimit.Limit{
		"100 per 1m0s":                  ratelimit.PerMinute(100),
		"10 per 1s, burst 20":           ratelimit.PerSecond(10).Burst(20),
		"100 per 1h0m0s, strict":        ratelimit.PerHour(100).Strict(),
		"quota of 5 per 24h0m0s":        ratelimit.Quota(5, 24*time.Hour),
		"9 per sliding 1s":              ratelimit.Sliding(9, time.Second),
		"3 concurrent":                  ratelimit.Concurrent(3),
		"none":                          {},
		"-1 per 1m0s, burst -2, strict": ratelimit.PerMinute(-1).Burst(-2).Strict(),
	} {
		if got := l.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// ratelimit 22: what cannot be counted exactly is refused by New.
func TestLimitsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		limit ratelimit.Limit
		want  string
	}{
		{ratelimit.Limit{}, "is missing"},
		{ratelimit.PerMinute(0), "between 1 and 2^53 (got 0)"},
		{ratelimit.PerMinute(-1), "between 1 and 2^53 (got -1)"},
		{ratelimit.Quota(1<<53, time.Hour), "between 1 and 2^53 (got 9007199254740992)"},
		{ratelimit.Concurrent(0), "between 1 and 2^53 (got 0)"},
		{ratelimit.Per(1, 0), "window must be positive (got 0s)"},
		{ratelimit.Quota(1, -time.Second), "window must be positive (got -1s)"},
		{ratelimit.Sliding(1, time.Microsecond), "window of Sliding must be between 1 ms"},
		{ratelimit.Sliding(1, math.MaxInt64), "window of Sliding must be between 1 ms"},
		{ratelimit.PerMinute(1).Burst(0), "burst must be 1 or more"},
		{ratelimit.PerMinute(1).Burst(-5), "burst must be 1 or more"},
		{ratelimit.PerMinute(5).Burst(6).Strict(), "burst must be 1 or more, and with Strict no more than the number (got 5 per 1m0s, burst 6, strict)"},
		{ratelimit.Quota(5, time.Hour).Burst(1), "Burst and Strict are for Per"},
		{ratelimit.Sliding(5, time.Hour).Strict(), "Burst and Strict are for Per"},
		{ratelimit.PerSecond(150_000_000), "no whole number of nanoseconds"},
		{ratelimit.PerSecond(2_000_000_000), "no whole number of nanoseconds"},
		{ratelimit.Per(1, 105*24*time.Hour), "refilled within 104 days"},
		{ratelimit.PerHour(1).Burst(2600), "refilled within 104 days"},
		{ratelimit.PerHour(1).Burst(math.MaxInt64), "refilled within 104 days"},
	} {
		_, err := ratelimit.New(ratelimit.Config{Limit: c.limit})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "ratelimit: Limit: ") {
			t.Errorf("%v: got %v, want %q", c.limit, err, c.want)
		}
	}
	for _, l := range []ratelimit.Limit{
		ratelimit.PerSecond(100_000_000), ratelimit.PerSecond(1_000_000_000), ratelimit.PerSecond(999_983),
		ratelimit.Per(1, 104*24*time.Hour), ratelimit.Quota(1<<53-1, math.MaxInt64), ratelimit.Sliding(1<<53-1, time.Millisecond),
		ratelimit.Concurrent(1<<53 - 1),
	} {
		newLimiter(t, ratelimit.Config{Limit: l})
	}
}

func ExampleLimit_Strict() {
	for _, l := range []ratelimit.Limit{
		ratelimit.PerMinute(100),
		ratelimit.PerMinute(100).Burst(20),
		ratelimit.PerMinute(100).Strict(),
		ratelimit.Quota(100, time.Minute),
		ratelimit.Sliding(100, time.Minute),
	} {
		fmt.Printf("%-27v at once %3d, in any second %3d, in any minute %3d\n", l, l.Bound(0), l.Bound(time.Second), l.Bound(time.Minute))
	}
	// Output:
	// 100 per 1m0s                at once 100, in any second 101, in any minute 200
	// 100 per 1m0s, burst 20      at once  20, in any second  21, in any minute 120
	// 100 per 1m0s, strict        at once  50, in any second  50, in any minute 100
	// quota of 100 per 1m0s       at once 100, in any second 200, in any minute 200
	// 100 per sliding 1m0s        at once 100, in any second 101, in any minute 199
}
