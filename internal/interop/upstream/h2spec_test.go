package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/version"
	"html"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
	"example.com/plainware/upstream"
)

// h2specd returns the path of an h2specd: the installed one, or one that is
// built from the module in h2spec, and what it is.
func h2specd(t *testing.T) (path, version string) {
	t.Helper()
	if path, err := prog.Find("h2specd"); err == nil {
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		return path, strings.TrimSpace(string(out))
	}
	const module = "github.com/summerwind/h2spec"
	path = filepath.Join(t.TempDir(), "h2specd")
	build := exec.Command("go", "build", "-o", path, module+"/cmd/h2specd")
	build.Dir = "h2spec"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list := exec.Command("go", "list", "-m", module)
	list.Dir = "h2spec"
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.TrimSpace(string(out))
}

// specPorts is how many ports in a row an h2specd is given: one for each case, and
// it has 57.
const specPorts = 80

// startH2specd runs an h2specd and returns the address of its report.
func startH2specd(t *testing.T, path string) string {
	t.Helper()
	first, release, err := prog.ReserveRow(specPorts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	_, from, err := net.SplitHostPort(first)
	if err != nil {
		t.Fatal(err)
	}
	return prog.Start(t, func(addr string) *exec.Cmd {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		// The limit is how long it waits for what a client should do.
		return exec.Command(path, "--host", host, "--port", port, "--from-port", from, "--timeout", "1")
	}, prog.Dial)
}

// A specCase is a case of h2spec, by the report of an h2specd: a port on which
// each connection is served in the way that the case is about.
type specCase struct {
	section string // and its title
	name    string
	addr    string
	verdict string // passed, or what h2spec has to say; "" if it did not run
}

var (
	specSection = regexp.MustCompile(`^([0-9.]+\. .*)$`)
	specLink    = regexp.MustCompile(`<a href="http://([0-9.]+:[0-9]+)/"[^>]*>[^<]*</a>(.*)$`)
	specTag     = regexp.MustCompile(`<[^>]*>`)
)

// specCases reads the report: a line for each section, each case, and each
// remark on the case before.
func specCases(t *testing.T, addr string) []specCase {
	t.Helper()
	res, err := http.Get("http://" + addr + "/report")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var cases []specCase
	section := ""
	for div := range strings.SplitSeq(string(b), "</div>") {
		text := strings.TrimSpace(strings.ReplaceAll(html.UnescapeString(specTag.ReplaceAllString(div, "")), "\u00a0", " "))
		link := specLink.FindStringSubmatch(div)
		switch {
		case link != nil:
			c := specCase{section: section, name: link[2], addr: link[1]}
			if strings.Contains(div, "✔") {
				c.verdict = "passed"
			}
			cases = append(cases, c)
		case specSection.MatchString(text):
			section = text
		case text != "" && len(cases) > 0:
			cases[len(cases)-1].verdict += text + " "
		}
	}
	return cases
}

// toSpec picks the back end of an h2specd for requests without a key, and the
// other one for those with a key.
type toSpec struct{}

func (toSpec) Build(s upstream.Snapshot) upstream.PickFunc {
	return func(p *upstream.Pick) int {
		return slices.IndexFunc(s.Peers, func(peer *upstream.Peer) bool { return (peer.Labels["is"] == "well") == p.HasKey })
	}
}

// hangsClient is the case after which the HTTP/2 client of net/http waits for
// itself for ever, its Close included, before Go 1.26.9: nothing that is built on
// it can end such a request.
func (c *specCase) hangsClient() bool {
	return version.Compare(runtime.Version(), "go1.26.9") < 0 &&
		c.name == "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream"
}

// specBound is the time that a request may take: h2specd waits a second for what
// a client should do, and then closes the connection. The Pool's own limits are
// longer, because the other back end is under them too.
const specBound = 10 * time.Second

// Every case of h2spec's suite for clients is a back end that breaks the rules
// of HTTP/2 in one way. Whatever it does, the client has an answer or a stated
// refusal in time, nothing panics, another back end of the same Pool is served
// as before, and nothing is left of it. What h2spec says of the client, which
// is net/http's, is logged.
func TestH2spec(t *testing.T) {
	path, version := h2specd(t)
	report := startH2specd(t, path)
	cases := specCases(t, report)
	if len(cases) < 50 || len(cases) > specPorts {
		t.Fatalf("%s has %d cases", version, len(cases))
	}
	http.DefaultClient.CloseIdleConnections()
	before := usageNow(t)
	t.Run("cases", func(t *testing.T) {
		well := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }), false)
		// Most of the time goes by while one of both waits for the other. With more
		// at a time a busy machine does not get round to the other back end in time.
		places := make(chan struct{}, 8)
		var wg sync.WaitGroup
		for i, c := range cases {
			if c.hangsClient() {
				continue
			}
			wg.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				t.Run(fmt.Sprintf("%d %s", i+1, c.name), func(t *testing.T) { specAsBackend(t, c, well) })
			})
		}
		wg.Wait()
	})
	left(t, before)

	passed := 0
	for _, c := range specVerdicts(t, report) {
		switch {
		case c.verdict == "passed":
			passed++
		case c.hangsClient():
			t.Logf("%s %s: not with %s, whose client would hang", c.section, c.name, runtime.Version())
		case c.verdict == "":
			t.Errorf("%s %s: no request has come to h2specd", c.section, c.name)
		default:
			t.Logf("%s %s: %s", c.section, c.name, c.verdict)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	t.Logf("%s: the client passes %d of %d cases", version, passed, len(cases))
}

// specVerdicts returns the cases when all have a verdict, which h2specd may take
// seconds for after the connection is closed, or what there is of them.
func specVerdicts(t *testing.T, report string) []specCase {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		cases := specCases(t, report)
		open := slices.ContainsFunc(cases, func(c specCase) bool { return c.verdict == "" && !c.hangsClient() })
		if !open || time.Now().After(deadline) {
			return cases
		}
	}
}

