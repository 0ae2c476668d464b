package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/plainware/internal/mwtest"
	"example.com/plainware/upstream"
)

// tripper is a RoundTripper that is a function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// says returns a tripper that answers with the name in a header.
func says(name string) tripper {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{"X-Arm": {name}}, Body: http.NoBody, Request: r}, nil
	}
}

// fails returns a tripper that answers with a status, or with an error if that
// is 0.
func fails(status int) tripper {
	return func(r *http.Request) (*http.Response, error) {
		if status == 0 {
			return nil, errors.New("broken")
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
}

func newSplit(t testing.TB, c upstream.SplitConfig) *upstream.Split {
	t.Helper()
	s, err := upstream.NewSplit(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a GET with the headers, given as pairs.
func ask(t testing.TB, rt http.RoundTripper, pairs ...string) (*http.Response, error) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), "GET", "http://api/", nil)
	for i := 0; i < len(pairs); i += 2 {
		req.Header.Add(pairs[i], pairs[i+1])
	}
	return rt.RoundTrip(req)
}

// arm sends a GET and returns which arm answered.
func arm(t testing.TB, rt http.RoundTripper, pairs ...string) string {
	t.Helper()
	res, err := ask(t, rt, pairs...)
	if err != nil {
		t.Fatal(err)
	}
	return res.Header.Get("X-Arm")
}

func userKey(r *http.Request) (uint64, bool) {
	u := r.Header.Get("X-User")
	return upstream.Hash(u), u != ""
}

func threeArms(b, c int) []upstream.Arm {
	return []upstream.Arm{
		{Name: "a", Base: says("a")},
		{Name: "b", Base: says("b"), Share: b},
		{Name: "c", Base: says("c"), Share: c},
	}
}

func TestSplitConformance(t *testing.T) {
	mwtest.RunTransport(t, mwtest.Transport{New: func(t testing.TB, base http.RoundTripper) http.RoundTripper {
		return newSplit(t, upstream.SplitConfig{
			Arms:  []upstream.Arm{{Name: "a", Base: base}, {Name: "b", Base: base, Share: 5000}},
			Key:   userKey,
			Guard: &upstream.Guard{},
		})
	}})
}

// A9: weighted split, by key, by cookie, and at random.
func TestSplitShares(t *testing.T) {
	for name, c := range map[string]struct {
		conf  upstream.SplitConfig
		pairs func(i int) []string
	}{
		"key":    {upstream.SplitConfig{Key: userKey}, func(i int) []string { return []string{"X-User", fmt.Sprint("user", i)} }},
		"cookie": {upstream.SplitConfig{Cookie: "place"}, func(i int) []string { return []string{"Cookie", fmt.Sprint("a=b; place=", i%10000)} }},
		"random": {upstream.SplitConfig{}, func(int) []string { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			c.conf.Arms = threeArms(2500, 500)
			s := newSplit(t, c.conf)
			counts := make(map[string]int)
			const n = 40_000 // at random, the bound below is seven standard deviations
			for i := range n {
				counts[arm(t, s, c.pairs(i)...)]++
			}
			for arm, want := range map[string]float64{"a": 0.70, "b": 0.25, "c": 0.05} {
				if got := float64(counts[arm]) / n; math.Abs(got-want) > 0.016 {
					t.Errorf("arm %s has %.3f of the requests, want %.2f", arm, got, want)
				}
			}
		})
	}
}

// A9: stable per-user assignment that only grows: as a share grows, users move
// to that arm and nobody leaves it.
func TestSplitOnlyMovesForward(t *testing.T) {
	for _, grow := range []string{"b", "c"} {
		s := newSplit(t, upstream.SplitConfig{Arms: threeArms(100, 100), Key: userKey})
		users := make([]string, 1000)
		place := func() {
			for i := range users {
				now := arm(t, s, "X-User", fmt.Sprint("user", i))
				if was := users[i]; was != "" && was != now && (was != "a" || now != grow) {
					t.Fatalf("while %s grows, user %d moved from %s to %s", grow, i, was, now)
				}
				users[i] = now
			}
		}
		for _, share := range []int{100, 500, 2000, 5000, 9900} {
			if err := s.SetShares(map[string]int{grow: share}); err != nil {
				t.Fatal(err)
			}
			place()
			place() // and stays
		}
		if slices.Contains(users, "a") {
			t.Error("with all shares given away the first arm has users")
		}
	}
}

// A salt makes other users the first.
func TestSplitSalt(t *testing.T) {
	conf := upstream.SplitConfig{Arms: threeArms(1000, 0), Key: userKey}
	one := newSplit(t, conf)
	conf.Salt = "other"
	two := newSplit(t, conf)
	both := 0
	for i := range 5000 {
		u := fmt.Sprint("user", i)
		if arm(t, one, "X-User", u) == "b" && arm(t, two, "X-User", u) == "b" {
			both++
		}
	}
	if both > 90 {
		t.Errorf("%d of 5000 users are in both tenths, want about 50", both)
	}
}

func TestSplitCookie(t *testing.T) {
	s := newSplit(t, upstream.SplitConfig{Arms: threeArms(5000, 0), Cookie: "place"})
	for range 50 {
		res, err := ask(t, s)
		if err != nil {
			t.Fatal(err)
		}
		cookies := res.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("cookies %v", cookies)
		}
		c := cookies[0]
		if c.Name != "place" || c.Path != "/" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 365*24*3600 {
			t.Fatalf("cookie %v", c)
		}
		again, err := ask(t, s, "Cookie", "place="+c.Value)
		if err != nil || again.Header.Get("X-Arm") != res.Header.Get("X-Arm") || len(again.Cookies()) != 0 {
			t.Fatalf("with %v: %v, %v", c, again.Header, err)
		}
	}
	for _, odd := range []string{"", "-1", "+1", "01", "10000", "1e3", "99999999999999999999", "١"} {
		res, err := ask(t, s, "Cookie", "place="+odd)
		if err != nil || len(res.Cookies()) != 1 {
			t.Errorf("the place %q was taken", odd)
		}
	}
	// With a key there is no need for one.
	keyed := newSplit(t, upstream.SplitConfig{Arms: threeArms(5000, 0), Cookie: "place", Key: userKey, Insecure: true})
	if res, _ := ask(t, keyed, "X-User", "u"); len(res.Cookies()) != 0 {
		t.Error("a user with a key got a cookie")
	}
	if res, _ := ask(t, keyed); len(res.Cookies()) != 1 || res.Cookies()[0].Secure {
		t.Error("a user without a key got no cookie, or a secure one")
	}
}

