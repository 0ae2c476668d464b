package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echo is a back end for WebSockets that wants Origin to be Host, as most do. It
// tells its name and what it was asked for, then what it is told.
func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "mine")
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer conn.CloseNow()
		said := []byte(fmt.Sprintf("%s %s for %s, %s", name, r.RequestURI, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Request-Id")))
		for kind := websocket.MessageText; err == nil; {
			if err = conn.Write(r.Context(), kind, said); err == nil {
				kind, said, err = conn.Read(r.Context())
			}
		}
	}
}

// echoes starts a back end of each name.
func echoes(t *testing.T, names ...string) (targets []*url.URL) {
	t.Helper()
	for _, name := range names {
		srv := httptest.NewServer(echo(name))
		t.Cleanup(srv.Close)
		targets = append(targets, mustURL(t, srv.URL))
	}
	return targets
}

// connects opens a WebSocket over one of the protocols.
var connects = map[string]func(t *testing.T, g *instance, path string) (c chatter, id []string){
	"HTTP/1.1": func(t *testing.T, g *instance, path string) (chatter, []string) {
		t.Helper()
		c, res, err := connectHTTP1(t, g, path, g.url)
		if err != nil {
			t.Fatal(err)
		}
		return c, res.Header["X-Request-Id"]
	},
	"HTTP/2": func(t *testing.T, g *instance, path string) (chatter, []string) {
		t.Helper()
		c, head := connectHTTP2(t, g, path, g.url)
		if status := head.PseudoValue("status"); status != "200" {
			t.Fatalf("status %s", status)
		}
		var id []string
		for _, f := range head.RegularFields() {
			if f.Name == "x-request-id" {
				id = append(id, f.Value)
			}
		}
		return c, id
	},
}

// With -target WebSockets go to the given servers, below the path of each, over
// both protocols and for longer than -timeout. When the gateway stops, clients are
// told to come again.
func TestSockets(t *testing.T) {
	for name, connect := range connects {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			srv := httptest.NewServer(echo("a"))
			t.Cleanup(srv.Close)
			const limit = 50 * time.Millisecond
			g := start(t, "-target", srv.URL+"/base/", "-timeout", limit.String())
			c, id := connect(t, g, "/room?n=1")
			if len(id) != 1 || len(id[0]) != 36 {
				t.Fatalf("X-Request-Id %q", id)
			}
			if got := c.hear(t); got != "a /base/room?n=1 for 127.0.0.1, "+id[0] {
				t.Errorf("heard %q", got)
			}
			time.Sleep(3 * limit) // of a real process; a machine that takes longer shows the same
			c.say(t, "still here")
			if got := c.hear(t); got != "still here" {
				t.Errorf("heard %q", got)
			}

			stopped := make(chan struct{})
			go func() { defer close(stopped); g.stop() }()
			if code := c.ended(t); code != 1012 {
				t.Errorf("closed with %d, want 1012", code)
			}
			<-stopped
			log := g.log.String()
			if line := strings.Index(log, `"msg":"request"`); line < 0 || line > strings.Index(log, `"msg":"stopped"`) {
				t.Errorf("stopped before the handler had returned:\n%s", log)
			}
			want := map[string]float64{"HTTP/1.1": 101, "HTTP/2": 200}[name]
			if line := g.log.line(t, "request", id[0]); line["status"] != want {
				t.Errorf("log: %v", line)
			}
			if line := g.log.line(t, "WebSocket closed", ""); line["end"] != "drained" || !strings.HasPrefix(fmt.Sprint(line["target"]), "ws://127.0.0.1:") {
				t.Errorf("log: %v", line)
			}
		})
	}
}

// They go to the back ends in turn, and not to one that is down.
func TestSocketsInTurn(t *testing.T) {
	checkGoroutines(t)
	targets := echoes(t, "a", "b")
	targets = append(targets, mustURL(t, deadURL(t)))
	g := serveConfig(t, config{targets: targets, limits: edgeLimits(0), streams: t.Context()}, nil)
	for name, connect := range connects {
		t.Run(name, func(t *testing.T) {
			by := map[string]int{}
			for range 6 {
				c, _ := connect(t, g, "/")
				who, _, _ := strings.Cut(c.hear(t), " ")
				by[who]++
			}
			if by["a"]+by["b"] != 6 || by["a"] < 2 || by["b"] < 2 {
				t.Errorf("not in turn: %v", by)
			}
		})
	}
}

// Those of a canary's clients go to the canary, and they stay there.
func TestSocketsCanary(t *testing.T) {
	checkGoroutines(t)
	var targets []string
	for _, u := range echoes(t, "stable", "canary") {
		targets = append(targets, "-target", u.String())
	}
	for percent, want := range map[string]string{"0": "stable", "100": "canary"} {
		g := start(t, append(targets, "-canary", percent)...)
		c, res, err := connectHTTP1(t, g, "/", g.url)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.hear(t); !strings.HasPrefix(got, want+" ") {
			t.Errorf("%s %%: heard %q", percent, got)
		}
		if cookies := res.Cookies(); len(cookies) != 1 || cookies[0].Name != "gateway-canary" {
			t.Errorf("%s %%: cookies %v", percent, cookies)
		}
		c.CloseNow()
		g.stop()
	}
}

