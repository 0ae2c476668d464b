package reqid

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
)

// The canonical forms of the two fields, as net/http stores them. HTTP/1 sends
// them as they are, and names compare without regard to case.
const (
	traceparentKey = "Traceparent"
	tracestateKey  = "Tracestate"
)

const (
	parentLen = 55 // a traceparent of version 00

	// maxParent bounds a traceparent of a version that does not exist yet: it
	// may have further fields, and must not be prohibitively large.
	maxParent = 256

	// maxState is the longest tracestate that the grammar allows without white
	// space: 32 members of 256 + 1 + 256 bytes, and 31 commas.
	maxState   = 32*(256+1+256) + 31
	maxMembers = 32
)

// The flags of Trace Context Level 2. All others are reserved, and sent as zero.
const (
	flagSampled = 1 << 0
	flagRandom  = 1 << 1
	knownFlags  = flagSampled | flagRandom
)

const digits = "0123456789abcdef"

// TraceContext is the position of a request in a distributed trace, after the
// W3C Recommendation Trace Context, https://www.w3.org/TR/trace-context-2/.
type TraceContext struct {
	// TraceID names the whole trace: 32 lower-case hexadecimal digits.
	TraceID string

	// SpanID names the operation that this request is to its caller, what the
	// specification calls parent-id: 16 lower-case hexadecimal digits. In a
	// trace that the middleware began, it is made up.
	SpanID string

	// Flags are the trace flags that are known: bit 0 sampled, bit 1 random.
	Flags byte

	// State is the combined tracestate, opaque and unchanged, or "".
	State string
}

// Sampled reports whether the caller may have recorded the trace.
func (t TraceContext) Sampled() bool { return t.Flags&flagSampled != 0 }

// String returns t as a traceparent of version 00. It is what the request
// carried; a message to another service needs a SpanID of its own, which
// [Transport] makes.
func (t TraceContext) String() string { return t.traceparent(t.SpanID) }

// traceparent returns t as a traceparent of version 00 with another span.
func (t TraceContext) traceparent(span string) string {
	flags := [2]byte{digits[t.Flags>>4], digits[t.Flags&0xf]}
	return "00-" + t.TraceID + "-" + span + "-" + string(flags[:])
}

// Trace returns the trace context of the request being served, and false when
// no middleware with [Config.Trace] has seen it.
//
// Such a middleware continues the trace of a valid traceparent and of a
// tracestate with it, and leaves both fields in the request as they are, so that
// a reverse proxy below it passes them on unchanged, as the specification has
// pass-through services do. A request with no traceparent, an invalid one, more
// than one, or one whose sender [Config.Trust] refuses begins a new trace, not
// sampled: the new traceparent replaces the old in the request and tracestate is
// removed. A tracestate that breaks the grammar or its limits (32 members, keys
// and values of 256 bytes) is removed alone. The limit on its total length is
// the 16,447 bytes that follow from these.
//
// Of the flags, sampled and random are kept, and the reserved ones are zero in
// TraceContext and in what [Transport] sends, for version 00 as for later ones.
func Trace(ctx context.Context) (TraceContext, bool) {
	if s := stateOf(ctx); s != nil && s.trace != nil {
		return *s.trace, true
	}
	return TraceContext{}, false
}

// readTrace returns the trace context that a header carries, or nil when the
// trace has to be begun anew. A tracestate that cannot be passed on is removed
// from the header; for the sake of the trace it is as if it had not been there.
func readTrace(h http.Header) *TraceContext {
	lines := h[traceparentKey]
	if len(lines) != 1 {
		return nil
	}
	t, ok := parseTraceparent(strings.Trim(lines[0], " \t"))
	if !ok {
		return nil
	}
	if state := h[tracestateKey]; len(state) > 0 {
		if t.State, ok = joinTracestate(state); !ok {
			delete(h, tracestateKey)
		}
	}
	return &t
}

