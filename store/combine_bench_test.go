package store_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
)

// remote is a store behind one connection: calls take turns, and each takes a
// round trip and a little for each operation.
type remote struct {
	four
	store.BatchRegisters
	turn chan struct{}
}

func (r remote) spend(n int) {
	r.turn <- struct{}{}
	for start, d := time.Now(), time.Duration(10+n)*time.Microsecond; time.Since(start) < d; {
	}
	<-r.turn
}

func (r remote) Advance(ctx context.Context, op store.Op) (store.Result, error) {
	r.spend(1)
	return r.BatchRegisters.Advance(ctx, op)
}

func (r remote) AdvanceBatch(ctx context.Context, ops []store.Op, res []store.Result) error {
	r.spend(len(ops))
	return r.BatchRegisters.AdvanceBatch(ctx, ops, res)
}

// BenchmarkCombiner compares decisions of 256 callers with and without a
// combiner in front of a store of which a call costs 10 µs and an operation 1 µs.
func BenchmarkCombiner(b *testing.B) {
	for _, keys := range []int{1, 1000} {
		for _, combined := range []bool{false, true} {
			b.Run(fmt.Sprintf("keys=%d/combined=%v", keys, combined), func(b *testing.B) {
				m := openMemory(b)
				s := store.Store(remote{four{m}, m, make(chan struct{}, 1)})
				if combined {
					s = combine(b, s)
				}
				regs := store.RegistersOf(s)
				names := benchKeys(keys)
				b.ReportAllocs()
				b.SetParallelism(128)
				var start atomic.Int64
				b.RunParallel(func(p *testing.PB) {
					for i := int(start.Add(7919)); p.Next(); i++ {
						if _, err := regs.Advance(b.Context(), tokens(names[i%keys], time.Microsecond, 1e6, 1)); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkEmulation is registers over a store of four methods.
func BenchmarkEmulation(b *testing.B) {
	for _, keys := range []int{1, 1000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			regs := store.RegistersOf(newMapStore())
			names := benchKeys(keys)
			b.ReportAllocs()
			b.SetParallelism(128)
			var start atomic.Int64
			b.RunParallel(func(p *testing.PB) {
				for i := int(start.Add(7919)); p.Next(); i++ {
					if _, err := regs.Advance(b.Context(), tokens(names[i%keys], time.Microsecond, 1e6, 1)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
