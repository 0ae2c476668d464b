package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"
)

// With -canary a share of the clients goes to one more back end, by API key or
// cookie. Each stays where it is, and with a larger share nobody leaves.
func TestCanary(t *testing.T) {
	const users = 60
	by := func(t *testing.T, g *instance, user int) string {
		t.Helper()
		req := request(t, "GET", g.url+"/hello", nil)
		req.Header.Set("X-Api-Key", fmt.Sprint("user-", user))
		res := do(t, newClient(t, false), req)
		if res.StatusCode != 200 {
			t.Fatalf("status %d %s", res.StatusCode, res.body)
		}
		return fmt.Sprint(res.decode(t)["backend"])
	}
	var moved [users]bool
	for _, tt := range []struct {
		percent  string
		low, top int
	}{{"0", 0, 0}, {"20", 4, 24}, {"50", 20, 40}, {"100", users, users}} {
		t.Run(tt.percent, func(t *testing.T) {
			g := start(t, "-canary", tt.percent)
			n := 0
			for i := range users {
				canary := by(t, g, i) == "canary"
				if canary {
					n++
				}
				if again := by(t, g, i) == "canary"; again != canary {
					t.Errorf("user %d does not stay", i)
				}
				if moved[i] && !canary {
					t.Errorf("user %d has left the canary", i)
				}
				moved[i] = canary
			}
			if n < tt.low || n > tt.top {
				t.Errorf("%d of %d at the canary", n, users)
			}
			arms := get(t, newClient(t, false), g.url+"/-/breakers").decode(t)["arms"].([]any)
			if got := arms[1].(map[string]any); fmt.Sprint(got["percent"]) != tt.percent || got["requests"] != float64(2*n) || got["stopped"] != false {
				t.Errorf("arms: %v", arms)
			}
		})
	}
	t.Run("cookie", func(t *testing.T) {
		g := start(t, "-canary", "50")
		overBoth(t, func(t *testing.T, client *http.Client) {
			for range 8 {
				client.Jar, _ = cookiejar.New(nil)
				first := get(t, client, g.url+"/hello").decode(t)["backend"] == "canary"
				for range 4 {
					if again := get(t, client, g.url+"/hello").decode(t)["backend"] == "canary"; again != first {
						t.Error("the client does not stay")
					}
				}
			}
		})
	})
}

// With -target the canary is the last of them.
func TestCanaryTarget(t *testing.T) {
	var targets []string
	for _, name := range []string{"a", "b", "c"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+r.URL.Path) }))
		t.Cleanup(srv.Close)
		targets = append(targets, "-target", srv.URL+"/base")
	}
	g := start(t, append(targets, "-canary", "100")...)
	overBoth(t, func(t *testing.T, client *http.Client) {
		for range 4 {
			if res := get(t, client, g.url+"/x"); res.body != "c/base/x" {
				t.Errorf("got %q", res.body)
			}
		}
	})
}

// A back end that says it is not well gets no requests, although it would answer.
func TestHealth(t *testing.T) {
	var targets []string
	for _, name := range []string{"well", "ill"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" && name == "ill" {
				w.WriteHeader(503)
			}
			io.WriteString(w, name)
		}))
		t.Cleanup(srv.Close)
		targets = append(targets, "-target", srv.URL)
	}
	g := start(t, append(targets, "-health", "/health")...)
	if line := g.log.line(t, "upstream: back end is unhealthy", ""); line["level"] != "WARN" {
		t.Errorf("log: %v", line)
	}
	overBoth(t, func(t *testing.T, client *http.Client) {
		for range 4 {
			if res := get(t, client, g.url); res.body != "well" {
				t.Errorf("got %q", res.body)
			}
		}
	})
	if b := breakerOf(t, g, targets[3]); b["health"] != "unhealthy" || b["state"] != "closed" {
		t.Errorf("shown: %v", b)
	}
}
