package webhook_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"example.com/plainware/webhook"
)

// webhook 16: where only some members of a body are signed, a second member
// that a parser could take for one of them is refused, as is one with another
// spelling, whether the signed one is there or not: whoever has seen a delivery
// could otherwise add what the handler reads in its place.
func TestSecondMember(t *testing.T) {
	rsa := signer(t, webhook.RSASHA256)
	sns, adyen, mailgun := webhook.AWSSNS(nil), webhook.Adyen(), webhook.Mailgun()
	for name, c := range map[string]struct {
		scheme webhook.Scheme
		sign   webhook.Key
		verify webhook.Key
		body   string
		at     string
		insert []string // each, after at
	}{
		"SNS": {
			sns, webhook.PrivateKey(rsa), webhook.PublicKey(rsa.Public()),
			`{"Type":"Notification","TopicArn":"arn","Message":"m"}`,
			"{", []string{`"Message":"x",`, `"message":"x",`, `"MESSAGE":{},`, `"Meſſage":"x",`, `"topicarn":"x",`, `"signature":"x",`,
				// Not there, or not signed in a message of this type.
				`"subject":"x",`, `"SUBJECT":null,`, `"ſubject":"x",`, `"signingCertUrl":"https://x",`,
				`"SubscribeURL":"https://x",`, `"subscribeURL":"https://x",`, `"Token":"x",`, `"toKen":"x",`},
		},
		"SNS, confirmation": {
			sns, webhook.PrivateKey(rsa), webhook.PublicKey(rsa.Public()),
			`{"Type":"SubscriptionConfirmation","TopicArn":"arn","Message":"m","Token":"t","SubscribeURL":"https://x"}`,
			"{", []string{`"Subject":"x",`, `"subject":"x",`, `"subscribeUrl":"x",`},
		},
		"Adyen": {
			adyen, webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"amount":{"value":10,"currency":"EUR"},"eventCode":"AUTHORISATION","success":"true"}}]}`,
			`"NotificationRequestItem":{`,
			[]string{`"amount":{"value":1000,"currency":"EUR"},`, `"Amount":{"value":1000,"currency":"EUR"},`, `"SUCCESS":"false",`, `"eventcode":"REFUND",`, `"additionaldata":{},`,
				`"OriginalReference":"x",`, `"MerchantReference":"x",`, `"PSPReference":"x",`, `"merchantaccountcode":"x",`},
		},
		"Adyen, amount": {
			adyen, webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"amount":{"value":10,"currency":"EUR"}}}]}`,
			`"amount":{`, []string{`"value":1000,`, `"Value":1000,`, `"curRency":"USD",`},
		},
		"Adyen, without amount and success": {
			adyen, webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"pspReference":"p"}}]}`,
			`"NotificationRequestItem":{`,
			[]string{`"Amount":{"value":1000,"currency":"EUR"},`, `"Success":"true",`, `"eventcode":"REFUND",`},
		},
		"Adyen, amount without currency": {
			adyen, webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"amount":{"value":10}}}]}`,
			`"amount":{`, []string{`"Currency":"EUR",`, `"curRency":"EUR",`},
		},
		"Adyen, items": {
			adyen, webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"eventCode":"REFUND"}}]}`,
			`{`, []string{`"NotificationItems":[],`, `"notificationItems":[],`},
		},
		"Adyen, item": {
			adyen, webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"eventCode":"REFUND"}}]}`,
			`[{`, []string{`"notificationrequestitem":{"eventCode":"CAPTURE"},`, `"NotificationRequestItem":{},`},
		},
		"Mailgun": {
			mailgun, webhook.Secret(secret), webhook.Secret(secret), `{"event-data":{}}`,
			`{`, []string{`"signature":{},`, `"Signature":{},`},
		},
		"Mailgun, signature": {
			mailgun, webhook.Secret(secret), webhook.Secret(secret), `{"event-data":{}}`,
			`"signature":{`, []string{`"token":"a",`, `"Token":"a",`, `"toKen":"a",`, `"timestamp":"1",`, `"Timestamp":"1",`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			conf := webhook.Config{Scheme: c.scheme, Keys: []webhook.Key{c.verify}}
			if c.scheme.NeedsStore {
				conf.Store, conf.Name = newMemory(t), "x"
			}
			v := newVerifier(t, conf)
			r := signed(t, c.scheme, c.sign, webhook.Outgoing{Body: []byte(c.body)})
			d, err := v.Verify(r)
			if err != nil {
				t.Fatal(err)
			}
			good := string(d.Body)
			for _, more := range c.insert {
				bad := strings.Replace(good, c.at, c.at+more, 1)
				if !json.Valid([]byte(bad)) || bad == good {
					t.Fatalf("no other message: %s", bad)
				}
				if d, err := v.Verify(with(r, bad)); err == nil {
					t.Errorf("passed: %s", d.Body)
				}
			}
			if _, err := v.Verify(with(r, strings.Replace(good, c.at, c.at+`"other":"x",`, 1))); err != nil {
				t.Errorf("a member that nothing signs: %v", err)
			}
			for _, tail := range []string{"{}", " x", ",", c.body} {
				if _, err := v.Verify(with(r, good+tail)); err == nil {
					t.Errorf("passed with %q after it", tail)
				}
			}
			if _, err := v.Verify(with(r, good)); err != nil {
				t.Errorf("the true one: %v", err)
			}
		})
	}
}

