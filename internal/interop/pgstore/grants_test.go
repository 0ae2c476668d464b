//go:build linux

package pgstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
)

// grab calls f from n goroutines until each was refused once, and returns the
// sum of what was granted.
func grab(t testing.TB, n int, f func(g int) (int64, error)) int64 {
	var sum atomic.Int64
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() {
			for {
				granted, err := f(g)
				if err != nil {
					t.Error(err)
					return
				}
				if granted == 0 {
					return
				}
				sum.Add(granted)
			}
		})
	}
	wg.Wait()
	return sum.Load()
}

// store 2: 64 goroutines get exactly the burst, from two handles, whatever
// they ask for.
func TestExactGrants(t *testing.T) {
	s1, _, schema := onShared(t)
	s2 := newStore(t, pgstore.Config{DB: open(t, "pgx", server(t).URL("")), Schema: schema})
	both := []*pgstore.Store{s1, s2}
	const burst = 300
	count := store.Op{Space: "count", Ceil: burst, Step: 1, Min: 1, Max: 1, TTL: time.Hour}
	partial := hour("", burst)
	partial.Max = 7
	for name, op := range map[string]store.Op{"bucket": hour("", burst), "partial": partial, "count": count} {
		t.Run(name, func(t *testing.T) {
			op.Key = name
			got := grab(t, 64, func(g int) (int64, error) {
				r, err := both[g%2].Advance(context.Background(), op)
				return r.Granted, err
			})
			if got != burst {
				t.Errorf("granted %d, want %d", got, burst)
			}
		})
		t.Run(name+" in batches", func(t *testing.T) {
			op.Key = name + " in batches"
			got := grab(t, 16, func(g int) (int64, error) {
				ops, res := []store.Op{op, op, op}, make([]store.Result, 3)
				err := both[g%2].AdvanceBatch(context.Background(), ops, res)
				return res[0].Granted + res[1].Granted + res[2].Granted, err
			})
			if got != burst {
				t.Errorf("granted %d, want %d", got, burst)
			}
		})
		t.Run(name+" all or none", func(t *testing.T) {
			op.Key = name + " all or none"
			wide := op
			wide.Key, wide.Ceil = "wide", op.Ceil*2
			wide.Space = name
			got := grab(t, 16, func(g int) (int64, error) {
				ops, res := []store.Op{wide, op}, make([]store.Result, 2)
				ok, err := both[g%2].AdvanceAll(context.Background(), ops, res)
				if !ok {
					return 0, err
				}
				return res[1].Granted, err
			})
			if got != burst {
				t.Errorf("granted %d, want %d", got, burst)
			}
		})
	}
}

const workerEnv = "PLAINWARE_PGSTORE_WORKER"

// worker is a process of TestProcesses. It takes one token, says so, waits to
// be told to go on, takes what it gets, and prints how much it was.
func worker() {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work() error {
	ctx := context.Background()
	url, schema, _ := strings.Cut(os.Getenv(workerEnv), " ")
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	s, err := pgstore.New(ctx, pgstore.Config{DB: db, Schema: schema})
	if err != nil {
		return err
	}
	for sum := int64(0); ; {
		r, err := s.Advance(ctx, hour("processes", 500))
		if err != nil {
			return err
		}
		if sum += r.Granted; r.Granted == 0 || sum == 1 {
			fmt.Println(sum)
		}
		if r.Granted == 0 {
			return nil
		}
		if sum == 1 {
			bufio.NewReader(os.Stdin).ReadString('\n')
		}
	}
}

// store 2: processes that start at once, on an empty database, share one
// bucket exactly.
func TestProcesses(t *testing.T) {
	env := server(t).URL("") + " " + freshSchema()
	var sum atomic.Int64
	var ready, all sync.WaitGroup
	start := make(chan struct{})
	for range 3 {
		ready.Add(1)
		all.Go(func() {
			n, err := process(env, func() {
				ready.Done()
				<-start
			})
			if err != nil {
				t.Error(err)
			}
			sum.Add(n)
		})
	}
	ready.Wait()
	close(start)
	all.Wait()
	if sum.Load() != 500 {
		t.Errorf("granted %d, want 500", sum.Load())
	}
}

// process runs a worker, calls ready between its two lines, and returns what
// the second says.
func process(env string, ready func()) (n int64, err error) {
	ready = sync.OnceFunc(ready)
	defer ready()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerEnv+"="+env)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	out := bufio.NewReader(pipe)
	_, err = fmt.Fscanln(out, &n)
	ready()
	in.Close()
	if err == nil {
		_, err = fmt.Fscanln(out, &n)
	}
	return n, errors.Join(err, cmd.Wait())
}

