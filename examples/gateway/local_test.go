package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Only this machine sees the operator's paths; for everybody else they are like
// any other.
func TestLocal(t *testing.T) {
	own := http.NewServeMux()
	for _, pattern := range []string{"GET /-/breakers", "POST /-/demo/kill"} {
		own.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "own") })
	}
	h := local(own, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "back end") }))
	for _, tt := range []struct {
		name, method, path, peer, host, field string
		want                                  string
	}{
		{"IPv4", "GET", "/-/breakers", "127.0.0.1:4711", "127.0.0.1:8080", "", "own"},
		{"IPv6", "GET", "/-/breakers", "[::1]:4711", "[::1]:8080", "", "own"},
		{"mapped", "GET", "/-/breakers", "[::ffff:127.0.0.1]:4711", "localhost:8080", "", "own"},
		{"no port", "GET", "/-/breakers", "127.0.0.1:4711", "LocalHost", "", "own"},
		{"IPv6, no port", "GET", "/-/breakers", "[::1]:4711", "[::1]", "", "own"},
		{"POST", "POST", "/-/demo/kill", "127.0.0.1:4711", "127.0.0.1:8080", "", "own"},
		{"another method", "POST", "/-/breakers", "127.0.0.1:4711", "127.0.0.1:8080", "", "back end"},
		{"another path", "GET", "/-/health", "127.0.0.1:4711", "127.0.0.1:8080", "", "back end"},
		{"another machine", "GET", "/-/breakers", "192.0.2.1:4711", "127.0.0.1:8080", "", "back end"},
		{"no address", "GET", "/-/breakers", "@", "127.0.0.1:8080", "", "back end"},
		{"rebound name", "GET", "/-/breakers", "127.0.0.1:4711", "evil.example:8080", "", "back end"},
		{"public address", "GET", "/-/breakers", "127.0.0.1:4711", "192.0.2.1:8080", "", "back end"},
		{"proxy", "GET", "/-/breakers", "127.0.0.1:4711", "127.0.0.1:8080", "X-Forwarded-For: 192.0.2.1", "back end"},
		{"proxy, RFC 7239", "GET", "/-/breakers", "127.0.0.1:4711", "127.0.0.1:8080", "Forwarded: for=192.0.2.1", "back end"},
		{"proxy, real IP", "GET", "/-/breakers", "127.0.0.1:4711", "127.0.0.1:8080", "X-Real-Ip: 192.0.2.1", "back end"},
		{"proxy, Via", "GET", "/-/breakers", "127.0.0.1:4711", "127.0.0.1:8080", "Via: 1.1 nginx", "back end"},
		{"page in a browser", "POST", "/-/demo/kill", "127.0.0.1:4711", "127.0.0.1:8080", "Sec-Fetch-Site: cross-site", "cross-origin"},
		{"page in an old browser", "POST", "/-/demo/kill", "127.0.0.1:4711", "127.0.0.1:8080", "Origin: http://evil.example", "cross-origin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil)
			r.RemoteAddr, r.Host = tt.peer, tt.host
			if name, value, ok := strings.Cut(tt.field, ": "); ok {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if !strings.HasPrefix(w.Body.String(), tt.want) || (w.Code == 200) != (tt.want != "cross-origin") {
				t.Errorf("got %d %s, want %s", w.Code, w.Body, tt.want)
			}
		})
	}
}

// The operator is not under the limits on rate, and the paths are in the log as
// any others.
func TestLocalAndRates(t *testing.T) {
	g := start(t)
	for range 40 {
		req := request(t, "GET", g.url+"/-/breakers", nil)
		req.Header.Set("X-Api-Key", "demo")
		if res := do(t, newClient(t, false), req); res.StatusCode != 200 || res.Header.Get("X-Request-Id") == "" {
			t.Fatalf("got %d %v", res.StatusCode, res.Header)
		}
	}
	if line := g.log.line(t, "request", ""); line["route"] != "GET /-/breakers" {
		t.Errorf("log: %v", line)
	}
	for _, path := range []string{"/-/demo/kill", "/-/demo/start?backend=three"} {
		if res := order(t, g, path); res.StatusCode != 404 {
			t.Errorf("%s: %d %s", path, res.StatusCode, res.body)
		}
	}
	// Without demo back ends there is nothing to kill.
	plain := start(t, "-target", deadURL(t))
	if res := order(t, plain, "/-/demo/kill?backend=one"); res.StatusCode < 500 {
		t.Errorf("kill of a back end that is not ours: %d %s", res.StatusCode, res.body)
	}
}
