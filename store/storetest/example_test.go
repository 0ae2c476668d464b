package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// The test of a backend: a store for each rule, and a second handle on it for
// the rules about several processes.
func ExampleRunWith() {
	test := func(t *testing.T) {
		storetest.RunWith(t, storetest.Options{
			Open: func(t *testing.T) store.Store {
				s, err := store.NewMemory(store.MemoryConfig{}) // or yours
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			},
			Second: func(t *testing.T, s store.Store) store.Store {
				return s // or another connection to the same database
			},
		})
	}
	_ = test // in a file of tests this is func TestStore
}

// The code above a store must cope with one that fails, before or after it has
// done what it was asked.
func ExampleFaulty() {
	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	var down atomic.Bool
	s := storetest.Faulty(mem, func(c storetest.Call) storetest.Fault {
		if down.Load() && c.Method == "Put" {
			return storetest.Fault{After: errors.New("connection reset")}
		}
		return storetest.Fault{}
	})
	ctx := context.Background()
	down.Store(true)
	fmt.Println(s.Put(ctx, "k", []byte("v"), time.Hour))
	value, _, _ := s.Get(ctx, "k")
	fmt.Printf("%s\n", value)
	// Output:
	// connection reset
	// v
}
