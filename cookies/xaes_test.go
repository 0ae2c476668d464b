package cookies

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

// sealWith is XAES-256-GCM with a nonce from outside, which Seal does not have:
// the key derivation under test, and GCM as the C2SP text has it. Open has to
// take what it makes.
func sealWith(t testing.TB, key, nonce, plaintext, data []byte) []byte {
	t.Helper()
	aead, err := newXAES(key)
	if err != nil {
		t.Fatal(err)
	}
	s := new(xaesScratch)
	aead.(*xaes).messageKey(s, nonce[:xaesHalf])
	block, err := aes.NewCipher(s.key[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext := gcm.Seal(nil, nonce[xaesHalf:], plaintext, data)
	opened, err := aead.Open(nil, nil, append(nonce[:len(nonce):len(nonce)], ciphertext...), data)
	if err != nil || !bytes.Equal(opened, plaintext) {
		t.Fatalf("Open: %q, %v", opened, err)
	}
	return ciphertext
}

// cookies 12: the two vectors of C2SP XAES-256-GCM.md. CMAC's sub-key carries in
// the one and not in the other.
func TestXAESVectors(t *testing.T) {
	for _, v := range xaesVectors {
		aead, err := newXAES(bytes.Repeat([]byte{v.key}, 32))
		if err != nil {
			t.Fatal(err)
		}
		ciphertext, err := hex.DecodeString(v.ciphertext)
		if err != nil {
			t.Fatal(err)
		}
		plaintext, err := aead.Open(nil, nil, append([]byte(xaesNonce), ciphertext...), []byte(v.data))
		if string(plaintext) != "XAES-256-GCM" || err != nil {
			t.Errorf("key %d: %q, %v", v.key, plaintext, err)
		}
	}
}

const xaesNonce = "ABCDEFGHIJKLMNOPQRSTUVWX"

var xaesVectors = []struct {
	key              byte
	data, ciphertext string
}{
	{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
	{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
}

// cookies 12: the accumulated test of C2SP XAES-256-GCM.md, 10,000 messages of
// pseudo-random lengths. It needs GCM with a nonce from outside, so it is the one
// test that cannot run under GODEBUG=fips140=only.
func TestXAESAccumulated(t *testing.T) {
	source, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		source.Read(b)
		return b
	}
	for range 10_000 {
		key, nonce := read(32), read(24)
		plaintext := read(int(read(1)[0]))
		data := read(int(read(1)[0]))
		sum.Write(sealWith(t, key, nonce, plaintext, data))
	}
	got := make([]byte, 32)
	sum.Read(got)
	if hex.EncodeToString(got) != "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939" {
		t.Errorf("got %x", got)
	}
	for _, v := range xaesVectors {
		got := sealWith(t, bytes.Repeat([]byte{v.key}, 32), []byte(xaesNonce), []byte("XAES-256-GCM"), []byte(v.data))
		if hex.EncodeToString(got) != v.ciphertext {
			t.Errorf("key %d: %x", v.key, got)
		}
	}
}

// Seal and Open append, and change no input.
func TestXAESAppends(t *testing.T) {
	aead, err := newXAES(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if aead.NonceSize() != 0 || aead.Overhead() != 40 {
		t.Errorf("nonce size %d, overhead %d", aead.NonceSize(), aead.Overhead())
	}
	plaintext, data := []byte("plain"), []byte("data")
	sealed := aead.Seal([]byte("before"), nil, plaintext, data)
	if string(sealed[:6]) != "before" || len(sealed) != 6+5+40 {
		t.Fatalf("sealed: %q", sealed)
	}
	opened, err := aead.Open([]byte("before"), nil, sealed[6:], data)
	if string(opened) != "beforeplain" || err != nil || string(plaintext) != "plain" || string(data) != "data" {
		t.Errorf("opened: %q, %v", opened, err)
	}
	for n := range sealed[6:] {
		if got, err := aead.Open(nil, nil, sealed[6:6+n], data); err == nil || got != nil {
			t.Errorf("the first %d bytes: %q, %v", n, got, err)
		}
	}
	if _, err := aead.Open(nil, make([]byte, 24), sealed[6:], data); err == nil {
		t.Error("Open took a nonce")
	}
	defer func() {
		if recover() == nil {
			t.Error("Seal took a nonce")
		}
	}()
	aead.Seal(nil, make([]byte, 24), plaintext, data)
}

// No key of a message is left in memory that is used again.
func TestXAESScratchIsCleared(t *testing.T) {
	aead, err := newXAES(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead.Seal(nil, nil, nil, nil)
	for range 100 {
		if s := xaesScratches.Get().(*xaesScratch); s.key != [32]byte{} {
			t.Fatal("a key is in the pool")
		}
	}
}
