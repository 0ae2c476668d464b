package wsproxy

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"example.com/plainware/internal/urlpath"
)

// Target is where a tunnel goes.
type Target struct {
	// URL as in Config.Target. Required.
	URL string

	// Host is as Config.Host, which it overrides unless empty.
	Host string

	// Header is set on the handshake, over what the client sent. The fields of
	// the handshake itself and hop-by-hop fields are left out.
	Header http.Header
}

// endpoint is the URL of a Target made ready.
type endpoint struct {
	network, addr string // for Dial
	tls           bool
	serverName    string
	host          string // of the URL; "localhost" for a socket
	path, query   string // of the URL, as they are sent
	display       string // without what may be secret
}

var errTarget = errors.New("must be a ws, wss or unix URL")

func parseTarget(s string) (*endpoint, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errTarget // the error repeats the URL, which may have a secret in it
	}
	if u.User != nil || u.Fragment != "" {
		return nil, errors.New("must have no user and no fragment")
	}
	if urlpath.BadBytes(u.RawQuery) {
		return nil, errors.New("must have the characters of its query encoded")
	}
	e := &endpoint{query: u.RawQuery}
	switch u.Scheme {
	case "ws", "wss":
		if u.Opaque != "" || u.Hostname() == "" {
			return nil, fmt.Errorf("%w with a host", errTarget)
		}
		if !validHost(u.Host) {
			return nil, errors.New("must have a name in ASCII or an address for a host")
		}
		if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
			return nil, errors.New("must have a port between 1 and 65535")
		}
		e.tls = u.Scheme == "wss"
		port := "80"
		if e.tls {
			port = "443"
		}
		e.network, e.addr = "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
		e.serverName, e.host = u.Hostname(), u.Host
		if addr, zone, ok := strings.Cut(e.serverName, "%"); ok && u.Host[0] == '[' {
			// RFC 6874 section 4: a zone means something here and not to the peer.
			e.serverName, e.host = addr, strings.Replace(u.Host, "%"+zone, "", 1)
		}
		e.path = u.EscapedPath()
		e.display = u.Scheme + "://" + u.Host + e.path
	case "unix":
		path := cmp.Or(u.Path, u.Opaque) // unix:relative/path
		if path == "" || u.Host != "" || e.query != "" {
			return nil, errors.New("must be unix: and the path of a socket, without a host and a query")
		}
		e.network, e.addr, e.host, e.display = "unix", path, "localhost", "unix:"+path
	default:
		return nil, errTarget
	}
	return e, nil
}

// uri returns what is asked of the target for a request: paths joined with one
// slash, and both queries.
func (e *endpoint) uri(u *url.URL) string {
	path := u.EscapedPath()
	if e.path != "" && e.path != "/" {
		path = strings.TrimSuffix(e.path, "/") + path
	}
	query := u.RawQuery
	if e.query != "" {
		query = e.query
		if u.RawQuery != "" {
			query += "&" + u.RawQuery
		}
	}
	if query != "" {
		return path + "?" + query
	}
	return path
}

// hostFor returns the Host that the target is sent.
func (e *endpoint) hostFor(configured, client string) string {
	switch {
	case configured != "":
		return configured
	case e.tls:
		return e.host
	}
	return client
}

// redacted is a URL as it may be shown.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "…"
	}
	u.RawQuery = ""
	return u.Redacted()
}
