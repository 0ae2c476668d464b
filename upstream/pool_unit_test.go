package upstream

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeepAliveValue(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"timeout=5": 5 * time.Second, "timeout=5, max=100": 5 * time.Second, "max=1,  Timeout = \"30\"": 30 * time.Second,
		"": 0, "timeout": 0, "timeout=": 0, "timeout=0": 0, "timeout=-1": 0, "timeout=1e3": 0, "timeout=99999999999": 0, "timeout=86401": 0, "xtimeout=5": 0,
	} {
		got, ok := keepAliveTimeout(in)
		if got != want || ok != (want > 0) {
			t.Errorf("%q: got %v, %v, want %v", in, got, ok, want)
		}
	}
}

// Whatever a back end sends, the time is none or between a second and a day,
// and the limit that follows from it is shorter and more than nothing.
func FuzzKeepAlive(f *testing.F) {
	for _, s := range []string{"timeout=5, max=100", "timeout=\"1\"", ",=,", "timeout=4294967296"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := keepAliveTimeout(s)
		if !ok && d != 0 || ok && (d < time.Second || d > 24*time.Hour) {
			t.Fatalf("%q: %v, %v", s, d, ok)
		}
		var i idleTimes
		i.announce([]string{s})
		if limit := i.limit(0, 0); ok && (limit <= 0 || limit >= d) || !ok && limit != 0 {
			t.Fatalf("%q: limit %v", s, limit)
		}
	})
}

// One connection found closed teaches nothing; two of the same age do, until it
// is forgotten again.
func TestIdleTimes(t *testing.T) {
	var i idleTimes
	i.observe(5*time.Second, 10*time.Second)
	i.observe(5010*time.Millisecond, 10*time.Second) // the same restart
	if got := i.limit(0, 11*time.Second); got != 0 {
		t.Errorf("after one: %v", got)
	}
	i.observe(8*time.Second, 20*time.Second)
	if got := i.limit(time.Minute, 21*time.Second); got != time.Minute {
		t.Errorf("after two that differ: %v", got)
	}
	i.observe(8100*time.Millisecond, 30*time.Second)
	if got := i.limit(time.Minute, 31*time.Second); got != 7*time.Second {
		t.Errorf("after two that agree: %v", got)
	}
	if got := i.limit(time.Minute, time.Hour); got != time.Minute {
		t.Errorf("an hour later: %v", got)
	}
	i.announce([]string{"timeout=20"})
	if got := i.limit(time.Minute, 31*time.Second); got != 19*time.Second {
		t.Errorf("announced: %v", got)
	}
	if got := i.limit(2*time.Second, 31*time.Second); got != 2*time.Second {
		t.Errorf("configured: %v", got)
	}
}

func TestRetryAfterOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in10 := time.Now().Add(10 * time.Second).UTC().Format(http.TimeFormat)
		past := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
		for in, want := range map[string]time.Duration{"0": 0, "3": 3 * time.Second, in10: 10 * time.Second, past: 0} {
			if got, ok := retryAfterOf(in); got != want || !ok {
				t.Errorf("%q: %v, %v", in, got, ok)
			}
		}
		for _, in := range []string{"", "-1", "1.5", "soon", "99999999999999999999"} {
			if got, ok := retryAfterOf(in); ok {
				t.Errorf("%q: %v", in, got)
			}
		}
	})
}

// Whatever Retry-After says, the pause is not negative.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"3", "Sun, 06 Nov 1994 08:49:37 GMT", "2147483648"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := retryAfterOf(s); d < 0 || !ok && d != 0 {
			t.Fatalf("%q: %v, %v", s, d, ok)
		}
	})
}

