package webhook_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/plainware/webhook"
)

func delivery(t testing.TB, s webhook.Scheme) (*webhook.Verifier, *webhook.Outgoing) {
	t.Helper()
	o := &webhook.Outgoing{Body: []byte(`{"data":"` + strings.Repeat("x", 2000) + `"}`)}
	if err := webhook.Sign(s, o, webhook.Secret(secret)); err != nil {
		t.Fatal(err)
	}
	return newVerifier(t, config(s, secret)), o
}

func BenchmarkVerifyBytes(b *testing.B) {
	for _, s := range []webhook.Scheme{webhook.Stripe(), webhook.Slack(), webhook.GitHub(), webhook.StandardWebhooks()} {
		b.Run(s.Name, func(b *testing.B) {
			v, o := delivery(b, s)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.VerifyBytes(o.Header, o.Body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNoSignature(b *testing.B) {
	v, _ := delivery(b, webhook.GitHub())
	r := httptest.NewRequest("POST", "/", strings.NewReader("x"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r); err == nil {
			b.Fatal("no error")
		}
	}
}

func BenchmarkHandler(b *testing.B) {
	for name, once := range map[string]bool{"verifying": false, "once": true} {
		b.Run(name, func(b *testing.B) {
			s := webhook.GitHub()
			_, o := delivery(b, s)
			c := config(s, secret)
			if once {
				// Every delivery is another one to the guard.
				n := uint64(0)
				c.Store, c.Name = newMemory(b), "bench"
				c.Key = func(*webhook.Delivery) string { n++; return string(rune(n%0x10000)) + string(rune(n>>16)) }
			}
			h := newVerifier(b, c).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			r := httptest.NewRequest("POST", "/", nil)
			r.Header = o.Header
			reader := bytes.NewReader(o.Body)
			r.Body, r.ContentLength = io.NopCloser(reader), int64(len(o.Body))
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(o.Body)
				h.ServeHTTP(w, r)
			}
		})
	}
}
