package cookies

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"example.com/plainware/internal/respwriter"
)

// Handler returns a handler that puts the value of the request's cookie into the
// context and passes the request to next, with a valid value or without: it
// refuses nothing. It panics if next is nil.
//
// A value whose [Info] says NeedsRefresh is written again with the response,
// just before its header goes out, unless next has set or deleted the cookie
// itself, be it with http.SetCookie, or the response is one that a shared cache could keep. Where next has
// not said who may keep it, the refreshed response gets Cache-Control: private.
// What it may not refresh now it refreshes with a later response. After an
// upgrade (Hijack) there is no header to put it in.
func (c *Cookie[T]) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("cookies: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.serve(next, w, r)
	})
}

func (c *Cookie[T]) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	v, o, err := c.get(r)
	inner := r.WithContext(&state[T]{Context: r.Context(), owner: c, value: v, ok: err == nil})
	// Deferred, so that whoever recovers from a panic of next sees the pattern,
	// and the server finds the temporary files that it has to remove.
	defer func() {
		r.Pattern = inner.Pattern
		if r.MultipartForm == nil {
			r.MultipartForm = inner.MultipartForm
		}
	}()
	if err != nil || !o.slides && o.key.stage != fallback {
		next.ServeHTTP(w, inner)
		return
	}

	// The value can share its memory, and then next can change it.
	o.payload = slices.Clone(o.payload)
	h := w.Header()
	rw := respwriter.Make(w, r, respwriter.Func(func(status int) error {
		if status != http.StatusSwitchingProtocols && private(h) && c.refresh(h, r, o) {
			if _, ok := h["Cache-Control"]; !ok {
				h["Cache-Control"] = []string{"private"}
			}
		}
		return nil
	}))
	next.ServeHTTP(rw.Form(), inner)
	rw.Finish() // never fails: what it runs does not
}

// private reports whether no shared cache may keep a response with this header,
// or nothing is said about it. In doubt it says no, and a refresh waits.
func private(h http.Header) bool {
	// Targeted fields (RFC 9213) and their forerunner overrule Cache-Control at
	// the caches that they are for.
	for name := range h {
		if name == "Surrogate-Control" || strings.HasSuffix(name, "-Cache-Control") {
			return false
		}
	}
	lines, ok := h["Cache-Control"]
	if !ok {
		return true
	}
	for _, line := range lines {
		if strings.Contains(line, `"`) {
			return false // a list of fields; what is in it is not a directive
		}
		for directive := range strings.SplitSeq(line, ",") {
			directive = strings.TrimSpace(directive)
			if strings.EqualFold(directive, "private") || strings.EqualFold(directive, "no-store") {
				return true
			}
		}
	}
	return false
}

// From returns the value that c has found in the request that ctx belongs to,
// and whether there was a valid one.
func (c *Cookie[T]) From(ctx context.Context) (T, bool) {
	if s, ok := ctx.Value(c).(*state[T]); ok {
		return s.value, s.ok
	}
	var zero T
	return zero, false
}

// NewContext returns a copy of ctx in which c has found v: for tests of handlers
// that call From.
func (c *Cookie[T]) NewContext(ctx context.Context, v T) context.Context {
	return &state[T]{Context: ctx, owner: c, value: v, ok: true}
}

// FromContext returns the value that the innermost cookie with a value of type T
// has found in the request, and whether there was a valid one. It suits types
// that one cookie has; where two carry a string, use From.
func FromContext[T any](ctx context.Context) (T, bool) {
	if s, ok := ctx.Value(innermost[T]{}).(*state[T]); ok {
		return s.value, s.ok
	}
	var zero T
	return zero, false
}

// innermost is the context key for the values of type T.
type innermost[T any] struct{}

// state is the context of a request, and in the same allocation what its cookie
// says.
type state[T any] struct {
	context.Context
	owner *Cookie[T]
	value T
	ok    bool
}

// Value returns the state itself for its owner, and for whoever asks for the
// innermost T.
func (s *state[T]) Value(key any) any {
	switch key := key.(type) {
	case innermost[T]:
		return s
	case *Cookie[T]:
		if key == s.owner {
			return s
		}
	}
	return s.Context.Value(key)
}
