package paginate

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"iter"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Query is where in a list a request wants to be. It is a value: copies are
// independent, and a handler may make Size smaller before it fetches.
type Query struct {
	// Size is how many rows the client gets, from 1 to [Config.Max]. Fetch one
	// more, [Query.Limit] of them: that one tells [Cut] whether there is a next
	// page.
	Size int

	// Backward says that the rows are those before the cursor and are to be
	// fetched in reverse order; [Order.Where] and [Order.OrderBy] do that, and
	// [Cut] turns them round again.
	Backward bool

	// Page counts from 1 in mode [PageNumber] and is 0 in others.
	Page int

	// Offset is how many rows to skip in the modes [PageNumber] and
	// [RowOffset]. It is 0 in mode [Cursor].
	Offset int

	// WantTotal says that the client asked for the number of rows in the whole
	// list. Whoever can afford to count sets [Page.Total].
	WantTotal bool

	pager     *Pager
	path      string // escaped
	raw       string // the raw query
	scope     []string
	key       []byte // of the cursor, JSON; nil without one
	inclusive bool   // the row of the cursor itself belongs to the page
	head      bool
}

// Limit is Size + 1: the number of rows to fetch.
func (q Query) Limit() int { return q.Size + 1 }

// HasCursor reports whether the request continues from a row. Without, it wants
// the first page.
func (q Query) HasCursor() bool { return q.key != nil }

// After returns the values that [Cut] was given for the row that the request
// continues from, and whether there is such a row; on the first page K is its
// zero value. K is what the key function of Cut returns. The error is an
// [*Error] if the cursor was made for another type, by an earlier version of
// the program for example.
//
// A cursor that the client may read carries these values readably: see
// [Config.Encrypt].
func After[K any](q Query) (key K, ok bool, err error) {
	if q.key == nil {
		return key, false, nil
	}
	if err := json.Unmarshal(q.key, &key); err != nil {
		var zero K
		return zero, false, &Error{Param: q.pager.cfg.CursorParam, code: CodeCursor}
	}
	return key, true, nil
}

// parse fills q from r.
func (p *Pager) parse(q *Query, r *http.Request, scope []string) error {
	*q = Query{
		Size:  p.cfg.Default,
		pager: p,
		path:  r.URL.EscapedPath(),
		raw:   r.URL.RawQuery,
		scope: slices.Clone(scope),
		head:  r.Method == http.MethodHead,
	}
	var size, position, total param
	at := p.cfg.position()
	for piece := range pieces(q.raw) {
		name, value, _ := strings.Cut(piece, "=")
		switch unescape(name) {
		case p.cfg.SizeParam:
			size.add(value)
		case at:
			position.add(value)
		case p.cfg.TotalParam:
			total.add(value)
		}
	}
	if err := p.parseSize(q, size); err != nil {
		return err
	}
	switch total.value {
	case "", "0", "false":
	case "1", "true":
		q.WantTotal = true
	default:
		total.count = 2
	}
	if total.count > 1 {
		return &Error{Param: p.cfg.TotalParam, code: CodeTotal}
	}
	switch p.cfg.Mode {
	case PageNumber:
		return p.parsePage(q, position)
	case RowOffset:
		return p.parseOffset(q, position)
	}
	return p.parseCursor(q, position)
}

// parseSize follows AIP-158: nothing and 0 are the default, and more than the
// maximum is the maximum.
func (p *Pager) parseSize(q *Query, size param) error {
	n, ok := size.number()
	if !ok {
		return &Error{Param: p.cfg.SizeParam, code: CodeLimit}
	}
	if n > 0 {
		q.Size = min(n, p.cfg.Max)
	}
	return nil
}

func (p *Pager) parsePage(q *Query, page param) error {
	n, ok := page.number()
	if !ok || n == 0 && page.value != "" {
		return &Error{Param: p.cfg.PageParam, code: CodePage}
	}
	q.Page = max(n, 1)
	if q.Page-1 > p.cfg.MaxOffset/q.Size {
		return &Error{Param: p.cfg.PageParam, code: CodeFar, max: p.cfg.MaxOffset}
	}
	q.Offset = (q.Page - 1) * q.Size
	return nil
}

func (p *Pager) parseOffset(q *Query, offset param) error {
	n, ok := offset.number()
	if !ok {
		return &Error{Param: p.cfg.OffsetParam, code: CodeOffset}
	}
	if n > p.cfg.MaxOffset {
		return &Error{Param: p.cfg.OffsetParam, code: CodeFar, max: p.cfg.MaxOffset}
	}
	q.Offset = n
	return nil
}

func (p *Pager) parseCursor(q *Query, cursor param) error {
	if cursor.count > 1 {
		return &Error{Param: p.cfg.CursorParam, code: CodeCursor}
	}
	if cursor.value == "" {
		return nil
	}
	c, verdict := p.seals.open(cursor.value, q.binding())
	switch verdict {
	case opened:
	case expired:
		return &Error{Param: p.cfg.CursorParam, code: CodeExpired}
	default:
		return &Error{Param: p.cfg.CursorParam, code: CodeCursor}
	}
	q.key, q.Backward, q.inclusive = c.key, c.backward, c.inclusive
	return nil
}

// param is a query parameter that must not be repeated.
type param struct {
	value string
	count int
}

func (p *param) add(value string) {
	p.value = unescape(value)
	p.count++
}

// number returns the value as a whole number from 0 on, and 0 for none. One
// that is too large for an int is the largest int: every use has a bound.
func (p *param) number() (n int, ok bool) {
	if p.count > 1 {
		return 0, false
	}
	for i := range len(p.value) {
		c := p.value[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt-9)/10 {
			n = math.MaxInt
			continue
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// pieces yields the parameters of a raw query, as they are written.
func pieces(raw string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for raw != "" {
			var piece string
			if piece, raw, _ = strings.Cut(raw, "&"); piece != "" && !yield(piece) {
				return
			}
		}
	}
}

// unescape returns what a name or value in a query stands for. One that is
// written wrongly stands for itself, in the form that it has in a link.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return string(appendRaw(nil, s))
}

// binding is a digest of all that the cursors of this list are bound to. Each
// part stands behind its length, so that no two lists can have the same text.
// The order of parameters does not matter, that of values of one name does: a
// client that puts its query together anew may sort it differently.
func (q *Query) binding() [sha256.Size]byte {
	p := q.pager
	type pair struct{ name, value string }
	var space [8]pair
	bound := space[:0]
	for piece := range pieces(q.raw) {
		name, value, _ := strings.Cut(piece, "=")
		name = unescape(name)
		switch name {
		case p.cfg.SizeParam, p.cfg.CursorParam, p.cfg.TotalParam:
			continue
		}
		if !slices.Contains(p.cfg.Unbound, name) {
			bound = append(bound, pair{name, unescape(value)})
		}
	}
	slices.SortStableFunc(bound, func(a, b pair) int { return strings.Compare(a.name, b.name) })

	var buf [512]byte
	b := appendPart(buf[:0], p.order)
	b = appendPart(b, q.path)
	b = binary.AppendUvarint(b, uint64(len(bound)))
	for _, kv := range bound {
		b = appendPart(appendPart(b, kv.name), kv.value)
	}
	b = binary.AppendUvarint(b, uint64(len(q.scope)))
	for _, s := range q.scope {
		b = appendPart(b, s)
	}
	return sha256.Sum256(b)
}

func appendPart(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