var overrideKey = bytes.Repeat([]byte{7}, 32)

// A9: header or cookie override, signed or trusted only.
func TestSplitOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := upstream.SplitConfig{
			Arms:     threeArms(0, 0),
			Override: &upstream.Override{Keys: [][]byte{overrideKey}, Header: "x-arm-token", Cookie: "arm"},
		}
		s := newSplit(t, conf)
		token, err := s.Token("b", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if got := arm(t, s, "X-Arm-Token", token); got != "b" {
			t.Errorf("by header: arm %s", got)
		}
		if got := arm(t, s, "X-Arm-Token", "nonsense", "Cookie", "x=y; arm="+token); got != "b" {
			t.Errorf("by cookie: arm %s", got)
		}
		for i := range token {
			bad := []byte(token)
			bad[i] ^= 1
			if got := arm(t, s, "X-Arm-Token", string(bad)); got != "a" {
				t.Errorf("%q was taken", bad)
			}
		}
		for _, bad := range []string{"", "b", ".", "..", "b..", token + "A", token[:len(token)-1], "c" + token[1:]} {
			if got := arm(t, s, "X-Arm-Token", bad); got != "a" {
				t.Errorf("%q was taken", bad)
			}
		}
		conf.Override = &upstream.Override{Keys: [][]byte{bytes.Repeat([]byte{8}, 32), overrideKey}, Cookie: "arm"}
		rotated := newSplit(t, conf)
		if got := arm(t, rotated, "Cookie", "arm="+token); got != "b" {
			t.Errorf("after rotation: arm %s", got)
		}
		conf.Override = &upstream.Override{Keys: [][]byte{bytes.Repeat([]byte{8}, 32)}, Cookie: "arm"}
		if got := arm(t, newSplit(t, conf), "Cookie", "arm="+token); got != "a" {
			t.Errorf("with another key: arm %s", got)
		}
		time.Sleep(time.Hour)
		if got := arm(t, s, "X-Arm-Token", token); got != "a" {
			t.Error("the token does not expire")
		}
		if _, err := s.Token("d", time.Now()); err == nil {
			t.Error("a token for an arm that does not exist")
		}
		if _, err := newSplit(t, upstream.SplitConfig{Arms: threeArms(0, 0)}).Token("b", time.Now()); err == nil {
			t.Error("a token without keys")
		}
	})
}

