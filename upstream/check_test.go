package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/memnet"
)

// bed is what a checker needs, with back ends that say what the test wants.
type bed struct {
	mu     sync.Mutex
	asked  []time.Time
	answer func(ctx context.Context, p *Peer) error
	told   []string
}

func (b *bed) connect(ctx context.Context, p *Peer) error {
	b.mu.Lock()
	b.asked = append(b.asked, time.Now())
	answer := b.answer
	b.mu.Unlock()
	return answer(ctx, p)
}

func (b *bed) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = func(context.Context, *Peer) error { return err }
}

func (b *bed) report(p *Peer, healthy bool, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, fmt.Sprintf("%s %v: %s", p.ID, healthy, reason))
}

// times returns how long after start each question came, and forgets them.
func (b *bed) times(start time.Time) []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []time.Duration
	for _, t := range b.asked {
		out = append(out, t.Sub(start))
	}
	b.asked = nil
	return out
}

// checkerBed returns a checker of the kind TCP over a bed. It must be called in
// a bubble.
func checkerBed(t *testing.T, c Check) (*checker, *bed) {
	b := new(bed)
	b.set(nil)
	c.Kind = CheckTCP
	k := newChecker(checkerConfig{check: c, connect: b.connect, report: b.report})
	t.Cleanup(k.close)
	return k, b
}

// A3: first probe at once, in parallel, and it decides alone.
func TestCheckAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := checkerBed(t, Check{})
		b.answer = func(ctx context.Context, p *Peer) error {
			time.Sleep(time.Second)
			if p.ID == "b" {
				return errors.New("refused")
			}
			return nil
		}
		start := time.Now()
		k.set([]*Peer{{ID: "a"}, {ID: "b"}, {ID: "c"}})
		synctest.Wait()
		if got := b.times(start); len(got) != 3 || slices.Max(got) != 0 {
			t.Errorf("asked after %v, want three at once", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		slices.Sort(b.told)
		want := []string{"a true: check passed", "b false: check failed: refused", "c true: check passed"}
		if !slices.Equal(b.told, want) {
			t.Errorf("told %q, want %q", b.told, want)
		}
	})
}

// A3: 10 s, fail 3, pass 2, 10 % jitter, 5 s for the unhealthy.
func TestCheckThresholdsAndIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := checkerBed(t, Check{})
		k.set([]*Peer{{ID: "a"}})
		synctest.Wait()
		gaps := func(n int) []time.Duration {
			last := time.Now()
			var out []time.Duration
			for len(out) < n {
				time.Sleep(time.Millisecond)
				synctest.Wait()
				for range b.times(last) {
					out = append(out, time.Since(last))
					last = time.Now()
				}
			}
			return out
		}
		within := func(what string, got []time.Duration, least, most time.Duration) {
			t.Helper()
			if slices.Min(got) < least || slices.Max(got) > most+time.Millisecond {
				t.Errorf("%s: gaps of %v, want %v to %v", what, got, least, most)
			}
			if slices.Min(got) == slices.Max(got) {
				t.Errorf("%s: no jitter", what)
			}
		}
		gaps(1)
		within("healthy", gaps(4), 9*time.Second, 11*time.Second)

		b.set(errors.New("refused"))
		gaps(2)
		b.set(nil)
		gaps(1)
		b.set(errors.New("refused"))
		gaps(2)
		if len(b.told) != 1 {
			t.Errorf("told %q before three failures in a row", b.told)
		}
		gaps(1)
		within("unhealthy", gaps(4), 4500*time.Millisecond, 5500*time.Millisecond)
		b.set(nil)
		gaps(1)
		b.set(errors.New("refused"))
		gaps(1)
		b.set(nil)
		gaps(1)
		if len(b.told) != 2 {
			t.Errorf("told %q before two successes in a row", b.told)
		}
		gaps(1)
		want := []string{"a true: check passed", "a false: check failed: refused", "a true: check passed"}
		if !slices.Equal(b.told, want) {
			t.Errorf("told %q, want %q", b.told, want)
		}
	})
}

// A3: timeout 2 s.
func TestCheckTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := checkerBed(t, Check{})
		b.answer = func(ctx context.Context, p *Peer) error { <-ctx.Done(); return ctx.Err() }
		k.set([]*Peer{{ID: "a"}})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if want := []string{"a false: check failed: no answer in 2s"}; !slices.Equal(b.told, want) {
			t.Errorf("told %q, want %q", b.told, want)
		}
	})
}

