package house

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func std(path string) dependency   { return dependency{path: path, standard: true} }
func kit(path string) dependency   { return dependency{path: path, kit: true} }
func other(path string) dependency { return dependency{path: path} }

// The rules themselves, one import at a time. want is part of the reason, or
// empty when the import is allowed.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		name string
		from string
		test bool
		to   dependency
		want string
	}{
		{"standard library", "reqid", false, std("net/http"), ""},
		{"third party", "reqid", false, other("github.com/google/uuid"), "not in the standard library"},
		{"third party in a test", "reqid", true, other("github.com/google/uuid"), "not in the standard library"},
		{"third party in the root's tests", "", true, other("github.com/google/uuid"), "not in the standard library"},
		{"third party in an internal package", "internal/problem", false, other("golang.org/x/net/http2"), "not in the standard library"},
		{"third party in the parent of a leaf", "wsproxy", false, other("golang.org/x/net/http2"), "not in the standard library"},

		{"leaf", "cookies/xchacha", false, other("golang.org/x/crypto/chacha20poly1305"), ""},
		{"leaf, module root", "upstream/h3", false, other("github.com/quic-go/quic-go"), ""},
		{"leaf, below the package", "wsproxy/wsh2", false, other("golang.org/x/net/http2/hpack"), ""},
		{"leaf, its tests", "wsproxy/wsh3", true, other("github.com/quic-go/quic-go/http3"), ""},
		{"leaf, other package of the module", "wsproxy/wsh2", false, other("golang.org/x/net/html"), "may import only golang.org/x/net/http2"},
		{"leaf, other module", "cookies/xchacha", false, other("github.com/quic-go/quic-go"), "may import only golang.org/x/crypto"},
		{"leaf, longer name", "wsproxy/wsh2", false, other("golang.org/x/net/http2x"), "may import only golang.org/x/net/http2"},

		{"exported imports exported", "ratelimit", false, kit("reqid"), "imports no other"},
		{"exported test imports exported", "ratelimit", true, kit("reqid"), "imports no other"},
		{"exported imports store", "ratelimit", false, kit("store"), ""},
		{"exported imports a store backend", "ratelimit", false, kit("store/sqlitestore"), "imports no other"},
		{"subpackage imports parent", "cookies/session", false, kit("cookies"), ""},
		{"subpackage imports store", "cookies/session", false, kit("store"), ""},
		{"parent imports subpackage", "cookies", false, kit("cookies/session"), "imports no other"},
		{"subpackage imports sibling", "store/sqlitestore", false, kit("store/pgstore"), "imports no other"},
		{"longer name is no parent", "storefront", false, kit("stor"), "imports no other"},
		{"test imports storetest", "store/redisstore", true, kit("store/storetest"), ""},
		{"code imports storetest", "store/redisstore", false, kit("store/storetest"), "imports no other"},
		{"test imports its own package", "reqid", true, kit("reqid"), ""},

		{"starts first", "wsproxy/xconnect", false, std("syscall"), ""},
		{"starts first, imports more", "wsproxy/xconnect", false, std("os"), "may import only syscall"},
		{"starts first, imports its parent", "wsproxy/xconnect", false, kit("wsproxy"), "may import only syscall"},
		{"starts first, its tests", "wsproxy/xconnect", true, std("os"), ""},
		{"test imports the switch", "wsproxy", true, kit("wsproxy/xconnect"), ""},
		{"code imports the switch", "wsproxy", false, kit("wsproxy/xconnect"), "imports no other"},
		{"another package's test imports the switch", "reqid", true, kit("wsproxy/xconnect"), "imports no other"},

		{"exported imports internal", "reqid", false, kit("internal/clientip"), ""},
		{"exported imports its own internal", "wsproxy", false, kit("wsproxy/internal/frame"), ""},
		{"exported imports memnet", "reqid", false, kit("internal/memnet"), "made for tests"},
		{"exported imports mwtest", "reqid", false, kit("internal/mwtest"), "made for tests"},
		{"exported test imports mwtest", "reqid", true, kit("internal/mwtest"), ""},
		{"exported test imports memnet", "reqid", true, kit("internal/memnet"), ""},

		{"internal imports internal", "internal/problem", false, kit("internal/clientip"), "internal packages import no"},
		{"internal imports exported", "internal/problem", false, kit("store"), "internal packages import no"},
		{"internal test imports exported", "internal/problem", true, kit("reqid"), "internal packages import no"},
		{"internal test imports internal", "internal/respwriter", true, kit("internal/memnet"), ""},
		{"mwtest imports memnet", "internal/mwtest", false, kit("internal/memnet"), ""},
		{"memnet imports mwtest", "internal/memnet", false, kit("internal/mwtest"), "made for tests"},

		{"root imports a package", "", false, kit("reqid"), "imports no other"},
		{"root's tests import everything", "", true, kit("ratelimit"), ""},
		{"root's tests import internal", "", true, kit("internal/mwtest"), ""},
		{"a package imports the root", "reqid", false, kit(""), "no package imports the root"},
		{"a test imports the root", "reqid", true, kit(""), "no package imports the root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := forbidden(unit{path: c.from, test: c.test}, c.to)
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A fabricated module, as go list reports it, gives exactly the offenders it
// has, each named once with what it imports.
func TestViolations(t *testing.T) {
	module := &struct{ Path string }{"example.org/kit"}
	got := violations(units("example.org/kit", []listed{
		{ImportPath: "net/http", Standard: true},
		{ImportPath: "testing", Standard: true},
		{ImportPath: "example.net/lib", Module: &struct{ Path string }{"example.net/lib"}, Imports: []string{"net/http"}},
		{ImportPath: "example.org/kit/store", Module: module, Imports: []string{"net/http"}},
		{ImportPath: "example.org/kit/good", Module: module, Imports: []string{"net/http", "example.org/kit/store"}},
		{ImportPath: "example.org/kit/bad", Module: module, Imports: []string{"example.org/kit/good", "example.net/lib"}},
		// The same package compiled for its tests repeats its own imports.
		{ImportPath: "example.org/kit/good [example.org/kit/good.test]", ForTest: "example.org/kit/good", Module: module,
			Imports: []string{"net/http", "testing", "example.org/kit/store"}},
		{ImportPath: "example.org/kit/good_test [example.org/kit/good.test]", ForTest: "example.org/kit/good", Module: module,
			Imports: []string{"testing", "example.org/kit/good [example.org/kit/good.test]", "example.net/lib"}},
		{ImportPath: "example.org/kit/good.test", Module: module, Imports: []string{"example.net/lib"}},
		// Compiled again because it imports good: not a test of anything.
		{ImportPath: "example.org/kit/bad [example.org/kit/good.test]", ForTest: "example.org/kit/good", Module: module,
			Imports: []string{"example.org/kit/good [example.org/kit/good.test]", "example.net/lib"}},
	}))
	const outside = "not in the standard library; only these may leave it: cookies/xchacha, upstream/h3, wsproxy/wsh2, wsproxy/wsh3"
	want := []string{
		"bad: imports example.net/lib: " + outside,
		"bad: imports good: an exported package imports no other, except store and its own parent",
		"tests of good: imports example.net/lib: " + outside,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMisrequired(t *testing.T) {
	for _, c := range []struct {
		name, mod, want string
	}{
		{"nothing", `{}`, ""},
		{"allowed", `{"Require": [{"Path": "golang.org/x/net"}, {"Path": "golang.org/x/crypto"}, {"Path": "github.com/quic-go/quic-go"}]}`, ""},
		{"indirect", `{"Require": [{"Path": "golang.org/x/sys", "Indirect": true}]}`, ""},
		{"direct", `{"Require": [{"Path": "golang.org/x/sys"}]}`, "requires golang.org/x/sys"},
		{"tool", `{"Tool": [{"Path": "example.net/lint"}]}`, "tool example.net/lint"},
		{"replace", `{"Replace": [{"Old": {"Path": "golang.org/x/net"}, "New": {"Path": "../net"}}]}`, "replace: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m modFile
			if err := json.Unmarshal([]byte(c.mod), &m); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(misrequired(m), "; ")
			if (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
