package plainware_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/cookies"
	"example.com/plainware/cookies/session"
	"example.com/plainware/forwardauth"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/paginate"
	"example.com/plainware/ratelimit"
	"example.com/plainware/reqid"
	"example.com/plainware/store"
	"example.com/plainware/timeout"
	"example.com/plainware/upstream"
	"example.com/plainware/webhook"
	"example.com/plainware/wsproxy"
)

// part is a handler of the kit, and what it does by design.
type part struct {
	name     string
	new      func(testing.TB) func(http.Handler) http.Handler
	request  []string // header fields that it sets in the request
	response []string // and in the response
	reads    bool     // reads the whole body before the next handler
}

var parts = []part{
	{"breaker", func(t testing.TB) func(http.Handler) http.Handler {
		return must(breaker.New(breaker.Config{}))(t).Handler
	}, nil, nil, false},
	{"reqid", func(t testing.TB) func(http.Handler) http.Handler {
		return must(reqid.New(reqid.Config{}))(t).Handler
	}, []string{"X-Request-Id"}, []string{"X-Request-Id"}, false},
	{"timeout", func(t testing.TB) func(http.Handler) http.Handler {
		return must(timeout.New(timeout.Config{Limits: limits}))(t).Handler
	}, nil, nil, false},
	{"timeout-cooperative", func(t testing.TB) func(http.Handler) http.Handler {
		return must(timeout.New(timeout.Config{Limits: limits, Cooperative: true}))(t).Handler
	}, nil, nil, false},
	{"deadline", func(t testing.TB) func(http.Handler) http.Handler {
		return must(timeout.NewDeadline(timeout.DeadlineConfig{}))(t).Handler
	}, nil, nil, false},
	{"cookies", func(t testing.TB) func(http.Handler) http.Handler {
		return must(cookies.NewSealed(cookies.Config[string]{Name: "theme", Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}}))(t).Handler
	}, nil, nil, false},
	{"session", func(t testing.TB) func(http.Handler) http.Handler {
		mem := must(store.NewMemory(store.MemoryConfig{}))(t)
		return must(session.New(session.Config[string]{Store: mem, Name: "pair"}))(t).Handler
	}, nil, nil, false},
	{"forwardauth", func(t testing.TB) func(http.Handler) http.Handler {
		return must(forwardauth.New(decisions))(t).Handler
	}, []string{"Remote-User"}, nil, false},
	{"ratelimit", func(t testing.TB) func(http.Handler) http.Handler {
		return must(ratelimit.New(ratelimit.Config{Limit: ratelimit.PerSecond(1_000_000)}))(t).Handler
	}, nil, []string{"Ratelimit", "Ratelimit-Policy"}, false},
	{"webhook", func(t testing.TB) func(http.Handler) http.Handler {
		mem := must(store.NewMemory(store.MemoryConfig{Registers: 64}))(t)
		return must(webhook.New(webhook.Config{
			Scheme: unsigned(), Keys: []webhook.Key{webhook.Secret("01234567")}, MaxBody: 64 << 20, Store: mem, Name: "pairs",
		}))(t).Handler
	}, nil, nil, true},
	{"upstream-proxy", func(t testing.TB) func(http.Handler) http.Handler {
		// One that has nothing to take: what it takes is not next's any more.
		return must(upstream.NewProxy(upstream.ProxyConfig{
			Transport: http.DefaultTransport, Target: "http://127.0.0.1:9",
			Match: func(*http.Request) bool { return false },
		}))(t).Handler
	}, nil, nil, false},
	{"wsproxy", func(t testing.TB) func(http.Handler) http.Handler {
		return must(wsproxy.New(wsproxy.Config{
			Target: "ws://127.0.0.1:9", Match: func(*http.Request) bool { return false },
		}))(t).Handler
	}, nil, nil, false},
	{"paginate", func(t testing.TB) func(http.Handler) http.Handler {
		return must(paginate.New(paginate.Config{Mode: paginate.PageNumber}))(t).Handler
	}, nil, nil, false},
}

// transport is a RoundTripper of the kit around another, and what it does by
// design.
type transport struct {
	name   string
	new    func(testing.TB, http.RoundTripper) http.RoundTripper
	header string // set in the request
}

var transports = []transport{
	{"reqid", func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return must(reqid.NewTransport(reqid.TransportConfig{Base: base}))(t)
	}, "X-Request-Id"},
	{"timeout", func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return must(timeout.NewTransport(timeout.TransportConfig{Base: base}))(t)
	}, "Request-Timeout"},
	{"upstream-split", func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return must(upstream.NewSplit(upstream.SplitConfig{Arms: []upstream.Arm{
			{Name: "main", Base: base}, {Name: "canary", Base: base, Share: upstream.SplitScale / 2},
		}}))(t)
	}, ""},
	{"upstream-mirror", func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		m := must(upstream.NewMirror(upstream.MirrorConfig{Base: base, To: base, Share: -1}))(t)
		t.Cleanup(func() { m.Close() })
		return m
	}, ""},
	{"upstream-pool", newPools, ""},
}

