package webhook_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/webhook"
)

// vector is one request of testdata/webhook.json, whose own "fields" member
// describes them.
type vector struct {
	ID       string
	Provider string
	Scheme   string
	Valid    bool
	Reason   string
	Policy   bool
	Keys     []struct{ Format, Value string }
	Method   string
	URL      string
	Headers  http.Header
	Body     string
	BodyB64  string `json:"body_b64"`
	Now      int64
	Window   int64 `json:"tolerance_s"`

	Label     string
	Required  []string `json:"required_components"`
	CheckCert bool     `json:"check_cert_url"`
}

type challenge struct {
	Provider string
	Secret   string
	Request  json.RawMessage
	Response json.RawMessage
}

type vectorFile struct {
	Challenges []challenge
	Vectors    []vector
}

func readVectors(t testing.TB) vectorFile {
	t.Helper()
	text, err := os.ReadFile("testdata/webhook.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func (v vector) body(t testing.TB) []byte {
	if v.BodyB64 == "" {
		return []byte(v.Body)
	}
	b, err := base64.StdEncoding.DecodeString(v.BodyB64)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request is the vector as a server would get it.
func (v vector) request(t testing.TB) *http.Request {
	t.Helper()
	r := httptest.NewRequest(v.Method, v.URL, strings.NewReader(string(v.body(t))))
	r.Header = v.Headers.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	u, err := url.Parse(v.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.RequestURI = u.RequestURI()
	return r
}

func (v vector) keys(t testing.TB) []webhook.Key {
	t.Helper()
	var keys []webhook.Key
	for _, k := range v.Keys {
		switch k.Format {
		case "utf8":
			keys = append(keys, webhook.Secret(k.Value))
		case "hex":
			keys = append(keys, webhook.SecretHex(k.Value))
		case "base64", "whsec":
			keys = append(keys, webhook.SecretBase64(k.Value))
		case "whpk", "spki-der-base64", "x509-der-base64", "ed25519-raw-hex":
			keys = append(keys, webhook.PublicKeyText(k.Value))
		default:
			t.Fatalf("%s: key format %q", v.ID, k.Format)
		}
	}
	return keys
}

// presets are the presets by the names of the schemes in the vector file.
var presets = map[string]func() webhook.Scheme{
	"github": webhook.GitHub, "github-sha1-legacy": webhook.GitHubSHA1, "gitea": webhook.Gitea, "gogs": webhook.Gogs,
	"bitbucket": webhook.Bitbucket, "meta": func() webhook.Scheme { return webhook.Meta("") }, "notion": webhook.Notion,
	"mollie": webhook.Mollie, "intercom": webhook.Intercom, "sentry": webhook.Sentry, "vercel": webhook.Vercel,
	"razorpay": webhook.Razorpay, "gocardless": webhook.GoCardless, "checkout-com": webhook.Checkout,
	"lemonsqueezy": webhook.LemonSqueezy, "dropbox": webhook.Dropbox, "paystack": webhook.Paystack,
	"pagerduty": webhook.PagerDuty, "shopify": webhook.Shopify, "woocommerce": webhook.WooCommerce, "xero": webhook.Xero,
	"line": webhook.LINE, "typeform": webhook.Typeform, "x-twitter": webhook.X, "stripe": webhook.Stripe, "mux": webhook.Mux,
	"calendly": webhook.Calendly, "workos": webhook.WorkOS, "cloudflare-stream": webhook.CloudflareStream,
	"paddle": webhook.Paddle, "slack": webhook.Slack, "zoom": webhook.Zoom, "webflow": webhook.Webflow,
	"twitch": webhook.Twitch, "zendesk": webhook.Zendesk, "cashfree": webhook.Cashfree, "box": webhook.Box,
	"recurly": webhook.Recurly, "linear": webhook.Linear, "standard-webhooks": webhook.StandardWebhooks,
	"svix": webhook.Svix, "standard-webhooks-v1a": webhook.StandardWebhooksEd25519, "gitlab-signing-token": webhook.GitLab,
	"discord": webhook.Discord, "sendgrid": webhook.SendGrid, "wise": webhook.Wise,
	"paypal":     func() webhook.Scheme { return webhook.PayPal("WH-5E1234567890", nil) },
	"aws-sns-v1": func() webhook.Scheme { return webhook.AWSSNSLegacy(nil) },
	"aws-sns-v2": func() webhook.Scheme { return webhook.AWSSNS(nil) },
	"twilio":     webhook.Twilio, "square": webhook.Square, "hubspot-v3": webhook.HubSpot, "hubspot-v2-legacy": webhook.HubSpotV2,
	"hubspot-v1-legacy": webhook.HubSpotV1, "mailgun": webhook.Mailgun, "adyen": webhook.Adyen,
	"adyen-header": webhook.AdyenBanking, "gitlab-token": webhook.GitLabToken, "telegram": webhook.Telegram,
	"postmark": webhook.Postmark, "phonepe": webhook.PhonePe, "sanity": webhook.Sanity, "messagebird": webhook.MessageBird,
	// Not a preset, since it is not known whether the key is text or
	// hexadecimal; the vectors take it for text.
	"authorize-net": func() webhook.Scheme {
		return webhook.Scheme{
			Name: "authorize-net", Algorithm: webhook.HMACSHA512, Header: "X-ANET-Signature",
			Format: webhook.Prefixed("sha512="), Encoding: webhook.Hex, Signed: "{body}",
		}
	},
	"rfc9421:hmac-sha256": func() webhook.Scheme {
		return webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256})
	},
	"rfc9421:ed25519": func() webhook.Scheme {
		return webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.Ed25519})
	},
	"rfc9421:ecdsa-p256-sha256": func() webhook.Scheme {
		return webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.ECDSAP256SHA256Raw})
	},
}

