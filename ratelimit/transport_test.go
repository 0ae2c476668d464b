package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/mwtest"
	"example.com/plainware/ratelimit"
)

// remote is a base transport that notes when it was called, since the beginning
// of the test, and answers by a function.
type remote struct {
	start  time.Time
	answer func(*http.Request) (status int, retryAfter string)

	mu   sync.Mutex
	when []time.Duration
	idle atomic.Int32
}

func (s *remote) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.when = append(s.when, time.Since(s.start))
	s.mu.Unlock()
	status, after := 200, ""
	if s.answer != nil {
		status, after = s.answer(r)
	}
	h := http.Header{}
	if after != "" {
		h.Set("Retry-After", after)
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody, Request: r}, nil
}

func (s *remote) CloseIdleConnections() { s.idle.Add(1) }

func newTransport(t testing.TB, s *remote, c ratelimit.TransportConfig) *ratelimit.Transport {
	t.Helper()
	s.start = time.Now()
	c.Base = s
	tr, err := ratelimit.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func outgoing(t testing.TB, c ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func byHost(r *http.Request) string { return r.URL.Host }

// call sends a request and returns its status and how long it took.
func call(t testing.TB, tr http.RoundTripper, ctx context.Context, url string) (status int, took time.Duration, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	res, err := tr.RoundTrip(r)
	took = time.Since(start)
	if err != nil {
		return 0, took, err
	}
	res.Body.Close()
	return res.StatusCode, took, nil
}

// Calls to a server are sent at the rate of the limiter, and those to another
// server are not held up by them.
func TestTransportLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &remote{}
		lim := outgoing(t, ratelimit.Config{Limit: ratelimit.PerSecond(10).Burst(2), Key: ratelimit.ByFunc(byHost)})
		tr := newTransport(t, s, ratelimit.TransportConfig{Limiter: lim})
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				if status, _, err := call(t, tr, t.Context(), "http://a/"); status != 200 || err != nil {
					t.Error(status, err)
				}
			})
		}
		if _, took, _ := call(t, tr, t.Context(), "http://b/"); took != 0 {
			t.Errorf("the other server was asked after %v", took)
		}
		wg.Wait()
		if took := time.Since(s.start); took != time.Second {
			t.Errorf("12 calls took %v, want 1s", took)
		}
	})
}

// After 429 or 503 with a Retry-After the server is left alone for that time; a
// call that is held back is sent then, and once.
func TestTransportHonoursRetryAfter(t *testing.T) {
	for _, status := range []int{429, 503} {
		synctest.Test(t, func(t *testing.T) {
			s := &remote{}
			s.answer = func(*http.Request) (int, string) {
				if time.Since(s.start) < time.Second {
					return status, "3"
				}
				return 200, ""
			}
			tr := newTransport(t, s, ratelimit.TransportConfig{})
			if got, took, err := call(t, tr, t.Context(), "http://a/"); got != status || took != 0 || err != nil {
				t.Errorf("the answer itself: %d after %v, %v", got, took, err)
			}
			if got, took, err := call(t, tr, t.Context(), "http://b/"); got != status || took != 0 || err != nil {
				t.Errorf("another server: %d after %v, %v", got, took, err)
			}
			if got, took, err := call(t, tr, t.Context(), "http://A/x"); got != 200 || took != 3*time.Second || err != nil {
				t.Errorf("the next call: %d after %v, %v", got, took, err)
			}
			if got, took, err := call(t, tr, t.Context(), "http://a/"); got != 200 || took != 0 || err != nil {
				t.Errorf("one after that: %d after %v, %v", got, took, err)
			}
			if len(s.when) != 4 {
				t.Errorf("sent %v", s.when)
			}
		})
	}
}

