package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/plainware/store"
)

// Config configures a [Verifier].
//
// Functions are called from the goroutine that serves the request and must be
// safe for concurrent use.
type Config struct {
	// Scheme is how the provider signs: a preset such as [GitHub], or one of
	// your own. Required.
	Scheme Scheme

	// Keys are the keys of the provider, 1 to 16. Several are for a rotation:
	// put the new one beside the old, and remove the old when
	// [Delivery.KeyIndex] no longer says that it is used. Required, except for
	// schemes with a [CertSource].
	Keys []Key

	// URL is the address at which the provider calls, as it was given to the
	// provider, without a query: required by schemes that sign it, which are
	// Twilio, Square, HubSpot v2 and v3, MessageBird and RFC 9421. If it ends
	// with the host, or with the slash after it, the path of the request is added
	// as the client sent it; otherwise its own path is used, for proxies that
	// change paths. One that makes another path of / alone cannot be described:
	// give the request its / back outside of Handler. The query is the request's.
	// Host and X-Forwarded fields are never read, since whoever sends them could
	// choose the address that was signed.
	URL string

	// Tolerance replaces that of the scheme: how far the signed time may be
	// from now, in either direction. Zero is the scheme's. Where the scheme has
	// none and needs a Store (Mailgun, PayPal), zero is half of Keep: what the
	// store has forgotten is too old then. It needs a scheme with a signed time.
	Tolerance time.Duration

	// MaxBody is the longest body in bytes, at most 1 GiB; a longer one is
	// answered with 413. Zero is 1 MiB. Bodies are held in memory, so there is
	// no "none".
	MaxBody int64

	// Store makes Handler let each delivery through once, and Name is what
	// this endpoint is called there: 1 to 64 letters, digits, ".", "_" and
	// "-". Verifiers with one Store and Name share what they have seen. The
	// store must be one that [store.Keep] accepts. nil is no replay guard.
	//
	// Where a provider says in a header field alone what kind of event it is,
	// which is not signed, two events of different kinds with the same body are
	// one delivery, and the second is not handled. Give each kind an address
	// and a Verifier with a Name of its own then.
	//
	// The store is asked with the request's context and without a time limit of
	// its own: while it hangs, deliveries wait for as long as the client
	// does, so put a timeout outside. What is told to it after the handler ends
	// after 5 seconds at the latest.
	Store store.Store
	Name  string

	// Lease is how long a delivery belongs to the handler that runs, between
	// 1 second and 1 hour: for so long its repetition gets 409, and after
	// that, if the process died, it is handled again. It must be longer than
	// the handler can take. Zero is one minute.
	Lease time.Duration

	// Keep is how long a finished delivery is remembered, at most a year.
	// Zero is 24 hours, or twice the tolerance if that is longer, 8 days for
	// Mailgun and PayPal (see Tolerance), and 72 hours for schemes without a
	// window: their deliveries can be replayed afterwards.
	Keep time.Duration

	// Key returns what makes two deliveries the same, instead of
	// [Delivery.ReplayKey]. Use nothing that is not signed. "" stands for
	// ReplayKey: some deliveries have no event ID. nil is always ReplayKey.
	//
	// Most providers that sign a time sign each attempt anew, which makes it
	// another delivery. To handle an event once all the same, return its ID,
	// unless the scheme's signature does not protect the body (Mailgun, PayPal,
	// and those with a token):
	//
	//	Key: func(d *webhook.Delivery) string { id, _ := d.EventID(); return id },
	Key func(*Delivery) string

	// PassChallenges gives the provider's tests of the endpoint to the handler,
	// once verified, and refuses those that are not signed. Otherwise they
	// are answered here.
	PassChallenges bool

	// StripHeaders removes the header fields of the signature, and some in
	// which providers have leaked secrets, before the handler.
	StripHeaders bool

	// OnReject is called for each request that Handler does not pass on, apart
	// from tests of the endpoint that it answers: with [ErrDuplicate] for one
	// that is answered with 200. The error has no secret in it, no signature,
	// and nothing of the body; that of a [CertSource] may name the provider's
	// host. nil is none.
	OnReject func(*http.Request, error)

	// ErrorHandler answers requests that are refused. nil is [WriteError], and
	// for [Xero] the status alone.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger gets failures of the store after the handler, when the answer
	// has been given. nil discards them.
	Logger *slog.Logger
}

const (
	defaultMaxBody = 1 << 20
	mostMaxBody    = 1 << 30
	maxKeys        = 16
	maxTolerance   = 366 * 24 * time.Hour
)

// Verifier verifies deliveries of one scheme. It is safe for concurrent use.
type Verifier struct {
	scheme    *compiled
	ring      *keyring
	origin    string // of Config.URL
	path      string // of Config.URL, "" and "/" for that of the request
	tolerance time.Duration
	maxBody   int64
	guard     *guard // nil without a store
	methods   string // for Allow
	probes    bool
	cfg       Config
	now       func() time.Time
}

