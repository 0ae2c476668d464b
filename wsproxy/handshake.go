package wsproxy

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"example.com/plainware/internal/urlpath"
)

// Handshake is a request to open a WebSocket that has passed all checks.
type Handshake struct {
	// Request is the client's. It must not be changed.
	Request *http.Request

	// Client is the client's address as far as Config.TrustedProxies vouch for
	// it. It is invalid where the peer has none: a unix socket.
	Client netip.Addr

	// Origin is the client's, or empty.
	Origin string

	// Subprotocols are what the client offers, as far as they are allowed.
	Subprotocols []string

	// Header is what the back end will be sent beside the fields of the
	// handshake itself. Hooks may change it.
	Header http.Header

	key        string   // Sec-WebSocket-Key, over HTTP/1.1 only
	extensions []string // the offer's field lines, as they came
}

// IsHandshake reports whether r asks for a WebSocket, over HTTP/1.1 (RFC 6455)
// or HTTP/2 (RFC 8441), well-formed or not. Middleware that buffers, compresses
// or limits the time of a response asks it in order to step aside.
func IsHandshake(r *http.Request) bool {
	switch r.ProtoMajor {
	case 1:
		return hasToken(r.Header["Upgrade"], "websocket") && hasToken(r.Header["Connection"], "upgrade")
	case 2:
		p := r.Header[":protocol"]
		return len(p) == 1 && strings.EqualFold(p[0], "websocket")
	}
	return false
}

// parse checks r and returns what it asks for. The error is an *Error.
func parse(r *http.Request) (*Handshake, error) {
	hs := &Handshake{Request: r}
	var err error
	switch {
	case r.ProtoMajor == 1:
		err = hs.parseUpgrade()
	case r.ProtoMajor == 2 && (r.Method == http.MethodConnect || r.Header[":protocol"] != nil):
		err = hs.parseConnect()
	case r.ProtoMajor == 2:
		err = &Error{Kind: NotHandshake, status: http.StatusBadRequest}
	default:
		err = &Error{Kind: NotHandshake}
	}
	if err == nil {
		err = hs.parseFields()
	}
	if err != nil {
		return nil, err
	}
	return hs, nil
}

func badHandshake(format string, args ...any) error {
	return &Error{Kind: BadHandshake, Err: fmt.Errorf(format, args...)}
}

// parseUpgrade checks what is particular to HTTP/1.1: RFC 6455 section 4.2.1.
func (hs *Handshake) parseUpgrade() error {
	r := hs.Request
	switch {
	case !hasToken(r.Header["Upgrade"], "websocket"):
		// Without it this is an ordinary request, not a broken handshake, unless
		// it has the fields that only a handshake has.
		if len(r.Header["Sec-Websocket-Key"]) == 0 {
			return &Error{Kind: NotHandshake}
		}
		return badHandshake("Upgrade does not say websocket")
	case !hasToken(r.Header["Connection"], "upgrade"):
		return badHandshake("Connection does not say upgrade")
	case r.Method != http.MethodGet:
		return badHandshake("the method is %s", r.Method)
	case r.ProtoMinor < 1:
		return badHandshake("the version is HTTP/1.0")
	case r.Host == "":
		return badHandshake("no Host")
	case !validHost(r.Host):
		return badHandshake("Host is no host")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		// After Hijack the body would come out as frames.
		return badHandshake("the request has a body")
	}
	key := r.Header["Sec-Websocket-Key"]
	if len(key) != 1 || !validKey(key[0]) {
		return badHandshake("Sec-WebSocket-Key is not 16 bytes in base64, once")
	}
	hs.key = key[0]
	return hs.parsePath()
}

// parseConnect checks what is particular to HTTP/2: RFC 8441 sections 4 and 5.
// Of what it says, net/http lets the following through.
func (hs *Handshake) parseConnect() error {
	r := hs.Request
	protocol := r.Header[":protocol"]
	switch {
	case len(protocol) == 0:
		return &Error{Kind: NotHandshake, status: http.StatusBadRequest} // CONNECT as it was before RFC 8441
	case r.Method != http.MethodConnect:
		return badHandshake(":protocol with the method %s", r.Method)
	case len(protocol) != 1 || !isToken(protocol[0]):
		return badHandshake(":protocol is no token")
	case !strings.EqualFold(protocol[0], "websocket"):
		return &Error{Kind: BadProtocol}
	case r.Host == "":
		return badHandshake("no :authority")
	case !validHost(r.Host):
		return badHandshake(":authority is no host")
	case r.TLS == nil && onlyTLS(r):
		return badHandshake(":scheme is not https")
	case r.ContentLength > 0:
		return badHandshake("the request has a body of a given length")
	}
	return hs.parsePath()
}

// onlyTLS reports whether r must have come over TLS. A server of HTTP/2 that is
// given its connections sets Request.TLS only where :scheme is https; one that
// accepts them sets it always, and then nothing shows that :scheme is missing.
// Without HTTP/2 among its protocols r has come another way, such as x/net's h2c.
func onlyTLS(r *http.Request) bool {
	srv, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	return srv != nil && srv.Protocols != nil && srv.Protocols.HTTP2() && !srv.Protocols.UnencryptedHTTP2()
}

