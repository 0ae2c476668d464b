package mwtest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
)

// writes is a middleware whose writer, made by f, differs from that of
// correct.
func writes(name string, f func(http.ResponseWriter) http.ResponseWriter, caught ...string) brokenMiddleware {
	return broken(name, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		serveCopy(f(w), r, next)
	}, caught...)
}

// Writers that offer too little or too much.

type onlyUnwrap struct{ http.ResponseWriter }

func (w onlyUnwrap) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type noFlusher struct {
	onlyUnwrap
	http.Hijacker
	io.ReaderFrom
}

type noHijacker struct {
	onlyUnwrap
	http.Flusher
	io.ReaderFrom
}

type noReaderFrom struct {
	onlyUnwrap
	http.Flusher
	http.Hijacker
}

type noUnwrap1 struct {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
	io.ReaderFrom
}

type noUnwrap2 struct {
	http.ResponseWriter
	http.Flusher
}

// hijackAlways claims to be able to hijack over any writer.
type hijackAlways struct{ http.ResponseWriter }

func (w hijackAlways) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w hijackAlways) Flush()                      { http.NewResponseController(w.ResponseWriter).Flush() }
func (w hijackAlways) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("cannot hijack")
}

// Writers that treat the status in a wrong way. Each is put into the forms
// of correct's writer by wrapper.

// lateStatus sends the status with the first Write only.
type lateStatus struct {
	http.ResponseWriter
	code int
}

func (w *lateStatus) WriteHeader(code int) {
	if code < 200 && code != http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(code)
	} else if w.code == 0 {
		w.code = code
	}
}

func (w *lateStatus) send() {
	if w.code != 0 {
		w.ResponseWriter.WriteHeader(w.code)
		w.code = 0
	}
}

func (w *lateStatus) Write(p []byte) (int, error) { w.send(); return w.ResponseWriter.Write(p) }

