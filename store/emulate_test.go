package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// emulated is a store that passes its emulated registers off as its own.
type emulated struct {
	four
	store.BatchRegisters
}

func emulate(s store.Store) store.Store {
	return emulated{four{s}, store.BatchRegistersOf(four{s})}
}

// store 2, 3, 5: emulated registers obey all rules but healing, from two
// processes too.
func TestEmulationConforms(t *testing.T) {
	t.Parallel()
	storetest.RunWith(t, storetest.Options{
		Open:   func(*testing.T) store.Store { return emulate(newMapStore()) },
		Second: func(_ *testing.T, s store.Store) store.Store { return emulate(s.(emulated).Store) },
		NoHeal: true,
	})
}

// RegistersOf returns what the store has, if it has it.
func TestRegistersOfNative(t *testing.T) {
	m := openMemory(t)
	if r := store.RegistersOf(m); r != store.Registers(m) {
		t.Errorf("the registers of a Memory are a %T", r)
	}
	if r := store.BatchRegistersOf(m); r != store.BatchRegisters(m) {
		t.Errorf("the batch registers of a Memory are a %T", r)
	}
	if r := store.AtomicRegistersOf(m); r != store.AtomicRegisters(m) {
		t.Errorf("the atomic registers of a Memory are a %T", r)
	}
}

// store 4: what is carried out together has the results of some order.
func TestEmulationIsSequential(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			g := &gate{Store: newMapStore()}
			compareSequential(t, g, synctest.Wait, store.RegistersOf(four{g}), seed, false)
		})
	}
}

// Calls of one register in one process take one Get and one CompareAndSwap
// together, and never contend.
func TestEmulationMerges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		s := storetest.Faulty(newMapStore(), func(storetest.Call) storetest.Fault {
			calls.Add(1)
			return storetest.Fault{Delay: time.Millisecond}
		})
		r := store.RegistersOf(s)
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if res, err := r.Advance(t.Context(), counter("k", 1000, 1)); err != nil || res.Granted != 1 {
					t.Errorf("Advance: %+v, %v", res, err)
				}
			})
		}
		wg.Wait()
		// The first goes alone, and the others after it, or all at once.
		if n := calls.Load(); n > 4 {
			t.Errorf("500 calls at once made %d calls of the store, want at most 4", n)
		}
		synctest.Wait()
		if n := store.Lanes(r); n != 0 {
			t.Errorf("%d lanes are left", n)
		}
	})
}

// store 9: two processes whose clocks differ by δ grant at most δ/T more than
// the bound, and saturate what there is.
func TestEmulationSkew(t *testing.T) {
	for _, skew := range []time.Duration{0, 100 * time.Millisecond, time.Second, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			const interval, burst, long = 10 * time.Millisecond, 50, 20 * time.Second
			s := newMapStore()
			var granted atomic.Int64
			start := time.Now()
			var wg sync.WaitGroup
			for _, off := range []time.Duration{0, skew} {
				r := store.EmulateAt(s, func() int64 { return time.Now().Add(off).UnixNano() })
				wg.Go(func() {
					for time.Since(start) < long {
						res, err := r.Advance(t.Context(), tokens("k", interval, burst, 1))
						if err != nil {
							t.Error(err)
							return
						}
						granted.Add(res.Granted)
						time.Sleep(interval / 3)
					}
				})
			}
			wg.Wait()
			bound := int64(burst + long/interval)
			if n, most := granted.Load(), bound+int64(skew/interval); n > most || n < bound-burst {
				t.Errorf("clocks that differ by %v grant %d, want %d to %d", skew, n, bound-burst, most)
			}
		})
	}
}

// A clock that went back by an hour locks nobody out for an hour: what was
// written too far ahead ends with the ttl that the backend counts down.
func TestEmulationClockGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMapStore()
		var back atomic.Int64
		r := store.EmulateAt(s, func() int64 { return time.Now().UnixNano() - back.Load() })
		take := func() int64 {
			res, err := r.Advance(t.Context(), tokens("k", time.Second, 5, 5))
			if err != nil {
				t.Fatal(err)
			}
			return res.Granted
		}
		if take() != 5 {
			t.Fatal("a full bucket is not granted")
		}
		back.Store(int64(time.Hour))
		if take() != 0 {
			t.Fatal("an empty bucket is granted")
		}
		time.Sleep(5*time.Second + time.Millisecond)
		if take() != 5 {
			t.Error("the bucket is not full after the time that it takes to fill")
		}
	})
}

// store 15: a lost reply never grants more than there is, whatever is lost.
func TestEmulationLostReply(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 8))
			s := storetest.Faulty(newMapStore(), func(c storetest.Call) storetest.Fault {
				mu.Lock()
				defer mu.Unlock()
				switch rnd.IntN(6) {
				case 0:
					return storetest.Fault{Before: errors.New("refused")}
				case 1:
					return storetest.Fault{After: errors.New("reset")}
				case 2:
					return storetest.Fault{Late: 3 * time.Millisecond}
				}
				return storetest.Fault{Delay: time.Duration(rnd.Int64N(1e6))}
			})
			handles := []store.Registers{store.RegistersOf(s), store.RegistersOf(s)}
			var granted, failed atomic.Int64
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
					defer cancel()
					for range 5 {
						res, err := handles[i%2].Advance(ctx, counter("k", 60, 1))
						if err != nil {
							failed.Add(1)
						}
						granted.Add(res.Granted)
					}
				})
			}
			wg.Wait()
			time.Sleep(3 * time.Second) // for what the callers have left behind
			if granted.Load() > 60 || failed.Load() == 0 {
				t.Errorf("seed %d: granted %d of 60, with %d errors", seed, granted.Load(), failed.Load())
			}
		})
	}
}

