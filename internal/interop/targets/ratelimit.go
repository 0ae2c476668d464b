package targets

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/didip/tollbooth/v7"
	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	"github.com/ulule/limiter/v3/drivers/store/memory"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// ratelimitMeasures are requests of one IPv4 client, admitted always or never,
// with all the header fields that each limiter writes by default: ours both of
// the draft.
func ratelimitMeasures() []Measure {
	var all []Measure
	for _, c := range []struct {
		name string
		n    int // an hour
	}{
		{"Handler, allow", perHour},
		{"Handler, deny", 1},
	} {
		m := Measure{Package: "ratelimit", Name: c.name, MaxAllocs: 2}
		lim := must(ratelimit.New(ratelimit.Config{Limit: ratelimit.PerHour(int64(c.n))}))
		m.Ours = fromClient(lim.Handler(nothing))
		for _, p := range limitPeers {
			m.Peers = append(m.Peers, Peer{Name: p.name, Run: fromClient(p.make(c.n)), MaxRatio: 0.35})
		}
		all = append(all, m)
	}
	return append(all, leaseMeasure())
}

// limitPeers make a handler that lets n requests an hour through for an address.
var limitPeers = []struct {
	name string
	make func(n int) http.Handler
}{
	{"httprate", func(n int) http.Handler {
		return httprate.LimitBy(n, time.Hour, func(r *http.Request) (string, error) {
			host, _, err := net.SplitHostPort(r.RemoteAddr)
			return httprate.CanonicalizeIP(host), err
		})(nothing)
	}},
	{"go-limiter httplimit", func(n int) http.Handler {
		s := must(memorystore.New(&memorystore.Config{Tokens: uint64(n), Interval: time.Hour}))
		return must(httplimit.NewMiddleware(s, httplimit.IPKeyFunc())).Handle(nothing)
	}},
	{"throttled", func(n int) http.Handler {
		quota := throttled.RateQuota{MaxRate: throttled.PerDuration(n, time.Hour), MaxBurst: n - 1}
		l := must(throttled.NewGCRARateLimiterCtx(must(memstore.NewCtx(65536)), quota))
		return (&throttled.HTTPRateLimiterCtx{RateLimiter: l, VaryBy: &throttled.VaryBy{RemoteAddr: true}}).RateLimit(nothing)
	}},
	{"ulule", func(n int) http.Handler {
		l := ulule.New(memory.NewStore(), ulule.Rate{Period: time.Hour, Limit: int64(n)})
		return stdlib.NewMiddleware(l).Handler(nothing)
	}},
	{"tollbooth", func(n int) http.Handler {
		l := tollbooth.NewLimiter(float64(n)/time.Hour.Seconds(), nil).SetBurst(n).SetIPLookups([]string{"RemoteAddr"})
		return tollbooth.LimitHandler(l, nothing)
	}},
}

// fromClient sends requests of one client from all processors.
func fromClient(h http.Handler) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			w := &nullWriter{header: http.Header{}}
			r := get("http://x/u/1", "Accept", "Accept-Encoding", "User-Agent")
			r.RemoteAddr = "203.0.113.9:4711"
			for pb.Next() {
				clear(w.header)
				h.ServeHTTP(w, r)
			}
		})
	}
}

// leaseMeasure is a hot key of eight processes, each of which asks for more than
// there is, on a store that takes 25 µs for a call, as a server on this machine
// does. An operation is a run of a second with leases, and one of calls of the
// store, one for each request. What is judged are the calls with leases as a
// share of the others, and what is lost of the tokens to which the limit
// entitles. The tests in interop/ratelimit do it against real servers.
func leaseMeasure() Measure {
	return Measure{
		Package: "ratelimit", Name: "Lease of 20 ms, 8 processes, 5000 a second",
		Metrics: []Metric{{"%calls", 3}, {"%lost", 7}},
		Ours: func(b *testing.B) {
			var with, without hotKey
			for b.Loop() {
				with.run(leasedProcess)
				without.run(directProcess)
			}
			b.ReportMetric(100*float64(with.calls)/float64(without.calls), "%calls")
			b.ReportMetric(100*(1-float64(with.granted)/float64(with.due)), "%lost")
		},
	}
}

const (
	hotRate  = 5000
	hotBurst = 1000
)

// hotKey counts what becomes of a key that many processes ask for.
type hotKey struct{ calls, granted, due int64 }

// run runs processes, each of which returns a function that asks once.
func (k *hotKey) run(process func(store.Store) (ask func() bool, done func())) {
	const (
		processes = 8
		length    = time.Second
	)
	mem := must(store.NewMemory(store.MemoryConfig{}))
	remote := storetest.Faulty(mem, func(storetest.Call) storetest.Fault {
		atomic.AddInt64(&k.calls, 1)
		for start := time.Now(); time.Since(start) < 25*time.Microsecond; {
		}
		return storetest.Fault{}
	})
	var wg sync.WaitGroup
	until := time.Now().Add(length)
	for range processes {
		ask, done := process(remote)
		wg.Go(func() {
			defer done()
			for time.Now().Before(until) {
				if ask() {
					atomic.AddInt64(&k.granted, 1)
				}
			}
		})
	}
	wg.Wait()
	k.due += hotBurst + int64(hotRate*length/time.Second)
}

func leasedProcess(s store.Store) (ask func() bool, done func()) {
	lim := must(ratelimit.New(ratelimit.Config{
		Store: s, Name: "targets", OnStoreError: ratelimit.Deny, StoreBudget: time.Second,
		Policies: []ratelimit.Policy{{
			Name: "hot", Limit: ratelimit.PerSecond(hotRate).Burst(hotBurst), Lease: 20 * time.Millisecond,
			Key: ratelimit.ByFunc(func(*http.Request) string { return "" }),
		}},
	}))
	ctx := context.Background()
	return func() bool { return must(lim.Take(ctx, "", 1, "key")).Allowed }, func() { lim.Close() }
}

func directProcess(s store.Store) (ask func() bool, done func()) {
	const interval = int64(time.Second) / hotRate
	op := store.Op{Space: "direct", Key: "key", Clock: true, Ceil: hotBurst * interval, Step: interval, Min: 1, Max: 1}
	registers, ctx := store.RegistersOf(s), context.Background()
	return func() bool { return must(registers.Advance(ctx, op)).Granted == 1 }, func() {}
}
