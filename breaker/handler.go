package breaker

import (
	"net/http"
	"strconv"

	"example.com/plainware/internal/respwriter"
)

// Handler returns a handler that passes requests to next, or answers them in its
// place while the breaker does not let them through. It panics if next is nil.
//
// What next has answered says how the call has ended, and so does a panic, which
// goes through.
func (b *Breaker) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("breaker: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.serve(next, w, r)
	})
}

func (b *Breaker) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	p, err := b.Acquire()
	if err != nil {
		b.answer(w, r, err.(*OpenError))
		return
	}
	watched := respwriter.Make(w, r, nil)
	panicked := true
	defer func() {
		res := Result{Request: r, Status: watched.Status(), Header: w.Header(), Panicked: panicked}
		if res.Status == 0 && !panicked {
			res.Status = http.StatusOK
		}
		// The server ends the context when we have returned, so this is the
		// client, or a deadline of somebody outside of us.
		res.Err = cause(r.Context(), nil)
		p.Done(b.cfg.Classify(res))
	}()
	next.ServeHTTP(watched.Form(), r)
	panicked = false
}

// answer answers r in the handler's place.
func (b *Breaker) answer(w http.ResponseWriter, r *http.Request, err *OpenError) {
	h := w.Header()
	h["Retry-After"] = []string{strconv.FormatInt(err.seconds(), 10)}
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		// The body that is coming would be read for nothing.
		h["Connection"] = []string{"close"}
	}
	b.cfg.ErrorHandler(w, r, err)
}