// store 18: a caller that is cancelled has its answer at once, and what it was
// granted is given back when the store has answered.
func TestEmulationCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Faulty(newMapStore(), func(c storetest.Call) storetest.Fault {
			if c.Method == "CompareAndSwap" {
				return storetest.Fault{Late: 200 * time.Millisecond}
			}
			return storetest.Fault{}
		})
		r := store.RegistersOf(s)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := r.Advance(ctx, counter("k", 10, 7)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Advance returns %v", err)
		}
		if d := time.Since(start); d != 50*time.Millisecond {
			t.Errorf("a cancelled caller waited %v, want 50ms", d)
		}
		time.Sleep(time.Second)
		if res, err := r.Advance(t.Context(), counter("k", 10, 10)); err != nil || res.Granted != 10 {
			t.Errorf("after a cancelled call: %+v, %v, want all 10", res, err)
		}
	})
}

// A store that does not answer costs its callers their deadlines, and nothing
// is left behind when they have gone: the bubble would not end.
func TestEmulationStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Faulty(newMapStore(), func(storetest.Call) storetest.Fault { return storetest.Fault{Stall: true} })
		r := store.RegistersOf(s)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				d := time.Duration(i) * time.Millisecond
				time.AfterFunc(d, cancel)
				start := time.Now()
				if _, err := r.Advance(ctx, counter(fmt.Sprint(i%3), 10, 1)); !errors.Is(err, context.Canceled) || time.Since(start) != d {
					t.Errorf("cancelled after %v: %v after %v", d, err, time.Since(start))
				}
			})
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		if n := store.Lanes(r); n != 0 {
			t.Errorf("%d lanes are left", n)
		}
	})
}

// What others have put under a register's key is an error that does not show it.
func TestEmulationDamaged(t *testing.T) {
	s := newMapStore()
	r := store.RegistersOf(s)
	for _, v := range []string{"", "opensesame", "12x", "12 ", "12 x", "12 -5", "99999999999999999999", " 12"} {
		if err := s.Put(t.Context(), store.RegisterKey("count", "k"), []byte(v), 0); err != nil {
			t.Fatal(err)
		}
		_, err := r.Advance(t.Context(), counter("k", 10, 1))
		if err == nil || v != "" && strings.Contains(err.Error(), v) {
			t.Errorf("over %q: %v", v, err)
		}
	}
}

// store 23: the keys of emulated registers are keys, and differ if the
// registers do.
func FuzzRegisterKey(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Add("1:", "a", "1", ":a")
	f.Add(strings.Repeat("s", 250), "k", strings.Repeat("s", 251), "")
	f.Fuzz(func(t *testing.T, s1, k1, s2, k2 string) {
		for _, op := range []store.Op{{Space: s1, Key: k1}, {Space: s2, Key: k2}} {
			if op.Check() != nil {
				t.Skip()
			}
		}
		a, b := store.RegisterKey(s1, k1), store.RegisterKey(s2, k2)
		if err := store.CheckKey(a); err != nil {
			t.Errorf("%q: %v", a, err)
		}
		if (a == b) != (s1 == s2 && k1 == k2) {
			t.Errorf("the registers %q, %q and %q, %q have the keys %q and %q", s1, k1, s2, k2, a, b)
		}
	})
}

// store 3: the emulation agrees with the model on any sequence of operations,
// of two processes on one register, with any time in between.
func FuzzEmulation(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"), false, uint8(0))
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz0123456789"), true, uint8(3))
	f.Add([]byte{255, 254, 253, 0, 0, 0, 1, 1, 1, 127, 128, 129}, false, uint8(20))
	f.Fuzz(func(t *testing.T, steps []byte, clock bool, ttl uint8) {
		now := time.Unix(1_700_000_000, 0)
		s := newMapStore()
		s.now = func() time.Time { return now }
		at := func() int64 { return now.UnixNano() }
		handles := []store.Registers{store.EmulateAt(s, at), store.EmulateAt(s, at)}
		unit := int64(1)
		var life time.Duration
		if clock {
			unit = int64(time.Millisecond)
		} else {
			life = time.Duration(ttl) * time.Millisecond
		}
		var stored, ends int64
		live := false
		for len(steps) >= 4 {
			b := steps[:4]
			steps = steps[4:]
			now = now.Add(time.Duration(b[0]) * time.Millisecond / 8)
			op := store.Op{
				Space: "s", Key: "k", Clock: clock, TTL: life,
				Ceil: unit * int64(b[1]%32), Step: unit * (int64(b[2]%8) - 3), Min: int64(b[3] % 4), Max: int64(b[3]%4) + int64(b[3]>>4),
			}
			got, err := handles[int(b[2]>>4)%2].Advance(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			if live && ends != 0 && at() >= ends {
				live = false
			}
			want, save := op.Apply(at(), stored, live, false)
			if save {
				if !clock && !live && life != 0 {
					ends = at() + int64(life)
				}
				stored, live = want.Value, true
			}
			if !clock && live && ends != 0 {
				want.Expires = ends - at()
			}
			if got != want {
				t.Fatalf("%+v returns\n%+v, want\n%+v", op, got, want)
			}
		}
	})
}
