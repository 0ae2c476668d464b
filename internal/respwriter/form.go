// Package respwriter is the kit's one wrapper of http.ResponseWriter.
//
// [Writer] observes a response and can step in before it is committed. [Form]
// is the part that every wrapper needs and gets wrong most easily: offering
// http.Flusher, http.Hijacker and io.ReaderFrom to type assertions exactly when
// the wrapped writer has them. Handlers written before http.ResponseController
// still assert; a wrapper that hides an ability stops their streaming, and one
// that claims an ability it lacks makes them fail half-way.
package respwriter

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// Core is a wrapper with every ability. Its Hijack and FlushError return an
// error that is http.ErrNotSupported where the wrapped writer cannot do it.
type Core interface {
	http.ResponseWriter
	io.StringWriter
	io.ReaderFrom
	http.Hijacker
	FlushError() error
	Unwrap() http.ResponseWriter
}

// Form shows a Core with the abilities of the writer that it wraps. It is
// meant to be a field of the Core's own struct: then it costs no allocation.
type Form struct{ core Core }

// Of returns core in the form that suits inner, the writer it wraps: with
// Flush, Hijack and ReadFrom where inner can be hijacked, which is HTTP/1;
// with Flush where it can only flush; else with none of them. As
// http.ResponseController does, it looks for the abilities of inner through
// Unwrap.
//
// Unwrap of the result is core, so a ResponseController finds whatever core
// implements first, and inner after it.
func (f *Form) Of(core Core, inner http.ResponseWriter) http.ResponseWriter {
	f.core = core
	switch canHijack, canFlush := abilities(inner); {
	case canHijack:
		return (*hijacker)(f)
	case canFlush:
		return (*flusher)(f)
	default:
		return (*plain)(f)
	}
}

func abilities(w http.ResponseWriter) (hijack, flush bool) {
	for {
		switch w.(type) {
		// A form says all there is to know. Its core, which is next in the
		// chain, has every method and would mislead.
		case *hijacker:
			return true, true
		case *flusher:
			return false, true
		case *plain:
			return false, flush
		case http.Hijacker:
			return true, true
		case http.Flusher, interface{ FlushError() error }:
			flush = true
		case nil:
			return false, flush
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false, flush
		}
		w = u.Unwrap()
	}
}

type plain Form

func (f *plain) Header() http.Header               { return f.core.Header() }
func (f *plain) WriteHeader(code int)              { f.core.WriteHeader(code) }
func (f *plain) Write(p []byte) (int, error)       { return f.core.Write(p) }
func (f *plain) WriteString(s string) (int, error) { return f.core.WriteString(s) }
func (f *plain) Unwrap() http.ResponseWriter       { return f.core }

type flusher Form

func (f *flusher) Header() http.Header               { return f.core.Header() }
func (f *flusher) WriteHeader(code int)              { f.core.WriteHeader(code) }
func (f *flusher) Write(p []byte) (int, error)       { return f.core.Write(p) }
func (f *flusher) WriteString(s string) (int, error) { return f.core.WriteString(s) }
func (f *flusher) Unwrap() http.ResponseWriter       { return f.core }
func (f *flusher) Flush()                            { f.core.FlushError() }
func (f *flusher) FlushError() error                 { return f.core.FlushError() }

type hijacker Form

func (f *hijacker) Header() http.Header                 { return f.core.Header() }
func (f *hijacker) WriteHeader(code int)                { f.core.WriteHeader(code) }
func (f *hijacker) Write(p []byte) (int, error)         { return f.core.Write(p) }
func (f *hijacker) WriteString(s string) (int, error)   { return f.core.WriteString(s) }
func (f *hijacker) Unwrap() http.ResponseWriter         { return f.core }
func (f *hijacker) Flush()                              { f.core.FlushError() }
func (f *hijacker) FlushError() error                   { return f.core.FlushError() }
func (f *hijacker) ReadFrom(r io.Reader) (int64, error) { return f.core.ReadFrom(r) }
func (f *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return f.core.Hijack()
}
