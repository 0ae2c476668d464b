package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// allowedUpgrade returns the first protocol in a client's Upgrade that is in the
// list, as the client spells it, or "".
func allowedUpgrade(values, list []string) string {
	for _, v := range values {
		for token := range strings.SplitSeq(v, ",") {
			token = strings.TrimSpace(token)
			for _, a := range list {
				if strings.EqualFold(token, a) {
					return token
				}
			}
		}
	}
	return ""
}

// switchProtocols passes on a 101 and becomes a tunnel.
func (x *exchange) switchProtocols(res *http.Response) {
	p := x.p
	back, ok := res.Body.(io.ReadWriteCloser)
	if err := x.checkSwitch(res, ok); err != nil {
		res.Body.Close()
		x.fail(err)
		return
	}
	p.responseHeader(res.Header)
	delete(res.Header, "Content-Length")
	x.addVia(res)
	if p.cfg.ModifyResponse != nil {
		err := p.cfg.ModifyResponse(res)
		if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
			err = errors.New("ModifyResponse has changed the status of a 101")
		}
		through, ok := res.Body.(io.ReadWriteCloser)
		if err == nil && !ok {
			err = &Error{Kind: KindUpgrade, Backend: x.rec.Backend,
				Err: fmt.Errorf("ModifyResponse has made the body of a 101 a %T, which cannot be written to", res.Body)}
		}
		if err != nil {
			back.Close() // finish closes what may be around it
			e, ok := answerOf(err)
			if !ok {
				e = &Error{Kind: KindBadResponse, Backend: x.rec.Backend, Err: err}
			}
			x.fail(e)
			return
		}
		back = through
	}
	h := x.w.Header().Clone()
	merge(h, res.Header)
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{x.upgrade}

	client, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		back.Close()
		x.fail(&Error{Kind: KindUpgrade, Backend: x.rec.Backend, Err: err})
		return
	}
	x.rec.Status, x.rec.Upgraded = http.StatusSwitchingProtocols, true
	x.rec.Err = x.tunnel(client, rw.Reader, back, h)
}

// checkSwitch reports why a 101 cannot be passed on.
func (x *exchange) checkSwitch(res *http.Response, writable bool) error {
	var why error
	switch got := res.Header["Upgrade"]; {
	case x.upgrade == "":
		why = errors.New("101 to a request that asked for no upgrade")
	case len(got) != 1 || !strings.EqualFold(strings.TrimSpace(got[0]), x.upgrade):
		why = fmt.Errorf("101 with Upgrade %q to a request for %q", got, x.upgrade)
	case !hasToken(res.Header["Connection"], "upgrade"):
		why = errors.New("101 without Connection: Upgrade")
	case !writable:
		why = fmt.Errorf("101 with a body of type %T, which cannot be written to", res.Body)
	default:
		return nil
	}
	return &Error{Kind: KindUpgrade, Backend: x.rec.Backend, Err: why}
}

// tunnel sends the head of the 101 and copies bytes both ways until both ends
// have finished, one fails, or the request's context ends. Then both
// connections are closed. Bytes that the client sent right behind its request
// are in early, and go out only now that the back end has agreed.
func (x *exchange) tunnel(client net.Conn, early *bufio.Reader, back io.ReadWriteCloser, h http.Header) error {
	defer client.Close()
	defer back.Close()
	stop := context.AfterFunc(x.in.Context(), func() {
		client.Close()
		back.Close()
	})
	defer stop()

	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	h.Write(&head)
	head.WriteString("\r\n")
	if _, err := client.Write(head.Bytes()); err != nil {
		return &Error{Kind: KindClientGone, Err: err}
	}

	up := make(chan error, 1)
	var panicked any
	go func() {
		var err error
		defer func() {
			// Here nobody could recover from it.
			if panicked = recover(); panicked != nil || err != nil {
				client.Close() // so that the other direction ends too
				back.Close()
			}
			up <- err
		}()
		if n := early.Buffered(); n > 0 {
			var b []byte
			if b, err = early.Peek(n); err == nil {
				_, err = back.Write(b)
			}
			x.body.read.Add(int64(n))
		}
		if err == nil {
			var n int64
			n, err = x.relay(back, client)
			x.body.read.Add(n)
		}
	}()
	n, err := x.relay(client, back)
	x.rec.Sent = n
	if err != nil {
		client.Close()
		back.Close()
	}
	<-up
	if panicked != nil {
		panic(panicked)
	}
	if ctx := x.in.Context(); ctx.Err() != nil {
		return contextError(ctx, x.rec.Backend)
	}
	return nil // how a tunnel ends is its protocol's business
}

// relay copies one direction, and passes its end on.
func (x *exchange) relay(dst io.Writer, src io.Reader) (n int64, err error) {
	buf := x.p.buffers.get(smallBuffer)
	defer x.p.buffers.put(buf)
	for {
		r, rerr := src.Read(buf)
		if r > 0 {
			w, werr := dst.Write(buf[:r])
			n += int64(w)
			if werr != nil {
				return n, werr
			}
		}
		if rerr == io.EOF {
			if half, ok := dst.(interface{ CloseWrite() error }); ok {
				if half.CloseWrite() == nil {
					return n, nil
				}
			}
			return n, rerr // there is no half of it to close
		}
		if rerr != nil {
			return n, rerr
		}
	}
}
