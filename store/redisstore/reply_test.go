package redisstore

import (
	"errors"
	"math"
	"testing"
	"time"

	"example.com/plainware/store"
)

// replies builds what a client could return out of bytes.
type replies []byte

func (b *replies) next() byte {
	if len(*b) == 0 {
		return 0
	}
	c := (*b)[0]
	*b = (*b)[1:]
	return c
}

func (b *replies) number() int64 {
	switch n := b.next(); n % 4 {
	case 0:
		return int64(int8(b.next()))
	case 1:
		return int64(b.next()) << b.next()
	case 2:
		return math.MaxInt64 - int64(b.next())
	}
	return math.MinInt64 + int64(b.next())
}

func (b *replies) value(depth int) any {
	switch b.next() % 12 {
	case 0:
		return nil
	case 1, 2, 3:
		return b.number()
	case 4:
		return int(b.number())
	case 5:
		n := min(int(b.next()), len(*b))
		s := string((*b)[:n])
		*b = (*b)[n:]
		return s
	case 6:
		return []byte{b.next(), b.next()}
	case 7:
		return errors.New("ERR within")
	case 8:
		return 1.5
	case 9:
		return map[any]any{b.next(): b.next()}
	}
	if depth == 0 {
		return []any(nil)
	}
	list := make([]any, b.next()%12)
	for i := range list {
		list[i] = b.value(depth - 1)
	}
	return list
}

// Whatever a client returns, nothing panics, and what is taken is possible: it
// keeps the bounds of the operation that it answers.
func FuzzReply(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{10, 8, 1, 1, 1, 30, 1, 0, 5, 1, 0, 1, 1, 0, 1, 1, 0, 2, 1, 0, 3, 1, 0, 4, 1, 0, 5})
	f.Add([]byte{11, 1, 5, 1, '7'})
	f.Fuzz(func(t *testing.T, data []byte) {
		b := replies(data)
		reply := b.value(3)
		if v, ok, err := parseGet(reply); err != nil && (ok || v != nil) || ok && v == nil {
			t.Errorf("Get: %v %v %v", v, ok, err)
		}
		parseOK(reply)
		parseBool(reply)
		if cursor, keys, err := parseScan(reply); err == nil && cursor == "" || err != nil && keys != nil {
			t.Errorf("Scan: %q %v %v", cursor, keys, err)
		}
		parseSetting(reply, "appendfsync")
		ops := []store.Op{
			{Clock: true, Floor: -5, Ceil: 100, Step: 1, Min: 1, Max: 3},
			{Floor: 2, Ceil: 100, Step: 1, Max: 9},
		}
		for n := range len(ops) + 1 {
			res := make([]store.Result, n)
			if _, err := parseAdvance(reply, ops[:n], res); err != nil {
				continue
			}
			for i, r := range res {
				op := &ops[i]
				floor := op.Floor
				if op.Clock {
					floor += r.Now
				}
				if r.Granted < 0 || r.Granted > op.Max || r.Value < floor || r.Now < 0 || r.Expires < 0 ||
					op.Clock && r.Expires != r.Value-floor {
					t.Errorf("%+v to %+v", r, *op)
				}
			}
		}
	})
}

func TestInteger(t *testing.T) {
	for _, c := range []struct {
		in   any
		want int64
		ok   bool
	}{
		{int64(-5), -5, true}, {7, 7, true}, {"12", 12, true}, {[]byte("-3"), -3, true},
		{"9223372036854775807", math.MaxInt64, true},
		{"", 0, false}, {"+1", 0, false}, {" 1", 0, false}, {"01", 0, false}, {"-0", 0, false}, {"1e3", 0, false},
		{"9223372036854775808", 0, false}, {1.0, 0, false}, {nil, 0, false}, {true, 0, false}, {errors.New("1"), 0, false},
	} {
		if n, ok := integer(c.in); ok != c.ok || ok && n != c.want {
			t.Errorf("%#v: %d %v", c.in, n, ok)
		}
	}
}

func TestParseAdvance(t *testing.T) {
	clock := store.Op{Clock: true, Floor: -50, Ceil: 100, Step: 10, Min: 1, Max: 3}
	count := store.Op{Floor: 2, Ceil: 100, Step: 1, Min: 1, Max: 9, TTL: time.Hour}
	now := int64(1_700_000_000_123_456_000)
	list := func(v ...int64) []any {
		out := []any{int64(1_700_000_000), int64(123_456_000), int64(1)}
		for _, n := range v {
			out = append(out, n)
		}
		return out
	}
	res := make([]store.Result, 2)
	if ok, err := parseAdvance(list(2, -30, 9, 11, 1500), []store.Op{clock, count}, res); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if want := (store.Result{Value: now - 30, Granted: 2, Now: now, Expires: 20}); res[0] != want {
		t.Errorf("%+v, want %+v", res[0], want)
	}
	if want := (store.Result{Value: 11, Granted: 9, Now: now, Expires: 1_500_000_000}); res[1] != want {
		t.Errorf("%+v, want %+v", res[1], want)
	}
	for name, c := range map[string]struct {
		op    store.Op
		reply any
	}{
		"too short":           {clock, list(1)},
		"too long":            {clock, list(1, 0, 0)},
		"a count too short":   {count, list(1, 5)},
		"more than asked for": {clock, list(4, 0)},
		"fewer than none":     {clock, list(-1, 0)},
		"below the floor":     {clock, list(1, -51)},
		"far ahead":           {clock, list(1, store.MaxCount+1)},
		"a count below":       {count, list(1, 1, 0)},
		"a negative life":     {count, list(1, 5, -1)},
		"no clock":            {clock, []any{"x", int64(0), int64(1), int64(1), int64(1)}},
		"a negative clock":    {clock, []any{int64(-1), int64(0), int64(1), int64(1), int64(1)}},
		"too many ns":         {clock, []any{int64(1), int64(1e9), int64(1), int64(1), int64(1)}},
		"a late clock":        {clock, []any{int64(1e10), int64(0), int64(1), int64(1), int64(1)}},
		"neither yes nor no":  {clock, []any{int64(1), int64(0), int64(2), int64(1), int64(1)}},
		"null":                {clock, nil},
		"an error within":     {clock, []any{int64(1), int64(0), int64(1), errors.New("ERR"), int64(1)}},
	} {
		if _, err := parseAdvance(c.reply, []store.Op{c.op}, res[:1]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// The longest life does not overflow.
	if _, err := parseAdvance(list(1, 5, math.MaxInt64), []store.Op{count}, res[:1]); err != nil || res[0].Expires <= 0 {
		t.Errorf("%+v %v", res[0], err)
	}
}
