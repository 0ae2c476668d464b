package reqid

import (
	"net/http"
	"strings"
	"testing"
)

// reqid 20: Valid never panics, and what it accepts survives the way over the
// wire: no trimming, no splitting, nothing that a log has to quote.
func FuzzValid(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "0195f180-2939-7bc4-bffe-838eb3c62526", "host/prefix-000001", "\xff", "a,b", "\u202e", strings.Repeat("z", 129)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ok := Valid(s)
		again := strings.TrimSpace(strings.ToValidUTF8(s, "?"))
		if ok && (again != s || len(s) > maxValid || strings.ContainsAny(s, "\x00\r\n\t \"'\\,;$`{}<>%|&()")) {
			t.Errorf("%q is valid", s)
		}
		if ok && !carriable(s) {
			t.Errorf("%q is valid but no header value", s)
		}
	})
}

// reqid 20: the parser of traceparent never panics, and what it accepts
// re-serialises: to itself in version 00 with known flags, and otherwise to a
// version 00 that reads the same.
func FuzzTraceparent(f *testing.F) {
	for _, s := range []string{
		"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
		"00-00000000000000000000000000000000-0000000000000000-00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		trace, ok := parseTraceparent(s)
		if !ok {
			return
		}
		out := trace.String()
		if again, ok := parseTraceparent(out); !ok || again != trace {
			t.Errorf("%q became %q, which reads %+v, %v", s, out, again, ok)
		}
		if strings.HasPrefix(s, "00") && s[53] == '0' && s[54] < '4' && out != s {
			t.Errorf("%q became %q", s, out)
		}
		if out[2:53] != s[2:53] || len(s) > maxParent {
			t.Errorf("%q became %q", s, out)
		}
	})
}

// reqid 20: joining a tracestate never panics; what it accepts is within the
// limits, joins to itself, and keeps every member in its place.
func FuzzTracestate(f *testing.F) {
	for _, s := range [][2]string{
		{"", ""}, {"foo=1,bar=2", "baz=3"}, {" foo=1\t,", ",,"}, {"a= b", "\t"}, {"foo=", ""}, {"@a=1", ""}, {"a=\x7f", ""},
		{strings.Repeat("a=1,", 31) + "a=1", ""}, {strings.Repeat("a=1,", 31), "a=1,a=1"},
	} {
		f.Add(s[0], s[1])
	}
	split := func(lines ...string) (all []string) {
		for _, m := range strings.Split(strings.Join(lines, ","), ",") {
			if m = strings.Trim(m, " \t"); m != "" {
				all = append(all, m)
			}
		}
		return all
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, lines := range [][]string{{a}, {a, b}} {
			joined, ok := joinTracestate(lines)
			if !ok {
				if joined != "" {
					t.Errorf("%q is refused and yet %q", lines, joined)
				}
				continue
			}
			if want, got := split(lines...), split(joined); strings.Join(want, ",") != strings.Join(got, ",") || len(got) > maxMembers {
				t.Errorf("%q became %q", lines, joined)
			}
			if again, ok := joinTracestate([]string{joined}); !ok || again != joined || len(joined) > maxState {
				t.Errorf("%q became %q and then %q, %v", lines, joined, again, ok)
			}
			// A hostile one never reaches a Transport that refuses to send it.
			for i := range len(joined) {
				if c := joined[i]; c != '\t' && (c < ' ' || c > '~') {
					t.Errorf("%q has byte %#x", joined, c)
				}
			}
			h := http.Header{traceparentKey: {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, tracestateKey: lines}
			if trace := readTrace(h); trace.State != joined {
				t.Errorf("%q became %q", lines, trace.State)
			}
		}
	})
}
