package cookieattr

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func mustNew(t testing.TB, a Attributes) *Cookie {
	t.Helper()
	c, problems := New(a)
	if problems != nil {
		t.Fatal(problems)
	}
	return c
}

// What is rendered is what net/http reads, for every combination of attributes
// that is allowed.
func TestLines(t *testing.T) {
	for _, name := range []string{"sid", Secure + "sid", HTTP + "sid", Host + "sid", HostHTTP + "sid"} {
		for mask := range 1 << 6 {
			has := func(bit int) bool { return mask>>bit&1 != 0 }
			a := Attributes{Name: name, Partitioned: has(0), ScriptReadable: has(1), Insecure: has(2)}
			if has(3) {
				a.Domain = "example.com"
			}
			if has(4) {
				a.Path = "/shop"
			}
			if has(5) {
				a.SameSite = http.SameSiteNoneMode
			}
			c, problems := New(a)
			if problems != nil {
				continue
			}
			for _, maxAge := range []int64{-1, 0, 1, MaxAgeLimit} {
				line := string(c.Append(nil, []byte("v~1.x"), maxAge))
				if again := string(c.AppendString([]byte("<"), "v~1.x", maxAge)); again != "<"+line {
					t.Errorf("AppendString: %q", again)
				}
				if len(line) > c.Overhead()+len("v~1.x") {
					t.Errorf("%q is longer than Overhead says", line)
				}
				got, err := http.ParseSetCookie(line)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				sameSite, path := http.SameSiteLaxMode, "/"
				if a.SameSite != 0 {
					sameSite = a.SameSite
				}
				if a.Path != "" {
					path = a.Path
				}
				if got.Name != name || got.Value != "v~1.x" || got.MaxAge != int(max(maxAge, 0)) || got.Domain != a.Domain || got.Path != path ||
					got.SameSite != sameSite || got.HttpOnly == a.ScriptReadable || got.Secure == a.Insecure || got.Partitioned != a.Partitioned || got.Unparsed != nil {
					t.Errorf("%q reads %+v", line, got)
				}
				if err := got.Valid(); err != nil {
					t.Errorf("%q: %v", line, err)
				}
			}
			deletion, err := http.ParseSetCookie(c.Deletion())
			if err != nil || deletion.MaxAge != -1 || deletion.Value != "" || deletion.Secure == a.Insecure || deletion.Domain != a.Domain {
				t.Errorf("%q reads %+v, %v", c.Deletion(), deletion, err)
			}
		}
	}
}

// Each prefix, in any case, allows exactly the attributes that its rules leave.
func TestPrefixes(t *testing.T) {
	for _, tc := range []struct {
		prefix                         string
		domain, path, script, insecure bool // allowed
	}{
		{"", true, true, true, true},
		{"__Hosts-", true, true, true, true},
		{"_Host-", true, true, true, true},
		{"__Secure-", true, true, true, false},
		{"__secure-", true, true, true, false},
		{"__Http-", true, true, false, false},
		{"__HTTP-", true, true, false, false},
		{"__Host-", false, false, true, false},
		{"__HOST-", false, false, true, false},
		{"__Host-Http-", false, false, false, false},
		{"__host-hTTP-", false, false, false, false},
	} {
		for _, c := range []struct {
			what    string
			a       Attributes
			allowed bool
		}{
			{"nothing", Attributes{}, true},
			{"Domain", Attributes{Domain: "example.com"}, tc.domain},
			{"Path", Attributes{Path: "/a"}, tc.path},
			{"ScriptReadable", Attributes{ScriptReadable: true}, tc.script},
			{"Insecure", Attributes{Insecure: true}, tc.insecure},
		} {
			c.a.Name = tc.prefix + "n"
			_, problems := New(c.a)
			if (problems == nil) != c.allowed || problems != nil && (len(problems) != 1 || problems[0].Field != c.what) {
				t.Errorf("%s with %s: %v", c.a.Name, c.what, problems)
			}
		}
		if tc.insecure {
			continue
		}
		if _, problems := New(Attributes{Name: tc.prefix}); len(problems) != 1 || problems[0].Field != "Name" {
			t.Errorf("the prefix %s alone: %v", tc.prefix, problems)
		}
	}
}

// What a browser takes for an address is none of its hosts' names.
func TestDomains(t *testing.T) {
	for domain, want := range map[string]bool{
		"example.com": true, "localhost": true, "a_b.example": true, "1.example": true, "1.2.3.4a": true, "xn--p1ai": true,
		"127.0.0.1": false, "127.1": false, "2130706433": false, "a.1": false,
		"0x7f000001": false, "127.0.0.0x1": false, "a.0X1f": false, "a.0x": false, "0x.example": true, "a.0xg": true, "a.x1": true,
		"::1": false, "[::1]": false,
		".example.com": false, "example.com.": false, "a..b": false, "-a.b": false, "a-.b": false, "a b": false, "é.example": false,
		strings.Repeat("a", 64) + ".b": false, strings.Repeat("abc.", 63) + "ab": false,
	} {
		_, problems := New(Attributes{Name: "sid", Domain: domain})
		if (problems == nil) != want || !want && (len(problems) != 1 || problems[0].Field != "Domain") {
			t.Errorf("%q: %v", domain, problems)
		}
	}
}

// A chunk's name has the attributes of the first, and less room.
func TestNamed(t *testing.T) {
	c := mustNew(t, Attributes{Name: Host + "sid", SameSite: http.SameSiteStrictMode})
	n := c.Named(c.Name() + "~1")
	if n.Name() != "__Host-sid~1" || n.Deletion() != strings.Replace(c.Deletion(), "sid=", "sid~1=", 1) || n.Room() != c.Room()-2 || c.Room() != 4096-10 {
		t.Errorf("%q, room for %d", n.Deletion(), n.Room())
	}
}