func TestSplitChoose(t *testing.T) {
	s := newSplit(t, upstream.SplitConfig{
		Arms:   threeArms(10000, 0),
		Choose: func(r *http.Request) string { return r.Header.Get("X-Trusted") },
	})
	for in, want := range map[string]string{"": "b", "c": "c", "a": "a", "none": "b"} {
		if got := arm(t, s, "X-Trusted", in); got != want {
			t.Errorf("%q goes to %s, want %s", in, got, want)
		}
	}
}

// A9: per-arm statistics; the client's faults are not among them.
func TestSplitStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		base := tripper(func(r *http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Millisecond)
			n++
			switch {
			case r.Context().Err() != nil:
				return nil, r.Context().Err()
			case r.Header.Get("X-Kind") == "body":
				return nil, &upstream.Error{Kind: upstream.KindClientBody}
			case n%4 == 0:
				return nil, errors.New("broken")
			}
			return fails(200 + n%4*150)(r) // 350, 500, 650
		})
		var ended []string
		s := newSplit(t, upstream.SplitConfig{
			Arms: []upstream.Arm{{Name: "a", Base: says("a")}, {Name: "b", Base: base, Share: 10000}},
			Done: func(_ *http.Request, arm string, res *http.Response, err error) {
				ended = append(ended, fmt.Sprintf("%s %t %t", arm, res != nil, err != nil))
			},
		})
		for range 40 {
			ask(t, s)
		}
		ask(t, s, "X-Kind", "body")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.RoundTrip(httptest.NewRequestWithContext(ctx, "GET", "http://api/", nil))
		all := slices.Collect(s.Arms())
		want := upstream.ArmStats{Name: "b", Share: 10000, Requests: 40, Failures: 30, Waited: 400 * time.Millisecond}
		if all[0].Requests != 0 || all[0].Mean() != 0 || all[1] != want || all[1].Mean() != 10*time.Millisecond {
			t.Errorf("%+v", all)
		}
		if len(ended) != 42 || ended[0] != "b true false" || ended[3] != "b false true" {
			t.Errorf("told %d ends, %q", len(ended), ended[:4])
		}
		for range s.Arms() {
			break
		}
	})
}

// (b) 13, A9: automatic stop when the new arm is worse by a margin over a
// minimum of requests.
func TestSplitGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		var stopped []upstream.ArmStats
		b := tripper(func(r *http.Request) (*http.Response, error) {
			if bad.Load() {
				return fails(503)(r)
			}
			return says("b")(r)
		})
		s := newSplit(t, upstream.SplitConfig{
			Arms:   []upstream.Arm{{Name: "a", Base: says("a")}, {Name: "b", Base: b}},
			Choose: func(r *http.Request) string { return r.Header.Get("X-To") },
			Guard:  &upstream.Guard{OnStop: func(st upstream.ArmStats) { stopped = append(stopped, st) }},
		})
		if err := s.SetShares(map[string]int{"b": 10000}); err != nil {
			t.Fatal(err)
		}
		send := func(arm string, n int) {
			for range n {
				ask(t, s, "X-To", arm)
			}
		}
		bad.Store(true)
		send("b", 200) // no requests to compare with
		send("a", 99)
		send("b", 1)
		if len(stopped) != 0 {
			t.Fatalf("stopped without enough requests of the first arm: %+v", stopped)
		}
		time.Sleep(2 * time.Minute) // all is forgotten
		send("a", 200)
		send("b", 99)
		if len(stopped) != 0 {
			t.Fatalf("stopped after 99 requests: %+v", stopped)
		}
		send("b", 5)
		if len(stopped) != 1 || stopped[0].Name != "b" || !stopped[0].Stopped {
			t.Fatalf("told %+v", stopped)
		}
		if got := arm(t, s); got != "a" {
			t.Errorf("a request went to %s", got)
		}
		bad.Store(false)
		if got := arm(t, s, "X-To", "b"); got != "b" {
			t.Error("the arm that is stopped cannot be tried any more")
		}
		if err := s.SetShares(map[string]int{"b": 5000}); err != nil {
			t.Fatal(err)
		}
		bad.Store(true)
		send("b", 99)
		if st := slices.Collect(s.Arms())[1]; st.Stopped || st.Share != 5000 {
			t.Errorf("after SetShares: %+v", st)
		}
	})
}