// Other answers with a Retry-After, and those without one, change nothing.
func TestTransportIgnores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			status int
			after  string
			config ratelimit.TransportConfig
		}{
			{301, "30", ratelimit.TransportConfig{}},
			{200, "30", ratelimit.TransportConfig{}},
			{500, "30", ratelimit.TransportConfig{}},
			{429, "", ratelimit.TransportConfig{}},
			{503, "0", ratelimit.TransportConfig{}},
			{429, "soon", ratelimit.TransportConfig{}},
			{429, "30", ratelimit.TransportConfig{MaxPause: -1}},
		} {
			tr := newTransport(t, &remote{answer: func(*http.Request) (int, string) { return c.status, c.after }}, c.config)
			for range 3 {
				if status, took, err := call(t, tr, t.Context(), "http://a/"); status != c.status || took != 0 || err != nil {
					t.Errorf("%d with %q: %d after %v, %v", c.status, c.after, status, took, err)
				}
			}
		}
	})
}

// A server may ask for more than is believed.
func TestTransportMaxPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			max, want time.Duration
		}{{0, time.Minute}, {5 * time.Second, 5 * time.Second}, {2 * time.Hour, time.Hour}} {
			tr := newTransport(t, &remote{answer: func(*http.Request) (int, string) { return 429, "3600" }}, ratelimit.TransportConfig{MaxPause: c.max})
			call(t, tr, t.Context(), "http://a/")
			if _, took, err := call(t, tr, t.Context(), "http://a/"); took != c.want || err != nil {
				t.Errorf("MaxPause %v: held back for %v, %v", c.max, took, err)
			}
		}
	})
}

// closer counts how often a body is closed.
type closer struct {
	io.Reader
	n int
}

func (c *closer) Close() error { c.n++; return nil }

// A call that would wait too long fails at once, is not sent, and its body is
// closed. The error says for how long, and whether the context was the reason.
func TestTransportFailsEarly(t *testing.T) {
	perMinute := ratelimit.Config{Limit: ratelimit.PerMinute(1), Key: ratelimit.ByFunc(byHost)}
	for _, c := range []struct {
		name     string
		limited  bool // by our own policy, otherwise by the server
		maxWait  time.Duration
		deadline time.Duration
		caused   bool // by the deadline
	}{
		{"limiter, deadline", true, 0, 10 * time.Second, true},
		{"limiter, deadline before MaxWait", true, 20 * time.Second, 10 * time.Second, true},
		{"limiter, MaxWait before deadline", true, 10 * time.Second, time.Hour, false},
		{"limiter, MaxWait", true, 10 * time.Second, 0, false},
		{"limiter, no waiting", true, -1, 0, false},
		{"server, deadline", false, 0, 10 * time.Second, true},
		{"server, deadline before MaxWait", false, 20 * time.Second, 10 * time.Second, true},
		{"server, MaxWait before deadline", false, 10 * time.Second, time.Hour, false},
		{"server, MaxWait", false, 10 * time.Second, 0, false},
		{"server, no waiting", false, -1, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, config := &remote{}, ratelimit.TransportConfig{MaxWait: c.maxWait}
				if c.limited {
					config.Limiter = outgoing(t, perMinute)
				} else {
					s.answer = func(*http.Request) (int, string) { return 429, "60" }
				}
				tr := newTransport(t, s, config)
				if _, _, err := call(t, tr, t.Context(), "http://a/"); err != nil {
					t.Fatal(err)
				}
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				body := &closer{Reader: strings.NewReader("x")}
				r, err := http.NewRequestWithContext(ctx, "POST", "http://a/", body)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err = tr.RoundTrip(r)
				var e *ratelimit.LimitError
				if !errors.As(err, &e) || e.RetryAfter != time.Minute || time.Since(start) != 0 {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				if errors.Is(err, context.DeadlineExceeded) != c.caused {
					t.Errorf("%v: is DeadlineExceeded, want %v", err, c.caused)
				}
				if body.n != 1 || len(s.when) != 1 {
					t.Errorf("body closed %d times, %d calls sent", body.n, len(s.when))
				}
			})
		})
	}
}

