package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/plainware/store"
)

// outcome is what came of a call of the client.
type outcome struct {
	reply    any
	err      error
	panicked any
}

// errNoReturn is the outcome of a client that ends the goroutine, as t.FailNow
// does.
var errNoReturn = errors.New("the client did not return")

// wait calls the client and returns what it returned, or an error as soon as ctx
// ends or Config.Timeout has passed.
//
// The client does not see the end of ctx. Those that watch it close their
// connection, which others use too, or give up dialing one that others wait
// for: one impatient caller, and a hundred others fail and dial. So the client
// is called in a goroutine which may be left behind, and which keeps its slot
// until the client returns.
func (s *Store) wait(ctx context.Context, client func(context.Context) (any, error)) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var late <-chan time.Time
	if s.timeout > 0 {
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > s.timeout {
			t := time.NewTimer(s.timeout)
			defer t.Stop()
			late = t.C
		}
	}
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("not sent, %d calls are waiting: %w", cap(s.slots), ctx.Err())
		case <-late:
			return nil, fmt.Errorf("not sent within %v, %d calls are waiting: %w", s.timeout, cap(s.slots), context.DeadlineExceeded)
		}
	}
	done := make(chan outcome, 1)
	go func() {
		o := outcome{err: errNoReturn}
		defer func() {
			o.panicked = recover()
			if s.slots != nil {
				<-s.slots
			}
			done <- o
		}()
		if o.err = ctx.Err(); o.err == nil { // else nobody is there any more
			o.err = errNoReturn
			o.reply, o.err = client(context.WithoutCancel(ctx))
		}
	}()
	select {
	case o := <-done:
		if o.panicked != nil {
			// Where the caller can recover from it, as it would without the
			// goroutine.
			panic(o.panicked)
		}
		return o.reply, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-late:
		return nil, fmt.Errorf("no answer within %v: %w", s.timeout, context.DeadlineExceeded)
	}
}

func (s *Store) call(ctx context.Context, args ...any) (any, error) {
	return s.callNode(ctx, s.do, args...)
}

func (s *Store) callNode(ctx context.Context, do Do, args ...any) (any, error) {
	return s.wait(ctx, func(ctx context.Context) (any, error) { return do(ctx, args...) })
}

// eval runs a script by its hash, or in full where the server has forgotten it:
// after a restart, a failover, or SCRIPT FLUSH.
func (s *Store) eval(ctx context.Context, sc *script, args []any) (any, error) {
	reply, err := s.call(ctx, args...)
	if isNoScript(err) {
		reply, err = s.call(ctx, sc.full(args)...)
	}
	return reply, err
}

// evalEach runs a script several times, in one round trip if the client can.
func (s *Store) evalEach(ctx context.Context, sc *script, cmds [][]any) ([]any, error) {
	if s.pipeline == nil || len(cmds) == 1 {
		replies := make([]any, len(cmds))
		for i, args := range cmds {
			var err error
			if replies[i], err = s.eval(ctx, sc, args); err != nil {
				return nil, err
			}
		}
		return replies, nil
	}
	replies, err := s.pipe(ctx, cmds)
	if err != nil {
		return nil, err
	}
	// Each node has a memory for scripts of its own.
	var again [][]any
	var where []int
	for i, r := range replies {
		if err, ok := r.(error); ok && isNoScript(err) {
			again = append(again, sc.full(cmds[i]))
			where = append(where, i)
		}
	}
	if again != nil {
		more, err := s.pipe(ctx, again)
		if err != nil {
			return nil, err
		}
		for i, r := range more {
			replies[where[i]] = r
		}
	}
	return replies, nil
}

func (s *Store) pipe(ctx context.Context, cmds [][]any) ([]any, error) {
	reply, err := s.wait(ctx, func(ctx context.Context) (any, error) { return s.pipeline(ctx, cmds) })
	if err != nil {
		return nil, err
	}
	replies, _ := reply.([]any)
	if len(replies) != len(cmds) {
		return nil, fmt.Errorf("the Pipeline function returned %d replies to %d commands", len(replies), len(cmds))
	}
	return replies, nil
}

// isNoScript reports whether the server does not know the hash of a script, and
// has done nothing. The word is not at the beginning where the client or the
// user's function has put something before it.
func isNoScript(err error) bool {
	return err != nil && strings.Contains(err.Error(), "NOSCRIPT")
}

// fail turns the error of a call into one that says where it is from, what
// store error it is, and what to do about it, and that has no key in it.
func (s *Store) fail(op string, err error) error {
	return fmt.Errorf("redisstore: %s: %w", op, s.explain(err))
}

func (s *Store) explain(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "unknown command"):
		// It quotes the arguments, cut to some length.
		return errors.New("the server does not know a command that is needed, or is set to refuse it")
	case strings.Contains(text, s.values), strings.Contains(text, s.registers):
		return errors.New("an error that contains keys and is not shown")
	case strings.Contains(text, "OOM command not allowed"):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case strings.Contains(text, "CROSSSLOT"):
		return fmt.Errorf("%w (the server is a cluster: set Config.Cluster)", err)
	case strings.HasPrefix(text, "MOVED "):
		return fmt.Errorf("%w (the server is a cluster: Config.Do needs a client for clusters)", err)
	}
	return err
}
