package webhook

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RFC9421Config is the profile of HTTP Message Signatures that a sender and a
// receiver have agreed on: what must be signed, and how. The RFC leaves both
// open.
type RFC9421Config struct {
	// Algorithm is HMACSHA256, Ed25519, ECDSAP256SHA256Raw, RSAPSSSHA512 or
	// RSASHA256. A signature that names another in its alg parameter is
	// refused. Required.
	Algorithm Algorithm

	// Components must be covered by the signature: names of header fields, and
	// of @method, @authority, @scheme, @target-uri, @request-target, @path and
	// @query. More may be. nil is @method, @target-uri and content-digest.
	Components []string

	// Label is the name of the signature: lower-case letters, digits, "_", "-",
	// "." and "*", of which the first is a letter or "*". "" takes the only one
	// there is.
	Label string

	// Tag is the tag parameter that the signature must have: printable ASCII
	// without quotes and backslashes. "" is any.
	Tag string

	// Tolerance is how far the created parameter may be from now, at most 366
	// days. Zero is 5 minutes. A signature without it is refused; one with an expires
	// parameter is refused from then on, too.
	Tolerance time.Duration

	// InsecureUnsignedBody accepts a signature that covers no Content-Digest
	// although there is a body. Then whoever has seen one delivery can send
	// another body with it.
	InsecureUnsignedBody bool
}

// RFC9421 is HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530).
// Components with parameters (sf, key, bs, req, tr, name) are not known and
// are refused. The address of the request is [Config.URL]'s, not the Host
// field's.
func RFC9421(c RFC9421Config) Scheme {
	s := Scheme{
		Name: "rfc9421", Algorithm: c.Algorithm, Encoding: Base64, Header: "Signature", TimeFormat: UnixSeconds, NeedsURL: true,
		Methods: []string{"POST", "PUT", "PATCH", "DELETE", "GET"},
		Strip:   []string{"Signature-Input"}, Tolerance: c.Tolerance, MinSecret: 16,
	}
	if s.Tolerance == 0 {
		s.Tolerance = 5 * time.Minute
	}
	p := &profile{cfg: c, alg: map[Algorithm]string{
		HMACSHA256: "hmac-sha256", Ed25519: "ed25519", ECDSAP256SHA256Raw: "ecdsa-p256-sha256",
		RSAPSSSHA512: "rsa-pss-sha512", RSASHA256: "rsa-v1_5-sha256",
	}[c.Algorithm]}
	if c.Components == nil {
		p.cfg.Components = []string{"@method", "@target-uri", "content-digest"}
	}
	p.cfg.Components = slices.Clone(p.cfg.Components)
	if p.alg == "" {
		s.err = fmt.Errorf("webhook: RFC9421Config.Algorithm: is none of RFC 9421 (got %d)", c.Algorithm)
	}
	bad := func(field, what, got string) {
		s.err = errors.Join(s.err, fmt.Errorf("webhook: RFC9421Config.%s: %s (got %q)", field, what, got))
	}
	if c.Label != "" && !isKey(c.Label) {
		bad("Label", "is not a key of a dictionary", c.Label)
	}
	if strings.ContainsFunc(c.Tag, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		bad("Tag", "must be printable ASCII without quotes and backslashes", c.Tag)
	}
	for i, name := range p.cfg.Components {
		name = strings.ToLower(name)
		if slices.Contains(p.cfg.Components[:i], name) {
			bad("Components", "is there twice", name)
		}
		p.cfg.Components[i] = name
		if strings.HasPrefix(name, "@") && !slices.Contains(derived, name) || name == "" || !isToken(strings.TrimPrefix(name, "@")) {
			bad("Components", "is not a known component", name)
		}
	}
	s.Verify, s.Sign = p.verify, p.sign
	return s
}

var derived = []string{"@method", "@authority", "@scheme", "@target-uri", "@request-target", "@path", "@query"}

type profile struct {
	cfg RFC9421Config
	alg string // as the alg parameter calls it
}

func (p *profile) verify(m *Message) (Result, error) {
	text, err := m.Value("Signature")
	if err != nil {
		return Result{}, err
	}
	inputText, err := m.Value("Signature-Input")
	if err != nil {
		return Result{}, err
	}
	inputs, ok := parseDictionary(inputText)
	signatures, ok2 := parseDictionary(text)
	if !ok || !ok2 {
		return Result{}, ErrMalformed
	}
	label := p.cfg.Label
	if label == "" {
		if len(inputs) != 1 {
			return Result{}, ErrMalformed
		}
		label = inputs[0].key
	}
	input, sig := find(inputs, label), find(signatures, label)
	if input == nil || sig == nil {
		return Result{}, ErrNoSignature
	}
	if !input.list || sig.list || sig.item.kind != 'b' || len(input.items) > 64 {
		return Result{}, ErrMalformed
	}
	if n := m.alg.size(); n != 0 && len(sig.item.bytes) != n || len(sig.item.bytes) > maxSignature {
		return Result{}, ErrMalformed
	}

	res, err := p.params(m, input.params)
	if err != nil {
		return Result{}, err
	}
	var names []string
	for _, c := range input.items {
		if c.kind != 's' || len(c.params) > 0 || slices.Contains(names, c.text) {
			return Result{}, ErrMalformed
		}
		names = append(names, c.text)
	}
	for _, name := range p.cfg.Components {
		if !slices.Contains(names, name) {
			return Result{}, ErrMalformed
		}
	}
	digested := slices.Contains(names, "content-digest")
	if len(m.Body) > 0 && !digested && !p.cfg.InsecureUnsignedBody {
		return Result{}, ErrMalformed
	}
	base, err := signatureBase(names, input.raw, m.Method, m.URL, m.Header)
	if err != nil {
		return Result{}, err
	}
	if res.Key, err = m.Match(base, sig.item.bytes); err != nil {
		return Result{}, err
	}
	if digested && !digestMatches(m.Header, m.Body) {
		return Result{}, ErrMismatch
	}
	res.Signed = base
	return res, nil
}

