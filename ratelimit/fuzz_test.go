package ratelimit

import (
	"net/http"
	"strings"
	"testing"

	"example.com/plainware/internal/clientip"
	"example.com/plainware/store"
)

// ratelimit 24: the fast way to an IPv4 address finds what the slow one finds,
// and in its canonical form.
func FuzzPeerIPv4(f *testing.F) {
	for _, s := range []string{
		"192.0.2.1:1", "192.0.2.1", "0.0.0.0:0", "255.255.255.255:65535", "256.0.0.1:1", "1.2.3.04:5", "00.1.2.3:4",
		"1.2.3:4", "1.2.3.4.5:6", "::1", "[::1]:80", "", ":", "1..2.3:4", "1.2.3.4:", "1.2.3.4:x", "@", "-1.2.3.4:5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, remote string) {
		host, addr, ok := peerIPv4(remote)
		if !ok {
			return
		}
		rest := strings.TrimPrefix(remote, host)
		if rest == remote || rest[0] != ':' {
			t.Fatalf("%q: got %q", remote, host)
		}
		// The port is not looked at.
		want, known := clientip.Peer(&http.Request{RemoteAddr: host + ":1"})
		if !known || want.String() != host || want.As4() != addr {
			t.Fatalf("%q: got %q, %v, want %v", remote, host, addr, want)
		}
	})
}

// ratelimit 23: two composite keys are the same only if their parts are, and each
// is one that a store takes.
func FuzzJoin(f *testing.F) {
	f.Add("a:b", "c", "a", "b:c", false)
	f.Add("", "-", "-", "", false)
	f.Add("1:a1:b", "", "a", "b", true)
	f.Add(strings.Repeat("x", 300), "\x00\xff", "#", "?", false)
	f.Fuzz(func(t *testing.T, a1, b1, a2, b2 string, secret bool) {
		join := func(parts ...string) string {
			j := joiner{complete: true}
			for _, p := range parts {
				j.add(p, secret)
			}
			if want := parts[0] != "" && parts[1] != ""; j.complete != want {
				t.Fatalf("%q: complete is %v", parts, j.complete)
			}
			key := j.key()
			if err := store.CheckKey(key); err != nil || len(key) > maxPlain {
				t.Fatalf("%q: key %q: %v", parts, key, err)
			}
			return key
		}
		if same := join(a1, b1) == join(a2, b2); same != (a1 == a2 && b1 == b2) {
			t.Fatalf("%q, %q and %q, %q: one key is %v", a1, b1, a2, b2, same)
		}
		p := part{kind: byFunc}
		k1, _ := p.single(a1)
		k2, _ := p.single(a2)
		if err := store.CheckKey(k1); err != nil || len(k1) > maxPlain || (k1 == k2) != (a1 == a2) {
			t.Fatalf("%q and %q: keys %q and %q, %v", a1, a2, k1, k2, err)
		}
	})
}
