package wsproxy

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// handlerStream is the client's side of a tunnel over HTTP/2: the body of the
// request and the writer of the response, as long as the handler runs.
type handlerStream struct {
	body    io.ReadCloser
	w       http.ResponseWriter
	rc      *http.ResponseController
	aborted atomic.Bool

	mu       sync.Mutex
	over     bool // the handler returns: nothing of w and body may be touched
	panicked any  // what a wrapper's method panicked with, for the handler's goroutine
}

// newHandlerStream opens the stream: the response is sent.
func newHandlerStream(w http.ResponseWriter, r *http.Request) (*handlerStream, error) {
	s := &handlerStream{body: r.Body, w: w, rc: http.NewResponseController(w)}
	// The server's timeouts are for requests and would end the tunnel.
	// Where a writer hides them, the server has none, or nothing can be done.
	s.rc.SetReadDeadline(time.Time{})
	s.rc.SetWriteDeadline(time.Time{})
	w.WriteHeader(http.StatusOK)
	if err := s.rc.Flush(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *handlerStream) Read(p []byte) (n int, err error) {
	defer s.caught(&err)
	return s.body.Read(p)
}

func (s *handlerStream) Write(p []byte) (n int, err error) {
	defer s.caught(&err)
	n, err = s.w.Write(p)
	if err == nil {
		err = s.rc.Flush()
	}
	return n, err
}

// caught makes an error of a panic, which would end the process in a goroutine
// that is not the handler's, and keeps it for repanic. It is to be deferred.
func (s *handlerStream) caught(err *error) {
	v := recover()
	if v == nil {
		return
	}
	*err = fmt.Errorf("wsproxy: a wrapper panicked: %v", v)
	s.mu.Lock()
	s.keep(v)
	s.mu.Unlock()
	s.Abort()
}

// keep keeps what was recovered, if that is anything, for repanic. It is called
// with mu held.
func (s *handlerStream) keep(v any) {
	if v != nil && s.panicked == nil {
		s.panicked = v
	}
}

// control calls f, which is to end a Read or a Write, unless the handler is over.
// What a wrapper panics with is kept: it may be the clock that calls.
func (s *handlerStream) control(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	defer func() { s.keep(recover()) }()
	f()
}

// repanic panics as a Read or a Write did. It is the handler's to call.
func (s *handlerStream) repanic() {
	s.mu.Lock()
	v := s.panicked
	s.mu.Unlock()
	if v != nil {
		panic(v)
	}
}

// CloseWrite does nothing: net/http sends END_STREAM when the handler returns.
func (s *handlerStream) CloseWrite() error { return nil }

func (s *handlerStream) halfCloses() bool { return false }

// Close makes a Read return; the rest is done by the return of the handler.
func (s *handlerStream) Close() (err error) {
	s.control(func() {
		// A deadline leaves the body alone otherwise, while Close of a body that
		// middleware has wrapped may read the rest of it.
		if s.rc.SetReadDeadline(past) != nil {
			err = s.body.Close()
		}
	})
	return err
}

// Abort makes Read and Write return and has net/http reset the stream.
func (s *handlerStream) Abort() {
	if s.aborted.Swap(true) {
		return
	}
	s.control(func() { s.rc.SetWriteDeadline(past) })
	s.Close()
}

// end is the last that the handler does.
func (s *handlerStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}
