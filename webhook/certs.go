package webhook

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// CertSource has the keys of providers that name a certificate in each
// delivery: [AWSSNS] and [PayPal]. The address was checked against the
// provider's hosts before. It is called before anything about the delivery is
// known to be genuine, concurrently, and with the request's context. An error
// is answered with 503, so that the provider tries again; [Config.OnReject] gets
// it, so the address, which may be from the body, should not be in its text.
type CertSource interface {
	PublicKey(ctx context.Context, address string) (crypto.PublicKey, error)
}

// certKey asks the source for the key at the address.
func certKey(m *Message, source CertSource, address string, allowed func(address string) bool) (Key, error) {
	if !allowed(address) {
		return Key{}, ErrMalformed
	}
	pub, err := source.PublicKey(m.Context(), address)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the address, which http.Client puts before it
		}
		return Key{}, fmt.Errorf("%w: %w", ErrKeySource, err)
	}
	return PublicKey(pub), nil
}

// certAddress reports whether address is of an allowed host: https, on its
// port, with nothing in it that two parsers could read in two ways, and with a
// path that is the one way to write it. A stranger could otherwise make any
// number of addresses of one certificate, for each of which there is a call.
func certAddress(address string, allowed func(host string) bool) bool {
	if len(address) > 512 {
		return false
	}
	for i := range len(address) {
		if address[i] <= ' ' || address[i] >= 0x7f || address[i] == '\\' {
			return false
		}
	}
	u, err := url.Parse(address)
	return err == nil && strings.HasPrefix(address, "https://") && u.User == nil && u.Fragment == "" && u.Opaque == "" &&
		u.Host == u.Hostname() && allowed(u.Host) && plainPath(address[len("https://"+u.Host):])
}

// plainPath reports whether s is one or more segments, each of a slash, a letter
// or digit, and more of them, hyphens, dots and underscores.
func plainPath(s string) bool {
	begins := false // a segment
	for i := range len(s) {
		c := s[i]
		switch letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'; {
		case letter:
			begins = false
			if i == 0 {
				return false
			}
		case begins || i == 0 && c != '/':
			return false
		case c == '/':
			begins = true
		case c != '-' && c != '.' && c != '_':
			return false
		}
	}
	return s != "" && !begins
}

// snsAddress reports whether an address is that of a certificate of Amazon SNS,
// by the rule of Amazon's own validators (MessageValidator of
// aws/aws-php-sns-message-validator, and that of aws/aws-js-sns-message-validator):
// https, a path that ends with .pem, and the host sns.<region>.amazonaws.com, in
// China with .cn. Theirs takes all that could be a label for a region. Here it
// has to look like one, us-gov-west-1 for instance: sns.s3-us-west-2.amazonaws.com
// would be a bucket.
func snsAddress(address string) bool {
	return certAddress(address, snsHost) && strings.HasSuffix(address, ".pem")
}

func snsHost(host string) bool {
	host, ok := strings.CutPrefix(host, "sns.")
	if !ok {
		return false
	}
	region, ok := strings.CutSuffix(strings.TrimSuffix(host, ".cn"), ".amazonaws.com")
	words := strings.Split(region, "-")
	if !ok || len(words) < 3 {
		return false
	}
	last := len(words) - 1
	for i, word := range words {
		in := func(c rune) bool { return c >= 'a' && c <= 'z' }
		if i == last {
			in = func(c rune) bool { return c >= '0' && c <= '9' }
		}
		if word == "" || strings.ContainsFunc(word, func(c rune) bool { return !in(c) }) {
			return false
		}
	}
	return true
}

// payPalAddress reports whether an address is on one of the hosts that PayPal's
// deliveries name, https://api.paypal.com/v1/notifications/certs/… and the same of
// the sandbox: sample/notifications in paypal/PayPal-PHP-SDK.
func payPalAddress(address string) bool { return certAddress(address, payPalHost) }

func payPalHost(host string) bool {
	return host == "api.paypal.com" || host == "api.sandbox.paypal.com"
}