// params judges the parameters of a signature (RFC 9421 section 2.3).
func (p *profile) params(m *Message, params []member) (res Result, err error) {
	seen := map[string]bool{}
	for _, param := range params {
		if seen[param.key] {
			return res, ErrMalformed
		}
		seen[param.key] = true
		want := byte('s')
		if param.key == "created" || param.key == "expires" {
			want = 'i'
		}
		if param.item.kind != want {
			return res, ErrMalformed
		}
		switch text := param.item.text; param.key {
		case "created":
			if res.Time, err = m.Time(text, UnixSeconds); err != nil {
				return res, err
			}
		case "expires":
			t, err := parseTime(text, UnixSeconds)
			if err != nil {
				return res, err
			}
			if !m.Now().Before(t) {
				return res, ErrTooOld
			}
		case "alg":
			if text != p.alg {
				return res, ErrMalformed
			}
		case "tag":
			if p.cfg.Tag != "" && text != p.cfg.Tag {
				return res, ErrMalformed
			}
		case "nonce":
			res.ID = text
		case "keyid":
		default:
			return res, ErrMalformed
		}
	}
	if !seen["created"] || p.cfg.Tag != "" && !seen["tag"] {
		return res, ErrMalformed
	}
	return res, nil
}

// signatureBase is RFC 9421 section 2.5.
func signatureBase(names []string, params, method, address string, h http.Header) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, ErrMalformed
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b []byte
	for _, name := range names {
		b = append(append(append(b, '"'), name...), `": `...)
		switch name {
		case "@method":
			b = append(b, method...)
		case "@authority":
			b = append(b, authority(u)...)
		case "@scheme":
			b = append(b, u.Scheme...)
		case "@target-uri":
			b = append(b, address...)
		case "@request-target":
			b = append(b, u.RequestURI()...)
		case "@path":
			b = append(b, path...)
		case "@query":
			b = append(append(b, '?'), u.RawQuery...)
		default:
			lines := h[http.CanonicalHeaderKey(name)]
			if len(lines) == 0 || !isToken(name) || name != strings.ToLower(name) {
				return nil, ErrMalformed
			}
			for i, line := range lines {
				if i > 0 {
					b = append(b, ", "...)
				}
				if strings.ContainsAny(line, "\r\n") {
					return nil, ErrMalformed
				}
				b = append(b, trimSpaces(line)...)
			}
		}
		b = append(b, '\n')
	}
	return append(append(b, `"@signature-params": `...), params...), nil
}

// authority is RFC 9421 section 2.2.3: in lower case, without the default port.
func authority(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// digestMatches checks a Content-Digest (RFC 9530). All digests that are known
// must be right, and one must be known.
func digestMatches(h http.Header, body []byte) bool {
	lines := h["Content-Digest"]
	if len(lines) != 1 {
		return false
	}
	members, ok := parseDictionary(lines[0])
	known := 0
	for _, d := range members {
		var want []byte
		switch d.key {
		case "sha-256":
			sum := sha256.Sum256(body)
			want = sum[:]
		case "sha-512":
			sum := sha512.Sum512(body)
			want = sum[:]
		default:
			continue
		}
		known++
		if d.list || d.item.kind != 'b' || subtle.ConstantTimeCompare(d.item.bytes, want) != 1 {
			return false
		}
	}
	return ok && known > 0
}

// sign makes a signature over the required components, and a Content-Digest
// where there is none.
func (p *profile) sign(o *Outgoing, k Key) error {
	names := slices.Clone(p.cfg.Components)
	if len(o.Body) > 0 && !slices.Contains(names, "content-digest") && !p.cfg.InsecureUnsignedBody {
		names = append(names, "content-digest")
	}
	if slices.Contains(names, "content-digest") {
		sum := sha256.Sum256(o.Body)
		o.Header.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	}
	label := p.cfg.Label
	if label == "" {
		label = "sig1"
	}
	var b strings.Builder
	for i, name := range names {
		b.WriteString([]string{"(", " "}[min(i, 1)])
		b.WriteString(`"` + name + `"`)
	}
	if len(names) == 0 {
		b.WriteString("(")
	}
	b.WriteString(");created=" + strconv.FormatInt(o.Time.Unix(), 10))
	b.WriteString(`;nonce="` + o.ID + `";alg="` + p.alg + `"`)
	if p.cfg.Tag != "" {
		b.WriteString(`;tag="` + p.cfg.Tag + `"`)
	}
	base, err := signatureBase(names, b.String(), o.Method, o.URL, o.Header)
	if err != nil {
		return errors.New("webhook: a component of the signature is not in the request")
	}
	sig, err := k.sign(p.cfg.Algorithm, base)
	if err != nil {
		return err
	}
	o.Header.Set("Signature-Input", label+"="+b.String())
	o.Header.Set("Signature", label+"=:"+base64.StdEncoding.EncodeToString(sig)+":")
	return nil
}
