package cookies

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"example.com/plainware/internal/cookieattr"
)

const (
	// DefaultMaxAge is [Config.MaxAge] when that is 0.
	DefaultMaxAge = 24 * time.Hour

	// MaxAgeLimit is the longest that browsers keep a cookie
	// (RFC 6265bis section 5.5).
	MaxAgeLimit = cookieattr.MaxAgeLimit * time.Second

	// MaxChunks is the largest [Config.Chunks].
	MaxChunks = 4
)

// Config declares a cookie that carries a T. The rules that browsers enforce in
// silence are checked by [NewSealed] and [NewSigned].
//
// Functions are called from the goroutine that serves the request and must be
// safe for concurrent use.
type Config[T any] struct {
	// Name of the cookie: a token (RFC 9110 section 5.6.2) of at most 1024
	// bytes. Required. A prefix asks the browser to hold the server to rules,
	// and is checked here, in any case: __Secure- needs Secure, __Http- also
	// HttpOnly, __Host- also Path "/" and no Domain, __Host-Http- all of it.
	// [HostOnly] gives the strictest. Chunks use the names with ~1 to ~3 after
	// it.
	//
	// Values are bound to the name: under another one they are invalid.
	Name string

	// Keys are secrets of 32 random bytes or more, from [GenerateKey] and not
	// from a password. The first one writes and all are accepted; a value
	// under another than the first is refreshed. Required, and only read
	// by the constructor. One set of keys can serve all cookies: each derives
	// its own for its suite, and each value is bound to its name.
	Keys [][]byte

	// Incoming are keys that are accepted and never used to write. Deploy a
	// new key here first, then, when every process has it, as the first of
	// Keys: so no process gets to see a value that it cannot read. nil is none.
	Incoming [][]byte

	// Codec turns T into bytes. nil is [JSON].
	Codec Codec[T]

	// Suite is the cipher of a sealed cookie. The zero Suite is e1,
	// XAES-256-GCM. It must be zero for [NewSigned], which has s1 alone.
	Suite Suite

	// MaxAge is how long a value is accepted, and, unless Session is set, how
	// long the browser keeps it. It stands inside the value, and the reader's
	// own MaxAge bounds it: a smaller one takes effect on values that are out
	// there. Whole seconds; from one second to [MaxAgeLimit]. 0 is [DefaultMaxAge].
	MaxAge time.Duration

	// Session leaves out Max-Age: the browser forgets the cookie when it closes,
	// or says it does. MaxAge holds inside the value all the same.
	Session bool

	// Sliding begins the life of a value again, by [Cookie.Refresh] and
	// [Cookie.Handler], once more than half of it is over: a value that is used
	// never ends, nor does a stolen one. Without it a refreshed value ends when
	// it would have ended.
	Sliding bool

	// Bind returns what, besides the name, a value is bound to: a tenant, an
	// account. It is authenticated and not stored; where it differs, the value
	// is invalid. At most 65535 bytes. nil, like "", binds to nothing.
	Bind func(*http.Request) string

	// Domain also sends the cookie to the subdomains of this host, which can
	// also set it. "" is the host alone, the safe choice.
	Domain string

	// Path is a prefix of the paths to which the cookie is sent. It protects
	// nothing: any page of the host can read around it. "" is "/".
	Path string

	// SameSite is Lax, Strict or None. 0 is Lax.
	SameSite http.SameSite

	// Partitioned keeps a cookie of an embedded site apart for each site that
	// embeds it (CHIPS). There it needs SameSite None.
	Partitioned bool

	// ScriptReadable leaves out HttpOnly, so that scripts of the page get the
	// cookie. A script can read a signed value, not a sealed one.
	ScriptReadable bool

	// Insecure leaves out Secure, so that the cookie crosses the network in
	// the open. It is for development over plain HTTP with browsers that do
	// not count localhost as secure, and cannot go with a prefix, Partitioned
	// or SameSite None.
	Insecure bool

	// Chunks is the number of cookies over which a value may be spread, up to
	// [MaxChunks]. 0 and 1, and below, are one cookie of 4096 bytes. A request
	// carries all of them every time, and servers and proxies bound its header,
	// often at 8 KiB: think of package cookies/session first.
	Chunks int

	// OnRead is called after a value of a request was read, by Get, Refresh
	// or Handler, with a nil error or one of this package's; not where
	// the request has no such cookie. It is for counting: key ids that are still
	// in use, values that nobody of ours has made. nil is none.
	OnRead func(*http.Request, Info, error)
}

// core is a Cookie without its type.
type core struct {
	parts    []*cookieattr.Cookie // the cookie itself, then its further chunks
	ring     *ring
	maxAge   int64 // seconds
	session  bool
	sliding  bool
	capacity int // bytes of value that all parts hold
	bind     func(*http.Request) string
	onRead   func(*http.Request, Info, error)
}

// HostOnly returns name with the prefix __Host-Http-: a browser takes such a
// cookie only over HTTPS from the very host that it goes to, and from no script.
// Browsers that know only __Host- enforce that much.
func HostOnly(name string) string { return cookieattr.HostHTTP + name }

func newCore[T any](cfg Config[T], suite Suite, signed bool) (core, error) {
	c := core{
		maxAge:  int64(cfg.MaxAge / time.Second),
		session: cfg.Session,
		sliding: cfg.Sliding,
		bind:    cfg.Bind,
		onRead:  cfg.OnRead,
	}
	var errs []error
	attr, problems := cookieattr.New(cookieattr.Attributes{
		Name: cfg.Name, Domain: cfg.Domain, Path: cfg.Path, SameSite: cfg.SameSite,
		Partitioned: cfg.Partitioned, ScriptReadable: cfg.ScriptReadable, Insecure: cfg.Insecure,
	})
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("cookies: %s: %s", p.Field, p.Text))
	}

	ring, keyErrs := newRing(cfg.Name, suite, signed, cfg.Keys, cfg.Incoming)
	c.ring, errs = ring, append(errs, keyErrs...)

	switch {
	case cfg.MaxAge == 0:
		c.maxAge = int64(DefaultMaxAge / time.Second)
	case cfg.MaxAge < time.Second:
		errs = append(errs, fmt.Errorf("cookies: MaxAge: must be at least one second (got %v)", cfg.MaxAge))
	case cfg.MaxAge > MaxAgeLimit:
		errs = append(errs, fmt.Errorf("cookies: MaxAge: is longer than the 400 days that browsers keep a cookie (got %v)", cfg.MaxAge))
	}
	if cfg.Chunks > MaxChunks {
		errs = append(errs, fmt.Errorf("cookies: Chunks: must be at most %d (got %d)", MaxChunks, cfg.Chunks))
	}
	if errs != nil {
		return core{}, errors.Join(errs...)
	}
	c.divide(attr, cfg.Chunks)
	return c, nil
}
