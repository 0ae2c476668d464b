package wsproxy_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"example.com/plainware/internal/memnet"
)

// The test client itself, against a server that echoes: what the tests of the
// proxy over HTTP/2 rest on.
func TestH2Client(t *testing.T) {
	long := strings.Repeat("~a9 \"{", 40) // symbols with short and long codes
	l := memnet.Listen()
	s := serveFront(t, frontH2C, l, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" || r.Header.Get(":protocol") != "websocket" || r.RequestURI != "/a?b" {
			t.Errorf("%s %s, %v", r.Method, r.RequestURI, r.Header)
		}
		w.Header().Set("X-Long", long)
		w.Header().Set("Sec-WebSocket-Protocol", r.Header.Get("Sec-WebSocket-Protocol"))
		w.WriteHeader(200)
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	})})
	c := newH2Client(t, s.dial(t), h2Config{})
	settings, err := c.Settings()
	if err != nil || settings[h2SettingConnect] != 1 {
		t.Fatalf("settings %v, %v", settings, err)
	}
	st, err := c.Request(connectFields("http", "example.com", "/a?b", [2]string{"sec-websocket-protocol", "chat"})...)
	if err != nil {
		t.Fatal(err)
	}
	status, h, err := st.Response()
	if err != nil || status != 200 || h.Get("X-Long") != long || h.Get("Sec-Websocket-Protocol") != "chat" {
		t.Fatalf("%d, %v, %v", status, h, err)
	}
	sent := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() {
		st.Write(sent)
		st.CloseWrite()
	}()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(sent), err)
	}
	if err := c.Ping(); err != nil {
		t.Fatal(err)
	}
	// Without :path the server resets the stream.
	st, err = c.Request([2]string{":method", "CONNECT"}, [2]string{":protocol", "websocket"},
		[2]string{":scheme", "http"}, [2]string{":authority", "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.Response(); !errors.Is(err, h2Reset(h2ProtocolError)) {
		t.Fatalf("without a path: %v", err)
	}
}