// store 8: the clock of a process does not matter. That of a synctest bubble
// is a quarter of a century behind.
func TestProcessClock(t *testing.T) {
	s, _, schema := onShared(t)
	for range 4 {
		if r := advance(t, s, hour("skew", 10)); r.Granted != 1 {
			t.Fatalf("Granted = %d, want 1", r.Granted)
		}
	}
	if err := s.Put(t.Context(), "short", nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	url := server(t).URL("")
	synctest.Test(t, func(t *testing.T) {
		db := open(t, "pgx", url)
		defer db.Close()
		late := newStore(t, pgstore.Config{DB: db, Schema: schema})
		var got int64
		for range 10 {
			r := advance(t, late, hour("skew", 10))
			got += r.Granted
			if skew := time.Until(time.Unix(0, r.Now)); skew < 24*365*24*time.Hour {
				t.Fatalf("the clocks differ by %v only", skew)
			}
		}
		if got != 6 {
			t.Errorf("granted %d of what was left, want 6", got)
		}
		if _, ok, err := late.Get(t.Context(), "short"); !ok || err != nil {
			t.Errorf("Get = %v, %v, want a value", ok, err)
		}
	})
	if r := advance(t, s, hour("skew", 10)); r.Granted != 0 {
		t.Errorf("Granted = %d, want 0", r.Granted)
	}
}

// Batches in any order, all-or-nothing batches, single operations and sweeps
// on the same few registers do not deadlock, and grant exactly. Half of the
// registers expire at once, so that the sweeps take them from under the others.
func TestNoDeadlock(t *testing.T) {
	s, _, _ := onShared(t)
	const keys, burst = 12, 400
	var granted [keys]atomic.Int64
	op := func(k int) store.Op { return hour(fmt.Sprint("d", k), burst) }
	var wg sync.WaitGroup
	for g := range 24 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 40 {
				order := rng.Perm(keys)[:1+rng.IntN(keys)]
				ops, res := make([]store.Op, len(order)), make([]store.Result, len(order))
				for i, k := range order {
					ops[i] = op(k)
					if n := len(ops) - 1 - i; n < len(ops)/2 {
						ops[i] = store.Op{Space: "idle", Key: fmt.Sprint(k), Clock: true, Ceil: 1000, Step: 1, Min: 1, Max: 1}
					}
				}
				var err error
				applied := true
				switch g % 3 {
				case 0:
					err = s.AdvanceBatch(context.Background(), ops, res)
				case 1:
					applied, err = s.AdvanceAll(context.Background(), ops, res)
				case 2:
					res[0], err = s.Advance(context.Background(), ops[0])
					if g < 6 && err == nil {
						_, err = s.Sweep(context.Background())
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				for i, k := range order {
					if applied && ops[i].Space != "idle" {
						granted[k].Add(res[i].Granted)
					}
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		peek := op(k)
		peek.Min, peek.Max = 0, 0
		r := advance(t, s, peek)
		// The register tells its grants, but for the hours that have passed.
		stands := (r.Value - r.Now + int64(time.Hour) - 1) / int64(time.Hour)
		if got := granted[k].Load(); got != stands || got > burst {
			t.Errorf("key %d: granted %d, the register says %d of %d", k, got, stands, burst)
		}
	}
}

// AdvanceAll locks what it heals in the order of keys, a register that it only
// reads too: nothing is written over, and it does not deadlock with another.
func TestHealLocksInOrder(t *testing.T) {
	s, db, schema := onShared(t)
	first, last := hour("a", 1), hour("b", 5)
	advance(t, s, first)
	advance(t, s, last)
	execute(t, db, `UPDATE %s.register SET v = v + 36000000000000, exp = exp + 36000000000000 WHERE k = 'bucket\000a'`, schema)

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`SELECT FROM ` + schema + `.register WHERE k = 'bucket\000b' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	// waiting waits until n statements of this test do.
	waiting := func(n int) {
		t.Helper()
		eventually(t, "calls that wait for a lock", func() error {
			if got := scalar[int](t, db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%%s"%%'`, schema); got != n {
				return fmt.Errorf("%d, want %d", got, n)
			}
			return nil
		})
	}
	var wg sync.WaitGroup
	all := func(min, max int64) []store.Result {
		res := make([]store.Result, 2)
		wg.Go(func() {
			heals := first
			heals.Min, heals.Max = min, max
			if _, err := s.AdvanceAll(context.Background(), []store.Op{last, heals}, res); err != nil {
				t.Errorf("AdvanceAll with Min %d, Max %d: %v", min, max, err)
			}
		})
		return res
	}
	all(0, 0)
	waiting(1)
	took := all(0, 1)
	waiting(2)
	back := first
	back.Step = -back.Step
	var gave store.Result
	wg.Go(func() {
		var err error
		if gave, err = s.Advance(context.Background(), back); err != nil {
			t.Error(err)
		}
	})
	waiting(3)
	tx.Rollback()
	wg.Wait()
	first.Min, first.Max = 0, 0
	r, want := advance(t, s, first), gave.Value
	if took[1].Granted == 1 {
		// The server has let what gives back go first, and this takes it again.
		want = max(want, took[1].Now) + first.Step
	}
	if r.Value != max(want, r.Now) {
		t.Errorf("the register is at Now + %v, and was left at Now + %v: something was written over it", time.Duration(r.Value-r.Now), time.Duration(want-r.Now))
	}
}
