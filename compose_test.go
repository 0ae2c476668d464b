package plainware_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/internal/memnet"
	"example.com/plainware/internal/mwtest"
	"example.com/plainware/reqid"
	"example.com/plainware/timeout"
)

// part is a handler of the kit, and what it does by design.
type part struct {
	name   string
	new    func(testing.TB) func(http.Handler) http.Handler
	header string // set in request and response
}

var parts = []part{
	{"breaker", func(t testing.TB) func(http.Handler) http.Handler {
		return must(breaker.New(breaker.Config{}))(t).Handler
	}, ""},
	{"reqid", func(t testing.TB) func(http.Handler) http.Handler {
		return must(reqid.New(reqid.Config{}))(t).Handler
	}, "X-Request-Id"},
	{"timeout", func(t testing.TB) func(http.Handler) http.Handler {
		return must(timeout.New(timeout.Config{Limits: limits}))(t).Handler
	}, ""},
	{"timeout-cooperative", func(t testing.TB) func(http.Handler) http.Handler {
		return must(timeout.New(timeout.Config{Limits: limits, Cooperative: true}))(t).Handler
	}, ""},
	{"deadline", func(t testing.TB) func(http.Handler) http.Handler {
		return must(timeout.NewDeadline(timeout.DeadlineConfig{}))(t).Handler
	}, ""},
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
					RequestHeaders:  []string{outer.header, inner.header},
					ResponseHeaders: []string{outer.header, inner.header},
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
