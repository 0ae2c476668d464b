package forwardauth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode is the dialect in which the decision service is asked.
type Mode int

const (
	// Traefik asks with GET at Config.URL. X-Forwarded-Method, -Proto, -Host,
	// -Uri, -For and -Port describe the request. Caddy's forward_auth is the
	// same. Any 2xx allows.
	Traefik Mode = iota

	// Nginx asks with GET at Config.URL. X-Original-URL and X-Original-Method
	// describe the request, X-Forwarded-Proto, -Host and -For the client. Any
	// 2xx allows.
	Nginx

	// Envoy asks with the method, host and path of the request itself, below
	// the path of Config.URL, as ext_authz with an HTTP service does, and with
	// X-Forwarded-Proto and -For. 200 allows, and no other status.
	//
	// One slash at the end of Config.URL makes no difference; a second one is
	// kept. Authelia needs it, as in https://auth.example.com/api/authz/ext-authz//:
	// it takes for the path what follows the first, and would otherwise read
	// the path of a request as the end of the host.
	Envoy

	// JSON asks with POST at Config.URL, as Open Policy Agent wants it: the
	// body is {"input": …} with the document of Config.Input, the answer is 200
	// with {"result": true} or {"result": {"allow": true, …}}: see the package
	// comment.
	JSON
)

// String returns the name of the mode.
func (m Mode) String() string {
	switch m {
	case Traefik:
		return "traefik"
	case Nginx:
		return "nginx"
	case Envoy:
		return "envoy"
	case JSON:
		return "json"
	}
	return "unknown"
}

// HeaderCopy names a field of an allowing answer, and the field of the request
// in which the next handler finds its values.
type HeaderCopy struct {
	From string // in the answer. Required.
	To   string // in the request; "" is From
}

// The defaults of Config.
const (
	defaultTimeout     = 3 * time.Second
	defaultMaxResponse = 64 << 10
)

