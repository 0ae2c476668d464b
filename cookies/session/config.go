package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"example.com/plainware/cookies"
	"example.com/plainware/internal/cookieattr"
	"example.com/plainware/store"
)

// DefaultCookie is the name of the cookie that Config.Cookie is when empty.
// Browsers that know its prefix keep such a cookie only if it came over HTTPS,
// from this host alone and for all of it, and not from a script. To older ones
// it begins with __Host-, which says the same but for the last.
const DefaultCookie = "__Host-Http-sid"

const (
	defaultIdle     = 30 * time.Minute
	defaultAbsolute = 24 * time.Hour
	defaultGrace    = 10 * time.Second
	defaultMaxSize  = 64 << 10

	longest    = cookieattr.MaxAgeLimit * time.Second
	maxGrace   = time.Hour
	maxName    = 64
	minTimeout = time.Second

	// maxIDs is how many ids RotateEvery may give a session while the old ones
	// are remembered. To follow them all takes a read for each.
	maxIDs = 10_000
)

// Config configures a [Manager] of sessions that hold a T.
type Config[T any] struct {
	// Store keeps the sessions. Required. It must be able to keep values, as
	// [store.Keep] says, unless NoRevokeUser is set: the marks of
	// [Manager.RevokeUser] are kept, so that no eviction and no power loss can
	// bring a revoked session back, and what Logout, Login and RevokeUser
	// delete is deleted at the same durability. The sessions themselves, and
	// what leads from an old id to the new one, are ordinary values: losing a
	// session logs somebody out. After the loss of an old id a request that had
	// come with it before the Rotate takes the session for ended, so that its
	// Logout returns nil and ends nothing, and DestroyOnReuse does not notice
	// who uses it: give Store room for all of them. A read ends with the
	// request's context and has no other limit, so put a timeout outside; a
	// save is given 5 s, whether or not the request has ended.
	Store store.Store

	// Name sets these sessions apart from others in the same Store. Processes
	// that share sessions have the same. 1 to 64 letters, digits, dots, dashes
	// and underscores. Required.
	Name string

	// Idle is how long a session lives without being used. Zero is 30 minutes,
	// negative is no limit, and otherwise it is between 1 s and 400 days. The
	// last use is written when Idle/10 has passed since it was last written,
	// so a session ends between 0.9 and 1.0 Idle after its last use. A request
	// uses its session by calling a method of it. A changed Idle is in effect
	// for a session once its last use has been written again.
	Idle time.Duration

	// Absolute is how long a session lives from its beginning, or from its
	// last Login, however much it is used. Zero is 24 hours, negative is no
	// limit, unless Idle is negative too, and otherwise it is between 1 s and
	// 400 days. Lowering it is in effect at once. When raising it, give all
	// processes the new value before the next RevokeUser counts on it. Raised
	// again soon after it was lowered, it brings back sessions from before, also
	// those that RevokeUser has ended in between.
	Absolute time.Duration

	// Grace is how long the old id goes on working after Rotate, for requests
	// that were on their way. Zero is 10 s, negative is none, and the most is
	// an hour. Login has no grace, ever. It is judged by the clock of the
	// process that gets the request.
	Grace time.Duration

	// RotateEvery gives a session a new id, as Rotate does, in the first
	// response after its id has reached this age. Zero and negative are
	// never. Old ids are remembered for up to a day, as [Session.Rotate] says,
	// and with DestroyOnReuse until Absolute: a busy session has as many in
	// Store as RotateEvery fits into that, so it must be at least 1/10000 of it,
	// 8.64 s for a day, and longer than Grace.
	RotateEvery time.Duration

	// DestroyOnReuse ends a session when one of its old ids is used after
	// Grace: either it was stolen, or the thief has the new one. A browser
	// that lost the answer with its new id is logged out by that as well. It
	// needs an Absolute, until which old ids are remembered, for up to 400
	// days. The request that brings one is answered after a read and a deletion
	// for each id that the session has had since, at most 10625: beyond that,
	// which takes a handler that calls Rotate without measure, its answer is a
	// 503, and the session goes on.
	DestroyOnReuse bool

	// Codec turns values into bytes and back. Nil is [cookies.JSON]. A change
	// is recognised by the bytes, so those of one value should always be the
	// same. No bytes are the zero value, without asking Decode.
	Codec cookies.Codec[T]

	// MaxSize is the most bytes of an encoded value. Zero is 64 KiB, negative
	// is whatever Store takes.
	MaxSize int

	// Cookie is the name of the cookie. "" is [DefaultCookie], or "sid" with
	// Insecure. A name that begins with __Host- wants no Domain and
	// no Path.
	Cookie string

	// Domain makes the browser send the cookie to all hosts below it. "" is
	// only to the host that set it.
	Domain string

	// Path is below which the browser sends the cookie. "" is "/". It is no
	// protection from the other paths of a host.
	Path string

	// SameSite is what requests from other sites bring the cookie. Zero is
	// Lax: those that navigate. http.SameSiteNoneMode is for pages embedded
	// elsewhere, which need protection against forged requests of their own.
	SameSite http.SameSite

	// Partitioned gives the cookie a jar of its own for each site that embeds
	// the host.
	Partitioned bool

	// Persistent makes the browser keep the cookie over its own restart, until
	// Absolute ends the session, at most 400 days.
	Persistent bool

	// Insecure leaves out Secure, so that the id crosses the network in the
	// open. It is for development over plain HTTP with browsers that do not
	// count localhost as secure, and cannot go with a prefix, Partitioned or
	// SameSite None.
	Insecure bool

	// NoRevokeUser does without [Manager.RevokeUser]. Requests with the
	// session of a user read once from the Store instead of twice, and it need
	// not be able to keep values.
	NoRevokeUser bool

	// ErrorHandler answers for a handler whose session could not be read or
	// saved, in place of all that the handler sends. The error is
	// ErrUnavailable, ErrConflict or ErrTooLarge, with its cause. Nil is
	// [WriteError].
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger gets what no caller sees: values that Codec cannot read, uses
	// that could not be written, ids that were reused. Nil discards it.
	Logger *slog.Logger
}

