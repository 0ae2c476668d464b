package paginate

import (
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
)

// Link is one link of a Link header field (RFC 8288).
type Link struct {
	// Target is what stands between < and >: a URI reference, relative to the
	// request it answers.
	Target string

	// Rel is the value of the first rel parameter: one relation type, or
	// several with spaces between them. See [Link.Has].
	Rel string

	// Params are all parameters as they are written, from the semicolon on.
	// When a link is written, rel and everything else comes from here only
	// where Rel is empty; otherwise a rel in Params is left out.
	Params Params
}

// Has reports whether rel is among the link's relation types. Case does not
// matter (RFC 8288, section 2.1.1).
func (l Link) Has(rel string) bool {
	for s := range strings.FieldsSeq(l.Rel) {
		if strings.EqualFold(s, rel) {
			return true
		}
	}
	return false
}

// Params are the parameters of a [Link] in the form of the header field:
//
//	; title="next chapter"; hreflang=de
type Params string

// Get returns the value of the first parameter of that name and whether there
// is one. Case does not matter. A value that is encoded as RFC 8187 says, that
// of title* for example, is returned as it is.
func (p Params) Get(name string) (value string, ok bool) {
	for n, v := range p.All() {
		if strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// All yields the parameters' names and values in their order. One without a
// value has "".
func (p Params) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		rest := string(p)
		for {
			name, value, tail, ok := nextParam(rest)
			if !ok || name != "" && !yield(name, value) {
				return
			}
			rest = tail
		}
	}
}

// With returns p and one more parameter, quoted. The name must be a token, and
// the value must not contain control characters; otherwise p is returned as it
// is: see [AppendLink], which reports errors.
func (p Params) With(name, value string) Params {
	if !isToken(name) || hasControl(value) {
		return p
	}
	return Params(appendQuoted(append([]byte(p), "; "+name+"="...), value))
}

// ParseLinks appends the links in the values of a Link header field to dst and
// returns the result:
//
//	links = paginate.ParseLinks(links[:0], resp.Header["Link"]...)
//
// It follows the algorithm of RFC 8288, appendix B.2: commas and semicolons
// between < and > or in quotes do not separate, names have no case, of several
// rel the first counts. What comes after an unterminated < is left out, and
// from what else is malformed it goes on behind the next comma. It takes linear
// time and allocates nothing but room in dst and strings for relations with a
// backslash in them.
func ParseLinks(dst []Link, values ...string) []Link {
	for _, s := range values {
		for {
			s = strings.TrimLeft(s, " \t,")
			if s == "" || s[0] != '<' {
				break
			}
			end := strings.IndexByte(s, '>')
			if end < 0 {
				break
			}
			l := Link{Target: s[1:end]}
			s = s[end+1:]
			params, found := s, false
			for {
				name, value, tail, ok := nextParam(s)
				if !ok {
					break
				}
				if !found && strings.EqualFold(name, "rel") {
					l.Rel, found = value, true
				}
				s = tail
			}
			l.Params = Params(params[:len(params)-len(s)])
			dst = append(dst, l)
			_, s, _ = strings.Cut(s, ",")
		}
	}
	return dst
}

// nextParam reads one parameter with the semicolon before it.
func nextParam(s string) (name, value, tail string, ok bool) {
	t := strings.TrimLeft(s, " \t")
	if t == "" || t[0] != ';' {
		return "", "", s, false
	}
	t = strings.TrimLeft(t[1:], " \t")
	n := strings.IndexAny(t, "=;,")
	if n < 0 {
		n = len(t)
	}
	name, t = strings.TrimRight(t[:n], " \t"), t[n:]
	if t == "" || t[0] != '=' {
		return name, "", t, true
	}
	t = strings.TrimLeft(t[1:], " \t")
	if t != "" && t[0] == '"' {
		value, t = quoted(t)
		return name, value, t, true
	}
	n = strings.IndexAny(t, ";,")
	if n < 0 {
		n = len(t)
	}
	return name, strings.TrimRight(t[:n], " \t"), t[n:], true
}

