//go:build linux

package ratelimit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/plainware/ratelimit"
)

// fleetEnv is how long each fleet asks for more than there is, as a duration.
// Unset is two seconds; by hand it is a minute.
const fleetEnv = "PLAINWARE_FLEET"

func fleetTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv(fleetEnv)
	if s == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		t.Fatalf("%s: %q is no duration: %v", fleetEnv, s, err)
	}
	return d
}

// fleet is several processes that share a store.
type fleet struct {
	t       *testing.T
	begin   time.Time
	stop    time.Time
	cmds    []*exec.Cmd
	ins     []io.Writer
	reports []*report
}

// run runs n processes for some time. What happens in the meantime is up to
// meanwhile, which may be nil.
func run(t *testing.T, j job, n int, length time.Duration, meanwhile func(*fleet)) *fleet {
	t.Helper()
	f := &fleet{t: t}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	var ready []chan struct{}
	for range n {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), jobEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r, is := new(report), make(chan struct{})
		readers.Go(func() {
			if err := r.read(bufio.NewScanner(out), is); err != nil {
				t.Error(err)
			}
		})
		f.cmds, f.reports = append(f.cmds, cmd), append(f.reports, r)
		f.ins, ready = append(f.ins, in), append(ready, is)
	}
	giveUp := time.After(time.Minute)
	for i, is := range ready {
		select {
		case <-is:
		case <-giveUp:
			for _, cmd := range f.cmds {
				cmd.Process.Kill()
			}
			t.Fatalf("process %d does not get ready", i)
		}
	}
	f.begin = time.Now()
	f.stopAt(f.begin.Add(length))
	if meanwhile != nil {
		meanwhile(f)
	}
	readers.Wait()
	for i, cmd := range f.cmds {
		if err := cmd.Wait(); err != nil && f.reports[i].ended {
			t.Errorf("process %d: %v", i, err)
		}
	}
	return f
}

// stopAt tells the processes when to stop. It may be said again as long as they run.
func (f *fleet) stopAt(stop time.Time) {
	f.stop = stop
	for _, in := range f.ins {
		fmt.Fprintln(in, stop.UnixNano())
	}
}

// until waits for a part of the time that the fleet runs.
func (f *fleet) until(part float64) {
	<-time.After(time.Until(f.begin.Add(time.Duration(part * float64(f.stop.Sub(f.begin))))))
}

// admitted are the admissions by the store, of all processes.
func (f *fleet) admitted() []admission {
	var all []admission
	for _, r := range f.reports {
		all = append(all, r.admitted...)
	}
	return all
}

// span is a time in which the store was there for all processes.
type span struct{ from, to time.Time }

// whole is the time that the fleet ran.
func (f *fleet) whole() span { return span{f.begin, f.stop} }

// judge checks that no window has more admissions by the store than the bound,
// and that in the spans, in the order of time, there were nearly all of those to
// which the limit entitles. What is saved up in between does not count as such.
func (f *fleet) judge(j job, up ...span) {
	f.t.Helper()
	all := f.admitted()
	interval := int64(time.Second) / j.Rate
	if over := excess(all, j.Burst, interval); over > 0 {
		f.t.Errorf("some window has %d admissions more than the bound", over)
	}
	due, got := j.Burst, int64(0)
	for _, s := range up {
		due += int64(s.to.Sub(s.from)) / interval
		for _, a := range all {
			if a.before >= s.from.UnixNano() && a.after <= s.to.UnixNano() {
				got++
			}
		}
	}
	var sum report
	for _, r := range f.reports {
		sum.requests += r.requests
		sum.calls += r.calls
		sum.failures += r.failures
		sum.recoveries += r.recoveries
		sum.free += r.free
		sum.degraded = append(sum.degraded, r.degraded...)
	}
	f.t.Logf("%d requests of %d processes, %d calls: %d admitted, %d of %d (%.1f %%) with the store up; %d degraded, %d free; %d failures, %d recoveries",
		sum.requests, len(f.reports), sum.calls, len(all), got, due, 100*float64(got)/float64(due),
		len(sum.degraded), sum.free, sum.failures, sum.recoveries)
	if got < due*93/100 {
		f.t.Errorf("admitted %d, less than 93 %% of %d", got, due)
	}
}

// calm is a job for a machine that is busy with the whole fleet and its server:
// a decision may wait for longer than a server's program would let it.
func calm(b *backend) job {
	return job{
		Backend: b.name, Addr: b.addr, Name: "fleet", Burst: 500, Rate: 1000,
		Budget: 2 * time.Second, Mode: ratelimit.Deny,
	}
}

