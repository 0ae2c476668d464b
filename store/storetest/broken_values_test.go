package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/plainware/store"
)

var brokenValues = []brokenStore{
	{
		"absence is an error", "value/absent ...",
		one(func(r *reference) store.Store {
			return &methods{reference: r, get: func(key string) ([]byte, bool, error) {
				b, ok, err := r.Get(bg, key)
				if !ok && err == nil {
					err = errors.New("not found")
				}
				return b, ok, err
			}}
		}),
	}, {
		"Put does not overwrite", "value/put ...",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				if err := store.CheckTTL(ttl); err != nil {
					return err
				}
				_, err := r.CompareAndSwap(bg, key, nil, append([]byte{}, b...), ttl)
				return err
			}}
		}),
	}, {
		"Put of nil deletes", "value/empty",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				if b == nil {
					return r.Delete(bg, key)
				}
				return r.Put(bg, key, b, ttl)
			}}
		}),
	}, {
		"an empty value is absent", "value/empty value/model swap/empty touch/absent",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				if len(b) == 0 && store.CheckKey(key) == nil && ttl >= 0 {
					return r.Delete(bg, key)
				}
				return r.Put(bg, key, b, ttl)
			}, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				if len(old) == 0 {
					old = nil
				}
				if len(new) == 0 {
					new = nil
				}
				return r.CompareAndSwap(bg, key, old, new, ttl)
			}}
		}),
	}, {
		"values are text", "value/bytes value/large",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				return r.Put(bg, key, bytes.ToValidUTF8(b, []byte("\ufffd")), ttl)
			}}
		}),
	}, {
		"values end at 64 KiB", "value/large",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				return r.Put(bg, key, b[:min(len(b), 1<<16)], ttl)
			}}
		}),
	}, {
		"the argument is kept", "value/argument",
		one(func(r *reference) store.Store {
			return &methods{reference: r, put: func(key string, b []byte, ttl time.Duration) error {
				if err := r.Put(bg, key, b, ttl); err != nil || b == nil {
					return err
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				r.values[key] = value{b, r.values[key].ends}
				return nil
			}}
		}),
	}, {
		"the result is shared", "value/result use/concurrent",
		one(func(r *reference) store.Store {
			return &methods{reference: r, get: func(key string) ([]byte, bool, error) {
				if err := store.CheckKey(key); err != nil {
					return nil, false, err
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				v, ok := r.find(key)
				if !ok {
					return nil, false, nil
				}
				return v.bytes, true, nil
			}}
		}),
	}, {
		"Delete of an absent key is an error", "value/delete ...",
		one(func(r *reference) store.Store {
			return &methods{reference: r, delete: func(key string) error {
				_, ok, err := r.Get(bg, key)
				if !ok && err == nil {
					return errors.New("no such key")
				}
				return r.Delete(bg, key)
			}}
		}),
	}, {
		"a lost swap is an error", "swap/value ...",
		one(func(r *reference) store.Store {
			return &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				ok, err := r.CompareAndSwap(bg, key, old, new, ttl)
				if !ok && err == nil {
					err = errors.New("conflict")
				}
				return ok, err
			}}
		}),
	}, {
		"a nil old matches anything", "swap/create ...",
		one(func(r *reference) store.Store {
			return &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				if b, ok, _ := r.Get(bg, key); ok && old == nil {
					old = b
				}
				return r.CompareAndSwap(bg, key, old, new, ttl)
			}}
		}),
	}, {
		"a nil new is the empty value", "swap/delete swap/empty swap/winner swap/handles value/model keep/view",
		one(func(r *reference) store.Store {
			m := &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				return r.CompareAndSwap(bg, key, old, append([]byte{}, new...), ttl)
			}}
			m.keep = m
			return m
		}),
	}, {
		"a nil old matches the empty value", "swap/empty value/model",
		one(func(r *reference) store.Store {
			return &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				if b, ok, _ := r.Get(bg, key); ok && len(b) == 0 && old == nil {
					old = b
				}
				return r.CompareAndSwap(bg, key, old, new, ttl)
			}}
		}),
	}, {
		"a swap to the same value is none", "swap/same value/model ttl/replaced",
		one(func(r *reference) store.Store {
			return &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				if old != nil && new != nil && bytes.Equal(old, new) {
					return false, store.CheckTTL(ttl)
				}
				return r.CompareAndSwap(bg, key, old, new, ttl)
			}}
		}),
	}, {
		"a swap is a Get and a Put", "swap/winner swap/count swap/handles keep/view",
		one(func(r *reference) store.Store {
			m := &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
				return getAndPut(r, key, old, new, ttl)
			}}
			m.keep = m
			return m
		}),
	}, {
		"each handle has a lock of its own", "swap/handles",
		func() (store.Store, store.Store) {
			r := newReference()
			handle := func() store.Store {
				lock := make(chan struct{}, 1)
				m := &methods{reference: r, swap: func(key string, old, new []byte, ttl time.Duration) (bool, error) {
					lock <- struct{}{}
					defer func() { <-lock }()
					return getAndPut(r, key, old, new, ttl)
				}}
				m.keep = m
				return m
			}
			return handle(), handle()
		},
	}, {
		"spaces in keys are replaced", "key/awkward register/keys scan/odd",
		one(func(r *reference) store.Store {
			r.name = func(op *store.Op) [2]string {
				return [2]string{strings.ReplaceAll(op.Space, " ", "_"), strings.ReplaceAll(op.Key, " ", "_")}
			}
			return renamed(func(key string) string { return strings.ReplaceAll(key, " ", "_") })(r)
		}),
	}, {
		"keys are folded to lower case", "key/distinct scan/prefix scan/odd",
		one(renamed(func(key string) string {
			// All keys of a rule begin with the same upper-case letters.
			if run, rest, ok := strings.Cut(key, "/"); ok && store.CheckKey(key) == nil {
				return run + "/" + strings.ToLower(rest)
			}
			return key
		})),
	}, {
		"keys end at 255 bytes", "key/long key/refused touch/refused",
		one(renamed(func(key string) string {
			if strings.Contains(key, "é") {
				return key
			}
			return key[:min(len(key), 255)]
		})),
	}, {
		"broken keys are repaired", "key/refused touch/refused",
		one(renamed(func(key string) string { return strings.ToValidUTF8(key, "\ufffd") })),
	}, {
		"errors name the key", "key/silent",
		one(func(r *reference) store.Store {
			return &methods{reference: r, get: func(key string) ([]byte, bool, error) {
				b, ok, err := r.Get(bg, key)
				if err != nil {
					err = fmt.Errorf("get %q: %w", key, err)
				}
				return b, ok, err
			}}
		}),
	}, {
		"two calls at a time are too many", "use/concurrent ...",
		one(func(r *reference) store.Store {
			var calls atomic.Int64
			return &methods{reference: r, get: func(key string) ([]byte, bool, error) {
				defer calls.Add(-1)
				if calls.Add(1) > 1 {
					return nil, false, errors.New("database is locked")
				}
				time.Sleep(hold)
				return r.Get(bg, key)
			}}
		}),
	}, {
		"a Get may have the answer to an earlier one", "use/visible use/handles",
		one(func(r *reference) store.Store {
			type answer struct {
				b    []byte
				ok   bool
				err  error
				done chan struct{}
			}
			var mu sync.Mutex
			flying := map[string]*answer{}
			return &methods{reference: r, get: func(key string) ([]byte, bool, error) {
				mu.Lock()
				a, ok := flying[key]
				if !ok {
					a = &answer{done: make(chan struct{})}
					flying[key] = a
					mu.Unlock()
					a.b, a.ok, a.err = r.Get(bg, key)
					time.Sleep(30 * hold)
					mu.Lock()
					delete(flying, key)
					close(a.done)
				}
				mu.Unlock()
				<-a.done
				return bytes.Clone(a.b), a.ok, a.err
			}, put: func(key string, b []byte, ttl time.Duration) error {
				time.Sleep(5 * hold)
				return r.Put(bg, key, b, ttl)
			}}
		}),
	}, {
		"the second handle caches", "use/handles",
		func() (store.Store, store.Store) {
			r := newReference()
			cache := map[string][]byte{}
			var mu sync.Mutex
			return r, &methods{reference: r, get: func(key string) ([]byte, bool, error) {
				mu.Lock()
				defer mu.Unlock()
				if b, ok := cache[key]; ok {
					return bytes.Clone(b), true, nil
				}
				b, ok, err := r.Get(bg, key)
				if ok {
					cache[key] = bytes.Clone(b)
				}
				return b, ok, err
			}}
		},
	}, {
		"a cancelled call waits", "use/cancelled",
		one(func(r *reference) store.Store { return late{r} }),
	}, {
		"an interrupted swap is taken for one", "use/interrupted",
		one(func(r *reference) store.Store { return hopeful{r} }),
	}, {
		"the second Close is an error", "use/close",
		one(func(r *reference) store.Store {
			closed := false
			return &methods{reference: r, close: func() error {
				if closed {
					return store.ErrClosed
				}
				closed = true
				return nil
			}}
		}),
	},
}

// getAndPut is CompareAndSwap without its point.
func getAndPut(r *reference, key string, old, new []byte, ttl time.Duration) (bool, error) {
	if err := store.CheckTTL(ttl); err != nil {
		return false, err
	}
	b, ok, err := r.Get(bg, key)
	if err != nil || ok != (old != nil) || !bytes.Equal(b, old) {
		return false, err
	}
	time.Sleep(hold)
	if new == nil {
		return true, r.Delete(bg, key)
	}
	return true, r.Put(bg, key, new, ttl)
}

// late notices only after a while that the context has ended.
type late struct{ *reference }

func (s late) Get(ctx context.Context, key string) ([]byte, bool, error) {
	if ctx.Err() != nil {
		time.Sleep(10 * time.Second)
		return nil, false, ctx.Err()
	}
	return s.reference.Get(ctx, key)
}

// hopeful reports what it has sent as done.
type hopeful struct{ *reference }

func (s hopeful) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	if _, ok := ctx.Deadline(); ok {
		time.Sleep(7 * hold)
	}
	if ctx.Err() == context.DeadlineExceeded {
		return true, nil
	}
	return s.reference.CompareAndSwap(ctx, key, old, new, ttl)
}
