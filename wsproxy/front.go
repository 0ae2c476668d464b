package wsproxy

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// subprotocols returns those of an offer that are allowed.
func (p *Proxy) subprotocols(offer []string) ([]string, error) {
	if len(p.cfg.Subprotocols) == 0 || len(offer) == 0 {
		return offer, nil
	}
	var kept []string
	for _, s := range offer {
		if slices.Contains(p.cfg.Subprotocols, s) {
			kept = append(kept, s)
		}
	}
	if kept == nil {
		return nil, &Error{Kind: BadSubprotocol}
	}
	return kept, nil
}

// missing returns what a tunnel needs of w and neither w nor what it wraps has,
// or "". It is asked before the back end is dialled, since the methods themselves
// cannot be. Over HTTP/2 bytes that are not flushed would stay here, and without
// the deadlines nothing could end a read or a write.
func missing(w http.ResponseWriter, major int) string {
	switch {
	case major == 1 && !has[http.Hijacker](w):
		return "Hijack"
	case major == 1:
		return ""
	case !has[http.Flusher](w) && !has[interface{ FlushError() error }](w):
		return "Flush"
	case !has[interface{ SetReadDeadline(time.Time) error }](w):
		return "SetReadDeadline"
	case !has[interface{ SetWriteDeadline(time.Time) error }](w):
		return "SetWriteDeadline"
	}
	return ""
}

// has reports whether w, or what it wraps, is a T: what http.ResponseController
// would find.
func has[T any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(T); ok {
			return true
		}
		x, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = x.Unwrap()
	}
}

// accept tells the client that its WebSocket is open. If the error comes with a
// stream it is too late for a response.
func (p *Proxy) accept(w http.ResponseWriter, hs *Handshake, a *answer) (stream, error) {
	h := w.Header()
	for name, values := range answered(a.Header) {
		if name == "Set-Cookie" {
			values = append(h[name], values...)
		}
		h[name] = values
	}
	delete(h, "Content-Length")
	if a.subprotocol != "" {
		h["Sec-WebSocket-Protocol"] = []string{a.subprotocol}
	}
	if v := a.Header["Sec-Websocket-Extensions"]; len(v) > 0 {
		h["Sec-WebSocket-Extensions"] = v
	}
	if hs.Request.ProtoMajor != 1 {
		s, err := newHandlerStream(w, hs.Request)
		if err != nil {
			return &handlerStream{}, err
		}
		return s, nil
	}
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, &Error{Kind: BadWriter, Err: err}
	}
	s := newConnStream(conn, brw.Reader)
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		acceptOf(hs.key) + "\r\n")
	delete(h, "Connection")
	delete(h, "Upgrade")
	h.Write(&b) // with what middleware outside has set
	b.WriteString("\r\n")
	// Hijack leaves no deadline behind, but a wrapper may have.
	conn.SetDeadline(time.Time{})
	if d := p.cfg.Timeouts.Handshake; d > 0 {
		conn.SetWriteDeadline(time.Now().Add(d))
	}
	// Close, and the end of Shutdown, leave it a moment: a tunnel that is open is cut
	// and told of, and they do not wait for longer than that.
	stop := context.AfterFunc(p.life, func() { conn.SetWriteDeadline(time.Now().Add(cutTime / 2)) })
	defer stop()
	_, err = io.WriteString(conn, b.String())
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		s.Abort()
	}
	return s, err
}

// bodyWithCancel releases a context when it is closed.
type bodyWithCancel struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *bodyWithCancel) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
