package forwardauth

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// The fields that describe the request to the service.
const (
	forwardedMethod = "X-Forwarded-Method"
	forwardedProto  = "X-Forwarded-Proto"
	forwardedHost   = "X-Forwarded-Host"
	forwardedURI    = "X-Forwarded-Uri"
	forwardedFor    = "X-Forwarded-For"
	forwardedPort   = "X-Forwarded-Port"
	realIP          = "X-Real-Ip"
	originalURL     = "X-Original-Url"
	originalMethod  = "X-Original-Method"

	// loopMark lists the middlewares on whose behalf a question is asked.
	loopMark = "X-Forwardauth-Loop"
)

// written reports whether a name is, or could be taken for, that of a field
// which this package writes itself.
func written(name string) bool {
	var folded [len(forwardedMethod)]byte // none is longer
	if len(name) > len(folded) || name == "" || foldByte(name[0]) != 'x' {
		return false
	}
	for i := range len(name) {
		folded[i] = foldByte(name[i])
	}
	switch string(folded[:len(name)]) {
	case "x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-for",
		"x-forwarded-port", "x-real-ip", "x-original-url", "x-original-method", "x-forwardauth-loop":
		return true
	}
	return false
}

// describesForwarding reports whether a folded name is one by which services
// take a client's word for how a request came to it.
func describesForwarding(folded string) bool {
	return folded == "forwarded" || strings.HasPrefix(folded, "x-forwarded-") || strings.HasPrefix(folded, "x-original-")
}

// fold maps a header name to what the laxest reader behind could take it for:
// CGI, WSGI, PHP and Node.js layers turn hyphens, underscores and dots into the
// same character, and do not tell cases apart.
func fold(name string) string {
	b := make([]byte, len(name))
	for i := range b {
		b[i] = foldByte(name[i])
	}
	return string(b)
}

func foldByte(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	}
	return '-'
}

// foldsTo reports whether fold(name) is folded, without making it.
func foldsTo(name, folded string) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range len(name) {
		if foldByte(name[i]) != folded[i] {
			return false
		}
	}
	return true
}

// managed reports whether a header or trailer name is one of those that only
// the service may set, or could be taken for one.
func (m *Middleware) managed(name string) bool {
	for i := range m.copies {
		if foldsTo(name, m.copies[i].folded) {
			return true
		}
	}
	return false
}

// alias reports whether name is not, but could be taken for, a field with which
// a proxy describes a request. The field itself stays for whoever behind
// trusts the proxy.
func alias(name string) bool {
	return written(name) && (odd(name) || http.CanonicalHeaderKey(name) != name)
}

// odd reports whether a name has anything but letters, digits and hyphens.
func odd(name string) bool {
	for i := range len(name) {
		if c := name[i]; c != '-' && !isAlnum(c) {
			return true
		}
	}
	return false
}

// strip returns a header map for the next handler in which no field is left
// that a client must not be able to send. The given one is not changed.
func (m *Middleware) strip(from http.Header) http.Header {
	h := maps.Clone(from)
	if h == nil {
		return make(http.Header)
	}
	for name := range from {
		if m.managed(name) || alias(name) {
			delete(h, name)
		}
	}
	if lines := h["Connection"]; slices.ContainsFunc(lines, m.namesManaged) {
		if h["Connection"] = m.withoutManaged(lines); len(h["Connection"]) == 0 {
			delete(h, "Connection")
		}
	}
	return h
}

// namesManaged reports whether a line of Connection has the name of a managed
// field. A proxy behind drops what is named there (RFC 9110, section 7.6.1), and
// an identity is not the client's to drop.
func (m *Middleware) namesManaged(line string) bool {
	for name := range strings.SplitSeq(line, ",") {
		if m.managed(strings.TrimSpace(name)) {
			return true
		}
	}
	return false
}

// withoutManaged returns the lines of Connection without those names.
func (m *Middleware) withoutManaged(lines []string) (kept []string) {
	for _, line := range lines {
		names := slices.DeleteFunc(strings.Split(line, ","), m.namesManaged)
		if line = strings.TrimSpace(strings.Join(names, ",")); line != "" {
			kept = append(kept, line)
		}
	}
	return kept
}

// stripTrailer gives the inner request a map of trailers in which the managed
// ones and the aliases are missing. The server fills the outer's when the body has been read,
// on HTTP/1.1 also with fields that were not announced, so the body has to be
// watched for its end.
func (m *Middleware) stripTrailer(outer, inner *http.Request) {
	if outer.Trailer == nil {
		return
	}
	inner.Trailer = make(http.Header, len(outer.Trailer))
	m.copyTrailer(inner.Trailer, outer.Trailer)
	if inner.Body != nil && inner.Body != http.NoBody {
		inner.Body = &trailing{ReadCloser: inner.Body, end: func() { m.copyTrailer(inner.Trailer, outer.Trailer) }}
	}
}

func (m *Middleware) copyTrailer(to, from http.Header) {
	maps.Copy(to, from)
	maps.DeleteFunc(to, func(name string, _ []string) bool { return m.managed(name) || alias(name) })
}

// trailing is a body that tells when it has been read to its end.
type trailing struct {
	io.ReadCloser
	end func()
}

func (b *trailing) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.end()
	}
	return n, err
}
