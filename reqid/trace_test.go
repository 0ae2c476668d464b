package reqid_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"example.com/plainware/reqid"
)

// throughTrace sends a request through a middleware with Trace and returns the
// trace in its context and the header that the handler saw.
func throughTrace(t *testing.T, c reqid.Config, header http.Header) (reqid.TraceContext, http.Header) {
	t.Helper()
	c.Trace = true
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header
	var trace reqid.TraceContext
	var got http.Header
	mustNew(t, c).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var ok bool
		if trace, ok = reqid.Trace(r.Context()); !ok {
			t.Error("no trace")
		}
		got = r.Header.Clone()
	})).ServeHTTP(httptest.NewRecorder(), r)
	return trace, got
}

// A valid trace is in the context as the caller sent it, and its headers stay.
func TestTraceContinued(t *testing.T) {
	trace, header := throughTrace(t, reqid.Config{}, http.Header{"Traceparent": {parent}, "Tracestate": {"rojo=1, congo=2", "", "baz=3"}})
	want := reqid.TraceContext{
		TraceID: "0af7651916cd43dd8448eb211c80319c",
		SpanID:  "b7ad6b7169203331",
		Flags:   1,
		State:   "rojo=1, congo=2,baz=3",
	}
	if trace != want || !trace.Sampled() || trace.String() != parent {
		t.Errorf("trace is %+v", trace)
	}
	if !slices.Equal(header["Traceparent"], []string{parent}) || !slices.Equal(header["Tracestate"], []string{"rojo=1, congo=2", "", "baz=3"}) {
		t.Errorf("header is %v", header)
	}
}

// A trace that begins here is random, not sampled, and in the request header
// for a proxy below.
func TestTraceBegun(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		trace, header := throughTrace(t, reqid.Config{}, http.Header{"Traceparent": {"no"}, "Tracestate": {"rojo=1"}})
		if trace.Sampled() || trace.Flags != 2 || trace.State != "" || !traceparent00.MatchString(trace.String()) {
			t.Fatalf("trace is %+v", trace)
		}
		if _, has := header["Tracestate"]; has || !slices.Equal(header["Traceparent"], []string{trace.String()}) {
			t.Fatalf("header is %v for %v", header, trace)
		}
		if seen[trace.TraceID] || seen[trace.SpanID] {
			t.Fatalf("twice: %v", trace)
		}
		seen[trace.TraceID], seen[trace.SpanID] = true, true
	}
}

// The sender who is not trusted with the ID is not trusted with the trace.
func TestTraceNotTrusted(t *testing.T) {
	trace, header := throughTrace(t, reqid.Config{Trust: reqid.TrustNone}, http.Header{"Traceparent": {parent}, "Tracestate": {"rojo=1"}})
	if strings.Contains(parent, trace.TraceID) || trace.State != "" || trace.Sampled() {
		t.Errorf("trace is %+v", trace)
	}
	if header.Get("Traceparent") != trace.String() || header.Get("Tracestate") != "" {
		t.Errorf("header is %v", header)
	}
}

// Sampled and random are passed on as they came; flags that are not defined are
// not, whatever the version says.
func TestTraceFlags(t *testing.T) {
	for flags := range 256 {
		for _, version := range []string{"00", "01", "fe"} {
			in := fmt.Sprintf("%s-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-%02x", version, flags)
			trace, header := throughTrace(t, reqid.Config{}, http.Header{"Traceparent": {in}})
			if trace.Flags != byte(flags)&3 || trace.Sampled() != (flags&1 == 1) {
				t.Errorf("%s: flags %#x", in, trace.Flags)
			}
			if header.Get("Traceparent") != in {
				t.Errorf("%s was changed to %q", in, header.Get("Traceparent"))
			}
		}
	}
}

