package redisstore

import (
	"context"
	"strings"
	"sync"
	"testing"

	"example.com/plainware/store/redisstore"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/valkey-io/valkey-go"
)

// client is a client library, adapted.
type client struct {
	name string
	// open connects to the servers; with several they are a cluster. It returns
	// what New needs, and what closes the client.
	open func(t testing.TB, addrs ...string) (redisstore.Config, func())
}

var clients = []client{
	{"go-redis", func(t testing.TB, addrs ...string) (redisstore.Config, func()) { return openGoRedis(false, addrs) }},
	{"go-redis with ContextTimeoutEnabled", func(t testing.TB, addrs ...string) (redisstore.Config, func()) { return openGoRedis(true, addrs) }},
	{"rueidis", openRueidis},
	{"valkey-go", openValkey},
}

// openGoRedis is the adapter for go-redis. The type UniversalClient is any of
// its clients.
func openGoRedis(watch bool, addrs []string) (redisstore.Config, func()) {
	rdb := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 addrs,
		MaxRetries:            -1,
		ContextTimeoutEnabled: watch,
	})
	c := redisstore.Config{
		Cluster: len(addrs) > 1,
		Do: func(ctx context.Context, args ...any) (any, error) {
			return rdb.Do(ctx, args...).Result()
		},
		Pipeline: func(ctx context.Context, cmds [][]any) ([]any, error) {
			p := rdb.Pipeline()
			for _, args := range cmds {
				p.Do(ctx, args...)
			}
			done, _ := p.Exec(ctx) // the error is that of one of the commands
			replies := make([]any, len(done))
			for i, cmd := range done {
				var err error
				if replies[i], err = cmd.(*redis.Cmd).Result(); err != nil {
					replies[i] = err
				}
			}
			return replies, nil
		},
	}
	if cc, ok := rdb.(*redis.ClusterClient); ok {
		c.Nodes = func(ctx context.Context) ([]redisstore.Do, error) {
			var mu sync.Mutex
			var nodes []redisstore.Do
			err := cc.ForEachMaster(ctx, func(_ context.Context, c *redis.Client) error {
				mu.Lock()
				defer mu.Unlock()
				nodes = append(nodes, func(ctx context.Context, args ...any) (any, error) {
					return c.Do(ctx, args...).Result()
				})
				return nil
			})
			return nodes, err
		}
	}
	return c, func() { rdb.Close() }
}

// openRueidis is the adapter for rueidis.
func openRueidis(t testing.TB, addrs ...string) (redisstore.Config, func()) {
	r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	command := func(r rueidis.Client, args []any) rueidis.Completed {
		s := words(args)
		i, j := redisstore.Keys(args)
		return r.B().Arbitrary(s[:i]...).Keys(s[i:j]...).Args(s[j:]...).Build()
	}
	do := func(r rueidis.Client) redisstore.Do {
		return func(ctx context.Context, args ...any) (any, error) {
			return r.Do(ctx, command(r, args)).ToAny()
		}
	}
	c := redisstore.Config{
		Cluster: len(addrs) > 1,
		Do:      do(r),
		Pipeline: func(ctx context.Context, cmds [][]any) ([]any, error) {
			multi := make([]rueidis.Completed, len(cmds))
			for i, args := range cmds {
				multi[i] = command(r, args)
			}
			replies := make([]any, len(cmds))
			for i, res := range r.DoMulti(ctx, multi...) {
				var err error
				if replies[i], err = res.ToAny(); err != nil {
					replies[i] = err
				}
			}
			return replies, nil
		},
	}
	if c.Cluster {
		c.Nodes = func(ctx context.Context) ([]redisstore.Do, error) {
			var nodes []redisstore.Do
			for _, n := range r.Nodes() { // replicas too
				role, err := n.Do(ctx, n.B().Role().Build()).ToArray()
				if err != nil {
					return nil, err
				}
				if name, _ := role[0].ToString(); name == "master" {
					nodes = append(nodes, do(n))
				}
			}
			return nodes, nil
		}
	}
	return c, r.Close
}

// openValkey is the adapter for valkey-go, which has the shape of rueidis.
func openValkey(t testing.TB, addrs ...string) (redisstore.Config, func()) {
	v, err := valkey.NewClient(valkey.ClientOption{InitAddress: addrs, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	command := func(v valkey.Client, args []any) valkey.Completed {
		s := words(args)
		i, j := redisstore.Keys(args)
		return v.B().Arbitrary(s[:i]...).Keys(s[i:j]...).Args(s[j:]...).Build()
	}
	do := func(v valkey.Client) redisstore.Do {
		return func(ctx context.Context, args ...any) (any, error) {
			return v.Do(ctx, command(v, args)).ToAny()
		}
	}
	c := redisstore.Config{
		Cluster: len(addrs) > 1,
		Do:      do(v),
		Pipeline: func(ctx context.Context, cmds [][]any) ([]any, error) {
			multi := make([]valkey.Completed, len(cmds))
			for i, args := range cmds {
				multi[i] = command(v, args)
			}
			replies := make([]any, len(cmds))
			for i, res := range v.DoMulti(ctx, multi...) {
				var err error
				if replies[i], err = res.ToAny(); err != nil {
					replies[i] = err
				}
			}
			return replies, nil
		},
	}
	if c.Cluster {
		c.Nodes = func(ctx context.Context) ([]redisstore.Do, error) {
			var nodes []redisstore.Do
			for _, n := range v.Nodes() { // replicas too
				role, err := n.Do(ctx, n.B().Role().Build()).ToArray()
				if err != nil {
					return nil, err
				}
				if name, _ := role[0].ToString(); name == "master" {
					nodes = append(nodes, do(n))
				}
			}
			return nodes, nil
		}
	}
	return c, v.Close
}

func words(args []any) []string {
	s := make([]string, len(args))
	for i, a := range args {
		s[i] = a.(string)
	}
	return s
}

// open returns a store through the client, which is closed at the end of the
// test. change, if not nil, has the last word on the configuration.
func (c client) store(t testing.TB, change func(*redisstore.Config), addrs ...string) *redisstore.Store {
	t.Helper()
	config, closeClient := c.open(t, addrs...)
	t.Cleanup(closeClient)
	if change != nil {
		change(&config)
	}
	s, err := redisstore.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// each runs a test with every client.
func each(t *testing.T, f func(t *testing.T, c client)) {
	for _, c := range clients {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) { f(t, c) })
	}
}
