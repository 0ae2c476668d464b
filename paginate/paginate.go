// Package paginate does list endpoints: it reads where in a list a request
// wants to be, refuses what makes no sense, gives the SQL that fetches the
// page, and links to the pages around it. It also reads such lists: [Walk].
//
//	type key struct{ Created time.Time; ID int64 }
//	order := paginate.Order{{Expr: "created", Desc: true}, {Expr: "id", Desc: true, Unique: true}}
//	pages, err := paginate.New(paginate.Config{Keys: keys, Order: order})
//
//	mux.Handle("GET /posts", pages.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		q, _ := pages.From(r.Context())
//		after, _, err := paginate.After[key](q)                                        // where the last page ended
//		where, args, err := order.Where(q, paginate.Postgres, 1, after.Created, after.ID)
//		by, err := order.OrderBy(q)
//		rows := query("SELECT … WHERE "+where+" ORDER BY "+by+" LIMIT "+strconv.Itoa(q.Limit()), args...)
//		page, err := paginate.Cut(q, rows, func(p Post) key { return key{p.Created, p.ID} })
//		err = paginate.Write(w, q, page)                                               // JSON, Link, X-Total-Count
//	})))
//
// # Modes
//
// A [Pager] moves through its list in one of three ways. [Cursor], the default,
// is keyset paging: the next page begins after the last row of this one,
// whatever was inserted or deleted in between, and costs the same on page
// 10,000 as on page 1. [PageNumber] and [RowOffset] are for lists that do not change
// much and whose readers want to jump; the database walks over every row that
// is skipped, so [Config.MaxOffset] bounds them.
//
// # Cursors
//
// A cursor carries the order's values of one row, signed (HMAC-SHA256) or
// encrypted (AES-256-GCM). It is bound to the path of the list, to every other
// query parameter, to [Config.Order] and to what [Config.Scope] returns, so
// that a cursor of one list, filter, sorting or tenant is refused by another
// instead of returning a page that looks right. The page size may change from
// page to page. A cursor is not authorisation (AIP-158): whoever may not read
// the list must be refused before.
//
// # Place
//
// Handler belongs around the handler of a list, inside the mux and inside
// whatever authenticates. It passes the ResponseWriter on as it is. It looks at
// GET and HEAD only; other methods pass without a [Query]. A request without a
// cursor costs two small allocations; nothing is kept between requests.
package paginate

import (
	"context"
	"net/http"
)

// Pager parses the paging of requests. It is safe for concurrent use, and one
// can serve any number of lists that are paged in the same way: cursors of one
// are refused by the others.
type Pager struct {
	cfg   Config
	seals *seals // nil unless Mode is Cursor
	order string // of cfg.Order, as it is bound into cursors
}

// New returns a Pager, or an error that names every problem in c.
func New(c Config) (*Pager, error) {
	c, err := c.check()
	if err != nil {
		return nil, err
	}
	p := &Pager{cfg: c, order: c.Order.fingerprint()}
	if c.Mode == Cursor {
		if p.seals, err = newSeals(c.Keys, c.Incoming, c.Encrypt); err != nil {
			return nil, err
		}
	}
	p.cfg.Keys, p.cfg.Incoming = nil, nil // only what is derived from them is kept
	return p, nil
}

// Handler returns a handler that parses the paging of GET and HEAD requests,
// refuses what is wrong with it through [Config.ErrorHandler], and passes the
// rest to next with a [Query] in the context: see [Pager.From]. It panics if
// next is nil.
func (p *Pager) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("paginate: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.serve(next, w, r)
	})
}

func (p *Pager) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		next.ServeHTTP(w, r)
		return
	}
	s := &state{Context: r.Context(), owner: p}
	var scope []string
	if p.cfg.Scope != nil {
		scope = p.cfg.Scope(r)
	}
	if err := p.parse(&s.query, r, scope); err != nil {
		// What is not read of a body would be taken for the next request.
		if r.ProtoMajor == 1 && r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
		}
		if p.cfg.ErrorHandler != nil {
			p.cfg.ErrorHandler(w, r, err)
		} else {
			WriteError(w, r, err)
		}
		return
	}
	inner := r.WithContext(s)
	// Deferred, so that whoever recovers from a panic of next sees the pattern,
	// and the server finds the temporary files that it has to remove.
	defer func() {
		r.Pattern = inner.Pattern
		if r.MultipartForm == nil {
			r.MultipartForm = inner.MultipartForm
		}
	}()
	next.ServeHTTP(w, inner)
}

// Parse reads the paging of r without [Pager.Handler], for any method. The
// scope is bound into the cursors besides what always is; [Config.Scope] is not
// called. The error is an [*Error].
func (p *Pager) Parse(r *http.Request, scope ...string) (Query, error) {
	var q Query
	if err := p.parse(&q, r, scope); err != nil {
		return Query{}, err
	}
	return q, nil
}

// From returns the query of the request that ctx belongs to, and whether p has
// parsed that request.
func (p *Pager) From(ctx context.Context) (Query, bool) {
	s, ok := ctx.Value(p).(*state)
	if !ok {
		return Query{}, false
	}
	return s.query, true
}

// FromContext returns the query in ctx and whether there is one. With several
// Pagers around a handler that is the innermost's.
func FromContext(ctx context.Context) (Query, bool) {
	s, ok := ctx.Value(stateKey{}).(*state)
	if !ok {
		return Query{}, false
	}
	return s.query, true
}

// NewContext returns a copy of ctx that carries q, as [Pager.Handler] would
// make it: for tests of a handler.
func NewContext(ctx context.Context, q Query) context.Context {
	return &state{Context: ctx, owner: q.pager, query: q}
}

// state is the context of a request, and in the same allocation its query.
type state struct {
	context.Context
	owner *Pager
	query Query
}

type stateKey struct{}

// Value returns the state itself for the package's key and for the owner's.
func (s *state) Value(key any) any {
	switch key := key.(type) {
	case stateKey:
		return s
	case *Pager:
		if key != nil && key == s.owner {
			return s
		}
	}
	return s.Context.Value(key)
}