// Lines of one cookie replace each other, and those of others stay where they
// are: other names, and this name for another domain or path.
func TestPut(t *testing.T) {
	c := mustNew(t, Attributes{Name: "sid"})
	others := []string{"sid2=1; Path=/; HttpOnly; Secure; SameSite=Lax", "sid=1; Path=/a; HttpOnly; Secure; SameSite=Lax", "sid=", "x=sid=1; Path=/; HttpOnly; Secure; SameSite=Lax"}
	h := http.Header{"Set-Cookie": slices.Clone(others)}
	held := h["Set-Cookie"]
	if c.Pending(h) || !c.Mentioned(h) || c.Mentioned(http.Header{"Set-Cookie": {others[0], others[3]}}) {
		t.Error("pending, or not mentioned")
	}
	c.Drop(h)
	for _, line := range []string{string(c.Append(nil, []byte("a"), 0)), string(c.Append(nil, nil, 60)), c.Deletion()} {
		c.Put(h, line)
		if !c.Pending(h) || !slices.Equal(h["Set-Cookie"], append(slices.Clone(others), line)) || !slices.Equal(held, others) {
			t.Errorf("after %q: %q", line, h["Set-Cookie"])
		}
	}
	c.Drop(h)
	if c.Pending(h) || !slices.Equal(h["Set-Cookie"], others) {
		t.Errorf("after Drop: %q", h["Set-Cookie"])
	}
	h = http.Header{}
	c.Put(h, c.Deletion())
	c.Drop(h)
	if _, ok := h["Set-Cookie"]; ok {
		t.Error("an empty field is left")
	}
}

func TestValues(t *testing.T) {
	for _, tc := range []struct {
		lines []string
		want  string
	}{
		{nil, "[]"},
		{[]string{""}, "[]"},
		{[]string{"sid=a"}, "[a]"},
		{[]string{"x=1; sid=a; y=2"}, "[a]"},
		{[]string{"sid=a;sid=b", "sid=c"}, "[a b c]"},
		{[]string{" \tsid=a\t ;; ;"}, "[a]"},
		{[]string{"sid=", "sid"}, "[]"},
		{[]string{"SID=a; sidx=b; xsid=c; sid =d"}, "[]"},
		{[]string{`sid="a"`}, `["a"]`},
		{[]string{"sid=a=b=c"}, "[a=b=c]"},
		{[]string{"sid=1; sid=2; sid=3; sid=4; sid=5"}, "[1 2 3 4]"},
	} {
		var room [4]string
		got := Values(room[:0], http.Header{"Cookie": tc.lines}, "sid")
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%q: %q, want %s", tc.lines, got, tc.want)
		}
	}
}

func TestValuesAllocates(t *testing.T) {
	h := http.Header{"Cookie": {"a=b; sid=1; c=d", "sid=2; sid=3; sid=4; sid=5"}}
	if n := testing.AllocsPerRun(100, func() {
		var room [4]string
		if found := Values(room[:0], h, "sid"); len(found) != 4 || found[3] != "4" {
			t.Error("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever net/http takes for a cookie of the name is found here, in the same
// order; more can be, with a value that net/http would not have. Only a name
// without an equals sign, or with white space before it, is a cookie there and
// none here, whatever its value: no browser sends one.
func FuzzValues(f *testing.F) {
	f.Add("sid=a; sid=b", "sid")
	f.Add(" sid=\"a b\";\tsid=\"; sid=a,b", "sid")
	f.Add("a=b;=;a;;a==", "a")
	f.Fuzz(func(t *testing.T, line, name string) {
		if !token(name) || strings.ContainsAny(line, "\r\n") { // no field has a line break
			return
		}
		h := http.Header{"Cookie": {line}}
		ours := Values(make([]string, 0, 1+strings.Count(line, ";")), h, name)
		for _, v := range ours {
			if strings.ContainsRune(v, ';') || v != strings.TrimRight(v, " \t") || !strings.Contains(line, name+"="+v) {
				t.Errorf("%q: %q", line, ours)
			}
		}
		spaced := regexp.MustCompile(regexp.QuoteMeta(name) + "[ \t]+=").MatchString(line)
		for _, c := range (&http.Request{Header: h}).CookiesNamed(name) {
			want := c.Value
			if c.Quoted {
				want = `"` + want + `"`
			}
			if want == "" || spaced {
				continue
			}
			i := slices.Index(ours, want)
			if i < 0 {
				t.Fatalf("%q: net/http finds %q, here %q", line, want, ours)
			}
			ours = ours[i+1:]
		}
	})
}

// No attribute that is accepted can break out of its line.
func FuzzNew(f *testing.F) {
	f.Add("sid", "example.com", "/", 2)
	f.Add("__Host-sid\r\nX: y", "a;b", "/;", 0)
	f.Fuzz(func(t *testing.T, name, domain, path string, sameSite int) {
		c, problems := New(Attributes{Name: name, Domain: domain, Path: path, SameSite: http.SameSite(sameSite)})
		if problems != nil {
			if c != nil {
				t.Error("a cookie with problems")
			}
			return
		}
		line := string(c.Append(nil, []byte("v"), 1))
		got, err := http.ParseSetCookie(line)
		if err != nil || strings.ContainsAny(line, "\r\n\x00") || got.Name != name || got.Value != "v" || got.Domain != domain || got.Unparsed != nil || !got.Secure || !got.HttpOnly {
			t.Errorf("%q reads %+v, %v", line, got, err)
		}
		if path != "" && got.Path != path {
			t.Errorf("%q has the path %q", line, got.Path)
		}
	})
}
