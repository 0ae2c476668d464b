package mwtest

import (
	"io"
	"net/http"
	"slices"
	"testing"

	"example.com/plainware/internal/memnet"
)

// Transport is what RunTransport tests, and what it is allowed to do by
// design.
type Transport struct {
	// New returns a new instance that sends by way of base. It is called
	// many times, in a bubble each. Base is an *http.Transport in some rules
	// and a substitute in others. Required.
	New func(t testing.TB, base http.RoundTripper) http.RoundTripper

	// RequestHeaders names the headers that it may add to, change in or
	// delete from the request that it sends on; never in the caller's.
	// Empty means that the request goes on as it is.
	RequestHeaders []string

	// ReadsBody says that it reads the whole body of a request before it
	// sends the request on. The rule that watches a body arrive while it is
	// written is left out then.
	ReadsBody bool
}

// RunTransport checks what http.RoundTripper asks for and what a client can
// expect to pass through one that has a base.
func RunTransport(t *testing.T, tr Transport) {
	t.Helper()
	if tr.New == nil {
		t.Fatal("mwtest: New: is required")
	}
	for _, r := range transportRules {
		if tr.ReadsBody && slices.Contains(whileItArrives, r.name) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			for _, p := range r.over {
				t.Run(p.String(), func(t *testing.T) {
					inBubble(t, r, &env{proto: p, tr: tr})
				})
			}
		})
	}
}

// transportRules are the rules of RunTransport, by theme.
var transportRules = slices.Concat(sendRules, receiveRules)

// through returns a new instance over the server's own transport.
func (e *env) through(s *memnet.Server) http.RoundTripper {
	return e.tr.New(e.t, s.Transport)
}

// sameThrough fetches the same request, made anew by each call of ask, with
// and without the transport under test and reports every difference.
func (e *env) sameThrough(what string, h http.HandlerFunc, ask func(*memnet.Server) *http.Request) {
	s := e.serve(h)
	want, err := e.fetch(s.Transport, ask(s))
	if err != nil {
		e.t.Fatalf("mwtest: %s without the transport: %v", what, err)
	}
	got, err := e.fetch(e.through(s), ask(s))
	if err != nil {
		e.errorf("%s: %v", what, err)
		return
	}
	e.diff(what, got, want)
}

// base is a substitute for *http.Transport that keeps the contract of
// http.RoundTripper: whatever send does, the body of the request is closed.
type base struct {
	send func(*http.Request) (*http.Response, error)
	idle int // calls of CloseIdleConnections
}

func (b *base) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	return b.send(r)
}

func (b *base) CloseIdleConnections() { b.idle++ }

// ok is a send that reads the body and answers 200.
func ok(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody, Request: r,
	}, nil
}

// roundTrip is tr.RoundTrip with the body of the response closed, for rules
// about the request.
func (e *env) roundTrip(tr http.RoundTripper, r *http.Request) error {
	res, err := tr.RoundTrip(r)
	switch {
	case err == nil && res == nil:
		e.errorf("neither a response nor an error")
	case err == nil && res.Body == nil:
		e.errorf("a response with a nil Body")
	case err != nil && res != nil:
		e.errorf("a response and an error: %v", err)
	case err == nil:
		res.Body.Close()
	}
	return err
}
