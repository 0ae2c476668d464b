package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

var usageRules = []rule{
	{
		name:  "use/concurrent",
		why:   "All methods may be called concurrently. Run the suite with -race.",
		check: checkConcurrent,
	}, {
		name:  "use/visible",
		why:   "Get sees every write that returned before it was called, and what was seen once stays seen.",
		check: checkVisible,
	}, {
		name:  "use/handles",
		why:   "What is written through one handle on a backend is read through the others at once.",
		needs: hasSecond,
		check: checkHandles,
	}, {
		name:  "use/cancelled",
		why:   "A call returns soon if its context has ended, and leaves the store usable.",
		check: checkCancelled,
	}, {
		name:  "use/interrupted",
		why:   "A call returns soon when its context ends, and a success that it reports is one.",
		check: checkInterrupted,
	}, {
		name:  "use/close",
		why:   "Close may be called twice, and afterwards calls return an error and do not panic or block.",
		needs: func(p probe) bool { _, ok := p.store.(io.Closer); return ok },
		check: checkClose,
	},
}

func checkConcurrent(c *check) {
	keys := make([]string, 8)
	for i := range keys {
		keys[i] = c.key(strconv.Itoa(i))
	}
	together(32, func(g int) {
		var err error
		for i := range 10 {
			k := keys[(g+i)%len(keys)]
			v := fmt.Appendf(nil, "%s=%d", k, g)
			switch (g + i) % 5 {
			case 0:
				err = c.s.Put(c.ctx, k, v, hour)
			case 1:
				_, err = c.s.CompareAndSwap(c.ctx, k, nil, v, hour)
			case 2:
				err = c.s.Delete(c.ctx, k)
			default:
				v, ok, e := c.s.Get(c.ctx, k)
				if ok && (len(v) < len(k) || string(v[:len(k)]) != k) {
					c.Errorf("Get returns the value of another key")
				}
				clear(v)
				err = e
			}
			if err != nil {
				c.Errorf("one of %d goroutines: %v", 32, err)
				return
			}
		}
	})
}

func checkVisible(c *check) { visible(c, c.s, c.s) }

// visible has one writer count up, and readers check that they never see less
// than was written when they began, nor than they have seen before.
func visible(c *check, w, r store.Store) {
	k := c.key("k")
	c.put(k, "0", 0)
	var written atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			var seen int64
			for !done.Load() && c.nap(time.Duration(20+7*i)*time.Microsecond) {
				least := max(seen, written.Load())
				v, ok, err := r.Get(c.ctx, k)
				if err != nil || !ok {
					c.Errorf("Get: %v, %v", ok, err)
					return
				}
				n, err := strconv.ParseInt(string(v), 10, 64)
				if err != nil || n < least {
					c.Errorf("Get returns %s after a Put of %d has returned", short(v), least)
					return
				}
				seen = n
			}
		})
	}
	for i := range int64(100) {
		var err error
		if i%2 == 0 {
			err = w.Put(c.ctx, k, strconv.AppendInt(nil, i+1, 10), hour)
		} else {
			_, err = w.CompareAndSwap(c.ctx, k, strconv.AppendInt(nil, i, 10), strconv.AppendInt(nil, i+1, 10), hour)
		}
		if err != nil {
			c.Errorf("writing: %v", err)
			break
		}
		written.Store(i + 1)
	}
	done.Store(true)
	wg.Wait()
}

func checkHandles(c *check) {
	two := c.second()
	k := c.key("k")
	for i := range 20 {
		want := strconv.Itoa(i)
		c.put(k, want, hour)
		v, ok, err := two.Get(c.ctx, k)
		if err != nil || !ok || string(v) != want {
			c.Fatalf("Put of %s through one handle; Get through the other returns %s, %v, %v", want, short(v), ok, err)
		}
		if ok, err := two.CompareAndSwap(c.ctx, k, v, []byte("other"), 0); !ok || err != nil {
			c.Fatalf("CompareAndSwap through the other handle: %v, %v", ok, err)
		}
		c.wantValue("after a swap through the other handle", k, "other")
		if err := two.Delete(c.ctx, k); err != nil {
			c.Fatalf("Delete through the other handle: %v", err)
		}
		c.wantAbsent("after Delete through the other handle", k)
	}
	visible(c, c.s, two)
}