// fill replaces zeros by defaults, negative durations by zero, and reports all
// that is wrong.
func (c *Config[T]) fill() (*cookieattr.Cookie, error) {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("session: "+field+": "+format, args...))
	}
	if c.Store == nil {
		wrong("Store", "is required (got nil)")
	}
	if !validName(c.Name) {
		wrong("Name", "must be 1 to %d letters, digits, dots, dashes and underscores (got %q)", maxName, c.Name)
	}

	timeout := func(field string, d *time.Duration, otherwise time.Duration) {
		switch {
		case *d == 0:
			*d = otherwise
		case *d < 0:
			*d = 0
		case *d < minTimeout || *d > longest:
			wrong(field, "must be between %v and 400 days (got %v)", minTimeout, *d)
		}
	}
	timeout("Idle", &c.Idle, defaultIdle)
	timeout("Absolute", &c.Absolute, defaultAbsolute)
	if c.Idle == 0 && c.Absolute == 0 {
		wrong("Absolute", "must not be without limit when Idle is (got both negative)")
	}
	switch {
	case c.Grace == 0:
		c.Grace = defaultGrace
	case c.Grace < 0:
		c.Grace = 0
	case c.Grace > maxGrace:
		wrong("Grace", "must be at most %v (got %v)", maxGrace, c.Grace)
	}
	c.RotateEvery = max(c.RotateEvery, 0)
	if c.RotateEvery != 0 && c.RotateEvery <= c.Grace {
		wrong("RotateEvery", "must be longer than Grace, %v (got %v)", c.Grace, c.RotateEvery)
	}
	remembered := maxForward
	if c.Absolute > 0 && (c.DestroyOnReuse || c.Absolute < maxForward) {
		remembered = c.Absolute
	}
	if least := remembered / maxIDs; c.RotateEvery != 0 && c.RotateEvery < least {
		wrong("RotateEvery", "must be at least 1/%d of the %v for which old ids are remembered, %v (got %v)", maxIDs, remembered, least, c.RotateEvery)
	}
	if c.DestroyOnReuse && c.Absolute == 0 {
		wrong("DestroyOnReuse", "needs an Absolute (got true)")
	}

	if c.MaxSize == 0 {
		c.MaxSize = defaultMaxSize
	}
	if c.Codec == nil {
		c.Codec = cookies.JSON[T]()
	}
	if c.ErrorHandler == nil {
		c.ErrorHandler = WriteError
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}

	if c.Cookie == "" {
		c.Cookie = DefaultCookie
		if c.Insecure {
			c.Cookie = "sid"
		}
	}
	cookie, problems := cookieattr.New(cookieattr.Attributes{
		Name: c.Cookie, Domain: c.Domain, Path: c.Path,
		SameSite: c.SameSite, Partitioned: c.Partitioned, Insecure: c.Insecure,
	})
	for _, p := range problems {
		field := p.Field
		if field == "Name" {
			field = "Cookie"
		}
		wrong(field, "%s", p.Text)
	}
	return cookie, errors.Join(errs...)
}

func validName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