func TestSplitGuardMargin(t *testing.T) {
	for _, c := range []struct {
		a, b int // failures in 1000 requests, each
		want bool
	}{{0, 50, false}, {0, 51, true}, {100, 150, false}, {100, 151, true}, {500, 100, false}} {
		synctest.Test(t, func(t *testing.T) {
			failing := tripper(func(r *http.Request) (*http.Response, error) {
				if r.Header.Get("X-Fail") != "" {
					return fails(0)(r)
				}
				return says("")(r)
			})
			s := newSplit(t, upstream.SplitConfig{
				Arms:   []upstream.Arm{{Name: "a", Base: failing}, {Name: "b", Base: failing}},
				Choose: func(r *http.Request) string { return r.Header.Get("X-To") },
				Guard:  &upstream.Guard{},
			})
			for i := range 1000 {
				ask(t, s, "X-To", "a", "X-Fail", strings.Repeat("x", btoi(i < c.a)))
			}
			for i := range 1000 {
				ask(t, s, "X-To", "b", "X-Fail", strings.Repeat("x", btoi(i >= 1000-c.b)))
			}
			if got := slices.Collect(s.Arms())[1].Stopped; got != c.want {
				t.Errorf("%+v: stopped is %v", c, got)
			}
		})
	}
}

// Requests count for the window, to within half of it.
func TestSplitGuardWindow(t *testing.T) {
	for gap, want := range map[time.Duration]bool{29 * time.Second: true, 31 * time.Second: true, 61 * time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSplit(t, upstream.SplitConfig{
				Arms:   []upstream.Arm{{Name: "a", Base: says("a")}, {Name: "b", Base: fails(0)}},
				Choose: func(r *http.Request) string { return r.Header.Get("X-To") },
				Guard:  &upstream.Guard{},
			})
			for i := range 300 {
				ask(t, s, "X-To", []string{"a", "a", "b"}[i%3])
				if i == 149 {
					time.Sleep(gap)
				}
			}
			if got := slices.Collect(s.Arms())[1].Stopped; got != want {
				t.Errorf("with a pause of %v stopped is %v", gap, got)
			}
		})
	}
}

func TestSplitSetsACookieOnAnyResponse(t *testing.T) {
	bare := tripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	})
	s := newSplit(t, upstream.SplitConfig{Arms: []upstream.Arm{{Name: "a", Base: bare}, {Name: "b", Base: bare}}, Cookie: "place"})
	if res, err := ask(t, s); err != nil || len(res.Cookies()) != 1 {
		t.Errorf("%v, %v", res, err)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSplitIsSafeForConcurrentUse(t *testing.T) {
	s := newSplit(t, upstream.SplitConfig{
		Arms:  []upstream.Arm{{Name: "a", Base: says("a")}, {Name: "b", Base: fails(500), Share: 5000}},
		Guard: &upstream.Guard{MinRequests: 10},
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				ask(t, s)
			}
		})
	}
	for i := range 50 {
		s.SetShares(map[string]int{"b": i * 100})
		for range s.Arms() {
		}
	}
	wg.Wait()
}

