package store_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/plainware/store"
)

func ExampleNewMemory() {
	s, err := store.NewMemory(store.MemoryConfig{
		MaxBytes: 16 << 20, // for values
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	ctx := context.Background()
	if err := s.Put(ctx, "greeting", []byte("hello"), time.Hour); err != nil {
		fmt.Println(err)
	}
	value, ok, err := s.Get(ctx, "greeting")
	fmt.Printf("%s %v %v\n", value, ok, err)
	_, ok, err = s.Get(ctx, "farewell")
	fmt.Println(ok, err)
	// Output:
	// hello true <nil>
	// false <nil>
}

func ExampleMemory_CompareAndSwap() {
	s, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	ctx := context.Background()
	for _, owner := range []string{"alice", "bob"} {
		// nil: only if nobody has it.
		won, err := s.CompareAndSwap(ctx, "job/7", nil, []byte(owner), time.Minute)
		fmt.Println(owner, won, err)
	}
	// Alice lets go of it, which she may only do if it is hers.
	done, err := s.CompareAndSwap(ctx, "job/7", []byte("alice"), nil, 0)
	fmt.Println("done", done, err)
	// Output:
	// alice true <nil>
	// bob false <nil>
	// done true <nil>
}

// The claims of a guard against replays must outlive what else is in the store:
// if one was evicted, a message could be taken twice.
func ExampleMemory_Keep() {
	s, err := store.NewMemory(store.MemoryConfig{MaxBytes: 2 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	claims, err := store.Keep(s)
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	first, err := claims.CompareAndSwap(ctx, "message/1", nil, []byte("me"), time.Hour)
	fmt.Println("first time:", first, err)
	for i := range 100 {
		if err := s.Put(ctx, fmt.Sprint("page/", i), make([]byte, 100<<10), time.Hour); err != nil {
			fmt.Println(err)
		}
	}
	first, err = claims.CompareAndSwap(ctx, "message/1", nil, []byte("me"), time.Hour)
	fmt.Println("second time:", first, err)

	// Kept values are not evicted for each other either.
	for i := 0; err == nil; i++ {
		err = claims.Put(ctx, fmt.Sprint("claim/", i), make([]byte, 100<<10), time.Hour)
	}
	fmt.Println(errors.Is(err, store.ErrFull))
	// Output:
	// first time: true <nil>
	// second time: false <nil>
	// true
}

func ExampleMemory_Stats() {
	s, err := store.NewMemory(store.MemoryConfig{Registers: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	if err := s.Put(context.Background(), "key", []byte("value"), 0); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%+v\n", s.Stats())
	// Output:
	// {Registers:1000 RegistersEvicted:0 Values:1 Bytes:168 ValuesEvicted:0}
}

func ExampleMemory_AdvanceAll() {
	s, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	// Two a day for the user and three for the team: both or neither.
	day := 24 * time.Hour
	ops := []store.Op{
		{Space: "user", Key: "ann", Ceil: 2, Step: 1, Min: 1, Max: 1, TTL: day},
		{Space: "team", Key: "red", Ceil: 3, Step: 1, Min: 1, Max: 1, TTL: day},
	}
	res := make([]store.Result, len(ops))
	for _, user := range []string{"ann", "ann", "ann", "bob", "bob"} {
		ops[0].Key = user
		ok, err := s.AdvanceAll(context.Background(), ops, res)
		fmt.Println(user, ok, err, "user", res[0].Value, "team", res[1].Value)
	}
	// Output:
	// ann true <nil> user 1 team 1
	// ann true <nil> user 2 team 2
	// ann false <nil> user 2 team 2
	// bob true <nil> user 1 team 3
	// bob false <nil> user 1 team 3
}

// What a register can be. Each line is done in turn on registers of its own,
// and shows how much was granted.
func Example_registers() {
	s, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	do := func(key string, op store.Op) {
		op.Space, op.Key = "example", key
		r, err := s.Advance(context.Background(), op)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%-14s %d\n", key, r.Granted)
	}

	// A token bucket of 10, with one more each minute. Its register is the
	// instant at which it will be full again.
	const burst, interval = 10, int64(time.Minute)
	tokens := store.Op{Clock: true, Ceil: burst * interval, Step: interval}
	take, upTo, refund, peek := tokens, tokens, tokens, tokens

	take.Min, take.Max = 7, 7 // seven or none
	do("token bucket", take)
	do("token bucket", take)

	upTo.Min, upTo.Max = 1, 100 // as many as there are
	do("token bucket", upTo)

	refund.Step, refund.Min, refund.Max = -interval, 2, 2 // two were not needed
	do("token bucket", refund)
	do("token bucket", upTo)

	do("token bucket", peek) // Min and Max of zero: only Result.Value is of interest

	// A cost that is known only afterwards. It may go into debt by five, which
	// those who ask beforehand declare as legitimate.
	charge, ask := tokens, tokens
	charge.Ceil, charge.Max = (burst+5)*interval, 20
	ask.Over, ask.Min, ask.Max = 5*interval, 1, 1
	do("paid after", charge)
	do("paid after", ask)

	// A quota of 3 for each window of an hour, which opens with the first.
	quota := store.Op{Ceil: 3, Step: 1, Min: 1, Max: 1, TTL: time.Hour}
	for range 4 {
		do("quota", quota)
	}

	// The first in ten seconds wins.
	const d = int64(10 * time.Second)
	first := store.Op{Clock: true, Ceil: d, Step: d, Min: 1, Max: 1}
	do("first wins", first)
	do("first wins", first)

	// A lease is the same. Its holder may give it back, before it ends by its
	// own clock.
	release := first
	release.Step = -d
	do("lease", first)
	do("lease", release)
	do("lease", first)

	// A probe of what is down: two at once, and one more every ten seconds.
	probe := first
	probe.Ceil = 2 * d
	for range 3 {
		do("probe", probe)
	}

	// A counter.
	do("counter", store.Op{Ceil: store.MaxCount - 1, Step: 1, Min: 1234, Max: 1234})

	// Output:
	// token bucket   7
	// token bucket   0
	// token bucket   3
	// token bucket   2
	// token bucket   2
	// token bucket   0
	// paid after     15
	// paid after     0
	// quota          1
	// quota          1
	// quota          1
	// quota          0
	// first wins     1
	// first wins     0
	// lease          1
	// lease          1
	// lease          1
	// probe          1
	// probe          1
	// probe          0
	// counter        1234
}
