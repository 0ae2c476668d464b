package targets

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sethvargo/go-limiter/memorystore"
	"golang.org/x/time/rate"

	"example.com/plainware/store"
)

// storeMeasures are decisions of a limit that is never reached, which is what
// most decisions are, in memory and by the backends that are slow enough for
// callers to be combined. Files and servers are made for each measure, and taken
// away after it.
func storeMeasures() []Measure {
	return slices.Concat(memoryMeasures(), sqliteMeasures(), redisMeasures(), postgresMeasures())
}

func memoryMeasures() []Measure {
	var all []Measure
	for _, c := range []struct {
		name            string
		keys            int
		limiter, xtimes float64 // against the peers
	}{
		{"memory, decision on one key", 1, 0.85, 0.70},
		{"memory, decision on 10,000 keys", 10_000, 1.05, 0.80},
	} {
		keys := names("user-", c.keys)
		all = append(all, Measure{
			Package: "store", Name: c.name,
			Ours: decide(keys, newMemory()), MaxAllocs: -1,
			Peers: []Peer{
				{Name: "go-limiter", Run: decide(keys, newGoLimiter()), MaxRatio: c.limiter},
				{Name: "x/time in sync.Map", Run: decide(keys, newXTime()), MaxRatio: c.xtimes},
			},
		})
	}
	return append(all, Measure{
		Package: "store", Name: "memory, new key",
		Ours: newKeys(newMemory()), MaxAllocs: -1,
	}, Measure{
		Package: "store", Name: "memory, what a million keys take", Scale: Apart,
		Ours: occupied(func(b *testing.B, text flood) any {
			// Twice as many as are in use, as MemoryConfig says.
			m := must(store.NewMemory(store.MemoryConfig{Registers: max(64, 2*b.N)}))
			allow := decideIn(m)
			for i := range b.N {
				if !allow(strings.Clone(text.key(i))) {
					b.Fatal("refused")
				}
			}
			if n := m.Stats().RegistersEvicted; n > uint64(b.N/50) {
				b.Fatalf("%d of %d were evicted", n, b.N)
			}
			return m
		}),
		Peers: []Peer{{Name: "go-limiter", Run: occupied(func(b *testing.B, text flood) any {
			m := must(memorystore.New(&memorystore.Config{Tokens: perHour, Interval: time.Hour}))
			b.Cleanup(func() { m.Close(context.Background()) })
			for i := range b.N {
				if _, _, _, ok, err := m.Take(context.Background(), strings.Clone(text.key(i))); err != nil || !ok {
					b.Fatal("refused")
				}
			}
			return m
		})}},
		Ratios:    []Metric{{"heap-B/key", 0.40}, {"ns/GC", 0.05}},
		Benchtime: "1000000x", Rounds: 3,
	})
}

// perHour is more than a machine decides in the time of a measure.
const perHour = 1_000_000_000

// decision takes one of perHour.
func decision(key string) store.Op {
	return store.Op{Space: "limit", Key: key, Clock: true, Ceil: int64(time.Hour), Step: int64(time.Hour) / perHour, Min: 1, Max: 1}
}

func newMemory() func(key string) bool {
	return decideIn(must(store.NewMemory(store.MemoryConfig{})))
}

func decideIn(m *store.Memory) func(key string) bool {
	ctx := context.Background()
	return func(key string) bool {
		// As decision, which would be copied.
		r, err := m.Advance(ctx, store.Op{
			Space: "limit", Key: key, Clock: true, Ceil: int64(time.Hour), Step: int64(time.Hour) / perHour, Min: 1, Max: 1,
		})
		return err == nil && r.Granted == 1
	}
}

func newGoLimiter() func(key string) bool {
	m := must(memorystore.New(&memorystore.Config{Tokens: perHour, Interval: time.Hour}))
	ctx := context.Background()
	return func(key string) bool {
		_, _, _, ok, err := m.Take(ctx, key)
		return err == nil && ok
	}
}

func newXTime() func(key string) bool {
	var limiters sync.Map
	return func(key string) bool {
		l, ok := limiters.Load(key)
		if !ok {
			l, _ = limiters.LoadOrStore(key, rate.NewLimiter(rate.Limit(perHour/time.Hour.Seconds()), perHour))
		}
		return l.(*rate.Limiter).Allow()
	}
}

// decide goes through the keys again and again.
func decide(keys []string, allow func(string) bool) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if !allow(keys[i]) {
				b.Fatal("refused")
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
	}
}

// newKeys decides on a key that was not there before, out of many more than
// there is room for.
func newKeys(allow func(string) bool) func(*testing.B) {
	const n = 1 << 20
	text := newFlood(n)
	return func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if !allow(text.key(i % n)) {
				b.Fatal("refused")
			}
			i++
		}
	}
}

// flood is many keys that take next to no memory, so that they do not show where
// memory is measured: each begins a byte after the one before.
type flood string

const floodKey = 12

func newFlood(n int) flood {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	rnd := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, n+floodKey)
	for i := range text {
		text[i] = letters[rnd.IntN(len(letters))]
	}
	return flood(text)
}

func (f flood) key(i int) string { return string(f[i : i+floodKey]) }

// occupied measures what fill leaves behind of b.N keys: the heap that they
// take, and how long the collector takes with them there. Each key is a string
// of its own, as one from a request is, so who keeps it keeps its memory too.
func occupied(fill func(b *testing.B, text flood) (left any)) func(*testing.B) {
	return func(b *testing.B) {
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		text := newFlood(b.N)
		before := heap()
		b.ResetTimer()
		left := fill(b, text)
		b.StopTimer()
		after := heap()
		least := time.Duration(math.MaxInt64)
		for range 5 {
			start := time.Now()
			runtime.GC()
			least = min(least, time.Since(start))
		}
		runtime.KeepAlive(left)
		runtime.KeepAlive(text)
		b.ReportMetric(float64(after-min(before, after))/float64(b.N), "heap-B/key")
		b.ReportMetric(float64(least), "ns/GC")
	}
}

// names returns n keys.
func names(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = prefix + strconv.Itoa(i)
	}
	return keys
}

// advance is a decision by registers.
func advance(s store.Registers) func(ctx context.Context, key string) (bool, error) {
	return func(ctx context.Context, key string) (bool, error) {
		r, err := s.Advance(ctx, decision(key))
		return r.Granted == 1, err
	}
}

// together has callers make b.N decisions on the keys, each as soon as it has
// the answer to the one before.
func together(b *testing.B, callers int, keys []string, allow func(ctx context.Context, key string) (bool, error)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				// Not in order: neighbours would meet in one batch again and again.
				if ok, err := allow(context.Background(), keys[int(i*7919%int64(len(keys)))]); err != nil || !ok {
					b.Errorf("refused: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// batches is together with size decisions in each call.
func batches(b *testing.B, callers, size int, keys []string, s store.BatchRegisters) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			ops, res := make([]store.Op, size), make([]store.Result, size)
			for i := next.Add(int64(size)); i < int64(b.N+size); i = next.Add(int64(size)) {
				for j := range ops {
					ops[j] = decision(keys[int((i+int64(j))*7919%int64(len(keys)))])
				}
				if err := s.AdvanceBatch(context.Background(), ops, res); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
