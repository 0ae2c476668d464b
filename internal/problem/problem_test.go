package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/plainware/internal/problem"
)

type refusal struct{ detail string }

func (refusal) Error() string    { return "secret: dial tcp 10.1.2.3:5432" }
func (refusal) HTTPStatus() int  { return http.StatusTooManyRequests }
func (refusal) Code() string     { return "rate_limited" }
func (e refusal) Detail() string { return e.detail }

func TestWriteError(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		header http.Header
		status int
		body   string
	}{
		{
			name: "typed", err: refusal{"Too many requests from this address."},
			status: 429,
			body:   `{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"Too many requests from this address.","code":"rate_limited"}`,
		},
		{
			name: "wrapped, no detail", err: fmt.Errorf("outer: %w", refusal{}),
			status: 429,
			body:   `{"type":"about:blank","title":"Too Many Requests","status":429,"code":"rate_limited"}`,
		},
		{
			name: "foreign errors say nothing", err: errors.New("password=hunter2"),
			status: 500,
			body:   `{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`,
		},
		{
			name: "request ID from the response", err: refusal{},
			header: http.Header{"X-Request-Id": {"abc"}},
			status: 429,
			body:   `{"type":"about:blank","title":"Too Many Requests","status":429,"code":"rate_limited","request_id":"abc"}`,
		},
		{
			name: "hostile text is escaped", err: refusal{"a\"b\\c\n<\u202e"},
			header: http.Header{"X-Request-Id": {"\x00"}},
			status: 429,
			body:   `{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"a\"b\\c\n\u003c` + "\u202e" + `","code":"rate_limited","request_id":"\u0000"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			for k, v := range tt.header {
				w.Header()[k] = v
			}
			problem.WriteError(w, httptest.NewRequest("GET", "/", nil), tt.err)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			if got := w.Body.String(); got != tt.body+"\n" {
				t.Errorf("body\n got %s\nwant %s", got, tt.body)
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Error("body is not JSON")
			}
			if got := w.Header().Get("Content-Length"); got != fmt.Sprint(w.Body.Len()) {
				t.Errorf("Content-Length %s for %d bytes", got, w.Body.Len())
			}
		})
	}
}

// The problem replaces a body that some handler had begun to describe.
func TestWriteHeader(t *testing.T) {
	w := httptest.NewRecorder()
	h := w.Header()
	for _, k := range []string{"Content-Encoding", "Etag", "Last-Modified", "Content-Range", "Trailer"} {
		h.Set(k, "x")
	}
	h.Set("Content-Length", "4096")
	h.Set("Retry-After", "7")
	h.Set("Access-Control-Allow-Origin", "*")
	problem.Problem{Status: 503, Type: "https://example.com/p", Title: "Busy"}.Write(w, httptest.NewRequest("GET", "/", nil))

	want := http.Header{
		"Content-Type":                {"application/problem+json"},
		"Content-Length":              {fmt.Sprint(w.Body.Len())},
		"X-Content-Type-Options":      {"nosniff"},
		"Cache-Control":               {"no-store"},
		"Retry-After":                 {"7"},
		"Access-Control-Allow-Origin": {"*"},
	}
	if got := w.Result().Header; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("header\n got %v\nwant %v", got, want)
	}
	if got, want := w.Body.String(), `{"type":"https://example.com/p","title":"Busy","status":503}`+"\n"; got != want {
		t.Errorf("body %s, want %s", got, want)
	}
}

func TestWriteKeepsCacheControl(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", "public, max-age=1")
	problem.Problem{Status: 404}.Write(w, nil)
	if got := w.Header().Get("Cache-Control"); got != "public, max-age=1" {
		t.Errorf("Cache-Control %q", got)
	}
}

func TestWriteHead(t *testing.T) {
	w := httptest.NewRecorder()
	problem.Problem{Status: 410}.Write(w, httptest.NewRequest("HEAD", "/", nil))
	if w.Code != 410 || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "0" {
		t.Errorf("%d, %d bytes, Content-Length %s", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
	}
}

func TestWriteImpossibleStatus(t *testing.T) {
	for _, status := range []int{0, 99, 200, 304, 600, -1} {
		w := httptest.NewRecorder()
		problem.Problem{Status: status}.Write(w, nil)
		if w.Code != 500 {
			t.Errorf("status %d written as %d, want 500", status, w.Code)
		}
	}
}

// Whatever the text, the body is JSON and gives the text back.
func FuzzAppendString(f *testing.F) {
	f.Add("plain", "id")
	f.Add("a\"\\\n\x00<>&\u2028\xff", "\x7f")
	f.Fuzz(func(t *testing.T, detail, id string) {
		w := httptest.NewRecorder()
		w.Header()["X-Request-Id"] = []string{id}
		problem.Problem{Status: 400, Detail: detail}.Write(w, nil)
		var got struct {
			Detail    string `json:"detail"`
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if want := valid(detail); got.Detail != want {
			t.Errorf("detail %q, want %q", got.Detail, want)
		}
		if want := valid(id); got.RequestID != want {
			t.Errorf("request_id %q, want %q", got.RequestID, want)
		}
	})
}

// valid is s as encoding/json hands it back: invalid UTF-8 becomes U+FFFD,
// byte by byte.
func valid(s string) string { return string([]rune(s)) }
