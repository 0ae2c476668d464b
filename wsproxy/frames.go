package wsproxy

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// The opcodes of RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// The codes of RFC 6455 section 7.4 and the registry that are sent or judged
// here.
const (
	closeNormal     = 1000
	closeGoingAway  = 1001
	closeProtocol   = 1002
	closeNoStatus   = 1005 // never sent: there was no code
	closeBadText    = 1007
	closeTooBig     = 1009
	closeInternal   = 1011
	closeRestart    = 1012
	closeBadGateway = 1014
)

const (
	maxControl = 125            // payload of a control frame
	maxHeader  = 14             // of any frame
	maxHold    = 6 + maxControl // a control frame with a mask is the longest that is held back
)

// header is a frame's header.
type header struct {
	fin    bool
	rsv    byte // 4, 2 and 1
	op     byte
	masked bool
	mask   [4]byte
	length uint64
}

// parseHeader returns the header that b begins with and its length, which is 0
// if b does not have all of it.
func parseHeader(b []byte) (h header, n int) {
	if len(b) < 2 {
		return h, 0
	}
	h.fin, h.rsv, h.op = b[0]&0x80 != 0, b[0]>>4&7, b[0]&0x0f
	h.masked, h.length = b[1]&0x80 != 0, uint64(b[1]&0x7f)
	n = 2
	switch h.length {
	case 126:
		if len(b) < 4 {
			return h, 0
		}
		h.length, n = shortest(uint64(binary.BigEndian.Uint16(b[2:])), 126), 4
	case 127:
		if len(b) < 10 {
			return h, 0
		}
		h.length, n = shortest(binary.BigEndian.Uint64(b[2:]), 1<<16), 10
	}
	if h.masked {
		if len(b) < n+4 {
			return h, 0
		}
		h.mask = [4]byte(b[n:])
		n += 4
	}
	return h, n
}

// shortest returns a length, or one that no frame may have if it is below the first
// that its form is for: RFC 6455 section 5.2 wants the shortest form, and what is
// held back of a control frame counts on it.
func shortest(length, first uint64) uint64 {
	if length < first {
		return 1 << 63
	}
	return length
}

// rules say what frames may come from one side.
type rules struct {
	masked  bool    // by clients always, by servers never
	deflate bool    // RSV1 marks a compressed message: RFC 7692 section 6
	unknown bool    // an extension that is not known may use RSV bits and opcodes
	limits  *Limits // Frame and Message, of which 0 is none
}

// extend sets the rules for extensions that were negotiated.
func (r *rules) extend(names []string) {
	r.deflate = slices.Contains(names, "permessage-deflate")
	r.unknown = slices.ContainsFunc(names, func(name string) bool { return name != "permessage-deflate" })
}

// tracker follows the frames of one direction by their headers. It is fed
// whole headers and told of the payload that passes.
type tracker struct {
	rules
	left      uint64 // payload of the current frame that is still to come
	message   uint64 // payload of the current message so far
	inMessage bool   // a fragment came, and more will
	ends      bool   // the current frame ends a message

	frames, messages, pings uint64
}

// begin takes the next frame and returns 0, or the code to fail with.
func (t *tracker) begin(h *header) int {
	if t.illegal(h) {
		return closeProtocol
	}
	if h.op >= opClose {
		if h.op == opPing {
			t.pings++
		}
		t.frames++
		t.left, t.ends = h.length, false
		return 0
	}
	if t.inMessage != (h.op == opContinuation) {
		return closeProtocol
	}
	if !t.inMessage {
		t.message = 0
	}
	// Both are below 1<<63.
	t.message += h.length
	if l := t.limits; l.Frame > 0 && h.length > uint64(l.Frame) || l.Message > 0 && t.message > uint64(l.Message) {
		return closeTooBig
	}
	t.message = min(t.message, 1<<62)
	t.frames++
	t.inMessage, t.ends, t.left = !h.fin, h.fin, h.length
	if t.left == 0 {
		t.end()
	}
	return 0
}

// illegal reports whether no frame with that header may come, whatever came before.
func (t *tracker) illegal(h *header) bool {
	switch {
	case h.masked != t.masked || h.length>>63 != 0:
		return true
	case t.unknown:
	case h.rsv&3 != 0,
		h.rsv != 0 && (!t.deflate || h.op != opText && h.op != opBinary),
		h.op > opBinary && h.op < opClose || h.op > opPong:
		return true
	}
	return h.op >= opClose && (!h.fin || h.length > maxControl)
}

// skip notes that n bytes of payload have passed, at most t.left.
func (t *tracker) skip(n uint64) {
	t.left -= n
	if t.left == 0 {
		t.end()
	}
}

func (t *tracker) end() {
	if t.ends {
		t.messages++
		t.ends = false
	}
}

// parseClose returns what a Close frame with a payload in the clear says, or
// the code to fail with.
func parseClose(payload []byte) (f CloseFrame, code int) {
	if len(payload) == 0 {
		return CloseFrame{Code: closeNoStatus}, 0
	}
	if len(payload) == 1 {
		return f, closeProtocol
	}
	f.Code = int(binary.BigEndian.Uint16(payload))
	f.Reason = string(payload[2:])
	switch {
	case !validCode(f.Code):
		return f, closeProtocol
	case !utf8.ValidString(f.Reason):
		return f, closeBadText // RFC 6455 section 8.1
	}
	return f, 0
}

// validCode reports whether a Close frame may have a code: RFC 6455 section 7.4.
// 1004 is reserved; 1005, 1006 and 1015 are for what no frame said.
func validCode(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}

func validReason(s string) bool { return len(s) <= maxControl-2 && utf8.ValidString(s) }

// unmask returns the payload in the clear, in memory of its own.
func unmask(h *header, payload []byte) []byte {
	out := slices.Clone(payload)
	if h.masked {
		xor(out, h.mask)
	}
	return out
}

func xor(b []byte, mask [4]byte) {
	for i := range b {
		b[i] ^= mask[i&3]
	}
}
