package cookies

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"sync"
)

const (
	xaesHalf     = 12 // bytes of the nonce that choose the key; the other half is GCM's nonce
	xaesOverhead = 2*xaesHalf + 16
)

// xaes is XAES-256-GCM (C2SP, XAES-256-GCM.md) with random nonces. The first
// half of the 24-byte nonce derives an AES-256 key for this one message; the
// second half is the nonce of AES-GCM under that key. So random nonces are safe
// for 2^80 messages per key, where AES-GCM alone stops at 2^32.
//
// Like [cipher.NewGCMWithRandomNonce], with which it is made, it has no nonce
// parameter: Seal puts the nonce in front. That is what keeps it inside
// the rules of GODEBUG=fips140=only, where GCM with a nonce from outside is
// refused and its key is an output of the counter-mode KDF of SP 800-108 with
// CMAC.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC's first sub-key
}

// newXAES is the New of suite e1. Its keys have 32 bytes.
func newXAES(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	carry := x.k1[0] >> 7
	for i := range len(x.k1) - 1 {
		x.k1[i] = x.k1[i]<<1 | x.k1[i+1]>>7
	}
	last := len(x.k1) - 1
	x.k1[last] = x.k1[last]<<1 ^ byte(subtle.ConstantTimeSelect(int(carry), 0x87, 0))
	return x, nil
}

// xaesScratch is memory that a cipher.Block would make escape: one for a message
// instead of one for a block. While in use it holds the key of one message, and
// the sub-key of CMAC mixed with what everybody knows; in the pool it holds zeros.
type xaesScratch struct {
	key [2 * aes.BlockSize]byte
	in  [2 * aes.BlockSize]byte
}

var xaesScratches = sync.Pool{New: func() any { return new(xaesScratch) }}

// messageKey puts the key that the first half of a nonce chooses into s.key: two
// blocks of CMAC, each over a block with a counter in it, so that each CMAC is
// one call of the cipher.
func (x *xaes) messageKey(s *xaesScratch, half []byte) {
	for i := range 2 {
		m := s.in[i*aes.BlockSize:][:aes.BlockSize]
		m[0], m[1], m[2], m[3] = 0, byte(i+1), 'X', 0
		copy(m[4:], half[:xaesHalf])
		subtle.XORBytes(m, m, x.k1[:])
		x.block.Encrypt(s.key[i*aes.BlockSize:], m)
	}
}

// derive returns AES-GCM under the key that the first half of a nonce chooses.
func (x *xaes) derive(half []byte) (cipher.AEAD, error) {
	s := xaesScratches.Get().(*xaesScratch)
	x.messageKey(s, half)
	block, err := aes.NewCipher(s.key[:])
	*s = xaesScratch{}
	xaesScratches.Put(s)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (x *xaes) NonceSize() int { return 0 }
func (x *xaes) Overhead() int  { return xaesOverhead }

// Seal appends nonce, ciphertext and tag. It panics where the standard library
// refuses AES-256-GCM, which it does not.
func (x *xaes) Seal(dst, nonce, plaintext, data []byte) []byte {
	if len(nonce) != 0 {
		panic("cookies: XAES-256-GCM makes its nonces itself")
	}
	n := len(dst)
	dst = append(dst, make([]byte, xaesHalf)...)
	rand.Read(dst[n:])
	gcm, err := x.derive(dst[n:])
	if err != nil {
		panic("cookies: " + err.Error())
	}
	return gcm.Seal(dst, nil, plaintext, data)
}

// Open appends the plaintext of a message that Seal made.
func (x *xaes) Open(dst, nonce, sealed, data []byte) ([]byte, error) {
	if len(nonce) != 0 || len(sealed) < xaesOverhead {
		return nil, errOpen
	}
	gcm, err := x.derive(sealed[:xaesHalf])
	if err != nil {
		return nil, err
	}
	return gcm.Open(dst, nil, sealed[xaesHalf:], data)
}
