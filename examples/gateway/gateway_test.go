package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/plainware/reqid"
)

// Requests go to the two demo back ends in turn, and the ID in the response is
// the one that the back end saw and the log has.
func TestHello(t *testing.T) {
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		backends := map[any]int{}
		for range 4 {
			res := get(t, client, g.url+"/hello")
			body := res.decode(t)
			backends[body["backend"]]++
			id := res.Header.Get("X-Request-Id")
			if res.StatusCode != 200 || len(id) != 36 || body["request_id"] != id {
				t.Errorf("status %d, X-Request-Id %q, back end saw %v", res.StatusCode, id, body["request_id"])
			}
			line := g.log.line(t, "request", id)
			for key, want := range map[string]any{
				"method": "GET", "path": "/hello", "route": "GET /hello",
				"status": 200.0, "bytes": float64(len(res.body)), "proto": res.Proto, "aborted": nil,
			} {
				if line[key] != want {
					t.Errorf("log: %s is %v, want %v", key, line[key], want)
				}
			}
		}
		if backends["one"] != 2 || backends["two"] != 2 {
			t.Errorf("not in turn: %v", backends)
		}
	})
}

// An ID from outside reaches neither the back end nor the response. A harmless
// one is in the log, beside the one that replaced it; a hostile one is nowhere.
func TestRequestIDFromClient(t *testing.T) {
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		for name, values := range map[string][]string{
			"valid":     {"order-4711"},
			"long":      {strings.Repeat("x", 30_000)},
			"lookup":    {"${jndi:ldap://evil/a}"},
			"spaces":    {"a b"},
			"quote":     {`a" level="ERROR`},
			"non-ASCII": {"caf\xe9 \u202e"},
			"two lines": {"first", "second"},
		} {
			t.Run(name, func(t *testing.T) {
				req := request(t, "GET", g.url+"/hello", nil)
				req.Header["X-Request-Id"] = values
				res := do(t, client, req)
				id := res.Header.Get("X-Request-Id")
				if res.StatusCode != 200 || !reqid.Valid(id) || len(id) != 36 || res.decode(t)["request_id"] != id {
					t.Fatalf("status %d, X-Request-Id %q, body %s", res.StatusCode, id, res.body)
				}
				line := g.log.line(t, "request", id)
				var want any
				if name == "valid" {
					want = values[0]
				}
				if line["client_request_id"] != want {
					t.Errorf("client_request_id is %v, want %v", line["client_request_id"], want)
				}
			})
		}
	})
	for _, hostile := range []string{"xxxxxxxx", "jndi", "ERROR", "first", "second"} {
		if strings.Contains(g.log.String(), hostile) {
			t.Errorf("%q is in the log", hostile)
		}
	}
}

// A header of more than 64 KiB is refused by the server before any handler.
func TestHugeHeader(t *testing.T) {
	g := start(t)
	req := request(t, "GET", g.url+"/hello", nil)
	req.Header.Set("X-Request-Id", strings.Repeat("x", 100_000))
	if res := do(t, newClient(t, false), req); res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", res.StatusCode)
	}
}

// What the back end learns about the client is what the gateway knows, not
// what the client says.
func TestForwarded(t *testing.T) {
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		req := request(t, "GET", g.url+"/echo?a=1", nil)
		req.Host = "shop.example"
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-Ip", "True-Client-Ip"} {
			req.Header.Set(name, "spoofed")
		}
		req.Header.Set("X-Custom", "kept")
		res := do(t, client, req)
		if strings.Contains(res.body, "spoofed") {
			t.Errorf("the back end saw %s", res.body)
		}
		seen := res.decode(t)
		header := seen["header"].(map[string]any)
		for name, want := range map[string]string{
			"X-Forwarded-For": "[127.0.0.1]", "X-Forwarded-Host": "[shop.example]",
			"X-Forwarded-Proto": "[http]", "X-Custom": "[kept]",
		} {
			if got := fmt.Sprint(header[name]); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
		if seen["url"] != "/echo?a=1" || seen["host"] == "shop.example" {
			t.Errorf("url %v, host %v", seen["url"], seen["host"])
		}
		// The query, where secrets are, is not in the log.
		if path := g.log.line(t, "request", res.Header.Get("X-Request-Id"))["path"]; path != "/echo" {
			t.Errorf("logged path %v", path)
		}
	})
}

