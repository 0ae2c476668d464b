package paginate

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"strings"
	"sync"
	"time"
)

// A cursor is base64url, without padding, of
//
//	suite | key ID | flags | expiry | sealed
//
// where suite, key ID and flags are a byte each and expiry is Unix seconds in
// five bytes, 0 for never. In suite 1 sealed is the key as JSON and the first
// 16 bytes of HMAC-SHA256 over head, key and binding. In suite 2 it is nonce,
// key and tag of AES-256-GCM with head and binding as additional data.
const (
	suiteSigned    = 1
	suiteEncrypted = 2

	flagBackward  = 1
	flagInclusive = 2

	headLen   = 8
	tagLen    = 16
	maxCursor = 1024 // characters: query strings have bounds of their own
)

// errLong is what a key is that makes too long a cursor.
var errLong = errors.New("paginate: the values of the row are too long for a cursor")

// cursor is what a cursor says.
type cursor struct {
	key       []byte // JSON
	backward  bool
	inclusive bool
	expires   int64 // Unix seconds, 0: never
}

type verdict int

const (
	refused verdict = iota
	expired
	opened
)

// seals makes and opens cursors under a ring of keys.
type seals struct {
	ring    []*sealKey // the first one makes
	encrypt bool
}

type sealKey struct {
	id   byte      // finds the key without a trial, most of the time
	macs sync.Pool // of hash.Hash
	aead cipher.AEAD
}

func newSeals(keys, incoming [][]byte, encrypt bool) (*seals, error) {
	s := &seals{encrypt: encrypt}
	for _, secret := range append(keys[:len(keys):len(keys)], incoming...) {
		k, err := newSealKey(secret)
		if err != nil {
			return nil, err
		}
		s.ring = append(s.ring, k)
	}
	return s, nil
}

func newSealKey(secret []byte) (*sealKey, error) {
	derive := func(use string, n int) []byte {
		k, err := hkdf.Key(sha256.New, secret, nil, "plainware/paginate/1/"+use, n)
		if err != nil {
			return nil // only for lengths that nobody asks for; AES refuses it
		}
		return k
	}
	mac := derive("sign", sha256.Size)
	block, err := aes.NewCipher(derive("encrypt", 32))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	k := &sealKey{id: derive("id", 1)[0], aead: aead}
	k.macs.New = func() any { return hmac.New(sha256.New, mac) }
	return k, nil
}

// seal returns c as text.
func (s *seals) seal(c cursor, binding [sha256.Size]byte) (string, error) {
	k := s.ring[0]
	var space [256]byte
	b := append(space[:0], suiteSigned, k.id, 0)
	if s.encrypt {
		b[0] = suiteEncrypted
	}
	if c.backward {
		b[2] |= flagBackward
	}
	if c.inclusive {
		b[2] |= flagInclusive
	}
	b = append(b, byte(c.expires>>32))
	b = binary.BigEndian.AppendUint32(b, uint32(c.expires))
	if s.encrypt {
		b = k.aead.Seal(b, nil, c.key, additional(b, binding))
	} else {
		b = append(b, c.key...)
		tag := k.tag(b, binding)
		b = append(b, tag[:]...)
	}
	if base64.RawURLEncoding.EncodedLen(len(b)) > maxCursor {
		return "", errLong
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// open verifies text before it looks at anything in it but the key ID.
func (s *seals) open(text string, binding [sha256.Size]byte) (cursor, verdict) {
	// The decoder would skip line breaks, and one cursor could be written in
	// many ways.
	if len(text) > maxCursor || strings.ContainsAny(text, "\r\n") {
		return cursor{}, refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < headLen+tagLen {
		return cursor{}, refused
	}
	for _, k := range s.ring {
		if k.id != b[1] {
			continue
		}
		if key, ok := k.open(b, binding); ok {
			return unpack(b[:headLen], key)
		}
	}
	return cursor{}, refused
}

func (k *sealKey) open(b []byte, binding [sha256.Size]byte) (key []byte, ok bool) {
	switch b[0] {
	case suiteSigned:
		n := len(b) - tagLen
		want := k.tag(b[:n], binding)
		return b[headLen:n], hmac.Equal(want[:], b[n:])
	case suiteEncrypted:
		key, err := k.aead.Open(nil, nil, b[headLen:], additional(b[:headLen], binding))
		if key == nil {
			key = []byte{} // nil is no cursor at all
		}
		return key, err == nil
	}
	return nil, false
}

// unpack reads a head that has been verified.
func unpack(head, key []byte) (cursor, verdict) {
	c := cursor{
		key:       key,
		backward:  head[2]&flagBackward != 0,
		inclusive: head[2]&flagInclusive != 0,
		expires:   int64(head[3])<<32 | int64(binary.BigEndian.Uint32(head[4:])),
	}
	if c.expires != 0 && time.Now().Unix() >= c.expires {
		return cursor{}, expired
	}
	return c, opened
}

// tag signs a message, which cannot be confused with another one although the
// two parts have no lengths before them: the second one's is fixed.
func (k *sealKey) tag(message []byte, binding [sha256.Size]byte) (tag [tagLen]byte) {
	h := k.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(message)
	h.Write(binding[:])
	var sum [sha256.Size]byte
	copy(tag[:], h.Sum(sum[:0]))
	k.macs.Put(h)
	return tag
}

func additional(head []byte, binding [sha256.Size]byte) []byte {
	b := make([]byte, 0, headLen+sha256.Size)
	return append(append(b, head[:headLen]...), binding[:]...)
}

// expiry returns when a cursor made now expires, in Unix seconds, rounded up.
func expiry(ttl time.Duration) int64 {
	if ttl == 0 {
		return 0
	}
	return time.Now().Add(ttl + time.Second - 1).Unix()
}
