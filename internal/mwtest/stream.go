package mwtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"example.com/plainware/internal/memnet"
)

var streamRules = []rule{
	{"flusher", "http.Flusher sends what was written while the handler goes on", all, checkFlusher},
	{"controller flush", "ResponseController.Flush sends what was written while the handler goes on", all, checkControllerFlush},
	{"read deadline", "ResponseController.SetReadDeadline ends a read of the body, in time and not before", both, checkReadDeadline},
	{"write deadline", "ResponseController.SetWriteDeadline ends a write to a client that does not read", both, checkWriteDeadline},
	{"full duplex", "after EnableFullDuplex the handler reads and writes in turn", all, checkFullDuplex},
	{"client abort", "a client that leaves cancels the handler's context", all, checkClientAbort},
}

func checkFlusher(e *env) {
	checkFlush(e, func(w http.ResponseWriter) error {
		f, ok := w.(http.Flusher)
		if !ok {
			return errors.New("the writer has no Flush")
		}
		f.Flush()
		return nil
	})
}

func checkControllerFlush(e *env) {
	checkFlush(e, func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() })
}

// checkFlush lets the handler take each step only after the client has seen
// the one before.
func checkFlush(e *env, flush func(http.ResponseWriter) error) {
	seen := make(chan struct{})
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusAccepted)
		for _, event := range []string{"", "one\n", "two\n"} {
			io.WriteString(w, event)
			if err := flush(w); err != nil {
				e.errorf("flush: %v", err)
				return
			}
			if !wait(seen) {
				e.errorf("the client does not see %q while the handler waits", event)
				return
			}
		}
	}))
	res, err := s.Transport.RoundTrip(e.request(s, "GET", "/", nil))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusAccepted || res.Header.Get("Content-Type") != "text/event-stream" {
		e.errorf("the flushed header has status %d and Content-Type %q", res.StatusCode, res.Header.Get("Content-Type"))
	}
	tell := func() {
		select {
		case seen <- struct{}{}:
		case <-time.After(patience): // the handler has given up
		}
	}
	tell()
	for _, want := range []string{"one\n", "two\n"} {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			e.errorf("the client read %q, %v; want %q", got, err, want)
			return
		}
		tell()
	}
	if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
		e.errorf("at the end the client read %q, %v", rest, err)
	}
}

// stalled is a request body that gives a few bytes and then nothing until
// the client gives up.
type stalled struct {
	first io.Reader
	ctx   context.Context
}

func (s *stalled) Read(p []byte) (int, error) {
	if n, err := s.first.Read(p); err == nil {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func checkReadDeadline(e *env) {
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		start := time.Now()
		if err := rc.SetReadDeadline(start.Add(time.Second)); err != nil {
			e.errorf("SetReadDeadline: %v", err)
			return
		}
		body, err := io.ReadAll(r.Body)
		if string(body) != "abc" || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			e.errorf("reading a stalled body with a deadline of 1s gave %q, %v after %v", body, err, time.Since(start))
		}
		w.WriteHeader(http.StatusRequestTimeout)
	}))
	r := e.request(s, "POST", "/", nil)
	r.Body = &readCloser{Reader: &stalled{first: strings.NewReader("abc"), ctx: r.Context()}}
	r.ContentLength = 10
	res, err := s.Transport.RoundTrip(r)
	if err != nil {
		e.errorf("%v", err)
		return
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestTimeout {
		e.errorf("status %d", res.StatusCode)
	}
}

// readCloser is a request body whose type net/http does not know.
type readCloser struct {
	io.Reader
	closed atomic.Bool
}

func (r *readCloser) Close() error {
	r.closed.Store(true)
	return nil
}

// endless is the size of a body that nobody reads to its end: far more than
// all buffers and a smallWindow take, and yet an end, for the sake of a
// writer or transport that keeps everything.
const endless = 2 << 20

// smallWindow makes an HTTP/2 client stop its server after about as many
// bytes as stop one of HTTP/1.1; the default is 4 MiB.
func smallWindow(s *memnet.Server) {
	s.Transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
}

func checkWriteDeadline(e *env) {
	done := make(chan struct{})
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		start := time.Now()
		if err := http.NewResponseController(w).SetWriteDeadline(start.Add(time.Second)); err != nil {
			e.errorf("SetWriteDeadline: %v", err)
			return
		}
		buf := make([]byte, 64<<10)
		for range endless / len(buf) {
			if _, err := w.Write(buf); err != nil {
				if time.Since(start) != time.Second {
					e.errorf("the write failed after %v, want 1s: %v", time.Since(start), err)
				}
				return
			}
		}
		e.errorf("writes do not fail")
	}))
	smallWindow(s)
	res, err := s.Transport.RoundTrip(e.request(s, "GET", "/", nil))
	if err != nil {
		e.errorf("%v", err)
		return
	}
	wait(done)
	res.Body.Close()
}

func checkFullDuplex(e *env) {
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			e.errorf("EnableFullDuplex: %v", err)
			return
		}
		buf := make([]byte, 4)
		for {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				if err != io.EOF {
					e.errorf("reading between writes: %v", err)
				}
				return
			}
			w.Write(buf)
			rc.Flush()
		}
	}))
	pr, pw := io.Pipe()
	go io.WriteString(pw, "ping")
	defer pw.Close()
	r := e.request(s, "POST", "/", pr)
	// A call that fails waits for a read of its body that is under way.
	defer context.AfterFunc(r.Context(), func() { pr.Close() })()
	res, err := s.Transport.RoundTrip(r)
	if err != nil {
		e.errorf("%v", err)
		return
	}
	defer res.Body.Close()
	got := make([]byte, 4)
	for _, next := range []string{"pong", "quit", ""} {
		if _, err := io.ReadFull(res.Body, got); err != nil {
			e.errorf("the client read %q, %v", got, err)
			return
		}
		if next != "" {
			io.WriteString(pw, next)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
		e.errorf("at the end the client read %q, %v", rest, err)
	}
}

func checkClientAbort(e *env) {
	begun, done := make(chan struct{}), make(chan struct{})
	s := e.serve(e.wrap(func(w http.ResponseWriter, r *http.Request) {
		defer close(done) // one request, so once
		close(begun)
		if !wait(r.Context().Done()) {
			e.errorf("the handler's context is not cancelled when the client leaves")
		}
	}))
	r := e.request(s, "GET", "/", nil)
	ctx, cancel := context.WithCancel(r.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := s.Transport.RoundTrip(r.WithContext(ctx))
		failed <- err
	}()
	if !wait(begun) {
		e.errorf("the handler was not called")
		cancel()
		return
	}
	cancel()
	if err := <-failed; err == nil {
		e.errorf("the client got a response")
	}
	wait(done)
}
