// Package redisstore tests store/redisstore with the clients that people use,
// against a real redis-server.
package redisstore

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"example.com/plainware/internal/interop/prog"
)

// readyWithin bounds the start of a server.
const readyWithin = 30 * time.Second

// server is a redis-server on a port and in a directory of its own.
type server struct {
	t    testing.TB
	addr string
	args []string

	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// start starts a server until the end of the test. The arguments are its
// configuration, as on its command line.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	path := prog.Need(t, "redis-server")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := &server{t: t, addr: l.Addr().String()}
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append([]string{
		path, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--daemonize", "no",
	}, args...)
	s.run()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("redis-server printed:\n%s", s.out.String())
		}
	})
	return s
}

func (s *server) run() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func() {
		s.cmd.Wait()
		close(done)
	}()
	c := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	for c.Ping(ctx).Err() != nil {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-done:
			s.t.Fatalf("redis-server ended:\n%s", s.out.String())
		case <-ctx.Done():
			s.t.Fatalf("redis-server is not ready after %v", readyWithin)
		}
	}
}

// kill ends the server at once, as kill -9 does.
func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.done
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
	c := redis.NewClient(&redis.Options{Addr: s.addr})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// cluster starts n servers that make a cluster together.
func cluster(t testing.TB, n int) []*server {
	t.Helper()
	ctx := t.Context()
	var nodes []*server
	for range n {
		nodes = append(nodes, start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", freePort(t)))
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
			host, port, _ := net.SplitHostPort(other.addr)
			bus := other.args[indexOf(other.args, "--cluster-port")+1]
			if err := c.Do(ctx, "CLUSTER", "MEET", host, port, bus).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(readyWithin)
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func self(t testing.TB) string {
	path, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}