// Every latency lies in the bucket whose bounds it is between, and the bounds
// grow.
func TestLatencyBuckets(t *testing.T) {
	for i := range latencyBuckets {
		if i > 0 && LatencyBound(i) <= LatencyBound(i-1) {
			t.Errorf("bound %d is %v after %v", i, LatencyBound(i), LatencyBound(i-1))
		}
	}
	for d := time.Duration(0); d < 400*time.Hour; d = d*17/16 + 1 {
		for _, d := range []time.Duration{d, d + 1} {
			i := latencyBucket(d)
			if d > LatencyBound(i) || i > 0 && d <= LatencyBound(i-1) {
				t.Fatalf("%v is in bucket %d, up to %v", d, i, LatencyBound(i))
			}
		}
	}
	for i := range latencyBuckets - 1 {
		if got := latencyBucket(LatencyBound(i)); got != i {
			t.Errorf("the bound of %d is in %d", i, got)
		}
	}
	var b LatencyBuckets
	if b.Quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	b[3], b[10] = 50, 50
	if got := b.Quantile(0.5); got != LatencyBound(3) {
		t.Errorf("median %v", got)
	}
	if got := b.Quantile(0.99); got != LatencyBound(10) {
		t.Errorf("p99 %v", got)
	}
	// Never less than the share: 158 of 160 are 98.75 %.
	b = LatencyBuckets{5: 158, 20: 2}
	for q, want := range map[float64]int{0: 5, 0.9875: 5, 0.99: 20, 1: 20} {
		if got := b.Quantile(q); got != LatencyBound(want) {
			t.Errorf("Quantile(%v) is %v, want %v", q, got, LatencyBound(want))
		}
	}
	// Nor more: 7 of 100 are 0.07, though 0.07 times 100 is more than 7.
	b = LatencyBuckets{3: 7, 4: 93}
	if got := b.Quantile(0.07); got != LatencyBound(3) {
		t.Errorf("Quantile(0.07) is %v, want %v", got, LatencyBound(3))
	}
}

// Every kind of failure is told of, in its order, and those that are the back
// end's fault are summed up.
func TestFailuresByKind(t *testing.T) {
	var s stats
	s.failed(KindDial)
	s.failed(KindDial)
	s.failed(KindClientGone)
	s.failed(KindBodyAborted)
	var b BackendStats
	for i := range b.failures {
		b.failures[i] = s.failures[i].Load()
	}
	next := KindClientGone
	for k, n := range b.Failures() {
		if k != next {
			t.Fatalf("%v, want %v", k, next)
		}
		next++
		want := map[Kind]uint64{KindDial: 2, KindClientGone: 1, KindBodyAborted: 1}[k]
		if n != want {
			t.Errorf("%v: %d, want %d", k, n, want)
		}
	}
	if next != KindClosed+1 || b.Failed() != 3 {
		t.Errorf("the last is before %v; %d are the back end's", next, b.Failed())
	}
	for k := range b.Failures() {
		if k != KindClientGone {
			t.Errorf("goes on with %v after the end", k)
		}
		break
	}
}

// The budget slides: what is ten seconds old does not count.
func TestBudget(t *testing.T) {
	b := budget{percent: 20}
	for range 100 {
		b.count(0)
	}
	for range 20 {
		if !b.left(time.Second) {
			t.Fatal("spent too early")
		}
		b.spend(time.Second)
	}
	if b.left(9 * time.Second) {
		t.Error("more than 20 of 100")
	}
	if !b.left(12 * time.Second) {
		t.Error("not forgotten after ten seconds")
	}
	for range 3 {
		b.spend(12 * time.Second)
	}
	if b.left(12 * time.Second) {
		t.Error("more than the minimum of three")
	}
	b.percent = -1
	if !b.left(12 * time.Second) {
		t.Error("negative is a limit")
	}
}

// The texts by which HTTP/2 failures are told apart are those of this
// toolchain.
func TestHTTP2Texts(t *testing.T) {
	for text, want := range map[string]class{
		textUnusable: classNotSent, textNotUp: classNotSent, textGoAway: classRefused,
		textListLimit: classNever, textTooLong: classNever, textInvalid + "Host header": classNever,
	} {
		req, _ := http.NewRequest("POST", "http://x", nil)
		if f := classify(req, errors.New(text), evidence{h2: true, written: 1}); f.class != want {
			t.Errorf("%q: class %d", text, f.class)
		}
	}
}

// closes is a body that counts how often it is closed.
type closes struct {
	io.Reader
	n int
}

func (c *closes) Close() error { c.n++; return nil }

