package upstream_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"example.com/plainware/upstream"
)

// version answers every request with its name.
type version string

func (v version) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     make(http.Header),
		Body:       io.NopCloser(strings.NewReader(string(v))),
		Request:    r,
	}, nil
}

// served returns what rt answers to a GET with the header.
func served(rt http.RoundTripper, name, value string) string {
	req := httptest.NewRequest("GET", "http://shop.internal/", nil)
	req.Header.Set(name, value)
	res, err := rt.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// pools makes a Pool whose back ends answer with their URLs.
func pools(c upstream.Config) *upstream.Pool {
	for _, host := range []string{"a", "b", "c"} {
		c.Targets = append(c.Targets, upstream.Target{URL: "http://" + host, Labels: map[string]string{"zone": host}})
	}
	c.Transport = func(t upstream.Target) (http.RoundTripper, error) { return version(t.URL), nil }
	pool, err := upstream.New(c)
	if err != nil {
		panic(err)
	}
	return pool
}

func ExampleNewSplit() {
	split, err := upstream.NewSplit(upstream.SplitConfig{
		Arms: []upstream.Arm{
			{Name: "v1", Base: version("v1")},
			{Name: "v2", Base: version("v2"), Share: 1000}, // 10 %
		},
		Key: func(r *http.Request) (uint64, bool) {
			user := r.Header.Get("X-User") // set by your authentication
			return upstream.Hash(user), user != ""
		},
		Guard: &upstream.Guard{}, // back to v1 if v2 fails more
	})
	if err != nil {
		panic(err)
	}
	for _, user := range []string{"cyd", "dan", "eve", "flo"} {
		fmt.Println(user, served(split, "X-User", user), served(split, "X-User", user))
	}
	// Output:
	// cyd v1 v1
	// dan v1 v1
	// eve v2 v2
	// flo v1 v1
}

func ExampleSplit_SetShares() {
	split, err := upstream.NewSplit(upstream.SplitConfig{Arms: []upstream.Arm{
		{Name: "v1", Base: version("v1")},
		{Name: "v2", Base: version("v2")},
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println(served(split, "Accept", "*/*"))
	if err := split.SetShares(map[string]int{"v2": upstream.SplitScale}); err != nil {
		panic(err)
	}
	fmt.Println(served(split, "Accept", "*/*"))
	for arm := range split.Arms() {
		fmt.Println(arm.Name, arm.Share, arm.Requests)
	}
	// Output:
	// v1
	// v2
	// v1 0 1
	// v2 10000 1
}

func ExampleSplit_Token() {
	split, err := upstream.NewSplit(upstream.SplitConfig{
		Arms: []upstream.Arm{
			{Name: "v1", Base: version("v1")},
			{Name: "v2", Base: version("v2")}, // for testers only as yet
		},
		Override: &upstream.Override{
			Keys:   [][]byte{[]byte("32 bytes or more, kept in secret")},
			Header: "X-Try",
		},
	})
	if err != nil {
		panic(err)
	}
	token, err := split.Token("v2", time.Now().Add(24*time.Hour))
	if err != nil {
		panic(err)
	}
	fmt.Println(served(split, "X-Try", token))
	fmt.Println(served(split, "X-Try", "v2"))
	// Output:
	// v2
	// v1
}

func ExampleNewMirror() {
	copied := make(chan string)
	mirror, err := upstream.NewMirror(upstream.MirrorConfig{
		Base:    version("v1"),
		To:      version("v2"),
		Prepare: func(r *http.Request) { r.Header.Set("X-Mirror", "1") },
		Done: func(r upstream.MirrorResult) {
			copied <- fmt.Sprint(r.Request.Header.Get("X-User"), " ", r.Status)
		},
	})
	if err != nil {
		panic(err)
	}
	defer mirror.Close()
	fmt.Println(served(mirror, "X-User", "ada"))
	fmt.Println(<-copied)
	// Output:
	// v1
	// ada 200
}

// hosts is a Lookup over a map, in place of the network.
type hosts map[string][]netip.Addr

func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return h[host], nil
}

func (h hosts) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", nil, nil
}

func ExampleNewDNS() {
	dns, err := upstream.NewDNS(upstream.DNSConfig{
		Target: upstream.Target{URL: "https://shop.internal:8443"},
		Lookup: hosts{"shop.internal": {netip.MustParseAddr("10.0.0.8"), netip.MustParseAddr("10.0.0.7")}},
	})
	if err != nil {
		panic(err)
	}
	// A Pool does this with its Config.Resolver.
	ctx, cancel := context.WithCancel(context.Background())
	dns.Watch(ctx, func(targets []upstream.Target) {
		for _, t := range targets {
			fmt.Println(t.URL, "at", t.Addr)
		}
		cancel()
	})
	// Output:
	// https://shop.internal:8443 at 10.0.0.7:8443
	// https://shop.internal:8443 at 10.0.0.8:8443
}

// All requests of one user go to one back end, as long as that is there.
func ExampleRendezvous() {
	pool := pools(upstream.Config{
		Picker: upstream.Rendezvous(0),
		Key: func(r *http.Request) (uint64, bool) {
			user := r.Header.Get("X-User")
			return upstream.Hash(user), user != ""
		},
	})
	defer pool.Close()
	for _, user := range []string{"ada", "bob", "cyd"} {
		fmt.Println(user, served(pool, "X-User", user), served(pool, "X-User", user))
	}
	// Output:
	// ada http://b http://b
	// bob http://b http://b
	// cyd http://a http://a
}

// sameZone prefers the back ends of one zone.
type sameZone string

func (z sameZone) Build(s upstream.Snapshot) upstream.PickFunc {
	var near, far []int
	for i, p := range s.Peers {
		if p.Labels["zone"] == string(z) {
			near = append(near, i)
		} else {
			far = append(far, i)
		}
	}
	return func(p *upstream.Pick) int {
		for _, group := range [][]int{near, far} {
			if len(group) == 0 {
				continue
			}
			start := int(p.Uint64() % uint64(len(group)))
			for i := range group {
				if j := group[(start+i)%len(group)]; !p.Tried(j) {
					return j
				}
			}
		}
		return -1
	}
}

func ExamplePicker() {
	pool := pools(upstream.Config{Picker: sameZone("b")})
	defer pool.Close()
	for range 3 {
		fmt.Println(served(pool, "Accept", "*/*"))
	}
	// Output:
	// http://b
	// http://b
	// http://b
}
