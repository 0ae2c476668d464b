package webhook

import (
	"hash"
	"net/http"
	"testing"
)

type countedHash struct {
	hash.Hash
	sums *int
}

func (c countedHash) Sum(b []byte) []byte {
	*c.sums++
	return c.Hash.Sum(b)
}

// webhook 12: all keys are tried, also after a match, and a signature of
// another length matches nothing.
func TestEveryKeyIsTried(t *testing.T) {
	keys := []Key{Secret("secret-1"), Secret("secret-2"), Secret("secret-3")}
	ring := newKeyring(HMACSHA256, keys)
	for want, key := range keys {
		sig, err := key.sign(HMACSHA256, []byte("the message"))
		if err != nil {
			t.Fatal(err)
		}
		x, sums := ring.get(), 0
		for i, m := range x.macs {
			x.macs[i] = countedHash{m, &sums}
		}
		x.sigs = [][]byte{sig, sig[:31], append(sig, 0), nil, sig}
		if got := ring.match(x, []byte("the "), []byte("mess"), []byte("age")); got != want || sums != 3 {
			t.Errorf("key %d after %d MACs, want %d after 3", got, sums, want)
		}
		x.sigs = x.sigs[1:4]
		if got := ring.match(x, []byte("the "), []byte("mess"), []byte("age")); got != -1 {
			t.Errorf("key %d matches a signature of another length", got)
		}
	}
}

// webhook 36: the memory that a long message or an odd header took is not kept
// for the next delivery.
func TestLargeScratchIsNotKept(t *testing.T) {
	ring := newKeyring(HMACSHA256, []Key{Secret("0123456789")})
	for range 100 { // a pool may lose what it is given
		x := ring.get()
		if cap(x.text) > 4<<10 || cap(x.store) > 4<<10 {
			t.Fatalf("kept: %d and %d bytes", cap(x.text), cap(x.store))
		}
		x.text = make([]byte, 0, 4<<10+1)
		ring.put(x)
		x = ring.get()
		if cap(x.text) > 4<<10 || cap(x.store) > 4<<10 {
			t.Fatalf("kept: %d and %d bytes", cap(x.text), cap(x.store))
		}
		x.store = make([]byte, 0, 4<<10+1)
		ring.put(x)
	}
}

// One delivery leaves nothing behind for the next.
func TestScratchIsCleared(t *testing.T) {
	v, err := New(Config{Scheme: Stripe(), Keys: []Key{Secret("0123456789")}})
	if err != nil {
		t.Fatal(err)
	}
	o := &Outgoing{Body: []byte("{}")}
	if err := Sign(Stripe(), o, Secret("0123456789")); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := v.VerifyBytes(o.Header, o.Body); err != nil {
			t.Fatal(err)
		}
		h := http.Header{"Stripe-Signature": {o.Header.Get("Stripe-Signature")[:12]}}
		if _, err := v.VerifyBytes(h, o.Body); err == nil {
			t.Fatal("a signature of the delivery before was used")
		}
	}
}
