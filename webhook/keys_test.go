package webhook_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/store"
	"example.com/plainware/webhook"
)

var newRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func signer(t testing.TB, a webhook.Algorithm) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch a {
	case webhook.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case webhook.ECDSAP256SHA256, webhook.ECDSAP256SHA256Raw:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		key, err = newRSA()
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyPair(t testing.TB, a webhook.Algorithm) (sign, verify webhook.Key) {
	t.Helper()
	key := signer(t, a)
	return webhook.PrivateKey(key), webhook.PublicKey(key.Public())
}

// webhook 2: what New refuses, all at once and without a secret in the text.
// webhook 18: PayPal and Mailgun without a store.
func TestNewRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strong := signer(t, webhook.RSASHA256).Public().(*rsa.PublicKey)
	weak := &rsa.PublicKey{N: new(big.Int).Rsh(strong.N, 1040), E: 65537}
	_, edKey := keyPair(t, webhook.Ed25519)
	_, rsaKey := keyPair(t, webhook.RSASHA256)
	good := []webhook.Key{webhook.Secret(secret)}
	mem := newMemory(t)
	for name, c := range map[string]struct {
		config webhook.Config
		want   []string
	}{
		"nothing":           {webhook.Config{}, []string{"Scheme.Name", "Scheme.Header", "Scheme.Algorithm", "Scheme.Encoding", "Scheme.Signed", "Keys: is required"}},
		"no keys":           {webhook.Config{Scheme: webhook.GitHub()}, []string{"Keys: is required"}},
		"empty secret":      {config(webhook.GitHub(), ""), []string{"Keys[0]: is empty"}},
		"zero key":          {webhook.Config{Scheme: webhook.GitHub(), Keys: make([]webhook.Key, 1)}, []string{"Keys[0]: must be a secret of 8 bytes or more (got 0)"}},
		"short":             {config(webhook.GitHub(), secret, "seven77"), []string{"Keys[1]: must be a secret of 8 bytes or more (got 7)"}},
		"short for the std": {config(webhook.StandardWebhooks(), secret[:23]), []string{"Keys[0]: must be a secret of 24 bytes"}},
		"bad hex":           {webhook.Config{Scheme: webhook.AdyenBanking(), Keys: []webhook.Key{webhook.SecretHex("xyz")}}, []string{"Keys[0]: is not hexadecimal"}},
		"bad base64":        {webhook.Config{Scheme: webhook.Svix(), Keys: []webhook.Key{webhook.SecretBase64("whsec_***")}}, []string{"Keys[0]: is not base64"}},
		"bad public":        {webhook.Config{Scheme: webhook.Discord(), Keys: []webhook.Key{webhook.PublicKeyText("abcd")}}, []string{"Keys[0]: is not a public key"}},
		"public for secret": {webhook.Config{Scheme: webhook.GitHub(), Keys: []webhook.Key{edKey}}, []string{"Keys[0]: must be a secret, and this is a public key"}},
		"secret for public": {config(webhook.Discord(), secret), []string{"Keys[0]: must be an Ed25519 key"}},
		"wrong public":      {webhook.Config{Scheme: webhook.SendGrid(), Keys: []webhook.Key{rsaKey, webhook.PublicKey(&p384.PublicKey)}}, []string{"Keys[0]: must be an ECDSA key on P-256", "Keys[1]: must be an ECDSA"}},
		"not RSA":           {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{edKey}}, []string{"Keys[0]: must be an RSA key"}},
		"weak RSA":          {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PublicKey(weak)}}, []string{"Keys[0]: must be an RSA key of 2048 to 8192 bits (got 1008)"}},
		"unknown public":    {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PublicKey("x")}}, []string{"Keys[0]: is not a public key of a known type but string"}},
		"nil private":       {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PrivateKey(nil)}}, []string{"Keys[0]: is nil"}},
		"too many":          {webhook.Config{Scheme: webhook.GitHub(), Keys: make([]webhook.Key, 17)}, []string{"Keys: must be at most 16 (got 17)"}},
		"no URL":            {webhook.Config{Scheme: webhook.Square(), Keys: good}, []string{"URL: is required"}},
		"bad URL":           {webhook.Config{Scheme: webhook.Twilio(), Keys: good, URL: "hooks.example"}, []string{"URL: must begin"}},
		"URL with query":    {webhook.Config{Scheme: webhook.Twilio(), Keys: good, URL: "https://a/b?c"}, []string{"URL: must have no user, query"}},
		"PayPal":            {webhook.Config{Scheme: webhook.PayPal("WH", nil), Keys: []webhook.Key{rsaKey}}, []string{"Store: is required"}},
		"PayPal ID":         {webhook.Config{Scheme: webhook.PayPal("", nil), Keys: []webhook.Key{rsaKey}}, []string{"webhookID: is required", "Store: is required"}},
		"Mailgun":           {config(webhook.Mailgun(), secret), []string{"Store: is required"}},
		"RFC 9421":          {webhook.Config{Scheme: webhook.RFC9421(webhook.RFC9421Config{Components: []string{"@path", "@status", "a b"}}), Keys: good, URL: "https://a"}, []string{"RFC9421Config.Algorithm", `"@status"`, `"a b"`}},
		"SNS with keys":     {webhook.Config{Scheme: webhook.AWSSNS(&certs{}), Keys: []webhook.Key{rsaKey}}, []string{"Keys: must be empty"}},
		"numbers":           {webhook.Config{Scheme: webhook.GitHub(), Keys: good, MaxBody: -1, Tolerance: -1}, []string{"MaxBody", "Tolerance"}},
		"no time":           {webhook.Config{Scheme: webhook.GitHub(), Keys: good, Tolerance: time.Minute}, []string{"Tolerance: the scheme signs no time"}},
		"no name":           {webhook.Config{Scheme: webhook.GitHub(), Keys: good, Store: mem}, []string{"Name: must be"}},
		"store numbers":     {webhook.Config{Scheme: webhook.Stripe(), Keys: good, Store: mem, Name: "a b", Lease: 1, Keep: time.Minute}, []string{"Name", "Lease", "Keep: must be twice"}},
		"no store":          {webhook.Config{Scheme: webhook.GitHub(), Keys: good, Name: "x", Lease: time.Minute, Keep: time.Hour, Key: func(*webhook.Delivery) string { return "" }}, []string{"Name: has no", "Lease: has no", "Keep: has no", "Key: has no"}},
		"not a keeper":      {webhook.Config{Scheme: webhook.GitHub(), Keys: good, Store: struct{ store.Store }{mem}, Name: "x"}, []string{"Store: "}},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := webhook.New(c.config)
			if err == nil || v != nil {
				t.Fatalf("no error, want %q", c.want)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%v", want, err)
				}
			}
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "webhook: ") || strings.Contains(line, secret[:7]) {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}