// Config configures a [Middleware]. Functions in it must be safe for concurrent
// use. They are called from the goroutine that serves the request; with a Cache,
// though, Base, Allow and the store's Put run in one of the question, on a
// context with the values of the request that asked first and without its end,
// perhaps after that request has gone.
type Config struct {
	// URL is where the decision service answers: http or https, with a host,
	// without user info and fragment; in Envoy mode also without a query, and
	// without two slashes at the beginning of its path. Required.
	URL string

	// Mode is how it is asked. Zero is Traefik.
	Mode Mode

	// Base sends the questions. nil is a transport of its own, which takes no proxy
	// from the environment, keeps up to 100 idle connections, dials for as long as
	// Timeout and 30 s at most, and speaks HTTP/1.1 and, over TLS, HTTP/2. A
	// breaker, a transport that adds request IDs or an instrumented one goes here.
	// Redirects are never followed. A question may be sent again where a connection
	// ends without an answer: it has GetBody, and an Idempotency-Key without values,
	// which net/http takes for leave to do so and does not send. With a Cache see
	// the comment of Config.
	Base http.RoundTripper

	// Timeout bounds a question, from dialling to the last byte of the answer.
	// Zero is 3 s; negative leaves it to the context of the request, and with a
	// Cache to those of all requests that wait for it.
	Timeout time.Duration

	// TrustedProxies are the peers whose X-Forwarded-Proto, -Host and -For are
	// believed, each with one value of good syntax, or the request is refused
	// with 400. They must set or remove all three: what they pass on of a client
	// is believed too. nil is nobody: whatever a client says about itself is dropped.
	// X-Forwarded-Method and -Uri are never taken from anybody.
	TrustedProxies []netip.Prefix

	// RequestHeaders are fields of the request that the service gets to see
	// beside Accept, Accept-Language, Authorization, Cookie, User-Agent and
	// X-Requested-With. Fields of HTTP itself and those that this package writes
	// are refused.
	RequestHeaders []string

	// RequestCookies are the cookies that the service gets to see, by name.
	// nil is all, an empty slice none.
	RequestCookies []string

	// CopyHeaders are the fields of an allowing answer that the next handler
	// gets, all values in their order. A client can send none of the To fields,
	// nor anything that a CGI, WSGI or Node.js layer behind might take for one:
	// names are compared with every character but letters and digits taken for
	// a hyphen. What the service leaves out is absent. To must not be Cookie or
	// a field of HTTP itself; no two may be alike in that comparison.
	CopyHeaders []HeaderCopy

	// SuccessCookies are the cookies of an allowing answer that are added to
	// the response. The zero value is none; see [AllCookies]. A cookie of the
	// same name that the handler sets itself wins.
	SuccessCookies CookieRule

	// DenyHeaders are fields of a denying answer that the client gets beside
	// Cache-Control, Content-Encoding, Content-Language, Content-Type, Location,
	// Retry-After, Set-Cookie, Vary and WWW-Authenticate.
	DenyHeaders []string

	// MaxBody makes the request body part of the question, and is how many
	// bytes it may have: a longer one is refused with 413, and one that
	// announces its length before a byte of it is read. For each request what
	// has come of the body is held in memory until the handler ends, and up to
	// twice MaxBody while it is read; see the package comment for mode JSON.
	// Reading is not under Timeout. Zero or negative sends no body. More than
	// a quarter of the largest int is that quarter: 512 MiB on 32-bit machines.
	//
	// What a WebSocket over HTTP/2 or HTTP/3 sends (RFC 8441) is not a body.
	MaxBody int64

	// MaxResponse is how many bytes the body of an answer may have; a longer
	// answer is none. Zero is 64 KiB; negative is not accepted. As for MaxBody,
	// more than a quarter of the largest int is that quarter.
	MaxResponse int64

	// Allow judges the statuses from 200 to 299; no other ever allows. nil
	// accepts all of them, in Envoy mode 200 alone. It must be nil in JSON mode.
	// With a Cache see the comment of Config.
	Allow func(status int) bool

	// RedirectHTML turns a 401 that has a Location into a redirect for clients
	// whose Accept has text/html, as nginx's error_page does: 302 for GET and
	// HEAD, 303 for other methods.
	RedirectHTML bool

	// SignIn is a URL, absolute or beginning with one slash, to which GET and
	// HEAD requests whose Accept has text/html are redirected (302) when the
	// service answers 401 without a Location. The URL of the request is added as
	// the query parameter rd; whoever redirects back there must check it, since
	// the host in it is the client's word. "" passes the 401 on.
	SignIn string

	// ResolveLocation makes a relative Location of the service absolute, by
	// Config.URL. By default it is passed on as it is.
	ResolveLocation bool

	// InsecureAmbiguousPaths lets paths pass that two programs may well read
	// differently: with empty, "." and ".." segments (also before a semicolon, as
	// in "..;x"), backslashes, encoded slashes and backslashes, encoded control
	// bytes, double encoding, and whatever is not its own normal form (RFC 3986,
	// section 6.2.2): encoded letters, digits, "-", ".", "_" and "~", encodings
	// with lower-case digits (%c3), and bytes that must be encoded and are not,
	// as "|" and non-ASCII ones. By default they are refused with 400, since the
	// path that the service judges and the one that the application serves must
	// be the same. Control bytes, fragments and targets that are no path are
	// refused in any case.
	//
	// One choice of spelling is left to the client even so, since browsers and
	// programs differ in it: each of the reserved characters
	// ! $ & ' ( ) * + , : ; = @ [ ] may stand as it is or be encoded, so that
	// /@admin and /%40admin both pass. The RFC takes them for two paths (section
	// 2.2); http.ServeMux takes them for one. The service gets the path as it was
	// sent, and must decode it before it compares it with a rule; in JSON mode
	// the path is decoded. If the application ignores parameters of segments
	// (;x), the service has to ignore them too.
	InsecureAmbiguousPaths bool

	// Skip lets a request through without asking: for health checks, or CORS
	// preflights. Such a request has no [Identity], and is stripped of the
	// fields of CopyHeaders as any other. What no service could allow, a method,
	// an upgrade or a target that is not accepted, is refused before, so that
	// URL.Path has one reading unless InsecureAmbiguousPaths is set. Skip is given
	// the stripped request. nil skips none.
	Skip func(*http.Request) bool

	// Input makes the document of JSON mode. An error is answered with 503. nil
	// is the document of the package comment. It must be nil in other modes.
	//
	// It gets the request as the next handler would, which is without the client's
	// fields of CopyHeaders: with {From: "X-Token", To: "Authorization"} there is
	// no Authorization. Its Body is what was read under MaxBody, and empty without
	// MaxBody; the handler's own is not touched by reading it. In strings of the
	// document bytes that are not UTF-8 become U+FFFD: where they can be there,
	// it has to refuse or encode them.
	Input func(*http.Request) (any, error)

	// Cache keeps decisions that allow. nil asks for each request.
	Cache *CacheConfig

	// OnDecision is told each decision before it is carried out. It is not called
	// where there is none because something has panicked, Base or another function
	// of this Config, nor for what Skip lets through. nil is nobody.
	OnDecision func(*http.Request, Decision)

	// ErrorHandler answers where the service has not: the error is an *[Error].
	// nil is [WriteError]. There is no way for it to let the request through.
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger is told when the cache's store fails, which changes nothing that a
	// caller sees, and of a panic of Base, Allow or the store whose request has
	// gone. nil discards.
	Logger *slog.Logger
}

