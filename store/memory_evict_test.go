package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
)

const (
	mib      = 1 << 20
	overhead = 160 // as documented in MemoryConfig
)

// count returns how many of the keys prefix0, prefix1 … there are.
func count(t *testing.T, m store.Store, prefix string) (n int) {
	t.Helper()
	s, _ := store.As[store.Scanner](m)
	for _, err := range s.Scan(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// The cap holds whatever is written, in the sense that it is documented in.
func TestMemoryCap(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{MaxBytes: 4 * mib})
	rnd := rand.New(rand.NewPCG(1, 1))
	live := map[string]int{}
	for i := range 20_000 {
		key, size := fmt.Sprint("key", rnd.IntN(3000)), rnd.IntN(4000)
		put(t, m, key, strings.Repeat("x", size), 0)
		live[key] = size
		if i%16 != 0 {
			continue
		}
		if s := m.Stats(); s.Bytes > 4*mib {
			t.Fatalf("after %d writes: %+v", i, s)
		}
	}
	// What was rewritten smaller since may have left any room. Once a new value
	// has to evict another, there is less left than that took.
	evicted := m.Stats().ValuesEvicted
	for i := 0; i < 2000 && m.Stats().ValuesEvicted == evicted; i++ {
		key := fmt.Sprint("new", i)
		put(t, m, key, strings.Repeat("x", 4000), 0)
		live[key] = 4000
	}
	s := m.Stats()
	var bytes int64
	n := 0
	for key, size := range live {
		v, ok, err := m.Get(t.Context(), key)
		if err != nil || ok && len(v) != size {
			t.Fatalf("%s has %d bytes, want %d: %v", key, len(v), size, err)
		}
		if ok {
			bytes += int64(overhead + len(key) + size)
			n++
		}
	}
	if bytes != s.Bytes || n != s.Values || s.Bytes < 4*mib-8000 || s.ValuesEvicted == evicted {
		t.Errorf("%d values of %d bytes: %+v", n, bytes, s)
	}
}

// Without a cap everything stays, be it rewritten larger or smaller.
func TestMemoryNoCap(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{MaxBytes: -1})
	for _, size := range []int{1000, 100, 0, 2000} {
		for i := range 1000 {
			put(t, m, fmt.Sprint(i), strings.Repeat("x", size), 0)
		}
		if s := m.Stats(); s.Values != 1000 || s.ValuesEvicted != 0 || s.Bytes != int64(1000*(overhead+size)+2890) {
			t.Errorf("with values of %d bytes: %+v", size, s)
		}
	}
}

// What the bookkeeping of small values takes is about what is counted for it.
func TestMemoryOverhead(t *testing.T) {
	const n = 60_000
	m := newMemory(t, store.MemoryConfig{MaxBytes: -1})
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("plainware/session/1/app/%032d", i)
	}
	value := make([]byte, 120)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, key := range keys {
		if err := m.Put(t.Context(), key, value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used, counted := int64(after.HeapAlloc-before.HeapAlloc), m.Stats().Bytes
	t.Logf("%d bytes a value, %d counted", used/n, counted/n)
	if used > counted*11/10 {
		t.Errorf("%d bytes used, %d counted", used, counted)
	}
	runtime.KeepAlive(keys)
}

// Over the cap what has expired goes first, then what expires first, then what
// never does.
func TestMemoryEvictionOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{MaxBytes: 4 * mib})
		value := strings.Repeat("x", 1000)
		fill := func(prefix string, n int, ttl time.Duration) {
			for i := range n {
				put(t, m, fmt.Sprint(prefix, i), value, ttl)
			}
		}
		fill("ever", 1000, 0)
		fill("soon", 1000, time.Minute)
		fill("late", 1000, time.Hour)
		if s := m.Stats(); s.Values != 3000 || s.ValuesEvicted != 0 {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Minute)
		fill("hour", 1400, time.Hour)
		// A shard that few of these were for may have some left that expired.
		for i := range 1000 {
			if get(t, m, fmt.Sprint("soon", i)) != "" {
				t.Errorf("soon%d has not expired", i)
			}
		}
		if s := m.Stats(); s.Values != 3400 || s.ValuesEvicted != 0 {
			t.Errorf("what expired was not reclaimed first: %+v", s)
		}
		fill("more", 1400, 2*time.Hour)
		if n := count(t, m, "late"); n > 200 {
			t.Errorf("%d that expire first are left", n)
		}
		if n := count(t, m, "ever"); n != 1000 {
			t.Errorf("%d that never expire are left", n)
		}
		fill("last", 10_000, 0)
		if n := count(t, m, "ever"); n > 50 {
			t.Errorf("%d of the eldest are left", n)
		}
	})
}

