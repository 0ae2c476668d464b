package forwardauth

import (
	"net"
	"net/http"
	"time"
)

// OwnTransport returns the transport that New has made.
func OwnTransport(m *Middleware) *http.Transport { return m.own }

// OwnDialer returns what that transport dials with.
func OwnDialer(m *Middleware) *net.Dialer { return &m.dialer }

// ReadIdentity returns the fields that an entry of the cache has, and whether
// it is one.
func ReadIdentity(m *Middleware, entry string) (http.Header, bool) {
	id, ok := m.readIdentity(entry)
	h := make(http.Header)
	if ok {
		m.present(h, &id)
	}
	return h, ok
}

// AppendIdentity returns the entry for the header of an answer.
func AppendIdentity(m *Middleware, h http.Header) string {
	return string(m.appendIdentity(nil, &identity{header: h}))
}

// The parsers of what others have written.

func AcceptsHTML(h http.Header) bool                { return acceptsHTML(h) }
func FilterCookies(lines, names []string) []string  { return filterCookies(lines, names) }
func CookieName(line string) string                 { return cookieName(line) }
func Freshness(h http.Header) (time.Duration, bool) { return freshness(h) }
func RetryAfter(h http.Header) time.Duration        { return retryAfter(h) }
