package clientip

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

var proxies = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("fd00::/8"),
	netip.MustParsePrefix("fe80::/10"),
}

func TestPeer(t *testing.T) {
	for _, c := range []struct{ remote, want string }{
		{"192.0.2.1:1234", "192.0.2.1"},
		{"192.0.2.1", "192.0.2.1"},
		{"[2001:db8::1]:1234", "2001:db8::1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"2001:db8::1", "2001:db8::1"},
		{"2001:DB8::A", "2001:db8::a"},
		{"[fe80::1%eth0]:1234", "fe80::1"},
		{"fe80::1%eth0", "fe80::1"},
		{"[::ffff:192.0.2.1]:1234", "192.0.2.1"},
		{"::ffff:c000:201", "192.0.2.1"},
		{"[::ffff:192.0.2.1%eth0]:1", "192.0.2.1"},
		{"@", ""},
		{"", ""},
		{"/run/app.sock", ""},
		{"localhost:80", ""},
		{"192.0.2.1:", ""},
		{"fe80::1%]", ""},
		{"::%[", ""},
		{"192.0.2.1:http", ""},
		{"192.0.2.1:65536", ""},
		{"192.0.2.1:000080", ""},
		{"192.0.2.1%eth0", ""},
		{"192.0.2.01", ""},
		{"[192.0.2.1]:80", ""},
		{"[2001:db8::1", ""},
		{"[2001:db8::1]x", ""},
		{"[2001:db8::1]:80:80", ""},
		{"fe80::1%", ""},
		{"[]:80", ""},
		{" 192.0.2.1", ""},
		{"fe80::1%" + strings.Repeat("z", 200), ""},
	} {
		got, ok := Peer(&http.Request{RemoteAddr: c.remote})
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("Peer(%q) = %v, %v; want %q", c.remote, got, ok, c.want)
		}
	}
}