// A flood of values that nobody uses evicts itself, and not what is in use.
func TestMemoryFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{MaxBytes: 4 * mib})
		value := strings.Repeat("x", 1000)
		// So few that in none of the 64 shards they leave less than an eighth to others.
		const users = 1500
		for i := range users {
			key := fmt.Sprint("user", i)
			put(t, m, key, value, time.Hour)
			switch i % 3 {
			case 0:
				get(t, m, key)
			case 1:
				m.Touch(t.Context(), key, time.Hour)
			case 2:
				m.CompareAndSwap(t.Context(), key, []byte(value), []byte(value), time.Hour)
			}
		}
		time.Sleep(time.Minute)
		for i := range 40_000 {
			put(t, m, fmt.Sprint("flood", i), value, time.Hour)
		}
		if n := count(t, m, "user"); n != users {
			t.Errorf("%d of %d survived", n, users)
		}

		// Even where those in use fill everything, a new one lasts a while.
		for i := range 8000 {
			key := fmt.Sprint("more", i)
			put(t, m, key, value, time.Hour)
			get(t, m, key)
		}
		lasted := 0
		for i := range 1000 {
			put(t, m, fmt.Sprint("new", i), value, time.Hour)
			if i >= 100 && get(t, m, fmt.Sprint("new", i-100)) != "" {
				lasted++
			}
		}
		if lasted < 800 {
			t.Errorf("%d of 900 lasted for 100 others", lasted)
		}
	})
}

// A value that is rewritten in a full store takes its own room, and large values
// find theirs in any shard.
func TestMemoryRewrite(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{MaxBytes: 4 * mib})
	k, err := m.Keep()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		put(t, k, fmt.Sprint(i), strings.Repeat("x", mib-1000), 0)
	}
	for range 10 {
		for i := range 4 {
			put(t, k, fmt.Sprint(i), strings.Repeat("y", mib-1000), 0)
		}
	}
	if s := m.Stats(); s.Values != 4 || s.ValuesEvicted != 0 {
		t.Errorf("%+v", s)
	}
	m = newMemory(t, store.MemoryConfig{MaxBytes: 4 * mib})
	for i := range 100 {
		put(t, m, fmt.Sprint(i), strings.Repeat("x", mib), time.Hour)
		if get(t, m, fmt.Sprint(i)) == "" {
			t.Fatalf("%d is not there", i)
		}
	}
	if s := m.Stats(); s.Values != 3 || s.ValuesEvicted != 97 {
		t.Errorf("%+v", s)
	}
	if err := m.Put(t.Context(), "k", make([]byte, 4*mib), 0); !errors.Is(err, store.ErrSize) {
		t.Errorf("more than everything: %v", err)
	}
	put(t, m, "k", strings.Repeat("x", 4*mib-overhead-1), 0)
	if s := m.Stats(); s.Values != 1 || s.Bytes != 4*mib {
		t.Errorf("with all the room taken: %+v", s)
	}
}

