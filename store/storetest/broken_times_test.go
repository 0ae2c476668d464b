package storetest

import (
	"context"
	"iter"
	"time"

	"example.com/plainware/store"
)

var brokenTimes = []brokenStore{
	{
		"a negative ttl is for ever", "ttl/negative touch/refused keep/view",
		one(func(r *reference) store.Store {
			m := withTTL(func(ttl time.Duration) time.Duration { return max(ttl, 0) })(r).(*methods)
			m.keep = m
			return m
		}),
	}, {
		"the longest ttl overflows", "ttl/longest",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				if err := r.Put(bg, key, b, ttl); err != nil || time.Now().UnixNano()+int64(ttl) > 0 {
					return err
				}
				return r.Delete(bg, key)
			}}
		}),
	}, {
		"ttls are rounded down", "ttl/early",
		one(withTTL(func(ttl time.Duration) time.Duration {
			if d := ttl.Truncate(100 * time.Millisecond); d > 0 {
				return d
			}
			return ttl
		})),
	}, {
		"keys end late", "ttl/gone ttl/tiny ttl/replaced ttl/lost ttl/expired touch/ttl scan/expired",
		one(withTTL(func(ttl time.Duration) time.Duration {
			if ttl > 0 && ttl < hour {
				ttl += 5 * time.Second
			}
			return ttl
		})),
	}, {
		"ttls are whole milliseconds", "ttl/tiny",
		one(withTTL(func(ttl time.Duration) time.Duration {
			if ttl >= 0 && ttl < time.Millisecond {
				return 0
			}
			return ttl
		})),
	}, {
		"Put keeps the ttl", "ttl/replaced",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				r.mu.Lock()
				old, ok := r.find(key)
				r.mu.Unlock()
				if err := r.Put(bg, key, b, ttl); err != nil || !ok {
					return err
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				r.values[key] = value{r.values[key].bytes, old.ends}
				return nil
			}}
		}),
	}, {
		"a lost swap sets the ttl", "ttl/lost ttl/expired",
		one(func(r *reference) store.Store {
			return &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				ok, err := r.CompareAndSwap(bg, key, old, new, ttl)
				if !ok && err == nil {
					r.Touch(bg, key, ttl)
				}
				return ok, err
			}}
		}),
	}, {
		"a swap sees what has expired", "ttl/expired",
		one(func(r *reference) store.Store {
			return &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				r.mu.Lock()
				if v, ok := r.values[key]; ok && ended(v.ends) {
					r.values[key] = value{v.bytes, time.Now().Add(1)}
				}
				r.mu.Unlock()
				return r.CompareAndSwap(bg, key, old, new, ttl)
			}}
		}),
	}, {
		"Touch makes the key", "touch/absent touch/ttl",
		one(func(r *reference) store.Store {
			return &methods{reference: r, touch: func(key string, ttl time.Duration) (bool, error) {
				ok, err := r.Touch(bg, key, ttl)
				if err == nil && !ok {
					err = r.Put(bg, key, nil, ttl)
				}
				return ok, err
			}}
		}),
	}, {
		"Touch only prolongs", "touch/ttl",
		one(func(r *reference) store.Store {
			return &methods{reference: r, touch: func(key string, ttl time.Duration) (bool, error) {
				r.mu.Lock()
				v, ok := r.find(key)
				r.mu.Unlock()
				if ok && ttl > 0 && (v.ends.IsZero() || v.ends.After(time.Now().Add(ttl))) {
					return true, nil
				}
				return r.Touch(bg, key, ttl)
			}}
		}),
	}, {
		"expired keys are listed", "scan/expired",
		one(func(r *reference) store.Store { return hoarder{r} }),
	},
}

// hoarder reclaims nothing, and Scan does not mind.
type hoarder struct{ *reference }

func (s hoarder) Scan(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s.mu.Lock()
		var keys []string
		for k := range s.values {
			if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
				keys = append(keys, k)
			}
		}
		s.mu.Unlock()
		for _, k := range keys {
			if !yield(k, nil) {
				return
			}
		}
	}
}
