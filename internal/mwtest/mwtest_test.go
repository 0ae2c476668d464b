package mwtest

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"example.com/plainware/internal/memnet"
)

// A middleware that does nothing and one that copies the request and wraps
// the writer, both as the contract asks, pass every rule.
func TestRun(t *testing.T) {
	t.Run("identity", func(t *testing.T) {
		Run(t, Middleware{New: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, r)
		})})
	})
	t.Run("copy and wrapper", func(t *testing.T) {
		Run(t, Middleware{New: middleware(correct)})
	})
	t.Run("declared exceptions", func(t *testing.T) {
		Run(t, Middleware{
			New: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				r.Header.Set("X-Id", "1")
				w.Header().Set("X-Id", "1")
				defer func() {
					if v := recover(); v != nil && v != http.ErrAbortHandler {
						panic(&wrappedPanic{v})
					} else if v != nil {
						panic(v)
					}
				}()
				next.ServeHTTP(w, r)
			}),
			RequestHeaders:  []string{"X-Id"},
			ResponseHeaders: []string{"X-Id"},
			PanicValue:      func(v any) any { return v.(*wrappedPanic).value },
		})
	})
}

type wrappedPanic struct{ value any }

// So do the transports.
func TestRunTransport(t *testing.T) {
	t.Run("identity", func(t *testing.T) {
		RunTransport(t, Transport{New: func(_ testing.TB, base http.RoundTripper) http.RoundTripper { return base }})
	})
	t.Run("copy", func(t *testing.T) {
		RunTransport(t, Transport{New: transport(correctTransport), RequestHeaders: []string{"X-Added"}})
	})
}

// failing returns the names of the rules that find something. HTTP/2 runs
// without TLS and large bodies are smaller here: neither matters to what a
// rule can find, and it makes hundreds of runs quick.
func failing(t *testing.T, rules []rule, mw Middleware, tr Transport) []string {
	var found []string
	for _, r := range rules {
		for _, p := range []memnet.Proto{memnet.HTTP1, memnet.H2C} {
			if p == memnet.H2C && len(r.over) == 1 {
				continue
			}
			var err error
			synctest.Test(t, func(t *testing.T) {
				err = r.run(&env{t: t, proto: p, mw: mw, tr: tr, large: 200_000, noRaces: true})
			})
			if err != nil {
				t.Logf("%s over %v: %v", r.name, p, err)
				found = append(found, r.name)
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

// Each broken middleware is caught by the rules named, and by no other.
func TestBrokenMiddleware(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range brokenMiddlewares {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			got := failing(t, handlerRules, b.mw, Transport{})
			if want := slices.Sorted(slices.Values(b.caught)); !slices.Equal(got, want) {
				t.Errorf("caught by %q,\nwant %q", got, want)
			}
		})
		for _, rule := range b.caught {
			seen[rule] = true
		}
	}
	for _, r := range handlerRules {
		if !seen[r.name] {
			t.Errorf("no broken middleware shows that the rule %q catches anything", r.name)
		}
	}
}

// Each broken transport is caught by the rules named, and by no other.
func TestBrokenTransport(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range brokenTransports {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			got := failing(t, transportRules, Middleware{}, b.tr)
			if want := slices.Sorted(slices.Values(b.caught)); !slices.Equal(got, want) {
				t.Errorf("caught by %q,\nwant %q", got, want)
			}
		})
		for _, rule := range b.caught {
			seen[rule] = true
		}
	}
	for _, r := range transportRules {
		if !seen[r.name] {
			t.Errorf("no broken transport shows that the rule %q catches anything", r.name)
		}
	}
}

// The names are what go test -run and the tests above select by.
func TestRuleNames(t *testing.T) {
	for _, rules := range [][]rule{handlerRules, transportRules} {
		seen := make(map[string]bool)
		for _, r := range rules {
			if seen[r.name] || r.name == "" || r.why == "" || len(r.over) == 0 {
				t.Errorf("rule %q: duplicate or incomplete", r.name)
			}
			seen[r.name] = true
		}
	}
}
