package webhook

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Key is a secret shared with a provider, or a provider's public key. Providers
// write their secrets in different ways, hence the constructors: the text of
// the secret itself ([Secret], which most want), or what it says in base64 or
// hex. A text that does not parse is reported by [New]. Printing a Key shows
// none of it.
type Key struct {
	secret []byte
	public crypto.PublicKey
	signer crypto.Signer
	cut    bool // a whsec_ before the secret
	err    error
}

// whsec is what secrets of two kinds begin with: those of Stripe, which are text,
// and those of Standard Webhooks, which are base64.
const whsec = "whsec_"

// Secret is the bytes of the text. Stripe's whsec_… is one of these, whole.
func Secret(s string) Key {
	if s == "" {
		return Key{err: errors.New("is empty")}
	}
	return Key{secret: []byte(s)}
}

// SecretHex is the bytes that s writes in hexadecimal digits.
func SecretHex(s string) Key {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return Key{err: errors.New("is not hexadecimal")}
	}
	return Key{secret: b}
}

// SecretBase64 is the bytes that s writes in base64, padded or not, after an
// optional "whsec_". The secrets of Standard Webhooks, Svix and GitLab are
// written so.
func SecretBase64(s string) Key {
	text, cut := strings.CutPrefix(s, whsec)
	b, err := decodeKey(text)
	if err != nil || len(b) == 0 {
		return Key{err: errors.New("is not base64")}
	}
	return Key{secret: b, cut: cut}
}

func decodeKey(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// PublicKey is an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
func PublicKey(pub crypto.PublicKey) Key {
	switch p := pub.(type) {
	case *rsa.PublicKey:
		if p != nil && p.N != nil {
			return Key{public: p}
		}
	case *ecdsa.PublicKey:
		if p != nil && p.Curve != nil {
			return Key{public: p}
		}
	case ed25519.PublicKey:
		if len(p) == ed25519.PublicKeySize {
			return Key{public: p}
		}
	}
	return Key{err: fmt.Errorf("is not a public key of a known type but %T", pub)}
}

// PublicKeyText reads a public key in the forms in which providers show one:
// PEM, base64 of its DER form (PKIX, or a certificate), 64 hexadecimal digits
// of an Ed25519 key, or whpk_ with such a key in base64.
func PublicKeyText(s string) Key {
	s = strings.TrimSpace(s)
	if block, _ := pem.Decode([]byte(s)); block != nil {
		return publicKeyDER(block.Bytes)
	}
	if b, err := hex.DecodeString(s); err == nil && len(b) == ed25519.PublicKeySize {
		return PublicKey(ed25519.PublicKey(b))
	}
	text, raw := strings.CutPrefix(s, "whpk_")
	b, err := decodeKey(text)
	switch {
	case err != nil:
		return Key{err: errors.New("is not a public key")}
	case raw:
		return PublicKey(ed25519.PublicKey(b))
	}
	return publicKeyDER(b)
}

func publicKeyDER(der []byte) Key {
	if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
		return PublicKey(pub)
	}
	if cert, err := x509.ParseCertificate(der); err == nil {
		return PublicKey(cert.PublicKey)
	}
	return Key{err: errors.New("is not a public key")}
}

// PrivateKey is the key with which [Sign] makes signatures that are verified
// with a public key: an *rsa.PrivateKey, *ecdsa.PrivateKey or
// ed25519.PrivateKey, or a signer that keeps one elsewhere. It can verify too.
func PrivateKey(signer crypto.Signer) Key {
	none := signer == nil
	switch p := signer.(type) {
	case *rsa.PrivateKey:
		none = p == nil
	case *ecdsa.PrivateKey:
		none = p == nil
	case ed25519.PrivateKey:
		if none = p == nil; !none && len(p) != ed25519.PrivateKeySize {
			return Key{err: fmt.Errorf("is no Ed25519 private key, which has 64 bytes, and ed25519.NewKeyFromSeed makes one of a seed (got %d)", len(p))}
		}
	}
	if none {
		return Key{err: errors.New("is nil")}
	}
	k := PublicKey(signer.Public())
	k.signer = signer
	return k
}

// Format writes a Key to logs without what is in it.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, "webhook.Key(…)") }

// check says what is wrong with k for the scheme, nil if nothing. A secret that was
// read in the way of another provider would only be seen from each delivery being
// refused.
func (c *compiled) check(k Key, minSecret int) error {
	switch err := k.check(c.Algorithm, minSecret); {
	case err != nil:
		return err
	case c.whsec == whsecText && k.cut:
		return errors.New("must be made by Secret, of the whole text: whsec_ is part of the scheme's secrets")
	case c.whsec == whsecBase64 && bytes.HasPrefix(k.secret, []byte(whsec)):
		return errors.New("must be made by SecretBase64: what follows whsec_ is base64 in the scheme's secrets")
	}
	return nil
}

// check says what is wrong with k for an algorithm, nil if nothing.
func (k Key) check(a Algorithm, minSecret int) error {
	if k.err != nil {
		return k.err
	}
	switch a {
	case 0:
		return nil // a function will judge
	case Ed25519:
		if _, ok := k.public.(ed25519.PublicKey); !ok {
			return errors.New("must be an Ed25519 key")
		}
	case ECDSAP256SHA256, ECDSAP256SHA256Raw:
		p, ok := k.public.(*ecdsa.PublicKey)
		if !ok || p.Curve != elliptic.P256() {
			return errors.New("must be an ECDSA key on P-256")
		}
		if !onCurve(p) {
			return errors.New("must be an ECDSA key on P-256, and this is no point of it")
		}
	case RSASHA256, RSASHA1Legacy, RSAPSSSHA512:
		p, ok := k.public.(*rsa.PublicKey)
		if !ok {
			return errors.New("must be an RSA key")
		}
		if bits := p.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("must be an RSA key of 2048 to 8192 bits (got %d)", bits)
		}
	default:
		if k.public != nil {
			return errors.New("must be a secret, and this is a public key")
		}
		if len(k.secret) < minSecret || len(k.secret) == 0 {
			return fmt.Errorf("must be a secret of %d bytes or more (got %d)", minSecret, len(k.secret))
		}
	}
	return nil
}

// onCurve reports whether p is a point of its curve. One that was made by hand
// may have no coordinates at all, and then crypto/ecdsa panics.
func onCurve(p *ecdsa.PublicKey) (ok bool) {
	defer func() { ok = recover() == nil && ok }()
	_, err := p.ECDH()
	return err == nil
}