// A body that is read by two attempts is the same for both, and closed once,
// when no attempt can need it any longer.
func TestReplay(t *testing.T) {
	const text = "the quick brown fox"
	for _, first := range []int{0, 1, 7, len(text)} {
		src := &closes{Reader: strings.NewReader(text)}
		req, _ := http.NewRequest("PUT", "http://x", src)
		req.ContentLength = int64(len(text))
		var r replay
		r.init(req, 100, nil)
		a := &tryBody{r: &r}
		if got, err := io.ReadAll(io.LimitReader(a, int64(first))); string(got) != text[:first] || err != nil {
			t.Fatalf("first attempt: %q, %v", got, err)
		}
		a.Close()
		a.over.Store(true)
		if src.n != 0 {
			t.Fatal("closed between the attempts")
		}
		if !r.again(false) {
			t.Fatal("cannot be sent again")
		}
		b := new(tryBody)
		if err := r.next(b); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != text || err != nil {
			t.Errorf("after %d bytes the second attempt gets %q, %v", first, got, err)
		}
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Error("the first attempt still reads")
		}
		b.Close()
		r.settle(b)
		b.Close()
		r.drop()
		if src.n != 1 {
			t.Errorf("closed %d times", src.n)
		}
	}
}

// An attempt that is over when it comes to read takes nothing from the one that
// follows it, and closing it does not close the body of that.
func TestReplayAfterAttempt(t *testing.T) {
	const text = "the quick brown fox"
	for _, failed := range []bool{true, false} { // or has a response that is to be replaced
		src := &closes{Reader: strings.NewReader(text)}
		req, _ := http.NewRequest("PUT", "http://x", src)
		req.ContentLength = int64(len(text))
		var r replay
		r.init(req, 100, nil)
		a, b := &tryBody{r: &r}, new(tryBody)
		io.ReadFull(a, make([]byte, 4))
		if failed {
			a.over.Store(true)
		}
		if !r.again(false) || !r.handOver(a, false) {
			t.Fatal("cannot be sent again")
		}
		if err := r.next(b); err != nil {
			t.Fatal(err)
		}
		// As if Read had found it running.
		if n, err := r.read(a, make([]byte, 9)); n != 0 || err != errAttemptOver || r.total != 4 {
			t.Errorf("the attempt that is over reads %d bytes, %v", n, err)
		}
		r.settle(b)
		if a.Close(); src.n != 0 {
			t.Error("closed under the attempt that reads it")
		}
		if got, err := io.ReadAll(b); string(got) != text || err != nil {
			t.Errorf("the second attempt gets %q, %v", got, err)
		}
		if b.Close(); src.n != 1 {
			t.Errorf("closed %d times", src.n)
		}
	}
}

