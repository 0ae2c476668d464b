package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
)

// A server that has forgotten the script, as after a restart, is sent it once.
func TestNoScript(t *testing.T) {
	ctx := t.Context()
	s := &server{}
	st := open(t, s, redisstore.Config{})
	op := store.Op{Space: "s", Key: "k", Ceil: 10, Step: 1, Min: 1, Max: 1}
	steps := []struct {
		flush bool
		want  []string
	}{
		{false, []string{"EVALSHA"}},
		{true, []string{"EVALSHA", "EVAL"}},
		{false, []string{"EVALSHA"}},
	}
	if got := s.commands(); !slices.Equal(got, []string{"EVALSHA", "EVAL"}) {
		t.Errorf("New sends %v", got)
	}
	for i, c := range steps {
		if c.flush {
			s.flushScripts()
		}
		r, err := st.Advance(ctx, op)
		if err != nil || r.Granted != 1 || r.Value != int64(i+1) {
			t.Errorf("step %d: %+v %v", i, r, err)
		}
		if got := s.commands(); !slices.Equal(got, c.want) {
			t.Errorf("step %d sends %v, want %v", i, got, c.want)
		}
	}
	// Another script has the same way back.
	s.flushScripts()
	if ok, err := st.CompareAndSwap(ctx, "k", nil, []byte("v"), 0); !ok || err != nil {
		t.Error(ok, err)
	}
}

// In a pipeline each node answers for itself: those that know the script have
// done their part, which must not be done again.
func TestNoScriptInPipeline(t *testing.T) {
	s := &server{}
	st := open(t, s, redisstore.Config{Cluster: true, Pipeline: s.pipeline})
	refused := map[string]bool{}
	s.intercept = func(w []string) (any, error, bool) {
		if w[0] == "EVALSHA" && strings.Contains(w[3], "forgetful") {
			refused[w[3]] = true
			return nil, errors.New("node 2: NOSCRIPT No matching script. Please use EVAL."), true
		}
		return nil, nil, false
	}
	var ops []store.Op
	for _, k := range []string{"a", "forgetful1", "b", "forgetful2", "a", "forgetful1"} {
		ops = append(ops, store.Op{Space: "s", Key: k, Ceil: 10, Step: 1, Min: 1, Max: 1})
	}
	res := make([]store.Result, len(ops))
	s.commands()
	if err := st.AdvanceBatch(t.Context(), ops, res); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{1, 1, 1, 1, 2, 2} {
		if res[i].Value != want || res[i].Granted != 1 {
			t.Errorf("operation %d: %+v, want the value %d", i, res[i], want)
		}
	}
	if got, want := s.commands(), []string{"EVALSHA", "EVALSHA", "EVALSHA", "EVALSHA", "EVAL", "EVAL"}; !slices.Equal(got, want) {
		t.Errorf("sends %v, want %v", got, want)
	}
	if len(refused) != 2 {
		t.Errorf("refused %v", refused)
	}
}

// calls are all methods that talk to the server.
func calls(st *redisstore.Store) map[string]func(ctx context.Context) error {
	op := store.Op{Space: "secret", Key: "secret", Ceil: 10, Step: 1, Min: 1, Max: 1}
	return map[string]func(ctx context.Context) error{
		"Get":    func(ctx context.Context) error { _, _, err := st.Get(ctx, "secret"); return err },
		"Put":    func(ctx context.Context) error { return st.Put(ctx, "secret", []byte("hidden"), 0) },
		"Delete": func(ctx context.Context) error { return st.Delete(ctx, "secret") },
		"CompareAndSwap": func(ctx context.Context) error {
			_, err := st.CompareAndSwap(ctx, "secret", nil, []byte("hidden"), 0)
			return err
		},
		"Touch":   func(ctx context.Context) error { _, err := st.Touch(ctx, "secret", time.Hour); return err },
		"Persist": func(ctx context.Context) error { _, err := st.Touch(ctx, "secret", 0); return err },
		"Advance": func(ctx context.Context) error { _, err := st.Advance(ctx, op); return err },
		"AdvanceBatch": func(ctx context.Context) error {
			return st.AdvanceBatch(ctx, []store.Op{op, op}, make([]store.Result, 2))
		},
		"AdvanceAll": func(ctx context.Context) error {
			_, err := st.AdvanceAll(ctx, []store.Op{op}, make([]store.Result, 1))
			return err
		},
		"Scan": func(ctx context.Context) error {
			for _, err := range st.Scan(ctx, "secret") {
				return err
			}
			return nil
		},
	}
}

