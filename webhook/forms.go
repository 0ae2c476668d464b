package webhook

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Twilio is Twilio, with the auth token. It signs the URL with HMAC-SHA1, and
// with it either the fields of a form or, through the parameter bodySHA256,
// any other body. An address with and without its port are both tried, since
// Twilio drops it for some calls.
//
// Names and values of the fields follow each other, and the URL, without a
// separator. So whoever has seen one delivery can send it with letters moved
// from a value to the next name, with the first fields in the query, or with the
// end of the query in the first field. For a Store it is the same delivery. A
// GET, which has no fields, is refused with a body.
func Twilio() Scheme {
	return Scheme{
		Name: "twilio", Algorithm: HMACSHA1Legacy, Encoding: Base64, Header: "X-Twilio-Signature",
		NeedsURL: true, Methods: []string{http.MethodPost, http.MethodGet},
		Verify: verifyTwilio, Sign: signTwilio,
	}
}

func verifyTwilio(m *Message) (Result, error) {
	text, err := m.Value("X-Twilio-Signature")
	if err != nil {
		return Result{}, err
	}
	sig, err := m.Decode(text, Base64)
	if err != nil {
		return Result{}, err
	}
	fields, err := twilioFields(m.Method, m.Header, m.Body, m.query)
	if err != nil {
		return Result{}, err
	}
	// Every form is tried, so that the time does not tell which was right.
	key, err := 0, ErrMismatch
	var signed []byte
	for _, address := range twilioURLs(m.URL) {
		data := append([]byte(address), fields...)
		if k, e := m.Match(data, sig); e == nil && err != nil {
			key, err = k, nil
		}
		if signed == nil {
			signed = data // of one delivery the same, whichever form it was
		}
	}
	return Result{Key: key, Signed: signed}, err
}

// twilioFields returns what is signed after the URL.
func twilioFields(method string, h http.Header, body []byte, query string) (string, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return "", ErrMalformed
	}
	if sums, ok := q["bodySHA256"]; ok {
		sum := sha256.Sum256(body)
		if len(sums) != 1 || !strings.EqualFold(sums[0], hex.EncodeToString(sum[:])) {
			return "", ErrMismatch
		}
		return "", nil
	}
	if len(body) == 0 {
		return "", nil
	}
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if kind != "application/x-www-form-urlencoded" || len(h["Content-Type"]) != 1 || method != http.MethodPost {
		return "", ErrMismatch // a body that nothing signs
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", ErrMalformed
	}
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		list := form[name]
		slices.Sort(list)
		for _, value := range slices.Compact(list) {
			b.WriteString(name)
			b.WriteString(value)
		}
	}
	return b.String(), nil
}

// twilioURLs returns the address without and with its port, in this order.
func twilioURLs(address string) [2]string {
	scheme, rest, _ := strings.Cut(address, "://")
	host, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	port := ":443"
	if scheme == "http" {
		port = ":80"
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') { // not of an IPv6 address
		host, port = host[:i], host[i:]
	}
	return [2]string{scheme + "://" + host + path, scheme + "://" + host + port + path}
}

func signTwilio(o *Outgoing, k Key) error {
	_, query, _ := strings.Cut(o.URL, "?")
	fields, err := twilioFields(o.Method, o.Header, o.Body, query)
	switch {
	case err == ErrMalformed:
		return errors.New("webhook: Outgoing.URL, Outgoing.Body: the query, or the form, has a wrong percent-encoding or a semicolon")
	case err != nil:
		return errors.New("webhook: Outgoing.Body: must be a form that is a POST and has its Content-Type, or Outgoing.URL must have the body's hash as bodySHA256, once")
	}
	sig, err := k.sign(HMACSHA1Legacy, []byte(o.URL+fields))
	if err != nil {
		return err
	}
	o.Header.Set("X-Twilio-Signature", base64.StdEncoding.EncodeToString(sig))
	return nil
}

// hubSpotURL decodes the twelve percent-encodings that HubSpot leaves out of
// what it signs, and no other.
func hubSpotURL(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil && strings.IndexByte(":/?@!$'()*,;", c[0]) >= 0 {
				b = append(b, c[0])
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
