package webhooktest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

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

// An address without a path is signed with the slash that a client sends.
func TestAddressWithoutPath(t *testing.T) {
	for _, s := range []webhook.Scheme{webhook.Square(), webhook.HubSpot(), webhook.Twilio(), webhook.MessageBird()} {
		for _, address := range []string{"https://hooks.example", "https://hooks.example?a=1", "https://hooks.example/", "https://hooks.example/a"} {
			sign, verify := webhooktest.Keys(t, s)
			v, err := webhook.New(webhook.Config{Scheme: s, Keys: []webhook.Key{verify}, URL: "https://hooks.example"})
			if err != nil {
				t.Fatal(err)
			}
			if s.Name == "twilio" {
				r := httptest.NewRequest("GET", address, nil)
				if err := webhooktest.Sign(r, s, sign, webhook.Outgoing{}); err != nil {
					t.Fatal(err)
				}
				if _, err := v.Verify(r); err != nil {
					t.Errorf("%s, %s: %v", s.Name, address, err)
				}
				continue
			}
			if _, err := v.Verify(webhooktest.Request(t, s, sign, address, []byte("{}"))); err != nil {
				t.Errorf("%s, %s: %v", s.Name, address, err)
			}
		}
	}
}

func TestDelivery(t *testing.T) {
	d, ok := webhook.FromContext(webhooktest.Delivery(t.Context(), webhook.Stripe(), []byte("{}")))
	if !ok || d.Scheme != "stripe" || string(d.Body) != "{}" || time.Since(d.Time) > time.Minute {
		t.Errorf("%+v", d)
	}
	if id, ok := d.EventID(); ok {
		t.Errorf("event ID %q of nothing", id)
	}
	for _, c := range []struct {
		scheme webhook.Scheme
		body   string
		want   string
	}{
		{webhook.Stripe(), `{"id":"evt_1"}`, "evt_1"},
		{webhook.PagerDuty(), `{"event":{"id":"e"}}`, "e"},
		{webhook.Mailgun(), `{"event-data":{"id":"m"}}`, "m"},
		{webhook.AWSSNS(nil), `{"MessageId":"s"}`, "s"},
		{webhook.PayPal("WH", nil), `{"id":"p"}`, "p"},
		{webhook.GitHub(), `{"id":"none"}`, ""},
		{webhook.Scheme{}, `{"id":"none"}`, ""},
	} {
		d, ok := webhook.FromContext(webhooktest.Delivery(t.Context(), c.scheme, []byte(c.body)))
		if !ok || d.Scheme != c.scheme.Name || string(d.Body) != c.body {
			t.Fatalf("%s: %+v", c.scheme.Name, d)
		}
		if id, ok := d.EventID(); id != c.want || ok != (c.want != "") {
			t.Errorf("%s: event ID %q, %v", c.scheme.Name, id, ok)
		}
	}
	// It has an ID and a time where a true one has.
	for _, c := range []struct {
		scheme   webhook.Scheme
		id, time bool
	}{
		{webhook.MessageBird(), true, true}, {webhook.PayPal("WH", nil), true, true}, {webhook.Mailgun(), true, true},
		{webhook.AWSSNS(nil), true, true}, {webhook.AWSSNSLegacy(nil), true, true},
		{webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256}), true, true},
		{webhook.StandardWebhooks(), true, true}, {webhook.Stripe(), false, true}, {webhook.GitHub(), false, false},
		{webhook.Adyen(), false, false}, {webhook.Twilio(), false, false},
	} {
		d, _ := webhook.FromContext(webhooktest.Delivery(t.Context(), c.scheme, []byte("{}")))
		if (d.ID != "") != c.id || d.Time.IsZero() == c.time {
			t.Errorf("%s: ID %q, time %v", c.scheme.Name, d.ID, d.Time)
		}
	}
	sns, _ := webhook.FromContext(webhooktest.Delivery(t.Context(), webhook.AWSSNS(nil), []byte(`{"MessageId":"s"}`)))
	if sns.ID != "s" {
		t.Errorf("SNS: ID %q", sns.ID)
	}
	// Of schemes that sign an ID, each is a delivery of its own.
	a, _ := webhook.FromContext(webhooktest.Delivery(t.Context(), webhook.Twitch(), nil))
	b, _ := webhook.FromContext(webhooktest.Delivery(t.Context(), webhook.Twitch(), nil))
	if id, ok := a.EventID(); !ok || id != a.ID || a.ID == b.ID {
		t.Errorf("%q and %q", a.ID, b.ID)
	}
}
