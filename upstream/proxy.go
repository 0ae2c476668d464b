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
	// them in Connection, nor supply in another spelling (X_User for X-User) or as a
	// trailer: those that handlers outside of the proxy set for back ends to
	// believe. A name may end in "*". Forwarding, tracing and credential fields,
	// X-Auth-*, X-Remote-* and Remote-* are protected always. A handler that sets
	// such a field for some requests must delete it from all others, as ever.
	Protect []string

	// Rewrite, if set, changes the outgoing request, after hop-by-hop fields
	// and what clients say about themselves have been removed, and before the
	// fields of Forwarded are added. In must not be changed, and no element of a
	// value in Out.Header in place. It may replace Out; unless that is derived from
	// the old one, ends with In are then the hook's to arrange.
	//
	// A Host that it sets is sent, unless the target has a Target.Host: In.Host is
	// the client's, and empty is the target's own. With HostAuto Out.Host is
	// "upstream.invalid" before that, as Out.URL.Host is, where the target is still
	// to be chosen.
	Rewrite func(*httputil.ProxyRequest)

	// ModifyResponse, if set, changes the response, whose hop-by-hop fields
	// are removed already. An error refuses it: it goes to ErrorHandler as it is if
	// it has HTTPStatus and Code, and otherwise within an [Error]. The body of a 101
	// is an io.ReadWriteCloser; what takes its place must be one too, and have a
	// CloseWrite if one end is to close its half without the other's. One that puts
	// another body there sets Content-Length, or deletes it and sets ContentLength to
	// -1: more than it says is not sent, but broken off.
	//
	// A response that has no Content-Type after it, and gets none from a handler
	// outside of the proxy, goes out without. With ReverseProxy the server guesses
	// at one from the first bytes of the body.
	ModifyResponse func(*http.Response) error

	// ErrorHandler answers a request that has no response. The error has
	// HTTPStatus and Code; it is an [*Error], or what a Transport or the cause of
	// the request's context says if that has both. Retry-After, for an Error and for
	// others with a method RetryAfter() time.Duration, is set already, and so is, if
	// it is on, Proxy-Status, for an Error only. Nil is [WriteError].
	//
	// An error after the response has begun is a panic with
	// http.ErrAbortHandler, so that the client sees that it is not whole.
	// A response of gRPC over HTTP/2 that the client's own grpc-timeout ends has
	// DEADLINE_EXCEEDED in its trailers instead.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// MaxBody is the largest request body in bytes. Above it the answer is 413:
	// at once if Content-Length says so, otherwise as soon as the body passes it, or
	// an aborted response if that had begun. Zero and negative are no limit.
	//
	// Use it in place of http.MaxBytesReader and http.MaxBytesHandler outside.
	// These write to the response's header from whatever goroutine reads the body,
	// which in any proxy is the transport's, beside the one that answers.
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
	// before the final one. Zero is 5; one more is an error. Each attempt that a
	// [Pool] makes may have so many. They are passed on as they come, but not to
	// HTTP/1.0 clients and of all attempts no more than of one; after the first,
	// unless it is a 100, the request is sent to no other back end. Negative passes
	// on none and counts none, which saves an allocation for each request.
	MaxInterim int

	// FlushInterval is how long written bytes of a response may wait to be
	// flushed. Zero flushes responses of unknown length, event streams and gRPC
	// at each pause, and others when they end; negative flushes all of them at
	// each pause. A head with a grpc-status is not flushed before what follows it:
	// most often that is the end, which clients want in the same frame.
	FlushInterval time.Duration

	// BufferPool gives the buffers that bodies are copied through. Nil is a
	// pool of the Proxy's own with buffers of 8 and 48 KiB. Buffers of 64 KiB are
	// slower than smaller ones.
	BufferPool httputil.BufferPool

	// ProxyStatus is the name under which Proxy-Status (RFC 9209) is added to
	// responses, a token, in quotes where it does not begin with a letter; it says
	// what went wrong in a few fixed words and names no back end. Empty adds none.
	// Nor has an answer to an error that is no [Error] one.
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
//
// A connection over HTTP/1.0 ends with its first response. Such a request may have
// had a Transfer-Encoding, which net/http removes unseen, and what follows it would
// be a request here and a body elsewhere (RFC 9112 section 6.1).
//
// A response field that is in the header already, because a handler outside of
// the Proxy has put it there, stays, and the back end's of that name is dropped:
// an ID, a security policy, Cache-Control. [httputil.ReverseProxy] sends both. Of
// fields that are lists (Set-Cookie, Vary, Link and the like) both are sent here
// too, and of those that describe the body or the resource (Content-Type, Etag,
// Location and the like) only the back end's.
type Proxy struct {
	cfg       ProxyConfig
	owned     *Pool // Transport, if it is a Pool: it may do with the request as it likes
	target    *url.URL
	rewriter  *rewriter
	forwarder *forwarder
	protected protected
	buffers   bufferPool
	streams   streams
	traceKey  any // of net/http/httptrace
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
		traceKey:  traceKey(),
	}
	if cfg.Target != "" {
		if u, err := parseProxyTarget(cfg.Target); err != nil {
			bad.add("Target", err.Error(), redacted(cfg.Target))
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
	if cfg.ProxyStatus != "" {
		cfg.ProxyStatus = proxyStatusName(cfg.ProxyStatus)
	}
	p.cfg = cfg
	p.owned, _ = cfg.Transport.(*Pool)
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
	defer x.leave()
	x.serve()
	x.returned = true
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
