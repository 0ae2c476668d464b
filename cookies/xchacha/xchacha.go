// Package xchacha has the cookie suite e2: XChaCha20-Poly1305, from
// golang.org/x/crypto.
//
//	cart, err := cookies.NewSealed(cookies.Config[Cart]{Name: "cart", Keys: keys, Suite: xchacha.Suite()})
//
// It takes about half the time of the default suite, e1, and adds a module to
// the program. It is not approved by FIPS 140: under GODEBUG=fips140=only, e2
// cannot be made, and cookies.NewSealed says so. Both suites have random nonces
// of 24 bytes and keys of their own, so a change from one to the other makes the
// values that are out there invalid and needs no new keys.
package xchacha

import (
	"golang.org/x/crypto/chacha20poly1305"

	"example.com/plainware/cookies"
)

// Suite returns e2 for [cookies.Config]. Values are 51 bytes and the base64 of
// them longer than the payload, as with e1.
func Suite() cookies.Suite {
	return cookies.Suite{Version: "e2", New: chacha20poly1305.NewX}
}
