package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

func newMemory(t testing.TB, c store.MemoryConfig) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// get returns the value under key, "" if it is absent.
func get(t testing.TB, s store.Store, key string) string {
	t.Helper()
	v, ok, err := s.Get(t.Context(), key)
	if err != nil || ok != (v != nil) {
		t.Fatalf("%q, %v, %v", v, ok, err)
	}
	return string(v)
}

func put(t testing.TB, s store.Store, key, value string, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return newMemory(t, store.MemoryConfig{}) })
}

func TestMemoryKeepContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		k, err := store.Keep(newMemory(t, store.MemoryConfig{}))
		if err != nil {
			t.Fatal(err)
		}
		return k
	})
}

func TestMemoryConfig(t *testing.T) {
	for _, c := range []struct {
		config store.MemoryConfig
		want   []string // a line for each problem
	}{
		{store.MemoryConfig{}, nil},
		{store.MemoryConfig{Registers: 64, MaxBytes: 2 << 20}, nil},
		{store.MemoryConfig{MaxBytes: -1}, nil},
		{store.MemoryConfig{Registers: 63}, []string{"store: Registers: must be between 64 and 67108864 (got 63)"}},
		{store.MemoryConfig{Registers: -1}, []string{"store: Registers: must be between 64 and 67108864 (got -1)"}},
		{store.MemoryConfig{Registers: 1<<26 + 1, MaxBytes: 2<<20 - 1}, []string{
			"store: Registers: must be between 64 and 67108864 (got 67108865)",
			"store: MaxBytes: must be at least 2097152, or negative for no bound (got 2097151)",
		}},
	} {
		m, err := store.NewMemory(c.config)
		if (err == nil) != (c.want == nil) || (m == nil) != (err != nil) {
			t.Errorf("%+v: %v, %v", c.config, m, err)
		} else if err != nil && err.Error() != strings.Join(c.want, "\n") {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
	if s := newMemory(t, store.MemoryConfig{}).Stats(); s != (store.MemoryStats{Registers: 65536}) {
		t.Errorf("a new Memory has %+v", s)
	}
	if s := newMemory(t, store.MemoryConfig{Registers: 65}).Stats(); s.Registers != 72 {
		t.Errorf("room for 65 registers is room for %d", s.Registers)
	}
}

// Expiry is exact to the nanosecond, and what has expired is absent to every
// method.
func TestMemoryExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{})
		ctx := t.Context()
		put(t, m, "a", "1", time.Nanosecond)
		put(t, m, "b", "1", time.Hour)
		put(t, m, "for ever", "1", 0)
		put(t, m, "for an age", "1", math.MaxInt64)
		if get(t, m, "a") != "1" || get(t, m, "b") != "1" {
			t.Error("expired early")
		}
		time.Sleep(time.Nanosecond)
		if get(t, m, "a") != "" || get(t, m, "b") != "1" {
			t.Error("not expired in time")
		}
		time.Sleep(time.Hour - 2*time.Nanosecond)
		if get(t, m, "b") != "1" {
			t.Error("expired early")
		}
		time.Sleep(time.Nanosecond)
		for range m.Scan(ctx, "b") {
			t.Error("an expired key was listed")
		}
		if ok, err := m.Touch(ctx, "b", time.Hour); ok || err != nil {
			t.Errorf("touched an expired key: %v", err)
		}
		if ok, err := m.CompareAndSwap(ctx, "b", []byte("1"), []byte("2"), 0); ok || err != nil {
			t.Errorf("swapped an expired value: %v", err)
		}
		if ok, err := m.CompareAndSwap(ctx, "b", nil, []byte("2"), time.Hour); !ok || err != nil {
			t.Errorf("an expired key is in the way: %v", err)
		}
		// Writing starts a new time, and a swap does so too.
		time.Sleep(50 * time.Minute)
		put(t, m, "b", "3", time.Hour)
		time.Sleep(50 * time.Minute)
		if ok, err := m.CompareAndSwap(ctx, "b", []byte("3"), []byte("4"), time.Hour); !ok || err != nil {
			t.Error(ok, err)
		}
		time.Sleep(50 * time.Minute)
		if ok, err := m.Touch(ctx, "b", time.Hour); !ok || err != nil {
			t.Error(ok, err)
		}
		time.Sleep(50 * time.Minute)
		if got := get(t, m, "b"); got != "4" {
			t.Errorf("b is %q", got)
		}
		if ok, err := m.Touch(ctx, "b", 0); !ok || err != nil {
			t.Error(ok, err)
		}
		time.Sleep(100 * 365 * 24 * time.Hour)
		if get(t, m, "b") != "4" || get(t, m, "for ever") != "1" || get(t, m, "for an age") != "1" {
			t.Error("what does not expire did")
		}
	})
}

