package redisstore

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"example.com/plainware/store"
)

// What is parsed here comes from outside, through a function that a user wrote.
// Nothing is believed that could not be so, and no error quotes a reply.

// replyError says what was expected, and the type of what came.
func replyError(want string, got any) error {
	if err, ok := got.(error); ok {
		return err // an error within a list, as clients return it
	}
	return fmt.Errorf("the reply is not %s (got %T)", want, got)
}

// integer takes what clients make of an integer.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	}
	s, ok := text(v)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == s
}

func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	}
	return "", false
}

func parseOK(reply any) error {
	if s, ok := text(reply); !ok || s != "OK" {
		return replyError("OK", reply)
	}
	return nil
}

// parseBool takes 0 and 1.
func parseBool(reply any) (bool, error) {
	n, ok := integer(reply)
	if !ok || n != 0 && n != 1 {
		return false, replyError("0 or 1", reply)
	}
	return n == 1, nil
}

// parseGet takes the reply to MGET with one key.
func parseGet(reply any) (value []byte, ok bool, err error) {
	list, _ := reply.([]any)
	if len(list) != 1 {
		return nil, false, replyError("a list of one value", reply)
	}
	switch v := list[0].(type) {
	case nil:
		return nil, false, nil
	case string:
		return []byte(v), true, nil
	case []byte:
		// The client may use it for the next reply.
		return append(make([]byte, 0, len(v)), v...), true, nil
	}
	return nil, false, replyError("a list of one value", list[0])
}

// parseHeader takes what the reply of the script begins with: the clock, and
// whether all was applied.
func parseHeader(reply any) (now int64, applied bool, err error) {
	list, _ := reply.([]any)
	if len(list) < 3 {
		return 0, false, replyError("that of the script", reply)
	}
	sec, ok1 := integer(list[0])
	ns, ok2 := integer(list[1])
	all, ok3 := integer(list[2])
	// A clock in the year 2262 would overflow, and so would the registers.
	if !ok1 || !ok2 || !ok3 || sec < 0 || sec > 9e9 || ns < 0 || ns >= 1e9 || all < 0 || all > 1 {
		return 0, false, replyError("that of the script", reply)
	}
	return sec*1e9 + ns, all == 1, nil
}

// parseAdvance takes the reply of the script to ops.
func parseAdvance(reply any, ops []store.Op, res []store.Result) (applied bool, err error) {
	now, applied, err := parseHeader(reply)
	if err != nil {
		return false, err
	}
	list := reply.([]any)[3:]
	for i := range ops {
		op := &ops[i]
		width := 3
		if op.Clock {
			width = 2
		}
		if len(list) < width {
			return false, replyError("long enough", reply)
		}
		n, ok1 := integer(list[0])
		v, ok2 := integer(list[1])
		if !ok1 || !ok2 || n < 0 || n > op.Max || v < op.Floor || op.Clock && v > store.MaxCount {
			return false, replyError("a result", reply)
		}
		r := store.Result{Value: v, Granted: n, Now: now}
		if op.Clock {
			r.Value = now + v
			r.Expires = v - op.Floor
		} else {
			ms, ok := integer(list[2])
			if !ok || ms < 0 {
				return false, replyError("a result", reply)
			}
			r.Expires = nanoseconds(ms)
		}
		res[i] = r
		list = list[width:]
	}
	if len(list) != 0 {
		return false, replyError("as long as expected", reply)
	}
	return applied, nil
}

// nanoseconds is that of the longest duration if ms is more.
func nanoseconds(ms int64) int64 {
	return min(ms, math.MaxInt64/int64(time.Millisecond)) * int64(time.Millisecond)
}

// parseScan takes the reply to SCAN: the cursor and a list of keys.
func parseScan(reply any) (cursor string, keys []any, err error) {
	list, _ := reply.([]any)
	if len(list) != 2 {
		return "", nil, replyError("a cursor and a list", reply)
	}
	n, ok1 := text(list[0])
	if _, err := strconv.ParseUint(n, 10, 64); err != nil {
		ok1 = false
	}
	keys, ok2 := list[1].([]any)
	if !ok1 || !ok2 {
		return "", nil, replyError("a cursor and a list", reply)
	}
	return n, keys, nil
}

// parseSetting takes the reply to CONFIG GET, which is a list in one version of
// the protocol and a map in the other.
func parseSetting(reply any, name string) (string, bool) {
	switch v := reply.(type) {
	case []any:
		for i := 0; i+1 < len(v); i += 2 {
			if s, ok := text(v[i]); ok && s == name {
				return text(v[i+1])
			}
		}
	case map[any]any:
		return text(v[name])
	case map[string]any:
		return text(v[name])
	case map[string]string:
		s, ok := v[name]
		return s, ok
	}
	return "", false
}
