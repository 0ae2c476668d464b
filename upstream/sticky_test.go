package upstream

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"
)

var (
	stickyKeyA = bytes.Repeat([]byte{1}, 32)
	stickyKeyB = bytes.Repeat([]byte{2}, 32)
)

func stickySelector(t *testing.T, c Sticky, peers []*Peer) *selector {
	t.Helper()
	if err := c.check().err(); err != nil {
		t.Fatal(err)
	}
	s := newSelector(selectorConfig{sticky: &c, slowStart: -1})
	t.Cleanup(s.close)
	s.set(peers)
	return s
}

// visit is one request of a client: it returns the peer, and the client's
// cookies afterwards.
func visit(s *selector, h http.Header) (*Peer, http.Header) {
	var p Pick
	s.bind(&p, h)
	peer, _ := s.pick(&p)
	if peer == nil {
		return nil, h
	}
	res := make(http.Header)
	s.bound(&p, peer, res)
	if line := res.Get("Set-Cookie"); line != "" {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			panic(err)
		}
		h = http.Header{"Cookie": {"x=y; " + c.Name + "=" + c.Value}}
	}
	return peer, h
}

// A1: a sticky cookie; its client stays.
func TestStickyStays(t *testing.T) {
	peers := somePeers(5)
	s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}}, peers)
	for range 20 {
		first, cookies := visit(s, nil)
		if cookies == nil {
			t.Fatal("no cookie was set")
		}
		for range 20 {
			peer, after := visit(s, cookies)
			if peer != first {
				t.Fatalf("the client moved from %s to %s", first.ID, peer.ID)
			}
			if &after["Cookie"][0] != &cookies["Cookie"][0] {
				t.Fatal("the cookie was set again")
			}
		}
	}
}

// A1: fall back if down, and bind to the new peer; back ends do not flap.
func TestStickyFallsBack(t *testing.T) {
	peers := somePeers(3)
	s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}}, peers)
	first, cookies := visit(s, nil)
	s.setHealthy(first, false, "down")
	second, cookies := visit(s, cookies)
	if second == first {
		t.Fatal("the client went to a peer that is down")
	}
	s.setHealthy(first, true, "up")
	if peer, _ := visit(s, cookies); peer != second {
		t.Error("the client moved back")
	}
}

func TestStickyStrict(t *testing.T) {
	peers := somePeers(3)
	s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}, Strict: true}, peers)
	first, cookies := visit(s, nil)
	s.setHealthy(first, false, "down")
	if peer, _ := visit(s, cookies); peer != nil {
		t.Errorf("the client went to %s", peer.ID)
	}
	if peer, _ := visit(s, nil); peer == nil {
		t.Error("a new client was refused")
	}
	s.setHealthy(first, true, "up")
	var p Pick
	s.bind(&p, cookies)
	p.exclude(first)
	if peer, _ := s.pick(&p); peer != first {
		t.Error("a second attempt went elsewhere")
	}
	var others []*Peer
	for _, p := range peers {
		if p != first {
			others = append(others, p)
		}
	}
	s.set(others)
	if peer, _ := visit(s, cookies); peer == nil {
		t.Error("a peer that is gone binds its client still")
	}
}

// One whose back end is draining stays with it, but not when that is down.
func TestStickyLeavesDrainingThatIsDown(t *testing.T) {
	for _, strict := range []bool{false, true} {
		peers := somePeers(3)
		s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}, Strict: strict}, peers)
		first, cookies := visit(s, nil)
		first.Draining = true
		s.set(peers)
		if peer, _ := visit(s, cookies); peer != first {
			t.Errorf("strict %v: the client left a peer that is draining", strict)
		}
		s.setHealthy(first, false, "down")
		peer, _ := visit(s, cookies)
		if peer == first || (peer == nil) != strict {
			t.Errorf("strict %v: the client of a draining peer that is down went to %v", strict, peer)
		}
		if got := s.state(first); got != StateDraining {
			t.Errorf("its state is %v", got)
		}
		s.setHealthy(first, true, "up")
		if peer, _ := visit(s, cookies); peer != first {
			t.Errorf("strict %v: the client did not return", strict)
		}
	}
}

func TestStickyRetryGoesElsewhere(t *testing.T) {
	s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}}, somePeers(2))
	first, cookies := visit(s, nil)
	var p Pick
	s.bind(&p, cookies)
	p.exclude(first)
	if peer, _ := s.pick(&p); peer == first {
		t.Error("the second attempt went to the same peer")
	}
}

// A1: HMAC with a mandatory key: the value tells nothing, and cannot be made
// without the key.
func TestStickyToken(t *testing.T) {
	a := stickyToken(stickyKeyA, "backend", "http://10.0.0.1")
	for _, other := range []string{
		stickyToken(stickyKeyB, "backend", "http://10.0.0.1"),
		stickyToken(stickyKeyA, "backend", "http://10.0.0.2"),
		stickyToken(stickyKeyA, "backend2", "http://10.0.0.1"),
	} {
		if a == other {
			t.Error("key, name and ID do not all go into the token")
		}
	}
	// Clients have it, so it must not change: the first 16 bytes of the HMAC
	// of "plainware/upstream/sticky/1", name and ID, with NULs between.
	if want := "zIjMjRiwFFfQJE19x_QvEw"; a != want {
		t.Errorf("the token is %q, want %q", a, want)
	}
}

