//go:build linux

package ratelimit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
	"example.com/plainware/store"
)

// job is what a process of a fleet does. The test binary runs itself with it in
// an environment variable.
type job struct {
	Backend, Addr string
	Name          string
	Direct        bool // one call of the store for each request, without a limiter
	Burst, Rate   int64
	Lease, Budget time.Duration
	Mode          ratelimit.OnStoreError
}

const jobEnv = "PLAINWARE_RATELIMIT_JOB"

func TestMain(m *testing.M) {
	text := os.Getenv(jobEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.work()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// callers is how many goroutines of a process ask at the same time.
const callers = 4

// work asks for one key again and again, from the instant at which the test says
// so until the one it named last, and reports each admission in a line of its own, as
// it happens: the process may be killed.
func (j job) work() error {
	ctx := context.Background()
	var calls, failures, recoveries atomic.Int64
	s, done, err := openStore(ctx, j.Backend, j.Addr, &calls)
	if err != nil {
		return err
	}
	defer done()
	lim, err := ratelimit.New(ratelimit.Config{
		Store: s, Name: j.Name, OnStoreError: j.Mode, StoreBudget: j.Budget,
		Policies: []ratelimit.Policy{{
			Name: "hot", Limit: ratelimit.PerSecond(j.Rate).Burst(j.Burst), Lease: j.Lease,
			Key: ratelimit.ByFunc(func(*http.Request) string { return "" }),
		}},
		OnDegraded: func(err error) {
			if err == nil {
				recoveries.Add(1)
			} else {
				failures.Add(1)
			}
		},
	})
	if err != nil {
		return err
	}
	defer lim.Close()
	take := func() (ratelimit.Decision, error) { return lim.Take(ctx, "", 1, "key") }
	if j.Direct {
		registers, interval := store.RegistersOf(s), int64(time.Second)/j.Rate
		op := store.Op{Space: "direct", Key: "key", Clock: true, Ceil: j.Burst * interval, Step: interval, Min: 1, Max: 1}
		take = func() (ratelimit.Decision, error) {
			r, err := registers.Advance(ctx, op)
			return ratelimit.Decision{Allowed: r.Granted == 1}, err
		}
	}
	// There are connections to make, for which the budget of a busy machine may not
	// do.
	for soon := time.Now().Add(30 * time.Second); ; <-time.After(time.Millisecond) {
		d, err := lim.Peek(ctx, "", "key")
		if err == nil && !d.Degraded {
			break
		}
		if err != nil || time.Now().After(soon) {
			return fmt.Errorf("the store does not answer: %+v, %v", d, err)
		}
	}
	failures.Store(0)
	recoveries.Store(0)
	os.Stdout.WriteString("ready\n")

	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return errors.New("nobody said when to stop")
	}
	var stop atomic.Int64
	until := func() error {
		ns, err := strconv.ParseInt(in.Text(), 10, 64)
		stop.Store(ns)
		return err
	}
	if err := until(); err != nil {
		return err
	}
	go func() {
		for in.Scan() {
			if err := until(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}()
	var requests, free atomic.Int64
	var fail atomic.Pointer[error]
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				before := time.Now().UnixNano()
				if before >= stop.Load() {
					return
				}
				d, err := take()
				after := time.Now().UnixNano()
				requests.Add(1)
				switch {
				case err != nil:
					fail.Store(&err)
					return
				case d.Allowed && d.Degraded && j.Mode == ratelimit.Allow:
					free.Add(1)
				case d.Allowed && d.Degraded:
					fmt.Fprintf(os.Stdout, "degraded %d %d\n", before, after)
				case d.Allowed:
					fmt.Fprintf(os.Stdout, "admitted %d %d\n", before, after)
				}
				if !d.Allowed && !j.Direct || d.Degraded && j.Mode == ratelimit.Allow {
					// Enough to be there when a token is, without taking the
					// processor from everybody else.
					<-time.After(200 * time.Microsecond)
				}
			}
		})
	}
	wg.Wait()
	fmt.Fprintf(os.Stdout, "end %d %d %d %d %d\n", requests.Load(), calls.Load(), free.Load(), failures.Load(), recoveries.Load())
	if err := fail.Load(); err != nil {
		return *err
	}
	return nil
}

// report is what a process has printed.
type report struct {
	admitted []admission // by the store
	degraded []admission // by its own registers
	ended    bool        // it was not killed

	requests   int64
	calls      int64 // of the store, where they are counted
	free       int64 // admitted without asking anybody
	failures   int64
	recoveries int64
}

// read reads what a process prints. ready is closed when it is.
func (r *report) read(out *bufio.Scanner, ready chan<- struct{}) error {
	for out.Scan() {
		word, rest, _ := strings.Cut(out.Text(), " ")
		var a admission
		var err error
		switch word {
		case "ready":
			close(ready)
		case "admitted":
			_, err = fmt.Sscan(rest, &a.before, &a.after)
			r.admitted = append(r.admitted, a)
		case "degraded":
			_, err = fmt.Sscan(rest, &a.before, &a.after)
			r.degraded = append(r.degraded, a)
		case "end":
			r.ended = true
			_, err = fmt.Sscan(rest, &r.requests, &r.calls, &r.free, &r.failures, &r.recoveries)
		default:
			err = fmt.Errorf("what is %q?", out.Text())
		}
		if err != nil {
			return err
		}
	}
	return out.Err()
}
