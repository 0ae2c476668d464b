package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"
)

// ProxyConfig configures a [Proxy]. The fields that [httputil.ReverseProxy] has
// too have its names, its types and, where nothing else is said, its meaning.
type ProxyConfig struct {
	// Transport sends the requests: a [Pool], or something with one below it,
	// or any other RoundTripper together with Target. Required. An
	// http.Transport should have DisableCompression and a MaxIdleConnsPerHost of
	// some hundred set, and for requests with Expect: 100-continue an
	// ExpectContinueTimeout.
	Transport http.RoundTripper

	// Target is where requests go if Transport is not a Pool, which knows its
	// targets: "http://127.0.0.1:8081", a scheme and an authority. Empty leaves
	// it to Rewrite; if that sets no address either, the request goes to
	// http://upstream.invalid, and never to where the client's Host says.
	Target string

	// Match says which requests [Proxy.Handler] takes. ServeHTTP takes all.
	Match func(*http.Request) bool

	// Host says which Host the back end sees.
	Host HostPolicy

	// URI rewrites the target.
	URI URI

	// Forwarded says what back ends learn about the client.
	Forwarded Forwarded

	// Protect names request fields that a client may not take away by naming
	// them in Connection, nor supply in another spelling (X_User for X-User): those
	// that handlers outside of the proxy set for back ends to believe. A name may
	// end in "*". Forwarding, tracing and credential fields, X-Auth-*, X-Remote-*
	// and Remote-* are protected always. A handler that sets such a field for some
	// requests must delete it from all others, as ever.
	Protect []string

	// Rewrite, if set, changes the outgoing request, after hop-by-hop fields
	// and what clients say about themselves have been removed, and before the
	// fields of Forwarded are added. In must not be changed, and no element of a
	// value in Out.Header in place. It may replace Out; unless that is derived from
	// the old one, ends with In are then the hook's to arrange.
	Rewrite func(*httputil.ProxyRequest)

	// ModifyResponse, if set, changes the response, whose hop-by-hop fields
	// are removed already. An error refuses it: it goes to ErrorHandler as it is if
	// it has HTTPStatus and Code, and otherwise within an [Error].
	ModifyResponse func(*http.Response) error

	// ErrorHandler answers a request that has no response. The error has
	// HTTPStatus and Code; it is an [*Error], or what a Transport or the cause of
	// the request's context says if that has both. Retry-After and, if it is on,
	// Proxy-Status are set already. Nil is [WriteError].
	//
	// An error after the response has begun is a panic with
	// http.ErrAbortHandler, so that the client sees that it is not whole.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// MaxBody is the largest request body in bytes. Above it the answer is 413:
	// at once if Content-Length says so, otherwise as soon as the body passes it, or
	// an aborted response if that had begun. Zero and negative are no limit.
	MaxBody int64

	// MaxResponse is the largest response body in bytes. Above it the answer
	// is 502 if Content-Length says so, and otherwise broken off. Zero and negative
	// are no limit.
	MaxResponse int64

	// Upgrade lists the protocols that a client may switch to with Upgrade.
	// Nil is "websocket"; empty is none. A request for any other is passed on
	// without its Upgrade.
	Upgrade []string

	// MaxInterim is how many informational responses (1xx) a back end may send
	// before the final one. They are passed on, but not to HTTP/1.0 clients.
	// Zero is 5; one more is an error. Negative passes on none and counts none,
	// which saves two allocations for each request.
	MaxInterim int

	// FlushInterval is how long written bytes of a response may wait to be
	// flushed. Zero flushes responses of unknown length, event streams and gRPC
	// at each pause, and others when they end; negative flushes all of them at
	// each pause.
	FlushInterval time.Duration

	// BufferPool gives the buffers that bodies are copied through. Nil is a
	// pool of the Proxy's own with buffers of 8 and 48 KiB. Buffers of 64 KiB are
	// slower than smaller ones.
	BufferPool httputil.BufferPool

	// ProxyStatus is the name under which Proxy-Status (RFC 9209) is added to
	// responses, a token; it says what went wrong in a few fixed words and names no
	// back end. Empty adds none.
	ProxyStatus string

	// Done, if set, is called when a request is over, also if it ends in a
	// panic. The Record must not be kept.
	Done func(*http.Request, *Record)

	// Logger gets what no client can be told any more: why a response was
	// broken off. Nil discards it.
	Logger *slog.Logger
}

// HostPolicy says which Host a back end sees.
type HostPolicy uint8

