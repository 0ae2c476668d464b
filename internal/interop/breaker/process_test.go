// Package breaker tests breakers that several processes share, through the stores
// that people use.
package breaker

import (
	"bufio"
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"example.com/plainware/breaker"
	"example.com/plainware/store"
	"example.com/plainware/store/pgstore"
	"example.com/plainware/store/redisstore"
	"example.com/plainware/store/sqlitestore"
)

// The test binary runs itself as a process of the fleet, with these variables
// set.
const (
	childStore = "PLAINWARE_BREAKER_STORE" // kind, a space, and where
	childName  = "PLAINWARE_BREAKER_NAME"
)

// What all processes are configured with.
const (
	interval     = 250 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// fleets is how many of them there are at a time.
const fleets = 6

// loadWithin is how long New waits for the store.
const loadWithin = 250 * time.Millisecond

// slack is what the scheduler of a busy machine may add to any of it.
const slack = time.Second

func TestMain(m *testing.M) {
	if where := os.Getenv(childStore); where != "" {
		if err := child(where, os.Getenv(childName)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	// Not one for each processor: the fleets mostly wait. The command line, which
	// is not read yet, may say otherwise.
	flag.Set("test.parallel", strconv.Itoa(fleets))
	os.Exit(m.Run())
}

func open(ctx context.Context, where string) (store.Store, error) {
	kind, addr, _ := strings.Cut(where, " ")
	switch kind {
	case "redis":
		c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: time.Second})
		return redisstore.New(ctx, redisstore.Config{Do: func(ctx context.Context, args ...any) (any, error) {
			return c.Do(ctx, args...).Result()
		}})
	case "postgres":
		db, err := sql.Open("pgx", addr)
		if err != nil {
			return nil, err
		}
		db.SetMaxIdleConns(4)
		return pgstore.New(ctx, pgstore.Config{DB: db})
	}
	db, err := sql.Open("sqlite", "file:"+addr)
	if err != nil {
		return nil, err
	}
	return sqlitestore.New(ctx, sqlitestore.Config{DB: db})
}

// child makes a call every few milliseconds. What becomes of them is what the
// last line of its input says: good, bad or hang. It writes a line for each change
// of its state, and for each call that it lets hang, with the instant in ns since
// 1970 at which it asked to make it.
func child(where, name string) error {
	s, err := open(context.Background(), where)
	if err != nil {
		return err
	}
	begin := time.Now()
	b, err := breaker.New(breaker.Config{
		Name: name, Store: s, Sync: interval, Window: 2 * time.Second, MinCalls: 10,
		OpenFor: 3 * time.Second, ProbeTimeout: probeTimeout, Ramp: -1,
		OnStateChange: func(c breaker.Change) { fmt.Println("state", c.To, c.Fleet) },
	})
	if err != nil {
		return err
	}
	for took := time.Since(begin); !b.Stats().Fleet.Synced; time.Sleep(time.Millisecond) {
		if took < loadWithin {
			return fmt.Errorf("New has waited for the store for %v only", took)
		}
		// A busy machine may need longer than that for the first answer.
	}
	fmt.Println("ready", b.State())
	lines := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
		close(lines)
	}()
	mode := "good"
	tick := time.NewTicker(5 * time.Millisecond)
	for {
		select {
		case line, ok := <-lines:
			switch {
			case !ok:
				return b.Close()
			case line == "open":
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				fmt.Println("forced", b.Force(ctx, breaker.Override{Mode: breaker.ForceOpen, Author: "test"}))
				cancel()
			case line == "auto":
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				fmt.Println("forced", b.Force(ctx, breaker.Override{}))
				cancel()
			default:
				mode = line
			}
		case <-tick.C:
			start := time.Now()
			p, err := b.Acquire()
			if d := time.Since(start); d > slack {
				fmt.Println("waited", d)
			}
			switch {
			case err != nil:
			case mode == "good":
				p.Done(breaker.Success)
			case mode == "bad":
				p.Done(breaker.Failure)
			case b.State() == breaker.HalfOpen:
				fmt.Println("hang", start.UnixNano())
			default:
				p.Done(breaker.Failure)
			}
		}
	}
}

// process is one of the fleet.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	end sync.Once

	mu     sync.Mutex
	state  string
	fleet  bool
	opened int // times that it has opened
	hangs  []time.Time
	forced chan string
}

func start(t testing.TB, where, name string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0]), forced: make(chan string, 8)}
	p.cmd.Env = append(os.Environ(), childStore+"="+where, childName+"="+name)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	scan := bufio.NewScanner(out)
	for !strings.HasPrefix(scan.Text(), "ready ") {
		// What it found in the store is a change, which it tells first.
		if !scan.Scan() || strings.HasPrefix(scan.Text(), "error ") {
			t.Fatalf("the process says %q", scan.Text())
		}
	}
	p.state = strings.TrimPrefix(scan.Text(), "ready ")
	go func() {
		for scan.Scan() {
			p.read(scan.Text())
		}
	}()
	return p
}

func (p *process) read(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var to string
	var fleet bool
	switch verb, rest, _ := strings.Cut(line, " "); verb {
	case "state":
		fmt.Sscan(rest, &to, &fleet)
		p.state, p.fleet = to, fleet
		if to == "open" {
			p.opened++
		}
	case "hang":
		ns, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			p.t.Errorf("a process says %q", line)
			return
		}
		p.hangs = append(p.hangs, time.Unix(0, ns))
	case "forced":
		p.forced <- rest
	default:
		p.t.Errorf("a process says %q", line)
	}
}

func (p *process) say(line string) {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Errorf("%q: %v", line, err)
	}
}

// kill ends it as kill -9 does.
func (p *process) kill() {
	p.end.Do(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
}

func (p *process) is(state string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == state
}

func (p *process) openings() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// fleet is several of them.
type fleet []*process

func startFleet(t testing.TB, where string, n int) (fleet, string) {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '#' {
			return '.'
		}
		return r
	}, t.Name())
	name = fmt.Sprintf("%.40s.%d", name, time.Now().UnixNano()%1e9)
	all := make(fleet, n)
	for i := range all {
		all[i] = start(t, where, name)
	}
	return all, name
}

func (f fleet) say(line string) {
	for _, p := range f {
		p.say(line)
	}
}

// all waits until all are in a state, and returns how long that took.
func (f fleet) all(t testing.TB, state string, within time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		n := 0
		for _, p := range f {
			if p.is(state) {
				n++
			}
		}
		if n == len(f) {
			return time.Since(begin)
		}
		if time.Since(begin) > within {
			t.Fatalf("%d of %d are %s after %v", n, len(f), state, within)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
