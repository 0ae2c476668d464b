package webhook

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// CertFetcherConfig configures a [CertFetcher].
type CertFetcherConfig struct {
	// Client makes the calls. Its timeout and its transport are used, its
	// CheckRedirect is not: redirects are not followed. Required.
	Client *http.Client

	// Roots are the authorities that may have issued a certificate. nil is
	// those of the system.
	Roots *x509.CertPool

	// Names are the names one of which a certificate must be for. Required.
	// That of PayPal is "messageverificationcerts.paypal.com". That of Amazon
	// SNS depends on the region (SnsHostProvider in aws/aws-sdk-java-v2):
	// "sns.amazonaws.com" for the older ones,
	// "sns-signing.<region>.amazonaws.com" for the newer ones,
	// "sns-us-gov-west-1.amazonaws.com" for GovCloud, and
	// "sns-<region>.amazonaws.com.cn" in China.
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
//
// Addresses come from deliveries of which nothing is known yet. So no more than
// four calls are made at a time, further addresses are answered with
// [ErrKeySource] meanwhile, and one that brought no certificate never takes the
// place of one that did.
type CertFetcher struct {
	client *http.Client
	cfg    CertFetcherConfig

	mu    sync.Mutex
	calls int
	certs map[string]*fetched
}

type fetched struct {
	ready chan struct{} // closed when the rest is there
	key   crypto.PublicKey
	until time.Time
	err   error
}

const (
	maxCerts     = 16
	maxCertCalls = 4
	maxCertSize  = 64 << 10
)

var (
	errManyCerts = errors.New("webhook: too many certificates are being fetched")
	errNoCert    = errors.New("webhook: fetching the certificate has panicked")
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
	for i, name := range c.Names {
		if name == "" {
			errs = append(errs, fmt.Errorf("webhook: Names[%d]: is empty, and no certificate is for that (got %q)", i, name))
		}
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
	c.Names = slices.Clone(c.Names)
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &CertFetcher{client: &client, cfg: c, certs: map[string]*fetched{}}, nil
}

// PublicKey implements [CertSource].
func (f *CertFetcher) PublicKey(ctx context.Context, address string) (crypto.PublicKey, error) {
	f.mu.Lock()
	c := f.certs[address]
	if c == nil || c.over(time.Now()) {
		if f.calls == maxCertCalls {
			f.mu.Unlock()
			return nil, errManyCerts
		}
		f.calls++
		f.sweep(time.Now())
		c = &fetched{ready: make(chan struct{}), err: errNoCert}
		f.certs[address] = c
		f.mu.Unlock()
		f.call(ctx, c, address)
		return c.key, c.err
	}
	f.mu.Unlock()
	select {
	case <-c.ready:
		return c.key, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// over reports whether c is ready and not to be used any more.
func (c *fetched) over(now time.Time) bool {
	select {
	case <-c.ready:
		return !now.Before(c.until)
	default:
		return false
	}
}

// sweep forgets those that failed or are over, once there are many. What stays
// are at most maxCerts certificates, and the calls under way.
func (f *CertFetcher) sweep(now time.Time) {
	if len(f.certs) < maxCerts {
		return
	}
	for address, c := range f.certs {
		select {
		case <-c.ready:
			if c.err != nil || !now.Before(c.until) {
				delete(f.certs, address)
			}
		default:
		}
	}
}

// makeRoom makes room for a certificate that was fetched.
func (f *CertFetcher) makeRoom() {
	var other string
	certs := 0
	for address, c := range f.certs {
		select {
		case <-c.ready:
			if c.err == nil {
				certs++
				other = address
			}
		default:
		}
	}
	if certs == maxCerts {
		delete(f.certs, other)
	}
}

// call fetches c. Others may be waiting for it, so it does not end with the
// request.
func (f *CertFetcher) call(ctx context.Context, c *fetched, address string) {
	defer func() {
		if c.err != nil {
			c.until = time.Now().Add(time.Second) // a flood of deliveries is no flood of calls
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls--
		if c.err == nil {
			f.makeRoom()
		}
		close(c.ready)
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Timeout)
	defer cancel()
	c.key, c.until, c.err = f.fetch(ctx, address)
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