// A signed member under a name of other case is not there at all: a handler
// that looks for the true one would not find what was verified.
func TestMemberOfOtherCase(t *testing.T) {
	v := newVerifier(t, config(webhook.Adyen(), secret))
	r := signed(t, webhook.Adyen(), webhook.Secret(secret), webhook.Outgoing{
		Body: []byte(`{"notificationItems":[{"NotificationRequestItem":{"amount":{"value":10,"currency":"EUR"},"pspReference":"p"}}]}`),
	})
	d, err := v.Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"amount", "value", "pspReference", "hmacSignature", "additionalData", "NotificationRequestItem", "notificationItems"} {
		swapped := strings.ToUpper(name[:1]) + name[1:]
		if swapped == name {
			swapped = strings.ToLower(name)
		}
		bad := strings.Replace(string(d.Body), `"`+name+`"`, `"`+swapped+`"`, 1)
		refused(t, v, with(r, bad), 401)
	}
}

// An SNS message with "Subject": null has none, as Amazon's validators have it.
func TestSNSWithoutSubject(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	s := webhook.AWSSNS(nil)
	v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{webhook.PublicKey(key.Public())}})
	r := signed(t, s, webhook.PrivateKey(key), webhook.Outgoing{Body: []byte(`{"Type":"Notification","TopicArn":"arn","Message":"m"}`)})
	d, err := v.Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	body := string(d.Body)
	for subject, ok := range map[string]bool{"null": true, `""`: false, `"s"`: false} {
		_, err := v.Verify(with(r, strings.Replace(body, "{", `{"Subject":`+subject+",", 1)))
		if (err == nil) != ok {
			t.Errorf("%s: %v", subject, err)
		}
	}
}

// A member that is signed like an empty text, and is none, is no member of an
// SNS message.
func TestSNSMembersAreTexts(t *testing.T) {
	key := signer(t, webhook.RSASHA256)
	s := webhook.AWSSNS(nil)
	v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{webhook.PublicKey(key.Public())}})
	r := signed(t, s, webhook.PrivateKey(key), webhook.Outgoing{Body: []byte(`{"Type":"Notification","TopicArn":"arn","Message":"","Subject":""}`)})
	d, err := v.Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	body := string(d.Body)
	for _, name := range []string{"Message", "Subject"} {
		for _, value := range []string{`{"a":1}`, "1", "true", "[]", "null"} {
			bad := strings.Replace(body, `"`+name+`":""`, `"`+name+`":`+value, 1)
			if _, err := v.Verify(with(r, bad)); err == nil || bad == body {
				t.Errorf("passed: %s", bad)
			}
		}
	}
}

