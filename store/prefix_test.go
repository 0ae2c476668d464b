package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

func prefix(t testing.TB, s store.Store, p string) store.Store {
	t.Helper()
	v, err := store.Prefix(s, p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPrefixConforms(t *testing.T) {
	t.Parallel()
	storetest.RunWith(t, storetest.Options{
		Open: func(t *testing.T) store.Store { return prefix(t, openMemory(t), "tenants/blue/") },
		// Another view with the same prefix is the same keys.
		MaxKey: store.MaxKey - len("tenants/blue/"),
	})
}

// A view of a view conforms too, on a store of four methods.
func TestPrefixOfPrefixConforms(t *testing.T) {
	t.Parallel()
	m := newMapStore()
	open := func(t *testing.T, _ store.Store) store.Store { return prefix(t, prefix(t, m, "é"), "b/") }
	storetest.RunWith(t, storetest.Options{
		Open:   func(t *testing.T) store.Store { return open(t, nil) },
		Second: open,
		MaxKey: store.MaxKey - len("éb/"),
	})
	for k := range m.values {
		if !strings.HasPrefix(k, "éb/") {
			t.Errorf("a key in the inner store is %q", k)
		}
	}
}

// What is written through the view is under the prefix, and nothing else is seen.
func TestPrefixSeparates(t *testing.T) {
	ctx := t.Context()
	m := openMemory(t)
	blue, green := prefix(t, m, "blue/"), prefix(t, m, "green/")
	for s, v := range map[store.Store]string{blue: "b", green: "g", m: "m"} {
		if err := s.Put(ctx, "k", []byte(v), 0); err != nil {
			t.Fatal(err)
		}
	}
	for s, want := range map[store.Store]string{blue: "b", green: "g", m: "m"} {
		if v, ok, err := s.Get(ctx, "k"); !ok || err != nil || string(v) != want {
			t.Errorf("Get returns %q, %v, %v, want %q", v, ok, err, want)
		}
	}
	if v, ok, _ := m.Get(ctx, "blue/k"); !ok || string(v) != "b" {
		t.Errorf("under the prefix there is %q, %v", v, ok)
	}
	for s, n := range map[store.Store]int64{blue: 1, green: 2, m: 3} {
		r, ok := store.As[store.BatchRegisters](s)
		if !ok {
			t.Fatal("no registers")
		}
		ops, res := []store.Op{counter("k", 100, n), counter("k", 100, n)}, make([]store.Result, 2)
		if err := r.AdvanceBatch(ctx, ops, res); err != nil || res[1].Value != 2*n {
			t.Errorf("a register beside others is at %d, %v, want %d", res[1].Value, err, 2*n)
		}
		if ops[0].Space != "count" {
			t.Errorf("the caller's operation was changed: its Space is %q", ops[0].Space)
		}
	}
	inner := counter("k", 100, 0)
	inner.Space = "blue/count"
	if r, err := m.Advance(ctx, inner); err != nil || r.Value != 2 {
		t.Errorf("the register under the prefix is at %d, %v", r.Value, err)
	}
	sc, _ := store.As[store.Scanner](green)
	var keys []string
	for k, err := range sc.Scan(ctx, "") {
		if err != nil {
			t.Error(err)
		}
		keys = append(keys, k)
	}
	if !slices.Equal(keys, []string{"k"}) {
		t.Errorf("Scan lists %q", keys)
	}
}

type touching struct{ four }

func (touching) Touch(context.Context, string, time.Duration) (bool, error) { return true, nil }

// A view has a capability if and only if the store has it, and its chain never
// leads to the store itself.
func TestPrefixCapabilities(t *testing.T) {
	inner := openMemory(t)
	for name, s := range map[string]store.Store{
		"all":       inner,
		"none":      four{inner},
		"registers": with{four{inner}, inner},
		"touch":     touching{four{inner}},
	} {
		for wrapper, v := range map[string]store.Store{
			"Prefix": prefix(t, s, "p/"),
			"Faulty": storetest.Faulty(s, func(storetest.Call) storetest.Fault { return storetest.Fault{} }),
		} {
			same := func(what string, inner, outer bool) {
				if inner != outer {
					t.Errorf("%s of a store with %s: %s is %v, of the store it is %v", wrapper, name, what, outer, inner)
				}
			}
			same("Registers", is[store.Registers](s), is[store.Registers](v))
			same("BatchRegisters", is[store.BatchRegisters](s), is[store.BatchRegisters](v))
			same("AtomicRegisters", is[store.AtomicRegisters](s), is[store.AtomicRegisters](v))
			same("Toucher", is[store.Toucher](s), is[store.Toucher](v))
			same("Scanner", is[store.Scanner](s), is[store.Scanner](v))
			same("Keeper", is[store.Keeper](s), is[store.Keeper](v))
			if is[*store.Memory](v) {
				t.Errorf("%s of a store with %s leads to the store", wrapper, name)
			}
		}
	}
}

func is[T any](s store.Store) bool {
	_, ok := store.As[T](s)
	return ok
}

func TestPrefixRefused(t *testing.T) {
	m := openMemory(t)
	for _, p := range []string{"", "\x00", "\xff", strings.Repeat("p", 257)} {
		if _, err := store.Prefix(m, p); err == nil {
			t.Errorf("the prefix %q is taken", p)
		}
	}
	if _, err := store.Prefix(nil, "p"); err == nil {
		t.Error("a nil store is taken")
	}
	// A key must be one before the prefix makes one of it.
	v := prefix(t, m, "é")
	if err := v.Put(t.Context(), "", nil, 0); !errors.Is(err, store.ErrKey) {
		t.Errorf("Put of an empty key: %v", err)
	}
}

// The view for values that matter has the prefix too.
func TestPrefixKeep(t *testing.T) {
	m := openMemory(t)
	k, err := store.Keep(prefix(t, m, "p/"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Put(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := m.Get(t.Context(), "p/k"); !ok || err != nil || string(v) != "v" {
		t.Errorf("the store has %q, %v, %v", v, ok, err)
	}
	if _, err := store.Keep(prefix(t, newMapStore(), "p/")); err == nil {
		t.Error("Keep of a view of a store without Keep succeeds")
	}
}
