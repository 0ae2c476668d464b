package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"example.com/plainware/store"
)

// Do sends a command and returns its reply. Every argument is a string, the
// first is the name of the command. An error of the server is returned as an
// error that has the server's text. The types of replies that are understood are
// those of go-redis, rueidis, valkey-go and redigo: integers as int64 or int,
// text as string or []byte, lists as []any with nil for null, and maps.
type Do func(ctx context.Context, args ...any) (any, error)

// Config configures [New].
type Config struct {
	// Do is the client. Required. It must be safe for concurrent use.
	Do Do

	// Pipeline sends several commands without waiting in between and returns
	// one reply for each, in their order. A command that the server refused has
	// its error, a value of type error, in place of a reply. It is used for
	// batches on a cluster; without it, those go one command after another.
	Pipeline func(ctx context.Context, cmds [][]any) ([]any, error)

	// Cluster says that the server is a cluster. Then a script touches the
	// registers of one Key only, and [Store.AdvanceAll] refuses others, unless
	// Prefix has a hash tag.
	Cluster bool

	// Nodes returns a Do for each master of a cluster. It is used by
	// [Store.Scan] and [Store.Keep], which fail on a cluster without it.
	Nodes func(ctx context.Context) ([]Do, error)

	// Prefix begins every key in the server. Default "plainware:". Up to 64
	// bytes of UTF-8 without braces, except for a hash tag, as in
	// "{plainware}:", which puts everything into one slot of a cluster: then
	// nothing is refused there, and one node does all the work. Stores with the
	// same Prefix share their contents.
	Prefix string

	// Timeout bounds the wait for the reply to each command, whatever the
	// context of the caller. Default 5 s; negative for none.
	//
	// Callers have their answer when their context ends or Timeout passes. Do is
	// not told: its context has the caller's values and never ends, and the
	// client takes the reply off its connection in its own time. So the
	// client must have time limits of its own, as all have by default.
	Timeout time.Duration

	// MaxCalls is how many commands may be at the client, those included whose
	// callers have gone. Others wait for their turn, until their context ends
	// or Timeout passes, and then were not sent. So it bounds the goroutines
	// that a server that has stopped answering leaves behind, and the work
	// that is done for nobody. Default 256; negative for no bound.
	MaxCalls int

	// TrustKeep makes [Store.Keep] ask the server nothing. It is for servers
	// that do not show their settings, as hosted ones do, and for operators who
	// know that a crash may lose the last second and accept it. That values are
	// not evicted and survive is then your word.
	TrustKeep bool
}

const (
	defaultPrefix   = "plainware:"
	defaultTimeout  = 5 * time.Second
	defaultMaxCalls = 256
	maxPrefix       = 64

	// maxValue is the longest value. The server would take more, but it does
	// one thing at a time, and a longer one makes everybody wait.
	maxValue = 64 << 20
)

// Store is a [store.Store] on a Redis or Valkey server. Make one with [New].
//
// It holds no connection and has no goroutine between calls, so there is
// nothing to close: the client belongs to the user.
type Store struct {
	do       Do
	pipeline func(ctx context.Context, cmds [][]any) ([]any, error)
	nodes    func(ctx context.Context) ([]Do, error)
	cluster  bool
	split    bool // a script must not have registers of several Keys
	trust    bool
	timeout  time.Duration
	slots    chan struct{} // one element per call at the client; nil: no bound

	values    string // what a value's key begins with
	registers string // and a register's
}

var (
	_ store.Store           = (*Store)(nil)
	_ store.BatchRegisters  = (*Store)(nil)
	_ store.AtomicRegisters = (*Store)(nil)
	_ store.Toucher         = (*Store)(nil)
	_ store.Scanner         = (*Store)(nil)
	_ store.Keeper          = (*Store)(nil)
)

