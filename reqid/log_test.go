package reqid_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"

	"example.com/plainware/reqid"
)

func mustLog(t testing.TB, c reqid.LogConfig) *reqid.LogHandler {
	t.Helper()
	h, err := reqid.NewLogHandler(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// bare removes what differs from run to run.
func bare(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

func jsonLog(t testing.TB, w *bytes.Buffer, c reqid.LogConfig) *slog.Logger {
	c.Handler = slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: bare})
	return slog.New(mustLog(t, c))
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// inRequest returns the context of a request that has all four attributes, or
// three of them with a kept ID.
func inRequest(t testing.TB, trusted bool) context.Context {
	t.Helper()
	m := mustNew(t, reqid.Config{Trace: true, Generate: func() string { return "new" }, Trust: func(*http.Request) bool { return trusted }})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = http.Header{"X-Request-Id": {"old"}, "Traceparent": {parent}}
	var ctx context.Context
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { ctx = r.Context() })).ServeHTTP(httptest.NewRecorder(), r)
	return ctx
}

// reqid 13: the attributes stand at the root, and everything else where the
// logger puts it.
func TestLogHandler(t *testing.T) {
	ctx := reqid.NewContext(t.Context(), "id-1")
	for _, c := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.InfoContext(ctx, "m", "a", 1) },
			`{"msg":"m","a":1,"request_id":"id-1"}`},
		{"With", func(l *slog.Logger) { l.With("b", 2).InfoContext(ctx, "m", "a", 1) },
			`{"msg":"m","b":2,"a":1,"request_id":"id-1"}`},
		{"WithGroup", func(l *slog.Logger) { l.WithGroup("g").InfoContext(ctx, "m", "a", 1) },
			`{"msg":"m","request_id":"id-1","g":{"a":1}}`},
		{"With before and in the group", func(l *slog.Logger) { l.With("b", 2).WithGroup("g").With("c", 3).InfoContext(ctx, "m", "a", 1) },
			`{"msg":"m","b":2,"request_id":"id-1","g":{"c":3,"a":1}}`},
		{"groups in groups", func(l *slog.Logger) {
			l.WithGroup("g").With("b", 2).WithGroup("h").WithGroup("i").With("c", 3).InfoContext(ctx, "m", "a", 1)
		},
			`{"msg":"m","request_id":"id-1","g":{"b":2,"h":{"i":{"c":3,"a":1}}}}`},
		{"empty group", func(l *slog.Logger) { l.WithGroup("g").InfoContext(ctx, "m") },
			`{"msg":"m","request_id":"id-1"}`},
		{"empty group in a group", func(l *slog.Logger) { l.WithGroup("g").With("b", 2).WithGroup("h").InfoContext(ctx, "m") },
			`{"msg":"m","request_id":"id-1","g":{"b":2}}`},
		{"group without a name", func(l *slog.Logger) { slog.New(l.Handler().WithGroup("")).InfoContext(ctx, "m", "a", 1) },
			`{"msg":"m","a":1,"request_id":"id-1"}`},
		{"many attributes", func(l *slog.Logger) {
			l.InfoContext(ctx, "m", "a", 1, "b", 2, "c", 3, "d", 4, "e", 5, "f", 6, "g", 7)
		},
			`{"msg":"m","a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"request_id":"id-1"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			c.log(jsonLog(t, &out, reqid.LogConfig{}))
			if got := strings.TrimSpace(out.String()); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// reqid 13: each attribute has its key, and appears where there is a value.
func TestLogHandlerAttributes(t *testing.T) {
	const trace = `"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"`
	for _, c := range []struct {
		name   string
		ctx    context.Context
		config reqid.LogConfig
		want   string
	}{
		{"trusted", inRequest(t, true), reqid.LogConfig{}, `{"msg":"m","request_id":"old",` + trace + `}`},
		{"renamed", inRequest(t, true), reqid.LogConfig{IDKey: "rid", TraceIDKey: "traceId", SpanIDKey: "spanId"},
			`{"msg":"m","rid":"old","traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331"}`},
		{"left out", inRequest(t, true), reqid.LogConfig{IDKey: "-", SpanIDKey: "-"},
			`{"msg":"m","trace_id":"0af7651916cd43dd8448eb211c80319c"}`},
		{"not trusted", inRequest(t, false), reqid.LogConfig{TraceIDKey: "-", SpanIDKey: "-"},
			`{"msg":"m","request_id":"new","client_request_id":"old"}`},
		{"all left out", inRequest(t, false), reqid.LogConfig{IDKey: "-", ClientIDKey: "-", TraceIDKey: "-", SpanIDKey: "-"}, `{"msg":"m"}`},
	} {
		var out bytes.Buffer
		jsonLog(t, &out, c.config).InfoContext(c.ctx, "m")
		if got := strings.TrimSpace(out.String()); got != c.want {
			t.Errorf("%s: got  %s\nwant %s", c.name, got, c.want)
		}
	}
}

// withContext gives each record a context, since slogtest logs without.
type withContext struct {
	slog.Handler
	ctx context.Context
}

func (h withContext) Handle(_ context.Context, r slog.Record) error {
	return h.Handler.Handle(h.ctx, r)
}
func (h withContext) WithAttrs(a []slog.Attr) slog.Handler {
	return withContext{h.Handler.WithAttrs(a), h.ctx}
}
func (h withContext) WithGroup(n string) slog.Handler {
	return withContext{h.Handler.WithGroup(n), h.ctx}
}

// reqid 13: with and without an ID, over both handlers of slog, ours obeys
// every rule that slog has for handlers.
func TestSlogtest(t *testing.T) {
	contexts := map[string]context.Context{
		"without": context.Background(),
		"with":    reqid.NewContext(context.Background(), "id-1"),
	}
	for name, ctx := range contexts {
		t.Run(name, func(t *testing.T) {
			var out *bytes.Buffer
			slogtest.Run(t, func(t *testing.T) slog.Handler {
				out = new(bytes.Buffer)
				return withContext{mustLog(t, reqid.LogConfig{Handler: slog.NewJSONHandler(out, nil)}), ctx}
			}, func(t *testing.T) map[string]any {
				record := map[string]any{}
				if err := json.Unmarshal(out.Bytes(), &record); err != nil {
					t.Fatal(err)
				}
				if _, has := record["request_id"]; has != (name == "with") {
					t.Errorf("request_id: %v", record)
				}
				return record
			})
		})
	}
}

// reqid 14: without an ID nothing is added, and the record is passed on as it
// is to the handler that has the groups.
func TestLogHandlerWithoutID(t *testing.T) {
	var with, without bytes.Buffer
	use := func(l *slog.Logger) {
		l.Info("m", "a", 1)
		l.With("b", 2).WithGroup("g").With("c", 3).InfoContext(t.Context(), "m", "a", 1)
	}
	use(jsonLog(t, &with, reqid.LogConfig{}))
	use(slog.New(slog.NewJSONHandler(&without, &slog.HandlerOptions{ReplaceAttr: bare})))
	if with.String() != without.String() {
		t.Errorf("got  %s\nwant %s", &with, &without)
	}
	if got := reqid.Attr(t.Context()); !got.Equal(slog.Attr{}) {
		t.Errorf("Attr without an ID is %v", got)
	}
	if got := reqid.Attr(reqid.NewContext(t.Context(), "id-1")); !got.Equal(slog.String("request_id", "id-1")) {
		t.Errorf("Attr is %v", got)
	}
}

// Handlers derived from one parent, in parallel, do not write into each other's
// attributes and groups.
func TestLogHandlerDerived(t *testing.T) {
	ctx := reqid.NewContext(t.Context(), "id-1")
	var mu sync.Mutex
	lines := map[string]bool{}
	base := slog.New(mustLog(t, reqid.LogConfig{Handler: slog.NewJSONHandler(writer(func(p []byte) {
		mu.Lock()
		defer mu.Unlock()
		lines[strings.TrimSpace(string(p))] = true
	}), &slog.HandlerOptions{ReplaceAttr: bare})}))
	parent := base.WithGroup("g").With("a", 1, "b", 2, "c", 3).WithGroup("h").With("d", 4)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			parent.With("e", i).InfoContext(ctx, "m")
			parent.WithGroup("k").With("e", i).InfoContext(ctx, "m", "f", i)
		})
	}
	wg.Wait()
	for i := range 8 {
		for _, want := range []string{
			fmt.Sprintf(`{"msg":"m","request_id":"id-1","g":{"a":1,"b":2,"c":3,"h":{"d":4,"e":%d}}}`, i),
			fmt.Sprintf(`{"msg":"m","request_id":"id-1","g":{"a":1,"b":2,"c":3,"h":{"d":4,"k":{"e":%d,"f":%d}}}}`, i, i),
		} {
			if !lines[want] {
				t.Errorf("missing %s", want)
			}
		}
	}
	if len(lines) != 16 {
		t.Errorf("%d different lines: %q", len(lines), slices.Sorted(func(yield func(string) bool) {
			for l := range lines {
				if !yield(l) {
					return
				}
			}
		}))
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// A record that two handlers get (slog.NewMultiHandler hands out copies) is not
// changed for the other one.
func TestLogHandlerSharedRecord(t *testing.T) {
	ctx := reqid.NewContext(t.Context(), "id-1")
	var a, b, c bytes.Buffer
	opts := &slog.HandlerOptions{ReplaceAttr: bare}
	record := slog.Record{Message: "m"}
	for i := range 7 {
		record.AddAttrs(slog.Int("k", i))
	}
	for _, h := range []slog.Handler{
		mustLog(t, reqid.LogConfig{Handler: slog.NewJSONHandler(&a, opts)}),
		mustLog(t, reqid.LogConfig{Handler: slog.NewJSONHandler(&b, opts), IDKey: "rid"}),
		slog.NewJSONHandler(&c, opts),
	} {
		if err := h.Handle(ctx, record); err != nil {
			t.Error(err)
		}
	}
	const seven = `{"msg":"m","k":0,"k":1,"k":2,"k":3,"k":4,"k":5,"k":6`
	for got, want := range map[*bytes.Buffer]string{&a: seven + `,"request_id":"id-1"}`, &b: seven + `,"rid":"id-1"}`, &c: seven + `}`} {
		if strings.TrimSpace(got.String()) != want {
			t.Errorf("got  %swant %s", got, want)
		}
	}
}

// Enabled is the wrapped handler's answer.
func TestLogHandlerEnabled(t *testing.T) {
	h := mustLog(t, reqid.LogConfig{Handler: slog.NewTextHandler(new(bytes.Buffer), &slog.HandlerOptions{Level: slog.LevelWarn})})
	for _, derived := range []slog.Handler{h, h.WithGroup("g"), h.WithAttrs([]slog.Attr{slog.Int("a", 1)})} {
		if derived.Enabled(t.Context(), slog.LevelInfo) || !derived.Enabled(t.Context(), slog.LevelWarn) {
			t.Errorf("%T does not ask", derived)
		}
	}
}
