package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a Lookup that says what the test wants.
type zone struct {
	mu      sync.Mutex
	addrs   []string
	srv     []*net.SRV
	err     error
	hang    bool
	lookups []time.Time
	names   []string
}

func (z *zone) set(err error, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs, z.err = addrs, err
}

func (z *zone) asked(ctx context.Context, name string) error {
	z.mu.Lock()
	z.lookups = append(z.lookups, time.Now())
	z.names = append(z.names, name)
	hang := z.hang
	z.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if err := z.asked(ctx, network+" "+host); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	var out []netip.Addr
	for _, a := range z.addrs {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, z.err
}

func (z *zone) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if err := z.asked(ctx, service+proto+name); err != nil {
		return "", nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return name, z.srv, z.err
}

// count returns how many lookups there were.
func (z *zone) count() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.lookups)
}

// dnsBed runs a Watch of c over z until the test ends. It returns the answers
// that were set so far, and the DNS. It must be called in a bubble.
func dnsBed(t *testing.T, c DNSConfig, z *zone) (func() []string, *DNS) {
	t.Helper()
	c.Lookup = z
	d, err := NewDNS(c)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var answers []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- d.Watch(ctx, func(targets []Target) {
			mu.Lock()
			defer mu.Unlock()
			var out []string
			for _, a := range targets {
				out = append(out, fmt.Sprintf("%s@%s p%d w%d", a.URL, a.Addr, a.Priority, a.Weight))
			}
			answers = append(answers, strings.Join(out, ", "))
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
	synctest.Wait()
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(answers)
	}, d
}

// A2: DNS A/AAAA re-resolution; only what changes is told.
func TestDNSAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set(nil, "10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1")
		answers, _ := dnsBed(t, DNSConfig{Target: Target{URL: "http://api.internal", Weight: 3, Priority: 1}}, z)
		want := []string{"http://api.internal@10.0.0.1:80 p1 w3, http://api.internal@10.0.0.2:80 p1 w3, http://api.internal@[2001:db8::1]:80 p1 w3"}
		if got := answers(); !slices.Equal(got, want) {
			t.Fatalf("answers %q, want %q", got, want)
		}
		z.set(nil, "2001:db8::1", "10.0.0.1", "10.0.0.2") // another order
		time.Sleep(35 * time.Second)
		if got := answers(); !slices.Equal(got, want) {
			t.Errorf("answers %q for the same addresses", got)
		}
		z.set(nil, "10.0.0.2")
		time.Sleep(35 * time.Second)
		want = append(want, "http://api.internal@10.0.0.2:80 p1 w3")
		if got := answers(); !slices.Equal(got, want) {
			t.Errorf("answers %q, want %q", got, want)
		}
		if z.names[0] != "ip api.internal" {
			t.Errorf("looked up %q", z.names[0])
		}
	})
}

func TestDNSPortsAndNetwork(t *testing.T) {
	for url, want := range map[string]string{
		"http://a": ":80", "https://a": ":443", "h2://a": ":443", "grpcs://a": ":443",
		"h2c://a": ":80", "grpc://a": ":80", "h3://a": ":443", "https://a:8443": ":8443",
	} {
		synctest.Test(t, func(t *testing.T) {
			z := new(zone)
			z.set(nil, "10.0.0.1")
			answers, _ := dnsBed(t, DNSConfig{Target: Target{URL: url}, Network: "ip4"}, z)
			if got := answers(); len(got) != 1 || !strings.HasPrefix(got[0], url+"@10.0.0.1"+want+" ") || z.names[0] != "ip4 a" {
				t.Errorf("%s: answers %q to %q", url, got, z.names)
			}
		})
	}
}

