package breaker_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/store"
)

func TestConfigErrors(t *testing.T) {
	_, err := breaker.New(breaker.Config{
		Name: "a b", Window: time.Millisecond, MinCalls: 1<<31 - 1, FailureRatio: 1.1, Consecutive: 1<<31 - 1,
		SlowCall: time.Second, SlowRatio: math.NaN(), OpenFor: time.Millisecond, MaxOpen: time.Microsecond,
		Probes: 2000, ProbeTimeout: -1, Successes: -1, Ramp: 1, Sync: time.Hour, Quorum: 1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{
		"Name", "Window", "MinCalls", "FailureRatio", "Consecutive", "SlowRatio", "OpenFor", "MaxOpen",
		"Probes", "ProbeTimeout", "Successes", "Ramp", "Sync", "Quorum",
	} {
		if !strings.Contains(err.Error(), "breaker: "+field+": must be ") {
			t.Errorf("nothing about %s in\n%v", field, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 14 {
		t.Errorf("%d problems:\n%v", n, err)
	}
	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := breaker.New(breaker.Config{Store: mem}); err == nil || err.Error() != `breaker: Name: is required with a Store (got "")` {
		t.Error(err)
	}
	if _, err := breaker.NewGroup(breaker.GroupConfig{Max: -1, Config: breaker.Config{Quorum: 2}}); err == nil ||
		!strings.Contains(err.Error(), "Max") || !strings.Contains(err.Error(), "Quorum") {
		t.Error(err)
	}
	defer mem.Close()
	forgets := breaker.Config{Store: struct{ store.Store }{mem}, Name: "x"}
	if _, err := breaker.New(forgets); err == nil || !strings.Contains(err.Error(), "breaker: Store: ") {
		t.Errorf("a store that keeps nothing was taken: %v", err)
	}
	if _, err := breaker.NewGroup(breaker.GroupConfig{Config: forgets}); err == nil {
		t.Error("a store that keeps nothing was taken")
	}
}

func TestConfigNegativeIsNone(t *testing.T) {
	b := newBreaker(t, breaker.Config{
		MinCalls: -1, FailureRatio: -1, SlowCall: -1, SlowRatio: -1, Consecutive: -1, MaxOpen: -1, Ramp: -1, Quorum: -1,
	})
	calls(b, 1000, breaker.Failure)
	want(t, b, breaker.Closed)
	b = newBreaker(t, breaker.Config{MinCalls: -1})
	calls(b, 1, breaker.Failure)
	want(t, b, breaker.Open)
}
