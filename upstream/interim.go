package upstream

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
)

// got1xx is the hook of net/http/httptrace. It runs in a goroutine of the
// Transport while RoundTrip is waiting, and can be called once more after that.
func (x *exchange) got1xx(code int, h textproto.MIMEHeader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil
	}
	if code == http.StatusSwitchingProtocols {
		// Over HTTP/2, which has no such status, it is informational to
		// net/http. To a server of HTTP/1 it is final, and to its client the
		// end of HTTP on this connection (RFC 9113 section 8.6).
		x.interimErr = &Error{Kind: KindUpgrade, Backend: x.rec.Backend, Err: errNotAsked}
		return x.interimErr
	}
	x.rec.Interim++
	if x.rec.Interim > x.p.cfg.MaxInterim {
		x.interimErr = &Error{Kind: KindBadResponse, Backend: x.rec.Backend,
			Err: fmt.Errorf("more than %d informational responses", x.p.cfg.MaxInterim)}
		return x.interimErr
	}
	if code == http.StatusContinue {
		// The client gets one when its body is asked for, and not otherwise.
		return nil
	}
	header := http.Header(h)
	x.p.responseHeader(header)
	return x.writeInterim(code, header)
}

var errNotAsked = errors.New("status 101 over HTTP/2")

// sendContinue sends 100 to a client that waits for it, in the goroutine that is
// about to read the body. HTTP/1 servers would do that by themselves, but not
// in step with other informational responses.
func (x *exchange) sendContinue() {
	if x.in.ProtoMajor == 2 {
		return // net/http does so, and quic-go's server of HTTP/3 does not
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.continued {
		return
	}
	x.continued = true
	x.writeInterim(http.StatusContinue, nil)
}

// writeInterim writes an informational response with the given fields and no
// others: what the layers outside have put into the header is for the final
// one. It is called with mu held. A panic of the writer is kept for the
// goroutine that serves the request, where somebody can recover from it.
func (x *exchange) writeInterim(code int, fields http.Header) (err error) {
	h := x.w.Header()
	var own http.Header
	if len(h) > 0 {
		own = maps.Clone(h)
		clear(h)
	}
	defer func() {
		clear(h)
		maps.Copy(h, own)
		if v := recover(); v != nil {
			x.panicked = v
			err = &Error{Kind: KindClientGone, Err: fmt.Errorf("panic: %v", v)}
		}
	}()
	maps.Copy(h, fields)
	x.w.WriteHeader(code)
	return nil
}
