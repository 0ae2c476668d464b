package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// durable is what INFO says of a server that keeps values.
const durable = "# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n\r\n# Persistence\r\naof_enabled:1\r\n\r\n# Replication\r\nrole:master\r\n"

func TestKeep(t *testing.T) {
	always := any([]any{"appendfsync", "always"})
	with := func(old, new string) string { return strings.Replace(durable, old, new, 1) }
	limited := with("maxmemory:0", "maxmemory:1048576")
	for _, c := range []struct {
		name  string
		info  string
		fsync any
		trust bool
		says  []string // parts of the error; none: no error
	}{
		{"durable", durable, always, false, nil},
		{"a map", durable, map[any]any{"appendfsync": "always"}, false, nil},
		{"another map", durable, map[string]any{"appendfsync": "always"}, false, nil},
		{"a map of strings", durable, map[string]string{"appendfsync": "always"}, false, nil},
		{"bytes", durable, []any{[]byte("appendfsync"), []byte("always")}, false, nil},
		{"bounded, no eviction", strings.Replace(limited, "allkeys-lru", "noeviction", 1), always, false, nil},
		{"valkey", with("role:master", "role:primary"), always, false, nil},
		{"evicts anything", limited, always, false, []string{"set maxmemory-policy to noeviction", `"allkeys-lru"`}},
		{"evicts what has a ttl", strings.Replace(limited, "allkeys-lru", "volatile-ttl", 1), always, false, []string{`"volatile-ttl"`}},
		{"no log", with("aof_enabled:1", "aof_enabled:0"), always, false, []string{"set appendonly to yes"}},
		{"loses a second", durable, []any{"appendfsync", "everysec"}, false, []string{"set appendfsync to always", `"everysec"`}},
		{"replica", with("role:master", "role:slave"), always, false, []string{`"slave"`}},
		{"no settings", durable, errors.New("ERR unknown command 'CONFIG'"), false, []string{"appendfsync is always is unknown"}},
		{"empty settings", durable, []any{}, false, []string{"appendfsync"}},
		{"odd settings", durable, []any{"appendfsync"}, false, []string{"appendfsync"}},
		{"no information", "", always, false, []string{"role", "maxmemory-policy", "appendonly"}},
		{"all at once", strings.Replace(limited, "aof_enabled:1", "", 1), nil, false, []string{"maxmemory-policy", "appendonly", "appendfsync", "Config.TrustKeep"}},
		{"trusted", "", nil, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &server{info: c.info, fsync: c.fsync}
			st := open(t, s, redisstore.Config{TrustKeep: c.trust})
			s.commands()
			k, err := store.Keep(st)
			if (err != nil) != (c.says != nil) || (k == nil) != (err != nil) {
				t.Fatalf("%v %v", k, err)
			}
			for _, w := range c.says {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if got := s.commands(); c.trust && got != nil {
				t.Errorf("sent %v", got)
			}
		})
	}
}

// On a cluster every master is asked, and the keys of all are listed.
func TestNodes(t *testing.T) {
	good := &server{info: durable, fsync: []any{"appendfsync", "always"}}
	bad := &server{info: strings.Replace(durable, "aof_enabled:1", "aof_enabled:0", 1), fsync: []any{"appendfsync", "always"}}
	var nodes []redisstore.Do
	var failure error
	st := open(t, good, redisstore.Config{Cluster: true, Nodes: func(context.Context) ([]redisstore.Do, error) { return nodes, failure }})
	other := open(t, bad, redisstore.Config{})
	for i := range 5 {
		st.Put(t.Context(), fmt.Sprint("k", i), nil, 0)
		other.Put(t.Context(), fmt.Sprint("l", i), nil, 0)
	}
	scan := func() (keys []string, err error) {
		for k, e := range st.Scan(t.Context(), "") {
			if e != nil {
				return keys, e
			}
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return keys, nil
	}

	nodes = []redisstore.Do{good.do}
	if _, err := st.Keep(); err != nil {
		t.Error(err)
	}
	nodes = []redisstore.Do{good.do, bad.do}
	if _, err := st.Keep(); err == nil || !strings.Contains(err.Error(), "appendonly") {
		t.Errorf("Keep with a bad node: %v", err)
	}
	if keys, err := scan(); len(keys) != 10 || err != nil {
		t.Errorf("%q %v", keys, err)
	}
	for range st.Scan(t.Context(), "") {
		break
	}

	nodes = nil
	if _, err := st.Keep(); err == nil {
		t.Error("Keep takes no nodes")
	}
	if _, err := scan(); err == nil {
		t.Error("Scan takes no nodes")
	}
	failure = errors.New("no route")
	if _, err := st.Keep(); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
	if _, err := scan(); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
	alone := open(t, good, redisstore.Config{Cluster: true})
	if _, err := alone.Keep(); err == nil || !strings.Contains(err.Error(), "Config.Nodes") {
		t.Errorf("%v", err)
	}
}

// Pages of a scan follow each other, and keys that are not the store's are
// left out.
func TestScanPages(t *testing.T) {
	s := &server{}
	st := open(t, s, redisstore.Config{Prefix: "p:"})
	pages := map[string][]any{
		"0":                    {"17", []any{"p:v:a", "p:v:b"}},
		"17":                   {"18446744073709551615", []any{}},
		"18446744073709551615": {"0", []any{[]byte("p:v:a"), "p:r:{x}y", "other", nil, int64(3), "p:v:c d"}},
	}
	s.intercept = func(w []string) (any, error, bool) { return pages[w[1]], nil, w[0] == "SCAN" }
	var keys []string
	for k, err := range st.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	if want := []string{"a", "b", "a", "c d"}; !slices.Equal(keys, want) {
		t.Errorf("%q, want %q", keys, want)
	}
	for _, bad := range [][]any{nil, {"0"}, {"x", []any{}}, {"-1", []any{}}, {int64(0), []any{}}, {"0", "keys"}, {"0", nil}, {"0", []any{}, nil}} {
		pages["0"] = bad
		n := 0
		for _, err := range st.Scan(t.Context(), "") {
			if n++; err == nil || n > 1 {
				t.Errorf("takes %v", bad)
			}
		}
	}
}
