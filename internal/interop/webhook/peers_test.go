// Package webhook_test gives the vectors of webhook to the verifiers of
// providers and other libraries, and shows where their verdicts differ.
package webhook_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	paddle "github.com/PaddleHQ/paddle-go-sdk/v4"
	"github.com/PagerDuty/go-pagerduty/webhookv3"
	"github.com/bwmarrin/discordgo"
	bitbucket "github.com/go-playground/webhooks/v6/bitbucket-server"
	"github.com/go-playground/webhooks/v6/gitea"
	"github.com/go-playground/webhooks/v6/github"
	"github.com/go-playground/webhooks/v6/gogs"
	gogithub "github.com/google/go-github/v74/github"
	"github.com/sendgrid/sendgrid-go/helpers/eventwebhook"
	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	stripe "github.com/stripe/stripe-go/v82/webhook"
	svix "github.com/svix/svix-webhooks/go"
	twilio "github.com/twilio/twilio-go/client"
)

// The tests in this package show what the peers do at the versions in go.mod.
// One that fails on a peer says that the peer has changed.

type vector struct {
	ID      string
	Scheme  string
	Valid   bool
	Reason  string
	Keys    []struct{ Format, Value string }
	Method  string
	URL     string
	Headers http.Header
	Body    string
	BodyB64 string `json:"body_b64"`
}

func (v vector) body(t *testing.T) []byte {
	if v.BodyB64 == "" {
		return []byte(v.Body)
	}
	b, err := base64.StdEncoding.DecodeString(v.BodyB64)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request has an event's name beside what was signed, which go-playground
// wants before it looks at the signature.
func (v vector) request(t *testing.T) *http.Request {
	r := httptest.NewRequest(v.Method, v.URL, bytes.NewReader(v.body(t)))
	r.Header = v.Headers.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	for name, value := range map[string]string{"X-Github-Event": "push", "X-Gitea-Event": "push", "X-Gogs-Event": "push", "X-Event-Key": "repo:refs_changed"} {
		if r.Header.Get(name) == "" {
			r.Header.Set(name, value)
		}
	}
	return r
}

// peer is one verifier, for the vectors of some schemes. The function is
// called for each key of a vector, since the peers take one only.
type peer struct {
	name    string
	schemes []string
	verify  func(t *testing.T, v vector, key string) bool

	// differs are the vectors on which it does not agree, with what it does.
	differs map[string]string
}

// unsigned reports that a verifier which also parses has refused the
// signature, and not the event.
func unsigned(err error, sentinels ...error) bool {
	return slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) })
}

