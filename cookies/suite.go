package cookies

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Suite is one way to seal a value, complete in itself: a cipher, its nonces and
// a version that stands in every value. A cookie has one suite. Nothing
// negotiates, and a value of another version is invalid.
//
// The zero Suite is e1, XAES-256-GCM from the standard library. The package
// cookies/xchacha has e2.
type Suite struct {
	// Version is what values begin with: a lower-case letter and one to seven
	// further letters and digits. It is part of the derivation of keys, so that
	// suites never share one. e1, s1 and kid are this package's own, other
	// versions with e or s and one digit are reserved for the kit.
	Version string

	// New returns the cipher for a key of 32 bytes, which is derived from
	// one of [Config.Keys] for this suite alone. New may keep the key. The
	// cipher must be safe for concurrent use, and its nonces fit for being
	// chosen at random without counting messages: either NonceSize is 24 or
	// more, and Seal is given that many random bytes, or it is 0, and
	// Seal itself puts a random nonce in front. That of
	// [cipher.NewGCMWithRandomNonce] has this form, but its nonces are short: a
	// key is good for 2^32 values, which nobody counts, so take it only where
	// [Config.Keys] are changed long before that.
	New func(key []byte) (cipher.AEAD, error)
}

const (
	versionSealed = "e1"
	versionSigned = "s1"
	versionKeyID  = "kid" // of no suite: what is derived for it stands in every value

	minNonce = 24
)

// check says what is wrong with a suite that is not the zero one.
func (s Suite) check() error {
	switch {
	case s.New == nil:
		return fmt.Errorf("cookies: Suite: has no New (got version %q)", s.Version)
	case !version(s.Version):
		return fmt.Errorf("cookies: Suite: Version must be a lower-case letter and one to seven further letters and digits (got %q)", s.Version)
	case s.Version == versionSealed || s.Version == versionSigned || s.Version == versionKeyID:
		return fmt.Errorf("cookies: Suite: Version belongs to package cookies (got %q)", s.Version)
	}
	return nil
}

func version(s string) bool {
	for i := range len(s) {
		letter := 'a' <= s[i] && s[i] <= 'z'
		if !letter && (i == 0 || s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return 2 <= len(s) && len(s) <= 8
}

// box protects the plaintext of a value under one key. Its methods are safe for
// concurrent use.
type box interface {
	// seal appends the protected form of plain, which has overhead() bytes more.
	seal(dst, plain, data []byte) []byte
	// open appends the plain text to dst, or returns an error without a reason.
	open(dst, sealed, data []byte) ([]byte, error)
	overhead() int
}

// aeadBox is a box for both kinds of AEAD that a Suite can have.
type aeadBox struct {
	aead  cipher.AEAD
	nonce int
}

func newAEADBox(s Suite, key []byte) (box, error) {
	aead, err := s.New(key)
	if err != nil {
		return nil, fmt.Errorf("cookies: Suite: %w", err)
	}
	b := aeadBox{aead, aead.NonceSize()}
	if b.nonce != 0 && b.nonce < minNonce {
		return nil, fmt.Errorf("cookies: Suite: a nonce of this size must not be random (got %d bytes, want %d or more)", b.nonce, minNonce)
	}
	return b, nil
}

func (b aeadBox) overhead() int { return b.nonce + b.aead.Overhead() }

func (b aeadBox) seal(dst, plain, data []byte) []byte {
	if b.nonce == 0 {
		return b.aead.Seal(dst, nil, plain, data)
	}
	n := len(dst)
	dst = append(dst, make([]byte, b.nonce)...)
	rand.Read(dst[n:])
	return b.aead.Seal(dst, dst[n:], plain, data)
}

func (b aeadBox) open(dst, sealed, data []byte) ([]byte, error) {
	if len(sealed) < b.overhead() {
		return nil, errOpen
	}
	return b.aead.Open(dst, sealed[:b.nonce], sealed[b.nonce:], data)
}

// macBox is HMAC-SHA256: the plaintext stays readable, and its code follows it.
type macBox struct {
	states sync.Pool // of *macState
}

// macState is an HMAC that has its key in it, and room for what would otherwise
// escape.
type macState struct {
	hash.Hash
	sum [sha256.Size]byte
}

func newMACBox(key []byte) *macBox {
	return &macBox{states: sync.Pool{New: func() any {
		return &macState{Hash: hmac.New(sha256.New, key)}
	}}}
}

func (b *macBox) overhead() int { return sha256.Size }

// mac returns a state whose sum is the code of data and plain. Data delimits
// itself, so the two can simply follow each other.
func (b *macBox) mac(data, plain []byte) *macState {
	s := b.states.Get().(*macState)
	s.Reset()
	s.Write(data)
	s.Write(plain)
	s.Sum(s.sum[:0])
	return s
}

func (b *macBox) seal(dst, plain, data []byte) []byte {
	s := b.mac(data, plain)
	defer b.states.Put(s)
	return append(append(dst, plain...), s.sum[:]...)
}

func (b *macBox) open(dst, sealed, data []byte) ([]byte, error) {
	n := len(sealed) - sha256.Size
	if n < 0 {
		return nil, errOpen
	}
	s := b.mac(data, sealed[:n])
	defer b.states.Put(s)
	if !hmac.Equal(s.sum[:], sealed[n:]) {
		return nil, errOpen
	}
	return append(dst, sealed[:n]...), nil
}

// errOpen is the reason that no caller gets to see.
var errOpen = errors.New("message authentication failed")
