// Package reqid_test checks reqid against other libraries: HTTP/3 by quic-go,
// OpenTelemetry's reading of traceparent, google/uuid's of version 7, and what
// the request-ID middlewares of chi do with the same requests.
package reqid_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"example.com/plainware/internal/interop/front"
	"example.com/plainware/reqid"
)

// handler wraps next for tests that are not about the configuration.
func handler(t testing.TB, c reqid.Config, next http.Handler) http.Handler {
	t.Helper()
	ids, err := reqid.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return ids.Handler(next)
}

// reqid 18: HTTP/1.1, HTTP/2 and HTTP/3 servers give the same result.
func TestVersions(t *testing.T) {
	const id = "0195f180-2939-7bc4-bffe-838eb3c62526"
	loopback := reqid.TrustPrefixes(netip.MustParsePrefix("127.0.0.0/8"))
	for _, c := range []struct {
		name   string
		config reqid.Config
		sent   http.Header
		kept   string // "" is a new one
		client string
	}{
		{"none", reqid.Config{}, nil, "", ""},
		{"valid", reqid.Config{}, http.Header{"X-Request-Id": {id}}, id, ""},
		{"two lines", reqid.Config{}, http.Header{"X-Request-Id": {id, "b"}}, "", ""},
		{"list", reqid.Config{}, http.Header{"X-Request-Id": {"a, b"}}, "", ""},
		{"empty", reqid.Config{}, http.Header{"X-Request-Id": {""}}, "", ""},
		{"not ASCII", reqid.Config{}, http.Header{"X-Request-Id": {"\u202eabc"}}, "", ""},
		{"too long", reqid.Config{}, http.Header{"X-Request-Id": {strings.Repeat("x", 129)}}, "", ""},
		{"another name", reqid.Config{Also: []string{"X-Correlation-Id"}}, http.Header{"X-Correlation-Id": {id}}, id, ""},
		{"nobody trusted", reqid.Config{Trust: reqid.TrustNone}, http.Header{"X-Request-Id": {id}}, "", id},
		{"peer trusted", reqid.Config{Trust: loopback}, http.Header{"X-Request-Id": {id}}, id, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			front.Each(t, func(t *testing.T, start func(*testing.T, http.Handler) front.Server) {
				s := start(t, handler(t, c.config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, "%s %q %s", reqid.FromContext(r.Context()), r.Header.Values("X-Request-Id"), reqid.ClientID(r.Context()))
				})))
				res, body, err := s.Get(t, "/", c.sent)
				if err != nil {
					t.Fatal(err)
				}
				id := res.Header.Get("X-Request-Id")
				if n := len(res.Header.Values("X-Request-Id")); n != 1 {
					t.Errorf("%d IDs in the response", n)
				}
				if c.kept != "" && id != c.kept || c.kept == "" && (len(id) != 36 || id == c.client) {
					t.Errorf("response has %q, want %q", id, c.kept)
				}
				if want := fmt.Sprintf("%s [%q] %s", id, id, c.client); body != want {
					t.Errorf("the handler saw %s, want %s", body, want)
				}
			})
		})
	}
}
