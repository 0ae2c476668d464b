package webhook

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"hash"
	"math/big"
	"sync"
	"time"
)

// maxSignatures bounds the signatures of one delivery that are tried. A
// rotation needs two; each more costs the receiver time, and with public keys
// much of it.
const maxSignatures = 16

// maxSignature is the longest signature in bytes, that of an RSA key of 8192
// bits. Tokens may be as long.
const maxSignature = 1024

// keyring is the keys of a verifier under one algorithm.
type keyring struct {
	alg  Algorithm
	keys func() []Key // a function, of which printing a Verifier or a Transport shows nothing
	pool sync.Pool    // of *scratch
}

// scratch is what one verification needs beside the delivery, kept for the
// next one.
type scratch struct {
	macs []hash.Hash // one for each key, with the key's state
	plan hash.Hash   // the digest that public keys sign

	sigs   [][]byte // decoded signatures, in store
	store  []byte
	wanted bool // a signature of the wanted version was there, good or bad

	text []byte // what is signed, without the body
	at   time.Time
	sum  [sha512.Size]byte
}

func newKeyring(alg Algorithm, keys []Key) *keyring {
	return &keyring{alg: alg, keys: func() []Key { return keys }}
}

func (k *keyring) get() *scratch {
	if x, ok := k.pool.Get().(*scratch); ok {
		return x
	}
	x := &scratch{sigs: make([][]byte, 0, maxSignatures), store: make([]byte, 0, 256), text: make([]byte, 0, 256)}
	for _, key := range k.keys() {
		switch k.alg {
		case HMACSHA256:
			x.macs = append(x.macs, hmac.New(sha256.New, key.secret))
		case HMACSHA512:
			x.macs = append(x.macs, hmac.New(sha512.New, key.secret))
		case HMACSHA1Legacy:
			x.macs = append(x.macs, hmac.New(sha1.New, key.secret))
		}
	}
	if h := k.alg.hash(); h != 0 {
		x.plan = h.New()
	}
	return x
}

func (k *keyring) put(x *scratch) {
	if cap(x.text) > 4<<10 || cap(x.store) > 4<<10 {
		return // a public key that signs whole messages, or an odd sender
	}
	clear(x.sigs)
	x.sigs, x.store, x.text, x.wanted = x.sigs[:0], x.store[:0], x.text[:0], false
	k.pool.Put(x)
}

// hash is the digest that is computed once for all keys, 0 for none.
func (a Algorithm) hash() crypto.Hash {
	switch a {
	case SHA256Legacy, ECDSAP256SHA256, ECDSAP256SHA256Raw, RSASHA256:
		return crypto.SHA256
	case RSASHA1Legacy:
		return crypto.SHA1
	case RSAPSSSHA512:
		return crypto.SHA512
	}
	return 0
}

// match returns the first key that made one of x.sigs for the message, which
// is before, body and after, or -1. Every key is tried with every signature,
// whatever the outcome of the others.
func (k *keyring) match(x *scratch, before, body, after []byte) int {
	found := -1
	hit := func(i int, ok bool) {
		if ok && found < 0 {
			found = i
		}
	}
	switch k.alg {
	case HMACSHA256, HMACSHA512, HMACSHA1Legacy:
		for i, m := range x.macs {
			sum := x.digest(m, before, body, after)
			for _, sig := range x.sigs {
				hit(i, subtle.ConstantTimeCompare(sum, sig) == 1)
			}
		}
	case SHA256Legacy:
		for i, key := range k.keys() {
			x.plan.Reset()
			x.plan.Write(key.secret)
			x.plan.Write(before)
			x.plan.Write(body)
			x.plan.Write(after)
			sum := x.plan.Sum(x.sum[:0])
			for _, sig := range x.sigs {
				hit(i, subtle.ConstantTimeCompare(sum, sig) == 1)
			}
		}
	case Token, TokenSHA256:
		// Digests have one length, so a comparison takes as long whatever the
		// length of the token.
		for i, key := range k.keys() {
			want := sha256.Sum256(key.secret)
			for _, sig := range x.sigs {
				if k.alg == Token {
					got := sha256.Sum256(sig)
					hit(i, subtle.ConstantTimeCompare(want[:], got[:]) == 1)
				} else {
					hit(i, subtle.ConstantTimeCompare(want[:], sig) == 1)
				}
			}
		}
	case Ed25519:
		message := append(append(append(make([]byte, 0, len(before)+len(body)+len(after)), before...), body...), after...)
		for i, key := range k.keys() {
			for _, sig := range x.sigs {
				hit(i, ed25519.Verify(key.public.(ed25519.PublicKey), message, sig))
			}
		}
	default:
		if x.plan == nil {
			return -1 // no algorithm, no match
		}
		sum := x.digest(x.plan, before, body, after)
		for i, key := range k.keys() {
			for _, sig := range x.sigs {
				hit(i, verifyDigest(k.alg, key.public, sum, sig))
			}
		}
	}
	return found
}

func (x *scratch) digest(h hash.Hash, before, body, after []byte) []byte {
	h.Reset()
	h.Write(before)
	h.Write(body)
	if len(after) > 0 {
		h.Write(after)
	}
	return h.Sum(x.sum[:0])
}

func verifyDigest(a Algorithm, pub crypto.PublicKey, sum, sig []byte) bool {
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		if a == ECDSAP256SHA256 {
			return ecdsa.VerifyASN1(p, sum, sig)
		}
		return len(sig) == 64 && ecdsa.Verify(p, sum, new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	case *rsa.PublicKey:
		if a == RSAPSSSHA512 {
			return rsa.VerifyPSS(p, crypto.SHA512, sum, sig, &rsa.PSSOptions{SaltLength: 64}) == nil
		}
		return rsa.VerifyPKCS1v15(p, a.hash(), sum, sig) == nil
	}
	return false
}

// values are what can stand in the braces of a scheme.
type values struct {
	id, time, method, url string
}

// render appends what is signed, without the body, to b, and returns where the
// body goes.
func (c *compiled) render(b []byte, v *values) (text []byte, split int) {
	b = appendPieces(b, c.before, v)
	split = len(b)
	return appendPieces(b, c.after, v), split
}

func appendPieces(b []byte, pieces []piece, v *values) []byte {
	for i := range pieces {
		switch p := &pieces[i]; p.part {
		case partLiteral:
			b = append(b, p.literal...)
		case partID:
			b = append(b, v.id...)
		case partTime:
			b = append(b, v.time...)
		case partMethod:
			b = append(b, v.method...)
		case partURL:
			b = append(b, v.url...)
		case partURLHubSpot:
			b = append(b, hubSpotURL(v.url)...)
		}
	}
	return b
}
