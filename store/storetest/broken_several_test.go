package storetest

import (
	"errors"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/plainware/store"
)

var brokenSeveral = []brokenStore{
	{
		"a batch is sorted", "batch/order ...",
		one(func(r *reference) store.Store {
			return &methods{reference: r, batch: func(ops []store.Op, res []store.Result) error {
				sorted := slices.Clone(ops)
				slices.SortStableFunc(sorted, func(a, b store.Op) int { return -strings.Compare(a.Space+a.Key, b.Space+b.Key) })
				return r.AdvanceBatch(bg, sorted, res)
			}}
		}),
	}, {
		"a batch reads before it writes", "batch/same batch/sizes batch/independent",
		one(func(r *reference) store.Store {
			return &methods{reference: r, batch: func(ops []store.Op, res []store.Result) error {
				for i := range ops {
					if err := ops[i].Check(); err != nil {
						return err
					}
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				for i := range ops {
					res[i] = r.advance(&ops[i], true)
				}
				for i := range ops {
					r.advance(&ops[i], false)
				}
				return nil
			}}
		}),
	}, {
		"a batch ends where one is refused", "batch/independent batch/same",
		one(func(r *reference) store.Store {
			return &methods{reference: r, batch: func(ops []store.Op, res []store.Result) error {
				for i := range ops {
					if err := ops[i].Check(); err != nil {
						return err
					}
				}
				clear(res)
				r.mu.Lock()
				defer r.mu.Unlock()
				for i := range ops {
					if res[i] = r.advance(&ops[i], false); res[i].Granted == 0 {
						break
					}
				}
				return nil
			}}
		}),
	}, {
		"batches are bounded", "batch/sizes",
		one(func(r *reference) store.Store {
			return &methods{reference: r, batch: func(ops []store.Op, res []store.Result) error {
				if len(ops) == 0 || len(ops) > 256 {
					return errors.New("syntax error")
				}
				return r.AdvanceBatch(bg, ops, res)
			}}
		}),
	}, {
		"bad operations are left out of a batch", "batch/refused",
		one(func(r *reference) store.Store {
			return &methods{reference: r, batch: func(ops []store.Op, res []store.Result) error {
				for i, op := range ops {
					if op.Check() == nil {
						r.AdvanceBatch(bg, []store.Op{op}, res[i:i+1])
					}
				}
				return nil
			}}
		}),
	}, {
		"a batch looks and writes", "batch/contended",
		one(func(r *reference) store.Store {
			one := looking(r, nil).(*methods)
			return &methods{reference: r, batch: func(ops []store.Op, res []store.Result) (err error) {
				for i := range ops {
					if err := ops[i].Check(); err != nil {
						return err
					}
				}
				for i := range ops {
					res[i], err = one.advance(ops[i])
				}
				return err
			}}
		}),
	}, {
		"a refused all heals nothing", "all/heal",
		one(func(r *reference) store.Store {
			return &methods{reference: r, all: func(ops []store.Op, res []store.Result) (bool, error) {
				r.mu.Lock()
				before := maps.Clone(r.registers)
				r.mu.Unlock()
				ok, err := r.AdvanceAll(bg, ops, res)
				if ok || err != nil {
					return ok, err
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				for i := range ops {
					if id := r.name(&ops[i]); ops[i].Clock {
						r.registers[id] = before[id]
					}
				}
				return false, nil
			}}
		}),
	}, {
		"all grants the least", "all/applied",
		one(func(r *reference) store.Store {
			return &methods{reference: r, all: func(ops []store.Op, res []store.Result) (bool, error) {
				least := slices.Clone(ops)
				for i := range least {
					if err := least[i].Check(); err != nil {
						return false, err
					}
					least[i].Max = least[i].Min
				}
				ok, err := r.AdvanceAll(bg, least, res)
				if !ok && err == nil {
					return r.AdvanceAll(bg, ops, res)
				}
				return ok, err
			}}
		}),
	}, {
		"all leaves what came before the refusal", "all/refused all/absent all/contended",
		one(func(r *reference) store.Store {
			return &methods{reference: r, all: func(ops []store.Op, res []store.Result) (bool, error) {
				ok, err := r.AdvanceAll(bg, ops, res)
				for i, op := range ops {
					if ok || err != nil || res[i].Granted < op.Min {
						break
					}
					r.Advance(bg, op)
				}
				return ok, err
			}}
		}),
	}, {
		"all makes registers", "all/absent",
		one(func(r *reference) store.Store {
			return &methods{reference: r, all: func(ops []store.Op, res []store.Result) (bool, error) {
				ok, err := r.AdvanceAll(bg, ops, res)
				for _, op := range ops {
					if !ok && err == nil && !op.Clock {
						op.Step, op.Min, op.Max = 0, 1, 1
						r.Advance(bg, op)
					}
				}
				return ok, err
			}}
		}),
	}, {
		"all takes equal registers", "all/equal",
		one(func(r *reference) store.Store {
			return &methods{reference: r, all: func(ops []store.Op, res []store.Result) (bool, error) {
				if len(ops) == 3 && ops[0].Key == ops[2].Key {
					return true, r.AdvanceBatch(bg, ops, res)
				}
				return r.AdvanceAll(bg, ops, res)
			}}
		}),
	}, {
		"all looks and writes", "all/contended all/heal",
		one(func(r *reference) store.Store {
			return &methods{reference: r, all: func(ops []store.Op, res []store.Result) (bool, error) {
				peek := slices.Clone(ops)
				peek = append(peek, store.Op{Space: "never", Key: "fits", Ceil: 0, Step: 1, Min: 1, Max: 1})
				found := make([]store.Result, len(peek))
				if _, err := r.AdvanceAll(bg, peek, found); err != nil {
					return false, err
				}
				copy(res, found)
				for i, op := range ops {
					if res[i].Granted < op.Min {
						return false, nil
					}
				}
				time.Sleep(hold)
				return true, r.AdvanceBatch(bg, ops, res)
			}}
		}),
	},
}

var brokenOptional = []brokenStore{
	{
		"Scan finds the prefix anywhere", "scan/prefix scan/odd",
		one(func(r *reference) store.Store {
			return &methods{reference: r, scan: func(prefix string) iter.Seq2[string, error] {
				if run, rest, ok := strings.Cut(prefix, "/"); ok {
					return r.scan(func(key string) bool {
						return strings.HasPrefix(key, run+"/") && strings.Contains(key[len(run)+1:], rest)
					})
				}
				return r.scan(func(key string) bool { return strings.Contains(key, prefix) })
			}}
		}),
	}, {
		"Scan takes a pattern", "scan/odd",
		one(func(r *reference) store.Store {
			return &methods{reference: r, scan: func(prefix string) iter.Seq2[string, error] {
				p := strings.NewReplacer("%", ".*", "_", ".").Replace(regexp.QuoteMeta(prefix))
				like := regexp.MustCompile("(?s)^" + p)
				return r.scan(like.MatchString)
			}}
		}),
	}, {
		"Scan holds the lock", "scan/many",
		one(func(r *reference) store.Store {
			var mu sync.RWMutex
			return &methods{reference: r, delete: func(key string) error {
				for !mu.TryLock() {
					time.Sleep(time.Second)
				}
				defer mu.Unlock()
				return r.Delete(bg, key)
			}, scan: func(prefix string) iter.Seq2[string, error] {
				return func(yield func(string, error) bool) {
					mu.RLock()
					defer mu.RUnlock()
					r.Scan(bg, prefix)(yield)
				}
			}}
		}),
	}, {
		"Scan lists a page", "scan/many",
		one(func(r *reference) store.Store {
			return &methods{reference: r, scan: func(prefix string) iter.Seq2[string, error] {
				return func(yield func(string, error) bool) {
					n := 0
					for k := range r.Scan(bg, prefix) {
						if n++; n > 100 || !yield(k, nil) {
							return
						}
					}
				}
			}}
		}),
	}, {
		"Scan lists registers", "scan/values",
		one(func(r *reference) store.Store {
			return &methods{reference: r, scan: func(prefix string) iter.Seq2[string, error] {
				return func(yield func(string, error) bool) {
					for k := range r.Scan(bg, prefix) {
						if !yield(k, nil) {
							return
						}
					}
					r.mu.Lock()
					var names []string
					for id := range r.registers {
						names = append(names, id[0]+"/"+id[1])
					}
					r.mu.Unlock()
					for _, k := range names {
						if strings.HasPrefix(k, prefix) && !yield(k, nil) {
							return
						}
					}
				}
			}}
		}),
	}, {
		"Keep is another store", "keep/view",
		one(func(r *reference) store.Store { return &methods{reference: r, keep: newReference()} }),
	},
}
