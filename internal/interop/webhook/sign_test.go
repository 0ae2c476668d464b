package webhook_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	stripe "github.com/stripe/stripe-go/v82/webhook"
	svix "github.com/svix/svix-webhooks/go"

	"github.com/slack-go/slack"

	"example.com/plainware/webhook"
)

const (
	secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
	event  = `{"id":"evt_1","text":"a / slash"}` + "\n"
)

func sign(t *testing.T, s webhook.Scheme, k webhook.Key) http.Header {
	t.Helper()
	o := &webhook.Outgoing{Body: []byte(event)}
	if err := webhook.Sign(s, o, k); err != nil {
		t.Fatal(err)
	}
	return o.Header
}

// What Sign signs, the peers accept, with their own check of the time.
func TestPeersAcceptOurs(t *testing.T) {
	for name, verify := range map[string]func() error{
		"stripe-go": func() error {
			h := sign(t, webhook.Stripe(), webhook.Secret(secret))
			return stripe.ValidatePayload([]byte(event), h.Get("Stripe-Signature"), secret)
		},
		"standard-webhooks": func() error {
			wh, err := standard.NewWebhook(secret)
			if err != nil {
				return err
			}
			return wh.Verify([]byte(event), sign(t, webhook.StandardWebhooks(), webhook.SecretBase64(secret)))
		},
		"svix-go": func() error {
			wh, err := svix.NewWebhook(secret)
			if err != nil {
				return err
			}
			return wh.Verify([]byte(event), sign(t, webhook.Svix(), webhook.SecretBase64(secret)))
		},
		"slack-go": func() error {
			sv, err := slack.NewSecretsVerifier(sign(t, webhook.Slack(), webhook.Secret(secret)), secret)
			if err != nil {
				return err
			}
			sv.Write([]byte(event))
			return sv.Ensure()
		},
	} {
		if err := verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// And the other way round.
func TestWeAcceptPeers(t *testing.T) {
	verify := func(s webhook.Scheme, k webhook.Key, h http.Header) {
		t.Helper()
		v, err := webhook.New(webhook.Config{Scheme: s, Keys: []webhook.Key{k}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.VerifyBytes(h, []byte(event)); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	p := stripe.GenerateTestSignedPayload(&stripe.UnsignedPayload{Payload: []byte(event), Secret: secret})
	verify(webhook.Stripe(), webhook.Secret(secret), http.Header{"Stripe-Signature": {p.Header}})

	wh, err := standard.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	sig, err := wh.Sign("msg_1", now, []byte(event))
	if err != nil {
		t.Fatal(err)
	}
	verify(webhook.StandardWebhooks(), webhook.SecretBase64(secret), http.Header{
		"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)}, "Webhook-Signature": {sig},
	})
}