// Decision is what [Config.OnDecision] is told. It holds nothing that the
// client or the service sent.
type Decision struct {
	Allowed bool

	// Status is that of the service, of a policy engine the one it asked for,
	// and 0 when it was not heard: when Err is set or Cached.
	Status int

	Cached   bool          // the answer came from the cache
	Duration time.Duration // from the arrival of the request
	Err      error         // an *Error, where there was no decision
}

// check returns every problem of the configuration.
func (c *Config) check() error {
	var errs []error
	bad := func(field, what string, got any) {
		errs = append(errs, fmt.Errorf("forwardauth: %s: %s (got %v)", field, what, got))
	}
	what := checkURL(c.URL)
	if what == "" && c.Mode == Envoy {
		what = checkBase(c.URL)
	}
	if what != "" {
		// The URL may hold a password by mistake, so its text is not repeated.
		bad("URL", what, fmt.Sprintf("%d bytes", len(c.URL)))
	}
	if c.Mode < Traefik || c.Mode > JSON {
		bad("Mode", "is not a mode", int(c.Mode))
	}
	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			bad(fmt.Sprintf("TrustedProxies[%d]", i), "is not a prefix", p)
		}
	}
	for i, name := range c.RequestHeaders {
		if what := checkName(name, "sent as it is"); what != "" {
			bad(fmt.Sprintf("RequestHeaders[%d]", i), what, fmt.Sprintf("%q", name))
		}
	}
	for i, name := range c.RequestCookies {
		if !isToken(name) {
			bad(fmt.Sprintf("RequestCookies[%d]", i), "is not a cookie name", fmt.Sprintf("%q", name))
		}
	}
	for i, h := range c.CopyHeaders {
		if what := checkName(h.From, "copied"); what != "" {
			bad(fmt.Sprintf("CopyHeaders[%d].From", i), what, fmt.Sprintf("%q", h.From))
			continue
		}
		to := h.to()
		if what := checkName(to, "copied"); what != "" {
			bad(fmt.Sprintf("CopyHeaders[%d].To", i), what, fmt.Sprintf("%q", to))
			continue
		}
		if slices.ContainsFunc(c.CopyHeaders[:i], func(o HeaderCopy) bool { return fold(o.to()) == fold(to) }) {
			bad(fmt.Sprintf("CopyHeaders[%d].To", i), "is an earlier one, or like one", fmt.Sprintf("%q", to))
		}
	}
	if len(c.CopyHeaders) > 255 {
		bad("CopyHeaders", "has more than 255 entries", len(c.CopyHeaders))
	}
	for i, name := range c.SuccessCookies.names {
		if !isToken(name) {
			bad(fmt.Sprintf("SuccessCookies[%d]", i), "is not a cookie name", fmt.Sprintf("%q", name))
		}
	}
	for i, name := range c.DenyHeaders {
		if !isToken(name) || hopByHop(http.CanonicalHeaderKey(name)) {
			bad(fmt.Sprintf("DenyHeaders[%d]", i), "is not a field name that can be passed on", fmt.Sprintf("%q", name))
		}
	}
	if c.MaxResponse < 0 {
		bad("MaxResponse", "is negative", c.MaxResponse)
	}
	if c.Mode == JSON && c.Allow != nil {
		bad("Allow", "has no meaning in JSON mode", "a function")
	}
	if c.Mode != JSON && c.Input != nil {
		bad("Input", "has no meaning outside of JSON mode", "a function")
	}
	if c.SignIn != "" && !validSignIn(c.SignIn) {
		bad("SignIn", "is neither an http or https URL nor a path, or has a fragment or what must be encoded", fmt.Sprintf("%d bytes", len(c.SignIn)))
	}
	if c.Cache != nil {
		errs = append(errs, c.Cache.check())
	}
	return errors.Join(errs...)
}