// A3: active checks follow the membership.
func TestCheckFollowsMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := checkerBed(t, Check{})
		a, c := &Peer{ID: "a"}, &Peer{ID: "c", owner: "a back end"}
		k.set([]*Peer{a, {ID: "b"}})
		synctest.Wait()
		b.times(time.Time{})
		k.set([]*Peer{a, c})
		synctest.Wait()
		if got := b.times(time.Now()); len(got) != 1 || b.told[2] != "c true: check passed" {
			t.Errorf("asked %d peers at once, told %q", len(got), b.told)
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if got := b.times(time.Now()); len(got) != 2 {
			t.Errorf("%d questions in the next interval, want 2", len(got))
		}
		k.set([]*Peer{{ID: "a"}, {ID: "c", owner: "another back end"}})
		synctest.Wait()
		if got := b.times(time.Now()); len(got) != 1 {
			t.Errorf("asked %d peers at once, want the one with another owner", len(got))
		}
	})
}

// C7 84: no goroutine is left; the bubble would wait for it.
func TestCheckCloseInterruptsAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := checkerBed(t, Check{Timeout: time.Hour})
		b.answer = func(ctx context.Context, p *Peer) error { <-ctx.Done(); return ctx.Err() }
		k.set([]*Peer{{ID: "a"}})
		synctest.Wait()
		start := time.Now()
		k.close()
		k.close()
		k.set([]*Peer{{ID: "b"}})
		synctest.Wait()
		if time.Since(start) != 0 || len(b.told) != 0 || len(b.times(start)) != 1 {
			t.Errorf("close took %v, told %q", time.Since(start), b.told)
		}
	})
}

// checkOver runs one check against a server and returns its verdict.
func checkOver(t *testing.T, proto memnet.Proto, c Check, h http.Handler) error {
	t.Helper()
	if err := c.check().err(); err != nil {
		t.Fatal(err)
	}
	srv := memnet.Serve(t, proto, &http.Server{Handler: h})
	k := newChecker(checkerConfig{
		check: c,
		probe: func(ctx context.Context, p *Peer, req *http.Request) (*http.Response, error) {
			req.URL.Scheme, req.URL.Host, _ = strings.Cut(srv.URL, "://")
			return srv.Transport.RoundTrip(req)
		},
	})
	return k.ask(t.Context(), &Peer{ID: "a"})
}

func TestCheckHTTP(t *testing.T) {
	expectOK := func(res *http.Response) error {
		b, err := io.ReadAll(res.Body)
		if err != nil || string(b) != "ok" {
			return fmt.Errorf("body %q, %v", b, err)
		}
		return nil
	}
	for _, c := range []struct {
		name   string
		check  Check
		status int
		body   string
		want   string
	}{
		{"200", Check{}, 200, "ok", ""},
		{"302", Check{}, 302, "", ""},
		{"399", Check{}, 399, "", ""},
		{"400", Check{}, 400, "", "status 400"},
		{"503", Check{}, 503, "down", "status 503"},
		{"expected", Check{Expect: expectOK}, 503, "ok", ""},
		{"not expected", Check{Expect: expectOK}, 200, "no", `body "no", <nil>`},
		{"long body", Check{}, 200, strings.Repeat("x", 10<<20), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, proto := range memnet.Protos() {
				synctest.Test(t, func(t *testing.T) {
					err := checkOver(t, proto, c.check, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(c.status)
						io.WriteString(w, c.body)
					}))
					if got := fmt.Sprint(err); err == nil && c.want != "" || err != nil && got != c.want {
						t.Errorf("%v: %v, want %q", proto, err, c.want)
					}
				})
			}
		})
	}
}

func TestCheckHTTPRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got *http.Request
		c := Check{Path: "/healthz?deep=1", Method: "HEAD", Host: "api.internal", Header: http.Header{"x-check": {"1"}}}
		err := checkOver(t, memnet.HTTP1, c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r }))
		if err != nil {
			t.Fatal(err)
		}
		if got.Method != "HEAD" || got.RequestURI != "/healthz?deep=1" || got.Host != "api.internal" ||
			got.Header.Get("X-Check") != "1" || got.UserAgent() != checkUserAgent {
			t.Errorf("asked %s %s of %s with %v", got.Method, got.RequestURI, got.Host, got.Header)
		}
	})
}