// Where the body follows the URL in what is signed, the beginning of a JSON
// object cannot be moved into the query.
func TestBodyIsNotMovedToURL(t *testing.T) {
	for _, s := range []webhook.Scheme{webhook.Square(), webhook.HubSpot(), webhook.HubSpotV2()} {
		v := newVerifier(t, config(s, secret))
		r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte(`{"a":{"b":1}}`)})
		if _, err := v.Verify(r); err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{2, 5, 6} {
			r := with(r.Clone(t.Context()), `{"a":{"b":1}}`[cut:])
			r.RequestURI = r.URL.RequestURI() + `{"a":{"b":1}}`[:cut]
			refused(t, v, r, 401)
		}
	}
	v := newVerifier(t, config(webhook.Square(), secret))
	for _, c := range []string{" ", "\"", "<", ">", "\x7f", "ä", "\t"} {
		r := signed(t, webhook.Square(), webhook.Secret(secret), webhook.Outgoing{})
		r.RequestURI = r.URL.RequestURI() + c
		refused(t, v, r, 401)
	}
	r := signed(t, webhook.Square(), webhook.Secret(secret), webhook.Outgoing{URL: "https://hooks.example/a-._~!$&'()*+,;=:@%20/[]?q={x}|^`"})
	if _, err := v.Verify(r); err != nil {
		t.Errorf("what a client may leave as it is: %v", err)
	}
}

