package webhook

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// CertSource has the keys of providers that name a certificate in each
// delivery: [AWSSNS] and [PayPal]. The address was checked against the
// provider's hosts before. It is called before anything about the delivery is
// known to be genuine, concurrently, and with the request's context. An error
// is answered with 503, so that the provider tries again.
type CertSource interface {
	PublicKey(ctx context.Context, address string) (crypto.PublicKey, error)
}

// certKey asks the source for the key at the address.
func certKey(m *Message, source CertSource, address string, allowed func(host string) bool) (Key, error) {
	if !certAddress(address, allowed) {
		return Key{}, ErrMalformed
	}
	pub, err := source.PublicKey(m.Context(), address)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKeySource, err)
	}
	return PublicKey(pub), nil
}

// certAddress reports whether address is of an allowed host: https, on its
// port, with nothing in it that two parsers could read in two ways.
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
	return err == nil && u.Scheme == "https" && u.User == nil && u.Fragment == "" && u.Opaque == "" &&
		u.Host == u.Hostname() && allowed(u.Host)
}

// snsHost is ^sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$
func snsHost(host string) bool {
	host, ok := strings.CutPrefix(host, "sns.")
	if !ok {
		return false
	}
	region, ok := strings.CutSuffix(strings.TrimSuffix(host, ".cn"), ".amazonaws.com")
	if !ok || region == "" {
		return false
	}
	for i := range len(region) {
		if c := region[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func payPalHost(host string) bool {
	return host == "api.paypal.com" || host == "api.sandbox.paypal.com"
}

// AWSSNS is Amazon SNS with SignatureVersion 2, which a topic must be set to.
// The certificates come from certs, for instance a [CertFetcher]; with nil, the
// keys in [Config.Keys] are used, and the address in the delivery is not
// looked at. The window of an hour is the kit's. Confirming a subscription is
// the handler's, which gets these messages as all others.
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
		Name: name, Algorithm: alg, Encoding: Base64, Tolerance: tolerance, NoKeys: certs != nil, EventField: "MessageId",
		Verify: func(m *Message) (Result, error) { return verifySNS(m, version, certs) },
		Sign:   func(o *Outgoing, k Key) error { return signSNS(o, k, version, alg) },
	}
}

// snsMessage has the fields that are signed or steer the verification. In
// JSON, the names are matched byte by byte: a second "message" is another field.
type snsMessage map[string]json.RawMessage

func (s snsMessage) text(name string) string {
	var t string
	if json.Unmarshal(s[name], &t) != nil {
		return ""
	}
	return t
}

func (s snsMessage) signed() ([]byte, bool) {
	names := []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	switch s.text("Type") {
	case "Notification":
		names = []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	case "SubscriptionConfirmation", "UnsubscribeConfirmation":
	default:
		return nil, false
	}
	var b []byte
	for _, name := range names {
		if _, there := s[name]; !there {
			if name == "Subject" {
				continue
			}
			return nil, false
		}
		b = append(append(append(append(b, name...), '\n'), s.text(name)...), '\n')
	}
	return b, true
}

func verifySNS(m *Message, version string, certs CertSource) (Result, error) {
	var s snsMessage
	if json.Unmarshal(m.Body, &s) != nil {
		return Result{}, ErrMalformed
	}
	if len(s["Signature"]) == 0 {
		return Result{}, ErrNoSignature
	}
	signed, ok := s.signed()
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
	key, err := certKey(m, certs, s.text("SigningCertURL"), snsHost)
	if err != nil {
		return Result{}, err
	}
	return res, m.MatchKey(key, signed, sig)
}

func signSNS(o *Outgoing, k Key, version string, alg Algorithm) error {
	var s snsMessage
	if json.Unmarshal(o.Body, &s) != nil || s == nil {
		return errors.New("webhook: Outgoing.Body: must be a JSON object")
	}
	for name, value := range map[string]string{
		"MessageId": o.ID, "Timestamp": o.Time.UTC().Format("2006-01-02T15:04:05.000Z"), "SignatureVersion": version,
	} {
		s[name], _ = json.Marshal(value)
	}
	signed, ok := s.signed()
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
// body. So a Store is required, in which each transmission is accepted once,
// and the event should be looked up with the API before anything depends on
// it.
//
// Implemented from the provider's description; no published example was at
// hand.
func PayPal(webhookID string, certs CertSource) Scheme {
	s := Scheme{
		Name: "paypal", Algorithm: RSASHA256, Encoding: Base64, Header: payPalSig, NoKeys: certs != nil, NeedsStore: true,
		EventField: "id", Strip: []string{payPalID, payPalTime, payPalCertURL, "Paypal-Auth-Algo"},
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
	key, err := certKey(m, certs, address, payPalHost)
	if err != nil {
		return Result{}, err
	}
	return res, m.MatchKey(key, res.Signed, sig)
}

// CertFetcherConfig configures a [CertFetcher].
type CertFetcherConfig struct {
	// Client makes the calls. Its timeout and its transport are used, its
	// CheckRedirect is not: redirects are not followed. Required.
	Client *http.Client

	// Roots are the authorities that may have issued a certificate. nil is
	// those of the system.
	Roots *x509.CertPool

	// Names are the names one of which a certificate must be for, such as
	// "sns.amazonaws.com" or "messageverificationcerts.paypal.com". Required.
	Names []string

	// Keep is how long a certificate is used before it is fetched again, at
	// most 30 days. It is never used beyond its own end. Zero is one hour.
	Keep time.Duration

	// Timeout bounds one call. Zero is 5 seconds.
	Timeout time.Duration
}

// CertFetcher is a [CertSource] that gets certificates from the addresses in
// the deliveries, and remembers up to 16 of them. It is safe for concurrent use;
// concurrent calls for one address make one call. A certificate is not longer
// than 64 KiB with its chain, and must be valid and issued by one of the Roots.
type CertFetcher struct {
	client *http.Client
	cfg    CertFetcherConfig

	mu    sync.Mutex
	certs map[string]*fetched
}

type fetched struct {
	ready chan struct{}
	key   crypto.PublicKey
	until time.Time
	err   error
}

const (
	maxCerts    = 16
	maxCertSize = 64 << 10
)

// NewCertFetcher returns a CertFetcher, or an error that names every problem in c.
func NewCertFetcher(c CertFetcherConfig) (*CertFetcher, error) {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("webhook: Client: is required (got nil)"))
	}
	if len(c.Names) == 0 {
		errs = append(errs, errors.New("webhook: Names: is required (got none)"))
	}
	if c.Keep < 0 || c.Keep > 30*24*time.Hour {
		errs = append(errs, fmt.Errorf("webhook: Keep: must be between 0 and 30 days (got %v)", c.Keep))
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("webhook: Timeout: must not be negative (got %v)", c.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Keep == 0 {
		c.Keep = time.Hour
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	c.Names = append([]string(nil), c.Names...)
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &CertFetcher{client: &client, cfg: c, certs: map[string]*fetched{}}, nil
}

// PublicKey implements [CertSource].
func (f *CertFetcher) PublicKey(ctx context.Context, address string) (crypto.PublicKey, error) {
	now := time.Now()
	f.mu.Lock()
	c := f.certs[address]
	if c != nil && isClosed(c.ready) && !now.Before(c.until) {
		c = nil
	}
	mine := c == nil
	if mine {
		c = &fetched{ready: make(chan struct{})}
		for key := range f.certs { // any one makes room; the true one is back soon
			if len(f.certs) < maxCerts {
				break
			}
			delete(f.certs, key)
		}
		f.certs[address] = c
	}
	f.mu.Unlock()
	if !mine {
		select {
		case <-c.ready:
			return c.key, c.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}

	// Others may be waiting for this, so it does not end with the request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Timeout)
	defer cancel()
	c.key, c.until, c.err = f.fetch(ctx, address)
	if c.err != nil {
		c.until = now.Add(time.Second) // a flood of deliveries is no flood of calls
	}
	close(c.ready)
	return c.key, c.err
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (f *CertFetcher) fetch(ctx context.Context, address string) (crypto.PublicKey, time.Time, error) {
	none := time.Time{}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, none, err
	}
	res, err := f.client.Do(r)
	if err != nil {
		return nil, none, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, none, fmt.Errorf("webhook: the certificate's server answered %d", res.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxCertSize+1))
	if err != nil {
		return nil, none, err
	}
	if len(text) > maxCertSize {
		return nil, none, errors.New("webhook: the certificate is too large")
	}
	var leaf *x509.Certificate
	chain := x509.NewCertPool()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, none, err
		}
		if leaf == nil {
			leaf = cert
		} else {
			chain.AddCert(cert)
		}
	}
	if leaf == nil {
		return nil, none, errors.New("webhook: the server sent no certificate")
	}
	now := time.Now()
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: f.cfg.Roots, Intermediates: chain, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return nil, none, err
	}
	named := false
	for _, name := range f.cfg.Names {
		named = named || leaf.VerifyHostname(name) == nil
	}
	if !named {
		return nil, none, errors.New("webhook: the certificate is for another name")
	}
	until := now.Add(f.cfg.Keep)
	if leaf.NotAfter.Before(until) {
		until = leaf.NotAfter
	}
	return leaf.PublicKey, until, nil
}