func (w *lateStatus) ReadFrom(r io.Reader) (int64, error) {
	w.send()
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

func (w *lateStatus) FlushError() error {
	w.send()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// filterStatus passes on the status codes that keep lets through.
type filterStatus struct {
	http.ResponseWriter
	keep func(code int) bool
}

func (w *filterStatus) WriteHeader(code int) {
	if w.keep(code) {
		w.ResponseWriter.WriteHeader(code)
	}
}

func (w *filterStatus) ReadFrom(r io.Reader) (int64, error) {
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

func keepStatus(keep func() func(code int) bool) func(http.ResponseWriter) http.ResponseWriter {
	return func(w http.ResponseWriter) http.ResponseWriter { return wrapper(w, &filterStatus{w, keep()}) }
}

// noLength deletes the handler's Content-Length.
type noLength struct{ http.ResponseWriter }

func (w noLength) WriteHeader(code int) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.WriteHeader(code)
}

func (w noLength) Write(p []byte) (int, error) {
	w.Header().Del("Content-Length")
	return w.ResponseWriter.Write(p)
}

func (w noLength) ReadFrom(r io.Reader) (int64, error) {
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

// ownHeader gives the handler a header map of its own and makes the real one
// equal to it with the status, and never after.
type ownHeader struct {
	http.ResponseWriter
	h    http.Header
	sent bool
}

func (w *ownHeader) Header() http.Header { return w.h }

func (w *ownHeader) send() {
	if w.sent {
		return
	}
	w.sent = true
	dst := w.ResponseWriter.Header()
	clear(dst)
	maps.Copy(dst, w.h)
}

func (w *ownHeader) WriteHeader(code int) {
	w.send()
	w.sent = code >= 200 || code == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(code)
}

func (w *ownHeader) Write(p []byte) (int, error) { w.send(); return w.ResponseWriter.Write(p) }

func (w *ownHeader) ReadFrom(r io.Reader) (int64, error) {
	w.send()
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

func (w *ownHeader) FlushError() error {
	w.send()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// buffer keeps the body until the handler returns.
type buffer struct {
	http.ResponseWriter
	body bytes.Buffer
	code int
}

func (w *buffer) WriteHeader(code int) {
	if code < 200 {
		w.ResponseWriter.WriteHeader(code)
	} else if w.code == 0 {
		w.code = code
	}
}
func (w *buffer) Write(p []byte) (int, error)         { return w.body.Write(p) }
func (w *buffer) ReadFrom(r io.Reader) (int64, error) { return w.body.ReadFrom(r) }
func (w *buffer) FlushError() error                   { return nil }

// chatty says something on a connection before the handler does.
type chatty struct{ wrapped1 }

func (w chatty) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.wrapped1.Hijack()
	if err == nil {
		io.WriteString(c, "hello, ")
	}
	return c, rw, err
}

// Middlewares whose defect is in the writer.
var brokenWriters = []brokenMiddleware{
	writes("loses Flusher", func(w http.ResponseWriter) http.ResponseWriter {
		if h, ok := w.(http.Hijacker); ok {
			return noFlusher{onlyUnwrap{w}, h, w.(io.ReaderFrom)}
		}
		return onlyUnwrap{w}
	}, "abilities", "flusher"),
	writes("only Unwrap", func(w http.ResponseWriter) http.ResponseWriter { return onlyUnwrap{w} },
		"abilities", "flusher", "hijack"),
	writes("loses Hijacker", func(w http.ResponseWriter) http.ResponseWriter {
		if rf, ok := w.(io.ReaderFrom); ok {
			return noHijacker{onlyUnwrap{w}, w.(http.Flusher), rf}
		}
		return wrapper(w, w)
	}, "abilities", "hijack"),
	writes("loses ReaderFrom", func(w http.ResponseWriter) http.ResponseWriter {
		if h, ok := w.(http.Hijacker); ok {
			return noReaderFrom{onlyUnwrap{w}, w.(http.Flusher), h}
		}
		return wrapper(w, w)
	}, "abilities"),
	writes("no Unwrap", func(w http.ResponseWriter) http.ResponseWriter {
		f, flush := w.(http.Flusher)
		h, hijack := w.(http.Hijacker)
		switch {
		case hijack:
			return noUnwrap1{w, f, h, w.(io.ReaderFrom)}
		case flush:
			return noUnwrap2{w, f}
		}
		return bare{w}
	}, "unwrap", "read deadline", "write deadline", "full duplex"),
	writes("offers Hijacker to all", func(w http.ResponseWriter) http.ResponseWriter {
		if _, ok := w.(http.Hijacker); ok {
			return wrapper(w, w)
		}
		return hijackAlways{w}
	}, "abilities", "no abilities"),
	writes("ReadFrom by Write", func(w http.ResponseWriter) http.ResponseWriter {
		return wrapper(w, struct{ http.ResponseWriter }{w})
	}, "read from"),

	writes("swallows 103", keepStatus(func() func(int) bool {
		return func(code int) bool { return code != http.StatusEarlyHints }
	}), "early hints"),
	writes("takes 103 for the status", keepStatus(func() func(int) bool {
		done := false
		return func(code int) bool { defer func() { done = true }(); return !done }
	}), "early hints", "response"), // also hides a second WriteHeader from the server's log
	writes("passes 103 twice", func(w http.ResponseWriter) http.ResponseWriter {
		return wrapper(w, &filterStatus{w, func(code int) bool {
			if code == http.StatusEarlyHints {
				w.WriteHeader(code)
			}
			return true
		}})
	}, "early hints"),
	writes("takes 101 for an interim response", keepStatus(func() func(int) bool {
		return func(code int) bool { return code != http.StatusSwitchingProtocols }
	}), "switching protocols"),
	writes("loses a status without a body", func(w http.ResponseWriter) http.ResponseWriter {
		return wrapper(w, &lateStatus{ResponseWriter: w})
	}, "response", "bodyless", "switching protocols", "read deadline", "expect continue"),
	writes("deletes Content-Length", func(w http.ResponseWriter) http.ResponseWriter { return wrapper(w, noLength{w}) },
		"response"),
	broken("loses late trailers", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		own := &ownHeader{ResponseWriter: w, h: w.Header().Clone()}
		serveCopy(wrapper(w, own), r, next)
		own.send()
	}, "response trailers"),
	broken("keeps the response until the end", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		b := &buffer{ResponseWriter: w}
		serveCopy(wrapper(w, b), r, next)
		if b.code != 0 {
			w.WriteHeader(b.code)
		}
		w.Write(b.body.Bytes())
	}, "flusher", "controller flush", "full duplex", "hijack", "nested", "read from", "response", "response trailers", "write deadline"),
	broken("answers after the handler", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		serveCopy(wrapper(w, w), r, next)
		w.WriteHeader(http.StatusOK)
	}, "response"),
	broken("cuts the upload", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r2 := r.WithContext(r.Context())
		r2.Body = http.MaxBytesReader(nil, r.Body, 150_000)
		next.ServeHTTP(w, r2)
		copyBack(r, r2)
	}, "large bodies"),
	writes("writes into a hijacked connection", func(w http.ResponseWriter) http.ResponseWriter {
		if _, ok := w.(http.Hijacker); ok {
			return chatty{wrapped1{wrapped2{wrapped{w, w}}}}
		}
		return wrapper(w, w)
	}, "hijack", "switching protocols"),
}
