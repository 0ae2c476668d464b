package webhook

import (
	"context"
	"net/http"
	"time"
)

// Message is a delivery whose signature is being verified, as the functions of
// a [Scheme] see it. It is theirs for the time of the call; its header and body
// must not be changed.
type Message struct {
	Method string
	URL    string // the public one, see Config.URL; "" where that is
	Header http.Header
	Body   []byte

	ctx       context.Context
	now       time.Time
	tolerance time.Duration
	ring      *keyring
	query     string
	alg       Algorithm
}

// Result is what [Scheme.Verify] has verified.
type Result struct {
	ID     string    // signed, "" if there is none
	Time   time.Time // signed, zero if there is none
	Key    int       // index of the key that matched
	Signed []byte    // the bytes that the signature covers
}

// Answer is the answer to a provider's test of an endpoint.
type Answer struct {
	ContentType string
	Body        []byte
}

// Context is that of the request.
func (m *Message) Context() context.Context { return m.ctx }

// Now is the time at which the message is judged.
func (m *Message) Now() time.Time { return m.now }

// Value returns the one line of a header field. The error is [ErrNoSignature] if
// there is none and [ErrMalformed] if there are several.
func (m *Message) Value(name string) (string, error) {
	return one(m.Header, http.CanonicalHeaderKey(name))
}

// Time reads a time as strictly as for any scheme, and judges it by the
// configured window.
func (m *Message) Time(text string, f TimeFormat) (time.Time, error) {
	t, err := parseTime(text, f)
	if err != nil {
		return time.Time{}, err
	}
	return t, inWindow(t, m.now, m.tolerance)
}

// Match returns the index of the first key that made one of the signatures of
// the scheme's Algorithm over signed. The comparison takes as long whatever is
// wrong, and the error is [ErrMismatch]. Of more than 16 signatures, none is
// tried.
func (m *Message) Match(signed []byte, sigs ...[]byte) (int, error) {
	if len(sigs) == 0 {
		return 0, ErrNoSignature
	}
	if len(sigs) > maxSignatures {
		return 0, ErrMalformed
	}
	x := m.ring.get()
	defer m.ring.put(x)
	x.sigs = append(x.sigs[:0], sigs...)
	if i := m.ring.match(x, signed, nil, nil); i >= 0 {
		return i, nil
	}
	return 0, ErrMismatch
}

// MatchKey is Match with a key that the scheme has from elsewhere.
func (m *Message) MatchKey(k Key, signed, sig []byte) error {
	if k.check(m.alg, 1) != nil {
		return ErrMismatch
	}
	ring := newKeyring(m.alg, []Key{k})
	x := ring.get()
	x.sigs = append(x.sigs, sig)
	if ring.match(x, signed, nil, nil) < 0 {
		return ErrMismatch
	}
	return nil
}

// Decode returns the bytes of a signature of the scheme's Algorithm. The error is
// [ErrMalformed] if it is not in the canonical form of e or does not have the
// algorithm's length.
func (m *Message) Decode(text string, e Encoding) ([]byte, error) {
	b := decodeSignature(nil, text, e, m.alg.size())
	if len(b) == 0 {
		return nil, ErrMalformed
	}
	return b, nil
}

// MAC signs text with the key of that index, for answers to challenges. The
// scheme's Algorithm must be an HMAC.
func (m *Message) MAC(key int, text string) []byte {
	x := m.ring.get()
	defer m.ring.put(x)
	return append([]byte(nil), x.digest(x.macs[key], []byte(text), nil, nil)...)
}
