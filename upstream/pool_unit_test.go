package upstream

import (
	"errors"
	"io"
	"net/http"
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
	for text, want := range map[string]class{textUnusable: classNotSent, textNotUp: classNotSent, textGoAway: classRefused, textListLimit: classNever} {
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
		r.init(req, 100)
		a := &tryBody{r: &r}
		if got, err := io.ReadAll(io.LimitReader(a, int64(first))); string(got) != text[:first] || err != nil {
			t.Fatalf("first attempt: %q, %v", got, err)
		}
		a.Close()
		a.over.Store(true)
		if src.n != 0 {
			t.Fatal("closed between the attempts")
		}
		if !r.again() {
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
			r.init(req, 100)
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
	r.init(req, 100)
	a := &tryBody{r: &r}
	if n, err := io.Copy(io.Discard, a); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	if r.again() || r.kept != nil {
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
