package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"
)

// Config configures a [Pool]. Either Targets or Resolver is required.
type Config struct {
	// Targets are the back ends. With a Resolver they are what is used until
	// it has answered first.
	Targets []Target

	// Resolver, unless nil, replaces Targets whenever its answer changes. Without
	// Targets, requests fail with [KindNoBackend] until it has answered first,
	// which [Pool.Warm] waits for.
	Resolver Resolver

	// Picker chooses among the back ends that are healthy; nil is
	// [LeastRequest] over two of them.
	Picker Picker

	// Key gives the value that [Rendezvous] and [Maglev] hash, and whether the
	// request has one. It is called once a request, whatever the Picker.
	Key func(*http.Request) (uint64, bool)

	// Sticky keeps a client at one back end by a signed cookie; nil is off.
	Sticky *Sticky

	// Retry says when a request is sent again. The zero Retry repeats only
	// what no back end can have acted upon, or may by its method.
	Retry Retry

	// Check is the active health check; nil is none.
	Check *Check

	// Outlier takes back ends out for a while that fail several requests in a
	// row. The zero Outlier is on.
	Outlier Outlier

	// SlowStart is the time in which the share of a back end that is new, or
	// healthy again, grows from a tenth to the whole. Zero is 30 s, negative is
	// at once. The back ends of the first Targets start with their whole share.
	SlowStart time.Duration

	// FailOpen is the share of healthy back ends, in percent of all, below
	// which health is ignored and all of them are used, since a check that
	// fails nearly everywhere is more likely wrong than the back ends are. Zero
	// ignores it only when none is healthy; negative never, which is 503 then.
	// At most 100.
	FailOpen int

	// Conns bounds and ages the connections to each back end.
	Conns Conns

	// TLS is cloned for each back end that is spoken to over TLS; nil is the
	// default of crypto/tls. ServerName, where empty, is the target's, and
	// NextProtos is set by the target's scheme.
	TLS *tls.Config

	// Dial opens connections; nil is a net.Dialer with TCP keep-alive.
	// network is "tcp" or "unix".
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Transport, unless nil, is asked for the tripper to each target first; if
	// it returns nil and no error, the Pool uses its own connections. It is how
	// schemes beyond those of [Target] are served, such as h3 by the package
	// upstream/h3. Of Conns, only the limits and timeouts that are not about
	// connections hold for such a target. A tripper with a
	// Close() error method is closed with the target; of another, the
	// CloseIdleConnections method is called, if it has one.
	Transport func(Target) (http.RoundTripper, error)

	// Wrap, unless nil, wraps the tripper to each target: with a circuit
	// breaker, a signer, a tracer. It sees every attempt, and no [Check]. Where
	// its tripper fails with an error that has a NotSent() bool method
	// returning true, the request goes to another back end, and this one is not
	// blamed; a method RetryAfter() time.Duration is honoured.
	//
	// What it is given accepts one call of RoundTrip for each that its own
	// receives, and within that. A call that still runs when its own returns is
	// cancelled, and waited for: with Transport, until the tripper from there heeds
	// its context, and with a request body that is being read, until its Read ends
	// when it is closed. A response that has come by then must be closed, as any.
	//
	// Its tripper may answer without a call, as a cache does, or instead of a
	// failure. Such a response says nothing about the health of the back end; the
	// failure does.
	Wrap func(Target, http.RoundTripper) (http.RoundTripper, error)

	// Hosts are the values of URL.Host that requests may have; others are
	// refused with [KindPolicy]. nil is all: the host is then no more than a
	// label, and every request goes to a target whatever it says.
	Hosts []string

	// Observer is told what happens. The zero Observer costs nothing.
	Observer Observer

	// Logger gets what no caller can see: back ends that go down and come
	// back, and resolvers that fail. nil is none.
	Logger *slog.Logger
}

