package upstream

import (
	"net/http"
	"net/textproto"
	"strings"
)

// fieldClass says what a proxy does with a header field, by its name.
type fieldClass uint8

const (
	fieldOther     fieldClass = iota
	fieldHop                  // between two neighbours only, in either direction
	fieldTE                   // hop-by-hop, except for "trailers"
	fieldForwarded            // what a proxy says about the client: believed from trusted peers only
	fieldPoison               // never from a client: CGI turns Proxy into HTTP_PROXY
	fieldHost                 // carried in Request.Host, never in the header
	fieldLength               // Content-Length: a request's framing is computed anew
	fieldGuarded              // end-to-end, and not for Connection to remove
	fieldMaxForwards
	fieldExpect
)

// classOf returns the class of a field name in canonical form. It is asked for
// every field of every request, and a switch over constants beats a map.
func classOf(name string) fieldClass {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Trailer", "Upgrade",
		"Proxy-Authorization", "Proxy-Authenticate", "Proxy-Authentication-Info",
		"Alt-Svc", "Alt-Used", "Http2-Settings",
		"Close": // reserved for the option of Connection: RFC 9112 section 9.6
		return fieldHop
	case "Te":
		return fieldTE
	case "Forwarded", "X-Real-Ip", "True-Client-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
		"X-Original-Forwarded-For", "X-Original-Url", "X-Original-Uri", "X-Original-Host", "X-Rewrite-Url":
		return fieldForwarded
	case "Proxy":
		return fieldPoison
	case "Host":
		return fieldHost
	case "Content-Length":
		return fieldLength
	case "Max-Forwards":
		return fieldMaxForwards
	case "Expect":
		return fieldExpect
	case "Authorization", "Cookie", "Via", "X-Request-Id", "X-Correlation-Id", "Traceparent", "Tracestate",
		"Baggage", "Content-Type", "Content-Encoding", "Set-Cookie", "Early-Data", "Origin",
		"X-Csrf-Token", "Idempotency-Key", "Cache-Control", "Remote-User", "Date":
		return fieldGuarded
	}
	if strings.HasPrefix(name, "X-Forwarded-") {
		return fieldForwarded
	}
	if strings.HasPrefix(name, "X-Auth-") || strings.HasPrefix(name, "X-Remote-") || strings.HasPrefix(name, "Remote-") {
		return fieldGuarded
	}
	return fieldOther
}

