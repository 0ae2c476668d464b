package redisstore

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// eachClient runs a benchmark with the clients that differ in speed.
func eachClient(b *testing.B, f func(b *testing.B, c client, config redisstore.Config, st *redisstore.Store)) {
	s := start(b)
	for _, c := range clients {
		if strings.Contains(c.name, " ") {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			config, closeClient := c.open(b, s.Addr)
			defer closeClient()
			st, err := redisstore.New(b.Context(), config)
			if err != nil {
				b.Fatal(err)
			}
			f(b, c, config, st)
		})
	}
}

func benchOp(i int) store.Op {
	return store.Op{
		Space: "bench", Key: fmt.Sprint("key", i%1000), Clock: true,
		Ceil: int64(time.Hour), Step: 1000, Min: 1, Max: 1,
	}
}

// The round trip of the client alone, for comparison.
func BenchmarkIncr(b *testing.B) {
	eachClient(b, func(b *testing.B, c client, config redisstore.Config, _ *redisstore.Store) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := config.Do(b.Context(), "INCR", "i"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkIncrParallel(b *testing.B) {
	eachClient(b, func(b *testing.B, c client, config redisstore.Config, _ *redisstore.Store) {
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := config.Do(b.Context(), "INCR", "i"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkGet(b *testing.B) {
	eachClient(b, func(b *testing.B, _ client, _ redisstore.Config, st *redisstore.Store) {
		if err := st.Put(b.Context(), "k", make([]byte, 256), 0); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := st.Get(b.Context(), "k"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAdvance(b *testing.B) {
	eachClient(b, func(b *testing.B, _ client, _ redisstore.Config, st *redisstore.Store) {
		op := benchOp(1)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := st.Advance(b.Context(), op); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// 64 callers on two processors, over 1,000 registers.
func BenchmarkAdvanceParallel(b *testing.B) {
	eachClient(b, func(b *testing.B, _ client, _ redisstore.Config, st *redisstore.Store) {
		var next atomic.Int64
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			i := int(next.Add(7919))
			for ; pb.Next(); i++ {
				if _, err := st.Advance(b.Context(), benchOp(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registers/s")
	})
}

// Registers per second by the size of a batch, with two callers.
func BenchmarkAdvanceBatch(b *testing.B) {
	eachClient(b, func(b *testing.B, _ client, _ redisstore.Config, st *redisstore.Store) {
		for _, n := range []int{1, 8, 64} {
			b.Run(fmt.Sprint(n), func(b *testing.B) {
				b.SetParallelism(1)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					ops, res := make([]store.Op, n), make([]store.Result, n)
					for i := range ops {
						ops[i] = benchOp(i)
					}
					for pb.Next() {
						if err := st.AdvanceBatch(b.Context(), ops, res); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "registers/s")
			})
		}
	})
}

// 256 callers, each with a call of its own and combined, on 1,000 registers and
// on one.
func BenchmarkCombined(b *testing.B) {
	eachClient(b, func(b *testing.B, _ client, _ redisstore.Config, st *redisstore.Store) {
		combined, err := store.NewCombiner(store.CombinerConfig{Store: st})
		if err != nil {
			b.Fatal(err)
		}
		defer combined.Close()
		for _, c := range []struct {
			name string
			s    store.Registers
			keys int64
		}{
			{"direct/keys", st, 1000}, {"combined/keys", combined, 1000},
			{"direct/hot", st, 1}, {"combined/hot", combined, 1},
		} {
			b.Run(c.name, func(b *testing.B) {
				var next atomic.Int64
				b.SetParallelism(128)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					i := next.Add(7919)
					for ; pb.Next(); i++ {
						if _, err := c.s.Advance(b.Context(), benchOp(int(i%c.keys))); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registers/s")
			})
		}
	})
}
