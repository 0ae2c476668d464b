package upstream

import (
	"errors"
	"io"
	"net/http"
)

// BackendOf returns the [Target.ID] of the back end that res came from. It
// reports false if res is not the response of a [Pool], or its body was replaced.
func BackendOf(res *http.Response) (id string, ok bool) {
	if b, ok := res.Body.(interface{ backendID() string }); ok {
		return b.backendID(), true
	}
	return "", false
}

func (a *attempt) backendID() string { return a.be.ep.ID }

// Read reads the response body.
func (a *attempt) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	if err != nil {
		err = a.ended(err)
	}
	return n, err
}

// ended deals with the end of the response body.
func (a *attempt) ended(err error) error {
	if err == io.EOF {
		a.complete()
		a.finish(true)
		return err
	}
	if a.over.Load() || errors.Is(err, http.ErrBodyReadAfterClose) {
		return err
	}
	defer a.finish(false)
	ctx := a.call.in.Context()
	if a.inner != nil && contextEnd(ctx) == nil {
		ctx = a.inner.call // which may end before
	}
	if contextEnd(ctx) != nil {
		a.complete()
		return contextError(ctx, a.be.ep.ID)
	}
	if berr := a.call.body.failure(); berr != nil {
		// The request broke off, and the response with it.
		if e, ok := errors.AsType[*Error](berr); ok {
			return e
		}
		return &Error{Kind: KindClientBody, Backend: a.be.ep.ID, Err: berr}
	}
	if a.call.pool.ctx.Err() != nil {
		return &Error{Kind: KindClosed, Backend: a.be.ep.ID, Err: errPoolClosed, sent: true}
	}
	e := &Error{Kind: KindBodyAborted, Backend: a.be.ep.ID, Err: err}
	a.abort()
	a.be.stats.failed(KindBodyAborted)
	return e
}

// complete tells the selector, once the response header was reported as a
// success, that nothing is wrong with the body either: it has ended, or the
// client wants no more of it.
func (a *attempt) complete() {
	if a.verdict.CompareAndSwap(verdictOK, verdictFinal) {
		a.call.pool.selector.completed(a.peer)
	}
}

// abort tells the selector that the body was cut short, which takes back the
// success that its header was.
func (a *attempt) abort() {
	s, now := a.call.pool.selector, a.call.pool.now()
	switch {
	case a.verdict.CompareAndSwap(verdictNone, verdictFinal):
		s.report(a.peer, outcomeFailure, now-a.start)
	case now-a.headed > longBody:
		a.complete()
	case a.verdict.CompareAndSwap(verdictOK, verdictFinal):
		s.aborted(a.peer)
	}
}

// Close ends the exchange. A body that was not read to its end takes an
// HTTP/1.1 connection with it.
func (a *attempt) Close() error {
	a.complete()
	err := a.body.Close()
	a.finish(true)
	return err
}

// upgraded is the body of a 101 response: the connection itself.
type upgraded struct {
	*attempt
	rwc io.ReadWriteCloser
}

func (u *upgraded) Read(p []byte) (int, error)  { return u.rwc.Read(p) }
func (u *upgraded) Write(p []byte) (int, error) { return u.rwc.Write(p) }

func (u *upgraded) Close() error {
	err := u.rwc.Close()
	u.finish(false)
	return err
}

// CloseWrite ends the client's side of a tunnel.
func (u *upgraded) CloseWrite() error {
	if u.conn != nil && u.conn.nc != nil {
		return u.conn.nc.CloseWrite()
	}
	if w, ok := u.rwc.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// namedBody is a body that a tripper of the user's made, with the back end's
// name, so that BackendOf finds it.
type namedBody struct {
	io.ReadCloser
	id string
}

func (b *namedBody) backendID() string { return b.id }

type namedTunnel struct {
	io.ReadWriteCloser
	id string
}

func (b *namedTunnel) backendID() string { return b.id }

// CloseWrite ends the client's side of a tunnel.
func (b *namedTunnel) CloseWrite() error {
	if w, ok := b.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// named returns body with the name of a's back end.
func named(body io.ReadCloser, a *attempt) io.ReadCloser {
	if body == nil {
		body = http.NoBody // the tripper of Config.Wrap has taken it away
	}
	if _, ok := body.(interface{ backendID() string }); ok {
		return body
	}
	if rwc, ok := body.(io.ReadWriteCloser); ok {
		return &namedTunnel{rwc, a.be.ep.ID}
	}
	return &namedBody{body, a.be.ep.ID}
}
