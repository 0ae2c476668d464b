package upstream

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Pool sends requests to one of several back ends. It is an http.RoundTripper
// for an http.Client, and for a [Proxy], which gains from the two knowing each
// other. It is safe for concurrent use.
//
// Scheme (http or https) and host of a request's URL do not select the target:
// all requests go to the Pool's targets. Redirects that an http.Client follows
// do so as well, wherever they point; see [Config.Hosts].
//
// Its errors are of type *[Error].
type Pool struct {
	cfg      Config // only what is called: Dial, Transport, Wrap, Resolver, TLS
	conns    Conns
	retry    Retry
	key      func(*http.Request) (uint64, bool)
	hosts    []string
	checks   CheckKind
	observer Observer
	logger   *slog.Logger

	epoch    time.Time
	selector *selector
	checker  *checker
	budget   budget

	ctx        context.Context // of everything that is no request
	cancel     context.CancelCauseFunc
	goroutines goroutines

	closed atomic.Bool // no new requests
	update sync.Mutex  // one Update at a time

	known chan struct{} // closed once there are back ends

	mu       sync.Mutex
	backends []*member // in the order of the targets
	leaving  []*backend
	ended    bool // Close was called

	_    [64]byte     // what stands before is read by every request
	held atomic.Int64 // requests that may be between two attempts
}

// member is a back end with what may change about it.
type member struct {
	be   *backend
	peer *Peer
	ep   *endpoint
}

var errPoolClosed = errors.New("the Pool is closed")

// New returns a Pool. Nothing is dialled before the first request, except
// for checks, [Conns].MinIdle and [Pool.Warm]. The error lists every field that
// is wrong.
func New(cfg Config) (*Pool, error) {
	bad := cfg.check()
	bad = append(bad, cfg.Outlier.check()...)
	bad = append(bad, checkPicker(cfg.Picker)...)
	if cfg.Check != nil {
		bad = append(bad, cfg.Check.check()...)
	}
	if cfg.Sticky != nil {
		bad = append(bad, cfg.Sticky.check()...)
	}
	eps, wrong := parseTargets(cfg.Targets, cfg.Transport != nil, cfg.checkKind())
	bad = append(bad, wrong...)
	if err := bad.err(); err != nil {
		return nil, err
	}

	p := &Pool{
		cfg:      cfg,
		conns:    cfg.Conns.ready(),
		retry:    cfg.Retry.ready(),
		key:      cfg.Key,
		hosts:    slices.Clone(cfg.Hosts),
		observer: cfg.Observer,
		logger:   cfg.Logger,
		checks:   cfg.checkKind(),
		epoch:    time.Now(),
		known:    make(chan struct{}),
	}
	if p.logger == nil {
		p.logger = slog.New(slog.DiscardHandler)
	}
	p.cfg.TLS = cfg.TLS.Clone()
	p.cfg.Targets, p.cfg.Hosts = nil, nil
	p.budget.percent = p.retry.Budget
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.selector = newSelector(selectorConfig{
		picker: cfg.Picker, slowStart: cfg.SlowStart, failOpen: cfg.FailOpen,
		outlier: cfg.Outlier, sticky: cfg.Sticky, onState: p.stateChanged,
	})
	if cfg.Check != nil {
		p.checker = newChecker(checkerConfig{
			check: *cfg.Check,
			probe: func(ctx context.Context, peer *Peer, req *http.Request) (*http.Response, error) {
				return peer.owner.(*backend).probe(ctx, req)
			},
			connect: func(ctx context.Context, peer *Peer) error { return peer.owner.(*backend).connect(ctx) },
			report:  p.selector.setHealthy,
		})
	}
	if err := p.set(eps); err != nil {
		p.Close()
		return nil, err
	}
	p.goroutines.run(p.sweep)
	if cfg.Resolver != nil {
		p.goroutines.run(func() { p.follow(p.ctx, cfg.Resolver) })
	}
	return p, nil
}

// RoundTrip implements http.RoundTripper. If what Config has it call panics, that
// goes on to the caller, and nothing of the request is left. What runs in
// goroutines of the Pool's own has nobody to recover for it: a panic of Dial, of a
// function of TLS, of Check.Expect, of a tripper of Transport in a check or of the
// Resolver ends the program, and so may one of Observer.State.
func (p *Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := p.refuse(req); err != nil {
		return nil, err
	}
	c := &callCopy{req: *req, url: *req.URL}
	c.req.URL = &c.url
	return c.roundTrip(p, req, &c.req, recordFrom(req.Context()))
}