// A body that is being read once more cannot be handed over by an attempt with a
// response, and its reader goes on.
func TestReplayHandOver(t *testing.T) {
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("PUT", "http://x", pr)
	req.ContentLength = 2
	var r replay
	r.init(req, 100, nil)
	a := &tryBody{r: &r}
	again := r.again(false)
	done := make(chan error)
	go func() {
		_, err := io.ReadFull(a, make([]byte, 2))
		done <- err
	}()
	pw.Write([]byte("o")) // returns when it has been read
	for r.again(false) {
		runtime.Gosched() // until the next Read is under way
	}
	if !again || r.handOver(a, false) {
		t.Error("handed over while it is read")
	}
	pw.Write([]byte("k"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !r.handOver(a, false) || !a.over.Load() {
		t.Error("not handed over")
	}
}

// A Read that a failed attempt has left behind, as one over HTTP/3 may, is waited
// for, but not for long, and not if what it brings is more than is kept.
func TestReplayDuringRead(t *testing.T) {
	const text = "the quick brown fox"
	for _, test := range []struct {
		after time.Duration
		limit int
		want  bool
	}{{1, 100, true}, {yielding - 1, 100, true}, {yielding + 1, 100, false}, {1, len(text) - 1, false}} {
		for _, first := range []int{0, 7} {
			synctest.Test(t, func(t *testing.T) {
				pr, pw := io.Pipe()
				req, _ := http.NewRequest("PUT", "http://x", pr)
				req.ContentLength = -1
				var r replay
				r.init(req, test.limit, nil)
				a, b := &tryBody{r: &r}, new(tryBody)
				if first > 0 {
					go pw.Write([]byte(text[:first]))
					io.ReadFull(a, make([]byte, first))
				}
				late := make(chan error, 1)
				go func() {
					a.Read(make([]byte, len(text)))
					_, err := a.Read(make([]byte, 1))
					late <- err
				}()
				synctest.Wait()
				go func() {
					time.Sleep(test.after)
					pw.Write([]byte(text[first:]))
					pw.Close()
				}()
				if !r.again(true) || r.again(false) {
					t.Error("again", r.again(true), r.again(false))
				}
				if got := r.handOver(a, true); got != test.want {
					t.Errorf("after %v, %d kept: handed over %v", test.after, test.limit, got)
				}
				if err := <-late; err != errAttemptOver {
					t.Errorf("the attempt before reads on: %v", err)
				}
				if err := r.next(b); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(b); test.want && (string(got) != text || err != nil) {
					t.Errorf("after %v: got %q, %v", test.after, got, err)
				}
				r.drop()
				if r.kept != nil {
					t.Error("a buffer is left")
				}
			})
		}
	}
}

// The longest of durations does not turn into the shortest.
func TestJitter(t *testing.T) {
	for _, d := range []time.Duration{0, 9, 10, time.Second, math.MaxInt64 / 2, math.MaxInt64} {
		for range 1000 {
			if got, base := jitter(d), min(d, math.MaxInt64/2); got < base-base/10 || got > base+base/10 {
				t.Fatalf("%d becomes %d", d, got)
			}
		}
	}
}

// A response may come before its attempt has sent what an earlier one had read
// of the body: that is still there for it, and for no other.
func TestReplayAfterResponse(t *testing.T) {
	const text = "the quick brown fox"
	for _, first := range []int{1, 7, len(text)} {
		for _, before := range []int{0, 1} { // bytes read before the response
			src := &closes{Reader: strings.NewReader(text)}
			req, _ := http.NewRequest("POST", "http://x", src)
			req.ContentLength = int64(len(text))
			var r replay
			r.init(req, 100, nil)
			a, b := &tryBody{r: &r}, new(tryBody)
			io.ReadFull(a, make([]byte, first))
			if err := r.next(b); err != nil {
				t.Fatal(err)
			}
			io.ReadFull(b, make([]byte, before))
			r.settle(b)
			if n, err := a.Read(make([]byte, 9)); n != 0 || err == nil {
				t.Errorf("the attempt that is over reads %d bytes", n)
			}
			if got, err := io.ReadAll(b); string(got) != text[before:] || err != nil {
				t.Errorf("after %d bytes of the first and %d of its own it gets %q, %v", first, before, got, err)
			}
			if r.kept != nil {
				t.Error("what was kept still is")
			}
			if b.Close(); src.n != 1 {
				t.Errorf("closed %d times", src.n)
			}
		}
	}
}

// A goroutine that is asked for while the others are waited for is waited for
// too, or does not start.
func TestGoroutinesEnd(t *testing.T) {
	for range 200 {
		var g goroutines
		var started, ended atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for g.run(func() { ended.Add(1) }) {
					started.Add(1)
				}
			})
			wg.Go(g.end)
		}
		wg.Wait()
		if started.Load() != ended.Load() {
			t.Fatalf("%d started, %d have ended", started.Load(), ended.Load())
		}
	}
}

// What is longer than the limit is given up, not collected.
func TestReplayLimit(t *testing.T) {
	src := &closes{Reader: strings.NewReader(strings.Repeat("x", 1000))}
	req, _ := http.NewRequest("PUT", "http://x", src)
	req.ContentLength = -1
	var r replay
	r.init(req, 100, nil)
	a := &tryBody{r: &r}
	if n, err := io.Copy(io.Discard, a); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	if r.again(true) || r.kept != nil {
		t.Error("it is kept")
	}
}

