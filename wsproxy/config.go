package wsproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config configures a [Proxy]. Either Target or Director is required.
type Config struct {
	// Target is the URL of the back end:
	//
	//	ws://host:port/path     HTTP/1.1
	//	wss://host:port/path    HTTP/1.1 over TLS
	//	unix:///path            HTTP/1.1 over the socket at the URL's path
	//
	// A path is put in front of the request's, and a query in front of the
	// request's. Where the request's is to be another at the back end, a handler
	// outside passes on a copy of the request with another URL; http.StripPrefix is one,
	// if it leaves a slash: a request whose path is empty is refused with 400.
	// The host is in ASCII, the port from 1 to 65535; it may be left out: 80 and 443.
	Target string

	// Director chooses the back end of each handshake, in the place of Target.
	// It runs after all checks of the request. An error refuses the request: as
	// it says itself if it has HTTPStatus and Code, otherwise with 502.
	Director func(*Handshake) (*Target, error)

	// Host is what the back end is told in the field Host. Empty is the
	// client's own, which a back end compares with Origin, for ws and unix, and
	// the target's for wss.
	Host string

	// TLS is for wss back ends. Nil is the system's roots. It is cloned; its
	// NextProtos is not used, since a WebSocket over HTTP/1.1 must not be
	// offered anything else.
	TLS *tls.Config

	// Dial connects to a back end: "tcp" and host:port, or "unix" and a path.
	// Nil is net.Dialer's. It must keep to ctx. Only connections that are
	// *net.TCPConn or *net.UnixConn have the cheap paths. SetDeadline must work:
	// connections without deadlines, such as SSH's channels, are refused with 502.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Match says which requests Proxy.Handler takes; the others go on to the
	// next handler. It should judge by path and host: only handshakes are asked
	// about, but a Match that is always true lets a client skip what stands
	// inside by sending Upgrade. Handler needs it, ServeHTTP does not use it.
	Match func(*http.Request) bool

	// Fallback serves the requests to ServeHTTP that are no WebSocket
	// handshake. Nil refuses them with 426, over HTTP/2 with 400.
	Fallback http.Handler

	// Mode is Frames unless set.
	Mode Mode

	// Origins are origins that pages may connect from beside the host of the
	// request itself: "https://app.example", "https://*.app.example" for any
	// name below, or "*.app.example" for any of http and https. A port other than
	// the scheme's must be given, and a name in other letters than ASCII's in the
	// form that browsers send, xn--... "null" is the origin of sandboxed pages.
	//
	// The request's own host is always allowed, with the scheme that the request
	// came with where that is TLS; over plain TCP both schemes are allowed, since a
	// proxy in front may have ended TLS.
	Origins []string

	// OriginRequired refuses requests without Origin. Browsers always send it, and
	// other programs mostly do not.
	OriginRequired bool

	// InsecureAnyOrigin turns the check of Origin off: any page in a user's
	// browser can then open a WebSocket in the user's name.
	InsecureAnyOrigin bool

	// CheckOrigin takes the place of Origins and the request's own host. It is
	// asked about requests that have exactly one Origin.
	CheckOrigin func(r *http.Request, origin string) bool

	// Subprotocols are the subprotocols that clients may ask for; others are
	// taken out of the offer, and a request of which none is left is refused.
	// Empty allows all.
	Subprotocols []string

	// StripExtensions takes Sec-WebSocket-Extensions out of the offer, so that no
	// payload is compressed. Otherwise extensions are negotiated end to end.
	StripExtensions bool

	// TrustedProxies are the peers in front of this program whose Forwarded and
	// X-Forwarded fields are kept and added to. What others send under these
	// names is dropped. Nil trusts none.
	TrustedProxies []netip.Prefix

	// Detach lets the handler return as soon as an HTTP/1.1 tunnel runs, which
	// frees the request, the response and a stack: two thirds of the memory of an
	// idle tunnel. Middleware outside then sees the request end early; OnClose is
	// the place for accounting. HTTP/2 tunnels stay in their handler.
	Detach bool

	Timeouts Timeouts
	Limits   Limits
	Drain    Drain // for Shutdown

	// OnHandshake, unless nil, is called after all checks and before a back end
	// is chosen. It may change Handshake.Header. An error refuses the request: as
	// it says itself if it has HTTPStatus and Code, otherwise with 403.
	OnHandshake func(*Handshake) error

	// OnOpen, unless nil, is called when a tunnel is open and before a byte is
	// passed.
	OnOpen func(Info)

	// OnClose, unless nil, is called once for each tunnel that OnOpen was called
	// for, when both its connections are closed.
	//
	// The hooks are called synchronously and from many goroutines. They must not
	// call Close or Shutdown, which wait for them; in a goroutine they may. A panic in
	// one goes up to the server, and ends the tunnel where there is one. Only
	// after Detach there is no server to take a panic of OnClose, and it goes to
	// Logger.
	OnClose func(Stats)

	// ErrorHandler answers requests that are refused, with an [*Error] or what a
	// hook returned; nil is [WriteError]. An answer of the back end that is not a
	// WebSocket's is no error and passed on as it is.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger is told of what nobody else sees: a ResponseWriter that cannot be
	// hijacked, a panic in a hook. Nil discards.
	Logger *slog.Logger
}

