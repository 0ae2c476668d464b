package webhook

import (
	"encoding/base64"
	"strings"
)

// Structured fields (RFC 9651), as much of them as signatures need:
// dictionaries whose members are items or inner lists. What is not in its
// canonical form where that matters (base64, spaces in lists), or is there
// twice, is not parsed.

// item is a bare item with its parameters.
type item struct {
	kind   byte // 's' string, 'b' byte sequence, 'i' integer, 't' token, 'f' boolean
	text   string
	bytes  []byte
	params []member
}

// member is a member of a dictionary or a parameter.
type member struct {
	key    string
	raw    string // the value with its parameters, as received
	list   bool   // an inner list: items
	item   item
	items  []item
	params []member // of the list
}

const (
	maxField   = 8 << 10
	maxMembers = 64 // each is compared with all before it
)

func find(members []member, key string) *member {
	for i := range members {
		if members[i].key == key {
			return &members[i]
		}
	}
	return nil
}

// parseDictionary reports whether s is a dictionary, without members that have
// the same key.
func parseDictionary(s string) ([]member, bool) {
	if len(s) > maxField {
		return nil, false
	}
	p := &sfvParser{s: trimSpaces(s)}
	var all []member
	for {
		m, ok := p.member()
		if !ok || len(all) == maxMembers || find(all, m.key) != nil {
			return nil, false
		}
		all = append(all, m)
		p.skip(" \t")
		if p.s == "" {
			return all, true
		}
		if !p.take(',') {
			return nil, false
		}
		p.skip(" \t")
	}
}

// isKey reports whether s is a key (RFC 9651 section 3.1.2).
func isKey(s string) bool {
	p := &sfvParser{s: s}
	key, ok := p.key()
	return ok && key == s
}

type sfvParser struct{ s string }

func (p *sfvParser) take(c byte) bool {
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

func (p *sfvParser) skip(set string) { p.s = strings.TrimLeft(p.s, set) }

// span cuts off the longest beginning of bytes that are in.
func (p *sfvParser) span(in func(c byte) bool) string {
	n := 0
	for n < len(p.s) && in(p.s[n]) {
		n++
	}
	out := p.s[:n]
	p.s = p.s[n:]
	return out
}

func (p *sfvParser) key() (string, bool) {
	if p.s == "" || (p.s[0] < 'a' || p.s[0] > 'z') && p.s[0] != '*' {
		return "", false
	}
	return p.span(func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '*'
	}), true
}

func (p *sfvParser) member() (m member, ok bool) {
	if m.key, ok = p.key(); !ok {
		return m, false
	}
	if !p.take('=') { // true, which nothing here has as its value
		m.item.kind = 'f'
		m.item.params, ok = p.parameters()
		return m, ok
	}
	start := p.s
	if p.take('(') {
		m.list = true
		m.items, m.params, ok = p.innerList()
	} else {
		m.item, ok = p.item()
	}
	m.raw = start[:len(start)-len(p.s)]
	return m, ok
}

func (p *sfvParser) innerList() (items []item, params []member, ok bool) {
	for first := true; ; first = false {
		if p.take(')') {
			params, ok = p.parameters()
			return items, params, ok
		}
		if !first && !p.take(' ') {
			return nil, nil, false
		}
		i, ok := p.item()
		if !ok {
			return nil, nil, false
		}
		items = append(items, i)
	}
}

func (p *sfvParser) item() (i item, ok bool) {
	if i, ok = p.bare(); !ok {
		return i, false
	}
	i.params, ok = p.parameters()
	return i, ok
}

func (p *sfvParser) parameters() (all []member, ok bool) {
	for p.take(';') {
		p.skip(" ")
		m := member{}
		if m.key, ok = p.key(); !ok {
			return nil, false
		}
		m.item.kind = 'f'
		if p.take('=') {
			if m.item, ok = p.bare(); !ok {
				return nil, false
			}
		}
		all = append(all, m)
	}
	return all, true
}

func (p *sfvParser) bare() (i item, ok bool) {
	if p.s == "" {
		return i, false
	}
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	switch c := p.s[0]; {
	case c == '"':
		i.kind = 's'
		p.s = p.s[1:]
		for {
			part := p.span(func(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' })
			i.text += part
			switch {
			case p.take('"'):
				return i, true
			case strings.HasPrefix(p.s, `\"`), strings.HasPrefix(p.s, `\\`):
				i.text += p.s[1:2]
				p.s = p.s[2:]
			default:
				return i, false
			}
		}
	case c == ':':
		i.kind = 'b'
		text, rest, found := strings.Cut(p.s[1:], ":")
		if !found || strings.ContainsAny(text, "\r\n") {
			return i, false
		}
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		i.bytes, p.s = b, rest
		return i, err == nil
	case c == '-' || digit(c):
		i.kind = 'i'
		sign := ""
		if p.take('-') {
			sign = "-"
		}
		digits := p.span(digit)
		i.text = sign + digits
		// A decimal is none of what a signature has.
		return i, digits != "" && len(digits) <= 15 && !strings.HasPrefix(p.s, ".")
	case c == '?':
		i.kind = 'f'
		if !strings.HasPrefix(p.s, "?0") && !strings.HasPrefix(p.s, "?1") {
			return i, false
		}
		i.text, p.s = p.s[1:2], p.s[2:]
		return i, true
	case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '*':
		i.kind = 't'
		i.text = p.span(func(c byte) bool { return c == ':' || c == '/' || isToken(string(rune(c))) && c < 0x80 })
		return i, true
	}
	return i, false
}