// The end of the query cannot be moved into the body of a request that has no
// body.
func TestQueryIsNotMovedToBody(t *testing.T) {
	swapped := webhook.HubSpotV2() // with the URL after the body
	swapped.Name, swapped.Signed = "swapped", "{body}{url}{method}"
	for _, c := range []struct {
		scheme    webhook.Scheme
		method    string
		signedFor string
		url, body string
	}{
		{webhook.HubSpot(), "GET", "/card?userId=12&portalId=62515&readOnly=true", "/card?userId=12&portalId=625", "15&readOnly=true"},
		{webhook.HubSpotV2(), "GET", "/card?userId=12&portalId=62515", "/card?userId=12&portalId=625", "15"},
		{webhook.HubSpotV2(), "DELETE", "/card?portalId=62515", "/card?portalId=625", "15"},
		{webhook.Twilio(), "GET", "/call?From=12&To=34", "/call?From=12&To=", "34="},
		{swapped, "GET", "/in?next=https://hooks.example/out", "/out", "https://hooks.example/in?next="},
	} {
		v := newVerifier(t, config(c.scheme, secret))
		o := webhook.Outgoing{Method: c.method, URL: "https://hooks.example" + c.signedFor}
		if err := webhook.Sign(c.scheme, &o, webhook.Secret(secret)); err != nil {
			t.Fatal(err)
		}
		request := func(url, body string) *http.Request {
			r := httptest.NewRequest(c.method, url, strings.NewReader(body))
			r.Header = o.Header.Clone()
			if body != "" {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			return r
		}
		if _, err := v.Verify(request(c.signedFor, "")); err != nil {
			t.Errorf("%s: %v", c.scheme.Name, err)
		}
		r := request(c.url, c.body)
		refused(t, v, r, 401)
		r = request(c.url, c.body)
		r.ContentLength = -1 // in chunks
		refused(t, v, r, 401)
	}
	o := webhook.Outgoing{Method: "DELETE", URL: address, Body: []byte("{}")}
	if err := webhook.Sign(webhook.HubSpot(), &o, webhook.Secret(secret)); err == nil {
		t.Error("signed what is refused")
	}
	o = webhook.Outgoing{Method: "PUT", URL: address, Body: []byte("{}")}
	if err := webhook.Sign(webhook.HubSpot(), &o, webhook.Secret(secret)); err != nil {
		t.Error(err)
	}
}

// The end of the query cannot be moved into a body that is JSON, nor the bracket
// with which it begins into the query.
func TestBodiesThatAreJSON(t *testing.T) {
	for _, s := range []webhook.Scheme{webhook.Square(), webhook.HubSpot(), webhook.HubSpotV2()} {
		v := newVerifier(t, config(s, secret))
		for _, c := range []struct {
			signedFor, body string // of the provider
			url, moved      string // of whoever has seen it, "" is the same
		}{
			{"/in?tenant=12", `{"a":1}`, "/in?tenant=1", `2{"a":1}`},
			{"/in?tenant=12", `{"a":1}`, "/in", `?tenant=12{"a":1}`},
			{"/in?tenant=12", `[{"a":1}]`, "/in?tenant=", `12[{"a":1}]`},
			{"/in?tenant=12", ``, "/in?tenant=1", `2`},
			{"/in?tenant=12", `{"a":1}`, "/in?tenant=12{", `"a":1}`},
			{"/in?tenant=12", `[{"a":1},{"b":2}]`, "/in?tenant=12[", `{"a":1},{"b":2}]`},
			{"/in?tenant=12", `{"a":1}`, "/in?tenant=12{", `"a":1}`},
			{"/in", "{}", "", ""},
			{"/in", "[]", "", ""},
			{"/in", "\r\n { \"a\":1}\n", "", ""},
		} {
			o := webhook.Outgoing{URL: "https://hooks.example" + c.signedFor, Body: []byte(c.body)}
			if err := webhook.Sign(s, &o, webhook.Secret(secret)); err != nil {
				t.Fatal(err)
			}
			request := func(url, body string) *http.Request {
				r := httptest.NewRequest("POST", url, strings.NewReader(body))
				r.Header = o.Header.Clone()
				return r
			}
			if _, err := v.Verify(request(c.signedFor, c.body)); err != nil {
				t.Errorf("%s: %s: %v", s.Name, c.body, err)
			}
			if c.url != "" {
				refused(t, v, request(c.url, c.moved), 401)
			}
		}
		for _, body := range []string{"a=1", `"text"`, "1", "{", "}", "[}", " "} {
			o := webhook.Outgoing{URL: address, Body: []byte(body)}
			if err := webhook.Sign(s, &o, webhook.Secret(secret)); err == nil || !strings.Contains(err.Error(), "a JSON object or an array") {
				t.Errorf("%s: signed %q, which is refused: %v", s.Name, body, err)
			}
		}
	}
	// A scheme of one's own says nothing of its bodies.
	s := webhook.Scheme{Name: "own", Algorithm: webhook.HMACSHA256, Header: "X-Sig", Encoding: webhook.Hex, Signed: "{url}{body}"}
	if _, err := newVerifier(t, config(s, secret)).Verify(signed(t, s, webhook.Secret(secret), webhook.Outgoing{Body: []byte("a=1")})); err != nil {
		t.Error(err)
	}
}

// An object that is read before anything is known of its sender has few members.
func TestManyNames(t *testing.T) {
	more := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"x%d":1,`, i)
		}
		return b.String()
	}
	rsa := signer(t, webhook.RSASHA256)
	for name, c := range map[string]struct {
		scheme       webhook.Scheme
		sign, verify webhook.Key
		body, at     string
		there        int // members
	}{
		"SNS": {webhook.AWSSNS(nil), webhook.PrivateKey(rsa), webhook.PublicKey(rsa.Public()),
			`{"Type":"Notification","TopicArn":"arn","Message":"m"}`, "{", 7},
		"Adyen": {webhook.Adyen(), webhook.Secret(secret), webhook.Secret(secret),
			`{"notificationItems":[{"NotificationRequestItem":{"pspReference":"a"}}]}`, `"additionalData":{`, 1},
		"Mailgun": {webhook.Mailgun(), webhook.Secret(secret), webhook.Secret(secret), `{"event-data":{}}`, "{", 2},
	} {
		conf := webhook.Config{Scheme: c.scheme, Keys: []webhook.Key{c.verify}}
		if c.scheme.NeedsStore {
			conf.Store, conf.Name = newMemory(t), "x"
		}
		v := newVerifier(t, conf)
		r := signed(t, c.scheme, c.sign, webhook.Outgoing{Body: []byte(c.body)})
		d, err := v.Verify(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n, ok := range map[int]bool{256: true, 257: false} {
			body := strings.Replace(string(d.Body), c.at, c.at+more(n-c.there), 1)
			if _, err := v.Verify(with(r, body)); (err == nil) != ok || body == string(d.Body) {
				t.Errorf("%s: %d members: %v", name, n, err)
			}
		}
	}
	o := webhook.Outgoing{Body: []byte(strings.Replace(`{"Type":"Notification","TopicArn":"arn","Message":"m"}`, "{", "{"+more(254), 1))}
	if err := webhook.Sign(webhook.AWSSNS(nil), &o, webhook.PrivateKey(rsa)); err == nil || !strings.Contains(err.Error(), "at most 256 members") {
		t.Errorf("signed: %v", err)
	}
}

// A HEAD has no body either, for schemes that take it.
func TestHeadHasNoBody(t *testing.T) {
	s := webhook.HubSpotV2()
	s.Methods = []string{"HEAD", "POST"}
	v := newVerifier(t, config(s, secret))
	r := signed(t, s, webhook.Secret(secret), webhook.Outgoing{Method: "HEAD", URL: address + "{}", Body: []byte{}})
	if _, err := v.Verify(r); err != nil {
		t.Fatal(err)
	}
	r = with(r, "{}")
	r.URL.RawQuery = strings.TrimSuffix(r.URL.RawQuery, "{}")
	refused(t, v, r, 401)
}

// Folding says of two names what strings.EqualFold says.
func TestFold(t *testing.T) {
	for r := range unicode.MaxRune {
		if !utf8.ValidRune(r) {
			continue
		}
		s := string(r)
		if other := string(unicode.SimpleFold(r)); webhook.Fold(s) != webhook.Fold(other) {
			t.Fatalf("%q and %q", s, other)
		}
		if f := webhook.Fold(s); !strings.EqualFold(f, s) {
			t.Fatalf("%q becomes %q", s, f)
		}
	}
}

// A Verify without an Algorithm has nothing to match, and no panic.
func TestMatchWithoutAlgorithm(t *testing.T) {
	var got error
	s := webhook.Scheme{Name: "x", Verify: func(m *webhook.Message) (webhook.Result, error) {
		_, got = m.Match([]byte("a"), []byte("b"))
		return webhook.Result{}, got
	}}
	v := newVerifier(t, config(s, secret))
	if _, err := v.VerifyBytes(http.Header{}, nil); err != webhook.ErrMismatch || got != webhook.ErrMismatch {
		t.Errorf("%v, %v", err, got)
	}
}

// webhook 31: a field with very many members is not parsed: each is compared
// with all before it.
func TestManyMembers(t *testing.T) {
	field := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "a%d,", i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	if keys, ok := webhook.ParseDictionary(field(64)); !ok || len(keys) != 64 {
		t.Errorf("64: %d, %v", len(keys), ok)
	}
	if _, ok := webhook.ParseDictionary(field(65)); ok {
		t.Error("65 passed")
	}
}

// webhook 13: base64 with a line end in it, which decoders skip, is not in its
// canonical form.
func TestBase64LineEnds(t *testing.T) {
	sig := base64Of(make([]byte, 32))
	for _, s := range []webhook.Scheme{webhook.Shopify(), webhook.Sanity(), webhook.Wise(), webhook.Postmark()} {
		line := func(sig string) http.Header {
			if s.Encoding == webhook.Base64URL {
				return http.Header{s.Header: {"t=1700000000000,v1=" + strings.TrimRight(sig, "=")}}
			}
			if s.Name == "postmark" {
				sig = "Basic " + sig
			}
			return http.Header{http.CanonicalHeaderKey(s.Header): {sig}}
		}
		if sigs, _, _, err := webhook.Parse(s, line(sig)); err != nil || len(sigs) != 1 {
			t.Errorf("%s: %d, %v", s.Name, len(sigs), err)
		}
		for _, end := range []string{"\n", "\r", "\r\n"} {
			for _, at := range []int{0, 4, 7, len(sig) - 1} {
				if _, _, _, err := webhook.Parse(s, line(sig[:at]+end+sig[at:])); err == nil {
					t.Errorf("%s: %q at %d", s.Name, end, at)
				}
			}
		}
	}
}
