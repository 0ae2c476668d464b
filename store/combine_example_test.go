package store_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"example.com/plainware/store"
)

// Two tenants share a store and never meet.
func ExamplePrefix() {
	ctx := context.Background()
	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	blue, err := store.Prefix(mem, "blue/")
	if err != nil {
		log.Fatal(err)
	}
	if err := blue.Put(ctx, "colour", []byte("azure"), time.Hour); err != nil {
		log.Fatal(err)
	}
	value, _, _ := mem.Get(ctx, "blue/colour")
	_, ok, _ := mem.Get(ctx, "colour")
	fmt.Printf("%s %v\n", value, ok)
	// Output: azure false
}

// A backend that has only the four methods of a Store still has exact limits.
func ExampleRegistersOf() {
	ctx := context.Background()
	regs := store.RegistersOf(newMapStore())
	for range 3 {
		r, err := regs.Advance(ctx, store.Op{
			Space: "logins", Key: "alice", Clock: true,
			Ceil: int64(2 * time.Minute), Step: int64(time.Minute), Min: 1, Max: 1, // 2 at once, 1 more each minute
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.Granted)
	}
	// Output:
	// 1
	// 1
	// 0
}

// Two quotas are charged both or not at all, whatever the backend can do.
func ExampleAtomicRegistersOf() {
	ctx := context.Background()
	regs := store.AtomicRegistersOf(newMapStore())
	ops := []store.Op{
		{Space: "user", Key: "alice", Ceil: 100, Step: 1, Min: 5, Max: 5, TTL: time.Hour},
		{Space: "site", Key: "example", Ceil: 3, Step: 1, Min: 5, Max: 5, TTL: time.Hour},
	}
	res := make([]store.Result, len(ops))
	ok, err := regs.AdvanceAll(ctx, ops, res)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ok, res[0].Value, res[1].Value)
	// Output: false 0 0
}

// In front of a remote store, concurrent decisions share round trips.
func ExampleNewCombiner() {
	ctx := context.Background()
	remote, err := store.NewMemory(store.MemoryConfig{}) // redisstore.New(…), say
	if err != nil {
		log.Fatal(err)
	}
	shared, err := store.NewCombiner(store.CombinerConfig{Store: remote})
	if err != nil {
		log.Fatal(err)
	}
	defer shared.Close()
	r, err := shared.Advance(ctx, store.Op{Space: "api", Key: "alice", Ceil: 10, Step: 1, Min: 1, Max: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Granted, r.Value)
	// Output: 1 1
}
