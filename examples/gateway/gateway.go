package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"time"

	"example.com/plainware/breaker"
	"example.com/plainware/forwardauth"
	"example.com/plainware/ratelimit"
	"example.com/plainware/reqid"
	"example.com/plainware/store"
	"example.com/plainware/timeout"
	"example.com/plainware/upstream"
	"example.com/plainware/wsproxy"
)

// config is what the gateway is made of.
type config struct {
	targets []*url.URL                // back ends, at least one
	canary  *canary                   // one more, for a share of the clients; nil: none
	calls   upstream.Config           // how they are called; newBackends sets the rest
	breaker breaker.Config            // of each; newBreakers sets the rest
	limits  timeout.Limits            // for requests that no route matches
	routes  map[string]timeout.Limits // by ServeMux pattern; nil: no routes
	demos   *demos                    // to kill and start; nil: none
	login   http.Handler              // of the demo; nil: none
	hooks   *hooks                    // likewise
	guard   *forwardauth.Middleware   // likewise, of /private
	chat    *wsproxy.Proxy            // likewise, of /chat
	store   store.Store               // of rates and breakers; nil is memory
	streams context.Context           // its end ends event streams
	logger  *slog.Logger
}

// edgeLimits are right for back ends of which nothing is known. A client that
// stops sending or reading is cut, however long a steady transfer takes. A
// limit on the whole request is the operator's choice, because it would also
// cut event streams. A back end that does not begin to answer is the
// concern of those who call it; see callDefaults.
func edgeLimits(total time.Duration) timeout.Limits {
	return timeout.Limits{
		Total:     total,
		ReadIdle:  10 * time.Second,
		WriteIdle: 30 * time.Second,
	}
}

// demoRoutes are the patterns of the demo back ends and how long each may
// take. A zero field inherits from the gateway's limits, a negative one is no
// limit.
func demoRoutes() map[string]timeout.Limits {
	return map[string]timeout.Limits{
		"GET /hello":    {Total: 5 * time.Second},
		"GET /posts":    {Total: 5 * time.Second},
		"GET /slow":     {Total: 2 * time.Second},
		"GET /events":   {Total: -1}, // lasts as long as the client stays
		"GET /download": {Total: 10 * time.Minute},
		"POST /upload":  {Total: 10 * time.Minute},
		"/":             {},
	}
}

// rates are how much one client may ask for. Both kinds are decided together: a
// request that one of them refuses takes nothing from the others.
//
// Everybody is counted by address, at a rate and by the day. Who sends an API
// key is counted by that as well. A key that somebody makes up is one limit more
// and no way around the others; a gateway that knows its keys would refuse it.
func rates() []ratelimit.Policy {
	key := ratelimit.ByHeader("X-Api-Key")
	return []ratelimit.Policy{
		{Name: "address", Limit: ratelimit.PerSecond(50).Burst(200)},
		{Name: "address-day", Limit: ratelimit.Quota(200_000, 24*time.Hour)},
		{Name: "key", Limit: ratelimit.PerMinute(60).Burst(10), Key: key, Optional: true},
		{Name: "key-day", Limit: ratelimit.Quota(10_000, 24*time.Hour), Key: key, Optional: true},
	}
}

// gateway is the chain of handlers, and what has to end with it.
type gateway struct {
	http.Handler
	sockets *wsproxy.Proxy // to be shut down beside the server, which cannot close WebSockets
	stop    []io.Closer
}

// Close ends what the handlers have started, once none runs any more.
func (g *gateway) Close() error {
	var err error
	for _, c := range g.stop {
		err = errors.Join(err, c.Close())
	}
	return err
}