const (
	// HostAuto is the client's Host for back ends that are reached without
	// TLS, and their own for those that are reached with it. X-Forwarded-Host has
	// the client's in any case.
	HostAuto HostPolicy = iota

	// HostClient is the Host that the client sent.
	HostClient

	// HostTarget is the target's own.
	HostTarget
)

const (
	defaultMaxInterim = 5

	// noAddress stands where a Pool puts a target's address. The name can
	// never exist (RFC 6761), so that a request which no target was chosen for
	// goes nowhere.
	noAddress = "upstream.invalid"
)

// Proxy passes requests on to the back ends behind a RoundTripper, and their
// responses back. It is safe for concurrent use and has nothing to close.
type Proxy struct {
	cfg       ProxyConfig
	owned     ownedTripper // Transport, if it is a Pool
	target    *url.URL
	rewriter  *rewriter
	forwarder *forwarder
	protected protected
	buffers   bufferPool
}

// ownedTripper is what a [Pool] is to a Proxy: a RoundTripper that may do with
// the request as it likes and puts what it knows into the record.
type ownedTripper interface {
	roundTripOwned(*http.Request, *record) (*http.Response, error)
}

// NewProxy returns a Proxy. The error lists every field that is wrong.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	var bad problems
	if cfg.Transport == nil {
		bad.add("Transport", "must be set", "nil")
	}
	p := &Proxy{
		target:    &url.URL{Scheme: "http", Host: noAddress},
		rewriter:  newRewriter(cfg.URI, &bad),
		protected: newProtected(cfg.Protect),
		buffers:   bufferPool{given: cfg.BufferPool},
	}
	if cfg.Target != "" {
		if u, err := parseProxyTarget(cfg.Target); err != nil {
			bad.add("Target", err.Error(), fmt.Sprintf("%q", redacted(cfg.Target)))
		} else {
			p.target = u
		}
	}
	p.forwarder = newForwarder(cfg.Forwarded, &bad)
	if cfg.Host > HostTarget {
		bad.add("Host", "must be one of the HostPolicy constants", cfg.Host)
	}
	for _, name := range cfg.Protect {
		if !isToken(strings.TrimSuffix(name, "*")) {
			bad.add("Protect", "must be field names", fmt.Sprintf("%q", name))
		}
	}
	if cfg.Upgrade == nil {
		cfg.Upgrade = []string{"websocket"}
	} else {
		cfg.Upgrade = slices.Clone(cfg.Upgrade)
	}
	for _, proto := range cfg.Upgrade {
		name, version, slash := strings.Cut(proto, "/")
		switch {
		case !isToken(name) || slash && !isToken(version):
			bad.add("Upgrade", "must be protocol names", fmt.Sprintf("%q", proto))
		case strings.EqualFold(proto, "h2c"), strings.EqualFold(name, "http"), strings.EqualFold(name, "tls"):
			bad.add("Upgrade", "must not be a protocol that carries requests past the proxy", fmt.Sprintf("%q", proto))
		}
	}
	if cfg.ProxyStatus != "" && !isToken(cfg.ProxyStatus) {
		bad.add("ProxyStatus", "must be a token of RFC 9110", fmt.Sprintf("%q", cfg.ProxyStatus))
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	cfg.MaxBody = max(cfg.MaxBody, 0)
	cfg.MaxResponse = max(cfg.MaxResponse, 0)
	if cfg.MaxInterim == 0 {
		cfg.MaxInterim = defaultMaxInterim
	}
	if cfg.ErrorHandler == nil {
		cfg.ErrorHandler = WriteError
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p.cfg = cfg
	p.owned, _ = cfg.Transport.(ownedTripper)
	return p, nil
}

func parseProxyTarget(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("must be a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must begin with http:// or https://")
	case u.Host == "", u.User != nil, u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, errTargetParts
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// ServeHTTP passes a request on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{p: p, w: w, in: r}
	x.body.x = x
	if p.cfg.Done != nil {
		x.rec.timed = true
		x.rec.Start = time.Now()
	}
	defer x.finish()
	x.serve()
}

// Handler returns a handler that passes on the requests for which
// [ProxyConfig.Match] reports true and leaves the others to next. It panics if
// next is nil, and if there is no Match.
func (p *Proxy) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("upstream: nil handler")
	}
	if p.cfg.Match == nil {
		panic("upstream: Handler needs ProxyConfig.Match")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.cfg.Match(r) {
			p.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