// Conns bounds the use of one back end. Every back end has its own.
//
// NTLM authenticates a connection and not a request, and so may Negotiate. An
// HTTP/1.1 connection that has carried credentials of either, or a response that
// asks for them, is not used for another request, which would go out in that
// client's name. NTLM therefore does not work through a Pool: its handshake
// needs several requests on one connection. Negotiate does where one request is
// enough, as with Kerberos.
type Conns struct {
	// MaxInFlight is the number of requests that a back end is sent at once,
	// from when it is chosen until the response body is closed. Zero is 1024,
	// negative is no limit. [Target.MaxInFlight] overrides it.
	//
	// Upgrades to an https target go over connections of HTTP/1.1 that are made
	// for them alone and counted apart: MaxInFlight, Queue, MaxConns and MaxIdle
	// hold for these once more, so that a back end may be sent twice as much in
	// all. The other schemes have one count.
	//
	// A request that was given up is not counted any more, though over HTTP/2 the
	// back end may go on with it: what bounds those is the number of streams that
	// it allows for itself.
	MaxInFlight int

	// Queue is how many requests wait for each back end that is at its
	// MaxInFlight or MaxConns; zero is 1024, negative is none. A request that
	// finds it full goes to another back end if there is one, and fails with
	// [KindQueueFull] otherwise.
	Queue int

	// QueueTimeout is the longest wait of one attempt in the queue; zero is 3 s,
	// negative is no limit but the request's own. One that has waited in vain
	// moves to another back end if there is one, and may wait there as long
	// again: with the defaults of [Retry] it does so twice.
	QueueTimeout time.Duration

	// MaxConns is the number of connections to a back end, those that are
	// being made included. Zero or negative is no limit but MaxInFlight's.
	// For upgrades to an https target see MaxInFlight.
	MaxConns int

	// MaxIdle is how many HTTP/1.1 connections are kept for later; zero is 64,
	// negative is none.
	MaxIdle int

	// MinIdle is how many connections are kept ready. Zero or negative is
	// none. At most MaxIdle and MaxConns; over HTTP/2 one connection is enough.
	MinIdle int

	// IdleTimeout is how long a connection is kept without use; zero is 90 s,
	// negative is no limit. A back end that announces less in a Keep-Alive
	// field is believed, less a second.
	IdleTimeout time.Duration

	// MaxAge is how long a connection is used for new requests, give or take a
	// tenth so that they do not all end at once. Zero is 10 min, negative is
	// no limit.
	MaxAge time.Duration

	// MaxRequests is the number of requests that a connection is used for.
	// Zero or negative is no limit.
	MaxRequests int

	// OldestFirst uses the connection that has been idle longest, which
	// spreads requests where a load balancer stands behind the target's
	// address. Otherwise it is the one used last, so that the surplus ages out.
	OldestFirst bool

	// DialTimeout is the limit for a connection to be made, TLS apart; zero is
	// 3 s, negative is no limit. TLSTimeout is that for the handshake; zero
	// is 5 s.
	DialTimeout time.Duration
	TLSTimeout  time.Duration

	// HeaderTimeout is how long a back end may take for the header of its
	// response once it has taken the last of the request; zero is 60 s, negative
	// is no limit. Interim responses and parts of a header do not prolong it. It
	// is measured to within an eighth.
	HeaderTimeout time.Duration

	// MaxResponseHeader is the size of a response header in bytes beyond which
	// the response is refused; zero is 1 MiB. At least 4096: there is no
	// response without a limit.
	MaxResponseHeader int64

	// Ping is how long an HTTP/2 connection may be silent before it is asked
	// for a sign of life, which must come in as much time again; zero is 15 s,
	// negative never.
	Ping time.Duration
}

