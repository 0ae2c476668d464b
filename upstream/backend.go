package upstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
)

// backend is what the Pool keeps for a target as long as the target is the
// same: its connections and its statistics.
type backend struct {
	pool *Pool
	ep   *endpoint

	base    http.RoundTripper // of Config.Transport; nil if the connections are our own
	tripper http.RoundTripper // what attempts call; nil is send itself
	foreign bool

	main  *connSet
	load  *load
	stats stats

	target atomic.Pointer[endpoint] // ep with what has changed since

	mu     sync.Mutex
	h1     *connSet // for upgrades, where main may speak HTTP/2
	gone   bool     // drained
	closed error
}

func newBackend(p *Pool, ep *endpoint) (*backend, error) {
	be := &backend{pool: p, ep: ep, load: p.selector.newLoad()}
	be.target.Store(ep)
	if p.cfg.Transport != nil {
		base, err := p.cfg.Transport(ep.Target)
		if err != nil {
			return nil, err
		}
		be.base, be.foreign = base, base != nil
	}
	switch {
	case !be.foreign && ep.proto == protoForeign:
		return nil, errors.New("Config.Transport returned no tripper for this scheme")
	case be.foreign && p.checks == CheckTCP:
		be.closeBase()
		return nil, errors.New("that of Config.Transport makes its own connections, so that Check.Kind cannot be CheckTCP")
	}
	be.main = newConnSet(be, ep.proto, be.limits(), nil)
	if be.foreign {
		be.main.wire = wireH2
		be.main.limits.MaxConns, be.main.limits.MaxAge, be.main.limits.MinIdle, be.main.limits.MaxRequests = 0, 0, 0, 0
		stand := &conn{set: be.main, h2: true}
		stand.limit.Store(1 << 30)
		be.main.shared = []*conn{stand}
		be.tripper = innermost{be}
	} else {
		be.main.dialer = newDialer(be, &p.cfg, p.conns, false)
	}
	if p.cfg.Wrap != nil {
		t, err := p.cfg.Wrap(ep.Target, innermost{be})
		if err != nil {
			be.closeBase()
			return nil, err
		}
		if t != nil {
			be.tripper = t
		}
	}
	if _, direct := be.tripper.(innermost); direct {
		be.tripper = nil
	}
	return be, nil
}

// limits are the Pool's with the target's own number of requests.
func (be *backend) limits() Conns {
	l := be.pool.conns
	if n := be.target.Load().MaxInFlight; n != 0 {
		l.MaxInFlight = max(n, 0)
	}
	return l
}

// same reports whether a target is to be served by the same connections and
// trippers as before. Labels are nothing to connections, but a tripper of the
// user's may have been made for them.
func (be *backend) same(ep *endpoint) bool {
	a, b := *be.ep, *ep
	if (be.foreign || be.tripper != nil) && !maps.Equal(a.Labels, b.Labels) {
		return false
	}
	for _, e := range []*endpoint{&a, &b} {
		e.Weight, e.Priority, e.Draining, e.MaxInFlight, e.Labels = 0, 0, false, 0, nil
	}
	return reflect.DeepEqual(a, b)
}

// setFor returns the connections that req can go over.
func (be *backend) setFor(req *http.Request) (*connSet, *Error) {
	if len(req.Header["Upgrade"]) == 0 || be.foreign {
		return be.main, nil
	}
	switch be.ep.proto {
	case protoH1:
		return be.main, nil
	case protoH2, protoH2C:
		return nil, &Error{Kind: KindPolicy, Err: errUpgradeH2, status: http.StatusNotImplemented}
	}
	be.mu.Lock()
	defer be.mu.Unlock()
	if be.h1 == nil {
		be.h1 = newConnSet(be, protoH1, be.limits(), newDialer(be, &be.pool.cfg, be.pool.conns, true))
		be.h1.limits.MinIdle = 0
		be.h1.draining = be.gone
		be.h1.closed = be.closed
	}
	return be.h1, nil
}

var errUpgradeH2 = errors.New("an upgrade is not possible over HTTP/2")

// sets calls f for the connection sets there are.
func (be *backend) sets(f func(*connSet)) {
	f(be.main)
	be.mu.Lock()
	h1 := be.h1
	be.mu.Unlock()
	if h1 != nil {
		f(h1)
	}
}

// adopt takes over what may change of a target that is the same.
func (be *backend) adopt(ep *endpoint) {
	be.target.Store(ep)
	be.sets(func(s *connSet) {
		n := be.pool.conns.MaxInFlight
		if ep.Target.MaxInFlight != 0 {
			n = max(ep.Target.MaxInFlight, 0)
		}
		s.setSlots(n)
	})
}

// dialFailed is told of every dial that failed.
func (be *backend) dialFailed(err *Error) {
	be.stats.dialFailures.Add(1)
	if r, ok := be.pool.cfg.Resolver.(Refresher); ok {
		r.Refresh()
	}
}