// A2: DNS SRV gives host, port, priority and weight.
func TestDNSSRV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{srv: []*net.SRV{
			{Target: "b.internal.", Port: 8081, Priority: 10, Weight: 60},
			{Target: "a.internal.", Port: 8080, Priority: 20, Weight: 0},
		}}
		answers, _ := dnsBed(t, DNSConfig{SRV: "_http._tcp.internal", Target: Target{URL: "https://internal", Priority: 1}}, z)
		want := []string{"https://internal@a.internal:8080 p21 w1, https://internal@b.internal:8081 p11 w60"}
		if got := answers(); !slices.Equal(got, want) {
			t.Errorf("answers %q, want %q", got, want)
		}
		if z.names[0] != "_http._tcp.internal" {
			t.Errorf("looked up %q", z.names[0])
		}
		z.mu.Lock()
		z.srv = []*net.SRV{{Target: "."}} // RFC 2782: decidedly not available
		z.mu.Unlock()
		time.Sleep(time.Minute)
		if got := answers(); !slices.Equal(got, want) {
			t.Errorf("answers %q after a record that says no", got)
		}
	})
}

// Several records for one address are one target, the same in whatever order and
// case they come.
func TestDNSSRVRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &net.SRV{Target: "a.internal.", Port: 80, Priority: 2, Weight: 9}
		b := &net.SRV{Target: "a.internal.", Port: 80, Priority: 1, Weight: 3}
		c := &net.SRV{Target: "A.Internal.", Port: 80, Priority: 1, Weight: 7}
		z := &zone{srv: []*net.SRV{a, b, c}}
		answers, _ := dnsBed(t, DNSConfig{SRV: "_http._tcp.internal", Target: Target{URL: "http://internal"}}, z)
		for _, srv := range [][]*net.SRV{{a, c, b}, {b, a, c}, {b, c, a}, {c, a, b}, {c, b, a}} {
			z.mu.Lock()
			z.srv = srv
			z.mu.Unlock()
			time.Sleep(35 * time.Second)
		}
		if got, want := answers(), []string{"http://internal@a.internal:80 p1 w7"}; !slices.Equal(got, want) {
			t.Errorf("answers %q, want %q", got, want)
		}
	})
}

// A record that cannot be dialled does not take the others with it. It is logged
// once, until it has gone.
func TestDNSSRVWithoutPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		z := &zone{srv: []*net.SRV{{Target: "odd.", Port: 0, Weight: 1}, {Target: "good.", Port: 80, Weight: 1}}}
		answers, _ := dnsBed(t, DNSConfig{
			SRV: "_http._tcp.internal", Target: Target{URL: "http://internal"},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}, z)
		time.Sleep(5 * time.Minute)
		if got := answers(); !slices.Equal(got, []string{"http://internal@good:80 p0 w1"}) {
			t.Errorf("answers %q", got)
		}
		if out := log.String(); strings.Count(out, "without a port are left out") != 1 || strings.Contains(out, "failed") {
			t.Errorf("logged %s", out)
		}
	})
}

// A2: the last good answer is kept, and the next lookup comes sooner.
func TestDNSKeepsTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		z := new(zone)
		z.set(nil, "10.0.0.1")
		answers, _ := dnsBed(t, DNSConfig{Target: Target{URL: "http://api"}, Logger: logger}, z)
		z.set(errors.New("no such host"))
		time.Sleep(35 * time.Second)
		z.set(nil) // an empty answer
		before := z.count()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := z.count() - before; n < 5 || n > 7 {
			t.Errorf("%d lookups in 30s of failure, want one in 5s", n)
		}
		if got := answers(); len(got) != 1 {
			t.Errorf("answers %q", got)
		}
		z.set(nil, "10.0.0.1")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		out := log.String()
		if strings.Count(out, "lookup failed") != 1 || strings.Count(out, "succeeded again") != 1 {
			t.Errorf("logged %s", out)
		}
	})
}

// A2: 30 s, jittered.
func TestDNSInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set(nil, "10.0.0.1")
		dnsBed(t, DNSConfig{Target: Target{URL: "http://api"}}, z)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		gaps := make(map[time.Duration]bool)
		for i := range z.count() - 1 {
			gap := z.lookups[i+1].Sub(z.lookups[i])
			if gaps[gap] = true; gap < 27*time.Second || gap > 33*time.Second {
				t.Errorf("a gap of %v", gap)
			}
		}
		if len(gaps) < 3 {
			t.Errorf("gaps %v: no jitter", gaps)
		}
	})
}