// Back ends may be spoken to over TLS.
func TestSocketsTLS(t *testing.T) {
	checkGoroutines(t)
	back := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Origin") // the back end has a Host of its own
		echo("tls")(w, r)
	}))
	t.Cleanup(back.Close)
	cfg := config{targets: []*url.URL{mustURL(t, back.URL)}, limits: edgeLimits(0), streams: t.Context()}
	g := serveConfig(t, cfg, func(c *config) {
		pool := x509.NewCertPool()
		pool.AddCert(back.Certificate())
		c.calls.TLS = &tls.Config{RootCAs: pool}
	})
	for name, connect := range connects {
		t.Run(name, func(t *testing.T) {
			c, id := connect(t, g, "/x")
			if got := c.hear(t); got != "tls /x for 127.0.0.1, "+strings.Join(id, " ") {
				t.Errorf("heard %q", got)
			}
		})
	}
}

// What a back end refuses is refused in its words, and with the gateway's ID.
func TestSocketsRefused(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil, echo("a"))
	_, res, err := connectHTTP1(t, g, "/", "http://evil.example")
	if err == nil || res == nil || res.StatusCode != 403 || len(res.Header["X-Request-Id"]) != 1 || len(res.Header.Get("X-Request-Id")) != 36 {
		t.Fatalf("HTTP/1.1: %v %v", err, res)
	}
	if b, _ := io.ReadAll(res.Body); !strings.Contains(string(b), "not authorized") { // the library's own
		t.Errorf("HTTP/1.1: %q", b)
	}
	if _, head := connectHTTP2(t, g, "/", "http://evil.example"); head.PseudoValue("status") != "403" {
		t.Errorf("HTTP/2: %v", head.Fields)
	}
}

// Where no back end can be reached it is a 502, and with open breakers a 503 that
// says when to come again, as for any request.
func TestSocketsUnreachable(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil)
	handshake := func() answer {
		req := request(t, "GET", g.url, nil)
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
			req.Header.Set(name, value)
		}
		return do(t, newClient(t, false), req)
	}
	res := handshake()
	res.wantProblem(t, 502, "bad_gateway")
	if line := g.log.line(t, "back end failed", res.Header.Get("X-Request-Id")); line["target"] == nil {
		t.Errorf("log: %v", line)
	}
	eventually(t, func() bool { res = handshake(); return res.StatusCode == 503 }, g.log.String)
	res.wantProblem(t, 503, "")
	if res.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After in %v", res.Header)
	}
	if _, head := connectHTTP2(t, g, "/", g.url); head.PseudoValue("status") != "503" {
		t.Errorf("HTTP/2: %v", head.Fields)
	}
}

// A back end that knows no WebSockets has its answer passed on, and one that
// answers as none does is a 502, with a line in the log.
func TestSocketsNotSpoken(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wrong" {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		io.WriteString(w, "what is a WebSocket?")
	})
	if _, res, err := connectHTTP1(t, g, "/", g.url); err == nil || res == nil || res.StatusCode != 200 {
		t.Errorf("got %v, %v", err, res)
	}
	if _, head := connectHTTP2(t, g, "/", g.url); head.PseudoValue("status") != "502" {
		t.Errorf("HTTP/2: %v", head.Fields)
	}
	_, res, err := connectHTTP1(t, g, "/wrong", g.url)
	if err == nil || res == nil || res.StatusCode != 502 {
		t.Fatalf("got %v, %v", err, res)
	}
	if line := g.log.line(t, "back end failed", res.Header.Get("X-Request-Id")); line["target"] == nil {
		t.Errorf("log: %v", line)
	}
}

// On a route of their own they go to the same back ends.
func TestSocketsOnRoute(t *testing.T) {
	cfg := config{
		targets: echoes(t, "a"), limits: edgeLimits(0), calls: callDefaults(), breaker: breakerDefaults(),
		logger: slog.New(slog.DiscardHandler), streams: t.Context(),
	}
	backs, err := newBackends(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backs.Close() })
	p, err := newProxy(cfg, backs)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := newSockets(cfg, backs, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	mux := http.NewServeMux()
	mux.Handle("/room", ws)
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	c, _, err := connectHTTP1(t, &instance{url: front.URL}, "/room", front.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.hear(t); !strings.HasPrefix(got, "a /room for 127.0.0.1") {
		t.Errorf("heard %q", got)
	}
}

// A handshake goes to one back end also where requests are hedged.
func TestSocketsHedged(t *testing.T) {
	checkGoroutines(t)
	targets := echoes(t, "a", "b")
	g := serveConfig(t, config{targets: targets, limits: edgeLimits(0), streams: t.Context()}, func(c *config) {
		c.calls.Retry.Hedge = 100 * time.Microsecond
	})
	for range 20 {
		c, _, err := connectHTTP1(t, g, "/", g.url)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.hear(t); !strings.Contains(got, " / for 127.0.0.1") {
			t.Errorf("heard %q", got)
		}
		c.CloseNow()
	}
}
