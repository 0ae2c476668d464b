package upstream

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// A Target is one back end. The scheme of its URL selects the protocol:
//
//	http            HTTP/1.1
//	https           HTTP/2 or HTTP/1.1 over TLS, as agreed by ALPN
//	h2, grpcs       HTTP/2 over TLS, anything else is an error
//	h2c, grpc       HTTP/2 without TLS, with prior knowledge
//	unix            HTTP/1.1 over the socket at the URL's path
//	unix+h2c        HTTP/2 over the socket at the URL's path
//
// Other schemes need [Config.Transport]. The URL has no path (but for a
// socket's), query, fragment or user information: the target URI of requests is
// the business of [ProxyConfig.URI].
type Target struct {
	// URL is the scheme and authority, such as "http://10.0.0.7:8080". The port
	// may be left out for 80 and, over TLS, 443.
	URL string

	// ID names the target in statistics, errors and sticky cookies, and is
	// what a back end's connections and health are kept by across
	// [Pool.Update], unless that changes what is connected to. It must be
	// unique in a Pool. Empty is URL, followed by "@" and Addr if that is set.
	ID string

	// Addr is the address that is dialled, host:port, if it is not the one that
	// URL names. The resolvers set it.
	Addr string

	// Weight is the target's share among those of its priority; zero is 1, at
	// most 1000000, and not negative.
	Weight int

	// Priority orders targets into groups; a group is used while those with
	// lower numbers are not healthy enough. Not negative.
	Priority int

	// MaxInFlight overrides Conns.MaxInFlight: zero inherits, negative is no
	// limit.
	MaxInFlight int

	// ServerName is the name that is verified in the target's certificate and
	// sent as SNI; empty is the URL's host.
	ServerName string

	// Host is sent as the Host field or :authority. Empty is the request's own
	// without TLS and for sockets, and the URL's authority over TLS, where it
	// must agree with the certificate as a rule; PreserveHost sends the request's
	// there too.
	Host         string
	PreserveHost bool

	// Draining takes the target out of the choice, but for requests that stick
	// to it.
	Draining bool

	// Labels are for [Observer], [Pool.Backends] and pickers of your own.
	Labels map[string]string
}

const maxWeight = 1_000_000

// protocol is what a connection to a target speaks.
type protocol uint8

const (
	protoForeign protocol = iota // Config.Transport knows
	protoH1                      // HTTP/1.1 without TLS
	protoTLS                     // by ALPN
	protoH2                      // HTTP/2 over TLS
	protoH2C                     // HTTP/2 without TLS
)

// endpoint is a Target made ready.
type endpoint struct {
	Target
	proto    protocol
	network  string // for Dial
	addr     string // for Dial
	dialKey  string // host:port for Transport.NewClientConn, which takes no socket paths
	urlHost  string // what URL.Host of a request becomes
	sendHost string // Host field; empty is the request's
	sni      string // ServerName, or the URL's host
}

// secure reports whether the target is spoken to over TLS.
func (e *endpoint) secure() bool { return e.proto == protoTLS || e.proto == protoH2 }

// scheme is what URL.Scheme of a request becomes.
func (e *endpoint) scheme() string {
	switch e.proto {
	case protoTLS, protoH2:
		return "https"
	case protoForeign:
		return e.URL[:strings.IndexByte(e.URL, ':')]
	}
	return "http"
}

var errTargetParts = errors.New("must have nothing but scheme and authority")

