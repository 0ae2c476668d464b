package forwardauth

import "net/http"

// OwnTransport returns the transport that New has made.
func OwnTransport(m *Middleware) *http.Transport { return m.own }

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