func TestTargetDefaults(t *testing.T) {
	for _, c := range []struct {
		target                    Target
		id, addr, host, send, sni string
		proto                     protocol
	}{
		{Target{URL: "http://a"}, "http://a", "a:80", "a", "", "a", protoH1},
		{Target{URL: "https://a:8443"}, "https://a:8443", "a:8443", "a:8443", "a:8443", "a", protoTLS},
		{Target{URL: "https://a", PreserveHost: true}, "https://a", "a:443", "a", "", "a", protoTLS},
		{Target{URL: "h2c://[::1]:9"}, "h2c://[::1]:9", "[::1]:9", "[::1]:9", "", "::1", protoH2C},
		{Target{URL: "grpcs://a", ServerName: "b"}, "grpcs://a", "a:443", "a", "a", "b", protoH2},
		{Target{URL: "https://svc", Addr: "10.0.0.1:443"}, "https://svc@10.0.0.1:443", "10.0.0.1:443", "svc", "svc", "svc", protoTLS},
		{Target{URL: "unix:///run/x.sock", ID: "x"}, "x", "/run/x.sock", "localhost", "", "", protoH1},
		{Target{URL: "unix+h2c:///run/x.sock", Host: "h"}, "unix+h2c:///run/x.sock", "/run/x.sock", "localhost", "h", "", protoH2C},
	} {
		e, err := parseTarget(c.target, false)
		if err != nil {
			t.Errorf("%s: %v", c.target.URL, err)
			continue
		}
		got := []string{e.ID, e.addr, e.urlHost, e.sendHost, e.sni}
		if want := []string{c.id, c.addr, c.host, c.send, c.sni}; !slices.Equal(got, want) || e.proto != c.proto {
			t.Errorf("%s: got %q %d, want %q %d", c.target.URL, got, e.proto, want, c.proto)
		}
	}
}

// Every kind has a name, a code and a status of its own making.
func TestKinds(t *testing.T) {
	codes := make(map[string]bool)
	for k := KindClientGone; k <= KindClosed; k++ {
		e := &Error{Kind: k}
		if e.HTTPStatus() < 400 || e.Detail() == "" || !strings.HasPrefix(e.Code(), "upstream_") || codes[e.Code()] || k.String() == "unknown" {
			t.Errorf("%d: %s, %d, %s, %q", k, k, e.HTTPStatus(), e.Code(), e.Detail())
		}
		codes[e.Code()] = true
		if k.BackendFault() && e.HTTPStatus()/100 != 5 {
			t.Errorf("%s: %d", k, e.HTTPStatus())
		}
	}
	if Kind(200).String() != "unknown" || (&Error{Kind: 200}).HTTPStatus() != 502 {
		t.Error("an unknown kind")
	}
	e := &Error{Kind: KindDial, Backend: "10.0.0.1", Err: &timeoutError{"too slow"}}
	if !e.Timeout() || e.HTTPStatus() != 504 || strings.Contains(e.Detail(), "10.0.0.1") || !strings.Contains(e.Error(), "10.0.0.1") {
		t.Errorf("%v: %d", e, e.HTTPStatus())
	}
}

// Labels that the caller changes later do not reach the targets of a DNS.
func TestDNSCopiesItsLabels(t *testing.T) {
	labels := map[string]string{"zone": "a"}
	d, err := NewDNS(DNSConfig{Target: Target{URL: "http://app.example", Labels: labels}})
	if err != nil {
		t.Fatal(err)
	}
	labels["zone"] = "b"
	if got := d.c.Target.Labels["zone"]; got != "a" {
		t.Errorf("the zone is %q, want a", got)
	}
}

// unitSet returns a Pool over one back end, and the connections to that. dial
// may be nil.
func unitSet(t *testing.T, target string, conns Conns, dial func() (net.Conn, error)) (*Pool, *connSet) {
	t.Helper()
	p, err := New(Config{
		Targets: []Target{{URL: target}}, Conns: conns,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if dial == nil {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return dial()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, p.backends[0].be.main
}

// pipe returns a connection to a back end that does nothing.
func pipe(t *testing.T) net.Conn {
	c, s := net.Pipe()
	t.Cleanup(func() { s.Close() })
	return c
}

// inLine is a request that has its place and waits for a connection.
func inLine(s *connSet) *waiter {
	w := s.newWaiter()
	s.ready.pushBack(w)
	s.inflight++
	return w
}

// A request that is handed a connection at the moment when the Pool is closed
// does not wait for another, which nobody would make.
func TestCloseWhileServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := unitSet(t, "http://a", Conns{QueueTimeout: -1}, func() (net.Conn, error) { return pipe(t), nil })
		c, derr := s.dialer.dial(s)
		if derr != nil {
			t.Fatal(derr)
		}
		s.mu.Lock()
		w := inLine(s)
		done := make(chan *Error)
		go func() {
			c, err := s.wait(t.Context(), w, new(timing))
			if err == nil {
				_, err = s.use(t.Context(), c, new(timing), 0)
			}
			done <- err
		}()
		s.add(c)
		s.take()
		s.ready.remove(w)
		s.unlock()
		p.Close()
		w.serve(c, nil) // it has been, but comes to know of it now
		if err := <-done; err == nil || err.Kind != KindClosed {
			t.Errorf("got %v", err)
		}
		if n, _, _, queued := s.usage(); n != 0 || queued != 0 {
			t.Errorf("%d in flight, %d queued", n, queued)
		}
	})
}