// ratelimit 2, 13: processes that share a store and together ask for more than
// there is are never granted more than the bound, in any window, and nearly all
// of it; with leases, too.
func TestFleet(t *testing.T) {
	length := fleetTime(t)
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			b := be.make(t)
			for i, c := range []struct {
				processes int
				lease     time.Duration
			}{{2, 0}, {4, 0}, {8, 0}, {8, 20 * time.Millisecond}} {
				t.Run(fmt.Sprintf("%d processes, lease %v", c.processes, c.lease), func(t *testing.T) {
					j := calm(b)
					j.Name, j.Lease = fmt.Sprint("fleet", i), c.lease
					f := run(t, j, c.processes, length, nil)
					f.judge(j, f.whole())
				})
			}
		})
	}
}

// ratelimit 13: a process that is killed, with tokens in hand, takes nothing from
// the bound and next to nothing from the others.
func TestFleetKilled(t *testing.T) {
	length := fleetTime(t)
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			b := be.make(t)
			j := calm(b)
			j.Lease = 20 * time.Millisecond
			f := run(t, j, 4, length, func(f *fleet) {
				f.until(0.4)
				if err := f.cmds[1].Process.Kill(); err != nil {
					t.Error(err)
				}
			})
			f.judge(j, f.whole())
			if f.reports[1].ended || len(f.reports[1].admitted) == 0 {
				t.Errorf("the process was not killed at its work: %+v", f.reports[1])
			}
		})
	}
}

// settle is what a fleet may need after the server is back: the second for which
// it is left alone, twice if the first probe was too early to connect.
const settle = 2 * time.Second

// ratelimit 11, 16, 17: the server is restarted. What each mode promises holds,
// and whatever is decided by the store is within the bound, before and after.
func TestFleetRestart(t *testing.T) {
	length := fleetTime(t) + settle + time.Second
	for _, be := range backends {
		if be.name == "SQLite" {
			continue // has no server
		}
		t.Run(be.name, func(t *testing.T) {
			b := be.make(t)
			for _, mode := range []ratelimit.OnStoreError{ratelimit.Deny, ratelimit.Local, ratelimit.Allow} {
				t.Run(mode.String(), func(t *testing.T) {
					j := calm(b)
					j.Name, j.Mode = mode.String(), mode
					j.Lease, j.Budget = 20*time.Millisecond, 250*time.Millisecond
					var down, back time.Time
					f := run(t, j, 4, length, func(f *fleet) {
						f.until(0.2)
						down = time.Now()
						left := f.stop.Sub(down)
						f.stopAt(down.Add(time.Hour)) // how long it takes is the server's affair
						b.stop(t)
						<-time.After(time.Second)
						b.start(t)
						back = time.Now()
						f.stopAt(back.Add(left))
					})
					t.Logf("down for %v", back.Sub(down))
					f.judge(j, span{f.begin, down}, span{back.Add(settle), f.stop})
					f.judgeMode(j)
				})
			}
		})
	}
}

// judgeMode checks what was decided without the store.
func (f *fleet) judgeMode(j job) {
	f.t.Helper()
	interval := int64(time.Second) / j.Rate
	for i, r := range f.reports {
		if r.failures == 0 || r.recoveries == 0 {
			f.t.Errorf("process %d has not noticed: %d failures, %d recoveries", i, r.failures, r.recoveries)
		}
		switch j.Mode {
		case ratelimit.Deny:
			if len(r.degraded) > 0 || r.free > 0 {
				f.t.Errorf("process %d has admitted %d without the store", i, len(r.degraded))
			}
		case ratelimit.Local:
			if over := excess(slices.Clone(r.degraded), j.Burst, interval); over > 0 {
				f.t.Errorf("process %d: some window has %d admissions more than one bound of its own", i, over)
			}
			if int64(len(r.degraded)) < j.Burst/2 {
				f.t.Errorf("process %d has admitted only %d without the store", i, len(r.degraded))
			}
		case ratelimit.Allow:
			if r.free == 0 {
				f.t.Errorf("process %d has admitted none without the store", i)
			}
		}
	}
}

// A lease makes of one call for each request some in each lease time, and gets
// nearly all that the limit entitles to.
func TestFleetLeaseCalls(t *testing.T) {
	const processes, life = 8, 20 * time.Millisecond
	length := fleetTime(t)
	b := newRedis(t)
	j := calm(b)
	j.Burst, j.Rate, j.Lease = 1000, 5000, life
	with := run(t, j, processes, length, nil)
	with.judge(j, with.whole())
	j.Direct = true
	without := run(t, j, processes, length, nil)
	calls := func(f *fleet) (n int64) {
		for _, r := range f.reports {
			n += r.calls
		}
		return n
	}
	got, plain := calls(with), calls(without)
	t.Logf("%d calls with leases, %d without: %.2f %%", got, plain, 100*float64(got)/float64(plain))
	// One each L/2, since no process gets all that it asks for, and those that
	// are made before a key is known to be hot and while there is a burst.
	if most := processes * (int64(length/(life/2)) + 20); got > most {
		t.Errorf("%d calls, want at most %d", got, most)
	}
}
