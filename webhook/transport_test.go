package webhook_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/webhook"
)

// sent returns the request that a Transport sends for r.
func sent(t *testing.T, c webhook.TransportConfig, r *http.Request) *http.Request {
	t.Helper()
	var out *http.Request
	c.Base = roundTrip(func(r *http.Request) (*http.Response, error) {
		out = r
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	})
	if _, err := newTransport(t, c).RoundTrip(r); err != nil {
		t.Fatal(err)
	}
	return out
}

// What is signed of the URL and the method is what the receiver gets to see:
// the host of the Host field, no user and no fragment, a slash where there is no
// path, and GET where the request has no method.
func TestTransportSignsWhatIsSent(t *testing.T) {
	square, rfc := webhook.Square(), webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256,
		Components: []string{"@method", "@authority", "@target-uri"}})
	hubSpot := webhook.HubSpotV2() // which signs the method
	for name, c := range map[string]struct {
		scheme webhook.Scheme
		url    string
		edit   func(*http.Request)
	}{
		"plain":             {square, "https://hooks.example/in?a=b", nil},
		"no path":           {square, "https://hooks.example", nil},
		"no path, query":    {rfc, "https://hooks.example?a=b", nil},
		"user and fragment": {rfc, "https://user:pass@hooks.example/in#part", nil},
		"Host":              {rfc, "https://10.0.0.1/in", func(r *http.Request) { r.Host = "hooks.example" }},
		"no method": {hubSpot, "https://hooks.example/in", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "", http.NoBody, 0 // a GET of HubSpot's has no body
		}},
		"no method, rfc": {rfc, "https://hooks.example/in", func(r *http.Request) { r.Method = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "POST", c.url, strings.NewReader(event))
			if err != nil {
				t.Fatal(err)
			}
			if c.edit != nil {
				c.edit(r)
			}
			out := sent(t, webhook.TransportConfig{Scheme: c.scheme, Keys: []webhook.Key{webhook.Secret(secret)}}, r)
			if out.Method != r.Method || out.URL.String() != r.URL.String() || out.Host != r.Host {
				t.Errorf("sent %q %s to %s", out.Method, out.URL, out.Host)
			}

			// As the server would have it.
			method := out.Method
			if method == "" {
				method = http.MethodGet
			}
			in := httptest.NewRequest(method, out.URL.RequestURI(), out.Body)
			in.Header = out.Header
			conf := config(c.scheme, secret)
			if _, err := newVerifier(t, conf).Verify(in); err != nil {
				t.Error(err)
			}
		})
	}
}

// A second signature of an earlier attempt does not stay beside a new one.
func TestTransportReplacesSecondSignature(t *testing.T) {
	o := &webhook.Outgoing{Body: []byte(event)}
	if err := webhook.Sign(webhook.Box(), o, webhook.Secret(secret), webhook.Secret(secret2)); err != nil {
		t.Fatal(err)
	}
	if err := webhook.Sign(webhook.Box(), o, webhook.Secret(secret)); err != nil {
		t.Fatal(err)
	}
	if got := o.Header["Box-Signature-Secondary"]; got != nil {
		t.Errorf("left over: %q", got)
	}
}

// How many keys a scheme has room for is told when the Transport is made.
func TestTransportRoom(t *testing.T) {
	keys := func(n int) (all []webhook.Key) {
		for range n {
			all = append(all, webhook.Secret(secret))
		}
		return all
	}
	for _, c := range []struct {
		scheme webhook.Scheme
		room   int
	}{{webhook.GitHub(), 1}, {webhook.Mailgun(), 1}, {webhook.Box(), 2}, {webhook.Stripe(), 16}, {webhook.StandardWebhooks(), 16}} {
		if _, err := webhook.NewTransport(webhook.TransportConfig{Scheme: c.scheme, Keys: keys(c.room)}); err != nil {
			t.Errorf("%s: %v", c.scheme.Name, err)
		}
		_, err := webhook.NewTransport(webhook.TransportConfig{Scheme: c.scheme, Keys: keys(c.room + 1)})
		if err == nil || !strings.Contains(err.Error(), "has room for") {
			t.Errorf("%s: %v", c.scheme.Name, err)
		}
	}
}

// A scheme without a name is a mistake, and not another scheme.
func TestTransportOwnScheme(t *testing.T) {
	s := webhook.GitHub()
	s.Name = ""
	_, err := webhook.NewTransport(webhook.TransportConfig{Scheme: s, Keys: []webhook.Key{webhook.Secret(secret)}})
	if err == nil || !strings.Contains(err.Error(), "Scheme.Name") {
		t.Error(err)
	}
}

// webhook 28: printing a Transport or a Verifier, or what has one in it, shows
// nothing of its keys.
func TestNothingPrints(t *testing.T) {
	tr := newTransport(t, webhook.TransportConfig{Keys: []webhook.Key{webhook.Secret(secret)}})
	ver := newVerifier(t, config(webhook.GitHub(), secret))
	for _, v := range []any{tr, *tr, struct{ t *webhook.Transport }{tr}, ver, struct{ v *webhook.Verifier }{ver}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			text := fmt.Sprintf(format, v)
			for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), "48 49 50", "0x30, 0x31", "30 31 32"} {
				if strings.Contains(text, form) {
					t.Errorf("%s of %T: %s", format, v, text)
				}
			}
		}
	}
}

// A body that does not come does not hold a request whose context has ended.
func TestTransportBlockedBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, webhook.TransportConfig{
			Keys: []webhook.Key{webhook.Secret(secret)},
			Base: roundTrip(func(*http.Request) (*http.Response, error) { t.Error("sent"); return nil, errors.New("sent") }),
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		body, w := io.Pipe()
		defer w.Close() // or the old code would hang
		r, err := http.NewRequestWithContext(ctx, "POST", address, body)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		time.AfterFunc(time.Minute, func() { w.CloseWithError(errors.New("late")) })
		_, err = tr.RoundTrip(r)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// oddSigner is a key elsewhere that answers with other numbers than it should.
type oddSigner struct {
	crypto.Signer
	r, s *big.Int
}

func (o oddSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return asn1.Marshal(struct{ R, S *big.Int }{o.r, o.s})
}

// A signer of the caller's that returns no signature is an error and no panic.
func TestSignerReturnsNoSignature(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.ECDSAP256SHA256Raw})
	large, one := new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)
	for _, rs := range [][2]*big.Int{{large, one}, {one, large}, {new(big.Int), one}, {one, big.NewInt(-1)}} {
		o := &webhook.Outgoing{URL: address, Body: []byte(event)}
		err := webhook.Sign(s, o, webhook.PrivateKey(oddSigner{key, rs[0], rs[1]}))
		if err == nil || !strings.Contains(err.Error(), "no ECDSA signature") {
			t.Errorf("%v: %v", rs, err)
		}
	}
}