// A connection that nobody took in the end is not one that was dialled for the
// request which comes to it later, whatever that dial had cost.
func TestAgedConnectionIsNotCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := unitSet(t, "http://a", Conns{}, func() (net.Conn, error) { return pipe(t), nil })
		c, derr := s.dialer.dial(s)
		if derr != nil {
			t.Fatal(derr)
		}
		s.mu.Lock()
		w := inLine(s)
		c.dials = closedDials
		s.add(c)
		s.serve()
		s.unlock()
		s.leave(w) // it was served as its context ended
		s.mu.Lock()
		s.inflight++
		c = s.take()
		s.unlock()
		c.dead.Store(true)
		c.cc.Close()
		if _, err := s.use(t.Context(), c, new(timing), 0); err != nil {
			t.Errorf("no other connection is dialled: %v", err)
		}
	})
}

// What a dial has cost is the request's that it was made for. To others with the
// same connection, over HTTP/2, it is one.
func TestDialsAreChargedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := unitSet(t, "http://a", Conns{}, func() (net.Conn, error) { return pipe(t), nil })
		s.mu.Lock()
		w := inLine(s)
		s.dialing++
		s.mu.Unlock()
		s.dial(s.seq, closedDials-1)
		if w.conn == nil || w.spent != closedDials-1 || w.conn.dials != 1 {
			t.Fatalf("%+v", w)
		}

		c := &conn{set: s, h2: true, nc: &netConn{Conn: pipe(t)}, dials: w.conn.dials, requests: 1}
		c.limit.Store(100)
		c.streams.Store(1) // somebody else's request, which has no response yet
		c.dead.Store(true)
		s.release(w.conn, false)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.shared, s.wire = []*conn{c}, wireH2
		next := inLine(s)
		s.serve()
		if next.err != nil || next.spent != 1 {
			t.Errorf("%v, %d spent", next.err, next.spent)
		}
		s.ready.remove(next)
		s.inflight--
		s.trash = nil
	})
}

// An HTTP/2 connection that goes away is closed by whoever has it last, be it
// one that could not use it.
func TestRetiredConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, dead := range []bool{false, true} {
			_, s := unitSet(t, "h2c://a", Conns{}, nil)
			c := &conn{set: s, h2: true, nc: &netConn{Conn: pipe(t)}, retired: true}
			c.dead.Store(dead)
			c.streams.Store(2)
			s.mu.Lock()
			s.untake(c)
			if len(s.trash) != 0 {
				t.Errorf("dead %v: closed under a request", dead)
			}
			s.untake(c)
			if len(s.trash) != 1 {
				t.Errorf("dead %v: it is kept", dead)
			}
			s.trash = nil
			s.mu.Unlock()
		}
	})
}

// A connection that is closed because its response is late goes to nobody else,
// even if the response comes at that moment.
func TestLateConnectionIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := unitSet(t, "http://a", Conns{}, func() (net.Conn, error) { return pipe(t), nil })
		c, err := s.dialer.dial(s)
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.add(c)
		if s.take() != c {
			t.Fatal("not taken")
		}
		s.inflight++
		s.unlock()
		c.watch.begin(true)
		c.watch.seenTurn, c.watch.since = 1, -time.Hour
		s.sweep()
		c.watch.end()
		if !c.late.Load() {
			t.Fatal("it is not late")
		}
		c.dead.Store(false) // as if the response had come before it was closed
		s.release(c, true)
		if len(s.idle) != 0 {
			t.Error("it is kept for another request")
		}
	})
}

