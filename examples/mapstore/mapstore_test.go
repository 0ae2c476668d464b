package mapstore_test

import (
	"context"
	"fmt"
	"log"
	"testing"
	"time"

	"example.com/plainware/examples/mapstore"
	"example.com/plainware/store"
	"example.com/plainware/store/storetest"
)

// One line per store is all that a backend's test needs. Run it with -race.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return mapstore.New() })
}

// A bucket of three tokens, and one more each hour, in a store that knows
// nothing of buckets.
func Example() {
	ctx := context.Background()
	registers := store.RegistersOf(mapstore.New())
	for i := range 4 {
		r, err := registers.Advance(ctx, store.Op{
			Space: "login", Key: "192.0.2.1", Clock: true,
			Ceil: int64(3 * time.Hour), Step: int64(time.Hour), Min: 1, Max: 1,
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(i+1, r.Granted == 1)
	}
	// Output:
	// 1 true
	// 2 true
	// 3 true
	// 4 false
}
