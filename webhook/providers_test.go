package webhook_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/plainware/webhook"
)

// form is a request to Twilio's kind of endpoint, signed for an address.
func form(t testing.TB, signedFor, body string, header http.Header) *http.Request {
	t.Helper()
	if header == nil {
		header = http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=UTF-8"}}
	}
	return signed(t, webhook.Twilio(), webhook.Secret(secret), webhook.Outgoing{URL: signedFor, Body: []byte(body), Header: header})
}

// webhook 14: fields that are there twice, ports, IPv6, and bodies that are no
// forms.
func TestTwilio(t *testing.T) {
	verify := func(config string, r *http.Request) error {
		t.Helper()
		v := newVerifier(t, webhook.Config{Scheme: webhook.Twilio(), Keys: []webhook.Key{webhook.Secret(secret)}, URL: config})
		_, err := v.Verify(r)
		return err
	}
	const base = "https://hooks.example"
	for _, c := range []struct {
		config, signedFor string
		ok                bool
	}{
		{base, base + "/a?b=1", true},
		{base, base + ":443/a?b=1", true},
		{base + ":443", base + "/a?b=1", true},
		{base + ":8443", base + ":8443/a?b=1", true},
		{base + ":8443", base + "/a?b=1", true},
		{base, base + ":8443/a?b=1", false},
		{"http://hooks.example", "http://hooks.example:80/a?b=1", true},
		{"http://hooks.example", base + "/a?b=1", false},
		{"https://[2001:db8::1]", "https://[2001:db8::1]/a?b=1", true},
		{"https://[2001:db8::1]", "https://[2001:db8::1]:443/a?b=1", true},
		{"https://[2001:db8::1]:8443", "https://[2001:db8::1]/a?b=1", true},
		{base + "/a", base + "/a?b=1", true},
		{base + "/other", base + "/other?b=1", true}, // behind a proxy that changes the path
		{base + "/other", base + "/a?b=1", false},
		{base, base + "/a?b=2", false},
	} {
		r := form(t, c.signedFor, "From=%2B1&Body=hi", nil)
		r.URL, _ = url.Parse("/a?b=1")
		r.RequestURI = "/a?b=1"
		if err := verify(c.config, r); (err == nil) != c.ok {
			t.Errorf("URL %s, signed for %s: %v", c.config, c.signedFor, err)
		}
	}
	for name, c := range map[string]struct {
		signed, sent string
		ok           bool
	}{
		"in another order":     {"b=2&a=1", "a=1&b=2", true},
		"repeated and signed":  {"a=2&a=1&a=1", "a=1&a=2", true},
		"repeated, unsigned":   {"a=1", "a=1&a=2", false},
		"other value":          {"a=1", "a=2", false},
		"not a form":           {"a=1", "a=%zz", false},
		"semicolon":            {"a=1", "a=1;b=2", false},
		"value in name":        {"ab=c", "a=bc", true}, // what the scheme does not tell apart
		"empty, where it is":   {"a=", "a=", true},
		"a field that is gone": {"a=1&b=2", "a=1", false},
	} {
		r := with(form(t, base+"/a", c.signed, nil), c.sent)
		if err := verify(base, r); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}

	text := `{"a":1}`
	sum := sha256.Sum256([]byte(text))
	header := func() http.Header { return http.Header{"Content-Type": {"application/json"}} }
	good := base + "/a?bodySHA256=" + hex.EncodeToString(sum[:])
	if err := verify(base, form(t, good, text, header())); err != nil {
		t.Error(err)
	}
	if err := verify(base, with(form(t, good, text, header()), `{"a":2}`)); err == nil {
		t.Error("another JSON body passed")
	}
	// Without bodySHA256 nothing signs the body.
	r := with(form(t, base+"/a", "", header()), text)
	if err := verify(base, r); err == nil {
		t.Error("JSON without bodySHA256 passed")
	}
	r = form(t, base+"/a", "", http.Header{})
	r.Method, r.Body, r.ContentLength = "GET", http.NoBody, 0
	if err := verify(base, r); err != nil {
		t.Errorf("GET: %v", err)
	}
}

