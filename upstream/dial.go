package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// conn is one connection to a back end.
type conn struct {
	set *connSet
	cc  *http.ClientConn
	nc  *netConn
	h2  bool
	tls *tls.ConnectionState // of an HTTP/1.1 connection, where net/http does not see it

	// Guarded by set.mu.
	dials     int // of closedDials, until it was there; 0 once it has been idle without use
	requests  int
	idleSince time.Duration // since the pool's epoch
	expires   time.Duration // likewise; 0 is never
	retired   bool

	// bound is set by the attempt that has the connection, before it gives it back.
	bound bool

	streams atomic.Int32 // HTTP/2: requests that were given this connection
	limit   atomic.Int32 // HTTP/2: how many it takes

	known  bool        // HTTP/2: limit is what the peer has announced
	served atomic.Bool // it has brought a response

	dead atomic.Bool // closed, by whichever side
	ours atomic.Bool // closed by us
	late atomic.Bool // closed because HeaderTimeout passed

	watch watch

	dialTime time.Duration // what it took to make
	stop     func() bool   // ends the dial's hold on it
}

// foreign reports whether c only stands for the tripper of Config.Transport,
// which has connections of its own.
func (c *conn) foreign() bool { return c.cc == nil }

// usable reports whether the connection takes one more RoundTrip: not where it
// has closed or allows for no more. Its place is counted here already, so that
// there is no need for net/http's Reserve, which allocates; and over HTTP/2,
// requests wait for each other's reservations for ever where the peer comes to
// allow for fewer than there are.
func (c *conn) usable() bool {
	if c.foreign() {
		return true
	}
	if c.cc.Available() == 0 {
		if !c.h2 || c.cc.Err() != nil {
			c.dead.Store(true)
		} else {
			// Full, or going away: taken for full, with the requests it carries
			// beside this one. net/http can count more, streams that were reset
			// and not yet forgotten. The hook finds out as soon as one ends.
			c.limit.Store(max(0, c.streams.Load()-1))
			switch available, busy := look(c.cc); {
			case available > 0: // one has, meanwhile
				c.limit.Store(int32(min(available+busy, 1<<30)))
			case busy == 0:
				c.dead.Store(true)
			}
		}
		return false
	}
	return true
}

// stillborn reports whether the connection was made for a request that waits, and
// has closed without a response. One that was made in advance may just have aged.
func (c *conn) stillborn() bool { return c.dials > 0 && c.dead.Load() && !c.served.Load() }

// close closes the connection and interrupts what it carries.
func (c *conn) close() {
	if c.foreign() {
		return
	}
	c.ours.Store(true)
	c.cc.Close()
	c.nc.Close() // net/http has let go of it after a 101
	c.gone()
}

// gone is called once or more when the connection has closed.
func (c *conn) gone() {
	if c.dead.CompareAndSwap(false, true) || c.ours.Load() {
		c.set.lost(c)
	}
}

// dialer makes connections to one back end. Its http.Transport never keeps
// one; it is only where net/http takes its settings from.
type dialer struct {
	be        *backend
	transport *http.Transport
	dialNet   func(ctx context.Context, network, addr string) (net.Conn, error)
	tls       *tls.Config
	wantH2    bool
}

// continueTimeout is how long a body waits for a 100 (Continue) that its
// request asked for, before it is sent all the same (RFC 9110 section 10.1.1).
const continueTimeout = time.Second

var errNoH2 = errors.New("the back end does not speak HTTP/2 (no h2 by ALPN)")

// connKey is the context key for the conn that is being made, by which the
// transport's dial hooks find it.
type connKey struct{}

