package upstream

import (
	"errors"
	"io"
	"net/http"
)

// answered makes the attempt end with a response that Config.Wrap has made
// itself, a cache's or one for want of the back end's. The connection of a request
// that has failed is free at once.
func (a *attempt) answered(res *http.Response) *http.Response {
	if c := a.conn; c != nil {
		a.set.release(c, false)
		a.conn = nil
	}
	own := &answer{ReadCloser: res.Body, a: a}
	switch rwc, ok := res.Body.(io.ReadWriteCloser); {
	case ok:
		res.Body = &answeredTunnel{own, rwc}
	case res.Body == nil || res.Body == http.NoBody:
		own.ReadCloser = http.NoBody
		a.finish(false)
		fallthrough
	default:
		res.Body = own
	}
	return res
}

// answer is the body of such a response. What goes wrong with it is nothing to the
// back end.
type answer struct {
	io.ReadCloser
	a *attempt
}

func (b *answer) backendID() string { return b.a.be.ep.ID }

func (b *answer) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.a.finish(false)
	}
	return n, err
}

func (b *answer) Close() error {
	err := b.ReadCloser.Close()
	b.a.finish(false)
	return err
}

// answeredTunnel is a body that can be written to as well. Its one direction may
// end before the other.
type answeredTunnel struct {
	*answer
	rwc io.ReadWriteCloser
}

func (b *answeredTunnel) Read(p []byte) (int, error)  { return b.rwc.Read(p) }
func (b *answeredTunnel) Write(p []byte) (int, error) { return b.rwc.Write(p) }

// CloseWrite ends the client's side of a tunnel.
func (b *answeredTunnel) CloseWrite() error {
	if w, ok := b.rwc.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
