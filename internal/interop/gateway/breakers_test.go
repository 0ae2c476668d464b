//go:build linux

package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/plainware/internal/interop/prog"
)

// dead is the URL of a server that nobody can reach.
func dead(t *testing.T) string { return "http://" + prog.Addr(t) }

// address is the URL of a gateway that has printed this.
func address(t *testing.T, printed string) string {
	t.Helper()
	first, _, _ := strings.Cut(printed, "\n")
	url, ok := strings.CutPrefix(first, "gateway: listening on ")
	if !ok {
		t.Fatalf("printed\n%s", printed)
	}
	return url
}

func status(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// shown is what a gateway says of its only breaker.
type shown struct {
	State    string
	Calls    int
	Openings int
	Shared   bool
}

func breakerOf(t *testing.T, url string) shown {
	t.Helper()
	res, err := http.Get(url + "/-/breakers")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Breakers []shown }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || len(answer.Breakers) != 1 {
		t.Fatalf("%v in %+v", err, answer)
	}
	return answer.Breakers[0]
}

// What one gateway finds out about a back end another one knows that has not sent
// it a single request.
func TestBreakersAreShared(t *testing.T) {
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	bin, spec, target := build(t), startPostgres(t).URL(""), dead(t)
	printed, stopOne := start(t, bin, spec, "-target", target)
	one := address(t, printed)
	printed, stopTwo := start(t, bin, spec, "-target", target)
	two := address(t, printed)
	if b := breakerOf(t, two); b.State != "closed" {
		t.Errorf("before: %+v", b)
	}
	for range 10 {
		if got := status(t, one); got != 502 && got != 503 {
			t.Errorf("status %d", got)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for b := breakerOf(t, two); b.State == "closed"; b = breakerOf(t, two) {
		if time.Now().After(deadline) {
			t.Fatalf("the other gateway has %+v", b)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if b := breakerOf(t, two); b.Calls != 0 || !b.Shared {
		t.Errorf("after: %+v", b)
	}
	stopOne()
	if log := stopTwo(); !strings.Contains(log, `msg="breaker is open"`) || !strings.Contains(log, "fleet=true") {
		t.Errorf("log:\n%s", log)
	}
}

// A Redis that may lose what it was given is no place for breakers, and the log
// says so; the gateway does without.
func TestBreakersAreLocal(t *testing.T) {
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	bin := build(t)
	printed, stop := start(t, bin, "redis://:hunter2@"+startRedis(t), "-target", dead(t))
	for range 10 {
		status(t, address(t, printed))
	}
	if b := breakerOf(t, address(t, printed)); b.Openings == 0 || b.Shared {
		t.Errorf("the breaker is %+v", b)
	}
	if log := stop(); !strings.Contains(log, "breakers are this gateway's own") || strings.Contains(log, "hunter") {
		t.Errorf("log:\n%s", log)
	}
}