// now is the time since the Pool was made.
func (p *Pool) now() time.Duration { return time.Since(p.epoch) }

// Update makes targets the back ends. Those that stay, by [Target].ID and what
// is connected to, keep their connections and their state of health. Requests
// to those that go end undisturbed, and their connections are closed after
// that. The error lists every problem, and nothing has changed then.
//
// Weight, Priority, Draining, MaxInFlight and Labels may change of a target that
// stays. With [Config.Wrap] or [Config.Transport], whose trippers may have been
// made for its Labels, other Labels make another back end of it.
func (p *Pool) Update(targets []Target) error {
	var bad problems
	if len(targets) == 0 {
		bad.add("Targets", "must have an element", 0)
	}
	eps, wrong := parseTargets(targets, p.cfg.Transport != nil, p.checks)
	if err := append(bad, wrong...).err(); err != nil {
		return err
	}
	return p.set(eps)
}

// set makes eps the back ends, and tells what that has changed once another
// Update may come.
func (p *Pool) set(eps []*endpoint) error {
	events, err := p.replace(eps)
	p.selector.tell(events)
	return err
}

func (p *Pool) replace(eps []*endpoint) ([]event, error) {
	p.update.Lock()
	defer p.update.Unlock()
	old := make(map[string]*member)
	p.mu.Lock()
	for _, m := range p.backends {
		old[m.ep.ID] = m
	}
	p.mu.Unlock()

	var bad problems
	var members []*member
	var made []*backend
	for _, ep := range eps {
		m := &member{ep: ep}
		if o := old[ep.ID]; o != nil && o.be.same(ep) {
			m.be = o.be
		} else {
			be, err := newBackend(p, ep)
			if err != nil {
				bad.add("Targets", "no tripper: "+err.Error(), ep.ID)
				continue
			}
			m.be = be
			made = append(made, be)
		}
		m.peer = &Peer{ID: ep.ID, Weight: ep.Weight, Priority: ep.Priority, Draining: ep.Draining, Labels: ep.Labels, load: m.be.load, owner: m.be}
		members = append(members, m)
	}
	abandon := func(err error) ([]event, error) {
		for _, be := range made {
			be.close(err)
		}
		return nil, err
	}
	if err := bad.err(); err != nil {
		return abandon(err)
	}

	p.mu.Lock()
	if p.ended || p.closed.Load() {
		p.mu.Unlock()
		return abandon(&Error{Kind: KindClosed, Err: errPoolClosed})
	}
	if len(p.backends) == 0 && len(members) > 0 {
		close(p.known) // there are always some from now on
	}
	p.backends = members
	var gone []*backend
	for _, m := range members {
		if o := old[m.ep.ID]; o != nil && o.be == m.be {
			delete(old, m.ep.ID)
		}
	}
	for _, o := range old {
		gone = append(gone, o.be)
	}
	p.leaving = append(p.leaving, gone...)
	p.mu.Unlock()
	for _, m := range members {
		m.be.adopt(m.ep)
	}
	peers := make([]*Peer, len(members))
	for i, m := range members {
		peers[i] = m.peer
	}
	events := p.selector.replace(peers)
	if p.checker != nil {
		p.checker.set(peers)
	}
	for _, be := range gone {
		be.drain()
	}
	return events, nil
}

// follow applies what the resolver says.
func (p *Pool) follow(ctx context.Context, r Resolver) {
	err := r.Watch(ctx, func(targets []Target) {
		if err := p.Update(targets); err != nil && ctx.Err() == nil {
			p.logger.LogAttrs(ctx, slog.LevelError, "upstream: the resolver's targets are not usable", slog.Any("error", err))
		}
	})
	if err != nil && ctx.Err() == nil {
		p.logger.LogAttrs(ctx, slog.LevelError, "upstream: the resolver has ended", slog.Any("error", err))
	}
}

// stateChanged is called by the selector.
func (p *Pool) stateChanged(peer *Peer, old, now State, reason string) {
	be := peer.owner.(*backend)
	if now == StateUnhealthy || now == StateEjected {
		be.closeIdle()
	}
	level := slog.LevelInfo
	if now == StateUnhealthy || now == StateEjected {
		level = slog.LevelWarn
	}
	p.logger.LogAttrs(p.ctx, level, "upstream: back end is "+now.String(),
		slog.String("backend", peer.ID), slog.String("was", old.String()), slog.String("reason", reason))
	if p.observer.State != nil {
		p.observer.State(StateChange{Target: be.target.Load().Target, Old: old, New: now, Reason: reason})
	}
}

