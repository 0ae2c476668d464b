package webhook_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"example.com/plainware/webhook"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// bodies are those that schemes need which sign parts of them.
var bodies = map[string]string{
	"adyen":      `{"notificationItems":[{"NotificationRequestItem":{"pspReference":"a"}}]}`,
	"aws-sns-v1": `{"Type":"Notification","TopicArn":"arn","Message":"m"}`,
	"aws-sns-v2": `{"Type":"Notification","TopicArn":"arn","Message":"m"}`,
}

// What Sign signs, Verify verifies, for every preset; and one bit elsewhere in
// the body it does not, unless the scheme does not protect it.
func TestSignAndVerify(t *testing.T) {
	for name, preset := range presets {
		s := preset()
		t.Run(name, func(t *testing.T) {
			sign, verify := webhook.Secret(secret), webhook.Secret(secret)
			if s.Algorithm >= webhook.Ed25519 && s.Algorithm <= webhook.RSAPSSSHA512 {
				sign, verify = keyPair(t, s.Algorithm)
			}
			c := webhook.Config{Scheme: s, Keys: []webhook.Key{verify}, URL: "https://hooks.example"}
			if s.NeedsStore {
				c.Store, c.Name = newMemory(t), "x"
			}
			v := newVerifier(t, c)
			o := webhook.Outgoing{}
			if b := bodies[name]; b != "" {
				o.Body = []byte(b)
			}
			r := signed(t, s, sign, o)
			d, err := v.Verify(r)
			if err != nil || d.Scheme != s.Name {
				t.Fatalf("%+v, %v", d, err)
			}
			body := bytes.Clone(d.Body)
			body[len(body)-2] ^= 1
			_, err = v.Verify(with(r, string(body)))
			if unprotected := s.Algorithm >= webhook.Token; (err == nil) != unprotected {
				t.Errorf("another body: %v", err)
			}
			if _, err := v.Verify(with(r, string(d.Body))); err != nil {
				t.Errorf("the same again: %v", err)
			}
		})
	}
}

// Several keys sign side by side, where the scheme has room.
func TestSignWithTwoKeys(t *testing.T) {
	old, young := webhook.Secret(secret), webhook.Secret(secret2)
	for _, s := range []webhook.Scheme{webhook.Stripe(), webhook.StandardWebhooks(), webhook.PagerDuty(), webhook.Recurly(), webhook.Box(), webhook.Mollie()} {
		o := &webhook.Outgoing{Body: []byte(event)}
		if err := webhook.Sign(s, o, young, old); err != nil {
			t.Fatal(err)
		}
		for _, k := range []webhook.Key{old, young} {
			v := newVerifier(t, webhook.Config{Scheme: s, Keys: []webhook.Key{k}})
			if _, err := v.VerifyBytes(o.Header, o.Body); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		}
	}
}

func TestSignRefuses(t *testing.T) {
	_, public := keyPair(t, webhook.Ed25519)
	private, _ := keyPair(t, webhook.RSASHA256)
	for name, c := range map[string]struct {
		scheme webhook.Scheme
		out    webhook.Outgoing
		keys   []webhook.Key
	}{
		"no key":     {webhook.GitHub(), webhook.Outgoing{}, nil},
		"two":        {webhook.GitHub(), webhook.Outgoing{}, []webhook.Key{webhook.Secret(secret), webhook.Secret(secret2)}},
		"two, code":  {webhook.Mailgun(), webhook.Outgoing{}, []webhook.Key{webhook.Secret(secret), webhook.Secret(secret2)}},
		"public":     {webhook.Discord(), webhook.Outgoing{}, []webhook.Key{public}},
		"no URL":     {webhook.Square(), webhook.Outgoing{}, []webhook.Key{webhook.Secret(secret)}},
		"bad ID":     {webhook.Twitch(), webhook.Outgoing{ID: "a b"}, []webhook.Key{webhook.Secret(secret)}},
		"bad scheme": {webhook.Scheme{}, webhook.Outgoing{}, []webhook.Key{webhook.Secret(secret)}},
		"no Sign":    {anyone(), webhook.Outgoing{}, []webhook.Key{webhook.Secret(secret)}},
		"no JSON":    {webhook.Mailgun(), webhook.Outgoing{}, []webhook.Key{webhook.Secret(secret)}},
		"null":       {webhook.Mailgun(), webhook.Outgoing{Body: []byte("null")}, []webhook.Key{webhook.Secret(secret)}},
		"null time":  {webhook.Linear(), webhook.Outgoing{Body: []byte("null")}, []webhook.Key{webhook.Secret(secret)}},
		"no object":  {webhook.Linear(), webhook.Outgoing{Body: []byte("[]")}, []webhook.Key{webhook.Secret(secret)}},
		"no items":   {webhook.Adyen(), webhook.Outgoing{Body: []byte("{}")}, []webhook.Key{webhook.Secret(secret)}},
		"no form":    {webhook.Twilio(), webhook.Outgoing{URL: address, Body: []byte("{}")}, []webhook.Key{webhook.Secret(secret)}},
		"bad query":  {webhook.Twilio(), webhook.Outgoing{URL: address + "&x=%zz"}, []webhook.Key{webhook.Secret(secret)}},
		"not of its type": {webhook.AWSSNS(nil),
			webhook.Outgoing{Body: []byte(`{"Type":"Notification","TopicArn":"a","Message":"m","Token":"t"}`)}, []webhook.Key{private}},
		"other case": {webhook.Adyen(),
			webhook.Outgoing{Body: []byte(`{"notificationItems":[{"NotificationRequestItem":{"PspReference":"a"}}]}`)}, []webhook.Key{webhook.Secret(secret)}},
		"no such field": {webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256, Components: []string{"x-none"}}),
			webhook.Outgoing{URL: address}, []webhook.Key{webhook.Secret(secret)}},
	} {
		err := webhook.Sign(c.scheme, &c.out, c.keys...)
		if err == nil || !strings.HasPrefix(err.Error(), "webhook: ") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "bad query" && !strings.Contains(err.Error(), "Outgoing.URL") {
			t.Errorf("%s: it is not said what is wrong: %v", name, err)
		}
		if name == "no form" && !strings.Contains(err.Error(), "Outgoing.Body: must be a form") {
			t.Errorf("%s: it is not said what is wrong: %v", name, err)
		}
	}
}

