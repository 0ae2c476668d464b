package wsproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Proxy carries WebSockets between clients and back ends. It is an http.Handler
// for a route, and through Handler a middleware. It is safe for concurrent use.
type Proxy struct {
	cfg      Config
	target   *endpoint // Config.Target, or nil
	origins  origins
	dialer   dialer
	buffers  pool // of *buffer
	writings pool // of *writeState, where sockets are written to directly
	clock    clock
	epoch    time.Time

	// life ends when nothing may be opened any more and what is being opened
	// has to stop.
	life context.Context
	kill context.CancelFunc

	mu       sync.Mutex
	nextID   uint64
	places   places // of tunnels and handshakes under way
	refusals places // of back ends' refusals on their way to clients
	tunnels  map[uint64]*tunnel
	closed   bool            // nothing new
	empty    []chan struct{} // closed when no place is taken any more
}

// pool is a sync.Pool. What is taken is put back exactly once.
type pool interface {
	Get() any
	Put(any)
}

// New returns a Proxy. The error lists every field that is wrong.
func New(cfg Config) (*Proxy, error) {
	bad := cfg.check()
	p := &Proxy{epoch: time.Now(), tunnels: map[uint64]*tunnel{}}
	p.origins = newOrigins(&cfg, &bad)
	if cfg.Target != "" {
		var err error
		if p.target, err = parseTarget(cfg.Target); err != nil {
			bad.add("Target", err.Error(), fmt.Sprintf("%q", redacted(cfg.Target)))
		}
	}
	if err := bad.join(); err != nil {
		return nil, err
	}
	p.cfg = cfg.normal()
	p.cfg.Origins = nil
	p.dialer = newH1Dialer(&p.cfg)
	p.buffers = &sync.Pool{New: func() any { return new(buffer) }}
	p.writings = &sync.Pool{New: func() any { return newWriteState() }}
	p.clock.now = p.now
	p.life, p.kill = context.WithCancel(context.Background())
	return p, nil
}

// now is the time by a clock that only goes forward, and is never 0.
func (p *Proxy) now() int64 { return int64(time.Since(p.epoch)) + 1 }

// random returns a number below n, or 0 if n is not above 0.
func (p *Proxy) random(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return rand.Int64N(n)
}