// New returns a store. It sends one command, so that a server that does not
// answer, does not run scripts, or a client that is adapted wrongly, is found
// here.
func New(ctx context.Context, c Config) (*Store, error) {
	var errs []error
	if c.Do == nil {
		errs = append(errs, errors.New("redisstore: Do: required"))
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	plain, tagged := cutHashTag(c.Prefix)
	if len(c.Prefix) > maxPrefix || !utf8.ValidString(plain) || strings.ContainsAny(plain, "{}\x00") {
		errs = append(errs, fmt.Errorf("redisstore: Prefix: must be at most %d bytes of UTF-8 without a zero byte, and without braces except for one hash tag (got %q)", maxPrefix, c.Prefix))
	}
	if c.Nodes != nil && !c.Cluster {
		errs = append(errs, errors.New("redisstore: Nodes: has a meaning only with Cluster"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = defaultMaxCalls
	}
	s := &Store{
		do:        c.Do,
		pipeline:  c.Pipeline,
		nodes:     c.Nodes,
		cluster:   c.Cluster,
		split:     c.Cluster && !tagged,
		trust:     c.TrustKeep,
		timeout:   c.Timeout,
		values:    c.Prefix + "v:",
		registers: c.Prefix + "r:{",
	}
	if c.MaxCalls > 0 {
		s.slots = make(chan struct{}, c.MaxCalls)
	}
	// The script with no registers tells the time.
	reply, err := s.eval(ctx, advance, advance.args(0, 0))
	if err == nil {
		_, _, err = parseHeader(reply)
	}
	if err != nil {
		return nil, s.fail("New", err)
	}
	return s, nil
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	if err := store.CheckKey(key); err != nil {
		return nil, false, err
	}
	// MGET and not GET: a null inside a list is nil with every client, while a
	// null reply is an error of the client's own with most.
	reply, err := s.call(ctx, "MGET", s.values+key)
	if err == nil {
		value, ok, err = parseGet(reply)
	}
	if err != nil {
		return nil, false, s.fail("Get", err)
	}
	return value, ok, nil
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := cmp.Or(store.CheckKey(key), store.CheckTTL(ttl), checkSize(value)); err != nil {
		return err
	}
	args := []any{"SET", s.values + key, string(value)}
	if ttl != 0 {
		args = append(args, "PX", milliseconds(ttl))
	}
	reply, err := s.call(ctx, args...)
	if err == nil {
		err = parseOK(reply)
	}
	if err != nil {
		return s.fail("Put", err)
	}
	return nil
}

// CompareAndSwap implements [store.Store].
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	if new == nil {
		ttl = 0
	}
	if err := cmp.Or(store.CheckKey(key), store.CheckTTL(ttl), checkSize(old), checkSize(new)); err != nil {
		return false, err
	}
	// "+" and the value, or nothing at all: nil and empty differ.
	oldArg, newArg := "", ""
	if old != nil {
		oldArg = "+" + string(old)
	}
	if new != nil {
		newArg = "+" + string(new)
	}
	reply, err := s.eval(ctx, swap, append(swap.args(1, 3), s.values+key, oldArg, newArg, milliseconds(ttl)))
	if err == nil {
		swapped, err = parseBool(reply)
	}
	if err != nil {
		return false, s.fail("CompareAndSwap", err)
	}
	return swapped, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	reply, err := s.call(ctx, "DEL", s.values+key)
	if err == nil {
		_, err = parseBool(reply)
	}
	if err != nil {
		return s.fail("Delete", err)
	}
	return nil
}

// Touch implements [store.Toucher].
func (s *Store) Touch(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	if err := cmp.Or(store.CheckKey(key), store.CheckTTL(ttl)); err != nil {
		return false, err
	}
	var reply any
	if ttl != 0 {
		reply, err = s.call(ctx, "PEXPIRE", s.values+key, milliseconds(ttl))
	} else {
		reply, err = s.eval(ctx, persist, append(persist.args(1, 0), s.values+key))
	}
	if err == nil {
		ok, err = parseBool(reply)
	}
	if err != nil {
		return false, s.fail("Touch", err)
	}
	return ok, nil
}

// cutHashTag returns prefix without the braces of its hash tag, if it has one.
func cutHashTag(prefix string) (plain string, tagged bool) {
	before, rest, ok1 := strings.Cut(prefix, "{")
	tag, after, ok2 := strings.Cut(rest, "}")
	if !ok1 || !ok2 || tag == "" {
		return prefix, false
	}
	return before + tag + after, true
}

func checkSize(value []byte) error {
	if len(value) > maxValue {
		return fmt.Errorf("%w: at most %d bytes (got %d)", store.ErrSize, maxValue, len(value))
	}
	return nil
}

// milliseconds rounds up: a key may live a little longer, and never less. The
// server expires a key only when its clock has passed the millisecond, so that
// what is cut off from the time of the command does not matter.
func milliseconds(ttl time.Duration) string {
	return strconv.FormatInt(int64(ceilMilliseconds(ttl)), 10)
}

func ceilMilliseconds(ttl time.Duration) time.Duration {
	n := ttl / time.Millisecond
	if ttl%time.Millisecond > 0 {
		n++
	}
	return n
}

// Keys returns which arguments of a command are keys: args[i:j]. It is for
// clients that find the node of a cluster by the keys and have to be told
// them, see the package's example for rueidis.
func Keys(args []any) (i, j int) {
	if len(args) == 0 {
		return 0, 0
	}
	switch name, _ := args[0].(string); name {
	case "EVAL", "EVALSHA":
		if len(args) < 3 {
			break
		}
		s, _ := args[2].(string)
		if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= len(args)-3 {
			return 3, 3 + n
		}
	case "MGET", "SET", "DEL", "PEXPIRE":
		if len(args) > 1 {
			return 1, 2
		}
	}
	return len(args), len(args)
}
