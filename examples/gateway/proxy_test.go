package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/plainware/timeout"
)

// short is a limit that a test can wait for.
const short = 100 * time.Millisecond

// A back end that takes too long is a 503 with the ID, while it still works.
func TestTotal(t *testing.T) {
	var entered, gone atomic.Int64
	g := assembled(t, timeout.Limits{Total: short}, nil, func(_ http.ResponseWriter, r *http.Request) {
		entered.Add(1)
		<-r.Context().Done()
		gone.Add(1)
	})
	overBoth(t, func(t *testing.T, client *http.Client) {
		// On a busy machine the limit may have passed before the back end is reached.
		for before := entered.Load(); entered.Load() == before; {
			res := get(t, client, g.url)
			res.wantProblem(t, 503, "")
			if line := g.log.line(t, "request", res.Header.Get("X-Request-Id")); line["status"] != 503.0 {
				t.Errorf("log: %v", line)
			}
		}
		eventually(t, func() bool { return gone.Load() == entered.Load() }, func() string { return "the back end's request was not given up" })
	})
}

// A route's limit holds for that route alone, and an event stream has none.
func TestRoutes(t *testing.T) {
	checkGoroutines(t)
	demos, err := startDemos("one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(demos.Close)
	routes := demoRoutes()
	// The handler is left behind, and the log has its route nevertheless.
	routes["GET /slow"] = timeout.Limits{Total: short, Grace: -1}
	g := serveConfig(t, config{
		targets: demos.urls,
		limits:  edgeLimits(time.Minute),
		routes:  routes,
		streams: t.Context(),
	}, nil)
	overBoth(t, func(t *testing.T, client *http.Client) {
		res := get(t, client, g.url+"/slow?ms=60000")
		res.wantProblem(t, 503, "")
		if line := g.log.line(t, "request", res.Header.Get("X-Request-Id")); line["route"] != "GET /slow" {
			t.Errorf("log: %v", line)
		}
		if res := get(t, client, g.url+"/hello"); res.StatusCode != 200 {
			t.Errorf("/hello: status %d", res.StatusCode)
		}
	})
}

// An upload that stalls is answered: 408 by the limit on silence, 503 by the
// one on the whole request.
func TestStalledUpload(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits timeout.Limits
		status int
	}{
		{"ReadIdle", timeout.Limits{ReadIdle: short}, 408},
		{"Total", timeout.Limits{Total: short}, 503},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := assembled(t, tc.limits, nil, func(_ http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
			})
			t.Run("HTTP/1.1", func(t *testing.T) {
				res := stalledHTTP1(t, g)
				res.wantProblem(t, tc.status, "")
				if !res.Close {
					t.Error("the connection, with half an upload on it, is not closed")
				}
			})
			t.Run("HTTP/2", func(t *testing.T) {
				body, w := io.Pipe()
				defer w.Close()
				go io.WriteString(w, "abc")
				do(t, newClient(t, true), request(t, "POST", g.url, body)).wantProblem(t, tc.status, "")
			})
		})
	}
}

// stalledHTTP1 declares an upload of 1000 bytes, sends three, and reads the
// answer.
func stalledHTTP1(t *testing.T, g *instance) answer {
	t.Helper()
	return answerHTTP1(t, stallHTTP1(t, g))
}

func stallHTTP1(t *testing.T, g *instance) net.Conn {
	t.Helper()
	conn := dial(t, g)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
	return conn
}

func answerHTTP1(t *testing.T, conn net.Conn) answer {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}

func dial(t *testing.T, g *instance) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// A back end that cannot be reached is a 502. The log says why, the client
// learns no address.
func TestUnreachable(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil)
	overBoth(t, func(t *testing.T, client *http.Client) {
		res := get(t, client, g.url)
		res.wantProblem(t, 502, "bad_gateway")
		if strings.Contains(res.body, "127.0.0.1") {
			t.Errorf("the body tells %s", res.body)
		}
		line := g.log.line(t, "back end failed", res.Header.Get("X-Request-Id"))
		if line["target"] == nil || !strings.Contains(fmt.Sprint(line["error"]), "127.0.0.1") {
			t.Errorf("log: %v", line)
		}
	})
	// The answer does not wait for the rest of an upload. From Go 1.27 on the
	// transport closes the body of a call that failed, for which the server reads
	// on: then it is the limit that answers.
	t.Run("stalled upload", func(t *testing.T) {
		res := stalledHTTP1(t, assembled(t, timeout.Limits{ReadIdle: short}, nil))
		if res.StatusCode == http.StatusRequestTimeout {
			res.wantProblem(t, 408, "timeout_read_idle")
		} else {
			res.wantProblem(t, 502, "bad_gateway")
		}
		if !res.Close {
			t.Error("the connection, with half an upload on it, is not closed")
		}
	})
}

