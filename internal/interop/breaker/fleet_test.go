//go:build linux

package breaker

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/internal/interop/pgstore/pgserver"
	"example.com/plainware/internal/interop/redisstore/redisserver"
)

// backend is a store that processes share. stop keeps it from answering until the
// function that it returns is called.
type backend struct {
	name string
	open func(t *testing.T) (where string, stop func(t *testing.T) (resume func()))
}

var backends = []backend{{"sqlite", sqlite}, {"redis", redisServer}, {"postgres", postgres}}

func sqlite(t *testing.T) (string, func(*testing.T) func()) {
	path := filepath.Join(t.TempDir(), "state.db")
	return "sqlite " + path, func(t *testing.T) func() {
		db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		return func() {
			conn.ExecContext(context.Background(), "ROLLBACK")
			conn.Close()
			db.Close()
		}
	}
}

func redisServer(t *testing.T) (string, func(*testing.T) func()) {
	s := redisserver.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	return "redis " + s.Addr, func(*testing.T) func() {
		s.Signal(syscall.SIGSTOP)
		return func() { s.Signal(syscall.SIGCONT) }
	}
}

func postgres(t *testing.T) (string, func(*testing.T) func()) {
	s := pgserver.ForTest(t)
	return "postgres " + s.URL(""), func(t *testing.T) func() {
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		return s.Resume
	}
}

func TestFleet(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			where, stop := b.open(t)
			t.Run("together", func(t *testing.T) {
				together := func(name string, f func(t *testing.T)) {
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						f(t)
					})
				}
				for _, n := range []int{2, 4, 8} {
					together("quorum of "+string(rune('0'+n)), func(t *testing.T) { quorum(t, where, n) })
				}
				together("poisoned", func(t *testing.T) { poisoned(t, where) })
				together("killed while open", func(t *testing.T) { killed(t, where) })
				together("probes", func(t *testing.T) { probes(t, where) })
			})
			t.Run("store stopped", func(t *testing.T) { stopped(t, where, stop) })
		})
	}
}

// Once more than half of the processes fail, all are open within two sync
// intervals, and recover together when the back end does.
func quorum(t *testing.T, where string, n int) {
	all, _ := startFleet(t, where, n)
	time.Sleep(time.Second)
	bad := n/2 + 1
	all[:bad].say("bad")
	all[:bad].all(t, "open", 10*time.Second) // each for itself
	took := all.all(t, "open", 2*interval*6/5+slack)
	t.Logf("%d of %d fail: the others are open %v later", bad, n, took)
	all.say("good")
	all.all(t, "closed", 10*time.Second)
}

// A process with a bad network opens for itself only.
func poisoned(t *testing.T, where string) {
	all, _ := startFleet(t, where, 4)
	time.Sleep(time.Second)
	all[0].say("bad")
	all[:1].all(t, "open", 5*time.Second)
	time.Sleep(8 * time.Second)
	for i, p := range all[1:] {
		if p.openings() != 0 {
			t.Errorf("process %d has opened", i+1)
		}
	}
	if all[0].openings() < 2 {
		t.Error("it has not opened again")
	}
}

// After kill -9 of all of them an open breaker is found open.
func killed(t *testing.T, where string) {
	all, name := startFleet(t, where, 2)
	time.Sleep(time.Second)
	all.say("bad")
	all.all(t, "open", 5*time.Second)
	// By probes that fail, to a longer time than a start takes.
	for all[0].openings() < 3 {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(2 * interval)
	for _, p := range all {
		p.kill()
	}
	for range 2 {
		if p := start(t, where, name); !p.is("open") {
			t.Errorf("it is %s after the restart", p.state)
		}
	}
}

// However many ask, the back end that hangs gets one probe, and one more for each
// probe timeout.
func probes(t *testing.T, where string) {
	all, _ := startFleet(t, where, 8)
	time.Sleep(time.Second)
	all.say("bad")
	all.all(t, "open", 5*time.Second)
	all.say("hang")
	all.all(t, "half-open", 10*time.Second)
	time.Sleep(3*probeTimeout + probeTimeout/2)
	var starts []time.Time
	for _, p := range all {
		p.mu.Lock()
		starts = append(starts, p.hangs...)
		p.mu.Unlock()
	}
	if len(starts) < 3 {
		t.Fatalf("%d probes", len(starts))
	}
	slices.SortFunc(starts, time.Time.Compare)
	// A permit may have lain there before it was taken, the first one longer than
	// the last one.
	w := starts[len(starts)-1].Sub(starts[0]) + slack/2
	if most := 1 + int(w/probeTimeout); len(starts) > most {
		t.Errorf("%d probes in %v, at most %d", len(starts), w, most)
	}
	t.Logf("%d probes of 8 processes in %v", len(starts), w)
}

// A store that is stopped for ten seconds loses nothing that mattered: what an
// operator has decided holds, nobody waits, and what happens in the meantime is
// known afterwards.
func stopped(t *testing.T, where string, stop func(*testing.T) func()) {
	all, name := startFleet(t, where, 4)
	all[0].say("open")
	if err := <-all[0].forced; err != "<nil>" {
		t.Fatal(err)
	}
	all.all(t, "open", 2*interval+slack)
	resume := stop(t)
	time.Sleep(10 * time.Second)
	for i, p := range all {
		if !p.is("open") {
			t.Errorf("process %d is %s", i, p.state)
		}
	}
	resume()
	if p := start(t, where, name); !p.is("open") {
		t.Errorf("a new process is %s", p.state)
	}
	all[1].say("auto")
	if err := <-all[1].forced; err != "<nil>" {
		t.Fatal(err)
	}
	all.all(t, "closed", 2*interval+slack)
	// And the detection works as before.
	time.Sleep(time.Second)
	all[:3].say("bad")
	all.all(t, "open", 10*time.Second)
}
