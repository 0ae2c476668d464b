package reqid

import (
	"context"
	"net/http"
)

// Middleware gives requests their ID. It is safe for concurrent use, and one
// can wrap any number of handlers.
type Middleware struct {
	header   string
	also     []string
	trust    func(*http.Request) bool
	valid    func(string) bool
	generate func() string
	hide     bool
	trace    bool
}

// New returns a Middleware, or an error that names every problem in c.
func New(c Config) (*Middleware, error) {
	header, also, err := c.check()
	if err != nil {
		return nil, err
	}
	return &Middleware{
		header:   header,
		also:     also,
		trust:    c.Trust,
		valid:    c.Valid,
		generate: c.Generate,
		hide:     c.HideResponse,
		trace:    c.Trace,
	}, nil
}

// Handler returns a handler that gives each request an ID and passes it to
// next. It panics if next is nil.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("reqid: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.serve(next, w, r)
	})
}

func (m *Middleware) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if r.Header == nil {
		r.Header = make(http.Header) // built by hand; a server always makes one
	}
	s := m.admit(r)

	if !m.hide {
		w.Header()[m.header] = s.values[0:1:1]
	}
	if !only(r.Header[m.header], s.id) {
		r.Header[m.header] = s.values[1:2:2]
	}
	for _, key := range m.also {
		if !only(r.Header[key], s.id) {
			delete(r.Header, key)
		}
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

// admit decides what the request is called. Of the request it changes the trace
// headers only.
func (m *Middleware) admit(r *http.Request) *state {
	s := &state{Context: r.Context(), owner: m}
	var claim string
	if outer := stateOf(s.Context); outer != nil {
		s.id, s.client, s.trace = outer.id, outer.client, outer.trace
	} else {
		claim = m.claim(r.Header)
	}
	var trace *TraceContext
	traces := m.trace && s.trace == nil
	if traces {
		trace = readTrace(r.Header)
	}

	// Trust can be expensive, so it is asked once, and only for a reason.
	if (claim != "" || trace != nil) && m.trust != nil && !m.trust(r) {
		if claim != "" {
			s.client, claim = claim, ""
		}
		trace = nil
	}

	switch {
	case s.id != "":
	case claim != "":
		s.id = claim
	default:
		s.id = m.newID()
	}
	s.values = [2]string{s.id, s.id}

	if traces {
		if trace == nil {
			trace = beginTrace(r.Header)
		}
		s.trace = trace
	}
	return s
}

// claim returns the ID that the request brings, or "" if there is none that
// could be kept.
func (m *Middleware) claim(h http.Header) string {
	values := h[m.header]
	for i := 0; len(values) == 0 && i < len(m.also); i++ {
		values = h[m.also[i]]
	}
	if len(values) != 1 {
		return ""
	}
	id := values[0]
	if m.valid == nil {
		if Valid(id) {
			return id
		}
	} else if carriable(id) && m.valid(id) {
		return id
	}
	return ""
}

func (m *Middleware) newID() string {
	if m.generate != nil {
		if id := m.generate(); carriable(id) {
			return id
		}
	}
	return V7()
}

// only reports whether want is the one value among values.
func only(values []string, want string) bool {
	return len(values) == 1 && values[0] == want
}

// From returns the ID of the request that ctx belongs to, and whether m itself
// has handled that request. Code that does not care which instance it was uses
// [FromContext].
func (m *Middleware) From(ctx context.Context) (string, bool) {
	s, ok := ctx.Value(m).(*state)
	if !ok {
		return "", false
	}
	return s.id, true
}

// FromContext returns the ID in ctx, or "" if there is none. With several
// instances of the middleware, or [NewContext] in a handler, that is the
// innermost.
func FromContext(ctx context.Context) string {
	if s := stateOf(ctx); s != nil {
		return s.id
	}
	return ""
}

// ClientID returns the valid ID that the sender of the request claimed and
// [Config.Trust] refused, or "". It helps to find what a caller reports under
// the name the caller knows. It is not sent on, and nothing makes it unique.
func ClientID(ctx context.Context) string {
	if s := stateOf(ctx); s != nil {
		return s.client
	}
	return ""
}

// NewContext returns a copy of ctx that carries id: for a job that belongs to
// no request, for a message whose sender had an ID, and for tests. An id that
// could not be a header value (1 to 512 bytes of visible ASCII) is replaced by
// a new [V7], as the middleware would. A trace and a ClientID in ctx stay.
//
// It does not belong into [http.Server.BaseContext]: the middleware keeps what is
// in the context, and all requests would have that one ID.
func NewContext(ctx context.Context, id string) context.Context {
	if !carriable(id) {
		id = V7()
	}
	s := &state{Context: ctx, id: id}
	if outer := stateOf(ctx); outer != nil {
		s.client, s.trace = outer.client, outer.trace
	}
	return s
}

// state is the context of a request, and in the same allocation everything
// that the middleware has to keep for it.
type state struct {
	context.Context
	owner  *Middleware // nil for NewContext
	id     string
	client string
	trace  *TraceContext

	// values back the header values. Response and request have one each, with
	// no spare capacity, so that who changes one of them changes nothing else.
	values [2]string
}

type stateKey struct{}

// Value returns the state itself for the package's key and for the owner's.
func (s *state) Value(key any) any {
	switch key := key.(type) {
	case stateKey:
		return s
	case *Middleware:
		if key == s.owner {
			return s
		}
	}
	return s.Context.Value(key)
}

func stateOf(ctx context.Context) *state {
	s, _ := ctx.Value(stateKey{}).(*state)
	return s
}
