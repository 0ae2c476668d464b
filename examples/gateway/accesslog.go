package main

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// accessLog logs one line for each request when it is over, however it ended.
// The query is left out: it is where tokens and personal data are.
func accessLog(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, path := time.Now(), r.URL.EscapedPath()
		rec := &recorder{ResponseWriter: w}
		var seen http.ResponseWriter = rec
		if _, ok := w.(http.Hijacker); ok {
			seen = hijackable{rec}
		}
		returned := false
		defer func() {
			// Not recovered: the server decides what a panic means. With
			// http.ErrAbortHandler an answer that has begun is cut.
			if rec.status == 0 && returned {
				rec.status = http.StatusOK // what net/http sends then
			}
			attrs := []slog.Attr{
				slog.String("method", r.Method),
				slog.String("path", path),
				slog.Int("status", rec.status),
				slog.Int64("bytes", rec.bytes),
				slog.Duration("duration", time.Since(start)),
				slog.String("proto", r.Proto),
				slog.String("remote", r.RemoteAddr),
			}
			if r.Pattern != "" { // the mux is inside; its choice is known by now
				attrs = append(attrs, slog.String("route", r.Pattern))
			}
			if !returned {
				attrs = append(attrs, slog.Bool("aborted", true))
			}
			logger.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
		}()
		next.ServeHTTP(seen, r)
		returned = true
	})
}

// recorder notes the status and counts the bytes of a response. Unwrap leads
// [http.ResponseController] to everything else that the server's writer can
// do, which is the way that ReverseProxy and the kit take. Flush is here for
// handlers that ask for the interface instead.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	// 1xx announce something and the status is still to come; 101 is final.
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *recorder) Flush() { w.FlushError() }

func (w *recorder) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// hijackable is the recorder of a connection that can be taken over, which
// those of HTTP/2 cannot: it must not claim so.
type hijackable struct{ *recorder }

// Hijack is the end of what can be recorded. The connection carries another
// protocol from here on, so 101 is what the client was told.
func (w hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, buf, err
}
