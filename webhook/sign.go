package webhook

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outgoing is a delivery that is to be signed.
type Outgoing struct {
	Method string // "" is POST
	URL    string // the whole address; needed by schemes that sign it

	// Header is what the signature is added to, and what schemes that sign
	// header fields read. nil is a new one.
	Header http.Header

	// Body is the body. Schemes with the signature in it (Mailgun, Adyen, AWS SNS)
	// replace it.
	Body []byte

	// ID is that of the delivery, for schemes that sign one: printable ASCII. It
	// must be the same when a delivery is tried again. "" is a new random one.
	ID string

	// Time is the time of signing. Zero is now.
	Time time.Time
}

// Sign signs o as the scheme wants it, with the key that the receiver knows,
// or for schemes with public keys with its [PrivateKey]. It sets o's zero fields.
// With several keys, it adds a signature of each, for schemes that have room for
// them: that is how a sender changes its key.
//
// To sign every request of a client, use a [Transport].
func Sign(s Scheme, o *Outgoing, keys ...Key) error {
	c, err := s.compile()
	if err != nil {
		return err
	}
	return c.sign(o, keys)
}

func (c *compiled) sign(o *Outgoing, keys []Key) error {
	if len(keys) == 0 {
		return errors.New("webhook: no key to sign with")
	}
	for _, k := range keys {
		// The shortest secret is the receiver's rule.
		if err := c.check(k, 1); err != nil {
			return errors.New("webhook: the key to sign with " + err.Error())
		}
	}
	if o.Method == "" {
		o.Method = http.MethodPost
	}
	if o.Header == nil {
		o.Header = http.Header{}
	}
	if o.ID == "" {
		o.ID = "msg_" + rand.Text()
	}
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	if !printable(o.ID) {
		return errors.New("webhook: Outgoing.ID: must be 1 to 512 printable ASCII characters")
	}
	if c.needsURL && o.URL == "" {
		return errors.New("webhook: Outgoing.URL: is required, the scheme signs it")
	}
	if c.Verify != nil && c.Sign == nil {
		return errors.New("webhook: the scheme " + c.Name + " cannot sign")
	}
	if what := c.crowded(len(keys)); what != "" {
		return errors.New("webhook: the scheme " + c.Name + " " + what)
	}
	if c.Verify != nil {
		return c.Sign(o, keys[0])
	}
	return c.signHeader(o, keys)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= 512
}

func (c *compiled) signHeader(o *Outgoing, keys []Key) error {
	if len(o.Body) > 0 && c.movable(o.Method, o.Body) {
		if c.movable(o.Method, []byte("{}")) {
			return errors.New("webhook: Outgoing.Body: must be empty, the scheme " + c.Name + " has none with " + o.Method)
		}
		return errors.New("webhook: Outgoing.Body: must be empty, a JSON object or an array, the scheme " + c.Name + " has no other")
	}
	v := values{id: o.ID, method: o.Method, url: o.URL, time: c.timeText(o.Time)}
	if c.TimeField != "" {
		body, err := setField(o.Body, c.TimeField, v.time)
		if err != nil {
			return err
		}
		o.Body = body
	}
	text, split := c.render(nil, &v)
	message := append(append(append([]byte(nil), text[:split]...), o.Body...), text[split:]...)
	var sigs []string
	for _, k := range keys {
		sig, err := k.sign(c.Algorithm, message)
		if err != nil {
			return err
		}
		sigs = append(sigs, encodeSignature(sig, c.Encoding))
	}
	f := c.Format
	var line string
	var more []string
	switch f.kind {
	case bare, prefixed:
		line = f.prefix + sigs[0]
		if c.AlsoHeader != "" {
			delete(o.Header, c.AlsoHeader) // of an earlier time
			if len(sigs) == 2 {
				o.Header[c.AlsoHeader] = []string{f.prefix + sigs[1]}
			}
		}
	case pairs:
		line = f.timed + "=" + v.time
		for _, s := range sigs {
			line += f.sep + f.prefix + "=" + s
		}
	case list:
		for i, s := range sigs {
			sigs[i] = f.prefix + s
		}
		if line = strings.Join(sigs, f.sep); c.lines {
			line, more = sigs[0], sigs[1:]
		}
	case timeList:
		line = v.time + f.sep + strings.Join(sigs, f.sep)
	}
	o.Header[c.Header] = append([]string{line}, more...)
	if c.TimeHeader != "" {
		o.Header[c.TimeHeader] = []string{v.time}
	}
	if c.IDHeader != "" {
		o.Header[c.IDHeader] = []string{v.id}
	}
	for _, r := range c.require {
		o.Header[r[0]] = []string{r[1]}
	}
	return nil
}

func (c *compiled) timeText(t time.Time) string {
	switch c.TimeFormat {
	case UnixMillis:
		return strconv.FormatInt(t.UnixMilli(), 10)
	case RFC3339:
		return t.UTC().Format(time.RFC3339)
	}
	return strconv.FormatInt(t.Unix(), 10)
}

// setField returns a JSON object with another member, where field finds it.
func setField(body []byte, path, text string) (json.RawMessage, error) {
	name, rest, nested := strings.Cut(path, ".")
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil || object == nil {
		return nil, errors.New("webhook: Outgoing.Body: must be a JSON object, and so must what the time is in")
	}
	value := json.RawMessage(text)
	if nested {
		inner, there := object[name]
		if !there {
			inner = json.RawMessage("{}")
		}
		var err error
		if value, err = setField(inner, rest, text); err != nil {
			return nil, err
		}
	}
	object[name] = value
	return json.Marshal(object)
}

func encodeSignature(sig []byte, e Encoding) string {
	switch e {
	case Hex:
		return hex.EncodeToString(sig)
	case Base64:
		return base64.StdEncoding.EncodeToString(sig)
	case Base64URL:
		return base64.RawURLEncoding.EncodeToString(sig)
	}
	return string(sig)
}

// sign signs message.
func (k Key) sign(a Algorithm, message []byte) ([]byte, error) {
	mac := func(h func() hash.Hash) ([]byte, error) {
		m := hmac.New(h, k.secret)
		m.Write(message)
		return m.Sum(nil), nil
	}
	switch a {
	case HMACSHA256:
		return mac(sha256.New)
	case HMACSHA512:
		return mac(sha512.New)
	case HMACSHA1Legacy:
		return mac(sha1.New)
	case SHA256Legacy:
		h := sha256.New()
		h.Write(k.secret)
		h.Write(message)
		return h.Sum(nil), nil
	case Token:
		return k.secret, nil
	case TokenSHA256:
		sum := sha256.Sum256(k.secret)
		return sum[:], nil
	}
	if k.signer == nil {
		return nil, errors.New("webhook: the scheme is signed with a private key, see PrivateKey")
	}
	if _, ok := k.public.(ed25519.PublicKey); ok {
		return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	h := a.hash().New()
	h.Write(message)
	var opts crypto.SignerOpts = a.hash()
	if a == RSAPSSSHA512 {
		opts = &rsa.PSSOptions{SaltLength: 64, Hash: crypto.SHA512}
	}
	sig, err := k.signer.Sign(rand.Reader, h.Sum(nil), opts)
	if err != nil || a != ECDSAP256SHA256Raw {
		return sig, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		return nil, err
	}
	if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, errors.New("webhook: the signer of the key has returned no ECDSA signature on P-256")
	}
	raw := make([]byte, 64)
	rs.R.FillBytes(raw[:32])
	rs.S.FillBytes(raw[32:])
	return raw, nil
}