// newGateway builds the chain of handlers. Each one stands where it does for a
// reason; read it from the bottom up, which is the way a request goes.
func newGateway(cfg config) (g *gateway, err error) {
	ids, idsErr := reqid.New(reqid.Config{
		// An edge makes the IDs: what a stranger sends is only kept in the
		// log, as client_request_id. Behind a proxy of your own, name it:
		// reqid.TrustPrefixes(netip.MustParsePrefix("10.0.0.0/8")).
		Trust: reqid.TrustNone,
	})

	// Innermost, the way to the back ends.
	backs, err := newBackends(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			backs.Close()
		}
	}()
	p, err := newProxy(cfg, backs)
	if err != nil {
		return nil, err
	}
	ws, err := newSockets(cfg, backs, p)
	if err != nil {
		return nil, err
	}
	var h http.Handler = p

	// The routes. A ServeMux redirects paths with // or .. in them, so a plain
	// proxy, which has no routes, does without.
	var mux *http.ServeMux
	if cfg.routes != nil {
		mux = http.NewServeMux()
		for pattern := range cfg.routes {
			mux.Handle(pattern, h)
		}
		if cfg.login != nil {
			mux.Handle("/login", cfg.login)
			mux.Handle("POST /logout", cfg.login)
		}
		if cfg.hooks != nil {
			mux.Handle("POST /hooks", cfg.hooks.handler)
		}
		if cfg.guard != nil {
			// Every method: a route that is guarded for one alone is open for the
			// others.
			mux.Handle("/private", cfg.guard.Handler(h))
		}
		if cfg.chat != nil {
			mux.Handle(chatRoute, cfg.chat)
			cfg.routes = maps.Clone(cfg.routes)
			cfg.routes[chatRoute] = chatLimits()
		}
		h = mux
	}

	// Limits on time are outside the mux, because from inside a route could
	// only shorten what the default says; they ask the mux which route it is.
	// They are inside the log, which shall see their 408 and 503.
	limits, limitsErr := timeout.New(timeout.Config{
		Limits: cfg.limits,
		Mux:    mux,
		Routes: cfg.routes,
		OnLate: func(r *http.Request, l timeout.Late) {
			if l.Running && mux != nil {
				// The handler is left behind with its request, and so is what the
				// mux has told it. The log wants the route all the same.
				_, r.Pattern = mux.Handler(r)
			}
			if l.Panic != nil && l.Panic != http.ErrAbortHandler {
				cfg.logger.ErrorContext(r.Context(), "panic after the limit", "panic", l.Panic, "stack", string(l.Stack))
			}
		},
	})
	rate, rateErr := ratelimit.New(ratelimit.Config{
		Policies: rates(),
		Store:    cfg.store,
		Name:     "gateway",
		// While the store fails each gateway counts for itself. Behind a proxy
		// of your own, name it in TrustedProxies: otherwise all its clients
		// are one.
		OnDegraded: func(err error) {
			if err != nil {
				cfg.logger.Warn("the store fails, rates are counted in memory", "error", err)
			} else {
				cfg.logger.Info("the store answers again")
			}
		},
	})
	if err = errors.Join(idsErr, limitsErr, rateErr); err != nil {
		return nil, err
	}
	h = limits.Handler(h)
	g = &gateway{sockets: ws.Proxy, stop: []io.Closer{ws, rate, backs}}

	// WebSockets last, and have limits of their own, so they go past those. Where
	// there are routes that would be past a guard as well: there ws is for a route
	// with chatLimits, in the place of the demo's chat.
	if cfg.routes == nil {
		h = ws.Handler(h)
	} else if cfg.chat != nil {
		g.sockets = cfg.chat
	}

	// Rates come before all that costs more than a refusal.
	h = rate.Handler(h)

	// Who operates the gateway, from its own machine, is not subject to the
	// rates: it is when they refuse that there is something to see.
	own := http.NewServeMux()
	own.HandleFunc("GET /-/breakers", backs.showBreakers)
	if cfg.demos != nil {
		cfg.demos.controls(own)
	}
	h = local(own, h)

	// The log sees every answer, also the 429 of the rates, and those that the
	// limits give in a back end's place.
	h = accessLog(cfg.logger, h)

	// The ID is outermost: every line above and every answer, good or bad,
	// has it.
	g.Handler = ids.Handler(h)
	return g, nil
}

// newServer has the limits that belong to the connection. Those of a single
// request are in the chain: ReadTimeout and WriteTimeout would cut a steady
// upload or an event stream as well as a stalled one, and without an answer.
func newServer(h http.Handler, logger *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}
