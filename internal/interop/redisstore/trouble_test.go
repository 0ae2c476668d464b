package redisstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// eventually waits for what takes its time outside of this process.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%s: not after 20 s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
		<-time.After(5 * time.Millisecond)
	}
}

// The scripts are forgotten in the middle of everything, and nobody notices:
// no error, and exactly as much granted as fits.
func TestScriptFlush(t *testing.T) {
	s := start(t)
	each(t, func(t *testing.T, c client) {
		st := c.store(t, nil, s.Addr)
		admin := s.client()
		stop := make(chan struct{})
		var flusher, wg sync.WaitGroup
		flushes := 0
		flusher.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
						t.Error(err)
						return
					}
					flushes++
				}
			}
		})
		const goroutines, calls, fit = 8, 150, 777
		var granted atomic.Int64
		for g := range goroutines {
			wg.Go(func() {
				op := store.Op{Space: t.Name(), Key: "k", Ceil: fit, Step: 1, Min: 1, Max: 1}
				res := make([]store.Result, 2)
				for i := range calls {
					var err error
					if (g+i)%2 == 0 {
						res[0], err = st.Advance(t.Context(), op)
						res[1].Granted = 0
					} else {
						err = st.AdvanceBatch(t.Context(), []store.Op{op, op}, res)
					}
					if err != nil {
						t.Error(err)
						return
					}
					granted.Add(res[0].Granted + res[1].Granted)
				}
			})
		}
		wg.Wait()
		close(stop)
		flusher.Wait()
		if granted.Load() != fit || flushes == 0 {
			t.Errorf("granted %d, want %d, over %d flushes", granted.Load(), fit, flushes)
		}
	})
}

// The server stops answering. Everybody has an answer in time, what stays
// behind is bounded, and when the server goes on so does the store. Nothing is
// left at the end. (ratelimit 16)
func TestStall(t *testing.T) {
	s := start(t)
	each(t, func(t *testing.T, c client) {
		before := runtime.NumGoroutine()
		config, closeClient := c.open(t, s.Addr)
		const most = 16
		config.MaxCalls = most
		config.Timeout = time.Second
		st, err := redisstore.New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Put(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Fatal(err)
		}
		s.Signal(syscall.SIGSTOP)
		resumed := false
		resume := func() {
			if !resumed {
				resumed = true
				s.Signal(syscall.SIGCONT)
			}
		}
		defer resume()
		const budget = 25 * time.Millisecond
		var wg sync.WaitGroup
		var worst atomic.Int64
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), budget)
				defer cancel()
				begin := time.Now()
				var err error
				switch i % 4 {
				case 0:
					_, _, err = st.Get(ctx, "k")
				case 1:
					err = st.Put(ctx, "k", []byte("w"), 0)
				case 2:
					_, err = st.CompareAndSwap(ctx, "other", nil, []byte("v"), 0)
				case 3:
					_, err = st.Advance(ctx, store.Op{Space: t.Name(), Key: "k", Ceil: 1000, Step: 1, Min: 1, Max: 1})
				}
				took := time.Since(begin)
				for old := worst.Load(); int64(took) > old && !worst.CompareAndSwap(old, int64(took)); old = worst.Load() {
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("call %d: %v after %v", i, err, took)
				}
			})
		}
		wg.Wait()
		// Much more than the budget, since the machine may be busy, and less
		// than the clients' own limits.
		if w := time.Duration(worst.Load()); w > 2*time.Second {
			t.Errorf("an answer took %v", w)
		}
		t.Logf("worst answer after %v, with a budget of %v; goroutines %d → %d", time.Duration(worst.Load()), budget, before, runtime.NumGoroutine())
		begin := time.Now()
		_, _, err = st.Get(t.Context(), "k")
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 3*time.Second {
			t.Errorf("without a deadline: %v after %v", err, took)
		}
		resume()
		eventually(t, "an answer after the stall", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, ok, err := st.Get(ctx, "k")
			return ok && err == nil
		})
		eventually(t, "the end of the calls", func() bool { return !calling() })
		closeClient()
		eventually(t, "the end of the goroutines", func() bool { return runtime.NumGoroutine() <= before+1 })
	})
}

