package redisstore_test

import (
	"context"
	"crypto/fips140"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// server is a Redis server as far as the store needs one. It runs no Lua: it
// knows a script by its first line. The scripts themselves are tested on a real
// server, in the module of the interoperability tests.
type server struct {
	bytes bool // strings arrive as []byte, as some clients have it
	info  string
	fsync any // the reply to CONFIG GET appendfsync

	// intercept may answer in place of the server.
	intercept func(args []string) (reply any, err error, done bool)

	mu      sync.Mutex
	now     time.Time // of the command: to the server all of it is one instant
	keys    map[string]entry
	scripts map[string]string // hash → first line
	log     [][]string
}

type entry struct {
	value   string
	expires time.Time // zero: never
}

// do is the client.
func (s *server) do(_ context.Context, args ...any) (any, error) {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a.(string)
	}
	s.mu.Lock()
	s.log = append(s.log, words)
	f := s.intercept
	s.mu.Unlock()
	if f != nil {
		if reply, err, done := f(words); done {
			return reply, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply, err := s.run(words)
	if s.bytes {
		reply = toBytes(reply)
	}
	return reply, err
}

func (s *server) pipeline(ctx context.Context, cmds [][]any) ([]any, error) {
	replies := make([]any, len(cmds))
	for i, c := range cmds {
		var err error
		if replies[i], err = s.do(ctx, c...); err != nil {
			replies[i] = err
		}
	}
	return replies, nil
}

func toBytes(v any) any {
	switch v := v.(type) {
	case string:
		return []byte(v)
	case []any:
		for i := range v {
			v[i] = toBytes(v[i])
		}
	}
	return v
}

// commands returns the names of what was sent since the last call.
func (s *server) commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, words := range s.log {
		names = append(names, words[0])
	}
	s.log = nil
	return names
}

func (s *server) flushScripts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = nil
}

func (s *server) get(key string) (entry, bool) {
	e, ok := s.keys[key]
	if ok && !e.expires.IsZero() && !s.now.Before(e.expires) {
		delete(s.keys, key)
		return entry{}, false
	}
	return e, ok
}

func (s *server) set(key, value string, ms int64) {
	if s.keys == nil {
		s.keys = map[string]entry{}
	}
	e := entry{value: value}
	if ms > 0 {
		e.expires = time.UnixMilli(s.now.UnixMilli() + 1 + ms)
	}
	s.keys[key] = e
}

func (s *server) run(words []string) (any, error) {
	s.now = time.Now()
	switch words[0] {
	case "MGET":
		if e, ok := s.get(words[1]); ok {
			return []any{e.value}, nil
		}
		return []any{nil}, nil
	case "SET":
		var ms int64
		if len(words) > 3 {
			ms = number(words[4])
		}
		s.set(words[1], words[2], ms)
		return "OK", nil
	case "DEL":
		_, ok := s.get(words[1])
		delete(s.keys, words[1])
		return truth(ok), nil
	case "PEXPIRE":
		e, ok := s.get(words[1])
		if ok {
			s.set(words[1], e.value, number(words[2]))
		}
		return truth(ok), nil
	case "SCAN":
		var found []any
		for k := range s.keys {
			if _, ok := s.get(k); !ok {
				continue
			}
			if strings.HasPrefix(k, literal(words[3])) {
				found = append(found, k)
			}
		}
		return []any{"0", found}, nil
	case "INFO":
		return s.info, nil
	case "CONFIG":
		if err, ok := s.fsync.(error); ok {
			return nil, err
		}
		return s.fsync, nil
	case "EVAL":
		var sum [sha1.Size]byte
		fips140.WithoutEnforcement(func() { sum = sha1.Sum([]byte(words[1])) })
		if s.scripts == nil {
			s.scripts = map[string]string{}
		}
		s.scripts[hex.EncodeToString(sum[:])], _, _ = strings.Cut(words[1], "\n")
		words[1] = hex.EncodeToString(sum[:])
		return s.script(words)
	case "EVALSHA":
		return s.script(words)
	}
	return nil, fmt.Errorf("ERR unknown command '%s', with args beginning with: '%s'", words[0], strings.Join(words[1:], "' '"))
}

