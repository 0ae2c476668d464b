package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/store"
	"example.com/plainware/timeout"
	"example.com/plainware/upstream"
)

// order sends a POST without a body.
func order(t *testing.T, g *instance, path string) answer {
	t.Helper()
	return do(t, newClient(t, false), request(t, "POST", g.url+path, nil))
}

// breakerOf is what the gateway shows of one back end.
func breakerOf(t *testing.T, g *instance, target string) map[string]any {
	t.Helper()
	res := get(t, newClient(t, false), g.url+"/-/breakers")
	if res.StatusCode != 200 || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %d %v %s", res.StatusCode, res.Header, res.body)
	}
	for _, b := range res.decode(t)["breakers"].([]any) {
		if b := b.(map[string]any); b["target"] == target {
			return b
		}
	}
	t.Fatalf("%s is not in %s", target, res.body)
	return nil
}

// A back end that is killed costs nobody an answer. Its breaker opens, is half-open
// after a while, and closes when the back end is there again, which the log and
// the endpoint show.
func TestBreaker(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		checkGoroutines(t)
		demos, err := startDemos("one", "two")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(demos.Close)
		one := demos.urls[0].String()
		g := serveConfig(t, config{targets: demos.urls, demos: demos, limits: edgeLimits(0), streams: t.Context()}, func(c *config) {
			c.breaker.OpenFor, c.breaker.MaxOpen, c.breaker.Ramp = 300*time.Millisecond, -1, -1
			// A check between the kill and the fifth failure would leave the
			// breaker without the rest of them.
			c.calls.Check = nil
		})
		answered := func() (by string) {
			t.Helper()
			res := get(t, client, g.url+"/hello")
			if res.StatusCode != 200 {
				t.Fatalf("status %d %s", res.StatusCode, res.body)
			}
			return fmt.Sprint(res.decode(t)["backend"])
		}
		if b := breakerOf(t, g, one); b["state"] != "closed" || b["health"] != "healthy" || b["openings"] != 0.0 {
			t.Errorf("at the start: %v", b)
		}

		if res := order(t, g, "/-/demo/kill?backend=one"); res.body != `{"backend":"one","running":false}`+"\n" {
			t.Fatalf("kill: %d %s", res.StatusCode, res.body)
		}
		for range 10 {
			if by := answered(); by != "two" {
				t.Errorf("the answer is by %s", by)
			}
		}
		if line := g.log.line(t, "breaker is open", ""); line["target"] != one || line["from"] != "closed" || line["level"] != "WARN" {
			t.Errorf("log: %v", line)
		}
		if b := breakerOf(t, g, one); b["openings"] == 0.0 || b["state"] == "closed" {
			t.Errorf("after the kill: %v", b)
		}
		g.log.line(t, "breaker is half-open", "")

		if res := order(t, g, "/-/demo/start?backend=one"); res.body != `{"backend":"one","running":true}`+"\n" {
			t.Fatalf("start: %d %s", res.StatusCode, res.body)
		}
		eventually(t, func() bool {
			answered()
			return breakerOf(t, g, one)["state"] == "closed"
		}, g.log.String)
		if line := g.log.line(t, "breaker is closed", ""); line["target"] != one || line["from"] != "half-open" {
			t.Errorf("log: %v", line)
		}
		by := map[string]int{}
		for range 4 {
			by[answered()]++
		}
		if by["one"] != 2 || by["two"] != 2 {
			t.Errorf("not in turn: %v", by)
		}
	})
}

// Where all back ends are down the client is told when to come again, and the
// method does not matter.
func TestBreakerOpen(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil)
	overBoth(t, func(t *testing.T, client *http.Client) {
		eventually(t, func() bool { return get(t, client, g.url).StatusCode == 503 }, g.log.String)
		for _, method := range []string{"GET", "POST"} {
			res := do(t, client, request(t, method, g.url, strings.NewReader("body")))
			res.wantProblem(t, 503, "")
			if res.Header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After in %v", method, res.Header)
			}
		}
	})
}

// What a gateway has found out is known after a restart.
func TestBreakerIsKept(t *testing.T) {
	checkGoroutines(t)
	file, dead := "sqlite:"+filepath.Join(t.TempDir(), "gateway.db"), deadURL(t)
	one := start(t, "-store", file, "-target", dead)
	for range 10 {
		get(t, newClient(t, false), one.url)
	}
	eventually(t, func() bool { return strings.Contains(one.log.String(), `"fleet":true`) }, one.log.String)
	one.stop()
	two := start(t, "-store", file, "-target", dead)
	// A breaker does not wait for its store for long, and a busy machine may take
	// longer. Once it has the store's answer it knows.
	eventually(t, func() bool { return breakerOf(t, two, dead)["shared"] == true }, two.log.String)
	if b := breakerOf(t, two, dead); b["state"] == "closed" {
		t.Errorf("after the restart: %v", b)
	}
}

