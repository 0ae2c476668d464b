package session_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// spellings returns what an id could be recognised by.
func spellings(t testing.TB, id string) [][]byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{
		[]byte(id), raw, []byte(hex.EncodeToString(raw)), []byte(strings.ToUpper(hex.EncodeToString(raw))),
		[]byte(base64.StdEncoding.EncodeToString(raw)), []byte(base64.RawStdEncoding.EncodeToString(raw)),
	}
}

// wantProblem checks that res is a refusal of this package, with nothing in it
// that the client should not see.
func wantProblem(t testing.TB, res *http.Response, status int, code string) {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	var p struct {
		Status int
		Code   string
	}
	if err := json.Unmarshal(body, &p); err != nil {
		t.Errorf("body %q: %v", body, err)
	}
	if res.StatusCode != status || p.Status != status || p.Code != code || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s, body %s; want %d, %s", res.Status, body, status, code)
	}
	if strings.Contains(string(body), "10.0.0.7") || strings.Contains(string(body), "secret") {
		t.Errorf("the body says too much: %s", body)
	}
	if res.Header["Set-Cookie"] != nil {
		t.Errorf("Set-Cookie %q in a refusal", res.Header["Set-Cookie"])
	}
}

// newLog returns a logger and what it writes.
func newLog() (*logBuffer, *slog.Logger) {
	b := new(logBuffer)
	return b, slog.New(slog.NewTextHandler(b, nil))
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
