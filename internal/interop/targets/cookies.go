package targets

import (
	"bytes"
	"testing"

	"github.com/gorilla/securecookie"

	"example.com/plainware/cookies"
	"example.com/plainware/cookies/xchacha"
)

// cookieName is the name under which both sides make their values.
const cookieName = "__Host-cart"

func cookiesMeasures() []Measure {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 8)
	key := cookies.GenerateKey()
	config := cookies.Config[[]byte]{Name: cookieName, Keys: [][]byte{key}, Codec: cookies.Bytes()}
	e1 := must(cookies.NewSealed(config))
	s1 := must(cookies.NewSigned(config))
	config.Suite = xchacha.Suite()
	e2 := must(cookies.NewSealed(config))
	object := must(cookies.NewSealed(cookies.Config[cart]{Name: cookieName, Keys: [][]byte{key}}))

	hashKey, blockKey := cookies.GenerateKey(), cookies.GenerateKey()
	sign := securecookie.New(hashKey, nil).SetSerializer(securecookie.NopEncoder{})
	encrypt := securecookie.New(hashKey, blockKey).SetSerializer(securecookie.NopEncoder{})
	gob := securecookie.New(hashKey, blockKey)

	full := cart{User: "0195f180-2939-7bc4-bffe-838eb3c62526", Items: []string{"sku-1001", "sku-2002", "sku-3003"}, Total: 12995}
	const encrypting, signing = "securecookie, encrypt", "securecookie, sign"
	return []Measure{
		{
			Package: "cookies", Name: "e1, encode", Ours: encode(e1, payload), MaxAllocs: 4,
			Peers: []Peer{{Name: encrypting, Run: gorillaEncode(encrypt, payload), MaxRatio: 0.58}},
		},
		{
			Package: "cookies", Name: "e1, decode", Ours: decode(e1, payload), MaxAllocs: 3,
			Peers: []Peer{{Name: encrypting, Run: gorillaDecode[[]byte](encrypt, payload), MaxRatio: 0.6}},
		},
		{
			Package: "cookies", Name: "e2, encode", Ours: encode(e2, payload), MaxAllocs: 1,
			Peers: []Peer{{Name: encrypting, Run: gorillaEncode(encrypt, payload), MaxRatio: 0.4}},
		},
		{
			Package: "cookies", Name: "e2, decode", Ours: decode(e2, payload), MaxAllocs: 1,
			Peers: []Peer{{Name: encrypting, Run: gorillaDecode[[]byte](encrypt, payload), MaxRatio: 0.35}},
		},
		{
			Package: "cookies", Name: "s1, encode", Ours: encode(s1, payload), MaxAllocs: 1,
			Peers: []Peer{{Name: signing, Run: gorillaEncode(sign, payload), MaxRatio: 0.5}},
		},
		{
			Package: "cookies", Name: "s1, decode", Ours: decode(s1, payload), MaxAllocs: 1,
			Peers: []Peer{{Name: signing, Run: gorillaDecode[[]byte](sign, payload), MaxRatio: 0.5}},
		},
		{
			Package: "cookies", Name: "e1 and JSON, decode", Ours: decode(object, full),
			Peers: []Peer{{Name: "securecookie, encrypt and gob", Run: gorillaDecode[cart](gob, full), MaxRatio: 0.25}},
		},
	}
}

// cart is what both sides encode where a serialiser takes part.
type cart struct {
	User  string
	Items []string
	Total int
}

func encode[T any](c *cookies.Cookie[T], v T) func(*testing.B) {
	return serial(func() { must(c.Encode(v, "")) })
}

func decode[T any](c *cookies.Cookie[T], v T) func(*testing.B) {
	text := must(c.Encode(v, ""))
	return serial(func() {
		if _, _, err := c.Decode(text, ""); err != nil {
			panic(err)
		}
	})
}

func gorillaEncode(s *securecookie.SecureCookie, v any) func(*testing.B) {
	return serial(func() { must(s.Encode(cookieName, v)) })
}

func gorillaDecode[T any](s *securecookie.SecureCookie, v T) func(*testing.B) {
	text := must(s.Encode(cookieName, v))
	return serial(func() {
		var dst T
		if err := s.Decode(cookieName, text, &dst); err != nil {
			panic(err)
		}
	})
}