// A store that cannot keep what it is given is no reason not to start.
func TestBreakerWithoutKeep(t *testing.T) {
	mem, err := store.NewMemory(store.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	g := assembled(t, edgeLimits(0), func(c *config) { c.store = struct{ store.Store }{mem} },
		func(http.ResponseWriter, *http.Request) {})
	g.log.line(t, "breakers are this gateway's own, the store cannot keep them", "")
	if res := get(t, newClient(t, false), g.url); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// No client can open a breaker: not by uploads that stall, nor by answers that it
// does not take.
func TestBreakerAndClients(t *testing.T) {
	// A total that a busy machine needs for the head of an answer would be the
	// back end's failure, and rightly counted.
	for name, limits := range map[string]timeout.Limits{"ReadIdle": {ReadIdle: short}, "Total": {Total: 3 * time.Second}} {
		limits.Grace = patience // no line is written before the end
		t.Run(name, func(t *testing.T) {
			g := assembled(t, limits, nil, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/endless" {
					for {
						if _, err := w.Write(make([]byte, 64<<10)); err != nil {
							return
						}
					}
				}
			})
			var stalled, endless [6]net.Conn
			for i := range stalled {
				stalled[i] = stallHTTP1(t, g)
			}
			for _, conn := range stalled {
				if res := answerHTTP1(t, conn); res.StatusCode != 408 && res.StatusCode != 503 {
					t.Errorf("stalled upload: status %d", res.StatusCode)
				}
			}
			for i := range endless {
				endless[i] = dial(t, g)
				fmt.Fprint(endless[i], "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			late := 0.0 // heads of answers
			for _, conn := range endless {
				head := make([]byte, 100)
				if _, err := io.ReadFull(conn, head); err != nil {
					t.Error(err)
				}
				if bytes.HasPrefix(head, []byte("HTTP/1.1 503 ")) {
					late++
				}
				if limits.Total == 0 {
					conn.Close() // the client leaves, in the place of the limit
				}
			}
			// The end of each is known once its line is in the log.
			eventually(t, func() bool { return strings.Count(g.log.String(), `"msg":"request"`) == 12 }, g.log.String)
			res := get(t, newClient(t, false), g.url+"/-/breakers")
			if b := res.decode(t)["breakers"].([]any)[0].(map[string]any); b["state"] != "closed" || b["failures"] != late {
				t.Errorf("the breaker is %v, %v answers were late", b, late)
			}
		})
	}
}

// What is not the back end's fault does not count against it.
func TestJudge(t *testing.T) {
	late := &timeout.Error{Phase: timeout.Total}
	for _, tt := range []struct {
		result breaker.Result
		want   breaker.Outcome
	}{
		{breaker.Result{Status: 200}, breaker.Success},
		{breaker.Result{Status: 404}, breaker.Success},
		{breaker.Result{Status: 500}, breaker.Failure},
		{breaker.Result{Err: errors.New("broken")}, breaker.Failure},
		{breaker.Result{Err: &upstream.Error{Kind: upstream.KindClientGone}}, breaker.Ignored},
		{breaker.Result{Err: &upstream.Error{Kind: upstream.KindDial}}, breaker.Failure},
		{breaker.Result{Status: 200, Err: &upstream.Error{Kind: upstream.KindBodyAborted}}, breaker.Failure},
		{breaker.Result{Err: &upstream.Error{Kind: upstream.KindClientBody}}, breaker.Ignored},
		{breaker.Result{Err: &upstream.Error{Kind: upstream.KindQueueFull}}, breaker.Ignored},
		{breaker.Result{Err: &upstream.Error{Kind: upstream.KindClosed}}, breaker.Ignored},
		{breaker.Result{Err: late}, breaker.Failure},
		{breaker.Result{Err: late, Status: 200}, breaker.Ignored},
		{breaker.Result{Err: late, Request: request(t, "POST", "http://a", strings.NewReader("body"))}, breaker.Ignored},
	} {
		if tt.result.Request == nil {
			tt.result.Request = request(t, "GET", "http://a", nil)
		}
		if got := judge(tt.result); got != tt.want {
			t.Errorf("%d %v: %v, want %v", tt.result.Status, tt.result.Err, got, tt.want)
		}
	}
}

// Two back ends never have one name, and every name is one that breaker takes.
func TestBreakerName(t *testing.T) {
	seen := map[string]string{}
	for _, target := range []string{
		"http://a", "https://a", "http://a:80", "http://a-80", "http://a/x", "http://[::1]:80",
		"http://" + strings.Repeat("long.", 60) + "example", "http://bücher.example",
	} {
		name := breakerName(target)
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both %s", target, other, name)
		}
		seen[name] = target
		b, err := breaker.New(breaker.Config{Name: name})
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		b.Close()
	}
}