// newDialer returns a dialer for proto, or, with h1Only, for HTTP/1.1 to a
// target that may well prefer HTTP/2: upgrades need it.
func newDialer(be *backend, cfg *Config, limits Conns, h1Only bool) *dialer {
	d := &dialer{be: be, dialNet: cfg.Dial, wantH2: be.ep.proto == protoH2}
	if d.dialNet == nil {
		d.dialNet = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	protocols := new(http.Protocols)
	switch {
	case be.ep.proto == protoH2C:
		protocols.SetUnencryptedHTTP2(true)
		protocols.SetHTTP2(true) // registers the implementation that NewClientConn uses
	case be.ep.secure() && !h1Only:
		protocols.SetHTTP1(be.ep.proto == protoTLS)
		protocols.SetHTTP2(true)
	default:
		protocols.SetHTTP1(true)
	}
	if be.ep.secure() {
		d.tls = cfg.TLS.Clone()
		if d.tls == nil {
			d.tls = new(tls.Config)
		}
		if d.tls.ServerName == "" || be.ep.ServerName != "" {
			d.tls.ServerName = be.ep.sni
		}
		switch {
		case h1Only:
			d.tls.NextProtos = []string{"http/1.1"}
		case d.wantH2:
			d.tls.NextProtos = []string{"h2"}
		default:
			d.tls.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	d.transport = &http.Transport{
		DialContext:            d.dialPlain,
		DialTLSContext:         d.dialTLS,
		DisableCompression:     true,
		MaxResponseHeaderBytes: limits.MaxResponseHeader,
		ExpectContinueTimeout:  continueTimeout,
		Protocols:              protocols,
		HTTP2:                  &http.HTTP2Config{},
	}
	if limits.Ping > 0 {
		d.transport.HTTP2.SendPingTimeout = limits.Ping
		d.transport.HTTP2.PingTimeout = limits.Ping
	}
	if be.ep.proto == protoH2C || be.ep.secure() && !h1Only {
		// Over HTTP/1.1 the connection's watch does this at no cost per request.
		d.transport.ResponseHeaderTimeout = limits.HeaderTimeout
	}
	return d
}

// dial makes one connection. The limits of time hold from here: DialTimeout
// and, over TLS, TLSTimeout after it.
func (d *dialer) dial(s *connSet) (*conn, *Error) { return d.dialWithin(d.be.pool.ctx, s) }

// dialWithin is dial for as long as ctx lasts.
func (d *dialer) dialWithin(ctx context.Context, s *connSet) (*conn, *Error) {
	p := d.be.pool
	start := p.now()
	c := &conn{set: s}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, connKey{}, c))
	defer cancel(nil)
	scheme := "http"
	if d.tls != nil {
		scheme = "https"
	}
	if t := d.timeout(s.limits); t > 0 {
		timer := time.AfterFunc(t, func() { cancel(errDialTimeout) })
		defer timer.Stop()
	}
	cc, err := d.transport.NewClientConn(ctx, scheme, d.be.ep.dialKey)
	if err == nil && c.h2 {
		c.known = c.greeted()
	}
	if err == nil && !c.stop() {
		cc.Close()
		err = context.Cause(ctx)
	}
	if err == nil && c.dead.Load() {
		cc.Close()
		err = errClosedAtOnce
	}
	if err != nil {
		return nil, d.failure(ctx, err)
	}
	c.cc, c.dialTime = cc, p.now()-start
	if c.h2 {
		c.limit.Store(int32(max(1, min(cc.Available(), 1<<30))))
		cc.SetStateHook(func(cc *http.ClientConn) { s.stateChanged(c, cc) })
	}
	return c, nil
}

// settingsWait is how long a new HTTP/2 connection waits for the SETTINGS that its
// peer sends first of all (RFC 9113 section 3.4). What is sent before is sent
// without knowing how many requests the peer allows, and net/http may get stuck
// where those that have a place are more.
const settingsWait = time.Second

// greeted waits for the peer's SETTINGS, or the end of the connection. It
// reports whether either came.
func (c *conn) greeted() bool {
	t := time.NewTimer(settingsWait)
	defer t.Stop()
	select {
	case <-c.nc.spoken.done:
		return true
	case <-t.C:
		return false
	}
}

// guard makes nc the connection, and closes it when ctx ends: net/http writes
// the HTTP/2 preface without regard for that.
func (c *conn) guard(ctx context.Context, nc *netConn) {
	c.nc, c.h2 = nc, nc.h2
	if nc.h2 {
		nc.spoken = &signal{done: make(chan struct{})}
	}
	c.stop = context.AfterFunc(ctx, func() { nc.Close() })
}

var errClosedAtOnce = errors.New("the back end closed the connection at once")

var errDialTimeout = &timeoutError{"dialling took longer than allowed"}

// timeoutError is a net.Error for a limit of ours.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string   { return e.text }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

func (d *dialer) timeout(l Conns) time.Duration {
	switch {
	case d.tls == nil:
		return l.DialTimeout
	case l.DialTimeout == 0 || l.TLSTimeout == 0:
		return 0
	}
	return l.DialTimeout + l.TLSTimeout
}

// tlsFailure marks what went wrong after the dial itself.
type tlsFailure struct{ err error }

func (e *tlsFailure) Error() string { return e.err.Error() }
func (e *tlsFailure) Unwrap() error { return e.err }

func (d *dialer) failure(ctx context.Context, err error) *Error {
	e := &Error{Kind: KindDial, Backend: d.be.ep.ID, Err: err}
	if t, ok := errors.AsType[*tlsFailure](err); ok {
		e.Kind, e.Err = KindTLS, t.err
	}
	if cause := context.Cause(ctx); cause != nil {
		e.Err = cause
		if cause == errPoolClosed {
			e.Kind = KindClosed
		}
	}
	return e
}

// dialPlain is the transport's DialContext: HTTP/1.1 and HTTP/2 without TLS.
func (d *dialer) dialPlain(ctx context.Context, _, _ string) (net.Conn, error) {
	c := ctx.Value(connKey{}).(*conn)
	raw, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.guard(ctx, &netConn{Conn: raw, h2: d.be.ep.proto == protoH2C, onClose: c.gone})
	return c.nc, nil
}

// dialTLS is the transport's DialTLSContext. It does the handshake, so that
// what ALPN agreed on is known and a back end that does not speak HTTP/2 where it
// must is never spoken to.
func (d *dialer) dialTLS(ctx context.Context, _, _ string) (net.Conn, error) {
	c := ctx.Value(connKey{}).(*conn)
	raw, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	below := &netConn{Conn: raw, h2: true, onClose: c.gone}
	tc := tls.Client(below, d.tls)
	hctx := ctx
	if t := d.be.pool.conns.TLSTimeout; t > 0 {
		var cancel context.CancelFunc
		hctx, cancel = context.WithTimeoutCause(ctx, t, &timeoutError{fmt.Sprintf("TLS handshake took longer than %v", t)})
		defer cancel()
	}
	if err := tc.HandshakeContext(hctx); err != nil {
		raw.Close()
		if cause := context.Cause(hctx); cause != nil {
			err = cause
		}
		return nil, &tlsFailure{err}
	}
	state := tc.ConnectionState()
	if state.NegotiatedProtocol == "h2" {
		c.guard(ctx, below)
		return tc, nil // as it is, or net/http would not see that it is HTTP/2
	}
	if d.wantH2 {
		tc.Close()
		return nil, &tlsFailure{errNoH2}
	}
	below.onClose = nil
	c.tls = &state
	c.guard(ctx, &netConn{Conn: tc, onClose: c.gone})
	return c.nc, nil
}

// connect dials within DialTimeout.
func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	if t := d.be.pool.conns.DialTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, errDialTimeout)
		defer cancel()
	}
	c, err := d.dialNet(ctx, d.be.ep.network, d.be.ep.addr)
	if err == nil && c == nil {
		err = errors.New("the Dial of the Config returned neither a connection nor an error")
	}
	return c, err
}

// jitter returns d, give or take a tenth.
func jitter(d time.Duration) time.Duration {
	d = min(d, math.MaxInt64/2) // which is for ever, and leaves room for the tenth
	if d < 10 {
		return d
	}
	return d - d/10 + rand.N(d/5)
}
