// Package redisstore tests store/redisstore with the clients that people use,
// against a real redis-server.
package redisstore

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/internal/interop/redisstore/redisserver"
	"github.com/redis/go-redis/v9"
)

// server is a redis-server of a test's own.
type server struct {
	*redisserver.Server
	t testing.TB
}

func start(t testing.TB, args ...string) *server {
	t.Helper()
	return &server{redisserver.Start(t, args...), t}
}

// config sets a setting of the running server.
func (s *server) config(name, value string) {
	s.t.Helper()
	if err := s.client().ConfigSet(context.Background(), name, value).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// client returns a client for what the store does not do, closed at the end of
// the test.
func (s *server) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// cluster starts n servers that make a cluster together.
func cluster(t testing.TB, n int) []*server {
	t.Helper()
	ctx := t.Context()
	var nodes []*server
	for range n {
		nodes = append(nodes, start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "30000", "--cluster-port", freePort(t)))
	}
	const slots = 16384
	for i, s := range nodes {
		c := s.client()
		if err := c.ClusterAddSlotsRange(ctx, i*slots/n, (i+1)*slots/n-1).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		for _, other := range nodes[:i] {
			host, port, _ := net.SplitHostPort(other.Addr)
			bus := other.Args[indexOf(other.Args, "--cluster-port")+1]
			if err := c.Do(ctx, "CLUSTER", "MEET", host, port, bus).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(redisserver.ReadyWithin)
	for _, s := range nodes {
		c := s.client()
		for {
			info, err := c.ClusterInfo(ctx).Result()
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", n)) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the cluster is not ready: %v\n%s", err, info)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	return nodes
}

func indexOf(list []string, s string) int {
	for i, e := range list {
		if e == s {
			return i
		}
	}
	return -1
}

func freePort(t testing.TB) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(prog.Addr(t))
	return port
}

func self(t testing.TB) string {
	path, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}