// A dial that fails tells all who were there when it began, also those behind
// one that has come back to the front of the line since.
func TestDialFailureTellsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := unitSet(t, "https://a", Conns{}, nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		var early []*waiter
		for range 3 {
			w := s.newWaiter()
			s.ready.pushBack(w)
			early = append(early, w)
		}
		seq := s.seq
		back, late := s.newWaiter(), s.newWaiter()
		s.ready.pushFront(back)
		s.ready.pushBack(late)
		s.inflight += 5
		s.fail(s.closedAtOnce(), seq)
		for i, w := range early {
			if w.err == nil {
				t.Errorf("number %d was not told", i)
			}
		}
		if back.err != nil || late.err != nil || s.inflight != 2 || s.ready.n != 2 {
			t.Errorf("%v, %v; %d in flight, %d wait", back.err, late.err, s.inflight, s.ready.n)
		}
		for s.ready.n > 0 {
			s.ready.remove(s.ready.first)
		}
		s.inflight = 0
	})
}

// A back end that closes whatever is opened gets no more than closedDials of
// connections for one request, whenever it is that they are found closed.
func TestClosedDialsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials, errNoMore := 0, errors.New("no more")
		goOn := make(chan struct{})
		_, s := unitSet(t, "http://a", Conns{MaxInFlight: 1}, func() (net.Conn, error) {
			if dials++; dials == 1 {
				return pipe(t), nil
			}
			<-goOn
			return nil, errNoMore
		})
		stillborn := func(n int) *conn {
			c := &conn{set: s, nc: &netConn{Conn: pipe(t)}, dials: n}
			c.dead.Store(true)
			return c
		}
		s.mu.Lock()
		first, next := s.newWaiter(), s.newWaiter()
		s.ready.pushBack(first)
		s.queue.pushBack(next)
		s.inflight++
		s.dialing = 1                  // so that no other begins
		s.charge(stillborn(1))         // found before it was added
		s.idle = []*conn{stillborn(2)} // and before it was taken
		s.serve()
		if first.err != nil || first.spent != 2 {
			t.Errorf("%v after %d", first.err, first.spent)
		}
		s.idle = []*conn{stillborn(0), stillborn(0)} // made in advance
		s.serve()
		if first.err != nil || first.spent != 2 {
			t.Errorf("%v after %d, and two that have nothing to do with it", first.err, first.spent)
		}
		s.idle = []*conn{stillborn(3)}
		s.serve()
		if first.err == nil || first.err.Err != errClosedAtOnce {
			t.Errorf("got %v after three", first.err)
		}
		if next.in != &s.ready || next.spent != 0 || s.inflight != 1 {
			t.Errorf("the place is not free: %d in flight, %d spent", s.inflight, next.spent)
		}
		s.ready.remove(next)
		s.dialing, s.trash = 0, nil
		s.mu.Unlock()

		c, _ := s.dialer.dial(s)
		c.close() // found before it was used
		c.dials = 2
		done := make(chan *Error)
		go func() {
			_, err := s.use(t.Context(), c, new(timing), 1)
			done <- err
		}()
		synctest.Wait()
		s.mu.Lock()
		if w := s.ready.first; w == nil || w.spent != 2 {
			t.Errorf("it waits as %+v", w)
		}
		s.mu.Unlock()
		close(goOn)
		if err := <-done; err == nil || !errors.Is(err, errNoMore) {
			t.Errorf("got %v", err)
		}
		if n, _, _, _ := s.usage(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	})
}

// Whoever ends the reading of an attempt's body is told whether somebody was at it:
// that is the client's wait then, and nobody else's.
func TestInterruptTells(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			for _, reads := range []bool{false, true} {
				pr, pw := io.Pipe()
				r := &replay{src: pr, length: -1}
				b := &tryBody{r: r}
				if own {
					b.own = pr
				}
				ended := make(chan error, 1)
				if reads {
					go func() {
						_, err := b.Read(make([]byte, 1))
						ended <- err
					}()
				} else {
					ended <- io.ErrClosedPipe
				}
				synctest.Wait()
				if was := b.reading(); was != reads {
					t.Errorf("own %v: reading is %v", own, was)
				}
				if was := b.interrupt(); was != reads {
					t.Errorf("own %v: interrupt says %v, want %v", own, was, reads)
				}
				if err := <-ended; err != io.ErrClosedPipe {
					t.Errorf("own %v: the Read ended with %v", own, err)
				}
				if n, err := b.Read(make([]byte, 1)); n != 0 || err != errAttemptOver || b.interrupt() {
					t.Errorf("own %v: it is read after that: %d, %v", own, n, err)
				}
				pw.Close()
			}
		})
	}
}
