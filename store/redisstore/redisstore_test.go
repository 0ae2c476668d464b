package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/storetest"
)

func TestStore(t *testing.T) {
	for _, c := range []struct {
		name    string
		bytes   bool
		cluster bool
		config  redisstore.Config
	}{
		{name: "strings", config: redisstore.Config{TrustKeep: true}},
		{name: "bytes", bytes: true},
		{name: "cluster", cluster: true},
		{name: "cluster without a pipeline", cluster: true},
		{name: "cluster with a hash tag", cluster: true, config: redisstore.Config{Prefix: "{p}:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &server{bytes: c.bytes, info: durable, fsync: []any{"appendfsync", "always"}}
			open := func(t *testing.T) store.Store {
				config := c.config
				if config.Cluster = c.cluster; c.cluster {
					config.Nodes = func(context.Context) ([]redisstore.Do, error) { return []redisstore.Do{s.do}, nil }
				}
				if c.name == "cluster" {
					config.Pipeline = s.pipeline
				}
				st := open(t, s, config)
				if config.Cluster && config.Prefix == "" {
					return split{st, st, st, st}
				}
				return st
			}
			storetest.RunWith(t, storetest.Options{
				Open:   open,
				Second: func(t *testing.T, _ store.Store) store.Store { return open(t) },
			})
		})
	}
}

// split has all that a store has on a cluster: AdvanceAll is not for any
// registers there.
type split struct {
	store.Store
	store.BatchRegisters
	store.Toucher
	store.Scanner
}

