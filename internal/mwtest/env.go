package mwtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/plainware/internal/memnet"
)

// patience is how long a rule waits for what must happen at once. In a
// bubble the wait is free. It is longer than any limit that a middleware
// under test may have, so that a limit which fires is reported as itself.
const patience = 10 * time.Second

// env is the surroundings of one rule over one protocol.
type env struct {
	t     testing.TB
	proto memnet.Proto
	mw    Middleware // of a handler rule
	tr    Transport  // of a transport rule

	large int // size of a large body; 0 means largeSize

	// For the tests of the rules themselves, with what is broken on purpose.
	noRaces bool // leave out what only the race detector looks at

	mu       sync.Mutex
	problems []error
	log      bytes.Buffer // of all servers
}

// errorf reports a breach. It may be called from any goroutine.
func (e *env) errorf(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.problems = append(e.problems, fmt.Errorf(format, args...))
}

// Write makes env the output of the servers' logs.
func (e *env) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(p)
}

// logged returns what the servers have logged and forgets it.
func (e *env) logged() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.log.Reset()
	return e.log.String()
}

// wrap puts a new instance of the middleware around h.
func (e *env) wrap(h http.HandlerFunc) http.Handler { return e.mw.New(e.t)(h) }

// serve runs h on a server of its own.
func (e *env) serve(h http.Handler) *memnet.Server {
	return memnet.Serve(e.t, e.proto, &http.Server{Handler: h, ErrorLog: log.New(e, "", 0)})
}

// wait reports whether c is closed or gives a value in time.
func wait[T any](c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-time.After(patience):
		return false
	}
}

// request returns a request with a context that ends when patience does.
func (e *env) request(s *memnet.Server, method, path string, body io.Reader) *http.Request {
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	e.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

// answer is all that a client can see of a response.
type answer struct {
	Status  int
	Interim []string // 1xx responses: code and header
	Header  http.Header
	Length  int64 // as announced; -1 if not
	Body    string
	Cut     bool // the body ended with an error
	Trailer http.Header
}

// fetch sends r and reads the response to its end.
func (e *env) fetch(rt http.RoundTripper, r *http.Request) (answer, error) {
	var a answer
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		a.Interim = append(a.Interim, fmt.Sprint(code, " ", headerText(http.Header(h), e.mw.ResponseHeaders)))
		return nil
	}}
	res, err := rt.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	a.Status, a.Header, a.Length, a.Trailer = res.StatusCode, res.Header, res.ContentLength, res.Trailer
	a.Body, a.Cut = string(body), err != nil
	return a, nil
}

// same fetches the same request, made anew by each call of ask, from h with
// and without the middleware and reports every difference.
func (e *env) same(what string, h http.HandlerFunc, ask func(*memnet.Server) *http.Request) {
	e.compare(what, e.serve(h), e.serve(e.wrap(h)), ask)
}

// compare is same for two running servers, of which plain has no middleware.
// It returns what each has logged meanwhile.
func (e *env) compare(what string, plain, s *memnet.Server, ask func(*memnet.Server) *http.Request) (wantLog, gotLog string) {
	e.logged()
	want, err := e.fetch(plain.Transport, ask(plain))
	if err != nil {
		e.t.Fatalf("mwtest: %s without the middleware: %v", what, err)
	}
	wantLog = e.logged()
	got, err := e.fetch(s.Transport, ask(s))
	if err != nil {
		e.errorf("%s: %v", what, err)
		return
	}
	e.diff(what, got, want)
	return wantLog, e.logged()
}

// get returns an ask for compare and same.
func (e *env) get(method, path string) func(*memnet.Server) *http.Request {
	return func(s *memnet.Server) *http.Request { return e.request(s, method, path, nil) }
}

// diff reports where got is not want, apart from the headers that the
// middleware adds by design.
func (e *env) diff(what string, got, want answer) {
	check := func(part string, g, w any) {
		if fmt.Sprint(g) != fmt.Sprint(w) {
			e.errorf("%s: %s: %s, want %s", what, part, shorten(g), shorten(w))
		}
	}
	check("status", got.Status, want.Status)
	check("1xx responses", got.Interim, want.Interim)
	check("header", headerText(got.Header, e.mw.ResponseHeaders), headerText(want.Header, e.mw.ResponseHeaders))
	check("Content-Length", got.Length, want.Length)
	check("body", got.Body, want.Body)
	check("body cut off", got.Cut, want.Cut)
	check("trailer", headerText(got.Trailer, nil), headerText(want.Trailer, nil))
}

// headerText writes h in a fixed order and without the names in leave.
func headerText(h http.Header, leave []string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if !named(leave, k) {
			fmt.Fprintf(&b, "%s: %q; ", k, h[k])
		}
	}
	return b.String()
}

func named(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// shorten keeps large bodies out of messages.
func shorten(v any) string {
	s := fmt.Sprintf("%q", fmt.Sprint(v))
	if len(s) > 300 {
		return fmt.Sprintf("%s… (%d bytes)", s[:300], len(s))
	}
	return s
}

// raw sends text on a connection of its own and returns it with its reader,
// for what net/http's client cannot do. The connection fails when patience
// ends.
func (e *env) raw(s *memnet.Server, text string) (net.Conn, *bufio.Reader) {
	c, err := s.Listener.Dial(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		e.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}
