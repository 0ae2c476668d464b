package wsproxy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Hijack is never called.
func (hijackableRecorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}

func (hijackableRecorder) SetReadDeadline(time.Time) error { return nil }

func (hijackableRecorder) SetWriteDeadline(time.Time) error { return nil }

func contextWithServer(r *http.Request, srv *http.Server) context.Context {
	return context.WithValue(r.Context(), http.ServerContextKey, srv)
}
