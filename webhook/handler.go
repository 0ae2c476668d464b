package webhook

import (
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"

	"example.com/plainware/internal/respwriter"
)

// Handler returns a handler that passes verified deliveries to next, each with
// its body and with a [Delivery] in its context, and with a Store each only
// once: a repetition gets 200 with an empty body after next has succeeded, and
// 409 with Retry-After while next is running. Success is a 2xx; a delivery that
// was answered with another status, a redirect too, or by a panic, is forgotten,
// so that the provider can try again. It panics if next is nil.
func (v *Verifier) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("webhook: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v.serve(w, r, next) })
}

func (v *Verifier) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	// A HEAD has no body that could be an event, signed or not.
	if v.probes && r.Method == v.scheme.probedBy && (r.Method == http.MethodHead || v.unsigned(r.Header)) {
		v.probe(w, r)
		return
	}
	var what verified
	err := v.verify(r, &what)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	rec := new(handled)
	rec.fill(v.scheme, &what)
	d := &rec.Delivery
	if v.scheme.Challenge != nil && !v.cfg.PassChallenges {
		vals := d.values()
		vals.method = r.Method
		m := v.message(r.Context(), r.Header, d.Body, &vals, v.now())
		if a := v.scheme.Challenge(m, d); a != nil {
			writeAnswer(w, a)
			return
		}
	}
	var c *claim
	if v.guard != nil {
		if c, err = v.guard.claim(r.Context(), d, v.cfg.Key); err != nil {
			v.refuse(w, r, err)
			return
		}
	}

	rec.ctx = delivered{r.Context(), v, d}
	rec.request = *r.WithContext(&rec.ctx)
	inner := &rec.request
	rec.restore(inner)
	if v.cfg.StripHeaders {
		inner.Header = maps.Clone(r.Header)
		for _, key := range v.scheme.strip {
			delete(inner.Header, key)
		}
	}
	// Deferred, so that whoever recovers from a panic of next sees the pattern,
	// and the server finds the temporary files that it has to remove.
	defer func() {
		r.Pattern = inner.Pattern
		if r.MultipartForm == nil {
			r.MultipartForm = inner.MultipartForm
		}
	}()
	if c == nil {
		next.ServeHTTP(w, inner)
		return
	}
	v.once(w, inner, next, c)
}

// once runs next under a claim.
func (v *Verifier) once(w http.ResponseWriter, r *http.Request, next http.Handler, c *claim) {
	rw := respwriter.Make(w, r, nil)
	returned := false
	defer func() {
		settle := v.guard.release
		if returned && succeeded(rw.Status()) {
			settle = v.guard.finish
		}
		switch err := settle(r.Context(), c); err {
		case nil:
		case errLate:
			v.cfg.Logger.WarnContext(r.Context(), "webhook: the lease is too short", "scheme", v.scheme.Name, "error", err)
		default:
			v.cfg.Logger.ErrorContext(r.Context(), "webhook: the replay guard could not be told how the delivery ended",
				"scheme", v.scheme.Name, "error", err)
		}
	}()
	next.ServeHTTP(rw.Form(), r)
	returned = true
}

// succeeded reports whether a handler that answered so has handled a delivery.
// 0 becomes 200. A redirect is the answer of a mux that has not found the handler,
// and providers take it for a failure.
func succeeded(status int) bool {
	return status == 0 || status == http.StatusSwitchingProtocols || status >= 200 && status < 300
}

func (v *Verifier) probe(w http.ResponseWriter, r *http.Request) {
	vals := values{method: r.Method}
	m := v.message(r.Context(), r.Header, nil, &vals, v.now())
	m.query = r.URL.RawQuery
	a, err := v.scheme.Probe(m)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	writeAnswer(w, a)
}

func writeAnswer(w http.ResponseWriter, a *Answer) {
	h := w.Header()
	h["Content-Type"] = []string{a.ContentType}
	h["Content-Length"] = []string{strconv.Itoa(len(a.Body))}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Cache-Control"] = []string{"no-store"}
	w.WriteHeader(http.StatusOK)
	w.Write(a.Body) // a client that is gone has nobody to tell
}

// retryIn is what the repetition of a delivery that is being handled is told:
// most handlers are done by then.
const retryIn = 5 * time.Second

// refuse answers a request that does not reach the handler.
func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if v.cfg.OnReject != nil {
		v.cfg.OnReject(r, err)
	}
	if errors.Is(err, ErrDuplicate) {
		w.Header()["Content-Length"] = []string{"0"}
		w.WriteHeader(http.StatusOK)
		return
	}
	h := w.Header()
	read := errors.Is(err, ErrInFlight) || errors.Is(err, ErrStore)
	if !read && r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		h["Connection"] = []string{"close"} // the rest of the body may be on its way
	}
	switch {
	case errors.Is(err, ErrMethod):
		h["Allow"] = []string{v.methods}
	case errors.Is(err, ErrInFlight), errors.Is(err, ErrStore), errors.Is(err, ErrKeySource):
		h["Retry-After"] = []string{strconv.Itoa(int(retryIn / time.Second))}
	case errors.Is(err, ErrEncoding):
		h["Accept-Encoding"] = []string{"identity"} // RFC 9110 section 15.5.16
	default:
		if e, ok := errors.AsType[*refusal](err); ok && e.status == http.StatusUnauthorized {
			// RFC 9110 section 15.5.2 wants a challenge; no registered one
			// means "sign this".
			h["Www-Authenticate"] = []string{"Signature"}
		}
	}
	v.cfg.ErrorHandler(w, r, err)
}
