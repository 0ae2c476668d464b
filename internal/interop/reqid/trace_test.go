package reqid_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"example.com/plainware/reqid"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
	parent  = "00-" + traceID + "-" + spanID + "-01"
)

// position is where a request stands in a trace, as one of the two libraries
// reads it. The zero position is "nowhere": a new trace begins.
type position struct {
	trace, span string
	flags       byte
	state       string
}

// ours is what the middleware continues.
func ours(t *testing.T, header http.Header) position {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = header.Clone()
	var got reqid.TraceContext
	ok := false
	h := handler(t, reqid.Config{Trace: true}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, ok = reqid.Trace(r.Context())
	}))
	h.ServeHTTP(httptest.NewRecorder(), r)
	if !ok {
		t.Fatalf("%q: no trace at all", header)
	}
	if r.Header.Get("Traceparent") != header.Get("Traceparent") {
		return position{} // a new one has replaced it
	}
	return position{got.TraceID, got.SpanID, got.Flags, got.State}
}

// theirs is what OpenTelemetry continues.
func theirs(header http.Header) position {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(header))
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return position{}
	}
	return position{sc.TraceID().String(), sc.SpanID().String(), byte(sc.TraceFlags()), sc.TraceState().String()}
}

// reqid 19: a traceparent means to us what it means to OpenTelemetry.
func TestTraceAgrees(t *testing.T) {
	for _, c := range []struct {
		name, parent, state string
	}{
		{"valid", parent, ""},
		{"not sampled", parent[:53] + "00", ""},
		{"random", parent[:53] + "03", ""},
		{"with state", parent, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"},
		{"state with tenants", parent, "fw529a3039@dt=FfffXY,rojo=1"},
		{"state has a bad key", parent, "UPPER=1"},
		{"state has no value", parent, "rojo"},
		{"nothing", "", ""},
		{"short", parent[:54], ""},
		{"version 00 and longer", parent + "-what", ""},
		{"version 00 and longer, no dash", parent + "0", ""},
		{"version ff", "ff" + parent[2:], ""},
		{"version cc", "cc" + parent[2:], ""},
		{"version cc and longer", "cc" + parent[2:] + "-what-the-future-will-be-like", ""},
		{"version cc and longer, no dash", "cc" + parent[2:] + ".what", ""},
		{"version not hexadecimal", "0g" + parent[2:], ""},
		{"upper case", strings.ToUpper(parent), ""},
		{"upper case version", "CC" + parent[2:], ""},
		{"zero trace", "00-" + strings.Repeat("0", 32) + parent[35:], ""},
		{"zero span", parent[:36] + strings.Repeat("0", 16) + "-01", ""},
		{"other delimiters", strings.ReplaceAll(parent, "-", "_"), ""},
		{"state without a parent", "", "rojo=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{}
			if c.parent != "" {
				header.Set("Traceparent", c.parent)
			}
			if c.state != "" {
				header.Set("Tracestate", c.state)
			}
			if ours, theirs := ours(t, header), theirs(header); ours != theirs {
				t.Errorf("ours %+v, OpenTelemetry's %+v", ours, theirs)
			}
		})
	}
}

// Where the two part, the specification is on our side: reserved flags of
// version 00 are ignored, not refused; nothing follows the flags of version 00,
// not even a dash; two traceparent lines are none; tracestate lines are one list
// (section 3.2 and 3.3 of https://www.w3.org/TR/trace-context-2/).
func TestTraceDiffers(t *testing.T) {
	for _, c := range []struct {
		name         string
		header       http.Header
		ours, theirs position
	}{
		{"reserved flags", http.Header{"Traceparent": {parent[:53] + "ff"}},
			position{traceID, spanID, 3, ""}, position{}},
		{"dash at the end", http.Header{"Traceparent": {parent + "-"}},
			position{}, position{traceID, spanID, 1, ""}},
		{"two parents", http.Header{"Traceparent": {parent, parent}},
			position{}, position{traceID, spanID, 1, ""}},
		{"two states", http.Header{"Traceparent": {parent}, "Tracestate": {"a=1", "b=2"}},
			position{traceID, spanID, 1, "a=1,b=2"}, position{traceID, spanID, 1, "a=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := theirs(c.header); got != c.theirs {
				t.Errorf("OpenTelemetry: %+v, want %+v", got, c.theirs)
			}
			if got := ours(t, c.header); got != c.ours {
				t.Errorf("ours: %+v, want %+v", got, c.ours)
			}
		})
	}
}

// reqid 20: no traceparent is continued by one library and begun anew by the
// other, except in the ways of TestTraceDiffers.
func FuzzTraceAgrees(f *testing.F) {
	for _, s := range []string{
		parent, parent[:54], parent + "-", parent + "-x", parent + ".", "cc" + parent[2:], "cc" + parent[2:] + "-x",
		"ff" + parent[2:], parent[:53] + "ff", parent[:53] + "0G", strings.ToUpper(parent), "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		header := http.Header{"Traceparent": {s}}
		ours, theirs := ours(t, header), theirs(header)
		if ours == theirs {
			return
		}
		switch known := strings.HasPrefix(s, "00-"); {
		case strings.Trim(s, " \t") != s: // a server has removed it already
		case known && len(s) == 55 && theirs == position{}: // reserved flags
		case known && len(s) == 56 && s[55] == '-' && ours == position{}:
		case !known && len(s) > 55 && ours == position{}: // too long, or more than visible ASCII
		default:
			t.Errorf("%q: ours %+v, OpenTelemetry's %+v", s, ours, theirs)
		}
	})
}
