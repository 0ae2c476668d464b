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
		a.finish(true)
		return err
	}
	if a.over.Load() || errors.Is(err, http.ErrBodyReadAfterClose) {
		return err
	}
	defer a.finish(false)
	if ctx := a.call.in.Context(); ctx.Err() != nil {
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
		return &Error{Kind: KindClosed, Backend: a.be.ep.ID, Err: errPoolClosed}
	}
	e := &Error{Kind: KindBodyAborted, Backend: a.be.ep.ID, Err: err}
	a.call.pool.selector.report(a.peer, outcomeFailure, a.call.pool.now()-a.start)
	a.be.stats.failed(KindBodyAborted)
	return e
}

// Close ends the exchange. A body that was not read to its end takes an
// HTTP/1.1 connection with it.
func (a *attempt) Close() error {
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
	if _, ok := body.(interface{ backendID() string }); ok {
		return body
	}
	if rwc, ok := body.(io.ReadWriteCloser); ok {
		return &namedTunnel{rwc, a.be.ep.ID}
	}
	return &namedBody{body, a.be.ep.ID}
}