// New returns a Verifier, or an error that names every problem in c.
func New(c Config) (*Verifier, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("webhook: "+format, args...)) }

	s, err := c.Scheme.compile()
	if err != nil {
		errs = append(errs, err)
	}
	keys := slices.Clone(c.Keys)
	switch {
	case len(keys) == 0 && !s.NoKeys:
		bad("Keys: is required (got none)")
	case len(keys) > 0 && s.NoKeys:
		bad("Keys: must be empty, the scheme has its own (got %d)", len(keys))
	case len(keys) > maxKeys:
		bad("Keys: must be at most %d (got %d)", maxKeys, len(keys))
	}
	for i, k := range keys {
		if err := s.check(k, s.MinSecret); err != nil {
			bad("Keys[%d]: %w", i, err)
		} else if s.Algorithm == Token && len(k.secret) > maxSignature {
			bad("Keys[%d]: must be a token of at most %d bytes, of which none longer is read (got %d)", i, maxSignature, len(k.secret))
		}
	}
	v := &Verifier{scheme: s, ring: newKeyring(s.Algorithm, keys), tolerance: s.Tolerance, now: time.Now}
	if v.origin, v.path, err = publicURL(c.URL); err != nil {
		bad("URL: %w (got %q)", err, c.URL)
	} else if c.URL == "" && s.needsURL {
		bad(`URL: is required, the scheme signs it (got "")`)
	} else if !s.needsURL && s.Verify == nil {
		v.origin = "" // nobody asks for it
	}
	switch {
	case c.Tolerance < 0 || c.Tolerance > maxTolerance:
		bad("Tolerance: must be between 0 and 366 days (got %v)", c.Tolerance)
	case c.Tolerance > 0 && s.TimeFormat == 0:
		bad("Tolerance: the scheme signs no time that it could judge (got %v)", c.Tolerance)
	case c.Tolerance > 0:
		v.tolerance = c.Tolerance
	}
	switch {
	case c.MaxBody < 0 || c.MaxBody > mostMaxBody:
		bad("MaxBody: must be between 0 and 1 GiB (got %d)", c.MaxBody)
	case c.MaxBody == 0:
		v.maxBody = defaultMaxBody
	default:
		v.maxBody = c.MaxBody
	}
	if v.guard, err = newGuard(c, s, v.tolerance); err != nil {
		errs = append(errs, err)
	} else if v.tolerance == 0 && s.needsWindow() {
		v.tolerance = v.guard.keep / 2
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	methods := s.Methods
	v.probes = s.Probe != nil && !c.PassChallenges
	if v.probes && !slices.Contains(methods, s.probedBy) {
		methods = append([]string{s.probedBy}, methods...)
	}
	v.methods = strings.Join(methods, ", ")
	switch {
	case c.ErrorHandler == nil && s.bodiless:
		c.ErrorHandler = writeStatus
	case c.ErrorHandler == nil:
		c.ErrorHandler = WriteError
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	v.cfg = Config{
		Key: c.Key, PassChallenges: c.PassChallenges, StripHeaders: c.StripHeaders,
		OnReject: c.OnReject, ErrorHandler: c.ErrorHandler, Logger: c.Logger,
	}
	return v, nil
}

// publicURL splits a configured URL after the host.
func publicURL(s string) (origin, path string, err error) {
	if s == "" {
		return "", "", nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", "", errors.New("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return "", "", errors.New("must begin with https:// or http:// and a host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return "", "", errors.New("must have no user, query or fragment")
	}
	return u.Scheme + "://" + u.Host, u.EscapedPath(), nil
}

// Verify verifies the signature of r over the body as received, and gives r
// that body again: r.Body reads it from the start, r.GetBody returns further
// readers, and r.ContentLength is its length. It does not consult the store;
// [Verifier.Handler] does.
//
// The error is one of this package's, or wraps that of a body which has an HTTP
// status of its own, as those of a timeout outside have. After an error the body
// of r may be read or not.
func (v *Verifier) Verify(r *http.Request) (*Delivery, error) {
	var what verified
	if err := v.verify(r, &what); err != nil {
		return nil, err
	}
	rec := new(record)
	rec.fill(v.scheme, &what)
	rec.restore(r)
	return &rec.Delivery, nil
}

// VerifyBytes verifies a delivery that came another way than as an
// http.Request, from a queue for instance: as a POST to Config.URL with these
// header fields, whose names are in their canonical form. Body must not be
// changed afterwards.
func (v *Verifier) VerifyBytes(h http.Header, body []byte) (*Delivery, error) {
	// Short enough to be inlined: a Delivery that the caller does not keep is
	// on its stack then, and the verification allocates nothing.
	return v.verifyBytes(new(Delivery), h, body)
}

// verifyBytes does what VerifyBytes does, and returns d, which it fills.
func (v *Verifier) verifyBytes(d *Delivery, h http.Header, body []byte) (*Delivery, error) {
	if int64(len(body)) > v.maxBody {
		return nil, ErrTooLarge
	}
	x := v.ring.get()
	defer v.ring.put(x)
	var what verified
	what.body, what.vals.method = body, http.MethodPost
	if v.origin != "" {
		what.vals.url = v.origin + v.path
	}
	now := v.clock()
	if err := v.header(h, x, &what.vals, now); err != nil {
		return nil, err
	}
	if err := v.judge(context.Background(), h, x, &what, now); err != nil {
		return nil, err
	}
	d.fill(v.scheme, &what)
	return d, nil
}

// clock is the time to judge by, for schemes that look at it.
func (v *Verifier) clock() time.Time {
	if v.scheme.TimeFormat == 0 && v.scheme.Verify == nil {
		return time.Time{}
	}
	return v.now()
}

// verified is what a delivery is made of.
type verified struct {
	body   []byte
	vals   values
	result Result
}

// verify does what Verify does, apart from restoring the body.
func (v *Verifier) verify(r *http.Request, what *verified) error {
	if !slices.Contains(v.scheme.Methods, r.Method) {
		return ErrMethod
	}
	if enc := r.Header["Content-Encoding"]; len(enc) > 0 && (len(enc) > 1 || !strings.EqualFold(enc[0], "identity")) {
		return ErrEncoding
	}
	if r.ContentLength > v.maxBody {
		return ErrTooLarge
	}
	if v.unsigned(r.Header) {
		return ErrNoSignature
	}
	x := v.ring.get()
	defer v.ring.put(x)
	what.vals.method = r.Method
	var err error
	if v.origin != "" {
		if what.vals.url, err = v.urlOf(r); err != nil {
			return err
		}
	}
	now := v.clock()
	if err := v.header(r.Header, x, &what.vals, now); err != nil {
		return err
	}
	if what.body, err = readBody(r, v.maxBody); err != nil {
		return err
	}
	return v.judge(r.Context(), r.Header, x, what, now)
}

// unsigned reports whether no field with a signature is there: what strangers
// and scanners send, found out at the least cost.
func (v *Verifier) unsigned(h http.Header) bool {
	for _, key := range v.scheme.headers {
		if len(h[key]) > 0 {
			return false
		}
	}
	return len(v.scheme.headers) > 0
}

// header does everything that can be done without the body.
func (v *Verifier) header(h http.Header, x *scratch, vals *values, now time.Time) error {
	s := v.scheme
	if s.Verify != nil {
		if s.Header != "" {
			_, err := one(h, s.Header)
			return err
		}
		return nil
	}
	if err := s.parse(h, x, vals); err != nil {
		return err
	}
	if s.TimeFormat == 0 || s.TimeField != "" {
		return nil
	}
	t, err := parseTime(vals.time, s.TimeFormat)
	if err != nil {
		return err
	}
	x.at = t
	return inWindow(t, now, v.tolerance)
}

// judge does the rest: what has the body and the values, and gets the result.
func (v *Verifier) judge(ctx context.Context, h http.Header, x *scratch, what *verified, now time.Time) (err error) {
	s, res := v.scheme, &what.result
	if s.touching && len(what.body) > 0 && s.movable(what.vals.method, what.body) {
		return ErrMalformed
	}
	if s.Verify != nil {
		*res, err = s.Verify(v.message(ctx, h, what.body, &what.vals, now))
		return err
	}

	text, split := s.render(x.text[:0], &what.vals)
	x.text = text
	key := v.ring.match(x, text[:split], what.body, text[split:])
	if key < 0 {
		return ErrMismatch
	}
	res.ID, res.Key = what.vals.id, key
	switch {
	case s.TimeField != "":
		// Of a body, nothing is read before it is known whose it is.
		raw, _ := field(what.body, s.TimeField)
		if res.Time, err = parseTime(string(raw), s.TimeFormat); err != nil {
			return err
		}
		return inWindow(res.Time, now, v.tolerance)
	case s.TimeFormat != 0:
		res.Time = x.at
	}
	return nil
}

func (v *Verifier) message(ctx context.Context, h http.Header, body []byte, vals *values, now time.Time) *Message {
	m := &Message{
		Method: vals.method, URL: vals.url, Header: h, Body: body,
		ctx: ctx, now: now, tolerance: v.tolerance, ring: v.ring, alg: v.scheme.Algorithm,
	}
	_, m.query, _ = strings.Cut(vals.url, "?")
	return m
}

// urlOf returns the address of the request as the provider knows it. It refuses
// one with a character that no client leaves as it is in a URL. Where body
// follows URL in what is signed, the beginning of the body could otherwise be
// moved to the end of the query. For the other direction see movable. Nor does
// it take a "#": to a server it is a character as any other, and to whoever
// parses the address for what is signed, its end.
func (v *Verifier) urlOf(r *http.Request) (string, error) {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") { // made by hand, or in absolute form
		target = r.URL.RequestURI()
		if !strings.HasPrefix(target, "/") { // what follows the host would be part of it
			return "", ErrMalformed
		}
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '#' || c == '<' || c == '>' {
			return "", ErrMalformed
		}
	}
	if v.path == "" || v.path == "/" {
		return v.origin + target, nil
	}
	if _, query, ok := strings.Cut(target, "?"); ok {
		return v.origin + v.path + "?" + query, nil
	}
	return v.origin + v.path, nil
}
