package cookieattr

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// The name prefixes with which a server asks the browser to hold it to its own
// rules. Browsers compare them without regard to case, and those that do not
// know HostHttp see Host in it.
const (
	Secure   = "__Secure-"
	Host     = "__Host-"
	HTTP     = "__Http-"
	HostHTTP = "__Host-Http-"
)

// demands are what the prefix of a name requires.
type demands struct {
	prefix               string
	host, http, insecure bool // no Domain and Path=/; HttpOnly; insecure is allowed
}

// demandsOf returns what the name's prefix requires. The longest comes first.
func demandsOf(name string) demands {
	for _, d := range [...]demands{
		{prefix: HostHTTP, host: true, http: true},
		{prefix: Host, host: true},
		{prefix: HTTP, http: true},
		{prefix: Secure},
	} {
		if len(name) >= len(d.prefix) && strings.EqualFold(name[:len(d.prefix)], d.prefix) {
			return d
		}
	}
	return demands{insecure: true}
}

// problems judges attributes whose defaults are filled in.
func (a Attributes) problems() []Problem {
	var all []Problem
	add := func(field, format string, args ...any) {
		all = append(all, Problem{field, fmt.Sprintf(format, args...)})
	}

	d := demandsOf(a.Name)
	switch {
	case a.Name == "":
		add("Name", `is empty (got "")`)
	case !token(a.Name):
		add("Name", "is not a token, RFC 9110 section 5.6.2 (got %q)", a.Name)
	case len(a.Name) == len(d.prefix):
		add("Name", "has nothing after its prefix (got %q)", a.Name)
	case len(a.Name) > MaxSize/4:
		add("Name", "is longer than %d bytes (got %d)", MaxSize/4, len(a.Name))
	}

	switch {
	case a.Path[0] != '/' || !pathValue(a.Path):
		add("Path", "must begin with a slash and be printable ASCII without semicolons, quotation marks and backslashes (got %q)", a.Path)
	case len(a.Path) > MaxAttribute:
		add("Path", "is longer than %d bytes (got %d)", MaxAttribute, len(a.Path))
	case d.host && a.Path != "/":
		add("Path", "must be / for a name with the prefix %s (got %q)", d.prefix, a.Path)
	}

	switch {
	case a.Domain == "":
	case d.host:
		add("Domain", "must be empty for a name with the prefix %s (got %q)", d.prefix, a.Domain)
	case !hostName(a.Domain):
		add("Domain", "must be a host name in ASCII, without a leading dot and not an address (got %q)", a.Domain)
	}

	switch a.SameSite {
	case http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode:
	default:
		add("SameSite", "must be Lax, Strict or None (got %d)", a.SameSite)
	}

	if a.Insecure {
		if !d.insecure {
			add("Insecure", "must not be set for a name with the prefix %s (got true)", d.prefix)
		}
		if a.SameSite == http.SameSiteNoneMode {
			add("Insecure", "must not be set with SameSite=None (got true)")
		}
		if a.Partitioned {
			add("Insecure", "must not be set with Partitioned (got true)")
		}
	}
	if a.ScriptReadable && d.http {
		add("ScriptReadable", "must not be set for a name with the prefix %s (got true)", d.prefix)
	}
	return all
}

// tail renders what comes after Max-Age.
func (a Attributes) tail() string {
	var b strings.Builder
	b.WriteString("; Path=" + a.Path)
	if a.Domain != "" {
		b.WriteString("; Domain=" + a.Domain)
	}
	if !a.ScriptReadable {
		b.WriteString("; HttpOnly")
	}
	if !a.Insecure {
		b.WriteString("; Secure")
	}
	switch a.SameSite {
	case http.SameSiteStrictMode:
		b.WriteString("; SameSite=Strict")
	case http.SameSiteNoneMode:
		b.WriteString("; SameSite=None")
	default:
		b.WriteString("; SameSite=Lax")
	}
	if a.Partitioned {
		b.WriteString("; Partitioned")
	}
	return b.String()
}

// token reports whether s is a token of RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// pathValue reports whether s is a path-value of RFC 6265bis section 4.1.1 as
// every reader keeps it: browsers trim white space at the ends, and net/http's
// clients drop what has a quotation mark or a backslash. No browser sends
// either in a path, so that such a cookie would come back to nobody.
func pathValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == ';' || c == '"' || c == '\\' {
			return false
		}
	}
	return s == strings.Trim(s, " ")
}

// hostName reports whether s is a name that Domain can have. An address never
// domain-matches anything but itself, and then the attribute says nothing. For
// browsers whatever ends in a number is an address, or none at all (WHATWG URL
// section 3.5).
func hostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	last, digits := s[strings.LastIndexByte(s, '.')+1:], "0123456789"
	if len(last) > 1 && last[0] == '0' && last[1]|0x20 == 'x' {
		last, digits = last[2:], "0123456789abcdefABCDEF"
	}
	if strings.Trim(last, digits) == "" {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