// A2: also after a dial failure, but at most one lookup per 5 s.
func TestDNSRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set(nil, "10.0.0.1")
		_, d := dnsBed(t, DNSConfig{Target: Target{URL: "http://api"}}, z)
		time.Sleep(10 * time.Second)
		for range 100 {
			d.Refresh()
		}
		synctest.Wait()
		if n := z.count(); n != 2 {
			t.Errorf("%d lookups, want one at once", n)
		}
		for range 40 {
			d.Refresh()
			time.Sleep(100 * time.Millisecond)
		}
		if n := z.count(); n != 2 {
			t.Errorf("%d lookups within 5s of the last", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := z.count(); n != 3 {
			t.Errorf("%d lookups 5s after the last", n)
		}
	})
}

func TestDNSTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{hang: true}
		answers, _ := dnsBed(t, DNSConfig{Target: Target{URL: "http://api"}, Timeout: time.Second}, z)
		time.Sleep(5 * time.Second)
		z.mu.Lock()
		z.hang, z.addrs = false, []string{"10.0.0.9"}
		z.mu.Unlock()
		time.Sleep(10 * time.Second)
		if got := answers(); len(got) != 1 {
			t.Errorf("answers %q", got)
		}
	})
}

// One DNS may serve several Pools.
func TestDNSServesSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := new(zone)
		z.set(nil, "10.0.0.1")
		a, d := dnsBed(t, DNSConfig{Target: Target{URL: "http://api"}}, z)
		ctx, cancel := context.WithCancel(t.Context())
		var n int
		done := make(chan struct{})
		go func() { defer close(done); d.Watch(ctx, func([]Target) { n++ }) }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		z.set(nil, "10.0.0.2")
		d.Refresh()
		synctest.Wait()
		cancel()
		<-done
		if got := a(); len(got) != 2 || n != 2 {
			t.Errorf("one was told %d times, the other %d times", len(got), n)
		}
		if len(d.watchers) != 1 {
			t.Errorf("%d watchers", len(d.watchers))
		}
	})
}

// The resolver of package net, with what needs no network.
func TestDNSOfAnAddress(t *testing.T) {
	for url, want := range map[string]string{"http://127.0.0.1:8080": "127.0.0.1:8080", "https://[::1]": "[::1]:443"} {
		d, err := NewDNS(DNSConfig{Target: Target{URL: url}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got []Target
		d.Watch(ctx, func(targets []Target) { got = targets; cancel() })
		if len(got) != 1 || got[0].Addr != want || got[0].URL != url {
			t.Errorf("%s: %+v", url, got)
		}
	}
}

func TestNewDNSCheck(t *testing.T) {
	_, err := NewDNS(DNSConfig{
		Target:   Target{URL: "http://", ID: "x", Addr: "1.2.3.4:5", Weight: -1},
		Network:  "tcp",
		Interval: time.Millisecond,
		Timeout:  -1,
	})
	for _, field := range []string{"Target.URL", "Target.ID", "Target.Addr", "Target.Weight", "Network", "Interval", "Timeout"} {
		if !strings.Contains(fmt.Sprint(err), "upstream: DNSConfig."+field+": ") {
			t.Errorf("no word of %s in %v", field, err)
		}
	}
	for _, url := range []string{"unix:///run/app.sock", "https://user:geheim@api", "http://api/path", "api:80", ":"} {
		if _, err := NewDNS(DNSConfig{Target: Target{URL: url}}); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", url, err)
		}
	}
	d, err := NewDNS(DNSConfig{Target: Target{URL: "https://api"}})
	if err != nil || d.lookup != net.DefaultResolver {
		t.Errorf("%v, %v", d, err)
	}
}