// plainName reports whether a field name has letters, digits and hyphens only.
// Others are legal, but CGI and its heirs take them for the same name with a
// hyphen, and so do people.
func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c|0x20 < 'a' || c|0x20 > 'z' {
			if (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// lookalike returns the canonical name that a name with other characters can be
// taken for.
func lookalike(name string) string {
	return textproto.CanonicalMIMEHeaderKey(strings.Map(func(c rune) rune {
		if c < 0x80 && plainName(string(c)) {
			return c
		}
		return '-'
	}, name))
}

// protected is the set of names in ProxyConfig.Protect.
type protected struct {
	names    map[string]bool
	prefixes []string
}

func newProtected(names []string) protected {
	g := protected{}
	for _, name := range names {
		if stem, ok := strings.CutSuffix(name, "*"); ok {
			g.prefixes = append(g.prefixes, textproto.CanonicalMIMEHeaderKey(stem))
			continue
		}
		if g.names == nil {
			g.names = make(map[string]bool, len(names))
		}
		g.names[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	return g
}

func (g *protected) has(name string) bool {
	if g.names[name] {
		return true
	}
	for _, p := range g.prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// removable reports whether Connection may remove a field: not what says who
// the client is and what it may do, which the next hop would miss without a
// sign that it was ever there, and not what has a rule of its own.
func (g *protected) removable(name string) bool {
	return classOf(name) == fieldOther && !g.has(name)
}

// connection is what the Connection fields of a message say.
type connection struct {
	upgrade bool
	names   []string // canonical; those of fields that it removes
}

func readConnection(values []string, g *protected) (c connection) {
	for _, v := range values {
		for token := range strings.SplitSeq(v, ",") {
			token = textproto.TrimString(token)
			switch {
			case token == "", isOption(token, "keep-alive"), isOption(token, "close"):
				// Fields of these names go nowhere in any case.
			case isOption(token, "upgrade"):
				c.upgrade = true
			default:
				if name := textproto.CanonicalMIMEHeaderKey(token); g.removable(name) {
					c.names = append(c.names, name)
				}
			}
		}
	}
	return c
}

// isOption reports whether a token is an option of Connection, in any letter
// case. EqualFold alone folds more than ASCII: a long s is an s to it.
func isOption(token, option string) bool {
	return len(token) == len(option) && strings.EqualFold(token, option)
}

// strip removes the fields that are listed. It looks for each of the names, and
// not for each of the fields among them: there may be a hundred thousand of both.
func (c *connection) strip(h http.Header) {
	for _, name := range c.names {
		delete(h, name)
	}
}

// hasToken reports whether a token is in a list, as TE and Connection are.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		if strings.EqualFold(v, token) {
			return true
		}
		for t := range strings.SplitSeq(v, ",") {
			if t, _, _ = strings.Cut(t, ";"); strings.EqualFold(textproto.TrimString(t), token) {
				return true
			}
		}
	}
	return false
}

// requestHeader returns the fields of a request that go on to a back end. The
// values are those of in, clipped: appending to them changes nothing else.
func (p *Proxy) requestHeader(in http.Header, c *connection, trusted bool) http.Header {
	// What is added later fits in: Via and three of X-Forwarded. A map of no more
	// than eight is much cheaper, and one of no more than fourteen half as large as
	// the next, so that it is worth while to leave out the length, which is not in it.
	size := len(in) + 4
	if size > 8 && in["Content-Length"] != nil {
		size--
	}
	out := make(http.Header, size)
	for name, values := range in {
		switch classOf(name) {
		case fieldHop, fieldPoison, fieldHost, fieldLength:
			continue
		case fieldTE:
			if len(values) != 1 || values[0] != "trailers" {
				if hasToken(values, "trailers") {
					out["Te"] = []string{"trailers"}
				}
				continue
			}
		case fieldForwarded:
			if !trusted || name == "X-Real-Ip" && p.forwarder.RealIP {
				continue
			}
		case fieldOther:
			if !plainName(name) && p.impostor(in, name) {
				continue
			}
		}
		out[name] = values[:len(values):len(values)]
	}
	c.strip(out)
	return out
}

// impostor reports whether a name with unusual characters looks like one that
// means something here: X_Forwarded_For, or X_User beside X-User.
func (p *Proxy) impostor(in http.Header, name string) bool {
	like := lookalike(name)
	if classOf(like) != fieldOther || p.protected.has(like) {
		return true
	}
	_, ok := in[like]
	return ok
}

// responseHeader removes from the header of a response what does not go on.
func (p *Proxy) responseHeader(h http.Header) {
	var c connection
	if v := h["Connection"]; v != nil {
		c = readConnection(v, &p.protected)
	}
	for name := range h {
		switch classOf(name) {
		case fieldHop, fieldTE:
			delete(h, name)
		}
	}
	c.strip(h)
}

// merge puts the fields of a response into the header that goes to the client,
// which may have some already.
//
// What stands there was set by what is outside of the proxy, and is its to say:
// an ID, a security policy. It stays and the back end's field of that name is
// dropped. Lists get both, and what describes the representation can only be
// the back end's.
func merge(dst, src http.Header) {
	if len(dst) == 0 {
		for name, values := range src {
			dst[name] = values[:len(values):len(values)]
		}
		return
	}
	for name, values := range src {
		own, ok := dst[name]
		switch {
		case !ok || describes(name):
			dst[name] = values[:len(values):len(values)]
		case accumulates(name):
			dst[name] = append(own[:len(own):len(own)], values...)
		}
	}
}

// describes reports whether a field describes the representation.
func describes(name string) bool {
	switch name {
	case "Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Location",
		"Content-Range", "Content-Disposition", "Content-Digest", "Repr-Digest", "Digest", "Content-Md5",
		"Etag", "Last-Modified", "Date", "Age", "Location", "Accept-Ranges", "Retry-After":
		return true
	}
	return false
}

// accumulates reports whether a field is a list to which every hop may add.
func accumulates(name string) bool {
	switch name {
	case "Vary", "Set-Cookie", "Link", "Via", "Server-Timing", "Proxy-Status", "Cache-Status",
		"Www-Authenticate", "Warning", "Access-Control-Expose-Headers":
		return true
	}
	return false
}

// trailable reports whether a field may be sent as a trailer (RFC 9110 section
// 6.5.1): nothing that frames, routes, controls or authorizes, since who merges
// trailers into the header would act on it too late.
func trailable(name string) bool {
	if describes(name) || strings.HasPrefix(name, http.TrailerPrefix) {
		return false
	}
	switch name {
	case "X-Request-Id", "X-Correlation-Id", "Traceparent", "Tracestate", "Baggage":
		return true
	case "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range",
		"Pragma", "Expires", "Vary", "Www-Authenticate", "Upgrade-Insecure-Requests":
		return false
	}
	return classOf(name) == fieldOther
}
