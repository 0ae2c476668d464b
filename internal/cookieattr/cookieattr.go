// Package cookieattr holds the rules of the cookies that the kit sets: which
// names and attributes a browser accepts together, how a Set-Cookie field is
// written, and how the values of one name are found in a request.
//
// Rules that a browser enforces by dropping the cookie in silence are checked
// here when the cookie is declared. They are those of
// draft-ietf-httpbis-rfc6265bis and, for the prefixes with Http in them, of
// draft-ietf-httpbis-layered-cookies.
package cookieattr

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxSize is what a browser takes of one cookie: the bytes of its name and
	// of its value together (RFC 6265bis section 5.6).
	MaxSize = 4096

	// MaxAttribute is what a browser takes of one attribute's value.
	MaxAttribute = 1024

	// MaxAgeLimit is the longest Max-Age, in seconds, that browsers honour
	// (RFC 6265bis section 5.5): 400 days.
	MaxAgeLimit = 400 * 24 * 60 * 60
)

// Attributes declare a cookie. The zero value of each field is the safe one.
type Attributes struct {
	Name           string        // a token (RFC 9110 section 5.6.2); required
	Domain         string        // "" is host-only
	Path           string        // "" is "/"
	SameSite       http.SameSite // 0 is Lax
	Partitioned    bool
	ScriptReadable bool // without HttpOnly
	Insecure       bool // without Secure
}

// Problem is one reason why a browser would not keep a cookie so declared.
// Callers name their package, and their own name of the field, in the error
// that they make of it.
type Problem struct {
	Field string // the field of Attributes
	Text  string // what is wrong with it, with "(got …)"
}

// Cookie is a declared cookie, ready to be written. It is immutable and safe
// for concurrent use.
type Cookie struct {
	name string
	head string // "name="
	tail string // "; Path=…" and all that follows, the same in every line
}

// New returns the declared cookie, or nil and every problem of the
// declaration.
func New(a Attributes) (*Cookie, []Problem) {
	if a.Path == "" {
		a.Path = "/"
	}
	if a.SameSite == 0 {
		a.SameSite = http.SameSiteLaxMode
	}
	if problems := a.problems(); problems != nil {
		return nil, problems
	}
	return &Cookie{name: a.Name, head: a.Name + "=", tail: a.tail()}, nil
}

// Named returns the cookie of another name with the same attributes, for the
// further parts of a value that does not fit into one. The name must be a token
// with the prefix, if any, of the first.
func (c *Cookie) Named(name string) *Cookie {
	return &Cookie{name: name, head: name + "=", tail: c.tail}
}

// Name returns the cookie's name.
func (c *Cookie) Name() string { return c.name }

// Room returns how many bytes of value a browser keeps under this name. It is
// never negative.
func (c *Cookie) Room() int { return max(0, MaxSize-len(c.name)) }

// Append appends the value of a Set-Cookie field that sets the cookie. The
// value must consist of cookie-octets (RFC 6265 section 4.1.1), which is not
// checked. maxAge is in seconds; 0 and below is no Max-Age: the browser forgets
// the cookie when its session ends.
func (c *Cookie) Append(dst, value []byte, maxAge int64) []byte {
	dst = append(dst, c.head...)
	dst = append(dst, value...)
	return c.finish(dst, maxAge)
}

// AppendString is Append for a value in a string.
func (c *Cookie) AppendString(dst []byte, value string, maxAge int64) []byte {
	dst = append(dst, c.head...)
	dst = append(dst, value...)
	return c.finish(dst, maxAge)
}

func (c *Cookie) finish(dst []byte, maxAge int64) []byte {
	if maxAge > 0 {
		dst = append(dst, "; Max-Age="...)
		dst = strconv.AppendInt(dst, maxAge, 10)
	}
	return append(dst, c.tail...)
}

// Overhead bounds how many bytes a line has beside the value.
func (c *Cookie) Overhead() int {
	return len(c.head) + len("; Max-Age=34560000") + len(c.tail)
}

// Deletion returns the value of a Set-Cookie field that makes the browser drop
// the cookie. It has the attributes of the cookie itself: without them a prefix
// or a partition would make the browser ignore it.
func (c *Cookie) Deletion() string { return c.head + "; Max-Age=0" + c.tail }

// Put adds line, which [Cookie.Append] or [Cookie.Deletion] has made, to the
// Set-Cookie fields of h. It takes the place of a line for the same cookie that
// is there already: RFC 6265 section 4.1.1 wants one per name, and the last one
// counts. The slice in h is replaced and not written to.
func (c *Cookie) Put(h http.Header, line string) {
	old := h["Set-Cookie"]
	lines := make([]string, 0, len(old)+1)
	for _, l := range old {
		if !c.made(l) {
			lines = append(lines, l)
		}
	}
	h["Set-Cookie"] = append(lines, line)
}

// Pending reports whether h sets or deletes this cookie.
func (c *Cookie) Pending(h http.Header) bool {
	return slices.ContainsFunc(h["Set-Cookie"], c.made)
}

// Mentioned reports whether h has a Set-Cookie line of this name, whatever its
// attributes: one that a handler wrote by itself may mean this cookie.
func (c *Cookie) Mentioned(h http.Header) bool {
	return slices.ContainsFunc(h["Set-Cookie"], func(line string) bool { return strings.HasPrefix(line, c.head) })
}

// Drop takes the lines of this cookie out of h.
func (c *Cookie) Drop(h http.Header) {
	if !c.Pending(h) {
		return
	}
	lines := slices.DeleteFunc(slices.Clone(h["Set-Cookie"]), c.made)
	if len(lines) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = lines
}

// made reports whether a Set-Cookie line is of this cookie. One of the same
// name with other attributes can be another cookie in the browser.
func (c *Cookie) made(line string) bool {
	return len(line) >= len(c.head)+len(c.tail) && strings.HasPrefix(line, c.head) && strings.HasSuffix(line, c.tail)
}

// Values appends to dst the values of the cookies called name in a request's
// Cookie fields, in their order, and returns it. It stops when dst has reached
// its capacity, so that it never allocates: with room for one more than the
// caller accepts, the caller sees that there are too many. The values are as
// they were sent, quotation marks and all, and share the memory of the fields.
//
// Names are compared byte by byte (RFC 6265bis section 5.7), and a part without
// an equals sign is not a cookie.
func Values(dst []string, h http.Header, name string) []string {
	for _, line := range h["Cookie"] {
		for line != "" {
			if len(dst) == cap(dst) {
				return dst
			}
			var pair string
			if i := strings.IndexByte(line, ';'); i >= 0 {
				pair, line = line[:i], line[i+1:]
			} else {
				pair, line = line, ""
			}
			pair = trim(pair)
			if len(pair) > len(name) && pair[len(name)] == '=' && pair[:len(name)] == name {
				dst = append(dst, pair[len(name)+1:])
			}
		}
	}
	return dst
}

// trim takes spaces and tabs from both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
