package forwardauth

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Middleware asks the decision service. It is safe for concurrent use.
type Middleware struct {
	cfg    Config
	url    *url.URL
	base   http.RoundTripper
	own    *http.Transport // base, where it is not the user's
	dialer net.Dialer      // of own
	names  []string        // what is sent as it is
	copies []headerCopy
	deny   []string // canonical, beside denyFields
	mark   string   // of this service, see loopMark
	log    *slog.Logger
	cache  *cache
	pool   sync.Pool // of *hasher
}

const (
	// maxBytes bounds what is held in memory, so that a size fits an int, and
	// what is appended to make room for more does.
	maxBytes = math.MaxInt / 4

	// dialWithin is how long a connection to the service may take to be there at
	// most, where Config.Timeout is longer or none.
	dialWithin = 30 * time.Second

	// pingAfter is how long an HTTP/2 connection to the service may be silent
	// before it is asked whether it is there, and pingWithin how long that may
	// take.
	pingAfter  = 5 * time.Second
	pingWithin = 3 * time.Second
)

// headerCopy is a HeaderCopy with what is computed once.
type headerCopy struct {
	from, to, folded string
}

// New returns a Middleware. The error lists every field that is wrong.
func New(c Config) (*Middleware, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxResponse == 0 {
		c.MaxResponse = defaultMaxResponse
	}
	c.MaxBody, c.MaxResponse = min(c.MaxBody, maxBytes), min(c.MaxResponse, maxBytes)
	if c.Allow == nil {
		c.Allow = func(int) bool { return true }
		if c.Mode == Envoy {
			c.Allow = func(status int) bool { return status == http.StatusOK }
		}
	}
	if c.ErrorHandler == nil {
		c.ErrorHandler = WriteError
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
	c.RequestCookies = slices.Clone(c.RequestCookies)
	m := &Middleware{cfg: c, url: u, base: c.Base, names: forwardNames(c.RequestHeaders), log: c.Logger}
	for _, h := range c.CopyHeaders {
		from, to := http.CanonicalHeaderKey(h.From), http.CanonicalHeaderKey(h.to())
		m.copies = append(m.copies, headerCopy{from, to, fold(to)})
	}
	for _, name := range c.DenyHeaders {
		m.deny = append(m.deny, http.CanonicalHeaderKey(name))
	}
	m.cfg.RequestHeaders, m.cfg.CopyHeaders, m.cfg.DenyHeaders = nil, nil, nil
	// All instances for one service share the mark, in whichever process.
	sum := sha256.Sum256([]byte(c.URL))
	m.mark = hex.EncodeToString(sum[:8])
	if m.base == nil {
		// http.Transport goes on dialling when the question has ended, for the
		// next one's benefit. Where nobody answers the system takes minutes to
		// give up, and each question would leave a socket behind.
		m.dialer.Timeout = dialWithin
		if c.Timeout > 0 {
			m.dialer.Timeout = min(c.Timeout, dialWithin)
		}
		m.own = &http.Transport{
			DialContext:            m.dialer.DialContext,
			Protocols:              new(http.Protocols),
			MaxIdleConnsPerHost:    100,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    min(m.dialer.Timeout, 10*time.Second),
			DisableCompression:     true,
			MaxResponseHeaderBytes: 256 << 10,
			// Over HTTP/2 a question that times out leaves its connection as it
			// is, for the next ones.
			HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWithin},
		}
		m.own.Protocols.SetHTTP1(true)
		m.own.Protocols.SetHTTP2(true)
		m.base = m.own
	}
	if c.Cache != nil {
		m.cache = newCache(*c.Cache, m.fingerprint())
		m.pool.New = func() any { return m.cache.newHasher() }
		m.cfg.Cache = nil
	}
	return m, nil
}

// Close closes the idle connections to the service. It does nothing where
// Config.Base was set, since that is the caller's. It returns nil, and may be
// called twice; the middleware can be used afterwards.
func (m *Middleware) Close() error {
	if m.own != nil {
		m.own.CloseIdleConnections()
	}
	return nil
}

// Handler returns a handler that calls next for the requests that the service
// allows. It panics if next is nil.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("forwardauth: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.serve(next, w, r)
	})
}

func (m *Middleware) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s := &state{Context: r.Context()}
	s.request = *r.WithContext(s)
	inner := &s.request
	inner.Header = m.strip(r.Header)
	m.stripTrailer(r, inner)

	// Before Skip is asked: by a path with two readings it would let through
	// what it does not mean, and behind an upgrade to h2c whatever follows.
	var q question
	bad := m.shape(&q, r)
	if bad != nil || m.cfg.Skip == nil || !m.cfg.Skip(inner) {
		a, id, err := m.judge(&q, r, inner, bad)
		switch {
		case err != nil:
			m.refuse(w, r, &q, err)
			return
		case a != nil && !a.allowed:
			m.writeDenial(w, &q, a)
			return
		}
		s.owner, s.found = m, id
		m.present(inner.Header, &s.found)
		if a != nil {
			if lines := m.cfg.SuccessCookies.pick(a.header["Set-Cookie"]); len(lines) > 0 {
				next = cookieHandler{next, lines}
			}
		}
	}

	// Deferred, so that whoever recovers from a panic of next sees the pattern,
	// and the server finds the temporary files that it has to remove.
	defer func() {
		r.Pattern = inner.Pattern
		if r.MultipartForm == nil {
			r.MultipartForm = inner.MultipartForm
		}
	}()
	next.ServeHTTP(w, inner)
}

// judge comes to a decision, and tells the hook of it. Nothing is deferred: a
// panic on the way is no decision.
func (m *Middleware) judge(q *question, r, inner *http.Request, bad *Error) (*answer, identity, *Error) {
	if m.cfg.OnDecision == nil {
		return m.decision(q, r, inner, bad)
	}
	start := time.Now()
	a, id, err := m.decision(q, r, inner, bad)
	d := Decision{Allowed: err == nil && (a == nil || a.allowed), Cached: id.cached, Duration: time.Since(start)}
	if err != nil {
		d.Err = err
	} else if a != nil {
		d.Status = a.status
	}
	m.cfg.OnDecision(r, d)
	return a, id, err
}

// decision is an identity where the request is allowed, an answer of the service
// that denies, or an error. The answer is nil where the cache knew. bad is what
// the shape of the request is refused for.
func (m *Middleware) decision(q *question, r, inner *http.Request, bad *Error) (a *answer, id identity, err *Error) {
	switch {
	case m.looped(r):
		return nil, id, &Error{Reason: Loop}
	case bad != nil:
		return nil, id, bad
	}
	if err = m.origin(q); err != nil {
		return nil, id, err
	}
	if err = m.readBody(q, inner); err != nil {
		return nil, id, err
	}
	if m.cfg.Mode == JSON {
		if err = m.makeInput(q, inner); err != nil {
			return nil, id, err
		}
	}
	if m.cache != nil && cacheable(q) {
		return m.cached(q)
	}
	if a, err = m.decide(r.Context(), q); err == nil && a.allowed {
		id = m.identified(a)
	}
	return a, id, err
}

// cookieHandler is next with cookies for the response.
type cookieHandler struct {
	next  http.Handler
	lines []string
}

func (h cookieHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	withCookies(h.next, w, r, h.lines)
}
