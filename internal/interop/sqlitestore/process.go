package sqlitestore

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	kit "example.com/plainware/store/sqlitestore"
)

// The test binary runs itself as a second process, with these variables set.
const (
	childRole = "PLAINWARE_SQLITE_CHILD"
	childFile = "PLAINWARE_SQLITE_FILE"
	childArg  = "PLAINWARE_SQLITE_ARG"
)

// Main runs the tests, or what a child process of them has to do.
func Main(m *testing.M, d Driver) int {
	role := os.Getenv(childRole)
	if role == "" {
		return m.Run()
	}
	if err := child(d, role, os.Getenv(childFile), os.Getenv(childArg)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func child(d Driver, role, path, arg string) error {
	ctx := context.Background()
	db, err := sql.Open(d.Name, "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	s, err := kit.New(ctx, kit.Config{DB: db, Timeout: time.Minute})
	if err != nil {
		return err
	}
	defer s.Close()
	switch role {
	case "grab":
		// Begin when the other one does.
		gate := store.Op{Space: "gate", Key: "gate", Ceil: 2, Step: 1, Max: 1}
		for r := (store.Result{}); r.Value < 2; gate.Max = 0 {
			if r, err = s.Advance(ctx, gate); err != nil {
				return err
			}
		}
		n, err := grab(ctx, s, arg)
		fmt.Println(n)
		return err
	case "storm":
		return storm(ctx, s, arg)
	case "contend":
		return contend(ctx, s, arg)
	}
	return fmt.Errorf("no role %q", role)
}

// start runs a child. Its standard output is to be read to the end before Wait.
func start(tb testing.TB, role, path, arg string) (*exec.Cmd, *bufio.Scanner) {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childFile+"="+path, childArg+"="+arg)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// grabbers is how many goroutines of each handle ask for permits.
const grabbers = 32

// grab takes permits of one register, which the wall clock fills by none within
// the test, until there are none, and returns how many it got. Each of arg's
// words is a key.
func grab(ctx context.Context, s *kit.Store, arg string) (int64, error) {
	var (
		mu    sync.Mutex
		total int64
		fail  error
		wg    sync.WaitGroup
	)
	key, ceil, _ := strings.Cut(arg, " ")
	limit, err := strconv.ParseInt(ceil, 10, 64)
	if err != nil {
		return 0, err
	}
	for range grabbers {
		wg.Go(func() {
			for {
				r, err := s.Advance(ctx, store.Op{Space: "grab", Key: key, Ceil: limit, Step: 1, Min: 1, Max: 1 + rand.Int64N(3)})
				mu.Lock()
				total += r.Granted
				if err != nil {
					fail = err
				}
				mu.Unlock()
				if err != nil || r.Granted == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	return total, fail
}

// Any number of goroutines gets exactly what there is, from two handles (store 2).
func testExact(t *testing.T, d Driver) {
	path := newFile(t)
	const limit = 1777
	a := d.store(t, kit.Config{DB: d.open(t, path)})
	b := d.store(t, kit.Config{DB: d.open(t, path)})
	got := make(chan int64, 2)
	for _, s := range []*kit.Store{a, b} {
		go func() {
			n, err := grab(t.Context(), s, fmt.Sprint("key ", limit))
			if err != nil {
				t.Error(err)
			}
			got <- n
		}()
	}
	if n, m := <-got, <-got; n+m != limit {
		t.Errorf("got %d + %d = %d permits, want %d", n, m, n+m, limit)
	}
}

// And from two processes (store 2).
func testExactProcesses(t *testing.T, d Driver) {
	path := newFile(t)
	const limit = 20_011
	var total int64
	var cmds []*exec.Cmd
	var outs []*bufio.Scanner
	for range 2 {
		cmd, out := start(t, "grab", path, fmt.Sprint("key ", limit))
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		for outs[i].Scan() {
			n, err := strconv.ParseInt(outs[i].Text(), 10, 64)
			if err != nil {
				t.Error(err)
			}
			t.Logf("process %d got %d", i, n)
			total += n
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if total != limit {
		t.Errorf("two processes got %d permits, want %d", total, limit)
	}
}

// storm writes as fast as it can from several goroutines, and reports every
// write that was acknowledged in a line of its own.
func storm(ctx context.Context, s *kit.Store, arg string) error {
	kept, err := store.Keep(s)
	if err != nil {
		return err
	}
	fails := make(chan error)
	for g := range 12 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%s-%d-%d", arg, g, i)
				var err error
				switch g % 4 {
				case 0:
					err = s.Put(ctx, key, []byte(key), 0)
				case 1:
					_, err = s.CompareAndSwap(ctx, key, nil, []byte(key), time.Hour)
				case 2:
					err = kept.Put(ctx, key, []byte(key), 0)
				case 3:
					key = fmt.Sprintf("%s-%d", arg, g)
					_, err = s.Advance(ctx, store.Op{Space: "storm", Key: key, Ceil: 1 << 40, Step: 1, Min: 1, Max: 1})
				}
				if err != nil {
					fails <- err
					return
				}
				os.Stdout.WriteString(key + "\n") // one write to the pipe
			}
		}()
	}
	return <-fails
}

// kill -9 in the middle of a write storm: what was acknowledged is in the file,
// and the file is sound.
func testKill(t *testing.T, d Driver) {
	path := newFile(t)
	for round := range 3 {
		cmd, out := start(t, "storm", path, fmt.Sprint(round))
		acked := make(map[string]int64)
		for n := 0; out.Scan(); n++ {
			acked[out.Text()]++
			if n == 1500+1000*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
		db := d.open(t, path)
		s, err := kit.New(t.Context(), kit.Config{DB: db})
		if err != nil {
			t.Fatalf("after kill -9: %v", err)
		}
		var values, advances int64
		for key, n := range acked {
			if strings.Count(key, "-") == 1 {
				r, err := s.Advance(t.Context(), store.Op{Space: "storm", Key: key, Ceil: 1 << 40, Step: 1})
				if err != nil || r.Value < n {
					t.Errorf("register %s is %d after %d acknowledged advances, %v", key, r.Value, n, err)
				}
				advances += n
				continue
			}
			v, ok, err := s.Get(t.Context(), key)
			if !ok || err != nil || string(v) != key {
				t.Errorf("acknowledged value %s: got %q, %v, %v", key, v, ok, err)
			}
			values++
		}
		t.Logf("%d values and %d advances were acknowledged and found", values, advances)
		if values == 0 || advances == 0 {
			t.Error("the storm did not write both")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		var sound string
		if err := db.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
			t.Errorf("integrity_check: %q, %v", sound, err)
		}
	}
}

// contend makes one decision after the other from a few goroutines for some
// time, and reports how long each took, in microseconds.
func contend(ctx context.Context, s *kit.Store, arg string) error {
	length, err := time.ParseDuration(arg)
	if err != nil {
		return err
	}
	stop := time.Now().Add(length)
	var mu sync.Mutex
	var all []string
	var fail error
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; time.Now().Before(stop); i++ {
				begin := time.Now()
				_, err := s.Advance(ctx, store.Op{Space: "contend", Key: fmt.Sprint(g, i%1000), Clock: true, Ceil: 1e15, Step: 1, Min: 1, Max: 1})
				took := time.Since(begin).Microseconds()
				mu.Lock()
				all = append(all, strconv.FormatInt(took, 10))
				if err != nil {
					fail = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(strings.Join(all, "\n"))
	return fail
}

// Contention measures how long calls wait when several processes write to one
// file as fast as they can.
func Contention(b *testing.B, d Driver, processes int) {
	path := newFile(b)
	d.store(b, kit.Config{DB: d.open(b, path)})
	const length = 3 * time.Second
	var waits []time.Duration
	for b.Loop() {
		waits = waits[:0]
		var cmds []*exec.Cmd
		var outs []*bufio.Scanner
		for range processes {
			cmd, out := start(b, "contend", path, length.String())
			cmds, outs = append(cmds, cmd), append(outs, out)
		}
		for i, cmd := range cmds {
			for outs[i].Scan() {
				us, err := strconv.Atoi(outs[i].Text())
				if err != nil {
					b.Fatal(err)
				}
				waits = append(waits, time.Duration(us)*time.Microsecond)
			}
			if err := cmd.Wait(); err != nil {
				b.Fatal(err)
			}
		}
	}
	slices.Sort(waits)
	at := func(q float64) float64 { return float64(waits[int(q*float64(len(waits)-1))].Microseconds()) / 1000 }
	b.ReportMetric(float64(len(waits))/length.Seconds(), "decisions/s")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(0.999), "p99.9-ms")
	b.ReportMetric(at(1), "max-ms")
}