// webhook 15: the address is the configured one, whatever the request says.
func TestURLNotFromRequest(t *testing.T) {
	for _, s := range []webhook.Scheme{webhook.Twilio(), webhook.Square(), webhook.HubSpot(), webhook.HubSpotV2(), webhook.MessageBird(),
		webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256})} {
		v := newVerifier(t, config(s, secret))
		lie := func(r *http.Request) *http.Request {
			r.Host, r.URL.Host = "evil.example", "evil.example"
			for _, name := range []string{"Host", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "Forwarded"} {
				r.Header.Set(name, "evil.example")
			}
			return r
		}
		if _, err := v.Verify(lie(signed(t, s, webhook.Secret(secret), webhook.Outgoing{}))); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		refused(t, v, lie(signed(t, s, webhook.Secret(secret), webhook.Outgoing{URL: "https://evil.example/in?tenant=7"})), 401)
	}
}

func TestHubSpotURL(t *testing.T) {
	for in, want := range map[string]string{
		"/a": "/a",
		"/%3a%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B": "/::/?@!$'()*,;",
		"/%20%25%26%3D%2B%22%":                     "/%20%25%26%3D%2B%22%",
		"/%253A%3":                                 "/%253A%3",
		"/%zz%3":                                   "/%zz%3",
	} {
		if got := webhook.HubSpotURL(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// webhook 16: of a batch every item has to be right.
func TestAdyenBatch(t *testing.T) {
	item := func(ref string) string {
		return `{"NotificationRequestItem":{"pspReference":"` + ref + `","amount":{"value":10,"currency":"EUR"},"success":"true"}}`
	}
	batch := `{"notificationItems":[` + item("a") + `,` + item("b") + `]}`
	v := newVerifier(t, config(webhook.Adyen(), secret))
	r := signed(t, webhook.Adyen(), webhook.Secret(secret), webhook.Outgoing{Body: []byte(batch)})
	d, err := v.Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	good := string(d.Body)
	for name, body := range map[string]string{
		"forged":   strings.Replace(good, `"pspReference":"b"`, `"pspReference":"c"`, 1),
		"unsigned": strings.Replace(good, `"hmacSignature"`, `"other"`, 1),
		"one more": strings.Replace(good, `[`, `[`+item("x")+`,`, 1),
		"null":     strings.Replace(good, `[`, `[null,`, 1),
		"none":     `{"notificationItems":[]}`,
		"too many": `{"notificationItems":[` + strings.Repeat(item("a")+",", 64) + item("a") + `]}`,
		"no JSON":  `{`,
	} {
		t.Run(name, func(t *testing.T) { refused(t, v, with(r, body), 401) })
	}
}

// webhook 17: addresses of certificates.
func TestCertAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://sns.us-east-1.amazonaws.com/a.pem":                       true,
		"https://sns.cn-north-1.amazonaws.com.cn/a.pem":                   true,
		"http://sns.us-east-1.amazonaws.com/a.pem":                        false,
		"https://sns.us-east-1.amazonaws.com.attacker.example/a.pem":      false,
		"https://sns.us-east-1.amazonaws.com@attacker.example/a.pem":      false,
		"https://sns.us-east-1.amazonaws.com:8443/a.pem":                  false,
		"https://sns.us-east-1.amazonaws.com:443/a.pem":                   false,
		"https://attacker.example/sns.us-east-1.amazonaws.com":            false,
		"https://sns.a.b.amazonaws.com/a.pem":                             false,
		"https://sns..amazonaws.com/a.pem":                                false,
		"https://xsns.us-east-1.amazonaws.com/a.pem":                      false,
		"https://attacker.example\\@sns.us-east-1.amazonaws.com/a":        false,
		"https://sns.us-east-1.amazonaws.com/a.pem#x":                     false,
		"https://sns.us-east-1.amazonaws.com%2eattacker.example/":         false,
		"//sns.us-east-1.amazonaws.com/a.pem":                             false,
		"https:sns.us-east-1.amazonaws.com/a.pem":                         false,
		" https://sns.us-east-1.amazonaws.com/a.pem":                      false,
		"https://SNS.us-east-1.amazonaws.com/a.pem":                       false,
		"https://sns.us-gov-west-1.amazonaws.com/a.pem":                   true,
		"https://sns.mx-central-1.amazonaws.com/a.pem":                    true,
		"https://sns.s3.amazonaws.com/a.pem":                              false, // buckets with the name sns
		"https://sns.s3-us-west-2.amazonaws.com/a.pem":                    false,
		"https://sns.s3-website-us-west-2.amazonaws.com/a.pem":            false,
		"https://sns.us-east-.amazonaws.com/a.pem":                        false,
		"https://sns.us-east-1.amazonaws.com.cn.cn/a.pem":                 false,
		"https://sns.us-east-1.amazonaws.com/":                            false,
		"https://sns.us-east-1.amazonaws.com/?a.pem":                      false,
		"https://sns.us-east-1.amazonaws.com/a.pem?x=.pem":                false,
		"https://sns.us-east-1.amazonaws.com/" + strings.Repeat("a", 512): false,
		"": false,
	} {
		if got := webhook.SNSAddress(address); got != ok {
			t.Errorf("%s: %v", address, got)
		}
	}
	for address, ok := range map[string]bool{
		"https://api.paypal.com/v1/certs/a": true, "https://api.sandbox.paypal.com/a": true,
		"https://paypal.com/a": false, "https://api.paypal.com.x/a": false,
	} {
		if got := webhook.PayPalAddress(address); got != ok {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// The certificate of PayPal comes from its source, for which its address is
// checked first; a source that fails is a reason to try again.
func TestPayPalCerts(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	source := &certs{}
	s := webhook.PayPal("WH-1", source)
	v := newVerifier(t, webhook.Config{Scheme: s, Store: newMemory(t), Name: "pp"})
	request := func(address string) *http.Request {
		r := signed(t, s, webhook.PrivateKey(key), webhook.Outgoing{})
		r.Header.Set("Paypal-Cert-Url", address)
		return r
	}
	refused(t, v, request("https://evil.example/cert"), 401)
	if len(source.asked) != 0 {
		t.Fatalf("asked for %q", source.asked)
	}
	const good = "https://api.paypal.com/v1/cert"
	source.err = errors.New("no route")
	refused(t, v, request(good), 503)
	source.err, source.keys = nil, append(source.keys, signer(t, webhook.Ed25519).Public())
	refused(t, v, request(good), 401)
	source.keys = append(source.keys, key.Public())
	if res, _, ran := serve(t, v, request(good)); res.StatusCode != 200 || !ran {
		t.Errorf("status %d", res.StatusCode)
	}
}

// webhook 31: HTTP Message Signatures that lack something.
func TestRFC9421(t *testing.T) {
	profile := webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Components: []string{"@method", "@path", "content-digest"}}
	s := webhook.RFC9421(profile)
	key := webhook.Secret(secret)
	v := newVerifier(t, config(s, secret))
	other := func(edit func(*webhook.RFC9421Config)) webhook.Scheme {
		p := profile
		edit(&p)
		return webhook.RFC9421(p)
	}
	input := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), old, new, 1))
		}
	}
	if _, err := v.Verify(signed(t, s, key, webhook.Outgoing{})); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		scheme webhook.Scheme
		edit   func(*http.Request)
	}{
		"missing component": {other(func(p *webhook.RFC9421Config) { p.Components = []string{"@method", "content-digest"} }), nil},
		"uncovered digest": {other(func(p *webhook.RFC9421Config) {
			p.Components, p.InsecureUnsignedBody = []string{"@method", "@path"}, true
		}), nil},
		"other body":               {s, func(r *http.Request) { with(r, "other") }},
		"unknown digest":           {s, func(r *http.Request) { r.Header.Set("Content-Digest", "md5=:AAAA:") }},
		"two digests":              {s, func(r *http.Request) { r.Header.Add("Content-Digest", "sha-256=:AAAA:") }},
		"repeated component":       {s, input(`("@method"`, `("@method" "@method"`)},
		"unknown component":        {s, input(`("@method"`, `("@status" "@method"`)},
		"upper case":               {s, input(`("@method"`, `("Host" "@method"`)},
		"component with parameter": {s, input(`"@path"`, `"@path";req`)},
		"alg mismatch":             {s, input("hmac-sha256", "ed25519")},
		"alg is no string":         {s, input(`"hmac-sha256"`, "hmac-sha256")},
		"missing created": {s, func(r *http.Request) {
			h := r.Header.Get("Signature-Input")
			r.Header.Set("Signature-Input", h[:strings.Index(h, ";")])
		}},
		"unknown parameter":  {s, input(";nonce", ";new")},
		"repeated parameter": {s, input(";nonce", ";created=1;nonce")},
		"expired":            {s, input(";nonce", ";expires=1;nonce")},
		"other label": {s, func(r *http.Request) {
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), "sig1", "sig2", 1))
		}},
		"two labels":       {s, func(r *http.Request) { r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+", b=()") }},
		"same label twice": {s, func(r *http.Request) { h := r.Header.Get("Signature-Input"); r.Header.Set("Signature-Input", h+","+h) }},
		"no input":         {s, func(r *http.Request) { r.Header.Del("Signature-Input") }},
		"two inputs":       {s, func(r *http.Request) { r.Header.Add("Signature-Input", "x=()") }},
		"not a list":       {s, func(r *http.Request) { r.Header.Set("Signature-Input", "sig1=1") }},
		"not bytes":        {s, func(r *http.Request) { r.Header.Set("Signature", "sig1=1") }},
		"short":            {s, func(r *http.Request) { r.Header.Set("Signature", "sig1=:AAAA:") }},
		"no tag":           {s, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := v
			if name == "no tag" {
				v = newVerifier(t, config(other(func(p *webhook.RFC9421Config) { p.Tag = "mine" }), secret))
			}
			r := signed(t, c.scheme, key, webhook.Outgoing{})
			if c.edit != nil {
				c.edit(r)
			}
			refused(t, v, r, 401)
		})
	}
	t.Run("old", func(t *testing.T) {
		refused(t, v, signed(t, s, key, webhook.Outgoing{Time: time.Now().Add(-6 * time.Minute)}), 401)
	})
	t.Run("DER instead of r and s", func(t *testing.T) {
		ecKey := signer(t, webhook.ECDSAP256SHA256)
		raw := webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.ECDSAP256SHA256Raw})
		v := newVerifier(t, webhook.Config{Scheme: raw, Keys: []webhook.Key{webhook.PublicKey(ecKey.Public())}, URL: "https://hooks.example"})
		if _, err := v.Verify(signed(t, raw, webhook.PrivateKey(ecKey), webhook.Outgoing{})); err != nil {
			t.Fatal(err)
		}
		r := signed(t, raw, webhook.PrivateKey(ecKey), webhook.Outgoing{})
		r.Header.Set("Signature", "sig1=:MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=:")
		refused(t, v, r, 401)
	})
	t.Run("tag and label", func(t *testing.T) {
		p := profile
		p.Tag, p.Label = "mine", "b"
		s := webhook.RFC9421(p)
		r := signed(t, s, key, webhook.Outgoing{ID: "nonce-1"})
		r.Header.Set("Signature-Input", r.Header.Get("Signature-Input")+`, a=("x";sf);n=?1;t=tok/en;i=-5`)
		d, err := newVerifier(t, config(s, secret)).Verify(r)
		if err != nil || d.ID != "nonce-1" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// A CertFetcher believes what its roots have issued for one of the names, asks
// once, and follows no redirect.
func TestCertFetcher(t *testing.T) {
	calls := 0
	var body []byte
	status := 200
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		w.Write(body)
	}))
	defer ts.Close()
	leaf := ts.Certificate()
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	good := pemOf(leaf.Raw)
	fetch := func(names []string, path string) error {
		t.Helper()
		f, err := webhook.NewCertFetcher(webhook.CertFetcherConfig{Client: ts.Client(), Roots: roots, Names: names})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			pub, err2 := f.PublicKey(t.Context(), ts.URL+path)
			if err == nil && err2 == nil && pub == nil {
				t.Error("no key")
			}
			err = err2
		}
		return err
	}
	for name, c := range map[string]struct {
		body   []byte
		status int
		names  []string
		ok     bool
	}{
		"good":       {good, 200, []string{"other.example", "example.com"}, true},
		"chain":      {append(bytes.Clone(good), good...), 200, []string{"example.com"}, true},
		"other name": {good, 200, []string{"sns.amazonaws.com"}, false},
		"redirect":   {good, 302, []string{"example.com"}, false},
		"404":        {good, 404, []string{"example.com"}, false},
		"nothing":    {nil, 200, []string{"example.com"}, false},
		"no DER":     {pemOf([]byte("x")), 200, []string{"example.com"}, false},
		"too large":  {append(bytes.Repeat([]byte(" "), 64<<10), good...), 200, []string{"example.com"}, false},
	} {
		body, status, calls = c.body, c.status, 0
		if err := fetch(c.names, "/"); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if calls != 1 {
			t.Errorf("%s: %d calls", name, calls)
		}
	}
	roots = x509.NewCertPool()
	body, status = good, 200
	if err := fetch([]string{"example.com"}, "/"); err == nil {
		t.Error("a certificate of an unknown authority was believed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := webhook.NewCertFetcher(webhook.CertFetcherConfig{Client: ts.Client(), Roots: roots, Names: []string{"example.com"}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 { // room for some only, and no panic
		f.PublicKey(ctx, ts.URL+fmt.Sprint("/", i))
	}
	_, err = webhook.NewCertFetcher(webhook.CertFetcherConfig{Keep: -1, Timeout: -1})
	for _, field := range []string{"Client", "Names", "Keep", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), "webhook: "+field+": ") {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

func pemOf(der []byte) []byte {
	var b bytes.Buffer
	b.WriteString("-----BEGIN CERTIFICATE-----\n")
	text := base64Of(der)
	for len(text) > 64 {
		b.WriteString(text[:64] + "\n")
		text = text[64:]
	}
	b.WriteString(text + "\n-----END CERTIFICATE-----\n")
	return b.Bytes()
}

// SNS messages of every type, and with a repeated member that another parser
// would read.
func TestSNS(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	s := webhook.AWSSNS(nil)
	v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{webhook.PublicKey(key.Public())}})
	const notification = `{"Type":"Notification","TopicArn":"arn","Message":"m"}`
	const confirm = `{"Type":"SubscriptionConfirmation","TopicArn":"arn","Message":"m","Token":"t","SubscribeURL":"https://x"}`
	for _, body := range []string{notification, confirm, strings.Replace(notification, "{", `{"Subject":"s",`, 1)} {
		r := signed(t, s, webhook.PrivateKey(key), webhook.Outgoing{Body: []byte(body)})
		d, err := v.Verify(r)
		if err != nil || d.ID == "" || d.Time.IsZero() {
			t.Fatalf("%s: %+v, %v", body, d, err)
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(d.Body, &m); err != nil {
			t.Fatal(err)
		}
		for field := range m {
			if field == "SubscribeURL" || field == "Token" || field == "Message" || field == "Type" || field == "SignatureVersion" {
				changed := strings.Replace(string(d.Body), `"`+field+`":"`, `"`+field+`":"x`, 1)
				refused(t, v, with(r, changed), 401)
			}
		}
		refused(t, v, with(r, strings.Replace(string(d.Body), "{", `{"message":"x",`, 1)+" x"), 401)
	}
	refused(t, v, with(httptest.NewRequest("POST", "/", nil), notification), 401)
	refused(t, v, with(httptest.NewRequest("POST", "/", nil), "[]"), 401)
}