// quoted reads a quoted string, or what there is of one.
func quoted(s string) (value, tail string) {
	escaped := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			if value = s[1:i]; escaped {
				value = unquote(value)
			}
			return value, s[i+1:]
		}
	}
	if value = s[1:]; escaped {
		value = unquote(value)
	}
	return value, ""
}

func unquote(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// AppendLink appends l to dst in the form of the header field, behind a comma
// if dst is not empty, and returns the result:
//
//	b, err := paginate.AppendLink(nil, paginate.Link{Target: "/posts?page=2", Rel: "next"})
//	w.Header().Add("Link", string(b))
//
// A target with a character that no URI has (RFC 3986, section 2), a Rel with a
// control character and Params that are not parameters are errors; dst is then
// returned as it is.
func AppendLink(dst []byte, l Link) ([]byte, error) {
	var bad uint8 // without a branch for each byte: this is most of the work
	for i := range len(l.Target) {
		bad |= notURI[l.Target[i]]
	}
	if bad != 0 {
		return dst, fmt.Errorf("paginate: Link: Target has a character that must be percent-encoded (got %q)", l.Target)
	}
	if hasControl(l.Rel) {
		return dst, fmt.Errorf("paginate: Link: Rel has a control character (got %q)", l.Rel)
	}
	if l.Params != "" {
		if err := l.Params.check(); err != nil {
			return dst, err
		}
	}
	if len(dst) > 0 {
		dst = append(dst, ", "...)
	}
	dst = append(dst, '<')
	dst = append(dst, l.Target...)
	dst = append(dst, '>')
	if l.Rel != "" {
		dst = append(dst, "; rel="...)
		dst = appendQuoted(dst, l.Rel)
	}
	if l.Params == "" {
		return dst, nil
	}
	for name, value := range l.Params.All() {
		if l.Rel != "" && strings.EqualFold(name, "rel") {
			continue
		}
		dst = append(dst, "; "...)
		dst = append(dst, name...)
		dst = append(dst, '=')
		if strings.HasSuffix(name, "*") && isToken(value) {
			dst = append(dst, value...) // RFC 8187, section 3.2: never in quotes
		} else {
			dst = appendQuoted(dst, value)
		}
	}
	return dst, nil
}

func (p Params) check() error {
	rest := string(p)
	for {
		name, value, tail, ok := nextParam(rest)
		if !ok {
			break
		}
		if !isToken(name) || hasControl(value) {
			return fmt.Errorf("paginate: Link: Params has a malformed parameter (got %q)", string(p))
		}
		rest = tail
	}
	if strings.Trim(rest, " \t") != "" {
		return fmt.Errorf("paginate: Link: Params are not parameters from the semicolon on (got %q)", string(p))
	}
	return nil
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	if strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\\') < 0 {
		b = append(b, s...)
		return append(b, '"')
	}
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// notURI is 1 for what stands in no URI reference (RFC 3986, section 2), as far
// as it matters here: the rest is for whoever made the reference.
var notURI = func() (set [256]uint8) {
	for c := range set {
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' || c == '"' {
			set[c] = 1
		}
	}
	return set
}()

// hasControl reports whether s has a character that no quoted string can have
// (RFC 9110, section 5.6.4).
func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// isToken is RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// Find returns the target of the first link in h with that relation type,
// resolved against base, the URL of the request; nil if there is none. A link
// with an anchor that is not base is about another resource (RFC 8288, section
// 3.2) and does not count, nor does one whose target is no URI reference.
func Find(h http.Header, base *url.URL, rel string) *url.URL {
	var space [8]Link
	for _, l := range ParseLinks(space[:0], h["Link"]...) {
		if !l.Has(rel) {
			continue
		}
		if anchor, ok := l.Params.Get("anchor"); ok {
			a, err := base.Parse(anchor)
			if err != nil || a.String() != base.String() {
				continue
			}
		}
		if u, err := base.Parse(l.Target); err == nil {
			return u
		}
	}
	return nil
}
