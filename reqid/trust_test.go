package reqid_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"example.com/plainware/reqid"
)

// reqid 5: a sender who is not trusted gets a new ID, and the claimed one stays
// in the context and goes no further.
func TestNotTrusted(t *testing.T) {
	m := mustNew(t, reqid.Config{Trust: reqid.TrustNone, Also: []string{"X-Correlation-Id", "Request-Id"}})
	for _, header := range []http.Header{
		{"X-Request-Id": {uuid}},
		{"X-Request-Id": {uuid}, "X-Correlation-Id": {uuid}},
		{"X-Correlation-Id": {uuid}, "Request-Id": {other}},
	} {
		s, response := exchange(t, m, header)
		if s.client != uuid || s.id == uuid || len(s.id) != 36 {
			t.Errorf("ID %q, ClientID %q", s.id, s.client)
		}
		for where, h := range map[string]http.Header{"request": s.header, "response": response} {
			for key, values := range h {
				if slices.Contains(values, uuid) {
					t.Errorf("%s %s still has %q", where, key, values)
				}
			}
		}

		// The same for a call that the handler makes.
		var sent http.Header
		tr, err := reqid.NewTransport(reqid.TransportConfig{Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = r.Header
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		ctx := reqid.NewContext(t.Context(), s.id)
		out, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
		if _, err := tr.RoundTrip(out); err != nil || sent.Get("X-Request-Id") != s.id {
			t.Errorf("sent %q, %v", sent, err)
		}
	}
	// An invalid claim is not even a ClientID.
	if s, _ := exchange(t, m, http.Header{"X-Request-Id": {"a b"}}); s.client != "" {
		t.Errorf("ClientID is %q", s.client)
	}
}

// Trust is asked once, and only when there is something to judge.
func TestTrustAsked(t *testing.T) {
	asked := 0
	m := mustNew(t, reqid.Config{Trace: true, Trust: func(*http.Request) bool { asked++; return true }})
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, c := range []struct {
		header http.Header
		want   int
	}{
		{http.Header{}, 0},
		{http.Header{"X-Request-Id": {"not valid"}, "Traceparent": {"nor this"}}, 0},
		{http.Header{"X-Request-Id": {uuid}}, 1},
		{http.Header{"Traceparent": {parent}}, 1},
		{http.Header{"X-Request-Id": {uuid}, "Traceparent": {parent}}, 1},
	} {
		asked = 0
		if exchange(t, m, c.header); asked != c.want {
			t.Errorf("%v: asked %d times, want %d", c.header, asked, c.want)
		}
	}
}

// reqid 6: TrustPrefixes goes by the peer's address and by nothing it says.
func TestTrustPrefixes(t *testing.T) {
	trust := reqid.TrustPrefixes(
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("fd00::/8"),
		netip.MustParsePrefix("::ffff:192.0.2.0/120"),
		netip.Prefix{},
	)
	for _, c := range []struct {
		remote string
		want   bool
	}{
		{"10.1.2.3:4711", true},
		{"10.1.2.3", true},
		{"[::ffff:10.1.2.3]:4711", true},
		{"[fd00::1]:4711", true},
		{"[fd00::1%eth0]:4711", true},
		{"192.0.2.7:4711", true},
		{"192.0.3.7:4711", false},
		{"203.0.113.9:4711", false},
		{"[2001:db8::1]:4711", false},
		{"@", false},
		{"", false},
		{"/run/app.sock", false},
		{"localhost:80", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		for _, key := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip"} {
			r.Header.Set(key, "10.1.2.3")
		}
		if got := trust(r); got != c.want {
			t.Errorf("%q: %v, want %v", c.remote, got, c.want)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.1.2.3:1"
	if reqid.TrustPrefixes()(r) || reqid.TrustNone(r) {
		t.Error("no prefix is everybody")
	}
}

// reqid 6: the slice that TrustPrefixes is called with stays the caller's.
func TestTrustPrefixesCopies(t *testing.T) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	trust := reqid.TrustPrefixes(prefixes...)
	prefixes[0] = netip.MustParsePrefix("0.0.0.0/0")
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "203.0.113.9:1"
	if trust(r) {
		t.Error("a later change of the slice changed the trust")
	}
}
