package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
	"example.com/plainware/upstream"
)

// Another target of the same ID is another back end: the former one is drained
// and closed, like one whose ID is gone.
func TestUpdateReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		var open, made atomic.Int32
		serve := func(o *origin, k int, c *memnet.Conn) {
			open.Add(1)
			made.Add(1)
			defer open.Add(-1)
			obliging(o, k, c)
		}
		n.add("a", serve)
		n.add("b", serve)
		p := n.pool(upstream.Config{}, "a")
		for i := range 20 {
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			if err := p.Update([]upstream.Target{{URL: "http://" + string("ba"[i%2]), ID: "a"}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		if got := open.Load(); made.Load() != 20 || got != 0 {
			t.Errorf("%d of %d connections are open", got, made.Load())
		}
	})
}

// A request that runs on a back end that was replaced ends undisturbed, and
// Shutdown waits for it.
func TestShutdownWaitsForReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		release := make(chan struct{})
		n.add("a", holding(release))
		n.add("b", obliging)
		p := n.pool(upstream.Config{}, "a")
		done := make(chan error, 1)
		go func() {
			_, _, _, err := send(p, newRequest(t, "GET", "/", ""))
			done <- err
		}()
		synctest.Wait()
		if err := p.Update([]upstream.Target{{URL: "http://b", ID: "a"}}); err != nil {
			t.Fatal(err)
		}
		mustSend(t, p, newRequest(t, "GET", "/", ""))
		start := time.Now()
		time.AfterFunc(5*time.Second, func() { close(release) })
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 5*time.Second {
			t.Errorf("Shutdown returned after %v", d)
		}
		if err := <-done; err != nil {
			t.Errorf("the request under way: %v", err)
		}
	})
}

// A back end at another address has no share in the ejection of the one that had
// its ID, and the Observer is told so.
func TestUpdateToAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN(t)
		n.add("b", obliging)
		n.add("c", obliging)
		var told []string
		p := n.pool(upstream.Config{Picker: upstream.RoundRobin(), Observer: upstream.Observer{State: func(c upstream.StateChange) {
			told = append(told, fmt.Sprintf("%s %s: %v, %v", c.Target.ID, c.Target.URL, c.Old, c.New))
		}}}, "down", "c")
		for range 20 {
			mustSend(t, p, newRequest(t, "GET", "/", ""))
		}
		state := func() upstream.State {
			for s := range p.Backends() {
				if s.Target.ID == "down" {
					return s.State
				}
			}
			return 99
		}
		update := func(target upstream.Target) {
			target.ID = "down"
			if err := p.Update([]upstream.Target{target, {URL: "http://c", ID: "c"}}); err != nil {
				t.Fatal(err)
			}
		}
		update(upstream.Target{URL: "http://down", Weight: 2, Labels: map[string]string{"v": "2"}})
		if got := state(); got != upstream.StateEjected {
			t.Errorf("the same back end is %v", got)
		}
		update(upstream.Target{URL: "http://b"})
		if got := state(); got != upstream.StateHealthy {
			t.Errorf("the back end at another address begins as %v", got)
		}
		if got, want := strings.Join(told, "; "), "down http://down: healthy, ejected; down http://b: ejected, healthy"; got != want {
			t.Errorf("told %s\nwant %s", got, want)
		}
	})
}

