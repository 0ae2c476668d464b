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
	"encoding/json"
	"encoding/pem"
	"math"
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

// point is a public key on P-256 with these coordinates, in JSON.
func point(t *testing.T, coordinates string) webhook.Key {
	t.Helper()
	p := &ecdsa.PublicKey{Curve: elliptic.P256()}
	if err := json.Unmarshal([]byte(coordinates), p); err != nil {
		t.Fatal(err)
	}
	return webhook.PublicKey(p)
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
		"Stripe's as base64": {webhook.Config{Scheme: webhook.Stripe(), Keys: []webhook.Key{webhook.Secret("whsec_" + secret), webhook.SecretBase64("whsec_" + secret)}},
			[]string{"Keys[1]: must be made by Secret, of the whole text"}},
		"base64 as text":    {config(webhook.StandardWebhooks(), secret, "whsec_"+secret), []string{"Keys[1]: must be made by SecretBase64"}},
		"Svix as text":      {config(webhook.Svix(), "whsec_"+secret), []string{"Keys[0]: must be made by SecretBase64"}},
		"GitLab as text":    {config(webhook.GitLab(), "whsec_"+secret), []string{"Keys[0]: must be made by SecretBase64"}},
		"bad public":        {webhook.Config{Scheme: webhook.Discord(), Keys: []webhook.Key{webhook.PublicKeyText("abcd")}}, []string{"Keys[0]: is not a public key"}},
		"public for secret": {webhook.Config{Scheme: webhook.GitHub(), Keys: []webhook.Key{edKey}}, []string{"Keys[0]: must be a secret, and this is a public key"}},
		"secret for public": {config(webhook.Discord(), secret), []string{"Keys[0]: must be an Ed25519 key"}},
		"wrong public":      {webhook.Config{Scheme: webhook.SendGrid(), Keys: []webhook.Key{rsaKey, webhook.PublicKey(&p384.PublicKey)}}, []string{"Keys[0]: must be an ECDSA key on P-256", "Keys[1]: must be an ECDSA"}},
		"no point":          {webhook.Config{Scheme: webhook.SendGrid(), Keys: []webhook.Key{point(t, `{}`), point(t, `{"X":1}`)}}, []string{"Keys[0]: must be an ECDSA key on P-256", "Keys[1]: must be an ECDSA key on P-256"}},
		"off the curve":     {webhook.Config{Scheme: webhook.SendGrid(), Keys: []webhook.Key{point(t, `{"X":1,"Y":1}`), point(t, `{"X":0,"Y":0}`), point(t, `{"X":-1,"Y":1}`)}}, []string{"Keys[0]: must be an ECDSA key on P-256, and this is no point", "Keys[1]: must be an ECDSA", "Keys[2]: must be an ECDSA"}},
		"not RSA":           {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{edKey}}, []string{"Keys[0]: must be an RSA key"}},
		"weak RSA":          {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PublicKey(weak)}}, []string{"Keys[0]: must be an RSA key of 2048 to 8192 bits (got 1008)"}},
		"unknown public":    {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PublicKey("x")}}, []string{"Keys[0]: is not a public key of a known type but string"}},
		"nil private":       {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PrivateKey(nil)}}, []string{"Keys[0]: is nil"}},
		"nil RSA":           {webhook.Config{Scheme: webhook.Wise(), Keys: []webhook.Key{webhook.PrivateKey((*rsa.PrivateKey)(nil))}}, []string{"Keys[0]: is nil"}},
		"nil ECDSA":         {webhook.Config{Scheme: webhook.SendGrid(), Keys: []webhook.Key{webhook.PrivateKey((*ecdsa.PrivateKey)(nil))}}, []string{"Keys[0]: is nil"}},
		"nil Ed25519":       {webhook.Config{Scheme: webhook.Discord(), Keys: []webhook.Key{webhook.PrivateKey(ed25519.PrivateKey(nil))}}, []string{"Keys[0]: is nil"}},
		"seed":              {webhook.Config{Scheme: webhook.Discord(), Keys: []webhook.Key{webhook.PrivateKey(ed25519.PrivateKey(make([]byte, 32)))}}, []string{"Keys[0]: is no Ed25519 private key"}},
		"long token":        {config(webhook.Telegram(), strings.Repeat("k", 1025)), []string{"Keys[0]: must be a token of at most 1024 bytes"}},
		"too many":          {webhook.Config{Scheme: webhook.GitHub(), Keys: make([]webhook.Key, 17)}, []string{"Keys: must be at most 16 (got 17)"}},
		"no URL":            {webhook.Config{Scheme: webhook.Square(), Keys: good}, []string{"URL: is required"}},
		"bad URL":           {webhook.Config{Scheme: webhook.Twilio(), Keys: good, URL: "hooks.example"}, []string{"URL: must begin"}},
		"URL with user":     {webhook.Config{Scheme: webhook.Twilio(), Keys: good, URL: "https://u:p@a/b"}, []string{"URL: must have no user"}},
		"short Keep":        {webhook.Config{Scheme: webhook.Stripe(), Keys: good, Store: mem, Name: "x", Keep: 10*time.Minute - 1}, []string{"Keep: must be twice"}},
		"URL with query":    {webhook.Config{Scheme: webhook.Twilio(), Keys: good, URL: "https://a/b?c"}, []string{"URL: must have no user, query"}},
		"PayPal":            {webhook.Config{Scheme: webhook.PayPal("WH", nil), Keys: []webhook.Key{rsaKey}}, []string{"Store: is required"}},
		"PayPal ID":         {webhook.Config{Scheme: webhook.PayPal("", nil), Keys: []webhook.Key{rsaKey}}, []string{"webhookID: is required", "Store: is required"}},
		"Mailgun":           {config(webhook.Mailgun(), secret), []string{"Store: is required"}},
		"RFC 9421":          {webhook.Config{Scheme: webhook.RFC9421(webhook.RFC9421Config{Components: []string{"@path", "@status", "a b"}}), Keys: good, URL: "https://a"}, []string{"RFC9421Config.Algorithm", `"@status"`, `"a b"`}},
		"SNS with keys":     {webhook.Config{Scheme: webhook.AWSSNS(&certs{}), Keys: []webhook.Key{rsaKey}}, []string{"Keys: must be empty"}},
		"numbers":           {webhook.Config{Scheme: webhook.GitHub(), Keys: good, MaxBody: -1, Tolerance: -1}, []string{"MaxBody", "Tolerance"}},
		"no time":           {webhook.Config{Scheme: webhook.GitHub(), Keys: good, Tolerance: time.Minute}, []string{"Tolerance: the scheme signs no time"}},
		"no time, Twilio":   {webhook.Config{Scheme: webhook.Twilio(), Keys: good, URL: "https://a", Tolerance: time.Minute}, []string{"Tolerance: the scheme signs no time that it could judge (got 1m0s)"}},
		"no time, Adyen":    {webhook.Config{Scheme: webhook.Adyen(), Keys: good, Tolerance: time.Minute}, []string{"Tolerance: the scheme signs no time"}},
		"its own time":      {webhook.Config{Scheme: webhook.MessageBird(), Keys: good, URL: "https://a", Tolerance: time.Minute}, []string{"Tolerance: the scheme signs no time"}},
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
		"and 366 days":      func(s *webhook.Scheme) { *s = webhook.Stripe(); s.Tolerance = 366*24*time.Hour + 1 },
		`got "2562047h`:     func(s *webhook.Scheme) { *s = webhook.Stripe(); s.Tolerance = math.MaxInt64 },
		`got "1752000h`: func(s *webhook.Scheme) {
			*s = webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Tolerance: 200 * 365 * 24 * time.Hour})
		},
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
		"separator in":     func(s *webhook.Scheme) { s.Format = webhook.List(",", "v1,") },
		"in a name":        func(s *webhook.Scheme) { s.Format = webhook.Pairs(",", "t", "v1,") },
		"in a name or":     func(s *webhook.Scheme) { s.Format = webhook.Pairs(";", "t;", "v1") },
		"equals sign":      func(s *webhook.Scheme) { s.Format = webhook.Pairs(",", "t", "v=1") },
		"equals":           func(s *webhook.Scheme) { s.Format = webhook.Pairs("=", "t", "v1") },
		"no space before":  func(s *webhook.Scheme) { s.Format = webhook.Prefixed(" sha256=") },
		"no space":         func(s *webhook.Scheme) { s.Format = webhook.Pairs(",", "\tt", "v1") },
		"upper case":       func(s *webhook.Scheme) { s.Methods = []string{"POST", "post"} },
		"Scheme.Methods":   func(s *webhook.Scheme) { s.Methods = []string{""} },
		"name of a method": func(s *webhook.Scheme) { s.Methods = []string{"PO ST"} },
		"or TimeFormat":    func(s *webhook.Scheme) { *s = anyone(); s.Tolerance = time.Minute },
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

