package redisstore

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"example.com/plainware/store"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/storetest"
)

// role is the environment variable that makes the test binary a worker, see
// TestTwoProcesses.
const role = "REDISSTORE_TEST_SERVER"

func TestMain(m *testing.M) {
	if addr := os.Getenv(role); addr != "" {
		work(addr)
		return
	}
	os.Exit(m.Run())
}

// The contract, with every client, and with another client as the other handle.
func TestStore(t *testing.T) {
	s := start(t)
	for i, c := range clients {
		other := clients[(i+1)%len(clients)]
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			storetest.RunWith(t, storetest.Options{
				Open:   func(t *testing.T) store.Store { return c.store(t, nil, s.Addr) },
				Second: func(t *testing.T, _ store.Store) store.Store { return other.store(t, nil, s.Addr) },
			})
		})
	}
}

// Two processes with two clients take from one register what fits, and of two
// that claim a key one wins. (ratelimit 2)
func TestTwoProcesses(t *testing.T) {
	s := start(t)
	var wg sync.WaitGroup
	granted, won := make([]int, 2), make([]int, 2)
	for i := range 2 {
		cmd := exec.Command(self(t))
		cmd.Env = append(os.Environ(), role+"="+s.Addr, fmt.Sprintf("REDISSTORE_TEST_CLIENT=%d", 2*i))
		wg.Go(func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
				return
			}
			if _, err := fmt.Sscanf(string(out), "granted %d won %d", &granted[i], &won[i]); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if granted[0]+granted[1] != limit {
		t.Errorf("granted %v, want %d together", granted, limit)
	}
	if won[0]+won[1] != claims {
		t.Errorf("claimed %v, want %d together", won, claims)
	}
	t.Logf("granted %v, claimed %v", granted, won)
}

const limit, claims = 2000, 300

// work is what a process of TestTwoProcesses does.
func work(addr string) {
	var n int
	fmt.Sscan(os.Getenv("REDISSTORE_TEST_CLIENT"), &n)
	tb := &worker{}
	config, done := clients[n].open(tb, addr)
	defer done()
	s, err := redisstore.New(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	var mu sync.Mutex
	granted, won := 0, 0
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range limit / 16 {
				r, err := s.Advance(tb.Context(), store.Op{Space: "two", Key: "processes", Ceil: limit, Step: 1, Min: 1, Max: 2})
				if err != nil {
					tb.Fatal(err)
				}
				mu.Lock()
				granted += int(r.Granted)
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for i := range claims {
			ok, err := s.CompareAndSwap(tb.Context(), fmt.Sprint("claim", i), nil, []byte("mine"), 0)
			if err != nil {
				tb.Fatal(err)
			}
			if ok {
				won++
			}
		}
	})
	wg.Wait()
	fmt.Printf("granted %d won %d\n", granted, won)
}
