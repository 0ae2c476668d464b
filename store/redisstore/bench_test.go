package redisstore_test

import (
	"context"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// What the store adds to the client: a client that answers at once.
func BenchmarkOverhead(b *testing.B) {
	answer := []any{int64(1_700_000_000), int64(123_456_000), int64(1), int64(1), int64(1000)}
	st, err := redisstore.New(b.Context(), redisstore.Config{Do: func(_ context.Context, args ...any) (any, error) {
		if args[0] == "MGET" {
			return []any{"value"}, nil
		}
		return answer, nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	deadline, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	op := store.Op{Space: "bench", Key: "key", Clock: true, Ceil: int64(time.Hour), Step: 1000, Min: 1, Max: 1}
	b.Run("Advance", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := st.Advance(deadline, op); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := st.Get(deadline, "key"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AdvanceParallel", func(b *testing.B) {
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := st.Advance(deadline, op); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
