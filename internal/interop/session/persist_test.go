//go:build linux

package session

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// person is a browser that believes the cookie to be Secure, though the shop is
// on plain HTTP here.
type person struct {
	t      *testing.T
	mu     sync.Mutex
	cookie string
}

// get asks a process, or the balancer in front of several.
func (p *person) get(base, path string) page {
	p.t.Helper()
	pg, status := p.try(base, path)
	if status != http.StatusOK {
		p.t.Fatalf("%s: status %d", path, status)
	}
	return pg
}

func (p *person) try(base, path string) (pg page, status int) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), "GET", base+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	if p.cookie != "" {
		r.Header.Set("Cookie", p.cookie)
	}
	p.mu.Unlock()
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	for _, c := range res.Cookies() {
		if !c.Secure || !c.HttpOnly || !strings.HasPrefix(c.Name, "__Host-") {
			p.t.Errorf("cookie %q", c.Raw)
		}
		p.mu.Lock()
		p.cookie = ""
		if c.MaxAge >= 0 {
			p.cookie = c.Name + "=" + c.Value
		}
		p.mu.Unlock()
	}
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&pg); err != nil {
			p.t.Fatal(err)
		}
	}
	return pg, res.StatusCode
}

func (p *person) same() *person { return &person{t: p.t, cookie: p.cookie} }

func (p *person) want(base, user string, items ...string) {
	p.t.Helper()
	if got := p.get(base, "/"); got.User != user || !slices.Equal(got.Items, items) {
		p.t.Errorf("user %q with %q, want %q with %q", got.User, got.Items, user, items)
	}
}

// A restart of the process keeps sessions, and what was ended stays ended.
func TestRestart(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			source := b.open(t)
			ann, bob, eve := &person{t: t}, &person{t: t}, &person{t: t}
			var annOut, old *person
			first := 0
			t.Run("first process", func(t *testing.T) {
				base := start(t, source)
				ann.t, bob.t, eve.t = t, t, t
				ann.get(base, "/add?item=pen")
				old = ann.same() // the id of before the login
				ann.get(base, "/login?user=ann")
				first = ann.get(base, "/add?item=ink").PID
				bob.get(base, "/login?user=bob")
				annOut = bob.same()
				bob.get(base, "/logout")
				eve.get(base, "/login?user=eve")
				eve.get(base, "/revoke?user=eve")
			}) // and kill -9
			base := start(t, source)
			for _, p := range []*person{ann, annOut, old, eve} {
				p.t = t
			}
			if again := ann.get(base, "/"); again.PID == first {
				t.Error("it is the same process")
			}
			ann.want(base, "ann", "pen", "ink")
			annOut.want(base, "")
			old.want(base, "")
			eve.want(base, "")
			ann.get(base, "/add?item=paper")
			ann.want(base, "ann", "pen", "ink", "paper")
		})
	}
}

// Two processes behind a balancer that sends each request to the other one are
// one shop.
func TestTwoProcesses(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			source := b.open(t)
			processes := []string{start(t, source), start(t, source)}
			balancer := balance(t, processes...)

			p := &person{t: t}
			seen := map[int]bool{}
			var items []string
			for i := range 10 {
				item := fmt.Sprint("item", i)
				items = append(items, item)
				pg := p.get(balancer, "/add?item="+item)
				seen[pg.PID] = true
				if !slices.Equal(pg.Items, items) {
					t.Fatalf("items %q after %d", pg.Items, i)
				}
			}
			if len(seen) != 2 {
				t.Errorf("%d processes have answered", len(seen))
			}

			// Updates of both at once all count: ten, as each of the others is faster
			// once, and a save is tried ten times.
			var refused atomic.Int64
			for round := range 2 {
				var wg sync.WaitGroup
				for i := range 10 {
					wg.Go(func() {
						if _, status := p.same().try(balancer, fmt.Sprint("/add?item=at-once-", 10*round+i)); status != http.StatusOK {
							refused.Add(1)
						}
					})
				}
				wg.Wait()
			}
			if got := len(p.get(balancer, "/").Items); got != 30 || refused.Load() != 0 {
				t.Errorf("%d items, want 30; %d refused", got, refused.Load())
			}

			// What one has ended is ended for the other, at once.
			for i, base := range processes {
				other := processes[1-i]
				guest := p.same()
				p.get(base, "/login?user=ann")
				guest.want(other, "")
				before := p.same()
				p.get(base, "/rotate")
				before.want(other, "ann", p.get(other, "/").Items...) // its grace
				p.get(other, "/revoke?user=ann")
				p.want(base, "")
				p.get(base, "/login?user=ann")
				thief := p.same()
				thief.want(other, "ann")
				p.get(base, "/logout")
				thief.want(other, "")
				p.get(base, "/add?item=pen")
			}
		})
	}
}

// A revocation survives the crash of a server that was told to keep it.
func TestRevocationSurvivesServerCrash(t *testing.T) {
	dir := t.TempDir()
	ann, bob := &person{}, &person{}
	t.Run("first server", func(t *testing.T) {
		base := start(t, "redis "+startRedis(t, dir))
		ann.t, bob.t = t, t
		ann.get(base, "/login?user=ann")
		bob.get(base, "/login?user=bob")
		ann.get(base, "/revoke?user=ann")
	}) // and kill -9 to both
	base := start(t, "redis "+startRedis(t, dir))
	ann.t, bob.t = t, t
	ann.want(base, "")
	bob.want(base, "bob")
}

// balance is a reverse proxy that goes round.
func balance(t *testing.T, targets ...string) string {
	t.Helper()
	var next atomic.Int64
	var urls []*url.URL
	for _, target := range targets {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, u)
	}
	s := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(urls[int(next.Add(1))%len(urls)])
	}})
	t.Cleanup(s.Close)
	return s.URL
}
