package wsproxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// site is the origin of a page (RFC 6454): what is compared.
type site struct {
	scheme, host, port string // in lower case, without a dot at the end, with the scheme's port if there is none
}

// parseOrigin parses the value of an Origin field. Browsers send scheme, host and
// port and nothing else, in ASCII and without encoding, and anything else is no
// origin.
func parseOrigin(s string) (site, bool) {
	u, err := url.Parse(s)
	if err != nil || !isPlain(s) || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery ||
		u.Fragment != "" || u.Opaque != "" || strings.HasSuffix(s, "#") {
		return site{}, false
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return site{u.Scheme, strings.ToLower(u.Hostname()), u.Port()}, true
	}
	return newSite(u.Scheme, u.Host)
}

// newSite returns the site of a scheme and a host with an optional port.
func newSite(scheme, hostport string) (site, bool) {
	host, port, ok := splitHost(hostport)
	if !ok || strings.Contains(host, ":") && hostport[0] != '[' {
		return site{}, false
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if port == "" {
		port = "80"
		if scheme == "https" {
			port = "443"
		}
	}
	return site{scheme, host, port}, host != ""
}

// isPlain reports whether s is ASCII, with nothing percent-encoded. Of other
// letters two can be the same in lower case.
func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || r == '%' })
}

// allowed is an entry of Config.Origins.
type allowed struct {
	site
	below  bool // the name stands for those below it
	scheme bool // the scheme is compared, and the port
}

func parseAllowed(s string) (allowed, error) {
	pattern := s
	var a allowed
	scheme, rest, ok := strings.Cut(pattern, "://")
	switch {
	case ok:
		a.scheme = true
	case strings.HasPrefix(pattern, "*."):
		scheme, rest = "https", pattern
	default:
		return a, fmt.Errorf("must be an origin such as https://app.example")
	}
	if name, ok := strings.CutPrefix(rest, "*."); ok {
		a.below, rest = true, name
	}
	if strings.Contains(rest, "*") || (!a.scheme && strings.Contains(rest, ":")) {
		return a, fmt.Errorf("must have a * as its first label only, and a scheme if it has a port")
	}
	if !isPlain(rest) {
		return a, fmt.Errorf("must have its host in ASCII, with xn--, as browsers send it")
	}
	a.site, ok = parseOrigin(scheme + "://" + rest)
	if !ok {
		return a, fmt.Errorf("must be an origin: scheme, host and port")
	}
	return a, nil
}

func (a *allowed) matches(s site) bool {
	if a.scheme && (a.site.scheme != s.scheme || a.port != s.port) {
		return false
	}
	if !a.scheme && s.scheme != "http" && s.scheme != "https" {
		return false
	}
	if a.below {
		return strings.HasSuffix(s.host, "."+a.host)
	}
	return a.host == s.host
}

// origins is the policy of a Proxy.
type origins struct {
	any, required, null bool
	list                []allowed
	check               func(*http.Request, string) bool
}

func newOrigins(c *Config, bad *problems) origins {
	o := origins{any: c.InsecureAnyOrigin, required: c.OriginRequired, check: c.CheckOrigin}
	for _, s := range c.Origins {
		if s == "null" {
			o.null = true
			continue
		}
		a, err := parseAllowed(s)
		if err != nil {
			bad.add("Origins", err.Error(), fmt.Sprintf("%q", s))
			continue
		}
		o.list = append(o.list, a)
	}
	return o
}

// allow judges the Origin of a handshake. scheme and host are those that the
// client used. The error is an *Error.
func (o *origins) allow(hs *Handshake, scheme, host string) error {
	origin := hs.Origin
	if len(hs.Request.Header["Origin"]) == 0 {
		if o.required {
			return &Error{Kind: BadOrigin, Err: fmt.Errorf("no Origin")}
		}
		return nil
	}
	if o.any {
		return nil
	}
	ok := false
	switch s, valid := parseOrigin(origin); {
	case o.check != nil:
		ok = o.check(hs.Request, origin)
	case origin == "null":
		ok = o.null
	case valid:
		ok = s.own(scheme, host) || slices.ContainsFunc(o.list, func(a allowed) bool { return a.matches(s) })
	}
	if !ok {
		return &Error{Kind: BadOrigin, Err: fmt.Errorf("origin %.200q", origin)}
	}
	return nil
}

// own reports whether s is the site that the request itself went to. A request
// over plain TCP may have been sent over TLS to a proxy that does not say so, so
// there both schemes are right.
func (s site) own(scheme, host string) bool {
	if s.scheme != "https" && (s.scheme != "http" || scheme == "https") {
		return false
	}
	own, ok := newSite(s.scheme, host)
	return ok && own == s
}