// The longest token that is taken is one that passes.
func TestLongestToken(t *testing.T) {
	long := strings.Repeat("k", 1024)
	for _, s := range []webhook.Scheme{webhook.Telegram(), webhook.Postmark(), webhook.PhonePe()} {
		if _, err := newVerifier(t, config(s, long)).Verify(signed(t, s, webhook.Secret(long), webhook.Outgoing{})); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// A secret of Stripe's is the text, and what follows the same prefix is base64 in
// those of Standard Webhooks; without it, either may be made in either way.
func TestSecretsWithPrefix(t *testing.T) {
	const text = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
	for name, c := range map[string]struct {
		scheme webhook.Scheme
		key    webhook.Key
		want   string // "" is taken
	}{
		"Stripe":              {webhook.Stripe(), webhook.Secret(text), ""},
		"Stripe, decoded":     {webhook.Stripe(), webhook.SecretBase64(text), "Secret, of the whole text"},
		"Stripe, other":       {webhook.Stripe(), webhook.SecretBase64(text[6:]), ""},
		"Standard":            {webhook.StandardWebhooks(), webhook.SecretBase64(text), ""},
		"Standard, not":       {webhook.StandardWebhooks(), webhook.Secret(text), "SecretBase64"},
		"Standard, bytes":     {webhook.StandardWebhooks(), webhook.Secret(secret), ""},
		"Standard, no prefix": {webhook.StandardWebhooks(), webhook.SecretBase64(text[6:]), ""},
		"another":             {webhook.GitHub(), webhook.Secret(text), ""},
		"another, decoded":    {webhook.GitHub(), webhook.SecretBase64(text), ""},
	} {
		_, err1 := webhook.New(webhook.Config{Scheme: c.scheme, Keys: []webhook.Key{c.key}})
		_, err2 := webhook.NewTransport(webhook.TransportConfig{Scheme: c.scheme, Keys: []webhook.Key{c.key}})
		err3 := webhook.Sign(c.scheme, &webhook.Outgoing{}, c.key)
		for _, err := range []error{err1, err2, err3} {
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), text[6:])) {
				t.Errorf("%s: %v", name, err)
			}
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
