package storetest

import (
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
)

// Bench measures the store that open returns: each method alone and from many
// goroutines, and registers with one key, with a thousand, and in batches. The
// store must have room for some thousand keys. Compare two stores in one run on
// one machine, with benchstat.
func Bench(b *testing.B, open func(b *testing.B) store.Store) {
	s := open(b)
	space := "bench/" + rand.Text()[:10] + "/"
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint(space, i)
	}
	value := []byte(rand.Text() + rand.Text() + rand.Text() + rand.Text())
	ctx := b.Context()
	for _, k := range keys {
		if err := s.Put(ctx, k, value, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	check := func(b *testing.B, err error) {
		if err != nil {
			b.Error(err)
		}
	}
	each(b, "Get", func(b *testing.B, i int) {
		_, _, err := s.Get(ctx, keys[i%len(keys)])
		check(b, err)
	})
	each(b, "Put", func(b *testing.B, i int) {
		check(b, s.Put(ctx, keys[i%len(keys)], value, time.Hour))
	})
	// One that loses costs a store the comparison, one that wins the write too.
	each(b, "CompareAndSwap", func(b *testing.B, i int) {
		_, err := s.CompareAndSwap(ctx, keys[i%len(keys)], value, value, time.Hour)
		check(b, err)
	})
	if r, ok := store.As[store.Registers](s); ok {
		// A microsecond a token: the bucket never is empty for long.
		op := store.Op{Space: space, Clock: true, Ceil: int64(time.Hour), Step: 1000, Min: 1, Max: 1}
		each(b, "Advance/keys=1", func(b *testing.B, i int) {
			op := op
			op.Key = "one"
			_, err := r.Advance(ctx, op)
			check(b, err)
		})
		each(b, "Advance/keys=1000", func(b *testing.B, i int) {
			op := op
			op.Key = keys[i%len(keys)]
			_, err := r.Advance(ctx, op)
			check(b, err)
		})
		op.Ceil, op.Step = int64(time.Hour), int64(time.Hour)
		each(b, "Advance/denied", func(b *testing.B, i int) {
			op := op
			op.Key = "denied"
			_, err := r.Advance(ctx, op)
			check(b, err)
		})
	}
	if r, ok := store.As[store.BatchRegisters](s); ok {
		const size = 64
		each(b, fmt.Sprintf("AdvanceBatch/size=%d", size), func(b *testing.B, i int) {
			ops, res := make([]store.Op, size), make([]store.Result, size)
			for j := range ops {
				ops[j] = store.Op{Space: space, Key: keys[(i*size+j)%len(keys)], Clock: true, Ceil: int64(time.Hour), Step: 1000, Min: 1, Max: 1}
			}
			check(b, r.AdvanceBatch(ctx, ops, res))
		})
	}
}

// each measures f from one goroutine and from many. i differs between them.
func each(b *testing.B, name string, f func(b *testing.B, i int)) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			f(b, i)
			i++
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		var start atomic.Int64
		b.RunParallel(func(p *testing.PB) {
			for i := int(start.Add(7919)); p.Next(); i++ {
				f(b, i)
			}
		})
	})
}