// SetShares starts an arm again with nothing known of it, whatever its requests
// do meanwhile: what stopped it must not stop it once more.
func TestSplitSetSharesRestarts(t *testing.T) {
	const (
		least  = 100
		racers = 4
	)
	s := newSplit(t, upstream.SplitConfig{
		Arms:   []upstream.Arm{{Name: "a", Base: says("a")}, {Name: "b", Base: fails(500)}},
		Choose: func(r *http.Request) string { return r.Header.Get("X-To") },
		Guard:  &upstream.Guard{MinRequests: least, Window: time.Hour},
	})
	stopped := func() bool { return slices.Collect(s.Arms())[1].Stopped }
	for range least {
		ask(t, s, "X-To", "a")
	}
	for round := range 200 {
		for n := 0; !stopped(); n++ {
			if n == least {
				t.Fatalf("round %d: after %d failures the arm is not stopped", round, n)
			}
			ask(t, s, "X-To", "b")
		}
		var sent atomic.Int32
		var wg sync.WaitGroup
		for range racers {
			wg.Go(func() {
				for range least/racers - 1 { // fewer than stop it, all together
					ask(t, s, "X-To", "b")
					sent.Add(1)
				}
			})
		}
		for sent.Load() < least/10 {
			runtime.Gosched()
		}
		if err := s.SetShares(map[string]int{"b": 5000}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if stopped() {
			t.Fatalf("round %d: stopped for what it did before", round)
		}
	}
}

func TestSplitSetSharesErrors(t *testing.T) {
	s := newSplit(t, upstream.SplitConfig{Arms: threeArms(1000, 2000)})
	for _, shares := range []map[string]int{{"d": 1}, {"a": 1}, {"b": -1}, {"b": 8001}, {"b": 5000, "c": 5001}} {
		if err := s.SetShares(shares); err == nil {
			t.Errorf("%v was taken", shares)
		}
	}
	var got []int
	for st := range s.Arms() {
		got = append(got, st.Share)
	}
	if !slices.Equal(got, []int{0, 1000, 2000}) {
		t.Errorf("shares are %v", got)
	}
}

func TestNewSplitErrors(t *testing.T) {
	_, err := upstream.NewSplit(upstream.SplitConfig{
		Arms: []upstream.Arm{
			{Name: "a b", Base: says(""), Share: 1},
			{Name: "b", Share: 9000},
			{Name: "b", Base: says(""), Share: 2000},
			{Name: "c", Base: says(""), Share: -1},
		},
		Cookie:   "a b",
		Override: &upstream.Override{Keys: [][]byte{[]byte("geheim")}, Cookie: ";"},
		Guard:    &upstream.Guard{Margin: 101, MinRequests: -1, Window: time.Millisecond},
	})
	for _, want := range []string{
		"SplitConfig.Arms[0].Name: ", "SplitConfig.Arms[0].Share: ", "SplitConfig.Arms[1].Base: ", "SplitConfig.Arms[2].Name: ",
		"SplitConfig.Arms[3].Share: ", "SplitConfig.Arms: ", "SplitConfig.Cookie: ", "Override.Keys[0]: ", "Override.Cookie: ",
		"Guard.Margin: ", "Guard.MinRequests: ", "Guard.Window: ",
	} {
		if !strings.Contains(fmt.Sprint(err), "upstream: "+want) {
			t.Errorf("no word of %s in %v", want, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "geheim") {
		t.Error("the error tells a key")
	}
	for _, c := range []upstream.SplitConfig{
		{},
		{Arms: threeArms(0, 0), Override: &upstream.Override{}},
		{Arms: threeArms(0, 0), Cookie: "__Host-place", Insecure: true},
	} {
		if _, err := upstream.NewSplit(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestSplitClosesIdleConnections(t *testing.T) {
	n := 0
	idle := idler{closed: &n}
	s := newSplit(t, upstream.SplitConfig{Arms: []upstream.Arm{{Name: "a", Base: idle}, {Name: "b", Base: says("b")}, {Name: "c", Base: idle}}})
	if s.CloseIdleConnections(); n != 2 {
		t.Errorf("%d of 2 were told", n)
	}
}

// idler counts calls of CloseIdleConnections.
type idler struct {
	http.RoundTripper
	closed *int
}

func (i idler) CloseIdleConnections() { *i.closed++ }