func TestConfig(t *testing.T) {
	s := &server{}
	for name, c := range map[string]struct {
		config redisstore.Config
		want   []string // parts of the error; none: no error
	}{
		"smallest":        {redisstore.Config{Do: s.do}, nil},
		"no bounds":       {redisstore.Config{Do: s.do, Timeout: -1, MaxCalls: -1}, nil},
		"prefix":          {redisstore.Config{Do: s.do, Prefix: "søk*[1]:"}, nil},
		"no client":       {redisstore.Config{}, []string{"redisstore: Do: required"}},
		"hash tag":        {redisstore.Config{Do: s.do, Prefix: "a{b}c:", Cluster: true}, nil},
		"brace":           {redisstore.Config{Do: s.do, Prefix: "a{b"}, []string{`redisstore: Prefix: `, `(got "a{b")`}},
		"empty tag":       {redisstore.Config{Do: s.do, Prefix: "a{}b"}, []string{`(got "a{}b")`}},
		"two tags":        {redisstore.Config{Do: s.do, Prefix: "{a}{b}"}, []string{`(got "{a}{b}")`}},
		"brace in tag":    {redisstore.Config{Do: s.do, Prefix: "{{a}"}, []string{`(got "{{a}")`}},
		"closing brace":   {redisstore.Config{Do: s.do, Prefix: "}"}, []string{`(got "}")`}},
		"zero byte":       {redisstore.Config{Do: s.do, Prefix: "a\x00"}, []string{`(got "a\x00")`}},
		"no UTF-8":        {redisstore.Config{Do: s.do, Prefix: "a\xff"}, []string{`(got "a\xff")`}},
		"long prefix":     {redisstore.Config{Do: s.do, Prefix: strings.Repeat("p", 65)}, []string{"at most 64 bytes"}},
		"nodes":           {redisstore.Config{Do: s.do, Nodes: func(context.Context) ([]redisstore.Do, error) { return nil, nil }}, []string{"redisstore: Nodes: "}},
		"several at once": {redisstore.Config{Prefix: "{"}, []string{"Do: ", "Prefix: "}},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := redisstore.New(t.Context(), c.config)
			if (err != nil) != (c.want != nil) || (st == nil) != (err != nil) {
				t.Fatalf("%v %v", st, err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

// New finds what would go wrong later.
func TestNewAsks(t *testing.T) {
	for name, reply := range map[string]any{
		"down":       errors.New("dial tcp 127.0.0.1:6379: connection refused"),
		"no scripts": errors.New("NOPERM this user has no permissions to run the 'eval' command"),
		"nothing":    nil,
		"a word":     "OK",
		"wrapped":    []any{[]any{int64(1), int64(2), int64(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{intercept: func([]string) (any, error, bool) {
				err, _ := reply.(error)
				return reply, err, true
			}}
			st, err := redisstore.New(t.Context(), redisstore.Config{Do: s.do})
			if st != nil || err == nil || !strings.HasPrefix(err.Error(), "redisstore: New: ") {
				t.Errorf("%v %v", st, err)
			}
			if want, ok := reply.(error); ok && !errors.Is(err, want) {
				t.Errorf("%v is not %v", err, want)
			}
		})
	}
}

// What is sent, word by word, apart from the script and its arguments.
func TestCommands(t *testing.T) {
	ctx := t.Context()
	s := &server{}
	st := open(t, s, redisstore.Config{Prefix: "p:"})
	const key, odd = "a b{c}\n", "50%{x}"
	reg := "p:r:{" + odd[:2] + "%25{x%7D}sp"
	for _, c := range []struct {
		name string
		do   func() error
		want []string // "*" matches anything
	}{
		{"get", func() error { _, _, err := st.Get(ctx, key); return err }, []string{"MGET", "p:v:" + key}},
		{"put", func() error { return st.Put(ctx, key, []byte("\x00x"), 0) }, []string{"SET", "p:v:" + key, "\x00x"}},
		{"put for a time", func() error { return st.Put(ctx, key, nil, 1500*time.Microsecond) }, []string{"SET", "p:v:" + key, "", "PX", "2"}},
		{"put for a nanosecond", func() error { return st.Put(ctx, key, nil, 1) }, []string{"SET", "p:v:" + key, "", "PX", "1"}},
		{"put for longest", func() error { return st.Put(ctx, key, nil, math.MaxInt64) }, []string{"SET", "p:v:" + key, "", "PX", "9223372036855"}},
		{"delete", func() error { return st.Delete(ctx, key) }, []string{"DEL", "p:v:" + key}},
		{"touch", func() error { _, err := st.Touch(ctx, key, time.Second); return err }, []string{"PEXPIRE", "p:v:" + key, "1000"}},
		{"touch for ever", func() error { _, err := st.Touch(ctx, key, 0); return err }, []string{"EVAL", "*", "1", "p:v:" + key}},
		{"create", func() error { _, err := st.CompareAndSwap(ctx, key, nil, []byte{}, 0); return err }, []string{"EVAL", "*", "1", "p:v:" + key, "", "+", "0"}},
		{"swap", func() error {
			_, err := st.CompareAndSwap(ctx, key, []byte("o"), []byte("+n"), time.Minute)
			return err
		}, []string{"EVALSHA", "*", "1", "p:v:" + key, "+o", "++n", "60000"}},
		{"swap empty", func() error { _, err := st.CompareAndSwap(ctx, key, []byte{}, nil, -1); return err }, []string{"EVALSHA", "*", "1", "p:v:" + key, "+", "", "0"}},
		{"advance", func() error { _, err := st.Advance(ctx, store.Op{Space: "sp", Key: odd}); return err }, []string{"EVALSHA", "*", "1", reg, "*"}},
		{"advance two", func() error {
			return st.AdvanceBatch(ctx, []store.Op{{Space: "sp", Key: odd}, {Space: "sp", Key: "b"}}, make([]store.Result, 2))
		}, []string{"EVALSHA", "*", "2", reg, "p:r:{b}sp", "*", "*"}},
		{"advance all", func() error {
			_, err := st.AdvanceAll(ctx, []store.Op{{Space: "sp", Key: odd}, {Space: "sp2", Key: odd}}, make([]store.Result, 2))
			return err
		}, []string{"EVALSHA", "*", "2", reg, reg + "2", "*", "*", "all"}},
		{"scan", func() error {
			for _, err := range st.Scan(ctx, `a*[b]?\`) {
				return err
			}
			return nil
		}, []string{"SCAN", "0", "MATCH", `p:v:a\*\[b\]\?\\*`, "COUNT", "500"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.commands()
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			got := s.last()
			ok := slices.EqualFunc(got, c.want, func(g, w string) bool { return w == "*" || g == w })
			if !ok {
				t.Errorf("sent %.100q, want %q", got, c.want)
			}
		})
	}
}

func (s *server) last() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log[len(s.log)-1]
}

// No two registers share a key of the server, nor does a register with a value,
// and registers with the same Key share a slot of a cluster.
func TestKeysAreDistinct(t *testing.T) {
	ctx := t.Context()
	s := &server{}
	st := open(t, s, redisstore.Config{})
	parts := []string{"a", "ab", "b", "{", "}", "{}", "}{", "a}", "}a", "a}b", "%", "%7D", "%25", "%257D", "r:{a}", "v:", "a{b}c"}
	seen := map[string][2]string{}
	for _, space := range parts {
		for _, key := range parts {
			s.commands()
			if _, err := st.Advance(ctx, store.Op{Space: space, Key: key}); err != nil {
				t.Fatal(err)
			}
			k := s.last()[3]
			if other, ok := seen[k]; ok {
				t.Errorf("%q and %q have the same key %q", other, [2]string{space, key}, k)
			}
			seen[k] = [2]string{space, key}
		}
	}
	slots := map[string]string{}
	for k, p := range seen {
		if tag, ok := slots[p[1]]; ok && tag != hashTag(k) {
			t.Errorf("registers of Key %q are under the tags %q and %q", p[1], tag, hashTag(k))
		}
		slots[p[1]] = hashTag(k)
	}
	tags := slices.Sorted(maps.Values(slots))
	if n := len(slices.Compact(tags)); n != len(parts) {
		t.Errorf("%d Keys have %d tags", len(parts), n)
	}
	for _, key := range parts {
		if err := st.Put(ctx, key, nil, 0); err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[s.last()[1]]; ok {
			t.Errorf("the value %q and the register %q have the same key", key, other)
		}
	}
}

// hashTag is the part of a key that decides about its slot, as the cluster
// specification has it.
func hashTag(key string) string {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j > 0 {
			return key[i+1 : i+1+j]
		}
	}
	return key
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // the keys
	}{
		{"", ""},
		{"MGET k", "k"}, {"SET k v PX 1", "k"}, {"DEL k", "k"}, {"PEXPIRE k 1", "k"},
		{"EVALSHA h 0", ""}, {"EVALSHA h 1 k a", "k"}, {"EVAL s 2 k l a b", "k l"}, {"EVAL s 2 k l", "k l"},
		{"EVAL s 3 k l", ""}, {"EVAL s -1 k", ""}, {"EVAL s x k", ""}, {"EVAL s", ""}, {"MGET", ""},
		{"SCAN 0 MATCH x", ""}, {"INFO", ""}, {"CONFIG GET x", ""}, {"PING", ""},
	} {
		var args []any
		for _, w := range strings.Fields(c.args) {
			args = append(args, w)
		}
		i, j := redisstore.Keys(args)
		if i < 0 || i > j || j > len(args) {
			t.Errorf("%s: [%d:%d]", c.args, i, j)
			continue
		}
		if got := strings.Trim(fmt.Sprint(args[i:j]), "[]"); got != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
}

// Operations that exceed one script are done in their order all the same.
func TestLargeBatch(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		s := &server{}
		st := open(t, s, redisstore.Config{Cluster: cluster, Pipeline: s.pipeline})
		const n = 1000
		ops := make([]store.Op, n)
		for i := range ops {
			ops[i] = store.Op{Space: "s", Key: fmt.Sprint(i % 3), Ceil: n, Step: 1, Min: 1, Max: 1}
		}
		res := make([]store.Result, n)
		s.commands()
		if err := st.AdvanceBatch(t.Context(), ops, res); err != nil {
			t.Fatal(err)
		}
		for i, r := range res {
			if want := int64(i/3 + 1); r.Value != want {
				t.Fatalf("operation %d leaves %d, want %d", i, r.Value, want)
			}
		}
		want := 8
		if cluster {
			want *= 3
		}
		if got := len(s.commands()); got != want {
			t.Errorf("%d scripts, want %d", got, want)
		}
		if _, err := st.AdvanceAll(t.Context(), ops, res); !errors.Is(err, store.ErrOp) {
			t.Errorf("AdvanceAll of %d operations: %v", n, err)
		}
		if got := len(s.commands()); got != 0 {
			t.Errorf("a refused AdvanceAll sends %d commands", got)
		}
	}
}

// On a cluster AdvanceAll takes the registers of one Key, which are in one slot.
func TestClusterAdvanceAll(t *testing.T) {
	s := &server{}
	st := open(t, s, redisstore.Config{Cluster: true})
	ops := []store.Op{
		{Space: "a", Key: "k", Ceil: 1, Step: 1, Min: 1, Max: 1},
		{Space: "b", Key: "k", Ceil: 1, Step: 1, Min: 1, Max: 1},
	}
	res := make([]store.Result, 2)
	if ok, err := st.AdvanceAll(t.Context(), ops, res); !ok || err != nil {
		t.Fatal(ok, err)
	}
	ops[1].Key = "l"
	if ok, err := st.AdvanceAll(t.Context(), ops, res); ok || !errors.Is(err, store.ErrOp) {
		t.Errorf("two Keys: %v, %v", ok, err)
	}
	st = open(t, s, redisstore.Config{Cluster: true, Prefix: "app{1}:"})
	if ok, err := st.AdvanceAll(t.Context(), ops, res); !ok || err != nil {
		t.Errorf("two Keys in one slot: %v, %v", ok, err)
	}
}

// What cannot be is refused before anything is sent.
func TestRefusedArguments(t *testing.T) {
	ctx := t.Context()
	s := &server{}
	st := open(t, s, redisstore.Config{})
	s.commands()
	huge := make([]byte, 64<<20+1)
	one := []store.Op{{Space: "s", Key: "k"}}
	for name, c := range map[string]struct {
		err  func() error
		want error
	}{
		"a huge value":     {func() error { return st.Put(ctx, "k", huge, 0) }, store.ErrSize},
		"a huge new value": {func() error { _, err := st.CompareAndSwap(ctx, "k", nil, huge, 0); return err }, store.ErrSize},
		"a huge old value": {func() error { _, err := st.CompareAndSwap(ctx, "k", huge, nil, 0); return err }, store.ErrSize},
		"no results":       {func() error { return st.AdvanceBatch(ctx, one, nil) }, store.ErrOp},
		"too many results": {func() error { _, err := st.AdvanceAll(ctx, one, make([]store.Result, 2)); return err }, store.ErrOp},
		"a bad operation": {func() error {
			return st.AdvanceBatch(ctx, []store.Op{{Space: "s", Key: "k", Min: -1}}, make([]store.Result, 1))
		}, store.ErrOp},
	} {
		if err := c.err(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ok, err := st.AdvanceAll(ctx, nil, nil); !ok || err != nil {
		t.Errorf("nothing: %v %v", ok, err)
	}
	if got := s.commands(); got != nil {
		t.Errorf("sent %v", got)
	}
}