// sweep looks after connections until the Pool is closed.
func (p *Pool) sweep() {
	t := time.NewTicker(sweepInterval(p.conns))
	defer t.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-t.C:
		}
		p.mu.Lock()
		members := slices.Clone(p.backends)
		leaving := slices.Clone(p.leaving) // Close must find them all the while
		p.mu.Unlock()
		for _, m := range members {
			m.be.sets((*connSet).sweep)
		}
		var ended []*backend
		for _, be := range leaving {
			be.sets((*connSet).sweep)
			if be.idleNow() {
				be.close(errPoolClosed)
				ended = append(ended, be)
			}
		}
		if ended != nil {
			p.mu.Lock()
			p.leaving = slices.DeleteFunc(p.leaving, func(be *backend) bool { return slices.Contains(ended, be) })
			p.mu.Unlock()
		}
	}
}

// Warm makes a connection to each back end that has none, or as many as
// [Conns].MinIdle, so that the first requests do not wait for it. It returns
// the errors of those where that failed. Where there are none yet, because the
// Resolver has not answered, it waits for that.
func (p *Pool) Warm(ctx context.Context) error {
	select {
	case <-p.known:
	default:
		select {
		case <-p.known:
		case <-ctx.Done():
			return contextError(ctx, "")
		case <-p.ctx.Done():
			return &Error{Kind: KindClosed, Err: errPoolClosed}
		}
	}
	p.mu.Lock()
	members := slices.Clone(p.backends)
	p.mu.Unlock()
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.be.warm(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Healthy returns how many back ends are healthy, and how many there are.
// Those that drain count only as being there.
func (p *Pool) Healthy() (healthy, total int) { return p.selector.counts() }

// Backends iterates over a look at each back end, in the order of the targets.
func (p *Pool) Backends() iter.Seq[BackendStats] {
	return func(yield func(BackendStats) bool) {
		p.mu.Lock()
		members := slices.Clone(p.backends)
		p.mu.Unlock()
		for _, m := range members {
			s := m.be.look()
			s.Target = m.ep.Target
			s.State = p.selector.state(m.peer)
			s.Active = m.peer.Active()
			s.Latency = m.peer.Latency()
			if !yield(s) {
				return
			}
		}
	}
}

// CloseIdleConnections closes the connections that carry no request.
func (p *Pool) CloseIdleConnections() {
	for _, be := range p.all() {
		be.closeIdle()
	}
}

// all lists the back ends, those that are leaving included.
func (p *Pool) all() []*backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*backend
	for _, m := range p.backends {
		all = append(all, m.be)
	}
	return append(all, p.leaving...)
}

// Shutdown refuses new requests, waits until those that run have ended, the
// bodies of their responses included, and closes the Pool. If ctx ends before,
// it closes the Pool all the same and returns the context's error.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.closed.Store(true)
	t := time.NewTicker(shutdownPoll)
	defer t.Stop()
	for p.busy() {
		select {
		case <-ctx.Done():
			p.Close()
			return ctx.Err()
		case <-t.C:
		}
	}
	return p.Close()
}

// shutdownPoll is how often Shutdown looks, as that of http.Server does: a
// counter of all requests would be a cache line that every one of them writes.
const shutdownPoll = 10 * time.Millisecond

// busy reports whether a request runs. One that is sent again goes from a back end
// by way of held to a back end, so that looks in this order do not miss it.
func (p *Pool) busy() bool {
	onBackend := func() bool {
		return slices.ContainsFunc(p.all(), func(be *backend) bool { return !be.idleNow() })
	}
	return onBackend() || p.held.Load() > 0 || onBackend()
}

// Close closes all connections, which fails the requests that run, ends checks
// and resolver, and waits for the Pool's goroutines. It may be called twice.
// What was passed in Config is not closed, but for the trippers that
// Config.Transport made, and their idle connections.
func (p *Pool) Close() error {
	p.closed.Store(true)
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.cancel(errPoolClosed)
	p.selector.close()
	if p.checker != nil {
		p.checker.close()
	}
	for _, be := range p.all() {
		be.close(errPoolClosed)
	}
	p.goroutines.end()
	return nil
}