// Callers who cannot wait do not spoil the connections of the others: neither
// those that are in use nor, with a new client, those that are being dialed.
func TestImpatientCaller(t *testing.T) {
	s := start(t)
	each(t, func(t *testing.T, c client) {
		for range 15 {
			config, closeClient := c.open(t, s.Addr)
			st, err := redisstore.New(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					for j := range 5 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+j)*20*time.Microsecond)
						st.Get(ctx, "k")
						cancel()
					}
				})
				wg.Go(func() {
					for range 5 {
						if _, _, err := st.Get(t.Context(), "k"); err != nil {
							t.Errorf("a caller with time: %v", err)
						}
					}
				})
			}
			wg.Wait()
			eventually(t, "the end of the calls", func() bool { return !calling() })
			closeClient()
		}
	})
}

// A killed server means errors, and when it is back so is the store, without
// its scripts at first. What was acknowledged by a server that keeps is there:
// a spent bucket stays spent. (ratelimit 11)
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		s := start(t, "--appendonly", "yes", "--appendfsync", "always")
		st := c.store(t, nil, s.Addr)
		kept, err := store.Keep(st)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		bucket := store.Op{Space: "bucket", Key: "k", Clock: true, Ceil: int64(time.Hour), Step: int64(time.Minute), Min: 60, Max: 60}
		if r, err := st.Advance(ctx, bucket); err != nil || r.Granted != 60 {
			t.Fatalf("%+v %v", r, err)
		}
		quota := store.Op{Space: "quota", Key: "k", Ceil: 3, Step: 1, Min: 3, Max: 3, TTL: time.Hour}
		if r, err := st.Advance(ctx, quota); err != nil || r.Granted != 3 {
			t.Fatalf("%+v %v", r, err)
		}

		// Killed in the middle of writing.
		var acknowledged atomic.Int64
		var wg sync.WaitGroup
		broke := make(chan struct{})
		var once sync.Once
		for g := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					err := kept.Put(ctx, fmt.Sprint(g, ".", i), []byte(fmt.Sprint(i)), time.Hour)
					if err != nil {
						once.Do(func() { close(broke) })
						return
					}
					acknowledged.Add(1)
				}
			})
		}
		eventually(t, "100 values", func() bool { return acknowledged.Load() >= 100 })
		s.Kill()
		<-broke
		wg.Wait()
		down, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := st.Advance(down, bucket); err == nil {
			t.Error("no error while the server is down")
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("an error after %v", took)
		}

		s.Run()
		eventually(t, "an answer after the restart", func() bool {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			r, err := st.Advance(ctx, bucket)
			if err == nil && r.Granted != 0 {
				t.Fatalf("the bucket is full again: %+v", r)
			}
			return err == nil
		})
		if r, err := st.Advance(ctx, quota); err != nil || r.Granted != 0 || r.Value != 3 || r.Expires <= 0 {
			t.Errorf("the quota after the restart: %+v %v", r, err)
		}
		n := int64(0)
		for key, err := range st.Scan(ctx, "") {
			if err != nil {
				t.Fatal(err)
			}
			v, ok, err := kept.Get(ctx, key)
			if _, i, _ := strings.Cut(key, "."); err != nil || !ok || string(v) != i {
				t.Errorf("%s: %q %v %v", key, v, ok, err)
			}
			n++
		}
		if n < acknowledged.Load() {
			t.Errorf("%d values, and %d were acknowledged", n, acknowledged.Load())
		}
	})
}

// calling reports whether any goroutine is in a call of a store.
func calling() bool {
	stacks := make([]byte, 4<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "store/redisstore.(*Store)")
}

// Nothing is left of calls whose callers did not wait.
func TestNothingLeaks(t *testing.T) {
	s := start(t)
	each(t, func(t *testing.T, c client) {
		before := runtime.NumGoroutine()
		for range 3 {
			config, closeClient := c.open(t, s.Addr)
			st, err := redisstore.New(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
					defer cancel()
					for ctx.Err() == nil {
						st.Get(ctx, "k")
					}
				})
			}
			wg.Wait()
			// rueidis and valkey-go leak a connection that is being dialed at
			// the time of Close, so the calls that were left behind end first.
			eventually(t, "the end of the calls", func() bool { return !calling() })
			closeClient()
		}
		eventually(t, "the end of the goroutines", func() bool { return runtime.NumGoroutine() <= before+1 })
	})
}