// What has expired is reclaimed by the writing of other keys: without reading
// any, a store holds about what is live.
func TestMemoryReclaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{})
		for i := range 50_000 {
			put(t, m, fmt.Sprint(i), "value", time.Second)
			time.Sleep(time.Millisecond)
		}
		s := m.Stats()
		if s.Values < 1000 || s.Values > 1500 || s.ValuesEvicted != 0 {
			t.Errorf("with 1000 live values: %+v", s)
		}
		time.Sleep(time.Second)
		for i := range 64 * 100 {
			put(t, m, fmt.Sprint("x", i), "value", time.Hour)
		}
		if s := m.Stats(); s.Values != 6400 {
			t.Errorf("with 6400 live values: %+v", s)
		}
		for i := range 6400 {
			m.Delete(t.Context(), fmt.Sprint("x", i))
		}
		if s := m.Stats(); s.Values != 0 || s.Bytes != 0 {
			t.Errorf("with nothing: %+v", s)
		}
	})
}

// No slice is shared, and absent, nil and empty are told apart.
func TestMemoryCopies(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{})
	ctx := t.Context()
	in := []byte("abc")
	m.Put(ctx, "k", in, 0)
	in[0] = 'X'
	out, _, _ := m.Get(ctx, "k")
	out[1] = 'X'
	_ = append(out[:2], "YYYY"...)
	if got := get(t, m, "k"); got != "abc" {
		t.Errorf("the value became %q", got)
	}
	in = []byte("def")
	if ok, err := m.CompareAndSwap(ctx, "k", []byte("abc"), in, 0); !ok || err != nil {
		t.Fatal(ok, err)
	}
	in[0] = 'X'
	if got := get(t, m, "k"); got != "def" {
		t.Errorf("the value became %q", got)
	}
	for _, empty := range [][]byte{nil, {}} {
		m.Put(ctx, "empty", empty, 0)
		if v, ok, err := m.Get(ctx, "empty"); v == nil || len(v) != 0 || !ok || err != nil {
			t.Errorf("%v %v %v", v, ok, err)
		}
	}
	for _, c := range []struct {
		key      string
		old, new []byte
		want     bool
	}{
		{"empty", nil, []byte("x"), false},
		{"empty", []byte("x"), []byte("y"), false},
		{"empty", []byte{}, []byte{}, true},
		{"empty", nil, nil, false},
		{"empty", []byte{}, nil, true},
		{"empty", []byte{}, nil, false},
		{"empty", nil, nil, true},
		{"empty", nil, []byte{}, true},
		{"empty", []byte{}, []byte("x"), true},
	} {
		if ok, err := m.CompareAndSwap(ctx, c.key, c.old, c.new, 0); ok != c.want || err != nil {
			t.Errorf("%q to %q: %v, %v", c.old, c.new, ok, err)
		}
	}
	// The ttl of a deletion has no meaning.
	if ok, err := m.CompareAndSwap(ctx, "empty", []byte("x"), nil, -1); !ok || err != nil {
		t.Error(ok, err)
	}
}

