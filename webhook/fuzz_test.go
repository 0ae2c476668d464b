package webhook_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/plainware/webhook"
)

// FuzzHeader parses the fields of a signature in every format. What passes has
// only signatures of the right length, few of them, and a time that is one.
func FuzzHeader(f *testing.F) {
	schemes := []webhook.Scheme{
		webhook.GitHub(), webhook.Gitea(), webhook.Shopify(), webhook.Stripe(), webhook.Paddle(), webhook.StandardWebhooks(),
		webhook.StandardWebhooksEd25519(), webhook.PagerDuty(), webhook.Recurly(), webhook.Sanity(), webhook.Box(),
		webhook.Wise(), webhook.SendGrid(), webhook.GitLabToken(), webhook.Postmark(), webhook.PhonePe(), webhook.Paystack(),
		webhook.Mollie(),
	}
	names := map[string]int{}
	for i, s := range schemes {
		names[s.Header] = i
	}
	for _, v := range readVectors(f).Vectors {
		for name, lines := range v.Headers {
			if i, ok := names[http.CanonicalHeaderKey(name)]; ok && len(lines) > 0 {
				f.Add(i, lines[0], "1700000000", "id")
			}
		}
	}
	f.Fuzz(func(t *testing.T, i int, line, at, id string) {
		s := schemes[uint(i)%uint(len(schemes))]
		h := http.Header{}
		h.Set(s.Header, line)
		for name, value := range map[string]string{s.TimeHeader: at, s.IDHeader: id} {
			if name != "" {
				h.Set(name, value)
			}
		}
		for name, value := range s.Require {
			h.Set(name, value)
		}
		sigs, gotID, gotTime, err := webhook.Parse(s, h)
		if err != nil {
			if err != webhook.ErrMalformed && err != webhook.ErrNoSignature {
				t.Errorf("error %v", err)
			}
			return
		}
		if len(sigs) == 0 || len(sigs) > 16 {
			t.Errorf("%d signatures", len(sigs))
		}
		for _, sig := range sigs {
			// Every signature stands in the line, in the one form of its bytes.
			text := map[webhook.Encoding]string{
				webhook.Hex: hexOf(sig), webhook.Base64: base64Of(sig), webhook.Text: string(sig),
				webhook.Base64URL: strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(base64Of(sig)), "="),
			}[s.Encoding]
			if !strings.Contains(line, text) && !(s.Encoding == webhook.Hex && strings.Contains(strings.ToLower(line), text)) {
				t.Errorf("signature %x is not in %q", sig, line)
			}
		}
		if s.IDHeader != "" && gotID != id || s.TimeHeader != "" && gotTime != at {
			t.Errorf("ID %q, time %q", gotID, gotTime)
		}
	})
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

// FuzzTime: what is read as a time is written in one way only.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"1700000000", "0", "01", "+1", "9999999999999999", "2023-11-14T22:13:20Z", "2020-01-01T00:00:00-07:00", "2023-11-14T22:13:20,5Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, format := range []webhook.TimeFormat{webhook.UnixSeconds, webhook.UnixMillis} {
			at, err := webhook.ParseTime(s, format)
			if err != nil {
				continue
			}
			back := at.Unix()
			if format == webhook.UnixMillis {
				back = at.UnixMilli()
			}
			if got, _ := json.Marshal(back); string(got) != s {
				t.Errorf("%q is %v", s, at)
			}
		}
		if at, err := webhook.ParseTime(s, webhook.RFC3339); err == nil {
			if got, err := time.Parse(time.RFC3339Nano, s); err != nil || !got.Equal(at) || strings.ContainsAny(s, ", ") {
				t.Errorf("%q is %v", s, at)
			}
		}
	})
}

// FuzzDictionary: structured fields that are parsed have members with
// different names.
func FuzzDictionary(f *testing.F) {
	for _, v := range readVectors(f).Vectors {
		for _, name := range []string{"Signature-Input", "Signature", "Content-Digest"} {
			if lines := v.Headers[name]; len(lines) > 0 {
				f.Add(lines[0])
			}
		}
	}
	f.Add(`a=("x";sf "y");n=?1;t=tok/en;i=-5, b=:AAAA:;q="\"\\", c;d=1`)
	f.Fuzz(func(t *testing.T, s string) {
		keys, ok := webhook.ParseDictionary(s)
		if !ok {
			return
		}
		if len(keys) == 0 {
			t.Error("an empty dictionary")
		}
		slices.Sort(keys)
		if len(slices.Compact(keys)) != len(keys) {
			t.Errorf("repeated keys in %q", s)
		}
	})
}

// FuzzBody gives bodies to the schemes that read one before it is verified.
// Nothing that was not signed passes, and nothing panics.
func FuzzBody(f *testing.F) {
	schemes := []webhook.Scheme{webhook.Mailgun(), webhook.Adyen(), webhook.AWSSNS(&certs{err: errors.New("none")}), webhook.Twilio(), webhook.MessageBird(),
		webhook.RFC9421(webhook.RFC9421Config{Algorithm: webhook.HMACSHA256})}
	var verifiers []*webhook.Verifier
	for _, s := range schemes {
		c := config(s, secret)
		if s.NoKeys {
			c.Keys = nil
		}
		if s.NeedsStore {
			c.Store, c.Name = newMemory(f), "fuzz"
		}
		verifiers = append(verifiers, newVerifier(f, c))
	}
	for _, v := range readVectors(f).Vectors {
		for i, name := range []string{"mailgun", "adyen", "aws-sns-v2", "twilio", "messagebird"} {
			if v.Scheme == name {
				f.Add(i, v.Body, v.Headers.Get(schemes[i].Header))
			}
		}
	}
	f.Fuzz(func(t *testing.T, i int, body, line string) {
		n := uint(i) % uint(len(schemes))
		h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Signature-Input": {`sig1=("@method" "@target-uri" "content-digest");created=1`}}
		if name := schemes[n].Header; name != "" {
			h.Set(name, line)
		}
		if d, err := verifiers[n].VerifyBytes(h, []byte(body)); err == nil {
			t.Errorf("%+v", d)
		}
	})
}

// FuzzCertAddress: an address that passes is of the provider, for whoever reads it.
func FuzzCertAddress(f *testing.F) {
	f.Add("https://sns.us-east-1.amazonaws.com/a.pem")
	f.Add("https://sns.us-east-1.amazonaws.com@evil.example/")
	f.Add("https://sns.us-east-1.amazonaws.com:443/")
	f.Fuzz(func(t *testing.T, s string) {
		if !webhook.SNSAddress(s) {
			return
		}
		rest, ok := strings.CutPrefix(s, "https://sns.")
		host := rest
		if i := strings.IndexAny(rest, "/?#\\@:"); i >= 0 {
			host = rest[:i]
			if strings.ContainsAny(rest[i:i+1], "@:\\#") {
				t.Errorf("%q", s)
			}
		}
		if !ok || !strings.HasSuffix(host, ".amazonaws.com") && !strings.HasSuffix(host, ".amazonaws.com.cn") {
			t.Errorf("%q", s)
		}
	})
}