// grpcMessage puts the prefix before a message.
func grpcMessage(msg ...byte) []byte {
	b := make([]byte, 5, 5+len(msg))
	binary.BigEndian.PutUint32(b[1:], uint32(len(msg)))
	return append(b, msg...)
}

// A3: active gRPC, hand-encoded.
func TestCheckGRPC(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler func(w http.ResponseWriter)
		want    string
	}{
		{"serving", func(w http.ResponseWriter) { w.Write(grpcMessage(8, 1)); w.Header().Set("Grpc-Status", "0") }, ""},
		{"not serving", func(w http.ResponseWriter) { w.Write(grpcMessage(8, 2)); w.Header().Set("Grpc-Status", "0") }, "serving status 2"},
		{"unknown", func(w http.ResponseWriter) { w.Write(grpcMessage()); w.Header().Set("Grpc-Status", "0") }, "serving status 0"},
		{"unimplemented", func(w http.ResponseWriter) { w.Header().Set(http.TrailerPrefix+"Grpc-Status", "12") }, `grpc-status "12"`},
		{"no status", func(w http.ResponseWriter) { w.Write(grpcMessage(8, 1)) }, `grpc-status ""`},
		{"status 503", func(w http.ResponseWriter) { w.WriteHeader(503) }, "status 503"},
		{"not grpc", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); w.Write([]byte("hi")) }, `content type "text/html"`},
		{"nonsense", func(w http.ResponseWriter) { w.Write([]byte("abc")); w.Header().Set("Grpc-Status", "0") }, errGRPCMessage.Error()},
		{"endless", func(w http.ResponseWriter) { w.Write(make([]byte, 1<<20)) }, `grpc-status ""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, proto := range []memnet.Proto{memnet.HTTP2, memnet.H2C} {
				synctest.Test(t, func(t *testing.T) {
					err := checkOver(t, proto, Check{Kind: CheckGRPC, Service: "shop.Cart"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						want := append([]byte{0, 0, 0, 0, 11, 10, 9}, "shop.Cart"...)
						if r.Method != "POST" || r.URL.Path != "/grpc.health.v1.Health/Check" || string(body) != string(want) ||
							r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" {
							t.Errorf("asked %s %s %q with %v", r.Method, r.URL, body, r.Header)
						}
						w.Header().Set("Content-Type", "application/grpc")
						w.Header().Set("Trailer", "Grpc-Status")
						c.handler(w)
					}))
					if got := fmt.Sprint(err); err == nil && c.want != "" || err != nil && got != c.want {
						t.Errorf("%v: %v, want %q", proto, err, c.want)
					}
				})
			}
		})
	}
}

func TestCheckReportsWhatTheProbeSays(t *testing.T) {
	for _, kind := range []CheckKind{CheckHTTP, CheckGRPC} {
		k := newChecker(checkerConfig{check: Check{Kind: kind}, probe: func(context.Context, *Peer, *http.Request) (*http.Response, error) {
			return nil, errors.New("no route")
		}})
		if err := k.ask(t.Context(), &Peer{}); fmt.Sprint(err) != "no route" {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

func TestGRPCHealthStatus(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want uint64
		ok   bool
	}{
		{grpcMessage(8, 1), 1, true},
		{grpcMessage(), 0, true},
		{grpcMessage(18, 2, 'h', 'i', 8, 1, 29, 1, 2, 3, 4, 33, 1, 2, 3, 4, 5, 6, 7, 8), 1, true},
		{grpcMessage(8, 1, 8, 2), 2, true}, // the last one holds
		{nil, 0, false},
		{grpcMessage(8), 0, false},
		{grpcMessage(8, 0x80), 0, false},
		{grpcMessage(18, 5, 'h'), 0, false},
		{grpcMessage(29, 1), 0, false},
		{grpcMessage(0, 1), 0, false},
		{grpcMessage(11), 0, false}, // a group
		{append(grpcMessage(8, 1), 0), 0, false},
		{grpcMessage(8, 1)[:6], 0, false},
		{[]byte{1, 0, 0, 0, 0}, 0, false},
	} {
		if got, err := grpcHealthStatus(c.in); got != c.want && c.ok || (err == nil) != c.ok {
			t.Errorf("%v: %d, %v", c.in, got, err)
		}
	}
}

// A message that is accepted says the same with fields before and after it that
// the reader does not know.
func FuzzGRPCHealthStatus(f *testing.F) {
	f.Add(grpcMessage(8, 1))
	f.Add(grpcMessage(18, 2, 'h', 'i', 8, 1))
	f.Add(grpcHealthRequest("service"))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, err := grpcHealthStatus(b)
		if err != nil {
			return
		}
		msg := b[grpcPrefix:]
		more := slices.Concat([]byte{18, 3, 8, 8, 8}, msg, []byte{29, 8, 2, 8, 2})
		if again, err := grpcHealthStatus(grpcMessage(more...)); err != nil || again != status {
			t.Errorf("%v says %d, and with unknown fields %d, %v", b, status, again, err)
		}
	})
}

func TestGRPCHealthRequest(t *testing.T) {
	if got := grpcHealthRequest(""); string(got) != "\x00\x00\x00\x00\x00" {
		t.Errorf("for the server: %q", got)
	}
	if got := grpcHealthRequest(strings.Repeat("s", 300)); string(got[:8]) != "\x00\x00\x00\x01\x2f\x0a\xac\x02" || len(got) != 308 {
		t.Errorf("for a long name: %q", got[:8])
	}
}

func TestCheckCheck(t *testing.T) {
	expect := func(*http.Response) error { return nil }
	for _, c := range []Check{
		{},
		{Path: "/healthz?a=b", Method: "HEAD", Expect: expect},
		{Kind: CheckTCP, Interval: 10 * time.Millisecond},
		{Kind: CheckGRPC, Service: "a.B", Header: http.Header{"A": {"b"}}},
	} {
		if err := c.check().err(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []struct {
		check Check
		want  []string
	}{
		{Check{Kind: 9}, []string{"Kind"}},
		{Check{Path: "healthz"}, []string{"Path"}},
		{Check{Path: "//evil.example/"}, []string{"Path"}},
		{Check{Path: "/a b"}, []string{"Path"}},
		{Check{Method: "A B"}, []string{"Method"}},
		{Check{Service: "x"}, []string{"Service"}},
		{Check{Header: http.Header{"X Y": {"v"}}}, []string{"Header"}},
		{Check{Header: http.Header{"host": {"app.example"}}}, []string{"Header"}},
		{Check{Header: http.Header{"X": {"v", "v\n"}}}, []string{"Header"}},
		{Check{Kind: CheckGRPC, Host: "a b"}, []string{"Host"}},
		{Check{Kind: CheckTCP, Path: "/", Method: "GET", Expect: expect}, []string{"Path", "Method", "Expect"}},
		{Check{Kind: CheckGRPC, Service: strings.Repeat("x", 20_000)}, []string{"Service"}},
		{Check{Interval: 1, UnhealthyInterval: -1, Timeout: -1, Fail: -1, Pass: -1}, []string{"Interval", "UnhealthyInterval", "Timeout", "Fail", "Pass"}},
	} {
		err := c.check.check().err()
		for _, field := range c.want {
			if !strings.Contains(fmt.Sprint(err), "upstream: Check."+field+": ") {
				t.Errorf("%+v: no word of %s in %v", c.check, field, err)
			}
		}
	}
}

// A header that the caller changes later must not reach the checks.
func TestCheckCopiesItsHeader(t *testing.T) {
	h := http.Header{"X-A": {"1"}}
	c := Check{Header: h}.ready()
	h.Set("X-A", "2")
	if c.Header.Get("X-A") != "1" {
		t.Error("the header is the caller's")
	}
	var n atomic.Int32
	k := newChecker(checkerConfig{check: c, probe: func(_ context.Context, _ *Peer, r *http.Request) (*http.Response, error) {
		n.Add(1)
		r.Header.Set("X-A", "3") // a probe may
		return nil, errors.New("no")
	}})
	for range 2 {
		k.ask(t.Context(), &Peer{})
	}
	if k.c.check.Header.Get("X-A") != "1" || n.Load() != 2 {
		t.Error("a probe changed the header of the next")
	}
}
