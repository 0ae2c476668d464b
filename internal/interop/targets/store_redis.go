package targets

import (
	"context"
	"net"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// redisMeasures are decisions of many callers through go-redis, the client that
// all contestants have: 256 on a thousand keys, and 64 on one. What of the
// latter's calls fails is counted.
func redisMeasures() []Measure {
	rt := new(redisTargets)
	many, one := names("redis-", 1000), names("hot-", 1)
	return []Measure{
		{
			Package: "store", Name: "Redis, combined, 256 callers on 1,000 keys", Scale: Rate, Setup: rt.start,
			Ours: func(b *testing.B) { together(b, 256, many, advance(rt.combined)) },
			Peers: []Peer{
				{Name: "one call a decision", Run: func(b *testing.B) { together(b, 256, many, advance(rt.direct)) }, MinRatio: 1.8},
				{Name: "redis_rate", Run: func(b *testing.B) { together(b, 256, many, rt.redisRate) }, MinRatio: 2.5},
				{Name: "throttled", Run: func(b *testing.B) { together(b, 256, many, rt.throttled) }},
			},
			Benchtime: "250ms", Rounds: 7,
		},
		{
			Package: "store", Name: "Redis, combined, 64 callers on one key", Scale: Rate, Setup: rt.start,
			Ours: func(b *testing.B) { counted(b, 64, one, advance(rt.combined)) },
			Peers: []Peer{
				{Name: "one call a decision", Run: func(b *testing.B) { counted(b, 64, one, advance(rt.direct)) }, MinRatio: 6},
				{Name: "redis_rate", Run: func(b *testing.B) { counted(b, 64, one, rt.redisRate) }},
				{Name: "throttled", Run: func(b *testing.B) { counted(b, 64, one, rt.throttled) }},
			},
			Ratios: []Metric{{Unit: failures}}, Metrics: []Metric{{Unit: failures, Max: 0}},
			Benchtime: "250ms", Rounds: 7,
		},
	}
}

// redisTargets are the contestants, on one server.
type redisTargets struct {
	direct    store.Registers
	combined  store.Registers
	redisRate func(ctx context.Context, key string) (bool, error)
	throttled func(ctx context.Context, key string) (bool, error)
}

// start starts a server, and connects each contestant by a client of its own.
func (rt *redisTargets) start() (end func(), err error) {
	path, err := prog.Find("redis-server")
	if err != nil {
		return nil, err
	}
	var ends []func()
	end = func() {
		for i := range ends {
			ends[len(ends)-1-i]()
		}
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	server, err := prog.Run(context.Background(), func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		return exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	}, prog.Dial)
	ends = append(ends, server.Stop)
	if err != nil {
		return nil, err
	}
	client := func() *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, ContextTimeoutEnabled: true, PoolSize: 64})
		ends = append(ends, func() { c.Close() })
		return c
	}
	open := func() (*redisstore.Store, error) {
		c := client()
		return redisstore.New(context.Background(), redisstore.Config{
			Do: func(ctx context.Context, args ...any) (any, error) { return c.Do(ctx, args...).Result() },
		})
	}
	if rt.direct, err = open(); err != nil {
		return nil, err
	}
	behind, err := open()
	if err != nil {
		return nil, err
	}
	combiner, err := store.NewCombiner(store.CombinerConfig{Store: behind})
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { combiner.Close() })
	rt.combined = combiner

	limiter := redis_rate.NewLimiter(client())
	limit := redis_rate.Limit{Rate: perHour, Burst: perHour, Period: time.Hour}
	rt.redisRate = func(ctx context.Context, key string) (bool, error) {
		r, err := limiter.Allow(ctx, key, limit)
		return err == nil && r.Allowed == 1, err
	}
	gcra, err := goredisstore.NewCtx(client(), "throttled:")
	if err != nil {
		return nil, err
	}
	other, err := throttled.NewGCRARateLimiterCtx(gcra, throttled.RateQuota{MaxRate: throttled.PerHour(perHour), MaxBurst: perHour - 1})
	if err != nil {
		return nil, err
	}
	rt.throttled = func(ctx context.Context, key string) (bool, error) {
		limited, _, err := other.RateLimitCtx(ctx, key, 1)
		return err == nil && !limited, err
	}
	return end, nil
}

// failures is the share of calls that returned an error.
const failures = "errors/op"

// counted is together for contestants that may fail, whose errors it reports.
func counted(b *testing.B, callers int, keys []string, allow func(ctx context.Context, key string) (bool, error)) {
	var failed atomic.Int64
	together(b, callers, keys, func(ctx context.Context, key string) (bool, error) {
		ok, err := allow(ctx, key)
		if err != nil {
			failed.Add(1)
			return true, nil
		}
		return ok, nil
	})
	b.ReportMetric(float64(failed.Load())/float64(b.N), failures)
}