// certs is a CertSource that has the keys at every address.
type certs struct {
	keys  []crypto.PublicKey
	asked []string
	err   error
}

func (c *certs) PublicKey(_ context.Context, address string) (crypto.PublicKey, error) {
	c.asked = append(c.asked, address)
	if c.err != nil {
		return nil, c.err
	}
	return c.keys[len(c.keys)-1], nil
}

func (v vector) config(t testing.TB) webhook.Config {
	t.Helper()
	preset := presets[v.Scheme]
	if preset == nil {
		t.Fatalf("%s: no preset for the scheme %q", v.ID, v.Scheme)
	}
	s := preset()
	if v.Label != "" {
		s = webhook.RFC9421(webhook.RFC9421Config{
			Algorithm: s.Algorithm, Label: v.Label, Components: v.Required,
			InsecureUnsignedBody: !slices.Contains(v.Required, "content-digest"),
		})
	}
	// Some published examples have secrets that no provider would give out.
	s.MinSecret = 1
	u, err := url.Parse(v.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := webhook.Config{Scheme: s, Keys: v.keys(t), URL: u.Scheme + "://" + u.Host}
	if want := time.Duration(v.Window) * time.Second; want != s.Tolerance {
		t.Errorf("%s: the vector has a window of %v, and the preset of %v", v.ID, want, s.Tolerance)
	}
	if s.NeedsStore {
		c.Store, c.Name = newMemory(t), "vectors"
	}
	return c
}

func newMemory(t testing.TB) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryConfig{Registers: 64})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newVerifier(t testing.TB, c webhook.Config) *webhook.Verifier {
	t.Helper()
	v, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sentinels are the verdicts that each class of failure in the file can be.
var sentinels = map[string][]error{
	"missing_signature":   {webhook.ErrNoSignature},
	"duplicate_header":    {webhook.ErrMalformed},
	"malformed_signature": {webhook.ErrMalformed, webhook.ErrNoSignature, webhook.ErrMismatch},
	"malformed_timestamp": {webhook.ErrMalformed},
	"missing_timestamp":   {webhook.ErrMalformed},
	"signature_mismatch":  {webhook.ErrMismatch, webhook.ErrMalformed},
	"timestamp_too_old":   {webhook.ErrTooOld},
	"timestamp_in_future": {webhook.ErrTooNew},
	"digest_mismatch":     {webhook.ErrMismatch},
	"wrong_algorithm":     {webhook.ErrMalformed, webhook.ErrNoSignature, webhook.ErrMismatch},
	"missing_component":   {webhook.ErrMalformed},
}

// webhook 1: every vector in the file gets its verdict, as a request and, where
// URL and method do not matter, as bytes.
func TestVectors(t *testing.T) {
	f := readVectors(t)
	if len(f.Vectors) < 517 {
		t.Fatalf("only %d vectors", len(f.Vectors))
	}
	for _, vec := range f.Vectors {
		t.Run(vec.ID, func(t *testing.T) {
			c := vec.config(t)
			now := func() time.Time { return time.Unix(vec.Now, 0) }
			if strings.HasPrefix(vec.Scheme, "aws-sns") && vec.CheckCert {
				vec.certs(t, c, now)
				if vec.Reason == "bad_cert_url" {
					return
				}
			}
			v := newVerifier(t, c)
			v.SetClock(now)
			r := vec.request(t)
			d, err := v.Verify(r)
			vec.judge(t, d, err)
			if err == nil {
				if len(c.Keys) > 1 && strings.Contains(vec.ID, "rotation") && d.KeyIndex != len(c.Keys)-1 {
					t.Errorf("key %d matched, want the last", d.KeyIndex)
				}
				if string(d.Body) != string(vec.body(t)) {
					t.Error("the body is not the one received")
				}
			}
			if !c.Scheme.NeedsURL && !strings.Contains(c.Scheme.Signed, "url") && vec.Method == "POST" {
				d, err := v.VerifyBytes(vec.Headers, vec.body(t))
				vec.judge(t, d, err)
			}
		})
	}
}

func (v vector) judge(t *testing.T, d *webhook.Delivery, err error) {
	t.Helper()
	if (err == nil) != v.Valid || (d != nil) != v.Valid {
		t.Fatalf("verdict %v, want valid %v (%s)", err, v.Valid, v.Reason)
	}
	if !v.Valid && !slices.ContainsFunc(sentinels[v.Reason], func(e error) bool { return errors.Is(err, e) }) {
		if !(v.Method != "POST" && errors.Is(err, webhook.ErrMethod)) {
			t.Errorf("error %v for %s", err, v.Reason)
		}
	}
}

// certs verifies an SNS vector with its key behind a CertSource.
//
// webhook 17: an address outside the list is refused without a fetch.
func (v vector) certs(t *testing.T, c webhook.Config, now func() time.Time) {
	source := &certs{}
	for _, k := range v.Keys {
		source.keys = append(source.keys, publicKey(t, k.Value))
	}
	c.Keys = nil
	if v.Scheme == "aws-sns-v1" {
		c.Scheme = webhook.AWSSNSLegacy(source)
	} else {
		c.Scheme = webhook.AWSSNS(source)
	}
	ver := newVerifier(t, c)
	ver.SetClock(now)
	d, err := ver.Verify(v.request(t))
	if v.Reason == "bad_cert_url" {
		if err != webhook.ErrMalformed || len(source.asked) > 0 {
			t.Errorf("error %v, asked for %q", err, source.asked)
		}
		return
	}
	v.judge(t, d, err)
}

func publicKey(t testing.TB, text string) crypto.PublicKey {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		if der, err = hex.DecodeString(text); err != nil {
			t.Fatal(err)
		}
	}
	if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
		return pub
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert.PublicKey
}
