package cookies

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"example.com/plainware/internal/cookieattr"
)

// maxSame is how many cookies of one name a request may have. Beyond it the
// true one could hide behind those of an attacker.
const maxSame = 4

// countSize is the length of what precedes the first of several chunks: how many
// there are, and a tilde, which no value contains.
const countSize = len("2~")

// divide prepares the names of the chunks and the room in them.
func (c *core) divide(attr *cookieattr.Cookie, chunks int) {
	c.parts = []*cookieattr.Cookie{attr}
	c.capacity = attr.Room()
	if chunks < 2 {
		return
	}
	c.capacity -= countSize
	for i := 1; i < chunks; i++ {
		part := attr.Named(attr.Name() + "~" + strconv.Itoa(i))
		c.parts = append(c.parts, part)
		c.capacity += part.Room()
	}
}

// put sets the value in s.text, in as many chunks as it takes. Chunks that
// an earlier, longer value left behind go in the same response.
func (c *core) put(h http.Header, r *http.Request, s *scratch, maxAge int64) {
	if c.session {
		maxAge = 0
	}
	n := c.count(len(s.text))
	text := s.text
	if n > 1 {
		text = slices.Insert(text, 0, byte('0'+n), '~')
	}
	for _, part := range c.parts[:n] {
		piece := text[:min(part.Room(), len(text))]
		text = text[len(piece):]
		s.line = part.Append(s.line[:0], piece, maxAge)
		part.Put(h, string(s.line))
	}
	for _, part := range c.parts[n:] {
		if part.Pending(h) || sends(r, part) {
			part.Put(h, part.Deletion())
		}
	}
}

// count is the number of chunks for a value of this length, which fits.
func (c *core) count(size int) int {
	if size <= c.parts[0].Room() {
		return 1
	}
	size += countSize
	n := 0
	for ; size > 0; n++ {
		size -= c.parts[n].Room()
	}
	return n
}

// sends reports whether the request has a cookie of the part's name.
func sends(r *http.Request, part *cookieattr.Cookie) bool {
	var room [1]string
	return r != nil && len(cookieattr.Values(room[:0], r.Header, part.Name())) > 0
}

// join returns the value whose first chunk is first, from the further ones in
// the request. It says false where one is missing or there are two of it: which
// one belongs here cannot be told. Chunks past the count are not looked at;
// they cannot change a value that is authentic as a whole.
func (c *core) join(r *http.Request, first string) (string, bool) {
	if len(first) < countSize || first[1] != '~' {
		return first, true
	}
	n := int(first[0]) - '0'
	if n < 2 || n > len(c.parts) {
		return "", false
	}
	pieces := make([]string, 0, MaxChunks)
	pieces = append(pieces, first[countSize:])
	size := len(first)
	for _, part := range c.parts[1:n] {
		var room [maxSame + 1]string
		found := cookieattr.Values(room[:0], r.Header, part.Name())
		if len(found) == 0 || len(found) > maxSame || slices.ContainsFunc(found, func(s string) bool { return s != found[0] }) {
			return "", false
		}
		pieces = append(pieces, found[0])
		size += len(found[0])
	}
	if size > c.capacity+countSize {
		return "", false
	}
	return strings.Join(pieces, ""), true
}
