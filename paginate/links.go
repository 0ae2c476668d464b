package paginate

import (
	"net/http"
	"strconv"
	"strings"
)

// SetLinks adds a Link field (RFC 8288) to h with the relations first, next and
// prev, and last in the modes [PageNumber] and [RowOffset] if Total is set and
// [Config.MaxOffset] allows it. Links that are there stay.
//
// Of the request's query only the parameter that moves through the list
// changes; the others keep their bytes and order. See [Config.Base] for what
// the links are relative to.
func (p Page[T]) SetLinks(h http.Header, q Query) {
	n := 4*(len(q.raw)+len(q.path)+64) + len(p.Next) + len(p.Prev)
	b := make([]byte, 0, n)
	b = q.appendLink(b, "first", "")
	if p.Next != "" {
		b = q.appendLink(b, "next", p.Next)
	}
	if p.Prev != "" {
		b = q.appendLink(b, "prev", p.Prev)
	}
	if last := q.last(p.Total); last != "" {
		b = q.appendLink(b, "last", last)
	}
	links := h["Link"]
	h["Link"] = append(links[:len(links):len(links)], string(b))
}

// last is where the last page is, or "" if that cannot be said or had.
func (q *Query) last(total *int64) string {
	if total == nil || q.Size < 1 {
		return ""
	}
	before := max(*total-1, 0) / int64(q.Size)
	if before > int64(q.pager.cfg.MaxOffset/q.Size) {
		return ""
	}
	switch q.pager.cfg.Mode {
	case PageNumber:
		return strconv.FormatInt(before+1, 10)
	case RowOffset:
		return strconv.FormatInt(before*int64(q.Size), 10)
	}
	return ""
}

func (q *Query) appendLink(b []byte, rel, position string) []byte {
	if len(b) > 0 {
		b = append(b, ", "...)
	}
	b = append(b, '<')
	b = q.appendTarget(b, position)
	b = append(b, `>; rel="`...)
	b = append(b, rel...)
	return append(b, '"')
}

// appendTarget appends the URL of a page of this list.
func (q *Query) appendTarget(b []byte, position string) []byte {
	if base := q.pager.cfg.Base; base != nil {
		b = append(b, base.Scheme...)
		b = append(b, "://"...)
		b = append(b, base.Host...)
		b = append(b, strings.TrimSuffix(base.EscapedPath(), "/")...)
		if !strings.HasPrefix(q.path, "/") {
			b = append(b, '/')
		}
		b = append(b, q.path...)
	}
	at := q.pager.cfg.position()
	separator := byte('?')
	for piece := range pieces(q.raw) {
		if name, _, _ := strings.Cut(piece, "="); unescape(name) != at {
			b = appendRaw(append(b, separator), piece)
			separator = '&'
		}
	}
	if position != "" {
		b = append(b, separator)
		b = append(b, at...)
		b = append(b, '=')
		return append(b, position...)
	}
	if separator == '?' && q.pager.cfg.Base == nil {
		b = append(b, '?') // without it the reference would be to the query that is there
	}
	return b
}

// appendRaw appends a part of a query as it is, but for what no URI has in it
// (RFC 3986, section 2) and what would end the link.
func appendRaw(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if notURI[c] != 0 || c == '#' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}