// AWSSNS is Amazon SNS with SignatureVersion 2, which a topic must be set to.
// The certificates come from certs, for instance a [CertFetcher]; with nil, the
// keys in [Config.Keys] are used, and the address in the delivery is not
// looked at. The window of an hour is the kit's. Confirming a subscription is
// the handler's, which gets these messages as all others, and so is a look at
// TopicArn: the certificate is the same for the topics of all customers.
//
// Signed are Message, MessageId, Timestamp, TopicArn and Type, of notifications
// Subject and of confirmations SubscribeURL and Token, and nothing else: not
// MessageAttributes, not UnsubscribeURL. A message with one of them that its
// type does not sign is refused.
//
// Implemented from the provider's description; no published example was at
// hand.
func AWSSNS(certs CertSource) Scheme {
	return sns("aws-sns", "2", RSASHA256, time.Hour, certs)
}

// AWSSNSLegacy is Amazon SNS with SignatureVersion 1, which is RSA with SHA-1
// and the default of a topic. It has no window.
func AWSSNSLegacy(certs CertSource) Scheme {
	return sns("aws-sns-v1", "1", RSASHA1Legacy, 0, certs)
}

func sns(name, version string, alg Algorithm, tolerance time.Duration, certs CertSource) Scheme {
	return Scheme{
		Name: name, Algorithm: alg, Encoding: Base64, TimeFormat: RFC3339, Tolerance: tolerance,
		NoKeys: certs != nil, EventField: "MessageId",
		Verify: func(m *Message) (Result, error) { return verifySNS(m, version, certs) },
		Sign:   func(o *Outgoing, k Key) error { return signSNS(o, k, version, alg) },
	}
}

// snsMessage reads a message of SNS.
func snsMessage(body []byte) (members, bool) {
	return object(body, "Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
		"Signature", "SignatureVersion", "SigningCertURL")
}

// snsSigned returns what the signature of a message covers.
func snsSigned(s members) ([]byte, bool) {
	kind := s.text("Type")
	confirms := kind == "SubscriptionConfirmation" || kind == "UnsubscribeConfirmation"
	if !confirms && kind != "Notification" {
		return nil, false
	}
	var b []byte
	for _, name := range []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"} {
		raw, there := s[name]
		there = there && string(raw) != "null"
		covered, optional := true, false // in messages of this type
		switch name {
		case "Subject":
			covered, optional = !confirms, true
		case "SubscribeURL", "Token":
			covered = confirms
		}
		if !there && (optional || !covered) {
			continue
		}
		// What is no string would be signed like an empty one.
		if !there || !covered || raw[0] != '"' {
			return nil, false
		}
		b = append(append(append(append(b, name...), '\n'), s.text(name)...), '\n')
	}
	return b, true
}

func verifySNS(m *Message, version string, certs CertSource) (Result, error) {
	s, ok := snsMessage(m.Body)
	if !ok {
		return Result{}, ErrMalformed
	}
	if len(s["Signature"]) == 0 {
		return Result{}, ErrNoSignature
	}
	signed, ok := snsSigned(s)
	if !ok || s.text("SignatureVersion") != version {
		return Result{}, ErrMalformed
	}
	sig, err := m.Decode(s.text("Signature"), Base64)
	if err != nil {
		return Result{}, err
	}
	at, err := m.Time(s.text("Timestamp"), RFC3339)
	if err != nil {
		return Result{}, err
	}
	res := Result{ID: s.text("MessageId"), Time: at, Signed: signed}
	if certs == nil {
		res.Key, err = m.Match(signed, sig)
		return res, err
	}
	key, err := certKey(m, certs, s.text("SigningCertURL"), snsAddress)
	if err != nil {
		return Result{}, err
	}
	return res, m.MatchKey(key, signed, sig)
}

