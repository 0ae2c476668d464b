package reqid_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/plainware/reqid"
)

// discard is a ResponseWriter that costs nothing itself.
type discard struct{ h http.Header }

func (w discard) Header() http.Header         { return w.h }
func (w discard) Write(p []byte) (int, error) { return len(p), nil }
func (w discard) WriteHeader(int)             {}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// silent is a slog.Handler that costs nothing itself.
type silent struct{}

func (silent) Enabled(context.Context, slog.Level) bool  { return true }
func (silent) Handle(context.Context, slog.Record) error { return nil }
func (silent) WithAttrs([]slog.Attr) slog.Handler        { return silent{} }
func (silent) WithGroup(string) slog.Handler             { return silent{} }

// A measured call, made ready outside the measurement.
type measured struct {
	name   string
	allocs float64 // what the documentation promises
	call   func()
}

func measuredCalls(t testing.TB) []measured {
	var calls []measured
	add := func(name string, allocs float64, call func()) {
		calls = append(calls, measured{name, allocs, call})
	}

	add("V7", 1, func() { reqid.V7() })
	add("Valid", 0, func() { reqid.Valid(uuid) })

	middleware := func(name string, allocs float64, c reqid.Config, header http.Header) {
		h := mustNew(t, c).Handler(nothing)
		r := httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
		w := discard{http.Header{}}
		add(name, allocs, func() {
			clear(r.Header)
			for k, v := range header {
				r.Header[k] = v
			}
			h.ServeHTTP(w, r)
		})
	}
	inbound := http.Header{"X-Request-Id": {uuid}}
	traced := http.Header{"X-Request-Id": {uuid}, "Traceparent": {parent}, "Tracestate": {"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}}
	middleware("Handler/new", 3, reqid.Config{}, nil)
	middleware("Handler/inbound", 2, reqid.Config{}, inbound)
	middleware("Handler/not trusted", 3, reqid.Config{Trust: reqid.TrustNone}, inbound)
	middleware("Handler/trace continued", 3, reqid.Config{Trace: true}, traced)
	middleware("Handler/trace begun", 5, reqid.Config{Trace: true}, inbound)

	ctx := reqid.NewContext(context.Background(), uuid)
	add("FromContext", 0, func() { reqid.FromContext(ctx) })
	m := mustNew(t, reqid.Config{})
	add("From", 0, func() { m.From(ctx) })

	transport := func(name string, allocs float64, ctx context.Context, c reqid.TransportConfig) {
		res := &http.Response{StatusCode: 204, Body: http.NoBody}
		c.Base = roundTrip(func(*http.Request) (*http.Response, error) { return res, nil })
		tr := mustTransport(t, c)
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
		add(name, allocs, func() { tr.RoundTrip(r) })
	}
	transport("Transport/no ID", 0, context.Background(), reqid.TransportConfig{})
	transport("Transport/not allowed", 0, ctx, reqid.TransportConfig{Only: func(*http.Request) bool { return false }})
	transport("Transport/ID", 4, ctx, reqid.TransportConfig{})
	transport("Transport/ID and trace", 6, inRequest(t, true), reqid.TransportConfig{})

	logger := slog.New(mustLog(t, reqid.LogConfig{Handler: silent{}}))
	grouped := logger.WithGroup("g").With("b", 2)
	log := func(name string, allocs float64, l *slog.Logger, ctx context.Context) {
		add(name, allocs, func() { l.LogAttrs(ctx, slog.LevelInfo, "m", slog.Int("a", 1)) })
	}
	log("LogHandler/no ID", 0, logger, context.Background())
	log("LogHandler/no ID in a group", 0, grouped, context.Background())
	log("LogHandler/ID", 0, logger, ctx)
	log("LogHandler/ID in a group", 1, grouped, ctx)
	return calls
}

// The number of allocations is a promise.
func TestAllocations(t *testing.T) {
	for _, c := range measuredCalls(t) {
		if got := testing.AllocsPerRun(200, c.call); got > c.allocs {
			t.Errorf("%s: %v allocations, promised %v", c.name, got, c.allocs)
		}
	}
}

func Benchmark(b *testing.B) {
	for _, c := range measuredCalls(b) {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.call()
			}
		})
	}
}

func BenchmarkV7Parallel(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			reqid.V7()
		}
	})
}

// BenchmarkLog compares a JSON log line with the handler to one with the ID as
// an attribute of the call.
func BenchmarkLog(b *testing.B) {
	json := slog.NewJSONHandler(io.Discard, nil)
	ctx := reqid.NewContext(context.Background(), uuid)
	plain, ours := slog.New(json), slog.New(mustLog(b, reqid.LogConfig{Handler: json}))
	for _, c := range []struct {
		name   string
		logger *slog.Logger
		attrs  []slog.Attr
	}{
		{"by hand", plain, []slog.Attr{slog.Int("a", 1), slog.String("request_id", uuid)}},
		{"handler", ours, []slog.Attr{slog.Int("a", 1)}},
		{"by hand in a group", plain.WithGroup("g").With("b", 2), []slog.Attr{slog.Int("a", 1), slog.String("request_id", uuid)}},
		{"handler in a group", ours.WithGroup("g").With("b", 2), []slog.Attr{slog.Int("a", 1)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.logger.LogAttrs(ctx, slog.LevelInfo, "m", c.attrs...)
			}
		})
	}
}