// What is written or touched through the view is never evicted before its
// time. When it leaves no room, writing fails and changes nothing.
func TestMemoryKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, store.MemoryConfig{MaxBytes: 4 * mib})
		k, err := store.Keep(m)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		value := strings.Repeat("x", 1000)
		put(t, k, "put", value, time.Minute)
		put(t, m, "touched", value, time.Hour)
		touch, _ := store.As[store.Toucher](k)
		if ok, err := touch.Touch(ctx, "touched", time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := k.CompareAndSwap(ctx, "swapped", nil, []byte(value), time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
		m.Touch(ctx, "put", time.Minute)
		if again, err := store.Keep(k); err != nil || again != k {
			t.Errorf("a view of the view: %v, %v", again, err)
		}
		if _, ok := store.As[store.Registers](k); ok {
			t.Error("the view has registers, which it cannot keep")
		}
		for i := range 20_000 {
			key := fmt.Sprint("flood", i)
			put(t, m, key, value, time.Hour)
			get(t, m, key)
		}
		for _, key := range []string{"put", "touched", "swapped"} {
			if get(t, m, key) == "" || get(t, k, key) == "" {
				t.Errorf("%s was evicted", key)
			}
		}
		n := 0
		for ; n < 10_000; n++ {
			if err := k.Put(ctx, fmt.Sprint("kept", n), []byte(value), time.Hour); err != nil {
				if !errors.Is(err, store.ErrFull) || strings.Contains(err.Error(), "kept") {
					t.Error(err)
				}
				break
			}
		}
		s := m.Stats()
		if s.Values != n+3 || s.Bytes > 4*mib || s.Bytes < 4*mib-1200 || count(t, k, "kept") != n {
			t.Errorf("full with %d: %+v", n, s)
		}
		if err := m.Put(ctx, "ordinary", []byte(value), 0); !errors.Is(err, store.ErrFull) {
			t.Errorf("no room for an ordinary value: %v", err)
		}
		if ok, err := k.CompareAndSwap(ctx, "claim", nil, []byte(value), time.Hour); ok || !errors.Is(err, store.ErrFull) {
			t.Errorf("no room for a claim: %v, %v", ok, err)
		}
		if ok, err := k.CompareAndSwap(ctx, "kept0", []byte(value), []byte(value+value+value), time.Hour); ok || !errors.Is(err, store.ErrFull) {
			t.Errorf("no room to grow: %v, %v", ok, err)
		}
		if get(t, k, "kept0") != value {
			t.Error("a write that failed changed the value")
		}
		if ok, err := k.CompareAndSwap(ctx, "kept0", []byte(value), []byte(value[:999]+"y"), time.Hour); !ok || err != nil {
			t.Errorf("no room for the same size: %v, %v", ok, err)
		}
		// The ones that expire make room, and so does one that is written
		// through the store itself.
		time.Sleep(time.Minute)
		put(t, m, "ordinary", value, 0)
		put(t, k, "one", value, time.Hour)
		put(t, k, "two", value, time.Hour)
		if s := m.Stats(); get(t, m, "put") != "" || s.Values != n+3 {
			t.Errorf("expired, and did not make room: %+v", s)
		}
		put(t, m, "kept1", value, time.Hour)
		put(t, k, "three", value, time.Hour)
		put(t, k, "four", value, time.Hour)
		if get(t, m, "kept1") != "" || get(t, m, "ordinary") != "" {
			t.Error("ordinary values did not make room")
		}
	})
}

// The cap holds and nothing that is kept is lost when many write at once.
func TestMemoryConcurrent(t *testing.T) {
	m := newMemory(t, store.MemoryConfig{MaxBytes: 2 * mib})
	k, err := m.Keep()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 7))
			for i := range 3000 {
				key := fmt.Sprint(rnd.IntN(2000))
				value := make([]byte, rnd.IntN(3000))
				var err error
				switch rnd.IntN(8) {
				case 0:
					_, _, err = m.Get(ctx, key)
				case 1:
					_, err = m.Touch(ctx, key, time.Minute)
				case 2:
					err = m.Delete(ctx, key)
				case 3:
					_, err = m.CompareAndSwap(ctx, key, nil, value, time.Minute)
				default:
					err = m.Put(ctx, key, value, time.Duration(rnd.Int64N(int64(time.Minute))))
				}
				if i%100 == 0 && err == nil {
					err = k.Put(ctx, fmt.Sprint("kept", w, "/", i), make([]byte, 1000), time.Hour)
				}
				if i%16 == 0 && err == nil && m.Stats().Bytes > 2*mib {
					err = errors.New("over the cap")
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, m, "kept"); n != 8*30 {
		t.Errorf("%d of 240 were kept", n)
	}
	// All at once for the last of the room: some get it, and it is not overdrawn.
	var full, done int
	var mu sync.Mutex
	for w := range 64 {
		wg.Go(func() {
			err := k.Put(context.Background(), fmt.Sprint("last", w), make([]byte, 100_000), 0)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done++
			case errors.Is(err, store.ErrFull):
				full++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := m.Stats(); done != count(t, m, "last") || done < 16 || full != 64-done || s.Bytes > 2*mib {
		t.Errorf("%d of 64 fitted: %+v", done, s)
	}
}