// cancelled returns a context that has ended.
func (c *check) cancelled() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	return ctx, cancel
}

// prompt calls f, and ends the rule if it does not return soon.
func (c *check) prompt(what string, f func()) {
	c.Helper()
	if !returns(f) {
		c.Fatalf("%s has not returned %v after its context ended", what, soon)
	}
}

// returns calls f, and reports whether it returned soon. It counts the time in
// steps: one in which nobody ran, because the machine stood still, is one step,
// however long it was.
func returns(f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	const steps = 100
	t := time.NewTicker(soon / steps)
	defer t.Stop()
	for range steps {
		select {
		case <-done:
			return true
		case <-t.C:
		}
	}
	return false
}

func checkCancelled(c *check) {
	ended, cancel := c.cancelled()
	defer cancel()
	k := c.key("k")
	c.put(k, "v", hour)
	for range 20 {
		c.prompt("Get", func() {
			if v, ok, err := c.s.Get(ended, k); err == nil && (!ok || string(v) != "v") {
				c.Errorf("Get with a cancelled context returns %s, %v and no error", short(v), ok)
			}
		})
		c.prompt("Put", func() { c.s.Put(ended, c.key("put"), []byte("v"), hour) })
		c.prompt("CompareAndSwap", func() {
			if ok, err := c.s.CompareAndSwap(ended, k, []byte("other"), []byte("w"), hour); err == nil && ok {
				c.Errorf("CompareAndSwap with a cancelled context reports a swap from a value that is not there")
			}
		})
		c.prompt("Delete", func() { c.s.Delete(ended, c.key("deleted")) })
		if r, ok := store.As[store.Registers](c.s); ok {
			c.prompt("Advance", func() { r.Advance(ended, c.count("r", 10, 1)) })
		}
	}
	c.wantValue("after calls with a cancelled context", k, "v")
	c.put(k, "w", hour)
	c.wantValue("after a Put", k, "w")
}

func checkInterrupted(c *check) {
	const n = 32
	var mu sync.Mutex
	wrote := map[string]bool{}
	together(n, func(i int) {
		ctx, cancel := context.WithTimeout(c.ctx, time.Duration(i)*100*time.Microsecond)
		defer cancel()
		for j := 0; ctx.Err() == nil && j < 50; j++ {
			k := c.key(fmt.Sprint(i, ".", j))
			var ok bool
			var err error
			if !returns(func() { ok, err = c.s.CompareAndSwap(ctx, k, nil, []byte("v"), hour) }) {
				c.Errorf("a call has not returned %v after its context ended", soon)
				return
			}
			if err == nil {
				mu.Lock()
				wrote[k] = ok
				mu.Unlock()
			}
		}
	})
	for k, ok := range wrote {
		if !ok {
			c.Errorf("CompareAndSwap of an absent key lost")
		}
		c.wantValue("a swap that was reported before its context ended", k, "v")
	}
	c.put(c.key("k"), "v", hour)
	c.wantValue("afterwards", c.key("k"), "v")
}

func checkClose(c *check) {
	k := c.key("k")
	c.put(k, "v", hour)
	cl, ok := c.s.(io.Closer)
	if !ok {
		c.Fatalf("the store has no Close, though another that Open returned has")
	}
	if err := cl.Close(); err != nil {
		c.Errorf("Close: %v", err)
	}
	c.prompt("the second Close", func() {
		if err := cl.Close(); err != nil {
			c.Errorf("the second Close: %v", err)
		}
	})
	// A store that does not own what it closes may go on. One that answers
	// must be right.
	c.prompt("Get after Close", func() {
		if v, ok, err := c.s.Get(c.ctx, k); err == nil && (!ok || string(v) != "v") {
			c.Errorf("Get after Close returns %s, %v and no error", short(v), ok)
		} else if err != nil && errors.Is(err, context.Canceled) {
			c.Errorf("Get after Close returns %v, though its context has not ended", err)
		}
	})
}
