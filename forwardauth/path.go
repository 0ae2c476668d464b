package forwardauth

import (
	"net/http"
	"net/url"
	"strings"

	"example.com/plainware/internal/urlpath"
)

// target returns the request target as the service shall judge it, or false
// where there is none in origin form (RFC 9112, section 3.2.1).
//
// It is what the client sent, byte by byte, as long as that is what the
// application is going to route by: http.StripPrefix may have taken something
// off its beginning, and others the slash off its end. Where something outside
// has rewritten the path otherwise, the rewritten one is what counts, and what
// is sent; and so for the query, each for itself: a query that was rewritten
// does not hide what was taken off the path.
func target(r *http.Request) (string, bool) {
	t := r.RequestURI
	if t == "" {
		t = r.URL.RequestURI() // a request built by hand
	}
	if r.URL.Opaque != "" || !originForm(t) {
		return "", false
	}
	sent, query, _ := strings.Cut(t, "?")
	path := sent
	if !leads(path, r.URL) {
		if path = strings.TrimSuffix(sent, "/"); !leads(path, r.URL) {
			path = r.URL.EscapedPath()
		}
	}
	switch {
	case query != r.URL.RawQuery && (r.URL.RawQuery != "" || r.URL.ForceQuery):
		t = path + "?" + r.URL.RawQuery
	case query != r.URL.RawQuery:
		t = path
	case path != sent:
		t = path + t[len(sent):]
	}
	return t, originForm(t)
}

// originForm reports whether t is a path with or without a query, and has
// nothing in it that would end it for a reader.
func originForm(t string) bool {
	return strings.HasPrefix(t, "/") && !urlpath.BadBytes(t)
}

// leads reports whether path, as sent, ends with what the URL has: all of it,
// or the part that StripPrefix leaves. Go re-encodes a path that it would not
// have written so itself, hence the comparison with the decoded form.
func leads(path string, u *url.URL) bool {
	if path == u.Path && strings.IndexByte(path, '%') < 0 || strings.HasSuffix(path, u.EscapedPath()) {
		return true
	}
	plain, ok := unescape(path)
	return ok && strings.HasSuffix(plain, u.Path)
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			var ok bool
			if c, ok = escaped(s[i:]); !ok {
				return "", false
			}
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}

// escaped decodes the three bytes of a percent-encoding at the beginning of s.
func escaped(s string) (byte, bool) {
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false
	}
	return unhex(s[1])<<4 | unhex(s[2]), true
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// ambiguous reports whether the path of a target may mean one thing to the
// service and another to the application.
//
// What is left is equal to its own normal form (RFC 3986, section 6.2.2) and to
// what url.URL makes of it, so that a comparison of the text, of the normalised
// text and of what a proxy behind sends all come to the same result. Two of
// those that are left have one decoded form only if they differ in whether a
// reserved character (see reserved) is written as it is or encoded. The RFC
// takes these for different paths (section 2.2), applications often do not, and
// what clients send has both; so whoever judges has to decode first.
func ambiguous(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			if rest := path[i+1:]; dots(rest) || empty(rest) {
				return true
			}
		case c == '%':
			d, ok := escaped(path[i:])
			switch {
			case !ok, d == '/', d == '\\', d < ' ', d == 0x7f, isUnreserved(d):
				return true
			case 'a' <= path[i+1], 'a' <= path[i+2]:
				return true // hexadecimal digits are upper-case
			case d == '%' && len(path) >= i+5 && isHex(path[i+3]) && isHex(path[i+4]):
				return true // encoded twice
			}
			i += 2
		case !isUnreserved(c) && !reserved(c):
			return true // must be encoded
		}
	}
	return false
}

// dots reports whether path begins with a segment that is "." or "..", for a
// reader who takes parameters off segments too, as Java's do.
func dots(path string) bool {
	rest := strings.TrimPrefix(path, ".")
	if len(rest) == len(path) {
		return false
	}
	rest = strings.TrimPrefix(rest, ".")
	return rest == "" || rest[0] == '/' || rest[0] == ';' || strings.HasPrefix(rest, "%3B")
}

// empty reports whether path begins with a segment that is empty for such a
// reader, and that another one follows.
func empty(path string) bool {
	if path == "" || path[0] != '/' && path[0] != ';' && !strings.HasPrefix(path, "%3B") {
		return false
	}
	return strings.IndexByte(path, '/') >= 0
}

func isUnreserved(c byte) bool { return isAlnum(c) || strings.IndexByte("-._~", c) >= 0 }

// reserved reports whether c is a reserved character (RFC 3986, section 2.2) that
// stands in paths, slashes aside. By the grammar brackets cannot, but browsers
// send them.
func reserved(c byte) bool { return strings.IndexByte("!$&'()*+,:;=@[]", c) >= 0 }

// validHost reports whether s is a host with or without a port, of the
// characters that host names and addresses have. Anything else, user info, a
// list or a path above all, is read differently by different programs.
func validHost(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 4 { // [::]
			return false
		}
		host, port = s[1:end], s[end+1:]
		for i := range len(host) {
			if c := host[i]; !isHex(c) && c != ':' && c != '.' {
				return false
			}
		}
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, port = s[:i], s[i:]
		}
		for i := range len(host) {
			if c := host[i]; !isAlnum(c) && c != '-' && c != '.' && c != '_' {
				return false
			}
		}
	}
	if host == "" || len(host) > 253 {
		return false
	}
	if port == "" {
		return true
	}
	if port[0] != ':' || len(port) < 2 || len(port) > 6 {
		return false
	}
	for i := 1; i < len(port); i++ {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
	}
	return true
}

// mayUpgradeToH2C reports whether the client asks for HTTP/2 on this very
// connection: what it sends there would pass unseen.
func mayUpgradeToH2C(h http.Header) bool {
	for _, line := range h["Upgrade"] {
		for part := range strings.SplitSeq(line, ",") {
			if name, _, _ := strings.Cut(strings.TrimSpace(part), "/"); strings.EqualFold(name, "h2c") || strings.EqualFold(name, "h2") {
				return true
			}
		}
	}
	return len(h["Http2-Settings"]) > 0
}
