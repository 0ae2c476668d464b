package ratelimit_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store/storetest"
)

func TestPeekAndReset(t *testing.T) {
	for _, limit := range []ratelimit.Limit{
		ratelimit.PerHour(3), ratelimit.Quota(3, time.Hour), ratelimit.Sliding(3, time.Hour),
	} {
		for name, c := range map[string]ratelimit.Config{
			"memory": {},
			"remote": {Store: basic{memory(t)}, Name: "api", StoreBudget: -1},
		} {
			t.Run(fmt.Sprint(limit, " ", name), func(t *testing.T) {
				c.Limit, c.Key = limit, user
				l := newLimiter(t, c)
				ctx := t.Context()
				for _, key := range []string{"key", "other"} {
					if d, err := l.Take(ctx, "", 3, key); err != nil || !d.Allowed {
						t.Fatal(d, err)
					}
					if d, err := l.Take(ctx, "", 1, key); err != nil || d.Allowed {
						t.Fatal(d, err)
					}
				}
				if d, err := l.Peek(ctx, "", "key"); err != nil || d.Allowed || d.Remaining != 0 || d.RetryAfter <= 0 || d.Limit != 3 {
					t.Errorf("got %+v, %v", d, err)
				}
				if err := l.Reset(ctx, "", "key"); err != nil {
					t.Error(err)
				}
				for range 2 {
					if d, err := l.Peek(ctx, "", "key"); err != nil || !d.Allowed || d.Remaining != 3 || d.RetryAfter != 0 {
						t.Errorf("got %+v, %v", d, err)
					}
				}
				if d, err := l.Take(ctx, "", 3, "key"); err != nil || !d.Allowed {
					t.Errorf("got %+v, %v", d, err)
				}
				if d, err := l.Take(ctx, "", 1, "other"); err != nil || d.Allowed {
					t.Errorf("another key: %+v, %v", d, err)
				}
			})
		}
	}
}

func TestResetWithoutStore(t *testing.T) {
	s := storetest.Faulty(memory(t), func(storetest.Call) storetest.Fault {
		return storetest.Fault{Before: fmt.Errorf("down")}
	})
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(1), Store: s, Name: "api", Key: user})
	if err := l.Reset(t.Context(), "", "key"); err == nil {
		t.Error("it was reset nowhere")
	}
	if err := l.Reset(t.Context(), "other", "key"); err == nil {
		t.Error("no such policy")
	}
}

// The hottest keys are found among many, in bounded memory.
func TestHottest(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: ratelimit.PerHour(500), Key: user, HotKeys: 8})
	ctx := t.Context()
	for i := range 20_000 {
		key := fmt.Sprint("cold ", i)
		switch {
		case i%3 == 0:
			key = "hottest"
		case i%7 == 0:
			key = "hot"
		}
		if _, err := l.Take(ctx, "", 1, key); err != nil {
			t.Fatal(err)
		}
	}
	var keys []ratelimit.HotKey
	for k := range l.Hottest() {
		keys = append(keys, k)
	}
	if len(keys) != 8 || keys[0].Key != "hottest" || keys[1].Key != "hot" || keys[0].Policy != "default" {
		t.Fatalf("got %+v", keys)
	}
	if k := keys[0]; k.Requests < 4_000 || k.Requests > 12_000 || k.Refused > k.Requests || k.Refused < 3_000 {
		t.Errorf("got %+v", k)
	}
	for k := range l.Hottest() {
		if k.Key != "hottest" {
			t.Errorf("got %+v first", k)
		}
		break
	}
	l.ResetHottest()
	for k := range l.Hottest() {
		t.Errorf("got %+v", k)
	}
	none := newLimiter(t, ratelimit.Config{Limit: plenty, Key: user, HotKeys: -1})
	for range 100 {
		none.Take(ctx, "", 1, "key")
	}
	none.ResetHottest()
	for k := range none.Hottest() {
		t.Errorf("got %+v", k)
	}
}