// Mode says how much a Proxy looks into a tunnel.
type Mode uint8

const (
	// Frames follows the boundaries of frames and reads nothing but their
	// headers and the payload of Close frames. Payloads pass as they are, masked
	// and compressed. This makes limits, pings, close codes and a drain with
	// Close frames possible.
	Frames Mode = iota

	// Tunnel passes bytes. Timeouts.Ping, Limits.Frame and Limits.Message have
	// no effect, and a tunnel is drained by closing its connections.
	Tunnel
)

// String returns the name of the constant.
func (m Mode) String() string {
	switch m {
	case Frames:
		return "Frames"
	case Tunnel:
		return "Tunnel"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// Timeouts limit the phases of a tunnel. Zero is the default of the field and
// negative is no limit.
type Timeouts struct {
	// Dial is for connecting to the back end, TLS included: 5 s. Too slow is
	// answered with 504.
	Dial time.Duration

	// Handshake is for sending the handshake to the back end and reading its
	// answer, the body of a refusal included, and for writing the 101 or the
	// refusal to the client: 10 s each. A back end that is too slow is answered for
	// with 504, and a client that is has its request cut.
	Handshake time.Duration

	// Idle is the longest time without a byte from either side, 5 minutes with
	// Frames and none with Tunnel. An answer to our ping counts, so that with
	// pings a tunnel may be silent for as long as both peers live. The tunnel is
	// closed with 1001.
	Idle time.Duration

	// Ping is how long a side may be silent until it is sent a ping: 30 s, at
	// least 1 s. The answers are not passed on. Only with Frames.
	Ping time.Duration

	// Pong is how long a side may be silent after a ping until it is taken for
	// dead and the tunnel is cut: 15 s. The time does not run while a write to
	// either side waits for room, which is for WriteStall to limit. A ping stands
	// behind what was sent before it, so a peer that takes longer to read what the
	// systems' buffers between hold, which can be some MiB, needs a longer time.
	Pong time.Duration

	// Close is how long a Close frame of ours waits for the peers' own, and how
	// long the peers may take to close their connections when both have sent one:
	// 5 s. Then the connections are closed.
	Close time.Duration

	// Linger is how long both sides may be silent after one of them has ended,
	// with a Close frame or the end of its connection: 10 s. Then the connections
	// are closed.
	Linger time.Duration

	// WriteStall is how long a write to a peer may wait for room: 60 s. Then the
	// tunnel is cut. A write has up to 64 KiB, or 256 KiB where bytes are spliced,
	// but once a socket's buffer is full, systems make no use of room in it
	// before there is much: Linux waits for a third of a buffer that grows to 4 MiB
	// (net.ipv4.tcp_wmem). So a peer that reads without a pause, but less than about
	// 32 KiB/s, can be cut, and needs a longer time. The same holds for an HTTP/2
	// client that widens its window in large steps. A client that does not read its
	// whole HTTP/2 connection is for the server to cut: see [Prepare].
	WriteStall time.Duration

	// Lifetime is the longest life of a tunnel, which is then closed with 1001:
	// none. Each tunnel's is shortened by a random part of up to a tenth, so
	// that tunnels opened together do not end together.
	Lifetime time.Duration
}

// Limits bound what clients and back ends can take. Zero is the default of the
// field and negative is no limit.
type Limits struct {
	// Tunnels is the number of tunnels at one time, those being opened included:
	// 65536. More are refused with 503 before the back end is dialled. Back ends'
	// refusals that are being passed on to clients are counted apart, with the
	// same limit; what is over it is answered with 503 in their place.
	Tunnels int

	// PerKey is the number of tunnels at one time for one Key, and that of such
	// refusals: no limit.
	PerKey int

	// Key is what PerKey counts by. Nil is the client's address as far as
	// Config.TrustedProxies vouch for it, an IPv6 address by its /64. Clients
	// without an address, over a unix socket, then all have one key.
	Key func(*Handshake) string

	// RetryAfter is sent with the refusals above and during Shutdown, in full
	// seconds and at least one: 5 s. Negative sends none.
	RetryAfter time.Duration

	// Frame and Message are the longest payloads in bytes as they are sent,
	// which is compressed if the peers compress: no limit. Nothing of a frame
	// that is over a limit is passed on; both peers get 1009. Only with Frames.
	Frame, Message int64

	// Answer is the longest header that a back end may answer with: 64 KiB.
	Answer int

	// Refusal is how much of the body of a back end's refusal is passed on, without
	// its transfer coding: 1 MiB. A longer one is cut.
	Refusal int64
}

// Drain says how open tunnels are asked to go.
type Drain struct {
	// Code is what clients are closed with: 1001, or 1012 (service restart) if
	// zero, or 3000 to 4999. Back ends get 1001.
	Code int

	// Reason goes with the code: at most 123 bytes of UTF-8.
	Reason string

	// Spread is the time over which the tunnels are closed, each at a random
	// moment, so that clients do not come back all at once: 5 s. With Shutdown it
	// is shortened so that Timeouts.Close fits before the context's deadline.
	Spread time.Duration
}

const (
	defaultDial       = 5 * time.Second
	defaultHandshake  = 10 * time.Second
	defaultIdle       = 5 * time.Minute
	defaultPing       = 30 * time.Second
	defaultPong       = 15 * time.Second
	defaultClose      = 5 * time.Second
	defaultLinger     = 10 * time.Second
	defaultWriteStall = time.Minute
	defaultTunnels    = 1 << 16
	defaultRetryAfter = 5 * time.Second
	defaultAnswer     = 64 << 10
	defaultRefusal    = 1 << 20
	defaultSpread     = 5 * time.Second
	minPing           = time.Second

	// longest is 73 years. A duration above it counts as this one, so that adding
	// it to a time of the clock cannot overflow.
	longest = time.Duration(1 << 61)
)

// problems collects what is wrong with a Config.
type problems []error

func (p *problems) add(field, wrong string, got any) {
	*p = append(*p, fmt.Errorf("wsproxy: %s: %s (got %v)", field, wrong, got))
}

// check returns every problem of c at once, beside those of Target and Origins,
// which are found when they are made ready.
func (c *Config) check() (bad problems) {
	if (c.Target == "") == (c.Director == nil) {
		bad.add("Target", "exactly one of Target and Director must be set", fmt.Sprintf("%q", redacted(c.Target)))
	}
	if c.Mode > Tunnel {
		bad.add("Mode", "must be Frames or Tunnel", c.Mode)
	}
	if c.Host != "" && !validHost(c.Host) {
		bad.add("Host", "must be a host with an optional port", fmt.Sprintf("%q", c.Host))
	}
	for _, s := range c.Subprotocols {
		if !isToken(s) {
			bad.add("Subprotocols", "must be tokens", fmt.Sprintf("%q", s))
		}
	}
	if c.InsecureAnyOrigin && (len(c.Origins) > 0 || c.CheckOrigin != nil) {
		bad.add("InsecureAnyOrigin", "must not be set together with Origins or CheckOrigin", true)
	}
	if c.CheckOrigin != nil && len(c.Origins) > 0 {
		bad.add("CheckOrigin", "must not be set together with Origins", "both")
	}
	for _, p := range c.TrustedProxies {
		if !p.IsValid() {
			bad.add("TrustedProxies", "must be valid prefixes", p)
		}
	}
	if d := c.Timeouts.Ping; d > 0 && d < minPing {
		bad.add("Timeouts.Ping", "must be at least "+minPing.String(), d)
	}
	if c.Limits.Key != nil && c.Limits.PerKey <= 0 {
		bad.add("Limits.PerKey", "must be set when Key is", c.Limits.PerKey)
	}
	c.Drain.check("Drain.", &bad)
	return bad
}

func (d *Drain) check(prefix string, bad *problems) {
	if d.Code != 0 && d.Code != closeGoingAway && d.Code != closeRestart && (d.Code < 3000 || d.Code > 4999) {
		bad.add(prefix+"Code", "must be 1001, 1012 or 3000 to 4999", d.Code)
	}
	if !validReason(d.Reason) {
		bad.add(prefix+"Reason", "must be at most 123 bytes of UTF-8", fmt.Sprintf("%q", d.Reason))
	}
}

// normal returns c with every default in place: what is not limited is zero.
func (c Config) normal() Config {
	t := &c.Timeouts
	idle := time.Duration(-1)
	if c.Mode == Frames {
		idle = defaultIdle
	} else {
		t.Ping, c.Limits.Frame, c.Limits.Message = -1, -1, -1
	}
	setDefault(&t.Dial, defaultDial)
	setDefault(&t.Handshake, defaultHandshake)
	setDefault(&t.Idle, idle)
	setDefault(&t.Ping, defaultPing)
	setDefault(&t.Pong, defaultPong)
	setDefault(&t.Close, defaultClose)
	setDefault(&t.Linger, defaultLinger)
	setDefault(&t.WriteStall, defaultWriteStall)
	setDefault(&t.Lifetime, -1)
	for _, d := range []*time.Duration{&t.Dial, &t.Handshake, &t.Idle, &t.Ping, &t.Pong, &t.Close, &t.Linger, &t.WriteStall, &t.Lifetime} {
		*d = min(*d, longest)
	}
	l := &c.Limits
	setDefault(&l.Tunnels, defaultTunnels)
	setDefault(&l.PerKey, -1)
	setDefault(&l.RetryAfter, defaultRetryAfter)
	setDefault(&l.Frame, -1)
	setDefault(&l.Message, -1)
	setDefault(&l.Answer, defaultAnswer)
	setDefault(&l.Refusal, defaultRefusal)
	if l.Answer == 0 {
		l.Answer = math.MaxInt
	}
	if l.Refusal == 0 {
		l.Refusal = math.MaxInt64
	}
	if c.ErrorHandler == nil {
		c.ErrorHandler = WriteError
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.TLS == nil {
		c.TLS = new(tls.Config)
	} else {
		c.TLS = c.TLS.Clone()
	}
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
	c.Subprotocols = slices.Clone(c.Subprotocols)
	c.Drain = c.Drain.normal()
	return c
}

func (d Drain) normal() Drain {
	if d.Code == 0 {
		d.Code = closeRestart
	}
	setDefault(&d.Spread, defaultSpread)
	d.Spread = min(d.Spread, longest)
	return d
}

// setDefault turns a field that is zero into its default, and a negative one,
// or a negative default, into zero.
func setDefault[T ~int | ~int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
	*field = max(*field, 0)
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// validHost reports whether s can stand in a Host field.
func validHost(s string) bool {
	host, _, ok := splitHost(s)
	return ok && host != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\@?#"<>^{}|`, r)
	})
}

// splitHost takes the port off a host, and the brackets off an IPv6 address. It
// reports false for brackets around or beside anything else.
func splitHost(s string) (host, port string, ok bool) {
	host = s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
	}
	if !strings.ContainsAny(host, "[]") {
		return host, port, true
	}
	host, opened := strings.CutPrefix(host, "[")
	host, closed := strings.CutSuffix(host, "]")
	if !opened || !closed || strings.ContainsAny(host, "[]") {
		return "", "", false
	}
	a, err := netip.ParseAddr(host)
	return host, port, err == nil && a.Is6()
}

// join returns the problems as one error, or nil.
func (p problems) join() error { return errors.Join(p...) }
