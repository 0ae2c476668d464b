package store_test

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
)

func benchKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)
	}
	return keys
}

// One decision of a token bucket by all processors. Beside a map with a lock and
// a struct for each key it should take at most 0.85 of the time for one key,
// and 1.05 for 10,000, with no allocation.
func BenchmarkMemoryAdvance(b *testing.B) {
	for _, c := range []struct {
		name string
		keys int
		op   store.Op
	}{
		{"keys=1", 1, bucket("", 1, 1e9, 1)},
		{"keys=10000", 10_000, bucket("", 1, 1e9, 1)},
		{"keys=1/refused", 1, bucket("", 3600*second, 1, 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			m, keys := newMemory(b, store.MemoryConfig{}), benchKeys(c.keys)
			ctx := b.Context()
			var start atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				op := c.op
				for i := int(start.Add(7919)); pb.Next(); i++ {
					op.Key = keys[i%len(keys)]
					m.Advance(ctx, op)
				}
			})
		})
	}
}

// A register that is new, in a table that is full.
func BenchmarkMemoryInsert(b *testing.B) {
	m, keys := newMemory(b, store.MemoryConfig{}), benchKeys(1_000_000)
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.Advance(ctx, bucket(keys[i%len(keys)], 3600*second, 100, 1))
		i++
	}
}

func BenchmarkMemoryAll(b *testing.B) {
	m := newMemory(b, store.MemoryConfig{})
	ctx := b.Context()
	ops, res := []store.Op{bucket("a", 1, 1e9, 1), bucket("b", 1, 1e9, 1), bucket("c", 1, 1e9, 1)}, make([]store.Result, 3)
	b.ReportAllocs()
	for b.Loop() {
		m.AdvanceAll(ctx, ops, res)
	}
}

// What a million registers take of the heap, and of a full collection. It
// should be at most 57 bytes each, and some milliseconds.
func BenchmarkMemoryMillion(b *testing.B) {
	const n = 1_000_000
	keys := benchKeys(n)
	for b.Loop() {
		debug.FreeOSMemory()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m := newMemory(b, store.MemoryConfig{Registers: 2 * n})
		start := time.Now()
		for _, key := range keys {
			m.Advance(b.Context(), bucket(key, 3600*second, 100, 1))
		}
		b.ReportMetric(float64(time.Since(start).Nanoseconds())/n, "ns/insert")
		runtime.GC()
		runtime.ReadMemStats(&after)
		start = time.Now()
		runtime.GC()
		b.ReportMetric(float64(time.Since(start).Microseconds()), "µs/GC")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/key")
		b.ReportMetric(float64(m.Stats().RegistersEvicted), "evicted")
		m.Close()
	}
}

func BenchmarkMemoryValues(b *testing.B) {
	for _, c := range []struct {
		name string
		do   func(m *store.Memory, b *testing.B, key string, value []byte)
	}{
		{"Get", func(m *store.Memory, b *testing.B, key string, _ []byte) { m.Get(b.Context(), key) }},
		{"Put", func(m *store.Memory, b *testing.B, key string, value []byte) {
			m.Put(b.Context(), key, value, time.Hour)
		}},
		{"CompareAndSwap", func(m *store.Memory, b *testing.B, key string, value []byte) {
			m.CompareAndSwap(b.Context(), key, value, value, time.Hour)
		}},
		{"Touch", func(m *store.Memory, b *testing.B, key string, _ []byte) { m.Touch(b.Context(), key, time.Hour) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			m, keys, value := newMemory(b, store.MemoryConfig{}), benchKeys(10_000), make([]byte, 200)
			for _, key := range keys {
				put(b, m, key, string(value), time.Hour)
			}
			var start atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := int(start.Add(7919)); pb.Next(); i++ {
					c.do(m, b, keys[i%len(keys)], value)
				}
			})
		})
	}
}