// A back end that accepts a request and does not begin to answer is a 504.
func TestHungBackEnd(t *testing.T) {
	g := assembled(t, edgeLimits(0), func(c *config) { c.calls.Conns.HeaderTimeout = short },
		func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
	overBoth(t, func(t *testing.T, client *http.Client) {
		get(t, client, g.url).wantProblem(t, 504, "gateway_timeout")
		do(t, client, request(t, "POST", g.url, strings.NewReader("body"))).wantProblem(t, 504, "gateway_timeout")
	})
}

// A client that leaves is no back end's fault: 499, and no warning.
func TestClientGone(t *testing.T) {
	entered := make(chan struct{}, 1)
	g := assembled(t, edgeLimits(0), nil, func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	conn := dial(t, g)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	conn.Close()
	if line := g.log.line(t, "request", ""); line["status"] != 499.0 {
		t.Errorf("log: %v", line)
	}
	if strings.Contains(g.log.String(), "back end failed") {
		t.Errorf("log: %s", g.log)
	}
}

// An answer that breaks off at the back end breaks off at the client, and the
// log says why and for which request.
func TestBrokenAnswer(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 100_000))
		panic(http.ErrAbortHandler)
	})
	overBoth(t, func(t *testing.T, client *http.Client) {
		res, err := client.Do(request(t, "GET", g.url, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("the client takes half an answer for a whole one")
		}
		id := res.Header.Get("X-Request-Id")
		if line := g.log.line(t, "request", id); line["aborted"] != true || line["status"] != 200.0 {
			t.Errorf("log: %v", line)
		}
		line := g.log.line(t, "upstream: response broken off", id)
		if !strings.HasSuffix(fmt.Sprint(line["error"]), "unexpected EOF") || line["backend"] == nil {
			t.Errorf("log: %v", line)
		}
	})
}

// One ID reaches the client, also when the back end has its own idea of it or
// sends a 103 first, which is passed on.
func TestResponseFields(t *testing.T) {
	g := assembled(t, edgeLimits(time.Minute), nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("X-Request-Id", "mine")
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Sum", "42")
	})
	overBoth(t, func(t *testing.T, client *http.Client) {
		var hints []string
		req := request(t, "GET", g.url, nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h["Link"]))
				return nil
			},
		}))
		res := do(t, client, req)
		if got := fmt.Sprint(hints); got != "[103 [</style.css>; rel=preload]]" {
			t.Errorf("early hints %s", got)
		}
		if ids := res.Header["X-Request-Id"]; len(ids) != 1 || ids[0] != res.body {
			t.Errorf("X-Request-Id %q, the back end saw %q", ids, res.body)
		}
		if res.StatusCode != http.StatusTeapot || res.Header.Get("Link") != "" || res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("status %d, Link %q, trailer %v", res.StatusCode, res.Header.Get("Link"), res.Trailer)
		}
	})
}

// A compressed answer stays as it is, and no client that did not ask for
// compression makes the gateway ask for it.
func TestNoCompression(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "accepted: "+r.Header.Get("Accept-Encoding"))
	})
	overBoth(t, func(t *testing.T, client *http.Client) {
		if res := get(t, client, g.url); res.body != "accepted: " || res.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("got %q, %v", res.body, res.Header)
		}
	})
}

// A protocol that nobody has allowed is not switched to.
func TestUpgrade(t *testing.T) {
	checkGoroutines(t)
	g := start(t, "-target", shouting(t))
	conn, in := wantNoShout(t, g)
	// Nor is one that says websocket and is none.
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer{res, string(body)}.wantProblem(t, 400, "websocket_handshake")
}

