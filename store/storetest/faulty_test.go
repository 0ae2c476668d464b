package storetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

// A store without faults is the store: it obeys the same rules, all of its
// capabilities included.
func TestFaultyConforms(t *testing.T) {
	for name, messages := range broken(t, func() (store.Store, store.Store) {
		s := Faulty(newReference(), func(Call) Fault { return Fault{} })
		return s, s
	}) {
		t.Errorf("the rule %s: %s", name, messages)
	}
}

// Each fault does what it says to each method, and nothing else.
func TestFaults(t *testing.T) {
	lost := errors.New("lost")
	methods := map[string]func(ctx context.Context, s store.Store) error{
		"Get": func(ctx context.Context, s store.Store) error {
			_, _, err := s.Get(ctx, "k")
			return err
		},
		"Put": func(ctx context.Context, s store.Store) error { return s.Put(ctx, "k", []byte("after"), 0) },
		"CompareAndSwap": func(ctx context.Context, s store.Store) error {
			ok, err := s.CompareAndSwap(ctx, "k", []byte("before"), []byte("after"), 0)
			if ok == (err != nil) {
				t.Errorf("CompareAndSwap returns %v, %v", ok, err)
			}
			return err
		},
		"Delete": func(ctx context.Context, s store.Store) error { return s.Delete(ctx, "k") },
		"Touch": func(ctx context.Context, s store.Store) error {
			t, _ := store.As[store.Toucher](s)
			_, err := t.Touch(ctx, "k", time.Hour)
			return err
		},
		"Advance": func(ctx context.Context, s store.Store) error {
			r, _ := store.As[store.Registers](s)
			_, err := r.Advance(ctx, store.Op{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1})
			return err
		},
		"AdvanceBatch": func(ctx context.Context, s store.Store) error {
			r, _ := store.As[store.BatchRegisters](s)
			return r.AdvanceBatch(ctx, []store.Op{{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1}}, make([]store.Result, 1))
		},
		"AdvanceAll": func(ctx context.Context, s store.Store) error {
			r, _ := store.As[store.AtomicRegisters](s)
			_, err := r.AdvanceAll(ctx, []store.Op{{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1}}, make([]store.Result, 1))
			return err
		},
		"Scan": func(ctx context.Context, s store.Store) (err error) {
			sc, _ := store.As[store.Scanner](s)
			for _, err = range sc.Scan(ctx, "k") {
			}
			return err
		},
	}
	for name, call := range methods {
		for _, f := range []struct {
			name    string
			fault   Fault
			err     error
			took    time.Duration
			applied bool
		}{
			{"nothing", Fault{}, nil, 0, true},
			{"Stall", Fault{Stall: true}, context.DeadlineExceeded, time.Second, false},
			{"Delay", Fault{Delay: time.Millisecond}, nil, time.Millisecond, true},
			{"a long Delay", Fault{Delay: time.Minute}, context.DeadlineExceeded, time.Second, false},
			{"Before", Fault{Before: lost}, lost, 0, false},
			{"After", Fault{After: lost}, lost, 0, true},
			{"Late", Fault{Late: time.Millisecond}, nil, time.Millisecond, true},
			{"a very Late", Fault{Late: time.Minute}, context.DeadlineExceeded, time.Second, true},
		} {
			synctest.Test(t, func(t *testing.T) {
				inner := newReference()
				if err := inner.Put(t.Context(), "k", []byte("before"), 0); err != nil {
					t.Fatal(err)
				}
				var seen Call
				s := Faulty(inner, func(c Call) Fault {
					seen = c
					return f.fault
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				if err := call(ctx, s); !errors.Is(err, f.err) {
					t.Errorf("%s of %s: the error is %v, want %v", f.name, name, err, f.err)
				}
				if took := time.Since(start); took != f.took {
					t.Errorf("%s of %s: took %v, want %v", f.name, name, took, f.took)
				}
				if want := (Call{name, "k", 1}); seen != want {
					t.Errorf("%s of %s: the fault function saw %+v", f.name, name, seen)
				}
				v, _ := inner.find("k")
				applied := string(v.bytes) != "before" || !v.ends.IsZero() || len(inner.registers) > 0
				if name != "Get" && name != "Scan" && applied != f.applied {
					t.Errorf("%s of %s: applied is %v, want %v", f.name, name, applied, f.applied)
				}
			})
		}
	}
}

// Keep fails as it is told to, and its view has the same faults.
func TestFaultyKeep(t *testing.T) {
	lost := errors.New("lost")
	var fault Fault
	s := Faulty(newReference(), func(Call) Fault { return fault })
	kept, err := store.Keep(s)
	if err != nil {
		t.Fatal(err)
	}
	fault.Before = lost
	if err := kept.Put(t.Context(), "k", nil, 0); err != lost {
		t.Errorf("Put through the view: %v", err)
	}
	if _, err := store.Keep(s); err != lost {
		t.Errorf("Keep: %v", err)
	}
}

func BenchmarkReference(b *testing.B) {
	Bench(b, func(*testing.B) store.Store { return newReference() })
}