func signSNS(o *Outgoing, k Key, version string, alg Algorithm) error {
	s, ok := snsMessage(o.Body)
	if !ok {
		return errors.New("webhook: Outgoing.Body: must be a JSON object of at most 256 members")
	}
	for name, value := range map[string]string{
		"MessageId": o.ID, "Timestamp": o.Time.UTC().Format("2006-01-02T15:04:05.000Z"), "SignatureVersion": version,
	} {
		s[name], _ = json.Marshal(value)
	}
	signed, ok := snsSigned(s)
	if !ok {
		return errors.New("webhook: Outgoing.Body: must have the fields of an SNS message")
	}
	sig, err := k.sign(alg, signed)
	if err != nil {
		return err
	}
	s["Signature"], _ = json.Marshal(base64.StdEncoding.EncodeToString(sig))
	o.Body, err = json.Marshal(s)
	return err
}

const (
	payPalID      = "Paypal-Transmission-Id"
	payPalTime    = "Paypal-Transmission-Time"
	payPalSig     = "Paypal-Transmission-Sig"
	payPalCertURL = "Paypal-Cert-Url"
)

// PayPal is PayPal, with the ID of the webhook from its dashboard. The
// certificates come from certs as for [AWSSNS].
//
// The signature covers a CRC-32 of the body, for which anyone can find another
// body. So a Store is required, in which each transmission is accepted once
// and, by the window of [Config.Tolerance], never after the store has forgotten
// it; and the event should be looked up with the API before anything depends
// on it. PayPal tries for three days. Certificates are for a name that begins
// with messageverificationcerts and ends with .paypal.com (SSLUtil in
// paypal/PayPal-Java-SDK).
//
// Implemented from the provider's description; no published example was at
// hand.
func PayPal(webhookID string, certs CertSource) Scheme {
	s := Scheme{
		Name: "paypal", Algorithm: RSASHA256, Encoding: Base64, Header: payPalSig, TimeFormat: RFC3339,
		NoKeys: certs != nil, NeedsStore: true, EventField: "id", Strip: []string{payPalID, payPalTime, payPalCertURL, "Paypal-Auth-Algo"},
	}
	if webhookID == "" {
		s.err = errors.New(`webhook: PayPal: webhookID: is required (got "")`)
	}
	s.Verify = func(m *Message) (Result, error) { return verifyPayPal(m, webhookID, certs) }
	s.Sign = func(o *Outgoing, k Key) error {
		at := o.Time.UTC().Format(time.RFC3339)
		sig, err := k.sign(RSASHA256, payPalSigned(o.ID, at, webhookID, o.Body))
		if err != nil {
			return err
		}
		o.Header.Set(payPalID, o.ID)
		o.Header.Set(payPalTime, at)
		o.Header.Set(payPalSig, base64.StdEncoding.EncodeToString(sig))
		return nil
	}
	return s
}

func payPalSigned(id, at, webhookID string, body []byte) []byte {
	return []byte(id + "|" + at + "|" + webhookID + "|" + strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
}

func verifyPayPal(m *Message, webhookID string, certs CertSource) (Result, error) {
	text, err := m.Value(payPalSig)
	if err != nil {
		return Result{}, err
	}
	id, err1 := m.Value(payPalID)
	stamp, err2 := m.Value(payPalTime)
	if err1 != nil || err2 != nil || strings.Contains(id, "|") {
		return Result{}, ErrMalformed
	}
	sig, err := m.Decode(text, Base64)
	if err != nil {
		return Result{}, err
	}
	at, err := m.Time(stamp, RFC3339)
	if err != nil {
		return Result{}, err
	}
	res := Result{ID: id, Time: at, Signed: payPalSigned(id, stamp, webhookID, m.Body)}
	if certs == nil {
		res.Key, err = m.Match(res.Signed, sig)
		return res, err
	}
	address, err := m.Value(payPalCertURL)
	if err != nil {
		return Result{}, ErrMalformed
	}
	key, err := certKey(m, certs, address, payPalAddress)
	if err != nil {
		return Result{}, err
	}
	return res, m.MatchKey(key, res.Signed, sig)
}
