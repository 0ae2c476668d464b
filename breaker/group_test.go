package breaker_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"example.com/plainware/breaker"
)

func newGroup(t testing.TB, c breaker.GroupConfig) *breaker.Group {
	t.Helper()
	g, err := breaker.NewGroup(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func TestGroupByHost(t *testing.T) {
	g := newGroup(t, breaker.GroupConfig{Config: breaker.Config{
		Name: "api",
		Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			status := 200
			if r.URL.Hostname() == "bad" {
				status = 500
			}
			return &http.Response{StatusCode: status, Body: http.NoBody, Request: r}, nil
		}),
	}})
	for range 100 {
		for _, u := range []string{"http://good/", "http://BAD/", "http://bad/x", "http://bad:81/"} {
			g.RoundTrip(request(t, "GET", u, nil))
		}
	}
	if got := slices.Sorted(maps.Keys(maps.Collect(g.All()))); fmt.Sprint(got) != "[bad bad:81 good]" {
		t.Error(got)
	}
	want(t, g.Get("bad"), breaker.Open)
	want(t, g.Get("good"), breaker.Closed)
	if n := g.Get("bad").Name(); n != "api:bad" {
		t.Error(n)
	}
}

// Keys come and go, breakers are bounded, and none that is open is dropped.
func TestGroupIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, breaker.GroupConfig{Max: 10})
		for i := range 5 {
			trip(t, g.Get(fmt.Sprint("down", i)))
		}
		busy := g.Get("busy")
		for i := range 1000 {
			g.Get(fmt.Sprint(i))
			if g.Get("busy") != busy {
				t.Fatal("the one in use was dropped")
			}
		}
		if n := len(maps.Collect(g.All())); n != 10 {
			t.Errorf("%d breakers", n)
		}
		for i := range 5 {
			want(t, g.Get(fmt.Sprint("down", i)), breaker.Open)
		}
		// With no place left, keys share one.
		for k := range g.All() {
			trip(t, g.Get(k))
		}
		if g.Get("new") != g.Get("newer") {
			t.Error("two breakers without a place")
		}
		want(t, g.Get("new"), breaker.Closed)
	})
}

func TestGroupConcurrently(t *testing.T) {
	g := newGroup(t, breaker.GroupConfig{Max: 8})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				calls(g.Get(fmt.Sprint(i%20)), 1, breaker.Success)
			}
		})
	}
	wg.Wait()
	if n := len(maps.Collect(g.All())); n > 8 {
		t.Errorf("%d breakers", n)
	}
	g.Close()
	g.Close()
}
