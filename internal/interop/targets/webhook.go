package targets

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v74/github"
	"github.com/slack-go/slack"
	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	stripe "github.com/stripe/stripe-go/v82/webhook"

	"example.com/plainware/webhook"
)

// hookSecret is one for all schemes; Standard Webhooks decodes what follows the
// prefix.
const hookSecret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"

// webhookMeasures verify a body of 2 KB. They sign it once for all rounds, so
// that where there is a window, a run must not take longer than that: each
// benchmark signs anew.
func webhookMeasures() []Measure {
	body := []byte(`{"id":"evt_1","data":"` + strings.Repeat("x", 2000) + `"}`)
	text := webhook.Secret(hookSecret)
	sign := func(s webhook.Scheme, k webhook.Key) http.Header { return signed(s, k, body) }
	ours := func(s webhook.Scheme, k webhook.Key) func(*testing.B) { return verifyBytes(s, k, body) }
	check := func(b *testing.B, err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	hub := must(webhook.New(webhook.Config{Scheme: webhook.GitHub(), Keys: []webhook.Key{text}}))
	payload := handled(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		must(github.ValidatePayload(r, []byte(hookSecret)))
	}), sign(webhook.GitHub(), text), body)
	symmetric := webhook.SecretBase64(hookSecret)
	wh := must(standard.NewWebhook(hookSecret))

	return []Measure{
		{
			Package: "webhook", Name: "Stripe, VerifyBytes",
			Ours: ours(webhook.Stripe(), text), MaxAllocs: 3,
			Peers: []Peer{{Name: "stripe-go ValidatePayload", MaxRatio: 0.65, Run: func(b *testing.B) {
				h := sign(webhook.Stripe(), text).Get("Stripe-Signature")
				serial(func() { check(b, stripe.ValidatePayload(body, h, hookSecret)) })(b)
			}}, {Name: "HMAC-SHA256 over the body, reset", Run: func(b *testing.B) {
				// How much of ours is the hash, which nobody can do without.
				h, sum := hmac.New(sha256.New, []byte(hookSecret)), make([]byte, 0, sha256.Size)
				serial(func() {
					h.Reset()
					h.Write(body)
					sum = h.Sum(sum[:0])
				})(b)
			}}},
		},
		{
			Package: "webhook", Name: "Slack, VerifyBytes",
			Ours: ours(webhook.Slack(), text), MaxAllocs: 3,
			Peers: []Peer{{Name: "slack-go SecretsVerifier", MaxRatio: 0.65, Run: func(b *testing.B) {
				h := sign(webhook.Slack(), text)
				serial(func() {
					v, err := slack.NewSecretsVerifier(h, hookSecret)
					check(b, err)
					v.Write(body)
					check(b, v.Ensure())
				})(b)
			}}},
		},
		{
			Package: "webhook", Name: "GitHub, Handler",
			Ours:  handled(hub.Handler(nothing), sign(webhook.GitHub(), text), body),
			Peers: []Peer{{Name: "go-github ValidatePayload", MaxRatio: 0.6, Run: payload}},
		},
		{
			// The same work as the peer's: Handler gives the request on, too.
			Package: "webhook", Name: "GitHub, Verify",
			Ours: handled(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				must(hub.Verify(r))
			}), sign(webhook.GitHub(), text), body), MaxAllocs: 4, // one is of the body
			Peers: []Peer{{Name: "go-github ValidatePayload", MaxRatio: 0.6, Run: payload}},
		},
		{
			Package: "webhook", Name: "Standard Webhooks, VerifyBytes",
			Ours: ours(webhook.StandardWebhooks(), symmetric), MaxAllocs: 3,
			Peers: []Peer{{Name: "standard-webhooks Verify", MaxRatio: 0.4, Run: func(b *testing.B) {
				h := sign(webhook.StandardWebhooks(), symmetric)
				serial(func() { check(b, wh.Verify(body, h)) })(b)
			}}},
		},
		unsignedMeasure(text),
	}
}

// signed returns the header of a delivery of body.
func signed(s webhook.Scheme, k webhook.Key, body []byte) http.Header {
	o := &webhook.Outgoing{Body: body}
	if err := webhook.Sign(s, o, k); err != nil {
		panic(err)
	}
	return o.Header
}

// verifyBytes verifies a delivery of body.
func verifyBytes(s webhook.Scheme, k webhook.Key, body []byte) func(*testing.B) {
	v := must(webhook.New(webhook.Config{Scheme: s, Keys: []webhook.Key{k}}))
	return func(b *testing.B) {
		h := signed(s, k, body)
		// In a function as small as a caller's: VerifyBytes is made to be inlined,
		// which the compiler does not do in a very large one.
		serial(func() {
			if _, err := v.VerifyBytes(h, body); err != nil {
				b.Fatal(err)
			}
		})(b)
	}
}

// handled serves a POST of the body, which is read anew each time.
func handled(h http.Handler, header http.Header, body []byte) func(*testing.B) {
	return func(b *testing.B) {
		r := must(http.NewRequest(http.MethodPost, "http://x/hooks", nil))
		r.Header = header.Clone()
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = int64(len(body))
		reader := bytes.NewReader(body)
		w := &nullWriter{header: http.Header{}}
		serial(func() {
			reader.Reset(body)
			r.Body = io.NopCloser(reader)
			h.ServeHTTP(w, r)
		})(b)
	}
}

// unsignedMeasure is what a request without a signature costs, whose body is
// not read: no more than 300 ns. A time by itself says more of the machine
// than of the code, so it stands here as a share of a computed HMAC, which go-github
// takes 2.3 µs for where ours took 300 ns.
func unsignedMeasure(k webhook.Key) Measure {
	v := must(webhook.New(webhook.Config{Scheme: webhook.GitHub(), Keys: []webhook.Key{k}}))
	r := must(http.NewRequest(http.MethodPost, "http://x/hooks", io.NopCloser(neverRead{})))
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = 2000
	return Measure{
		Package: "webhook", Name: "Verify without a signature",
		Ours: func(b *testing.B) {
			serial(func() {
				if _, err := v.Verify(r); err != webhook.ErrNoSignature {
					b.Fatal(err)
				}
			})(b)
		},
		MaxAllocs: -1,
		Peers: []Peer{{Name: "go-github ValidateSignature", MaxRatio: 0.13, Run: func(b *testing.B) {
			body := bytes.Repeat([]byte("x"), 2000)
			serial(func() {
				if github.ValidateSignature("sha256=00", body, []byte(hookSecret)) == nil {
					b.Fatal("no error")
				}
			})(b)
		}}},
	}
}

// neverRead is a body that must not be read.
type neverRead struct{}

func (neverRead) Read([]byte) (int, error) { panic("the body of an unsigned request was read") }
