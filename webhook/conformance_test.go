package webhook_test

import (
	"crypto/rand"
	"net/http"
	"testing"

	"example.com/plainware/internal/mwtest"
	"example.com/plainware/webhook"
)

// anyone is a scheme that believes everybody, since the suite does not sign.
func anyone() webhook.Scheme {
	return webhook.Scheme{
		Name: "anyone", Methods: []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"},
		Verify: func(m *webhook.Message) (webhook.Result, error) {
			return webhook.Result{Signed: []byte(rand.Text())}, nil
		},
	}
}

func TestConformance(t *testing.T) {
	for name, once := range map[string]bool{"verifying": false, "once": true} {
		t.Run(name, func(t *testing.T) {
			mwtest.Run(t, mwtest.Middleware{ReadsBody: true, New: func(t testing.TB) func(http.Handler) http.Handler {
				c := webhook.Config{Scheme: anyone(), Keys: []webhook.Key{webhook.Secret("01234567")}, MaxBody: 64 << 20}
				if once {
					c.Store, c.Name = newMemory(t), "conformance"
				}
				return newVerifier(t, c).Handler
			}})
		})
	}
}

func TestTransportConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{
		New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
			tr, err := webhook.NewTransport(webhook.TransportConfig{
				Base: base, Keys: []webhook.Key{webhook.Secret("0123456789abcdef01234567")}, MaxBody: 64 << 20,
			})
			if err != nil {
				t.Fatal(err)
			}
			return tr
		},
		ReadsBody:      true,
		RequestHeaders: []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"},
	})
}
