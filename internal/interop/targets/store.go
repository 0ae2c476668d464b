package targets

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sethvargo/go-limiter/memorystore"
	"golang.org/x/time/rate"

	"example.com/plainware/store"
)

// storeMeasures are decisions of a limit that is never reached, which is what
// most decisions are. Those of the remote backends are benchmarks beside their
// tests, since they need servers.
func storeMeasures() []Measure {
	var all []Measure
	for _, c := range []struct {
		name            string
		keys            int
		limiter, xtimes float64 // against the peers
	}{
		{"memory, decision on one key", 1, 0.85, 0.70},
		{"memory, decision on 10,000 keys", 10_000, 1.05, 0.80},
	} {
		keys := make([]string, c.keys)
		for i := range keys {
			keys[i] = "user-" + strconv.Itoa(i)
		}
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
	})
}

// perHour is more than a machine decides in the time of a measure.
const perHour = 1_000_000_000

func newMemory() func(key string) bool {
	m := must(store.NewMemory(store.MemoryConfig{}))
	ctx := context.Background()
	return func(key string) bool {
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
	keys := make([]string, 1<<20)
	for i := range keys {
		keys[i] = "flood-" + strconv.Itoa(i)
	}
	return decide(keys, allow)
}
