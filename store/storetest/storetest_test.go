package storetest

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

// recorder collects what a check reports, and stops it as a testing.T does.
type recorder struct {
	mu       sync.Mutex
	messages []string
}

func (r *recorder) Helper()             {}
func (r *recorder) Logf(string, ...any) {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// broken returns what each rule that the stores of open break has reported.
// Each rule has a bubble of its own, so none of them waits.
func broken(t *testing.T, open func() (s, second store.Store)) map[string][]string {
	t.Helper()
	failed := map[string][]string{}
	for _, r := range rules() {
		synctest.Test(t, func(t *testing.T) {
			s, second := open()
			o := Options{}
			if second != nil {
				o.Second = func(*testing.T, store.Store) store.Store { return second }
			}
			o = o.withDefaults()
			if !r.applies(s, o) {
				return
			}
			rec := new(recorder)
			c := newCheck(rec, t.Context(), o, s)
			c.second = func() store.Store { return second }
			var wg sync.WaitGroup
			wg.Go(func() { r.check(c) })
			wg.Wait()
			time.Sleep(time.Hour) // for calls that the check has given up on
			if len(rec.messages) > 0 {
				failed[r.name] = rec.messages
			}
		})
	}
	return failed
}

// The suite finds nothing wrong with a store that does everything right, with
// one and with two handles on it.
func TestReference(t *testing.T) {
	RunWith(t, Options{
		Open:   func(*testing.T) store.Store { return newReference() },
		Second: func(_ *testing.T, s store.Store) store.Store { return s },
	})
	for name, messages := range broken(t, func() (store.Store, store.Store) {
		s := newReference()
		return s, s
	}) {
		t.Errorf("in a bubble, the rule %s: %s", name, messages)
	}
}

// store 6: each of these stores breaks one rule, and the suite names it.
func TestBrokenStores(t *testing.T) {
	for _, b := range brokenStores {
		t.Run(strings.ReplaceAll(b.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			failed := broken(t, b.open)
			got := slices.Sorted(maps.Keys(failed))
			want := slices.Sorted(slices.Values(strings.Fields(b.breaks)))
			if want[0] == "..." { // and others, since so much depends on it
				want = want[1:]
				got = slices.DeleteFunc(got, func(name string) bool { return !slices.Contains(want, name) })
			}
			if !slices.Equal(got, want) {
				t.Errorf("it breaks %q, want %q", got, want)
				for _, name := range got {
					t.Logf("%s: %s", name, strings.Join(failed[name][:min(3, len(failed[name]))], "\n\t"))
				}
			}
		})
	}
}

// Each rule is broken by one of the stores, or it would be worth nothing.
func TestEachRuleIsBroken(t *testing.T) {
	all := map[string]bool{}
	for _, b := range brokenStores {
		for _, name := range strings.Fields(b.breaks) {
			all[name] = name != "..."
		}
	}
	seen := map[string]bool{}
	for _, r := range rules() {
		if !all[r.name] {
			t.Errorf("no store breaks the rule %s", r.name)
		}
		if seen[r.name] {
			t.Errorf("two rules are called %s", r.name)
		}
		if seen[r.name] = true; r.why == "" {
			t.Errorf("the rule %s is not explained", r.name)
		}
		delete(all, r.name)
	}
	for name, is := range all {
		if is {
			t.Errorf("a store breaks %s, which is no rule", name)
		}
	}
}

// The suite's waits are bounded, so that it stays a suite that people run.
func TestSuiteIsShort(t *testing.T) {
	var total time.Duration
	for _, r := range rules() {
		synctest.Test(t, func(t *testing.T) {
			s := newReference()
			c := newCheck(t, t.Context(), Options{Second: func(*testing.T, store.Store) store.Store { return s }}.withDefaults(), s)
			c.second = func() store.Store { return s }
			start := time.Now()
			r.check(c)
			took := time.Since(start)
			if took > 10*time.Millisecond != r.timed {
				t.Errorf("the rule %s waits for %v, and says %v of that", r.name, took, r.timed)
			}
			total += took
		})
	}
	if total > 5*time.Second {
		t.Errorf("the rules wait for %v in total, want at most 5 s", total)
	}
}