func (be *backend) closeIdle() {
	be.sets((*connSet).closeIdle)
	if c, ok := be.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// drain is called when the target is no longer one: what runs may end.
func (be *backend) drain() {
	be.mu.Lock()
	be.gone = true
	be.mu.Unlock()
	if be.foreign {
		if c, ok := be.base.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
		return
	}
	be.sets((*connSet).drain)
}

// close ends everything.
func (be *backend) close(err error) {
	be.mu.Lock()
	be.closed = err
	be.mu.Unlock()
	be.sets(func(s *connSet) { s.close(err) })
	be.closeBase()
}

func (be *backend) closeBase() {
	switch c := be.base.(type) {
	case io.Closer:
		c.Close()
	case interface{ CloseIdleConnections() }:
		c.CloseIdleConnections() // an http.Transport has nothing else
	}
}

// idleNow reports whether nothing runs on the back end, or is about to: a
// tripper of the user's has a request before it needs a connection.
func (be *backend) idleNow() bool {
	busy := be.load.active.Load() > 0
	be.sets(func(s *connSet) {
		inflight, _, _, queued := s.usage()
		busy = busy || inflight > 0 || queued > 0
	})
	return !busy
}

// probe sends a request of the health check, past all that judges or limits
// the requests of users: on a connection that is free, or a fresh one.
func (be *backend) probe(ctx context.Context, req *http.Request) (*http.Response, error) {
	req = req.WithContext(ctx)
	req.URL.Scheme, req.URL.Host = be.ep.scheme(), be.ep.urlHost
	if req.Host == "" {
		req.Host = be.ep.urlHost
		if be.ep.sendHost != "" {
			req.Host = be.ep.sendHost
		}
	}
	if be.foreign {
		res, err := be.base.RoundTrip(req)
		switch {
		case err != nil:
			return nil, err
		case res == nil:
			return nil, errNoAnswer
		case res.Body == nil:
			res.Body = http.NoBody // the tripper has left it out
		}
		return res, nil
	}
	c, err := be.connFor(ctx)
	if err != nil {
		return nil, err
	}
	c.bindRequest(req.Header)
	res, rerr := c.cc.RoundTrip(req)
	if rerr != nil {
		be.main.releaseProbe(c)
		return nil, rerr
	}
	c.served.Store(true)
	c.bindResponse(res)
	res.Body = &probeBody{ReadCloser: res.Body, be: be, conn: c}
	return res, nil
}

// connFor returns a connection outside of all limits.
func (be *backend) connFor(ctx context.Context) (*conn, error) {
	s := be.main
	for range 2 {
		s.mu.Lock()
		c := s.take()
		if c != nil {
			s.inflight++
			s.probes++
		}
		s.unlock()
		if c == nil {
			break
		}
		if c.usable() {
			return c, nil
		}
		s.mu.Lock()
		s.inflight--
		s.probes--
		s.untake(c)
		s.unlock()
	}
	c, err := s.dialer.dialWithin(ctx, s)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed != nil {
		err := s.closed
		s.trash = append(s.trash, c)
		s.unlock()
		return nil, err
	}
	s.add(c)
	c = s.take() // that one, or one that is as good
	if c != nil {
		s.inflight++
		s.probes++
	}
	s.unlock()
	if c == nil || !c.usable() {
		if c != nil {
			s.releaseProbe(c)
		}
		return nil, errClosedAtOnce
	}
	return c, nil
}

// releaseProbe gives back the connection of a check.
func (s *connSet) releaseProbe(c *conn) {
	reusable := !c.h2 && c.cc.Available() > 0
	s.mu.Lock()
	s.probes--
	s.giveBack(c, reusable)
	s.unlock()
}

// probeBody gives back the connection when the response has been dealt with.
type probeBody struct {
	io.ReadCloser
	be   *backend
	conn *conn
	once sync.Once
}

func (b *probeBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { b.be.main.releaseProbe(b.conn) })
	return err
}

// connect makes a connection and closes it, for the check that asks no more.
func (be *backend) connect(ctx context.Context) error {
	d := be.main.dialer
	if d == nil {
		return errors.New("a check of connections needs a target with connections of the Pool's own")
	}
	c, err := d.connect(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// warm makes the connections that Pool.Warm asks for.
func (be *backend) warm(ctx context.Context) error {
	if be.foreign {
		return nil
	}
	s := be.main
	for {
		s.mu.Lock()
		have := len(s.idle) + len(s.shared)
		want := max(1, s.limits.MinIdle)
		if s.wire == wireH2 {
			want = 1
		}
		enough := have >= want || !s.room()
		s.mu.Unlock()
		if enough {
			return nil
		}
		c, err := s.dialer.dialWithin(ctx, s)
		if err != nil {
			return err
		}
		s.mu.Lock()
		closed := s.closed
		if closed != nil {
			s.trash = append(s.trash, c)
		} else {
			s.add(c)
			s.serve()
		}
		s.unlock()
		if closed != nil {
			return closed
		}
	}
}
