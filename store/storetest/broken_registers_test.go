package storetest

import (
	"fmt"
	"math"
	"time"

	"example.com/plainware/store"
)

type apply = func(op *store.Op, now, stored int64, live bool) (store.Result, bool)

// applying is a store whose registers do what f does.
func applying(f apply) func() (store.Store, store.Store) {
	return one(func(r *reference) store.Store {
		r.apply = f
		return r
	})
}

// looking is a store whose Advance looks, waits, and writes, while it holds
// lock if there is one. It is a channel since the clock of a bubble stands still
// while anybody waits for a mutex.
func looking(r *reference, lock chan struct{}) store.Store {
	return &methods{reference: r, advance: func(op store.Op) (store.Result, error) {
		if err := op.Check(); err != nil {
			return store.Result{}, err
		}
		if lock != nil {
			lock <- struct{}{}
			defer func() { <-lock }()
		}
		id := r.name(&op)
		r.mu.Lock()
		res := r.advance(&op, true)
		before, had := r.registers[id]
		r.advance(&op, false)
		after, have := r.registers[id]
		if had {
			r.registers[id] = before
		} else {
			delete(r.registers, id)
		}
		r.mu.Unlock()
		time.Sleep(hold)
		if have {
			r.mu.Lock()
			r.registers[id] = after
			r.mu.Unlock()
		}
		return res, nil
	}}
}

var brokenRegisters = []brokenStore{
	{
		"all steps or none", "register/branches ...",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			whole := *op
			whole.Min = op.Max
			return whole.Apply(now, stored, live, true)
		}),
	}, {
		"a step of zero is refused", "register/branches register/model register/clock register/heal register/opens",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			none := *op
			if op.Step == 0 {
				none.Min, none.Max = 0, 0
			}
			return none.Apply(now, stored, live, true)
		}),
	}, {
		"clocks are floating point", "register/clock register/exact",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			r, save := op.Apply(now, stored, live, true)
			if op.Clock {
				r.Value = int64(float64(r.Value))
			}
			return r, save
		}),
	}, {
		"counts are 32 bits", "register/exact",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			r, save := op.Apply(now, stored, live, true)
			if !op.Clock {
				r.Value = int64(int32(r.Value))
			}
			return r, save
		}),
	}, {
		"giving back has no floor", "register/refund register/branches register/model register/clock register/heal register/opens",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			if op.Step < 0 {
				base := max(stored, op.Floor)
				if op.Clock {
					base = max(stored, op.Floor+now)
				}
				return store.Result{Value: base + op.Max*op.Step, Granted: op.Max, Now: now}, op.Max != 0
			}
			return op.Apply(now, stored, live, true)
		}),
	}, {
		"what was refused is stored", "register/read register/model register/opens all/absent",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			r, _ := op.Apply(now, stored, live, true)
			return r, true
		}),
	}, {
		"Delete takes the register too", "register/spaces",
		one(func(r *reference) store.Store {
			return &methods{reference: r, delete: func(key string) error {
				r.mu.Lock()
				for id := range r.registers {
					if id[0]+id[1] == key {
						delete(r.registers, id)
					}
				}
				r.mu.Unlock()
				return r.Delete(bg, key)
			}}
		}),
	}, {
		"Space and Key are joined", "register/parts",
		one(func(r *reference) store.Store {
			r.name = func(op *store.Op) [2]string { return [2]string{op.Space + ":" + op.Key, ""} }
			return r
		}),
	}, {
		"registers have short names", "register/keys",
		one(func(r *reference) store.Store {
			r.check = func(op *store.Op) error {
				if err := op.Check(); err != nil {
					return err
				}
				if len(op.Space)+len(op.Key) > 250 {
					return fmt.Errorf("%w: too long", store.ErrKey)
				}
				return nil
			}
			return r
		}),
	}, {
		"operations are not checked", "register/refused register/keys batch/refused all/equal ...",
		one(func(r *reference) store.Store {
			r.check = func(*store.Op) error { return nil }
			return r
		}),
	}, {
		"Advance looks and writes", "register/contended register/handles",
		one(func(r *reference) store.Store { return looking(r, nil) }),
	}, {
		"each handle advances under a lock of its own", "register/handles",
		func() (store.Store, store.Store) {
			r := newReference()
			return looking(r, make(chan struct{}, 1)), looking(r, make(chan struct{}, 1))
		},
	}, {
		"nothing is healed", "register/heal register/clock all/heal",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			return op.Apply(now, stored, live, false)
		}),
	}, {
		"debt is forgiven", "register/debt register/clock",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			strict := *op
			strict.Over = 0
			return strict.Apply(now, stored, live, true)
		}),
	}, {
		"only the first operation says when a count ends", "register/expires register/opens",
		one(func(r *reference) store.Store {
			return &methods{reference: r, advance: func(op store.Op) (store.Result, error) {
				r.mu.Lock()
				_, had := r.registers[r.name(&op)]
				r.mu.Unlock()
				res, err := r.Advance(bg, op)
				if had && !op.Clock {
					res.Expires = 0
				}
				return res, err
			}}
		}),
	}, {
		"a count begins where it leaves Floor", "register/opens register/branches register/model",
		one(func(r *reference) store.Store {
			r.apply = func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
				res, save := op.Apply(now, stored, live, true)
				return res, save && (op.Clock || live || res.Value != op.Floor)
			}
			return r
		}),
	}, {
		"what gives back begins a count for ever", "register/opens",
		one(func(r *reference) store.Store {
			return &methods{reference: r, advance: func(op store.Op) (store.Result, error) {
				if op.Step < 0 {
					op.TTL = 0
				}
				return r.Advance(bg, op)
			}}
		}),
	}, {
		"the longest TTL overflows", "register/longest",
		one(func(r *reference) store.Store { return shortened(r, math.MaxInt64, -1) }),
	}, {
		"TTLs of counts are rounded down", "register/early",
		one(func(r *reference) store.Store { return shortened(r, brief+456789, brief/2) }),
	}, {
		"milliseconds", "register/time",
		one(func(r *reference) store.Store {
			return &methods{reference: r, advance: func(op store.Op) (store.Result, error) {
				res, err := r.Advance(bg, op)
				if !op.Clock {
					res.Now /= 1e6
				}
				return res, err
			}}
		}),
	}, {
		"buckets refill twice as fast", "register/refill ...",
		applying(func(op *store.Op, now, stored int64, live bool) (store.Result, bool) {
			r, save := op.Apply(now, stored, live, true)
			if save && op.Clock && op.Step > 0 {
				r.Value -= (r.Value - now) / 2
			}
			return r, save
		}),
	}, {
		"each operation prolongs the count", "register/ttl register/expires register/opens",
		one(func(r *reference) store.Store {
			r.renew = true
			return r
		}),
	},
}

// shortened is a store that takes one TTL for another.
func shortened(r *reference, from, to time.Duration) store.Store {
	return &methods{reference: r, advance: func(op store.Op) (store.Result, error) {
		if err := op.Check(); err != nil {
			return store.Result{}, err
		}
		if op.TTL == from {
			op.TTL = to
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.advance(&op, false), nil
	}}
}