// parseTarget makes t ready. foreign allows schemes that are not this
// package's.
func parseTarget(t Target, foreign bool) (*endpoint, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, errors.New("is no URL") // the text of err repeats what may be a password
	}
	e := &endpoint{Target: t, network: "tcp"}
	e.Labels = maps.Clone(t.Labels)
	if e.Weight == 0 {
		e.Weight = 1
	}
	if u.User != nil {
		return nil, errors.New("must have no user information")
	}
	port := "80"
	switch u.Scheme {
	case "http":
		e.proto = protoH1
	case "https":
		e.proto, port = protoTLS, "443"
	case "h2", "grpcs":
		e.proto, port = protoH2, "443"
	case "h2c", "grpc":
		e.proto = protoH2C
	case "unix", "unix+h2c":
		e.proto = protoH1
		if u.Scheme == "unix+h2c" {
			e.proto = protoH2C
		}
		return e, e.socket(u)
	default:
		if !foreign || u.Scheme == "" {
			return nil, fmt.Errorf("has a scheme that needs Config.Transport, %q", u.Scheme)
		}
		port = "443"
	}
	if u.Opaque != "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, errTargetParts
	}
	host := u.Hostname()
	if host == "" {
		return nil, errors.New("must name a host")
	}
	if p := u.Port(); p != "" {
		port = p
	}
	if !isPort(port) {
		return nil, errors.New("must have a port between 1 and 65535")
	}
	e.dialKey = net.JoinHostPort(host, port)
	e.addr = e.dialKey
	if t.Addr != "" {
		e.addr = t.Addr
	}
	e.urlHost = u.Host
	switch {
	case t.Host != "":
		e.sendHost = t.Host
	case (e.secure() || e.proto == protoForeign) && !t.PreserveHost:
		e.sendHost = u.Host
	}
	if e.sni = e.ServerName; e.sni == "" {
		e.sni = host
	}
	if e.ID == "" {
		e.ID = t.URL
		if t.Addr != "" {
			e.ID += "@" + t.Addr
		}
	}
	return e, nil
}

// socket makes e ready for a URL of the form unix:///path.
func (e *endpoint) socket(u *url.URL) error {
	path := u.Path
	if u.Opaque != "" {
		path = u.Opaque // unix:relative/path
	}
	if u.Host != "" || path == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be unix: and the path of a socket, without a host")
	}
	e.network, e.addr = "unix", path
	e.dialKey = "localhost:80"
	e.urlHost = "localhost"
	e.sendHost = e.Host
	if e.ID == "" {
		e.ID = e.URL
	}
	return nil
}

// checkTarget returns what is wrong with the fields beside the URL.
func checkTarget(p *problems, field string, t Target) {
	if t.Weight < 0 || t.Weight > maxWeight {
		p.add(field+".Weight", "must be between 0 and 1000000", t.Weight)
	}
	if t.Priority < 0 {
		p.add(field+".Priority", "must not be negative", t.Priority)
	}
	if t.Addr != "" {
		if _, port, err := net.SplitHostPort(t.Addr); err != nil || !isPort(port) {
			p.add(field+".Addr", "must be host:port", fmt.Sprintf("%q", t.Addr))
		}
	}
	if t.PreserveHost && t.Host != "" {
		p.add(field+".PreserveHost", "must not be set together with Host", t.Host)
	}
	if !isHost(t.Host) {
		p.add(field+".Host", "must be a host with or without a port", fmt.Sprintf("%q", t.Host))
	}
}

// isHost reports whether s can be sent as a Host field, or is empty.
func isHost(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == '@' })
}

// isPort reports whether s is a port that can be dialled: a number, or the name
// of a service.
func isPort(s string) bool {
	if strings.Trim(s, "0123456789") != "" {
		return true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// parseTargets makes all of ts ready, or says what is wrong with them and with
// checking them in that way.
func parseTargets(ts []Target, foreign bool, check CheckKind) ([]*endpoint, problems) {
	var p problems
	es := make([]*endpoint, 0, len(ts))
	seen := make(map[string]bool, len(ts))
	for i, t := range ts {
		field := fmt.Sprintf("Targets[%d]", i)
		checkTarget(&p, field, t)
		e, err := parseTarget(t, foreign)
		if err != nil {
			p.add(field+".URL", err.Error(), redacted(t.URL))
			continue
		}
		if !check.suits(e.proto) {
			wrong := "must have a scheme that can be HTTP/2, for Check.Kind is CheckGRPC"
			if check == CheckTCP {
				wrong = "must have a scheme of this package's, for Check.Kind is CheckTCP"
			}
			p.add(field+".URL", wrong, redacted(t.URL))
			continue
		}
		if seen[e.ID] {
			p.add(field+".ID", "must be unique", fmt.Sprintf("%q", e.ID))
			continue
		}
		seen[e.ID] = true
		es = append(es, e)
	}
	return es, p
}

// redacted is a URL without the password that it should not have had.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "a string that does not parse"
	}
	return fmt.Sprintf("%q", u.Redacted())
}
