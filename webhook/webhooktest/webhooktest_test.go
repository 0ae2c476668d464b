package webhooktest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/plainware/store"
	"example.com/plainware/webhook"
	"example.com/plainware/webhook/webhooktest"
)

// A request for each kind of scheme passes its verifier, and the handler gets
// the body.
func TestRequest(t *testing.T) {
	const address = "https://hooks.example/in?a=1"
	for _, s := range []webhook.Scheme{
		webhook.GitHub(), webhook.Stripe(), webhook.StandardWebhooks(), webhook.StandardWebhooksEd25519(), webhook.Discord(),
		webhook.SendGrid(), webhook.Wise(), webhook.Telegram(), webhook.Postmark(), webhook.Square(), webhook.HubSpot(),
		webhook.Mailgun(), webhook.MessageBird(), webhook.PayPal("WH", nil),
		webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.RSAPSSSHA512}),
		webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.ECDSAP256SHA256Raw, Components: []string{"@authority", "@request-target", "content-type"}}),
	} {
		t.Run(s.Name, func(t *testing.T) {
			sign, verify := webhooktest.Keys(t, s)
			c := webhook.Config{Scheme: s, Keys: []webhook.Key{verify}, URL: "https://hooks.example"}
			if s.NeedsStore {
				mem, err := store.NewMemory(store.MemoryConfig{Registers: 64})
				if err != nil {
					t.Fatal(err)
				}
				c.Store, c.Name = mem, "test"
			}
			v, err := webhook.New(c)
			if err != nil {
				t.Fatal(err)
			}
			r := webhooktest.Request(t, s, sign, address, []byte(`{"id":"1"}`))
			w := httptest.NewRecorder()
			v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if b, err := io.ReadAll(r.Body); err != nil || len(b) < 10 {
					t.Errorf("body %q, %v", b, err)
				}
				w.WriteHeader(http.StatusAccepted)
			})).ServeHTTP(w, r)
			if w.Code != http.StatusAccepted {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
	}
}

// A request of the test's own, from httptest, is signed for its Host.
func TestSign(t *testing.T) {
	s := webhook.Square()
	sign, verify := webhooktest.Keys(t, s)
	v, err := webhook.New(webhook.Config{Scheme: s, Keys: []webhook.Key{verify}, URL: "https://example.com"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/in", nil)
	r.Header = nil
	if err := webhooktest.Sign(r, s, sign, webhook.Outgoing{Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(r); err != nil {
		t.Error(err)
	}
	again, err := r.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(again); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	if err := webhooktest.Sign(r, s, webhook.Key{}, webhook.Outgoing{}); err == nil {
		t.Error("signed without a key")
	}
}

func TestDelivery(t *testing.T) {
	d, ok := webhook.FromContext(webhooktest.Delivery(t.Context(), webhook.Stripe(), []byte("{}")))
	if !ok || d.Scheme != "stripe" || string(d.Body) != "{}" {
		t.Errorf("%+v", d)
	}
}