// ratelimit 18: a call that is cancelled while it is held back ends at once, and
// is not sent.
func TestTransportCancel(t *testing.T) {
	for _, limited := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, config := &remote{}, ratelimit.TransportConfig{MaxWait: time.Hour}
			if limited {
				config.Limiter = outgoing(t, ratelimit.Config{Limit: ratelimit.PerMinute(1)})
			} else {
				s.answer = func(*http.Request) (int, string) { return 503, "60" }
			}
			tr := newTransport(t, s, config)
			call(t, tr, t.Context(), "http://a/")
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if _, took, err := call(t, tr, ctx, "http://a/"); took != time.Second || !errors.Is(err, context.Canceled) || len(s.when) != 1 {
				t.Errorf("after %v: %v, %d calls sent", took, err, len(s.when))
			}
		})
	}
}

// A caller behind others in the line waits no longer than MaxWait.
func TestTransportMaxWaitInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim := outgoing(t, ratelimit.Config{Limit: ratelimit.PerMinute(60).Burst(1)})
		tr := newTransport(t, &remote{}, ratelimit.TransportConfig{Limiter: lim, MaxWait: 2500 * time.Millisecond})
		var sent, failed atomic.Int32
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, took, err := call(t, tr, t.Context(), "http://a/")
				if e, ok := errors.AsType[*ratelimit.LimitError](err); ok && took <= 2500*time.Millisecond && !errors.Is(err, context.DeadlineExceeded) && e.Policy != "" {
					failed.Add(1)
				} else if err == nil {
					sent.Add(1)
				} else {
					t.Errorf("after %v: %v", took, err)
				}
			})
		}
		wg.Wait()
		if sent.Load() != 3 || failed.Load() != 7 {
			t.Errorf("%d sent, %d failed", sent.Load(), failed.Load())
		}
	})
}

// The policy's own Key and Cost are asked about the outgoing request, and a
// tenant that the server refuses does not hold up another.
func TestTransportKeyAndCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim := outgoing(t, ratelimit.Config{Policies: []ratelimit.Policy{
			{Name: "other", Limit: ratelimit.PerHour(1)},
			{
				Name: "tenant", Limit: ratelimit.PerSecond(10),
				Key: ratelimit.Join(ratelimit.ByIP(), ratelimit.ByFunc(byHost), ratelimit.ByHeader("X-Tenant")),
				Cost: func(r *http.Request) int64 {
					if r.Method == "POST" {
						return 10
					}
					return -5 // counts as 1
				},
			},
		}})
		s := &remote{}
		s.answer = func(r *http.Request) (int, string) {
			if r.Header.Get("X-Tenant") == "blue" && time.Since(s.start) < 3*time.Second {
				return 429, "5"
			}
			return 200, ""
		}
		tr := newTransport(t, s, ratelimit.TransportConfig{Limiter: lim, Policy: "tenant"})
		do := func(method, tenant string) time.Duration {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), method, "http://a/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Tenant", tenant)
			start := time.Now()
			if _, err := tr.RoundTrip(r); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		for i, c := range []struct {
			method, tenant string
			want           time.Duration
		}{
			{"GET", "red", 0},
			{"POST", "red", 100 * time.Millisecond},
			{"GET", "red", 100 * time.Millisecond},
			{"POST", "green", 0},
			{"GET", "blue", 0},
			{"GET", "red", 100 * time.Millisecond},
			{"GET", "blue", 4900 * time.Millisecond},
		} {
			if took := do(c.method, c.tenant); took != c.want {
				t.Errorf("call %d took %v, want %v", i, took, c.want)
			}
		}
	})
}