// Where there are routes, an upgraded connection carries bytes both ways and ends
// with the gateway's base context.
func TestUpgradeOnRoute(t *testing.T) {
	checkGoroutines(t)
	g := serveConfig(t, config{
		targets: []*url.URL{mustURL(t, shouting(t))}, limits: edgeLimits(0), routes: map[string]timeout.Limits{"/": {}}, streams: t.Context(),
	}, nil)
	conn, in := wantNoShout(t, g)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := res.Header.Get("X-Request-Id")
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || len(id) != 36 || len(res.Header["X-Request-Id"]) != 1 {
		t.Fatalf("got %d, %v", res.StatusCode, res.Header)
	}
	for _, word := range []string{"hello\n", "again\n"} {
		io.WriteString(conn, word)
		if got, err := in.ReadString('\n'); got != strings.ToUpper(word) {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	g.stop()
	if _, err := in.ReadByte(); err == nil {
		t.Error("the tunnel is open although the gateway has stopped")
	}
	if line := g.log.line(t, "request", id); line["status"] != 101.0 {
		t.Errorf("log: %v", line)
	}
}

// wantNoShout asks for a protocol that nobody has allowed.
func wantNoShout(t *testing.T, g *instance) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := dial(t, g)
	in := bufio.NewReader(conn)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != 204 || res.Header.Get("Upgrade") != "" {
		t.Fatalf("shout: got %d, %v", res.StatusCode, res.Header)
	}
	return conn, in
}

// shouting is the URL of back ends as shout is one.
func shouting(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for { // the gateway's checks make connections as well
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go shout(conn)
		}
	}()
	return "http://" + ln.Addr().String()
}

// shout is a back end that can be switched to a protocol which gives back each
// line in capitals.
func shout(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if proto := req.Header.Get("Upgrade"); proto != "" {
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Request-Id: mine\r\n\r\n", proto)
			break
		}
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		io.WriteString(conn, strings.ToUpper(line))
	}
}

// The gateway is no forward proxy: neither CONNECT nor an absolute URL takes a
// client anywhere but to the targets.
func TestNoForwardProxy(t *testing.T) {
	g := assembled(t, edgeLimits(0), nil, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "the target, ", r.RequestURI)
	})
	for request, want := range map[string]struct {
		status int
		body   string
	}{
		"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n": {501, `"code":"connect"`},
		"GET http://other.example/path HTTP/1.1\r\nHost: other.example\r\n\r\n": {200, "the target, /path"},
	} {
		conn := dial(t, g)
		io.WriteString(conn, request)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want.status || !strings.Contains(string(body), want.body) {
			t.Errorf("%q: got %d %s", request, res.StatusCode, body)
		}
	}
}

// A back end that is down costs nobody an answer: what it could not be sent goes
// to the other one, whatever the method.
func TestOneOfTwoDown(t *testing.T) {
	checkGoroutines(t)
	demos, err := startDemos("one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(demos.Close)
	g := serveConfig(t, config{
		targets: []*url.URL{mustURL(t, deadURL(t)), demos.urls[0]},
		limits:  edgeLimits(0),
		streams: t.Context(),
	}, nil)
	client := newClient(t, false)
	for _, want := range []int{200, 200, 200, 200} {
		if res := get(t, client, g.url+"/hello"); res.StatusCode != want {
			t.Errorf("status %d, want %d", res.StatusCode, want)
		}
		if res := do(t, client, request(t, "POST", g.url+"/upload", strings.NewReader("body"))); res.StatusCode != want {
			t.Errorf("POST: status %d, want %d", res.StatusCode, want)
		}
	}
}

// An https back end is spoken to over HTTP/2 where it can, and its certificate
// is checked.
func TestTLSBackEnd(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		checkGoroutines(t)
		back := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto)
		}))
		back.EnableHTTP2 = true
		back.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
		back.StartTLS()
		t.Cleanup(back.Close)
		cfg := config{targets: []*url.URL{mustURL(t, back.URL)}, limits: edgeLimits(0), streams: t.Context()}
		g := serveConfig(t, cfg, func(c *config) {
			if trusted {
				pool := x509.NewCertPool()
				pool.AddCert(back.Certificate())
				c.calls.TLS = &tls.Config{RootCAs: pool}
			}
		})
		res := get(t, newClient(t, false), g.url)
		if trusted && (res.StatusCode != 200 || res.body != "HTTP/2.0") {
			t.Errorf("got %d %q", res.StatusCode, res.body)
		} else if !trusted {
			res.wantProblem(t, 502, "bad_gateway")
		}
	}
}
