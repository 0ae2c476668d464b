package sqlitestore

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"example.com/plainware/store"
	kit "example.com/plainware/store/sqlitestore"
	"example.com/plainware/store/storetest"
)

// Bench measures the driver.
func Bench(b *testing.B, d Driver) {
	b.Run("Suite", func(b *testing.B) {
		storetest.Bench(b, func(b *testing.B) store.Store { return d.store(b, kit.Config{}) })
	})
	b.Run("Get", func(b *testing.B) {
		s := d.store(b, kit.Config{})
		if err := s.Put(b.Context(), "key", make([]byte, 200), 0); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := s.Get(b.Context(), "key"); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("GetParallel", func(b *testing.B) {
		s := d.store(b, kit.Config{})
		if err := s.Put(b.Context(), "key", make([]byte, 200), 0); err != nil {
			b.Fatal(err)
		}
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, ok, err := s.Get(b.Context(), "key"); !ok || err != nil {
					b.Error(ok, err)
				}
			}
		})
	})
	b.Run("Put", func(b *testing.B) {
		s := d.store(b, kit.Config{})
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Put(b.Context(), "key", make([]byte, 200), 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, keys := range []int{1, 10_000} {
		for _, group := range []int{-1, 0} {
			name := "grouped"
			if group < 0 {
				name = "single"
			}
			b.Run(fmt.Sprintf("Advance/%s/keys=%d", name, keys), func(b *testing.B) {
				Advance(b, d, group, keys)
			})
		}
	}
	for _, n := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("Contention/processes=%d", n), func(b *testing.B) { Contention(b, d, n) })
	}
}

// Advance measures decisions per second of 128 callers, with Config.Group.
func Advance(b *testing.B, d Driver, group, keys int) {
	s := d.store(b, kit.Config{Group: group})
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("203.0.113.%d", i)
	}
	var seed atomic.Uint64
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := rand.New(rand.NewPCG(1, seed.Add(1)))
		op := store.Op{Space: "bench", Clock: true, Ceil: 1e15, Step: 1000, Min: 1, Max: 1}
		for pb.Next() {
			op.Key = names[r.IntN(keys)]
			if _, err := s.Advance(b.Context(), op); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
	st := s.Stats()
	b.ReportMetric(float64(st.Calls)/float64(max(st.Transactions, 1)), "calls/commit")
}
