package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/timeout"
)

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// instance is a gateway that runs inside the test.
type instance struct {
	url  string
	log  *logBuffer
	stop func() // sends the signal and waits; fails the test unless the exit status is 0

	printed logBuffer // on standard output, after the address
	stdout  *io.PipeReader
	status  chan int
	cancel  context.CancelFunc
}

// start runs the program with args, a free port and, unless args say otherwise,
// a store in memory. When the test ends it is stopped, and nothing of it may be
// left.
func start(t *testing.T, args ...string) *instance {
	t.Helper()
	checkGoroutines(t)
	g := launch(args...)
	g.attach(t)
	return g
}

// launch is start without waiting for the address; attach must follow.
func launch(args ...string) *instance {
	ctx, cancel := context.WithCancel(context.Background())
	stdout, w := io.Pipe()
	g := &instance{log: new(logBuffer), stdout: stdout, status: make(chan int, 1), cancel: cancel}
	go func() {
		s := run(ctx, append([]string{"-listen", "127.0.0.1:0", "-log", "json", "-store", "memory"}, args...), w, g.log)
		w.Close()
		g.status <- s
	}()
	return g
}

// attach waits for the address that the gateway prints.
func (g *instance) attach(t *testing.T) {
	t.Helper()
	g.stop = sync.OnceFunc(func() {
		g.cancel()
		select {
		case s := <-g.status:
			if s != 0 {
				t.Errorf("exit status %d, want 0\n%s", s, g.log)
			}
		case <-time.After(defaultGrace + patience):
			t.Errorf("the gateway does not stop\n%s", g.log)
		}
	})
	t.Cleanup(g.stop)

	lines := bufio.NewReader(g.stdout)
	first, err := lines.ReadString('\n')
	if err != nil {
		g.stop()
		t.Fatalf("no address was printed: %v\n%s", err, g.log)
	}
	go io.Copy(&g.printed, lines)
	g.url = strings.TrimSpace(strings.TrimPrefix(first, "gateway: listening on "))
}

// greeting waits for all that is printed after the address.
func (g *instance) greeting(t *testing.T) string {
	t.Helper()
	eventually(t, func() bool { return strings.Contains(g.printed.String(), "\n  curl ") }, func() string { return "printed only " + g.printed.String() })
	return g.printed.String()
}

// assembled is a gateway as newGateway builds it, for tests that need other
// limits than the program's.
func assembled(t *testing.T, limits timeout.Limits, change func(*config), back ...http.HandlerFunc) *instance {
	t.Helper()
	checkGoroutines(t)
	cfg := config{limits: limits, streams: t.Context()}
	for _, h := range back {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		cfg.targets = append(cfg.targets, mustURL(t, srv.URL))
	}
	if len(back) == 0 {
		cfg.targets = []*url.URL{mustURL(t, deadURL(t))}
	}
	return serveConfig(t, cfg, change)
}

// serveConfig completes cfg and serves it.
func serveConfig(t *testing.T, cfg config, change func(*config)) *instance {
	t.Helper()
	g := &instance{log: new(logBuffer)}
	var err error
	if cfg.logger, err = newLogger(true, g.log); err != nil {
		t.Fatal(err)
	}
	cfg.calls, cfg.breaker = callDefaults(), breakerDefaults()
	if change != nil {
		change(&cfg)
	}
	h, err := newGateway(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config = newServer(h, slog.New(cfg.logger.Handler()))
	srv.Start()
	g.url = srv.URL
	g.stop = sync.OnceFunc(func() {
		srv.Close() // waits for the requests in flight
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

// deadURL is the URL of a server that is not there.
func deadURL(t *testing.T) string { return "http://" + deadAddr(t) }

// deadAddr is an address where nobody listens: the client's of a connection. Until
// the end of the test it is taken, so that no server can get it by chance, as it
// could the address of one that has gone.
func deadAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// overBoth runs a test with a client of each protocol that the gateway speaks.
func overBoth(t *testing.T, f func(t *testing.T, client *http.Client)) {
	t.Helper()
	for _, name := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(name, func(t *testing.T) { f(t, newClient(t, name == "HTTP/2")) })
	}
}

func newClient(t *testing.T, h2c bool) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// answer is a response that has been read to its end.
type answer struct {
	*http.Response
	body string
}

func do(t *testing.T, client *http.Client, req *http.Request) answer {
	t.Helper()
	res, err := client.Do(req)
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

func get(t *testing.T, client *http.Client, url string) answer {
	t.Helper()
	return do(t, client, request(t, "GET", url, nil))
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// decode reads the JSON object that the answer is.
func (a answer) decode(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return m
}

// wantProblem checks that the answer is the RFC 9457 problem with this status
// and code, and that it names the request.
func (a answer) wantProblem(t *testing.T, status int, code string) {
	t.Helper()
	if a.StatusCode != status || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %s %q, want a %d problem", a.StatusCode, a.Header.Get("Content-Type"), a.body, status)
	}
	m := a.decode(t)
	id := a.Header.Get("X-Request-Id")
	if m["status"] != float64(status) || code != "" && m["code"] != code || id == "" || m["request_id"] != id {
		t.Errorf("got %s with X-Request-Id %q, want status %d, code %q", a.body, id, status, code)
	}
}

// logBuffer collects what is written, JSON log lines above all.
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

// line waits for the first line with this message and, unless it is empty,
// this request ID. A client may have its answer before the line is written.
func (b *logBuffer) line(t *testing.T, msg, id string) map[string]any {
	t.Helper()
	var found map[string]any
	eventually(t, func() bool {
		for l := range strings.Lines(b.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(l), &m); err != nil {
				t.Fatalf("%v in log line %q", err, l)
			}
			if m["msg"] == msg && (id == "" || m["request_id"] == id) {
				found = m
				return true
			}
		}
		return false
	}, func() string { return "no line " + msg + " " + id + " in\n" + b.String() })
	return found
}

// eventually waits until cond holds.
func eventually(t *testing.T, cond func() bool, otherwise func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal(otherwise())
		}
	}
}

// checkGoroutines fails the test if more goroutines are left at its end than
// there were now. Call it first, so that its cleanup is the last.
func checkGoroutines(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		eventually(t, func() bool { return runtime.NumGoroutine() <= before }, func() string {
			buf := make([]byte, 1<<20)
			return "goroutines are left:\n" + string(buf[:runtime.Stack(buf, true)])
		})
	})
}

// ended is a context that is over.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
