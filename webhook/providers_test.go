package webhook_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
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
	// Two parsers would not take the same of two.
	two := form(t, base+"/a", "a=1", nil)
	two.Header.Add("Content-Type", "application/json")
	if err := verify(base, two); err == nil {
		t.Error("two Content-Types passed")
	}
	for _, query := range []string{"?bodySHA256=SUM&bodySHA256=0", "?bodySHA256=SUM&bodySHA256=SUM", "?bodySHA256=0&bodySHA256=SUM"} {
		address := base + "/a" + strings.ReplaceAll(query, "SUM", hex.EncodeToString(sum[:]))
		mac := hmac.New(sha1.New, []byte(secret))
		mac.Write([]byte(address))
		r := httptest.NewRequest("POST", address, strings.NewReader(text))
		r.Header = header()
		r.Header.Set("X-Twilio-Signature", base64Of(mac.Sum(nil)))
		if err := verify(base, r); err == nil {
			t.Errorf("%s passed", query)
		}
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

// webhook 15: what a client does not send in a target is in no address. A "#" ends
// the query for whoever parses the address, and not for the server, so that what
// comes after it would reach the handler unsigned.
func TestFragment(t *testing.T) {
	rfc := func(components ...string) webhook.Scheme {
		return webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Components: components})
	}
	for _, s := range []webhook.Scheme{
		rfc("@method", "@path", "@query", "content-digest"), rfc("@method", "@request-target", "content-digest"), rfc(),
		webhook.Twilio(), webhook.Square(), webhook.HubSpot(), webhook.HubSpotV2(), webhook.MessageBird(),
	} {
		for _, conf := range []string{"https://hooks.example", "https://hooks.example/pay"} {
			c := config(s, secret)
			c.URL = conf
			v := newVerifier(t, c)
			var admin string
			mux := http.NewServeMux()
			mux.Handle("POST /", v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admin = r.URL.Query().Get("admin") })))
			for target, status := range map[string]int{
				"/pay?to=bob": 200, "/pay?to=bob#&admin=1": 401, "/pay?to=bob#": 401, "/pay#?to=bob": 401, "/pay#&admin=1?to=bob": 401,
				// In absolute form, and what would become part of the host.
				"http://h/pay?to=bob": 200, "http://h/pay?to=bob#&admin=1": 401, "http:.evil.example/pay?to=bob": 401, "http:@evil.example/pay?to=bob": 401,
			} {
				o := webhook.Outgoing{URL: "https://hooks.example/pay?to=bob", Body: []byte("{}")}
				if s.Name == "twilio" {
					o.Body, o.Header = []byte("a=1"), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
				}
				if err := webhook.Sign(s, &o, webhook.Secret(secret)); err != nil {
					t.Fatal(err)
				}
				var raw bytes.Buffer
				fmt.Fprintf(&raw, "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n", target, len(o.Body))
				o.Header.Write(&raw)
				fmt.Fprintf(&raw, "\r\n%s", o.Body)
				r, err := http.ReadRequest(bufio.NewReader(&raw)) // as a server does
				if err != nil {
					t.Fatal(err)
				}
				w := httptest.NewRecorder()
				if strings.HasPrefix(r.URL.Path, "/") {
					mux.ServeHTTP(w, r)
				} else { // which no mux would pass on
					v.Handler(mux).ServeHTTP(w, r)
				}
				if w.Code != status || admin != "" {
					t.Errorf("%s, URL %s, %s: status %d, admin %q", s.Name, conf, target, w.Code, admin)
				}
			}
		}
	}
}

