// Package storetest checks implementations of the kit's store contract, and
// code that uses them.
//
// [Run] has one subtest for each rule of the contract:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store {
//			return mystore.New(…)
//		})
//	}
//
// Run it with -race. The four methods of [store.Store] are checked always,
// whatever else [store.As] finds as well. Real backends have no fake clock, so
// a few rules wait: the suite takes about three seconds of its own.
//
// [Bench] measures a store. [Faulty] breaks one on purpose, for tests of the
// code above it: late, failing before or after it did what it was asked, or not
// answering at all.
package storetest

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
)

// Options are what [RunWith] has to know of a store.
type Options struct {
	// Open returns the store for one rule. It is called for each of them, must
	// not return nil, and uses t.Cleanup to close what it opens. The stores may
	// share a backend, and it need not be empty: the keys of each rule begin
	// with a random string. Required.
	Open func(t *testing.T) store.Store

	// Second returns another handle on the backend of s, which Open returned:
	// what another process would have. It should share nothing with s in
	// memory. Nil leaves out the rules that need one.
	Second func(t *testing.T, s store.Store) store.Store

	// Resolution is what the backend rounds ttls up to. Zero is a millisecond.
	Resolution time.Duration

	// MaxKey is the length of the longest key if it is less than
	// [store.MaxKey], as with store.Prefix. Zero is store.MaxKey.
	MaxKey int

	// NoHeal says that clock registers are not healed, because more than one
	// clock judges them.
	NoHeal bool
}

// Run checks the stores that open returns, see [Options].Open.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	RunWith(t, Options{Open: open})
}

// RunWith is [Run] for stores with more to be said about.
func RunWith(t *testing.T, o Options) {
	t.Helper()
	if o.Open == nil {
		t.Fatal("storetest: Options: Open: is required (got nil)")
	}
	o = o.withDefaults()
	probe := o.Open(t)
	if probe == nil {
		t.Fatal("storetest: Open returned nil")
	}
	t.Logf("found %s", strings.Join(append([]string{"Store"}, capabilities(probe)...), ", "))
	run := func(t *testing.T, r rule) {
		s := o.Open(t)
		c := newCheck(t, t.Context(), o, s)
		if o.Second != nil {
			c.second = func() store.Store { return o.Second(t, s) }
		}
		defer func() {
			if t.Failed() {
				t.Logf("the rule: %s", r.why)
			}
		}()
		r.check(c)
	}
	for _, r := range rules() {
		if !r.timed && r.applies(probe, o) {
			t.Run(r.name, func(t *testing.T) { run(t, r) })
		}
	}
	// In a group of their own, since parallel subtests outlive the function
	// that starts them, and with it what the caller closes by defer.
	t.Run("timed", func(t *testing.T) {
		for _, r := range rules() {
			if r.timed && r.applies(probe, o) {
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					run(t, r)
				})
			}
		}
	})
}

func (o Options) withDefaults() Options {
	if o.Resolution <= 0 {
		o.Resolution = time.Millisecond
	}
	if o.MaxKey <= 0 || o.MaxKey > store.MaxKey {
		o.MaxKey = store.MaxKey
	}
	return o
}

// rule is one rule of the contract.
type rule struct {
	name  string
	why   string           // the rule, and what happens above a store that breaks it
	needs func(probe) bool // nil: every store must obey it
	timed bool             // it spends its time waiting
	check func(c *check)
}

// probe is what a rule may ask before it applies.
type probe struct {
	store store.Store
	opts  Options
}

func (r rule) applies(s store.Store, o Options) bool {
	return r.needs == nil || r.needs(probe{s, o})
}

func has[T any](p probe) bool {
	_, ok := store.As[T](p.store)
	return ok
}

func hasSecond(p probe) bool { return p.opts.Second != nil }

func all(needs ...func(probe) bool) func(probe) bool {
	return func(p probe) bool {
		return !slices.ContainsFunc(needs, func(f func(probe) bool) bool { return !f(p) })
	}
}

func capabilities(s store.Store) []string {
	var names []string
	p := probe{store: s}
	for _, c := range []struct {
		name string
		has  func(probe) bool
	}{
		{"Registers", has[store.Registers]},
		{"BatchRegisters", has[store.BatchRegisters]},
		{"AtomicRegisters", has[store.AtomicRegisters]},
		{"Toucher", has[store.Toucher]},
		{"Scanner", has[store.Scanner]},
		{"Keeper", has[store.Keeper]},
	} {
		if c.has(p) {
			names = append(names, c.name)
		}
	}
	return names
}

// rules returns all rules, in the order in which they are best broken: what
// fails first is most likely the cause of what fails later.
func rules() []rule {
	return slices.Concat(
		valueRules, swapRules, keyRules, ttlRules, usageRules,
		registerRules, registerTimeRules, severalRules, optionalRules,
	)
}

// reporter is what a check needs of a testing.T. The suite's own tests have
// another one.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// check is one rule being checked on one store.
type check struct {
	reporter
	ctx    context.Context
	opts   Options
	s      store.Store
	second func() store.Store
	run    string // what all keys begin with
}

func newCheck(r reporter, ctx context.Context, o Options, s store.Store) *check {
	return &check{reporter: r, ctx: ctx, opts: o, s: s, run: rand.Text()[:10] + "/"}
}