// parsePath refuses paths that a mux has not cleaned, as it does not for
// CONNECT: the back end may find another resource in them than a rule in front
// of it saw. Over HTTP/2 a target may also have bytes that end one in HTTP/1.1.
func (hs *Handshake) parsePath() error {
	u := hs.Request.URL
	switch connect := hs.Request.Method == http.MethodConnect; {
	case u.Path == "" || u.Path[0] != '/':
		return badHandshake("the path does not begin with a slash")
	case urlpath.BadBytes(u.RawPath) || urlpath.BadBytes(u.RawQuery) || strings.IndexByte(u.Path, 0) >= 0 || u.Fragment != "":
		return badHandshake("the target has characters that must be encoded")
	case urlpath.DotSegments(u.Path) || connect && strings.Contains(u.Path, "//"):
		return badHandshake("the path is not clean")
	}
	return nil
}

// parseFields checks what both versions have in common.
func (hs *Handshake) parseFields() error {
	h := hs.Request.Header
	switch v := h["Sec-Websocket-Version"]; {
	case len(v) == 0:
		return badHandshake("no Sec-WebSocket-Version")
	case len(v) > 1 || v[0] != "13":
		return &Error{Kind: BadVersion}
	}
	for item := range items(h["Sec-Websocket-Protocol"]) {
		if !isToken(item) {
			return badHandshake("Sec-WebSocket-Protocol is not a list of tokens")
		}
		hs.Subprotocols = append(hs.Subprotocols, item)
	}
	if offer := h["Sec-Websocket-Extensions"]; len(offer) > 0 {
		if _, err := extensionNames(offer); err != nil {
			return badHandshake("Sec-WebSocket-Extensions: %w", err)
		}
		hs.extensions = offer
	}
	switch o := h["Origin"]; len(o) {
	case 0:
	case 1:
		hs.Origin = o[0]
	default:
		return badHandshake("more than one Origin")
	}
	return nil
}

// validKey reports whether s is 16 bytes in base64.
func validKey(s string) bool {
	if len(s) != 24 {
		return false
	}
	var b [18]byte
	n, err := base64.StdEncoding.Decode(b[:], []byte(s))
	return err == nil && n == 16
}

// newKey returns a Sec-WebSocket-Key of our own.
func newKey() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// acceptOf returns the Sec-WebSocket-Accept for a key: RFC 6455 section 4.2.2.
func acceptOf(key string) string {
	var sum [sha1.Size]byte
	// SHA-1 tells a WebSocket server from another one here. It protects
	// nothing, so a FIPS 140 mode that forbids it has no reason to.
	fips140.WithoutEnforcement(func() { sum = sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) })
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hasToken reports whether a comma-separated field has a token, without regard
// to case.
func hasToken(lines []string, token string) bool {
	for item := range items(lines) {
		if strings.EqualFold(item, token) {
			return true
		}
	}
	return false
}

// items iterates over the elements of a comma-separated field without quoted
// strings. Empty ones are skipped (RFC 9110 section 5.6.1.2).
func items(lines []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for item := range strings.SplitSeq(line, ",") {
				if item = strings.Trim(item, " \t"); item != "" && !yield(item) {
					return
				}
			}
		}
	}
}

var errExtension = errors.New("not a list of extensions")

// extensionNames parses Sec-WebSocket-Extensions (RFC 6455 section 9.1) and
// returns the names in it, in lower case. Parameters are checked for their form only.
func extensionNames(lines []string) ([]string, error) {
	var names []string
	for _, line := range lines {
		for rest := line; ; {
			rest = strings.TrimLeft(rest, " \t,")
			if rest == "" {
				break
			}
			var name string
			if name, rest = cutToken(rest); name == "" {
				return nil, errExtension
			}
			names = append(names, strings.ToLower(name))
			var ok bool
			if rest, ok = cutParameters(rest); !ok {
				return nil, errExtension
			}
		}
	}
	return names, nil
}

// cutParameters takes ";name" and ";name=value" off s, up to the next comma or
// the end.
func cutParameters(s string) (rest string, ok bool) {
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == ',' {
			return s, true
		}
		if s[0] != ';' {
			return s, false
		}
		var name string
		if name, s = cutToken(strings.TrimLeft(s[1:], " \t")); name == "" {
			return s, false
		}
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] != '=' {
			continue
		}
		s = strings.TrimLeft(s[1:], " \t")
		if s != "" && s[0] == '"' {
			// A quoted value must be a token once it is unquoted, so it has no
			// comma and no semicolon that could mean another thing.
			value, more, found := strings.Cut(s[1:], `"`)
			if !found || !isToken(strings.ReplaceAll(value, `\`, "")) {
				return s, false
			}
			s = more
			continue
		}
		var value string
		if value, s = cutToken(s); value == "" {
			return s, false
		}
	}
}

// cutToken splits s after the token that it begins with.
func cutToken(s string) (token, rest string) {
	n := 0
	for n < len(s) && isToken(s[n:n+1]) {
		n++
	}
	return s[:n], s[n:]
}
