// Package redisstore is a [store.Store] on a Redis or Valkey server that the
// user already operates, through the client that the user already has.
//
// The package needs no client library. It takes one function that sends a
// command and returns its reply, which every client has under some name. With
// go-redis it is one line:
//
//	s, err := redisstore.New(ctx, redisstore.Config{
//		Do: func(ctx context.Context, args ...any) (any, error) { return rdb.Do(ctx, args...).Result() },
//	})
//
// rueidis and valkey-go want to know which arguments are keys, see [Keys]:
//
//	Do: func(ctx context.Context, args ...any) (any, error) {
//		s := make([]string, len(args))
//		for i, a := range args {
//			s[i] = a.(string)
//		}
//		i, j := redisstore.Keys(args)
//		return c.Do(ctx, c.B().Arbitrary(s[:i]...).Keys(s[i:j]...).Args(s[j:]...).Build()).ToAny()
//	}
//
// A [Store] has everything that package store describes: values, registers one
// by one, in batches and all or none, [store.Toucher], [store.Scanner] and
// [store.Keeper]. Each call is one round trip. Whatever reads and then writes is
// a Lua script, sent by its hash and, to a server that has not seen it or has
// forgotten it, in full. Registers are judged by the server's clock to the
// nanosecond of its microseconds: clocks of the callers do not matter.
//
// # What it needs
//
// Redis 6.2 or later, Valkey, or a server that is like them in these commands:
// DEL, EVAL, EVALSHA, EXISTS, GET, MGET, PERSIST, PEXPIRE, PTTL, SET with PX,
// PXAT and KEEPTTL, TIME; SCAN to list keys; INFO and CONFIG GET for
// [Store.Keep]. It is tested on Redis 7.0, alone and as a cluster.
//
// # Operating rules
//
//   - Eviction. With maxmemory-policy noeviction a full server answers with an
//     error, which is [store.ErrFull]. With volatile-ttl it forgets first what
//     would expire first, which suits registers, and may forget sessions early. The
//     allkeys policies and volatile-lru, -lfu and -random forget at random:
//     limits are reset that way. Values that must not be lost go through
//     [store.Keep], which refuses everything but noeviction.
//   - Retries. Switch off retries in the client (go-redis: MaxRetries: -1;
//     rueidis and valkey-go do not repeat these commands). A command whose reply
//     was lost may have been applied, and is charged twice if it is repeated; a
//     repeated CompareAndSwap loses against itself.
//   - Deadlines. Calls return when their context ends, whatever the client
//     does, see Config.Timeout and Config.MaxCalls. The client is not told, so
//     that one impatient caller does not cost a connection that others use:
//     go-redis may have ContextTimeoutEnabled or not. Leave the client's own
//     limits on (go-redis: ReadTimeout and others; rueidis, valkey-go:
//     ConnWriteTimeout).
//   - Replicas. Never let the client read from replicas (go-redis: ReadOnly,
//     RouteByLatency, RouteRandomly): what was written would not be seen.
//   - Failover. Replication is asynchronous. The replica that takes over may
//     lack the last writes, so a limit may grant again what was granted in
//     that time, and a kept value of that time may be gone.
//   - Durability. With appendonly yes and appendfsync everysec, a crash loses up
//     to about a second; with always, nothing that was acknowledged; without
//     appendonly, everything since the last snapshot.
//   - Clock. Steps of the server's clock are healed: back by an hour denies for at
//     most a second more than the limit itself, see [store.HealSlack].
//
// # Keys
//
// A value is under Prefix, "v:" and its key; a register under Prefix, "r:{", its
// Key, "}" and its Space, where "%" and "}" in Key are written %25 and %7D. So
// registers with the same Key are in the same slot of a cluster, and those are
// what one script may touch there. Values and registers are strings, a register
// in decimal: operators can read them, and delete them.
package redisstore