func TestOtherDemoRoutes(t *testing.T) {
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		for _, tc := range []struct {
			method, path string
			status       int
		}{
			{"GET", "/slow?ms=10", 200},
			{"GET", "/slow?ms=soon", 400},
			{"GET", "/download?mib=-1", 400},
			{"HEAD", "/hello", 200},
			{"PUT", "/hello", 405},
			{"GET", "/nothing", 404},
		} {
			if res := do(t, client, request(t, tc.method, g.url+tc.path, nil)); res.StatusCode != tc.status {
				t.Errorf("%s %s: status %d, want %d", tc.method, tc.path, res.StatusCode, tc.status)
			}
		}
	})
}

// An event is at the client while the back end is still at work.
func TestEvents(t *testing.T) {
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		res, err := client.Do(request(t, "GET", g.url+"/events", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		events := bufio.NewReader(res.Body)
		for _, want := range []string{"id: 1\n", "id: 2\n"} {
			if got := nextEvent(t, events); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q first", got, want)
			}
		}
	})
}

// nextEvent reads up to the empty line that ends an event.
func nextEvent(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var event strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if line == "\n" {
			return event.String()
		}
		event.WriteString(line)
	}
}

// 100 MiB come through whole, and none of the three programs in this process
// (client, gateway, back end) holds more than a few buffers of it.
func TestDownload(t *testing.T) {
	const mib = 100
	want := patternSum(mib << 20)
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		before, most := liveHeap(), uint64(0)
		res, err := client.Do(request(t, "GET", fmt.Sprintf("%s/download?mib=%d", g.url, mib), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.ContentLength != mib<<20 {
			t.Errorf("Content-Length %d", res.ContentLength)
		}
		sum := sha256.New()
		for range 10 {
			if _, err := io.CopyN(sum, res.Body, mib<<20/10); err != nil {
				t.Fatal(err)
			}
			most = max(most, liveHeap())
		}
		if n, err := io.Copy(sum, res.Body); n != 0 || err != nil {
			t.Errorf("%d bytes too many, error %v", n, err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want {
			t.Errorf("sha256 %s, want %s", got, want)
		}
		if most > before+16<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, most)
		}
	})
}

// liveHeap is what is reachable now, without the garbage.
func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// 32 MiB reach the back end whole, with a declared length and without one.
func TestUpload(t *testing.T) {
	const size = 32 << 20
	want := patternSum(size)
	g := start(t)
	overBoth(t, func(t *testing.T, client *http.Client) {
		for _, declared := range []int64{size, -1} {
			before, most := liveHeap(), uint64(0)
			body := &probe{r: io.LimitReader(new(pattern), size), each: 8 << 20, f: func() { most = max(most, liveHeap()) }}
			req := request(t, "POST", g.url+"/upload", body)
			req.ContentLength = declared
			res := do(t, client, req)
			if res.StatusCode != 200 {
				t.Fatalf("status %d: %s", res.StatusCode, res.body)
			}
			got := res.decode(t)
			if got["bytes"] != float64(size) || got["sha256"] != want {
				t.Errorf("got %s, want %s", res.body, want)
			}
			if most == 0 || most > before+16<<20 {
				t.Errorf("the heap grew from %d to %d bytes", before, most)
			}
		}
	})
}

// probe calls f each time that so many bytes have been read.
type probe struct {
	r       io.Reader
	n, each int64
	f       func()
}

func (p *probe) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.n += int64(n); p.n >= p.each {
		p.n -= p.each
		p.f()
	}
	return n, err
}

func patternSum(n int64) string {
	sum := sha256.New()
	io.Copy(sum, io.LimitReader(new(pattern), n))
	return hex.EncodeToString(sum.Sum(nil))
}