// What is prohibitively large, or has bytes that do not print, is not passed on
// as a later version's traceparent or as a tracestate.
func TestTraceHostile(t *testing.T) {
	future := "cc" + parent[2:]
	for _, c := range []struct {
		name, parent, state string
		parentStays         bool
	}{
		{"rest fits", future + "-" + strings.Repeat("z", 256-56), "", true},
		{"rest too long", future + "-" + strings.Repeat("z", 257-56), "", false},
		{"rest with a space", future + "-a b", "", false},
		{"rest not ASCII", future + "-\xff", "", false},
		{"100 KB", future + strings.Repeat("-", 100_000), "", false},
		{"state of 100 KB", parent, "a=" + strings.Repeat("z", 100_000), true},
		{"100 KB of commas", parent, strings.Repeat(",", 100_000), true},
		{"state not ASCII", parent, "a=\xff", true},
		{"state with a tab in a value", parent, "a=b\tc", true},
		{"state with a control byte", parent, "a=b\x1b", true},
		{"value too long", parent, "a=" + strings.Repeat("z", 257), true},
		{"no value", parent, "a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{"Traceparent": {c.parent}}
			if c.state != "" {
				h["Tracestate"] = []string{c.state}
			}
			trace, header := throughTrace(t, reqid.Config{}, h)
			if got := header.Get("Traceparent") == c.parent; got != c.parentStays {
				t.Errorf("traceparent is %.80q", header.Get("Traceparent"))
			}
			if _, has := header["Tracestate"]; has || trace.State != "" {
				t.Errorf("tracestate is %.80q and %.80q", header["Tracestate"], trace.State)
			}
		})
	}
	// The longest that the grammar has.
	var all []string
	for range 32 {
		all = append(all, strings.Repeat("k", 256)+"="+strings.Repeat("v", 256))
	}
	trace, header := throughTrace(t, reqid.Config{}, http.Header{"Traceparent": {parent}, "Tracestate": all})
	if trace.State != strings.Join(all, ",") || !slices.Equal(header["Tracestate"], all) {
		t.Errorf("%d bytes became %d", len(strings.Join(all, ",")), len(trace.State))
	}
}

// Without Config.Trace the headers mean nothing and are not touched.
func TestTraceOff(t *testing.T) {
	s, _ := exchange(t, mustNew(t, reqid.Config{Trust: reqid.TrustNone}), http.Header{"Traceparent": {"no"}, "Tracestate": {"?"}})
	if s.header.Get("Traceparent") != "no" || s.header.Get("Tracestate") != "?" {
		t.Errorf("header is %v", s.header)
	}
	mustNew(t, reqid.Config{}).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if trace, ok := reqid.Trace(r.Context()); ok {
			t.Errorf("trace is %v", trace)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if trace, ok := reqid.Trace(t.Context()); ok {
		t.Errorf("trace is %v", trace)
	}
}

// An inner instance continues the outer's trace, and begins one only if there
// is none. The ClientID of the outer one stays.
func TestTraceNested(t *testing.T) {
	for _, outerTraces := range []bool{true, false} {
		outer := mustNew(t, reqid.Config{Trace: outerTraces, Trust: reqid.TrustNone})
		inner := mustNew(t, reqid.Config{Trace: true, Trust: reqid.TrustNone})
		var between reqid.TraceContext
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = http.Header{"X-Request-Id": {uuid}, "Traceparent": {parent}}
		outer.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			between, _ = reqid.Trace(r.Context())
			inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				trace, ok := reqid.Trace(r.Context())
				if !ok || outerTraces && trace != between || r.Header.Get("Traceparent") != trace.String() {
					t.Errorf("trace %v, outside %v, header %v", trace, between, r.Header)
				}
				if got := reqid.ClientID(r.Context()); got != uuid {
					t.Errorf("ClientID is %q", got)
				}
			})).ServeHTTP(w, r)
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}

// A request that has trace headers of its own, OpenTelemetry's for instance,
// keeps them.
func TestTransportLeavesTraceAlone(t *testing.T) {
	ctx := inRequest(t, true)
	for _, header := range []http.Header{
		{"Traceparent": {"00-11111111111111111111111111111111-2222222222222222-01"}},
		{"Traceparent": nil},
		{"Tracestate": {"mine=1"}},
	} {
		base := &sink{}
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
		r.Header = header.Clone()
		if _, err := mustTransport(t, reqid.TransportConfig{Base: base}).RoundTrip(r); err != nil {
			t.Fatal(err)
		}
		want := header.Clone()
		want["X-Request-Id"] = []string{"old"}
		if fmt.Sprint(base.got.Header) != fmt.Sprint(want) {
			t.Errorf("sent %v, want %v", base.got.Header, want)
		}
	}
	// One that brings an ID of its own gets the trace all the same.
	base := &sink{}
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	r.Header.Set("X-Request-Id", "mine")
	if _, err := mustTransport(t, reqid.TransportConfig{Base: base}).RoundTrip(r); err != nil {
		t.Fatal(err)
	}
	if h := base.got.Header; h.Get("X-Request-Id") != "mine" || !strings.HasPrefix(h.Get("Traceparent"), parent[:36]) || len(r.Header) != 1 {
		t.Errorf("sent %v of %v", h, r.Header)
	}
}
