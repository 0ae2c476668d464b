package reqid_test

import (
	"net/http"
	"testing"

	"example.com/plainware/internal/mwtest"
	"example.com/plainware/reqid"
)

// The composition contract of the kit, in each configuration that takes another
// path.
func TestConformance(t *testing.T) {
	trace := []string{"X-Request-Id", "X-Correlation-Id", "Traceparent", "Tracestate"}
	for name, c := range map[string]struct {
		config            reqid.Config
		request, response []string
	}{
		"default":     {reqid.Config{}, trace[:1], trace[:1]},
		"not trusted": {reqid.Config{Trust: reqid.TrustNone, Also: trace[1:2]}, trace[:2], trace[:1]},
		"hidden":      {reqid.Config{HideResponse: true}, trace[:1], nil},
		"trace":       {reqid.Config{Trace: true}, trace, trace[:1]},
	} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{
				New: func(t testing.TB) func(http.Handler) http.Handler {
					return mustNew(t, c.config).Handler
				},
				RequestHeaders:  c.request,
				ResponseHeaders: c.response,
			})
		})
	}
}

// serving is a Transport in a handler: each request is made with the context of
// one that is being served.
type serving struct{ *reqid.Transport }

func (s serving) RoundTrip(r *http.Request) (*http.Response, error) {
	return s.Transport.RoundTrip(r.WithContext(reqid.NewContext(r.Context(), uuid)))
}

func TestTransportConformance(t *testing.T) {
	t.Run("without an ID", func(t *testing.T) {
		mwtest.RunTransport(t, mwtest.Transport{
			New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
				return mustTransport(t, reqid.TransportConfig{Base: base})
			},
		})
	})
	t.Run("with an ID", func(t *testing.T) {
		mwtest.RunTransport(t, mwtest.Transport{
			New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
				return serving{mustTransport(t, reqid.TransportConfig{Base: base})}
			},
			RequestHeaders: []string{"X-Request-Id"},
		})
	})
}
