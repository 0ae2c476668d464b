package webhook_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/webhook"
)

const exampleSecret = "a secret of sixteen bytes or more"

// deliver sends a signed body to a handler, as a provider would.
func deliver(h http.Handler, s webhook.Scheme, body string) *httptest.ResponseRecorder {
	o := &webhook.Outgoing{Body: []byte(body)}
	if err := webhook.Sign(s, o, webhook.Secret(exampleSecret)); err != nil {
		panic(err)
	}
	r := httptest.NewRequest("POST", "/hooks", strings.NewReader(body))
	r.Header = o.Header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Verified once: what comes again is answered without the handler.
func ExampleNew() {
	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	hooks, err := webhook.New(webhook.Config{
		Scheme: webhook.GitHub(),
		Keys:   []webhook.Key{webhook.Secret(exampleSecret)},
		Store:  mem, Name: "github",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := hooks.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d, _ := webhook.FromContext(r.Context())
		fmt.Printf("%s from %s with key %d\n", body, d.Scheme, d.KeyIndex)
	}))

	fmt.Println(deliver(h, webhook.GitHub(), `{"zen":"1"}`).Code)
	fmt.Println(deliver(h, webhook.GitHub(), `{"zen":"1"}`).Code)

	forged := httptest.NewRequest("POST", "/hooks", strings.NewReader(`{"zen":"2"}`))
	forged.Header.Set("X-Hub-Signature-256", "sha256="+strings.Repeat("0", 64))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, forged)
	fmt.Println(w.Code)
	// Output:
	// {"zen":"1"} from github with key 0
	// 200
	// 200
	// 401
}

// During a rotation both secrets are valid, and the delivery says which was
// used.
func ExampleConfig_rotation() {
	hooks, err := webhook.New(webhook.Config{
		Scheme: webhook.Stripe(),
		Keys:   []webhook.Key{webhook.Secret("whsec_the_new_one"), webhook.Secret(exampleSecret)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	deliver(hooks.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := hooks.From(r.Context())
		id, _ := d.EventID()
		fmt.Println("event", id, "key", d.KeyIndex)
	})), webhook.Stripe(), `{"id":"evt_1"}`)
	// Output: event evt_1 key 1
}

// A provider that has no preset.
func ExampleScheme() {
	acme := webhook.Scheme{
		Name: "acme", Algorithm: webhook.HMACSHA256, Encoding: webhook.Hex,
		Header: "Acme-Signature", Format: webhook.Pairs(",", "t", "v1"),
		TimeFormat: webhook.UnixSeconds, Signed: "{time}.{body}", Tolerance: 5 * time.Minute,
	}
	hooks, err := webhook.New(webhook.Config{Scheme: acme, Keys: []webhook.Key{webhook.Secret(exampleSecret)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	w := deliver(hooks.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})), acme, "hello")
	fmt.Println(w.Code, w.Body)
	// Output: 200 hello
}

// A provider whose signature is not of any known form has a function.
func ExampleScheme_verify() {
	odd := webhook.Scheme{
		Name: "odd", Header: "X-Odd",
		Verify: func(m *webhook.Message) (webhook.Result, error) {
			text, err := m.Value("X-Odd")
			if err != nil {
				return webhook.Result{}, err
			}
			want := fmt.Sprint(len(m.Body))
			if subtle.ConstantTimeCompare([]byte(text), []byte(want)) != 1 {
				return webhook.Result{}, webhook.ErrMismatch
			}
			return webhook.Result{Signed: m.Body}, nil
		},
	}
	hooks, err := webhook.New(webhook.Config{Scheme: odd, Keys: []webhook.Key{webhook.Secret(exampleSecret)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = hooks.VerifyBytes(http.Header{"X-Odd": {"5"}}, []byte("hello"))
	fmt.Println(err)
	_, err = hooks.VerifyBytes(http.Header{"X-Odd": {"6"}}, []byte("hello"))
	fmt.Println(err)
	// Output:
	// <nil>
	// webhook: no key matches
}

// A request verified without the handler still has its body.
func ExampleVerifier_Verify() {
	hooks, err := webhook.New(webhook.Config{
		Scheme: webhook.Shopify(), Keys: []webhook.Key{webhook.Secret(exampleSecret)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	deliver(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := hooks.Verify(r)
		if err != nil {
			webhook.WriteError(w, r, err)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Println(d.Scheme, string(body))
	}), webhook.Shopify(), "an order")
	// Output: shopify an order
}

// Sign makes what a receiver verifies, here with a key pair.
func ExampleSign() {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	o := &webhook.Outgoing{ID: "msg_1", Body: []byte(`{"paid":true}`)}
	if err := webhook.Sign(webhook.StandardWebhooksEd25519(), o, webhook.PrivateKey(private)); err != nil {
		fmt.Println(err)
		return
	}
	hooks, err := webhook.New(webhook.Config{
		Scheme: webhook.StandardWebhooksEd25519(), Keys: []webhook.Key{webhook.PublicKey(public)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := hooks.VerifyBytes(o.Header, o.Body)
	fmt.Println(d.ID, err)
	// Output: msg_1 <nil>
}

// A client that signs what it sends with Standard Webhooks.
func ExampleNewTransport() {
	key := webhook.SecretBase64("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")
	hooks, err := webhook.New(webhook.Config{Scheme: webhook.StandardWebhooks(), Keys: []webhook.Key{key}})
	if err != nil {
		fmt.Println(err)
		return
	}
	receiver := httptest.NewServer(hooks.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := webhook.FromContext(r.Context())
		fmt.Println("received", d.ID)
	})))
	defer receiver.Close()

	signer, err := webhook.NewTransport(webhook.TransportConfig{Keys: []webhook.Key{key}})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: signer}
	defer client.CloseIdleConnections()
	r, err := http.NewRequest("POST", receiver.URL, strings.NewReader(`{"paid":true}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Header.Set("Webhook-Id", "msg_1") // the same for each attempt
	res, err := client.Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	fmt.Println(res.StatusCode)
	// Output:
	// received msg_1
	// 200
}

// The certificates of Amazon SNS are fetched from the addresses in the
// messages, once these were checked.
func ExampleNewCertFetcher() {
	certs, err := webhook.NewCertFetcher(webhook.CertFetcherConfig{
		Client: &http.Client{}, Names: []string{"sns.amazonaws.com"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	hooks, err := webhook.New(webhook.Config{Scheme: webhook.AWSSNS(certs)})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = hooks.VerifyBytes(http.Header{}, []byte(`{}`))
	fmt.Println(err)
	// Output: webhook: no signature
}