// specAsBackend sends requests to a Pool that has a case of h2spec among its
// back ends, through a Proxy and without.
func specAsBackend(t *testing.T, c specCase, well server) {
	newSpecPool := func() *upstream.Pool {
		return newPool(t, upstream.Config{
			Targets: []upstream.Target{
				{URL: "h2c://" + c.addr},
				{URL: "h2c://" + well.addr, Labels: map[string]string{"is": "well"}},
			},
			Picker:  toSpec{},
			Key:     func(r *http.Request) (uint64, bool) { return 0, r.URL.Path == "/well" },
			Conns:   upstream.Conns{HeaderTimeout: 20 * time.Second, DialTimeout: 20 * time.Second},
			Retry:   upstream.Retry{Budget: -1},
			Outlier: upstream.Outlier{Off: true},
		})
	}
	var wg sync.WaitGroup
	for _, method := range []string{"GET", "POST"} {
		wg.Go(func() {
			pool := newSpecPool()
			var tally soakTally
			front := serve(t, tally.aborts(t, newProxy(t, pool)), false)
			client := newClient(t, false)
			for i, path := range []string{"/spec", "/well", "/spec", "/well"} {
				id := fmt.Sprint(i)
				cut := func() bool {
					_, ok := tally.aborted.LoadAndDelete(id)
					return ok
				}
				specRequest(t, client, method, front.url+path+"?id="+id, path == "/well", cut)
			}
		})
		wg.Go(func() { specRoundTrip(t, newSpecPool(), method) })
	}
	wg.Wait()
}

func specBody(method string) io.Reader {
	if method == "POST" {
		return bytes.NewReader(make([]byte, 1000))
	}
	return nil
}

// specRequest sends a request to a Proxy and judges what comes. cut tells
// whether the Proxy broke the response off.
func specRequest(t *testing.T, client *http.Client, method, url string, well bool, cut func() bool) {
	ctx, cancel := context.WithTimeout(t.Context(), specBound)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, specBody(method))
	if err != nil {
		t.Error(err)
		return
	}
	res, body, err := do(client, req)
	switch {
	case ctx.Err() != nil:
		t.Errorf("%s %s: not over after %v: %s, %v", method, url, specBound, line(res), err)
	case well && (err != nil || res.StatusCode != 200 || body != "ok"):
		t.Errorf("%s: the other back end: %s %q, %v", method, line(res), body, err)
	case err != nil && cut(): // and seen to be
	case err != nil:
		t.Errorf("%s: failed and was not broken off: %s, %v", method, line(res), err)
	case res.StatusCode == 502 || res.StatusCode == 504:
		if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" || !strings.Contains(body, `"upstream_`) {
			t.Errorf("%s: %s, %q", method, line(res), body)
		}
	case res.StatusCode != 200:
		t.Errorf("%s: %s, %q", method, line(res), body)
	}
}

// specRoundTrip sends a request to a Pool itself, which fails with nothing but
// an Error.
func specRoundTrip(t *testing.T, pool *upstream.Pool, method string) {
	ctx, cancel := context.WithTimeout(t.Context(), specBound)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://spec/", specBody(method))
	if err != nil {
		t.Error(err)
		return
	}
	res, err := pool.RoundTrip(req)
	status := "no response"
	if err == nil {
		status = res.Status
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	switch e, ok := errors.AsType[*upstream.Error](err); {
	case ctx.Err() != nil:
		t.Errorf("%s by the Pool: not over after %v: %s, %v", method, specBound, status, err)
	case err != nil && (!ok || !e.Kind.BackendFault() || e.Backend == ""):
		t.Errorf("%s by the Pool: %s, %#v: %v", method, status, err, err)
	}
	for deadline := time.Now().Add(specBound); ; time.Sleep(10 * time.Millisecond) {
		busy := 0
		for b := range pool.Backends() {
			busy += b.Active + b.Queued
		}
		if busy == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%s by the Pool: %d requests have not ended", method, busy)
			break
		}
	}
	pool.Close()
	for b := range pool.Backends() {
		if b.Conns > 0 {
			t.Errorf("%s by the Pool: %d connections are left", method, b.Conns)
		}
	}
}