// newPools is a Pool for each scheme over base, since a Pool's own targets say
// where its requests go.
func newPools(t testing.TB, base http.RoundTripper) http.RoundTripper {
	pools := make(map[string]*upstream.Pool)
	for _, scheme := range []string{"http", "https"} {
		p := must(upstream.New(upstream.Config{
			Targets:   []upstream.Target{{URL: scheme + "://127.0.0.1:8080", PreserveHost: true}},
			Transport: func(upstream.Target) (http.RoundTripper, error) { return base, nil },
			Retry:     upstream.Retry{Attempts: -1},
		}))(t)
		t.Cleanup(func() { p.Close() })
		pools[scheme] = p
	}
	return byScheme(pools)
}

type byScheme map[string]*upstream.Pool

func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL != nil && r.URL.Scheme == "https" {
		return b["https"].RoundTrip(r)
	}
	return b["http"].RoundTrip(r)
}

func (b byScheme) CloseIdleConnections() {
	for _, p := range b {
		p.CloseIdleConnections()
	}
}

// asked is a decision service that allows everything. The suite sends paths
// that forwardauth refuses by default.
type asked struct{}

func (asked) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{"Remote-User": {"ada"}}, Body: http.NoBody, Request: r}, nil
}

var decisions = forwardauth.Config{
	URL: "http://auth.example/verify", Base: asked{}, InsecureAmbiguousPaths: true,
	CopyHeaders: []forwardauth.HeaderCopy{{From: "Remote-User"}},
}

// unsigned is a scheme that believes everybody, since the suite does not sign.
func unsigned() webhook.Scheme {
	return webhook.Scheme{
		Name: "unsigned", Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"},
		Verify: func(*webhook.Message) (webhook.Result, error) {
			return webhook.Result{Signed: []byte(rand.Text())}, nil
		},
	}
}

var limits = timeout.Limits{
	Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Minute, WriteIdle: time.Minute,
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// The contract holds for every ordered pair: that is the proof of "in any
// order".
func TestEveryPair(t *testing.T) {
	for _, outer := range parts {
		for _, inner := range parts {
			t.Run(outer.name+" around "+inner.name, func(t *testing.T) {
				t.Parallel()
				mwtest.Run(t, mwtest.Middleware{
					New: func(t testing.TB) func(http.Handler) http.Handler {
						o, i := outer.new(t), inner.new(t)
						return func(next http.Handler) http.Handler { return o(i(next)) }
					},
					ReadsBody:       outer.reads || inner.reads,
					Large:           largeBody,
					RequestHeaders:  slices.Concat(outer.request, inner.request),
					ResponseHeaders: slices.Concat(outer.response, inner.response),
					PanicValue: func(v any) any {
						if p, ok := v.(*timeout.Panic); ok {
							return p.Value
						}
						return v
					},
				})
			})
		}
	}
}

// The same of what sends requests, client-side.
func TestEveryPairOfTransports(t *testing.T) {
	for _, outer := range transports {
		for _, inner := range transports {
			t.Run(outer.name+" around "+inner.name, func(t *testing.T) {
				t.Parallel()
				mwtest.RunTransport(t, mwtest.Transport{
					New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
						return outer.new(t, inner.new(t, base))
					},
					RequestHeaders: []string{outer.header, inner.header},
				})
			})
		}
	}
}

// reqid 9: the ID is in the header and the body of the answer that timeout
// gives in a handler's place.
func TestRefusalHasID(t *testing.T) {
	for _, p := range memnet.Protos() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ids := must(reqid.New(reqid.Config{}))(t)
				tmo := must(timeout.New(timeout.Config{Limits: timeout.Limits{Total: time.Second}}))(t)
				s := memnet.Serve(t, p, &http.Server{
					Handler: ids.Handler(tmo.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("X-Request-Id", "the handler's, never sent")
						<-r.Context().Done()
					}))),
				})
				req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Request-Id", "abc")
				res, err := s.Client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				var body struct {
					RequestID string `json:"request_id"`
				}
				if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
					t.Fatal(err)
				}
				if got := res.Header["X-Request-Id"]; res.StatusCode != 503 || len(got) != 1 || got[0] != "abc" || body.RequestID != "abc" {
					t.Errorf("status %d, header %q, body %q", res.StatusCode, got, body.RequestID)
				}
			})
		})
	}
}
