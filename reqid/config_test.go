package reqid_test

import (
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"example.com/plainware/reqid"
)

// Each value that no header field can have as its name, or should not.
var badNames = []struct{ name, why string }{
	{"X Request", "is not a header field name"},
	{"X-Request-Id:", "is not a header field name"},
	{"X-Réquest", "is not a header field name"},
	{"X\r\nY", "is not a header field name"},
	{"(x)", "is not a header field name"},
	{"connection", "belongs to HTTP itself"},
	{"Content-Length", "belongs to HTTP itself"},
	{"HOST", "belongs to HTTP itself"},
	{"Keep-Alive", "belongs to HTTP itself"},
	{"Proxy-Connection", "belongs to HTTP itself"},
	{"te", "belongs to HTTP itself"},
	{"Trailer", "belongs to HTTP itself"},
	{"Transfer-Encoding", "belongs to HTTP itself"},
	{"Upgrade", "belongs to HTTP itself"},
	{"traceparent", "carries traces, not IDs; set Trace"},
	{"TraceState", "carries traces, not IDs; set Trace"},
}

func TestNewRejectsNames(t *testing.T) {
	for _, c := range badNames {
		_, err := reqid.New(reqid.Config{Header: c.name})
		wantError(t, err, "reqid: Header: "+c.why, c.name)
		_, err = reqid.New(reqid.Config{Also: []string{"X-Fine", c.name}})
		wantError(t, err, "reqid: Also[1]: "+c.why, c.name)
		_, err = reqid.NewTransport(reqid.TransportConfig{Header: c.name})
		wantError(t, err, "reqid: Header: "+c.why, c.name)
	}
}

// All problems are named at once.
func TestNewRejects(t *testing.T) {
	_, err := reqid.New(reqid.Config{
		Header: "X Y",
		Also:   []string{"", "x-fine", "X-FINE", "Host"},
	})
	for _, want := range []string{
		`reqid: Header: is not a header field name (got "X Y")`,
		`reqid: Also[0]: is empty (got "")`,
		`reqid: Also[2]: repeats an earlier name (got "X-FINE")`,
		`reqid: Also[3]: belongs to HTTP itself (got "Host")`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	_, err = reqid.New(reqid.Config{Also: []string{"x-request-id"}})
	wantError(t, err, "reqid: Also[0]: repeats Header", "x-request-id")
	_, err = reqid.New(reqid.Config{Header: "x-mine", Also: []string{"X-Mine"}})
	wantError(t, err, "reqid: Also[0]: repeats Header", "X-Mine")
}

func TestNewLogHandlerRejects(t *testing.T) {
	_, err := reqid.NewLogHandler(reqid.LogConfig{IDKey: "msg", SpanIDKey: "trace_id"})
	for _, want := range []string{
		`reqid: Handler: is required (got nil)`,
		`reqid: IDKey: is taken (got "msg")`,
		`reqid: SpanIDKey: is taken (got "trace_id")`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if _, err := reqid.NewLogHandler(reqid.LogConfig{
		Handler: slog.DiscardHandler, IDKey: "-", ClientIDKey: "-", TraceIDKey: "-", SpanIDKey: "request_id",
	}); err != nil {
		t.Error(err)
	}
}

func wantError(t *testing.T, err error, message, value string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), message) {
		t.Errorf("error is %v, want %q", err, message)
	} else if quoted := `(got ` + strconv.Quote(value) + `)`; !strings.Contains(err.Error(), quoted) {
		t.Errorf("error is %v, want %q in it", err, quoted)
	}
}

// Config is not read after New, and its slice stays the caller's.
func TestConfigCopied(t *testing.T) {
	also := []string{"X-Correlation-Id"}
	m := mustNew(t, reqid.Config{Header: "x-mine", Also: also})
	also[0] = "X-Other"
	s, response := exchange(t, m, http.Header{"X-Correlation-Id": {"a"}, "X-Other": {"b"}})
	if s.id != "a" || response.Get("X-Mine") != "a" || s.header.Get("X-Other") != "b" {
		t.Errorf("ID %q, request %v, response %v", s.id, s.header, response)
	}
}

// A custom Valid can be stricter and laxer, but not so lax that a header could
// not carry what it accepts.
func TestCustomValid(t *testing.T) {
	var judged []string
	lax := mustNew(t, reqid.Config{Valid: func(s string) bool { judged = append(judged, s); return true }})
	aws := "Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1"
	for _, id := range []string{aws, "a,b", strings.Repeat("z", 512), "~"} {
		if s, _ := exchange(t, lax, http.Header{"X-Request-Id": {id}}); s.id != id {
			t.Errorf("%.40q became %.40q", id, s.id)
		}
	}
	judged = nil
	for _, id := range []string{"", "a b", "a\nb", "a\x7fb", "caf\xe9", "日本", strings.Repeat("z", 513)} {
		if s, _ := exchange(t, lax, http.Header{"X-Request-Id": {id}}); len(s.id) != 36 || s.client != "" {
			t.Errorf("%.40q became %.40q", id, s.id)
		}
	}
	if len(judged) != 0 {
		t.Errorf("asked about %.80q", judged)
	}
	strict := mustNew(t, reqid.Config{Valid: func(s string) bool { return s == uuid }})
	if s, _ := exchange(t, strict, http.Header{"X-Request-Id": {"valid-elsewhere"}}); len(s.id) != 36 {
		t.Errorf("ID %q", s.id)
	}
	if s, _ := exchange(t, strict, http.Header{"X-Request-Id": {uuid}}); s.id != uuid {
		t.Errorf("ID %q", s.id)
	}
}

// The result of Generate is used as it is, unless a header could not carry it.
func TestCustomGenerate(t *testing.T) {
	for _, c := range []struct {
		made string
		used bool
	}{
		{"x", true}, {"a,b", true}, {strings.Repeat("z", 512), true},
		{"", false}, {"a b", false}, {"a\r\nSet-Cookie: x", false}, {"\xff", false}, {strings.Repeat("z", 513), false},
	} {
		m := mustNew(t, reqid.Config{Generate: func() string { return c.made }, Valid: func(string) bool { return false }})
		s, _ := exchange(t, m, http.Header{})
		if (s.id == c.made) != c.used || !c.used && len(s.id) != 36 {
			t.Errorf("%.40q made %.60q", c.made, s.id)
		}
	}
}