func TestStickyKeyRotation(t *testing.T) {
	peers := somePeers(8)
	old := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}}, peers)
	first, cookies := visit(old, nil)

	s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyB, stickyKeyA}}, somePeers(8))
	peer, renewed := visit(s, cookies)
	if peer.ID != first.ID {
		t.Error("a cookie of the old key was not read")
	}
	if renewed["Cookie"][0] == cookies["Cookie"][0] {
		t.Error("a cookie of the old key was not renewed")
	}
	last := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyB}}, somePeers(8))
	if peer, _ := visit(last, renewed); peer.ID != first.ID {
		t.Error("the renewed cookie was not read")
	}
}

func TestStickyIgnoresWhatIsNotItsOwn(t *testing.T) {
	peers := somePeers(2)
	s := stickySelector(t, Sticky{Keys: [][]byte{stickyKeyA}}, peers)
	for _, line := range []string{
		"", ";", "=", "__Host-Http-backend", "__Host-Http-backend=", "__Host-Http-backend=" + peers[0].ID,
		"__Host-Http-backend=" + stickyToken(stickyKeyB, "__Host-Http-backend", peers[0].ID),
		"x__Host-Http-backend=" + peers[0].load.sticky.tokens[0],
	} {
		counts := make(map[*Peer]int)
		for range 200 {
			peer, _ := visit(s, http.Header{"Cookie": {line}})
			counts[peer]++
		}
		if len(counts) != 2 {
			t.Errorf("%q bound the client", line)
		}
	}
}

func TestStickyCookieAttributes(t *testing.T) {
	for _, c := range []struct {
		conf Sticky
		want string // after the value
		name string
	}{
		{Sticky{}, "; Path=/; HttpOnly; Secure; SameSite=Lax", "__Host-Http-backend"},
		{Sticky{Insecure: true}, "; Path=/; HttpOnly; SameSite=Lax", "backend"},
		{Sticky{Domain: "example.com"}, "; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax", "backend"},
		{
			Sticky{Name: "lb", Path: "/app", MaxAge: 90 * time.Minute, SameSite: http.SameSiteNoneMode},
			"; Path=/app; Max-Age=5400; HttpOnly; Secure; SameSite=None", "lb",
		},
	} {
		c.conf.Keys = [][]byte{stickyKeyA}
		peers := somePeers(1)
		stickySelector(t, c.conf, peers)
		l := peers[0].load.sticky
		if want := c.name + "=" + l.tokens[0] + c.want; l.line != want {
			t.Errorf("the cookie is %q, want %q", l.line, want)
		}
	}
}

func TestStickyOff(t *testing.T) {
	peers := somePeers(1)
	s := selectorOf(t, nil, peers)
	h := make(http.Header)
	var p Pick
	s.bind(&p, http.Header{"Cookie": {"__Host-Http-backend=" + strings.Repeat("A", stickyTokenLen)}})
	s.bound(&p, peers[0], h)
	if p.sticky != "" || len(h) != 0 {
		t.Errorf("read %q, set %v", p.sticky, h)
	}
}

// The keys are copied: the caller may wipe them.
func TestStickyCopiesItsKeys(t *testing.T) {
	key := bytes.Clone(stickyKeyA)
	s := newSelector(selectorConfig{sticky: &Sticky{Keys: [][]byte{key}}})
	defer s.close()
	clear(key)
	peers := somePeers(1)
	s.set(peers)
	if got, want := peers[0].load.sticky.tokens[0], stickyToken(stickyKeyA, "__Host-Http-backend", peers[0].ID); got != want {
		t.Errorf("token %q, want %q", got, want)
	}
}

func TestStickyCheck(t *testing.T) {
	keys := [][]byte{stickyKeyA}
	for _, c := range []struct {
		conf Sticky
		want string // "" if it is valid
	}{
		{Sticky{Keys: keys}, ""},
		{Sticky{}, "Sticky.Keys: must have a key (got none)"},
		{Sticky{Keys: [][]byte{stickyKeyA, []byte("geheim")}}, "Sticky.Keys[1]: must have 32 bytes or more (got 6 bytes)"},
		{Sticky{Keys: keys, Name: "a b"}, "must make a valid cookie"},
		{Sticky{Keys: keys, Path: "/;"}, "must make a valid cookie"},
		{Sticky{Keys: keys, MaxAge: time.Millisecond}, "Sticky.MaxAge: must be at least 1s (got 1ms)"},
		{Sticky{Keys: keys, SameSite: http.SameSiteNoneMode, Insecure: true}, "Sticky.SameSite: "},
		{Sticky{Keys: keys, Name: "__Host-x", Path: "/app"}, "Sticky.Name: the prefix __Host-"},
		{Sticky{Keys: keys, Name: "__Secure-x", Insecure: true}, "Sticky.Name: its prefix"},
		{Sticky{Keys: keys, Name: "__HTTP-x", Insecure: true}, "Sticky.Name: its prefix"},
		{Sticky{Keys: keys, Name: "__Secure-x", Path: "/app"}, ""},
	} {
		err := c.conf.check().err()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v", c.want, err)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Error("the error tells a key")
		}
	}
}
