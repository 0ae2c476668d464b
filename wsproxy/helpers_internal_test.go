package wsproxy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
)

// Hijack is never called.
func (hijackableRecorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}

func contextWithServer(r *http.Request, srv *http.Server) context.Context {
	return context.WithValue(r.Context(), http.ServerContextKey, srv)
}