// No error has a key or a value in it, even where the server quotes them.
// (ratelimit 23)
func TestErrorsContainNoKeys(t *testing.T) {
	for name, refusal := range map[string]func(w []string) error{
		"unknown command": func(w []string) error {
			return fmt.Errorf("ERR unknown command '%s', with args beginning with: '%s' ", w[0], strings.Join(w[1:], "' '"))
		},
		"cut": func(w []string) error {
			return fmt.Errorf("proxy: ERR unknown command `%s`, with args beginning with: `%.20s`", w[0], strings.Join(w[1:], "`, `"))
		},
		"key": func(w []string) error { return fmt.Errorf("%s is busy", strings.Join(w, " ")) },
		"alone": func(w []string) error {
			return fmt.Errorf("%s", strings.Join(w[1:], ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{}
			st := open(t, s, redisstore.Config{})
			s.intercept = func(w []string) (any, error, bool) { return nil, refusal(w), true }
			for method, call := range calls(st) {
				err := call(t.Context())
				if err == nil {
					t.Fatalf("%s: no error", method)
				}
				if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "secret") || strings.Contains(text, "hidden") {
					t.Errorf("%s: %s", method, text)
				}
				for e := err; e != nil; e = errors.Unwrap(e) {
					if strings.Contains(e.Error(), "secret") {
						t.Errorf("%s: within: %v", method, e)
					}
				}
			}
		})
	}
}

// Errors stay what they are, and say what to do where that is known.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error
		says string
	}{
		{errors.New("OOM command not allowed when used memory > 'maxmemory'."), store.ErrFull, "OOM"},
		{errors.New("CROSSSLOT Keys in request don't hash to the same slot"), nil, "set Config.Cluster"},
		{errors.New("MOVED 3999 127.0.0.1:6381"), nil, "client for clusters"},
		{context.DeadlineExceeded, context.DeadlineExceeded, "deadline"},
		{errors.New("LOADING Redis is loading the dataset in memory"), nil, "LOADING"},
	} {
		s := &server{}
		st := open(t, s, redisstore.Config{})
		s.intercept = func([]string) (any, error, bool) { return nil, c.err, true }
		for method, call := range calls(st) {
			err := call(t.Context())
			if !errors.Is(err, c.err) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s with %q: %v", method, c.err, err)
			}
		}
	}
}

// A reply that cannot be is an error, with no result.
func TestStrangeReplies(t *testing.T) {
	for _, reply := range []any{
		nil, "", "x", int64(7), int64(-1), 1.5, true, []any{}, []any{nil, nil}, []any{"1"}, map[any]any{},
		[]any{int64(1), int64(2), int64(1)}, []any{errors.New("ERR within")}, struct{}{},
	} {
		s := &server{}
		st := open(t, s, redisstore.Config{})
		s.intercept = func([]string) (any, error, bool) { return reply, nil, true }
		for method, call := range calls(st) {
			if list, ok := reply.([]any); ok && len(list) == 1 && method == "Get" && list[0] == "1" {
				continue // this is one
			}
			if err := call(t.Context()); err == nil {
				t.Errorf("%s takes the reply %#v", method, reply)
			}
		}
	}
}

