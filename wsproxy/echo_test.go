package wsproxy_test

import (
	"encoding/binary"
	"io"
	"unicode/utf8"
)

// echo is a back end that returns every message and holds its peer to
// RFC 6455: what a client gets back through a proxy is then what the RFC says,
// whoever of the two has found the fault.
func echo(c *backConn) {
	if c.accept("") != nil {
		return
	}
	e := &echoer{end: c.end}
	code := e.run()
	switch {
	case code == 0:
		return // the peer is gone
	case code == 1005:
		_ = c.sendFrame(frame{fin: true, op: opClose})
	default:
		_ = c.sendClose(code, "")
	}
	// The server closes first (RFC 6455 section 7.1.1), but not before the
	// peer's bytes are read: that would be a reset.
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

type echoer struct {
	*end
	message []byte
	op      byte // of the message under way, 0 when there is none
	checked int  // bytes of a text message known to be whole characters
}

// run echoes until there is a reason to close, and returns the code: that of
// the peer's Close, 1005 if it has none, or 0 when the connection was lost.
func (e *echoer) run() uint16 {
	for {
		f, err := e.recvHead()
		if err != nil {
			return 0
		}
		switch {
		case f.rsv != 0 || !f.masked:
			return 1002
		case f.op >= opClose:
			if !f.fin || len(f.payload) > 125 {
				return 1002
			}
			switch f.op {
			case opPing:
				if e.send(opPong, string(f.payload)) != nil {
					return 0
				}
			case opPong:
			case opClose:
				return closeCode(f.payload)
			default:
				return 1002
			}
			continue
		case f.op > opBinary || (f.op == opContinuation) != (e.op != 0):
			return 1002
		}
		if f.op != opContinuation {
			e.op = f.op
		}
		e.message = join(e.message, f.payload)
		if e.op == opText && !e.text(f.fin) {
			return 1007
		}
		if f.fin {
			if e.sendFrame(frame{fin: true, op: e.op, payload: e.message}) != nil {
				return 0
			}
			e.message, e.op, e.checked = nil, 0, 0
		}
	}
}

// recvHead is recv without judging the mask.
func (e *echoer) recvHead() (frame, error) { return readFrame(e.end) }

// text reports whether the message so far can be UTF-8.
func (e *echoer) text(whole bool) bool {
	if utf8.Valid(e.message[e.checked:]) {
		e.checked = len(e.message)
	}
	for e.checked < len(e.message) {
		rest := e.message[e.checked:]
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			return !whole && len(rest) < utf8.UTFMax && !utf8.FullRune(rest)
		}
		e.checked += n
	}
	return true
}

// closeCode is what answers a Close with the payload p.
func closeCode(p []byte) uint16 {
	if len(p) == 0 {
		return 1005
	}
	if len(p) == 1 {
		return 1002
	}
	code := binary.BigEndian.Uint16(p)
	switch {
	case code < 1000, code == 1004, code == 1005, code == 1006, code >= 1015 && code < 3000, code >= 5000:
		return 1002
	case !utf8.Valid(p[2:]):
		return 1007
	}
	return code
}