// beginTrace makes a new trace and puts it in the place of whatever the header
// has. Its ID is random in all its bits, which the random flag says; it is not
// sampled, since nothing here records.
func beginTrace(h http.Header) *TraceContext {
	hi, lo := rand.Uint64(), rand.Uint64()
	for hi|lo == 0 {
		lo = rand.Uint64()
	}
	left, right, span := hexText(hi), hexText(lo), hexText(newSpan())
	text := "00-" + string(left[:]) + string(right[:]) + "-" + string(span[:]) + "-02"
	t := &TraceContext{TraceID: text[3:35], SpanID: text[36:52], Flags: flagRandom}
	h[traceparentKey] = []string{text}
	delete(h, tracestateKey)
	return t
}

// newSpan returns a random span ID, which is not zero.
func newSpan() uint64 {
	n := rand.Uint64()
	for n == 0 {
		n = rand.Uint64()
	}
	return n
}

// hexText returns n as 16 hexadecimal digits.
func hexText(n uint64) (text [16]byte) {
	for i := range text {
		text[i] = digits[n>>(60-4*i)&0xf]
	}
	return text
}

// parseTraceparent reads a traceparent without white space around it. A version
// above 00 may be longer, and is read as far as it is known (section 3.2.4 of
// the specification, "Versioning of traceparent").
func parseTraceparent(s string) (TraceContext, bool) {
	if len(s) < parentLen || len(s) > maxParent || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return TraceContext{}, false
	}
	version, trace, span, flags := s[:2], s[3:35], s[36:52], s[53:55]
	if !isHex(version) || !isHex(trace) || !isHex(span) || !isHex(flags) ||
		version == "ff" || allZero(trace) || allZero(span) {
		return TraceContext{}, false
	}
	if rest := s[parentLen:]; rest != "" {
		// The specification leaves the rest open. It is passed on by proxies,
		// so nothing but visible ASCII is let through.
		if version == "00" || rest[0] != '-' || !carriable(rest) {
			return TraceContext{}, false
		}
	}
	return TraceContext{TraceID: trace, SpanID: span, Flags: (unhex(flags[0])<<4 | unhex(flags[1])) & knownFlags}, true
}

// joinTracestate combines the lines of a tracestate into one value (RFC 9110,
// section 5.3), and reports whether it is one: every member a key and a value,
// or empty. What is valid is not changed, duplicate keys included.
func joinTracestate(lines []string) (string, bool) {
	total, filled, members := 0, 0, 0
	for _, line := range lines {
		total += len(line) + 1
		if total-1 > maxState {
			return "", false
		}
		n, ok := countMembers(line)
		if members += n; !ok || members > maxMembers {
			return "", false
		}
		if n > 0 {
			filled++
		}
	}
	switch {
	case filled == 0:
		return "", true
	case len(lines) == 1:
		return strings.Trim(lines[0], " \t"), true
	}
	b := make([]byte, 0, total)
	for _, line := range lines {
		if line = strings.Trim(line, " \t"); line != "" {
			if len(b) > 0 {
				b = append(b, ',')
			}
			b = append(b, line...)
		}
	}
	return string(b), true
}

// countMembers returns how many members of a tracestate line are not empty, and
// false if one of them is malformed.
func countMembers(line string) (n int, ok bool) {
	for member := range strings.SplitSeq(line, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		key, value, found := strings.Cut(member, "=")
		if !found || !validStateKey(key) || !validStateValue(value) {
			return 0, false
		}
		n++
	}
	return n, true
}

var stateKeyByte = byteSet("abcdefghijklmnopqrstuvwxyz0123456789_-*/@")

func validStateKey(key string) bool {
	if len(key) == 0 || len(key) > 256 || !('a' <= key[0] && key[0] <= 'z' || '0' <= key[0] && key[0] <= '9') {
		return false
	}
	for i := range len(key) {
		if !stateKeyByte[key[i]] {
			return false
		}
	}
	return true
}

// validStateValue judges a value whose trailing white space is gone and which
// has no comma in it.
func validStateValue(value string) bool {
	if len(value) == 0 || len(value) > 256 {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '=' {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

func allZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

// unhex returns the value of one lower-case hexadecimal digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'a' + 10
}