// webhook 15: a URL that ends with the slash after the host has no path, and is
// the whole address for bytes.
func TestURLWithSlash(t *testing.T) {
	for _, s := range []webhook.Scheme{webhook.Square(), webhook.HubSpot(), webhook.MessageBird()} {
		for _, at := range []string{"", "/"} {
			c := config(s, secret)
			c.URL = "https://hooks.example" + at
			v := newVerifier(t, c)
			for _, address := range []string{"https://hooks.example/in", "https://hooks.example/in?a=1", "https://hooks.example/", "https://hooks.example/?a=1"} {
				if _, err := v.Verify(signed(t, s, webhook.Secret(secret), webhook.Outgoing{URL: address})); err != nil {
					t.Errorf("%s, %s: %v", c.URL, address, err)
				}
			}
			o := webhook.Outgoing{URL: c.URL, Body: []byte("{}")}
			if err := webhook.Sign(s, &o, webhook.Secret(secret)); err != nil {
				t.Fatal(err)
			}
			if _, err := v.VerifyBytes(o.Header, o.Body); err != nil {
				t.Errorf("%s as bytes: %v", c.URL, err)
			}
		}
	}
}

// webhook 18: the token of Mailgun, which is all of a delivery that is signed, is
// there and not long: a store has one value for all without.
func TestMailgunToken(t *testing.T) {
	c := config(webhook.Mailgun(), secret)
	c.Store, c.Name = newMemory(t), "x"
	v := newVerifier(t, c)
	for n, want := range map[int]error{0: webhook.ErrMalformed, 1: nil, 50: nil, 256: nil, 257: webhook.ErrMalformed} {
		stamp, token := fmt.Sprint(time.Now().Unix()), strings.Repeat("t", n)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(stamp + token))
		body, err := json.Marshal(map[string]any{"event-data": map[string]any{}, "signature": map[string]string{
			"timestamp": stamp, "token": token, "signature": hex.EncodeToString(mac.Sum(nil)),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.VerifyBytes(http.Header{}, body); err != want {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// What a JWT of MessageBird's must say, and when.
func TestMessageBird(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	sixth := strings.Repeat("0", 63)
	v := newVerifier(t, config(webhook.MessageBird(), secret))
	for name, c := range map[string]struct {
		head   string // "" is the true one
		claims map[string]any
		off    time.Duration
		want   error
		body   string // "" is the true one, "none" is none
	}{
		"body taken away":    {body: "none", want: webhook.ErrMismatch},
		"another body":       {body: "{}", want: webhook.ErrMismatch},
		"neither":            {body: "none", claims: map[string]any{"payload_hash": nil}},
		"hash of nothing":    {body: "none", claims: map[string]any{"payload_hash": hash("")}},
		"body added":         {claims: map[string]any{"payload_hash": hash("")}, want: webhook.ErrMismatch},
		"all right":          {},
		"last second":        {off: time.Minute - 1},
		"expired":            {off: time.Minute, want: webhook.ErrTooOld},
		"a clock behind":     {off: -time.Second},
		"not before":         {off: -time.Second - 1, want: webhook.ErrTooNew},
		"no expiry":          {claims: map[string]any{"exp": nil}, want: webhook.ErrMalformed},
		"no start":           {claims: map[string]any{"nbf": nil}},
		"other issuer":       {claims: map[string]any{"iss": "messagebird"}, want: webhook.ErrMalformed},
		"no issuer":          {claims: map[string]any{"iss": nil}, want: webhook.ErrMalformed},
		"other URL":          {claims: map[string]any{"url_hash": sixth + "0"}, want: webhook.ErrMismatch},
		"no URL":             {claims: map[string]any{"url_hash": nil}, want: webhook.ErrMismatch},
		"other body":         {claims: map[string]any{"payload_hash": sixth + "0"}, want: webhook.ErrMismatch},
		"no body":            {claims: map[string]any{"payload_hash": nil}, want: webhook.ErrMismatch},
		"claims of no kind":  {claims: map[string]any{"exp": "soon"}, want: webhook.ErrMalformed},
		"critical extension": {head: `{"alg":"HS256","crit":["b64"]}`, want: webhook.ErrMalformed},
		"no extension":       {head: `{"alg":"HS256","crit":[]}`, want: webhook.ErrMalformed},
		"none":               {head: `{"alg":"none"}`, want: webhook.ErrMalformed},
		"HS512":              {head: `{"alg":"HS512"}`, want: webhook.ErrMalformed},
		"no algorithm":       {head: `{}`, want: webhook.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			claims := map[string]any{
				"iss": "MessageBird", "nbf": at.Unix(), "exp": at.Unix() + 60, "jti": "id", "url_hash": hash(address), "payload_hash": hash(event),
			}
			maps.Copy(claims, c.claims)
			text, err := json.Marshal(claims)
			if err != nil {
				t.Fatal(err)
			}
			if c.head == "" {
				c.head = `{"alg":"HS256","typ":"JWT"}`
			}
			token := base64.RawURLEncoding.EncodeToString([]byte(c.head)) + "." + base64.RawURLEncoding.EncodeToString(text)
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(token))
			body := map[string]string{"": event, "none": ""}[c.body] + strings.TrimPrefix(c.body, "none")
			r := httptest.NewRequest("POST", address, strings.NewReader(body))
			r.Header.Set("MessageBird-Signature-JWT", token+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
			v.SetClock(func() time.Time { return at.Add(c.off) })
			if _, err := v.Verify(r); err != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// The fields of what PayPal signs cannot be moved: "|" is between them, and in
// no ID.
func TestPayPalID(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	s := webhook.PayPal("WH-1", nil)
	v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{webhook.PublicKey(key.Public())}, Store: newMemory(t), Name: "pp"})
	for id, ok := range map[string]bool{"a-b": true, "a|b": false, "|": false} {
		if _, err := v.Verify(signed(t, s, webhook.PrivateKey(key), webhook.Outgoing{ID: id})); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
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

// webhook 16: items that were captured make no other delivery by being there
// twice, in another order or in another list of the same.
// webhook 19: nor does the replay guard let them through.
func TestAdyenReplay(t *testing.T) {
	s := webhook.Adyen()
	c := config(s, secret)
	c.Store, c.Name = newMemory(t), "adyen"
	v := newVerifier(t, c)
	items := func(refs ...string) []string {
		var all []string
		for _, ref := range refs {
			all = append(all, `{"NotificationRequestItem":{"pspReference":"`+ref+`"}}`)
		}
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(`{"notificationItems":[` + strings.Join(all, ",") + `]}`)})
		d, err := v.Verify(r)
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			NotificationItems []json.RawMessage `json:"notificationItems"`
		}
		if err := json.Unmarshal(d.Body, &m); err != nil {
			t.Fatal(err)
		}
		all = all[:0]
		for _, item := range m.NotificationItems {
			all = append(all, string(item))
		}
		return all
	}
	send := func(status int, want bool, items ...string) {
		t.Helper()
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{"notificationItems":[`+strings.Join(items, ",")+`]}`))
		if res, _, ran := serve(t, v, r); res.StatusCode != status || ran != want {
			t.Errorf("%d items: status %d, handler ran: %v", len(items), res.StatusCode, ran)
		}
	}
	one := items("p")[0]
	send(200, true, one)
	send(200, false, one)
	for n := 2; n <= 64; n++ {
		send(401, false, slices.Repeat([]string{one}, n)...)
	}
	other := strings.Replace(one, "{", `{"unsigned":1,`, 1)
	send(401, false, one, strings.Replace(one, `":{"`, `":{"unsigned":1,"`, 1))
	send(200, false, other)

	batch := items("a", "b", "c")
	send(200, true, batch...)
	for _, order := range [][3]int{{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		send(200, false, batch[order[0]], batch[order[1]], batch[order[2]])
	}
	send(401, false, batch[0], batch[1], batch[0])

	// No more than 64, whoever has signed them.
	var refs []string
	for i := range 65 {
		refs = append(refs, fmt.Sprint(i))
	}
	most := items(refs[:64]...)
	send(200, true, most...)
	send(401, false, append(most, one)...)
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
		"HTTPS://sns.us-east-1.amazonaws.com/a.pem":                       false,
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
		"https://sns.us-east-1.amazonaws.com/a.pem?.pem":                  false,
		"https://sns.us-east-1.amazonaws.com//a.pem":                      false,
		"https://sns.us-east-1.amazonaws.com/x//a.pem":                    false,
		"https://sns.us-east-1.amazonaws.com/x/../a.pem":                  false,
		"https://sns.us-east-1.amazonaws.com/./a.pem":                     false,
		"https://sns.us-east-1.amazonaws.com/.pem":                        false,
		"https://sns.us-east-1.amazonaws.com/%61.pem":                     false,
		"https://sns.us-east-1.amazonaws.com/a;b.pem":                     false,
		"https://sns.us-east-1.amazonaws.com.pem":                         false,
		"https://sns.us-east-1.amazonaws.com/Simple_Service-0aF.pem":      true,
		"https://sns.us-east-1.amazonaws.com/" + strings.Repeat("a", 512): false,
		"": false,
	} {
		if got := webhook.SNSAddress(address); got != ok {
			t.Errorf("%s: %v", address, got)
		}
	}
	for address, ok := range map[string]bool{
		"https://api.paypal.com/v1/certs/a": true, "https://api.sandbox.paypal.com/a": true,
		"https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77": true,
		"https://paypal.com/a": false, "https://api.paypal.com.x/a": false,
		"https://api.paypal.com/a?n=1": false, "https://api.paypal.com/a?": false, "https://api.paypal.com/a#": false, "https://api.paypal.com/a/": false,
		"https://api.paypal.com//a": false, "https://api.paypal.com/b/../a": false, "https://api.paypal.com/%61": false, "https://api.paypal.com/": false,
		"https://api.paypal.com": false, "https://api.paypal.com/a b": false, "https://api.paypal.com/a@b": false, "https://api.paypal.com/a/-": false,
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
	if res, _, ran := serve(t, v, request(good)); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || ran {
		t.Errorf("status %d, header %v, handler ran: %v", res.StatusCode, res.Header, ran)
	}
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
	// The same with a signature of the key over what is wrong.
	for name, c := range map[string]struct {
		components string // "" is all that are required
		params     string // with NOW for the time
		digest     string // "" is the true one
		tag        string
		ok         bool
		required   []string // nil is @method, @path and content-digest
	}{
		"all right":                   {"", `created=NOW`, "", "", true, nil},
		"all parameters":              {"", `created=NOW;expires=9999999999;keyid="k";nonce="n";tag="t";alg="hmac-sha256"`, "", "t", true, nil},
		"one component more":          {`"content-digest" "@path" "@method" "@query"`, `created=NOW`, "", "", true, nil},
		"missing component":           {`"@method" "content-digest"`, `created=NOW`, "", "", false, nil},
		"uncovered digest":            {`"@method" "@path"`, `created=NOW`, "", "", false, nil},
		"digest, not required":        {`"@method" "content-digest"`, `created=NOW`, "", "", true, []string{"@method"}},
		"uncovered, not required":     {`"@method" "@path"`, `created=NOW`, "", "", false, []string{"@method"}},
		"repeated component":          {`"@method" "@path" "content-digest" "@path"`, `created=NOW`, "", "", false, nil},
		"component with parameter":    {`"@method" "@path";req "content-digest"`, `created=NOW`, "", "", false, nil},
		"one more, with parameter":    {`"@method" "@path" "content-digest" "content-type";bs`, `created=NOW`, "", "", false, nil},
		"component that is no string": {`"@method" "@path" "content-digest" content-type`, `created=NOW`, "", "", false, nil},
		"no parameters":               {"", "", "", "", false, nil},
		"missing created":             {"", `keyid="k"`, "", "", false, nil},
		"created is a string":         {"", `created="NOW"`, "", "", false, nil},
		"created is negative":         {"", `created=-NOW`, "", "", false, nil},
		"created in the future":       {"", `created=9999999999`, "", "", false, nil},
		"expired":                     {"", `created=NOW;expires=1`, "", "", false, nil},
		"expires now":                 {"", `created=NOW;expires=NOW`, "", "", false, nil},
		"expires is a string":         {"", `created=NOW;expires="9999999999"`, "", "", false, nil},
		"alg mismatch":                {"", `created=NOW;alg="ed25519"`, "", "", false, nil},
		"alg in capitals":             {"", `created=NOW;alg="HMAC-SHA256"`, "", "", false, nil},
		"alg is no string":            {"", `created=NOW;alg=hmac-sha256`, "", "", false, nil},
		"repeated parameter":          {"", `created=NOW;keyid="a";keyid="b"`, "", "", false, nil},
		"repeated created":            {"", `created=1;created=NOW`, "", "", false, nil},
		"unknown parameter":           {"", `created=NOW;new="x"`, "", "", false, nil},
		"tag":                         {"", `created=NOW;tag="mine"`, "", "mine", true, nil},
		"wrong tag":                   {"", `created=NOW;tag="other"`, "", "mine", false, nil},
		"no tag":                      {"", `created=NOW`, "", "mine", false, nil},
		"unknown digest":              {"", `created=NOW`, "md5=:AAAA:", "", false, nil},
		"wrong digest":                {"", `created=NOW`, "sha-256=:AAAA:", "", false, nil},
		"one digest of two wrong":     {"", `created=NOW`, "sha-256=:TRUE:, sha-512=:AAAA:", "", false, nil},
		"digest that is no list":      {"", `created=NOW`, "sha-256=:TRUE:,", "", false, nil},
		"digests in two lines":        {"", `created=NOW`, "sha-256=:TRUE:\nsha-512=:AAAA:", "", false, nil},
		"two lines of one digest":     {"", `created=NOW`, "sha-256=:TRUE:\nsha-256=:TRUE:", "", false, nil},
		"expires in a second":         {"", `created=NOW;expires=SOON`, "", "", true, nil},
		"64 components":               {rfcComponents(64), `created=NOW`, "", "", true, nil},
		"65 components":               {rfcComponents(65), `created=NOW`, "", "", false, nil},
	} {
		t.Run("signed: "+name, func(t *testing.T) {
			v := newVerifier(t, config(other(func(p *webhook.RFC9421Config) {
				p.Tag = c.tag
				if c.required != nil {
					p.Components = c.required
				}
			}), secret))
			now := time.Unix(1_700_000_000, 0)
			v.SetClock(func() time.Time { return now })
			r := httptest.NewRequest("POST", "https://hooks.example/in?a=1", strings.NewReader(event))
			sum := sha256.Sum256([]byte(event))
			if c.digest == "" {
				c.digest = "sha-256=:TRUE:"
			}
			r.Header["Content-Digest"] = strings.Split(strings.ReplaceAll(c.digest, "TRUE", base64Of(sum[:])), "\n")
			r.Header.Set("Content-Type", "application/json")
			if c.components == "" {
				c.components = `"@method" "@path" "content-digest"`
			}
			params := "(" + c.components + ")"
			if c.params != "" {
				params += ";" + strings.NewReplacer("NOW", fmt.Sprint(now.Unix()), "SOON", fmt.Sprint(now.Unix()+1)).Replace(c.params)
			}
			// RFC 9421 section 2.5, with each component as whoever has signed it
			// takes it: for what it is without its parameters, too.
			value := map[string]string{
				"@method": "POST", "@path": "/in", "@query": "?a=1", "content-type": "application/json",
				"content-digest": strings.Join(r.Header["Content-Digest"], ", "),
			}
			for i := range 65 {
				name := fmt.Sprint("x-", i)
				value[name] = "v"
				r.Header.Set(name, "v")
			}
			var base string
			for name := range strings.FieldsSeq(c.components) {
				bare, _, _ := strings.Cut(name, ";")
				bare = strings.Trim(bare, `"`)
				base += `"` + bare + `": ` + value[bare] + "\n"
			}
			base += `"@signature-params": ` + params
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(base))
			r.Header.Set("Signature-Input", "sig1="+params)
			r.Header.Set("Signature", "sig1=:"+base64Of(mac.Sum(nil))+":")
			if _, err := v.Verify(r); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("old", func(t *testing.T) {
		refused(t, v, signed(t, s, key, webhook.Outgoing{Time: time.Now().Add(-6 * time.Minute)}), 401)
	})
	t.Run("line ends", func(t *testing.T) {
		// In a field that is covered, which no server passes on.
		p := profile
		p.Components = []string{"@method", "x-a"}
		s := webhook.RFC9421(p)
		v := newVerifier(t, config(s, secret))
		for text, ok := range map[string]bool{"1": true, "1\n2": false, "1\r2": false, "1\r\n\"x-b\": 2": false} {
			o := webhook.Outgoing{URL: "https://hooks.example", Header: http.Header{"X-A": {text}}}
			if err := webhook.Sign(s, &o, key); (err == nil) != ok {
				t.Errorf("%q: %v", text, err)
			}
			if !ok { // signed by somebody who does not look
				now := fmt.Sprint(time.Now().Unix())
				params := `("@method" "x-a");created=` + now
				mac := hmac.New(sha256.New, []byte(secret))
				mac.Write([]byte("\"@method\": POST\n\"x-a\": " + text + "\n\"@signature-params\": " + params))
				o.Header.Set("Signature-Input", "sig1="+params)
				o.Header.Set("Signature", "sig1=:"+base64Of(mac.Sum(nil))+":")
			}
			if _, err := v.VerifyBytes(o.Header, nil); (err == nil) != ok || !ok && err != webhook.ErrMalformed {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
	t.Run("signature of another size", func(t *testing.T) {
		// It is not tried: of public keys that costs time.
		for _, a := range []webhook.Algorithm{webhook.HMACSHA256, webhook.Ed25519, webhook.ECDSAP256SHA256Raw, webhook.RSAPSSSHA512} {
			s := webhook.RFC9421(webhook.RFC9421Config{Algorithm: a})
			sign, verify := webhook.Secret(secret), webhook.Secret(secret)
			size := map[webhook.Algorithm]int{webhook.HMACSHA256: 32, webhook.RSAPSSSHA512: 1024}[a]
			if a != webhook.HMACSHA256 {
				sign, verify = keyPair(t, a)
			}
			if size == 0 {
				size = 64
			}
			v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{verify}, URL: "https://hooks.example"})
			for n, want := range map[int]error{size: webhook.ErrMismatch, size + 1: webhook.ErrMalformed} {
				r := signed(t, s, sign, webhook.Outgoing{})
				r.Header.Set("Signature", "sig1=:"+base64Of(make([]byte, n))+":")
				if _, err := v.Verify(r); err != want {
					t.Errorf("algorithm %d, %d bytes: %v, want %v", a, n, err, want)
				}
			}
		}
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

// webhook 31: the authority is without the port of its scheme, and with another
// (RFC 9421 section 2.2.3).
func TestRFC9421Authority(t *testing.T) {
	s := webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Components: []string{"@authority"}})
	for address, want := range map[string]string{
		"https://Hooks.Example": "hooks.example", "https://hooks.example:443": "hooks.example", "https://hooks.example:80": "hooks.example:80",
		"http://hooks.example:80": "hooks.example", "http://hooks.example:443": "hooks.example:443", "https://[2001:db8::443]": "[2001:db8::443]",
	} {
		c := config(s, secret)
		c.URL = address
		params := fmt.Sprintf(`("@authority");created=%d`, time.Now().Unix())
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte("\"@authority\": " + want + "\n\"@signature-params\": " + params))
		h := http.Header{"Signature-Input": {"sig1=" + params}, "Signature": {"sig1=:" + base64Of(mac.Sum(nil)) + ":"}}
		if _, err := newVerifier(t, c).VerifyBytes(h, nil); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// rfcComponents are n components, of which the first are those that TestRFC9421
// requires.
func rfcComponents(n int) string {
	all := `"@method" "@path" "content-digest"`
	for i := range n - 3 {
		all += fmt.Sprintf(` "x-%d"`, i)
	}
	return all
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
