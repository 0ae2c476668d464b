package clientip

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// FuzzResolve holds the one property that matters: the answer is the peer, or
// it stands in the header and everything to its right is trusted. So nothing
// that a client writes to the left of an address we do not trust is believed.
func FuzzResolve(f *testing.F) {
	for _, s := range [][3]string{
		{"10.0.0.1:1", "203.0.113.9, 198.51.100.1", "10.0.0.2"},
		{"[fe80::1%eth0]:1", "[2001:db8::1]:80,,", " fd00::1 "},
		{"192.0.2.1:1", "198.51.100.1", ""},
		{"@", "10.0.0.1", "10.0.0.1"},
		{"::ffff:10.0.0.1", "::ffff:198.51.100.1, unknown, 10.0.0.9", ","},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, remote, line1, line2 string) {
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {line1, line2}}}
		peer, peerOK := Peer(r)
		got, ok := Resolve(r, proxies)
		switch {
		case ok != peerOK:
			t.Fatalf("Resolve says %v, Peer says %v", ok, peerOK)
		case !ok:
			return
		case got != got.Unmap() || got.Zone() != "":
			t.Fatalf("%v is mapped or has a zone", got)
		case got == peer:
			return
		case !Contains(proxies, peer):
			t.Fatalf("the peer %v is not trusted, and yet the header was read", peer)
		}
		elems := strings.Split(line1+","+line2, ",")
		for i := len(elems) - 1; i >= 0; i-- {
			e := strings.Trim(elems[i], " \t")
			if e == "" {
				continue
			}
			a, ok := reference(e)
			if !ok {
				t.Fatalf("%v stands left of %q, which is no address", got, e)
			}
			if a == got {
				return
			}
			if !Contains(proxies, a) {
				t.Fatalf("%v stands left of %v, which is not trusted", got, a)
			}
		}
		t.Fatalf("%v does not stand in the header", got)
	})
}

// reference is netip's own reading of an address with or without a port.
func reference(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	a, err := netip.ParseAddr(s)
	return a.Unmap().WithZone(""), err == nil
}