// With -target, requests go to the given servers in turn, below the path of
// each, and paths arrive as they were sent. One with .. in it could leave the path
// of a target, and goes only where none has one.
func TestTargets(t *testing.T) {
	back := func(name string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", name, r.RequestURI)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	g := start(t, "-target", back("a")+"/base", "-target", back("b")+"/base/")
	overBoth(t, func(t *testing.T, client *http.Client) {
		turns := []string{"a", "b"} // whose is the first is left to chance
		if strings.HasPrefix(get(t, client, g.url).body, "a") {
			turns = []string{"b", "a"}
		}
		for _, path := range []string{"/", "/x/y?q=1", "/a%2Fb", "//double//slash", "/events"} {
			first, second := get(t, client, g.url+path), get(t, client, g.url+path)
			if first.body != turns[0]+" /base"+path || second.body != turns[1]+" /base"+path {
				t.Errorf("%s: got %q and %q", path, first.body, second.body)
			}
		}
	})
	for _, tc := range []struct {
		args []string
		base bool
	}{
		{[]string{"-target", back("a"), "-target", back("b") + "/"}, false},
		{[]string{"-target", back("a"), "-target", back("b") + "/base"}, true},
		{[]string{"-target", back("a"), "-target", back("b") + "/base", "-canary", "0"}, true},
	} {
		g := start(t, tc.args...)
		for _, path := range []string{"/up/../down", "/../admin", "/%2e%2e/admin", "/..%2fadmin", "/x/..;y/..%5cadmin"} {
			res := get(t, newClient(t, false), g.url+path)
			if tc.base {
				res.wantProblem(t, 400, "")
			} else if _, got, _ := strings.Cut(res.body, " "); got != path {
				t.Errorf("%s: got %q", path, res.body)
			}
		}
	}
}

// -timeout limits a whole request to a target.
func TestTimeoutFlag(t *testing.T) {
	checkGoroutines(t)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(srv.Close)
	g := start(t, "-target", srv.URL, "-timeout", "50ms")
	get(t, newClient(t, false), g.url).wantProblem(t, 503, "")
}

// Stopping ends event streams without an error, on both protocols.
func TestStopEndsStreams(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		g := start(t)
		res, err := client.Do(request(t, "GET", g.url+"/events", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		events := bufio.NewReader(res.Body)
		nextEvent(t, events)

		began := time.Now()
		g.stop()
		if took := time.Since(began); took >= defaultGrace {
			t.Errorf("stopping took %v", took)
		}
		if _, err := io.Copy(io.Discard, events); err != nil {
			t.Errorf("the stream ended with %v", err)
		}
		if line := g.log.line(t, "request", res.Header.Get("X-Request-Id")); line["status"] != 200.0 || line["aborted"] != nil {
			t.Errorf("log: %v", line)
		}
	})
}

// Stopping waits for a request in flight.
func TestStopWaits(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		checkGoroutines(t)
		entered, release := make(chan struct{}), make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-release
			io.WriteString(w, "finished")
		}))
		t.Cleanup(srv.Close)
		g := start(t, "-target", srv.URL)

		body := make(chan string, 1)
		go func() {
			res, err := client.Get(g.url)
			if err != nil {
				body <- err.Error()
				return
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			body <- fmt.Sprint(string(b), err)
		}()
		<-entered
		stopped := make(chan struct{})
		go func() { defer close(stopped); g.stop() }()
		g.log.line(t, "stopping", "")
		close(release)
		if got := <-body; got != "finished<nil>" {
			t.Errorf("the request in flight got %q", got)
		}
		<-stopped
	})
}

// What does not finish within the grace is cut, and stopping is clean all the
// same.
func TestStopCuts(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		checkGoroutines(t)
		entered := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}))
		t.Cleanup(srv.Close)

		ctx, stop := context.WithCancel(t.Context())
		stdout, w := io.Pipe()
		log, served := new(logBuffer), make(chan error, 1)
		opt := options{listen: "127.0.0.1:0", targets: []*url.URL{mustURL(t, srv.URL)}, json: true, grace: short, store: storeSpec{kind: "memory"}}
		go func() {
			served <- serve(ctx, opt, w, log)
			w.Close()
		}()
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, stdout)
		answered := make(chan error, 1)
		go func() {
			res, err := client.Get(strings.TrimSpace(strings.TrimPrefix(line, "gateway: listening on ")))
			if err == nil {
				res.Body.Close()
			}
			answered <- err
		}()
		<-entered
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if <-answered == nil {
			t.Error("the client takes a request that was cut for answered")
		}
		log.line(t, "requests still in flight were cut", "")
	})
}
