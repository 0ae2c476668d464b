package wsproxy

import (
	"crypto/rand"
	"encoding/binary"
)

// A ping of ours is known by its payload, so that its Pong can be told from those
// that the peers send each other: eight random bytes that are not zero.

// newPing returns the payload of a ping as a number.
func newPing() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}

// appendControl appends a control frame of ours, with a mask if it goes to a back
// end: there we are the client.
func appendControl(b []byte, op byte, masked bool, payload []byte) []byte {
	b = append(b, 0x80|op, byte(len(payload)))
	if !masked {
		return append(b, payload...)
	}
	b[len(b)-1] |= 0x80
	var mask [4]byte
	rand.Read(mask[:])
	b = append(b, mask[:]...)
	n := len(b)
	b = append(b, payload...)
	xor(b[n:], mask)
	return b
}

func appendPing(b []byte, masked bool, id uint64) []byte {
	var payload [8]byte
	binary.BigEndian.PutUint64(payload[:], id)
	return appendControl(b, opPing, masked, payload[:])
}

func appendClose(b []byte, masked bool, f CloseFrame) []byte {
	payload := binary.BigEndian.AppendUint16(make([]byte, 0, maxControl), uint16(f.Code))
	return appendControl(b, opClose, masked, append(payload, f.Reason...))
}

// isPong reports whether a frame is the answer to the ping id.
func isPong(h *header, payload []byte, id uint64) bool {
	if h.op != opPong || len(payload) != 8 {
		return false
	}
	v := binary.BigEndian.Uint64(payload)
	if h.masked {
		m := uint64(binary.BigEndian.Uint32(h.mask[:]))
		v ^= m<<32 | m
	}
	return v == id
}
