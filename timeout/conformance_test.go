package timeout_test

import (
	"net/http"
	"testing"
	"time"

	"example.com/plainware/internal/mwtest"
	"example.com/plainware/timeout"
)

// generous limits change nothing for requests that keep them.
var generous = timeout.Limits{
	Total: time.Minute, FirstByte: time.Minute, ReadIdle: time.Minute, WriteIdle: time.Minute,
}

func TestConformance(t *testing.T) {
	for name, cfg := range map[string]timeout.Config{
		"hard":             {Limits: generous},
		"hard, total only": {Limits: timeout.Limits{Total: time.Minute}},
		"hard, no hold":    {Limits: generous, Hold: -1},
		"cooperative":      {Limits: generous, Cooperative: true},
		"no limits":        {},
	} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{
				New: func(t testing.TB) func(http.Handler) http.Handler { return newMiddleware(t, cfg).Handler },
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

func TestDeadlineConformance(t *testing.T) {
	mwtest.Run(t, mwtest.Middleware{New: func(t testing.TB) func(http.Handler) http.Handler {
		d, err := timeout.NewDeadline(timeout.DeadlineConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return func(next http.Handler) http.Handler {
			h := d.Handler(next)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
			})
		}
	}})
}

func TestTransportConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{
		New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
			tr, err := timeout.NewTransport(timeout.TransportConfig{Base: base})
			if err != nil {
				t.Fatal(err)
			}
			return tr
		},
		RequestHeaders: []string{"Request-Timeout"},
	})
}

func newMiddleware(t testing.TB, cfg timeout.Config) *timeout.Middleware {
	t.Helper()
	m, err := timeout.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
