package storetest

import (
	"bytes"
	"context"
	"sync"
	"time"

	"example.com/plainware/store"
)

// soon is how late a backend may be with what has no instant of its own: the
// end of a key, or the answer to a call that was cancelled.
const soon = 2 * time.Second

// hour is a ttl that no test outlives.
const hour = time.Hour

// The methods from here to swap end the rule when the store returns an error.
// They must be called on the goroutine of the rule.

func (c *check) key(name string) string { return c.run + name }

func (c *check) get(key string) ([]byte, bool) {
	c.Helper()
	v, ok, err := c.s.Get(c.ctx, key)
	if err != nil {
		c.Fatalf("Get: %v", err)
	}
	return v, ok
}

func (c *check) put(key, value string, ttl time.Duration) {
	c.Helper()
	if err := c.s.Put(c.ctx, key, []byte(value), ttl); err != nil {
		c.Fatalf("Put with a ttl of %v: %v", ttl, err)
	}
}

func (c *check) delete(key string) {
	c.Helper()
	if err := c.s.Delete(c.ctx, key); err != nil {
		c.Fatalf("Delete: %v", err)
	}
}

func (c *check) swap(key string, old, new []byte, ttl time.Duration) bool {
	c.Helper()
	ok, err := c.s.CompareAndSwap(c.ctx, key, old, new, ttl)
	if err != nil {
		c.Fatalf("CompareAndSwap with a ttl of %v: %v", ttl, err)
	}
	return ok
}

// wantSwap and wantNoSwap check what CompareAndSwap reports.
func (c *check) wantSwap(what, key string, old, new []byte, ttl time.Duration) {
	c.Helper()
	if !c.swap(key, old, new, ttl) {
		c.Errorf("%s: CompareAndSwap reports no swap, want one", what)
	}
}

func (c *check) wantNoSwap(what, key string, old, new []byte, ttl time.Duration) {
	c.Helper()
	if c.swap(key, old, new, ttl) {
		c.Errorf("%s: CompareAndSwap reports a swap, want none", what)
	}
}

func (c *check) wantValue(what, key, want string) {
	c.Helper()
	switch v, ok := c.get(key); {
	case !ok:
		c.Errorf("%s: the key is absent, want %s", what, short([]byte(want)))
	case !bytes.Equal(v, []byte(want)):
		c.Errorf("%s: the value is %s, want %s", what, short(v), short([]byte(want)))
	}
}

func (c *check) wantAbsent(what, key string) {
	c.Helper()
	if v, ok := c.get(key); ok {
		c.Errorf("%s: the value is %s, want the key absent", what, short(v))
	}
}

// present returns whether key is there, for lives and ends.
func (c *check) present(key string) func() bool {
	return func() bool {
		_, ok := c.get(key)
		return ok
	}
}

// lives checks that what began to live after start stays for ttl. It judges
// only answers that came in time, so a slow machine makes it blind, not wrong.
func (c *check) lives(what string, start time.Time, ttl time.Duration, present func() bool) {
	c.Helper()
	for time.Since(start) < ttl {
		ok := present()
		if age := time.Since(start); !ok && age < ttl {
			c.Errorf("%s: gone after less than %v, with a ttl of %v", what, age, ttl)
			return
		}
		c.pause(max(time.Millisecond, ttl/16))
	}
}

// ends checks that what was given ttl before now is gone soon after that. It
// judges by when it asked, so that a slow machine does not matter.
func (c *check) ends(what string, ttl time.Duration, present func() bool) {
	c.Helper()
	start := time.Now()
	for {
		age := time.Since(start)
		if !present() {
			return
		}
		if age > ttl+c.opts.Resolution+soon {
			c.Errorf("%s: still there after %v, with a ttl of %v", what, age, ttl)
			return
		}
		c.pause(5 * time.Millisecond)
	}
}

func (c *check) pause(d time.Duration) {
	if !c.nap(d) {
		c.Fatalf("the test ended: %v", context.Cause(c.ctx))
	}
}

// nap waits for d, or reports that the test ended. Any goroutine may call it.
func (c *check) nap(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// together calls f in n goroutines that begin at the same time, and waits.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

// registers returns the native registers of the store.
func (c *check) registers() store.Registers {
	c.Helper()
	r, ok := store.As[store.Registers](c.s)
	if !ok {
		c.Fatalf("the store has no Registers, though another that Open returned has")
	}
	return r
}

// short is v for a message.
func short(v []byte) string {
	const most = 40
	if len(v) > most {
		return quote(v[:most]) + "…"
	}
	return quote(v)
}