func (h HeaderCopy) to() string {
	if h.To == "" {
		return h.From
	}
	return h.To
}

// checkURL says what is wrong with the URL of a decision service.
func checkURL(s string) string {
	if s == "" {
		return "is required"
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return "is neither http nor https"
	case u.Hostname() == "":
		return "has no host"
	case !validPort(u.Port()):
		return "has a port that is none"
	case u.User != nil:
		return "has user info"
	case strings.Contains(s, "#"):
		return "has a fragment"
	}
	return ""
}

// validPort reports whether a port, or none, is one that can be dialled.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// checkBase says why targets cannot be asked for below a URL.
func checkBase(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not a URL"
	case u.RawQuery != "" || u.ForceQuery:
		return "has a query, where that of the request goes"
	case strings.HasPrefix(strings.TrimSuffix(u.EscapedPath(), "/")+"/", "//"):
		return "has a path that begins with two slashes"
	}
	return ""
}

// validSignIn reports whether s is a place to redirect to: a second slash or a
// backslash after the first would make a host of what looks like a path.
func validSignIn(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '#' {
			return false // the query would become part of the fragment
		}
	}
	if strings.HasPrefix(s, "/") {
		u, err := url.Parse(s)
		return err == nil && u.Host == "" && !strings.HasPrefix(s, "//") && !strings.Contains(s, `\`)
	}
	return checkURL(s) == ""
}

// checkName says why a header field cannot be sent to the service or copied
// from its answer.
func checkName(name, how string) string {
	switch {
	case name == "":
		return "is empty"
	case !isToken(name):
		return "is not a header field name"
	}
	key := http.CanonicalHeaderKey(name)
	switch {
	case hopByHop(key), key == "Host", key == "Content-Length", key == "Expect":
		return "belongs to HTTP itself"
	case written(key):
		return "is written by this package"
	case how == "copied" && (key == "Cookie" || key == "Set-Cookie"):
		return "cannot be copied; see SuccessCookies"
	case how != "copied" && describesForwarding(fold(key)):
		return "says how the request was forwarded"
	}
	return ""
}

// hopByHop are the fields that mean something to one connection only (RFC
// 9110, section 7.6.1).
func hopByHop(key string) bool {
	switch key {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length":
		return true
	}
	return false
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isAlnum(c) && !strings.Contains("!#$%&'*+-.^_`|~", string(rune(c))) {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return isLetter(c) || '0' <= c && c <= '9'
}

func isLetter(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z'
}