var peers = []peer{
	{
		"stripe-go", []string{"stripe"},
		func(t *testing.T, v vector, key string) bool {
			return stripe.ValidatePayloadIgnoringTolerance(v.body(t), v.Headers.Get("Stripe-Signature"), key) == nil
		},
		map[string]string{"stripe/duplicate-t": "accepts", "stripe/leading-zero-t": "accepts"},
	},
	{
		"go-github", []string{"github", "github-sha1-legacy"},
		func(t *testing.T, v vector, key string) bool {
			_, err := gogithub.ValidatePayload(v.request(t), []byte(key))
			return err == nil
		},
		map[string]string{"github/sha512-in-256-header": "accepts", "github/binary-body": "refuses"},
	},
	{
		"standard-webhooks", []string{"standard-webhooks", "gitlab-signing-token"},
		func(t *testing.T, v vector, key string) bool {
			wh, err := standard.NewWebhook(key)
			return err == nil && wh.VerifyIgnoringTimestamp(v.body(t), v.Headers) == nil
		},
		map[string]string{},
	},
	{
		"svix-go", []string{"svix"},
		func(t *testing.T, v vector, key string) bool {
			wh, err := svix.NewWebhook(key)
			return err == nil && wh.VerifyIgnoringTimestamp(v.body(t), v.Headers) == nil
		},
		map[string]string{},
	},
	{
		"twilio-go", []string{"twilio"},
		func(t *testing.T, v vector, key string) bool {
			rv := twilio.NewRequestValidator(key)
			return rv.ValidateBody(v.URL, v.body(t), v.Headers.Get("X-Twilio-Signature"))
		},
		map[string]string{"twilio/repeated-field-smuggled": "accepts", "twilio/gen-2": "refuses"},
	},
	{
		"paddle-go-sdk", []string{"paddle"},
		func(t *testing.T, v vector, key string) bool {
			ok, err := paddle.NewWebhookVerifier(key).Verify(v.request(t))
			return ok && err == nil
		},
		map[string]string{"paddle/two-h1-rotation": "refuses"},
	},
	{
		"go-pagerduty", []string{"pagerduty"},
		func(t *testing.T, v vector, key string) bool {
			return webhookv3.VerifySignature(v.request(t), key) == nil
		},
		map[string]string{},
	},
	{
		"sendgrid-go", []string{"sendgrid"},
		func(t *testing.T, v vector, key string) bool {
			pub, err := eventwebhook.ConvertPublicKeyBase64ToECDSA(key)
			if err != nil {
				t.Fatal(err)
			}
			const name = "X-Twilio-Email-Event-Webhook-"
			ok, err := eventwebhook.VerifySignature(pub, v.body(t), v.Headers.Get(name+"Signature"), v.Headers.Get(name+"Timestamp"))
			return ok && err == nil
		},
		map[string]string{},
	},
	{
		"discordgo", []string{"discord"},
		func(t *testing.T, v vector, key string) bool {
			pub, err := hex.DecodeString(key)
			if err != nil {
				t.Fatal(err)
			}
			return discordgo.VerifyInteraction(v.request(t), ed25519.PublicKey(pub))
		},
		map[string]string{},
	},
	{
		"go-playground/github", []string{"github"},
		func(t *testing.T, v vector, key string) bool {
			hook, err := github.New(github.Options.Secret(key))
			if err != nil {
				t.Fatal(err)
			}
			_, err = hook.Parse(v.request(t), github.PushEvent)
			return !unsigned(err, github.ErrMissingHubSignatureHeader, github.ErrHMACVerificationFailed, github.ErrParsingPayload)
		},
		map[string]string{},
	},
	{
		"go-playground/gitea", []string{"gitea"},
		func(t *testing.T, v vector, key string) bool {
			hook, err := gitea.New(gitea.Options.Secret(key))
			if err != nil {
				t.Fatal(err)
			}
			r := v.request(t)
			_, err = hook.Parse(r, gitea.Event(r.Header.Get("X-Gitea-Event")))
			return !unsigned(err, gitea.ErrMissingGiteaSignatureHeader, gitea.ErrHMACVerificationFailed, gitea.ErrParsingPayload)
		},
		map[string]string{},
	},
	{
		"go-playground/gogs", []string{"gogs"},
		func(t *testing.T, v vector, key string) bool {
			hook, err := gogs.New(gogs.Options.Secret(key))
			if err != nil {
				t.Fatal(err)
			}
			r := v.request(t)
			_, err = hook.Parse(r, gogs.Event(r.Header.Get("X-Gogs-Event")))
			return !unsigned(err, gogs.ErrMissingGogsSignatureHeader, gogs.ErrHMACVerificationFailed, gogs.ErrParsingPayload)
		},
		map[string]string{},
	},
	{
		"go-playground/bitbucket-server", []string{"bitbucket"},
		func(t *testing.T, v vector, key string) bool {
			hook, err := bitbucket.New(bitbucket.Options.Secret(key))
			if err != nil {
				t.Fatal(err)
			}
			r := v.request(t)
			_, err = hook.Parse(r, bitbucket.Event(r.Header.Get("X-Event-Key")))
			return !unsigned(err, bitbucket.ErrMissingHubSignatureHeader, bitbucket.ErrHMACVerificationFailed, bitbucket.ErrParsingPayload)
		},
		map[string]string{"bitbucket/three-bytes": "panics"},
	},
}

func vectors(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("../../../webhook/testdata/webhook.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Vectors []vector }
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f.Vectors
}

// verdict is what a peer says with any of the keys: accepts, refuses or
// panics.
func (p peer) verdict(t *testing.T, v vector) (verdict string) {
	verdict = "refuses"
	defer func() {
		if recover() != nil {
			verdict = "panics"
		}
	}()
	for _, k := range v.Keys {
		if p.verify(t, v, k.Value) {
			return "accepts"
		}
	}
	return verdict
}

// The peers agree with the verdicts of the vectors, which are webhook's, but
// for these. Vectors about the window are left out where the peer's clock
// cannot be set, which is everywhere.
func TestPeersAgree(t *testing.T) {
	all := vectors(t)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			agree, differ := 0, map[string]string{}
			for _, v := range all {
				timed := strings.HasPrefix(v.Reason, "timestamp_")
				if !slices.Contains(p.schemes, v.Scheme) || timed {
					continue
				}
				verdict := p.verdict(t, v)
				if want := map[bool]string{true: "accepts", false: "refuses"}[v.Valid]; verdict == want {
					agree++
				} else {
					differ[v.ID] = verdict
				}
			}
			t.Logf("%d agree, %d differ", agree, len(differ))
			if agree == 0 || !maps.Equal(differ, p.differs) {
				t.Errorf("differs on %v, want %v", differ, p.differs)
			}
		})
	}
}
