package ratelimit

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value, date string
		want        time.Duration
	}{
		{"120", "", 2 * time.Minute},
		{" 7\t", "", 7 * time.Second},
		{"0", "", 0},
		{"007", "", 7 * time.Second},
		{"99999999999999999999999", "", maxDelay * time.Second},
		{"", "", 0},
		{"-1", "", 0},
		{"+1", "", 0},
		{"1.5", "", 0},
		{"1 2", "", 0},
		{"soon", "", 0},
		{"Sat, 01 Mar 2025 12:00:30 GMT", "", 30 * time.Second},
		{"Saturday, 01-Mar-25 12:00:30 GMT", "", 30 * time.Second},
		{"Sat Mar  1 12:00:30 2025", "", 30 * time.Second},
		{"Sat, 01 Mar 2025 11:00:00 GMT", "", 0},
		{"Sat, 01 Mar 2025 12:00:30 GMT", "Sat, 01 Mar 2025 12:00:20 GMT", 10 * time.Second}, // whatever now is
		{"Sat, 01 Mar 2025 12:00:30 GMT", "yesterday", 30 * time.Second},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "", maxDelay * time.Second},
		{"Sat, 01 Mar 2025 12:00:30 UTC", "", 0}, // what go-limiter sends
	} {
		h := http.Header{"Retry-After": {c.value}, "Date": {c.date}}
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%q, date %q: %v, want %v", c.value, c.date, got, c.want)
		}
	}
	if got := retryAfter(http.Header{}, now); got != 0 {
		t.Errorf("no field: %v", got)
	}
}

// Whatever a server sends, the time is within bounds; digits are seconds, and
// what the standard library takes for a date is one.
func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, v := range []string{"", "1", "00", "99999999999999999999", "-1", "Sat, 01 Mar 2025 12:00:30 GMT", "Saturday, 01-Mar-25 12:00:30 GMT", "Sat Mar  1 12:00:30 2025"} {
		f.Add(v, "Sat, 01 Mar 2025 12:00:20 GMT")
		f.Add(v, "")
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		got := retryAfter(h, now)
		if got < 0 || got > maxDelay*time.Second {
			t.Fatalf("%v", got)
		}
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && got != time.Duration(n)*time.Second {
			t.Errorf("%q is %v", value, got)
		}
		if at, err := http.ParseTime(value); err == nil && date == "" {
			if want := min(max(0, at.Sub(now)), maxDelay*time.Second); got != want {
				t.Errorf("%q is %v, want %v", value, got, want)
			}
		}
	})
}

// What is remembered of servers is bounded, and what ends first makes room.
func TestPausesBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pauses
		for i := range 2 * mostPauses {
			p.add(fmt.Sprint(i), time.Duration(i+1)*time.Second)
		}
		if len(p.until) != mostPauses {
			t.Errorf("%d are remembered, want %d", len(p.until), mostPauses)
		}
		if p.left("0") != 0 || p.left(fmt.Sprint(2*mostPauses-1)) != 2*mostPauses*time.Second {
			t.Error("the wrong ones are remembered")
		}
		// What is there already is prolonged, never shortened.
		last := fmt.Sprint(2*mostPauses - 1)
		p.add(last, time.Second)
		if p.left(last) != 2*mostPauses*time.Second {
			t.Errorf("%v left", p.left(last))
		}
		time.Sleep(24 * time.Hour)
		if p.left(last) > 0 || p.n.Load() != mostPauses-1 {
			t.Errorf("%v left of one, %d are remembered", p.left(last), p.n.Load())
		}
		p.add("new", time.Second)
		p.add("newer", time.Second)
		if len(p.until) != 2 {
			t.Errorf("%d are remembered, want the new ones", len(p.until))
		}
	})
}