func TestSchemeRefuses(t *testing.T) {
	for want, edit := range map[string]func(*webhook.Scheme){
		"Scheme.Name":       func(s *webhook.Scheme) { s.Name = "Git Hub" },
		"Scheme.Header":     func(s *webhook.Scheme) { s.Header = "a b" },
		"Scheme.Require":    func(s *webhook.Scheme) { s.Require = map[string]string{"a:": ""} },
		"Scheme.Strip":      func(s *webhook.Scheme) { s.Strip = []string{"ä"} },
		"unknown name":      func(s *webhook.Scheme) { s.Signed = "{what}{body}" },
		"{body}":            func(s *webhook.Scheme) { s.Signed = "x" },
		"more than one":     func(s *webhook.Scheme) { s.Signed = "{body}{body}" },
		"brace":             func(s *webhook.Scheme) { s.Signed = "{body}}" },
		"belongs to":        func(s *webhook.Scheme) { s.Signed = "{body}{" },
		"there is none":     func(s *webhook.Scheme) { s.Signed = "{time}{body}" },
		"exactly where":     func(s *webhook.Scheme) { s.Signed = "{id}{body}" },
		"Scheme.IDHeader":   func(s *webhook.Scheme) { s.IDHeader = "X-Id" },
		"cover the time":    func(s *webhook.Scheme) { s.TimeHeader, s.TimeFormat = "X-Time", webhook.UnixSeconds },
		"Scheme.TimeFormat": func(s *webhook.Scheme) { s.TimeHeader, s.Signed = "X-Time", "{time}{body}" },
		"no time to judge":  func(s *webhook.Scheme) { s.Tolerance = time.Minute },
		"not be negative":   func(s *webhook.Scheme) { s.MinSecret = -1 },
		"Scheme.Tolerance":  func(s *webhook.Scheme) { s.Tolerance = -1 },
		"Scheme.Algorithm":  func(s *webhook.Scheme) { s.Algorithm = 99 },
		"Scheme.Encoding":   func(s *webhook.Scheme) { s.Encoding = 99 },
		"Algorithm Token":   func(s *webhook.Scheme) { s.Encoding = webhook.Text },
		"a separator":       func(s *webhook.Scheme) { s.Format = webhook.List("", "v1=") },
		"another for":       func(s *webhook.Scheme) { s.Format = webhook.Pairs(",", "t", "t") },
		"name for the time": func(s *webhook.Scheme) { s.Format = webhook.Pairs(",", "", "v1") },
		"no time to read":   func(s *webhook.Scheme) { s.TimeFormat = webhook.UnixSeconds },
		"that is in the body": func(s *webhook.Scheme) {
			s.TimeField, s.TimeFormat, s.Signed = "at", webhook.UnixSeconds, "{time}{body}"
		},
		"more than one time": func(s *webhook.Scheme) {
			s.Format, s.TimeHeader, s.TimeFormat = webhook.Pairs(",", "t", "v1"), "X-Time", webhook.UnixSeconds
		},
		"RFC9421Config.Label": func(s *webhook.Scheme) {
			*s = webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Label: "Sig 1"})
		},
		"RFC9421Config.Tag": func(s *webhook.Scheme) {
			*s = webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Tag: `a";alg="none`})
		},
		"there twice": func(s *webhook.Scheme) {
			*s = webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Components: []string{"@method", "@Method"}})
		},
		"not a known component": func(s *webhook.Scheme) {
			*s = webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Components: []string{"@status"}})
		},
		"none of RFC 9421": func(s *webhook.Scheme) { *s = webhook.RFC9421(webhook.RFC9421Config{}) },
	} {
		s := webhook.GitHub()
		edit(&s)
		if _, err := webhook.New(config(s, secret)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// Every form in which a provider shows a public key is the same key.
func TestPublicKeyText(t *testing.T) {
	s := webhook.Discord()
	key := signer(t, webhook.Ed25519)
	raw := key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		hex.EncodeToString(raw), "whpk_" + base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(der),
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})) + "\n",
	} {
		v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{webhook.PublicKeyText(text)}})
		if _, err := v.Verify(signed(t, s, webhook.PrivateKey(key), webhook.Outgoing{})); err != nil {
			t.Errorf("%.20s: %v", text, err)
		}
	}
}
