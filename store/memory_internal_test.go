package store

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// The collector has nothing to follow in the table, and its parts fill cache
// lines.
func TestTableLayout(t *testing.T) {
	if typ := reflect.TypeFor[bucket](); hasPointers(typ) || typ.Size() != 3*64 {
		t.Errorf("a bucket has %d bytes, pointers: %v", typ.Size(), hasPointers(typ))
	}
	if n := unsafe.Sizeof(stripe{}); n%64 != 0 {
		t.Errorf("a stripe has %d bytes", n)
	}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return hasPointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	}
	return t.Kind() > reflect.Complex128
}

// neighbours returns n keys whose registers share a bucket.
func neighbours(t *table, n int) (keys []string) {
	var home *bucket
	for i := 0; len(keys) < n; i++ {
		op := Op{Space: "s", Key: fmt.Sprint(i)}
		b, _ := t.place(t.tag(&op))
		if home == nil {
			home = b
		}
		if b == home {
			keys = append(keys, op.Key)
		}
	}
	return keys
}

// A full bucket gives up the register that expires first, and what expired
// before any that has not. A flood takes one place and keeps to it. Counts
// without a TTL go last.
func TestTableEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(MemoryConfig{Registers: 1024})
		if err != nil {
			t.Fatal(err)
		}
		keys := neighbours(m.table.Load(), 40)
		do := func(op Op) int64 {
			t.Helper()
			r, err := m.Advance(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			return r.Value - r.Now
		}
		debt := func(key string, d time.Duration) Op {
			return Op{Space: "s", Key: key, Clock: true, Ceil: int64(time.Hour), Step: int64(d), Max: 1}
		}
		count := func(key string, n int64, ttl time.Duration) Op {
			return Op{Space: "s", Key: key, Ceil: 10, Step: 1, Max: n, TTL: ttl}
		}
		evicted := func(want uint64) {
			t.Helper()
			if n := m.Stats().RegistersEvicted; n != want {
				t.Errorf("%d evicted, want %d", n, want)
			}
		}
		for i, minutes := range []int{5, 3, 8, 1, 9, 7} {
			do(debt(keys[i], time.Duration(minutes)*time.Minute))
		}
		do(count(keys[6], 1, 0))
		do(count(keys[7], 1, 20*time.Minute))
		evicted(0)

		time.Sleep(time.Minute)
		do(debt(keys[8], 6*time.Minute)) // takes the place of keys[3], which expired
		evicted(0)
		for i := 10; i < 30; i++ {
			do(debt(keys[i], time.Second)) // the first evicts keys[1], the others each other
		}
		evicted(20)
		for i, minutes := range []int{4, 0, 7, 0, 8, 6} {
			if d := do(debt(keys[i], 0)); d != int64(time.Duration(minutes)*time.Minute) && minutes > 0 {
				t.Errorf("register %d is %v, want %d minutes", i, time.Duration(d), minutes)
			}
		}
		// A read, and giving back to nothing, take no place.
		do(debt(keys[1], 0))
		do(debt(keys[1], -time.Minute))
		evicted(20)

		// What lasts longer wins all places but that of the count for ever.
		for i := 30; i < 38; i++ {
			do(debt(keys[i], 50*time.Minute))
		}
		r, err := m.Advance(t.Context(), count(keys[6], 0, 0))
		if err != nil || r.Value != 1 {
			t.Errorf("the count for ever is %+v, %v", r, err)
		}
		if r, err = m.Advance(t.Context(), count(keys[7], 0, 0)); err != nil || r.Value != 0 {
			t.Errorf("the count of 20 minutes is %+v, %v", r, err)
		}
		evicted(20 + 8)
	})
}

// Time stands still for an operation that read it before another did, and
// overtook it, and so does not go back for a register.
func TestTableTime(t *testing.T) {
	c := newClock()
	var s stripe
	first := s.lock(&c)
	s.mu.Unlock()
	ahead := first + int64(time.Hour)
	s.last = ahead
	if now := s.lock(&c); now != ahead {
		t.Errorf("time went back by %v", time.Duration(ahead-now))
	}
	s.mu.Unlock()
}

// However much room a write needs, what has expired gives it first, whatever its
// class.
func TestExpiredGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(MemoryConfig{MaxBytes: minMaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string // all in one shard
		for i := 0; len(keys) < 20; i++ {
			if key := fmt.Sprint(i); maphash.String(m.values.seed, key)%uint64(len(m.values.shards)) == 0 {
				keys = append(keys, key)
			}
		}
		keep, _ := m.Keep()
		for i, key := range keys[:19] {
			s, ttl := Store(m), time.Minute
			if i < 6 {
				s = keep
			} else if i >= 12 {
				ttl = time.Hour
			}
			if err := s.Put(t.Context(), key, make([]byte, 100_000), ttl); err != nil {
				t.Fatal(err)
			}
			if i < 12 {
				m.Get(t.Context(), key)
			}
		}
		time.Sleep(time.Minute)
		if err := m.Put(t.Context(), keys[19], make([]byte, 1_300_000), time.Hour); err != nil {
			t.Fatal(err)
		}
		if s := m.Stats(); s.ValuesEvicted != 0 || s.Values != 8 {
			t.Errorf("%+v", s)
		}
	})
}

