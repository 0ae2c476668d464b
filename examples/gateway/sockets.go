package main

import (
	"bufio"
	"cmp"
	"context"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"example.com/plainware/reqid"
	"example.com/plainware/upstream"
	"example.com/plainware/wsproxy"
	_ "example.com/plainware/wsproxy/xconnect" // WebSockets over HTTP/2 as well
)

// sockets passes WebSockets on to the back ends, over HTTP/1.1 and HTTP/2 alike.
//
// Which back end it is to be is for those to say who say it of any request: a
// handshake goes through [backends] as a request does, with canary, turns, health,
// breakers and, where a back end cannot be reached, another one. But where a
// request would be sent, see connector, only a connection is made, which is all
// that breakers and a canary's guard learn of it. What goes over it is wsproxy's.
type sockets struct {
	*wsproxy.Proxy
	backs *backends
	proxy *proxy
}

// newSockets passes WebSockets on to backs. What it refuses looks as if p had.
func newSockets(cfg config, backs *backends, p *proxy) (*sockets, error) {
	s := &sockets{backs: backs, proxy: p}
	var err error
	s.Proxy, err = wsproxy.New(wsproxy.Config{
		Director: s.connect,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			v, _ := ctx.Value(visitKey{}).(*visit)
			return v.take(), nil
		},
		TLS: cfg.calls.TLS,
		// Whose pages may connect is for the back ends to say. They find Origin and,
		// unless they are spoken to over TLS, Host as the client has sent them.
		InsecureAnyOrigin: true,
		// Of one address. Behind a proxy of your own, name it in TrustedProxies:
		// otherwise all its clients are one.
		Limits: wsproxy.Limits{PerKey: 1000},
		Drain:  wsproxy.Drain{Reason: "the gateway stops", Spread: time.Second},
		OnClose: func(s wsproxy.Stats) {
			cfg.logger.Info("WebSocket closed", "client", s.Client, "proto", s.FrontProto, "target", s.Target,
				"end", s.End.String(), "duration", s.Duration, "from_client", s.FromClient.Bytes, "from_back_end", s.FromBackend.Bytes)
		},
		ErrorHandler: s.fail,
		Logger:       cfg.logger,
	})
	return s, err
}

// Handler takes all WebSocket handshakes and leaves the rest to next. So nothing in
// next guards a WebSocket.
func (s *sockets) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wsproxy.IsHandshake(r) {
			s.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP is for a route that has nothing but WebSockets.
func (s *sockets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{answer: w.Header()}
	defer v.close()
	ctx := context.WithValue(r.Context(), visitKey{}, v)
	s.Proxy.ServeHTTP(&ownID{w, w.Header()[reqid.DefaultHeader]}, r.WithContext(ctx))
}

// connect chooses a back end for a handshake, and connects to it. That comes
// before wsproxy's limits; what a client could do with it is under the rates.
func (s *sockets) connect(hs *wsproxy.Handshake) (*wsproxy.Target, error) {
	ctx := hs.Request.Context()
	// Of a method that nobody sends to two back ends at once, as Retry.Hedge has it
	// for others: a visit is for one. A connection that failed was none.
	req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://back-end.invalid/", nil)
	if err != nil {
		return nil, err
	}
	req.Header = hs.Header // by which a canary knows its clients
	res, err := s.backs.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	v, _ := ctx.Value(visitKey{}).(*visit)
	for _, c := range res.Header["Set-Cookie"] {
		v.answer.Add("Set-Cookie", c) // the canary's
	}
	scheme := "ws"
	if v.target.Scheme == "https" {
		scheme = "wss"
	}
	return &wsproxy.Target{URL: scheme + "://" + v.target.Host + belowPath(v.target)}, nil
}

// fail answers a handshake that opens nothing.
func (s *sockets) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch e := err.(type) {
	case *upstream.Error: // from connect
		if e.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
		}
	case *wsproxy.Error:
		switch e.Kind {
		case wsproxy.Unreachable, wsproxy.BadAnswer, wsproxy.Slow:
			v, _ := r.Context().Value(visitKey{}).(*visit)
			if r.Context().Err() == nil { // the client is still there
				s.proxy.logger.WarnContext(r.Context(), "back end failed", "target", v.target.String(), "error", err)
			}
		}
	}
	s.proxy.fail(w, r, err)
}

// visit is a handshake on its way to a back end. It is in the context of its
// request, and one goroutine's.
type visit struct {
	answer http.Header // of the response
	target *url.URL    // nil until connected
	conn   net.Conn    // to target, until it is taken
}

type visitKey struct{}

// take gives the connection away.
func (v *visit) take() (conn net.Conn) {
	conn, v.conn = v.conn, nil
	return conn
}

func (v *visit) close() {
	if v.conn != nil {
		v.conn.Close()
	}
}

// connector connects to a target for a visit, and sends all other requests.
type connector struct {
	target *url.URL
	http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (c connector) RoundTrip(r *http.Request) (*http.Response, error) {
	v, ok := r.Context().Value(visitKey{}).(*visit)
	if !ok {
		return c.RoundTripper.RoundTrip(r)
	}
	port := "80"
	if c.target.Scheme == "https" {
		port = "443"
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(r.Context(), "tcp", net.JoinHostPort(c.target.Hostname(), cmp.Or(c.target.Port(), port)))
	if err != nil {
		// Of this kind, so that the pool tries another back end.
		return nil, &upstream.Error{Kind: upstream.KindDial, Err: err}
	}
	v.close() // nothing, unless somebody has given this one up
	v.target, v.conn = c.target, conn
	return &http.Response{
		StatusCode: http.StatusNoContent, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: http.NoBody, Request: r,
	}, nil
}

// ownID keeps the request's ID in an answer where the back end has sent another,
// as received does for all other requests. wsproxy has set the header when it
// calls these.
type ownID struct {
	http.ResponseWriter
	id []string
}

func (w *ownID) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *ownID) WriteHeader(status int) {
	w.Header()[reqid.DefaultHeader] = w.id
	w.ResponseWriter.WriteHeader(status)
}

// Hijack implements [http.Hijacker]; over HTTP/2, where nobody calls it, it fails.
func (w *ownID) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.Header()[reqid.DefaultHeader] = w.id
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
