package upstream

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"example.com/plainware/internal/urlpath"
)

// Rule rewrites the paths that it matches. Exactly one of Exact, Prefix and
// Regexp is set.
type Rule struct {
	// Exact is a whole escaped path. It is compared byte for byte.
	Exact string

	// Prefix is the beginning of a path, up to the end of a segment; To takes
	// its place, and the rest stays.
	Prefix string

	// Regexp is a regular expression of package regexp that is searched for in
	// the escaped path. To takes the place of the whole path, and not of the
	// match alone.
	Regexp string

	// To is the new escaped path, or the new prefix. It begins with a slash.
	// With Regexp, $1 or ${name} is what a group has matched, and $$ a dollar
	// sign; write ${1} where a letter, a digit or an underscore follows. A group
	// that Regexp does not have is an error.
	To string
}

// rewriter is a URI made ready.
type rewriter struct {
	strip, add string
	rules      []rule
	query      QueryPolicy
	dots       bool
}

type rule struct {
	exact, prefix, to string
	re                *regexp.Regexp
}

func newRewriter(u URI, bad *problems) *rewriter {
	rw := &rewriter{
		strip: strings.TrimRight(u.StripPrefix, "/"),
		add:   strings.TrimRight(u.AddPrefix, "/"),
		query: u.Query,
		dots:  u.InsecureDotSegments,
	}
	for _, p := range [...]struct{ field, prefix string }{{"URI.StripPrefix", u.StripPrefix}, {"URI.AddPrefix", u.AddPrefix}} {
		if p.prefix != "" {
			checkPath(bad, p.field, p.prefix)
		}
	}
	if u.Query > QueryReject {
		bad.add("URI.Query", "must be one of the QueryPolicy constants", u.Query)
	}
	for i, r := range u.Rules {
		field := fmt.Sprintf("URI.Rules[%d]", i)
		set := 0
		for _, s := range [...]string{r.Exact, r.Prefix, r.Regexp} {
			if s != "" {
				set++
			}
		}
		if set != 1 {
			bad.add(field, "must have exactly one of Exact, Prefix and Regexp", set)
			continue
		}
		made := rule{exact: r.Exact, to: r.To}
		switch {
		case r.Exact != "":
			checkPath(bad, field+".Exact", r.Exact)
			checkPath(bad, field+".To", r.To)
		case r.Prefix != "":
			checkPath(bad, field+".Prefix", r.Prefix)
			checkPath(bad, field+".To", r.To)
			made.prefix = strings.TrimRight(r.Prefix, "/")
			made.to = strings.TrimRight(r.To, "/")
		default:
			re, err := regexp.Compile(r.Regexp)
			if err != nil {
				bad.add(field+".Regexp", "must be a regular expression: "+err.Error(), r.Regexp)
				continue
			}
			if r.To == "" || r.To[0] != '/' || strings.ContainsRune(r.To, '?') || urlpath.BadBytes(r.To) {
				bad.add(field+".To", "must be an escaped path that begins with a slash", r.To)
			}
			if ref := badReference(r.To, re); ref != "" {
				bad.add(field+".To", ref+" is no group of Regexp; a dollar sign is $$, and ${1} ends where a letter follows", r.To)
			}
			made.re = re
		}
		rw.rules = append(rw.rules, made)
	}
	return rw
}

// badReference returns the first reference in a template of regexp.Expand that
// stands for nothing, or "". Expand itself puts nothing in its place, or leaves a
// dollar sign that begins no reference.
func badReference(template string, re *regexp.Regexp) string {
	for {
		_, rest, ok := strings.Cut(template, "$")
		if !ok {
			return ""
		}
		if rest, ok = strings.CutPrefix(rest, "$"); ok {
			template = rest
			continue
		}
		name, rest := reference(rest)
		if n, err := strconv.ParseUint(name, 10, 31); err == nil && (name == "0" || name[0] != '0') {
			if int(n) > re.NumSubexp() {
				return "$" + name
			}
		} else if name == "" || re.SubexpIndex(name) < 0 {
			return "$" + name
		}
		template = rest
	}
}

// reference returns the name at the beginning of what follows a dollar sign, and
// what is behind it. The name is empty if there is none.
func reference(s string) (name, rest string) {
	inner, braces := strings.CutPrefix(s, "{")
	end := strings.IndexFunc(inner, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if end < 0 {
		end = len(inner)
	}
	name, rest = inner[:end], inner[end:]
	if braces {
		var closed bool
		if rest, closed = strings.CutPrefix(rest, "}"); !closed {
			return "", ""
		}
	}
	return name, rest
}

// checkPath reports a configured path that is no escaped path.
func checkPath(bad *problems, field, path string) {
	plain, err := url.PathUnescape(path)
	if err != nil || path == "" || path[0] != '/' || urlpath.BadBytes(path) || strings.ContainsRune(path, '?') ||
		strings.IndexByte(plain, 0) >= 0 || strings.HasPrefix(path, "//") || urlpath.DotSegments(plain) {
		bad.add(field, "must be an escaped path that begins with one slash and has no dot segments", path)
	}
}

// rewrites reports whether any path can be changed.
func (rw *rewriter) rewrites() bool {
	return rw.strip != "" || rw.add != "" || len(rw.rules) > 0
}

// path returns what becomes of an escaped path, and the prefix that was taken
// off it, as the client wrote it.
func (rw *rewriter) path(escaped string) (path, stripped string) {
	path = escaped
	if path == "" {
		path = "/"
	}
	if rw.strip != "" {
		if rest, ok := cutPrefix(path, rw.strip); ok {
			stripped = path[:len(path)-len(rest)]
			path = rooted(rest)
		}
	}
	for i := range rw.rules {
		if to, ok := rw.rules[i].apply(path); ok {
			path = rooted(to)
			break
		}
	}
	if rw.add != "" {
		path = rw.add + path
	}
	return path, stripped
}

func (r *rule) apply(path string) (string, bool) {
	switch {
	case r.re != nil:
		m := r.re.FindStringSubmatchIndex(path)
		if m == nil {
			return "", false
		}
		return string(r.re.ExpandString(nil, r.to, path, m)), true
	case r.exact != "":
		return r.to, path == r.exact
	}
	rest, ok := cutPrefix(path, r.prefix)
	return r.to + rest, ok
}

// rooted makes a path begin with exactly one slash: with two, what follows is a
// host to whoever resolves it as a reference. Backslashes are slashes to some.
func rooted(path string) string {
	return "/" + strings.TrimLeft(path, `/\`)
}

// cutPrefix takes prefix, a number of whole segments, off an escaped path. A
// byte of the path that is encoded without need is taken for what it stands
// for: /%61pi is /api to every mux, and must not get past the prefix. An encoded
// slash is no slash.
func cutPrefix(path, prefix string) (rest string, ok bool) {
	for i := 0; i < len(prefix); {
		pc, pn := decoded(prefix[i:])
		c, n := decoded(path)
		if n == 0 || c != pc || (c == '/' && n != pn) {
			return "", false
		}
		i += pn
		path = path[n:]
	}
	return path, path == "" || path[0] == '/'
}

// decoded returns the first byte of an escaped path and how long it is there; 0
// at the end.
func decoded(s string) (c byte, n int) {
	switch {
	case s == "":
		return 0, 0
	case s[0] == '%' && len(s) > 2 && isHex(s[1]) && isHex(s[2]):
		return unhex(s[1])<<4 | unhex(s[2]), 3
	}
	return s[0], 1
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0xf + 9
}