// A key does not keep alive what it is a part of.
func TestKeysAreCopied(t *testing.T) {
	m, err := NewMemory(MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("x", 1<<20)[:10]
	if err := m.Put(t.Context(), key, nil, 0); err != nil {
		t.Fatal(err)
	}
	for got := range m.Scan(t.Context(), "") {
		if got != key || unsafe.StringData(got) == unsafe.StringData(key) {
			t.Errorf("%q is the caller's", got)
		}
	}
}

// check fails if the bookkeeping of v does not add up.
func (v *values) check(t *testing.T) {
	t.Helper()
	var total int64
	for i := range v.shards {
		s := &v.shards[i]
		n := 0
		for class := range s.queues {
			q := &s.queues[class]
			var bytes int64
			for j, e := range q.entries {
				bytes += e.size()
				if s.m[e.key] != e || int(e.class) != class || int(e.index) != j {
					t.Fatalf("entry %d of queue %d is out of place: %+v", j, class, e)
				}
				if j > 0 && e.before(q.entries[(j-1)/2]) {
					t.Fatalf("entry %d of queue %d comes before its parent", j, class)
				}
			}
			if bytes != q.bytes {
				t.Fatalf("queue %d has %d bytes, counted %d", class, bytes, q.bytes)
			}
			total += bytes
			n += len(q.entries)
		}
		if n != len(s.m) {
			t.Fatalf("%d in queues, %d in the map", n, len(s.m))
		}
	}
	if got := v.total.Load(); got != total || got > v.max {
		t.Fatalf("%d bytes, counted %d, at most %d", total, got, v.max)
	}
}

// FuzzMemoryValues compares a Memory with a map, over any sequence of calls.
// Nothing is evicted here: see the tests of the cap for that.
func FuzzMemoryValues(f *testing.F) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		steps := make([]byte, 600)
		for i := range steps {
			steps[i] = byte(rnd.Uint32())
		}
		f.Add(steps)
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		synctest.Test(t, func(t *testing.T) { compareValues(t, steps) })
	})
}

func compareValues(t *testing.T, steps []byte) {
	m, err := NewMemory(MemoryConfig{Registers: 64})
	if err != nil {
		t.Fatal(err)
	}
	keep, _ := m.Keep()
	type value struct {
		bytes   string
		expires time.Time // zero is never
	}
	model := map[string]value{}
	ctx := t.Context()
	next := func() (b byte) {
		if len(steps) > 0 {
			b, steps = steps[0], steps[1:]
		}
		return b
	}
	for len(steps) > 0 {
		for key, v := range model {
			if !v.expires.IsZero() && !time.Now().Before(v.expires) {
				delete(model, key)
			}
		}
		op, key := next(), fmt.Sprint(next()%16)
		s := Store(m)
		if op >= 128 {
			s = keep
		}
		bytes := func() []byte {
			if n := next() % 8; n > 0 {
				return []byte("0123456"[:n-1])
			}
			return nil
		}
		ttl := time.Duration(next()%64) * time.Second
		deadline := time.Time{}
		if ttl > 0 {
			deadline = time.Now().Add(ttl)
		}
		v, live := model[key]
		switch op % 7 {
		case 0, 1:
			new := bytes()
			if err := s.Put(ctx, key, new, ttl); err != nil {
				t.Fatal(err)
			}
			model[key] = value{string(new), deadline}
		case 2, 3:
			old, new := bytes(), bytes()
			if live && op&8 != 0 {
				old = []byte(v.bytes)
			}
			want := live == (old != nil) && v.bytes == string(old)
			if got, err := s.CompareAndSwap(ctx, key, old, new, ttl); got != want || err != nil {
				t.Fatalf("CompareAndSwap(%s, %q, %q) of %q %v: %v, %v", key, old, new, v.bytes, live, got, err)
			}
			if want && new == nil {
				delete(model, key)
			} else if want {
				model[key] = value{string(new), deadline}
			}
		case 4:
			if err := s.Delete(ctx, key); err != nil {
				t.Fatal(err)
			}
			delete(model, key)
		case 5:
			if ok, err := s.(Toucher).Touch(ctx, key, ttl); ok != live || err != nil {
				t.Fatalf("Touch(%s): %v, want %v: %v", key, ok, live, err)
			}
			if live {
				model[key] = value{v.bytes, deadline}
			}
		case 6:
			time.Sleep(ttl / 4)
		}
		if op%16 == 0 {
			m.values.check(t)
		}
		for key := range 16 {
			key := fmt.Sprint(key)
			want, live := model[key]
			live = live && (want.expires.IsZero() || time.Now().Before(want.expires))
			got, ok, err := s.Get(ctx, key)
			if ok != live || err != nil || live && string(got) != want.bytes {
				t.Fatalf("%s is %q %v, want %q %v: %v", key, got, ok, want.bytes, live, err)
			}
			if op%2 == 0 { // not to make every value one that is in use
				break
			}
		}
	}
	m.values.check(t)
}

// The bookkeeping adds up under any writes, evictions and expiries.
func TestValuesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(MemoryConfig{MaxBytes: minMaxBytes})
		if err != nil {
			t.Fatal(err)
		}
		keep, _ := m.Keep()
		ctx := t.Context()
		rnd := rand.New(rand.NewPCG(1, 9))
		for i := range 30_000 {
			key := fmt.Sprint(rnd.IntN(3000))
			value, ttl := make([]byte, rnd.IntN(3000)), time.Duration(rnd.Int64N(int64(10*time.Second)))
			if i%2000 == 0 {
				value = make([]byte, 1<<19)
			}
			switch rnd.IntN(8) {
			case 0:
				m.Get(ctx, key)
			case 1:
				m.Touch(ctx, key, ttl)
			case 2:
				m.Delete(ctx, key)
			case 3:
				m.CompareAndSwap(ctx, key, nil, value, ttl)
			case 4:
				keep.Put(ctx, key, value, ttl/10)
			default:
				m.Put(ctx, key, value, ttl)
			}
			if i%100 == 0 {
				time.Sleep(100 * time.Millisecond)
				m.values.check(t)
			}
		}
		if s := m.Stats(); s.ValuesEvicted == 0 {
			t.Errorf("nothing was evicted: %+v", s)
		}
	})
}