// What may change about a target that stays is seen at once, and its connection
// is kept. Labels are not among it where a tripper was made for them.
func TestUpdateOfLabels(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newLAN(t)
			n.add("a", obliging)
			var seen upstream.Target
			var changed upstream.StateChange
			signed := ""
			cfg := upstream.Config{Observer: upstream.Observer{
				Attempt: func(_ *http.Request, a upstream.Attempt) { seen = a.Target },
				State:   func(c upstream.StateChange) { changed = c },
			}}
			if wrapped {
				cfg.Wrap = func(target upstream.Target, rt http.RoundTripper) (http.RoundTripper, error) {
					return tripFunc(func(r *http.Request) (*http.Response, error) {
						signed = target.Labels["v"]
						return rt.RoundTrip(r)
					}), nil
				}
			}
			p := n.pool(cfg, "a")
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			update := func(target upstream.Target) {
				target.URL, target.ID, target.Labels = "http://a", "a", map[string]string{"v": "2"}
				if err := p.Update([]upstream.Target{target}); err != nil {
					t.Fatal(err)
				}
			}
			update(upstream.Target{Weight: 5})
			if got := only(t, p).Conns; wrapped == (got == 1) {
				t.Errorf("wrapped %v: %d connections after the update", wrapped, got)
			}
			mustSend(t, p, newRequest(t, "GET", "/", ""))
			if seen.Weight != 5 || seen.Labels["v"] != "2" {
				t.Errorf("wrapped %v: the Observer saw %+v", wrapped, seen)
			}
			if wrapped && signed != "2" {
				t.Errorf("the tripper has the label %q", signed)
			}
			if got := only(t, p).Target; got.Weight != 5 || got.Labels["v"] != "2" {
				t.Errorf("wrapped %v: Backends shows %+v", wrapped, got)
			}
			update(upstream.Target{Draining: true})
			if changed.New != upstream.StateDraining || !changed.Target.Draining || changed.Target.Weight != 1 {
				t.Errorf("wrapped %v: told %+v", wrapped, changed)
			}
		})
	}
}

// The limit of the connections for upgrades, which are made when one comes, is
// that of the last Update.
func TestUpdateOfMaxInFlightForUpgrades(t *testing.T) {
	release := make(chan struct{})
	s := serveTLSBoth(t, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })})
	let := sync.OnceFunc(func() { close(release) })
	defer let() // before the server is closed, which waits for its handlers
	url := "https://" + s.addr
	p := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: url, MaxInFlight: 1}}, TLS: s.tls, Conns: upstream.Conns{Queue: -1}})
	if err := p.Update([]upstream.Target{{URL: url, MaxInFlight: 2}}); err != nil {
		t.Fatal(err)
	}
	upgrade := func() error {
		req := newRequest(t, "GET", "/", "")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		_, _, _, err := send(p, req)
		return err
	}
	errs := make(chan error, 3)
	for range 3 {
		go func() { errs <- upgrade() }()
	}
	wantKind(t, <-errs, upstream.KindQueueFull) // the third
	let()
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Observer.State may call Update, whichever goroutine it is in.
func TestUpdateFromState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *upstream.Pool
		ready := make(chan struct{})
		p = newPool(t, upstream.Config{
			Targets: []upstream.Target{{URL: "http://a"}},
			Dial:    func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no") },
			Check:   &upstream.Check{Kind: upstream.CheckTCP},
			Observer: upstream.Observer{State: func(c upstream.StateChange) {
				<-ready
				next := ""
				switch c.Target.URL + " " + c.New.String() {
				case "http://a unhealthy": // in the goroutine of the check, which the Update ends
					next = "http://b"
				case "http://b draining": // in that of the Update
					next = "http://c"
				default:
					return
				}
				if err := p.Update([]upstream.Target{{URL: next, Draining: true}}); err != nil {
					t.Error(err)
				}
			}},
		})
		close(ready)
		time.Sleep(time.Second)
		if got := only(t, p); got.Target.URL != "http://c" || got.State != upstream.StateDraining {
			t.Errorf("%s, %v", got.Target.URL, got.State)
		}
	})
}

// Backends may be looked at while they change.
func TestBackendsWhileUpdating(t *testing.T) {
	p := newPool(t, upstream.Config{Targets: []upstream.Target{{URL: "http://a"}}})
	var wg sync.WaitGroup
	var over atomic.Bool
	wg.Go(func() {
		defer over.Store(true)
		var targets []upstream.Target
		for i := range 20 {
			targets = append(targets, upstream.Target{URL: "http://a", ID: fmt.Sprint(i)})
		}
		for i := range 200 {
			if err := p.Update(targets[:1+i%len(targets)]); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for !over.Load() {
			for s := range p.Backends() {
				if s.Active != 0 || s.State != upstream.StateHealthy {
					t.Errorf("%d active, %v", s.Active, s.State)
				}
			}
		}
	})
	wg.Wait()
}
