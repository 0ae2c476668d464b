package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asks sends a request for /hello with an API key, or without one.
func asks(t *testing.T, g *instance, key string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", g.url+"/hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("X-Api-Key", key)
	}
	res, err := newClient(t, false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

// The fields tell of each limit that a request is under; one that is over a limit
// gets 429 with Retry-After and an ID, and others go on.
func TestRates(t *testing.T) {
	g := start(t)
	if got := asks(t, g, "").Header.Get("Ratelimit"); !strings.Contains(got, `"address";r=`) || !strings.Contains(got, `"address-day";r=`) || strings.Contains(got, `"key"`) {
		t.Errorf("without a key: RateLimit: %s", got)
	}
	if got := asks(t, g, "demo").Header.Get("Ratelimit"); !strings.Contains(got, `"key";r=9`) || !strings.Contains(got, `"key-day";r=9999`) {
		t.Errorf("with a key: RateLimit: %s", got)
	}
	refused, began := 0, time.Now()
	for range 20 {
		res := asks(t, g, "demo")
		if res.StatusCode == http.StatusTooManyRequests {
			refused++
			if res.Header.Get("Retry-After") == "" || res.Header.Get("X-Request-Id") == "" || res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("the refusal has %v", res.Header)
			}
		}
	}
	// 9 were left of 10, and one more comes back each second.
	if back := int(time.Since(began)/time.Second) + 1; refused < 11-back {
		t.Errorf("%d of 20 requests were refused, want those beyond 9 and the %d that have come back", refused, back)
	}
	if res := asks(t, g, "another"); res.StatusCode != 200 {
		t.Errorf("another key: status %d", res.StatusCode)
	}
	if res := asks(t, g, ""); res.StatusCode != 200 {
		t.Errorf("no key: status %d", res.StatusCode)
	}
}

// What was counted outlives the gateway, and is shared by those on one file.
//
// A decision waits 25 ms for the store and is then made without it. A busy machine
// may take longer, which the log says: what was counted by then is somewhere else,
// and it is tried again with another file.
func TestRatesAreShared(t *testing.T) {
	for deadline := time.Now().Add(3 * patience); ; {
		fourth, fifth, late := countShared(t)
		if late == "" {
			if !strings.Contains(fourth, `"key-day";r=9996`) {
				t.Errorf("RateLimit: %s, want 4 requests counted", fourth)
			}
			if !strings.Contains(fifth, `"key-day";r=9995`) {
				t.Errorf("after a restart: RateLimit: %s, want 5 requests counted", fifth)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the store is late all the time:\n%s", late)
		}
	}
}

// countShared has five requests with one key counted by three gateways on one file,
// and returns what the last two were told, and the log of one that has done
// without the file.
func countShared(t *testing.T) (fourth, fifth, late string) {
	t.Helper()
	file := "sqlite:" + filepath.Join(t.TempDir(), "gateway.db")
	one := start(t, "-store", file)
	two := start(t, "-store", file)
	for _, g := range []*instance{one, two, one} {
		asks(t, g, "demo")
	}
	one.stop()
	fourth = asks(t, two, "demo").Header.Get("Ratelimit")
	two.stop()
	three := start(t, "-store", file)
	fifth = asks(t, three, "demo").Header.Get("Ratelimit")
	three.stop()
	for _, g := range []*instance{one, two, three} {
		if log := g.log.String(); strings.Contains(log, "the store fails") {
			late = log
		}
	}
	return fourth, fifth, late
}