// A call with a wrong argument, an ended context or after Close fails, says
// why, and does nothing.
func TestMemoryErrors(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	open, closed := newMemory(t, store.MemoryConfig{}), newMemory(t, store.MemoryConfig{})
	kept, err := store.Keep(closed)
	if err != nil {
		t.Fatal(err)
	}
	put(t, open, "k", "v", 0)
	put(t, closed, "k", "v", 0)
	for range 2 {
		if err := closed.Close(); err != nil {
			t.Error(err)
		}
	}
	if s := closed.Stats(); s != (store.MemoryStats{}) {
		t.Errorf("a closed Memory has %+v", s)
	}
	if _, err := store.Keep(closed); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Keep: %v", err)
	}
	long := strings.Repeat("secret", 2000)
	for _, c := range []struct {
		name string
		m    *store.Memory
		ctx  context.Context
		key  string
		ttl  time.Duration
		want error
	}{
		{"cancelled", open, gone, "k", 0, context.Canceled},
		{"no key", open, t.Context(), "", 0, store.ErrKey},
		{"long key", open, t.Context(), long, 0, store.ErrKey},
		{"zero byte", open, t.Context(), "secret\x00", 0, store.ErrKey},
		{"no UTF-8", open, t.Context(), "secret\xff", 0, store.ErrKey},
		{"ttl", open, t.Context(), "k", -1, store.ErrTTL},
		{"closed", closed, t.Context(), "k", 0, store.ErrClosed},
	} {
		calls := map[string]func() error{
			"Put":            func() error { return c.m.Put(c.ctx, c.key, []byte("w"), c.ttl) },
			"CompareAndSwap": func() error { _, err := c.m.CompareAndSwap(c.ctx, c.key, []byte("v"), []byte("w"), c.ttl); return err },
			"Touch":          func() error { _, err := c.m.Touch(c.ctx, c.key, c.ttl); return err },
		}
		if c.want != store.ErrTTL {
			maps.Copy(calls, map[string]func() error{
				"Get":    func() error { _, _, err := c.m.Get(c.ctx, c.key); return err },
				"Delete": func() error { return c.m.Delete(c.ctx, c.key) },
				"remove": func() error { _, err := c.m.CompareAndSwap(c.ctx, c.key, []byte("v"), nil, 0); return err },
				"Advance": func() error {
					_, err := c.m.Advance(c.ctx, store.Op{Space: "s", Key: c.key})
					return err
				},
				"Advance space": func() error {
					_, err := c.m.Advance(c.ctx, store.Op{Space: c.key, Key: "k"})
					return err
				},
				"AdvanceBatch": func() error {
					return c.m.AdvanceBatch(c.ctx, []store.Op{{Space: "s", Key: c.key}}, make([]store.Result, 1))
				},
				"AdvanceAll": func() error {
					_, err := c.m.AdvanceAll(c.ctx, []store.Op{{Space: "s", Key: c.key}}, make([]store.Result, 1))
					return err
				},
			})
		}
		if c.want != store.ErrTTL && c.want != store.ErrKey {
			calls["Scan"] = func() (last error) {
				for _, err := range c.m.Scan(c.ctx, "") {
					last = err
				}
				return last
			}
		}
		for name, call := range calls {
			err := call()
			if !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v", c.name, name, err)
			} else if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s, %s: the error tells the key: %v", c.name, name, err)
			}
		}
	}
	if err := kept.Put(t.Context(), "k", nil, 0); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a view of a closed store: %v", err)
	}
	if got := get(t, open, "k"); got != "v" {
		t.Errorf("a call that failed left %q", got)
	}
}

// Scan lists what begins with the prefix, lets its loop write, and ends with an
// error when it is cut short.
func TestMemoryScan(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{})
	var want []string
	for i := range 1000 {
		key := fmt.Sprintf("user/%03d", i)
		put(t, m, key, "x", 0)
		want = append(want, key)
	}
	put(t, m, "use", "x", 0)
	put(t, m, "User/1", "x", 0)
	var got []string
	for key, err := range m.Scan(t.Context(), "user/") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, key)
		m.Delete(t.Context(), key)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%d keys: %q", len(got), got)
	}
	got = nil
	for key := range m.Scan(t.Context(), "") {
		got = append(got, key)
	}
	if slices.Sort(got); !slices.Equal(got, []string{"User/1", "use"}) {
		t.Errorf("left: %q", got)
	}
	for range m.Scan(t.Context(), "") {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var last error
	for _, last = range m.Scan(ctx, "") {
		n++
		cancel()
	}
	if n != 2 || !errors.Is(last, context.Canceled) {
		t.Errorf("cancelled: %d steps, %v", n, last)
	}
	last = nil
	for _, err := range m.Scan(t.Context(), "u") {
		if last = err; err == nil {
			m.Close()
		}
	}
	// The key may have been in the last shard.
	if last != nil && !errors.Is(last, store.ErrClosed) {
		t.Errorf("closed: %v", last)
	}
}

// One of 64 wins a claim, and none of 64 × 100 increments is lost.
func TestMemorySwapRace(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{})
	ctx := t.Context()
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if ok, err := m.CompareAndSwap(ctx, "claim", nil, []byte{byte(i)}, 0); ok && err == nil {
				won.Add(1)
			}
			for range 100 {
				for {
					old, _, _ := m.Get(ctx, "n")
					next := append(bytes.Clone(old), 'x')
					if ok, _ := m.CompareAndSwap(ctx, "n", old, next, 0); ok {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(get(t, m, "n")); won.Load() != 1 || n != 6400 {
		t.Errorf("%d won, %d increments", won.Load(), n)
	}
}
