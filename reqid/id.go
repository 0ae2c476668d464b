package reqid

import (
	"encoding/hex"
	"math/rand/v2"
	"time"
)

const (
	// maxValid is the longest ID that Valid accepts.
	maxValid = 128

	// maxID is the longest ID that enters a context at all, whatever a custom
	// Config.Valid or Config.Generate says.
	maxID = 512
)

// V7 returns a new UUID of version 7 in its text form, 36 characters (RFC 9562,
// section 5.7): 48 bits of Unix milliseconds, 12 bits that divide the
// millisecond (section 6.2, method 3), and 62 random bits. IDs made in different
// milliseconds sort by time; within one, by about a quarter of a microsecond.
//
// The random bits come from the runtime's generator, without a lock, so V7
// scales with the number of cores. An ID names a request and is no secret: do
// not use V7 for session tokens or passwords. It shows when it was made.
//
// It is safe for concurrent use and allocates once, the string.
func V7() string {
	return formatV7(time.Now(), rand.Uint64())
}

// formatV7 lays out a version 7 UUID of a time and 62 of the bits of random.
func formatV7(now time.Time, random uint64) string {
	ms := now.UnixMilli()
	frac := now.Nanosecond() % 1e6 << 12 / 1e6 // below 4096
	b := [16]byte{
		byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms),
		0x70 | byte(frac>>8), byte(frac),
		0x80 | byte(random>>56)&0x3f, byte(random >> 48), byte(random >> 40), byte(random >> 32),
		byte(random >> 24), byte(random >> 16), byte(random >> 8), byte(random),
	}
	var t [36]byte
	hex.Encode(t[0:8], b[0:4])
	hex.Encode(t[9:13], b[4:6])
	hex.Encode(t[14:18], b[6:8])
	hex.Encode(t[19:23], b[8:10])
	hex.Encode(t[24:36], b[10:16])
	t[8], t[13], t[18], t[23] = '-', '-', '-', '-'
	return string(t[:])
}

// Valid reports whether id has 1 to 128 bytes, all of them letters, digits, or
// one of . _ : / + = @ - (ASCII). That covers UUID, ULID, KSUID, xid, base64 in
// both alphabets and "host/prefix-000001", and leaves out everything that a log
// line, a CSV cell, a shell or a terminal reads as more than itself: white
// space, quotes, backslash, comma, semicolon, $ { } < >, control bytes and
// everything beyond ASCII.
func Valid(id string) bool {
	if len(id) == 0 || len(id) > maxValid {
		return false
	}
	for i := range len(id) {
		if !idByte[id[i]] {
			return false
		}
	}
	return true
}

var idByte = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/+=@-")

func byteSet(members string) (set [256]bool) {
	for i := range len(members) {
		set[members[i]] = true
	}
	return set
}

// carriable reports whether id can be a header value that arrives as it was
// sent and a log value that prints as it is: 1 to maxID bytes of visible ASCII
// (RFC 9110, section 5.5, asks new fields to keep to that). No configuration
// gets around it.
func carriable(id string) bool {
	if len(id) == 0 || len(id) > maxID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return false
		}
	}
	return true
}
