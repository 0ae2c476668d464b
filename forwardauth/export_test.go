package forwardauth

import "net/http"

// OwnTransport returns the transport that New has made.
func OwnTransport(m *Middleware) *http.Transport { return m.own }
