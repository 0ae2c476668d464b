package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// logged serves h below an access log and returns what a test talks to.
func logged(t *testing.T, h http.HandlerFunc) *instance {
	t.Helper()
	checkGoroutines(t)
	g := &instance{log: new(logBuffer)}
	logger := slog.New(slog.NewJSONHandler(g.log, nil))
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = newServer(accessLog(logger, h), logger)
	srv.Start()
	t.Cleanup(srv.Close)
	g.url = srv.URL
	return g
}

// The line has the final status, also when the handler only flushes, writes
// without a status, or does nothing, and after an informational response.
func TestAccessLogStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		h      http.HandlerFunc
		status float64
		bytes  float64
	}{
		"nothing":   {func(http.ResponseWriter, *http.Request) {}, 200, 0},
		"write":     {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "abc") }, 200, 3},
		"flush":     {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, 200, 0},
		"status":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); io.WriteString(w, "abc") }, 404, 3},
		"after 103": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(404) }, 404, 0},
		"too late":  {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "abc"); w.WriteHeader(500) }, 200, 3},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				g := logged(t, tc.h)
				res := get(t, client, g.url+"/a%2Fb?secret=1")
				line := g.log.line(t, "request", "")
				if line["status"] != tc.status || line["bytes"] != tc.bytes || float64(res.StatusCode) != tc.status {
					t.Errorf("client got %d, log: %v", res.StatusCode, line)
				}
				if line["path"] != "/a%2Fb" || line["method"] != "GET" || line["proto"] != res.Proto || line["aborted"] != nil {
					t.Errorf("log: %v", line)
				}
			})
		})
	}
}

// A handler that panics has its line, and the panic goes on to the server.
func TestAccessLogPanic(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		g := logged(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		if res, err := client.Do(request(t, "GET", g.url, nil)); err == nil {
			res.Body.Close()
			t.Errorf("got status %d", res.StatusCode)
		}
		if line := g.log.line(t, "request", ""); line["status"] != 0.0 || line["aborted"] != true {
			t.Errorf("log: %v", line)
		}
	})
}

// What handlers can do with the server's writer they can do with the log's, and
// nothing is claimed that would fail.
func TestAccessLogAbilities(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		g := logged(t, func(w http.ResponseWriter, r *http.Request) {
			_, flush := w.(http.Flusher)
			_, hijack := w.(http.Hijacker)
			if !flush || hijack != (r.ProtoMajor == 1) {
				t.Errorf("%s: Flusher %v, Hijacker %v", r.Proto, flush, hijack)
			}
			rc := http.NewResponseController(w)
			if err := rc.EnableFullDuplex(); err != nil {
				t.Errorf("%s: %v", r.Proto, err)
			}
			if err := rc.Flush(); err != nil {
				t.Errorf("%s: %v", r.Proto, err)
			}
		})
		get(t, client, g.url)
	})
}