// A server that refuses while a call waits for its turn holds that call up too.
func TestTransportPausedInTheMeantime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &remote{}
		s.answer = func(*http.Request) (int, string) {
			if time.Since(s.start) == time.Second {
				return 429, "5"
			}
			return 200, ""
		}
		lim := outgoing(t, ratelimit.Config{Limit: ratelimit.PerMinute(60).Burst(1)})
		tr := newTransport(t, s, ratelimit.TransportConfig{Limiter: lim})
		var wg sync.WaitGroup
		for range 3 { // sent after 0, 1 and not 2 seconds
			wg.Go(func() { call(t, tr, t.Context(), "http://a/") })
		}
		wg.Wait()
		if got := fmt.Sprint(s.when); got != "[0s 1s 6s]" {
			t.Errorf("sent after %v", got)
		}
	})
}

func TestTransportConfig(t *testing.T) {
	lim := outgoing(t, ratelimit.Config{Policies: []ratelimit.Policy{
		{Name: "a", Limit: ratelimit.PerSecond(1)},
		{Name: "b", Limit: ratelimit.Concurrent(1)},
	}})
	for _, c := range []struct {
		config ratelimit.TransportConfig
		want   string
	}{
		{ratelimit.TransportConfig{Policy: "a"}, `ratelimit: Policy: must be empty without a Limiter (got "a")`},
		{ratelimit.TransportConfig{Limiter: lim}, `ratelimit: Policy: must be one of Limiter's, and not Concurrent (got "")`},
		{ratelimit.TransportConfig{Limiter: lim, Policy: "c"}, `ratelimit: Policy: must be one of Limiter's, and not Concurrent (got "c")`},
		{ratelimit.TransportConfig{Limiter: lim, Policy: "b"}, `ratelimit: Policy: must be one of Limiter's, and not Concurrent (got "b")`},
	} {
		if _, err := ratelimit.NewTransport(c.config); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if _, err := ratelimit.NewTransport(ratelimit.TransportConfig{}); err != nil {
		t.Error(err)
	}
}

func TestTransportCloseIdle(t *testing.T) {
	s := &remote{}
	client := &http.Client{Transport: newTransport(t, s, ratelimit.TransportConfig{})}
	client.CloseIdleConnections()
	if s.idle.Load() != 1 {
		t.Errorf("called %d times", s.idle.Load())
	}
	bare, err := ratelimit.NewTransport(ratelimit.TransportConfig{Base: struct{ http.RoundTripper }{s}})
	if err != nil {
		t.Fatal(err)
	}
	bare.CloseIdleConnections()
}

func TestTransportConformance(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
			tr, err := ratelimit.NewTransport(ratelimit.TransportConfig{Base: base})
			if err != nil {
				t.Fatal(err)
			}
			return tr
		}})
	})
	t.Run("limited", func(t *testing.T) {
		mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
			tr, err := ratelimit.NewTransport(ratelimit.TransportConfig{
				Base: base, MaxWait: time.Minute,
				Limiter: outgoing(t, ratelimit.Config{Limit: ratelimit.PerSecond(1000), Key: ratelimit.ByFunc(byHost)}),
			})
			if err != nil {
				t.Fatal(err)
			}
			return tr
		}})
	})
}

// What a limit of ours refuses, a Transport of ours honours, and comes through.
func TestTransportObeysHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim := outgoing(t, ratelimit.Config{Limit: ratelimit.PerMinute(20).Burst(2)})
		h := lim.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		tr, err := ratelimit.NewTransport(ratelimit.TransportConfig{Base: served{h}})
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for range 50 {
			status, _, err := call(t, tr, t.Context(), "http://a/")
			if err != nil {
				t.Fatal(err)
			}
			if status != 200 {
				refused++
				if status, _, err := call(t, tr, t.Context(), "http://a/"); status != 200 || err != nil {
					t.Fatalf("refused again: %d, %v", status, err)
				}
			}
		}
		if refused < 40 {
			t.Errorf("refused only %d times", refused)
		}
	})
}

// served is a transport that calls a handler.
type served struct{ h http.Handler }

func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.RemoteAddr = "192.0.2.1:1234"
	w := &answer{header: http.Header{}, status: 200}
	s.h.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Header: w.header, Body: http.NoBody, Request: r}, nil
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
func (a *answer) WriteHeader(status int)      { a.status = status }
