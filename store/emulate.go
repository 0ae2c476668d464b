package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// RegistersOf returns the registers of s: its own if [As] finds some, or
// otherwise an emulation with Get and CompareAndSwap.
//
// The emulation is exact: one Get and one CompareAndSwap for an operation that
// changes something, one Get for another, and again whenever another process
// was faster, after a short random pause, until ctx ends. Calls of one register
// in one process are carried out together, in the order in which they came, with
// one CompareAndSwap, so they never contend with each other. One whose context
// ends is answered at once, and what it was granted is given back if it is known
// within a second. It has goroutines only while there are calls.
//
// There are these differences from registers of a backend's own. Each process
// judges by its own clock: if those differ by d, up to d/Step more than allowed
// are granted, once, and a count may end d sooner or later. Nothing is healed,
// which would be unsafe with several clocks: after a clock has gone back, what it
// has written too far ahead ends when the backend has counted that time down.
// Registers are values, under keys that begin with "plainware/register/", and
// are evicted or kept as values are. Only emulations find them.
//
// Use one emulation of a store in a process: two are exact, but contend.
func RegistersOf(s Store) Registers {
	if r, ok := As[Registers](s); ok {
		return r
	}
	return newEmulation(s)
}

func newEmulation(s Store) *emulation {
	return &emulation{
		store:   s,
		now:     func() int64 { return time.Now().UnixNano() },
		callers: callers{base: context.Background()},
		lanes:   make(map[[2]string]*callQueue),
	}
}

// emulation has a lane of calls for each register that is in use. A goroutine
// runs for each, until it is empty.
type emulation struct {
	store Store
	now   func() int64 // ns since 1970

	callers
	lanes map[[2]string]*callQueue // by Space and Key
}

func (e *emulation) Advance(ctx context.Context, op Op) (Result, error) {
	if err := op.Check(); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	c := newCall(ctx, op)
	id := [2]string{op.Space, op.Key}
	e.mu.Lock()
	lane, ok := e.lanes[id]
	if !ok {
		lane = new(callQueue)
		e.lanes[id] = lane
		go e.run(id, lane)
	}
	lane.push(c)
	e.mu.Unlock()
	return e.wait(ctx, c)
}

// run carries out the calls of one register.
func (e *emulation) run(id [2]string, lane *callQueue) {
	key := registerKey(id[0], id[1])
	var calls []*call
	for {
		e.mu.Lock()
		calls = lane.take(calls[:0], math.MaxInt)
		if len(calls) == 0 {
			delete(e.lanes, id)
			e.mu.Unlock()
			return
		}
		r := e.begin(calls)
		e.mu.Unlock()
		e.round(r, lane, key, calls)
		e.end(r)
		clear(calls)
	}
}

// round carries out calls, and answers them.
func (e *emulation) round(r *round, lane *callQueue, key string, calls []*call) {
	res := make([]Result, len(calls))
	start := time.Now()
	for try := 0; ; try++ {
		done, err := e.try(r.ctx, key, calls, res)
		if err == nil && !done {
			err = lost(r.ctx, try)
		}
		if !done && err == nil {
			continue
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for i, c := range calls {
			if c.answer(res[i], err) || err != nil {
				continue
			}
			if back, any := c.op.giveBack(res[i].Granted, res[i], start); any {
				lane.push(&call{op: back})
			}
		}
		return
	}
}

// lost waits a little after a lost CompareAndSwap, longer after each.
func lost(ctx context.Context, try int) error {
	most := time.Millisecond << min(try, 5)
	t := time.NewTimer(rand.N(most))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try carries out calls on the register as it is now, and reports whether it
// was still the same then. Those whose callers have left are not carried out.
func (e *emulation) try(ctx context.Context, key string, calls []*call, res []Result) (done bool, err error) {
	old, live, err := e.store.Get(ctx, key)
	if err != nil {
		return false, err
	}
	var reg emulated
	if live {
		if reg, err = parseEmulated(old); err != nil {
			return false, err
		}
	}
	now := e.now()
	live = live && (reg.ends == 0 || now < reg.ends)
	changed, ttl := false, time.Duration(0)
	e.mu.Lock()
	for i, c := range calls {
		if res[i] = (Result{}); c.state == left {
			continue
		}
		var save bool
		if res[i], save = c.op.Apply(now, reg.value, live, false); save {
			changed = true
			ttl = reg.set(&c.op, res[i], live)
			live = ttl >= 0
		}
		if !c.op.Clock && live && reg.ends != 0 {
			res[i].Expires = reg.ends - now
		}
	}
	e.mu.Unlock()
	if !changed || old == nil && !live {
		return true, nil
	}
	var next []byte
	if live {
		next = reg.append(nil)
	} else {
		ttl = 0
	}
	return e.store.CompareAndSwap(ctx, key, old, next, ttl)
}

// emulated is what is stored of a register: its value, and the end of a count.
type emulated struct {
	value int64
	ends  int64 // ns since 1970; 0 is never, or a clock, whose end its value is
}

// set makes the register what op has made of it, and returns the ttl for its
// key: negative if it means nothing any more.
func (reg *emulated) set(op *Op, r Result, live bool) time.Duration {
	reg.value = r.Value
	switch {
	case op.Clock && r.Expires == 0:
		*reg = emulated{}
		return -1
	case op.Clock:
		reg.ends = 0
		return time.Duration(r.Expires)
	case !live && op.TTL == 0:
		reg.ends = 0
	case !live:
		// The longest TTL may overflow.
		reg.ends = r.Now + min(int64(op.TTL), math.MaxInt64-r.Now)
	}
	if reg.ends == 0 {
		return 0
	}
	return time.Duration(reg.ends - r.Now)
}

// append appends the text that is stored: the value, and the end if it has one.
func (reg *emulated) append(b []byte) []byte {
	b = strconv.AppendInt(b, reg.value, 10)
	if reg.ends != 0 {
		b = append(b, ' ')
		b = strconv.AppendInt(b, reg.ends, 10)
	}
	return b
}

var errNotRegister = errors.New("store: there is something else under the key of an emulated register")

func parseEmulated(b []byte) (reg emulated, err error) {
	value, ends, two := strings.Cut(string(b), " ")
	if reg.value, err = strconv.ParseInt(value, 10, 64); err != nil {
		return emulated{}, errNotRegister
	}
	if two {
		if reg.ends, err = strconv.ParseInt(ends, 10, 64); err != nil || reg.ends <= 0 {
			return emulated{}, errNotRegister
		}
	}
	return reg, nil
}

const registerSpace = "plainware/register/"

// registerKey joins Space and Key so that no other two give the same: the
// length of Space comes first. What is too long is hashed, which begins with
// what is no length.
func registerKey(space, key string) string {
	joined := registerSpace + strconv.Itoa(len(space)) + ":" + space + key
	if len(joined) <= MaxKey/2 {
		return joined
	}
	sum := sha256.Sum256([]byte(joined))
	return registerSpace + "#" + hex.EncodeToString(sum[:])
}
