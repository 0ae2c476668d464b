package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"example.com/plainware/reqid"
	"example.com/plainware/timeout"
)

// proxy hands requests to its targets in turn.
type proxy struct {
	targets   []*url.URL
	next      atomic.Uint64
	transport http.RoundTripper
	streams   context.Context
	logger    *slog.Logger
}

func newProxy(cfg config) *proxy {
	return &proxy{
		targets:   cfg.targets,
		transport: cfg.transport,
		streams:   cfg.streams,
		logger:    cfg.logger,
	}
}

// newTransport differs from [http.DefaultTransport] where a proxy differs from
// a program that fetches a page now and then.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil                              // HTTP_PROXY is about the way out, not about the back ends
	t.DisableCompression = true                // the client decides; nothing is unpacked on the way
	t.MaxIdleConns = 1024                      // in all
	t.MaxIdleConnsPerHost = 256                // the default of 2 makes a busy proxy dial for most requests
	t.ResponseHeaderTimeout = 30 * time.Second // counted from the end of the upload: a hung back end is a 504
	t.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return t
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		// A tunnel to wherever the client likes is a forward proxy's work.
		timeout.WriteError(w, r, &refusal{http.StatusNotImplemented, "connect", "CONNECT is not supported."})
		return
	}
	target := p.targets[(p.next.Add(1)-1)%uint64(len(p.targets))]

	// What the layers outside have put into the response. ReverseProxy empties
	// the map after each 1xx of the back end, so it is put back afterwards.
	own := maps.Clone(w.Header())

	// A ReverseProxy is a few fields and no state, so each request has its own
	// and the functions in it see the request as it came.
	rp := httputil.ReverseProxy{
		Transport: p.transport,
		Rewrite: func(pr *httputil.ProxyRequest) {
			// The back end sees its own name in Host; the client's is in
			// X-Forwarded-Host. ReverseProxy has removed the X-Forwarded
			// fields that the client sent: an edge believes none.
			pr.SetURL(target)
			pr.SetXForwarded()
			pr.Out.Header.Del("X-Real-Ip")
			pr.Out.Header.Del("True-Client-Ip")
		},
		ModifyResponse: func(res *http.Response) error {
			restore(w.Header(), own)
			// ReverseProxy adds the back end's fields to ours, and a
			// back end that echoes the ID would make it two.
			res.Header.Del(reqid.DefaultHeader)
			if isEventStream(res) {
				// It has no end to wait for, so shutting down ends it,
				// as cleanly as the back end would.
				s := &stream{ReadCloser: res.Body, streams: p.streams}
				s.stop = context.AfterFunc(p.streams, func() { s.ReadCloser.Close() })
				res.Body = s
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			restore(w.Header(), own)
			p.fail(w, r, target, err)
		},
		ErrorLog: log.New(lineWriter{r.Context(), p.logger, target}, "", 0),
	}
	rp.ServeHTTP(w, r)
}

// fail answers a request that has no response. One log line tells the operator
// what happened; the client learns only whose fault it was.
func (p *proxy) fail(w http.ResponseWriter, r *http.Request, target *url.URL, err error) {
	ctx := r.Context()
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// Without it net/http first looks for the rest of the upload, and
		// waits for as long as the client takes.
		w.Header().Set("Connection", "close")
	}
	if limit, ok := errors.AsType[*timeout.Error](errors.Join(err, context.Cause(ctx))); ok {
		// The limit has passed and is answering. Should this handler be
		// faster, its answer is the same.
		timeout.WriteError(w, r, limit)
		return
	}
	if ctx.Err() != nil {
		w.WriteHeader(statusClientGone)
		return
	}
	refused := &refusal{http.StatusBadGateway, "bad_gateway", "The back end could not be reached or gave no valid answer."}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		refused = &refusal{http.StatusGatewayTimeout, "gateway_timeout", "The back end did not answer in time."}
	}
	p.logger.WarnContext(ctx, "back end failed", "target", target, "error", err)
	timeout.WriteError(w, r, refused)
}

// statusClientGone is for the log only, as nobody is there to receive it. The
// number is nginx's, and the one package timeout uses.
const statusClientGone = 499

// refusal is an error in the form that the kit's WriteError functions write as
// an RFC 9457 problem.
type refusal struct {
	status int
	code   string
	detail string
}

func (e *refusal) Error() string   { return e.detail }
func (e *refusal) HTTPStatus() int { return e.status }
func (e *refusal) Code() string    { return e.code }
func (e *refusal) Detail() string  { return e.detail }

// restore puts own back into h. The values are clipped, because ReverseProxy
// appends to them.
func restore(h, own http.Header) {
	for name, values := range own {
		h[name] = slices.Clip(values)
	}
}

func isEventStream(res *http.Response) bool {
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return media == "text/event-stream" && res.StatusCode != http.StatusSwitchingProtocols
}

// stream is the body of an event stream, which ends without an error when the
// gateway stops.
type stream struct {
	io.ReadCloser
	streams context.Context
	stop    func() bool
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && s.streams.Err() != nil {
		err = io.EOF // the read failed because the body was closed under it
	}
	return n, err
}

func (s *stream) Close() error {
	s.stop()
	return s.ReadCloser.Close()
}

// lineWriter takes what ReverseProxy logs, an answer that broke off in the
// middle, to the structured log and to the request it belongs to.
type lineWriter struct {
	ctx    context.Context
	logger *slog.Logger
	target *url.URL
}

func (l lineWriter) Write(p []byte) (int, error) {
	l.logger.WarnContext(l.ctx, string(bytes.TrimSpace(p)), "target", l.target)
	return len(p), nil
}