// Retry says when a request is sent again. Each further attempt goes to a back
// end that has not been tried, if there is one.
//
// Always allowed is what no back end can have acted upon: the connection was
// not made or nothing was written, an HTTP/2 back end refused the stream, or
// said when it went away that it had not seen it. Idempotent requests may also
// move when a connection that had been idle turns out to be dead. The method
// decides what is idempotent (RFC 9110 section 9.2.2); a field named
// Idempotency-Key or X-Idempotency-Key makes every request so, and so does
// Idempotent. Everything else must be asked for here.
type Retry struct {
	// Attempts is how often a request is sent again; zero is 1, negative is
	// never, at most 10. It is not once an informational response other than
	// 100 has been passed on. What was certainly not sent may use one more, and so
	// may what an HTTP/2 connection refused because it goes away or is full.
	Attempts int

	// Budget is how many requests may be sent again, in percent of the
	// requests of the last 10 s; zero is 20, negative is no limit. Three
	// in that time are always allowed, and what may use one more of Attempts
	// does not count: it is no additional load.
	Budget int

	// Body is how much of a request body is kept while it is sent, in bytes,
	// so that it can be sent again; zero is 64 KiB, negative is none. Nothing is
	// kept where the request has a GetBody. A longer body is not sent again.
	Body int

	// PerTry limits one attempt, from its start until the response header.
	// Zero or negative is none. With Timeouts, the request then moves on. Where it
	// passes in the queue or during the dial, nothing was sent: that is
	// [KindQueueTimeout] or [KindDial], and the request moves on in any case. For
	// one that gets out of the queue in time it begins anew, so that the back end
	// is not blamed for the wait. Nor is it where PerTry passes while the rest of the
	// request body is waited for: that is [KindClientBody], the body is closed, and
	// the request goes nowhere else.
	PerTry   time.Duration
	Timeouts bool // send idempotent requests again after HeaderTimeout or PerTry

	// Lost sends idempotent requests again that got no byte of a response on a
	// connection that was new. Such a request may well be what breaks the back end.
	Lost bool

	// Statuses are the response statuses after which idempotent requests are
	// sent again, after a pause of 25 to 250 ms, or what Retry-After says if
	// the request's deadline allows for it. The last response is
	// delivered, whatever it is. A gRPC response that carries only a
	// grpc-status of 4, 8 or 14 is taken for 504, 429 or 503.
	Statuses []int

	// When, unless nil, is asked about every response to an idempotent request
	// whose status is not in Statuses. It must not read the body.
	When func(*http.Response) bool

	// Idempotent, unless nil, names further requests that are safe to repeat.
	Idempotent func(*http.Request) bool

	// Hedge sends an idempotent request without a body to a second back end
	// when the first has not answered in this time. The first response
	// header wins and the other attempt is cancelled. Zero or
	// negative is never. It counts as an attempt and against the Budget. The
	// requests of a client that is bound to the first back end by a [Sticky]
	// cookie wait for that.
	Hedge time.Duration
}

const (
	defaultMaxInFlight   = 1024
	defaultQueue         = 1024
	defaultQueueTimeout  = 3 * time.Second
	defaultMaxIdle       = 64
	defaultIdleTimeout   = 90 * time.Second
	defaultMaxAge        = 10 * time.Minute
	defaultDialTimeout   = 3 * time.Second
	defaultTLSTimeout    = 5 * time.Second
	defaultHeaderTimeout = 60 * time.Second
	defaultMaxHeader     = 1 << 20
	minMaxHeader         = 4096
	defaultPing          = 15 * time.Second

	defaultAttempts = 1
	maxAttempts     = 10
	defaultBudget   = 20
	defaultBody     = 64 << 10
	maxBody         = 16 << 20
)

// zeroIs puts d in place of zero, and zero in place of what is negative.
func zeroIs[T int | int64 | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return max(v, 0)
}

