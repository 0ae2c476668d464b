//go:build !race

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

// Not with the race detector, under which a sync.Pool forgets at random.

// Beside the body, a delivery costs itself and GetBody, the handler's request
// included; a request without a signature costs nothing, and neither does a
// delivery from VerifyBytes that is not kept.
func TestAllocs(t *testing.T) {
	for _, s := range []webhook.Scheme{webhook.Stripe(), webhook.GitHub(), webhook.StandardWebhooks()} {
		v, o := delivery(t, s)
		bytesOnly := testing.AllocsPerRun(200, func() {
			if _, err := v.VerifyBytes(o.Header, o.Body); err != nil {
				t.Fatal(err)
			}
		})
		r := httptest.NewRequest("POST", "/", nil)
		r.Header = o.Header
		reader := bytes.NewReader(o.Body)
		body := io.NopCloser(reader)
		whole := testing.AllocsPerRun(200, func() {
			reader.Reset(o.Body)
			r.Body, r.ContentLength = body, int64(len(o.Body))
			if _, err := v.Verify(r); err != nil {
				t.Fatal(err)
			}
		})
		h := v.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		w := httptest.NewRecorder()
		handled := testing.AllocsPerRun(200, func() {
			reader.Reset(o.Body)
			r.Body, r.ContentLength = body, int64(len(o.Body))
			h.ServeHTTP(w, r)
		})
		var kept *webhook.Delivery
		keeping := testing.AllocsPerRun(200, func() { kept, _ = v.VerifyBytes(o.Header, o.Body) })
		if kept == nil || keeping > 1 {
			t.Errorf("%s: VerifyBytes %v allocations for a delivery that is kept (%v)", s.Name, keeping, kept)
		}
		if bytesOnly > 0 || whole > 3 || handled > 3 { // the body, the delivery with its reader, and GetBody
			t.Errorf("%s: VerifyBytes %v, Verify %v, Handler %v allocations", s.Name, bytesOnly, whole, handled)
		}
		bare := httptest.NewRequest("POST", "/", strings.NewReader("x"))
		if n := testing.AllocsPerRun(200, func() { v.Verify(bare) }); n != 0 {
			t.Errorf("%s: without a signature %v allocations", s.Name, n)
		}
	}
}
