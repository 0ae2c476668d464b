package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"

	"example.com/plainware/reqid"
	"example.com/plainware/upstream"
)

// proxy is the way from a request to its back end, and of the answer back.
type proxy struct {
	upstream *upstream.Proxy
	streams  context.Context
	logger   *slog.Logger
}

// newProxy passes requests on to whatever the transport chooses among.
func newProxy(cfg config, transport http.RoundTripper) (*proxy, error) {
	p := &proxy{streams: cfg.streams, logger: cfg.logger}
	var err error
	p.upstream, err = upstream.NewProxy(upstream.ProxyConfig{
		Transport: transport,
		// The back end sees its own name in Host; the client's is in
		// X-Forwarded-Host. What a client says about itself is dropped: an edge
		// believes nobody. Behind a proxy of your own, name it in
		// Forwarded.TrustedProxies.
		Host: upstream.HostTarget,
		// To back ends that are all there is, paths arrive as they were sent,
		// also those with .. in them. With routes, the back end must not find
		// another path than the route was chosen by, and with a target that has a
		// path, none that is not below it.
		URI:            upstream.URI{InsecureDotSegments: cfg.routes == nil && !cfg.below()},
		ModifyResponse: p.received,
		ErrorHandler:   p.fail,
		Logger:         cfg.logger,
	})
	return p, err
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		// A tunnel to wherever the client likes is a forward proxy's work.
		upstream.WriteError(w, r, &refusal{http.StatusNotImplemented, "connect", "CONNECT is not supported."})
		return
	}
	p.upstream.ServeHTTP(w, r)
}

// received changes what comes from a back end.
func (p *proxy) received(res *http.Response) error {
	// The ID is in the response already; a back end that echoes it, or has
	// another idea of it, would make it two.
	res.Header.Del(reqid.DefaultHeader)
	if isEventStream(res) {
		// It has no end to wait for, so shutting down ends it, as cleanly as
		// the back end would.
		s := &stream{ReadCloser: res.Body, streams: p.streams}
		s.stop = context.AfterFunc(p.streams, func() { s.ReadCloser.Close() })
		res.Body = s
	}
	return nil
}

// fail answers a request that has no response. One log line tells the operator
// what happened; the client learns only whose fault it was.
func (p *proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok || !e.Kind.BackendFault() {
		// A limit of time that has passed, a client that has left, back ends
		// that are not called at present: each says itself what it is. The
		// breakers have logged why they are open.
		upstream.WriteError(w, r, err)
		return
	}
	p.logger.WarnContext(r.Context(), "back end failed", "target", e.Backend, "error", err)
	refused := &refusal{http.StatusBadGateway, "bad_gateway", "The back end could not be reached or gave no valid answer."}
	if e.HTTPStatus() == http.StatusGatewayTimeout {
		refused = &refusal{http.StatusGatewayTimeout, "gateway_timeout", "The back end did not answer in time."}
	}
	upstream.WriteError(w, r, refused)
}

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