// The caller has its answer when its context ends, though the client pays no
// attention to it, and what is left behind is bounded. (ratelimit 16)
func TestClientIgnoresContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		const most = 8
		st := open(t, s, redisstore.Config{MaxCalls: most})
		s.commands()
		stalled := make(chan struct{})
		s.mu.Lock()
		s.intercept = func([]string) (any, error, bool) { <-stalled; return nil, nil, false }
		s.mu.Unlock()

		for method, call := range calls(st) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			start := time.Now()
			err := call(ctx)
			if took := time.Since(start); took != 20*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v after %v", method, err, took)
			}
			cancel()
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(20*time.Millisecond, cancel)
				start := time.Now()
				_, _, err := st.Get(ctx, "k")
				if took := time.Since(start); took != 20*time.Millisecond || !errors.Is(err, context.Canceled) {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		wg.Wait()
		if n := len(s.commands()); n != most {
			t.Errorf("the client has %d calls, want %d", n, most)
		}
		// A context without an end has that of Config.Timeout.
		start := time.Now()
		_, _, err := st.Get(t.Context(), "k")
		if took := time.Since(start); took != 5*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %v", err, took)
		}
		// When the server is back, so is the store, and no goroutine is left
		// at the end of the bubble.
		close(stalled)
		synctest.Wait()
		if err := st.Put(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Error(err)
		}
	})
}

// A context that ended before the call sends nothing.
func TestEndedContext(t *testing.T) {
	s := &server{}
	st := open(t, s, redisstore.Config{})
	s.commands()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for method, call := range calls(st) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if got := s.commands(); got != nil {
		t.Errorf("sent %v", got)
	}
}

// The client sees the values of the caller's context and not its end, by which
// it would close connections that others use.
func TestClientContext(t *testing.T) {
	type key struct{}
	s := &server{}
	var seen context.Context
	st := open(t, s, redisstore.Config{Do: func(ctx context.Context, args ...any) (any, error) {
		seen = ctx
		return s.do(ctx, args...)
	}})
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "trace"), time.Hour)
	defer cancel()
	if _, _, err := st.Get(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if _, ok := seen.Deadline(); ok || seen.Done() != nil || seen.Value(key{}) != "trace" {
		t.Errorf("the client has %v", seen)
	}
}

// A client that ends the goroutine is an error, not a caller that waits for ever.
func TestClientExits(t *testing.T) {
	s := &server{}
	st := open(t, s, redisstore.Config{MaxCalls: 1})
	s.intercept = func([]string) (any, error, bool) { runtime.Goexit(); return nil, nil, true }
	for range 3 {
		if _, _, err := st.Get(t.Context(), "k"); err == nil || !strings.Contains(err.Error(), "did not return") {
			t.Errorf("%v", err)
		}
	}
}

// A panic of the client is the caller's, who may recover from it, and does not
// keep a slot.
func TestClientPanics(t *testing.T) {
	s := &server{}
	st := open(t, s, redisstore.Config{MaxCalls: 1})
	s.intercept = func([]string) (any, error, bool) { panic("bad client") }
	for range 3 {
		func() {
			defer func() {
				if p := recover(); p != "bad client" {
					t.Errorf("recovered %v", p)
				}
			}()
			st.Get(t.Context(), "k")
		}()
	}
	s.intercept = nil
	if _, _, err := st.Get(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

// A Pipeline that returns the wrong number of replies is found out.
func TestPipelineShort(t *testing.T) {
	s := &server{}
	var replies []any
	var failure error
	st := open(t, s, redisstore.Config{Cluster: true, Pipeline: func(context.Context, [][]any) ([]any, error) { return replies, failure }})
	ops := []store.Op{{Space: "s", Key: "a"}, {Space: "s", Key: "b"}}
	for _, replies = range [][]any{nil, {}, {nil}, {nil, nil}, {nil, nil, nil}, {errors.New("ERR one"), nil}} {
		if err := st.AdvanceBatch(t.Context(), ops, make([]store.Result, 2)); err == nil {
			t.Errorf("takes %v", replies)
		}
	}
	failure = errors.New("broken pipe")
	if err := st.AdvanceBatch(t.Context(), ops, make([]store.Result, 2)); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
}

// What a call costs beside the client: a goroutine, and these allocations.
func TestAllocations(t *testing.T) {
	answer := []any{int64(1_700_000_000), int64(123_456_000), int64(1), int64(1), int64(1000)}
	st := open(t, nil, redisstore.Config{Do: func(context.Context, ...any) (any, error) { return answer, nil }})
	op := store.Op{Space: "s", Key: "k", Clock: true, Ceil: 1e9, Step: 1000, Min: 1, Max: 1}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := st.Advance(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}); n > 18 {
		t.Errorf("%v allocations, want at most 18", n)
	}
}
