package respwriter

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// Final reports whether a status code ends the exchange of headers. 101 does
// (RFC 9110 section 15.2.2); the other 1xx codes are followed by another one.
func Final(code int) bool { return code >= 200 || code == http.StatusSwitchingProtocols }

// Writer passes a response through, remembers what was sent, and lets its
// owner step in just before the response is committed: at the first final
// WriteHeader, Write, Flush, ReadFrom or Hijack, after which the header can no
// longer change. Informational responses pass and commit nothing.
//
// Like the writer it wraps it is not safe for concurrent use.
type Writer struct {
	form  Form
	inner http.ResponseWriter
	req   *http.Request
	owner Owner

	committed bool
	hijacked  bool
	status    int
	written   int64
	refused   error
}

// Owner steps in before a response is committed. A pointer to what a middleware
// keeps for a request costs no allocation; a closure, as a [Func], costs its own.
type Owner interface {
	// BeforeCommit runs once, with the status about to be sent (101 for a
	// hijack). It may change the header. When it returns an error, what the
	// handler sends is dropped: each of the handler's operations returns that
	// error, and the response is what BeforeCommit wrote to the writer below.
	BeforeCommit(status int) error
}

// Func is an Owner that is a function.
type Func func(status int) error

// BeforeCommit implements Owner.
func (f Func) BeforeCommit(status int) error { return f(status) }

// Make returns a Writer on w for the request r; hand [Writer.Form] to the
// handler. A nil owner is none.
//
// The Writer must not be copied once its Form is in use.
func Make(w http.ResponseWriter, r *http.Request, owner Owner) Writer {
	return Writer{inner: w, req: r, owner: owner}
}

// Form is the writer as a handler should see it, see [Form.Of].
func (w *Writer) Form() http.ResponseWriter { return w.form.Of(w, w.inner) }

// Committed reports whether the header has been sent or the connection taken
// over. A handler that returns without writing leaves it false.
func (w *Writer) Committed() bool { return w.committed }

// Status is the final status, or 0 before the commit.
func (w *Writer) Status() int { return w.status }

// Written is the number of body bytes handed on.
func (w *Writer) Written() int64 { return w.written }

// Hijacked reports whether the connection was taken over.
func (w *Writer) Hijacked() bool { return w.hijacked }

// Finish commits a response whose handler has returned without sending
// anything, which the server answers with 200. Otherwise it does nothing.
func (w *Writer) Finish() error { return w.commit(http.StatusOK) }

func (w *Writer) commit(status int) error {
	if w.status == 0 {
		w.status = status
	}
	if !w.committed {
		w.committed = true
		if w.owner != nil {
			w.refused = w.owner.BeforeCommit(status)
		}
	}
	return w.refused
}

// Unwrap returns the writer below, for http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.inner }

// Header returns the header of the writer below.
func (w *Writer) Header() http.Header { return w.inner.Header() }

// WriteHeader commits on a final code; see [Final].
func (w *Writer) WriteHeader(code int) {
	switch {
	case w.refused != nil:
	case w.status != 0:
		ReportSuperfluous(w.req)
	case Final(code) && w.commit(code) != nil:
	default:
		w.inner.WriteHeader(code)
	}
}

// Write commits with 200 if nothing was committed.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	n, err := w.inner.Write(p)
	w.written += int64(n)
	return n, err
}

// WriteString is Write without a copy where the writer below can do it.
func (w *Writer) WriteString(s string) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	n, err := io.WriteString(w.inner, s)
	w.written += int64(n)
	return n, err
}

// ReadFrom keeps the server's way from a file to the socket open.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	n, err := io.Copy(w.inner, r)
	w.written += n
	return n, err
}

// FlushError commits with 200 if nothing was committed, and flushes.
func (w *Writer) FlushError() error {
	if err := w.commit(http.StatusOK); err != nil {
		return err
	}
	return http.NewResponseController(w.inner).Flush()
}

// Hijack commits with 101 and takes over the connection. Where that fails the
// handler can still send another status.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.refused != nil {
		return nil, nil, w.refused
	}
	if ok, _ := abilities(w.inner); !ok {
		return nil, nil, http.ErrNotSupported
	}
	was := w.status
	if err := w.commit(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.inner).Hijack()
	if err != nil {
		w.status = was
		return nil, nil, err
	}
	w.hijacked = true
	return conn, rw, nil
}