// A time that is further in in the body is written where it is read.
func TestTimeFieldPath(t *testing.T) {
	for path, bodies := range map[string][]string{
		"at": {`{}`, `{"at":1}`}, "meta.at": {`{}`, `{"meta":{}}`, `{"meta":{"at":"x","b":[1]},"c":2}`}, "a.b.c": {`{"a":{"x":1}}`},
	} {
		s := webhook.Linear()
		s.TimeField = path
		for _, body := range bodies {
			o := webhook.Outgoing{Body: []byte(body)}
			if err := webhook.Sign(s, &o, webhook.Secret(secret)); err != nil {
				t.Fatal(err)
			}
			d, err := newVerifier(t, config(s, secret)).VerifyBytes(o.Header, o.Body)
			if err != nil || d.Time.IsZero() {
				t.Errorf("%s in %s, which became %s: %v", path, body, o.Body, err)
			}
			if strings.Contains(body, `"c":2`) && (!strings.Contains(string(o.Body), `"c":2`) || !strings.Contains(string(o.Body), `"b":[1]`)) {
				t.Errorf("members are gone: %s", o.Body)
			}
		}
		const odd = `{"meta":1,"a":{"b":null},"at":0}`
		o := webhook.Outgoing{Body: []byte(odd)}
		if err := webhook.Sign(s, &o, webhook.Secret(secret)); (err == nil) != (path == "at") || err != nil && string(o.Body) != odd {
			t.Errorf("%s: %v, body %q", path, err, o.Body)
		}
	}
}

func newTransport(t testing.TB, c webhook.TransportConfig) *webhook.Transport {
	t.Helper()
	tr, err := webhook.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// A client with a Transport sends what a Verifier accepts; a retry keeps its ID
// and is signed anew.
func TestTransport(t *testing.T) {
	v := newVerifier(t, config(webhook.StandardWebhooks(), secret))
	var ids []string
	ts := httptest.NewServer(v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := webhook.FromContext(r.Context())
		ids = append(ids, d.ID)
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	})))
	defer ts.Close()
	client := &http.Client{Transport: newTransport(t, webhook.TransportConfig{
		Base: ts.Client().Transport, Keys: []webhook.Key{webhook.Secret(secret2), webhook.Secret(secret)},
	})}
	for _, id := range []string{"", "msg_1", "msg_1"} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", ts.URL, iotest.HalfReader(strings.NewReader(event)))
		if err != nil {
			t.Fatal(err)
		}
		if id != "" {
			r.Header.Set("Webhook-Id", id)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || string(b) != event {
			t.Errorf("status %d, %q, %v", res.StatusCode, b, err)
		}
		if got := r.Header.Get("Webhook-Signature"); got != "" {
			t.Errorf("the caller's request has got %q", got)
		}
	}
	if len(ids) != 3 || !strings.HasPrefix(ids[0], "msg_") || ids[1] != "msg_1" || ids[2] != "msg_1" {
		t.Errorf("IDs %q", ids)
	}
	client.CloseIdleConnections()
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransportRefuses(t *testing.T) {
	tr := newTransport(t, webhook.TransportConfig{
		Keys: []webhook.Key{webhook.Secret(secret)}, MaxBody: 10,
		Base: roundTrip(func(*http.Request) (*http.Response, error) { t.Error("sent"); return nil, errors.New("sent") }),
	})
	for name, edit := range map[string]func(*http.Request){
		"too long": func(*http.Request) {},
		"broken":   func(r *http.Request) { r.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)) },
		"length":   func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("a")) },
		"bad ID":   func(r *http.Request) { with(r, "a"); r.Header.Set("Webhook-Id", "a b") },
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://x.example", strings.NewReader(event))
		if err != nil {
			t.Fatal(err)
		}
		edit(r)
		if res, err := tr.RoundTrip(r); err == nil {
			t.Errorf("%s: status %d", name, res.StatusCode)
		}
	}
	_, public := keyPair(t, webhook.Ed25519)
	for want, c := range map[string]webhook.TransportConfig{
		"Keys: is required":                     {},
		"Keys[0]: must be a secret of 24 bytes": {Keys: []webhook.Key{webhook.Secret("short")}},
		"Keys[0]: must be a PrivateKey":         {Scheme: webhook.StandardWebhooksEd25519(), Keys: []webhook.Key{public}},
		"room for one signature (got 2)":        {Scheme: webhook.GitHub(), Keys: []webhook.Key{webhook.Secret(secret), webhook.Secret(secret2)}},
		"MaxBody: must be":                      {Keys: []webhook.Key{webhook.Secret(secret)}, MaxBody: -1},
		"cannot sign":                           {Scheme: anyone(), Keys: []webhook.Key{webhook.Secret(secret)}},
		"webhookID: is required":                {Scheme: webhook.PayPal("", nil)},
	} {
		if _, err := webhook.NewTransport(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}