// ready returns c with defaults in place; a limit that is none is then 0.
func (c Conns) ready() Conns {
	c.MaxInFlight = zeroIs(c.MaxInFlight, defaultMaxInFlight)
	c.Queue = zeroIs(c.Queue, defaultQueue)
	c.QueueTimeout = zeroIs(c.QueueTimeout, defaultQueueTimeout)
	c.MaxConns = max(c.MaxConns, 0)
	c.MaxIdle = zeroIs(c.MaxIdle, defaultMaxIdle)
	c.MinIdle = max(c.MinIdle, 0)
	c.IdleTimeout = zeroIs(c.IdleTimeout, defaultIdleTimeout)
	c.MaxAge = zeroIs(c.MaxAge, defaultMaxAge)
	c.MaxRequests = max(c.MaxRequests, 0)
	c.DialTimeout = zeroIs(c.DialTimeout, defaultDialTimeout)
	c.TLSTimeout = zeroIs(c.TLSTimeout, defaultTLSTimeout)
	c.HeaderTimeout = zeroIs(c.HeaderTimeout, defaultHeaderTimeout)
	c.MaxResponseHeader = zeroIs(c.MaxResponseHeader, defaultMaxHeader)
	c.Ping = zeroIs(c.Ping, defaultPing)
	return c
}

// ready returns r with defaults in place. A Budget that is no limit stays
// negative, since 0 percent would be one.
func (r Retry) ready() Retry {
	r.Attempts = zeroIs(r.Attempts, defaultAttempts)
	if r.Budget == 0 {
		r.Budget = defaultBudget
	}
	r.Body = zeroIs(r.Body, defaultBody)
	r.PerTry = max(r.PerTry, 0)
	r.Hedge = max(r.Hedge, 0)
	r.Statuses = slices.Clone(r.Statuses)
	return r
}

// problems collects what is wrong with a Config.
type problems []error

func (p *problems) add(field, wrong string, got any) {
	*p = append(*p, fmt.Errorf("upstream: %s: %s (got %v)", field, wrong, got))
}

// check returns every problem of c at once, but for those of the parts that
// are checked where they are used.
func (c *Config) check() problems {
	var p problems
	if len(c.Targets) == 0 && c.Resolver == nil {
		p.add("Targets", "must have an element where there is no Resolver", 0)
	}
	if c.FailOpen > 100 {
		p.add("FailOpen", "must be at most 100 percent", c.FailOpen)
	}
	if n := c.Conns.MaxResponseHeader; n != 0 && n < minMaxHeader {
		p.add("Conns.MaxResponseHeader", "must be at least 4096 bytes", n)
	}
	ready := c.Conns.ready()
	if ready.MinIdle > ready.MaxIdle {
		p.add("Conns.MinIdle", fmt.Sprintf("must be at most MaxIdle, %d", ready.MaxIdle), ready.MinIdle)
	}
	if ready.MaxConns > 0 && ready.MinIdle > ready.MaxConns {
		p.add("Conns.MinIdle", fmt.Sprintf("must be at most MaxConns, %d", ready.MaxConns), ready.MinIdle)
	}
	if c.Retry.Attempts > maxAttempts {
		p.add("Retry.Attempts", "must be at most 10", c.Retry.Attempts)
	}
	if c.Retry.Budget > 100 {
		p.add("Retry.Budget", "must be at most 100 percent", c.Retry.Budget)
	}
	if c.Retry.Body > maxBody {
		p.add("Retry.Body", "must be at most 16777216 bytes", c.Retry.Body)
	}
	for _, s := range c.Retry.Statuses {
		if s < 400 || s > 599 {
			p.add("Retry.Statuses", "must be between 400 and 599", s)
		}
	}
	for _, h := range c.Hosts {
		if h == "" {
			p.add("Hosts", "must not have an empty element", `""`)
		}
	}
	return p
}

// checkKind is the kind of the checks; CheckHTTP, which every target can pass, if
// there are none.
func (c *Config) checkKind() CheckKind {
	if c.Check == nil {
		return CheckHTTP
	}
	return c.Check.Kind
}

func (p problems) err() error { return errors.Join(p...) }