func (s *server) script(words []string) (any, error) {
	name, ok := s.scripts[words[1]]
	if !ok {
		return nil, errors.New("NOSCRIPT No matching script. Please use EVAL.")
	}
	n := int(number(words[2]))
	keys, args := words[3:3+n], words[3+n:]
	switch name {
	case "-- plainware swap":
		e, ok := s.get(keys[0])
		if ok && args[0] != "+"+e.value || !ok && args[0] != "" {
			return int64(0), nil
		}
		if args[1] == "" {
			delete(s.keys, keys[0])
		} else {
			s.set(keys[0], args[1][1:], number(args[2]))
		}
		return int64(1), nil
	case "-- plainware persist":
		e, ok := s.get(keys[0])
		if ok {
			s.set(keys[0], e.value, 0)
		}
		return truth(ok), nil
	case "-- plainware advance":
		return s.advance(keys, args), nil
	}
	return nil, errors.New("ERR a script that the test does not know")
}

// advance does what the script does by means of [store.Op.Apply].
func (s *server) advance(keys, args []string) any {
	t, now := s.now, s.now.UnixNano()
	all := len(args) > len(keys)
	ops := make([]store.Op, len(keys))
	ttls := make([]int64, len(keys))
	found := make([]store.Result, len(keys))
	applied := true
	out := []any{now / 1e9, now % 1e9, int64(1)}
	find := func(i int) {
		var f [7]float64
		for j := range f {
			f[j] = math.Float64frombits(binary.BigEndian.Uint64([]byte(args[i][8*j:])))
		}
		op := store.Op{Floor: int64(f[0]), Ceil: int64(f[1]), Step: int64(f[3]), Min: int64(f[4]), Max: int64(f[5])}
		if f[6] < 0 {
			op.Clock = true
			op.Over = int64(f[2]) - op.Ceil - int64(store.HealSlack)
		}
		ops[i], ttls[i] = op, int64(f[6])
		e, live := s.get(keys[i])
		var stored int64
		if live {
			stored = number(e.value)
		}
		found[i], _ = op.Apply(now, stored, live, true)
		if op.Min > 0 && found[i].Granted == 0 {
			applied = false
		}
	}
	finish := func(i int, grant bool) {
		op := ops[i]
		e, live := s.get(keys[i])
		var stored int64
		if live {
			stored = number(e.value)
		}
		granted := found[i].Granted
		if !grant {
			op.Min, op.Max = 0, 0
		}
		r, write := op.Apply(now, stored, live, true)
		if write {
			s.set(keys[i], fmt.Sprint(r.Value), 0)
			if n := s.keys[keys[i]]; op.Clock {
				// As the server does, not before the millisecond has passed.
				n.expires = t.Add(time.Duration(r.Expires)).Truncate(time.Millisecond).Add(2 * time.Millisecond)
				s.keys[keys[i]] = n
			} else if live {
				n.expires = e.expires
				s.keys[keys[i]] = n
			} else if ttls[i] > 0 {
				n.expires = time.UnixMilli(t.UnixMilli() + 1 + ttls[i])
				s.keys[keys[i]] = n
			}
		}
		if op.Clock {
			out = append(out, granted, r.Value-now)
			return
		}
		var left int64
		if e, ok := s.get(keys[i]); ok && !e.expires.IsZero() {
			left = max(1, e.expires.UnixMilli()-t.UnixMilli())
		}
		out = append(out, granted, r.Value, left)
	}
	if !all {
		for i := range keys {
			find(i)
			finish(i, true)
		}
		return out
	}
	for i := range keys {
		find(i)
	}
	if !applied {
		out[2] = int64(0)
	}
	for i := range keys {
		finish(i, applied)
	}
	return out
}

// literal returns what a pattern of text and one star at its end begins with.
func literal(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern)-1; i++ {
		switch c := pattern[i]; c {
		case '\\':
			i++
		case '*', '?', '[':
			panic("a pattern that is none of the store's")
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func open(t testing.TB, s *server, c redisstore.Config) *redisstore.Store {
	t.Helper()
	if c.Do == nil {
		c.Do = s.do
	}
	st, err := redisstore.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return st
}
