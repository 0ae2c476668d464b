// Package chain_test stacks the kit's middlewares with other libraries: chained
// by justinas/alice, inside go-chi/chi's router, and around either.
package chain_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/justinas/alice"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/reqid"
	"example.com/plainware/timeout"
)

type wrap = func(http.Handler) http.Handler

// kit is one of each middleware, in the order of a chain.
func kit(t testing.TB) (ids *reqid.Middleware, tmo *timeout.Middleware) {
	t.Helper()
	ids, err := reqid.New(reqid.Config{})
	if err != nil {
		t.Fatal(err)
	}
	tmo, err = timeout.New(timeout.Config{Limits: timeout.Limits{Total: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	return ids, tmo
}

// note stands between the others and appends what it sees of the request on
// the way out.
func note(name string, to *[]string) wrap {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			*to = append(*to, fmt.Sprintf("%s: %s, id %d", name, r.Pattern, len(reqid.FromContext(r.Context()))))
		})
	}
}

func user(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "user %s, id %s", r.PathValue("id"), reqid.FromContext(r.Context()))
}

// The method values are what chainers take. Whoever stands outside or between
// sees the pattern that the router inside has matched, and the ID from where it
// has been made.
func TestChains(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", user)
	for _, c := range []struct {
		name    string
		pattern string
		stack   func(ids, tmo, outer, middle, inner wrap) http.Handler
	}{
		{"nested", "GET /users/{id}", func(ids, tmo, outer, middle, inner wrap) http.Handler {
			return outer(ids(middle(tmo(inner(mux)))))
		}},
		{"alice", "GET /users/{id}", func(ids, tmo, outer, middle, inner wrap) http.Handler {
			return alice.New(outer, ids, middle, tmo, inner).Then(mux)
		}},
		{"chi Use", "/users/{id}", func(ids, tmo, outer, middle, inner wrap) http.Handler {
			r := chi.NewRouter()
			r.Use(outer, ids, middle, tmo, inner)
			r.Get("/users/{id}", user)
			return r
		}},
		{"chi With", "/users/{id}", func(ids, tmo, outer, middle, inner wrap) http.Handler {
			r := chi.NewRouter()
			r.With(outer, ids, middle, tmo, inner).Get("/users/{id}", user)
			return r
		}},
		{"chi Route", "/users/{id}", func(ids, tmo, outer, middle, inner wrap) http.Handler {
			r := chi.NewRouter()
			r.Use(outer, ids)
			r.Route("/users", func(r chi.Router) {
				r.Use(middle, tmo, inner)
				r.Get("/{id}", user)
			})
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen []string
			ids, tmo := kit(t)
			h := c.stack(ids.Handler, tmo.Handler, note("outer", &seen), note("middle", &seen), note("inner", &seen))
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest("GET", "/users/7", nil))
			id := rec.Header().Get("X-Request-Id")
			if got, want := rec.Body.String(), "user 7, id "+id; got != want || len(id) != 36 {
				t.Errorf("body %q, want %q", got, want)
			}
			want := []string{
				"inner: " + c.pattern + ", id 36",
				"middle: " + c.pattern + ", id 36",
				"outer: " + c.pattern + ", id 0",
			}
			if !slices.Equal(seen, want) {
				t.Errorf("got %q, want %q", seen, want)
			}
		})
	}
}

// One ID is in the refusal's header and in its body, over each version of HTTP.
func TestRefusalHasID(t *testing.T) {
	front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
		ids, _ := kit(t)
		tmo, err := timeout.New(timeout.Config{Limits: timeout.Limits{Total: 20 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		h := alice.New(ids.Handler, tmo.Handler).ThenFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		res, body, err := start(t, h).Get(t, "/", http.Header{"X-Request-Id": {"abc-1"}})
		if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("X-Request-Id") != "abc-1" {
			t.Fatalf("%v, %v", res, err)
		}
		requestID(t, body, "abc-1")
	})
}