// Handler returns a handler that opens a tunnel for each handshake that
// Config.Match accepts and passes all else to next. It panics if next or
// Config.Match is nil.
func (p *Proxy) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("wsproxy: nil handler")
	}
	if p.cfg.Match == nil {
		panic("wsproxy: Handler needs Config.Match")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsHandshake(r) && p.cfg.Match(r) {
			p.serve(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP opens a tunnel. It returns when the tunnel has ended, or, over
// HTTP/1.1 and with Config.Detach, when it is open.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.cfg.Fallback != nil && !IsHandshake(r) {
		p.cfg.Fallback.ServeHTTP(w, r)
		return
	}
	p.serve(w, r)
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	hs, e, out, err := p.prepare(w, r)
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	key := p.keyOf(hs)
	if err := p.enter(key); err != nil {
		p.refuse(w, r, err)
		return
	}
	entered := true
	defer func() {
		if entered {
			p.free(key)
		}
	}()
	a, err := p.dial(r.Context(), out)
	if err != nil || a.stream == nil {
		// There will be no tunnel, and the client takes what time it likes for
		// the answer.
		entered = false
		if err != nil {
			p.free(key)
			p.refuse(w, r, err)
		} else {
			p.refused(w, r, a, key)
		}
		return
	}
	back := a.stream // nothing else of a is to live as long as the tunnel
	defer func() {
		if back != nil { // also if a wrapper panics
			back.Abort()
		}
	}()
	front, err := p.accept(w, hs, a)
	if err != nil {
		back.Abort()
		if front == nil {
			p.refuse(w, r, err)
		} else if _, ok := front.(*handlerStream); ok {
			panic(http.ErrAbortHandler) // a 200 that ends is a tunnel that was open
		}
		return
	}
	t := newTunnel(p, hs, front, a)
	back = nil // it is the tunnel's from here on
	t.key = key
	t.about = about{client: hs.Client, target: e, path: strings.Clone(r.URL.Path), back: a.proto, subprotocol: strings.Clone(a.subprotocol)}
	entered = false // the tunnel has the place from here on
	p.register(t)
	if s, ok := front.(*handlerStream); ok {
		defer s.end()
	}
	t.open()
	switch s := front.(type) {
	case *connStream:
		if p.cfg.Detach {
			go t.detached()
			return
		}
		t.run()
	case *handlerStream:
		t.run()
		s.repanic()
		if s.aborted.Load() {
			// The only way to have the server reset the stream.
			panic(http.ErrAbortHandler)
		}
	}
}

// prepare does all that is to be done before a back end is dialled.
func (p *Proxy) prepare(w http.ResponseWriter, r *http.Request) (*Handshake, *endpoint, *outgoing, error) {
	fail := func(err error) (*Handshake, *endpoint, *outgoing, error) { return nil, nil, nil, err }
	hs, err := parse(r)
	if err != nil {
		return fail(err)
	}
	s := p.look(r)
	if err := p.origins.allow(hs, s.scheme, s.host); err != nil {
		return fail(err)
	}
	if hs.Subprotocols, err = p.subprotocols(hs.Subprotocols); err != nil {
		return fail(err)
	}
	if method := missing(w, r.ProtoMajor); method != "" {
		return fail(&Error{Kind: BadWriter, Err: errors.New("no " + method)})
	}
	hs.Client, hs.Header = s.client, s.outgoing(r)
	if p.cfg.OnHandshake != nil {
		if err := p.cfg.OnHandshake(hs); err != nil {
			return fail(asError(Refused, err))
		}
	}
	e, host := p.target, p.cfg.Host
	if e == nil {
		t, err := p.cfg.Director(hs)
		if err != nil {
			return fail(asError(NoTarget, err))
		}
		if t == nil {
			return fail(&Error{Kind: NoTarget, Err: errors.New("nil from Director")})
		}
		if e, err = parseTarget(t.URL); err != nil {
			return fail(&Error{Kind: NoTarget, Err: fmt.Errorf("from Director: URL %w (got %q)", err, redacted(t.URL))})
		}
		if t.Host != "" {
			if host = t.Host; !validHost(host) {
				return fail(&Error{Kind: NoTarget, Err: fmt.Errorf("from Director: Host must be a host with an optional port (got %q)", host)})
			}
		}
		for name, values := range t.Header {
			hs.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	out := &outgoing{
		target: e, uri: e.uri(r.URL), host: e.hostFor(host, r.Host), header: hs.Header, subprotocols: hs.Subprotocols,
	}
	for name := range hs.Header {
		if classOf(name) == fieldHop {
			delete(hs.Header, name) // a hook set it
		}
	}
	if !p.cfg.StripExtensions {
		out.extensions = hs.extensions
	}
	return hs, e, out, nil
}

// asError makes an *Error of what a hook returned, unless it is fit to be
// answered with as it is.
func asError(kind Kind, err error) error {
	var e interface {
		error
		HTTPStatus() int
		Code() string
	}
	if errors.As(err, &e) {
		return err
	}
	return &Error{Kind: kind, Err: err}
}

// dial asks the back end. It stops when the client goes, and when the Proxy is
// closed.
func (p *Proxy) dial(ctx context.Context, out *outgoing) (*answer, error) {
	client := ctx
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.life, cancel)
	end := func() { stop(); cancel() }
	reading := false
	defer func() {
		if !reading { // also if a callback of the Config panics
			end()
		}
	}()
	a, err := p.dialer.dial(ctx, out)
	if err != nil && p.life.Err() != nil && client.Err() == nil {
		err = &Error{Kind: ShuttingDown, Err: err}
	}
	if err == nil && a.stream == nil {
		// The body is still to be read.
		reading = true
		a.Body = &bodyWithCancel{a.Body, end}
	}
	return a, err
}
