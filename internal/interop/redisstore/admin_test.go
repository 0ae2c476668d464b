package redisstore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/storetest"
)

// Keep with the settings of a real server, one after the other put right.
func TestKeep(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		s := start(t, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl")
		st := c.store(t, nil, s.Addr)
		refused := func(parts ...string) {
			t.Helper()
			_, err := store.Keep(st)
			if err == nil {
				t.Fatalf("Keep promises; want it to ask for %q", parts)
			}
			for _, p := range parts {
				if !strings.Contains(err.Error(), p) {
					t.Errorf("%q does not say %q", err, p)
				}
			}
		}
		refused("set maxmemory-policy to noeviction", `"volatile-ttl"`, "set appendonly to yes", "set appendfsync to always")
		s.config("maxmemory-policy", "noeviction")
		s.config("appendonly", "yes")
		refused("set appendfsync to always", `"everysec"`)
		s.config("appendfsync", "always")
		if _, err := store.Keep(st); err != nil {
			t.Error(err)
		}
		s.config("maxmemory-policy", "allkeys-lru")
		refused(`"allkeys-lru"`)
		s.config("maxmemory", "0")
		if _, err := store.Keep(st); err != nil {
			t.Error(err)
		}
		trusting := c.store(t, func(c *redisstore.Config) { c.TrustKeep = true }, s.Addr)
		s.config("appendonly", "no")
		if _, err := store.Keep(trusting); err != nil {
			t.Error(err)
		}
	})
}

// A hosted server that hides its settings, and one that runs no scripts.
func TestRefusedCommands(t *testing.T) {
	hidden := start(t, "--rename-command", "CONFIG", "")
	noScripts := start(t, "--rename-command", "EVALSHA", "")
	each(t, func(t *testing.T, c client) {
		if _, err := store.Keep(c.store(t, nil, hidden.Addr)); err == nil || !strings.Contains(err.Error(), "appendfsync is always is unknown") {
			t.Errorf("Keep: %v", err)
		}
		config, closeClient := c.open(t, noScripts.Addr)
		defer closeClient()
		_, err := redisstore.New(t.Context(), config)
		if err == nil || !strings.Contains(err.Error(), "does not know a command") || strings.Contains(err.Error(), "plainware") {
			t.Errorf("New: %v", err)
		}
	})
}

// A single client at a cluster is told what to do.
func TestClusterMistaken(t *testing.T) {
	nodes := cluster(t, 3)
	c := clients[0]
	st := c.store(t, nil, nodes[0].Addr)
	seen := false
	for i := range 50 {
		if _, _, err := st.Get(t.Context(), fmt.Sprint(i)); err != nil && strings.Contains(err.Error(), "needs a client for clusters") {
			seen = true
		}
	}
	if !seen {
		t.Error("nothing is said about a client for clusters")
	}
	wrong := c.store(t, func(c *redisstore.Config) { c.Cluster, c.Nodes = false, nil }, addrs(nodes)...)
	seen = false
	for i := range 50 {
		ops := []store.Op{{Space: "s", Key: fmt.Sprint("a", i)}, {Space: "s", Key: fmt.Sprint("b", i)}}
		if err := wrong.AdvanceBatch(t.Context(), ops, make([]store.Result, 2)); err != nil && strings.Contains(err.Error(), "set Config.Cluster") {
			seen = true
		}
	}
	if !seen {
		t.Error("nothing is said about Config.Cluster")
	}
}

func addrs(nodes []*server) []string {
	var a []string
	for _, s := range nodes {
		a = append(a, s.Addr)
	}
	return a
}

// split has all that a store has on a cluster, where AdvanceAll is not for any
// registers.
type split struct {
	store.Store
	store.BatchRegisters
	store.Toucher
	store.Scanner
}

// The contract on a cluster of three, with every client: spread over the slots,
// and in one slot by a hash tag.
func TestCluster(t *testing.T) {
	nodes := cluster(t, 3)
	each(t, func(t *testing.T, c client) {
		if c.name == clients[1].name {
			return // it differs from the first in nothing that a cluster has to do with
		}
		t.Run("spread", func(t *testing.T) {
			open := func(t *testing.T) store.Store {
				st := c.store(t, nil, addrs(nodes)...)
				return split{st, st, st, st}
			}
			storetest.Run(t, open)
		})
		t.Run("tag", func(t *testing.T) {
			if c.name != clients[0].name {
				return // which takes half a minute for all of them
			}
			open := func(t *testing.T) store.Store {
				return c.store(t, func(c *redisstore.Config) { c.Prefix = "one{slot}:" }, addrs(nodes)...)
			}
			storetest.Run(t, open)
		})
		t.Run("flush", func(t *testing.T) {
			// One node has forgotten the script, the others have not.
			st := c.store(t, func(c *redisstore.Config) { c.Prefix = "flush:" + t.Name() }, addrs(nodes)...)
			const n = 64
			ops, res := make([]store.Op, n), make([]store.Result, n)
			for i := range ops {
				ops[i] = store.Op{Space: "s", Key: fmt.Sprint(i % 40), Ceil: 100, Step: 1, Min: 1, Max: 1}
			}
			for round := range 6 {
				if err := nodes[round%3].client().ScriptFlush(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				if err := st.AdvanceBatch(t.Context(), ops, res); err != nil {
					t.Fatal(err)
				}
				for i, r := range res {
					times, before := int64(1), int64(0)
					if i%40 < n-40 {
						times = 2
					}
					if i >= 40 {
						before = 1
					}
					if want := int64(round)*times + before + 1; r.Value != want || r.Granted != 1 {
						t.Errorf("round %d, operation %d: %+v, want the value %d", round, i, r, want)
					}
				}
			}
		})
		t.Run("all", func(t *testing.T) {
			st := c.store(t, func(c *redisstore.Config) { c.Prefix = "all:" + t.Name() }, addrs(nodes)...)
			for i := range 20 {
				key := fmt.Sprintf("}{%d%%}", i)
				ops := []store.Op{
					{Space: "a", Key: key, Clock: true, Ceil: int64(time.Hour), Step: 1e9, Min: 1, Max: 1},
					{Space: "b", Key: key, Ceil: 1, Step: 1, Min: 1, Max: 1},
				}
				for round := range 2 {
					ok, err := st.AdvanceAll(t.Context(), ops, make([]store.Result, 2))
					if ok != (round == 0) || err != nil {
						t.Errorf("%v %v", ok, err)
					}
				}
			}
		})
		t.Run("nodes", func(t *testing.T) {
			st := c.store(t, func(c *redisstore.Config) { c.Prefix = "nodes:" + t.Name() }, addrs(nodes)...)
			var want, got []string
			for i := range 100 {
				want = append(want, fmt.Sprintf("k%02d", i))
				if err := st.Put(t.Context(), want[i], nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			for k, err := range st.Scan(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, k)
			}
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, want) {
				t.Errorf("found %q", got)
			}
			if _, err := store.Keep(st); err == nil || !strings.Contains(err.Error(), "set appendonly to yes") {
				t.Errorf("Keep: %v", err)
			}
		})
	})
}
