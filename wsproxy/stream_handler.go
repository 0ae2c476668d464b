package wsproxy

import (
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

	mu   sync.Mutex
	over bool // the handler returns: nothing of w and body may be touched
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

func (s *handlerStream) Read(p []byte) (int, error) { return s.body.Read(p) }

func (s *handlerStream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil {
		err = s.rc.Flush()
	}
	return n, err
}

// CloseWrite does nothing: net/http sends END_STREAM when the handler returns.
func (s *handlerStream) CloseWrite() error { return nil }

func (s *handlerStream) halfCloses() bool { return false }

// Close makes a Read return; the rest is done by the return of the handler.
func (s *handlerStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	// A deadline leaves the body alone otherwise, while Close of a body that
	// middleware has wrapped may read the rest of it.
	if s.rc.SetReadDeadline(past) != nil {
		return s.body.Close()
	}
	return nil
}

// Abort makes Read and Write return and has net/http reset the stream.
func (s *handlerStream) Abort() {
	s.mu.Lock()
	over := s.over || s.aborted.Swap(true)
	if !over {
		s.rc.SetWriteDeadline(past)
	}
	s.mu.Unlock()
	if !over {
		s.Close()
	}
}

// end is the last that the handler does.
func (s *handlerStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}
