package main

import (
	"crypto/rand"
	"fmt"
	"net/http"

	"example.com/plainware/store"
	"example.com/plainware/webhook"
)

// hooks is the demo's endpoint for webhooks, which the gateway serves itself.
type hooks struct {
	handler  http.Handler
	delivery *webhook.Outgoing // one to try
}

// newHooks makes an endpoint that takes deliveries signed as GitHub signs them,
// each of them once. The secret is a new one at each start, so no other gateway
// takes them; that of a real endpoint comes from its configuration, and then
// each is taken once by all gateways on the same store together.
//
// The guard needs a store that keeps what it is given: Redis does with appendonly
// yes, and without eviction.
func newHooks(s store.Store) (*hooks, error) {
	key := webhook.Secret(rand.Text())
	v, err := webhook.New(webhook.Config{
		Scheme: webhook.GitHub(),
		Keys:   []webhook.Key{key},
		Store:  s,
		Name:   "gateway-hooks",
	})
	if err != nil {
		return nil, err
	}
	h := &hooks{delivery: &webhook.Outgoing{Body: []byte("demo-" + rand.Text())}}
	if err := webhook.Sign(webhook.GitHub(), h.delivery, key); err != nil {
		return nil, err
	}
	h.handler = v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := v.From(r.Context())
		writeJSON(w, map[string]any{"handled": string(d.Body), "scheme": d.Scheme})
	}))
	return h, nil
}

// curl is a command that delivers the one to try.
func (h *hooks) curl(base string) string {
	const field = "X-Hub-Signature-256"
	return fmt.Sprintf(`curl -i -H "%s: %s" -d %s %s/hooks`, field, h.delivery.Header.Get(field), h.delivery.Body, base)
}