func TestContains(t *testing.T) {
	for _, c := range []struct {
		prefix, addr string
		want         bool
	}{
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "11.1.2.3", false},
		{"10.0.0.0/8", "::ffff:10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "11.1.2.3", false},
		{"::ffff:0.0.0.0/96", "11.1.2.3", true},
		{"0.0.0.0/0", "10.1.2.3", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "10.1.2.3", false},
		{"fe80::/10", "fe80::1%eth0", true},
	} {
		got := Contains([]netip.Prefix{netip.MustParsePrefix(c.prefix)}, netip.MustParseAddr(c.addr))
		if got != c.want {
			t.Errorf("Contains(%s, %s) = %v, want %v", c.prefix, c.addr, got, c.want)
		}
	}
	if Contains([]netip.Prefix{{}}, netip.MustParseAddr("10.1.2.3")) {
		t.Error("the zero Prefix contains an address")
	}
	if Contains(proxies, netip.Addr{}) {
		t.Error("the zero Addr is contained")
	}
	if Contains(nil, netip.MustParseAddr("10.1.2.3")) {
		t.Error("no prefix contains an address")
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		name, remote string
		lines        []string
		want         string
	}{
		{"no header", "10.0.0.1:1", nil, "10.0.0.1"},
		{"peer not trusted", "192.0.2.1:1", []string{"198.51.100.1"}, "192.0.2.1"},
		{"peer not trusted and names a proxy", "192.0.2.1:1", []string{"198.51.100.1, 10.0.0.9"}, "192.0.2.1"},
		{"one hop", "10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"forged left", "10.0.0.1:1", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"forged left names a proxy", "10.0.0.1:1", []string{"10.0.0.9, 198.51.100.1"}, "198.51.100.1"},
		{"two hops", "10.0.0.1:1", []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"all trusted", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"lines are one list", "10.0.0.1:1", []string{"203.0.113.9", "198.51.100.1,10.0.0.3", "10.0.0.2"}, "198.51.100.1"},
		{"forged first line", "10.0.0.1:1", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1"},
		{"empty elements", "10.0.0.1:1", []string{"198.51.100.1, ,", "", " , ,,10.0.0.2,,", "\t"}, "198.51.100.1"},
		{"only empty elements", "10.0.0.1:1", []string{",,", ""}, "10.0.0.1"},
		{"malformed ends at the peer", "10.0.0.1:1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"malformed ends at the last hop", "10.0.0.1:1", []string{"198.51.100.1, _hidden, 10.0.0.2"}, "10.0.0.2"},
		{"malformed behind the answer", "10.0.0.1:1", []string{"<script>, 198.51.100.1"}, "198.51.100.1"},
		{"port", "10.0.0.1:1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"brackets and port", "10.0.0.1:1", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"brackets", "10.0.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"quotes belong to Forwarded", "10.0.0.1:1", []string{`"[2001:db8::1]"`}, "10.0.0.1"},
		{"zone", "[fe80::2%eth0]:1", []string{"2001:db8::1%eth7"}, "2001:db8::1"},
		{"mapped peer and hop", "[::ffff:10.0.0.1]:1", []string{"198.51.100.1, ::ffff:10.0.0.2"}, "198.51.100.1"},
		{"mapped client", "10.0.0.1:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"leading zero", "10.0.0.1:1", []string{"198.51.100.01"}, "10.0.0.1"},
		{"long element", "10.0.0.1:1", []string{strings.Repeat("1", 1<<20)}, "10.0.0.1"},
		{"long element left of a hop", "10.0.0.1:1", []string{strings.Repeat("1", 1<<20) + ",10.0.0.2"}, "10.0.0.2"},
		{"long white space", "10.0.0.1:1", []string{"198.51.100.1" + strings.Repeat(" ", 1<<20)}, "10.0.0.1"},
		{"address at the end of a long element", "10.0.0.1:1", []string{strings.Repeat("x", 200) + strings.Repeat(" ", 117) + "198.51.100.1"}, "10.0.0.1"},
		{"too many hops", "10.0.0.1:1", []string{"198.51.100.1," + strings.Repeat("10.0.0.2,", 100)}, "10.0.0.2"},
		{"too many lines", "10.0.0.1:1", append([]string{"198.51.100.1"}, make([]string, 100)...), "10.0.0.1"},
		{"unix peer", "@", []string{"198.51.100.1"}, ""},
		{"no peer", "", []string{"198.51.100.1"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.lines}}
			got, ok := Resolve(r, proxies)
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("got %v, %v; want %q", got, ok, c.want)
			}
		})
	}
}

// A request without a header map is as good as one without the field.
func TestResolveNilHeader(t *testing.T) {
	got, ok := Resolve(&http.Request{RemoteAddr: "10.0.0.1:1"}, proxies)
	if !ok || got.String() != "10.0.0.1" {
		t.Errorf("got %v, %v", got, ok)
	}
}

func TestResolveDoesNotAllocate(t *testing.T) {
	for _, line := range []string{
		"198.51.100.1",
		"203.0.113.9, [2001:db8::1%eth0]:80, 10.0.0.3, [fd00::1]:443",
		"198.51.100.1, unknown",
		strings.Repeat("x", 1<<20),
		strings.Repeat("10.0.0.2,", 1<<16),
	} {
		r := &http.Request{RemoteAddr: "[fe80::1%eth0]:1", Header: http.Header{"X-Forwarded-For": {line}}}
		if n := testing.AllocsPerRun(100, func() { Resolve(r, proxies) }); n != 0 {
			t.Errorf("%.40q: %v allocations", line, n)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	for name, lines := range map[string][]string{
		"direct":   nil,
		"two hops": {"198.51.100.1, 10.0.0.2"},
		"1 MiB":    {strings.Repeat("198.51.100.1, ", 1<<20/14) + "10.0.0.2"},
	} {
		b.Run(name, func(b *testing.B) {
			r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": lines}}
			b.ReportAllocs()
			for b.Loop() {
				Resolve(r, proxies)
			}
		})
	}
}
