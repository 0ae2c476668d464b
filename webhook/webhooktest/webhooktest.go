// Package webhooktest makes signed deliveries, for tests of handlers that
// stand behind a [webhook.Verifier].
//
//	sign, verify := webhooktest.Keys(t, webhook.Stripe())
//	v, err := webhook.New(webhook.Config{Scheme: webhook.Stripe(), Keys: []webhook.Key{verify}})
//	…
//	r := webhooktest.Request(t, webhook.Stripe(), sign, "https://example.com/hooks", body)
//	v.Handler(myHandler).ServeHTTP(httptest.NewRecorder(), r)
//
// What a delivery says when it is too old, has a forged signature or comes
// twice is made by changing it after it was signed, or with the ID and the Time of
// [Sign]'s argument.
package webhooktest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"testing"

	"example.com/plainware/webhook"
)

// Keys returns a new key for the scheme, as the provider has it and as the
// receiver has it. With shared secrets they are the same.
func Keys(t testing.TB, s webhook.Scheme) (sign, verify webhook.Key) {
	t.Helper()
	private := func(signer crypto.Signer, err error) (sign, verify webhook.Key) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return webhook.PrivateKey(signer), webhook.PublicKey(signer.Public())
	}
	switch s.Algorithm {
	case webhook.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return private(key, err)
	case webhook.ECDSAP256SHA256, webhook.ECDSAP256SHA256Raw:
		return private(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case webhook.RSASHA256, webhook.RSASHA1Legacy, webhook.RSAPSSSHA512:
		return private(rsa.GenerateKey(rand.Reader, 2048))
	}
	secret := make([]byte, max(32, s.MinSecret))
	rand.Read(secret)
	// Of hexadecimal digits, so that it can be a token in a header, too.
	key := webhook.Secret(hex.EncodeToString(secret))
	return key, key
}

// Request returns a signed POST of body to address, as a server sees it: with
// the time of now, a new ID, and application/json as its Content-Type. For a form,
// as Twilio sends, make the request and use [Sign].
func Request(t testing.TB, s webhook.Scheme, sign webhook.Key, address string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "192.0.2.1:1234"
	r.Header.Set("Content-Type", "application/json")
	if err := Sign(r, s, sign, webhook.Outgoing{Body: body}); err != nil {
		t.Fatal(err)
	}
	return r
}

// Sign signs r with its method, address and header, and with the ID, the Time
// and the Body of o. It sets the body of r, which some schemes change. The
// other fields of o are not used.
func Sign(r *http.Request, s webhook.Scheme, sign webhook.Key, o webhook.Outgoing) error {
	address := url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Opaque: r.URL.Opaque, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if address.Path == "" && address.Opaque == "" {
		address.Path = "/" // what a client sends
	}
	if address.Host == "" {
		address.Scheme, address.Host = "https", r.Host
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	o.Method, o.URL, o.Header = r.Method, address.String(), r.Header
	if err := webhook.Sign(s, &o, sign); err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(o.Body)), int64(len(o.Body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o.Body)), nil }
	return nil
}

// Delivery returns a context with a delivery of body, for tests of a handler
// without its verifier. Its event ID is the one in body, or where the scheme
// signs one, a new ID. Where the scheme signs them, its ID is a new one and its
// time that of now; of Amazon SNS the ID is the MessageId in body, if there is
// one. Of a scheme with a Verify of its own, a TimeFormat says that there are both.
func Delivery(ctx context.Context, s webhook.Scheme, body []byte) context.Context {
	v, err := webhook.New(webhook.Config{MaxBody: max(1, int64(len(body))), Scheme: webhook.Scheme{
		Name: s.Name, EventField: s.EventField, NoKeys: true,
		Verify: func(m *webhook.Message) (webhook.Result, error) {
			res := webhook.Result{Signed: m.Body}
			// The JWT of MessageBird has both, and its own window.
			own := s.Verify != nil && (s.TimeFormat != 0 || s.Name == "messagebird")
			if s.IDHeader != "" || own {
				res.ID = "msg_" + rand.Text()
			}
			if s.TimeFormat != 0 || own {
				res.Time = m.Now()
			}
			return res, nil
		},
	}})
	var d *webhook.Delivery
	if err == nil {
		d, err = v.VerifyBytes(http.Header{}, body)
	}
	if err != nil { // a scheme without a name, or a body of more than 1 GiB
		d = &webhook.Delivery{Scheme: s.Name, Body: body}
	}
	if s.Verify != nil && s.EventField == "MessageId" { // Amazon SNS, where it is the signed ID too
		if id, ok := d.EventID(); ok {
			d.ID = id
		}
	}
	return webhook.NewContext(ctx, d)
}
